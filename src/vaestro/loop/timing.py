"""Conversion of minutes into steps and of steps into seconds, by timing some steps."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import torch

from vaestro.densities import mean_over_ranks

if TYPE_CHECKING:
    from vaestro.loop.iterator import Training

WARM = 5  # number of steps before the timed ones
TIMED, TIMED_SECONDS = 20, 4.0  # smallest number and duration in seconds of timed steps
FEWEST = 20  # a shorter run is not timed in advance
SAMPLE_SECONDS = 0.5  # duration of the steps that are timed in advance, if one is shorter
VALIDATION = 0.4  # time of a validated row, in units of a trained one


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


def expected_seconds(training: Training) -> tuple[float, float] | None:
    """Return the expected seconds of a step and of the rest of the run with its validations; None
    if fewer than 20 steps are left.

    Some steps of the training itself are timed; then its state is restored.

    >>> import vaestro as vs
    >>> data = vs.load("digits")
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> run = vs.training(model, vs.Objective(), data, steps=50, device="cpu")
    >>> each, total = expected_seconds(run)
    >>> total > 50 * each, run.index
    (True, 0)
    """
    left = training.steps - training.index
    if left < FEWEST:
        return None
    tensors, numbers = training.state()
    # the first steps may compile, or load libraries
    done = WARM if training.compile == "on" else 1
    _timed(training, 0, done)
    each = _timed(training, done, 1)
    more = min(math.ceil(SAMPLE_SECONDS / max(each, 1e-9)), FEWEST - done - 1)
    each = _timed(training, done + 1, more) if more > 1 else each
    training.load(tensors, numbers)
    rows = (
        left * training.batch + len(training.valid) * VALIDATION * left / training.steps_per_epoch
    )
    return each, each * rows / training.batch


def _timed(training: Training, after: int, count: int) -> float:
    """Take some steps, and return the mean seconds of one over processes."""
    start = time.perf_counter()
    for step in range(after, after + count):
        training.advance(training.index + step)
    training.processes.wait()
    each = (time.perf_counter() - start) / count
    # every process then takes the same number of steps
    return float(mean_over_ranks(torch.tensor(each, device=training.processes.device)))
