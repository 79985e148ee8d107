"""Which columns of a table are read: the options of a source that name columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import final

from vaestro.data.raw import Options
from vaestro.data.refusals import first_names
from vaestro.text import few, nearest, split_names, unquoted


def named(options: Options, key: str, names: Collection[str], where: str) -> list[str]:
    """Return the columns that an option names, joined by + and in quotes where they need them, or
    as a list. An order after a name, as in grade=low<high, is left out.

    Raises:
        ValueError: there is no such column.
    """
    value = options.get(key, ())
    text = str(value)
    pieces = (
        [str(v) for v in value]
        if isinstance(value, (list, tuple))
        else [text]
        if text in names
        else split_names(text)
    )
    pieces = [p if p in names else unquoted(p.partition("=")[0]) for p in pieces]
    for name in pieces:
        if name not in names:
            raise ValueError(
                f"expected {key}= to name a column of {where}: {nearest(name, few(name, names))}; "
                f"got {name!r}"
            )
    return pieces


@final
@dataclass(frozen=True, eq=False)
class Wanted:
    """Describe which columns of a table are read, and how.

    Args:
        where: the source, for messages.
        options: of the source; `ignore` names columns to leave out.
        columns: the names of the only columns that are read; None for all.
        text: columns that are read as text.
        notes: to which notes on how the table was read are appended.
        member: the name of the table in a zip file.
        raw: to which columns of text are added in which empty cells may be words.
    """

    where: str
    options: Options = field(default_factory=dict)
    columns: Collection[str] | None = None
    text: Collection[str] = ()
    notes: list[str] = field(default_factory=list)
    member: str = ""
    raw: set[str] = field(default_factory=set)

    def in_zip(self, member: str) -> Wanted:
        """Return the same columns of a table in a zip file."""
        return replace(self, member=member)

    def of(self, names: Sequence[str]) -> list[str]:
        """Return the names of the columns that are read, in the order of the table.

        Raises:
            ValueError: an option names no column, or no column is left.

        >>> Wanted("t.csv", {"ignore": "b"}).of(["a", "b", "c"])
        ['a', 'c']
        """
        if self.columns is not None:
            present = [name for name in names if name in self.columns]
            if not present:
                raise ValueError(
                    f"expected columns {first_names(list(self.columns))} in {self.where}; got "
                    f"{first_names(names, 9)}"
                )
            return present
        ignored = (
            named(self.options, "ignore", names, self.where) if "ignore" in self.options else []
        )
        if len(ignored) == len(names):
            raise ValueError(
                f"expected ignore= to leave a column of {self.where}; got {', '.join(ignored)}"
            )
        return [name for name in names if name not in ignored]


def numbered(names: Sequence[str], notes: list[str]) -> list[str]:
    """Return names of columns of which each occurs once: the second `a` is `a.2`.

    Args:
        names: of the columns.
        notes: to which a note on numbered names is appended.

    >>> numbered(["a", "b", "a"], [])
    ['a', 'b', 'a.2']
    """
    used, out = set(names), []
    seen: Counter[str] = Counter()
    for name in names:
        seen[name] += 1
        new, n = name, seen[name]
        while n > 1 and new in used:
            new, n = f"{name}.{n}", n + 1
        used.add(new)
        out.append(new)
    changed = [new for name, new in zip(names, out, strict=True) if name != new]
    if changed:
        twice = first_names([name for name, times in seen.items() if times > 1])
        notes.append(f"several columns are named {twice}: numbered as {first_names(changed)}")
    return out
