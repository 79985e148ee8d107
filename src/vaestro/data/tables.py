"""Read and write tables.

Every format is first read into an Arrow table and then converted to a Frame, so a column means the
same in every format. NaN, null and empty text are empty cells. `data.kinds` infers the kinds of the
columns.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sized
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from vaestro.column_types import arrow, as_arrow
from vaestro.data.arrow import from_arrow, masked, with_types
from vaestro.data.choosing import Wanted, named
from vaestro.data.formats import restored
from vaestro.data.formulas import guarded
from vaestro.data.in_memory import ArrowStream, arrow_of, is_pandas
from vaestro.data.raw import Options, Raw
from vaestro.data.refusals import mixed_types
from vaestro.data.table_formats import format_of
from vaestro.data.text_files import DAMAGE
from vaestro.data.writers import TABLES
from vaestro.frames import RAW, Frame
from vaestro.storage import in_utf8
from vaestro.text import InputError, is_input_error, nearest, one_line, unquoted

if TYPE_CHECKING:
    import pyarrow

    from vaestro.spaces import Column, Space


Columns: TypeAlias = "Mapping[str, ArrayLike] | ArrowStream | pyarrow.Table"
OF_SPLITS = ("split", "groups")  # options that name a column which is not modelled
SPLITS = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "validation": "valid",
    "val": "valid",
    "test": "test",
}
CHUNK = 65536  # rows


# -- files -> frames -------------------------------------------------------------------------------


def read_table(
    path: Path,
    options: Options,
    *,
    columns: Collection[str] | None = None,
    text: Collection[str] = (),
) -> Raw[Frame]:
    """Read a file of a table, in one of the formats of `table_formats`, into a Frame.

    Args:
        path: the file. Its suffix determines the format.
        options: `ignore` names columns to leave out, joined by +; `split` names the column whose
            cells are train, valid or test, which gives the splits instead of "all".
        columns: names of the only columns to read; by default all. Absent ones are ignored.
        text: columns of a CSV file that are read as text, even if they look like numbers.

    Raises:
        ValueError: the file is damaged or not a table, a column cannot be used, or an option names
            no column.

    >>> _ = Path("t.csv").write_text("a,b\\n1,x\\n2,y\\n")
    >>> list(read_table(Path("t.csv"), {}).splits["all"].columns)
    ['a', 'b']
    """
    if columns is not None:
        columns = [*columns, *(unquoted(str(options[k])) for k in OF_SPLITS if k in options)]
    notes: list[str] = []
    row, wanted = format_of(path, Wanted(path.name, options, columns, text, notes))
    pa = arrow(f"read {path.suffix.lower()}")
    try:
        table = row.read(pa, path, wanted)
        ignored = options.get("ignore")
        frame = from_arrow(pa, table, path.name, notes, ignored, inferred=row.inferred)
        frame = replace(frame, formats=dict.fromkeys(wanted.raw & frame.columns.keys(), RAW))
    except (pa.ArrowException, ValueError, RecursionError, *DAMAGE) as error:
        if is_input_error(error):
            raise
        raise InputError(f"{path} is damaged or cut short ({one_line(error)})") from error
    if "split" not in options:
        return Raw({"all": frame}, {"all": {}}, tuple(notes))
    splits = splits_of(frame, str(options["split"]), path.name)
    return Raw(splits, {name: {} for name in splits}, tuple(notes))


def splits_of(frame: Frame, column: str, where: str) -> dict[str, Frame]:
    """Return the rows of each split, without the column that names the split.

    Args:
        frame: all rows.
        column: whose cells are train, valid or test.
        where: the source, for messages.

    Raises:
        ValueError: there is no such column, or it has other cells.

    >>> frame = frame_of({"a": [1, 2, 3], "split": ["train", "test", "train"]})
    >>> {name: len(rows) for name, rows in splits_of(frame, "split", "t.csv").items()}
    {'train': 2, 'test': 1}
    """
    (column,) = named({"split": [unquoted(column)]}, "split", frame.columns, where)
    values = np.ma.getdata(frame.columns[column]).astype(str)
    rest = frame.without([column])
    words, codes = np.unique(values, return_inverse=True)
    strange = ["empty cells"] if np.ma.is_masked(frame.columns[column]) else []
    strange += [repr(str(word)) for word in words if word.strip().lower() not in SPLITS]
    if strange:
        raise ValueError(
            f"expected train, valid or test in column {column!r} of {where}; got {strange[0]}"
        )
    splits = np.array([SPLITS[word.strip().lower()] for word in words])[codes.ravel()]
    if not (splits == "train").any() or not rest.columns:
        what = "training rows" if rest.columns else f"columns other than {column!r}"
        raise ValueError(f"expected {what} in {where}; got none")
    return {
        name: rest[splits == name] for name in ("train", "valid", "test") if (splits == name).any()
    }


# -- Arrow and Python -> frames --------------------------------------------------------------------


def frame_of(columns: object, where: str = "the table", notes: list[str] | None = None) -> Frame:
    """Return a Frame from {name: array or list}, a DataFrame, a Series, an Arrow table or a list of
    records.

    None, NaN and empty text are empty cells.

    Args:
        columns: arrays, masked arrays or lists (N,) by name; data that export Arrow, such as
            DataFrames; or dicts, named tuples or dataclasses, one for each row.
        where: name of the table in messages.
        notes: to which notes on columns are appended.

    Raises:
        ValueError: columns have different lengths or more than one dimension, or contain values
            other than numbers, text, truth values and dates.

    >>> frame_of({"age": [31, None]}).columns["age"].mask.tolist()
    [False, True]
    >>> frame_of([{"age": 31}, {"name": "Ada"}]).columns["name"].tolist()
    [None, 'Ada']
    """
    notes = [] if notes is None else notes
    if isinstance(columns, Mapping) and columns:
        return _of_mapping(columns, where, notes)
    if not isinstance(columns, Mapping):
        pa = arrow("take a DataFrame")
        try:
            table = arrow_of(pa, columns, where, notes)
        except pa.ArrowException as error:
            raise ValueError(
                f"expected values of one type in each column of {where}; got others "
                f"({one_line(error)[:100]})"
            ) from error
        if table is not None:
            return from_arrow(pa, table, where, notes)
    raise ValueError(
        f"expected an array, texts, columns as {{name: values}}, a DataFrame or a list of records; "
        f"got {'no columns' if isinstance(columns, Mapping) else type(columns).__name__}"
    )


def _of_mapping(columns: Mapping[object, ArrayLike], where: str, notes: list[str]) -> Frame:
    """Return a Frame from {name: array or list}."""
    frame = Frame({})
    for name, values in columns.items():
        if is_pandas(values):
            import pandas

            one = pandas.DataFrame({str(name): pandas.Series(values).reset_index(drop=True)})
            frame = frame.with_columns(frame_of(one, where, notes))
        else:
            frame = frame.with_columns(Frame({str(name): _column_of(values, str(name), where)}))
    sizes = {len(values) for values in frame.columns.values()}
    if len(sizes) > 1 or 0 in sizes:
        raise ValueError(
            f"expected columns of one length, not 0, in {where}; got "
            f"{', '.join(map(str, sorted(sizes)))} (series=True reads each as a series)"
        )
    return frame


def _column_of(values: ArrayLike, name: str, where: str) -> np.ma.MaskedArray:
    """Return an array or list as a column of a Frame."""
    if isinstance(values, str) or not (isinstance(values, Sized) and isinstance(values, Iterable)):
        raise ValueError(
            f"expected an array or a list in column {name!r} of {where}; got "
            f"{type(values).__name__}"
        )
    # The additional None keeps lists of lists as objects.
    array = (
        np.asanyarray(values)
        if hasattr(values, "__array__")
        else np.array([*values, None], object)[:-1]
    )
    empty = np.ma.getmaskarray(array)
    array = np.ma.getdata(array)
    if array.dtype.kind == "O" and array.ndim == 1:
        missing = [
            v is None
            or type(v).__name__ in ("NAType", "NaTType")
            or (isinstance(v, float) and v != v)
            for v in array
        ]
        empty = empty | np.array(missing, bool)
        observed = _typed(array[~empty].tolist())
        array = np.zeros(len(array), observed.dtype) if observed.ndim == 1 else observed
        if observed.ndim == 1:
            array[~empty] = observed
    if array.ndim != 1 or array.dtype.kind not in "biufUM":
        what = (
            f"shape {array.shape}"
            if array.ndim > 1
            else f"values of type {array.dtype}"
            if array.ndim
            else (isinstance(values, Iterable) and mixed_types(values)) or "other values"
        )
        raise ValueError(
            f"expected numbers, text, truth values or dates (N,) in column {name!r} of {where}; "
            f"got {what}"
        )
    return masked(array, empty, name, where)


def _typed(values: list[object]) -> np.ndarray:
    """Return Python values of one type as an array (N,), and values of several types as an array
    without dimensions."""
    kinds = {
        np.array(v, None if np.isscalar(v) else object).dtype.kind
        for v in {type(v): v for v in values}.values()
    }
    try:
        if kinds == {"O"}:
            return np.array(values, "datetime64[us]")
        return np.array(values) if len(kinds) == 1 or kinds <= set("iuf") else np.array(None)
    except (ValueError, TypeError, OverflowError):
        return np.array(None)


# -- conditions ------------------------------------------------------------------------------------


def condition_frame(given: Space | None, values: Mapping[str, object], n: int) -> Frame:
    """Return conditions that are the same for all rows as a table of n rows.

    Args:
        given: the space of a model's conditions; None without.
        values: {name: value}, in the user's units or as text.
        n: number of rows.

    Raises:
        ValueError: there is no such condition, or it cannot have this value.

    >>> condition_frame(None, {}, 10).shape
    (0, 0)
    """
    if given is None and values:
        raise ValueError(
            f"expected no conditions for a model trained without any; got {', '.join(values)}"
        )
    known = {} if given is None else {c.name: c for c in given.columns}
    unknown = [name for name in values if name not in known]
    if unknown:
        raise ValueError(
            f"expected a condition of the model: {nearest(unknown[0], known)}; got {unknown[0]!r}"
        )
    columns = {
        name: np.ma.MaskedArray(np.repeat(c.typed(_value(c, values[name])), n))
        for name, c in known.items()
        if name in values
    }
    formats = {n: c.format for n, c in known.items() if c.format and n in columns}
    return Frame(columns, formats=formats)


def _value(column: Column, value: object) -> object:
    """Return a value that was written in the format of its column, or unchanged."""
    if not column.format or not isinstance(value, str):
        return value
    cell = restored(column.format).parse([value])
    return value if np.ma.is_masked(cell) else cell.data[0]


# -- writing ---------------------------------------------------------------------------------------


def write_frame(path: Path, frame: Frame, suffix: str = "", *, raw: bool = False) -> int:
    """Write a table to .csv, .tsv, .parquet, .feather, .json (an array of records), .jsonl or .npz
    (one array per column).

    Columns with a format are written as text in this format. Empty cells stay empty. Parquet and
    Feather files have the declared types. In text, times with
    a zone are ISO times of their zone, and durations are numbers of seconds. In an .npz file, empty
    cells are NaN (whole numbers become float64), NaT among dates and "" among texts.

    In .csv and .tsv files, an apostrophe precedes cells of text that a spreadsheet would run.

    Args:
        path: the file, which is overwritten.
        frame: the table.
        suffix: the format; by default that of the path.
        raw: whether to write cells as they are.

    Returns:
        the number of cells with such an apostrophe.

    Raises:
        ValueError: the suffix is not that of a table.

    >>> write_frame(Path("t.csv"), frame_of({"name": ["a", "b"], "age": [31, None]}))
    0
    >>> Path("t.csv").read_text().split()
    ['"name","age"', '"a",31', '"b",']
    """
    texts = [n for n, cells in frame.columns.items() if cells.dtype.kind in "UO"]
    texts = [n for n in texts if frame.formats.get(n, RAW) == RAW]
    suffix, frame = suffix or path.suffix.lower(), _escaped(as_written(frame))
    if suffix == ".npz":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, values in frame.columns.items():
                part = io.BytesIO()
                np.save(part, _unmasked(values), allow_pickle=False)
                archive.writestr(f"{name}.npy", part.getvalue())
        return 0
    if suffix not in TABLES:
        raise ValueError(f"expected a file of a table, {', '.join((*TABLES, '.npz'))}; got {path}")
    pa = arrow(f"write {suffix}")
    if suffix in (".json", ".jsonl"):
        with path.open("w", encoding="utf-8") as file:
            file.write("[\n" if suffix == ".json" else "")
            for at, record in enumerate(_as_records(frame)):
                file.write((",\n" if suffix == ".json" else "\n") * (at > 0) + record)
            file.write("\n]\n" if suffix == ".json" else "\n")
        return 0
    if suffix in (".parquet", ".feather"):
        table = with_types(pa, frame)
        with in_utf8(path, new=True) as place:
            if suffix == ".parquet":
                pa.parquet.write_table(table, place)
            else:
                import pyarrow.feather as feather

                feather.write_feather(table, str(place))
        return 0
    table = pa.table({name: _as_text(pa, frame, name) for name in frame.columns})
    # Readers skip empty lines, so an empty cell of a single column is written as "".
    if table.num_columns == 1 and table.column(0).null_count:
        table = table.set_column(
            0, table.column_names[0], table.column(0).cast(pa.string()).fill_null("")
        )
    table, count = (table, 0) if raw else guarded(pa, table, texts)
    options = pa.csv.WriteOptions(delimiter="\t" if suffix == ".tsv" else ",")
    with in_utf8(path, new=True) as place:
        pa.csv.write_csv(table, place, options)
    return count


def as_written(frame: Frame) -> Frame:
    """Return a table with the text of the columns that have a format.

    >>> stored = 'number {"suffix": " kg", "places": 1}'
    >>> as_written(Frame({"a": np.ma.array([1.5])}, formats={"a": stored})).columns["a"].tolist()
    ['1.5 kg']
    """
    columns = dict(frame.columns)
    for name, stored in frame.formats.items():
        if stored == RAW:
            continue
        empty, cells = np.ma.getmaskarray(columns[name]), np.ma.getdata(columns[name])
        values, codes = np.unique(cells[~empty], return_inverse=True)
        words = np.full(len(cells), "", object)
        words[~empty] = np.array(restored(stored).write(values), object)[codes.ravel()]
        columns[name] = np.ma.MaskedArray(words.astype(str), empty)
    return replace(frame, columns=columns, formats={})


def _escaped(frame: Frame) -> Frame:
    """Return a table in which bytes of names of files that are not UTF-8 are escaped."""
    columns = dict(frame.columns)
    for name, cells in columns.items():
        if cells.dtype.kind == "U" and cells.dtype.itemsize:
            letters = np.ascontiguousarray(np.ma.getdata(cells)).view(np.uint32)
            if ((letters >= 0xD800) & (letters < 0xE000)).any():
                words = [w.encode(errors="backslashreplace").decode() for w in cells.data.tolist()]
                columns[name] = np.ma.MaskedArray(words, np.ma.getmask(cells))
    return replace(frame, columns=columns)


def _as_text(pa: ModuleType, frame: Frame, name: str) -> pyarrow.Array:
    """Return a column for a file of text."""
    cells, declared = frame.columns[name], frame.types.get(name, "")
    if declared.startswith("decimal"):
        return as_arrow(pa, cells, declared)
    if not (declared.startswith("timestamp[") and "tz=" in declared):
        return as_arrow(pa, cells)
    times = as_arrow(pa, cells, declared)
    if (np.ma.getdata(cells) == np.ma.getdata(cells).astype("datetime64[s]")).all():
        times = times.cast(pa.timestamp("s", times.type.tz))
    written = pa.compute.strftime(times, "%Y-%m-%dT%H:%M:%S%z")
    return pa.compute.replace_substring_regex(written, r"([+-]\d\d)(\d\d)$", r"\1:\2")


def _unmasked(values: np.ma.MaskedArray) -> np.ndarray:
    data, empty = np.ma.getdata(values), np.ma.getmaskarray(values)
    if not empty.any() or data.dtype.kind == "U":
        return data
    data = data.astype(data.dtype if data.dtype.kind in "fM" else np.float64)
    data[empty] = np.datetime64("NaT") if data.dtype.kind == "M" else np.nan
    return data


def _as_records(frame: Frame) -> Iterator[str]:
    for start in range(0, len(frame), CHUNK):
        cells = []
        part = frame[start : start + CHUNK]
        for name, values in part.columns.items():
            data = np.ma.getdata(values)
            if "tz=" in part.types.get(name, ""):
                cells.append(_as_text(arrow("write times"), part, name).to_pylist())
                continue
            if data.dtype.kind == "M" or data.dtype.name in ("float16", "float32"):
                # dates as ISO text; float32 0.1 with its own digits instead of those of float64
                data = data.astype(str)
            written = (data if values.dtype.kind != "f" else data.astype(np.float64)).astype(object)
            written[np.ma.getmaskarray(values)] = None
            cells.append(written.tolist())
        for row in zip(*cells, strict=True):
            yield json.dumps(dict(zip(frame.columns, row, strict=True)), ensure_ascii=False)
