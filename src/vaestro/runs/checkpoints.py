"""Checkpoints: complete states in safetensors files.

Each file is written under another name first, so that an interruption leaves no partial file.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vaestro.files import Json
from vaestro.loop.state import Numbers, State
from vaestro.storage import writing


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file through a temporary file that is flushed to disk.

    >>> import torch
    >>> save_tensors(Path("a.safetensors"), {"x": torch.ones(2)}, {"numbers": '{"index": 5}'})
    >>> read_checkpoint(Path("a.safetensors"))[1]
    {'index': 5}
    """
    with writing(path) as part:
        try:
            save_file(tensors, part, metadata)
        except SafetensorError as error:
            if (number := re.search(r"os error (\d+)", str(error))) is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
        part.chmod(0o644)


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], Numbers]:
    """Return the tensors and the numbers of a complete state.

    Raises:
        ValueError: the file is damaged.

    >>> import torch
    >>> save_tensors(Path("b.safetensors"), {"x": torch.ones(2)}, {"numbers": "{}"})
    >>> read_checkpoint(Path("b.safetensors"))[0]
    {'x': tensor([1., 1.])}
    """
    try:
        with safe_open(path, framework="pt") as file:
            numbers: Numbers = json.loads(file.metadata()["numbers"])
            return {k: file.get_tensor(k) for k in file.keys()}, numbers  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            str(error).splitlines()[0] if str(error) else type(error).__name__
        ) from error


def newest_numbers(path: Path) -> dict[str, Json] | None:
    """Return the numbers of the newest readable checkpoint in a run's folder, or None.

    >>> newest_numbers(Path("nowhere")) is None
    True
    """
    for checkpoint in sorted((path / "checkpoints").glob("*.safetensors"), reverse=True):
        try:
            with safe_open(checkpoint, framework="pt") as file:
                numbers: dict[str, Json] = json.loads(file.metadata()["numbers"])
                return numbers
        except (SafetensorError, OSError, KeyError, TypeError, ValueError):
            continue
    return None


def newest_state(path: Path) -> tuple[tuple[State, Numbers] | None, list[str]]:
    """Return the newest readable checkpoint in a run's folder, and a note on each damaged one.

    >>> newest_state(Path("nowhere"))
    (None, [])
    """
    notes: list[str] = []
    for checkpoint in sorted((path / "checkpoints").glob("*.safetensors"), reverse=True):
        try:
            return read_checkpoint(checkpoint), notes
        except ValueError as error:
            notes.append(
                f"{checkpoint.name} is damaged ({error}); continuing from the one before it"
            )
    return None, notes
