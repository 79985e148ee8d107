"""Checkpoints: complete states of a training in files of tensors."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

from vaestro.files import Json
from vaestro.loop.state import Numbers, State
from vaestro.records import Damaged
from vaestro.schemas import NUMBERS, fault
from vaestro.storage import in_utf8
from vaestro.tensor_files import read_tensors


def read_checkpoint(path: Path) -> tuple[State, Numbers]:
    """Return the tensors and the numbers of a complete state.

    Raises:
        Damaged: the file is damaged.

    >>> import torch
    >>> from vaestro.tensor_files import save_tensors
    >>> save_tensors(Path("b.safetensors"), {"x": torch.ones(2)}, {"numbers": "{}"})
    >>> read_checkpoint(Path("b.safetensors"))
    Traceback (most recent call last):
    vaestro.records.Damaged: b.safetensors is damaged: index of its numbers is missing
    """
    tensors, metadata = read_tensors(path)
    return tensors, _numbers(path, metadata)


def newest_state(folder: Path) -> tuple[tuple[Path, State, Numbers] | None, list[str]]:
    """Return the newest readable checkpoint in a run's folder with its file, and a note on each
    damaged one.

    >>> newest_state(Path("nowhere"))
    (None, [])
    """
    notes: list[str] = []
    for checkpoint in _files(folder):
        try:
            return (checkpoint, *read_checkpoint(checkpoint)), notes
        except (Damaged, OSError) as error:
            notes.append(f"{error}; continuing from the one before it")
    return None, notes


def newest_numbers(folder: Path) -> Numbers | None:
    """Return the numbers of the newest checkpoint in a run's folder whose header can be read, or
    None. Its tensors are not read.

    >>> newest_numbers(Path("nowhere")) is None
    True
    """
    for checkpoint in _files(folder):
        try:
            with in_utf8(checkpoint) as name, safe_open(name, framework="np") as file:
                return _numbers(checkpoint, dict(file.metadata() or {}))
        except (SafetensorError, OSError, ValueError, TypeError):
            continue
    return None


def _files(folder: Path) -> list[Path]:
    """Return the checkpoints of a run, from the newest to the oldest."""
    return sorted((folder / "checkpoints").glob("*.safetensors"), reverse=True)


def _numbers(path: Path, metadata: dict[str, str]) -> Numbers:
    try:
        numbers: Json = json.loads(metadata.get("numbers", ""))
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{path} is damaged: it has no numbers") from error
    if wrong := fault(numbers, NUMBERS):
        name, _, rest = wrong.partition(" ")
        raise Damaged(f"{path} is damaged: {name} of its numbers {rest}")
    checked: Numbers = numbers
    return checked
