"""Train on one simulated matrix of counts here and by scvi-tools: bounds on held-out cells beside the exact density, time, memory.

    python bench/counts.py --peer PYTHON [--cells 6000] [--genes 2000] [--epochs 60] [--k 100]

PYTHON is an interpreter of an environment with scvi-tools. Counts are negative binomial about depth * softmax(a + b z), z ~ N(0, 1), so
that log p(x | depth) is known by quadrature. Both get the same cells for training and test, the same depth of each cell (which is drawn,
and no function of its counts), 10 latent units, one hidden layer of 128, batches of 128 and as many epochs; each in a process of its own.
The bound is IWAE with k draws, here by `evaluate`, there by get_marginal_ll. All else is each one's default, but for the warm-up of the KL
there, which is of 400 epochs and would outlast the run: a third of the run.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

DISPERSION = 4.0


def shares(z: np.ndarray, genes: int) -> np.ndarray:
    """Return the share of each gene at latents (N,), (N, genes)."""
    r = np.random.default_rng(1)
    logits = r.normal(0, 1.5, genes) + r.normal(0, 0.7, genes) * z[:, None]
    made = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(made / made.sum(1, keepdims=True))


def simulated(cells: int, genes: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw counts (cells, genes) and depths (cells,)."""
    r = np.random.default_rng(0)
    depth = np.rint(np.exp(r.normal(8, 0.4, cells)))
    rate = depth[:, None] * shares(r.normal(size=cells), genes)
    return r.poisson(r.gamma(DISPERSION, rate / DISPERSION)).astype(np.int32), depth


def exact(x: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Return log p(x | depth) of each cell in nats, by a grid over z that is made finer about its mode."""
    from scipy.special import logsumexp
    from scipy.stats import nbinom

    def joint(row: int, z: np.ndarray) -> np.ndarray:
        mean = depth[row] * shares(z, x.shape[1])
        log_px = nbinom.logpmf(x[row], DISPERSION, DISPERSION / (DISPERSION + mean)).sum(1)
        return np.asarray(log_px - z**2 / 2 - np.log(2 * np.pi) / 2)

    found = []
    for row in range(len(x)):
        centre, width = 0.0, 6.0
        for _ in range(3):
            z = np.linspace(centre - width, centre + width, 121)
            values = joint(row, z)
            centre, width = float(z[values.argmax()]), width / 10
        z = np.linspace(centre - 10 * width, centre + 10 * width, 401)
        values = joint(row, z)
        found.append(logsumexp(values) + np.log(z[1] - z[0]))
    return np.array(found)


def write(path: Path, x: np.ndarray, depth: np.ndarray) -> None:
    """Write an .h5ad file that both read."""
    import h5py
    import scipy.sparse

    text, held = h5py.string_dtype(), scipy.sparse.csr_matrix(x.astype(np.float32))
    with h5py.File(path, "w") as file:
        file.attrs["encoding-type"], file.attrs["encoding-version"] = "anndata", "0.1.0"
        group = file.create_group("X")
        group.attrs["encoding-type"], group.attrs["encoding-version"], group.attrs["shape"] = "csr_matrix", "0.1.0", x.shape
        for part in ("data", "indices", "indptr"):
            group.create_dataset(part, data=getattr(held, part))
        for name, count, columns in (("obs", x.shape[0], {"depth": depth}), ("var", x.shape[1], {})):
            group = file.create_group(name)
            group.attrs["encoding-type"], group.attrs["encoding-version"], group.attrs["_index"] = "dataframe", "0.2.0", "_index"
            group.attrs["column-order"] = np.array(list(columns), dtype=text)
            index = group.create_dataset("_index", data=[f"{name}{i}" for i in range(count)], dtype=text)
            index.attrs["encoding-type"], index.attrs["encoding-version"] = "string-array", "0.2.0"
            for column, values in columns.items():
                made = group.create_dataset(column, data=values)
                made.attrs["encoding-type"], made.attrs["encoding-version"] = "array", "0.2.0"


def here(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """Train and evaluate by this package."""
    import vaestro as vs

    start = time.perf_counter()
    run = vs.train(
        folder / "counts.h5ad", run=folder / "run", condition=["depth"], likelihood="negative-binomial:library=depth",
        network="mlp:width=128,depth=1", latent=10, epochs=asked.epochs, batch=128,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    found = vs.evaluate(run.model(), run.data().test, k=asked.k)
    return {"bound": found["iwae"].nats.tolist(), "elbo": found["elbo"].nats.mean(), "seconds": seconds}


def there(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """Train and evaluate by scvi-tools."""
    import anndata
    import scvi

    held = np.load(folder / "rows.npz")
    scvi.settings.seed = 0
    data = anndata.read_h5ad(folder / "counts.h5ad")
    start = time.perf_counter()
    scvi.model.SCVI.setup_anndata(data, size_factor_key="depth")
    model = scvi.model.SCVI(data, n_hidden=128, n_latent=10, n_layers=1, gene_likelihood="nb")
    split = [held["train"], held["valid"], held["test"]]
    model.train(
        max_epochs=asked.epochs, accelerator="cpu", batch_size=128, early_stopping=False, enable_progress_bar=False,
        datasplitter_kwargs={"external_indexing": split}, plan_kwargs={"n_epochs_kl_warmup": asked.epochs // 3},
    )  # fmt: skip
    seconds = time.perf_counter() - start
    bound = model.get_marginal_ll(data, indices=held["test"], n_mc_samples=asked.k, return_mean=False)
    elbo = model.get_elbo(data, indices=held["test"])
    return {"bound": np.asarray(bound).ravel().tolist(), "elbo": float(elbo), "seconds": seconds, "version": scvi.__version__}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", help="an interpreter with scvi-tools")
    parser.add_argument("--cells", type=int, default=6000)
    parser.add_argument("--genes", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--side", choices=("here", "there"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side:
        found = {"here": here, "there": there}[asked.side](asked.folder, asked)
        found["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        (asked.folder / f"{asked.side}.json").write_text(json.dumps(found))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        x, depth = simulated(asked.cells, asked.genes)
        write(folder / "counts.h5ad", x, depth)
        import vaestro as vs

        data = vs.load(folder / "counts.h5ad", condition=["depth"])
        rows = {s: getattr(data, s).index for s in ("train", "valid", "test")}
        np.savez(folder / "rows.npz", **rows)
        test = rows["test"]
        true = exact(x[test], depth[test])
        print(f"{asked.cells:,} cells x {asked.genes:,} genes, {(x > 0).mean():.0%} of them above 0; {asked.epochs} epochs of 128")
        print(f"log p(x | depth) of {len(test)} test cells, exactly: {true.mean():.2f}")
        interpreters = {"here": sys.executable} | ({"there": asked.peer} if asked.peer else {})
        for side, python in interpreters.items():
            options = ["--side", side, "--folder", str(folder), "--epochs", str(asked.epochs), "--k", str(asked.k)]
            done = subprocess.run([python, __file__, *options], capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(done.stderr)
            found = json.loads((folder / f"{side}.json").read_text())
            below = true - np.array(found["bound"])
            what = "vaestro" if side == "here" else f"scvi-tools {found['version']}"
            error = below.std() / len(below) ** 0.5
            print(
                f"{what:18} IWAE_{asked.k} {true.mean() - below.mean():10.2f} (below the truth by {below.mean():.2f} +- {error:.2f})   "
                f"ELBO {found['elbo']:10.2f}   {found['seconds']:6.0f} s   {found['memory']:6.0f} MB",
                flush=True,
            )


if __name__ == "__main__":
    main()
