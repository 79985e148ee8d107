"""Load data: read a source, split it, infer its space, fit statistics, and lay it out for training.

Statistics (means, scales, frequencies) come from the training split. The values that a cell can
have (levels, categories) come from all splits. Arrays are read in chunks and laid out in memory, or
in memory-mapped files in the cache if they are large. Data can therefore be larger than memory. The
differences between arrays, tables, texts, sparse counts and streams are in `data.containers`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from vaestro.data import matching, tables
from vaestro.data.arrays import binarised_note
from vaestro.data.conditions import separate_conditions
from vaestro.data.containers import Container, Laid, container_of, own_values
from vaestro.data.images import Progress
from vaestro.data.laying import fixed
from vaestro.data.matching import Origin
from vaestro.data.named import NAMED
from vaestro.data.opening import Opened, absolute_name, open_source, with_layout
from vaestro.data.parsing import parse_cells
from vaestro.data.passes import Part
from vaestro.data.raw import Options
from vaestro.data.readers import read
from vaestro.data.sets import Data, Rows
from vaestro.data.source_options import as_source, options_about, parse_source
from vaestro.data.splitting import SPLITS, split, without_groups
from vaestro.data.table_formats import is_table
from vaestro.frames import Frame
from vaestro.spaces import Column, Space, UnknownCategory
from vaestro.text import Value
from vaestro.tokens import Ragged

# -- load ------------------------------------------------------------------------------------------


def load(
    source: object = "mnist",
    *,
    condition: Sequence[str] = (),
    origin: Origin | None = None,
    columns: Sequence[Column] | None = None,
    progress: Progress | None = None,
    **options: Value,
) -> Data:
    """Read a source into training, validation and test data.

    A source without splits of its own is split 90 / 5 / 5 by seed. Data in Python are used as they
    are: an array, a list of texts, or a table (a mapping of columns, a pandas or Arrow table).

    Args:
        source: a name (`mnist`, `shapes`, `digits`), a path to .npy, .npz, IDX, .csv, .parquet,
            .json, .txt or a folder of images, `hf:OWNER/NAME`, each with options after a colon; or
            an array (N, ...), a table, or a list of texts.
        condition: attributes, or columns of a table, that are given to the model and not modelled.
        origin: a run whose space the data are read into; by default a space is inferred from them.
        columns: of the run that these data trained; the text of their cells is read as in the run.
        progress: called with (what, done, total) while something takes long.
        options: of the source, such as volume=True; they override those after the colon.

    Raises:
        ValueError: the source cannot be read, is too small to split, has images with sides above
            256 without `size`, or has no such attribute; or the data do not fit `origin`.

    >>> import numpy as np
    >>> data = load(np.random.default_rng(0).normal(size=(100, 3)))
    >>> len(data.train), len(data.valid), len(data.test), str(data.space)
    (90, 5, 5, 'real (3,)')
    """
    if origin is not None:
        return _load_into(source, origin, condition, progress, options)
    handle = open_source(source, progress, columns, every=True, options=options)
    if handle.name == "mnist":
        handle = replace(handle, options={"binarise": "dynamic", **handle.options})
    parts, notes = split(handle)
    parts = without_groups(parts, handle.options, handle.name)
    parts, given, given_notes = separate_conditions(parts, condition, handle.name)
    inference = handle.container.infer(parts, handle.options, handle.name, progress)
    inference = handle.container.described(inference, handle.raw.series)
    binarise, trusted = handle.options.get("binarise", "none"), handle.name in NAMED
    rows = _rows(
        inference.parts,
        inference.space,
        binarise,
        given,
        progress,
        checked=True,
        codes=inference.codes,
    )
    shared = inference.shared
    if shared is None:
        shared = handle.container.shared(inference.parts, rows, trusted)
    handle.container.keep(inference, shared, absolute_name(handle.name))
    notes = [*handle.raw.notes, *notes, *inference.notes, *given_notes, *shared]
    return _data(handle, rows, inference.space, inference.options, notes, given, shared)


def _data(
    handle: Opened,
    rows: Mapping[str, Rows],
    space: Space,
    options: Options,
    notes: Sequence[str],
    given: Space | None,
    shared: Sequence[str],
) -> Data:
    sizes = " / ".join(f"{len(rows[s]):,}" for s in SPLITS)
    first = f"{space}, {sizes} for training, validation and test"
    return Data(
        rows["train"],
        rows["valid"],
        rows["test"],
        space=space,
        source=as_source(absolute_name(handle.name), options),
        notes=(first, *notes),
        given=given,
        shared=tuple(shared),
    )


def _load_into(
    source: object,
    origin: Origin,
    condition: Sequence[str],
    progress: Progress | None,
    options: Options,
) -> Data:
    """Read a source into the space of another run, whose statistics it keeps."""
    space, conditions = origin.space, origin.conditions(condition)
    handle = open_source(
        with_layout(source, space),
        progress,
        origin.columns,
        every=True,
        options=options,
        like=space,
    )
    name, container, options = handle.name, handle.container, handle.options
    binarise = handle.binarise(space)
    parts, notes = split(handle)
    parts = without_groups(parts, options, name)
    if binarise != "none":
        options = {**options, "binarise": binarise}
        notes.append(binarised_note(binarise))
    origin.check(parts, options, name)
    notes += origin.left_out(parts)
    try:
        names = () if space.tabular else space.names
        parts, given, more = separate_conditions(
            parts, conditions, name, origin.given, cells=names, grow=origin.grows
        )
    except ValueError as error:
        alone = "; --freeze all-but-new-categories learns new categories alone"
        raise ValueError(
            f"{error} (as in {origin.run}; leave such rows out, or train without --init"
            f"{alone if isinstance(error, UnknownCategory) else ''})"
        ) from error
    notes += more
    parts, options, more = container.settle(parts, options, name, progress)
    notes += more
    parts = matching.match_layout(parts, space, options)
    try:
        codes = container.codes(parts, space, options)
        rows = _rows(parts, space, binarise, given, progress, codes=codes)
    except ValueError as error:
        raise container.advise(error, origin.run, space, name) from error
    shared = container.shared(parts, rows, name in NAMED)
    notes = [*handle.raw.notes, *notes, *origin.notes(parts, rows)]
    notes += [*container.read_notes(parts, rows), *shared]
    return _data(handle, rows, space, options, notes, given, shared)


# -- rows of a known space -------------------------------------------------------------------------


def load_rows(
    source: object,
    space: Space,
    split: str | None = None,
    *,
    given: Space | None = None,
    conditions: Mapping[str, object] | None = None,
    progress: Progress | None = None,
) -> Rows:
    """Read a source as data of a known space, as `encode` does. `Rows.notes` lists the changes that
    were made while reading.

    Args:
        source: as for `load`. A folder of images is resized to the space's size.
        space: of the data.
        split: train, valid, test, or all; by default all rows of a source without splits of its
            own, and else test.
        given: the space of the conditions, which must be among the source's attributes or columns,
            or in `conditions`.
        conditions: {name: value}, one value for all rows, which wins over the source's own.
        progress: as for `load`.

    Raises:
        ValueError: the data are of another shape or kind, or lack a condition.

    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(100, 3))
    >>> len(load_rows(x[:7], load(x).space))
    7
    """
    return _as_rows(source, space, split, given, conditions, progress)[0]


def load_with_own(
    source: object,
    space: Space,
    split: str | None = None,
    *,
    given: Space | None = None,
    conditions: Mapping[str, object] | None = None,
) -> tuple[Rows, np.ndarray | Frame | None]:
    """Return what `load_rows` returns, and the same rows in the user's layout: an array (N,
    *outside) or a Frame; None for texts, sparse counts and streams."""
    rows, parts = _as_rows(source, space, split, given, conditions, None)
    fillable = all(container_of(part.whole).fillable for part in parts.values())
    return rows, own_values(parts) if fillable else None


def _as_rows(
    source: object,
    space: Space,
    name: str | None,
    given: Space | None,
    conditions: Mapping[str, object] | None,
    progress: Progress | None,
) -> tuple[Rows, dict[str, Part]]:
    """Return a source as rows of a known space, and the parts of the source that they are."""
    values = tables.condition_frame(given, conditions or {}, 1).columns
    columns = (*space.columns, *(given.columns if given is not None else ()))
    handle = open_source(
        with_layout(source, space), progress, columns if space.columns else None, like=space
    )
    chosen, name = _select_splits(handle, name)
    notes = list(handle.raw.notes)
    if given is not None:
        names = () if space.tabular else space.names
        chosen, _, _ = separate_conditions(chosen, given.names, handle.name, given, values, names)
    before = [part.whole.shape for part in chosen.values()]
    chosen = matching.match_layout(chosen, space, handle.options)
    if any(a[1:] != b.whole.shape[1:] for a, b in zip(before, chosen.values(), strict=True)):
        notes += handle.container.fitted_note(space)
    codes = handle.container.codes(chosen, space, handle.options)
    laid = _rows(chosen, space, handle.binarise(space), given, progress, codes=codes)
    notes += handle.container.read_notes(chosen, laid)
    rows = _concatenate([r.fixed() for r in laid.values()], handle.container)
    return replace(rows, name=name, notes=tuple(dict.fromkeys(notes))), chosen


def _select_splits(handle: Opened, name: str | None) -> tuple[dict[str, Part], str]:
    """Return the splits that a name selects, and the name.

    None selects all rows of a source without splits, and test otherwise.
    """
    if name not in (None, "all", *SPLITS):
        raise ValueError(f"expected train, valid, test or all; got {name!r}")
    parts = handle.parts
    if "all" in parts and name in (None, "all"):
        name = "all"
    elif "all" in parts:
        parts, _ = split(handle)
    name = name or "test"
    chosen = {s: p for s, p in parts.items() if name in (s, "all") and len(p)}
    if not chosen:
        there = ", ".join(handle.raw.splits)
        raise ValueError(f"expected a {name} split in {handle.name}; got {there}")
    return chosen, name


def _concatenate(splits: Sequence[Rows], container: Container) -> Rows:
    """Return the rows of several splits one below the other."""
    first = splits[0]
    if len(splits) == 1:
        return first
    masks = [r.mask() for r in splits]
    shape = first.space.shape
    seen = [
        np.ones((len(r), *shape), bool) if m is None else m
        for r, m in zip(splits, masks, strict=True)
    ]
    given = [r.given for r in splits if r.given is not None]
    return replace(
        first,
        values=container.joined(splits),
        index=None,
        channels_last=False,
        attributes={k: np.concatenate([r.attributes[k] for r in splits]) for k in first.attributes},
        observed=None if all(m is None for m in masks) else np.concatenate(seen),
        given=np.concatenate(given) if given else None,
    )


def complete_table(
    source: object, filled: Frame, name: str, columns: Sequence[Column] | None = None
) -> Frame:
    """Return a split of a source's own table with its empty cells taken from `filled`; columns that
    are not modelled stay as they are.

    Args:
        source: the table.
        filled: the modelled columns of that split, each cell filled.
        name: train, valid, test or all, as `Rows.name` says.
        columns: of the run's table, whose formats the cells have.
    """
    handle = _own_table(source, filled, columns)
    if not all(handle.container.columns(whole) for whole in handle.raw.splits.values()):
        return filled
    cut = "all" in handle.raw.splits and name != "all"
    parts = split(handle)[0] if cut else handle.parts
    frame = own_values({s: p for s, p in parts.items() if name in (s, "all")})
    return handle.container.merged(frame, filled) if len(frame) == len(filled) else filled


def _own_table(source: object, filled: Frame, columns: Sequence[Column] | None) -> Opened:
    """Open a table with all its columns; those that are text in `filled` are read as text."""
    if not isinstance(source, (str, Path)):
        return open_source(source, columns=columns, every=True)
    name, options = parse_source(source)
    if is_table(Path(name)):
        text = [n for n, column in filled.columns.items() if column.dtype.kind == "U"]
        of_split = {k: v for k, v in options.items() if k in ("split", *options_about("files"))}
        raw = tables.read_table(Path(name), of_split, text=text)
    else:
        raw = read(name, options)
    if isinstance(next(iter(raw.splits.values())), Frame):
        raw = parse_cells(raw, options, name, columns, filled.columns)
    return Opened(name, options, raw, container_of(next(iter(raw.splits.values()))))


# -- laying it out ---------------------------------------------------------------------------------


def _rows(
    parts: Mapping[str, Part],
    space: Space,
    binarise: str,
    given: Space | None,
    progress: Progress | None,
    *,
    checked: bool = False,
    codes: Mapping[int, Ragged] | None = None,
) -> dict[str, Rows]:
    """Lay the splits out. Splits that are rows of one array share its values.

    Args:
        parts: the splits.
        space: of the data.
        binarise: dynamic, static or none.
        given: the space of the conditions.
        progress: called with (what, done, total).
        checked: whether the space was inferred from these data, which therefore fit.
        codes: tokens of texts, by the id of the whole.
    """
    layouts = {key: Laid(tokens) for key, tokens in (codes or {}).items()}
    rows = {}
    for name, part in parts.items():
        if id(part.whole) not in layouts:
            layouts[id(part.whole)] = container_of(part.whole).lay_out(
                part.whole, space, binarise != "none", progress, checked
            )
        laid = layouts[id(part.whole)]
        row = Rows(
            laid.values,
            space,
            name,
            dynamic=binarise != "none",
            index=part.index,
            observed=laid.observed,
            given=part.given,
            given_space=given,
            channels_last=laid.channels_last,
            attributes=dict(part.attributes),
        )
        rows[name] = row if binarise == "dynamic" and name == "train" else fixed(row)
    return rows
