"""The cache of decoded data and of what was inferred from them. An entry is a folder of .npy files,
which is written once and then memory-mapped. `storage` writes it.

    $VAESTRO_CACHE, else $XDG_CACHE_HOME/vaestro, else ~/.cache/vaestro
    ├── KEY/                 an entry: its arrays and meta.json
    ├── KEY.XXXXXXXX.part/   an entry that is being written; it is renamed once it is complete
    └── KEY.lock             locked by the process that writes KEY

A key is a hash of the path of the source, of the size and time of every file, and of the options
that change the decoded data.
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
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from vaestro import storage
from vaestro.data.raw import Json, Options

FORMAT = 1
_KEY = re.compile(r"[0-9a-f]{32}")
_PART = re.compile(r"[0-9a-f]{32}\.[0-9a-f]{8}\.part")
_LOCK = re.compile(r"[0-9a-f]{32}\.lock")
FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))


class Entry(NamedTuple):
    """Describe an entry."""

    key: str
    source: str  # for people to read
    bytes: int
    when: datetime  # it was written


def folder() -> Path:
    """Return the folder of the cache, which may not exist yet.

    >>> folder().is_absolute()
    True
    """
    if named := os.environ.get("VAESTRO_CACHE"):
        return Path(named).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "vaestro"


def key(kind: str, files: Iterable[str | Path], options: Options, root: Path) -> str:
    """Return a hash of a source. Sources with equal keys have equal decoded data.

    Args:
        kind: the decoder and its version, such as images-1.
        files: that are read, as paths that begin with `root`, or `root` itself.
        options: that change the result.
        root: the file or folder that the user named.

    Raises:
        OSError: a file does not exist.

    >>> len(key("images-1", [], {"size": 64}, Path("photos")))
    32
    """
    digest = hashlib.blake2b(digest_size=16)

    def add(*values: object) -> None:
        digest.update("\0".join(map(str, values)).encode("utf-8", "surrogateescape") + b"\n")

    add(FORMAT, kind, root.resolve(), json.dumps(dict(options), sort_keys=True, default=str))
    base = os.fspath(root) + os.sep
    for file in files:
        stat = os.stat(file)
        add(os.fspath(file).removeprefix(base), stat.st_size, stat.st_mtime_ns)
    return digest.hexdigest()


def entry(key: str, make: Callable[[Path], Json], source: str | Path = "") -> tuple[Path, Json]:
    """Return the folder of an entry and the content of its meta.json. A missing entry is written
    first.

    If two processes need the same missing entry, one writes it and the other waits. If files cannot
    be locked, both write it, and the first one is kept. An error or interruption leaves no entry.

    Args:
        key: as `key` returns it.
        make: writes files into the given folder, and returns a JSON object for meta.json.
        source: of the entry, for people to read.

    Raises:
        OSError: the cache cannot be written, or the disk is full.
    """
    home = folder()
    place = home / key
    if (meta := _complete_entry(place)) is None:
        with _explained(home, key):
            storage.make_folder(home)
            with _locked(home, key) as locked:
                meta = _complete_entry(place) or _create(
                    place, make, str(source), key if locked else ""
                )
    return place, meta


def find(key: str) -> tuple[Path, Json] | None:
    """Return an entry as `entry` does; None if it is missing or incomplete.

    >>> find("0" * 32) is None
    True
    """
    meta = _complete_entry(folder() / key)
    return None if meta is None else (folder() / key, meta)


def remove(key: str) -> None:
    """Remove an entry, such as a damaged one.

    Raises:
        OSError: it cannot be removed.
    """
    _discard(folder() / key)


def open_array(path: Path) -> np.memmap:
    """Return a .npy file as a read-only memory map.

    Raises:
        ValueError: the file has other values than numbers or text.

    >>> np.save("a.npy", np.arange(3))
    >>> open_array(Path("a.npy")).tolist()
    [0, 1, 2]
    """
    array: np.memmap = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def create_array(path: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> np.memmap:
    """Create a .npy file, reserve its space on the disk, and return it as a writable memory map.

    Raises:
        OSError: the disk has no space for it.

    >>> create_array(Path("a.npy"), np.uint8, (2, 3)).shape
    (2, 3)
    """
    array: np.memmap = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    _reserve(path)
    return array


def entries() -> list[Entry]:
    """Return all entries, from the oldest to the newest."""
    complete = [(name, meta) for name in _names() if (meta := _meta(folder() / name)) is not None]
    listed = [
        Entry(name, meta["source"], meta["bytes"], datetime.fromtimestamp(meta["when"]))
        for name, meta in complete
    ]
    return sorted(listed, key=lambda e: e.when)


def clear() -> int:
    """Remove all entries and the remains of interrupted processes; return the freed bytes. Other
    files in the folder are not removed."""
    freed = sum(_discard(folder() / entry.key) for entry in entries())
    return freed + _sweep(folder())


# -- writing ---------------------------------------------------------------------------------------


def _create(place: Path, make: Callable[[Path], Json], source: str, locked: str) -> Json:
    _sweep(place.parent, locked)
    part = _beside(place)
    storage.make_folder(part)
    try:
        meta = {
            **make(part),
            "format": FORMAT,
            "key": place.name,
            "source": source,
            "when": time.time(),
            "bytes": _size(part),
        }
        for file in part.iterdir():
            # Flush before the rename: after a power cut, an entry must not consist of zeros.
            storage.flush_file(file)
        storage.write_text(part / "meta.json", json.dumps(meta))
        try:
            storage.move(part, place)
        except OSError:
            # Either another process was faster, or a damaged entry is in the way.
            if _complete_entry(place) is None:
                if place.exists():
                    _discard(place)
                storage.move(part, place)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return meta


def _reserve(path: Path) -> None:
    """Reserve the space of a whole file on the disk, because a write to mapped memory on a full
    disk would kill the process."""
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
    """Add a remedy to errors about a cache that cannot be written. Errors about the source are
    unchanged."""
    try:
        yield
    except OSError as error:
        # NumPy reports a full disk without an error number.
        if error.errno in FULL or (
            error.errno is None and re.search("free space|requested and", str(error))
        ):
            raise OSError(
                f"the disk has no space for decoded data in {home}: free some, or set "
                f"VAESTRO_CACHE to a folder on another disk"
            ) from error
        name = str(error.filename)
        if not name.startswith(str(home / key)) and Path(name) not in (home, *home.parents):
            raise
        raise OSError(
            f"decoded data cannot be written to {home} ({error.strerror or type(error).__name__}): "
            f"set VAESTRO_CACHE to another folder"
        ) from error


@contextmanager
def _locked(home: Path, key: str, *, wait: bool = True) -> Iterator[bool]:
    """Lock a key, and yield whether it is locked. The lock ends with the process. Without support
    for locks, the key is never locked."""
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
            # The file may have been removed while this process waited; its lock is then useless.
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


# -- entries ---------------------------------------------------------------------------------------


def _names() -> list[str]:
    home = folder()
    return (
        [p.name for p in home.iterdir() if _KEY.fullmatch(p.name) and not p.is_symlink()]
        if home.is_dir()
        else []
    )


def _meta(place: Path) -> Json | None:
    """Return the content of meta.json; None if the folder is not an entry."""
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


def _complete_entry(place: Path) -> Json | None:
    meta = _meta(place)
    return meta if meta is not None and _size(place) == meta["bytes"] else None


def _size(place: Path) -> int:
    with suppress(FileNotFoundError):
        return sum(file.stat().st_size for file in place.iterdir() if file.name != "meta.json")
    return 0


def _beside(place: Path) -> Path:
    return place.with_name(f"{place.name}.{secrets.token_hex(4)}.part")


def _discard(place: Path) -> int:
    """Remove an entry and return the freed bytes. The entry is renamed first, so that no process
    reads it while files are missing."""
    gone = place.rename(_beside(place))
    size = _size(gone)
    shutil.rmtree(gone, ignore_errors=True)
    return size


def _sweep(home: Path, locked: str = "") -> int:
    """Remove the remains of interrupted processes, and return the freed bytes.

    Args:
        home: folder of the cache.
        locked: key that the caller has locked.
    """
    freed = 0
    left = (
        [p for p in home.iterdir() if _PART.fullmatch(p.name) or _LOCK.fullmatch(p.name)]
        if home.is_dir()
        else []
    )
    for key in {p.name[:32] for p in left}:
        with nullcontext(True) if key == locked else _locked(home, key, wait=False) as dead:
            for part in [
                p for p in left if dead and p.name.startswith(key) and p.name.endswith(".part")
            ]:
                freed += _size(part)
                shutil.rmtree(part, ignore_errors=True)
    return freed
