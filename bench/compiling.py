"""Measure the number of steps from which compilation on a CPU saves time.

    OMP_NUM_THREADS=1 python bench/compiling.py [--rounds 7]

For each model and batch size it prints:
- the seconds that compilation adds to the first steps, with an empty and with a warm disk cache;
- the milliseconds of an eager and of a compiled step, measured alternately in one process;
- the number of steps, and their floating-point operations, after which compilation saves time.

Times are CPU seconds of the process and its compilers, which depend less on other jobs.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable

CASES = (
    ("mlp:width=32", 32),
    ("mlp:width=100", 128),
    ("mlp:width=400", 128),
    ("mlp:width=400", 512),
    ("residual:width=512", 128),
)
FIRST = 3  # the first step compiles; all steps are also run eagerly


def seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def one(network: str, batch: int, rounds: int) -> dict[str, float]:
    """Return the times of a model in this process."""
    import vaestro as vs
    from vaestro.loop import Training

    data = vs.load("mnist:valid=0")

    def start(compile: str) -> Training:
        model = vs.build(data.space, latent=20, network=network)
        return vs.training(
            model, vs.Objective(), data, steps=10**9, batch=batch, compile=compile, device="cpu"
        )

    def timed(run: Callable[[], object], count: int) -> float:
        begun = seconds()
        for _ in range(count):
            run()
        return (seconds() - begun) / count

    eager, compiled = start("off"), start("on")
    next(eager), next(compiled)
    timed(lambda: next(eager), 5)
    first = timed(lambda: next(compiled), FIRST) * FIRST
    count = max(3, round(0.3 / timed(lambda: next(eager), 5)))
    turns = [
        (timed(lambda: next(eager), count), timed(lambda: next(compiled), count))
        for _ in range(rounds)
    ]
    a, b = (statistics.median(times) for times in zip(*turns, strict=True))
    ratio = statistics.median(x / y for x, y in turns)
    weights = sum(p.numel() for p in eager.model.parameters())
    return {
        "first": first - FIRST * a,
        "eager": a,
        "compiled": b,
        "ratio": ratio,
        "work": 6.0 * batch * weights,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--one", nargs=2)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(one(asked.one[0], int(asked.one[1]), asked.rounds)))
        return
    print("model, batch: cold s, warm s; eager ms, compiled ms, ratio; steps cold, warm; work")
    for network, batch in CASES:
        command = [sys.executable, __file__, "--one", network, str(batch)]
        command += ["--rounds", str(asked.rounds)]
        with tempfile.TemporaryDirectory() as cache:
            variables = os.environ | {
                "TORCHINDUCTOR_CACHE_DIR": cache,
                "TORCHINDUCTOR_COMPILE_THREADS": "1",
            }
            lines = [
                subprocess.run(
                    command, env=variables, check=True, capture_output=True, text=True
                ).stdout.splitlines()[-1]
                for _ in ("cold", "warm")
            ]
        cold, warm = (json.loads(line) for line in lines)
        gain = cold["eager"] * (1 - 1 / cold["ratio"])
        paid = [max(0.0, t["first"]) / gain if gain > 0 else math.inf for t in (cold, warm)]
        print(
            f"{network}, {batch}: {cold['first']:.1f}, {warm['first']:.1f}; "
            f"{1e3 * cold['eager']:.2f}, {1e3 * cold['compiled']:.2f}, {cold['ratio']:.2f} "
            f"(warm run {warm['ratio']:.2f}); {paid[0]:,.0f}, {paid[1]:,.0f} steps; "
            f"{paid[0] * cold['work']:.1e}, {paid[1] * cold['work']:.1e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
