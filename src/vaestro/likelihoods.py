"""The likelihood p(x | z): a decoder whose outputs are the parameters of a density over the data.

A decoder returns logits or natural parameters, never probabilities. Each likelihood says which kinds of data it is
true for and refuses the others, because a density scored on the wrong kind is a number without a meaning. No
parameter of p(x | z) depends on the x being scored, except through z.
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
from vaestro.densities import Density, Kind, Space, mean_over_ranks, soft_limit


class Likelihood(nn.Module, ABC):
    """Describe p(x | z).

    Args:
        space: what the data are.
        decoder: a module from (N, *Z) to (N, *outputs(space)).

    Raises:
        ValueError: the data are of a kind that this likelihood is not true for.
    """

    accepts: ClassVar[frozenset[Kind]]
    advice: ClassVar[str] = ""
    fitted_to_data: ClassVar[bool] = False

    def __init__(self, space: Space, decoder: nn.Module) -> None:
        super().__init__()
        self.check(space)
        self.space, self.decoder, self.dims = space, decoder, len(space.shape)

    @classmethod
    def check(cls, space: Space) -> None:
        """Raise ValueError unless the data are of a kind that this likelihood accepts."""
        if space.kind not in cls.accepts:
            kinds = " or ".join(sorted(cls.accepts))
            raise ValueError(f"expected {kinds} data for the likelihood {cls.__name__}; got {space}{cls.advice}")

    @classmethod
    @abstractmethod
    def outputs(cls, space: Space) -> tuple[int, ...]:
        """Return what the decoder must produce for one z; it takes the constructor's options as keywords."""

    @classmethod
    @abstractmethod
    def start(cls, space: Space) -> Tensor:
        """Return the decoder's outputs at which the mean is the training data's (it broadcasts to `outputs`)."""

    @abstractmethod
    def forward(self, z: Tensor, given: Tensor | None = None) -> Density:
        """Return p(x | z, given) for latents (K, B, *Z)."""

    def decode(self, z: Tensor, given: Tensor | None) -> Tensor:
        """Run the decoder on all latents in one pass: (K, B, *Z) -> (K, B, *outputs)."""
        k, rows = z.shape[:2]
        flat = z.flatten(0, 1)
        out = self.decoder(flat) if given is None else self.decoder(flat, given.expand(k, rows, -1).flatten(0, 1))
        return out.to(z.dtype).unflatten(0, (k, rows))  # densities are computed in full precision, also under autocast

    # What follows matters only to likelihoods with parameters that are fitted to data in closed form.

    def training_density(self, px: Density, x: Tensor, observed: Tensor | None) -> Density:
        """Return the density that training optimises, where it is not the one that is reported."""
        return px

    def accumulate(self, px: Density, x: Tensor, observed: Tensor | None) -> Tensor:
        """Return sums over a batch of the training split, from which `store` makes the fitted parameters."""
        raise NotImplementedError

    def store(self, sums: Tensor) -> None:
        """Keep the parameters that the accumulated sums give."""
        raise NotImplementedError


@final
class Bernoulli(Likelihood):
    """Represent binary data by one logit for each cell.

    Grey values are refused: a Bernoulli likelihood of values between 0 and 1 is not normalised, and its "bounds" are
    not bounds on anything (Loaiza-Ganem and Cunningham 2019).
    """

    accepts = frozenset({Kind.BINARY})
    advice = "; binarise the data (such as mnist:binarise=dynamic), or use a likelihood for this kind (vaestro parts likelihood)"

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
    """Represent codes (categories, levels, or binary data) by a softmax over L logits for each cell."""

    accepts = frozenset({Kind.BINARY, Kind.LEVELS, Kind.CATEGORY})

    @classmethod
    def outputs(cls, space: Space) -> tuple[int, ...]:
        return (space.levels, *space.shape)

    @classmethod
    def start(cls, space: Space) -> Tensor:
        if space.marginal is None:
            return torch.zeros(())
        p = torch.from_numpy(space.marginal)
        p = torch.stack([1 - p, p]) if space.kind is Kind.BINARY else p
        return torch.log(p.clamp_min(1e-4))

    def forward(self, z: Tensor, given: Tensor | None = None) -> densities.Categorical:
        return densities.Categorical(self.decode(z, given), self.dims)


@final
class Gaussian(Likelihood):
    """Represent real data by a normal on each cell, all constants included.

    The variance is a part of the model and not a weight: without it bounds of two runs cannot be compared.

    Args:
        space, decoder: see Likelihood.
        variance: a number (in the user's units squared); "shared", one learned for all cells; "optimal", one for all
            cells in closed form, which is the batch's mean squared residual in training and the training split's
            stored value in every reported bound (Rybkin et al. 2021); "pixel", predicted by the decoder as a
            log-variance for each cell. "shared" and "optimal" are one variance in standardised units.
        limit: a learned log-variance lies in (-limit, limit), by `soft_limit`.
    """

    accepts = frozenset({Kind.REAL})
    advice = "; Gaussian is a density for real values (read integers as real with SOURCE:kind=real), discrete data have probabilities"

    def __init__(
        self,
        space: Space,
        decoder: nn.Module,
        *,
        variance: float | Literal["shared", "optimal", "pixel"] = "shared",
        limit: float = 20.0,
    ) -> None:
        super().__init__(space, decoder)
        self.variance, self.limit = variance, limit
        if not 0 < limit <= 80:
            raise ValueError(f"expected a limit of the log-variance in (0, 80]; got {limit}")
        if not isinstance(variance, str):
            if not (math.isfinite(variance) and variance > 0):
                raise ValueError(f"expected a variance above 0; got {variance}")
            scale = np.ones(()) if space.scale is None else np.asarray(space.scale)
            self.register_buffer("log_variance", torch.tensor(math.log(variance) - 2 * np.log(scale), dtype=torch.get_default_dtype()))
        elif variance == "shared":
            self.log_variance = nn.Parameter(torch.zeros(()))
        elif variance == "optimal":
            self.register_buffer("log_variance", torch.zeros(()))

    @property
    def fitted_to_data(self) -> bool:  # type: ignore[override]
        """Tell whether `accumulate` and `store` must be called before a bound is reported."""
        return self.variance == "optimal"

    @classmethod
    def outputs(cls, space: Space, *, variance: float | str = "shared", **_: object) -> tuple[int, ...]:
        return (2, *space.shape) if variance == "pixel" else space.shape

    @classmethod
    def start(cls, space: Space, *, variance: float | str = "shared", **_: object) -> Tensor:
        return torch.zeros(())  # the mean of standardised data

    def forward(self, z: Tensor, given: Tensor | None = None) -> densities.Normal:
        out = self.decode(z, given)
        if self.variance == "pixel":
            mean, logvar = out.unbind(2)
            return densities.Normal(mean, soft_limit(logvar, self.limit), self.dims)
        learned = self.variance == "shared"
        return densities.Normal(out, soft_limit(self.log_variance, self.limit) if learned else self.log_variance, self.dims)

    def training_density(self, px: Density, x: Tensor, observed: Tensor | None) -> Density:
        if self.variance != "optimal":
            return px
        # The variance is at its optimum, so the gradient through it is zero (the envelope theorem), and it is cut.
        total, count = mean_over_ranks(self.accumulate(px, x, observed)).unbind()
        return densities.Normal(px.mean, self._log_of(total / count), self.dims)

    def accumulate(self, px: Density, x: Tensor, observed: Tensor | None) -> Tensor:
        squared = (x - px.mean.detach()).square()
        if observed is None:
            return torch.stack([squared.sum(), squared.new_tensor(squared.numel())])
        return torch.stack([torch.where(observed, squared, 0.0).sum(), observed.expand_as(squared).sum().to(squared.dtype)])

    def store(self, sums: Tensor) -> None:
        self.log_variance.copy_(self._log_of(sums[0] / sums[1]))

    def _log_of(self, variance: Tensor) -> Tensor:
        return variance.clamp_min(math.exp(-self.limit)).log()
