"""The notes on columns of text: their formats, odd words, empty words and labels."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import final

from vaestro.data.formats import DateFormat, Decision
from vaestro.data.formats.words import CENSORED
from vaestro.data.refusals import first_names
from vaestro.data.text_columns import TextColumn
from vaestro.spaces import Column
from vaestro.text import typed

SHOWN = 3  # largest number of columns with a note of their own, and of words of a column
ROWS = 3  # largest number of rows of a word


@final
@dataclass(frozen=True, eq=False)
class Found:
    """Hold what was decided for a column of text.

    Args:
        text: the column.
        decision: its format, or none.
        empty: words of a column of words that are empty cells.
        labels: words of a column of words that could be empty cells and are labels.
    """

    text: TextColumn
    decision: Decision
    empty: Collection[str] = ()
    labels: Collection[str] = ()


def notes_of(found: Sequence[Found], known: Mapping[str, Column]) -> list[str]:
    """Return notes on columns of text, with the options that overrule.

    Args:
        found: what was decided for each column.
        known: the columns of a run that the table is read for, whose formats need no note.
    """
    lines = _formats([f for f in found if f.text.name not in known])
    lines += _each(
        [
            (f.text.name, f"could be read otherwise: {f.decision.others}")
            for f in found
            if f.decision.others and f.text.name not in known
        ]
    )
    zoned = [
        f.text.name
        for f in found
        if isinstance(f.decision.format, DateFormat) and "%z" in f.decision.format.pattern
    ]
    lines += [f"the times in {first_names(zoned)} are in UTC"] if zoned else []
    lines += _each([(f.text.name, _odd(f)) for f in found if f.decision.format and f.decision.odd])
    lines += _each([(f.text.name, _mixed(f)) for f in found if f.decision.looks])
    new = [f for f in found if f.text.name not in known]
    lines += _each(
        [
            (
                f.text.name,
                f"{_words(f.text, f.empty)} taken as empty ({typed('category', f.text.name)} "
                f"keeps such words)",
            )
            for f in new
            if f.empty
        ]
    )
    lines += _each(
        [
            (
                f.text.name,
                f"{_words(f.text, f.labels)} read as a label, not as an empty cell "
                f"({typed('empty', [w.strip() for w in sorted(f.labels)])} overrules)",
            )
            for f in new
            if f.labels
        ]
    )
    return lines


def bad_cells(text: TextColumn, decision: Decision, option: str, where: str) -> str:
    """Return the message for a column whose cells are not what an option says.

    Args:
        text: the column.
        decision: what its cells are.
        option: that says what they are, "real" or "count", or "dates=%d/%m/%Y".
        where: the source.
    """
    name, odd = text.name, decision.odd or {w: 1 for w in text.words if w.strip()}
    word = next(iter(odd))
    rows, cells = text.rows(word), text.cells(odd)
    what = "dates of this pattern" if option.startswith("dates") else f"numbers for {option}="
    others = f", and {cells - 1:,} other such cells" if cells > 1 else ""
    advice = f"{typed('empty', word.strip())} takes it as empty"
    if decision.looks:
        advice = f"most cells look like {decision.looks}; {advice}"
    elif not decision.odd:
        advice = f"leave it out of {option.partition('=')[0]}= to keep words"
    got = f"{word[:30]!r} in row {rows[0]}{others} ({advice})"
    return f"expected {what} in column {name!r} of {where}; got {got}"


def _each(notes: Sequence[tuple[str, str]]) -> list[str]:
    """Return a line for each of the first columns, and one for the names of the others."""
    lines = [f"{first_names([name])}: {note}" for name, note in notes[:SHOWN]]
    if len(notes) > SHOWN:
        names = first_names([name for name, _ in notes[SHOWN:]])
        lines.append(f"{names} too: {notes[SHOWN][1]}")
    return lines


def _formats(found: Sequence[Found]) -> list[str]:
    """Return a line for each sort of values, with the formats of the columns."""
    sorts: dict[str, list[tuple[str, str]]] = {}
    for f in found:
        if f.decision.format is not None and not f.decision.format.usual:
            one = f.decision.format
            sorts.setdefault(one.values, []).append(
                (f.text.name, f"{first_names([f.text.name])} ({one})")
            )
    return [
        f"read as {values}, and written in the same format: "
        f"{first_names([shown for _, shown in each], width=80)} "
        f"({typed('category', each[0][0])} keeps words)"
        for values, each in sorts.items()
    ]


def _odd(found: Found) -> str:
    """Return the note on odd words that are taken as empty."""
    odd = found.decision.odd
    assert found.decision.format is not None
    cells = found.text.cells(odd)
    are = "1 cell is" if cells == 1 else f"{cells:,} cells are"
    no = f"no {found.decision.format.values}"
    censored = " (limits such as <5 are lost)" if any(map(CENSORED.fullmatch, odd)) else ""
    return (
        f"{are} {no}, taken as empty: {_with_rows(found.text, odd)}{censored}; "
        f"{typed('category', found.text.name)} keeps all cells as words"
    )


def _mixed(found: Found) -> str:
    """Return the note on a column of words that looks like something else."""
    odd = found.decision.odd
    cells, total = found.text.cells(odd), int(found.text.times.sum())
    few = len(odd) <= SHOWN
    option = typed("empty", [w.strip() for w in odd]) if few else "empty=WORD+WORD"
    return (
        f"looks like {found.decision.looks}, but {cells:,} of {total:,} cells are other words, "
        f"{_with_rows(found.text, odd)}: kept as words ({option} takes them as empty)"
    )


def _words(text: TextColumn, words: Collection[str]) -> str:
    """Return words and their number of cells."""
    shown = [f"{w.strip()!r}" for w in sorted(words)]
    cells = text.cells(words)
    return f"{first_names(shown)} ({cells:,} cell{'s' if cells > 1 else ''})"


def _with_rows(text: TextColumn, words: Mapping[str, int]) -> str:
    """Return the first words with their rows."""
    shown = []
    for word in sorted(words, key=lambda w: -words[w])[:SHOWN]:
        rows = text.rows(word)
        more = f" and {len(rows) - ROWS:,} more" if len(rows) > ROWS else ""
        where = f"row{'s' if len(rows) > 1 else ''} {', '.join(rows[:ROWS])}{more}"
        shown.append(f"{word.strip()[:20]!r} ({where})")
    return ", ".join(shown) + (f" and {len(words) - SHOWN:,} others" if len(words) > SHOWN else "")
