"""Values of arrays that are codes: numbers that mean a missing cell, and one-hot vectors."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from vaestro.text import Value

NINES = re.compile(r"-?([789])\1+(\.\1+)?")  # such as -9999
HUGE = 1e15  # size from which powers of ten are codes, such as 1e20
# distance of a code, and of any other repeated value, from the data, in ranges of the data
FAR, FARTHER = 3.0, 100.0
HALF = 0.5  # smallest share of one-hot vectors; the others are zero, as after the end of a text


def code_notes(ends: Sequence[float], rows: np.ndarray, dtype: np.dtype) -> list[str]:
    """Return a note on each extreme value that probably means a missing cell, such as -9999.

    Args:
        ends: the smallest and the largest value of all rows.
        rows: some rows.
        dtype: of the array.

    >>> rows = np.array([[0.5], [1.5], [-9999.0], [-9999.0]])
    >>> code_notes((-9999.0, 1.5), rows, rows.dtype)
    ['the value -9999 lies far outside of the others (missing=-9999 reads it as missing)']
    """
    cells, notes = rows.reshape(len(rows), -1), []
    for end in dict.fromkeys(ends):
        if not np.isfinite(end):
            continue
        away = _distance(cells, end)
        word = np.format_float_positional(dtype.type(end), trim="-") if abs(end) < HUGE else ""
        word = word or str(dtype.type(end)).replace("e+", "e")
        repeated = np.count_nonzero(cells == end) >= 2
        if (away > FAR and _is_code(word, end, dtype)) or (away > FARTHER and repeated):
            notes.append(
                f"the value {word} lies far outside of the others (missing={word} reads it as "
                f"missing)"
            )
    return notes


def _distance(cells: np.ndarray, value: float) -> float:
    """Return how far a value lies outside of the other values of the cells that have it, in ranges
    of these values: the median over cells.

    Args:
        cells: some rows, (n, cells).
        value: the value.
    """
    has = cells == value
    chosen = has.any(0) if has.any() else np.ones(cells.shape[1], bool)
    chosen &= (np.isfinite(cells) & ~has).sum(0) >= 2
    others = np.where(has | ~np.isfinite(cells), np.nan, cells)[:, chosen]
    if not others.size:
        return 0.0
    low, high = np.nanquantile(others, [0.01, 0.99], axis=0)
    low, high = low[high > low], high[high > low]
    apart = np.maximum(low - value, value - high) / (high - low)
    return float(np.median(apart)) if apart.size else 0.0


def _is_code(word: str, value: float, dtype: np.dtype) -> bool:
    """Return whether a number looks like a code: -9999, 1e20, or the limit of a dtype."""
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        limits = {float(info.min), float(info.max)} - {0.0}
    else:
        limits = {s * float(np.finfo(t).max) for s in (-1, 1) for t in (np.float32, np.float64)}
    power = abs(value) >= HUGE and float(f"{value:.0e}") == float(f"{value:.6g}")
    return NINES.fullmatch(word) is not None or value in limits or power


def onehot_axis(rows: np.ndarray) -> int | None:
    """Return the axis of a datum along which an array is one-hot: zeros and a single 1, or zeros
    alone, as after the end of a text; None without such an axis.

    Args:
        rows: some rows, (n, *outside).

    >>> onehot_axis(np.eye(4)[np.array([[0, 1, 3], [2, 2, 1]])])
    1
    """
    if rows.ndim < 2 or not np.isin(rows, (0, 1)).all():
        return None
    for axis in range(rows.ndim - 1, 0, -1):
        sums = rows.sum(axis)
        if rows.shape[axis] > 1 and sums.max() <= 1 and sums.mean() >= HALF:
            return axis - 1
    return None


def asked_axis(rows: np.ndarray, asked: Value, name: str) -> int | None:
    """Return the one-hot axis of a datum that onehot= names; None if it is false.

    Args:
        rows: some rows, (n, *outside).
        asked: true, false, or the number of an axis of the array.
        name: of the source, for messages.

    Raises:
        ValueError: there is no such axis, or the values along it are not one-hot.

    >>> asked_axis(np.eye(4)[None], -1, "x.npy")
    1
    """
    if asked is False:
        return None
    if asked is True:
        axis = onehot_axis(rows)
    else:
        axis = int(str(asked))
        axis = axis - 1 if axis > 0 else axis + rows.ndim - 1
        if not 0 <= axis < rows.ndim - 1:
            raise ValueError(
                f"expected onehot= to be an axis of {name} from 1 to {rows.ndim - 1}; got {asked}"
            )
        if rows[np.isfinite(rows)].size and not np.isin(rows[np.isfinite(rows)], (0, 1)).all():
            axis = None
    if axis is not None:
        return axis
    finite = rows[np.isfinite(rows)]
    other = finite[(finite != 0) & (finite != 1)]
    if not other.size:
        raise ValueError(
            f"expected zeros and a single 1 along an axis of {name} for onehot=true; got several "
            f"ones along each axis"
        )
    soft = ((finite >= 0) & (finite <= 1)).all()
    hint = " (of probabilities, x.argmax(axis) gives the most probable category)" if soft else ""
    raise ValueError(
        f"expected zeros and a single 1 along an axis of {name} for onehot=; got {other[0]:g}{hint}"
    )
