"""Normal posteriors: diagonal, full and low-rank covariance. For the densities see
`vaestro.densities.normals`.

    diagonal    z = mean + std * noise                        2 n outputs of the encoder
    full        z = mean + std * (noise + T noise)            n (n + 3) / 2 outputs
    low rank    z = mean + std * (noise + V noise')           (2 + rank) n outputs

A minimum rate r limits the log-variance from above by the root v <= 0 of (exp(v) - 1 - v) / 2 = r,
so that KL(q || N(0, 1)) >= r for every unit (Razavi, van den Oord, Poole and Vinyals 2019).
"""

from __future__ import annotations

import math
from typing import final

import torch
import torch.nn as nn
from torch import Tensor

from vaestro import densities
from vaestro.densities import soft_limit
from vaestro.posteriors.base import RealPosterior
from vaestro.spaces import Space

MANY_UNITS = 512  # with more units, a full covariance of one datum is larger than a megabyte


@final
class Normal(RealPosterior):
    """Represent q(z | x) = N(mean, diag(exp(logvar))), both predicted by the encoder (Kingma and
    Welling 2014).

    A diagonal covariance cannot represent correlations of the true posterior between units.

    Args:
        space: of the data.
        encoder: a module from (B, *space.feature_shape) to (B, 2, *units).
        units: the shape of one latent, *Z.
        limit: bound of the log-variance, which lies in (-limit, limit).
        min_rate: lower limit of each unit's KL to N(0, 1), in nats (Razavi, van den Oord, Poole and
            Vinyals 2019). The decoder cannot make the latent collapse. It needs the standard normal
            prior.

    Raises:
        ValueError: an option is out of its range.

    >>> from vaestro.spaces import Batch, BinarySpace
    >>> space = BinarySpace((3,), (3,), "uint8", levels=2)
    >>> encoder = nn.Sequential(nn.Linear(3, 4), nn.Unflatten(1, (2, 2)))
    >>> posterior = Normal(space, encoder, (2,))
    >>> q = posterior(Batch(torch.ones(5, 3)))
    >>> z = q.from_noise(posterior.noise(10, 5))  # 10 draws for each of 5 data
    >>> q.log_prob(z).shape
    torch.Size([10, 5])
    """

    def __init__(
        self,
        space: Space,
        encoder: nn.Module,
        units: tuple[int, ...],
        *,
        limit: float = 20.0,
        min_rate: float = 0.0,
    ) -> None:
        super().__init__(space, encoder, units, limit=limit)
        if not 0 <= min_rate < limit / 4:
            raise ValueError(
                f"expected min_rate of 0 or more nats, and below {limit / 4:g}, a quarter of the "
                f"limit; got {min_rate}"
            )
        self.min_rate, self.max_logvar = min_rate, _logvar_of_rate(min_rate)

    def density(self, features: Tensor) -> densities.Normal:
        mean, logvar = features.unbind(1)
        logvar = soft_limit(logvar, self.limit)
        if self.min_rate:
            logvar = self.max_logvar - nn.functional.softplus(self.max_logvar - logvar)
        return densities.Normal(mean, logvar, len(self.units))


def _logvar_of_rate(rate: float) -> float:
    """Return the root v <= 0 of (exp(v) - 1 - v) / 2 = rate, by bisection."""
    # (exp(v) - 1 - v) / 2 >= (-1 - v) / 2, so that the root is above `low`
    low, high = -2 * rate - 1.0, 0.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if (math.expm1(middle) - middle) / 2 > rate else (low, middle)
    return low


@final
class FullNormal(RealPosterior):
    """Represent q(z | x) = N(mean, L L') with any covariance; the encoder predicts its Cholesky
    factor L (Kingma and Welling 2019, section 2.5.1).

    If the true posterior is normal, the approximation gap is zero. A draw costs n^2 operations
    instead of n, and log q at points that are not draws needs a triangular solve.

    Args:
        space, encoder, units: see Posterior; the encoder's output is (B, n (n + 3) / 2) for n
            units.
        limit: bound of the log-variance of each unit given the units before it.

    Raises:
        ValueError: more than 512 units, or a limit out of its range.

    >>> FullNormal.outputs((4,))
    (14,)
    """

    below_diagonal: Tensor  # rows and columns of the strict lower triangle, (2, n (n - 1) / 2)

    def __init__(
        self, space: Space, encoder: nn.Module, units: tuple[int, ...], *, limit: float = 20.0
    ) -> None:
        n = math.prod(units)
        if n > MANY_UNITS:
            raise ValueError(
                f"expected at most {MANY_UNITS} units for a full covariance, or posterior "
                f"low-rank-normal; got {n}"
            )
        super().__init__(space, encoder, units, limit=limit)
        self.register_buffer("below_diagonal", torch.tril_indices(n, n, -1), persistent=False)

    @classmethod
    def outputs(cls, units: tuple[int, ...], **options: object) -> tuple[int, ...]:
        n = math.prod(units)
        return (n * (n + 3) // 2,)

    def density(self, features: Tensor) -> densities.FullNormal:
        n = math.prod(self.units)
        mean, logvar, entries = features.split([n, n, n * (n - 1) // 2], -1)
        rows, columns = self.below_diagonal
        batch = torch.arange(len(features), device=features.device).unsqueeze(1)
        lower = features.new_zeros(len(features), n, n).index_put(
            (batch, rows, columns), soft_limit(entries, self.limit)
        )
        shape = (-1, *self.units)
        return densities.FullNormal(
            mean.reshape(shape),
            soft_limit(logvar, self.limit).reshape(shape),
            lower,
            len(self.units),
        )


@final
class LowRankNormal(RealPosterior):
    """Represent q(z | x) = N(mean, S (I + V V') S): diagonal noise and `rank` directions, predicted
    by the encoder (Rezende, Mohamed and Wierstra 2014, section 4.3, for rank 1).

    It represents the strongest correlations between units. A draw costs (2 + rank) n operations,
    and log q needs a solve of size rank.

    Args:
        space, encoder, units: see Posterior; the encoder's output is (B, (2 + rank) n) for n units.
        rank: number of directions.
        limit: bound of the log-variance.

    Raises:
        ValueError: an option is out of its range.

    >>> LowRankNormal.outputs((4,), rank=2)
    (16,)
    """

    def __init__(
        self,
        space: Space,
        encoder: nn.Module,
        units: tuple[int, ...],
        *,
        rank: int = 4,
        limit: float = 20.0,
    ) -> None:
        if rank < 1:
            raise ValueError(f"expected a rank of 1 or more; got {rank}")
        super().__init__(space, encoder, units, limit=limit)
        self.rank = rank

    @classmethod
    def outputs(
        cls, units: tuple[int, ...], *, rank: int = 4, **options: object
    ) -> tuple[int, ...]:
        return ((2 + rank) * math.prod(units),)

    @property
    def noise_shape(self) -> tuple[int, ...]:
        return (math.prod(self.units) + self.rank,)

    def density(self, features: Tensor) -> densities.LowRankNormal:
        n = math.prod(self.units)
        mean, logvar, factors = features.split([n, n, self.rank * n], -1)
        shape = (-1, *self.units)
        factors = soft_limit(factors, self.limit).unflatten(-1, (n, self.rank))
        return densities.LowRankNormal(
            mean.reshape(shape),
            soft_limit(logvar, self.limit).reshape(shape),
            factors,
            len(self.units),
        )
