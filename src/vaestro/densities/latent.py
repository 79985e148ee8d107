"""Interfaces of densities over latents: what q(z | x) and p(z) must offer.

A latent has shape *Z. Draws have two leading dimensions: K draws for each of B data. Log-densities
are in nats and have the shape of the leading dimensions:

    log_prob: (K, B, *Z) -> (K, B)

A posterior density is a function of standard noise, z = f(noise, parameters), so that gradients
reach its parameters (Kingma and Welling 2014; Rezende, Mohamed and Wierstra 2014). A prior density
draws new latents. Properties that have no closed form in a family are None.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Self

import torch
from torch import Tensor


class LatentDensity(ABC):
    """Describe a density over latents."""

    @property
    def mean(self) -> Tensor:
        """Return the mean, (..., *Z).

        Raises:
            NotImplementedError: the density has no mean in closed form.
        """
        raise NotImplementedError(f"{type(self).__name__} has no mean in closed form")

    @abstractmethod
    def log_prob(self, value: Tensor) -> Tensor:
        """Return log-densities in nats, (...), of latents (..., *Z)."""


class PosteriorDensity(LatentDensity, ABC):
    """Describe q(z | x) for a batch of B data.

    A family needs `mean`, `log_prob`, `from_noise` and `detach`. It overrides the other properties
    if it has them in closed form.
    """

    # whether log_prob costs the same at any z as at the density's own draws
    scored_anywhere: ClassVar[bool] = True

    @property
    @abstractmethod
    def mean(self) -> Tensor:
        """Return the mean of each unit, (B, *Z)."""

    @property
    def variance(self) -> Tensor | None:
        """Return the variance of each unit, (B, *Z); None without a closed form."""
        return None

    @property
    def logvar(self) -> Tensor | None:
        """Return the log-variance of each unit, (B, *Z), if it is a parameter; else None."""
        return None

    @property
    def entropy(self) -> Tensor | None:
        """Return the entropy of each unit in nats, (B, *Z); None without a closed form."""
        return None

    @abstractmethod
    def from_noise(self, noise: Tensor) -> Tensor:
        """Return z, (K, B, *Z), from standard noise."""

    def relaxed(self, noise: Tensor, temperature: float) -> Tensor:
        """Return a differentiable approximation of discrete z, (K, B, *Z).

        Raises:
            NotImplementedError: the latents are real.
        """
        raise NotImplementedError(f"{type(self).__name__} has no relaxation: its latents are real")

    @abstractmethod
    def detach(self) -> Self:
        """Return the same density with parameters detached from the graph."""

    def mean_covariance(self) -> Tensor | None:
        """Return Cov(z | x) averaged over the batch, (n, n) for n units; None without a closed
        form.

        By the law of total covariance, z drawn from q(z | x) for a random datum x has covariance

            Cov(z) = Cov(E[z | x]) + E[Cov(z | x)]
        """
        return None


class IndependentUnits(PosteriorDensity, ABC):
    """Describe q(z | x) with independent units."""

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
        return self.mapped(Tensor.detach)

    def mean_covariance(self) -> Tensor:
        return torch.diag(self.variance.flatten(1).mean(0))


class PriorDensity(LatentDensity, ABC):
    """Describe p(z), or p(z | given) for a batch of B data."""

    @property
    def shared(self) -> bool:
        """Return whether all data have the same density. If not, `mean` is (B, *Z)."""
        return True

    @abstractmethod
    def draw(
        self, n: int, generator: torch.Generator | None = None, temperature: float = 1.0
    ) -> Tensor:
        """Draw n latents, (n, *Z).

        Args:
            n: number of draws; the number of data if each datum has its own density.
            generator: source of randomness; None for the global one.
            temperature: factor of the noise. At 0 a draw is the most probable point, given the
                component of a mixture.
        """
