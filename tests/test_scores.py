"""Scores of rows: parts sum to bounds, thresholds hold, and planted faults are found."""

import csv
import math

import numpy as np
import pytest
import torch

import vaestro as vs
from vaestro import latent
from vaestro.cli import main
from vaestro.latent.normality import Tail, Whitening
from vaestro.latent.scores import fitted_score, score
from vaestro.latent.thresholds import threshold
from vaestro.latent.views import views
from vaestro.runs.scoring import by_step, scored_rows

STEPS = {"steps": 3, "latent": 2, "batch": 16}
KINDS = (
    "table",
    "images",
    "levels",
    "texts",
    "conditional",
    "series",
    "counts",
    "discrete",
    "flow",
)
TIMES = 400


def sources(place, random):
    """Write a source of each kind; returns {kind: (source, options of the run)}."""
    size, colour = random.normal(size=120).round(2), random.choice(["red", "blue"], 120)
    lines = ["size,count,colour"]
    for i in range(120):
        lines.append(f"{'' if i % 10 == 3 else size[i]},{random.poisson(3)},{colour[i]}")
    (place / "t.csv").write_text("\n".join(lines) + "\n")
    np.save(place / "x.npy", random.integers(0, 256, (80, 8, 8, 3), dtype=np.uint8))
    np.save(place / "l.npy", random.integers(0, 5, (80, 4, 4), dtype=np.uint8))
    np.save(place / "c.npy", random.poisson(3, (80, 6)))
    np.save(place / "r.npy", random.normal(size=(80, 5)))
    words = ["".join(random.choice(list("abc"), random.integers(2, 7))) for _ in range(120)]
    (place / "w.txt").write_text("\n".join(words) + "\n")
    rows = [f"u{u},{t},{random.normal():.3f}" for u in range(20) for t in range(12 + u % 3)]
    (place / "s.csv").write_text("\n".join(["unit,time,speed", *rows]) + "\n")
    small = {"network": "mlp:width=8"}
    return {
        "table": ("t.csv", small),
        "images": ("x.npy", small),
        "levels": ("l.npy", small),
        "texts": ("w.txt", {}),
        "conditional": ("t.csv", {**small, "condition": "colour"}),
        "series": ("s.csv:series=unit:time,window=6,stride=3", small),
        "counts": ("c.npy:kind=count", small),
        "discrete": ("r.npy", {**small, "posterior": "bernoulli"}),
        "flow": ("r.npy", {**small, "likelihood": "student-t"}),
    }


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Train a run of each kind; returns {kind: (source, run's folder)}."""
    place = tmp_path_factory.mktemp("scores")
    runs = {}
    for kind, (name, more) in sources(place, np.random.default_rng(0)).items():
        run = vs.train(str(place / name), run=place / kind, **{**STEPS, **more})
        runs[kind] = str(place / name), run.path
    return runs


@pytest.mark.parametrize("kind", KINDS)
def test_parts_of_a_score_sum_to_its_bound_for_each_kind_of_run(folders, kind, tmp_path):
    source, folder = folders[kind]
    session = vs.open(folder)
    found = session.score(source, cells=True, maps=True, units=True, k=6, false_alarms=0.1)
    n = len(session.rows(source))
    assert len(found) == n and np.isfinite(found.score).all()
    np.testing.assert_allclose(found.elbo, -(found.rate + found.distortion))
    np.testing.assert_allclose(found.rates.sum(1), found.rate, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(
        found.cells.reshape(n, -1).sum(1), found.distortion, rtol=1e-3, atol=1e-3
    )
    assert (found.bound_error >= 0).all() and (found.bound >= found.elbo - 5).all()
    out = tmp_path / "s.npz"
    assert main(["score", str(folder), source, "-o", str(out), "--k", "6"]) == 0
    with np.load(out) as archive:
        np.testing.assert_array_equal(archive["score"], found.score)
        assert archive["row"].tolist() == list(range(n))
    out = tmp_path / "s.csv"
    assert main(["score", str(folder), source, "-o", str(out), "--k", "6"]) == 0
    with out.open() as file:
        table = list(csv.DictReader(file))
    assert [int(row["row"]) for row in table] == found.order.tolist()
    assert len(table) == n and float(table[0]["score"]) >= float(table[-1]["score"])


@pytest.mark.parametrize("name", latent.SCORES)
def test_each_score_is_finite_or_refused_in_a_line(folders, name):
    fast = ("counts",) if name == "likelihood-ratio" else ("table", "images", "texts", "counts")
    for kind in fast:
        source, folder = folders[kind]
        impossible = kind == "texts" and name in ("residual", "standardised", "local")
        if impossible or (name == "local" and kind != "images"):
            with pytest.raises(ValueError, match="--score"):
                vs.open(folder).score(source, by=name, k=3)
        else:
            found = vs.open(folder).score(source, by=name, k=3)
            assert np.isfinite(found.score).all() and found.score.std() > 0, kind


def test_the_bound_of_a_score_is_that_of_an_exact_model():
    x = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    data = vs.load(x)
    model = vs.build(data.space, model="independent", likelihood="gaussian").eval()
    by = fitted_score(model, "bound", data.train, data.valid)
    found = score(model, data.test, by, k=1, cells=True)
    exact = vs.evaluate(model, data.test, methods="exact")["exact"].nats
    np.testing.assert_allclose(found.bound, exact, rtol=1e-5)
    np.testing.assert_allclose(-found.cells.sum(1), exact, rtol=1e-5)
    assert (found.bound_error == 0).all() and (found.rate == 0).all()


def test_the_monte_carlo_error_is_the_spread_over_seeds():
    x = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    data = vs.load(x)
    torch.manual_seed(0)
    model = vs.build(data.space, latent=2, network="mlp:width=8").eval()
    rows = data.test.take(4)
    by = fitted_score(model, "bound", data.train, data.valid)
    many = [score(model, rows, by, k=50, seed=seed) for seed in range(60)]
    for value, error in (("bound", "bound_error"), ("elbo", "elbo_error")):
        spread = np.std([getattr(s, value) for s in many], 0, ddof=1)
        stated = np.mean([getattr(s, error) for s in many], 0)
        if value == "bound":  # the error of 60 seeds is about 9 %
            assert 0.7 < np.median(spread / stated) < 1.4
        else:  # the closed-form rate makes the ELBO more certain than its draws of log w
            assert (spread < 1.4 * stated).all()


def test_the_interval_of_a_threshold_covers_the_rate_of_fresh_rows():
    random = np.random.default_rng(0)
    inside, rates = 0, []
    for _ in range(TIMES):
        found = threshold(random.normal(size=300), 0.05)
        actual = math.erfc(found.value / math.sqrt(2)) / 2  # of a normal score, exactly
        inside += found.low <= actual <= found.high
        rates.append(actual)
    error = math.sqrt(0.95 * 0.05 / TIMES)
    assert abs(inside / TIMES - 0.95) < 4 * error
    mean, spread = np.mean(rates), np.std(rates) / math.sqrt(TIMES)
    assert 0.05 * 300 / 301 - 1 / 301 - 4 * spread < mean < 0.05 + 4 * spread
    # a threshold from rows of another distribution is outside of its interval
    wrong = threshold(random.normal(size=300) * 0.8, 0.05)
    assert math.erfc(wrong.value / math.sqrt(2)) / 2 > wrong.high


def test_too_few_rows_for_a_threshold_are_not_enough_to_tell():
    assert threshold(np.arange(98.0), 0.01).value is None
    found = threshold(np.arange(99.0), 0.01)
    assert found.value == 98 and found.needed == 99
    assert "not enough data to tell" in threshold(np.arange(5.0), 0.01).sentence()
    with pytest.raises(ValueError, match="between 0 and 1"):
        threshold(np.arange(5.0), 1.0)


def test_thresholds_of_a_run_hold_on_fresh_rows(tmp_path):
    random = np.random.default_rng(0)
    mix = random.normal(size=(3, 8))

    def rows(n):
        return (random.normal(size=(n, 3)) @ mix + 0.3 * random.normal(size=(n, 8))).astype("f4")

    run = vs.train(
        rows(600), run=tmp_path / "run", latent=3, steps=150, lr=1e-2, network="mlp:width=16"
    )
    fresh, normal = rows(4000), rows(1000)
    found = vs.open(run).score(fresh, false_alarms=0.05, normal=normal, k=1)
    rate, error = found.unusual.mean(), math.sqrt(0.05 * 0.95 / 4000)
    limit = found.threshold
    assert limit.n > 1000 and limit.low - 3 * error < rate < limit.high + 3 * error
    # with planted faults: one sensor of each row is that of another row
    faults = rows(300)
    faults[np.arange(300), np.arange(300) % 8] = rows(300)[np.arange(300), np.arange(300) % 8]
    caught = vs.open(run).score(faults, false_alarms=0.05, normal=normal, k=1).unusual.mean()
    assert caught > 0.3


def test_whitening_finds_small_directions_and_ignores_constant_cells():
    random = np.random.default_rng(0)
    x = random.normal(size=(600, 2)) @ [[5.0, 5.0], [0.1, -0.1]]
    fitted = Whitening.fitted(x)
    assert fitted.relative < 0.01
    far = fitted.distances(np.array([[5.0, 5.0], [1.0, -1.0]]))
    assert far[1] > 20 * far[0]
    # cells that are 0 except in 1 % of rows do not dominate
    rare = np.where(random.random((600, 8)) < 0.01, random.choice([-0.5, 0.5], (600, 8)), 0)
    heavy = np.concatenate([random.normal(size=(600, 8)), rare], 1)
    assert Whitening.fitted(heavy, full=False).relative > 0.01


def test_tails_are_calibrated_and_rise_without_end():
    random = np.random.default_rng(0)
    tail = Tail.of(random.exponential(size=2000))
    at = np.array([0.5, 1.0, 3.0, 6.0])
    np.testing.assert_allclose(tail.evidence(at), at, rtol=0.15)
    assert (np.diff(tail.evidence(np.linspace(0, 50, 100))) > 0).all()


def test_missing_cells_are_scaled_and_named(folders):
    source, folder = folders["table"]
    found = vs.open(folder).score(source, cells=True)
    missing = np.flatnonzero(found.observed < 3)
    assert missing.tolist() == list(range(3, 120, 10))
    assert any("12 cells are missing" in line for line in found.lines())
    names = [c.name for c in vs.open(folder).model.space.columns]
    assert (found.cells[missing, names.index("size")] == 0).all()


def test_series_are_scored_by_window_and_by_step(folders, tmp_path):
    source, folder = folders["series"]
    session, bare = vs.open(folder), source.split(":")[0]
    rows = scored_rows(session, bare, 6, 1)
    assert len(rows) == sum(12 + u % 3 - 5 for u in range(20))
    found = session.score(bare, window=6, stride=1, maps=True, by="residual", false_alarms=0.5)
    assert any("overlap" in line for line in found.lines())
    steps = by_step(rows, found)
    assert len(steps["score"]) == sum(12 + u % 3 for u in range(20))
    first = (steps["unit"] == "u0") & (steps["time"] == 0)
    np.testing.assert_allclose(steps["score"][first], found.maps[0].sum(1)[0], rtol=1e-5)
    middle = (steps["unit"] == "u0") & (steps["time"] == 2)
    expected = np.mean([found.maps[i].sum(1)[2 - i] for i in range(3)])
    np.testing.assert_allclose(steps["score"][middle], expected, rtol=1e-5)
    out = tmp_path / "w.csv"
    command = ["score", str(folder), bare, "-o", str(out), "--window", "6", "--stride", "2"]
    assert main([*command, "--steps", str(tmp_path / "steps.csv")]) == 0
    assert (tmp_path / "steps.csv").read_text().startswith('"unit","time","score"')


def test_rows_are_scored_in_chunks(folders):
    source, folder = folders["images"]
    session = vs.open(folder)
    rows, sizes = session.rows(source), []
    for view in views(session.model, rows, k=4, size=16):
        sizes.append(len(view))
    assert max(sizes) == 16 and sum(sizes) == len(rows)
    whole = session.score(source, k=4, by="residual").score
    part = session.score(rows.pick(np.arange(5)), k=4, by="residual").score
    np.testing.assert_allclose(whole[:5], part, rtol=1e-6)


def test_images_get_a_map_of_where(folders, tmp_path):
    source, folder = folders["images"]
    out = tmp_path / "where.png"
    assert main(["score", str(folder), source, "-o", str(out), "-n", "4", "--k", "2"]) == 0
    assert out.stat().st_size > 1000
    out = tmp_path / "s.npz"
    assert main(["score", str(folder), source, "-o", str(out), "--k", "2"]) == 0
    with np.load(out) as archive:
        assert archive["maps"].shape == archive["cells"].shape == (80, 8, 8, 3)


def test_wrong_requests_are_one_line(folders, tmp_path, capsys):
    source, folder = folders["table"]
    out = str(tmp_path / "s.csv")
    for more, message in (
        (["--score", "bond"], "expected a score: 'bound'"),
        (["--threshold-for-false-alarms", "2"], "between 0 and 1"),
        (["--window", "5"], "--window and --stride are for series"),
        (["--steps", out.replace("s.csv", "t.csv")], "--steps is for series"),
        (["--k", "0"], "expected k of 1 or more"),
        (["--score", "local"], "no neighbouring cells"),
    ):
        assert main(["score", str(folder), source, "-o", out, *more]) == 2, more
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert main(["score", str(folder), source, "-o", out.replace(".csv", ".png")]) == 2


def test_encode_writes_row_numbers_and_attributes(folders, tmp_path):
    source, folder = folders["conditional"]
    out = tmp_path / "z.csv"
    assert main(["encode", str(folder), source, "-o", str(out)]) == 0
    header, first = out.read_text().splitlines()[:2]
    assert header.split(",")[:3] == ['"row"', '"colour"', '"mean_0"']
    assert first.split(",")[0] == "0"
