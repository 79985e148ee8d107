"""Images with other values than 8 bits: 16 bits, floats and several bands. They keep their values.

What a folder of images is converted to is a `Form`: one dtype, one number of bands, one size. Files
are converted to it as arrays (H, W, bands). Resizing filters each band separately, as floats.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, NamedTuple, TypeAlias, final

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

File: TypeAlias = "Path | IO[bytes]"
# What the pages of a file are: rows of the data, slices of a volume, bands on the last axis, or
# lines of an image whose bands are its columns. "" reads the first page only.
Stack: TypeAlias = Literal["", "rows", "slices", "planes", "lines"]

TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the first bytes of its files
MANY_BANDS = 16  # more pages than this are not taken for bands
LUMA = np.array([0.299, 0.587, 0.114])  # of grey from red, green and blue, as in Pillow
COMPRESSED = "are compressed in a way that needs imagecodecs (pip install imagecodecs)"
CLEAR = "with transparency put on white (channels=rgba keeps it)"


class Target(NamedTuple):
    """Describe what a user asks all images to be converted to; None: unchanged."""

    size: tuple[int, int] | None = None  # (height, width)
    crop: bool = True  # whether images of another aspect ratio are cropped, rather than stretched
    channels: str | None = None  # grey, colour or rgba; None: colour if any image is
    depth: int | None = None  # 8 or 16 bits
    pages: str | None = None  # first, all or channels; None: as the file's description says
    volume: bool = False  # whether pages are slices of a volume


class Header(NamedTuple):
    """Describe an image file."""

    sides: tuple[int, int]  # (height, width) in upright orientation
    bands: int  # 1 is grey, 3 is colour; without alpha
    dtype: str
    pages: int = 1
    alpha: bool = False  # whether there may be transparency
    reason: str = ""  # why the image cannot be used
    stack: Stack = ""


class Form(NamedTuple):
    """Describe the images that all images of a source are converted to."""

    dtype: str
    bands: int  # 0: no axis of bands
    size: tuple[int, int]  # (height, width)
    slices: int = 0  # 0: no volumes

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of one datum."""
        slices = (self.slices,) if self.slices else ()
        return (*slices, *self.size, *((self.bands,) if self.bands else ()))


class Picture(ABC):
    """Read an opened image file."""

    @abstractmethod
    def close(self) -> None:
        """Close the file."""

    @abstractmethod
    def header(self, target: Target) -> Header:
        """Return the header; the pages are arranged as `target` says."""

    @abstractmethod
    def pages(
        self, header: Header, target: Target, form: Form, remarks: list[str]
    ) -> Iterator[np.ndarray]:
        """Yield the pages that are read, each of the form's size, bands and dtype.

        Args:
            header: of the file.
            target, form: to which the pages are converted.
            remarks: receives what was done.
        """


@final
class Unusable(Exception):
    """Report why a file cannot be used, as "need tifffile"; the files are the subject."""


def needs(library: str) -> Unusable:
    """Return an error about a library that is not installed.

    >>> str(needs("pillow-heif"))
    "need pillow-heif (pip install 'vaestro[images]')"
    """
    return Unusable(f"need {library} (pip install 'vaestro[images]')")


def head(path: File) -> bytes:
    """Return the first bytes of a file.

    >>> import io
    >>> head(io.BytesIO(b"II*" + bytes(40)))[:3]
    b'II*'
    """
    if isinstance(path, Path):
        with path.open("rb") as file:
            return file.read(16)
    first = path.read(16)
    path.seek(0)
    return first


def stacked(header: Header, target: Target, description: str) -> Header:
    """Return the header of a file with several pages, which are arranged as the user or the
    description of the file says.

    Args:
        header: with the number of pages.
        target: what the user asks for.
        description: tag 270 of a TIFF, as tifffile and ImageJ write it.

    >>> page = Header((32, 32), 1, "float32", pages=5)
    >>> stacked(page, Target(), '{"shape": [5, 32, 32]}').bands
    5
    """
    if target.volume:
        return header._replace(stack="slices")
    if header.pages == 1 or target.pages == "first":
        return header
    if target.pages == "all":
        return header._replace(stack="rows")
    if target.pages == "channels":
        if header.bands > 1:
            return header._replace(reason="have pages with colours (pages=channels needs grey)")
        return header._replace(stack="planes", bands=header.pages, alpha=False)
    height, width = header.sides
    if header.bands == 1 and _shape(description) == (header.pages, height, width):
        if header.pages <= MANY_BANDS and header.pages < min(height, width):
            return header._replace(stack="planes", bands=header.pages)
        if width <= MANY_BANDS and width < min(header.pages, height):
            return header._replace(stack="lines", sides=(header.pages, height), bands=width)
    if re.search(rf"^channels={header.pages}$", description, re.MULTILINE):  # ImageJ
        return header._replace(stack="planes", bands=header.pages)
    return header


def _shape(description: str) -> tuple[int, ...]:
    """Return the shape of the array that tifffile wrote; () if it wrote none."""
    try:
        return tuple(json.loads(description)["shape"])
    except (ValueError, TypeError, KeyError):
        return ()


# -- TIFF ------------------------------------------------------------------------------------------


def tiff(path: File) -> Picture:
    """Open a TIFF that Pillow does not read.

    Raises:
        Unusable: tifffile is not installed.
        Exception: of any type, if the file is damaged.
    """
    try:
        from tifffile import TiffFile
    except ImportError as error:
        raise needs("tifffile") from error
    return _Tiff(TiffFile(path))


@final
class _Tiff(Picture):
    """Read a TIFF by tifffile."""

    def __init__(self, file: TiffFile) -> None:
        self.file = file

    def close(self) -> None:
        self.file.close()

    def header(self, target: Target) -> Header:
        first, pages = self.file.pages.first, len(self.file.pages)
        axes = dict(zip(first.axes, first.shape, strict=True))
        bands = axes.get("S", 1)
        alpha = bool(first.extrasamples) and int(first.extrasamples[-1]) in (1, 2)
        reason = "" if _readable(first) else COMPRESSED
        header = Header(
            (axes["Y"], axes["X"]), bands - alpha, str(first.dtype), pages, alpha, reason
        )
        return stacked(header, target, first.description)

    def pages(
        self, header: Header, target: Target, form: Form, remarks: list[str]
    ) -> Iterator[np.ndarray]:
        if header.stack in ("planes", "lines"):
            planes = [self._page(k) for k in range(header.pages)]
            values = np.stack(planes, -1 if header.stack == "planes" else 0)
            yield fitted(values, header, target, form, remarks)
            return
        for k in range(header.pages if header.stack else 1):
            yield fitted(self._page(k), header, target, form, remarks)

    def _page(self, k: int) -> np.ndarray:
        """Return a page, (H, W) or (H, W, bands)."""
        page = self.file.pages[k]
        values = np.asarray(page.asarray())
        return np.moveaxis(values, 0, -1) if page.axes[0] == "S" else values


def _readable(page: TiffPage) -> bool:
    """Return whether tifffile decompresses a page with what is installed."""
    try:
        return callable(page.decode)
    except ValueError:
        return False


# -- one file for each band ------------------------------------------------------------------------


@final
class Bands(Picture):
    """Read an image whose bands are files.

    Args:
        files: the opened files, in the order of the bands.
    """

    def __init__(self, files: Sequence[Picture]) -> None:
        self.files = files

    def close(self) -> None:
        for file in self.files:
            file.close()

    def header(self, target: Target) -> Header:
        headers = [file.header(target) for file in self.files]
        dtypes = [np.dtype(h.dtype) for h in headers]
        reasons = [h.reason for h in headers]
        return Header(
            max(h.sides for h in headers),
            len(headers),
            str(np.result_type(*dtypes)),
            reason=next(filter(None, reasons), ""),
        )

    def pages(
        self, header: Header, target: Target, form: Form, remarks: list[str]
    ) -> Iterator[np.ndarray]:
        one, each = form._replace(bands=0), target._replace(size=form.size, channels="grey")
        planes = [
            next(iter(file.pages(file.header(each), each, one, remarks))) for file in self.files
        ]
        yield np.stack(planes, -1)


# -- conversion of arrays --------------------------------------------------------------------------


def box_of(
    sides: tuple[float, float], size: tuple[int, int], crop: bool
) -> tuple[float, float, float, float]:
    """Return the part of an image that is resized: left, top, right and bottom.

    Args:
        sides: (height, width) of the image.
        size: (height, width) after resizing.
        crop: whether the image is cropped at the centre to the aspect ratio of `size`.

    >>> box_of((60.0, 80.0), (32, 32), True)
    (10.0, 0.0, 70.0, 60.0)
    """
    (h, w), (height, width) = sides, size
    across, down = (min(w, h * width / height), min(h, w * height / width)) if crop else (w, h)
    left, top = (w - across) / 2, (h - down) / 2
    return left, top, min(w, left + across), min(h, top + down)


def upright(values: np.ndarray, turn: int) -> np.ndarray:
    """Return an image (H, W) or (H, W, C) in upright orientation; `turn` is EXIF's, 1 to 8.

    >>> upright(np.array([[1, 2], [3, 4]]), 6).tolist()
    [[3, 1], [4, 2]]
    """
    if turn in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if turn in (2, 3, 6, 7):
        values = values[:, ::-1]
    return values[::-1] if turn in (3, 4, 7, 8) else values


def fitted(
    values: np.ndarray, header: Header, target: Target, form: Form, remarks: list[str]
) -> np.ndarray:
    """Convert an image (H, W) or (H, W, S), its last band alpha if the header says so, to a form.

    Args:
        values: of the file.
        header: of the file.
        target: whether images are cropped, and whether alpha is kept.
        form: of the images.
        remarks: receives what was done.

    >>> page, form = Header((4, 4), 1, "uint8"), Form("uint16", 0, (4, 4))
    >>> int(fitted(np.full((4, 4), 255, np.uint8), page, Target(), form, []).max())
    65535
    """
    floating = np.dtype(form.dtype).kind == "f"
    most = 1.0 if floating else float(np.iinfo(header.dtype).max)
    bands = (values if values.ndim == 3 else values[..., None]).astype(np.float64)
    alpha = bands[..., -1:] / most if header.alpha else None
    bands = bands[..., :-1] if header.alpha else bands
    kept = target.channels == "rgba"
    if alpha is not None and not kept and alpha.min() < 1:
        bands = bands * alpha + most * (1 - alpha)
        remarks.append(CLEAR)
    asked = 3 if kept else form.bands or 1
    if asked == 1 and bands.shape[-1] == 3:
        bands = bands @ LUMA[:, None]
    elif asked == 3 and bands.shape[-1] == 1:
        bands = np.repeat(bands, 3, -1)
    if kept:
        alpha = np.ones_like(bands[..., :1]) if alpha is None else alpha
        bands = np.concatenate([bands * alpha, alpha], -1)  # what is unseen has no colour
    if bands.shape[:2] != form.size:
        bands = _resized(bands, form.size, target.crop)
    if kept:
        alpha = bands[..., 3:]
        colours = np.where(alpha > 0, bands[..., :3] / np.maximum(alpha, 1e-9), 0.0)
        bands = np.concatenate([colours, most * alpha], -1)
    if not floating:
        ratio = np.iinfo(form.dtype).max / most
        bands = np.rint(bands if ratio == 1 else bands * ratio)
    return bands.astype(form.dtype).reshape(form.shape[-(2 + (form.bands > 0)) :])


def _resized(bands: np.ndarray, size: tuple[int, int], crop: bool) -> np.ndarray:
    """Return bands (H, W, S) resized to (height, width). The filter is Lanczos's; values that it
    puts outside of the range of their band are clipped to it."""
    box = box_of(bands.shape[:2], size, crop)
    planes = []
    for band in np.moveaxis(bands, -1, 0):
        plane = Image.fromarray(band.astype(np.float32)).resize(
            (size[1], size[0]), Image.Resampling.LANCZOS, box=box
        )
        planes.append(np.clip(np.asarray(plane, np.float64), band.min(), band.max()))
    return np.stack(planes, -1)
