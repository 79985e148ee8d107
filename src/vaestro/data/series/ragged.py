"""Series of different lengths in memory and in .npz files: one array or list for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from vaestro.data.columns import series as series_of_column
from vaestro.data.raw import Options, Raw
from vaestro.data.series.long_tables import window_of
from vaestro.data.series.record import Cut, Record, padded_values
from vaestro.text import InputError

if TYPE_CHECKING:
    import pyarrow

USED = ("window", "stride")
ID = "series"  # the attribute with the name of each series


def as_series(source: object, options: Options) -> list[np.ndarray] | dict[str, np.ndarray] | None:
    """Return Python data as series (T, C) or (T,), by name if they have names; None for other data.

    These are lists and tuples of arrays or of lists of numbers, if their lengths differ or `series`
    is true, and with `series=True` also {name: array}.

    Args:
        source: the data.
        options: of the source.

    Raises:
        ValueError: an element is not numeric or has another shape.

    >>> [len(one) for one in as_series([[1, 2, 3], [4, 5]], {})]
    [3, 2]
    >>> as_series([[1, 2], [4, 5]], {}) is None
    True
    """
    asked = options.get("series", False) is True
    if isinstance(source, np.ndarray) and source.dtype.kind == "O" and source.ndim == 1:
        source = list(source)
    if isinstance(source, Mapping):
        return {str(n): _array(v, repr(str(n))) for n, v in source.items()} if asked else None
    if not isinstance(source, (list, tuple)) or len(source) < 2:
        return None
    if not all(isinstance(one, (np.ndarray, list, tuple)) for one in source):
        return None
    if not asked and len({len(one) if np.ndim(one[:1]) else 0 for one in source}) < 2:
        return None
    return [_array(one, f"series {i}") for i, one in enumerate(source)]


def _array(values: object, what: str) -> np.ndarray:
    """Return one series as an array of floats (T,) or (T, C); None is a missing value."""
    try:
        array = np.asarray(values)
        array = array.astype(np.float64) if array.dtype.kind == "O" else array
    except (TypeError, ValueError):
        array = np.zeros(0, "U1")
    if array.dtype.kind not in "biuf" or array.ndim not in (1, 2):
        if array.dtype.kind == "f" and not array.size:
            return np.zeros(0)
        got = f"shape {array.shape}" if array.dtype.kind in "biuf" else "other values"
        raise ValueError(f"expected numbers (T,) or (T, channels) in {what}; got {got}")
    infinite = int(np.isinf(array).sum()) if array.dtype.kind == "f" else 0
    if infinite:
        raise ValueError(f"expected finite numbers in {what}; got {infinite:,} infinite")
    small = array.dtype.itemsize <= (4 if array.dtype.kind == "f" else 2)
    return array.astype(np.float32 if small else np.float64)


def read_ragged(
    series: Sequence[np.ndarray] | Mapping[str, np.ndarray], options: Options, name: str
) -> Raw[np.ndarray]:
    """Return series of different lengths as an array (N, T, C) or (N, T), with NaN after the end of
    the shorter ones.

    Args:
        series: the series, by name if they have names.
        options: of the source.
        name: of the source.

    Raises:
        ValueError: they have different channels, or all are empty.

    >>> raw = read_ragged([np.zeros(3), np.ones(1)], {}, "list")
    >>> raw.splits["all"].shape, raw.notes
    ((2, 3), ('2 series, 1 to 3 steps',))
    """
    named = isinstance(series, Mapping)
    labels = list(series) if isinstance(series, Mapping) else list(map(str, range(len(series))))
    values = list(series.values()) if isinstance(series, Mapping) else list(series)
    full = [i for i, one in enumerate(values) if one.size]
    if not full:
        raise InputError(f"all series of {name} are empty")
    shapes = {values[i].shape[1:] for i in full}
    if len(shapes) > 1:
        first = values[full[0]]
        odd = next(i for i in full if values[i].shape[1:] != first.shape[1:])
        got = f"{first.shape} in series {labels[full[0]]} and {values[odd].shape} in {labels[odd]}"
        raise ValueError(f"expected series with the same channels in {name}; got {got}")
    dtype = np.result_type(*(values[i].dtype for i in full))
    cut = Cut([values[i].astype(dtype) for i in full], np.array(full), np.zeros(len(full), int))
    low, high = (f(list(map(len, cut.values))) for f in (min, max))
    channels = f", {cut.values[0].shape[1]} channels" if cut.values[0].ndim > 1 else ""
    notes = [f"{len(full):,} series, {f'{low:,} to ' if low < high else ''}{high:,} steps{channels}"]
    if len(full) < len(values):
        notes.append(f"{len(values) - len(full):,} empty series left out")
    window, stride = window_of(options, name)
    windows = {}
    if window:
        cut = cut.into(window, stride)
        windows = {"all": cut.record(window)}
        notes.append(f"cut into {len(cut.values):,} windows of {window:,} steps (stride {stride:,})")
    array = padded_values(cut.values)
    attributes = {ID: np.array(labels)[cut.series]} if named else {}
    missing = bool(np.isnan(array).any())
    return Raw(
        {"all": array}, {"all": attributes}, tuple(notes), missing, Record((), None, windows, USED)
    )


def windows_of(array: np.ndarray, options: Options, name: str) -> Raw[np.ndarray]:
    """Return windows of the series of an array (N, T), (N, T, C) or of one series (T,).

    >>> windows_of(np.arange(8.0), {"window": 4}, "x.npy").splits["all"].shape
    (2, 4)
    """
    whole = array[None] if array.ndim == 1 else array
    return read_ragged([_array(one, f"row {i}") for i, one in enumerate(whole)], options, name)


def list_columns(table: pyarrow.Table) -> list[str]:
    """Return the names of the columns of an Arrow table that contain lists.

    >>> import pyarrow
    >>> list_columns(pyarrow.table({"a": [1], "b": [[1, 2]]}))
    ['b']
    """
    import pyarrow

    lists = (pyarrow.types.is_list, pyarrow.types.is_large_list, pyarrow.types.is_fixed_size_list)
    return [n for n in table.column_names if any(test(table[n].type) for test in lists)]


def series_in_cells(
    table: pyarrow.Table, column: str, options: Options, name: str
) -> list[np.ndarray]:
    """Return the lists in the cells of a column as series (T,) or (T, C); an empty cell is empty.

    Raises:
        ValueError: the lists do not contain numbers, or inner lists differ in length.

    >>> import pyarrow
    >>> len(series_in_cells(pyarrow.table({"b": [[1, 2], [3]]}), "b", {}, "t.json"))
    2
    """
    import pyarrow.compute as compute

    whole = series_of_column(table[column], column, name)
    sizes = compute.fill_null(compute.list_value_length(table[column]), 0).to_numpy()
    return [row[:size] for row, size in zip(whole, sizes, strict=True)]
