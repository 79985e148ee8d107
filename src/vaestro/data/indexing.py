"""The index of shards: the position of each row, its block of rows that are read together, and its
attributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from vaestro.data import cache
from vaestro.data.columns import padded, series
from vaestro.data.images import Progress
from vaestro.data.raw import Json, Options
from vaestro.data.shard_formats import (
    Format,
    Index,
    Parquet,
    ShardIndex,
    attributes_of,
    damage_errors,
    kind_of,
    open_parquet,
)
from vaestro.data.shards import by_split, cache_root, list_shards, remote, stamp
from vaestro.text import InputError, is_input_error, nearest, one_line, typed, unquoted

KIND = "shards-1"


def read_series(
    files: Sequence[str], options: Options, name: str
) -> tuple[np.ndarray, dict[str, np.ndarray], list[str]]:
    """Read Parquet files with one series per row.

    Args:
        files: the paths.
        options, name: of the source.

    Returns:
        the series, (N, T) or (N, T, C), with NaN after the end of shorter ones; the attributes of
        each row, by name, each (N,); and notes.

    Raises:
        ValueError: there is no such column, or a file is damaged.
    """
    field = _data_field(_fields(files, name), options, name)
    parts, attributes, empty = [], [], 0
    for path in files:
        try:
            with open_parquet(path) as file:
                part = series(file.read(columns=[field])[field], field, path)
                others = attributes_of(file, field, path)
        except damage_errors() as error:
            if is_input_error(error):
                raise
            raise InputError(f"{path} is damaged or truncated ({one_line(error)})") from error
        observed = ~np.isnan(part.reshape(len(part), -1)).all(1)
        empty += int((~observed).sum())
        parts.append(part[observed])
        attributes.append({n: v[observed] for n, v in others.items()})
    if len({part.shape[2:] for part in parts}) > 1:
        channels = sorted({part.shape[2] if part.ndim > 2 else 1 for part in parts})
        raise ValueError(
            f"expected series with the same number of channels in all files of {name}; got "
            f"{' and '.join(map(str, channels))}"
        )
    longest = max(part.shape[1] for part in parts)
    if not longest or not sum(map(len, parts)):
        raise InputError(f"all series in column {field!r} of {name} are empty")
    names = [n for n in attributes[0] if all(n in columns for columns in attributes)]
    notes = [f"{empty:,} rows without a series left out"] if empty else []
    return (
        np.concatenate([padded(p, longest) for p in parts]),
        {n: np.concatenate([columns[n] for columns in attributes]) for n in names},
        notes,
    )


def streamable(path: Path) -> bool:
    """Return whether a Parquet file has a column of images or arrays."""
    try:
        return bool({"images", "arrays"} & set(Parquet.fields(str(path)).values()))
    except (OSError, ValueError):
        return False


def one_list(path: Path) -> bool:
    """Return whether a Parquet file has one column of lists or arrays."""
    try:
        return list(Parquet.fields(str(path)).values()).count("arrays") == 1
    except (OSError, ValueError):
        return False


def single_valued_splits(name: str) -> dict[str, list[str]] | None:
    """Return the shards by split if they are a table: local Parquet files with only single values
    and texts. Otherwise return None."""
    files = list_shards(name)
    table = (
        kind_of(files[0]) is Parquet
        and not remote(name)
        and not {"images", "arrays"} & set(_fields(files, name).values())
    )
    return by_split(files, name) if table else None


def _fields(files: Sequence[str], name: str) -> dict[str, str]:
    """Return the fields of the first shard that can be read."""
    for path in files:
        try:
            fields = kind_of(path).fields(path)
        except (OSError, ValueError):
            continue
        if fields:
            return fields
    what = f"{files[0]} is" if len(files) == 1 else f"all {len(files):,} shards of {name} are"
    raise InputError(f"{what} damaged or empty")


def _data_field(fields: Mapping[str, str], options: Options, name: str) -> str:
    """Return the field that is the data."""
    data = [field for field, kind in fields.items() if kind in ("images", "arrays")]
    if "array" in options:
        field = unquoted(str(options["array"])).removeprefix(".")
        if field not in data:
            raise ValueError(
                f"expected array= to name images or arrays in {name}: {nearest(field, data)}; "
                f"got {field!r}"
            )
        return field
    for kind in ("images", "arrays"):
        candidates = [field for field in data if fields[field] == kind]
        if len(candidates) > 1:
            raise ValueError(
                f"expected one field of {kind} in {name}; got {', '.join(candidates)}: choose one "
                f"with {typed('array', candidates[0])}"
            )
        if candidates:
            return candidates[0]
    others = ", ".join(list(fields)[:9])
    raise ValueError(f"expected images (.jpg, .png) or arrays (.npy) in {name}; got {others}")


def index_shards(
    name: str,
    options: Options,
    progress: Progress | None = None,
    given: Mapping[str, Sequence[str]] | None = None,
) -> tuple[Index, str]:
    """Index shards, or read their index from the cache.

    Args:
        name: a folder, a pattern, a file or an address.
        options: `array`, the field that is the data; `strict`, to refuse damaged shards.
        progress: called with (what, done, total).
        given: the shards by split; by default those of `name`.

    Returns:
        the index, and the kind of the data: images or arrays.

    Raises:
        ValueError: there is nothing to read, or shards are damaged and `strict` is set.
        OSError: a shard cannot be reached, or the cache cannot be written.
    """
    splits = by_split(list_shards(name), name) if given is None else given
    files = [file for files_of in splits.values() for file in files_of]
    stamps = [stamp(file) for file in files]
    fields = _fields(files, name)
    field = _data_field(fields, options, name)
    reader = kind_of(files[0])(field)

    def make(folder: Path) -> Json:
        return _indexed(reader, splits, stamps, name, progress).save(folder)

    settings = {
        "field": field,
        "files": list(zip(files, stamps, strict=True)),
        "splits": {s: len(f) for s, f in splits.items()},
    }
    folder, meta = cache.entry(cache.key(KIND, (), settings, cache_root(name)), make, name)
    index = Index.restore(folder, meta)
    if options.get("strict", False) and index.damaged:
        raise InputError(
            f"a shard is damaged, and strict=true allows none ({index.damaged[0]}): repair it, "
            f"or leave out strict=true"
        )
    return index, fields[field]


def _indexed(
    reader: Format,
    splits: Mapping[str, Sequence[str]],
    stamps: Sequence[str],
    name: str,
    progress: Progress | None,
) -> Index:
    """Return the index of all shards."""
    files = [file for files_of in splits.values() for file in files_of]
    shards: list[ShardIndex] = []
    for i, path in enumerate(files):
        shards.append(reader.index(path))
        if progress is not None:
            progress("indexing shards", i + 1, len(files))
    damaged = [
        f"{path}: {shard.damage}" for path, shard in zip(files, shards, strict=True) if shard.damage
    ]
    rows = [sum(shard.sizes) for shard in shards]
    reason = f" ({damaged[0]})" if damaged else ""
    if not sum(rows):
        raise ValueError(f"expected rows in the shards of {name}; got none{reason}")
    blocks = np.cumsum([0] + [len(shard.sizes) for shard in shards])
    ranges, at = {}, 0
    for split, files_of in splits.items():
        ranges[split] = (int(blocks[at]), int(blocks[at + len(files_of)]))
        at += len(files_of)
        if ranges[split][0] == ranges[split][1]:
            raise ValueError(f"expected rows in the {split} shards of {name}; got none{reason}")
    columns = [shard.attributes for shard, n in zip(shards, rows, strict=True) if n]
    kinds = {n: values.dtype.kind for n, values in columns[0].items()}
    names = [n for n in kinds if all(n in c and c[n].dtype.kind == kinds[n] for c in columns)]
    notes = [
        f"{len(damaged):,} of {len(files):,} shards are damaged: {'; '.join(damaged[:3])}"
        + (" .." if damaged[3:] else "")
    ]
    return Index(
        files=tuple(files),
        stamps=tuple(stamps),
        field=reader.field,
        file=np.repeat(np.arange(len(files)), [len(shard.sizes) for shard in shards]),
        place=np.array([p for shard in shards for p in shard.place], np.int64),
        sizes=np.array([s for shard in shards for s in shard.sizes], np.int64),
        spans=np.concatenate([shard.spans for shard in shards]),
        splits=ranges,
        attributes={n: np.concatenate([c[n] for c in columns]) for n in names},
        notes=tuple(notes) if damaged else (),
        damaged=tuple(damaged),
    )
