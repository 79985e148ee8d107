"""Priors with independent units: fixed, learned, or predicted from conditions."""

from __future__ import annotations

import math
from typing import final

import torch
import torch.nn as nn
from torch import Tensor

from vaestro import densities
from vaestro.densities import soft_limit
from vaestro.posteriors import Posterior
from vaestro.priors.base import Prior

LOGVAR_LIMIT = 20.0


@final
class Normal(Prior):
    """Represent the standard normal N(0, I), which has no parameters.

    >>> prior = Normal((2,))
    >>> prior.has_density, list(prior.parameters())
    (True, [])
    """

    standard = True

    def forward(self, posterior: Posterior, given: Tensor | None) -> densities.StandardNormal:
        return densities.StandardNormal(self.units, posterior.like)


@final
class Conditional(Prior):
    """Represent p(z | given) = N(mean, diag(exp(logvar))), both predicted from the conditions
    (Sohn, Lee and Yan 2015).

    It starts at the standard normal.

    Args:
        units, given, alphabet: see Prior.
        width: hidden units of the network.

    Raises:
        ValueError: the model has no conditions.

    >>> sum(p.numel() for p in Conditional((2,), 3, width=8).parameters())
    68
    """

    def __init__(
        self, units: tuple[int, ...], given: int = 0, alphabet: int = 0, *, width: int = 64
    ) -> None:
        super().__init__(units, given, alphabet)
        if given < 1 or width < 1:
            raise ValueError(
                f"expected conditions (--condition COLUMN) and width >= 1 for the prior "
                f"conditional; got {given} and {width}"
            )
        last = nn.Linear(width, 2 * math.prod(units))
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.network = nn.Sequential(nn.Linear(given, width), nn.SiLU(), last)
        self.condition_weights = ("network.0.weight",)

    def forward(self, posterior: Posterior, given: Tensor | None) -> densities.Normal:
        if given is None:
            raise ValueError("expected conditions for p(z | given); got none")
        mean, logvar = (
            self.network(given.to(posterior.like.dtype)).unflatten(-1, (2, *self.units)).unbind(1)
        )
        return densities.Normal(mean, soft_limit(logvar, LOGVAR_LIMIT), len(self.units))


@final
class Bernoulli(Prior):
    """Represent independent units that are zero or one, each with probability 1/2, or with a
    learned probability.

    Args:
        units, given, alphabet: see Prior.
        learned: whether the probabilities are learned.

    >>> Bernoulli((3,), alphabet=1).logits
    Parameter containing:
    tensor([0., 0., 0.])
    """

    discrete = True

    def __init__(
        self, units: tuple[int, ...], given: int = 0, alphabet: int = 1, *, learned: bool = False
    ) -> None:
        super().__init__(units, given, alphabet)
        if alphabet != 1:
            raise ValueError(
                f"expected latents of zeros and ones for the prior bernoulli, or prior "
                f"categorical; got groups of {alphabet}"
            )
        self.logits = nn.Parameter(torch.zeros(units), requires_grad=learned)

    def forward(self, posterior: Posterior, given: Tensor | None) -> densities.Binary:
        return densities.Binary(self.logits, len(self.units))


@final
class Categorical(Prior):
    """Represent independent one-hot groups, with equal probabilities, or with learned ones.

    Args:
        units, given, alphabet: see Prior.
        learned: whether the probabilities are learned.

    >>> Categorical((6,), alphabet=3).logits.shape
    torch.Size([6])
    """

    discrete = True

    def __init__(
        self, units: tuple[int, ...], given: int = 0, alphabet: int = 10, *, learned: bool = False
    ) -> None:
        super().__init__(units, given, alphabet)
        if alphabet == 1:
            raise ValueError(
                "expected one-hot latents for the prior categorical, or prior bernoulli; got "
                "zeros and ones"
            )
        self.logits = nn.Parameter(torch.zeros(units), requires_grad=learned)

    def forward(self, posterior: Posterior, given: Tensor | None) -> densities.OneHot:
        return densities.OneHot(self.logits, self.alphabet, len(self.units))
