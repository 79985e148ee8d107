"""Second moments of q(z | x), which penalties on the aggregate posterior use.

By the law of total covariance, z drawn from q(z | x) for a random datum x has covariance

    Cov(z) = Cov(E[z | x]) + E[Cov(z | x)]
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Self

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

    @abstractmethod
    def cells(self, value: Tensor) -> Tensor:
        """Return the log-density of each unit in nats, (..., *Z)."""

    @abstractmethod
    def mapped(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Return the density whose parameters are a function of the parameters of this one."""

    def detach(self) -> Self:
        """Return the density with detached parameters."""
        return self.mapped(Tensor.detach)

    def mean_covariance(self) -> Tensor:
        return torch.diag(self.variance.flatten(1).mean(0))
