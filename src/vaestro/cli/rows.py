"""What the commands that read a source and write data share: which rows, what is said of them, and
how they are written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaestro.cli.console import console

if TYPE_CHECKING:
    import numpy as np

    from vaestro.data import Rows
    from vaestro.spaces import Space

PICTURED = 32  # data in a .png


def say_read(rows: Rows) -> None:
    """Say what was done to the source when it was read, as `train` does."""
    for note in rows.notes:
        console.say(note)


def spread(rows: Rows, n: int | None, picture: bool) -> tuple[Rows, np.ndarray]:
    """Return n rows at equal distances and their places; by default all, and as many as fit in a
    picture.

    Sorted data begin with rows that are alike: the first n would show one class.

    Raises:
        ValueError: there are fewer than n rows, or n is below 1.
    """
    if n is not None and not 1 <= n <= len(rows):
        raise ValueError(f"expected -n between 1 and {len(rows)}; got {n}")
    places = rows.places(min(len(rows), n or (PICTURED if picture else len(rows))))
    return (rows if len(places) == len(rows) else rows.pick(places)), places


def which(places: np.ndarray, total: int) -> str:
    """Name the rows that were taken: " (rows 0, 99, 199 of 200)"; nothing where all were."""
    if len(places) == total:
        return ""
    shown = [f"{i:,}" for i in places.tolist()]
    few = len(shown) <= 8
    listed = ", ".join(shown) if few else f"{', '.join(shown[:3])} .. {shown[-1]}"
    return (
        f" (row{'s' if len(shown) > 1 else ''} {listed} of "
        f"{total:,}{'' if few else ', at equal distances'})"
    )


def dtype_of(space: Space, picture: bool, dtype: str | None) -> str | None:
    """Return the dtype of means: of images in a picture, means as they are."""
    return "float" if picture and space.image else dtype


def write(
    path: Path, data: Any, space: Space, dtype: str | None, places: np.ndarray | None = None
) -> None:
    """Write means, an .npz with the places of their rows if only some were taken, and say to what
    they are rounded."""
    from vaestro.data.writers import write_data
    from vaestro.written import rounding

    write_data(path, data, places)
    said = rounding(space, dtype)
    if said:
        console.say(said)


def say_unread(rows: Rows) -> None:
    """Print a warning that names the rows of streamed data that could not be read."""
    if rows.stream is not None and rows.stream.unread()[0]:
        console.say(f"warning: {rows.stream.unread()[1]}; each was replaced by the next row")
