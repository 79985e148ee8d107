"""Series of different lengths in memory and in .npz files: one array or list for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from vaestro.data.columns import series as series_of_column
from vaestro.data.raw import Options, Raw
from vaestro.data.series.record import Cut, Record, padded_values
from vaestro.data.series.roles import window_of
from vaestro.spaces import LongTable
from vaestro.text import InputError

if TYPE_CHECKING:
    import pyarrow

USED = ("window", "stride", "array", "ignore", "split")
ID = "series"  # the attribute with the name of each series
FIRST = "step"  # the attribute with the first step of each window


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
        return checked(source) if asked and not _is_table(source) else None
    if not isinstance(source, (list, tuple)) or len(source) < 2:
        return None
    lists = [isinstance(one, (list, tuple)) or np.ndim(one) > 0 for one in source]
    if not all(lists) or (not asked and len(set(map(len, source))) < 2):
        return None
    return checked(source)


def _is_table(source: Mapping[object, object]) -> bool:
    """Return whether a mapping has columns (N,) of one length."""
    shapes = {np.asarray(values, object).shape for values in source.values()}
    return len(shapes) == 1 and len(shapes.pop()) == 1


def checked(
    arrays: Sequence[np.ndarray] | Mapping[str, np.ndarray],
) -> list[np.ndarray] | dict[str, np.ndarray]:
    """Return arrays (T,) or (T, C) as series of floats, by name if they have names.

    Raises:
        ValueError: an array is not numeric or has another shape.

    >>> checked([np.arange(3)])[0].dtype
    dtype('float64')
    """
    if isinstance(arrays, Mapping):
        return {str(n): _array(v, repr(str(n))) for n, v in arrays.items()}
    return [_array(one, f"series {i}") for i, one in enumerate(arrays)]


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
    splits: Mapping[str, Sequence[np.ndarray]],
    options: Options,
    name: str,
    attributes: Mapping[str, Mapping[str, np.ndarray]] | None = None,
    *,
    names: tuple[str, ...] = (),
) -> Raw[np.ndarray]:
    """Return series of different lengths as arrays (N, T, C) or (N, T), with NaN after the end of
    the shorter ones.

    Args:
        splits: the series of each split, or all of them under "all".
        options: of the source.
        name: of the source.
        attributes: other values of each series, by name, each (N,).
        names: of the channels, if they are known.

    Raises:
        ValueError: they have different channels, or all are empty.

    >>> raw = read_ragged({"all": [np.zeros(3), np.ones(1)]}, {}, "list")
    >>> raw.splits["all"].shape, raw.notes
    ((2, 3), ('2 series, 1 to 3 steps',))
    """
    values = [one for series in splits.values() for one in series if one.size]
    if not values:
        raise InputError(f"all series of {name} are empty")
    _check_channels(splits, name)
    dtype = np.result_type(*(one.dtype for one in values))
    notes = [_described(values)]
    if empty := sum(map(len, splits.values())) - len(values):
        notes.append(f"{empty:,} rows without a series left out")
    window, stride = window_of(options, name)
    cuts = {}
    for split, series in splits.items():
        full = [i for i, one in enumerate(series) if one.size]
        cut = Cut([series[i].astype(dtype) for i in full], np.array(full), np.zeros(len(full), int))
        cuts[split] = cut.into(window, stride) if window else cut
    if window:
        count = sum(len(cut.values) for cut in cuts.values())
        notes.append(f"cut into {count:,} windows of {window:,} steps (stride {stride:,})")
    longest = max(len(one) for cut in cuts.values() for one in cut.values)
    arrays = {s: padded_values(cut.values, longest) for s, cut in cuts.items()}
    others = {
        s: {n: v[cut.series] for n, v in (attributes or {}).get(s, {}).items()}
        for s, cut in cuts.items()
    }
    if window:
        for s, cut in cuts.items():
            others[s] |= {FIRST: cut.start, **({} if others[s] else {ID: cut.series})}
    missing = any(bool(np.isnan(array).any()) for array in arrays.values())
    record = Record(
        names,
        LongTable("", window=window, stride=stride),
        {s: cut.record(window) for s, cut in cuts.items()} if window else {},
        USED,
    )
    return Raw(arrays, others, tuple(notes), missing, record)


def _described(values: Sequence[np.ndarray]) -> str:
    """Return the note on series that are not empty."""
    sizes = list(map(len, values))
    steps = f"{min(sizes):,} to " if min(sizes) < max(sizes) else ""
    channels = f", {values[0].shape[1]} channels" if values[0].ndim > 1 else ""
    return f"{len(values):,} series, {steps}{max(sizes):,} steps{channels}"


def _check_channels(splits: Mapping[str, Sequence[np.ndarray]], name: str) -> None:
    """Raise ValueError unless all series have the same channels."""
    first = None
    for series in splits.values():
        for i, one in enumerate(series):
            first = (i, one.shape) if first is None and one.size else first
            if first is not None and one.size and one.shape[1:] != first[1][1:]:
                raise ValueError(
                    f"expected series with the same channels in {name}; got shape {first[1]} in "
                    f"series {first[0]} and {one.shape} in series {i}"
                )


def read_named(
    series: Sequence[np.ndarray] | Mapping[str, np.ndarray], options: Options, name: str
) -> Raw[np.ndarray]:
    """Return series of different lengths as an array; their names, if there are some, become an
    attribute.

    >>> read_named({"a": np.zeros(3), "b": np.ones(1)}, {}, "x.npz").attributes["all"]["series"]
    array(['a', 'b'], dtype='<U1')
    """
    if not isinstance(series, Mapping):
        return read_ragged({"all": series}, options, name)
    labels = {"all": {ID: np.array(list(series))}}
    return read_ragged({"all": list(series.values())}, options, name, labels)


def windows_of_array(array: np.ndarray, options: Options, name: str) -> Raw[np.ndarray] | None:
    """Return windows of the series of an array (N, T), (N, T, C), or of one series (T,); None if
    the options ask for none.

    >>> windows_of_array(np.arange(8.0), {"series": True, "window": 4}, "x.npy").splits["all"].shape
    (2, 4)
    """
    cut = "window" in options or "stride" in options
    if options.get("series", False) is not True or not cut or array.ndim > 3:
        return None
    whole = array[None] if array.ndim == 1 else array
    series = [_array(one, f"row {i}") for i, one in enumerate(whole)]
    return read_ragged({"all": series}, options, name)


def list_columns(table: pyarrow.Table) -> list[str]:
    """Return the names of the columns of an Arrow table that contain lists.

    >>> import pyarrow
    >>> list_columns(pyarrow.table({"a": [1], "b": [[1, 2]]}))
    ['b']
    """
    import pyarrow

    lists = (pyarrow.types.is_list, pyarrow.types.is_large_list, pyarrow.types.is_fixed_size_list)
    return [n for n in table.column_names if any(test(table[n].type) for test in lists)]


def series_in_cells(table: pyarrow.Table, column: str, name: str) -> list[np.ndarray]:
    """Return the lists in the cells of a column as series (T,) or (T, C); an empty cell is empty.

    Raises:
        ValueError: the lists do not contain numbers, or inner lists differ in length.

    >>> import pyarrow
    >>> len(series_in_cells(pyarrow.table({"b": [[1, 2], [3]]}), "b", "t.json"))
    2
    """
    import pyarrow.compute as compute

    whole = series_of_column(table[column], column, name)
    sizes = compute.fill_null(compute.list_value_length(table[column]), 0).to_numpy()
    return [row[:size] for row, size in zip(whole, sizes, strict=True)]
