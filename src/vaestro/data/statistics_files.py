"""Read files of Stata and SAS as Arrow tables, by pandas."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from vaestro.data.choosing import Wanted, numbered
from vaestro.data.refusals import first_names
from vaestro.text import InputError, one_line, typed

if TYPE_CHECKING:
    import pandas
    import pyarrow


def read_stata(pa: ModuleType, path: Path, wanted: Wanted) -> pyarrow.Table:
    """Read a .dta file. Labelled values are categories, in the order of their codes.

    Args:
        pa: PyArrow.
        path: of the file.
        wanted: its columns that are read.

    Raises:
        ValueError: pandas is not installed, or the file is damaged.

    >>> import pandas, pyarrow
    >>> pandas.DataFrame({"a": [1.5, 2.5]}).to_stata("t.dta", write_index=False)
    >>> read_stata(pyarrow, Path("t.dta"), Wanted("t.dta")).to_pylist()
    [{'a': 1.5}, {'a': 2.5}]
    """
    pandas = _pandas(path)
    try:
        labelled = pandas.read_stata(path)
        codes = pandas.read_stata(path, convert_categoricals=False)
    except (ValueError, KeyError, OSError, UnicodeError) as error:
        raise InputError(f"{path} is damaged, or no .dta file ({one_line(error)})") from error
    categories, partly = [], []
    for name in labelled.columns[labelled.dtypes == "category"]:
        if all(isinstance(label, str) for label in labelled[name].cat.categories):
            categories.append(name)
            codes[name] = labelled[name].cat.as_unordered()
        else:
            partly.append(name)
    if categories:
        wanted.notes.append(
            f"the labelled values of {first_names(categories)} are categories; "
            f"{typed('ordinal', categories[0])} orders them by their codes"
        )
    if partly:
        wanted.notes.append(
            f"only some values of {first_names(partly)} are labelled: read as numbers"
        )
    return _as_arrow(pa, codes, wanted)


def read_sas(pa: ModuleType, path: Path, wanted: Wanted) -> pyarrow.Table:
    """Read a .sas7bdat or .xpt file.

    Args:
        pa: PyArrow.
        path: of the file.
        wanted: its columns that are read; the option `encoding` is that of text.

    Raises:
        ValueError: pandas is not installed, or the file is damaged.
    """
    pandas = _pandas(path)
    encoding = str(wanted.options.get("encoding", "utf-8"))
    try:
        table = pandas.read_sas(path, encoding=encoding)
    except (ValueError, KeyError, OSError, UnicodeError, IndexError) as error:
        raise InputError(
            f"{path} is damaged, no {path.suffix} file, or in another encoding: try "
            f"encoding=latin-1 ({one_line(error)})"
        ) from error
    return _as_arrow(pa, table, wanted)


def _pandas(path: Path) -> ModuleType:
    try:
        import pandas
    except ImportError as error:
        raise ValueError(
            f"expected the extra vaestro[tables] to read {path.suffix}; got an installation "
            f"without pandas"
        ) from error
    return pandas


def _as_arrow(pa: ModuleType, table: pandas.DataFrame, wanted: Wanted) -> pyarrow.Table:
    """Return the columns of a DataFrame that are read; whole numbers with empty cells, which these
    files store as floats, are whole numbers."""
    names = numbered([str(name) for name in table.columns], wanted.notes)
    table = table.set_axis(names, axis=1)[wanted.of(names)]
    for name in table.columns[table.dtypes == "float64"]:
        cells = table[name]
        if cells.isna().any() and (cells.dropna() % 1 == 0).all() and (cells.abs().max() < 2**53):
            table[name] = cells.astype("Int64")
    return pa.Table.from_pandas(table, preserve_index=False)
