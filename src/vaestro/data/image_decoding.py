"""Decode one image: its header, its pixels, and its conversion to a given size and colour."""

from __future__ import annotations

import re
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from PIL import Image

from vaestro.data.raw import Options
from vaestro.text import InputError

# Pillow's decoders that are tried, independently of the suffix of the file
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")


SPELLINGS = {"centre": "center", "gray": "grey", "color": "colour"}


GREY = ("1", "L", "LA", "I", "I;16", "I;16L", "I;16B", "I;16N")


# a quarter of a gibibyte in colour; Pillow warns of decompression bombs above the same limit
PIXELS = 89_478_485


SIDES = (4, 8192)


HUGE = f"have more than {PIXELS // 10**6} million pixels"


TINY = f"are smaller than {SIDES[0]}x{SIDES[0]}"


DEEP = "have 32-bit values (store them as an array, .npy)"


WIDE = "of 16 bits scaled to 8 bits (65535 becomes 255)"


CLEAR = "with transparency put on white"


# The transpositions that turn an image of EXIF's eight orientations upright. From 5 on, they swap
# height and width.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Target(NamedTuple):
    """Describe the images that all images are converted to."""

    size: tuple[int, int] | None  # (height, width); None: unchanged
    crop: bool  # whether images of another aspect ratio are cropped, rather than stretched
    channels: str | None  # grey or colour; None: colour if any image is


def target_of(options: Options) -> Target:
    """Return the images that all images are converted to, from the options of a source.

    Raises:
        ValueError: an option has a wrong value.

    >>> target_of({"size": "48x64", "channels": "grey"}).size
    (48, 64)
    """
    size, crop, channels = (
        SPELLINGS.get(v, v) if isinstance(v, str) else v
        for v in map(options.get, ("size", "crop", "channels"))
    )
    if size is not None:
        sides = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", str(size))
        size = (int(sides[1]), int(sides[2] or sides[1])) if sides else (0, 0)
        if not all(SIDES[0] <= side <= SIDES[1] for side in size):
            raise ValueError(
                f"expected size as 64 or 48x64 (height x width), from {SIDES[0]} to {SIDES[1]}; "
                f"got {options['size']!r}"
            )
    if crop not in (None, "center", "none"):
        raise ValueError(f"expected crop to be center or none; got {crop!r}")
    if crop and size is None:
        raise InputError(f"crop={crop} has an effect only with size=: add it, as in size=64")
    if channels not in (None, "grey", "colour"):
        raise ValueError(f"expected channels to be grey or colour; got {channels!r}")
    return Target(size, crop != "none", channels)


def read_header(path: Path | IO[bytes]) -> tuple[tuple[int, int], bool, str]:
    """Read the header of an image.

    Args:
        path: of the image, or its content.

    Returns:
        (height, width) in upright orientation; whether it is grey; and the reason why it cannot
        be used, or "".
    """
    with Image.open(path, formats=FORMATS) as image:
        width, height = image.size
        return (
            ((width, height) if _turn(image) >= 5 else (height, width)),
            image.mode in GREY,
            _unfit(image),
        )


def _unfit(image: Image.Image) -> str:
    """Return the reason why an image cannot be used, from its header; "" if it can."""
    width, height = image.size
    floats = image.mode == "F" or (image.mode == "I" and image.format == "TIFF")
    return (
        DEEP
        if floats
        else HUGE
        if width * height > PIXELS
        else TINY
        if min(width, height) < SIDES[0]
        else ""
    )


def decode_image(
    path: Path | IO[bytes], target: Target, colour: bool
) -> tuple[np.ndarray, list[str]]:
    """Decode an image.

    Args:
        path: of the image, or its content.
        target: to which the image is converted.
        colour: whether to return colours.

    Returns:
        uint8 (H, W) or (H, W, 3), and remarks on what was done.

    Raises:
        ValueError: the image cannot be used, by its header.
        Exception: of any type, if it is damaged.
    """
    remarks, mode = [], "RGB" if colour else "L"
    with Image.open(path, formats=FORMATS) as opened:
        image: Image.Image = opened
        if reason := _unfit(image):
            raise ValueError(reason)
        turn = _turn(image)
        height, width = target.size or (0, 0)
        height, width = (width, height) if turn >= 5 else (height, width)
        # JPEG is cheaper to decode at a half, a quarter or an eighth of its size. Twice the target
        # size is enough for the filter below.
        drafted = image.draft(mode, (2 * width, 2 * height) if target.size else None)
        w, h = drafted[1][2:] if drafted else image.size
        if image.mode.startswith("I") or (
            image.format != "BMP" and ";16" in str([tile[3] for tile in getattr(image, "tile", [])])
        ):
            remarks.append(WIDE)
        image.load()
        if image.mode.startswith("I"):
            levels = np.clip(np.asarray(image, np.int32), 0, 65535)
            image = Image.fromarray(((levels + 128) // 257).astype(np.uint8))
        elif image.has_transparency_data:
            image = image.convert("RGBA")
            if image.getchannel("A").getextrema() != (255, 255):
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
                remarks.append(CLEAR)
        image = image.convert(mode)
        if target.size:
            across, down = (
                (min(w, h * width / height), min(h, w * height / width)) if target.crop else (w, h)
            )
            left, top = (w - across) / 2, (h - down) / 2
            box = (left, top, min(w, left + across), min(h, top + down))
            image = image.resize(
                (width, height), Image.Resampling.LANCZOS, box=box, reducing_gap=3.0
            )
        return np.asarray(image.transpose(UPRIGHT[turn]) if turn in UPRIGHT else image), remarks


def _turn(image: Image.Image) -> int:
    """Return EXIF's orientation, 1 to 8. `image.info` is checked first, because Pillow turns TIFF
    itself and would decode a whole PNG to find late EXIF data."""
    if "exif" not in image.info:
        return 1
    try:
        turn = image.getexif().get(0x0112, 1)
    except Exception:
        return 1
    return turn if turn in UPRIGHT else 1
