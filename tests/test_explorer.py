"""The explorer: its API over the kinds of data, what it refuses, and its page in a browser."""

import io
import json
import shutil
import socket
import threading
import urllib.error
import urllib.request
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vaestro as vs
from vaestro.cli import main
from vaestro.explorer import Explorer
from vaestro.explorer.guard import MOST_BYTES, Guard
from vaestro.explorer.values import pack, unpack
from vaestro.explorer.worker import Worker

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
KINDS = ("images", "table", "texts", "series", "vectors", "conditional", "discrete", "grid")
SMALL = {"steps": 3, "latent": 3, "batch": 16}


def source_of(kind: str, place: Any) -> tuple[str, dict[str, Any]]:
    r = np.random.default_rng(0)
    mlp = {"network": "mlp:width=8"}
    if kind in ("table", "conditional"):
        lines = ["size,count,colour"]
        for i in range(120):
            size = "" if i % 9 == 3 else round(r.normal(), 2)
            lines.append(f"{size},{r.poisson(3)},{'red' if i % 3 else 'blue'}")
        (place / "t.csv").write_text("\n".join(lines) + "\n")
        return str(place / "t.csv"), mlp | (
            {"condition": "colour"} if kind == "conditional" else {}
        )
    if kind == "texts":
        words = ["".join(r.choice(list("abc"), r.integers(2, 7))) for _ in range(120)]
        (place / "w.txt").write_text("\n".join(words) + "\n")
        return str(place / "w.txt"), {}
    if kind == "series":
        np.save(place / "s.npy", r.normal(size=(120, 12, 2)).cumsum(1).astype(np.float32))
        return f"{place / 's.npy'}:series=true", mlp
    if kind == "vectors":
        np.save(place / "v.npy", r.normal(size=(120, 6)).astype(np.float32))
        return str(place / "v.npy"), mlp
    x = r.integers(0, 256, (120, 8, 8), dtype=np.uint8)
    parts = {"train": slice(0, 90), "valid": slice(90, 105), "test": slice(105, 120)}
    arrays = {name: x[part] for name, part in parts.items()}
    arrays |= {f"{name}_bright": x[part].mean((1, 2)) for name, part in parts.items()}
    np.savez(place / "x.npz", **arrays)
    more = {"images": mlp, "discrete": {**mlp, "posterior": "bernoulli"}, "grid": {}}[kind]
    if kind == "grid":
        more = {"network": "conv:width=8,factor=4"}
    return str(place / "x.npz"), more


@pytest.fixture(scope="module")
def explorers(tmp_path_factory):
    """Return a function that opens the explorer of a run of a kind."""
    place, running = tmp_path_factory.mktemp("explorer"), {}

    def opened(kind: str) -> Explorer:
        if kind not in running:
            source, more = source_of(kind, place)
            running[kind] = vs.train(source, run=place / kind, **SMALL, **more).explore()
        return running[kind]

    opened.place = place
    yield opened
    for explorer in running.values():
        explorer.stop()


def ask(explorer, path, body=None, **headers):
    """Return the status, the headers and the body of an answer."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    fields = {"content-type": "application/json", **headers}
    request = urllib.request.Request(explorer.url + path, data, fields)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def asked(explorer, path, body=None):
    """Return the JSON of an answer that must succeed."""
    status, _, text = ask(explorer, path, body)
    assert status == 200, text
    return json.loads(text)


def refused(explorer, path, body=None, **headers):
    """Return the status of a problem, which must be one line without a traceback."""
    status, fields, text = ask(explorer, path, body, **headers)
    assert fields["content-type"] == "application/problem+json", text
    problem = json.loads(text)
    assert problem["status"] == status
    assert "\n" not in problem["detail"] and "Traceback" not in problem["detail"]
    return status


@pytest.mark.parametrize("kind", KINDS)
def test_every_route_answers_for_every_kind_of_run(explorers, kind):
    explorer = explorers(kind)
    info = asked(explorer, "api/info")
    units = asked(explorer, "api/units")
    assert sorted(u["unit"] for u in units) == list(range(info["units"]))
    code = asked(explorer, "api/encode", {"rows": [0, 1]})
    condition = (code["conditions"] or [{}])[0]
    z = code["z"]
    assert np.shape(z) == (2, info["units"])
    decoded = asked(explorer, "api/decode", {"z": z, "condition": condition})["data"]
    amount = len(decoded.get("rows") or decoded.get("texts") or decoded["values"])
    assert amount == 2
    sampled = asked(explorer, "api/sample", {"n": 3, "condition": condition})
    assert np.shape(sampled["z"]) == (3, info["units"])
    path = {"a": z[0], "b": z[1], "steps": 4, "condition": condition}
    if info["alphabet"]:
        assert refused(explorer, "api/interpolate", path) == 422
        assert asked(explorer, "api/attributes") == []
    else:
        way = asked(explorer, "api/interpolate", path)["z"]
        np.testing.assert_allclose([way[0], way[-1]], z, rtol=1e-5, atol=1e-6)
        for along in asked(explorer, "api/attributes")[:1]:
            body = {"z": z, "attribute": along["name"], "amount": 0.5, "condition": condition}
            moved = asked(explorer, "api/edit", body)["z"]
            np.testing.assert_allclose(
                np.array(moved) - z, [0.5 * np.array(along["step"])] * 2, atol=1e-5
            )
    assert len(asked(explorer, "api/score", {"rows": [0, 1], "k": 2})["elbo"]) == 2
    page = asked(explorer, "api/data?start=1&count=3")
    assert page["start"] == 1 and len(page["attributes"]) == 3
    plane = asked(explorer, "api/map")
    assert len(plane["points"]) == len(plane["rows"])


def test_decoded_values_are_those_of_the_verb_in_json_and_binary(explorers):
    explorer = explorers("vectors")
    z = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    run = vs.Run(explorers.place / "vectors")
    expected = run.decode(z)
    body = {"z": z.tolist()}
    np.testing.assert_allclose(
        asked(explorer, "api/decode", body)["data"]["values"], expected, rtol=1e-5
    )
    raw = ask(explorer, "api/decode", body, accept="application/octet-stream")[2]
    np.testing.assert_allclose(unpack(raw), expected, rtol=1e-6)
    kind = {"content-type": "application/octet-stream", "accept": "application/octet-stream"}
    raw = ask(explorer, "api/decode-raw", pack(z), **kind)[2]
    np.testing.assert_allclose(unpack(raw), expected, rtol=1e-6)
    npz = ask(explorer, "api/decode", body, accept="application/x-npz")[2]
    with np.load(io.BytesIO(npz)) as arrays:
        np.testing.assert_allclose(arrays["values"], expected, rtol=1e-6)
        np.testing.assert_array_equal(arrays["z"], z)


def test_concurrent_clients_receive_their_own_rows(explorers):
    explorer = explorers("vectors")
    run = vs.Run(explorers.place / "vectors")
    z = np.random.default_rng(2).normal(size=(24, 3)).astype(np.float32)
    expected, answers = run.decode(z), {}

    def client(i):
        answers[i] = asked(explorer, "api/decode", {"z": [z[i].tolist()]})["data"]["values"][0]

    threads = [threading.Thread(target=client, args=(i,)) for i in range(len(z))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_allclose([answers[i] for i in range(len(z))], expected, rtol=1e-5, atol=1e-6)


def test_rows_that_wait_are_one_batch_and_a_fault_harms_only_its_batch():
    worker, sizes, gate = Worker(), [], threading.Event()

    def double(rows):
        sizes.append(len(rows))
        return 2 * rows

    worker.call(gate.wait)
    jobs = [worker.decode("a", double, np.full((2, 1), i)) for i in range(5)]
    gone = worker.decode("a", double, np.zeros((7, 1)))
    assert gone.cancel()
    failing = worker.call(lambda: 1 / 0)
    gate.set()
    assert [job.result(10).ravel().tolist() for job in jobs] == [[2 * i] * 2 for i in range(5)]
    with pytest.raises(ZeroDivisionError):
        failing.result(10)
    assert sum(sizes) == 10 and len(sizes) <= 2
    worker.stop()


BAD = [
    ("decode", {"z": [[1.0]]}, 422),
    ("decode", {"z": []}, 422),
    ("decode", {"z": [[1, 2, 3], [1]]}, 422),
    ("decode", {"z": [[0, 0, 0]] * 5000}, 413),
    ("decode", {"z": [[0, 0, 1e300]]}, 422),
    ("decode", {"z": [[0, 0, 0]], "condition": {"nope": 1}}, 422),
    ("decode", {"z": [["a", 0, 0]]}, 422),
    ("decode", {"zz": 1}, 422),
    ("decode", b'{"z": [[NaN, 0, 0]]}', 422),
    ("decode", b"{", 422),
    ("decode", b"\xff\xfe", 422),
    ("decode-raw", b"", 422),
    ("decode-raw", b"VSTR\x01\x02\x00\x00" + b"\xff" * 8, 422),
    ("decode-raw", b"PK\x03\x04 is no archive", 422),
    ("encode", {"rows": [10**9]}, 422),
    ("encode", {"rows": [-1]}, 422),
    ("encode", {}, 422),
    ("encode", {"data": [[1, 2], [3]]}, 422),
    ("encode", {"data": [{"a": 1}]}, 422),
    ("encode", {"data": {"a": [1]}}, 422),
    ("encode", {"data": "text"}, 422),
    ("encode", {"data": []}, 422),
    ("encode", {"data": [[[0] * 9] * 9]}, 422),
    ("encode-file?name=x.png", b"not a picture", 422),
    ("encode-file?name=x.png", b"", 422),
    ("encode-file?name=x.png&condition=%5B%5D", b"x", 422),
    ("edit", {"z": [[0, 0, 0]], "attribute": "nope"}, 422),
    ("sample", {"n": 10**7}, 422),
    ("sample", {"temperature": -1}, 422),
    ("interpolate", {"a": [0, 0, 0], "b": [0, 0]}, 422),
    ("interpolate", {"a": [0, 0, 0], "b": [0, 0, 1], "steps": 1}, 422),
]


@pytest.mark.parametrize(("path", "body", "status"), BAD)
def test_what_does_not_fit_is_a_problem(explorers, path, body, status):
    raw = path.startswith(("decode-raw", "encode-file"))
    more = {"content-type": "application/octet-stream"} if raw else {}
    assert refused(explorers("images"), f"api/{path}", body, **more) == status


def test_other_hosts_origins_and_sizes_are_refused(explorers):
    explorer = explorers("images")
    assert refused(explorer, "api/info", host="evil.example") == 421
    assert refused(explorer, "api/info", origin="http://evil.example") == 403
    assert refused(explorer, "api/decode", b"[]", **{"content-length": str(MOST_BYTES + 1)}) == 413
    assert refused(explorer, "api/nothing") == 404
    assert refused(explorer, "passwd") == 404
    own = Guard(None, "192.168.1.2")
    assert own.allows("192.168.1.2:8000") and own.allows("localhost") and own.allows("10.0.0.1:80")
    assert not own.allows("evil.example") and not Guard(None, "127.0.0.1").allows("10.0.0.1")
    _, headers, _ = ask(explorer, "")
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["access-control-allow-origin"] is None


def test_a_client_that_leaves_harms_nothing(explorers):
    explorer = explorers("images")
    port = int(explorer.url.rsplit(":", 1)[1].strip("/"))
    for size in (0, 20):
        with socket.create_connection(("127.0.0.1", port)) as client:
            head = "POST /api/sample HTTP/1.1\r\nHost: 127.0.0.1\r\ncontent-length: 20\r\n"
            client.sendall(f"{head}content-type: application/json\r\n\r\n".encode())
            client.sendall(b'{"n": 64, "seed": 1}'[:size])
    assert len(asked(explorer, "api/sample", {"n": 2})["z"]) == 2


def test_files_are_read_as_data(explorers):
    buffer = io.BytesIO()
    Image.new("RGB", (30, 20), "white").save(buffer, "JPEG")
    kind = {"content-type": "application/octet-stream"}
    status, _, text = ask(
        explorers("images"), "api/encode-file?name=a.jpg", buffer.getvalue(), **kind
    )
    assert status == 200 and np.shape(json.loads(text)["data"]["values"]) == (1, 8, 8, 1)
    row = b"size,count,colour\n0.5,3,red\n"
    status, _, text = ask(explorers("table"), "api/encode-file?name=a.csv", row, **kind)
    assert status == 200 and json.loads(text)["data"]["rows"][0][2] == "red", text
    status, _, text = ask(explorers("texts"), "api/encode-file?name=a.txt", b"abc\n", **kind)
    assert status == 200 and json.loads(text)["data"]["texts"] == ["abc"]
    numbers = ",".join("1" * 24).encode()
    assert ask(explorers("series"), "api/encode-file?name=a.csv", numbers, **kind)[0] == 200
    assert refused(explorers("table"), "api/encode-file?name=a.csv", b"\x00\x01", **kind) == 422
    assert refused(explorers("texts"), "api/encode-file?name=a.txt", b"\xff\xfe\xfa", **kind) == 422


def test_a_busy_port_and_a_model_without_a_latent(explorers, tmp_path, capsys, monkeypatch):
    explorer = explorers("images")
    port = explorer.url.rsplit(":", 1)[1].strip("/")
    assert main(["explore", str(explorers.place / "images"), "--port", port]) == 2
    assert f"port {port} is in use (the next free one: --port " in capsys.readouterr().err
    assert main(["explore", str(explorers.place / "images"), "--port", "70000"]) == 2
    assert main(["explore", str(explorers.place / "images"), "--host", "203.0.113.1"]) == 2
    capsys.readouterr()
    run = vs.train(["abc", "bca"] * 40, run=tmp_path / "exact", steps=2, model="autoregressive")
    with pytest.raises(ValueError, match="latent"):
        run.explore()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        first = taken.getsockname()[1]
        monkeypatch.setattr("vaestro.explorer.server.PORT", first)
        second = vs.Run(explorers.place / "images").explore()
    assert second.busy == first and str(first) not in second.url
    second.stop()


def until(page, script, argument):
    """Wait until a script returns true: the policy of the page blocks Playwright's own wait."""
    for _ in range(200):
        if page.evaluate(script, argument):
            return
        page.wait_for_timeout(50)
    raise AssertionError(script)


@pytest.mark.parametrize("kind", ["images", "table", "texts", "series"])
def test_the_page_in_a_browser(explorers, kind):
    """A slider moves the picture, the link restores it, undo works, and no console error."""
    if CHROMIUM is None:
        pytest.skip("no Chromium")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    explorer, faults = explorers(kind), []
    look = """() => { const c = document.querySelector('#decoded canvas');
        return c ? c.toDataURL() : document.querySelector('#decoded').textContent; }"""
    with api.sync_playwright() as p:
        browser = p.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 390, "height": 844})
        page.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e: faults.append(str(e)))
        page.goto(explorer.url)
        page.wait_for_selector("body[data-ready]")
        page.wait_for_selector("#decoded > *")
        before, link = page.evaluate(look), page.url
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        slider = page.locator("#sliders input").first
        slider.focus()
        for _ in range(3):
            slider.press("PageUp")
            slider.press("End")
        until(page, "url => location.href !== url", link)
        value = slider.input_value()
        if kind in ("images", "series"):
            until(page, f"before => ({look})() !== before", before)
        page.wait_for_timeout(200)
        after, link = page.evaluate(look), page.url
        page.keyboard.press("Control+z")
        assert slider.input_value() != value
        other = browser.new_page()
        other.goto(link)
        other.wait_for_selector("body[data-ready]")
        other.wait_for_timeout(300)
        assert other.locator("#sliders input").first.input_value() == value
        assert other.evaluate(look) == after
        page.click("#sample")
        page.wait_for_selector("#samples button")
        page.click("#map", position={"x": 40, "y": 40})
        page.click("#start")
        page.locator("#data button").nth(2).click()
        page.click("#end")
        page.wait_for_selector("#path button:nth-child(9)")
        with page.expect_download() as download:
            page.click("#npz")
        assert "z" in np.load(download.value.path()).files
        browser.close()
    assert not faults


def test_small_packets_are_sent_at_once():
    """Otherwise a response of two packets waits for the acknowledgement of the first, 40 ms."""
    from vaestro.explorer.server import _listening

    with _listening("127.0.0.1", 0) as at:
        assert at.proto == socket.IPPROTO_TCP
