"""What densities over data and latents share: sums over cells, masks, and numbers that neither
overflow nor vanish."""

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
# torch's default threshold of 20 costs 2e-9 a pixel in float64; at 50 it is exact in both
# precisions
SOFTPLUS_EXACT = 50


def log_mean_exp(x: Tensor, dim: int = 0) -> Tensor:
    """Return log(mean(exp(x))) along `dim`, without overflow; all -inf gives -inf."""
    return torch.logsumexp(x, dim) - math.log(x.shape[dim])


def soft_limit(x: Tensor, limit: float) -> Tensor:
    """Map any real number smoothly and strictly increasingly into (-limit, limit): x / (1 + |x| /
    limit).

    Near zero it is the identity. A network may ask for a log-variance of -1e9 or 1e9: the variance
    stays finite and positive, and the derivative 1 / (1 + |x| / limit)^2, unlike that of a clamp,
    is never zero, so that gradient descent can lead back. (In float32 it is lost to rounding only
    beyond |x| of some 1e7 times the limit.)
    """
    return x / (1 + x.abs() / limit)


def softplus(x: Tensor) -> Tensor:
    """Return log(1 + exp(x)), exact in both precisions."""
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
    """Average a detached tensor over processes that hold equal shares; returns it unchanged in a
    single process."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        x = x.detach().clone()
        torch.distributed.all_reduce(x)
        x = x / torch.distributed.get_world_size()
    return x


@runtime_checkable
class Density(Protocol):
    """Name what is asked of a density; any torch.distributions.Distribution has it."""

    @property
    def mean(self) -> Tensor:
        """Return the mean, or for categories the probabilities."""

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log-densities in nats, one for each datum."""


class DataDensity(ABC):
    """Describe p(x | z): what is asked of a density over data beside `Density`."""

    @property
    @abstractmethod
    def mean(self) -> Tensor:
        """Return the mean of each cell, or for categories the probabilities."""

    @abstractmethod
    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draw one value for each set of parameters."""

    @abstractmethod
    def log_prob(self, value: Tensor, observed: Tensor | None = None) -> Tensor:
        """Return log-densities in nats, (...), of the cells that were observed."""

    def conditioned(self, value: Tensor, observed: Tensor) -> DataDensity:
        """Return the density of what was not observed given what was; itself where cells are
        independent."""
        return self

    def standardised_residual(self, value: Tensor) -> Tensor:
        """Return how far each cell lies from its location in units of its scale, (..., *X): 1 on
        average over draws of this density.

        It is y times -d log p / dy at y = (x - location) / scale: y^2 for a normal, |y| for a
        Laplace density. A mean over data above 1 says that the scale is too small, below 1 that it
        is too large; at a scale fitted by maximum likelihood the mean is 1. It is bounded where
        tails are heavy (by df + 1 for Student's t), and NaN in cells whose density has no scale.
        """
        return torch.full(value.shape, math.nan, device=value.device)

    def point(self, weights: Tensor | None = None) -> Tensor:
        """Return one value for each cell, (B, *X), from parameters (K, B, ...) mixed with weights
        (K, B) that sum to 1 over K.

        The mean, or where a mean says nothing (categories) the most probable value.
        """
        return mixed_over(self.mean, weights)


def mixed_over(x: Tensor, weights: Tensor | None) -> Tensor:
    """Average x, (K, B, ...), over K, with weights (K, B) that sum to 1 there."""
    if weights is None:
        return x.mean(0)
    return (weights.reshape(*weights.shape, *[1] * (x.ndim - 2)) * x).sum(0)


class Cells(DataDensity):
    """Describe independent cells; `dims` trailing dimensions make one datum."""

    dims: int

    @abstractmethod
    def cells(self, value: Tensor) -> Tensor:
        """Return the log-density of each cell in nats, (..., *X)."""

    def log_prob(self, value: Tensor, observed: Tensor | None = None) -> Tensor:
        """Return log-densities in nats, (...), every constant included, summed over the cells that
        were observed."""
        return sum_cells(self.cells(value), self.dims, observed)

    def column_mean(self) -> Tensor:
        """Return one number for each cell that describes a column of a table: the mean, or for
        categories the most probable code."""
        return self.mean

    def column_point(self, weights: Tensor | None) -> Tensor:
        """Return `point` as a value that a column of a table can have."""
        return self.point(weights).to(torch.get_default_dtype())


def sum_cells(log_prob: Tensor, dims: int, observed: Tensor | None) -> Tensor:
    """Sum over the trailing dimensions of one datum, leaving out what was not observed."""
    if observed is not None:
        log_prob = torch.where(observed, log_prob, 0.0)
    return summed(log_prob.flatten(-dims) if dims > 1 else log_prob)


# beyond, the rounding of a sum in float32 shows in importance weights: it is .03 nats at 256 x 256
# x 3
MANY_CELLS = 1024
# cells that are summed in the cells' own precision: the sums of blocks are few, and cost little in
# float64
BLOCK = 64


def summed(cells: Tensor) -> Tensor:
    """Sum over the last dimension; of many cells in float64, where the device has it."""
    n = cells.shape[-1]
    if n <= MANY_CELLS or cells.dtype != torch.float32 or cells.device.type == "mps":
        return cells.sum(-1)
    whole = n // BLOCK * BLOCK
    total = cells[..., :whole].unflatten(-1, (-1, BLOCK)).sum(-1).sum(-1, dtype=torch.float64)
    return total if whole == n else total + cells[..., whole:].sum(-1, dtype=torch.float64)


def uniform(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw from the open interval (0, 1)."""
    tiny = torch.finfo(like.dtype).eps / 2
    return torch.rand(like.shape, generator=generator, dtype=like.dtype, device=like.device).clamp_(
        tiny, 1 - tiny
    )
