"""Which columns of a table are read: the options of a source that name columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

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


def wanted_columns(
    names: Sequence[str], options: Options, columns: Collection[str] | None, where: str
) -> list[str]:
    """Return the columns that are read: those that are needed, or all that `ignore` does not name.

    Raises:
        ValueError: a name occurs twice, or no column is left.
    """
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise ValueError(f"expected columns of different names in {where}; got {twice[0]!r} twice")
    if columns is not None:
        present = [name for name in names if name in columns]
        if not present:
            raise ValueError(
                f"expected columns {first_names(list(columns))} in {where}; got "
                f"{first_names(names, 9)}"
            )
        return present
    ignored = named(options, "ignore", names, where) if "ignore" in options else []
    if len(ignored) == len(names):
        raise ValueError(f"expected ignore= to leave a column of {where}; got {', '.join(ignored)}")
    return [name for name in names if name not in ignored]
