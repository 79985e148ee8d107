"""Multiple imputation: several draws of the missing cells in one command and in Python."""

from pathlib import Path

import numpy as np
import pytest

import vaestro as vs
from vaestro.cli import main
from vaestro.data.tables import read_table

G = np.random.default_rng(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train on y = x + noise, with a fifth of y missing."""
    path = tmp_path_factory.mktemp("imputations")
    x = G.normal(size=600)
    y = x + 0.5 * G.normal(size=600)
    rows = ["x,y,kind"]
    for i in range(600):
        rows.append(f"{x[i]:.6f},{'' if i % 5 == 0 else f'{y[i]:.6f}'},{'ab'[int(x[i] > 0)]}")
    (path / "t.csv").write_text("\n".join(rows) + "\n")
    vs.train(path / "t.csv", run=path / "run", latent=2, steps=600, device="cpu")
    return path


def test_a_table_has_the_number_of_the_imputation(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "full.csv"
    words = ["impute", str(folder / "run"), str(folder / "t.csv"), "-o", str(out), "--k", "30"]
    assert main([*words, "-n", "4"]) == 0
    assert "4 imputations of 600 rows with 120 missing cells" in capsys.readouterr().out
    frame = read_table(out, {}).splits["all"]
    assert list(frame.columns) == ["imputation", "x", "y", "kind"]
    assert frame.columns["imputation"].tolist() == [i for i in (1, 2, 3, 4) for _ in range(600)]
    y = np.asarray(frame.columns["y"].filled(np.nan)).reshape(4, 600)
    assert np.isfinite(y).all()
    missing = np.arange(600) % 5 == 0
    assert (y[:, ~missing] == y[0, ~missing]).all(), "observed cells are copied"
    assert (y[:, missing].std(0) > 0).all(), "missing cells differ between imputations"


def test_draws_spread_as_much_as_the_cell_is_uncertain(folder: Path) -> None:
    filled = vs.open(folder / "run").imputations(folder / "t.csv", 40, k=50)
    y = np.stack([np.asarray(frame.columns["y"]) for frame in filled])
    missing = np.arange(600) % 5 == 0
    within = np.sqrt(y[:, missing].var(0, ddof=1).mean())
    assert 0.35 < within < 0.75, "the noise of y given x is 0.5"
    x = np.asarray(filled[0].columns["x"])
    assert np.corrcoef(y[:, missing].mean(0), x[missing])[0, 1] > 0.9


def test_the_first_one_is_that_of_sample(folder: Path) -> None:
    session = vs.open(folder / "run")
    one = session.impute(folder / "t.csv", k=10, sample=True)
    first, second = session.imputations(folder / "t.csv", 2, k=10)
    again = vs.Run(folder / "run").imputations(folder / "t.csv", 2, k=10)[1]
    for name in ("x", "y"):
        assert np.array_equal(one.columns[name], first.columns[name])
        assert np.array_equal(second.columns[name], again.columns[name])
    assert not np.array_equal(first.columns["y"], second.columns["y"])


def test_an_array_gets_a_first_axis(tmp_path: Path) -> None:
    x = G.normal(size=(200, 3))
    x[::7, 1] = np.nan
    np.save(tmp_path / "x.npy", x)
    source, run, out = f"{tmp_path / 'x.npy'}:missing=nan", tmp_path / "run", tmp_path / "f.npy"
    vs.train(source, run=run, latent=2, steps=20, device="cpu")
    assert main(["impute", str(run), source, "-n", "3", "-o", str(out), "--quiet"]) == 0
    full = np.load(out)
    assert full.shape == (3, 200, 3) and np.isfinite(full).all()
    assert np.array_equal(full[1][~np.isnan(x)], x[~np.isnan(x)])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-n", "0", "-o", "f.csv"], "1 or more imputations"),
        (["-n", "2", "--dtype", "float", "-o", "f.csv"], "no dtype"),
        (["-n", "2", "-o", "f.png"], "a table or an array for -n"),
    ],
)
def test_impossible_imputations_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert main(["impute", str(folder / "run"), str(folder / "t.csv"), *words]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1
