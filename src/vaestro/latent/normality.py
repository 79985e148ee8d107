"""How unusual vectors and numbers are among normal ones: whitened distances, and tails.

The distance of a vector r with the mean m and the covariance C of normal vectors is

    (r - m)' (C + a v I)^-1 (r - m)        v the mean variance of the numbers, a >= 0

With a = 0 it is the squared Mahalanobis distance, in which each direction counts by its own spread.
For large a it is the squared error, in which directions of large spread count most. If C is
replaced by its diagonal, cells count by their own spreads. Neither end is best for all data:
squared errors miss faults where normal rows vary little, and the Mahalanobis distance of data with
heavy tails depends on cells that are nearly constant.

`Whitening.fitted` chooses without labels: the distance that varies least, relative to its mean,
over normal rows that were not used to fit it. For Gaussian vectors this is the Mahalanobis
distance: sum(w_i s_i) has the least relative variance over w, for independent terms s_i of variance
proportional to their squared mean, at w_i = 1 / mean of s_i.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np

RIDGES = (0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 1e6)
LEAST = 1e-6  # smallest variance, relative to the mean variance
BODY = 0.9  # share of the reference below which the tail begins


@final
@dataclass(frozen=True, eq=False)
class Whitening:
    """Measure how far vectors of D numbers are from normal ones.

    Args:
        mean: (D,).
        axes: principal directions, (q, D); None if only the variances of the numbers are used.
        variances: of the normal vectors along the axes, (q,); of the numbers without axes, (D,).
        ridge: what is added to each variance.
        relative: `ridge` divided by the mean variance of the numbers, a in the formula.

    >>> x = np.random.default_rng(0).normal(size=(500, 3)) * [1, 1, 9]
    >>> fitted = Whitening.fitted(x)
    >>> fitted.distances(np.array([[0, 0, 9.0], [0, 9, 0]])).round(-1)
    array([ 0., 70.])
    """

    mean: np.ndarray
    axes: np.ndarray | None
    variances: np.ndarray
    ridge: float
    relative: float

    @classmethod
    def fitted(cls, x: np.ndarray, *, full: bool = True) -> Whitening:
        """Fit to normal vectors (N, D); the ridge is that whose distances vary least, relative to
        their mean, on the half of the vectors that was not used to fit.

        Args:
            x: the vectors.
            full: use the covariance, not only its diagonal.
        """
        halves = x[::2], x[1::2]
        pair = [cls._of(half, full=full) for half in halves]

        def spread(ridge: float) -> float:
            d = np.concatenate(
                [
                    half.with_ridge(ridge).distances(other)
                    for half, other in zip(pair, reversed(halves), strict=True)
                ]
            )
            return float(d.std() / max(float(d.mean()), 1e-300))

        return cls._of(x, full=full).with_ridge(min(RIDGES, key=spread))

    @classmethod
    def _of(cls, x: np.ndarray, *, full: bool) -> Whitening:
        centred = x - x.mean(0)
        if full:
            axes, variances = _components(centred)
            return cls(x.mean(0), axes, variances, 0.0, 0.0)
        return cls(x.mean(0), None, centred.var(0), 0.0, 0.0)

    @property
    def _typical(self) -> float:
        """Return the mean variance of the numbers."""
        return float(self.variances.sum()) / len(self.mean) or 1.0

    def with_ridge(self, relative: float) -> Whitening:
        """Return the same with another ridge, relative to the mean variance of the numbers."""
        ridge = max(relative, LEAST) * self._typical
        return replace(self, ridge=ridge, relative=relative)

    def weights(self) -> np.ndarray:
        """Return by what the squared deviation of each number is multiplied if they are taken one
        at a time, (D,)."""
        if self.axes is None:
            return 1 / (self.variances + self.ridge)
        own = (self.variances[:, None] * self.axes**2).sum(0)
        return np.asarray(1 / (own + self.ridge))

    def distances(self, x: np.ndarray) -> np.ndarray:
        """Return the distance of vectors (N, D), (N,)."""
        off = x - self.mean
        if self.axes is None:
            return np.asarray((off**2) @ self.weights())
        along = (off @ self.axes.T) ** 2
        rest = np.maximum((off**2).sum(1) - along.sum(1), 0)
        return np.asarray(along @ (1 / (self.variances + self.ridge)) + rest / self.ridge)


def _components(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return principal directions (q, D) of centred vectors (N, D), and their variances (q,)."""
    n, d = x.shape
    if d <= n:
        values, vectors = np.linalg.eigh(x.T @ x / n)
        return np.ascontiguousarray(vectors.T), np.maximum(values, 0)
    # of the smaller matrix of products between rows
    values, vectors = np.linalg.eigh(x @ x.T / n)
    kept = values > LEAST * max(float(values[-1]), 1e-300)
    return (vectors.T[kept] @ x) / np.sqrt(values[kept] * n)[:, None], values[kept]


def local_means(values: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    """Return the means over windows of 3 places along some axes; edges are repeated.

    >>> local_means(np.array([[0.0, 3.0, 0.0]]), [1])
    array([[1., 1., 1.]])
    """
    for axis in axes:
        n = values.shape[axis]
        middle = np.arange(n)
        parts = [values.take(np.clip(middle + shift, 0, n - 1), axis) for shift in (-1, 0, 1)]
        values = np.sum(parts, 0) / 3
    return values


@final
@dataclass(frozen=True, eq=False)
class Tail:
    """Represent the upper tail probability of a number among normal ones: their own up to the
    quantile BODY, exponential above it, so that it falls without end.

    Args:
        reference: numbers of normal rows in rising order, (n,).

    >>> Tail.of(np.arange(100.0)).evidence(np.array([-1.0, 50.0, 99.0, 500.0])).round(1)
    array([ 0. ,  0.7,  4.3, 93.4])
    """

    reference: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray) -> Tail:
        """Return the tail of numbers (n,)."""
        return cls(np.sort(values[np.isfinite(values)]))

    def evidence(self, values: np.ndarray) -> np.ndarray:
        """Return -log of the tail probability, (N,) in nats: 0 for small numbers."""
        ordered = self.reference
        n = len(ordered)
        first = min(n - 1, int(BODY * n))
        start, excess = ordered[first], ordered[first:] - ordered[first]
        scale = max(float(excess.mean()), 1e-9 * max(1.0, float(np.abs(ordered).max())))
        levels = 0.0 - np.log1p(-np.arange(first + 1) / n)
        body = np.interp(values, ordered[: first + 1], levels)
        return np.where(values > start, levels[-1] + (values - start) / scale, body)


def combined(evidence: Sequence[np.ndarray]) -> np.ndarray:
    """Return the sum of evidence, (N,) in nats, as in Fisher's combination of tests (1925).

    >>> combined([np.array([0.1, 3.0]), np.array([0.2, 1.0])]).round(1)
    array([0.3, 4. ])
    """
    return np.asarray(np.sum(evidence, 0))
