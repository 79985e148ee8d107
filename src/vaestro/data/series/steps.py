"""The steps of ordered rows: a regular grid with gaps, or no grid."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

OFF = 0.2  # largest distance of a time from the grid, in steps
FEW_OFF = 0.01  # largest share of times off the grid of a regular series
MOST_EMPTY = 4  # largest number of grid steps for each row, if gaps are filled
UNITS = (("day", 86_400_000_000), ("h", 3_600_000_000), ("min", 60_000_000), ("s", 1_000_000))


class Grid(NamedTuple):
    """Hold the places of ordered rows.

    Args:
        step: the distance between two steps; 0 if there is no grid.
        at: the number of the step of each row within its series, (n,).
        gaps: number of steps without a row.
        notes: one line each.
    """

    step: float
    at: np.ndarray
    gaps: int
    notes: list[str]


def place_rows(
    order: np.ndarray, starts: np.ndarray, name: str, step: float = 0.0, window: int = 0
) -> Grid:
    """Return the step of each row within its series.

    The step is the most frequent difference of two rows, or the median one if times are jittered.

    Args:
        order: numbers or dates, increasing within each series, (n,).
        starts: the row at which each series starts.
        name: of the column, for notes.
        step: of a run that the rows are read for; by default it is computed.
        window: number of steps of a window, in which long gaps need not be filled; 0 without.

    >>> place_rows(np.array([1, 2, 4, 7, 8]), np.array([0, 3]), "cycle").at
    array([0, 1, 3, 0, 1])
    """
    new = np.zeros(len(order), bool)
    new[starts] = True
    dates = order.dtype.kind == "M"
    values = order.astype(np.int64) if dates else order
    apart = np.where(new[1:], 0, np.diff(values)).astype(np.float64)
    inside = ~new[1:]
    one = np.ones(len(order), np.int64)
    if not inside.any():
        return Grid(step or 1.0, np.zeros(len(order), np.int64), 0, [])
    step = step or _usual(apart[inside])
    taken = np.rint(apart / step).astype(np.int64)
    off = inside & ((np.abs(apart / step - taken) > OFF) | (taken < 1))
    unit = _in_words(step, order.dtype)
    if off.sum() > FEW_OFF * inside.sum():
        low, high = (_in_words(float(f(apart[inside])), order.dtype) for f in (np.min, np.max))
        note = (
            f"the steps of {name} are irregular ({low} to {high}): the order of rows is kept, the "
            f"times are not modelled"
        )
        return Grid(0.0, _counted(one, new), 0, [note])
    one[1:] = np.maximum(taken, 1)
    gaps = int((one[1:][inside] - 1).sum())
    if not window and gaps + len(order) > MOST_EMPTY * len(order):
        longest = _in_words(float(apart[inside].max()), order.dtype)
        note = (
            f"{name} has gaps of up to {longest}, which are not filled: the order of rows is kept "
            f"(window=N cuts windows at long gaps)"
        )
        return Grid(0.0, _counted(np.ones_like(one), new), 0, [note])
    notes = []
    if off.any():
        notes.append(f"{int(off.sum()):,} rows are off the step of {name} ({unit}): moved to it")
    return Grid(step, _counted(one, new), gaps, notes)


def _usual(apart: np.ndarray) -> float:
    """Return the most frequent difference, or the median if none is frequent."""
    median = float(np.median(apart))
    values, times = np.unique(np.round(apart / median, 6), return_counts=True)
    top = int(times.argmax())
    return float(values[top] * median) if 2 * times[top] >= len(apart) else median


def _counted(taken: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Return the sum of the steps since the start of each series."""
    total = np.cumsum(np.where(new, 0, taken))
    starts = np.flatnonzero(new)
    return total - np.repeat(total[starts], np.diff([*starts, len(new)]))


def _in_words(step: float, dtype: np.dtype) -> str:
    """Return a distance of numbers or dates in words, such as "10 s"."""
    if dtype.kind != "M":
        return f"{step:g}"
    one = np.ones((), f"timedelta64[{np.datetime_data(dtype)[0]}]")
    micro = float(one / np.timedelta64(1, "us")) * step
    for unit, size in UNITS:
        if micro >= size:
            count = micro / size
            return f"{count:.4g} {unit}{'s' if unit == 'day' and count != 1 else ''}"
    return f"{micro / 1000:.4g} ms"
