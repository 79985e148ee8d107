"""The report: what it shows, what it survives, and that a browser shows it without a fault or a
request."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vaestro as vs
from vaestro.cli import main
from vaestro.report import figures, mapping, render
from vaestro.report.gather import gather, write_report
from vaestro.report.reading import read_folder
from vaestro.report.words import verdict_of
from vaestro.runs import Run
from vaestro.runs.session import Session

CHROMIUM = next(
    (p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))),
    None,
)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
EVIL = "<script>window.hacked=1</script>"
IMAGE = "<img src=x onerror=window.hacked=2>"
CLOSE = '"></script><script>window.hacked=3</script>'
KINDS = ("binary", "colour", "table", "vector", "conditional")


def make_source(kind: str, folder: Path) -> str:
    r = np.random.default_rng(0)
    if kind == "table":
        rows = [f'"{EVIL}",{IMAGE},day,count,amount']
        for i in range(300):
            amount = "" if i % 2 == 0 else f"{r.normal(50, 9):.3f}"
            day = f"2024-0{1 + i % 9}-1{i % 10}"
            rows.append(
                f"{('a', EVIL, CLOSE.replace(chr(34), ''))[i % 3]},{('x', 'y')[i % 2]},"
                f"{day},{r.poisson(4)},{amount}"
            )
        (folder / "t.csv").write_text("\n".join(rows) + "\n")
        return str(folder / "t.csv")
    if kind == "vector":
        np.save(
            folder / "v.npy",
            r.normal(size=(300, 3)) @ r.normal(size=(3, 20)) + 0.1 * r.normal(size=(300, 20)),
        )
        return str(folder / "v.npy")
    if kind == "colour":
        base = r.integers(0, 200, (300, 1, 1, 3)) + 5 * np.arange(8)[:, None, None]
        np.save(
            folder / "c.npy",
            np.clip(base + r.integers(0, 10, (300, 8, 8, 3)), 0, 255).astype(np.uint8),
        )
        return str(folder / "c.npy")
    which = r.integers(0, 3, 400)
    x = (r.random((400, 8, 8)) < r.random((3, 8, 8))[which]).astype(np.uint8) * 255
    parts = {"train": slice(0, 300), "valid": slice(300, 350), "test": slice(350, 400)}
    names = np.array(["bar", EVIL, CLOSE])[which]
    arrays = {name: x[part] for name, part in parts.items()} | {
        f"{name}_{EVIL}": names[part] for name, part in parts.items()
    }
    if kind == "conditional":
        arrays = {name: x[part] for name, part in parts.items()} | {
            f"{name}_shape": which[part] for name, part in parts.items()
        }
    np.savez(folder / f"{kind}.npz", **arrays)
    return str(folder / f"{kind}.npz")


def diagnose(run: Run, verdict: str = "partly collapsed") -> None:
    """Write a diagnosis as the contract has it."""
    units = 4
    r = np.random.default_rng(1)
    edges = np.linspace(-4, 4, 33)
    facts: dict[str, Any] = {
        "verdict": verdict,
        "summary": "Two of four units carry nothing.",
        "active_units": 2,
        "mutual_information": [1.5, 3.0],
        "mutual_information_ceiling": 3.9,
        "split": "valid",
        "n": 50,
        "rate": 3.0,
        "distortion": 20.0,
        "scores": {
            "train": {"mean": -20.0, "stderr": 0.3, "n": 50},
            "valid": {"mean": -21.0, "stderr": 0.4, "n": 50},
            "gap": {"mean": 1.0, "stderr": 0.5},
        },
        "dependence": {"own": 20.0, "other": 31.0, "gain": {"mean": 11.0, "stderr": 0.4}},
        "thresholds": {"activity": 0.01},
        "units": [
            {
                "unit": j,
                "place": [j],
                "rate": [2.0, 1.0, 0.0, 0.0][j],
                "activity": [0.9, 0.5, 0.0, 0.0][j],
                "active": j < 2,
                "share": 0.9,
                "posterior_variance": 0.1,
                "effect": None,
                "effect_stderr": None,
                "aggregate_mean": 0.0,
                "aggregate_std": 1.0,
                "kl_to_prior": 0.1 * j,
                "role": ("informative", "noise", "off", "off")[j],
            }
            for j in range(units)
        ],
        "findings": [
            {
                "name": "units switched off",
                "severity": "note",
                "evidence": f"2 of 4 units are off {EVIL}",
                "remedy": "",
                "figure": "units",
                "numbers": {},
            },
            {
                "name": "overfitting",
                "severity": "error",
                "evidence": "The gap is 1.0 +- 0.5 nats.",
                "remedy": f"vaestro train {CLOSE}",
                "figure": "scores",
                "numbers": {},
            },
            *(
                {
                    "name": f,
                    "severity": "warning",
                    "evidence": "e",
                    "remedy": "",
                    "figure": f,
                    "numbers": {},
                }
                for f in ("curves", "aggregate", "bounds", "dependence", "logvar")
            ),
        ],
        "weights_sha256": run.weights_sha256(),
        "vaestro": "0.1.0",
    }
    (run.path / "diagnosis.json").write_text(json.dumps(facts))
    np.savez(
        run.path / "diagnosis.npz",
        rate=r.random((50, units)),
        mean=r.normal(size=(50, units)),
        logvar=r.normal(size=(50, units)),
        histogram=r.random((units, 32)),
        prior_histogram=r.random((units, 32)),
        edges=edges,
    )


def train(kind: str, folder: Path, name: str = "run", **options: Any) -> Run:
    if kind == "conditional":
        options |= {"condition": ["shape"], "prior": "conditional"}
    given = {
        "latent": 4,
        "steps": 60,
        "batch": 32,
        "network": "mlp:width=16",
        "device": "cpu",
    } | options
    return vs.train(make_source(kind, folder), run=folder / name, **given)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Compute with one thread: several wait for each other on a busy machine, and these models are
    small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Train a run of each kind in a folder with HTML in its name, diagnose it, and write its
    report."""
    made = {}
    for kind in KINDS:
        run = train(kind, tmp_path_factory.mktemp(kind), "<b onmouseover=alert(1)>")
        diagnose(run)
        write_report(run)
        made[kind] = run
    return made


@pytest.fixture
def run(runs: dict[str, Run], tmp_path: Path) -> Run:
    """Copy the run on binary images, to be spoilt."""
    return Run(shutil.copytree(runs["binary"].path, tmp_path / "run"))


def html(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def text_of(page: str) -> str:
    """Return what a page says, without its scripts, styles and tags."""
    bare = re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.S)
    return " ".join(
        re.sub(r"<[^>]+>", " ", bare)
        .replace("&#39;", "'")
        .replace("&#34;", '"')
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .split()
    )


# -- in a browser ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no chromium on this machine")
    with api.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def opened(browser: Any, path: Path, **options: Any) -> tuple[Any, list[str]]:
    """Open a page; return it, and what went wrong: errors, requests that leave it, dialogs."""
    page = browser.new_context(
        **({"viewport": {"width": 1280, "height": 800}} | options)
    ).new_page()
    wrong: list[str] = []
    page.on(
        "console",
        lambda m: wrong.append(f"{m.type}: {m.text}") if m.type in ("error", "warning") else None,
    )
    page.on("pageerror", lambda e: wrong.append(str(e)))
    page.on(
        "request", lambda r: None if r.url.startswith(("file:", "data:")) else wrong.append(r.url)
    )
    page.on("dialog", lambda d: (wrong.append(d.message), d.dismiss()))
    page.goto(path.resolve().as_uri())
    page.wait_for_selector("html[data-ready]")
    return page, wrong


def drawn(page: Any, selector: str = ".plot") -> int:
    """Return how many figures there are, all of which must be drawn, with marks in them."""
    count: int = page.locator(selector).count()
    assert page.locator(f"{selector}.js-plotly-plot svg.main-svg").count() >= count
    marks = "e.querySelector('.trace, .bars, .points')"
    bare = page.evaluate(
        f"[...document.querySelectorAll('{selector}')].filter(e => !{marks}).map(e => "
        f"e.dataset.figure || e.id)"
    )
    assert bare == []
    return count


@pytest.mark.parametrize("kind", ["binary", "colour", "table"])
def test_a_browser_shows_the_report(runs: dict[str, Run], browser: Any, kind: str) -> None:
    page, wrong = opened(browser, runs[kind].path / "report.html")
    assert drawn(page) == 4
    assert page.evaluate("window.hacked") is None
    buttons = set(
        page.evaluate("[...document.querySelectorAll('.modebar-btn')].map(b => b.dataset.title)")
    )
    assert buttons == {
        "Download plot as a PNG",
        "Zoom",
        "Pan",
        "Zoom in",
        "Zoom out",
        "Reset axes",
    }, "and none that sends a figure away"
    broken = page.evaluate(
        "[...document.images].filter(i => !i.complete || !i.naturalWidth).length"
    )
    assert (wrong, broken) == ([], 0)
    label = (
        "f.getAttribute('aria-label') || "
        "f.querySelector('[aria-label]')?.getAttribute('aria-label')"
    )
    names = page.evaluate(
        f"[...document.querySelectorAll('figure, .plot, svg.sketch')].map(f => {label})"
    )
    assert len(names) > 5 and all(names)
    assert all(
        page.evaluate(
            "[...document.querySelectorAll('figure')].map(f => !!f.querySelector('figcaption'))"
        )
    )
    page.context.close()


def test_the_map_can_be_read(runs: dict[str, Run], browser: Any) -> None:
    page, wrong = opened(browser, runs["binary"].path / "report.html")
    chosen = page.locator("#map-colour")
    assert EVIL in page.locator("#map-colour option").all_inner_texts()
    for option in range(page.locator("#map-colour option").count()):
        chosen.select_option(str(option))
        assert page.locator("#map-plot .point").count() >= 50
    page.locator("#map-projection").select_option("0")
    assert "PCA" in page.locator("#map-note").inner_text()
    page.locator("#map-plot").scroll_into_view_if_needed()
    point = page.locator("#map-plot .point").first.bounding_box()
    page.mouse.move(point["x"] + point["width"] / 2, point["y"] + point["height"] / 2)
    page.wait_for_selector("#map-card dl", timeout=5000)
    card = page.locator("#map-card")
    assert card.is_visible() and "data:image/png" in card.locator("i").evaluate(
        "e => e.style.backgroundImage"
    )
    assert EVIL in card.inner_text() and "bound on log p(x)" in card.inner_text()
    assert page.evaluate("window.hacked") is None and wrong == []
    page.context.close()


def test_themes_phones_and_paper(runs: dict[str, Run], browser: Any) -> None:
    page, wrong = opened(
        browser,
        runs["binary"].path / "report.html",
        color_scheme="dark",
        viewport={"width": 360, "height": 740},
    )

    def colours() -> tuple[str, str]:
        page.wait_for_timeout(100)
        tick = "document.querySelector('[data-figure=figure-curves] .xtick text')"
        return page.evaluate("getComputedStyle(document.body).backgroundColor"), page.evaluate(
            f"getComputedStyle({tick}).fill"
        )

    dark = colours()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.locator("button.theme").click()
    light = colours()
    assert light[0] != dark[0] and light[1] != dark[1]
    page.locator("button.theme").click()
    assert colours() == dark
    page.emulate_media(color_scheme="light")
    assert colours() == dark, "the reader's choice stays"
    page.emulate_media(media="print", color_scheme="dark")
    assert colours() == ("rgb(255, 255, 255)", light[1])
    assert (
        not page.locator("header.top").is_visible()
        and page.locator(".sketch .bar").first.is_visible()
    )
    page.emulate_media(media="screen", color_scheme="dark")
    assert colours() == dark and wrong == []
    page.goto((runs["table"].path / "report.html").resolve().as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.context.close()


def test_several_runs_in_a_browser(runs: dict[str, Run], browser: Any, tmp_path: Path) -> None:
    other = train("binary", tmp_path, "other", seed=1)
    diagnose(other, "healthy")
    path = write_report([runs["binary"], other, runs["table"]], tmp_path / "all.html")
    page, wrong = opened(browser, path)
    assert drawn(page) == 3, "curves of two groups, and intervals of the one that has two runs"
    said = page.locator("main").inner_text()
    assert "not ranked with" in said and "partly collapsed" in said and "healthy" in said
    assert page.evaluate("window.hacked") is None and wrong == []
    page.context.close()


# -- what it says ----------------------------------------------------------------------------------


def test_the_verdict_is_an_error_only_where_a_finding_is(runs: dict[str, Run]) -> None:
    folder = read_folder(runs["binary"].path)
    for severities, tone in (
        (["warning", "error"], "error"),
        (["note", "warning"], "warning"),
        (["note"], "none"),
    ):
        told = {
            "verdict": "collapsed",
            "summary": "So.",
            "findings": [{"severity": s} for s in severities],
        }
        assert verdict_of(replace(folder, diagnosis=told)) == ("collapsed", tone, "So.")


def test_the_first_screen_answers(runs: dict[str, Run]) -> None:
    run = runs["binary"]
    page = html(run.path / "report.html")
    said = text_of(page)
    evaluation = run.evaluation
    assert evaluation is not None
    iwae = next(e for e in evaluation["estimates"] if e["method"] == "iwae")
    value = f"−{abs(iwae['mean']):.2f}"
    assert f"log p(x) ≥ {value} ± {iwae['stderr']:.2f} nats" in said
    assert (
        "IWAE with 100 draws, mean over 50 test images" in said
        and "a lower bound" in said
        and f"≤ {iwae['bits_per_dim']:.4f}" in said
    )
    assert (
        said.index("partly collapsed")
        < said.index(value)
        < said.index("Findings", said.index(value))
    )
    order = [said.index(name) for name in ("overfitting", "dependence", "units switched off")]
    assert order == sorted(order), "findings stand worst first"
    assert "The gap is 1.0 ± 0.5 nats." in said and 'vaestro train "></script><script>' in said
    assert "likelihood is" not in said


@pytest.mark.parametrize(
    ("space", "what"),
    [
        ("binary (28, 28)", "images"),
        ("levels of 256 (32, 32, 3)", "images"),
        ("real (6,)", "data"),
        ("category of 5 (64,)", "data"),
        ("table of 4 columns (2 real, 1 count, 1 binary)", "data"),
        ("", "data"),
    ],
)
def test_only_images_are_called_so(space: str, what: str) -> None:
    from vaestro.report.words import data_words

    assert data_words({"space": space, "n": 300, "split": "test"}, 300) == f"300 test {what}"


def test_what_repeats_the_run_is_there(runs: dict[str, Run]) -> None:
    run = runs["colour"]
    said = text_of(html(run.path / "report.html"))
    environment = json.loads((run.path / "environment.json").read_text())
    assert (
        f"vaestro train --config '{run.path / 'config.yaml'}' --run" in said and "--k 100" in said
    )
    for word in (
        environment["torch"],
        environment["begun"],
        str(run.config["lr"]),
        json.loads((run.path / "data.json").read_text())["train"]["sha256"][:16],
    ):
        assert word in said
    assert run.weights_sha256()[:16] in said


def test_sizes(runs: dict[str, Run]) -> None:
    for run in runs.values():
        assert 4e6 < (run.path / "report.html").stat().st_size < 8e6


def test_large_images_stay_below_the_limit() -> None:
    r = np.random.default_rng(0)
    noise = r.integers(0, 256, (1000, 28, 28, 3), dtype=np.uint8)
    from vaestro.report.pictures import sheet, uris

    tiles = r.integers(0, 256, (24 * 2 + 12 * 2 + 48 + 72 + 36, 96, 96, 3), dtype=np.uint8)
    assert len(sheet(noise).uri) + sum(map(len, uris(tiles))) < render.LIMIT - 5.5e6, (
        "noise is the worst case"
    )


def test_names_and_values_are_text(runs: dict[str, Run]) -> None:
    for run in runs.values():
        page = html(run.path / "report.html")
        assert (
            "window.hacked=1</script>" not in page
            and "<img src=x" not in page
            and "<b onmouseover" not in page
        )
        policy = re.search(r"script-src 'nonce-([0-9a-f]+)'", page)
        assert policy and page.count("<script") == page.count(f'nonce="{policy[1]}"')
    said = text_of(html(runs["table"].path / "report.html"))
    assert EVIL in said and IMAGE in said


def test_tables_show_rows_histograms_and_missing_cells(runs: dict[str, Run]) -> None:
    page = html(runs["table"].path / "report.html")
    assert (
        page.count('<th scope="row">sample</th>') == 5
        and "<td class=empty></td>" in page
        and "% missing" in page
    )
    facts = json.loads((runs["table"].path / "showcase.json").read_text())
    kinds = {h["name"]: h["kind"] for h in facts["histograms"]}
    assert kinds == {
        EVIL: "category",
        IMAGE: "category",
        "day": "date",
        "count": "category",
        "amount": "number",
    }
    for h in facts["histograms"]:
        for shares, outside in zip(h["shares"], h["outside"], strict=True):
            assert sum(shares) + outside == pytest.approx(1)


def test_tables_are_compared_with_samples(runs: dict[str, Run]) -> None:
    samples = json.loads((runs["table"].path / "evaluation.json").read_text())["samples"]
    page = html(runs["table"].path / "report.html")
    said = text_of(page)
    for name in ("column shapes", "pair trends", "share of copies of a training row"):
        assert f'<th scope="row">{name}</th>' in page
    assert f"{samples['n']:,} samples against {samples['held_out']:,} held-out rows" in said
    worst = samples["pairs"]["pairs"][0]
    assert f"({worst['drawn']:.2f}, real rows {worst['real']:.2f})" in said
    assert "Samples compared with held-out rows" not in html(runs["binary"].path / "report.html")


def test_the_command(run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["report", str(run.path)]) == 0
    assert f"wrote {run.path}/report.html" in capsys.readouterr().out
    target = tmp_path / "a.html"
    assert main(["report", str(run.path), "-o", str(target), "--quiet"]) == 0
    assert main(["report", str(run.path), "-o", str(target), "--quiet"]) == 0, (
        "a report of the same run is written anew"
    )
    target.write_text("my own page")
    assert main(["report", str(run.path), "-o", str(target)]) == 2
    assert (
        "(--force overwrites it)" in capsys.readouterr().err and target.read_text() == "my own page"
    )
    other = Run(shutil.copytree(run.path, tmp_path / "other"))
    write_report(other, target, force=True)
    assert main(["report", str(run.path), "-o", str(target)]) == 2, (
        "a report of another run is not ours to replace"
    )
    assert main(["report", str(run.path), str(run.path)]) == 2
    assert main(["report", str(tmp_path / "absent")]) == 2
    assert main(["report", str(run.path), "-o", str(tmp_path / "a.pdf")]) == 2
    assert main(["report", str(run.path), str(other.path), "--quiet"]) == 0
    assert (tmp_path / "report.html").exists()


def test_a_missing_extra_is_named(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "plotly", None)
    assert main(["report", str(run.path)]) == 2
    assert (
        capsys.readouterr().err
        == "vaestro: expected the extra vaestro[report] to write a report; got an installation "
        "without it\n"
    )


# -- what is computed, and when --------------------------------------------------------------------


def test_what_is_there_is_not_computed_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Run, "data", lambda self, **_: pytest.fail("the data were read"))
    monkeypatch.setattr(Run, "model", lambda self, **_: pytest.fail("the model was built"))
    assert gather(run) == []


def test_what_is_of_earlier_weights_is_made_again(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(Session, "diagnose", lambda self: calls.append(self.run.path))
    for name in ("evaluation", "diagnosis", "showcase"):
        file = run.path / f"{name}.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"weights_sha256": "0" * 64}))
    said: list[str] = []
    assert gather(run, said.append) == []
    assert calls == [run.path] and len(said) == 3
    for name in ("evaluation", "showcase"):
        assert (
            json.loads((run.path / f"{name}.json").read_text())["weights_sha256"]
            == run.weights_sha256()
        )


def test_the_renderer_reads_files_only(run: Run, tmp_path: Path) -> None:
    folder = shutil.copytree(run.path, tmp_path / "elsewhere")
    (folder / "model.safetensors").unlink()
    shutil.rmtree(folder / "checkpoints")
    code = f"""
import sys
from vaestro.report import render
page = render.run_page({str(folder)!r})
assert "torch" not in sys.modules, "torch was imported"
assert "Traversals of the most active units" in page and "partly collapsed" in page
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# -- bad input -------------------------------------------------------------------------------------


def said_after(run: Run) -> str:
    return text_of(html(write_report(run)))


def test_a_run_without_metrics(run: Run) -> None:
    (run.path / "metrics.jsonl").write_text("")
    assert "There are no curves" in said_after(run)
    (run.path / "metrics.jsonl").unlink()
    assert "There are no curves" in said_after(run)


def test_a_run_of_one_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "diagnose", lambda self: None)
    said = said_after(train("binary", tmp_path, steps=1))
    assert "1 steps" in said or "1 step" in said


def test_a_truncated_last_line(run: Run) -> None:
    whole = render.run_values(render.read_folder(run.path)).blobs["figure-curves"]
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"split": "valid", "step": 99, "bou')
    cut = render.run_values(render.read_folder(run.path)).blobs["figure-curves"]
    assert cut == whole and "There are no curves" not in said_after(run)


def test_a_run_that_has_not_begun(run: Run) -> None:
    for name in (
        "model.safetensors",
        "evaluation.json",
        "evaluation.npz",
        "diagnosis.json",
        "showcase.json",
        "showcase.npz",
    ):
        (run.path / name).unlink()
    (run.path / "metrics.jsonl").write_text("")
    said = said_after(run)
    assert "not trained" in said and "no weights yet" in said and "No bound on log p(x)" in said


def test_data_that_are_gone(run: Run) -> None:
    (run.path / "showcase.json").unlink()
    config = run.path / "config.yaml"
    config.write_text(re.sub("source: .*", "source: /nowhere/x.npy", config.read_text()))
    said = said_after(run)
    assert "no showcase of these weights" in said and "/nowhere/x.npy" in said and "IWAE" in said


def test_a_run_from_a_newer_version(run: Run) -> None:
    config = run.path / "config.yaml"
    config.write_text(
        config.read_text().replace(f"vaestro: {vs.__version__}", "vaestro: 9.2.1\nwavelets: many")
    )
    lines = [
        json.loads(line) | {"energy": {"a": 1}}
        for line in (run.path / "metrics.jsonl").read_text().splitlines()
    ]
    (run.path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    facts = json.loads((run.path / "diagnosis.json").read_text())
    facts |= {
        "verdict": "transcendent",
        "summary": "",
        "units": [{"unit": 0, "energy": {"a": "mapping"}}],
        "findings": [{"name": "new", "severity": "odd", "title": "new"}],
        "scores": 3,
    }
    (run.path / "diagnosis.json").write_text(json.dumps(facts))
    said = said_after(run)
    assert (
        "made by Vaestro 9.2.1, newer than this" in said
        and "transcendent" in said
        and "does not know this verdict" in said
    )
    assert "cannot be shown" in said and "wavelets" in said


@pytest.mark.parametrize(
    "name",
    [
        "evaluation.json",
        "diagnosis.json",
        "showcase.json",
        "diagnosis.npz",
        "showcase.npz",
        "evaluation.npz",
    ],
)
def test_damaged_files_are_said(run: Run, name: str) -> None:
    file = run.path / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    page = render.run_page(run.path)
    assert f"{name} is damaged" in text_of(page)


def test_numbers_that_are_not_finite(run: Run) -> None:
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    for line in lines[1:]:
        line |= {"bound": None, "rate": None, "distortion": None, "loss": None}
    (run.path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    facts = json.loads((run.path / "diagnosis.json").read_text())
    facts |= {"mutual_information": None, "rate": None, "scores": None, "dependence": None}
    for unit in facts["units"]:
        unit["rate"] = None
    (run.path / "diagnosis.json").write_text(json.dumps(facts))
    arrays = dict(np.load(run.path / "diagnosis.npz"))
    np.savez(run.path / "diagnosis.npz", **(arrays | {"logvar": np.full((5, 4), np.nan)}))
    page = html(write_report(run))
    assert "NaN" not in page.partition('id="figure-')[2].partition("</script>")[0]


def test_ten_thousand_classes() -> None:
    names = np.array([f"class {i}" for i in range(10_000)] + ["class 7"] * 30 + ["class 9"] * 20)
    facts, codes = mapping.attribute(np.ma.asarray(names))
    assert (
        facts is not None and facts["classes"][-1] == "9,989 others" and len(facts["classes"]) == 12
    )
    assert {"class 7", "class 9"} <= set(facts["classes"]) and (
        codes == facts["classes"].index("class 7")
    ).sum() == 31
    arrays = {"map_pca": np.zeros((len(names), 2)), "a": codes}
    made = figures.latent_map(
        {
            "map": {
                "projections": [{"key": "pca", "name": "PCA", "note": ""}],
                "attributes": [{"key": "a", "name": "n", **facts}],
            }
        },
        arrays,
    )
    assert (
        made is not None
        and len(made["attributes"][0]["colors"]) == 12
        and made["attributes"][0]["colors"][-1] == "--faint"
    )
    digits, codes = mapping.attribute(np.ma.asarray(np.array([10, 2, 2, 33])))
    assert (
        digits is not None
        and digits["classes"] == ["2", "10", "33"]
        and codes.tolist() == [1, 0, 0, 2]
    )


def test_thousands_of_units_show_the_top_ones() -> None:
    lines = [
        {
            "unit": j,
            "place": [j // 64, j % 64],
            "rate": float(j),
            "activity": 0.5,
            "active": True,
            "role": "informative",
        }
        for j in range(4096)
    ]
    figure = figures.units({"units": lines})
    assert (
        figure is not None
        and len(figure["data"][0]["x"]) == figures.SHOWN_UNITS
        and figure["data"][0]["y"][0] == 4095
    )
    assert "unit 4095 at (63, 63)" in figure["data"][0]["text"][0]


def test_the_legend_of_units_names_every_role() -> None:
    page = files("vaestro.report") / "page"
    html, css = ((page / name).read_text() for name in ("run.html", "style.css"))
    classes = {"--c2": "second", "--faint": "off", "--c3": "third"}
    for colour in set(figures.ROLES.values()) - {"--c1"}:
        assert (
            f'<li><i class="{classes[colour]}">' in html
            and f".key i.{classes[colour]} {{ background: var({colour}); }}" in css
        )
    assert len(set(figures.ROLES.values())) == 4 and "not enough data to tell</li>" in html
