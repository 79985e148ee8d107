"""Write series in the layout of the user's data: a long table, one array each, or one array."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np

from vaestro.data.series.ragged import FIRST, ID
from vaestro.data.series.record import ends_of
from vaestro.data.writers import TABLES
from vaestro.frames import Frame
from vaestro.spaces import LongTable, Space, rounded

Attributes: TypeAlias = Mapping[str, np.ndarray]


def is_long(space: Space, path: Path) -> bool:
    """Return whether data of a space are written to a file as a long table.

    >>> from vaestro.spaces import LAYOUTS, RealSpace
    >>> space = RealSpace((3, 1), (3, 1), layout=LAYOUTS["series"], long_table=LongTable("unit"))
    >>> is_long(space, Path("x.csv")), is_long(space, Path("x.npy"))
    (True, False)
    """
    of_series = space.layout.ends and (space.long_table is not None or space.lengths is not None)
    return of_series and path.suffix.lower() in TABLES


def long_table(data: np.ndarray, space: Space, attributes: Attributes | None = None) -> Frame:
    """Return series as a long table: the columns of the series and of the order, and the channels.

    Args:
        data: series (N, T) or (N, T, C) in the user's units, with NaN after their end.
        space: of the series.
        attributes: of the series, each (N,), with their names and first steps; by default series
            are numbered from 1 and begin at the first step of most.

    >>> from vaestro.spaces import RealSpace
    >>> table = LongTable("unit", "cycle", "int64", 1.0, 1.0, ("float64",))
    >>> space = RealSpace((2, 1), (2, 1), names=("speed",), long_table=table)
    >>> frame = long_table(np.array([[[0.5], [0.7]], [[0.1], [np.nan]]]), space)
    >>> {name: column.tolist() for name, column in frame.columns.items()}
    {'unit': [1, 1, 2], 'cycle': [1, 2, 1], 'speed': [0.5, 0.7, 0.1]}
    """
    table, known = space.long_table or LongTable(""), attributes or {}
    values = space.arranged(data)
    sizes = np.maximum(ends_of(~np.isnan(values)), 1)
    series = np.repeat(np.arange(len(values)), sizes)
    steps = np.arange(len(series)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    columns: dict[str, np.ma.MaskedArray] = {}
    group = table.group or ID
    if table.group or not table.order or len(values) > 1:
        labels = known.get(group, np.arange(1, len(values) + 1))
        columns[group] = np.ma.MaskedArray(labels[series])
    if table.step:
        first = known.get(table.order, np.full(len(values), table.first))
        if table.kind.startswith("datetime64"):
            first = first.astype(np.int64 if first.dtype.kind == "f" else table.kind)
            first = first.astype(table.kind)
        columns[table.order] = np.ma.MaskedArray(table.order_values(first[series], steps))
    else:
        first = known.get(FIRST, np.zeros(len(values), np.int64))
        columns[FIRST] = np.ma.MaskedArray(first[series] + steps)
    count = values.shape[2]
    numbered = ["value"] if count == 1 else [f"value_{i}" for i in range(count)]
    dtypes = table.dtypes or (space.dtype,) * count
    for i, (name, dtype) in enumerate(zip(space.names or numbered, dtypes, strict=True)):
        columns[name] = _typed(values[series, steps, i], np.dtype(dtype))
    for name, value in table.constants:
        columns[name] = np.ma.MaskedArray(np.full(len(series), value))
    for name in table.columns:  # the same in all rows of a series
        if name not in columns and name in known and known[name].dtype.kind in "biufUM":
            columns[name] = np.ma.MaskedArray(known[name][series])
    in_order = [name for name in table.columns if name in columns]
    others = [name for name in columns if name not in table.columns]
    return Frame({name: columns[name] for name in (*others, *in_order)})


def _typed(values: np.ndarray, dtype: np.dtype) -> np.ma.MaskedArray:
    """Return numbers with NaN in missing cells as a column of a dtype."""
    empty = np.isnan(values)
    plain = np.where(empty, 0, values)
    if dtype.kind in "iu":
        plain = rounded(plain, dtype)
    elif dtype.kind == "b":
        plain = plain > 0.5
    column: np.ma.MaskedArray = np.ma.MaskedArray(plain.astype(dtype), empty)
    return column


def one_each(
    data: np.ndarray, space: Space, attributes: Attributes | None = None
) -> dict[str, np.ndarray]:
    """Return series of different lengths as one array each, by the name of the series.

    Args:
        data, space, attributes: see `long_table`.

    >>> from vaestro.spaces import RealSpace
    >>> arrays = one_each(np.array([[1.0, 2.0], [3.0, np.nan]]), RealSpace((2, 1), (2,)))
    >>> {name: array.tolist() for name, array in arrays.items()}
    {'arr_0': [1.0, 2.0], 'arr_1': [3.0]}
    """
    group = (space.long_table or LongTable("")).group or ID
    names = [f"arr_{i}" for i in range(len(data))]
    if attributes is not None and group in attributes:
        named = [str(name) for name in attributes[group].tolist()]
        names = named if len(set(named)) == len(named) else names
    values = space.arranged(data)
    values = values[..., 0] if len(space.outside) == 1 else values
    ends = ends_of(~np.isnan(values))
    return {name: row[:end] for name, row, end in zip(names, values, ends, strict=True)}
