"""Rows of shards as an array that is decoded on access or prefetched.

The next rows depend only on a seed and a step (`randomness.Windows`), so no state is stored. A
stopped run continues in the middle of a shard, and each process reads only its own rows.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from typing import final

import numpy as np

from vaestro import processes
from vaestro.data import images
from vaestro.data.decoders import Decoder
from vaestro.data.sets import StreamedRows
from vaestro.data.shard_formats import Format, Index
from vaestro.randomness import Window, numpy_generator
from vaestro.text import InputError

# largest number of validation rows, and of test rows, drawn from shards without splits
HELD_OUT = 10_000
FEWEST = 32  # smallest number of blocks that a sample of rows comes from
UNREAD = 0.1, 100  # a run stops if both this share and this number of rows are unreadable


class Source:
    """Read and decode blocks of one set of shards, for all of its streams.

    Args:
        index: of the shards.
        reader: of the format of the shards.
        decoder: of a row.
        strict: whether an unreadable row is an error.
    """

    def __init__(self, index: Index, reader: Format, decoder: Decoder, strict: bool) -> None:
        self.index, self.reader, self.decoder, self.strict = index, reader, decoder, strict
        self.workers = _share()
        self.unread: dict[int, str] = {}  # {row: why it is unreadable}
        self.decoded = 0  # rows, including unreadable ones
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def pool(self) -> ThreadPoolExecutor:
        """Return the threads that decode."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.workers, "vaestro-decode")
        return self._pool

    def close(self) -> None:
        """Stop the threads."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None

    def decode(self, block: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return rows of a block, (N, *shape), and a mask of the unreadable ones, (N,).

        Args:
            block: its number.
            rows: positions in the block, (N,).

        Raises:
            ValueError: a row is unreadable and `strict` is set, or too many rows are unreadable.
        """
        decoder = self.decoder
        out, bad = np.zeros((len(rows), *decoder.shape), decoder.dtype), np.zeros(len(rows), bool)
        why: dict[int, str] = {}
        try:
            cells = self.reader.read(self.index, block, rows)
        except ValueError as error:
            cells, why = [None] * len(rows), dict.fromkeys(range(len(rows)), str(error))
        if isinstance(cells, np.ndarray):
            if cells.shape[1:] != decoder.shape:
                why = dict.fromkeys(
                    range(len(rows)), f"has shape {cells.shape[1:]} instead of {decoder.shape}"
                )
            else:
                out[:] = cells
        else:
            for i, cell in enumerate(cells):
                try:
                    row = decoder(cell or b"")
                    if row.shape != decoder.shape:
                        raise ValueError(f"has shape {row.shape} instead of {decoder.shape}")
                    out[i] = row
                except MemoryError:
                    raise
                except Exception as error:  # decoders of damaged files raise many types
                    why.setdefault(
                        i,
                        str(error)
                        if isinstance(error, ValueError) and str(error).startswith(("has ", "are "))
                        else "is damaged",
                    )
        if out.dtype.kind == "f":
            for i in np.flatnonzero(~np.isfinite(out.reshape(len(out), -1)).all(1)).tolist():
                why.setdefault(i, "has NaN or infinite values")
        bad[list(why)] = True
        self._note(block, rows, why)
        return out, bad

    def _note(self, block: int, rows: np.ndarray, why: Mapping[int, str]) -> None:
        first = int(self.index.starts[block])
        with self._lock:
            self.decoded += len(rows)
            self.unread |= {first + int(rows[i]): reason for i, reason in why.items()}
        if why and (
            self.strict
            or (len(self.unread) >= UNREAD[1] and len(self.unread) > UNREAD[0] * self.decoded)
        ):
            limit = "strict=true allows none" if self.strict else "one in ten is allowed"
            raise InputError(f"{self.description()} ({limit})")

    def description(self) -> str:
        """Return a phrase with the number of unreadable rows and the reasons for some of them."""
        with self._lock:
            some, count = list(self.unread.items())[:3], len(self.unread)
        named = []
        for row, reason in some:
            block = int(np.searchsorted(self.index.starts, row, "right")) - 1
            file = int(self.index.file[block])
            first = int(self.index.starts[np.searchsorted(self.index.file, file)])
            named.append(f"row {row - first + 1:,} of {self.index.files[file]} {reason}")
        rows = "row" if count == 1 else "rows"
        return f"{count:,} {rows} cannot be read: {'; '.join(named)}" + (" .." * (count > 3))


def _share() -> int:
    """Return the number of processors for each process of a run on this machine."""
    return max(1, images.processors() // processes.here())


class _Prefetch:
    """Hold the rows of a window that are decoded in the background."""

    def __init__(self, rows: np.ndarray, values: np.ndarray, work: list[Future[None]]) -> None:
        self.rows, self.values, self.work = rows, values, work

    def cancel(self) -> None:
        for future in self.work:
            future.cancel()


@final
class Stream(StreamedRows):
    """Index rows of shards like an array (N, ...); rows are decoded on access.

    Args:
        source: of the blocks.
        blocks: numbers of the blocks, whose rows are concatenated.
        buffer: rows of a window, within which rows are shuffled.
        usable: mask of the rows that may replace an unreadable one, (N,); None for all. Rows of
            other splits are not in this mask.
        inward: transform to codes or values; None for the user's units.
    """

    def __init__(
        self,
        source: Source,
        blocks: np.ndarray,
        buffer: int,
        usable: np.ndarray | None = None,
        inward: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        self.source, self.blocks, self.buffer = source, blocks, buffer
        self.usable, self.inward = usable, inward
        self.sizes = source.index.sizes[blocks]
        self._starts = np.cumsum(self.sizes) - self.sizes
        self._rows = int(self.sizes.sum())
        self._ahead: dict[tuple[int, int], _Prefetch] = {}
        self.waited = 0.0
        self._begun = False
        decoder = source.decoder
        empty = np.zeros((0, *decoder.shape), decoder.dtype)
        self._one = empty if inward is None else inward(empty)
        self.row_bytes = int(np.prod(self.shape[1:])) * self.dtype.itemsize

    def __len__(self) -> int:
        return self._rows

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (rows, ...)."""
        return (self._rows, *self._one.shape[1:])

    @property
    def ndim(self) -> int:
        """Return the number of axes."""
        return self._one.ndim

    @property
    def dtype(self) -> np.dtype:
        """Return the type of the values."""
        return self._one.dtype

    def laid_out(self, inward: Callable[[np.ndarray], np.ndarray]) -> Stream:
        """Return the same rows, transformed to codes or values."""
        return Stream(self.source, self.blocks, self.buffer, self.usable, inward)

    def only(self, index: np.ndarray) -> Stream:
        """Return the same rows; only those of these numbers may replace an unreadable one."""
        usable = np.zeros(self._rows, bool)
        usable[index] = True
        return Stream(self.source, self.blocks, self.buffer, usable, self.inward)

    @staticmethod
    def joined(streams: Sequence[Stream]) -> Stream:
        """Concatenate streams over the same shards."""
        first = streams[0]
        return Stream(
            first.source,
            np.concatenate([s.blocks for s in streams]),
            first.buffer,
            None,
            first.inward,
        )

    def held_out(self, sizes: Mapping[str, int], seed: int) -> dict[str, np.ndarray]:
        """Draw the rows of each held-out split, by its size; all other rows are for training.

        The rows come from few blocks, about half of each, so that not all shards must be read. Row
        numbers are in rising order.
        """
        total = sum(sizes.values())
        few = max(FEWEST, -(-2 * total * len(self.blocks) // self._rows))
        blocks = numpy_generator(seed, "split", "blocks").permutation(len(self.blocks))
        enough = int(np.searchsorted(np.cumsum(self.sizes[blocks]), total)) + 1
        drawn = numpy_generator(seed, "split").permutation(
            self._rows_of(np.sort(blocks[: max(few, enough)]))
        )
        ends = np.cumsum(list(sizes.values())).tolist()
        splits = {
            s: np.sort(drawn[end - size : end])
            for (s, size), end in zip(sizes.items(), ends, strict=True)
        }
        rest = np.ones(self._rows, bool)
        rest[drawn[:total]] = False
        return {"train": np.flatnonzero(rest), **splits}

    def _rows_of(self, blocks: np.ndarray) -> np.ndarray:
        return np.concatenate(
            [np.arange(self._starts[b], self._starts[b] + self.sizes[b]) for b in blocks.tolist()]
        )

    def block_sizes(self, index: np.ndarray | None) -> np.ndarray:
        """Return the number of rows in each block, (blocks,); of all rows if `index` is None."""
        if index is None:
            return self.sizes
        return np.diff(np.searchsorted(index, np.append(self._starts, self._rows)))

    def spread(self, n: int, index: np.ndarray | None) -> np.ndarray:
        """Return the positions of n equally spaced rows within few blocks, in rising order."""
        count = self.block_sizes(index)
        starts, blocks = (
            np.cumsum(count) - count,
            numpy_generator(0, "spread").permutation(len(count)),
        )
        last = int(np.searchsorted(np.cumsum(count[blocks]), n)) + 1
        places = np.concatenate(
            [
                np.arange(starts[b], starts[b] + count[b])
                for b in np.sort(blocks[: max(FEWEST, last)]).tolist()
            ]
        )
        return places[np.linspace(0, len(places) - 1, min(n, len(places))).astype(np.int64)]

    def fingerprint(self) -> str:
        """Return a hash of the rows and of the state of their shards."""
        index, digest = self.source.index, hashlib.sha256()
        used = np.unique(index.file[self.blocks]).tolist()
        words = [(os.path.basename(index.files[i]), index.stamps[i].split()[0]) for i in used]
        digest.update(repr((words, index.field, self.shape[1:])).encode())
        digest.update(np.ascontiguousarray(index.place[self.blocks]).data)
        digest.update(np.ascontiguousarray(self.sizes).data)
        if len(index.spans):
            first = index.starts[self.blocks]
            for start, size in zip(first.tolist(), self.sizes.tolist(), strict=True):
                digest.update(np.ascontiguousarray(index.spans[start : start + size]).data)
        return digest.hexdigest()

    # -- reading -----------------------------------------------------------------------------------

    def __getitem__(self, rows: np.ndarray | slice) -> np.ndarray:
        """Return rows (...,) as an array (..., *shape[1:]).

        Raises:
            ValueError: too many rows are unreadable.
            OSError: a shard has changed, or cannot be reached.
        """
        rows = np.arange(*rows.indices(self._rows)) if isinstance(rows, slice) else np.asarray(rows)
        flat = rows.ravel()
        flat = np.where(flat < 0, flat + self._rows, flat)
        out = np.empty((len(flat), *self.shape[1:]), self.dtype)
        left = np.ones(len(flat), bool)
        for ahead in self._ahead.values():
            at = np.searchsorted(ahead.rows, flat)
            here = left & (at < len(ahead.rows))
            here[here] = ahead.rows[at[here]] == flat[here]
            if here.any():
                self._finish(ahead)
                if here.all():
                    return ahead.values[at].reshape(*rows.shape, *self.shape[1:])
                out[here], left = ahead.values[at[here]], left & ~here
        if left.any():
            distinct, place = np.unique(flat[left], return_inverse=True)
            ahead = self._start_decoding(distinct)
            for work in ahead.work:
                work.result()
            out[left] = ahead.values[place]
        return out.reshape(*rows.shape, *self.shape[1:])

    def expect(self, windows: Sequence[tuple[Window, np.ndarray]]) -> None:
        """Start to decode the rows of the next windows, in this order; discard all other
        windows."""
        keys = [window.key for window, _ in windows]
        for key in [k for k in self._ahead if k not in keys]:
            self._ahead.pop(key).cancel()
        for window, rows in windows:
            if window.key not in self._ahead:
                self._ahead[window.key] = self._start_decoding(np.sort(rows))

    def start(self, workers: int | None) -> None:
        """Set the number of threads that decode; None for one per processor."""
        self.release()
        self.source.workers = _share() if workers is None else workers

    def unread(self) -> tuple[int, str]:
        """Return the number of unreadable rows so far, and a description of some of them."""
        return len(self.source.unread), self.source.description()

    def release(self) -> None:
        """Discard prefetched rows, and stop the threads."""
        self.expect(())
        self.source.close()

    def _finish(self, ahead: _Prefetch) -> None:
        if ahead.work:
            start = time.perf_counter()
            wait_for(ahead.work)
            if self._begun:  # the first window cannot be decoded ahead
                self.waited += time.perf_counter() - start
            self._begun = True
            for work in ahead.work:
                work.result()
            ahead.work = []

    def _after(self, block: int, row: int) -> np.ndarray:
        """Return the next readable row in the user's units, cyclically."""
        for step in range(min(len(self.blocks), 100) + 1):
            at = (block + step) % len(self.blocks)
            rest = np.arange(
                row + 1 if step == 0 else int(self._starts[at]),
                int(self._starts[at] + self.sizes[at]),
            )
            rest = rest if self.usable is None else rest[self.usable[rest]]
            for some in np.array_split(rest, -(-len(rest) // 16)) if len(rest) else ():
                values, bad = self.source.decode(int(self.blocks[at]), some - int(self._starts[at]))
                if not bad.all():
                    return np.asarray(values[int(np.flatnonzero(~bad)[0])])
        raise InputError(self.source.description())

    def readable(self, rows: np.ndarray) -> np.ndarray:
        """Return a mask of the readable ones of rows that were decoded before, (N,)."""
        blocks = np.searchsorted(self._starts, rows, "right") - 1
        first = self.source.index.starts[self.blocks[blocks]] - self._starts[blocks]
        return np.array([row not in self.source.unread for row in (rows + first).tolist()], bool)

    def _start_decoding(self, rows: np.ndarray) -> _Prefetch:
        """Start to decode rows, whose numbers are in rising order."""
        values = np.empty((len(rows), *self.shape[1:]), self.dtype)
        blocks = np.searchsorted(self._starts, rows, "right") - 1
        cuts = [0, *(np.flatnonzero(np.diff(blocks)) + 1).tolist(), len(rows)] if len(rows) else [0]
        pool = self.source.pool()

        def fill(block: int, first: int, last: int) -> None:
            decoded, bad = self.source.decode(
                int(self.blocks[block]), rows[first:last] - int(self._starts[block])
            )
            for i in np.flatnonzero(bad).tolist():
                decoded[i] = self._after(block, int(rows[first + i]))
            values[first:last] = decoded if self.inward is None else self.inward(decoded)

        work = [pool.submit(fill, int(blocks[a]), a, b) for a, b in itertools.pairwise(cuts)]
        return _Prefetch(rows, values, work)
