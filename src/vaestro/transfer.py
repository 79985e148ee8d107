"""Start a run from another: its space, its options of the model, and its weights.

The new data are read into the space of the old run (`data.matching`), so that the weights meet what
they were trained on. Parts are compared by name, by options and by the shapes of their weights,
never by position.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from vaestro.data.matching import Origin
from vaestro.loop import Training
from vaestro.models import LatentModel
from vaestro.parts import find
from vaestro.signatures import options_of
from vaestro.spaces import Space, restored_space

PARTS = ("likelihood", "posterior", "network", "encoder", "decoder")
OF_PART = {
    "posterior": ("posterior", "network", "encoder"),
    "likelihood": ("likelihood", "network", "decoder"),
    "prior": ("prior",),
}


def take_over(
    training: Training,
    model: LatentModel,
    own: Mapping[str, Any],
    asked: Mapping[str, Any],
    run: str,
) -> list[str]:
    """Copy the weights of another run's model into a training, its average too; another prior
    starts anew.

    Args:
        training: the new training, over the old run's space.
        model: the old run's model.
        own: the options of the old model: latent, likelihood, posterior, prior, network, encoder,
            decoder.
        asked: the same of the new one.
        run: the name of the old run.

    Returns:
        Notes on what starts anew or differs in options.

    Raises:
        ValueError: another part than the prior differs, or a frozen one does.
    """
    weights, mine = model.state_dict(), training.model.state_dict()
    differing = sorted(
        k
        for k in weights.keys() | mine.keys()
        if k not in weights or k not in mine or weights[k].shape != mine[k].shape
    )
    other_prior = _named(own, "prior") != _named(asked, "prior") or any(
        k.startswith("prior.") for k in differing
    )
    rest = [k for k in differing if not k.startswith("prior.")]
    wanted = f"expected a model of the same parts in {run}, but for the prior"
    for name in ("latent", *PARTS):
        if _named(own, name) != _named(asked, name):
            raise ValueError(
                f"{wanted}; got {_option(asked, name)}, not {_option(own, name)} (without it, "
                f"{run}'s is taken)"
            )
    changed = [n for n in (*PARTS, "prior") if _options(own, n) != _options(asked, n)]
    repaced = [
        n
        for n in changed
        if (_options(own, n) or {}).get("version") != (_options(asked, n) or {}).get("version")
    ]
    if rest or repaced:
        at_fault = next((n for n in repaced or changed if n != "prior"), None)
        got = (
            f"one that differs in {rest[0]}"
            if at_fault is None
            else f"{_option(asked, at_fault)}, not {_option(own, at_fault)}"
        )
        raise ValueError(
            f"{wanted}; got {got} (without it, {run}'s is taken)"
            if at_fault
            else f"{wanted}; got {got}"
        )
    for frozen in training.settings.freeze:
        at_fault = next((n for n in OF_PART.get(frozen, ()) if n in changed), None)
        if at_fault is not None or (frozen == "prior" and other_prior):
            at_fault = at_fault or "prior"
            got = f"{_option(asked, at_fault)}, not {_option(own, at_fault)}"
            raise ValueError(
                f"expected a model of the same parts in {run}, since the {frozen} is frozen; got "
                f"{got}"
            )
    kept = {k: v for k, v in weights.items() if not (other_prior and k.startswith("prior."))}
    for each in (training.model, training.average):
        each.load_state_dict(each.state_dict() | kept)
    notes = [f"starts from the weights of {run}"]
    if other_prior:
        notes.append(f"the prior starts anew: {asked['prior']}, where {run} has {own['prior']}")
    notes += [
        f"{name} is {asked[name]}, where {run} has {own[name]}: the weights are the same"
        for name in changed
        if name != "prior"
    ]
    return notes


def stored_origin(folder: Path, run: str | None) -> Origin | None:
    """Return what the data of a run are that started from another; None for other runs, and before
    its weights were written.

    Raises:
        ValueError: its files are damaged.
    """
    if not run or not (folder / "model.safetensors").exists():
        return None
    try:
        config = json.loads((folder / "config.json").read_text())
        with safe_open(folder / "model.safetensors", framework="np") as file:
            arrays = {k: file.get_tensor(k) for k in file.keys() if k.startswith("space.")}  # noqa: SIM118
        return Origin(run, *spaces_of(config, arrays))
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"expected readable weights in {folder}; got damaged ones "
            f"({str(error).splitlines()[0]})"
        ) from error


def spaces_of(
    config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> tuple[Space, Space | None]:
    """Return the spaces of data and of conditions that config.json describes, from the arrays of
    model.safetensors."""
    given = config.get("given")
    fitted = {k.removeprefix("space."): v for k, v in arrays.items()}
    space = restored_space(config["space"], fitted)
    return space, None if given is None else restored_space(given, {})


def _named(options: Mapping[str, Any], name: str) -> Any:
    """Return an option without the options of the part that it names."""
    value = options.get(name)
    return value if value is None or name == "latent" else find(_kind(name), value).name


def _options(options: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """Return the options of a part, the ones left at their defaults too."""
    value = options.get(name)
    if value is None:
        return None
    part = find(_kind(name), value)
    return {key: default for key, (_, default) in options_of(part.constructor).items()} | dict(
        part.options
    )


def _kind(name: str) -> str:
    return "network" if name in ("encoder", "decoder") else name


def _option(options: Mapping[str, Any], name: str) -> str:
    value = options.get(name)
    return f"no --{name}" if value is None else f"--{name} {value}"
