"""The layout of a CSV file: its delimiter, the line of column names, title lines above it, and
footer lines below the last row."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn, final

from vaestro.data.raw import Options
from vaestro.data.text_files import TextFile
from vaestro.text import InputError, as_number

SAMPLED = 40  # lines from which the delimiter and the number of cells are found
FOOTERS = 5  # most lines that are recognised as a footer
REMARK = r"(sources?|quelle|notes?|remarks?|footnotes?|legend|updated|generated|exported|as of)\b"
TOTAL = r"(grand |sub)?-?(total|sum|summe|gesamt|somme|average|mean)s?:?"


@final
@dataclass(frozen=True)
class Line:
    """Hold a line of a CSV file: its number from 1, and its cells."""

    number: int
    cells: list[str]

    @property
    def filled(self) -> list[str]:
        """Return the cells that are not empty."""
        return [cell for cell in self.cells if cell.strip()]

    @property
    def comment(self) -> bool:
        """Return whether the line begins with #."""
        return self.cells[0].lstrip().startswith("#")


@final
@dataclass(frozen=True)
class Layout:
    """Describe where a CSV file has its rows.

    Args:
        delimiter: between cells.
        header: a cell for each column; empty without a name.
        above: the number of lines before the column names, or before the rows without names.
        named: whether the file has a line of column names.
        below: the bytes of the footer lines, as UTF-8.
    """

    delimiter: str
    header: list[str]
    above: int
    named: bool = True
    below: int = 0


def layout_of(file: TextFile, options: Options, notes: list[str]) -> Layout:
    """Return the layout of a CSV file.

    Args:
        file: the file.
        options: `skip` is the number of lines above the column names, `footer` that of lines below
            the last row; `header=false` says that there are no column names.
        notes: to which notes on lines that are left out are appended.

    Raises:
        ValueError: there is no line of column names, or it has another number of cells than the
            rows.

    >>> from pathlib import Path
    >>> from vaestro.data.text_files import text_file
    >>> _ = Path("t.csv").write_text("Report 2026\\n\\na;b\\n1;2\\n3;4\\nSource: a form\\n")
    >>> notes = []
    >>> layout_of(text_file(Path("t.csv"), {}, []), {}, notes).header
    ['a', 'b']
    >>> for note in notes:
    ...     print(note)
    left out 1 line above the column names, 'Report 2026'
    left out 1 line below the last row, 'Source: a form'
    """
    delimiter, lines = _sampled(file, options)
    if not lines:
        raise InputError(f"{file.name} has no line of column names: the file has no text")
    width = _width(lines)
    named = options.get("header", True) is not False
    at = _start(file, lines, width) if named and "skip" not in options else 0
    if at:
        notes.append(
            _left_out([line.cells for line in lines[:at]], "above the column names", "skip", width)
        )
    header = [cell.strip() for cell in lines[at].cells]
    if header[0].startswith("#") and len(header) > 1:
        header[0] = header[0].lstrip("# ") or header[0]
    if named and width == len(header) + 1 > 2:
        # a delimiter at the end of each row, or names of rows in a column without a name
        rows = [line.cells for line in lines[at + 1 :] if len(line.cells) == width]
        ends = not any(cells[-1].strip() for cells in rows)
        header = [*header, ""] if ends else ["", *header]
    below = _below(file, delimiter, max(width, len(header)), options, notes)
    if not named:
        header = [f"column {i + 1}" for i in range(max(width, len(header)))]
    return Layout(delimiter, header, lines[at].number - 1, named, below)


def csv_lines(file: TextFile, delimiter: str) -> Iterator[Line]:
    """Yield the lines of a CSV file; a cell in quotes may contain line breaks.

    Raises:
        ValueError: a quote is not closed.
    """
    with file.open() as stream, io.TextIOWrapper(stream, "utf-8", newline="") as text:
        reader = csv.reader(text, delimiter=delimiter, strict=True)
        last = 0
        try:
            for row in reader:
                yield Line(last + 1, row)
                last = reader.line_num
        except csv.Error as error:
            raise ValueError(
                f"expected closed quotes in {file.name} after line {last:,}; got {error}"
            ) from error


def refuse_lines(file: TextFile, layout: Layout) -> None:
    """Raise ValueError if a line has more or fewer cells than there are column names, a quote is
    not closed, or there are no rows."""
    rows, width = 0, len(layout.header)
    for line in csv_lines(file, layout.delimiter):
        if line.number <= layout.above or not line.cells:
            continue
        rows += 1
        if rows > layout.named and len(line.cells) != width and not line.comment:
            refuse_width(file, layout, line)
    if rows <= layout.named:
        raise InputError(f"{file.name} has column names but no rows")


def refuse_width(file: TextFile, layout: Layout, line: Line) -> NoReturn:
    """Raise ValueError for a line with another number of cells than there are columns."""
    width, count = len(layout.header), len(line.cells)
    mark = {"\t": "tab", ",": "comma", ";": "semicolon"}.get(layout.delimiter, layout.delimiter)
    advice = (
        f'put a cell that contains a {mark} in double quotes, as in "a{layout.delimiter} b", or '
        f"delete the line"
        if count > width
        else f"add a {mark} for each empty cell, or delete the line"
    )
    raise ValueError(
        f"expected {width} cells in every line of {file.name}; got {count} in line "
        f"{line.number:,}, {_shown(line.cells)}: {advice}"
    )


def _sampled(file: TextFile, options: Options) -> tuple[str, list[Line]]:
    """Return the delimiter of a CSV file and its first lines that are neither empty nor comments,
    from the first one that `skip` leaves."""
    skip = int(options.get("skip", 0))
    best: tuple[tuple[bool, float, int], str, list[Line]] | None = None
    suffix = file.path.suffixes[-2:] if file.path.suffix else []
    tabs = {".tsv", ".tab"} & {s.lower() for s in suffix}
    for delimiter in "\t,;|" if tabs else ",;\t|":
        lines: list[Line] = []
        # A quote that is not closed is an error only if no other delimiter explains it.
        with suppress(ValueError):
            for line in csv_lines(file, delimiter):
                if line.cells and line.number > skip:
                    lines.append(line)
                if len(lines) == SAMPLED:
                    break
        lines = _without_comments(lines)
        if lines:
            width = _width(lines)
            share = sum(len(line.cells) == width for line in lines) / len(lines)
            score = (width > 1, share if width > 1 else 0.0, width)
            if best is None or score > best[0]:
                best = score, delimiter, lines
    return ("", []) if best is None else best[1:]


def _without_comments(lines: Sequence[Line]) -> list[Line]:
    """Return lines without comments. A line of names may also begin with #."""
    start = next((i for i, line in enumerate(lines) if not line.comment), len(lines))
    if 0 < start < len(lines):
        last, row = lines[start - 1], lines[start]
        same = len(last.cells) == len(row.cells) > 1
        if same and _numbers(row) and not _numbers(last):
            start -= 1
    kept = list(lines[start:])
    width = _width(kept) if kept else 0
    return [line for line in kept if not line.comment or len(line.cells) == width]


def _width(lines: Sequence[Line]) -> int:
    """Return the number of cells of most lines; of several such numbers the largest."""
    counts = Counter(len(line.cells) for line in lines)
    return max(counts, key=lambda n: (counts[n], n))


def _numbers(line: Line) -> bool:
    return any(as_number(cell) is not None for cell in line.filled)


def _start(file: TextFile, lines: Sequence[Line], width: int) -> int:
    """Return which line has the column names; the ones before it are titles.

    Raises:
        ValueError: the first line has fewer cells than the rows, and is no title.
    """
    whole = [i for i, line in enumerate(lines) if _names_columns(line, width)]
    if not whole or whole[0] == 0 or len(lines[0].cells) > width:
        return 0
    at = whole[0]
    if all(len(line.filled) <= 2 and len(line.cells) < width for line in lines[:at]) or all(
        len(line.filled) <= 1 for line in lines[:at]
    ):
        short = len(lines[0].cells) == width - 1 and width > 2
        if not _numbers(lines[at]) and not (short and at == 1 and len(lines[0].filled) > 1):
            return at
    if len(lines[0].cells) in (width, width - 1):
        return 0  # some columns have no name, or only those with the names of rows
    raise ValueError(
        f"expected as many cells in the first line of {file.name} as in its rows, {width}; got "
        f"{len(lines[0].cells)}, {_shown(lines[0].cells)} (name every column, leave titles out "
        f"with skip=1, or read a file without names with header=false)"
    )


def _names_columns(line: Line, width: int) -> bool:
    """Return whether a line has a cell for each column, and is no title with empty cells."""
    title = width > 2 and len(line.filled) == 1 and bool(line.cells[0].strip())
    return len(line.cells) == width and not title


def _below(file: TextFile, delimiter: str, width: int, options: Options, notes: list[str]) -> int:
    """Return the number of bytes of the footer lines at the end of a file."""
    text = file.tail.decode("utf-8", "ignore")
    lines = text.splitlines(keepends=True)
    if len(file.tail) < file.length:
        lines = lines[1:]  # the first one is not complete
    asked = int(options["footer"]) if "footer" in options else None
    footers: list[list[str]] = []
    start = cut = len(lines)
    empty = 0
    while start > 1 and (asked is None or len(footers) < asked):
        start -= 1
        line = lines[start]
        if not line.strip():
            continue
        cells = next(csv.reader([line], delimiter=delimiter))
        if asked is None and width > 1 and not any(cell.strip() for cell in cells):
            empty += 1
        elif asked is not None or (
            len(footers) < FOOTERS and _footer(line, cells, lines[1:start], delimiter, width)
        ):
            footers.append(cells)
        else:
            break
        cut = start
    if empty:
        notes.append(f"left out {empty:,} empty row{'s' * (empty > 1)} at the end")
    if footers and asked is None:
        notes.append(_left_out(footers[::-1], "below the last row", "footer", width))
    return len("".join(lines[cut:]).encode())


def _footer(
    line: str, cells: Sequence[str], rest: Sequence[str], delimiter: str, width: int
) -> bool:
    """Return whether the last line of a file is no row: a sum, or a remark."""
    first, filled = cells[0].strip(), [cell for cell in cells if cell.strip()]
    if width < 2 or line.count('"') % 2 or not first or as_number(first) is not None:
        return False
    if first.startswith("#"):
        return False  # comments are left out in any line
    if re.fullmatch(TOTAL, first, re.IGNORECASE):
        return not any(row.split(delimiter)[0].strip() == first for row in rest)
    if re.match(REMARK, first, re.IGNORECASE) and ":" in first:
        return True
    remark = bool(re.search(r"[:\s]", first))
    return remark and (len(cells) < width or (len(filled) == 1 and width > 2))


def _shown(cells: Sequence[str]) -> str:
    """Return a line for a message, without empty cells at its end."""
    text = ", ".join(cell.strip() for cell in cells).rstrip(", ")
    return repr(text if len(text) <= 40 else text[:38] + "..")


def _left_out(lines: Sequence[Sequence[str]], where: str, option: str, width: int) -> str:
    """Return a note on lines that are left out, with the option that reads them if they have as
    many cells as the rows."""
    count = len(lines)
    what = "1 line" if count == 1 else f"{count} lines"
    shown = ", ".join(_shown(cells) for cells in lines[:2]) + (", .." if count > 2 else "")
    read = f"; {option}=0 reads {'it' if count == 1 else 'them'}"
    return f"left out {what} {where}, {shown}" + read * all(len(cells) == width for cells in lines)
