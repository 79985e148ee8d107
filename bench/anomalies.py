"""Anomaly scores on data sets with known faults: the area under the ROC curve of each score.

    python bench/anomalies.py [SET ..] [--seeds 3] [--digits]

Every set is generated here or shipped with scikit-learn. Training rows are normal. A set is a
function of a seed that returns normal rows, and test rows with their labels.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import vaestro as vs

Set = tuple[Any, Any, np.ndarray, dict[str, Any]]


def sensors(seed: int) -> Set:
    """20 sensors of 4 factors; a fault replaces one sensor by another row's value."""
    rng = np.random.default_rng(seed)
    loadings = np.random.default_rng(100 + seed).normal(size=(4, 20))

    def rows(n: int) -> np.ndarray:
        signal = rng.normal(size=(n, 4)) @ loadings
        return (signal + 0.2 * rng.normal(size=(n, 20))).astype(np.float32)

    normal, test, labels = rows(2000), rows(800), np.zeros(800, int)
    for i in range(100):
        test[i, rng.integers(20)] += rng.choice([-1, 1]) * rng.uniform(0.8, 2.5)
    labels[:100] = 1
    return normal, test, labels, {"latent": 4, "steps": 1500, "network": "mlp:width=64"}


def surfaces(seed: int) -> Set:
    """Textured grey images of 24 x 24 pixels; a fault is a thin scratch."""
    rng = np.random.default_rng(seed)
    grid = np.arange(24)

    def rows(n: int) -> np.ndarray:
        phase, angle = rng.uniform(0, 2 * np.pi, (2, n, 1, 1))
        angle = 0.3 * np.sin(angle)
        wave = np.sin((grid[None, :, None] * np.cos(angle) + grid * np.sin(angle)) * 0.9 + phase)
        light = rng.uniform(-25, 25, (n, 1, 1)) * (grid / 24 - 0.5)
        return 128 + 45 * wave + light + rng.normal(0, 9, (n, 24, 24))

    normal, test, labels = rows(1500), rows(500), np.zeros(500, int)
    for i in range(100):
        at, turn = rng.uniform(6, 18, 2), rng.uniform(0, np.pi)
        along = np.linspace(-5, 5, 40)
        y, x = (at[0] + along * np.sin(turn), at[1] + along * np.cos(turn))
        test[i, y.round().astype(int) % 24, x.round().astype(int) % 24] += rng.choice([-22, 22])
    labels[:100] = 1
    normal, test = (np.clip(v, 0, 255).round().astype(np.uint8) for v in (normal, test))
    plan = {"latent": 8, "steps": 500, "network": "mlp:width=96", "likelihood": "gaussian"}
    return normal, test, labels, plan


def digit(out: int) -> Callable[[int], Set]:
    """Return the set in which a digit of scikit-learn's is the fault."""

    def rows(seed: int) -> Set:
        from sklearn.datasets import load_digits

        loaded = load_digits()
        images, digits = loaded.images.astype(np.uint8), loaded.target
        rng = np.random.default_rng(seed)
        rest = rng.permutation(np.flatnonzero(digits != out))
        normal, tested = rest[:1200], np.concatenate([rest[1200:], np.flatnonzero(digits == out)])
        labels = (digits[tested] == out).astype(int)
        plan = {"latent": 8, "steps": 800, "network": "mlp:width=128"}
        return images[normal], images[tested], labels, plan

    return rows


def table(seed: int) -> Set:
    """Mixed columns that depend on a group; a fault has another group's plan, a third of the
    visits, or a cost or a weight that is off by three to six standard deviations of its noise."""
    rng = np.random.default_rng(seed)

    def rows(n: int) -> dict[str, np.ndarray]:
        group, size = rng.integers(0, 4, n), rng.normal(size=n)
        other = np.where(rng.random(n) < 0.95, group, rng.integers(0, 4, n))
        return {
            "city": np.array(["a", "b", "c", "d"])[group],
            "plan": np.array(["w", "x", "y", "z"])[other],
            "size": size + group,
            "cost": np.exp(0.7 * size + 0.3 * group + 0.15 * rng.normal(size=n)),
            "visits": rng.poisson(np.exp(0.5 + 0.5 * group)),
            "weight": 2 * size - group + 0.3 * rng.normal(size=n),
        }

    normal, test, labels = rows(2000), rows(800), np.zeros(800, int)
    for i in range(100):
        off = rng.choice([-1, 1]) * rng.uniform(3, 6)
        if i % 4 == 0:
            test["plan"][i] = rng.choice(["w", "x", "y", "z"])
            test["visits"][i] = rng.poisson(8)
        elif i % 4 == 1:
            test["visits"][i] = test["visits"][i] // 3 + 12 * (off > 0)
        elif i % 4 == 2:
            test["cost"][i] *= np.exp(0.15 * off)
        else:
            test["weight"][i] += 0.3 * off
    labels[:100] = 1
    return normal, test, labels, {"latent": 4, "steps": 1500, "network": "mlp:width=64"}


def machine(seed: int) -> Set:
    """Three channels of a machine over 32 steps; a fault is a spike, a drift or a lost phase."""
    rng = np.random.default_rng(seed)
    steps = np.arange(32)

    def rows(n: int) -> np.ndarray:
        phase, load = rng.uniform(0, 2 * np.pi, (n, 1)), rng.uniform(0.6, 1.4, (n, 1))
        turn = 2 * np.pi * steps / 16 + phase
        x = np.stack([load * np.sin(turn), load * np.cos(turn), load + 0 * turn], -1)
        return x + 0.1 * rng.normal(size=x.shape)

    normal, test, labels = rows(1500), rows(600), np.zeros(600, int)
    for i in range(100):
        at, channel = rng.integers(4, 26), rng.integers(3)
        if i % 3 == 0:
            test[i, at, channel] += rng.choice([-0.6, 0.6])
        elif i % 3 == 1:
            test[i, :, channel] += np.linspace(0, rng.choice([-0.4, 0.4]), 32)
        else:
            test[i, at : at + 5, 0] = 0.1 * rng.normal(size=5)
    labels[:100] = 1
    normal, test = normal.astype(np.float32), test.astype(np.float32)
    return normal, test, labels, {"latent": 4, "steps": 1200, "network": "mlp:width=96"}


SETS: dict[str, Callable[[int], Set]] = {
    "sensors": sensors,
    "surfaces": surfaces,
    "digit 9": digit(9),
    "table": table,
    "machine": machine,
}
NAMES = (
    *("combined", "residual", "standardised", "local", "reconstruction", "latent"),
    *("bound", "likelihood-ratio", "complexity", "typicality"),
)


def baselines(normal: vs.data.Rows, test: vs.data.Rows, seed: int) -> dict[str, np.ndarray]:
    """Return scores without a VAE: PCA residual at 95 % of the variance, and isolation forest."""
    import torch
    from sklearn.decomposition import PCA
    from sklearn.ensemble import IsolationForest

    x, y = (
        np.concatenate(
            [
                rows.space.features(b.x, b.observed, torch.float32).flatten(1).numpy()
                for b in rows.fixed().chunks(512)
            ]
        )
        for rows in (normal, test)
    )
    one_unit = len(normal.space.shape) > 1
    mean, spread = x.mean(0), 1.0 if one_unit else x.std(0) + 1e-9
    x, y = (x - mean) / spread, (y - mean) / spread
    pca = PCA(0.95, random_state=seed).fit(x)
    forest = IsolationForest(n_estimators=200, random_state=seed).fit(x)
    return {
        "PCA residual": ((y - pca.inverse_transform(pca.transform(y))) ** 2).sum(1),
        "isolation forest": -forest.score_samples(y),
    }


def measured(make: Callable[[int], Set], seed: int) -> dict[str, float]:
    """Return the AUC of every score on a set."""
    from sklearn.metrics import roc_auc_score

    normal, test, labels, plan = make(seed)
    with tempfile.TemporaryDirectory() as folder:
        run = vs.train(
            normal, run=Path(folder, "run"), seed=seed, batch=128, lr=2e-3, compile="off", **plan
        )
        session = vs.open(run)
        rows = session.rows(test)
        found = baselines(session.data.train, rows, seed)
        for name in NAMES:
            if name == "local" and not rows.space.layout.grid:
                continue
            found[name] = session.score(rows, by=name, k=10).score
    return {name: float(roc_auc_score(labels, score)) for name, score in found.items()}


def main() -> None:
    """Print a table: a row for each score, a column for each set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="*", help=f"some of {', '.join(SETS)}")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--digits", action="store_true", help="leave each of the digits out")
    given = parser.parse_args()
    sets = {name: SETS[name] for name in given.sets or SETS}
    if given.digits:
        sets = {f"digit {i}": digit(i) for i in range(10)}
    table: dict[str, dict[str, list[float]]] = {}
    for column, make in sets.items():
        start = time.process_time()
        for seed in range(given.seeds):
            for name, auc in measured(make, seed).items():
                table.setdefault(name, {}).setdefault(column, []).append(auc)
        print(f"{column}: {time.process_time() - start:.0f} s of processor time", flush=True)
    print("| score | " + " | ".join(sets) + " |")
    print("|---|" + "---|" * len(sets))
    for name, row in table.items():
        cells = [_cell(row.get(column, [])) for column in sets]
        print(f"| {name} | " + " | ".join(cells) + " |")


def _cell(values: list[float]) -> str:
    if not values:
        return "-"
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
    return f"{np.mean(values):.3f} ± {error:.3f}"


if __name__ == "__main__":
    main()
