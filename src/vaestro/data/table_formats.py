"""The formats of tables: a row for each, with its suffixes and the function that reads it as an
Arrow table.

`FORMATS` decides which files are tables. A new format is one row and its function.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, final

from vaestro.data.choosing import Wanted, numbered
from vaestro.data.csv_tables import read_csv
from vaestro.data.databases import read_database
from vaestro.data.json_tables import read_json
from vaestro.data.spreadsheets import read_spreadsheet
from vaestro.data.statistics_files import read_sas, read_stata
from vaestro.data.text_files import COMPRESSIONS, text_file, unpacked_suffix, zip_members
from vaestro.storage import in_utf8
from vaestro.text import InputError, alternatives, nearest, typed, unquoted

if TYPE_CHECKING:
    import pyarrow


@final
@dataclass(frozen=True)
class TableFormat:
    """Describe a format of tables.

    Args:
        suffixes: of its files.
        read: reads a file as an Arrow table.
        text: whether it is text, which may be compressed, in a zip file or in another encoding.
        inferred: whether the types of columns are inferred, since the file declares none.
    """

    suffixes: tuple[str, ...]
    read: Callable[[ModuleType, Path, Wanted], pyarrow.Table]
    text: bool = False
    inferred: bool = False


def _csv(pa: ModuleType, path: Path, wanted: Wanted) -> pyarrow.Table:
    return read_csv(pa, text_file(path, wanted.options, wanted.notes, wanted.member), wanted)


def _json(pa: ModuleType, path: Path, wanted: Wanted) -> pyarrow.Table:
    table = read_json(pa, text_file(path, wanted.options, wanted.notes, wanted.member))
    return table.select(wanted.of(table.column_names))


def _parquet(pa: ModuleType, path: Path, wanted: Wanted) -> pyarrow.Table:
    with in_utf8(path) as name, pa.parquet.ParquetFile(name) as file:
        names = file.schema_arrow.names
        if len(set(names)) < len(names):
            return _selected(file.read(), wanted)
        columns = wanted.of(names)
        return file.read(columns=columns).select(columns)  # read("a") returns a.b too


def _feather(pa: ModuleType, path: Path, wanted: Wanted) -> pyarrow.Table:
    import pyarrow.ipc as ipc

    with in_utf8(path) as name, pa.memory_map(str(name)) as file:
        try:
            table = ipc.open_file(file).read_all()
        except pa.ArrowInvalid:  # a stream without an index at its end
            file.seek(0)
            table = ipc.open_stream(file).read_all()
        return _selected(table, wanted)


def _orc(pa: ModuleType, path: Path, wanted: Wanted) -> pyarrow.Table:
    import pyarrow.orc as orc

    with in_utf8(path) as name:
        return _selected(orc.read_table(name), wanted)


def _selected(table: pyarrow.Table, wanted: Wanted) -> pyarrow.Table:
    """Return the columns of a table that are read."""
    names = numbered(table.column_names, wanted.notes)
    return table.rename_columns(names).select(wanted.of(names))


FORMATS = (
    TableFormat((".csv", ".tsv", ".tab"), _csv, text=True, inferred=True),
    TableFormat((".json", ".jsonl", ".ndjson"), _json, text=True, inferred=True),
    TableFormat((".parquet",), _parquet),
    TableFormat((".feather", ".arrow"), _feather),
    TableFormat((".orc",), _orc),
    TableFormat((".xlsx", ".xlsm"), read_spreadsheet, inferred=True),
    TableFormat((".db", ".sqlite", ".sqlite3"), read_database, inferred=True),
    TableFormat((".dta",), read_stata),
    TableFormat((".sas7bdat", ".xpt"), read_sas),
)
OF_SUFFIX = {suffix: row for row in FORMATS for suffix in row.suffixes}
PACKED = tuple(suffix for row in FORMATS if row.text for suffix in row.suffixes)
# formats that are not read, and what to do
OTHERS = {
    ".xls": "save it as .xlsx or .csv",
    ".xlsb": "save it as .xlsx or .csv",
    ".ods": "save it as .xlsx or .csv",
    ".numbers": "export it as .xlsx or .csv",
    ".sav": "save it as .dta or .csv, in SPSS or with R's haven",
    ".rds": "save it as .csv or .parquet, in R",
    ".rdata": "save it as .csv or .parquet, in R",
    ".pkl": "it is never unpickled: save it as .parquet with DataFrame.to_parquet",
    ".pickle": "it is never unpickled: save it as .parquet with DataFrame.to_parquet",
    ".mdb": "export the table as .csv",
    ".accdb": "export the table as .csv",
}


def suffixes_in_words() -> str:
    """Return the suffixes of tables for a message.

    >>> suffixes_in_words().split(", ")[:2]
    ['.csv', '.tsv']
    """
    return f"{', '.join(OF_SUFFIX)} ({alternatives(PACKED)} also with .gz, .bz2, .xz, .zst or .zip)"


def is_table(path: Path) -> bool:
    """Return whether a file is a table, by its suffix, or by the names in a zip file.

    >>> is_table(Path("t.csv.gz")), is_table(Path("x.npy"))
    (True, False)
    """
    suffix = path.suffix.lower()
    if suffix in OF_SUFFIX or suffix in OTHERS:
        return True
    if suffix not in COMPRESSIONS:
        return False
    if unpacked_suffix(path) in OF_SUFFIX:
        return True
    return suffix == ".zip" and path.exists() and bool(_tables_in(path))


def _tables_in(path: Path) -> list[str]:
    return [name for name in zip_members(path) if Path(name).suffix.lower() in OF_SUFFIX]


def format_of(path: Path, wanted: Wanted) -> tuple[TableFormat, Wanted]:
    """Return the format of a file, and the columns that are read with the member of a zip file.

    Raises:
        ValueError: the format is not read, or a zip file does not contain exactly one table.

    >>> format_of(Path("t.csv.gz"), Wanted("t.csv.gz"))[0].suffixes
    ('.csv', '.tsv', '.tab')
    """
    suffix = path.suffix.lower()
    if suffix in OTHERS:
        raise InputError(f"{path.name} cannot be read: {OTHERS[suffix]}")
    if suffix == ".zip":
        wanted = wanted.in_zip(_member(path, wanted))
        suffix = Path(wanted.member).suffix.lower()
    elif suffix in COMPRESSIONS:
        suffix = unpacked_suffix(path)
    row = OF_SUFFIX[suffix]
    if path.suffix.lower() in COMPRESSIONS and not row.text:
        what = f"{wanted.member} in {path.name}" if wanted.member else path.name
        raise InputError(f"{what} is compressed, and only text is read so: unpack it first")
    return row, wanted


def _member(path: Path, wanted: Wanted) -> str:
    """Return the name of the table in a zip file."""
    names, tables = zip_members(path), _tables_in(path)
    if "member" in wanted.options:
        name = unquoted(str(wanted.options["member"]))
        if name not in tables:
            raise ValueError(
                f"expected member= to name a table in {path.name}: {nearest(name, tables)}; got "
                f"{name!r}"
            )
        return name
    if len(tables) == 1:
        others = [name for name in names if name not in tables]
        if others:
            wanted.notes.append(
                f"read {tables[0]} of {path.name}; left out {', '.join(others[:3])}"
            )
        return tables[0]
    if not tables:
        raise ValueError(
            f"expected a table in {path.name}, {suffixes_in_words()}; got "
            f"{', '.join(names[:5]) or 'an empty archive'}"
        )
    raise ValueError(
        f"expected one table in {path.name}; got {', '.join(tables[:5])}: choose one with "
        f"{typed('member', tables[0])}"
    )
