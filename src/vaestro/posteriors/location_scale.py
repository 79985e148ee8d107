"""Location-scale posteriors: z = loc + scale * noise on every unit, for any standard noise (Kingma
and Welling 2014, section 2.4).

    log q(z | x) = sum_i log f((z_i - loc_i) / scale_i) - log scale_i

For the standard densities f see `vaestro.densities.continuous`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import final

import torch
import torch.nn as nn
from torch import Tensor

from vaestro import densities
from vaestro.densities import soft_limit
from vaestro.posteriors.base import RealPosterior
from vaestro.spaces import Space


class LocationScale(RealPosterior, ABC):
    """Describe q(z | x) = loc + scale * noise with independent units.

    Args:
        space, encoder, units: see Posterior; the encoder's output is (B, 2, *units).
        limit: bound of twice the log-scale.
    """

    @abstractmethod
    def member(self, loc: Tensor, log_scale: Tensor) -> densities.LocationScale:
        """Return the member of the family with a location and a log-scale."""

    def density(self, features: Tensor) -> densities.LocationScale:
        loc, raw = features.unbind(1)
        return self.member(loc, 0.5 * soft_limit(raw, self.limit))

    def noise(self, k: int, rows: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw noise of the standard member, (k, rows, *Z)."""
        zeros = self.like.new_zeros((k, rows, *self.units))
        return self.member(zeros, self.like).noise(generator)


@final
class Laplace(LocationScale):
    """Represent independent Laplace units, with a sharper peak and heavier tails than a normal, at
    the same cost.

    Args:
        space, encoder, units, limit: see LocationScale.

    >>> from vaestro.spaces import BinarySpace
    >>> posterior = Laplace(BinarySpace((3,), (3,), "uint8", levels=2), nn.Identity(), (2,))
    >>> posterior.density(torch.zeros(1, 2, 2)).variance
    tensor([[2., 2.]])
    """

    def member(self, loc: Tensor, log_scale: Tensor) -> densities.Laplace:
        return densities.Laplace(loc, log_scale, len(self.units))


@final
class Logistic(LocationScale):
    """Represent independent logistic units, with tails that fall like exp(-|z|): heavier than a
    normal's and lighter than Student's, at the same cost.

    Args:
        space, encoder, units, limit: see LocationScale.

    >>> from vaestro.spaces import BinarySpace
    >>> posterior = Logistic(BinarySpace((3,), (3,), "uint8", levels=2), nn.Identity(), (2,))
    >>> posterior.density(torch.zeros(1, 2, 2)).entropy
    tensor([[2., 2.]])
    """

    def member(self, loc: Tensor, log_scale: Tensor) -> densities.Logistic:
        return densities.Logistic(loc, log_scale, len(self.units))


@final
class Gumbel(LocationScale):
    """Represent independent Gumbel units, which are skewed: the lower tail is short and the upper
    tail is long.

    Args:
        space, encoder, units, limit: see LocationScale.

    >>> from vaestro.spaces import BinarySpace
    >>> posterior = Gumbel(BinarySpace((3,), (3,), "uint8", levels=2), nn.Identity(), (2,))
    >>> posterior.density(torch.zeros(1, 2, 2)).mean
    tensor([[0.5772, 0.5772]])
    """

    def member(self, loc: Tensor, log_scale: Tensor) -> densities.Gumbel:
        return densities.Gumbel(loc, log_scale, len(self.units))


@final
class StudentT(LocationScale):
    """Represent independent units of Student's t, whose tails fall as a power.

    Importance weights stay bounded where a normal q would miss mass. The noise of a unit needs a
    Gamma draw.

    Args:
        space, encoder, units, limit: see LocationScale.
        df: degrees of freedom, above 2, so that the variance and the KL to a normal are finite.

    Raises:
        ValueError: an option is out of its range.

    >>> from vaestro.spaces import BinarySpace
    >>> space = BinarySpace((3,), (3,), "uint8", levels=2)
    >>> StudentT(space, nn.Identity(), (2,), df=4.0).density(torch.zeros(1, 2, 2)).variance
    tensor([[2., 2.]])
    """

    df: Tensor

    def __init__(
        self,
        space: Space,
        encoder: nn.Module,
        units: tuple[int, ...],
        *,
        df: float = 5.0,
        limit: float = 20.0,
    ) -> None:
        if not 2 < df < math.inf:
            raise ValueError(f"expected more than 2 degrees of freedom; got {df}")
        super().__init__(space, encoder, units, limit=limit)
        self.register_buffer("df", torch.tensor(df), persistent=False)

    def member(self, loc: Tensor, log_scale: Tensor) -> densities.StudentT:
        return densities.StudentT(loc, log_scale, self.df.to(loc.dtype), len(self.units))
