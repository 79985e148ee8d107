"""The interface of posteriors q(z | x).

A family declares the shape of its parameters (`outputs`) and turns them into a density (`density`).
The log-variance of real latents passes through v -> v / (1 + |v| / limit): it lies in
(-limit, limit), and its gradient never vanishes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
import torch.nn as nn
from torch import Tensor

from vaestro.densities import PosteriorDensity
from vaestro.spaces import Batch, Space


@runtime_checkable
class CodeReader(Protocol):
    """Describe an encoder of tokens that takes codes (N, t) if `reads_codes` is true, and one-hot
    codes (N, T, V) otherwise."""

    reads_codes: bool


class Posterior(nn.Module, ABC):
    """Describe q(z | x).

    Args:
        space: of the data.
        encoder: a module from (B, *space.feature_shape) to (B, *outputs(units, ...)). With
            conditions it has them as a second argument, (B, given).
        units: the shape of one latent, *Z.
    """

    like: Tensor  # has the dtype and the device of the densities
    discrete: ClassVar[bool] = False
    # whether each step runs the same tensor operations, so that a step can be traced
    in_graph: ClassVar[bool] = True
    # whether log q costs the same at any z as at q's own draws
    scored_anywhere: ClassVar[bool] = True
    # whether log q at a draw has a gradient with the draw, or with the parameters, detached
    scored_held: ClassVar[bool] = True
    limit: float = math.inf  # the log-variance lies in (-limit, limit)
    min_rate: float = 0.0  # lower limit of each unit's KL to the standard normal, in nats
    how: ClassVar[str] = "mean and log-variance of q(z | x)"

    def __init__(self, space: Space, encoder: nn.Module, units: tuple[int, ...]) -> None:
        super().__init__()
        self.space, self.encoder, self.units = space, encoder, units
        self.reads_codes = isinstance(encoder, CodeReader) and encoder.reads_codes
        self.register_buffer("like", torch.zeros(()), persistent=False)

    @classmethod
    def latents(cls, latent: tuple[int, ...], **options: Any) -> tuple[int, ...]:
        """Return the shape of one latent, *Z.

        Args:
            latent: the shape that the user asked for; its first number is that of units, or of
                channels of a grid.
            options: of the constructor.
        """
        return latent

    @classmethod
    def alphabet(cls, **options: Any) -> int:
        """Return 0 for real units, 1 for units that are zero or one, and n for one-hot groups of n
        units."""
        return 0

    @classmethod
    @abstractmethod
    def outputs(cls, units: tuple[int, ...], **options: Any) -> tuple[int, ...]:
        """Return the shape of the encoder's outputs for one datum, given the constructor's
        options."""

    @abstractmethod
    def density(self, features: Tensor) -> PosteriorDensity:
        """Return q(z | x) from the encoder's outputs, (B, *outputs(units))."""

    def forward(self, batch: Batch) -> PosteriorDensity:
        """Return q(z | x) for each datum of the batch."""
        return self.density(self.features(batch))

    def features(self, batch: Batch) -> Tensor:
        """Run the encoder once: (B, *outputs). Missing cells are zeros, and the mask is part of the
        encoder's input."""
        if self.space.ragged and self.reads_codes:
            return self.encoded(batch.x, batch.given)
        x = self.space.features(batch.x, batch.observed, self.like.dtype)
        return self.encoded(x, batch.given)

    def encoded(self, x: Tensor, given: Tensor | None = None) -> Tensor:
        """Run the encoder on its own kind of input, (B, *space.feature_shape): (B, *outputs)."""
        out = self.encoder(x) if given is None else self.encoder(x, given.to(self.like.dtype))
        # densities need full precision, also if the network is autocast
        return out.to(self.like.dtype)

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Return the shape of the noise of one draw for one datum."""
        return self.units

    def noise(self, k: int, rows: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw the noise that `from_noise` takes: standard normal, (k, rows, *noise_shape)."""
        return torch.randn(
            (k, rows, *self.noise_shape),
            generator=generator,
            dtype=self.like.dtype,
            device=self.like.device,
        )


class RealPosterior(Posterior, ABC):
    """Describe q(z | x) over real latents, with a mean and a log-variance for each unit.

    Args:
        space, encoder, units: see Posterior; the encoder's output is (B, 2, *units) by default.
        limit: bound of the log-variance, which lies in (-limit, limit).

    Raises:
        ValueError: the limit is outside of (0, 80].
    """

    def __init__(
        self, space: Space, encoder: nn.Module, units: tuple[int, ...], *, limit: float = 20.0
    ) -> None:
        if not 0 < limit <= 80:
            raise ValueError(f"expected a limit of the log-variance in (0, 80]; got {limit}")
        super().__init__(space, encoder, units)
        self.limit = limit

    @classmethod
    def outputs(cls, units: tuple[int, ...], **options: Any) -> tuple[int, ...]:
        return (2, *units)
