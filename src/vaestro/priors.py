"""The prior p(z)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

import torch.nn as nn
from torch import Tensor

from vaestro import densities
from vaestro.densities import Density
from vaestro.posteriors import Posterior


class Prior(nn.Module, ABC):
    """Describe p(z), or p(z | given).

    Args:
        units: the shape of one latent, *Z.
    """

    def __init__(self, units: tuple[int, ...]) -> None:
        super().__init__()
        self.units = units

    @abstractmethod
    def forward(self, posterior: Posterior, given: Tensor | None) -> Density:
        """Return p(z | given). Only a prior made of encoded pseudo-inputs uses the posterior, and none owns it."""


@final
class Normal(Prior):
    """Represent the standard normal N(0, 1) on every unit: fixed, nothing is learned."""

    def forward(self, posterior: Posterior, given: Tensor | None) -> densities.StandardNormal:
        return densities.StandardNormal(self.units, posterior.like)
