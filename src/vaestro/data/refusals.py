"""Messages about columns that cannot be used, and names of columns in notes."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from decimal import Decimal
from numbers import Number

from vaestro.text import split_names, typed

Names = str | float | Sequence[str] | None  # names of columns, joined by + or as a list


class Unfit(ValueError):
    """Report that a column cannot be used. `refuse` joins the reports of several columns.

    Args:
        expected: what a column can contain.
        got: what it contains.
        advice: what to do about it, other than leaving the column out.
    """

    def __init__(self, expected: str, got: str, advice: str = "") -> None:
        super().__init__(f"expected {expected}; got {got}" + (f" ({advice})" if advice else ""))
        self.expected, self.got, self.advice = expected, got, advice


def refuse(unfit: Sequence[tuple[Unfit, Sequence[str]]], ignored: Names = None) -> None:
    """Raise one ValueError for all columns that cannot be used.

    Args:
        unfit: a report for each column, with the columns that the user can leave out.
        ignored: columns that the source leaves out already.

    Raises:
        ValueError: `unfit` is not empty.

    >>> refuse([(Unfit("numbers", "lists in 'a'", "make columns of them"), ["a"])])
    Traceback (most recent call last):
    ValueError: expected numbers; got lists in 'a' (make columns of them, or leave it out with
    ignore=a)
    """
    if unfit:
        expected = ", and ".join(error.expected for error, _ in unfit)
        got = ", and ".join(error.got for error, _ in unfit)
        names = [name for _, names in unfit for name in names]
        advice = list(dict.fromkeys(error.advice for error, _ in unfit if error.advice))
        if names:
            advice.append(_without(names, ignored))
        raise ValueError(
            f"expected {expected}; got {got}" + (f" ({', or '.join(advice)})" if advice else "")
        )


def mixed_types(values: Iterable[object]) -> str | None:
    """Return the first two values of different types, with their rows; None if all values have one
    type. None and NaN are empty cells, and numbers of all types are one type.

    >>> mixed_types([1, None, 2.5, "x"])
    "1 in row 1, a number, and 'x' in row 4, text"
    """
    first: tuple[str, int, object] | None = None
    for row, value in enumerate(values, 1):
        if value is None or value != value:
            continue
        kind = _kind_of(value)
        if first is None:
            first = kind, row, value
        elif first[0] != kind:
            shown = [
                repr(v) if len(repr(v)) <= 30 else repr(v)[:28] + ".." for v in (first[2], value)
            ]
            return (
                f"{shown[0]} in row {first[1]:,}, {first[0]}, and {shown[1]} in row {row:,}, {kind}"
            )
    return None


def _kind_of(value: object) -> str:
    """Return the type of a Python value in words."""
    words: list[tuple[type | tuple[type, ...], str]] = [
        (bool, "a truth value"),
        ((Number, Decimal), "a number"),
        (str, "text"),
        (datetime.date, "a date"),
        (bytes, "bytes"),
        ((list, tuple, dict, set), "a list or structure"),
    ]
    return next((word for kind, word in words if isinstance(value, kind)), type(value).__name__)


def first_names(names: Sequence[str], most: int = 3, width: int = 24) -> str:
    """Return the first names, each cut to `width` letters, and the number of further ones.

    >>> first_names(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    shown = [n if len(n) <= width else n[: width - 2] + ".." for n in names[:most]]
    return ", ".join(shown) + (f" and {len(names) - most} more" if len(names) > most else "")


def columns_named(names: Sequence[str]) -> str:
    """Return "column 'a'" or "columns 'a', 'b'", with at most nine names.

    >>> columns_named(["a", "b"])
    "columns 'a', 'b'"
    """
    return (
        f"column {names[0]!r}"
        if len(names) == 1
        else "columns " + ", ".join(map(repr, names[:9])) + (" .." if len(names) > 9 else "")
    )


def leave_out(names: Sequence[str], ignored: Names = None) -> str:
    """Return, in brackets, what to type to leave columns out of a source.

    Args:
        names: of the columns.
        ignored: columns that the source leaves out already.

    >>> leave_out(["b"], "a")
    '(leave it out with ignore=a+b)'
    """
    return f"({_without(names, ignored)})"


def _without(names: Sequence[str], ignored: Names) -> str:
    before = (
        split_names(str(ignored)) if isinstance(ignored, (str, int, float)) else list(ignored or ())
    )
    what = "it" if len(names) == 1 else "them"
    return f"leave {what} out with {typed('ignore', [*before, *names])}"
