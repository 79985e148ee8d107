"""Fit the marginal distribution of a real column: its atoms, and the transform of all other values.

An atom is a value that is much more frequent than its neighbours, such as 40 working hours a week
or a rain of 0. The transform of the other values is chosen by the held-out likelihood of a normal
with the moments of their scores.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from vaestro.spaces.warps import Numbers, Warps

SHARE = 0.03  # smallest share of an atom,
TIMES = 5.0  # and its frequency relative to the values around it
MOST = 8  # largest number of atoms of a column
AROUND = 50  # number of the nearest other rows that show how frequent the values around are
FEWEST = 100  # smallest number of training values of a column with atoms or a transform
ROWS = 20_000  # number of values that the choice uses
CLEARLY = 2.0  # smallest advantage of a transform, in standard errors,
LEAST = 0.01  # and in nats per value
MARK = 0.25  # distance of the scores of neighbouring knots,
KNOTS = 32  # of which there are at most so many
TAIL = 5  # smallest number of values beyond the outermost knots
FINEST = 4e-6  # smallest distance of two knots inside: float32 has to resolve it

TRANSFORMS = ("identity", "log", "logit", "quantiles")


@final
@dataclass(frozen=True)
class Marginal:
    """Describe a marginal distribution, as in a Column.

    Args:
        transform, numbers: of the values that are not atoms, inside.
        points: the atoms, in the unit of the values; the most frequent first.
        shares: of the values, one for each atom.
    """

    transform: str = "identity"
    numbers: tuple[float, ...] = ()
    points: tuple[float, ...] = ()
    shares: tuple[float, ...] = ()


def marginal(
    values: np.ndarray, width: float, offset: float, scale: float, among: Sequence[str] = TRANSFORMS
) -> Marginal:
    """Return the marginal distribution of a column.

    Args:
        values: of the training rows, float64; at least one.
        width: of the cells that dequantisation spreads the values over; 0 without a grid.
        offset, scale: of the values inside, (values - offset) / scale.
        among: the transforms to choose from. If there is one, it is taken; if there is none, the
            column has no atoms either.

    Raises:
        ValueError: the values are outside of the range of the one transform.
    """
    if not among:
        return Marginal()
    points, shares = atoms(values, width) if width else ((), ())
    rest = values[~np.isin(values, points)]
    draw = np.random.default_rng(0)
    rest = rest if len(rest) <= ROWS else draw.choice(rest, ROWS, replace=False)
    spread = (rest + width * (draw.random(len(rest)) - 0.5) - offset) / scale
    # the edges of what the column can be, inside
    bounds = (rest.min() - width / 2, rest.max() + width / 2) if len(rest) else (0.0, 0.0)
    low, high = ((b - offset) / scale for b in bounds)
    zero, one = (-offset / scale, (1.0 - offset) / scale)
    limits = _Limits(low, high, zero - width / 2 / scale, one + width / 2 / scale, width / scale)
    if len(among) == 1:
        numbers = _numbers(among[0], spread, limits)
        if numbers is None:
            raise ValueError(among[0])
        return Marginal(among[0], numbers, points, shares)
    transform, numbers = _best(spread, limits, among) if len(rest) >= FEWEST else ("identity", ())
    return Marginal(transform, numbers, points, shares)


def gain_over_counts(values: np.ndarray) -> tuple[float, float]:
    """Return how much higher the held-out log-likelihood of whole numbers is under their marginal
    distribution as real values than under a negative binomial: mean in nats per value, and its
    standard error. Both are fitted to two thirds of the values.

    Args:
        values: whole numbers of the training rows, float64, at least 10.

    >>> hours = np.random.default_rng(0).poisson(40, 600).astype(float)
    >>> hours[::2] = 40
    >>> gain_over_counts(hours)[0] > 0.3
    True
    """
    values = np.random.default_rng(2).permutation(values)[: 2 * ROWS]
    third = len(values) // 3
    held, fit = values[:third], values[third:]
    mean, scale = float(fit.mean()), float(fit.std()) or 1.0
    shape = marginal(fit, 1.0, mean, scale)
    noise = np.random.default_rng(3).random(len(values)) - 0.5
    inside = (values + noise - mean) / scale
    rest = ~np.isin(fit, shape.points)
    density = np.exp(
        _log_likelihood(shape.transform, shape.numbers, inside[third:][rest], inside[:third])
    )
    density *= (1 - sum(shape.shares)) / scale
    for point, share in zip(shape.points, shape.shares, strict=True):
        density += share * (held == point)
    gain = np.log(np.maximum(density, 1e-30)) - _log_negative_binomial(fit, held)
    return float(gain.mean()), float(gain.std() / math.sqrt(third))


def _log_negative_binomial(fit: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Return the log-probability of each held-out count under the negative binomial with the mean
    of the others and the most probable dispersion."""
    mean = max(float(fit.mean()), 1e-6)
    sizes = torch.logspace(-3, 5, 49, dtype=torch.float64)[:, None]

    def log_prob(counts: np.ndarray) -> Tensor:
        x = torch.from_numpy(counts)
        choices = torch.lgamma(x + sizes) - torch.lgamma(sizes) - torch.lgamma(x + 1)
        return (
            choices
            + sizes * torch.log(sizes / (sizes + mean))
            + x * torch.log(mean / (sizes + mean))
        )

    distinct, times = np.unique(fit, return_counts=True)
    best = (log_prob(distinct) * torch.from_numpy(times)).sum(1).argmax()
    return log_prob(held)[best].numpy()


def atoms(values: np.ndarray, width: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the values that are atoms, the most frequent first, and their shares.

    Args:
        values: of the training rows, (n,).
        width: of a cell.

    >>> hours = np.concatenate([np.full(500, 40.0), np.arange(500) % 80 + 1])
    >>> atoms(hours, 1.0)
    ((40.0,), (0.506,))
    """
    total = len(values)
    if total < FEWEST:
        return (), ()
    distinct, times = np.unique(values, return_counts=True)
    ends = np.concatenate([[0], np.cumsum(times)])
    chosen: list[tuple[int, float]] = []
    for i in np.flatnonzero(times >= SHARE * total):
        # the nearest other rows, as many on each side, in whole cells
        first = max(0, int(np.searchsorted(ends, ends[i] - AROUND // 2, side="right")) - 1)
        last = int(np.searchsorted(ends, min(total, ends[i + 1] + AROUND // 2), side="left")) - 1
        rows = ends[last + 1] - ends[first] - times[i]
        cells = max(1.0, (distinct[last] - distinct[first]) / width)
        if times[i] >= TIMES * rows / cells:
            chosen.append((int(times[i]), float(distinct[i])))
    chosen = sorted(chosen, reverse=True)[:MOST]
    if sum(n for n, _ in chosen) > total - 20:
        return (), ()
    return tuple(v for _, v in chosen), tuple(n / total for n, _ in chosen)


@final
@dataclass(frozen=True)
class _Limits:
    """Hold the lowest and highest edge of the data, 0 and 1 with half a cell, and the width of a
    cell, all inside."""

    low: float
    high: float
    zero: float
    one: float
    width: float


def _best(
    spread: np.ndarray, limits: _Limits, among: Sequence[str]
) -> tuple[str, tuple[float, ...]]:
    """Return the transform with the highest held-out likelihood, and its numbers for all values."""
    order = np.random.default_rng(1).permutation(len(spread))
    third = len(spread) // 3
    held, fit = spread[order[:third]], spread[order[third:]]
    best, top = "identity", _log_likelihood("identity", (), fit, held)
    for name in among[1:]:
        numbers = _numbers(name, fit, limits)
        if numbers is None:
            continue
        gain = (score := _log_likelihood(name, numbers, fit, held)) - top
        if gain.mean() > max(LEAST, CLEARLY * gain.std() / math.sqrt(len(gain))):
            best, top = name, score
    numbers = _numbers(best, spread, limits)
    assert numbers is not None
    return best, numbers


def _log_likelihood(name: str, numbers: Numbers, fit: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Return the log-density of each held-out value under the normal with the moments of the
    scores of the others."""
    warps = Warps([(name, numbers)])
    scores, _ = warps.scores(torch.from_numpy(fit)[:, None])
    mean, variance = scores.mean(), scores.var().clamp_min(1e-12)
    score, log_slope = warps.scores(torch.from_numpy(held)[:, None])
    normal = -0.5 * ((score - mean).square() / variance + torch.log(2 * math.pi * variance))
    return (normal + log_slope).squeeze(1).numpy()


def _numbers(name: str, spread: np.ndarray, limits: _Limits) -> tuple[float, ...] | None:
    """Return the numbers of a transform fitted to values inside; None if it does not suit them."""
    if name == "identity":
        return ()
    if name == "quantiles":
        return _spline(spread, limits)
    if limits.low < limits.zero or (name == "logit" and limits.high > limits.one):
        return None
    # The joins are the centres of the outermost cells, or the outermost values.
    joins = (limits.low + limits.width / 2, limits.high - limits.width / 2)
    near = np.clip(spread, *joins)
    left = near - limits.zero
    if joins[0] >= joins[1] or left.min() <= 0:
        return None
    if name == "log":
        scores, rest = np.log(left), [limits.zero]
    else:
        right = limits.one - near
        if right.min() <= 0:
            return None
        scores, rest = np.log(left / right), [limits.zero, limits.one]
    deviation = float(scores.std())
    if not deviation > 0:
        return None
    return (*map(float, joins), float(scores.mean()), deviation, *rest)


def _spline(spread: np.ndarray, limits: _Limits) -> tuple[float, ...] | None:
    """Return the knots, scores and slopes of the quantile map."""
    ordered = np.sort(spread)
    count = len(ordered)
    if count < FEWEST:
        return None
    normal = torch.special.ndtri
    reach = -float(normal(torch.tensor(TAIL / count, dtype=torch.float64)))
    intervals = min(KNOTS - 1, max(4, math.ceil(2 * reach / MARK)))
    marks = np.linspace(-reach, reach, intervals + 1)
    shares = torch.special.ndtr(torch.from_numpy(marks)).numpy()
    knots = np.quantile(ordered, shares, method="hazen")
    kept = list(_apart(knots, max(limits.width, FINEST * max(1.0, float(np.abs(ordered).max())))))
    knots, marks = knots[kept], marks[kept]
    if len(knots) < 4:
        return None
    secants = np.diff(marks) / np.diff(knots)
    # harmonic means of neighbouring secants, weighted by the widths (Fritsch and Butland 1984)
    widths = np.diff(knots)
    inner = (widths[:-1] + widths[1:]) / (widths[:-1] / secants[:-1] + widths[1:] / secants[1:])
    slopes = np.concatenate([secants[:1], inner, secants[-1:]])
    more = np.arange(1, KNOTS + 1 - len(knots))  # all splines have as many knots
    knots = np.concatenate([knots, knots[-1] + more / slopes[-1]])
    marks = np.concatenate([marks, marks[-1] + more])
    slopes = np.concatenate([slopes, np.full(len(more), slopes[-1])])
    return tuple(np.concatenate([knots, marks, slopes]).tolist())


def _apart(knots: np.ndarray, least: float) -> Iterator[int]:
    """Yield the places of increasing knots that are at least some distance apart."""
    last = -math.inf
    for i, knot in enumerate(knots.tolist()):
        if knot - last >= least:
            last = knot
            yield i
