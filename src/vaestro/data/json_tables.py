"""Read .json and .jsonl files as Arrow tables."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from types import ModuleType
from typing import TYPE_CHECKING

from vaestro.data.raw import Json
from vaestro.data.refusals import mixed_types
from vaestro.data.text_files import TextFile
from vaestro.text import one_line

if TYPE_CHECKING:
    import pyarrow

CHUNK = 65536  # records of one Arrow table
RECORDS = "records, [{name: value, ..}, ..] or one per line"


def read_json(pa: ModuleType, file: TextFile) -> pyarrow.Table:
    """Read an array of objects, or objects one after the other, as in JSON lines.

    Args:
        pa: PyArrow.
        file: the file.

    Raises:
        ValueError: the file has other JSON.

    >>> from pathlib import Path
    >>> import pyarrow
    >>> from vaestro.data.text_files import text_file
    >>> _ = Path("t.jsonl").write_text('{"a": 1}\\n{"a": 2}\\n')
    >>> read_json(pyarrow, text_file(Path("t.jsonl"), {}, [])).num_rows
    2
    """
    records = _parsed(file)
    tables = [
        of_records(pa, chunk, file.name) for chunk in iter(lambda: [*islice(records, CHUNK)], [])
    ]
    if not tables:
        raise ValueError(f"expected {RECORDS}, in {file.name}; got none")
    if (
        len(tables) == 1
        and tables[0].num_rows == 1
        and all(pa.types.is_nested(c.type) for c in tables[0].columns)
    ):
        raise ValueError(f"expected {RECORDS}, in {file.name}; got one object of columns")
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise ValueError(
            f"expected values of one type in each column of {file.name}; got several "
            f"({str(error)[:100]})"
        ) from error


def _parsed(file: TextFile) -> Iterator[Json]:
    """Yield the records of a file."""
    text = file.text()
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
            raise ValueError(f"expected {RECORDS}, in {file.name}; got {got}")
        yield record
        at = after_gap(at)
    if array and text[at:].strip() != "]":
        got = "no end" if at == len(text) else "more after the array"
        raise ValueError(f"expected {RECORDS}, in {file.name}; got {got}")


def of_records(pa: ModuleType, rows: Sequence[Json], where: str) -> pyarrow.Table:
    """Return records as an Arrow table; names that a record lacks are empty cells.

    Args:
        pa: PyArrow.
        rows: a dict for each row.
        where: the source, for messages.

    Raises:
        ValueError: a column has values of several types.

    >>> import pyarrow
    >>> of_records(pyarrow, [{"a": 1}, {}], "t.json").to_pylist()
    [{'a': 1}, {'a': None}]
    """
    columns = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        try:
            columns[name] = pa.array([row.get(name) for row in rows])
        except (pa.ArrowException, OverflowError) as error:
            got = mixed_types(row.get(name) for row in rows) or f"others ({one_line(error)[:80]})"
            raise ValueError(
                f"expected values of one type in column {name!r} of {where}; got {got} (write all "
                f"of them as numbers or all as text)"
            ) from error
    return pa.table(columns)
