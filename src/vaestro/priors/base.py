"""What every prior has, and priors without a density."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
import torch.nn as nn
from torch import Tensor

from vaestro import densities
from vaestro.posteriors import Posterior
from vaestro.spaces import Batch


class Prior(nn.Module, ABC):
    """Describe p(z), or p(z | given).

    Args:
        units: the shape of one latent, *Z.
        given: number of values that describe the conditions of one datum; 0 without conditions.
        alphabet: number of values of a discrete latent, as in `Posterior.alphabet`.

    Raises:
        ValueError: the prior is over latents of another kind.
    """

    discrete: ClassVar[bool] = False
    # whether p(z) can be evaluated; see `Sampler`
    has_density: ClassVar[bool] = True
    # whether p(z) is the standard normal
    standard: ClassVar[bool] = False
    # whether a training step with this prior can be traced into a graph
    in_graph: ClassVar[bool] = True

    def __init__(self, units: tuple[int, ...], given: int = 0, alphabet: int = 0) -> None:
        super().__init__()
        self.units, self.given, self.alphabet = units, given, alphabet
        if bool(alphabet) != self.discrete:
            kinds = {False: "real", True: "discrete"}
            raise ValueError(
                f"expected a prior over {kinds[bool(alphabet)]} latents; got "
                f"{type(self).__name__}, over {kinds[self.discrete]} ones"
            )

    def join(self, posterior: Posterior) -> None:
        """Create the parameters that depend on the posterior. Called once, by the model.

        Raises:
            ValueError: posterior and prior do not fit each other.
        """
        if posterior.units != self.units:
            raise ValueError(
                f"expected one latent shape; got {posterior.units} (posterior) and {self.units} "
                f"(prior)"
            )
        names = f"{type(posterior).__name__} and {type(self).__name__}"
        if posterior.discrete != self.discrete:
            raise ValueError(f"expected posterior and prior over latents of one kind; got {names}")
        if posterior.min_rate and not self.standard:
            raise ValueError(
                f"expected prior normal for a minimum rate, which is a KL to it; got "
                f"{type(self).__name__}"
            )

    @property
    def start_rows(self) -> int:
        """Return the number of training rows that `start` uses; 0 if none, or after `start`."""
        return 0

    def start(self, posterior: Posterior, batch: Batch) -> None:
        """Set parameters to where they fit training data, before the first step."""

    @abstractmethod
    def forward(self, posterior: Posterior, given: Tensor | None) -> densities.PriorDensity:
        """Return p(z | given).

        Args:
            posterior: the model's posterior. Only `Vamp` uses it; no prior owns it.
            given: conditions, (B, C); None without conditions.
        """

    def draw(
        self,
        posterior: Posterior,
        given: Tensor | None,
        n: int,
        generator: torch.Generator | None = None,
        *,
        temperature: float = 1.0,
    ) -> Tensor:
        """Draw n latents, (n, *Z), one for each row of `given` if there are conditions.

        The temperature multiplies the noise of the prior.
        """
        p: densities.PriorDensity = self(posterior, given)
        return p.draw(n, generator, temperature)


class Sampler(Prior, ABC):
    """Describe a prior that can be sampled but has no density, such as one that solves a stochastic
    differential equation.

    A model with such a prior is sampled and its decoder is used. It cannot be trained or evaluated,
    because a bound on log p(x) contains log p(z).
    """

    has_density = False

    @abstractmethod
    def transform(self, noise: Tensor, given: Tensor | None) -> Tensor:
        """Return latents (n, *Z) from standard normal noise (n, *Z) and conditions (n, C)."""

    def forward(self, posterior: Posterior, given: Tensor | None) -> densities.PriorDensity:
        raise ValueError(
            f"expected a prior with a density; got {type(self).__name__}, which can only be "
            f"sampled: without log p(z) there is no bound on log p(x)"
        )

    @torch.no_grad()
    def draw(
        self,
        posterior: Posterior,
        given: Tensor | None,
        n: int,
        generator: torch.Generator | None = None,
        *,
        temperature: float = 1.0,
    ) -> Tensor:
        return self.transform(self.noise(posterior, n, generator, temperature), given)

    def noise(
        self, posterior: Posterior, n: int, generator: torch.Generator | None, temperature: float
    ) -> Tensor:
        """Return normal noise of standard deviation `temperature`, (n, *Z), in the dtype and on the
        device of the posterior."""
        like = posterior.like
        noise = torch.randn(
            (n, *self.units), generator=generator, dtype=like.dtype, device=like.device
        )
        return temperature * noise
