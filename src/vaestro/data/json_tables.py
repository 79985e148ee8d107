"""Read .json and .jsonl files as Arrow tables."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from vaestro.data.arrow import all_match
from vaestro.data.csv_tables import check_text

CHUNK = 65536  # records that become one Arrow table


def read_json(pa: Any, path: Path) -> Any:
    """Read an array of objects, or one object after the other, as JSON lines are."""
    check_text(path)
    text = path.read_text("utf-8-sig")
    decode, gap = json.JSONDecoder().raw_decode, re.compile(r"[\s,]*")

    def after_gap(at: int) -> int:
        found = gap.match(text, at)
        assert found is not None  # it matches nothing too
        return found.end()

    start = after_gap(0)
    array = text[start : start + 1] == "["
    at, chunk, tables = start + array, [], []
    kind = "records, [{name: value, ..}, ..] or one a line"
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
            f"expected values of one type in each column of {path.name}; got others "
            f"({str(error)[:100]})"
        ) from error


def _records(pa: Any, rows: list[dict[str, Any]], where: str) -> Any:
    columns = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        try:
            columns[name] = pa.array([row.get(name) for row in rows])
        except (pa.ArrowException, OverflowError) as error:
            raise ValueError(
                f"expected values of one type in column {name!r} of {where}; got others "
                f"({str(error)[:80]})"
            ) from error
    return pa.table(columns)


def dated(pa: Any, table: Any) -> Any:
    """Turn text columns of ISO dates into dates, as a CSV file's are."""
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
