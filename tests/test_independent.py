"""The model of independent cells: what a likelihood can do without a latent."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import vaestro as vs
from vaestro.cli import main
from vaestro.runs.independent import independent_model

G = np.random.default_rng(0)
CORRELATED = (
    G.normal(size=(1200, 2)) @ G.normal(size=(2, 6)) + 0.3 * G.normal(size=(1200, 6))
).astype(np.float32)


def exact(data: vs.Data, likelihood: str) -> np.ndarray:
    model = independent_model(data, likelihood)
    return vs.evaluate(model, data.test, methods="exact")["exact"].nats


def test_real_cells_have_their_moments() -> None:
    data = vs.load(CORRELATED)
    train, test = (CORRELATED[rows.index] for rows in (data.train, data.test))
    mean, std = train.mean(0), train.std(0)
    known = -0.5 * (((test - mean) / std) ** 2 + np.log(2 * np.pi * std**2)).sum(1)
    np.testing.assert_allclose(exact(data, "gaussian").mean(), known.mean(), atol=0.05)


def test_binary_cells_have_their_frequencies() -> None:
    x = (CORRELATED > 0.2).astype(np.uint8)
    data = vs.load(x)
    p = x[data.train.index].mean(0)
    t = x[data.test.index]
    known = (t * np.log(p) + (1 - t) * np.log(1 - p)).sum(1)
    np.testing.assert_allclose(exact(data, "bernoulli").mean(), known.mean(), atol=0.01)


def test_texts_have_frequencies_by_position() -> None:
    letters = np.array(list("ACGT"))
    rows = ["".join(letters[r]) for r in G.integers(0, 4, (800, 10))]
    rows = [r[:4] + "TATA" + r[8:] for r in rows]
    data = vs.load(rows, tokens="characters")
    nats = exact(data, "autoregressive")
    assert nats.mean() == pytest.approx(-6 * np.log(4), abs=0.4)


def test_conditions_shift_the_cells() -> None:
    group = G.integers(0, 2, 1000)
    table = {"x": group * 4.0 + G.normal(size=1000), "group": np.array(["a", "b"])[group]}
    data = vs.load(table, condition=["group"])
    alone = -0.5 * (1 + np.log(2 * np.pi))
    assert exact(data, "table").mean() == pytest.approx(alone, abs=0.2)


def test_grids_count_the_noise_of_dequantisation() -> None:
    x = G.integers(0, 50, (1000, 3)) * 0.5 + 100
    data = vs.load(x)
    nats = exact(data, "gaussian")
    spread = x[data.train.index].std(0)
    known = -0.5 * (np.log(2 * np.pi * spread**2) + 1).sum()
    assert nats.mean() == pytest.approx(known, abs=0.2)
    assert np.array_equal(nats, exact(data, "gaussian")), "the same noise at every call"


def test_a_run_says_what_its_latent_gains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "x.npy", CORRELATED)
    run = str(tmp_path / "run")
    train = ["train", str(tmp_path / "x.npy"), "--run", run, "--latent", "2", "--steps", "800"]
    assert main([*train, "--network", "linear", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "independent cells: log p(x) = " in said and "; the model gains " in said
    assert main(["evaluate", run, "--k", "20"]) == 0
    assert "independent cells: log p(x) = " in capsys.readouterr().out
    found = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    iwae = next(e["mean"] for e in found["estimates"] if e["method"] == "iwae")
    alone = found["independent"]
    assert alone["gain"]["mean"] == pytest.approx(iwae - alone["mean"])
    assert alone["gain"]["mean"] > 1


def test_data_without_structure_gain_nothing(tmp_path: Path) -> None:
    x = G.normal(size=(600, 4)).astype(np.float32)
    run = vs.train(x, run=tmp_path / "run", latent=2, steps=100, network="linear", device="cpu")
    independent = vs.evaluate(run, k=10).independent
    assert independent is not None and "is not better" in independent.sentence()


def test_it_is_trained_and_sampled_like_any_model(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", CORRELATED)
    run = vs.train(
        str(tmp_path / "x.npy"), run=tmp_path / "run", model="independent", steps=50, device="cpu"
    )
    assert vs.evaluate(run, k=10)["exact"].side == "exact"
    drawn = np.asarray(vs.open(run).sample(2000))
    off = np.corrcoef(drawn.T) - np.eye(6)
    assert np.abs(off).max() < 0.1 < np.abs(np.corrcoef(CORRELATED.T) - np.eye(6)).max()
    again = run.model()
    assert again.capabilities.exact and isinstance(again, torch.nn.Module)


def test_a_language_model_is_no_model_of_independent_cells(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "t.txt").write_text("a cat\na dog\na cow\n" * 30)
    source, run = str(tmp_path / "t.txt"), str(tmp_path / "run")
    assert main(["train", source, "--model", "independent", "--run", run, "--steps", "3"]) == 2
    assert "such as categorical" in capsys.readouterr().err
    words = ["--likelihood", "categorical", "--latent", "3"]
    assert main(["train", source, "--model", "independent", "--run", run, *words]) == 2
    assert "--latent" in capsys.readouterr().err
