"""Compare the speed of training with an eager PyTorch loop and with its matrix products alone.

    python bench/throughput.py [--rounds 7] [--steps 150] [--batch 128,512]
    python bench/throughput.py --where

--where prints how the time of a compiled step is distributed, by PyTorch's profiler, which adds a
cost to each call.

The model is 784-400-20 on MNIST, float32, on the CPU. The loop has binarised pixels in memory and
fused AdamW. It has no binarisation, averaging, clipping, metrics or checks. `training` has all of
these, with --compile off and on; only validation is left out, which the loop lacks. All are
measured alternately, so a change of the machine's speed affects them equally. It prints medians
over rounds, and medians of the ratios within each round.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn as nn
import torch.nn.functional as F

import vaestro as vs


def plain_loop(pixels: torch.Tensor, batch: int) -> Callable[[int], None]:
    encoder = nn.Sequential(nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 40))
    decoder = nn.Sequential(nn.Linear(20, 400), nn.ReLU(), nn.Linear(400, 784))
    optimizer = torch.optim.AdamW(
        [*encoder.parameters(), *decoder.parameters()], lr=1e-3, fused=True
    )
    order, place = torch.randperm(len(pixels)), 0

    def run(steps: int) -> None:
        nonlocal order, place
        for _ in range(steps):
            if place + batch > len(order):
                order, place = torch.randperm(len(pixels)), 0
            x = pixels[order[place : place + batch]].float()
            place += batch
            mean, logvar = encoder(x).chunk(2, -1)
            z = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
            logits = decoder(z)
            nll = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
            kl = 0.5 * (logvar.exp() + mean**2 - 1 - logvar).sum()
            optimizer.zero_grad(set_to_none=True)
            ((nll + kl) / batch).backward()
            optimizer.step()

    return run


def matrix_products(batch: int) -> Callable[[int], None]:
    layers = [(784, 400, False), (400, 40, True), (20, 400, True), (400, 784, True)]
    tensors = [
        (torch.randn(batch, i), torch.randn(i, o), torch.randn(batch, o), gradient)
        for i, o, gradient in layers
    ]

    def run(steps: int) -> None:
        for _ in range(steps):
            for x, weight, out, input_gradient in tensors:
                x @ weight
                x.t() @ out
                if input_gradient:
                    out @ weight.t()

    return run


def vaestro_training(data: vs.Data, batch: int, compile: str) -> Callable[[int], None]:
    model = vs.build(data.space, latent=20, network="mlp:width=400,activation=relu")
    steps = vs.training(
        model,
        vs.Objective(),
        data,
        steps=10**6,
        batch=batch,
        lr=1e-3,
        compile=compile,
        device="cpu",
    )
    next(steps)  # the validation before the first step

    def run(count: int) -> None:
        for _ in range(count):
            next(steps)

    return run


def where(batch: int, steps: int = 160) -> None:
    """Print the microseconds of a compiled step by kind of operation."""
    run = vaestro_training(vs.load("mnist:valid=0"), batch, "on")
    run(20)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        start = time.perf_counter()
        run(steps)
        whole = (time.perf_counter() - start) / steps * 1e6
    of = {event.key: event.self_cpu_time_total / steps for event in profile.key_averages()}
    parts = {
        "matrix products": sum(of.get(name, 0.0) for name in ("aten::mm", "aten::addmm")),
        "loops of the graph, AdamW's among them": sum(
            us for name, us in of.items() if "CompiledFxGraph" in name
        ),
        "noise, and the average of the weights": sum(
            of.get(name, 0.0) for name in ("aten::normal_", "aten::lerp_", "aten::_foreach_lerp_")
        ),
    }
    parts["rows, binarisation, Python"] = whole - sum(parts.values())
    print(f"\nbatch {batch}, compiled: {whole:,.0f} us a step")
    for name, us in parts.items():
        print(f"{name:40}{us:8,.0f}{us / whole:8.0%}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--batch", default="128,512")
    parser.add_argument("--where", action="store_true")
    options = parser.parse_args()
    if options.where:
        for batch in map(int, options.batch.split(",")):
            where(batch)
        return
    data = vs.load("mnist:valid=0")  # without validation data, only steps are timed
    pixels = torch.from_numpy(vs.load("mnist:binarise=static,valid=0").train.values).flatten(1)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, 784-400-20, float32")
    for batch in map(int, options.batch.split(",")):
        contestants = {
            "matrix products": matrix_products(batch),
            "plain loop": plain_loop(pixels, batch),
            "training, eager": vaestro_training(data, batch, "off"),
            "training, compiled": vaestro_training(data, batch, "on"),
        }
        times: dict[str, list[float]] = {name: [] for name in contestants}
        for run in contestants.values():
            run(20)
        for _ in range(options.rounds):
            for name, run in contestants.items():
                start = time.perf_counter()
                run(options.steps)
                times[name].append((time.perf_counter() - start) / options.steps)
        print(
            f"\nbatch {batch}        ms a step   examples/s   x the plain loop   x matrix products"
        )
        for name, seconds in times.items():
            middle = statistics.median(seconds)
            loop = statistics.median(
                p / s for p, s in zip(times["plain loop"], seconds, strict=True)
            )
            products = statistics.median(
                p / s for p, s in zip(times["matrix products"], seconds, strict=True)
            )
            print(
                f"{name:20} {middle * 1e3:8.2f} {batch / middle:12,.0f} {loop:16.2f} "
                f"{products:19.2f}"
            )


if __name__ == "__main__":
    main()
