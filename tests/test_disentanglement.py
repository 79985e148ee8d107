"""Metrics of disentanglement on codes whose answers are known, and on runs."""

import json
import math

import numpy as np
import pytest

import vaestro as vs
from vaestro import latent
from vaestro.cli import main
from vaestro.latent import disentanglement as d
from vaestro.latent.factors import Factor
from vaestro.runs import Run

N = 1600


@pytest.fixture(scope="module")
def made():
    """Return two numbers and a class of three values, and codes of each kind."""
    r = np.random.default_rng(0)
    values = np.stack([r.uniform(size=N), r.uniform(size=N), r.integers(0, 3, N)], 1)
    factors = [
        Factor("x", values[:, 0]),
        Factor("y", values[:, 1]),
        Factor("shape", values[:, 2], ("a", "b", "c")),
    ]
    plain = values / values.std(0)
    turn, _ = np.linalg.qr(r.normal(size=(3, 3)))
    codes = {
        "identity": plain,
        "rotated": (plain - plain.mean(0)) @ turn,
        "duplicated": np.tile(plain, 2),
        "noise": r.normal(size=(N, 4)),
    }
    return factors, {name: d.measured(z, factors, 0) for name, z in codes.items()}


def test_an_identity_has_every_metric_near_one(made):
    found = made[1]["identity"]
    for name, value in found.items():
        # the balanced accuracy of a unit without information about three values is a third
        assert value > (1 - 1 / 3 / 3 - 0.05 if name == "SAP" else 0.95), name
    assert found["MIG"] == pytest.approx(1, abs=0.03)
    assert found["DCI disentanglement"] == pytest.approx(1, abs=0.02)


def test_a_rotation_has_neither_mig_nor_dci(made):
    found = made[1]["rotated"]
    assert found["MIG"] < 0.4 and found["DCI disentanglement"] < 0.6
    assert found["DCI completeness"] < 0.6 and found["modularity"] < 0.9
    # nothing is lost
    assert found["DCI informativeness"] > 0.8 and found["explicitness"] > 0.95
    assert found["beta-VAE score"] < made[1]["identity"]["beta-VAE score"] + 0.01


def test_duplicated_units_have_no_gap_and_less_completeness(made):
    found = made[1]["duplicated"]
    assert found["MIG"] == pytest.approx(0, abs=1e-9) and found["SAP"] == pytest.approx(0, abs=0.02)
    assert found["DCI disentanglement"] > 0.98
    # importances are shared by two of six units
    assert found["DCI completeness"] == pytest.approx(1 - math.log(2) / math.log(6), abs=0.05)


def test_noise_is_near_chance(made):
    factors, codes = made
    found = codes["noise"]
    for name in ("MIG", "SAP", "DCI disentanglement", "DCI completeness", "DCI informativeness"):
        assert found[name] < 0.1, name
    assert found["explicitness"] == pytest.approx(0.5, abs=0.05)
    for name in d.FIXED:
        assert found[name] == pytest.approx(1 / len(factors), abs=0.1)


def test_modularity_and_the_gap_have_their_closed_forms():
    information = np.array([[1.0, 0.5], [0.0, 2.0]])
    assert d.modularity(information) == pytest.approx((0.75 + 1) / 2)
    assert d.gaps(information).tolist() == [1.0, 1.5]
    assert d.shares(np.ones((2, 4)))[0] == pytest.approx(0) and d.shares(np.eye(2)) == (1, 1)


def test_intervals_chance_and_constant_units(made):
    factors, _ = made
    z = np.stack([*(f.values for f in factors[:2]), np.zeros(N)], 1)
    found = d.disentangle(z, factors[:2], repeats=4)
    assert found.about == f"{N:,} rows, 2 of 3 units vary" and not found.notes
    for m in found.metrics:
        assert m.low <= m.value <= m.high and m.chance < m.value
    assert found["MIG"].chance < 0.05 and found["explicitness"].chance < 0.6
    assert found["MIG"].high - found["MIG"].low < 0.1
    # the interval of a mean over runs is that of Student's t
    twice = [
        d.Disentanglement((d.Metric("MIG", x, None, None, 0.0),), ("a",), "") for x in (0.3, 0.4)
    ]
    mean = d.over_runs(twice)["MIG"]
    assert mean.value == pytest.approx(0.35) and (mean.low, mean.high) == (
        0,
        pytest.approx(0.985, abs=1e-3),
    )


def test_what_cannot_be_measured_is_refused_or_noted():
    r = np.random.default_rng(0)
    x = r.normal(size=(400, 2))
    one, other = Factor("x", x[:, 0]), Factor("y", x[:, 1])
    with pytest.raises(ValueError, match="two or more factors; got x"):
        d.disentangle(x, [one])
    with pytest.raises(ValueError, match="not enough data to tell: 150 rows"):
        d.disentangle(x, [one, Factor("y", np.where(np.arange(400) < 150, x[:, 1], np.nan))])
    with pytest.raises(ValueError, match="no unit has a variance"):
        d.disentangle(np.zeros((400, 2)), [one, other])
    found = d.disentangle(x, [one, Factor("near", x[:, 0] + x[:, 1])], repeats=2)
    assert [found[name].value for name in d.FIXED] == [None, None]
    words = " ".join(found.notes)
    assert "fewer than two values have 128 rows in: x, near" in words and "x and near (" in words


# -- runs ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """Train two runs on shapes, whose folders are returned."""
    place = tmp_path_factory.mktemp("shapes")
    source = "shapes:n=2000,size=16,channels=grey,binarise=static"
    options = {"steps": 40, "latent": 4, "network": "mlp:width=32"}
    return [vs.train(source, run=place / f"{s}", seed=s, **options).path for s in (0, 1)]


def test_the_command_writes_each_run_and_prints_the_mean(shapes, tmp_path, capsys):
    table = tmp_path / "t.csv"
    words = ["--factors", "x,y,scale", "--repeats", "2", "-o", str(table)]
    assert main(["disentangle", *map(str, shapes), *words]) == 0
    out = capsys.readouterr().out
    assert "mean over 2 runs; factors x, y, scale" in out and "1,800 rows" in out
    stored = [json.loads((p / "disentanglement.json").read_text()) for p in shapes]
    assert [m["name"] for m in stored[0]["metrics"]][:2] == ["MIG", "SAP"]
    assert "the test split has 100 rows" in " ".join(stored[0]["notes"])
    again = Run(shapes[0]).disentangle(["x", "y", "scale"], repeats=2)
    assert again.record()["factors"] == stored[0]["factors"]
    assert json.loads((shapes[0] / "disentanglement.json").read_text()) == stored[0]
    assert len(table.read_text().splitlines()) == 2 * 9 + 9 + 1


def test_kinds_of_runs_that_have_no_factors_are_refused(tmp_path, capsys):
    x = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    run = vs.train(str(tmp_path / "x.npy"), run=tmp_path / "bare", steps=3, latent=2)
    assert main(["disentangle", str(run.path)]) == 2
    line = capsys.readouterr().err
    assert "have no attributes: add --attributes FILE" in line and line.count("\n") == 1
    flow = vs.train(str(tmp_path / "x.npy"), run=tmp_path / "flow", steps=2, model="independent")
    for verb in ("probe", "disentangle"):
        assert main([verb, str(flow.path)]) == 2
        line = capsys.readouterr().err
        assert "latent" in line and line.count("\n") == 1
    assert latent.Disentanglement((), (), "").metrics == ()
