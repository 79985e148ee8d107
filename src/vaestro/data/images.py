"""Read a folder of images into one memory-mapped array of bytes.

The headers are read first: they show whether the images fit together before any image is decoded.
Each image is then decoded directly into its row of an array in the cache, so the use of memory does
not depend on the number of images.
"""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple, Protocol, final

import numpy as np
from PIL import Image

from vaestro.data import cache
from vaestro.data.raw import Json, Options, Raw
from vaestro.text import InputError

KIND = "images-3"
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
# Pillow's decoders that are tried, whatever the suffix of the file
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
SPLITS = {"train": "train", "valid": "valid", "val": "valid", "validation": "valid", "test": "test"}
SPELLINGS = {"centre": "center", "gray": "grey", "color": "colour"}
GREY = ("1", "L", "LA", "I", "I;16", "I;16L", "I;16B", "I;16N")
# a quarter of a gibibyte in colour; Pillow warns of decompression bombs above the same limit
PIXELS = 89_478_485
SIDES = (4, 8192)
LARGEST = 256  # largest side without size=; the networks are designed for at most this

DAMAGED = "are damaged or unreadable"
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

Progress = Callable[[str, int, int], None]


class Target(NamedTuple):
    """Describe the images that all images are converted to."""

    size: tuple[int, int] | None  # (height, width); None: unchanged
    crop: bool  # whether images of another aspect ratio are cropped, rather than stretched
    channels: str | None  # grey or colour; None: colour if any image is


@final
@dataclass(frozen=True)
class Folder:
    """Locate images by name, in a folder.

    Args:
        folder: that contains them.

    >>> str(Folder(Path("photos")))
    'photos'
    """

    folder: Path

    def __str__(self) -> str:
        return str(self.folder)

    def open(self, name: str) -> Path | IO[bytes]:
        """Return the path or the content of an image, which Pillow opens."""
        return self.folder / name


class ImageSource(Protocol):
    """Locate images by name. The text form is the source, for messages."""

    def open(self, name: str) -> Path | IO[bytes]:
        """Return the path or the content of an image, which Pillow opens."""


def read_images(
    folder: Path, options: Options, progress: Progress | None = None
) -> Raw[np.ndarray]:
    """Read a folder of images: uint8 arrays (N, H, W) if all are grey, otherwise (N, H, W, 3).

    Subfolders train and valid or test are splits. Subfolders of these, or of the folder, give the
    attribute `class`. The attribute `file` is the path of each image in the folder. Decoded images
    are stored in the cache.

    Args:
        folder: that contains the images, at any depth.
        options: `size`, 64 or 48x64 (height x width); `crop`, center or none; `channels`, grey or
            colour; `strict`, to refuse a folder with unusable files, which are skipped otherwise.
            Other options are ignored.
        progress: called with (what, done, total).

    Raises:
        ValueError: there are no images; they differ in size or have a side above 256, and `size` is
            not given; or an option has another value.
        OSError: the folder cannot be read, or the cache cannot be written.
    """
    target, strict = target_of(options), options.get("strict", False)
    if not isinstance(strict, bool):
        raise ValueError(f"expected strict to be true or false; got {strict!r}")
    if not folder.is_dir():
        raise ValueError(f"expected a folder of images; got {folder}")
    files, others = _listed(folder)
    splits = _splits(files, folder)
    count = sum(map(len, splits.values()))
    if not count:
        among = f" among {others:,} {'file' if others == 1 else 'files'}" if others else ""
        raise ValueError(f"expected images in {folder}; got none{among}")
    key = cache.key(
        KIND,
        (os.path.join(folder, name) for s in splits.values() for name in s),
        target._asdict(),
        folder,
    )
    place, meta = cache.entry(
        key, lambda part: make(part, Folder(folder), splits, target, progress), folder.resolve()
    )
    if strict:
        check_none_skipped(meta)
    arrays = {
        name: cache.open_array(place / f"{name}.npy") for name in ("images", *meta["attributes"])
    }
    notes = [*meta["notes"]]
    if count < len(files):
        notes.append(f"{len(files) - count:,} images outside {', '.join(splits)} left out")
    if others > max(10, count // 10):
        notes.append(f"{others:,} files that are not images left out")
    return Raw(
        {s: arrays["images"][a:b] for s, (a, b) in meta["splits"].items()},
        {
            s: {name: arrays[name][a:b] for name in meta["attributes"]}
            for s, (a, b) in meta["splits"].items()
        },
        tuple(notes),
    )


def check_none_skipped(meta: Json) -> None:
    """Raise InputError if some images were skipped.

    Args:
        meta: as `make` returns it.

    Raises:
        InputError: images were skipped.

    >>> check_none_skipped({"skipped": []})
    """
    if meta["skipped"]:
        files = "; ".join(meta["skipped"]).replace(" skipped, which ", " ")
        raise InputError(f"strict=true allows no unusable images, but {files}")


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


# -- which files -----------------------------------------------------------------------------------


def _listed(folder: Path) -> tuple[list[str], int]:
    """Return the paths of the images in a folder in order, and the number of other files."""
    found: list[str] = []
    others = 0

    def visit(path: str, prefix: str, above: tuple[str, ...]) -> None:
        nonlocal others
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    real = os.path.realpath(entry.path)
                    if real not in above:  # otherwise a link to a parent folder
                        visit(entry.path, f"{prefix}{entry.name}/", (*above, real))
                elif os.path.splitext(entry.name)[1].lower() in SUFFIXES and entry.is_file():
                    found.append(prefix + entry.name)
                else:
                    others += 1

    visit(str(folder), "", (os.path.realpath(folder),))
    return sorted(found), others


def _splits(files: Sequence[str], folder: Path) -> dict[str, list[str]]:
    """Return the files by split, or all of them as "all"."""
    tops = sorted(
        {
            top
            for top, slash, _ in (f.partition("/") for f in files)
            if slash and top.lower() in SPLITS
        }
    )
    named = {top: SPLITS[top.lower()] for top in tops}
    if "train" not in named.values() or len(set(named.values())) < 2:
        return {"all": list(files)}
    if len(set(named.values())) < len(named):
        raise ValueError(f"expected one folder for each split in {folder}; got {', '.join(tops)}")
    present = [s for s in ("train", "valid", "test") if s in named.values()]
    return {s: [f for f in files if named.get(f.partition("/")[0]) == s] for s in present}


def _classes(files: Sequence[str], depth: int) -> np.ndarray | None:
    """Return the name of each file's folder at a depth, (N,); None unless every file has one and
    they differ."""
    paths = [f.split("/") for f in files]
    if any(len(p) < depth + 2 for p in paths) or len({p[depth] for p in paths}) < 2:
        return None
    return np.array([p[depth] for p in paths])


# -- decoding into the cache -----------------------------------------------------------------------


@final
class _Decoding:
    """Read the headers of images, and decode those that can be used.

    Args:
        source: of the images.
        names: of all images.
        progress: called with (what, done, total).
    """

    def __init__(
        self, source: ImageSource, names: Sequence[str], progress: Progress | None
    ) -> None:
        self.source, self.names, self.progress = source, names, progress
        self.sides = np.zeros((len(names), 2), np.int64)  # height and width
        self.grey = np.zeros(len(names), bool)
        self.unusable: dict[int, str] = {}  # {number of an image: the reason}
        self.remarks: list[str] = []  # what was done to an image

    def headers(self) -> np.ndarray:
        """Read all headers, and return the numbers of the images that can be used, (N,)."""

        def measure(i: int) -> None:
            try:
                self.sides[i], self.grey[i], reason = measured(self.source.open(self.names[i]))
            except Image.DecompressionBombError:
                reason = HUGE
            except MemoryError:
                raise
            except Exception:  # decoders of damaged files raise many types
                reason = DAMAGED
            if reason:
                self.unusable[i] = reason

        _each(measure, len(self.names), "reading headers", self.progress)
        return self._usable(np.arange(len(self.names)))

    def decode(
        self, rows: np.ndarray, array: np.memmap, target: Target, colour: bool
    ) -> np.ndarray:
        """Decode images into the first rows of an array, and return their numbers.

        Args:
            rows: numbers of the images, in rising order, (N,).
            array: (N, ...), with room for all of them.
            target: to which they are converted.
            colour: whether the array has colours.
        """

        def decode(row: int) -> None:
            try:
                image = self.source.open(self.names[rows[row]])
                array[row], remarks = decoded(image, target, colour)
                self.remarks.extend(remarks)
            except MemoryError:
                raise
            except Exception:
                self.unusable[int(rows[row])] = DAMAGED

        _each(decode, len(rows), "decoding", self.progress)
        kept = self._usable(rows)
        if len(kept) < len(rows):  # close the gaps
            for to, row in enumerate(np.flatnonzero(np.isin(rows, kept)).tolist()):
                if to != row:
                    array[to] = array[row]
        return kept

    def _usable(self, rows: np.ndarray) -> np.ndarray:
        """Return those images that can be used, by number; raise ValueError if there are none."""
        rows = rows[[i not in self.unusable for i in rows.tolist()]]
        if not len(rows):
            reasons = "; ".join(
                f"{len(names):,} {reason} ({_few(names)})"
                for reason, names in _reasons(self.unusable, self.names).items()
            )
            raise InputError(
                f"none of the {len(self.names):,} image files in {self.source} can be used: "
                f"{reasons}"
            )
        return rows


def make(
    part: Path,
    source: ImageSource,
    splits: Mapping[str, Sequence[str]],
    target: Target,
    progress: Progress | None,
) -> Json:
    """Decode images into a folder of the cache: images.npy, file.npy, and class.npy if there are
    classes.

    Args:
        part: the folder, which is written to.
        source: of the images.
        splits: names of the images of each split.
        target: to which images are converted.
        progress: called with (what, done, total).

    Returns:
        for JSON, (first row, last row + 1) of each split, the names of the attributes, the notes,
        and those notes that name skipped files.

    Raises:
        ValueError: the images differ in size, or none can be used.
    """
    names = [name for split in splits.values() for name in split]
    decoding = _Decoding(source, names, progress)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        Image.init()
        rows = decoding.headers()
        grey = decoding.grey
        size = target.size or one_size(decoding.sides[rows], str(source))
        colour = target.channels == "colour" or (target.channels is None and not grey[rows].all())
        shape = (len(rows), *size, *([3] if colour else []))
        array = cache.create_array(part / "images.npy", np.uint8, shape)
        kept = decoding.decode(rows, array, target, colour)
    used = [names[i] for i in kept.tolist()]
    attributes = {"file": np.array(used)}
    if (classes := _classes(used, 0 if "all" in splits else 1)) is not None:
        attributes["class"] = classes
    for name, values in attributes.items():
        np.save(part / f"{name}.npy", values)
    ends = np.searchsorted(kept, np.cumsum([len(split) for split in splits.values()])).tolist()
    ranges = {s: (a, b) for s, a, b in zip(splits, [0, *ends[:-1]], ends, strict=True) if b > a}
    if next(iter(splits)) not in ranges:
        raise InputError(f"none of the training images in {source} can be used")
    skipped = _skipped(decoding.unusable, names)
    notes = [*skipped, *_notes(decoding.sides[kept], grey[kept], target, colour)]
    notes += [f"{k:,} images {what}" for what, k in sorted(Counter(decoding.remarks).items())]
    return {"splits": ranges, "attributes": list(attributes), "notes": notes, "skipped": skipped}


def processors() -> int:
    """Return the number of processors that this process can use.

    >>> processors() > 0
    True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _each(work: Callable[[int], None], count: int, what: str, progress: Progress | None) -> None:
    """Call work(i) for each i < count, with one thread per processor. Pillow releases Python's lock
    while it decodes and scales."""
    workers = processors()
    chunk = max(1, min(64, count // (8 * workers)))

    def some(start: int) -> int:
        for i in range(start, min(start + chunk, count)):
            work(i)
        return min(start + chunk, count) - start

    with ThreadPoolExecutor(workers) as pool:
        done, reported = 0, 0
        try:
            for more in pool.map(some, range(0, count, chunk)):
                done += more
                if progress and (done - reported >= count / 100 or done == count):
                    progress(what, done, count)
                    reported = done
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def measured(path: Path | IO[bytes]) -> tuple[tuple[int, int], bool, str]:
    """Read the header of an image.

    Args:
        path: of the image, or its content.

    Returns:
        (height, width) after it is turned upright; whether it is grey; and the reason why it cannot
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


def decoded(path: Path | IO[bytes], target: Target, colour: bool) -> tuple[np.ndarray, list[str]]:
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


# -- messages and notes ----------------------------------------------------------------------------


def one_size(sides: np.ndarray, source: str) -> tuple[int, int]:
    """Return the (height, width) of all images.

    Args:
        sides: (height, width) of each image, (N, 2).
        source: of the images, for messages.

    Raises:
        ValueError: the images differ in size, or are too large.

    >>> one_size(np.array([[28, 20], [28, 20]]), "photos")
    (28, 20)
    """
    sizes = Counter(map(tuple, sides.tolist())).most_common()
    if len(sizes) > 1:
        text = ", ".join(f"{h}x{w} ({k:,})" for (h, w), k in sizes[:3]) + (
            f" and {len(sizes) - 3:,} more" if len(sizes) > 3 else ""
        )
        fits = min(64, 1 << (int(sides.min()).bit_length() - 1))
        raise ValueError(
            f"expected images of one size; got height x width {text}: scale them with "
            f"{source}:size={fits}"
        )
    (height, width), count = sizes[0]
    if max(height, width) > LARGEST:
        scaled = f"scale them with {source}:size=64,crop=center"
        raise ValueError(too_large(height, width, source, count, scaled))
    return height, width


def too_large(height: int, width: int, source: str, count: int, remedy: str) -> str:
    """Return a message about images that are larger than the networks are designed for.

    Args:
        height, width: of the images.
        source: of the images.
        count: of the images.
        remedy: how to scale them.

    >>> too_large(512, 512, "x.npy", 100, "scale them")
    'expected images with sides of at most 256; got height x width 512x512 (100): scale them, or
    keep their size with x.npy:size=512x512'
    """
    return (
        f"expected images with sides of at most {LARGEST}; got height x width {height}x{width} "
        f"({count:,}): {remedy}, or keep their size with {source}:size={height}x{width}"
    )


def _notes(sides: np.ndarray, grey: np.ndarray, target: Target, colour: bool) -> list[str]:
    """Return notes on what was done to images.

    Args:
        sides: (height, width) of each image, (N, 2).
        grey: whether each image is grey, (N,).
        target: to which they were converted.
        colour: whether they were read as colour.
    """
    notes = []
    if target.size:
        height, width = target.size
        shaped = int((sides[:, 0] * width != sides[:, 1] * height).sum())
        done = "cropped at the centre and scaled" if target.crop else "stretched"
        if shaped:
            notes.append(
                f"{shaped:,} images {done} to {height}x{width}"
                + (" (crop=none stretches them)" if target.crop else "")
            )
        scaled = int((sides != target.size).any(1).sum()) - shaped
        if scaled:
            notes.append(f"{scaled:,} images scaled to {height}x{width}")
        enlarged = int((sides < target.size).any(1).sum())
        if enlarged:
            notes.append(f"{enlarged:,} images are smaller than {height}x{width} and were enlarged")
    other = int(grey.sum() if colour else (~grey).sum())
    if other:
        read = (
            "grey and are read as colour" if colour else "not stored as grey and are read as grey"
        )
        notes.append(f"{other:,} of {len(grey):,} images are {read}")
    return notes


def _reasons(unusable: Mapping[int, str], names: Sequence[str]) -> dict[str, list[str]]:
    """Return the names of unusable images by reason."""
    files: dict[str, list[str]] = {}
    for i, reason in sorted(unusable.items()):
        files.setdefault(reason, []).append(names[i])
    return files


def _skipped(unusable: Mapping[int, str], names: Sequence[str]) -> list[str]:
    """Return a note for each reason why images are skipped."""
    return [
        f"{len(files):,} of {len(names):,} files skipped, which {reason}: {_few(files)}"
        for reason, files in _reasons(unusable, names).items()
    ]


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return shown.encode("utf-8", "replace").decode()
