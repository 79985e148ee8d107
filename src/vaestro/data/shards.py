"""Data in many files (shards): WebDataset's .tar files and Parquet, local or at an address that
fsspec reads.

The shards are indexed once: the position of each row, its block of rows that are read together, and
its attributes. After that, any rows can be read. Their order depends only on a seed and a step.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import IO, TYPE_CHECKING

from vaestro.data import image_files, tables
from vaestro.text import InputError, one_line

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

SUFFIXES = (".tar", ".parquet")
PACKED = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")
SPLIT = re.compile(
    r"(?:^|[-_.])(train(?:ing)?|valid(?:ation)?|val|test)(?=[-_.\d]|$)", re.IGNORECASE
)
DEPTH = 2  # depth of folders below the source that are searched for shards
# protocols of addresses that name one place; others, as reference://, and chains with :: do not
ADDRESSES = (
    *("file", "memory", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "hf", "oci", "oss"),
    *("https", "http", "ftp", "sftp", "ssh", "smb", "hdfs", "webhdfs"),
)
MOST_SHARDS = 1_000_000  # of a pattern
# files that the datasets library writes into a folder
SAVED = ("dataset_info.json", "dataset_dict.json", "state.json")


# -- local and remote files ------------------------------------------------------------------------


def remote(path: str) -> bool:
    """Return whether a path is an address.

    >>> remote("s3://bucket/train.tar")
    True
    """
    return "://" in path


def cache_root(name: str) -> Path:
    """Return the path that cache keys of a source start with.

    >>> cache_root("s3://bucket/train.tar").as_posix()
    '/'
    """
    return Path("/") if remote(name) or name.startswith("hf:") else Path(name).expanduser()


def _fsspec() -> ModuleType:
    try:
        import fsspec
    except ImportError as error:
        raise InputError(
            "reading data from an address needs fsspec: pip install 'vaestro[hub]'"
        ) from error
    return fsspec


def _system(path: str) -> tuple[AbstractFileSystem, str]:
    """Return the file system of an address, and the path in it.

    Raises:
        ValueError: no installed package reads the address, or it is of a file system that follows
            instructions in files, writes copies or contacts further addresses.
    """
    protocol = path.partition("://")[0]
    if protocol not in ADDRESSES:
        raise ValueError(f"expected an address of {', '.join(ADDRESSES)}; got {path}")
    try:
        system, inside = _fsspec().core.url_to_fs(path)
    except (ImportError, ValueError) as error:
        raise InputError(
            f"no installed package reads the address {path} ({one_line(error)})"
        ) from error
    return system, inside


def open_file(path: str) -> IO[bytes]:
    """Open a local or remote file for reading.

    Raises:
        ValueError: no installed package reads the address.
        OSError: there is no such file.
    """
    if not remote(path):
        return open(path, "rb")
    system, inside = _system(path)
    file: IO[bytes] = system.open(inside, "rb")
    return file


def stamp(path: str, file: IO[bytes] | None = None) -> str:
    """Return a string that changes with the content of a file: its size and time, or the version
    that its file system gives it.

    Raises:
        ValueError: there is no such file at an address.
        OSError: there is no such local file.
    """
    if not remote(path):
        stat = os.fstat(file.fileno()) if file is not None else os.stat(path)
        return f"{stat.st_size} {stat.st_mtime_ns}"
    system, inside = _system(path)
    try:
        info = system.info(inside)
    except FileNotFoundError as error:
        raise InputError(f"there is no shard at {path}") from error
    versions = [
        info.get(k) for k in ("size", "ETag", "etag", "blob_id", "mtime", "LastModified", "created")
    ]
    return " ".join(str(v) for v in versions if v is not None)


def _braces(name: str) -> list[str]:
    """Return the names of a pattern with {0000..0099} or {a,b}."""
    match = re.search(r"\{([^{}]*)\}", name)
    if not match:
        return [name]
    span = re.fullmatch(r"(\d+)\.\.(\d+)", match[1])
    if span:
        width, low, high = len(span[1]), int(span[1]), int(span[2])
        _check_number(high - low, name)
        words = [f"{i:0{width}d}" for i in range(low, high + 1)]
    else:
        words = match[1].split(",")
    names: list[str] = []
    for word in words:
        names += _braces(name[: match.start()] + word + name[match.end() :])
        _check_number(len(names), name)
    return names


def _check_number(shards: int, name: str) -> None:
    if shards > MOST_SHARDS:
        raise ValueError(f"expected a pattern of at most {MOST_SHARDS:,} shards; got {name}")


def is_shards(name: str) -> bool:
    """Return whether a source is shards: an address, a pattern, a .tar file, or a folder with
    shards and no images.

    >>> is_shards("train-{0000..0099}.tar"), is_shards("mnist")
    (True, False)
    """
    if remote(name):
        return True
    path = Path(name).expanduser()
    if path.is_dir():
        return bool(_below(str(path)))
    if path.exists():
        return path.name.lower().endswith((".tar", *PACKED))
    return bool(re.search(r"[*?{]", name)) and Path(name).suffix.lower() in SUFFIXES


def _below(folder: str, depth: int = DEPTH) -> list[str] | None:
    """Return the shards below a folder in order; None if the folder has images, or was saved by the
    datasets library."""
    files: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            suffix = os.path.splitext(entry.name)[1].lower()
            if entry.name.startswith("."):
                continue
            if suffix in image_files.SUFFIXES or entry.name in SAVED:
                return None
            if entry.is_dir():
                below = _below(entry.path, depth - 1) if depth else []
                if below is None:
                    return None
                files += below
            elif suffix in SUFFIXES or entry.name.lower().endswith(PACKED):
                files.append(entry.path)
    return sorted(files)


def list_shards(name: str) -> list[str]:
    """Return the paths of the shards of a source in order.

    Raises:
        ValueError: there are no shards, or they have different formats.
    """
    if remote(name):
        system, _ = _system(name)
        files = []
        for file in _braces(name):
            inside = system._strip_protocol(file)
            if re.search(r"[*?]", file):
                files += [system.unstrip_protocol(p) for p in sorted(system.glob(inside))]
            elif not file.lower().endswith(SUFFIXES) and system.isdir(inside):
                below = system.find(inside, maxdepth=DEPTH + 1)
                files += [
                    system.unstrip_protocol(p)
                    for p in sorted(below)
                    if p.lower().endswith(SUFFIXES)
                ]
            else:
                files.append(file)
    elif (path := Path(name).expanduser()).is_dir():
        files = _below(str(path)) or []
    elif path.exists():
        files = [str(path)]
    else:
        files = [
            file
            for word in _braces(str(path))
            for file in (sorted(glob.glob(word)) if re.search(r"[*?]", word) else [word])
        ]
        absent = [file for file in files if not os.path.exists(file)]
        if absent:
            raise ValueError(
                f"expected the shards {name}; there is no file {absent[0]}"
                + (f", and {len(absent) - 1:,} more are missing" if absent[1:] else "")
            )
    if not files:
        raise ValueError(f"expected shards ({', '.join(SUFFIXES)}) in {name}; got none")
    packed = [file for file in files if file.lower().endswith(PACKED)]
    if packed:
        raise ValueError(
            f"expected uncompressed .tar files, from which any row can be read; got {packed[0]} "
            f"(uncompress it to .tar)"
        )
    kinds = {os.path.splitext(file)[1].lower() for file in files}
    if wrong := kinds - set(SUFFIXES):
        raise ValueError(
            f"expected shards ({', '.join(SUFFIXES)}) in {name}; got "
            f"{min(wrong) or 'a file without a suffix'}"
        )
    if len(kinds) > 1:
        raise ValueError(
            f"expected shards of one format in {name}; got {' and '.join(sorted(kinds))}"
        )
    return files


def _split_of(path: str, root: str) -> str:
    """Return the split that the name of a shard, or of one of its folders, contains; "" if there is
    none."""
    inside = path[len(root) :] if path.startswith(root) else os.path.basename(path)
    for part in reversed([p for p in inside.replace(os.sep, "/").split("/") if p]):
        if match := SPLIT.search(part):
            return tables.SPLITS[match[1].lower()]
    return ""


def by_split(files: Sequence[str], name: str) -> dict[str, list[str]]:
    """Return shards by the split that their names contain, or all of them under "all".

    Raises:
        ValueError: only some names contain a split, or no shard is for training.

    >>> by_split(["d/train-0.tar", "d/test-0.tar"], "d/*.tar")
    {'train': ['d/train-0.tar'], 'test': ['d/test-0.tar']}
    """
    root = (
        ""
        if remote(name)
        else str(Path(name).expanduser())
        if Path(name).expanduser().is_dir()
        else ""
    )
    splits = {file: _split_of(file, root) if root or len(files) > 1 else "" for file in files}
    if not any(splits.values()):
        return {"all": list(files)}
    unnamed = [file for file, split in splits.items() if not split]
    if unnamed:
        raise ValueError(
            f"expected train, valid or test in the name of every shard of {name}, or of none; "
            f"got {unnamed[0]}"
        )
    shards = {
        split: files_of
        for split in ("train", "valid", "test")
        if (files_of := [file for file in files if splits[file] == split])
    }
    if "train" not in shards:
        raise ValueError(
            f"expected shards for training in {name}; got only {' and '.join(shards)} shards"
        )
    return {"all": shards["train"]} if len(shards) == 1 else shards
