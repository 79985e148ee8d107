"""Schedules of the weight of the KL: what beta is at each step of a run.

Lengths are given in steps, epochs or a share of the run, in exactly one of the three ways, and
`plan` turns them into steps.
A schedule that is longer than the run is refused: the bound it leads to would never be trained.
"""

from __future__ import annotations

import math
from typing import ClassVar, final

import torch
import torch.nn as nn
from torch import Tensor

from vaestro.densities import mean_over_ranks

Beta = float | Tensor
END = 2.0**62  # a step after the end of every schedule


class Schedule(nn.Module):
    """Give a weight for each step; the base class is the constant."""

    # whether the weight follows the training, so that its last value is known only at the end
    adaptive: ClassVar[bool] = False

    def __init__(self, value: float) -> None:
        super().__init__()
        if not 0 <= value < float("inf"):
            raise ValueError(f"expected a weight of 0 or more; got {value}")
        self.value = value

    def plan(self, steps: int, steps_per_epoch: float) -> None:
        """Turn lengths given in epochs or shares into steps of a run.

        Raises:
            ValueError: the schedule is longer than the run.
        """

    def forward(self, step: Tensor) -> Beta:
        """Return the weight at a step (a tensor, so that a compiled graph serves every step)."""
        return float(self.value)

    def observe(self, distortion: Tensor) -> None:
        """Take in a step's mean distortion, for schedules that follow it."""

    def settled(self, step: Tensor) -> bool:
        """Return whether the weight keeps its value from a step on.

        Override it in a schedule that passes through its last value before it ends.
        """
        return float(self(step)) == float(self(torch.full_like(step, END)))


def constant(*, value: float = 1.0) -> Schedule:
    """Keep one weight through the run."""
    return Schedule(value)


class _Timed(Schedule):
    """Describe schedules with a length."""

    def __init__(
        self, value: float, steps: int | None, epochs: float | None, share: float | None
    ) -> None:
        super().__init__(value)
        lengths = [length for length in (steps, epochs, share) if length is not None]
        if len(lengths) != 1 or not 0 < lengths[0] < float("inf"):
            raise ValueError(
                f"expected one length above 0 (steps, epochs or share); got {steps=}, {epochs=}, "
                f"{share=}"
            )
        self.steps, self.epochs, self.share = steps, epochs, share
        # A tensor, so that a compiled step reads the length that is planned last.
        self._length = torch.full((), float("nan"), dtype=torch.float64)
        if steps is not None:
            self._length.fill_(steps)

    def plan(self, steps: int, steps_per_epoch: float) -> None:
        if self.epochs is not None:
            self._length.fill_(self.epochs * steps_per_epoch)
        elif self.share is not None:
            self._length.fill_(self.share * steps)
        if float(self._length) > steps:
            raise ValueError(
                f"expected a warm-up within the run of {steps} steps; got one of "
                f"{float(self._length):.0f}"
            )


@final
class Ramp(_Timed):
    """Move linearly from `start` to `end` over the first part of a run, then stay (KL warm-up;
    Bowman et al. 2016).

    Args:
        start, end: weights.
        steps, epochs, share: the length, in exactly one of the three ways; `plan` makes steps of
            the latter two, and without it the weight is NaN.
    """

    def __init__(
        self,
        start: float,
        end: float,
        *,
        steps: int | None = None,
        epochs: float | None = None,
        share: float | None = None,
    ) -> None:
        super().__init__(end, steps, epochs, share)
        Schedule(start)
        self.start = start

    def forward(self, step: Tensor) -> Beta:
        return self.start + (self.value - self.start) * (step / self._length).clamp(0, 1)


def warmup(
    *,
    to: float = 1.0,
    share: float | None = None,
    epochs: float | None = None,
    steps: int | None = None,
) -> Ramp:
    """Raise the weight linearly from 0 (by default over a tenth of the run)."""
    if share is None and epochs is None and steps is None:
        share = 0.1
    return Ramp(0.0, to, steps=steps, epochs=epochs, share=share)


@final
class Sigmoid(_Timed):
    """Raise the weight from near 0 along a sigmoid, half of it at half the length, then stay
    (Bowman et al. 2016).

    Args:
        to: the weight in the end.
        share, epochs, steps: the length, by default a fifth of the run.
        steepness: of the sigmoid over its length.
    """

    def __init__(
        self,
        *,
        to: float = 1.0,
        share: float | None = None,
        epochs: float | None = None,
        steps: int | None = None,
        steepness: float = 10.0,
    ) -> None:
        super().__init__(
            to, steps, epochs, 0.2 if share is None and epochs is None and steps is None else share
        )
        if not 0 < steepness < math.inf:
            raise ValueError(f"expected a steepness above 0; got {steepness}")
        self.steepness = steepness

    def forward(self, step: Tensor) -> Beta:
        place = (step / self._length).clamp(0, 1)
        # Stretched, so that it begins at 0 and ends at `to` exactly.
        low, high = (1 / (1 + math.exp(-self.steepness * x)) for x in (-0.5, 0.5))
        return self.value * (torch.sigmoid(self.steepness * (place - 0.5)) - low) / (high - low)


@final
class Cyclical(_Timed):
    """Raise the weight linearly from 0 several times, staying at the top after each rise (Fu et al.
    2019).

    Args:
        to: the weight at the top.
        cycles: how often.
        rise: share of a cycle in which the weight rises.
        share, epochs, steps: the length of all cycles together, by default the whole run;
            afterwards the weight stays.
    """

    def __init__(
        self,
        *,
        to: float = 1.0,
        cycles: int = 4,
        rise: float = 0.5,
        share: float | None = None,
        epochs: float | None = None,
        steps: int | None = None,
    ) -> None:
        super().__init__(
            to, steps, epochs, 1.0 if share is None and epochs is None and steps is None else share
        )
        if cycles < 1 or not 0 < rise <= 1:
            raise ValueError(
                f"expected 1 or more cycles and a rise in (0, 1]; got {cycles} and {rise}"
            )
        self.cycles, self.rise = cycles, rise

    def forward(self, step: Tensor) -> Beta:
        place = step / self._length
        within = (place * self.cycles) % 1.0
        return self.value * torch.where(place < 1, (within / self.rise).clamp(0, 1), 1.0)

    def settled(self, step: Tensor) -> bool:
        last_rise_ends = (self.cycles - 1 + self.rise) / self.cycles
        return bool(step >= last_rise_ends * self._length)


LIMIT = 12.0  # of |log lambda|
# of the target: how far the average distortion is off it where lambda counts as settled
AT_TARGET = 0.02


@final
class Geco(Schedule):
    """Let the weight follow a target of the distortion: the least rate at which reconstruction is
    good enough (Rezende and Viola 2018).

    The constraint distortion <= target has a multiplier lambda, which grows while a moving average
    of the distortion is above the target and shrinks below it; the loss is divided by it, so that
    beta = 1 / lambda. Both are checkpointed, and averaged over processes.

    Args:
        target: nats of distortion for each datum.
        speed: by how much log lambda moves in a step, for each `target` that the distortion is off.
        decay: of the moving average.
    """

    adaptive = True
    log_multiplier: Tensor
    average: Tensor

    def __init__(self, *, target: float, speed: float = 0.05, decay: float = 0.99) -> None:
        super().__init__(1.0)
        if not (math.isfinite(target) and speed > 0 and 0 <= decay < 1):
            raise ValueError(
                f"expected a target in nats, a speed above 0 and a decay in [0, 1); got "
                f"{target}, {speed} and {decay}"
            )
        self.target, self.speed, self.decay = target, speed, decay
        self.register_buffer("log_multiplier", torch.zeros((), dtype=torch.float64))
        self.register_buffer("average", torch.full((), math.nan, dtype=torch.float64))

    def forward(self, step: Tensor) -> Beta:
        return torch.exp(-self.log_multiplier)

    @torch.no_grad()
    def observe(self, distortion: Tensor) -> None:
        off = mean_over_ranks(distortion).double() - self.target
        average = torch.where(self.average.isnan(), off, torch.lerp(off, self.average, self.decay))
        moved = self.log_multiplier + self.speed * (average / max(1.0, abs(self.target))).clamp(
            -1, 1
        )
        counted = torch.isfinite(off)
        moved = torch.where(counted, moved.clamp(-LIMIT, LIMIT), self.log_multiplier)
        # through views, since a compiled graph takes numbers of type float64 for constants
        self.average.view(1).copy_(torch.where(counted, average, self.average).view(1))
        self.log_multiplier.view(1).copy_(moved.view(1))

    def settled(self, step: Tensor) -> bool:
        """Return whether the distortion is at its target, to 2 % of it, or the multiplier at its
        limit: lambda then hardly moves."""
        off = float(self.average) / max(1.0, abs(self.target))
        return abs(off) <= AT_TARGET or abs(float(self.log_multiplier)) >= LIMIT
