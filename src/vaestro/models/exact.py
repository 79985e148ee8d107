"""Models without a latent, whose log-likelihood is exact.

An autoregressive model of a text x = (x_1, ..., x_T) is the product

    log p(x | given) = sum_t log p(x_t | x_<t, given)

and a model of independent cells is the product of one density for each cell, log p(x | given) =
sum_i log p_i(x_i | given). It is what a likelihood can do without a latent: the bound of a VAE
minus this number is what the latent gains.

Both produce `Draws` with a latent of no units: the space R^0 has one point, so the rate is 0, every
bound equals log p(x), and training, validation and sampling are those of any other model. For data
on a grid, log p(x) is the mean over dequantisation noise, as in every other bound.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import replace
from typing import final

import torch
from torch import Tensor

from vaestro.densities import Density, Normal, StandardNormal
from vaestro.gradients import Gradient
from vaestro.likelihoods import Likelihood
from vaestro.models.base import Capabilities, Model
from vaestro.models.draws import Draws
from vaestro.models.scoring import Scoring, rows_to_start, start_likelihood, uniform_noise
from vaestro.spaces import Batch, Space, check_batch


class _WithoutLatent(Model, ABC):
    """Base class of models p(x | given) that are a likelihood without a latent."""

    def __init__(self, likelihood: Likelihood, given: Space | None = None) -> None:
        super().__init__()
        self.check(type(likelihood))
        likelihood.bind(given)
        self.likelihood, self.space, self.given = likelihood, likelihood.space, given
        self.scoring = Scoring(self.space)
        self.jitter = likelihood.jitter
        self.units = (0,)

    @staticmethod
    @abstractmethod
    def check(likelihood: type[Likelihood]) -> None:
        """Raise ValueError if the model cannot have a likelihood of this class."""

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            exact=True,
            reads_latent=False,
            fitted_to_data=self.likelihood.fitted_to_data,
            not_recordable=() if self.likelihood.in_graph else (type(self.likelihood).__name__,),
            trained_as=self.likelihood.altered,
        )

    def draw(
        self,
        batch: Batch,
        k: int = 1,
        *,
        gradient: Gradient | None = None,
        noise: Tensor | None = None,
    ) -> Draws:
        check_batch(self.space, batch)
        noise = self.noise(1, len(batch)) if noise is None else noise
        z = noise.new_zeros(len(noise), len(batch), 0)
        px = self.likelihood(z, batch.given)
        x = self.spread(batch.x, noise)
        log_px = self.scoring(px, x, batch.observed)
        draws = Draws(z, log_px, z, Normal(z[0], z[0], 1), StandardNormal((0,), z), px)
        trained = self.likelihood.training_density(px, x, batch.observed) if self.training else px
        if trained is px:
            return draws
        optimised = replace(draws, log_px=self.scoring(trained, x, batch.observed))
        return replace(draws, optimised=optimised)

    def noise(self, k: int, rows: int, generator: torch.Generator | None = None) -> Tensor:
        like = next(self.parameters())
        empty = torch.zeros(k, rows, 0, dtype=torch.get_default_dtype(), device=like.device)
        if self.jitter is None:
            return empty
        return uniform_noise((k, rows, *self.jitter), empty, generator).flatten(2)

    def spread(self, x: Tensor, noise: Tensor) -> Tensor:
        jitter = None if self.jitter is None else noise.unflatten(-1, self.jitter)
        return self.likelihood.spread(x, jitter)

    def sample(
        self,
        n: int,
        given: Tensor | None = None,
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Density:
        if temperature != 1:
            raise ValueError(
                f"expected temperature 1 for a model without a latent (its prior has no noise to "
                f"multiply); got {temperature:g}"
            )
        like = next(self.parameters())
        z = torch.zeros(1, n, 0, dtype=torch.get_default_dtype(), device=like.device)
        return self.likelihood(z, given)

    @property
    def start_rows(self) -> int:
        return rows_to_start(self.likelihood)

    def start(self, batch: Batch) -> None:
        start_likelihood(self.likelihood, batch)

    @torch.no_grad()
    def fit_to_data(self, pairs: Iterable[tuple[Batch, Tensor]]) -> None:
        if not self.likelihood.fitted_to_data:
            return
        sums = []
        for batch, noise in pairs:
            x = self.spread(batch.x, noise)
            px = self.likelihood(noise.new_zeros(1, len(batch), 0), batch.given)
            sums.append(self.likelihood.accumulate(px, x, batch.observed))
        self.likelihood.store(torch.stack(sums).double().sum(0))


@final
class Independent(_WithoutLatent):
    """Represent p(x | given) by one density for each cell, without a latent.

    Args:
        likelihood: not an autoregressive one, for latents of shape (0,).
        given: the space of the conditions.

    Raises:
        ValueError: the likelihood is autoregressive.

    >>> import numpy as np, vaestro as vs
    >>> model = vs.build(vs.load(np.eye(40, dtype="uint8")).space, model="independent")
    >>> model.capabilities.exact, model.units
    (True, (0,))
    """

    @staticmethod
    def check(likelihood: type[Likelihood]) -> None:
        if likelihood.autoregressive:
            raise ValueError(
                f"expected a likelihood whose cells are independent, such as categorical, for the "
                f"model independent; got {likelihood.__name__}"
            )


@final
class Autoregressive(_WithoutLatent):
    """Represent p(x | given) by an autoregressive likelihood without a latent, such as a language
    model.

    Args:
        likelihood: an autoregressive likelihood for latents of shape (0,).
        given: the space of the conditions.

    Raises:
        ValueError: the likelihood is not autoregressive.

    >>> import vaestro as vs
    >>> model = vs.build(vs.load(["a cat", "a dog"] * 30).space, model="autoregressive")
    >>> model.capabilities.exact, model.units
    (True, (0,))
    """

    @staticmethod
    def check(likelihood: type[Likelihood]) -> None:
        if not likelihood.autoregressive:
            raise ValueError(
                f"expected the likelihood autoregressive for the model autoregressive, which is "
                f"for text data; got {likelihood.__name__}"
            )
