"""Read tables and write them.

Every format becomes an Arrow table first and a Frame then, so that a column means the same wherever
it came from: NaN, null and empty text are empty cells. What each column is, `data.kinds` says.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vaestro.data.arrow import arrow, from_arrow, masked, with_orders
from vaestro.data.choosing import named, wanted_columns
from vaestro.data.csv_tables import read_csv
from vaestro.data.json_tables import dated, read_json
from vaestro.data.orders import declared_order
from vaestro.data.raw import Options, Raw
from vaestro.frames import Frame, Order
from vaestro.text import is_input_error, nearest, one_line, unquoted

if TYPE_CHECKING:
    from vaestro.spaces import Space

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
) -> Raw:
    """Read a .csv, .tsv, .parquet, .json or .jsonl file into a Frame.

    Args:
        path: the file; its suffix says the format.
        options: `ignore` names columns to leave out, joined by +; `split` names the column that
            says which rows are train, valid and test, which then are the splits, and not "all".
        columns: read only these, as far as there are such; by default all.
        text: columns that a CSV file holds as text, whatever they look like.

    Raises:
        ValueError: the file is damaged or no table, a column cannot be data, or an option names no
            column.
    """
    suffix = path.suffix.lower()
    pa = arrow(f"read {suffix}")
    notes: list[str] = []
    if columns is not None and "split" in options:
        columns = {*columns, unquoted(str(options["split"]))}
    try:
        if suffix in (".csv", ".tsv"):
            table = read_csv(pa, path, options, columns, text, notes)
        elif suffix == ".parquet":
            with pa.parquet.ParquetFile(path) as file:
                wanted = wanted_columns(file.schema_arrow.names, options, columns, path.name)
                table = file.read(columns=wanted).select(wanted)  # asked for a, it gives a.b too
        else:
            table = read_json(pa, path)
            table = dated(
                pa, table.select(wanted_columns(table.column_names, options, columns, path.name))
            )
        frame = from_arrow(pa, table, path.name, notes, options.get("ignore"))
    except (pa.ArrowException, OSError, ValueError, RecursionError) as error:
        if is_input_error(error):
            raise
        raise ValueError(
            f"expected a readable {suffix} file; got {path}, which is damaged or cut short "
            f"({one_line(error)})"
        ) from error
    if "split" not in options:
        return Raw({"all": frame}, {"all": {}}, tuple(notes))
    splits = splits_of(frame, str(options["split"]), path.name)
    return Raw(splits, {name: {} for name in splits}, tuple(notes))


def splits_of(frame: Frame, column: str, where: str) -> dict[str, Frame]:
    """Return the rows of each split, which a column names, without that column.

    Raises:
        ValueError: there is no such column, or a cell names no split.
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
        raise ValueError(
            f"expected rows for training and other columns beside {column!r} in {where}; got none"
        )
    return {
        name: rest[splits == name] for name in ("train", "valid", "test") if (splits == name).any()
    }


# -- Arrow and Python -> frames --------------------------------------------------------------------


def frame_of(columns: Any, where: str = "the table") -> Frame:
    """Make a Frame from {name: array or list}, a DataFrame or an Arrow table; None, NaN and empty
    text are empty cells.

    Args:
        columns: arrays, masked arrays or lists (N,) by name; or what gives Arrow data, as
            DataFrames do.
        where: what to call it in errors.

    Raises:
        ValueError: columns are of different lengths, have more than one dimension, or hold what is
            no data.
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
    made = {str(name): _column_of(values, str(name), where) for name, values in columns.items()}
    orders = {str(name): order for name, values in columns.items() if (order := _order(values))}
    sizes = {len(values) for values in made.values()}
    if len(sizes) > 1 or 0 in sizes:
        raise ValueError(
            f"expected columns of one length, not 0, in {where}; got "
            f"{', '.join(map(str, sorted(sizes)))}"
        )
    return Frame(made, orders)


def _order(values: Any) -> Order:
    """Return the order of a pandas column of ordered categories; empty for other columns."""
    dtype: Any = getattr(values, "dtype", None)
    ordered = str(dtype) == "category" and dtype.ordered
    return declared_order(dtype.categories.tolist()) if ordered else ()


def _column_of(values: Any, name: str, where: str) -> np.ma.MaskedArray:
    if isinstance(values, str) or not hasattr(values, "__len__"):
        raise ValueError(
            f"expected an array or a list in column {name!r} of {where}; got "
            f"{type(values).__name__}"
        )
    # Beside None, lists of lists stay objects.
    array = (
        np.asanyarray(values)
        if hasattr(values, "__array__")
        else np.array([*values, None], object)[:-1]
    )
    empty = np.ma.getmaskarray(array)
    array = np.ma.getdata(array)
    if array.dtype.kind == "O" and array.ndim == 1:
        gone = [
            v is None
            or type(v).__name__ in ("NAType", "NaTType")
            or (isinstance(v, float) and v != v)
            for v in array
        ]
        empty = empty | np.array(gone, bool)
        there = _typed(array[~empty].tolist())
        array = np.zeros(len(array), there.dtype) if there.ndim == 1 else there
        if there.ndim == 1:
            array[~empty] = there
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


def _typed(values: list[Any]) -> np.ndarray:
    """Turn Python values of one type into an array (N,); others into an array without
    dimensions."""
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


def condition_columns(
    given: Space | None, values: Mapping[str, Any], n: int
) -> dict[str, np.ma.MaskedArray]:
    """Return one value for each of some conditions as columns of a table, each (n,).

    Args:
        given: the space of a model's conditions; None without.
        values: {name: value}, the value as the user's data have it, or as text.
        n: for how many rows.

    Raises:
        ValueError: there is no such condition, or its column can hold no such value.
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
    return {
        name: np.ma.MaskedArray(np.repeat(c.typed(values[name]), n))
        for name, c in known.items()
        if name in values
    }


# -- writing ---------------------------------------------------------------------------------------


def write_frame(path: Path, frame: Frame, suffix: str = "") -> None:
    """Write a table to .csv, .tsv, .parquet, .json (an array of records), .jsonl or .npz (one array
    for each column).

    Empty cells stay empty. An .npz file has NaN there (whole numbers become float64), NaT among
    dates and "" among text.

    Args:
        path: the file, which is overwritten.
        frame: the table.
        suffix: the format; by default the path's.

    Raises:
        ValueError: the suffix names no format of a table.
    """
    suffix = suffix or path.suffix.lower()
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
    # an empty line would be none: "" is an empty cell
    if table.num_columns == 1 and table.column(0).null_count:
        table = table.set_column(
            0, table.column_names[0], table.column(0).cast(pa.string()).fill_null("")
        )
    pa.csv.write_csv(table, path, pa.csv.WriteOptions(delimiter="\t" if suffix == ".tsv" else ","))


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
                # dates as ISO text, and 0.1 of float32 with its own few digits
                data = data.astype(str)
            written = (data if values.dtype.kind != "f" else data.astype(np.float64)).astype(object)
            written[np.ma.getmaskarray(values)] = None
            cells.append(written.tolist())
        for row in zip(*cells, strict=True):
            yield json.dumps(dict(zip(frame.columns, row, strict=True)), ensure_ascii=False)
