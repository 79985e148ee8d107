"""Read .csv and .tsv files as Arrow tables."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, final

import numpy as np

from vaestro.data.arrow import any_match
from vaestro.data.choosing import named, wanted_columns
from vaestro.data.formats import spellings
from vaestro.data.raw import Options
from vaestro.data.refusals import first_names
from vaestro.data.source_options import missing_values
from vaestro.text import InputError, split_names

if TYPE_CHECKING:
    import pyarrow

MOST_WORDS = 1000  # largest number of words of a column whose quotes are looked at


def read_csv(
    pa: ModuleType,
    path: Path,
    options: Options,
    columns: Collection[str] | None,
    text: Collection[str],
    notes: list[str],
) -> tuple[pyarrow.Table, list[str]]:
    """Read a .csv or .tsv file. Text is returned as it is in the file; `data.parsing` decides what
    it is.

    Args:
        pa: PyArrow.
        path: of the file.
        options: as for `read_table`.
        columns: names of the only columns to read, or None.
        text: columns that are read as text.
        notes: to which notes on how the file was read are appended.

    Returns:
        the table, and the columns of text in which empty cells may be words.

    Raises:
        ValueError: the file is not a table in UTF-8, or has no column names.

    >>> import pyarrow.compute, pyarrow.csv
    >>> _ = Path("t.csv").write_text("a,b\\n1,x\\n2,y\\n")
    >>> read_csv(pyarrow, Path("t.csv"), {}, None, (), [])[0].column_names
    ['a', 'b']
    """
    quotes = check_text(path)
    delimiter, header, blank = _header(path)
    names = _names(header, path, notes)
    wanted = wanted_columns(names, options, columns, path.name)
    if quotes % 2:
        _refuse_lines(path, delimiter, len(names))
    empty = [*stated_words(options), *missing_values(options.get("missing"))]
    file = _File(pa, path, names, delimiter, blank, empty)
    words = pa.string()
    try:
        table = file.read(wanted, {name: words for name in text if name in wanted})
    except pa.ArrowInvalid:
        _refuse_lines(path, delimiter, len(names))
        raise
    if not table.num_rows:
        raise InputError(f"{path.name} has column names but no rows")
    table, raw = file.with_text(table, wanted, options, quotes)
    unnamed = [n for n, cell in zip(names, header, strict=True) if not cell]
    return _without_numbering(pa, table, unnamed, notes), raw


def stated_words(options: Options) -> list[str]:
    """Return the words that empty= lists.

    >>> stated_words({"empty": "x+y"})
    ['x', 'y']
    """
    value = options.get("empty")
    if value is None:
        return []
    return [str(v) for v in value] if isinstance(value, (list, tuple)) else split_names(str(value))


def _names(header: Sequence[str], path: Path, notes: list[str]) -> list[str]:
    """Return the names of the columns, one for each cell of the first line.

    Raises:
        ValueError: the first line has only numbers.
    """
    numbers = [cell for cell in header if _number(cell)]
    # pandas writes the names 0, 1, ..
    if len(numbers) == sum(map(bool, header)) and numbers != [str(i) for i in range(len(numbers))]:
        raise ValueError(
            f"expected column names in the first line of {path.name}; got numbers, "
            f"{', '.join(numbers[:3])} (add a line of names)"
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
        path: of the file.
        names: of all columns.
        delimiter: between cells.
        blank: number of empty lines before the column names.
        empty: words that mean empty cells, besides the usual ones.
    """

    def __init__(
        self,
        pa: ModuleType,
        path: Path,
        names: list[str],
        delimiter: str,
        blank: int,
        empty: Sequence[str],
    ) -> None:
        self.pa, self.path, self.names = pa, path, names
        self.delimiter, self.blank = delimiter, blank
        self.empty = [*spellings(), *empty]

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
        return csv.read_csv(
            self.path,
            read_options=csv.ReadOptions(
                column_names=self.names,
                skip_rows=self.blank,
                skip_rows_after_names=1,
                block_size=2**23,
            ),
            parse_options=csv.ParseOptions(delimiter=self.delimiter, newlines_in_values=True),
            convert_options=csv.ConvertOptions(
                include_columns=columns,
                column_types=dict(types),
                null_values=list(unquoted) or self.empty,
                strings_can_be_null=bool(unquoted),
                quoted_strings_can_be_null=not unquoted,
            ),
        )

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
            for name in named(options, kind, self.names, self.path.name)
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


def _number(cell: str) -> bool:
    try:
        return bool(float(cell)) or True
    except ValueError:
        return False


def check_text(path: Path) -> int:
    """Return the number of quotes in a file.

    Raises:
        ValueError: the file is not text in UTF-8.

    >>> _ = Path("t.csv").write_text('a\\n"x"\\n')
    >>> check_text(Path("t.csv"))
    2
    """
    decoder, at, quotes = codecs.getincrementaldecoder("utf-8")(), 0, 0
    with path.open("rb") as file:
        while piece := file.read(2**22):
            at += len(piece)
            quotes += piece.count(b'"')
            bad = piece.find(b"\0")
            try:
                decoder.decode(piece)
            except UnicodeDecodeError as error:
                bad, piece = error.start, error.object
            if bad >= 0:
                got = f"byte 0x{piece[bad]:02x} at {at - len(piece) + bad:,}"
                raise ValueError(
                    f"expected text in UTF-8 in {path.name}; got {got} (save it again as UTF-8)"
                )
    return quotes


def _lines(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        last = 0
        try:
            for row in reader:
                yield last + 1, row
                last = reader.line_num
        except csv.Error as error:
            raise ValueError(
                f"expected closed quotes in {path.name} after line {last:,}; got {error}"
            ) from error


def _header(path: Path) -> tuple[str, list[str], int]:
    """Return the delimiter of a CSV file, the cells of its first line, and the number of empty
    lines before it."""
    best: tuple[tuple[bool, int], str, list[str], int] | None = None
    for delimiter in "\t,;|" if path.suffix.lower() == ".tsv" else ",;\t|":
        head = []
        # A quote that is not closed is an error only if no other delimiter explains it.
        with suppress(ValueError):
            for line in _lines(path, delimiter):
                head += [line] if line[1] else []
                if len(head) == 2:
                    break
        if head:
            (at, cells), (_, second) = head[0], head[-1]
            score = (len(cells) == len(second) and len(cells) > 1, len(cells))
            if best is None or score > best[0]:
                best = score, delimiter, [cell.strip() for cell in cells], at - 1
    if best is None:
        raise InputError(f"{path.name} has no line of column names")
    return best[1:]


def _refuse_lines(path: Path, delimiter: str, width: int) -> None:
    """Raise ValueError if a line has more or fewer cells than there are column names, a quote is
    not closed, or there are no rows."""
    lines = 0
    for at, row in _lines(path, delimiter):
        lines += bool(row)
        if row and len(row) != width:
            raise ValueError(
                f"expected {width} cells in every line of {path.name}; got {len(row)} in line "
                f"{at:,}"
            )
    if lines < 2:
        raise InputError(f"{path.name} has column names but no rows")
