"""Compare the models of single-cell counts with those of scvi-tools: bounds, codes and time.

    python bench/beside/counts.py [--cells 2000] [--genes 500] [--depth 3] [--epochs 30] [--seeds 3]

Counts of six cell types in three batches are simulated. Both packages train on the same cells, with
the sum of each cell's counts as its library, the batch as a condition, the mean of a gene library x
softmax, a negative binomial with one dispersion per gene, 10 latent units, one hidden layer of 128
units, batches of 128 and the same number of epochs. Models train in turn, one thread each.

    equal   the same training settings too: learning rate 2e-3, Adam's epsilon 1e-8, no dropout,
            no batch normalisation, no warm-up of the KL weight
    own     the defaults of each package. The warm-up of scvi-tools (400 epochs) is longer than the
            run, so it is a third of the run

One function in this file computes the bounds of all models in float64, from exported parameters:
mean and variance of q(z | x), and mean and dispersion of each gene at draws of z. The library is a
function of the counts, so they are not bounds on log p(x); they compare models with one library.

A line of the output is a model: IWAE and ELBO of the test cells in nats, the difference to the line
before (paired, the mean over seeds, +- its standard error over cells, and its range over seeds),
the mixing of batches, the accuracy of types and the processor time of training. Mixing is the
entropy of the batches among the 30 nearest codes of a cell, relative to that of all cells. Accuracy
is that of a vote of the 15 nearest codes in 5-fold cross-validation. scvi-tools is installed into
an environment of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from peers import python_with

TYPES, BATCHES, LATENT, WIDTH, BATCH = 6, 3, 10, 128, 128
SPLIT = "valid=200,test=400"
HERE = {
    "equal": {"network": f"mlp:width={WIDTH},depth=1"},
    "own": {"network": f"residual:width={WIDTH}"},
}
THERE: dict[str, dict[str, Any]] = {
    "equal": {
        "dropout_rate": 0.0,
        "use_batch_norm": "none",
        "plan": {"lr": 2e-3, "eps": 1e-8, "weight_decay": 0.0, "n_epochs_kl_warmup": None},
    },
    "own": {},
}


def simulated(cells: int, genes: int, depth: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw counts (cells, genes) of a mean, and the batch and the type of each cell, (cells,)."""
    r = np.random.default_rng(0)
    kind = r.choice(TYPES, cells, p=np.array([6, 5, 4, 3, 2, 1]) / 21)
    batch = r.integers(BATCHES, size=cells)
    markers = r.normal(0, 1.2, (TYPES, genes)) * (r.random((TYPES, genes)) < 0.15)
    logits = r.normal(0, 1.5, genes) + markers[kind]
    logits += r.normal(0, 0.35, (BATCHES, genes))[batch]
    logits += r.normal(size=(cells, 2)) @ r.normal(0, 0.3, (2, genes))
    share = np.exp(logits - logits.max(1, keepdims=True))
    size = np.exp(r.normal(np.log(depth * genes) + np.array([0.0, 0.3, -0.3])[batch], 0.35))
    mean = size[:, None] * share / share.sum(1, keepdims=True)
    inverse = np.exp(r.normal(np.log(2), 0.7, genes))
    return r.poisson(r.gamma(inverse, mean / inverse)).astype(np.int32), batch, kind


def log_negative_binomial(x: np.ndarray, mean: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """Return log-probabilities in nats, (N,), of counts (N, genes) at means (N, genes) and inverse
    dispersions (genes,)."""
    from scipy.special import gammaln

    total = np.log(inverse + mean)
    cells = (
        gammaln(x + inverse)
        - gammaln(inverse)
        - gammaln(x + 1)
        + inverse * (np.log(inverse) - total)
        + x * (np.log(mean) - total)
    )
    return np.asarray(cells.sum(1))


def recomputed(
    x: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    parameters: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    k: int,
) -> dict[str, list[float]]:
    """Compute the ELBO and IWAE_k of each cell in nats, all constants included, with numpy alone.

    Args:
        x: counts, (N, genes).
        mean, variance: of q(z | x), (N, units).
        parameters: from z (N, units) to the means (N, genes) and the inverse dispersions (genes,)
            of p(x | z).
        k: draws of z for each cell.
    """
    from scipy.special import logsumexp

    r = np.random.default_rng(2)
    mean, variance = mean.astype(np.float64), variance.astype(np.float64)
    log_px, log_w = [], []
    for _ in range(k):
        noise = r.normal(size=mean.shape)
        z = mean + np.sqrt(variance) * noise
        rate, inverse = parameters(z)
        log_px.append(log_negative_binomial(x, rate.astype(np.float64), inverse.astype(np.float64)))
        # The constants ln(2 pi) / 2 of log p(z) and log q(z | x) cancel.
        log_w.append(log_px[-1] + (-(z**2) / 2 + noise**2 / 2 + np.log(variance) / 2).sum(1))
    kl = (mean**2 + variance - 1 - np.log(variance)).sum(1) / 2
    return {
        "elbo": (np.mean(log_px, 0) - kl).tolist(),
        "iwae": (logsumexp(log_w, 0) - np.log(k)).tolist(),
    }


def here(folder: Path, options: argparse.Namespace) -> tuple[dict[str, Any], np.ndarray]:
    """Train this package's model; return the bounds of test cells, and the codes of all cells."""
    import torch

    import vaestro as vs

    more = HERE[options.settings] | json.loads(options.here)
    before = processor_seconds()
    run = vs.train(
        f"{folder / 'counts.h5ad'}:{SPLIT}",
        run=folder / "run",
        force=True,
        condition=["batch"],
        likelihood="negative-binomial:library=observed",
        **{"latent": LATENT, "epochs": options.epochs, "batch": BATCH, "seed": options.seed} | more,
    )
    spent = processor_seconds() - before
    model, data = vs.models.with_latent(run.model()), run.data()
    batch = data.test.batch(slice(None))

    @torch.inference_mode()
    def parameters(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        px = model.decode(torch.from_numpy(z.astype(np.float32)), batch.given)
        assert isinstance(px, vs.densities.NegativeBinomial)
        return np.exp(px.log_mean[0].double().numpy()), np.exp(px.log_inverse.double().numpy())

    with torch.inference_mode():
        q = model.q(model.features(batch))
    assert q.variance is not None
    bounds = recomputed(batch.x.numpy(), q.mean.numpy(), q.variance.numpy(), parameters, options.k)
    codes = np.zeros((sum(map(len, (data.train, data.valid, data.test))), LATENT), np.float32)
    for rows in (data.train, data.valid, data.test):
        codes[rows.index] = vs.latents.encode(model, rows)["mean"]
    return bounds | {"seconds": spent}, codes


def there(folder: Path, options: argparse.Namespace) -> tuple[dict[str, Any], np.ndarray]:
    """Train the model of scvi-tools; return the same."""
    import anndata
    import scvi
    import torch

    rows = np.load(folder / "rows.npz")
    scvi.settings.seed = options.seed
    data = anndata.read_h5ad(folder / "counts.h5ad")
    before = processor_seconds()
    scvi.model.SCVI.setup_anndata(data, batch_key="batch")
    kind = {"n_hidden": WIDTH, "n_latent": LATENT, "n_layers": 1, "gene_likelihood": "nb"}
    plan: dict[str, Any] = {"n_epochs_kl_warmup": options.epochs // 3}
    more = THERE[options.settings] | json.loads(options.there)
    plan |= more.pop("plan", {})
    model = scvi.model.SCVI(data, **kind | more)
    model.train(
        max_epochs=options.epochs,
        accelerator="cpu",
        batch_size=BATCH,
        early_stopping=False,
        enable_progress_bar=False,
        datasplitter_kwargs={"external_indexing": [rows[s] for s in ("train", "valid", "test")]},
        plan_kwargs=plan,
    )
    spent = processor_seconds() - before
    test = rows["test"]
    x = np.asarray(data.X[test].todense())
    mean, variance = model.get_latent_representation(data, indices=test, return_dist=True)
    model.module.eval()
    library = torch.from_numpy(x.sum(1, keepdims=True)).float().log()
    codes = data.obs["_scvi_batch"].to_numpy()[test].astype(np.int64)
    place = torch.from_numpy(codes).unsqueeze(1)

    @torch.inference_mode()
    def parameters(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        z_ = torch.from_numpy(z.astype(np.float32))
        px = model.module.generative(z=z_, library=library, batch_index=place)["px"]
        theta = px.theta.double().numpy()
        return px.mu.double().numpy(), np.asarray(theta)

    bounds = recomputed(x, mean, variance, parameters, options.k)
    return bounds | {"seconds": spent}, model.get_latent_representation(data)


def processor_seconds() -> float:
    """Return the processor time of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


# -- the comparison --------------------------------------------------------------------------------


def write(path: Path, x: np.ndarray, batch: np.ndarray) -> None:
    """Write an .h5ad file that both packages read."""
    import h5py
    import scipy.sparse

    text, matrix = h5py.string_dtype(), scipy.sparse.csr_matrix(x.astype(np.float32))
    named = {"encoding-version": "0.2.0"}
    with h5py.File(path, "w") as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        group = file.create_group("X")
        group.attrs.update(
            {"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": x.shape}
        )
        for part in ("data", "indices", "indptr"):
            group.create_dataset(part, data=getattr(matrix, part))
        for name, count in (("obs", x.shape[0]), ("var", x.shape[1])):
            columns = {"_index": [f"{name}{i}" for i in range(count)]}
            if name == "obs":
                columns["batch"] = [f"lab{b}" for b in batch]
            group = file.create_group(name)
            group.attrs.update({"encoding-type": "dataframe", "_index": "_index"} | named)
            group.attrs["column-order"] = np.array(list(columns)[1:], dtype=text)
            for column, values in columns.items():
                dataset = group.create_dataset(column, data=values, dtype=text)
                dataset.attrs.update({"encoding-type": "string-array"} | named)


def mixing(codes: np.ndarray, batch: np.ndarray) -> float:
    """Return the entropy of the batches among the 30 nearest codes, relative to that of all."""
    from sklearn.neighbors import NearestNeighbors

    near = NearestNeighbors(n_neighbors=31).fit(codes).kneighbors(codes)[1][:, 1:]
    shares = np.stack([(batch[near] == b).mean(1) for b in range(BATCHES)], 1)
    whole = np.bincount(batch, minlength=BATCHES) / len(batch)
    entropy = -(shares * np.log(np.maximum(shares, 1e-12))).sum(1).mean()
    return float(entropy / -(whole * np.log(whole)).sum())


def accuracy(codes: np.ndarray, kind: np.ndarray) -> float:
    """Return the accuracy of the types by a vote of the 15 nearest codes, in cross-validation."""
    from sklearn.model_selection import cross_val_score
    from sklearn.neighbors import KNeighborsClassifier

    return float(cross_val_score(KNeighborsClassifier(15), codes, kind, cv=5).mean())


def trained(model: str, python: Path, folder: Path, seed: int, options: argparse.Namespace) -> Any:
    """Train a model in its own process, and return its bounds, codes and time."""
    passed = [f"--{key}={getattr(options, key)}" for key in ("epochs", "k", "here", "there")]
    settings = [f"--settings={options.settings}", f"--seed={seed}"]
    command = [str(python), __file__, f"--model={model}", f"--folder={folder}", *passed, *settings]
    alone = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | alone
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads((folder / f"{model}.json").read_text()), np.load(folder / f"{model}.npy")


def compare(folder: Path, options: argparse.Namespace) -> None:
    """Train the models of both packages with each seed, and print a line for each package."""
    import vaestro as vs

    x, batch, kind = simulated(options.cells, options.genes, options.depth)
    write(folder / "counts.h5ad", x, batch)
    data = vs.load(f"{folder / 'counts.h5ad'}:{SPLIT}", condition=["batch"])
    np.savez(folder / "rows.npz", **{s: getattr(data, s).index for s in ("train", "valid", "test")})
    pythons = {"there": python_with("scvi-tools", options.venv), "here": Path(sys.executable)}
    names = {"there": "scvi-tools", "here": "vaestro"}
    if options.only:
        pythons = {options.only: pythons[options.only]}
    print(
        f"{options.cells:,} cells x {options.genes:,} genes, {(x > 0).mean():.0%} above 0, "
        f"{len(data.test):,} test cells; {options.epochs} epochs, {options.seeds} seeds, "
        f"{options.settings} settings"
    )
    results: dict[str, list[Any]] = {model: [] for model in pythons}
    for seed in range(options.seeds):
        for model, python in pythons.items():
            results[model].append(trained(model, python, folder, seed, options))
    before = None
    for model, runs in results.items():
        iwae = np.array([bounds["iwae"] for bounds, _ in runs])
        elbo = np.mean([bounds["elbo"] for bounds, _ in runs])
        texts = [f"{names[model]:10}", f"IWAE_{options.k} {iwae.mean():.2f}", f"ELBO {elbo:.2f}"]
        texts.append(f"mixing {np.mean([mixing(c, batch) for _, c in runs]):.3f}")
        texts.append(f"types {np.mean([accuracy(c, kind) for _, c in runs]):.3f}")
        texts.append(f"{np.mean([bounds['seconds'] for bounds, _ in runs]):.1f} s")
        if before is not None:
            gain = iwae - before
            error, seeds = gain.mean(0).std(ddof=1) / gain.shape[1] ** 0.5, gain.mean(1)
            texts.append(
                f"difference {gain.mean():+.2f} +- {error:.2f} ({seeds.min():+.2f} to "
                f"{seeds.max():+.2f})"
            )
        before = iwae
        print("   ".join(texts), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", type=int, default=2000)
    parser.add_argument("--genes", type=int, default=500)
    parser.add_argument("--depth", type=float, default=3.0, help="mean count of a gene")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--k", type=int, default=100, help="draws of IWAE")
    parser.add_argument("--settings", choices=HERE, default="equal")
    parser.add_argument("--here", default="{}", help="more options of vaestro.train, as JSON")
    parser.add_argument(
        "--there",
        default="{}",
        help="more options of scvi.model.SCVI, as JSON; those of the training plan as plan",
    )
    parser.add_argument("--only", choices=("here", "there"), help="train this package alone")
    parser.add_argument("--venv", type=Path, default=None, help="environment of the peer")
    parser.add_argument("--model", choices=("here", "there"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.model:
        result, codes = (here if options.model == "here" else there)(options.folder, options)
        (options.folder / f"{options.model}.json").write_text(json.dumps(result))
        np.save(options.folder / f"{options.model}.npy", codes)
        return
    with tempfile.TemporaryDirectory() as name:
        compare(Path(name), options)


if __name__ == "__main__":
    main()
