"""Numbers that mean an empty cell, such as -9999 or infinity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from vaestro.data.formats.words import few_odd
from vaestro.frames import Frame

# what programs write for a number that was not measured
CODES = (
    *(s * int(d * n) for d in "9" for n in range(1, 8) for s in (-1, 1)),
    *(-1, -8, -88, -888, 888, 8888, 98, 998, -32768, 32767, 65535, -2147483648, 2147483647),
    *(s * v for v in (1e20, 1e30, 1e35, 1e36, 1e38) for s in (-1, 1)),
)
FILL = 9.9692099683868690e36  # of netCDF
LARGEST = 1e19  # larger numbers are codes for empty cells if they repeat
ROWS = 3  # largest number of rows in a note


def without_missing(
    splits: Mapping[str, Frame], missing: Sequence[float]
) -> tuple[dict[str, Frame], list[str]]:
    """Return tables in which some numbers are empty cells, and notes.

    Infinite numbers are empty cells if they are few (`few_odd`).

    Args:
        splits: the tables.
        missing: the numbers that mean an empty cell; infinity means both signs.

    >>> frame = Frame({"a": np.ma.array([1.0, -99.0])})
    >>> without_missing({"all": frame}, [-99.0])[0]["all"].columns["a"].tolist()
    [1.0, None]
    """
    notes = []
    tables = {s: dict(frame.columns) for s, frame in splits.items()}
    for name in dict.fromkeys(n for columns in tables.values() for n in columns):
        parts = {s: c[name] for s, c in tables.items() if name in c and c[name].dtype.kind in "iuf"}
        gone = {s: _equal(np.ma.getdata(cells), missing) for s, cells in parts.items()}
        rows = infinite_rows({s: np.ma.MaskedArray(c, gone[s]) for s, c in parts.items()})
        full = sum(int((~np.ma.getmaskarray(c) & ~gone[s]).sum()) for s, c in parts.items())
        if rows and few_odd(full - len(rows), {"inf": len(rows)}):
            notes.append(f"{name}: {infinite_cells(rows)}, taken as empty")
            gone = {s: gone[s] | np.isinf(np.ma.getdata(c)) for s, c in parts.items()}
        for s, cells in parts.items():
            if gone[s].any():
                data = np.where(gone[s], 0, np.ma.getdata(cells)).astype(cells.dtype)
                tables[s][name] = np.ma.MaskedArray(data, np.ma.getmaskarray(cells) | gone[s])
    return {s: replace(f, columns=tables[s]) for s, f in splits.items()}, notes


def infinite_rows(parts: Mapping[str, np.ma.MaskedArray]) -> list[str]:
    """Return the numbers of the rows in which a column is infinite, with their split if there are
    several.

    >>> infinite_rows({"all": np.ma.array([1.0, np.inf])})
    ['2']
    """
    return [
        f"{i + 1:,}" if len(parts) == 1 else f"{i + 1:,} of {split}"
        for split, cells in parts.items()
        if cells.dtype.kind == "f"
        for i in np.flatnonzero(np.isinf(cells.data) & ~np.ma.getmaskarray(cells)).tolist()
    ]


def infinite_cells(rows: Sequence[str]) -> str:
    """Return the number of infinite cells and their first rows in words.

    >>> infinite_cells(["2"])
    '1 infinite number in row 2'
    """
    more = f" and {len(rows) - ROWS:,} more" if len(rows) > ROWS else ""
    many = "1 infinite number" if len(rows) == 1 else f"{len(rows):,} infinite numbers"
    return f"{many} in row{'s' if len(rows) > 1 else ''} {', '.join(rows[:ROWS])}{more}"


def _equal(data: np.ndarray, missing: Sequence[float]) -> np.ndarray:
    """Return which numbers mean an empty cell, also if they were rounded to float32."""
    gone = np.zeros(len(data), bool)
    for value in missing:
        if np.isinf(value):
            gone |= np.isinf(data)
        elif data.dtype.kind == "f":
            with np.errstate(over="ignore"):
                gone |= data == np.array(value, data.dtype)
        else:
            gone |= data == value
    return gone


def sentinel(values: np.ndarray, times: np.ndarray) -> float | None:
    """Return a number of a column that looks like a code for an empty cell.

    It is the smallest or the largest number, a usual code (-1, 999, -9999, 1e30), and farther from
    all others than these are from each other; or it is the only negative one and repeats.

    Args:
        values: the distinct numbers, sorted.
        times: how often each occurs.

    >>> sentinel(np.array([-9999, 1, 5, 7]), np.array([3, 1, 1, 1]))
    -9999.0
    """
    if len(values) < 4 or values.dtype.kind not in "iuf":
        return None
    numbers = values.astype(np.float64)
    for code, rest, n in (
        (numbers[0], numbers[1:], times[0]),
        (numbers[-1], numbers[:-1], times[-1]),
    ):
        usual = code in CODES or (n > 1 and abs(code) > LARGEST) or np.isclose(code, FILL)
        width = rest[-1] - rest[0]
        gap = min(abs(code - rest[0]), abs(code - rest[-1]))
        alone = code in (-1, -9, -99) and code == numbers[0] and rest[0] >= 0 and n > 1
        if usual and (gap > width or (alone and len(rest) >= 10)):
            return float(code)
    return None
