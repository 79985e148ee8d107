"""Draws from a model, and the log-densities there.

Every bound, gradient estimator and diagnosis is a function of three log-densities at K draws for
each of B data:

    z_k ~ q(z | x)      log w_k = log p(x | z_k) + log p(z_k) - log q(z_k | x)      each (K, B)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from typing import NamedTuple

from torch import Tensor

from vaestro.densities import Density, PosteriorDensity, PriorDensity


def _once(compute: Callable[[Draws], Tensor]) -> property:
    """Return a property that computes its value once.

    torch.compile does not support the lock in functools.cached_property.
    """
    name = f"_{compute.__name__}"

    @wraps(compute)
    def get(self: Draws) -> Tensor:
        value: Tensor | None = getattr(self, name, None)
        if value is None:
            value = compute(self)
            object.__setattr__(self, name, value)
        return value

    return property(get)


def _mean_of_draws(x: Tensor) -> Tensor:
    return x.squeeze(0) if len(x) == 1 else x.mean(0)


class Code(NamedTuple):
    """Hold the code of each datum.

    Args:
        mean: the mean of q(z | x), (B, *Z).
        logvar: its log-variance, (B, *Z); None for families without one.
        how: how the code is computed, in words.

    >>> import torch, vaestro as vs
    >>> from vaestro.spaces import Batch, BinarySpace
    >>> model = vs.build(BinarySpace((3,), (3,)), latent=2)
    >>> model.code(Batch(torch.ones(5, 3))).mean.shape
    torch.Size([5, 2])
    """

    mean: Tensor
    logvar: Tensor | None
    how: str


@dataclass(frozen=True, eq=False)
class Draws:
    """Hold K draws for each of B data and the log-densities there, in nats.

    Args:
        z: (K, B, *Z).
        log_px: log p(x | z), (K, B), in the user's units.
        rate: the KL of each unit, (1, B, *Z) in closed form, or (K, B, 1) as log q - log p at the
            draws.
        q, p, px: the densities.
        optimised: the draws that training optimises; None if they are these.
        weight: the weight of log q - log p in log_w, and of the rate in the ELBO. It is beta in a
            loss, and 1 in a reported bound.

    >>> import torch, vaestro as vs
    >>> from vaestro.spaces import Batch, BinarySpace
    >>> model = vs.build(BinarySpace((3,), (3,)), latent=2)
    >>> draws = model.draw(Batch(torch.ones(5, 3)), k=4)
    >>> draws.log_w.shape, draws.total_rate.shape
    (torch.Size([4, 5]), torch.Size([5]))
    """

    z: Tensor
    log_px: Tensor
    rate: Tensor
    q: PosteriorDensity
    p: PriorDensity
    px: Density
    optimised: Draws | None = None
    weight: float | Tensor = 1.0

    @_once
    def log_pz(self) -> Tensor:
        """Return log p(z), (K, B)."""
        return self.p.log_prob(self.z)

    @_once
    def log_qz(self) -> Tensor:
        """Return log q(z | x), (K, B)."""
        return self.q.log_prob(self.z)

    @property
    def log_w(self) -> Tensor:
        """Return the log importance weights, log p(x | z) + weight (log p(z) - log q(z | x)),
        (K, B)."""
        if isinstance(self.weight, float) and self.weight in (0, 1):
            return self.log_px + self.log_pz - self.log_qz if self.weight else self.log_px
        return self.log_px + self.weight * (self.log_pz - self.log_qz)

    @_once
    def total_rate(self) -> Tensor:
        """Return the rate of each datum, summed over units and averaged over draws, (B,)."""
        return _mean_of_draws(self.rate.flatten(2).sum(-1))

    @_once
    def mean_log_px(self) -> Tensor:
        """Return log p(x | z) of each datum, averaged over draws, (B,)."""
        return _mean_of_draws(self.log_px)

    @property
    def distortion(self) -> Tensor:
        """Return -log p(x | z) of each datum, averaged over draws, (B,)."""
        return -self.mean_log_px

    @property
    def shared_prior(self) -> bool:
        """Return whether all data have the same prior."""
        return self.p.shared

    @property
    def unweighted(self) -> bool:
        """Return whether the weight is the number 1."""
        return isinstance(self.weight, float) and self.weight == 1

    def weighted(self, weight: float | Tensor) -> Draws:
        """Return the same draws with another weight of the rate."""
        if isinstance(weight, float) and weight == self.weight:
            return self
        return replace(self, weight=weight)

    def sampled(self) -> Draws:
        """Return the same draws with the sampled rate log q - log p instead of the closed form."""
        return replace(self, rate=(self.log_qz - self.log_pz).unsqueeze(-1))

    def of_weights(self, log_w: Tensor) -> Draws:
        """Return draws with these log weights, (K, M), and a rate of 0, for bounds of transformed
        weights."""
        return replace(
            self,
            log_px=log_w,
            rate=log_w.new_zeros(1, log_w.shape[1], 1),
            optimised=None,
            weight=0.0,
        )

    def trained(self) -> Draws:
        """Return the draws that training optimises; by default these."""
        return self if self.optimised is None else self.optimised
