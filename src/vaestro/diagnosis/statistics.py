"""Confidence intervals and tests for the rules of the diagnosis.

An absence is stated from an upper confidence limit; a presence from a lower limit or a test.

Sources: quantiles of Student's t by Hill (1970) and of chi-square by Wilson and Hilferty (1931);
order-statistic intervals of a median by Conover (1999, section 3.2); the rank test by Lehmann
(1975); the correction for several tests by Bonferroni.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import final

import numpy as np

LEVEL = 0.95  # confidence level of two-sided intervals
NORMAL = NormalDist()


def t_quantile(p: float, df: float) -> float:
    """Return the p-quantile of Student's t with df degrees of freedom; infinite if df is below 1.

    >>> round(t_quantile(0.975, 9), 3)
    2.262
    """
    if df < 1:
        return math.copysign(math.inf, p - 0.5)
    if p < 0.5:
        return -t_quantile(1 - p, df)
    if df == 1:
        return math.tan(math.pi * (p - 0.5))
    if df == 2:
        a = 2 * p - 1
        return a * math.sqrt(2 / (1 - a * a))
    # Hill (1970), Algorithm 396, for the two-sided probability 2 (1 - p).
    tail = 2 * (1 - p)
    a = 1 / (df - 0.5)
    b = 48 / a**2
    c = ((20700 * a / b - 98) * a - 16) * a + 96.36
    d = ((94.5 / (b + c) - 3) / b + 1) * math.sqrt(a * math.pi / 2) * df
    x = d * tail
    y = x ** (2 / df)
    if y > 0.05 + a:
        x = -NORMAL.inv_cdf(min(1 - 1e-16, 1 - tail / 2)) if tail < 1 else 0.0
        y = x * x
        if df < 5:
            c += 0.3 * (df - 4.5) * (x + 0.6)
        c = (((0.05 * d * x - 5) * x - 7) * x - 2) * x + b + c
        y = (((((0.4 * y + 6.3) * y + 36) * y + 94.5) / c - y - 3) / b + 1) * x
        y = math.expm1(min(700.0, a * y * y))
    else:
        y = (
            (1 / (((df + 6) / (df * y) - 0.089 * d - 0.822) * (df + 2) * 3) + 0.5 / (df + 4)) * y
            - 1
        ) * (df + 1) / (df + 2) + 1 / y
    return math.sqrt(df * y)


def variance_factor(n: int, level: float = LEVEL) -> float:
    """Return the factor from a sample variance of n numbers to its upper confidence limit:
    (n - 1) / chi-square quantile.

    >>> round(variance_factor(11), 1)
    3.1
    """
    df, p = n - 1, (1 - level) / 2
    if df < 1:
        return math.inf
    if df == 1:
        return 1 / NORMAL.inv_cdf((1 + p) / 2) ** 2
    if df == 2:
        return df / (-2 * math.log1p(-p))
    cube = 1 - 2 / (9 * df) + NORMAL.inv_cdf(p) * math.sqrt(2 / (9 * df))
    return 1 / cube**3 if cube > 0 else math.inf


def median_limits(x: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """Return a confidence interval of the median from order statistics.

    It is exact for any distribution, and infinite if n is too small.

    >>> median_limits(np.arange(20.0))
    (5.0, 14.0)
    """
    n, tail, below, r = len(x), (1 - level) / 2, 0.0, -1
    for k in range(n // 2 + 1):
        below += math.exp(
            math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2)
        )
        if below > tail:
            break
        r = k
    if r < 0:
        return -math.inf, math.inf
    ordered = np.sort(x)
    return float(ordered[r]), float(ordered[n - 1 - r])


def rank_test(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """Return the one-sided p-value of `own` being lower than `others`, over one or more data sets.

    If own and others are exchangeable, the rank of the own value of a datum among its R others is
    uniform (Lehmann 1975). Ties share their rank. The sum of the ranks of independent data is
    compared with its normal limit.

    Args:
        parts: (others (R, N), own (N,)) of each data set.

    >>> rank_test([(np.ones((5, 40)), np.zeros(40))]) < 1e-6
    True
    """
    excess = spread = 0.0
    for others, own in parts:
        r, n = others.shape
        excess += float((((others > own).sum(0) + 0.5 * (others == own).sum(0)) / r - 0.5).sum())
        spread += (r + 2) / (12 * r) * n
    return 0.5 * math.erfc(excess / math.sqrt(2 * spread)) if spread else 1.0


def combined(parts: Sequence[float], tests: Sequence[int]) -> float:
    """Return the combined p-value of independent sets of rows.

    Each p-value is multiplied by its number of tests (Bonferroni), then they are combined by
    Fisher's method (1932). Rows that were used to choose among 40 validations count as 40 tests.
    Rows that were not used for any choice count as one.

    >>> combined([0.02], [1]), combined([0.02], [40])
    (0.02, 0.8)
    """
    corrected = [min(1.0, p * max(1, count)) for p, count in zip(parts, tests, strict=True)]
    # half of a chi-square with 2 * len(parts) degrees of freedom
    half = -math.log(max(math.prod(corrected), 1e-300))
    terms = [half**i / math.factorial(i) for i in range(len(corrected))]
    return corrected[0] if len(corrected) == 1 else min(1.0, math.exp(-half) * math.fsum(terms))


@final
@dataclass(frozen=True)
class Paired:
    """A summary of n paired differences, in nats.

    Args:
        n: number of data.
        mean, stderr: mean difference and its standard error.
        low, high: confidence limits of the mean, by Student's t.
        median, median_low, median_high: median and its confidence limits, by order statistics.
        positive: share of positive differences.
        p: p-value of `rank_test`, corrected for the choice of the weights; None if not computed.

    >>> paired = Paired.of(np.array([1.0, 2.0, 3.0]))
    >>> paired.mean, round(paired.low, 2), paired.sure
    (2.0, -0.48, False)
    """

    n: int
    mean: float
    stderr: float
    low: float
    high: float
    median: float
    median_low: float
    median_high: float
    positive: float
    p: float | None = None

    @classmethod
    def of(cls, x: np.ndarray, *, p: float | None = None, level: float = LEVEL) -> Paired:
        """Summarise differences (N,)."""
        x = np.asarray(x, np.float64)
        n, mean = len(x), float(x.mean())
        error = float(x.std(ddof=1)) / math.sqrt(n) if n > 1 else math.inf
        reach = t_quantile(0.5 + level / 2, n - 1) * error if error else 0.0
        low, high = median_limits(x, level)
        return cls(
            n,
            mean,
            error,
            mean - reach,
            mean + reach,
            float(np.median(x)),
            low,
            high,
            float((x > 0).mean()),
            p,
        )

    @classmethod
    def normal(cls, mean: float, stderr: float, n: int) -> Paired:
        """Summarise differences of which only mean and standard error are known, as if normal."""
        error = stderr if math.isfinite(stderr) else math.inf
        reach = t_quantile(0.975, n - 1) * error if error else 0.0
        z = mean / error if error else math.copysign(math.inf, mean) if mean else 0.0
        limits = (mean - reach, mean + reach)
        return cls(
            n, mean, error, *limits, mean, *limits, NORMAL.cdf(z / math.sqrt(n)), NORMAL.cdf(-z)
        )

    @property
    def most(self) -> float:
        """Return the larger of the upper limits of mean and median. With heavy tails, either may be
        too low."""
        return max(self.high, self.median_high)

    @property
    def sure(self) -> bool:
        """Return whether the mean or the median is significantly above 0."""
        return self.low > 0 or self.median_low > 0

    def line(self) -> dict[str, float | int | None]:
        """Return the entry in diagnosis.json."""
        return {
            "n": self.n,
            "mean": self.mean,
            "stderr": self.stderr,
            "low": self.low,
            "high": self.high,
            "median": self.median,
            "positive": self.positive,
            "p": self.p,
        }
