"""Mixtures over latents:

log p(z) = log sum_k weight_k p_k(z)            weight = softmax(logits)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import final

import torch
from torch import Tensor

from vaestro.densities.core import LOG_2PI, full_precision
from vaestro.densities.latent import PosteriorDensity, PriorDensity

BLOCK = 2**20  # numbers of one block, which fit into the cache


def _draw_components(logits: Tensor, n: int, generator: torch.Generator | None) -> Tensor:
    """Draw the component of each of n latents, (n,), by logits (C,) or (n, C)."""
    weights = torch.softmax(logits.detach(), -1)
    if weights.ndim == 2:
        return torch.multinomial(weights, 1, generator=generator)[:, 0]
    return torch.multinomial(weights, n, replacement=True, generator=generator)


@final
class NormalMixture(PriorDensity):
    """Represent sum_k weight_k N(mean_k, diag(exp(logvar_k))) over flattened latents.

    The log-density needs two matrix products. They expand squares that nearly cancel, and therefore
    run in double precision where the device has it.

    Args:
        logits: of the weights, (C,); (B, C) if each datum has weights of its own.
        means, logvars: (C, n).
        shape: of one latent, *Z.

    >>> mixture = NormalMixture(torch.zeros(2), torch.zeros(2, 1), torch.zeros(2, 1), (1,))
    >>> mixture.log_prob(torch.zeros(1))  # -log(2 pi) / 2, in nats
    tensor(-0.9189)
    """

    def __init__(
        self, logits: Tensor, means: Tensor, logvars: Tensor, shape: tuple[int, ...]
    ) -> None:
        self.logits, self.means, self.logvars, self.shape = logits, means, logvars, shape

    @property
    def mean(self) -> Tensor:
        """Return the mean, (*Z,) or (B, *Z)."""
        weights = torch.softmax(self.logits, -1)
        mean = (weights.unsqueeze(-1) * self.means).sum(-2)
        return mean.reshape(*weights.shape[:-1], *self.shape)

    @property
    def shared(self) -> bool:
        return self.logits.ndim == 1

    @full_precision
    def log_prob(self, value: Tensor) -> Tensor:
        dtype = torch.float64 if value.device.type != "mps" else value.dtype
        z = value.flatten(value.ndim - len(self.shape)).to(dtype)
        means, logvars = self.means.to(dtype), self.logvars.to(dtype)
        precision = torch.exp(-logvars)
        constant = torch.log_softmax(self.logits.to(dtype), -1)
        constant = constant - 0.5 * (logvars + means.square() * precision + LOG_2PI).sum(-1)
        logs = constant + z @ (means * precision).T - 0.5 * (z.square() @ precision.T)
        return torch.logsumexp(logs, -1).to(value.dtype)

    @full_precision
    def draw(
        self, n: int, generator: torch.Generator | None = None, temperature: float = 1.0
    ) -> Tensor:
        """Draw n latents, (n, *Z). The temperature applies within a component."""
        component = _draw_components(self.logits, n, generator)
        means = self.means.detach()[component]
        std = torch.exp(0.5 * self.logvars.detach()[component])
        noise = torch.randn(
            means.shape, generator=generator, dtype=means.dtype, device=means.device
        )
        return (means + temperature * std * noise).reshape(n, *self.shape)


@final
class Mixture(PriorDensity):
    """Represent sum_k weight_k q_k, where q_k are the C densities of a batch, of any family.

    Args:
        logits: of the weights, (C,); (B, C) if each datum has weights of its own.
        q: the densities.
        draw: maps component indices, (n,), and a generator to draws of these components, (n, *Z),
            and the components' means, (n, *Z).
        shape: of one latent, *Z.

    >>> from vaestro.densities import Normal
    >>> q = Normal(torch.tensor([[0.0], [4.0]]), torch.zeros(2, 1))
    >>> def draw(component, generator):
    ...     return q.mean[component], q.mean[component]
    >>> Mixture(torch.zeros(2), q, draw, (1,)).mean
    tensor([2.])
    """

    def __init__(
        self,
        logits: Tensor,
        q: PosteriorDensity,
        draw: Callable[[Tensor, torch.Generator | None], tuple[Tensor, Tensor]],
        shape: tuple[int, ...],
    ) -> None:
        self.logits, self.q, self._draw, self.shape = logits, q, draw, shape

    @property
    def mean(self) -> Tensor:
        """Return the mean, (*Z,) or (B, *Z)."""
        return torch.tensordot(torch.softmax(self.logits, -1), self.q.mean, 1)

    @property
    def shared(self) -> bool:
        return self.logits.ndim == 1

    @full_precision
    def log_prob(self, value: Tensor) -> Tensor:
        """Return log-densities in nats, (...), computed in blocks of values."""
        lead = value.shape[: value.ndim - len(self.shape)]
        weights = torch.log_softmax(self.logits, -1)
        count = weights.shape[-1]
        size = max(1, BLOCK // (count * math.prod(self.shape)))
        flat = weights.expand(*lead, count).reshape(-1, count)
        blocks = zip(flat.split(size), value.reshape(-1, *self.shape).split(size), strict=True)
        return torch.cat(
            [torch.logsumexp(w + self.q.log_prob(z.unsqueeze(1)), -1) for w, z in blocks]
        ).reshape(lead)

    @full_precision
    def draw(
        self, n: int, generator: torch.Generator | None = None, temperature: float = 1.0
    ) -> Tensor:
        """Draw n latents, (n, *Z). The temperature applies within a component."""
        with torch.no_grad():
            z, mean = self._draw(_draw_components(self.logits, n, generator), generator)
        return z if temperature == 1 else mean + temperature * (z - mean)
