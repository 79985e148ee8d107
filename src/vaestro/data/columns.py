"""Convert columns of Arrow tables to arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vaestro.text import typed

if TYPE_CHECKING:
    import pyarrow

LETTERS = 100  # longest text that is an attribute; longer text is a description


def named(table: pyarrow.Table, column: str, names: Sequence[str]) -> pyarrow.Table:
    """Return an Arrow table with a column's codes replaced by the names of classes; the code -1
    (unknown) becomes an empty cell."""
    import pyarrow
    import pyarrow.compute as compute

    codes = compute.if_else(compute.less(table[column], 0), None, table[column])
    return table.set_column(
        table.column_names.index(column),
        column,
        compute.take(pyarrow.array(names, pyarrow.string()), codes),
    )


def filled(cells: np.ma.MaskedArray) -> np.ndarray:
    """Return a column (N,) with NaN, NaT or empty text in its empty cells."""
    empty, values = np.ma.getmaskarray(cells), np.asarray(cells.data)
    if not empty.any():
        return values
    nothing = {"M": np.datetime64("NaT"), "U": ""}.get(values.dtype.kind, np.nan)
    values = values.astype(np.float64) if values.dtype.kind in "biu" else values.copy()
    values[empty] = nothing
    return values


def stacked(
    column: pyarrow.ChunkedArray, name: str, source: str, otherwise: str = ""
) -> np.ndarray:
    """Return lists of one length, or lists of such, as an array (N, ...).

    Args:
        column: an Arrow column.
        name: of the column.
        source: name of the source, for messages.
        otherwise: what else can be typed than to leave the column out, with a comma before it.

    Raises:
        ValueError: lists are missing or of several lengths.
    """
    import pyarrow.compute as compute

    parts = []
    for part in filter(len, column.chunks):
        cells, shape = getattr(part, "storage", part), [len(part)]
        while cells.type.num_fields:
            sizes = compute.min_max(compute.list_value_length(cells)).as_py()
            if cells.null_count or sizes["min"] != sizes["max"]:
                got = (
                    "empty cells"
                    if cells.null_count
                    else f"{sizes['min']} to {sizes['max']} values"
                )
                raise ValueError(
                    f"expected arrays of one shape in column {name!r} of {source}; got {got}: "
                    f"leave it out with {typed('ignore', name)}{otherwise}"
                )
            cells = cells.flatten()
            shape.append(sizes["min"] or 0)
        parts.append(cells.to_numpy(zero_copy_only=False).reshape(shape))
    if len({part.shape[1:] for part in parts}) > 1 or not parts[0].size:
        shapes = " and ".join(sorted({str(part.shape[1:]) for part in parts}))
        raise ValueError(
            f"expected arrays of one shape in column {name!r} of {source}; got {shapes}: leave "
            f"it out with {typed('ignore', name)}{otherwise}"
        )
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def series(column: pyarrow.ChunkedArray, name: str, source: str) -> np.ndarray:
    """Return lists of numbers, or of lists of one length, as an array (N, T) or (N, T, C), with NaN
    after the end of the shorter ones.

    Args:
        column: an Arrow column.
        name: of the column.
        source: name of the source, for messages.

    Raises:
        ValueError: the column contains something else, or inner lists differ in length.
    """
    import pyarrow
    import pyarrow.compute as compute

    if not column.type.num_fields or getattr(column.type, "value_type", None) is None:
        raise ValueError(
            f"expected lists of numbers in column {name!r} of {source}; got {column.type}"
        )
    cells = column.combine_chunks()
    cells = cells.combine_chunks() if isinstance(cells, pyarrow.ChunkedArray) else cells
    sizes = (
        compute.fill_null(compute.list_value_length(cells), 0)
        .to_numpy(zero_copy_only=False)
        .astype(np.int64)
    )
    flat = cells.flatten()
    values = (
        stacked(pyarrow.chunked_array([flat]), name, source)
        if flat.type.num_fields
        else flat.to_numpy(zero_copy_only=False)
    )
    if values.dtype.kind not in "biuf":
        raise ValueError(
            f"expected lists of numbers in column {name!r} of {source}; got {column.type}"
        )
    whole = np.full(
        (len(sizes), int(sizes.max(initial=0)), *values.shape[1:]),
        np.nan,
        np.float32 if values.dtype.itemsize <= 4 else np.float64,
    )
    ends = np.cumsum(sizes)
    whole[
        np.repeat(np.arange(len(sizes)), sizes),
        np.arange(len(values)) - np.repeat(ends - sizes, sizes),
    ] = values
    return whole


def padded(array: np.ndarray, length: int) -> np.ndarray:
    """Return series (N, T, ...) as (N, length, ...), with NaN after their end."""
    return np.pad(
        array,
        [(0, 0), (0, length - array.shape[1]), *[(0, 0)] * (array.ndim - 2)],
        constant_values=np.nan,
    )
