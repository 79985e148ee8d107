"""Read the plain files of a run's folder, without torch: what a run and its report both read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml


def read_config(path: str | Path) -> dict[str, Any]:
    """Read a YAML of options.

    Raises:
        ValueError: there is no such file, or it is not a YAML of options.
    """
    path = Path(path)
    try:
        config = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = "does not exist" if isinstance(error, FileNotFoundError) else "cannot be read as YAML"
        raise ValueError(f"expected a YAML file of options; got {path}, which {reason}") from error
    if not isinstance(config, dict):
        raise ValueError(f"expected a YAML file of options; got {path}, which holds {type(config).__name__}")
    return {str(k).replace("-", "_"): v for k, v in config.items() if v is not None and k != "vaestro"}


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
