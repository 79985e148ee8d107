"""How an evaluation is done: in pieces that can be shared out, kept, and gone on with.

A piece is some data in a row, and what it yields depends on (seed, place of its first datum) alone.
So one process or many, at once or after an interruption, arrive at the same digits.
"""

from __future__ import annotations

import hashlib
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from zipfile import BadZipFile

import numpy as np
import torch

import vaestro
from vaestro.data import Rows
from vaestro.data.writers import writing
from vaestro.evaluation.records import Evaluation
from vaestro.models import LatentModel, Model, with_latent
from vaestro.spaces import Batch

SAVE_SECONDS = 10.0


@dataclass(frozen=True, eq=False)
class Job:
    """Hold what every method is told.

    Args:
        model: in evaluation mode, on `device`.
        rows: data of the model's space, with one binarisation for good.
        k: draws for each datum.
        seed: of the draws.
        device: where.
    """

    model: Model
    rows: Rows
    k: int
    seed: int
    device: torch.device

    @property
    def latent_model(self) -> LatentModel:
        """Return the model.

        Raises:
            ValueError: it has no latent.
        """
        return with_latent(self.model)

    @property
    def given(self) -> tuple[str, ...]:
        """Name what p(x) is conditioned on."""
        return () if self.model.given is None else self.model.given.names

    def batch(self, first: int, size: int) -> Batch:
        """Return up to `size` data from the place `first` on."""
        return self.rows.batch(slice(first, min(first + size, len(self.rows))), self.device)


class Work(ABC):
    """Describe one method at work on the data of a job.

    Args:
        job: model and data.
    """

    name: ClassVar[str]
    columns: int  # numbers for each datum

    def __init__(self, job: Job) -> None:
        self.job = job
        self.rows = len(job.rows)  # data to go through
        self.chunk = 1  # data in a piece
        self.cost = 1.0  # of a datum, in passes of one latent through the decoder
        self.seconds = 0.0

    @abstractmethod
    def compute(self, first: int) -> np.ndarray:
        """Return the numbers of a piece, (columns, data in it), float64."""

    @abstractmethod
    def finish(self, table: np.ndarray, done: Evaluation) -> Evaluation:
        """Return the evaluation with what the whole table (columns, rows) says; `done` holds what
        earlier methods found."""


class Store:
    """Keep finished pieces in a folder, so that the same evaluation goes on where it was stopped.

    Args:
        folder: where; None keeps nothing.
        key: names the evaluation: whatever its digits depend on.
        rank: of this process; each writes files of its own.
    """

    def __init__(self, folder: Path | None, key: str, rank: int) -> None:
        self.folder, self.key, self.rank = folder, key, rank
        self._saved = time.monotonic()

    def read(self, work: Work) -> dict[int, np.ndarray]:
        """Return the pieces that any process finished, by their first datum; files that are damaged
        are passed over."""
        found: dict[int, np.ndarray] = {}
        for file in self._files(work.name):
            with (
                suppress(OSError, ValueError, KeyError, EOFError, BadZipFile),
                np.load(file, allow_pickle=False) as held,
            ):
                pieces = {int(f): held["table"][:, i : i + n] for f, i, n in held["places"]}
                found |= {
                    f: p
                    for f, p in pieces.items()
                    if p.shape == (work.columns, min(work.chunk, work.rows - f))
                }
        return found

    def save(self, work: Work, pieces: dict[int, np.ndarray], *, now: bool = False) -> None:
        """Write this process's pieces, every few seconds or at once."""
        if (
            self.folder is None
            or not pieces
            or not (now or time.monotonic() - self._saved > SAVE_SECONDS)
        ):
            return
        self.folder.mkdir(exist_ok=True)
        ends = np.cumsum([p.shape[1] for p in pieces.values()])
        places = [
            (f, end - p.shape[1], p.shape[1])
            for (f, p), end in zip(pieces.items(), ends, strict=True)
        ]
        with (
            writing(self.folder / f"{self.key}.{work.name}.{self.rank}.npz") as part,
            part.open("wb") as file,
        ):
            np.savez(
                file,
                table=np.concatenate(list(pieces.values()), 1),
                places=np.array(places, np.int64),
            )
        self._saved = time.monotonic()

    def clear(self) -> None:
        """Remove what was kept: the evaluation is whole."""
        for file in self._files("*"):
            file.unlink(missing_ok=True)
        if self.folder is not None:
            with suppress(OSError):
                self.folder.rmdir()  # unless another evaluation keeps its own there

    def _files(self, name: str) -> list[Path]:
        return [] if self.folder is None else sorted(self.folder.glob(f"{self.key}.{name}.*.npz"))


def key_of(job: Job, methods: Sequence[Any]) -> str:
    """Name an evaluation by whatever its digits depend on: weights, data, methods with their
    options, draws and seed."""
    digest = hashlib.sha256(
        json.dumps(
            [
                vaestro.__version__,
                job.rows.sha256(),
                [str(m) for m in methods],
                job.k,
                job.seed,
                str(job.device.type),
            ]
        ).encode()
    )
    for name, tensor in sorted(job.model.state_dict().items()):
        digest.update(name.encode())
        digest.update(
            tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()[:16]


def perform(
    works: Sequence[Work], store: Store, rank: int = 0, processes: int = 1
) -> Iterator[tuple[float, list[np.ndarray] | None]]:
    """Go through all pieces: yield the share of the cost that is done with None, and at the end (1,
    the table of each work)."""
    total = sum(w.cost * w.rows for w in works)
    tables, done = [], 0.0
    for work in works:
        pieces = store.read(work)
        owned = [
            f
            for i, f in enumerate(range(0, work.rows, work.chunk))
            if i % processes == rank and f not in pieces
        ]
        done += work.cost * sum(p.shape[1] for p in pieces.values())
        try:
            for first in owned:
                start = time.perf_counter()
                pieces[first] = work.compute(first)
                work.seconds += time.perf_counter() - start
                store.save(work, pieces)
                done += work.cost * pieces[first].shape[1] * processes
                yield min(done / total, 1.0), None
        finally:
            store.save(work, pieces, now=bool(owned))
        tables.append(_gathered(work, pieces, processes))
    yield 1.0, tables


def _gathered(work: Work, pieces: dict[int, np.ndarray], processes: int) -> np.ndarray:
    """Put the pieces of all processes together; one that several hold is the same in each."""
    table = np.zeros((work.columns + 1, work.rows))
    for first, piece in pieces.items():
        table[:-1, first : first + piece.shape[1]] = piece
        table[-1, first : first + piece.shape[1]] = 1
    if processes > 1:
        shared = torch.from_numpy(table).to(work.job.device)
        torch.distributed.all_reduce(shared)
        table = shared.cpu().numpy()
    return table[:-1] / table[-1]
