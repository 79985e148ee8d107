"""Read .csv and .tsv files as Arrow tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, final

import numpy as np

from vaestro.data.arrow import all_match, any_match
from vaestro.data.choosing import Wanted, named, numbered
from vaestro.data.csv_layout import Layout, layout_of, refuse_lines
from vaestro.data.refusals import first_names
from vaestro.data.text_files import TextFile
from vaestro.text import InputError, as_number

if TYPE_CHECKING:
    import pyarrow

EMPTY = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "?", "-")


def read_csv(pa: ModuleType, text: TextFile, wanted: Wanted) -> pyarrow.Table:
    """Read a .csv or .tsv file.

    Args:
        pa: PyArrow.
        text: the file.
        wanted: its columns that are read; notes on how the file was read are appended to its notes.

    Raises:
        ValueError: the file is not a table, or has no column names.

    >>> from pathlib import Path
    >>> import pyarrow.csv
    >>> from vaestro.data.text_files import text_file
    >>> _ = Path("t.csv").write_text("a,b\\n1,x\\n2,y\\n")
    >>> read_csv(pyarrow, text_file(Path("t.csv"), {}, []), Wanted("t.csv")).column_names
    ['a', 'b']
    """
    notes, options = wanted.notes, wanted.options
    layout = layout_of(text, options, notes)
    text = text.without_end(layout.below)
    names = numbered(_names(layout, text.name, notes), notes)
    columns = wanted.of(names)
    numbers = {
        name
        for kind in ("real", "count")
        if kind in options
        for name in named(options, kind, names, text.name)
    }
    if text.quotes % 2:
        refuse_lines(text, layout)
    file = _File(pa, text, names, layout)
    words = pa.string()
    try:
        table = file.read(columns, {name: words for name in wanted.text if name in columns})
    except pa.ArrowInvalid:
        refuse_lines(text, layout)
        raise
    if file.comments:
        what = "1 line" if len(file.comments) == 1 else f"{len(file.comments):,} lines"
        notes.append(f"left out {what} that begin{'s' * (what == '1 line')} with #")
    if not table.num_rows:
        raise InputError(f"{text.name} has column names but no rows")
    free = [n for n in columns if table[n].type == words and n not in wanted.text]
    table = file.with_numbers(table, free, notes)
    # A code such as 01234 is text, and a time of day is text in its original form.
    codes = [
        n
        for n in columns
        if (table[n].type == pa.int64() and n not in numbers) or pa.types.is_time(table[n].type)
    ]
    again = file.read(codes, dict.fromkeys(codes, words), quoted_strings_can_be_null=True)
    table = _replaced(table, again, lambda c: any_match(pa, c, r"^\s*[+-]?0\d|:"))
    return _without_numbering(
        pa, table, [n for n, cell in zip(names, layout.header, strict=True) if not cell], notes
    )


def _names(layout: Layout, where: str, notes: list[str]) -> list[str]:
    """Return the names of the columns, one for each cell of the first line.

    Raises:
        ValueError: the first line has only numbers.
    """
    header = layout.header
    numbers = [cell for cell in header if as_number(cell) is not None]
    # pandas writes the names 0, 1, ..
    if len(numbers) == sum(map(bool, header)) and numbers != [str(i) for i in range(len(numbers))]:
        raise ValueError(
            f"expected column names in the first line of {where}; got numbers, "
            f"{', '.join(numbers[:3])} (read them as a row with {where}:header=false, which names "
            f"the columns 'column 1' and so on, or add a line of names)"
        )
    if numbers:
        names = first_names([cell for cell in header if cell])
        notes.append(f"the first line is read as column names: {names}")
    return [cell.strip() or f"column {i + 1}" for i, cell in enumerate(header)]


@final
class _File:
    """Read columns of a CSV file.

    Args:
        pa: PyArrow.
        text: the file.
        names: of all columns.
        layout: where the rows are.
    """

    def __init__(self, pa: ModuleType, text: TextFile, names: list[str], layout: Layout) -> None:
        self.pa, self.text, self.names, self.layout = pa, text, names, layout
        self.delimiter = layout.delimiter
        self.comments: set[str | int] = set()  # lines that begin with # and are no rows

    def _other_line(self, row: pyarrow.csv.InvalidRow) -> str:
        """Leave out a line with another number of cells if it is a comment."""
        if not row.text.lstrip().startswith("#"):
            return "error"
        self.comments.add(row.text)
        return "skip"

    def read(
        self,
        columns: Sequence[str],
        types: Mapping[str, pyarrow.DataType],
        *,
        quoted_strings_can_be_null: bool = False,
        decimal_point: str = ".",
    ) -> pyarrow.Table:
        """Return some columns as an Arrow table.

        Args:
            columns: their names.
            types: of some of them; the others are inferred.
            quoted_strings_can_be_null: whether a quoted "NA" is an empty cell.
            decimal_point: of numbers.
        """
        csv = self.pa.csv
        if not columns:
            return self.pa.table({})
        arguments = {
            "read_options": csv.ReadOptions(
                column_names=self.names,
                skip_rows=self.layout.above,
                skip_rows_after_names=int(self.layout.named),
                block_size=2**23,
            ),
            "parse_options": csv.ParseOptions(
                delimiter=self.delimiter,
                newlines_in_values=True,
                invalid_row_handler=self._other_line,
            ),
            "convert_options": csv.ConvertOptions(
                include_columns=columns,
                column_types=dict(types),
                null_values=[*EMPTY, *(" " + word for word in EMPTY)],
                strings_can_be_null=True,
                quoted_strings_can_be_null=quoted_strings_can_be_null,
                decimal_point=decimal_point,
            ),
        }
        if self.text.plain and not self.layout.below:
            return csv.read_csv(self.text.path, **arguments)
        with self.text.open() as stream:
            return csv.read_csv(stream, **arguments)

    def with_numbers(
        self, table: pyarrow.Table, free: Sequence[str], notes: list[str]
    ) -> pyarrow.Table:
        """Return the table with columns of text read as numbers, if they are numbers.

        A quoted "NA" is text, as R and this package write it. In a file that quotes everything, it
        is an empty cell among numbers. Commas are decimal points in a file with semicolons, unless
        1,234 could be a thousand.

        Args:
            table: all columns.
            free: columns whose type the user did not choose.
            notes: to which notes are appended.
        """
        pa, words = self.pa, self.pa.string()
        empty = pa.array(EMPTY)
        doubtful = [n for n in free if pa.compute.any(pa.compute.is_in(table[n], empty)).as_py()]
        again = self.read(doubtful, {}, quoted_strings_can_be_null=True)
        table = _replaced(table, again, lambda c: c.type != words)
        if self.delimiter != ";":
            return table
        commas = [
            n
            for n in free
            if table[n].type == words
            and all_match(pa, table[n], r"^\s*[+-]?\d+(,\d+)?\s*$")
            and not all_match(pa, table[n], r"^[^,]*(,\d{3})?$")
        ]
        if commas:
            notes.append(f"commas are decimal points in {first_names(commas)}")
        again = self.read(commas, {}, decimal_point=",", quoted_strings_can_be_null=True)
        return _replaced(table, again, lambda c: c.type != words)


def _replaced(
    table: pyarrow.Table, again: pyarrow.Table, better: Callable[[pyarrow.ChunkedArray], bool]
) -> pyarrow.Table:
    """Return a table with those columns of a second reading that are better."""
    for name in again.column_names:
        if better(again[name]):
            table = table.set_column(table.column_names.index(name), name, again[name])
    return table


def _without_numbering(
    pa: ModuleType, table: pyarrow.Table, unnamed: Sequence[str], notes: list[str]
) -> pyarrow.Table:
    """Return a table without columns that have no name and are empty or number the rows."""
    for name in unnamed:
        if name in table.column_names:
            column = table[name]
            if column.type == pa.null() or (
                column.type == pa.int64() and not column.null_count and (np.diff(column) == 1).all()
            ):
                table = table.drop_columns([name])
                notes.append(
                    f"left out the column without a name, which "
                    f"{'is empty' if column.type == pa.null() else 'numbers the rows'}"
                )
    return table
