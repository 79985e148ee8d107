"""Decide the one format of a column of text from all of its words."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import final

import numpy as np

from vaestro.data.formats.base import CellFormat, Guess, Sample
from vaestro.data.formats.booleans import TruthFormat
from vaestro.data.formats.dates import DateFormat
from vaestro.data.formats.numbers import NumberFormat
from vaestro.data.formats.patterns import Pattern
from vaestro.data.formats.periods import ClockFormat, DurationFormat, PeriodFormat
from vaestro.data.formats.words import few_odd, is_empty

FORMATS: tuple[type[CellFormat], ...] = (
    TruthFormat,
    DurationFormat,
    ClockFormat,
    PeriodFormat,
    DateFormat,
    NumberFormat,
)
LIKELY = 0.5  # smallest share of cells of one format that a message mentions


@final
@dataclass(frozen=True, eq=False)
class Decision:
    """Hold what the words of a column are.

    Args:
        format: of the column; None if its cells are words.
        values: of the words, (n,), masked where they are empty or odd; None for words.
        odd: {word: number of cells} of words that are neither values nor known empty words.
        pattern: of the dates, if the user gave it.
        looks: what most words look like if the column stays words; "" if they look like words.
        others: other formats that fit as well, with the option that chooses them.
    """

    format: CellFormat | None = None
    values: np.ma.MaskedArray | None = None
    odd: Mapping[str, int] = field(default_factory=dict)
    pattern: str = ""
    looks: str = ""
    others: str = ""


def restored(stored: str) -> CellFormat:
    """Return a format from its `stored()` text.

    >>> str(restored('number {"prefix": "$", "places": 2}'))
    '$1234.56'
    """
    import json

    name, _, options = stored.partition(" ")
    return {f.name: f for f in FORMATS}[name].restored(json.loads(options))


def decide(
    words: Sequence[str],
    times: np.ndarray,
    *,
    patterns: Sequence[str] = (),
    known: str = "",
    empty: Collection[str] = (),
    comma: bool | None = None,
    day_first: bool | None = None,
) -> Decision:
    """Return the format of a column.

    Known empty words are no cells. What is left after a format has parsed the cells is odd. If few
    cells are odd (`few_odd`), the column has the format; otherwise its cells are words.

    Args:
        words: the distinct words.
        times: how often each occurs, (n,).
        patterns: of dates, which the user gave.
        known: the stored format of the column in a run; it is tried first.
        empty: further words that mean empty cells, without outer spaces.
        comma: whether commas are decimal points in this table; None if nothing tells.
        day_first: whether days are before months in this table; None if nothing tells.

    >>> found = decide(["$1,200.50", "n/a", "$7.25"], np.array([1, 5, 2]))
    >>> str(found.format), found.values.tolist()
    ('$1,234.56', [1200.5, None, 7.25])
    """
    full = np.array([not is_empty(word) and word.strip() not in empty for word in words], bool)
    if not full.any():
        return Decision()
    kept = [w for w, f in zip(words, full.tolist(), strict=True) if f]
    sample = Sample.of(kept, times[full], comma=comma, day_first=day_first)
    if known:
        found = _tried(Guess(restored(known)), sample)
        if found.format is not None:
            return _whole(found, full)
    for pattern in patterns:
        found = _tried(Guess(_dated(pattern, kept)), sample)
        if found.format is not None:
            return _whole(replace(found, pattern=pattern), full)
    if not any("9" in shape for shape in sample.shapes[:1000]):
        found = _first([TruthFormat], sample)
    else:
        found = _first(FORMATS, sample)
    return _whole(found, full)


def _first(formats: Sequence[type[CellFormat]], sample: Sample) -> Decision:
    """Return the first format that fits; otherwise what the words look like."""
    looks = Decision()
    most = LIKELY * int(sample.times.sum())
    for kind in formats:
        for guess in kind.guesses(sample):
            found = _tried(guess, sample)
            if found.format is not None:
                return found
            parsed = int(sample.times.sum()) - sum(found.odd.values())
            if parsed > most:
                looks, most = found, parsed
    return looks


def _tried(guess: Guess, sample: Sample) -> Decision:
    """Return a decision for a format, or what the words look like if too many are odd."""
    values = guess.format.parse(sample.words)
    mask = np.ma.getmaskarray(values)
    odd = {sample.words[i]: int(sample.times[i]) for i in np.flatnonzero(mask).tolist()}
    parsed = int(sample.times[~mask].sum())
    if parsed and (not odd or (not guess.format.strict and few_odd(parsed, odd))):
        return Decision(guess.format, values, odd, others=guess.others)
    return Decision(None, None, odd, looks=f"{guess.format.values} ({guess.format})")


def _whole(found: Decision, full: np.ndarray) -> Decision:
    """Return a decision with the values of all words, known empty words included."""
    if found.format is None or found.values is None:
        return found
    data = np.zeros(len(full), found.values.dtype)
    mask = np.ones(len(full), bool)
    data[full], mask[full] = found.values.data, np.ma.getmaskarray(found.values)
    if data.dtype.kind == "f":
        data = np.where(mask, 0.0, data)
    values = np.ma.MaskedArray(data, mask)
    return replace(found, values=values)


def _dated(pattern: str, words: Sequence[str]) -> CellFormat:
    """Return the format of dates of a pattern that a user gave, in the spelling of the column.

    Raises:
        ValueError: the pattern has an unknown directive, or no month and year.
    """
    parts = Pattern(pattern).directives
    if set(parts) & set("qV") or not set(parts) & set("dHI"):
        return PeriodFormat(pattern)
    found = DateFormat(pattern)
    guesses = DateFormat.guesses(Sample.of(words, np.ones(len(words), np.int64)))
    for guess in guesses:
        assert isinstance(guess.format, DateFormat)
        like = guess.format
        if sorted(Pattern(like.pattern).directives) == sorted(parts):
            found = DateFormat(pattern, like.language, like.case, like.digits, like.zone)
            if "%-" in like.pattern:
                bare = pattern.replace("%d", "%-d").replace("%m", "%-m")
                found = DateFormat(bare, like.language, like.case, like.digits, like.zone)
    return found
