"""Ordinal columns: ordered categories with cumulative logits."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vaestro as vs
from vaestro.cli.main import main
from vaestro.data.tables import frame_of
from vaestro.likelihoods.ordinal import Cuts
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
    start = type(model.likelihood).start(model.space)
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
    command("sample", run, "-n", "40", "-o", str(tmp_path / "s.csv"))
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
