"""Recognise a long table of series by its columns."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import numpy as np

from vaestro.frames import Frame
from vaestro.text import quoted

LEAST_STEPS = 5  # mean number of rows of a series
MOST_ROWS = 2_000_000  # of a table that is examined
MOST_COLUMNS = 8  # candidates for each role
REGULAR = 0.9  # least share of equal steps of one long series
LEAST_ROWS = 100  # of one long series


def series_of(frame: Frame) -> tuple[str, str] | None:
    """Return the columns that name and order the series of a long table; None if a table does not
    look like one. The first is "" for one long series.

    A column of ids that repeat, and a column of whole numbers or dates that increases within each
    id and starts anew, are those of series. Dates with regular steps are those of one series.

    >>> from vaestro.data.tables import frame_of
    >>> table = {"unit": [1] * 6 + [2] * 6, "cycle": [*range(6), *range(6)], "x": [0.5] * 12}
    >>> series_of(frame_of(table))
    ('unit', 'cycle')
    """
    if len(frame.columns) < 2 or not 2 * LEAST_STEPS <= len(frame) <= MOST_ROWS:
        return None
    full = {n: c.data for n, c in frame.columns.items() if not np.ma.is_masked(c)}
    for group, codes in _ids(full, len(frame)):
        for order, values in _orders(full):
            if order != group and _increases(values, codes):
                return group, order
    for order, values in full.items():
        if values.dtype.kind == "M" and len(frame) >= LEAST_ROWS and _regular(values):
            others = [c for n, c in frame.columns.items() if n != order]
            if any(c.dtype.kind == "f" for c in others):
                return "", order
    return None


def hint(frame: Frame) -> list[str]:
    """Return a note for a table that is read row by row but looks like series.

    >>> from vaestro.data.tables import frame_of
    >>> hint(frame_of({"size": [0.5, 1.5, 2.5]}))
    []
    """
    likely = series_of(frame)
    if likely is None:
        return []
    group, order = likely
    named = f"{quoted(group) if group else ''}:{quoted(order)}"
    size = len(next(iter(frame.columns.values())))
    window = "" if group else f",window={max(2, min(128, size // 20))}"
    option = shlex.quote(f"series={named}{window}")
    return [f"each row is one datum, but the rows look like series: {option} reads them as such"]


def _ids(columns: dict[str, np.ndarray], n: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the columns that may name series, with the number of the id of each row."""
    candidates = [(name, v) for name, v in columns.items() if v.dtype.kind in "iuU"]
    for name, values in candidates[:MOST_COLUMNS]:
        ids, codes = np.unique(values, return_inverse=True)
        if 2 <= len(ids) <= n // LEAST_STEPS:
            yield name, codes.ravel()


def _orders(columns: dict[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the columns that may order rows."""
    candidates = [(name, v) for name, v in columns.items() if v.dtype.kind in "iuM"]
    for name, values in candidates[:MOST_COLUMNS]:
        yield name, values.astype(np.int64)


def _increases(values: np.ndarray, codes: np.ndarray) -> bool:
    """Return whether values increase within each id, and the ids have values in common."""
    rows = np.argsort(codes, kind="stable")
    values, codes = values[rows], codes[rows]
    within = np.diff(codes) == 0
    if not (np.diff(values)[within] > 0).all():
        return False
    # A number that also increases from one id to the next is a row number.
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    sizes = np.diff([*starts, len(codes)])
    shared = len(np.unique(values)) <= 0.7 * len(values) or (
        len(np.unique(values[starts])) <= max(1, len(starts) // 2)
    )
    return bool(shared and np.median(sizes) >= LEAST_STEPS)


def _regular(values: np.ndarray) -> bool:
    """Return whether dates increase by equal steps."""
    apart = np.diff(values.astype(np.int64))
    if not (apart > 0).all():
        return False
    return bool(np.unique(apart, return_counts=True)[1].max() >= REGULAR * len(apart))
