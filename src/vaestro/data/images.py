"""Read a folder of images into one memory-mapped array of bytes.

The headers are read first, and say whether the images fit together before any is decoded. Then
every image goes straight
from its decoder into its row of the array, which lies in the cache: memory stays flat, however many
images there are.
"""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from PIL import Image

from vaestro.data import cache
from vaestro.data.raw import Json, Options, Raw

KIND = "images-3"
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
# what a file holds is asked of these alone, whatever its name
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
SPLITS = {"train": "train", "valid": "valid", "val": "valid", "validation": "valid", "test": "test"}
SPELLINGS = {"centre": "center", "gray": "grey", "color": "colour"}
GREY = ("1", "L", "LA", "I", "I;16", "I;16L", "I;16B", "I;16N")
# a quarter of a gibibyte in colour, which is also where Pillow warns of decompression bombs
PIXELS = 89_478_485
SIDES = (4, 8192)
LARGEST = 256  # side that the networks are made for; beyond it only where asked

DAMAGED = "are damaged or unreadable"
HUGE = f"have more than {PIXELS // 10**6} million pixels"
TINY = f"are smaller than {SIDES[0]}x{SIDES[0]}"
DEEP = "hold 32-bit values, which belong in an array (.npy)"

WIDE = "of 16 bits scaled to 8, where 65535 becomes 255"
CLEAR = "with transparency laid on white"

# EXIF's eight orientations: what turns the stored image upright. From 5 on, height and width change
# places.
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
    """Say what images become: (height, width) or as they are; cropped about the centre or
    stretched; grey, colour or as they are."""

    size: tuple[int, int] | None
    crop: bool
    channels: str | None


def read_images(folder: Path, options: Options, progress: Progress | None = None) -> Raw:
    """Read a folder of images: uint8 arrays (N, H, W) where all are grey, else (N, H, W, 3).

    Subfolders train and valid or test are splits. Subfolders below these, or below the folder, give
    the attribute `class`; the attribute `file` is each image's path in the folder. What was decoded
    once comes from the cache.

    Args:
        folder: where the images are, at any depth.
        options: `size`, 64 or 48x64 (height x width); `crop`, center or none; `channels`, grey or
            colour; `strict`, to refuse a folder with files that cannot be used, which are skipped
            otherwise. Others are ignored.
        progress: called with (what, done, total).

    Raises:
        ValueError: there are no images, without `size` they differ in size or have a side above
            256, or an option is not as above.
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
        raise ValueError(
            f"expected images in {folder}; got none"
            + (f" among {others:,} files" if others else "")
        )
    key = cache.key(
        KIND,
        (os.path.join(folder, name) for s in splits.values() for name in s),
        target._asdict(),
        folder,
    )
    place, meta = cache.entry(
        key, lambda part: make(part, folder, splits, target, progress), folder.resolve()
    )
    if strict and meta["skipped"]:
        bad = "; ".join(meta["skipped"]).replace(" skipped, which ", " that ")
        raise ValueError(f"expected images that can all be used, as strict=true asks; got {bad}")
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


def target_of(options: Options) -> Target:
    """Return what images are brought to, from the options of a source.

    Raises:
        ValueError: an option has no meaning for images.

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
        raise ValueError(f"expected size= beside crop=; got crop={crop} alone")
    if channels not in (None, "grey", "colour"):
        raise ValueError(f"expected channels to be grey or colour; got {channels!r}")
    return Target(size, crop != "none", channels)


# -- which files -----------------------------------------------------------------------------------


def _listed(folder: Path) -> tuple[list[str], int]:
    """Return the images below a folder in order, as paths in it, and how many other files there
    are."""
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
                    if real not in above:  # a link that leads back up
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
    """Return the name of each file's folder at a depth, if every file has one and they are at least
    two."""
    paths = [f.split("/") for f in files]
    if any(len(p) < depth + 2 for p in paths) or len({p[depth] for p in paths}) < 2:
        return None
    return np.array([p[depth] for p in paths])


# -- making an entry -------------------------------------------------------------------------------


def make(
    part: Path,
    folder: Path,
    splits: Mapping[str, Sequence[str]],
    target: Target,
    progress: Progress | None,
) -> Json:
    """Write images.npy, file.npy and perhaps class.npy; returns their meta."""
    names = [name for split in splits.values() for name in split]
    sides, grey, wrong = (
        np.zeros((len(names), 2), np.int64),
        np.zeros(len(names), bool),
        dict[int, str](),
    )
    remarks: list[str] = []

    def measure(i: int) -> None:
        try:
            sides[i], grey[i], reason = measured(folder / names[i])
        except Image.DecompressionBombError:
            reason = HUGE
        except MemoryError:
            raise
        except Exception:  # a damaged file can raise nearly anything
            reason = DAMAGED
        if reason:
            wrong[i] = reason

    def decode(row: int) -> None:
        try:
            array[row], said = decoded(folder / names[rows[row]], target, colour)
            remarks.extend(said)
        except MemoryError:
            raise
        except Exception:
            wrong[int(rows[row])] = DAMAGED

    def left(candidates: np.ndarray) -> np.ndarray:
        """Leave out what turned out wrong."""
        candidates = candidates[[i not in wrong for i in candidates.tolist()]]
        if not len(candidates):
            text = "; ".join(
                f"{len(found):,} {reason} ({_few(found)})"
                for reason, found in _reasons(wrong, names).items()
            )
            raise ValueError(
                f"expected images in {folder}; got {len(names):,} files of which none can be "
                f"used: {text}"
            )
        return candidates

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        Image.init()
        _each(measure, len(names), "reading headers", progress)
        rows = left(np.arange(len(names)))
        size = target.size or one_size(sides[rows], folder)
        colour = target.channels == "colour" or (target.channels is None and not grey[rows].all())
        array = cache.create_array(
            part / "images.npy", np.uint8, (len(rows), *size, *([3] if colour else []))
        )
        _each(decode, len(rows), "decoding", progress)
    kept = left(rows)
    if len(kept) < len(rows):  # close the gaps
        for to, row in enumerate(np.flatnonzero(np.isin(rows, kept)).tolist()):
            if to != row:
                array[to] = array[row]
    used = [names[i] for i in kept.tolist()]
    attributes = {"file": np.array(used)}
    if (classes := _classes(used, 0 if "all" in splits else 1)) is not None:
        attributes["class"] = classes
    for name, values in attributes.items():
        np.save(part / f"{name}.npy", values)
    ends = np.searchsorted(kept, np.cumsum([len(split) for split in splits.values()])).tolist()
    cuts = {s: (a, b) for s, a, b in zip(splits, [0, *ends[:-1]], ends, strict=True) if b > a}
    if next(iter(splits)) not in cuts:
        raise ValueError(f"expected images to train on in {folder}; got none that can be used")
    skipped = _skipped(wrong, names)
    notes = [*skipped, *_notes(sides[kept], grey[kept], target, colour)]
    notes += [f"{k:,} images {what}" for what, k in sorted(Counter(remarks).items())]
    return {"splits": cuts, "attributes": list(attributes), "notes": notes, "skipped": skipped}


def processors() -> int:
    """Return how many processors there are for this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _each(work: Callable[[int], None], count: int, what: str, progress: Progress | None) -> None:
    """Call work(i) for every i below a number, in a thread for each processor: Pillow decodes and
    scales outside Python's lock."""
    workers = processors()
    chunk = max(1, min(64, count // (8 * workers)))

    def some(start: int) -> int:
        for i in range(start, min(start + chunk, count)):
            work(i)
        return min(start + chunk, count) - start

    with ThreadPoolExecutor(workers) as pool:
        done, said = 0, 0
        try:
            for more in pool.map(some, range(0, count, chunk)):
                done += more
                if progress and (done - said >= count / 100 or done == count):
                    progress(what, done, count)
                    said = done
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def measured(path: Path | IO[bytes]) -> tuple[tuple[int, int], bool, str]:
    """Read an image's header: (height, width) upright, whether it is grey, and why it cannot be
    used, or nothing."""
    with Image.open(path, formats=FORMATS) as image:
        width, height = image.size
        return (
            ((width, height) if _turn(image) >= 5 else (height, width)),
            image.mode in GREY,
            _unfit(image),
        )


def _unfit(image: Image.Image) -> str:
    """Say why an image cannot be used, from its header; nothing where it can."""
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
    """Decode an image into bytes (H, W) or (H, W, 3), with what was done in words.

    Raises:
        ValueError: its header says that it cannot be used.
        Exception: of any kind, where it is damaged.
    """
    said, mode = [], "RGB" if colour else "L"
    with Image.open(path, formats=FORMATS) as opened:
        image: Image.Image = opened
        if reason := _unfit(image):
            raise ValueError(reason)
        turn = _turn(image)
        height, width = target.size or (0, 0)
        height, width = (width, height) if turn >= 5 else (height, width)
        # JPEG decodes to a half, a quarter or an eighth for less; twice the target leaves the
        # filter enough to work on.
        drafted = image.draft(mode, (2 * width, 2 * height) if target.size else None)
        w, h = drafted[1][2:] if drafted else image.size
        if image.mode.startswith("I") or (
            image.format != "BMP" and ";16" in str([tile[3] for tile in getattr(image, "tile", [])])
        ):
            said.append(WIDE)
        image.load()
        if image.mode.startswith("I"):
            levels = np.clip(np.asarray(image, np.int32), 0, 65535)
            image = Image.fromarray(((levels + 128) // 257).astype(np.uint8))
        elif image.has_transparency_data:
            image = image.convert("RGBA")
            if image.getchannel("A").getextrema() != (255, 255):
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
                said.append(CLEAR)
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
        return np.asarray(image.transpose(UPRIGHT[turn]) if turn in UPRIGHT else image), said


def _turn(image: Image.Image) -> int:
    """Return EXIF's orientation from 1 to 8. Pillow turns TIFF itself, and would decode a PNG to
    look for one that comes late."""
    if "exif" not in image.info:
        return 1
    try:
        turn = image.getexif().get(0x0112, 1)
    except Exception:
        return 1
    return turn if turn in UPRIGHT else 1


# -- in words --------------------------------------------------------------------------------------


def one_size(sides: np.ndarray, folder: Path) -> tuple[int, int]:
    """Return the size that all images have.

    Raises:
        ValueError: they differ in size, or are too large.
    """
    sizes = Counter(map(tuple, sides.tolist())).most_common()
    if len(sizes) > 1:
        text = ", ".join(f"{h}x{w} ({k:,})" for (h, w), k in sizes[:3]) + (
            f" and {len(sizes) - 3:,} more" if len(sizes) > 3 else ""
        )
        fits = min(64, 1 << (int(sides.min()).bit_length() - 1))
        raise ValueError(
            f"expected images of one size, or size=; got height x width {text}: try "
            f"{folder}/:size={fits}"
        )
    (height, width), count = sizes[0]
    if max(height, width) > LARGEST:
        raise ValueError(too_large(height, width, f"{folder}/", count))
    return height, width


def too_large(height: int, width: int, source: str, count: int) -> str:
    """Say what to do about images that the networks are not made for."""
    wanted = f"images with sides of at most {LARGEST}, which the networks are made for, or size="
    remedy = f"try {source}:size=64,crop=center" if source.endswith("/") else "scale them"
    keep = f"{source}:size={height}x{width} takes them as they are"
    return f"expected {wanted}; got height x width {height}x{width} ({count:,}): {remedy} ({keep})"


def _notes(sides: np.ndarray, grey: np.ndarray, target: Target, colour: bool) -> list[str]:
    """Say what was done to images (N, 2) high and wide."""
    notes = []
    if target.size:
        height, width = target.size
        shaped = int((sides[:, 0] * width != sides[:, 1] * height).sum())
        done = "cropped about the centre and scaled" if target.crop else "stretched"
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


def _reasons(wrong: Mapping[int, str], names: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for i, reason in sorted(wrong.items()):
        found.setdefault(reason, []).append(names[i])
    return found


def _skipped(wrong: Mapping[int, str], names: Sequence[str]) -> list[str]:
    reasons = _reasons(wrong, names).items()
    return [
        f"{len(found):,} of {len(names):,} files skipped, which {reason}: {_few(found)}"
        for reason, found in reasons
    ]


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return shown.encode("utf-8", "replace").decode()
