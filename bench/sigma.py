"""Compare a learned variance with the best KL weight of a sweep, on 8-bit colour crops.

    python bench/sigma.py [--side 8] [--steps 1000] [--seeds 3] [--betas 0.001 ...]

The setting is that of Rybkin, Daniilidis and Levine (2021). Each model of the sweep has a Gaussian
likelihood with the variance of the data, and a KL weight beta. After training, its variance is set
to the optimum on the training split, because its bound would otherwise be uninformative. `optimal`
is variance=optimal,version=1 at beta 1, with one variance for all channels.

Bits/dim are of the test split. The next columns are energy distances (Szekely and Rizzo 2013)
between means of p(x | z) at draws of the prior and test crops, in the space of the 64 leading
principal components of the training crops. They are divided by the distance of training crops.
Without whitening, coarse structure dominates; with whitening, fine structure (blur) has equal
weight.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bits import crops

import vaestro as vs
from vaestro import latents
from vaestro.randomness import torch_generator

BETAS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
SHOWN = 1000


def energy(a: np.ndarray, b: np.ndarray) -> float:
    """Return the energy distance between two samples (N, D)."""

    def apart(x: np.ndarray, y: np.ndarray) -> float:
        return float(torch.cdist(torch.from_numpy(x), torch.from_numpy(y)).mean())

    return 2 * apart(a, b) - apart(a, a) - apart(b, b)


def recalibrated(model: vs.Model, data: vs.Data, seed: int, **parts: Any) -> vs.Model:
    """Return the model with its variance set to the optimum on the training split."""
    other = vs.build(data.space, likelihood="gaussian:variance=optimal,version=1", **parts)
    other.load_state_dict(model.state_dict())
    other.eval()
    batches = enumerate(data.train.spread(10_000).chunks(data.space.chunk))
    other.fit_to_data(
        (batch, other.noise(1, len(batch), torch_generator("cpu", seed, "fit", i)))
        for i, batch in batches
    )
    return other


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--side", type=int, default=8)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--betas", type=float, nargs="+", default=BETAS)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        np.savez(folder / "crops.npz", **crops(asked.side))  # type: ignore[arg-type]
        data = vs.load(folder / "crops.npz")
        # Use the averaged weights at the end: selection by a bound with an uncalibrated variance
        # would choose the first ones.
        unwatched = replace(data, valid=data.valid.take(0))
        train = np.asarray(data.train.outward(), np.float32).reshape(len(data.train), -1)
        test = np.asarray(data.test.outward(), np.float32).reshape(len(data.test), -1)
        _, lengths, axes = np.linalg.svd(train[:5000] - train.mean(0), full_matrices=False)
        plain, white = axes[:64].T, axes[:64].T / lengths[:64]

        def distances(drawn: np.ndarray) -> list[float]:
            return [
                energy((drawn[:SHOWN] - train.mean(0)) @ space, (test - train.mean(0)) @ space)
                for space in (plain, white)
            ]

        least = distances(train)
        print(f"crops of {asked.side}x{asked.side}x3, {asked.steps} steps of 128, conv, latent 64")
        print("distances are times those of training crops")
        print(
            "| variance | beta | seed | ELBO, bits/dim | IWAE | rate, nats | energy distance | "
            "whitened |"
        )
        print("|---|---|---|---|---|---|---|---|")
        parts: dict[str, Any] = {"latent": 64, "network": "conv"}
        for variance, beta in [
            ("optimal,version=1", 1.0),
            *((f"{train.var():.6g}", b) for b in asked.betas),
        ]:
            for seed in range(asked.seeds):
                torch.manual_seed(seed)
                model = vs.build(data.space, likelihood=f"gaussian:variance={variance}", **parts)
                for _ in vs.training(
                    model,
                    vs.Objective(beta=beta),
                    unwatched,
                    steps=asked.steps,
                    batch=128,
                    seed=seed,
                    compile="off",
                ):
                    pass
                model = recalibrated(model, data, seed, **parts)
                found = vs.evaluate(model, data.test, k=asked.k)
                drawn = np.asarray(latents.sample(model, SHOWN, mean=True, seed=seed))
                drawn = drawn.reshape(SHOWN, -1)
                far = [
                    f"{d / t:.2f}"
                    for d, t in zip(distances(drawn.astype(np.float32)), least, strict=True)
                ]
                bits = [f"{found[m].bits_per_dim:.4f}" for m in ("elbo", "iwae")]
                print(
                    f"| {variance} | {beta:g} | {seed} | {' | '.join(bits)} | {found.rate:.1f} | "
                    f"{' | '.join(far)} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
