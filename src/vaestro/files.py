"""Read the plain files of a run's folder, without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from vaestro.text import Spec, Value, parse

Json: TypeAlias = Any  # a value of JSON or YAML, as `json.loads` returns it

# the version of the part names in config.yaml and config.json, on which their meaning depends
FORMAT = 5
VERSIONED = (
    "gaussian",
    "laplace",
    "logistic",
    "student-t",
    "table",
    "negative-binomial",
    "zero-inflated",
    "discretized-logistic",
)


def current(options: Mapping[str, Json], written: int) -> dict[str, Json]:
    """Return the options of a model, translated from an earlier format to the present one.

    In format 1, the likelihoods in VERSIONED learned scales and dispersions slowly from a fixed
    start, and in formats 2 and 3 four times as slowly as now. `version=1` and `version=2` repeat
    this. Before format 3, every model was a VAE, also with the likelihood
    `autoregressive:latent=false`. Before format 4, a `table` had one scale for each column by
    default, and `conv` and `conv3d` named the networks `former-conv` and `former-conv3d`. Before
    format 5, `autoregressive` had no profile.

    Args:
        options: by name.
        written: the format in which they were written.

    >>> current({"likelihood": "gaussian"}, 1)
    {'model': 'vae', 'likelihood': 'gaussian:version=1'}
    """
    translated = dict(options)
    likelihood = translated.get("likelihood")
    if written < FORMAT and isinstance(likelihood, str):
        name, given = parse(likelihood)
        former: dict[str, Value] = {}
        if written < 4 and name == "table":
            former["scale"] = "column"
        if written < 4 and name in VERSIONED:
            former["version"] = 1 if written < 2 else 2
        if name == "autoregressive":
            former["profile"] = 0
        translated["likelihood"] = str(
            Spec(name, given | {key: v for key, v in former.items() if key not in given})
        )
    for side in ("network", "encoder", "decoder") if written < 4 else ():
        named = str(translated.get(side) or "")
        if named.partition(":")[0] in ("conv", "conv3d"):
            translated[side] = f"former-{named}"
    return {"model": "vae"} | translated if written < 3 else translated


def read_config(path: str | Path) -> dict[str, Json]:
    """Read a YAML file of options; options in an earlier format are translated.

    Raises:
        ValueError: there is no such file, or it is not a YAML file of options.
    """
    path = Path(path)
    try:
        config = yaml.safe_load(path.read_text())
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = (
            "does not exist" if isinstance(error, FileNotFoundError) else "cannot be read as YAML"
        )
        raise ValueError(f"expected a YAML file of options; got {path}, which {reason}") from error
    if not isinstance(config, dict):
        raise ValueError(
            f"expected a YAML file of options; got {path}, which contains {type(config).__name__}"
        )
    for key, value in config.items():
        # A few aliases of lists in lists can stand for more values than fit in memory.
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, (list, dict, set, tuple)):
                raise ValueError(
                    f"expected a YAML file of options with a value, or a list of values, for each; "
                    f"got {path}, where {key} contains {type(one).__name__}"
                )
    options = {
        str(k).replace("-", "_"): v
        for k, v in config.items()
        if v is not None and k not in ("vaestro", "format")
    }
    # The file of a run contains the program's version. A file without it is the user's own, in the
    # present format.
    return current(options, int(config.get("format") or 1)) if "vaestro" in config else options


def read_lines(path: Path) -> list[dict[str, Json]]:
    """Return the objects of a .jsonl file; an incomplete last line is left out."""
    lines = []
    for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines


def read_object(path: Path) -> dict[str, Json] | None:
    """Return the object of a .json file; None if the file is missing or damaged."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
