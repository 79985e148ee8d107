"""Priors in which units depend on earlier units, or on each other through a flow:

maf, coupling       p(z) = N(f(z); 0, I) |det df/dz|
autoregressive      p(z) = prod_g p(z_g | z_<g)                          discrete latents
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import final

import torch.nn as nn
from torch import Tensor

from vaestro import densities
from vaestro.flows import FlowPrior, Transform, autoregressive, coupling
from vaestro.networks import MaskedNetwork
from vaestro.posteriors import Posterior
from vaestro.priors.base import Prior


class _FlowPrior(Prior, ABC):
    """Describe p(z) by a map from latents to the standard normal."""

    def __init__(
        self, units: tuple[int, ...], given: int, alphabet: int, layers: int, width: int
    ) -> None:
        super().__init__(units, given, alphabet)
        if layers < 1 or width < 1:
            raise ValueError(
                f"expected 1 or more layers and a width of 1 or more; got {layers} and {width}"
            )
        if math.prod(units) < 2:
            raise ValueError("expected 2 or more units for a flow prior, or prior mixture; got 1")
        self.maps = self.make_maps(math.prod(units), given, layers, width)

    @abstractmethod
    def make_maps(self, units: int, given: int, layers: int, width: int) -> nn.Module:
        """Return the lazy map; called with conditions (B, given) or None, it returns a
        `Transform`."""

    def forward(self, posterior: Posterior, given: Tensor | None) -> FlowPrior:
        like = posterior.like
        if not self.given:
            return FlowPrior(self.maps(None), self.units, like)
        if given is None:
            raise ValueError("expected conditions for p(z | given); got none")
        transform: Transform = self.maps(given.to(like.dtype))
        return FlowPrior(transform, self.units, like, rows=len(given))


@final
class MaskedAutoregressive(_FlowPrior):
    """Represent p(z) by a masked autoregressive flow, in which each unit depends on the units
    before it (Papamakarios, Pavlakou and Murray 2017).

    Scoring takes one pass through the network of each layer, drawing one pass for each unit.

    Args:
        units, given, alphabet: see Prior.
        layers: number of maps; the order of the units is reversed from one to the next.
        width: width of the two hidden layers of each map's network.

    >>> MaskedAutoregressive((3,), layers=2).given
    0
    """

    def __init__(
        self,
        units: tuple[int, ...],
        given: int = 0,
        alphabet: int = 0,
        *,
        layers: int = 3,
        width: int = 64,
    ) -> None:
        super().__init__(units, given, alphabet, layers, width)

    def make_maps(self, units: int, given: int, layers: int, width: int) -> nn.Module:
        return autoregressive(units, given, layers, width)


@final
class Coupling(_FlowPrior):
    """Represent p(z) by affine couplings, in which each half of the units is scaled and shifted by
    a function of the other half (Dinh, Sohl-Dickstein and Bengio 2017).

    Scoring and drawing take one pass through the network of each layer. The same density needs more
    layers than in an autoregressive flow.

    Args:
        units, given, alphabet: see Prior.
        layers: number of couplings; the halves alternate.
        width: width of the two hidden layers of each coupling's network.

    >>> Coupling((3,), given=2).given
    2
    """

    in_graph = False  # zuko selects the halves by masks, and reads sums of them

    def __init__(
        self,
        units: tuple[int, ...],
        given: int = 0,
        alphabet: int = 0,
        *,
        layers: int = 6,
        width: int = 64,
    ) -> None:
        super().__init__(units, given, alphabet, layers, width)

    def make_maps(self, units: int, given: int, layers: int, width: int) -> nn.Module:
        return coupling(units, given, layers, width)


@final
class Autoregressive(Prior):
    """Represent p(z) over discrete latents by the product of each unit (or one-hot group) given the
    ones before it, by one masked network (Germain, Gregor, Murray and Larochelle 2015).

    Scoring takes one pass through the network, drawing one pass for each group.

    Args:
        units, given, alphabet: see Prior.
        width: width of the two hidden layers.

    >>> Autoregressive((4,), width=8).discrete
    True
    """

    discrete = True

    def __init__(
        self, units: tuple[int, ...], given: int = 0, alphabet: int = 1, *, width: int = 128
    ) -> None:
        super().__init__(units, given, alphabet)
        if width < 1:
            raise ValueError(f"expected a width of 1 or more; got {width}")
        self.network = MaskedNetwork(densities.groups_of(units, alphabet), width, given)

    def forward(self, posterior: Posterior, given: Tensor | None) -> densities.Autoregressive:
        if not self.given:
            given = None
        elif given is None:
            raise ValueError("expected conditions for p(z | given); got none")
        return densities.Autoregressive(
            lambda z: self.network(z, given),
            self.units,
            self.alphabet,
            posterior.like,
            rows=None if given is None else len(given),
        )
