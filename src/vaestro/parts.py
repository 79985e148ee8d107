"""THE table: every name that a user can write, and the constructor that it calls.

`gaussian:variance=pixel` is a call: the part before the first colon names a constructor, what
follows are its keyword-only arguments, checked against its signature.
`my_package.my_module:MyClass` reaches a user's own class the same way. Positional arguments (the
space, a network, shapes) are supplied by `build`.
"""

from __future__ import annotations

import importlib
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn as nn

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
from vaestro.signatures import checked, options_of, required_options
from vaestro.spaces import Kind, Space
from vaestro.text import Spec, article, nearest, parse

TABLE: dict[str, dict[str, Callable[..., Any]]] = {
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

MANY_LEVELS = 32  # from here on neighbouring levels are alike, and a logit for each is wasted


def default_likelihood(space: Space) -> str:
    """Name the likelihood that data of a space get when none is asked for.

    Raises:
        ValueError: there is none for this kind.
    """
    if space.kind is Kind.LEVELS:
        independent = (
            ":channels=independent"
            if space.missing and len(space.shape) == 3 and space.shape[0] > 1
            else ""
        )
        return "logistic-mixture" + independent if space.levels >= MANY_LEVELS else "categorical"
    names = {
        Kind.BINARY: "bernoulli",
        Kind.CATEGORY: "categorical",
        Kind.REAL: "gaussian",
        Kind.UNIT: "continuous-bernoulli",
        Kind.COUNT: "negative-binomial",
        Kind.TABLE: "table",
        Kind.TOKENS: "autoregressive",
    }
    if space.kind not in names:
        raise ValueError(f"expected a likelihood to be named for {space.kind} data; got none")
    return names[space.kind]


def _posterior(spec: str) -> tuple[type[posteriors.Posterior], Mapping[str, Any]]:
    part = find("posterior", spec)
    return typing.cast("type[posteriors.Posterior]", part.constructor), part.options


def default_prior(posterior: str) -> str:
    """Name the prior that a posterior gets when none is asked for."""
    kind, options = _posterior(posterior)
    return {0: "normal", 1: "bernoulli"}.get(kind.alphabet(**options), "categorical")


def default_gradient(posterior: str) -> str:
    """Name the gradient estimator that a posterior gets when none is asked for."""
    return "gumbel-softmax" if _posterior(posterior)[0].discrete else "pathwise"


def default_network(space: Space) -> str:
    """Name the networks that data of a space get when none are asked for: convolutions for
    photographs and larger images,
    over time for series, recurrent ones for texts."""
    if space.kind is Kind.TOKENS or space.series:
        return "conv1d" if space.series else "gru"
    image = len(space.shape) == 3 and min(space.shape[1:]) >= 28
    return (
        "conv"
        if image and (space.kind is not Kind.BINARY or min(space.shape[1:]) > 32)
        else "residual"
    )


@dataclass(frozen=True)
class Part:
    """Hold a constructor found in the table, or a user's own, with the options that were written
    beside it."""

    kind: str
    name: str
    constructor: Callable[..., Any]
    options: Mapping[str, Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the constructor with the options.

        Raises:
            ValueError: one that it needs was not given.
        """
        needed = required_options(self.constructor) - set(self.options) - set(kwargs)
        if needed:
            raise ValueError(
                f"expected {self.name}:{'=..., '.join(sorted(needed))}=...; got {self.name} "
                f"without it"
            )
        return self.constructor(*args, **{**self.options, **kwargs})

    def __str__(self) -> str:
        return str(Spec(self.name, dict(self.options)))


def find(kind: str, spec: str, table: Mapping[str, Callable[..., Any]] | None = None) -> Part:
    """Find the part that `spec` names, in the table's rows of a kind or in other rows.

    Raises:
        ValueError: there is no such part, or it has no such option, or an option's value is of
            another type.
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


def _imported(module: str, attribute: str) -> Callable[..., Any]:
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
    return typing.cast("Callable[..., Any]", found)


def catalogue(
    tables: Mapping[str, Mapping[str, Callable[..., Any]]] = TABLE,
) -> dict[str, list[dict[str, Any]]]:
    """Return the whole table, or others like it, for programs: {kind: [{name, options, needed,
    summary}]}, `needed` being
    the options that have no default."""
    return {
        kind: [
            {
                "name": name,
                "options": {key: default for key, (_, default) in options_of(constructor).items()},
                "needed": sorted(required_options(constructor)),
                "summary": (inspect.getdoc(constructor) or "").split("\n\n")[0].replace("\n", " "),
            }
            for name, constructor in table.items()
        ]
        for kind, table in tables.items()
    }


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
    """Build a VAE for data of a space from names of the table.

    Args:
        space: what the data are (`load(...).space`).
        latent: latent units; with a spatial latent (conv:factor=8) its channels.
        likelihood: by default by the kind of data: bernoulli for binary, logistic-mixture for many
            levels, gaussian for real ...
        posterior: a name, with options, such as "normal:limit=10".
        prior: likewise; by default the standard normal for real latents, and for discrete ones the
            uniform of their kind.
        network: encoder and decoder, such as "residual:width=256,blocks=2"; by default conv for
            larger images, else residual.
        encoder, decoder: one side alone, such as "my_module:MyEncoder", called with the shapes
            (inputs, outputs), and with the number of conditions as a third argument where there are
            any.
        given: the space of the conditions (`load(..., condition=...).given`).

    Raises:
        ValueError: a part is unknown, not true for such data, or a user's module gives another
            shape.
    """
    if not isinstance(latent, int) or latent < 1:
        raise ValueError(f"expected 1 or more latent units; got {latent}")
    network = default_network(space) if network is None else network
    likelihood = default_likelihood(space) if likelihood is None else likelihood
    named = {
        "likelihood": likelihood,
        "posterior": posterior,
        "prior": default_prior(posterior) if prior is None else prior,
    }
    parts = {kind: find(kind, spec) for kind, spec in named.items()}
    sides = {
        "encoder": find("network", network if encoder is None else encoder),
        "decoder": find("network", network if decoder is None else decoder),
    }
    likelihood_class = typing.cast("type[likelihoods.Likelihood]", parts["likelihood"].constructor)
    posterior_class = typing.cast("type[posteriors.Posterior]", parts["posterior"].constructor)
    likelihood_class.check(space)
    conditions = given.feature_shape[0] if given is not None else 0
    extra = (conditions,) if conditions else ()
    shapes = {
        getattr(side.constructor, "latent_shape", _vector)(latent, space.shape, **side.options)
        for side in sides.values()
    }
    if len(shapes) > 1:
        shapes.discard((latent,))  # a user's own module on one side follows the other
    if len(shapes) > 1:
        raise ValueError(f"expected one latent shape; got {' and '.join(map(str, sorted(shapes)))}")
    of_posterior = parts["posterior"].options
    units = posterior_class.latents(shapes.pop(), **of_posterior)
    options = parts["likelihood"].options
    outputs = likelihood_class.outputs(space, **options)
    decoding: nn.Module = sides["decoder"](units, outputs, *extra)
    _check_module(decoding, sides["decoder"], units, outputs, conditions)
    start_at = getattr(decoding, "start_at", None)
    if callable(start_at):
        start_at(likelihood_class.start(space, **options))
    wanted = posterior_class.outputs(units, **of_posterior)
    encoding: nn.Module = sides["encoder"](space.feature_shape, wanted, *extra)
    _check_module(encoding, sides["encoder"], space.feature_shape, wanted, conditions)
    over = parts["prior"](units, conditions, posterior_class.alphabet(**of_posterior))
    return VAE(
        parts["posterior"](space, encoding, units),
        parts["likelihood"](space, decoding),
        over,
        given,
    )


def _vector(latent: int, shape: tuple[int, ...], **_: object) -> tuple[int, ...]:
    return (latent,)


def _check_module(
    module: nn.Module, part: Part, inputs: tuple[int, ...], outputs: tuple[int, ...], given: int
) -> None:
    """Try a user's own module on two rows: a wrong shape is a mistake to be told before anything is
    trained."""
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
