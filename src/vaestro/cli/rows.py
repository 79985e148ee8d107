"""Helpers of the commands that read a source and write data: rows, messages and files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from vaestro.cli.console import console

if TYPE_CHECKING:
    import numpy as np

    from vaestro.data import Rows
    from vaestro.latent import UserData
    from vaestro.spaces import Space

PICTURED = 32  # data in a .png


def say_read(rows: Rows) -> None:
    """Print what was changed while the source was read, as `train` does."""
    for note in rows.notes:
        console.say(note)


def spread(rows: Rows, n: int | None, picture: bool) -> tuple[Rows, np.ndarray]:
    """Return n evenly spaced rows and their row numbers; by default all, or 32 for a picture.

    If the data are sorted, the first n rows would be similar.

    Raises:
        ValueError: there are fewer than n rows, or n is below 1.
    """
    if n is not None and not 1 <= n <= len(rows):
        raise ValueError(f"expected -n between 1 and {len(rows)}; got {n}")
    places = rows.places(min(len(rows), n or (PICTURED if picture else len(rows))))
    return (rows if len(places) == len(rows) else rows.pick(places)), places


def which(places: np.ndarray, total: int) -> str:
    """Return the chosen rows in words: " (rows 0, 99, 199 of 200)"; "" if all were chosen."""
    if len(places) == total:
        return ""
    shown = [f"{i:,}" for i in places.tolist()]
    few = len(shown) <= 8
    listed = ", ".join(shown) if few else f"{', '.join(shown[:3])} .. {shown[-1]}"
    return (
        f" (row{'s' if len(shown) > 1 else ''} {listed} of "
        f"{total:,}{'' if few else ', evenly spaced'})"
    )


def is_picture(path: Path) -> bool:
    """Return whether a file is a picture."""
    return path.suffix.lower() == ".png" and not path.is_dir()


def own_dtype(path: Path, dtype: str | None) -> str | None:
    """Return the dtype of means in files of single data, which are values of the data by
    default."""
    return dtype or ("own" if path.is_dir() else None)


def file_names(rows: Rows) -> np.ndarray | None:
    """Return the names of the files that rows were read from, (N,); None for other data."""
    return rows.attributes.get("file")


def dtype_of(space: Space, picture: bool, dtype: str | None) -> str | None:
    """Return the dtype of means; in a picture, means of images are not rounded."""
    return "float" if picture and space.image else dtype


def write(
    path: Path,
    sets: Mapping[str, UserData],
    space: Space,
    title: str,
    *,
    dtype: str | None = None,
    places: np.ndarray | None = None,
    columns: int = 16,
    names: np.ndarray | None = None,
    source: str = "",
) -> None:
    """Write data, and print how means are rounded.

    Args:
        path: a .png shows all sets; other files contain the last one, and a folder receives a file
            for each of its rows.
        sets: data by label.
        space: of the data.
        title: of a picture.
        dtype: of means; "float" for draws.
        places: row numbers of the data, for an .npz, if not all rows were chosen.
        columns: images per line of a picture.
        names: of files in a folder, (N,); by default they are numbered.
        source: of the run's data, for the format of files in a folder.
    """
    from vaestro.data.writers import write_data, write_grid
    from vaestro.written import rounding

    if is_picture(path):
        write_grid(path, sets, space, title, columns)
        return
    *_, data = sets.values()
    if path.is_dir():
        from vaestro.data.image_writing import write_folder

        own = None if names is None else names.tolist()
        console.say(write_folder(path, data, space, names=own, source=source))
    else:
        write_data(path, data, places)
    line = rounding(space, dtype)
    if line:
        console.say(line)


def say_unread(rows: Rows) -> None:
    """Print a warning that names the rows of streamed data that could not be read."""
    if rows.stream is not None and rows.stream.unread()[0]:
        console.say(f"warning: {rows.stream.unread()[1]}; each was replaced by the next row")
