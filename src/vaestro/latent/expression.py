"""Denoised expression of counts, and its difference between two groups of data.

The expression of a datum is the mean of its counts under q(z | x), before zero inflation, at a
given library: the library times the share of each cell (Lopez et al. 2018). `contrast` compares the
mean expression of two groups. Its posterior has two sources of uncertainty: z of each datum, drawn
from q(z | x), and which data were measured, by the Bayesian bootstrap (Rubin 1981). The weights of
the decoder are taken as known. A cell differs if its absolute log fold change exceeds a limit
`delta` with high posterior probability. The expected share of false discoveries among the cells
that are called different is at most a given level (Boyeau et al. 2019).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

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
    >>> expression(vs.build(data.space, latent=2), data.test, library=100).sum(1)
    array([100., 100., 100.], dtype=float32)
    """
    _check(model, draws, library)
    totals: list[Tensor] = []

    def add(start: int, values: Tensor) -> None:
        totals.append(values.mean(0).cpu())

    _each(with_latent(model), rows, decoded or rows, draws, library, seed, add)
    return torch.cat(totals).float().numpy()


def _check(model: Model, draws: int, library: float | None) -> None:
    if model.space.kind is not Kind.COUNT:
        raise InputError(f"only counts have an expression; {model.space} data have none")
    if draws < 1:
        raise ValueError(f"expected 1 or more draws; got {draws}")
    if library is not None and not 0 < library < math.inf:
        raise ValueError(f"expected a library above 0; got {library:g}")


def _each(
    model: LatentModel,
    rows: Rows,
    decoded: Rows,
    draws: int,
    library: float | None,
    seed: int,
    use: Callable[[int, Tensor], None],
) -> None:
    """Call `use` with the number of the first datum and the expression of each draw, (K, B, *X)."""
    device, given, start = next(model.parameters()).device, given_of(decoded), 0
    size = max(1, model.space.chunk // draws)
    for i, batch in enumerate(rows.fixed().chunks(size, device)):
        noise = model.noise(draws, len(batch), torch_generator(device, seed, "expression", i))
        z = model.draw(batch, draws, noise=noise).z
        part = None if given is None else given[start : start + len(batch)].to(device)
        flat = None if part is None else part.repeat(draws, 1)
        mean = _mean(model.decode(z.flatten(0, 1), flat)).unflatten(0, (draws, len(batch)))
        if library is not None:
            cells = mean.flatten(2)
            mean = (library * cells / cells.sum(-1, keepdim=True)).reshape(mean.shape)
        use(start, mean)
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
        change: posterior mean of log2(first / second), (cells,).
        error: posterior standard deviation of it, (cells,).
        probability: posterior probability that |log2(first / second)| > delta, (cells,).
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
        # weights of the Bayesian bootstrap, (K, B)
        weights = numpy_generator(seed, "contrast", i).dirichlet(np.ones(len(group)), draws)
        total = torch.zeros(draws, model.space.cells, dtype=torch.float64)

        def add(
            start: int, values: Tensor, weights: np.ndarray = weights, total: Tensor = total
        ) -> None:
            part = torch.from_numpy(weights[:, start : start + values.shape[1]])
            total += torch.einsum("kb,kbx->kx", part, values.flatten(2).double().cpu())

        chosen = None if decoded is None else decoded.pick(group)
        picked = rows.pick(group)
        _each(with_latent(model), picked, chosen or picked, draws, LIBRARY, seed + i, add)
        means.append(total.numpy())
    change = np.log2(means[0] + LEAST) - np.log2(means[1] + LEAST)
    probability = (np.abs(change) > delta).mean(0)
    return Contrast(
        model.space.names or tuple(str(i) for i in range(model.space.cells)),
        means[0].mean(0),
        means[1].mean(0),
        change.mean(0),
        change.std(0),
        probability,
        expected_false_discoveries(probability),
        level,
        (len(first), len(second)),
    )


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
