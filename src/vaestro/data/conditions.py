"""Conditions: attributes, or columns of a table, that the model is given and does not model."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np

from vaestro.data import kinds, tables
from vaestro.data.containers import container_of
from vaestro.data.passes import Part, Whole, distinct
from vaestro.frames import Frame
from vaestro.spaces import CategoryColumn, Column, Space, TableSpace
from vaestro.text import InputError, nearest, quoted

LIBRARY = "library"  # the condition that is the sum of a row of counts, unless it is an attribute


def separate_conditions(
    parts: dict[str, Part],
    names: Sequence[str],
    source: str,
    space: Space | None = None,
    fixed: Mapping[str, np.ma.MaskedArray] | None = None,
    cells: tuple[str, ...] = (),
    grow: bool = False,
) -> tuple[dict[str, Part], Space | None, list[str]]:
    """Move conditions from the attributes, or the columns of a table, to the codes of conditions.

    Args:
        parts: the splits.
        names: of the conditions.
        source: for messages.
        space: of the conditions; inferred from the data if None.
        fixed: values (1,) for all rows, which replace those of the source.
        cells: names of the cells that a model of counts has. The condition `library` is their sum
            if the source has no attribute of this name.
        grow: add values that a condition of the space does not have as new categories.

    Returns:
        the splits with the codes of their conditions, the space of the conditions, and notes.

    Raises:
        ValueError: a condition is named twice, is absent, or has an empty cell; or no column is
            left to model.

    >>> frame = tables.frame_of({"a": [1.5, 2.5, 3.5], "b": ["x", "y", "x"]})
    >>> parts, space, notes = separate_conditions({"train": Part(frame)}, ["b"], "t.csv")
    >>> list(parts["train"].whole.columns), space.names, notes
    (['a'], ('b',), ['conditioned on b: bounds are of log p(x | b)'])
    """
    if not names:
        return parts, None, []
    if len(set(names)) < len(names):
        raise ValueError(f"expected each condition once; got {', '.join(names)}")
    splits = _as_attributes(parts, names, source, space, fixed or {}, cells)
    formats = {n: f for p in parts.values() for n, f in _formats(p).items() if n in names}
    frames = {
        s: replace(tables.frame_of({n: p.attributes[n] for n in names}), formats=formats)
        for s, p in splits.items()
    }
    for name in names:
        _check_filled({s: f.columns[name] for s, f in frames.items()}, splits, name, source)
    notes = []
    if space is None:
        whole = Frame.concatenated([f for f in frames.values() if len(f)])
        space, _ = kinds.infer_space(whole, frames["train"], {}, source)
        notes = [f"conditioned on {', '.join(names)}: bounds are of log p(x | {', '.join(names)})"]
    elif grow:
        space, notes = with_new_categories(space, Frame.concatenated(list(frames.values())))
    codes = {s: space.inward(f) for s, f in frames.items()}
    return {s: replace(p, given=codes[s]) for s, p in splits.items()}, space, notes


def with_new_categories(space: Space, frame: Frame) -> tuple[Space, list[str]]:
    """Return a space of conditions with the new categories of some rows, and notes on them.

    Args:
        space: of the conditions of a run.
        frame: the conditions of other rows.

    >>> from vaestro.spaces import BinaryColumn, TableSpace
    >>> space = TableSpace.of([BinaryColumn("lab", "str", ("a", "b"))])
    >>> grown, notes = with_new_categories(space, tables.frame_of({"lab": ["c", "b", "c"]}))
    >>> grown.columns[0].values, grown.columns[0].added, notes
    (('a', 'b', 'c'), 1, ['new categories of lab: c'])
    """
    new = {
        c.name: values
        for c in space.columns
        if not c.ordered and (values := c.strangers(frame.columns[c.name]))
    }
    if not new:
        return space, []
    columns: dict[str, Column] = {c.name: replace(c, added=0) for c in space.columns}
    for name, values in new.items():
        known = columns[name]
        added = {"values": (*known.values, *values), "start": (), "added": len(values)}
        columns[name] = CategoryColumn(**asdict(known) | added)
    shown = {n: ", ".join(map(str, v[:5])) + (" .." if len(v) > 5 else "") for n, v in new.items()}
    notes = [f"new categories of {name}: {values}" for name, values in shown.items()]
    return TableSpace.of([columns[name] for name in space.names]), notes


def _formats(part: Part) -> Mapping[str, str]:
    """Return how the cells of the columns of a table are written."""
    return container_of(part.whole).formats(part.whole)


def _as_attributes(
    parts: Mapping[str, Part],
    names: Sequence[str],
    source: str,
    space: Space | None,
    fixed: Mapping[str, np.ma.MaskedArray],
    cells: tuple[str, ...],
) -> dict[str, Part]:
    """Return the splits with the conditions as attributes instead of columns."""
    splits: dict[str, Part] = {}
    totals: dict[int, np.ndarray | None] = {}
    left: dict[int, Whole] = {}  # splits of one table remain splits of one table
    for split, part in parts.items():
        container = container_of(part.whole)
        columns, attributes = container.columns(part.whole), dict(part.attributes)
        for name in names:
            if name in columns:
                column = columns[name]
                attributes[name] = column if part.index is None else column[part.index]
            if name in fixed:
                attributes[name] = np.ma.MaskedArray(np.repeat(fixed[name].data, len(part)))
        if LIBRARY in names and LIBRARY not in attributes:
            if id(part.whole) not in totals:
                totals[id(part.whole)] = container.totals(part.whole, cells)
            if (sums := totals[id(part.whole)]) is not None:
                attributes[LIBRARY] = sums if part.index is None else sums[part.index]
        if id(part.whole) not in left:
            left[id(part.whole)] = container.without(part.whole, names)
        whole = left[id(part.whole)]
        absent = [name for name in names if name not in attributes]
        rest = container.columns(whole)
        if absent and space is not None:
            raise InputError(
                f"{source} has no column or attribute {absent[0]!r}, on which the model is "
                f"conditioned (--condition {shlex.quote(quoted(absent[0]))}=VALUE sets it for all "
                f"rows)"
            )
        if absent:
            available = [*attributes, *rest]
            if not available:
                raise InputError(
                    f"{source} has no attributes to condition on: leave --condition out"
                )
            raise ValueError(
                f"expected a condition that {source} has: {nearest(absent[0], available)}; got "
                f"{absent[0]!r}"
            )
        if columns and not rest:
            raise InputError(
                f"all columns of {source} are conditions: leave at least one column to model"
            )
        splits[split] = Part(whole, part.index, attributes)
    return splits


def _check_filled(
    cells: Mapping[str, np.ma.MaskedArray], parts: Mapping[str, Part], name: str, source: str
) -> None:
    """Raise ValueError if a condition has an empty cell in some split."""
    empty = {s: np.flatnonzero(np.ma.getmaskarray(column)) for s, column in cells.items()}
    count = sum(map(len, empty.values()))
    if not count:
        return
    first = {
        s: int(at[0]) if (index := parts[s].index) is None else int(index[at[0]])
        for s, at in empty.items()
        if len(at)
    }
    split = next(iter(first))
    row = (
        f"{min(first.values()) + 1:,}"
        if len(distinct(parts.values())) == 1
        else f"{first[split] + 1:,} of {split}"
    )
    got = (
        f"{count:,} empty cells, the first in row {row}"
        if count > 1
        else f"an empty cell in row {row}"
    )
    raise ValueError(
        f"expected a value of the condition {name!r} in every row of {source}; got {got} (without "
        f"--condition {shlex.quote(name)} the column is modelled, and `vaestro impute` "
        f"fills its empty cells)"
    )
