"""Write means of p(x | z) in the user's dtype, or as floats."""

from __future__ import annotations

import numpy as np

from vaestro.frames import Frame
from vaestro.spaces import Space
from vaestro.tokens import Texts

DTYPES = ("own", "float")


def check_dtype(dtype: str | None, *, draws: bool = False) -> None:
    """Raise ValueError if the dtype is not own or float, or if one is given for draws."""
    if dtype not in (None, *DTYPES):
        raise ValueError(f"expected dtype own or float; got {dtype!r}")
    if dtype is not None and draws:
        raise ValueError(
            f"expected dtype={dtype} for means; got it for draws, which are values of the data"
        )


def means(
    space: Space, x: np.ndarray, dtype: str | None = None, *, most_probable: bool = False
) -> np.ndarray | Frame | Texts:
    """Convert means of p(x | z), (N, *X) inside, to the user's layout and units: an array, a Frame,
    or Texts.

    Args:
        space: of the data.
        x: means; for categories and tokens the most probable codes.
        dtype: None converts to the user's dtype, which rounds if that is an integer dtype; binary
            arrays become probabilities. "own" rounds these too, to the more probable value. "float"
            rounds nothing, so levels, counts and numbers may lie off their grid. It is float32, or
            float64 if the user's values are float64 or need its precision.
        most_probable: whether `x` contains most probable codes instead of means.

    Raises:
        ValueError: the dtype is unknown, or is given for texts.
    """
    check_dtype(dtype)
    if dtype is not None and space.ragged:
        raise ValueError(f"expected no dtype for texts, which have no mean; got {dtype}")
    if most_probable or space.tabular or not space.has_mean:
        exact = most_probable or not space.has_mean or dtype != "float"
        return space.limited(space.outward(x, exact=exact))
    if dtype == "own" and space.probabilities:
        return space.outward(x)
    if dtype == "float" or (dtype is None and space.probabilities):
        return space.limited(space.outward(x, exact=False))
    own = space.outward(x, exact=False).astype(space.dtype) if space.floating else space.outward(x)
    return space.limited(own)


def rounding(space: Space, dtype: str | None = None) -> str:
    """Return a note on how `means` are rounded, or that they are probabilities, with the option
    that changes it; empty if neither is the case."""
    if not space.has_mean or dtype == "float":
        return ""
    if dtype is None and space.probabilities:
        return "each cell is a probability (--dtype own writes the more probable value)"
    if space.tabular:
        numbers = [c for c in space.columns if c.numeric]
        cut = any(c.resolution or np.dtype(c.dtype).kind in "iu" for c in numbers)
        return (
            "numbers are rounded to values of their columns (--dtype float writes unrounded means)"
            if cut
            else ""
        )
    if space.probabilities:
        return "each cell is the more probable value (--dtype float writes probabilities)"
    return (
        ""
        if space.floating
        else f"means are rounded to {space.dtype} (--dtype float writes unrounded means)"
    )
