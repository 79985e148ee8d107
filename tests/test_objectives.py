"""What an objective is put together of: bounds, schedules, terms on the rate, penalties, aggressive
updates, recipes."""

import itertools
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import vaestro as vs
from tests.conftest import make_data, make_space, make_values
from vaestro import densities, schedules
from vaestro.cli.main import main
from vaestro.densities import PosteriorDensity, log_mean_exp
from vaestro.loop import Training
from vaestro.models import Draws
from vaestro.objectives import Objective, ciwae, elbo, iwae, miwae
from vaestro.parts import TABLE, find
from vaestro.penalties import Capacity, Dip, FreeBits, Mmd, TotalCorrelation, log_aggregate
from vaestro.spaces import Batch, Kind

SPACE = make_space(Kind.BINARY, (6,))
NOW = torch.tensor(0.0)


def built(latent: int = 3, **parts: Any) -> vs.VAE:
    torch.manual_seed(0)
    return vs.build(SPACE, latent=latent, **({"network": "mlp:width=8"} | parts))


def batch_of(rows: int = 6) -> Batch:
    return Batch(torch.from_numpy(make_values(SPACE, rows)))


def drawn(k: int = 1, rows: int = 6, model: vs.VAE | None = None) -> Draws:
    model = model or built()
    return model.draw(
        batch_of(rows), k, noise=model.noise(k, rows, torch.Generator().manual_seed(1))
    )


# -- bounds ----------------------------------------------------------------------------------------


def test_miwae_and_ciwae_lie_where_they_should() -> None:
    draws = drawn(12)
    torch.testing.assert_close(miwae(draws, 1), iwae(draws))
    torch.testing.assert_close(miwae(draws, 12), draws.log_w.mean(0))
    by_hand = torch.stack([log_mean_exp(draws.log_w[4 * i : 4 * i + 4]) for i in range(3)]).mean(0)
    torch.testing.assert_close(miwae(draws, 3), by_hand)
    torch.testing.assert_close(ciwae(draws, 1.0), elbo(draws))
    torch.testing.assert_close(ciwae(draws, 0.0), iwae(draws))
    torch.testing.assert_close(ciwae(draws, 0.3), 0.3 * elbo(draws) + 0.7 * iwae(draws))
    light = draws.weighted(0.5)
    torch.testing.assert_close(
        miwae(light, 1), log_mean_exp(draws.log_px + 0.5 * (draws.log_pz - draws.log_qz))
    )
    assert (elbo(draws.sampled()) <= miwae(draws, 3) + 1e-6).all()
    assert (miwae(draws, 3) <= iwae(draws) + 1e-6).all()


@pytest.mark.parametrize(
    ("objective", "gradient"),
    [("miwae", "score"), ("ciwae:weight=0.3", "score"), ("miwae", "pathwise")],
)
def test_mixed_bounds_have_the_pathwise_gradient_under_other_estimators(
    objective: str, gradient: str
) -> None:
    model, batch = built(2, network="linear").double(), batch_of(2)
    made: Objective = find("objective", objective)(find("gradient", gradient)())
    reference: Objective = find("objective", objective)(find("gradient", "pathwise")())
    bias = model.posterior.encoder.last.bias
    found = []
    for one, repeats in ((made, 6000), (reference, 3000)):
        one.eval()
        each = []
        for i in range(repeats // 100):
            wide = Batch(batch.x.repeat(100, 1))
            loss = one(
                model, wide, NOW, model.noise(one.k, 200, torch.Generator().manual_seed(i))
            ).loss
            each.append(torch.autograd.grad(loss, bias)[0].numpy())
        found.append((np.mean(each, 0), np.std(each, 0, ddof=1) / math.sqrt(len(each))))
    (a, a_error), (b, b_error) = found
    assert (np.abs(a - b) < 4.5 * np.sqrt(a_error**2 + b_error**2) + 1e-9).all()


# -- schedules -------------------------------------------------------------------------------------


def values(schedule: schedules.Schedule, steps: list[float]) -> list[float]:
    return [float(schedule(torch.tensor(float(s), dtype=torch.float64))) for s in steps]


def test_schedules_have_their_values() -> None:
    cyclical = schedules.Cyclical(to=2.0, cycles=2, rise=0.5, share=0.8)
    cyclical.plan(1000, 100.0)
    assert values(cyclical, [0, 100, 200, 399, 400, 500, 600, 799, 800, 1000]) == pytest.approx(
        [0, 1, 2, 2, 0, 1, 2, 2, 2, 2]
    )
    sigmoid = schedules.Sigmoid(to=1.0, epochs=4)
    sigmoid.plan(1000, 100.0)
    assert values(sigmoid, [0, 200, 400, 900]) == pytest.approx([0, 0.5, 1, 1], abs=1e-9)
    inner = 1 / (1 + math.exp(2.5))
    low = 1 / (1 + math.exp(5))
    assert values(sigmoid, [100])[0] == pytest.approx((inner - low) / (1 - 2 * low))


@pytest.mark.parametrize(
    "spec", ["cyclical:steps=1001", "cyclical:share=1.1", "sigmoid:epochs=11", "warmup:steps=2000"]
)
def test_schedules_longer_than_the_run_are_refused(spec: str) -> None:
    # Mistake 16.
    with pytest.raises(ValueError, match="expected a warm-up within the run"):
        find("schedule", spec)().plan(1000, 100.0)


@pytest.mark.parametrize(
    "spec",
    [
        "cyclical:cycles=0",
        "cyclical:rise=0",
        "sigmoid:steepness=0",
        "cyclical:steps=3,share=0.2",
        "geco:target=1,speed=0",
    ],
)
def test_schedules_refuse_what_has_no_meaning(spec: str) -> None:
    with pytest.raises(ValueError, match=r"expected .*; got"):
        find("schedule", spec)()


def test_geco_needs_its_target() -> None:
    with pytest.raises(ValueError, match=r"expected geco:target=\.\.\.; got geco without it"):
        find("schedule", "geco")()


def test_geco_reaches_its_target_with_the_least_rate() -> None:
    data = make_data(SPACE, make_values(SPACE, 400))
    for target in (3.4, 2.6):
        torch.manual_seed(0)
        model = vs.build(SPACE, latent=3, network="mlp:width=32")
        objective = Objective(beta=schedules.Geco(target=target, speed=0.1, decay=0.9))
        records = [
            r
            for s in vs.training(model, objective, data, steps=500, batch=64, lr=5e-3, device="cpu")
            for r in s.records
        ]
        train = [r for r in records if r.split == "train"]
        assert np.mean([r.distortion for r in train[-10:]]) == pytest.approx(target, abs=0.15)
        assert train[-1].bound == pytest.approx(-(train[-1].rate + train[-1].distortion), abs=1e-3)
        assert train[-1].beta != 1.0


# -- terms on the rate -----------------------------------------------------------------------------


def test_free_bits_have_their_value_and_gradient() -> None:
    for group, smooth in itertools.product(("unit", "all"), (0.0, 0.2)):
        draws = drawn()
        rate = (draws.rate * torch.tensor([1.0, 6.0, 30.0])).detach().requires_grad_()
        changed = replace(draws, rate=rate)
        nats = float(rate[0].mean(0).sort().values[1]) * (1.1 if group == "unit" else 1.0)
        term = FreeBits(nats, group=group, smooth=smooth)(changed, NOW).mean()  # type: ignore[arg-type]
        means = rate[0].mean(0) if group == "unit" else rate[0].sum(-1).mean(0, keepdim=True)
        rounded = (
            nats + smooth * torch.nn.functional.softplus((means - nats) / smooth)
            if smooth
            else means.clamp_min(nats)
        )
        assert float(term) == pytest.approx(float(rounded.sum()), rel=1e-5)
        (found,) = torch.autograd.grad(term, rate)
        (expected,) = torch.autograd.grad(rounded.sum(), rate)
        torch.testing.assert_close(found, expected)


def test_a_capacity_has_its_value_and_gradient() -> None:
    for to in (0.01, 5.0):
        draws = drawn()
        rate = draws.rate.detach().requires_grad_()
        term = Capacity(to=to, gamma=7.0, steps=10)
        term.plan(100, 10.0)
        value = term(replace(draws, rate=rate), torch.tensor(5.0)).mean()
        expected = 7.0 * (rate[0].sum(-1).mean() - to / 2).abs()
        assert float(value) == pytest.approx(float(expected), rel=1e-5)
        (a,), (b,) = torch.autograd.grad(value, rate), torch.autograd.grad(expected, rate)
        torch.testing.assert_close(a, b)


def trained(
    objective: Objective, data: vs.Data, steps: int = 400, **parts: Any
) -> tuple[vs.VAE, list[Any]]:
    torch.manual_seed(0)
    model = vs.build(data.space, latent=4, **({"network": "mlp:width=16"} | parts))
    run = vs.training(model, objective, data, steps=steps, batch=64, lr=5e-3, device="cpu")
    return model, [r for s in run for r in s.records]


def noise_data() -> vs.Data:
    """Return coins without structure, of which a code has nothing to say."""
    return make_data(SPACE, np.random.default_rng(0).integers(0, 2, (400, 6)).astype(np.uint8))


def test_free_bits_keep_units_above_them_where_they_would_switch_off() -> None:
    data = noise_data()
    batch = Batch(torch.from_numpy(data.train.values))
    plain, _ = trained(Objective(), data)
    held, records = trained(Objective(rate=FreeBits(0.3)), data)
    low, high = (float(m.draw(batch, 1).rate[0].mean(0).min()) for m in (plain, held))
    assert low < 0.05 < 0.2 < high
    last = records[-1]
    assert last.bound == pytest.approx(-(last.rate + last.distortion), abs=1e-3), (
        "what is reported is not what is optimised"
    )


def test_a_capacity_is_reached() -> None:
    _, records = trained(Objective(rate=Capacity(to=1.5, gamma=30.0)), noise_data())
    assert records[-1].rate == pytest.approx(1.5, abs=0.15)


# -- penalties -------------------------------------------------------------------------------------


def test_the_aggregate_density_has_the_true_one_as_its_mean() -> None:
    # All batches of 2 from 4 data: the mean of the estimate at a draw of datum 0 is q(z) exactly.
    means, logvars = (
        torch.randn(4, 2, dtype=torch.float64),
        0.3 * torch.randn(4, 2, dtype=torch.float64),
    )
    z = torch.randn(1, 2, dtype=torch.float64)
    every = densities.Normal(means, logvars)
    true_joint = torch.exp(every.log_prob(z.unsqueeze(1))).mean()
    true_units = torch.exp(every.cells(z)).mean(0)
    joint, units = [], []
    for other in (1, 2, 3):
        pair = densities.Normal(means[[0, other]], logvars[[0, other]])
        together, alone = log_aggregate(pair, torch.cat([z, z]), 4)
        joint.append(torch.exp(together[0]))
        units.append(torch.exp(alone[0]))
    torch.testing.assert_close(torch.stack(joint).mean(), true_joint)
    torch.testing.assert_close(torch.stack(units).mean(0), true_units)


def test_total_correlation_of_correlated_codes_is_found() -> None:
    # Codes are N(0, C) up to little noise: TC = -log det(corr) / 2.
    rho, n = 0.8, 2000
    mean = np.random.default_rng(0).multivariate_normal([0, 0], [[1, rho], [rho, 1]], n)
    wide = 0.3**2
    q = densities.Normal(
        torch.from_numpy(mean), torch.full((n, 2), math.log(wide), dtype=torch.float64)
    )
    z = q.from_noise(
        torch.randn(1, n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    )
    penalty = TotalCorrelation()
    penalty.rows = n
    found = float(penalty(replace(drawn(), q=q, z=z), NOW))
    corr = rho / (1 + wide)
    assert found == pytest.approx(-0.5 * math.log(1 - corr**2), abs=0.06)


def test_dip_is_what_numpy_says() -> None:
    draws = drawn(rows=50)
    mean, variance = draws.q.mean.detach().numpy(), draws.q.variance.detach().numpy()  # type: ignore[attr-defined]
    for kind in ("i", "ii"):
        covariance = np.cov(mean.T, bias=True) + (np.diag(variance.mean(0)) if kind == "ii" else 0)
        off = covariance - np.diag(np.diag(covariance))
        expected = 3 * (off**2).sum() + 7 * ((np.diag(covariance) - 1) ** 2).sum()
        assert float(Dip(kind=kind, off=3, diagonal=7)(draws, NOW)) == pytest.approx(
            expected, rel=1e-4
        )  # type: ignore[arg-type]


@pytest.mark.parametrize("units", [(4,), (2, 2, 1)])
@pytest.mark.parametrize("name", TABLE["posterior"])
def test_the_covariance_of_dip_is_that_of_draws_for_every_posterior(
    name: str, units: tuple[int, ...]
) -> None:
    generator = torch.Generator().manual_seed(1)
    made, space, rows, k = TABLE["posterior"][name], make_space(Kind.BINARY, (6,)), 1000, 64
    torch.manual_seed(0)
    posterior = made(space, torch.nn.Identity(), made.latents(units)).double()  # type: ignore[attr-defined]
    features = torch.randn(
        rows, *made.outputs(posterior.units), dtype=torch.float64, generator=generator
    )  # type: ignore[attr-defined]
    q = posterior.density(0.6 * features + 0.5)
    z = q.from_noise(posterior.noise(k, rows, generator)).flatten(2).flatten(0, 1).detach()
    centred = z - z.mean(0)
    expected = centred.T @ centred / len(z)
    error = (centred.unsqueeze(1) * centred.unsqueeze(2)).std(0) / math.sqrt(len(z))
    found = Dip(kind="ii").covariance(replace(drawn(), q=q, z=z)).detach()
    # A flow's own moments are of 16 draws of each datum in place of 64, and its means over data are
    # exact to 0.5 % at most.
    allowed = 5 * error if posterior.scored_anywhere else 5 * error * math.sqrt(1 + 64 / 16) + 0.005
    assert ((found - expected).abs() < allowed).all()
    if name not in INDEPENDENT:
        without = torch.cov(q.mean.flatten(1).T, correction=0) + torch.diag(
            q.variance.flatten(1).mean(0)
        )
        assert ((without - expected).abs() > allowed).any(), (
            "the test would not see off-diagonals that are left out"
        )


INDEPENDENT = {"normal", "laplace", "logistic", "student-t", "gumbel", "bernoulli"}


def test_dip_on_the_covariance_of_z_asks_for_a_density_that_has_one() -> None:
    class Foreign(PosteriorDensity):
        mean = torch.zeros(5, 2)  # type: ignore[assignment]

        def log_prob(self, value: torch.Tensor) -> torch.Tensor:
            return value.sum(-1)

        def from_noise(self, noise: torch.Tensor) -> torch.Tensor:
            return noise

        def detach(self) -> "Foreign":
            return self

    draws = replace(drawn(), q=Foreign())
    with pytest.raises(ValueError, match=r"expected q.*mean_covariance.*dip:kind=ii.*got Foreign"):
        Dip(kind="ii").check(draws)
    Dip(kind="i").check(draws)


@pytest.mark.parametrize("kernel", ["imq", "rbf"])
def test_mmd_is_zero_in_the_mean_for_the_prior_and_not_for_others(kernel: Any) -> None:
    model, penalty = built(2), Mmd(kernel=kernel)
    penalty.prepare(model, 1000, 200, 0)
    draws = drawn(model=model)
    generator = torch.Generator().manual_seed(5)
    same, other = [], []
    for step in range(60):
        z = torch.randn(1, 200, 2, generator=generator)
        same.append(float(penalty(replace(draws, z=z), torch.tensor(float(step)))))
        other.append(float(penalty(replace(draws, z=0.7 * z), torch.tensor(float(step)))))
    error = np.std(same, ddof=1) / math.sqrt(60)
    assert abs(np.mean(same)) < 4 * error
    assert np.mean(other) > 6 * error


@pytest.mark.parametrize("name", TABLE["penalty"])
def test_penalties_act_on_the_loss_alone_and_reach_the_encoder(name: str) -> None:
    model, batch = built(), batch_of(16)
    made = find("penalty", name)()
    made.prepare(model, 100, 16, 0)
    noise = model.noise(1, 16)
    plain = Objective()(model, batch, NOW, noise)
    heavy = Objective(penalties=[made])(model, batch, NOW, noise)
    for a, b in (
        (plain.bound, heavy.bound),
        (plain.rate, heavy.rate),
        (plain.distortion, heavy.distortion),
    ):
        assert float(a) == pytest.approx(float(b), abs=1e-5)
    (expected,) = torch.autograd.grad(heavy.loss - plain.loss, model.posterior.encoder.last.bias)
    assert float(expected.abs().max()) > 0
    draws = model.draw(batch, 1, noise=noise)
    assert float(heavy.loss - plain.loss) == pytest.approx(
        made.weight * float(made(draws, NOW)), rel=1e-3, abs=1e-4
    )
    with pytest.raises(ValueError, match="expected a batch of 2 or more"):
        made.prepare(model, 100, 1, 0)


def test_a_total_correlation_that_is_penalised_falls() -> None:
    r = np.random.default_rng(0)
    factors = r.integers(0, 2, (600, 2))
    x = np.repeat(factors, 3, 1) ^ (r.random((600, 6)) < 0.05)
    data = make_data(SPACE, x.astype(np.uint8))
    found = []
    for objective in (Objective(), Objective(penalties=[TotalCorrelation(weight=20.0)])):
        model, _ = trained(objective, data, 300)
        draws = model.draw(
            Batch(torch.from_numpy(data.train.values)),
            1,
            noise=model.noise(1, len(data.train), torch.Generator().manual_seed(0)),
        )
        measure = TotalCorrelation()
        measure.rows = len(data.train)
        found.append(float(measure(draws, NOW)))
    assert found[1] < 0.5 * found[0]


# -- aggressive updates ----------------------------------------------------------------------------


def lagging(steps: int = 40) -> tuple[Training, vs.VAE]:
    data = make_data(SPACE, make_values(SPACE, 200))
    torch.manual_seed(0)
    model = vs.build(SPACE, latent=2, network="mlp:width=8", likelihood="bernoulli")
    return vs.training(
        model, Objective(aggressive=True), data, steps=steps, batch=32, device="cpu"
    ), model


def test_the_encoder_alone_catches_up() -> None:
    run, model = lagging()
    decoder = {k: v.clone() for k, v in model.likelihood.state_dict().items()}
    encoder = {k: v.clone() for k, v in model.posterior.state_dict().items()}
    run.lagging[0].catch_up(0, run.steps)
    assert all(torch.equal(v, model.likelihood.state_dict()[k]) for k, v in decoder.items())
    assert any(not torch.equal(v, model.posterior.state_dict()[k]) for k, v in encoder.items())
    assert run.lagging[0].counted() >= 10
    assert run.lagging[0].counted() == 0


def test_aggressive_training_resumes_bit_for_bit() -> None:
    whole, model = lagging()
    records = [r for s in whole for r in s.records]
    assert sum(r.encoder_updates or 0 for r in records) >= 10
    first, _ = lagging()
    for step in first:
        if step.index == 15:
            state = first.state()
            break
    second, other = lagging()
    second.load(*state)
    for _ in second:
        pass
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in model.state_dict().items())


def test_aggressive_updates_end_when_information_no_longer_rises() -> None:
    run, _ = lagging(400)
    counts = [r.encoder_updates for s in run for r in s.records if r.split == "train"]
    assert counts[0] and counts[-1] == 0


# -- freezing --------------------------------------------------------------------------------------


def test_what_is_frozen_stays_bit_for_bit() -> None:
    data = make_data(SPACE, make_values(SPACE, 200))
    model = built(prior="mixture:components=3")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    for _ in vs.training(
        model,
        Objective(),
        data,
        steps=20,
        batch=32,
        device="cpu",
        freeze=("posterior", "likelihood"),
    ):
        pass
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) != name.startswith("prior."), name
    assert all(p.requires_grad for p in model.parameters()), "and may be trained again"
    with pytest.raises(
        ValueError,
        match="freeze: posterior, likelihood, prior or all-but-new-categories; got 'encoder'",
    ):
        vs.training(model, Objective(), data, steps=2, freeze=("encoder",))
    with pytest.raises(ValueError, match="expected something to train"):
        vs.training(
            built(), Objective(), data, steps=2, freeze=("posterior", "likelihood", "prior")
        )


# -- refusals, recipes and the command line --------------------------------------------------------


def test_what_has_no_meaning_is_refused_with_the_nearest_that_has() -> None:
    for make, message in (
        (
            lambda: Objective("iwae", k=3, rate=FreeBits(0.5)),
            "expected objective elbo with FreeBits",
        ),
        (
            lambda: Objective("iwae", k=3, rate=Capacity(to=2)),
            "expected objective elbo with Capacity",
        ),
        (
            lambda: Objective(gradient=find("gradient", "stl")(), rate=FreeBits(0.5)),
            "expected gradient pathwise with FreeBits",
        ),
        (
            lambda: Objective(k=2, gradient=find("gradient", "score")(), penalties=[Dip()]),
            "expected gradient pathwise with penalties",
        ),
        (
            lambda: find("objective", "miwae")(find("gradient", "stl")()),
            "expected gradient pathwise for miwae with k > 1",
        ),
        (
            lambda: find("objective", "ciwae")(find("gradient", "dreg")()),
            "expected gradient pathwise for ciwae",
        ),
        (lambda: find("objective", "ciwae:weight=2")(), "expected a weight in"),
        (lambda: FreeBits(-1.0), "expected free bits"),
        (lambda: Capacity(to=2, gamma=0), "expected gamma above 0"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    data = make_data(SPACE, make_values(SPACE, 100))
    for parts, objective, message in (
        (
            {"prior": "mixture"},
            Objective(rate=FreeBits(0.5)),
            "expected a closed-form rate of each unit for free bits",
        ),
        (
            {"posterior": "full-normal"},
            Objective(penalties=[TotalCorrelation()]),
            "expected a posterior of independent units",
        ),
        (
            {"posterior": "planar"},
            Objective(aggressive=True),
            "expected one process and an encoder",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            vs.training(built(**parts), objective, data, steps=2, batch=16, device="cpu")
    for _ in vs.training(
        built(prior="mixture"),
        Objective(rate=FreeBits(1.0, group="all")),
        data,
        steps=2,
        batch=16,
        device="cpu",
    ):
        pass


NEEDED = {"geco": ":target=3", "sigma-vae": None}


@pytest.mark.parametrize("name", TABLE["recipe"])
def test_recipes_expand_to_options_that_repeat_them(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real = name == "sigma-vae"
    x = (
        np.random.default_rng(0).normal(size=(120, 4)).astype(np.float32)
        if real
        else make_values(SPACE, 120)
    )
    np.save(tmp_path / "x.npy", x)
    run, again = tmp_path / "run", tmp_path / "again"
    small = [
        "--steps",
        "12",
        "--batch",
        "16",
        "--latent",
        "2",
        "--network",
        "mlp:width=8",
        "--quiet",
    ]
    small += ["--prior", "vamp:inputs=4"] if name == "vampprior" else []
    assert (
        main(
            [
                "train",
                str(tmp_path / "x.npy"),
                "--recipe",
                name + (NEEDED.get(name) or ""),
                "--run",
                str(run),
                *small,
            ]
        )
        == 0
    ), capsys.readouterr()
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert "recipe" not in config
    assert (
        main(["train", "--config", str(run / "config.yaml"), "--run", str(again), "--quiet"]) == 0
    ), capsys.readouterr()
    lines = [
        [json.loads(line) for line in (r / "metrics.jsonl").read_text().splitlines()]
        for r in (run, again)
    ]
    assert [line["bound"] for line in lines[0]] == [line["bound"] for line in lines[1]]
    assert main(["diagnose", str(run), "--quiet"]) == 0, capsys.readouterr()


def test_an_option_beside_a_recipe_wins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "x.npy", make_values(SPACE, 120))
    (tmp_path / "base.yaml").write_text("beta: 0.5\nlatent: 3\n")
    base = ["train", str(tmp_path / "x.npy"), "--config", str(tmp_path / "base.yaml"), "--dry-run"]
    assert main([*base, "--recipe", "beta-vae:beta=7"]) == 0
    assert "beta: 7" in capsys.readouterr().out, "a recipe wins over a file"
    assert main([*base, "--recipe", "beta-vae:beta=7", "--beta", "2"]) == 0
    assert re.search("beta: '?2", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--recipe", "geco"], "expected geco:target=...; got geco without it"),
        (["--recipe", "beta-tcvea"], "expected a recipe: 'beta-tcvae'"),
        (
            ["--free-bits", "some"],
            "expected free bits as NATS or NATS:group=all,smooth=0.1; got 'some'",
        ),
        (["--free-bits", "0.5", "--objective", "iwae"], "expected objective elbo with FreeBits"),
        (
            ["--free-bits", "0.5", "--capacity", "to=3"],
            "expected free bits or a capacity; got both",
        ),
        (["--free-bits", "0.5:group=some"], "expected free-bits:group to be 'unit' or 'all'"),
        (["--capacity", "gamma=3"], "expected capacity:to=...; got capacity without it"),
        (["--capacity", "to=3,share=2"], "expected a warm-up within the run"),
        (["--penalty", "tc"], "expected a penalty"),
        (
            ["--penalty", "mmd", "--gradient", "score", "--objective", "elbo:k=2"],
            "expected gradient pathwise with penalties",
        ),
        (["--beta", "cyclical:share=3"], "expected a warm-up within the run"),
        (
            ["--freeze", "decoder"],
            "to freeze: posterior, likelihood, prior or all-but-new-categories; got 'decoder'",
        ),
        (["--objective", "miwae:m=0"], "expected m and k of 1 or more"),
        (
            ["--gradient", "score", "--objective", "iwae:k=1"],
            "expected k of 2 or more draws for the baseline leave-one-out",
        ),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_written(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "x.npy", make_values(SPACE, 120))
    run = tmp_path / "run"
    assert (
        main(["train", str(tmp_path / "x.npy"), "--run", str(run), "--steps", "5", *options]) == 2
    )
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error, error
    assert not run.exists()
