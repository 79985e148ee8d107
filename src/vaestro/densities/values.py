"""Densities of independent or jointly modelled cells; the continuous ones with a location and a
scale also serve as q(z | x)."""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from vaestro.densities.core import (
    LOG_2PI,
    Cells,
    DataDensity,
    mixed_over,
    softplus,
    sum_cells,
    summed,
    uniform,
)
from vaestro.densities.moments import IndependentUnits

EULER = 0.5772156649015329


class Normal(Cells, IndependentUnits):
    """Represent a normal with diagonal covariance; `dims` trailing dimensions make one datum.

    Args:
        mean, logvar: tensors that broadcast to (..., *X).
        dims: number of dimensions of one datum.
    """

    def __init__(self, mean: Tensor, logvar: Tensor, dims: int = 1) -> None:
        self._mean, self.logvar, self.dims = mean, logvar, dims

    @property
    def mean(self) -> Tensor:
        return self._mean

    @property
    def std(self) -> Tensor:
        """Return the standard deviation, exp(logvar / 2)."""
        return torch.exp(0.5 * self.logvar)

    @property
    def variance(self) -> Tensor:
        """Return the variance, exp(logvar)."""
        return torch.exp(self.logvar)

    def from_noise(self, noise: Tensor) -> Tensor:
        """Return mean + std * noise: the reparameterization (Kingma and Welling 2014; Rezende et
        al. 2014)."""
        return torch.addcmul(self.mean, self.std, noise)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draw one value for each set of parameters."""
        mean = self.mean.detach()
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
        return mean + self.std.detach() * noise

    def cells(self, value: Tensor) -> Tensor:
        squared = (value - self.mean).square() * torch.exp(-self.logvar)
        return -0.5 * (squared + self.logvar + LOG_2PI)

    def standardised_residual(self, value: Tensor) -> Tensor:
        return (value - self.mean).square() * torch.exp(-self.logvar)

    def detach(self) -> Normal:
        """Return the same density, cut from the graph (what sticking-the-landing scores under)."""
        return Normal(self.mean.detach(), self.logvar.detach(), self.dims)


class Bernoulli(Cells):
    """Represent independent coins by their logits, (..., *X)."""

    def __init__(self, logits: Tensor, dims: int) -> None:
        self.logits, self.dims = logits, dims

    @property
    def mean(self) -> Tensor:
        """Return the probabilities of a one."""
        return torch.sigmoid(self.logits)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draw zeros and ones."""
        return torch.bernoulli(self.mean, generator=generator)

    def log_prob(self, value: Tensor, observed: Tensor | None = None) -> Tensor:
        """Return log-probabilities in nats, (...): x * logit - log(1 + exp(logit)), stable for any
        logit."""
        value = value.to(self.logits.dtype)
        if observed is None and value.shape == self.logits.shape[-value.ndim :]:
            logits, value = self.logits.flatten(-self.dims), value.flatten(-self.dims)
            # one call with a derivative of its own: half the time that autograd takes for the
            # formula
            if torch.is_grad_enabled():
                return summed(
                    F.binary_cross_entropy_with_logits(
                        logits, value.expand_as(logits), reduction="none"
                    )
                ).neg()
            return summed(softplus(logits).addcmul_(value, logits, value=-1)).neg_()
        return super().log_prob(value, observed)

    def cells(self, value: Tensor) -> Tensor:
        return value * self.logits - softplus(self.logits)


class Categorical(Cells):
    """Represent independent choices among L codes by their logits, (..., L, *X).

    Args:
        logits: (..., L, *X).
        dims: number of dimensions of one datum.
        ordered: whether codes are levels, which have a mean.
    """

    def __init__(self, logits: Tensor, dims: int, ordered: bool = False) -> None:
        self.logits, self.dims, self.ordered = logits, dims, ordered

    @property
    def _codes(self) -> int:
        return self.logits.ndim - self.dims - 1

    @property
    def mean(self) -> Tensor:
        """Return the probabilities of the codes, (..., L, *X)."""
        return torch.softmax(self.logits, self._codes)

    def point(self, weights: Tensor | None = None) -> Tensor:
        mixed = mixed_over(self.mean, weights)
        codes = mixed.ndim - self.dims - 1
        if not self.ordered:
            return mixed.argmax(codes)
        levels = torch.arange(mixed.shape[codes], dtype=mixed.dtype, device=mixed.device)
        return torch.tensordot(mixed, levels, ([codes], [0]))

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draw codes, (..., *X)."""
        p = self.mean.movedim(self._codes, -1)
        flat = p.reshape(-1, p.shape[-1])
        return torch.multinomial(flat, 1, generator=generator).reshape(p.shape[:-1])

    def cells(self, value: Tensor) -> Tensor:
        codes = value.long().unsqueeze(value.ndim - self.dims)
        lead = torch.broadcast_shapes(
            self.logits.shape[: self._codes], codes.shape[: codes.ndim - self.dims - 1]
        )
        codes = codes.expand(*lead, 1, *codes.shape[codes.ndim - self.dims :])
        logits = self.logits.expand(*lead, *self.logits.shape[self._codes :])
        chosen = logits.gather(len(lead), codes).squeeze(len(lead))
        return chosen - torch.logsumexp(self.logits, self._codes)


class LocationScale(Cells, IndependentUnits):
    """Hold what families x = loc + scale * noise share; loc and log_scale broadcast to (...,
    *X)."""

    def __init__(self, loc: Tensor, log_scale: Tensor, dims: int = 1) -> None:
        self.loc, self.log_scale, self.dims = loc, log_scale, dims

    @property
    @abstractmethod
    def moments(self) -> tuple[float, float | Tensor, float | Tensor]:
        """Return mean, variance and entropy in nats of the standard member; an infinite variance
        where there is none."""

    @property
    def mean(self) -> Tensor:
        """Return the mean; the location where the standard member's is zero."""
        centre = self.moments[0]
        return self.loc if centre == 0 else self.loc + centre * torch.exp(self.log_scale)

    @property
    def variance(self) -> Tensor:
        """Return the variance of each cell."""
        return torch.exp(2 * self.log_scale) * self.moments[1]

    @property
    def entropy(self) -> Tensor:
        """Return the entropy of each cell in nats."""
        return self.log_scale + self.moments[2]

    def from_noise(self, noise: Tensor) -> Tensor:
        """Return loc + scale * noise, the reparameterization of any location-scale family (Kingma
        and Welling 2014)."""
        return torch.addcmul(self.loc, torch.exp(self.log_scale), noise)

    def detach(self) -> Self:
        """Return the same density, cut from the graph."""
        cut = copy.copy(self)
        cut.loc, cut.log_scale = self.loc.detach(), self.log_scale.detach()
        return cut

    @abstractmethod
    def standard(self, y: Tensor) -> Tensor:
        """Return the log-density of the standard member at y."""

    @abstractmethod
    def pull(self, y: Tensor) -> Tensor:
        """Return y times the derivative of -log of the standard density at y, whose mean over draws
        is 1 (see `standardised_residual`)."""

    @abstractmethod
    def noise(self, generator: torch.Generator | None) -> Tensor:
        """Draw from the standard member, in the shape of loc."""

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        return self.loc + torch.exp(self.log_scale) * self.noise(generator)

    def cells(self, value: Tensor) -> Tensor:
        return self.standard((value - self.loc) * torch.exp(-self.log_scale)) - self.log_scale

    def standardised_residual(self, value: Tensor) -> Tensor:
        return self.pull((value - self.loc) * torch.exp(-self.log_scale))


class Laplace(LocationScale):
    """Represent independent Laplace cells: density exp(-|y|) / (2 scale), y = (x - loc) / scale."""

    moments = (0.0, 2.0, 1 + math.log(2))

    def standard(self, y: Tensor) -> Tensor:
        return -y.abs() - math.log(2)

    def pull(self, y: Tensor) -> Tensor:
        return y.abs()

    def noise(self, generator: torch.Generator | None) -> Tensor:
        u = uniform(self.loc, generator) - 0.5
        return -u.sign() * torch.log1p(-2 * u.abs())


class Logistic(LocationScale):
    """Represent independent logistic cells: the density whose distribution function is a
    sigmoid."""

    moments = (0.0, math.pi**2 / 3, 2.0)

    def standard(self, y: Tensor) -> Tensor:
        size = y.abs()
        return -size - 2 * F.softplus(-size)

    def pull(self, y: Tensor) -> Tensor:
        return y * torch.tanh(y / 2)

    def noise(self, generator: torch.Generator | None) -> Tensor:
        return torch.logit(uniform(self.loc, generator))


class StudentT(LocationScale):
    """Represent independent cells of Student's t with `df` > 1 degrees of freedom, a tensor that
    broadcasts."""

    def __init__(self, loc: Tensor, log_scale: Tensor, df: Tensor, dims: int = 1) -> None:
        super().__init__(loc, log_scale, dims)
        self.df = df

    @property
    def moments(self) -> tuple[float, Tensor, Tensor]:
        df, half = self.df, (self.df + 1) / 2
        variance = torch.where(df > 2, df / (df - 2).clamp_min(1e-6), math.inf)
        beta = torch.lgamma(df / 2) + math.lgamma(0.5) - torch.lgamma(half)
        entropy = half * (torch.digamma(half) - torch.digamma(df / 2)) + 0.5 * torch.log(df) + beta
        return 0.0, variance, entropy

    def standard(self, y: Tensor) -> Tensor:
        half = (self.df + 1) / 2
        constant = (
            torch.lgamma(half) - torch.lgamma(self.df / 2) - 0.5 * torch.log(self.df * math.pi)
        )
        return constant - half * torch.log1p(y.square() / self.df)

    def pull(self, y: Tensor) -> Tensor:
        # in this form neither y = 0 nor an overflow of the square gives NaN
        return (self.df + 1) / (1 + self.df / y.square())

    def noise(self, generator: torch.Generator | None) -> Tensor:
        loc = self.loc
        normal = torch.randn(loc.shape, generator=generator, dtype=loc.dtype, device=loc.device)
        half = (self.df / 2).expand(loc.shape).contiguous()
        return normal * torch.sqrt(half / torch._standard_gamma(half, generator=generator))


class Gumbel(LocationScale):
    """Represent independent Gumbel cells, of which the largest of many draws tend to be one:
    density exp(-y - exp(-y)) / scale."""

    moments = (EULER, math.pi**2 / 6, EULER + 1)

    def standard(self, y: Tensor) -> Tensor:
        return -y - torch.exp(-y)

    def pull(self, y: Tensor) -> Tensor:
        return y * -torch.expm1(-y)

    def noise(self, generator: torch.Generator | None) -> Tensor:
        return gumbel_noise(self.loc, generator)


def gumbel_noise(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw standard Gumbel noise in the shape of a tensor."""
    return -torch.log(-torch.log(uniform(like, generator)))


class ContinuousBernoulli(Cells):
    """Represent values inside (0, 1) with density exp(l x) l / (exp(l) - 1) (Loaiza-Ganem and
    Cunningham 2019).

    Args:
        logits: l, (..., *X).
        dims: number of dimensions of one datum.
    """

    def __init__(self, logits: Tensor, dims: int = 1) -> None:
        self.logits, self.dims = logits, dims

    def _apart(self) -> tuple[Tensor, Tensor]:
        """Return where |l| is too small for the formulas, and |l| with those replaced, so that no
        branch can make a NaN."""
        size = self.logits.abs()
        small = size < 0.05
        return small, torch.where(small, 1.0, size)

    @property
    def mean(self) -> Tensor:
        """Return 1 / (1 - exp(-l)) - 1 / l."""
        small, size = self._apart()
        far = -1 / torch.expm1(-size) - 1 / size
        far = torch.where(self.logits > 0, far, 1 - far)
        return torch.where(small, 0.5 + self.logits / 12 - self.logits**3 / 720, far)

    def cells(self, value: Tensor) -> Tensor:
        # log of the integral of exp(l x): l / 2 + log(sinh(l / 2) / (l / 2)).
        small, size = self._apart()
        squared = self.logits.square()
        near = squared / 24 - squared.square() / 2880
        far = size / 2 + torch.log(-torch.expm1(-size) / size)
        return self.logits * (value - 0.5) - torch.where(small, near, far)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        # nothing cancels here, so that only zero is kept away
        size = self.logits.abs().clamp_min(1e-6)
        u = uniform(self.logits, generator)
        falling = -torch.log1p(u * torch.expm1(-size)) / size
        x = torch.where(self.logits > 0, 1 - falling, falling)
        tiny = torch.finfo(x.dtype).eps
        return x.clamp(tiny, 1 - tiny)


def _log_of_level(code: Tensor, loc: Tensor, log_scale: Tensor, levels: int) -> Tensor:
    """Return the log-probability that a logistic falls into the unit interval around a code; the
    outer ones are open.

    With a and b the standardised ends, sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b
    - a)), which neither cancels nor underflows in logarithms, so that no clamp is needed.
    """
    inverse = torch.exp(-log_scale)
    upper, lower = (code + 0.5 - loc) * inverse, (code - 0.5 - loc) * inverse
    below, above = F.logsigmoid(upper), F.logsigmoid(-lower)
    inside = below + above + torch.log(-torch.expm1(-inverse))
    return torch.where(code == 0, below, torch.where(code == levels - 1, above, inside))


def _clipped_mean(loc: Tensor, log_scale: Tensor, levels: int) -> Tensor:
    """Return the mean of a logistic clipped to 0 .. levels - 1."""
    scale = torch.exp(log_scale)
    return scale * (F.softplus(loc / scale) - F.softplus((loc - (levels - 1)) / scale))


class DiscretizedLogistic(Cells):
    """Represent levels by a logistic rounded to the nearest one, in units of levels (Kingma et al.
    2016; Salimans et al. 2017).

    `mean` is that of the logistic before it is rounded, clipped to the levels: within half a level
    of the rounded one's.

    Args:
        loc, log_scale: tensors that broadcast to (..., *X).
        levels: how many.
        dims: number of dimensions of one datum.
    """

    def __init__(self, loc: Tensor, log_scale: Tensor, levels: int, dims: int = 1) -> None:
        self.loc, self.log_scale, self.levels, self.dims = loc, log_scale, levels, dims

    @property
    def mean(self) -> Tensor:
        return _clipped_mean(self.loc, self.log_scale, self.levels)

    def cells(self, value: Tensor) -> Tensor:
        return _log_of_level(value.to(self.loc.dtype), self.loc, self.log_scale, self.levels)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        drawn = self.loc + torch.exp(self.log_scale) * torch.logit(uniform(self.loc, generator))
        return drawn.round().clamp(0, self.levels - 1)


class LogisticMixture(DataDensity):
    """Represent the levels of each pixel by a mixture of M discretized logistics over its channels
    (Salimans et al. 2017).

    All C channels of a pixel come from one component. With coefficients, the location of a channel
    moves linearly with the channels before it, so that colours are not independent given z; such
    channels cannot be scored when some are missing.

    Args:
        logits: of the components, (..., M, *R), where *R are the dimensions of a datum without
            channels.
        loc, log_scale: in units of levels, (..., M, C, *R).
        coefficients: (..., M, C (C - 1) / 2, *R), ordered (1 on 0), (2 on 0), (2 on 1); None for
            independent channels.
        levels: how many.
        channelled: whether a datum is (C, *R); otherwise it is (*R) and C is 1.
    """

    def __init__(
        self,
        logits: Tensor,
        loc: Tensor,
        log_scale: Tensor,
        coefficients: Tensor | None,
        levels: int,
        dims: int,
        channelled: bool,
    ) -> None:
        self.logits, self.loc, self.log_scale, self.coefficients = (
            logits,
            loc,
            log_scale,
            coefficients,
        )
        self.levels, self.dims, self.channelled = levels, dims, channelled
        self.rest = dims - 1 if channelled else dims  # dimensions of *R

    def _moved(self, channel: int, before: Sequence[Tensor]) -> Tensor:
        """Return the locations (..., M, *R) of a channel given those before it, in levels."""
        loc = self.loc.select(-1 - self.rest, channel)
        if self.coefficients is None:
            return loc
        first = channel * (channel - 1) // 2
        middle = (self.levels - 1) / 2  # as in the paper, channels enter as values around zero
        for i, x in enumerate(before):
            loc = loc + self.coefficients.select(-1 - self.rest, first + i) * (x - middle)
        return loc

    def _stacked(self, channels: list[Tensor]) -> Tensor:
        return torch.stack(channels, -1 - self.rest) if self.channelled else channels[0]

    @property
    def mean(self) -> Tensor:
        """Return the mixture's mean, channel by channel, each given the means of those before it;
        (..., *X)."""
        weights = torch.softmax(self.logits, -1 - self.rest)
        channels: list[Tensor] = []
        for c in range(self.loc.shape[-1 - self.rest]):
            loc = self._moved(c, [x.unsqueeze(-1 - self.rest) for x in channels])
            means = _clipped_mean(loc, self.log_scale.select(-1 - self.rest, c), self.levels)
            channels.append((weights * means).sum(-1 - self.rest))
        return self._stacked(channels)

    def log_prob(self, value: Tensor, observed: Tensor | None = None) -> Tensor:
        if observed is not None and self.coefficients is not None:
            raise ValueError(
                "expected every cell observed where channels are conditioned on each other; got "
                "missing ones"
            )
        total = self._components(value, observed)
        return sum_cells(torch.logsumexp(total, -1 - self.rest), self.rest, None)

    def conditioned(self, value: Tensor, observed: Tensor) -> LogisticMixture:
        """Return the density of missing channels given the observed ones, which say from which
        component a pixel comes."""
        if self.coefficients is not None:
            raise ValueError(
                "expected every cell observed where channels are conditioned on each other; got "
                "missing ones"
            )
        logits = self._components(value, observed)
        return LogisticMixture(
            logits, self.loc, self.log_scale, None, self.levels, self.dims, self.channelled
        )

    def _components(self, value: Tensor, observed: Tensor | None) -> Tensor:
        """Return the log-probability of each component and of what was observed of a pixel, (...,
        M, *R)."""
        value = value.to(self.loc.dtype)
        channels = list(value.unbind(value.ndim - self.dims)) if self.channelled else [value]
        # (B, 1, *R): a place for the components
        channels = [x.unsqueeze(x.ndim - self.rest) for x in channels]
        total = torch.log_softmax(self.logits, -1 - self.rest)
        for c, x in enumerate(channels):
            loc, log_scale = self._moved(c, channels[:c]), self.log_scale.select(-1 - self.rest, c)
            log_prob = _log_of_level(x, loc, log_scale, self.levels)
            if observed is not None:
                mask = (
                    observed.select(observed.ndim - self.dims, c) if self.channelled else observed
                )
                log_prob = torch.where(mask.unsqueeze(mask.ndim - self.rest), log_prob, 0.0)
            total = total + log_prob
        return total

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        chosen = (self.logits + gumbel_noise(self.logits, generator)).argmax(
            -1 - self.rest, keepdim=True
        )
        channels: list[Tensor] = []
        for c in range(self.loc.shape[-1 - self.rest]):
            loc = self._moved(c, [x.unsqueeze(-1 - self.rest) for x in channels]).gather(
                -1 - self.rest, chosen
            )
            log_scale = self.log_scale.select(-1 - self.rest, c).gather(-1 - self.rest, chosen)
            drawn = loc + torch.exp(log_scale) * torch.logit(uniform(loc, generator))
            channels.append(drawn.round().clamp(0, self.levels - 1).squeeze(-1 - self.rest))
        return self._stacked(channels)


def _beyond_power(y: Tensor) -> Tensor:
    """Return log(y!) - y log y + y for y >= 0, some log(2 pi y) / 2, without the large numbers that
    cancel in it.

    In float32 the parts are rounded by a nat at counts of a million.
    """
    small = y < 16
    near = torch.where(small, y, 1.0).clamp_min(1e-30)
    far = torch.where(small, 16.0, y)
    square = far**-2
    series = (
        0.5 * (LOG_2PI + torch.log(far))
        + (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square / 1680))) / far
    )
    return torch.where(small, torch.lgamma(near + 1) - near * torch.log(near) + near, series)


class Poisson(Cells):
    """Represent independent counts by the logarithm of their mean, (..., *X)."""

    def __init__(self, log_rate: Tensor, dims: int = 1) -> None:
        self.log_rate, self.dims = log_rate, dims

    @property
    def mean(self) -> Tensor:
        return torch.exp(self.log_rate)

    def cells(self, value: Tensor) -> Tensor:
        value = value.to(self.log_rate.dtype)
        apart = self.log_rate - torch.log(value.clamp_min(1))
        body = torch.where(
            value > 0, value * (apart - torch.expm1(apart)), -torch.exp(self.log_rate)
        )
        return body - _beyond_power(value)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        return torch.poisson(self.mean, generator=generator)


class NegativeBinomial(Cells):
    """Represent independent counts by mean and inverse dispersion: a Poisson whose rate is
    Gamma-distributed.

    The variance is mean + mean^2 / exp(log_inverse); as the inverse dispersion grows it becomes the
    Poisson.

    Args:
        log_mean, log_inverse: tensors that broadcast to (..., *X).
        dims: number of dimensions of one datum.
    """

    def __init__(self, log_mean: Tensor, log_inverse: Tensor, dims: int = 1) -> None:
        self.log_mean, self.log_inverse, self.dims = log_mean, log_inverse, dims

    @property
    def mean(self) -> Tensor:
        return torch.exp(self.log_mean)

    def cells(self, value: Tensor) -> Tensor:
        value = value.to(self.log_mean.dtype)
        # lgamma(x + r) - lgamma(r) - lgamma(x + 1) - r log(1 + mean / r) - x log(1 + r / mean),
        # each large part as a difference
        r = torch.exp(self.log_inverse)
        odds = self.log_mean - self.log_inverse
        # the odds at which the mean would be the value
        own = torch.log(value.clamp_min(1e-30)) - self.log_inverse
        constant = (
            _beyond_power(value + r) - _beyond_power(r) - _beyond_power(value) - softplus(own)
        )
        return (
            constant
            + r * (softplus(own) - softplus(odds))
            + value * (softplus(-own) - softplus(-odds))
        )

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        r = torch.exp(self.log_inverse).expand(self.log_mean.shape).contiguous()
        rate = torch._standard_gamma(r, generator=generator) * torch.exp(
            self.log_mean - self.log_inverse
        )
        return torch.poisson(rate, generator=generator)


class ZeroInflated(Cells):
    """Represent counts that are zero more often than a base density has them: with probability
    sigmoid(logit), and else by the base.

    Args:
        base: the density over counts.
        logit: (..., *X).
    """

    def __init__(self, base: NegativeBinomial | Poisson, logit: Tensor) -> None:
        self.base, self.logit, self.dims = base, logit, base.dims

    @property
    def mean(self) -> Tensor:
        return torch.sigmoid(-self.logit) * self.base.mean

    def cells(self, value: Tensor) -> Tensor:
        counted = F.logsigmoid(-self.logit) + self.base.cells(value)
        return torch.where(value == 0, torch.logaddexp(F.logsigmoid(self.logit), counted), counted)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        counted = self.base.sample(generator)
        return counted * torch.bernoulli(
            torch.sigmoid(-self.logit).expand_as(counted), generator=generator
        )


class Product(DataDensity):
    """Represent the columns of a table by densities over consecutive runs of them.

    Args:
        parts: (number of columns, density over them) in the order in which they lie, together (...,
            columns).
    """

    def __init__(self, parts: Sequence[tuple[int, Cells]]) -> None:
        self.parts = tuple(parts)

    def _pieces(self, x: Tensor) -> Sequence[Tensor]:
        return x.split([n for n, _ in self.parts], -1)

    @property
    def mean(self) -> Tensor:
        """Return the means of columns that have one and the most probable codes of the others,
        (..., columns)."""
        return torch.cat(
            [
                d.logits.argmax(-2).to(d.logits.dtype) if isinstance(d, Categorical) else d.mean
                for _, d in self.parts
            ],
            -1,
        )

    def point(self, weights: Tensor | None = None) -> Tensor:
        return torch.cat([_as_code(density, weights) for _, density in self.parts], -1)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        return torch.cat(
            [density.sample(generator).to(torch.get_default_dtype()) for _, density in self.parts],
            -1,
        )

    def standardised_residual(self, value: Tensor) -> Tensor:
        pieces = [
            part.standardised_residual(x)
            for (_, part), x in zip(self.parts, self._pieces(value), strict=True)
        ]
        lead = torch.broadcast_shapes(*(x.shape[:-1] for x in pieces))
        return torch.cat([x.expand(*lead, -1) for x in pieces], -1)

    def log_prob(self, value: Tensor, observed: Tensor | None = None) -> Tensor:
        masks = [None] * len(self.parts) if observed is None else self._pieces(observed)
        pieces = zip(self.parts, self._pieces(value), masks, strict=True)
        scored = [density.log_prob(x, mask) for (_, density), x, mask in pieces]
        precision = (
            torch.float64 if any(s.dtype == torch.float64 for s in scored) else scored[0].dtype
        )
        return torch.stack([s.to(precision) for s in scored]).sum(0)


def _as_code(density: Cells, weights: Tensor | None) -> Tensor:
    point = density.point(weights)
    return point.round() if isinstance(density, Bernoulli) else point.to(torch.get_default_dtype())
