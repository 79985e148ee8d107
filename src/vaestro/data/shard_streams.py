"""Shards as streams. Rows that are used repeatedly are decoded once and cached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from vaestro.data import cache, shards
from vaestro.data.decoders import Decoder, decoder_of
from vaestro.data.image_decoding import target_of
from vaestro.data.images import Progress
from vaestro.data.indexing import index_shards
from vaestro.data.passes import Part
from vaestro.data.raw import Json, Options, Raw
from vaestro.data.shard_formats import kind_of
from vaestro.data.streams import Source, Stream
from vaestro.text import InputError

KIND = "stream-1"
BUFFER_ROWS, BUFFER_BYTES = 8192, 2**27  # largest size of a window
FITTED = 10_000  # number of rows from which the space is inferred
HELD_BYTES = 2**31  # largest size of a held-out split that is cached


def read_shards(
    name: str,
    options: Options,
    progress: Progress | None = None,
    given: Mapping[str, Sequence[str]] | None = None,
) -> Raw[Stream] | Raw[np.ndarray]:
    """Read shards as streams by split, or, with `streaming=false`, as arrays.

    Args:
        name: a folder, a pattern such as train-{0000..0099}.tar, a file or an address.
        options: `array`, the field that is the data; `size`, `crop` and `channels` of images;
            `strict`; `buffer`, the number of rows of a window, within which rows are shuffled;
            `streaming`, false to decode all rows into the cache.
        progress: called with (what, done, total).
        given: the shards by split; by default those of `name`.

    Raises:
        ValueError: there are no data, or they cannot be used.
        OSError: a shard cannot be reached, or the cache cannot be written.
    """
    index, kind = index_shards(name, options, progress, given)
    reader = kind_of(index.files[0])(index.field)
    decoder = decoder_of(index, reader, kind, options, name)
    if kind == "arrays":
        _check_arrays(decoder, options, name)
    source = Source(index, reader, decoder, bool(options.get("strict", False)))
    size = max(1, int(np.prod(decoder.shape)) * decoder.dtype.itemsize)
    buffer = options.get("buffer", max(1, min(BUFFER_ROWS, BUFFER_BYTES // size)))
    if buffer < 1:
        raise ValueError(f"expected buffer to be 1 row or more; got buffer={buffer}")
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
                f"blocks have up to {int(index.sizes.max()):,} rows ({largest / 2**30:.1f} GB "
                f"decoded); smaller row groups need less memory"
            )
        return Raw(streams, attributes, tuple(notes))
    if "buffer" in options:
        raise InputError(
            f"buffer={options['buffer']} has no effect with streaming=false: leave one of them out"
        )
    return _packed(streams, attributes, notes, options, name, progress)


def _check_arrays(decoder: Decoder, options: Options, name: str) -> None:
    """Raise ValueError if an option for images is given for arrays."""
    asked, colour = target_of(options), len(decoder.shape) != 2
    unfit = {
        "size": asked.size != decoder.shape[:2],
        "crop": True,
        "channels": asked.channels != ("colour" if colour else "grey"),
    }
    for key, wrong in unfit.items():
        if key in options and wrong:
            raise InputError(
                f"{key}={options[key]} applies to images only, and {name} has arrays: leave "
                f"{key}= out"
            )


def _packed(
    streams: Mapping[str, Stream],
    attributes: Mapping[str, Mapping[str, np.ndarray]],
    notes: list[str],
    options: Options,
    name: str,
    progress: Progress | None,
) -> Raw[np.ndarray]:
    """Decode all readable rows into the cache."""
    source = next(iter(streams.values())).source

    def make(folder: Path) -> Json:
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
        unread = [f"{source.description()} (left out)"] if source.unread else []
        return {"unread": unread}

    settings = {**_settings(streams, options), "streaming": False}
    folder, meta = cache.entry(cache.key(KIND, (), settings, shards.cache_root(name)), make, name)
    arrays, attributes_kept = {}, {}
    for i, split in enumerate(streams):
        array, kept = (
            cache.open_array(folder / f"part{i}.npy"),
            np.asarray(cache.open_array(folder / f"kept{i}.npy")),
        )
        arrays[split] = array if len(kept) == len(array) else array[kept]
        attributes_kept[split] = {n: v[kept] for n, v in attributes[split].items()}
    return Raw(arrays, attributes_kept, (*notes, *meta["unread"]))


def _settings(streams: Mapping[str, Stream], options: Options) -> Json:
    """Return the settings that determine the decoded rows; they are the cache key."""
    decoder = next(iter(streams.values())).source.decoder
    prints = {s: stream.fingerprint() for s, stream in streams.items()}
    stamps = next(iter(streams.values())).source.index.stamps
    shared = {
        k: options[k] for k in ("size", "crop", "channels", "valid", "test", "seed") if k in options
    }
    return {
        "prints": prints,
        "stamps": stamps,
        "shape": decoder.shape,
        "dtype": decoder.dtype.str,
        **shared,
    }


def decode_repeated(
    parts: Mapping[str, Part], options: Options, name: str, progress: Progress | None
) -> tuple[dict[str, Part], dict[str, Part], list[str]]:
    """Decode the rows that are used repeatedly: held-out data, and a sample of the training rows.

    Args:
        parts: the splits, which are streams.
        options, name: of the source.
        progress: called with (what, done, total).

    Returns:
        The splits, with held-out ones as arrays; the same held-out splits and a sample of training
        rows, as arrays, from which the space is inferred; and notes.

    Raises:
        OSError: a shard cannot be reached, or the cache cannot be written.
    """
    train, index = parts["train"].whole, parts["train"].index
    some = train.spread(min(FITTED, max(100, 2**28 // train.row_bytes)), index)
    some = some if index is None else index[some]
    once = {
        s: p for s, p in parts.items() if s != "train" and len(p) * train.row_bytes <= HELD_BYTES
    }
    held_out = {
        s: (p.whole, np.arange(len(p)) if p.index is None else p.index) for s, p in once.items()
    }
    make = partial(_decode, {"train": (train, some), **held_out}, progress)
    settings = _settings({s: p.whole for s, p in parts.items()}, options)
    folder, meta = cache.entry(cache.key(KIND, (), settings, shards.cache_root(name)), make, name)

    def decoded(split: str) -> np.ndarray:
        array = cache.open_array(folder / f"{split}.npy")
        return array[np.load(folder / f"kept-{split}.npy")] if meta["left"][split] else array

    splits, notes = dict(parts), []
    for split, part in once.items():
        kept, left = np.load(folder / f"kept-{split}.npy"), meta["left"][split]
        given = None if part.given is None else part.given[kept]
        attributes = {n: v[kept] for n, v in part.attributes.items()}
        splits[split] = Part(decoded(split), None, attributes, given)
        if left:
            notes.append(f"{left:,} of {len(part):,} {split} rows cannot be read and are left out")
    arrays = {s: p for s, p in splits.items() if s in once} | {"train": Part(decoded("train"))}
    notes.append(
        f"streamed, shuffled within {train.buffer:,} rows; statistics are of {len(some):,} "
        f"training rows"
    )
    return splits, arrays, notes


def _decode(
    samples: Mapping[str, tuple[Stream, np.ndarray]], progress: Progress | None, folder: Path
) -> Json:
    """Decode rows of streams into files, and return the number of unreadable rows by split."""
    done, total = 0, sum(len(rows) for _, rows in samples.values())
    left: dict[str, int] = {}
    for split, (stream, rows) in samples.items():
        array = cache.create_array(
            folder / f"{split}.npy", stream.dtype, (len(rows), *stream.shape[1:])
        )
        for start in range(0, len(rows), 4096):
            array[start : start + 4096] = stream[rows[start : start + 4096]]
            done += len(rows[start : start + 4096])
            if progress is not None:
                progress("decoding held-out rows", done, total)
        array.flush()
        kept = stream.readable(rows)
        left[split] = int((~kept).sum())
        np.save(folder / f"kept-{split}.npy", np.flatnonzero(kept))
    return {"left": left}
