"""Files of tables: formats, encodings, lines that are no rows, and declared types of columns."""

import bz2
import collections
import dataclasses
import gzip
import io
import re
import sqlite3
import zipfile
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import numpy as np
import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.orc
import pytest

import vaestro as vs
from vaestro.data import tables
from vaestro.data.parsing import parse_cells
from vaestro.data.table_formats import OF_SUFFIX
from vaestro.data.tables import frame_of, write_frame
from vaestro.data.text_files import COMPRESSIONS
from vaestro.text import is_input_error


def read_table(path, options):
    """Read a file, and the text in its cells."""
    return parse_cells(tables.read_table(path, options), options, path.name)


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Write a file and read it as a table."""
    monkeypatch.chdir(tmp_path)

    def run(content, name="t.csv", **options):
        path = Path(name)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_table(path, options)

    return run


def cells(raw):
    return {name: column.tolist() for name, column in raw.splits["all"].columns.items()}


def refusal(run, *arguments, **options):
    with pytest.raises(ValueError) as error:
        run(*arguments, **options)
    assert is_input_error(error.value) and "\n" not in str(error.value)
    return str(error.value)


AB = {"a": [1, 2], "b": ["x", "y"]}


# -- compressed files and encodings ----------------------------------------------------------------


def zipped(**files):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, text in files.items():
            archive.writestr(name.replace("_", "."), text)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv.gz", gzip.compress(b"a,b\n1,x\n") + gzip.compress(b"2,y\n")),
        ("t.csv.bz2", bz2.compress(b"a,b\n1,x\n2,y\n")),
        ("t.csv.zst", pa.compress(b"a,b\n1,x\n2,y\n", "zstd", asbytes=True)),
        ("t.csv.zip", zipped(t_csv="a,b\n1,x\n2,y\n")),
        ("t.zip", zipped(t_jsonl='{"a": 1, "b": "x"}\n{"a": 2, "b": "y"}')),
        ("t.jsonl.gz", gzip.compress(b'{"a": 1, "b": "x"}\n{"a": 2, "b": "y"}\n')),
        ("t.tab", b"a\tb\n1\tx\n2\ty\n"),
        ("T.TSV.GZ", gzip.compress(b"a\tb\n1\tx\n2\ty\n")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # archives contain the time
)
def test_compressed_files_are_read(read, name, content):
    raw = read(content, name)
    assert cells(raw) == AB and raw.notes == ()
    with pytest.raises(ValueError, match="at least 10 rows"):
        vs.load(name)


def test_a_zip_file_has_one_table(read):
    assert refusal(read, zipped(notes_txt="x", photo_png="y"), "t.csv.zip").startswith(
        "expected a table in t.csv.zip, .csv, .tsv, "
    )
    both = zipped(a_csv="a\n1\n", b_csv="a,b\n1,x\n2,y\n")
    assert refusal(read, both, "t.zip") == (
        "expected one table in t.zip; got a.csv, b.csv: choose one with member=a.csv"
    )
    assert cells(read(both, "t.zip", member="b.csv")) == AB
    raw = read(zipped(a_csv="a,b\n1,x\n2,y\n", readme_txt="x"), "t.zip")
    assert cells(raw) == AB and raw.notes == ("read a.csv of t.zip; left out readme.txt",)


def test_encodings_are_detected(read):
    text = "name;größe\nJürgen;1,5\nZoë;2,5\n"
    expected = {"name": ["Jürgen", "Zoë"], "größe": [1.5, 2.5]}
    notes = {
        "utf-8": (),
        "utf-8-sig": (),
        "utf-16": ("read as UTF-16",),
        "utf-16-le": ("read as UTF-16",),
        "utf-16-be": ("read as UTF-16",),
        "utf-32": ("read as UTF-32",),
        "latin-1": (
            "read as Windows-1252 (Latin-1), since it is not UTF-8; encoding=NAME overrules this",
        ),
    }
    for encoding, note in notes.items():
        for name, packed in (("t.csv", bytes), ("t.csv.gz", gzip.compress)):
            raw = read(packed(text.encode(encoding)), name)
            assert cells(raw) == expected, encoding
            assert raw.notes[:-1] == note and "größe (1234,5)" in raw.notes[-1]
    russian = read("a,b\n1,мир\n2,дом\n".encode("cp1251"), encoding="cp1251")
    assert cells(russian)["b"] == ["мир", "дом"]
    mixed = "a,b\n1,é\n".encode() + "2,é\n".encode("latin-1")
    assert refusal(read, mixed) == (
        "expected text in UTF-8 in t.csv; got byte 0xe9 at 11 (save it again as UTF-8, or name its "
        "encoding with encoding=cp1252)"
    )
    assert refusal(read, b"a\n1\n", encoding="klingon").startswith("encoding=klingon is no known")
    assert "got other bytes" in refusal(read, b"a\n\xff\n", encoding="utf-8")


def test_a_large_file_is_not_held_in_memory(read, tmp_path):
    text = "a,b\n" + "1,x\n" * 2_000_000 + "Source: a form, 2026\n"
    frame = read(gzip.compress(text.encode(), 1), "t.csv.gz").splits["all"]
    assert len(frame) == 2_000_000 and frame.columns["a"].dtype == "int64"


# -- lines that are no rows ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("# made by a machine, in 2026\n# second\na,b\n1,x\n2,y\n", None),
        ("a,b\n1,x\n# a remark\n2,y\n# end\n", "left out 2 lines that begin with #"),
        ("#a,b\n1,x\n2,y\n", None),
        ("Report 2026\n\na,b\n1,x\n2,y\n", "left out 1 line above the column names, 'Report 2026'"),
        (
            "a,b\n1,x\n2,y\nSource: a form\n\n",
            "left out 1 line below the last row, 'Source: a form'",
        ),
        ("a,b\n1,x\n2,y\nTotal\n", "left out 1 line below the last row, 'Total'"),
        (
            "a,b\n1,x\n2,y\nTotal,3\nAs of: 2026\n",
            "left out 2 lines below the last row, 'Total, 3', 'As of: 2026'",
        ),
        ("a,b\n1,x,\n2,y,\n", "left out the column without a name, which is empty"),
        ("a,b\n1,1,x\n2,2,y\n", "left out the column without a name, which numbers the rows"),
    ],
)
def test_lines_that_are_no_rows_are_left_out(read, text, note):
    raw = read(text)
    assert cells(raw) == AB
    assert raw.notes == (() if note is None else (note,))


def test_titles_and_sums_of_spreadsheets(read):
    raw = read("Sales;;;\nwest;;;\nshop;day;n;x\na;1;2;0,5\nb;2;3;1,5\nTotal;;5;\n;;;\n")
    assert list(cells(raw)) == ["shop", "day", "n", "x"] and len(raw.splits["all"]) == 2
    assert raw.notes == (
        "left out 2 lines above the column names, 'Sales', 'west'; skip=0 reads them",
        "left out 1 empty row at the end",
        "left out 1 line below the last row, 'Total, , 5'; footer=0 reads it",
        "read as numbers, and written in the same format: x (1234,5) (category=x keeps words)",
    )


def test_lines_are_named_by_options(read):
    assert cells(read("x,y\n\nz,1\na,b\n1,x\n2,y\n", skip=3)) == AB
    assert cells(read("a,b\n1,x\n2,y\n3,z\n\n", footer=1)) == AB
    assert len(read("a,b\n1,x\n2,y\nTotal,3\n", footer=0).splits["all"]) == 3
    raw = read("1,x\n2,y\n", header=False)
    assert cells(raw) == {"column 1": [1, 2], "column 2": ["x", "y"]}
    assert "with header=false" in refusal(read, "1,2\n3,4\n")
    words = read("group,n\nTotal,1\nmen,2\nTotal,3\n")
    assert len(words.splits["all"]) == 3 and words.notes == (), "Total is a value of the column"


def test_lines_of_other_lengths_are_refused_with_what_to_do(read):
    assert refusal(read, "a,b\n1,x\n2,y, z\n3,w\n") == (
        "expected 2 cells in every line of t.csv; got 3 in line 3, '2, y, z': put a cell that "
        'contains a comma in double quotes, as in "a, b", or delete the line'
    )
    assert "add a semicolon for each empty cell" in refusal(read, "a;b;c\n1;2;3\n4;5\n6;7;8\n")
    assert refusal(read, "a,b\n1,2,3,4\n5,6,7,8\n").startswith(
        "expected as many cells in the first line of t.csv as in its rows, 4; got 2, 'a, b' (name "
    )


def test_names_that_occur_twice_are_numbered(read):
    raw = read("a,a,a.2,b,a\n1,2,3,4,5\n")
    assert list(cells(raw)) == ["a", "a.3", "a.2", "b", "a.4"]
    assert raw.notes == ("several columns are named a: numbered as a.3, a.4",)
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"])
    pa.parquet.write_table(twice, "t.parquet")
    assert cells(read_table(Path("t.parquet"), {})) == {"a": [1], "a.2": [2]}
    frame = frame_of(pd.DataFrame([[1, 2]], columns=["a", "a"]))
    assert list(frame.columns) == ["a", "a.2"]


# -- other formats ---------------------------------------------------------------------------------


def workbook(path, **sheets):
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    book.save(path)


def test_spreadsheets(tmp_path):
    day = pd.Timestamp("2026-03-01").to_pydatetime()
    rows = [
        ["Survey of 2026"],
        [],
        ["name", "age", "member", "day", "when", "code", "empty"],
        ["Ann", 31, True, day, day.replace(hour=5), "0311", None],
        ["Bob", None, False, day, day.replace(hour=6), "0042", None],
        ["Cleo", 2.0, None, day, day, "0311", "#N/A"],
        ["Source: a form"],
    ]
    workbook(tmp_path / "t.xlsx", people=rows, other=[["a", "b"], [1, "x"], [2, "y"]])
    raw = read_table(tmp_path / "t.xlsx", {})
    got = raw.splits["all"].columns
    assert got["age"].dtype == "int64" and got["age"].tolist() == [31, None, 2]
    assert got["member"].tolist() == [True, False, None]
    assert got["day"].dtype == "datetime64[D]" and got["when"].dtype == "datetime64[us]"
    assert got["code"].tolist() == ["0311", "0042", "0311"]
    assert got["empty"].mask.all()
    assert raw.notes == (
        "read the first sheet, 'people'; sheet=NAME reads another one: 'other'",
        "left out 1 line above the column names, 'Survey of 2026'",
        "left out 1 line below the last row, 'Source: a form'; footer=0 reads it",
    )
    assert cells(read_table(tmp_path / "t.xlsx", {"sheet": "other"})) == AB
    assert "expected sheet= to name a sheet of t.xlsx: 'other'" in refusal(
        read_table, tmp_path / "t.xlsx", {"sheet": "othr"}
    )
    (tmp_path / "bad.xlsx").write_bytes(b"junk")
    assert "is damaged" in refusal(read_table, tmp_path / "bad.xlsx", {})


def test_databases(tmp_path):
    path = tmp_path / "x.db"
    with closing(sqlite3.connect(path)) as base:
        base.executescript(
            """create table "my ages" (a integer, b text, ok boolean, day date, code text);
            insert into "my ages" values (1, 'x', 1, '2026-01-02', '07'), (2, 'y', 0, null, '12');
            create view old as select a, b from "my ages";"""
        )
    assert refusal(read_table, path, {}) == (
        "expected one table in x.db; got my ages, old: choose one with 'table=my ages'"
    )
    raw = read_table(path, {"table": "my ages"})
    assert cells(raw) == AB | {
        "ok": [True, False],
        "day": [pd.Timestamp("2026-01-02").date(), None],
        "code": ["07", "12"],
    }
    assert cells(read_table(path, {"table": '"old"'})) == AB
    assert "expected table= to name a table of x.db" in refusal(read_table, path, {"table": "z"})
    with closing(sqlite3.connect(path)) as base:
        base.execute("drop view old")
        base.commit()
    assert "code" in cells(read_table(path, {})), "the only table"
    (tmp_path / "bad.db").write_bytes(b"junk" * 99)
    assert "no SQLite database" in refusal(read_table, tmp_path / "bad.db", {})


def test_files_of_stata_and_arrow(tmp_path):
    table = pd.DataFrame(
        {
            "a": np.array([1, 2, 1], "int8"),
            "n": [1.0, np.nan, 3.0],
            "size": pd.Categorical(["small", "big", "small"], ["small", "big"]),
            "b": ["x", "y", "x"],
        }
    )
    table.to_stata(tmp_path / "t.dta", write_index=False)
    raw = read_table(tmp_path / "t.dta", {})
    frame = raw.splits["all"]
    assert frame.columns["a"].dtype == "int8" and frame.columns["n"].tolist() == [1, None, 3]
    assert frame.categories["size"] == ("small", "big") and not frame.orders
    assert raw.notes == (
        "the labelled values of size are categories; ordinal=size orders them by their codes",
    )
    table.to_stata(tmp_path / "u.dta", write_index=False, value_labels={"a": {2: "refused"}})
    raw = read_table(tmp_path / "u.dta", {})
    assert raw.splits["all"].columns["a"].tolist() == [1, 2, 1]
    assert "only some values of a are labelled: read as numbers" in raw.notes
    arrow = pa.table(AB)
    pa.feather.write_feather(arrow, str(tmp_path / "t.feather"))
    with pa.ipc.new_stream(str(tmp_path / "t.arrow"), arrow.schema) as stream:
        stream.write_table(arrow)
    pa.orc.write_table(arrow, tmp_path / "t.orc")
    for suffix in ("feather", "arrow", "orc"):
        assert cells(read_table(tmp_path / f"t.{suffix}", {})) == AB


def test_formats_that_are_not_read_say_what_to_do(read):
    assert refusal(read, b"x", "t.ods") == "t.ods cannot be read: save it as .xlsx or .csv"
    for name, message in (("t.pkl", "never unpickled"), ("t.xyz", ".xlsx, .xlsm, .db")):
        Path(name).write_bytes(b"some bytes")
        assert message in refusal(vs.load, name)


def test_the_readme_names_every_format():
    text = (Path(__file__).parent.parent / "README.md").read_text()
    pages = text + (Path(__file__).parent.parent / "docs" / "tables.md").read_text()
    assert [s for s in (*OF_SUFFIX, *COMPRESSIONS) if f"`{s}`" not in pages] == []


# -- empty columns ---------------------------------------------------------------------------------


def test_empty_columns_are_left_out(tmp_path):
    rng = np.random.default_rng(0)
    table = {"a": rng.normal(size=50), "b": [None] * 50, "c": [None] * 49 + ["x"]}
    data = vs.load(table)
    assert data.space.names in (("a",), ("a", "c"))
    assert "left out column 'b': all cells are empty" in data.notes
    write_frame(tmp_path / "t.parquet", frame_of(table))
    assert "b" not in vs.load(str(tmp_path / "t.parquet")).space.names
    splits = ["train"] * 40 + ["valid"] * 5 + ["test"] * 5
    write_frame(tmp_path / "s.csv", frame_of(table | {"s": splits}))
    data = vs.load(str(tmp_path / "s.csv"), split="s")
    assert data.space.names == ("a",)
    assert (
        "left out column 'c': all cells of the training rows are empty (seed=N draws other rows)"
        in data.notes
    )
    message = refusal(lambda: vs.load({"b": [None] * 50}))
    assert message.startswith("expected values in column 'b' of table; got empty cells alone")


# -- declared types --------------------------------------------------------------------------------


def declared(rng, n=60):
    """Return a DataFrame with a column of each type that users declare."""
    return pd.DataFrame(
        {
            "x": rng.normal(size=n),
            "i": pd.array(np.where(rng.random(n) < 0.3, None, rng.integers(0, 300, n)), "Int64"),
            "b": pd.array(np.where(rng.random(n) < 0.3, None, rng.random(n) < 0.5), "boolean"),
            "s": pd.array(rng.choice(["a", "b"], n), dtype="string"),
            "cat": pd.Categorical(rng.choice(["x", "y", "z"], n), ["z", "y", "x"]),
            "codes": pd.Categorical(rng.choice([30, 10, 20], n), [30, 10, 20]),
            "ord": pd.Categorical(rng.choice(["lo", "hi"], n), ["lo", "mid", "hi"], ordered=True),
            "cut": pd.cut(rng.normal(size=n), 3),
            "wait": pd.to_timedelta(rng.integers(1, 10**5, n), unit="s"),
            "month": pd.period_range("2001-01", periods=n, freq="M"),
            "when": pd.date_range("2026-01-01", periods=n, freq="h", tz="Europe/Zurich"),
            "day": pd.date_range("1990-01-01", periods=n, freq="D"),
            "price": [Decimal(int(v)) / 100 for v in rng.integers(1, 10**5, n)],
            "u": rng.integers(0, 255, n).astype("uint8"),
        }
    )


def test_declared_types_come_back_in_samples(tmp_path):
    table = declared(np.random.default_rng(0))
    run = vs.train(table, latent=2, steps=3, run=tmp_path / "r")
    samples = run.sample(40)
    types = {name: str(dtype) for name, dtype in table.dtypes.items()}
    assert {name: str(dtype) for name, dtype in samples.to_pandas().dtypes.items()} == types
    assert samples.to_pandas()["cat"].cat.categories.tolist() == ["x", "y", "z"]
    assert samples.to_pandas()["ord"].cat.categories.tolist() == ["lo", "mid", "hi"]
    plain = table.drop(columns=["cut", "month"])
    write_frame(tmp_path / "s.parquet", samples.without(["cut", "month"]))
    plain.to_parquet(tmp_path / "d.parquet")
    read = pyarrow.parquet.read_schema
    schemas = [read(tmp_path / name) for name in ("d.parquet", "s.parquet")]
    for one, other in zip(*schemas, strict=True):
        # a sample can have more digits than the data
        assert one.type == other.type or (one.name == "price" and other.type.scale == 2), one.name
    # the run's own copy, and a table in text, are read into the space of the run
    write_frame(tmp_path / "s.csv", samples)
    for source in (str(tmp_path / "s.csv"), str(tmp_path / "r" / "data.parquet"), table):
        assert len(vs.open(tmp_path / "r").encode(source)["mean"]) in (40, 60)
    text = (tmp_path / "s.csv").read_text().splitlines()[1]
    assert re.search(r'"2026-01-0\dT\d\d:00:00\+01:00"', text)
    back = frame_of(table).to_pandas()
    for name in table:
        if name != "cut":
            assert back[name].equals(table[name]) or name in ("cat", "codes"), name
    assert (back["codes"] == table["codes"]).all()
    assert back["codes"].dtype == table["codes"].dtype


def test_declared_categories_stay_categories():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"x": rng.normal(size=90)})
    table["code"] = pd.Categorical(rng.choice(np.arange(40), 90), np.arange(60))
    data = vs.load(table)
    column = next(c for c in data.space.columns if c.name == "code")
    assert str(column.kind) == "category" and max(column.values) < 40
    (note,) = [n for n in data.notes if n.startswith("no row has the categories")]
    assert (
        note.endswith("and 17 more of code: samples do not have them either") or "more of" in note
    )
    assert str(vs.load(table, real="code").space.columns[0].kind) == "real"


def test_two_declared_categories_are_binary_and_come_back_as_categories(tmp_path):
    table = pd.DataFrame({"a": pd.Categorical([True, False] * 30), "x": np.arange(60) / 7})
    run = vs.train(table, latent=1, steps=2, run=tmp_path / "r")
    assert vs.load(table).space.columns[-1].kind == "binary"
    assert run.sample(20).to_pandas()["a"].dtype == table["a"].dtype


@dataclasses.dataclass
class Person:
    name: str
    age: float


Point = collections.namedtuple("Point", "x y")


def test_tables_in_memory(tmp_path):
    expected = {"a": [1, 2], "b": ["x", None]}
    for table in (
        [{"a": 1, "b": "x"}, {"a": 2}],
        {"a": pd.Series([1, 2], index=[5, 7]), "b": ["x", None]},
        pa.table({"a": [1, 2], "b": ["x", None]}),
    ):
        assert {n: c.tolist() for n, c in frame_of(table).columns.items()} == expected
    assert list(frame_of([Person("Ada", 36.0)]).columns) == ["name", "age"]
    assert list(frame_of([Point(1, 2)]).columns) == ["x", "y"]
    assert list(frame_of(pd.Series([1.5], name="w")).columns) == ["w"]
    rows = [(float(i) / 7, "ab"[i % 2]) for i in range(30)]
    assert vs.load(rows).space.names == ("column 1", "column 2")
    assert vs.load([[1.5, 2], [3, 4]] * 20).space.shape == (2,)
    assert vs.load(np.array(rows, [("v", float), ("w", "U1")])).space.names == ("v", "w")
    run = vs.train(rows, latent=1, steps=2, run=tmp_path / "r")
    assert list(vs.open(tmp_path / "r").sample(3).columns) == ["column 1", "column 2"]
    assert len(run.sample(3)) == 3
    for i, source in enumerate(
        (pd.Series(range(40), name="w"), np.array(rows, [("w", float), ("v", "U1")]))
    ):
        vs.train(source, latent=1, steps=2, run=tmp_path / f"s{i}")
        assert "w" in vs.open(tmp_path / f"s{i}").sample(3).columns


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "expected a source: a name such as mnist"),
        (
            pd.DataFrame({"a": [1, "one"] * 9}),
            "expected values of one type in column 'a' of the table; got 1 in row 1, a number, and "
            "'one' in row 2, text (convert the column, as with table['a'].astype(str), or leave it "
            "out with ignore=a)",
        ),
        ({"a": [1, None, "x"]}, "got 1 in row 1, a number, and 'x' in row 3, text"),
        ([{"a": 1}, {"a": "x"}], "got 1 in row 1, a number, and 'x' in row 2, text"),
        (pd.DataFrame({"a": [1j] * 9}), "make two columns of it, with its real and imaginary"),
        (pd.DataFrame({"a": [10**30] * 9}), "as with table['a'].astype(float)"),
        (
            pd.DataFrame({"a": [[1, 2]] * 9}),
            "make a column of each element, or read lists of numbers with series=true",
        ),
        (pd.DataFrame({"a": [b"\xff\xfe"] * 9}), "got bytes in 'a' (images are read from"),
        (
            pd.DataFrame({"a": [np.inf, 1.0] * 9}),
            "missing=inf takes them as empty, or leave it out",
        ),
        (iter([1, 2]), "got list_iterator"),
    ],
)
def test_refusals_say_the_cause_and_what_to_do(source, message):
    assert message in refusal(vs.load, source)


def test_large_numbers_are_read():
    rng = np.random.default_rng(0)
    assert str(vs.load({"a": rng.normal(size=60) * 1e29}).space) == "table of 1 columns (1 real)"


def test_durations_are_seconds():
    data = vs.load(pd.DataFrame({"wait": pd.to_timedelta(np.arange(1, 61) * 1.5, unit="s")}))
    assert "the durations in wait are numbers of seconds" in data.notes
    assert str(data.space.columns[0].kind) == "real" and data.space.columns[0].dtype == "float64"
