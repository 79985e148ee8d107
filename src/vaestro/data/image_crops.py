"""Cut random pieces out of one or several large images, which are the rows of a data set.

Each image is divided along its longer side into strips for training, validation and test, so that
held-out pieces do not overlap training pieces.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import final

import numpy as np

from vaestro.data import cache
from vaestro.data.deep_images import Form, Header, Target
from vaestro.data.image_decoding import decode_image, read_header, target_of
from vaestro.data.image_files import list_folder
from vaestro.data.images import Progress, form_of, is_image
from vaestro.data.raw import Json, Options, Raw
from vaestro.randomness import numpy_generator
from vaestro.text import InputError

KIND = "crops-1"
HELD_OUT = 0.05  # share of the pieces in each held-out split
STRIP = 0.1  # share of an image's longer side in each held-out strip


def read_crops(path: Path, options: Options, progress: Progress | None = None) -> Raw[np.ndarray]:
    """Read random pieces of an image, or of the images of a folder, at full resolution.

    Args:
        path: of the image or the folder.
        options: `crops`, the number of pieces; `size`, of a piece; `seed`, of their places; and
            those of images about channels and depth.
        progress: called with (what, done, total).

    Raises:
        ValueError: `size` is missing, or an image is too small for strips of it.
        OSError: a file cannot be read, or the cache cannot be written.
    """
    target, count, seed = target_of(options), int(options["crops"]), int(options.get("seed", 0))
    if target.size is None:
        raise InputError(f"crops={count} needs the size of a piece: add size=32")
    for key in ("pages", "volume", "attributes", "crop"):
        if key in options:
            raise InputError(f"{key}= does not apply to crops= ({path}): leave it out")
    if count < 20:
        raise ValueError(f"expected crops of 20 or more; got {count}")
    names = [path.name] if is_image(path) else list_folder(path, {"bands": "none"}).names
    folder = path.parent if is_image(path) else path
    if not names:
        raise ValueError(f"expected images in {path}; got none")
    files = [os.path.join(folder, name) for name in names]
    settings = {**target._asdict(), "crops": count, "seed": seed}
    place, meta = cache.entry(
        cache.key(KIND, files, settings, folder),
        lambda part: _make(part, folder, names, target, _Places(count, seed), progress),
        path.resolve(),
    )
    arrays = {n: cache.open_array(place / f"{n}.npy") for n in ("images", "file", "top", "left")}
    whole = arrays.pop("images")
    height, width = target.size
    note = (
        f"{count:,} random pieces of {height}x{width} from {len(names):,} "
        f"image{'s' if len(names) > 1 else ''}; held-out pieces are from other parts of "
        f"{'each' if len(names) > 1 else 'the'} image"
    )
    return Raw(
        {s: whole[a:b] for s, (a, b) in meta["splits"].items()},
        {s: {n: v[a:b] for n, v in arrays.items()} for s, (a, b) in meta["splits"].items()},
        (note,),
    )


@final
class _Places:
    """Draw where pieces are cut.

    Args:
        count: number of pieces.
        seed: of the draws.
    """

    def __init__(self, count: int, seed: int) -> None:
        held = max(1, round(HELD_OUT * count))
        self.sizes = {"train": count - 2 * held, "valid": held, "test": held}
        self.generator = numpy_generator(seed, "crops")

    def draw(
        self, sides: np.ndarray, size: tuple[int, int]
    ) -> tuple[np.ndarray, dict[str, tuple[int, int]]]:
        """Return the image, the top and the left of each piece, (N, 3), and the rows of each split.

        Args:
            sides: (height, width) of each image, (M, 2).
            size: (height, width) of a piece.
        """
        places, ranges, start = [], {}, 0
        shares = sides.prod(1) / sides.prod(1).sum()
        for split, number in self.sizes.items():
            images = self.generator.choice(len(sides), number, p=shares)
            low, high = _strip(sides[images], size, split)
            corner = low + (self.generator.random((number, 2)) * (high - low + 1)).astype(np.int64)
            places.append(np.column_stack([images, corner]))
            ranges[split] = (start, start + number)
            start += number
        return np.concatenate(places), ranges


def _strip(sides: np.ndarray, size: tuple[int, int], split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and the last (top, left) of pieces of a split in images, each (N, 2)."""
    low = np.zeros_like(sides)
    high = sides - np.array(size)
    along = np.argmax(sides, 1)
    rows = np.arange(len(sides))
    length, piece = sides[rows, along], np.array(size)[along]
    held = np.maximum(piece, np.rint(STRIP * length).astype(np.int64))
    first = {"train": 0 * length, "valid": length - 2 * held, "test": length - held}[split]
    end = {"train": length - 2 * held, "valid": length - held, "test": length}[split]
    low[rows, along], high[rows, along] = first, end - piece
    return low, high


def _make(
    part: Path,
    folder: Path,
    names: list[str],
    target: Target,
    places: _Places,
    progress: Progress | None,
) -> Json:
    """Cut pieces into a folder of the cache, and return the rows of each split."""
    assert target.size is not None
    headers = {name: _header(folder / name, target) for name in names}
    form = form_of(headers, target, str(folder))
    _check(headers, target.size, folder)
    sides = np.array([h.sides for h in headers.values()])
    corners, ranges = places.draw(sides, target.size)
    pieces = cache.create_array(part / "images.npy", form.dtype, (len(corners), *form.shape))
    height, width = target.size
    for i, name in enumerate(names):
        image = _whole(folder / name, headers[name], form, target)
        for row in np.flatnonzero(corners[:, 0] == i).tolist():
            top, left = corners[row, 1:].tolist()
            pieces[row] = image[top : top + height, left : left + width]
        if progress:
            progress("cutting", i + 1, len(names))
    np.save(part / "file.npy", np.array(names)[corners[:, 0]])
    np.save(part / "top.npy", corners[:, 1])
    np.save(part / "left.npy", corners[:, 2])
    return {"splits": ranges}


def _header(path: Path, target: Target) -> Header:
    try:
        header = read_header(path, target)
    except Exception as error:  # decoders of damaged files raise many types
        raise InputError(f"{path} is damaged or unreadable: leave it out") from error
    if header.reason:
        raise InputError(f"{path} cannot be used, because such images {header.reason}")
    return header


def _whole(path: Path, header: Header, form: Form, target: Target) -> np.ndarray:
    """Return an image at full resolution."""
    try:
        full = form._replace(size=header.sides)
        return decode_image(path, target._replace(size=None), full)[0][0]
    except Exception as error:
        raise InputError(f"{path} is damaged or unreadable: leave it out") from error


def _check(headers: Mapping[str, Header], size: tuple[int, int], folder: Path) -> None:
    """Raise InputError if an image is too small for three strips."""
    for name, header in headers.items():
        sides = np.array([header.sides])
        for split in ("train", "valid", "test"):
            low, high = _strip(sides, size, split)
            if (high < low).any():
                (height, width), (h, w) = header.sides, size
                most = min(height, width, max(height, width) // 3)
                raise InputError(
                    f"{folder / name} has {height}x{width} pixels, too few for training, "
                    f"validation and test pieces of {h}x{w}: use size={most} or smaller"
                )
