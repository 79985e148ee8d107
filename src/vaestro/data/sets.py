"""Data for training: the rows of a split, their batches, and the three splits of a data set."""

from __future__ import annotations

import hashlib
import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
import torch

from vaestro.data.passes import expect
from vaestro.data.raw import Json
from vaestro.data.series.record import ends_of
from vaestro.data.sparse import Sparse
from vaestro.frames import Frame
from vaestro.notebook import Card, Shown
from vaestro.randomness import Window, binarised, derive
from vaestro.spaces import Batch, Space
from vaestro.text import InputError
from vaestro.tokens import Ragged, Texts

HELD_BYTES = 2**28  # largest size of the rows of a stream in memory, in bytes
DRAWN = 2**26  # number of cells that one random generator binarises


class StreamedRows(ABC):
    """Interface of rows that are read from shards on access, in blocks."""

    row_bytes: int
    buffer: int  # number of rows of a window, in which rows are shuffled
    waited: float  # seconds spent waiting for prefetched rows

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, rows: np.ndarray | slice) -> np.ndarray:
        """Return rows (...,) as an array (..., *shape[1:])."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Return (rows, ...)."""

    @property
    @abstractmethod
    def dtype(self) -> np.dtype:
        """Return the type of the values."""

    @abstractmethod
    def block_sizes(self, index: np.ndarray | None) -> np.ndarray:
        """Return the number of rows in each block, (blocks,).

        Args:
            index: the row numbers to count, in rising order; None for all rows.
        """

    @abstractmethod
    def spread(self, n: int, index: np.ndarray | None) -> np.ndarray:
        """Return the positions of n rows within few blocks, in rising order.

        Args:
            n: number of rows.
            index: the row numbers to choose from, in rising order; None for all rows.
        """

    @abstractmethod
    def expect(self, windows: Sequence[tuple[Window, np.ndarray]]) -> None:
        """Start to prefetch the rows of the next windows, in this order; discard all other
        windows."""

    @abstractmethod
    def start(self, workers: int | None) -> None:
        """Set the number of threads that decode; None for one per processor."""

    @abstractmethod
    def release(self) -> None:
        """Discard prefetched rows, and stop the threads."""

    @abstractmethod
    def unread(self) -> tuple[int, str]:
        """Return the number of unreadable rows so far, and a description of some of them."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a string that changes with the data, without reading the rows."""


Values: TypeAlias = np.ndarray | Ragged | Sparse | StreamedRows


@dataclass(frozen=True, eq=False)
class Rows:
    """Hold one split: its rows, the mask of their observed cells, and their conditions.

    Args:
        values: codes or values, (M, *X), possibly memory-mapped; or Ragged codes of tokens, Sparse
            counts or a stream. With `channels_last` images are (M, H, W, C). With `dynamic` they
            are 8-bit grey levels that are binarised at every access.
        space: of a batch.
        name: of the split. It seeds a fixed binarisation.
        dynamic: whether to binarise at every access, with P(1) = level / 255 exactly.
        attributes: other values of each row, by name, each (N,).
        index: the row numbers in `values`, (N,); None for all. Splits of large data share one
            array.
        observed: mask of the observed cells, (M, *X); None if all cells are observed.
        given: codes of the conditions, (N, columns of `given_space`); None without.
        given_space: the space of the conditions.
        channels_last: whether images are (H, W, C) and become (C, H, W) when gathered.
        notes: changes that were made to the source when it was read, one line each.

    >>> import numpy as np, vaestro as vs
    >>> rows = vs.load(np.random.default_rng(0).normal(size=(100, 3))).train
    >>> rows.gather(np.array([[0, 1], [2, 3]])).x.shape
    torch.Size([2, 2, 3])
    """

    values: Values
    space: Space
    name: str
    dynamic: bool = False
    attributes: dict[str, np.ndarray] = field(default_factory=dict)
    index: np.ndarray | None = None
    observed: np.ndarray | None = None
    given: np.ndarray | None = None
    given_space: Space | None = None
    channels_last: bool = False
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.values) if self.index is None else len(self.index)

    @property
    def ragged(self) -> Ragged | None:
        """Return the values of texts; None for other data."""
        return self.values if isinstance(self.values, Ragged) else None

    @property
    def stream(self) -> StreamedRows | None:
        """Return the values of a stream; None for other data."""
        return self.values if isinstance(self.values, StreamedRows) else None

    def sizes(self) -> np.ndarray | None:
        """Return the number of tokens of each text, including its end, (N,); None for other
        data."""
        rows = slice(None) if self.index is None else self.index
        return None if self.ragged is None else self.ragged.sizes(rows)

    @property
    def row_bytes(self) -> int:
        """Return the size of a row of `values` in bytes, at least 1."""
        stream = self.stream
        return (self.values[:1].nbytes if stream is None else stream.row_bytes) or 1

    def _take(self, array: Values, rows: np.ndarray | slice) -> np.ndarray:
        chosen = rows if self.index is None else self.index[rows]
        if not isinstance(chosen, slice):
            expect(array, chosen)
        return np.asarray(array[chosen])

    def read(self, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Return rows as codes or values, (..., *X)."""
        return self.channels_first(self._take(self.values, rows))

    def mask(self) -> np.ndarray | None:
        """Return the mask of the observed cells, (N, *X); None if all cells are observed."""
        return None if self.observed is None else self._take(self.observed, slice(None))

    def channels_first(self, values: np.ndarray) -> np.ndarray:
        """Return rows of `values` with the channels of images before the other axes, (..., *X)."""
        if not self.channels_last:
            return values
        space = self.space
        return np.ascontiguousarray(space.layout.inward(values, space.shape, space.outside))

    def _batch(
        self, values: np.ndarray, rows: np.ndarray | slice, device: torch.device | str
    ) -> Batch:
        observed = (
            None if self.observed is None else _tensor(self._take(self.observed, rows), device)
        )
        given = None
        if self.given is not None and self.given_space is not None:
            codes = _tensor(self.given[rows], device)
            features = self.given_space.features(
                codes.flatten(0, -2), None, torch.get_default_dtype()
            )
            given = features.unflatten(0, codes.shape[:-1])
        return Batch(_tensor(values, device), observed, given, checked=True)

    def gather(
        self,
        index: np.ndarray,
        device: torch.device | str = "cpu",
        *,
        seed: int = 0,
        stream: int = 0,
        place: tuple[int, int] | None = None,
    ) -> Batch:
        """Gather the batches of several steps at once: row numbers (S, B) -> values (S, B, *X).

        Args:
            index: row numbers of S steps of B rows.
            device: of the batch.
            seed, stream: seeds of a dynamic binarisation; `stream` identifies the steps.
            place: (first row, number of rows) of each batch in the global batch of its step.
        """
        values = self.read(index)
        if self.dynamic:
            start, rows = place or (0, index.shape[1])
            places = slice(start, start + index.shape[1])
            if rows > index.shape[1]:
                local, values = values, np.zeros((len(index), rows, *values.shape[2:]), np.uint8)
                values[:, places] = local
            values = binarised(values, seed, "binarise", self.name, stream)[:, places]
        batch = self._batch(values, index, device)
        sizes = self.sizes()
        return (
            batch if sizes is None else replace(batch, widths=tuple(sizes[index].max(1).tolist()))
        )

    def fixed(self, out: np.ndarray | None = None) -> Rows:
        """Return the rows with one binarisation, which is the same in every evaluation and does not
        depend on the run's seed.

        Args:
            out: uint8 (N, *X), to which the binarisation is written; by default a new array.
        """
        if not self.dynamic:
            return self
        out = np.empty((len(self), *self.space.shape), np.uint8) if out is None else out
        for i, part in enumerate(_slices(len(self), max(1, DRAWN // self.space.cells))):
            binarised(self.read(part), 0, "binarise", self.name, *([i] if i else []), out=out[part])
        return self.fixed_as(out)

    def fixed_as(self, values: np.ndarray) -> Rows:
        """Return the rows with a binarisation that `fixed` drew before, (N, *X)."""
        return replace(self, values=values, dynamic=False, index=None, channels_last=False)

    def chunks(self, size: int, device: torch.device | str = "cpu") -> Iterator[Batch]:
        """Yield the rows in order, `size` at a time."""
        rows = self.fixed()
        for start in range(0, len(rows), size):
            yield rows.batch(slice(start, start + size), device)

    def batch(self, rows: slice, device: torch.device | str = "cpu") -> Batch:
        """Return rows as a batch. Dynamic grey levels are binarised; call `fixed` first for the
        binarisation of an evaluation."""
        if self.dynamic:
            return self.pick(rows).fixed().batch(slice(None), device)
        return self._batch(self.read(rows), rows, device)

    def pick(self, rows: np.ndarray | slice) -> Rows:
        """Return some of the rows."""
        index = np.arange(len(self.values))[rows] if self.index is None else self.index[rows]
        given = None if self.given is None else self.given[rows]
        return replace(
            self,
            index=index,
            given=given,
            attributes={k: v[rows] for k, v in self.attributes.items()},
        )

    def take(self, n: int) -> Rows:
        """Return the first n rows."""
        return self if n >= len(self) else self.pick(slice(n))

    def spread(self, n: int) -> Rows:
        """Return n equally spaced rows, or all if there are fewer.

        Rows of a stream come from few blocks and are read into memory, at most HELD_BYTES of them.
        """
        if self.stream is not None:
            most = min(n, len(self), max(100, HELD_BYTES // self.row_bytes))
            return self.pick(self.stream.spread(most, self.index)).in_memory()
        return (
            self if n >= len(self) else self.pick(np.linspace(0, len(self) - 1, n).astype(np.int64))
        )

    def places(self, n: int) -> np.ndarray:
        """Return the row numbers of n equally spaced rows, (n,), in rising order. Rows of a stream
        come from few blocks."""
        if self.stream is not None and n < len(self):
            return self.stream.spread(n, self.index)
        return np.linspace(0, len(self) - 1, n).astype(np.int64)

    def in_memory(self) -> Rows:
        """Return the rows of a stream, read into memory; other rows unchanged."""
        return self if self.stream is None else replace(self, values=self.read(), index=None)

    def observed_cells(self) -> float:
        """Return the mean number of observed cells of a row, or of tokens of a text."""
        sizes = self.sizes()
        if sizes is not None:
            return float(sizes.mean())
        mask = self.mask()
        return float(self.space.cells if mask is None else mask.sum() / len(self))

    def missing_cells(self) -> int:
        """Return the number of missing cells of all rows; without those after the end of series."""
        mask = self.mask()
        if mask is None:
            return 0
        if self.space.lengths is None:
            return int((~mask).sum())
        exist = int(ends_of(mask).sum()) * math.prod(self.space.shape[1:])
        return exist - int(mask.sum())

    def sha256(self) -> str:
        """Return a hash of everything that an evaluation depends on: shape, dtype, every value and
        its units, the mask and the conditions."""
        if self.ragged is not None:
            return self._sha256_of_texts(self.ragged.width)
        rows = self.fixed()
        shape = (len(rows), *rows.space.shape)
        digest = hashlib.sha256(f"{shape} {rows.values.dtype.str}".encode())
        if rows.space.measure != "counting":
            digest.update(rows.space.transform())
        arrays = [(rows.observed, True), (rows.given, False)]
        for part in _slices(len(rows)):
            digest.update(np.ascontiguousarray(rows.read(part)).data)
        for array, shared in arrays:
            if array is not None:
                digest.update(
                    np.ascontiguousarray(rows._take(array, slice(None)) if shared else array).data
                )
        return digest.hexdigest()

    def _sha256_of_texts(self, width: int) -> str:
        """Return a hash of the texts and the conditions. Tokens are left out, because bounds under
        two tokenisers are bounds on the same p(x)."""
        digest = hashlib.sha256(f"{len(self)} texts".encode())
        for part in _slices(len(self)):
            codes = self.read(part)
            # A truncated text is the event that a text begins with it.
            endless = (codes != 0).all(1) & (codes.shape[1] == width)
            for line, whole in zip(self.space.outward(codes).lines, ~endless, strict=True):
                text = line.encode()
                digest.update(f"{len(text)}{'' if whole else '+'} ".encode() + text)
        if self.given is not None:
            digest.update(np.ascontiguousarray(self.given).data)
        return digest.hexdigest()

    def fingerprint(self) -> Json:
        """Return the number of rows, and a hash of a sample of them, which takes about a second."""
        if self.stream is not None:
            digest = hashlib.sha256(self.stream.fingerprint().encode())
            digest.update(np.ascontiguousarray(self.stream.block_sizes(self.index)).data)
            return {"n": len(self), "sha256": digest.hexdigest()}
        return {
            "n": len(self),
            "sha256": self.spread(max(100, 2**25 // self.row_bytes)).sha256() if len(self) else "",
        }

    def projection(self) -> np.ndarray:
        """Return a fixed random projection of each row in the user's units, (N,) float64.

        Two readings of the same data that were standardised differently agree to rounding. Missing
        cells count as 0. Numbers of a table enter by their logarithm, so that no column dominates.
        """
        rng = np.random.Generator(np.random.PCG64(derive(0, "projection")))
        columns: list[np.ndarray] = []
        outside = self.outward() if self.space.ragged or self.space.tabular else None
        if isinstance(outside, Texts):
            return np.array([zlib.crc32(line.encode()) / 2**32 for line in outside.lines])
        if isinstance(outside, Frame):
            for column in outside.columns.values():
                data, absent = np.asarray(column.data), np.ma.getmaskarray(column)
                if data.dtype.kind == "M":
                    data = data.astype("datetime64[us]").astype(np.int64)
                elif data.dtype.kind not in "biuf":
                    data = np.array([zlib.crc32(str(v).encode()) / 2**32 for v in data])
                numbers = np.where(absent, 0.0, data.astype(np.float64))
                columns.append(np.sign(numbers) * np.log1p(np.abs(numbers)))
            return np.asarray(np.stack(columns, 1) @ rng.normal(size=len(columns)))
        weights = rng.normal(size=math.prod(self.space.outside)) / math.sqrt(
            math.prod(self.space.outside)
        )
        parts = [
            np.nan_to_num(np.asarray(self.pick(p).outward(), np.float64)).reshape(-1, len(weights))
            @ weights
            for p in _slices(len(self))
        ]
        return np.concatenate(parts)

    def outward(self) -> np.ndarray | Frame | Texts:
        """Return the rows in the user's layout and units: an array with NaN in missing cells, a
        Frame with masks, or Texts."""
        rows = self.fixed()
        if self.space.ragged:
            return Texts.of(
                line
                for part in _slices(len(self))
                for line in self.space.outward(rows.read(part)).lines
            )
        out = rows.space.outward(rows.read())
        observed = rows.mask()
        if observed is None:
            return out
        if rows.space.columns:
            masks = {c.name: ~observed[:, i] for i, c in enumerate(rows.space.columns)}
            return out.changed(lambda name, cells: np.ma.MaskedArray(cells.data, masks[name]))
        return np.where(rows.space.outward_mask(observed), out, np.nan)


def _tensor(array: np.ndarray, device: torch.device | str) -> torch.Tensor:
    if array.dtype == np.uint16:
        array = array.astype(np.int32)  # few operations of torch take uint16
    if not array.flags.writeable:
        array = array.copy()  # a slice of a read-only memory map
    return torch.from_numpy(array).to(device, non_blocking=True)


def _slices(rows: int, size: int = 4096) -> Iterator[slice]:
    for start in range(0, rows, size):
        yield slice(start, min(rows, start + size))


@dataclass(frozen=True, eq=False, repr=False)
class Data(Shown):
    """Hold the three splits of a data set, its space, and notes on what was inferred.

    Args:
        train, valid, test: the splits. If data are binarised, valid and test have one fixed
            binarisation.
        space: of the data; its statistics are those of the training split.
        source: the source, with every option resolved.
        notes: inferences about the data, one line each.
        shared: notes on held-out rows that equal training rows.
        given: the space of the conditions; None without.

    >>> import numpy as np, vaestro as vs
    >>> data = vs.load(np.random.default_rng(0).normal(size=(100, 3)))
    >>> len(data.split("valid"))
    5
    """

    train: Rows
    valid: Rows
    test: Rows
    space: Space
    source: str
    notes: tuple[str, ...] = ()
    given: Space | None = None
    shared: tuple[str, ...] = ()

    def card(self) -> Card:
        """Return the source, the sizes of the splits, and the notes."""
        return Card(f"Data of {self.source}", self.notes)

    @property
    def attributes(self) -> tuple[str, ...]:
        """Return the names of the attributes of each row."""
        return tuple(self.train.attributes)

    @property
    def held_out(self) -> Rows:
        """Return the test rows; without any, the validation rows, else the training rows."""
        return next((rows for rows in (self.test, self.valid) if len(rows)), self.train)

    def without_absences(self) -> Data:
        """Return the data of a model that does not describe which cells are empty, as those of
        earlier versions."""
        space = replace(self.space, empty=None)
        splits = [replace(rows, space=space) for rows in (self.train, self.valid, self.test)]
        return replace(self, train=splits[0], valid=splits[1], test=splits[2], space=space)

    def split(self, name: str) -> Rows:
        """Return a split by name.

        Raises:
            ValueError: there is no such split, or it is empty.
        """
        splits = {"train": self.train, "valid": self.valid, "test": self.test}
        if name not in splits:
            raise ValueError(f"expected train, valid or test; got {name!r}")
        if not len(splits[name]):
            there = [split for split, rows in splits.items() if len(rows)]
            raise InputError(
                f"the {name} split of {self.source} is empty (use {' or '.join(there)})"
            )
        return splits[name]
