"""Helpers of the commands that read a source and write data: rows, messages and files."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from vaestro.cli.console import console

if TYPE_CHECKING:
    import numpy as np

    from vaestro.data import Rows
    from vaestro.latent import UserData
    from vaestro.runs.session import Session
    from vaestro.spaces import Space

PICTURED = 32  # data in a .png


def read(
    session: Session, source: str, split: str | None, condition: Mapping[str, str] | None = None
) -> Rows:
    """Return the rows of a source, and print what was changed while it was read."""
    with console.during(f"reading {source}"):
        rows = session.rows(source, split, condition)
    say_read(rows)
    return rows


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
    from vaestro.data.writers import is_folder

    return dtype or ("own" if is_folder(path) else None)


def dtype_of(space: Space, path: Path, dtype: str | None) -> str | None:
    """Return the dtype of means. Means of images in a picture, and means of counts in an .h5ad
    file, are not rounded by default."""
    if is_picture(path) and space.image:
        return "float"
    return "float" if dtype is None and path.suffix.lower() == ".h5ad" else dtype


def attributes_of(rows: Rows) -> dict[str, np.ndarray]:
    """Return the attributes and the conditions of rows by name, each (N,)."""
    from vaestro.data.columns import filled

    given: dict[str, np.ndarray] = {}
    if rows.given is not None and rows.given_space is not None:
        columns = rows.given_space.outward(rows.given).columns
        given = {name: filled(cells) for name, cells in columns.items()}
    return rows.attributes | given


def row_columns(
    attributes: Mapping[str, np.ndarray], names: Collection[str], n: int
) -> dict[str, np.ndarray]:
    """Return the row numbers and the attributes, as columns of a table that has others too.

    Args:
        attributes: other values of each row, each (n,).
        names: of the other columns; an attribute with such a name gets `_of_data` after it.
        n: number of rows.
    """
    import numpy as np

    found = {"row": np.arange(n)}
    for name, values in attributes.items():
        if values.dtype.kind in "biufUM" and values.ndim == 1:
            found[f"{name}_of_data" if name in names else name] = values
    return found


def conditions_of(session: Session, conditions: Mapping[str, str], n: int) -> dict[str, np.ndarray]:
    """Return conditions that are the same for n rows by name, each (n,)."""
    from vaestro.data.columns import filled
    from vaestro.data.tables import condition_frame

    columns = condition_frame(session.model.given, conditions, n).columns
    return {name: filled(cells) for name, cells in columns.items()}


def write(
    path: Path,
    sets: Mapping[str, UserData],
    space: Space,
    title: str,
    *,
    dtype: str | None = None,
    places: np.ndarray | None = None,
    columns: int = 16,
    attributes: Mapping[str, np.ndarray] | None = None,
    source: str = "",
    raw: bool = False,
) -> None:
    """Write data, and print how means are rounded and text is written.

    Args:
        path: a .png shows all sets; other files contain the last one, and a folder receives a file
            for each of its rows.
        sets: data by label.
        space: of the data.
        title: of a picture.
        dtype: of means; "float" for draws.
        places: row numbers of the data, for an .npz, if not all rows were chosen.
        columns: images per line of a picture.
        attributes: further values of each row, each (N,): the names of series, and what an .h5ad
            file has in obs. Other files of named columns contain the names of rows; files in a
            folder have the names in `file`.
        source: of the run's data, for the format of files in a folder.
        raw: whether to write text that a spreadsheet would run as it is.
    """
    import numpy as np

    from vaestro.data.series import writing
    from vaestro.data.writers import is_folder, write_arrays, write_data, write_grid, write_named
    from vaestro.written import rounding

    if is_picture(path):
        write_grid(path, sets, space, title, columns)
        return
    *_, data = sets.values()
    guards, named = 0, space.names and not space.tabular and not space.layout.ends
    if is_folder(path):
        from vaestro.data.image_writing import write_folder

        files = (attributes or {}).get("file")
        own = None if files is None else files.tolist()
        console.say(write_folder(path, data, space, names=own, source=source))
    elif isinstance(data, np.ndarray) and writing.is_long(space, path):
        guards = write_data(path, writing.long_table(data, space, attributes), raw=raw)
    elif isinstance(data, np.ndarray) and space.lengths is not None and path.suffix == ".npz":
        write_arrays(path, writing.one_each(data, space, attributes))
    elif named or path.suffix.lower() == ".h5ad":
        guards = write_named(path, data, space, attributes or {}, raw=raw)
    else:
        guards = write_data(path, data, places, raw=raw)
    line = rounding(space, dtype)
    if line:
        console.say(line)
    say_guards(guards)


def say_guards(cells: int) -> None:
    """Print the number of cells with an apostrophe before what a spreadsheet would run."""
    if cells:
        count = "1 cell" if cells == 1 else f"{cells:,} cells"
        console.say(
            f"wrote an apostrophe before the = + - or @ of {count}, so that a spreadsheet does not "
            f"run the text (--raw leaves it out)"
        )


def say_unread(rows: Rows) -> None:
    """Print a warning that names the rows of streamed data that could not be read."""
    if rows.stream is not None and rows.stream.unread()[0]:
        console.say(f"warning: {rows.stream.unread()[1]}; each was replaced by the next row")
