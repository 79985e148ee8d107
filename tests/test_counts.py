"""Counts: sparse matrices, AnnData files, zero inflation, and a library that is given."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import scipy.stats
import torch

import vaestro as vs
from tests.conftest import make_space
from vaestro import densities
from vaestro.cli import main
from vaestro.data import load_rows
from vaestro.data.sparse import Sparse
from vaestro.densities import log_mean_exp
from vaestro.frames import Frame
from vaestro.runs import Job
from vaestro.spaces import Kind

h5py = pytest.importorskip("h5py")
anndata = pytest.importorskip("anndata")
pandas = pytest.importorskip("pandas")
GENES = 12


def simulated(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw counts x ~ NB(mean = depth * softmax(a + b z), inverse dispersion 4), z ~ N(0, 1):
    counts, depth, exact log p(x | depth)."""
    r = np.random.default_rng(seed)
    a, b = np.linspace(-1, 1, GENES), np.sin(np.arange(GENES) * 1.7)
    depth = np.rint(np.exp(r.normal(3.5, 0.5, n)))

    def mean(z: np.ndarray) -> np.ndarray:
        logits = a + b * z[:, None]
        shares = np.exp(logits - logits.max(1, keepdims=True))
        return shares / shares.sum(1, keepdims=True)

    rate = depth[:, None] * mean(r.normal(size=n))
    x = r.poisson(r.gamma(4.0, rate / 4.0))
    # The exact density by Gauss and Hermite's quadrature.
    z, weight = np.polynomial.hermite_e.hermegauss(80)
    log_px = np.stack(
        [
            scipy.stats.nbinom.logpmf(x, 4.0, 4.0 / (4.0 + depth[:, None] * m)).sum(1)
            for m in mean(z)
        ]
    )
    exact = np.log(
        (np.exp(log_px - log_px.max(0)) * (weight / weight.sum())[:, None]).sum(0)
    ) + log_px.max(0)
    return x, depth, exact


def write_h5ad(
    path: Path,
    x: np.ndarray,
    obs: dict[str, np.ndarray],
    form: str = "csr",
    layer: np.ndarray | None = None,
    genes: Any = (),
) -> Path:
    """Write a file with AnnData; `genes` are the names of its columns."""

    def index(names: Iterable[object]) -> pandas.Index:
        return pandas.Index([str(n) for n in names], dtype=object)  # as pandas 2 stores text

    def column(values: np.ndarray) -> np.ndarray | pandas.Categorical:
        if values.dtype.kind != "U":
            return values
        names, codes = np.unique(values, return_inverse=True)
        return pandas.Categorical.from_codes(codes, index(names))

    made = {"csr": scipy.sparse.csr_matrix, "csc": scipy.sparse.csc_matrix, "dense": np.asarray}
    file = anndata.AnnData(
        made[form](x.astype(np.float32)),
        obs=pandas.DataFrame(
            {n: column(v) for n, v in obs.items()}, index=index(f"cell{i}" for i in range(len(x)))
        ),
        var=pandas.DataFrame(index=index(genes if len(genes) else range(x.shape[1]))),
    )
    if layer is not None:
        file.layers["raw"] = made[form](layer.astype(np.float32))
    file.write_h5ad(path)
    if not len(genes):
        with h5py.File(path, "r+") as bare:
            del bare["var"]
    return path


@pytest.mark.parametrize("form", ["csr", "csc", "coo"])
def test_a_sparse_matrix_gives_the_rows_of_the_dense_one(tmp_path: Path, form: str) -> None:
    r = np.random.default_rng(0)
    dense = r.poisson(0.3, (40, 7))
    dense[3] = 0
    scipy.sparse.save_npz(tmp_path / "x.npz", scipy.sparse.coo_matrix(dense).asformat(form))
    data = vs.load(tmp_path / "x.npz")
    held = data.train.values
    assert isinstance(held, Sparse) and held.dtype == np.uint8 and data.space.kind is Kind.COUNT
    for rows in (
        slice(None),
        slice(2, 5),
        np.array([3]),
        r.integers(0, 40, (3, 4)),
        np.arange(40)[::-1],
        np.zeros(0, int),
    ):
        np.testing.assert_array_equal(held[rows], dense[rows])
    np.save(tmp_path / "x.npy", dense)
    same = vs.load(f"{tmp_path / 'x.npy'}:kind=count")
    for split in ("train", "valid", "test"):
        mine, theirs = getattr(data, split), getattr(same, split)
        np.testing.assert_array_equal(mine.outward(), theirs.outward())
        torch.testing.assert_close(
            mine.batch(slice(0, 2)).x.long(), theirs.batch(slice(0, 2)).x.long()
        )
    np.testing.assert_allclose(data.space.marginal, same.space.marginal, rtol=1e-5)


def test_what_stands_for_one_cell_twice_is_summed(tmp_path: Path) -> None:
    r = np.random.default_rng(0)
    twice = scipy.sparse.coo_matrix(
        (r.integers(1, 200, 400), (r.integers(0, 30, 400), r.integers(0, 5, 400))), (30, 5)
    )
    scipy.sparse.save_npz(tmp_path / "x.npz", twice)
    np.testing.assert_array_equal(vs.load(tmp_path / "x.npz").train.values[:], twice.toarray())


@pytest.mark.parametrize("form", ["csr", "csc", "dense"])
def test_an_annotated_file(tmp_path: Path, form: str) -> None:
    x, depth, _ = simulated(50)
    obs = {
        "depth": depth,
        "batch": np.array(["b", "a"] * 25),
        "total": x.sum(1),
        "fresh": np.array([True, False] * 25),
    }
    path = write_h5ad(tmp_path / "x.h5ad", np.log1p(x), obs, form, layer=x)
    with pytest.raises(
        ValueError, match=r"expected counts in X of .* without any normalisation; got"
    ):
        vs.load(path)
    data = vs.load(f"{path}:array=raw", condition=["depth", "batch"])
    assert isinstance(data.train.values, Sparse)
    assert data.given is not None and data.given.names == ("depth", "batch")
    assert {"total", "fresh"} <= set(
        data.train.attributes
    ) and "_index" not in data.train.attributes
    np.testing.assert_array_equal(data.train.outward(), x[data.train.index])
    np.testing.assert_array_equal(
        data.given.outward(data.train.given).columns["depth"].data, depth[data.train.index]
    )
    with pytest.raises(
        ValueError, match=r"expected array= to be X or a layer of .*: X, raw; got 'rew'"
    ):
        vs.load(f"{path}:array=rew")


def test_zero_inflation_is_a_mixture_with_nothing() -> None:
    log_mean, log_inverse, logit = (torch.randn(5, 3, dtype=torch.float64) for _ in range(3))
    base = densities.NegativeBinomial(log_mean, log_inverse)
    px = densities.ZeroInflated(base, logit)
    mean, r, missed = (
        log_mean.exp().numpy(),
        log_inverse.exp().numpy(),
        torch.sigmoid(logit).numpy(),
    )
    for count in (0, 1, 7, 150):
        p = (1 - missed) * scipy.stats.nbinom.pmf(count, r, r / (r + mean)) + missed * (count == 0)
        found = px.cells(torch.full((5, 3), count)).exp().numpy()
        np.testing.assert_allclose(found, p, rtol=1e-6, atol=1e-12)
    extreme = densities.ZeroInflated(base, torch.full_like(logit, 200.0))
    assert torch.isfinite(extreme.cells(torch.tensor([0, 1, 2]))).all()


def test_means_are_shares_of_the_library() -> None:
    _, depth, _ = simulated(60)
    for name in ("poisson", "negative-binomial", "zero-inflated"):
        for column in (depth, depth + 0.25):  # a count, and a real number
            space = make_space(Kind.COUNT, (GENES,))
            given, _ = vs.data.kinds.infer_space(
                *[Frame({"depth": np.ma.MaskedArray(column)})] * 2, {}, "a test"
            )
            model = vs.build(
                space,
                latent=2,
                likelihood=f"{name}:library=depth",
                given=given,
                network="mlp:width=8",
            )
            features = given.features(
                torch.from_numpy(given.inward(Frame({"depth": np.ma.MaskedArray(column)}))),
                None,
                torch.float32,
            )
            px = model.likelihood(torch.randn(3, 60, 2), features)
            base = px.base if name == "zero-inflated" else px
            torch.testing.assert_close(
                base.mean.sum(-1),
                torch.from_numpy(column).float().expand(3, 60),
                rtol=2e-4,
                atol=1e-3,
            )
    with pytest.raises(
        ValueError,
        match=r"expected a condition of numbers named 'depth' \(--condition depth\); got none",
    ):
        vs.build(make_space(Kind.COUNT, (4,)), latent=2, likelihood="poisson:library=depth")


@pytest.mark.parametrize("likelihood", ["negative-binomial", "zero-inflated"])
def test_the_bound_lies_below_the_truth_and_near_it(tmp_path: Path, likelihood: str) -> None:
    x, depth, exact = simulated(3000)
    path = write_h5ad(tmp_path / "x.h5ad", x, {"depth": depth})
    run = vs.train(
        f"{path}:valid=200,test=800",
        run=tmp_path / "run",
        condition=["depth"],
        likelihood=f"{likelihood}:library=depth",
        latent=2,
        network="residual:width=32",
        epochs=25,
        batch=64,
        lr=5e-3,
    )
    rows = run.data().test
    found = vs.evaluate(run.model(), rows, k=200)["iwae"].nats
    short = exact[rows.index] - found
    assert short.mean() > -3 * short.std() / math.sqrt(len(short))
    assert short.mean() < 0.4


def test_the_whole_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x, depth, _ = simulated(200)
    path = write_h5ad(tmp_path / "cells.h5ad", x, {"depth": depth, "total": x.sum(1)})
    run = str(tmp_path / "run")

    def say(*words: str) -> str:
        assert main([*words]) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    options = ["--latent", "2", "--steps", "60", "--network", "mlp:width=16"]
    said = say(
        "train",
        str(path),
        "--condition",
        "total",
        "--likelihood",
        "negative-binomial:library=total",
        "--run",
        f"{run}2",
        *options,
    )
    assert "total is the sum of the modelled counts" in said
    said = say(
        "train",
        str(path),
        "--condition",
        "depth",
        "--likelihood",
        "zero-inflated:library=depth",
        "--run",
        run,
        *options,
    )
    assert "is the sum of the modelled counts" not in said and "log p(x | depth) >=" in said
    say(
        "evaluate",
        run,
        "--k",
        "20",
        "--methods",
        "elbo,iwae,ais:temperatures=10,chains=4",
        "--limit",
        "5",
    )
    lines = json.loads((tmp_path / "run" / "evaluation.json").read_text())["estimates"]
    assert all(e["measure"] == "counting" and e["bits_per_dim"] > 0 for e in lines)
    say("sample", run, "-n", "30", "--condition", "depth=4000", "-o", str(tmp_path / "samples.npy"))
    samples = np.load(tmp_path / "samples.npy")
    assert samples.dtype == np.int32 and 1000 < samples.sum(1).mean() < 5000 and samples.max() > 255
    say("encode", run, str(path), "-o", str(tmp_path / "out.h5ad"))
    with h5py.File(tmp_path / "out.h5ad") as file:
        assert file["obsm/X_vaestro"].shape == (200, 2) and file["obsm/X_vaestro_logvar"].shape == (
            200,
            2,
        )
        assert file["obsm/X_vaestro"].attrs["encoding-type"] == "array"
    say("encode", run, str(path), "-o", str(tmp_path / "codes.npz"))
    with h5py.File(tmp_path / "out.h5ad") as file:
        np.testing.assert_array_equal(
            file["obsm/X_vaestro"][:], np.load(tmp_path / "codes.npz")["mean"]
        )
    say("diagnose", run)
    say("report", run)
    say("encode", run, str(path), "-o", str(tmp_path / "o.h5ad"), "--split", "test")
    with h5py.File(tmp_path / "o.h5ad") as file:
        assert file["obsm/X_vaestro"].shape == (10, 2)
    assert main(["encode", run, str(tmp_path / "codes.npz"), "-o", str(tmp_path / "p.h5ad")]) == 2


def test_genes_are_matched_by_name_when_a_run_reads_other_cells(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x, depth, _ = simulated(80)
    genes = np.array([f"g{i}" for i in range(GENES)])
    order = np.random.default_rng(1).permutation(GENES)
    wide = np.concatenate([x[:, order], x[:, :2]], 1)
    old = write_h5ad(tmp_path / "old.h5ad", x, {"depth": depth}, genes=genes)
    new = write_h5ad(
        tmp_path / "new.h5ad",
        wide,
        {"depth": 10 * depth},
        "csc",
        genes=[*genes[order], "other", "another"],
    )
    same = write_h5ad(tmp_path / "same.h5ad", x, {"depth": 10 * depth}, genes=genes)
    options: dict[str, Any] = {"steps": 4, "device": "cpu"}
    first = vs.train(
        old,
        run=tmp_path / "a",
        latent=2,
        network="mlp:width=8",
        condition=["depth"],
        likelihood="negative-binomial:library=depth",
        **options,
    )
    run = vs.train(new, run=tmp_path / "b", init=str(first.path), freeze=["posterior"], **options)
    assert run.config["likelihood"] == "negative-binomial:library=depth" and run.config[
        "condition"
    ] == ["depth"]
    model = first.model()
    found = [load_rows(source, model.space, "all", given=model.given) for source in (new, same)]
    np.testing.assert_array_equal(found[0].outward(), x)
    batches = [rows.batch(slice(0, 80)) for rows in found]
    assert torch.equal(run.model().code(batches[0])[0], model.code(batches[1])[0])
    assert run.data().given is not None and run.data().given.columns == model.given.columns, (
        "the library is in the old run's units"
    )
    notes = Job.new(new, init=str(first.path), dry=True, **options).notes
    assert any(
        n.startswith("left out 2 of 14 columns") and "'other', 'another'" in n for n in notes
    )
    less = write_h5ad(tmp_path / "less.h5ad", x[:, 1:], {"depth": depth}, genes=genes[1:])
    capsys.readouterr()
    for command in (
        ["encode", str(first.path), str(less), "-o", str(tmp_path / "o.npz")],
        ["train", str(less), "--init", str(first.path)],
    ):
        assert main(command) == 2
        said = capsys.readouterr().err
        assert "got no 'g0' among 11 names" in said and said.count("\n") == 1
    # Files without names are read by position.
    bare = write_h5ad(tmp_path / "bare.h5ad", x, {"depth": depth})
    np.testing.assert_array_equal(
        load_rows(bare, model.space, "all", given=model.given).outward(), x
    )


def broken(path: Path, **parts: np.ndarray) -> Path:
    held = scipy.sparse.csr_matrix(np.random.default_rng(0).poisson(1, (30, 4)))
    values = {
        "data": held.data,
        "indices": held.indices,
        "indptr": held.indptr,
        "shape": np.array([30, 4]),
        "format": np.array(b"csr"),
    }
    np.savez(path, **{**values, **parts})
    return path


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"data": np.full(61, -1)}, "contradict each other"),
        ({"indptr": np.arange(5)}, "contradict each other"),
        ({"indices": np.full(100, 9)}, "contradict each other"),
        ({"format": np.array(b"bsr")}, "expected a sparse matrix as csr, csc or coo"),
        ({"format": np.array(b"coo")}, "has no col or no row"),
        (
            {
                "format": np.array(b"coo"),
                "row": np.full(9, 40),
                "col": np.zeros(9, int),
                "data": np.ones(9, int),
            },
            "contradict each other",
        ),
    ],
)
def test_damaged_matrices_are_refused(tmp_path: Path, parts: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        vs.load(broken(tmp_path / "x.npz", **parts))


def test_what_is_no_count_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dense = np.random.default_rng(0).poisson(1, (30, 4)).astype(float)
    for wrong, said in ((-1.0, "such as -1"), (0.5, "such as 0.5"), (np.inf, "such as inf")):
        dense[2, 1] = wrong
        scipy.sparse.save_npz(tmp_path / "x.npz", scipy.sparse.csr_matrix(dense))
        assert main(["train", str(tmp_path / "x.npz"), "--run", str(tmp_path / "run")]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and said in error
    dense[2, 1] = 1
    scipy.sparse.save_npz(tmp_path / "x.npz", scipy.sparse.csr_matrix(dense))
    assert main(["train", f"{tmp_path / 'x.npz'}:kind=real", "--run", str(tmp_path / "run")]) == 2
    assert "expected kind=count for a sparse matrix" in capsys.readouterr().err
    (tmp_path / "x.h5ad").write_bytes(b"no such thing")
    assert main(["train", str(tmp_path / "x.h5ad"), "--run", str(tmp_path / "run")]) == 2
    assert "is damaged, or not an .h5ad file" in capsys.readouterr().err


def test_log_mean_exp_of_what_is_missed() -> None:
    px = densities.ZeroInflated(densities.Poisson(torch.zeros(4, 3)), torch.zeros(4, 3))
    counts = torch.arange(60).reshape(-1, 1, 1).expand(60, 4, 3)
    total = log_mean_exp(px.cells(counts)) + math.log(60)
    torch.testing.assert_close(total, torch.zeros(4, 3), atol=1e-5, rtol=0)
