"""Read .csv and .tsv files as Arrow tables."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from vaestro.data.arrow import all_match, any_match
from vaestro.data.choosing import named, wanted_columns
from vaestro.data.refusals import listed

EMPTY = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "?", "-")


def read_csv(
    pa: Any,
    path: Path,
    options: Mapping[str, Any],
    columns: Collection[str] | None,
    text: Collection[str],
    notes: list[str],
) -> Any:
    """Return a .csv or .tsv file as an Arrow table; adds notes on how it was read to `notes`.

    Raises:
        ValueError: the file is not a table in UTF-8, or has no names of columns.
    """
    quotes = check_text(path)
    delimiter, header, blank = _header(path)
    names = [cell.strip() or f"column {i + 1}" for i, cell in enumerate(header)]
    numbers = [cell for cell in header if _number(cell)]
    # 0, 1, .. are names that pandas gives
    if len(numbers) == sum(map(bool, header)) and numbers != [str(i) for i in range(len(numbers))]:
        raise ValueError(
            f"expected a first line of column names in {path.name}; got numbers, "
            f"{', '.join(numbers[:3])} (add such a line)"
        )
    if numbers:
        notes.append(
            f"the first line is read as names of columns: "
            f"{listed([cell for cell in header if cell])}"
        )
    wanted = wanted_columns(names, options, columns, path.name)
    whole = {
        name
        for kind in ("real", "count")
        if kind in options
        for name in named(options, kind, names, path.name)
    }
    if quotes % 2:
        _refuse_lines(path, delimiter, len(names))

    def read(of: list[str], types: Mapping[str, Any], **how: Any) -> Any:
        return pa.csv.read_csv(
            path,
            read_options=pa.csv.ReadOptions(
                column_names=names, skip_rows=blank, skip_rows_after_names=1, block_size=2**23
            ),
            parse_options=pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=pa.csv.ConvertOptions(
                include_columns=of,
                column_types=dict(types),
                null_values=[*EMPTY, *(" " + word for word in EMPTY)],
                strings_can_be_null=True,
                **{"quoted_strings_can_be_null": False, **how},
            ),
        )

    def replaced(table: Any, of: list[str], types: Mapping[str, Any], keep: Any, **how: Any) -> Any:
        """Read some columns again in another way, and take those that `keep` likes better."""
        again = read(of, types, **how) if of else table
        for name in of:
            if keep(again[name]):
                table = table.set_column(table.column_names.index(name), name, again[name])
        return table

    words = pa.string()
    try:
        table = read(wanted, {name: words for name in text if name in wanted})
    except pa.ArrowInvalid:
        _refuse_lines(path, delimiter, len(names))
        raise
    if not table.num_rows:
        raise ValueError(f"expected rows of data in {path.name}; got column names alone")
    # A quoted "NA" is text, as R and this package write it. In a file that quotes everything, it is
    # an empty cell among numbers.
    free = [n for n in wanted if table[n].type == words and n not in text]
    doubtful = [
        n for n in free if pa.compute.any(pa.compute.is_in(table[n], pa.array(EMPTY))).as_py()
    ]
    table = replaced(
        table, doubtful, {}, lambda c: c.type != words, quoted_strings_can_be_null=True
    )
    if delimiter == ";":
        commas = [
            n
            for n in free
            if table[n].type == words and all_match(pa, table[n], r"^\s*[+-]?\d+(,\d+)?\s*$")
        ]
        # 1,234 could be a thousand
        commas = [n for n in commas if not all_match(pa, table[n], r"^[^,]*(,\d{3})?$")]
        table = replaced(
            table,
            commas,
            {},
            lambda c: c.type != words,
            decimal_point=",",
            quoted_strings_can_be_null=True,
        )
        if commas:
            notes.append(f"commas are decimal points in {listed(commas)}")
    # A code such as 01234 is no number, and a time of day is text as it was written.
    codes = [
        n
        for n in wanted
        if (table[n].type == pa.int64() and n not in whole) or pa.types.is_time(table[n].type)
    ]
    types = dict.fromkeys(codes, words)
    table = replaced(
        table,
        codes,
        types,
        lambda c: any_match(pa, c, r"^\s*[+-]?0\d|:"),
        quoted_strings_can_be_null=True,
    )
    for i, name in enumerate(names):
        if not header[i] and name in table.column_names:
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
    """Return how many quotes there are in a file; raise ValueError unless it is text in UTF-8."""
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
                f"expected closed quotes in {path.name}; got {error} after line {last:,}"
            ) from error


def _header(path: Path) -> tuple[str, list[str], int]:
    """Return a CSV file's delimiter, its first line's cells, and how many lines are empty before
    that."""
    best: tuple[tuple[bool, int], str, list[str], int] | None = None
    for delimiter in "\t,;|" if path.suffix.lower() == ".tsv" else ",;\t|":
        head = []
        # of a quote that is not closed, which another delimiter may explain, or _refuse_lines tells
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
        raise ValueError(f"expected a first line of column names in {path.name}; got none")
    return best[1:]


def _refuse_lines(path: Path, delimiter: str, width: int) -> None:
    """Raise ValueError if a line has more or fewer cells than there are names, a quote is not
    closed, or there are no lines."""
    lines = 0
    for at, row in _lines(path, delimiter):
        lines += bool(row)
        if row and len(row) != width:
            raise ValueError(
                f"expected {width} cells in every line of {path.name}; got {len(row)} in line "
                f"{at:,}"
            )
    if lines < 2:
        raise ValueError(f"expected rows of data in {path.name}; got column names alone")
