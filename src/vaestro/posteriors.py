"""The approximate posterior q(z | x): an encoder whose outputs are the parameters of a density over
the latent.

Noise is drawn outside the network and enters as an argument: z is a deterministic function of (x,
noise), and gradients flow through it to the encoder. The encoder runs once for a batch, however
many draws are taken.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Protocol, final, runtime_checkable

import torch
import torch.nn as nn
from torch import Tensor

from vaestro import densities
from vaestro.densities import soft_limit
from vaestro.flows import Flowed, Transform, autoregressive
from vaestro.flows import Planar as bends
from vaestro.spaces import Batch, Space

CONTEXT_LIMIT = 20.0
MANY_UNITS = 512  # beyond, a full covariance of one datum takes more than a megabyte


@runtime_checkable
class CodeReader(Protocol):
    """Describe an encoder of tokens that takes codes (N, t) if `reads_codes` is true, and one-hot
    codes (N, T, V) otherwise."""

    reads_codes: bool


class Posterior(nn.Module, ABC):
    """Describe q(z | x).

    Args:
        space: what the data are.
        encoder: a module from (B, *space.feature_shape) to (B, *outputs(units, ...)).
        units: the shape of one latent, *Z.
    """

    like: Tensor
    discrete: ClassVar[bool] = False
    in_graph: ClassVar[bool] = True  # whether the operations of a step with it can be recorded
    # whether q is scored at any point for what its own draws cost
    scored_anywhere: ClassVar[bool] = True
    # whether q can be scored at a draw with its parameters held, or with the draw held
    scored_held: ClassVar[bool] = True
    limit: float = math.inf  # the log-variance lies in (-limit, limit)
    min_rate: float = 0.0  # nats of KL to the standard normal below which no unit falls
    how: ClassVar[str] = "mean and log-variance of q(z | x)"

    def __init__(self, space: Space, encoder: nn.Module, units: tuple[int, ...]) -> None:
        super().__init__()
        self.space, self.encoder, self.units = space, encoder, units
        self.reads_codes = isinstance(encoder, CodeReader) and encoder.reads_codes
        self.register_buffer("like", torch.zeros(()), persistent=False)  # tells dtype and device

    @classmethod
    def latents(cls, latent: tuple[int, ...], **options: Any) -> tuple[int, ...]:
        """Return the shape of one latent, *Z, where so many units (channels of a grid) were asked
        for."""
        return latent

    @classmethod
    def alphabet(cls, **options: Any) -> int:
        """Return 0 for real units, 1 for units that are zero or one, and n for one-hot groups of n
        units."""
        return 0

    @classmethod
    @abstractmethod
    def outputs(cls, units: tuple[int, ...], **options: Any) -> tuple[int, ...]:
        """Return what the encoder must produce for one datum, given the constructor's options."""

    @abstractmethod
    def density(self, features: Tensor) -> densities.PosteriorDensity:
        """Return q(z | x) from what the encoder made of each datum, (B, *outputs(units))."""

    def forward(self, batch: Batch) -> densities.PosteriorDensity:
        """Return q(z | x) for each datum of the batch."""
        return self.density(self.features(batch))

    def features(self, batch: Batch) -> Tensor:
        """Run the encoder once: (B, *outputs). Cells that were not observed enter as zeros, with
        the mask beside them."""
        if self.space.ragged and self.reads_codes:
            return self.encoded(batch.x, batch.given)
        x = self.space.features(batch.x, batch.observed, self.like.dtype)
        return self.encoded(x, batch.given)

    def encoded(self, x: Tensor, given: Tensor | None = None) -> Tensor:
        """Run the encoder on data as it sees them, (B, *space.feature_shape): (B, *outputs)."""
        out = self.encoder(x) if given is None else self.encoder(x, given.to(self.like.dtype))
        # densities are computed in full precision, also where the network is autocast
        return out.to(self.like.dtype)

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Return the shape of the noise of one draw for one datum."""
        return self.units

    def noise(self, k: int, rows: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw the standard noise that `from_noise` of the density takes: (k, rows, *noise_shape),
        standard normal here."""
        return torch.randn(
            (k, rows, *self.noise_shape),
            generator=generator,
            dtype=self.like.dtype,
            device=self.like.device,
        )


def _limited(limit: float) -> float:
    if not 0 < limit <= 80:
        raise ValueError(f"expected a limit of the log-variance in (0, 80]; got {limit}")
    return limit


@final
class Normal(Posterior):
    """Represent q(z | x) = N(mean, diag(exp(logvar))), both predicted by the encoder (Kingma and
    Welling 2014).

    The log-variance passes through `soft_limit`, so that no output of the encoder can make a NaN,
    while its gradient never vanishes. A diagonal covariance cannot represent correlations of the
    true posterior between units.

    Args:
        space: what the data are.
        encoder: a module from (B, *space.feature_shape) to (B, 2, *units).
        units: the shape of one latent, *Z.
        limit: the log-variance lies in (-limit, limit).
        min_rate: nats of KL to N(0, 1) that no unit can fall below, whatever the encoder says (the
            minimum rate of delta-VAEs; Razavi, van den Oord, Poole and Vinyals 2019). The variance
            then stays below the one whose KL that is: a decoder cannot make the latent collapse. It
                holds for the standard normal prior, and is refused with others.
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
        limit = _limited(limit)
        if not 0 <= min_rate < limit / 4:
            raise ValueError(
                f"expected min_rate of 0 or more nats, and below {limit / 4:g}, a quarter of the "
                f"limit; got {min_rate}"
            )
        super().__init__(space, encoder, units)
        self.limit, self.min_rate = limit, min_rate
        self.most = _logvar_of_rate(min_rate)

    @classmethod
    def outputs(cls, units: tuple[int, ...], **options: Any) -> tuple[int, ...]:
        return (2, *units)

    def density(self, features: Tensor) -> densities.Normal:
        mean, logvar = features.unbind(1)
        logvar = soft_limit(logvar, self.limit)
        if self.min_rate:
            logvar = self.most - torch.nn.functional.softplus(self.most - logvar)
        return densities.Normal(mean, logvar, len(self.units))


def _logvar_of_rate(rate: float) -> float:
    """Return the log-variance v <= 0 at which KL(N(0, exp(v)) || N(0, 1)) = (exp(v) - 1 - v) / 2 is
    the rate, by bisection."""
    # (exp(v) - 1 - v) / 2 >= (-1 - v) / 2, so that the root is above low
    low, high = -2 * rate - 1.0, 0.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if (math.expm1(middle) - middle) / 2 > rate else (low, middle)
    return low


@final
class FullNormal(Posterior):
    """Represent q(z | x) = N(mean, L L'), any covariance, its Cholesky factor predicted by the
    encoder (Kingma and Welling 2019, 2.5.1).

    It represents every linear correlation between units, which a diagonal covariance cannot: where
    the true posterior is normal, it closes the approximation gap. The encoder ends in n (n + 3) / 2
    numbers in place of 2 n, a draw costs n^2 in place of n operations, and the density elsewhere a
    triangular solve.

    Args:
        space, encoder, units: see Posterior; the encoder ends in (n (n + 3) / 2,), n the number of
            units.
        limit: of the log-variances of each unit given the ones before it.
    """

    def __init__(
        self, space: Space, encoder: nn.Module, units: tuple[int, ...], *, limit: float = 20.0
    ) -> None:
        n = math.prod(units)
        if n > MANY_UNITS:
            raise ValueError(
                f"expected at most {MANY_UNITS} units for a full covariance, or posterior "
                f"low-rank-normal; got {n}"
            )
        super().__init__(space, encoder, units)
        self.limit = _limited(limit)
        self.register_buffer("places", torch.tril_indices(n, n, -1), persistent=False)

    places: Tensor

    @classmethod
    def outputs(cls, units: tuple[int, ...], **options: Any) -> tuple[int, ...]:
        n = math.prod(units)
        return (n * (n + 3) // 2,)

    def density(self, features: Tensor) -> densities.FullNormal:
        n = math.prod(self.units)
        mean, logvar, below = features.split([n, n, n * (n - 1) // 2], -1)
        lower = features.new_zeros(len(features), n, n).index_put(
            (
                torch.arange(len(features), device=features.device).unsqueeze(1),
                self.places[0],
                self.places[1],
            ),
            soft_limit(below, self.limit),
        )
        shape = (-1, *self.units)
        return densities.FullNormal(
            mean.reshape(shape),
            soft_limit(logvar, self.limit).reshape(shape),
            lower,
            len(self.units),
        )


@final
class LowRankNormal(Posterior):
    """Represent q(z | x) = N(mean, S (I + V V') S): diagonal noise and `rank` directions, predicted
    by the encoder.

    (Rezende, Mohamed and Wierstra 2014, section 4.3, with one direction or more.) It represents the
    strongest correlations between units, for (2 + rank) n outputs of the encoder and as many
    operations for a draw; the density takes a solve of rank x rank.

    Args:
        space, encoder, units: see Posterior; the encoder ends in ((2 + rank) n,), n the number of
            units.
        rank: directions.
        limit: of the log-variances.
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
        super().__init__(space, encoder, units)
        self.rank, self.limit = rank, _limited(limit)

    @classmethod
    def outputs(cls, units: tuple[int, ...], *, rank: int = 4, **options: Any) -> tuple[int, ...]:
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


class LocationScale(Posterior, ABC):
    """Describe q(z | x) = loc + scale * noise on every unit, for noise of any standard family
    (Kingma and Welling 2014, section 2.4).

    Args:
        space, encoder, units: see Posterior; the encoder ends in (2, *units).
        limit: of twice the log-scale.
    """

    made: ClassVar[type[densities.LocationScale]]

    def __init__(
        self, space: Space, encoder: nn.Module, units: tuple[int, ...], *, limit: float = 20.0
    ) -> None:
        super().__init__(space, encoder, units)
        self.limit = _limited(limit)

    @classmethod
    def outputs(cls, units: tuple[int, ...], **options: Any) -> tuple[int, ...]:
        return (2, *units)

    def family(self, loc: Tensor, log_scale: Tensor) -> densities.LocationScale:
        """Return the member of the family at a location and a log-scale."""
        return type(self).made(loc, log_scale, len(self.units))

    def density(self, features: Tensor) -> densities.LocationScale:
        loc, raw = features.unbind(1)
        return self.family(loc, 0.5 * soft_limit(raw, self.limit))

    def noise(self, k: int, rows: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw noise of the standard member: (k, rows, *Z)."""
        zeros = self.like.new_zeros((k, rows, *self.units))
        return self.family(zeros, self.like).noise(generator)


@final
class Laplace(LocationScale):
    """Represent independent Laplace units: sharper at the centre and with heavier tails than a
    normal, at the same cost.

    Args:
        space, encoder, units, limit: see LocationScale.
    """

    made = densities.Laplace


@final
class Logistic(LocationScale):
    """Represent independent logistic units: tails that fall like exp(-|z|), between the normal's
    and Student's, at the same cost.

    Args:
        space, encoder, units, limit: see LocationScale.
    """

    made = densities.Logistic


@final
class Gumbel(LocationScale):
    """Represent independent Gumbel units, which are skewed: a short tail below and a long one
    above, which no symmetric family has.

    Args:
        space, encoder, units, limit: see LocationScale.
    """

    made = densities.Gumbel


@final
class StudentT(LocationScale):
    """Represent independent units of Student's t: tails that fall as a power, so that importance
    weights stay bounded where a normal
    q would miss mass. Its noise costs a Gamma draw for each unit.

    Args:
        space, encoder, units, limit: see LocationScale.
        df: degrees of freedom, above 2, so that there is a variance and the KL to a normal is
            finite.
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

    def family(self, loc: Tensor, log_scale: Tensor) -> densities.StudentT:
        return densities.StudentT(loc, log_scale, self.df.to(loc.dtype), len(self.units))


class _Flow(Posterior, ABC):
    """Describe q(z | x) by z = mean + std * f(noise): mean and log-variance from the encoder, and f
    told by it."""

    scored_anywhere = False
    how = "mean and log-variance of 64 draws of q(z | x), of the same noise for every datum"

    def __init__(
        self, space: Space, encoder: nn.Module, units: tuple[int, ...], limit: float
    ) -> None:
        super().__init__(space, encoder, units)
        self.limit = _limited(limit)

    @abstractmethod
    def transform(self, context: Tensor, held: bool) -> Transform:
        """Return the map for each datum from what the encoder says beside mean and log-variance,
        its own weights held or not."""

    def density(self, features: Tensor) -> Flowed:
        return self._density(features, False)

    def _density(self, features: Tensor, held: bool) -> Flowed:
        n, shape = math.prod(self.units), (-1, *self.units)
        mean, logvar, context = features.split([n, n, features.shape[1] - 2 * n], -1)
        outer = densities.Normal(
            mean.reshape(shape), soft_limit(logvar, self.limit).reshape(shape), len(self.units)
        )
        return Flowed(
            outer,
            self.transform(soft_limit(context, CONTEXT_LIMIT), held),
            lambda: self._density(features.detach(), True),
        )


def _sized(layers: int, width: int = 1, bins: int = 2, context: int = 0) -> None:
    if layers < 1 or width < 1 or bins < 2 or context < 0:
        raise ValueError(
            f"expected 1 or more layers, a width of 1 or more, 2 or more bins and a context of 0 "
            f"or more; "
            f"got {layers}, {width}, {bins} and {context}"
        )


@final
class Planar(_Flow):
    """Represent q(z | x) as a normal bent along `layers` directions of each datum's own (Rezende
    and Mohamed 2015).

    It represents skewed and curved densities, a bend for each layer, for layers (2 n + 1) outputs
    of the encoder more. The map has no
    inverse in closed form: q is scored at its own draws alone, so that neither stl, dreg nor score
    apply.

    Args:
        space, encoder, units: see Posterior; the encoder ends in (2 n + layers (2 n + 1),), n the
            number of units.
        layers: bends.
        limit: of the log-variances.
    """

    scored_held = False

    def __init__(
        self,
        space: Space,
        encoder: nn.Module,
        units: tuple[int, ...],
        *,
        layers: int = 8,
        limit: float = 20.0,
    ) -> None:
        _sized(layers)
        super().__init__(space, encoder, units, limit)
        self.layers = layers

    @classmethod
    def outputs(cls, units: tuple[int, ...], *, layers: int = 8, **options: Any) -> tuple[int, ...]:
        n = math.prod(units)
        return (2 * n + layers * (2 * n + 1),)

    def transform(self, context: Tensor, held: bool) -> Transform:
        n = math.prod(self.units)
        u, w, b = context.unflatten(-1, (self.layers, 2 * n + 1)).split([n, n, 1], -1)
        return bends(u, w, b.squeeze(-1))


class _Autoregressive(_Flow, ABC):
    """Describe flows of masked autoregressive maps that see a context from the encoder."""

    def __init__(
        self,
        space: Space,
        encoder: nn.Module,
        units: tuple[int, ...],
        context: int,
        limit: float,
        maps: nn.Module,
    ) -> None:
        super().__init__(space, encoder, units, limit)
        self.context, self.maps = context, maps

    @classmethod
    def outputs(
        cls, units: tuple[int, ...], *, context: int = 32, **options: Any
    ) -> tuple[int, ...]:
        return (2 * math.prod(units) + context,)

    def transform(self, context: Tensor, held: bool) -> Transform:
        maps = copy.deepcopy(self.maps).requires_grad_(False) if held else self.maps
        return maps(context)  # type: ignore[no-any-return]


@final
class InverseAutoregressive(_Autoregressive):
    """Represent q(z | x) by an inverse autoregressive flow: each unit moved and scaled by the ones
    before it (Kingma et al. 2016).

    It represents what a chain of conditional normals can, and with more layers what is curved; a
    draw and its density take one pass of each layer's network. The density elsewhere takes as many
    passes as there are units, one after the other: stl, dreg and score pay that.

    Args:
        space, encoder, units: see Posterior; the encoder ends in (2 n + context,), n the number of
            units.
        layers: maps, the order of the units reversed from one to the next.
        width: of the two hidden layers of each map's network.
        context: numbers that the encoder tells every map.
        limit: of the log-variances.
    """

    def __init__(
        self,
        space: Space,
        encoder: nn.Module,
        units: tuple[int, ...],
        *,
        layers: int = 2,
        width: int = 64,
        context: int = 32,
        limit: float = 20.0,
    ) -> None:
        _sized(layers, width, context=context)
        super().__init__(
            space,
            encoder,
            units,
            context,
            limit,
            autoregressive(math.prod(units), context, layers, width),
        )


@final
class Spline(_Autoregressive):
    """Represent q(z | x) by monotonic splines of each unit, which the ones before it shape (Durkan,
    Bekasov, Murray and Papamakarios 2019).

    It represents several modes and heavy or cut-off flanks, which affine maps cannot, within five
    standard deviations of every unit, for 3 bins - 1 numbers a unit in place of 2. As for iaf, the
    density elsewhere takes as many passes as there are units.

    Args:
        space, encoder, units: see Posterior; the encoder ends in (2 n + context,), n the number of
            units.
        layers: maps, the order of the units reversed from one to the next.
        bins: pieces of a spline.
        width: of the two hidden layers of each map's network.
        context: numbers that the encoder tells every map.
        limit: of the log-variances.
    """

    def __init__(
        self,
        space: Space,
        encoder: nn.Module,
        units: tuple[int, ...],
        *,
        layers: int = 2,
        bins: int = 8,
        width: int = 64,
        context: int = 32,
        limit: float = 20.0,
    ) -> None:
        _sized(layers, width, bins, context)
        super().__init__(
            space,
            encoder,
            units,
            context,
            limit,
            autoregressive(math.prod(units), context, layers, width, bins),
        )


@final
class Bernoulli(Posterior):
    """Represent independent units that are zero or one, by logits: switches, which no real unit can
    be.

    Draws have no gradient: train by `gumbel-softmax` or `straight-through` (relaxed) or by `score`.
    What is reported is of hard draws.

    Args:
        space, encoder, units: see Posterior; the encoder ends in (1, *units).
    """

    discrete = True
    how = "probabilities of q(z | x)"

    def __init__(self, space: Space, encoder: nn.Module, units: tuple[int, ...]) -> None:
        super().__init__(space, encoder, units)

    @classmethod
    def alphabet(cls, **options: Any) -> int:
        return 1

    @classmethod
    def outputs(cls, units: tuple[int, ...], **options: Any) -> tuple[int, ...]:
        return (1, *units)

    def density(self, features: Tensor) -> densities.Binary:
        return densities.Binary(features.squeeze(1), len(self.units))

    def noise(self, k: int, rows: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw standard logistic noise, (k, rows, *Z)."""
        return densities.Binary(self.like, 0).noise((k, rows, *self.units), generator)


@final
class Categorical(Posterior):
    """Represent groups of units of which exactly one is on, by logits: a choice among `codes`,
    which no real unit can be.

    With n groups asked for, z has n * codes units (as the first dimension of a grid), one-hot in
    each group. Draws have no gradient: train by `gumbel-softmax` or `straight-through` (relaxed) or
    by `score`. What is reported is of hard draws.

    Args:
        space, encoder, units: see Posterior; the encoder ends in (1, *units).
        codes: choices of each group.
    """

    discrete = True
    how = "probabilities of q(z | x)"

    def __init__(
        self, space: Space, encoder: nn.Module, units: tuple[int, ...], *, codes: int = 10
    ) -> None:
        super().__init__(space, encoder, units)
        self.codes = codes

    @classmethod
    def latents(
        cls, latent: tuple[int, ...], *, codes: int = 10, **options: Any
    ) -> tuple[int, ...]:
        if codes < 2:
            raise ValueError(f"expected 2 or more codes; got {codes}")
        return (latent[0] * codes, *latent[1:])

    @classmethod
    def alphabet(cls, *, codes: int = 10, **options: Any) -> int:
        return codes

    @classmethod
    def outputs(cls, units: tuple[int, ...], **options: Any) -> tuple[int, ...]:
        return (1, *units)

    def density(self, features: Tensor) -> densities.OneHot:
        return densities.OneHot(features.squeeze(1), self.codes, len(self.units))

    def noise(self, k: int, rows: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw standard Gumbel noise, (k, rows, *Z)."""
        return densities.OneHot(self.like, self.codes, 0).noise((k, rows, *self.units), generator)
