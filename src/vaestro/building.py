"""Build a model from its parts.

A `Plan` has the space of the data and the parts that the user named. A row of the kind `model` is a
function or class that is called with the plan, and makes the parts that its model has.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar, cast, final, runtime_checkable

import torch
import torch.nn as nn
from torch import Tensor

from vaestro.likelihoods import Likelihood
from vaestro.models import VAE, Autoregressive, Independent
from vaestro.networks import linear
from vaestro.posteriors import Posterior
from vaestro.priors import Prior
from vaestro.signatures import required_options
from vaestro.spaces import Space
from vaestro.text import Spec, Value

Made = TypeVar("Made")
Made_co = TypeVar("Made_co", covariant=True)


@final
@dataclass(frozen=True)
class Part(Generic[Made_co]):
    """Hold a constructor of the table, or a user's own, with the options that were written.

    Args:
        kind: the kind of part, such as "prior".
        name: its name in the table, or module:Class.
        constructor: the class or function to call.
        options: keyword arguments for the constructor.

    Example:
        >>> from vaestro.parts import find
        >>> str(find("network", "residual:blocks=2,width=64"))
        'residual:blocks=2,width=64'
    """

    kind: str
    name: str
    constructor: Callable[..., Made_co]
    options: dict[str, Value]

    def __call__(self, *args: object, **kwargs: object) -> Made_co:
        """Return the part: the constructor called with the options.

        Raises:
            ValueError: an option without a default was not given.
        """
        missing = required_options(self.constructor) - self.options.keys() - kwargs.keys()
        if missing:
            needed = "=..., ".join(sorted(missing))
            raise ValueError(f"expected {self.name}:{needed}=...; got {self.name} without it")
        return self.constructor(*args, **{**self.options, **kwargs})

    def __str__(self) -> str:
        return str(Spec(self.name, self.options))


def class_of(part: Part[Made]) -> type[Made]:
    """Return the class of a part.

    Raises:
        ValueError: the constructor is a function.

    Example:
        >>> from vaestro.parts import find
        >>> class_of(find("prior", "normal")).__name__
        'Normal'
    """
    if not isinstance(part.constructor, type):
        raise ValueError(f"expected {part.name} to be a class; got a function")
    return cast("type[Made]", part.constructor)


@runtime_checkable
class Shaped(Protocol):
    """A constructor of networks that decides the shape of the latent."""

    def latent_shape(
        self, latent: int, shape: tuple[int, ...], **options: object
    ) -> tuple[int, ...]:
        """Return the shape of the latent for data of a shape."""


@runtime_checkable
class Startable(Protocol):
    """A decoder whose outputs can be set before training."""

    def start_at(self, values: Tensor) -> None:
        """Set the outputs at the start, of the decoder's output shape."""


@final
@dataclass(frozen=True)
class Plan:
    """Hold the space of the data and the parts of a model.

    Args:
        space: describes the data.
        given: the space of the conditions, if there are any.
        latent: number of latent units; of a spatial latent, its channels.
        likelihood, posterior, prior: the parts of a model with a latent.
        encoder, decoder: the networks.

    Raises:
        ValueError: the likelihood does not accept the data.

    Example:
        >>> from vaestro.parts import find
        >>> from vaestro.spaces import BinarySpace
        >>> names = ("likelihood", "bernoulli"), ("posterior", "normal"), ("prior", "normal")
        >>> networks = [find("network", "linear")] * 2
        >>> plan = Plan(BinarySpace((3,), (3,)), None, 8, *(find(*n) for n in names), *networks)
        >>> plan.units
        (8,)
    """

    space: Space
    given: Space | None
    latent: int
    likelihood: Part[Likelihood]
    posterior: Part[Posterior]
    prior: Part[Prior]
    encoder: Part[nn.Module]
    decoder: Part[nn.Module]

    def __post_init__(self) -> None:
        class_of(self.likelihood).check(self.space)

    @property
    def conditions(self) -> int:
        """Return how many numbers describe the conditions of one datum."""
        return self.given.feature_shape[0] if self.given is not None else 0

    @property
    def units(self) -> tuple[int, ...]:
        """Return the shape of one latent, *Z.

        Raises:
            ValueError: encoder and decoder have latents of different shapes, or the likelihood
                needs a vector of real units.
        """
        shapes = {
            side.constructor.latent_shape(self.latent, self.space.shape, **side.options)
            if isinstance(side.constructor, Shaped)
            else (self.latent,)
            for side in (self.encoder, self.decoder)
        }
        if len(shapes) > 1:
            # a user-defined module has the latent shape of the other side
            shapes.discard((self.latent,))
        if len(shapes) > 1:
            names = " and ".join(map(str, sorted(shapes)))
            raise ValueError(f"expected one latent shape; got {names}")
        units = class_of(self.posterior).latents(shapes.pop(), **self.posterior.options)
        if not self.further_units:
            return units
        if len(units) > 1 or class_of(self.posterior).alphabet(**self.posterior.options):
            raise ValueError(
                f"expected a vector of real units for {self.likelihood}; got {self.posterior} with "
                f"units {units}"
            )
        return (units[0] + self.further_units,)

    @property
    def further_units(self) -> int:
        """Return the number of units, the last ones, that are no inputs of the decoder."""
        return class_of(self.likelihood).units_beside(**self.likelihood.options)

    def make_decoder(self, units: tuple[int, ...]) -> nn.Module:
        """Return the decoder for latents of a shape; it starts at the mean of the data."""
        kind, options = class_of(self.likelihood), self.likelihood.options
        if self.further_units:
            if units == (0,):
                raise ValueError(f"expected a model with a latent for {self.likelihood}; got none")
            units = (units[0] - self.further_units,)
        decoder = self._network(self.decoder, units, kind.outputs(self.space, **options))
        if isinstance(decoder, Startable):
            decoder.start_at(kind.start(self.space, **options))
        return decoder

    def make_encoder(self, units: tuple[int, ...]) -> nn.Module:
        """Return the encoder for latents of a shape."""
        outputs = class_of(self.posterior).outputs(units, **self.posterior.options)
        return self._network(self.encoder, self.space.feature_shape, outputs)

    def make_prior(self, units: tuple[int, ...]) -> Prior:
        """Return p(z) for latents of a shape."""
        alphabet = class_of(self.posterior).alphabet(**self.posterior.options)
        return self.prior(units, self.conditions, alphabet)

    def _network(
        self, part: Part[nn.Module], inputs: tuple[int, ...], outputs: tuple[int, ...]
    ) -> nn.Module:
        """Return an encoder or decoder; a user's own is tried on two rows."""
        conditions = (self.conditions,) if self.conditions else ()
        module = part(inputs, outputs, *conditions)
        if ":" in part.name:
            _check_module(module, part.name, inputs, outputs, conditions)
        return module


def vae(plan: Plan) -> VAE:
    """Return a variational autoencoder: an encoder, a prior and a decoder (Kingma and Welling
    2014).

    Example:
        >>> import numpy as np, vaestro as vs
        >>> vs.build(vs.load(np.eye(40, dtype="uint8")).space, latent=8, model="vae").units
        (8,)
    """
    units = plan.units
    # The initial weights are random draws in this order.
    decoder, encoder = plan.make_decoder(units), plan.make_encoder(units)
    prior = plan.make_prior(units)
    posterior = plan.posterior(plan.space, encoder, units)
    return VAE(posterior, plan.likelihood(plan.space, decoder), prior, plan.given)


def autoregressive(plan: Plan) -> Autoregressive:
    """Return a model without a latent that predicts each token from those before it; its log p(x)
    is exact.

    Example:
        >>> import vaestro as vs
        >>> space = vs.load(["a cat", "a dog", "a cow"] * 20).space
        >>> vs.build(space, model="autoregressive").capabilities.exact
        True
    """
    return Autoregressive(plan.likelihood(plan.space, _decoder_without_latent(plan)), plan.given)


def independent(plan: Plan) -> Independent:
    """Return a model without a latent in which all cells are independent, given the conditions; it
    is what the latent of a VAE with the same likelihood is compared with.

    Example:
        >>> import numpy as np, vaestro as vs
        >>> space = vs.load(np.eye(40, dtype="uint8")).space
        >>> vs.build(space, model="independent").likelihood.decoder.last.in_features
        0
    """
    Independent.check(class_of(plan.likelihood))
    plan = replace(plan, decoder=Part("network", "linear", linear, {}))
    return Independent(plan.likelihood(plan.space, _decoder_without_latent(plan)), plan.given)


def _decoder_without_latent(plan: Plan) -> nn.Module:
    with warnings.catch_warnings():
        # torch warns of the decoder's layer for a latent of no units
        warnings.filterwarnings("ignore", "Initializing zero-element tensors", UserWarning)
        return plan.make_decoder((0,))


def _check_module(
    module: nn.Module,
    name: str,
    inputs: tuple[int, ...],
    outputs: tuple[int, ...],
    conditions: tuple[int, ...],
) -> None:
    """Raise ValueError if a user's own module does not map two rows to the expected shape."""
    if not isinstance(module, nn.Module):
        raise ValueError(f"expected {name} to make a torch module; got {type(module).__name__}")
    module.eval()
    arguments = [torch.zeros(2, *shape) for shape in (inputs, conditions) if shape]
    try:
        with torch.no_grad():
            got = tuple(module(*arguments).shape)
    except Exception as error:  # a user's module may raise anything
        shapes = " and ".join(str(tuple(a.shape)) for a in arguments)
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(f"expected {name} to take {shapes}; got {reason}") from error
    finally:
        module.train()
    if got != (2, *outputs):
        raise ValueError(
            f"expected {name} to turn (N, {_commas(inputs)}) into (N, {_commas(outputs)}); got "
            f"{got} for two rows"
        )


def _commas(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))
