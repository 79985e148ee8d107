"""Write and read checkpoints: complete states as safetensors files, written aside and renamed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vaestro.data.writers import writing
from vaestro.loop.state import Numbers


def write_text(path: Path, text: str) -> None:
    """Write a text file aside and rename it."""
    with writing(path) as part:
        part.write_text(text)


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file aside, flush it to disk and rename it."""
    with writing(path) as part:
        save_file(tensors, part, metadata)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.chmod(0o644)


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], Numbers]:
    """Read a complete state.

    Raises:
        ValueError: it is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            numbers: Numbers = json.loads(file.metadata()["numbers"])
            return {k: file.get_tensor(k) for k in file.keys()}, numbers  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            str(error).splitlines()[0] if str(error) else type(error).__name__
        ) from error


def newest_numbers(path: Path) -> dict[str, Any] | None:
    """Return the numbers of the newest readable checkpoint in a run's folder, or None."""
    for checkpoint in sorted((path / "checkpoints").glob("*.safetensors"), reverse=True):
        try:
            with safe_open(checkpoint, framework="pt") as file:
                numbers: dict[str, Any] = json.loads(file.metadata()["numbers"])
                return numbers
        except (SafetensorError, OSError, KeyError, TypeError, ValueError):
            continue
    return None
