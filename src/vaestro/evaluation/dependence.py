"""How much of the dependence between columns is lost in drawn rows.

Columns are cut into at most ten codes. The dependence of a pair is the residual of its joint
frequencies, P(a, b) - P(a) P(b), which shapes of single columns do not change. With d the total
variation distance of the residuals of two sets of rows, summed over the pairs that depend on each
other in real rows,

    share lost = (d(real, drawn) - d(real, other real)) / (d(real, shuffled) - d(real, other real))

"Shuffled" are the other real rows with each column permuted. The share is 0 for draws from the
distribution of the data and 1 for independent columns, up to sampling error. This module does not
import torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import final

import numpy as np

from vaestro.evaluation.samples import BINS, Codes, Columns, Comparison
from vaestro.files import Json

REPEATS = 50  # of the bootstrap
CLEAR = 4.0  # standard errors of a dependence that chance does not explain, in any of 800 pairs
STRONGEST = 100  # largest number of pairs that are used
WORST = 3  # number of pairs that are named


@final
@dataclass(frozen=True)
class Dependence:
    """Hold the share of dependence between columns that is lost in drawn rows.

    Args:
        n: number of drawn rows, and of real rows on each side.
        pairs: number of pairs of columns that depend on each other in real rows.
        lost, stderr: the share, and its standard error from a bootstrap over rows.
        trends: mean pair trends of drawn rows and of real rows, over these pairs.
        worst: the pairs with the largest loss.

    >>> Dependence(500, 3, 0.9, 0.1, (0.7, 0.95), (("a", "b"),)).limits
    (0.7, 1.1)
    """

    n: int
    pairs: int
    lost: float
    stderr: float
    trends: tuple[float, float]
    worst: tuple[tuple[str, str], ...]

    @property
    def limits(self) -> tuple[float, float]:
        """Return an interval of two standard errors around the share."""
        return self.lost - 2 * self.stderr, self.lost + 2 * self.stderr

    def line(self) -> dict[str, Json]:
        """Return the entry in diagnosis.json."""
        low, high = self.limits
        return {
            "n": self.n,
            "pairs": self.pairs,
            "lost": self.lost,
            "low": low,
            "high": high,
            "trends": {"drawn": self.trends[0], "real": self.trends[1]},
            "worst": [list(pair) for pair in self.worst],
        }


def dependence(real: Columns, other: Columns, drawn: Columns, seed: int = 0) -> Dependence | None:
    """Return how much dependence is lost in drawn rows; None if no pair of columns certainly
    depends on each other in real rows.

    Args:
        real, other: two sets of N real rows, without common rows.
        drawn: N rows of the model.
        seed: of the shuffled columns and of the bootstrap.

    >>> numbers = np.random.default_rng(0).normal(size=(3, 500))
    >>> real, other = ({"a": np.ma.array(x), "b": np.ma.array(x + 1)} for x in numbers[:2])
    >>> drawn = {"a": np.ma.array(numbers[2]), "b": np.ma.array(numbers[1])}
    >>> round(dependence(real, other, drawn).lost, 1)
    1.0
    """
    rng = np.random.default_rng(seed)
    n = min(len(next(iter(table.values()))) for table in (real, other, drawn))
    real, other, drawn = ({c: t[c][:n] for c in real} for t in (real, other, drawn))
    shuffled = {name: column[rng.permutation(n)] for name, column in other.items()}
    sides = [Comparison(real, table) for table in (drawn, other, shuffled)]
    chosen = _dependent(sides[0], n)
    if not chosen:
        return None
    codes = [[_merged(side, pair) for pair in chosen] for side in sides]

    def lost(weights: Sequence[np.ndarray]) -> np.ndarray:
        """Return the distances of each pair from drawn, other and shuffled rows, (3, pairs)."""
        return np.array(
            [
                [_distance(pair, weights[0], own) for pair in side]
                for side, own in zip(codes, weights[1:], strict=True)
            ]
        )

    whole = lost([np.ones(n)] * 4)
    again = [
        _share(lost([np.bincount(rng.integers(0, n, n), minlength=n) * 1.0 for _ in range(4)]))
        for _ in range(REPEATS)
    ]
    order = np.argsort(whole[1] - whole[0], kind="stable")[:WORST]
    trends = [side.fidelity().pairs for side in sides[:2]]
    return Dependence(
        n,
        len(chosen),
        _share(whole),
        float(np.std(again, ddof=1)),
        (_mean(trends[0], chosen), _mean(trends[1], chosen)),
        tuple(chosen[i] for i in order),
    )


def _share(distances: np.ndarray) -> float:
    """Return the share that is lost, from distances of pairs (3, pairs)."""
    drawn, other, shuffled = distances.sum(1)
    return float((drawn - other) / max(shuffled - other, 1e-9))


def _mean(trends: Mapping[tuple[str, str], float], chosen: Sequence[tuple[str, str]]) -> float:
    return float(np.mean([trends[pair] for pair in chosen]))


def _dependent(side: Comparison, n: int) -> list[tuple[str, str]]:
    """Return the pairs of columns that depend on each other in real rows, by a chi-squared test in
    the normal approximation of Wilson and Hilferty (1931), the strongest STRONGEST of them."""
    found = []
    for pair in combinations(side.paired, 2):
        a, b = _merged(side, pair)
        table = _frequencies(a.real, b.real, (a.size, b.size), np.ones(n))
        expected = np.outer(table.sum(1), table.sum(0))
        rows, columns = ((table.sum(axis) > 0).sum() for axis in (1, 0))
        freedom = (rows - 1) * (columns - 1)
        if freedom < 1:
            continue
        filled = expected > 0
        chi = n * ((table - expected)[filled] ** 2 / expected[filled]).sum()
        part = 2 / (9 * freedom)
        if ((chi / freedom) ** (1 / 3) - (1 - part)) / math.sqrt(part) > CLEAR:
            found.append((np.abs(table - expected).sum(), pair))
    found.sort(key=lambda item: -item[0])
    return [pair for _, pair in found[:STRONGEST]]


def _merged(side: Comparison, pair: tuple[str, str]) -> tuple[Codes, Codes]:
    return side.coarse[pair[0]].merged(BINS), side.coarse[pair[1]].merged(BINS)


def _frequencies(
    a: np.ndarray, b: np.ndarray, sizes: tuple[int, int], weights: np.ndarray
) -> np.ndarray:
    """Return the joint frequencies of two columns of codes, `sizes`."""
    counts = np.bincount(a * sizes[1] + b, weights, sizes[0] * sizes[1])
    return np.asarray(counts.reshape(sizes) / weights.sum())


def _distance(pair: tuple[Codes, Codes], first: np.ndarray, second: np.ndarray) -> float:
    """Return the total variation distance of the residuals of real and of drawn rows.

    Args:
        pair: the codes of two columns.
        first, second: weights of the real and of the drawn rows.
    """
    a, b = pair
    tables = (
        _frequencies(a.real, b.real, (a.size, b.size), first),
        _frequencies(a.drawn, b.drawn, (a.size, b.size), second),
    )
    residuals = [t - np.outer(t.sum(1), t.sum(0)) for t in tables]
    return float(0.5 * np.abs(residuals[0] - residuals[1]).sum())
