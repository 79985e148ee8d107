"""Compare likelihoods of 8-bit colour images in bits/dim, with equal crops, networks and steps.

    python bench/bits.py [--side 16] [--steps 3000] [--k 100] [--seeds 1] [--out FOLDER]

The crops are from the photographs in scikit-learn and scikit-image. Training crops are from the
left 70 % of each photograph, validation crops from the next 15 %, and test crops from the rest, so
no pixel is in two splits. docs/results.md contains the printed table.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

import vaestro as vs

LIKELIHOODS = (
    "logistic-mixture",
    "discretized-logistic",
    "categorical",
    "gaussian:variance=pixel",
    "laplace:scale=pixel",
    "gaussian",
)


def photographs() -> list[np.ndarray]:
    from skimage import data
    from sklearn.datasets import load_sample_images

    return [
        *load_sample_images().images,
        data.astronaut(),
        data.coffee(),
        data.rocket(),
        data.chelsea(),
    ]


def crops(side: int, train: int = 20_000, held_out: int = 1_000) -> dict[str, np.ndarray]:
    """Return uint8 crops (N, side, side, 3) by split."""
    r = np.random.default_rng(0)
    pictures, splits = photographs(), {}
    for name, n, start, end in (
        ("train", train, 0.0, 0.7),
        ("valid", held_out, 0.7, 0.85),
        ("test", held_out, 0.85, 1.0),
    ):
        out = np.empty((n, side, side, 3), np.uint8)
        for i in range(n):
            picture = pictures[r.integers(len(pictures))]
            low, high = int(start * picture.shape[1]), int(end * picture.shape[1]) - side
            top, left = r.integers(picture.shape[0] - side + 1), r.integers(low, high + 1)
            out[i] = picture[top : top + side, left : left + side]
        splits[name] = out
    return splits


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--side", type=int, default=16)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--network", default="conv")
    parser.add_argument("--likelihoods", default=" ".join(LIKELIHOODS), help="separated by spaces")
    parser.add_argument("--out", default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(options.out or scratch)
        folder.mkdir(parents=True, exist_ok=True)
        source = folder / f"crops-{options.side}.npz"
        np.savez(source, **crops(options.side))  # type: ignore[arg-type]
        print(
            f"crops of {options.side}x{options.side}x3, {options.steps} steps of 128, "
            f"{options.network}, latent 64; test bits/dim"
        )
        print(
            f"{'likelihood':28} {'seed':>4} {'ELBO':>8} {f'IWAE_{options.k}':>9} "
            f"{'rate, nats':>11} {'seconds':>8}"
        )
        for name in options.likelihoods.split():
            for seed in range(options.seeds):
                run = vs.train(
                    source,
                    run=folder / f"{name.replace(':', '-')}-{seed}",
                    likelihood=name,
                    network=options.network,
                    latent=64,
                    steps=options.steps,
                    batch=128,
                    seed=seed,
                )
                done = vs.evaluate(run.model(), run.data().test, k=options.k)
                seconds = run.metrics()[-1]["seconds"]
                bits = [done[m].bits_per_dim or float("nan") for m in ("elbo", "iwae")]
                print(
                    f"{name:28} {seed:4} {bits[0]:8.4f} {bits[1]:9.4f} {done.rate:11.1f} "
                    f"{seconds:8.0f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
