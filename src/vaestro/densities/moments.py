"""Second moments of q(z | x), which penalties on the aggregate posterior use.

By the law of total covariance, z drawn from q(z | x) for a random datum x has covariance

    Cov(z) = Cov(E[z | x]) + E[Cov(z | x)]
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class LatentDensity(ABC):
    """Describe q(z | x) for a batch of B data with n units each."""

    @abstractmethod
    def mean_covariance(self) -> Tensor:
        """Return the covariance of the units of z given x, averaged over the data of the batch, (n,
        n)."""


class IndependentUnits(LatentDensity):
    """Describe q(z | x) whose units are independent given x."""

    @property
    @abstractmethod
    def variance(self) -> Tensor:
        """Return the variance of each unit, (B, *Z)."""

    def mean_covariance(self) -> Tensor:
        return torch.diag(self.variance.flatten(1).mean(0))
