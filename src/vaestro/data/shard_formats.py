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
from typing import IO, TYPE_CHECKING, NamedTuple, final

import numpy as np

from vaestro.column_types import arrow
from vaestro.data import cache, image_files, tables
from vaestro.data.columns import LETTERS, filled, named, stacked
from vaestro.data.raw import Json
from vaestro.data.shards import open_file, stamp
from vaestro.text import is_input_error, one_line

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet

# largest block of a .tar file, in rows and bytes; a block of a Parquet file is a row group
BLOCK_ROWS, BLOCK_BYTES = 256, 2**23
Cell = bool | int | float | str  # attribute of a row


class ShardChanged(OSError):
    """Report that a shard has changed since it was indexed."""


@dataclass(frozen=True, eq=False)
class Index:
    """Store the position of each row of shards.

    Args:
        files: the shards.
        stamps: the state of each shard when it was indexed.
        field: the part of a sample, or the column, that is the data.
        file: of each block of rows, the number of its shard, (blocks,).
        place: of each block, its position in its shard, (blocks,).
        sizes: of each block, its number of rows, (blocks,).
        spans: offset and size in bytes of each row of .tar files, (N, 2); empty for Parquet.
        splits: (first block, last block + 1) of each split.
        attributes: other values of each row, by name, each (N,).
        notes: for the user, one line each.
        damaged: notes on damaged shards.
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
        """Write the arrays into a folder, and return the other fields for JSON."""
        arrays = {"file": self.file, "place": self.place, "sizes": self.sizes, "spans": self.spans}
        for name, values in arrays.items():
            np.save(folder / f"{name}.npy", values)
        for i, values in enumerate(self.attributes.values()):
            np.save(folder / f"attribute{i}.npy", values)
        return {
            "files": self.files,
            "stamps": self.stamps,
            "field": self.field,
            "splits": self.splits,
            "notes": self.notes,
            "damaged": self.damaged,
            "attributes": list(self.attributes),
        }

    @classmethod
    def restore(cls, folder: Path, meta: Json) -> Index:
        """Return an index that `save` wrote."""
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


class ShardIndex(NamedTuple):
    """Hold the index of one shard."""

    place: list[int]  # position of each block
    sizes: list[int]  # rows of each block
    spans: np.ndarray  # offset and size in bytes of each row, (rows, 2)
    attributes: dict[str, np.ndarray]
    damage: str  # why some rows are left out; empty if none are


class Format(ABC):
    """Read shards of one format, whose data are in one field."""

    def __init__(self, field: str) -> None:
        self.field = field

    @classmethod
    @abstractmethod
    def fields(cls, path: str) -> dict[str, str]:
        """Return the kind of each field of a shard, by name: images, arrays, or another word for a
        kind that cannot be streamed."""

    @abstractmethod
    def index(self, path: str) -> ShardIndex:
        """Return the positions of the rows of a shard."""

    @abstractmethod
    def read(self, index: Index, block: int, rows: np.ndarray) -> list[bytes | None] | np.ndarray:
        """Return some rows of a block: the bytes of each, or an array.

        Args:
            index: of the shards.
            block: number of the block.
            rows: positions in the block, in rising order.

        Raises:
            ShardChanged: the shard has changed since it was indexed.
            ValueError: the block is damaged.
        """


def _unchanged(index: Index, number: int, file: IO[bytes]) -> None:
    """Raise ShardChanged if a shard has changed since it was indexed."""
    path = index.files[number]
    if stamp(path, file) != index.stamps[number]:
        raise ShardChanged(
            f"{path} has changed since it was indexed (start again, or resume; it will be indexed "
            f"again)"
        )


@final
class Tar(Format):
    """Read WebDataset's .tar files. Files with the same name up to the first dot are a sample;
    their suffixes are the names of its fields."""

    @classmethod
    def fields(cls, path: str) -> dict[str, str]:
        kinds: dict[str, str] = {}
        for _, field, _ in itertools.islice(_members(path, []), 1000):
            suffix = "." + field.rpartition(".")[2]
            kinds[field] = (
                "images"
                if suffix in image_files.SUFFIXES
                else "arrays"
                if suffix == ".npy"
                else "other files"
            )
        return kinds

    def index(self, path: str) -> ShardIndex:
        damage: list[str] = []
        flat, columns = array("q"), dict[str, list[Cell]]()
        rows = without = 0

        def add(sample: Mapping[str, tuple[int, int]], files: Mapping[str, bytes]) -> None:
            nonlocal rows, without
            if self.field not in sample:
                without += 1
                return
            flat.extend(sample[self.field])
            cells = _cells(files) if files else {}
            if rows == 0:
                columns.update((name, []) for name in cells)
            for name in [n for n in columns if n not in cells]:
                del columns[name]
            for name, values in columns.items():
                values.append(cells[name])
            rows += 1

        with open_file(path) as file:
            last, sample, files = None, dict[str, tuple[int, int]](), dict[str, bytes]()
            for key, field, info in _members(path, damage, file):
                if key != last and sample:
                    add(sample, files)
                    sample, files = {}, {}
                if field in ("cls", "json") and info.size < 2**16:
                    file.seek(info.offset_data)
                    files[field] = file.read(info.size)
                last, sample[field] = key, (info.offset_data, info.size)
            if sample:
                add(sample, files)
        spans = np.array(flat, np.int64).reshape(-1, 2)
        places, sizes = _blocks(spans[:, 1])
        if without:
            damage.append(f"{without:,} samples without .{self.field} are left out")
        return ShardIndex(
            places,
            sizes,
            spans,
            {name: np.array(values) for name, values in columns.items()},
            "; ".join(damage),
        )

    def read(self, index: Index, block: int, rows: np.ndarray) -> list[bytes | None] | np.ndarray:
        number, first = int(index.file[block]), int(index.starts[block])
        spans = index.spans[first + rows]
        begin, end = int(spans[:, 0].min()), int(spans.sum(1).max())
        with open_file(index.files[number]) as file:
            _unchanged(index, number, file)
            # read the whole span if about half of its bytes are needed
            if end - begin <= 2 * int(spans[:, 1].sum()) + 2**16:
                file.seek(begin)
                content = memoryview(file.read(end - begin))
                return [
                    bytes(content[at - begin : at - begin + size]) for at, size in spans.tolist()
                ]
            cells: list[bytes | None] = []
            for at, size in spans.tolist():
                file.seek(at)
                cells.append(file.read(size))
            return cells


def _blocks(sizes: np.ndarray) -> tuple[list[int], list[int]]:
    """Group rows into blocks by their sizes in bytes; return the first row and the number of rows
    of each block."""
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
    path: str, damage: list[str], file: IO[bytes] | None = None
) -> Iterator[tuple[str, str, tarfile.TarInfo]]:
    """Yield the files in a .tar as (key, field, entry), up to the first damage, which is appended
    to `damage`."""
    opened = open_file(path) if file is None else file
    try:
        size = opened.seek(0, os.SEEK_END)
        opened.seek(0)
        try:
            archive = tarfile.open(fileobj=opened, mode="r:")  # noqa: SIM115
        except tarfile.TarError:
            damage.append("it is damaged, or not a .tar file")
            return
        end = 0
        while True:
            try:
                info = archive.next()
            except (tarfile.TarError, ValueError, OSError):
                damage.append("it is truncated or damaged; the rest of it is left out")
                return
            if info is None:
                break
            vars(archive)["members"] = []  # otherwise the archive object accumulates all entries
            end = info.offset_data + -(-info.size // 512) * 512
            if info.offset_data + info.size > size:
                damage.append("it is truncated; the rest of it is left out")
                return
            folder, _, base = info.name.rpartition("/")
            stem, dot, field = base.partition(".")
            if info.isreg() and stem and dot:
                yield f"{folder}/{stem}", field.lower(), info
        if size < end + 512:
            damage.append("it has no end mark, and may be truncated")
    finally:
        if file is None:
            opened.close()


def _cells(files: Mapping[str, bytes]) -> dict[str, Cell]:
    """Return the attributes of a row from its .cls and .json files: its class, and single values of
    JSON."""
    cells: dict[str, Cell] = {}
    for field, content in files.items():
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
                cells[name] = value
    return cells


@final
class Parquet(Format):
    """Read Parquet shards, whose row groups are the blocks."""

    @classmethod
    def fields(cls, path: str) -> dict[str, str]:
        with open_parquet(path) as file:
            return {field.name: _kind(field.type) for field in file.schema_arrow}

    def index(self, path: str) -> ShardIndex:
        empty = np.zeros((0, 2), np.int64)
        try:
            with open_parquet(path) as file:
                if self.field not in file.schema_arrow.names:
                    return ShardIndex([], [], empty, {}, f"it has no column {self.field!r}")
                sizes = [
                    file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)
                ]
                attributes = attributes_of(file, self.field, path)
        except damage_errors() as error:
            return ShardIndex([], [], empty, {}, f"it is truncated or damaged ({one_line(error)})")
        filled_groups = [i for i, size in enumerate(sizes) if size]
        return ShardIndex(filled_groups, [sizes[i] for i in filled_groups], empty, attributes, "")

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
                    otherwise = ", or read lists of several lengths with series=true"
                    return stacked(column, self.field, path, otherwise)[rows]
                import pyarrow

                cells = column.take(pyarrow.array(rows)).to_pylist()
            except damage_errors() as error:
                if is_input_error(error):
                    raise
                raise ValueError(f"{path} is damaged ({one_line(error)})") from error
        return [cell.get("bytes") if isinstance(cell, dict) else cell for cell in cells]


def damage_errors() -> tuple[type[Exception], ...]:
    """Return the types of the errors that a damaged Parquet file raises.

    >>> ValueError in damage_errors()
    True
    """
    import pyarrow

    return (pyarrow.ArrowException, OSError, ValueError)


def open_parquet(
    path: str, opened: IO[bytes] | None = None, stamp: str | None = None
) -> pyarrow.parquet.ParquetFile:
    """Open a Parquet file.

    Args:
        path: of the file.
        opened: the file, if it is open already.
        stamp: the state of an indexed file; its footer is then cached.
    """
    pa = arrow("read .parquet")
    footer = None if stamp is None else _footer(path, stamp)
    file = open_file(path) if opened is None else opened
    try:
        return pa.parquet.ParquetFile(file, metadata=footer)
    except BaseException:
        if opened is None:
            file.close()
        raise


@functools.lru_cache(256)
def _footer(path: str, stamp: str) -> pyarrow.parquet.FileMetaData:
    with open_parquet(path) as file:
        return file.metadata


def _kind(kind: pyarrow.DataType) -> str:
    """Return the kind of an Arrow column: images, arrays, texts, single values or other things."""
    import pyarrow.types as types

    kind = getattr(kind, "storage_type", kind)  # of an extension type
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


def attributes_of(
    file: pyarrow.parquet.ParquetFile, field: str, path: str
) -> dict[str, np.ndarray]:
    """Return the columns of single values of a Parquet file, each (N,).

    Codes of classes become names if the datasets library stored the names.

    Args:
        file: the open file.
        field: the column that is the data, which is left out.
        path: of the file, for messages.
    """
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
    attributes = {}
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
            attributes[name] = filled(tables.frame_of(table.select([name]), path).columns[name])
        except ValueError:  # times of day, infinite numbers
            continue
    return attributes


def kind_of(path: str) -> type[Format]:
    """Return the format of a shard, by the end of its name.

    >>> kind_of("train-0.tar").__name__
    'Tar'
    """
    return Tar if path.lower().endswith(".tar") else Parquet
