"""Ordinal columns: ordered categories with cumulative logits."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vaestro as vs
from vaestro.cli.main import main
from vaestro.data.arrow import from_arrow
from vaestro.data.tables import frame_of
from vaestro.frames import Frame
from vaestro.likelihoods.ordinal import Cuts
from vaestro.runs import Job
from vaestro.spaces import Kind, OrdinalColumn, RealColumn, TableSpace, restored_space

START = (0.1, 0.4, 0.3, 0.2)
GRADE = OrdinalColumn("grade", "str", ("low", "mid", "high", "top"), start=START)
ORDER = "low<mid<high"


def cuts(column: OrdinalColumn = GRADE) -> tuple[Cuts, np.ndarray]:
    made = Cuts(column)
    first, steps = made.first.detach().numpy(), made.log_steps.detach().exp().numpy()
    return made, np.concatenate([first, first + np.cumsum(steps)])


def test_log_prob_is_the_log_of_differences_of_sigmoids(float64: None) -> None:
    made, ordered = cuts()
    assert (np.diff(ordered) > 0).all()
    f = torch.tensor([-30.0, -2.0, 0.0, 1.5, 30.0]).reshape(1, -1, 1)
    ends = torch.cat([torch.tensor([-torch.inf]), torch.tensor(ordered), torch.tensor([torch.inf])])
    below = torch.sigmoid(ends - f)  # P(x <= j - 1), (1, 5, levels + 1)
    expected = below.diff()
    density = made(f)
    for code in range(4):
        found = density.log_prob(torch.full((5, 1), float(code)))
        np.testing.assert_allclose(found.exp()[0].detach(), expected[0, :, code], atol=1e-12)
    total = density.mean.sum(-2)
    np.testing.assert_allclose(total.detach(), np.ones((1, 5, 1)), atol=1e-12)
    assert torch.isfinite(density.log_prob(torch.zeros(5, 1))).all()
    # more of f makes higher categories more probable
    assert (torch.sigmoid(ends - f)[0, :-1, 1:-1] > torch.sigmoid(ends - f)[0, 1:, 1:-1]).all()


def test_it_starts_at_the_training_frequencies(float64: None) -> None:
    made, _ = cuts()
    p = made(torch.zeros(1, 1, 1)).mean[0, 0, :, 0].detach()
    np.testing.assert_allclose(p, START, atol=1e-12)
    model = vs.build(TableSpace.of([RealColumn("x", "float64"), GRADE]), latent=2)
    start = type(model.likelihood).start(model.space, scale="column")
    assert start.shape == (2,) and not start.any()


def test_two_categories_are_a_coin(float64: None) -> None:
    made, ordered = cuts(OrdinalColumn("a", "str", ("no", "yes"), start=(0.3, 0.7)))
    p = made(torch.tensor([[[0.4]]])).mean[0, 0, 1, 0]
    assert p.item() == pytest.approx(torch.sigmoid(torch.tensor(0.4 - ordered[0])).item())


def rows(n: int = 300) -> dict[str, Any]:
    r = np.random.default_rng(0)
    skill = r.normal(size=n)
    grade = np.array(["low", "mid", "high"])[
        np.digitize(skill + 0.3 * r.normal(size=n), [-0.5, 0.7])
    ]
    level = np.clip(np.rint(2 + skill + 0.5 * r.normal(size=n)), 0, 4).astype(int)
    return {"score": skill.round(3), "grade": grade, "level": level}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = rows()
    path = tmp_path_factory.mktemp("ordinal") / "t.csv"
    lines = [",".join(made)]
    for i in range(len(made["grade"])):
        cells = [str(column[i]) for column in made.values()]
        lines.append(",".join("" if i % 17 == 3 and j == 1 else c for j, c in enumerate(cells)))
    path.write_text("\n".join(lines) + "\n")
    return path


def written(path: Path) -> np.ndarray:
    with path.open(newline="") as file:
        return np.array(list(csv.reader(file)))


def test_text_needs_an_order(table: Path) -> None:
    with pytest.raises(ValueError, match=r"order of the values of column 'grade'.*ordinal=grade="):
        vs.load(f"{table}:ordinal=grade")
    with pytest.raises(ValueError, match=r"values of column 'grade' to be in low<mid.*got high"):
        vs.load(f"{table}:ordinal=grade=low<mid")
    with pytest.raises(ValueError, match="each once; got one value twice"):
        vs.load(f"{table}:ordinal=grade=low<mid<high<mid")
    with pytest.raises(ValueError, match="expected one kind for column 'level'"):
        vs.load(f"{table}:ordinal=level,category=level")


def test_columns_are_read_in_their_order(table: Path) -> None:
    data = vs.load(f"{table}:ordinal=level+grade={ORDER}<best")
    columns = {c.name: c for c in data.space.columns}
    assert columns["grade"].kind is Kind.ORDINAL and columns["level"].kind is Kind.ORDINAL
    assert columns["grade"].values == ("low", "mid", "high", "best")  # no row is the best
    assert columns["level"].values == (0, 1, 2, 3, 4)
    assert data.space.measure == "mixed"
    again = restored_space(data.space.scalars(), {})
    assert again.scalars() == data.space.scalars()
    frame = frame_of({"score": np.zeros(2), "grade": np.array(["high", "low"]), "level": [4, 0]})
    inside = data.space.inward(frame)
    np.testing.assert_array_equal(inside[:, 1:], [[2, 4], [0, 0]])
    back = data.space.outward(inside).columns
    assert back["grade"].tolist() == ["high", "low"] and back["level"].tolist() == [4, 0]
    features = data.space.features(torch.tensor(inside), None, torch.float32)
    np.testing.assert_allclose(features[:, 2], [1, -1])


def test_a_whole_run(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, source = str(tmp_path / "run"), f"{table}:ordinal=level+grade={ORDER}"

    def command(*arguments: str) -> None:
        assert main(list(arguments)) == 0, capsys.readouterr().err

    command("train", source, "--run", run, "--latent", "2", "--epochs", "20", "--seed", "1")
    command("evaluate", run, "--k", "20")
    command("sample", run, "-n", "40", "-o", str(tmp_path / "s.csv"), "--complete")
    command("encode", run, str(table), "-o", str(tmp_path / "c.npz"))
    command("impute", run, str(table), "-o", str(tmp_path / "i.csv"))
    command("report", run)
    drawn = written(tmp_path / "s.csv")
    assert set(drawn[1:, 1]) <= {"low", "mid", "high"} and len(set(drawn[1:, 1])) > 1
    assert {int(v) for v in drawn[1:, 2]} <= set(range(5))
    filled = written(tmp_path / "i.csv")
    assert len(filled) == 301 and set(filled[1:, 1]) == {"low", "mid", "high"}
    trained = vs.Run(run)
    model, data = trained.model(), trained.data()
    # the steps between cuts were learned, and stayed positive
    assert all(torch.isfinite(p).all() for p in model.likelihood.cuts.parameters())
    evaluated = vs.evaluate(model, data.test, k=20)
    assert evaluated["elbo"].mean()[0] > -8


# -- orders that a table declares ------------------------------------------------------------------


def declared(n: int = 200, *, ordered: bool = True) -> Any:
    """Return a DataFrame with ordered categories of text and numbers, and unordered ones."""
    pd = pytest.importorskip("pandas")
    r = np.random.default_rng(0)
    grade, level = r.integers(0, 3, n), r.integers(0, 3, n)
    words, numbers = ["low", "mid", "high", "best"], [3, 1, 2]
    grades = pd.Categorical.from_codes(grade, words, ordered=ordered)
    grades[[5, 9]] = None
    return pd.DataFrame(
        {
            "score": (grade + r.normal(size=n)).round(3),
            "grade": grades,
            "level": pd.Categorical.from_codes(level, numbers, ordered=ordered),
            "colour": pd.Categorical(r.choice(["red", "blue", "green"], n)),
        }
    )


def kinds_of(source: Any) -> dict[str, tuple[Kind, tuple[Any, ...]]]:
    return {c.name: (c.kind, c.values) for c in vs.load(source).space.columns}


def test_declared_orders_are_read_without_an_option(tmp_path: Path) -> None:
    import pyarrow as pa

    frame = declared()
    frame.to_parquet(tmp_path / "t.parquet")
    pa.parquet.write_table(pa.table(frame), tmp_path / "pieces.parquet", row_group_size=50)
    grade = (Kind.ORDINAL, ("low", "mid", "high", "best"))
    colour = (Kind.CATEGORY, ("blue", "green", "red"))
    columns = {name: frame[name] for name in frame}
    for source in (frame, pa.table(frame), columns):
        found = kinds_of(source)
        assert found["grade"] == grade and found["colour"] == colour
        assert found["level"] == (Kind.ORDINAL, (3, 1, 2))
    for name in ("t", "pieces"):
        found = kinds_of(str(tmp_path / f"{name}.parquet"))
        assert found["grade"] == grade and found["colour"] == colour
    assert kinds_of(declared(ordered=False))["grade"] == (Kind.CATEGORY, ("high", "low", "mid"))
    notes = "\n".join(vs.load(frame).notes)
    assert (
        "grade (low < mid < high < best), level (3 < 1 < 2) have declared orders: read as" in notes
    )
    notes = "\n".join(vs.load(str(tmp_path / "t.parquet")).notes)
    assert (
        "grade (low < mid < high < best) has a declared order: read as ordered categories "
        "(category=grade overrules)"
    ) in notes


def test_an_option_overrules_a_declared_order(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    declared().to_parquet(path)
    assert kinds_of(f"{path}:category=grade")["grade"] == (Kind.CATEGORY, ("high", "low", "mid"))
    stated = kinds_of(f"{path}:ordinal=grade=high<mid<low")
    assert stated["grade"] == (Kind.ORDINAL, ("high", "mid", "low"))
    assert kinds_of(f"{path}:ordinal=grade")["grade"][1] == ("low", "mid", "high", "best")


def test_tables_whose_parts_declare_different_orders_have_none() -> None:
    import pyarrow as pa

    one = pa.DictionaryArray.from_arrays([0, 1] * 50, ["low", "high"], ordered=True)
    other = pa.DictionaryArray.from_arrays([0, 1] * 50, ["high", "low"], ordered=True)
    table = pa.table({"a": pa.chunked_array([one, other]), "b": np.arange(200) % 7 / 3})
    data = vs.load(table)
    assert {c.name: c.kind for c in data.space.columns}["a"] is Kind.BINARY
    notes: list[str] = []
    assert from_arrow(pa, table, "t", notes).orders == {}
    assert notes == ["a has several declared orders: read as unordered categories"]
    frames = [frame_of(pa.table({"a": part})) for part in (one, other, one)]
    assert Frame.concatenated(frames).orders == {}
    assert Frame.concatenated(frames[::2])[:3].orders == {"a": ("low", "high")}


def test_a_run_on_declared_orders_resumes_and_samples_the_labels(tmp_path: Path) -> None:
    import pyarrow as pa

    frame, run = declared(), tmp_path / "run"
    job = Job.new(frame, run=str(run), latent=2, steps=8, batch=32, network="mlp:width=8")
    with job:
        for _ in range(4):
            next(job)
        job.checkpoint()
    made = vs.resume(run)
    columns = {c.name: c for c in made.data().space.columns}
    assert columns["level"].kind is Kind.ORDINAL and columns["level"].values == (3, 1, 2)
    drawn = made.sample(40)
    assert set(drawn.columns["grade"].tolist()) <= {"low", "mid", "high", "best", None}
    assert drawn.orders["grade"] == ("low", "mid", "high", "best")
    assert main(["sample", str(run), "-n", "40", "-o", str(tmp_path / "s.parquet")]) == 0
    samples = pa.parquet.read_table(tmp_path / "s.parquet")
    assert set(samples["level"].to_pylist()) <= {1, 2, 3, None}
    again = vs.load(str(tmp_path / "s.parquet")).space
    assert {c.name: c.kind for c in again.columns}["grade"] is Kind.ORDINAL
