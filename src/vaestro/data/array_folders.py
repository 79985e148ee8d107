"""Read a folder of arrays (.npy), one for each datum, into one memory-mapped array."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from vaestro.data import cache
from vaestro.data.image_files import Listing, classes_of, splits_of
from vaestro.data.raw import DAMAGED_ARRAY, Json, Raw
from vaestro.text import InputError, one_line

KIND = "arrays-of-a-folder-1"


def read_arrays(
    folder: Path, listing: Listing, progress: Callable[[str, int, int], None] | None = None
) -> Raw[np.ndarray]:
    """Read arrays of one shape: (N, *shape), with splits, classes and names as for images.

    Args:
        folder: that contains them.
        listing: of the folder.
        progress: called with (what, done, total).

    Raises:
        ValueError: an array is damaged, or the arrays differ in shape.
        OSError: the folder cannot be read, or the cache cannot be written.

    >>> Path("a").mkdir(); np.save("a/x.npy", np.zeros(3)); np.save("a/y.npy", np.ones(3))
    >>> read_arrays(Path("a"), Listing(["x.npy", "y.npy"], arrays=True)).splits["all"].shape
    (2, 3)
    """
    splits = splits_of(listing.names, folder)
    names = [name for split in splits.values() for name in split]

    def make(part: Path) -> Json:
        shape, dtype = _common(folder, names)
        whole = cache.create_array(part / "values.npy", dtype, (len(names), *shape))
        for i, name in enumerate(names):
            whole[i] = _opened(folder / name)
            if progress and (i + 1 == len(names) or i % 1000 == 0):
                progress("reading", i + 1, len(names))
        whole.flush()
        return {}

    files = [os.path.join(folder, name) for name in names]
    place, _ = cache.entry(cache.key(KIND, files, {}, folder), make, folder.resolve())
    whole = cache.open_array(place / "values.npy")
    attributes = {"file": np.array(names)} | classes_of(names, 0 if "all" in splits else 1)
    parts: dict[str, slice] = {}
    start = 0
    for split, some in splits.items():
        parts[split] = slice(start, start + len(some))
        start += len(some)
    notes = []
    if len(names) < len(listing.names):
        left = len(listing.names) - len(names)
        notes.append(f"{left:,} arrays outside {', '.join(splits)} left out")
    if listing.others > max(10, len(names) // 10):
        notes.append(f"{listing.others:,} files that are not arrays left out")
    return Raw(
        {s: whole[part] for s, part in parts.items()},
        {s: {n: a[part] for n, a in attributes.items()} for s, part in parts.items()},
        tuple(notes),
    )


def _opened(path: Path) -> np.ndarray:
    """Return an array, mapped from its file."""
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except DAMAGED_ARRAY as error:
        raise InputError(f"{path} is damaged or cut short ({one_line(error)})") from error
    if array.dtype.kind not in "biuf":
        raise ValueError(f"expected numbers in {path}; got {array.dtype}")
    return array


def _common(folder: Path, names: list[str]) -> tuple[tuple[int, ...], np.dtype]:
    """Return the shape and the dtype of all arrays.

    Raises:
        ValueError: they differ in shape.
    """
    headers = [(array.shape, array.dtype) for array in (_opened(folder / n) for n in names)]
    shapes = Counter(shape for shape, _ in headers).most_common()
    if len(shapes) > 1:
        first = {shape: name for (shape, _), name in zip(headers[::-1], names[::-1], strict=True)}
        got = " and ".join(f"{s} ({k:,}, such as {first[s]})" for s, k in shapes[:3])
        raise ValueError(f"expected arrays of one shape in {folder}; got {got}")
    return shapes[0][0], np.result_type(*{dtype for _, dtype in headers})
