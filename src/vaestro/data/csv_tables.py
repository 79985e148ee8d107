"""Read .csv and .tsv files as Arrow tables."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, final

import numpy as np

from vaestro.data.arrow import all_match, any_match
from vaestro.data.choosing import named, wanted_columns
from vaestro.data.raw import Options
from vaestro.data.refusals import first_names
from vaestro.text import InputError

if TYPE_CHECKING:
    import pyarrow

EMPTY = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "?", "-")


def read_csv(
    pa: ModuleType,
    path: Path,
    options: Options,
    columns: Collection[str] | None,
    text: Collection[str],
    notes: list[str],
) -> pyarrow.Table:
    """Read a .csv or .tsv file.

    Args:
        pa: PyArrow.
        path: of the file.
        options: as for `read_table`.
        columns: names of the only columns to read, or None.
        text: columns that are read as text.
        notes: to which notes on how the file was read are appended.

    Raises:
        ValueError: the file is not a table in UTF-8, or has no column names.

    >>> import pyarrow.csv
    >>> _ = Path("t.csv").write_text("a,b\\n1,x\\n2,y\\n")
    >>> read_csv(pyarrow, Path("t.csv"), {}, None, (), []).column_names
    ['a', 'b']
    """
    quotes = check_text(path)
    delimiter, header, blank = _header(path)
    names = _names(header, path, notes)
    wanted = wanted_columns(names, options, columns, path.name)
    numbers = {
        name
        for kind in ("real", "count")
        if kind in options
        for name in named(options, kind, names, path.name)
    }
    if quotes % 2:
        _refuse_lines(path, delimiter, len(names))
    file = _File(pa, path, names, delimiter, blank)
    words = pa.string()
    try:
        table = file.read(wanted, {name: words for name in text if name in wanted})
    except pa.ArrowInvalid:
        _refuse_lines(path, delimiter, len(names))
        raise
    if not table.num_rows:
        raise InputError(f"{path.name} has column names but no rows")
    free = [n for n in wanted if table[n].type == words and n not in text]
    table = file.with_numbers(table, free, notes)
    # A code such as 01234 is text, and a time of day is text in its original form.
    codes = [
        n
        for n in wanted
        if (table[n].type == pa.int64() and n not in numbers) or pa.types.is_time(table[n].type)
    ]
    again = file.read(codes, dict.fromkeys(codes, words), quoted_strings_can_be_null=True)
    table = _replaced(table, again, lambda c: any_match(pa, c, r"^\s*[+-]?0\d|:"))
    return _without_numbering(
        pa, table, [n for n, cell in zip(names, header, strict=True) if not cell], notes
    )


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
    """

    def __init__(
        self, pa: ModuleType, path: Path, names: list[str], delimiter: str, blank: int
    ) -> None:
        self.pa, self.path, self.names = pa, path, names
        self.delimiter, self.blank = delimiter, blank

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
                null_values=[*EMPTY, *(" " + word for word in EMPTY)],
                strings_can_be_null=True,
                quoted_strings_can_be_null=quoted_strings_can_be_null,
                decimal_point=decimal_point,
            ),
        )

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
