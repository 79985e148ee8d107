"""Measure the cost of variants: IWAE with many draws, and other posteriors and priors.

    python bench/variants.py [--rounds 7] [--steps 20]

IWAE: the network of Burda et al. (784-200-200-50, tanh) with 50 draws and batches of 20. It prints
the multiplications and additions of a step over the time of `training` (without validation),
relative to a square sgemm that is timed in the same round. Variants: the default network on MNIST
with 40 units and batches of 128, eager, relative to the normal posterior and prior. All are
measured alternately. It prints medians over rounds, and medians of the ratios within each round.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import torch

import vaestro as vs
from vaestro.parts import find

POSTERIORS = (
    "normal",
    "full-normal",
    "low-rank-normal",
    "laplace",
    "student-t",
    "planar",
    "iaf",
    "spline",
    "bernoulli",
    "categorical",
)
PRIORS = ("mixture:components=500", "vamp:inputs=500", "maf", "coupling")
WAYS = {"off": "eager", "on": "compiled"}
NETWORK = "mlp:width=200,depth=2,activation=tanh"


def steps_of(
    data: vs.Data,
    batch: int,
    k: int = 1,
    objective: str = "elbo",
    gradient: str | None = None,
    compile: str = "off",
    **parts: Any,
) -> Callable[[int], None]:
    torch.manual_seed(0)
    model = vs.build(data.space, **parts)
    chosen = gradient or ("gumbel-softmax" if model.alphabet else "pathwise")
    made = vs.Objective(objective, k=k, gradient=find("gradient", chosen)())
    run = vs.training(model, made, data, steps=10**9, batch=batch, device="cpu", compile=compile)

    def take(steps: int) -> None:
        for step in range(take.at, take.at + steps):  # type: ignore[attr-defined]
            run.advance(step)
        take.at += steps  # type: ignore[attr-defined]

    take.at = 0  # type: ignore[attr-defined]
    return take


def timed(run: Callable[[int], None], steps: int) -> float:
    start = time.perf_counter()
    run(steps)
    return (time.perf_counter() - start) / steps


def sgemm() -> float:
    """Return multiplications and additions per second of a product of two square matrices."""
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    a @ b
    start = time.perf_counter()
    for _ in range(20):
        a @ b
    return 20 * 2 * 1024**3 / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=20)
    asked = parser.parse_args()
    data = vs.load("mnist")
    data = replace(data, valid=data.valid.take(0))
    encoder, decoder = 784 * 200 + 200 * 200 + 200 * 100, 50 * 200 + 200 * 200 + 200 * 784
    print(f"{'IWAE':32}{'ms a step':>12}{'GFLOP/s':>12}{'of sgemm':>12}")
    for gradient, compile in product(("pathwise", "dreg"), WAYS):
        run = steps_of(data, 20, 50, "iwae", gradient, compile, network=NETWORK, latent=50)
        run(10)
        work = 20 * (6 * (encoder + 50 * decoder) - 2 * 784 * 200)
        rounds = [(timed(run, asked.steps), sgemm()) for _ in range(asked.rounds)]
        share = statistics.median(work / t / peak for t, peak in rounds)
        ms = statistics.median(t for t, _ in rounds)
        name = f"50 draws, {gradient}, {WAYS[compile]}"
        print(f"{name:32}{ms * 1e3:12.1f}{work / ms / 1e9:12.1f}{share:12.2f}", flush=True)
    for kind, names in (("posterior", POSTERIORS), ("prior", PRIORS)):
        print(f"\n{kind:24}{'ms a step':>12}{'x normal':>12}")
        runs = {
            name: steps_of(data, 128, latent=40, **{kind: name})
            for name in dict.fromkeys(("normal", *names))
        }
        for run in runs.values():
            run(5)
        table = [
            {name: timed(run, asked.steps) for name, run in runs.items()}
            for _ in range(asked.rounds)
        ]
        for name in runs:
            ms = statistics.median(row[name] for row in table)
            ratio = statistics.median(row[name] / row["normal"] for row in table)
            print(f"{name:24}{ms * 1e3:12.2f}{ratio:12.2f}", flush=True)


if __name__ == "__main__":
    main()
