"""Infer the space of arrays of numbers and fit its statistics, in as few passes as possible.

The kind of the cells follows from all of them, and the statistics depend on the kind. The kind is
therefore guessed from some rows, and the statistics are computed in the same pass. If the guess was
wrong, they take another pass. Deviations of real values take one more pass, because they are
computed from the mean.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, final

import numpy as np

from vaestro.data import duplicates, images
from vaestro.data.axes import Look, look_at
from vaestro.data.codes import code_notes
from vaestro.data.counting import why_not_all_counts
from vaestro.data.fitting import SAMPLED, fit_of
from vaestro.data.limits import with_limits
from vaestro.data.named import NAMED
from vaestro.data.passes import Part, RowSelector, Whole, distinct, once, piece
from vaestro.data.raw import Json, Options
from vaestro.data.readers import is_array_folder, is_images
from vaestro.data.source_values import missing_values
from vaestro.spaces import (
    LARGEST_COUNT,
    SPACES,
    BinarySpace,
    CategorySpace,
    CountSpace,
    Kind,
    LevelsSpace,
    RealSpace,
    Space,
    missing_cells,
    restored_space,
    with_gaps,
)

IN_MEMORY = 2**28  # size in bytes from which arrays are laid out in the cache
FEW = 10  # largest number of distinct integers that could be categories
MOST_LEVELS = 65536  # largest number of levels or categories
DEPTHS = (8, 10, 12, 14, 16)  # bits of a pixel
GUESSED = 1000  # number of rows from which the kind of the cells is guessed


class Inferred(NamedTuple):
    """Hold what was inferred from arrays.

    Args:
        space: of the data, fitted.
        options: of the source, resolved.
        notes: inferences about the data, one line each.
        shared: held-out rows that equal training rows, a line each; None if not searched for yet.
    """

    space: Space
    options: Options
    notes: list[str]
    shared: list[str] | None

    def save(self, folder: Path) -> Json:
        """Write the fitted arrays into a folder, and return the rest for JSON."""
        for name, array in self.space.arrays().items():
            np.save(folder / f"{name}.npy", array, allow_pickle=False)
        return {"found": self._words(), "hash": self._hash()}

    @classmethod
    def restore(cls, folder: Path, meta: Json) -> Inferred:
        """Read what `save` wrote.

        Raises:
            ValueError: the files were changed.
            KeyError, TypeError: the JSON has another structure.
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
            raise ValueError(f"expected the files that were written into {folder}; got others")
        return inferred

    def _words(self) -> Json:
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


def infer_space(parts: Mapping[str, Part], options: Options, name: str) -> Inferred:
    """Infer the kind of the values of arrays (binary, levels, counts, categories or real), and fit
    the space to the training split.

    Args:
        parts: the splits.
        options: of the source.
        name: of the source.

    Raises:
        ValueError: the values cannot be modelled, or are not of the kind that the options name.
    """
    wholes = distinct(parts.values())
    for whole in wholes:
        if whole.shape[1:] != wholes[0].shape[1:]:
            raise ValueError(
                f"expected splits of one shape; got {wholes[0].shape[1:]} and {whole.shape[1:]} "
                f"in {name}"
            )
    pictures = is_images(name) and not is_array_folder(name)
    known = name in NAMED or pictures or not isinstance(wholes[0], np.ndarray)
    known = known and "onehot" not in options
    look = look_at(parts["train"], options, name, known)
    seen, guess = _Scan(look, options), _Guess(parts, wholes, look, name)
    once(wholes, seen.look, guess.look)
    space, options, notes = _resolve(seen, parts, look, name)
    derived = guess.confirmed(space)
    if derived is None:
        derived = _Derived(parts, space, options, name)
        once(wholes, derived.look)
    space, fit_notes = derived.fitted()
    if not known and look.onehot is None:
        notes = code_notes((seen.low, seen.high), look.rows, wholes[0].dtype) + notes
    twins = None if derived.twins is None else derived.twins.notes()
    return Inferred(space, options, look.notes + notes + fit_notes, twins)


def large(array: np.ndarray, space: Space) -> bool:
    """Return whether an array is too large to be laid out in memory."""
    return array.size * (1 if space.levels and space.levels <= 256 else 4) > IN_MEMORY


def as_it_lies(array: np.ndarray, space: Space, grey: bool) -> bool:
    """Return whether an array is large, and its bytes are the codes inside."""
    plain = space.levels > 0 and space.has_mean and space.low == 0 and space.step == 1
    plain = plain and not space.missing
    return large(array, space) and array.dtype == np.uint8 and (grey or plain)


# -- the kind of the cells -------------------------------------------------------------------------


class _Scan:
    """Collect the range and the kind of the values of arrays, chunk by chunk."""

    def __init__(self, look: Look, options: Options) -> None:
        self._onehot = look.onehot
        self.absent = _absent(options)
        self.missing = 0
        self.zeros = False  # whether a one-hot vector is zero
        self.low, self.high = np.inf, -np.inf
        # bytes: multiples of 1 / 255; two: none but `low` and `high`
        self.integral = self.bytes = self.two = True
        self.nan = self.infinite = 0
        self.divisor = 0  # the greatest common divisor of values of 16 bits

    def look(self, array: Whole, start: int, values: np.ndarray) -> None:
        if self._onehot is not None:
            self.zeros |= not (values != 0).any(self._onehot + 1).all()
        whole = values.dtype.kind != "f" or bool(np.isfinite(values).all())
        missing = None if whole and not self.absent else missing_cells(values, self.absent)
        if not whole:
            self.nan += int(np.isnan(values).sum())
            infinite = np.isinf(values) if missing is None else np.isinf(values) & ~missing
            self.infinite += int(infinite.sum())
            missing = infinite if missing is None else missing | infinite
        if missing is not None and missing.any():
            self.missing += int(missing.sum())
            values = values[~missing]
        if values.dtype.kind == "f":
            if self.integral and values.size:
                head = values.ravel()[:1000]  # a few values are sufficient for most data
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
            if values.dtype == np.uint16 and self.divisor != 1:
                some = int(np.gcd.reduce(values.ravel()[:1000]))
                every = 1 if some == 1 else int(np.gcd.reduce(values, axis=None))
                self.divisor = int(np.gcd(self.divisor, every))


def _absent(options: Options) -> tuple[str, ...]:
    """Return the values other than NaN that mean a missing cell."""
    return tuple(word for word in missing_values(options.get("missing")) if word != "nan")


def _resolve(
    seen: _Scan, parts: Mapping[str, Part], look: Look, name: str
) -> tuple[Space, Options, list[str]]:
    """Return the space, the resolved options, and notes."""
    arrays, options = distinct(parts.values()), look.options
    space = _space(seen, arrays, look, name)
    notes = _depth_note(space) if "levels" not in options else []
    if space.standardised and "kind" not in options and seen.integral:
        space, notes = _whole(space, seen, parts["train"], name)
    options, more = _sides(space, dict(options), name, len(arrays[0]))
    notes += more
    space, options, more = with_limits(space, (seen.low, seen.high), parts["train"], options, name)
    notes += more
    binarise = options.get("binarise", "none")
    if binarise != "none":
        bytes_ = space.ordered and space.levels == 256 and space.low == 0 and space.step == 1
        if not bytes_:
            raise ValueError(f"expected 8-bit levels 0 .. 255 to binarise; got {space} in {name}")
        space = space.converted(BinarySpace, levels=2, step=255.0)
        notes.append(binarised_note(binarise))
    return space, options, notes


def binarised_note(how: str) -> str:
    """Return a note on how grey levels are binarised: dynamic or static."""
    return f"{how} binarisation with P(1) = level / 255" + (
        ", anew at every access" if how == "dynamic" else ""
    )


def _check_values(seen: _Scan, options: Options, name: str) -> None:
    """Raise ValueError if values are not finite, all missing, or all the same."""
    words = missing_values(options.get("missing"))
    refused = {"nan": seen.nan if "nan" not in words else 0, "inf": seen.infinite}
    if any(refused.values()):
        more = "+".join([*words, *(word for word, count in refused.items() if count)])
        raise ValueError(
            f"expected finite values in {name}; got {seen.nan} NaN and {seen.infinite} infinite "
            f"(missing={more} takes them as missing)"
        )
    low, high = seen.low, seen.high
    if low > high:
        raise ValueError(f"expected values in {name}; got nothing but missing cells")
    if low == high:
        raise ValueError(f"expected data that vary; got {low:g} in every cell of {name}")


def _space(seen: _Scan, arrays: list[np.ndarray], look: Look, name: str) -> Space:
    shape, dtype = arrays[0].shape[1:], arrays[0].dtype
    layout, options = look.layout, look.options
    _check_values(seen, options, name)
    low, high, integral = seen.low, seen.high, seen.integral
    rest = tuple(size for at, size in enumerate(shape) if at != look.onehot)
    base = RealSpace(
        layout.inside(rest),
        shape,
        dtype.name,
        missing=seen.missing > 0,
        layout=layout,
        absent=seen.absent,
    )
    asked = options.get("kind")
    if look.onehot is not None:
        if asked not in (None, "category"):
            raise ValueError(f"expected kind=category for onehot=; got kind={asked} for {name}")
        levels = shape[look.onehot] + int(seen.zeros)
        return base.converted(CategorySpace, levels=levels, onehot=look.onehot)
    deep = layout.pixels and dtype == np.uint16 and not seen.two and high > 255
    if deep and asked in (None, "levels"):
        if "levels" not in options:
            return base.converted(LevelsSpace, levels=_depth(seen), step=float(seen.divisor))
        asked = "levels"
    if asked is None:
        asked = (
            "binary" if seen.two else "levels" if integral and low >= 0 and high <= 255 else "real"
        )
        if asked == "real" and layout.pixels and low >= 0 and high <= 1 and seen.bytes:
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
    return _coded(base, seen, asked, options, name)


def _coded(base: Space, seen: _Scan, asked: str, options: Options, name: str) -> Space:
    """Return the space of counts, levels or categories."""
    low, high = seen.low, seen.high
    if not seen.integral:
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
    if levels < 2 or levels > MOST_LEVELS or high - low > levels - 1:
        raise ValueError(
            f"expected levels between {max(2, int(high - low) + 1)} and {MOST_LEVELS}; got "
            f"{levels} in {name}"
        )
    return base.converted(SPACES[Kind(asked)], low=low, levels=levels)


def _depth(seen: _Scan) -> int:
    """Return the number of levels of images of 16 bits: that of the smallest usual depth of cameras
    with room for the largest value. Their values may be multiples of a number."""
    most = int(seen.high) // seen.divisor
    return next(2**bits for bits in DEPTHS if most < 2**bits)


def _depth_note(space: Space) -> list[str]:
    """Return a note on the number of levels of images of 16 bits."""
    if not (space.ordered and space.layout.pixels and space.levels > 256):
        return []
    hint = " (levels=65536 reads all 16 bits)"
    bits, end = space.levels.bit_length() - 1, space.step * (space.levels - 1)
    steps = f" in steps of {space.step:g}" if space.step > 1 else ""
    return [f"levels of {bits} bits, 0 to {end:,.0f}{steps}{hint if bits < 16 else ''}"]


def _whole(space: Space, seen: _Scan, train: Part, name: str) -> tuple[Space, list[str]]:
    """Choose between counts and real values on a grid of 1 for whole numbers beyond 0 .. 255, by
    rows of the training split.

    Raises:
        ValueError: they are integers of so few values that they could be categories.
    """
    some = train.spread(max(100, SAMPLED // space.cells))
    rows = some.take(np.arange(len(some))).reshape(len(some), -1)
    rows = with_gaps(rows, space.absent)
    if len(np.unique(rows[~np.isnan(rows)] if rows.dtype.kind == "f" else rows)) <= FEW:
        if train.whole.dtype.kind in "iu":
            got = f"few values from {seen.low:g} to {seen.high:g}"
            raise ValueError(
                f"expected kind= for integers of so few values; got {got}: try kind=real"
                + (" or kind=category" if seen.high - seen.low < MOST_LEVELS else "")
            )
        return space, []
    numbers = f"whole numbers from {seen.low:,.0f} to {seen.high:,.0f}"
    if seen.low < 0:
        coded = " (kind=category reads codes)" if seen.high - seen.low < MOST_LEVELS else ""
        return space, [f"{numbers} read as real on a grid of 1{coded}"]
    why = (
        why_not_all_counts(rows)
        if seen.high <= LARGEST_COUNT
        else f"values above {LARGEST_COUNT:,}"
    )
    if why is None:
        return space.converted(CountSpace), [f"{numbers} read as counts (kind=real overrules)"]
    return space, [
        f"{numbers} read as real on a grid of 1, not as counts ({why})"
        + ("; kind=count overrules" if seen.high <= LARGEST_COUNT else "")
    ]


def _sides(space: Space, options: Options, name: str, count: int) -> tuple[Options, list[str]]:
    """Check the sides of images, and return the options and notes.

    Images that are too large for the networks are refused, unless the option `size` is given. An
    array in Python is accepted with a note; its options then contain `size`, so that it can be read
    again.

    Raises:
        ValueError: the images are too large.
    """
    height, width = space.shape[1:] if len(space.shape) == 3 else (0, 0)
    if "size" in options or min(height, width) < 28 or max(height, width) <= images.LARGEST:
        return options, []
    if name != "array":
        raise ValueError(images.too_large(height, width, name, count, "scale them"))
    note = (
        f"images of {height}x{width}: the networks are made for sides of at most {images.LARGEST}"
    )
    return {**options, "size": f"{height}x{width}"}, [note]


# -- in one pass -----------------------------------------------------------------------------------


@final
class _Derived:
    """Compute what depends on the space: its statistics in the training split, and the rows that
    equal others if the bytes of the file are used directly."""

    def __init__(
        self, parts: Mapping[str, Part], space: Space, options: Options, name: str
    ) -> None:
        train = parts["train"]
        self._fit, self._space = fit_of(space, train, options), space
        picks, self.twins = self._fit.picks(), None
        self._observed = np.zeros(space.shape, bool)
        if space.missing:
            picks.append(RowSelector(train, piece(train.whole), self._observe))
        grey = options.get("binarise", "none") != "none"
        if not grey and all(as_it_lies(whole, space, grey) for whole in distinct(parts.values())):
            self.twins = duplicates.Twins.among(
                parts, space, name in NAMED, lambda split, rows: space.inward(rows)
            )
            picks += [] if self.twins is None else self.twins.picks
        self._looks = [p.look for p in picks]

    def look(self, array: Whole, start: int, rows: np.ndarray) -> None:
        for look in self._looks:
            look(array, start, rows)

    def _observe(self, rows: np.ndarray) -> None:
        seen = self._space.seen(rows)
        self._observed |= True if seen is None else seen.any(0)

    def fitted(self) -> tuple[Space, list[str]]:
        """Return the fitted space, and notes."""
        space, notes = self._fit.fitted()
        cells = ~space.layout.learnable(self._observed)
        unseen = int(cells.sum())
        if not space.missing or not unseen:
            return space, notes
        note = (
            f"{unseen:,} of {space.cells:,} cells are missing in every training row: not modelled, "
            f"and missing in samples"
        )
        return replace(space, unseen=cells), [*notes, note]


@final
class _Guess:
    """Compute what depends on a guessed space, until a row contradicts the guess."""

    def __init__(
        self, parts: Mapping[str, Part], arrays: list[np.ndarray], look: Look, name: str
    ) -> None:
        self.space: Space | None = None
        seen = _Scan(look, look.options)
        for whole in arrays:
            some = Part(whole).spread(min(GUESSED, piece(whole)))
            seen.look(whole, 0, some.take(np.arange(len(some))))
        try:
            self.space, options, _ = _resolve(seen, parts, look, name)
            self._derived = _Derived(parts, self.space, options, name)
        except ValueError:
            self.space = None

    def look(self, array: Whole, start: int, rows: np.ndarray) -> None:
        if self.space is not None:
            try:
                self._derived.look(array, start, rows)
            except ValueError:
                self.space = None

    def confirmed(self, space: Space) -> _Derived | None:
        """Return the computed values if the guess was this space."""
        return (
            self._derived
            if self.space is not None and self.space.scalars() == space.scalars()
            else None
        )
