"""KL(q(z | x) || p(z)) in closed form, for the pairs of families that have one.

    normals           KL = (s^2 / t^2 + (m - n)^2 / t^2 - 1 - log(s^2 / t^2)) / 2
                      of N(m, s^2) to N(n, t^2), for each unit (Kingma and Welling 2014, appendix B)
    location-scale    KL = (log(2 pi t^2) + ((m - n)^2 + Var(z)) / t^2) / 2 - H(q)
                      of any family with mean m and entropy H to N(n, t^2), for each unit
    discrete          KL = sum_c q_c (log q_c - log p_c), for each unit or one-hot group

Normals with correlated units: see `normals`. Other pairs use log q - log p at the draws.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from vaestro.densities.continuous import LocationScale, Normal
from vaestro.densities.core import LOG_2PI
from vaestro.densities.discrete_latents import Binary, OneHot
from vaestro.densities.latent import LatentDensity
from vaestro.densities.normals import CorrelatedNormal, StandardNormal

_RATES: dict[tuple[type, type], Callable[..., Tensor | None]] = {}
Rate = TypeVar("Rate", bound=Callable[..., Tensor | None])


def register_kl(q: type, p: type) -> Callable[[Rate], Rate]:
    """Register a function as the closed form of KL(q || p) for two classes of densities.

    The function takes q and p and returns the KL in nats, (B, ...), or None if these two have no
    closed form. Subclasses of the two classes use it too, as in torch.distributions.

    >>> from vaestro.densities import Binary, closed_form_kl, register_kl
    >>> class Coins(Binary):
    ...     pass
    >>> @register_kl(Coins, Coins)
    ... def rate(q, p):
    ...     return torch.zeros(1)
    >>> coins = Coins(torch.zeros(1))
    >>> closed_form_kl(coins, coins)
    tensor([[0.]])
    """

    def register(rate: Rate) -> Rate:
        _RATES[q, p] = rate
        return rate

    return register


def closed_form_kl(q: LatentDensity, p: LatentDensity) -> Tensor | None:
    """Return KL(q || p) in nats, (1, B, ...); None if no closed form is registered.

    The KL of independent units is that of each unit, (1, B, *Z). With a full covariance it is the
    KL of each unit given the units before it, with a low-rank covariance their sum, (1, B, 1), and
    for one-hot latents the KL of each group.

    >>> from vaestro.densities import Normal, StandardNormal
    >>> q = Normal(torch.ones(1, 2), torch.zeros(1, 2))
    >>> closed_form_kl(q, StandardNormal((2,), torch.zeros(())))
    tensor([[[0.5000, 0.5000]]])
    """
    for of_q in type(q).__mro__:
        for of_p in type(p).__mro__:
            if (of_q, of_p) in _RATES:
                rate = _RATES[of_q, of_p](q, p)
                return None if rate is None else rate.unsqueeze(0)
    return None


# The standard normal has separate formulas without the factor exp(-0), with equal results.


@register_kl(Normal, StandardNormal)
def _(q: Normal, p: StandardNormal) -> Tensor:
    return 0.5 * (q.mean.square() + torch.expm1(q.logvar) - q.logvar)


@register_kl(Normal, Normal)
def _(q: Normal, p: Normal) -> Tensor:
    ratio = q.logvar - p.logvar
    return 0.5 * ((q.mean - p.mean).square() * torch.exp(-p.logvar) + torch.expm1(ratio) - ratio)


@register_kl(CorrelatedNormal, StandardNormal)
def _(q: CorrelatedNormal, p: StandardNormal) -> Tensor:
    return q.rate_to(0.0, 0.0)


@register_kl(CorrelatedNormal, Normal)
def _(q: CorrelatedNormal, p: Normal) -> Tensor:
    return q.rate_to(p.mean, p.logvar)


@register_kl(LocationScale, StandardNormal)
def _(q: LocationScale, p: StandardNormal) -> Tensor:
    return 0.5 * (LOG_2PI + (q.mean.square() + q.variance)) - q.entropy


@register_kl(LocationScale, Normal)
def _(q: LocationScale, p: Normal) -> Tensor:
    second_moment = (q.mean - p.mean).square() + q.variance
    return 0.5 * (LOG_2PI + p.logvar + second_moment * torch.exp(-p.logvar)) - q.entropy


@register_kl(Binary, Binary)
def _(q: Binary, p: Binary) -> Tensor:
    return q.rate_to(p)


@register_kl(OneHot, OneHot)
def _(q: OneHot, p: OneHot) -> Tensor | None:
    return q.rate_to(p) if p.codes == q.codes else None
