"""Clusters of codes: Gaussian mixtures, their number, their stability, and what they mean."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np

from vaestro.latent.factors import Factor
from vaestro.latent.units import false_discoveries

if TYPE_CHECKING:
    from sklearn.mixture import GaussianMixture

LARGEST = 20  # number of clusters that is tried
SHAPES = ("diag", "full")
PATIENCE = 3  # numbers in a row without a lower BIC, after which no larger one is tried
FITTED = 5000  # largest number of rows that a mixture is fitted to
FEW = 50  # rows below which nothing is said on stability
REPEATS, STABLE = 8, 0.8  # bootstrap fits; the mean adjusted Rand index of stable clusters
DISCOVERIES = 0.05  # expected share of false statements among those on what distinguishes a cluster
SPREAD = 1e-6  # units with a smaller standard deviation are left out


@final
@dataclass(frozen=True, eq=False)
class Clusters:
    """Hold clusters of N codes.

    Args:
        labels: the cluster of each row, from 0, the largest first, (N,).
        probabilities: the probability of that cluster, (N,).
        sizes: number of rows of each cluster, (C,).
        shape: covariance of a cluster, diag or full.
        bic: by shape and number of clusters; the lowest was chosen.
        asked: whether the number was given.
        stability: mean adjusted Rand index of the clusters with those of fits to bootstrap samples;
            None with fewer than 50 rows.
        meanings: for each cluster, what distinguishes it from the other rows, in words.
        agreement: by attribute: adjusted Rand index, and its 95 % bootstrap interval.

    >>> sizes = np.array([2, 1])
    >>> Clusters(np.array([0, 0, 1]), np.ones(3), sizes, "diag", {("diag", 2): 5.0}).lines()[1]
    'cluster 0: 2 rows'
    """

    labels: np.ndarray
    probabilities: np.ndarray
    sizes: np.ndarray
    shape: str
    bic: dict[tuple[str, int], float]
    asked: bool = False
    stability: float | None = None
    meanings: tuple[tuple[str, ...], ...] = ()
    agreement: tuple[tuple[str, float, float, float], ...] = ()

    def lines(self) -> list[str]:
        """Return the clusters in words."""
        kind = "diagonal" if self.shape == "diag" else "full"
        count = len(self.sizes)
        why = "as asked" if self.asked else self._reason()
        noun = "cluster" if count == 1 else "clusters"
        lines = [f"{count} {noun}, normal with {kind} covariance: {why}"]
        for i, size in enumerate(self.sizes.tolist()):
            words = self.meanings[i] if i < len(self.meanings) else ()
            ends = f": {', '.join(words[:4])}" if words else ""
            lines.append(f"cluster {i}: {size:,} rows{ends}")
        if count > 1:
            lines.append(self._stability())
        for name, index, low, high in self.agreement:
            lines.append(
                f"adjusted Rand index with {name}: {index:.2f} ({low:.2f} to {high:.2f}; 1 if they "
                f"agree, 0 by chance)"
            )
        return lines

    def _reason(self) -> str:
        """Return why this number was chosen."""
        chosen = self.shape, len(self.sizes)
        others = {key: value for key, value in self.bic.items() if key != chosen}
        if not others:
            return "nothing else was tried"
        (shape, number), value = min(others.items(), key=lambda item: item[1])
        kind = "diagonal" if shape == "diag" else "full"
        return (
            f"lowest BIC, {value - self.bic[chosen]:.3g} below {number} with {kind} covariance, of "
            f"{len(self.bic)} mixtures"
        )

    def _stability(self) -> str:
        """Return how stable the clusters are."""
        if self.stability is None:
            return (
                f"not enough data to tell whether the clusters are stable (fewer than {FEW} rows)"
            )
        if self.stability < STABLE:
            return (
                f"the clusters are not stable: fits to bootstrap samples agree with them by an "
                f"adjusted Rand index of {self.stability:.2f} (1 is the same)"
            )
        return (
            f"stable: fits to bootstrap samples agree by an adjusted Rand index of "
            f"{self.stability:.2f}"
        )


def cluster(
    codes: np.ndarray, number: int | None = None, factors: Sequence[Factor] = (), seed: int = 0
) -> Clusters:
    """Fit Gaussian mixtures with diagonal and full covariances to codes, and return the clusters of
    the one with the lowest BIC (Schwarz 1978).

    At most 5,000 rows are fitted. Units that do not vary are left out. What distinguishes a cluster
    is stated if it is significant after the correction of Benjamini and Hochberg (1995): a t test
    for numbers, a z test of shares for categories.

    Args:
        codes: (N, *Z).
        number: of clusters; by default from 1 up to the first 3 numbers in a row without a lower
            BIC, at most 20.
        factors: attributes of the rows.
        seed: of initial values and bootstrap samples.

    Raises:
        ValueError: the number is not from 1 to N / 2, or no unit varies.

    >>> random = np.random.default_rng(0)
    >>> codes = np.concatenate([random.normal(c, 1, (60, 2)) for c in (-9, 9)])
    >>> cluster(codes).sizes.tolist()
    [60, 60]
    """
    x = np.asarray(codes, np.float64).reshape(len(codes), -1)
    most = len(x) // 2
    if most < 1 or (number is not None and not 1 <= number <= most):
        raise ValueError(
            f"expected --clusters from 1 to {most:,} for {len(x):,} rows; got {number}"
        )
    x = x[:, x.std(0) > SPREAD]
    if not x.shape[1]:
        raise ValueError("expected codes that vary; got the same code for all rows")
    random = np.random.default_rng(seed)
    some = x if len(x) <= FITTED else x[np.sort(random.permutation(len(x))[:FITTED])]
    shape, mixture, bic = _chosen(some, number, seed)
    shares = mixture.predict_proba(x)
    found = shares.argmax(1)
    used = np.flatnonzero(np.bincount(found, minlength=shares.shape[1]))
    order = used[np.argsort(-np.bincount(found, minlength=shares.shape[1])[used], kind="stable")]
    place = np.zeros(shares.shape[1], np.int64)
    place[order] = np.arange(len(order))
    labels = place[found]
    return Clusters(
        labels,
        shares.max(1),
        np.bincount(labels, minlength=len(order)),
        shape,
        bic,
        number is not None,
        _stability(some, mixture, shape, random, seed) if len(order) > 1 else None,
        _meanings(labels, len(order), factors),
        tuple(_agreement(labels, f, random) for f in factors if not f.is_number)
        if len(order) > 1
        else (),
    )


def _chosen(
    x: np.ndarray, number: int | None, seed: int
) -> tuple[str, GaussianMixture, dict[tuple[str, int], float]]:
    """Return the covariance and the mixture with the lowest BIC, and the BIC of all."""
    bic: dict[tuple[str, int], float] = {}
    best: tuple[float, str, GaussianMixture] | None = None
    for shape in SHAPES:
        worse, lowest = 0, np.inf
        counts = range(1, min(LARGEST, len(x) // 2) + 1) if number is None else (number,)
        for count in counts:
            if shape == "full" and count * x.shape[1] ** 2 > 2 * len(x) and count > 1:
                break  # more numbers than the data determine
            mixture = _fitted(x, count, shape, seed, starts=3)
            value = bic[shape, count] = float(mixture.bic(x))
            if best is None or value < best[0]:
                best = value, shape, mixture
            worse = 0 if value < lowest else worse + 1
            lowest = min(lowest, value)
            if worse == PATIENCE:
                break
    assert best is not None, "a diagonal mixture was fitted"
    return best[1], best[2], bic


def _fitted(x: np.ndarray, count: int, shape: str, seed: int, starts: int) -> GaussianMixture:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return GaussianMixture(count, covariance_type=shape, n_init=starts, random_state=seed).fit(
            x
        )


def _stability(
    x: np.ndarray, mixture: GaussianMixture, shape: str, random: np.random.Generator, seed: int
) -> float | None:
    """Return the mean adjusted Rand index (Hubert and Arabie 1985) of the clusters of all rows with
    those by fits to bootstrap samples; None with few rows."""
    from sklearn.metrics import adjusted_rand_score

    if len(x) < FEW:
        return None
    own, scores = mixture.predict(x), []
    for _ in range(REPEATS):
        drawn = x[random.integers(0, len(x), len(x))]
        other = _fitted(drawn, mixture.n_components, shape, seed, starts=1)
        scores.append(adjusted_rand_score(own, other.predict(x)))
    return float(np.mean(scores))


def _agreement(
    labels: np.ndarray, factor: Factor, random: np.random.Generator
) -> tuple[str, float, float, float]:
    """Return the adjusted Rand index with an attribute, and its 95 % bootstrap interval."""
    from sklearn.metrics import adjusted_rand_score

    rows = np.flatnonzero(factor.known)
    values = factor.values[rows].astype(np.int64)
    drawn = [random.integers(0, len(rows), len(rows)) for _ in range(200)]
    scores = [adjusted_rand_score(values[d], labels[rows[d]]) for d in drawn]
    low, high = np.quantile(scores, [0.025, 0.975]).tolist()
    return factor.name, float(adjusted_rand_score(values, labels[rows])), low, high


def _meanings(
    labels: np.ndarray, count: int, factors: Sequence[Factor]
) -> tuple[tuple[str, ...], ...]:
    """Return for each cluster what distinguishes it, the largest difference first."""
    from scipy.stats import norm, ttest_ind

    found: list[tuple[int, float, float, str]] = []  # cluster, p-value, size of the effect, words
    for factor in factors:
        for i in range(count if count > 1 else 0):
            inside = (labels == i) & factor.known
            outside = (labels != i) & factor.known
            if min(inside.sum(), outside.sum()) < 5:
                continue
            a, b = factor.values[inside], factor.values[outside]
            if factor.is_number:
                spread = float(np.sqrt((a.var() + b.var()) / 2))
                if spread == 0:
                    continue
                p = float(ttest_ind(a, b, equal_var=False).pvalue)
                words = f"{factor.name} {a.mean():.3g} (others {b.mean():.3g})"
                found.append((i, p, abs(a.mean() - b.mean()) / spread, words))
                continue
            for number, name in enumerate(factor.classes):
                one, other = float((a == number).mean()), float((b == number).mean())
                whole = float((factor.values[factor.known] == number).mean())
                error = np.sqrt(whole * (1 - whole) * (1 / len(a) + 1 / len(b)))
                if error == 0 or one <= other:
                    continue
                p = float(2 * norm.sf(abs(one - other) / error))
                words = f"{one:.0%} {factor.name}={name} (others {other:.0%})"
                found.append((i, p, 2 * (np.arcsin(one**0.5) - np.arcsin(other**0.5)), words))
    if not found:
        return tuple(() for _ in range(count))
    significant = false_discoveries(np.array([p for _, p, _, _ in found]), DISCOVERIES)
    kept = [f for f, is_true in zip(found, significant, strict=True) if is_true]
    kept.sort(key=lambda f: -f[2])
    return tuple(tuple(w for c, _, _, w in kept if c == i) for i in range(count))
