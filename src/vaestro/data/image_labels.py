"""Attributes of images from a table beside them, whose rows name the files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from vaestro.data import tables
from vaestro.data.raw import Options, Raw
from vaestro.data.table_formats import is_table, suffixes_in_words
from vaestro.frames import Frame
from vaestro.text import InputError, unquoted

# names of a column that names files, in the order in which they are tried
NAMING = (
    "file",
    "file_name",
    "filename",
    "image",
    "image_name",
    "path",
    "image_path",
    "name",
    "id",
)


def attach(
    raw: Raw[np.ndarray], folder: Path, beside: Sequence[str], options: Options
) -> Raw[np.ndarray]:
    """Return the images of a folder with the attributes of a table.

    The table has one row for each image. A column such as `file`, or else its first column, names
    the files: with or without their folders, with or without their suffix. Images without a row
    have NaN or "" as attributes.

    Args:
        raw: the images, with the attribute `file`.
        folder: of the images.
        beside: names of tables that lie in the folder.
        options: `attributes` names the table, or is none.

    Raises:
        ValueError: there is no such table, or it names none of the images.
        OSError: the table cannot be read.
    """
    asked = options.get("attributes")
    if asked == "none" or (asked is None and not beside):
        return raw
    found = folder / beside[0] if asked is None else Path(unquoted(str(asked))).expanduser()
    if asked is not None and not found.exists() and (folder / found).exists():
        found = folder / found
    if not found.exists():
        raise InputError(f"there is no table {found} for attributes=")
    names = [str(n) for split in raw.attributes.values() for n in split["file"].tolist()]
    frame, column = _table(found)
    rows = _matched(frame.columns[column].data.tolist(), names)
    if (rows < 0).all():
        if asked is None:
            return raw
        cells = ", ".join(map(str, frame.columns[column].data[:2].tolist()))
        raise InputError(
            f"no row of {found} names an image in {folder}: its column {column!r} has {cells}, .. "
            f"and the files are {', '.join(names[:2])}, .."
        )
    values = {n: _of_rows(c, rows) for n, c in frame.columns.items() if n != column}
    return replace(
        raw,
        attributes=_divided(raw.attributes, values),
        notes=(*raw.notes, _note(found, values, rows, len(frame), asked is None)),
    )


def _table(path: Path) -> tuple[Frame, str]:
    """Return a table, and the column that names the files."""
    if not is_table(path):
        raise ValueError(f"expected a table ({suffixes_in_words()}) for attributes=; got {path}")
    columns = list(tables.read_table(path, {}).splits["all"].columns)
    by_name = {c.lower(): c for c in reversed(columns)}
    column = next((by_name[n] for n in NAMING if n in by_name), columns[0])
    # read as text, so that 007 keeps its zeros
    return tables.read_table(path, {}, text=[column]).splits["all"], column


def _matched(cells: Sequence[object], names: Sequence[str]) -> np.ndarray:
    """Return the row of the table of each image, (N,); -1 without one."""
    rows: dict[str, int] = {}
    for row, cell in enumerate(cells):
        path = PurePosixPath(str(cell).strip().replace("\\", "/"))
        for key in _keys(path):
            rows.setdefault(key, row)
    once = Counter(key for name in names for key in set(_keys(PurePosixPath(name))))
    places = []
    for name in names:
        keys = [k for k in _keys(PurePosixPath(name)) if once[k] == 1]
        places.append(next((rows[k] for k in keys if k in rows), -1))
    return np.array(places)


def _keys(path: PurePosixPath) -> Iterable[str]:
    """Return what a file may be called, from its whole path to its name without a suffix."""
    parts = [part for part in path.parts if part not in ("/", ".")]
    for start in range(len(parts)):
        tail = PurePosixPath(*parts[start:])
        yield str(tail)
        yield str(tail.with_suffix(""))


def _of_rows(column: np.ma.MaskedArray, rows: np.ndarray) -> np.ndarray:
    """Return the cells of some rows; NaN or "" for row -1 and for empty cells."""
    cells = column[np.maximum(rows, 0)]
    absent = (rows < 0) | np.ma.getmaskarray(cells)
    values = np.ma.getdata(cells)
    if not absent.any():
        return values
    if values.dtype.kind in "biuf":
        return np.where(absent, np.nan, values.astype(np.float64))
    return np.where(absent, "", values.astype(str))


def _divided(
    attributes: Mapping[str, Mapping[str, np.ndarray]], values: Mapping[str, np.ndarray]
) -> dict[str, dict[str, np.ndarray]]:
    """Return the attributes of each split with values (N,), which are in the order of splits."""
    out, start = {}, 0
    for split, own in attributes.items():
        end = start + len(own["file"])
        out[split] = {**own, **{n: v[start:end] for n, v in values.items()}}
        start = end
    return out


def _note(
    path: Path, values: Mapping[str, np.ndarray], rows: np.ndarray, count: int, recognised: bool
) -> str:
    """Return a note on the attributes of a table."""
    shown = ", ".join(list(values)[:5]) + (", .." if len(values) > 5 else "")
    note = f"attributes {shown} from {path.name}" if values else f"no attributes in {path.name}"
    lacking, other = int((rows < 0).sum()), count - len(np.unique(rows[rows >= 0]))
    if lacking:
        note += f"; {lacking:,} of {len(rows):,} images have no row in it"
    if other:
        note += f"; {other:,} of its rows name no image"
    return note + (" (attributes=none leaves it out)" if recognised else "")
