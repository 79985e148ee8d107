"""Cells of text that a spreadsheet would run as a formula: written with an apostrophe, and read
without it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING

from vaestro.data.arrow import any_match

if TYPE_CHECKING:
    import pyarrow

STARTS = r"^[=+\-@\t\r\n]"
# A sign alone, and a number, are no formulas.
HARMLESS = r"^[+-]?([0-9.,]*([eE][+-]?[0-9]+)?\s*%?)$"
GUARDED = r"^'+[=+\-@\t\r\n]"  # by one apostrophe more than the text has


def guarded(
    pa: ModuleType, table: pyarrow.Table, texts: Sequence[str]
) -> tuple[pyarrow.Table, int]:
    """Return a table in which an apostrophe precedes text that a spreadsheet would run, in cells
    and in column names, and the number of these.

    Text that already begins with apostrophes and such a character gets one more, so that
    `unguarded` returns the original. OWASP (2024), CSV Injection.

    Args:
        pa: PyArrow.
        table: of a file.
        texts: names of the columns of text.

    >>> import pyarrow.compute
    >>> table = pyarrow.table({"a": ["=1+1", "-5", "-x", None], "b": ["'=", "b", "", "-"]})
    >>> guarded(pyarrow, table, ["a", "b"])[0].to_pydict()
    {'a': ["'=1+1", '-5', "'-x", None], 'b': ["''=", 'b', '', '-']}
    """
    count = 0
    for name in texts:
        column = table[name].cast(pa.string())
        runs = _runs(pa, column)
        cells = pa.compute.sum(runs).as_py() or 0
        if cells:
            with_mark = pa.compute.binary_join_element_wise("'", column, "")
            new = pa.compute.if_else(runs, with_mark, column)
            table = table.set_column(table.column_names.index(name), name, new)
            count += cells
    runs = _runs(pa, pa.chunked_array([table.column_names], pa.string())).to_pylist()
    marks = [f"'{n}" if run else n for n, run in zip(table.column_names, runs, strict=True)]
    if marks != table.column_names:
        count += sum(a != b for a, b in zip(marks, table.column_names, strict=True))
        table = table.rename_columns(marks)
    return table, count


def guarded_text(text: str) -> str:
    """Return a text with an apostrophe before it if a spreadsheet would run it.

    >>> guarded_text("=1+1"), guarded_text("-5")
    ("'=1+1", '-5')
    """
    starts = re.search(STARTS, text) and not re.search(HARMLESS, text)
    return f"'{text}" if starts or re.search(GUARDED, text) else text


def _runs(pa: ModuleType, column: pyarrow.ChunkedArray) -> pyarrow.ChunkedArray:
    """Return which cells get an apostrophe."""
    match = pa.compute.match_substring_regex
    starts = pa.compute.and_not(match(column, STARTS), match(column, HARMLESS))
    return pa.compute.or_(starts, match(column, GUARDED))


def unguarded(pa: ModuleType, column: pyarrow.ChunkedArray) -> tuple[pyarrow.ChunkedArray, int]:
    """Return a column of text without the apostrophes that `guarded` adds, and their number.

    They are removed only if no cell of the column lacks one.

    >>> import pyarrow.compute
    >>> unguarded(pyarrow, pyarrow.chunked_array([["'=1", "''=", "a"]]))[0].to_pylist()
    ['=1', "'=", 'a']
    >>> unguarded(pyarrow, pyarrow.chunked_array([["'=1", "=2"]]))[1]
    0
    """
    if not any_match(pa, column, GUARDED):
        return column, 0
    match = pa.compute.match_substring_regex
    marked = match(column, GUARDED)
    if pa.compute.any(pa.compute.and_not(_runs(pa, column), marked)).as_py():
        return column, 0
    bare = pa.compute.utf8_slice_codeunits(column, start=1)
    return pa.compute.if_else(marked, bare, column), pa.compute.sum(marked).as_py()
