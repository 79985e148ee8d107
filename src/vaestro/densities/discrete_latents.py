"""Densities over discrete latents, by logits l: units that are zero or one, and one-hot groups.

    binary      p = sigmoid(l)     log p(z) = sum_i z_i l_i - log(1 + exp(l_i))
    one-hot     p = softmax(l)     log p(z) = sum_i z_i log p_i

Draws maximise logits plus noise: logistic noise above zero for binary units, the largest of Gumbel
noise for one-hot groups (the Gumbel-max trick). Draws have no gradient. A relaxation replaces the
maximum by a sigmoid or a softmax at a temperature (Maddison, Mnih and Teh 2017; Jang, Gu and Poole
2017).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from vaestro.densities.continuous import gumbel_noise
from vaestro.densities.core import full_precision, sum_cells, uniform
from vaestro.densities.latent import IndependentUnits, PosteriorDensity, PriorDensity

MOMENTS = 64  # number of draws that estimate a mean


class DiscreteLatents(PosteriorDensity, PriorDensity, ABC):
    """Describe discrete latents by logits.

    Args:
        logits: (B, *Z) for q(z | x), (*Z,) for p(z).
        dims: number of dimensions of one latent.
    """

    def __init__(self, logits: Tensor, dims: int = 1) -> None:
        self.logits, self.dims = logits, dims

    @property
    def shared(self) -> bool:
        return self.logits.ndim == self.dims

    @abstractmethod
    def noise(self, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        """Draw the standard noise that `from_noise` takes."""

    @abstractmethod
    def hard(self, scores: Tensor) -> Tensor:
        """Return the discrete latents, (..., *Z), that maximise the scores, (..., *Z)."""

    def from_noise(self, noise: Tensor) -> Tensor:
        """Return the latents that maximise logits + noise, without gradient."""
        return self.hard(self.logits.detach() + noise)

    def draw(
        self, n: int, generator: torch.Generator | None = None, temperature: float = 1.0
    ) -> Tensor:
        noise = self.noise((n, *self.logits.shape[self.logits.ndim - self.dims :]), generator)
        return self.hard(self.logits.detach() + temperature * noise)


class Binary(IndependentUnits, DiscreteLatents):
    """Represent independent units that are zero or one.

    Args:
        logits: (..., *Z).
        dims: number of dimensions of one latent.

    >>> Binary(torch.zeros(3)).log_prob(torch.ones(3))  # -3 log 2, in nats
    tensor(-2.0794)
    """

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
        """Draw standard logistic noise."""
        return torch.logit(uniform(self.logits.detach().new_empty(shape), generator))

    def hard(self, scores: Tensor) -> Tensor:
        """Return one where the score is above zero, else zero."""
        return (scores > 0).to(self.logits.dtype)

    def relaxed(self, noise: Tensor, temperature: float) -> Tensor:
        """Return sigmoid((logit + noise) / temperature), the binary Concrete (Maddison, Mnih and
        Teh 2017)."""
        return torch.sigmoid((self.logits + noise) / temperature)

    def cells(self, value: Tensor) -> Tensor:
        """Return the log-probability of each unit in nats, (..., *Z)."""
        return value * self.logits - F.softplus(self.logits)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log-probabilities in nats, (...)."""
        return sum_cells(self.cells(value), self.dims, None)

    def rate_to(self, p: Binary) -> Tensor:
        """Return KL to p of each unit in nats, (..., *Z)."""
        return (
            torch.sigmoid(self.logits) * (self.logits - p.logits)
            - F.softplus(self.logits)
            + F.softplus(p.logits)
        )

    def mapped(self, function: Callable[[Tensor], Tensor]) -> Binary:
        return Binary(function(self.logits), self.dims)


@final
class OneHot(DiscreteLatents):
    """Represent groups of units of which one is one and the others are zero.

    The units of a group are consecutive in the first dimension of a latent.

    Args:
        logits: (..., G * codes, *R) for G groups at each position of a grid *R.
        codes: number of units of a group.
        dims: number of dimensions of one latent.

    >>> OneHot(torch.zeros(6), codes=3).entropy  # log 3 for each of 2 groups, in nats
    tensor([1.0986, 1.0986])
    """

    def __init__(self, logits: Tensor, codes: int, dims: int = 1) -> None:
        super().__init__(logits, dims)
        self.codes = codes

    def grouped(self, x: Tensor) -> Tensor:
        """Reshape (..., G * codes, *R) to (..., G, codes, *R)."""
        return x.unflatten(x.ndim - self.dims, (-1, self.codes))

    def _flat(self, x: Tensor) -> Tensor:
        return x.flatten(x.ndim - self.dims - 1, x.ndim - self.dims)

    @property
    def log_probs(self) -> Tensor:
        """Return the log-probabilities of the codes, (..., G, codes, *R)."""
        return torch.log_softmax(self.grouped(self.logits), -self.dims)

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
        """Draw standard Gumbel noise."""
        return gumbel_noise(self.logits.detach().new_empty(shape), generator)

    def hard(self, scores: Tensor) -> Tensor:
        """Return one for the largest score of each group, zero for the others."""
        grouped = self.grouped(scores)
        largest = grouped.argmax(-self.dims, keepdim=True)
        return self._flat(torch.zeros_like(grouped).scatter_(-self.dims, largest, 1.0))

    def relaxed(self, noise: Tensor, temperature: float) -> Tensor:
        """Return softmax((logit + noise) / temperature) of each group (Jang, Gu and Poole 2017;
        Maddison, Mnih and Teh 2017)."""
        return self._flat(
            torch.softmax(self.grouped((self.logits + noise) / temperature), -self.dims)
        )

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log-probabilities in nats, (...)."""
        return sum_cells(value * self._flat(self.log_probs), self.dims, None)

    def rate_to(self, p: OneHot) -> Tensor:
        """Return KL to p of each group in nats, (..., G, *R)."""
        log_probs = self.log_probs
        return (log_probs.exp() * (log_probs - p.log_probs)).sum(-self.dims)

    def detach(self) -> OneHot:
        return OneHot(self.logits.detach(), self.codes, self.dims)


def groups_of(units: tuple[int, ...], alphabet: int) -> Tensor:
    """Return the index of the group of each unit of a flattened latent, (n,).

    Args:
        units: the shape of one latent, *Z.
        alphabet: number of units of a one-hot group. With 0 (real) or 1 (binary units), every unit
            is a group of its own.

    >>> groups_of((4,), 2)
    tensor([0, 0, 1, 1])
    """
    codes, rest = max(1, alphabet), math.prod(units[1:])
    index = torch.arange(math.prod(units))
    return index // (codes * rest) * rest + index % rest


@final
class Autoregressive(PriorDensity):
    """Represent p(z) = prod_g p(z_g | z_<g) over the groups of discrete latents.

    Args:
        logits: maps flattened latents, (..., n), to logits, (..., n). The logits of a group depend
            on earlier groups only.
        shape: of one latent, *Z.
        alphabet: 1 for units that are zero or one, n for one-hot groups of n units.
        like: a tensor with the dtype and the device of the draws.
        rows: number of data, if each has its own density; None if all share one.

    >>> fair = Autoregressive(torch.zeros_like, (2,), 1, torch.zeros(()))
    >>> fair.log_prob(torch.tensor([0.0, 1.0]))  # -2 log 2, in nats
    tensor(-1.3863)
    """

    def __init__(
        self,
        logits: Callable[[Tensor], Tensor],
        shape: tuple[int, ...],
        alphabet: int,
        like: Tensor,
        rows: int | None = None,
    ) -> None:
        self._logits, self.shape, self.alphabet, self._like = logits, shape, alphabet, like
        self.rows = rows

    @property
    def shared(self) -> bool:
        return self.rows is None

    @property
    def mean(self) -> Tensor:
        """Return the mean of MOMENTS draws, (B, *Z); the noise is the same for every datum."""
        generator = torch.Generator(self._like.device).manual_seed(0)
        return self._draw((MOMENTS, 1, *self.shape), generator, 1.0).mean(0)

    def _conditionals(self, value: Tensor) -> DiscreteLatents:
        """Return the density of each group given the earlier groups of `value`."""
        logits = self._logits(value.flatten(value.ndim - len(self.shape)))
        logits = logits.unflatten(-1, self.shape)
        if self.alphabet == 1:
            return Binary(logits, len(self.shape))
        return OneHot(logits, self.alphabet, len(self.shape))

    @full_precision
    def log_prob(self, value: Tensor) -> Tensor:
        """Return log-probabilities in nats, (...)."""
        return self._conditionals(value).log_prob(value)

    @full_precision
    def draw(
        self, n: int, generator: torch.Generator | None = None, temperature: float = 1.0
    ) -> Tensor:
        return self._draw((n, *self.shape), generator, temperature)

    @torch.no_grad()
    def _draw(
        self, shape: tuple[int, ...], generator: torch.Generator | None, temperature: float
    ) -> Tensor:
        """Draw latents (..., *Z), one group after the other, from noise of this shape."""
        z = self._like.new_zeros(shape)
        groups = groups_of(self.shape, self.alphabet).to(z.device).reshape(self.shape)
        for group in range(int(groups.max()) + 1):
            density = self._conditionals(z)
            noise = temperature * density.noise(shape, generator)
            z = torch.where(groups == group, density.from_noise(noise), z)
        return z
