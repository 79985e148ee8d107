"""Turn bytes (N, H, W, C) into pictures that lie inside the page."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

# bytes of one image, at most: what a report shows of 96-pixel images then stays below 8 MB, even of
# noise
TILE = 8_000
SHEET = 600_000
QUALITIES = (92, 80, 60, 40, 20)
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


def uri(image: np.ndarray, most: int = TILE) -> str:
    """Encode an image (H, W, C) as a PNG, or where that takes more bytes than it may, as a WebP of
    the highest quality that fits."""
    picture = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)
    held = io.BytesIO()
    picture.save(held, "PNG", optimize=True)
    kind = "png"
    for quality in QUALITIES:
        if len(held.getvalue()) * 4 / 3 <= most:
            break
        held, kind = io.BytesIO(), "webp"
        picture.save(held, "WEBP", quality=quality)
    return f"data:image/{kind};base64,{base64.b64encode(held.getvalue()).decode()}"


def uris(images: np.ndarray | None) -> list[str]:
    """Encode images, each for itself."""
    return [] if images is None else [uri(image) for image in images]


def sheet(images: np.ndarray) -> Sheet:
    """Lay images out as a square of tiles."""
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
