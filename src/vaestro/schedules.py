r"""Schedules of beta, the weight of the KL in the loss, as functions of the step.

With t = step / length, clipped to [0, 1], and s the logistic function,

    linear      start + (end - start) t                                        (Bowman et al. 2016)
    sigmoid     to (s(a (t - 1/2)) - s(-a/2)) / (s(a/2) - s(-a/2))             (Bowman et al. 2016)
    cyclical    to min(1, (cycles t mod 1) / rise)                             (Fu et al. 2019)
    GECO        1 / lambda, with log lambda <- log lambda + speed (average distortion - target)
                                                                     (Rezende and Viola 2018)

A length is given in steps, epochs or a share of the run; `plan` converts it into steps. A schedule
that is longer than the run is refused, because the bound at its end would never be trained.
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
    """Return a weight for each step; this base class returns a constant.

    `adaptive` declares that the weight depends on the training, so that its final value is unknown
    before the end.

    Args:
        value: the weight at the end of the run.

    >>> Schedule(0.5)(torch.tensor(3.0))
    0.5
    """

    adaptive: ClassVar[bool] = False

    def __init__(self, value: float) -> None:
        super().__init__()
        if not 0 <= value < float("inf"):
            raise ValueError(f"expected a weight of 0 or more; got {value}")
        self.value = value

    def plan(self, steps: int, steps_per_epoch: float) -> None:
        """Convert a length in epochs or as a share into steps of a run.

        Args:
            steps: number of steps of the run.
            steps_per_epoch: number of steps of an epoch, as a fraction.

        Raises:
            ValueError: the schedule is longer than the run.
        """

    def forward(self, step: Tensor) -> Beta:
        """Return the weight at a step, a tensor (), so that one compiled graph is valid for all
        steps."""
        return float(self.value)

    def observe(self, distortion: Tensor) -> None:
        """Update an adaptive schedule with the mean distortion of a step, (), in nats."""

    def settled(self, step: Tensor) -> bool:
        """Return whether the weight keeps its value after a step.

        Override this in a schedule that takes its final value before its end.
        """
        return float(self(step)) == float(self(torch.full_like(step, END)))


def constant(*, value: float = 1.0) -> Schedule:
    """Keep the weight constant.

    >>> constant(value=4.0)(torch.tensor(0.0))
    4.0
    """
    return Schedule(value)


class _Timed(Schedule):
    """Describe schedules with a length, which is NaN until `plan` if it is not given in steps."""

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
        # a tensor, so that a compiled step reads the current length
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
                f"{float(self._length):.0f} steps"
            )


@final
class Ramp(_Timed):
    """Change linearly from `start` to `end` over the first part of a run, then stay constant (KL
    warm-up; Bowman et al. 2016).

    Args:
        start, end: weights.
        steps, epochs, share: length, in exactly one of the three units. `plan` converts the latter
            two into steps; before, the weight is NaN.

    >>> Ramp(0.0, 1.0, steps=10)(torch.tensor(5.0, dtype=torch.float64))
    tensor(0.5000, dtype=torch.float64)
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
    """Raise the weight linearly from 0 (Bowman et al. 2016).

    Args:
        to: weight at the end.
        share, epochs, steps: length; by default a tenth of the run.

    >>> schedule = warmup(share=0.5)
    >>> schedule.plan(steps=100, steps_per_epoch=10)
    >>> float(schedule(torch.tensor(25.0)))
    0.5
    """
    if share is None and epochs is None and steps is None:
        share = 0.1
    return Ramp(0.0, to, steps=steps, epochs=epochs, share=share)


@final
class Sigmoid(_Timed):
    """Raise the weight from 0 along a sigmoid, then stay constant (Bowman et al. 2016).

    The weight is half of `to` at half of the length.

    Args:
        to: weight at the end.
        share, epochs, steps: length; by default a fifth of the run.
        steepness: slope factor of the sigmoid; larger is steeper.

    >>> round(float(Sigmoid(steps=100)(torch.tensor(50.0))), 6)
    0.5
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
        # scaled, so that it begins at 0 and ends at `to` exactly
        low, high = (1 / (1 + math.exp(-self.steepness * x)) for x in (-0.5, 0.5))
        return self.value * (torch.sigmoid(self.steepness * (place - 0.5)) - low) / (high - low)


@final
class Cyclical(_Timed):
    """Raise the weight linearly from 0 several times; after each rise it stays constant until the
    end of the cycle (Fu et al. 2019).

    Args:
        to: weight at the end of each rise.
        cycles: number of cycles.
        rise: share of a cycle in which the weight rises.
        share, epochs, steps: length of all cycles together; by default the whole run.

    >>> schedule = Cyclical(cycles=2, rise=0.5, steps=100)
    >>> [float(schedule(torch.tensor(step))) for step in (0.0, 12.5, 40.0, 50.0)]
    [0.0, 0.5, 1.0, 0.0]
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


LIMIT = 12.0  # largest |log lambda|
AT_TARGET = 0.02  # largest relative distance of the distortion from a target that is reached


@final
class Geco(Schedule):
    """Minimise the rate subject to distortion <= target (GECO; Rezende and Viola 2018).

    The constraint has a multiplier lambda. It grows if a moving average of the distortion is above
    the target, and shrinks if it is below. The loss is divided by lambda, so beta = 1 / lambda.
    Multiplier and average are saved in checkpoints, and are the same in all processes.

    Args:
        target: distortion of a datum, in nats.
        speed: change of log lambda in a step, per relative distance of the distortion from the
            target.
        decay: decay of the moving average.

    >>> schedule = Geco(target=10.0)
    >>> schedule.observe(torch.tensor(20.0))
    >>> float(schedule(torch.tensor(1.0))) < 1.0
    True
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
        new = self.log_multiplier + self.speed * (average / max(1.0, abs(self.target))).clamp(-1, 1)
        finite = torch.isfinite(off)
        new = torch.where(finite, new.clamp(-LIMIT, LIMIT), self.log_multiplier)
        # through views, because a compiled graph loses what is written into a float64 scalar
        self.average.view(1).copy_(torch.where(finite, average, self.average).view(1))
        self.log_multiplier.view(1).copy_(new.view(1))

    def settled(self, step: Tensor) -> bool:
        """Return whether the distortion is within 2 % of its target, or the multiplier at its
        limit: lambda then hardly changes."""
        off = float(self.average) / max(1.0, abs(self.target))
        return abs(off) <= AT_TARGET or abs(float(self.log_multiplier)) >= LIMIT
