"""Likelihoods of ordered levels 0 .. L - 1, such as 8-bit pixels.

A logistic with location m and scale s, rounded to levels, has

    log p(x | z) = log(sigmoid((x + 1/2 - m) / s) - sigmoid((x - 1/2 - m) / s))

in each cell, with open intervals for the outer levels (Kingma et al. 2016; Salimans et al. 2017).
"""

from __future__ import annotations

import math
from typing import Literal, final

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

from vaestro import densities
from vaestro.densities import soft_limit
from vaestro.likelihoods.base import Likelihood
from vaestro.likelihoods.dispersions import START_SHARE, most_probable
from vaestro.likelihoods.scales import PACES, START_VALUES, Version, paced, unlimited
from vaestro.spaces import Kind, Space

Levels = densities.DiscretizedLogistic | densities.LogisticMixture | densities.MeansBySquares
FIRST_LOG_SCALE = -2.0  # initial scale of levels, relative to half of their range


def _centred_levels(space: Space) -> Tensor:
    """Return the training split's mean level of each cell on -1 .. 1."""
    if space.marginal is None:
        return torch.zeros(())
    mean = np.tensordot(np.arange(space.levels), space.marginal, (0, 0))
    return torch.from_numpy(np.asarray(mean * 2 / (space.levels - 1) - 1, np.float32))


@final
class DiscretizedLogistic(Likelihood):
    """Represent each level by a logistic density integrated over the level's cell (Kingma et al.
    2016).

    Args:
        space, decoder: see Likelihood.
        scale: "pixel", predicted by the decoder for each cell; "shared", one learned for all cells.
        channels: "independent" given z; "conditioned", each channel's location is linear in the
            residuals of the channels before it, and no pixel may lack a channel.
        means: how locations are trained. "likelihood"; "squares", by squared errors in units of
            their mean over the batch, while scales and coefficients are trained by the likelihood
            at fixed locations (Stirn et al. 2023). A likelihood with small scales in smooth places
            otherwise neglects the other places. The reported bound is that of the likelihood.
        limit: the log-scale lies in (-limit, limit) around that of half of the range, by
            `soft_limit`.
        version: 1 repeats runs made before versions were counted, whose shared log-scale starts at
            -2 and is learned as slowly as a weight; 2 those that learned it at a quarter of the
            present speed.

    >>> from vaestro.spaces import LevelsSpace
    >>> space = LevelsSpace((3,), (3,), levels=256)
    >>> likelihood = DiscretizedLogistic(space, nn.Linear(2, 3), scale="shared")
    >>> likelihood(torch.zeros(1, 5, 2)).log_prob(torch.zeros(5, 3)).shape
    torch.Size([1, 5])
    """

    accepts = frozenset({Kind.LEVELS})

    def __init__(
        self,
        space: Space,
        decoder: nn.Module,
        *,
        scale: Literal["shared", "pixel"] = "pixel",
        channels: Literal["independent", "conditioned"] = "independent",
        means: Literal["likelihood", "squares"] = "likelihood",
        limit: float = 10.0,
        version: Version = 3,
    ) -> None:
        super().__init__(space, decoder)
        self.scale, self.limit, self.squares = scale, limit, means == "squares"
        self.pairs = self._pairs(space, channels)
        if space.missing and self.pairs:
            raise ValueError(
                "expected complete images for channels conditioned on each other; got missing "
                "cells (discretized-logistic:channels=independent)"
            )
        self.pace, self.reference = PACES[version], 0.0 if version == 1 else FIRST_LOG_SCALE
        if scale == "shared":
            self.log_scale = nn.Parameter(torch.full((), FIRST_LOG_SCALE - self.reference))

    @staticmethod
    def _pairs(space: Space, channels: str) -> int:
        """Return the number of coefficients of a pixel: one for each pair of channels."""
        count = space.shape[0] if space.layout.pixels and channels == "conditioned" else 1
        return count * (count - 1) // 2

    @classmethod
    def outputs(
        cls, space: Space, *, scale: str = "pixel", channels: str = "independent", **_: object
    ) -> tuple[int, ...]:
        pairs, sets = cls._pairs(space, channels), 2 if scale == "pixel" else 1
        if pairs:
            return (sets * space.shape[0] + pairs, *space.shape[1:])
        return (sets, *space.shape) if sets > 1 else space.shape

    @classmethod
    def start(
        cls, space: Space, *, scale: str = "pixel", channels: str = "independent", **_: object
    ) -> Tensor:
        loc, pairs = _centred_levels(space), cls._pairs(space, channels)
        if not pairs and not (scale == "pixel" and loc.ndim):
            return loc
        loc = loc.expand(space.shape)
        scales = [torch.full_like(loc, FIRST_LOG_SCALE)] if scale == "pixel" else []
        if not pairs:
            return torch.stack([loc, *scales])
        return torch.cat([loc, *scales, torch.zeros(pairs, *space.shape[1:])])

    def forward(self, z: Tensor, given: Tensor | None = None) -> Levels:
        loc, log_scale, pairs = self._split(z, given)
        px = self._given(loc, log_scale, pairs)
        if not (self.squares and self.training):
            return px
        fixed = self._given(loc.detach(), log_scale, pairs)
        location = (self.space.levels - 1) / 2 * (1 + loc)
        return densities.MeansBySquares(px, fixed, location, self.dims)

    def _split(self, z: Tensor, given: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return the locations on -1 .. 1, the log-scales relative to half of the range, and the
        coefficients of pairs of channels, with no pairs for independent channels."""
        out = self.decode(z, given)
        shared = (
            self.reference + paced(self.log_scale, self.pace) if self.scale == "shared" else out
        )
        if not self.pairs:
            loc, log_scale = out.unbind(2) if self.scale == "pixel" else (out, shared)
            return loc, soft_limit(log_scale, self.limit), out.new_zeros(())
        count = self.space.shape[0]
        sets = [count, self.pairs] if self.scale == "shared" else [count, count, self.pairs]
        loc, *rest, pairs = out.split(sets, 2)
        log_scale = rest[0] if rest else shared
        return loc, soft_limit(log_scale, self.limit), torch.tanh(pairs)

    def _given(
        self, loc: Tensor, log_scale: Tensor, pairs: Tensor
    ) -> densities.DiscretizedLogistic | densities.LogisticMixture:
        """Return the density at parameters."""
        if not self.pairs:
            return self._density(loc, log_scale)
        half = (self.space.levels - 1) / 2
        axis = -self.dims
        places = list(loc.unbind(axis))
        first = iter(pairs.unbind(axis))
        # The density's locations are linear in the channels before; these are of their residuals.
        shifted = [
            place - sum((next(first) * before for before in places[:c]), torch.zeros_like(place))
            for c, place in enumerate(places)
        ]
        loc = half * (1 + torch.stack(shifted, axis))
        return densities.LogisticMixture(
            torch.zeros_like(places[0]).unsqueeze(axis),
            loc.unsqueeze(axis - 1),
            (log_scale + math.log(half)).expand_as(loc).unsqueeze(axis - 1),
            pairs.unsqueeze(axis - 1),
            self.space.levels,
            self.dims,
            True,
        )

    def _density(self, loc: Tensor, log_scale: Tensor) -> densities.DiscretizedLogistic:
        """Return the density at a location on -1 .. 1 and a log-scale relative to half of the
        range."""
        half = (self.space.levels - 1) / 2
        return densities.DiscretizedLogistic(
            half * (1 + loc), log_scale + math.log(half), self.space.levels, self.dims
        )

    @property
    def start_values(self) -> int:
        if self.scale != "shared" or self.pace == 1:
            return 0
        return (
            START_VALUES // 16
            if self.log_scale.requires_grad and not bool(self.log_scale.any())
            else 0
        )

    @torch.no_grad()
    def begin_at(self, x: Tensor, observed: Tensor | None, given: Tensor | None) -> None:
        loc = _centred_levels(self.space).to(x.device)

        def log_likelihood(log_scale: Tensor) -> Tensor:
            return self._density(loc, log_scale).log_prob(x, observed).sum()

        bound = START_SHARE * self.limit
        start = most_probable(
            log_likelihood, -bound, bound, torch.full_like(self.log_scale, self.reference)
        )
        self.log_scale.copy_((unlimited(start, self.limit) - self.reference) / self.pace)


@final
class LogisticMixture(Likelihood):
    """Represent each pixel by a mixture of discretized logistics, its channels conditioned on each
    other (PixelCNN++'s output, Salimans et al. 2017).

    Args:
        space, decoder: see Likelihood.
        components: of the mixture, shared by the channels of a pixel.
        channels: "conditioned", the location of each channel depends on the channels before it, and
            no pixel may lack a channel; "independent" given the component, which can be masked.
        limit: log-scales lie in (-limit, limit) around that of half of the range, by `soft_limit`.

    >>> from vaestro.spaces import LevelsSpace
    >>> space = LevelsSpace((3,), (3,), levels=256)
    >>> decoder = nn.Sequential(nn.Linear(2, 18), nn.Unflatten(1, (6, 3)))
    >>> likelihood = LogisticMixture(space, decoder, components=2)
    >>> likelihood(torch.zeros(1, 5, 2)).log_prob(torch.zeros(5, 3)).shape
    torch.Size([1, 5])
    """

    accepts = frozenset({Kind.LEVELS})

    def __init__(
        self,
        space: Space,
        decoder: nn.Module,
        *,
        components: int = 10,
        channels: Literal["conditioned", "independent"] = "conditioned",
        limit: float = 10.0,
    ) -> None:
        super().__init__(space, decoder)
        if components < 1:
            raise ValueError(f"expected 1 or more components; got {components}")
        self.components, self.limit = components, limit
        self.channelled = space.layout.pixels
        self.channels = space.shape[0] if self.channelled else 1
        self.conditioned = channels == "conditioned" and self.channels > 1
        if space.missing and self.conditioned:
            raise ValueError(
                "expected complete images for channels conditioned on each other; got missing "
                "cells (logistic-mixture:channels=independent)"
            )

    @staticmethod
    def _sizes(
        space: Space, components: int, channels: str
    ) -> tuple[int, int, int, tuple[int, ...]]:
        """Return the numbers of channels, of pairs of channels and of outputs per pixel, and the
        shape of the pixels."""
        count = space.shape[0] if space.layout.pixels else 1
        pairs = count * (count - 1) // 2 if channels == "conditioned" else 0
        return (
            count,
            pairs,
            components * (1 + 2 * count + pairs),
            space.shape[1:] if space.layout.pixels else space.shape,
        )

    @classmethod
    def outputs(
        cls, space: Space, *, components: int = 10, channels: str = "conditioned", **_: object
    ) -> tuple[int, ...]:
        _count, _pairs, size, places = cls._sizes(space, components, channels)
        return (size, *places)

    @classmethod
    def start(
        cls, space: Space, *, components: int = 10, channels: str = "conditioned", **_: object
    ) -> Tensor:
        count, pairs, _size, places = cls._sizes(space, components, channels)
        mean = _centred_levels(space).expand(space.shape).reshape(count, *places)
        # Components start at different locations; otherwise they would all have the same gradient.
        apart = torch.linspace(-0.5, 0.5, components) if components > 1 else torch.zeros(1)
        loc = mean + apart.view(-1, *[1] * (1 + len(places)))
        pieces = [
            torch.zeros(components, *places),
            loc.flatten(0, 1),
            torch.full((components * count, *places), -2.0),
        ]
        return torch.cat([*pieces, torch.zeros(components * pairs, *places)])

    def forward(self, z: Tensor, given: Tensor | None = None) -> densities.LogisticMixture:
        m, c = self.components, self.channels
        out = self.decode(z, given)
        sizes = [m, m * c, m * c, out.shape[2] - m * (1 + 2 * c)]
        logits, loc, log_scale, pairs = out.split(sizes, 2)
        half = (self.space.levels - 1) / 2
        return densities.LogisticMixture(
            logits,
            half * (1 + loc.unflatten(2, (m, c))),
            soft_limit(log_scale.unflatten(2, (m, c)), self.limit) + math.log(half),
            torch.tanh(pairs.unflatten(2, (m, -1))) if self.conditioned else None,
            self.space.levels,
            self.dims,
            self.channelled,
        )
