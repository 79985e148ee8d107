"""Turn bytes (N, H, W, C) into pictures that lie inside the page."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

SMALL = 4000  # bytes: a PNG below this stays one, whatever a JPEG would take
SHEET = 500_000
PIXELATED = 48  # images up to this side are enlarged with hard edges


@dataclass(frozen=True)
class Sheet:
    """Hold images laid out in one picture.

    Args:
        uri: the picture.
        columns, rows: how many lie beside and below each other.
        width, height: of one, in pixels.
    """

    uri: str
    columns: int
    rows: int
    width: int
    height: int


def uri(image: np.ndarray, small: int = SMALL, quality: int = 90) -> str:
    """Encode an image (H, W, C) as a PNG, or where that is large and the JPEG smaller, as that."""
    picture = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)
    png = io.BytesIO()
    picture.save(png, "PNG", optimize=True)
    data, kind = png.getvalue(), "png"
    if len(data) > small and image.shape[-1] in (1, 3):
        jpeg = io.BytesIO()
        picture.save(jpeg, "JPEG", quality=quality, subsampling=0)
        if len(jpeg.getvalue()) < len(data):
            data, kind = jpeg.getvalue(), "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def uris(images: np.ndarray | None, n: int | None = None) -> list[str]:
    """Encode the first n images, each for itself."""
    return [] if images is None else [uri(image) for image in images[:n]]


def sheet(images: np.ndarray) -> Sheet:
    """Lay images out as a square of tiles."""
    n, height, width, channels = images.shape
    columns = max(1, math.ceil(math.sqrt(n)))
    rows = -(-n // columns)
    canvas = np.zeros((rows * columns, height, width, channels), np.uint8)
    canvas[:n] = images
    tiled = canvas.reshape(rows, columns, height, width, channels).swapaxes(1, 2).reshape(rows * height, columns * width, channels)
    return Sheet(uri(tiled, SHEET, 80), columns, rows, width, height)
