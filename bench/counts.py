"""Compare bounds, time and memory with scvi-tools on simulated counts with a known density.

    python bench/counts.py --peer PYTHON [--cells 3000] [--genes 1000] [--epochs 60] [--k 100]

PYTHON is the interpreter of an environment with scvi-tools. Counts are negative binomial with mean
depth * softmax(a + b z), z ~ N(0, 1), so quadrature gives log p(x | depth). All models have the
same training cells, the same test cells, and the same depth of each cell, which is drawn
independently of the counts. Every model has 10 latent units, one hidden layer of 128 units, one
dispersion per gene, batches of 128 and the same number of epochs. Each model runs in its own
process.

    vaestro               mean = depth * softmax; the defaults of this package
    scvi-tools, softmax   mean = depth * softmax, the same parametrisation. scvi-tools has no option
                          for it with a size factor, so its softplus layer is replaced by a softmax
    scvi-tools, matched   the same, with those training settings of this package that scvi-tools
                          supports: learning rate 2e-3 (here the peak of a cycle, there constant),
                          Adam's epsilon 1e-8, no dropout, no warm-up of the KL weight
    scvi-tools, softplus  mean = depth * softplus, the parametrisation that `size_factor_key`
                          selects

All other settings of scvi-tools are its defaults (learning rate 1e-3, epsilon 0.01, dropout 0.1,
batch normalisation), except for the warm-up of the KL weight. Its default of 400 epochs is longer
than the run, so it is set to a third of the run.

With `--library total`, the depth is the sum of each cell's counts, as in scvi-tools without a size
factor. The softmax model is then unmodified scvi-tools. In that case no model has a bound on
log p(x), because the sum is a function of x.

One function in this file computes the bounds of all models in float64, from exported parameters:
mean and variance of q(z | x), and means and dispersions of the negative binomial at draws of z. The
bound that each package reports is printed as well.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

DISPERSION = 4.0
MODELS = {
    "vaestro": "vaestro",
    "softmax": "scvi-tools, softmax",
    "matched": "scvi-tools, matched",
    "softplus": "scvi-tools, softplus",
}
MATCHED = {"lr": 2e-3, "eps": 1e-8, "weight_decay": 0.0, "n_epochs_kl_warmup": None}


def shares(z: np.ndarray, genes: int) -> np.ndarray:
    """Return the share of each gene at latents (N,), (N, genes)."""
    r = np.random.default_rng(1)
    logits = r.normal(0, 1.5, genes) + r.normal(0, 0.7, genes) * z[:, None]
    weights = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(weights / weights.sum(1, keepdims=True))


def simulated(cells: int, genes: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw counts (cells, genes) and depths (cells,)."""
    r = np.random.default_rng(0)
    depth = np.rint(np.exp(r.normal(8, 0.4, cells)))
    rate = depth[:, None] * shares(r.normal(size=cells), genes)
    return r.poisson(r.gamma(DISPERSION, rate / DISPERSION)).astype(np.int32), depth


def log_negative_binomial(
    x: np.ndarray, mean: np.ndarray, inverse: np.ndarray | float
) -> np.ndarray:
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


def exact(x: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Return log p(x | depth) of each cell in nats, (N,), by quadrature over z, on a grid that is
    refined around its mode."""
    from scipy.special import logsumexp

    def joint(row: int, z: np.ndarray) -> np.ndarray:
        mean = depth[row] * shares(z, x.shape[1])
        return log_negative_binomial(x[row], mean, DISPERSION) - z**2 / 2 - np.log(2 * np.pi) / 2

    result = []
    for row in range(len(x)):
        centre, width = 0.0, 6.0
        for _ in range(3):
            z = np.linspace(centre - width, centre + width, 121)
            values = joint(row, z)
            centre, width = float(z[values.argmax()]), width / 10
        z = np.linspace(centre - 10 * width, centre + 10 * width, 401)
        result.append(logsumexp(joint(row, z)) + np.log(z[1] - z[0]))
    return np.array(result)


def recomputed(
    x: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    parameters: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    k: int,
) -> dict[str, Any]:
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
    bounds = {
        "elbo": (np.mean(log_px, 0) - kl).tolist(),
        "iwae": (logsumexp(log_w, 0) - np.log(k)).tolist(),
    }
    return bounds | {"log_inverse": float(np.log(inverse).mean())}


def write(path: Path, x: np.ndarray, depth: np.ndarray) -> None:
    """Write an .h5ad file that both packages read."""
    import h5py
    import scipy.sparse

    text, matrix = h5py.string_dtype(), scipy.sparse.csr_matrix(x.astype(np.float32))
    with h5py.File(path, "w") as file:
        file.attrs["encoding-type"], file.attrs["encoding-version"] = "anndata", "0.1.0"
        group = file.create_group("X")
        group.attrs["encoding-type"], group.attrs["encoding-version"], group.attrs["shape"] = (
            "csr_matrix",
            "0.1.0",
            x.shape,
        )
        for part in ("data", "indices", "indptr"):
            group.create_dataset(part, data=getattr(matrix, part))
        for name, count, columns in (
            ("obs", x.shape[0], {"depth": depth}),
            ("var", x.shape[1], {}),
        ):
            group = file.create_group(name)
            group.attrs["encoding-type"], group.attrs["encoding-version"], group.attrs["_index"] = (
                "dataframe",
                "0.2.0",
                "_index",
            )
            group.attrs["column-order"] = np.array(list(columns), dtype=text)
            index = group.create_dataset(
                "_index", data=[f"{name}{i}" for i in range(count)], dtype=text
            )
            index.attrs["encoding-type"], index.attrs["encoding-version"] = "string-array", "0.2.0"
            for column, values in columns.items():
                dataset = group.create_dataset(column, data=values)
                dataset.attrs["encoding-type"], dataset.attrs["encoding-version"] = "array", "0.2.0"


def here(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train and evaluate this package's model."""
    import torch

    import vaestro as vs

    start = time.perf_counter()
    run = vs.train(
        folder / "counts.h5ad",
        run=folder / "run",
        condition=["depth"],
        likelihood="negative-binomial:library=depth",
        network="mlp:width=128,depth=1",
        latent=10,
        epochs=options.epochs,
        batch=128,
        **json.loads(options.here),
    )
    seconds = time.perf_counter() - start
    model, rows = vs.models.with_latent(run.model()), run.data().test
    batch = rows.batch(slice(None))
    with torch.inference_mode():
        q = model.q(model.features(batch))

    @torch.inference_mode()
    def parameters(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        px = model.decode(torch.from_numpy(z.astype(np.float32)), batch.given)
        assert isinstance(px, vs.densities.NegativeBinomial)
        return np.exp(px.log_mean[0].double().numpy()), np.exp(px.log_inverse.double().numpy())

    assert q.variance is not None
    bounds = recomputed(batch.x.numpy(), q.mean.numpy(), q.variance.numpy(), parameters, options.k)
    own = vs.evaluate(model, rows, k=options.k)["iwae"].nats.mean()
    return bounds | {"own": float(own), "seconds": seconds, "version": vs.__version__}


def there(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train and evaluate the model of scvi-tools."""
    import anndata
    import scvi
    import torch

    rows = np.load(folder / "rows.npz")
    scvi.settings.seed = options.seed
    data = anndata.read_h5ad(folder / "counts.h5ad")
    start = time.perf_counter()
    scvi.model.SCVI.setup_anndata(
        data,
        size_factor_key="depth"
        if options.library == "drawn" or options.model == "softplus"
        else None,
    )
    kind: dict[str, Any] = {
        "n_hidden": 128,
        "n_latent": 10,
        "n_layers": 1,
        "gene_likelihood": "nb",
        "dropout_rate": 0.1,
    }
    plan: dict[str, Any] = {"n_epochs_kl_warmup": options.epochs // 3}
    if options.model == "matched":
        kind, plan = kind | {"dropout_rate": 0.0}, MATCHED
    kind |= json.loads(options.there)
    plan = plan | kind.pop("plan", {})
    model = scvi.model.SCVI(data, **kind)
    if options.model != "softplus":
        model.module.decoder.px_scale_decoder[1] = torch.nn.Softmax(dim=-1)
    split = [rows["train"], rows["valid"], rows["test"]]
    model.train(
        max_epochs=options.epochs,
        accelerator="cpu",
        batch_size=128,
        early_stopping=False,
        enable_progress_bar=False,
        datasplitter_kwargs={"external_indexing": split},
        plan_kwargs=plan,
    )
    seconds = time.perf_counter() - start
    test = rows["test"]
    x = np.asarray(data.X[test].todense())
    depth = torch.from_numpy(np.asarray(data.obs["depth"])[test]).float().log().unsqueeze(1)
    mean, variance = model.get_latent_representation(data, indices=test, return_dist=True)
    model.module.eval()
    place = torch.zeros(len(test), 1)

    @torch.inference_mode()
    def parameters(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        z_ = torch.from_numpy(z.astype(np.float32))
        px = model.module.generative(
            z=z_, library=depth, batch_index=place, size_factor=depth, y=place
        )["px"]
        return px.mu.double().numpy(), np.asarray(px.theta.double().numpy())

    bounds = recomputed(x, mean, variance, parameters, options.k)
    # With return_mean the result is a mean of batch means, and the last batch is smaller.
    own = model.get_marginal_ll(
        data, indices=test, n_mc_samples=options.k, return_mean=False
    ).mean()
    return bounds | {"own": float(own), "seconds": seconds, "version": scvi.__version__}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", help="an interpreter with scvi-tools")
    parser.add_argument("--cells", type=int, default=3000)
    parser.add_argument("--genes", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the training of scvi-tools")
    parser.add_argument(
        "--library", choices=("drawn", "total"), default="drawn", help="what each cell's depth is"
    )
    parser.add_argument("--here", default="{}", help="more options of vaestro.train, as JSON")
    parser.add_argument(
        "--there",
        default="{}",
        help="more options of scvi.model.SCVI, as JSON; those of the training plan as plan",
    )
    parser.add_argument("--only", choices=MODELS, help="train this model alone")
    parser.add_argument("--model", choices=MODELS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.model:
        result = (here if options.model == "vaestro" else there)(options.folder, options)
        result["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        (options.folder / f"{options.model}.json").write_text(json.dumps(result))
        return
    with tempfile.TemporaryDirectory() as name:
        compare(Path(name), options)


def compare(folder: Path, options: argparse.Namespace) -> None:
    """Train and evaluate each model in its own process, and print a line for each."""
    import vaestro as vs

    x, depth = simulated(options.cells, options.genes)
    if options.library == "total":
        depth = x.sum(1).astype(np.float64)
    write(folder / "counts.h5ad", x, depth)
    data = vs.load(folder / "counts.h5ad", condition=["depth"])
    rows = {s: getattr(data, s).index for s in ("train", "valid", "test")}
    np.savez(folder / "rows.npz", **rows)
    test = rows["test"]
    print(
        f"{options.cells:,} cells x {options.genes:,} genes, {(x > 0).mean():.0%} of them above "
        f"0; {options.epochs} epochs of 128"
    )
    true = None if options.library == "total" else exact(x[test], depth[test])
    if true is not None:
        print(f"log p(x | depth) of {len(test)} test cells, exact: {true.mean():.2f} nats")
    first = None
    for model in [options.only] if options.only else MODELS if options.peer else ["vaestro"]:
        python = sys.executable if model == "vaestro" else options.peer
        if python is None:
            raise SystemExit(f"expected --peer PYTHON for {MODELS[model]}")
        passed = [
            f"--{key}={getattr(options, key)}"
            for key in ("epochs", "k", "seed", "library", "here", "there")
        ]
        command = [python, __file__, "--model", model, "--folder", str(folder), *passed]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)
        result = json.loads((folder / f"{model}.json").read_text())
        iwae = np.array(result["iwae"])
        first = iwae if first is None else first
        texts = [
            f"{MODELS[model]} {result['version']}".ljust(28),
            f"IWAE_{options.k} {iwae.mean():.2f}",
        ]
        if true is not None:
            texts.append(f"{mean_and_error(true - iwae)} below exact")
        texts += [f"{mean_and_error(iwae - first)} above the first"] if iwae is not first else []
        texts += [f"ELBO {np.mean(result['elbo']):.2f}", f"by its own code {result['own']:.2f}"]
        texts.append(
            f"mean log inverse dispersion {result['log_inverse']:.2f} (true "
            f"{np.log(DISPERSION):.2f})"
        )
        print(
            "   ".join([*texts, f"{result['seconds']:.0f} s", f"{result['memory']:.0f} MB"]),
            flush=True,
        )


def mean_and_error(values: np.ndarray) -> str:
    """Return a mean over cells and its standard error as text."""
    return f"{values.mean():.2f} +- {values.std(ddof=1) / len(values) ** 0.5:.2f}"


if __name__ == "__main__":
    main()
