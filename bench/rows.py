"""Train and test one row of the table of variants on MNIST, within so many minutes on this machine, and print it as Markdown.

    python bench/rows.py elbo [--minutes 20] [--seed 0] [--k 5000]

The first four rows are of the network of Burda et al. (2016), x-200-200-50-200-200-x with tanh; the others of the default network with
40 units. The kept weights are the best on the validation split by the unweighted bound; the test split is evaluated once, by IWAE with k
draws.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import vaestro as vs

BURDA = {"network": "mlp:width=200,depth=2,activation=tanh", "latent": 50, "batch": 100, "lr": 1e-3}
DEFAULT = {"latent": 40, "batch": 128}
ROWS: dict[str, dict[str, Any]] = {
    "elbo": {**BURDA, "objective": "elbo"},
    "iwae-5": {**BURDA, "objective": "iwae:k=5"},
    "iwae-50": {**BURDA, "objective": "iwae:k=50"},
    "dreg-50": {**BURDA, "objective": "iwae:k=50", "gradient": "dreg"},
    "normal": {**DEFAULT, "prior": "normal"},
    "mixture": {**DEFAULT, "prior": "mixture:components=500"},
    "vamp": {**DEFAULT, "prior": "vamp:inputs=500"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("row", choices=list(ROWS))
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--k", type=int, default=5000)
    asked = parser.parse_args()
    start = time.perf_counter()
    folder = Path("runs") / f"row-{asked.row}-{asked.seed}"
    run = vs.train("mnist", run=folder, force=True, minutes=asked.minutes, seed=asked.seed, **ROWS[asked.row])
    trained = (time.perf_counter() - start) / 60
    rows = run.data().test
    found = vs.evaluate(run.model(), rows, k=asked.k)
    run.save_evaluation(found, rows, "mnist")
    (bound, error), (elbo, _) = found["iwae"].mean(), found["elbo"].mean()
    last = [line for line in run.metrics() if line["split"] == "valid"][-1]
    print("| row | seed | epochs | minutes | ELBO | L_k | active units | k |\n|---|---|---|---|---|---|---|---|")
    values = (f"{last['epoch']:.0f}", f"{trained:.1f}", f"{elbo:.2f}", f"{bound:.2f} +- {error:.2f}", last["active_units"], f"{asked.k:,}")
    print(f"| {asked.row} | {asked.seed} | {' | '.join(map(str, values))} |")


if __name__ == "__main__":
    main()
