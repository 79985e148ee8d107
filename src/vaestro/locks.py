"""One writer for a folder: a lock file that names its process.

File locks of the operating system do not work on every network file system, so the lock is a file
that is created exclusively. A process that is killed leaves its lock. Such a lock is stale: its
process is gone, or another process has its number. The lock after a stale one is the file
`lock.TOKEN`, where TOKEN is that of the stale lock. Exactly one process can create it, so two
processes never take over the same stale lock. The lock of a folder is the last of these files.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
import weakref
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, final

from vaestro import storage
from vaestro.storage import is_alive, naming
from vaestro.text import InputError

WRITING_SECONDS = 10.0  # a lock file that cannot be read is being written until it is this old
POLL_SECONDS = 0.05


class Holder(NamedTuple):
    """Describe the process that has a lock.

    Args:
        host: the machine.
        process: the number of the process.
        started: when the process started, in the unit of the system; "" if unknown.
        token: of the lock.
        since: when the lock was taken, for people to read.

    >>> Holder("here", 1, "5", "ab", "2026-01-01").host
    'here'
    """

    host: str
    process: int
    started: str
    token: str
    since: str

    @property
    def is_stale(self) -> bool:
        """Return whether its process is gone; False if it is a process of another machine."""
        if not self.host:
            return False
        if self.host != socket.gethostname():
            return False
        return not is_alive(self.process) or _started(self.process) != self.started


@final
class Lock:
    """Lock a folder for this process. The lock ends with `release`, and with the process.

    Args:
        folder: the folder, which exists.
        name: of the lock file.
        wait: seconds to wait for another process.

    Raises:
        InputError: another process has the lock.
        OSError: the lock file cannot be written.

    >>> lock = Lock(Path("."))
    >>> Path("lock").exists()
    True
    >>> lock.release()
    >>> Path("lock").exists()
    False
    """

    def __init__(self, folder: Path, name: str = "lock", wait: float = 0.0) -> None:
        until = time.monotonic() + wait
        while True:
            files = _taken(folder / name)
            if isinstance(files, list):
                break
            if time.monotonic() >= until:
                raise InputError(_refusal(folder, *files))
            time.sleep(POLL_SECONDS)
        self._files = files
        self._release = weakref.finalize(self, _remove, files, os.getpid())

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """End the lock."""
        self._release()

    def moved(self, folder: Path) -> None:
        """Follow the folder of the lock, which was renamed."""
        self._files[:] = [folder / file.name for file in self._files]


def is_locked(folder: Path, name: str = "lock") -> bool:
    """Return whether a process has the lock of a folder.

    >>> is_locked(Path("."))
    False
    """
    return _living(folder / name) is not None


def refuse_locked(folder: Path, name: str = "lock") -> None:
    """Raise InputError if a process has the lock of a folder.

    >>> refuse_locked(Path("."))
    """
    if (found := _living(folder / name)) is not None:
        raise InputError(_refusal(folder, *found))


def _living(file: Path) -> tuple[Path, Holder] | None:
    """Return the last lock file of a chain and its holder, unless it is stale or does not exist."""
    while (holder := _read(file)) is not None:
        if not holder.is_stale:
            return file, holder
        file = _after(file, holder)
    return None


def _taken(root: Path) -> list[Path] | tuple[Path, Holder]:
    """Take a lock. Returns its files, or the file of another process and its holder."""
    while True:
        chain: list[tuple[Path, str]] = []
        file = root
        own = secrets.token_hex(8)
        while not _create(file, own):
            holder = _read(file)
            if holder is None:
                break  # it was released meanwhile
            if not holder.is_stale:
                return file, holder
            chain.append((file, holder.token))
            file = _after(root, holder)
        else:
            # A process that had read a stale lock may be late: the chain has ended since.
            if all((found := _read(f)) is not None and found.token == t for f, t in chain):
                files = [*(f for f, _ in chain), file]
                for other in root.parent.glob(f"{root.name}.*"):
                    if other not in files and _is_token(other.name.removeprefix(f"{root.name}.")):
                        other.unlink(missing_ok=True)
                return files
            file.unlink(missing_ok=True)


def _create(file: Path, token: str) -> bool:
    """Create a lock file; return False if it exists."""
    content = {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "started": _started(os.getpid()),
        "token": token,
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
    }
    with naming(file):
        storage.before("open", file)
        try:
            number = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        try:
            storage.before("write", file)
            os.write(number, json.dumps(content).encode())
        except BaseException:
            file.unlink(missing_ok=True)
            raise
        finally:
            os.close(number)
    return True


def _read(file: Path) -> Holder | None:
    """Return the holder of a lock file; None if there is no such file."""
    try:
        content = file.read_bytes()
        age = time.time() - file.stat().st_mtime
    except FileNotFoundError:
        return None
    try:
        fields = json.loads(content)
        token = str(fields["token"])
        return Holder(
            str(fields["host"]),
            int(fields["process"]),
            str(fields["started"]),
            token if _is_token(token) else "0" * 16,
            str(fields["since"]),
        )
    except (ValueError, KeyError, TypeError):
        # It is being written, or was damaged: then it has a holder that does not exist.
        written = 0.0 <= age < WRITING_SECONDS
        return Holder("" if written else socket.gethostname(), -1, "", "0" * 16, "just now")


def _after(root: Path, holder: Holder) -> Path:
    """Return the lock file that follows a stale one."""
    return root.with_name(f"{root.name.split('.')[0]}.{holder.token}")


def _is_token(text: str) -> bool:
    return len(text) == 16 and set(text) <= set("0123456789abcdef")


def _remove(files: list[Path], owner: int) -> None:
    """Remove the files of a lock. The first one goes first: the others then mean nothing."""
    if os.getpid() == owner:  # not in a fork
        for file in files:
            with suppress(OSError):
                file.unlink(missing_ok=True)


def _started(process: int) -> str:
    """Return when a process started. On Linux, in ticks since a boot: a clock can be set back."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{Path(f'/proc/{process}/stat').read_text().rpartition(')')[2].split()[19]} {boot}"
    except OSError:
        import psutil

        try:
            return str(psutil.Process(process).create_time())
        except psutil.Error:
            return ""


def _refusal(folder: Path, file: Path, holder: Holder) -> str:
    """Return who has a lock, and what to do."""
    if not holder.host:
        return f"{folder} is in use by a process that has just begun: try again in some seconds"
    who = f"process {holder.process} on {holder.host}, since {holder.since}"
    if holder.host == socket.gethostname() and holder.process == os.getpid():
        return (
            f"{folder} is in use by this process, since {holder.since}: leave the `with` block of "
            f"its job first"
        )
    if holder.host == socket.gethostname():
        return f"{folder} is in use by {who}: wait for it, or end it"
    return f"{folder} is in use by {who}: wait for it; if that process is gone, remove {file}"
