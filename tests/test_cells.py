"""The cells of a table: one format for each column of text, and letters that come back."""

from __future__ import annotations

import csv
import datetime

import numpy as np
import pytest

import vaestro as vs
from vaestro.cli.main import main
from vaestro.data.formats import coded, decide, empty_words, restored
from vaestro.data.opening import open_source
from vaestro.data.tables import write_frame
from vaestro.frames import Frame
from vaestro.spaces import CategoryColumn, Kind


def decided(words, **more):
    distinct = list(dict.fromkeys(words))
    return decide(distinct, np.array([words.count(w) for w in distinct]), **more), distinct


SPELLINGS = {
    "money": (["$1,234.50", "$0.99", "-$12.00", "$1,000,000.00"], [1234.5, 0.99, -12, 1e6]),
    "whole money without decimals": (["$5", "$1,234.50", "$12"], [5, 1234.5, 12]),
    "brackets": (["$1,234.50", "($5.00)", "$7.25"], [1234.5, -5, 7.25]),
    "sign after": (["12.00-", "5.50", "7.25"], [-12, 5.5, 7.25]),
    "sign after the currency": (["$-12.00", "$5.50"], [-12, 5.5]),
    "minus sign of typography": (["\u22125.0", "3.0"], [-5, 3]),
    "percent": (["18.4%", "7.0%", "-3.2%"], [18.4, 7, -3.2]),
    "percent with a space": (["18,4 %", "7 %", "3,1 %"], [18.4, 7, 3.1]),
    "thousands": (["12,345", "999", "1,200"], [12345, 999, 1200]),
    "decimal commas": (["1.234,50", "12,30", "1.000.000,00"], [1234.5, 12.3, 1e6]),
    "currency after": (["1.234,50 EUR", "12,30 EUR"], [1234.5, 12.3]),
    "currency before": (["EUR 12", "EUR 7", "EUR 1200"], [12, 7, 1200]),
    "units": (["5 kg", "12 kg", "7.5 kg"], [5, 12, 7.5]),
    "square metres": (["120 m2", "80 m2"], [120, 80]),
    "spaces": (["1 234,5", "12,0", "7,5"], [1234.5, 12, 7.5]),
    "narrow spaces": (["1\u202f234,5", "12,0"], [1234.5, 12]),
    "apostrophes": (["CHF 1\u2019234.50", "CHF 12.00"], [1234.5, 12]),
    "lakhs": (["12,34,567.00", "1,234.50"], [1234567, 1234.5]),
    "plus": (["+7", "-3", "+12", "0"], [7, -3, 12, 0]),
    "exponents": (["1.5e-3", "2.5e+10", "3.0e-1"], [0.0015, 2.5e10, 0.3]),
    "one decimal of whole numbers": (["1.0", "2.0", "10.0"], [1, 2, 10]),
    "months": (["2024-03", "2023-12"], [650, 647]),
    "names of months": (["Mar 2024", "Dec 2023"], [650, 647]),
    "quarters": (["2024-Q1", "2023-Q4"], [216, 215]),
    "quarters before the year": (["Q1 2024", "Q4 2023"], [216, 215]),
    "weeks": (["2024-W07", "2020-W53", "2021-W01"], [2824, 2661, 2662]),
    "times": (["10:30", "09:15"], [37800, 33300]),
    "times of half a day": (["9:05 PM", "12:30 AM", "12:00 PM"], [75900, 1800, 43200]),
    "times with decimals": (["10:00:00", "09:30:00.5"], [36000, 34200.5]),
    "hours beyond a day": (["01:23:45", "30:00:00"], [5025, 108000]),
    "minutes and seconds": (["45:10", "59:59"], [2710, 3599]),
    "hours and minutes": (["1h 30m", "45m", "2h"], [5400, 2700, 7200]),
    "days": (["0 days 01:00:00", "1 days 02:30:00"], [3600, 95400]),
    "truth": (["True", "False"], [True, False]),
    "truth in capitals": (["TRUE", "FALSE"], [True, False]),
}
DAY = datetime.date(2024, 1, 5)
DATES = {
    "day first": ["24/12/2024", "05/01/2024"],
    "month first": ["12/24/2024", "01/05/2024"],
    "no zeros": ["24/12/2024", "5/1/2024"],
    "points": ["24.12.2024", "05.01.2024"],
    "two digits": ["24.12.24", "05.01.24"],
    "ISO": ["2024-12-24", "2024-01-05"],
    "short name": ["Dec 24, 2024", "Jan 5, 2024"],
    "whole name": ["24 December 2024", "5 January 2024"],
    "capitals": ["24-DEC-24", "05-JAN-24"],
    "weekday": ["Tue, 24 Dec 2024", "Fri, 05 Jan 2024"],
    "German": ["24. Dezember 2024", "5. Januar 2024"],
    "French": ["24 d\u00e9cembre 2024", "5 janvier 2024"],
    "dense": ["20241224", "20240105"],
}
CLOCKS = {
    "ISO": ["2024-12-24T10:00:00", "2024-01-05T23:59:59"],
    "zone": ["2024-12-24T10:00:00+02:00", "2024-01-05T23:59:59+02:00"],
    "Z": ["2024-12-24T10:00:00Z", "2024-01-05T23:59:59Z"],
    "milliseconds": ["2024-12-24 10:00:00.125", "2024-01-05 23:59:59.000"],
    "some fractions": ["2024-12-24 10:00:00.123456", "2024-01-05 23:59:59"],
    "AM and PM": ["12/24/2024 1:05 PM", "01/05/2024 12:30 AM"],
    "minutes": ["24.12.2024 10:05", "05.01.2024 00:00"],
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_column_is_read_and_written_in_its_letters(name):
    words, values = SPELLINGS[name]
    found, _ = decided(words)
    assert found.values.tolist() == pytest.approx(values)
    assert found.format.write(found.values.data) == words
    assert restored(found.format.stored()) == found.format


@pytest.mark.parametrize("name", DATES)
def test_dates_come_back_in_their_letters(name):
    found, _ = decided(DATES[name])
    assert found.values.tolist() == [datetime.date(2024, 12, 24), DAY]
    assert found.format.write(found.values.data) == DATES[name]
    assert restored(found.format.stored()) == found.format
    days = np.datetime64("1970-01-01") + np.arange(0, 20000, 37)  # any other days too
    assert (found.format.parse(found.format.write(days)) == days).all()


@pytest.mark.parametrize("name", CLOCKS)
def test_dates_with_times_come_back_in_their_letters(name):
    found, _ = decided(CLOCKS[name])
    assert found.values.dtype == "datetime64[us]"
    assert found.format.write(found.values.data) == CLOCKS[name]
    assert restored(found.format.stored()) == found.format


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "spell",
    [
        lambda v: f"${v:,.2f}",
        lambda v: f"{v:.1f}%",
        lambda v: f"{v:,.3f}".replace(",", " ").replace(".", ",") + " kg",
        lambda v: f"({-v:,.2f})" if v < 0 else f"{v:,.2f}",
        lambda v: f"{v:.3e}",
        lambda v: f"{v:+.2f}",
        lambda v: f"\u20ac{v:,.2f}".replace(",", "_").replace(".", ",").replace("_", "."),
    ],
)
def test_random_numbers_come_back(spell, seed):
    rng = np.random.default_rng(seed)
    numbers = np.round(rng.normal(size=300) * 10.0 ** rng.integers(0, 6), 1 + seed % 2)
    words = [spell(v) for v in numbers[numbers != 0].tolist()]
    found, distinct = decided(words)
    assert found.format is not None and not found.odd
    assert found.format.write(found.values.data) == distinct


@pytest.mark.parametrize(
    "words",
    [
        ["0311", "0042", "1200"],
        ["4111 1111 1111 1111", "4222 2222 2222 2222"],
        ["Room 5", "Room 7"],
        ["S-0001", "S-0002"],
        ["red", "blue"],
        ["0-10", "10-20"],
        ["10.0.0.1", "192.168.1.20"],
        ["[1] Male", "[2] Female"],
        ["A1", "B2"],
    ],
)
def test_codes_and_names_stay_words(words):
    assert decided(words)[0].format is None


def test_the_whole_column_decides_the_order_of_dates():
    ambiguous = ["01/02/2024", "03/04/2024", "05/04/2024"]
    found, _ = decided(ambiguous)
    assert found.values[0] == datetime.date(2024, 2, 1)
    assert found.others == "dates=%m/%d/%Y reads month/day/year"
    assert decided([*ambiguous, "01/13/2024"])[0].values[0] == datetime.date(2024, 1, 2)
    assert decided(ambiguous, day_first=False)[0].values[0] == datetime.date(2024, 1, 2)
    months = ["01/01/2024", "02/01/2024", "03/01/2024"]  # the number that is always 1 is the day
    assert decided(months)[0].values[1] == datetime.date(2024, 2, 1)
    assert decided(ambiguous, patterns=["%m/%d/%Y"])[0].values[0] == datetime.date(2024, 1, 2)


def test_words_among_numbers():
    numbers = [f"{v}.5" for v in range(100)]
    for odd, cells in (("unknown", 5), ("<5", 4), (">100", 1), ("#DIV/0!", 60), ("n/a", 300)):
        found, distinct = decided([*numbers, *[odd] * cells])
        assert found.format is not None and found.values[distinct.index(odd)] is np.ma.masked
    found, _ = decided([*numbers, *["low"] * 10])
    assert found.format is None and found.looks == "numbers (1234.5)" and found.odd == {"low": 10}


@pytest.mark.parametrize(
    ("words", "empty", "labels"),
    [
        (["NA", "NO", "SE"], set(), {"NA"}),
        (["NA", "red", "blue"], {"NA"}, set()),
        (["None", "Low", "High"], set(), {"None"}),
        (["-", "+", "++"], set(), {"-"}),
        (["-", "good", "bad"], {"-"}, set()),
        (["N/A", "NO", "SE"], {"N/A"}, set()),
    ],
)
def test_words_that_may_be_empty_cells(words, empty, labels):
    assert empty_words(words) == (empty, labels)


def test_distinct_words_have_the_codes_of_their_cells():
    words, codes = coded(np.array(["b", "a", "b"]))
    assert [words[c] for c in codes] == ["b", "a", "b"]


# -- whole tables ----------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path):
    """Write a CSV file of columns of words."""

    def run(columns, name="t.csv", delimiter=","):
        path = tmp_path / name
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter=delimiter)
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))
        return path

    return run


def opened(path, **options):
    handle = open_source(path, options=options)
    return handle.raw.splits["all"], handle.raw.notes


def test_notes_name_formats_and_odd_cells_with_their_rows(table):
    price = [f"${v:,}.50" for v in range(900, 1000)]
    price[3], price[40], price[41] = "unknown", "<5", "n/a"
    frame, notes = opened(table({"price": price, "n": range(100)}))
    assert frame.columns["price"].dtype == "float64" and frame.columns["n"].dtype == "int64"
    assert np.flatnonzero(frame.columns["price"].mask).tolist() == [3, 40, 41]
    assert notes == (
        "read as numbers, and written in the same format: price ($1234.56) (category=price keeps "
        "words)",
        "price: 2 cells are no numbers, taken as empty: 'unknown' (row 4), '<5' (row 41) (limits "
        "such as <5 are lost); category=price keeps all cells as words",
    )
    frame, _ = opened(table({"price": price, "n": range(100)}), category="price")
    assert frame.columns["price"][3] == "unknown" and "price" not in frame.formats


def test_too_many_odd_words_keep_a_column_as_words(table):
    cells = [*map(str, range(50)), *["low"] * 10]
    frame, notes = opened(table({"a": cells, "b": range(60)}))
    assert frame.columns["a"].dtype.kind == "U"
    assert notes == (
        "a: looks like numbers (1234), but 10 of 60 cells are other words, 'low' (rows 51, 52, 53 "
        "and 7 more): kept as words (empty=low takes them as empty)",
    )
    frame, _ = opened(table({"a": cells, "b": range(60)}), empty="low")
    assert frame.columns["a"].dtype == "int64" and frame.columns["a"].mask.sum() == 10


def test_a_column_that_is_asked_to_be_numbers_names_its_bad_cell(table):
    path = table({"v": [*map(str, range(20)), *["x17"] * 5], "b": range(25)})
    with pytest.raises(ValueError) as error:
        opened(path, real="v")
    assert str(error.value) == (
        f"expected numbers for real= in column 'v' of {path}; got 'x17' in row 21, and 4 other "
        "such cells (most cells look like numbers (1234); empty=x17 takes it as empty)"
    )


def test_one_column_tells_another_what_commas_and_days_are(table):
    frame, _ = opened(table({"a": ["1,5", "22,75"] * 9, "b": ["1,234", "2,345"] * 9}))
    assert frame.columns["b"][0] == 1.234
    frame, _ = opened(table({"a": ["$1,000.5", "$2.25"] * 9, "b": ["1,234", "2,345"] * 9}))
    assert frame.columns["b"][0] == 1234
    frame, _ = opened(table({"b": ["1,234", "2,345"] * 9}), decimal="comma")
    assert frame.columns["b"][0] == 1.234
    frame, _ = opened(table({"a": ["12/24/2024"] * 9, "b": ["01/02/2024"] * 9}))
    assert frame.columns["b"][0] == datetime.date(2024, 1, 2)
    frame, _ = opened(table({"b": ["01/02/2024"] * 9}), dates="b=%m/%d/%Y")
    assert frame.columns["b"][0] == datetime.date(2024, 1, 2)


def test_a_pattern_that_fits_nothing_is_refused(table):
    path = table({"born": ["24/12/1999", "05/06/2001"] * 5})
    with pytest.raises(
        ValueError, match=r"fits no column of .* \(born has dates \(day/month/year\)\)"
    ):
        opened(path, dates="%Y-%m-%d")
    with pytest.raises(ValueError, match=r"expected a pattern of dates such as %d/%m/%Y .*'%Q'"):
        opened(path, dates="%Q")


def test_a_pattern_for_a_column_that_has_other_dates_is_refused(table):
    path = table({"born": [f"1999-12-{i + 1:02d}" for i in range(20)]})
    with pytest.raises(ValueError, match=r'dates="born"=%d\.%m\.%Y fits no cell of .*: leave out'):
        opened(path, dates="born=%d.%m.%Y")
    frame, _ = opened(path, dates="born=%Y-%m-%d")
    assert frame.columns["born"][0] == datetime.date(1999, 12, 1)


def test_numbers_that_mean_an_empty_cell(table):
    cells = ["-9999", "1e30", "inf", *map(str, range(97))]
    frame, notes = opened(table({"a": cells}), missing="-9999+1e30")
    assert np.flatnonzero(frame.columns["a"].mask).tolist() == [0, 1, 2]
    assert notes[-1] == "a: 1 infinite number in row 3, taken as empty"


def test_na_is_a_label_among_codes_and_empty_among_words(table):
    frame, notes = opened(
        table({"country": ["NA", "NO", "SE"] * 9, "colour": ["NA", "red", "blue"] * 9})
    )
    assert frame.columns["country"][0] == "NA" and frame.columns["colour"][0] is np.ma.masked
    assert [n.partition(" (")[0] for n in notes] == ["colour: 'NA'", "country: 'NA'"]
    assert "empty=NA overrules" in notes[1]
    frame, _ = opened(table({"country": ["NA", "NO", "SE"] * 9}), empty="NA")
    assert frame.columns["country"][0] is np.ma.masked


def test_quotes_tell_labels_from_empty_cells(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text('"a","n"\n"NA",1\nNA,2\n"north",3\n')
    assert opened(path)[0].columns["a"].tolist() == ["NA", None, "north"]
    path.write_text('"a","n"\n"XX",1\nNA,2\n"NO",3\n')
    assert opened(path)[0].columns["a"].tolist() == ["XX", None, "NO"]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".json", ".jsonl"])
def test_written_tables_have_the_letters_of_the_source(table, tmp_path, suffix):
    words = {
        "price": ["$1,234.50", "", "-$7.25"],
        "born": ["24/12/1999", "05/06/2001", ""],
        "flag": ["True", "False", "True"],
        "code": ["007", "012", "010"],
    }
    frame, _ = opened(table(words))
    out = tmp_path / f"out{suffix}"
    write_frame(out, frame)
    again = open_source(out).raw.splits["all"]
    assert again.formats == frame.formats
    for name, cells in frame.columns.items():
        assert again.columns[name].tolist() == cells.tolist()
    if suffix == ".csv":
        with out.open(newline="") as file:
            rows = list(csv.reader(file))
        assert rows == [list(words), *map(list, zip(*words.values(), strict=True))]


def test_training_sampling_and_imputing_keep_the_format(table, tmp_path, capsys):
    rng = np.random.default_rng(0)
    n = 120
    price = [f"${v:,.2f}" for v in rng.lognormal(7, 1, n)]
    born = [str(np.datetime64("1990-01-01") + d) for d in rng.integers(0, 9000, n)]
    born = ["/".join(reversed(d.split("-"))) for d in born]
    size = rng.choice(["5 kg", "10 kg", "25 kg"], n).tolist()
    price[0], born[1] = "", "n/a"
    path = table({"price": price, "born": born, "size": size})
    run, out = str(tmp_path / "run"), tmp_path / "out.csv"
    train = [
        "train",
        str(path),
        "--run",
        run,
        "--condition",
        "size",
        "--latent",
        "2",
        "--steps",
        "3",
    ]
    assert main(train) == 0
    assert main(["sample", run, "-n", "9", "--condition", "size=10 kg", "-o", str(out)]) == 0
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    found, _ = decided([row["price"] for row in rows])
    assert str(found.format) == "$1,234.56" and not found.odd
    assert all(len(row["born"]) == 10 and row["born"][2] == "/" for row in rows)
    assert {row["size"] for row in rows} == {"10 kg"}
    assert main(["impute", run, str(path), "-o", str(tmp_path / "full.csv")]) == 0
    with (tmp_path / "full.csv").open(newline="") as file:
        full = list(csv.DictReader(file))
    assert [r["price"] for r in full][1:] == price[1:] and full[0]["price"].startswith("$")
    assert [r["born"] for r in full][2:] == born[2:] and "/" in full[1]["born"]
    space = vs.open(run).model.space
    assert {c.name: c.kind for c in space.columns} == {"price": Kind.REAL, "born": Kind.REAL}
    # another format of the same values is read too
    other = tmp_path / "other.csv"
    other.write_text("price,born,size\n1234.5,1999-12-24,5 kg\n7,2001-06-05,25 kg\n")
    rows = vs.open(run).rows(str(other))
    assert rows.outward().columns["price"].tolist() == [1234.5, 7.0]
    assert rows.outward().columns["born"].tolist()[0] == datetime.date(1999, 12, 24)


def test_values_of_any_size_are_refused_or_read_in_one_line(table, capsys):
    for large in ("1e29", "1e300", "-inf", "nan", "1e400"):
        path = table({"a": [large, *[f"{v}.25" for v in range(40)]], "b": range(41)})
        code = main(["train", str(path), "--dry-run"])
        err = capsys.readouterr().err
        assert code in (0, 2) and "Traceback" not in err, large


def test_a_frame_in_memory_is_read_like_a_file():
    data = vs.load({"price": ["$1.50", "$2.25", "$3.00"] * 20, "x": np.arange(60.0) ** 1.5})
    assert next(c for c in data.space.columns if c.name == "price").dtype == "float64"
    out = data.space.outward(data.train.read())
    assert isinstance(out, Frame) and out.formats["price"].startswith("number")


def test_codes_for_empty_cells_are_pointed_out(table):
    rng = np.random.default_rng(0)
    temperature = np.round(rng.normal(20, 3, 200), 1)
    temperature[::40] = -9999
    data = vs.load(str(table({"t": temperature, "x": rng.normal(size=200)})))
    note = "t (-9999 in 5 cells): looks like a code for empty cells (missing=-9999 takes it as one)"
    assert note in data.notes
    data = vs.load(str(table({"t": temperature, "x": rng.normal(size=200)})), missing=-9999)
    assert not any("-9999" in note for note in data.notes)


def test_refusals_name_the_likely_cause(table):
    x = np.arange(120.0) ** 1.5
    with pytest.raises(
        ValueError, match="every row has its own, as identifiers have; category=id "
    ):
        vs.load(str(table({"id": [f"S-{i:04}" for i in range(120)], "x": x})))
    with pytest.raises(ValueError, match="looks like texts; text=say models them"):
        vs.load(str(table({"say": [f"a text of some words, {i}" for i in range(120)], "x": x})))
    label = ["a", "b", ""] * 40
    with pytest.raises(ValueError, match="without --condition label the column is modelled"):
        vs.load(str(table({"label": label, "x": x})), condition=["label"])


def test_a_run_of_an_earlier_version_keeps_its_words(table):
    price = ["$1", "$2", "$3"] * 40
    old = CategoryColumn("price", "str", ("$1", "$2", "$3"))
    data = vs.load(str(table({"price": price, "x": np.arange(120.0) ** 1.5})), columns=[old])
    assert {c.name: c.dtype for c in data.space.columns} == {"x": "float64", "price": "str"}


def test_odd_letters_among_numbers_are_no_error():
    for odd in ("\n1.5", "1.5\n", "\u0661\u0662", "\u00bd", "1,5,", "12\u00b2", "--1", "1e400"):
        found, _ = decided([*[f"{v}.5" for v in range(50)], odd])
        assert found.format is not None
