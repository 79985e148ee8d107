"""Decoders of the bytes of a row of shards: images and arrays."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from typing import TypeVar, final

import numpy as np

from vaestro.data import images
from vaestro.data.deep_images import Form, Header, Target
from vaestro.data.image_decoding import decode_image, read_header, target_of
from vaestro.data.raw import Options
from vaestro.data.shard_formats import Format, Index
from vaestro.text import InputError, is_input_error

UNUSUAL = 0.1  # largest share of images whose size may differ from the most common one
LOOKED_AT = 256  # number of rows from which size and type are inferred
T = TypeVar("T")


class Decoder(ABC):
    """Decode the bytes of a row.

    Args:
        shape: of a decoded row.
        dtype: of its values.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.shape, self.dtype = shape, dtype

    @abstractmethod
    def __call__(self, cell: bytes) -> np.ndarray:
        """Return a row.

        Raises:
            Exception: of any type, if the bytes are damaged.
        """


@final
class Images(Decoder):
    """Decode images and convert them to one form."""

    def __init__(self, form: Form, target: Target) -> None:
        super().__init__(form.shape, np.dtype(form.dtype))
        self.form, self.target = form, target

    def __call__(self, cell: bytes) -> np.ndarray:
        array: np.ndarray = decode_image(io.BytesIO(cell), self.target, self.form)[0][0]
        return array


@final
class Arrays(Decoder):
    """Decode .npy files."""

    def __call__(self, cell: bytes) -> np.ndarray:
        return _array(cell)


def _array(cell: bytes) -> np.ndarray:
    return np.asarray(np.lib.format.read_array(io.BytesIO(cell), allow_pickle=False))


def decoder_of(index: Index, reader: Format, kind: str, options: Options, name: str) -> Decoder:
    """Return the decoder of all rows. Its size and type are inferred from some rows.

    Args:
        index: of the shards.
        reader: of their format.
        kind: images or arrays.
        options, name: of the source.

    Raises:
        ValueError: images differ in size and `size` is not given, arrays differ in shape, or no row
            is readable.
    """
    if kind == "arrays":
        return _decoder_of_arrays(_sample(index, reader, _row_of_array), name)
    target = target_of(options)
    if target.pages in ("all", "channels") or target.volume:
        raise InputError(
            f"only the first page of images in shards is read in {name}: leave out "
            f"{'volume=true' if target.volume else f'pages={target.pages}'}"
        )
    headers = _sample(index, reader, lambda cell: _header(cell, target))
    if not headers:
        raise InputError(f"all images in {name} are damaged")
    common, times = Counter(h.sides for h in headers).most_common(1)[0]
    if times >= (1 - UNUSUAL) * len(headers):
        # a few images of other sizes are counted as unreadable
        headers = [h for h in headers if h.sides == common]
    numbered = {f"image {i}": header for i, header in enumerate(headers)}
    return Images(images.form_of(numbered, target, name), target)


def _decoder_of_arrays(rows: list[np.ndarray], name: str) -> Decoder:
    if not rows:
        raise InputError(f"all arrays in {name} are damaged")
    shapes = sorted({row.shape for row in rows})
    if len(shapes) > 1 or rows[0].dtype.kind not in "biuf":
        got = " and ".join(map(str, shapes[:3])) if len(shapes) > 1 else str(rows[0].dtype)
        raise ValueError(f"expected arrays of numbers of one shape in {name}; got {got}")
    return Arrays(rows[0].shape, rows[0].dtype)


def _sample(index: Index, reader: Format, read: Callable[[bytes | np.ndarray], T]) -> list[T]:
    """Return some rows, each read by a function; damaged rows are left out.

    Raises:
        ValueError: no row can be read, because the arrays differ in shape.
    """
    rows: list[T] = []
    refusal: ValueError | None = None
    for block in np.unique(np.linspace(0, len(index.sizes) - 1, 8).astype(np.int64)).tolist():
        some = np.unique(np.linspace(0, index.sizes[block] - 1, LOOKED_AT // 8).astype(np.int64))
        try:
            cells = reader.read(index, block, some)
        except ValueError as error:
            refusal = error if is_input_error(error) else refusal
            continue
        for cell in cells:
            try:
                rows.append(read(cell if cell is not None else b""))
            except Exception:  # decoders of damaged files raise many types
                continue
    if not rows and refusal is not None:
        raise refusal
    return rows


def _row_of_array(cell: bytes | np.ndarray) -> np.ndarray:
    return cell if isinstance(cell, np.ndarray) else _array(cell)


def _header(cell: bytes | np.ndarray, target: Target) -> Header:
    header = read_header(io.BytesIO(bytes(cell)), target)
    if header.reason:
        raise ValueError(header.reason)
    return header
