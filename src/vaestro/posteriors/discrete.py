"""Discrete posteriors, by logits l: z_i = 1 with probability sigmoid(l_i), or one-hot groups with
probabilities softmax(l).

Draws have no gradient. Train with `gumbel-softmax` or `straight-through`, which use a relaxation of
z, or with `score`. Reported numbers are those of hard draws. For the densities see
`vaestro.densities.discrete_latents`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

import torch
import torch.nn as nn
from torch import Tensor

from vaestro import densities
from vaestro.posteriors.base import Posterior
from vaestro.spaces import Space


class DiscretePosterior(Posterior, ABC):
    """Describe q(z | x) over discrete latents, by one logit for each unit.

    Args:
        space, encoder, units: see Posterior; the encoder's output is (B, 1, *units).
    """

    discrete = True
    how = "probabilities of q(z | x)"

    @classmethod
    def outputs(cls, units: tuple[int, ...], **options: object) -> tuple[int, ...]:
        return (1, *units)

    @abstractmethod
    def density(self, features: Tensor) -> densities.DiscreteLatents: ...

    def noise(self, k: int, rows: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw logistic noise for binary units and Gumbel noise for one-hot groups, (k, rows,
        *Z)."""
        q = self.density(self.like.new_zeros(1, 1, *self.units))
        return q.noise((k, rows, *self.units), generator)


@final
class Bernoulli(DiscretePosterior):
    """Represent independent units that are zero or one, by logits.

    Draws have no gradient: train with gumbel-softmax, straight-through or score.

    Args:
        space, encoder, units: see Posterior; the encoder's output is (B, 1, *units).

    >>> from vaestro.spaces import BinarySpace
    >>> posterior = Bernoulli(BinarySpace((3,), (3,), "uint8", levels=2), nn.Identity(), (2,))
    >>> posterior.density(torch.zeros(1, 1, 2)).mean
    tensor([[0.5000, 0.5000]])
    """

    @classmethod
    def alphabet(cls, **options: object) -> int:
        return 1

    def density(self, features: Tensor) -> densities.Binary:
        return densities.Binary(features.squeeze(1), len(self.units))


@final
class Categorical(DiscretePosterior):
    """Represent one-hot groups of units, by logits: each group is a choice among `codes`.

    With n groups, z has n * codes units (in the first dimension of a grid). Draws have no gradient:
    train with gumbel-softmax, straight-through or score.

    Args:
        space, encoder, units: see Posterior; the encoder's output is (B, 1, *units).
        codes: number of units of each group.

    >>> Categorical.latents((2,), codes=5), Categorical.outputs((10,), codes=5)
    ((10,), (1, 10))
    """

    def __init__(
        self, space: Space, encoder: nn.Module, units: tuple[int, ...], *, codes: int = 10
    ) -> None:
        super().__init__(space, encoder, units)
        self.codes = codes

    @classmethod
    def latents(
        cls, latent: tuple[int, ...], *, codes: int = 10, **options: object
    ) -> tuple[int, ...]:
        if codes < 2:
            raise ValueError(f"expected 2 or more codes; got {codes}")
        return (latent[0] * codes, *latent[1:])

    @classmethod
    def alphabet(cls, *, codes: int = 10, **options: object) -> int:
        return codes

    def density(self, features: Tensor) -> densities.OneHot:
        return densities.OneHot(features.squeeze(1), self.codes, len(self.units))
