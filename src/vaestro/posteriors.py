"""The approximate posterior q(z | x): an encoder whose outputs are the parameters of a density over the latent.

Noise is drawn outside the network and enters as an argument: z is a deterministic function of (x, noise), and
gradients flow through it to the encoder. The encoder runs once for a batch, however many draws are taken.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, final

import torch
import torch.nn as nn
from torch import Tensor

from vaestro import densities
from vaestro.densities import Density, soft_limit
from vaestro.spaces import Batch, Space


class Posterior(nn.Module, ABC):
    """Describe q(z | x).

    Args:
        space: what the data are.
        encoder: a module from (B, *space.feature_shape) to (B, *outputs(units)).
        units: the shape of one latent, *Z.
    """

    like: Tensor

    def __init__(self, space: Space, encoder: nn.Module, units: tuple[int, ...]) -> None:
        super().__init__()
        self.space, self.encoder, self.units = space, encoder, units
        self.register_buffer("like", torch.zeros(()), persistent=False)  # tells dtype and device

    @classmethod
    @abstractmethod
    def outputs(cls, units: tuple[int, ...]) -> tuple[int, ...]:
        """Return what the encoder must produce for one datum."""

    @abstractmethod
    def density(self, features: Tensor) -> Any:
        """Return q(z | x) from what the encoder made of each datum, (B, *outputs(units))."""

    def forward(self, batch: Batch) -> Density:
        """Return q(z | x) for each datum of the batch."""
        return self.density(self.features(batch))  # type: ignore[no-any-return]

    def features(self, batch: Batch) -> Tensor:
        """Run the encoder once: (B, *outputs). Cells that were not observed enter as zeros, with the mask beside them."""
        x = self.space.features(batch.x, batch.observed, self.like.dtype)
        out = self.encoder(x) if batch.given is None else self.encoder(x, batch.given.to(x.dtype))
        return out.to(x.dtype)  # densities are computed in full precision, also where the network is autocast

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Return the shape of the noise of one draw for one datum."""
        return self.units

    def noise(self, k: int, rows: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw the standard noise that `from_noise` of the density takes: (k, rows, *Z), standard normal here."""
        return torch.randn((k, rows, *self.noise_shape), generator=generator, dtype=self.like.dtype, device=self.like.device)


@final
class Normal(Posterior):
    """Represent q(z | x) = N(mean, diag(exp(logvar))), both predicted by the encoder (Kingma and Welling 2014).

    The log-variance passes through `soft_limit`, so that no output of the encoder can make a NaN, while its gradient
    never vanishes. A diagonal covariance cannot represent correlations of the true posterior between units.

    Args:
        space: what the data are.
        encoder: a module from (B, *space.feature_shape) to (B, 2, *units).
        units: the shape of one latent, *Z.
        limit: the log-variance lies in (-limit, limit).
    """

    def __init__(self, space: Space, encoder: nn.Module, units: tuple[int, ...], *, limit: float = 20.0) -> None:
        if not 0 < limit <= 80:
            raise ValueError(f"expected a limit of the log-variance in (0, 80]; got {limit}")
        super().__init__(space, encoder, units)
        self.limit = limit

    @classmethod
    def outputs(cls, units: tuple[int, ...]) -> tuple[int, ...]:
        return (2, *units)

    def density(self, features: Tensor) -> densities.Normal:
        mean, logvar = features.unbind(1)
        return densities.Normal(mean, soft_limit(logvar, self.limit), len(self.units))
