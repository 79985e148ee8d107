"""Keep what was decoded and what was found in it: each entry is a folder of .npy files, made once
and then memory-mapped.

    $VAESTRO_CACHE, else $XDG_CACHE_HOME/vaestro, else ~/.cache/vaestro
    ├── KEY/                 an entry: its arrays and meta.json
    ├── KEY.XXXXXXXX.part/   an entry that is being made; it is renamed when it is whole
    └── KEY.lock             held by the process that makes KEY

A key is a hash of the source's place, of every file's size and time, and of the options that change
what is decoded.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vaestro.data.raw import Json, Options

FORMAT = 1
_KEY = re.compile(r"[0-9a-f]{32}")
_PART = re.compile(r"[0-9a-f]{32}\.[0-9a-f]{8}\.part")
_LOCK = re.compile(r"[0-9a-f]{32}\.lock")
FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))


class Entry(NamedTuple):
    """Describe an entry: its key, what it was made from, its size, and when it was made."""

    key: str
    source: str
    bytes: int
    when: datetime


def folder() -> Path:
    """Return the folder of the cache, which need not exist."""
    if named := os.environ.get("VAESTRO_CACHE"):
        return Path(named).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "vaestro"


def key(kind: str, files: Iterable[str | Path], options: Options, root: Path) -> str:
    """Hash a source: equal keys mean that the same would be decoded.

    Args:
        kind: what decodes the source, with its version, such as images-1.
        files: the files that are read, as paths that begin with `root`, or `root` itself.
        options: what changes the result.
        root: the file or folder that the user named.

    Raises:
        OSError: a file is not there.
    """
    digest = hashlib.blake2b(digest_size=16)

    def add(*values: Any) -> None:
        digest.update("\0".join(map(str, values)).encode("utf-8", "surrogateescape") + b"\n")

    add(FORMAT, kind, root.resolve(), json.dumps(dict(options), sort_keys=True, default=str))
    base = os.fspath(root) + os.sep
    for file in files:
        stat = os.stat(file)
        add(os.fspath(file).removeprefix(base), stat.st_size, stat.st_mtime_ns)
    return digest.hexdigest()


def entry(key: str, make: Callable[[Path], Json], source: str | Path = "") -> tuple[Path, Json]:
    """Return an entry's folder and what its meta.json says; the entry is made first if it is
    absent.

    Where two processes want one entry, one makes it and the other waits; where files cannot be
    locked, both make it and the first stays. A making that fails or is interrupted leaves no entry.

    Args:
        key: as `key` returns it.
        make: writes files into the folder that it is given, and returns what is to be kept as JSON.
        source: what the entry is made from, for people to read.

    Raises:
        OSError: the cache cannot be written, or the disk is full.
    """
    home = folder()
    place = home / key
    if (meta := _whole(place)) is None:
        with _explained(home, key):
            home.mkdir(parents=True, exist_ok=True)
            with _locked(home, key) as held:
                meta = _whole(place) or _made(place, make, str(source), key if held else "")
    return place, meta


def find(key: str) -> tuple[Path, Json] | None:
    """Return an entry as `entry` does if it is there and whole; nothing is made."""
    meta = _whole(folder() / key)
    return None if meta is None else (folder() / key, meta)


def remove(key: str) -> None:
    """Remove an entry, such as one whose files are not what they were.

    Raises:
        OSError: it cannot be removed.
    """
    _discard(folder() / key)


def open_array(path: Path) -> np.memmap:
    """Map a .npy file into memory, read-only.

    Raises:
        ValueError: the file is not plain numbers or text.
    """
    array: np.memmap = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def create_array(path: Path, dtype: Any, shape: tuple[int, ...]) -> np.memmap:
    """Create a .npy file with room for all of it, mapped into memory and writable.

    Raises:
        OSError: the disk has no room for it.
    """
    array: np.memmap = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    _reserve(path)
    return array


def entries() -> list[Entry]:
    """List the entries, the oldest first."""
    found = [(name, meta) for name in _names() if (meta := _meta(folder() / name)) is not None]
    listed = [
        Entry(name, meta["source"], meta["bytes"], datetime.fromtimestamp(meta["when"]))
        for name, meta in found
    ]
    return sorted(listed, key=lambda e: e.when)


def clear() -> int:
    """Remove every entry and what interrupted processes left, but nothing that is not the cache's;
    returns the bytes freed."""
    freed = sum(_discard(folder() / found.key) for found in entries())
    return freed + _sweep(folder())


# -- making ----------------------------------------------------------------------------------------


def _made(place: Path, make: Callable[[Path], Json], source: str, held: str) -> Json:
    _sweep(place.parent, held)
    part = _beside(place)
    part.mkdir()
    try:
        made = make(part)
        meta = {
            **made,
            "format": FORMAT,
            "key": place.name,
            "source": source,
            "when": time.time(),
            "bytes": _size(part),
        }
        (part / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
        for file in part.iterdir():
            # On the disk before the name: a power cut must not leave an entry of zeros.
            with file.open("rb+") as opened:
                os.fsync(opened.fileno())
        try:
            part.rename(place)
        except OSError:
            # not another process that was faster, but an entry that is damaged
            if _whole(place) is None:
                _discard(place)
                part.rename(place)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return meta


def _reserve(path: Path) -> None:
    """Take the whole file's room on the disk: a write to mapped memory that finds none would kill
    the process."""
    size = path.stat().st_size
    try:
        with path.open("rb+") as file:
            os.posix_fallocate(file.fileno(), 0, size)
        return
    except AttributeError:  # not on this system
        pass
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENODEV):  # not on this disk
            raise
    if shutil.disk_usage(path.parent).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


@contextmanager
def _explained(home: Path, key: str) -> Iterator[None]:
    """Say what to do about a cache that cannot be written; errors of the source pass."""
    try:
        yield
    except OSError as error:
        # NumPy reports a full disk in words alone.
        if error.errno in FULL or (
            error.errno is None and re.search("free space|requested and", str(error))
        ):
            expected, got, remedy = (
                "room on the disk for",
                "none left",
                "free some, or set VAESTRO_CACHE to a folder on another disk",
            )
        else:
            name = str(error.filename)
            if not name.startswith(str(home / key)) and Path(name) not in (home, *home.parents):
                raise
            expected, got, remedy = (
                "to write",
                error.strerror or type(error).__name__,
                "set VAESTRO_CACHE to a folder that can be written",
            )
        raise OSError(f"expected {expected} decoded data in {home}; got {got}: {remedy}") from error


@contextmanager
def _locked(home: Path, key: str, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of a key, which ends with the process; gives whether it is held, which it never
    is where there are no locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield False
        return
    path, mode = home / f"{key}.lock", fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB)
    while True:
        with path.open("a") as file:
            try:
                fcntl.flock(file, mode)
            except OSError:
                yield False
                return
            # A file that was removed while this waited for it locks out nobody. It may also be
            # removed at this moment.
            try:
                same = os.path.samestat(os.fstat(file.fileno()), path.stat())
            except FileNotFoundError:
                same = False
            if not same:
                continue
            try:
                yield True
            finally:
                path.unlink(missing_ok=True)
            return


# -- what there is ---------------------------------------------------------------------------------


def _names() -> list[str]:
    home = folder()
    return (
        [p.name for p in home.iterdir() if _KEY.fullmatch(p.name) and not p.is_symlink()]
        if home.is_dir()
        else []
    )


def _meta(place: Path) -> Json | None:
    """Return what meta.json says, or None where the folder is no entry."""
    try:
        meta = json.loads((place / "meta.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    ours = (
        isinstance(meta, dict)
        and meta.get("key") == place.name
        and {"format", "source", "when", "bytes"} <= meta.keys()
    )
    return meta if ours else None


def _whole(place: Path) -> Json | None:
    meta = _meta(place)
    return meta if meta is not None and _size(place) == meta["bytes"] else None


def _size(place: Path) -> int:
    with suppress(FileNotFoundError):
        return sum(file.stat().st_size for file in place.iterdir() if file.name != "meta.json")
    return 0


def _beside(place: Path) -> Path:
    return place.with_name(f"{place.name}.{secrets.token_hex(4)}.part")


def _discard(place: Path) -> int:
    """Remove an entry, which is renamed first, so that no half of it is ever taken for one; returns
    the bytes freed."""
    gone = place.rename(_beside(place))
    size = _size(gone)
    shutil.rmtree(gone, ignore_errors=True)
    return size


def _sweep(home: Path, held: str = "") -> int:
    """Remove what interrupted processes left, whose locks are free or held by the caller; returns
    the bytes freed."""
    freed = 0
    left = (
        [p for p in home.iterdir() if _PART.fullmatch(p.name) or _LOCK.fullmatch(p.name)]
        if home.is_dir()
        else []
    )
    for key in {p.name[:32] for p in left}:
        with nullcontext(True) if key == held else _locked(home, key, wait=False) as dead:
            for part in [
                p for p in left if dead and p.name.startswith(key) and p.name.endswith(".part")
            ]:
                freed += _size(part)
                shutil.rmtree(part, ignore_errors=True)
    return freed
