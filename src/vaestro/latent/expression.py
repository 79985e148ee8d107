"""Denoised expression of counts, and its difference between two groups of data.

The expression of a datum is the mean of its counts under q(z | x), before zero inflation, at a
given library: the library times the share of each cell (Lopez et al. 2018).

`contrast` compares the mean expression of two groups. In each draw, z of each datum is drawn from
q(z | x), and the data have weights of the Bayesian bootstrap (Rubin 1981). The mean expression of a
cell in a group is multiplied by the ratio of its observed to its expected counts there. This step
corrects the mean of a decoder that fits imperfectly, and adds the noise of the counts to the error,
which otherwise contains only that of z and of the choice of data. A cell differs if its absolute
log fold change exceeds a limit `delta`. The probability that it does has a prior over all cells,
which is fitted to their changes (Stephens 2017, adaptive shrinkage). The expected share of false
discoveries among the cells that are called different is at most a given level.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, final

import numpy as np
import torch
from torch import Tensor

from vaestro.data import Rows
from vaestro.densities import Density, ZeroInflated
from vaestro.latent.outputs import given_of
from vaestro.models import LatentModel, Model, with_latent
from vaestro.randomness import numpy_generator, torch_generator
from vaestro.spaces import Kind
from vaestro.text import InputError

LIBRARY = 10_000.0  # of the expression that `contrast` compares
LEAST = 0.01  # added to the expression at that library, so that logarithms of zeros are finite
PRIOR_COUNTS = 0.5  # added to observed and to expected counts of a cell in a group
NULLS = 10.0  # cells without a difference that are added when the prior of changes is fitted
ITERATIONS = 200  # of that fit


@torch.inference_mode()
def expression(
    model: Model,
    rows: Rows,
    *,
    draws: int = 25,
    library: float | None = None,
    decoded: Rows | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Return the denoised expression of each datum, (N, *X) float32: the mean of p(x | z), averaged
    over draws of z from q(z | x).

    Args:
        model: a trained model of counts.
        rows: the data, N rows.
        draws: the number of draws of z for each datum.
        library: the sum of the expression of each datum; by default that of the model.
        decoded: the rows whose conditions the decoder has; by default `rows`.
        seed: of the draws.

    Raises:
        ValueError: the data are not counts, or a number is out of range.

    >>> import vaestro as vs
    >>> data = vs.load(np.random.default_rng(0).poisson(3.0, (60, 4)), kind="count")
    >>> expression(vs.build(data.space, latent=2), data.test, library=100).sum(1).round()
    array([100., 100., 100.], dtype=float32)
    """
    _check(model, draws, library)
    totals: list[Tensor] = []

    for piece in _pieces(with_latent(model), rows, decoded or rows, draws, library, seed):
        totals.append(piece.values.mean(0).cpu())
    return torch.cat(totals).float().numpy()


def _check(model: Model, draws: int, library: float | None) -> None:
    if model.space.kind is not Kind.COUNT:
        raise InputError(f"only counts have an expression; {model.space} data have none")
    if draws < 1:
        raise ValueError(f"expected 1 or more draws; got {draws}")
    if library is not None and not 0 < library < math.inf:
        raise ValueError(f"expected a library above 0; got {library:g}")


class _Piece(NamedTuple):
    """Hold the expression of some data in each draw."""

    values: Tensor  # expression, (K, B, *X)
    expected: Tensor  # mean of p(x | z) under the data's own conditions, (K, B, *X)
    counts: Tensor  # (B, *X)


def _pieces(
    model: LatentModel, rows: Rows, decoded: Rows, draws: int, library: float | None, seed: int
) -> Iterator[_Piece]:
    """Yield the expression of the data in order, some at a time."""
    device, start = next(model.parameters()).device, 0
    given, others = given_of(rows), given_of(decoded)
    size = max(1, model.space.chunk // draws)

    def decode(z: Tensor, given: Tensor | None, rows: slice) -> Density:
        part = None if given is None else given[rows].to(device).repeat(len(z), 1)
        return model.decode(z.flatten(0, 1), part)

    for i, batch in enumerate(rows.fixed().chunks(size, device)):
        noise = model.noise(draws, len(batch), torch_generator(device, seed, "expression", i))
        z = model.draw(batch, draws, noise=noise).z
        part = slice(start, start + len(batch))
        own = decode(z, given, part)
        other = own if decoded is rows else decode(z, others, part)
        shape = (draws, len(batch))
        mean = _mean(other).unflatten(0, shape)
        if library is not None:
            cells = mean.flatten(2)
            mean = (library * cells / cells.sum(-1, keepdim=True)).reshape(mean.shape)
        yield _Piece(mean, own.mean[0].unflatten(0, shape), batch.x)
        start += len(batch)


def _mean(density: Density) -> Tensor:
    """Return the mean of p(x | z), (B, *X), before zero inflation."""
    base = density.base if isinstance(density, ZeroInflated) else density
    return base.mean[0]


@final
@dataclass(frozen=True, eq=False)
class Contrast:
    """Hold the difference of expression between two groups, for each cell of a datum.

    Args:
        names: of the cells.
        first, second: mean expression of the groups at a library of 10,000, (cells,).
        change: estimate of log2(first / second), (cells,).
        error: its standard error, (cells,).
        probability: posterior probability that |log2(first / second)| > delta, (cells,), by
            `beyond`.
        expected: expected share of false discoveries among the cells that are at least as probable
            to differ, (cells,).
        level: largest expected share of false discoveries of the cells that differ.
        sizes: the number of data of each group.

    >>> one = np.ones(1)
    >>> Contrast(("g",), one, one, 0 * one, one, 0 * one, one, 0.05, (9, 9)).different
    array([False])
    """

    names: tuple[str, ...]
    first: np.ndarray
    second: np.ndarray
    change: np.ndarray
    error: np.ndarray
    probability: np.ndarray
    expected: np.ndarray
    level: float
    sizes: tuple[int, int]

    @property
    def different(self) -> np.ndarray:
        """Return which cells differ, (cells,)."""
        return np.asarray(self.expected <= self.level)

    def columns(self, first: str, second: str) -> dict[str, np.ndarray]:
        """Return the table of the contrast, with the most probable differences first.

        Args:
            first, second: names of the groups.
        """
        order = np.lexsort((-np.abs(self.change), -self.probability))
        columns = {
            "name": np.array(self.names),
            f"mean_{first}": self.first,
            f"mean_{second}": self.second,
            "log2_fold_change": self.change,
            "error": self.error,
            "probability": self.probability,
            "expected_false_discoveries": self.expected,
            "different": self.different,
        }
        return {name: values[order] for name, values in columns.items()}


@torch.inference_mode()
def contrast(
    model: Model,
    rows: Rows,
    first: np.ndarray,
    second: np.ndarray,
    *,
    delta: float = 0.25,
    level: float = 0.05,
    draws: int = 200,
    decoded: Rows | None = None,
    seed: int = 0,
) -> Contrast:
    """Compare the denoised expression of two groups of data.

    Args:
        model: a trained model of counts.
        rows: the data, N rows.
        first, second: numbers of the rows of each group.
        delta: a cell differs if |log2(first / second)| exceeds this limit.
        level: largest expected share of false discoveries among the cells that are called
            different.
        draws: of the posterior.
        decoded: the rows whose conditions the decoder has; by default `rows`.
        seed: of the draws.

    Raises:
        ValueError: a group has fewer than two data, or a number is out of range.

    >>> import vaestro as vs
    >>> data = vs.load(np.random.default_rng(0).poisson(3.0, (60, 4)), kind="count")
    >>> model = vs.build(data.space, latent=2)
    >>> contrast(model, data.train, np.arange(9), np.arange(9, 20), draws=20).change.shape
    (4,)
    """
    _check(model, draws, None)
    if min(len(first), len(second)) < 2:
        raise ValueError(
            f"expected two or more data in each group; got {len(first):,} and {len(second):,}"
        )
    if delta < 0 or not 0 < level < 1:
        raise ValueError(
            f"expected delta of 0 or more and a level between 0 and 1; got {delta:g} and {level:g}"
        )
    means = []
    for i, group in enumerate((first, second)):
        picked = rows.pick(group)
        chosen = picked if decoded is None or decoded is rows else decoded.pick(group)
        means.append(_group_means(with_latent(model), picked, chosen, draws, seed, i))
    changes = np.log2(means[0] + LEAST) - np.log2(means[1] + LEAST)
    change, error = changes.mean(0), changes.std(0)
    probability = beyond(change, error, delta)
    return Contrast(
        model.space.names or tuple(str(i) for i in range(model.space.cells)),
        means[0].mean(0),
        means[1].mean(0),
        change,
        error,
        probability,
        expected_false_discoveries(probability),
        level,
        (len(first), len(second)),
    )


def _group_means(
    model: LatentModel, rows: Rows, decoded: Rows, draws: int, seed: int, group: int
) -> np.ndarray:
    """Return the mean expression of a group in each draw, (K, cells), corrected by the ratio of
    observed to expected counts."""
    n, start = len(rows), 0
    weights = torch.from_numpy(
        numpy_generator(seed, "contrast", group).dirichlet(np.ones(n), draws)
    )
    sums = torch.zeros(3, draws, model.space.cells, dtype=torch.float64)
    for piece in _pieces(model, rows, decoded, draws, LIBRARY, seed + group):
        part = weights[:, start : start + len(piece.counts)]
        counts = piece.counts.expand(draws, *piece.counts.shape)
        for total, values in zip(sums, (piece.values, counts, piece.expected), strict=True):
            total += torch.einsum("kb,kbx->kx", part, values.flatten(2).double().cpu())
        start += len(piece.counts)
    values, observed, expected = sums
    return (values * (n * observed + PRIOR_COUNTS) / (n * expected + PRIOR_COUNTS)).numpy()


def beyond(change: np.ndarray, error: np.ndarray, delta: float) -> np.ndarray:
    """Return the posterior probability that each effect exceeds a limit in size, (N,).

    The prior of the effects is a mixture of a point at zero and normals around zero, whose weights
    are fitted to all estimates by expectation maximisation (Stephens 2017).

    Args:
        change: estimates of the effects, (N,).
        error: their standard errors, (N,).
        delta: the limit.

    >>> beyond(np.array([0.01, 0.02, -0.01, 3.0]), np.full(4, 0.1), 0.25).round(2)
    array([0., 0., 0., 1.])
    """
    error = np.maximum(error, 1e-9)
    largest = max(2 * float(np.abs(change).max()), 2 * float(error.max()))
    count = max(2, math.ceil(math.log(largest / (float(error.min()) / 4), math.sqrt(2))))
    scales = np.concatenate([[0.0], largest * math.sqrt(0.5) ** np.arange(count)])
    variance = error[:, None] ** 2 + scales**2
    log_density = -0.5 * (change[:, None] ** 2 / variance + np.log(variance))
    density = np.exp(log_density - log_density.max(1, keepdims=True))
    prior = np.full(len(scales), 1 / len(scales))
    added = NULLS * (scales == 0)
    for _ in range(ITERATIONS):
        posterior = density * prior
        posterior /= posterior.sum(1, keepdims=True)
        prior = (posterior.sum(0) + added) / (len(change) + NULLS)
    gain = scales**2 / variance
    mean, spread = gain * change[:, None], np.maximum(np.sqrt(gain) * error[:, None], 1e-12)
    tails = _normal_below((-delta - mean) / spread) + _normal_below((mean - delta) / spread)
    return np.clip((posterior * np.where(scales == 0, 0.0, tails)).sum(1), 0.0, 1.0)


def _normal_below(x: np.ndarray) -> np.ndarray:
    return torch.special.ndtr(torch.from_numpy(x)).numpy()


def expected_false_discoveries(probability: np.ndarray) -> np.ndarray:
    """Return the expected share of false discoveries if all cells that are at least as probable to
    differ are called different, (cells,).

    >>> expected_false_discoveries(np.array([0.5, 1.0, 0.9])).round(3).tolist()
    [0.2, 0.0, 0.05]
    """
    order = np.argsort(-probability, kind="stable")
    share = np.cumsum(1 - probability[order]) / np.arange(1, len(order) + 1)
    # equally probable cells are called together
    last = np.searchsorted(-probability[order], -probability[order], side="right") - 1
    expected = np.empty(len(order))
    expected[order] = share[last]
    return expected
