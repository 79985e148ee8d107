"""Read the plain files of a run's folder, without torch: what a run and its report both read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from vaestro.text import Spec, parse

Json = Any  # a JSON value, as `json.loads` returns it

# of the names of parts in config.yaml and config.json: what a name means, and which weights it has
FORMAT = 3
FORMAT_1 = (
    "gaussian",
    "laplace",
    "logistic",
    "student-t",
    "table",
    "negative-binomial",
    "zero-inflated",
    "discretized-logistic",
)


def current(options: Mapping[str, Any], written: int) -> dict[str, Any]:
    """Return options of a model that were written in an earlier format, in the present one.

    In format 1, the likelihoods of FORMAT_1 learned scales and dispersions slowly from a fixed
    start: `version=1` repeats that. Before format 3, every model was a VAE, also with the
    likelihood `autoregressive:latent=false`.

    Args:
        options: options by name.
        written: the format.
    """
    found = dict(options)
    likelihood = found.get("likelihood")
    if written < 2 and isinstance(likelihood, str):
        name, options = parse(likelihood)
        if name in FORMAT_1 and "version" not in options:
            found["likelihood"] = str(Spec(name, options | {"version": 1}))
    return {"model": "vae"} | found if written < 3 else found


def read_config(path: str | Path) -> dict[str, Any]:
    """Read a YAML of options; those of a run made in an earlier format in today's words.

    Raises:
        ValueError: there is no such file, or it is not a YAML of options.
    """
    path = Path(path)
    try:
        config = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = (
            "does not exist" if isinstance(error, FileNotFoundError) else "cannot be read as YAML"
        )
        raise ValueError(f"expected a YAML file of options; got {path}, which {reason}") from error
    if not isinstance(config, dict):
        raise ValueError(
            f"expected a YAML file of options; got {path}, which holds {type(config).__name__}"
        )
    found = {
        str(k).replace("-", "_"): v
        for k, v in config.items()
        if v is not None and k not in ("vaestro", "format")
    }
    # A run's file names the program's version; a file without it is a person's own, in today's
    # words.
    return current(found, int(config.get("format") or 1)) if "vaestro" in config else found


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a .jsonl file; a last line that was cut short is left out."""
    lines = []
    for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines


def read_object(path: Path) -> dict[str, Any] | None:
    """Return the object of a .json file; None where there is none, or a damaged one."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
