"""Scales of cells: in the user's units, whatever the preprocessing; where they start, how fast they
move; sums over many cells."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import vaestro as vs
from tests.conftest import make_data, make_space, make_values
from tests.test_contracts import batch_for, small_model
from vaestro import densities
from vaestro.data.tables import frame_of
from vaestro.files import FORMAT, VERSIONED, current, read_config
from vaestro.likelihoods.scales import PACE
from vaestro.parts import TABLE, find
from vaestro.signatures import options_of
from vaestro.spaces import Batch, Kind, RealColumn, Space, TableSpace

LOCATED = ("gaussian", "laplace", "logistic", "student-t")
WORD = {"gaussian": "variance"}


def spec(family: str, how: str, *more: str) -> str:
    return f"{family}:{WORD.get(family, 'scale')}={','.join([how, *more])}"


# -- the user's units ------------------------------------------------------------------------------


def vectors(scale: np.ndarray) -> Space:
    return replace(make_space(Kind.REAL, scale.shape), offset=np.zeros(scale.shape), scale=scale)


def of_columns(scale: np.ndarray) -> Space:
    return TableSpace.of(
        [RealColumn(f"c{i}", "float64", scale=float(s)) for i, s in enumerate(scale)]
    )


def bounds(space: Space, likelihood: str) -> torch.Tensor:
    """Return log weights of some data inside, the same for every space, under weights and scales
    that are the same for all."""
    torch.manual_seed(0)
    model = vs.build(space, latent=3, network="mlp:width=8", likelihood=likelihood)
    r = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name in ("likelihood.log_scale", "likelihood.log_variance"):
                p.copy_(torch.linspace(-0.02, 0.03, max(1, p.numel())).reshape(p.shape))
    x = torch.randn(4, *space.shape, generator=r)
    return (
        model.double()
        .draw(Batch(x.double()), 2, noise=torch.randn(2, 4, 3, generator=r).double())
        .log_w
    )


def test_powers_of_ten_in_the_columns_change_a_bound_by_the_log_determinant() -> None:
    """Over the table of parts: what is learned for each cell is the same model in any units; what
    cells share, in units that they share."""
    powers = 10.0 ** np.array([-3.0, 2.0, 0.0, 6.0, -1.0, 1.0])
    own = 1 + np.arange(6) / 7
    models = [
        (spec(f, how), vectors, shift)
        for f in LOCATED
        for how, shift in [("cell", powers), ("pixel", powers), ("shared", 1e3)]
    ]
    models += [
        (f"table:real={f}{scale}", of_columns, powers)
        for f in LOCATED
        for scale in (",scale=column", "")
    ]
    assert {f for f in TABLE["likelihood"] if Kind.REAL in TABLE["likelihood"][f].accepts} == set(
        LOCATED
    )  # type: ignore[attr-defined]
    for likelihood, made, shift in models:
        before, after = (bounds(made(own * by), likelihood) for by in (1.0, shift))
        moved = float(np.log(np.broadcast_to(shift, 6)).sum())
        torch.testing.assert_close(after, before - moved, rtol=1e-5, atol=1e-4, msg=likelihood)
    for family in LOCATED:  # a number is in the user's units
        power = 2 if family == "gaussian" else 1
        before, after = (
            bounds(vectors(own * by), spec(family, repr(0.3 * by**power))) for by in (1.0, 1e3)
        )
        torch.testing.assert_close(after, before - 6 * math.log(1e3), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("family", LOCATED)
@pytest.mark.parametrize(
    ("shape", "together"),
    [((6,), [slice(None)]), ((5, 3), [np.s_[:, c] for c in range(3)]), ((2, 3, 4), [0, 1])],
)
def test_shared_is_one_scale_in_the_users_units_for_each_channel(
    family: str, shape: tuple[int, ...], together: list[Any]
) -> None:
    scale = np.exp(np.random.default_rng(0).normal(size=shape))
    model = vs.build(
        vectors(scale), latent=2, likelihood=spec(family, "shared"), network="mlp:width=8"
    )
    with torch.no_grad():
        numbers = model.likelihood.numbers
        numbers.copy_(0.01 * torch.arange(1.0, 1 + numbers.numel()).reshape(numbers.shape))
        px = model.decode(torch.zeros(1, 2))
    log_scale = (0.5 * px.logvar if family == "gaussian" else px.log_scale).expand(1, 1, *shape)[
        0, 0
    ].numpy() + np.log(scale)
    assert len({round(float(log_scale[cells].mean()), 4) for cells in together}) == len(together)
    for cells in together:
        assert np.ptp(log_scale[cells]) < 1e-5


@pytest.mark.usefixtures("float64")
def test_equal_noise_on_columns_of_unequal_size_is_represented_exactly() -> None:
    """The true decoder and posterior of factors with equal noise: each log weight is the exact log
    p(x), in the user's units."""
    r = np.random.default_rng(0)
    weights, noise = r.normal(size=(8, 2)) * np.exp(r.normal(size=(8, 1))), 0.4
    covariance = weights @ weights.T + noise**2 * np.eye(8)
    x = r.multivariate_normal(np.zeros(8), covariance, 50)
    scale = np.sqrt(np.diag(covariance))
    precision = np.eye(2) + weights.T @ weights / noise**2
    for how in ("shared", "cell"):
        space = vectors(scale)
        model = vs.build(space, latent=2, network="linear", likelihood=spec("gaussian", how))
        reference = model.likelihood.reference
        with torch.no_grad():
            model.likelihood.decoder.last.weight.copy_(torch.from_numpy(weights / scale[:, None]))
            # for a shared one the same in each cell
            relative = torch.from_numpy(2 * np.log(noise / scale)) - reference
            model.likelihood.put(relative.mean() if how == "shared" else relative)
            z = torch.from_numpy(r.normal(size=(3, 50, 2)))
            log_px, log_pz = model.log_terms(Batch(torch.from_numpy(x / scale)), z)
        mean = x @ weights @ np.linalg.inv(precision) / noise**2
        q = torch.distributions.MultivariateNormal(
            torch.from_numpy(mean), precision_matrix=torch.from_numpy(precision)
        )
        exact = torch.distributions.MultivariateNormal(
            torch.zeros(8), torch.from_numpy(covariance)
        ).log_prob(torch.from_numpy(x))
        torch.testing.assert_close(
            log_px + log_pz - q.log_prob(z), exact.expand(3, 50), rtol=1e-9, atol=1e-9
        )


def test_vectors_get_a_scale_for_each_cell_and_images_and_series_one_for_each_channel() -> None:
    for family in LOCATED:
        for shape, numbers in (((6,), (6,)), ((5, 3), (3,)), ((2, 3, 4), (2, 1, 1))):
            model = vs.build(
                make_space(Kind.REAL, shape), latent=2, likelihood=family, network="mlp:width=8"
            )
            assert model.likelihood.numbers.shape == numbers
    levels = vs.build(
        make_space(Kind.LEVELS, (3, 4, 4)), latent=2, likelihood="gaussian", network="mlp:width=8"
    )
    assert levels.likelihood.numbers.shape == (3, 1, 1)


def test_a_constant_column_does_not_enter_a_shared_variance() -> None:
    x = np.random.default_rng(0).normal(0, 0.01, (400, 5))
    x[:, 2] = 1e6  # spread over its own size
    data = vs.load(x)
    model = vs.build(
        data.space, latent=2, likelihood="gaussian:variance=shared", network="mlp:width=8"
    )
    training = vs.training(model, vs.Objective(), data, steps=1, device="cpu")
    std = (
        model.decode(torch.zeros(1, 2)).std.detach().expand(1, 1, 5)[0, 0].numpy()
        * data.space.scale
    )
    np.testing.assert_allclose(std[[0, 1, 3, 4]], 0.01, rtol=0.1)
    assert std[2] == pytest.approx(1e6 / math.sqrt(12), rel=1e-3) and training.index == 0


# -- the start, and the rate -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "likelihood",
    [
        "gaussian",
        "laplace",
        "logistic",
        "student-t",
        *(f"table:scale=column,real={f}" for f in LOCATED),
    ],
)
def test_scales_start_where_they_fit_the_training_data(likelihood: str) -> None:
    """Columns of which a few values hold all the variance: standardised, the bulk has a scale of a
    thousandth."""
    x = np.random.default_rng(0).normal(size=(2000, 4))
    x[::250] *= 2000
    data = vs.load(
        frame_of({f"c{i}": x[:, i] for i in range(4)}) if likelihood.startswith("table") else x,
        **({"marginals": "plain"} if likelihood.startswith("table") else {}),
    )
    model = vs.build(data.space, latent=2, likelihood=likelihood, network="mlp:width=8")
    vs.training(model, vs.Objective(), data, steps=1, device="cpu")
    with torch.no_grad():
        values = data.train.fixed().batch(slice(0, len(data.train)), "cpu").x
        px = model.likelihood.family(torch.zeros(1, 1, 4), model.likelihood.spreads())
        residual = px.standardised_residual(values).mean((0, 1))
    torch.testing.assert_close(residual, torch.ones(4), atol=0.02, rtol=0)


def test_a_model_that_was_trained_is_not_started_again() -> None:
    space = make_space(Kind.REAL, (4,))
    data = make_data(space, make_values(space, 200) * 3)
    model = vs.build(space, latent=2, likelihood="gaussian", network="mlp:width=8")
    for _ in vs.training(model, vs.Objective(), data, steps=5, device="cpu"):
        pass
    before = model.likelihood.numbers.detach().clone()
    assert before.abs().min() > 0
    vs.training(model, vs.Objective(), data, steps=5, device="cpu")
    assert torch.equal(model.likelihood.numbers, before)


@pytest.mark.parametrize("likelihood", ["gaussian", "table:scale=column"])
def test_the_pace_multiplies_steps_and_not_the_gradient_that_clipping_sees(likelihood: str) -> None:
    gradients, moves = {}, {}
    for version in (1, 3):
        model = small_model(
            Kind.REAL if likelihood == "gaussian" else Kind.TABLE,
            shape=(1,),
            likelihood=f"{likelihood}{':' if likelihood == 'gaussian' else ','}version={version}",
        )
        numbers, batch = model.likelihood.numbers, batch_for(model)
        loss = vs.Objective()(
            model, batch, torch.tensor(0.0), model.noise(1, 5, torch.Generator().manual_seed(0))
        ).loss
        (gradients[version],) = torch.autograd.grad(loss, [numbers])
        before = model.likelihood.spreads().detach().clone()
        optimizer = vs.optimizers.AdamW([numbers.detach()])
        optimizer.step([gradients[version]], 1e-3)
        moves[version] = model.likelihood.spreads().detach() - before
    torch.testing.assert_close(*(g.flatten() for g in gradients.values()))
    torch.testing.assert_close(moves[3].flatten(), PACE * moves[1].flatten(), rtol=1e-2, atol=0)


@pytest.mark.parametrize("real", ["gaussian", "student-t"])
def test_scales_of_a_wide_table_are_learned_within_200_steps(real: str) -> None:
    r = np.random.default_rng(0)
    x = (
        r.normal(size=(160, 2)) @ r.normal(size=(2, 60)) + 0.15 * r.normal(size=(160, 60))
    ) * np.exp(r.normal(size=60))
    data = vs.load(frame_of({f"c{i}": x[:, i] for i in range(60)}))
    found = {}
    for version in (1, 3):
        torch.manual_seed(0)
        model = vs.build(
            data.space, latent=4, likelihood=f"table:scale=column,real={real},version={version}"
        )
        for _ in vs.training(model, vs.Objective(), data, steps=200, device="cpu"):
            pass
        found[version] = vs.evaluate(model, data.test, k=20, methods=["elbo"])["elbo"].mean()[0]
    assert found[3] > found[1] + 15


@pytest.mark.parametrize(
    "likelihood", [*LOCATED, *(f"table:scale=column,real={real}" for real in LOCATED)]
)
def test_scales_are_near_their_optimum_after_200_steps(likelihood: str) -> None:
    """A table of 1,000 columns with 200 rows, and vectors: the bound gains little if the scales are
    fitted anew to the residuals of the training data."""
    r, cells = np.random.default_rng(0), 1000 if likelihood.startswith("table") else 60
    x = r.normal(size=(200, 3)) @ r.normal(size=(3, cells)) + 0.3 * r.normal(size=(200, cells))
    x *= np.exp(2 * r.normal(size=cells))
    tabular = likelihood.startswith("table")
    source = frame_of({f"c{i}": x[:, i] for i in range(cells)}) if tabular else x
    data = vs.load(source, **({"marginals": "plain"} if tabular else {}))
    model = vs.build(data.space, latent=4, likelihood=likelihood, network="mlp:width=64")
    for _ in vs.training(model, vs.Objective(), data, steps=200, device="cpu"):
        pass
    batch = data.train.batch(slice(0, len(data.train)), "cpu")
    noise = model.noise(1, len(batch), torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = model.draw(batch, 1, noise=noise)
        mean = before.px.mean[0]
        model.likelihood.begin(batch.x, None, mean)
        after = model.draw(batch, 1, noise=noise)
    assert float((after.log_px - before.log_px).mean()) < 0.02 * cells


# -- runs of earlier formats -----------------------------------------------------------------------


def test_a_run_of_an_earlier_format_is_what_it_was(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(300, 5)) * [1, 10, 0.1, 5, 2])
    options = {"latent": 2, "network": "mlp:width=8", "steps": 40, "seed": 0, "device": "cpu"}
    run = vs.train(
        str(tmp_path / "x.npy"), run=tmp_path / "new", likelihood="gaussian:version=1", **options
    )
    assert run.model().likelihood.log_variance.shape == ()
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    described = json.loads((run.path / "config.json").read_text())
    del config["format"], described["format"]
    config["likelihood"] = described["model"]["likelihood"] = "gaussian"  # as it was written then
    (run.path / "config.yaml").write_text(yaml.safe_dump(config))
    (run.path / "config.json").write_text(json.dumps(described))
    opened = vs.Run(run.path)
    assert opened.config["likelihood"] == "gaussian:version=1"
    batch = opened.data().test.batch(slice(0, 10), "cpu")
    model = opened.model()
    noise = model.noise(2, 10)
    log_px = model.draw(batch, 2, noise=noise).log_px
    scale = torch.from_numpy(opened.data().space.scale)
    logvar = model.likelihood.log_variance
    mean = model.draw(batch, 2, noise=noise).px.mean
    expected = densities.Normal(mean, logvar / (1 + logvar.abs() / 20), 1).log_prob(
        batch.x
    ) - float(scale.log().sum())
    torch.testing.assert_close(log_px, expected)
    # its checkpoint has the weights and moments of one variance
    assert vs.resume(run.path, steps=45).finished
    (tmp_path / "mine.yaml").write_text("likelihood: gaussian\n")
    # a person's own file has today's meaning
    assert read_config(tmp_path / "mine.yaml")["likelihood"] == "gaussian"


def test_the_parts_of_an_earlier_format_are_those_that_have_a_version() -> None:
    versioned = {
        name for name, part in TABLE["likelihood"].items() if "version" in options_of(part)
    }
    assert set(VERSIONED) == versioned
    for name in TABLE["likelihood"]:
        written = current({"likelihood": name}, 1)["likelihood"]
        added = {"version": 1} if name in versioned else {}
        added |= {"scale": "column"} if name == "table" else {}
        added |= {"profile": 0} if name == "autoregressive" else {}
        assert find("likelihood", written).options == added
        later = find("likelihood", current({"likelihood": name}, 3)["likelihood"]).options
        assert later == added | ({"version": 2} if name in versioned else {})
        assert current({"likelihood": name}, FORMAT)["likelihood"] == name
    assert current({"likelihood": "gaussian:variance=optimal"}, 1) == {
        "model": "vae",
        "likelihood": "gaussian:variance=optimal,version=1",
    }


def test_spread_of_a_run_of_today_is_written_with_its_format(tmp_path: Path) -> None:
    run = vs.train(
        np.random.default_rng(0).normal(size=(300, 5)),
        run=tmp_path / "run",
        latent=2,
        network="mlp:width=8",
        steps=10,
    )
    assert read_config(run.path / "config.yaml")["likelihood"] == "gaussian"
    assert run.model().likelihood.numbers.shape == (5,)


# -- sums over many cells --------------------------------------------------------------------------

CELLS = (3, 256, 256)


def many(family: str, shape: tuple[int, ...]) -> densities.DataDensity:
    r = torch.Generator().manual_seed(0)
    a, b = 3 * torch.randn(1, 1, *shape, generator=r), torch.randn(1, 1, *shape, generator=r)
    dims = len(shape)
    made = {
        "normal": lambda: densities.Normal(a, b, dims),
        "laplace": lambda: densities.Laplace(a, b, dims),
        "bernoulli": lambda: densities.Bernoulli(a, dims),
        "categorical": lambda: densities.Categorical(torch.stack([a, b, a - b], 2), dims),
        "poisson": lambda: densities.Poisson(a.clamp(-2, 4), dims),
        "discretized": lambda: densities.DiscretizedLogistic(128 + 40 * a, 2 + 0.2 * b, 256, dims),
        "mixture": lambda: densities.LogisticMixture(
            torch.zeros(1, 1, 2, *shape[1:]),
            (128 + 40 * torch.stack([a, b], 2)),
            2 + torch.stack([b, a], 2) / 9,
            None,
            256,
            dims,
            True,
        ),
    }
    return made[family]()


@pytest.mark.parametrize("gradient", [False, True], ids=["evaluated", "trained"])
@pytest.mark.parametrize(
    "family", ["normal", "laplace", "bernoulli", "categorical", "poisson", "discretized", "mixture"]
)
def test_one_cell_of_many_shows_in_the_sum(family: str, gradient: bool) -> None:
    """Two data that differ in one cell: log p differs by that cell alone, which float32 rounds to
    multiples of .03 nats."""
    density = many(family, CELLS)
    with torch.no_grad():
        x = density.sample(torch.Generator().manual_seed(1)).reshape(1, *CELLS)
    errors, shifts = [], []
    for place in (5, 60_000):
        other = x.clone()
        channel, row, column = place // 65536, place // 256 % 256, place % 256
        pixel = (slice(None), slice(None), row, column)
        own = x[0, channel, row, column]
        other[0, channel, row, column] = (own + 1) % {"bernoulli": 2, "categorical": 3}.get(
            family, 10**6
        )
        with torch.set_grad_enabled(gradient):
            found = density.log_prob(other) - density.log_prob(x)
        small = many(family, CELLS)
        for name, value in vars(small).items():
            if isinstance(value, torch.Tensor) and value.ndim >= 4:
                setattr(small, name, value[..., row : row + 1, column : column + 1].double())
        expected = small.log_prob(other[pixel][..., None, None].double()) - small.log_prob(
            x[pixel][..., None, None].double()
        )
        errors.append(abs(float(found.detach()) - float(expected)))
        shifts.append(abs(float(expected)))
    assert max(errors) < 2e-3 and max(shifts) > 0.01


def test_log_weights_of_large_images_differ_as_in_float64() -> None:
    """Two latents close to each other: their log weights differ by the slope of log p along the
    line, to a thousandth of a nat."""
    model = small_model(
        Kind.REAL, shape=CELLS, likelihood="gaussian:variance=0.01", network="linear"
    )
    with torch.no_grad():
        model.likelihood.decoder.last.weight.mul_(0.01)
    batch = batch_for(model, 1)
    near = torch.zeros(2, 1, 3)
    near[1] = 1e-3
    with torch.no_grad():
        log_px = model.log_terms(batch, near)[0]
        means = model.decode(near[:, 0]).mean[0].double()
    exact = -50 * (batch.x.double() - means).square().flatten(1).sum(1)
    assert log_px.abs().min() > 1e6 and log_px.dtype == torch.float64
    assert float(log_px[1, 0] - log_px[0, 0]) == pytest.approx(float(exact[1] - exact[0]), abs=0.02)
