"""Lay arrays out for training: in memory, in their own file, or in the cache."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from vaestro.data import cache
from vaestro.data.arrays import as_it_lies, large
from vaestro.data.fitting import grey_levels
from vaestro.data.images import Progress
from vaestro.data.passes import location, once, place
from vaestro.data.raw import Json
from vaestro.data.sets import Rows
from vaestro.spaces import Space


def lay_out(
    whole: np.ndarray, space: Space, grey: bool, progress: Progress | None, checked: bool
) -> tuple[np.ndarray, np.ndarray | None, bool]:
    """Return an array as codes or values, the mask of the observed cells, and whether the channels
    of images come last.

    A large array of bytes that need no change is used from its own file. Other large arrays are
    laid out in the cache.

    Args:
        whole: the array, (N, *outside).
        space: of the data.
        grey: whether they are grey levels to be binarised.
        progress: called with (what, done, total).
        checked: whether the space was inferred from this array, whose values therefore fit.

    Raises:
        ValueError: a value does not fit the space.
    """
    inward = partial(grey_levels, space=space) if grey else space.inward
    if as_it_lies(whole, space, grey):
        if not (checked or grey or space.levels == 256):
            # raises ValueError if a level is too high
            once([whole], lambda array, start, rows: inward(rows))
        last = space.layout.reorders(space.outside)
        return whole if last else whole.reshape(len(whole), *space.shape), None, last
    dtype, shape, lies = inward(whole[:0]).dtype, (len(whole), *space.shape), place(whole)

    fill = partial(_fill, whole, space, inward)
    if not large(whole, space) or lies is None:
        values, observed = np.empty(shape, dtype), np.empty(shape, bool) if space.missing else None
        return values, observed if fill(values, observed, None) else None, False

    def make(folder: Path) -> Json:
        values = cache.create_array(folder / "values.npy", dtype, shape)
        observed = (
            cache.create_array(folder / "observed.npy", bool, shape) if space.missing else None
        )
        some = fill(values, observed, progress)
        values.flush()
        if observed is not None and some:
            observed.flush()
        elif observed is not None:
            (folder / "observed.npy").unlink()
        return {"observed": some}

    source = Path(lies[0])
    key = cache.key("array-2", [source], _settings(whole, space, grey), source.parent)
    folder, meta = cache.entry(key, make, source)
    seen = cache.open_array(folder / "observed.npy") if meta["observed"] else None
    return cache.open_array(folder / "values.npy"), seen, False


def _fill(
    whole: np.ndarray,
    space: Space,
    inward: Callable[[np.ndarray], np.ndarray],
    values: np.ndarray,
    observed: np.ndarray | None,
    progress: Progress | None,
) -> bool:
    """Fill arrays with values and the observed mask, and return whether a cell is missing."""
    some = False

    def look(array: np.ndarray, start: int, rows: np.ndarray) -> None:
        nonlocal some
        values[start : start + len(rows)] = inward(rows)
        if observed is not None:
            mask = space.seen(rows)
            observed[start : start + len(rows)] = True if mask is None else mask
            some |= mask is not None
        if progress is not None:
            progress("laying out", start + len(rows), len(whole))

    once([whole], look)
    return some


def _settings(whole: np.ndarray, space: Space, grey: bool) -> Json:
    """Return everything that the values of an array in the cache depend on."""
    inner = {"offset", "scale"}
    if space.strays is not None:
        inner |= {"resolution", "origin", "strays"}
    fitted = {k: v.tolist() for k, v in space.arrays().items() if k in inner}
    return {"space": space.scalars(), "fitted": fitted, "array": location(whole), "grey": grey}


def fixed(rows: Rows) -> Rows:
    """Return rows with one binarisation for all epochs; a large array has it in the cache."""
    array, lies = rows.values, place(rows.values)
    if not rows.dynamic or lies is None or not isinstance(array, np.ndarray):
        return rows.fixed()

    def make(folder: Path) -> Json:
        values = cache.create_array(folder / "values.npy", np.uint8, (len(rows), *rows.space.shape))
        rows.fixed(values)
        values.flush()
        return {}

    source = Path(lies[0])
    which = (
        "all"
        if rows.index is None
        else hashlib.blake2b(rows.index.tobytes(), digest_size=16).hexdigest()
    )
    settings = {"array": location(array), "rows": which, "split": rows.name}
    folder, _ = cache.entry(
        cache.key("binarised-1", [source], settings, source.parent), make, source
    )
    return rows.fixed_as(cache.open_array(folder / "values.npy"))
