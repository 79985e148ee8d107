"""Drawn tables against real ones: exact values of the metrics."""

import subprocess
import sys

import numpy as np
import pytest

from vaestro.evaluation.samples import Columns, fidelity, is_category, ks_distance, utility


def columns(**values: object) -> Columns:
    return {name: np.ma.MaskedArray(np.asarray(v)) for name, v in values.items()}


def test_shapes_are_one_minus_distances() -> None:
    real = columns(size=np.arange(100), kind=["a"] * 50 + ["b"] * 50)
    drawn = columns(size=np.arange(100) + 25, kind=["a"] * 75 + ["c"] * 25)
    found = fidelity(real, drawn)
    assert found.shapes == pytest.approx({"size": 0.75, "kind": 0.5})
    assert found.shape == pytest.approx(0.625)


def test_pairs_are_correlations_and_joint_frequencies() -> None:
    x = np.linspace(0, 1, 200)
    real = columns(a=x, b=x, c=["u", "v"] * 100, d=["u", "v"] * 100)
    drawn = columns(a=x, b=x[::-1], c=["u", "v"] * 100, d=["v", "u"] * 100)
    pairs = fidelity(real, drawn).pairs
    assert pairs["a", "b"] == pytest.approx(0.0)
    assert pairs["c", "d"] == pytest.approx(0.0)
    assert pairs["a", "c"] == pytest.approx(1.0)
    assert fidelity(real, real).pair == 1.0
    assert fidelity(columns(a=x), columns(a=x)).pair == 1.0


def test_a_number_with_a_category_is_cut_at_the_real_deciles() -> None:
    x = np.arange(100.0)
    real = columns(x=x, low=np.where(x < 50, "yes", "no"))
    drawn = columns(x=x, low=np.where(x < 60, "yes", "no"))
    assert fidelity(real, drawn).pairs["x", "low"] == pytest.approx(0.9)


def test_empty_cells_count() -> None:
    real = np.ma.array([1.0, 2.0, 3.0, 4.0], mask=[True, False, False, True])
    drawn = np.ma.array([2.0, 3.0, 2.0, 3.0])
    assert ks_distance(real, drawn) == 0.5
    words = {"k": np.ma.array(["a", "b", "a", "b"], mask=[True, False, False, False])}
    assert fidelity(words, columns(k=["a", "b", "a", "b"])).shapes["k"] == 0.75
    nothing = np.ma.array([1.0, 2.0], mask=True)
    assert ks_distance(nothing, nothing) == 0 and ks_distance(nothing, real) == 1


def test_what_a_column_is_follows_from_the_real_rows() -> None:
    assert is_category(np.ma.array([1, 2, 3] * 20)) and not is_category(np.ma.array(range(20)))
    assert not is_category(np.ma.array(["2020-01-01"], "datetime64[D]"))
    days = np.arange("2020-01-01", "2020-03-01", dtype="datetime64[D]")
    assert ks_distance(np.ma.array(days), np.ma.array(days)) == 0
    # whole numbers that were drawn as floats are the same categories
    assert fidelity(columns(k=[1, 2] * 10), columns(k=[1.0, 2.0] * 10)).shape == 1.0


def test_utility_is_that_of_a_model_trained_on_drawn_rows() -> None:
    pytest.importorskip("sklearn")
    r = np.random.default_rng(0)
    x, noise = r.normal(size=(400, 2)), r.normal(size=400)
    ill = np.where(x[:, 0] + 0.3 * noise > 0, "yes", "no")
    rows = columns(a=x[:, 0], b=x[:, 1], size=3 * x[:, 0] + 0.1 * noise, ill=ill)
    shuffled = {**rows, "ill": rows["ill"][::-1]}
    train = {n: c[:300] for n, c in rows.items()}
    test = {n: c[300:] for n, c in rows.items()}
    assert utility(train, test, "ill") > 0.95
    assert utility(train, test, "size") > 0.95
    assert 0.3 < utility({n: c[:300] for n, c in shuffled.items()}, test, "ill") < 0.7
    one = {**train, "ill": np.ma.array(["no"] * 300)}
    assert utility(one, test, "ill") == 0.5
    with pytest.raises(ValueError, match="two classes of 'ill' in the test rows; got no"):
        utility(train, {**test, "ill": np.ma.array(["no"] * 100)}, "ill")


def test_tables_with_other_columns_are_refused() -> None:
    with pytest.raises(ValueError, match="expected a column 'b'; got a"):
        fidelity(columns(a=[1], b=[2]), columns(a=[1]))
    with pytest.raises(ValueError, match="expected tables with rows"):
        fidelity(columns(a=[1]), columns(a=[]))


def test_the_metrics_do_not_import_torch() -> None:
    code = (
        "import importlib.util, sys; "
        "spec = importlib.util.find_spec('vaestro'); "
        "path = spec.submodule_search_locations[0] + '/evaluation/samples.py'; "
        "source = importlib.util.spec_from_file_location('samples', path); "
        "module = importlib.util.module_from_spec(source); sys.modules['samples'] = module; "
        "source.loader.exec_module(module); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
