"""Find single values so far from the rest that they are probably typing errors.

A heavy tail has large values too, but its logarithmic spacings are similar. If the tail is a power
law, i (log d_i - log d_(i+1)), with d_1 the largest distance from the median, are independent
exponential variables of one mean (Renyi 1953). The mean of k of them is Hill's estimate (1975). A
gap above the tail, divided by that mean, therefore has a known distribution for every index of the
tail. Lighter tails have smaller spacings towards the end, so that the test is conservative
for them.
"""

from __future__ import annotations

import math

import numpy as np

FAR = 10.0  # smallest distance of an isolated value, in interquartile ranges from the median
CHANCE = 1e-5  # largest p-value of a gap under a power-law tail
MOST = 3  # largest number of isolated values
ROWS_EACH = 200  # smallest number of rows per isolated value after the first
FEWEST = 30  # smallest number of rows
# smallest and largest number of spacings of the tail; between them one in 10 rows
SPACINGS = 12, 50


def distances(values: np.ndarray) -> np.ndarray:
    """Return how many interquartile ranges each number (n,) lies from the median, (n,); zeros if
    that range is 0."""
    numbers = values.astype(np.float64)
    low, middle, high = np.quantile(numbers, (0.25, 0.5, 0.75), method="nearest")
    return np.abs(numbers - middle) / (high - low) if high > low else np.zeros(len(numbers))


def isolated_values(values: np.ndarray) -> np.ndarray:
    """Return the rows of at most three isolated values, the farthest first, (m,).

    Args:
        values: numbers (n,), with repetitions.
    """
    count = len(values)
    if count < FEWEST:
        return np.zeros(0, np.int64)
    apart = distances(values)
    spacings = min(max(SPACINGS[0], count // 10), SPACINGS[1])
    most = min(MOST, 1 + count // ROWS_EACH)
    top = np.argpartition(apart, count - spacings - most - 1)[count - spacings - most - 1 :]
    top = top[np.argsort(-apart[top], kind="stable")]
    if apart[top[0]] <= FAR or apart[top[-1]] <= 0:
        return np.zeros(0, np.int64)
    ranks = np.arange(1, len(top))
    gaps = -ranks * np.diff(np.log(apart[top]))
    # the mean of k exponential variables is below 1 / limit of another
    limit = spacings * (CHANCE ** (-1 / spacings) - 1)
    for rank in range(most, 0, -1):
        tail = gaps[rank : rank + spacings].mean()
        if apart[top[rank - 1]] > FAR and gaps[rank - 1] > max(limit * tail, math.log(2)):
            return top[:rank]
    return np.zeros(0, np.int64)
