"""Decode the bytes of a row of shards: images and arrays."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections import Counter
from pathlib import Path
from typing import Any, final

import numpy as np

from vaestro.data import images
from vaestro.data.raw import Options
from vaestro.data.shard_formats import Format, Index

UNUSUAL = 0.1  # share of images that may have another size than the others

LOOKED_AT = 256  # rows that say which size and type all have


class Decoder(ABC):
    """Turn the bytes of a row into an array.

    Args:
        shape: of a row.
        dtype: of its values.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.shape, self.dtype = shape, dtype

    @abstractmethod
    def __call__(self, cell: bytes) -> np.ndarray:
        """Return a row.

        Raises:
            Exception: of any kind, where the bytes are damaged.
        """


@final
class Images(Decoder):
    """Decode images, brought to one size and to grey or colour."""

    def __init__(self, size: tuple[int, int], colour: bool, target: images.Target) -> None:
        super().__init__((*size, 3) if colour else size, np.dtype(np.uint8))
        self.colour, self.target = colour, target

    def __call__(self, cell: bytes) -> np.ndarray:
        return images.decoded(io.BytesIO(cell), self.target, self.colour)[0]


@final
class Arrays(Decoder):
    """Decode .npy files."""

    def __call__(self, cell: bytes) -> np.ndarray:
        return _array(cell)


def _array(cell: bytes) -> np.ndarray:
    return np.asarray(np.lib.format.read_array(io.BytesIO(cell), allow_pickle=False))


def decoder_of(index: Index, reader: Format, kind: str, options: Options, name: str) -> Decoder:
    """Say from some rows what all rows are.

    Raises:
        ValueError: images differ in size and `size` was not given, or none can be used.
    """
    target = images.target_of(options)
    found: list[Any] = []
    for block in np.unique(np.linspace(0, len(index.sizes) - 1, 8).astype(np.int64)).tolist():
        some = np.unique(np.linspace(0, index.sizes[block] - 1, LOOKED_AT // 8).astype(np.int64))
        try:
            cells = reader.read(index, block, some)
        except ValueError:
            continue
        for cell in cells:
            try:
                found.append(
                    cell
                    if isinstance(cell, np.ndarray)
                    else _array(cell or b"")
                    if kind == "arrays"
                    else _header(cell)
                )
            except Exception:  # a damaged file can raise nearly anything
                continue
    if not found:
        raise ValueError(f"expected {kind} in {name}; got damaged ones alone")
    if kind == "arrays":
        shapes = sorted({row.shape for row in found})
        if len(shapes) > 1 or found[0].dtype.kind not in "biuf":
            got = " and ".join(map(str, shapes[:3])) if len(shapes) > 1 else str(found[0].dtype)
            raise ValueError(f"expected arrays of numbers of one shape in {name}; got {got}")
        return Arrays(found[0].shape, found[0].dtype)
    common, times = Counter(sides for sides, _ in found).most_common(1)[0]
    # a few others are left out, and counted
    usual = [common] if times >= (1 - UNUSUAL) * len(found) else [sides for sides, _ in found]
    size = target.size or images.one_size(np.array(usual), Path(name))
    colour = target.channels == "colour" or (
        target.channels is None and not all(grey for _, grey in found)
    )
    return Images(size, colour, target)


def _header(cell: bytes | None) -> tuple[tuple[int, int], bool]:
    sides, grey, reason = images.measured(io.BytesIO(cell or b""))
    if reason:
        raise ValueError(reason)
    return sides, grey
