"""Read a folder of images into one memory-mapped array.

The headers are read first: they show whether the images fit together before any image is decoded.
Each image is then decoded directly into its row of an array in the cache, so the use of memory does
not depend on the number of images.
"""

from __future__ import annotations

import math
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, final

import numpy as np
from PIL import Image

from vaestro.data import cache, image_labels, image_notes
from vaestro.data.array_folders import read_arrays
from vaestro.data.deep_images import Form, Header, Target, Unusable
from vaestro.data.image_decoding import HUGE, File, decode_image, read_header, target_of
from vaestro.data.image_files import SUFFIXES, Listing, classes_of, list_folder, splits_of
from vaestro.data.raw import Json, Options, Raw
from vaestro.text import InputError

KIND = "images-4"
LARGEST = 256  # largest side without size=; the networks are designed for at most this
DAMAGED = "are damaged or unreadable"

Progress = Callable[[str, int, int], None]


@final
@dataclass(frozen=True)
class Folder:
    """Locate images by name, in a folder.

    Args:
        folder: that contains them.
        bands: the paths of the bands of an image by its name, if they are files.

    >>> str(Folder(Path("photos")))
    'photos'
    """

    folder: Path
    bands: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __str__(self) -> str:
        return str(self.folder)

    def open(self, name: str) -> File:
        """Return the path or the content of an image."""
        if name in self.bands:
            return tuple(self.folder / band for band in self.bands[name])
        return self.folder / name


class ImageSource(Protocol):
    """Locate images by name. The text form is the source, for messages."""

    def open(self, name: str) -> File:
        """Return the path or the content of an image."""


def is_image(name: str | Path) -> bool:
    """Return whether a path is that of an image file, by its suffix.

    >>> is_image("photo.JPG"), is_image("x.npy")
    (True, False)
    """
    return Path(name).suffix.lower() in SUFFIXES


def read_images(path: Path, options: Options, progress: Progress | None = None) -> Raw[np.ndarray]:
    """Read a folder of images, or one image: arrays (N, H, W) if all are grey, otherwise (N, H, W,
    C), with the depth of the files.

    Subfolders train and valid or test are splits. Subfolders of these, or of the folder, give the
    attributes `class`, `class 2` and so on. The attribute `file` is the path of each image in the
    folder. A table of further attributes may lie in the folder. Decoded images are stored in the
    cache.

    Args:
        path: of the folder, which contains images at any depth, or of an image.
        options: `size`, 64 or 48x64 (height x width); `crop`, center or none; `channels`, grey,
            colour or rgba; `depth`, 8 or 16 bits; `pages`, first, all or channels; `volume`, to
            read pages as slices; `bands`, names of the files of an image's bands; `attributes`, a
            table; `strict`, to refuse a folder with unusable files, which are skipped otherwise.
            Other options are ignored.
        progress: called with (what, done, total).

    Raises:
        ValueError: there are no images; they differ in size, depth or bands; they have a side above
            256, and `size` is not given; or an option has another value.
        OSError: the folder cannot be read, or the cache cannot be written.
    """
    target, strict = target_of(options), options.get("strict", False)
    if not isinstance(strict, bool):
        raise ValueError(f"expected strict to be true or false; got {strict!r}")
    if path.is_file() and is_image(path):
        folder, listing = path.parent, Listing([path.name])
    elif path.is_dir():
        folder, listing = path, list_folder(path, options)
    else:
        raise ValueError(f"expected a folder of images; got {path}")
    if listing.arrays:
        return image_labels.attach(
            read_arrays(folder, listing, progress), folder, listing.tables, options
        )
    splits = splits_of(listing.names, folder)
    count = sum(map(len, splits.values()))
    if not count:
        others = listing.others
        among = f" among {others:,} {'file' if others == 1 else 'files'}" if others else ""
        raise ValueError(f"expected images in {folder}; got none{among}")
    key = cache.key(
        KIND,
        (os.path.join(folder, n) for s in splits.values() for n in listing.files(s)),
        {**target._asdict(), "bands": listing.bands},
        folder,
    )
    source = Folder(folder, listing.bands)
    place, meta = cache.entry(
        key, lambda part: make(part, source, splits, target, progress), path.resolve()
    )
    if strict:
        check_none_skipped(meta)
    notes = [*meta["notes"], *listing.notes, *_left_out(listing, count, splits)]
    return image_labels.attach(_raw(place, meta, notes), folder, listing.tables, options)


def _left_out(listing: Listing, count: int, splits: Iterable[str]) -> list[str]:
    """Return notes on the files that are not among the `count` images of the splits."""
    notes = []
    if count < len(listing.names):
        left = len(listing.names) - count
        notes.append(f"{left:,} images outside {', '.join(splits)} left out")
    if listing.others > max(10, count // 10):
        notes.append(f"{listing.others:,} files that are not images left out")
    return notes


def _raw(place: Path, meta: Json, notes: Sequence[str]) -> Raw[np.ndarray]:
    """Return the data of an entry of the cache."""
    arrays = {
        name: cache.open_array(place / f"{name}.npy") for name in ("images", *meta["attributes"])
    }
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
        raise InputError(
            f"strict=true allows no unusable images, but {files}: repair them, or "
            f"leave out strict=true"
        )


# -- decoding into the cache -----------------------------------------------------------------------


@final
class _Decoding:
    """Read the headers of images, and decode those that can be used.

    Args:
        source: of the images.
        names: of all images.
        target: to which they are converted.
        progress: called with (what, done, total).
    """

    def __init__(
        self, source: ImageSource, names: Sequence[str], target: Target, progress: Progress | None
    ) -> None:
        self.source, self.names, self.target, self.progress = source, names, target, progress
        self.header: dict[int, Header] = {}
        self.unusable: dict[int, str] = {}  # {number of an unusable image: the reason}
        self.remarks: list[str] = []  # changes made to an image

    def headers(self) -> np.ndarray:
        """Read all headers, and return the numbers of the images that can be used, (N,)."""

        def measure(i: int) -> None:
            try:
                self.header[i] = read_header(self.source.open(self.names[i]), self.target)
                reason = self.header[i].reason
            except Image.DecompressionBombError:
                reason = HUGE
            except MemoryError:
                raise
            except Unusable as error:
                reason = str(error)
            except Exception:  # decoders of damaged files raise many types
                reason = DAMAGED
            if reason:
                self.unusable[i] = reason

        _each(measure, len(self.names), "reading headers", self.progress)
        return self._usable(np.arange(len(self.names)))

    def decode(self, numbers: np.ndarray, array: np.memmap, form: Form) -> np.ndarray:
        """Decode images into the first rows of an array, and return the number of the image of each
        row, (N,).

        Args:
            numbers: of the images, in rising order.
            array: (N, *form.shape), with room for all of them.
            form: to which they are converted.
        """
        rows = np.repeat(numbers, [self.rows(i) for i in numbers.tolist()])
        starts = np.searchsorted(rows, numbers)

        def decode(k: int) -> None:
            number = int(numbers[k])
            try:
                image = self.source.open(self.names[number])
                pages, remarks = decode_image(image, self.target, form)
                array[starts[k] : starts[k] + self.rows(number)] = pages
                self.remarks.extend(remarks)
            except MemoryError:
                raise
            except Exception:
                self.unusable[number] = DAMAGED

        _each(decode, len(numbers), "decoding", self.progress)
        used = np.isin(rows, self._usable(numbers))
        if not used.all():  # close the gaps
            for to, row in enumerate(np.flatnonzero(used).tolist()):
                if to != row:
                    array[to] = array[row]
        return rows[used]

    def rows(self, number: int) -> int:
        """Return the number of rows that an image has."""
        header = self.header[number]
        return header.pages if header.stack == "rows" else 1

    def _usable(self, numbers: np.ndarray) -> np.ndarray:
        """Return those images that can be used, by number; raise ValueError if there are none."""
        numbers = numbers[[i not in self.unusable for i in numbers.tolist()]]
        if not len(numbers):
            reasons = "; ".join(
                f"{len(names):,} {reason} ({image_notes.few(names)})"
                for reason, names in image_notes.reasons(self.unusable, self.names).items()
            )
            raise InputError(
                f"none of the {len(self.names):,} image files in {self.source} can be used: "
                f"{reasons}"
            )
        return numbers


def make(
    part: Path,
    source: ImageSource,
    splits: Mapping[str, Sequence[str]],
    target: Target,
    progress: Progress | None,
) -> Json:
    """Decode images into a folder of the cache: images.npy, file.npy, and attributes that follow
    from their names, such as class.npy.

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
        ValueError: the images differ in size, depth or bands, or none can be used.
    """
    names = [name for split in splits.values() for name in split]
    decoding = _Decoding(source, names, target, progress)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        Image.init()
        numbers = decoding.headers()
        headers = {names[i]: decoding.header[i] for i in numbers.tolist()}
        form = form_of(headers, target, str(source))
        count = sum(map(decoding.rows, numbers.tolist()))
        array = cache.create_array(part / "images.npy", form.dtype, (count, *form.shape))
        rows = decoding.decode(numbers, array, form)
    used = [names[i] for i in rows.tolist()]
    attributes = {"file": np.array(used)} | classes_of(used, 0 if "all" in splits else 1)
    if target.pages == "all":
        attributes["page"] = np.arange(len(rows)) - np.searchsorted(rows, rows)
    for name, values in attributes.items():
        np.save(part / f"{name}.npy", values)
    ends = np.searchsorted(rows, np.cumsum([len(split) for split in splits.values()])).tolist()
    ranges = {s: (a, b) for s, a, b in zip(splits, [0, *ends[:-1]], ends, strict=True) if b > a}
    if next(iter(splits)) not in ranges:
        raise InputError(f"none of the training images in {source} can be used")
    skipped = image_notes.skipped(decoding.unusable, names)
    kept = [decoding.header[i] for i in dict.fromkeys(rows.tolist())]
    notes = [*skipped, *image_notes.notes(kept, target, form)]
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


# -- the form of all images ------------------------------------------------------------------------


def form_of(headers: Mapping[str, Header], target: Target, source: str) -> Form:
    """Return the form that images of these headers are converted to.

    Args:
        headers: of the images, by name.
        target: what the user asks for.
        source: of the images, for messages.

    Raises:
        ValueError: the images differ in size, depth, bands or number of slices, or cannot be
            converted as the user asks.

    >>> form_of({"a.png": Header((28, 28), 1, "uint16")}, Target(), "photos").shape
    (28, 28)
    """
    dtype = _dtype(headers, target, source)
    every = {h.bands for h in headers.values()}
    if not every <= {1, 3} and (target.channels or len(every) > 1):
        kinds = _kinds({name: f"{h.bands} bands" for name, h in headers.items()})
        if target.channels:
            raise InputError(
                f"channels={target.channels} converts grey and colour images, but {source} has "
                f"{kinds}: leave it out"
            )
        raise ValueError(f"expected images with the same bands in {source}; got {kinds}")
    slices = {h.pages for h in headers.values()} if target.volume else {0}
    if len(slices) > 1:
        kinds = _kinds({name: f"{h.pages} pages" for name, h in headers.items()})
        raise ValueError(
            f"expected volumes with the same number of slices in {source}; got {kinds}"
        )
    sides = np.array([h.sides for h in headers.values()])
    size = target.size or one_size(sides, source)
    asked = {None: max(every) if max(every) > 1 else 0, "grey": 0, "colour": 3, "rgba": 4}
    return Form(dtype, asked[target.channels], size, slices.pop())


def _dtype(headers: Mapping[str, Header], target: Target, source: str) -> str:
    """Return the dtype that all images are converted to."""
    dtypes = {h.dtype for h in headers.values()}
    if target.depth:
        if not dtypes <= {"uint8", "uint16"}:
            kinds = _kinds({name: h.dtype for name, h in headers.items()})
            raise InputError(
                f"depth={target.depth} scales images of 8 and 16 bits, but {source} has {kinds}: "
                f"leave it out"
            )
        return f"uint{target.depth}"
    if dtypes == {"uint8", "uint16"}:
        return "uint16"
    if len(dtypes) > 1:
        kinds = _kinds({name: h.dtype for name, h in headers.items()})
        raise InputError(
            f"the images in {source} have different types of values: {kinds}; put each type into "
            f"a folder of its own"
        )
    return dtypes.pop()


def _kinds(kinds: Mapping[str, str]) -> str:
    """Return how many images are of each kind, with an example."""
    first = {kind: name for name, kind in reversed(list(kinds.items()))}
    return " and ".join(
        f"{kind} ({count:,}, such as {first[kind]})"
        for kind, count in Counter(kinds.values()).most_common(3)
    )


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
            f"size={_scaled(height, width, fits)}"
        )
    (height, width), count = sizes[0]
    if max(height, width) > LARGEST:
        ratio = max(height, width) / min(height, width)
        longest = min(64 * max(1.0, math.sqrt(ratio / 2)), LARGEST)
        scaled = f"scale them with size={_scaled(height, width, longest)}"
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
    keep their size with size=512x512'
    """
    return (
        f"expected images with sides of at most {LARGEST}; got height x width {height}x{width} "
        f"({count:,}): {remedy}, or keep their size with size={height}x{width}"
    )
