"""Say what arrays of numbers are, and fit what is derived from them, in as few passes over them as
that takes.

What the cells are is known only after all of them were seen, and what is derived depends on it. So
it is guessed from some rows, and derived in the same pass; where the guess was wrong, what is
derived takes another pass. Deviations of real values take one more, since they are taken from the
mean.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np

from vaestro.data import duplicates, images
from vaestro.data.counting import why_not_all_counts
from vaestro.data.lattices import Lattice, lattice
from vaestro.data.named import NAMED
from vaestro.data.passes import Part, Picked, distinct, once, piece
from vaestro.spaces import (
    LARGEST_COUNT,
    LAYOUTS,
    SPACES,
    BinarySpace,
    CountSpace,
    Kind,
    LevelsSpace,
    RealSpace,
    Space,
    layout_of_array,
    restored_space,
    widths,
)

COUNTED = 200_000_000  # cells from which frequencies are counted
IN_MEMORY = 2**28  # bytes from which arrays are laid out in the cache
SAMPLED = 2_000_000  # cells of the training split from which grids are found
FEW = 10  # values of whole numbers that could be categories
GUESSED = 1000  # rows of an array from which it is guessed what the cells are


class Inferred(NamedTuple):
    """Describe arrays: their space, the source's options, what there is to say, and the twins that
    were found, if they were looked for."""

    space: Space
    options: dict[str, Any]
    notes: list[str]
    shared: list[str] | None

    def save(self, folder: Path) -> dict[str, Any]:
        """Write the fitted arrays into a folder, and return the rest as JSON takes it."""
        for name, array in self.space.arrays().items():
            np.save(folder / f"{name}.npy", array, allow_pickle=False)
        return {"found": self._words(), "hash": self._hash()}

    @classmethod
    def restore(cls, folder: Path, meta: Mapping[str, Any]) -> Inferred:
        """Return what `save` wrote.

        Raises:
            ValueError: it is not what was written; KeyError, TypeError and others where it makes no
                sense.
        """
        found = meta["found"]
        arrays = {file.stem: np.load(file, allow_pickle=False) for file in folder.glob("*.npy")}
        inferred = cls(
            restored_space(found["space"], arrays),
            found["options"],
            found["notes"],
            found["shared"],
        )
        if inferred._hash() != meta["hash"]:
            raise ValueError(f"expected what was written into {folder}; got something else")
        return inferred

    def _words(self) -> dict[str, Any]:
        return {
            "space": self.space.scalars(),
            "options": self.options,
            "notes": self.notes,
            "shared": self.shared,
        }

    def _hash(self) -> str:
        digest = hashlib.blake2b(json.dumps(self._words(), sort_keys=True).encode(), digest_size=16)
        for name, array in sorted(self.space.arrays().items()):
            digest.update(f"{name} {array.dtype.str} {array.shape}".encode() + array.tobytes())
        return digest.hexdigest()


def infer_space(parts: Mapping[str, Part], options: Mapping[str, Any], name: str) -> Inferred:
    """Say what the values of arrays are (binary, levels, counts, categories or real), and fit what
    is derived from them.

    Args:
        parts: the splits.
        options: of the source.
        name: of the source.

    Raises:
        ValueError: the values are none that can be modelled, or not what the options say.
    """
    wholes = distinct(parts.values())
    for whole in wholes:
        if whole.shape[1:] != wholes[0].shape[1:]:
            raise ValueError(
                f"expected splits of one shape; got {wholes[0].shape[1:]} and {whole.shape[1:]} "
                f"in {name}"
            )
    seen, guess = _Seen(), _Guess(parts, wholes, options, name)
    once(wholes, seen.look, guess.look)
    space, options, notes = _settled(seen, parts, options, name)
    derived = guess.confirmed(space)
    if derived is None:
        derived = _Derived(parts, space, options, name)
        once(wholes, derived.look)
    space, made = derived.fit.fitted()
    return Inferred(
        space, options, notes + made, None if derived.twins is None else derived.twins.notes()
    )


def large(array: np.ndarray, space: Space) -> bool:
    """Tell whether an array is too large to be laid out in memory."""
    return array.size * (1 if space.levels and space.levels <= 256 else 4) > IN_MEMORY


def as_it_lies(array: np.ndarray, space: Space, grey: bool) -> bool:
    """Tell whether an array is large, and its bytes are what they are inside."""
    plain = space.kind in (Kind.LEVELS, Kind.BINARY) and space.low == 0 and space.step == 1
    return large(array, space) and array.dtype == np.uint8 and (grey or plain)


def grey_levels(array: np.ndarray, space: Space) -> np.ndarray:
    """Return 8-bit grey levels inside, to be binarised."""
    return space.converted(LevelsSpace, levels=256, low=0.0, step=1.0).inward(array)


# -- what the cells are ----------------------------------------------------------------------------


class _Seen:
    """Gather, piece by piece, what the values of arrays are like."""

    def __init__(self) -> None:
        self.low, self.high = np.inf, -np.inf
        # bytes: multiples of 1 / 255; two: none but `low` and `high`
        self.integral = self.bytes = self.two = True
        self.nan = self.infinite = 0

    def look(self, array: Any, start: int, values: np.ndarray) -> None:
        if values.dtype.kind == "f":
            finite = np.isfinite(values)
            if not finite.all():
                self.nan += int(np.isnan(values).sum())
                self.infinite += int(np.isinf(values).sum())
                values = values[finite]
            if self.integral and values.size:
                head = values.ravel()[:1000]  # most data are told apart by a few values
                self.integral = bool(
                    (head == np.rint(head)).all() and (values == np.rint(values)).all()
                )
            if self.bytes and values.size:
                head = values.ravel()[:1000].astype(np.float64) * 255
                self.bytes = bool((np.abs(head - np.rint(head)) < 1e-3).all())
                if self.bytes:
                    scaled = values.astype(np.float64) * 255
                    self.bytes = bool((np.abs(scaled - np.rint(scaled)) < 1e-3).all())
        if values.size:
            low, high = float(values.min()), float(values.max())
            if self.two:
                ends = {low, high} | ({self.low, self.high} if self.low <= self.high else set())
                head = values.ravel()[:1000]
                self.two = len(ends) <= 2 and all(
                    bool(((part == low) | (part == high)).all()) for part in (head, values)
                )
            self.low, self.high = min(self.low, low), max(self.high, high)


def _settled(
    seen: _Seen, parts: Mapping[str, Part], options: Mapping[str, Any], name: str
) -> tuple[Space, dict[str, Any], list[str]]:
    """Return the space of what was seen, the options, and what there is to say."""
    arrays = distinct(parts.values())
    space = _space(seen, arrays, options, name)
    notes: list[str] = []
    if space.kind is Kind.REAL and "kind" not in options and seen.integral:
        space, notes = _whole(space, seen, parts["train"], name)
    options, more = _sides(space, dict(options), name, len(arrays[0]))
    notes += more
    binarise = options.get("binarise", "none")
    if binarise != "none":
        if (
            space.kind is not Kind.LEVELS
            or space.levels != 256
            or space.low != 0
            or space.step != 1
        ):
            raise ValueError(f"expected 8-bit levels 0 .. 255 to binarise; got {space} in {name}")
        space = space.converted(BinarySpace, levels=2, step=255.0)
        notes.append(binarised_note(binarise))
    return space, options, notes


def binarised_note(how: str) -> str:
    """Say how grey levels are binarised: dynamic or static."""
    return f"{how} binarisation with P(1) = level / 255" + (
        ", anew at every access" if how == "dynamic" else ""
    )


def _space(seen: _Seen, arrays: list[np.ndarray], options: Mapping[str, Any], name: str) -> Space:
    shape, dtype = arrays[0].shape[1:], arrays[0].dtype
    layout = layout_of_array(shape)
    if options.get("series", False):
        if len(shape) not in (1, 2):
            raise ValueError(
                f"expected series as an array (N, T) or (N, T, C); got (N, "
                f"{', '.join(map(str, shape))}) in {name}"
            )
        layout = LAYOUTS["series"]
    if seen.infinite or (seen.nan and options.get("missing") != "nan"):
        advice = " (missing=nan takes NaN as missing)" if seen.nan and not seen.infinite else ""
        raise ValueError(
            f"expected finite values in {name}; got {seen.nan} NaN and {seen.infinite} "
            f"infinite{advice}"
        )
    low, high, integral = seen.low, seen.high, seen.integral
    if low > high:
        raise ValueError(f"expected values in {name}; got nothing but NaN")
    if low == high:
        raise ValueError(f"expected data that vary; got {low:g} in every cell of {name}")
    inside = layout.inside(shape)
    base = RealSpace(inside, shape, dtype.name, missing=seen.nan > 0, layout=layout)
    asked = options.get("kind")
    if asked is None:
        asked = (
            "binary" if seen.two else "levels" if integral and low >= 0 and high <= 255 else "real"
        )
        if asked == "real" and len(inside) == 3 and low >= 0 and high <= 1 and seen.bytes:
            return base.converted(LevelsSpace, step=1 / 255, levels=256)
    if asked in ("real", "unit"):
        if asked == "unit" and (low <= 0 or high >= 1):
            raise ValueError(
                f"expected values inside (0, 1) for kind=unit; got some from {low:g} to {high:g} "
                f"in {name}"
            )
        return base.converted(SPACES[Kind(asked)])
    if asked == "binary":
        if not seen.two:
            raise ValueError(
                f"expected two values in binary data; got more, from {low:g} to {high:g}, in {name}"
            )
        return base.converted(BinarySpace, low=low, step=high - low, levels=2)
    if not integral:
        raise ValueError(f"expected whole numbers in {asked} data; got fractions in {name}")
    if asked == "count":
        if low < 0:
            raise ValueError(f"expected counts of 0 or more; got {low:g} in {name}")
        return base.converted(CountSpace)
    if asked == "levels":
        if low < 0:
            raise ValueError(f"expected levels of 0 or more; got {low:g} in {name}")
        levels = options.get("levels", 256 if high > 127 and high <= 255 else int(high) + 1)
        low = 0.0
    else:
        levels = options.get("levels", int(high - low) + 1)
    if levels < 2 or levels > 65536 or high - low > levels - 1:
        raise ValueError(
            f"expected levels between {max(2, int(high - low) + 1)} and 65536; got {levels} in "
            f"{name}"
        )
    return base.converted(SPACES[Kind(asked)], low=low, levels=levels)


def _whole(space: Space, seen: _Seen, train: Part, name: str) -> tuple[Space, list[str]]:
    """Choose between counts and real values on a grid of 1 for whole numbers beyond 0 .. 255, by
    rows of the training split.

    Raises:
        ValueError: they are integers of so few values that they could be categories.
    """
    some = train.spread(max(100, SAMPLED // space.cells))
    rows = some.take(np.arange(len(some))).reshape(len(some), -1)
    if len(np.unique(rows[~np.isnan(rows)] if rows.dtype.kind == "f" else rows)) <= FEW:
        if train.whole.dtype.kind in "iu":
            got = f"few values from {seen.low:g} to {seen.high:g}"
            raise ValueError(
                f"expected kind= for integers of so few values; got {got}: try {name}:kind=real "
                f"or {name}:kind=category"
            )
        return space, []
    numbers, named = f"whole numbers from {seen.low:,.0f} to {seen.high:,.0f}", name != "array"
    if seen.low < 0:
        return space, [
            f"{numbers} read as real on a grid of 1"
            + (f" ({name}:kind=category reads codes)" if named else "")
        ]
    why = (
        why_not_all_counts(rows)
        if seen.high <= LARGEST_COUNT
        else f"values above {LARGEST_COUNT:,}"
    )
    if why is None:
        return space.converted(CountSpace), [
            f"{numbers} read as counts" + (f" ({name}:kind=real overrules)" if named else "")
        ]
    return space, [
        f"{numbers} read as real on a grid of 1, not as counts ({why})"
        + (f"; {name}:kind=count overrules" if named else "")
    ]


def _sides(
    space: Space, options: dict[str, Any], name: str, count: int
) -> tuple[dict[str, Any], list[str]]:
    """Refuse images that are larger than the networks are made for, unless size= says that they may
    be; returns the options, and notes.

    An array in Python has no options: it is taken with a note, and size= among its options keeps it
    readable later.
    """
    height, width = space.shape[1:] if len(space.shape) == 3 else (0, 0)
    if "size" in options or min(height, width) < 28 or max(height, width) <= images.LARGEST:
        return options, []
    if name != "array":
        raise ValueError(images.too_large(height, width, name, count))
    made = (
        f"images of {height}x{width}: the networks are made for sides of at most {images.LARGEST}"
    )
    return {**options, "size": f"{height}x{width}"}, [made]


# -- in one pass -----------------------------------------------------------------------------------


@final
class _Derived:
    """Derive what depends on the space: what is fitted on the training split, and which rows are
    twins where bytes are used as they lie."""

    def __init__(
        self, parts: Mapping[str, Part], space: Space, options: Mapping[str, Any], name: str
    ) -> None:
        self.fit = _fit(space, parts["train"], options)
        picks, self.twins = self.fit.picks(), None
        grey = options.get("binarise", "none") != "none"
        if not grey and all(as_it_lies(whole, space, grey) for whole in distinct(parts.values())):
            self.twins = duplicates.Twins.among(
                parts, space, name in NAMED, lambda split, rows: space.inward(rows)
            )
            picks += [] if self.twins is None else self.twins.picks
        self._looks = [p.look for p in picks]

    def look(self, array: Any, start: int, rows: np.ndarray) -> None:
        for look in self._looks:
            look(array, start, rows)


@final
class _Guess:
    """Derive from what the cells seem to be in some rows, until one shows that they are not."""

    def __init__(
        self,
        parts: Mapping[str, Part],
        arrays: list[np.ndarray],
        options: Mapping[str, Any],
        name: str,
    ) -> None:
        self.space: Space | None = None
        seen = _Seen()
        for whole in arrays:
            some = Part(whole).spread(min(GUESSED, piece(whole)))
            seen.look(whole, 0, some.take(np.arange(len(some))))
        try:
            self.space, options, _ = _settled(seen, parts, options, name)
            self._derived = _Derived(parts, self.space, options, name)
        except ValueError:
            self.space = None

    def look(self, array: Any, start: int, rows: np.ndarray) -> None:
        if self.space is not None:
            try:
                self._derived.look(array, start, rows)
            except ValueError:
                self.space = None

    def confirmed(self, space: Space) -> _Derived | None:
        """Return what was derived if it was from that space."""
        return (
            self._derived
            if self.space is not None and self.space.scalars() == space.scalars()
            else None
        )


# -- what is derived from the training split -------------------------------------------------------


class _Fit(ABC):
    """Fit a space to rows of the training split, which come in groups."""

    def __init__(self, space: Space, train: Part) -> None:
        self.space, self.train = space, train

    def picks(self) -> list[Picked]:
        """Return which rows it wants to see."""
        return [Picked(self.train, piece(self.train.whole), self.look)]

    @abstractmethod
    def look(self, rows: np.ndarray) -> None: ...

    @abstractmethod
    def fitted(self) -> tuple[Space, list[str]]:
        """Return the fitted space, and what there is to say."""


def _fit(space: Space, train: Part, options: Mapping[str, Any]) -> _Fit:
    if space.kind in (Kind.REAL, Kind.UNIT):
        return _Real(space, train, options.get("standardise"))
    # frequencies are where a decoder starts, and need no more
    train = train.spread(max(1000, COUNTED // max(1, train.whole[:1].size)))
    if options.get("binarise", "none") != "none":
        return _Grey(space, train)
    return (_Means if space.kind in (Kind.BINARY, Kind.COUNT) else _Frequencies)(space, train)


@final
class _Grey(_Fit):
    """Fit probabilities of a one to 8-bit levels that are binarised."""

    def __init__(self, space: Space, train: Part) -> None:
        super().__init__(space, train)
        self.total = np.zeros(space.shape)

    def look(self, rows: np.ndarray) -> None:
        self.total += grey_levels(rows, self.space).sum(0, dtype=np.float64)

    def fitted(self) -> tuple[Space, list[str]]:
        return replace(
            self.space, marginal=np.asarray(self.total / (255 * len(self.train)), np.float32)
        ), []


@final
class _Means(_Fit):
    """Fit the means of binary data and counts."""

    def __init__(self, space: Space, train: Part) -> None:
        super().__init__(space, train)
        self.total, self.count = np.zeros(space.shape), np.zeros(space.shape)

    def look(self, rows: np.ndarray) -> None:
        observed = self.space.seen(rows)
        self.total += (self.space.inward(rows) * (1 if observed is None else observed)).sum(
            0, dtype=np.float64
        )
        self.count += len(rows) if observed is None else observed.sum(0)

    def fitted(self) -> tuple[Space, list[str]]:
        marginal = np.asarray(self.total / np.maximum(self.count, 1), np.float32)
        return replace(self.space, marginal=marginal), _missing_note(self.space)


@final
class _Frequencies(_Fit):
    """Fit the frequencies of levels and categories: of each cell, or of all together where that
    would be too many."""

    def __init__(self, space: Space, train: Part) -> None:
        super().__init__(space, train)
        self.small = space.levels * space.cells <= 1_000_000
        self.counts = np.zeros(space.cells * space.levels if self.small else space.levels, np.int64)
        self.offsets = space.levels * np.arange(space.cells)

    def look(self, rows: np.ndarray) -> None:
        space = self.space
        codes, observed = space.inward(rows).reshape(-1, space.cells), space.seen(rows)
        for start in range(0, len(codes), max(1, 2**23 // space.cells)):
            # One count over (cell, code) pairs, not a pass over the data for each code.
            part = slice(start, start + max(1, 2**23 // space.cells))
            pairs = codes[part] + self.offsets if self.small else codes[part]
            kept = (
                pairs.ravel()
                if observed is None
                else pairs[observed.reshape(-1, space.cells)[part]]
            )
            self.counts += np.bincount(kept, minlength=len(self.counts))

    def fitted(self) -> tuple[Space, list[str]]:
        space, counts = self.space, self.counts
        if self.small:
            counts = np.moveaxis(counts.reshape(*space.shape, space.levels), -1, 0)
            # A level unseen at a cell is not impossible there: each cell sees the pooled
            # frequencies `levels` times as well.
            pooled = (counts.reshape(space.levels, -1).sum(1) + 1) / (counts.sum() + space.levels)
            seen = counts + space.levels * pooled.reshape(-1, *[1] * len(space.shape))
            frequencies = seen / seen.sum(0)
        else:
            frequencies = ((counts + 1) / (counts.sum() + space.levels)).reshape(
                -1, *[1] * len(space.shape)
            )
        return replace(
            space, marginal=np.ascontiguousarray(frequencies, np.float32)
        ), _missing_note(space)


def _missing_note(space: Space) -> list[str]:
    return (
        ["some cells are missing: bounds are of what is observed, and missing at random is assumed"]
        if space.missing
        else []
    )


@final
class _Real(_Fit):
    """Fit offset, scale and grid of real values."""

    def __init__(self, space: Space, train: Part, standardise: str | None) -> None:
        super().__init__(space, train)
        self.how = (
            "none"
            if space.kind is Kind.UNIT
            else standardise or {1: "feature", 2: "channel"}.get(len(space.shape), "global")
        )
        if self.how == "channel" and not space.series:
            raise ValueError(f"expected standardise=channel for series alone; got {space}")
        self.plain = replace(space, offset=np.zeros(()), scale=np.ones(()))
        self.sums, self.count, self.largest = np.zeros(space.shape), np.zeros(space.shape), 0.0
        self.sample: np.ndarray = np.zeros((0, 0))

    def picks(self) -> list[Picked]:
        some = self.train.spread(max(100, SAMPLED // self.space.cells))
        return [*super().picks(), Picked(some, len(some), self._sampled)]

    def look(self, rows: np.ndarray) -> None:
        absent, inside = (
            np.isnan(rows) if rows.dtype.kind == "f" else np.zeros(1, bool),
            np.asarray(rows, np.float64),
        )
        if absent.any():
            inside = np.where(absent, 0.0, inside)
            self.count -= self.space.arranged(absent).sum(0)
        self.count += len(rows)
        with np.errstate(all="ignore"):
            self.sums += self.space.arranged(inside).sum(0)
        self.largest = max(self.largest, -float(inside.min()), float(inside.max()))

    def _sampled(self, rows: np.ndarray) -> None:
        self.sample = self.space.arranged(rows).reshape(len(rows), -1)

    def fitted(self) -> tuple[Space, list[str]]:
        space, train, whole = self.space, self.train, self.train.whole.dtype.kind in "iu"
        notes = _missing_note(space)
        if whole:
            notes.append(
                "whole numbers are dequantised: bounds are densities of values spread by one, "
                "and draws are rounded"
            )
        if not self.largest < 1e30:
            raise ValueError(f"expected values below 1e30 in size; got some up to {self.largest:g}")
        sums, count = self.sums, self.count
        if self.how == "channel":
            sums, count = (np.broadcast_to(x.sum(0), space.shape) for x in (sums, count))
        empty = int((count == 0).sum())
        if empty:
            always = f"got {empty} of {space.cells} cells that are always missing"
            raise ValueError(f"expected a value in every cell of some training row; {always}")
        offset, squares, missing = (
            sums / count,
            np.zeros(space.shape),
            bool((self.count < len(train)).any()),
        )

        def deviate(rows: np.ndarray) -> None:
            nonlocal squares
            apart = space.arranged(np.asarray(rows, np.float64)) - offset
            np.square(apart, apart)
            if missing:
                apart[np.isnan(apart)] = 0
            squares += apart.sum(0)

        once([train.whole], Picked(train, piece(train.whole), deviate).look)
        spread = np.sqrt(
            (np.broadcast_to(squares.sum(0), space.shape) if self.how == "channel" else squares)
            / count
        )
        spread = np.where(spread > 1e-12 * np.maximum(np.abs(offset), 1e-300), spread, 0.0)
        constant = spread == 0
        if constant.any():
            notes.append(
                f"{int(constant.sum())} of {space.cells} columns are constant in the training split"
            )
        resolution, origin, atoms, strays = self._resolution(notes)
        if self.how == "none":
            fitted = replace(
                self.plain, resolution=resolution, origin=origin, atoms=atoms, strays=strays
            )
        else:
            # A constant cell has no scale of its own, and its density could grow without end: it is
            # spread over its own size.
            own = np.where(offset == 0, 1.0, np.abs(offset))
            each = self.how in ("feature", "channel")
            scale = (
                np.where(constant, own, spread)
                if each
                else np.asarray(np.sqrt((spread**2).mean()) or 1.0)
            )
            if each and constant.any():
                resolution = np.where(constant, own, 0.0 if resolution is None else resolution)
                origin = np.where(constant, offset, 0.0 if origin is None else origin)
            fitted = replace(
                space,
                offset=offset,
                scale=scale,
                resolution=resolution,
                origin=origin,
                atoms=atoms,
                strays=strays,
            )
        if space.kind is Kind.UNIT:
            fitted = replace(fitted, marginal=np.asarray(offset, np.float32))
        if resolution is not None and not whole:
            notes += _grid_notes(fitted, constant)
        return fitted, notes

    def _resolution(
        self, notes: list[str]
    ) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None, np.ndarray | None]:
        """Return step, origin, atoms and strays of the sample's grids, for each feature or for all
        cells; None where there are none."""
        if self.train.whole.dtype.kind in "iu":
            return np.ones(()), np.zeros(()), None, None
        sample = (
            self.sample.reshape(-1, self.space.shape[-1]) if self.how == "channel" else self.sample
        )
        each = self.how in ("feature", "channel")
        columns = [sample[:, i] for i in range(sample.shape[1])] if each else [sample.ravel()]
        odd: list[tuple[int, np.ndarray, float]] = []
        grids = []
        for i, column in enumerate(columns):
            grid, off = _grid(column)
            step = float(widths(grid.step, np.nanstd(column))) if self.how == "none" else grid.step
            grids.append((step, grid.origin, grid.atoms, grid.strays))
            if len(off):
                odd.append((i, off, step))
        found = np.array(grids if each else grids[0])
        if self.how == "channel":
            found = np.broadcast_to(found, (*self.space.shape, 4))
        steps, origins, atoms, strays = (
            found[..., 0],
            found[..., 1],
            found[..., 2] > 0,
            found[..., 3] > 0,
        )
        if odd:
            count, (at, off, step) = sum(len(off) for _, off, _ in odd), odd[0]
            where = f", column {at}" if each and len(columns) > 1 else ""
            values = "1 value" if count == 1 else f"{count:,} values"
            notes.append(
                f"{values} off the grid, such as {off[0]}{where} (step {step:.2g}): rounded to "
                f"it for the model"
            )
        if not steps.any():
            return None, None, None, None
        return steps, origins, atoms if atoms.any() else None, strays if strays.any() else None


def _grid_notes(space: Space, constant: np.ndarray) -> list[str]:
    """Say which cells lie on a grid, and which repeat without one; `constant` ones are neither."""
    resolution, atoms, grid = space.resolution, space.atoms, space.grid()
    if resolution is None or grid is None or space.scale is None:
        return []
    repeated = (
        np.zeros(resolution.shape, bool)
        if atoms is None
        else np.broadcast_to(atoms, resolution.shape)
    )
    regular = (resolution > 0) & ~repeated
    wider = np.asarray(grid * space.scale > 1.5 * resolution)
    notes = []
    for which, what, end in (
        (regular & ~wider, "lie on a grid: dequantised with step", ""),
        (
            regular & wider,
            "lie on a grid that float32 does not resolve: dequantised with bins wider than its "
            "step",
            "",
        ),
        (
            repeated,
            "repeat without a regular grid: dequantised with bin width",
            ", which the bound depends on",
        ),
    ):
        which = which & ~constant if which.ndim else which
        steps = np.unique(resolution[which])
        if len(steps):
            whose = (
                "values"
                if which.all()
                else f"values of {int(which.sum()):,} of {which.size:,} cells"
            )
            shown = f" {steps[0]:g}" if len(steps) == 1 else f"s {steps[0]:g} .. {steps[-1]:g}"
            notes.append(f"{whose} {what}{shown}{end}")
    return notes


def _grid(values: np.ndarray) -> tuple[Lattice, np.ndarray]:
    """Return the grid of some numbers, NaN among them, and those that lie off it."""
    distinct, times = np.unique(values[~np.isnan(values)], return_counts=True)
    if len(distinct) < 2:
        return Lattice(), distinct[:0]
    spread = float(
        np.sqrt(np.average((distinct - np.average(distinct, weights=times)) ** 2, weights=times))
    )
    grid = lattice(distinct, times, spread)
    return grid, np.repeat(distinct[grid.off], times[grid.off]) if grid.strays else distinct[:0]
