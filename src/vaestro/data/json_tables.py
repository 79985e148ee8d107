"""Read .json and .jsonl files as Arrow tables."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from vaestro.data.arrow import all_match
from vaestro.data.csv_tables import check_text
from vaestro.data.raw import Json

if TYPE_CHECKING:
    import pyarrow

CHUNK = 65536  # records of one Arrow table


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
    text = path.read_text("utf-8-sig")
    decode, gap = json.JSONDecoder().raw_decode, re.compile(r"[\s,]*")

    def after_gap(at: int) -> int:
        match = gap.match(text, at)
        assert match is not None  # it also matches the empty string
        return match.end()

    start = after_gap(0)
    array = text[start : start + 1] == "["
    at, chunk, tables = start + array, [], []
    kind = "records, [{name: value, ..}, ..] or one per line"
    while True:
        at = after_gap(at)
        ends = at == len(text) or (array and text[at] == "]")
        if not ends:
            record, at = decode(text, at)
            if not isinstance(record, dict):
                raise ValueError(
                    f"expected {kind}, in {path.name}; got {type(record).__name__} "
                    f"{str(record)[:30]!r}"
                )
            chunk.append(record)
        if chunk and (ends or len(chunk) == CHUNK):
            tables.append(_records(pa, chunk, path.name))
            chunk = []
        if ends:
            break
    if array and text[at:].strip() != "]":
        raise ValueError(
            f"expected {kind}, in {path.name}; got "
            f"{'no end' if at == len(text) else 'more after the array'}"
        )
    if not tables:
        raise ValueError(f"expected {kind}, in {path.name}; got none")
    if (
        len(tables) == 1
        and tables[0].num_rows == 1
        and all(pa.types.is_nested(c.type) for c in tables[0].columns)
    ):
        raise ValueError(f"expected {kind}, in {path.name}; got one object of columns")
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise ValueError(
            f"expected values of one type in each column of {path.name}; got several "
            f"({str(error)[:100]})"
        ) from error


def _records(pa: ModuleType, rows: list[Json], where: str) -> pyarrow.Table:
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


def dated(pa: ModuleType, table: pyarrow.Table) -> pyarrow.Table:
    """Return a table whose text columns of ISO dates are dates, as in a CSV file.

    >>> import pyarrow.compute
    >>> dated(pyarrow, pyarrow.table({"day": ["2020-01-01"]}))["day"].type
    TimestampType(timestamp[us])
    """
    for i, name in enumerate(table.column_names):
        if table[name].type == pa.string() and all_match(
            pa, pa.compute.drop_null(table[name]), r"^\d{4}-\d\d-\d\d([T ]\d\d:|$)"
        ):
            for kind in (pa.timestamp("us"), pa.timestamp("us", "UTC")):
                try:
                    table = table.set_column(i, name, table[name].cast(kind))
                    break
                except pa.ArrowInvalid:
                    continue
    return table
