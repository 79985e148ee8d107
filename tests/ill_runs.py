"""Runs made ill on purpose, and a healthy one: what the doctor must say of each. bench/gallery.py
shows them in docs/gallery.md."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class Shifted(nn.Module):
    """An encoder that puts all data into one place: mean sqrt(10) in the first unit, variance 1;
    its KL is 5 nats."""

    def __init__(self, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> None:
        super().__init__()
        place = torch.zeros(outputs)
        place[0, 0] = math.sqrt(10)
        self.place = nn.Parameter(place, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.place.expand(len(x), *self.place.shape)


class Loud(nn.Module):
    """An encoder that is not trained, but depends on its input: fixed random projections as means,
    variance 1."""

    def __init__(self, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> None:
        super().__init__()
        weights = torch.randn(
            math.prod(inputs), outputs[-1], generator=torch.Generator().manual_seed(0)
        )
        self.weights = nn.Parameter(weights / math.sqrt(math.prod(inputs)), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        mean = (2 * x.flatten(1) - 1) @ self.weights
        return torch.stack([mean, torch.zeros_like(mean)], 1)


class Deaf(nn.Module):
    """A decoder that ignores z."""

    def __init__(self, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, z: Tensor) -> Tensor:
        return self.bias.expand(len(z), *self.bias.shape)


def binary(
    n: int = 6000, cells: int = 64, factors: int = 3, strength: float = 2.0, seed: int = 0
) -> np.ndarray:
    """Return binary data of a few normal factors: Bernoulli(sigmoid(W z))."""
    r = np.random.default_rng(seed)
    logits = r.normal(size=(n, factors)) @ r.normal(size=(factors, cells)) * strength
    return (r.random((n, cells)) < 1 / (1 + np.exp(-logits))).astype(np.uint8)


def few() -> np.ndarray:
    """Return 340 data, of which 306 are to train on, of twelve factors."""
    return binary(340, 64, 12)


def linear(n: int = 6000, seed: int = 0) -> np.ndarray:
    """Return a cloud whose covariance has the eigenvalues 9, 4, 2 and seven of .25."""
    r = np.random.default_rng(seed)
    axes, _ = np.linalg.qr(r.normal(size=(10, 10)))
    return r.normal(size=(n, 10)) * np.sqrt([9, 4, 2] + [0.25] * 7) @ axes.T


def faint(n: int = 20_000, seed: int = 0) -> np.ndarray:
    """Return a cloud with one direction of variance 1.5 among 5 of 1: codes of a linear model with
    variance 1.1 tell ln(1.5 / 1.1) / 2 =
    .155 nats."""
    r = np.random.default_rng(seed)
    axes, _ = np.linalg.qr(r.normal(size=(6, 6)))
    return r.normal(size=(n, 6)) * np.sqrt([1.5, 1, 1, 1, 1, 1]) @ axes.T


def coins(n: int = 20_000, cells: int = 40, seed: int = 0) -> np.ndarray:
    """Return bits with nothing in them."""
    return np.random.default_rng(seed).integers(0, 2, (n, cells)).astype(np.uint8)


NET = {"network": "mlp:width=64", "batch": 128}


@dataclass(frozen=True)
class Ill:
    """Hold a way to make a run, and what must be said of it.

    Args:
        name: of the case.
        data: makes the data.
        options: of training.
        verdict: what the diagnosis must come to.
        findings: names and severities that must be among the findings.
        never: names that must not be.
        options_of_source: written behind the file's name.
        says: words that the finding which decided must hold.
        stop: leave the run after so many steps.
    """

    name: str
    data: Callable[[], np.ndarray]
    options: dict[str, Any]
    verdict: str
    findings: dict[str, str] = field(default_factory=dict)
    never: tuple[str, ...] = ()
    options_of_source: str = ""
    says: str = ""
    stop: int | None = None

    def train(self, folder: Path) -> Any:
        """Make the run in a folder; returns it."""
        import vaestro as vs
        from vaestro.loop import Diverged
        from vaestro.runs import Job

        file = folder / f"{self.name}.npy"
        np.save(file, self.data())
        run = folder / self.name
        job = Job.new(
            f"{file}{self.options_of_source}",
            run=run,
            seed=1,
            device="cpu",
            compile="off",
            **self.options,
        )
        with suppress(Diverged), job:
            for step in job:
                if step.index == self.stop:
                    job.checkpoint()
                    break
        return vs.Run(run)


ENCODER, DECODER, DEAD = "tests.ill_runs:Loud", "tests.ill_runs:Deaf", "tests.ill_runs:Shifted"
LINEAR: dict[str, Any] = {"network": "linear", "batch": 128}
CASES = [
    Ill(
        "healthy",
        binary,
        {**NET, "latent": 6, "epochs": 40},
        "healthy",
        never=("posterior collapse", "weight of the KL"),
    ),
    Ill(
        "huge-beta",
        binary,
        {**NET, "latent": 6, "epochs": 15, "beta": 100.0},
        "collapsed",
        {"posterior collapse": "error", "weight of the KL": "note"},
        ("latent unused",),
        says="does not depend on its input",
    ),
    Ill(
        "beta-4",
        binary,
        {**NET, "latent": 6, "epochs": 30, "beta": 4.0},
        "partly collapsed",
        {"partial collapse": "warning"},
        ("posterior collapse",),
        says="KL weight of 4",
    ),
    Ill(
        "shifted",
        binary,
        {**NET, "latent": 6, "epochs": 15, "encoder": DEAD},
        "collapsed",
        {"posterior collapse": "error"},
        ("small rate", "latent unused"),
        says="the KL is 5.00 nats, but",
    ),
    Ill(
        "switched-off",
        linear,
        {**LINEAR, "latent": 8, "epochs": 40, "lr": 1e-2, "likelihood": "gaussian:variance=0.5"},
        "healthy",
        {"units switched off": "note"},
        ("posterior collapse", "partial collapse"),
        ":standardise=none",
    ),
    Ill(
        "faint",
        faint,
        {**LINEAR, "latent": 3, "epochs": 30, "likelihood": "gaussian:variance=1.1"},
        "small rate but informative",
        {"small rate": "note"},
        ("posterior collapse",),
        ":standardise=none",
        says="A small KL is not collapse",
    ),
    Ill(
        "deaf",
        binary,
        {**NET, "latent": 6, "epochs": 15, "encoder": ENCODER, "decoder": DECODER},
        "latent unused by the decoder",
        {"latent unused": "error"},
        ("posterior collapse",),
        says="the decoder does not use it",
    ),
    Ill(
        "diverged",
        binary,
        {**NET, "latent": 6, "epochs": 5, "lr": 1e8, "optimizer": "sgd", "clip": 1e30},
        "diverged",
        {"divergence": "error"},
        says="not finite",
    ),
    Ill(
        "overfitted",
        few,
        {"latent": 16, "steps": 3000, "batch": 64, "network": "mlp:width=256"},
        "overfitted",
        {"overfitting": "warning"},
        says="more on training data",
    ),
    Ill(
        "too-early",
        binary,
        {**NET, "latent": 6, "epochs": 40},
        "not converged",
        {"not converged": "warning"},
        says="stopped at step",
        stop=260,
    ),
    Ill(
        "coins",
        coins,
        {**NET, "latent": 2, "epochs": 20},
        "collapsed",
        {"posterior collapse": "warning"},
        says="nothing to encode",
    ),
]
