"""Measure the cost of the findings that are printed during training, as a share of training time.

    python bench/doctor.py [--rounds 12] [--steps 215]

Model and data are those of the demo, on the CPU. It times an epoch of steps; alternately a
validation with and without the statistics of the code that the findings use; and the rules at one
validation of a long run. It prints medians over rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from unittest.mock import patch

import vaestro as vs
from vaestro import densities
from vaestro.diagnosis import Remedies, Watcher
from vaestro.loop import validate


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--steps", type=int, default=215, help="steps of an epoch")
    options = parser.parse_args()
    data = vs.load("mnist")
    model = vs.build(data.space, latent=40, network="residual:width=512,blocks=1")
    steps = vs.training(
        model, vs.Objective(), data, steps=10**6, batch=256, compile="off", device="cpu"
    )
    records = [r for _ in range(options.steps + 1) for r in next(steps).records]
    lines = [
        {**r.line(), "step": 215 * i}
        for i in range(200)
        for r in records
        if r.split == "valid" or i
    ]
    times: dict[str, list[float]] = {"epoch": [], "with": [], "without": [], "rules": []}

    def validation() -> object:
        return validate(steps.average, steps.objective, steps.valid, 0, "cpu")

    for _ in range(options.rounds):
        times["epoch"].append(
            seconds(lambda: [next(steps) for _ in range(20)]) / 20 * options.steps
        )
        times["with"].append(seconds(validation))
        with patch.object(densities.Normal, "variance", None):
            times["without"].append(seconds(validation))
        watcher = Watcher(215 * 200, Remedies("run", {"lr": 1e-3}))
        watcher.see(lines[:-1])
        times["rules"].append(seconds(lambda watcher=watcher: watcher.see(lines[-1:])))  # type: ignore[misc]
    epoch, rules = statistics.median(times["epoch"]), statistics.median(times["rules"])
    extra = statistics.median(a - b for a, b in zip(times["with"], times["without"], strict=True))
    print(
        f"an epoch of {options.steps} steps: {epoch:.2f} s; a validation: "
        f"{statistics.median(times['without']):.3f} s"
    )
    print(
        f"statistics of the code at a validation: {1e3 * extra:+.1f} ms; the rules: "
        f"{1e3 * rules:.1f} ms"
    )
    print(
        f"findings said live: "
        f"{(extra + rules) / (epoch + statistics.median(times['without'])):.2%} of training"
    )


if __name__ == "__main__":
    main()
