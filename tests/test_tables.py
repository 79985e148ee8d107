"""Tables: what is read, what each column is taken to be, and that what is written is what was
read."""

import csv
import datetime
import json
import re
import sys
import time
import warnings

import numpy as np
import pytest

from vaestro.data import arrow, tables
from vaestro.data.kinds import infer_space
from vaestro.data.parsing import parse_cells
from vaestro.data.tables import frame_of, write_frame
from vaestro.data.writers import TABLES
from vaestro.frames import Frame
from vaestro.spaces import LARGEST_COUNT, Kind, restored_space
from vaestro.text import is_input_error

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def read_table(path, options, **more):
    """Read a file, and the text in its cells."""
    raw = tables.read_table(path, options, **more)
    return parse_cells(raw, options, path.name)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def read(tmp_path):
    """Write a file and read it as a table."""

    def run(content, options=None, name="t.csv", **more):
        path = tmp_path / name
        if isinstance(content, pa.Table):
            path = tmp_path / "t.parquet"
            parquet.write_table(content, path)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_table(path, options or {}, **more)

    return run


@pytest.fixture
def mixed(rng):
    """Make a table of every kind, with empty cells in most columns."""
    n = 3000
    gone = lambda share: rng.random(n) < share  # noqa: E731
    cities = np.array(["Oslo", "Île-de-France", 'the "Hague"', "Rome, Italy", "NA"])
    return frame_of(
        {
            "price": np.ma.array(np.round(rng.lognormal(3, 1, n), 2), mask=gone(0.1)),
            "height": np.ma.array(rng.normal(170, 8, n), mask=gone(0.05)),
            "small": rng.normal(0, 1, n).astype(np.float32),
            "year": rng.integers(1990, 2021, n),
            "visits": np.ma.array(rng.negative_binomial(2, 0.2, n), mask=gone(0.2)),
            "city": np.ma.array(cities[rng.integers(0, 5, n)], mask=gone(0.1)),
            "sex": np.array(["f", "m"])[rng.integers(0, 2, n)],
            "member": np.ma.array(rng.random(n) < 0.3, mask=gone(0.1)),
            "stars": rng.integers(1, 6, n),
            "born": np.ma.array(
                np.datetime64("1950-01-01") + rng.integers(0, 20000, n), mask=gone(0.1)
            ),
            "seen": np.datetime64("2024-01-01T00:00:00", "us")
            + rng.integers(0, 86400 * 30, n).astype("timedelta64[s]"),
            "version": np.full(n, 3),
        }
    )


def infer(frame, options=None, train=None):
    return infer_space(frame, frame if train is None else train, options or {}, "t.csv")


def column(space, name):
    return next(c for c in space.columns if c.name == name)


def assert_equal(a: Frame, b: Frame, exact=()):
    assert list(a.columns) == list(b.columns)
    for name, cells in a.columns.items():
        other = b.columns[name]
        assert (np.ma.getmaskarray(cells) == np.ma.getmaskarray(other)).all(), name
        assert np.array_equal(cells.compressed(), other.compressed()), name
        if name not in exact:
            assert cells.dtype == other.dtype, name


def there_and_back(frame, space):
    """Return the frame after inward and outward, with the empty cells empty again."""
    out = space.outward(space.inward(frame))
    return Frame(
        {
            n: np.ma.MaskedArray(c.data, np.ma.getmaskarray(frame.columns[n]))
            for n, c in out.columns.items()
        }
    )


# -- reading ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "dtype", "values"),
    [
        (["1", "", "3"], "int64", [1, None, 3]),
        (["1", "NA", "3.5"], "float64", [1.0, None, 3.5]),
        (["?", "-", "7"], "int64", [None, None, 7]),
        (["N/A", "nan", "NaN"], "float64", [None, None, None]),
        (["null", "NULL", "None"], "float64", [None, None, None]),
        (["-1", "2", "-"], "int64", [-1, 2, None]),
        ([" ?", "x", "y"], "<U1", [None, "x", "y"]),
        (["true", "", "False"], "bool", [True, None, False]),
        (["yes", "no", ""], "<U3", ["yes", "no", None]),
        (["0123", "", "4567"], "<U4", ["0123", None, "4567"]),
        (["0", "10", "7"], "int64", [0, 10, 7]),
        (['"1,200"', "", '"900"'], "int64", [1200, None, 900]),
        (
            ["2020-01-02", "", "1969-12-31"],
            "datetime64[D]",
            [datetime.date(2020, 1, 2), None, datetime.date(1969, 12, 31)],
        ),
        (
            ["2020-01-02 00:00:00", "", "2020-01-03T00:00:00"],
            "datetime64[D]",
            [datetime.date(2020, 1, 2), None, datetime.date(2020, 1, 3)],
        ),
        (
            ["2020-01-02 10:00:00.5", "", ""],
            "datetime64[us]",
            [datetime.datetime(2020, 1, 2, 10, 0, 0, 500000), None, None],
        ),
        (["10:00:00", "09:30:00.5", ""], "float64", [36000.0, 34200.5, None]),
        (['"1"', '""', '"3"'], "int64", [1, None, 3]),
        (['"NA"', "NA", '"x"'], "<U2", ["NA", None, "x"]),
        (["99999999999999999999", "1", ""], "float64", [1e20, 1.0, None]),
        (["x" + '"' + "y", "z", ""], "<U3", ['x"y', "z", None]),
    ],
)
def test_a_column_is_read_as_what_it_holds(read, cells, dtype, values):
    frame = read("a,b\n" + "".join(f"{cell},{i}\n" for i, cell in enumerate(cells))).splits["all"]
    assert frame.columns["a"].dtype == dtype
    assert frame.columns["a"].tolist() == values
    assert frame.columns["b"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_the_delimiter_is_found(read, delimiter, newline):
    lines = [["first", "a;b,c|d"[:5], "x"], ["1", "2.5", "some, text"], ["2", "", "more; text"]]
    text = newline.join(
        delimiter.join(f'"{c}"' if delimiter in c else c for c in line) for line in lines
    )
    frame = read("\ufeff" + text).splits["all"]
    assert list(frame.columns) == lines[0]
    assert frame.columns["x"].tolist() == ["some, text", "more; text"]
    assert frame.columns[lines[0][1]].tolist() == [2.5, None]


def test_decimal_commas(read):
    raw = read("a;b\n1,5;1,234\n-2;5,678\n;9,123\n")
    assert raw.splits["all"].columns["a"].tolist() == [1.5, -2.0, None]
    # column a tells what the commas of b are
    assert raw.splits["all"].columns["b"].tolist() == [1.234, 5.678, 9.123]


def test_types_that_change_far_down_and_cells_over_lines(read):
    frame = read("a,b\n" + "1,2\n" * 300_000 + '"x\ny",2.5\n').splits["all"]
    assert frame.columns["a"][-1] is np.ma.masked and frame.columns["a"][0] == 1
    assert frame.columns["b"][-1] == 2.5


def test_columns_without_a_name(read):
    raw = read(",a,\n0,5,\n1,6,\n2,8,\n")
    assert list(raw.splits["all"].columns) == ["a"]
    assert [note.split(",")[1] for note in raw.notes] == [
        " which numbers the rows",
        " which is empty",
    ]
    assert list(read(",a\n7,5\n7,6\n").splits["all"].columns) == ["column 1", "a"]
    assert read("a,1.5\n1,2\n").notes == ("the first line is read as column names: a, 1.5",)


def test_columns_can_be_left_out(read):
    text = "a,b,c+d,1\n1,2,3,4\n5,6,7,8\n"
    assert list(read(text, {"ignore": "a+b"}).splits["all"].columns) == ["c+d", "1"]
    assert list(read(text, {"ignore": "c+d"}).splits["all"].columns) == ["a", "b", "1"]
    assert list(read(text, {"ignore": '"c+d"+a'}).splits["all"].columns) == ["b", "1"]
    assert list(read(text, {"ignore": 1}).splits["all"].columns) == ["a", "b", "c+d"]
    assert list(read(text, columns=["1", "a", "z"]).splits["all"].columns) == ["a", "1"]
    asked = {"category": "a"}
    assert read(text, asked, text=["a"]).splits["all"].columns["a"].tolist() == ["1", "5"]
    with pytest.raises(
        ValueError,
        match=r"expected ignore= to name a column of t.csv: 'c\+d' \(one of .*; got 'c\+e'",
    ):
        read(text, {"ignore": ["c+e"]})
    with pytest.raises(ValueError, match=r"expected columns z in t.csv; got a, b"):
        read(text, columns=["z"])


@pytest.mark.parametrize("suffix", TABLES)
def test_a_column_can_name_the_splits(read, tmp_path, suffix):
    where = ["train", "Validation", "test", "val", "training", "valid"]
    write_frame(tmp_path / f"s{suffix}", frame_of({"a": range(6), "part": where}))
    splits = read_table(tmp_path / f"s{suffix}", {"split": "part"}).splits
    assert {name: frame.columns["a"].tolist() for name, frame in splits.items()} == {
        "train": [0, 4],
        "valid": [1, 3, 5],
        "test": [2],
    }
    assert all(list(frame.columns) == ["a"] for frame in splits.values())
    assert list(read_table(tmp_path / f"s{suffix}", {"split": '"part"'}).splits) == list(splits)


@pytest.mark.parametrize("part", ["train,1\nother,2\n", "train,1\n,2\n", "test,1\nvalid,2\n"])
def test_other_splits_are_refused(read, part):
    with pytest.raises(ValueError, match=r"expected (train, valid or test|training rows)"):
        read("part,a\n" + part, {"split": "part"})


def test_json_records_of_every_sort(read):
    array = (
        '[{"a": 1, "d": "2020-01-01", "u": "2020-01-01T10:00:00+02:00"},\n {"a": null, "b": '
        '"x", "d": null}, {"b": "", "a": 2.5}]'
    )
    lines = array[1:-1].replace("},", "}").replace("}  ", "}\n")
    for name, text in (("t.json", array), ("t.jsonl", lines), ("t.json", lines)):
        raw = read(text, name=name)
        frame = raw.splits["all"]
        assert frame.columns["a"].tolist() == [1.0, None, 2.5]
        assert frame.columns["b"].tolist() == [None, "x", None]
        assert frame.columns["d"].dtype == "datetime64[D]" and frame.columns["d"].mask.tolist() == [
            False,
            True,
            True,
        ]
        assert frame.columns["u"][0] == datetime.datetime(2020, 1, 1, 8)
        assert raw.notes[-1] == "the times in u are in UTC"


def test_parquet_types(read):
    frame = read(
        pa.table(
            {
                "dictionary": pa.array(["x", None, "y"]).dictionary_encode(),
                "decimal": pa.array([1, 2, None], pa.decimal128(9, 2)),
                "uint8": pa.array([1, None, 255], pa.uint8()),
                "half": pa.array(np.array([1, 2, 3], np.float16)),
                "nan": pa.array([1.5, float("nan"), None]),
                "date64": pa.array([86400000, None, 0], pa.date64()),
                "utc": pa.array([0, 1, None], pa.timestamp("s", "Europe/Oslo")),
                "null": pa.nulls(3),
                "a.b": [1, 2, 3],
                "a": [[1], [2], [3]],
                "__index_level_0__": [4, 5, 6],
            }
        ),
        {"ignore": "a"},
    ).splits["all"]
    got = {name: (cells.dtype.name, cells.tolist()) for name, cells in frame.columns.items()}
    day, second = datetime.date(1970, 1, 1), datetime.datetime(1970, 1, 1)
    assert got == {
        "dictionary": ("str32", ["x", None, "y"]),
        "decimal": ("float64", [1.0, 2.0, None]),
        "uint8": ("uint8", [1, None, 255]),
        "half": ("float16", [1.0, 2.0, 3.0]),
        "nan": ("float64", [1.5, None, None]),
        "date64": ("datetime64[D]", [day + datetime.timedelta(1), None, day]),
        "utc": ("datetime64[us]", [second, second + datetime.timedelta(0, 1), None]),
        "null": ("float64", [None, None, None]),
        "a.b": ("int64", [1, 2, 3]),
    }


# -- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "a,b\n1,2\n1,2,3\n",
            "expected 2 cells in every line of t.csv; got 3 in line 3, '1, 2, 3': put a cell that "
            'contains a comma in double quotes, as in "a, b", or delete the line',
        ),
        (
            'a,b\n"x\ny",2\n\n1\n',
            "expected 2 cells in every line of t.csv; got 1 in line 5, '1': add a comma for each "
            "empty cell, or delete the line",
        ),
        (
            "a,b\n" + "1,2\n" * 200_000 + "3\n",
            "expected 2 cells in every line of t.csv; got 1 in line 200,002, '3': add a comma for "
            "each empty cell, or delete the line",
        ),
        (
            'a,b\n1,"x\n2,y\n',
            "expected closed quotes in t.csv after line 1; got unexpected end of data",
        ),
        ("", "t.csv has no line of column names: the file has no text"),
        ("\n\n", "t.csv has no line of column names: the file has no text"),
        ("a,b", "t.csv has column names but no rows"),
        ("a,b\n", "t.csv has column names but no rows"),
        (
            "5.1,3.5\n4.9,3.0\n",
            "expected column names in the first line of t.csv; got numbers, 5.1, 3.5 (read them "
            "as a row with header=false, which names the columns 'column 1' and so on, or "
            "add a line of names)",
        ),
        (
            b"\x00\x01\x02",
            "expected text in UTF-8 in t.csv; got byte 0x00 at 0 (it is no text: save the "
            "table as .csv or .parquet)",
        ),
    ],
)
def test_a_bad_csv_is_refused(read, content, message):
    with pytest.raises(ValueError) as error:
        read(content)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "; got none"),
        ("[]", "; got none"),
        ("[1, 2]", "; got int '1'"),
        ('{"a": [1, 2], "b": [3, 4]}', "; got one object of columns"),
        ('[{"a": 1}', "; got no end"),
        ('[{"a": 1}] 2', "; got more after the array"),
        ("nonsense", r"damaged or cut short \(Expecting value: line 1 column 1"),
        (
            '[{"a": 1}, {"a": "x"}]',
            "expected values of one type in column 'a' of t.json; got 1 in row 1, a number, "
            "and 'x' in row 2, text",
        ),
        ('[{"a": 99999999999999999999}]', "expected values of one type in column 'a'"),
        (
            '[{"a": {"b": 1}, "c": 2}, {"c": 3}]',
            r"got lists or structures in a \(.*, or leave it out with ignore=a\)",
        ),
        ("[" * 100_000, "damaged or cut short"),
        (
            '[{"a": "é'.encode() + b'\xff"}]',
            "expected text in UTF-8 in t.json; got byte 0xff at 10",
        ),
    ],
)
def test_a_bad_json_is_refused(read, content, message):
    with pytest.raises(ValueError, match=message) as error:
        read(content, name="t.json")
    assert is_input_error(error.value) and "\n" not in str(error.value)


def test_a_bad_parquet_is_refused(read, monkeypatch):
    nested = pa.table({"a": [[1], [2]], "b": [{"c": 1}, None], "d": [1, 2]})
    with pytest.raises(
        ValueError,
        match=r"got lists or structures in a, b \(.*, or leave them out with "
        r"ignore=a\+b\)",
    ):
        read(nested)
    with pytest.raises(ValueError, match=r"expected rows of data in t.parquet"):
        read(pa.table({"a": pa.array([], pa.int64())}))
    monkeypatch.setattr(arrow, "LARGEST_TEXT", 10**6)
    with pytest.raises(
        ValueError,
        match=r"got text of up to 9,000 letters \(text=a models the texts "
        r"themselves, or leave it out",
    ):
        read(pa.table({"a": ["x" * 9000] * 40}))
    for junk in (b"", b"PAR1 and junk", b"PAR1" + bytes(100) + b"PAR1"):
        with pytest.raises(ValueError, match=r"t.parquet is damaged or cut short"):
            read(junk, name="t.parquet")


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    message = r"expected the extra vaestro\[tables\] to read .csv; got an installation without it"
    with pytest.raises(ValueError, match=message):
        read_table(tmp_path / "x.csv", {})
    frame = frame_of({"a": [1, None], "b": ["x", "y"]})
    write_frame(tmp_path / "x.json.npz", frame)
    with pytest.raises(ValueError, match=r"to write .parquet"):
        write_frame(tmp_path / "x.parquet", frame)


# -- what columns are ------------------------------------------------------------------------------


def test_kinds_of_a_mixed_table(mixed):
    space, notes = infer(mixed)
    assert space.names == tuple(mixed.columns)
    assert {c.name: (str(c.kind), c.dtype, c.missing) for c in space.columns} == {
        "price": ("real", "float64", True),
        "height": ("real", "float64", True),
        "small": ("real", "float32", False),
        "year": ("real", "int64", False),
        "visits": ("count", "int64", True),
        "city": ("category", "str", True),
        "sex": ("binary", "str", False),
        "member": ("binary", "bool", True),
        "stars": ("category", "int64", False),
        "born": ("real", "datetime64[D]", True),
        "seen": ("real", "datetime64[us]", False),
        "version": ("category", "int64", False),
    }
    steps = {c.name: c.resolution for c in space.columns if c.kind is Kind.REAL}
    assert steps == {
        "price": 0.01,
        "height": 0,
        "small": 0,
        "year": 1,
        "born": 1,
        "seen": pytest.approx(1 / 86400),
    }
    assert column(space, "sex").values == ("f", "m")
    assert column(space, "member").values == (False, True)
    assert column(space, "stars").values == (1, 2, 3, 4, 5)
    assert column(space, "version").values == (3,) and column(space, "version").start == (1.0,)
    assert space.missing and space.measure == "mixed"
    assert (
        notes[0]
        == "6 real (price, height and 4 more), 1 count (visits), 2 binary (sex, member), 3 "
        "category (city, stars and 1 more)"
    )
    assert (
        "of cells are empty, in visits, " in notes[1]
        and "assuming that cells are missing at random" in notes[1]
    )
    assert (
        "price (0.01), born (1 day), seen (1 s) lie on grids with these steps: dequantised" in notes
    )
    assert "stars has few values: read as categories (count=stars overrules)" in notes
    assert "visits has whole numbers: read as counts (real=visits overrules)" in notes
    (year,) = [n for n in notes if n.startswith("year")]
    assert re.fullmatch(
        r"year \(variance \d+ below the mean 2,0\d\d\): whole numbers read as real on a grid of "
        r"1, not as counts \(count=year overrules\)",
        year,
    )
    assert "version is constant: not modelled, copied into samples" in notes
    assert all(len(note) <= 160 for note in notes)


@pytest.mark.parametrize(
    ("values", "kind", "step", "origin"),
    [
        ([0, 1], "binary", 0, 0),
        ([0.0, 1.0], "binary", 0, 0),
        ([-1, 1], "binary", 0, 0),
        ([1, 2, 3, 4, 5], "category", 0, 0),
        ([0.0, 1.0, 2.0], "category", 0, 0),
        (np.arange(0, 40) ** 2 // 40, "count", 0, 0),
        (np.arange(0.0, 40.0) ** 2 // 40, "count", 0, 0),
        (np.arange(0, 40), "real", 1, 0),
        (np.arange(0.0, 90.0), "real", 1, 0),
        (np.arange(0, 4000, 100), "real", 100, 0),
        (np.arange(5, 405, 10), "real", 10, 5),
        (np.arange(1950, 2000), "real", 1, 0),
        (np.arange(-5, 20), "real", 1, 0),
        (np.arange(0, 20) * (LARGEST_COUNT // 7) + 1 % 3, "real", LARGEST_COUNT // 7, 1),
        (np.arange(30) / 10, "real", 0.1, 0),
        (np.arange(30, dtype=np.float32) / np.float32(10), "real", 0.1, 0),
        (np.arange(-20, 30) / 4, "real", 0.25, 0),
        (np.arange(30) * 10 + 9.99, "real", 10, 9.99),
        (np.arange(30) * 1e-8, "real", 1e-8, 0),
        (np.arange(256) / 255, "real", 1 / 255, 0),
        ((np.arange(256) / 255).astype(np.float32), "real", 1 / 255, 0),
        (np.sqrt(np.arange(2.0, 30.0)) * 0.01, "real", None, None),
        (np.array(["2020-01-06", "2020-01-13", "2020-02-03"], "datetime64[D]"), "real", 7, 4),
        (
            np.array(["2020-01-06T10:00", "2020-01-06T11:30"], "datetime64[us]"),
            "real",
            1.5 / 24,
            1 / 24,
        ),
    ],
)
def test_the_kind_and_the_grid_of_numbers(values, kind, step, origin):
    values = np.asarray(values)
    frame = frame_of({"x": np.tile(values, 40), "y": np.arange(40 * len(values)) % 7})
    found = column(infer(frame)[0], "x")
    assert found.kind == kind
    assert found.dtype == values.dtype.name
    if step is not None:
        assert found.resolution == pytest.approx(step)
        assert found.origin == pytest.approx(origin, abs=1e-9)
    else:
        assert 0 < found.resolution <= 1e-3 * values.std() and found.origin in values


def test_continuous_numbers_have_no_grid_unless_a_value_repeats(rng):
    for dtype in ("float64", "float32"):
        for scale in (1e-6, 1.0, 1e6):
            x = (rng.normal(size=500) * scale).astype(dtype)
            assert column(infer(frame_of({"x": x}))[0], "x").resolution == 0, (dtype, scale)
    rain = np.where(rng.random(1000) < 0.4, 0, rng.lognormal(0, 1, 1000))
    space, notes = infer(frame_of({"rain": rain}))
    found = column(space, "rain")
    gap = np.median(np.diff(np.unique(rain)))
    assert (
        found.atoms
        and found.resolution == pytest.approx(min(gap, 1e-3 * found.scale))
        and found.origin == 0
    )
    assert [
        n
        for n in notes
        if n.startswith(
            f"rain has repeated values but no regular grid: dequantised with bin width "
            f"{found.resolution:.4g}."
        )
    ]
    back = space.outward(space.inward(frame_of({"rain": rain}))).columns["rain"]
    assert (back[rain == 0] == 0).all()
    np.testing.assert_allclose(
        back, rain, rtol=1e-6, atol=1e-6 * rain.std(), err_msg="the others stay where they are"
    )
    # What came in twice by chance changes nothing; few rows that share a number, of a few rows, do.
    for zeros, rows, atoms in (
        (2, 1000, False),
        (4, 1000, False),
        (12, 1000, True),
        (12, 100_000, True),
        (3, 20, True),
    ):
        x = np.where(np.arange(rows) < zeros, 0, rng.lognormal(0, 1, rows))
        assert column(infer(frame_of({"x": x}))[0], "x").atoms == atoms, (zeros, rows)
    # The cell does not shrink with a chance neighbour, nor grow with the tail.
    near = np.r_[rain, rain[rain > 0][:5] * (1 + 1e-9)]
    far = np.r_[rain, 1e4]
    for x in (near, far):
        assert column(infer(frame_of({"x": x}))[0], "x").resolution == pytest.approx(
            min(gap, 1e-3 * x.std()), rel=0.1
        )


def test_noise_is_whole_steps_wide_if_float32_does_not_resolve_one(rng):
    x = np.round(rng.lognormal(10, 4, 2000), 2)
    space, notes = infer(frame_of({"x": x}))
    found, grid = column(space, "x"), space.grid()
    assert found.resolution == 0.01 and grid is not None
    width = float(grid[0]) * found.scale
    assert width >= 0.99 * found.scale * 2**-22
    assert width * 100 == pytest.approx(round(width * 100), rel=1e-9)
    assert (
        f"x (0.01) lies on a grid with this step, which float32 does not resolve: dequantised with "
        f"bin width {width:.4g}" in notes
    )


def test_kinds_can_be_asked_for(mixed):
    options = {
        "real": "visits+member",
        "count": "stars+version",
        "category": "year+born",
        "binary": "sex",
    }
    space, _ = infer(mixed, {**options, "categories": 20_000})
    kinds = {
        name: str(column(space, name).kind)
        for name in ("visits", "member", "stars", "version", "year", "born", "sex")
    }
    assert kinds == dict(
        zip(
            kinds,
            ["real", "real", "count", "category", "category", "category", "binary"],
            strict=True,
        )
    )
    assert column(space, "stars").dtype == "int64" and column(space, "visits").resolution == 1
    back = there_and_back(mixed, space)
    assert all((back.columns[n] == mixed.columns[n]).all() for n in kinds)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"real": "pric"},
            r"expected real= to name a column of t.csv: 'price' \(one of .*\); got 'pric'",
        ),
        (
            {"real": "price", "count": "price"},
            "expected one kind for column 'price'; got real= and count=",
        ),
        ({"real": "city"}, "expected numbers in column 'city' for real=; got text, such as"),
        ({"count": "city"}, "expected numbers in column 'city' for count=; got text"),
        (
            {"count": "price"},
            "expected whole numbers of 0 .. 16,777,216 in column 'price' for count=; got",
        ),
        (
            {"count": "born"},
            "expected whole numbers of 0 .. 16,777,216 in column 'born' for count=; got",
        ),
        ({"binary": "city"}, "expected two values in column 'city' for binary=; got 5"),
        ({"category": "height"}, "expected at most 1,000 categories in column 'height'; got"),
        ({"categories": 1}, "expected categories to be a whole number of 2 or more; got 1"),
        (
            {"categories": "many"},
            "expected categories to be a whole number of 2 or more; got 'many'",
        ),
    ],
)
def test_a_kind_that_cannot_be_is_refused(mixed, options, message):
    with pytest.raises(ValueError, match=message):
        infer(mixed, options)


def test_columns_that_are_no_data_are_refused_together(rng):
    n = 200_000
    frame = frame_of(
        {
            "id": np.char.add("row ", np.arange(n).astype(str)),
            "x": rng.normal(size=n),
            "name": np.arange(n).astype(str),
        }
    )
    start = time.perf_counter()
    with pytest.raises(ValueError) as error:
        infer(frame)
    assert time.perf_counter() - start < 10
    message = (
        "expected at most 1,000 categories in columns 'id', 'name'; got 200,000, 200,000 "
        "(id, name: every row has its own, as identifiers have, or leave them out with "
        "ignore=id+name)"
    )
    assert str(error.value) == message
    some = frame_of({"note": [f"note {i % 150}" for i in range(200)], "x": range(200)})
    with pytest.raises(
        ValueError,
        match=r"at most 100 categories in column 'note'; got 150 \(category=note reads them all "
        r"the same, or leave it out with ignore=note\)",
    ):
        infer(some)
    assert column(infer(some, {"category": "note"})[0], "note").kind is Kind.CATEGORY
    many = frame_of({"z": [f"{i % 1500}" for i in range(5000)]})
    with pytest.raises(ValueError, match="at most 1,000 categories"):
        infer(many)
    assert len(column(infer(many, {"categories": 1500})[0], "z").values) == 1500


def test_all_obstacles_are_said_in_one_line(rng, read):
    n = 3000
    frame = frame_of(
        {
            "id": [f"row {i}" for i in range(n)],
            "x": rng.normal(size=n),
            "name, first": [f"N{i}" for i in range(n)],
            "huge": np.r_[1e200, rng.normal(size=n - 1)],
            "city": ["Rome", "Oslo", "Lima"] * (n // 3),
        }
    )
    with pytest.raises(ValueError) as error:
        infer(frame, {"ignore": "old", "count": "city"})
    said = str(error.value)
    assert "at most 1,000 categories in columns 'id', 'name, first'" in said
    assert (
        "values below 1e30 in size in column 'huge'" in said
        and "numbers in column 'city' for count=" in said
    )
    assert (
        "got some up to 1e+200, the first in row 1, and text, such as 'Lima', and 3,000, "
        "3,000 (missing=1e+200 takes it as empty, or id, name, first: every row has its own" in said
    )
    assert """'ignore=old+huge+id+"name, first"')""" in said and "\n" not in said
    infer(frame_of({name: frame.columns[name] for name in ("x", "city")}))
    with pytest.raises(
        ValueError, match=r"got lists or structures in a \(.*, or leave it out with ignore=a"
    ):
        read(
            '[{"a": [1], "b": 1e999, "c": 1e999}, {"a": [], "b": 1.5, "c": -1e999}]', name="t.json"
        )


def test_row_numbers_are_pointed_out(rng):
    _, notes = infer(frame_of({"id": rng.permutation(100) + 7, "x": rng.normal(size=100)}))
    assert "id numbers the rows (leave it out with ignore=id)" in notes


def test_values_out_of_range_are_refused():
    with pytest.raises(
        ValueError,
        match=r"expected values below 1e30 in size in column 'x'; got some up to 1e\+200",
    ):
        infer(frame_of({"x": [1.5] * 20 + [-1e200]}))


def test_statistics_are_of_the_training_rows_and_categories_of_all(mixed):
    train = mixed[:2000]
    space, _ = infer(mixed, train=train)
    for name in ("price", "height", "year"):
        cells, found = train.columns[name].compressed(), column(space, name)
        assert (found.offset, found.scale) == pytest.approx(
            (cells.mean(dtype=float), cells.std(dtype=float))
        )
    visits = train.columns["visits"].compressed()
    found = column(space, "visits")
    assert found.start == pytest.approx((visits.mean(),))
    assert (found.offset, found.scale) == pytest.approx(
        (np.log1p(visits).mean(), np.log1p(visits).std())
    )
    born = train.columns["born"].compressed().astype(np.int64)
    assert (column(space, "born").offset, column(space, "born").scale) == pytest.approx(
        (born.mean(), born.std())
    )
    city = train.columns["city"].compressed()
    found = column(space, "city")
    assert found.start == pytest.approx(
        [((city == value).sum() + 1) / (len(city) + 5) for value in found.values]
    )
    rare = frame_of({"x": ["a", "b"] * 30 + ["c"]})
    found = column(infer(rare, train=rare[:60])[0], "x")
    assert found.values == ("a", "b", "c") and found.start == pytest.approx(
        (31 / 63, 31 / 63, 1 / 63)
    )


def test_columns_of_conditions(rng):
    space, _ = infer(
        frame_of(
            {
                "digit": rng.integers(0, 10, 500, dtype=np.uint8),
                "width": rng.normal(size=500),
                "set": ["a", "b"] * 250,
            }
        )
    )
    assert [str(c.kind) for c in space.columns] == ["real", "binary", "category"]


# -- there and back --------------------------------------------------------------------------------


def test_a_mixed_table_survives_the_model_s_units(mixed):
    space, _ = infer(mixed, train=mixed[:2000])
    inside, observed = space.inward(mixed), space.seen(mixed)
    assert inside.dtype == np.float32 and np.isfinite(inside).all()
    assert np.array_equal(
        observed, np.stack([~np.ma.getmaskarray(mixed.columns[c.name]) for c in space.columns], 1)
    )
    assert (inside[~observed] == 0).all()
    back = there_and_back(mixed, space)
    assert list(back.columns) == list(mixed.columns)
    for name, cells in mixed.columns.items():
        was, now = cells.compressed(), back.columns[name].compressed()
        assert was.dtype.kind == now.dtype.kind and (
            was.dtype.kind == "U" or was.dtype == now.dtype
        )
        if name in ("height", "small"):
            assert np.abs(was - now).max() < 1e-6 * was.std()
        elif name == "seen":  # a month in float32 is known to some seconds
            assert np.abs(was - now).max() <= np.timedelta64(3, "s")
        else:
            assert np.array_equal(was, now), name


@pytest.mark.parametrize("seed", range(8))
def test_any_table_survives_files_and_the_model_s_units(tmp_path, seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(30, 400))
    makers = [
        lambda: (
            np.round(rng.normal(size=n) * 10 ** rng.integers(0, 4), int(rng.integers(0, 4))) + 0.0
        ),
        lambda: rng.integers(-50, 50, n) * int(rng.integers(1, 9)),
        lambda: rng.poisson(3, n),
        lambda: np.array(["x", "y z", "ü", '"', "a,b", "0", "NA", "line\nbreak"])[
            rng.integers(0, 8, n)
        ],
        lambda: rng.random(n) < 0.5,
        lambda: np.datetime64("2001-05-05") + rng.integers(-9999, 9999, n),
        lambda: (
            np.datetime64("2001-05-05T12:00", "us")
            + rng.integers(0, 999, n).astype("timedelta64[h]")
        ),
        lambda: (rng.integers(0, 100, n) / 8).astype(np.float32),
    ]
    columns = {}
    for i in range(10):
        gone = rng.random(n) < rng.choice([0, 0.3])
        gone[0] = False
        columns[f"column {i}"] = np.ma.array(
            makers[rng.integers(len(makers)) if i >= len(makers) else i](), mask=gone
        )
    frame = frame_of(columns)
    for suffix in TABLES:
        write_frame(tmp_path / f"x{suffix}", frame)
        again = read_table(tmp_path / f"x{suffix}", {}).splits["all"]
        narrow = (
            [] if suffix == ".parquet" else [k for k, c in columns.items() if c.dtype.kind == "f"]
        )
        assert_equal(frame, again, exact=narrow)
    space, _ = infer(frame)
    assert_equal(
        frame,
        there_and_back(frame, space),
        exact=[k for k, c in columns.items() if c.dtype.kind == "U"],
    )
    restored = restored_space(json.loads(json.dumps(space.scalars())), space.arrays())
    assert np.array_equal(restored.inward(again), space.inward(frame))
    assert_equal(there_and_back(frame, restored), there_and_back(frame, space))


@pytest.mark.parametrize("name", ["iris", "wine", "diabetes", "breast_cancer"])
def test_real_tables(tmp_path, name):
    datasets = pytest.importorskip("sklearn.datasets")
    pytest.importorskip("pandas")
    table = getattr(datasets, f"load_{name}")(as_frame=True).frame
    table.to_csv(tmp_path / "t.csv", index=False)
    frame = read_table(tmp_path / "t.csv", {}).splits["all"]
    assert list(frame.columns) == list(table.columns)
    assert all(np.array_equal(frame.columns[c].data, table[c]) for c in table)
    space, _ = infer(frame)
    assert (
        column(space, "target").kind
        == {"iris": "category", "wine": "category", "diabetes": "real", "breast_cancer": "binary"}[
            name
        ]
    )
    back = space.outward(space.inward(frame))
    for c in table:
        # standardised: on no decimal grid
        tolerance = 0 if name != "diabetes" else 1e-3 * table[c].std()
        apart = np.abs(back.columns[c].data - table[c])
        if column(space, c).strays:  # 9.899999 among colour intensities with two decimals
            assert (
                0 < (apart > 0).sum() <= 0.01 * len(table)
                and apart.max() <= column(space, c).resolution / 2
            ), c
        else:
            assert apart.max() <= tolerance, c
    reals = [c for c in space.columns if c.kind is Kind.REAL]
    assert (
        sum(c.resolution > 0 for c in reals)
        == {"iris": 4, "wine": 13, "diabetes": 10, "breast_cancer": 30}[name]
    )


def test_draws_stay_in_the_column_s_type_and_on_its_grid():
    n = 200
    days = np.datetime64("2020-01-06") + 7 * np.arange(n)
    frame = frame_of(
        {"byte": np.arange(n, dtype=np.uint8), "price": np.arange(n) / 100 + 0.29, "day": days}
    )
    space, _ = infer(frame, {"real": "byte"})
    out = space.outward(np.random.default_rng(0).normal(size=(1000, 3)) * 3)
    assert (
        out.columns["byte"].dtype == np.uint8
        and (out.columns["byte"][:] == 0).any()
        and (out.columns["byte"] == 255).any()
    )
    assert set(out.columns["price"].tolist()) <= {round(i / 100, 2) for i in range(-2000, 2000)}, (
        "0.29, not 0.29000000000000004"
    )
    assert (out.columns["day"].astype(np.int64) % 7 == 4).all(), "Mondays"


def test_cells_of_another_file_fit(read):
    on, share = np.full(60, np.datetime64("2020-01-01")), np.array([0.1, 0.2, 0.3] * 20, np.float32)
    frame = frame_of(
        {"zip": ["0123", "4567"] * 30, "x": np.arange(60) / 4, "on": on, "share": share}
    )
    space, _ = infer(frame, {"category": "on+share"})
    other = read(
        "x,zip,on,share\n,4567,2020-01-01,0.1\n7,4567,2020-01-01T00:00:00,\n", text=["zip"]
    ).splits["all"]
    inside = space.inward(other)
    assert inside[:, [c.name for c in space.columns].index("zip")].tolist() == [1, 1]
    assert not space.seen(other).all()
    assert (
        space.inward(read("x,zip,on,share\n,4567,,\n,4567,,\n").splits["all"])[:, 0] == 0
    ).all(), "columns that are all empty"
    for cells, message in (
        ("a,4567,,", "expected numbers in column 'x'; got text, such as 'a'"),
        ("1,99,,", "expected a known category"),
    ):
        with pytest.raises(ValueError, match=message):
            space.inward(read(f"x,zip,on,share\n{cells}\n").splits["all"])


# -- Python objects and writing --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "value", "typed"),
    [
        (np.arange(100) * 7, "21", 21),
        (np.arange(100) * 7, "21.5", "whole number for x, as in its column; got '21.5'"),
        (np.arange(100, dtype=np.uint8), 300, "whole number"),
        (np.arange(100) * 7, "many", "whole number"),
        (np.arange(100) * 7, float("nan"), "whole number"),
        (np.arange(100) / 7, "21.5", 21.5),
        (np.arange(100) / 7, "inf", "a number"),
        (np.arange(100) / 7, None, "a number"),
        (
            np.arange("2020-01-01", "2020-06-01", dtype="datetime64[D]"),
            "2020-03-05",
            np.datetime64("2020-03-05"),
        ),
        (np.arange("2020-01-01", "2020-06-01", dtype="datetime64[D]"), "2020-03-05T12:00", "a day"),
        (np.arange("2020-01-01", "2020-06-01", dtype="datetime64[D]"), "NaT", "a day"),
        (np.array([3, 5] * 50), "5", 5),
        (np.array([3, 5] * 50), "5.5", "one of 3, 5"),
    ],
)
def test_one_value_is_of_the_column_s_type_or_refused(cells, value, typed):
    (found,) = infer(frame_of({"x": cells}))[0].columns
    if isinstance(typed, str):
        with pytest.raises(ValueError, match=typed):
            found.typed(value)
    else:
        made = found.typed(value)
        assert made.shape == (1,) and made.dtype == cells.dtype and made[0] == typed


def test_frames_of_python_objects():
    day = datetime.date(2020, 1, 1)
    frame = frame_of(
        {
            "text": ["x", None, "", "y"],
            "whole": [1, None, 2, 3],
            "mixed": np.array([1, 2.5, None, float("nan")], object),
            "truth": [True, None, False, True],
            "days": [day, None, datetime.datetime(2020, 1, 2), None],
            "masked": np.ma.array([1, 2, 3, 4], mask=[0, 1, 0, 0]),
            "ns": np.array(["2020-01-01", "NaT", "2020-01-01T01", "NaT"], "datetime64[ns]"),
        }
    )
    assert {
        name: (c.dtype.name, np.ma.getmaskarray(c).tolist()) for name, c in frame.columns.items()
    } == {
        "text": ("str32", [False, True, True, False]),
        "whole": ("int64", [False, True, False, False]),
        "mixed": ("float64", [False, False, True, True]),
        "truth": ("bool", [False, True, False, False]),
        "days": ("datetime64[D]", [False, True, False, True]),
        "masked": ("int64", [False, True, False, False]),
        "ns": ("datetime64[us]", [False, True, False, True]),
    }
    assert len(frame) == 4 and frame.shape == (4, 7)


def test_frames_of_dataframes():
    pd = pytest.importorskip("pandas")
    columns = {
        "a": [1.5, None],
        "b": ["x", None],
        "c": pd.Categorical(["u", "v"]),
        "d": pd.array([1, None], "Int64"),
    }
    table = pd.DataFrame(columns, index=[5, 9])
    for given in (table, pa.Table.from_pandas(table), {name: table[name] for name in table}):
        cells = {name: c.tolist() for name, c in frame_of(given).columns.items()}
        assert cells == {"a": [1.5, None], "b": ["x", None], "c": ["u", "v"], "d": [1, None]}
    for wrong in (pd.DataFrame({"a": [1, "x"]}), pd.DataFrame({"a": []})):
        with pytest.raises(ValueError, match=r"^expected .*; got "):
            frame_of(wrong)


@pytest.mark.parametrize(
    "columns",
    [
        {},
        [1, 2],
        {"a": 5},
        {"a": "abc"},
        {"a": []},
        {"a": [1], "b": [1, 2]},
        {"a": np.zeros((2, 2))},
        {"a": [[1, 2], [3]]},
        {"a": [1, "x"]},
        {"a": [True, 2]},
        {"a": [2**70]},
        {"a": [1j]},
        {"a": [b"x"]},
        {"a": [{}, {}]},
        pa.table({"a": [[1]]}),
    ],
)
def test_what_is_no_table_is_refused(columns):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=r"expected .*; got ") as error:
            frame_of(columns)
    assert is_input_error(error.value) and "\n" not in str(error.value)


def test_files_are_what_others_read(tmp_path):
    frame = frame_of(
        {
            "n": [1, None],
            "f": np.array([0.1, 2], np.float32),
            "t": ["a,b", None],
            "b": [True, None],
            "d": np.array(["2020-01-01", "NaT"], "datetime64[D]"),
            "s": np.array(["2020-01-01T10:00:00.5", "NaT"], "datetime64[us]"),
        }
    )
    for suffix in (*TABLES, ".npz"):
        write_frame(tmp_path / f"x{suffix}", frame)
    with (tmp_path / "x.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows == [
        list("nftbds"),
        ["1", "0.1", "a,b", "true", "2020-01-01", "2020-01-01 10:00:00.500000"],
        ["", "2", "", "", "", ""],
    ]
    first = {
        "n": 1,
        "f": 0.1,
        "t": "a,b",
        "b": True,
        "d": "2020-01-01",
        "s": "2020-01-01T10:00:00.500000",
    }
    records = [first, {"n": None, "f": 2.0, "t": None, "b": None, "d": None, "s": None}]
    assert json.loads((tmp_path / "x.json").read_text()) == records
    assert [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()] == records
    assert parquet.read_table(tmp_path / "x.parquet").column("n").to_pylist() == [1, None]
    with np.load(tmp_path / "x.npz", allow_pickle=False) as arrays:
        assert (
            arrays["n"].dtype == np.float64
            and np.isnan(arrays["n"][1])
            and np.isnat(arrays["d"][1])
        )
        assert arrays["t"].tolist() == ["a,b", ""] and arrays["f"].dtype == np.float32
    write_frame(tmp_path / "x.csv.part", frame, ".csv")
    assert (tmp_path / "x.csv.part").read_bytes() == (tmp_path / "x.csv").read_bytes()
    with pytest.raises(ValueError, match=r"expected a file of a table, .csv, .*; got .*x.txt"):
        write_frame(tmp_path / "x.txt", frame)


def test_one_column_with_empty_cells_survives_a_csv(tmp_path):
    for values in ([1, None, 3], ["x", None, None], [None, 2.5, None]):
        write_frame(tmp_path / "x.csv", frame_of({"a": values}))
        assert read_table(tmp_path / "x.csv", {}).splits["all"].columns["a"].tolist() == values


def test_a_large_table_is_read_by_columns(tmp_path, rng):
    n = 200_000
    columns = {f"x{i}": np.round(rng.normal(size=n), 3) for i in range(16)}
    columns |= {
        f"s{i}": np.array(["red", "green", "blue"])[rng.integers(0, 3, n)] for i in range(4)
    }
    frame = frame_of(columns)
    write_frame(tmp_path / "x.csv", frame)
    start = time.perf_counter()
    again = read_table(tmp_path / "x.csv", {}).splits["all"]
    assert time.perf_counter() - start < 10
    assert_equal(frame, again)
