"""Start a run from the weights of another.

The new data are transformed by the space of the old run (`data.matching`), so equal data are equal
inputs. Parts are compared by name, options and shapes of their weights, never by position.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from vaestro.data.matching import Origin
from vaestro.data.source_options import as_source, parse_source
from vaestro.files import Json
from vaestro.loop import Training
from vaestro.models import Model
from vaestro.new_categories import NEW_CATEGORIES, grown, load_whole, whole_weights
from vaestro.options import Config
from vaestro.parts import find
from vaestro.records import Damaged, read_object, read_record
from vaestro.signatures import options_of
from vaestro.spaces import Column, Space, restored_space
from vaestro.tensor_files import read_tensors
from vaestro.text import Value

PARTS = ("model", "likelihood", "posterior", "network", "encoder", "decoder")
OF_PART = {
    "posterior": ("posterior", "network", "encoder"),
    "likelihood": ("likelihood", "network", "decoder"),
    "prior": ("prior",),
}


def take_over(training: Training, model: Model, old: Config, new: Config, run: str) -> list[str]:
    """Copy the weights of another run's model into a training and its average.

    A prior of another name, options or shape starts anew.

    Args:
        training: the new training, whose space is that of the old run.
        model: the old run's model.
        old: options of the old model: latent, likelihood, posterior, prior, network, encoder,
            decoder.
        new: the same options of the new model.
        run: the name of the old run.

    Returns:
        Notes on parts that start anew or have other options.

    Raises:
        ValueError: a part other than the prior differs, or a frozen one does.

    >>> import numpy as np, vaestro as vs
    >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    >>> old = vs.train(x, run="old", latent=2, steps=2, network="linear")
    >>> other = {**old.config, "prior": "mixture:components=2"}
    >>> data, model = old.data(), old.model()
    >>> new = vs.build(data.space, latent=2, network="linear", prior=other["prior"])
    >>> training = vs.training(new, vs.Objective(), data, steps=1)
    >>> take_over(training, model, old.config, other, "old")[1]
    'the prior starts anew: mixture:components=2 (old: normal)'
    """
    weights = grown(model, training.model.given)
    differing = _differing(weights, whole_weights(training.model, training.model.state_dict()))
    if NEW_CATEGORIES in training.settings.freeze:
        _check_grown(old, new, differing)
    other_prior = _named(old, "prior") != _named(new, "prior") or any(
        name.startswith("prior.") for name in differing
    )
    changed = [n for n in (*PARTS, "prior") if _options(old, n) != _options(new, n)]
    rest = [name for name in differing if not name.startswith("prior.")]
    _check_parts(old, new, run, changed, rest)
    _check_frozen(training.settings.freeze, old, new, run, changed, other_prior)
    kept = {k: v for k, v in weights.items() if not (other_prior and k.startswith("prior."))}
    for each in (training.model, training.average):
        load_whole(each, kept)
    notes = [f"starts from the weights of {run}"]
    if NEW_CATEGORIES in training.settings.freeze:
        notes.append("only the weights of the new categories are trained")
    if other_prior:
        notes.append(f"the prior starts anew: {new['prior']} ({run}: {old['prior']})")
    notes += [
        f"{name} is {new[name]} ({run}: {old[name]}): the weights are the same"
        for name in changed
        if name != "prior"
    ]
    return notes


def _differing(old: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the weights that only one model has, or that differ in shape."""
    return sorted(
        name
        for name in old.keys() | new.keys()
        if name not in old or name not in new or old[name].shape != new[name].shape
    )


def _check_parts(
    old: Config, new: Config, run: str, changed: Sequence[str], rest: Sequence[str]
) -> None:
    """Raise ValueError if a part other than the prior differs.

    Args:
        old, new: the options of the old model and of the new one.
        run: the name of the old run.
        changed: the parts with other options.
        rest: the weights of these parts that differ.
    """
    expected = f"expected a model of the same parts in {run}, but for the prior"
    for name in ("latent", *PARTS):
        if _named(old, name) != _named(new, name):
            raise ValueError(
                f"{expected}; got {_option(new, name)}, not {_option(old, name)} (without it, "
                f"{run}'s is taken)"
            )
    versions = [n for n in changed if _version(old, n) != _version(new, n)]
    if not rest and not versions:
        return
    at_fault = next((n for n in versions or changed if n != "prior"), None)
    if at_fault is None:
        raise ValueError(f"{expected}; got one that differs in {rest[0]}")
    raise ValueError(
        f"{expected}; got {_option(new, at_fault)}, not {_option(old, at_fault)} (without it, "
        f"{run}'s is taken)"
    )


def _check_grown(old: Config, new: Config, differing: Sequence[str]) -> None:
    """Raise ValueError if weights depend on the number of conditions in an undeclared way."""
    same = all(_options(old, name) == _options(new, name) for name in (*PARTS, "prior"))
    if not differing or not same:
        return
    raise ValueError(
        f"expected the prior normal, conditional or mixture and networks mlp, residual, linear or "
        f"conv, to learn new categories alone; got other weights that depend on the conditions "
        f"({differing[0]}): train without --init on the data of both"
    )


def _check_frozen(
    frozen: Sequence[str],
    old: Config,
    new: Config,
    run: str,
    changed: Sequence[str],
    other_prior: bool,
) -> None:
    """Raise ValueError if a frozen part has other options, or is a prior that starts anew."""
    for part in OF_PART if NEW_CATEGORIES in frozen else frozen:
        at_fault = next((n for n in OF_PART.get(part, ()) if n in changed), None)
        if at_fault is None and part == "prior" and other_prior:
            at_fault = "prior"
        if at_fault is not None:
            raise ValueError(
                f"expected a model of the same parts in {run}, since the {part} is frozen; got "
                f"{_option(new, at_fault)}, not {_option(old, at_fault)}"
            )


def stored_origin(folder: Path, run: str | None) -> Origin | None:
    """Return the origin of a run that started from another.

    Args:
        folder: of the run.
        run: the run that it started from; None if it did not.

    Returns:
        The spaces of the run; None if it did not start from another, or has no weights yet.

    Raises:
        Damaged: its files are damaged.

    >>> stored_origin(Path("example"), None) is None
    True
    """
    if not run or not (folder / "model.safetensors").exists():
        return None
    if (config := read_record(folder / "config.json")) is None:
        return None
    tensors, _ = read_tensors(folder / "model.safetensors")
    arrays = {k: v.numpy() for k, v in tensors.items() if k.startswith("space.")}
    return Origin(run, *_spaces_in(folder, config, arrays))


def stored_columns(folder: Path) -> tuple[Column, ...] | None:
    """Return the columns of the table that a run was trained on, with conditions; None for other
    data, or before config.json is written.

    >>> stored_columns(Path("example")) is None
    True
    """
    config = read_object(folder / "config.json")
    if config is None or not config["space"].get("columns"):
        return None
    return Origin(str(folder), *_spaces_in(folder, config, {})).columns


def _spaces_in(
    folder: Path, config: Mapping[str, Json], arrays: Mapping[str, np.ndarray]
) -> tuple[Space, Space | None]:
    """Return the spaces of a run.

    Raises:
        Damaged: config.json has no spaces that this version can read.
    """
    try:
        return spaces_of(config, arrays)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise Damaged(
            f"{folder / 'config.json'} is damaged: it does not describe data "
            f"({type(error).__name__}: {error})"
        ) from error


def stored_source(folder: Path, source: str) -> str:
    """Return the source of a run. A run of an earlier version reads the real values of an array
    without limits, which it did not have.

    >>> stored_source(Path("example"), "x.npy")
    'x.npy'
    """
    space = (read_object(folder / "config.json") or {}).get("space") or {}
    if space.get("kind") != "real" or "limits" in space:
        return source
    name, options = parse_source(source)
    return as_source(name, {"low": "none", "high": "none", **options})


def spaces_of(
    config: Mapping[str, Json], arrays: Mapping[str, np.ndarray]
) -> tuple[Space, Space | None]:
    """Return the spaces of the data and of the conditions that config.json describes.

    Args:
        config: config.json.
        arrays: the arrays of model.safetensors whose names start with "space.".

    >>> import numpy as np, vaestro as vs
    >>> space = vs.load(np.eye(40, dtype="uint8")).space
    >>> arrays = {f"space.{name}": values for name, values in space.arrays().items()}
    >>> str(spaces_of({"space": space.scalars()}, arrays)[0])
    'binary (40,)'
    """
    given = config.get("given")
    fitted = {k.removeprefix("space."): v for k, v in arrays.items()}
    space = restored_space(config["space"], fitted)
    return space, None if given is None else restored_space(given, {})


def _named(options: Config, name: str) -> Json:
    """Return an option without the options of the part that it names."""
    value = options.get(name)
    return value if value is None or name == "latent" else find(_kind(name), value).name


def _options(options: Config, name: str) -> dict[str, Value]:
    """Return all options of a part, including defaults; none if the part is not given."""
    value = options.get(name)
    if value is None:
        return {}
    part = find(_kind(name), value)
    defaults = {key: default for key, (_, default) in options_of(part.constructor).items()}
    return defaults | dict(part.options)


def _version(options: Config, name: str) -> Value:
    """Return the version of a part, if it has one."""
    return _options(options, name).get("version")


def _kind(name: str) -> str:
    return "network" if name in ("encoder", "decoder") else name


def _option(options: Config, name: str) -> str:
    """Return an option as text for the command line."""
    value = options.get(name)
    return f"no --{name}" if value is None else f"--{name} {value}"
