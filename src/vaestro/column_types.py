"""Declared types of columns: the user's own types, such as categories, decimals and time zones.

Inside, a column is an array of numbers, text, truth values or datetime64. Its declared type is the
name of an Arrow type, such as "timestamp[us, tz=Europe/Oslo]", or of a pandas type that Arrow does
not have, such as "pandas.Int64" or "pandas.period[M]". Samples are converted back to it. Torch is
not imported.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas
    import pyarrow

PANDAS = "pandas."  # prefix of types that only pandas has
CATEGORIES = ("dictionary<", "pandas.category")  # beginnings of types of categories
DURATIONS = "duration["  # beginning of types of durations, which are numbers of seconds inside
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
NUMBERS = {"f": "Float", "i": "Int", "u": "UInt"}  # pandas types of numbers with empty cells


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


def is_category(declared: str) -> bool:
    """Return whether a declared type is that of categories.

    >>> is_category("dictionary<values=string, indices=int8, ordered=0>"), is_category("int64")
    (True, False)
    """
    return declared.startswith(CATEGORIES)


def as_arrow(
    pa: ModuleType, cells: np.ma.MaskedArray, declared: str = "", categories: Sequence[object] = ()
) -> pyarrow.Array:
    """Return a column as an Arrow array of its declared type.

    The array has another type if the declared one cannot represent the values, such as means of
    whole numbers.

    Args:
        pa: PyArrow.
        cells: the column, (N,).
        declared: its type; empty for that of the NumPy array.
        categories: the values of a column of categories, in their order.

    >>> import pyarrow
    >>> seconds = np.ma.MaskedArray([90, 30])
    >>> as_arrow(pyarrow, seconds, "duration[ms]").to_pylist()[0]
    datetime.timedelta(seconds=90)
    """
    import pyarrow.compute as compute

    array = pa.array(np.ma.getdata(cells), mask=np.ma.getmaskarray(cells))
    if is_category(declared):
        return _dictionary(pa, array, declared, categories)
    kind = _arrow_type(pa, declared)
    if kind is None:
        return array
    try:
        if pa.types.is_duration(kind):
            ticks = np.rint(np.ma.getdata(cells) * float(PER_SECOND[kind.unit])).astype(np.int64)
            return pa.array(ticks, mask=np.ma.getmaskarray(cells)).cast(kind)
        if pa.types.is_timestamp(kind) and kind.tz is not None:
            array = compute.assume_timezone(array.cast(pa.timestamp("us")), "UTC")
        if pa.types.is_decimal(kind):
            return _decimal(pa, array, kind)
        return array.cast(kind, safe=not pa.types.is_temporal(kind))
    except (pa.ArrowException, ValueError, TypeError):
        return array


def _decimal(pa: ModuleType, array: pyarrow.Array, kind: pyarrow.DataType) -> pyarrow.Array:
    """Return numbers as decimals, of more digits if there are larger ones than in the data."""
    try:
        return array.cast(kind)
    except pa.ArrowException:
        return array.cast(pa.decimal128(38, kind.scale))


def _dictionary(
    pa: ModuleType, array: pyarrow.Array, declared: str, categories: Sequence[object]
) -> pyarrow.Array:
    """Return an array as a dictionary with the declared categories, and further values after
    them."""
    import pyarrow.compute as compute

    match = re.fullmatch(r"dictionary<values=(.*), indices=(\w+), ordered=([01])>", declared)
    values, width, ordered = match.groups() if match else ("", "int32", "0")
    kind = _arrow_type(pa, values) or array.type
    try:
        array = array.cast(kind)
        words = pa.array(list(categories)).cast(kind) if categories else array[:0]
    except (pa.ArrowException, ValueError, TypeError):
        words = array[:0]
    other = array.drop_null().unique()
    other = other.filter(compute.invert(compute.is_in(other, words)))
    every = pa.concat_arrays([words, other])
    codes = compute.index_in(array, every)
    with suppress(pa.ArrowException):  # more categories than the declared width has codes
        codes = codes.cast(pa.type_for_alias(width))
    return pa.DictionaryArray.from_arrays(codes, every, ordered=ordered == "1")


def _arrow_type(pa: ModuleType, declared: str) -> pyarrow.DataType | None:
    """Return the Arrow type of a name; None if there is none."""
    zoned = re.fullmatch(r"timestamp\[(s|ms|us|ns), tz=(.+)\]", declared)
    if zoned:
        return pa.timestamp(*zoned.groups())
    decimal = re.fullmatch(r"decimal(32|64|128|256)\((\d+), (-?\d+)\)", declared)
    if decimal:
        make = pa.decimal256 if decimal[1] == "256" else pa.decimal128
        return make(int(decimal[2]), int(decimal[3]))
    if declared.startswith(PANDAS):
        name = declared[len(PANDAS) :]
        arrow_names = {"boolean": "bool", "string": "large_string", "Float32": "float"}
        declared = arrow_names.get(name, name.lower().replace("float64", "double"))
    try:
        return pa.type_for_alias(declared)
    except ValueError:
        return None


def as_pandas(column: pyarrow.ChunkedArray, declared: str) -> pandas.Series:
    """Return an Arrow column as a pandas column of its declared type.

    Numbers and truth values with empty cells have the types Int64, boolean and so on, which keep
    whole numbers.

    Args:
        column: the column, as `as_arrow` returns it.
        declared: its type.

    >>> import pyarrow
    >>> str(as_pandas(pyarrow.chunked_array([[1, None]]), "").dtype)
    'Int64'
    """
    import pandas
    import pyarrow.types as t

    name = declared.removeprefix(PANDAS) if declared.startswith(PANDAS) else ""
    if name.startswith("period["):
        dates = column.to_pandas(date_as_object=False)
        return dates.dt.to_period(name[len("period[") : -1])
    kind = column.type
    if not name and column.null_count and t.is_boolean(kind):
        name = "boolean"
    elif not name and column.null_count and t.is_integer(kind):
        name = ("UInt" if t.is_unsigned_integer(kind) else "Int") + str(kind.bit_width)
    if not name or t.is_dictionary(kind) or not _fits(kind, name):
        return column.to_pandas(date_as_object=declared.startswith("date"))
    dtype = pandas.api.types.pandas_dtype(name)
    return column.to_pandas(types_mapper=lambda _: dtype)


def _fits(kind: pyarrow.DataType, name: str) -> bool:
    """Return whether a pandas type can represent all values of an Arrow type."""
    import pyarrow.types as t

    if name == "boolean":
        return t.is_boolean(kind)
    if name.startswith("string"):
        return t.is_string(kind) or t.is_large_string(kind)
    return t.is_integer(kind) if "Int" in name else t.is_integer(kind) or t.is_floating(kind)
