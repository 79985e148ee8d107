"""Write files so that an interruption leaves the old file or the new one, and no part of one.

Every file of a run and every output of a command is written to a temporary file next to it, flushed
to the disk, and renamed. Temporary files that a dead process left are recognised by their names.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import socket
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vaestro.text import InputError

_PART = re.compile(r".*\.([0-9a-f]{8})-([0-9]+)-[0-9a-f]{8}\.part")
OLD_SECONDS = 3600.0  # a temporary file of this age, made on another machine, is a leftover


def before(operation: str, path: Path) -> None:
    """Do nothing. It is called before each file operation: campaigns of faults replace it.

    Args:
        operation: open, write, fsync, rename, unlink, append, truncate or mkdir. "write" comes
            after the content is in the temporary file, and before it is flushed.
        path: the file, or the temporary file that is written.

    >>> before("open", Path("a.txt"))
    """


@contextmanager
def writing(path: Path, *, flush: bool = True) -> Iterator[Path]:
    """Yield a temporary file to write to; rename it to `path` once it is complete.

    Args:
        path: the file, which is replaced.
        flush: whether to flush file and folder to the disk, which takes some milliseconds.

    Raises:
        OSError: the file cannot be written; the error names `path`.

    >>> with writing(Path("a.txt")) as part:
    ...     _ = part.write_text("a")
    >>> Path("a.txt").read_text()
    'a'
    """
    part = temporary(path)
    try:
        with naming(path, part):
            before("open", part)
            yield part
            before("write", part)
            if flush:
                flush_file(part)
            before("rename", path)
            os.replace(part, path)
        if flush:
            flush_folder(path.parent)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


@contextmanager
def in_utf8(path: Path, *, new: bool = False) -> Iterator[Path]:
    """Yield a path that is UTF-8, for libraries that accept no other names. On Linux, where names
    are bytes, an open file also has a name in /proc.

    Args:
        path: the file.
        new: whether to create the file.

    Raises:
        OSError: the name is not UTF-8, and the file cannot be opened.

    >>> with in_utf8(Path("a.txt")) as path:
    ...     path
    PosixPath('a.txt')
    """
    if is_utf8(path):
        yield path
        return
    number = os.open(path, os.O_RDWR | os.O_CREAT if new else os.O_RDONLY)
    try:
        yield Path(f"/proc/self/fd/{number}")
    finally:
        os.close(number)


def refuse_read_only(folder: Path) -> None:
    """Raise OSError if files cannot be created in a folder: before long work, whose result could
    not be written.

    >>> refuse_read_only(Path("."))
    """
    if folder.is_dir() and not os.access(folder, os.W_OK):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(folder))


def refuse_special(path: Path, instead: str) -> None:
    """Raise InputError if a path is a pipe or a device.

    Args:
        path: which may not exist.
        instead: what to do instead, in words.

    >>> refuse_special(Path("/dev/null"), "name a file")
    Traceback (most recent call last):
    vaestro.text.InputError: /dev/null is a pipe or a device: name a file
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise InputError(f"{path} is a pipe or a device: {instead}")


def is_utf8(path: Path) -> bool:
    """Return whether a path is UTF-8.

    >>> is_utf8(Path("a.txt")), is_utf8(Path(os.fsdecode(bytes([255]))))
    (True, False)
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8 through a temporary file. In names of files in the text, bytes
    that are not UTF-8 are escaped.

    >>> write_text(Path("kept.json"), "{}")
    >>> Path("kept.json").read_text()
    '{}'
    """
    with writing(path) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")


def append(path: Path, text: str) -> None:
    """Add text to the end of a file in one write.

    >>> append(Path("log.jsonl"), "{}\\n")
    >>> Path("log.jsonl").read_text()
    '{}\\n'
    """
    with naming(path):
        before("append", path)
        with path.open("ab", buffering=0) as file:
            file.write(text.encode(errors="backslashreplace"))


def truncate(path: Path, size: int) -> None:
    """Cut a file to a number of bytes, and at the end of a line; create it if it does not exist.

    >>> _ = Path("b.jsonl").write_text("{}\\n[]\\n{")
    >>> truncate(Path("b.jsonl"), 7)
    >>> Path("b.jsonl").read_text()
    '{}\\n[]\\n'
    """
    with naming(path):
        before("truncate", path)
        path.touch()
        with path.open("rb+") as file:
            content = file.read(size)
            file.truncate(content.rfind(b"\n") + 1)


def remove(path: Path) -> None:
    """Remove a file, if it exists.

    >>> remove(Path("nowhere.txt"))
    """
    before("unlink", path)
    path.unlink(missing_ok=True)


def move(old: Path, new: Path) -> None:
    """Rename a file or a folder, and flush the change to the disk.

    >>> Path("x.txt").touch()
    >>> move(Path("x.txt"), Path("y.txt"))
    >>> Path("y.txt").exists()
    True
    """
    before("rename", new)
    os.rename(old, new)
    flush_folder(new.parent)


def make_folder(path: Path) -> None:
    """Create a folder and its parents, if they do not exist.

    >>> make_folder(Path("some/folder"))
    >>> Path("some/folder").is_dir()
    True
    """
    before("mkdir", path)
    path.mkdir(parents=True, exist_ok=True)


def flush_file(path: Path) -> None:
    """Flush the content of a file to the disk.

    >>> Path("c.txt").touch()
    >>> flush_file(Path("c.txt"))
    """
    before("fsync", path)
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def flush_folder(path: Path) -> None:
    """Flush the names in a folder to the disk, where the system can do so.

    >>> flush_folder(Path("."))
    """
    with suppress(OSError):  # Windows, and some network file systems
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def temporary(path: Path) -> Path:
    """Return a new name for a temporary file next to a file.

    >>> temporary(Path("a.txt")).name[:6]
    'a.txt.'
    """
    owner = f"{_machine()}-{os.getpid()}-{secrets.token_hex(4)}"
    return path.with_name(f"{path.name}.{owner}.part")


def clear_leftovers(folder: Path, former: str = "") -> None:
    """Remove temporary files that processes left in a folder when they were killed.

    Args:
        folder: the folder.
        former: a regular expression of further names that are leftovers.

    >>> Path("model.safetensors.part").touch()
    >>> clear_leftovers(Path("."), r".*\\.safetensors\\.part")
    >>> Path("model.safetensors.part").exists()
    False
    """
    for part in folder.iterdir() if folder.is_dir() else ():
        match, gone = _PART.fullmatch(part.name), False
        with suppress(OSError):
            if match is None:
                gone = bool(re.fullmatch(former, part.name))
            elif match[1] == _machine():
                gone = not is_alive(int(match[2]))
            else:
                gone = time.time() - part.stat().st_mtime > OLD_SECONDS
            if gone and part.is_file():
                remove(part)


def is_alive(process: int) -> bool:
    """Return whether a process of this machine exists.

    >>> is_alive(os.getpid())
    True
    """
    import psutil

    return psutil.pid_exists(process) and _is_running(process)


def _is_running(process: int) -> bool:
    """Return whether a process is more than the remains of one that its parent has not read."""
    import psutil

    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def remove_tree(folder: Path) -> None:
    """Remove a folder that Vaestro made, with all its files.

    >>> make_folder(Path("old/part"))
    >>> remove_tree(Path("old"))
    >>> Path("old").exists()
    False
    """
    before("unlink", folder)
    shutil.rmtree(folder, ignore_errors=True)


def _machine() -> str:
    """Return a short hash of the name of this machine."""
    return f"{zlib.crc32(socket.gethostname().encode()):08x}"


@contextmanager
def naming(path: Path, part: Path | None = None) -> Iterator[None]:
    """Name a file in errors that do not name one, or that name its temporary file.

    >>> import errno
    >>> with naming(Path("a.txt")):
    ...     raise OSError(errno.ENOSPC, "No space left on device")
    Traceback (most recent call last):
    OSError: [Errno 28] No space left on device: 'a.txt'
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(part), part):
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
