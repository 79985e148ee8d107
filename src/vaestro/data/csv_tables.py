"""Read .csv and .tsv files as Arrow tables."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, final

import numpy as np

from vaestro.data.arrow import any_match
from vaestro.data.choosing import Wanted, named, numbered
from vaestro.data.csv_layout import Layout, layout_of, refuse_lines
from vaestro.data.formats import spellings
from vaestro.data.formulas import unguarded
from vaestro.data.raw import Options
from vaestro.data.refusals import first_names
from vaestro.data.source_values import missing_values
from vaestro.data.text_files import TextFile
from vaestro.storage import in_utf8
from vaestro.text import InputError, as_number, split_names

if TYPE_CHECKING:
    import pyarrow

MOST_WORDS = 1000  # largest number of words of a column whose quotes are looked at


def read_csv(pa: ModuleType, text: TextFile, wanted: Wanted) -> pyarrow.Table:
    """Read a .csv or .tsv file. Text is returned as it is in the file; `data.parsing` decides what
    it is.

    Args:
        pa: PyArrow.
        text: the file.
        wanted: its columns that are read; notes on how the file was read are appended to its notes,
            and columns of text in which empty cells may be words to its `raw`.

    Raises:
        ValueError: the file is not a table, or has no column names.

    >>> from pathlib import Path
    >>> import pyarrow.compute, pyarrow.csv
    >>> from vaestro.data.text_files import text_file
    >>> _ = Path("t.csv").write_text("a,b\\n1,x\\n2,y\\n")
    >>> read_csv(pyarrow, text_file(Path("t.csv"), {}, []), Wanted("t.csv")).column_names
    ['a', 'b']
    """
    notes, options = wanted.notes, wanted.options
    layout = layout_of(text, options, notes)
    text = text.without_end(layout.below)
    header, guards = unguarded(pa, pa.chunked_array([_names(layout, text.name, notes)]))
    names = numbered(header.to_pylist(), notes)
    columns = wanted.of(names)
    if text.quotes % 2:
        refuse_lines(text, layout)
    empty = [*stated_words(options), *missing_values(options.get("missing"))]
    file = _File(pa, text, names, layout, empty)
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
    table, raw = file.with_text(table, columns, options, text.quotes)
    wanted.raw.update(raw)
    for name in table.column_names:
        if table[name].type == words:
            column, cells = unguarded(pa, table[name])
            guards += cells
            if cells:
                table = table.set_column(table.column_names.index(name), name, column)
    if guards:
        what = "1 cell" if guards == 1 else f"{guards:,} cells"
        notes.append(
            f"removed the apostrophe before the = + - or @ of {what}, which is written for "
            f"spreadsheets"
        )
    unnamed = [n for n, cell in zip(names, layout.header, strict=True) if not cell]
    return _without_numbering(pa, table, unnamed, notes)


def stated_words(options: Options) -> list[str]:
    """Return the words that empty= lists.

    >>> stated_words({"empty": "x+y"})
    ['x', 'y']
    """
    value = options.get("empty")
    if value is None:
        return []
    return [str(v) for v in value] if isinstance(value, (list, tuple)) else split_names(str(value))


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
            f"{', '.join(numbers[:3])} (read them as a row with header=false, which names "
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
        empty: words that mean empty cells, besides the usual ones.
    """

    def __init__(
        self, pa: ModuleType, text: TextFile, names: list[str], layout: Layout, empty: Sequence[str]
    ) -> None:
        self.empty = [*spellings(), *empty]
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
        unquoted: Collection[str] = (),
    ) -> pyarrow.Table:
        """Return some columns as an Arrow table. Words for empty cells are text in columns of text.

        Args:
            columns: their names.
            types: of some of them; the others are inferred.
            unquoted: words that are empty cells in columns of text, unless they are in quotes.
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
                null_values=list(unquoted) or self.empty,
                strings_can_be_null=bool(unquoted),
                quoted_strings_can_be_null=not unquoted,
            ),
        }
        if self.text.plain and not self.layout.below:
            with in_utf8(self.text.path) as name:
                return csv.read_csv(name, **arguments)
        with self.text.open() as stream:
            return csv.read_csv(stream, **arguments)

    def with_text(
        self, table: pyarrow.Table, wanted: Sequence[str], options: Options, quotes: int
    ) -> tuple[pyarrow.Table, list[str]]:
        """Return the table with the text of all columns that have a spelling of their own, and the
        columns of text in which empty cells may be words.

        These are codes such as 0123, dates, times and truth values, whole numbers as 1.0, +1 or
        1e5, and numbers with a decimal point where commas may be decimal points.

        Args:
            table: all columns, with inferred types.
            wanted: their names.
            options: of the source.
            quotes: number of quotes in the file.
        """
        pa, words = self.pa, self.pa.string()
        numbers = {
            name
            for kind in ("real", "count")
            if kind in options
            for name in named(options, kind, self.names, self.text.name)
        }
        codes = [n for n in wanted if table[n].type == pa.int64() and n not in numbers]
        commas = self.delimiter == ";" or options.get("decimal") == "comma"
        spelled = [n for n in wanted if _has_spelling(pa, table[n], commas=commas)]
        again = self.read([*codes, *spelled], dict.fromkeys([*codes, *spelled], words))
        for name in again.column_names:
            if name in spelled or any_match(pa, again[name], r"^\s*([+-]?0\d|\+)"):
                table = _replaced(table, again, name)
        raw = [n for n in wanted if table[n].type == words]
        return self._with_quotes(table, raw, quotes)

    def _with_quotes(
        self, table: pyarrow.Table, raw: list[str], quotes: int
    ) -> tuple[pyarrow.Table, list[str]]:
        """Return the table with empty cells where quotes tell words from them, and the columns of
        text in which they do not.

        R and this package write "NA" for a word and NA for an empty cell. In a file that quotes
        every cell, or none of a column, quotes tell nothing.
        """
        pa = self.pa
        if quotes >= 2 * table.num_rows * len(self.names) or not quotes:
            return table, raw
        usual = pa.array([word for word in self.empty if word.strip()])
        doubtful = [n for n in raw if pa.compute.any(pa.compute.is_in(table[n], usual)).as_py()]
        again = self.read(doubtful, dict.fromkeys(doubtful, pa.string()), unquoted=self.empty)
        for name in doubtful:
            empty = pa.compute.is_in(table[name], usual)
            in_quotes = pa.compute.and_(empty, again[name].is_valid())
            if pa.compute.any(in_quotes).as_py() or self._others_quoted(name, table[name], empty):
                table = _replaced(table, again, name)
                raw = [n for n in raw if n != name]
        return table, raw

    def _others_quoted(
        self, name: str, column: pyarrow.ChunkedArray, empty: pyarrow.ChunkedArray
    ) -> bool:
        """Return whether all cells of a column are in quotes, apart from empty ones."""
        words = self.pa.compute.unique(column.filter(self.pa.compute.invert(empty))).to_pylist()
        words = [word for word in words if word]
        if not words or len(words) > MOST_WORDS:
            return False
        bare = self.read([name], {name: self.pa.string()}, unquoted=words)[name]
        return not bare.filter(self.pa.compute.is_in(column, self.pa.array(words))).null_count


def _has_spelling(pa: ModuleType, column: pyarrow.ChunkedArray, *, commas: bool) -> bool:
    """Return whether values of a column have a spelling that their type does not contain."""
    kind, t = column.type, pa.types
    if t.is_float64(kind):
        whole = pa.compute.equal(pa.compute.round(column), column)
        finite = pa.compute.is_finite(column)
        return commas or bool(pa.compute.all(pa.compute.and_(whole, finite)).as_py())
    return t.is_boolean(kind) or t.is_temporal(kind)


def _replaced(table: pyarrow.Table, again: pyarrow.Table, name: str) -> pyarrow.Table:
    """Return a table with a column of a second reading."""
    return table.set_column(table.column_names.index(name), name, again[name])


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
