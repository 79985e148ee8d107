"""What every model of data has, and what a model with latents adds.

A model is trained, evaluated and diagnosed through `draw`, which returns `Draws`. In a model with a
latent, `draw` is the only place where posterior, prior and likelihood meet. A model without a
latent returns draws of no units, whose bound is log p(x) itself.

What differs between models is declared as `Capabilities`; no other module probes a model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

from vaestro.densities import Density, PosteriorDensity
from vaestro.gradients import Gradient
from vaestro.models.absences import Absences
from vaestro.models.draws import Code, Draws
from vaestro.models.lengths import Lengths
from vaestro.models.presence import Presence
from vaestro.networks import Conditioned
from vaestro.priors import Sampler
from vaestro.spaces import Batch, Space


@dataclass(frozen=True)
class Capabilities:
    """Declare what a model can do, so that nothing outside has to probe its parts.

    Args:
        exact: the model has no latent, and its bound is log p(x) itself.
        reads_latent: the decoder has z as an input.
        autoregressive: the decoder is autoregressive in x and could therefore ignore z.
        q_from_features: q(z | x) is one density, `q(features(batch))`. False for a hierarchy, in
            which q of a group depends on the draws above it.
        scored_anywhere: q(z | x) can be scored at any z, not only at its own draws; only if
            `q_from_features`.
        scored_held: log q at a draw has a gradient when the draw is held fixed.
        prior_density: p(z) has a density. Without one, the model can only be sampled.
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

    exact: bool = False
    reads_latent: bool = True
    autoregressive: bool = False
    q_from_features: bool = True
    scored_anywhere: bool = True
    scored_held: bool = True
    prior_density: bool = True
    fitted_to_data: bool = False
    not_recordable: tuple[str, ...] = ()
    trained_as: str = ""
    latent_gradient: bool = True
    logvar_limit: float | None = None
    standard_prior: bool = False


class Model(nn.Module, ABC):
    """Describe a model of data x: whatever produces `Draws` is trained, bounded and diagnosed in
    the same way.

    >>> import vaestro as vs
    >>> from vaestro.spaces import BinarySpace
    >>> model = vs.build(BinarySpace((3,), (3,)), latent=2)
    >>> isinstance(model, Model), model.capabilities.exact
    (True, False)
    """

    space: Space
    # the space of the attributes that the model is conditioned on
    given: Space | None = None
    # the shape *Z of one latent; (0,) without a latent
    units: tuple[int, ...]
    # number of units, the last ones, that only the likelihood reads, such as a latent library
    further_units: int = 0
    # number of values of a discrete latent, as in `Posterior.alphabet`; 0 for real latents
    alphabet: int = 0
    # the shape of the dequantisation noise of one datum; None for data on no grid
    jitter: tuple[int, ...] | None = None
    # p(length | z) of series that end early; None for other data
    lengths: Lengths | None
    # p(which cells are empty | z) of tables and vectors with empty cells; None for other data
    absences: Absences | None

    def __init__(self) -> None:
        super().__init__()
        self.lengths = self.absences = None

    @property
    def presences(self) -> tuple[Presence, ...]:
        """Return what the model has of which cells exist, given z."""
        return tuple(p for p in (self.lengths, self.absences) if p is not None)

    def trainable_parts(self) -> dict[str, nn.Module]:
        """Return the parts that training can freeze, by name."""
        return {name: part for name, part in self.named_children() if name != "scoring"}

    def columns_of_conditions(self) -> Iterator[tuple[nn.Module, str, str]]:
        """Yield the weights whose last columns are multiplied by the conditions: the module of
        each, the path of this module with a dot at its end, and the name of the weight in it."""
        for path, module in self.named_modules():
            if isinstance(module, Conditioned):
                for name in module.condition_weights:
                    inner, _, weight = name.rpartition(".")
                    owner = ".".join(filter(None, (path, inner)))
                    yield self.get_submodule(owner), f"{owner}.", weight

    @property
    def capabilities(self) -> Capabilities:
        """Return what the model can do."""
        return Capabilities()

    def check_conditions(self, values: Mapping[str, np.ndarray], names: Sequence[str]) -> None:
        """Check the conditions of data; see `Likelihood.check_conditions`.

        Args:
            values: the conditions by name in the user's units, each (N,).
            names: of the N rows, for messages.

        Raises:
            ValueError: the model is not defined for a value.
        """

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
    ) -> Draws:
        """Draw z K times for each datum, and return the log-densities there.

        Args:
            batch: B data.
            k: number of draws; without `noise`.
            gradient: estimator that the draws are for; by default pathwise.
            noise: (K, B, ...), as `noise` returns it.
        """

    @abstractmethod
    def noise(self, k: int, rows: int, generator: torch.Generator | None = None) -> Tensor:
        """Return the noise for K draws of each of B rows, (K, B, ...)."""

    def spread(self, x: Tensor, noise: Tensor) -> Tensor:
        """Return values (B, *X) as p(x | z) scores them: by default x; for data on a grid, with
        the dequantisation noise that is part of `noise`, (K, B, *X)."""
        return x

    @abstractmethod
    def sample(
        self,
        n: int,
        given: Tensor | None = None,
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Density:
        """Draw n latents from the prior, and return p(x | z) there; its parameters have a leading
        dimension of one.

        Args:
            n: number of data.
            given: conditions (n, C), for a conditional model.
            temperature: multiplies the noise of the prior.
            generator: of the draws.
        """

    @property
    def start_rows(self) -> int:
        """Return the number of training rows that `start` uses; 0 if none, or after `start`."""
        return 0

    def start(self, batch: Batch) -> None:
        """Set parameters to where they fit training data, before the first step."""

    @abstractmethod
    def fit_to_data(self, pairs: Iterable[tuple[Batch, Tensor]]) -> None:
        """Recompute the parameters that have a closed form on the training split.

        Args:
            pairs: batches of the training split with noise for each; not read if there are no such
                parameters.
        """


class LatentModel(Model, ABC):
    """Describe a model with a latent z: data can also be encoded, and latents decoded and scored.

    >>> import vaestro as vs
    >>> from vaestro.spaces import BinarySpace
    >>> model = vs.build(BinarySpace((3,), (3,)), latent=2)
    >>> isinstance(model, LatentModel), model.decode(torch.zeros(5, 2)).mean.shape
    (True, torch.Size([1, 5, 3]))
    """

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
        """Draw z K times for each datum, and return the log-densities there.

        Args:
            batch, k, gradient, noise: see `Model.draw`.
            features: used instead of `features(batch)`: the encoder is not run.
        """

    @abstractmethod
    def features(self, batch: Batch) -> Tensor:
        """Return the encoder's outputs, which determine q(z | x) of each datum, (B, ...).

        Only for models with the capability `q_from_features`.
        """

    @abstractmethod
    def q(self, features: Tensor) -> PosteriorDensity:
        """Return q(z | x) for the encoder's outputs, without running encoder or decoder.

        Only for models with the capability `q_from_features`.
        """

    @abstractmethod
    def parts(self, noise: Tensor) -> tuple[Tensor, Tensor | None]:
        """Split noise into that of z and the dequantisation noise, (K, B, *jitter) or None."""

    @abstractmethod
    def log_terms(
        self, batch: Batch, z: Tensor, jitter: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return log p(x | z) and log p(z), each (K, B), at latents (K, B, *Z).

        Args:
            batch: B data.
            z: latents.
            jitter: dequantisation noise, (K, B, *jitter) on (-1/2, 1/2); by default fresh noise.
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
        """Draw n latents from the prior, (n, *Z).

        Args:
            n: number of latents.
            given: conditions (n, C), for a conditional model.
            generator: of the draws.
            temperature: multiplies the noise of the prior.
        """

    @abstractmethod
    def simulate(
        self,
        n: int,
        given: Tensor | None = None,
        observed: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Batch, Tensor, Tensor | None]:
        """Draw n data with the latents (n, *Z) and the dequantisation noise (n, *jitter) that
        generated them.

        Each triple is an exact draw from the joint distribution. The latents are prior draws, and
        latents and noise together are one exact posterior draw for each datum. This also holds
        for data with missing cells: all cells are drawn, and those outside of `observed` are masked
        afterwards. Draws outside of the levels of the data are kept, because rejection would change
        the distribution of z given the observed cells.
        """

    def with_prior(self, prior: Sampler) -> LatentModel:
        """Return a model with the same weights whose latents are drawn from another prior, to
        sample from. This model does not change.

        Raises:
            ValueError: the model has no single prior over all of its latents.
        """
        raise ValueError(
            f"expected a model with one prior over all latents; got {type(self).__name__.lower()}"
        )

    @abstractmethod
    def code(self, batch: Batch) -> Code:
        """Return the code of each datum."""

    @abstractmethod
    def decode(self, z: Tensor, given: Tensor | None = None) -> Density:
        """Return p(x | z) for latents (B, *Z); its parameters have a leading dimension of one."""


def with_latent(model: Model) -> LatentModel:
    """Return a model as one that has a latent.

    Raises:
        ValueError: it has none.

    >>> import vaestro as vs
    >>> from vaestro.spaces import BinarySpace
    >>> with_latent(vs.build(BinarySpace((3,), (3,)), latent=2)).units
    (2,)
    """
    if not isinstance(model, LatentModel):
        raise ValueError(
            f"expected a model with a latent; got {type(model).__name__.lower()}, which has no "
            f"latent (it can be evaluated, diagnosed and sampled)"
        )
    return model
