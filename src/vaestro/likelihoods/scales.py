"""The scales of a likelihood: their sharing between cells, initial values and learning speed.

Scales are in the user's units. The space divides cell d by scale_d, so a shared scale s is
s / scale_d inside. For a learned number n,

    log scale_d inside = reference_d + soft_limit(pace n, limit)

with the reference the standard deviation of the training data about their mean. Learned numbers
start at the maximum-likelihood scale of the training data at the decoder's first location. They
change PACE = 64 times as fast as weights, because log-scales are often wrong by 3, while weights
are rarely wrong by 1.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

from vaestro.densities import Cells, soft_limit
from vaestro.spaces import Space

Version = Literal[1, 2, 3]
PACES: dict[Version, float] = {1: 1.0, 2: 16.0, 3: 64.0}
PACE = PACES[3]
START_VALUES = 2**20  # number of training values for the initial fit
ITERATIONS = 20

Sharing = Literal["cell", "shared", "standardised"]


@dataclass(frozen=True)
class Shared:
    """Describe which cells share a scale.

    >>> Shared((3,), np.zeros(3), np.zeros((), bool), PACE).shape
    (3,)

    Args:
        shape: of the learned numbers; it broadcasts to *X.
        reference: logarithm of the scale inside at which a learned number is 0; it broadcasts to
            *X.
        constant: cells that do not vary in the training split, whose scale stays at the reference;
            it broadcasts to *X.
        pace: factor on the speed of learning, relative to a weight.
    """

    shape: tuple[int, ...]
    reference: np.ndarray
    constant: np.ndarray
    pace: float


def default_sharing(space: Space) -> Sharing:
    """Return the default sharing: one scale for each cell of a vector, or for each channel.

    >>> from vaestro.spaces import RealSpace
    >>> default_sharing(RealSpace((3,), (3,)))
    'cell'
    """
    return "cell" if len(space.shape) == 1 else "shared"


def sharing(space: Space, how: Sharing, pace: float = PACE) -> Shared:
    """Return the sharing of scales between the cells of a space.

    Args:
        space: of the data.
        how: "cell", one for each cell; "shared", one for all cells of a vector or of a channel, in
            the user's units; "standardised", one for all cells in standardised units, learned as
            slowly as a weight.
        pace: factor on the speed of learning.

    >>> from vaestro.spaces import RealSpace
    >>> sharing(RealSpace((3,), (3,)), "cell").shape
    (3,)
    """
    spread, constant = space.deviations()
    if how == "standardised":
        return Shared((), np.asarray(math.log(space.moments()[1])), np.zeros((), bool), 1.0)
    if how == "cell":
        return Shared(space.shape, np.log(spread), np.zeros((), bool), pace)
    channel, dims = space.layout.channel_axis, len(space.shape)
    others = tuple(i for i in range(dims) if i != channel)
    shape = () if channel is None else (space.shape[channel], *[1] * (dims - 1 - channel))
    unit = np.broadcast_to(space.units(), space.shape)
    size = np.where(constant, 0.0, np.log(spread * unit))
    count = np.maximum((~constant).sum(others, keepdims=True), 1)
    top = np.where(constant, -np.inf, size).max(others, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    mean = top + 0.5 * np.log(
        np.maximum(
            np.where(constant, 0.0, np.exp(2 * (size - top))).sum(others, keepdims=True) / count,
            1e-30,
        )
    )
    reference = np.where(constant, np.log(spread), mean - np.log(unit))
    return Shared(shape, reference, constant if constant.any() else np.zeros((), bool), pace)


def paced(numbers: Tensor, pace: float) -> Tensor:
    """Return learned numbers times a pace, with the gradients of the numbers.

    The pace multiplies the step but not the gradient, so it does not affect gradient clipping.

    >>> paced(torch.tensor(0.5), 16.0)
    tensor(8.)
    """
    return numbers if pace == 1 else numbers + ((pace - 1) * numbers).detach()


def unlimited(x: Tensor, limit: float) -> Tensor:
    """Return the inverse of `soft_limit` at x in (-limit, limit).

    >>> unlimited(soft_limit(torch.tensor(3.0), 10.0), 10.0)
    tensor(3.)
    """
    return x / (1 - x.abs() / limit)


class Scaled(nn.Module, ABC):
    """Learn or fit the scales of cells x = location + scale * noise."""

    number: ClassVar[str] = "log_scale"  # name of the parameter or buffer
    power: ClassVar[int] = 1  # the parameter is the logarithm of this power of the scale
    limit: float
    reference: Tensor
    constant: Tensor

    @abstractmethod
    def family(self, location: Tensor, number: Tensor) -> Cells:
        """Return the density at a location and a logarithm of the scale (for `power` 2 of the
        variance), both inside."""

    def share(self, shared: Shared, dims: int, *, learned: bool = True) -> None:
        """Create the numbers for cells with `dims` dimensions *X: a parameter, or a buffer that is
        fitted in closed form."""
        self.pace, self.dims_of_cells = shared.pace, dims
        dtype = torch.get_default_dtype()
        self.register_buffer(
            "reference",
            torch.from_numpy(np.array(self.power * shared.reference)).to(dtype),
            persistent=False,
        )
        self.register_buffer("constant", torch.from_numpy(shared.constant.copy()), persistent=False)
        self.free = not bool(shared.constant.any())
        numbers = torch.zeros(shared.shape)
        if learned:
            self.register_parameter(self.number, nn.Parameter(numbers))
        else:
            self.register_buffer(self.number, numbers)

    @property
    def numbers(self) -> Tensor:
        """Return the learned or fitted numbers, one for each set of cells that share one."""
        return (
            self.get_parameter(self.number)
            if self.number in self._parameters
            else self.get_buffer(self.number)
        )

    def spreads(self) -> Tensor:
        """Return the logarithm of each cell's scale (for `power` 2 of its variance) inside; it
        broadcasts to *X."""
        return self.placed(soft_limit(paced(self.numbers, self.pace), self.limit))

    def placed(self, relative: Tensor) -> Tensor:
        """Return logarithms inside from logarithms relative to the reference."""
        return self.reference + (
            relative if self.free else torch.where(self.constant, 0.0, relative)
        )

    @property
    def start_values(self) -> int:
        """Return the number of training values that `begin` uses; 0 if nothing is learned, or it
        has been called."""
        if self.number not in self._parameters or self.pace == 1:
            return 0
        numbers = self.numbers
        return START_VALUES if numbers.requires_grad and not bool(numbers.any()) else 0

    @torch.no_grad()
    def begin(self, x: Tensor, observed: Tensor | None, location: Tensor) -> None:
        """Initialise the scales by maximum likelihood of the training data at a location.

        Args:
            x: values as the density scores them, (B, *X).
            observed: mask of the observed values, (B, *X); None for all.
            location: it broadcasts to *X.
        """
        mask = torch.ones_like(x, dtype=torch.bool) if observed is None else observed
        mask = mask & ~self.constant
        count = self.over_cells(mask.to(x.dtype)).clamp_min(1.0)
        relative = torch.zeros_like(self.numbers)
        for _ in range(ITERATIONS):
            pull = self.family(location, self.placed(relative)).standardised_residual(x)
            mean = self.over_cells(torch.where(mask, pull, 0.0)) / count
            step = 0.5 * self.power * torch.log(mean.clamp_min(1e-6))
            relative = (relative + step).clamp(-0.9 * self.limit, 0.9 * self.limit)
        self.put(torch.where(count > 1, relative, 0.0))

    @torch.no_grad()
    def put(self, relative: Tensor) -> None:
        """Set the learned numbers to logarithms relative to the reference, within the limit."""
        self.numbers.copy_(unlimited(relative, self.limit) / self.pace)

    def over_cells(self, x: Tensor) -> Tensor:
        """Sum (..., *X) over data and over the cells that share a number, in the shape of the
        numbers."""
        shape = self.numbers.shape
        if not shape:
            return x.sum()
        x = x.sum(tuple(range(x.ndim - self.dims_of_cells))) if x.ndim > self.dims_of_cells else x
        return x.sum_to_size(tuple(shape))
