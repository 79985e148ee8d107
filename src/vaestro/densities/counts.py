"""Densities of counts.

    Poisson             log p(x) = x log m - m - log x!
    negative binomial   log p(x) = lgamma(x + r) - lgamma(r) - log x!
                                   - r log(1 + m / r) - x log(1 + r / m)
    zero-inflated       p(x) = sigmoid(l) [x = 0] + sigmoid(-l) p_base(x)

In each cell, m is the mean and r the inverse dispersion.
"""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from vaestro.densities.core import LOG_2PI, Cells, softplus


def _beyond_power(y: Tensor) -> Tensor:
    """Return log(y!) - y log y + y for y >= 0, about log(2 pi y) / 2, without cancellation.

    In float32 the rounding error of each term is one nat at counts of a million.
    """
    small = y < 16
    near = torch.where(small, y, 1.0).clamp_min(1e-30)
    far = torch.where(small, 16.0, y)
    square = far**-2
    series = (
        0.5 * (LOG_2PI + torch.log(far))
        + (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square / 1680))) / far
    )
    return torch.where(small, torch.lgamma(near + 1) - near * torch.log(near) + near, series)


def _apart(value: Tensor, mean: Tensor) -> Tensor:
    """Return the difference of counts and means after the transform that makes the variance of a
    Poisson variable about 1 (Anscombe 1948)."""
    return 2 * (torch.sqrt(value.to(mean.dtype) + 0.375) - torch.sqrt(mean + 0.375))


@final
class Poisson(Cells):
    """Represent independent Poisson counts by the logarithm of their mean, (..., *X).

    >>> Poisson(torch.zeros(2)).log_prob(torch.tensor([0, 1]))
    tensor(-2.)
    """

    def __init__(self, log_rate: Tensor, dims: int = 1) -> None:
        self.log_rate, self.dims = log_rate, dims

    @property
    def mean(self) -> Tensor:
        return torch.exp(self.log_rate)

    def cells(self, value: Tensor) -> Tensor:
        value = value.to(self.log_rate.dtype)
        apart = self.log_rate - torch.log(value.clamp_min(1))
        body = torch.where(
            value > 0, value * (apart - torch.expm1(apart)), -torch.exp(self.log_rate)
        )
        return body - _beyond_power(value)

    def residual(self, value: Tensor) -> Tensor:
        return _apart(value, self.mean)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        return torch.poisson(self.mean, generator=generator)


@final
class NegativeBinomial(Cells):
    """Represent independent counts by mean and inverse dispersion: a Poisson whose rate is
    Gamma-distributed.

    The variance is mean + mean^2 / exp(log_inverse). For a large inverse dispersion the density
    approaches the Poisson.

    Args:
        log_mean, log_inverse: tensors that broadcast to (..., *X).
        dims: number of dimensions of one datum.

    >>> NegativeBinomial(torch.zeros(1), torch.zeros(1)).log_prob(torch.zeros(1))  # -log 2
    tensor(-0.6931)
    """

    def __init__(self, log_mean: Tensor, log_inverse: Tensor, dims: int = 1) -> None:
        self.log_mean, self.log_inverse, self.dims = log_mean, log_inverse, dims

    @property
    def mean(self) -> Tensor:
        return torch.exp(self.log_mean)

    def cells(self, value: Tensor) -> Tensor:
        value = value.to(self.log_mean.dtype)
        # lgamma(x + r) - lgamma(r) - lgamma(x + 1) - r log(1 + mean / r) - x log(1 + r / mean),
        # with each large term written as a difference
        r = torch.exp(self.log_inverse)
        odds = self.log_mean - self.log_inverse
        at_value = torch.log(value.clamp_min(1e-30)) - self.log_inverse
        constant = (
            _beyond_power(value + r) - _beyond_power(r) - _beyond_power(value) - softplus(at_value)
        )
        return (
            constant
            + r * (softplus(at_value) - softplus(odds))
            + value * (softplus(-at_value) - softplus(-odds))
        )

    def residual(self, value: Tensor) -> Tensor:
        return _apart(value, self.mean)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        r = torch.exp(self.log_inverse).expand(self.log_mean.shape).contiguous()
        rate = torch._standard_gamma(r, generator=generator) * torch.exp(
            self.log_mean - self.log_inverse
        )
        return torch.poisson(rate, generator=generator)


@final
class ZeroInflated(Cells):
    """Represent counts that are 0 with probability sigmoid(logit), and otherwise have a base
    density.

    Args:
        base: a density over counts.
        logit: (..., *X).

    >>> ZeroInflated(Poisson(torch.zeros(1)), torch.zeros(1)).mean
    tensor([0.5000])
    """

    def __init__(self, base: NegativeBinomial | Poisson, logit: Tensor) -> None:
        self.base, self.logit, self.dims = base, logit, base.dims

    @property
    def mean(self) -> Tensor:
        return torch.sigmoid(-self.logit) * self.base.mean

    def cells(self, value: Tensor) -> Tensor:
        counted = F.logsigmoid(-self.logit) + self.base.cells(value)
        return torch.where(value == 0, torch.logaddexp(F.logsigmoid(self.logit), counted), counted)

    def residual(self, value: Tensor) -> Tensor:
        return _apart(value, self.mean)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        counted = self.base.sample(generator)
        return counted * torch.bernoulli(
            torch.sigmoid(-self.logit).expand_as(counted), generator=generator
        )
