"""Files of tensors (safetensors) that contain the hash of their content.

The hash is in the metadata of the file, so that file and hash are renamed together. It is computed
from the tensors in memory; files of versions without a hash are read without a check.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vaestro.records import Damaged
from vaestro.storage import in_utf8, writing


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a file of tensors with the hash of tensors and metadata.

    Raises:
        OSError: it cannot be written.

    >>> save_tensors(Path("a.safetensors"), {"x": torch.ones(2)}, {"format": "pt"})
    >>> read_tensors(Path("a.safetensors"))
    ({'x': tensor([1., 1.])}, {'format': 'pt'})
    """
    with writing(path) as part:
        try:
            save_file(tensors, part, {**metadata, "sha256": _hash(tensors, metadata)})
        except SafetensorError as error:
            if (number := re.search(r"os error (\d+)", str(error))) is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
        _sort_metadata(part)
        part.chmod(0o644)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a file.

    Raises:
        FileNotFoundError: there is no file.
        Damaged: it is not a file of tensors, or its hash is another one.

    >>> read_tensors(Path("nowhere.safetensors"))
    Traceback (most recent call last):
    FileNotFoundError: ...
    """
    if not path.exists():
        raise FileNotFoundError(2, os.strerror(2), str(path))
    try:
        with in_utf8(path) as name, safe_open(name, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Damaged(f"{path} is damaged: {reason}") from error
    written = metadata.pop("sha256", None)
    if written is not None and written != _hash(tensors, metadata):
        raise Damaged(
            f"{path} is damaged: its hash is another one, so it was changed after it was written"
        )
    return tensors, metadata


def _sort_metadata(path: Path) -> None:
    """Sort the metadata of a file, which safetensors writes in a random order, so that equal
    content is equal bytes. The format is 8 bytes with the size of a header in JSON, then the
    header, then the tensors."""
    with path.open("rb+") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(text) <= size, "the same values, and other spaces"
        file.seek(8)
        file.write(text.ljust(size))


def _hash(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Return the hash of tensors with their names, types and shapes, and of metadata."""
    names = sorted(tensors)
    described = [(n, str(tensors[n].dtype), list(tensors[n].shape)) for n in names]
    digest = hashlib.sha256(json.dumps([dict(metadata), described], sort_keys=True).encode())
    for name in names:
        digest.update(tensors[name].detach().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
