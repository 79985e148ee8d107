"""What every model of data is, and what a model with latents is.

`draw` is the only place where posterior, prior and likelihood meet. It returns `Draws`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn as nn
from torch import Tensor

from vaestro.densities import Density, PosteriorDensity
from vaestro.gradients import Gradient
from vaestro.models.draws import Code, Draws
from vaestro.spaces import Batch, Space


@dataclass(frozen=True)
class Capabilities:
    """Declare what a model can do, so that nothing outside has to probe its parts.

    Args:
        reads_latent: the decoder has z as an input.
        autoregressive: the decoder is autoregressive in x and could therefore ignore z.
        scored_anywhere: q(z | x) can be scored at any z, not only at its own draws.
        scored_held: log q at a draw has a gradient when the draw is held fixed.
        fitted_to_data: parameters of p(x | z) have a closed form on the training split.
        not_recordable: parts whose steps run different tensor operations from step to step, so
            that a step cannot be traced.
        trained_as: how the trained model differs from the reported one, such as word dropout;
            empty if it does not.
        latent_gradient: log p(x, z) has a gradient in z.
        logvar_limit: limit of the encoder's log-variance; None if there is none.
        standard_prior: p(z) is the standard normal.

    >>> Capabilities(autoregressive=True).scored_anywhere
    True
    """

    reads_latent: bool = True
    autoregressive: bool = False
    scored_anywhere: bool = True
    scored_held: bool = True
    fitted_to_data: bool = False
    not_recordable: tuple[str, ...] = ()
    trained_as: str = ""
    latent_gradient: bool = True
    logvar_limit: float | None = None
    standard_prior: bool = False


class LatentModel(nn.Module, ABC):
    """Describe a model of data x with latents z: whatever produces `Draws` can be trained, bounded
    and diagnosed."""

    space: Space
    units: tuple[int, ...]
    # what the model is conditioned on: the space of a table of attributes
    given: Space | None = None
    alphabet: int = 0  # what the latents are, as `Posterior.alphabet` says
    # the shape of what spreads one datum over the grid it lies on
    jitter: tuple[int, ...] | None = None

    @property
    def capabilities(self) -> Capabilities:
        """Return what the model can do."""
        return Capabilities()

    def encoder_parameters(self) -> list[nn.Parameter]:
        """Return the trainable parameters of q(z | x); none if the model has no encoder."""
        return []

    @abstractmethod
    def draw(
        self,
        batch: Batch,
        k: int = 1,
        *,
        gradient: Gradient | None = None,
        noise: Tensor | None = None,
        features: Tensor | None = None,
    ) -> Draws:
        """Draw z K times for each datum and record every log-density there.

        `features` stand in for what `features` makes of the batch: the encoder then does not run,
            or q is another one.
        """

    @abstractmethod
    def features(self, batch: Batch) -> Tensor:
        """Return what determines q(z | x) of each datum, (B, ...): the encoder's outputs."""

    @abstractmethod
    def q(self, features: Tensor) -> PosteriorDensity:
        """Return q(z | x) from what determines it, as `features` makes it, without running the
        encoder or the decoder."""

    @abstractmethod
    def noise(self, k: int, rows: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw the noise that `draw` takes for K draws of each of B rows: (K, B, ...)."""

    @abstractmethod
    def parts(self, noise: Tensor) -> tuple[Tensor, Tensor | None]:
        """Split noise into what `q(features).from_noise` takes and what spreads the data over their
        grid, (K, B, *jitter) or None."""

    @abstractmethod
    def log_terms(
        self, batch: Batch, z: Tensor, jitter: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return log p(x | z) and log p(z), each (K, B), at given latents (K, B, *Z).

        Data on a grid are spread over its cells by `jitter`, (K, B, *jitter) on (-1/2, 1/2), or
        else by fresh noise.
        """

    @abstractmethod
    def draw_prior(
        self,
        n: int,
        given: Tensor | None = None,
        generator: torch.Generator | None = None,
        *,
        temperature: float = 1.0,
    ) -> Tensor:
        """Draw n latents from the prior, (n, *Z), one for each row of `given` where there are
        conditions.

        The noise that the prior draws is multiplied by the temperature.
        """

    @abstractmethod
    def simulate(
        self,
        n: int,
        given: Tensor | None = None,
        observed: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Batch, Tensor, Tensor | None]:
        """Draw n data with the latents (n, *Z) that generated them, and the jitter (n, *jitter)
        where data lie on a grid.

        Each triple is an exact draw from the model's joint distribution. The latents are therefore
        prior draws, and latents and
        jitter are one exact posterior draw for each datum, also where only the cells in `observed`
            are seen: the other cells are
        drawn and then masked. A continuous density on 8-bit or other levels has mass outside of the
        levels; such draws are kept, because rejecting a draw for a cell that is then masked changes
        the distribution of z given the other cells.
        """

    @abstractmethod
    def code(self, batch: Batch) -> Code:
        """Return the code of each datum."""

    @abstractmethod
    def decode(self, z: Tensor, given: Tensor | None = None) -> Density:
        """Return p(x | z) for latents (B, *Z); its parameters have a leading dimension of one."""

    @abstractmethod
    def sample(
        self,
        n: int,
        given: Tensor | None = None,
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Density:
        """Draw n latents from the prior and return p(x | z) there; its parameters have a leading
        dimension of one."""

    @property
    def start_rows(self) -> int:
        """Return how many training data `start` wants; 0 where it needs none, and once it has had
        them."""
        return 0

    def start(self, batch: Batch) -> None:
        """Begin at training data, before the first step."""

    @abstractmethod
    def fit_to_data(self, pairs: Iterable[tuple[Batch, Tensor]]) -> None:
        """Refresh parameters that have a closed form on the training split, from batches of it with
        noise for each; reads none where there
        are no such parameters."""
