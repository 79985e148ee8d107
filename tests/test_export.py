"""Exported graphs map the user's values as the run does, for every kind of array."""

import json

import numpy as np
import pytest
import torch

import vaestro as vs
from vaestro.cli import main
from vaestro.export import DecoderGraph, EncoderGraph

RANDOM = np.random.default_rng(0)
GAPS = np.where(RANDOM.random((90, 5)) < 0.2, np.nan, RANDOM.normal(size=(90, 5)) * 3 + 50)
ARRAYS = {
    "real": (RANDOM.normal(size=(90, 5)) * [1, 10, 100, 0.1, 1] + 1e4, {}),
    "gaps": (GAPS, {"missing": "nan"}),
    "unit": (RANDOM.uniform(0.01, 0.99, (90, 4)), {"kind": "unit"}),
    "limited": (RANDOM.normal(size=(90, 4)).clip(-1, None), {"low": -1.0}),
    "binary": (255 * RANDOM.integers(0, 2, (90, 6, 6), dtype=np.uint8), {}),
    "levels": (RANDOM.integers(0, 256, (90, 8, 8, 3), dtype=np.uint8), {}),
    "category": (RANDOM.integers(3, 7, (90, 5)), {"kind": "category"}),
    "count": (RANDOM.poisson(3, (90, 5)), {"kind": "count"}),
    "first": (RANDOM.integers(0, 256, (90, 3, 8, 8), dtype=np.uint8), {"axes": "NCHW"}),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Train a run on each array; returns {name: (run, array)}."""
    place = tmp_path_factory.mktemp("export")
    return {
        name: (
            vs.train(
                x, run=place / name, steps=2, batch=16, latent=2, network="mlp:width=8", **options
            ),
            x,
        )
        for name, (x, options) in ARRAYS.items()
    }


@pytest.mark.parametrize("name", ARRAYS)
def test_graphs_equal_the_verbs(runs, name):
    run, x = runs[name]
    some = x[:7]
    model = run.model()
    with torch.no_grad():
        mean, *_ = EncoderGraph(model)(torch.from_numpy(some.astype(np.float32)))
        decoded = DecoderGraph(model)(mean)
    codes = run.encode(some)
    np.testing.assert_allclose(mean.numpy(), codes["mean"], atol=2e-3, rtol=1e-3)
    means = run.decode(mean.numpy(), dtype="float")
    assert decoded.shape == means.shape == some.shape
    np.testing.assert_allclose(decoded.numpy(), means, rtol=1e-4, atol=1e-4)


def test_onnx_runs_without_vaestro(runs, tmp_path, capsys):
    import onnxruntime

    run, x = runs["levels"]
    out = tmp_path / "out"
    assert main(["export", str(run.path), "-o", str(out)]) == 0
    assert "largest difference" in capsys.readouterr().out
    facts = json.loads((out / "export.json").read_text())
    assert facts["encoder"]["inputs"]["x"]["shape"] == ["rows", 8, 8, 3]
    encoder, decoder = (
        onnxruntime.InferenceSession(out / f"{n}.onnx") for n in ("encoder", "decoder")
    )
    for rows in (1, 5):  # any number of rows
        mean, logvar = encoder.run(None, {"x": x[:rows].astype(np.float32)})
        codes = run.encode(x[:rows])
        np.testing.assert_allclose(mean, codes["mean"], atol=1e-4)
        np.testing.assert_allclose(logvar, codes["logvar"], atol=1e-4)
        (means,) = decoder.run(None, {"z": mean})
        np.testing.assert_allclose(means, run.decode(mean, dtype="float"), atol=1e-2)
    # nothing is overwritten
    assert main(["export", str(run.path), "-o", str(out)]) == 2
    assert "--force" in capsys.readouterr().err


def test_a_program_of_torch_runs_without_vaestro(runs, tmp_path):
    run, x = runs["gaps"]
    exported = run.export(tmp_path / "out", "torch")
    assert exported.files == ("encoder.pt2", "decoder.pt2", "export.json")
    program = torch.export.load(tmp_path / "out" / "encoder.pt2").module()
    mean, logvar = program(torch.from_numpy(x[:3].astype(np.float32)))
    np.testing.assert_allclose(mean.detach(), run.encode(x[:3])["mean"], atol=1e-4)
    assert torch.isfinite(logvar).all()


def test_a_graph_that_differs_is_not_written(runs, tmp_path, monkeypatch, capsys):
    run, _ = runs["real"]
    monkeypatch.setattr("vaestro.export.files.TOLERANCE", -1.0)
    out = tmp_path / "out"
    assert main(["export", str(run.path), "--to", "torch", "-o", str(out)]) == 1
    assert "differs from the model" in capsys.readouterr().err
    assert not any(out.iterdir())


def test_refusals(tmp_path, capsys):
    table = {"size": RANDOM.normal(size=90), "sex": RANDOM.choice(["f", "m"], 90)}
    x = {"steps": 2, "batch": 16, "latent": 2, "network": "mlp:width=8"}
    plain = vs.train(table, run=tmp_path / "table", **x)
    given = vs.train(table, run=tmp_path / "given", condition=["sex"], **x)
    out = str(tmp_path / "out")
    for run, more, words in (
        (plain, [], "an array of numbers"),
        (given, [], "without conditions"),
        (plain, ["--to", "tensorflow"], "onnx"),
    ):
        assert main(["export", str(run.path), "-o", out, *more]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1
    (tmp_path / "file").write_text("")
    assert main(["export", str(plain.path), "-o", str(tmp_path / "file")]) == 2
