"""The pieces of an evaluation: distributed over processes, stored, and resumed.

A piece is a range of data. Its result depends only on (seed, place of its first datum). The digits
are therefore the same for any number of processes, and after an interruption.
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
from typing import ClassVar
from zipfile import BadZipFile

import numpy as np
import torch

import vaestro
from vaestro.data import Rows
from vaestro.evaluation.records import Evaluation
from vaestro.models import LatentModel, Model, with_latent
from vaestro.spaces import Batch
from vaestro.storage import clear_leftovers, make_folder, remove, writing

SAVE_SECONDS = 10.0


@dataclass(frozen=True, eq=False)
class Job:
    """The input of every method of evaluation.

    Args:
        model: in evaluation mode, on `device`.
        rows: data in the model's space, with a fixed binarisation.
        k: number of draws per datum.
        seed: seed of the draws.
        device: device of the model.
        train: the training rows, for methods that compare with them; None without.

    >>> import vaestro as vs
    >>> data = vs.load(np.eye(40, dtype="uint8"))
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> job = Job(model.eval(), data.train, 10, 0, torch.device("cpu"))
    >>> len(job.batch(30, 10))
    6
    """

    model: Model
    rows: Rows
    k: int
    seed: int
    device: torch.device
    train: Rows | None = None

    @property
    def latent_model(self) -> LatentModel:
        """Return the model.

        Raises:
            ValueError: it has no latent.
        """
        return with_latent(self.model)

    @property
    def given(self) -> tuple[str, ...]:
        """Return the names of the conditions of p(x)."""
        return () if self.model.given is None else self.model.given.names

    def batch(self, first: int, size: int) -> Batch:
        """Return up to `size` data, starting at the place `first`."""
        return self.rows.batch(slice(first, min(first + size, len(self.rows))), self.device)


class Work(ABC):
    """One method of evaluation, applied to the data of a job.

    Args:
        job: model and data.
    """

    name: ClassVar[str]
    columns: int  # number of numbers per datum

    def __init__(self, job: Job) -> None:
        self.job = job
        self.rows = len(job.rows)  # number of data
        self.chunk = 1  # number of data in a piece
        self.cost = 1.0  # of a datum, in decoder passes of one latent
        self.seconds = 0.0

    @abstractmethod
    def compute(self, first: int) -> np.ndarray:
        """Return the numbers of the piece that starts at `first`, (columns, data), float64."""

    @abstractmethod
    def finish(self, table: np.ndarray, done: Evaluation) -> Evaluation:
        """Return the evaluation with the results of this method added.

        Args:
            table: the numbers of all pieces, (columns, rows).
            done: the results of earlier methods.
        """


class Store:
    """Finished pieces in a folder, from which the same evaluation can be resumed.

    Args:
        folder: the folder; None stores nothing.
        key: identifies the evaluation; see `key_of`.
        rank: rank of this process; each process writes separate files.

    >>> import vaestro as vs
    >>> data = vs.load(np.eye(40, dtype="uint8"))
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> job = Job(model.eval(), data.train, 10, 0, torch.device("cpu"))
    >>> from vaestro.evaluation.bounds import Bounds
    >>> store, work = Store(Path("evaluating"), "key", 0), Bounds(job)
    >>> store.save(work, {0: work.compute(0)}, now=True)
    >>> list(store.read(work))
    [0]
    """

    def __init__(self, folder: Path | None, key: str, rank: int) -> None:
        self.folder, self.key, self.rank = folder, key, rank
        self._saved = time.monotonic()

    def read(self, work: Work) -> dict[int, np.ndarray]:
        """Return the finished pieces of all processes by their first datum. Damaged files are
        ignored."""
        finished: dict[int, np.ndarray] = {}
        for file in self._files(work.name):
            with (
                suppress(OSError, ValueError, KeyError, EOFError, BadZipFile),
                np.load(file, allow_pickle=False) as archive,
            ):
                pieces = {int(f): archive["table"][:, i : i + n] for f, i, n in archive["places"]}
                finished |= {
                    f: p
                    for f, p in pieces.items()
                    if p.shape == (work.columns, min(work.chunk, work.rows - f))
                }
        return finished

    def save(self, work: Work, pieces: dict[int, np.ndarray], *, now: bool = False) -> None:
        """Write the pieces of this process: now, or if the last time was SAVE_SECONDS ago."""
        if (
            self.folder is None
            or not pieces
            or not (now or time.monotonic() - self._saved > SAVE_SECONDS)
        ):
            return
        make_folder(self.folder)
        ends = np.cumsum([p.shape[1] for p in pieces.values()])
        places = [
            (f, end - p.shape[1], p.shape[1])
            for (f, p), end in zip(pieces.items(), ends, strict=True)
        ]
        with (
            # another process with the same evaluation may end it and remove the folder
            suppress(FileNotFoundError),
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
        """Remove the stored pieces of a complete evaluation."""
        for file in self._files("*"):
            remove(file)
        if self.folder is not None:
            clear_leftovers(self.folder)
            with suppress(OSError):
                self.folder.rmdir()  # fails if the folder has pieces of another evaluation

    def _files(self, name: str) -> list[Path]:
        return [] if self.folder is None else sorted(self.folder.glob(f"{self.key}.{name}.*.npz"))


def key_of(job: Job, methods: Sequence[object]) -> str:
    """Return a hash of everything that the digits of an evaluation depend on: weights, data,
    methods with their options, draws and seed.

    >>> import vaestro as vs
    >>> data = vs.load(np.eye(40, dtype="uint8"))
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> job = Job(model.eval(), data.train, 10, 0, torch.device("cpu"))
    >>> len(key_of(job, ["elbo"]))
    16
    """
    digest = hashlib.sha256(
        json.dumps(
            [
                vaestro.__version__,
                job.rows.sha256(),
                *([] if job.train is None else [job.train.fingerprint()]),
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
    """Compute all pieces. Yields (share of the work done, None), and finally (1, the table of each
    work).

    >>> import vaestro as vs
    >>> data = vs.load(np.eye(40, dtype="uint8"))
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> job = Job(model.eval(), data.train, 10, 0, torch.device("cpu"))
    >>> from vaestro.evaluation.bounds import Bounds
    >>> share, tables = list(perform([Bounds(job)], Store(None, "", 0)))[-1]
    >>> share, tables[0].shape
    (1.0, (7, 36))
    """
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
    """Return the table of all pieces, summed over processes. A piece that several processes have is
    the same in each."""
    table = np.zeros((work.columns + 1, work.rows))
    for first, piece in pieces.items():
        table[:-1, first : first + piece.shape[1]] = piece
        table[-1, first : first + piece.shape[1]] = 1
    if processes > 1:
        shared = torch.from_numpy(table).to(work.job.device)
        torch.distributed.all_reduce(shared)
        table = shared.cpu().numpy()
    return table[:-1] / table[-1]
