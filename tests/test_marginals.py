"""Columns have ranges, shapes and atoms: transforms, mixtures with atoms, and limits of draws."""

from pathlib import Path

import numpy as np
import pytest
import torch

import vaestro as vs
from vaestro import densities, files
from vaestro.data.marginals import atoms, marginal
from vaestro.spaces import BinaryColumn, RealColumn, Space, TableSpace, restored_space
from vaestro.spaces.warps import Warps

N = 2000


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VAESTRO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def table(n: int = N) -> dict[str, np.ndarray]:
    """Return columns that are log-normal, skewed, normal, of a share, with atoms, and a binary."""
    r = np.random.default_rng(0)
    hours = np.where(r.random(n) < 0.46, 40, np.clip(np.rint(r.normal(40, 14, n)), 1, 99))
    return {
        "hours": hours.astype(int),
        "income": np.exp(r.normal(10, 1, n)).round(2),
        "age": np.clip(17 + r.gamma(3, 8, n), 17, 90).astype(int),
        "height": r.normal(170, 10, n),
        "rain": np.where(r.random(n) < 0.6, 0.0, r.gamma(1, 2, n)),
        "share": 1 / (1 + np.exp(-r.normal(size=n))),
        "ill": r.random(n) < 0.3,
    }


@pytest.fixture(scope="module")
def data() -> vs.Data:
    return vs.load(table())


def test_the_transform_of_a_column_is_chosen_by_held_out_likelihood(data: vs.Data) -> None:
    columns = {c.name: c for c in data.space.columns}
    assert {n: c.transform for n, c in columns.items() if n != "ill"} == {
        "hours": "identity",
        "income": "log",
        "age": "log",
        "height": "identity",
        "rain": "quantiles",
        "share": "logit",
    }
    assert columns["hours"].points == (40.0,)
    assert columns["rain"].points == (0.0,)
    assert columns["hours"].start[0] == pytest.approx(0.47, abs=0.03)
    train = data.train.outward().columns  # type: ignore[union-attr]
    assert columns["age"].limits == (train["age"].min(), train["age"].max())
    said = "\n".join(data.notes)
    assert "log (income, age), quantiles (rain), logit (share)" in said
    assert "frequent values with a probability of their own: hours (40: 4" in said


def test_few_rows_and_other_options_leave_columns_as_they_are() -> None:
    few = vs.load({n: v[:80] for n, v in table().items()}).space
    plain = vs.load(table(), marginals="plain").space
    for space in (few, plain):
        assert {(c.transform, c.points) for c in space.columns} == {("identity", ())}
    named = vs.load(table(), log="age+income", identity="rain", quantiles="height").space
    chosen = {c.name: c.transform for c in named.columns}
    assert (chosen["age"], chosen["rain"], chosen["height"]) == ("log", "identity", "quantiles")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"log": "height", "logit": "height"}, "one transform for column 'height'; got log= and"),
        ({"logit": "income"}, "values in the range of logit= in column 'income'; got some from"),
        (
            {"log": "ill"},
            "a real column for log=; got 'ill', which is read as binary (leave it out",
        ),
        ({"marginals": "none"}, "expected marginals to be fitted or plain; got 'none'"),
        ({"log": "incone"}, "expected log= to name a column"),
    ],
)
def test_transforms_that_do_not_suit_are_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError) as error:
        vs.load(table(), **options)  # type: ignore[arg-type]
    assert message in str(error.value)


@pytest.mark.parametrize("real", ["gaussian", "laplace", "logistic", "student-t"])
def test_the_density_of_a_column_integrates_to_one(data: vs.Data, real: str) -> None:
    space = data.space
    model = vs.build(
        space, latent=3, likelihood=f"table:real={real}", network="mlp:width=8"
    ).double()
    px = model.likelihood(torch.randn(1, 1, 3, dtype=torch.float64)).parts[0][1]
    likelihood = model.likelihood
    half = 0.5 * likelihood.widths
    # the substitution x = sinh(t) reaches far tails, with a step at each edge of an atom
    t = torch.linspace(-14, 14, 400_001, dtype=torch.float64)
    for i, column in enumerate(space.columns[: likelihood.reals]):
        centres = likelihood.centres[i][: len(column.points)]
        edges = [c + s * half[i] * (1 + e) for c in centres for s in (-1, 1) for e in (-1e-9, 1e-9)]
        inside = [c + half[i] * torch.linspace(-1, 1, 1001).double() for c in centres]
        x = torch.cat([torch.sinh(t), *edges, *inside]).unique()
        values = torch.zeros(len(x), likelihood.reals, dtype=torch.float64)
        values[:, i] = x
        density = px.cells(values)[0, :, i].exp().detach()
        assert float(torch.trapezoid(density, x)) == pytest.approx(1, abs=3e-3), column.name


def test_transforms_are_increasing_maps_of_the_whole_line(data: vs.Data) -> None:
    reals = [c for c in data.space.columns if not c.counting]
    warps = Warps.of(reals)
    line = torch.linspace(-30, 30, 20_001, dtype=torch.float64)
    x = line[:, None].expand(-1, len(reals))
    scores, log_slopes = warps.scores(x)
    torch.testing.assert_close(warps.values(scores), x, rtol=1e-9, atol=1e-9)
    assert (scores.diff(dim=0) > 0).all()
    x = x.clone().requires_grad_()
    slopes = torch.autograd.grad(warps.scores(x)[0].sum(), x)[0]
    torch.testing.assert_close(slopes.log(), log_slopes, rtol=1e-7, atol=1e-7)


def test_means_and_draws_of_a_mixture_agree(data: vs.Data) -> None:
    model = vs.build(data.space, latent=2, network="mlp:width=8")
    torch.manual_seed(0)
    px = model.likelihood(torch.zeros(40_000, 1, 2)).parts[0][1]
    draws = px.sample(torch.Generator().manual_seed(0))[:, 0]
    error = draws.std(0) / 200
    assert ((draws.mean(0) - px.mean[0, 0]).abs() < 5 * error + 0.01).all()
    hours = [c.name for c in data.space.columns].index("hours")
    share = px.atoms.contain(draws)[:, hours].any(-1).double().mean()
    assert float(share) == pytest.approx(px.log_shares[0, 0, hours, 1].exp().item(), abs=0.03)


def test_an_atom_is_far_above_its_neighbours() -> None:
    r = np.random.default_rng(0)
    heaped = np.where(r.random(N) < 0.5, 5 * r.integers(4, 12, N), r.integers(10, 70, N))
    assert sorted(atoms(heaped.astype(float), 1.0)[0]) == [20, 25, 30, 35, 40, 45, 50, 55]
    for smooth in (r.poisson(4, N), r.integers(0, 12, N), np.rint(r.normal(50, 9, N))):
        assert atoms(smooth.astype(float), 1.0) == ((), ())
    zeros = np.where(r.random(N) < 0.3, 0, r.poisson(40, N)).astype(float)
    assert atoms(zeros, 1.0)[0] == (0.0,)


def test_a_normal_column_keeps_its_values() -> None:
    r = np.random.default_rng(1)
    for _ in range(10):
        values = r.normal(3, 2, 500)
        assert marginal(values, 0.0, 3.0, 2.0).transform == "identity"


def test_draws_and_means_lie_within_the_values_of_the_training_rows(place: Path) -> None:
    columns = table(400)
    run = vs.train(columns, run="r", steps=20, latent=2, network="mlp:width=16", progress=False)
    space: Space = vs.open("r").model.space
    limits = {c.name: c.limits for c in space.columns if c.limits}
    drawn = run.sample(3000)
    z = np.random.default_rng(0).normal(0, 30, (200, 2))
    for frame in (drawn, run.decode(z), run.decode(z, dtype="float")):
        for name, (low, high) in limits.items():
            values = frame.columns[name].data
            assert low <= values.min() and values.max() <= high, name
    for name in ("hours", "age"):
        assert drawn.columns[name].dtype == columns[name].dtype
    assert (drawn.columns["hours"] == 40).mean() == pytest.approx(0.47, abs=0.2)
    assert (drawn.columns["rain"] == 0).mean() == pytest.approx(0.6, abs=0.2)


def test_a_space_with_marginals_is_stored(data: vs.Data) -> None:
    space = data.space
    again = restored_space(space.scalars(), space.arrays())
    assert again.columns == space.columns
    old = TableSpace.of([RealColumn("a", "float32"), BinaryColumn("b", "bool")])
    stored = old.scalars()
    for column in stored["columns"]:
        for name in ("transform", "numbers", "points", "limits"):
            del column[name]
    assert restored_space(stored, {}).columns == old.columns


def test_bounds_are_densities_of_the_users_units(data: vs.Data) -> None:
    """Multiplying a column by ten lowers the bound by log 10, also through a transform."""
    ten = {n: v * 10.0 if n in ("income", "height") else v for n, v in table().items()}
    one, other = data, vs.load(ten)
    bounds = []
    for loaded in (one, other):
        torch.manual_seed(0)
        model = vs.build(loaded.space, latent=2, network="mlp:width=8")
        batch = loaded.train.batch(slice(0, 50))
        noise = torch.zeros(1, 50, 2 + 6)
        bounds.append(float(model.draw(batch, 1, noise=noise).log_w.mean().detach()))
    assert bounds[0] - bounds[1] == pytest.approx(2 * np.log(10), abs=0.01)


def test_a_table_of_an_earlier_format_has_one_scale_for_each_column() -> None:
    former = {written: files.current({"likelihood": "table"}, written) for written in (1, 3)}
    assert former[1]["likelihood"] == "table:scale=column,version=1"
    assert former[3]["likelihood"] == "table:scale=column,version=2"
    of_cells = files.current({"likelihood": "table:scale=cell"}, 3)["likelihood"]
    assert of_cells == "table:scale=cell,version=2"
    assert files.current({"likelihood": "table"}, files.FORMAT)["likelihood"] == "table"


def test_a_mixture_without_atoms_is_the_density_of_the_scores() -> None:
    warps = Warps([("log", (1e-6, 1e6, 0.0, 1.0, 0.0))])
    lognormal = densities.Warped(densities.Normal(torch.zeros(1), torch.zeros(1)), warps)
    x = torch.tensor([[0.3], [2.0], [7.0]])
    expected = torch.distributions.LogNormal(0.0, 1.0).log_prob(x)
    torch.testing.assert_close(lognormal.cells(x), expected)
    assert float(lognormal.mean) == pytest.approx(np.exp(0.5), rel=1e-3)
