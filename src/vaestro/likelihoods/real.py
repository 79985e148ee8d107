"""Likelihoods of real values: location-scale families, x = location + scale * noise in each cell.

With y = (x - location) / scale and f the standard member of the family,

    log p(x | z) = sum_d log f(y_d) - log(scale_d)

    Gaussian    log f(y) = -(y^2 + log 2 pi) / 2
    Laplace     log f(y) = -|y| - log 2
    logistic    log f(y) = -y - 2 log(1 + exp(-y))
    Student t   log f(y) = -(df + 1) / 2 log(1 + y^2 / df) + constant(df)
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar, Literal, final

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

from vaestro import densities
from vaestro.densities import Cells, soft_limit
from vaestro.likelihoods.dequantised import Dequantised
from vaestro.likelihoods.fitted import FittedVariance
from vaestro.likelihoods.limited import Limited, atoms_of, start_of
from vaestro.likelihoods.scales import PACES, Scaled, Shared, Version, default_sharing, sharing
from vaestro.spaces import Kind, Space


class _Continuous(Scaled, Dequantised):
    """Share what densities over real values have in common.

    Levels are standardised here. Data on a grid, 8-bit levels among them, are dequantised.

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
        ". It is a density over real values, and other discrete data have probabilities "
        "(SOURCE:kind=real reads integers as real)"
    )
    what: ClassVar[str] = "scale"
    centre: Tensor
    stretch: Tensor

    def __init__(
        self, space: Space, decoder: nn.Module, spread: float | str, limit: float, version: Version
    ) -> None:
        super().__init__(space, decoder)
        if not 0 < limit <= 80:
            raise ValueError(f"expected a limit of the log-{self.what} in (0, 80]; got {limit}")
        self.limit = limit
        self.limited = Limited.of(space)
        centre, stretch = space.moments()
        dtype = torch.get_default_dtype()
        self.register_buffer("centre", torch.tensor(centre, dtype=dtype), persistent=False)
        self.register_buffer("stretch", torch.tensor(stretch, dtype=dtype), persistent=False)
        self.dequantise(space.shape)
        self.predicted = spread == "pixel"
        self.fixed = not isinstance(spread, str)
        self.fitted_to_data = str(spread).startswith("optimal")
        if not isinstance(spread, str):
            if not (math.isfinite(spread) and spread > 0):
                raise ValueError(f"expected a {self.what} above 0; got {spread}")
            number = math.log(spread) - self.power * np.log(space.units())
            self.register_buffer(self.number, torch.tensor(number, dtype=dtype))
        elif not self.predicted:
            self._share(spread.removeprefix("optimal").removeprefix("-"), version)

    def _share(self, word: str, version: Version) -> None:
        """Make the numbers that cells share: learned, or for an optimal variance fitted."""
        dims = len(self.space.shape)
        if version == 1 and self.fitted_to_data:
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
            shared = sharing(self.space, how, PACES[version])
            self.share(shared, dims, learned=not self.fitted_to_data)

    def forward(self, z: Tensor, given: Tensor | None = None) -> Cells:
        out = self.decode(z, given)
        atoms = 0 if self.limited is None else self.limited.atoms
        several = self.predicted or atoms > 0
        location, *others = out.unbind(2) if several else (out,)
        if self.predicted:
            scale = soft_limit(others[0], self.limit) + self.power * torch.log(self.stretch)
        elif self.fixed:
            scale = self.get_buffer(self.number)
        else:
            scale = self.placed(self.numbers) if self.fitted_to_data else self.spreads()
        scores = self.family(self.centre + self.stretch * location, scale)
        return scores if self.limited is None else self.limited(scores, others[-atoms:])

    @abstractmethod
    def family(
        self, location: Tensor, number: Tensor
    ) -> densities.Normal | densities.LocationScale: ...

    def begin_at(self, x: Tensor, observed: Tensor | None, given: Tensor | None) -> None:
        if self.limited is not None:
            x, observed = self.limited.scored(x, observed)
        self.begin(
            x,
            observed,
            self.centre + self.stretch * torch.from_numpy(self.space.standardised_means()).to(x),
        )


def _outputs(space: Space, spread: float | str) -> tuple[int, ...]:
    numbers = 1 + int(spread == "pixel") + atoms_of(space)
    return space.shape if numbers == 1 else (numbers, *space.shape)


def _start(space: Space, spread: float | str) -> Tensor:
    mean = torch.from_numpy(space.standardised_means())
    if atoms_of(space):
        mean = mean.expand(space.shape)
    more = [torch.zeros_like(mean)] if spread == "pixel" else []
    more += start_of(space)
    return torch.stack([mean, *more]) if more and mean.ndim else mean


@final
class Gaussian(FittedVariance, _Continuous):
    """Represent real data by a normal on each cell, with all constants. Levels are dequantised with
    uniform noise.

    The variance is a part of the model and not a weight: without it bounds of two runs cannot be
    compared.

    Args:
        space, decoder: see Likelihood.
        variance: a number, in the user's units squared, or one of the words below.
            "cell": one learned for each cell, the same for all data.
            "shared": one learned for all cells of a vector, or for all cells of a channel of an
            image, volume or series, in the user's units.
            "auto": cell for vectors, shared for images, volumes and series.
            "optimal-cell", "optimal-shared", "optimal" (auto): shared in the same way, but with the
            closed form of `FittedVariance` (Rybkin et al. 2021).
            "pixel": predicted by the decoder as a log-variance for each cell of each datum.
        limit: a learned log-variance lies in (-limit, limit) around the data's, by `soft_limit`.
        version: 1 repeats runs made before versions were counted: one variance for all cells in
            standardised units, whose logarithm starts at 0 and is learned as slowly as a weight; 2
            those that learned it at a quarter of the present speed.

    >>> from vaestro.spaces import RealSpace
    >>> space = RealSpace((3,), (3,))
    >>> likelihood = Gaussian(space, nn.Linear(2, 3), variance=1.0)
    >>> likelihood(torch.zeros(1, 5, 2)).std
    tensor(1.)
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
        version: Version = 3,
    ) -> None:
        super().__init__(space, decoder, variance, limit, version)

    @classmethod
    def outputs(
        cls, space: Space, *, variance: float | str = "auto", **_: object
    ) -> tuple[int, ...]:
        return _outputs(space, variance)

    @classmethod
    def start(cls, space: Space, *, variance: float | str = "auto", **_: object) -> Tensor:
        return _start(space, variance)

    def family(self, location: Tensor, number: Tensor) -> densities.Normal:
        return densities.Normal(location, number, self.dims)


class _Scaled(_Continuous):
    """Share the options of the families other than the normal; see Laplace for the arguments."""

    def __init__(
        self,
        space: Space,
        decoder: nn.Module,
        *,
        scale: float | Literal["auto", "cell", "shared", "pixel"] = "auto",
        limit: float = 10.0,
        version: Version = 3,
    ) -> None:
        super().__init__(space, decoder, scale, limit, version)

    @classmethod
    def outputs(cls, space: Space, *, scale: float | str = "auto", **_: object) -> tuple[int, ...]:
        return _outputs(space, scale)

    @classmethod
    def start(cls, space: Space, *, scale: float | str = "auto", **_: object) -> Tensor:
        return _start(space, scale)


@final
class Laplace(_Scaled):
    """Represent real data by a Laplace density on each cell, with absolute instead of squared
    residuals. Levels are dequantised.

    Args:
        space, decoder: see Likelihood.
        scale: a number, in the user's units, or one of the words below.
            "cell": one learned for each cell, the same for all data.
            "shared": one learned for all cells of a vector, or for all cells of a channel of an
            image, volume or series, in the user's units.
            "auto": cell for vectors, shared for images, volumes and series.
            "pixel": predicted by the decoder as a log-scale for each cell of each datum.
        limit: a learned log-scale lies in (-limit, limit) around the data's, by `soft_limit`.
        version: 1 repeats runs made before versions were counted: one scale for all cells in
            standardised units, whose logarithm starts at 0 and is learned as slowly as a weight; 2
            those that learned it at a quarter of the present speed.

    >>> from vaestro.spaces import RealSpace
    >>> likelihood = Laplace(RealSpace((3,), (3,)), nn.Linear(2, 3), scale=1.0)
    >>> likelihood(torch.zeros(1, 5, 2)).log_prob(torch.zeros(5, 3)).shape
    torch.Size([1, 5])
    """

    def family(self, location: Tensor, number: Tensor) -> densities.Laplace:
        return densities.Laplace(location, number, self.dims)


@final
class Logistic(_Scaled):
    """Represent real data by a logistic density on each cell. Levels are dequantised.

    Args:
        space, decoder, scale, limit, version: as for Laplace.

    >>> from vaestro.spaces import RealSpace
    >>> likelihood = Logistic(RealSpace((3,), (3,)), nn.Linear(2, 3), scale=1.0)
    >>> likelihood(torch.zeros(1, 5, 2)).mean.shape
    torch.Size([1, 5, 3])
    """

    def family(self, location: Tensor, number: Tensor) -> densities.Logistic:
        return densities.Logistic(location, number, self.dims)


@final
class StudentT(_Scaled):
    """Represent real data by Student's t on each cell, which is robust to outliers. Levels are
    dequantised.

    Args:
        space, decoder, scale, limit, version: as for Laplace.
        df: degrees of freedom, above 1, so that there is a mean.

    >>> from vaestro.spaces import RealSpace
    >>> likelihood = StudentT(RealSpace((3,), (3,)), nn.Linear(2, 3), df=3.0)
    >>> likelihood(torch.zeros(1, 5, 2)).df
    tensor(3.)
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
        version: Version = 3,
    ) -> None:
        super().__init__(space, decoder, scale=scale, limit=limit, version=version)
        if not 1 < df < math.inf:
            raise ValueError(f"expected df above 1; got {df}")
        self.register_buffer(
            "df", torch.tensor(df, dtype=torch.get_default_dtype()), persistent=False
        )

    def family(self, location: Tensor, number: Tensor) -> densities.StudentT:
        return densities.StudentT(location, number, self.df, self.dims)
