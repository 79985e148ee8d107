"""Series in tables: long tables, lists in cells, and one series in each row."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from vaestro.column_types import arrow
from vaestro.data import tables
from vaestro.data.arrow import from_arrow
from vaestro.data.choosing import named
from vaestro.data.columns import filled
from vaestro.data.in_memory import is_table
from vaestro.data.json_tables import read_json
from vaestro.data.parsing import parse_cells
from vaestro.data.raw import Options, Raw
from vaestro.data.refusals import first_names
from vaestro.data.series.long_tables import read_long
from vaestro.data.series.looks import series_of
from vaestro.data.series.ragged import list_columns, read_ragged, series_in_cells
from vaestro.data.source_options import options_about
from vaestro.data.text_files import text_file, unpacked_suffix
from vaestro.frames import Frame
from vaestro.spaces import Space
from vaestro.storage import in_utf8
from vaestro.text import InputError, one_line, typed, unquoted

if TYPE_CHECKING:
    import pyarrow

OF_CELLS = ("missing", "empty", "dates", "decimal")  # options of the cells of a table
LEAST_STEPS = 8  # numbered columns of a table whose rows are series
OF_READER = (
    "ignore",
    "split",
    "missing",
    *options_about("files"),
)  # options of a table that apply before rows are grouped


def read_series_file(
    path: Path, options: Options, name: str, like: Space | None = None
) -> Raw[np.ndarray]:
    """Read the series in a table file.

    Args:
        path: a file that `tables.read_table` reads.
        options: of the source, with `series`.
        name: of the source.
        like: the space of a run that the series are read for.

    Raises:
        ValueError: the file is damaged, or has no such series.

    >>> _ = Path("t.jsonl").write_text('{"s": [1, 2, 3]}\\n{"s": [4, 5]}\\n')
    >>> read_series_file(Path("t.jsonl"), {"series": True}, "t.jsonl").splits["all"].shape
    (2, 3)
    """
    suffix = unpacked_suffix(path)
    if options["series"] is True and suffix in (".json", ".jsonl", ".parquet"):
        pa = arrow(f"read {path.suffix}")
        notes: list[str] = []
        table = (
            _parquet(pa, path)
            if suffix == ".parquet"
            else read_json(pa, text_file(path, options, notes))
        )
        if list_columns(table):
            lists = _lists(pa, table, options, name)
            return replace(lists, notes=(*lists.notes, *notes))
    of_reader = (*OF_READER, *options_about("files"))
    raw = tables.read_table(path, {k: v for k, v in options.items() if k in of_reader})
    return _of_frames(raw.splits, options, name, like, raw.notes)


def read_series_of(
    source: tables.Columns | Frame, options: Options, name: str, like: Space | None = None
) -> Raw[np.ndarray]:
    """Return the series in a table in Python.

    Args:
        source: {name: values}, a DataFrame, an Arrow table or a Frame.
        options, name, like: see `read_series_file`.

    Raises:
        ValueError: the table has no such series.

    >>> table = {"unit": [1, 1, 2], "cycle": [1, 2, 1], "speed": [0.5, 0.7, 0.1]}
    >>> read_series_of(table, {"series": "unit:cycle"}, "table").splits["all"].shape
    (2, 2, 1)
    """
    if options["series"] is True and (table := _with_lists(source)) is not None:
        return _lists(arrow("take a DataFrame"), table, options, name)
    frame = source if isinstance(source, Frame) else tables.frame_of(source)
    if "ignore" in options:
        frame = frame.without(named(options, "ignore", frame.columns, name))
    frames = (
        tables.splits_of(frame, str(options["split"]), name)
        if "split" in options
        else {"all": frame}
    )
    return _of_frames(frames, options, name, like, ())


def write_series(path: Path, source: tables.Columns | Frame) -> None:
    """Write a table in Python, possibly with lists in its cells, to a Parquet file.

    >>> write_series(Path("t.parquet"), {"unit": [1, 1], "speed": [0.5, 0.7]})
    """
    if (table := _with_lists(source)) is not None:
        with in_utf8(path, new=True) as name:
            arrow("take a DataFrame").parquet.write_table(table, name)
        return
    tables.write_frame(path, source if isinstance(source, Frame) else tables.frame_of(source))


def _with_lists(source: tables.Columns | Frame) -> pyarrow.Table | None:
    """Return a DataFrame or an Arrow table with lists in its cells as an Arrow table; None for
    other data."""
    if isinstance(source, (Mapping, Frame)) or not is_table(source):
        return None
    pa = arrow("take a DataFrame")
    try:
        table = pa.table(source)
    except (pa.ArrowException, TypeError):
        return None
    return table if list_columns(table) else None


def _parquet(pa: ModuleType, path: Path) -> pyarrow.Table:
    """Read a Parquet file.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        with in_utf8(path) as name, pa.parquet.ParquetFile(name) as file:
            return file.read()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is damaged or truncated ({one_line(error)})") from error


def _of_frames(
    frames: Mapping[str, Frame],
    options: Options,
    name: str,
    like: Space | None,
    notes: tuple[str, ...],
) -> Raw[np.ndarray]:
    """Return the series of a long table, or of a table whose rows are series."""
    of_cells = {k: v for k, v in options.items() if k in OF_CELLS}
    read = parse_cells(Raw(frames, notes=notes), of_cells, name)
    frames, notes = read.splits, read.notes
    first = next(iter(frames.values()))
    steps = _numbered(first) if options["series"] is True and series_of(first) is None else []
    if len(steps) < LEAST_STEPS:
        raw = read_long(frames, options, name, like)
        return Raw(raw.splits, raw.attributes, (*raw.notes, *notes), raw.missing, raw.series)
    values, attributes = {}, {}
    for split, frame in frames.items():
        columns = [filled(frame.columns[n]).astype(np.float64) for n in steps]
        values[split] = list(np.stack(columns, 1))
        others = {n: filled(c) for n, c in frame.columns.items() if n not in steps}
        attributes[split] = others
    raw = read_ragged(values, options, name, attributes)
    kept = [n for n in first.columns if n not in steps]
    note = f"each row is a series (columns {steps[0]} .. {steps[-1]})"
    note += f"; attributes: {first_names(kept, 9)}" if kept else ""
    return Raw(raw.splits, raw.attributes, (note, *raw.notes, *notes), raw.missing, raw.series)


def _numbered(frame: Frame) -> list[str]:
    """Return the numeric columns with the most frequent name before a number, such as t0 .. t99."""
    matches = {
        n: m[1]
        for n, c in frame.columns.items()
        if c.dtype.kind in "biuf" and (m := re.fullmatch(r"(.*?)\d+(?:\.\d+)?", n))
    }
    if not matches:
        return []
    stem = Counter(matches.values()).most_common(1)[0][0]
    return [name for name, other in matches.items() if other == stem]


def _lists(pa: ModuleType, table: pyarrow.Table, options: Options, name: str) -> Raw[np.ndarray]:
    """Return the series in the lists of a table; lists of several columns are channels."""
    ignored = named(options, "ignore", table.column_names, name) if "ignore" in options else []
    table = table.select([n for n in table.column_names if n not in ignored])
    columns = list_columns(table)
    if "array" in options:
        columns = named({"array": [unquoted(str(options["array"]))]}, "array", columns, name)
    rest = [n for n in table.column_names if n not in list_columns(table)]
    cells = [series_in_cells(table, column, name) for column in columns]
    values = cells[0] if len(cells) == 1 else _channels(cells, columns, name)
    notes: list[str] = []
    others = from_arrow(pa, table.select(rest), name, notes).columns if rest else {}
    attributes = {n: filled(c) for n, c in others.items()}
    names = tuple(columns) if len(columns) > 1 else ()
    raw = read_ragged({"all": values}, options, name, {"all": attributes}, names=names)
    return Raw(raw.splits, raw.attributes, (*raw.notes, *notes), raw.missing, raw.series)


def _channels(cells: list[list[np.ndarray]], columns: list[str], name: str) -> list[np.ndarray]:
    """Return the lists of several columns as the channels of one series per row.

    Raises:
        ValueError: the lists of a row have different lengths, or are lists of lists.
    """
    joined = []
    for row, parts in enumerate(zip(*cells, strict=True)):
        shapes = {part.shape for part in parts}
        if len(shapes) > 1 or parts[0].ndim > 1:
            got = " and ".join(sorted(str(shape) for shape in shapes))
            raise ValueError(
                f"expected lists of one length in {', '.join(columns)} of row {row + 1:,} of "
                f"{name}, which are channels; got {got} "
                f"({typed('array', columns[0])} reads one column)"
            )
        joined.append(np.stack(parts, 1))
    return joined
