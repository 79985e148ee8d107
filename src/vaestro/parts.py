"""The table of parts: every name that a user can write, and the constructor that it calls.

`gaussian:variance=pixel` is a call. The name selects a constructor, and the options are its
keyword-only arguments, checked against its signature. `my_package.my_module:MyClass` selects a
user's own class in the same way. `build` supplies the positional arguments: the space, a network,
shapes.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar, cast, final, overload, runtime_checkable

import torch
import torch.nn as nn
from torch import Tensor

from vaestro import (
    gradients,
    likelihoods,
    networks,
    objectives,
    optimizers,
    penalties,
    posteriors,
    priors,
    recipes,
    schedules,
    sequences,
)
from vaestro.models import VAE
from vaestro.signatures import Entry, checked, entry_of, options_of, required_options
from vaestro.spaces import Space
from vaestro.text import Spec, Value, article, nearest, parse

Made = TypeVar("Made")
Made_co = TypeVar("Made_co", covariant=True)

TABLE: dict[str, Mapping[str, Callable[..., object]]] = {
    "likelihood": {
        "bernoulli": likelihoods.Bernoulli,
        "categorical": likelihoods.Categorical,
        "autoregressive": likelihoods.Autoregressive,
        "gaussian": likelihoods.Gaussian,
        "laplace": likelihoods.Laplace,
        "logistic": likelihoods.Logistic,
        "student-t": likelihoods.StudentT,
        "continuous-bernoulli": likelihoods.ContinuousBernoulli,
        "discretized-logistic": likelihoods.DiscretizedLogistic,
        "logistic-mixture": likelihoods.LogisticMixture,
        "poisson": likelihoods.Poisson,
        "negative-binomial": likelihoods.NegativeBinomial,
        "zero-inflated": likelihoods.ZeroInflated,
        "table": likelihoods.Table,
    },
    "posterior": {
        "normal": posteriors.Normal,
        "full-normal": posteriors.FullNormal,
        "low-rank-normal": posteriors.LowRankNormal,
        "laplace": posteriors.Laplace,
        "logistic": posteriors.Logistic,
        "student-t": posteriors.StudentT,
        "gumbel": posteriors.Gumbel,
        "planar": posteriors.Planar,
        "iaf": posteriors.InverseAutoregressive,
        "spline": posteriors.Spline,
        "bernoulli": posteriors.Bernoulli,
        "categorical": posteriors.Categorical,
    },
    "prior": {
        "normal": priors.Normal,
        "conditional": priors.Conditional,
        "mixture": priors.Mixture,
        "vamp": priors.Vamp,
        "maf": priors.MaskedAutoregressive,
        "coupling": priors.Coupling,
        "autoregressive": priors.Autoregressive,
        "bernoulli": priors.Bernoulli,
        "categorical": priors.Categorical,
    },
    "network": {
        "residual": networks.Residual,
        "mlp": networks.MLP,
        "linear": networks.linear,
        "conv": networks.Convolutional,
        "conv3d": networks.Convolutional3d,
        "conv1d": sequences.Convolutional1d,
        "gru": sequences.gru,
        "transformer": sequences.transformer,
    },
    "objective": {
        "elbo": objectives.elbo_objective,
        "iwae": objectives.iwae_objective,
        "miwae": objectives.miwae_objective,
        "ciwae": objectives.ciwae_objective,
    },
    "gradient": {
        "pathwise": gradients.Pathwise,
        "stl": gradients.StickingTheLanding,
        "dreg": gradients.DoublyReparameterized,
        "score": gradients.Score,
        "gumbel-softmax": gradients.GumbelSoftmax,
        "straight-through": gradients.StraightThrough,
    },
    "schedule": {
        "constant": schedules.constant,
        "warmup": schedules.warmup,
        "sigmoid": schedules.Sigmoid,
        "cyclical": schedules.Cyclical,
        "geco": schedules.Geco,
    },
    "penalty": {
        "total-correlation": penalties.TotalCorrelation,
        "dip": penalties.Dip,
        "mmd": penalties.Mmd,
    },
    "recipe": recipes.RECIPES,
    "optimizer": {"adamw": optimizers.AdamW, "sgd": optimizers.SGD},
}


def default_prior(posterior: str) -> str:
    """Return the prior for a posterior when the user names none.

    Example:
        >>> default_prior("normal"), default_prior("categorical:codes=8")
        ('normal', 'categorical')
    """
    part = find("posterior", posterior)
    alphabet = class_of(part).alphabet(**part.options)
    return {0: "normal", 1: "bernoulli"}.get(alphabet, "categorical")


def default_gradient(posterior: str) -> str:
    """Return the gradient estimator for a posterior when the user names none.

    Example:
        >>> default_gradient("normal"), default_gradient("bernoulli")
        ('pathwise', 'gumbel-softmax')
    """
    discrete = class_of(find("posterior", posterior)).discrete
    return "gumbel-softmax" if discrete else "pathwise"


# -- from names to constructors --------------------------------------------------------------------


@final
@dataclass(frozen=True)
class Part(Generic[Made_co]):
    """Hold a constructor of the table, or a user's own, with the options that were written.

    Args:
        kind: the kind of part, such as "prior".
        name: its name in the table, or module:Class.
        constructor: what makes it.
        options: keyword arguments for the constructor.

    Example:
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
            wanted = "=..., ".join(sorted(missing))
            raise ValueError(f"expected {self.name}:{wanted}=...; got {self.name} without it")
        return self.constructor(*args, **{**self.options, **kwargs})

    def __str__(self) -> str:
        return str(Spec(self.name, self.options))


def class_of(part: Part[Made]) -> type[Made]:
    """Return the class of a part.

    Raises:
        ValueError: it is made by a function.

    Example:
        >>> class_of(find("prior", "normal")).__name__
        'Normal'
    """
    if not isinstance(part.constructor, type):
        raise ValueError(f"expected {part.name} to be a class; got a function")
    return cast("type[Made]", part.constructor)


@overload
def find(kind: Literal["likelihood"], spec: str) -> Part[likelihoods.Likelihood]: ...
@overload
def find(kind: Literal["posterior"], spec: str) -> Part[posteriors.Posterior]: ...
@overload
def find(kind: Literal["prior"], spec: str) -> Part[priors.Prior]: ...
@overload
def find(kind: Literal["network"], spec: str) -> Part[nn.Module]: ...
@overload
def find(kind: Literal["objective"], spec: str) -> Part[objectives.Objective]: ...
@overload
def find(kind: Literal["gradient"], spec: str) -> Part[gradients.Gradient]: ...
@overload
def find(kind: Literal["schedule"], spec: str) -> Part[schedules.Schedule]: ...
@overload
def find(kind: Literal["penalty"], spec: str) -> Part[penalties.Penalty]: ...
@overload
def find(kind: Literal["recipe"], spec: str) -> Part[recipes.Options]: ...
@overload
def find(kind: Literal["optimizer"], spec: str) -> Part[optimizers.Optimizer]: ...
@overload
def find(kind: str, spec: str, table: Mapping[str, Callable[..., Made]]) -> Part[Made]: ...
@overload
def find(kind: str, spec: str) -> Part[object]: ...
def find(
    kind: str, spec: str, table: Mapping[str, Callable[..., object]] | None = None
) -> Part[object]:
    """Return the part that `spec` names.

    Args:
        kind: the kind of part, a key of `TABLE`; with `table`, any word for messages.
        spec: a name with options, such as "residual:width=256", or module:Class.
        table: the constructors by name, instead of those of the kind.

    Raises:
        ValueError: there is no such part, it has no such option, or the value of an option has
            another type.

    Example:
        >>> find("schedule", "warmup:share=0.1").options
        {'share': 0.1}
    """
    if not isinstance(spec, str) or not spec:
        raise ValueError(f"expected the name of {article(kind)}; got {spec!r}")
    table = TABLE[kind] if table is None else table
    name, options = parse(spec)
    module, colon, attribute = name.partition(":")
    if name in table:
        constructor = table[name]
    elif colon and module in table:
        raise ValueError(f"expected options of {module} as key=value; got {attribute!r}")
    elif colon:
        constructor = _imported(module, attribute)
    else:
        offer = nearest(name, table)
        raise ValueError(f"expected {article(kind)}: {offer}, or module:Class; got {name!r}")
    known = options_of(constructor)
    for key, value in options.items():
        if key not in known:
            offer = nearest(key, known) if known else "none"
            raise ValueError(f"expected an option of {name}: {offer}; got {key!r}")
        options[key] = checked(f"{name}:{key}", value, known[key].hint)
    return Part(kind, name, constructor, options)


def _imported(module: str, attribute: str) -> Callable[..., object]:
    """Return a user's own class or function."""
    if not all(piece.isidentifier() for piece in module.split(".")):
        raise ValueError(f"expected module:Class; got {module!r} as the module")
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except Exception as error:  # a user's module may raise anything while it is imported
        first = (str(error) or "no reason given").splitlines()[0]
        raise ValueError(
            f"expected a module that can be imported; got {module!r} ({type(error).__name__}: "
            f"{first})"
        ) from error
    if found is None:
        raise ValueError(f"expected {module} to have {attribute}; got a module without it")
    if not callable(found):
        raise ValueError(
            f"expected {module}:{attribute} to be a class or function; got {type(found).__name__}"
        )
    return cast("Callable[..., object]", found)


def catalogue(
    tables: Mapping[str, Mapping[str, Callable[..., object]]] = TABLE,
) -> dict[str, list[Entry]]:
    """Return all parts of the table, or of other tables, by kind.

    Example:
        >>> [entry["name"] for entry in catalogue()["optimizer"]]
        ['adamw', 'sgd']
    """
    return {
        kind: [entry_of(name, constructor) for name, constructor in table.items()]
        for kind, table in tables.items()
    }


# -- from parts to a model -------------------------------------------------------------------------


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


def build(
    space: Space,
    *,
    latent: int = 32,
    likelihood: str | None = None,
    posterior: str = "normal",
    prior: str | None = None,
    network: str | None = None,
    encoder: str | None = None,
    decoder: str | None = None,
    given: Space | None = None,
) -> VAE:
    """Return a VAE for data of a space, built from names of the table.

    Args:
        space: describes the data (`load(...).space`).
        latent: number of latent units; of a spatial latent (conv:factor=8), its channels.
        likelihood: a name with options; by default `space.default_likelihood`.
        posterior: a name with options, such as "normal:limit=10".
        prior: a name with options; see `default_prior`.
        network: encoder and decoder, such as "residual:width=256,blocks=2"; see
            `space.default_network`.
        encoder, decoder: one of the two alone, such as "my_module:MyEncoder". It is called with the
            shapes (inputs, outputs), and with the number of conditions if there are any.
        given: the space of the conditions (`load(..., condition=...).given`).

    Raises:
        ValueError: a part is unknown or does not fit the data, or a user's module returns another
            shape.

    Example:
        >>> import numpy as np, vaestro as vs
        >>> vs.build(vs.load(np.eye(40, dtype="uint8")).space, latent=8).units
        (8,)
    """
    if not isinstance(latent, int) or latent < 1:
        raise ValueError(f"expected 1 or more latent units; got {latent}")
    network = space.default_network if network is None else network
    likelihood = space.default_likelihood if likelihood is None else likelihood
    likelihood_part = find("likelihood", likelihood)
    posterior_part = find("posterior", posterior)
    prior_part = find("prior", default_prior(posterior) if prior is None else prior)
    encoder_part = find("network", network if encoder is None else encoder)
    decoder_part = find("network", network if decoder is None else decoder)
    likelihood_class, options = class_of(likelihood_part), likelihood_part.options
    posterior_class, of_posterior = class_of(posterior_part), posterior_part.options
    likelihood_class.check(space)
    shape = _latent_shape(latent, space, encoder_part, decoder_part)
    units = posterior_class.latents(shape, **of_posterior)
    conditions = given.feature_shape[0] if given is not None else 0
    outputs = likelihood_class.outputs(space, **options)
    decoding = _network(decoder_part, units, outputs, conditions)
    if isinstance(decoding, Startable):
        decoding.start_at(likelihood_class.start(space, **options))
    parameters = posterior_class.outputs(units, **of_posterior)
    encoding = _network(encoder_part, space.feature_shape, parameters, conditions)
    over = prior_part(units, conditions, posterior_class.alphabet(**of_posterior))
    return VAE(
        posterior_part(space, encoding, units), likelihood_part(space, decoding), over, given
    )


def _latent_shape(latent: int, space: Space, *sides: Part[nn.Module]) -> tuple[int, ...]:
    """Return the shape of the latent on which encoder and decoder agree."""
    shapes = {
        side.constructor.latent_shape(latent, space.shape, **side.options)
        if isinstance(side.constructor, Shaped)
        else (latent,)
        for side in sides
    }
    if len(shapes) > 1:
        shapes.discard((latent,))  # a user's own module on one side follows the other
    if len(shapes) > 1:
        raise ValueError(f"expected one latent shape; got {' and '.join(map(str, sorted(shapes)))}")
    return shapes.pop()


def _network(
    part: Part[nn.Module], inputs: tuple[int, ...], outputs: tuple[int, ...], conditions: int
) -> nn.Module:
    """Return an encoder or decoder; a user's own is tried on two rows."""
    extra = (conditions,) if conditions else ()
    module = part(inputs, outputs, *extra)
    _check_module(module, part, inputs, outputs, conditions)
    return module


def _check_module(
    module: nn.Module,
    part: Part[nn.Module],
    inputs: tuple[int, ...],
    outputs: tuple[int, ...],
    given: int,
) -> None:
    """Raise ValueError if a user's own module does not map two rows to the expected shape."""
    if ":" not in part.name:
        return
    if not isinstance(module, nn.Module):
        raise ValueError(
            f"expected {part.name} to make a torch module; got {type(module).__name__}"
        )
    module.eval()
    arguments = [torch.zeros(2, *inputs)] + ([torch.zeros(2, given)] if given else [])
    try:
        with torch.no_grad():
            got = tuple(module(*arguments).shape)
    except Exception as error:  # a user's module may raise anything
        shapes = " and ".join(str(tuple(a.shape)) for a in arguments)
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(f"expected {part.name} to take {shapes}; got {reason}") from error
    finally:
        module.train()
    if got != (2, *outputs):
        raise ValueError(
            f"expected {part.name} to turn (N, {_commas(inputs)}) into (N, {_commas(outputs)}); "
            f"got {got} for two rows"
        )


def _commas(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))
