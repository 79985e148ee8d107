"""Dispersions of counts, and the scale that levels share: where they start, how fast they are
learned, and runs of earlier formats."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
import yaml

import vaestro as vs
from tests.conftest import make_data, make_space
from tests.test_contracts import batch_for, small_model
from tests.test_counts import simulated, write_h5ad
from vaestro import densities
from vaestro.data.tables import frame_of
from vaestro.frames import Frame
from vaestro.likelihoods.dispersions import START_LIMIT
from vaestro.likelihoods.scales import PACE
from vaestro.spaces import Kind

TRUE = np.log([0.2, 0.7, 2.0, 5.0, 20.0])
MEANS = np.array([3.0, 40.0, 8.0, 15.0, 60.0])


def gamma_poisson(
    n: int, seed: int = 0, size: np.ndarray | float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Draw counts (n, 5) of means size * MEANS and log inverse dispersions TRUE; and their exact
    log-probabilities, (n,)."""
    r, inverse = np.random.default_rng(seed), np.exp(TRUE)
    mean = np.broadcast_to(size * MEANS, (n, 5))
    x = r.poisson(r.gamma(inverse, mean / inverse))
    return x, scipy.stats.nbinom.logpmf(x, inverse, inverse / (inverse + mean)).sum(1)


def dispersions(model: vs.VAE, given: torch.Tensor | None = None) -> np.ndarray:
    px = model.decode(torch.zeros(1, *model.units), given)
    if isinstance(px, densities.Product):
        px = next(part for _, part in px.parts if isinstance(part, densities.NegativeBinomial))
    base = px.base if isinstance(px, densities.ZeroInflated) else px
    assert isinstance(base, densities.NegativeBinomial)
    return base.log_inverse.detach().numpy().reshape(-1)


def loaded(x: np.ndarray, likelihood: str) -> vs.Data:
    if likelihood.startswith("table"):
        return vs.load(
            frame_of(
                {f"c{i}": x[:, i] for i in range(x.shape[1])}
                | {"real": np.random.default_rng(0).normal(size=len(x))}
            )
        )
    return make_data(make_space(Kind.COUNT, x.shape[1:]), x)


def started(data: vs.Data, likelihood: str) -> vs.VAE:
    model = vs.build(
        data.space, latent=2, likelihood=likelihood, network="mlp:width=8", given=data.given
    )
    vs.training(model, vs.Objective(), data, steps=1, device="cpu")
    return model


# -- the start -------------------------------------------------------------------------------------


@pytest.mark.parametrize("likelihood", ["negative-binomial", "table:scale=column"])
def test_dispersions_start_where_they_fit_the_training_data(likelihood: str) -> None:
    x = gamma_poisson(4000)[0][:, :4]
    np.testing.assert_allclose(
        dispersions(started(loaded(x, likelihood), likelihood)), TRUE[:4], atol=0.25
    )


def test_the_start_depends_on_the_library(tmp_path: Path) -> None:
    """Depths that vary by a factor of ten are no dispersion of the counts given the depth."""
    depth = np.rint(np.exp(np.random.default_rng(1).normal(5, 1.0, 3000)))
    x, _ = gamma_poisson(3000, size=depth[:, None] / MEANS.sum())
    data = vs.load(write_h5ad(tmp_path / "x.h5ad", x, {"depth": depth}), condition=["depth"])
    given = data.train.batch(slice(0, 1)).given
    np.testing.assert_allclose(
        dispersions(started(data, "negative-binomial:library=depth"), given), TRUE, atol=0.3
    )
    # without the library, its spread is a dispersion
    assert dispersions(started(data, "negative-binomial"), given)[4] < 1


@pytest.mark.parametrize("labs", ["ab", "abc"])
def test_each_category_has_its_own_dispersions(tmp_path: Path, labs: str) -> None:
    """The dispersions of batches differ by a factor of e; those of the model start there, and the
    density of a datum has those of its own batch."""
    r, which = np.random.default_rng(3), np.arange(3000) % len(labs)
    inverse = np.exp(TRUE[:4] + (which[:, None] - 1.0))
    means = MEANS[:4] * np.array([1.0, 3.0, 2.0])[which, None]
    x = r.poisson(r.gamma(inverse, means / inverse))
    obs = {"lab": np.array(list(labs))[which], "depth": np.exp(r.normal(size=3000))}
    data = vs.load(write_h5ad(tmp_path / "x.h5ad", x, obs), condition=["depth", "lab"])
    model = started(data, "negative-binomial:dispersion=condition")
    given = data.train.batch(slice(0, 60)).given
    px = model.decode(torch.zeros(60, 2), given)
    expected = TRUE[:4] + (which[data.train.index[:60], None] - 1.0)
    assert px.log_inverse.shape == (60, 4)
    np.testing.assert_allclose(px.log_inverse.detach(), expected, atol=0.45)
    assert not model.likelihood.by_category[:, 0].any()  # the depth is a number
    spread = np.exp(px.log_mean[0].detach().numpy())
    own = np.exp(px.log_inverse.detach().numpy())
    row = torch.from_numpy(x[data.train.index[:60]])
    exact = scipy.stats.nbinom.logpmf(row, own, own / (own + spread)).sum(1)
    np.testing.assert_allclose(px.log_prob(row)[0].detach(), exact, rtol=1e-4)


def test_a_dispersion_by_condition_needs_categories() -> None:
    data = loaded(gamma_poisson(100)[0], "negative-binomial")
    with pytest.raises(ValueError, match=r"expected a condition with categories .* got none"):
        vs.build(data.space, latent=2, likelihood="zero-inflated:dispersion=condition")


def test_a_start_is_bounded_and_does_not_follow_one_cell() -> None:
    r = np.random.default_rng(0)
    x = np.stack(
        [
            np.zeros(1000),
            r.random(1000) < 0.002,
            r.poisson(5, 1000),
            np.full(1000, 7),
            gamma_poisson(1000)[0][:, 3],
        ],
        1,
    ).astype(int)
    plain = dispersions(started(loaded(x, "negative-binomial"), "negative-binomial"))
    assert np.isfinite(plain).all() and np.abs(plain).max() <= START_LIMIT + 1e-3
    # no counts say nothing; Poisson and constant counts have no dispersion
    assert abs(plain[0]) < 1 and plain[2] > 3 and plain[3] > 3
    x[17, 4] = 400  # an estimate by moments falls from 1.7 to 0.24
    outlying = dispersions(started(loaded(x, "negative-binomial"), "negative-binomial"))
    assert abs(outlying[4] - TRUE[3]) < 0.4
    np.testing.assert_allclose(outlying[:4], plain[:4], atol=1e-3)


def test_missing_counts_do_not_enter_the_start() -> None:
    x = gamma_poisson(4000)[0][:, :4]
    missing = np.random.default_rng(2).random(x.shape) < 0.4
    columns = {
        f"c{i}": np.ma.MaskedArray(np.where(missing[:, i], 0, x[:, i]), missing[:, i])
        for i in range(4)
    }
    found = dispersions(started(vs.load(Frame(columns)), "table:scale=column"))
    np.testing.assert_allclose(found, TRUE[:4], atol=0.3)


def test_the_scale_of_levels_starts_where_it_fits() -> None:
    r = np.random.default_rng(0)
    for scale in (0.6, 4.0, 30.0):
        x = np.clip(np.rint(128 + scale * r.logistic(size=(400, 1, 4, 4))), 0, 255).astype(np.uint8)
        data = vs.load(x)
        assert data.space.kind is Kind.LEVELS and data.space.levels == 256
        model = started(data, "discretized-logistic:scale=shared")
        assert float(model.decode(torch.zeros(1, 2)).log_scale.detach()) == pytest.approx(
            math.log(scale), abs=0.1
        )


def test_a_model_that_was_trained_is_not_started_again() -> None:
    for likelihood in ("negative-binomial", "zero-inflated", "table:scale=column"):
        data = loaded(gamma_poisson(300)[0], likelihood)
        model = vs.build(data.space, latent=2, likelihood=likelihood, network="mlp:width=8")
        for _ in vs.training(model, vs.Objective(), data, steps=5, device="cpu"):
            pass
        before = model.likelihood.log_inverse.detach().clone()
        assert before.abs().min() > 0 and model.likelihood.start_values == 0
        vs.training(model, vs.Objective(), data, steps=5, device="cpu")
        assert torch.equal(model.likelihood.log_inverse, before)


# -- the rate, and what it is worth ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("likelihood", "kind"),
    [
        ("negative-binomial", Kind.COUNT),
        ("zero-inflated", Kind.COUNT),
        ("table:scale=column", Kind.TABLE),
        ("discretized-logistic:scale=shared", Kind.LEVELS),
    ],
)
def test_the_pace_multiplies_steps_and_not_the_gradient_that_clipping_sees(
    likelihood: str, kind: Kind
) -> None:
    gradients, moves = {}, {}
    for version in (1, 3):
        model = small_model(
            kind, likelihood=f"{likelihood}{',' if ':' in likelihood else ':'}version={version}"
        )
        numbers = model.likelihood.get_parameter(
            "log_scale" if kind is Kind.LEVELS else "log_inverse"
        )

        def inside(model: vs.VAE = model, kind: Kind = kind) -> torch.Tensor:
            if kind is Kind.LEVELS:
                return model.decode(torch.zeros(1, *model.units)).log_scale.detach().clone()
            return torch.from_numpy(dispersions(model)).clone()

        batch = batch_for(model)
        loss = vs.Objective()(
            model, batch, torch.tensor(0.0), model.noise(1, 5, torch.Generator().manual_seed(0))
        ).loss
        (gradients[version],) = torch.autograd.grad(loss, [numbers])
        before = inside()
        vs.optimizers.AdamW([numbers.detach()]).step([gradients[version]], 1e-3)
        moves[version] = inside() - before
    torch.testing.assert_close(gradients[1], gradients[3])
    torch.testing.assert_close(moves[3], PACE * moves[1], rtol=3e-2, atol=1e-6)


@pytest.mark.parametrize("likelihood", ["negative-binomial", "zero-inflated"])
def test_dispersions_are_learned_within_300_steps(tmp_path: Path, likelihood: str) -> None:
    x, depth, exact = simulated(1500)
    path = write_h5ad(tmp_path / "x.h5ad", x, {"depth": depth})
    data = vs.load(f"{path}:valid=100,test=400", condition=["depth"])
    found = {}
    for version in (1, 2):
        torch.manual_seed(0)
        spec = f"{likelihood}:library=depth" + (",version=1" if version == 1 else "")
        model = vs.build(
            data.space, latent=1, likelihood=spec, network="mlp:width=32", given=data.given
        )
        for _ in vs.training(model, vs.Objective(), data, steps=300, lr=5e-3, device="cpu"):
            pass
        short = exact[data.test.index] - vs.evaluate(model, data.test, k=50)["iwae"].nats
        found[version] = (
            short.mean(),
            np.abs(dispersions(model, data.test.batch(slice(0, 1)).given) - math.log(4)).mean(),
        )
    assert found[2][0] < 0.25 < found[1][0] - 0.05  # nats below the exact log p(x | depth)
    assert found[2][1] < 0.3 < found[1][1] - 0.2  # error of the log inverse dispersion


# -- runs of earlier formats -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "likelihood", ["negative-binomial", "zero-inflated", "discretized-logistic:scale=shared"]
)
def test_a_run_of_an_earlier_format_is_what_it_was(tmp_path: Path, likelihood: str) -> None:
    levels = likelihood.startswith("discretized")
    x = (
        np.random.default_rng(0).integers(0, 32, (300, 1, 4, 4))
        if levels
        else gamma_poisson(300)[0]
    )
    np.save(tmp_path / "x.npy", x.astype(np.uint8 if levels else np.int64))
    source = f"{tmp_path / 'x.npy'}{'' if levels else ':kind=count'}"
    spec = f"{likelihood}{',' if ':' in likelihood else ':'}version=1"
    run = vs.train(
        source,
        run=tmp_path / "run",
        likelihood=spec,
        latent=2,
        network="mlp:width=8",
        steps=20,
        seed=0,
        device="cpu",
    )
    config, described = (
        yaml.safe_load((run.path / "config.yaml").read_text()),
        json.loads((run.path / "config.json").read_text()),
    )
    del config["format"], described["format"]
    config["likelihood"] = described["model"]["likelihood"] = likelihood  # as it was written then
    (run.path / "config.yaml").write_text(yaml.safe_dump(config))
    (run.path / "config.json").write_text(json.dumps(described))
    opened = vs.Run(run.path)
    assert opened.config["likelihood"] == spec
    model = opened.model()
    with torch.no_grad():
        if levels:
            own = model.likelihood.log_scale
            expected = own / (1 + own.abs() / 10) + math.log((opened.data().space.levels - 1) / 2)
            torch.testing.assert_close(model.decode(torch.zeros(1, 2)).log_scale, expected)
            assert abs(float(own) + 2) < 0.1
        else:
            own = model.likelihood.log_inverse
            np.testing.assert_allclose(dispersions(model), own / (1 + own.abs() / 8), rtol=1e-6)
            assert 0 < own.abs().max() < 0.1
    assert vs.resume(run.path, steps=25).finished


def test_weights_of_an_earlier_format_are_not_read_with_another_pace(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", gamma_poisson(300)[0])
    options = {"latent": 2, "network": "mlp:width=8", "steps": 3, "seed": 0, "device": "cpu"}
    source = f"{tmp_path / 'x.npy'}:kind=count"
    old = vs.train(
        source, run=tmp_path / "old", likelihood="negative-binomial:version=1", **options
    )
    more = {"steps": 3, "seed": 0, "device": "cpu", "init": str(old.path)}
    assert (
        vs.train(source, run=tmp_path / "new", **more).config["likelihood"]
        == "negative-binomial:version=1"
    )
    with pytest.raises(
        ValueError,
        match="--likelihood negative-binomial, not --likelihood negative-binomial:version=1",
    ):
        vs.train(source, run=tmp_path / "other", likelihood="negative-binomial", **more)
