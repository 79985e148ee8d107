"""Make data of what was read: split it, infer what it is, fit what is derived from it, and lay it out for training.

Everything that is derived from data (means, scales, frequencies) comes from the training split; what a cell can be (levels,
categories) comes from all splits. Arrays are looked at piece by piece and laid out in memory, or, where they are
large, in memory-mapped files in the cache, so that data larger than memory can be trained on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from vaestro.data import cache, duplicates, images, tables
from vaestro.data.readers import IMAGE, NAMED, OPTIONS, TABLE, Progress, is_images, parse_source, plain, read
from vaestro.data.sets import Data, Raw, Rows
from vaestro.parts import nearest
from vaestro.randomness import numpy_generator
from vaestro.spaces import Column, Frame, Kind, Space

PIECE = 2**24  # bytes that are looked at together
COUNTED = 200_000_000  # cells from which frequencies are counted
IN_MEMORY = 2**28  # bytes from which arrays are laid out in the cache
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True, eq=False)
class _Part:
    """Hold one split before it is laid out: some rows of an array or table."""

    whole: Any
    index: np.ndarray | None = None
    attributes: dict[str, np.ndarray] = field(default_factory=dict)
    given: np.ndarray | None = None  # codes of the conditions of each row

    def __len__(self) -> int:
        return len(self.whole) if self.index is None else len(self.index)

    def some(self, cells: int) -> _Part:
        """Return the part, or rows of it at equal distances, with no more cells than that."""
        rows = max(1000, cells // max(1, self.whole[:1].size))
        if rows >= len(self):
            return self
        at = np.linspace(0, len(self) - 1, rows).astype(np.int64)
        return _Part(self.whole, at if self.index is None else self.index[at])

    def pieces(self) -> Iterator[np.ndarray]:
        """Yield the rows, some megabytes at a time."""
        for part in _pieces(self.whole, len(self)):
            yield self.whole[part] if self.index is None else self.whole[self.index[part]]


def _pieces(array: Any, rows: int | None = None) -> Iterator[slice]:
    rows = len(array) if rows is None else rows
    size = max(1, PIECE // max(1, array[:1].nbytes)) if isinstance(array, np.ndarray) else max(1, rows)
    for start in range(0, max(1, rows), size):
        yield slice(start, min(rows, start + size))


# -- load -------------------------------------------------------------------------------------------------------------


def load(source: Any = "mnist", *, condition: Sequence[str] = (), progress: Progress | None = None) -> Data:
    """Read a source into training, validation and test data.

    A source without splits of its own is split 90 / 5 / 5 by seed. Arrays are taken as they are, and tables in Python
    too: a mapping of columns, a pandas or Arrow table.

    Args:
        source: a name (`mnist`, `shapes`, `digits`), a path to .npy, .npz, IDX, .csv, .parquet, .json or a folder of images,
            `hf:OWNER/NAME`, each with options after a colon; or an array (N, ...) or table.
        condition: attributes, or columns of a table, that are given to the model and not modelled.
        progress: called with (what, done, total) while something takes long.

    Raises:
        ValueError: the source cannot be read, is too small to split, holds images with sides above 256 without `size`, or has no such
            attribute.
    """
    name, options, raw = _opened(source, progress)
    if name == "mnist":
        options = {"binarise": "dynamic", **options}
    parts, notes = _split(raw, options, name)
    notes = [*raw.notes, *notes]
    parts, given_space, given_notes = _given(parts, condition, name)
    table = isinstance(parts["train"].whole, Frame)
    binarise = options.get("binarise", "none")
    if table:
        space, made = _infer_table(parts, options, name)
        notes += made
    else:
        space = _infer(_distinct(parts), options, name)
        options, made = _large(space, options, name, len(_distinct(parts)[0]))
        notes += made
        if binarise != "none":
            if space.kind is not Kind.LEVELS or space.levels != 256 or space.low != 0 or space.step != 1:
                raise ValueError(f"expected 8-bit levels 0 .. 255 to binarise; got {space} in {name}")
            space = replace(space, kind=Kind.BINARY, levels=2, step=255.0)
            notes.append(f"{binarise} binarisation with P(1) = level / 255" + (", anew at every access" if binarise == "dynamic" else ""))
        space, made = _fit(space, parts["train"], options.get("standardise"), binarise != "none")
        notes += made
    rows = _rows(parts, space, binarise, given_space, progress)
    shared = duplicates.between(rows, name in NAMED)
    notes += given_notes + shared
    sizes = " / ".join(f"{len(rows[s]):,}" for s in SPLITS)
    notes.insert(0, f"{space}, {sizes} for training, validation and test")
    full = _resolved(name) + (":" + ",".join(f"{k}={_written(v)}" for k, v in options.items()) if options else "")
    return Data(rows["train"], rows["valid"], rows["test"], space, full, tuple(notes), given_space, tuple(shared))


def _resolved(name: str) -> str:
    return name if name in (*NAMED, "array", "table") or name.startswith("hf:") else str(Path(name).expanduser().resolve())


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def load_rows(
    source: Any,
    space: Space,
    split: str | None = None,
    *,
    given: Space | None = None,
    conditions: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Rows:
    """Read a source as data of a known space: what `encode` and its kin do.

    Args:
        source: as for `load`. A folder of images is brought to the space's size.
        space: what the data must be.
        split: train, valid, test, or all; by default all rows of a source without splits of its own, and else test.
        given: the space of the conditions, which must be among the source's attributes or columns, or in `conditions`.
        conditions: {name: value}, what is given to all rows in place of the source's own.
        progress: as for `load`.

    Raises:
        ValueError: the data are of another shape or kind, or lack a condition.
    """
    fixed = tables.condition_columns(given, conditions or {}, 1)
    if isinstance(source, (str, Path)):
        source = _fitting(str(source), space)
    columns = (*space.columns, *(given.columns if given is not None else ()))
    name, options, raw = _opened(source, progress, columns if space.kind is Kind.TABLE else None)
    binarise = options.get("binarise", "dynamic" if name == "mnist" and space.kind is Kind.BINARY else "none")
    if split not in (None, "all", *SPLITS):
        raise ValueError(f"expected train, valid, test or all; got {split!r}")
    if "all" in raw.splits:
        if split not in (None, "all"):
            parts, _ = _split(raw, options, name)
        else:
            parts, split = {"all": _Part(raw.splits["all"], None, dict(raw.attributes.get("all", {})))}, "all"
    else:
        parts = {s: _Part(a, None, dict(raw.attributes.get(s, {}))) for s, a in raw.splits.items()}
    split = split or "test"
    chosen = {s: p for s, p in parts.items() if split in (s, "all") and len(p)}
    if not chosen:
        raise ValueError(f"expected a {split} split in {name}; got {', '.join(raw.splits)}")
    if given is not None:
        chosen, _, _ = _given(chosen, given.names, name, given, fixed)
    for part in chosen.values():
        if not isinstance(part.whole, Frame) and part.whole.shape[1:] != space.outside:
            shape = ", ".join(map(str, space.outside))
            raise ValueError(f"expected data of shape (N, {shape}), as the run was trained on; got {part.whole.shape}")
    made = [r.fixed() for r in _rows(chosen, space, binarise, given, progress).values()]
    if len(made) == 1:
        return replace(made[0], name=split)
    joined = {k: np.concatenate([r.attributes[k] for r in made]) for k in made[0].attributes}
    values = np.concatenate([r._values(slice(None)) for r in made])
    observed = [np.ones((len(r), *space.shape), bool) if r.observed is None else r._take(r.observed, slice(None)) for r in made]
    return Rows(
        values,
        space,
        split,
        attributes=joined,
        observed=None if all(r.observed is None for r in made) else np.concatenate(observed),
        given=None if given is None else np.concatenate([r.given for r in made if r.given is not None]),
        given_space=given,
    )


def completed(source: Any, filled: Frame) -> Frame:
    """Return a source's own table with its empty cells taken from `filled`; columns that are not modelled stay as they are."""
    if isinstance(source, (str, Path)):
        name, options = parse_source(source)
        text = [n for n, column in filled.columns.items() if column.dtype.kind == "U"]
        suffix = Path(name).suffix.lower()
        whole = tables.read_table(Path(name), {}, text=text) if suffix in tables.SUFFIXES else read(name, options)
        frame = whole.splits.get("all")
    else:
        frame = _opened(source, None)[2].splits.get("all")
    if not isinstance(frame, Frame) or len(frame) != len(filled):
        return filled
    columns = {}
    for name, own in frame.columns.items():
        made = filled.columns.get(name)
        if made is None:
            columns[name] = own
        else:
            hole = np.ma.getmaskarray(own)
            columns[name] = np.ma.MaskedArray(np.where(hole, made.data, own.data)) if own.dtype.kind == made.dtype.kind else made
    return Frame(columns)


def _fitting(source: str, space: Space) -> str:
    """Bring a folder of images to the space's size and channels, unless its options say otherwise."""
    name, options = parse_source(source)
    if "size" in options or not (_folder(name) and space.image and space.kind in (Kind.LEVELS, Kind.BINARY)):
        return source
    size = f"{space.shape[1]}x{space.shape[2]}"
    options = {"size": size, "channels": "grey" if space.shape[0] == 1 else "colour", **options}
    return f"{name}:" + ",".join(f"{k}={_written(v)}" for k, v in options.items())


def _folder(name: str) -> bool:
    """Tell whether a source may hold images that are brought to a size."""
    return name.startswith("hf:") or Path(name).expanduser().is_dir()


def _opened(source: Any, progress: Progress | None, columns: Sequence[Column] | None = None) -> tuple[str, dict[str, Any], Raw]:
    """Return a source's name, options and what it holds."""
    if isinstance(source, np.ndarray):
        return "array", {}, Raw({"all": plain(source, Path("the array"))})
    if not isinstance(source, (str, Path)):
        return "table", {}, Raw({"all": source if isinstance(source, Frame) else tables.frame_of(source)})
    name, options = parse_source(source)
    raw = read(name, options, progress, columns)
    first = next(iter(raw.splits.values()))
    unfit = [k for k in options if k in (IMAGE if isinstance(first, Frame) else TABLE)]
    folder = _folder(name)
    if not isinstance(first, Frame) and not folder and name not in NAMED:
        own = first.ndim in (3, 4) and "size" in options and images._target(options).size == first.shape[1:3]
        unfit += [k for k in options if k in IMAGE and not (k == "size" and own)]
    if folder and not is_images(name):
        unfit = [k for k in unfit if k != "ignore"]
    if isinstance(first, Frame):
        unfit += [k for k in options if k in ("kind", "binarise", "standardise", "levels", "array", "missing")]
    if unfit:
        what = "a table" if isinstance(first, Frame) else "images" if folder else "arrays"
        raise ValueError(f"expected options for {what} in {name}; got {unfit[0]}= ({OPTIONS[unfit[0]]})")
    return name, options, raw


# -- splits and conditions --------------------------------------------------------------------------------------------


def _split(raw: Raw, options: Mapping[str, Any], name: str) -> tuple[dict[str, _Part], list[str]]:
    """Return the three splits, with what was done in words."""
    parts = {s: _Part(a, None, dict(raw.attributes.get(s, {}))) for s, a in raw.splits.items()}
    missing = list(SPLITS) if "all" in parts else [s for s in ("valid", "test") if s not in parts]
    fixed = [k for k in ("valid", "test", "seed") if k in options and ((k == "seed" and not missing) or k in parts) and name != "mnist"]
    if name == "mnist":
        fixed = [k for k in ("test", "seed") if k in options]
    if fixed:
        raise ValueError(f"expected no {fixed[0]}= for {name}, which brings its own splits; got {fixed[0]}={options[fixed[0]]}")
    if not missing:
        return {s: parts[s] for s in SPLITS}, []
    whole = parts.pop("all" if "all" in parts else "train")
    n = len(whole)
    sizes: dict[str, int] = {s: options.get(s, max(1, round(0.05 * n))) for s in ("valid", "test") if s in missing}
    if n >= 10 and n - sum(sizes.values()) < 1:
        held = " and ".join(map(str, sizes.values()))
        raise ValueError(f"expected valid and test to leave data for training; got {held} of {n} in {name}")
    if n < 10:
        raise ValueError(f"expected at least 10 data to split into training, validation and test; got {n} in {name}")
    order = numpy_generator(options.get("seed", 0), "split").permutation(n)
    start, chosen = n, {}
    for s, size in reversed(sizes.items()):
        chosen[s] = order[start - size : start]
        start -= size
    chosen["train"] = order[:start]
    for s, index in chosen.items():
        index = np.sort(index)
        parts[s] = _Part(whole.whole, index, {k: v[index] for k, v in whole.attributes.items()})
    return {s: parts[s] for s in SPLITS}, [f"split by seed {options.get('seed', 0)}"]


def _distinct(parts: Mapping[str, _Part]) -> list[Any]:
    """Return the arrays or tables that the splits are rows of, each once."""
    return list({id(p.whole): p.whole for p in parts.values() if len(p.whole)}.values())


def _given(
    parts: dict[str, _Part],
    names: Sequence[str],
    source: str,
    space: Space | None = None,
    fixed: Mapping[str, np.ma.MaskedArray] | None = None,
) -> tuple[dict[str, _Part], Space | None, list[str]]:
    """Take the conditions out of attributes, or out of a table, whose columns they then no longer are; `fixed` ones win over both."""
    if not names:
        return parts, None, []
    if len(set(names)) < len(names):
        raise ValueError(f"expected each condition once; got {', '.join(names)}")
    found: dict[str, _Part] = {}
    left: dict[int, Frame] = {}  # splits that are rows of one table stay rows of one
    for s, part in parts.items():
        attributes, whole = dict(part.attributes), part.whole
        for name in names:
            if isinstance(whole, Frame) and name in whole.columns:
                column = whole.columns[name]
                attributes[name] = column if part.index is None else column[part.index]
            if fixed and name in fixed:
                attributes[name] = np.ma.MaskedArray(np.repeat(fixed[name].data, len(part)))
        if isinstance(whole, Frame):
            rest = {k: v for k, v in whole.columns.items() if k not in names}
            whole = left.setdefault(id(part.whole), Frame(rest))
        absent = [name for name in names if name not in attributes]
        if absent and space is not None:
            remedy = f"--condition {absent[0]}=VALUE gives one to all rows"
            wanted = f"{source} to have {absent[0]!r}, which the model is conditioned on"
            raise ValueError(f"expected {wanted}; got no such column or attribute ({remedy})")
        if absent:
            known = [*attributes, *(whole.columns if isinstance(whole, Frame) else ())]
            offer = nearest(absent[0], known) if known else "none, since there are no attributes"
            raise ValueError(f"expected a condition that {source} has: {offer}; got {absent[0]!r}")
        if isinstance(whole, Frame) and not whole.columns:
            raise ValueError(f"expected columns to model beside the conditions in {source}; got none")
        found[s] = _Part(whole, part.index, attributes)
    frames = {s: tables.frame_of({n: p.attributes[n] for n in names}) for s, p in found.items()}
    for name in names:
        empty = {s: np.flatnonzero(np.ma.getmaskarray(f.columns[name])) for s, f in frames.items()}
        count = sum(map(len, empty.values()))
        if count:
            first = {s: int(at[0]) if (index := found[s].index) is None else int(index[at[0]]) for s, at in empty.items() if len(at)}
            s = next(iter(first))
            row = f"{min(first.values()) + 1:,}" if len(_distinct(found)) == 1 else f"{first[s] + 1:,} of {s}"
            got = f"{count:,} empty cells, the first in row {row}" if count > 1 else f"an empty cell in row {row}"
            raise ValueError(f"expected a value of the condition {name!r} in every row of {source}; got {got}")
    notes = []
    if space is None:
        joined = {n: np.ma.concatenate([f.columns[n] for f in frames.values() if len(f)]) for n in names}
        space, _ = tables.infer_space(Frame(joined), frames["train"], {}, source)
        notes = [f"conditioned on {', '.join(names)}: bounds are of log p(x | {', '.join(names)})"]
    codes = {s: space.inward(f) for s, f in frames.items()}
    return {s: replace(p, given=codes[s]) for s, p in found.items()}, space, notes


# -- what the cells are -----------------------------------------------------------------------------------------------


def _infer_table(parts: Mapping[str, _Part], options: Mapping[str, Any], name: str) -> tuple[Space, list[str]]:
    frames = {s: p.whole if p.index is None else p.whole[p.index] for s, p in parts.items()}
    columns = set(frames["train"].columns)
    for frame in frames.values():
        if set(frame.columns) != columns:
            differing = sorted(columns ^ set(frame.columns))
            raise ValueError(f"expected splits with the same columns in {name}; got {differing[0]!r} in some only")
    whole = Frame({n: np.ma.concatenate([f.columns[n] for f in frames.values() if len(f)]) for n in frames["train"].columns})
    return tables.infer_space(whole, frames["train"], options, name)


def _large(space: Space, options: dict[str, Any], name: str, count: int) -> tuple[dict[str, Any], list[str]]:
    """Refuse images that are larger than the networks are made for, unless size= says that they may be; returns the options, and notes.

    An array in Python has no options: it is taken with a note, and size= among its options keeps it readable later.
    """
    height, width = space.shape[1:] if len(space.shape) == 3 else (0, 0)
    if "size" in options or min(height, width) < 28 or max(height, width) <= images.LARGEST:
        return options, []
    if name != "array":
        raise ValueError(images.too_large(height, width, name, count))
    made = f"images of {height}x{width}: the networks are made for sides of at most {images.LARGEST}"
    return {**options, "size": f"{height}x{width}"}, [made]


def _infer(arrays: list[np.ndarray], options: Mapping[str, Any], name: str) -> Space:
    """Say what the values are: binary, levels, counts, categories or real."""
    shape = arrays[0].shape[1:]
    for array in arrays:
        if array.shape[1:] != shape:
            raise ValueError(f"expected splits of one shape; got {shape} and {array.shape[1:]} in {name}")
    inside = {0: (1,), 2: (1, *shape)}.get(len(shape), shape)
    if len(shape) == 3:
        inside = (shape[2], *shape[:2])
    dtype = arrays[0].dtype
    seen = _Seen()
    for array in arrays:
        for part in _pieces(array):
            seen.look(array[part])
    if seen.infinite or (seen.nan and options.get("missing") != "nan"):
        advice = " (missing=nan takes NaN as missing)" if seen.nan and not seen.infinite else ""
        raise ValueError(f"expected finite values in {name}; got {seen.nan} NaN and {seen.infinite} infinite{advice}")
    low, high, integral = seen.low, seen.high, seen.integral
    if seen.nan == sum(a.size for a in arrays):
        raise ValueError(f"expected values in {name}; got nothing but NaN")
    if low == high:
        raise ValueError(f"expected data that vary; got {low:g} in every cell of {name}")
    two = _only(arrays, low, high)
    base = Space(Kind.REAL, inside, shape, dtype.name, missing=seen.nan > 0)
    asked = options.get("kind")
    if asked is None:
        asked = "binary" if two else "levels" if integral and low >= 0 and high <= 255 else "real"
        if asked == "real" and dtype.kind in "iu":
            raise ValueError(f"expected kind= for integers from {low:g} to {high:g}; got none: try {name}:kind=real")
        if asked == "real" and len(shape) in (2, 3) and low >= 0 and high <= 1 and seen.bytes:
            return replace(base, kind=Kind.LEVELS, step=1 / 255, levels=256)
    if asked in ("real", "unit"):
        if asked == "unit" and (low <= 0 or high >= 1):
            raise ValueError(f"expected values inside (0, 1) for kind=unit; got some from {low:g} to {high:g} in {name}")
        return replace(base, kind=Kind(asked))
    if asked == "binary":
        if not two:
            raise ValueError(f"expected two values in binary data; got more, from {low:g} to {high:g}, in {name}")
        return replace(base, kind=Kind.BINARY, low=low, step=high - low, levels=2)
    if not integral:
        raise ValueError(f"expected whole numbers in {asked} data; got fractions in {name}")
    if asked == "count":
        if low < 0:
            raise ValueError(f"expected counts of 0 or more; got {low:g} in {name}")
        return replace(base, kind=Kind.COUNT)
    if asked == "levels":
        if low < 0:
            raise ValueError(f"expected levels of 0 or more; got {low:g} in {name}")
        levels = options.get("levels", 256 if high > 127 and high <= 255 else int(high) + 1)
        low = 0.0
    else:
        levels = options.get("levels", int(high - low) + 1)
    if levels < 2 or levels > 65536 or high - low > levels - 1:
        raise ValueError(f"expected levels between {max(2, int(high - low) + 1)} and 65536; got {levels} in {name}")
    return replace(base, kind=Kind(asked), low=low, levels=levels)


class _Seen:
    """Gather, piece by piece, what the values of arrays are like."""

    def __init__(self) -> None:
        self.low, self.high = np.inf, -np.inf
        self.integral = self.bytes = True  # bytes: multiples of 1 / 255
        self.nan = self.infinite = 0

    def look(self, values: np.ndarray) -> None:
        if values.dtype.kind == "f":
            finite = np.isfinite(values)
            if not finite.all():
                self.nan += int(np.isnan(values).sum())
                self.infinite += int(np.isinf(values).sum())
                values = values[finite]
            if self.integral and values.size:
                head = values.ravel()[:1000]  # most data are told apart by a few values
                self.integral = bool((head == np.rint(head)).all() and (values == np.rint(values)).all())
            if self.bytes and values.size:
                head = values.ravel()[:1000].astype(np.float64) * 255
                self.bytes = bool((np.abs(head - np.rint(head)) < 1e-3).all())
                if self.bytes:
                    scaled = values.astype(np.float64) * 255
                    self.bytes = bool((np.abs(scaled - np.rint(scaled)) < 1e-3).all())
        if values.size:
            self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))


def _only(arrays: Sequence[np.ndarray], low: float, high: float) -> bool:
    """Tell whether the values are `low` and `high` (or NaN) alone."""
    for array in arrays:
        for part in (slice(0, 100), *_pieces(array)):
            values = array[part]
            if not ((values == low) | (values == high) | (values != values)).all():
                return False
    return True


# -- what is derived from the training split --------------------------------------------------------------------------


def _fit(space: Space, train: _Part, standardise: str | None, grey: bool) -> tuple[Space, list[str]]:
    """Fit what is derived from data on the training split; returns what there is to say too."""
    if space.kind in (Kind.REAL, Kind.UNIT):
        return _fit_real(space, train, standardise)
    train = train.some(COUNTED)  # frequencies are where a decoder starts, and need no more
    if grey:
        total = sum(_grey(piece, space).sum(0, dtype=np.float64) for piece in train.pieces())
        return replace(space, marginal=np.asarray(total / (255 * len(train)), np.float32)), []
    if space.kind in (Kind.BINARY, Kind.COUNT):
        total, count = np.zeros(space.shape), np.zeros(space.shape)
        for piece in train.pieces():
            observed = space.seen(piece)
            total += (space.inward(piece) * (1 if observed is None else observed)).sum(0, dtype=np.float64)
            count += len(piece) if observed is None else observed.sum(0)
        return replace(space, marginal=np.asarray(total / np.maximum(count, 1), np.float32)), _missing_note(space)
    small = space.levels * space.cells <= 1_000_000
    counts = np.zeros(space.cells * space.levels if small else space.levels, np.int64)
    offsets = space.levels * np.arange(space.cells) if small else np.zeros(1, np.int64)
    for piece in train.pieces():
        codes, observed = space.inward(piece).reshape(-1, space.cells), space.seen(piece)
        for start in range(0, len(codes), max(1, 2**23 // space.cells)):
            # One count over (cell, code) pairs, not a pass over the data for each code.
            part = slice(start, start + max(1, 2**23 // space.cells))
            pairs = codes[part] + offsets
            kept = pairs.ravel() if observed is None else pairs[observed.reshape(-1, space.cells)[part]]
            counts += np.bincount(kept, minlength=len(counts))
    if small:
        counts = np.moveaxis(counts.reshape(*space.shape, space.levels), -1, 0)
        # A level unseen at a cell is not impossible there: each cell sees the pooled frequencies `levels` times as well.
        pooled = (counts.reshape(space.levels, -1).sum(1) + 1) / (counts.sum() + space.levels)
        seen = counts + space.levels * pooled.reshape(-1, *[1] * len(space.shape))
        frequencies = seen / seen.sum(0)
    else:
        frequencies = ((counts + 1) / (counts.sum() + space.levels)).reshape(-1, *[1] * len(space.shape))
    return replace(space, marginal=np.ascontiguousarray(frequencies, np.float32)), _missing_note(space)


def _missing_note(space: Space) -> list[str]:
    return ["some cells are missing: bounds are of what is observed, and missing at random is assumed"] if space.missing else []


def _fit_real(space: Space, train: _Part, standardise: str | None) -> tuple[Space, list[str]]:
    how = "none" if space.kind is Kind.UNIT else standardise or ("feature" if len(space.shape) == 1 else "global")
    notes = _missing_note(space)
    if train.whole.dtype.kind in "iu":
        notes.append("whole numbers read as real values: bounds are densities of values spread by one, and draws are rounded")
    plain = replace(space, offset=np.zeros(()), scale=np.ones(()))
    sums, count, largest = np.zeros(space.shape), np.zeros(space.shape), 0.0
    for piece in train.pieces():
        inside = plain._inside(np.asarray(piece, np.float64))
        with np.errstate(all="ignore"):
            sums += np.nansum(inside, 0)
            count += (~np.isnan(inside)).sum(0)
            largest = max(largest, float(np.nanmax(np.abs(inside), initial=0.0)))
    if not largest < 1e30:
        raise ValueError(f"expected values below 1e30 in size; got some up to {largest:g}")
    empty = int((count == 0).sum())
    if empty:
        raise ValueError(f"expected a value in every cell of some training row; got {empty} of {space.cells} cells that are always missing")
    offset = sums / count
    squares = np.zeros(space.shape)
    for piece in train.pieces():
        squares += np.nansum((plain._inside(np.asarray(piece, np.float64)) - offset) ** 2, 0)
    spread = np.sqrt(squares / count)
    spread = np.where(spread > 1e-12 * np.maximum(np.abs(offset), 1e-300), spread, 0.0)
    constant = spread == 0
    if constant.any():
        notes.append(f"{int(constant.sum())} of {space.cells} columns are constant in the training split")
    resolution, origin, atoms = _resolution(space, train, how == "feature")
    if how == "none":
        fitted = replace(plain, resolution=resolution, origin=origin, atoms=atoms)
    else:
        # A constant cell has no scale of its own, and its density could grow without end: it is spread over its own size.
        own = np.where(offset == 0, 1.0, np.abs(offset))
        scale = np.where(constant, own, spread) if how == "feature" else np.asarray(np.sqrt((spread**2).mean()) or 1.0)
        if how == "feature" and constant.any():
            resolution = np.where(constant, own, 0.0 if resolution is None else resolution)
            origin = np.where(constant, offset, 0.0 if origin is None else origin)
        fitted = replace(space, offset=offset, scale=scale, resolution=resolution, origin=origin, atoms=atoms)
    if space.kind is Kind.UNIT:
        fitted = replace(fitted, marginal=np.asarray(offset, np.float32))
    if resolution is not None and train.whole.dtype.kind not in "iu":
        steps = np.unique(resolution[(resolution > 0) & ~np.broadcast_to(constant, resolution.shape)] if resolution.ndim else resolution)
        if len(steps):
            shown = f"{steps[0]:g}" if len(steps) == 1 else f"{steps[0]:g} .. {steps[-1]:g}"
            notes.append(f"values lie on a grid, or many share one (cells of {shown}): spread over those, no density can grow without end")
            if atoms is not None:
                notes[-1] += "; where they repeat on no grid, bounds depend on the cells (rounding the data chooses others)"
    return fitted, notes


def _resolution(space: Space, train: _Part, by_feature: bool) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """Return what `tables.lattice` says of real values, for each feature or for all cells; None where there is no grid."""
    if train.whole.dtype.kind in "iu":
        return np.ones(()), np.zeros(()), None
    rows = min(len(train), max(100, 2_000_000 // space.cells))
    at = np.linspace(0, len(train) - 1, rows).astype(np.int64)
    sample = space._inside(np.asarray(train.whole[at if train.index is None else train.index[at]])).reshape(rows, -1)
    found = np.array([_step(column) for column in sample.T] if by_feature else _step(sample.ravel()))
    steps, origins, atoms = found[..., 0], found[..., 1], np.asarray(found[..., 2] > 0)
    return (steps, origins, atoms if atoms.any() else None) if steps.any() else (None, None, None)


def _step(values: np.ndarray) -> tuple[float, float, bool]:
    distinct, times = np.unique(values[~np.isnan(values)], return_counts=True)
    if len(distinct) < 2:
        return 0.0, 0.0, False
    spread = float(np.sqrt(np.average((distinct - np.average(distinct, weights=times)) ** 2, weights=times)))
    return tables.lattice(distinct, times, spread)


# -- laying it out ----------------------------------------------------------------------------------------------------


def _grey(array: np.ndarray, space: Space) -> np.ndarray:
    """Return 8-bit grey levels inside, to be binarised."""
    return replace(space, kind=Kind.LEVELS, levels=256, low=0.0, step=1.0).inward(array)


def _rows(parts: Mapping[str, _Part], space: Space, binarise: str, given: Space | None, progress: Progress | None) -> dict[str, Rows]:
    """Lay the splits out; those that are rows of one array share what is made of it."""
    made: dict[int, tuple[np.ndarray, np.ndarray | None, bool]] = {}
    rows = {}
    for split, part in parts.items():
        if id(part.whole) not in made:
            made[id(part.whole)] = _laid_out(part.whole, space, binarise != "none", progress)
        values, observed, channels_last = made[id(part.whole)]
        row = Rows(
            values, space, split, dynamic=binarise != "none", index=part.index, observed=observed,
            given=part.given, given_space=given, channels_last=channels_last, attributes=dict(part.attributes),
        )  # fmt: skip
        rows[split] = row if binarise == "dynamic" and split == "train" else row.fixed()
    return rows


def _laid_out(whole: Any, space: Space, grey: bool, progress: Progress | None) -> tuple[np.ndarray, np.ndarray | None, bool]:
    """Return an array or table as codes or values inside, the mask of what was observed, and whether channels are last.

    Large arrays of bytes that need no change are used as they lie; other large arrays are laid out in the cache.
    """
    if isinstance(whole, Frame):
        return space.inward(whole), space.seen(whole), False
    inward = (lambda piece: _grey(piece, space)) if grey else space.inward
    large = whole.size * (1 if space.levels and space.levels <= 256 else 4) > IN_MEMORY
    as_bytes = whole.dtype == np.uint8 and (grey or (space.kind in (Kind.LEVELS, Kind.BINARY) and space.low == 0 and space.step == 1))
    if large and as_bytes:
        if not grey and space.levels < 256:
            for part in _pieces(whole):
                space.inward(whole[part])  # raises where a level is beyond the last
        return whole if len(space.outside) == 3 else whole.reshape(len(whole), *space.shape), None, len(space.outside) == 3
    observed = None
    if space.missing:
        observed = np.concatenate([_all(space.seen(whole[part]), whole[part], space) for part in _pieces(whole)])
        observed = None if observed.all() else observed
    if not large or not isinstance(whole, np.memmap):
        return np.concatenate([inward(whole[part]) for part in _pieces(whole)]), observed, False

    def make(folder: Path) -> dict[str, Any]:
        first = inward(whole[:1])
        out = cache.create_array(folder / "values.npy", first.dtype, (len(whole), *space.shape))
        for part in _pieces(whole):
            out[part] = inward(whole[part])
            if progress is not None:
                progress("laying out", part.stop, len(whole))
        out.flush()
        return {}

    source = Path(str(whole.filename))
    fitted = {k: v.tolist() for k, v in space.arrays().items() if k in ("offset", "scale")}
    settings = {"space": space.scalars(), "fitted": fitted, "offset": int(whole.offset), "grey": grey}
    key = cache.key("array-1", [source], settings, source.parent)
    folder, _ = cache.entry(key, make, source)
    return cache.open_array(folder / "values.npy"), observed, False


def _all(mask: np.ndarray | None, piece: np.ndarray, space: Space) -> np.ndarray:
    return np.ones((len(piece), *space.shape), bool) if mask is None else mask
