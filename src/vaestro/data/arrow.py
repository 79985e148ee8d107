"""Convert Arrow tables to Frames.

Every format of a table is read as an Arrow table first, so that a column has one meaning in all
formats. NaN, null and empty text are empty cells.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from vaestro.column_types import CATEGORIES, PANDAS, PER_SECOND, is_category
from vaestro.data.orders import declared_order
from vaestro.data.refusals import Names, Unfit, first_names, refuse
from vaestro.frames import Frame, Order
from vaestro.text import typed

if TYPE_CHECKING:
    import pyarrow

LARGEST_TEXT = 2**30  # bytes of one column
ORDER = b"vaestro:order"  # keys in the metadata of a field: the values of ordered categories,
VALUES = b"vaestro:categories"  # those of unordered ones,
TYPE = b"vaestro:type"  # and a declared type that Parquet does not have
# types of pandas that an Arrow type does not imply
PERIODS = f"{PANDAS}period["
NULLABLE = r"U?Int\d+|Float\d+|boolean|string(\[\w+\])?|period\[.+\]"


def any_match(pa: ModuleType, column: pyarrow.ChunkedArray, pattern: str) -> bool:
    """Return whether some text of a column matches a pattern."""
    return bool(pa.compute.any(pa.compute.match_substring_regex(column, pattern)).as_py())


def all_match(pa: ModuleType, column: pyarrow.ChunkedArray, pattern: str) -> bool:
    """Return whether all texts of a column match a pattern."""
    return bool(pa.compute.all(pa.compute.match_substring_regex(column, pattern)).as_py())


def from_arrow(
    pa: ModuleType,
    table: pyarrow.Table,
    where: str,
    notes: list[str],
    ignored: Names = None,
    *,
    inferred: bool = False,
) -> Frame:
    """Convert an Arrow table to a Frame, column by column.

    Args:
        pa: PyArrow.
        table: the table.
        where: the source, for messages.
        notes: to which notes on columns are appended.
        ignored: columns that the source leaves out already.
        inferred: whether the types were inferred from text, so that the user declared none.

    Raises:
        ValueError: there are no rows, or a column cannot be used.
    """
    # columns with the row labels of pandas
    names = [n for n in table.column_names if not re.fullmatch(r"__index_level_\d+__", n)]
    if not names or not table.num_rows:
        raise ValueError(f"expected rows of data in {where}; got none")
    wrong = [n for n in names if pa.types.is_nested(table[n].type)]
    unfit: list[tuple[Unfit, Sequence[str]]] = []
    if wrong:
        got = f"lists or structures in {first_names(wrong, 9)}"
        advice = "make a column of each element"
        if all(_numbers_listed(pa, table[n].type) for n in wrong):
            advice += ", or read lists of numbers with series=true"
        unfit.append((Unfit(f"plain cells in {where}", got, advice), wrong))
    frame = Frame({})
    of_pandas = _pandas_types(table)
    for name in names:
        if name in wrong:
            continue
        try:
            declared = _declared(pa, table, name, of_pandas.get(name, ""), inferred=inferred)
            cells = _cells(pa, table[name], name, where, declared, notes)
            order = _order(pa, table, name, notes)
            values = () if order or not is_category(declared) else _values(pa, table, name, cells)
            types = {} if declared == _usual(pa, cells) else {name: declared}
            one = Frame(
                {name: cells},
                {name: order} if order else {},
                types if declared else {},
                {name: values} if values else {},
            )
            frame = frame.with_columns(one)
        except Unfit as error:
            unfit.append((error, [name]))
    refuse(unfit, ignored)
    return frame


def _numbers_listed(pa: ModuleType, kind: pyarrow.DataType) -> bool:
    """Return whether an Arrow type is a list of numbers, or of such lists."""
    t = pa.types
    while t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind):
        kind = kind.value_type
    return t.is_integer(kind) or t.is_floating(kind)


def _pandas_types(table: pyarrow.Table) -> dict[str, str]:
    """Return the types that pandas stored for the columns of a table, by name."""
    try:
        columns = (table.schema.pandas_metadata or {}).get("columns", [])
    except ValueError:  # other software wrote something else under this key
        return {}
    return {
        str(c["field_name"]): "category"
        if c["pandas_type"] == "categorical"
        else str(c["numpy_type"])
        for c in columns
        if c.get("field_name") is not None
    }


def _declared(
    pa: ModuleType, table: pyarrow.Table, name: str, of_pandas: str, *, inferred: bool
) -> str:
    """Return the declared type of a column; empty if the user declared none."""
    field = table.schema.field(name)
    kind = field.type
    written = (field.metadata or {}).get(TYPE)
    if written is not None:
        return written.decode()
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        return str(kind)
    if inferred or pa.types.is_null(kind) or pa.types.is_time(kind):
        return ""
    if of_pandas == "category" and not pa.types.is_dictionary(kind):
        return CATEGORIES[1]
    if re.fullmatch(NULLABLE, of_pandas):
        return PANDAS + of_pandas
    if isinstance(kind, pa.BaseExtensionType):
        if str(kind.extension_name) == "pandas.period":
            return f"{PERIODS}{kind.freq}]"
        return ""
    return str(kind)


def _usual(pa: ModuleType, cells: np.ma.MaskedArray) -> str:
    """Return the type of a column that has no declared type; empty for dates, which the types of
    pandas distinguish."""
    return "" if cells.dtype.kind == "M" else str(pa.array(np.ma.getdata(cells)[:0]).type)


def _order(pa: ModuleType, table: pyarrow.Table, name: str, notes: list[str]) -> Order:
    """Return the declared order of a column; empty if there is none.

    It is that of an ordered dictionary, or the one that `with_orders` wrote.
    """
    written = (table.schema.field(name).metadata or {}).get(ORDER)
    if written is not None:
        return declared_order(json.loads(written))
    kind, chunks = table[name].type, [c for c in table[name].chunks if len(c)]
    if not pa.types.is_dictionary(kind) or not kind.ordered or not chunks:
        return ()
    orders = {declared_order(chunk.dictionary.to_pylist()) for chunk in chunks}
    if len(orders) > 1:
        notes.append(f"{name} has several declared orders: read as unordered categories")
        return ()
    return orders.pop()


def _values(pa: ModuleType, table: pyarrow.Table, name: str, cells: np.ma.MaskedArray) -> Order:
    """Return the values of a column of unordered categories, in their order; dates are ISO text of
    the unit of the cells."""
    written = (table.schema.field(name).metadata or {}).get(VALUES)
    if written is not None:
        return declared_order(json.loads(written))
    column = table[name]
    if not pa.types.is_dictionary(column.type):
        return ()
    values = dict.fromkeys(
        v for c in column.chunks for v in declared_order(c.dictionary.to_pylist())
    )
    if cells.dtype.kind == "M":
        return tuple(np.array(list(values), cells.dtype).astype(str).tolist())
    return tuple(values)


def with_types(pa: ModuleType, frame: Frame) -> pyarrow.Table:
    """Return a table as an Arrow table for a Parquet file.

    What Parquet does not have is in the metadata of its fields: types of pandas, dictionaries of
    other values than text, and their order.
    """
    table = frame.to_arrow()
    for at, name in enumerate(table.column_names):
        declared, metadata = frame.types.get(name, ""), {}
        if order := frame.orders.get(name):
            metadata[ORDER] = json.dumps(list(order))
        if values := frame.categories.get(name):
            metadata[VALUES] = json.dumps(list(values))
        if declared.startswith((*CATEGORIES, PANDAS)):
            metadata[TYPE] = declared
        column = table.column(at)
        kind = column.type
        if pa.types.is_dictionary(kind) and str(kind.value_type) not in ("string", "large_string"):
            column = column.cast(kind.value_type)
        if metadata or column.type != kind:
            field = table.schema.field(at).with_type(column.type).with_metadata(metadata)
            table = table.set_column(at, field, column)
    return table


def _cells(
    pa: ModuleType,
    column: pyarrow.ChunkedArray,
    name: str,
    where: str,
    declared: str,
    notes: list[str],
) -> np.ma.MaskedArray:
    """Convert an Arrow column to a column of a Frame."""
    t = pa.types
    if t.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if isinstance(column.type, pa.BaseExtensionType) or declared.startswith(PERIODS):
        column = _stored(pa, column, declared)
    kind, empty = column.type, column.is_null().to_numpy()
    if t.is_timestamp(kind) and kind.tz is not None:
        zone = "" if kind.tz == "UTC" else f", and are written in {kind.tz}"
        notes.append(f"the times in {name} are in UTC{zone}")
    if t.is_binary(kind) or t.is_large_binary(kind) or t.is_fixed_size_binary(kind):
        try:
            column = column.cast(pa.large_binary()).cast(pa.large_string())
            kind = column.type
        except pa.ArrowException as error:
            raise Unfit(
                f"numbers, text, truth values or dates in {where}",
                f"bytes in {name!r}",
                "images are read from a folder, and arrays from .npz; decode text as UTF-8",
            ) from error
    if t.is_null(kind):
        data = np.zeros(len(column))
    elif t.is_boolean(kind):
        data = column.fill_null(False).to_numpy()
    elif t.is_integer(kind) or t.is_float32(kind) or t.is_float64(kind):
        data = column.fill_null(0).to_numpy()
    elif t.is_float16(kind) or t.is_decimal(kind):
        data = column.cast(pa.float64()).fill_null(0).to_numpy()
        data = data.astype(np.float16) if t.is_float16(kind) else data
    elif t.is_duration(kind):
        ticks, per = column.cast(pa.int64()).fill_null(0).to_numpy(), PER_SECOND[kind.unit]
        data = ticks // per if (ticks % per == 0).all() else ticks / per
        notes.append(f"the durations in {name} are numbers of seconds")
    elif t.is_date(kind) or t.is_timestamp(kind):
        data = column.cast(pa.timestamp("us"), safe=False).fill_null(0).to_numpy()
    elif t.is_time(kind) or str(kind) in ("string", "large_string", "string_view"):
        data = _words(pa, column.cast(pa.large_string()), name, where)
    else:
        raise Unfit(
            f"numbers, text, truth values or dates in {where}",
            f"{kind} in {name!r}",
            "convert the column to one of them",
        )
    return masked(data, empty, name, where)


def _stored(pa: ModuleType, column: pyarrow.ChunkedArray, declared: str) -> pyarrow.ChunkedArray:
    """Return a column of an extension type as its values: periods as the dates of their starts, and
    UUIDs as text."""
    name = column.type.extension_name if isinstance(column.type, pa.BaseExtensionType) else ""
    if str(name) == "arrow.uuid":
        texts = [None if v is None else str(v) for v in column.to_pylist()]
        return pa.chunked_array([texts], pa.string())
    if name:
        kind = column.type.storage_type
        column = pa.chunked_array([chunk.storage for chunk in column.chunks], kind)
    if declared.startswith(PERIODS) and pa.types.is_integer(column.type):
        import pandas

        full = column.drop_null().to_numpy()
        periods = pandas.PeriodIndex.from_ordinals(full, freq=declared[len(PERIODS) : -1])
        starts = np.full(len(column), "NaT", "datetime64[us]")
        starts[column.is_valid().to_numpy()] = periods.to_timestamp().to_numpy()
        return pa.chunked_array([pa.array(starts)])
    return column


def _words(pa: ModuleType, column: pyarrow.ChunkedArray, name: str, where: str) -> np.ndarray:
    """Convert an Arrow column of text to an array of str; each distinct text is converted once."""
    coded = column.dictionary_encode().unify_dictionaries().combine_chunks()
    longest = pa.compute.max(pa.compute.utf8_length(coded.dictionary)).as_py() or 0
    if 4 * longest * len(column) > LARGEST_TEXT:
        raise Unfit(
            f"names of categories in column {name!r} of {where}",
            f"text of up to {longest:,} letters",
            f"{typed('text', name)} models the texts themselves",
        )
    words = np.array(coded.dictionary.to_pylist() or [""], dtype=str)
    return words[coded.indices.fill_null(0).to_numpy(zero_copy_only=False)]


def masked(data: np.ndarray, empty: np.ndarray, name: str, where: str) -> np.ma.MaskedArray:
    """Return a column of a Frame. NaN, NaT and empty text are empty cells. Dates have the unit of
    days if all are at midnight."""
    kind = data.dtype.kind
    if kind == "f":
        empty = empty | np.isnan(data)
    elif kind == "M":
        empty = empty | np.isnat(data)
        days = data.astype("datetime64[D]")
        data = days if (empty | (days == data)).all() else data.astype("datetime64[us]")
    elif kind == "U":
        empty = empty | (data == "")
    if not empty.any():
        return np.ma.MaskedArray(data)
    data = data.copy()
    data[empty] = np.zeros((), data.dtype)
    return np.ma.MaskedArray(data, empty)
