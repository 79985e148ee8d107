"""Make data of what was read: split it, infer what it is, fit what is derived from it, and lay it
out for training.

Everything that is derived from data (means, scales, frequencies) comes from the training split;
what a cell can be (levels, categories) comes from all splits. Arrays are looked at piece by piece
and laid out in memory, or, where they are large, in memory-mapped files in the cache, so that data
larger than memory can be trained on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vaestro.data import cache, duplicates, images, kinds, matching, shards, tables, texts
from vaestro.data.arrays import (
    Inferred,
    as_it_lies,
    binarised_note,
    grey_levels,
    infer_space,
    large,
)
from vaestro.data.matching import Origin
from vaestro.data.merging import merged, own_values
from vaestro.data.passes import Part, distinct, once, piece, place
from vaestro.data.raw import Raw
from vaestro.data.readers import (
    IMAGE,
    NAMED,
    OPTIONS,
    SHARDS,
    TABLE,
    TEXT,
    Progress,
    as_source,
    is_images,
    parse_source,
    plain,
    read,
)
from vaestro.data.sets import Data, Rows
from vaestro.data.sparse import Sparse
from vaestro.data.streams import HELD_OUT, Stream, settled
from vaestro.frames import Frame
from vaestro.randomness import numpy_generator
from vaestro.spaces import Column, Kind, Space
from vaestro.text import nearest
from vaestro.tokens import Ragged, Texts

SPLITS = ("train", "valid", "test")


# -- load ------------------------------------------------------------------------------------------


def load(
    source: Any = "mnist",
    *,
    condition: Sequence[str] = (),
    origin: Origin | None = None,
    progress: Progress | None = None,
) -> Data:
    """Read a source into training, validation and test data.

    A source without splits of its own is split 90 / 5 / 5 by seed. Arrays are taken as they are,
    and tables in Python
    too: a mapping of columns, a pandas or Arrow table.

    Args:
        source: a name (`mnist`, `shapes`, `digits`), a path to .npy, .npz, IDX, .csv, .parquet,
            .json, .txt or a folder of images, `hf:OWNER/NAME`, each with options after a colon; or
            an array (N, ...), a table, or a list of texts.
        condition: attributes, or columns of a table, that are given to the model and not modelled.
        origin: a run whose space the data are read into, in place of one that is inferred from
            them.
        progress: called with (what, done, total) while something takes long.

    Raises:
        ValueError: the source cannot be read, is too small to split, holds images with sides above
            256 without `size`, or has no such attribute; or the data do not fit `origin`.
    """
    if origin is not None:
        return _load_into(source, origin, condition, progress)
    name, options, raw = _opened(source, progress)
    if name == "mnist":
        options = {"binarise": "dynamic", **options}
    parts, notes = _split(raw, options, name)
    notes = [*raw.notes, *notes]
    parts, given_space, given_notes = _given(parts, condition, name)
    binarise = options.get("binarise", "none")
    key = known = codes = None
    looked = parts
    streamed = isinstance(parts["train"].whole, Stream)
    if streamed:
        options = {"buffer": parts["train"].whole.buffer, **options}
        parts, looked, said = settled(parts, options, name, progress)
        notes += said
    if isinstance(parts["train"].whole, Texts):
        found = texts.inferred(parts, options, name)
        inferred = Inferred(found.space, found.options, found.notes, found.shared)
        codes = {
            id(whole): held
            for whole, held in zip(distinct(parts.values()), found.codes, strict=True)
        }
    elif isinstance(parts["train"].whole, Frame):
        space, made = _infer_table(parts, options, name)
        inferred = Inferred(space, options, made, None)
    else:
        sparse = isinstance(parts["train"].whole, Sparse)
        if sparse and options.get("kind", "count") != "count":
            raise ValueError(
                f"expected kind=count for a sparse matrix; got kind={options['kind']} in {name}"
            )
        options = {**options, "kind": "count"} if sparse else options
        key = None if sparse or streamed else _key(parts, options, name)
        known = None if key is None else _recalled(key)
        inferred = known or infer_space(looked, options, name)
        if streamed:  # what stands in two splits is not looked for in all shards
            inferred = inferred._replace(shared=[])
        if sparse:  # what is held in bytes is drawn as whole numbers of any size
            inferred = inferred._replace(
                space=replace(inferred.space, dtype="int32", names=parts["train"].whole.names)
            )
    space, options, made, shared = inferred
    rows = _rows(parts, space, binarise, given_space, progress, inferred=True, codes=codes)
    if shared is None:
        shared = duplicates.between(rows, name in NAMED)
    if key is not None and known is None:
        # where nothing can be written, the next start takes as long as this one
        with suppress(OSError):
            cache.entry(key, inferred._replace(shared=shared).save, _resolved(name))
    notes += made + given_notes + shared
    sizes = " / ".join(f"{len(rows[s]):,}" for s in SPLITS)
    notes.insert(0, f"{space}, {sizes} for training, validation and test")
    full = as_source(_resolved(name), options)
    return Data(
        rows["train"],
        rows["valid"],
        rows["test"],
        space,
        full,
        tuple(notes),
        given_space,
        tuple(shared),
    )


def _load_into(
    source: Any, origin: Origin, condition: Sequence[str], progress: Progress | None
) -> Data:
    """Read a source into the space of another run, which is the one that its statistics are of."""
    space, conditions = origin.space, origin.conditions(condition)
    if isinstance(source, (str, Path)):
        source = _fitting(str(source), space)
    name, options, raw = _opened(source, progress, origin.columns, every=True)
    binarise = options.get(
        "binarise", "dynamic" if name == "mnist" and space.kind is Kind.BINARY else "none"
    )
    parts, notes = _split(raw, options, name)
    if binarise != "none":
        options = {**options, "binarise": binarise}
        notes.append(binarised_note(binarise))
    origin.check(parts, options, name)
    notes += origin.left_out(parts)
    try:
        parts, _, _ = _given(parts, conditions, name, origin.given)
    except ValueError as error:
        raise ValueError(
            f"{error} (as in {origin.run}; leave such rows out, or train without --init)"
        ) from error
    if isinstance(parts["train"].whole, Stream):
        options = {"buffer": parts["train"].whole.buffer, **options}
        parts, _, said = settled(parts, options, name, progress)
        # the rest of the last one says what statistics are of
        notes += [*said[:-1], said[-1].partition(";")[0]]
    parts = matching.matched(parts, space, options)
    try:
        rows = _rows(
            parts,
            space,
            binarise,
            origin.given,
            progress,
            codes=matching.cut(parts, space, options),
        )
    except ValueError as error:
        raise origin.advised(error, name) from error
    shared = matching.shared(parts, rows, name in NAMED)
    sizes = " / ".join(f"{len(rows[s]):,}" for s in SPLITS)
    first = f"{space}, {sizes} for training, validation and test"
    full = as_source(_resolved(name), options)
    notes = [first, *raw.notes, *notes, *origin.notes(parts, rows), *shared]
    return Data(
        rows["train"],
        rows["valid"],
        rows["test"],
        space,
        full,
        tuple(notes),
        origin.given,
        tuple(shared),
    )


def _key(parts: Mapping[str, Part], options: Mapping[str, Any], name: str) -> str | None:
    """Return the key under which is kept what is found in arrays; None where they are small, or no
    files that only others change."""
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
        "arrays": [_lie(a) for a in arrays],
        "splits": splits,
    }
    return cache.key("found-3", [file for file, _ in places], settings, Path(places[0][0]).parent)


def _lie(array: np.ndarray) -> list[Any]:
    """Say how an array lies in its file."""
    return [place(array), array.shape, array.strides, array.dtype.str]


def _recalled(key: str) -> Inferred | None:
    """Return what was found in the same arrays before; None where nothing was kept, or it is
    damaged."""
    kept = cache.find(key)
    if kept is not None:
        try:
            return Inferred.restore(*kept)
        except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError):
            with suppress(OSError):
                cache.remove(key)
    return None


def _resolved(name: str) -> str:
    own = (
        name in (*NAMED, "array", "table", "texts") or name.startswith("hf:") or shards.remote(name)
    )
    return name if own else str(Path(name).expanduser().resolve())


def load_rows(
    source: Any,
    space: Space,
    split: str | None = None,
    *,
    given: Space | None = None,
    conditions: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Rows:
    """Read a source as data of a known space: what `encode` and its kin do. `Rows.notes` says what
    was done to it.

    Args:
        source: as for `load`. A folder of images is brought to the space's size.
        space: what the data must be.
        split: train, valid, test, or all; by default all rows of a source without splits of its
            own, and else test.
        given: the space of the conditions, which must be among the source's attributes or columns,
            or in `conditions`.
        conditions: {name: value}, what is given to all rows in place of the source's own.
        progress: as for `load`.

    Raises:
        ValueError: the data are of another shape or kind, or lack a condition.
    """
    return _as_rows(source, space, split, given, conditions, progress)[0]


def load_with_own(
    source: Any,
    space: Space,
    split: str | None = None,
    *,
    given: Space | None = None,
    conditions: Mapping[str, Any] | None = None,
) -> tuple[Rows, Any]:
    """Return what `load_rows` returns, and the same rows as the user's data have them: an array (N,
    *outside) or a Frame; else None."""
    rows, parts = _as_rows(source, space, split, given, conditions, None)
    held = all(isinstance(part.whole, (np.ndarray, Frame)) for part in parts.values())
    return rows, own_values(parts) if held else None


def _as_rows(
    source: Any,
    space: Space,
    split: str | None,
    given: Space | None,
    conditions: Mapping[str, Any] | None,
    progress: Progress | None,
) -> tuple[Rows, dict[str, Part]]:
    """Return a source as rows of a known space, and the parts of the source that they are."""
    fixed = tables.condition_columns(given, conditions or {}, 1)
    if isinstance(source, (str, Path)):
        source = _fitting(str(source), space)
    columns = (*space.columns, *(given.columns if given is not None else ()))
    name, options, raw = _opened(source, progress, columns if space.kind is Kind.TABLE else None)
    binarise = options.get(
        "binarise", "dynamic" if name == "mnist" and space.kind is Kind.BINARY else "none"
    )
    if split not in (None, "all", *SPLITS):
        raise ValueError(f"expected train, valid, test or all; got {split!r}")
    if "all" in raw.splits:
        if split not in (None, "all"):
            parts, _ = _split(raw, options, name)
        else:
            parts, split = (
                {"all": Part(raw.splits["all"], None, dict(raw.attributes.get("all", {})))},
                "all",
            )
    else:
        parts = {s: Part(a, None, dict(raw.attributes.get(s, {}))) for s, a in raw.splits.items()}
    split, notes = split or "test", [*raw.notes]
    chosen = {s: p for s, p in parts.items() if split in (s, "all") and len(p)}
    if not chosen:
        raise ValueError(f"expected a {split} split in {name}; got {', '.join(raw.splits)}")
    if given is not None:
        chosen, _, _ = _given(chosen, given.names, name, given, fixed)
    before = [part.whole for part in chosen.values()]
    chosen = matching.matched(chosen, space, options)
    if any(
        isinstance(a, np.ndarray) and a.shape != b.whole.shape
        for a, b in zip(before, chosen.values(), strict=True)
    ):
        notes.append(
            f"series are filled up to {space.outside[0]:,} steps, as the run was trained on"
        )
    codes = matching.cut(chosen, space, options)
    made = [
        r.fixed() for r in _rows(chosen, space, binarise, given, progress, codes=codes).values()
    ]
    if len(made) == 1:
        return replace(made[0], name=split, notes=tuple(dict.fromkeys(notes))), chosen
    joined = {k: np.concatenate([r.attributes[k] for r in made]) for k in made[0].attributes}
    values: Any
    if space.kind is Kind.TOKENS:
        values = Ragged.joined(
            [r.values if r.index is None else r.values.pick(r.index) for r in made]
        )
    elif isinstance(made[0].values, Stream):
        values = Stream.joined([r.values for r in made])
    else:
        values = np.concatenate([r._values(slice(None)) for r in made])
    observed = [
        np.ones((len(r), *space.shape), bool)
        if r.observed is None
        else r._take(r.observed, slice(None))
        for r in made
    ]
    rows = Rows(
        values,
        space,
        split,
        attributes=joined,
        observed=None if all(r.observed is None for r in made) else np.concatenate(observed),
        given=None
        if given is None
        else np.concatenate([r.given for r in made if r.given is not None]),
        given_space=given,
        notes=tuple(dict.fromkeys(notes)),
    )
    return rows, chosen


def completed(source: Any, filled: Frame, split: str) -> Frame:
    """Return a split of a source's own table with its empty cells taken from `filled`; columns that
    are not modelled stay as they are.

    Args:
        source: the table.
        filled: the modelled columns of that split, each cell filled.
        split: train, valid, test or all, as `Rows.name` says.
    """
    if isinstance(source, (str, Path)):
        name, options = parse_source(source)
        suffix = Path(name).suffix.lower()
        if suffix in tables.SUFFIXES:
            text = [n for n, column in filled.columns.items() if column.dtype.kind == "U"]
            raw = tables.read_table(
                Path(name), {k: v for k, v in options.items() if k == "split"}, text=text
            )
        else:
            raw = read(name, options)
    else:
        name, options, raw = _opened(source, None)
    if not all(isinstance(whole, Frame) for whole in raw.splits.values()):
        return filled
    cut = "all" in raw.splits and split != "all"
    parts = (
        _split(raw, options, name)[0]
        if cut
        else {s: Part(whole) for s, whole in raw.splits.items()}
    )
    frame = own_values({s: p for s, p in parts.items() if split in (s, "all")})
    return merged(frame, filled) if len(frame) == len(filled) else filled


def _fitting(source: str, space: Space) -> str:
    """Bring a folder of images to the space's size and channels, unless its options say
    otherwise."""
    name, options = parse_source(source)
    if "size" in options or not (
        _folder(name) and space.image and space.kind in (Kind.LEVELS, Kind.BINARY)
    ):
        return source
    size = f"{space.shape[1]}x{space.shape[2]}"
    options = {"size": size, "channels": "grey" if space.shape[0] == 1 else "colour", **options}
    return as_source(name, options)


def _folder(name: str) -> bool:
    """Tell whether a source may hold images that are brought to a size."""
    return name.startswith("hf:") or Path(name).expanduser().is_dir() or shards.is_shards(name)


def _opened(
    source: Any,
    progress: Progress | None,
    columns: Sequence[Column] | None = None,
    *,
    every: bool = False,
) -> tuple[str, dict[str, Any], Raw]:
    """Return a source's name, options and what it holds: of a table these columns, or `every` one,
    of which these are known."""
    found = texts.as_texts(source)
    if found is not None:
        return "texts", {}, Raw({"all": found})
    if isinstance(source, np.ndarray):
        return "array", {}, Raw({"all": plain(source, Path("the array"))})
    if not isinstance(source, (str, Path)):
        return (
            "table",
            {},
            Raw({"all": source if isinstance(source, Frame) else tables.frame_of(source)}),
        )
    name, options = parse_source(source)
    raw = read(name, options, progress, columns, every=every)
    first = next(iter(raw.splits.values()))
    text = isinstance(first, Texts)
    unfit = [k for k in options if k in (IMAGE if isinstance(first, Frame) else TABLE)]
    folder = _folder(name) or isinstance(first, Stream)
    if text:
        of_table = () if Path(name).suffix.lower() == ".txt" else ("text", "ignore", "split")
        mine = (*TEXT, *of_table, *SHARDS, "array", "valid", "test", "seed")
        unfit = [k for k in options if k not in mine]
    else:
        unfit += [k for k in options if k in TEXT]
    if not isinstance(first, (Frame, Texts)) and not folder and name not in NAMED:
        own = (
            first.ndim in (3, 4)
            and "size" in options
            and images._target(options).size == first.shape[1:3]
        )
        unfit += [k for k in options if k in IMAGE and not (k == "size" and own)]
    if folder and not is_images(name):
        unfit = [k for k in unfit if k != "ignore"]
    if raw.missing:
        options = {"missing": "nan", **options}
    if not (isinstance(first, Stream) or name.startswith("hf:") or shards.is_shards(name)):
        unfit += [k for k in options if k in SHARDS]
    if isinstance(first, Stream) and "missing" in options:
        raise ValueError(
            f"expected values in every cell of streamed data; got missing=nan for {name} "
            f"(streaming=false reads them once)"
        )
    if isinstance(first, Frame):
        unfit += [
            k
            for k in options
            if k in ("kind", "binarise", "standardise", "levels", "array", "missing", "series")
        ]
    if unfit:
        what = (
            "texts"
            if text
            else "a table"
            if isinstance(first, Frame)
            else "images"
            if folder
            else "arrays"
        )
        raise ValueError(
            f"expected options for {what} in {name}; got {unfit[0]}= ({OPTIONS[unfit[0]]})"
        )
    return name, options, raw


# -- splits and conditions -------------------------------------------------------------------------


def _split(raw: Raw, options: Mapping[str, Any], name: str) -> tuple[dict[str, Part], list[str]]:
    """Return the three splits, with what was done in words."""
    parts = {s: Part(a, None, dict(raw.attributes.get(s, {}))) for s, a in raw.splits.items()}
    missing = list(SPLITS) if "all" in parts else [s for s in ("valid", "test") if s not in parts]
    fixed = [
        k
        for k in ("valid", "test", "seed")
        if k in options and ((k == "seed" and not missing) or k in parts) and name != "mnist"
    ]
    if name == "mnist":
        fixed = [k for k in ("test", "seed") if k in options]
    if fixed:
        raise ValueError(
            f"expected no {fixed[0]}= for {name}, which brings its own splits; got "
            f"{fixed[0]}={options[fixed[0]]}"
        )
    if not missing:
        return {s: parts[s] for s in SPLITS}, []
    whole = parts.pop("all" if "all" in parts else "train")
    n, streamed = len(whole), isinstance(whole.whole, Stream)
    most = HELD_OUT if streamed else n
    sizes: dict[str, int] = {
        s: options.get(s, min(most, max(1, round(0.05 * n))))
        for s in ("valid", "test")
        if s in missing
    }
    if n >= 10 and n - sum(sizes.values()) < 1:
        held = " and ".join(map(str, sizes.values()))
        raise ValueError(
            f"expected valid and test to leave data for training; got {held} of {n} in {name}"
        )
    if n < 10:
        raise ValueError(
            f"expected at least 10 data to split into training, validation and test; got {n} in "
            f"{name}"
        )
    if streamed:
        chosen = whole.whole.held_out(sizes, options.get("seed", 0))
    else:
        order = numpy_generator(options.get("seed", 0), "split").permutation(n)
        start, chosen = n, {}
        for s, size in reversed(sizes.items()):
            chosen[s] = np.sort(order[start - size : start])
            start -= size
        chosen["train"] = np.sort(order[:start])
    for s, index in chosen.items():
        array = whole.whole.only(index) if isinstance(whole.whole, Stream) else whole.whole
        parts[s] = Part(array, index, {k: v[index] for k, v in whole.attributes.items()})
    return {s: parts[s] for s in SPLITS}, [f"split by seed {options.get('seed', 0)}"]


def _given(
    parts: dict[str, Part],
    names: Sequence[str],
    source: str,
    space: Space | None = None,
    fixed: Mapping[str, np.ma.MaskedArray] | None = None,
) -> tuple[dict[str, Part], Space | None, list[str]]:
    """Take the conditions out of attributes, or out of a table, whose columns they then no longer
    are; `fixed` ones win over both."""
    if not names:
        return parts, None, []
    if len(set(names)) < len(names):
        raise ValueError(f"expected each condition once; got {', '.join(names)}")
    found: dict[str, Part] = {}
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
            raise ValueError(
                f"expected columns to model beside the conditions in {source}; got none"
            )
        found[s] = Part(whole, part.index, attributes)
    frames = {s: tables.frame_of({n: p.attributes[n] for n in names}) for s, p in found.items()}
    for name in names:
        empty = {s: np.flatnonzero(np.ma.getmaskarray(f.columns[name])) for s, f in frames.items()}
        count = sum(map(len, empty.values()))
        if count:
            first = {
                s: int(at[0]) if (index := found[s].index) is None else int(index[at[0]])
                for s, at in empty.items()
                if len(at)
            }
            s = next(iter(first))
            row = (
                f"{min(first.values()) + 1:,}"
                if len(distinct(found.values())) == 1
                else f"{first[s] + 1:,} of {s}"
            )
            got = (
                f"{count:,} empty cells, the first in row {row}"
                if count > 1
                else f"an empty cell in row {row}"
            )
            raise ValueError(
                f"expected a value of the condition {name!r} in every row of {source}; got {got}"
            )
    notes = []
    if space is None:
        joined = {
            n: np.ma.concatenate([f.columns[n] for f in frames.values() if len(f)]) for n in names
        }
        space, _ = kinds.infer_space(Frame(joined), frames["train"], {}, source)
        notes = [f"conditioned on {', '.join(names)}: bounds are of log p(x | {', '.join(names)})"]
    codes = {s: space.inward(f) for s, f in frames.items()}
    return {s: replace(p, given=codes[s]) for s, p in found.items()}, space, notes


# -- what the cells are ----------------------------------------------------------------------------


def _infer_table(
    parts: Mapping[str, Part], options: Mapping[str, Any], name: str
) -> tuple[Space, list[str]]:
    frames = {s: p.whole if p.index is None else p.whole[p.index] for s, p in parts.items()}
    columns = set(frames["train"].columns)
    for frame in frames.values():
        if set(frame.columns) != columns:
            differing = sorted(columns ^ set(frame.columns))
            raise ValueError(
                f"expected splits with the same columns in {name}; got {differing[0]!r} in some "
                f"only"
            )
    whole = Frame(
        {
            n: np.ma.concatenate([f.columns[n] for f in frames.values() if len(f)])
            for n in frames["train"].columns
        }
    )
    one = len(distinct(parts.values())) == 1

    def place(row: int) -> str:
        for s, part in parts.items():
            if row < len(frames[s]):
                row = row if part.index is None else int(part.index[row])
                # validation rows may be drawn from the training rows
                source = next(k for k, p in parts.items() if p.whole is part.whole)
                return f"row {row + 1:,}" if one else f"row {row + 1:,} of {source}"
            row -= len(frames[s])
        raise IndexError(row)

    return kinds.infer_space(whole, frames["train"], options, name, place)


# -- laying it out ---------------------------------------------------------------------------------


def _rows(
    parts: Mapping[str, Part],
    space: Space,
    binarise: str,
    given: Space | None,
    progress: Progress | None,
    *,
    inferred: bool = False,
    codes: Mapping[int, Ragged] | None = None,
) -> dict[str, Rows]:
    """Lay the splits out; those that are rows of one array share what is made of it. Data that the
    space was `inferred` from fit it.

    `codes` are of texts that were cut before, by the id of the whole.
    """
    made: dict[int, tuple[Any, np.ndarray | None, bool]] = {
        key: (held, None, False) for key, held in (codes or {}).items()
    }
    rows = {}
    for split, part in parts.items():
        if id(part.whole) not in made:
            made[id(part.whole)] = _laid_out(
                part.whole, space, binarise != "none", progress, inferred
            )
        values, observed, channels_last = made[id(part.whole)]
        row = Rows(
            values,
            space,
            split,
            dynamic=binarise != "none",
            index=part.index,
            observed=observed,
            given=part.given,
            given_space=given,
            channels_last=channels_last,
            attributes=dict(part.attributes),
        )
        rows[split] = row if binarise == "dynamic" and split == "train" else _fixed(row)
    return rows


def _fixed(rows: Rows) -> Rows:
    """Return rows with one binarisation for good; of a large array it is kept in the cache."""
    lies = place(rows.values)
    if not rows.dynamic or lies is None:
        return rows.fixed()

    def make(folder: Path) -> dict[str, Any]:
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
    settings = {"array": _lie(rows.values), "rows": which, "split": rows.name}
    folder, _ = cache.entry(
        cache.key("binarised-1", [source], settings, source.parent), make, source
    )
    return rows.fixed_as(cache.open_array(folder / "values.npy"))


def _laid_out(
    whole: Any, space: Space, grey: bool, progress: Progress | None, inferred: bool
) -> tuple[Any, np.ndarray | None, bool]:
    """Return an array or table as codes or values inside, the mask of what was observed, and
    whether channels are last.

    Large arrays of bytes that need no change are used as they lie; other large arrays are laid out
    in the cache.
    """
    if isinstance(whole, (Frame, Texts)):
        return space.inward(whole), space.seen(whole), False
    if isinstance(whole, Sparse):
        if space.kind is not Kind.COUNT:
            raise ValueError(
                f"expected {space}, as the run was trained on; got a sparse matrix of counts"
            )
        return whole, None, False
    inward = partial(grey_levels, space=space) if grey else space.inward
    if isinstance(whole, Stream):
        return whole.laid_out(inward), None, False
    if as_it_lies(whole, space, grey):
        if not (inferred or grey or space.levels == 256):
            # raises where a level is beyond the last
            once([whole], lambda array, start, rows: inward(rows))
        return (
            whole if len(space.outside) == 3 else whole.reshape(len(whole), *space.shape),
            None,
            len(space.outside) == 3,
        )
    dtype, shape, lies = inward(whole[:0]).dtype, (len(whole), *space.shape), place(whole)

    def lay(values: np.ndarray, observed: np.ndarray | None, progress: Progress | None) -> bool:
        """Fill the arrays; returns whether some cell is missing."""
        some = False

        def look(array: Any, start: int, rows: np.ndarray) -> None:
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

    if not large(whole, space) or lies is None:
        values, observed = np.empty(shape, dtype), np.empty(shape, bool) if space.missing else None
        return values, observed if lay(values, observed, None) else None, False

    def make(folder: Path) -> dict[str, Any]:
        values = cache.create_array(folder / "values.npy", dtype, shape)
        observed = (
            cache.create_array(folder / "observed.npy", bool, shape) if space.missing else None
        )
        some = lay(values, observed, progress)
        values.flush()
        if observed is not None and some:
            observed.flush()
        elif observed is not None:
            (folder / "observed.npy").unlink()
        return {"observed": some}

    source = Path(lies[0])
    inner = (
        ("offset", "scale")
        if space.strays is None
        else ("offset", "scale", "resolution", "origin", "strays")
    )
    fitted = {k: v.tolist() for k, v in space.arrays().items() if k in inner}
    settings = {"space": space.scalars(), "fitted": fitted, "array": _lie(whole), "grey": grey}
    folder, meta = cache.entry(
        cache.key("array-2", [source], settings, source.parent), make, source
    )
    return (
        cache.open_array(folder / "values.npy"),
        cache.open_array(folder / "observed.npy") if meta["observed"] else None,
        False,
    )
