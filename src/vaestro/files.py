"""Options in a YAML file, and their formats in earlier versions; without torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import yaml

import vaestro
from vaestro.storage import refuse_special
from vaestro.text import InputError, Spec, Value, parse

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
    refuse_special(path, "save its content in a file first")
    try:
        config = yaml.safe_load(path.read_bytes())
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = (
            "does not exist" if isinstance(error, FileNotFoundError) else "cannot be read as YAML"
        )
        raise ValueError(f"expected a YAML file of options; got {path}, which {reason}") from error
    if not isinstance(config, dict):
        raise ValueError(
            f"expected a YAML file of options; got {path}, which contains {type(config).__name__}"
        )
    if "vaestro" in config:
        refuse_newer(path, config)
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
    written = config.get("format") or 1
    if not isinstance(written, int):
        raise ValueError(f"expected a number as the format of {path}; got {written!r}")
    return current(options, written) if "vaestro" in config else options


def refuse_newer(path: Path, record: Mapping[str, Json]) -> None:
    """Raise InputError if a later version of the program wrote a file, in a format that this one
    does not know.

    >>> refuse_newer(Path("config.json"), {"format": 1})
    """
    written = record.get("format")
    if isinstance(written, int) and written > FORMAT:
        version = record.get("vaestro")
        raise InputError(
            f"{path} was written by Vaestro {version} in format {written}, and this is Vaestro "
            f"{vaestro.__version__}, which reads formats up to {FORMAT}: upgrade Vaestro"
        )
