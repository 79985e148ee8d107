"""Runs in temporary folders, and copies of a run's folder."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

from vaestro import storage
from vaestro.data.source_options import parse_source
from vaestro.locks import refuse_locked
from vaestro.options import dump_config, read_options
from vaestro.runs.manifest import FOLDERS, listed, register
from vaestro.runs.writer import Writer
from vaestro.trust import remember

if TYPE_CHECKING:
    from vaestro.runs.run import Run


def temporary_folder() -> Path:
    """Create a folder for a run that is removed later; see `remove_with`.

    >>> temporary_folder().is_dir()
    True
    """
    return Path(tempfile.mkdtemp(prefix="vaestro-"))


def remove_with(run: Run, folder: Path) -> None:
    """Remove a folder when a run is collected, or when the process ends.

    >>> import gc, numpy as np, vaestro as vs
    >>> run = vs.train(np.eye(40, dtype="uint8"), run="brief/run", latent=2, steps=2)
    >>> remove_with(run, Path("brief"))
    >>> del run
    >>> _ = gc.collect()
    >>> Path("brief").exists()
    False
    """
    weakref.finalize(run, _remove, folder.absolute(), os.getpid())


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # not in a fork
        shutil.rmtree(folder, ignore_errors=True)


def save(run: Path, target: Path) -> None:
    """Copy the files that Vaestro wrote in a run's folder to a new folder.

    Args:
        run: the folder of the run.
        target: the new folder.

    Raises:
        ValueError: the run is in training, or the new folder exists.

    >>> import numpy as np, vaestro as vs
    >>> run = vs.train(np.eye(40, dtype="uint8"), run="first", latent=2, steps=2)
    >>> save(run.path, Path("copied"))
    >>> vs.Run("copied").finished
    True
    """
    refuse_locked(run)
    names = listed(run)
    writer = Writer.new(target)
    try:
        register(writer.place, *names)
        for name in names:
            if name in FOLDERS:
                storage.make_folder(writer.place / name)
            patterns = [f"{name}/{p}" for p in FOLDERS[name]] if name in FOLDERS else [name]
            for file in (file for pattern in patterns for file in run.glob(pattern)):
                _copy(file, writer.place / file.relative_to(run))
        _move_source(run, writer.place / "config.yaml", target)
        writer.publish()
    except BaseException:
        writer.discard()
        raise
    writer.release()


def _copy(file: Path, target: Path) -> None:
    with storage.writing(target) as part:
        shutil.copyfile(file, part)


def _move_source(run: Path, config: Path, target: Path) -> None:
    """Name the data that are stored with the run by their new place, in config.yaml."""
    options = read_options(config)
    name = parse_source(options["source"])[0]
    if Path(name).resolve().parent == run.resolve():
        moved = str(target / Path(name).name)
        options["source"] = options["source"].replace(name, moved, 1)
        text = dump_config(options)
        storage.write_text(config, text)
        record = (config.parent / "config.json").read_text(encoding="utf-8")
        remember(options, text, record, target)
