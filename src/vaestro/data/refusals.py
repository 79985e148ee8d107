"""Messages about columns that cannot be used, and names of columns in notes."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from vaestro.text import quoted

Names = str | float | Sequence[str] | None  # names of columns, joined by + or as a list


class Unfit(ValueError):
    """Report that a column cannot be used. `refuse` joins the reports of several columns.

    Args:
        expected, got: of the message.
        advice: what to do other than to leave the column out, as in "missing=inf takes them as
            empty".
    """

    def __init__(self, expected: str, got: str, advice: str = "") -> None:
        super().__init__(f"expected {expected}; got {got}" + (f" ({advice})" if advice else ""))
        self.expected, self.got, self.advice = expected, got, advice


def refuse(unfit: Sequence[tuple[Unfit, Sequence[str]]], where: str, ignored: Names = None) -> None:
    """Raise one ValueError for all columns that cannot be used.

    Args:
        unfit: a report for each column, with the columns that the user can leave out.
        where: the source.
        ignored: columns that the source leaves out already.

    Raises:
        ValueError: `unfit` is not empty.

    >>> refuse([(Unfit("numbers", "lists in 'a'"), ["a"])], "t.csv")
    Traceback (most recent call last):
    ValueError: expected numbers; got lists in 'a' (leave it out with t.csv:ignore=a)
    """
    if unfit:
        expected = ", and ".join(error.expected for error, _ in unfit)
        got = ", and ".join(error.got for error, _ in unfit)
        names = [name for _, names in unfit for name in names]
        advice = list(dict.fromkeys(error.advice for error, _ in unfit if error.advice))
        if names:
            out = leave_out(where, names, ignored)[1:-1]
            advice.append(f"or {out}" if advice else out)
        raise ValueError(
            f"expected {expected}; got {got}" + (f" ({'; '.join(advice)})" if advice else "")
        )


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


def leave_out(where: str, names: Sequence[str], ignored: Names = None) -> str:
    """Return, in brackets, what to type to leave columns out of a source.

    Args:
        where: the source.
        names: of the columns.
        ignored: columns that the source leaves out already.

    >>> leave_out("t.csv", ["b"], "a")
    '(leave it out with t.csv:ignore=a+b)'
    """
    before = (
        [str(ignored)] if isinstance(ignored, (str, int, float)) else map(quoted, ignored or ())
    )
    how = (
        " with " + shlex.quote(f"{where}:ignore={'+'.join([*before, *map(quoted, names)])}")
        if Path(where).suffix
        else ""
    )
    return f"(leave {'it' if len(names) == 1 else 'them'} out{how})"
