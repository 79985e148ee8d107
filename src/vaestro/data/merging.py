"""Fill the empty cells of a user's column. Observed cells keep the user's values, bit for bit."""

from __future__ import annotations

import numpy as np

from vaestro.spaces import rounded


def merged_column(column: np.ma.MaskedArray, imputed: np.ma.MaskedArray) -> np.ma.MaskedArray:
    """Return a column whose empty cells are filled.

    Args:
        column: the user's column, (N,).
        imputed: values for all cells, (N,).

    Returns:
        the column, (N,), in the user's dtype if it can represent the imputed values.

    Raises:
        ValueError: the columns have values of different types.

    >>> column = np.ma.MaskedArray([1, 2, 0], [False, False, True])
    >>> merged_column(column, np.ma.MaskedArray([1, 2, 3])).tolist()
    [1, 2, 3]
    """
    holes, values = np.ma.getmaskarray(column), np.asarray(column.data)
    if not holes.any():
        return column
    if holes.all():
        return imputed
    fills = np.asarray(imputed.data)[holes]
    kinds = {values.dtype.kind, fills.dtype.kind}
    if kinds <= set("biuf"):
        dtype = _common_dtype(values[~holes], fills)
        fills = (
            rounded(fills, dtype)
            if dtype.kind in "iu" and fills.dtype.kind == "f"
            else fills.astype(dtype)
        )
    # text or dates: the longer text, or the finer unit, if the user's dtype is too short
    elif len(kinds) == 1:
        kept = fills.astype(values.dtype)
        dtype = (
            values.dtype if (kept == fills).all() else np.promote_types(values.dtype, fills.dtype)
        )
    else:
        raise ValueError(
            f"expected {values.dtype} to fill empty cells of {values.dtype}; got {fills.dtype}"
        )
    out = values.astype(dtype)
    out[holes] = fills
    return np.ma.MaskedArray(out)


def _common_dtype(observed: np.ndarray, fills: np.ndarray) -> np.dtype:
    """Return the dtype for observed and imputed numbers: the user's, unless it cannot represent the
    imputed ones."""
    if observed.dtype.kind == "f":
        return observed.dtype
    limits = (
        (0, 1)
        if observed.dtype.kind == "b"
        else (np.iinfo(observed.dtype).min, np.iinfo(observed.dtype).max)
    )
    if ((fills >= limits[0]) & (fills <= limits[1]) & (fills == np.rint(fills))).all():
        return observed.dtype
    wider = np.promote_types(observed.dtype, fills.dtype)
    return (
        wider
        if (observed.astype(wider).astype(observed.dtype) == observed).all()
        else observed.dtype
    )
