"""Normalizing flows over latents: a simple density pushed through an invertible map, whose
log-determinant is part of the density.

    z = f(start),   log q(z) = log q(start) - log |det df/dstart|            (Rezende and Mohamed
    2015)

Autoregressive, coupling and spline maps are zuko's. (Importing zuko turns off the validation of
arguments in torch.distributions.)
An autoregressive map is one pass in one direction and as many passes as there are units in the
other: a posterior takes the quick one to draw (inverse autoregressive flow), a prior to score
(masked autoregressive flow).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol, final

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from vaestro.densities import Normal, PosteriorDensity, PriorDensity, full_precision

MOMENTS = 64  # draws that mean and variance are taken from
PAIRS = 8  # pairs of draws of each datum that the covariance is taken from


class Transform(Protocol):
    """Name what is asked of a map from (..., n) to (..., n)."""

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the image and the logarithm of the absolute determinant, (...)."""

    @property
    def inv(self) -> Callable[[Tensor], Tensor]:
        """Return the map back."""


def _zuko() -> Any:
    try:
        import zuko
    except ImportError as error:
        raise ValueError(
            "expected the extra vaestro[flows] for normalizing flows; got an installation "
            "without it"
        ) from error
    return zuko


def _calmed(transform: Any) -> Any:
    """Shrink the last layer of a map's network, so that training starts near a map that does
    little."""
    with torch.no_grad():
        last = [m for m in transform.modules() if isinstance(getattr(m, "weight", None), Tensor)][
            -1
        ]
        last.weight.mul_(0.1)
        last.bias.mul_(0.1)
    return transform


def autoregressive(units: int, context: int, layers: int, width: int, bins: int = 0) -> nn.Module:
    """Make a lazy map of `layers` masked autoregressive ones in alternating order, affine or with
    `bins` by monotonic splines.

    Raises:
        ValueError: zuko is not installed.
    """
    zuko = _zuko()
    univariate: dict[str, Any] = {}
    if bins:
        univariate = {
            "univariate": zuko.transforms.MonotonicRQSTransform,
            "shapes": [(bins,), (bins,), (bins - 1,)],
        }
    order = torch.arange(units)
    maps = [
        zuko.flows.MaskedAutoregressiveTransform(
            units,
            context,
            order=order.flip(0) if i % 2 else order,
            hidden_features=(width, width),
            **univariate,
        )
        for i in range(layers)
    ]
    return zuko.lazy.LazyComposedTransform(*map(_calmed, maps))  # type: ignore[no-any-return]


def coupling(units: int, layers: int, width: int) -> nn.Module:
    """Make a lazy map of `layers` affine couplings, each moving every other unit by what the others
    say.

    Raises:
        ValueError: zuko is not installed.
    """
    zuko = _zuko()
    halves = [torch.arange(units) % 2 == i % 2 for i in range(layers)]
    maps = [
        zuko.flows.GeneralCouplingTransform(units, mask=half, hidden_features=(width, width))
        for half in halves
    ]
    return zuko.lazy.LazyComposedTransform(*map(_calmed, maps))  # type: ignore[no-any-return]


@final
class Planar:
    """Represent z + u tanh(w . z + b), layer after layer, with parameters for each datum (Rezende
    and Mohamed 2015).

    u is moved along w so that w . u > -1: then the map is invertible, though not in closed form.

    Args:
        u, w: (B, L, n).
        b: (B, L).
    """

    def __init__(self, u: Tensor, w: Tensor, b: Tensor) -> None:
        along = (w * u).sum(-1, keepdim=True)
        self.u = u + (F.softplus(along) - 1 - along) * w / w.square().sum(
            -1, keepdim=True
        ).clamp_min(1e-12)
        self.w, self.b = w, b

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the image of (K, B, n), and (K, B)."""
        total = x.new_zeros(x.shape[:-1])
        for u, w, b in zip(self.u.unbind(1), self.w.unbind(1), self.b.unbind(1), strict=True):
            bent = torch.tanh((x * w).sum(-1) + b)
            x = x + u * bent.unsqueeze(-1)
            total = total + torch.log((1 + (1 - bent.square()) * (w * u).sum(-1)).clamp_min(1e-12))
        return x, total

    @property
    def inv(self) -> Callable[[Tensor], Tensor]:
        raise ValueError(
            "expected a density whose map has an inverse (posterior iaf or spline) to score "
            "points that are not its draws; got planar"
        )


@final
class Flowed(PosteriorDensity):
    """Represent q(z | x): z = mean + std * f(noise), f a map of noise laid flat. Its own draws are
    scored by what made them, at no cost.

    Args:
        outer: holds mean and std, (B, *Z).
        transform: f.
        cut: makes the same density anew, without gradients.
    """

    scored_anywhere = False

    def __init__(self, outer: Normal, transform: Transform, cut: Callable[[], Flowed]) -> None:
        self.outer, self.transform, self._cut = outer, transform, cut
        self._made: tuple[Tensor, Tensor] | None = None
        self._moments: tuple[Tensor, Tensor] | None = None

    def _flat(self, z: Tensor) -> Tensor:
        return z.flatten(z.ndim - self.outer.dims)

    def _scored(self, start: Tensor, log_det: Tensor) -> Tensor:
        """Return log-densities from the noise that a draw was made of, laid flat, and the map's
        log-determinant there."""
        scale = 0.5 * self.outer.logvar.flatten(1).sum(-1)
        return -0.5 * (start.square() + math.log(2 * math.pi)).sum(-1) - log_det - scale

    @full_precision
    def _pushed(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        start = self._flat(noise)
        moved, log_det = self.transform.call_and_ladj(start)
        return self.outer.from_noise(moved.reshape(noise.shape)), self._scored(start, log_det)

    def from_noise(self, noise: Tensor) -> Tensor:
        """Return z (K, B, *Z) from standard normal noise, in one pass."""
        self._made = self._pushed(noise)
        return self._made[0]

    @full_precision
    def log_prob(self, value: Tensor) -> Tensor:
        """Return log-densities in nats, (...): of its own draws from the noise that made them,
        elsewhere through the inverse.

        Raises:
            ValueError: elsewhere, where the map has no inverse.
        """
        if self._made is not None and value is self._made[0]:
            return self._made[1]
        start = self.transform.inv(
            self._flat((value - self.outer.mean) * torch.exp(-0.5 * self.outer.logvar))
        )
        _, log_det = self.transform.call_and_ladj(start)
        return self._scored(start, log_det)

    def _mean_and_variance(self) -> tuple[Tensor, Tensor]:
        if self._moments is None:
            mean = self.outer.mean
            # the same for every datum, so that a code does not change from call to call
            generator = torch.Generator().manual_seed(0)
            half = torch.randn((MOMENTS // 2, 1, *mean.shape[1:]), generator=generator).to(mean)
            z, _ = self._pushed(torch.cat([half, -half]).expand(-1, *mean.shape))
            self._moments = z.mean(0), z.var(0)
        return self._moments

    @property
    def mean(self) -> Tensor:
        """Return the mean of 64 draws, the same noise and its opposite for every datum, (B, *Z)."""
        return self._mean_and_variance()[0]

    @property
    def variance(self) -> Tensor:
        """Return the variance of those draws, (B, *Z)."""
        return self._mean_and_variance()[1]

    def mean_covariance(self) -> Tensor:
        """Estimate the covariance averaged over the data, (n, n), without bias, from 8 pairs of
        draws of each datum.

        A pair is made of noise and its opposite, and its draws are centre + half and centre - half.
        Their covariance is that of the centres plus the mean of half half'. The noise differs
        between data, so that its error averages out over the batch.
        """
        mean = self.outer.mean
        generator = torch.Generator().manual_seed(1)
        noise = torch.randn((PAIRS, *mean.shape), generator=generator).to(mean)
        one, other = (self._flat(self._pushed(part)[0]) for part in (noise, -noise))
        half, centre = (one - other) / 2, (one + other) / 2
        centre = centre - centre.mean(0)
        return torch.einsum("kbi,kbj->ij", half, half) / half[..., 0].numel() + torch.einsum(
            "kbi,kbj->ij", centre, centre
        ) / ((PAIRS - 1) * len(mean))

    def detach(self) -> Flowed:
        """Return the same density, cut from the graph."""
        return self._cut()


@final
class FlowPrior(PriorDensity):
    """Represent p(z): a standard normal seen through a map from latents, laid flat, to it.

    Args:
        transform: from latents to the normal.
        shape: of one latent, *Z.
        like: tells dtype and device.
    """

    def __init__(self, transform: Transform, shape: tuple[int, ...], like: Tensor) -> None:
        self.transform, self.shape, self._like = transform, shape, like

    @full_precision
    def log_prob(self, value: Tensor) -> Tensor:
        """Return log-densities in nats, (...)."""
        start, log_det = self.transform.call_and_ladj(value.flatten(value.ndim - len(self.shape)))
        return -0.5 * (start.square() + math.log(2 * math.pi)).sum(-1) + log_det

    @full_precision
    def draw(
        self, n: int, generator: torch.Generator | None = None, temperature: float = 1.0
    ) -> Tensor:
        noise = torch.randn(
            (n, math.prod(self.shape)),
            generator=generator,
            dtype=self._like.dtype,
            device=self._like.device,
        )
        with torch.no_grad():
            return self.transform.inv(temperature * noise).reshape(n, *self.shape)
