"""What the campaigns of faults share: a tiny run, its content, and damage to it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from vaestro import storage
from vaestro.cli import main

TINY = ("--latent", "2", "--network", "mlp:width=4", "--batch", "16", "--compile", "off")
TRAIN = ("train", "x.npy", "--run", "run", "--steps", "2", "--device", "cpu", "--quiet", *TINY)
NOBODY = 2**22 + 1  # larger than the number of any process


def make_data(place: Path) -> None:
    """Write the data of the tiny run."""
    np.save(place / "x.npy", np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32))


def content(place: Path) -> dict[str, str]:
    """Return a hash of each file under a folder."""
    return {
        str(f.relative_to(place)): hashlib.sha256(f.read_bytes()).hexdigest()
        for f in sorted(place.rglob("*"))
        if f.is_file()
    }


def results(run: Path) -> tuple[bytes, list[list[object]]]:
    """Return the weights and the metrics of a run, without times."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    timed = ("seconds", "examples_per_second")
    return (run / "model.safetensors").read_bytes(), [
        [v for k, v in line.items() if k not in timed] for line in lines
    ]


def snapshots(monkeypatch: pytest.MonkeyPatch, into: Path, *arguments: str) -> Iterator[Path]:
    """Run a command, and yield a folder for each state of the disk that a kill during it leaves:
    one before each file operation. Equal states are left out."""
    states: set[str] = set()

    def copy(operation: str, path: Path) -> None:
        place = into / f"{len(states):03d}-{operation}-{path.name}"
        shutil.copytree(".", place, symlinks=True)
        for lock in place.rglob("*lock*"):
            lock.write_text(json.dumps(json.loads(lock.read_text() or "{}") | {"process": NOBODY}))
        part = place / path.absolute().relative_to(Path.cwd())
        for file in place.rglob(f"*-{os.getpid()}-*.part"):
            file.rename(file.with_name(file.name.replace(f"-{os.getpid()}-", f"-{NOBODY}-")))
        part = part.with_name(part.name.replace(f"-{os.getpid()}-", f"-{NOBODY}-"))
        if operation == "write" and part.suffix == ".part":
            part.write_bytes(part.read_bytes()[: part.stat().st_size // 2])
        state = repr(sorted(content(place).items()))
        if state in states:
            shutil.rmtree(place)
        states.add(state)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "before", copy)
        patch.setattr("vaestro.runs.job.CHECKPOINT_SECONDS", 0.0)
        assert main(arguments) == 0
    yield from sorted(into.iterdir())


def stopping(number: int, stop: Callable[[], None]) -> Callable[[str, Path], None]:
    """Return a hook that calls `stop` at one file operation, after half of the file is written."""
    left = [number]

    def hook(operation: str, path: Path) -> None:
        left[0] -= 1
        if left[0] == -1:
            if operation == "write" and path.suffix == ".part":
                path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            stop()

    return hook


def failing(number: int, code: int) -> Callable[[str, Path], None]:
    """Return a hook at which one file operation fails, after half of the file is written."""

    def stop() -> None:
        raise OSError(code, os.strerror(code))

    return stopping(number, stop)


def damages(content: bytes, seed: int) -> dict[str, bytes]:
    """Return damaged forms of a file by the name of the damage."""
    r = np.random.default_rng(seed)
    flipped = bytearray(content)
    if content:
        flipped[r.integers(len(content))] ^= 1 << r.integers(8)
    cuts = {f"cut at {share}": content[: int(len(content) * share)] for share in (0.0, 0.3, 0.9)}
    forms = {"null": b"null", "list": b"[]", "object": b"{}", "binary": bytes(range(256))}
    return {"flip": bytes(flipped), "last byte": content[:-1], **cuts, **forms}


def wrong_types(text: str) -> dict[str, bytes]:
    """Return an object in JSON with each of its values of another type, by the name of the field,
    and without each."""
    value, forms = json.loads(text), {}
    for name in value:
        for other in ("text", 7, None, [], {"a": 1}):
            if type(other) is not type(value[name]):
                forms[f"{name} {other!r}"] = json.dumps(value | {name: other}).encode()
        forms[f"no {name}"] = json.dumps({k: v for k, v in value.items() if k != name}).encode()
    return forms
