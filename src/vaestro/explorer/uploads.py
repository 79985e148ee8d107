"""Read a datum that a user dropped on the page: an image, a table or a text."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from vaestro.data import Rows
from vaestro.explorer.engine import Engine
from vaestro.spaces import Space

MOST_PIXELS = 50_000_000
TABLES = {".csv", ".tsv", ".json", ".jsonl", ".parquet", ".xlsx"}


def read_upload(engine: Engine, name: str, body: bytes, condition: dict[str, Any]) -> Rows:
    """Return the data of a file as rows of the run's space.

    An image is scaled to the size of the run's images. Binary images are black below half of the
    range. A table or a text has one datum per row or line.

    Args:
        engine: of the run.
        name: of the file; its suffix determines the format of a table.
        body: the content.
        condition: {name: value} of a conditional model.

    Raises:
        ValueError: the file is not what its name says, or does not fit the run.
    """
    if not body:
        raise ValueError(f"expected a file with content; got {name!r}, which is empty")
    if engine.kind == "image":
        return engine.session.rows(_image(body, name, engine.model.space), condition=condition)
    suffix = Path(name).suffix.lower()
    if engine.kind == "text":
        lines = [line for line in _text(body, name).splitlines() if line.strip()]
        if not lines:
            raise ValueError(f"expected one text per line; got none in {name!r}")
        return engine.session.rows(lines, condition=condition)
    if suffix in (".npy", ".npz"):
        return engine.session.rows(_array(body, name), condition=condition)
    if engine.kind == "table" and suffix in TABLES:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"upload{suffix}"
            path.write_bytes(body)
            return engine.session.rows(path, condition=condition).in_memory()
    if engine.kind == "table":
        raise ValueError(f"expected a table ({', '.join(sorted(TABLES))}); got {name!r}")
    return engine.session.rows(_numbers(body, name, engine.model.space), condition=condition)


def _image(body: bytes, name: str, space: Space) -> np.ndarray:
    """Return an image as an array (1, *outside) in the range of a space."""
    from PIL import Image, ImageOps

    if not space.levels:
        raise (
            ValueError("expected an array (.npy) for images without levels; got an image file")
            if not body.startswith(b"\x93NUMPY")
            else ValueError("use /api/encode for arrays")
        )
    channels = space.outside[2] if len(space.outside) == 3 else 1
    mode = {1: "L", 3: "RGB", 4: "RGBA"}.get(channels)
    if mode is None:
        raise ValueError(f"expected images of 1, 3 or 4 channels; the run has {channels}")
    try:
        with Image.open(io.BytesIO(body)) as opened:
            if opened.width * opened.height > MOST_PIXELS:
                raise ValueError(
                    f"expected at most {MOST_PIXELS:,} pixels; got {opened.width} x {opened.height}"
                )
            picture = ImageOps.exif_transpose(opened).convert(mode)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"expected an image file; got {name!r}, which cannot be read") from error
    height, width = space.outside[:2]
    grey = np.asarray(ImageOps.fit(picture, (width, height)), np.float64) / 255
    if space.levels == 2:
        grey = (grey >= 0.5).astype(np.float64)
    codes = np.rint(grey * (space.levels - 1))
    values = (space.low + space.step * codes).reshape(1, *space.outside)
    return values.astype(np.dtype(space.dtype)) if space.dtype else values


def _text(body: bytes, name: str) -> str:
    """Return a file as text."""
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"expected text in UTF-8; got {name!r}, which is not") from error


def _array(body: bytes, name: str) -> np.ndarray:
    """Return the array of a .npy or .npz file."""
    try:
        loaded = np.load(io.BytesIO(body), allow_pickle=False)
        return np.asarray(loaded if isinstance(loaded, np.ndarray) else loaded[loaded.files[0]])
    except Exception as error:  # damaged files raise errors of several libraries
        raise ValueError(f"expected an array in {name!r}; got a file that is not one") from error


def _numbers(body: bytes, name: str, space: Space) -> np.ndarray:
    """Return a text of numbers, separated by commas or white space, as an array (1, *outside)."""
    words = _text(body, name).replace(",", " ").replace(";", " ").split()
    try:
        values = np.array([float(word) for word in words])
    except ValueError as error:
        raise ValueError(f"expected numbers in {name!r}; got other text") from error
    size = int(np.prod(space.outside))
    if len(values) % size or not len(values):
        raise ValueError(f"expected {size:,} numbers per datum in {name!r}; got {len(values):,}")
    return values.reshape(-1, *space.outside).astype(np.dtype(space.dtype or "f4"))
