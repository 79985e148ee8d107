"""The values of an array that mean a missing cell: NaN, infinity, and numbers such as -9999."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def missing_cells(values: np.ndarray, absent: Sequence[str]) -> np.ndarray | None:
    """Return which cells are missing; None if none is.

    Args:
        values: numbers of any shape.
        absent: the values other than NaN that mean a missing cell, as text. "inf" is infinity of
            both signs.

    >>> missing_cells(np.array([1.0, -9999.0, np.nan]), ["-9999"]).tolist()
    [False, True, True]
    """
    floating = values.dtype.kind == "f"
    if not absent and not floating:
        return None
    missing = np.isnan(values) if floating else np.zeros(values.shape, bool)
    for word in absent:
        if word == "inf":
            missing |= np.isinf(values)
        elif (value := as_value(word, values.dtype)) is not None:
            missing |= values == value
    return missing if missing.any() else None


def as_value(word: str, dtype: np.dtype) -> np.generic | None:
    """Return a number in text as a value of a dtype; None if the dtype does not have it.

    >>> as_value("-9999", np.dtype(np.uint8)) is None
    True
    """
    number = float(word)
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return dtype.type(number)
    if dtype.kind == "b" or number != int(number):
        return None
    info = np.iinfo(dtype)
    return dtype.type(int(number)) if info.min <= number <= info.max else None


def with_gaps(values: np.ndarray, absent: Sequence[str]) -> np.ndarray:
    """Return an array with NaN in its missing cells; unchanged if none is missing.

    >>> with_gaps(np.array([1, -9]), ["-9"])
    array([ 1., nan])
    """
    missing = missing_cells(values, absent)
    if missing is None:
        return values
    return np.where(missing, np.nan, values.astype(np.result_type(values.dtype, np.float16)))
