"""What a verb of a session returns equals what its command writes, for each kind of run."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import vaestro as vs
from vaestro import latent
from vaestro.cli import main
from vaestro.data import tables
from vaestro.data.writers import write_data

KINDS = ("table", "images", "texts", "conditional")
FORMATS = {"table": ".csv", "images": ".npy", "texts": ".txt", "conditional": ".csv"}
STEPS = {"steps": 3, "latent": 2, "batch": 16}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Train a run of each kind; returns {kind: (source, run's folder)}."""
    place, random = tmp_path_factory.mktemp("session"), np.random.default_rng(0)
    size, colour = random.normal(size=120).round(2), random.choice(["red", "blue"], 120)
    lines = ["size,count,colour"]
    for i in range(120):
        lines.append(f"{'' if i % 10 == 3 else size[i]},{random.poisson(3)},{colour[i]}")
    (place / "t.csv").write_text("\n".join(lines) + "\n")
    np.save(place / "x.npy", random.integers(0, 256, (80, 8, 8), dtype=np.uint8))
    words = ["".join(random.choice(list("abc"), random.integers(2, 7))) for _ in range(120)]
    (place / "w.txt").write_text("\n".join(words) + "\n")
    sources = {"table": "t.csv", "images": "x.npy", "texts": "w.txt", "conditional": "t.csv"}
    runs = {}
    for kind, name in sources.items():
        more = {"condition": "colour"} if kind == "conditional" else {}
        network = {} if kind == "texts" else {"network": "mlp:width=8"}
        run = vs.train(str(place / name), run=place / kind, **STEPS, **network, **more)
        runs[kind] = str(place / name), run.path
    return runs


def written(path):
    """Return what a command wrote, as comparable values."""
    if path.suffix == ".npy":
        return np.load(path).tolist()
    if path.suffix == ".npz":
        with np.load(path) as archive:
            return {name: archive[name].tolist() for name in archive.files}
    return path.read_text()


def as_written(data, path):
    """Write what a verb returned to a file, and return it as comparable values."""
    write_data(path, data, None)
    return written(path)


def made(place, name):
    """Make a folder."""
    (place / name).mkdir()
    return place / name


def both(folder, tmp_path, suffix, command, value):
    """Return what a command wrote and what a verb returned."""
    out = tmp_path / f"command{suffix}"
    verb, *rest = command
    assert main([verb, str(folder), *rest, "-o", str(out)]) == 0
    return written(out), as_written(value, tmp_path / f"python{suffix}")


@pytest.mark.parametrize("kind", KINDS)
def test_encode_and_decode_equal_their_commands(folders, tmp_path, kind):
    (source, folder), session = folders[kind], vs.open(folders[kind][1])
    out = tmp_path / "codes.npz"
    assert main(["encode", str(folder), source, "-o", str(out), "--sample", "2"]) == 0
    codes = session.encode(source, draws=2)
    with np.load(out) as archive:
        assert set(codes) < set(archive.files)
        np.testing.assert_array_equal(archive["row"], np.arange(len(codes["mean"])))
        for name, values in codes.items():
            np.testing.assert_array_equal(archive[name], values)
    given = {"colour": "red"} if kind == "conditional" else {}
    condition = [f"--condition={k}={v}" for k, v in given.items()]
    np.save(tmp_path / "z.npy", codes["mean"])
    out = tmp_path / "z.npy"
    means = session.decode(codes["mean"], condition=given)
    one, other = both(folder, tmp_path, FORMATS[kind], ["decode", str(out), *condition], means)
    assert one == other


@pytest.mark.parametrize("kind", KINDS)
def test_reconstruct_interpolate_and_sample_equal_their_commands(folders, tmp_path, kind):
    (source, folder), session = folders[kind], vs.open(folders[kind][1])
    given = {"colour": "red"} if kind == "conditional" else {}
    condition = [f"--condition={k}={v}" for k, v in given.items()]
    for command, value in (
        (["reconstruct", source], session.reconstruct(source)),
        (["interpolate", source, "1", "5"], session.interpolate(source, 1, 5)),
        (
            ["sample", "-n", "5", "--seed", "1", *condition],
            session.sample(5, condition=given, seed=1),
        ),
    ):
        one, other = both(folder, made(tmp_path, command[0]), FORMATS[kind], command, value)
        assert one == other, command[0]


@pytest.mark.parametrize("kind", ["table", "conditional"])
def test_edit_and_impute_equal_their_commands(folders, tmp_path, kind):
    (source, folder), session = folders[kind], vs.open(folders[kind][1])
    command = ["edit", source, "--attribute", "count", "--amount", "2"]
    one, other = both(folder, tmp_path, ".csv", command, session.edit(source, "count", 2.0))
    assert one == other
    filled = session.impute(source, k=10)
    one, other = both(
        folder, made(tmp_path, "impute"), ".csv", ["impute", source, "--k", "10"], filled
    )
    assert one == other


@pytest.mark.parametrize("kind", KINDS)
def test_evaluate_writes_the_same_files_as_its_command(folders, kind):
    source, folder = folders[kind]

    def files():
        with np.load(Path(folder) / "evaluation.npz") as archive:
            arrays = {name: archive[name].tolist() for name in archive.files}
        line = json.loads((Path(folder) / "evaluation.json").read_text())
        del line["sha256"]  # of seconds too
        for estimate in line["estimates"]:
            del estimate["seconds"]
        return arrays, line

    for data in (None, source):
        assert main(["evaluate", str(folder), "--k", "3", *(["--data", data] if data else [])]) == 0
        one = files()
        vs.open(folder).evaluate(data, k=3)
        assert str(files()) == str(one)  # NaN equals NaN


@pytest.mark.parametrize("kind", KINDS)
def test_diagnose_returns_what_its_command_writes(folders, kind):
    folder = folders[kind][1]
    found = vs.open(folder).diagnose()
    assert main(["diagnose", str(folder)]) == 0
    assert json.loads((Path(folder) / "diagnosis.json").read_text()) == json.loads(
        json.dumps(found.line())
    )


def test_the_own_data_are_read_with_the_options_of_the_run(tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).integers(0, 5, (60, 4)))
    run = vs.train(f"{tmp_path / 'x.npy'}:kind=real", run=tmp_path / "run", **STEPS)
    bare, session = str(tmp_path / "x.npy"), vs.open(run)
    assert len(session.encode(bare)["mean"]) == 60
    assert main(["evaluate", str(run.path), "--data", bare, "--k", "2"]) == 0
    assert run.evaluation["n"] == 60 and run.evaluation["source"] == run.config["source"]


def test_a_session_takes_arrays_tables_texts_and_one_row(folders):
    x = np.load(folders["images"][0])
    assert vs.open(folders["images"][1]).encode(x[:1])["mean"].shape == (1, 2)
    assert len(vs.open(folders["texts"][1]).reconstruct(["abc"])) == 1
    table = vs.open(folders["table"][1])
    frame = {"size": [0.5], "count": [2], "colour": ["red"]}
    assert len(table.reconstruct(frame)) == 1
    read = tables.frame_of(frame)
    assert table.encode(read)["mean"].shape == (1, 2)


def test_a_run_has_the_verbs_of_its_session(folders):
    source, folder = folders["table"]
    run, session = vs.Run(folder), vs.open(folder)
    z = session.encode(source)["mean"]
    np.testing.assert_array_equal(run.encode(source)["mean"], z)
    for one, other in (
        (run.decode(z), session.decode(z)),
        (run.reconstruct(source), session.reconstruct(source)),
        (run.sample(3), session.sample(3)),
        (run.interpolate(source, 0, 1), session.interpolate(source, 0, 1)),
        (run.edit(source, "count"), session.edit(source, "count")),
        (run.impute(source, k=5), session.impute(source, k=5)),
    ):
        assert str(one.columns) == str(other.columns)
    assert run.evaluate(k=2).estimates[0].k == 2
    assert run.session is run.session


@pytest.fixture
def encoded(monkeypatch):
    """Return a list to which each call of `encode` adds the number of its rows."""
    calls, encode = [], latent.codes.encode

    def counted(model, rows, **options):
        calls.append(len(rows))
        return encode(model, rows, **options)

    monkeypatch.setattr(latent.codes, "encode", counted)
    return calls


def test_codes_of_the_same_rows_are_computed_once(folders, encoded):
    source, folder = folders["images"]
    session, x = vs.open(folder), np.load(source)
    first = session.encode(source)["mean"]
    assert encoded == [len(x)]
    first[:] = 0  # a copy
    again = session.encode(source, split="all")["mean"]
    session.reconstruct(x)
    assert encoded == [len(x)] and np.abs(again).max() > 0
    session.encode(x[:7])
    session.encode(source, split="valid")
    assert encoded[1:] == [7, 4]
    np.testing.assert_array_equal(again, vs.open(folder).encode(source)["mean"])


def test_codes_with_other_conditions_are_computed_anew(folders, encoded):
    source, folder = folders["conditional"]
    session = vs.open(folder)
    red = session.encode(source, condition={"colour": "red"})["mean"]
    blue = session.encode(source, condition={"colour": "blue"})["mean"]
    assert encoded == [120, 120] and np.abs(red - blue).max() > 0


def test_directions_are_computed_once(folders, encoded, tmp_path):
    source, folder = folders["table"]
    session = vs.open(folder)
    along = session.direction(source, "count")
    assert encoded == [len(session.data.train)]
    assert session.direction(source, "count") is along
    session.direction(source, "colour=red")  # from the same codes
    assert len(encoded) == 1
    session.edit(source, "count")
    session.edit(source, along, 2.0)
    assert encoded[1:] == [120]
    # an attribute that the training data do not have is taken from the source
    images, folder = folders["images"]
    session = vs.open(folder)
    rows = session.rows(images)
    steps = []
    for shift in (0, 7):
        grade = np.roll(np.arange(80.0), shift)
        steps.append(session.direction(replace(rows, attributes={"grade": grade}), "grade").step)
    assert encoded[2:] == [80] and np.abs(steps[0] - steps[1]).max() > 0


@pytest.mark.parametrize("verb", ["diagnose", "gradients"])
def test_the_model_and_the_data_are_loaded_once(folders, monkeypatch, verb):
    session = vs.open(folders["images"][1])
    loads = []
    for name in ("model", "data"):
        load = getattr(vs.Run, name)

        def counted(self, *options, name=name, load=load):
            loads.append(name)
            return load(self, *options)

        monkeypatch.setattr(vs.Run, name, counted)
    before = {k: v.clone() for k, v in session.model.state_dict().items()}
    if verb == "diagnose":
        session.diagnose()
    else:
        list(session.gradients(k=[1], estimators=["pathwise"], repeats=20))
    assert sorted(loads) == ["data", "model"]
    assert not session.model.training
    for name, value in session.model.state_dict().items():
        assert (value == before[name]).all(), name


@pytest.mark.parametrize("kind", ["images", "conditional"])
def test_report_writes_what_its_command_writes(folders, kind):
    folder = Path(folders[kind][1])
    session = vs.open(folder)
    (folder / "diagnosis.json").unlink(missing_ok=True)
    lines = []
    path = session.report(say=lines.append)
    assert path == folder / "report.html" and "diagnosing" in lines
    assert main(["report", str(folder), "-o", str(folder / "other.html")]) == 0
    pages = [(folder / name).read_text() for name in ("report.html", "other.html")]
    assert len(pages[0]) == len(pages[1])
    assert vs.Run(folder).report(folder / "third.html").exists()


def test_evaluate_of_a_run_writes_files_and_of_a_model_none(folders):
    source, folder = folders["table"]
    run = vs.Run(folder)
    for path in Path(folder).glob("evaluation*"):
        path.unlink()
    model, rows = run.model(), run.data().test
    bare = vs.evaluate(model, rows, k=3)
    assert run.evaluation is None
    for given in (run, folder, str(folder), vs.open(run)):
        found = vs.evaluate(given, k=3)
        assert run.evaluation["estimates"][0]["mean"] == found["elbo"].mean()[0]
        np.testing.assert_array_equal(found["iwae"].nats, bare["iwae"].nats)
    assert vs.evaluate(run, source, k=2, limit=5, split="all")["elbo"].nats.shape == (5,)
    assert run.evaluation["source"] == run.config["source"]
    with pytest.raises(ValueError, match="expected rows to evaluate a model on; got str"):
        vs.evaluate(model, source)


def test_samples_of_a_conditional_table_have_the_condition_columns(folders):
    run = vs.Run(folders["conditional"][1])
    for draw in (run.sample, vs.open(run).sample):
        drawn = draw(3, condition={"colour": "red"})
        assert list(drawn.columns) == ["size", "count", "colour"]
        assert drawn.columns["colour"].tolist() == ["red"] * 3
    rows = run.data().test
    like = vs.open(run).sample(len(rows), like=rows)
    colours = rows.given_space.outward(rows.given).columns["colour"].tolist()
    assert like.columns["colour"].tolist() == colours
