"""Test a mean difference, and correct p-values for the number of pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence

LEVEL = 0.05  # probability of any significant difference in a comparison of equal models
FEWEST = 10  # paired data; with fewer, the standard error is too uncertain


def p_value(difference: float, error: float, freedom: float) -> float:
    """Return the two-sided p-value of a mean difference under Student's t.

    Args:
        difference: the mean.
        error: its standard error.
        freedom: degrees of freedom of the error.

    >>> round(p_value(2.0, 1.0, 9), 4)
    0.0766
    """
    if not math.isfinite(difference) or math.isnan(error):
        return 1.0
    if not error:
        return 0.0 if difference else 1.0
    t = difference / error
    return incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm 1979).

    If those below LEVEL are called significant, the probability of any false call is at most LEVEL.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected, largest = [1.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected


def incomplete_beta(a: float, b: float, x: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b), by its continued fraction (Press
    et al., Numerical Recipes, 6.4).

    >>> round(incomplete_beta(2, 3, 0.5), 4)
    0.6875
    """
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - incomplete_beta(b, a, 1 - x)
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, 500):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d, c = 1 / (1 + term * d), 1 + term / c
            value *= d * c
        if abs(d * c - 1) < 1e-14:
            break
    return front * value / a
