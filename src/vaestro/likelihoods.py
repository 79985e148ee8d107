"""The likelihood p(x | z): a decoder whose outputs are the parameters of a density over the data.

A decoder returns logits or natural parameters, never probabilities. Each likelihood says which
kinds of data it is true for and refuses the others, because a density scored on the wrong kind is a
number without a meaning. No parameter of p(x | z) depends on the x being scored, except through z.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar, Literal, final

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

from vaestro import densities
from vaestro.densities import DataDensity, mean_over_ranks, soft_limit
from vaestro.dispersions import INVERSE_LIMIT, START_SHARE, Dispersed, most_probable
from vaestro.scales import (
    PACE,
    START_VALUES,
    Scaled,
    Shared,
    Version,
    default_sharing,
    levels_moments,
    paced,
    sharing,
    units_of,
    unlimited,
)
from vaestro.sequences import SequenceDecoder
from vaestro.spaces import Column, Kind, Space


class Likelihood(nn.Module, ABC):
    """Describe p(x | z).

    Args:
        space: what the data are.
        decoder: a module from (N, *Z) to (N, *outputs(space)).

    Raises:
        ValueError: the data are of a kind that this likelihood is not true for.
    """

    # kinds of data that the density is true for, and what the refusal of the others says to do
    accepts: ClassVar[frozenset[Kind]]
    advice: ClassVar[str] = ""
    # whether a training step can be traced into a graph
    in_graph: ClassVar[bool] = True
    # What other modules read of an instance; a constructor sets what differs from the default.
    # whether `accumulate` and `store` must be called before a bound is reported
    fitted_to_data: bool = False
    # how the model in training differs from the one that is reported; "" if it does not
    altered: str = ""
    # whether the decoder is autoregressive and could therefore ignore z
    does_without: bool = False
    # whether the decoder has z as an input
    reads_latent: bool = True
    # shape of the dequantisation noise of one datum; None for data that lie on no grid
    jitter: tuple[int, ...] | None = None

    def __init__(self, space: Space, decoder: nn.Module) -> None:
        super().__init__()
        self.check(space)
        self.space, self.decoder, self.dims = space, decoder, len(space.shape)

    @classmethod
    def check(cls, space: Space) -> None:
        """Raise ValueError unless the data are of a kind that this likelihood accepts."""
        if space.kind not in cls.accepts:
            kinds = " or ".join(sorted(cls.accepts))
            raise ValueError(
                f"expected {kinds} data for the likelihood {cls.__name__}; got {space}{cls.advice}"
            )

    @classmethod
    @abstractmethod
    def outputs(cls, space: Space) -> tuple[int, ...]:
        """Return what the decoder must produce for one z; it takes the constructor's options as
        keywords."""

    @classmethod
    @abstractmethod
    def start(cls, space: Space) -> Tensor:
        """Return the decoder's outputs at which the mean is the training data's (it broadcasts to
        `outputs`)."""

    @abstractmethod
    def forward(self, z: Tensor, given: Tensor | None = None) -> DataDensity:
        """Return p(x | z, given) for latents (K, B, *Z)."""

    def bind(self, given: Space | None) -> None:
        """Learn which conditions there are, before the first use.

        Raises:
            ValueError: one that is needed is not among them.
        """

    def decode(self, z: Tensor, given: Tensor | None) -> Tensor:
        """Run the decoder on all latents in one pass: (K, B, *Z) -> (K, B, *outputs)."""
        k, rows = z.shape[:2]
        flat = z.flatten(0, 1)
        out = (
            self.decoder(flat)
            if given is None
            else self.decoder(flat, given.expand(k, rows, -1).flatten(0, 1))
        )
        # densities are computed in full precision, also under autocast
        return out.to(z.dtype).unflatten(0, (k, rows))

    def spread(self, x: Tensor, noise: Tensor) -> Tensor:
        """Spread data (B, *X) over the cells of their grid by noise (K, B, *jitter) on (-1/2, 1/2):
        (K, B, *X)."""
        raise NotImplementedError

    def settle(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Undo `spread` for draws x (B, *X) of p(x | z).

        Returns:
            the middle of the grid cell that holds each value, (B, *X), possibly outside of the
            data's levels; and the noise, (B, *jitter), 0 where there is no grid.
        """
        raise NotImplementedError

    def on_grid(self) -> Tensor:
        """Tell which values lie on a grid, (prod(jitter),)."""
        raise NotImplementedError

    @property
    def start_values(self) -> int:
        """Return how many values of training data `begin_at` needs; 0 if it needs none, or has had
        them."""
        return 0

    def begin_at(self, x: Tensor, observed: Tensor | None, given: Tensor | None) -> None:
        """Start at values of the training split (B, *X), as the density scores them, given their
        conditions, before the first step."""

    # What follows matters only to likelihoods with parameters that are fitted to data in closed
    # form.

    def training_density(self, px: DataDensity, x: Tensor, observed: Tensor | None) -> DataDensity:
        """Return the density that training optimises, where it is not the one that is reported."""
        return px

    def accumulate(self, px: DataDensity, x: Tensor, observed: Tensor | None) -> Tensor:
        """Return sums over a batch of the training split, from which `store` makes the fitted
        parameters."""
        raise NotImplementedError

    def store(self, sums: Tensor) -> None:
        """Keep the parameters that the accumulated sums give."""
        raise NotImplementedError


@final
class Bernoulli(Likelihood):
    """Represent binary data by one logit for each cell.

    Grey values are refused: a Bernoulli likelihood of values between 0 and 1 is not normalised, and
    its "bounds" are not bounds on anything (Loaiza-Ganem and Cunningham 2019).
    """

    accepts = frozenset({Kind.BINARY})
    advice = (
        "; binarise the data (such as mnist:binarise=dynamic), or use a likelihood for this "
        "kind (vaestro parts likelihood)"
    )

    @classmethod
    def outputs(cls, space: Space) -> tuple[int, ...]:
        return space.shape

    @classmethod
    def start(cls, space: Space) -> Tensor:
        if space.marginal is None:
            return torch.zeros(())
        p = torch.from_numpy(np.clip(space.marginal, 1e-3, 1 - 1e-3))
        return torch.logit(p)

    def forward(self, z: Tensor, given: Tensor | None = None) -> densities.Bernoulli:
        return densities.Bernoulli(self.decode(z, given), self.dims)


@final
class Categorical(Likelihood):
    """Represent each cell by a softmax over its codes: levels or categories, one logit for each.

    Nothing ties neighbouring levels together, so any distribution over them can be represented, for
    as many outputs. Tokens of a text are then independent of each other given the latent, which
    must hold all that ties them.
    """

    accepts = frozenset({Kind.BINARY, Kind.LEVELS, Kind.CATEGORY, Kind.TOKENS})

    @classmethod
    def outputs(cls, space: Space) -> tuple[int, ...]:
        return (
            (*space.shape, space.levels)
            if space.kind is Kind.TOKENS
            else (space.levels, *space.shape)
        )

    @classmethod
    def start(cls, space: Space) -> Tensor:
        if space.marginal is None:
            return torch.zeros(())
        p = torch.from_numpy(space.marginal)
        if space.kind is Kind.TOKENS:
            return torch.log(p)
        p = torch.stack([1 - p, p]) if space.kind is Kind.BINARY else p
        return torch.log(p.clamp_min(1e-4))

    def forward(self, z: Tensor, given: Tensor | None = None) -> DataDensity:
        logits = self.decode(z, given)
        if self.space.kind is Kind.TOKENS:
            return densities.Positions(logits.movedim(-1, -2))
        return densities.Categorical(logits, self.dims, self.space.kind is Kind.LEVELS)


@final
class Autoregressive(Likelihood):
    """Represent a text by a softmax over each next token, given the latent and the tokens before it
    (Bowman et al. 2016).

    Such a decoder can do without the latent, and then the posterior collapses: see the weight of
    the KL, free bits, `min_rate` of the posterior, aggressive updates, and word dropout, which
    makes what stands before a worse guide. A model in training that drops words is
    another one than the one that is reported: its bound in training is not the model's, and lies
    below it as a rule.

    Args:
        space: what the data are.
        decoder: a network for sequences, gru or transformer.
        word_dropout: share of the tokens before each one that training hides.
        latent: whether the decoder sees the latent; false makes it a plain language model, whose
            log p(x) is exact where the rate is 0.
    """

    accepts = frozenset({Kind.TOKENS})
    in_graph = False

    def __init__(
        self, space: Space, decoder: nn.Module, *, word_dropout: float = 0.0, latent: bool = True
    ) -> None:
        if not 0 <= word_dropout < 1:
            raise ValueError(f"expected a word_dropout in [0, 1); got {word_dropout}")
        if not isinstance(decoder, SequenceDecoder):
            raise ValueError(
                f"expected a network for sequences (gru, transformer) for the likelihood "
                f"autoregressive; got {type(decoder).__name__}"
            )
        super().__init__(space, decoder)
        self.reads_latent, self.does_without, self.word_dropout = (
            latent,
            latent,
            nn.Dropout(word_dropout),
        )
        if word_dropout:
            self.altered = f"word dropout {word_dropout:g}"

    @classmethod
    def outputs(cls, space: Space, **_: object) -> tuple[int, ...]:
        return (*space.shape, space.levels)

    @classmethod
    def start(cls, space: Space, **_: object) -> Tensor:
        return (
            torch.zeros(space.levels)
            if space.marginal is None
            else torch.log(torch.from_numpy(space.marginal))
        )

    def forward(self, z: Tensor, given: Tensor | None = None) -> densities.Sentences:
        source = z if self.reads_latent else torch.zeros_like(z)
        if given is not None:
            source = torch.cat([source, given.to(z.dtype).expand(len(z), *given.shape)], -1)
        return densities.Sentences(
            self.decoder, source, self._drop if self.training and self.altered else None
        )

    def _drop(self, before: Tensor) -> Tensor:
        """Hide some tokens, but not the start."""
        kept = self.word_dropout(torch.ones(before.shape, device=before.device)) > 0
        kept[:, 0] = True
        return torch.where(kept, before, self.space.levels)


# -- densities of real values; of levels that are spread by one ------------------------------------


class _Continuous(Scaled, Likelihood):
    """Hold what densities over real values share: x = location + scale * noise in each cell.

    Data on a grid, 8-bit levels among them, are spread uniformly over its cells by noise that comes
    from outside; the bound is then one for the discrete data (Theis, van den Oord and Bethge 2016).
    Levels are standardised here.

    Args:
        space, decoder: see Likelihood.
        spread: the scale, or its square: a number in the user's units, or a word; see Gaussian and
            Laplace.
        limit: a learned logarithm lies in (-limit, limit) around its reference (see `scales`), by
            `soft_limit`.
        version: 1 repeats runs made before versions were counted; see Gaussian.
    """

    accepts = frozenset({Kind.REAL, Kind.UNIT, Kind.LEVELS})
    advice = (
        "; it is a density over real values (read integers as real with SOURCE:kind=real), "
        "discrete data have probabilities"
    )
    what: ClassVar[str] = "scale"
    centre: Tensor
    stretch: Tensor
    grid: Tensor

    def __init__(
        self, space: Space, decoder: nn.Module, spread: float | str, limit: float, version: Version
    ) -> None:
        super().__init__(space, decoder)
        if not 0 < limit <= 80:
            raise ValueError(f"expected a limit of the log-{self.what} in (0, 80]; got {limit}")
        self.limit = limit
        centre, stretch = levels_moments(space)
        dtype = torch.get_default_dtype()
        grid = space.grid()
        self.jitter = None if grid is None else space.shape
        self.register_buffer("centre", torch.tensor(centre, dtype=dtype), persistent=False)
        self.register_buffer("stretch", torch.tensor(stretch, dtype=dtype), persistent=False)
        self.register_buffer(
            "grid",
            torch.from_numpy(np.zeros(()) if grid is None else grid.copy()).to(dtype),
            persistent=False,
        )
        self.predicted, self.fixed, self.optimal = (
            spread == "pixel",
            not isinstance(spread, str),
            str(spread).startswith("optimal"),
        )
        if not isinstance(spread, str):
            if not (math.isfinite(spread) and spread > 0):
                raise ValueError(f"expected a {self.what} above 0; got {spread}")
            number = math.log(spread) - self.power * np.log(units_of(space))
            self.register_buffer(self.number, torch.tensor(number, dtype=dtype))
        elif not self.predicted:
            self._share(spread.removeprefix("optimal").removeprefix("-"), version)

    def _share(self, word: str, version: Version) -> None:
        """Make the numbers that cells share: learned ones, or for an optimal variance fitted
        ones."""
        dims = len(self.space.shape)
        if version == 1 and self.optimal:
            self.share(Shared((), np.zeros(()), np.zeros((), bool), 1.0), dims, learned=False)
            self.numbers.copy_(self.power * torch.log(self.stretch))
        elif version == 1:
            self.share(sharing(self.space, "standardised"), dims)
        else:
            how = (
                "cell"
                if word == "cell"
                else "shared"
                if word == "shared"
                else default_sharing(self.space)
            )
            self.share(sharing(self.space, how), dims, learned=not self.optimal)

    def spread(self, x: Tensor, noise: Tensor) -> Tensor:
        return x + self.grid * noise

    def settle(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return _settled(x, self.grid)

    def on_grid(self) -> Tensor:
        return (self.grid > 0).expand(self.space.shape).flatten()

    def _located(self, z: Tensor, given: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the location of each cell, and the logarithm of its scale or variance, both
        inside."""
        out = self.decode(z, given)
        if self.predicted:
            location, own = out.unbind(2)
            return self.centre + self.stretch * location, soft_limit(
                own, self.limit
            ) + self.power * torch.log(self.stretch)
        location = self.centre + self.stretch * out
        if self.fixed:
            return location, self.get_buffer(self.number)
        return location, self.placed(self.numbers) if self.optimal else self.spreads()

    def begin_at(self, x: Tensor, observed: Tensor | None, given: Tensor | None) -> None:
        self.begin(x, observed, self.centre + self.stretch * self._start(self.space).to(x))

    @classmethod
    def _start(cls, space: Space) -> Tensor:
        if space.kind is Kind.UNIT and space.marginal is not None:
            return torch.from_numpy(space.marginal)
        if space.kind is not Kind.LEVELS or space.marginal is None:
            return torch.zeros(())  # the mean of standardised data
        centre, stretch = levels_moments(space)
        levels = np.tensordot(np.arange(space.levels), space.marginal, (0, 0))
        return torch.from_numpy(np.asarray((levels - centre) / stretch, np.float32))

    @classmethod
    def _start_of(cls, space: Space, predicted: bool) -> Tensor:
        loc = cls._start(space)
        return torch.stack([loc, torch.zeros_like(loc)]) if predicted and loc.ndim else loc


def _settled(x: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    step = torch.where(grid > 0, grid, 1.0)
    centre = torch.where(grid > 0, torch.round(x / step) * step, x)
    return centre, (x - centre) / step


@final
class Gaussian(_Continuous):
    """Represent real data by a normal on each cell, all constants included; levels by one on
    uniformly dequantized values.

    The variance is a part of the model and not a weight: without it bounds of two runs cannot be
    compared.

    Args:
        space, decoder: see Likelihood.
        variance: a number (in the user's units squared); "cell", one learned for each cell, the
            same for all data; "shared", one learned for all cells of a vector, or for all cells of
            a channel of an image or series, in the user's units; "auto", cell for vectors and
            shared for images and series; "optimal-cell", "optimal-shared" and "optimal" (auto), as
            many variances in closed
            form: the batch's mean squared residual in training and the training split's stored
                value in every reported bound (Rybkin
            et al. 2021); "pixel", predicted by the decoder as a log-variance for each cell of each
            datum.
        limit: a learned log-variance lies in (-limit, limit) around the data's, by `soft_limit`.
        version: 1 repeats runs made before versions were counted: one variance for all cells in
            standardised units, whose logarithm starts at 0 and is learned as slowly as a weight.
    """

    number = "log_variance"
    power = 2
    what = "variance"

    def __init__(
        self,
        space: Space,
        decoder: nn.Module,
        *,
        variance: float
        | Literal[
            "auto", "cell", "shared", "optimal", "optimal-cell", "optimal-shared", "pixel"
        ] = "auto",
        limit: float = 20.0,
        version: Version = 2,
    ) -> None:
        super().__init__(space, decoder, variance, limit, version)
        self.fitted_to_data = self.optimal

    @classmethod
    def outputs(
        cls, space: Space, *, variance: float | str = "auto", **_: object
    ) -> tuple[int, ...]:
        return (2, *space.shape) if variance == "pixel" else space.shape

    @classmethod
    def start(cls, space: Space, *, variance: float | str = "auto", **_: object) -> Tensor:
        return cls._start_of(space, variance == "pixel")

    def family(self, location: Tensor, number: Tensor) -> densities.Normal:
        return densities.Normal(location, number, self.dims)

    def forward(self, z: Tensor, given: Tensor | None = None) -> densities.Normal:
        return self.family(*self._located(z, given))

    def training_density(self, px: DataDensity, x: Tensor, observed: Tensor | None) -> DataDensity:
        if not self.optimal:
            return px
        # The variance is at its optimum, so the gradient through it is zero (the envelope theorem),
        # and it is cut.
        total, count = mean_over_ranks(self.accumulate(px, x, observed)).unbind()
        return densities.Normal(px.mean, self.placed(self._log_of(total, count)), self.dims)

    def accumulate(self, px: DataDensity, x: Tensor, observed: Tensor | None) -> Tensor:
        squared = (x - px.mean.detach()).square() * torch.exp(-self.reference)
        if observed is None:
            return torch.stack(
                [self.over_cells(squared), self.over_cells(torch.ones_like(squared))]
            )
        seen = observed.expand_as(squared)
        return torch.stack(
            [
                self.over_cells(torch.where(seen, squared, 0.0)),
                self.over_cells(seen.to(squared.dtype)),
            ]
        )

    def store(self, sums: Tensor) -> None:
        self.numbers.copy_(self._log_of(*sums.unbind()))

    def _log_of(self, total: Tensor, count: Tensor) -> Tensor:
        """Return the logarithm of a mean square, and the stored one where nothing was observed."""
        fitted = (total / count.clamp_min(1)).clamp_min(math.exp(-self.limit)).log()
        return torch.where(count > 0, fitted, self.numbers)


class _Scaled(_Continuous):
    """Hold what location-scale families beside the normal share; see Laplace for the arguments."""

    def __init__(
        self,
        space: Space,
        decoder: nn.Module,
        *,
        scale: float | Literal["auto", "cell", "shared", "pixel"] = "auto",
        limit: float = 10.0,
        version: Version = 2,
    ) -> None:
        super().__init__(space, decoder, scale, limit, version)

    @classmethod
    def outputs(cls, space: Space, *, scale: float | str = "auto", **_: object) -> tuple[int, ...]:
        return (2, *space.shape) if scale == "pixel" else space.shape

    @classmethod
    def start(cls, space: Space, *, scale: float | str = "auto", **_: object) -> Tensor:
        return cls._start_of(space, scale == "pixel")


@final
class Laplace(_Scaled):
    """Represent real data (levels dequantized) by a Laplace density on each cell: absolute and not
    squared residuals.

    Args:
        space, decoder: see Likelihood.
        scale: a number (in the user's units); "cell", one learned for each cell, the same for all
            data; "shared", one learned for all cells of a vector, or for all cells of a channel of
            an image or series, in the user's units; "auto", cell for vectors and shared for images
            and series; "pixel", predicted by the decoder as a log-scale for each cell of each
            datum.
        limit: a learned log-scale lies in (-limit, limit) around the data's, by `soft_limit`.
        version: 1 repeats runs made before versions were counted: one scale for all cells in
            standardised units, whose logarithm starts at 0 and is learned as slowly as a weight.
    """

    def family(self, location: Tensor, number: Tensor) -> densities.Laplace:
        return densities.Laplace(location, number, self.dims)

    def forward(self, z: Tensor, given: Tensor | None = None) -> densities.Laplace:
        return self.family(*self._located(z, given))


@final
class Logistic(_Scaled):
    """Represent real data (levels dequantized) by a logistic density on each cell.

    Args:
        space, decoder, scale, limit, version: as for Laplace.
    """

    def family(self, location: Tensor, number: Tensor) -> densities.Logistic:
        return densities.Logistic(location, number, self.dims)

    def forward(self, z: Tensor, given: Tensor | None = None) -> densities.Logistic:
        return self.family(*self._located(z, given))


@final
class StudentT(_Scaled):
    """Represent real data (levels dequantized) by Student's t on each cell, which outliers do not
    pull.

    Args:
        space, decoder, scale, limit, version: as for Laplace.
        df: degrees of freedom, above 1, so that there is a mean.
    """

    df: Tensor

    def __init__(
        self,
        space: Space,
        decoder: nn.Module,
        *,
        df: float = 4.0,
        scale: float | Literal["auto", "cell", "shared", "pixel"] = "auto",
        limit: float = 10.0,
        version: Version = 2,
    ) -> None:
        super().__init__(space, decoder, scale=scale, limit=limit, version=version)
        if not 1 < df < math.inf:
            raise ValueError(f"expected df above 1; got {df}")
        self.register_buffer(
            "df", torch.tensor(df, dtype=torch.get_default_dtype()), persistent=False
        )

    def family(self, location: Tensor, number: Tensor) -> densities.StudentT:
        return densities.StudentT(location, number, self.df, self.dims)

    def forward(self, z: Tensor, given: Tensor | None = None) -> densities.StudentT:
        return self.family(*self._located(z, given))


@final
class ContinuousBernoulli(Likelihood):
    """Represent values inside (0, 1) by a continuous Bernoulli on each cell: a Bernoulli's formula
    with its missing constant
    (Loaiza-Ganem and Cunningham 2019). Data are read as such with SOURCE:kind=unit."""

    accepts = frozenset({Kind.UNIT})
    advice = "; values inside (0, 1) are read as such with SOURCE:kind=unit"

    @classmethod
    def outputs(cls, space: Space) -> tuple[int, ...]:
        return space.shape

    @classmethod
    def start(cls, space: Space) -> Tensor:
        if space.marginal is None:
            return torch.zeros(())
        target = torch.from_numpy(np.clip(space.marginal, 0.01, 0.99)).double()
        low, high = torch.full_like(target, -200.0), torch.full_like(target, 200.0)
        for _ in range(60):  # the mean rises with the logit but has no inverse in closed form
            middle = (low + high) / 2
            above = densities.ContinuousBernoulli(middle).mean > target
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        return low.float()

    def forward(self, z: Tensor, given: Tensor | None = None) -> densities.ContinuousBernoulli:
        return densities.ContinuousBernoulli(self.decode(z, given), self.dims)


# -- levels ----------------------------------------------------------------------------------------


@final
class DiscretizedLogistic(Likelihood):
    """Represent each level by a logistic rounded to levels: ordered, two numbers a cell (Kingma et
    al. 2016).

    Args:
        space, decoder: see Likelihood.
        scale: "pixel", predicted for each cell; "shared", one learned for all.
        limit: the log-scale lies within this of that of the whole range, by `soft_limit`.
        version: 1 repeats runs made before versions were counted, whose shared log-scale starts at
            -2 and is learned as slowly as a weight.
    """

    accepts = frozenset({Kind.LEVELS})

    def __init__(
        self,
        space: Space,
        decoder: nn.Module,
        *,
        scale: Literal["shared", "pixel"] = "pixel",
        limit: float = 10.0,
        version: Version = 2,
    ) -> None:
        super().__init__(space, decoder)
        self.scale, self.limit = scale, limit
        self.pace, self.reference = (PACE, FIRST_LOG_SCALE) if version == 2 else (1.0, 0.0)
        if scale == "shared":
            self.log_scale = nn.Parameter(torch.full((), FIRST_LOG_SCALE - self.reference))

    @classmethod
    def outputs(cls, space: Space, *, scale: str = "pixel", **_: object) -> tuple[int, ...]:
        return (2, *space.shape) if scale == "pixel" else space.shape

    @classmethod
    def start(cls, space: Space, *, scale: str = "pixel", **_: object) -> Tensor:
        loc = _centred_levels(space)
        return (
            torch.stack([loc, torch.full_like(loc, FIRST_LOG_SCALE)])
            if scale == "pixel" and loc.ndim
            else loc
        )

    def forward(self, z: Tensor, given: Tensor | None = None) -> densities.DiscretizedLogistic:
        out = self.decode(z, given)
        loc, own = (
            out.unbind(2)
            if self.scale == "pixel"
            else (out, self.reference + paced(self.log_scale, self.pace))
        )
        return self._density(loc, soft_limit(own, self.limit))

    def _density(self, loc: Tensor, log_scale: Tensor) -> densities.DiscretizedLogistic:
        """Return the density at a location on -1 .. 1 and a log-scale relative to half of the
        range."""
        half = (self.space.levels - 1) / 2
        return densities.DiscretizedLogistic(
            half * (1 + loc), log_scale + math.log(half), self.space.levels, self.dims
        )

    @property
    def start_values(self) -> int:
        if self.scale != "shared" or self.pace == 1:
            return 0
        return (
            START_VALUES // 16
            if self.log_scale.requires_grad and not bool(self.log_scale.any())
            else 0
        )

    @torch.no_grad()
    def begin_at(self, x: Tensor, observed: Tensor | None, given: Tensor | None) -> None:
        loc = _centred_levels(self.space).to(x.device)

        def log_likelihood(log_scale: Tensor) -> Tensor:
            return self._density(loc, log_scale).log_prob(x, observed).sum()

        bound = START_SHARE * self.limit
        start = most_probable(
            log_likelihood, -bound, bound, torch.full_like(self.log_scale, self.reference)
        )
        self.log_scale.copy_((unlimited(start, self.limit) - self.reference) / self.pace)


FIRST_LOG_SCALE = -2.0  # of levels, relative to half of their range, before training data are seen


def _centred_levels(space: Space) -> Tensor:
    """Return the training split's mean level of each cell on -1 .. 1."""
    if space.marginal is None:
        return torch.zeros(())
    mean = np.tensordot(np.arange(space.levels), space.marginal, (0, 0))
    return torch.from_numpy(np.asarray(mean * 2 / (space.levels - 1) - 1, np.float32))


@final
class LogisticMixture(Likelihood):
    """Represent each pixel by a mixture of discretized logistics, its channels conditioned on each
    other (PixelCNN++'s output,
    Salimans et al. 2017).

    Args:
        space, decoder: see Likelihood.
        components: of the mixture, shared by the channels of a pixel.
        channels: "conditioned", each channel's location moves with the ones before it, so that no
            pixel may miss a channel; "independent" given the component, which can be masked.
        limit: log-scales lie within this of that of the whole range, by `soft_limit`.
    """

    accepts = frozenset({Kind.LEVELS})

    def __init__(
        self,
        space: Space,
        decoder: nn.Module,
        *,
        components: int = 10,
        channels: Literal["conditioned", "independent"] = "conditioned",
        limit: float = 10.0,
    ) -> None:
        super().__init__(space, decoder)
        if components < 1:
            raise ValueError(f"expected 1 or more components; got {components}")
        self.components, self.limit = components, limit
        self.channelled = len(space.shape) == 3
        self.channels = space.shape[0] if self.channelled else 1
        self.conditioned = channels == "conditioned" and self.channels > 1
        if space.missing and self.conditioned:
            raise ValueError(
                "expected complete images for channels conditioned on each other; got missing "
                "cells (logistic-mixture:channels=independent)"
            )

    @staticmethod
    def _sizes(
        space: Space, components: int, channels: str
    ) -> tuple[int, int, int, tuple[int, ...]]:
        """Return the numbers of channels, pairs of channels and outputs of each place, and the
        shape of the places."""
        count = space.shape[0] if len(space.shape) == 3 else 1
        pairs = count * (count - 1) // 2 if channels == "conditioned" else 0
        return (
            count,
            pairs,
            components * (1 + 2 * count + pairs),
            space.shape[1:] if len(space.shape) == 3 else space.shape,
        )

    @classmethod
    def outputs(
        cls, space: Space, *, components: int = 10, channels: str = "conditioned", **_: object
    ) -> tuple[int, ...]:
        _count, _pairs, size, places = cls._sizes(space, components, channels)
        return (size, *places)

    @classmethod
    def start(
        cls, space: Space, *, components: int = 10, channels: str = "conditioned", **_: object
    ) -> Tensor:
        count, pairs, _size, places = cls._sizes(space, components, channels)
        mean = _centred_levels(space).expand(space.shape).reshape(count, *places)
        # Components start apart from each other, or they would all receive the same gradient.
        apart = torch.linspace(-0.5, 0.5, components) if components > 1 else torch.zeros(1)
        loc = mean + apart.view(-1, *[1] * (1 + len(places)))
        pieces = [
            torch.zeros(components, *places),
            loc.flatten(0, 1),
            torch.full((components * count, *places), -2.0),
        ]
        return torch.cat([*pieces, torch.zeros(components * pairs, *places)])

    def forward(self, z: Tensor, given: Tensor | None = None) -> densities.LogisticMixture:
        m, c = self.components, self.channels
        out = self.decode(z, given)
        sizes = [m, m * c, m * c, out.shape[2] - m * (1 + 2 * c)]
        logits, loc, own, pairs = out.split(sizes, 2)
        half = (self.space.levels - 1) / 2
        return densities.LogisticMixture(
            logits,
            half * (1 + loc.unflatten(2, (m, c))),
            soft_limit(own.unflatten(2, (m, c)), self.limit) + math.log(half),
            torch.tanh(pairs.unflatten(2, (m, -1))) if self.conditioned else None,
            self.space.levels,
            self.dims,
            self.channelled,
        )


# -- counts and tables -----------------------------------------------------------------------------


class _Counts(Likelihood):
    """Hold what densities over counts share: the mean of each cell, as a number or as a share of a
    library.

    With `library=NAME` the mean is the condition NAME times a softmax over the cells, as in single
    cells, whose totals tell how deeply each was read (Lopez et al. 2018). The condition is given,
    and no function of the counts that are scored.
    """

    accepts = frozenset({Kind.COUNT})
    advice = "; whole numbers are read as counts with SOURCE:kind=count"

    def __init__(self, space: Space, decoder: nn.Module, limit: float, library: str | None) -> None:
        super().__init__(space, decoder)
        self.limit, self.library = limit, library
        self._place: tuple[int, Column] | None = None

    @staticmethod
    def _at_the_mean(space: Space, limit: float, library: str | None) -> Tensor:
        if space.marginal is None:
            return torch.zeros(())
        mean = torch.from_numpy(space.marginal)
        return _raw_log_mean(mean, limit) if library is None else torch.log(mean.clamp_min(1e-6))

    def bind(self, given: Space | None) -> None:
        if self.library is None:
            return
        columns = [] if given is None else list(given.columns)
        found = [
            (i, c)
            for i, c in enumerate(columns)
            if c.name == self.library and c.kind in (Kind.REAL, Kind.COUNT)
        ]
        if not found:
            there = (
                ", ".join(c.name for c in columns if c.kind in (Kind.REAL, Kind.COUNT)) or "none"
            )
            raise ValueError(
                f"expected a condition of numbers named {self.library!r} (--condition "
                f"{self.library}); got {there}"
            )
        self._place = found[0]

    def log_mean(self, out: Tensor, given: Tensor | None) -> Tensor:
        """Return the logarithm of each cell's mean, (K, B, *X)."""
        if self.library is None:
            return soft_limit(out, self.limit)
        shares = torch.log_softmax(out.flatten(-self.dims), -1).unflatten(-1, self.space.shape)
        return shares + self.log_size(given, out.dtype)

    def log_size(self, given: Tensor | None, dtype: torch.dtype) -> Tensor:
        """Return the logarithm of each datum's library, (B, 1 ..); 0 without a library."""
        if self.library is None:
            return torch.zeros((), dtype=dtype)
        if self._place is None or given is None:
            raise ValueError(
                f"expected the condition {self.library!r} for a likelihood with a library; got none"
            )
        place, column = self._place
        size = given[:, place].to(dtype) * column.scale + column.offset
        # counts are seen as log(1 + n)
        log_size = torch.log(
            (torch.expm1(size) if column.kind is Kind.COUNT else size).clamp_min(1e-6)
        )
        return log_size.reshape(-1, *[1] * self.dims)


@final
class Poisson(_Counts):
    """Represent counts by a Poisson on each cell, from the logarithm of its mean.

    Args:
        space, decoder: see Likelihood.
        limit: the log-mean lies in (-limit, limit), by `soft_limit`.
        library: a condition, of which each cell's mean is a share.
    """

    def __init__(
        self, space: Space, decoder: nn.Module, *, limit: float = 20.0, library: str | None = None
    ) -> None:
        super().__init__(space, decoder, limit, library)

    @classmethod
    def outputs(cls, space: Space, **_: object) -> tuple[int, ...]:
        return space.shape

    @classmethod
    def start(
        cls, space: Space, *, limit: float = 20.0, library: str | None = None, **_: object
    ) -> Tensor:
        return cls._at_the_mean(space, limit, library)

    def forward(self, z: Tensor, given: Tensor | None = None) -> densities.Poisson:
        return densities.Poisson(self.log_mean(self.decode(z, given), given), self.dims)


class _DispersedCounts(Dispersed, _Counts):
    """Hold what counts with a learned dispersion share: where it starts."""

    @property
    def start_values(self) -> int:
        return self.dispersion_values

    def begin_at(self, x: Tensor, observed: Tensor | None, given: Tensor | None) -> None:
        self.begin_dispersion(
            x, observed, self.log_size(given, self.log_inverse.dtype).to(x.device)
        )


@final
class NegativeBinomial(_DispersedCounts):
    """Represent counts by a negative binomial on each cell: a Poisson with more variance than its
    mean.

    Args:
        space, decoder: see Likelihood.
        dispersion: "shared", one learned for each cell of a datum and the same for all data, which
            starts where it fits the training data; "cell", predicted by the decoder.
        limit: the log-mean lies in (-limit, limit), by `soft_limit`.
        library: a condition, of which each cell's mean is a share.
        version: 1 repeats runs made before versions were counted, whose log inverse dispersions
            start at 0 and are learned as slowly as a weight.
    """

    def __init__(
        self,
        space: Space,
        decoder: nn.Module,
        *,
        dispersion: Literal["shared", "cell"] = "shared",
        limit: float = 20.0,
        library: str | None = None,
        version: Version = 2,
    ) -> None:
        super().__init__(space, decoder, limit, library)
        self.dispersion = dispersion
        if dispersion == "shared":
            self.disperse(space.shape, version)

    @classmethod
    def outputs(cls, space: Space, *, dispersion: str = "shared", **_: object) -> tuple[int, ...]:
        return (2, *space.shape) if dispersion == "cell" else space.shape

    @classmethod
    def start(
        cls,
        space: Space,
        *,
        limit: float = 20.0,
        library: str | None = None,
        dispersion: str = "shared",
        **_: object,
    ) -> Tensor:
        loc = cls._at_the_mean(space, limit, library)
        return (
            torch.stack([loc, torch.zeros_like(loc)]) if dispersion == "cell" and loc.ndim else loc
        )

    def forward(self, z: Tensor, given: Tensor | None = None) -> densities.NegativeBinomial:
        out = self.decode(z, given)
        if not self.dispersed:
            log_mean, own = out.unbind(2)
            return self.counted(self.log_mean(log_mean, given), soft_limit(own, INVERSE_LIMIT))
        return self.counted(self.log_mean(out, given), self.inverses())

    def counted(self, log_mean: Tensor, log_inverse: Tensor) -> densities.NegativeBinomial:
        return densities.NegativeBinomial(log_mean, log_inverse, self.dims)


@final
class ZeroInflated(_DispersedCounts):
    """Represent counts that are zero more often than their mean would have it, as where what is
    there is missed (Lopez et al. 2018, ZINB).

    Args:
        space, decoder: see Likelihood.
        counts: the density of what is not missed: "negative-binomial", its dispersion one for each
            cell of a datum, or "poisson".
        limit: log-mean and logit of being missed lie in (-limit, limit), by `soft_limit`.
        library: a condition, of which each cell's mean is a share.
        version: as for NegativeBinomial.
    """

    def __init__(
        self,
        space: Space,
        decoder: nn.Module,
        *,
        counts: Literal["negative-binomial", "poisson"] = "negative-binomial",
        limit: float = 20.0,
        library: str | None = None,
        version: Version = 2,
    ) -> None:
        super().__init__(space, decoder, limit, library)
        if counts == "negative-binomial":
            self.disperse(space.shape, version)

    @classmethod
    def outputs(cls, space: Space, **_: object) -> tuple[int, ...]:
        return (2, *space.shape)

    @classmethod
    def start(
        cls, space: Space, *, limit: float = 20.0, library: str | None = None, **_: object
    ) -> Tensor:
        loc = cls._at_the_mean(space, limit, library)
        return torch.stack([loc, torch.full_like(loc, FIRST_LOGIT)]) if loc.ndim else loc

    def forward(self, z: Tensor, given: Tensor | None = None) -> densities.ZeroInflated:
        out, missed = self.decode(z, given).unbind(2)
        log_mean = self.log_mean(out, given)
        base: densities.NegativeBinomial | densities.Poisson = densities.Poisson(
            log_mean, self.dims
        )
        if self.dispersed:
            base = densities.NegativeBinomial(log_mean, self.inverses(), self.dims)
        return densities.ZeroInflated(base, soft_limit(missed, self.limit))

    def counted(self, log_mean: Tensor, log_inverse: Tensor) -> densities.ZeroInflated:
        logit = soft_limit(torch.full_like(log_mean, FIRST_LOGIT), self.limit)
        return densities.ZeroInflated(
            densities.NegativeBinomial(log_mean, log_inverse, self.dims), logit
        )


FIRST_LOGIT = -2.0  # of a count being missed, before the first step


def _raw_log_mean(mean: Tensor, limit: float) -> Tensor:
    """Return what `soft_limit` turns into log(mean), as far as the limit lets it."""
    return unlimited(torch.log(mean.clamp_min(1e-3)).clamp(-0.9 * limit, 0.9 * limit), limit)


@final
class Table(Scaled, Dispersed, Likelihood):
    """Represent a row of a table by a product over its columns, each by its kind: real, count,
    binary, category.

    Args:
        space, decoder: see Likelihood.
        real: the density of real columns and dates; those that lie on a grid are spread over its
            cells.
        count: the probability of count columns.
        scale: "column", one learned for each column; "cell", predicted by the decoder for each
            cell.
        df: degrees of freedom of student-t.
        limit: log-scales and log-means lie in (-limit, limit), by `soft_limit`.
        version: 1 repeats runs made before versions were counted, whose log-scales and log inverse
            dispersions start at 0 and are learned as slowly as a weight.
    """

    accepts = frozenset({Kind.TABLE})
    grid: Tensor
    df: Tensor

    def __init__(
        self,
        space: Space,
        decoder: nn.Module,
        *,
        real: Literal["gaussian", "laplace", "logistic", "student-t"] = "gaussian",
        count: Literal["negative-binomial", "poisson"] = "negative-binomial",
        scale: Literal["column", "cell"] = "column",
        df: float = 4.0,
        limit: float = 20.0,
        version: Version = 2,
    ) -> None:
        super().__init__(space, decoder)
        if not 0 < limit <= 40 or not 1 < df < math.inf:
            raise ValueError(f"expected a limit in (0, 40] and df above 1; got {limit} and {df}")
        self.real, self.count, self.scale, self.limit = real, count, scale, limit
        self.reals, self.counts, self.binaries = (
            space.count(k) for k in (Kind.REAL, Kind.COUNT, Kind.BINARY)
        )
        self.sizes = [len(c.values) for c in space.columns if c.kind is Kind.CATEGORY]
        if scale == "column":
            self.share(
                Shared(
                    (self.reals,), np.zeros(()), np.zeros((), bool), PACE if version == 2 else 1.0
                ),
                1,
            )
            if count == "negative-binomial":
                self.disperse((self.counts,), version)
        grid = space.grid()
        self.jitter = None if grid is None else (self.reals,)
        dtype = torch.get_default_dtype()
        self.register_buffer(
            "grid",
            torch.zeros(self.reals) if grid is None else torch.from_numpy(grid).to(dtype),
            persistent=False,
        )
        self.register_buffer("df", torch.tensor(df, dtype=dtype), persistent=False)

    @staticmethod
    def _widths(space: Space, count: str, scale: str) -> list[int]:
        """Return how many outputs each run of columns takes: real, count, binary, then each
        category."""
        own = 2 if scale == "cell" else 1
        of_counts = own if count == "negative-binomial" else 1
        sizes = [len(c.values) for c in space.columns if c.kind is Kind.CATEGORY]
        return [
            own * space.count(Kind.REAL),
            of_counts * space.count(Kind.COUNT),
            space.count(Kind.BINARY),
            *sizes,
        ]

    @classmethod
    def outputs(
        cls, space: Space, *, count: str = "negative-binomial", scale: str = "column", **_: object
    ) -> tuple[int, ...]:
        return (sum(cls._widths(space, count, scale)),)

    @classmethod
    def start(
        cls,
        space: Space,
        *,
        count: str = "negative-binomial",
        scale: str = "column",
        limit: float = 20.0,
        **_: object,
    ) -> Tensor:
        widths = cls._widths(space, count, scale)
        pieces = [torch.zeros(widths[0])]
        counts = _raw_log_mean(
            torch.tensor(
                [c.start[0] if c.start else 1.0 for c in space.columns if c.kind is Kind.COUNT]
            ),
            limit,
        )
        pieces.append(torch.cat([counts, torch.zeros(widths[1] - len(counts))]))
        for c in space.columns:
            p = torch.tensor(c.start or [1 / max(1, len(c.values))] * len(c.values)).clamp(
                1e-4, 1 - 1e-4
            )
            if c.kind is Kind.BINARY:
                pieces.append(torch.logit(p[1:2]))
            elif c.kind is Kind.CATEGORY:
                pieces.append(torch.log(p))
        return torch.cat(pieces)

    def spread(self, x: Tensor, noise: Tensor) -> Tensor:
        real, rest = x[..., : self.reals] + self.grid * noise, x[..., self.reals :]
        return torch.cat([real, rest.expand(*real.shape[:-1], -1)], -1)

    def settle(self, x: Tensor) -> tuple[Tensor, Tensor]:
        real, noise = _settled(x[..., : self.reals], self.grid)
        return torch.cat([real, x[..., self.reals :]], -1), noise

    def on_grid(self) -> Tensor:
        return self.grid > 0

    def forward(self, z: Tensor, given: Tensor | None = None) -> densities.Product:
        pieces = self.decode(z, given).split(self._widths(self.space, self.count, self.scale), -1)
        parts: list[tuple[int, densities.Cells]] = []
        if self.reals:
            if self.scale == "cell":
                loc, own = pieces[0].chunk(2, -1)
                parts.append((self.reals, self.family(loc, soft_limit(own, self.limit))))
            else:
                parts.append((self.reals, self.family(pieces[0], self.spreads())))
        if self.counts:
            if self.count == "poisson":
                parts.append((self.counts, densities.Poisson(soft_limit(pieces[1], self.limit))))
            else:
                log_mean, own = (pieces[1], None) if self.dispersed else pieces[1].chunk(2, -1)
                log_inverse = self.inverses() if own is None else soft_limit(own, INVERSE_LIMIT)
                parts.append(
                    (self.counts, self.counted(soft_limit(log_mean, self.limit), log_inverse))
                )
        if self.binaries:
            parts.append((self.binaries, densities.Bernoulli(pieces[2], 1)))
        parts += [(1, densities.Categorical(logits.unsqueeze(-1), 1)) for logits in pieces[3:]]
        return densities.Product(parts)

    def counted(self, log_mean: Tensor, log_inverse: Tensor) -> densities.NegativeBinomial:
        return densities.NegativeBinomial(log_mean, log_inverse)

    @property
    def start_values(self) -> int:
        return max(self._scale_values, self.dispersion_values if self.counts else 0)

    @property
    def _scale_values(self) -> int:
        return super().start_values if self.reals else 0

    def begin_at(self, x: Tensor, observed: Tensor | None, given: Tensor | None) -> None:
        reals, counts = (
            (slice(None), slice(self.reals)),
            (slice(None), slice(self.reals, self.reals + self.counts)),
        )
        if self._scale_values:
            self.begin(x[reals], None if observed is None else observed[reals], x.new_zeros(()))
        if self.counts and self.dispersion_values:
            self.begin_dispersion(
                x[counts], None if observed is None else observed[counts], x.new_zeros(())
            )

    def family(self, location: Tensor, number: Tensor) -> densities.Cells:
        if self.real == "gaussian":
            return densities.Normal(location, 2 * number)
        if self.real == "student-t":
            return densities.StudentT(location, number, self.df)
        return (densities.Laplace if self.real == "laplace" else densities.Logistic)(
            location, number
        )
