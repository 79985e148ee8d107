"""Build the sentences that refuse columns of a table, or name them in a note."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vaestro.text import quoted


class Unfit(ValueError):
    """Say that one column cannot be data. Those of all columns are said in one line."""

    def __init__(self, wanted: str, got: str) -> None:
        super().__init__(f"expected {wanted}; got {got}")
        self.wanted, self.got = wanted, got


def refuse(unfit: Sequence[tuple[Unfit, Sequence[str]]], where: str, ignored: Any = None) -> None:
    """Raise ValueError, one for all, if columns cannot be data; each comes with those that can be
    left out, beside what is `ignored`."""
    if unfit:
        wanted, got = (
            ", and ".join(said)
            for said in ([e.wanted for e, _ in unfit], [e.got for e, _ in unfit])
        )
        names = [name for _, names in unfit for name in names]
        raise ValueError(
            f"expected {wanted}; got {got}"
            + (f" {leave_out(where, names, ignored)}" if names else "")
        )


def listed(names: Sequence[str], most: int = 3, width: int = 24) -> str:
    """Return the first names, each cut to a width in letters, and how many more there are."""
    shown = [n if len(n) <= width else n[: width - 2] + ".." for n in names[:most]]
    return ", ".join(shown) + (f" and {len(names) - most} more" if len(names) > most else "")


def columns_named(names: Sequence[str]) -> str:
    """Return "column 'a'" or "columns 'a', 'b'", at most nine of them."""
    return (
        f"column {names[0]!r}"
        if len(names) == 1
        else "columns " + ", ".join(map(repr, names[:9])) + (" .." if len(names) > 9 else "")
    )


def leave_out(where: str, names: Sequence[str], ignored: Any = None) -> str:
    """Return how to leave columns out of a source, beside those that are `ignored` already, in
    brackets."""
    before = (
        [str(ignored)] if isinstance(ignored, (str, int, float)) else map(quoted, ignored or ())
    )
    how = (
        " with " + shlex.quote(f"{where}:ignore={'+'.join([*before, *map(quoted, names)])}")
        if Path(where).suffix
        else ""
    )
    return f"(leave {'it' if len(names) == 1 else 'them'} out{how})"
