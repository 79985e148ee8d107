"""What values are: the grid of their bulk, counts against real values on a grid of 1, and what is
said of it."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
import torch

import vaestro as vs
from vaestro.cli.main import main
from vaestro.data.counting import why_no_counts
from vaestro.data.lattices import lattice
from vaestro.data.outliers import isolated_values
from vaestro.frames import Frame
from vaestro.spaces import Kind, RealColumn, TableSpace, restored_space

N = 2000


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def grid(x):
    values, times = np.unique(np.asarray(x), return_counts=True)
    found = lattice(values, times, float(np.asarray(x, np.float64).std()))
    return found, values[found.off] if found.strays else values[:0]


def cents(rng):
    return np.round(rng.lognormal(3, 1, N), 2)


def put(x, *values):
    """Return a copy whose values somewhere in the middle are these."""
    x = np.array(x)
    x[100 : 100 + len(values)] = values
    return x


STRAYS = {  # made of a generator: the values, the step, and those that lie off
    "cents": (lambda r: put(cents(r), 33.3333333), 0.01, [33.3333333]),
    "cents of float32": (
        lambda r: put(cents(r), 33.3333333).astype(np.float32),
        0.01,
        [np.float32(33.3333333)],
    ),
    "cents of float32 as float64": (
        lambda r: put(cents(r), 33.3333333).astype(np.float32).astype(float),
        0.01,
        [float(np.float32(33.3333333))],
    ),
    "three decimals": (lambda r: put(cents(r), 4.125, 9.999, 0.001), 0.01, [0.001, 4.125, 9.999]),
    "halves": (lambda r: put(r.poisson(300, N).astype(float), 2.5, 7.5), 1, [2.5, 7.5]),
    "sixteenths": (lambda r: put(np.rint(20 * r.normal(size=N)) / 16, 0.1), 1 / 16, [0.1]),
    "inches in cm": (lambda r: put(2.54 * np.rint(r.normal(66, 4, N)), 171.3), 2.54, [171.3]),
    "degrees": (lambda r: put((np.rint(r.normal(60, 15, N)) - 32) * 5 / 9, 11.3), 5 / 9, [11.3]),
    "bytes": (lambda r: put(r.integers(0, 256, N) / 255, 0.1234), 1 / 255, [0.1234]),
    "standardised": (lambda r: put((r.poisson(9, N) - 9.1) / 3.3, 0.01), 1 / 3.3, [0.01]),
    "hundreds": (lambda r: put(100 * r.integers(1, 99, N), 1234), 100, [1234]),
    "picoamperes": (
        lambda r: put(1e-12 * np.round(r.normal(size=N), 2), 0.333333333333e-12),
        1e-14,
        [0.333333333333e-12],
    ),
    "days": (
        lambda r: put(86_400_000_000 * r.integers(18_000, 19_000, N), 12_345),
        86_400_000_000,
        [12_345],
    ),
    "one percent without a grid": (
        lambda r: put(r.integers(0, 10, N).astype(float), *r.random(20)),
        1,
        None,
    ),
}


@pytest.mark.parametrize("name", STRAYS)
def test_the_grid_is_that_of_the_bulk_of_the_values(name, rng) -> None:
    make, step, off = STRAYS[name]
    found, strays = grid(make(rng))
    assert found.step == pytest.approx(step, rel=1e-4) and not found.atoms
    assert strays.tolist() == off if off is not None else len(strays) == 20


def test_half_of_the_values_on_a_finer_grid_are_no_exceptions(rng) -> None:
    for share, step in ((0.05, 0.5), (0.5, 0.5)):
        found, strays = grid(rng.poisson(300, N) + 0.5 * (rng.random(N) < share))
        assert found.step == step and not len(strays)
    # In few rows, one value off the coarser grid is no evidence for it.
    few = np.array([1, 2, 3, 2.5, 1, 2, 3, 4, 1, 2, 3, 1, 2, 2, 2, 1, 3, 4, 1, 2, 2, 2, 1])
    assert grid(few)[0].step == 0.5


def test_numbers_without_a_grid_are_given_none(rng) -> None:
    for scale in (1e-12, 1.0, 1e9):
        for dtype in ("float32", "float64"):
            for n in (10, 50, 500, 5000):
                x = (rng.normal(size=n) * scale).astype(dtype)
                rounded = put(x, *np.round(x[: n // 100] / scale, 1) * scale) if n > 100 else x
                assert not any(f.step and not f.atoms for f in (grid(x)[0], grid(rounded)[0])), (
                    scale,
                    dtype,
                    n,
                )
    # What repeats by chance, is clipped or is zero on most days has atoms, not the grid of its few
    # shared values.
    clipped = np.where(rng.random(N) < 0.6, 0.0, 100.0)
    for x in (
        np.where(rng.random(20_000) < 0.995, 0, rng.lognormal(0, 1, 20_000)),
        put(clipped, *100 * rng.random(8)),
        np.repeat(rng.normal(size=50), 9),
    ):
        found, _ = grid(x)
        assert found.atoms and not found.strays


def test_float32_far_from_zero_repeats_on_the_grid_of_its_type(rng) -> None:
    found, _ = grid((1e6 + 10 * rng.normal(size=N)).astype(np.float32))
    assert found.step == 0.0625 and not found.atoms


def test_values_off_the_grid_are_rounded_for_the_model_and_named(rng) -> None:
    prices = put(cents(rng), 33.3333333)
    table, array = (
        vs.load({"price": prices, "other": rng.normal(size=N)}),
        vs.load(np.stack([prices, rng.normal(size=N)], 1)),
    )
    assert any(
        "price: 1 value off the grid of 0.01, 33.3333333, rounded to it" in note
        for note in table.notes
    )
    assert any(
        "off the grid, such as 33.3333333, column 0 (step 0.01)" in note for note in array.notes
    )
    column = table.space.columns[[c.name for c in table.space.columns].index("price")]
    assert (
        column.resolution == 0.01
        and array.space.resolution is not None
        and array.space.resolution[0] == 0.01
    )
    for space, at in ((table.space, table.space.columns.index(column)), (array.space, 0)):
        rows = [33.3333333, 33.33, 41.239]
        user = (
            Frame({"price": np.ma.array(rows), "other": np.ma.zeros(3)})
            if space.kind is Kind.TABLE
            else np.stack([rows, np.zeros(3)], 1)
        )
        inside = space.inward(user)[:, at]
        assert inside[0] == inside[1], "the model sees the cell of the grid"
        back = space.outward(space.inward(user))
        assert (
            back.columns["price"].data if space.kind is Kind.TABLE else back[:, 0]
        ).tolist() == pytest.approx([33.33, 33.33, 41.24], abs=1e-5)
        again = restored_space(json.loads(json.dumps(space.scalars())), space.arrays())
        assert (again.inward(user) == space.inward(user)).all()


def test_probabilities_of_values_on_and_off_the_grid_sum_to_one() -> None:
    # Whatever the value is, it is scored by the cell that holds it, and these cells cover the line
    # once.
    column = RealColumn("x", "float64", scale=3.0, resolution=0.5, strays=True)
    space = TableSpace.of([column])
    model = vs.build(space, latent=1, network="linear", likelihood="table").eval()
    values = np.unique(np.round(np.linspace(-8, 8, 1601), 2))
    inside, counted = np.unique(space.inward(Frame({"x": np.ma.array(values)})), return_counts=True)
    assert len(inside) == 33 and counted[1:-1].min() >= 49
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        x = torch.from_numpy(inside)[:, None]
        noise = (torch.arange(2000) + 0.5) / 2000 - 0.5
        spread = model.likelihood.spread(x, noise[:, None, None])
        density = (
            torch.exp(model.likelihood(torch.zeros(1, 1, 1)).log_prob(spread)).mean(0).double()
            / column.scale
        )
    assert float(density.sum()) * column.resolution == pytest.approx(
        2 * torch.special.ndtr(torch.tensor(8.25 / 3)).item() - 1, abs=1e-4
    )


def test_a_run_from_before_reads_values_off_the_grid_as_it_did() -> None:
    new = TableSpace.of([RealColumn("x", "float64", scale=3.0, resolution=0.5)])
    scalars = new.scalars()
    assert scalars["columns"][0].pop("strays") is False
    old = restored_space(scalars, {})
    assert old.inward(Frame({"x": np.ma.array([0.6])}))[0, 0] == pytest.approx(0.2)


# -- prices, and a typing error among them ---------------------------------------------------------


def prices(rng):
    return np.round(3000 * rng.uniform(30, 200, N) * np.exp(0.2 * rng.normal(size=N)), 2)


@pytest.mark.parametrize("factor", [1, 1e4, 1e10, 1e16])
def test_a_typing_error_changes_neither_grid_nor_scale_and_is_named(rng, factor) -> None:
    x = prices(rng)
    clean = x.copy()
    x[777] = np.round(x[777] * factor, 2)
    data = vs.load({"price": x, "other": rng.normal(size=N)})
    column = next(c for c in data.space.columns if c.name == "price")
    assert (column.resolution, column.atoms, column.strays) == (0.01, False, False)
    width = "0.05" if factor <= 1e4 else "[0-9.e+]+"
    assert any(
        re.fullmatch(
            rf"price \(0.01\) lies on a grid with this step, which float32 .*: dequantised with "
            rf"bin width {width}",
            note,
        )
        for note in data.notes
    )
    farthest = np.abs(x - column.offset).max() / column.scale
    assert farthest < 1.1e5, "squares of what the model sees fit into float32"
    if factor <= 1e4:
        assert column.scale == pytest.approx(
            clean.std(), rel=0.03
        ) and column.offset == pytest.approx(clean.mean(), rel=0.03)
    back = (
        data.space.outward(
            data.space.inward(Frame({"price": np.ma.array(x), "other": np.ma.zeros(N)}))
        )
        .columns["price"]
        .data
    )
    assert back == pytest.approx(x, rel=3e-7, abs=3e-7 * column.scale)
    named = [note for note in data.notes if "interquartile" in note]
    assert len(named) == (factor > 1)
    if named:
        assert re.fullmatch(
            rf"price: 1 value lies more than [\d,]+ times the interquartile range from the "
            rf"median \(row 778: {re.escape(str(x[777]))}\); "
            "check it for a typing error",
            named[0],
        )


def test_offset_and_scale_of_data_without_isolated_values_are_mean_and_deviation(rng) -> None:
    for x in (prices(rng), rng.normal(size=N), rng.standard_cauchy(N)):
        data = vs.load({"x": x, "y": rng.normal(size=N)})
        train = data.train.batch(slice(0, len(data.train))).x[:, 0].double()
        assert abs(float(train.mean())) < 1e-4 and float(train.std(correction=0)) == pytest.approx(
            1, abs=1e-4
        )


def test_isolated_values_of_dates_counts_and_files_are_named_with_their_rows(rng, tmp_path) -> None:
    days = np.datetime64("2020-01-01") + rng.integers(0, 900, N)
    days[5] = np.datetime64("2202-03-04")
    visits = rng.poisson(rng.gamma(4, 5, N))
    visits[9], visits[12] = 90_210, 70_999
    cells = np.ma.array(rng.normal(size=N), mask=rng.random(N) < 0.2)
    cells[31] = 1e5
    notes = vs.load({"day": days, "visits": visits, "x": cells}).notes
    assert any(
        note.startswith("day: 1 value lies more") and "(row 6: 2202-03-04)" in note
        for note in notes
    )
    assert any(
        note.startswith("visits: 2 values lie more")
        and "(row 10: 90210, row 13: 70999); check them" in note
        for note in notes
    )
    assert any(
        note == "x too: a few values far from all others; check them for typing errors"
        for note in notes
    )
    x = rng.normal(size=N)
    x[40] = 5e4
    split = np.where(np.arange(N) % 10 == 0, "test", "train")
    lines = [
        "x,y,split",
        *(f"{a:.3f},{b:.3f},{c}" for a, b, c in zip(x, rng.normal(size=N), split, strict=True)),
    ]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    data = vs.load(f"{tmp_path / 't.csv'}:split=split")
    assert any(
        n.startswith("x: 1 value lies") and "(row 5 of test: 50000.0)" in n for n in data.notes
    )


TAILS = {
    "normal": lambda r, n: r.normal(size=n),
    "t of 1.2 degrees": lambda r, n: r.standard_t(1.2, n),
    "Cauchy": lambda r, n: r.standard_cauchy(n),
    "t of 1.2 degrees, rounded": lambda r, n: np.round(r.standard_t(1.2, n), 1),
    "lognormal": lambda r, n: r.lognormal(0, 1, n),
    "wide lognormal": lambda r, n: r.lognormal(0, 3, n),
    "Pareto": lambda r, n: r.pareto(1, n),
    "Pareto without a mean": lambda r, n: r.pareto(0.3, n),
    "Weibull": lambda r, n: r.weibull(0.3, n),
    "rain": lambda r, n: np.where(r.random(n) < 0.6, 0, r.lognormal(0, 1.5, n)),
    "overdispersed counts": lambda r, n: r.poisson(r.gamma(0.3, 40, n)),
    "Zipf": lambda r, n: r.zipf(1.5, n),
}


@pytest.mark.parametrize("name", TAILS)
def test_heavy_tails_have_no_isolated_values(name) -> None:
    for n in (50, 200, 2000):
        wrong = [
            i for i in range(200) if len(isolated_values(TAILS[name](np.random.default_rng(i), n)))
        ]
        assert not wrong, (n, wrong)


def test_planted_typing_errors_are_found() -> None:
    for n, factor, least in ((200, 1e4, 100), (2000, 1e2, 95), (2000, 1e4, 100)):
        found = 0
        for i in range(100):
            x = np.random.default_rng(i).normal(50, 10, n)
            x[n // 2] *= factor
            found += isolated_values(x).tolist() == [n // 2]
        assert found >= least, (n, factor, found)
    # A pair does not hide itself, and in a tail as heavy as a lognormal's only large errors stand
    # out.
    x = np.random.default_rng(0).lognormal(0, 1, 2000)
    x[[7, 8]] = 1e7, 3e6
    assert isolated_values(x).tolist() == [7, 8]


# -- counts ----------------------------------------------------------------------------------------

WHOLE = {  # made of a generator: whole numbers, and what speaks against counts
    "ages of adults": (lambda r: r.integers(18, 91, N), "far from 0"),
    "ages": (lambda r: r.integers(0, 91, N), "a normal fits better"),
    "years": (lambda r: r.integers(1950, 2021, N), "below the mean"),
    "heights": (lambda r: np.rint(r.normal(170, 15, N)), "far from 0"),
    "blood pressures": (lambda r: np.rint(90 + r.gamma(6, 8, N)), "far from 0"),
    "hours": (lambda r: r.integers(0, 24, N), "a normal fits better"),
    "heads of 30 coins": (lambda r: r.binomial(30, 0.6, N), "below the mean"),
    "visits": (lambda r: r.poisson(3, N), None),
    "Poisson": (lambda r: r.poisson(12, N), None),
    "reads": (lambda r: r.poisson(r.gamma(0.3, 40, N)), None),
    "words": (lambda r: r.negative_binomial(2, 0.01, N), None),
    "zero-inflated": (lambda r: r.poisson(20, N) * (r.random(N) < 0.3), None),
    "large counts": (lambda r: np.rint(r.lognormal(6, 1, N)), None),
}


def why(x):
    return why_no_counts(*np.unique(x, return_counts=True))


@pytest.mark.parametrize("name", WHOLE)
def test_whole_numbers_are_counts_unless_the_data_speak_against_it(name, rng) -> None:
    make, reason = WHOLE[name]
    x = make(rng)
    assert (why(x) is None) if reason is None else reason in str(why(x))
    # One typing error, or a zero among ages, changes nothing.
    if name != "hours":
        assert (why(put(x, 99_999)) is None) == (reason is None)
    assert (why(put(x, 0)) is None) == (reason is None)


def test_poisson_counts_are_rarely_taken_for_anything_else() -> None:
    for mean, n in ((0.5, 50), (4, 50), (4, 400), (15, 200)):
        wrong = sum(why(np.random.default_rng(i).poisson(mean, n)) is not None for i in range(300))
        assert wrong <= 6, (mean, n, wrong)


def kind(data, name="x"):
    return str({c.name: c.kind for c in data.space.columns}[name])


def test_ages_and_visits_in_tables(rng, tmp_path) -> None:
    ages, visits = rng.integers(18, 91, N), rng.poisson(3, N)
    np.savetxt(
        tmp_path / "t.csv", np.stack([ages, visits], 1), "%d", ",", header="age,visits", comments=""
    )
    file, memory = vs.load(tmp_path / "t.csv"), vs.load({"age": ages, "visits": visits})
    for data in (file, memory):
        assert (kind(data, "age"), kind(data, "visits")) == ("real", "count")
        assert {c.name: c.resolution for c in data.space.columns}["age"] == 1
    line = (
        "age (lower limit 18 far from 0): whole numbers read as real on a grid of 1, not as counts"
    )
    assert f"{line} (count=age overrules)" in file.notes and line in memory.notes
    assert "visits has whole numbers: read as counts (real=visits overrules)" in file.notes
    over = vs.load(f"{tmp_path / 't.csv'}:count=age,real=visits")
    assert (kind(over, "age"), kind(over, "visits")) == ("count", "real")


@pytest.mark.parametrize("one", [2.5, -1.0])
def test_one_value_that_is_no_count_is_named(rng, one) -> None:
    data = vs.load({"x": put(rng.poisson(3, N).astype(float), one), "y": rng.normal(size=N)})
    if one < 0:
        assert kind(data) == "real" and any(
            "x (1 below 0, -1): whole numbers read as real" in n for n in data.notes
        )
    else:
        assert kind(data) == "count" and any(
            "x: 1 value off the grid of 1, 2.5, rounded to it" in n for n in data.notes
        )
        assert data.space.inward(Frame({"x": np.ma.array([2.5, 4.0]), "y": np.ma.zeros(2)}))[
            :, 1
        ].tolist() == [2, 4]


def test_a_kind_of_few_values_survives_a_fraction(rng) -> None:
    data = vs.load(
        {"stars": put(rng.integers(1, 6, N).astype(float), 3.5), "y": rng.normal(size=N)}
    )
    assert kind(data, "stars") == "category"


@pytest.mark.parametrize("dtype", ["int32", "float64"])
def test_whole_numbers_in_arrays(rng, tmp_path, monkeypatch, dtype) -> None:
    monkeypatch.chdir(tmp_path)
    reads, years = (
        rng.poisson(rng.gamma(0.5, 200, (N, 4))).astype(dtype),
        rng.integers(1950, 2021, (N, 4)).astype(dtype),
    )
    degrees = np.rint(rng.normal(5, 9, (N, 4))).astype(dtype)
    for array, expected, line in (
        (reads, "count", "read as counts (kind=real overrules)"),
        (years, "real", "read as real on a grid of 1, not as counts (column 0: variance"),
        (degrees, "real", "read as real on a grid of 1 (kind=category reads codes)"),
    ):
        np.save("x.npy", array)
        data = vs.load("x.npy")
        assert data.space.kind == expected and any(line in note for note in data.notes)
    assert vs.load("x.npy:kind=real").space.kind == "real"
    assert main(["train", "x.npy", "--dry-run"]) == 0


# -- probabilities ---------------------------------------------------------------------------------


@pytest.mark.parametrize("whole", [True, False])
def test_a_probability_is_stated_only_where_every_value_lies_on_a_grid(rng, whole) -> None:
    z = rng.normal(size=400)
    columns = {"a": np.round(z, 1), "b": z + rng.normal(size=400), "c": rng.choice(["x", "y"], 400)}
    if whole:
        columns["b"] = np.round(columns["b"], 2)
    data = vs.load(columns)
    assert data.space.on_grid is whole
    result = vs.evaluate(vs.build(data.space, latent=1, network="linear").eval(), data.test, k=3)[
        "iwae"
    ]
    assert ("log_cells" in result.details) is whole
    assert (
        any("probability of the values on their grid" in note for note in result.notes()) is whole
    )
    if whole:
        assert result.details["log_cells"] == pytest.approx(math.log(0.1) + math.log(0.01))
