"""Read data that lie in many files: WebDataset's .tar, and Parquet; on this machine, or wherever
fsspec reaches.

The shards are indexed once: where each row lies, in which block of rows that are read together, and
what else is known of it. Then any rows can be read, and which are read when follows from a seed and
a step, and not from what was read before.
"""

from __future__ import annotations

import functools
import glob
import itertools
import json
import os
import re
import tarfile
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np

from vaestro.data import cache, images, tables
from vaestro.data.columns import LETTERS, filled, named, padded, series, stacked
from vaestro.data.images import Progress
from vaestro.text import nearest, one_line, unquoted

KIND = "shards-1"
SUFFIXES = (".tar", ".parquet")
PACKED = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")
# of a .tar that are read together; of Parquet it is a row group
BLOCK_ROWS, BLOCK_BYTES = 256, 2**23
SPLIT = re.compile(
    r"(?:^|[-_.])(train(?:ing)?|valid(?:ation)?|val|test)(?=[-_.\d]|$)", re.IGNORECASE
)
DEPTH = 2  # folders below the named one in which shards are looked for
# what the datasets library writes into a folder
SAVED = ("dataset_info.json", "dataset_dict.json", "state.json")


class Changed(OSError):
    """Report that a shard is not what it was when it was indexed."""


# -- files, here and elsewhere ---------------------------------------------------------------------


def remote(path: str) -> bool:
    """Tell whether a path is an address."""
    return "://" in path


def rooted(name: str) -> Path:
    """Return the place of a source that its cache's keys begin with."""
    return Path("/") if remote(name) or name.startswith("hf:") else Path(name).expanduser()


def _fsspec() -> Any:
    try:
        import fsspec
    except ImportError as error:
        raise ValueError(
            "expected the extra vaestro[hub] to read data from elsewhere; got an installation "
            "without it"
        ) from error
    return fsspec


def _system(path: str) -> tuple[Any, str]:
    """Return what reads an address, and the place within it.

    Raises:
        ValueError: nothing that is installed reads it.
    """
    try:
        system, inside = _fsspec().core.url_to_fs(path)
    except (ImportError, ValueError) as error:
        raise ValueError(
            f"expected an address that fsspec reads with what is installed; got {path} "
            f"({one_line(error)})"
        ) from error
    return system, inside


def _opened(path: str) -> Any:
    """Open a file for reading."""
    if not remote(path):
        return open(path, "rb")
    system, inside = _system(path)
    return system.open(inside, "rb")


def _stamp(path: str, file: Any = None) -> str:
    """Say which state of a file this is: its size and time, or what its system calls its
    version."""
    if not remote(path):
        stat = os.fstat(file.fileno()) if file is not None else os.stat(path)
        return f"{stat.st_size} {stat.st_mtime_ns}"
    system, inside = _system(path)
    try:
        info = system.info(inside)
    except FileNotFoundError as error:
        raise ValueError(f"expected a shard at {path}; got none there") from error
    known = [
        info.get(k) for k in ("size", "ETag", "etag", "blob_id", "mtime", "LastModified", "created")
    ]
    return " ".join(str(v) for v in known if v is not None)


def _braces(name: str) -> list[str]:
    """Return the names that {0000..0099} and {a,b} stand for."""
    found = re.search(r"\{([^{}]*)\}", name)
    if not found:
        return [name]
    span = re.fullmatch(r"(\d+)\.\.(\d+)", found[1])
    if span:
        width, low, high = len(span[1]), int(span[1]), int(span[2])
        words = [f"{i:0{width}d}" for i in range(low, high + 1)]
    else:
        words = found[1].split(",")
    return [
        one for word in words for one in _braces(name[: found.start()] + word + name[found.end() :])
    ]


def is_shards(name: str) -> bool:
    """Tell whether a source is shards: an address, a pattern, a .tar, or a folder with shards and
    no images."""
    if remote(name):
        return True
    path = Path(name).expanduser()
    if path.is_dir():
        return bool(_below(str(path)))
    if path.exists():
        return path.name.lower().endswith((".tar", *PACKED))
    return bool(re.search(r"[*?{]", name)) and Path(name).suffix.lower() in SUFFIXES


def _below(folder: str, depth: int = DEPTH) -> list[str] | None:
    """Return the shards below a folder in order; None where there is an image, or what the datasets
    library saved."""
    found: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            suffix = os.path.splitext(entry.name)[1].lower()
            if entry.name.startswith("."):
                continue
            if suffix in images.SUFFIXES or entry.name in SAVED:
                return None
            if entry.is_dir():
                below = _below(entry.path, depth - 1) if depth else []
                if below is None:
                    return None
                found += below
            elif suffix in SUFFIXES or entry.name.lower().endswith(PACKED):
                found.append(entry.path)
    return sorted(found)


def listed(name: str) -> list[str]:
    """Return the shards of a source in order.

    Raises:
        ValueError: there are none.
    """
    if remote(name):
        system, _ = _system(name)
        found = []
        for one in _braces(name):
            inside = system._strip_protocol(one)
            if re.search(r"[*?]", one):
                found += [system.unstrip_protocol(p) for p in sorted(system.glob(inside))]
            elif not one.lower().endswith(SUFFIXES) and system.isdir(inside):
                below = system.find(inside, maxdepth=DEPTH + 1)
                found += [
                    system.unstrip_protocol(p)
                    for p in sorted(below)
                    if p.lower().endswith(SUFFIXES)
                ]
            else:
                found.append(one)
    elif (path := Path(name).expanduser()).is_dir():
        found = _below(str(path)) or []
    elif path.exists():
        found = [str(path)]
    else:
        found = [
            one
            for word in _braces(str(path))
            for one in (sorted(glob.glob(word)) if re.search(r"[*?]", word) else [word])
        ]
        absent = [one for one in found if not os.path.exists(one)]
        if absent:
            raise ValueError(
                f"expected the shards {name}; got no {absent[0]}"
                + (f" and {len(absent) - 1:,} more" if absent[1:] else "")
            )
    if not found:
        raise ValueError(f"expected shards ({', '.join(SUFFIXES)}) in {name}; got none")
    packed = [one for one in found if one.lower().endswith(PACKED)]
    if packed:
        raise ValueError(
            f"expected .tar files as they are, in which any row can be read; got {packed[0]} "
            f"(unpack it to .tar)"
        )
    kinds = {os.path.splitext(one)[1].lower() for one in found}
    if wrong := kinds - set(SUFFIXES):
        raise ValueError(
            f"expected shards ({', '.join(SUFFIXES)}) in {name}; got "
            f"{min(wrong) or 'a file without a suffix'}"
        )
    if len(kinds) > 1:
        raise ValueError(
            f"expected shards of one kind in {name}; got {' and '.join(sorted(kinds))}"
        )
    return found


def _split_of(path: str, root: str) -> str:
    """Return the split that a shard's name, or that of a folder that it lies in, speaks of; nothing
    if there is none."""
    inside = path[len(root) :] if path.startswith(root) else os.path.basename(path)
    for part in reversed([p for p in inside.replace(os.sep, "/").split("/") if p]):
        if found := SPLIT.search(part):
            return tables.SPLITS[found[1].lower()]
    return ""


def by_split(files: Sequence[str], name: str) -> dict[str, list[str]]:
    """Return shards by the split that their names speak of, or all of them as "all".

    Raises:
        ValueError: some names speak of a split and others do not, or there are none to train on.
    """
    root = (
        ""
        if remote(name)
        else str(Path(name).expanduser())
        if Path(name).expanduser().is_dir()
        else ""
    )
    known = {file: _split_of(file, root) if root or len(files) > 1 else "" for file in files}
    if not any(known.values()):
        return {"all": list(files)}
    unsure = [file for file, split in known.items() if not split]
    if unsure:
        raise ValueError(
            f"expected train, valid or test in the name of every shard of {name}, or of none; "
            f"got {unsure[0]}"
        )
    made = {s: [f for f in files if known[f] == s] for s in ("train", "valid", "test")}
    if not made["train"]:
        raise ValueError(
            f"expected shards to train on in {name}; got "
            f"{' and '.join(s for s, held in made.items() if held)} alone"
        )
    there = {s: held for s, held in made.items() if held}
    return {"all": there["train"]} if len(there) == 1 else there


# -- the index -------------------------------------------------------------------------------------


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

    def save(self, folder: Path) -> dict[str, Any]:
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
    def restore(cls, folder: Path, meta: Mapping[str, Any]) -> Index:
        """Return what `save` wrote."""
        arrays = {
            name: np.asarray(cache.open_array(folder / f"{name}.npy"))
            for name in ("file", "place", "sizes", "spans")
        }
        attributes = {
            name: np.asarray(cache.open_array(folder / f"attribute{i}.npy"))
            for i, name in enumerate(meta["attributes"])
        }
        words = {k: tuple(meta[k]) for k in ("files", "stamps", "notes", "damaged")}
        splits = {s: (a, b) for s, (a, b) in meta["splits"].items()}
        return cls(field=meta["field"], splits=splits, attributes=attributes, **words, **arrays)  # type: ignore[arg-type]

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
    if _stamp(path, file) != index.stamps[number]:
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

        with _opened(path) as file:
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
        with _opened(index.files[number]) as file:
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
    opened = _opened(path) if file is None else file
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
            archive.members = []  # type: ignore[attr-defined]  # else it remembers all of them
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


def _told(fields: Mapping[str, bytes]) -> dict[str, Any]:
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
        with _parquet(path) as file:
            return {field.name: _kind(field.type) for field in file.schema_arrow}

    def index(self, path: str) -> Indexed:
        empty = np.zeros((0, 2), np.int64)
        try:
            with _parquet(path) as file:
                if self.field not in file.schema_arrow.names:
                    return Indexed([], [], empty, {}, f"it has no column {self.field!r}")
                sizes = [
                    file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)
                ]
                held = _beside(file, self.field, path)
        except _damage() as error:
            return Indexed([], [], empty, {}, f"it is cut short or damaged ({one_line(error)})")
        there = [i for i, size in enumerate(sizes) if size]
        return Indexed(there, [sizes[i] for i in there], empty, held, "")

    def read(self, index: Index, block: int, rows: np.ndarray) -> list[bytes | None] | np.ndarray:
        number = int(index.file[block])
        path = index.files[number]
        with _opened(path) as opened:
            _unchanged(index, number, opened)
            try:
                with _parquet(path, opened, index.stamps[number]) as file:
                    column = file.read_row_group(
                        int(index.place[block]), columns=[self.field], use_threads=False
                    )[self.field]
                if _kind(column.type) == "arrays":
                    return stacked(column, self.field, path)[rows]
                import pyarrow

                cells = column.take(pyarrow.array(rows)).to_pylist()
            except _damage() as error:
                raise ValueError(f"{path} is damaged ({one_line(error)})") from error
        return [cell.get("bytes") if isinstance(cell, dict) else cell for cell in cells]


def _damage() -> tuple[type[Exception], ...]:
    import pyarrow

    return (pyarrow.ArrowException, OSError, ValueError)


def _parquet(path: str, opened: Any = None, stamp: str | None = None) -> Any:
    """Open a Parquet file; of one that was indexed, its footer is read once."""
    pa = tables._arrow("read .parquet")
    footer = None if stamp is None else _footer(path, stamp)
    file = _opened(path) if opened is None else opened
    try:
        return pa.parquet.ParquetFile(file, metadata=footer)
    except BaseException:
        if opened is None:
            file.close()
        raise


@functools.lru_cache(256)
def _footer(path: str, stamp: str) -> Any:
    with _parquet(path) as file:
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


def _beside(file: Any, field: str, path: str) -> dict[str, np.ndarray]:
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


# -- indexing --------------------------------------------------------------------------------------


def kind_of(path: str) -> type[Format]:
    """Return what reads a shard."""
    return Tar if path.lower().endswith(".tar") else Parquet


def read_series(
    files: Sequence[str], options: Mapping[str, Any], name: str
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
            with _parquet(path) as file:
                part, beside = (
                    series(file.read(columns=[field])[field], field, path),
                    _beside(file, field, path),
                )
        except _damage() as error:
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


def _chosen(fields: Mapping[str, str], options: Mapping[str, Any], name: str) -> str:
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
    options: Mapping[str, Any],
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
    stamps = [_stamp(file) for file in files]
    fields = _fields(files, name)
    field = _chosen(fields, options, name)
    reader = kind_of(files[0])(field)

    def make(folder: Path) -> dict[str, Any]:
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
