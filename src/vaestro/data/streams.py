"""Give rows of shards as an array that is decoded when it is asked for, and ahead of that where it
is known what will be.

Which rows come next follows from a seed and a step (`randomness.Windows`), so that nothing is
remembered of what was read: a stopped run goes on in the middle of a shard, and several processes
read what is theirs.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import os
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from pathlib import Path
from typing import Any, final

import numpy as np

from vaestro.data import cache, images, shards
from vaestro.data.passes import Part
from vaestro.data.raw import Raw
from vaestro.data.sets import Streamed
from vaestro.randomness import Window, numpy_generator

KIND = "stream-1"
BUFFER_ROWS, BUFFER_BYTES = 8192, 2**27  # of a window, whichever is less
FITTED = 10_000  # rows from which is inferred what the data are
# at most so many rows are held out for validation, and for the test, where shards bring no splits
HELD_OUT = 10_000
HELD_BYTES = 2**31  # of held-out data, up to which they are decoded once
FEWEST = 32  # blocks from which rows are taken where not all are wanted
LOOKED_AT = 256  # rows that say which size and type all have
UNREAD = 0.1, 100  # share and number of rows that may be unreadable


# -- one row ---------------------------------------------------------------------------------------


class Decoder(ABC):
    """Turn the bytes of a row into an array.

    Args:
        shape: of a row.
        dtype: of its values.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.shape, self.dtype = shape, dtype

    @abstractmethod
    def __call__(self, cell: bytes) -> np.ndarray:
        """Return a row.

        Raises:
            Exception: of any kind, where the bytes are damaged.
        """


@final
class Images(Decoder):
    """Decode images, brought to one size and to grey or colour."""

    def __init__(self, size: tuple[int, int], colour: bool, target: images.Target) -> None:
        super().__init__((*size, 3) if colour else size, np.dtype(np.uint8))
        self.colour, self.target = colour, target

    def __call__(self, cell: bytes) -> np.ndarray:
        return images._decoded(io.BytesIO(cell), self.target, self.colour)[0]


@final
class Arrays(Decoder):
    """Decode .npy files."""

    def __call__(self, cell: bytes) -> np.ndarray:
        return _array(cell)


def _array(cell: bytes) -> np.ndarray:
    return np.asarray(np.lib.format.read_array(io.BytesIO(cell), allow_pickle=False))


def _decoder(
    index: shards.Index, reader: shards.Format, kind: str, options: Mapping[str, Any], name: str
) -> Decoder:
    """Say from some rows what all rows are.

    Raises:
        ValueError: images differ in size and `size` was not given, or none can be used.
    """
    target = images.target_of(options)
    found: list[Any] = []
    for block in np.unique(np.linspace(0, len(index.sizes) - 1, 8).astype(np.int64)).tolist():
        some = np.unique(np.linspace(0, index.sizes[block] - 1, LOOKED_AT // 8).astype(np.int64))
        try:
            cells = reader.read(index, block, some)
        except ValueError:
            continue
        for cell in cells:
            try:
                found.append(
                    cell
                    if isinstance(cell, np.ndarray)
                    else _array(cell or b"")
                    if kind == "arrays"
                    else _header(cell)
                )
            except Exception:  # a damaged file can raise nearly anything
                continue
    if not found:
        raise ValueError(f"expected {kind} in {name}; got damaged ones alone")
    if kind == "arrays":
        shapes = sorted({row.shape for row in found})
        if len(shapes) > 1 or found[0].dtype.kind not in "biuf":
            got = " and ".join(map(str, shapes[:3])) if len(shapes) > 1 else str(found[0].dtype)
            raise ValueError(f"expected arrays of numbers of one shape in {name}; got {got}")
        return Arrays(found[0].shape, found[0].dtype)
    common, times = Counter(sides for sides, _ in found).most_common(1)[0]
    # a few others are left out, and counted
    usual = [common] if times >= (1 - UNREAD[0]) * len(found) else [sides for sides, _ in found]
    size = target.size or images._one_size(np.array(usual), Path(name))
    colour = target.channels == "colour" or (
        target.channels is None and not all(grey for _, grey in found)
    )
    return Images(size, colour, target)


def _header(cell: bytes | None) -> tuple[tuple[int, int], bool]:
    sides, grey, reason = images._measured(io.BytesIO(cell or b""))
    if reason:
        raise ValueError(reason)
    return sides, grey


# -- rows ------------------------------------------------------------------------------------------


class _Source:
    """Hold what the streams over one set of shards share: how a block is read and decoded, what
    could not be, and the threads."""

    def __init__(
        self, index: shards.Index, reader: shards.Format, decoder: Decoder, strict: bool
    ) -> None:
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
        source: _Source,
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


# -- a source --------------------------------------------------------------------------------------


def read_shards(
    name: str,
    options: Mapping[str, Any],
    progress: images.Progress | None = None,
    given: Mapping[str, Sequence[str]] | None = None,
) -> Raw:
    """Read shards: streams by split, or arrays that were decoded once where `streaming=false` asks
    for that.

    Args:
        name: a folder, a pattern such as train-{0000..0099}.tar, a file or an address.
        options: `array`, the field that is the data; of images `size`, `crop`, `channels`;
            `strict`; `buffer`, the rows among which is shuffled; `streaming`, false to decode all
            into the cache.
        progress: called with what is done.
        given: the shards by split, where they are known.

    Raises:
        ValueError: there are no data, or what is there cannot be used.
        OSError: a shard cannot be reached, or the cache cannot be written.
    """
    index, kind = shards.indexed(name, options, progress, given)
    reader = shards.kind_of(index.files[0])(index.field)
    decoder = _decoder(index, reader, kind, options, name)
    if kind == "arrays":
        own = {
            "size": decoder.shape[:2],
            "channels": "grey" if len(decoder.shape) == 2 else "colour",
        }
        asked = images.target_of(options)
        unfit = [
            k
            for k in ("size", "crop", "channels")
            if k in options and (k == "crop" or getattr(asked, k) != own[k])
        ]
        if unfit:
            raise ValueError(
                f"expected no {unfit[0]}= for arrays in {name}, which stay as they are; got "
                f"{unfit[0]}={options[unfit[0]]}"
            )
    source = _Source(index, reader, decoder, bool(options.get("strict", False)))
    size = max(1, int(np.prod(decoder.shape)) * decoder.dtype.itemsize)
    buffer = options.get("buffer", max(1, min(BUFFER_ROWS, BUFFER_BYTES // size)))
    if buffer < 1:
        raise ValueError(f"expected a buffer of 1 row or more; got {buffer}")
    streams = {s: Stream(source, np.arange(a, b), buffer) for s, (a, b) in index.splits.items()}
    starts = np.append(index.starts, index.sizes.sum())
    attributes = {
        s: {n: v[starts[a] : starts[b]] for n, v in index.attributes.items()}
        for s, (a, b) in index.splits.items()
    }
    largest = int(index.sizes.max()) * size
    notes = [
        f"{len(index.files):,} shards of {index.field}, {int(index.sizes.sum()):,} rows",
        *index.notes,
    ]
    if options.get("streaming", True):
        if largest > 2 * BUFFER_BYTES:
            notes.append(
                f"blocks of up to {int(index.sizes.max()):,} rows ({largest / 2**30:.1f} GB "
                f"decoded): smaller row groups need less memory"
            )
        return Raw(streams, attributes, tuple(notes))
    if "buffer" in options:
        raise ValueError(f"expected no buffer= without streaming; got buffer={options['buffer']}")
    return _packed(streams, attributes, notes, options, name, progress)


def _packed(
    streams: Mapping[str, Stream],
    attributes: Mapping[str, Mapping[str, np.ndarray]],
    notes: list[str],
    options: Mapping[str, Any],
    name: str,
    progress: images.Progress | None,
) -> Raw:
    """Decode all rows into the cache; those that cannot be read are left out."""
    source = next(iter(streams.values())).source

    def make(folder: Path) -> dict[str, Any]:
        done, total = 0, sum(map(len, streams.values()))
        for i, (split, stream) in enumerate(streams.items()):
            array = cache.create_array(folder / f"part{i}.npy", stream.dtype, stream.shape)
            for start in range(0, len(stream), 4096):
                array[start : start + 4096] = stream[start : start + 4096]
                done += len(array[start : start + 4096])
                if progress is not None:
                    progress("decoding", done, total)
            array.flush()
            np.save(
                folder / f"kept{i}.npy", np.flatnonzero(stream.readable(np.arange(len(stream))))
            )
        return {"unread": [f"{source.said()}: left out"] if source.unread else []}

    settings = {**_settings(streams, options), "streaming": False}
    folder, meta = cache.entry(cache.key(KIND, (), settings, shards.rooted(name)), make, name)
    arrays, known = {}, {}
    for i, split in enumerate(streams):
        array, kept = (
            cache.open_array(folder / f"part{i}.npy"),
            np.asarray(cache.open_array(folder / f"kept{i}.npy")),
        )
        arrays[split] = array if len(kept) == len(array) else array[kept]
        known[split] = {n: v[kept] for n, v in attributes[split].items()}
    return Raw(arrays, known, (*notes, *meta["unread"]))


def _settings(streams: Mapping[str, Stream], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the decoded rows depend on."""
    decoder = next(iter(streams.values())).source.decoder
    prints = {s: stream.fingerprint() for s, stream in streams.items()}
    stamps = next(iter(streams.values())).source.index.stamps
    mine = {
        k: options[k] for k in ("size", "crop", "channels", "valid", "test", "seed") if k in options
    }
    return {
        "prints": prints,
        "stamps": stamps,
        "shape": decoder.shape,
        "dtype": decoder.dtype.str,
        **mine,
    }


def settled(
    parts: Mapping[str, Part],
    options: Mapping[str, Any],
    name: str,
    progress: images.Progress | None,
) -> tuple[dict[str, Part], dict[str, Part], list[str]]:
    """Decode once what is looked at again and again: the held-out data, and some rows of which is
    inferred what all are.

    Args:
        parts: the splits, of streams.
        options, name: of the source.
        progress: called with what is done.

    Returns:
        the splits, held-out ones as arrays; the same with some training rows as an array, to infer
        from; and what there is to say.

    Raises:
        OSError: a shard cannot be reached, or the cache cannot be written.
    """
    train, index = parts["train"].whole, parts["train"].index
    some = train.spread(min(FITTED, max(100, 2**28 // train.row_bytes)), index)
    some = some if index is None else index[some]
    once = {
        s: p for s, p in parts.items() if s != "train" and len(p) * train.row_bytes <= HELD_BYTES
    }

    def make(folder: Path) -> dict[str, Any]:
        done, total = 0, len(some) + sum(map(len, once.values()))
        wanted = {
            s: (p.whole, np.arange(len(p)) if p.index is None else p.index) for s, p in once.items()
        }
        for split, (stream, rows) in {"train": (train, some), **wanted}.items():
            array = cache.create_array(
                folder / f"{split}.npy", stream.dtype, (len(rows), *stream.shape[1:])
            )
            for start in range(0, len(rows), 4096):
                array[start : start + 4096] = stream[rows[start : start + 4096]]
                done += len(rows[start : start + 4096])
                if progress is not None:
                    progress("decoding what is held out", done, total)
            array.flush()
            kept = stream.readable(rows)
            left[split] = int((~kept).sum())
            np.save(folder / f"kept-{split}.npy", np.flatnonzero(kept))
        return {"left": left}

    left: dict[str, int] = {}
    settings = _settings({s: p.whole for s, p in parts.items()}, options)
    folder, meta = cache.entry(cache.key(KIND, (), settings, shards.rooted(name)), make, name)

    def held(split: str) -> np.ndarray:
        array = cache.open_array(folder / f"{split}.npy")
        return array[np.load(folder / f"kept-{split}.npy")] if meta["left"][split] else array

    made, notes = dict(parts), []
    for split, part in parts.items():
        if split in once:
            kept = np.load(folder / f"kept-{split}.npy")
            given = None if part.given is None else part.given[kept]
            made[split] = Part(
                held(split), None, {n: v[kept] for n, v in part.attributes.items()}, given
            )
            if meta["left"][split]:
                notes.append(
                    f"{meta['left'][split]:,} of {len(part):,} {split} rows left out, which "
                    f"cannot be read"
                )
    looked = {s: p for s, p in made.items() if s in once} | {"train": Part(held("train"))}
    notes.append(
        f"streamed, shuffled among {train.buffer:,} rows; statistics are of {len(some):,} "
        f"training rows"
    )
    return made, looked, notes
