"""Fill the empty cells of a user's column: observed cells keep the user's values, bit for bit."""

from __future__ import annotations

import numpy as np

from vaestro.spaces import rounded


def merged_column(own: np.ma.MaskedArray, made: np.ma.MaskedArray) -> np.ma.MaskedArray:
    """Return a column (N,) with its empty cells taken from `made`, in the user's dtype wherever
    that holds what is filled in."""
    holes, values = np.ma.getmaskarray(own), np.asarray(own.data)
    if not holes.any():
        return own
    if holes.all():
        return made
    fills = np.asarray(made.data)[holes]
    kinds = {values.dtype.kind, fills.dtype.kind}
    if kinds <= set("biuf"):
        dtype = _holding(values[~holes], fills)
        fills = (
            rounded(fills, dtype)
            if dtype.kind in "iu" and fills.dtype.kind == "f"
            else fills.astype(dtype)
        )
    # text, or dates: the longer text, or the finer unit, where the user's is too short
    elif len(kinds) == 1:
        kept = fills.astype(values.dtype)
        dtype = (
            values.dtype if (kept == fills).all() else np.promote_types(values.dtype, fills.dtype)
        )
    else:
        raise ValueError(
            f"expected to fill cells of {values.dtype} with the same; got {fills.dtype}"
        )
    out = values.astype(dtype)
    out[holes] = fills
    return np.ma.MaskedArray(out)


def _holding(own: np.ndarray, fills: np.ndarray) -> np.dtype:
    """Return the dtype for observed numbers and those that are filled in: the user's, unless it
    cannot hold the latter."""
    if own.dtype.kind == "f":
        return own.dtype
    limits = (0, 1) if own.dtype.kind == "b" else (np.iinfo(own.dtype).min, np.iinfo(own.dtype).max)
    if ((fills >= limits[0]) & (fills <= limits[1]) & (fills == np.rint(fills))).all():
        return own.dtype
    wider = np.promote_types(own.dtype, fills.dtype)
    return wider if (own.astype(wider).astype(own.dtype) == own).all() else own.dtype
