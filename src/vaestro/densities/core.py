"""Base classes of densities over data, and functions that all densities use.

log p(x) = sum over observed cells i of log p(x_i)
log-mean-exp of K numbers a_k: log(sum_k exp(a_k)) - log K
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, Protocol, TypeVar, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

LOG_2PI = math.log(2 * math.pi)
# At torch's default threshold of 20 the error is 2e-9 for each pixel in float64. At 50 the result
# is exact in float32 and float64.
SOFTPLUS_EXACT = 50


def log_mean_exp(x: Tensor, dim: int = 0) -> Tensor:
    """Return log(mean(exp(x))) along `dim`, without overflow; all -inf gives -inf.

    >>> log_mean_exp(torch.tensor([1000.0, 1000.0]))
    tensor(1000.)
    """
    return torch.logsumexp(x, dim) - math.log(x.shape[dim])


def soft_limit(x: Tensor, limit: float) -> Tensor:
    """Map any real number smoothly and strictly increasingly into (-limit, limit): x / (1 + |x| /
    limit).

    Near zero it is the identity. If a network outputs a log-variance of -1e9 or 1e9, the variance
    is still finite and positive. The derivative 1 / (1 + |x| / limit)^2, unlike that of a clamp, is
    never zero, so that gradient descent can return. (In float32 it is lost to rounding only for |x|
    above 1e7 times the limit.)

    >>> soft_limit(torch.tensor([0.0, 20.0, 1e9]), 20.0)
    tensor([ 0., 10., 20.])
    """
    return x / (1 + x.abs() / limit)


def softplus(x: Tensor) -> Tensor:
    """Return log(1 + exp(x)), exact in float32 and float64.

    >>> softplus(torch.tensor([0.0, 100.0]))
    tensor([  0.6931, 100.0000])
    """
    return F.softplus(x, threshold=SOFTPLUS_EXACT)


P = ParamSpec("P")
T = TypeVar("T")


def full_precision(compute: Callable[P, T]) -> Callable[P, T]:
    """Run a function outside of autocast: networks may use half precision, densities may not.

    >>> full_precision(torch.exp)(torch.zeros(1))
    tensor([1.])
    """

    @wraps(compute)
    def outside_autocast(*args: P.args, **kwargs: P.kwargs) -> T:
        kinds = [kind for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]
        if not kinds:
            return compute(*args, **kwargs)
        with torch.autocast(kinds[0], enabled=False):
            return compute(*args, **kwargs)

    return outside_autocast


def mean_over_ranks(x: Tensor) -> Tensor:
    """Return the mean of a detached tensor over processes with equal shares of the data; in a
    single process, the tensor itself.

    >>> mean_over_ranks(torch.tensor(2.0))
    tensor(2.)
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        x = x.detach().clone()
        torch.distributed.all_reduce(x)
        x = x / torch.distributed.get_world_size()
    return x


@runtime_checkable
class Density(Protocol):
    """Describe the least that p(x | z) must have; any torch.distributions.Distribution has it."""

    @property
    def mean(self) -> Tensor:
        """Return the mean, or for categories the probabilities."""

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log-densities in nats, one for each datum."""


class DataDensity(ABC):
    """Describe p(x | z), with a mask of the observed cells."""

    @property
    @abstractmethod
    def mean(self) -> Tensor:
        """Return the mean of each cell, or for categories the probabilities."""

    @abstractmethod
    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draw one value for each set of parameters."""

    @abstractmethod
    def log_prob(self, value: Tensor, observed: Tensor | None = None) -> Tensor:
        """Return log-densities in nats, (...), of the observed cells.

        Args:
            value: (..., *X).
            observed: bools that broadcast to (..., *X); None if every cell is observed.
        """

    def conditioned(self, value: Tensor, observed: Tensor) -> DataDensity:
        """Return the density of the missing cells given the observed ones; itself if cells are
        independent."""
        return self

    def on_line(self) -> DataDensity:
        """Return the density of the scores of values that are no atoms; by default itself."""
        return self

    def of_line(self, density: DataDensity) -> DataDensity:
        """Return this density with another one of the scores; by default that one."""
        return density

    def scored(self, value: Tensor, observed: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the scores of values (..., *X), and which of them are observed and no atoms; by
        default what was given."""
        return value, observed

    def by_cell(self, value: Tensor, observed: Tensor | None = None) -> Tensor | None:
        """Return the share of each cell in `log_prob`, (..., *X) in nats, whose sum over the
        observed cells is `log_prob`; None if it has no such shares."""
        return None

    def residual(self, value: Tensor) -> Tensor | None:
        """Return the difference between each cell and its prediction, (..., *X), on a scale on
        which its spread depends little on the prediction; None if values have no differences."""
        return value - self.mean

    def standardised_residual(self, value: Tensor) -> Tensor:
        """Return the standardised residual of each cell, (..., *X), whose mean over draws of this
        density is 1; NaN for cells whose density has no scale.

        It is -y d log p / dy at y = (x - location) / scale: y^2 for a normal, |y| for a Laplace
        density. If its mean over data is above 1, the scale is too small; if below 1, too large. At
        a scale fitted by maximum likelihood the mean is 1. For heavy tails it is bounded (by df + 1
        for Student's t).
        """
        return torch.full(value.shape, math.nan, device=value.device)

    def point(self, weights: Tensor | None = None) -> Tensor:
        """Return a point prediction, (B, *X): the mean, or for categories the most probable value.

        Args:
            weights: (K, B), sums to 1 over K: the weights of the K draws in a mixture of the
                densities with parameters (K, B, ...). None for equal weights.
        """
        return mixed_over(self.mean, weights)


def mixed_over(x: Tensor, weights: Tensor | None) -> Tensor:
    """Return the average of x, (K, B, ...), over K, with weights (K, B) that sum to 1 over K.

    >>> mixed_over(torch.tensor([[0.0], [4.0]]), torch.tensor([[0.25], [0.75]]))
    tensor([3.])
    """
    if weights is None:
        return x.mean(0)
    return (weights.reshape(*weights.shape, *[1] * (x.ndim - 2)) * x).sum(0)


class Cells(DataDensity):
    """Describe independent cells.

    A datum has `dims` dimensions: the trailing ones of the parameters and values.
    """

    dims: int

    @abstractmethod
    def cells(self, value: Tensor) -> Tensor:
        """Return the log-density of each cell in nats, (..., *X)."""

    def log_prob(self, value: Tensor, observed: Tensor | None = None) -> Tensor:
        """Return log-densities in nats, (...), with all constants, summed over the observed
        cells."""
        return sum_cells(self.cells(value), self.dims, observed)

    def by_cell(self, value: Tensor, observed: Tensor | None = None) -> Tensor | None:
        cells = self.cells(value)
        return cells if observed is None else torch.where(observed, cells, 0.0)

    def column_mean(self) -> Tensor:
        """Return a number that describes each column of a table: the mean, or for categories the
        most probable code."""
        return self.mean

    def column_point(self, weights: Tensor | None) -> Tensor:
        """Return `point`, rounded to a value that the column of a table can have."""
        return self.point(weights).to(torch.get_default_dtype())


def sum_cells(log_prob: Tensor, dims: int, observed: Tensor | None) -> Tensor:
    """Return the sum over the trailing `dims` dimensions, leaving out missing cells.

    >>> sum_cells(torch.ones(2, 3), 1, torch.tensor([True, True, False]))
    tensor([2., 2.])
    """
    if observed is not None:
        log_prob = torch.where(observed, log_prob, 0.0)
    return summed(log_prob.flatten(-dims) if dims > 1 else log_prob)


# Above this number of cells, the rounding error of a float32 sum is visible in importance weights:
# it is 0.03 nats at 256 x 256 x 3.
MANY_CELLS = 1024
# A block of cells is summed in the precision of the cells. The sums of blocks are few, so that
# float64 costs little for them.
BLOCK = 64


def summed(cells: Tensor) -> Tensor:
    """Return the sum over the last dimension; in float64 for many cells, if the device has it.

    >>> summed(torch.ones(2, 3))
    tensor([3., 3.])
    """
    n = cells.shape[-1]
    if n <= MANY_CELLS or cells.dtype != torch.float32 or cells.device.type == "mps":
        return cells.sum(-1)
    whole = n // BLOCK * BLOCK
    total = cells[..., :whole].unflatten(-1, (-1, BLOCK)).sum(-1).sum(-1, dtype=torch.float64)
    return total if whole == n else total + cells[..., whole:].sum(-1, dtype=torch.float64)


def uniform(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw from the uniform distribution on the open interval (0, 1), in the shape of a tensor.

    >>> uniform(torch.zeros(2, 3), None).shape
    torch.Size([2, 3])
    """
    tiny = torch.finfo(like.dtype).eps / 2
    return torch.rand(like.shape, generator=generator, dtype=like.dtype, device=like.device).clamp_(
        tiny, 1 - tiny
    )
