"""Read tables and write them.

Every format becomes an Arrow table first and a Frame then, so that a column means the same wherever
it came from: NaN, null and empty text are empty cells. What each column is, `data.kinds` says.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
import zipfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from vaestro.data.raw import Raw
from vaestro.data.refusals import Unfit, listed, refuse
from vaestro.frames import Frame
from vaestro.spaces import Space
from vaestro.text import few, nearest, one_line, split_names, unquoted

SUFFIXES = (".csv", ".tsv", ".parquet", ".json", ".jsonl")
EMPTY = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "?", "-")
SPLITS = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "validation": "valid",
    "val": "valid",
    "test": "test",
}
LARGEST_TEXT = 2**30  # bytes of one column
CHUNK = 65536  # rows


def _arrow(what: str) -> Any:
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.csv
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError(
            f"expected the extra vaestro[tables] to {what}; got an installation without it"
        ) from error
    return pyarrow


# -- files -> frames -------------------------------------------------------------------------------


def read_table(
    path: Path,
    options: Mapping[str, Any],
    *,
    columns: Collection[str] | None = None,
    text: Collection[str] = (),
) -> Raw:
    """Read a .csv, .tsv, .parquet, .json or .jsonl file into a Frame.

    Args:
        path: the file; its suffix says the format.
        options: `ignore` names columns to leave out, joined by +; `split` names the column that
            says which rows are train, valid and test, which then are the splits, and not "all".
        columns: read only these, as far as there are such; by default all.
        text: columns that a CSV file holds as text, whatever they look like.

    Raises:
        ValueError: the file is damaged or no table, a column cannot be data, or an option names no
            column.
    """
    suffix = path.suffix.lower()
    pa = _arrow(f"read {suffix}")
    notes: list[str] = []
    if columns is not None and "split" in options:
        columns = {*columns, unquoted(str(options["split"]))}
    try:
        if suffix in (".csv", ".tsv"):
            table = _read_csv(pa, path, options, columns, text, notes)
        elif suffix == ".parquet":
            with pa.parquet.ParquetFile(path) as file:
                wanted = _wanted(file.schema_arrow.names, options, columns, path.name)
                table = file.read(columns=wanted).select(wanted)  # asked for a, it gives a.b too
        else:
            table = _read_json(pa, path)
            table = _dated(
                pa, table.select(_wanted(table.column_names, options, columns, path.name))
            )
        frame = _frame(pa, table, path.name, notes, options.get("ignore"))
    except (pa.ArrowException, OSError, ValueError, RecursionError) as error:
        if str(error).startswith("expected"):
            raise
        raise ValueError(
            f"expected a readable {suffix} file; got {path}, which is damaged or cut short "
            f"({one_line(error)})"
        ) from error
    if "split" not in options:
        return Raw({"all": frame}, {"all": {}}, tuple(notes))
    splits = _splits(frame, str(options["split"]), path.name)
    return Raw(splits, {name: {} for name in splits}, tuple(notes))


def named(options: Mapping[str, Any], key: str, names: Collection[str], where: str) -> list[str]:
    """Return the columns that an option names, joined by + and in quotes where they need them, or
    as a list.

    Raises:
        ValueError: there is no such column.
    """
    value = options.get(key, ())
    text = str(value)
    pieces = (
        [str(v) for v in value]
        if isinstance(value, (list, tuple))
        else [text]
        if text in names
        else split_names(text)
    )
    for name in pieces:
        if name not in names:
            raise ValueError(
                f"expected {key}= to name a column of {where}: {nearest(name, few(name, names))}; "
                f"got {name!r}"
            )
    return pieces


def _wanted(
    names: Sequence[str], options: Mapping[str, Any], columns: Collection[str] | None, where: str
) -> list[str]:
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise ValueError(f"expected columns of different names in {where}; got {twice[0]!r} twice")
    if columns is not None:
        found = [name for name in names if name in columns]
        if not found:
            raise ValueError(
                f"expected columns {listed(list(columns))} in {where}; got {listed(names, 9)}"
            )
        return found
    ignored = named(options, "ignore", names, where) if "ignore" in options else []
    if len(ignored) == len(names):
        raise ValueError(f"expected ignore= to leave a column of {where}; got {', '.join(ignored)}")
    return [name for name in names if name not in ignored]


def _splits(frame: Frame, column: str, where: str) -> dict[str, Frame]:
    (column,) = named({"split": [unquoted(column)]}, "split", frame.columns, where)
    values = np.ma.getdata(frame.columns[column]).astype(str)
    rest = Frame({name: cells for name, cells in frame.columns.items() if name != column})
    words, codes = np.unique(values, return_inverse=True)
    strange = ["empty cells"] if np.ma.is_masked(frame.columns[column]) else []
    strange += [repr(str(word)) for word in words if word.strip().lower() not in SPLITS]
    if strange:
        raise ValueError(
            f"expected train, valid or test in column {column!r} of {where}; got {strange[0]}"
        )
    splits = np.array([SPLITS[word.strip().lower()] for word in words])[codes.ravel()]
    if not (splits == "train").any() or not rest.columns:
        raise ValueError(
            f"expected rows for training and other columns beside {column!r} in {where}; got none"
        )
    return {
        name: rest[splits == name] for name in ("train", "valid", "test") if (splits == name).any()
    }


# -- CSV -------------------------------------------------------------------------------------------


def _read_csv(
    pa: Any,
    path: Path,
    options: Mapping[str, Any],
    columns: Collection[str] | None,
    text: Collection[str],
    notes: list[str],
) -> Any:
    quotes = _check_text(path)
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
    wanted = _wanted(names, options, columns, path.name)
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
            if table[n].type == words and _all(pa, table[n], r"^\s*[+-]?\d+(,\d+)?\s*$")
        ]
        # 1,234 could be a thousand
        commas = [n for n in commas if not _all(pa, table[n], r"^[^,]*(,\d{3})?$")]
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
        lambda c: _any(pa, c, r"^\s*[+-]?0\d|:"),
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


def _any(pa: Any, column: Any, pattern: str) -> bool:
    return bool(pa.compute.any(pa.compute.match_substring_regex(column, pattern)).as_py())


def _all(pa: Any, column: Any, pattern: str) -> bool:
    return bool(pa.compute.all(pa.compute.match_substring_regex(column, pattern)).as_py())


def _number(cell: str) -> bool:
    try:
        return bool(float(cell)) or True
    except ValueError:
        return False


def _check_text(path: Path) -> int:
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


# -- JSON ------------------------------------------------------------------------------------------


def _read_json(pa: Any, path: Path) -> Any:
    """Read an array of objects, or one object after the other, as JSON lines are."""
    _check_text(path)
    text = path.read_text("utf-8-sig")
    decode, gap = json.JSONDecoder().raw_decode, re.compile(r"[\s,]*")
    start = gap.match(text).end()  # type: ignore[union-attr]
    array = text[start : start + 1] == "["
    at, chunk, tables = start + array, [], []
    kind = "records, [{name: value, ..}, ..] or one a line"
    while True:
        at = gap.match(text, at).end()  # type: ignore[union-attr]
        ends = at == len(text) or (array and text[at] == "]")
        if not ends:
            record, at = decode(text, at)
            if not isinstance(record, dict):
                raise ValueError(
                    f"expected {kind}, in {path.name}; got {type(record).__name__} "
                    f"{str(record)[:30]!r}"
                )
            chunk.append(record)
        if chunk and (ends or len(chunk) == CHUNK):
            tables.append(_records(pa, chunk, path.name))
            chunk = []
        if ends:
            break
    if array and text[at:].strip() != "]":
        raise ValueError(
            f"expected {kind}, in {path.name}; got "
            f"{'no end' if at == len(text) else 'more after the array'}"
        )
    if not tables:
        raise ValueError(f"expected {kind}, in {path.name}; got none")
    if (
        len(tables) == 1
        and tables[0].num_rows == 1
        and all(pa.types.is_nested(c.type) for c in tables[0].columns)
    ):
        raise ValueError(f"expected {kind}, in {path.name}; got one object of columns")
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise ValueError(
            f"expected values of one type in each column of {path.name}; got others "
            f"({str(error)[:100]})"
        ) from error


def _records(pa: Any, rows: list[dict[str, Any]], where: str) -> Any:
    columns = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        try:
            columns[name] = pa.array([row.get(name) for row in rows])
        except (pa.ArrowException, OverflowError) as error:
            raise ValueError(
                f"expected values of one type in column {name!r} of {where}; got others "
                f"({str(error)[:80]})"
            ) from error
    return pa.table(columns)


def _dated(pa: Any, table: Any) -> Any:
    """Turn text columns of ISO dates into dates, as a CSV file's are."""
    for i, name in enumerate(table.column_names):
        if table[name].type == pa.string() and _all(
            pa, pa.compute.drop_null(table[name]), r"^\d{4}-\d\d-\d\d([T ]\d\d:|$)"
        ):
            for kind in (pa.timestamp("us"), pa.timestamp("us", "UTC")):
                try:
                    table = table.set_column(i, name, table[name].cast(kind))
                    break
                except pa.ArrowInvalid:
                    continue
    return table


# -- Arrow and Python -> frames --------------------------------------------------------------------


def _frame(pa: Any, table: Any, where: str, notes: list[str], ignored: Any = None) -> Frame:
    """Turn an Arrow table into a Frame, column by column."""
    # where pandas keeps row labels
    names = [n for n in table.column_names if not re.fullmatch(r"__index_level_\d+__", n)]
    if not names or not table.num_rows:
        raise ValueError(f"expected rows of data in {where}; got none")
    wrong = [n for n in names if pa.types.is_nested(table[n].type)]
    unfit: list[tuple[Unfit, Sequence[str]]] = []
    if wrong:
        unfit.append(
            (Unfit(f"plain cells in {where}", f"lists or structures in {listed(wrong, 9)}"), wrong)
        )
    columns = {}
    for name in names:
        if name in wrong:
            continue
        try:
            columns[name] = _cells(pa, table[name], name, where, notes)
        except Unfit as error:
            unfit.append((error, [name]))
    refuse(unfit, where, ignored)
    return Frame(columns)


def _cells(pa: Any, column: Any, name: str, where: str, notes: list[str]) -> np.ma.MaskedArray:
    """Turn an Arrow column into one of a Frame."""
    t = pa.types
    if t.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind, empty = column.type, column.is_null().to_numpy()
    if t.is_timestamp(kind) and kind.tz is not None:
        notes.append(f"the times in {name} are in UTC")
    if t.is_null(kind):
        data = np.zeros(len(column))
    elif t.is_boolean(kind):
        data = column.fill_null(False).to_numpy()
    elif t.is_integer(kind) or t.is_float32(kind) or t.is_float64(kind):
        data = column.fill_null(0).to_numpy()
    elif t.is_float16(kind) or t.is_decimal(kind):
        data = column.cast(pa.float64()).fill_null(0).to_numpy()
        data = data.astype(np.float16) if t.is_float16(kind) else data
    elif t.is_date(kind) or t.is_timestamp(kind):
        data = column.cast(pa.timestamp("us"), safe=False).fill_null(0).to_numpy()
    elif t.is_time(kind) or str(kind) in ("string", "large_string", "string_view"):
        data = _words(pa, column.cast(pa.large_string()), name, where)
    else:
        raise Unfit(f"numbers, text, truth values or dates in {where}", f"{kind} in {name!r}")
    return _masked(data, empty, name, where)


def _words(pa: Any, column: Any, name: str, where: str) -> np.ndarray:
    """Turn an Arrow column of text into an array of str; each word is turned once."""
    coded = column.dictionary_encode().unify_dictionaries().combine_chunks()
    longest = pa.compute.max(pa.compute.utf8_length(coded.dictionary)).as_py() or 0
    if 4 * longest * len(column) > LARGEST_TEXT:
        raise Unfit(
            f"names of categories in column {name!r} of {where}",
            f"text of up to {longest:,} letters",
        )
    words = np.array(coded.dictionary.to_pylist() or [""], dtype=str)
    return words[coded.indices.fill_null(0).to_numpy(zero_copy_only=False)]


def _masked(data: np.ndarray, empty: np.ndarray, name: str, where: str) -> np.ma.MaskedArray:
    """Return a column of a Frame: NaN, NaT and empty text are empty cells, and dates are days
    unless some are not midnight."""
    kind = data.dtype.kind
    if kind == "f":
        empty = empty | np.isnan(data)
        infinite = int((np.isinf(data) & ~empty).sum())
        if infinite:
            raise Unfit(f"finite numbers in column {name!r} of {where}", f"{infinite:,} infinite")
    elif kind == "M":
        empty = empty | np.isnat(data)
        days = data.astype("datetime64[D]")
        data = days if (empty | (days == data)).all() else data.astype("datetime64[us]")
    elif kind == "U":
        empty = empty | (data == "")
    if not empty.any():
        return np.ma.MaskedArray(data)
    data = data.copy()
    data[empty] = np.zeros((), data.dtype)
    return np.ma.MaskedArray(data, empty)


def frame_of(columns: Any, where: str = "the table") -> Frame:
    """Make a Frame from {name: array or list}, a DataFrame or an Arrow table; None, NaN and empty
    text are empty cells.

    Args:
        columns: arrays, masked arrays or lists (N,) by name; or what gives Arrow data, as
            DataFrames do.
        where: what to call it in errors.

    Raises:
        ValueError: columns are of different lengths, have more than one dimension, or hold what is
            no data.
    """
    if hasattr(columns, "__arrow_c_stream__") or hasattr(columns, "columns"):
        pa = _arrow("take a DataFrame")
        try:
            table = pa.table(columns)
        except pa.ArrowException as error:
            raise ValueError(
                f"expected values of one type in each column of {where}; got others "
                f"({str(error.args[0])[:100]})"
            ) from error
        _wanted(table.column_names, {}, None, where)
        return _frame(pa, table, where, [])
    if not isinstance(columns, Mapping) or not columns:
        raise ValueError(
            f"expected columns as {{name: values}}; got "
            f"{'none' if isinstance(columns, Mapping) else type(columns).__name__}"
        )
    made = {str(name): _column_of(values, str(name), where) for name, values in columns.items()}
    sizes = {len(values) for values in made.values()}
    if len(sizes) > 1 or 0 in sizes:
        raise ValueError(
            f"expected columns of one length, not 0, in {where}; got "
            f"{', '.join(map(str, sorted(sizes)))}"
        )
    return Frame(made)


def _column_of(values: Any, name: str, where: str) -> np.ma.MaskedArray:
    if isinstance(values, str) or not hasattr(values, "__len__"):
        raise ValueError(
            f"expected an array or a list in column {name!r} of {where}; got "
            f"{type(values).__name__}"
        )
    # Beside None, lists of lists stay objects.
    array = (
        np.asanyarray(values)
        if hasattr(values, "__array__")
        else np.array([*values, None], object)[:-1]
    )
    empty = np.ma.getmaskarray(array)
    array = np.ma.getdata(array)
    if array.dtype.kind == "O" and array.ndim == 1:
        gone = [
            v is None
            or type(v).__name__ in ("NAType", "NaTType")
            or (isinstance(v, float) and v != v)
            for v in array
        ]
        empty = empty | np.array(gone, bool)
        there = _typed(array[~empty].tolist())
        array = np.zeros(len(array), there.dtype) if there.ndim == 1 else there
        if there.ndim == 1:
            array[~empty] = there
    if array.ndim != 1 or array.dtype.kind not in "biufUM":
        what = (
            f"shape {array.shape}"
            if array.ndim > 1
            else f"values of type {array.dtype}"
            if array.ndim
            else "mixed or other values"
        )
        raise ValueError(
            f"expected numbers, text, truth values or dates (N,) in column {name!r} of {where}; "
            f"got {what}"
        )
    return _masked(array, empty, name, where)


def _typed(values: list[Any]) -> np.ndarray:
    """Turn Python values of one type into an array (N,); others into an array without
    dimensions."""
    kinds = {
        np.array(v, None if np.isscalar(v) else object).dtype.kind
        for v in {type(v): v for v in values}.values()
    }
    try:
        if kinds == {"O"}:
            return np.array(values, "datetime64[us]")
        return np.array(values) if len(kinds) == 1 or kinds <= set("iuf") else np.array(None)
    except (ValueError, TypeError, OverflowError):
        return np.array(None)


# -- conditions ------------------------------------------------------------------------------------


def condition_columns(
    given: Space | None, values: Mapping[str, Any], n: int
) -> dict[str, np.ma.MaskedArray]:
    """Return one value for each of some conditions as columns of a table, each (n,).

    Args:
        given: the space of a model's conditions; None without.
        values: {name: value}, the value as the user's data have it, or as text.
        n: for how many rows.

    Raises:
        ValueError: there is no such condition, or its column can hold no such value.
    """
    if given is None and values:
        raise ValueError(
            f"expected no conditions for a model trained without any; got {', '.join(values)}"
        )
    known = {} if given is None else {c.name: c for c in given.columns}
    unknown = [name for name in values if name not in known]
    if unknown:
        raise ValueError(
            f"expected a condition of the model: {nearest(unknown[0], known)}; got {unknown[0]!r}"
        )
    return {
        name: np.ma.MaskedArray(np.repeat(c.typed(values[name]), n))
        for name, c in known.items()
        if name in values
    }


# -- writing ---------------------------------------------------------------------------------------


def write_frame(path: Path, frame: Frame, suffix: str = "") -> None:
    """Write a table to .csv, .tsv, .parquet, .json (an array of records), .jsonl or .npz (one array
    for each column).

    Empty cells stay empty. An .npz file has NaN there (whole numbers become float64), NaT among
    dates and "" among text.

    Args:
        path: the file, which is overwritten.
        frame: the table.
        suffix: the format; by default the path's.

    Raises:
        ValueError: the suffix names no format of a table.
    """
    suffix = suffix or path.suffix.lower()
    if suffix == ".npz":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, values in frame.columns.items():
                part = io.BytesIO()
                np.save(part, _unmasked(values), allow_pickle=False)
                archive.writestr(f"{name}.npy", part.getvalue())
        return
    if suffix not in SUFFIXES:
        raise ValueError(
            f"expected a file of a table, {', '.join((*SUFFIXES, '.npz'))}; got {path}"
        )
    pa = _arrow(f"write {suffix}")
    if suffix in (".json", ".jsonl"):
        with path.open("w", encoding="utf-8") as file:
            file.write("[\n" if suffix == ".json" else "")
            for at, record in enumerate(_as_records(frame)):
                file.write((",\n" if suffix == ".json" else "\n") * (at > 0) + record)
            file.write("\n]\n" if suffix == ".json" else "\n")
        return
    table = pa.table(
        {
            name: pa.array(np.ma.getdata(values), mask=np.ma.getmaskarray(values))
            for name, values in frame.columns.items()
        }
    )
    if suffix == ".parquet":
        pa.parquet.write_table(table, path)
        return
    # an empty line would be none: "" is an empty cell
    if table.num_columns == 1 and table.column(0).null_count:
        table = table.set_column(
            0, table.column_names[0], table.column(0).cast(pa.string()).fill_null("")
        )
    pa.csv.write_csv(table, path, pa.csv.WriteOptions(delimiter="\t" if suffix == ".tsv" else ","))


def _unmasked(values: np.ma.MaskedArray) -> np.ndarray:
    data, empty = np.ma.getdata(values), np.ma.getmaskarray(values)
    if not empty.any() or data.dtype.kind == "U":
        return data
    data = data.astype(data.dtype if data.dtype.kind in "fM" else np.float64)
    data[empty] = np.datetime64("NaT") if data.dtype.kind == "M" else np.nan
    return data


def _as_records(frame: Frame) -> Iterator[str]:
    for start in range(0, len(frame), CHUNK):
        cells = []
        for values in frame[start : start + CHUNK].columns.values():
            data = np.ma.getdata(values)
            if data.dtype.kind == "M" or data.dtype.name in ("float16", "float32"):
                # dates as ISO text, and 0.1 of float32 with its own few digits
                data = data.astype(str)
            written = (data if values.dtype.kind != "f" else data.astype(np.float64)).astype(object)
            written[np.ma.getmaskarray(values)] = None
            cells.append(written.tolist())
        for row in zip(*cells, strict=True):
            yield json.dumps(dict(zip(frame.columns, row, strict=True)), ensure_ascii=False)
