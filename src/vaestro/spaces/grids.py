"""Grids that values lie on, and the dtypes that values are written in.

Real values on a grid (rounded to cents, or whole numbers read as real) have an unbounded density:
all mass on one grid point, and a variance that tends to zero. Such values are dequantised: spread
uniformly over the grid's cells, value + resolution * u with u on (-1/2, 1/2). No density of the
spread values can exceed what a cell contains (Theis, van den Oord and Bethge 2016).
"""

from __future__ import annotations

import numpy as np

Numbers = float | np.ndarray
LARGEST_COUNT = 2**24  # counts are float32, which has every whole number up to here
FINEST = 2.0**-22  # of the standard deviation: the finest step that float32 resolves
# of a standard deviation, or of the step between two levels: the allowed rounding of a mean
FINE = 1e-4


def rounded(numbers: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Round numbers into an integer dtype; numbers beyond its range become its limits.

    >>> rounded(np.array([1.6, 300.0]), np.dtype("uint8"))
    array([  2, 255], dtype=uint8)
    """
    limits = np.iinfo(dtype)
    highest = min(limits.max, 2**63 - 1024)  # the largest float64 below 2**63
    return np.clip(np.rint(numbers), limits.min, highest).astype(dtype)


def widths(resolution: Numbers, scale: Numbers) -> np.ndarray:
    """Return the width of the dequantisation noise, in the user's units.

    It is one step of the grid, or the fewest whole steps that float32 resolves. If the noise is
    several steps wide, the mean density of a cell, times one step, still sums to one over the grid.

    Args:
        resolution: steps of the grids in the user's units; 0 if there is none.
        scale: standard deviations in the user's units, broadcastable with `resolution`.

    >>> float(widths(0.01, 1.0))
    0.01
    """
    resolution, scale = np.asarray(resolution, np.float64), np.asarray(scale, np.float64)
    steps = np.ceil(FINEST * scale / np.where(resolution > 0, resolution, np.inf) - 0.01)
    return np.asarray(resolution * np.maximum(1.0, steps))


def onto_grid(numbers: np.ndarray, step: Numbers, origin: Numbers, atoms: Numbers) -> np.ndarray:
    """Return numbers rounded to a grid. If values only repeat (`atoms`), those in the cell of the
    most frequent value become that value, and the others stay.

    >>> onto_grid(np.array([0.24, 0.9]), 0.5, 0.0, False)
    array([0., 1.])
    """
    cells = np.rint((numbers - origin) / step)
    return np.where(np.asarray(atoms) & (cells != 0), numbers, cells * step + origin)


def nearest(numbers: np.ndarray, step: Numbers, origin: Numbers) -> np.ndarray:
    """Return the nearest grid point of each number.

    >>> nearest(np.array([0.6, 1.2]), 0.5, 0.0)
    array([0.5, 1. ])
    """
    return np.asarray(np.rint((numbers - origin) / step) * step + origin)
