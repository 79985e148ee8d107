"""Which cells of a datum exist, given z: one small network beside the likelihood.

The bound is that of the values of the observed cells. log p(which cells are observed | z) is
trained, drawn from and reported apart from it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn as nn
from torch import Tensor

from vaestro.spaces import Batch

WIDTH = 64


class Presence(nn.Module, ABC):
    """Represent p(which cells are observed | z).

    Args:
        size: how many numbers the network returns; all are 0 at the start.
        inputs: how many it takes.

    >>> from vaestro.models.lengths import Lengths
    >>> issubclass(Lengths, Presence)
    True
    """

    def __init__(self, size: int, inputs: int) -> None:
        super().__init__()
        last = nn.Linear(WIDTH, size)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.network = nn.Sequential(nn.Linear(inputs, WIDTH), nn.SiLU(), last)

    def outputs(self, z: Tensor, *others: Tensor | None) -> Tensor:
        """Return the numbers of the network, (K, B, size), for latents (K, B, *Z) and other inputs
        (B, n)."""
        rest = [other.expand(len(z), *other.shape) for other in others if other is not None]
        dtype = next(self.network.parameters()).dtype
        outputs: Tensor = self.network(torch.cat([z.flatten(2), *rest], -1).to(dtype))
        return outputs.float()

    @abstractmethod
    def log_prob(self, z: Tensor, batch: Batch) -> Tensor:
        """Return log p(which cells of x are observed | z) in nats, (K, B)."""

    def trained(self, z: Tensor, batch: Batch) -> Tensor:
        """Return what training adds to log p(x | z), (K, B); by default `log_prob`, whose gradient
        also trains the encoder."""
        return self.log_prob(z, batch)

    @abstractmethod
    def without_z(self, batch: Batch) -> Tensor:
        """Return the log-probability by the frequencies of the training split alone, (B,)."""
