"""What a reader returns: the three splits, and how a batch is gathered from one."""

from __future__ import annotations

import hashlib
import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from vaestro.data.passes import expect
from vaestro.frames import Frame
from vaestro.randomness import Window, binarised, derive
from vaestro.spaces import Batch, Kind, Space
from vaestro.tokens import Ragged, Texts

HELD_BYTES = 2**28  # of rows of a stream that are held in memory together
DRAWN = 2**26  # cells that are binarised from one stream of draws


class Streamed(ABC):
    """Stand for an array whose rows are read when they are asked for, in blocks."""

    row_bytes: int
    buffer: int  # rows among which is shuffled
    waited: float  # seconds for rows that were known to be wanted

    @abstractmethod
    def block_sizes(self, index: np.ndarray | None) -> np.ndarray:
        """Return how many of some rows each block has, (blocks,); None stands for all rows."""

    @abstractmethod
    def spread(self, n: int, index: np.ndarray | None) -> np.ndarray:
        """Return the places of n rows among some, or all, within few blocks, in rising order."""

    @abstractmethod
    def expect(self, windows: Sequence[tuple[Window, np.ndarray]]) -> None:
        """Begin to read rows that will be asked for, a window at a time, in this order; others are
        let go."""

    @abstractmethod
    def start(self, workers: int | None) -> None:
        """Say how many threads decode, from now on; None for one a processor."""

    @abstractmethod
    def let_go(self) -> None:
        """Forget what was read ahead, and end the threads."""

    @abstractmethod
    def unread(self) -> tuple[int, str]:
        """Return how many rows could not be read so far, and which, in words."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Say which state of which data this is, without reading them."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Hold one split: which rows of the values, which of their cells were observed, and what is
    given with them.

    Args:
        values: codes or values inside, (M, *X), possibly memory-mapped, or Ragged codes of tokens,
            Sparse counts or a stream, or (M, H, W, C) where `channels_last`; where `dynamic`, 8-bit
            grey levels that are binarised at every access.
        space: what a batch of them is.
        name: which split, which names the stream of a fixed binarisation.
        dynamic: binarise anew at every access, with P(1) = level / 255 exactly.
        attributes: what else is known of each row, by name, each (N,).
        index: which rows of `values`, (N,); None for all. Splits of large data share one array.
        observed: which cells were observed, (M, *X); None for all.
        given: codes of the conditions, (N, columns of `given_space`); None without.
        given_space: the space of the conditions.
        channels_last: whether images lie as (H, W, C) and are turned when gathered.
        notes: what was done to the source when it was read, a line each.
    """

    values: Any
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

    def sizes(self) -> np.ndarray | None:
        """Return the size of each row, (N,), where rows differ: the tokens of a text, its end among
        them; None where they do not."""
        if not isinstance(self.values, Ragged):
            return None
        return self.values.sizes(slice(None) if self.index is None else self.index)

    @property
    def row_bytes(self) -> int:
        """Return the bytes of a row as it is held, or 1."""
        size = (
            self.values.row_bytes if isinstance(self.values, Streamed) else self.values[:1].nbytes
        )
        return size or 1

    def _take(self, array: np.ndarray, rows: np.ndarray | slice) -> np.ndarray:
        chosen = rows if self.index is None else self.index[rows]
        if isinstance(chosen, slice) or not isinstance(array, np.ndarray):
            return array[chosen]
        expect(array, chosen)
        return array[chosen]

    def _values(self, rows: np.ndarray | slice) -> np.ndarray:
        """Return rows as they are held, (..., *X)."""
        return self.turned(self._take(self.values, rows))

    def turned(self, values: np.ndarray) -> np.ndarray:
        """Return values as they are held, (..., *X) or with channels last, as (..., *X)."""
        return np.ascontiguousarray(np.moveaxis(values, -1, -3)) if self.channels_last else values

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
        return Batch(_tensor(values, device), observed, given)

    def gather(
        self,
        index: np.ndarray,
        device: torch.device | str = "cpu",
        *,
        seed: int = 0,
        stream: int = 0,
        place: tuple[int, int] | None = None,
    ) -> Batch:
        """Gather the batches of several steps at once: row numbers (S, B) -> codes or values (S, B,
        *X).

        `place` is where each batch stands in its step's global batch (first row, rows); `stream`
        names the steps.
        """
        values = self._values(index)
        if self.dynamic:
            start, rows = place or (0, index.shape[1])
            mine = slice(start, start + index.shape[1])
            if rows > index.shape[1]:
                own, values = values, np.zeros((len(index), rows, *values.shape[2:]), np.uint8)
                values[:, mine] = own
            values = binarised(values, seed, "binarise", self.name, stream)[:, mine]
        batch = self._batch(values, index, device)
        sizes = self.sizes()
        return (
            batch if sizes is None else replace(batch, widths=tuple(sizes[index].max(1).tolist()))
        )

    def fixed(self, out: np.ndarray | None = None) -> Rows:
        """Return the rows with one binarisation for good: the one that every evaluation sees,
        whatever the run's seed.

        Args:
            out: where it is written, uint8 (N, *X); by default into memory.
        """
        if not self.dynamic:
            return self
        out = np.empty((len(self), *self.space.shape), np.uint8) if out is None else out
        for i, part in enumerate(_slices(len(self), max(1, DRAWN // self.space.cells))):
            binarised(
                self._values(part), 0, "binarise", self.name, *([i] if i else []), out=out[part]
            )
        return self.fixed_as(out)

    def fixed_as(self, values: np.ndarray) -> Rows:
        """Return the rows with a binarisation that `fixed` made before, (N, *X)."""
        return replace(self, values=values, dynamic=False, index=None, channels_last=False)

    def chunks(self, size: int, device: torch.device | str = "cpu") -> Iterator[Batch]:
        """Yield the rows in order, `size` at a time."""
        rows = self.fixed()
        for start in range(0, len(rows), size):
            yield rows.batch(slice(start, start + size), device)

    def batch(self, rows: slice, device: torch.device | str = "cpu") -> Batch:
        """Return rows as a batch; binarised data must be `fixed` before."""
        return self._batch(self._values(rows), rows, device)

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
        """Return n rows at equal distances, or all if there are fewer; of a stream those of few
        blocks, held in memory, as many as fit."""
        if isinstance(self.values, Streamed):
            return self.pick(
                self.values.spread(
                    min(n, len(self), max(100, HELD_BYTES // self.row_bytes)), self.index
                )
            ).in_memory()
        return (
            self if n >= len(self) else self.pick(np.linspace(0, len(self) - 1, n).astype(np.int64))
        )

    def places(self, n: int) -> np.ndarray:
        """Return the places of n of the rows at equal distances, (n,), rising; of a stream those of
        few blocks."""
        if isinstance(self.values, Streamed) and n < len(self):
            return self.values.spread(n, self.index)
        return np.linspace(0, len(self) - 1, n).astype(np.int64)

    def in_memory(self) -> Rows:
        """Return rows of a stream read into memory; other rows as they are."""
        return (
            replace(self, values=self._values(slice(None)), index=None)
            if isinstance(self.values, Streamed)
            else self
        )

    def observed_cells(self) -> float:
        """Return the mean number of cells of a row that were observed: of texts, that there are."""
        sizes = self.sizes()
        if sizes is not None:
            return float(sizes.mean())
        if self.observed is None:
            return float(self.space.cells)
        return float(self._take(self.observed, slice(None)).sum() / len(self))

    def sha256(self) -> str:
        """Hash what an evaluation sees: shape, type, every value and its units, and which were
        observed and given."""
        if self.space.kind is Kind.TOKENS:
            return self._sha256_of_texts()
        rows = self.fixed()
        shape = (len(rows), *rows.space.shape)
        digest = hashlib.sha256(f"{shape} {rows.values.dtype.str}".encode())
        if rows.space.measure != "counting":
            digest.update(rows.space.transform())
        held = [(rows.observed, True), (rows.given, False)]
        for part in _slices(len(rows)):
            digest.update(np.ascontiguousarray(rows._values(part)).data)
        for array, shared in held:
            if array is not None:
                digest.update(
                    np.ascontiguousarray(rows._take(array, slice(None)) if shared else array).data
                )
        return digest.hexdigest()

    def _sha256_of_texts(self) -> str:
        """Hash the texts and not their tokens, and what was given: bounds under two tokenisers are
        of the same p(x)."""
        digest = hashlib.sha256(f"{len(self)} texts".encode())
        for part in _slices(len(self)):
            codes = self._values(part)
            # A text without its end stands for all that begin so, which is another event.
            endless = (codes != 0).all(1) & (codes.shape[1] == self.values.width)
            for line, whole in zip(self.space.outward(codes).lines, ~endless, strict=True):
                text = line.encode()
                digest.update(f"{len(text)}{'' if whole else '+'} ".encode() + text)
        if self.given is not None:
            digest.update(np.ascontiguousarray(self.given).data)
        return digest.hexdigest()

    def fingerprint(self) -> dict[str, Any]:
        """Return the number of rows and a hash of as many as are read in no time: what changes with
        the data."""
        if isinstance(self.values, Streamed):
            digest = hashlib.sha256(self.values.fingerprint().encode())
            digest.update(np.ascontiguousarray(self.values.block_sizes(self.index)).data)
            return {"n": len(self), "sha256": digest.hexdigest()}
        return {
            "n": len(self),
            "sha256": self.spread(max(100, 2**25 // self.row_bytes)).sha256() if len(self) else "",
        }

    def projection(self) -> np.ndarray:
        """Return one number for each row, (N,) float64: a fixed random projection of its values in
        the user's units.

        It agrees to rounding between two readings of the same data that were standardised
        differently. Missing cells count as 0; numbers of a table enter by their logarithm, so that
        no column drowns the others.
        """
        if self.space.kind is Kind.TOKENS:
            return np.array([zlib.crc32(line.encode()) / 2**32 for line in self.outward().lines])
        rng = np.random.Generator(np.random.PCG64(derive(0, "projection")))
        columns: list[np.ndarray] = []
        if self.space.kind is Kind.TABLE:
            for column in self.outward().columns.values():
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

    def outward(self) -> Any:
        """Return the rows in the user's layout and units: an array or a Frame, with missing cells
        as NaN or masked."""
        rows = self.fixed()
        if self.space.kind is Kind.TOKENS:
            return Texts.of(
                line
                for part in _slices(len(self))
                for line in self.space.outward(rows._values(part)).lines
            )
        out = rows.space.outward(rows._values(slice(None)))
        if rows.observed is None:
            return out
        observed = rows._take(rows.observed, slice(None))
        if isinstance(out, Frame):
            masks = {c.name: ~observed[:, i] for i, c in enumerate(rows.space.columns)}
            return Frame(
                {
                    name: np.ma.MaskedArray(column.data, masks[name])
                    for name, column in out.columns.items()
                }
            )
        return np.where(rows.space.outward_mask(observed), out, np.nan)


def _tensor(array: np.ndarray, device: torch.device | str) -> torch.Tensor:
    if array.dtype == np.uint16:
        array = array.astype(np.int32)  # torch knows little of the other
    if not array.flags.writeable:
        array = array.copy()  # a slice of a read-only memory map
    return torch.from_numpy(array).to(device, non_blocking=True)


def _slices(rows: int, size: int = 4096) -> Iterator[slice]:
    for start in range(0, rows, size):
        yield slice(start, min(rows, start + size))


@dataclass(frozen=True, eq=False)
class Data:
    """Hold what was read: three splits, what they are, and what was inferred, in words.

    Args:
        train, valid, test: the splits. valid and test have one fixed binarisation where data are
            binarised.
        space: what the data are; what it holds of statistics is the training split's.
        source: where they came from, with every option resolved.
        notes: what was inferred, a line each.
        shared: of them, those that say which held-out rows also stand in the training data.
        given: the space of the conditions; None without.
    """

    train: Rows
    valid: Rows
    test: Rows
    space: Space
    source: str
    notes: tuple[str, ...] = ()
    given: Space | None = None
    shared: tuple[str, ...] = ()

    @property
    def attributes(self) -> tuple[str, ...]:
        """Name what else is known of each row."""
        return tuple(self.train.attributes)

    def split(self, name: str) -> Rows:
        """Return a split by name.

        Raises:
            ValueError: there is no such split, or it is empty.
        """
        if name not in ("train", "valid", "test"):
            raise ValueError(f"expected train, valid or test; got {name!r}")
        rows: Rows = getattr(self, name)
        if not len(rows):
            there = [s for s in ("train", "valid", "test") if len(getattr(self, s))]
            raise ValueError(
                f"expected data in the {name} split of {self.source}; got none (there are "
                f"{' and '.join(there)})"
            )
        return rows
