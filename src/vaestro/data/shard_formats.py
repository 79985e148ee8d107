"""Formats of shards: WebDataset's .tar files and Parquet. An index has the place of each row."""

from __future__ import annotations

import functools
import itertools
import json
import os
import re
import tarfile
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np

from vaestro.data import arrow, cache, images, tables
from vaestro.data.columns import LETTERS, filled, named, stacked
from vaestro.data.raw import Json
from vaestro.data.shards import open_file, stamp
from vaestro.text import one_line

# of a .tar that are read together; of Parquet it is a row group
BLOCK_ROWS, BLOCK_BYTES = 256, 2**23


class Changed(OSError):
    """Report that a shard is not what it was when it was indexed."""


@dataclass(frozen=True, eq=False)
class Index:
    """Say where the rows of shards lie.

    Args:
        files: the shards, and `stamps`, which state of each was indexed.
        field: which part of a sample, or which column, is the data.
        file, place, sizes: of each block of rows: its shard, where in it the block begins, and how
            many rows it has.
        spans: of each row of .tar files, where its bytes begin and how many there are, (N, 2);
            empty of Parquet.
        splits: blocks (first, last + 1) of each split.
        attributes: what else is known of each row, each (N,).
        notes: what there is to say.
        damaged: of them, what names shards that are not whole.
    """

    files: tuple[str, ...]
    stamps: tuple[str, ...]
    field: str
    file: np.ndarray
    place: np.ndarray
    sizes: np.ndarray
    spans: np.ndarray
    splits: dict[str, tuple[int, int]]
    attributes: dict[str, np.ndarray]
    notes: tuple[str, ...]
    damaged: tuple[str, ...]

    def save(self, folder: Path) -> Json:
        """Write the arrays into a folder, and return the rest as JSON takes it."""
        for name in ("file", "place", "sizes", "spans"):
            np.save(folder / f"{name}.npy", getattr(self, name))
        for i, values in enumerate(self.attributes.values()):
            np.save(folder / f"attribute{i}.npy", values)
        words = {
            k: getattr(self, k) for k in ("files", "stamps", "field", "splits", "notes", "damaged")
        }
        return {**words, "attributes": list(self.attributes)}

    @classmethod
    def restore(cls, folder: Path, meta: Json) -> Index:
        """Return what `save` wrote."""
        arrays = {
            name: np.asarray(cache.open_array(folder / f"{name}.npy"))
            for name in ("file", "place", "sizes", "spans")
        }
        attributes = {
            name: np.asarray(cache.open_array(folder / f"attribute{i}.npy"))
            for i, name in enumerate(meta["attributes"])
        }
        return cls(
            files=tuple(meta["files"]),
            stamps=tuple(meta["stamps"]),
            field=meta["field"],
            splits={s: (a, b) for s, (a, b) in meta["splits"].items()},
            attributes=attributes,
            notes=tuple(meta["notes"]),
            damaged=tuple(meta["damaged"]),
            **arrays,
        )

    @functools.cached_property
    def starts(self) -> np.ndarray:
        """Return the first row of each block, (blocks,)."""
        return np.cumsum(self.sizes) - self.sizes


class Indexed(NamedTuple):
    """Hold what was found in one shard: where its blocks begin, the rows of each, spans of rows,
    attributes, and why the rest of it is
    left out, or nothing."""

    place: list[int]
    sizes: list[int]
    spans: np.ndarray
    attributes: dict[str, np.ndarray]
    damage: str


class Format(ABC):
    """Read shards of one kind, whose data are in one field."""

    def __init__(self, field: str) -> None:
        self.field = field

    @classmethod
    @abstractmethod
    def fields(cls, path: str) -> dict[str, str]:
        """Return what there is in a shard, by name: images, arrays, or another word for what cannot
        be streamed."""

    @abstractmethod
    def index(self, path: str) -> Indexed:
        """Say where the rows of a shard lie."""

    @abstractmethod
    def read(self, index: Index, block: int, rows: np.ndarray) -> list[bytes | None] | np.ndarray:
        """Return some rows of a block, by their numbers in it in rising order: the bytes of each,
        or an array.

        Raises:
            Changed: the shard is not what it was.
            ValueError: the block is damaged.
        """


def _unchanged(index: Index, number: int, file: Any) -> None:
    path = index.files[number]
    if stamp(path, file) != index.stamps[number]:
        raise Changed(
            f"expected {path} as it was when it was indexed; got one that changed (start again "
            f"or resume: it is indexed anew)"
        )


@final
class Tar(Format):
    """Read WebDataset's .tar files: files of one name up to the first dot are a sample, and their
    suffixes name its fields."""

    @classmethod
    def fields(cls, path: str) -> dict[str, str]:
        kinds: dict[str, str] = {}
        for _, field, _ in itertools.islice(_members(path, []), 1000):
            suffix = "." + field.rpartition(".")[2]
            kinds[field] = (
                "images"
                if suffix in images.SUFFIXES
                else "arrays"
                if suffix == ".npy"
                else "other files"
            )
        return kinds

    def index(self, path: str) -> Indexed:
        damage: list[str] = []
        spans, known = array("q"), dict[str, list[Any]]()
        rows = without = 0

        def of(sample: Mapping[str, tuple[int, int]], beside: Mapping[str, bytes]) -> None:
            nonlocal rows, without
            if self.field not in sample:
                without += 1
                return
            spans.extend(sample[self.field])
            told = _told(beside) if beside else {}
            if rows == 0:
                known.update((name, []) for name in told)
            for name in [n for n in known if n not in told]:
                del known[name]
            for name, values in known.items():
                values.append(told[name])
            rows += 1

        with open_file(path) as file:
            last, sample, beside = None, dict[str, tuple[int, int]](), dict[str, bytes]()
            for key, field, info in _members(path, damage, file):
                if key != last and sample:
                    of(sample, beside)
                    sample, beside = {}, {}
                if field in ("cls", "json") and info.size < 2**16:
                    file.seek(info.offset_data)
                    beside[field] = file.read(info.size)
                last, sample[field] = key, (info.offset_data, info.size)
            if sample:
                of(sample, beside)
        held = np.array(spans, np.int64).reshape(-1, 2)
        places, sizes = _blocks(held[:, 1])
        if without:
            damage.append(f"{without:,} samples without .{self.field} are left out")
        return Indexed(
            places,
            sizes,
            held,
            {n: np.array(values) for n, values in known.items()},
            "; ".join(damage),
        )

    def read(self, index: Index, block: int, rows: np.ndarray) -> list[bytes | None] | np.ndarray:
        number, first = int(index.file[block]), int(index.starts[block])
        spans = index.spans[first + rows]
        begin, end = int(spans[:, 0].min()), int(spans.sum(1).max())
        with open_file(index.files[number]) as file:
            _unchanged(index, number, file)
            # most of what lies between is asked for
            if end - begin <= 2 * int(spans[:, 1].sum()) + 2**16:
                file.seek(begin)
                held = memoryview(file.read(end - begin))
                return [bytes(held[at - begin : at - begin + size]) for at, size in spans.tolist()]
            cells: list[bytes | None] = []
            for at, size in spans.tolist():
                file.seek(at)
                cells.append(file.read(size))
            return cells


def _blocks(sizes: np.ndarray) -> tuple[list[int], list[int]]:
    """Cut rows of so many bytes into blocks; returns the first row of each, and how many it has."""
    places, counts, first = list[int](), list[int](), 0
    ends = np.cumsum(sizes)
    while first < len(sizes):
        before = ends[first] - sizes[first]
        last = min(
            first + BLOCK_ROWS,
            max(first + 1, int(np.searchsorted(ends, before + BLOCK_BYTES, "right"))),
            len(sizes),
        )
        places.append(first)
        counts.append(last - first)
        first = last
    return places, counts


def _members(
    path: str, damage: list[str], file: Any = None
) -> Iterator[tuple[str, str, tarfile.TarInfo]]:
    """Yield the files in a .tar as (key, field, where); what is wrong with it goes to `damage`, and
    ends it."""
    opened = open_file(path) if file is None else file
    try:
        size = opened.seek(0, os.SEEK_END)
        opened.seek(0)
        try:
            archive = tarfile.open(fileobj=opened, mode="r:")  # noqa: SIM115
        except tarfile.TarError:
            damage.append("it is damaged, or no .tar")
            return
        end = 0
        while True:
            try:
                info = archive.next()
            except (tarfile.TarError, ValueError, OSError):
                damage.append("it is cut short or damaged, and the rest of it is left out")
                return
            if info is None:
                break
            vars(archive)["members"] = []  # an archive keeps all that it has read
            end = info.offset_data + -(-info.size // 512) * 512
            if info.offset_data + info.size > size:
                damage.append("it is cut short, and the rest of it is left out")
                return
            folder, _, base = info.name.rpartition("/")
            stem, dot, field = base.partition(".")
            if info.isreg() and stem and dot:
                yield f"{folder}/{stem}", field.lower(), info
        if size < end + 512:
            damage.append("it has no end, and may be cut short")
    finally:
        if file is None:
            opened.close()


def _told(fields: Mapping[str, bytes]) -> Json:
    """Return what the small files beside a row say of it: its class, and single values of JSON."""
    found: dict[str, Any] = {}
    for field, content in fields.items():
        try:
            text = content.decode()
            values = {"class": text.strip()} if field == "cls" else json.loads(text)
        except ValueError:
            continue
        for name, value in values.items() if isinstance(values, dict) else ():
            if field == "cls" and re.fullmatch(r"-?\d{1,18}", value):
                value = int(value)
            if isinstance(value, (bool, int, float)) or (
                isinstance(value, str) and len(value) <= LETTERS
            ):
                found[name] = value
    return found


@final
class Parquet(Format):
    """Read Parquet shards, whose row groups are the blocks."""

    @classmethod
    def fields(cls, path: str) -> dict[str, str]:
        with open_parquet(path) as file:
            return {field.name: _kind(field.type) for field in file.schema_arrow}

    def index(self, path: str) -> Indexed:
        empty = np.zeros((0, 2), np.int64)
        try:
            with open_parquet(path) as file:
                if self.field not in file.schema_arrow.names:
                    return Indexed([], [], empty, {}, f"it has no column {self.field!r}")
                sizes = [
                    file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)
                ]
                held = attributes_of(file, self.field, path)
        except damage_errors() as error:
            return Indexed([], [], empty, {}, f"it is cut short or damaged ({one_line(error)})")
        there = [i for i, size in enumerate(sizes) if size]
        return Indexed(there, [sizes[i] for i in there], empty, held, "")

    def read(self, index: Index, block: int, rows: np.ndarray) -> list[bytes | None] | np.ndarray:
        number = int(index.file[block])
        path = index.files[number]
        with open_file(path) as opened:
            _unchanged(index, number, opened)
            try:
                with open_parquet(path, opened, index.stamps[number]) as file:
                    column = file.read_row_group(
                        int(index.place[block]), columns=[self.field], use_threads=False
                    )[self.field]
                if _kind(column.type) == "arrays":
                    return stacked(column, self.field, path)[rows]
                import pyarrow

                cells = column.take(pyarrow.array(rows)).to_pylist()
            except damage_errors() as error:
                raise ValueError(f"{path} is damaged ({one_line(error)})") from error
        return [cell.get("bytes") if isinstance(cell, dict) else cell for cell in cells]


def damage_errors() -> tuple[type[Exception], ...]:
    """Return the errors that a damaged Parquet file raises."""
    import pyarrow

    return (pyarrow.ArrowException, OSError, ValueError)


def open_parquet(path: str, opened: Any = None, stamp: str | None = None) -> Any:
    """Open a Parquet file; of one that was indexed, its footer is read once."""
    pa = arrow.arrow("read .parquet")
    footer = None if stamp is None else _footer(path, stamp)
    file = open_file(path) if opened is None else opened
    try:
        return pa.parquet.ParquetFile(file, metadata=footer)
    except BaseException:
        if opened is None:
            file.close()
        raise


@functools.lru_cache(256)
def _footer(path: str, stamp: str) -> Any:
    with open_parquet(path) as file:
        return file.metadata


def _kind(kind: Any) -> str:
    """Say what an Arrow column holds: images, arrays, texts, single values, or other things."""
    import pyarrow.types as types

    kind = getattr(kind, "storage_type", kind)
    if types.is_struct(kind):
        names = [kind.field(i).name for i in range(kind.num_fields)]
        return (
            "images"
            if "bytes" in names and types.is_binary(kind.field("bytes").type)
            else "other things"
        )
    if types.is_binary(kind) or types.is_large_binary(kind):
        return "images"
    if types.is_string(kind) or types.is_large_string(kind):
        return "texts"
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        while types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
            kind = kind.value_type
        return (
            "arrays"
            if types.is_floating(kind) or types.is_integer(kind) or types.is_boolean(kind)
            else "other things"
        )
    return "other things" if types.is_nested(kind) else "single values"


def attributes_of(file: Any, field: str, path: str) -> dict[str, np.ndarray]:
    """Return a Parquet file's columns of single values beside the data, each (N,), with the names
    of classes for their codes where the
    datasets library left them."""
    import pyarrow.compute as compute

    singles = [
        f.name
        for f in file.schema_arrow
        if f.name != field and _kind(f.type) in ("single values", "texts")
    ]
    table = file.read(columns=singles).select(singles)
    about = (
        json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
        .get("info", {})
        .get("features", {})
    )
    found = {}
    for name in singles:
        names = about.get(name, {}).get("names") if isinstance(about.get(name), dict) else None
        if names is not None:
            table = named(table, name, names)
        if (
            "string" in str(table[name].type)
            and (compute.max(compute.utf8_length(table[name])).as_py() or 0) > LETTERS
        ):
            continue
        try:
            found[name] = filled(tables.frame_of(table.select([name]), path).columns[name])
        except ValueError:  # times of day, infinite numbers
            continue
    return found


def kind_of(path: str) -> type[Format]:
    """Return what reads a shard."""
    return Tar if path.lower().endswith(".tar") else Parquet
