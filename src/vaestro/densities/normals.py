"""Normal densities over latents: the standard normal, any covariance, low-rank covariance.

With S = diag(std) and standard noise,

    standard      z = noise                            Cov(z) = I
    full          z = mean + S (I + T) noise           Cov(z) = S (I + T)(I + T)' S
    low rank      z = mean + S (noise + V noise')      Cov(z) = S (I + V V') S

T is strictly lower triangular, so that det(I + T) = 1 and

    log q(z) = sum_i log N(noise_i; 0, 1) - log std_i            noise = (I + T)^-1 S^-1 (z - mean)

(Kingma and Welling 2019, section 2.5.1). V has R columns. With M = I + V'V, Woodbury's identity and
the determinant lemma need a solve of size R only (Rezende, Mohamed and Wierstra 2014, section 4.3):

    (I + V V')^-1 = I - V M^-1 V'                      det(I + V V') = det(M)

The diagonal normal is `densities.Normal`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import final

import torch
from torch import Tensor

from vaestro.densities.core import LOG_2PI, full_precision, sum_cells
from vaestro.densities.latent import PosteriorDensity, PriorDensity


@final
class StandardNormal(PriorDensity):
    """Represent N(0, 1) on every unit of a latent of shape *Z.

    Args:
        shape: *Z.
        like: a tensor with the dtype and the device of the draws.

    >>> StandardNormal((2,), torch.zeros(())).log_prob(torch.zeros(2))  # -log(2 pi), in nats
    tensor(-1.8379)
    """

    def __init__(self, shape: tuple[int, ...], like: Tensor) -> None:
        self.shape, self._like = shape, like

    @property
    def mean(self) -> Tensor:
        """Return zeros, (*Z,)."""
        return self._like.new_zeros(self.shape)

    def draw(
        self, n: int, generator: torch.Generator | None = None, temperature: float = 1.0
    ) -> Tensor:
        noise = torch.randn(
            (n, *self.shape), generator=generator, dtype=self._like.dtype, device=self._like.device
        )
        return noise if temperature == 1 else temperature * noise

    def cells(self, value: Tensor) -> Tensor:
        """Return the log-density of each unit in nats, (..., *Z)."""
        return -0.5 * (value.square() + LOG_2PI)

    def log_prob(self, value: Tensor) -> Tensor:
        return sum_cells(self.cells(value), len(self.shape), None)


class CorrelatedNormal(PosteriorDensity, ABC):
    """Describe a normal with correlated units.

    Args:
        mean: (B, *Z).
        dims: number of dimensions of one latent.
    """

    def __init__(self, mean: Tensor, dims: int) -> None:
        self._mean, self.dims = mean, dims

    @property
    def mean(self) -> Tensor:
        return self._mean

    @abstractmethod
    def rate_to(self, mean: Tensor | float, logvar: Tensor | float) -> Tensor:
        """Return KL(q || N(mean, diag(exp(logvar)))) in nats, (B, ...)."""


@final
class FullNormal(CorrelatedNormal):
    """Represent a normal with any covariance: z = mean + std * (noise + T noise).

    Given the units before it, unit i is N(mean_i + std_i (T noise)_i, std_i^2). By the chain rule,
    the density and its KL to independent normals are therefore sums over units.

    Args:
        mean: (B, *Z).
        logvar: logarithm of the conditional variance std^2, (B, *Z).
        lower: T, strictly lower triangular, (B, n, n) for n units.
        dims: number of dimensions of one latent.

    >>> lower = torch.tensor([[[0.0, 0.0], [2.0, 0.0]]])
    >>> FullNormal(torch.zeros(1, 2), torch.zeros(1, 2), lower).mean_covariance()
    tensor([[1., 2.],
            [2., 5.]])
    """

    def __init__(self, mean: Tensor, logvar: Tensor, lower: Tensor, dims: int = 1) -> None:
        super().__init__(mean, dims)
        self.conditional_logvar, self.lower = logvar, lower
        self._last: tuple[Tensor, Tensor] | None = None  # the last z and its noise

    @property
    def variance(self) -> Tensor:
        """Return the marginal variance of each unit, (B, *Z)."""
        return torch.exp(self.conditional_logvar) * (
            1 + self.lower.square().sum(-1).reshape(self.mean.shape)
        )

    def _unit_triangle(self) -> Tensor:
        """Return I + T, (B, n, n)."""
        n, dtype, device = self.lower.shape[-1], self.lower.dtype, self.lower.device
        return self.lower + torch.eye(n, dtype=dtype, device=device)

    @full_precision
    def mean_covariance(self) -> Tensor:
        """Return S (I + T) (I + T)' S, averaged over the data, (n, n)."""
        std = torch.exp(0.5 * self.conditional_logvar.flatten(1)).unsqueeze(-1)
        factor = std * self._unit_triangle()
        return torch.einsum("bik,bjk->ij", factor, factor) / len(factor)

    @full_precision
    def from_noise(self, noise: Tensor) -> Tensor:
        """Return z, (K, B, *Z), from standard normal noise of the same shape."""
        flat = noise.flatten(noise.ndim - self.dims)
        mixed = torch.einsum("bij,kbj->kbi", self.lower, flat).reshape(noise.shape)
        z = torch.addcmul(self.mean, torch.exp(0.5 * self.conditional_logvar), noise + mixed)
        self._last = z, noise
        return z

    @full_precision
    def log_prob(self, value: Tensor) -> Tensor:
        """Return log-densities in nats, (...). The last draw is scored with its noise; other points
        need a triangular solve."""
        if self._last is not None and value is self._last[0]:
            noise = self._last[1]
        else:
            noise = self._noise_of(value)
        return sum_cells(
            -0.5 * (noise.square() + self.conditional_logvar + LOG_2PI), self.dims, None
        )

    def _noise_of(self, value: Tensor) -> Tensor:
        scaled = ((value - self.mean) * torch.exp(-0.5 * self.conditional_logvar)).flatten(
            value.ndim - self.dims
        )
        # The values may have more leading dimensions than the matrices: these become columns.
        lead, rows = scaled.shape[:-2], scaled.shape[-2]
        columns = scaled.reshape(-1, rows, scaled.shape[-1]).permute(1, 2, 0)
        solved = torch.linalg.solve_triangular(
            self._unit_triangle().to(scaled.dtype), columns, upper=False, unitriangular=True
        )
        return solved.permute(2, 0, 1).reshape(
            *lead, rows, *self.mean.shape[self.mean.ndim - self.dims :]
        )

    @full_precision
    def rate_to(self, mean: Tensor | float, logvar: Tensor | float) -> Tensor:
        """Return KL to N(mean, exp(logvar)) of each unit given the units before it, (B, *Z).

        With r = conditional logvar - logvar,

            KL_i = ((q.mean_i - mean_i)^2 exp(-logvar_i)
                    + exp(r_i) sum_j T_ij^2 + exp(r_i) - 1 - r_i) / 2
        """
        ratio = self.conditional_logvar - logvar
        shift = (self.mean - mean).square() * (
            torch.exp(-logvar) if isinstance(logvar, Tensor) else math.exp(-logvar)
        )
        return 0.5 * (
            shift
            + torch.exp(ratio) * self.lower.square().sum(-1).reshape(self.mean.shape)
            + torch.expm1(ratio)
            - ratio
        )

    def detach(self) -> FullNormal:
        return FullNormal(
            self.mean.detach(), self.conditional_logvar.detach(), self.lower.detach(), self.dims
        )


@final
class LowRankNormal(CorrelatedNormal):
    """Represent a normal with covariance S (I + V V') S: independent noise plus R directions that
    all units share.

    Args:
        mean: (B, *Z).
        logvar: logarithm of the diagonal S^2, (B, *Z).
        factors: V, (B, n, R) for n units.
        dims: number of dimensions of one latent.

    >>> factors = torch.ones(1, 2, 1)
    >>> LowRankNormal(torch.zeros(1, 2), torch.zeros(1, 2), factors).mean_covariance()
    tensor([[2., 1.],
            [1., 2.]])
    """

    def __init__(self, mean: Tensor, logvar: Tensor, factors: Tensor, dims: int = 1) -> None:
        super().__init__(mean, dims)
        self.diagonal_logvar, self.factors = logvar, factors

    @property
    def variance(self) -> Tensor:
        """Return the marginal variance of each unit, (B, *Z)."""
        return torch.exp(self.diagonal_logvar) * (
            1 + self.factors.square().sum(-1).reshape(self.mean.shape)
        )

    @full_precision
    def mean_covariance(self) -> Tensor:
        """Return S (I + V V') S, averaged over the data, (n, n)."""
        logvar = self.diagonal_logvar.flatten(1)
        factor = torch.exp(0.5 * logvar).unsqueeze(-1) * self.factors
        return torch.diag(torch.exp(logvar).mean(0)) + torch.einsum(
            "bik,bjk->ij", factor, factor
        ) / len(factor)

    @full_precision
    def from_noise(self, noise: Tensor) -> Tensor:
        """Return z, (K, B, *Z), from standard normal noise, (K, B, n + R)."""
        n = self.factors.shape[-2]
        mixed = noise[..., :n] + torch.einsum("bir,kbr->kbi", self.factors, noise[..., n:])
        return torch.addcmul(
            self.mean,
            torch.exp(0.5 * self.diagonal_logvar),
            mixed.reshape(*noise.shape[:2], *self.mean.shape[1:]),
        )

    def _capacitance(self) -> Tensor:
        """Return the Cholesky factor of I + V'V, (B, R, R)."""
        rank = self.factors.shape[-1]
        eye = torch.eye(rank, dtype=self.factors.dtype, device=self.factors.device)
        return torch.linalg.cholesky(eye + self.factors.mT @ self.factors)

    @full_precision
    def log_prob(self, value: Tensor) -> Tensor:
        scaled = ((value - self.mean) * torch.exp(-0.5 * self.diagonal_logvar)).flatten(
            value.ndim - self.dims
        )
        factor = self._capacitance()
        projected = torch.einsum("bir,...bi->...br", self.factors, scaled)
        lead, rows = projected.shape[:-2], projected.shape[-2]
        columns = projected.reshape(-1, rows, projected.shape[-1]).permute(1, 2, 0)
        shared = (
            torch.linalg.solve_triangular(factor, columns, upper=False)
            .square()
            .sum(1)
            .T.reshape(*lead, rows)
        )
        return -0.5 * (
            scaled.square().sum(-1) - shared + self._log_det(factor) + scaled.shape[-1] * LOG_2PI
        )

    def _log_det(self, factor: Tensor) -> Tensor:
        """Return the log-determinant of the covariance, (B,)."""
        of_directions = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return self.diagonal_logvar.flatten(1).sum(-1) + of_directions

    @full_precision
    def rate_to(self, mean: Tensor | float, logvar: Tensor | float) -> Tensor:
        """Return KL to N(mean, exp(logvar)), summed over units, (B, 1).

        The units share noise, so that the KL is not a sum of terms of single units:

            KL = (sum_i ((mean_i - m_i)^2 + Var(z_i)) exp(-logvar_i) - 1 + logvar_i
                  - log det Cov(z)) / 2
        """
        logvar = torch.as_tensor(logvar, dtype=self.mean.dtype, device=self.mean.device)
        precision = torch.exp(-logvar)
        parts = ((self.mean - mean).square() + self.variance) * precision - 1 + logvar
        return 0.5 * (
            parts.expand(self.mean.shape).flatten(1).sum(-1) - self._log_det(self._capacitance())
        ).unsqueeze(-1)

    def detach(self) -> LowRankNormal:
        return LowRankNormal(
            self.mean.detach(), self.diagonal_logvar.detach(), self.factors.detach(), self.dims
        )
