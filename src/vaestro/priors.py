"""The prior p(z)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import final

import torch
import torch.nn as nn
from torch import Tensor

from vaestro import densities
from vaestro.densities import Density, soft_limit
from vaestro.posteriors import Posterior


class Prior(nn.Module, ABC):
    """Describe p(z), or p(z | given).

    Args:
        units: the shape of one latent, *Z.
        given: how many numbers describe the conditions of one datum; 0 without.
    """

    def __init__(self, units: tuple[int, ...], given: int = 0) -> None:
        super().__init__()
        self.units, self.given = units, given

    @abstractmethod
    def forward(self, posterior: Posterior, given: Tensor | None) -> Density:
        """Return p(z | given). Only a prior made of encoded pseudo-inputs uses the posterior, and none owns it."""

    def draw(self, posterior: Posterior, given: Tensor | None, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n latents, (n, *Z), one for each row of `given` where there are conditions."""
        return self(posterior, given).sample(n, generator)  # type: ignore[no-any-return]


@final
class Normal(Prior):
    """Represent the standard normal N(0, 1) on every unit: fixed, nothing is learned."""

    def forward(self, posterior: Posterior, given: Tensor | None) -> densities.StandardNormal:
        return densities.StandardNormal(self.units, posterior.like)


@final
class Conditional(Prior):
    """Represent p(z | given) = N(mean, diag(exp(logvar))), both predicted from the conditions (Sohn, Lee and Yan 2015).

    It starts at the standard normal.

    Args:
        units, given: see Prior.
        width: hidden units of the network.

    Raises:
        ValueError: the model has no conditions.
    """

    def __init__(self, units: tuple[int, ...], given: int = 0, *, width: int = 64) -> None:
        super().__init__(units, given)
        if given < 1 or width < 1:
            raise ValueError(f"expected conditions (--condition COLUMN) and width >= 1 for the prior conditional; got {given} and {width}")
        last = nn.Linear(width, 2 * math.prod(units))
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.network = nn.Sequential(nn.Linear(given, width), nn.SiLU(), last)

    def forward(self, posterior: Posterior, given: Tensor | None) -> densities.Normal:
        if given is None:
            raise ValueError("expected conditions for p(z | given); got none")
        mean, logvar = self.network(given.to(posterior.like.dtype)).unflatten(-1, (2, *self.units)).unbind(1)
        return densities.Normal(mean, soft_limit(logvar, 20.0), len(self.units))

    def draw(self, posterior: Posterior, given: Tensor | None, n: int, generator: torch.Generator | None = None) -> Tensor:
        return self(posterior, given).sample(generator)  # type: ignore[no-any-return]
