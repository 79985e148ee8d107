"""The notes on a table's columns: what was inferred, and the option that overrules it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import final

import numpy as np

from vaestro.data.column_fitting import Cells
from vaestro.data.outliers import distances, isolated_values
from vaestro.data.refusals import Names, first_names, leave_out
from vaestro.data.sentinels import sentinel
from vaestro.frames import Frame
from vaestro.spaces import COLUMN_ORDER, LARGEST_COUNT, Column, Kind, Space, widths
from vaestro.text import typed

REMARKS = {  # of one column, and of several
    "grid": (
        "lies on a grid with this step: dequantised",
        "lie on grids with these steps: dequantised",
    ),
    "fine": (
        "lies on a grid with this step, which float32 does not resolve: dequantised with bin width "
        "{}",
        "lie on grids with these steps, which float32 does not resolve: dequantised with bin width "
        "{}",
    ),
    "repeats": (
        "has repeated values but no regular grid: dequantised with bin width {}. The bound "
        "depends on it; round the column to choose it",
        "have repeated values but no regular grid: dequantised with bin width {}. Bounds depend "
        "on it; round the columns to choose it",
    ),
    "few": ("has few values: read as categories ({})", "have few values: read as categories ({})"),
    "count": ("has whole numbers: read as counts ({})", "have whole numbers: read as counts ({})"),
    "declared": (
        "has a declared order: read as ordered categories ({})",
        "have declared orders: read as ordered categories ({})",
    ),
    "constant": (
        "is constant: not modelled, copied into samples",
        "are constant: not modelled, copied into samples",
    ),
    "numbers": ("numbers the rows {}", "number the rows {}"),
}
# what numbers and ordered categories are read as if no option names their kind -> the remark
UNASKED: Mapping[Kind, str] = {Kind.CATEGORY: "few", Kind.COUNT: "count", Kind.ORDINAL: "declared"}
SHOWN = 2  # columns of a note that says something of each


@final
class Remarks:
    """Collect remarks on columns, and return one line for each remark.

    Args:
        place: describes a row of the table in words, from its number.
    """

    def __init__(self, place: Callable[[int], str]) -> None:
        self.place = place
        self.remarks: dict[str, list[str]] = {}
        self.whys: dict[str, str] = {}  # why whole numbers are no counts
        self.countable: list[str] = []  # those of them that count= can read
        self.strays: dict[str, list[str]] = {}  # values off the grid
        self.steps: dict[str, str] = {}
        self.bins: dict[str, str] = {}  # of the noise
        self.orders: dict[str, str] = {}
        # the columns of each marginal transform, and the atoms of each column
        self.transforms: dict[str, list[str]] = {}
        self.atoms: dict[str, str] = {}
        # distance of isolated values, and these with their rows
        self.far: dict[str, tuple[float, list[str]]] = {}
        self.codes: dict[str, tuple[float, int]] = {}  # numbers that look like empty cells

    def look(
        self, column: Column, cells: Cells, off: np.ndarray, *, asked: bool, why: str | None
    ) -> None:
        """Record a column.

        Args:
            column: fitted.
            cells: its data.
            off: which of its distinct values lie off its grid.
            asked: whether an option names its kind.
            why: why whole numbers are no counts, if they could be.
        """
        width = float(widths(column.resolution, column.scale))
        self.steps[column.name] = _step(column, column.resolution)
        self.bins[column.name] = _step(column, width)
        self.orders[column.name] = first_names(list(map(str, column.values)), 5).replace(
            ", ", " < "
        )
        values, remark = cells.values, _row_numbers(column, cells)
        if len(values) == 1:
            remark = "constant"
        elif why is not None:
            self.whys[column.name] = why
            if values[0] >= 0 and values[-1] <= LARGEST_COUNT:
                self.countable.append(column.name)
        elif remark is None and not asked and (column.ordered or values.dtype.kind in "iuf"):
            remark = UNASKED.get(column.kind)
        if remark is None and why is None and column.resolution and len(values) > 1:
            remark = (
                "repeats" if column.atoms else "fine" if width > 1.5 * column.resolution else "grid"
            )
        if remark is not None:
            self.remarks.setdefault(remark, []).append(column.name)
        if column.transform != "identity":
            self.transforms.setdefault(column.transform, []).append(column.name)
        if column.points:
            shares = zip(column.points, column.start, strict=True)
            each = [f"{_number(column, v)}: {100 * p:.0f} %" for v, p in shares]
            self.atoms[column.name] = ", ".join(each[:SHOWN]) + (" .." if each[SHOWN:] else "")
        strays = np.repeat(values[off], cells.times[off]) if len(off) else ()
        self.strays[column.name] = [str(v) for v in strays]
        if column.numeric:
            self._look_for_isolated(cells)

    def _look_for_isolated(self, cells: Cells) -> None:
        """Record values far from all others, with their rows."""
        numbers = cells.column.compressed()
        code = sentinel(cells.values, cells.times)
        if code is not None:
            at = int(np.flatnonzero(cells.values == code)[0])
            self.codes[cells.name] = code, int(cells.times[at])
            return
        if cells.dates:
            numbers = numbers.astype("datetime64[us]").astype(np.int64)
        far = isolated_values(numbers)
        if len(far):
            rows = np.flatnonzero(~np.ma.getmaskarray(cells.column))[far]
            shown = cells.column.compressed()[far]
            each = [f"{self.place(int(i))}: {v}" for i, v in zip(rows, shown, strict=True)]
            self.far[cells.name] = float(distances(numbers)[far].min()), each

    def notes(self, name: str, ignored: Names) -> list[str]:
        """Return the lines.

        Args:
            name: of the source, whose options can overrule what was inferred.
            ignored: columns that the source leaves out already.
        """
        lines = [*self._remarks(name, ignored), *self._whys(name), *self._marginals(name)]
        return [*lines, *self._off_grid(), *self._far(), *self._codes()]

    def _remarks(self, name: str, ignored: Names) -> list[str]:
        lines = []
        for remark, names in self.remarks.items():
            more = {
                "repeats": first_names([self.bins[n] for n in names]),
                "fine": first_names([self.bins[n] for n in names]),
                "few": _overruled("count", names, name),
                "count": _overruled("real", names, name),
                "declared": _overruled("category", names, name),
                "numbers": leave_out(names, ignored),
            }.get(remark, "")
            details = {"grid": self.steps, "fine": self.steps, "declared": self.orders}.get(remark)
            shown = [f"{_cut(n)} ({details[n]})" for n in names] if details else names
            lines.append(
                first_names(shown, width=60 if details else 24)
                + " "
                + REMARKS[remark][len(names) > 1].format(more).replace(" ()", "")
            )
        return lines

    def _whys(self, name: str) -> list[str]:
        """Return a line that says why whole numbers are no counts."""
        if not self.whys:
            return []
        names = list(self.whys)
        each = first_names([f"{_cut(n)} ({self.whys[n]})" for n in names], SHOWN, 80)
        read = f"{each}: whole numbers read as real on a grid of 1, not as counts"
        return [f"{read} ({_overruled('count', self.countable, name)})".replace(" ()", "")]

    def _marginals(self, name: str) -> list[str]:
        """Return a line with the transforms and one with the atoms of real columns."""
        lines = []
        overrules = "" if name == "table" else "; marginals=plain overrules"
        if self.transforms:
            each = [f"{key} ({first_names(names)})" for key, names in self.transforms.items()]
            lines.append(f"transforms of real columns: {', '.join(each)}{overrules}")
        if self.atoms:
            shown = [f"{_cut(n)} ({values})" for n, values in self.atoms.items()]
            lines.append(
                f"frequent values with a probability of their own: "
                f"{first_names(shown, width=60)}{'' if self.transforms else overrules}"
            )
        return lines

    def _off_grid(self) -> list[str]:
        """Return a line for each of the first columns with values off their grid, and one for the
        rest."""
        lines = []
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
                f"{first_names(list(off)[SHOWN:])} too: a few values off the grid, rounded to it "
                f"for the model"
            )
        return lines

    def _codes(self) -> list[str]:
        """Return a line for the first columns with a number that looks like an empty cell."""
        each = [
            f"{_cut(n)} ({code:g} in {times:,} cell{'s' * (times > 1)})"
            for n, (code, times) in self.codes.items()
        ]
        if not each:
            return []
        codes = dict.fromkeys(f"{code:g}" for code, _ in self.codes.values())
        return [
            f"{first_names(each, SHOWN, 60)}: looks like a code for empty cells "
            f"(missing={'+'.join(codes)} takes it as one)"
        ]

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
                f"{first_names(list(self.far)[SHOWN:])} too: a few values far from all others; "
                f"check them for typing errors"
            )
        return lines


def _overruled(kind: str, names: Sequence[str], source: str) -> str:
    """Return the option that reads columns as another kind, in words; nothing for a table in
    memory, which has no options."""
    if source == "table" or not names:
        return ""
    return f"{typed(kind, names) if len(names) <= SHOWN else f'{kind}='} overrules"


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


def _number(column: Column, value: float) -> str:
    """Return a value of a real column as text."""
    if column.dtype.startswith("datetime64"):
        return str(
            (np.datetime64(0, "s") + np.timedelta64(round(value * 86400), "s")).astype("M8[D]")
        )
    return f"{value:.6g}"


def _cut(name: str) -> str:
    return first_names([name])


def _row_numbers(column: Column, cells: Cells) -> str | None:
    """Return the remark on a column that numbers the rows: distinct whole numbers without a gap."""
    values = cells.values
    whole = column.numeric and values.dtype.kind in "iu"
    if whole and 20 < len(values) == len(cells.column) == np.ptp(values) + 1:
        return "numbers"
    return None


def kinds_note(space: Space) -> list[str]:
    """Return a line with the names of the columns of each kind.

    >>> from vaestro.spaces import RealColumn, TableSpace
    >>> kinds_note(TableSpace.of([RealColumn("size", "float64")]))
    ['1 real (size)']
    """
    by_kind = {kind: [c.name for c in space.columns if c.kind is kind] for kind in COLUMN_ORDER}
    shown = max(1, 8 // sum(map(bool, by_kind.values())))
    return [
        ", ".join(
            f"{len(names)} {kind} ({first_names(names, shown)})"
            for kind, names in by_kind.items()
            if names
        )
    ]


def missing_note(whole: Frame) -> list[str]:
    """Return a line with the share of empty cells, and the columns that have most of them.

    >>> missing_note(Frame({"a": np.ma.array([1, 2])}))
    []
    """
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
        f"{cells} empty, in {first_names(most)}: bounds are of the observed cells, assuming that "
        f"cells are missing at random"
    ]
