"""The writer of a run's folder: it has the lock, and it alone creates, replaces or removes the run.

    RUN                     the run
    RUN.XXXXXXXX.new        a new run that is not complete yet; it is renamed to RUN
    RUN.XXXXXXXX.replaced   the run that a new one replaces; it is removed at the end

A new run without --force is renamed before its first step. One that replaces a run is renamed after
its first step, so the old run stays if the new one cannot be trained.
"""

from __future__ import annotations

import errno
import os
import secrets
import time
import weakref
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import final

from vaestro import storage
from vaestro.data.source_options import parse_source
from vaestro.locks import Lock, is_locked, refuse_locked
from vaestro.runs.manifest import (
    FOLDERS,
    LEFTOVERS,
    LOCK,
    MANIFEST,
    RESULTS_LOCK,
    TRAINING,
    begin,
    is_run,
    is_unfinished,
    listed,
    remove_listed,
)

YOUNG_SECONDS = 10.0  # a folder without a lock is one whose process has just begun
_EXISTS = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)
_MOUNTED = (errno.EBUSY, errno.EXDEV)


def default_folder(source: str) -> Path:
    """Return a folder under runs/ that does not exist, named after the source and the time.

    >>> default_folder("t.csv").name[:2]
    't-'
    """
    name = Path(parse_source(source)[0]).stem or "run"
    base = Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    path, n = base, 2
    while path.exists():
        path, n = base.with_name(f"{base.name}-{n}"), n + 1
    return path


def refuse_existing(path: Path, force: bool) -> None:
    """Raise ValueError if a run cannot be written into a folder, or would overwrite files.

    Args:
        path: the folder.
        force: whether an existing run may be replaced.

    >>> refuse_existing(Path("new"), force=False)
    """
    existing = next(p for p in (path, *path.absolute().parents) if p.exists())
    if not existing.is_dir():
        raise ValueError(f"expected a folder to write {path} into; got {existing}, which is a file")
    if not path.exists() or not any(path.iterdir()) or _is_partial(path):
        return
    if not is_run(path):
        raise ValueError(
            f"expected a new run folder; got {path}, which contains files that are not a run's "
            f"(choose another --run)"
        )
    refuse_locked(path)
    if not force:
        raise ValueError(
            f"expected a new run folder; got {path}, which exists (--force overwrites it, "
            f"--resume continues it)"
        )
    if Path.cwd().resolve().is_relative_to(path.resolve()):
        raise ValueError(
            f"expected --force from outside of the folder that is replaced; got {path}, which "
            f"contains the current folder (cd to another one first)"
        )


@final
class Writer:
    """Write the folder of one run, as its only writer.

    `Writer.new` and `Writer.opened` create one.

    Args:
        path: the folder, as the user named it.
        place: where its files are now.
        lock: of `place`.
        replaced: the lock of the run that is replaced.

    >>> writer = Writer.new(Path("mine"))
    >>> writer.publish()
    >>> Path("mine").is_dir()
    True
    >>> writer.discard()
    >>> Path("mine").exists()
    False
    """

    def __init__(self, path: Path, place: Path, lock: Lock, replaced: Lock | None = None) -> None:
        self.path, self.place, self._lock, self._replaced = path, place, lock, replaced
        self._abandon = weakref.finalize(self, _remove_unfinished, place, lock, os.getpid())
        if self.published:
            self._abandon.detach()

    @classmethod
    def new(cls, path: Path | None, source: str = "", *, force: bool = False) -> Writer:
        """Create the temporary folder of a new run.

        Args:
            path: the folder; None for a new one under runs/, which no other process has.
            source: of the data, after which a new folder is named.
            force: whether an existing run may be replaced.

        Raises:
            ValueError: the folder exists, or another process writes it.
            OSError: nothing can be written there.
        """
        path = _reserved(source) if path is None else path
        storage.make_folder(path.resolve().parent)
        recover(path)
        refuse_existing(path, force)
        replaced = None
        if path.exists() and is_run(path):
            replaced = Lock(path)
        if replaced is not None and _is_partial(path):
            remove_listed(path)
            storage.remove(path / MANIFEST)
            replaced.release()
            replaced = None
        place = _beside(path, "new")
        storage.make_folder(place)
        lock = Lock(place)
        begin(place, TRAINING)
        return cls(path, place, lock, replaced)

    @classmethod
    def opened(cls, path: Path) -> Writer:
        """Lock the folder of a run, and remove what an interrupted process left in it.

        Raises:
            ValueError: another process writes it.
        """
        writer = cls(path, path, Lock(path))
        for folder in (path, *(path / name for name in FOLDERS)):
            storage.clear_leftovers(folder, LEFTOVERS)
        return writer

    @property
    def published(self) -> bool:
        """Return whether the files are in the folder that the user named."""
        return self.place == self.path

    @property
    def replaces(self) -> bool:
        """Return whether the run replaces another, which is still there."""
        return self._replaced is not None

    def publish(self) -> None:
        """Rename the temporary folder to the run's, and remove the run that it replaces.

        Raises:
            ValueError: the folder exists by now.
        """
        if self.published:
            return
        if self._replaced is None:
            self._move_in()
        else:
            target, old = self.path.resolve(), _beside(self.path, "replaced")
            if not (target / MANIFEST).exists():
                begin(target, tuple(listed(target)))
            storage.move(target, old)
            self._replaced.moved(old)
            try:
                storage.move(self.place, target)
            except OSError:
                storage.move(old, target)
                self._replaced.moved(target)
                raise
            self._lock.moved(target)
            settle(old, target, self._replaced)
            self._replaced = None
        self.place = self.path
        self._abandon.detach()

    def discard(self) -> None:
        """Remove the files of the run, and its folder if it is empty then."""
        if self.published:
            remove_listed(self.place)
            storage.remove(self.place / MANIFEST)
            self.release()
            with suppress(OSError):
                self.place.rmdir()
        else:
            self._abandon()
            self.release()
            with suppress(OSError):
                self.path.rmdir()  # an empty one that was reserved

    def release(self) -> None:
        """End the locks."""
        for lock in (self._lock, self._replaced):
            if lock is not None:
                lock.release()

    def _move_in(self) -> None:
        """Rename the temporary folder to one that does not exist, or is empty."""
        target = self.path.resolve()
        try:
            storage.move(self.place, target)
        except OSError as error:
            if error.errno not in (*_EXISTS, *_MOUNTED) or not target.exists():
                raise
            if not target.is_dir() or any(target.iterdir()):
                raise ValueError(
                    f"expected a new run folder; got {self.path}, which another process has just "
                    f"made (choose another --run)"
                ) from error
            # The folder cannot be replaced, such as a mounted one. config.yaml comes last: a folder
            # without it is not a run yet.
            for file in sorted(self.place.iterdir(), key=lambda p: p.name == "config.yaml"):
                storage.move(file, target / file.name)
            self.place.rmdir()
        self._lock.moved(target)


def recover(path: Path) -> None:
    """Finish what a killed writer left next to a run: a new run that is not complete is removed, a
    replaced one is put back, or removed if the new one is there.

    >>> recover(Path("mine"))
    """
    target = path.resolve()
    for folder in sorted(target.parent.iterdir()) if target.parent.is_dir() else ():
        if not is_unfinished(folder) or not folder.is_dir() or is_locked(folder):
            continue
        ours = (folder / LOCK).exists() or (folder / MANIFEST).exists()
        if folder.suffix == ".new":
            empty = not any(folder.iterdir())
            if ours or (empty and time.time() - folder.stat().st_mtime > YOUNG_SECONDS):
                storage.remove_tree(folder)
        elif ours and folder.name.rsplit(".", 2)[0] == target.name:
            lock = Lock(folder)
            if target.exists():
                settle(folder, target, lock)
            else:
                storage.move(folder, target)
                lock.moved(target)
                lock.release()


def settle(old: Path, new: Path, lock: Lock) -> None:
    """Remove a replaced run, and move the user's own files to the new run.

    Args:
        old: the folder of the replaced run.
        new: the folder of the new run.
        lock: of the old folder, which ends.

    >>> for name in ("old", "new"):
    ...     Path(name).mkdir()
    >>> _ = Path("old/mine.txt").write_text("mine")
    >>> settle(Path("old"), Path("new"), Lock(Path("old")))
    >>> Path("old").exists(), Path("new/mine.txt").read_text()
    (False, 'mine')
    """
    storage.clear_leftovers(old, LEFTOVERS)
    remove_listed(old)
    for entry in sorted(old.iterdir()):
        if entry.name != MANIFEST and entry.name.split(".")[0] not in (LOCK, RESULTS_LOCK):
            _merge(entry, new / entry.name)
    storage.remove(old / MANIFEST)
    lock.release()
    with suppress(OSError):
        old.rmdir()


def _merge(entry: Path, target: Path) -> None:
    """Move a file or a folder to a place where there may be another of its name, which stays."""
    if entry.is_dir() and not entry.is_symlink() and target.is_dir():
        for inner in sorted(entry.iterdir()):
            _merge(inner, target / inner.name)
        entry.rmdir()
        return
    while target.exists():
        target = target.with_name(f"{target.name}.old")
    storage.move(entry, target)


def _reserved(source: str) -> Path:
    """Create an empty folder under runs/ for a new run, and return it."""
    storage.make_folder(Path("runs"))
    while True:
        path = default_folder(source)
        with suppress(FileExistsError):
            path.mkdir()
            return path


def _is_partial(path: Path) -> bool:
    """Return whether a folder is that of a run whose start was interrupted."""
    return (path / MANIFEST).exists() and not (path / "config.yaml").exists()


def _remove_unfinished(place: Path, lock: Lock, owner: int) -> None:
    if os.getpid() == owner:  # not in a fork
        storage.remove_tree(place)
        lock.release()


def _beside(path: Path, suffix: str) -> Path:
    return path.resolve().with_name(f"{path.resolve().name}.{secrets.token_hex(4)}.{suffix}")
