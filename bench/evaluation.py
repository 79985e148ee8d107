"""Compare the speed of IWAE with its matrix products, measure its memory, and time AIS.

    python bench/evaluation.py [--images 32] [--rounds 9] [--k 5000]
    python bench/evaluation.py --full
    python bench/evaluation.py --ais [--run runs/demo]

By default: time relative to the products, and memory at k/50, k and 10 k draws. With --full also
L_5000 of all 10,000 test images. With --ais: annealed importance sampling of 100 images with 500
temperatures, 16 chains and both bounds.

The network is that of Burda et al. (2016), x-200-200-50-200-200-x with tanh. Its weights are
random; trained weights have the same cost. The products are those of the decoder on 2,048 rows,
without biases. The two are measured alternately, and the ratio is the median over rounds.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

import vaestro as vs

ROWS = 2048


def burda() -> tuple[vs.Model, vs.Data]:
    data = vs.load("mnist")
    torch.manual_seed(0)
    return vs.build(
        data.space, latent=50, network="mlp:width=200,depth=2,activation=tanh"
    ).eval(), data


def products(model: vs.Model) -> tuple[Callable[[int], None], float]:
    """Return a function that runs the matrix products of `rows` passes through the decoder, and the
    number of floating-point operations per row."""
    decoder: Any = model.get_submodule("likelihood.decoder")
    weights = [layer.weight.detach().t() for layer in [*decoder.hidden, decoder.last]]
    inputs = [torch.randn(ROWS, w.shape[0]) for w in weights]

    def run(rows: int) -> None:
        for _ in range(rows // ROWS):
            for x, w in zip(inputs, weights, strict=True):
                x @ w

    return run, sum(2.0 * w.numel() for w in weights)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def speed(images: int, rounds: int, k: int) -> None:
    model, data = burda()
    multiply, flops = products(model)
    passes = images * k
    times = []
    with torch.inference_mode():
        multiply(ROWS)
        vs.evaluate(model, data.test, k=k, limit=8)
        for _ in range(rounds):
            times.append(
                (
                    seconds(lambda: vs.evaluate(model, data.test, k=k, limit=images)),
                    seconds(lambda: multiply(passes)),
                )
            )
    whole, alone = (statistics.median(column) for column in zip(*times, strict=True))
    ratio = statistics.median(b / a for a, b in times)
    print(
        f"IWAE_{k} of {images} images: {whole:.2f} s; its products alone {alone:.2f} s at "
        f"{passes * flops / alone / 1e9:.0f} GFLOP/s"
    )
    print(
        f"share of the products' time: {ratio:.0%} (median of {rounds} rounds); 10,000 images "
        f"would take {whole / images * 1e4:.0f} s"
    )


def memory(k: int) -> None:
    for draws in (max(1, k // 50), k, 10 * k):
        command = [sys.executable, __file__, "--peak", "--k", str(draws), "--images", "8"]
        print(
            f"peak memory with k = {draws:6,}: "
            f"{subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()} "
            f"MB"
        )


def ais(run: str | None) -> None:
    model: vs.Model
    if run is None:
        model, data = burda()
    else:
        opened = vs.Run(run)
        model, data = opened.model(), opened.data()
    start = time.perf_counter()
    result = vs.evaluate(
        model, data.test, k=500, limit=100, methods="elbo,iwae,ais:temperatures=500,chains=16,n=100"
    )
    for estimate in result.estimates:
        print(f"{estimate.seconds:6.1f} s  {estimate.sentence('the first 100 test images')}")
    print(
        f"{time.perf_counter() - start:.0f} s in all; gaps on simulated data: "
        f"{result.simulated_gaps()}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--k", type=int, default=5000)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--ais", action="store_true")
    parser.add_argument("--run")
    parser.add_argument("--peak", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        model, data = burda()
        vs.evaluate(model, data.test, k=options.k, limit=options.images)
        print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f}")
    elif options.ais:
        ais(options.run)
    else:
        speed(options.images, options.rounds, options.k)
        if options.full:
            speed(10_000, 1, options.k)
        memory(options.k)


if __name__ == "__main__":
    main()
