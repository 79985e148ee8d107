"""The likelihood of codes: levels, categories, or the tokens of texts.

log p(x | z) = sum_d l_d[x_d] - logsumexp(l_d),          l = decoder(z), (levels, *X)
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from vaestro import densities
from vaestro.densities import DataDensity
from vaestro.likelihoods.base import Likelihood
from vaestro.spaces import Kind, Space


@final
class Categorical(Likelihood):
    """Represent each cell by a softmax over its codes: levels or categories, one logit for each.

    Levels are not treated as ordered: any distribution over L levels can be represented, with L
    outputs per cell. The tokens of a text are independent given the latent, which must contain all
    of their dependence.

    >>> import torch.nn as nn
    >>> from vaestro.spaces import CategorySpace
    >>> space = CategorySpace((3,), (3,), levels=4)
    >>> likelihood = Categorical(space, nn.Sequential(nn.Linear(2, 12), nn.Unflatten(1, (4, 3))))
    >>> likelihood(torch.zeros(1, 5, 2)).log_prob(torch.zeros(5, 3)).shape
    torch.Size([1, 5])
    """

    accepts = frozenset({Kind.BINARY, Kind.LEVELS, Kind.CATEGORY, Kind.TOKENS})

    @classmethod
    def outputs(cls, space: Space) -> tuple[int, ...]:
        shape, levels = space.shape, space.levels
        return (*shape, levels) if space.ragged else (levels, *shape)

    @classmethod
    def start(cls, space: Space) -> Tensor:
        frequencies = space.frequencies()
        if frequencies is None:
            return torch.zeros(())
        p = torch.from_numpy(frequencies)
        return torch.log(p if space.ragged else p.clamp_min(1e-4))

    def forward(self, z: Tensor, given: Tensor | None = None) -> DataDensity:
        logits = self.decode(z, given)
        if self.space.ragged:  # the codes are on the last axis
            return densities.Positions(logits.movedim(-1, -2))
        return densities.Categorical(logits, self.dims, self.space.ordered)
