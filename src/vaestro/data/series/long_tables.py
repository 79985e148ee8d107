"""Read long tables: each row is a step, a column names its series, and a column orders the steps.

`series=GROUP:ORDER` names the two columns. The numeric columns are the channels. Columns that are
the same for all rows of a series are attributes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple, final

import numpy as np

from vaestro.data.columns import filled
from vaestro.data.raw import Options, Raw
from vaestro.data.refusals import first_names
from vaestro.data.series.record import Cut, Record, padded_values
from vaestro.data.series.roles import Roles, roles_of, window_of
from vaestro.data.series.steps import Grid, place_rows
from vaestro.frames import Frame
from vaestro.spaces import LongTable, Space
from vaestro.text import InputError, quoted, typed

MOST_COPIES = 0.05  # largest share of rows whose step has an earlier row
USED = ("series", "window", "stride", "ignore", "split", "array")


@final
class _Sorted(NamedTuple):
    """Hold the rows of a table sorted by series and order.

    `every` are all row numbers, `first` the places among them at which a step begins, `rows` the
    row numbers there, `starts` the first step of each series, `ids` the names of the series, and
    `grid` the steps.
    """

    every: np.ndarray
    first: np.ndarray
    rows: np.ndarray
    starts: np.ndarray
    ids: np.ndarray
    order: np.ndarray
    grid: Grid

    @property
    def codes(self) -> np.ndarray:
        """Return the number of the series of each sorted row."""
        return np.repeat(np.arange(len(self.starts)), self.sizes)

    @property
    def sizes(self) -> np.ndarray:
        """Return the number of rows of each series."""
        return np.diff([*self.starts, len(self.rows)])


def read_long(
    frames: Mapping[str, Frame], options: Options, name: str, like: Space | None = None
) -> Raw[np.ndarray]:
    """Return the series of a long table as arrays (N, T, C), with NaN in missing cells.

    Args:
        frames: the table by split, or all rows under "all".
        options: of the source.
        name: of the source.
        like: the space of a run that the series are read for: its channels and step are used.

    Raises:
        ValueError: there is no such column, rows contradict each other, or no channel is left.

    >>> from vaestro.data.tables import frame_of
    >>> table = frame_of({"unit": [1, 1, 2], "cycle": [1, 2, 1], "speed": [0.5, 0.7, 0.1]})
    >>> raw = read_long({"all": table}, {"series": "unit:cycle"}, "t.csv")
    >>> raw.splits["all"][..., 0].tolist(), raw.notes
    ([[0.5, 0.7], [0.1, nan]], ('2 series of unit, 1 to 2 steps by cycle, 1 channel (speed)',))
    """
    first = next(iter(frames.values()))
    of_run = None if like is None else like.long_table
    roles, notes = roles_of(options["series"], first, name)
    window, stride = window_of(options, name)
    step = 0.0 if of_run is None else of_run.step
    tables = {s: _sort(f, roles, name, step, window) for s, f in frames.items()}
    _check_splits(tables, roles, name)
    grids = [table.grid for table in tables.values()]
    notes += list(dict.fromkeys(note for grid in grids for note in grid.notes))
    if roles.group and max(int(table.sizes.max()) for table in tables.values()) == 1:
        raise InputError(
            f"each row of {name} has another value of {roles.group}, so that series have one step: "
            f"name a column whose values repeat"
        )
    channels, constant, same, more = _channels(frames, tables, roles, name, like)
    notes += more
    cuts, attributes = {}, {}
    for split, frame in frames.items():
        cuts[split], attributes[split] = _cut(
            frame, tables[split], roles, channels, constant, window, stride
        )
    gaps = sum(grid.gaps for grid in grids)
    described = _described(cuts, tables, roles, channels, window, stride)
    notes = [described, *notes]
    if gaps:
        have = "step has" if gaps == 1 else "steps have"
        notes.append(f"{gaps:,} {have} no row in {roles.order}: read as missing cells")
    longest = max(len(values) for cut in cuts.values() for values in cut.values)
    arrays = {s: padded_values(cut.values, longest) for s, cut in cuts.items()}
    noun = roles.group or "series"
    record = Record(
        channels,
        _long_table(first, tables, roles, channels, same, window, stride),
        {s: cut.record(window, noun) for s, cut in cuts.items()} if window else {},
        USED,
    )
    missing = any(bool(np.isnan(array).any()) for array in arrays.values())
    return Raw(arrays, attributes, tuple(notes), missing, record)


# -- rows ------------------------------------------------------------------------------------------


def _sort(frame: Frame, roles: Roles, where: str, step: float, window: int) -> _Sorted:
    """Sort the rows of a table by series, in the order of their first rows, and by order."""
    for column in filter(None, roles):
        empty = np.flatnonzero(np.ma.getmaskarray(frame.columns[column]))
        if len(empty):
            more = f" and {len(empty) - 1:,} more" if len(empty) > 1 else ""
            raise InputError(
                f"column {column!r} of {where}, which series= names, is empty in row "
                f"{empty[0] + 1:,}{more}: fill it or leave such rows out"
            )
    n = len(frame)
    ids, codes = np.zeros(1, np.int64), np.zeros(n, np.int64)
    if roles.group:
        names, first, codes = np.unique(
            frame.columns[roles.group].data, return_index=True, return_inverse=True
        )
        rank = np.argsort(np.argsort(first))
        codes, ids = rank[codes.ravel()], names[np.argsort(first)]
    order = frame.columns[roles.order].data if roles.order else np.arange(n)
    rows = np.lexsort((order, codes))
    codes, order = codes[rows], order[rows]
    every = rows
    notes: list[str] = []
    first = _steps(frame, rows, codes, order, roles, where, notes)
    rows, codes, order = rows[first], codes[first], order[first]
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    if roles.order:
        grid = place_rows(order, starts, roles.order, step, window)
    else:
        sizes = np.diff([*starts, len(rows)])
        grid = Grid(0.0, np.arange(len(rows)) - np.repeat(starts, sizes), 0, [])
    grid.notes.extend(notes)
    return _Sorted(every, first, rows, starts, ids, order, grid)


def _steps(
    frame: Frame,
    rows: np.ndarray,
    codes: np.ndarray,
    order: np.ndarray,
    roles: Roles,
    where: str,
    notes: list[str],
) -> np.ndarray:
    """Return the places among sorted rows at which a step begins, and add a note on steps with
    several rows.

    Raises:
        ValueError: many steps have several rows that differ.
    """
    new = np.ones(len(rows), bool)
    same = np.flatnonzero((np.diff(codes) == 0) & (np.diff(order) == np.zeros((), order[:1].dtype)))
    if not roles.order or not len(same):
        return np.arange(len(rows))
    new[same + 1] = False
    equal = np.ones(len(same), bool)
    for cells in frame.columns.values():
        a, b = cells[rows[same]], cells[rows[same + 1]]
        empty, other = np.ma.getmaskarray(a), np.ma.getmaskarray(b)
        equal &= (empty & other) | (~empty & ~other & (a.data == b.data))
    if copies := int(equal.sum()):
        notes.append(
            f"{copies:,} {'row that repeats' if copies == 1 else 'rows that repeat'} another row "
            f"left out"
        )
    count = len(same) - copies
    if count:
        at = int(same[~equal][0])
        one, two = sorted((int(rows[at]) + 1, int(rows[at + 1]) + 1))
        of = ""
        if roles.group:
            of = f"{roles.group} {frame.columns[roles.group].data[rows[at]]} and "
        what = f"rows {one:,} and {two:,} are both for {of}{roles.order} {order[at]}"
        if count > MOST_COPIES * len(rows):
            instead = ""
            if roles.group:
                instead = f", or {typed('series', roles.group)} for the order of the file"
            raise InputError(
                f"{what} in {where}, and {count:,} of {len(rows):,} rows have an earlier row of "
                f"their step: name a column that tells series apart{instead}"
            )
        more = f" ({count - 1:,} more such rows)" if count > 1 else ""
        notes.append(f"{what}{more}: the mean of each number is taken")
    return np.flatnonzero(new)


def _check_splits(tables: Mapping[str, _Sorted], roles: Roles, where: str) -> None:
    """Raise ValueError if a series is in two splits."""
    if not roles.group:
        return
    seen: dict[object, str] = {}
    for split, table in tables.items():
        for one in table.ids.tolist():
            if one in seen:
                raise InputError(
                    f"{roles.group} {one} of {where} is in the splits {seen[one]} and {split}: "
                    f"put each series into one split"
                )
            seen[one] = split


# -- columns ---------------------------------------------------------------------------------------


def _channels(
    frames: Mapping[str, Frame],
    tables: Mapping[str, _Sorted],
    roles: Roles,
    where: str,
    like: Space | None,
) -> tuple[tuple[str, ...], list[str], dict[str, float], list[str]]:
    """Return the names of the channels and of the attributes, the values of constant columns, and
    notes."""
    first = next(iter(frames.values()))
    of_run = () if like is None else like.names
    if absent := [n for n in of_run if n not in first.columns]:
        raise InputError(
            f"{where} has no column {absent[0]!r}, which is a channel of the run (columns are "
            f"{first_names(list(first.columns), 9)})"
        )
    channels, constant, varying, empty, numeric = [], [], [], [], []
    known = () if like is None or like.long_table is None else dict(like.long_table.constants)
    for name in first.columns:
        if name in roles or name in known:
            continue
        whole = [f.columns[name] for f in frames.values()]
        number = all(cells.dtype.kind in "biuf" for cells in whole)
        if name in of_run:
            if not number:
                raise ValueError(f"expected numbers in the channel {name!r} of {where}; got text")
            continue
        if not sum(cells.count() for cells in whole):
            empty.append(name)
        elif not (number and not of_run) and not _constant(whole, tables):
            varying.append(name)
        elif not number or (roles.group and _constant(whole, tables) and _differ(whole, tables)):
            constant.append(name)
            numeric += [name] if number and not of_run else []
        elif of_run:
            varying.append(name)
        else:
            channels.append(name)
    notes = _left_out(numeric, varying, empty, bool(of_run))
    still = {}
    for name in channels:
        cells = np.concatenate([f.columns[name].compressed() for f in frames.values()])
        if (cells == cells[0]).all():
            still[name] = cells[0].item()
    names = tuple(of_run or (n for n in channels if n not in still))
    if not names:
        raise InputError(
            f"{where} has no column of numbers that vary within a series (columns are "
            f"{first_names(list(first.columns), 9)})"
        )
    if still:
        notes.append(f"{first_names(list(still), 9)}: constant, not modelled, copied into samples")
    return names, constant, still, notes


def _left_out(
    numeric: Sequence[str], varying: Sequence[str], empty: Sequence[str], of_run: bool
) -> list[str]:
    """Return notes on columns that are no channels.

    Args:
        numeric: columns of numbers that are the same within each series.
        varying: other columns that vary within a series.
        empty: columns without a value.
        of_run: whether the channels are those of a run.
    """
    notes = []
    if numeric:
        notes.append(
            f"{first_names(numeric, 9)}: the same in all rows of a series, therefore an attribute "
            f"and no channel (--condition {quoted(numeric[0])} gives it to the model)"
        )
    if varying:
        what = "not channels of the run" if of_run else "no numbers, but vary within a series"
        notes.append(f"{first_names(varying, 9)} left out: {what}")
    if empty:
        notes.append(f"{first_names(empty, 9)} left out: all cells are empty")
    return notes


def _constant(whole: Sequence[np.ma.MaskedArray], tables: Mapping[str, _Sorted]) -> bool:
    """Return whether a column has one value in each series, apart from empty cells."""
    for cells, table in zip(whole, tables.values(), strict=True):
        rows = cells[table.rows]
        filled_at = ~np.ma.getmaskarray(rows)
        codes, values = table.codes[filled_at], rows.data[filled_at]
        if ((np.diff(codes) == 0) & (values[1:] != values[:-1])).any():
            return False
    return True


def _differ(whole: Sequence[np.ma.MaskedArray], tables: Mapping[str, _Sorted]) -> bool:
    """Return whether a column that is constant in each series differs between them, and a series
    has several rows."""
    several = any((table.sizes > 1).any() for table in tables.values())
    return several and not _still(whole)


def _still(whole: Sequence[np.ma.MaskedArray]) -> bool:
    """Return whether a column has one value."""
    return len(np.unique(np.concatenate([cells.compressed() for cells in whole]))) < 2


# -- series ----------------------------------------------------------------------------------------


def _cut(
    frame: Frame,
    table: _Sorted,
    roles: Roles,
    channels: Sequence[str],
    constant: Sequence[str],
    window: int,
    stride: int,
) -> tuple[Cut, dict[str, np.ndarray]]:
    """Return the series of a table, or windows of them, and their attributes."""
    columns = [frame.columns[name] for name in channels]
    small = all(c.dtype.itemsize <= (4 if c.dtype.kind == "f" else 2) for c in columns)
    matrix = np.stack([_means(filled(c), table) for c in columns], 1)
    matrix = matrix.astype(np.float32 if small else np.float64)
    at, bounds = table.grid.at, [*table.starts, len(table.rows)]
    values, series, start, first = [], [], [], []
    for code, (low, high) in enumerate(pairwise(bounds)):
        # windows are not cut across long gaps
        far = np.diff(at[low:high]) > (window // 2 if window else np.inf)
        for a, b in pairwise([low, *(low + 1 + np.flatnonzero(far)), high]):
            dense = np.full((int(at[b - 1] - at[a]) + 1, len(channels)), np.nan, matrix.dtype)
            dense[at[a:b] - at[a]] = matrix[a:b]
            values.append(dense)
            series.append(code)
            start.append(int(at[a]))
    cut = Cut(values, np.array(series), np.array(start))
    cut = cut.into(window, stride) if window else cut
    attributes = {}
    if roles.group:
        attributes[roles.group] = table.ids[cut.series]
    if roles.order and table.grid.step:
        begin = table.order[table.starts][cut.series]
        later = cut.start * table.grid.step
        unit = np.datetime_data(begin.dtype)[0] if begin.dtype.kind == "M" else ""
        first = begin + (later.astype(f"timedelta64[{unit}]") if unit else later)
        first = np.rint(first).astype(begin.dtype) if begin.dtype.kind in "iu" else first
        if window or len(np.unique(first)) > 1:
            attributes[roles.order] = first
    for name in constant:
        cells = frame.columns[name][table.rows]
        known = np.flatnonzero(~np.ma.getmaskarray(cells))
        row = table.starts.copy()
        row[table.codes[known][::-1]] = known[::-1]
        attributes[name] = filled(cells[row])[cut.series]
    return cut, attributes


def _means(cells: np.ndarray, table: _Sorted) -> np.ndarray:
    """Return the mean of the rows of each step, (steps,); NaN if all are empty."""
    values = cells[table.every].astype(np.float64 if cells.dtype.itemsize > 4 else cells.dtype)
    if len(table.first) == len(table.every):
        return values
    there = ~np.isnan(values.astype(np.float64))
    total = np.add.reduceat(np.where(there, values, 0).astype(np.float64), table.first)
    count = np.add.reduceat(there.astype(np.int64), table.first)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _described(
    cuts: Mapping[str, Cut],
    tables: Mapping[str, _Sorted],
    roles: Roles,
    channels: Sequence[str],
    window: int,
    stride: int,
) -> str:
    """Return the note on what was read."""
    count = sum(len(table.ids) for table in tables.values())
    rows = sum(len(cut.values) for cut in cuts.values())
    sizes = [len(values) for cut in cuts.values() for values in cut.values]
    low, high = min(sizes), max(sizes)
    steps = f"{low:,} to {high:,} steps" if low < high else f"{high:,} steps"
    by = f" by {roles.order}" if roles.order else ""
    few = first_names(list(channels), 9)
    named = f"{len(channels)} channel{'s' if len(channels) > 1 else ''} ({few})"
    whole = f"{count:,} series of {roles.group}" if roles.group else "one series"
    if not window:
        return f"{whole}, {steps}{by}, {named}"
    length = f"{window:,} steps" if low == high == window else f"at most {window:,} steps"
    return f"{whole}, cut into {rows:,} windows of {length}{by} (stride {stride:,}), {named}"


def _long_table(
    frame: Frame,
    tables: Mapping[str, _Sorted],
    roles: Roles,
    channels: Sequence[str],
    same: Mapping[str, float],
    window: int,
    stride: int,
) -> LongTable:
    """Return the description of a table with which series are written back."""
    table = LongTable(
        roles.group,
        roles.order,
        dtypes=tuple(frame.columns[name].dtype.name for name in channels),
        window=window,
        stride=stride,
        columns=tuple(frame.columns),
        constants=tuple(same.items()),
    )
    step = next(iter(tables.values())).grid.step
    if not (roles.order and step):
        return table
    order = frame.columns[roles.order].dtype
    firsts = np.concatenate([t.order[t.starts] for t in tables.values()])
    values, times = np.unique(firsts, return_counts=True)
    first = values[times.argmax()]
    start = float(first.astype(np.int64) if order.kind == "M" else first)
    return replace(table, kind=str(order), first=start, step=float(step))
