"""Data in messages: as JSON, as an .npz file, or as raw numbers with a header.

Raw numbers begin with the bytes VSTR, the type (1: float32, 2: uint8), the number of dimensions
and two zero bytes. The dimensions follow as uint32, then the numbers in C order. All are
little-endian.
"""

from __future__ import annotations

import io
import math
import struct
from typing import Any

import numpy as np

from vaestro.data.columns import filled
from vaestro.frames import Frame
from vaestro.latent import UserData
from vaestro.tokens import Texts

MAGIC = b"VSTR"
TYPES: dict[int, np.dtype[Any]] = {1: np.dtype("<f4"), 2: np.dtype("u1")}
RAW = "application/octet-stream"
NPZ = "application/x-npz"


def pack(array: np.ndarray) -> bytes:
    """Return an array as raw numbers with a header; numbers other than uint8 become float32.

    >>> unpack(pack(np.eye(2))).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    code = 2 if array.dtype == np.uint8 else 1
    header = MAGIC + struct.pack(f"<BBxx{array.ndim}I", code, array.ndim, *array.shape)
    return header + np.ascontiguousarray(array, TYPES[code]).tobytes()


def unpack(body: bytes) -> np.ndarray:
    """Return the array of a message of raw numbers, or of the first array of an .npz file.

    Raises:
        ValueError: it is neither, or has another length than its header says.

    >>> unpack(b"VSTR")
    Traceback (most recent call last):
    ValueError: expected raw numbers with a header of 8 bytes or more; got 4 bytes
    """
    if body[:4] == b"PK\x03\x04":
        return _first_array(body)
    if body[:4] != MAGIC:
        raise ValueError(f"expected raw numbers that begin with VSTR, or .npz; got {body[:4]!r}")
    if len(body) < 8:
        raise ValueError(
            f"expected raw numbers with a header of 8 bytes or more; got {len(body)} bytes"
        )
    code, dimensions = body[4], body[5]
    start = 8 + 4 * dimensions
    if code not in TYPES or dimensions > 8 or len(body) < start:
        raise ValueError(
            f"expected type 1 or 2 and at most 8 dimensions; got type {code} and {dimensions}"
        )
    shape = struct.unpack_from(f"<{dimensions}I", body, 8)
    size = math.prod(shape) * TYPES[code].itemsize
    if len(body) - start != size:
        raise ValueError(f"expected {size:,} bytes after the header; got {len(body) - start:,}")
    return np.frombuffer(body, TYPES[code], offset=start).reshape(shape)


def _first_array(body: bytes) -> np.ndarray:
    """Return the first array of an .npz file."""
    try:
        with np.load(io.BytesIO(body), allow_pickle=False) as archive:
            return np.asarray(archive[archive.files[0]])
    except Exception as error:  # a damaged file raises errors of zipfile, zlib, struct and NumPy
        raise ValueError("expected an .npz file with an array; got a damaged one") from error


def npz(**arrays: np.ndarray) -> bytes:
    """Return arrays as an .npz file.

    >>> unpack(npz(z=np.zeros((2, 3)))).shape
    (2, 3)
    """
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def arrays_of(data: UserData) -> dict[str, np.ndarray]:
    """Return data as arrays by name: `values`, `texts`, or one for each column of a table.

    >>> list(arrays_of(Texts.of(["a cat"])))
    ['texts']
    """
    if isinstance(data, Frame):
        columns = {name: filled(column) for name, column in data.columns.items()}
        return {
            name: cells.astype(str) if cells.dtype.kind == "O" else cells
            for name, cells in columns.items()
        }
    if isinstance(data, Texts):
        return {"texts": data.lines.astype(str)}
    return {"values": data}


def as_json(data: UserData) -> dict[str, Any]:
    """Return data as a value for JSON; missing cells are None.

    >>> as_json(np.array([[0.5, np.nan]]))
    {'kind': 'array', 'values': [[0.5, None]]}
    """
    if isinstance(data, Frame):
        columns = {name: _cells(column) for name, column in data.columns.items()}
        rows = [list(row) for row in zip(*columns.values(), strict=True)]
        return {"kind": "table", "columns": list(columns), "rows": rows}
    if isinstance(data, Texts):
        return {"kind": "text", "texts": data.lines.tolist()}
    return {"kind": "array", "values": numbers(data)}


def numbers(array: np.ndarray) -> Any:
    """Return an array as nested lists, with None for numbers that are not finite.

    >>> numbers(np.array([1.0, np.inf]))
    [1.0, None]
    """
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            cells = array.astype(object)
            cells[~np.isfinite(array)] = None
            return cells.tolist()
        if array.dtype.itemsize <= 4:  # as few digits as float32 has
            return _short(array.tolist())
    return array.tolist()


def _short(values: Any) -> Any:
    """Round nested lists to 7 significant digits."""
    return (
        [_short(value) for value in values] if isinstance(values, list) else float(f"{values:.7g}")
    )


def _cells(column: np.ma.MaskedArray) -> list[Any]:
    """Return the cells of a column for JSON."""
    absent = np.ma.getmaskarray(column)
    data = np.asarray(column.data)
    values = data.astype(str).tolist() if data.dtype.kind == "M" else data.tolist()
    return [
        None if gone or (isinstance(value, float) and not math.isfinite(value)) else value
        for value, gone in zip(values, absent, strict=True)
    ]
