"""Split data into training, validation and test rows."""

from __future__ import annotations

import numpy as np

from vaestro.data.containers import container_of
from vaestro.data.grouping import divided_by_group
from vaestro.data.images import is_image
from vaestro.data.opening import Opened
from vaestro.data.passes import Part, Whole
from vaestro.data.raw import Options
from vaestro.data.source_options import as_source
from vaestro.text import InputError, nearest, unquoted

SPLITS = ("train", "valid", "test")
PIECES = {"crops": 1000, "size": 32}  # of one image, in a hint


def split(opened: Opened) -> tuple[dict[str, Part], list[str]]:
    """Return the three splits, and a note on how they were drawn.

    A source without its own splits is split at random into 90 % for training and 5 % each for
    validation and test, unless its options give other numbers of rows.

    Raises:
        ValueError: there are too few rows, or an option contradicts the splits of the source.

    >>> from vaestro.data.opening import open_source
    >>> splits, notes = split(open_source("shapes:n=100,size=16"))
    >>> [len(part) for part in splits.values()], notes
    ([90, 5, 5], ['split by seed 0'])
    """
    name, options, parts = opened.name, opened.options, opened.parts
    missing = list(SPLITS) if "all" in parts else [s for s in ("valid", "test") if s not in parts]
    _check(opened, parts, missing)
    if not missing:
        return {s: parts[s] for s in SPLITS}, []
    own = "all" if "all" in parts else "train"
    whole = parts.pop(own)
    n, most = len(whole), opened.container.most_held_out
    usual = min(n if most is None else most, max(1, round(0.05 * n)))
    sizes: dict[str, int] = {s: options.get(s, usual) for s in ("valid", "test") if s in missing}
    if n >= 10 and n - sum(sizes.values()) < 1:
        held_out = " + ".join(f"{split}={size}" for split, size in sizes.items())
        raise InputError(
            f"{held_out} leaves no training rows, because {name} has {n:,} rows: use smaller "
            f"numbers"
        )
    record = opened.raw.series
    if n < 10:
        noun = "rows" if record is None else "series or windows"
        one = n == 1 and opened.container.name == "arrays"
        hint = " (a single image or series is one row: cut it into pieces)" if one else ""
        if is_image(name):
            hint = f": cut the image into pieces with {as_source('', PIECES)[1:]}"
        if record is not None:
            hint = ": cut series into (more) windows with window=N,stride=M"
        raise ValueError(
            f"expected at least 10 {noun}, to split them into training, validation and test; got "
            f"{n} in {name}{hint}"
        )
    seed = options.get("seed", 0)
    if record is not None and record.windows:
        index, note = record.windows[own].divide(sizes, seed, name)
        parts |= {s: whole.chosen(rows) for s, rows in index.items()}
        return {s: parts[s] for s in SPLITS}, [note]
    if (grouped := groups_of(whole, options, name)) is not None:
        noun, groups = grouped
        index = divided_by_group(groups, sizes, seed)
        parts |= {s: whole.chosen(rows) for s, rows in index.items()}
        note = f"split by seed {seed} by {noun}: the rows of one {noun} are in one split"
        return {s: parts[s] for s in SPLITS}, [note]
    parts |= opened.container.divide(whole, sizes, seed)
    return {s: parts[s] for s in SPLITS}, [f"split by seed {seed}"]


def groups_of(part: Part, options: Options, source: str) -> tuple[str, np.ndarray] | None:
    """Return what groups the rows of a source, and the group of each row, (N,).

    The option `groups` names a column or an attribute. Pages of a file are a group (`pages=all`).
    None if rows are independent.

    Args:
        part: all rows.
        options: of the source.
        source: for messages.

    Raises:
        ValueError: there is no such column or attribute, it has empty cells, or it has fewer groups
            than splits.

    >>> part = Part(np.eye(4), None, {"who": np.array(["a", "a", "b", "c"])})
    >>> groups_of(part, {"groups": "who"}, "x.npz")
    ('who', array(['a', 'a', 'b', 'c'], dtype='<U1'))
    """
    if "groups" in options:
        name = unquoted(str(options["groups"]))
    elif options.get("pages") == "all" and "file" in part.attributes:
        name = "file"
    else:
        return None
    columns = {**part.attributes, **container_of(part.whole).columns(part.whole)}
    if name not in columns:
        if not columns:
            raise InputError(f"{source} has no columns or attributes: leave groups= out")
        raise ValueError(
            f"expected groups= to name a column or an attribute of {source}: "
            f"{nearest(name, list(columns))}; got {name!r}"
        )
    values = np.ma.asarray(columns[name])
    if empty := int(np.ma.count_masked(values)):
        first = int(np.flatnonzero(np.ma.getmaskarray(values))[0])
        raise InputError(
            f"{empty:,} rows of {source} have no {name} (the first is row {first + 1:,}): fill "
            f"these cells, or leave groups= out"
        )
    groups = np.asarray(values.data)
    if (count := len(np.unique(groups))) < 3:
        raise InputError(
            f"{source} has {count} different {name}, but 3 splits of whole groups need 3 or more: "
            f"leave groups= out"
        )
    return name, groups


def without_groups(parts: dict[str, Part], options: Options, source: str) -> dict[str, Part]:
    """Return splits of which the column that groups rows is an attribute and is not modelled.

    Args:
        parts: the splits.
        options: of the source; `groups` names the column.
        source: for messages.

    Raises:
        ValueError: no column is left to model.

    >>> from vaestro.data.tables import frame_of
    >>> parts = {"train": Part(frame_of({"a": [1, 2], "who": ["x", "y"]}), np.array([1]))}
    >>> part = without_groups(parts, {"groups": "who"}, "t.csv")["train"]
    >>> list(part.whole.columns), part.attributes["who"].tolist()
    (['a'], ['y'])
    """
    name = unquoted(str(options.get("groups", "")))
    rest: dict[int, Whole] = {}  # splits of one table remain splits of one table
    splits = {}
    for split, part in parts.items():
        container = container_of(part.whole)
        columns = container.columns(part.whole)
        if name not in columns:
            return parts
        if len(columns) == 1:
            raise InputError(f"{name} is the only column of {source}: leave groups= out")
        if id(part.whole) not in rest:
            rest[id(part.whole)] = container.without(part.whole, [name])
        own = columns[name].data if part.index is None else columns[name].data[part.index]
        splits[split] = Part(rest[id(part.whole)], part.index, {**part.attributes, name: own})
    return splits


def _check(opened: Opened, parts: dict[str, Part], missing: list[str]) -> None:
    """Raise ValueError if an option would draw a split that the source already has."""
    name, options = opened.name, opened.options
    fixed: list[str]
    if name == "mnist":  # `valid` is an option of its reader
        fixed = [k for k in ("test", "seed", "groups") if k in options]
    else:
        fixed = [
            k
            for k in ("valid", "test", "seed", "groups")
            if k in options
            and ((k in ("seed", "groups") and not missing) or k in parts)
            and not (k == "seed" and "crops" in options)  # pieces are drawn by it
        ]
    if fixed:
        raise InputError(f"{name} has its own splits: leave out {fixed[0]}={options[fixed[0]]}")
