"""Encode images (N, H, W, C) of bytes as data URIs, which are part of the page."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

# Maximum size of an encoded image in bytes. A report of 96-pixel images is then below 8 MB.
TILE = 8_000
SHEET = 600_000
QUALITIES = (92, 80, 60, 40, 20)
PIXELATED = 48  # images up to this side are enlarged with hard edges


@dataclass(frozen=True)
class Sheet:
    """Several images in one picture.

    Args:
        uri: the picture as a data URI.
        columns, rows: number of columns and rows of images.
        width, height: size of one image in pixels.
    """

    uri: str
    columns: int
    rows: int
    width: int
    height: int


def uri(image: np.ndarray, most: int = TILE) -> str:
    """Return an image (H, W, C) as a data URI: a PNG, or for larger ones a WebP of the highest
    quality that fits."""
    picture = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    kind = "png"
    for quality in QUALITIES:
        if len(buffer.getvalue()) * 4 / 3 <= most:
            break
        buffer, kind = io.BytesIO(), "webp"
        picture.save(buffer, "WEBP", quality=quality)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def uris(images: np.ndarray | None) -> list[str]:
    """Return each image as a data URI; [] for None."""
    return [] if images is None else [uri(image) for image in images]


def sheet(images: np.ndarray) -> Sheet:
    """Return images as one picture, in a square of tiles."""
    n, height, width, channels = images.shape
    columns = max(1, math.ceil(math.sqrt(n)))
    rows = -(-n // columns)
    canvas = np.zeros((rows * columns, height, width, channels), np.uint8)
    canvas[:n] = images
    tiled = (
        canvas.reshape(rows, columns, height, width, channels)
        .swapaxes(1, 2)
        .reshape(rows * height, columns * width, channels)
    )
    return Sheet(uri(tiled, SHEET), columns, rows, width, height)
