"""Models without a latent, whose log-likelihood is exact.

An autoregressive model of a text x = (x_1, ..., x_T) is the product

    log p(x | given) = sum_t log p(x_t | x_<t, given)

It produces `Draws` with a latent of no units: the space R^0 has one point, so the rate is 0, every
bound equals log p(x), and training, validation and sampling are those of any other model.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import final

import torch
from torch import Tensor

from vaestro.densities import Density, Normal, StandardNormal
from vaestro.gradients import Gradient
from vaestro.likelihoods import Likelihood
from vaestro.models.base import Capabilities, Model
from vaestro.models.draws import Draws
from vaestro.spaces import Batch, Space


@final
class Autoregressive(Model):
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

    def __init__(self, likelihood: Likelihood, given: Space | None = None) -> None:
        super().__init__()
        if not likelihood.autoregressive:
            raise ValueError(
                f"expected the likelihood autoregressive for the model autoregressive, which is "
                f"for text data; got {type(likelihood).__name__}"
            )
        likelihood.bind(given)
        self.likelihood, self.space, self.given = likelihood, likelihood.space, given
        self.units = (0,)
        self.lengths = None

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            exact=True,
            reads_latent=False,
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
        z = self.noise(1, len(batch))
        px = self.likelihood(z, batch.given)
        log_px = px.log_prob(batch.x, batch.observed)
        return Draws(z, log_px, z, Normal(z[0], z[0], 1), StandardNormal((0,), z), px)

    def noise(self, k: int, rows: int, generator: torch.Generator | None = None) -> Tensor:
        like = next(self.parameters())
        return torch.zeros(k, rows, 0, dtype=torch.get_default_dtype(), device=like.device)

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
        return self.likelihood(self.noise(1, n), given)

    def fit_to_data(self, pairs: Iterable[tuple[Batch, Tensor]]) -> None:
        """Do nothing: an autoregressive likelihood has no fitted parameters."""
