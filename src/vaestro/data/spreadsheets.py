"""Read spreadsheets of Excel as Arrow tables.

The cells of a sheet are written as the text of a CSV file and read as such, so that titles, footers
and types of columns are recognised in the same way.
"""

from __future__ import annotations

import csv
import datetime
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from vaestro.data.choosing import Wanted
from vaestro.data.csv_tables import read_csv
from vaestro.data.text_files import TextFile
from vaestro.text import InputError, nearest, unquoted

if TYPE_CHECKING:
    import pyarrow


def read_spreadsheet(pa: ModuleType, path: Path, wanted: Wanted) -> pyarrow.Table:
    """Read one sheet of an .xlsx file: the first one, or the one that `sheet=` names.

    Args:
        pa: PyArrow.
        path: of the file.
        wanted: its columns that are read.

    Raises:
        ValueError: openpyxl is not installed, the file is damaged, or there is no such sheet.

    >>> import openpyxl, pyarrow.csv
    >>> book = openpyxl.Workbook()
    >>> for row in (["a", "b"], [1, True], [2, None]):
    ...     book.active.append(row)
    >>> book.save("t.xlsx")
    >>> read_spreadsheet(pyarrow, Path("t.xlsx"), Wanted("t.xlsx")).to_pylist()
    [{'a': 1, 'b': 'true'}, {'a': 2, 'b': ''}]
    """
    try:
        import openpyxl
        from openpyxl.utils.exceptions import InvalidFileException
    except ImportError as error:
        raise ValueError(
            f"expected the extra vaestro[tables] to read {path.suffix}; got an installation "
            f"without openpyxl"
        ) from error
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except (InvalidFileException, KeyError, ValueError) as error:
        raise InputError(f"{path} is damaged, or no {path.suffix} file: save it again") from error
    try:
        rows = [
            list(row) for row in book[_sheet(book.sheetnames, wanted)].iter_rows(values_only=True)
        ]
    finally:
        book.close()
    content = _as_csv(rows)
    text = TextFile(path, content=content, length=len(content), tail=content)
    return read_csv(pa, text, wanted)


def _sheet(names: Sequence[str], wanted: Wanted) -> str:
    """Return the name of the sheet that is read."""
    if "sheet" in wanted.options:
        name = unquoted(str(wanted.options["sheet"]))
        if name not in names:
            raise ValueError(
                f"expected sheet= to name a sheet of {wanted.where}: {nearest(name, names)}; got "
                f"{name!r}"
            )
        return name
    if len(names) > 1:
        wanted.notes.append(
            f"read the first sheet, {names[0]!r}; sheet=NAME reads another one: "
            f"{', '.join(map(repr, names[1:5]))}{', ..' if len(names) > 5 else ''}"
        )
    return names[0]


def _as_csv(rows: Iterable[Sequence[object]]) -> bytes:
    """Return the rows of a sheet as a CSV file. Lines above the widest one are titles, whose empty
    cells at the end are left out."""
    cells = [[_text(value) for value in row] for row in rows]
    filled = [max((i + 1 for i, cell in enumerate(row) if cell), default=0) for row in cells]
    width = max(filled, default=0)
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    above = True
    for row, count in zip(cells, filled, strict=True):
        above = above and count < width
        if count:
            writer.writerow(row[:count] if above else [*row, *[""] * width][:width])
        else:
            file.write("\n")
    return file.getvalue().encode()


def _text(value: object) -> str:
    """Return the text of a cell as a CSV file has it."""
    if value is None or (
        isinstance(value, str) and value.startswith("#") and value[-1:] in "!?AN0"
    ):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime.datetime):
        return value.isoformat(" ") if value.time() != datetime.time() else str(value.date())
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value).strip()
