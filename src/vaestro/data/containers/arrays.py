"""Arrays of numbers (N, ...), in memory or in a file."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import final

import numpy as np

from vaestro.data import cache
from vaestro.data.arrays import Inferred, infer_space
from vaestro.data.columns import padded
from vaestro.data.containers.base import Container, Inference, Laid
from vaestro.data.image_decoding import target_of
from vaestro.data.images import Progress
from vaestro.data.laying import lay_out
from vaestro.data.named import NAMED
from vaestro.data.passes import Part, RowSelector, distinct, location, once, piece, place
from vaestro.data.raw import Options
from vaestro.data.series.lengths import described
from vaestro.data.series.record import Record
from vaestro.data.source_options import as_source, of_groups
from vaestro.data.source_values import missing_values
from vaestro.data.writers import write_arrays
from vaestro.spaces import Space, layout_of_axes, missing_cells, with_gaps
from vaestro.text import as_number


@final
class Arrays(Container[np.ndarray]):
    """Handle arrays of numbers."""

    type = np.ndarray
    fillable = True

    def check_options(
        self, options: Options, whole: np.ndarray, name: str, folder: bool
    ) -> tuple[list[str], str]:
        named = options.get("series", False)
        if not isinstance(named, bool):
            raise ValueError(
                f"expected series to be true or false for an array, which has no columns; got "
                f"{named!r} for {name}"
            )
        for word in missing_values(options.get("missing")):
            if as_number(word) is None:
                raise ValueError(
                    f"expected missing= to be numbers, nan or inf for an array; got {word!r} for "
                    f"{name}"
                )
        unfit, what = super().check_options(options, whole, name, folder)
        alone = [] if named else [k for k in of_groups(options, "series") if k != "series"]
        return alone + unfit, f"{what} without series=true" if alone else what

    def resized(self, key: str, options: Options, whole: np.ndarray) -> bool:
        return (
            key == "size" and whole.ndim in (3, 4) and target_of(options).size == whole.shape[1:3]
        )

    def select(self, whole: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return np.asarray(whole[rows])

    def join(self, wholes: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate(wholes)

    def totals(self, whole: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
        return np.asarray(whole.reshape(len(whole), -1).sum(1))

    def infer(
        self,
        parts: dict[str, Part[np.ndarray]],
        options: Options,
        name: str,
        progress: Progress | None,
    ) -> Inference:
        key = _key(parts, options, name)
        stored = None if key is None else _recalled(key)
        if stored is not None:
            return Inference(parts, *stored)
        space, options, notes, shared = infer_space(parts, options, name)
        return _with_empty(Inference(parts, space, options, notes, shared, key=key))

    def described(self, inference: Inference, record: Record | None) -> Inference:
        return described(inference, record)

    def keep(self, inference: Inference, shared: list[str], source: str) -> None:
        if inference.key is None:
            return
        inferred = Inferred(inference.space, inference.options, inference.notes, shared)
        # if nothing can be written, the next start takes as long as this one
        with suppress(OSError):
            cache.entry(inference.key, inferred.save, source)

    def fit(self, whole: np.ndarray, space: Space, options: Options) -> np.ndarray:
        if options.get("series", False) and whole.shape[1] < space.outside[0]:
            whole = padded(whole, space.outside[0])
        words = missing_values(options.get("missing"))
        whole = with_gaps(whole, [w for w in words if w not in ("nan", *space.absent)])
        return super().fit(_turned(whole, space, options), space, options)

    def fitted_note(self, space: Space) -> list[str]:
        steps = f"{space.outside[0]:,} steps"
        return [f"series are filled up to {steps}, as the run was trained on"]

    def advise(self, error: ValueError, run: str, space: Space, where: str) -> ValueError:
        if space.probabilities and space.step == 255:
            source = shlex.quote(as_source(where, {"binarise": "dynamic"}))
            return ValueError(f"{error} ({source} binarises grey levels)")
        return super().advise(error, run, space, where)

    def lay_out(
        self, whole: np.ndarray, space: Space, grey: bool, progress: Progress | None, checked: bool
    ) -> Laid:
        return Laid(*lay_out(whole, space, grey, progress, checked))

    def merged(
        self, data: np.ndarray, imputed: np.ndarray, absent: Sequence[str] = ()
    ) -> np.ndarray:
        missing = missing_cells(data, absent)
        return data if missing is None else np.where(missing, imputed.astype(data.dtype), data)

    def write(
        self, path: Path, data: np.ndarray, places: np.ndarray | None, *, raw: bool = False
    ) -> int:
        index = {"index": places} if places is not None and path.suffix.lower() == ".npz" else {}
        return write_arrays(path, {"x": data} | index)


def _with_empty(inference: Inference) -> Inference:
    """Return what was inferred with the share of empty cells in the training rows, for vectors.

    Empty cells of images, volumes and series form regions, which `Absences` does not describe.
    """
    space, train = inference.space, inference.parts["train"]
    if not space.missing or space.layout.name != "vector":
        return inference
    total = np.zeros(space.shape)

    def look(rows: np.ndarray) -> None:
        mask = space.seen(rows)
        total.__iadd__(0 if mask is None else (~mask).sum(0))

    once([train.whole], RowSelector(train, piece(train.whole), look).look)
    if not total.any():
        return inference
    return replace(inference, space=replace(space, empty=total / len(train)))


def _turned(whole: np.ndarray, space: Space, options: Options) -> np.ndarray:
    """Return an array with the axes in the order of a run's data, if axes= names another order.

    Raises:
        ValueError: the axes have other sizes than those of the run.
    """
    layout, outside, shape = space.layout, space.outside, whole.shape[1:]
    letters = layout.letters(outside)
    if shape == outside or sorted(shape) != sorted(outside) or len(letters) != len(outside):
        return whole
    if "axes" in options:
        given = layout_of_axes(str(options["axes"]), shape, "the array")
        if given.name == layout.name and given.inside(shape) == space.shape:
            return layout.outward(given.inward(whole, space.shape, shape), space.shape, outside)
    rest, own = list(zip(letters, outside, strict=True)), ""
    for size in shape:
        pair = next(pair for pair in rest if pair[1] == size)
        rest.remove(pair)
        own += pair[0]
    raise ValueError(
        f"expected the axes N{letters} of {('N', *outside)}, as the run was trained on; got "
        f"{whole.shape} (axes=N{own} says which they are)".replace("'", "")
    )


def _key(parts: Mapping[str, Part], options: Options, name: str) -> str | None:
    """Return the key under which the inference is kept; None for small arrays, and for arrays that
    are not mapped from files."""
    arrays = distinct(parts.values())
    places = [lies for a in arrays if (lies := place(a)) is not None]
    if name == "array" or len(places) < len(arrays) or all(len(a) <= piece(a) for a in arrays):
        return None
    splits = {
        s: [[a is p.whole for a in arrays].index(True), len(p)] for s, p in parts.items() if len(p)
    }
    settings = {
        "options": options,
        "trusted": name in NAMED,
        "arrays": [location(a) for a in arrays],
        "splits": splits,
    }
    return cache.key("found-5", [file for file, _ in places], settings, Path(places[0][0]).parent)


def _recalled(key: str) -> Inferred | None:
    """Return what was inferred from the same arrays before; None if there is no such entry, or it
    is damaged."""
    kept = cache.find(key)
    if kept is not None:
        try:
            return Inferred.restore(*kept)
        except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError):
            with suppress(OSError):
                cache.remove(key)
    return None
