"""Drawn tables against real ones: exact values of the metrics."""

import json
import subprocess
import sys
from dataclasses import replace
from unittest.mock import Mock, patch

import numpy as np
import pytest

import vaestro as vs
from vaestro.diagnosis import Case, Curves, Finding, Remedies
from vaestro.diagnosis.rules import samples as rule
from vaestro.evaluation.copies import TrainingRows
from vaestro.evaluation.dependence import Dependence, dependence
from vaestro.evaluation.prediction import utility
from vaestro.evaluation.resemblance import default_target, resemblance
from vaestro.evaluation.samples import Columns, fidelity, is_category, ks_distance


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


def dependent(n: int, seed: int, noise: float = 0.3) -> dict[str, np.ndarray]:
    r = np.random.default_rng(seed)
    size = r.normal(size=n)
    return {
        "size": size.astype(np.float32),
        "weight": (size + noise * r.normal(size=n)).astype(np.float32),
        "kind": np.where(size + noise * r.normal(size=n) > 0, "large", "small"),
    }


def test_rows_without_dependence_are_worse_than_real_rows_in_every_figure() -> None:
    pytest.importorskip("sklearn")
    held, train = (columns(**dependent(300, seed)) for seed in (0, 1))
    r = np.random.default_rng(2)
    drawn = {name: column[r.permutation(300)] for name, column in train.items()}
    found = resemblance(drawn, held, train, train, ("kind", "the target"))
    assert found.shapes.drawn == found.shapes.real  # the same values in another order
    for figure in (found.pairs, found.utility):
        assert figure is not None
        assert figure.real - figure.drawn > 5 * figure.difference_stderr > 0
    assert found.detector is not None
    assert found.detector.drawn > 0.8 and abs(found.detector.real - 0.5) < 0.1
    assert found.distance.drawn > found.distance.real and found.exact == (0, 0)
    assert found.worst_pairs()[0] == ("size", "weight")
    line = json.loads(json.dumps(found.line()))
    assert line["pairs"]["pairs"][0]["columns"] == ["size", "weight"]
    assert line["utility"]["target"] == "kind" and line["utility"]["score"] == "auc"
    assert any("weight" in text for text in found.sentences("300 test data"))


def test_copies_of_training_rows_are_counted() -> None:
    pytest.importorskip("sklearn")
    r = np.random.default_rng(0)
    held, train = (
        columns(**dependent(40, seed), other=r.normal(size=40), more=r.normal(size=40))
        for seed in (0, 1)
    )
    copied = {n: np.ma.concatenate([train[n][:10], held[n][:30]]) for n in train}
    found = resemblance(copied, held, train, train, ("", ""))
    assert found.exact == (0.25, 0.0) and found.utility is None and found.detector is None
    assert (found.copies.drawn, found.copies.real) == (0.25, 0.0)
    near = {n: c + np.float32(1e-4) if c.dtype.kind == "f" else c for n, c in train.items()}
    assert TrainingRows(train).distances(near).max() < 0.05


def test_the_standard_error_is_that_of_repeated_samples() -> None:
    rows = [columns(**dependent(49, seed)) for seed in range(80)]
    figures = [fidelity(a, b).pair for a, b in zip(rows[::2], rows[1::2], strict=True)]
    found = resemblance(rows[0], rows[1], rows[2], rows[3], ("", ""))
    assert found.pairs is not None
    assert found.pairs.drawn_stderr / np.std(figures) == pytest.approx(1, abs=0.5)


def test_the_default_target_is_a_condition_or_the_last_column_of_categories() -> None:
    rows = columns(**dependent(50, 0))
    assert default_target(rows, rows, ("size",)) == ("size", "the condition")
    assert default_target(rows, rows, ())[0] == "kind"
    numbers = {n: rows[n] for n in ("size", "weight")}
    assert default_target(numbers, numbers, ())[0] == "weight"
    one = {**rows, "kind": np.ma.array(["large"] * 50)}
    assert default_target(one, one, ())[0] == "weight"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> vs.Run:
    pytest.importorskip("sklearn")
    table = dependent(700, 0)
    table["weight"][::7] = np.nan
    path = str(tmp_path_factory.mktemp("samples") / "run")
    options = {"latent": 2, "steps": 20, "network": "mlp:width=8"}
    return vs.train(table, run=path, condition=["kind"], **options)


def test_samples_of_a_run_are_compared_and_written(run: vs.Run) -> None:
    found = vs.evaluate(run, methods="samples:n=150").samples
    assert found is not None and found.n == 150 and found.held_out == 35
    assert set(found.columns) == {"size", "weight", "kind"}
    assert found.target == ("kind", "the condition")
    assert found.columns["kind"][0] == found.columns["kind"][1]  # drawn for the training rows
    assert found.columns["weight"][0] > 0.6 and not found.notes
    line = run.evaluation["samples"]
    assert line["shapes"]["drawn"]["mean"] == found.shapes.drawn
    assert run.evaluation["estimates"] == []
    again = vs.evaluate(run, methods="elbo,samples:n=150", k=1)
    assert again.samples is not None and again.samples.line() == line
    assert again["elbo"].k == 1
    other = vs.evaluate(run, methods="samples:n=150,target=size", seed=1).samples
    assert other is not None and not other.area and other.pairs != found.pairs


def test_what_samples_cannot_compare_is_refused(run: vs.Run) -> None:
    with pytest.raises(ValueError, match=r"'weight' .*; got 'wieght'"):
        vs.evaluate(run, methods="samples:target=wieght")
    with pytest.raises(
        ValueError, match=r"expected held-out rows for samples; got the train split"
    ):
        vs.evaluate(run, methods="samples", split="train")
    data = run.data()
    with pytest.raises(ValueError, match=r"train=data\.train"):
        vs.evaluate(run.model(), data.test, methods="samples")
    for made, word in (
        (np.zeros((40, 8, 8), np.uint8) + np.arange(40, dtype=np.uint8)[:, None, None], "PSNR"),
        ([f"text number {i}" for i in range(40)], "vaestro sample RUN"),
    ):
        data = vs.load(made)
        model = vs.build(data.space, latent=2)
        with pytest.raises(ValueError, match=rf"expected a table or vectors.*{word}"):
            vs.evaluate(model, data.test, methods="samples", train=data.train)


def test_vectors_of_a_model_without_a_latent_are_compared() -> None:
    pytest.importorskip("sklearn")
    data = vs.load(np.random.default_rng(0).normal(size=(200, 3)), test=45)
    model = vs.build(data.space, model="independent")
    evaluation = vs.evaluate(model, data.test, methods="samples:n=60", train=data.train)
    assert evaluation.samples is not None and not evaluation.estimates
    assert set(evaluation.samples.columns) == {"[0]", "[1]", "[2]"}


def test_the_share_of_lost_dependence_is_that_of_the_draws() -> None:
    real, other, drawn = (columns(**dependent(800, seed)) for seed in range(3))
    r = np.random.default_rng(3)
    alone = {name: column[r.permutation(800)] for name, column in drawn.items()}
    half = {n: np.ma.concatenate([drawn[n][:400], alone[n][400:]]) for n in drawn}
    for table, share in ((drawn, 0.0), (half, 0.5), (alone, 1.0)):
        found = dependence(real, other, table)
        assert found is not None and found.pairs == 3
        assert found.limits[0] - 0.05 < share < found.limits[1] + 0.05
        assert found.stderr < 0.1
    moved = {n: c + 0.5 if c.dtype.kind == "f" else c for n, c in alone.items()}
    found = dependence(real, other, moved)
    assert found is not None and found.lost > 0.9
    shuffled = [
        {name: column[r.permutation(800)] for name, column in table.items()}
        for table in (real, other)
    ]
    assert dependence(*shuffled, alone) is None


def test_lost_dependence_is_a_warning_with_power() -> None:
    curves = Curves([{"split": "valid", "step": s, "bound": -1.0} for s in range(4)], 3, True)
    measures = Mock(activity=np.ones(1), signal=None)

    def found(
        lost: float, stderr: float, beta: float = 1.0, role: str = "informative"
    ) -> Finding | None:
        units = [Mock(role=role)]
        state = Dependence(500, 3, lost, stderr, (0.71, 0.97), (("a", "b"),))
        case = Case(Remedies("run", {}), curves, None, beta=beta, dependence=state)
        with (
            patch.object(rule, "not_converged", return_value=None),
            patch.object(rule, "collapsed", return_value=False),
            patch.object(rule, "unused", return_value=False),
            patch.object(rule, "units_of", return_value=units),
        ):
            return rule.lost_dependence(replace(case, measures=measures))

    ill = found(0.8, 0.1)
    assert ill is not None and ill.severity == "warning"
    assert "pair trends 0.71, of real rows 0.97" in ill.evidence and "--beta 0.3" in ill.remedy
    assert found(0.1, 0.02) is None
    unclear = found(0.5, 0.3)
    assert unclear is not None and unclear.severity == "note" and "not enough" in unclear.evidence
    weak = found(0.8, 0.1, beta=0.3)
    off = found(0.8, 0.1, role="off")
    for other in (weak, off):
        assert other is not None and not other.remedy and "--methods samples" in other.no_remedy
