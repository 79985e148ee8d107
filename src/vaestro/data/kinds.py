"""Infer what each column of a table is, and fit it.

What a column is follows from all rows. What is fitted, and whether whole numbers are counts, follow
from the training rows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import final

import numpy as np

from vaestro.column_types import DURATIONS, is_category
from vaestro.data.choosing import named
from vaestro.data.column_fitting import Cells, fitted
from vaestro.data.counting import why_no_counts
from vaestro.data.formats import decide, restored
from vaestro.data.lattices import allowed, fractions
from vaestro.data.marginals import TRANSFORMS, atoms, gain_over_counts
from vaestro.data.orders import ordered_values, stated_orders
from vaestro.data.raw import Options
from vaestro.data.refusals import Unfit, columns_named, first_names, refuse
from vaestro.data.remarks import Remarks, kinds_note, missing_note
from vaestro.data.sequence_files import sequence_notes
from vaestro.frames import Frame, Order
from vaestro.spaces import COLUMN_ORDER, COLUMNS, LARGEST_COUNT, Column, Kind, Space, TableSpace
from vaestro.text import typed

KINDS = {str(kind): kind for kind in COLUMN_ORDER}  # options of a source that name columns
MOST_CATEGORIES = 1000
MOST_KEPT = 5000  # largest number of categories that a message suggests to allow
# Whole numbers with an atom, or with a median from LARGE on, are real if their marginal
# distribution as real values has a held-out likelihood that is higher than that of a negative
# binomial by these nats per value and standard errors.
SHAPED, CLEARLY, SHAPED_FROM, LARGE = 0.1, 3.0, 200, 100
# integers with at most this number of values are categories, if each occurs as often on average
FEW = 10
LARGEST = 1e30  # largest absolute value in a column


def infer_space(
    whole: Frame,
    train: Frame,
    options: Options,
    name: str,
    place: Callable[[int], str] = lambda row: f"row {row + 1:,}",
) -> tuple[Space, list[str]]:
    """Infer the kind of each column, and fit it on the training rows.

    Args:
        whole: every row of every split. Categories and grids of real values follow from all
            rows. Declared orders of a column (`Frame.orders`) make it ordinal.
        train: the training rows.
        options: `real`, `count`, `binary`, `ordinal` and `category` name columns of that kind,
            joined by +; `categories` is the largest number of them in a column; `identity`, `log`,
            `logit` and `quantiles` name columns with that marginal transform, and `marginals=plain`
            uses none.
        name: where the table came from, for errors.
        place: describes a row of `whole` in words; by default by its number from 1.

    Returns:
        The space, and notes on what was decided, a line each.

    Raises:
        ValueError: a column cannot be data of any kind, or not of the kind that was asked for.
    """
    request, remarks = _Request.of(options, whole, name), Remarks(place)
    columns: list[Column] = []
    unfit: list[tuple[Unfit, Sequence[str]]] = []
    crowded: dict[str, tuple[int, int]] = {}
    empty, left_out = _empty(whole, train, name)
    for column in whole.columns:
        if column in empty:
            continue
        cells = Cells.of(column, whole.columns[column], train.columns[column])
        if (too_large := _too_large(cells, place)) is not None:
            unfit.append((too_large, [column]))
            continue
        kind, why = request.kind(cells)
        most = request.most(cells)
        if COLUMNS[kind].coded and len(cells.values) > most:
            crowded[column] = most, len(cells.values)
            continue
        try:
            values, among = request.values(cells, kind), request.among(cells, kind)
            one, off = fitted(cells, kind, values, among)
        except Unfit as error:
            unfit.append((error, []))
            continue
        remarks.look(one, cells, off, asked=column in request.kinds, why=why)
        columns.append(_as_declared(one, whole))
    if crowded:
        unfit.append((_too_many(crowded, whole, name), list(crowded)))
    refuse(unfit, options.get("ignore"))
    space = _with_empty(TableSpace.of(columns), train)
    notes = remarks.notes(name, options.get("ignore"))
    notes += sequence_notes(whole, [c.name for c in columns if len(c.values) > 1])
    present = whole.without(empty)
    first = [*kinds_note(space), *left_out, *missing_note(present)]
    return space, [*first, *_unused_note(present, space), *notes]


def _with_empty(space: Space, train: Frame) -> Space:
    """Return the space with the share of empty cells of each column in the training rows."""
    empty = np.array([np.ma.getmaskarray(train.columns[c.name]).mean() for c in space.columns])
    return replace(space, empty=empty) if empty.any() else space


def _as_declared(column: Column, whole: Frame) -> Column:
    """Return a column with the format of its cells and its declared type."""
    declared = whole.types.get(column.name, "")
    kept = column.coded or not is_category(declared)
    return replace(
        column,
        format=whole.formats.get(column.name, ""),
        declared=declared if kept else column.declared,
    )


def _empty(whole: Frame, train: Frame, name: str) -> tuple[list[str], list[str]]:
    """Return the columns without a value in the training rows, and a note on them.

    Raises:
        ValueError: all columns are such.
    """
    absent = [n for n, cells in whole.columns.items() if not cells.count()]
    untrained = [n for n in whole.columns if n not in absent and not train.columns[n].count()]
    if len(absent) + len(untrained) == len(whole.columns):
        raise ValueError(
            f"expected values in {columns_named([*absent, *untrained])} of {name}; got empty cells "
            f"alone (check that the file was saved with its values)"
        )
    notes = [f"left out {columns_named(absent)}: all cells are empty"] if absent else []
    if untrained:
        notes.append(
            f"left out {columns_named(untrained)}: all cells of the training rows are empty "
            f"(seed=N draws other rows)"
        )
    return [*absent, *untrained], notes


def _unused_note(whole: Frame, space: Space) -> list[str]:
    """Return a note on declared categories that no row has."""
    unused = {}
    for column in space.columns:
        values = set(column.values)
        rest = [str(v) for v in whole.categories.get(column.name, ()) if v not in values]
        if rest and column.coded:
            unused[column.name] = rest
    return [
        f"no row has the category {first_names(rest)} of {name}: samples do not have it either"
        if len(rest) == 1
        else f"no row has the categories {first_names(rest)} of {name}: samples do not have them "
        f"either"
        for name, rest in unused.items()
    ]


@final
@dataclass(frozen=True, eq=False)
class _Request:
    """Hold what a source says about its columns.

    Args:
        kinds: the kinds that options name, by column.
        transforms: the marginal transforms that options name, by column.
        plain: whether real columns have neither a transform nor atoms if no option names one.
        orders: the orders of values that options state or the table declares, by column.
        declared: the kinds of columns that follow from their declared types and orders.
        limit: largest number of categories.
    """

    kinds: Mapping[str, Kind]
    transforms: Mapping[str, str]
    plain: bool
    orders: Mapping[str, Order]
    declared: Mapping[str, Kind]
    limit: int

    @classmethod
    def of(cls, options: Options, whole: Frame, name: str) -> _Request:
        """Return what options and a table say.

        Raises:
            ValueError: an option names no column, two options name one column, or the number of
                categories is not a whole number of 2 or more.
        """
        transforms: dict[str, str] = {}
        for key in TRANSFORMS:
            for column in named(options, key, whole.columns, name) if key in options else []:
                if (other := transforms.setdefault(column, key)) != key:
                    raise ValueError(
                        f"expected one transform for column {column!r}; got {other}= "
                        f"and {key}=: leave one of them out"
                    )
        kinds: dict[str, Kind] = {}
        for key, kind in KINDS.items():
            for column in named(options, key, whole.columns, name) if key in options else []:
                if kinds.setdefault(column, kind) is not kind:
                    raise ValueError(
                        f"expected one kind for column {column!r}; got {kinds[column]}= "
                        f"and {key}=: leave one of them out"
                    )
        limit = options.get("categories", MOST_CATEGORIES)
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 2:
            raise ValueError(
                f"expected categories to be a whole number of 2 or more; got {limit!r}"
            )
        orders = {**whole.categories, **whole.orders, **stated_orders(options, whole.columns)}
        declared = {n: k for n, t in whole.types.items() if (k := _declared_kind(t)) is not None}
        declared |= dict.fromkeys(whole.orders, Kind.ORDINAL)
        times = {n for n, stored in whole.formats.items() if restored(stored).continuous}
        declared = dict.fromkeys(times, Kind.REAL) | declared
        plain = options.get("marginals") == "plain"
        return cls(kinds, transforms, plain, orders, declared, limit)

    def among(self, cells: Cells, kind: Kind) -> Sequence[str]:
        """Return the transforms to choose from.

        Raises:
            ValueError: an option names the transform of a column of another kind than real.
        """
        if cells.name not in self.transforms:
            return () if self.plain else TRANSFORMS
        key = self.transforms[cells.name]
        if kind is not Kind.REAL:
            numbers = cells.values.dtype.kind in "iuf"
            hint = (
                typed("real", cells.name) + " changes it" if numbers else f"leave it out of {key}="
            )
            raise ValueError(
                f"expected a real column for {key}=; got {cells.name!r}, which is read as {kind} "
                f"({hint})"
            )
        return (key,)

    def kind(self, cells: Cells) -> tuple[Kind, str | None]:
        """Return the kind of a column, and why whole numbers are no counts, if they could be; a
        constant column is a category."""
        kind, why = self.kinds.get(cells.name, self.declared.get(cells.name)), None
        if kind is Kind.CATEGORY and cells.name not in self.kinds and len(cells.values) == 2:
            kind = Kind.BINARY  # as two words or truth values without a declared type
        if kind is None:
            kind, why = _kind(cells.values, cells.times, cells.train)
        return (kind if len(cells.values) > 1 else Kind.CATEGORY), why

    def most(self, cells: Cells) -> int:
        """Return the largest number of categories of a column: half of its cells if nothing says
        that it has categories."""
        size = int(cells.times.sum())
        free = size > 100 and cells.name not in self.kinds and cells.name not in self.declared
        return min(self.limit, size // 2) if free else self.limit

    def values(self, cells: Cells, kind: Kind) -> np.ndarray:
        """Return the distinct values, in increasing order if they are ordered categories."""
        if not COLUMNS[kind].ordered:
            return cells.values
        return ordered_values(cells.name, cells.values, self.orders.get(cells.name))


def _declared_kind(declared: str) -> Kind | None:
    """Return the kind of columns of a declared type; None if it depends on their values."""
    if declared.startswith(DURATIONS):
        return Kind.REAL
    return Kind.CATEGORY if is_category(declared) else None


def _too_large(cells: Cells, place: Callable[[int], str]) -> Unfit | None:
    """Return why numbers are infinite or too large for float32, if they are."""
    values = cells.values
    if values.dtype.kind != "f":
        return None
    largest = max(-float(values[0]), float(values[-1]))
    if largest <= LARGEST:
        return None
    data = np.ma.getdata(cells.column)
    far = np.flatnonzero((np.abs(data) > LARGEST) & ~np.ma.getmaskarray(cells.column))
    first = place(int(far[0]))
    if np.isinf(data[far]).all():
        got = f"{len(far):,} infinite, the first in {first}"
        advice = "missing=inf takes them as empty"
        return Unfit(f"finite numbers in column {cells.name!r}", got, advice)
    got = f"some up to {largest:g}, the first in {first}"
    values, times = np.unique(data[far], return_counts=True)
    most = f"{values[times.argmax()]:g}"
    advice = (
        f"missing={most} takes it as empty"
        if len(values) == 1
        else "divide the column, or take its logarithm"
    )
    return Unfit(f"values below 1e30 in size in column {cells.name!r}", got, advice)


def _too_many(crowded: Mapping[str, tuple[int, int]], whole: Frame, name: str) -> Unfit:
    """Return the error of columns with too many categories.

    Args:
        crowded: {column: (largest number, number)}.
        whole: the table.
        name: of the source.
    """
    sequences = "".join(f"; {note}" for note in sequence_notes(whole, list(crowded)))
    most = min(m for m, _ in crowded.values())
    got = ", ".join(f"{n:,}" for _, n in islice(crowded.values(), 9))
    return Unfit(
        f"at most {most:,} categories in {columns_named(list(crowded))}",
        got + (" .." if len(crowded) > 9 else "") + sequences,
        "" if sequences else _causes(crowded, whole),
    )


def _causes(crowded: Mapping[str, tuple[int, int]], whole: Frame) -> str:
    """Return why columns of words probably have too many categories, and what to try."""
    causes, ids, kept = [], [], []
    for name, (_, n) in islice(crowded.items(), 9):
        cells = whole.columns[name].compressed()
        words, times = np.unique(cells.astype(str), return_counts=True)
        decision = decide(words.tolist(), times)
        start = "" if len(crowded) == 1 else f"{name} "
        if looks := decision.looks:
            causes.append(f"{start}looks like {looks}; {_named_empty(decision.odd)}")
        elif np.char.count(words, " ").mean() > 2:
            causes.append(f"{start}looks like texts; {typed('text', name)} models them")
        else:
            ids += [name] if n == len(cells) else []
            kept += [name] if n <= MOST_KEPT else []
    if ids:
        start = "" if len(crowded) == 1 else f"{', '.join(ids)}: "
        causes.append(f"{start}every row has its own, as identifiers have")
    if len(kept) == len(crowded):
        most = max(n for _, n in crowded.values())
        largest = "" if most <= MOST_CATEGORIES else f",categories={most}"
        causes.append(f"{typed('category', kept)}{largest} reads them all the same")
    return "; ".join(causes)


def _named_empty(odd: Collection[str]) -> str:
    """Return how to read words among numbers or dates as empty cells."""
    if len(odd) > 3:
        return "the words that are not can be named in empty="
    return f"{typed('empty', [word.strip() for word in odd])} takes the other words as empty"


def _kind(values: np.ndarray, times: np.ndarray, train: np.ndarray) -> tuple[Kind, str | None]:
    """Return a column's kind, and why whole numbers of 0 or more are no counts, if that is not
    plain.

    Args:
        values: its distinct values, sorted.
        times: how often each occurs.
        train: the values of the training rows, which decide whether whole numbers are counts.
    """
    if values.dtype.kind == "M":
        return Kind.REAL, None
    if values.dtype.kind == "U":
        return Kind.BINARY if len(values) == 2 else Kind.CATEGORY, None
    often = times.sum() >= FEW * len(values)
    if len(values) == 2 and (often or set(values.tolist()) == {0, 1}):
        return Kind.BINARY, None
    if len(values) <= FEW and often and times[values != np.rint(values)].sum() <= allowed(times):
        return Kind.CATEGORY, None
    grid = fractions(values, times)
    whole = bool(grid.units) and grid.units % grid.parts == 0 and grid.residue % grid.parts == 0
    if not whole and (values != np.rint(values)).any():
        return Kind.REAL, None
    negative = int(times[values < 0].sum())
    if grid.units != grid.parts or negative > allowed(times):
        return Kind.REAL, None
    if negative:
        return Kind.REAL, f"{negative} below 0, {float(values[values < 0][0]):g}"
    if values[-1] > LARGEST_COUNT:
        return Kind.REAL, f"values up to {float(values[-1]):g}"
    counts = train[train == np.rint(train)]
    why = why_no_counts(*np.unique(counts, return_counts=True)) or _why_shaped(counts)
    return (Kind.COUNT if why is None else Kind.REAL), why


def _why_shaped(counts: np.ndarray) -> str | None:
    """Return why whole numbers of the training rows with an atom, or with a large median, have a
    shape that is not that of counts; None if they can be counts."""
    numbers = counts.astype(np.float64)
    if len(counts) < SHAPED_FROM:
        return None
    points = atoms(numbers, 1.0)[0]
    if not points and np.median(numbers) < LARGE:
        return None
    gain, error = gain_over_counts(numbers)
    if gain < max(SHAPED, CLEARLY * error):
        return None
    if not points:
        return f"a negative binomial fits worse by {gain:.2g} nats"
    share = 100 * float((numbers == points[0]).mean())
    return f"{points[0]:g} is {share:.0f} % of the values, too frequent for a negative binomial"
