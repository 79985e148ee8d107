"""Measure the disentanglement of plain, beta- and beta-TCVAE on `shapes`, over seeds.

    OMP_NUM_THREADS=1 nice -n 10 python bench/disentanglement.py [--seeds 5] [--folder F]

Each run has 10 units, an MLP and 6,000 steps of 128 white shapes of 32x32 pixels. The factors are
shape, scale, rotation, x and y. A run that is complete, or whose metrics are written, is not
repeated, so the command continues where it was stopped. It prints the mean of each metric over
seeds with its 95 % interval (Student's t), the differences between objectives that are significant
(Welch's test, corrected by Bonferroni), and the shares of the variance between objectives and
between seeds.
"""

from __future__ import annotations

import argparse
import math
import time
from itertools import combinations
from pathlib import Path

import numpy as np

import vaestro as vs
from vaestro.diagnosis.statistics import t_quantile
from vaestro.records import read_object

SOURCE = "shapes:size=32,n=40000,channels=grey,binarise=static"
RECIPES: dict[str, str | None] = {
    "plain": None,
    "beta-vae": "beta-vae:beta=4",
    "beta-tcvae": "beta-tcvae:beta=6",
}
SHOWN = ("MIG", "DCI disentanglement", "DCI completeness", "SAP", "FactorVAE score")
LEVEL = 0.95


def metrics(folder: Path, name: str, seed: int) -> dict[str, float]:
    """Return the metrics of a run, which is trained and measured if it was not before."""
    path = folder / f"{name}-{seed}"
    if not (path / "config.yaml").exists() or not vs.Run(path).finished:
        vs.train(
            SOURCE,
            run=path,
            latent=10,
            network="mlp:width=256",
            steps=6000,
            batch=128,
            seed=seed,
            force=True,
            recipe=RECIPES[name],
        )
    record = read_object(path / "disentanglement.json")
    if record is None:
        vs.Run(path).disentangle()
        record = read_object(path / "disentanglement.json")
    assert record is not None
    return {m["name"]: m["value"] for m in record["metrics"]}


def mean_and_reach(values: np.ndarray) -> tuple[float, float]:
    """Return a mean over seeds and half the width of its interval."""
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    return float(values.mean()), t_quantile((1 + LEVEL) / 2, len(values) - 1) * error


def apart(a: np.ndarray, b: np.ndarray, tests: int) -> tuple[float, float]:
    """Return the interval of the difference of two means, corrected for a number of tests."""
    parts = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
    total = sum(parts) or 1e-300
    df = total**2 / sum(v**2 / (len(x) - 1) for v, x in zip(parts, (a, b), strict=True))
    reach = t_quantile(1 - (1 - LEVEL) / (2 * tests), df) * math.sqrt(total)
    difference = float(a.mean() - b.mean())
    return difference - reach, difference + reach


def between(groups: list[np.ndarray]) -> float:
    """Return the share of the variance that the objectives explain: eta^2."""
    every = np.concatenate(groups)
    inner = sum(((g - g.mean()) ** 2).sum() for g in groups)
    return float(1 - inner / ((every - every.mean()) ** 2).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path("runs/disentanglement"))
    arguments = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {name: [] for name in RECIPES}
    for seed in range(arguments.seeds):
        for name in RECIPES:
            start = time.process_time()
            found[name].append(metrics(arguments.folder, name, seed))
            print(f"{name} {seed}: {time.process_time() - start:.0f} s of processor time")
    values = {n: {m: np.array([r[m] for r in rows]) for m in SHOWN} for n, rows in found.items()}
    print(f"\n| objective, {arguments.seeds} seeds | {' | '.join(SHOWN)} |")
    print("|---" * (len(SHOWN) + 1) + "|")
    for name, of in values.items():
        cells = ["{:.2f} +- {:.2f}".format(*mean_and_reach(of[m])) for m in SHOWN]
        print(f"| {name} | {' | '.join(cells)} |")
    print("\n| objective | MIG of each seed |\n|---|---|")
    for name, of in values.items():
        print(f"| {name} | {', '.join(f'{v:.2f}' for v in of['MIG'])} |")
    pairs = list(combinations(RECIPES, 2))
    print()
    for m in SHOWN:
        for one, other in pairs:
            low, high = apart(values[other][m], values[one][m], len(pairs) * len(SHOWN))
            words = "significant" if low > 0 or high < 0 else "not significant"
            print(f"{m}: {other} - {one} between {low:+.2f} and {high:+.2f}: {words}")
    for m in SHOWN:
        share = between([of[m] for of in values.values()])
        print(f"{m}: objectives explain {share:.0%} of the variance, seeds {1 - share:.0%}")


if __name__ == "__main__":
    main()
