"""The marginal transforms of a table's columns: T maps a value inside to a score that is nearly
standard normal in the training split.

    log p(x | z) = log f(T(x) | z) + log T'(x)

Every T is a continuous, increasing map of the real line onto itself. Outside of the range of the
training split it continues along its tangents, so that every value has a finite density.

    identity    T(x) = x
    log         T(x) = (log(x - low) - centre) / spread
    logit       T(x) = (log((x - low) / (high - x)) - centre) / spread
    quantiles   a monotone rational-quadratic spline through (quantile, normal score) (Gregory and
                Delbourgo 1982; Durkan, Bekasov, Murray and Papamakarios 2019)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Self, final

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from vaestro.spaces.columns import Column

Numbers = Sequence[float]
NOWHERE = 1e30  # a limit that no value reaches; it is finite, because buffers are averaged


class Transform(ABC):
    """Map values inside to scores, each by its own increasing function."""

    @abstractmethod
    def scores(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return T(x) and log T'(x), in the shape of x."""

    @abstractmethod
    def values(self, scores: Tensor) -> Tensor:
        """Return the values inside at which T has some scores."""


@final
class Limits(Transform):
    """Map values between two limits onto the real line, linearly away from the limits:

        s = x + w log(1 - exp(-(x - low) / w))

    for a lower limit, whose inverse is low + w log(1 + exp((s - low) / w)); and the mirror image of
    it for an upper limit.

    Args:
        low, high: the limits inside, which broadcast to values; -NOWHERE and NOWHERE for none.
        width: w, of the part near a limit that is not linear.

    >>> limits = Limits(torch.tensor(-1.0), torch.tensor(1.0), 0.1)
    >>> limits.values(torch.tensor([-9.0, 0.5, 9.0]))
    tensor([-1.0000,  0.4993,  1.0000])
    """

    def __init__(self, low: Tensor, high: Tensor, width: float) -> None:
        self.low, self.high, self.width = low, high, width

    def _lifted(self, x: Tensor, limit: Tensor) -> tuple[Tensor, Tensor]:
        """Return values above a limit as scores, with the logarithm of the slope."""
        apart = ((x - limit) / self.width).clamp_min(1e-6)
        log_share = torch.log(-torch.expm1(-apart))  # 0 without a limit
        return x + self.width * log_share, -log_share

    def _above(self, scores: Tensor, limit: Tensor) -> Tensor:
        """Return the inverse of `_lifted`."""
        apart = (scores - limit) / self.width
        return torch.maximum(scores, limit) + self.width * torch.log1p(torch.exp(-apart.abs()))

    def _ceiling(self) -> Tensor:
        """Return the score of the upper limit under the transform of the lower one."""
        return self._lifted(self.high, self.low)[0]

    def scores(self, x: Tensor) -> tuple[Tensor, Tensor]:
        lifted, slope = self._lifted(x, self.low)
        mirrored, more = self._lifted(-lifted, -self._ceiling())
        return -mirrored, slope + more

    def values(self, scores: Tensor) -> Tensor:
        return self._above(-self._above(-scores, -self._ceiling()), self.low)


class Warp(ABC):
    """Map values of n columns, (..., n), to scores.

    Args:
        rows: the numbers of each column's transform, (n, m).
    """

    name: ClassVar[str]

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows

    @abstractmethod
    def scores(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return T(x) and log T'(x), both (..., n)."""

    @abstractmethod
    def values(self, scores: Tensor) -> Tensor:
        """Return the values at which T has some scores, (..., n)."""


class _Curve(Warp):
    """Transform by a standardised elementary function between two joins, and along its tangents
    outside of them."""

    @abstractmethod
    def _curve(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the function and the logarithm of its slope, before standardisation."""

    @abstractmethod
    def _inverse(self, scores: Tensor) -> Tensor:
        """Return the values at which the function has some scores, before standardisation."""

    @property
    def _joins(self) -> tuple[Tensor, Tensor]:
        return self.rows[:, 0], self.rows[:, 1]

    def scores(self, x: Tensor) -> tuple[Tensor, Tensor]:
        centre, spread = self.rows[:, 2], self.rows[:, 3]
        near = torch.minimum(torch.maximum(x, self._joins[0]), self._joins[1])
        at, log_slope = self._curve(near)
        slope = log_slope - torch.log(spread)
        return (at - centre) / spread + (x - near) * torch.exp(slope), slope

    def values(self, scores: Tensor) -> Tensor:
        centre, spread = self.rows[:, 2], self.rows[:, 3]
        ends = torch.stack(self._joins)
        at, log_slope = self._curve(ends)
        raw = scores * spread + centre
        near = torch.minimum(torch.maximum(raw, at[0]), at[1])
        slope = torch.where(raw < near, log_slope[0], log_slope[1])
        inside = torch.minimum(torch.maximum(self._inverse(near), ends[0]), ends[1])
        return inside + (raw - near) * torch.exp(-slope)


@final
class Log(_Curve):
    """Transform by log(x - low); a row is (lowest join, highest join, centre, spread, low).

    >>> log = Log(torch.tensor([[1.0, 100.0, 0.0, 1.0, 0.0]]))
    >>> log.scores(torch.tensor([1.0]))[0]
    tensor([0.])
    """

    name = "log"

    def _curve(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log = torch.log(x - self.rows[:, 4])
        return log, -log

    def _inverse(self, scores: Tensor) -> Tensor:
        return torch.exp(scores) + self.rows[:, 4]


@final
class Logit(_Curve):
    """Transform by log((x - low) / (high - x)); a row is (lowest join, highest join, centre,
    spread, low, high).

    >>> logit = Logit(torch.tensor([[0.1, 0.9, 0.0, 1.0, 0.0, 1.0]]))
    >>> logit.scores(torch.tensor([0.5]))[0]
    tensor([0.])
    """

    name = "logit"

    def _curve(self, x: Tensor) -> tuple[Tensor, Tensor]:
        low, high = self.rows[:, 4], self.rows[:, 5]
        left, right = torch.log(x - low), torch.log(high - x)
        return left - right, torch.log(high - low) - left - right

    def _inverse(self, scores: Tensor) -> Tensor:
        low, high = self.rows[:, 4], self.rows[:, 5]
        return low + (high - low) * torch.sigmoid(scores)


@final
class Quantiles(Warp):
    """Transform by a rational-quadratic spline; a row is K knots, their scores and their slopes.

    >>> line = Quantiles(torch.tensor([[0.0, 1.0, -1.0, 1.0, 2.0, 2.0]]))
    >>> line.scores(torch.tensor([0.5]))[0]
    tensor([0.])
    """

    name = "quantiles"

    def __init__(self, rows: Tensor) -> None:
        super().__init__(rows)
        self.knots, self.marks, self.slopes = rows.chunk(3, -1)
        self.columns = torch.arange(len(rows), device=rows.device)

    def _bins(self, x: Tensor, edges: Tensor) -> tuple[Tensor, ...]:
        """Return the left knot, score and slope of each value's bin, and those on its right."""
        at = (x.unsqueeze(-1) >= edges[:, 1:-1]).sum(-1)
        tables = (self.knots, self.marks, self.slopes)
        return tuple(t[self.columns, at + side] for side in (0, 1) for t in tables)

    def scores(self, x: Tensor) -> tuple[Tensor, Tensor]:
        near = torch.minimum(torch.maximum(x, self.knots[:, 0]), self.knots[:, -1])
        left, bottom, start, right, top, end = self._bins(near, self.knots)
        width, height = right - left, top - bottom
        secant = height / width
        share = ((near - left) / width).clamp(0.0, 1.0)
        rest = 1 - share
        cross = share * rest
        below = secant + (end + start - 2 * secant) * cross
        score = bottom + height * (secant * share.square() + start * cross) / below
        inner = end * share.square() + 2 * secant * cross + start * rest.square()
        log_slope = 2 * torch.log(secant) + torch.log(inner) - 2 * torch.log(below)
        return score + (x - near) * torch.exp(log_slope), log_slope

    def values(self, scores: Tensor) -> Tensor:
        near = torch.minimum(torch.maximum(scores, self.marks[:, 0]), self.marks[:, -1])
        left, bottom, start, right, top, end = self._bins(near, self.marks)
        width, height = right - left, top - bottom
        secant, rise = height / width, near - bottom
        bend = rise * (end + start - 2 * secant)
        a, b, c = height * (secant - start) + bend, height * start - bend, -secant * rise
        share = 2 * c / (-b - torch.sqrt((b.square() - 4 * a * c).clamp_min(0.0)))
        slope = torch.where(scores < near, self.slopes[:, 0], self.slopes[:, -1])
        return left + width * share.clamp(0.0, 1.0) + (scores - near) / slope


WARPS: dict[str, type[Warp]] = {warp.name: warp for warp in (Log, Logit, Quantiles)}


@final
class Warps(Transform):
    """Map the real columns of a table to scores, each by its own transform.

    Args:
        transforms: the name of each column's transform and its numbers, as in a Column.

    >>> warps = Warps([("identity", ()), ("log", (1.0, 9.0, 0.0, 1.0, 0.0))])
    >>> warps.scores(torch.ones(1, 2))[0]
    tensor([[1., 0.]])
    """

    def __init__(self, transforms: Sequence[tuple[str, Numbers]]) -> None:
        self.places: dict[tuple[str, int], list[int]] = {}
        for i, (name, numbers) in enumerate(transforms):
            if name in WARPS:
                self.places.setdefault((name, len(numbers)), []).append(i)
        self.rows = {
            key: np.array([transforms[i][1] for i in places], np.float64)
            for key, places in self.places.items()
        }
        self._placed: dict[tuple[torch.device, torch.dtype], list[tuple[Tensor, Warp]]] = {}

    @classmethod
    def of(cls, columns: Sequence[Column]) -> Self:
        """Return the transforms of real columns.

        >>> bool(Warps.of([]))
        False
        """
        return cls([(c.transform, c.numbers) for c in columns])

    def __bool__(self) -> bool:
        return bool(self.places)

    def _groups(self, x: Tensor) -> list[tuple[Tensor, Warp]]:
        """Return the places of the columns with one kind of transform, and their transform, on the
        device of a tensor."""
        key = (x.device, x.dtype)
        if key not in self._placed:
            with torch.inference_mode(False):  # also for later calls with gradients
                self._placed[key] = [
                    (
                        torch.tensor(places, device=x.device),
                        WARPS[name](
                            torch.tensor(self.rows[name, size], device=x.device).to(x.dtype)
                        ),
                    )
                    for (name, size), places in self.places.items()
                ]
        return self._placed[key]

    def scores(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores, log_slopes = x, torch.zeros_like(x)
        for places, warp in self._groups(x):
            score, log_slope = warp.scores(x[..., places])
            scores = scores.index_copy(-1, places, score)
            log_slopes = log_slopes.index_copy(-1, places, log_slope)
        return scores, log_slopes

    def values(self, scores: Tensor) -> Tensor:
        values = scores
        for places, warp in self._groups(scores):
            values = values.index_copy(-1, places, warp.values(scores[..., places]))
        return values
