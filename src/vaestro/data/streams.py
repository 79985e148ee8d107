"""Give rows of shards as an array that is decoded when it is asked for, and ahead of that where it
is known what will be.

Which rows come next follows from a seed and a step (`randomness.Windows`), so that nothing is
remembered of what was read: a stopped run goes on in the middle of a shard, and several processes
read what is theirs.
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
from typing import Any, final

import numpy as np

from vaestro.data import images
from vaestro.data.decoders import Decoder
from vaestro.data.sets import Streamed
from vaestro.data.shard_formats import Format, Index
from vaestro.randomness import Window, numpy_generator

# at most so many rows are held out for validation, and for the test, where shards bring no splits
HELD_OUT = 10_000
FEWEST = 32  # blocks from which rows are taken where not all are wanted
UNREAD = 0.1, 100  # share and number of rows that may be unreadable


class Source:
    """Hold what the streams over one set of shards share: how a block is read and decoded, what
    could not be, and the threads."""

    def __init__(self, index: Index, reader: Format, decoder: Decoder, strict: bool) -> None:
        self.index, self.reader, self.decoder, self.strict = index, reader, decoder, strict
        self.workers = _share()
        self.unread: dict[int, str] = {}  # rows that could not be read, and why
        self.asked = 0
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def pool(self) -> ThreadPoolExecutor:
        """Return the threads that decode."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.workers, "vaestro-decode")
        return self._pool

    def close(self) -> None:
        """Let the threads end."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None

    def tried(self, block: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return rows of a block, by their numbers in it, and which of them could not be read.

        Raises:
            ValueError: a row cannot be read and `strict` was asked for, or too many cannot.
        """
        decoder = self.decoder
        made, bad = np.zeros((len(rows), *decoder.shape), decoder.dtype), np.zeros(len(rows), bool)
        why: dict[int, str] = {}
        try:
            cells = self.reader.read(self.index, block, rows)
        except ValueError as error:
            cells, why = [None] * len(rows), dict.fromkeys(range(len(rows)), str(error))
        if isinstance(cells, np.ndarray):
            if cells.shape[1:] != decoder.shape:
                why = dict.fromkeys(
                    range(len(rows)), f"has shape {cells.shape[1:]} and not {decoder.shape}"
                )
            else:
                made[:] = cells
        else:
            for i, cell in enumerate(cells):
                try:
                    row = decoder(cell or b"")
                    if row.shape != decoder.shape:
                        raise ValueError(f"has shape {row.shape} and not {decoder.shape}")
                    made[i] = row
                except MemoryError:
                    raise
                except Exception as error:  # a damaged file can raise nearly anything
                    why.setdefault(
                        i,
                        str(error)
                        if isinstance(error, ValueError) and str(error).startswith(("has ", "are "))
                        else "is damaged",
                    )
        if made.dtype.kind == "f":
            for i in np.flatnonzero(~np.isfinite(made.reshape(len(made), -1)).all(1)).tolist():
                why.setdefault(i, "holds NaN or infinite values")
        bad[list(why)] = True
        self._note(block, rows, why)
        return made, bad

    def _note(self, block: int, rows: np.ndarray, why: Mapping[int, str]) -> None:
        first = int(self.index.starts[block])
        with self._lock:
            self.asked += len(rows)
            self.unread |= {first + int(rows[i]): reason for i, reason in why.items()}
        if why and (
            self.strict
            or (len(self.unread) >= UNREAD[1] and len(self.unread) > UNREAD[0] * self.asked)
        ):
            most = "in every row, as strict=true asks" if self.strict else "in nine rows of ten"
            raise ValueError(f"expected data that can be read {most}; got {self.said()}")

    def said(self) -> str:
        """Name some rows that could not be read."""
        with self._lock:
            some, count = list(self.unread.items())[:3], len(self.unread)
        named = []
        for row, reason in some:
            block = int(np.searchsorted(self.index.starts, row, "right")) - 1
            file = int(self.index.file[block])
            first = int(self.index.starts[np.searchsorted(self.index.file, file)])
            named.append(f"row {row - first + 1:,} of {self.index.files[file]} {reason}")
        return f"{count:,} that cannot be read: {'; '.join(named)}" + (" .." if count > 3 else "")


def _share() -> int:
    """Return how many processors there are for each process of a run on this machine."""
    return max(1, images.processors() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


class _Ahead:
    """Hold a window's rows that are being decoded."""

    def __init__(self, rows: np.ndarray, values: np.ndarray, work: list[Future[None]]) -> None:
        self.rows, self.values, self.work = rows, values, work

    def cancel(self) -> None:
        for future in self.work:
            future.cancel()


@final
class Stream(Streamed):
    """Give rows of shards as an array (N, ...) would, decoded when they are asked for.

    Args:
        source: how blocks are read.
        blocks: which of them, laid end to end.
        buffer: rows of a window of the shuffled order.
        own: which rows may stand for one that cannot be read, (N,) truth values; None for all.
            Those of another split may not.
        inward: lays rows out inside; None for rows as the user has them.
    """

    def __init__(
        self,
        source: Source,
        blocks: np.ndarray,
        buffer: int,
        own: np.ndarray | None = None,
        inward: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        self.source, self.blocks, self.buffer, self.own, self.inward = (
            source,
            blocks,
            buffer,
            own,
            inward,
        )
        self.sizes = source.index.sizes[blocks]
        self._starts = np.cumsum(self.sizes) - self.sizes
        self._rows = int(self.sizes.sum())
        self._ahead: dict[tuple[int, int], _Ahead] = {}
        self.waited = 0.0  # seconds for rows that were known to be wanted
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
        """Return the same rows as they are inside."""
        return Stream(self.source, self.blocks, self.buffer, self.own, inward)

    def only(self, index: np.ndarray) -> Stream:
        """Return the same rows, of which only some may stand for others."""
        own = np.zeros(self._rows, bool)
        own[index] = True
        return Stream(self.source, self.blocks, self.buffer, own, self.inward)

    @staticmethod
    def joined(streams: Sequence[Stream]) -> Stream:
        """Lay streams over the same shards end to end."""
        first = streams[0]
        return Stream(
            first.source,
            np.concatenate([s.blocks for s in streams]),
            first.buffer,
            None,
            first.inward,
        )

    def held_out(self, sizes: Mapping[str, int], seed: int) -> dict[str, np.ndarray]:
        """Draw so many rows for each split, and the rest for training, in rising order. They come
        from few blocks, half of whose rows are
        left: nobody wants to read all shards for what is held out."""
        total = sum(sizes.values())
        few = max(FEWEST, -(-2 * total * len(self.blocks) // self._rows))
        blocks = numpy_generator(seed, "split", "blocks").permutation(len(self.blocks))
        enough = int(np.searchsorted(np.cumsum(self.sizes[blocks]), total)) + 1
        drawn = numpy_generator(seed, "split").permutation(
            self._rows_of(np.sort(blocks[: max(few, enough)]))
        )
        ends = np.cumsum(list(sizes.values())).tolist()
        found = {
            s: np.sort(drawn[end - size : end])
            for (s, size), end in zip(sizes.items(), ends, strict=True)
        }
        rest = np.ones(self._rows, bool)
        rest[drawn[:total]] = False
        return {"train": np.flatnonzero(rest), **found}

    def _rows_of(self, blocks: np.ndarray) -> np.ndarray:
        return np.concatenate(
            [np.arange(self._starts[b], self._starts[b] + self.sizes[b]) for b in blocks.tolist()]
        )

    def block_sizes(self, index: np.ndarray | None) -> np.ndarray:
        """Return how many of some rows each block has, (blocks,); None stands for all rows."""
        if index is None:
            return self.sizes
        return np.diff(np.searchsorted(index, np.append(self._starts, self._rows)))

    def spread(self, n: int, index: np.ndarray | None) -> np.ndarray:
        """Return the places of n rows among some, or all, at equal distances within few blocks, in
        rising order."""
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
        """Say which state of which rows of the shards these are."""
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

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Return rows (...,) as an array (..., *shape[1:]).

        Raises:
            ValueError: too many rows cannot be read.
            OSError: a shard changed, or cannot be reached.
        """
        rows = np.arange(*rows.indices(self._rows)) if isinstance(rows, slice) else np.asarray(rows)
        flat = rows.ravel()
        flat = np.where(flat < 0, flat + self._rows, flat)
        found = np.empty((len(flat), *self.shape[1:]), self.dtype)
        left = np.ones(len(flat), bool)
        for ahead in self._ahead.values():
            at = np.searchsorted(ahead.rows, flat)
            here = left & (at < len(ahead.rows))
            here[here] = ahead.rows[at[here]] == flat[here]
            if here.any():
                self._finish(ahead)
                if here.all():
                    return ahead.values[at].reshape(*rows.shape, *self.shape[1:])
                found[here], left = ahead.values[at[here]], left & ~here
        if left.any():
            distinct, place = np.unique(flat[left], return_inverse=True)
            ahead = self._started(distinct)
            for work in ahead.work:
                work.result()
            found[left] = ahead.values[place]
        return found.reshape(*rows.shape, *self.shape[1:])

    def expect(self, windows: Sequence[tuple[Window, np.ndarray]]) -> None:
        """Begin to decode what will be asked for next, a window at a time, in this order; others
        are let go."""
        keys = [window.key for window, _ in windows]
        for key in [k for k in self._ahead if k not in keys]:
            self._ahead.pop(key).cancel()
        for window, rows in windows:
            if window.key not in self._ahead:
                self._ahead[window.key] = self._started(np.sort(rows))

    def start(self, workers: int | None) -> None:
        """Say how many threads decode, from now on; None for one a processor."""
        self.let_go()
        self.source.workers = _share() if workers is None else workers

    def unread(self) -> tuple[int, str]:
        """Return how many rows could not be read so far, and which, in words."""
        return len(self.source.unread), self.source.said()

    def let_go(self) -> None:
        """Forget what was read ahead, and end the threads."""
        self.expect(())
        self.source.close()

    def _finish(self, ahead: _Ahead) -> None:
        if ahead.work:
            start = time.perf_counter()
            wait_for(ahead.work)
            if self._begun:  # nothing can be decoded ahead of the first
                self.waited += time.perf_counter() - start
            self._begun = True
            for work in ahead.work:
                work.result()
            ahead.work = []

    def _after(self, block: int, row: int) -> np.ndarray:
        """Return the next row that can be read, as the user has it; after the last comes the
        first."""
        for step in range(min(len(self.blocks), 100) + 1):
            at = (block + step) % len(self.blocks)
            rest = np.arange(
                row + 1 if step == 0 else int(self._starts[at]),
                int(self._starts[at] + self.sizes[at]),
            )
            rest = rest if self.own is None else rest[self.own[rest]]
            for some in np.array_split(rest, -(-len(rest) // 16)) if len(rest) else ():
                made, bad = self.source.tried(int(self.blocks[at]), some - int(self._starts[at]))
                if not bad.all():
                    return np.asarray(made[int(np.flatnonzero(~bad)[0])])
        raise ValueError(f"expected data that can be read; got {self.source.said()}")

    def readable(self, rows: np.ndarray) -> np.ndarray:
        """Tell which rows could be read, of those that were asked for."""
        blocks = np.searchsorted(self._starts, rows, "right") - 1
        first = self.source.index.starts[self.blocks[blocks]] - self._starts[blocks]
        return np.array([row not in self.source.unread for row in (rows + first).tolist()], bool)

    def _started(self, rows: np.ndarray) -> _Ahead:
        """Begin to decode rows, which rise."""
        values = np.empty((len(rows), *self.shape[1:]), self.dtype)
        blocks = np.searchsorted(self._starts, rows, "right") - 1
        cuts = [0, *(np.flatnonzero(np.diff(blocks)) + 1).tolist(), len(rows)] if len(rows) else [0]
        pool = self.source.pool()

        def fill(block: int, first: int, last: int) -> None:
            made, bad = self.source.tried(
                int(self.blocks[block]), rows[first:last] - int(self._starts[block])
            )
            for i in np.flatnonzero(bad).tolist():
                made[i] = self._after(block, int(rows[first + i]))
            values[first:last] = made if self.inward is None else self.inward(made)

        work = [pool.submit(fill, int(blocks[a]), a, b) for a, b in itertools.pairwise(cuts)]
        return _Ahead(rows, values, work)
