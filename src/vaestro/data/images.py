"""Read a folder of images into one memory-mapped array of bytes.

The headers are read first: they show whether the images fit together before any image is decoded.
Each image is then decoded directly into its row of an array in the cache, so the use of memory does
not depend on the number of images.
"""

from __future__ import annotations

import math
import os
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol, final

import numpy as np
from PIL import Image

from vaestro.data import cache
from vaestro.data.image_decoding import HUGE, Target, decode_image, read_header, target_of
from vaestro.data.raw import Json, Options, Raw
from vaestro.text import InputError

KIND = "images-3"
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
SPLITS = {"train": "train", "valid": "valid", "val": "valid", "validation": "valid", "test": "test"}
LARGEST = 256  # largest side without size=; the networks are designed for at most this

DAMAGED = "are damaged or unreadable"


Progress = Callable[[str, int, int], None]


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


# -- which files -----------------------------------------------------------------------------------


def _listed(folder: Path) -> tuple[list[str], int]:
    """Return the paths of the images in a folder in order, and the number of other files."""
    files: list[str] = []
    others = 0

    def visit(path: str, prefix: str, above: tuple[str, ...]) -> None:
        nonlocal others
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    real = os.path.realpath(entry.path)
                    if real not in above:  # skip a link to a parent folder
                        visit(entry.path, f"{prefix}{entry.name}/", (*above, real))
                elif os.path.splitext(entry.name)[1].lower() in SUFFIXES and entry.is_file():
                    files.append(prefix + entry.name)
                else:
                    others += 1

    visit(str(folder), "", (os.path.realpath(folder),))
    return sorted(files), others


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
        self.unusable: dict[int, str] = {}  # {number of an unusable image: the reason}
        self.remarks: list[str] = []  # changes made to an image

    def headers(self) -> np.ndarray:
        """Read all headers, and return the numbers of the images that can be used, (N,)."""

        def measure(i: int) -> None:
            try:
                self.sides[i], self.grey[i], reason = read_header(self.source.open(self.names[i]))
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
                array[row], remarks = decode_image(image, target, colour)
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
        middle = np.argsort(sides[:, 0] / sides[:, 1])[(len(sides) - 1) // 2]
        height, width = sides[middle].tolist()
        raise ValueError(
            f"expected images of one size; got height x width {text}: scale them with "
            f"{source}:size={_scaled(height, width, fits)}"
        )
    (height, width), count = sizes[0]
    if max(height, width) > LARGEST:
        ratio = max(height, width) / min(height, width)
        longest = min(64 * max(1.0, math.sqrt(ratio / 2)), LARGEST)
        scaled = f"scale them with {source}:size={_scaled(height, width, longest)}"
        raise ValueError(too_large(height, width, source, count, scaled))
    return height, width


def _scaled(height: int, width: int, longest: float) -> str:
    """Return the value of `size` for an aspect ratio and the longer side: 48x64, or 64 for a
    square."""
    sides = [max(1, round(side * longest / max(height, width))) for side in (height, width)]
    return str(sides[0]) if sides[0] == sides[1] else "x".join(map(str, sides))


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
