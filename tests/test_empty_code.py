"""A code that contains nothing is called so by the verdict and by the commands that use it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vaestro as vs
from tests.test_diagnosis import healthy_curves, simple
from vaestro.cli import main
from vaestro.diagnosis import Case, Remedies, diagnosed
from vaestro.diagnosis.reconstruction import Reconstruction, reconstructed
from vaestro.report.mapping import names_rows


def test_texts_that_are_all_reconstructed_alike_are_a_collapse() -> None:
    def verdict(made: Reconstruction | None, rate: float = 0.5) -> str:
        m = simple(rate=rate, reconstruction=made, train=(-4.0, 0.1, 500))
        return diagnosed(
            Case(Remedies("run", {}), healthy_curves(), m, (1,), autoregressive=True)
        ).verdict

    assert verdict(None) == "overfitted"
    assert verdict(Reconstruction(150, 1, 150, (0.0, 0.0))) == "collapsed"
    assert verdict(Reconstruction(150, 3, 150, (0.004, 0.01))) == "collapsed"
    assert verdict(Reconstruction(150, 90, 150, (0.3, 0.02))) == "overfitted"
    assert verdict(Reconstruction(150, 9, 150, (0.0, 0.04))) == "overfitted", (
        "not enough data to tell"
    )
    assert verdict(Reconstruction(10, 1, 10, (0.0, 0.0))) == "overfitted", "not enough data to tell"
    assert verdict(Reconstruction(150, 1, 150, (0.0, 0.0)), rate=4.0) == "overfitted"
    m = simple(rate=0.5, reconstruction=Reconstruction(150, 1, 150, (0.0, 0.0)))
    said = diagnosed(Case(Remedies("run", {}), healthy_curves(), m, (1,))).findings[0]
    assert (
        said.name == "posterior collapse"
        and "150 different data have 1 different reconstructions" in said.evidence
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("texts")
    r = np.random.default_rng(0)
    words = ["dog", "cat", "ship", "river", "king", "moon"]
    (path / "t.txt").write_text("\n".join(" ".join(r.choice(words, 5)) for _ in range(400)))
    options = {"latent": 2, "steps": 3, "network": "gru:width=8", "device": "cpu", "compile": "off"}
    return vs.train(f"{path}/t.txt:tokens=words", run=path / "run", **options)


def test_what_is_reconstructed_is_measured(run: Any) -> None:
    model, data = run.model(), run.data()
    with torch.no_grad():
        for p in model.posterior.parameters():
            p.zero_()
    found = reconstructed(model, data.train)
    assert found is not None and found.distinct == 1 and found.empty
    assert found.gain == pytest.approx((0.0, 0.0), abs=1e-12)
    x = np.random.default_rng(0).integers(0, 2, (50, 6)).astype(np.uint8)
    other = vs.load(x)
    assert reconstructed(vs.build(other.space, latent=2, network="linear"), other.train) is None
    assert replace(simple(), reconstruction=found).reconstruction is found


def test_a_map_is_not_coloured_by_whatnames_rows() -> None:
    files = np.ma.asarray([f"photos/{i}.png" for i in range(40)])
    assert (
        names_rows(files)
        and not names_rows(np.ma.asarray(["a", "b"] * 20))
        and not names_rows(np.ma.asarray(np.arange(40.0)))
    )


def test_commands_that_use_an_empty_code_warn(
    run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = run.config["source"]
    commands = (
        ["encode", str(run.path), source, "-o", str(tmp_path / "z.npz")],
        ["reconstruct", str(run.path), source, "-o", str(tmp_path / "r.txt"), "-n", "3"],
        ["interpolate", str(run.path), source, "0", "1", "-o", str(tmp_path / "i.txt")],
    )
    for verdict, warned in (
        ("collapsed", True),
        ("latent unused by the decoder", True),
        ("healthy", False),
    ):
        finding = {
            "name": "posterior collapse",
            "severity": "error",
            "remedy": "vaestro train --beta 1",
        }
        known = {"verdict": verdict, "weights_sha256": run.weights_sha256(), "findings": [finding]}
        (run.path / "diagnosis.json").write_text(json.dumps(known))
        for words in commands:
            capsys.readouterr()
            assert main([*words, "--force"]) == 0
            err = capsys.readouterr().err
            assert (
                (
                    err.count("\n") == 1
                    and "contains nothing" in err
                    and "vaestro train --beta 1" in err
                )
                if warned
                else err == ""
            )
    (run.path / "diagnosis.json").unlink()
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    for signal, warned in ((0.01, True), (2.0, False)):
        (run.path / "metrics.jsonl").write_text(
            "".join(json.dumps({**line, "signal": signal}) + "\n" for line in lines)
        )
        capsys.readouterr()
        assert main([*commands[1], "--force"]) == 0
        assert ("contains 0.01 nats" in capsys.readouterr().err) == warned
