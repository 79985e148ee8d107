"""Posteriors by normalizing flows: z = mean + std * f(noise), with f a function of x.

    log q(z | x) = log N(noise; 0, I) - log |det df/dnoise| - sum_i log std_i

(Rezende and Mohamed 2015.) The encoder predicts mean, log-variance and the parameters of f, or a
context that the networks of f take as input. For the maps see `vaestro.flows`.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from typing import final

import torch.nn as nn
from torch import Tensor

from vaestro import densities
from vaestro.densities import soft_limit
from vaestro.flows import Flowed, PlanarMap, Transform, autoregressive
from vaestro.posteriors.base import RealPosterior
from vaestro.spaces import Space

CONTEXT_LIMIT = 20.0  # bound of the encoder's outputs other than mean and log-variance


class FlowPosterior(RealPosterior, ABC):
    """Describe q(z | x) by z = mean + std * f(noise).

    Args:
        space, encoder, units: see Posterior; the encoder's output is (B, 2 n + context) for n
            units.
        limit: bound of the log-variance.
    """

    scored_anywhere = False
    how = "mean and log-variance of 64 draws of q(z | x), of the same noise for every datum"

    @abstractmethod
    def transform(self, context: Tensor, detached: bool) -> Transform:
        """Return f for each datum.

        Args:
            context: the encoder's outputs other than mean and log-variance, (B, context).
            detached: without gradients to the weights of f.
        """

    def density(self, features: Tensor) -> Flowed:
        return self._density(features, False)

    def _density(self, features: Tensor, detached: bool) -> Flowed:
        n, shape = math.prod(self.units), (-1, *self.units)
        mean, logvar, context = features.split([n, n, features.shape[1] - 2 * n], -1)
        outer = densities.Normal(
            mean.reshape(shape), soft_limit(logvar, self.limit).reshape(shape), len(self.units)
        )
        return Flowed(
            outer,
            self.transform(soft_limit(context, CONTEXT_LIMIT), detached),
            lambda: self._density(features.detach(), True),
        )


def _check_sizes(layers: int, width: int = 1, bins: int = 2, context: int = 0) -> None:
    if layers < 1 or width < 1 or bins < 2 or context < 0:
        raise ValueError(
            f"expected 1 or more layers, a width of 1 or more, 2 or more bins and a context of 0 "
            f"or more; "
            f"got {layers}, {width}, {bins} and {context}"
        )


@final
class Planar(FlowPosterior):
    """Represent q(z | x) as a normal bent along `layers` directions of each datum (Rezende and
    Mohamed 2015).

    It represents skewed and curved densities. The map has no inverse in closed form: log q is
    available at q's own draws only, so that the estimators stl, dreg and score cannot be used.

    Args:
        space, encoder, units: see Posterior; the encoder's output is (B, 2 n + layers (2 n + 1))
            for n units.
        layers: number of planar maps.
        limit: bound of the log-variance.

    Raises:
        ValueError: an option is out of its range.

    >>> Planar.outputs((2,), layers=3)
    (19,)
    """

    scored_held = False

    def __init__(
        self,
        space: Space,
        encoder: nn.Module,
        units: tuple[int, ...],
        *,
        layers: int = 8,
        limit: float = 20.0,
    ) -> None:
        _check_sizes(layers)
        super().__init__(space, encoder, units, limit=limit)
        self.layers = layers

    @classmethod
    def outputs(
        cls, units: tuple[int, ...], *, layers: int = 8, **options: object
    ) -> tuple[int, ...]:
        n = math.prod(units)
        return (2 * n + layers * (2 * n + 1),)

    def transform(self, context: Tensor, detached: bool) -> Transform:
        n = math.prod(self.units)
        u, w, b = context.unflatten(-1, (self.layers, 2 * n + 1)).split([n, n, 1], -1)
        return PlanarMap(u, w, b.squeeze(-1))


class AutoregressiveFlow(FlowPosterior, ABC):
    """Describe flows of masked autoregressive maps whose networks take a context from the encoder.

    Args:
        space, encoder, units: see Posterior; the encoder's output is (B, 2 n + context) for n
            units.
        context: size of the context.
        limit: bound of the log-variance.
        maps: f as a function of the context.
    """

    def __init__(
        self,
        space: Space,
        encoder: nn.Module,
        units: tuple[int, ...],
        context: int,
        limit: float,
        maps: nn.Module,
    ) -> None:
        super().__init__(space, encoder, units, limit=limit)
        self.context, self.maps = context, maps

    @classmethod
    def outputs(
        cls, units: tuple[int, ...], *, context: int = 32, **options: object
    ) -> tuple[int, ...]:
        return (2 * math.prod(units) + context,)

    def transform(self, context: Tensor, detached: bool) -> Transform:
        maps = copy.deepcopy(self.maps).requires_grad_(False) if detached else self.maps
        transform: Transform = maps(context)
        return transform


@final
class InverseAutoregressive(AutoregressiveFlow):
    """Represent q(z | x) by an inverse autoregressive flow: each unit is shifted and scaled by a
    function of the units before it (Kingma et al. 2016).

    One layer represents any chain of conditional normals; more layers represent curved densities. A
    draw and its log q need one pass of each layer's network. At other points log q needs one pass
    for each unit, one after the other: stl, dreg and score have this cost.

    Args:
        space, encoder, units: see Posterior; the encoder's output is (B, 2 n + context) for n
            units.
        layers: number of maps; the order of the units is reversed from one to the next.
        width: of the two hidden layers of each map's network.
        context: size of the context that the encoder passes to every map.
        limit: bound of the log-variance.

    Raises:
        ValueError: an option is out of its range, or zuko is not installed.

    >>> InverseAutoregressive.outputs((2,), context=4)
    (8,)
    """

    def __init__(
        self,
        space: Space,
        encoder: nn.Module,
        units: tuple[int, ...],
        *,
        layers: int = 2,
        width: int = 64,
        context: int = 32,
        limit: float = 20.0,
    ) -> None:
        _check_sizes(layers, width, context=context)
        maps = autoregressive(math.prod(units), context, layers, width)
        super().__init__(space, encoder, units, context, limit, maps)


@final
class Spline(AutoregressiveFlow):
    """Represent q(z | x) by monotonic splines of each unit, whose parameters are a function of the
    units before it (Durkan, Bekasov, Murray and Papamakarios 2019).

    It represents several modes and heavy or truncated tails, which affine maps cannot. The splines
    act on (-5, 5) of every unit of the noise. They have 3 bins - 1 parameters for each unit instead
    of 2. As for iaf, log q at points that are not draws needs one pass for each unit.

    Args:
        space, encoder, units: see Posterior; the encoder's output is (B, 2 n + context) for n
            units.
        layers: number of maps; the order of the units is reversed from one to the next.
        bins: bins of a spline.
        width: of the two hidden layers of each map's network.
        context: size of the context that the encoder passes to every map.
        limit: bound of the log-variance.

    Raises:
        ValueError: an option is out of its range, or zuko is not installed.

    >>> Spline.outputs((2,), bins=4, context=4)
    (8,)
    """

    def __init__(
        self,
        space: Space,
        encoder: nn.Module,
        units: tuple[int, ...],
        *,
        layers: int = 2,
        bins: int = 8,
        width: int = 64,
        context: int = 32,
        limit: float = 20.0,
    ) -> None:
        _check_sizes(layers, width, bins, context)
        maps = autoregressive(math.prod(units), context, layers, width, bins)
        super().__init__(space, encoder, units, context, limit, maps)
