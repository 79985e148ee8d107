"""Take tables from memory: DataFrames and Series of pandas or polars, Arrow tables, and records."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from vaestro.data.choosing import numbered
from vaestro.data.json_tables import of_records
from vaestro.data.refusals import Unfit, mixed_types, refuse

if TYPE_CHECKING:
    import pandas
    import pyarrow


@runtime_checkable
class ArrowStream(Protocol):
    """Describe data that export Arrow, such as DataFrames of pandas and polars."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Return the data as a stream of Arrow."""


def is_records(source: object) -> bool:
    """Return whether data are a list of dicts, of named tuples or of dataclasses.

    >>> is_records([{"a": 1}]), is_records(["a"])
    (True, False)
    """
    return isinstance(source, (list, tuple)) and bool(source) and all(map(_is_record, source))


def _is_record(row: object) -> bool:
    named = isinstance(row, tuple) and hasattr(row, "_fields")
    return (
        isinstance(row, Mapping)
        or named
        or (dataclasses.is_dataclass(row) and not isinstance(row, type))
    )


def is_table(source: object) -> bool:
    """Return whether data are a table or a column of pandas, or export a table to Arrow.

    >>> import pyarrow
    >>> is_table(pyarrow.table({"a": [1]})), is_table([1, 2])
    (True, False)
    """
    return isinstance(source, ArrowStream) or is_pandas(source)


def is_pandas(values: object) -> bool:
    """Return whether values are a column of pandas.

    >>> is_pandas([1, 2])
    False
    """
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(
        values, (pandas.Series, pandas.Index, pandas.api.extensions.ExtensionArray)
    )


def of_lists(rows: Sequence[object]) -> np.ndarray | dict[str, list[object]]:
    """Return lists of numbers as an array, and rows of other values as columns without names.

    Raises:
        ValueError: the rows have several lengths, or are neither lists nor numbers.

    >>> of_lists([[1, 2], [3, 4]]).shape
    (2, 2)
    >>> of_lists([(1, "x"), (2, "y")])
    {'column 1': [1, 2], 'column 2': ['x', 'y']}
    """
    try:
        array = np.array(rows)
    except ValueError:  # lists of several lengths
        array = np.array(None)
    if array.dtype.kind in "biuf" and array.ndim:
        return array
    lists = [row for row in rows if isinstance(row, (list, tuple))]
    if len(lists) < len(rows) or len({len(row) for row in lists}) != 1:
        kind = type(rows[0]).__name__ if rows else "values"
        raise ValueError(
            f"expected an array, texts, or rows with the same number of cells; got a list of "
            f"{len(rows):,} {kind} (a dict of columns or a list of dicts is a table)"
        )
    return {f"column {i + 1}": list(cells) for i, cells in enumerate(zip(*lists, strict=True))}


def arrow_of(pa: ModuleType, source: object, where: str, notes: list[str]) -> pyarrow.Table | None:
    """Return a table in memory as an Arrow table; None if it is no table.

    Args:
        pa: PyArrow.
        source: a DataFrame, a Series, an Arrow table, or a list of records.
        where: name of the table in messages.
        notes: to which notes on columns are appended.

    Raises:
        ValueError: a column has values of several types, or of a type that is no data.

    >>> import pyarrow
    >>> arrow_of(pyarrow, [{"a": 1}, {"a": 2, "b": "x"}], "the table", []).to_pylist()
    [{'a': 1, 'b': None}, {'a': 2, 'b': 'x'}]
    """
    if is_records(source):
        assert isinstance(source, Sequence)
        return of_records(pa, [_as_dict(row) for row in source], where)
    pandas = sys.modules.get("pandas")
    if pandas is not None and (is_pandas(source) or isinstance(source, pandas.DataFrame)):
        if not isinstance(source, pandas.DataFrame):
            column = pandas.Series(source)
            source = column.to_frame("value" if column.name is None else column.name)
        return _of_pandas(pa, pandas, source, where, notes)
    if isinstance(source, pa.ChunkedArray | pa.Array):
        return pa.table({"value": source})
    if hasattr(source, "to_frame") and not hasattr(source, "columns"):
        source = source.to_frame()  # a Series of polars
    if not isinstance(source, ArrowStream):
        return None
    table = pa.table(source)
    return table.rename_columns(numbered(table.column_names, notes))


def _as_dict(row: Any) -> dict[str, object]:
    """Return a record as a dict."""
    if isinstance(row, Mapping):
        return {str(name): value for name, value in row.items()}
    if dataclasses.is_dataclass(row) and not isinstance(row, type):
        return dataclasses.asdict(row)
    return dict(row._asdict())


def _of_pandas(
    pa: ModuleType, pandas: ModuleType, frame: pandas.DataFrame, where: str, notes: list[str]
) -> pyarrow.Table:
    """Return a DataFrame as an Arrow table."""
    names = [
        " ".join(map(str, name)) if isinstance(name, tuple) else str(name) for name in frame.columns
    ]
    frame = frame.set_axis(numbered(names, notes), axis=1)
    unfit: list[tuple[Unfit, Sequence[str]]] = []
    for name in frame.columns:
        column, dtype = frame[name], frame[name].dtype
        if isinstance(dtype, pandas.SparseDtype):
            frame[name] = column.sparse.to_dense()
        elif isinstance(dtype, pandas.IntervalDtype):
            column = column.astype("category").cat.as_ordered()
            frame[name] = column.cat.rename_categories(str)
        elif isinstance(dtype, pandas.CategoricalDtype):
            if isinstance(dtype.categories.dtype, pandas.IntervalDtype):
                frame[name] = column.cat.rename_categories(str)
        elif dtype.kind in "Oc":
            try:
                pa.array(column, from_pandas=True)
            except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
                unfit.append((_unfit(column.tolist(), name, where, error), [name]))
    refuse(unfit)
    return pa.Table.from_pandas(frame)


def _unfit(values: Sequence[object], name: str, where: str, error: Exception) -> Unfit:
    """Return why the values of a column of Python objects are no data."""
    got = mixed_types(values)
    if got is not None:
        return Unfit(
            f"values of one type in column {name!r} of {where}",
            got,
            f"convert the column, as with table[{name!r}].astype(str)",
        )
    if isinstance(next(iter(values)), complex):
        return Unfit(
            f"real numbers in column {name!r} of {where}",
            "complex ones",
            "make two columns of it, with its real and imaginary parts",
        )
    if isinstance(error, OverflowError):
        return Unfit(
            f"whole numbers below 2**63 in size in column {name!r} of {where}",
            "larger ones",
            f"convert the column, as with table[{name!r}].astype(float)",
        )
    return Unfit(
        f"numbers, text, truth values or dates in column {name!r} of {where}",
        f"{type(next(iter(values))).__name__} objects",
        "make columns of numbers or text of it",
    )
