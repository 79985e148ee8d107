"""From the options of a run to its model, objective and training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from vaestro.data import Data
from vaestro.diagnosis.remedies import Trial
from vaestro.evaluation import in_space
from vaestro.files import Json
from vaestro.latent import check_conditions
from vaestro.likelihoods.counts import LATENT, OBSERVED, library_condition
from vaestro.loop import Training, training
from vaestro.models import Model
from vaestro.objectives import Objective, Schedule
from vaestro.options import Config, defaults, names, normalised
from vaestro.parts import (
    build,
    default_gradient,
    default_latent,
    default_model,
    default_network,
    default_prior,
    find,
)
from vaestro.penalties import Capacity, FreeBits, RateTerm
from vaestro.processes import count
from vaestro.randomness import derive, numpy_generator
from vaestro.runs.run import Run
from vaestro.spaces import Space
from vaestro.text import Spec, as_number, parse

WITHOUT_LATENT = ("autoregressive", "independent")  # models
# options without a meaning for them
OF_LATENT = (
    "latent",
    "posterior",
    "prior",
    "encoder",
    "gradient",
    "free_bits",
    "capacity",
    "penalty",
    "aggressive",
)


def prepare(data: Data, asked: Mapping[str, Json]) -> tuple[Training, Config]:
    """Return the training of a run, and its resolved options.

    Args:
        data: the data to train on.
        asked: every option by name; None if it depends on the data.

    Raises:
        ValueError: the options do not fit each other or the data.

    >>> import numpy as np, vaestro as vs
    >>> data = vs.load(np.random.default_rng(0).normal(size=(100, 3)))
    >>> _, resolved = prepare(data, defaults() | {"steps": 2})
    >>> resolved["likelihood"], resolved["prior"]
    ('gaussian', 'normal')
    """
    _refuse_latent_options(asked)
    seed = asked["seed"]
    if seed < 0:
        raise ValueError(f"expected a seed of 0 or more; got {seed!r}")
    objective = make_objective(asked)
    asked = _sized(data, asked)
    model = _initialised(data.space, data.given, asked)
    for split in (data.train, data.valid, data.test):
        if split.stream is None:
            check_conditions(model, split)
    prepared = training(
        model,
        objective,
        data,
        **{name: asked[name] for name in names("training") if asked[name] is not None},
    )
    otherwise = {
        "model": default_model(asked["likelihood"]),
        "likelihood": data.space.default_likelihood,
        "prior": default_prior(asked["posterior"]),
        "gradient": default_gradient(asked["posterior"]),
    }
    chosen = {name: asked[name] for name in otherwise if asked[name] is not None}
    resolved = {**asked, **otherwise, **chosen} | {
        "source": data.source,
        "epochs": None,
        "steps": prepared.steps,
        "minutes": None,
        "batch": prepared.batch,
        "lr": prepared.lr,
        "clip": prepared.settings.clip,
        "ema": prepared.ema,
        "compile": prepared.compile,
    }
    if model.capabilities.exact:
        resolved |= dict.fromkeys(OF_LATENT)
    return prepared, resolved


def with_library(asked: Mapping[str, Json]) -> Config:
    """Return options with the library of a likelihood of counts among the conditions.

    Args:
        asked: every option by name.

    >>> asked = defaults() | {"likelihood": "poisson:library=depth"}
    >>> with_library(asked)["condition"]
    ['depth']
    """
    library = None if asked["likelihood"] is None else _library(asked["likelihood"])
    conditions = list(asked["condition"] or ())
    if library is None or (name := library_condition(library)) in conditions:
        return dict(asked)
    return {**asked, "condition": [*conditions, name]}


def with_size_factors(asked: Mapping[str, Json], data: Data) -> tuple[Config, list[str]]:
    """Return options whose likelihood reads a library with a mean of about 1 as size factors, and a
    note if it does.

    Args:
        asked: every option by name.
        data: the data to train on.

    >>> import numpy as np, vaestro as vs
    >>> data = vs.load(np.random.default_rng(0).normal(size=(100, 3)))
    >>> with_size_factors(defaults(), data)[1]
    []
    """
    text = asked["likelihood"]
    library = None if text is None else _library(text)
    rows = data.train
    if library is None or rows.given is None or rows.given_space is None:
        return dict(asked), []
    spec, name = parse(text), library_condition(library)
    columns = rows.given_space.outward(rows.given, exact=False).columns
    if "mean" in spec.options or name not in columns or library == OBSERVED:
        return dict(asked), []
    values = np.asarray(columns[name].data, np.float64)
    if not 0.5 <= values.mean() <= 2 or (values == np.rint(values)).all():
        return dict(asked), []
    read = str(Spec(spec.name, {**spec.options, "mean": "softplus"}))
    kept = Spec(spec.name, {**spec.options, "mean": "softmax"})
    note = (
        f"{name} has a mean of {values.mean():.2g} and is read as size factors: they multiply a "
        f"softplus of each output (--likelihood {kept} reads it as a total)"
    )
    return {**asked, "likelihood": read}, [note]


def _library(likelihood: str) -> str | None:
    """Return the condition that a likelihood names as library, if any."""
    name = find("likelihood", likelihood).options.get("library")
    return None if name in (None, LATENT) else str(name)


def _sized(data: Data, asked: Mapping[str, Json]) -> Config:
    """Return options with the size of the latent and the networks, which follow from the data if
    they are not given."""
    network, latent = asked["network"], asked["latent"]
    latent = default_latent(data.space, network, len(data.train)) if latent is None else latent
    if network is None:
        network = default_network(data.space, latent, len(data.train))
    return {**asked, "latent": latent, "network": network}


def _refuse_latent_options(asked: Mapping[str, Json]) -> None:
    """Raise ValueError if options of the latent were given for a model that has none."""
    named = find("model", asked["model"] or default_model(asked["likelihood"]))
    if named.name not in WITHOUT_LATENT:
        return
    for name in OF_LATENT:
        if asked[name] not in (None, defaults()[name]):
            raise ValueError(
                f"expected no --{name.replace('_', '-')} for the model {named.name}, which "
                f"has no latent; got {asked[name]}"
            )


def untrained(model: Model, data: Data, config: Mapping[str, Json]) -> Model:
    """Return a run's model before the first step.

    Args:
        model: the run's model.
        data: the run's data.
        config: the run's resolved options.

    >>> import numpy as np, vaestro as vs
    >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    >>> run = vs.train(x, run="example", latent=2, steps=2)
    >>> untrained(run.model(), run.data(), defaults() | run.config).units
    (2,)
    """
    device = next(model.parameters()).device
    first = _initialised(model.space, model.given, config).to(device)
    if first.start_rows:
        order = numpy_generator(config["seed"], "start").permutation(len(data.train))
        rows = data.train.pick(np.sort(order[: first.start_rows])).fixed()
        first.start(in_space(rows, model.space).batch(slice(0, len(rows)), device))
    return first.eval()


def _initialised(space: Space, given: Space | None, config: Mapping[str, Json]) -> Model:
    """Return a model with its initial weights, a function of the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(config["seed"], "weights"))
        return build(space, given=given, **{name: config[name] for name in names("model")})


def starting_model(run: str | Path, *, trust: bool = False) -> tuple[Model, Config]:
    """Return the model of a run to start from, and the options of the model.

    Args:
        run: the folder.
        trust: whether code that the folder names may run.

    Raises:
        ValueError: it is not a run's folder, or has no weights yet.
        Untrusted: the folder names code that may not run.

    >>> import numpy as np, vaestro as vs
    >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    >>> starting_model(vs.train(x, run="second", latent=2, steps=2).path)[1]["latent"]
    2
    """
    opened = Run(run, trust=trust)
    model = opened.model()
    config = opened.config
    return model, {k: config[k] for k in names("model") if config.get(k) is not None}


def trial(data: Data) -> Trial | None:
    """Return a function from options to the number of weights of a run on the same data.

    It prepares that run, and raises ValueError if the options are invalid. None is returned if a
    second run cannot be prepared: for streams, and with several processes.

    >>> import numpy as np, vaestro as vs
    >>> data = vs.load(np.random.default_rng(0).normal(size=(100, 3)))
    >>> trial(data)({"latent": 2, "network": "linear", "steps": 2})
    28
    """
    if data.train.stream is not None or count() > 1:
        return None

    def weights(config: Mapping[str, Json]) -> int:
        asked = defaults() | normalised({k: v for k, v in config.items() if v is not None})
        return sum(p.numel() for p in prepare(data, asked)[0].model.parameters())

    return weights


def make_objective(asked: Mapping[str, Json]) -> Objective:
    """Return the objective that options name.

    Args:
        asked: every option by name.

    Raises:
        ValueError: the weight of the KL is negative or infinite, or a part is unknown.

    >>> make_objective(defaults() | {"objective": "iwae:k=8"}).k
    8
    """
    number = as_number(asked["beta"])
    beta = asked["beta"] if number is None else number
    if isinstance(beta, float) and not 0 <= beta < math.inf:
        raise ValueError(
            f"expected beta as a number of 0 or more or a schedule such as warmup:share=0.1; got "
            f"{beta}"
        )
    gradient = find("gradient", asked["gradient"] or default_gradient(asked["posterior"]))()
    return find("objective", asked["objective"])(
        gradient,
        beta=find("schedule", beta)() if isinstance(beta, str) else Schedule(beta),
        rate=_rate_term(asked),
        penalties=[find("penalty", spec)() for spec in asked["penalty"] or ()],
        aggressive=asked["aggressive"],
    )


def _rate_term(asked: Mapping[str, Json]) -> RateTerm | None:
    """Return the term that replaces the rate in the loss: free bits ("0.5:group=all,smooth=0.1"), a
    capacity ("to=25,share=0.5"), or None."""
    bits, most = asked["free_bits"], asked["capacity"]
    if bits is not None and most is not None:
        raise ValueError("expected free bits or a capacity; got both")
    if most is not None:
        return find("capacity", f"capacity:{most}", {"capacity": Capacity})()
    if bits is None:
        return None
    number, options = parse(str(bits))
    nats = as_number(number)
    if nats is None:
        raise ValueError(f"expected free bits as NATS or NATS:group=all,smooth=0.1; got {bits!r}")
    spec = str(Spec("free-bits", options))
    return find("free bits", spec, {"free-bits": FreeBits})(nats)
