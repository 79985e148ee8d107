"""THE table: every name that a user can write, and the constructor that it calls.

`gaussian:variance=pixel` is a call: the part before the first colon names a constructor, what follows are its
keyword-only arguments, checked against its signature. `my_package.my_module:MyClass` reaches a user's own class the
same way. Positional arguments (the space, a network, shapes) are supplied by `build`.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch.nn as nn
import yaml

from vaestro import gradients, likelihoods, networks, objectives, optimizers, posteriors, priors
from vaestro.densities import Kind, Space
from vaestro.model import VAE

TABLE: dict[str, dict[str, Callable[..., Any]]] = {
    "likelihood": {
        "bernoulli": likelihoods.Bernoulli,
        "gaussian": likelihoods.Gaussian,
        "categorical": likelihoods.Categorical,
    },
    "posterior": {"normal": posteriors.Normal},
    "prior": {"normal": priors.Normal},
    "network": {"residual": networks.Residual, "mlp": networks.MLP, "linear": networks.linear},
    "objective": {"elbo": objectives.elbo_objective, "iwae": objectives.iwae_objective},
    "gradient": {"pathwise": gradients.Pathwise},
    "schedule": {"constant": objectives.constant, "warmup": objectives.warmup},
    "optimizer": {"adamw": optimizers.AdamW, "sgd": optimizers.SGD},
}

DEFAULT_LIKELIHOOD = {Kind.BINARY: "bernoulli", Kind.LEVELS: "categorical", Kind.CATEGORY: "categorical", Kind.REAL: "gaussian"}


@dataclass(frozen=True)
class Part:
    """Hold a constructor found in the table, or a user's own, with the options that were written beside it."""

    kind: str
    name: str
    constructor: Callable[..., Any]
    options: Mapping[str, Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the constructor with the options."""
        return self.constructor(*args, **{**self.options, **kwargs})

    def __str__(self) -> str:
        return self.name + (":" + ",".join(f"{k}={_written(v)}" for k, v in self.options.items()) if self.options else "")


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def parse_options(text: str) -> dict[str, Any]:
    """Read `key=value,key=value` with values as in YAML.

    Raises:
        ValueError: a piece is not key=value, or a key stands twice.
    """
    options: dict[str, Any] = {}
    for piece in filter(None, text.split(",")):
        key, equals, value = piece.partition("=")
        key = key.strip().replace("-", "_")
        if not equals or not key.isidentifier():
            raise ValueError(f"expected options as key=value,key=value; got {piece!r}")
        if key in options:
            raise ValueError(f"expected each option once; got {key} twice")
        try:
            # YAML reads 1e-3 as text; Python's float knows better.
            options[key] = yaml.safe_load(value) if value else ""
            if isinstance(options[key], str):
                options[key] = float(value)
        except ValueError:
            pass
        except yaml.YAMLError:
            options[key] = value
    return options


def nearest(name: str, known: typing.Iterable[str]) -> str:
    """Say which names there are, the nearest one first."""
    known = list(known)
    close = difflib.get_close_matches(name, known, 1, 0.4)
    return f"{close[0]!r} (one of {', '.join(known)})" if close else f"one of {', '.join(known)}"


def find(kind: str, spec: str) -> Part:
    """Find the part that `spec` names.

    Raises:
        ValueError: there is no such part, or it has no such option, or an option's value is of another type.
    """
    if not isinstance(spec, str) or not spec:
        raise ValueError(f"expected the name of {_a(kind)}; got {spec!r}")
    name, _, rest = spec.partition(":")
    table = TABLE[kind]
    if name in table:
        constructor = table[name]
    elif rest and "=" not in rest.split(":")[0]:
        attribute, _, rest = rest.partition(":")
        name, constructor = f"{name}:{attribute}", _imported(name, attribute)
    else:
        raise ValueError(f"expected {_a(kind)}: {nearest(name, table)}, or module:Class; got {name!r}")
    options = parse_options(rest)
    known = options_of(constructor)
    for key, value in options.items():
        if key not in known:
            offer = nearest(key, known) if known else "none"
            raise ValueError(f"expected an option of {name}: {offer}; got {key!r}")
        options[key] = checked(f"{name}:{key}", value, known[key][0])
    return Part(kind, name, constructor, options)


def _a(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeio" else f"a {kind}"


def _imported(module: str, attribute: str) -> Callable[..., Any]:
    if not all(piece.isidentifier() for piece in module.split(".")):
        raise ValueError(f"expected module:Class; got {module!r} as the module")
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except Exception as error:  # a user's module may raise anything while it is imported
        first = (str(error) or "no reason given").splitlines()[0]
        raise ValueError(f"expected a module that can be imported; got {module!r} ({type(error).__name__}: {first})") from error
    if found is None:
        raise ValueError(f"expected {module} to have {attribute}; got a module without it")
    if not callable(found):
        raise ValueError(f"expected {module}:{attribute} to be a class or function; got {type(found).__name__}")
    return typing.cast("Callable[..., Any]", found)


def options_of(constructor: Callable[..., Any]) -> dict[str, tuple[Any, Any]]:
    """Return the keyword-only arguments of a constructor as {name: (type, default)}."""
    target = constructor.__init__ if inspect.isclass(constructor) else constructor  # type: ignore[misc]
    hints = typing.get_type_hints(target)
    return {
        p.name: (hints.get(p.name, Any), None if p.default is p.empty else p.default)
        for p in inspect.signature(target).parameters.values()
        if p.kind is p.KEYWORD_ONLY
    }


def checked(name: str, value: Any, hint: Any) -> Any:
    """Return the value as the type that the signature asks for."""
    choices = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    words = []
    for choice in choices:
        if typing.get_origin(choice) is Literal:
            if value in typing.get_args(choice):
                return value
            words += [repr(word) for word in typing.get_args(choice)]
        elif choice is bool and isinstance(value, bool):
            return value
        elif choice is int and isinstance(value, (int, float)) and not isinstance(value, bool) and float(value).is_integer():
            return int(value)
        elif choice is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        elif choice is str and isinstance(value, (str, int, float)) and not isinstance(value, bool):
            return str(value)
        elif choice is type(None) and value in (None, "none"):
            return None
        elif choice is Any:
            return value
        if choice in (bool, int, float, str):
            words.append({bool: "true or false", int: "a whole number", float: "a number", str: "text"}[choice])
    raise ValueError(f"expected {name} to be {' or '.join(words)}; got {value!r}")


def catalogue() -> dict[str, list[dict[str, Any]]]:
    """Return the whole table for programs: {kind: [{name, options, summary}]}."""
    return {
        kind: [
            {
                "name": name,
                "options": {key: default for key, (_, default) in options_of(constructor).items()},
                "summary": (inspect.getdoc(constructor) or "").split("\n\n")[0].replace("\n", " "),
            }
            for name, constructor in table.items()
        ]
        for kind, table in TABLE.items()
    }


def build(
    space: Space,
    *,
    latent: int = 32,
    likelihood: str | None = None,
    posterior: str = "normal",
    prior: str = "normal",
    network: str = "residual",
) -> VAE:
    """Build a VAE for data of a space from names of the table.

    Args:
        space: what the data are (`load(...).space`).
        latent: latent units.
        likelihood: by default bernoulli for binary data, gaussian for real, categorical for levels and categories.
        posterior, prior, network: names, with options, such as "residual:width=256,blocks=2".

    Raises:
        ValueError: a part is unknown, or not true for such data.
    """
    if not isinstance(latent, int) or latent < 1:
        raise ValueError(f"expected 1 or more latent units; got {latent}")
    if likelihood is None:
        if space.kind not in DEFAULT_LIKELIHOOD:
            raise ValueError(f"expected a likelihood to be named for {space.kind} data; got none")
        likelihood = DEFAULT_LIKELIHOOD[space.kind]
    parts = {k: find(k, v) for k, v in (("likelihood", likelihood), ("posterior", posterior), ("prior", prior), ("network", network))}
    units = (latent,)
    body, chosen = parts["network"], parts["likelihood"]
    likelihood_class = typing.cast("type[likelihoods.Likelihood]", chosen.constructor)
    likelihood_class.check(space)
    decoder: nn.Module = body(units, likelihood_class.outputs(space, **chosen.options))
    start_at = getattr(decoder, "start_at", None)
    if callable(start_at):
        start_at(likelihood_class.start(space, **chosen.options))
    posterior_class = typing.cast("type[posteriors.Posterior]", parts["posterior"].constructor)
    encoder: nn.Module = body(space.feature_shape, posterior_class.outputs(units))
    return VAE(parts["posterior"](space, encoder, units), chosen(space, decoder), parts["prior"](units))
