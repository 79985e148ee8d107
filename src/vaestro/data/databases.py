"""Read tables and views of SQLite databases as Arrow tables."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from vaestro.data.choosing import Wanted, numbered
from vaestro.text import InputError, few, nearest, one_line, typed, unquoted

if TYPE_CHECKING:
    import pyarrow


def read_database(pa: ModuleType, path: Path, wanted: Wanted) -> pyarrow.Table:
    """Read a table or view of an SQLite database, which is opened read-only.

    Args:
        pa: PyArrow.
        path: of the file.
        wanted: its columns that are read; the option `table` names the table if there are several.

    Raises:
        ValueError: the file is no database, there is no such table, or there are several.

    >>> import pyarrow.compute
    >>> with closing(sqlite3.connect("t.db")) as base:
    ...     for line in ("create table ages (age integer)", "insert into ages values (31), (null)"):
    ...         _ = base.execute(line)
    ...     base.commit()
    >>> read_database(pyarrow, Path("t.db"), Wanted("t.db")).to_pylist()
    [{'age': 31}, {'age': None}]
    """
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as base:
            found = base.execute(
                "select name from sqlite_master where type in ('table', 'view') "
                "and name not glob 'sqlite_*' order by type, name"
            )
            table = _identifier(_table([str(name) for (name,) in found], wanted))
            declared = [str(row[2]).upper() for row in base.execute(f"pragma table_info({table})")]
            cursor = base.execute(f"select * from {table}")
            names = numbered([str(column[0]) for column in cursor.description], wanted.notes)
            columns = list(zip(*cursor.fetchall(), strict=True))
    except sqlite3.Error as error:
        raise InputError(
            f"{path} is damaged, in use or no SQLite database ({one_line(error)})"
        ) from error
    if not columns:
        raise ValueError(f"expected rows in table {table} of {path.name}; got none")
    read = wanted.of(names)
    arrays = {
        name: _array(pa, values, declared[i] if i < len(declared) else "")
        for i, (name, values) in enumerate(zip(names, columns, strict=True))
        if name in read
    }
    return pa.table(arrays)


def _table(names: Sequence[str], wanted: Wanted) -> str:
    """Return the name of the table that is read."""
    if "table" in wanted.options:
        name = unquoted(str(wanted.options["table"]))
        if name not in names:
            raise ValueError(
                f"expected table= to name a table of {wanted.where}: "
                f"{nearest(name, few(name, names))}; got {name!r}"
            )
        return name
    if not names:
        raise InputError(f"{wanted.where} has no tables")
    if len(names) > 1:
        raise ValueError(
            f"expected one table in {wanted.where}; got {', '.join(names[:9])}"
            f"{', ..' if len(names) > 9 else ''}: choose one with {typed('table', names[0])}"
        )
    return names[0]


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _array(pa: ModuleType, values: Sequence[object], declared: str) -> pyarrow.Array:
    """Return a column of a database. SQLite stores the type of each cell: numbers are text in a
    column that also has text."""
    kinds = {type(value) for value in values} - {type(None)}
    if kinds <= {int} and "BOOL" in declared and set(values) <= {0, 1, None}:
        return pa.array([None if value is None else bool(value) for value in values])
    if kinds <= {int} or kinds <= {int, float}:
        try:
            return pa.array(values, pa.int64() if kinds <= {int} else pa.float64())
        except (OverflowError, pa.ArrowException):
            return pa.array([None if v is None else float(str(v)) for v in values])
    if kinds == {bytes}:
        return pa.array(values)
    return pa.array([None if value is None else str(value) for value in values])
