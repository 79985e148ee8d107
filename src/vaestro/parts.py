"""The table of parts: every name that a user can write, and the constructor that it calls.

`gaussian:variance=pixel` is a call. The name selects a constructor, and the options are its
keyword-only arguments, checked against its signature. `my_package.my_module:MyClass` selects a
user's own class in the same way. `build` supplies the positional arguments: the space, a network,
shapes, and for a model the `Plan` with its parts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, overload

import torch
import torch.nn as nn

from vaestro import (
    building,
    diffusion,
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
from vaestro.building import Made, Part, Plan, class_of
from vaestro.models import Model
from vaestro.signatures import Entry, checked, entry_of, options_of
from vaestro.spaces import Space
from vaestro.text import article, nearest, parse
from vaestro.user_code import import_object

TABLE: dict[str, Mapping[str, Callable[..., object]]] = {
    "model": {
        "vae": building.vae,
        "autoregressive": building.autoregressive,
        "independent": building.independent,
    },
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
        "former-conv": networks.FormerConvolutional,
        "former-conv3d": networks.FormerConvolutional3d,
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
    "denoiser": {"dense": diffusion.DenseDenoiser, "unet": diffusion.GridDenoiser},
    "sampler": diffusion.SAMPLERS,
}

# what a constructor of each kind returns; a user's own part is such a class or makes one
BASES: dict[str, type] = {
    "model": Model,
    "likelihood": likelihoods.Likelihood,
    "posterior": posteriors.Posterior,
    "prior": priors.Prior,
    "network": nn.Module,
    "objective": objectives.TrainingObjective,
    "gradient": gradients.Gradient,
    "schedule": schedules.Schedule,
    "penalty": penalties.Penalty,
    "recipe": dict,
    "optimizer": optimizers.Optimizer,
    "denoiser": diffusion.Denoiser,
    "sampler": diffusion.Sampler,
}

# beginning of the names of parts that only repeat runs in a former format
FORMER = "former-"


def default_prior(posterior: str) -> str:
    """Return the prior for a posterior when the user names none.

    Example:
        >>> default_prior("normal"), default_prior("categorical:codes=8")
        ('normal', 'categorical')
    """
    part = find("posterior", posterior)
    alphabet = class_of(part).alphabet(**part.options)
    return {0: "normal", 1: "bernoulli"}.get(alphabet, "categorical")


# Widths of the default networks, the largest first: the first is used whose network has at most
# WEIGHTS_EACH_VALUE weights for each value in the training data. 200 rows of the table breast
# cancer had test ELBOs of 13.7 (512 wide), 12.9 (128), 10.6 (64) and 9.2 (32).
WIDTHS = {"residual": (512, 256, 128), "conv": (16, 8), "conv3d": (16, 8), "conv1d": (32, 16, 8)}
WEIGHTS_EACH_VALUE = 4.0
FEWEST_UNITS, MOST_UNITS, CELLS_EACH_UNIT = 32, 128, 24


def default_latent(space: Space, network: str | None = None, rows: int | None = None) -> int:
    """Return the number of latent units when the user gives none: 32, or one for each cell if there
    are fewer; 1/24 of the cells of larger images, volumes and series, at most 128 and at most an
    eighth of the training data.

    Args:
        space: describes the data.
        network: its name and options, if the user named one; a spatial latent has 32 channels.
        rows: number of training data; None for many.

    Example:
        >>> from vaestro.spaces import RealSpace
        >>> default_latent(RealSpace((7,), (7,)))
        7
    """
    if network is not None and find("network", network).options.get("factor"):
        return FEWEST_UNITS
    units = space.cells // CELLS_EACH_UNIT if space.layout.grid else 0
    fewest = FEWEST_UNITS if space.ragged else min(FEWEST_UNITS, space.cells)
    most = MOST_UNITS if rows is None else min(MOST_UNITS, rows // 8)
    return max(fewest, min(most, units))


def default_network(space: Space, latent: int, rows: int | None = None) -> str:
    """Return the networks when the user names none: of the kind of the data's layout, and narrower
    for few data.

    Args:
        space: describes the data.
        latent: number of latent units.
        rows: number of training data; None for the widest network.

    Example:
        >>> from vaestro.spaces import RealSpace
        >>> space = RealSpace((7,), (7,))
        >>> default_network(space, 7), default_network(space, 7, rows=216)
        ('residual', 'residual:width=128')
    """
    name = space.default_network
    _widest, *narrower = WIDTHS.get(name, (0,))
    specs = [name, *(f"{name}:width={width}" for width in narrower)]
    if rows is None:
        return name
    most = WEIGHTS_EACH_VALUE * rows * space.cells
    return next((s for s in specs[:-1] if _weights(space, latent, s) <= most), specs[-1])


def _weights(space: Space, latent: int, network: str) -> int:
    """Return the number of weights of an encoder and a decoder, which are not allocated."""
    part = find("network", network)
    with torch.device("meta"):
        sides = part(space.feature_shape, (2, latent)), part((latent,), space.shape)
    return sum(p.numel() for side in sides for p in side.parameters())


def default_model(likelihood: str | None) -> str:
    """Return the model for a likelihood when the user names none.

    Example:
        >>> default_model("bernoulli"), default_model("autoregressive:latent=false")
        ('vae', 'autoregressive')
    """
    if likelihood is None:
        return "vae"
    without_latent = find("likelihood", likelihood).options.get("latent") is False
    return "autoregressive" if without_latent else "vae"


def default_gradient(posterior: str) -> str:
    """Return the gradient estimator for a posterior when the user names none.

    Example:
        >>> default_gradient("normal"), default_gradient("bernoulli")
        ('pathwise', 'gumbel-softmax')
    """
    discrete = class_of(find("posterior", posterior)).discrete
    return "gumbel-softmax" if discrete else "pathwise"


# -- from names to constructors --------------------------------------------------------------------


@overload
def find(kind: Literal["model"], spec: str) -> Part[Model]: ...
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
def find(kind: Literal["denoiser"], spec: str) -> Part[diffusion.Denoiser]: ...
@overload
def find(kind: Literal["sampler"], spec: str) -> Part[diffusion.Sampler]: ...
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
            another type; module:Class names something else. A user's own module is imported.

    Example:
        >>> find("schedule", "warmup:share=0.1").options
        {'share': 0.1}
    """
    if not isinstance(spec, str) or not spec:
        raise ValueError(f"expected the name of {article(kind)}; got {spec!r}")
    own, table = table is None, TABLE[kind] if table is None else table
    name, options = parse(spec)
    module, colon, attribute = name.partition(":")
    if name in table:
        constructor = table[name]
    elif colon and module in table:
        raise ValueError(f"expected options of {module} as key=value; got {attribute!r}")
    elif colon and own:
        constructor = import_object(kind, name, BASES[kind])
    else:
        offer = nearest(name, table) + ", or module:Class" * own
        raise ValueError(f"expected {article(kind)}: {offer}; got {name!r}")
    known = options_of(constructor)
    for key, value in options.items():
        if key not in known:
            offer = nearest(key, known) if known else "none"
            raise ValueError(f"expected an option of {name}: {offer}; got {key!r}")
        options[key] = checked(f"{name}:{key}", value, known[key].hint)
    return Part(kind, name, constructor, options)


def catalogue(
    tables: Mapping[str, Mapping[str, Callable[..., object]]] = TABLE,
) -> dict[str, list[Entry]]:
    """Return all parts of the table, or of other tables, by kind, without those that only repeat
    former runs.

    Example:
        >>> [entry["name"] for entry in catalogue()["optimizer"]]
        ['adamw', 'sgd']
    """
    return {
        kind: [
            entry_of(name, constructor)
            for name, constructor in table.items()
            if not name.startswith(FORMER)
        ]
        for kind, table in tables.items()
    }


# -- from parts to a model -------------------------------------------------------------------------


def build(
    space: Space,
    *,
    model: str | None = None,
    latent: int | None = None,
    likelihood: str | None = None,
    posterior: str = "normal",
    prior: str | None = None,
    network: str | None = None,
    encoder: str | None = None,
    decoder: str | None = None,
    given: Space | None = None,
) -> Model:
    """Return a model for data of a space, built from names of the table.

    Args:
        space: describes the data (`load(...).space`).
        model: vae (default), autoregressive or independent (no latent), or a user-defined
            "my_module:my_model", which is called with a `Plan`.
        latent: number of latent units; of a spatial latent (conv:factor=8), its channels; by
            default `default_latent`.
        likelihood: a name with options; by default `space.default_likelihood`.
        posterior, prior: names with options, such as "normal:limit=10"; see `default_prior`.
        network: encoder and decoder; by default `default_network`.
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
    latent = default_latent(space, network) if latent is None else latent
    if not isinstance(latent, int) or latent < 1:
        raise ValueError(f"expected 1 or more latent units; got {latent}")
    named = find("model", default_model(likelihood) if model is None else model)
    network = default_network(space, latent) if network is None else network
    likelihood = space.default_likelihood if likelihood is None else likelihood
    plan = Plan(
        space,
        given,
        latent,
        find("likelihood", likelihood),
        find("posterior", posterior),
        find("prior", default_prior(posterior) if prior is None else prior),
        find("network", network if encoder is None else encoder),
        find("network", network if decoder is None else decoder),
    )
    result = named(plan)
    if not isinstance(result, Model):
        raise ValueError(f"expected {named.name} to return a Model; got {type(result).__name__}")
    return result
