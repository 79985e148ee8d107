"""The meaning of units: correlations against SciPy, what is not significant, names, and each kind
of run."""

import json

import numpy as np
import pytest
from PIL import Image
from scipy import stats

import vaestro as vs
from vaestro.cli import main
from vaestro.latent import units
from vaestro.latent.factors import Factor, factors_of
from vaestro.runs import Run

STEPS = {"steps": 3, "latent": 2, "batch": 16}


def test_correlations_are_those_of_scipy():
    r = np.random.default_rng(0)
    z = np.round(r.normal(size=(300, 2)), 1)  # with ties
    number = Factor("a", z[:, 0] + r.normal(size=300))
    (one,) = units.associations(z[:, :1], [number])
    expected = stats.spearmanr(z[:, 0], number.values)
    assert one[0].value == pytest.approx(expected.statistic)
    weak = Factor("a", 0.1 * z[:, 1] + r.normal(size=300))
    (one,) = units.associations(z[:, 1:], [weak], discoveries=1.0)
    assert one[0].p == pytest.approx(stats.spearmanr(z[:, 1], weak.values).pvalue, rel=0.1)
    classes = (z[:, 0] + r.normal(size=300) > 0) + 1.0 * (z[:, 1] > 1)
    (one,) = units.associations(z[:, :1], [Factor("c", classes, ("x", "y", "z"))])
    h, p = stats.kruskal(*(z[classes == c, 0] for c in range(3)))
    assert one[0].p == pytest.approx(p) and one[0].value == pytest.approx((h / 299) ** 0.5)


def test_false_discoveries_are_those_of_benjamini_and_hochberg():
    r = np.random.default_rng(0)
    p = np.concatenate([r.uniform(size=80), 1e-3 * r.uniform(size=20)])
    expected = stats.false_discovery_control(p) <= 0.05
    assert (units.false_discoveries(p, 0.05) == expected).all() and expected.sum() > 15
    assert not units.false_discoveries(np.ones(5), 0.05).any()


def test_noise_has_no_correlation_that_is_shown():
    r = np.random.default_rng(0)
    z = r.normal(size=(200, 20))
    factors = [Factor(str(i), r.normal(size=200)) for i in range(10)]
    naive = sum(stats.spearmanr(column, f.values).pvalue < 0.05 for column in z.T for f in factors)
    assert naive > 3 and not any(units.associations(z, factors))
    few = Factor("few", np.where(np.arange(200) < 15, z[:, 0], np.nan))
    assert not any(units.associations(z, [few]))
    half = Factor("half", np.where(np.arange(200) < 100, z[:, 0], np.nan))
    assert [len(unit) for unit in units.associations(z, [half])] == [1] + 19 * [0]


def test_extremes_are_the_rows_with_the_lowest_and_highest_codes():
    r = np.random.default_rng(0)
    z = r.permutation(50.0 * np.arange(40)).reshape(20, 2)
    low, high = units.extremes(z, 2)
    assert (z[low[1], 1] == np.sort(z[:, 1])[:2]).all()
    assert (z[high[0], 0] == np.sort(z[:, 0])[::-1][:2]).all()


def test_attributes_are_numbers_or_classes_by_the_stated_rule():
    r = np.random.default_rng(0)
    n = 60
    attributes = {
        "float": np.linspace(0, 1, n),
        "few": np.arange(n) % 3,
        "many": np.arange(n),
        "grade": np.where(np.arange(n) % 4, np.arange(n) % 2, np.nan),
        "word": np.array(["a", "b", ""])[np.arange(n) % 3],
        "day": np.datetime64("2024-01-01") + np.arange(n),
        "file": np.array([f"{i}.png" for i in range(n)]),
        "same": np.ones(n),
    }
    rows = vs.load(r.normal(size=(80, 3)).astype(np.float32)).train.take(n)
    object.__setattr__(rows, "attributes", attributes)
    found, notes = factors_of([rows.pick(slice(0, 40)), rows.pick(slice(40, None))])
    kinds = {name: len(f.classes) for name, f in found.items()}
    assert kinds == {"float": 0, "few": 3, "many": 0, "grade": 2, "word": 2, "day": 0}
    assert [note.split()[0] for note in notes] == ["file", "same"]
    assert found["word"].known.sum() == 40 and found["grade"].classes == ("0", "1")
    with pytest.raises(ValueError, match="several values; got file, which has 60 different"):
        factors_of([rows], ["file"])


# -- runs ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Train a run of each kind, whose folder has the name of the kind."""
    r = np.random.default_rng(0)
    folder, n = tmp_path_factory.mktemp("units"), 330
    size, colour = r.normal(size=n).round(2), r.choice(["red", "blue"], n)
    lines = [
        f"{s},{c},{'ab' * (i % 5 + 1)}" for i, (s, c) in enumerate(zip(size, colour, strict=True))
    ]
    (folder / "t.csv").write_text("size,colour,word\n" + "\n".join(lines) + "\n")
    x = r.integers(0, 9, (n, 8, 8), dtype=np.uint8)
    x[:, 0] += (100 * (colour == "red"))[:, None].astype(np.uint8)
    np.savez(
        folder / "y.npz", train=x[:230], train_y=colour[:230], test=x[230:], test_y=colour[230:]
    )
    table, wide = f"{folder / 't.csv'}", {"network": "mlp:width=16", **STEPS}
    vs.train(f"{table}:ignore=word,test=60", run=folder / "table", **STEPS)
    vs.train(f"{table}:ignore=word,test=60", run=folder / "given", condition="colour", **STEPS)
    vs.train(f"{table}:text=word,test=60", run=folder / "texts", **STEPS)
    vs.train(str(folder / "y.npz"), run=folder / "images", **{**wide, "steps": 150, "beta": 0.01})
    vs.train(
        str(folder / "y.npz"), run=folder / "discrete", posterior="categorical:codes=3", **wide
    )
    np.save(folder / "x.npy", x)
    vs.train(str(folder / "x.npy"), run=folder / "grid", network="conv", latent=2, steps=2)
    return folder


@pytest.mark.parametrize("kind", ["table", "given", "texts", "images", "discrete", "grid"])
def test_each_kind_of_run_has_a_table_of_its_units(place, kind, capsys):
    run, out = Run(place / kind), place / f"{kind}.csv"
    assert main(["units", str(run.path), "-o", str(out)]) == 0
    printed = capsys.readouterr().out
    stored = json.loads((run.path / "units.json").read_text())
    diagnosis = {u["unit"]: u for u in run.diagnosis["units"]}
    assert sorted(u["unit"] for u in stored["units"]) == sorted(diagnosis)
    for u in stored["units"]:
        assert (u["role"], u["rate"]) == (
            diagnosis[u["unit"]]["role"],
            diagnosis[u["unit"]]["rate"],
        )
        assert len(u["lowest"]) == len(u["highest"]) == 3
    rates = [u["rate"] for u in stored["units"] if u["rate"] is not None]
    assert rates == sorted(rates, reverse=True)
    assert "units.json" in (run.path / "manifest.txt").read_text()
    assert stored["weights_sha256"] == run.weights_sha256()
    if kind == "grid":
        assert "not enough data to tell correlations" in printed
    assert len(out.read_text().splitlines()) > len(diagnosis) or kind == "grid"


def test_the_unit_with_a_planted_attribute_is_found_and_its_extremes_are_of_one_class(place):
    found = Run(place / "images").units()
    best = max(found.units, key=lambda u: max([a.value for a in u.associations], default=0))
    assert best.associations[0].attribute == "y" and best.associations[0].value > 0.7
    y = np.load(place / "y.npz")["test_y"]
    assert len(set(y[list(best.lowest)])) == 1 and y[best.lowest[0]] != y[best.highest[0]]


def test_names_are_stored_merged_and_removed(place, capsys):
    run, picture = Run(place / "images"), place / "units.png"
    assert main(["units", str(run.path), "--name", "1=hue of, it", "-o", str(picture)]) == 0
    assert "1 (hue of, it)" in capsys.readouterr().out
    assert Image.open(picture).size[0] > 300
    run.units({0: "other"})
    assert run.unit_names == {0: "other", 1: "hue of, it"}
    table = run.units({0: ""})
    assert run.unit_names == {1: "hue of, it"}
    assert [u.name for u in table.units if u.unit == 1] == ["hue of, it"]


def test_the_report_has_names_attributes_probes_and_metrics(place):
    run = Run(place / "images")
    run.units({1: "<b>hue</b>"})
    run.probe(draws=2)
    record = {
        "about": "300 rows, 2 of 2 units vary",
        "factors": ["y", "z"],
        "metrics": [{"name": "MIG", "value": 0.25, "low": 0.1, "high": None, "chance": 0.0}],
        "notes": [],
        "weights_sha256": run.weights_sha256(),
    }
    (run.path / "disentanglement.json").write_text(json.dumps(record))
    page = run.report().read_text()
    assert "What each unit means" in page and "&lt;b&gt;hue&lt;/b&gt;" in page
    assert "<b>hue" not in page
    best = max(
        a["value"]
        for u in json.loads((run.path / "units.json").read_text())["units"]
        for a in u["attributes"]
    )
    assert f"<td>y {best:.2f}</td>" in page
    assert "<b>y</b>: the codes predict y: accuracy" in page and "<td>0.25</td>" in page
    # of other weights, they are left out
    record["weights_sha256"] = "0"
    (run.path / "disentanglement.json").write_text(json.dumps(record))
    page = run.report().read_text()
    assert "<td>0.25</td>" not in page and "disentanglement.json is of earlier weights" in page


@pytest.mark.parametrize(
    ("kind", "words", "message"),
    [
        ("images", ["--name", "slant"], "expected --name UNIT=NAME, such as 3=slant; got 'slant'"),
        ("images", ["--name", "2=a"], "expected a unit from 0 to 1; got 2"),
        ("images", ["--name", "1=a\x1bb"], "expected a name of at most 60 letters"),
        ("table", ["-o", "no.png"], "expected a table (-o units.csv)"),
        ("discrete", ["-o", "no.png"], "expected real latents to move along; got discrete ones"),
    ],
)
def test_wrong_words_are_refused_in_one_line(place, capsys, kind, words, message):
    assert main(["units", str(place / kind), *words]) == 2
    line = capsys.readouterr().err
    assert message in line and line.count("\n") == 1
