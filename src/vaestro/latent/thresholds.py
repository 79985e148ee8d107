"""A threshold for a stated rate of false alarms, from the scores of normal rows.

Let s_(r) be the r-th smallest of n scores of normal rows. If rows are independent and their scores
continuous, the share of normal rows above s_(r) has the distribution Beta(n - r + 1, r) for every
distribution of scores (Wilks 1941). Its mean is (n - r + 1) / (n + 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np

from vaestro.files import Json

LEVEL = 0.95  # coverage of intervals


@final
@dataclass(frozen=True)
class Threshold:
    """Hold a threshold.

    Args:
        rate: the rate of false alarms that was asked for.
        n: number of normal rows.
        value: the threshold: the smallest order statistic whose expected rate is at most `rate`;
            None if n is too small for one.
        low, high: of the interval that contains the rate of new normal rows with probability 0.95.
        needed: the least n.

    >>> threshold(np.arange(999.0), 0.01).value
    989.0
    """

    rate: float
    n: int
    value: float | None
    low: float
    high: float
    needed: int

    def sentence(self) -> str:
        """Return the threshold in words.

        >>> threshold(np.arange(20.0), 0.01).sentence()
        'threshold: not enough data to tell: a rate of 1% needs 99 or more normal rows; got 20'
        """
        if self.value is None:
            return (
                f"threshold: not enough data to tell: a rate of {percent(self.rate)} needs "
                f"{self.needed:,} or more normal rows; got {self.n:,}"
            )
        return (
            f"threshold {self.value:.6g}: false alarms in {percent(self.rate)} of normal rows (95% "
            f"interval {percent(self.low)} to {percent(self.high)}, from {self.n:,} rows)"
        )

    def record(self) -> dict[str, Json]:
        """Return the fields for JSON."""
        return {
            "rate": self.rate,
            "n": self.n,
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "needed": self.needed,
        }


def percent(share: float) -> str:
    """Return a share in percent, with two significant digits.

    >>> percent(0.01), percent(0.00412), percent(0.25)
    ('1%', '0.41%', '25%')
    """
    return f"{float(f'{100 * share:.2g}'):g}%"


def threshold(scores: np.ndarray, rate: float) -> Threshold:
    """Return the threshold above which a share `rate` of normal rows lies, at most, on average.

    Args:
        scores: of n normal rows that the model and the score have not used, (n,).
        rate: the rate of false alarms, in (0, 1).

    Raises:
        ValueError: the rate is outside of (0, 1).

    >>> found = threshold(np.random.default_rng(0).normal(size=1000), 0.05)
    >>> round(found.low, 3), round(found.high, 3)
    (0.037, 0.064)
    """
    if not 0 < rate < 1:
        raise ValueError(f"expected a rate of false alarms between 0 and 1; got {rate:g}")
    n = len(scores)
    needed = math.ceil(1 / rate - 1 - 1e-9)
    above = math.floor((n + 1) * rate + 1e-9)  # n - r + 1
    if above < 1:
        return Threshold(rate, n, None, math.nan, math.nan, needed)
    r = n - above + 1
    low, high = (beta_quantile(p, above, r) for p in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Threshold(rate, n, float(np.sort(scores)[r - 1]), low, high, needed)


def beta_quantile(p: float, a: int, b: int) -> float:
    """Return the quantile p of a Beta(a, b) distribution with whole a and b.

    The probability of Beta(a, b) <= x is that of a or more successes in a + b - 1 trials of
    probability x (Clopper and Pearson 1934).

    >>> round(beta_quantile(0.5, 1, 1), 6), round(beta_quantile(0.975, 1, 99), 4)
    (0.5, 0.0366)
    """
    trials = a + b - 1
    k = np.arange(a, trials + 1)
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, trials + 1)))])
    ways = logs[trials] - logs[k] - logs[trials - k]
    low, high = 0.0, 1.0
    for _ in range(60):
        x = (low + high) / 2
        reached = np.exp(ways + k * math.log(x) + (trials - k) * math.log1p(-x)).sum()
        low, high = (x, high) if reached < p else (low, x)
    return (low + high) / 2
