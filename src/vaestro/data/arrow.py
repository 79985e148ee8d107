"""Convert Arrow tables to Frames.

Every format of a table is read as an Arrow table first, so that a column has one meaning in all
formats. NaN, null and empty text are empty cells.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from vaestro.data.orders import declared_order
from vaestro.data.refusals import Names, Unfit, first_names, refuse
from vaestro.frames import Frame, Order

if TYPE_CHECKING:
    import pyarrow

LARGEST_TEXT = 2**30  # bytes of one column
ORDER = b"vaestro:order"  # key in the metadata of a field


def arrow(what: str) -> ModuleType:
    """Return PyArrow.

    Args:
        what: the purpose, for the message.

    Raises:
        ValueError: PyArrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.csv
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError(
            f"expected the extra vaestro[tables] to {what}; got an installation without it"
        ) from error
    return pyarrow


def any_match(pa: ModuleType, column: pyarrow.ChunkedArray, pattern: str) -> bool:
    """Return whether some text of a column matches a pattern."""
    return bool(pa.compute.any(pa.compute.match_substring_regex(column, pattern)).as_py())


def all_match(pa: ModuleType, column: pyarrow.ChunkedArray, pattern: str) -> bool:
    """Return whether all texts of a column match a pattern."""
    return bool(pa.compute.all(pa.compute.match_substring_regex(column, pattern)).as_py())


def from_arrow(
    pa: ModuleType, table: pyarrow.Table, where: str, notes: list[str], ignored: Names = None
) -> Frame:
    """Convert an Arrow table to a Frame, column by column."""
    # columns with the row labels of pandas
    names = [n for n in table.column_names if not re.fullmatch(r"__index_level_\d+__", n)]
    if not names or not table.num_rows:
        raise ValueError(f"expected rows of data in {where}; got none")
    wrong = [n for n in names if pa.types.is_nested(table[n].type)]
    unfit: list[tuple[Unfit, Sequence[str]]] = []
    if wrong:
        unfit.append(
            (
                Unfit(f"plain cells in {where}", f"lists or structures in {first_names(wrong, 9)}"),
                wrong,
            )
        )
    columns, orders = {}, {}
    for name in names:
        if name in wrong:
            continue
        try:
            columns[name] = _cells(pa, table[name], name, where, notes)
            if order := _order(pa, table, name, notes):
                orders[name] = order
        except Unfit as error:
            unfit.append((error, [name]))
    refuse(unfit, where, ignored)
    return Frame(columns, orders)


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


def with_orders(table: pyarrow.Table, orders: Mapping[str, Order]) -> pyarrow.Table:
    """Return an Arrow table that declares the orders of some columns in the metadata of its fields.

    Dictionaries of a Parquet file can only contain text.
    """
    for name, order in orders.items():
        at = table.schema.get_field_index(name)
        field = table.schema.field(at).with_metadata({ORDER: json.dumps(list(order))})
        table = table.set_column(at, field, table.column(at))
    return table


def _cells(
    pa: ModuleType, column: pyarrow.ChunkedArray, name: str, where: str, notes: list[str]
) -> np.ma.MaskedArray:
    """Convert an Arrow column to a column of a Frame."""
    t = pa.types
    if t.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind, empty = column.type, column.is_null().to_numpy()
    if t.is_timestamp(kind) and kind.tz is not None:
        notes.append(f"the times in {name} are in UTC")
    if t.is_null(kind):
        data = np.zeros(len(column))
    elif t.is_boolean(kind):
        data = column.fill_null(False).to_numpy()
    elif t.is_integer(kind) or t.is_float32(kind) or t.is_float64(kind):
        data = column.fill_null(0).to_numpy()
    elif t.is_float16(kind) or t.is_decimal(kind):
        data = column.cast(pa.float64()).fill_null(0).to_numpy()
        data = data.astype(np.float16) if t.is_float16(kind) else data
    elif t.is_date(kind) or t.is_timestamp(kind):
        data = column.cast(pa.timestamp("us"), safe=False).fill_null(0).to_numpy()
    elif t.is_time(kind) or str(kind) in ("string", "large_string", "string_view"):
        data = _words(pa, column.cast(pa.large_string()), name, where)
    else:
        raise Unfit(f"numbers, text, truth values or dates in {where}", f"{kind} in {name!r}")
    return masked(data, empty, name, where)


def _words(pa: ModuleType, column: pyarrow.ChunkedArray, name: str, where: str) -> np.ndarray:
    """Convert an Arrow column of text to an array of str; each distinct text is converted once."""
    coded = column.dictionary_encode().unify_dictionaries().combine_chunks()
    longest = pa.compute.max(pa.compute.utf8_length(coded.dictionary)).as_py() or 0
    if 4 * longest * len(column) > LARGEST_TEXT:
        raise Unfit(
            f"names of categories in column {name!r} of {where}",
            f"text of up to {longest:,} letters",
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
