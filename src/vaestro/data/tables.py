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
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from vaestro.data.arrow import arrow, from_arrow, masked, with_orders
from vaestro.data.choosing import named, wanted_columns
from vaestro.data.csv_tables import read_csv
from vaestro.data.formats import restored
from vaestro.data.json_tables import read_json
from vaestro.data.orders import declared_order
from vaestro.data.raw import Options, Raw
from vaestro.frames import RAW, Frame, Order
from vaestro.text import InputError, is_input_error, nearest, one_line, unquoted

if TYPE_CHECKING:
    import pyarrow

    from vaestro.spaces import Column, Space


class ArrowStream(Protocol):
    """Describe data that export Arrow, such as DataFrames of pandas and polars."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object: ...


Columns: TypeAlias = "Mapping[str, ArrayLike] | ArrowStream | pyarrow.Table"
SUFFIXES = (".csv", ".tsv", ".parquet", ".json", ".jsonl")
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
    """Read a .csv, .tsv, .parquet, .json or .jsonl file into a Frame.

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
    suffix = path.suffix.lower()
    pa = arrow(f"read {suffix}")
    notes: list[str] = []
    raw: list[str] = []
    if columns is not None and "split" in options:
        columns = {*columns, unquoted(str(options["split"]))}
    try:
        if suffix in (".csv", ".tsv"):
            table, raw = read_csv(pa, path, options, columns, text, notes)
        elif suffix == ".parquet":
            with pa.parquet.ParquetFile(path) as file:
                wanted = wanted_columns(file.schema_arrow.names, options, columns, path.name)
                table = file.read(columns=wanted).select(wanted)  # read("a") returns a.b too
        else:
            table = read_json(pa, path)
            table = table.select(wanted_columns(table.column_names, options, columns, path.name))
        frame = from_arrow(pa, table, path.name, notes, options.get("ignore"))
        frame = replace(frame, formats=dict.fromkeys(set(raw) & set(frame.columns), RAW))
    except (pa.ArrowException, OSError, ValueError, RecursionError) as error:
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


def frame_of(columns: Columns, where: str = "the table") -> Frame:
    """Return a Frame from {name: array or list}, a DataFrame or an Arrow table.

    None, NaN and empty text are empty cells.

    Args:
        columns: arrays, masked arrays or lists (N,) by name; or data that export Arrow, such as
            DataFrames.
        where: name of the table in messages.

    Raises:
        ValueError: columns have different lengths or more than one dimension, or contain values
            other than numbers, text, truth values and dates.

    >>> frame_of({"age": [31, None]}).columns["age"].mask.tolist()
    [False, True]
    """
    if hasattr(columns, "__arrow_c_stream__") or hasattr(columns, "columns"):
        pa = arrow("take a DataFrame")
        try:
            table = pa.table(columns)
        except pa.ArrowException as error:
            raise ValueError(
                f"expected values of one type in each column of {where}; got others "
                f"({str(error.args[0])[:100]})"
            ) from error
        wanted_columns(table.column_names, {}, None, where)
        return from_arrow(pa, table, where, [])
    if not isinstance(columns, Mapping) or not columns:
        raise ValueError(
            f"expected columns as {{name: values}}; got "
            f"{'none' if isinstance(columns, Mapping) else type(columns).__name__}"
        )
    arrays = {str(name): _column_of(values, str(name), where) for name, values in columns.items()}
    orders = {str(name): order for name, values in columns.items() if (order := _order(values))}
    sizes = {len(values) for values in arrays.values()}
    if len(sizes) > 1 or 0 in sizes:
        raise ValueError(
            f"expected columns of one length, not 0, in {where}; got "
            f"{', '.join(map(str, sorted(sizes)))}"
        )
    return Frame(arrays, orders)


def _order(values: object) -> Order:
    """Return the order of a pandas column of ordered categories; empty for other columns."""
    dtype = getattr(values, "dtype", None)
    if dtype is None or str(dtype) != "category" or not dtype.ordered:
        return ()
    return declared_order(dtype.categories.tolist())


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
            else "mixed or other values"
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
    return Frame(columns, formats={n: c.format for n, c in known.items() if c.format})


def _value(column: Column, value: object) -> object:
    """Return a value that was written in the format of its column, or unchanged."""
    if not column.format or not isinstance(value, str):
        return value
    cell = restored(column.format).parse([value])
    return value if np.ma.is_masked(cell) else cell.data[0]


# -- writing ---------------------------------------------------------------------------------------


def write_frame(path: Path, frame: Frame, suffix: str = "") -> None:
    """Write a table to .csv, .tsv, .parquet, .json (an array of records), .jsonl or .npz (one array
    per column).

    Columns with a format are written as text in this format. Empty cells stay empty. In an .npz
    file they are NaN (whole numbers become float64), NaT among dates and "" among texts.

    Args:
        path: the file, which is overwritten.
        frame: the table.
        suffix: the format; by default that of the path.

    Raises:
        ValueError: the suffix is not that of a table.

    >>> write_frame(Path("t.csv"), frame_of({"name": ["a", "b"], "age": [31, None]}))
    >>> Path("t.csv").read_text().split()
    ['"name","age"', '"a",31', '"b",']
    """
    suffix = suffix or path.suffix.lower()
    frame = as_written(frame)
    if suffix == ".npz":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, values in frame.columns.items():
                part = io.BytesIO()
                np.save(part, _unmasked(values), allow_pickle=False)
                archive.writestr(f"{name}.npy", part.getvalue())
        return
    if suffix not in SUFFIXES:
        raise ValueError(
            f"expected a file of a table, {', '.join((*SUFFIXES, '.npz'))}; got {path}"
        )
    pa = arrow(f"write {suffix}")
    if suffix in (".json", ".jsonl"):
        with path.open("w", encoding="utf-8") as file:
            file.write("[\n" if suffix == ".json" else "")
            for at, record in enumerate(_as_records(frame)):
                file.write((",\n" if suffix == ".json" else "\n") * (at > 0) + record)
            file.write("\n]\n" if suffix == ".json" else "\n")
        return
    table = pa.table(
        {
            name: pa.array(np.ma.getdata(values), mask=np.ma.getmaskarray(values))
            for name, values in frame.columns.items()
        }
    )
    if suffix == ".parquet":
        pa.parquet.write_table(with_orders(table, frame.orders), path)
        return
    # Readers skip empty lines, so an empty cell of a single column is written as "".
    if table.num_columns == 1 and table.column(0).null_count:
        table = table.set_column(
            0, table.column_names[0], table.column(0).cast(pa.string()).fill_null("")
        )
    pa.csv.write_csv(table, path, pa.csv.WriteOptions(delimiter="\t" if suffix == ".tsv" else ","))


def as_written(frame: Frame) -> Frame:
    """Return a table with the text of the columns that have a format.

    >>> frame = Frame({"a": np.ma.array([1.5])}, {}, {"a": 'number {"suffix": " kg", "places": 1}'})
    >>> as_written(frame).columns["a"].tolist()
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
    return Frame(columns, frame.orders)


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
        for values in frame[start : start + CHUNK].columns.values():
            data = np.ma.getdata(values)
            if data.dtype.kind == "M" or data.dtype.name in ("float16", "float32"):
                # dates as ISO text; float32 0.1 with its own digits instead of those of float64
                data = data.astype(str)
            written = (data if values.dtype.kind != "f" else data.astype(np.float64)).astype(object)
            written[np.ma.getmaskarray(values)] = None
            cells.append(written.tolist())
        for row in zip(*cells, strict=True):
            yield json.dumps(dict(zip(frame.columns, row, strict=True)), ensure_ascii=False)
