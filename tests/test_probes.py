"""Probes: what they find is there, what is not there is not found, and each kind of run."""

import json

import numpy as np
import pytest

import vaestro as vs
from vaestro import latent
from vaestro.cli import main
from vaestro.latent.factors import Factor
from vaestro.latent.probes import predict, scored
from vaestro.runs import Run

STEPS = {"steps": 3, "latent": 2, "batch": 16}


def sets(z, x, n):
    return latent.representations((z[:n], z[n:]), (x[:n], x[n:]))


@pytest.fixture(scope="module")
def found():
    """Probe codes that contain one attribute of raw data, linearly, and miss another."""
    r = np.random.default_rng(0)
    z = r.normal(size=(500, 2))
    x = np.concatenate([3 * r.normal(size=(500, 8)), z[:, 1:]], 1)
    features = sets(z, x, 350)
    values = {
        "both": z[:, 1],
        "code": z[:, 0],
        "raw": x[:, 0],
        "ring": (np.hypot(*z.T) > 1.2).astype(float),
        "none": r.normal(size=500),
        "label": (z[:, 0] > 0).astype(float) + (z[:, 0] > 1),
    }
    classes = {"ring": ("in", "out"), "label": ("a", "b", "c")}
    factors = {n: Factor(n, v, classes.get(n, ())) for n, v in values.items()}
    rows = np.arange(350), np.arange(350, 500)
    return {
        n: latent.probe(features, f.pick(rows[0]), f.pick(rows[1]), comparisons=6, draws=2)
        for n, f in factors.items()
    }


def score(probe, name, features):
    return next(s for s in probe.scores if (s.probe, s.features) == (name, features))


def test_a_linear_function_of_the_code_is_found_and_noise_is_not(found):
    assert score(found["code"], "linear", "codes").value > 0.999
    assert any("codes predict code" in s for s in found["code"].statements)
    assert "the codes are better than raw data" in " ".join(found["code"].statements)
    assert found["none"].best("codes").value < 0.1
    assert found["none"].statements == (
        "no probe of the codes is shown to predict none better than the baseline: not enough data "
        "to tell",
    )


def test_what_only_raw_data_contain_is_stated_in_their_favour(found):
    assert "linear probe: the codes are worse than raw data" in " ".join(found["raw"].statements)
    assert score(found["raw"], "linear", "raw").value > 0.999
    # the principal components are those of the largest variance, which miss the last column
    assert score(found["both"], "linear", "PCA").value < 0.2


def test_neighbours_find_a_ring_that_no_plane_cuts(found):
    linear, near = (score(found["ring"], name, "codes") for name in ("linear", "kNN"))
    assert near.value > 0.9 > linear.value
    assert found["ring"].measure == "accuracy" and near.balanced > 0.9
    assert found["label"].best("codes").value > 0.95


def test_intervals_contain_scores_and_labels_are_few(found):
    for probe in found.values():
        for s in probe.scores:
            assert s.low - 1e-9 <= s.value <= s.high + 1e-9 and s.few_error >= 0
        assert probe.baseline < 0.8 and probe.labels == 100
    assert score(found["code"], "kNN", "codes").few < score(found["code"], "kNN", "codes").value


def test_the_interval_of_an_accuracy_is_that_of_a_binomial():
    truth = np.arange(400) % 4 == 0
    weights = np.random.default_rng(0).multinomial(400, np.full(400, 1 / 400), 4000).astype(float)
    spread = scored(truth.astype(float), np.zeros(400), weights, number=False)
    assert spread.mean() == pytest.approx(0.75, abs=0.002)
    assert spread.std() == pytest.approx((0.75 * 0.25 / 400) ** 0.5, rel=0.05)


@pytest.mark.parametrize("number", [True, False])
def test_few_rows_are_not_enough_data_to_tell(number):
    z = np.random.default_rng(0).normal(size=(60, 2))
    factor = Factor("a", (np.arange(60) % 2).astype(float), () if number else ("x", "y"))
    one = latent.probe(sets(z, z, 45), factor.pick(np.arange(45)), factor.pick(np.arange(45, 60)))
    assert one.statements == ("a: not enough data to tell",) and not one.scores


def test_missing_labels_are_left_out_and_classes_with_one_row_are_taken():
    z = np.random.default_rng(0).normal(size=(300, 2))
    values = np.where(np.arange(300) % 3 == 0, np.nan, (z[:, 0] > 0).astype(float))
    values[1] = 2.0
    factor = Factor("a", values, ("x", "y", "z"))
    rows = np.arange(200), np.arange(200, 300)
    one = latent.probe(sets(z, z, 200), factor.pick(rows[0]), factor.pick(rows[1]), draws=2)
    assert (one.fitted, one.scored) == (133, 67) and one.best("codes").value > 0.9


def test_the_number_of_neighbours_is_chosen_on_the_rows_that_fit():
    r = np.random.default_rng(0)
    x = r.normal(size=(300, 1))
    noisy = x[:, 0] + 2 * r.normal(size=300)  # one neighbour would copy the noise
    error = np.mean((predict("kNN", x, noisy, x[:100], number=True) - x[:100, 0]) ** 2)
    assert error < 0.6


# -- runs ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Train a run of each kind, whose folder has the name of the kind."""
    folder, r = tmp_path_factory.mktemp("probes"), np.random.default_rng(0)
    n = 330
    size, colour = r.normal(size=n).round(2), r.choice(["red", "blue"], n)
    rows = [
        f"{'' if i % 9 == 1 else size[i]},{r.poisson(30)},{colour[i]},{'ab' * (i % 5 + 1)}"
        for i in range(n)
    ]
    (folder / "t.csv").write_text("size,count,colour,word\n" + "\n".join(rows) + "\n")
    x = r.integers(0, 9, (n, 8, 8), dtype=np.uint8)
    x[:, 0] += (100 * (colour == "red"))[:, None].astype(np.uint8)
    np.save(folder / "x.npy", x)
    np.savez(
        folder / "y.npz", train=x[:230], train_y=colour[:230], test=x[230:], test_y=colour[230:]
    )
    (folder / "labels.csv").write_text("hue\n" + "\n".join(colour) + "\n")
    vs.train(f"{folder / 't.csv'}:ignore=word,test=66", run=folder / "table", **STEPS)
    vs.train(
        f"{folder / 't.csv'}:ignore=word,test=66", run=folder / "given", condition="colour", **STEPS
    )
    vs.train(f"{folder / 't.csv'}:text=word", run=folder / "texts", **STEPS)
    wide = {"network": "mlp:width=8", **STEPS}
    vs.train(str(folder / "y.npz"), run=folder / "images", **wide)
    vs.train(str(folder / "x.npy"), run=folder / "bare", **wide)
    vs.train(
        str(folder / "y.npz"), run=folder / "discrete", posterior="categorical:codes=3", **wide
    )
    return folder


@pytest.mark.parametrize("kind", ["table", "given", "texts", "images", "discrete"])
def test_each_kind_of_run_is_probed_and_the_file_is_what_is_returned(place, kind, capsys):
    run = Run(place / kind)
    assert main(["probe", str(run.path), "--draws", "2", "-o", str(place / f"{kind}.csv")]) == 0
    lines = capsys.readouterr().out.splitlines()
    stored = json.loads((run.path / "probes.json").read_text())
    own = kind in ("images", "discrete")
    names = sorted(p["name"] for p in stored["probes"])
    assert names == (["y"] if own else ["colour", "count", "size"])
    assert stored["weights_sha256"] == run.weights_sha256()
    statements = [s for p in stored["probes"] for s in p["statements"]]
    assert [s for s in statements if f"    {s}" not in lines and s not in lines] == []
    assert "probes.json" in (run.path / "manifest.txt").read_text()
    if kind == "given":
        roles = {p["name"]: p["role"] for p in stored["probes"]}
        assert roles == {"size": "column", "count": "column", "colour": "condition"}
        assert "so its code need not contain it" in " ".join(statements)
    if kind == "images":
        run.probe(draws=2)
        assert json.loads((run.path / "probes.json").read_text()) == stored
    header = (place / f"{kind}.csv").read_text().splitlines()[0].replace('"', "")
    assert header.startswith("attribute,kind,role,measure,baseline")


def test_attributes_of_a_table_beside_the_data(place, capsys):
    assert main(["probe", str(place / "bare")]) == 2
    line = capsys.readouterr().err
    assert "have no attributes: add --attributes FILE" in line and line.count("\n") == 1
    labels = str(place / "labels.csv")
    found = Run(place / "bare").probe("hue", table=labels, draws=2)
    assert found.probes[0].best("raw").value > 0.95
    assert found.probes[0].fitted + found.probes[0].scored == 330
    (place / "short.csv").write_text("hue\nred\nblue\n")
    assert main(["probe", str(place / "bare"), "--attributes", str(place / "short.csv")]) == 2
    assert "for each of 330 data; got 2 rows" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--attribute", "colr"], "expected an attribute of the data: one of y; got 'colr'"),
        (["--labels", "3"], "expected 10 or more labels"),
        (["--attributes", "labels.npy"], "expected a table"),
    ],
)
def test_wrong_words_are_refused_in_one_line(place, capsys, words, message):
    assert main(["probe", str(place / "images"), *words]) == 2
    line = capsys.readouterr().err
    assert message in line and line.count("\n") == 1
