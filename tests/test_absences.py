"""Which cells of tables and vectors are empty: learned beside the bound, and drawn in samples."""

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import vaestro as vs
from vaestro import latent
from vaestro.cli import main
from vaestro.data.tables import read_table
from vaestro.frames import Frame
from vaestro.models.absences import Absences
from vaestro.spaces import Batch, RealSpace


def loans(n: int = 600) -> dict[str, np.ma.MaskedArray]:
    """Return a table in which the date of a default exists for those who had one, and two further
    cells are always empty together."""
    r = np.random.default_rng(0)
    income = r.normal(50.0, 10.0, n)
    late = income + r.normal(0.0, 1.0, n) < 50
    lost = r.random(n) < 0.2
    return {
        "income": np.ma.MaskedArray(income),
        "months": np.ma.MaskedArray(r.integers(1, 240, n), ~late),
        "height": np.ma.MaskedArray(r.normal(170.0, 9.0, n), lost),
        "weight": np.ma.MaskedArray(r.normal(70.0, 9.0, n), lost),
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> vs.Run:
    path = tmp_path_factory.mktemp("absences") / "run"
    return vs.train(Frame(loans()), run=path, latent=2, steps=250, lr=1e-2, device="cpu")


def masks(frame: Frame) -> dict[str, np.ndarray]:
    return {name: np.ma.getmaskarray(cells) for name, cells in frame.columns.items()}


def test_the_probabilities_of_all_patterns_sum_to_one_and_draws_have_them() -> None:
    torch.manual_seed(0)
    space = RealSpace((4,), (4,), empty=np.array([0.3, 0.0, 1.0, 0.6]))
    absences = Absences(space, (2,), conditions=1)
    for parameter in absences.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    absences.together.data /= 16
    patterns = torch.tensor([[a, False, True, b] for a, b in product([False, True], repeat=2)])
    given, z, x = torch.ones(4, 1), torch.randn(1, 1, 2).expand(1, 4, 2), torch.randn(1, 4)
    odds = absences.log_prob(z, Batch(x.expand(4, 4), ~patterns, given)).exp()[0]
    torch.testing.assert_close(odds.sum(), torch.tensor(1.0))
    rows = Batch(x.expand(20_000, 4), None, torch.ones(20_000, 1))
    drawn = absences.draw(z[0, :1].expand(20_000, 2), rows, torch.Generator().manual_seed(0))
    shares = (drawn.unsqueeze(1) == patterns).all(-1).float().mean(0)
    torch.testing.assert_close(shares, odds, atol=0.02, rtol=0)


def test_training_without_empty_cells_modelled_gives_the_same_bound() -> None:
    data = vs.load(Frame(loans(200)))
    models = []
    for empty in (data.space.empty, None):
        torch.manual_seed(0)
        space = replace(data.space, empty=empty)
        splits = {s: replace(getattr(data, s), space=space) for s in ("train", "valid", "test")}
        model = vs.build(space, latent=2, network="mlp:width=8")
        steps = vs.training(
            model, vs.Objective("iwae", k=3), replace(data, **splits), steps=20, compile="off"
        )
        list(steps)
        models.append(model)
    with_head, without = (m.state_dict() for m in models)
    assert any(name.startswith("absences") for name in with_head)
    for name, value in without.items():
        torch.testing.assert_close(with_head[name], value, rtol=0, atol=0)
    head = models[0].absences
    assert head is not None and bool(head.together.any())  # it was trained


def test_which_cells_are_empty_follows_other_columns_and_other_empty_cells(run: vs.Run) -> None:
    frame = run.sample(4000, seed=1)
    empty = masks(frame)
    shares = {name: mask.mean() for name, mask in empty.items()}
    data = masks(Frame(loans()))
    for name, share in shares.items():
        assert abs(share - data[name].mean()) < 0.06, name
    assert shares["income"] == 0
    # rows of a high income have no months, although z need not contain the income
    high, low = (frame.columns["income"].data > 55, frame.columns["income"].data < 45)
    assert empty["months"][high].mean() > 0.85 and empty["months"][low].mean() < 0.15
    assert (empty["height"] == empty["weight"]).mean() > 0.95


def test_complete_samples_are_the_same_without_empty_cells(run: vs.Run) -> None:
    gaps, full = run.sample(50, seed=3), run.sample(50, seed=3, complete=True)
    assert not any(mask.any() for mask in masks(full).values())
    for name, cells in gaps.columns.items():
        seen = ~np.ma.getmaskarray(cells)
        assert (np.asarray(cells.data)[seen] == np.asarray(full.columns[name].data)[seen]).all()
    for data in (run.sample(50, mean=True), run.reconstruct(Frame(loans(20)))):
        assert not any(mask.any() for mask in masks(data).values())


def test_files_have_empty_cells(run: vs.Run, tmp_path: Path) -> None:
    for suffix in ("csv", "parquet"):
        path = tmp_path / f"s.{suffix}"
        assert main(["sample", str(run.path), "-n", "300", "-o", str(path)]) == 0
    text = read_table(tmp_path / "s.csv", {}).splits["all"]
    assert 0.3 < np.ma.getmaskarray(text.columns["months"]).mean() < 0.7
    assert 90 < pq.read_table(tmp_path / "s.parquet")["months"].null_count < 210
    path = tmp_path / "full.csv"
    assert main(["sample", str(run.path), "-n", "9", "-o", str(path), "--complete"]) == 0
    assert not any(mask.any() for mask in masks(read_table(path, {}).splits["all"]).values())


def test_an_evaluation_has_them_apart_from_the_bound(
    run: vs.Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(run.path), "--k", "5", "--split", "train"]) == 0
    assert "log p(empty cells | z, full columns) =" in (said := capsys.readouterr().out)
    assert "empty cells in data and samples: months 4" in said
    line = json.loads((run.path / "evaluation.json").read_text())["empty_cells"]
    assert line["given_z"]["mean"] > line["without_z"]["mean"] + 0.3
    assert set(line["columns"]) == {"months", "height", "weight"}
    pair = line["columns"]["months"]
    assert abs(pair["data"] - 0.5) < 0.05 and abs(pair["data"] - pair["samples"]) < 0.1


def test_full_columns_and_older_runs_have_none() -> None:
    full = vs.load({"a": np.arange(100.0), "b": np.arange(100) % 7})
    assert full.space.empty is None and vs.build(full.space, latent=2).absences is None
    space = replace(vs.load(Frame(loans(100))).space, empty=None)  # as stored by older versions
    model = vs.build(space, latent=2)
    assert not any(mask.any() for mask in masks(latent.sample(model, 20)).values())
    with pytest.raises(ValueError, match="whose empty cells are not modelled"):
        latent.sample(model, 20, complete=False)


@pytest.mark.parametrize(("code", "dtype"), [("nan", "float32"), ("-9", "int64")])
def test_vectors_are_complete_unless_gaps_are_asked_for(code: str, dtype: str) -> None:
    r = np.random.default_rng(0)
    x = (10 * r.normal(size=(200, 3))).astype(dtype)
    x[r.random(200) < 0.4, 1] = float(code)
    data = vs.load(x, missing=code, kind="real")
    model = vs.build(data.space, latent=2)
    gap = {"nan": np.isnan}.get(code, lambda v: v == -9)
    assert gap(latent.sample(model, 400)).mean() < 0.1
    drawn = latent.sample(model, 400, complete=False)
    assert drawn.dtype == dtype and 0.3 < gap(drawn)[:, 1].mean() < 0.55
    images = vs.load(
        np.where(r.random((60, 8, 8)) < 0.1, np.nan, r.normal(size=(60, 8, 8))), missing="nan"
    )
    assert images.space.empty is None
