"""Read shards as streams, and decode once the rows that are used again and again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from vaestro.data import cache, images, shards
from vaestro.data.decoders import Decoder, decoder_of
from vaestro.data.images import Progress
from vaestro.data.indexing import indexed
from vaestro.data.passes import Part
from vaestro.data.raw import Json, Options, Raw
from vaestro.data.shard_formats import kind_of
from vaestro.data.streams import Source, Stream

KIND = "stream-1"
BUFFER_ROWS, BUFFER_BYTES = 8192, 2**27  # of a window, whichever is less
FITTED = 10_000  # rows from which is inferred what the data are
HELD_BYTES = 2**31  # of held-out data, up to which they are decoded once


def read_shards(
    name: str,
    options: Options,
    progress: Progress | None = None,
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
    index, kind = indexed(name, options, progress, given)
    reader = kind_of(index.files[0])(index.field)
    decoder = decoder_of(index, reader, kind, options, name)
    if kind == "arrays":
        _check_arrays(decoder, options, name)
    source = Source(index, reader, decoder, bool(options.get("strict", False)))
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


def _check_arrays(decoder: Decoder, options: Options, name: str) -> None:
    """Raise ValueError if an option would change arrays, which stay as they are."""
    asked, colour = images.target_of(options), len(decoder.shape) != 2
    unfit = {
        "size": asked.size != decoder.shape[:2],
        "crop": True,
        "channels": asked.channels != ("colour" if colour else "grey"),
    }
    for key, wrong in unfit.items():
        if key in options and wrong:
            raise ValueError(
                f"expected no {key}= for arrays in {name}, which stay as they are; got "
                f"{key}={options[key]}"
            )


def _packed(
    streams: Mapping[str, Stream],
    attributes: Mapping[str, Mapping[str, np.ndarray]],
    notes: list[str],
    options: Options,
    name: str,
    progress: Progress | None,
) -> Raw:
    """Decode all rows into the cache; those that cannot be read are left out."""
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


def _settings(streams: Mapping[str, Stream], options: Options) -> Json:
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
    parts: Mapping[str, Part], options: Options, name: str, progress: Progress | None
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
    wanted = {
        s: (p.whole, np.arange(len(p)) if p.index is None else p.index) for s, p in once.items()
    }
    make = partial(_decode, {"train": (train, some), **wanted}, progress)
    settings = _settings({s: p.whole for s, p in parts.items()}, options)
    folder, meta = cache.entry(cache.key(KIND, (), settings, shards.rooted(name)), make, name)

    def held(split: str) -> np.ndarray:
        array = cache.open_array(folder / f"{split}.npy")
        return array[np.load(folder / f"kept-{split}.npy")] if meta["left"][split] else array

    made, notes = dict(parts), []
    for split, part in once.items():
        kept, left = np.load(folder / f"kept-{split}.npy"), meta["left"][split]
        given = None if part.given is None else part.given[kept]
        attributes = {n: v[kept] for n, v in part.attributes.items()}
        made[split] = Part(held(split), None, attributes, given)
        if left:
            notes.append(f"{left:,} of {len(part):,} {split} rows left out, which cannot be read")
    looked = {s: p for s, p in made.items() if s in once} | {"train": Part(held("train"))}
    notes.append(
        f"streamed, shuffled among {train.buffer:,} rows; statistics are of {len(some):,} "
        f"training rows"
    )
    return made, looked, notes


def _decode(
    wanted: Mapping[str, tuple[Stream, np.ndarray]], progress: Progress | None, folder: Path
) -> Json:
    """Decode rows of streams into files, and return how many could not be read, by split."""
    done, total = 0, sum(len(rows) for _, rows in wanted.values())
    left: dict[str, int] = {}
    for split, (stream, rows) in wanted.items():
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
