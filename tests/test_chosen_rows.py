"""Which rows are evaluated, and shown: a random draw or an even spread, never the first ones of
sorted data."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import vaestro as vs
from vaestro import evaluation, runs
from vaestro.cli import main
from vaestro.comparison import compare
from vaestro.data.sets import Rows
from vaestro.evaluation import budget
from vaestro.models import LatentModel

TINY = ["--latent", "2", "--network", "linear", "--device", "cpu", "--compile", "off", "--quiet"]


@pytest.fixture
def ordered() -> tuple[LatentModel, Rows]:
    """Return a model and rows whose distance from the origin, and so whose bound, grows with their
    place."""
    r = np.random.default_rng(0)
    x = r.normal(size=(400, 6)).astype(np.float32)
    data = vs.load(x)
    torch.manual_seed(0)
    model = vs.build(data.space, latent=2, network="linear")
    values = data.train.values[:300] * np.linspace(0.1, 3, 300, dtype=np.float32)[:, None]
    return model, Rows(values, data.space, "test")


def test_a_limit_draws_rows_at_random_by_the_seed(ordered: tuple[LatentModel, Rows]) -> None:
    model, rows = ordered
    whole = vs.evaluate(model, rows, k=5, methods="iwae")
    few, again, other = (
        vs.evaluate(model, rows, k=5, methods="iwae", limit=40, seed=s) for s in (0, 0, 1)
    )
    assert few.index is not None and whole.index is not None and other.index is not None
    assert (
        (whole.index == np.arange(300)).all()
        and (np.diff(few.index) > 0).all()
        and len(few.index) == 40
    )
    assert (few.index == again.index).all() and set(few.index) != set(other.index)
    assert few.index.max() > 250, "the last rows have the same chance as the first"
    # a limit does not change the noise of a datum
    np.testing.assert_allclose(few["iwae"].nats, whole["iwae"].nats[few.index], atol=1e-5)
    mean, error = few["iwae"].mean()
    assert abs(mean - whole["iwae"].mean()[0]) < 3.5 * error
    assert whole["iwae"].nats[:100].mean() - whole["iwae"].nats[200:].mean() > 5 * error, (
        "else the first rows would do as well"
    )


def test_methods_that_stop_after_n_data_take_them_at_random(
    ordered: tuple[LatentModel, Rows],
) -> None:
    model, rows = ordered
    found = vs.evaluate(
        model,
        rows,
        k=3,
        methods="iwae,ais:n=20,temperatures=3,chains=2,simulated=0,gap:n=30,steps=4,k=3",
    )
    ais = found["ais"]
    assert ais.index is not None and len(ais.index) == 20 and ais.index.max() > 200
    assert (
        found.gap is not None
        and found.gap.index is not None
        and set(ais.index) <= set(found.gap.index)
    )
    again = vs.evaluate(model, rows.pick(ais.index), k=2000, methods="iwae")["iwae"].nats
    assert np.corrcoef(ais.nats, again)[0, 1] > 0.99, (
        "each number is that of the datum which the index names"
    )


def test_the_files_say_which_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32))
    run = str(tmp_path / "run")
    assert main(["train", str(tmp_path / "x.npy"), "--run", run, "--steps", "3", *TINY]) == 0
    methods = "iwae,ais:n=4,temperatures=3,chains=2,simulated=0"
    assert (
        main(
            [
                "evaluate",
                run,
                "--split",
                "train",
                "--limit",
                "12",
                "--k",
                "3",
                "--methods",
                methods,
                "--seed",
                "5",
            ]
        )
        == 0
    )
    assert "12 of 180 train data, drawn at random" in capsys.readouterr().out
    with np.load(tmp_path / "run" / "evaluation.npz") as held:
        arrays = dict(held)
    rows = vs.Run(run).data().train
    result = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert (result["n"], result["total"], result["seed"]) == (12, 180, 5)
    index = arrays["index"]
    assert len(index) == 12 and index.max() > 12
    assert result["data_sha256"] == rows.pick(index).sha256()
    np.testing.assert_array_equal(arrays["datum"], rows.pick(index).projection())
    assert np.isfinite(arrays["ais"]).sum() == 4 and np.isfinite(arrays["ais_ess"]).sum() == 4
    model = vs.Run(run).model()
    every = vs.evaluate(model, rows, k=3, methods="iwae", seed=5)["iwae"].nats
    np.testing.assert_allclose(arrays["iwae"], every[index], atol=1e-5)


def test_runs_limited_with_one_seed_are_paired_and_with_two_are_told_why_not(
    tmp_path: Path,
) -> None:
    source = str(tmp_path / "x.npy")
    np.save(source, np.random.default_rng(0).normal(size=(400, 5)).astype(np.float32))
    paths = [str(tmp_path / n) for n in "ab"]
    for i, path in enumerate(paths):
        assert main(["train", source, "--run", path, "--steps", "3", "--seed", str(i), *TINY]) == 0

    def said(*options: list[str]) -> list[str]:
        for path, more in zip(paths, options, strict=True):
            assert main(["evaluate", path, "--split", "train", "--k", "3", "--quiet", *more]) == 0
        found = compare(paths)
        return [*found.refusals, *(p.sentence for g in found.groups for p in g.pairs)]

    assert "paired over 30 data" in said(["--limit", "30"], ["--limit", "30"])[0]
    assert (
        "different rows of the same data, 30 each: evaluate both with --limit 30 and the same "
        "--seed" in said(["--limit", "30"], ["--limit", "30", "--seed", "1"])[0]
    )
    assert "evaluate both with --limit 30 --seed 1" in said([], ["--limit", "30", "--seed", "1"])[0]


def test_draws_are_cut_before_rows_where_one_draw_carries_the_bound(
    ordered: tuple[LatentModel, Rows], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, rows = ordered
    effective = [1.1]
    asked: list[dict[str, Any]] = []

    def evaluate(model: Any, rows: Any, **options: Any) -> Any:
        asked.append(options)
        return {"iwae": SimpleNamespace(ess=np.full(options["limit"], effective[0]))}

    monkeypatch.setattr(budget, "evaluate", evaluate)

    def told(passes: int) -> tuple[int, int]:
        monkeypatch.setattr(budget, "affordable", lambda model: passes)
        return evaluation.within_seconds(model, rows, 100)

    assert told(30_000) == (100, 300) and not asked, "all of it is affordable"
    assert told(3000) == (10, 300) and asked[0]["limit"] == 16
    effective[0] = 60.0
    assert told(3000) == (30, 100) and told(20_000) == (100, 200)
    assert told(200) == (1, 200) and told(5) == (1, 20)


def test_the_sentence_after_training_is_of_rows_at_random(
    ordered: tuple[LatentModel, Rows], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, rows = ordered
    monkeypatch.setattr(budget, "affordable", lambda model: 60)
    (said,) = runs.result(model, rows)
    whole = vs.evaluate(model, rows, k=1, methods="iwae")["iwae"]
    assert "60 of 300 test data, drawn at random" in said
    value, error = (float(v) for v in said.split(">= ")[1].split(" nats")[0].split(" +- "))
    assert abs(value - whole.nats.mean()) < 3.5 * error
    assert abs(value - whole.nats[:60].mean()) > 5 * error, "the first 60 would say something else"
