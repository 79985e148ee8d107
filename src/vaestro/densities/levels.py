"""Densities of ordered levels 0 .. L - 1.

A logistic with location m and scale s, rounded to the nearest level, has in each cell

    log p(x) = log(sigmoid((x + 1/2 - m) / s) - sigmoid((x - 1/2 - m) / s))

The intervals of the levels 0 and L - 1 are unbounded below and above, respectively (Kingma et al.
2016; Salimans et al. 2017).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from vaestro.densities.continuous import gumbel_noise
from vaestro.densities.core import Cells, DataDensity, mean_over_ranks, sum_cells, uniform

LEAST_VARIANCE = 1 / 12  # of the rounding to levels


def _log_of_level(code: Tensor, loc: Tensor, log_scale: Tensor, levels: int) -> Tensor:
    """Return the log-probability that a logistic lies in the unit interval around a code.

    The intervals of the first and the last level are unbounded. For standardised ends a > b,

        sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a))

    The logarithm of the product neither cancels nor underflows, so that no clamp is needed.
    """
    inverse = torch.exp(-log_scale)
    upper, lower = (code + 0.5 - loc) * inverse, (code - 0.5 - loc) * inverse
    below, above = F.logsigmoid(upper), F.logsigmoid(-lower)
    inside = below + above + torch.log(-torch.expm1(-inverse))
    return torch.where(code == 0, below, torch.where(code == levels - 1, above, inside))


def _clipped_mean(loc: Tensor, log_scale: Tensor, levels: int) -> Tensor:
    """Return the mean of a logistic clipped to 0 .. levels - 1."""
    scale = torch.exp(log_scale)
    return scale * (F.softplus(loc / scale) - F.softplus((loc - (levels - 1)) / scale))


@final
class DiscretizedLogistic(Cells):
    """Represent levels by a logistic that is rounded to the nearest level (Kingma et al. 2016;
    Salimans et al. 2017).

    `mean` is the mean of the logistic clipped to the levels, before rounding. It differs from the
    mean after rounding by at most half a level.

    Args:
        loc, log_scale: in units of levels; tensors that broadcast to (..., *X).
        levels: number of levels, L.
        dims: number of dimensions of one datum.

    >>> DiscretizedLogistic(torch.zeros(3), torch.zeros(3), 256).log_prob(torch.zeros(3)) < 0
    tensor(True)
    """

    def __init__(self, loc: Tensor, log_scale: Tensor, levels: int, dims: int = 1) -> None:
        self.loc, self.log_scale, self.levels, self.dims = loc, log_scale, levels, dims

    @property
    def mean(self) -> Tensor:
        return _clipped_mean(self.loc, self.log_scale, self.levels)

    def cells(self, value: Tensor) -> Tensor:
        return _log_of_level(value.to(self.loc.dtype), self.loc, self.log_scale, self.levels)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        drawn = self.loc + torch.exp(self.log_scale) * torch.logit(uniform(self.loc, generator))
        return drawn.round().clamp(0, self.levels - 1)


@final
class LogisticMixture(DataDensity):
    """Represent the levels of each pixel by a mixture of M discretized logistics over its channels
    (Salimans et al. 2017).

    All C channels of a pixel have the same component. With coefficients, the location of a channel
    is linear in the channels before it. Channels are then not independent given z, and a pixel with
    missing channels cannot be scored.

    Args:
        logits: of the components, (..., M, *R); *R is the shape of a datum without channels.
        loc, log_scale: in units of levels, (..., M, C, *R).
        coefficients: (..., M, C (C - 1) / 2, *R), ordered (1 on 0), (2 on 0), (2 on 1); None for
            independent channels.
        levels: number of levels, L.
        dims: number of dimensions of one datum.
        channelled: whether a datum is (C, *R). If not, it is (*R) and C is 1.

    >>> zeros = torch.zeros(2, 1, 3)
    >>> mixture = LogisticMixture(torch.zeros(2, 3), zeros, zeros, None, 256, 1, False)
    >>> mixture.log_prob(torch.zeros(3)).shape
    torch.Size([])
    """

    def __init__(
        self,
        logits: Tensor,
        loc: Tensor,
        log_scale: Tensor,
        coefficients: Tensor | None,
        levels: int,
        dims: int,
        channelled: bool,
    ) -> None:
        self.logits, self.loc, self.log_scale, self.coefficients = (
            logits,
            loc,
            log_scale,
            coefficients,
        )
        self.levels, self.dims, self.channelled = levels, dims, channelled
        self.rest = dims - 1 if channelled else dims  # dimensions of *R

    def _location(self, channel: int, before: Sequence[Tensor]) -> Tensor:
        """Return the locations of a channel given the channels before it, (..., M, *R), in
        levels."""
        loc = self.loc.select(-1 - self.rest, channel)
        if self.coefficients is None:
            return loc
        first = channel * (channel - 1) // 2
        middle = (self.levels - 1) / 2  # as in the paper, channels are centred
        for i, x in enumerate(before):
            loc = loc + self.coefficients.select(-1 - self.rest, first + i) * (x - middle)
        return loc

    def _stacked(self, channels: list[Tensor]) -> Tensor:
        return torch.stack(channels, -1 - self.rest) if self.channelled else channels[0]

    @property
    def mean(self) -> Tensor:
        """Return the mean, (..., *X), of each channel given the means of the channels before
        it."""
        weights = torch.softmax(self.logits, -1 - self.rest)
        channels: list[Tensor] = []
        for c in range(self.loc.shape[-1 - self.rest]):
            loc = self._location(c, [x.unsqueeze(-1 - self.rest) for x in channels])
            means = _clipped_mean(loc, self.log_scale.select(-1 - self.rest, c), self.levels)
            channels.append((weights * means).sum(-1 - self.rest))
        return self._stacked(channels)

    def log_prob(self, value: Tensor, observed: Tensor | None = None) -> Tensor:
        if observed is not None and self.coefficients is not None:
            raise ValueError(
                "expected every cell observed where channels are conditioned on each other; got "
                "missing ones"
            )
        total = self._components(value, observed)
        return sum_cells(torch.logsumexp(total, -1 - self.rest), self.rest, None)

    def by_cell(self, value: Tensor, observed: Tensor | None = None) -> Tensor | None:
        """Return the shares of cells. The channels of a pixel, which depend on each other, have
        equal shares."""
        if observed is not None and self.coefficients is not None:
            return None
        pixels = torch.logsumexp(self._components(value, observed), -1 - self.rest)
        if not self.channelled:
            return pixels
        at, count = pixels.ndim - self.rest, self.loc.shape[-1 - self.rest]
        there = torch.ones_like(value) if observed is None else observed.to(pixels.dtype)
        there = there.expand(*pixels.shape[:at], count, *pixels.shape[at:])
        shares = there / there.sum(at, keepdim=True).clamp_min(1)
        return pixels.unsqueeze(at) * shares

    def conditioned(self, value: Tensor, observed: Tensor) -> LogisticMixture:
        """Return the density of missing channels given the observed ones, which change the weights
        of the components."""
        if self.coefficients is not None:
            raise ValueError(
                "expected every cell observed where channels are conditioned on each other; got "
                "missing ones"
            )
        logits = self._components(value, observed)
        return LogisticMixture(
            logits, self.loc, self.log_scale, None, self.levels, self.dims, self.channelled
        )

    def _components(self, value: Tensor, observed: Tensor | None) -> Tensor:
        """Return the joint log-probability of each component and the observed channels of a pixel,
        (..., M, *R)."""
        value = value.to(self.loc.dtype)
        channels = list(value.unbind(value.ndim - self.dims)) if self.channelled else [value]
        # (B, 1, *R), to broadcast over components
        channels = [x.unsqueeze(x.ndim - self.rest) for x in channels]
        total = torch.log_softmax(self.logits, -1 - self.rest)
        for c, x in enumerate(channels):
            loc, log_scale = (
                self._location(c, channels[:c]),
                self.log_scale.select(-1 - self.rest, c),
            )
            log_prob = _log_of_level(x, loc, log_scale, self.levels)
            if observed is not None:
                mask = (
                    observed.select(observed.ndim - self.dims, c) if self.channelled else observed
                )
                log_prob = torch.where(mask.unsqueeze(mask.ndim - self.rest), log_prob, 0.0)
            total = total + log_prob
        return total

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        component = (self.logits + gumbel_noise(self.logits, generator)).argmax(
            -1 - self.rest, keepdim=True
        )
        channels: list[Tensor] = []
        for c in range(self.loc.shape[-1 - self.rest]):
            loc = self._location(c, [x.unsqueeze(-1 - self.rest) for x in channels]).gather(
                -1 - self.rest, component
            )
            log_scale = self.log_scale.select(-1 - self.rest, c).gather(-1 - self.rest, component)
            drawn = loc + torch.exp(log_scale) * torch.logit(uniform(loc, generator))
            channels.append(drawn.round().clamp(0, self.levels - 1).squeeze(-1 - self.rest))
        return self._stacked(channels)


@final
class MeansBySquares(DataDensity):
    """Represent a density whose location is trained by squared errors, as that of a normal with the
    variance of the batch, and whose other parameters are trained by its likelihood (Stirn et al.
    2023).

    All values are those of the density; the gradient of `log_prob` differs.

    Args:
        reported: the density.
        fixed: the density at detached locations.
        location: in the units of the data; it broadcasts to (..., C, *R).
        dims: number of dimensions of one datum.

    >>> location = torch.zeros(4, 3, requires_grad=True)
    >>> scale = torch.zeros(4, 3)
    >>> reported = DiscretizedLogistic(location, scale, 256)
    >>> fixed = DiscretizedLogistic(location.detach(), scale, 256)
    >>> value = torch.tensor([1.0, 2.0, 2.0]).expand(4, 3)
    >>> MeansBySquares(reported, fixed, location, 1).log_prob(value).sum().backward()
    >>> location.grad[0]
    tensor([1.0000, 0.5000, 0.5000])
    """

    def __init__(
        self,
        reported: DiscretizedLogistic | LogisticMixture,
        fixed: DiscretizedLogistic | LogisticMixture,
        location: Tensor,
        dims: int,
    ) -> None:
        self.reported, self.fixed, self.location, self.dims = reported, fixed, location, dims

    @property
    def mean(self) -> Tensor:
        return self.reported.mean

    def by_cell(self, value: Tensor, observed: Tensor | None = None) -> Tensor | None:
        return self.reported.by_cell(value, observed)

    def log_prob(self, value: Tensor, observed: Tensor | None = None) -> Tensor:
        """Return the log-probability, with the gradient of squared errors for the location."""
        squares = (value - self.location).square()
        if observed is not None:
            squares = torch.where(observed, squares, 0.0)
        channel = squares.ndim - self.dims
        others = [i for i in range(squares.ndim) if i != channel]
        seen = torch.ones_like(squares) if observed is None else observed.expand_as(squares)
        sums = torch.stack([squares.detach(), seen.to(squares.dtype)])
        total, count = mean_over_ranks(sums.mean([i + 1 for i in others], keepdim=True)).unbind()
        variance = (total / count.clamp_min(1e-6)).clamp_min(LEAST_VARIANCE)
        pull = -0.5 * (squares / variance).flatten(channel).sum(-1)
        return self.fixed.log_prob(value, observed) + (pull - pull.detach())

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        return self.reported.sample(generator)
