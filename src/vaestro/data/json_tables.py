"""Read .json and .jsonl files as Arrow tables."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from vaestro.data.csv_tables import check_text
from vaestro.data.raw import Json

if TYPE_CHECKING:
    import pyarrow

CHUNK = 65536  # records of one Arrow table
RECORDS = "records, [{name: value, ..}, ..] or one per line"


def read_json(pa: ModuleType, path: Path) -> pyarrow.Table:
    """Read an array of objects, or objects one after the other, as in JSON lines.

    Args:
        pa: PyArrow.
        path: of the file.

    Raises:
        ValueError: the file has other JSON.

    >>> import pyarrow
    >>> _ = Path("t.jsonl").write_text('{"a": 1}\\n{"a": 2}\\n')
    >>> read_json(pyarrow, Path("t.jsonl")).num_rows
    2
    """
    check_text(path)
    records = _parsed(path)
    tables = [_table(pa, chunk, path.name) for chunk in iter(lambda: [*islice(records, CHUNK)], [])]
    if not tables:
        raise ValueError(f"expected {RECORDS}, in {path.name}; got none")
    if (
        len(tables) == 1
        and tables[0].num_rows == 1
        and all(pa.types.is_nested(c.type) for c in tables[0].columns)
    ):
        raise ValueError(f"expected {RECORDS}, in {path.name}; got one object of columns")
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise ValueError(
            f"expected values of one type in each column of {path.name}; got several "
            f"({str(error)[:100]})"
        ) from error


def _parsed(path: Path) -> Iterator[Json]:
    """Yield the records of a file."""
    text = path.read_text("utf-8-sig")
    decode, gap = json.JSONDecoder().raw_decode, re.compile(r"[\s,]*")

    def after_gap(at: int) -> int:
        match = gap.match(text, at)
        assert match is not None  # it also matches the empty string
        return match.end()

    at = after_gap(0)
    array = text[at : at + 1] == "["
    at = after_gap(at + array)
    while at < len(text) and not (array and text[at] == "]"):
        record, at = decode(text, at)
        if not isinstance(record, dict):
            got = f"{type(record).__name__} {str(record)[:30]!r}"
            raise ValueError(f"expected {RECORDS}, in {path.name}; got {got}")
        yield record
        at = after_gap(at)
    if array and text[at:].strip() != "]":
        got = "no end" if at == len(text) else "more after the array"
        raise ValueError(f"expected {RECORDS}, in {path.name}; got {got}")


def _table(pa: ModuleType, rows: list[Json], where: str) -> pyarrow.Table:
    """Return records as an Arrow table."""
    columns = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        try:
            columns[name] = pa.array([row.get(name) for row in rows])
        except (pa.ArrowException, OverflowError) as error:
            raise ValueError(
                f"expected values of one type in column {name!r} of {where}; got several "
                f"({str(error)[:80]})"
            ) from error
    return pa.table(columns)
