"""Decide whether whole numbers are counts, or real values on a grid of 1.

A negative binomial is never narrower than a Poisson of the same mean. If ages, years or heights are
read as counts, the bound loses nats that no decoder can regain. The loss grows without limit as the
other columns predict them better. Counts read as real values on a grid lose hundredths of a nat if
they are far from 0. Numbers are therefore counts unless the training rows contradict it.
"""

from __future__ import annotations

import math

import numpy as np
import torch

LIMIT = 0.5  # a lower limit above this number of standard deviations is far from 0
WIDER = 1.5  # a variance above this multiple of the mean is not a Poisson's
NORMAL = 5.0  # a Poisson with a mean above this number of standard deviations is nearly normal
TAIL = 0.005  # share of the values that may be below the lower limit
# a few values beyond this number of interquartile ranges from the median are ignored as errors
FAR = 10.0
CLEARLY = 3.0  # smallest advantage of a normal, in standard errors
LEAST = 0.01  # smallest advantage of a normal, in nats per value


def why_no_counts(values: np.ndarray, times: np.ndarray) -> str | None:
    """Return why whole numbers of 0 or more are not counts, in words; None if they can be counts.

    Args:
        values: distinct whole numbers of the training rows, sorted.
        times: how often each occurs.
    """
    values, times = values.astype(np.float64), times.astype(np.float64)
    keep = ~_outliers(values, times)
    values, times = values[keep], times[keep]
    total = times.sum()
    if len(values) < 2:
        return None
    mean = float(np.average(values, weights=times))
    variance = float(np.average((values - mean) ** 2, weights=times))
    ratio, degrees = variance / mean, max(1.0, total - 1)
    # Under a Poisson, (n - 1) variance / mean is chi-square; its cube root is nearly normal (Wilson
    # and Hilferty 1931).
    z = (ratio ** (1 / 3) - (1 - 2 / (9 * degrees))) / math.sqrt(2 / (9 * degrees))
    if ratio < 0.9 and z < -CLEARLY:
        return f"variance {_short(variance)} below the mean {_short(mean)}"
    lowest = _quantile(values, times, TAIL)
    deviation = math.sqrt(variance)
    # A Poisson of a moderate mean is never near 0 either, but its variance is its mean.
    if lowest >= 2 and lowest > LIMIT * deviation and (ratio > WIDER or mean > NORMAL * deviation):
        return f"lower limit {lowest:,.0f} far from 0"
    gain = _log_normal(values, mean, variance) - _log_negative_binomial(values, mean, variance)
    better = float(np.average(gain, weights=times))
    error = math.sqrt(float(np.average((gain - better) ** 2, weights=times)) / total)
    if better > LEAST and better > CLEARLY * error:
        return "a normal fits better than a negative binomial"
    return None


def why_not_all_counts(rows: np.ndarray) -> str | None:
    """Return why the cells of an array (n, columns) are not counts; None if at least 9 of 10
    columns can be counts."""
    columns = np.unique(np.linspace(0, rows.shape[1] - 1, min(200, rows.shape[1])).astype(int))
    reasons = {}
    varying = 0
    for i in columns:
        column = rows[:, i]
        values, times = np.unique(
            column[~np.isnan(column)] if column.dtype.kind == "f" else column, return_counts=True
        )
        if len(values) > 1:
            varying += 1
            if (why := why_no_counts(values, times)) is not None:
                reasons[int(i)] = why
    if len(reasons) <= 0.1 * varying:
        return None
    first = next(iter(reasons))
    return reasons[first] if rows.shape[1] == 1 else f"column {first}: {reasons[first]}"


def _outliers(values: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Return which distinct values are far from the bulk; none if they are more than one row in
    100."""
    low, middle, high = (_quantile(values, times, q) for q in (0.25, 0.5, 0.75))
    far = np.abs(values - middle) > FAR * max(1.0, high - low)
    return far if times[far].sum() <= max(1.0, 0.01 * times.sum()) else np.zeros(len(values), bool)


def _quantile(values: np.ndarray, times: np.ndarray, q: float) -> float:
    return float(
        values[
            min(
                len(values) - 1,
                int(np.searchsorted(np.cumsum(times), q * times.sum(), side="right")),
            )
        ]
    )


def _log_normal(values: np.ndarray, mean: float, variance: float) -> np.ndarray:
    variance += 1 / 12  # of the values plus uniform noise of width 1
    return -0.5 * ((values - mean) ** 2 / variance + math.log(2 * math.pi * variance))


def _log_negative_binomial(values: np.ndarray, mean: float, variance: float) -> np.ndarray:
    """Return log-probabilities under the negative binomial of these moments; the Poisson if the
    variance is not above the mean."""
    x = torch.from_numpy(values)
    if variance <= mean * (1 + 1e-6):
        return (x * math.log(mean) - mean - torch.lgamma(x + 1)).numpy()
    size = mean**2 / (variance - mean)
    choices = torch.lgamma(x + size) - math.lgamma(size) - torch.lgamma(x + 1)
    return (
        choices + size * math.log(size / (size + mean)) + x * math.log(mean / (size + mean))
    ).numpy()


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.2g}"
