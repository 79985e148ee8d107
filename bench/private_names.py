"""Compare private functions of PyTorch that the package uses with public ones.

    OMP_NUM_THREADS=1 python bench/private_names.py [--rounds 9]

The two are measured alternately, in CPU seconds of the process, which depend less on other jobs. A
line has the median over rounds of the ratio public / private; a value above 1 means that the
private function is faster.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import torch
import torch.nn as nn
from torch import Tensor

import vaestro as vs
from vaestro.networks.dense import ACTIVATIONS, Activation, dense
from vaestro.optimizers import AdamW, Optimizer

Run = Callable[[], object]


class PublicAdamW(Optimizer):
    """Run the steps of the package's `AdamW` by torch.optim.AdamW(fused=True)."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        super().__init__(parameters)
        decays = (([p for p in self.parameters if (p.ndim > 1) == m], 0.01 * m) for m in (1, 0))
        groups = [{"params": params, "weight_decay": decay} for params, decay in decays if params]
        self.optimizer = torch.optim.AdamW(groups, fused=True)

    def step(
        self,
        grads: Sequence[Tensor],
        lr: float | Tensor,
        divisor: Tensor | None = None,
        skip: Tensor | None = None,
    ) -> None:
        for p, g in zip(self.parameters, grads, strict=True):
            p.grad = g if divisor is None else g / divisor
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        for p in self.parameters:
            p.grad = None

    def state(self) -> dict[str, Tensor]:
        return {}


def training(network: str, optimizer: type[Optimizer], batch: int) -> Run:
    data = vs.load("mnist:valid=0")
    model = vs.build(data.space, latent=20, network=network)
    run = vs.training(
        model,
        vs.Objective(),
        data,
        steps=10**6,
        batch=batch,
        compile="off",
        device="cpu",
        optimizer=optimizer,
    )
    for _ in range(5):
        next(run)
    return lambda: next(run)


def layers(fused: bool, width: int, activation: Activation) -> Run:
    """Return three layers on 2,048 rows, without gradients."""
    sizes = [(50, width), (width, width), (width, 784)]
    linears, x = [nn.Linear(*size) for size in sizes], torch.randn(2048, 50)

    @torch.no_grad()
    def run() -> Tensor:
        h = x
        for layer in linears:
            if fused:
                h = dense(layer, h, activation)
            else:
                linear = nn.functional.linear(h, layer.weight, layer.bias)
                h = ACTIVATIONS[activation](linear)
        return h

    return run


def ratio(public: Run, private: Run, calls: int, rounds: int) -> list[float]:
    """Return public / private CPU seconds of each round."""

    def seconds(run: Run) -> float:
        start = time.process_time()
        for _ in range(calls):
            run()
        return time.process_time() - start

    seconds(public), seconds(private)
    return [seconds(public) / seconds(private) for _ in range(rounds)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    small, large = "mlp:width=32", "mlp:width=400,activation=relu"
    for name, network, batch, calls in (("32", small, 32, 200), ("400", large, 128, 40)):
        ratios = ratio(
            training(network, PublicAdamW, batch), training(network, AdamW, batch), calls, rounds
        )
        print(f"eager step, width {name}, batch {batch}: AdamW(fused=True) {summary(ratios)}")
    activations: tuple[Activation, ...] = ("tanh", "silu")
    for activation in activations:
        for width in (200, 512):
            ratios = ratio(
                layers(False, width, activation), layers(True, width, activation), 8, rounds
            )
            print(
                f"layers without gradients, width {width}: linear, {activation} {summary(ratios)}"
            )


def summary(ratios: list[float]) -> str:
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.3f} (quartiles {low:.3f} and {high:.3f})"


if __name__ == "__main__":
    main()
