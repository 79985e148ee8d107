"""Find the grid of a set of numbers: cents, quarters, multiples of 2.54, whole days, k / 255.

The grid is that of most values, and a few may lie off it. Otherwise one typo among prices in cents
would make every cell a thousand times too small. A grid is accepted only if numbers without a grid
would rarely fit it as well. The odds count every way to choose the values that are off.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

from vaestro.spaces import FINEST

DIGITS = 9  # decimals 0 .. 8 are tried, and more if all values are below 0.1
STRAY_SHARE = 0.01  # largest share of values off the grid,
STRAY_REST = 0.05  # and of values other than the most frequent one
FEWEST = 20  # smallest number of values of which one may be off
ODDS = -6.0  # a grid with values off it is accepted if log10 of its chance is below this
HEAD = 1000  # number of distances in a first, quick check
OFF = 0.02  # smaller distances from the grid, in steps, are rounding errors
DECIMAL_ODDS = -9.0  # the same limit for numbers without a grid that look like decimals

NOWHERE = np.zeros(0, bool)


@dataclass(frozen=True, eq=False)
class Lattice:
    """Describe the grid of a set of numbers.

    Args:
        step: its step in the unit of the numbers; 0 if there is no grid. With `atoms`, the width of
            the cells.
        origin: a point of the grid, or the most frequent value.
        atoms: whether values repeat although there is no grid.
        off: mask of the distinct values off the grid, (n,); empty if there are none.
    """

    step: float = 0.0
    origin: float = 0.0
    atoms: bool = False
    off: np.ndarray = field(default_factory=lambda: NOWHERE)

    @property
    def strays(self) -> bool:
        """Return whether some values lie off the grid."""
        return bool(self.off.any())


@dataclass(frozen=True, eq=False)
class Fractions:
    """Describe a grid with steps of units / parts, both whole numbers.

    Args:
        units, parts: of the step; units is 0 if there is no grid.
        residue: of the points on the grid, modulo units.
        off: mask of the distinct values off the grid, (n,); empty if there are none.
    """

    units: int = 0
    parts: int = 1
    residue: int = 0
    off: np.ndarray = field(default_factory=lambda: NOWHERE)


def lattice(values: np.ndarray, times: np.ndarray, scale: float) -> Lattice:
    """Return the grid that the bulk of some numbers lies on.

    Without a grid, many rows may still have the same number, such as 0 for daily rain. That number
    has a probability and the others have a density, and these are not comparable. The cell width is
    then the median distance between neighbouring numbers, and at most a thousandth of the standard
    deviation.

    Args:
        values: the distinct numbers, sorted, at least two.
        times: frequency of each.
        scale: their standard deviation. Only the width of cells without a grid depends on it.
    """
    grid = fractions(values, times)
    if grid.units:
        return Lattice(grid.units / grid.parts, grid.residue / grid.parts, off=grid.off)
    often, total = int(times.argmax()), times.sum()
    if (
        times[often] >= 10
        or times[times >= 3].sum() > 0.01 * total
        or times[times >= 2].sum() > 0.5 * total
    ):
        spaced = _spaced(values.astype(np.float64), times, float(np.finfo(values.dtype).eps))
        if spaced is not None:
            return spaced
        spacing = float(np.spacing(np.quantile(np.abs(values), 0.01).astype(values.dtype)))
        if spacing > 1e-3 * scale:  # numbers repeat because of the precision of their type
            return Lattice(spacing, values[often].item())
        return Lattice(
            max(_gap(values, 1e-3 * scale), FINEST * scale), values[often].item(), atoms=True
        )
    return Lattice()


def allowed(times: np.ndarray) -> int:
    """Return the largest number of rows off a grid: 1 in 100 (at least one of 20), and 1 in 20 of
    the rows without the most frequent value."""
    total = int(times.sum())
    return (
        min(max(1, int(STRAY_SHARE * total)), int(STRAY_REST * (total - int(times.max()))) + 1)
        if total >= FEWEST
        else 0
    )


def fractions(values: np.ndarray, times: np.ndarray) -> Fractions:
    """Return the grid of whole multiples of a fraction that the bulk of sorted distinct numbers
    lies on, over 1, 10 .. 10**8.

    Numbers in float64 that are exact in float32 are treated as float32.
    """
    if values.dtype.kind != "f":
        points = values.astype(np.int64)
        return _coarsest(points, times, 1, np.zeros(len(points), bool), allowed(times))
    grid = _decimal(values, times, 4 * float(np.finfo(values.dtype).eps))
    if grid.units or values.dtype == np.float16:
        return grid
    with np.errstate(over="ignore"):
        coarse = values != values.astype(np.float32)
    if values.dtype == np.float64 and times[coarse].sum() <= allowed(times):
        return _decimal(values, times, 4 * float(np.finfo(np.float32).eps))
    return grid


def _decimal(values: np.ndarray, times: np.ndarray, eps: float) -> Fractions:
    """Return the coarsest grid of decimals that all but a few floats lie on, given their relative
    rounding."""
    values = values.astype(np.float64)
    size, most = np.abs(values), allowed(times)
    largest = float(size.max())
    small = max(0, -math.floor(math.log10(largest))) if 0 < largest < 1 else 0
    bulk: Fractions | None = None
    coarser = 1
    for digits in range(min(23, DIGITS + small)):
        parts = 10**digits
        points = np.rint(values * parts)
        off = np.abs(values - points / parts) > eps * size
        aside = np.abs(points) >= 2**53  # floats this large are multiples of any such step
        some = bool(off.any())
        if times[off | aside].sum() > most or (some and (bulk is not None or (~off).sum() < 4)):
            continue
        # If a step is close to the rounding error, numbers without a grid may fit it by chance.
        # This is the log10 of that chance.
        odds = float(np.log10(np.clip(2 * eps * size[~off] * parts, 1e-6, 1)).sum()) + _choices(
            len(values), int(off.sum())
        )
        if odds > DECIMAL_ODDS:
            if not some:
                break
            continue
        if not some and bulk is not None:
            lost = int(bulk.off.sum())
            chance = _choices(len(values), lost) - (len(values) - lost - 1) * math.log10(
                parts / coarser
            )
            if chance < ODDS:
                return bulk
        grid = _coarsest(
            np.where(off | aside, 0, points).astype(np.int64), times, parts, off | aside, most
        )
        grid = replace(grid, off=grid.off & ~aside if len(grid.off) else NOWHERE)
        if not some:
            return grid
        bulk, coarser = grid, parts
    return Fractions() if bulk is None else bulk


def _coarsest(
    points: np.ndarray, times: np.ndarray, parts: int, off: np.ndarray, most: int
) -> Fractions:
    """Return the coarsest grid of whole steps that contains all points but a few.

    Args:
        points: whole numbers (n,); those that are `off` are ignored.
        times: how often each occurs.
        parts: the points are multiples of 1 / parts.
        off: mask of the points that are off the grid, (n,).
        most: number of rows that may be off in total.
    """
    on = points[~off]
    whole = int(np.gcd.reduce(np.diff(on)))
    if not whole:
        return Fractions()
    best, best_off = whole, off
    left = most - int(times[off].sum())
    if left > 0 and len(on) >= 5:
        draw = np.random.default_rng(0)
        shares = times[~off] / times[~off].sum()
        some = on[
            np.concatenate(
                [draw.choice(len(on), (20, 12), p=shares), draw.integers(len(on), size=(20, 12))]
            )
        ]
        guesses = {int(g) for g in np.gcd.reduce(some[:, 1:] - some[:, :1], axis=1)}
        for units in sorted(guesses, reverse=True):
            if units <= whole:
                break
            classes, which = np.unique(on % units, return_inverse=True)
            rows = np.bincount(which.ravel(), weights=times[~off])
            away = classes[which.ravel()] != classes[rows.argmax()]
            count, lost = int((~away).sum()), int(away.sum())
            if times[~off][away].sum() > left or count < 4:
                continue
            if (
                _choices(len(on), lost)
                - (count - 1) * math.log10(units / whole)
                + math.log10(len(some))
                < ODDS
            ):
                best, best_off = units, off.copy()
                best_off[~off] = away
                break
    kept = points[~best_off]
    return Fractions(best, parts, int(kept[0]) % best, best_off if best_off.any() else NOWHERE)


def _choices(count: int, lost: int) -> float:
    """Return log10 of the number of ways to choose `lost` of `count`."""
    return (
        math.lgamma(count + 1) - math.lgamma(lost + 1) - math.lgamma(count - lost + 1)
    ) / math.log(10)


def _spaced(values: np.ndarray, times: np.ndarray, eps: float) -> Lattice | None:
    """Return the lattice of equal steps, such as k / 255 or 5 / 9 of a degree, that distinct
    numbers lie on, or None."""
    noise = 16 * eps * float(np.abs(values).max())
    gaps = np.diff(values)
    gaps = gaps[gaps > noise]  # smaller gaps are rounding errors of one number
    if not len(gaps):
        return None
    least, head = gaps.min(), gaps[:HEAD]
    for parts in range(1, 13):
        if np.abs(head * parts / least - np.rint(head * parts / least)).max() >= 0.01:
            continue
        steps = np.rint(gaps * parts / least)
        if np.abs(gaps * parts / least - steps).max() < 0.01:
            step = float(gaps.sum() / steps.sum())
            return Lattice(step, float(values[times.argmax()])) if 4 * OFF * step >= noise else None
    return _spaced_bulk(values, times, gaps, noise)


def _spaced_bulk(
    values: np.ndarray, times: np.ndarray, gaps: np.ndarray, noise: float
) -> Lattice | None:
    """Return the lattice of all but a few of the numbers: a fraction of their most common gap, if
    that is unlikely by chance."""
    most = allowed(times)
    if not most or len(gaps) < 6:
        return None
    ordered = np.sort(gaps)
    ends = np.searchsorted(ordered, ordered * 1.01 + noise, side="right")
    common = float(
        np.median(ordered[(start := int((ends - np.arange(len(ends))).argmax())) : ends[start]])
    )
    for parts in range(1, 13):
        step = common / parts
        if 4 * OFF * step < noise:
            return None
        head = gaps[:HEAD] / step
        if (np.abs(head - np.rint(head)) < OFF).mean() < 0.5:
            continue
        ratio = gaps / step
        fits = (np.abs(ratio - np.rint(ratio)) < OFF) & (ratio > 0.5)
        if fits.mean() < 0.5:
            continue
        step = float(gaps[fits].sum() / np.rint(ratio[fits]).sum())
        for anchor in values[np.argsort(-times, kind="stable")[:3]]:
            slope, start_at = step, anchor
            for within in (0.25, OFF, OFF):
                steps = np.rint((values - start_at) / slope)
                near = np.abs(values - start_at - steps * slope) < within * slope
                if near.sum() > 2 and np.ptp(steps[near]):
                    slope, start_at = np.polyfit(steps[near], values[near], 1)
            steps = np.rint((values - start_at) / slope)
            off = np.abs(values - start_at - steps * slope) > OFF * slope
            count, lost = int((~off).sum()), int(off.sum())
            odds = _choices(len(values), lost) + (count - 2) * math.log10(2 * OFF) + math.log10(36)
            if times[off].sum() <= most and odds < ODDS:
                origin = float(values[~off][times[~off].argmax()])
                return Lattice(float(slope), origin, off=off if lost else NOWHERE)
    return None


def _gap(values: np.ndarray, most: float) -> float:
    """Return the median distance between neighbouring numbers, and `most` if that is smaller."""
    gaps = np.diff(values.astype(np.float64))
    gaps = gaps[gaps > 16 * np.finfo(values.dtype).eps * np.abs(values).max()]
    return min(most, float(np.median(gaps))) if len(gaps) else most
