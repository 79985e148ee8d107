"""Exact nearest neighbours of a code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np

BLOCK = 2**20  # numbers of codes that are compared together
METRICS = ("euclidean", "posterior")


@final
@dataclass(frozen=True, eq=False)
class Neighbours:
    """Hold the nearest neighbours of a datum.

    Args:
        rows: their row numbers, (K,), the nearest first.
        distances: their distances, (K,).
        metric: of the distances.
        searched: number of codes that were compared.
        attributes: of these rows by name, each (K,).

    >>> Neighbours(np.array([4, 2]), np.array([0.5, 1.0]), "euclidean", 10, {}).lines()
    ['row       distance', '4         0.5', '2         1']
    """

    rows: np.ndarray
    distances: np.ndarray
    metric: str
    searched: int
    attributes: Mapping[str, np.ndarray]

    def lines(self) -> list[str]:
        """Return a table in words."""
        cells = {name: values.astype(str).tolist() for name, values in self.attributes.items()}
        lines = [f"{'row':10}{'distance':12}{'  '.join(cells)}".rstrip()]
        for i, (row, distance) in enumerate(zip(self.rows, self.distances, strict=True)):
            further = "  ".join(values[i] for values in cells.values())
            lines.append(f"{row:<10}{f'{distance:.4g}':12}{further}".rstrip())
        return lines

    def columns(self) -> dict[str, np.ndarray]:
        """Return the table by column."""
        return {"row": self.rows, "distance": self.distances, **self.attributes}


def nearest(
    mean: np.ndarray,
    query: np.ndarray,
    k: int,
    *,
    logvar: np.ndarray | None = None,
    query_logvar: np.ndarray | None = None,
    metric: str = "euclidean",
) -> tuple[np.ndarray, np.ndarray]:
    """Return the K nearest codes and their distances, each (K,), by comparing all.

    Args:
        mean: the codes, (N, *Z), possibly memory-mapped; a block of them is read at a time.
        query: a code, (*Z).
        k: number of neighbours.
        logvar, query_logvar: the log-variances of q(z | x), for the metric posterior.
        metric: "euclidean", between means; or "posterior", the symmetric KL (Jeffreys divergence)
            between the diagonal normal posteriors, in nats.

    Raises:
        ValueError: k is not from 1 to N, the metric is unknown, or there are no log-variances.

    >>> rows, distances = nearest(np.array([[0.0], [5.0], [2.0]]), np.array([1.9]), 2)
    >>> rows.tolist(), distances.round(2).tolist()
    ([2, 0], [0.1, 1.9])
    """
    if not 1 <= k <= len(mean):
        raise ValueError(f"expected -k from 1 to {len(mean):,}; got {k}")
    if metric not in METRICS:
        raise ValueError(f"expected a metric, euclidean or posterior; got {metric!r}")
    if metric == "posterior" and (logvar is None or query_logvar is None):
        raise ValueError(
            "expected a posterior with a log-variance for the metric posterior; got another family "
            "(--metric euclidean)"
        )
    target = np.asarray(query, np.float64).reshape(-1)
    size = max(1, BLOCK // target.size)
    best = np.empty(0), np.empty(0, np.int64)
    for start in range(0, len(mean), size):
        some = np.asarray(mean[start : start + size], np.float64).reshape(-1, target.size)
        apart = (some - target) ** 2
        if logvar is not None and query_logvar is not None and metric == "posterior":
            own = np.asarray(logvar[start : start + size], np.float64).reshape(some.shape)
            other = np.asarray(query_logvar, np.float64).reshape(-1)
            both = np.exp(-own) + np.exp(-other)
            distance = (apart * both + np.exp(own - other) + np.exp(other - own) - 2).sum(1) / 2
        else:
            distance = np.sqrt(apart.sum(1))
        every = np.concatenate([best[0], distance])
        rows = np.concatenate([best[1], start + np.arange(len(distance))])
        order = np.argsort(every, kind="stable")[:k]
        best = every[order], rows[order]
    return best[1], best[0]
