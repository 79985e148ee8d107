"""Read the text of tables as values: once for all splits of a source, before they are split.

A column of text has one format (`data.formats`), which all of its cells decide. Its values are then
numbers, dates or truth values, and `Frame.formats` says how they are written. Other columns stay
words; which of them are empty cells is decided per column.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np

from vaestro.column_types import is_category
from vaestro.data.choosing import named
from vaestro.data.csv_tables import stated_words
from vaestro.data.formats import DateFormat, Decision, decide, empty_words, is_empty
from vaestro.data.parsing_notes import Found, bad_cells, notes_of
from vaestro.data.raw import Options, Raw
from vaestro.data.sentinels import without_missing
from vaestro.data.source_values import missing_values
from vaestro.data.text_columns import TextColumn
from vaestro.frames import Frame
from vaestro.spaces import Column
from vaestro.text import InputError, as_number, split_names, unquoted

WORDS = ("binary", "category", "ordinal")  # options that keep the words of a column
NUMBERS = ("real", "count")
EARLIEST, LATEST = 19000101, 21001231  # whole numbers that are all dates are dates
FEWEST_DATES = 5  # different ones


@final
@dataclass(frozen=True, eq=False)
class _Wishes:
    """Hold what the options of a source say about cells.

    Args:
        words: columns whose words are kept.
        numbers: columns that are numbers, by the option that says so.
        empty: words that are empty cells.
        missing: numbers that are empty cells.
        patterns: of dates, for all columns.
        dated: patterns of dates of single columns.
        comma: whether commas are decimal points; None if no option says so.
        text: the column of texts; "" without.
    """

    words: frozenset[str]
    numbers: Mapping[str, str]
    empty: frozenset[str]
    missing: tuple[float, ...]
    patterns: tuple[str, ...]
    dated: Mapping[str, str]
    comma: bool | None
    text: str

    @classmethod
    def of(cls, options: Options, names: Sequence[str], where: str) -> _Wishes:
        """Return what options say.

        Raises:
            ValueError: an option names no column.
        """
        words = {n for k in WORDS if k in options for n in named(options, k, names, where)}
        numbers = {n: k for k in NUMBERS if k in options for n in named(options, k, names, where)}
        absent = missing_values(options.get("missing"))
        stated = [v for v in absent if as_number(v) is not None]
        empty = [*stated_words(options), *(v for v in absent if v not in stated)]
        dated, patterns = {}, []
        for piece in _pieces(options.get("dates")):
            column, equals, pattern = piece.partition("=")
            if equals:
                (column,) = named({"dates": [unquoted(column)]}, "dates", names, where)
                dated[column] = unquoted(pattern)
            else:
                patterns.append(piece)
        return cls(
            frozenset(words),
            numbers,
            frozenset(word.strip() for word in empty),
            tuple(float(v) for v in [*stated, *empty] if as_number(v) is not None),
            tuple(patterns),
            dated,
            {"comma": True, "point": False}.get(str(options.get("decimal"))),
            unquoted(str(options.get("text", ""))),
        )


def _pieces(value: object) -> list[str]:
    if value is None:
        return []
    return [str(v) for v in value] if isinstance(value, (list, tuple)) else split_names(str(value))


def parse_cells(
    raw: Raw[Frame],
    options: Options,
    where: str,
    columns: Sequence[Column] | None = None,
    only: Collection[str] | None = None,
) -> Raw[Frame]:
    """Return tables with the values of their text.

    Args:
        raw: the tables of a source, by split.
        options: of the source.
        where: the source, for messages.
        columns: those of a run that the tables are read for, whose formats are tried first.
        only: names of the only columns that are read as values; by default all.

    Returns:
        the tables; `notes` says what was decided.

    Raises:
        ValueError: a column that an option says to be numbers has other cells, or a pattern of
            dates fits no column.

    >>> table = Frame({"price": np.ma.array(["$1,234.50", "n/a"])})
    >>> one = parse_cells(Raw({"all": table}), {}, "t.csv")
    >>> one.splits["all"].columns["price"].tolist(), list(one.splits["all"].formats)
    ([1234.5, None], ['price'])
    """
    names = list(dict.fromkeys(n for frame in raw.splits.values() for n in frame.columns))
    wishes = _Wishes.of(options, names, where)
    known = {c.name: c for c in columns or ()}
    texts = [
        TextColumn.of(raw.splits, n)
        for n in names
        if (only is None or n in only) and _is_text(raw.splits, n, wishes, known)
    ]
    decisions = _decided(texts, wishes, known)
    _check(decisions, texts, wishes, where, known)
    cells: dict[str, Mapping[str, np.ma.MaskedArray]] = {}
    formats: dict[str, str] = {}
    found = []
    for text in texts:
        one = decisions[text.name]
        if one.format is not None and one.values is not None:
            cells[text.name] = text.values(one.values)
            formats[text.name] = one.format.stored()
            found.append(Found(text, one))
        else:
            empty, labels = _empty(text, wishes, known.get(text.name))
            cells[text.name] = text.kept(empty)
            found.append(Found(text, one, empty, labels))
    splits = {s: _with_cells(frame, s, cells, formats) for s, frame in raw.splits.items()}
    splits, more = without_missing(splits, wishes.missing)
    return replace(raw, splits=splits, notes=(*raw.notes, *notes_of(found, known), *more))


def _with_cells(
    frame: Frame,
    split: str,
    cells: Mapping[str, Mapping[str, np.ma.MaskedArray]],
    formats: Mapping[str, str],
) -> Frame:
    """Return a split with the parsed columns, which are given by name and split."""
    columns = {n: cells[n][split] if n in cells else c for n, c in frame.columns.items()}
    return replace(
        frame,
        columns=columns,
        types={n: t for n, t in frame.types.items() if n not in formats},
        formats={n: f for n, f in formats.items() if n in columns},
    )


def _is_text(
    splits: Mapping[str, Frame], name: str, wishes: _Wishes, known: Mapping[str, Column]
) -> bool:
    """Return whether a column has to be decided: text, or whole numbers that are dates."""
    columns = [f.columns[name] for f in splits.values() if name in f.columns]
    if any(is_category(f.types.get(name, "")) or name in f.orders for f in splits.values()):
        return False  # the user declared categories
    if any(c.dtype.kind == "U" for c in columns):
        return True
    if any(c.dtype.kind not in "iu" for c in columns) or name in {*wishes.words, *wishes.numbers}:
        return False
    if name in known:
        return known[name].dtype.startswith("datetime64") and bool(known[name].format)
    if name in wishes.dated or wishes.patterns:
        return True
    distinct = np.unique(np.concatenate([c.compressed() for c in columns]))
    if len(distinct) < FEWEST_DATES or distinct[0] < EARLIEST or distinct[-1] > LATEST:
        return False
    dates = DateFormat("%Y%m%d").parse(list(map(str, distinct.tolist())))
    return not np.ma.getmaskarray(dates).any()


def _empty(text: TextColumn, wishes: _Wishes, column: Column | None) -> tuple[set[str], set[str]]:
    """Return the words of a column of words that are empty cells, and those that could be and are
    labels."""
    stated = {w for w in text.words if w.strip() in wishes.empty}
    doubtful = {w for w in text.words if w.strip() and is_empty(w)} - stated
    if column is not None and column.coded:
        labels = {str(value) for value in column.values}
        return stated | {w for w in doubtful if text.raw and w.strip() not in labels}, set()
    if not text.raw or text.name in wishes.words:
        return stated, doubtful
    empty, labels = empty_words([w for w in text.words if w.strip() and w not in stated])
    return stated | empty, labels


def _decided(
    texts: Sequence[TextColumn], wishes: _Wishes, known: Mapping[str, Column]
) -> dict[str, Decision]:
    """Return what each column is. What one column leaves open, the others of the table decide."""
    decisions: dict[str, Decision] = {}

    def one(text: TextColumn, comma: bool | None, day_first: bool | None) -> Decision:
        column = known.get(text.name)
        words = column is not None and column.dtype == "str"
        if words or text.name in {*wishes.words, wishes.text}:
            return Decision()
        stated = wishes.dated.get(text.name)
        return decide(
            text.words,
            text.times,
            empty=wishes.empty,
            patterns=wishes.patterns if stated is None else (stated,),
            known="" if column is None else column.format,
            comma=comma,
            day_first=day_first,
        )

    for text in texts:
        decisions[text.name] = one(text, wishes.comma, None)
    comma, day_first = _hints(decisions.values(), wishes)
    for text in texts:
        if decisions[text.name].others and (comma is not None or day_first is not None):
            decisions[text.name] = one(text, comma, day_first)
    return decisions


def _hints(decisions: Collection[Decision], wishes: _Wishes) -> tuple[bool | None, bool | None]:
    """Return whether commas are decimal points, and whether days are before months, as the columns
    show that leave no choice; None if they differ."""
    sure = [d.format for d in decisions if d.format is not None and not d.others]
    commas = {c for f in sure if (c := f.decimal_comma) is not None}
    days = {d for f in sure if (d := f.day_first) is not None}
    comma = wishes.comma if wishes.comma is not None else commas.pop() if len(commas) == 1 else None
    return comma, days.pop() if len(days) == 1 else None


def _check(
    decisions: Mapping[str, Decision],
    texts: Sequence[TextColumn],
    wishes: _Wishes,
    where: str,
    known: Collection[str],
) -> None:
    """Raise ValueError if an option is about cells that a column does not have."""
    for text in texts:
        one, key = decisions[text.name], wishes.numbers.get(text.name)
        if key is not None and one.format is None:
            raise InputError(bad_cells(text, one, key, where))
        pattern = wishes.dated.get(text.name)
        if pattern is not None and one.format is None:
            raise InputError(bad_cells(text, one, f"dates={pattern}", where))
        if pattern is not None and one.pattern != pattern and text.name not in known:
            option = f'dates="{text.name}"={pattern}'
            raise InputError(
                f"{option} fits no cell of {where} ({text.name} has {one.format}): leave out "
                f"dates={pattern}, or name another pattern"
            )
    used = {d.pattern for d in decisions.values()}
    for pattern in wishes.patterns:
        if pattern not in used:
            likely = [f"{n} has {d.looks}" for n, d in decisions.items() if "date" in d.looks]
            likely += [
                f"{n} has dates ({d.format})"
                for n, d in decisions.items()
                if isinstance(d.format, DateFormat)
            ]
            raise InputError(
                f"dates={pattern} fits no column of {where}"
                + (f" ({likely[0]})" if likely else "")
                + f": leave out dates={pattern}, or name another pattern"
            )
