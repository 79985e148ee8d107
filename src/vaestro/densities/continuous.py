"""Densities of real values. Those with a location and a scale are used for p(x | z) and q(z | x).

For y = (x - location) / scale and the standard member f of a family,

    log p(x) = log f(y) - log(scale)          in each cell

    normal      log f(y) = -(y^2 + log 2 pi) / 2, scale = exp(logvar / 2)
    Laplace     log f(y) = -|y| - log 2
    logistic    log f(y) = -y - 2 log(1 + exp(-y))
    Student t   log f(y) = -(df + 1) / 2 log(1 + y^2 / df) + constant(df)
    Gumbel      log f(y) = -y - exp(-y)
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Self, final

import torch
import torch.nn.functional as F
from torch import Tensor

from vaestro.densities.core import LOG_2PI, Cells, uniform
from vaestro.densities.latent import IndependentUnits, PriorDensity

EULER = 0.5772156649015329


@final
class Normal(Cells, IndependentUnits, PriorDensity):
    """Represent a normal with diagonal covariance.

    Args:
        mean, logvar: tensors that broadcast to (..., *X).
        dims: number of dimensions of one datum.

    >>> normal = Normal(torch.zeros(2), torch.zeros(2))
    >>> normal.log_prob(torch.zeros(2))  # -log(2 pi), in nats
    tensor(-1.8379)
    """

    def __init__(self, mean: Tensor, logvar: Tensor, dims: int = 1) -> None:
        self._mean, self._logvar, self.dims = mean, logvar, dims

    @property
    def mean(self) -> Tensor:
        return self._mean

    @property
    def logvar(self) -> Tensor:
        return self._logvar

    @property
    def shared(self) -> bool:
        return self.mean.ndim <= self.dims

    @property
    def std(self) -> Tensor:
        """Return the standard deviation, exp(logvar / 2)."""
        return torch.exp(0.5 * self.logvar)

    @property
    def variance(self) -> Tensor:
        """Return the variance, exp(logvar)."""
        return torch.exp(self.logvar)

    def from_noise(self, noise: Tensor) -> Tensor:
        """Return mean + std * noise: the reparameterization (Kingma and Welling 2014; Rezende et
        al. 2014)."""
        return torch.addcmul(self.mean, self.std, noise)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draw one value for each set of parameters."""
        mean = self.mean.detach()
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
        return mean + self.std.detach() * noise

    def draw(
        self, n: int, generator: torch.Generator | None = None, temperature: float = 1.0
    ) -> Tensor:
        mean = self.mean.expand(n, *self.mean.shape[self.mean.ndim - self.dims :])
        z = Normal(mean, self.logvar, self.dims).sample(generator)
        return z if temperature == 1 else mean + temperature * (z - mean)

    def cells(self, value: Tensor) -> Tensor:
        squared = (value - self.mean).square() * torch.exp(-self.logvar)
        return -0.5 * (squared + self.logvar + LOG_2PI)

    def standardised_residual(self, value: Tensor) -> Tensor:
        return (value - self.mean).square() * torch.exp(-self.logvar)

    def mapped(self, function: Callable[[Tensor], Tensor]) -> Self:
        return type(self)(function(self.mean), function(self.logvar), self.dims)


class LocationScale(Cells, IndependentUnits, ABC):
    """Describe a family x = loc + scale * noise.

    Args:
        loc, log_scale: tensors that broadcast to (..., *X).
        dims: number of dimensions of one datum.
    """

    def __init__(self, loc: Tensor, log_scale: Tensor, dims: int = 1) -> None:
        self.loc, self.log_scale, self.dims = loc, log_scale, dims

    @property
    @abstractmethod
    def moments(self) -> tuple[float, float | Tensor, float | Tensor]:
        """Return mean, variance and entropy (in nats) of the standard member. The variance may be
        infinite."""

    @property
    def mean(self) -> Tensor:
        """Return the mean, loc + scale * (mean of the standard member)."""
        centre = self.moments[0]
        return self.loc if centre == 0 else self.loc + centre * torch.exp(self.log_scale)

    @property
    def variance(self) -> Tensor:
        """Return the variance of each cell."""
        return torch.exp(2 * self.log_scale) * self.moments[1]

    @property
    def entropy(self) -> Tensor:
        """Return the entropy of each cell in nats."""
        return self.log_scale + self.moments[2]

    def from_noise(self, noise: Tensor) -> Tensor:
        """Return loc + scale * noise: the reparameterization of a location-scale family (Kingma and
        Welling 2014)."""
        return torch.addcmul(self.loc, torch.exp(self.log_scale), noise)

    def mapped(self, function: Callable[[Tensor], Tensor]) -> Self:
        density = copy.copy(self)
        density.loc, density.log_scale = function(self.loc), function(self.log_scale)
        return density

    @abstractmethod
    def standard(self, y: Tensor) -> Tensor:
        """Return the log-density of the standard member at y."""

    @abstractmethod
    def pull(self, y: Tensor) -> Tensor:
        """Return -y d log f(y) / dy for the standard density f. Its mean over draws is 1 (see
        `standardised_residual`)."""

    @abstractmethod
    def noise(self, generator: torch.Generator | None) -> Tensor:
        """Draw from the standard member, in the shape of loc."""

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        return self.loc + torch.exp(self.log_scale) * self.noise(generator)

    def cells(self, value: Tensor) -> Tensor:
        return self.standard((value - self.loc) * torch.exp(-self.log_scale)) - self.log_scale

    def standardised_residual(self, value: Tensor) -> Tensor:
        return self.pull((value - self.loc) * torch.exp(-self.log_scale))


@final
class Laplace(LocationScale):
    """Represent independent Laplace cells: exp(-|y|) / (2 scale), with y = (x - loc) / scale.

    >>> Laplace(torch.zeros(1), torch.zeros(1)).variance
    tensor([2.])
    """

    moments = (0.0, 2.0, 1 + math.log(2))

    def standard(self, y: Tensor) -> Tensor:
        return -y.abs() - math.log(2)

    def pull(self, y: Tensor) -> Tensor:
        return y.abs()

    def noise(self, generator: torch.Generator | None) -> Tensor:
        u = uniform(self.loc, generator) - 0.5
        return -u.sign() * torch.log1p(-2 * u.abs())


@final
class Logistic(LocationScale):
    """Represent independent logistic cells, whose distribution function is a sigmoid.

    >>> Logistic(torch.zeros(1), torch.zeros(1)).entropy
    tensor([2.])
    """

    moments = (0.0, math.pi**2 / 3, 2.0)

    def standard(self, y: Tensor) -> Tensor:
        size = y.abs()
        return -size - 2 * F.softplus(-size)

    def pull(self, y: Tensor) -> Tensor:
        return y * torch.tanh(y / 2)

    def noise(self, generator: torch.Generator | None) -> Tensor:
        return torch.logit(uniform(self.loc, generator))


@final
class StudentT(LocationScale):
    """Represent independent cells of Student's t with `df` > 1 degrees of freedom.

    Args:
        loc, log_scale, df: tensors that broadcast to (..., *X).
        dims: number of dimensions of one datum.

    >>> StudentT(torch.zeros(1), torch.zeros(1), torch.tensor(4.0)).variance
    tensor([2.])
    """

    def __init__(self, loc: Tensor, log_scale: Tensor, df: Tensor, dims: int = 1) -> None:
        super().__init__(loc, log_scale, dims)
        self.df = df

    @property
    def moments(self) -> tuple[float, Tensor, Tensor]:
        df, half = self.df, (self.df + 1) / 2
        variance = torch.where(df > 2, df / (df - 2).clamp_min(1e-6), math.inf)
        beta = torch.lgamma(df / 2) + math.lgamma(0.5) - torch.lgamma(half)
        entropy = half * (torch.digamma(half) - torch.digamma(df / 2)) + 0.5 * torch.log(df) + beta
        return 0.0, variance, entropy

    def standard(self, y: Tensor) -> Tensor:
        half = (self.df + 1) / 2
        constant = (
            torch.lgamma(half) - torch.lgamma(self.df / 2) - 0.5 * torch.log(self.df * math.pi)
        )
        return constant - half * torch.log1p(y.square() / self.df)

    def pull(self, y: Tensor) -> Tensor:
        # this form has no NaN at y = 0, nor if the square overflows
        return (self.df + 1) / (1 + self.df / y.square())

    def noise(self, generator: torch.Generator | None) -> Tensor:
        loc = self.loc
        normal = torch.randn(loc.shape, generator=generator, dtype=loc.dtype, device=loc.device)
        half = (self.df / 2).expand(loc.shape).contiguous()
        return normal * torch.sqrt(half / torch._standard_gamma(half, generator=generator))


@final
class Gumbel(LocationScale):
    """Represent independent Gumbel cells: exp(-y - exp(-y)) / scale, the limit of the largest of
    many draws.

    >>> Gumbel(torch.zeros(1), torch.zeros(1)).mean
    tensor([0.5772])
    """

    moments = (EULER, math.pi**2 / 6, EULER + 1)

    def standard(self, y: Tensor) -> Tensor:
        return -y - torch.exp(-y)

    def pull(self, y: Tensor) -> Tensor:
        return y * -torch.expm1(-y)

    def noise(self, generator: torch.Generator | None) -> Tensor:
        return gumbel_noise(self.loc, generator)


def gumbel_noise(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw standard Gumbel noise in the shape of a tensor.

    >>> gumbel_noise(torch.zeros(2, 3), None).shape
    torch.Size([2, 3])
    """
    return -torch.log(-torch.log(uniform(like, generator)))


@final
class ContinuousBernoulli(Cells):
    """Represent values inside (0, 1) with density exp(l x) l / (exp(l) - 1) (Loaiza-Ganem and
    Cunningham 2019).

    Args:
        logits: l, (..., *X).
        dims: number of dimensions of one datum.

    >>> ContinuousBernoulli(torch.zeros(3)).mean
    tensor([0.5000, 0.5000, 0.5000])
    """

    def __init__(self, logits: Tensor, dims: int = 1) -> None:
        self.logits, self.dims = logits, dims

    def _small_and_size(self) -> tuple[Tensor, Tensor]:
        """Return where |l| is too small for the closed form, and |l| with 1 there, so that no
        branch returns NaN."""
        size = self.logits.abs()
        small = size < 0.05
        return small, torch.where(small, 1.0, size)

    @property
    def mean(self) -> Tensor:
        """Return 1 / (1 - exp(-l)) - 1 / l."""
        small, size = self._small_and_size()
        far = -1 / torch.expm1(-size) - 1 / size
        far = torch.where(self.logits > 0, far, 1 - far)
        return torch.where(small, 0.5 + self.logits / 12 - self.logits**3 / 720, far)

    def cells(self, value: Tensor) -> Tensor:
        # the log of the integral of exp(l x) is l / 2 + log(sinh(l / 2) / (l / 2))
        small, size = self._small_and_size()
        squared = self.logits.square()
        near = squared / 24 - squared.square() / 2880
        far = size / 2 + torch.log(-torch.expm1(-size) / size)
        return self.logits * (value - 0.5) - torch.where(small, near, far)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        # nothing cancels here: only l = 0 must be avoided
        size = self.logits.abs().clamp_min(1e-6)
        u = uniform(self.logits, generator)
        falling = -torch.log1p(u * torch.expm1(-size)) / size
        x = torch.where(self.logits > 0, 1 - falling, falling)
        tiny = torch.finfo(x.dtype).eps
        return x.clamp(tiny, 1 - tiny)
