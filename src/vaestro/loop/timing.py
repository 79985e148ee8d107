"""Conversion of minutes into steps, by timing some steps."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

from vaestro.densities import mean_over_ranks

if TYPE_CHECKING:
    from vaestro.loop.iterator import Training

WARM = 5  # number of steps before the timed ones
TIMED, TIMED_SECONDS = 20, 4.0  # smallest number and duration in seconds of timed steps


def steps_within(training: Training, minutes: float, begun: float) -> int:
    """Return how many steps fit into some minutes, with one validation in each epoch.

    Some steps and a validation of the training itself are timed; then its state is restored.

    Args:
        training: the training, before its first step.
        minutes: length of the run.
        begun: `time.perf_counter()` at its beginning.

    >>> import vaestro as vs
    >>> data = vs.load("digits")
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> run = vs.training(model, vs.Objective(), data, steps=9, device="cpu")
    >>> steps_within(run, minutes=0.01, begun=time.perf_counter()) >= 1
    True
    """
    training.plan(10**9)
    tensors, numbers = training.state()
    for step in range(WARM):
        training.advance(step)
    training.processes.wait()
    start, timed = time.perf_counter(), 0
    least = min(TIMED_SECONDS, 60 * minutes / 50)
    while timed < TIMED or time.perf_counter() - start < least:
        training.advance(WARM + timed)
        timed += 1
    training.processes.wait()
    each = (time.perf_counter() - start) / timed
    start = time.perf_counter()
    training.validate()
    validation = time.perf_counter() - start
    training.load(tensors, numbers)
    left = 60 * minutes - (time.perf_counter() - begun) - 2 * validation
    steps = max(1, int(0.98 * left / (each + validation / training.steps_per_epoch)))
    device = training.processes.device
    return max(1, int(mean_over_ranks(torch.tensor(float(steps), device=device))))
