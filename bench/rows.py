"""Train and test one row of the table of variants on MNIST, and print it as Markdown.

    python bench/rows.py elbo [--minutes 20] [--seed 0] [--k 5000]
    python bench/rows.py elbo --plan
    python bench/rows.py elbo --epochs 148
    python bench/rows.py vamp --first 2000

Training takes the given number of minutes on this machine. --plan only prints how many epochs fit
into this time; measure it on an idle machine. --epochs sets the number of epochs instead. With
--first, all test images have 500 draws and the first ones have k; an estimate for all images is
computed from both.

The first four rows have the network of Burda et al. (2016), x-200-200-50-200-200-x with tanh; the
others have the default network with 40 units. The stored weights are those with the best unweighted
bound on the validation split. The test split is evaluated once, by IWAE with k draws. The same
command continues an interrupted one.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import vaestro as vs
from vaestro.runs import Job

BURDA = {"network": "mlp:width=200,depth=2,activation=tanh", "latent": 50, "batch": 100, "lr": 1e-3}
FEWER = 500  # draws for all images if --first is set
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
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("row", choices=list(ROWS))
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--epochs", type=float)
    parser.add_argument("--plan", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--k", type=int, default=5000)
    parser.add_argument("--first", type=int)
    asked = parser.parse_args()
    folder = Path("runs") / f"row-{asked.row}-{asked.seed}"
    length = {"minutes": asked.minutes} if asked.epochs is None else {"epochs": asked.epochs}
    if asked.plan:
        job = Job.new("mnist", dry=True, seed=asked.seed, **length, **ROWS[asked.row])
        print(
            f"{asked.row}: {job.training.steps / job.training.steps_per_epoch:.1f} epochs in "
            f"{asked.minutes:g} minutes"
        )
        return
    if (folder / "config.yaml").exists():
        run = vs.Run(folder) if vs.Run(folder).finished else vs.resume(folder)
    else:
        run = vs.train("mnist", run=folder, seed=asked.seed, **length, **ROWS[asked.row])
    rows = run.data().test
    k = asked.k if asked.first is None else FEWER
    found = vs.evaluate(run.model(), rows, k=k)
    run.save_evaluation(found, rows, "mnist")
    (bound, error), (elbo, _) = found["iwae"].mean(), found["elbo"].mean()
    if asked.first is not None:
        some = vs.evaluate(run.model(), rows.take(asked.first), k=asked.k)["iwae"].nats
        rises = some - found["iwae"].nats[: asked.first]
        rise, of_rise = float(rises.mean()), float(rises.std(ddof=1)) / asked.first**0.5
        print(
            f"first {asked.first:,} images: L_{asked.k} {some.mean():.2f}, {rise:.3f} +- "
            f"{of_rise:.3f} above L_{FEWER} (paired)"
        )
        print(
            f"all {len(rows):,}: L_{FEWER} {bound:.2f} +- {error:.2f}, so that L_{asked.k} is "
            f"estimated at {bound + rise:.2f}"
        )
    last = [line for line in run.metrics() if line["split"] == "valid"][-1]
    print(
        "| row | seed | epochs | minutes | ELBO | L_k | active units | k "
        "|\n|---|---|---|---|---|---|---|---|"
    )
    minutes = f"{last['seconds'] / 60:.1f}"
    values = (
        f"{last['epoch']:.0f}",
        minutes,
        f"{elbo:.2f}",
        f"{bound:.2f} +- {error:.2f}",
        last["active_units"],
        f"{k:,}",
    )
    print(f"| {asked.row} | {asked.seed} | {' | '.join(map(str, values))} |")


if __name__ == "__main__":
    main()
