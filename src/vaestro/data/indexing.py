"""Index shards once: the place of each row, its block of rows that are read together, and its
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
    Indexed,
    Parquet,
    attributes_of,
    damage_errors,
    kind_of,
    open_parquet,
)
from vaestro.data.shards import by_split, listed, remote, rooted, stamp
from vaestro.text import nearest, one_line, unquoted

KIND = "shards-1"


def read_series(
    files: Sequence[str], options: Options, name: str
) -> tuple[np.ndarray, dict[str, np.ndarray], list[str]]:
    """Read Parquet with one series a row into an array with NaN where series end; returns what else
    is known of each row, and notes.

    Raises:
        ValueError: there is no such column, or a file is damaged.
    """
    field = _chosen(_fields(files, name), options, name)
    parts, known, empty = [], [], 0
    for path in files:
        try:
            with open_parquet(path) as file:
                part, beside = (
                    series(file.read(columns=[field])[field], field, path),
                    attributes_of(file, field, path),
                )
        except damage_errors() as error:
            if str(error).startswith("expected"):
                raise
            raise ValueError(
                f"expected a readable .parquet file; got {path}, which is damaged or cut short "
                f"({one_line(error)})"
            ) from error
        there = ~np.isnan(part.reshape(len(part), -1)).all(1)
        empty += int((~there).sum())
        parts.append(part[there])
        known.append({n: v[there] for n, v in beside.items()})
    if len({part.shape[2:] for part in parts}) > 1:
        raise ValueError(f"expected series of as many channels in all of {name}; got several")
    longest = max(part.shape[1] for part in parts)
    if not longest or not sum(map(len, parts)):
        raise ValueError(f"expected series in column {field!r} of {name}; got empty ones alone")
    names = [n for n in known[0] if all(n in held for held in known)]
    notes = [f"{empty:,} rows without a series left out"] if empty else []
    return (
        np.concatenate([padded(p, longest) for p in parts]),
        {n: np.concatenate([held[n] for held in known]) for n in names},
        notes,
    )


def streamable(path: Path) -> bool:
    """Tell whether a single Parquet file has a column of images or arrays."""
    try:
        return bool({"images", "arrays"} & set(Parquet.fields(str(path)).values()))
    except (OSError, ValueError):
        return False


def plain(name: str) -> dict[str, list[str]] | None:
    """Return the shards by split where they are Parquet of single values and texts alone, which are
    a table; else None."""
    files = listed(name)
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
            found = kind_of(path).fields(path)
        except (OSError, ValueError):
            continue
        if found:
            return found
    raise ValueError(
        f"expected shards that can be read in {name}; got {len(files):,} that are damaged or "
        f"empty, such as {files[0]}"
    )


def _chosen(fields: Mapping[str, str], options: Options, name: str) -> str:
    """Return the field that is the data."""
    data = [field for field, kind in fields.items() if kind in ("images", "arrays")]
    if "array" in options:
        asked = unquoted(str(options["array"])).removeprefix(".")
        if asked not in data:
            raise ValueError(
                f"expected array= to name images or arrays in {name}: {nearest(asked, data)}; "
                f"got {asked!r}"
            )
        return asked
    for kind in ("images", "arrays"):
        found = [field for field in data if fields[field] == kind]
        if len(found) > 1:
            raise ValueError(
                f"expected one field of {kind} in {name}; got {', '.join(found)}: try "
                f"{name}:array={found[0]}"
            )
        if found:
            return found[0]
    there = ", ".join(list(fields)[:9]) or "nothing"
    raise ValueError(f"expected images (.jpg, .png) or arrays (.npy) in {name}; got {there}")


def indexed(
    name: str,
    options: Options,
    progress: Progress | None = None,
    given: Mapping[str, Sequence[str]] | None = None,
) -> tuple[Index, str]:
    """Index shards, or take from the cache what was found in them before; returns what the data are
    too, images or arrays.

    Args:
        name: a folder, a pattern, a file or an address.
        options: `array`, the field that is the data; `strict`, to refuse shards that are not whole.
        progress: called with what is done.
        given: the shards by split, where they are known.

    Raises:
        ValueError: there is nothing to read, or shards are damaged and `strict` was asked for.
        OSError: a shard cannot be reached, or the cache cannot be written.
    """
    splits = by_split(listed(name), name) if given is None else given
    files = [file for held in splits.values() for file in held]
    stamps = [stamp(file) for file in files]
    fields = _fields(files, name)
    field = _chosen(fields, options, name)
    reader = kind_of(files[0])(field)

    def make(folder: Path) -> Json:
        return _indexed(reader, splits, stamps, name, progress).save(folder)

    settings = {
        "field": field,
        "files": list(zip(files, stamps, strict=True)),
        "splits": {s: len(f) for s, f in splits.items()},
    }
    folder, meta = cache.entry(cache.key(KIND, (), settings, rooted(name)), make, name)
    index = Index.restore(folder, meta)
    if options.get("strict", False) and index.damaged:
        raise ValueError(f"expected whole shards, as strict=true asks; got {index.damaged[0]}")
    return index, fields[field]


def _indexed(
    reader: Format,
    splits: Mapping[str, Sequence[str]],
    stamps: Sequence[str],
    name: str,
    progress: Progress | None,
) -> Index:
    files = [file for held in splits.values() for file in held]
    found: list[Indexed] = []
    for i, path in enumerate(files):
        found.append(reader.index(path))
        if progress is not None:
            progress("indexing shards", i + 1, len(files))
    damaged = [
        f"{path}: {one.damage}" for path, one in zip(files, found, strict=True) if one.damage
    ]
    rows = [sum(one.sizes) for one in found]
    if not sum(rows):
        raise ValueError(
            f"expected rows in the shards of {name}; got none"
            + (f" ({damaged[0]})" if damaged else "")
        )
    blocks = np.cumsum([0] + [len(one.sizes) for one in found])
    cuts, at = {}, 0
    for split, held in splits.items():
        cuts[split] = (int(blocks[at]), int(blocks[at + len(held)]))
        at += len(held)
        if cuts[split][0] == cuts[split][1]:
            raise ValueError(
                f"expected rows in the {split} shards of {name}; got none"
                + (f" ({damaged[0]})" if damaged else "")
            )
    filled_in = [one.attributes for one, n in zip(found, rows, strict=True) if n]
    names = [
        n
        for n in filled_in[0]
        if all(n in held and held[n].dtype.kind == filled_in[0][n].dtype.kind for held in filled_in)
    ]
    notes = [
        f"{len(damaged):,} of {len(files):,} shards are not whole: {'; '.join(damaged[:3])}"
        + (" .." if damaged[3:] else "")
    ]
    return Index(
        files=tuple(files),
        stamps=tuple(stamps),
        field=reader.field,
        file=np.repeat(np.arange(len(files)), [len(one.sizes) for one in found]),
        place=np.array([p for one in found for p in one.place], np.int64),
        sizes=np.array([s for one in found for s in one.sizes], np.int64),
        spans=np.concatenate([one.spans for one in found]),
        splits=cuts,
        attributes={n: np.concatenate([held[n] for held in filled_in]) for n in names},
        notes=tuple(notes) if damaged else (),
        damaged=tuple(damaged),
    )
