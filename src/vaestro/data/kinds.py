"""Infer what each column of a table is, and fit it.

What a column is follows from all rows; what is fitted, and whether whole numbers are counts, from
the training rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, final

import numpy as np

from vaestro.data.choosing import named
from vaestro.data.counting import why_no_counts
from vaestro.data.lattices import allowed, fractions, lattice
from vaestro.data.orders import in_order, stated_orders
from vaestro.data.outliers import distances, isolated
from vaestro.data.raw import Options
from vaestro.data.refusals import Unfit, columns_named, leave_out, listed, refuse
from vaestro.frames import Frame
from vaestro.spaces import (
    COLUMN_ORDER,
    COLUMNS,
    LARGEST_COUNT,
    Column,
    CountColumn,
    Kind,
    Space,
    TableSpace,
    column_class,
    widths,
)
from vaestro.text import quoted

KINDS = {str(kind): kind for kind in COLUMN_ORDER}  # options of a source that say what columns are
MOST_CATEGORIES = 1000
FEW = 10  # whole numbers of so few values are categories, if each value comes so often on average
REMARKS = {  # of one column, and of several
    "grid": (
        "lies on a grid of that step: dequantised",
        "lie on grids of those steps: dequantised",
    ),
    "fine": (
        "lies on a grid of that step, which float32 does not resolve: dequantised with bin width "
        "{}",
        "lie on grids of those steps, which float32 does not resolve: dequantised with bin width "
        "{}",
    ),
    "repeats": (
        "has repeated values but no regular grid: dequantised with bin width {}. The bound "
        "depends on it; round the column to choose it",
        "have repeated values but no regular grid: dequantised with bin width {}. Bounds depend "
        "on it; round the columns to choose it",
    ),
    "few": ("has few values: read as categories ({})", "have few values: read as categories ({})"),
    "count": (
        "holds whole numbers: read as counts ({})",
        "hold whole numbers: read as counts ({})",
    ),
    "constant": (
        "is constant: not modelled, copied into samples",
        "are constant: not modelled, copied into samples",
    ),
    "numbers": ("numbers the rows {}", "number the rows {}"),
}
# standard deviations of an isolated value: squares of larger ones are too large for float32
# arithmetic
FARTHEST = 1e5
SHOWN = 2  # columns of a note that says something of each


def infer_space(
    whole: Frame,
    train: Frame,
    options: Options,
    name: str,
    place: Callable[[int], str] | None = None,
) -> tuple[Space, list[str]]:
    """Say what each column is, and fit it on the training rows.

    Args:
        whole: every row of every split, which says which categories there are, and what grid real
            values lie on.
        train: the training rows.
        options: `real`, `count`, `binary`, `ordinal` and `category` name columns of that kind,
            joined by +; `categories` is the largest number of them in a column.
        name: where the table came from, for errors.
        place: of a row of `whole`, in words; by default its number from 1.

    Returns:
        The space, and notes on what was decided, a line each.

    Raises:
        ValueError: a column cannot be data of any kind, or not of the kind that was asked for.
    """
    asked: dict[str, Kind] = {}
    for key, kind in KINDS.items():
        for column in named(options, key, whole.columns, name) if key in options else []:
            if asked.setdefault(column, kind) is not kind:
                raise ValueError(
                    f"expected one kind for column {column!r}; got {asked[column]}= and {key}="
                )
    orders = stated_orders(options, whole.columns)
    limit = options.get("categories", MOST_CATEGORIES)
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 2:
        raise ValueError(f"expected categories to be a whole number of 2 or more; got {limit!r}")
    empty = [
        n
        for n in whole.columns
        if not len(whole.columns[n].compressed()) or not len(train.columns[n].compressed())
    ]
    unfit: list[tuple[Unfit, Sequence[str]]] = []
    if empty:
        unfit.append((Unfit(f"values in {columns_named(empty)}", "empty cells alone"), empty))
    made, crowded, remarks = [], {}, _Remarks()
    for column, cells in whole.columns.items():
        if column in empty:
            continue
        seen = cells.compressed()
        values, times = np.unique(seen, return_counts=True)
        if (
            values.dtype.kind == "f"
            and (largest := max(-float(values[0]), float(values[-1]))) > 1e30
        ):
            unfit.append(
                (
                    Unfit(
                        f"values below 1e30 in size in column {column!r}", f"some up to {largest:g}"
                    ),
                    [column],
                )
            )
            continue
        known = train.columns[column].compressed()
        kind, why = (asked[column], None) if column in asked else _kind(values, times, known)
        if len(values) == 1:
            kind = Kind.CATEGORY
        if COLUMNS[kind].coded:
            most = min(limit, len(seen) // 2) if len(seen) > 100 and column not in asked else limit
            if len(values) > most:
                crowded[column] = most, len(values)
                continue
        try:
            if kind is Kind.ORDINAL:
                values = in_order(column, values, orders.get(column))
            one, off = _fitted(
                column, kind, values, times, known, bool(np.ma.getmaskarray(cells).any())
            )
        except Unfit as error:
            unfit.append((error, []))
            continue
        rows = (
            kind in (Kind.REAL, Kind.COUNT)
            and seen.dtype.kind in "iu"
            and 20 < len(values) == len(cells) == np.ptp(values) + 1
        )
        remarks.look(one, values, column in asked, "numbers" if rows else None, why)
        if kind in (Kind.REAL, Kind.COUNT) and len(far := isolated(numbers := _numbers(seen))):
            rows_seen = np.flatnonzero(~np.ma.getmaskarray(cells))
            each = [
                f"{place(int(rows_seen[i])) if place else f'row {rows_seen[i] + 1:,}'}: {seen[i]}"
                for i in far
            ]
            remarks.far[column] = float(distances(numbers)[far].min()), each
        remarks.strays[column] = (
            [str(v) for v in np.repeat(values[off], times[off])] if len(off) else []
        )
        made.append(one)
    if crowded:
        most = min(m for m, _ in crowded.values())
        got = ", ".join(f"{n:,}" for _, n in islice(crowded.values(), 9)) + (
            " .." if len(crowded) > 9 else ""
        )
        unfit.append(
            (
                Unfit(f"at most {most:,} categories in {columns_named(list(crowded))}", got),
                list(crowded),
            )
        )
    refuse(unfit, name, options.get("ignore"))
    space = TableSpace.of(made)
    return space, [
        *_kinds_note(space),
        *_missing_note(whole),
        *remarks.notes(name, options.get("ignore")),
    ]


def _kind(values: np.ndarray, times: np.ndarray, known: np.ndarray) -> tuple[Kind, str | None]:
    """Choose a column's kind; the second is why whole numbers of 0 or more are no counts, if that
    is not plain.

    Args:
        values: its distinct values, sorted.
        times: how often each occurs.
        known: the values of the training rows, which decide whether whole numbers are counts.
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
    found = fractions(values, times)
    whole = (
        bool(found.units) and found.units % found.parts == 0 and found.residue % found.parts == 0
    )
    if not whole and (values != np.rint(values)).any():
        return Kind.REAL, None
    negative = int(times[values < 0].sum())
    if found.units != found.parts or negative > allowed(times):
        return Kind.REAL, None
    if negative:
        return Kind.REAL, f"{negative} below 0, {_shown(values[values < 0][0])}"
    if values[-1] > LARGEST_COUNT:
        return Kind.REAL, f"values up to {float(values[-1]):g}"
    why = why_no_counts(*np.unique(known[known == np.rint(known)], return_counts=True))
    return (Kind.COUNT if why is None else Kind.REAL), why


def _fitted(
    name: str, kind: Kind, values: np.ndarray, times: np.ndarray, known: np.ndarray, missing: bool
) -> tuple[Column, np.ndarray]:
    """Describe a column of a kind, and say which of its distinct values lie off its grid, (n,), or
    none, (0,).

    The values with how often each occurs are those of all rows; `known` are those of the training
    rows.
    """
    dtype, none = "str" if values.dtype.kind == "U" else values.dtype.name, np.zeros(0, bool)
    if COLUMNS[kind].coded:
        if kind is Kind.BINARY and len(values) != 2:
            raise Unfit(f"two values in column {name!r} for binary=", f"{len(values):,}")
        sorter = np.argsort(values)
        found = sorter[np.searchsorted(values, known, sorter=sorter)]
        shares = (np.bincount(found, minlength=len(values)) + 1) / (len(known) + len(values))
        codes = values.astype(str) if values.dtype.kind == "M" else values
        return COLUMNS[kind](
            name, dtype, tuple(codes.tolist()), start=tuple(shares.tolist()), missing=missing
        ), none
    if dtype == "str":
        raise Unfit(f"numbers in column {name!r} for {kind}=", f"text, such as {values[0][:30]!r}")
    if kind is Kind.COUNT:
        off = values != np.rint(values) if values.dtype.kind == "f" else none
        strays = bool(off.any()) and times[off].sum() <= allowed(times)
        wrong = values
        if values.dtype.kind != "M":
            wrong = values[
                (values < 0)
                | (values > LARGEST_COUNT)
                | ((values != np.rint(values)) & (not strays))
            ]
        if len(wrong):
            raise Unfit(
                f"whole numbers of 0 .. {LARGEST_COUNT:,} in column {name!r} for count=",
                f"{wrong[0]}",
            )
        rounded = np.rint(_bulk(known).astype(np.float64))
        seen = np.log1p(rounded)
        offset, scale, mean = float(seen.mean()), float(seen.std()) or 1.0, float(rounded.mean())
        return CountColumn(
            name, dtype, offset=offset, scale=scale, start=(mean,), missing=missing, strays=strays
        ), off if strays else none
    day = 1.0  # dates are whole days or microseconds here, and days in the column
    if values.dtype.kind == "M":
        unit, day = (
            ("datetime64[D]", 1.0) if dtype == "datetime64[D]" else ("datetime64[us]", 86400e6)
        )
        values, known = values.astype(unit).astype(np.int64), known.astype(unit).astype(np.int64)
    bulk = _bulk(known)
    offset = float(bulk.mean(dtype=np.float64))
    farthest = float(np.abs(known.astype(np.float64) - offset).max())
    scale = max(float(bulk.std(dtype=np.float64)), farthest / FARTHEST) or 1.0
    grid = lattice(values, times, scale)
    column = column_class(kind, dtype)(
        name,
        dtype,
        offset=offset / day,
        scale=scale / day,
        resolution=grid.step / day,
        missing=missing,
        origin=grid.origin / day,
        atoms=grid.atoms,
        strays=grid.strays,
    )
    return column, grid.off


def _numbers(values: np.ndarray) -> np.ndarray:
    """Return dates as microseconds, and numbers as they are."""
    return values.astype("datetime64[us]").astype(np.int64) if values.dtype.kind == "M" else values


def _bulk(values: np.ndarray) -> np.ndarray:
    """Return the values without isolated ones, which would squeeze all others into a small part of
    the standard deviation."""
    return np.delete(values, isolated(values))


# -- notes -----------------------------------------------------------------------------------------


@final
class _Remarks:
    """Gather what there is to say of columns, and say it, one line for each remark."""

    def __init__(self) -> None:
        self.remarks: dict[str, list[str]] = {}
        self.whys: dict[str, str] = {}  # why whole numbers are no counts
        self.strays: dict[str, list[str]] = {}  # values off the grid
        self.steps: dict[str, str] = {}
        self.bins: dict[str, str] = {}  # of the noise
        # distance of isolated values, and these with their rows
        self.far: dict[str, tuple[float, list[str]]] = {}

    def look(
        self, column: Column, values: np.ndarray, asked: bool, remark: str | None, why: str | None
    ) -> None:
        """Take note of a column, of its distinct values, and of what was found already."""
        numbers = values.dtype.kind in "iuf"
        width = float(widths(column.resolution, column.scale))
        self.steps[column.name], self.bins[column.name] = (
            _step(column, column.resolution),
            _step(column, width),
        )
        if len(values) == 1:
            remark = "constant"
        elif why is not None:
            self.whys[column.name] = why
        elif column.kind is Kind.CATEGORY and numbers and not asked:
            remark = "few"
        elif column.kind is Kind.COUNT and not asked and remark is None:
            remark = "count"
        elif column.kind is Kind.REAL and column.resolution and remark is None:
            remark = (
                "repeats" if column.atoms else "fine" if width > 1.5 * column.resolution else "grid"
            )
        if remark is not None:
            self.remarks.setdefault(remark, []).append(column.name)

    def notes(self, name: str, ignored: Any) -> list[str]:
        """Return the lines; `name` is the source's, whose options can overrule what was
        inferred."""
        lines = []
        for remark, names in self.remarks.items():
            more = {
                "repeats": listed([self.bins[n] for n in names]),
                "fine": listed([self.bins[n] for n in names]),
                "few": _overruled("count", names, name),
                "count": _overruled("real", names, name),
                "numbers": leave_out(name, names, ignored),
            }.get(remark, "")
            gridded = remark in ("grid", "fine")
            shown = [f"{_cut(n)} ({self.steps[n]})" for n in names] if gridded else names
            lines.append(
                listed(shown, width=60 if gridded else 24)
                + " "
                + REMARKS[remark][len(names) > 1].format(more).replace(" ()", "")
            )
        if self.whys:
            names = list(self.whys)
            each = listed([f"{_cut(n)} ({self.whys[n]})" for n in names], SHOWN, 80)
            read = f"{each}: whole numbers read as real on a grid of 1, not as counts"
            lines.append(f"{read} ({_overruled('count', names, name)})".replace(" ()", ""))
        off = {n: values for n, values in self.strays.items() if values}
        for n, values in list(off.items())[:SHOWN]:
            many = "1 value" if len(values) == 1 else f"{len(values):,} values"
            such = values[0] if len(values) == 1 else f"such as {values[0]}"
            lines.append(
                f"{_cut(n)}: {many} off the grid of {self.steps[n]}, {such}, rounded to it for "
                f"the model"
            )
        if len(off) > SHOWN:
            lines.append(
                f"{listed(list(off)[SHOWN:])} too: a few values off the grid, rounded to it for "
                f"the model"
            )
        return [*lines, *self._far()]

    def _far(self) -> list[str]:
        """Return a line for each of the first columns with isolated values, and one for the
        rest."""
        lines = []
        for n, (times, each) in list(self.far.items())[:SHOWN]:
            many, check = (
                ("1 value lies", "it") if len(each) == 1 else (f"{len(each)} values lie", "them")
            )
            scope = f"more than {_floor(times):,} times the interquartile range from the median"
            lines.append(
                f"{_cut(n)}: {many} {scope} ({', '.join(each)}); check {check} for a typing error"
            )
        if len(self.far) > SHOWN:
            lines.append(
                f"{listed(list(self.far)[SHOWN:])} too: a few values far from all others; check "
                f"them for typing errors"
            )
        return lines


def _overruled(kind: str, names: Sequence[str], source: str) -> str:
    """Return the option that reads columns as another kind, in words; nothing for a table in
    memory, which has no options."""
    if source == "table":
        return ""
    return f"{kind}={'+'.join(map(quoted, names)) if len(names) <= SHOWN else ''} overrules"


def _floor(times: float) -> int:
    """Return a number of at least 1, rounded down to its first digit."""
    digit = 10 ** int(math.log10(times))
    return int(times // digit) * digit


def _step(column: Column, step: float) -> str:
    """Return a step or a width in the unit of the column: 0.01, 7 days or 60 s."""
    step = step or 1.0
    if not column.dtype.startswith("datetime64"):
        return f"{step:.4g}"
    return f"{step * 86400:.4g} s" if step < 1 else "1 day" if step == 1 else f"{step:.4g} days"


def _cut(name: str) -> str:
    return listed([name])


def _shown(value: Any) -> str:
    return f"{float(value):g}"


def _kinds_note(space: Space) -> list[str]:
    by_kind = {kind: [c.name for c in space.columns if c.kind is kind] for kind in COLUMN_ORDER}
    shown = max(1, 8 // sum(map(bool, by_kind.values())))
    return [
        ", ".join(
            f"{len(names)} {kind} ({listed(names, shown)})"
            for kind, names in by_kind.items()
            if names
        )
    ]


def _missing_note(whole: Frame) -> list[str]:
    empty = {
        column: int(np.ma.getmaskarray(cells).sum())
        for column, cells in whole.columns.items()
        if np.ma.is_masked(cells)
    }
    if not empty:
        return []
    share = 100 * sum(empty.values()) / (len(whole) * len(whole.columns))
    most = sorted(empty, key=lambda column: -empty[column])
    cells = f"{share:.1f} % of cells are" if share >= 0.1 else f"{sum(empty.values()):,} cells are"
    return [
        f"{cells} empty, in {listed(most)}: bounds are of what is observed, and missing at "
        f"random is assumed"
    ]
