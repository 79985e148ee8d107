"""Decode one image file: its header, its pages, and their conversion to the form of a folder.

Images of 8 bits are converted by Pillow. Images of other depths keep their values: they are arrays
from `deep_images`, which are converted without loss of depth.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TypeAlias, final

import numpy as np
from PIL import Image

from vaestro.data import deep_images
from vaestro.data.deep_images import Form, Header, Picture, Target
from vaestro.data.raw import Options
from vaestro.text import InputError

# Pillow's decoders that are tried, independently of the suffix of the file
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000", "TGA")
HEIF = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")  # brands of its files


SPELLINGS = {"centre": "center", "gray": "grey", "color": "colour"}
CHANNELS = ("grey", "colour", "rgba")
PAGES = ("first", "all", "channels")


GREY = ("1", "L", "LA", "I", "I;16", "I;16L", "I;16B", "I;16N", "F")


# a quarter of a gibibyte in colour; Pillow warns of decompression bombs above the same limit
PIXELS = 89_478_485


SIDES = (4, 8192)


HUGE = f"have more than {PIXELS // 10**6} million pixels"


TINY = f"are smaller than {SIDES[0]}x{SIDES[0]}"


WIDE = "of 16 bits scaled to 8 bits (65535 becomes 255)"


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

# the path of an image, its content, or the paths of its bands
File: TypeAlias = "Path | IO[bytes] | tuple[Path, ...]"


def target_of(options: Options) -> Target:
    """Return what all images are converted to, from the options of a source.

    Raises:
        ValueError: an option has a wrong value.

    >>> target_of({"size": "48x64", "channels": "grey"}).size
    (48, 64)
    """
    size, crop, channels, pages, depth = (
        SPELLINGS.get(v, v) if isinstance(v, str) else v
        for v in map(options.get, ("size", "crop", "channels", "pages", "depth"))
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
    for name, value, words in (("channels", channels, CHANNELS), ("pages", pages, PAGES)):
        if value not in (None, *words):
            *most, last = words
            raise ValueError(f"expected {name} to be {', '.join(most)} or {last}; got {value!r}")
    if depth not in (None, 8, 16):
        raise ValueError(f"expected depth to be 8 or 16 (bits); got {depth!r}")
    volume = options.get("volume", False) is True
    if volume and pages:
        raise InputError(
            f"volume=true reads the pages of a file as slices: leave out pages={pages}"
        )
    return Target(size, crop != "none", channels, depth, pages, volume)


# -- files -----------------------------------------------------------------------------------------


def read_header(path: File, target: Target) -> Header:
    """Read the header of an image.

    Args:
        path: of the image, or its content.
        target: to which the image is converted.

    Returns:
        the header. Its `reason` says why the image cannot be used, or is "".
    """
    picture = _open(path)
    try:
        header = picture.header(target)
        return header._replace(reason=_unfit(header))
    finally:
        picture.close()


def _unfit(header: Header) -> str:
    """Return the reason why an image cannot be used; "" if it can."""
    if header.reason:
        return header.reason
    height, width = header.sides
    if height * width * (header.pages if header.stack else 1) > PIXELS:
        return HUGE
    return TINY if min(height, width) < SIDES[0] else ""


def decode_image(path: File, target: Target, form: Form) -> tuple[np.ndarray, list[str]]:
    """Decode the pages of a file.

    Args:
        path: of the image, or its content.
        target: to which the image is converted.
        form: of all images of the source.

    Returns:
        an array (rows, *form.shape), with more than one row if pages=all, and remarks on what was
        done.

    Raises:
        ValueError: the image cannot be used, by its header.
        Exception: of any type, if it is damaged.
    """
    picture = _open(path)
    try:
        header = picture.header(target)
        if reason := _unfit(header):
            raise ValueError(reason)
        remarks: list[str] = []
        pages = list(picture.pages(header, target, form, remarks))
    finally:
        picture.close()
    if header.stack == "rows":
        return np.stack(pages), remarks
    if header.stack == "slices":
        return np.stack(pages)[None], remarks
    return pages[0][None], remarks


def _open(path: File) -> Picture:
    """Open a file by its content.

    Raises:
        Exception: of any type, if it is damaged or of another format.
    """
    if isinstance(path, tuple):
        return deep_images.Bands([_open(band) for band in path])
    head = deep_images.head(path)
    if head[4:8] == b"ftyp" and head[8:12] in HEIF:
        return _Pillow(_heif(path), path)
    try:
        image = Image.open(path, formats=FORMATS)
    except Image.UnidentifiedImageError:
        if head[:4] not in deep_images.TIFF:
            raise
        return deep_images.tiff(path)
    if image.format == "TIFF" and not _whole(image):
        image.close()
        return deep_images.tiff(path)
    return _Pillow(image, path)


def _heif(path: deep_images.File) -> Image.Image:
    """Return a HEIC image.

    Raises:
        Unusable: pillow-heif is not installed.
    """
    try:
        from pillow_heif import open_heif
    except ImportError as error:
        raise deep_images.needs("pillow-heif") from error
    image: Image.Image = open_heif(path).to_pillow()
    image.info.pop("exif", None)  # its container has turned the image already
    return image


def _whole(image: Image.Image) -> bool:
    """Return whether Pillow reads all bands and the full depth of a TIFF."""
    samples = getattr(image, "tag_v2", {}).get(277, 1)
    return bool(
        samples == 1 or (samples == len(image.getbands()) and ";16" not in _raw_mode(image))
    )


def _raw_mode(image: Image.Image) -> str:
    """Return how Pillow unpacks the values of an image that is not loaded yet."""
    return str([tile[3] for tile in getattr(image, "tile", [])])


@final
class _Pillow(Picture):
    """Read an image that Pillow has opened."""

    def __init__(self, image: Image.Image, path: deep_images.File) -> None:
        self.image, self.path = image, path

    def close(self) -> None:
        self.image.close()

    def header(self, target: Target) -> Header:
        image = self.image
        width, height = image.size
        sides = (width, height) if _turn(image) >= 5 else (height, width)
        grey, frames = image.mode in GREY, int(getattr(image, "n_frames", 1))
        header = Header(
            sides,
            1 if grey else 3,
            self._dtype(),
            frames,
            alpha=image.has_transparency_data,
            reason="",
        )
        return deep_images.stacked(header, target, self._description())

    def _description(self) -> str:
        """Return the description of a TIFF, in which programs note what its pages are."""
        image = self.image
        return str(getattr(image, "tag_v2", {}).get(270, ""))

    def _dtype(self) -> str:
        """Return the dtype of the values of the file."""
        image, raw = self.image, _raw_mode(self.image)
        if image.mode == "F":
            return "float32"
        if image.mode == "I" and image.format == "TIFF":
            return "int16" if "16S" in raw else "int32"
        deep = ";16" in raw and image.format in ("PNG", "TIFF") and "LA;16" not in raw
        return "uint16" if deep or image.mode.startswith("I") else "uint8"

    def pages(
        self, header: Header, target: Target, form: Form, remarks: list[str]
    ) -> Iterator[np.ndarray]:
        if header.stack in ("planes", "lines"):
            planes = []
            for k in range(header.pages):
                self.image.seek(k)
                planes.append(np.asarray(self.image))
            values = np.stack(planes, -1 if header.stack == "planes" else 0)
            yield deep_images.fitted(values, header, target, form, remarks)
            return
        for k in range(header.pages if header.stack else 1):
            if k:
                self.image.seek(k)
            plain = form.dtype == "uint8" and form.bands in (0, 3, 4)
            yield (self._converted if plain else self._kept)(header, target, form, remarks)

    def _converted(
        self, header: Header, target: Target, form: Form, remarks: list[str]
    ) -> np.ndarray:
        """Return the present page as 8 bits, in grey, colour, or colour and alpha."""
        image, mode = self.image, {0: "L", 3: "RGB", 4: "RGBA"}[form.bands]
        turn = _turn(image)
        height, width = target.size or (0, 0)
        height, width = (width, height) if turn >= 5 else (height, width)
        # JPEG is cheaper to decode at a half, a quarter or an eighth of its size. Twice the target
        # size is enough for the filter below.
        drafted = image.draft(mode, (2 * width, 2 * height) if target.size else None)
        w, h = drafted[1][2:] if drafted else image.size
        if header.dtype != "uint8" or "LA;16" in _raw_mode(image):
            remarks.append(WIDE)
        image.load()
        if image.mode.startswith("I"):
            levels = np.clip(np.asarray(image, np.int32), 0, 65535)
            image = Image.fromarray(((levels + 128) // 257).astype(np.uint8))
        elif image.has_transparency_data:
            image = image.convert("RGBA")
            if mode == "RGBA":
                image = _blank(image)
            elif image.getchannel("A").getextrema() != (255, 255):
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
                remarks.append(deep_images.CLEAR)
        image = image.convert(mode)
        if target.size:
            box = deep_images.box_of((h, w), (height, width), target.crop)
            image = image.resize(
                (width, height), Image.Resampling.LANCZOS, box=box, reducing_gap=3.0
            )
        return np.asarray(image.transpose(UPRIGHT[turn]) if turn in UPRIGHT else image)

    def _kept(self, header: Header, target: Target, form: Form, remarks: list[str]) -> np.ndarray:
        """Return the present page with the values of the file."""
        image, turn, raw = self.image, _turn(self.image), _raw_mode(self.image)
        if header.dtype == "uint16" and image.mode in ("RGB", "RGBA"):
            values = self._of_16_bits()
        elif header.dtype == "uint8":
            mode = ("LA" if header.alpha else "L") if header.bands == 1 else "RGB"
            values = np.asarray(image.convert("RGBA" if mode == "RGB" and header.alpha else mode))
        else:
            values = np.asarray(image)
            most = re.search(r", (\d+)\)", raw) if image.format == "PPM" else None
            if most and int(most[1]) < 65535:  # Pillow has scaled the values to 16 bits
                values = (values.astype(np.int64) * int(most[1]) + 32767) // 65535
            values = values.astype(header.dtype)
        values = deep_images.upright(values, turn)
        return deep_images.fitted(values, header, target, form, remarks)

    def _of_16_bits(self) -> np.ndarray:
        """Return a PNG with 16 bits per colour, (H, W, 3 or 4).

        Pillow unpacks the high bytes alone. If it takes the bytes in the other order, it unpacks
        the low bytes.
        """
        high = np.asarray(self.image).astype(np.uint16)
        if not isinstance(self.path, Path):
            self.path.seek(0)
        with Image.open(self.path, formats=FORMATS) as second:
            second.tile = [
                tile._replace(args=str(tile.args).replace("16B", "16L")) for tile in second.tile
            ]
            return high * 256 + np.asarray(second)


def _blank(image: Image.Image) -> Image.Image:
    """Return an image whose fully transparent pixels are black, because their colour is unseen."""
    values = np.array(image)
    values[values[..., 3] == 0] = 0
    return Image.fromarray(values)


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
