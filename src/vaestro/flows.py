"""Normalizing flows over latents: a density transformed by an invertible map.

By the change of variables (Rezende and Mohamed 2015),

    z = f(e),   e ~ p:   log q(z) = log p(e) - log |det df/de|

The determinant of an autoregressive map is a product over units, because its Jacobian is
triangular: f_i depends on e_1, ..., e_i only. One direction of the map needs one pass of the
network, the other one pass for each unit. A posterior draws in one pass (inverse autoregressive
flow; Kingma et al. 2016); a prior scores in one pass (masked autoregressive flow; Papamakarios,
Pavlakou and Murray 2017).

Autoregressive, coupling and spline maps are those of zuko. Importing zuko disables the validation
of arguments in torch.distributions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType
from typing import Protocol, final

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from vaestro.densities import Normal, PosteriorDensity, PriorDensity, full_precision

MOMENTS = 64  # draws of each datum that estimate the mean and the variance
PAIRS = 8  # pairs of draws of each datum that estimate the covariance


class Transform(Protocol):
    """Describe an invertible map from (..., n) to (..., n)."""

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the image and the logarithm of the absolute determinant, (...)."""

    @property
    def inv(self) -> Callable[[Tensor], Tensor]:
        """Return the inverse map."""


def _zuko() -> ModuleType:
    try:
        import zuko
    except ImportError as error:
        raise ValueError(
            "expected the extra vaestro[flows] for normalizing flows; got an installation "
            "without it"
        ) from error
    return zuko


def _near_identity(transform: nn.Module) -> nn.Module:
    """Shrink the last layer of a map's network, so that training starts near the identity."""
    linear = (nn.Linear, _zuko().nn.Linear)
    last = [m for m in transform.modules() if isinstance(m, linear)][-1]
    with torch.no_grad():
        last.weight.mul_(0.1)
        last.bias.mul_(0.1)
    return transform


def autoregressive(units: int, context: int, layers: int, width: int, bins: int = 0) -> nn.Module:
    """Return a map composed of masked autoregressive maps, a function of the context.

    The order of the units is reversed from one map to the next.

    Args:
        units: size of a latent, n.
        context: size of the context; 0 for none.
        layers: number of maps.
        width: of the two hidden layers of each map's network.
        bins: bins of monotonic rational-quadratic splines (Durkan, Bekasov, Murray and Papamakarios
            2019); 0 for affine maps.

    Raises:
        ValueError: zuko is not installed.

    >>> transform = autoregressive(2, context=0, layers=1, width=8)(None)
    >>> transform(torch.zeros(3, 2)).shape
    torch.Size([3, 2])
    """
    zuko = _zuko()
    univariate: dict[str, object] = {}
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
    composed: nn.Module = zuko.lazy.LazyComposedTransform(*map(_near_identity, maps))
    return composed


def coupling(units: int, context: int, layers: int, width: int) -> nn.Module:
    """Return a map composed of affine couplings, a function of the context (Dinh et al. 2017).

    Each coupling transforms every other unit by a function of the remaining units.

    Args:
        units: size of a latent, n.
        context: size of the context; 0 for none.
        layers: number of couplings.
        width: of the two hidden layers of each coupling's network.

    Raises:
        ValueError: zuko is not installed.

    >>> transform = coupling(2, context=0, layers=2, width=8)(None)
    >>> transform(torch.zeros(3, 2)).shape
    torch.Size([3, 2])
    """
    zuko = _zuko()
    halves = [torch.arange(units) % 2 == i % 2 for i in range(layers)]
    maps = [
        zuko.flows.GeneralCouplingTransform(
            units, context, mask=half, hidden_features=(width, width)
        )
        for half in halves
    ]
    composed: nn.Module = zuko.lazy.LazyComposedTransform(*map(_near_identity, maps))
    return composed


@final
class PlanarMap:
    """Represent L planar maps, e -> e + u tanh(w . e + b), with parameters for each datum (Rezende
    and Mohamed 2015).

        log |det| = log |1 + (1 - tanh^2(w . e + b)) w . u|

    The component of u along w is changed such that w . u > -1. The map is then invertible, but its
    inverse has no closed form.

    Args:
        u, w: (B, L, n).
        b: (B, L).

    >>> u, w = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.0, 1.0]]])
    >>> image, log_det = PlanarMap(u, w, torch.zeros(1, 1)).call_and_ladj(torch.zeros(4, 1, 2))
    >>> image.shape, log_det.shape
    (torch.Size([4, 1, 2]), torch.Size([4, 1]))
    """

    def __init__(self, u: Tensor, w: Tensor, b: Tensor) -> None:
        along = (w * u).sum(-1, keepdim=True)
        self.u = u + (F.softplus(along) - 1 - along) * w / w.square().sum(
            -1, keepdim=True
        ).clamp_min(1e-12)
        self.w, self.b = w, b

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the image of (K, B, n), and the log-determinant, (K, B)."""
        total = x.new_zeros(x.shape[:-1])
        for u, w, b in zip(self.u.unbind(1), self.w.unbind(1), self.b.unbind(1), strict=True):
            bend = torch.tanh((x * w).sum(-1) + b)
            x = x + u * bend.unsqueeze(-1)
            total = total + torch.log((1 + (1 - bend.square()) * (w * u).sum(-1)).clamp_min(1e-12))
        return x, total

    @property
    def inv(self) -> Callable[[Tensor], Tensor]:
        """Raise ValueError: the inverse has no closed form."""
        raise ValueError(
            "expected a density whose map has an inverse (posterior iaf or spline) to score "
            "points that are not its draws; got planar"
        )


@final
class Flowed(PosteriorDensity):
    """Represent q(z | x) by z = mean + std * f(noise), where f maps flattened noise.

    The last draw is scored with its noise, at no cost. Other points need the inverse of f.

    Args:
        outer: the density of mean + std * noise, (B, *Z).
        transform: f.
        detached: returns the same density without gradients.

    >>> from vaestro.densities import Normal
    >>> shift = PlanarMap(torch.zeros(1, 1, 2), torch.ones(1, 1, 2), torch.zeros(1, 1))
    >>> q = Flowed(Normal(torch.zeros(1, 2), torch.zeros(1, 2)), shift, lambda: q)
    >>> z = q.from_noise(torch.zeros(5, 1, 2))
    >>> q.log_prob(z).shape
    torch.Size([5, 1])
    """

    scored_anywhere = False

    def __init__(self, outer: Normal, transform: Transform, detached: Callable[[], Flowed]) -> None:
        self.outer, self.transform, self._detached = outer, transform, detached
        self._last: tuple[Tensor, Tensor] | None = None  # the last z and its log-density
        self._moments: tuple[Tensor, Tensor] | None = None

    def _flat(self, z: Tensor) -> Tensor:
        return z.flatten(z.ndim - self.outer.dims)

    def _log_density(self, noise: Tensor, log_det: Tensor) -> Tensor:
        """Return log q of the draw from flattened noise, with the log-determinant of f there."""
        scale = 0.5 * self.outer.logvar.flatten(1).sum(-1)
        return -0.5 * (noise.square() + math.log(2 * math.pi)).sum(-1) - log_det - scale

    @full_precision
    def _draw(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return z and log q(z) from noise, (K, B, *Z)."""
        flat = self._flat(noise)
        image, log_det = self.transform.call_and_ladj(flat)
        return self.outer.from_noise(image.reshape(noise.shape)), self._log_density(flat, log_det)

    def from_noise(self, noise: Tensor) -> Tensor:
        """Return z, (K, B, *Z), from standard normal noise, in one pass."""
        self._last = self._draw(noise)
        return self._last[0]

    @full_precision
    def log_prob(self, value: Tensor) -> Tensor:
        """Return log-densities in nats, (...): of the last draw from its noise, of other points
        through the inverse.

        Raises:
            ValueError: another point, if the map has no inverse in closed form.
        """
        if self._last is not None and value is self._last[0]:
            return self._last[1]
        noise = self.transform.inv(
            self._flat((value - self.outer.mean) * torch.exp(-0.5 * self.outer.logvar))
        )
        _, log_det = self.transform.call_and_ladj(noise)
        return self._log_density(noise, log_det)

    def _mean_and_variance(self) -> tuple[Tensor, Tensor]:
        if self._moments is None:
            mean = self.outer.mean
            # the same noise for every datum, so that codes are the same in every call
            generator = torch.Generator().manual_seed(0)
            half = torch.randn((MOMENTS // 2, 1, *mean.shape[1:]), generator=generator).to(mean)
            z, _ = self._draw(torch.cat([half, -half]).expand(-1, *mean.shape))
            self._moments = z.mean(0), z.var(0)
        return self._moments

    @property
    def mean(self) -> Tensor:
        """Return the mean of 64 draws, (B, *Z), with the same antithetic noise for every datum."""
        return self._mean_and_variance()[0]

    @property
    def variance(self) -> Tensor:
        """Return the variance of these 64 draws, (B, *Z)."""
        return self._mean_and_variance()[1]

    def mean_covariance(self) -> Tensor:
        """Estimate the covariance averaged over the data, (n, n), without bias, from 8 pairs of
        draws of each datum.

        A pair is drawn from noise and its negative. With a = (z + z') / 2 and d = (z - z') / 2, the
        covariance is Cov(a) + E[d d']. The noise differs between data, so that its error averages
        out over the batch.
        """
        mean = self.outer.mean
        generator = torch.Generator().manual_seed(1)
        noise = torch.randn((PAIRS, *mean.shape), generator=generator).to(mean)
        one, other = (self._flat(self._draw(part)[0]) for part in (noise, -noise))
        half, centre = (one - other) / 2, (one + other) / 2
        centre = centre - centre.mean(0)
        return torch.einsum("kbi,kbj->ij", half, half) / half[..., 0].numel() + torch.einsum(
            "kbi,kbj->ij", centre, centre
        ) / ((PAIRS - 1) * len(mean))

    def detach(self) -> Flowed:
        return self._detached()


@final
class FlowPrior(PriorDensity):
    """Represent p(z) by a map f from flattened latents to standard normal noise:

        log p(z) = log N(f(z); 0, I) + log |det df/dz|

    Args:
        transform: f.
        shape: of one latent, *Z.
        like: a tensor with the dtype and the device of the draws.
        rows: number of data, if each has its own density; None if all share one.

    >>> f = autoregressive(2, context=0, layers=1, width=8)(None)
    >>> FlowPrior(f, (2,), torch.zeros(())).draw(5).shape
    torch.Size([5, 2])
    """

    def __init__(
        self, transform: Transform, shape: tuple[int, ...], like: Tensor, rows: int | None = None
    ) -> None:
        self.transform, self.shape, self._like, self.rows = transform, shape, like, rows

    @property
    def shared(self) -> bool:
        return self.rows is None

    @property
    @full_precision
    def mean(self) -> Tensor:
        """Return the mean of 64 draws, (B, *Z); the noise is the same for every datum."""
        generator = torch.Generator().manual_seed(0)
        half = torch.randn((MOMENTS // 2, 1, math.prod(self.shape)), generator=generator)
        noise = torch.cat([half, -half]).to(self._like).expand(-1, self.rows or 1, -1)
        with torch.no_grad():
            return self.transform.inv(noise).mean(0).unflatten(-1, self.shape)

    @full_precision
    def log_prob(self, value: Tensor) -> Tensor:
        noise, log_det = self.transform.call_and_ladj(value.flatten(value.ndim - len(self.shape)))
        return -0.5 * (noise.square() + math.log(2 * math.pi)).sum(-1) + log_det

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
