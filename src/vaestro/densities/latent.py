"""Densities over latents, and the closed form of their KL where there is one.

What serves as q(z | x) makes draws of noise from outside (`from_noise`) and can be cut from the
graph (`detach`). What serves as p(z) draws rows (`sample`), at a temperature by which its own noise
is multiplied: at 0 the most likely of what it would draw.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from vaestro.densities.continuous import LocationScale, Normal, gumbel_noise
from vaestro.densities.core import LOG_2PI, Density, full_precision, sum_cells, uniform
from vaestro.densities.moments import IndependentUnits, LatentDensity

BLOCK = 2**20  # numbers at once, which stay in the cache


class StandardNormal:
    """Represent N(0, 1) on every unit of a latent of shape *Z."""

    shared = True

    def __init__(self, shape: tuple[int, ...], like: Tensor) -> None:
        self.shape, self._like = shape, like

    @property
    def mean(self) -> Tensor:
        """Return zeros, (*Z,)."""
        return self._like.new_zeros(self.shape)

    def sample(
        self, rows: int, generator: torch.Generator | None = None, temperature: float = 1.0
    ) -> Tensor:
        """Draw (rows, *Z)."""
        noise = torch.randn(
            (rows, *self.shape),
            generator=generator,
            dtype=self._like.dtype,
            device=self._like.device,
        )
        return noise if temperature == 1 else temperature * noise

    def cells(self, value: Tensor) -> Tensor:
        """Return the log-density of each unit in nats, (..., *Z)."""
        return -0.5 * (value.square() + LOG_2PI)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log-densities in nats, (...)."""
        return sum_cells(self.cells(value), len(self.shape), None)


class FullNormal(LatentDensity):
    """Represent a normal with any covariance: z = mean + std * (noise + T noise), with T strictly
    lower triangular.

    Given the units before it, unit i is N(mean_i + std_i (T noise)_i, std_i^2), so that by the
    chain rule the density and its KL to independent normals are sums over units.

    Args:
        mean, logvar: (B, *Z); of the conditional variance std^2.
        lower: T, (B, n, n), n the number of units.
        dims: number of dimensions of one latent.
    """

    def __init__(self, mean: Tensor, logvar: Tensor, lower: Tensor, dims: int = 1) -> None:
        self.mean, self.conditional_logvar, self.lower, self.dims = mean, logvar, lower, dims
        self._made: tuple[Tensor, Tensor] | None = None

    @property
    def variance(self) -> Tensor:
        """Return the marginal variance of each unit, (B, *Z)."""
        return torch.exp(self.conditional_logvar) * (
            1 + self.lower.square().sum(-1).reshape(self.mean.shape)
        )

    @full_precision
    def mean_covariance(self) -> Tensor:
        """Return S (I + T) (I + T)' S, S = diag(std), averaged over the data, (n, n)."""
        unit = self.lower + torch.eye(
            self.lower.shape[-1], dtype=self.lower.dtype, device=self.lower.device
        )
        factor = torch.exp(0.5 * self.conditional_logvar.flatten(1)).unsqueeze(-1) * unit
        return torch.einsum("bik,bjk->ij", factor, factor) / len(factor)

    @full_precision
    def from_noise(self, noise: Tensor) -> Tensor:
        """Return z (K, B, *Z) from standard normal noise in the same shape."""
        flat = noise.flatten(noise.ndim - self.dims)
        mixed = torch.einsum("bij,kbj->kbi", self.lower, flat).reshape(noise.shape)
        z = torch.addcmul(self.mean, torch.exp(0.5 * self.conditional_logvar), noise + mixed)
        self._made = z, noise
        return z

    @full_precision
    def log_prob(self, value: Tensor) -> Tensor:
        """Return log-densities in nats, (...); of its own draws from the noise that made them."""
        noise = (
            self._made[1]
            if self._made is not None and value is self._made[0]
            else self._noise_of(value)
        )
        return sum_cells(
            -0.5 * (noise.square() + self.conditional_logvar + LOG_2PI), self.dims, None
        )

    def _noise_of(self, value: Tensor) -> Tensor:
        scaled = ((value - self.mean) * torch.exp(-0.5 * self.conditional_logvar)).flatten(
            value.ndim - self.dims
        )
        unit = self.lower + torch.eye(
            self.lower.shape[-1], dtype=scaled.dtype, device=scaled.device
        )
        # Leading dimensions of the values stand beside each other as columns, where the matrices
        # have none of them.
        lead, rows = scaled.shape[:-2], scaled.shape[-2]
        columns = scaled.reshape(-1, rows, scaled.shape[-1]).permute(1, 2, 0)
        solved = torch.linalg.solve_triangular(unit, columns, upper=False, unitriangular=True)
        return solved.permute(2, 0, 1).reshape(
            *lead, rows, *self.mean.shape[self.mean.ndim - self.dims :]
        )

    @full_precision
    def rate_to(self, mean: Tensor | float, logvar: Tensor | float) -> Tensor:
        """Return KL to N(mean, exp(logvar)) on each unit, given the units before it, (B, *Z)."""
        ratio = self.conditional_logvar - logvar
        own = torch.exp(ratio)
        moved = (self.mean - mean).square() * (
            torch.exp(-logvar) if isinstance(logvar, Tensor) else math.exp(-logvar)
        )
        return 0.5 * (
            moved
            + own * self.lower.square().sum(-1).reshape(self.mean.shape)
            + torch.expm1(ratio)
            - ratio
        )

    def detach(self) -> FullNormal:
        """Return the same density, cut from the graph."""
        return FullNormal(
            self.mean.detach(), self.conditional_logvar.detach(), self.lower.detach(), self.dims
        )


class LowRankNormal(LatentDensity):
    """Represent a normal with covariance S (I + V V') S, S = diag(std): independent noise and a few
    directions shared by all units.

    Args:
        mean, logvar: (B, *Z); of std^2.
        factors: V, (B, n, R), n the number of units.
        dims: number of dimensions of one latent.
    """

    def __init__(self, mean: Tensor, logvar: Tensor, factors: Tensor, dims: int = 1) -> None:
        self.mean, self.own_logvar, self.factors, self.dims = mean, logvar, factors, dims

    @property
    def variance(self) -> Tensor:
        """Return the marginal variance of each unit, (B, *Z)."""
        return torch.exp(self.own_logvar) * (
            1 + self.factors.square().sum(-1).reshape(self.mean.shape)
        )

    @full_precision
    def mean_covariance(self) -> Tensor:
        """Return S (I + V V') S averaged over the data, (n, n)."""
        logvar = self.own_logvar.flatten(1)
        factor = torch.exp(0.5 * logvar).unsqueeze(-1) * self.factors
        return torch.diag(torch.exp(logvar).mean(0)) + torch.einsum(
            "bik,bjk->ij", factor, factor
        ) / len(factor)

    @full_precision
    def from_noise(self, noise: Tensor) -> Tensor:
        """Return z (K, B, *Z) from standard normal noise (K, B, n + R)."""
        n = self.factors.shape[-2]
        mixed = noise[..., :n] + torch.einsum("bir,kbr->kbi", self.factors, noise[..., n:])
        return torch.addcmul(
            self.mean,
            torch.exp(0.5 * self.own_logvar),
            mixed.reshape(*noise.shape[:2], *self.mean.shape[1:]),
        )

    def _capacitance(self) -> Tensor:
        """Return the Cholesky factor of I + V'V, (B, R, R)."""
        rank = self.factors.shape[-1]
        eye = torch.eye(rank, dtype=self.factors.dtype, device=self.factors.device)
        return torch.linalg.cholesky(eye + self.factors.mT @ self.factors)

    @full_precision
    def log_prob(self, value: Tensor) -> Tensor:
        """Return log-densities in nats, (...), by Woodbury's identity."""
        scaled = ((value - self.mean) * torch.exp(-0.5 * self.own_logvar)).flatten(
            value.ndim - self.dims
        )
        factor = self._capacitance()
        seen = torch.einsum("bir,...bi->...br", self.factors, scaled)
        lead, rows = seen.shape[:-2], seen.shape[-2]
        columns = seen.reshape(-1, rows, seen.shape[-1]).permute(1, 2, 0)
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
        return self.own_logvar.flatten(1).sum(-1) + 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(
            -1
        )

    @full_precision
    def rate_to(self, mean: Tensor | float, logvar: Tensor | float) -> Tensor:
        """Return KL to N(mean, exp(logvar)) of all units together, (B, 1): they share noise, so
        that none has a part of its own."""
        logvar = torch.as_tensor(logvar, dtype=self.mean.dtype, device=self.mean.device)
        precision = torch.exp(-logvar)
        parts = ((self.mean - mean).square() + self.variance) * precision - 1 + logvar
        return 0.5 * (
            parts.expand(self.mean.shape).flatten(1).sum(-1) - self._log_det(self._capacitance())
        ).unsqueeze(-1)

    def detach(self) -> LowRankNormal:
        """Return the same density, cut from the graph."""
        return LowRankNormal(
            self.mean.detach(), self.own_logvar.detach(), self.factors.detach(), self.dims
        )


class Binary(IndependentUnits):
    """Represent independent units that are zero or one, by their logits.

    Args:
        logits: (..., *Z).
        dims: number of dimensions of one latent.
    """

    def __init__(self, logits: Tensor, dims: int = 1) -> None:
        self.logits, self.dims = logits, dims

    @property
    def shared(self) -> bool:
        """Tell whether one density serves all data."""
        return self.logits.ndim == self.dims

    @property
    def mean(self) -> Tensor:
        """Return the probability of a one."""
        return torch.sigmoid(self.logits)

    @property
    def variance(self) -> Tensor:
        """Return p (1 - p)."""
        return torch.sigmoid(self.logits) * torch.sigmoid(-self.logits)

    @property
    def entropy(self) -> Tensor:
        """Return the entropy of each unit in nats."""
        return F.softplus(self.logits) - self.logits * torch.sigmoid(self.logits)

    def noise(self, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        """Draw what `from_noise` takes: standard logistic noise."""
        return torch.logit(uniform(self.logits.detach().new_empty(shape), generator))

    def from_noise(self, noise: Tensor) -> Tensor:
        """Return one where logit + noise is above zero, else zero."""
        return (self.logits.detach() + noise > 0).to(self.logits.dtype)

    def relaxed(self, noise: Tensor, temperature: float) -> Tensor:
        """Return sigmoid((logit + noise) / temperature), the binary Concrete (Maddison, Mnih and
        Teh 2017)."""
        return torch.sigmoid((self.logits + noise) / temperature)

    def cells(self, value: Tensor) -> Tensor:
        return value * self.logits - F.softplus(self.logits)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log-probabilities in nats, (...)."""
        return sum_cells(self.cells(value), self.dims, None)

    def sample(
        self, rows: int, generator: torch.Generator | None = None, temperature: float = 1.0
    ) -> Tensor:
        """Draw (rows, *Z) from one density for all."""
        noise = self.noise((rows, *self.logits.shape[self.logits.ndim - self.dims :]), generator)
        return (self.logits.detach() + temperature * noise > 0).to(self.logits.dtype)

    def rate_to(self, p: Binary) -> Tensor:
        """Return KL to p on each unit, (..., *Z)."""
        return (
            torch.sigmoid(self.logits) * (self.logits - p.logits)
            - F.softplus(self.logits)
            + F.softplus(p.logits)
        )

    def mapped(self, function: Callable[[Tensor], Tensor]) -> Self:
        return type(self)(function(self.logits), self.dims)


class OneHot(LatentDensity):
    """Represent groups of units of which one is one and the others zero, by logits; the units of a
    group lie together, first.

    Args:
        logits: (..., G * codes, *R).
        codes: units of a group.
        dims: number of dimensions of one latent.
    """

    def __init__(self, logits: Tensor, codes: int, dims: int = 1) -> None:
        self.logits, self.codes, self.dims = logits, codes, dims

    def grouped(self, x: Tensor) -> Tensor:
        """Return (..., G, codes, *R) of (..., G * codes, *R)."""
        return x.unflatten(x.ndim - self.dims, (-1, self.codes))

    def _flat(self, x: Tensor) -> Tensor:
        return x.flatten(x.ndim - self.dims - 1, x.ndim - self.dims)

    @property
    def log_probs(self) -> Tensor:
        """Return log-probabilities, (..., G, codes, *R)."""
        return torch.log_softmax(self.grouped(self.logits), -self.dims)

    @property
    def shared(self) -> bool:
        """Tell whether one density serves all data."""
        return self.logits.ndim == self.dims

    @property
    def mean(self) -> Tensor:
        """Return the probabilities, (..., G * codes, *R)."""
        return self._flat(torch.softmax(self.grouped(self.logits), -self.dims))

    @property
    def variance(self) -> Tensor:
        """Return p (1 - p) of each unit."""
        mean = self.mean
        return mean * (1 - mean)

    @full_precision
    def mean_covariance(self) -> Tensor:
        """Return the covariance averaged over the data, (n, n): diag(p) - p p' within a group, 0
        between groups."""
        mean = self.mean
        group = groups_of(tuple(mean.shape[1:]), self.codes).to(mean.device)
        p = mean.flatten(1)
        return torch.diag(p.mean(0)) - torch.where(
            group == group.unsqueeze(-1), p.T @ p / len(p), 0.0
        )

    @property
    def entropy(self) -> Tensor:
        """Return the entropy of each group in nats, (..., G, *R)."""
        log_probs = self.log_probs
        return -(log_probs.exp() * log_probs).sum(-self.dims)

    def noise(self, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        """Draw what `from_noise` takes: standard Gumbel noise."""
        return gumbel_noise(self.logits.detach().new_empty(shape), generator)

    def _hard(self, scores: Tensor) -> Tensor:
        grouped = self.grouped(scores)
        chosen = grouped.argmax(-self.dims, keepdim=True)
        return self._flat(torch.zeros_like(grouped).scatter_(-self.dims, chosen, 1.0))

    def from_noise(self, noise: Tensor) -> Tensor:
        """Return one for the largest logit + noise of each group, zero for the others (the
        Gumbel-max trick)."""
        return self._hard(self.logits.detach() + noise)

    def relaxed(self, noise: Tensor, temperature: float) -> Tensor:
        """Return softmax((logit + noise) / temperature) (Jang, Gu and Poole 2017; Maddison, Mnih
        and Teh 2017)."""
        return self._flat(
            torch.softmax(self.grouped((self.logits + noise) / temperature), -self.dims)
        )

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log-probabilities in nats, (...)."""
        return sum_cells(value * self._flat(self.log_probs), self.dims, None)

    def sample(
        self, rows: int, generator: torch.Generator | None = None, temperature: float = 1.0
    ) -> Tensor:
        """Draw (rows, *Z) from one density for all."""
        noise = self.noise((rows, *self.logits.shape[self.logits.ndim - self.dims :]), generator)
        return self._hard(self.logits.detach() + temperature * noise)

    def rate_to(self, p: OneHot) -> Tensor:
        """Return KL to p on each group, (..., G, *R)."""
        log_probs = self.log_probs
        return (log_probs.exp() * (log_probs - p.log_probs)).sum(-self.dims)

    def detach(self) -> OneHot:
        """Return the same density, cut from the graph."""
        return OneHot(self.logits.detach(), self.codes, self.dims)


class NormalMixture:
    """Represent sum_k weight_k N(mean_k, diag(exp(logvar_k))) over latents laid flat.

    It is scored by two matrix products, in double precision where the device has it: the squares
    that they expand nearly cancel.

    Args:
        logits: of the weights, (C,).
        means, logvars: (C, n).
        shape: of one latent, *Z.
    """

    shared = True

    def __init__(
        self, logits: Tensor, means: Tensor, logvars: Tensor, shape: tuple[int, ...]
    ) -> None:
        self.logits, self.means, self.logvars, self.shape = logits, means, logvars, shape

    @property
    def mean(self) -> Tensor:
        """Return the mean, (*Z,)."""
        return (torch.softmax(self.logits, 0).unsqueeze(-1) * self.means).sum(0).reshape(self.shape)

    @full_precision
    def log_prob(self, value: Tensor) -> Tensor:
        """Return log-densities in nats, (...)."""
        dtype = torch.float64 if value.device.type != "mps" else value.dtype
        z = value.flatten(value.ndim - len(self.shape)).to(dtype)
        means, logvars = self.means.to(dtype), self.logvars.to(dtype)
        precision = torch.exp(-logvars)
        constant = torch.log_softmax(self.logits.to(dtype), 0)
        constant = constant - 0.5 * (logvars + means.square() * precision + LOG_2PI).sum(-1)
        logs = constant + z @ (means * precision).T - 0.5 * (z.square() @ precision.T)
        return torch.logsumexp(logs, -1).to(value.dtype)

    @full_precision
    def sample(
        self, rows: int, generator: torch.Generator | None = None, temperature: float = 1.0
    ) -> Tensor:
        """Draw (rows, *Z); the temperature is that within a component."""
        chosen = _chosen(self.logits, rows, generator)
        means, std = self.means.detach()[chosen], torch.exp(0.5 * self.logvars.detach()[chosen])
        noise = torch.randn(
            means.shape, generator=generator, dtype=means.dtype, device=means.device
        )
        return (means + temperature * std * noise).reshape(rows, *self.shape)


def _chosen(logits: Tensor, rows: int, generator: torch.Generator | None) -> Tensor:
    return torch.multinomial(
        torch.softmax(logits.detach(), 0), rows, replacement=True, generator=generator
    )


class Mixture:
    """Represent sum_k weight_k q_k for the C densities of a batch, of any family.

    Args:
        logits: of the weights, (C,).
        q: the densities.
        draw: makes a draw of each of the components that are named, (n, *Z), and their means.
        shape: of one latent, *Z.
    """

    shared = True

    def __init__(
        self,
        logits: Tensor,
        q: Any,
        draw: Callable[[Tensor, torch.Generator | None], tuple[Tensor, Tensor]],
        shape: tuple[int, ...],
    ) -> None:
        self.logits, self.q, self._draw, self.shape = logits, q, draw, shape

    @property
    def mean(self) -> Tensor:
        """Return the mean, (*Z,)."""
        return torch.tensordot(torch.softmax(self.logits, 0), self.q.mean, 1)

    @full_precision
    def log_prob(self, value: Tensor) -> Tensor:
        """Return log-densities in nats, (...), some values at a time."""
        lead = value.shape[: value.ndim - len(self.shape)]
        weights = torch.log_softmax(self.logits, 0)
        size = max(1, BLOCK // (len(weights) * math.prod(self.shape)))
        parts = value.reshape(-1, *self.shape).split(size)
        return torch.cat(
            [torch.logsumexp(weights + self.q.log_prob(part.unsqueeze(1)), -1) for part in parts]
        ).reshape(lead)

    @full_precision
    def sample(
        self, rows: int, generator: torch.Generator | None = None, temperature: float = 1.0
    ) -> Tensor:
        """Draw (rows, *Z); the temperature is that within a component."""
        with torch.no_grad():
            z, centre = self._draw(_chosen(self.logits, rows, generator), generator)
        return z if temperature == 1 else centre + temperature * (z - centre)


def groups_of(units: tuple[int, ...], alphabet: int) -> Tensor:
    """Return to which group each unit belongs, of latents laid flat, (n,): each to its own, but
    those of one-hot latents."""
    codes, rest = max(1, alphabet), math.prod(units[1:])
    index = torch.arange(math.prod(units))
    return index // (codes * rest) * rest + index % rest


class Autoregressive:
    """Represent discrete latents by the product of each group of units given the groups before it.

    Args:
        logits: a function from latents laid flat, (..., n), to logits, those of a group depending
            on earlier groups alone.
        shape: of one latent, *Z.
        alphabet: 1 for units that are zero or one, n for one-hot groups of n.
        like: tells dtype and device.
    """

    shared = True

    def __init__(
        self,
        logits: Callable[[Tensor], Tensor],
        shape: tuple[int, ...],
        alphabet: int,
        like: Tensor,
    ) -> None:
        self._logits, self.shape, self.alphabet, self._like = logits, shape, alphabet, like

    def _given(self, value: Tensor) -> Binary | OneHot:
        logits = self._logits(value.flatten(value.ndim - len(self.shape))).reshape(value.shape)
        return (
            Binary(logits, len(self.shape))
            if self.alphabet == 1
            else OneHot(logits, self.alphabet, len(self.shape))
        )

    @full_precision
    def log_prob(self, value: Tensor) -> Tensor:
        """Return log-probabilities in nats, (...)."""
        return self._given(value).log_prob(value)

    @full_precision
    def sample(
        self, rows: int, generator: torch.Generator | None = None, temperature: float = 1.0
    ) -> Tensor:
        """Draw (rows, *Z), a group after the other."""
        z = self._like.new_zeros((rows, *self.shape))
        groups = groups_of(self.shape, self.alphabet).to(z.device).reshape(self.shape)
        with torch.no_grad():
            for group in range(int(groups.max()) + 1):
                given = self._given(z)
                z = torch.where(
                    groups == group,
                    given.from_noise(temperature * given.noise(tuple(z.shape), generator)),
                    z,
                )
        return z


def is_shared(p: Density, units: int) -> bool:
    """Tell whether one density serves all data, and none of its own by what is given.

    Args:
        p: the prior of a batch.
        units: number of dimensions of one latent.
    """
    found = getattr(p, "shared", None)
    return bool(found) if found is not None else p.mean.ndim <= units


Rate = Callable[[Any, Any], "Tensor | None"]
_RATES: dict[tuple[type, type], Rate] = {}


def register_kl(q: type, p: type) -> Callable[[Rate], Rate]:
    """Register a function as the closed form of KL(q || p) for two classes of densities.

    The function takes q and p and returns the KL in nats, (B, ...), or None where these two have
    no closed form. Subclasses of the two classes use it too, as in torch.distributions.

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


def closed_form_kl(q: Any, p: Any) -> Tensor | None:
    """Return KL(q || p) in nats, (1, B, ...); None where no closed form is registered.

    For each latent unit, (1, B, *Z); for a normal with full covariance for each unit given those
    before it, for one of low rank for all together, (1, B, 1), for one-hot latents for each group.

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


# The forms for the standard normal are written out: they save the factor exp(-0), and the numbers
# stay the same to the bit.


@register_kl(Normal, StandardNormal)
def _(q: Normal, p: StandardNormal) -> Tensor:
    return 0.5 * (q.mean.square() + torch.expm1(q.logvar) - q.logvar)


@register_kl(Normal, Normal)
def _(q: Normal, p: Normal) -> Tensor:
    ratio = q.logvar - p.logvar
    return 0.5 * ((q.mean - p.mean).square() * torch.exp(-p.logvar) + torch.expm1(ratio) - ratio)


@register_kl(FullNormal, StandardNormal)
@register_kl(LowRankNormal, StandardNormal)
def _(q: FullNormal | LowRankNormal, p: StandardNormal) -> Tensor:
    return q.rate_to(0.0, 0.0)


@register_kl(FullNormal, Normal)
@register_kl(LowRankNormal, Normal)
def _(q: FullNormal | LowRankNormal, p: Normal) -> Tensor:
    return q.rate_to(p.mean, p.logvar)


@register_kl(LocationScale, StandardNormal)
def _(q: LocationScale, p: StandardNormal) -> Tensor:
    return 0.5 * (LOG_2PI + (q.mean.square() + q.variance)) - q.entropy


@register_kl(LocationScale, Normal)
def _(q: LocationScale, p: Normal) -> Tensor:
    moved = (q.mean - p.mean).square() + q.variance
    return 0.5 * (LOG_2PI + p.logvar + moved * torch.exp(-p.logvar)) - q.entropy


@register_kl(Binary, Binary)
def _(q: Binary, p: Binary) -> Tensor:
    return q.rate_to(p)


@register_kl(OneHot, OneHot)
def _(q: OneHot, p: OneHot) -> Tensor | None:
    return q.rate_to(p) if p.codes == q.codes else None
