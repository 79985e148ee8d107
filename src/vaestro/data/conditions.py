"""Conditions: attributes, or columns of a table, that are given to the model and not modelled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from vaestro.data import kinds, tables
from vaestro.data.containers import container_of
from vaestro.data.passes import Part, Whole, distinct
from vaestro.frames import Frame
from vaestro.spaces import Space
from vaestro.text import nearest


def conditioned(
    parts: dict[str, Part],
    names: Sequence[str],
    source: str,
    space: Space | None = None,
    fixed: Mapping[str, np.ma.MaskedArray] | None = None,
) -> tuple[dict[str, Part], Space | None, list[str]]:
    """Move conditions out of attributes, or out of the columns of a table.

    Args:
        parts: the splits.
        names: of the conditions.
        source: for messages.
        space: of the conditions; inferred from the data if None.
        fixed: values (1,) that all rows have, which win over the source's own.

    Returns:
        the splits with the codes of their conditions, the space of the conditions, and notes.

    Raises:
        ValueError: a condition is named twice, is absent, or has an empty cell; or no column is
            left to model.
    """
    if not names:
        return parts, None, []
    if len(set(names)) < len(names):
        raise ValueError(f"expected each condition once; got {', '.join(names)}")
    found = _taken(parts, names, source, space, fixed or {})
    frames = {s: tables.frame_of({n: p.attributes[n] for n in names}) for s, p in found.items()}
    for name in names:
        _check_filled({s: f.columns[name] for s, f in frames.items()}, found, name, source)
    notes = []
    if space is None:
        whole = Frame.concatenated([f for f in frames.values() if len(f)])
        space, _ = kinds.infer_space(whole, frames["train"], {}, source)
        notes = [f"conditioned on {', '.join(names)}: bounds are of log p(x | {', '.join(names)})"]
    codes = {s: space.inward(f) for s, f in frames.items()}
    return {s: replace(p, given=codes[s]) for s, p in found.items()}, space, notes


def _taken(
    parts: Mapping[str, Part],
    names: Sequence[str],
    source: str,
    space: Space | None,
    fixed: Mapping[str, np.ma.MaskedArray],
) -> dict[str, Part]:
    """Return the splits with the conditions among their attributes, and not in their columns."""
    found: dict[str, Part] = {}
    left: dict[int, Whole] = {}  # splits that are rows of one table stay rows of one
    for split, part in parts.items():
        container = container_of(part.whole)
        columns, attributes = container.columns(part.whole), dict(part.attributes)
        for name in names:
            if name in columns:
                column = columns[name]
                attributes[name] = column if part.index is None else column[part.index]
            if name in fixed:
                attributes[name] = np.ma.MaskedArray(np.repeat(fixed[name].data, len(part)))
        if id(part.whole) not in left:
            left[id(part.whole)] = container.without(part.whole, names)
        whole = left[id(part.whole)]
        absent = [name for name in names if name not in attributes]
        rest = container.columns(whole)
        if absent and space is not None:
            remedy = f"--condition {absent[0]}=VALUE gives one to all rows"
            wanted = f"{source} to have {absent[0]!r}, which the model is conditioned on"
            raise ValueError(f"expected {wanted}; got no such column or attribute ({remedy})")
        if absent:
            known = [*attributes, *rest]
            offer = nearest(absent[0], known) if known else "none, since there are no attributes"
            raise ValueError(f"expected a condition that {source} has: {offer}; got {absent[0]!r}")
        if columns and not rest:
            raise ValueError(
                f"expected columns to model beside the conditions in {source}; got none"
            )
        found[split] = Part(whole, part.index, attributes)
    return found


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
        f"expected a value of the condition {name!r} in every row of {source}; got {got}"
    )
