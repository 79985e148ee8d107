"""p(length | z) of series that end early.

For a length L of 1 .. T, with u the length standardised in the training split, m(L) its smoothed
frequency there, and two numbers c(z) and t(z) > 0 of a small network,

    log p(L | z) = log m(L) + (1 + t) c u - t u^2 / 2 - log(normalising constant)

At the start c = 0 and t is small, so that lengths are distributed as in the training data. A large
t concentrates the length near c. The length of a datum is the number of steps up to its last
observed cell, and log p is 0 for a datum without one.
"""

from __future__ import annotations

import math
from typing import final

import numpy as np
import torch
from torch import Tensor

from vaestro.densities import soft_limit
from vaestro.models.presence import Presence
from vaestro.spaces import Batch, Space

START = math.log(0.02)  # of log t
LIMIT = 8.0  # log t lies within this distance of its start
PACE = 4.0  # speed at which log t is learned, relative to c


@final
class Lengths(Presence):
    """Represent p(length | z) by a distribution over 1 .. T. Training maximises it with the bound,
    encoder and all: z contains the length.

    Args:
        space: of the series, with `lengths`.
        units: the shape *Z of one latent.
        conditions: how many numbers describe the conditions of one datum.

    >>> from vaestro.spaces import RealSpace
    >>> space = RealSpace((4, 1), (4,), lengths=np.array([0.1, 0.2, 0.3, 0.4]))
    >>> lengths = Lengths(space, (2,))
    >>> lengths(torch.zeros(1, 5, 2)).exp().sum(-1)[0, 0].round(decimals=4)
    tensor(1., grad_fn=<RoundBackward1>)
    """

    frequencies: Tensor
    standard: Tensor

    def __init__(self, space: Space, units: tuple[int, ...], conditions: int = 0) -> None:
        super().__init__(2, math.prod(units) + conditions)
        self.condition_weights = ("network.0.weight",) if conditions else ()
        assert space.lengths is not None
        m = np.asarray(space.lengths, np.float64)
        steps = np.arange(1, len(m) + 1)
        mean = float((m * steps).sum())
        spread = max(1.0, math.sqrt(float((m * (steps - mean) ** 2).sum())))
        dtype = torch.get_default_dtype()
        self.register_buffer("frequencies", torch.tensor(np.log(m), dtype=dtype), persistent=False)
        standard = torch.tensor((steps - mean) / spread, dtype=dtype)
        self.register_buffer("standard", standard, persistent=False)

    def forward(self, z: Tensor, given: Tensor | None = None) -> Tensor:
        """Return log p(length | z) of each length, (K, B, T), for latents (K, B, *Z)."""
        centre, number = self.outputs(z, given).split(1, -1)
        sharp = torch.exp(START + soft_limit(PACE * number, LIMIT))
        u = self.standard.float()
        tilt = (1 + sharp) * centre * u - 0.5 * sharp * u.square()
        return torch.log_softmax(self.frequencies.float() + tilt, -1)

    def log_prob(self, z: Tensor, batch: Batch) -> Tensor:
        lengths = lengths_of(batch, len(self.standard))
        logs = self(z, batch.given)
        index = (lengths - 1).clamp_min(0).expand(logs.shape[:2]).unsqueeze(-1)
        return torch.where(lengths > 0, logs.gather(-1, index).squeeze(-1), 0.0)

    def without_z(self, batch: Batch) -> Tensor:
        lengths = lengths_of(batch, len(self.standard))
        logs = self.frequencies.double()[(lengths - 1).clamp_min(0)]
        return torch.where(lengths > 0, logs, 0.0)

    def draw(self, z: Tensor, given: Tensor | None, generator: torch.Generator | None) -> Tensor:
        """Draw a length for each latent (B, *Z), (B,)."""
        odds = self(z.unsqueeze(0), given)[0].exp()
        return torch.multinomial(odds, 1, generator=generator).squeeze(-1) + 1

    def median(self, z: Tensor, given: Tensor | None = None) -> Tensor:
        """Return the median length for each latent (B, *Z), (B,)."""
        below = self(z.unsqueeze(0), given)[0].exp().cumsum(-1)
        return (below < 0.5).sum(-1).clamp_max(below.shape[-1] - 1) + 1


def lengths_of(batch: Batch, steps: int) -> Tensor:
    """Return the number of steps up to the last one with an observed cell, (B,).

    >>> seen = torch.tensor([[True, False, True, False], [False] * 4]).unsqueeze(-1)
    >>> lengths_of(Batch(torch.zeros(2, 4, 1), seen), 4)
    tensor([3, 0])
    """
    if batch.observed is None:
        return torch.full((len(batch),), steps, device=batch.x.device)
    seen = batch.observed.flatten(2).any(-1)
    return (seen * torch.arange(1, steps + 1, device=seen.device)).amax(1)
