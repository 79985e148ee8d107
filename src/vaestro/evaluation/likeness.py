"""Are data that are drawn from the model like the data?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

ALIKE = 0.25  # largest distance from 1/2 of the chance that simulated data have a larger number


def likeness(chances: Sequence[float], m: int, n: int) -> bool | None:
    """Return whether two samples of m and n numbers are similar; None for too few numbers.

    They are similar if every chance is within 1/4 of 1/2, by a margin of two standard errors. They
    are not similar if one chance is further from 1/2 than 1/4 and than three standard errors.

    Args:
        chances: Mann-Whitney statistics of the two samples, as from `chance_above`.
        m, n: sizes of the samples.

    >>> likeness([0.5], 400, 400), likeness([0.9], 400, 400), likeness([0.5], 5, 5)
    (True, False, None)
    """
    off = max(abs(chance - 0.5) for chance in chances)
    # the standard error for samples of one distribution
    error = math.sqrt((m + n + 1) / (12 * m * n))
    return False if off > max(ALIKE, 3 * error) else True if off + 2 * error <= ALIKE else None


def chance_above(a: np.ndarray, b: np.ndarray) -> float:
    """Return the probability that a number of `a` is above one of `b`. A tie counts as one half.

    Source: Mann and Whitney (1947).

    >>> chance_above(np.array([1.0, 2.0]), np.array([1.0, 0.0]))
    0.875
    """
    order = np.sort(b)
    below, upto = np.searchsorted(order, a, "left"), np.searchsorted(order, a, "right")
    return float((below + upto).mean() / (2 * len(b)))
