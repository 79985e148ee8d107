"""Learned priors and normalizing flows: against torch's densities, their own Jacobians, integrals
and laws."""

import itertools
import math
import re
from pathlib import Path
from typing import Any, final

import numpy as np
import pytest
import torch

import vaestro as vs
from tests.conftest import make_data, make_space, make_values
from vaestro import densities, latents
from vaestro.cli.main import main
from vaestro.gradients import (
    DoublyReparameterized,
    GumbelSoftmax,
    Pathwise,
    Score,
    StickingTheLanding,
)
from vaestro.parts import find
from vaestro.runs import Job
from vaestro.spaces import Batch, Kind

D = torch.distributions
LEARNED = [
    "mixture:components=3",
    "vamp:inputs=5",
    "maf:layers=2,width=16",
    "coupling:layers=3,width=16",
]


def built(latent: int = 2, shape: tuple[int, ...] = (6,), **parts: Any) -> vs.VAE:
    torch.manual_seed(0)
    model = vs.build(
        make_space(Kind.BINARY, shape), latent=latent, **({"network": "mlp:width=8"} | parts)
    ).double()
    with torch.no_grad():
        for p in model.prior.parameters():
            steep = "maf" in str(parts.get("prior")) or "given" in parts
            p.add_((0.08 if steep else 0.3) * torch.randn_like(p))
    return model


def prior_of(model: vs.VAE) -> Any:
    return model.prior(model.posterior, None)


@pytest.mark.parametrize("prior", LEARNED)
def test_densities_integrate_to_one(prior: str) -> None:
    p = prior_of(built(prior=prior))
    side = torch.linspace(-12, 12, 601, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(side, side, indexing="ij"), -1)  # (601, 601, 2)
    with torch.no_grad():
        total = torch.trapezoid(torch.trapezoid(torch.exp(p.log_prob(grid)), side), side)
    assert float(total) == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize(
    ("prior", "posterior"),
    [(prior, "normal") for prior in LEARNED]
    + [("vamp:inputs=5", q) for q in ("full-normal", "low-rank-normal:rank=2", "laplace")],
)
def test_draws_follow_the_density(prior: str, posterior: str) -> None:
    model = built(prior=prior, posterior=posterior)
    p = prior_of(model)
    side = torch.linspace(-12, 12, 601, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(side, side, indexing="ij"), -1)
    with torch.no_grad():
        weight = torch.exp(p.log_prob(grid))
        weight = weight / weight.sum()
        z = model.draw_prior(40_000, None, torch.Generator().manual_seed(0))
    mean = (weight.unsqueeze(-1) * grid).sum((0, 1))
    second = (weight.unsqueeze(-1) * grid.square()).sum((0, 1))
    for found, expected in ((z.mean(0), mean), (z.square().mean(0), second)):
        assert ((found - expected).abs() < 5 * z.square().std(0) / 200 + 0.01).all()
    cold = model.draw_prior(2000, None, torch.Generator().manual_seed(0), temperature=0.0)
    assert float(p.log_prob(cold).mean()) > float(p.log_prob(z).mean())


@pytest.mark.parametrize("prior", LEARNED)
def test_the_sampled_rate_is_the_kl(prior: str) -> None:
    model = built(prior=prior)
    batch = Batch(torch.from_numpy(make_values(model.space, 1)))
    side = torch.linspace(-12, 12, 601, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(side, side, indexing="ij"), -1)
    with torch.no_grad():
        draws = model.draw(
            batch, 20_000, noise=model.noise(20_000, 1, torch.Generator().manual_seed(0))
        )
        ratio = draws.q.log_prob(grid.unsqueeze(-2))[..., 0] - draws.p.log_prob(grid)
        weight = torch.exp(draws.q.log_prob(grid.unsqueeze(-2))[..., 0])
        exact = torch.trapezoid(torch.trapezoid(weight * ratio, side), side)
    each = draws.rate[:, 0].sum(-1)
    assert float(exact) > 0.01
    assert abs(float(each.mean() - exact)) < 4.5 * float(each.std()) / 20_000**0.5


def test_a_mixture_is_the_one_of_torch_and_of_direct_logsumexp() -> None:
    p = prior_of(built(latent=3, prior="mixture:components=4"))
    z = torch.randn(5, 7, 3, dtype=torch.float64)
    components = D.Independent(D.Normal(p.means, torch.exp(0.5 * p.logvars)), 1)
    torch.testing.assert_close(
        p.log_prob(z), D.MixtureSameFamily(D.Categorical(logits=p.logits), components).log_prob(z)
    )
    # In single precision, narrow components far from the origin: where squares that nearly cancel
    # would be lost.
    means, logvars = 30 + torch.randn(4, 3), torch.full((4, 3), -8.0)
    narrow = densities.NormalMixture(torch.zeros(4), means, logvars, (3,))
    z = means[:1] + 0.02 * torch.randn(50, 3)
    direct = D.MixtureSameFamily(
        D.Categorical(logits=torch.zeros(4)),
        D.Independent(D.Normal(means, torch.exp(0.5 * logvars)), 1),
    )
    torch.testing.assert_close(narrow.log_prob(z), direct.log_prob(z), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("posterior", ["normal", "full-normal", "student-t"])
def test_the_vampprior_is_the_mixture_of_encoded_pseudo_inputs(posterior: str) -> None:
    # Mistake 21: pseudo-inputs without a gradient, or a product of mixtures in place of a mixture.
    model = built(posterior=posterior, prior="vamp:inputs=5")
    assert isinstance(model.prior, vs.priors.Vamp) and model.prior.inputs is not None
    z = torch.randn(2, 3, 2, dtype=torch.float64)
    q = model.posterior.density(model.posterior.encoded(model.prior.inputs))
    each = torch.stack([q.log_prob(z.unsqueeze(2))[..., k] for k in range(5)], -1)
    expected = torch.logsumexp(torch.log_softmax(model.prior.logits, 0) + each, -1)
    torch.testing.assert_close(prior_of(model).log_prob(z), expected)
    if posterior == "normal":
        same = D.MixtureSameFamily(
            D.Categorical(logits=model.prior.logits), D.Independent(D.Normal(q.mean, q.std), 1)
        )
        torch.testing.assert_close(prior_of(model).log_prob(z), same.log_prob(z))
    batch = Batch(torch.from_numpy(make_values(model.space, 4)))
    vs.elbo(model.draw(batch, 2)).mean().backward()
    assert model.prior.inputs.grad is not None and (model.prior.inputs.grad.abs().sum(1) > 0).all()
    assert model.prior.logits.grad is not None and (model.prior.logits.grad != 0).all()
    assert not [name for name in model.prior.state_dict() if "encoder" in name], (
        "the posterior is stored once"
    )


def test_pseudo_inputs_start_at_training_data_once() -> None:
    data = make_data(make_space(Kind.BINARY, (6,)), make_values(make_space(Kind.BINARY, (6,)), 60))
    torch.manual_seed(0)
    model = vs.build(data.space, latent=2, network="mlp:width=8", prior="vamp:inputs=10")
    steps = vs.training(model, vs.Objective(), data, steps=3, batch=16, device="cpu")
    features = data.space.features(torch.from_numpy(data.train.values), None, torch.float32)
    inputs = model.prior.inputs.detach().clone()  # type: ignore[union-attr]
    assert ((inputs.unsqueeze(1) == features.unsqueeze(0)).flatten(2).all(-1)).any(1).all()
    assert len(inputs.unique(dim=0)) > 5
    for _ in steps:
        pass
    trained = model.prior.inputs.detach().clone()  # type: ignore[union-attr]
    assert not torch.equal(trained, inputs)
    vs.training(model, vs.Objective(), data, steps=3, batch=16, device="cpu")
    assert torch.equal(model.prior.inputs.detach(), trained), "a trained prior is not started again"  # type: ignore[union-attr]


# -- flows -----------------------------------------------------------------------------------------

FLOWS = ["planar:layers=3", "iaf", "spline:bins=4"]


def flowed(posterior: str, latent: int = 3) -> tuple[vs.VAE, torch.Tensor]:
    model = built(latent=latent, posterior=posterior)
    n = model.posterior.encoder.outputs[0]  # type: ignore[union-attr,index]
    features = torch.randn(2, n, dtype=torch.float64, generator=torch.Generator().manual_seed(2))  # type: ignore[arg-type]
    return model, features


@pytest.mark.parametrize("posterior", FLOWS)
def test_a_flows_density_is_that_of_its_jacobian(posterior: str) -> None:
    model, features = flowed(posterior)
    noise = torch.randn(1, 2, 3, dtype=torch.float64)
    for i in range(2):
        one = features[i : i + 1]
        jacobian = torch.autograd.functional.jacobian(
            lambda e, f=one: model.q(f).from_noise(e.view(1, 1, 3)).flatten(),
            noise[0, i],
            create_graph=False,
        )
        q = model.q(one)
        z = q.from_noise(noise[:, i : i + 1])
        standard = -0.5 * (noise[0, i].square() + math.log(2 * math.pi)).sum()
        assert float(q.log_prob(z)) == pytest.approx(
            float(standard - torch.linalg.slogdet(jacobian)[1]), abs=1e-8
        )


@pytest.mark.parametrize("posterior", FLOWS[1:])
def test_a_flow_is_scored_at_other_points_by_its_inverse(posterior: str) -> None:
    model, features = flowed(posterior)
    q = model.q(features)
    z = q.from_noise(torch.randn(4, 2, 3, dtype=torch.float64))
    torch.testing.assert_close(q.log_prob(z), q.log_prob(z.clone()), rtol=1e-6, atol=1e-6)
    cut = q.detach()
    found = cut.log_prob(z.detach().requires_grad_())
    assert found.requires_grad, "the path through z stays"
    assert not cut.log_prob(z.detach()).requires_grad, "but nothing of q's own parameters"
    torch.testing.assert_close(found, q.log_prob(z), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("posterior", FLOWS[1:])
def test_a_flows_density_integrates_to_one(posterior: str) -> None:
    model, features = flowed(posterior, latent=2)
    side = torch.linspace(-16, 16, 201, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 1, 2)
    with torch.no_grad():
        density = torch.exp(model.q(features).log_prob(grid.expand(-1, 2, -1))).reshape(201, 201, 2)
    for total in torch.trapezoid(torch.trapezoid(density, side, dim=0), side, dim=0):
        assert float(total) == pytest.approx(1, abs=2e-3)


GRIDS = [
    {"posterior": q}
    for q in ("planar:layers=2", "iaf", "spline:bins=4", "full-normal", "low-rank-normal:rank=2")
]
GRIDS += [{"prior": p} for p in (*LEARNED, "vamp:inputs=5")] + [
    {"posterior": "full-normal", "prior": "vamp:inputs=5"}
]


@pytest.mark.parametrize("parts", GRIDS, ids=lambda parts: "-".join(parts.values()))
def test_latents_that_are_grids(parts: dict[str, str]) -> None:
    model = built(latent=2, shape=(1, 16, 16), network="conv:width=4,blocks=1,factor=8", **parts)
    assert model.units == (2, 2, 2)
    draws = model.draw(Batch(torch.from_numpy(make_values(model.space, 3))), 4)
    assert (
        draws.z.shape == (4, 3, 2, 2, 2)
        and draws.log_w.shape == (4, 3)
        and bool(draws.log_w.isfinite().all())
    )
    assert model.draw_prior(5).shape == (5, 2, 2, 2)
    # A datum's density is that of the datum alone, wherever the leading dimensions lie.
    torch.testing.assert_close(draws.p.log_prob(draws.z[1, 2]), draws.log_pz[1, 2])


@pytest.mark.parametrize("prior", LEARNED[2:])
def test_a_flow_priors_density_is_that_of_its_jacobian(prior: str) -> None:
    p = prior_of(built(latent=3, prior=prior))
    z = torch.randn(3, dtype=torch.float64)
    start, _ = p.transform.call_and_ladj(z)
    jacobian = torch.autograd.functional.jacobian(lambda x: p.transform.call_and_ladj(x)[0], z)
    standard = -0.5 * (start.square() + math.log(2 * math.pi)).sum()
    assert float(p.log_prob(z)) == pytest.approx(
        float(standard + torch.linalg.slogdet(jacobian)[1]), abs=1e-8
    )
    torch.testing.assert_close(p.transform.inv(start), z)


def test_planar_layers_are_invertible_however_they_are_asked_for() -> None:
    from vaestro.flows import PlanarMap

    u, w, b = 20 * torch.randn(500, 2, 3), 20 * torch.randn(500, 2, 3), 5 * torch.randn(500, 2)
    bent = PlanarMap(u.double(), w.double(), b.double())
    assert ((bent.u * bent.w).sum(-1) >= -1 - 1e-9).all()
    assert ((u * w).sum(-1) < -1).any()


def test_estimators_of_flow_posteriors() -> None:
    batch = Batch(torch.from_numpy(make_values(make_space(Kind.BINARY, (6,)), 3)))
    model = built(latent=2, posterior="iaf:layers=1,width=8,context=4")
    means = {}
    for estimator in (Pathwise(), StickingTheLanding()):
        draws = model.draw(
            batch,
            4000,
            gradient=estimator,
            noise=model.noise(4000, 3, torch.Generator().manual_seed(0)),
        )
        value = estimator.surrogate(draws, vs.elbo).mean()
        means[type(estimator).__name__] = torch.autograd.grad(
            value, model.posterior.encoder.last.bias
        )[0]
    a, b = means.values()
    assert float((a - b).norm() / a.norm()) < 0.1
    data = make_data(model.space, make_values(model.space, 40))
    for bad in (StickingTheLanding(), Score(baseline="average")):
        with pytest.raises(
            ValueError,
            match="expected gradient pathwise for a posterior that is scored at its own draws "
            "alone",
        ):
            vs.training(
                built(posterior="planar").float(),
                vs.Objective(gradient=bad),
                data,
                steps=2,
                device="cpu",
            )
    with pytest.raises(ValueError, match="expected gradient pathwise"):
        vs.training(
            built(posterior="planar").float(),
            vs.Objective("iwae", k=2, gradient=DoublyReparameterized()),
            data,
            steps=2,
        )


def test_what_needs_a_density_elsewhere_says_so() -> None:
    model = built(posterior="planar").float()
    data = make_data(model.space, make_values(model.space, 40))
    with pytest.raises(ValueError, match="expected ais:start=prior for a flow posterior"):
        vs.evaluate(model, data.test, k=2, methods="ais")
    with pytest.raises(ValueError, match="expected a posterior that can be scored at any z"):
        vs.evaluate(model, data.test, k=2, methods="information")
    found = vs.evaluate(
        model,
        data.test,
        k=5,
        methods="elbo,iwae,ais:start=prior,temperatures=5,chains=2,gap:steps=5",
    )
    assert found.gap is not None


# -- the gap of the rotated linear model (oracle 2): 0.4598 nats for a diagonal q, at every x ------


def rotated(posterior: str) -> tuple[vs.VAE, Batch, torch.Tensor]:
    """Return probabilistic PCA with rotated factors, its decoder frozen, some data, and their exact
    log p(x)."""
    r = np.random.default_rng(0)
    loadings = r.normal(size=(20, 5))
    x = r.normal(size=(1000, 5)) @ loadings.T + 0.5 * r.normal(size=(1000, 20))
    mean = x.mean(0)
    values, vectors = np.linalg.eigh((x - mean).T @ (x - mean) / len(x))
    values, vectors = values[::-1], vectors[:, ::-1]
    noise = values[5:].mean()
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))
    w = vectors[:, :5] * np.sqrt(values[:5] - noise) @ turn
    space = make_space(Kind.REAL, (20,))
    torch.manual_seed(0)
    model = vs.build(
        space,
        latent=5,
        posterior=posterior,
        likelihood=f"gaussian:variance={noise}",
        network="linear",
        encoder="linear",
    ).double()
    decoder = model.likelihood.decoder.last  # type: ignore[union-attr]
    with torch.no_grad():
        decoder.weight.copy_(torch.from_numpy(w))
        decoder.bias.copy_(torch.from_numpy(mean))
        # The encoder begins with the exact mean, and the variances of the best factorised q: what
        # is left to learn is q's shape.
        inverse = w.T @ w / noise + np.eye(5)
        encoder = model.posterior.encoder.last  # type: ignore[union-attr]
        encoder.weight.mul_(0.01)
        encoder.weight[:5] = torch.from_numpy(np.linalg.solve(inverse, w.T) / noise)
        encoder.bias[:5] = -encoder.weight[:5] @ torch.from_numpy(mean)
        encoder.weight[5:10] = 0.0
        logvar = -np.log(np.diag(inverse))
        # before the soft limit
        encoder.bias[5:10] = torch.from_numpy(logvar / (1 - np.abs(logvar) / 20))
        encoder.weight[10:] = 0.0
        encoder.weight.requires_grad_(False)  # the posterior's shape is the same at every x
    model.likelihood.requires_grad_(False)
    exact = D.MultivariateNormal(
        torch.from_numpy(mean), torch.from_numpy(w @ w.T + noise * np.eye(20))
    ).log_prob(torch.from_numpy(x))
    return model, Batch(torch.from_numpy(x)), exact


@pytest.mark.parametrize(
    ("posterior", "steps", "low", "high"),
    [
        ("normal", 50, 0.4598 - 0.006, 0.4598 + 0.006),
        ("full-normal", 500, -1e-6, 0.002),
        ("low-rank-normal:rank=4", 600, -1e-6, 0.002),
        ("iaf:layers=2", 300, -1e-3, 0.02),
        ("spline:layers=2,bins=8", 200, -1e-3, 0.02),
        ("planar:layers=16", 400, -1e-3, 0.02),
    ],
)
def test_flows_and_covariances_close_the_approximation_gap(
    posterior: str, steps: int, low: float, high: float
) -> None:
    model, batch, exact = rotated(posterior)
    held = model.posterior.scored_anywhere  # then the gradient's noise vanishes with the gap
    estimator = StickingTheLanding() if held else Pathwise()
    peak = 3e-2 if held and posterior != "normal" else 1e-2 if not held else 1e-3
    optimizer = torch.optim.Adam([p for p in model.posterior.parameters() if p.requires_grad], peak)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, steps)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        draws = model.draw(batch, 1, gradient=estimator, noise=model.noise(1, 1000, generator))
        optimizer.zero_grad()
        (-estimator.surrogate(draws, vs.elbo).mean()).backward()
        optimizer.step()
        schedule.step()
    k = 400 if held else 50
    with torch.no_grad():
        gap = float(
            (
                exact - model.draw(batch, k, noise=model.noise(k, 1000, generator)).log_w.mean(0)
            ).mean()
        )
    assert low < gap < high, gap


# -- discrete --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("posterior", "latent"), [("bernoulli", 4), ("categorical:codes=3", 3)])
def test_an_autoregressive_prior_sums_to_one_and_draws_what_it_says(
    posterior: str, latent: int
) -> None:
    model = built(latent=latent, posterior=posterior, prior="autoregressive:width=16")
    with torch.no_grad():
        for parameter in model.prior.parameters():
            parameter.mul_(3)
    p = prior_of(model)
    if posterior == "bernoulli":
        states = torch.tensor(
            list(itertools.product((0.0, 1.0), repeat=latent)), dtype=torch.float64
        )
    else:
        eye = torch.eye(3, dtype=torch.float64)
        states = torch.stack(
            [
                torch.cat([eye[i] for i in chosen])
                for chosen in itertools.product(range(3), repeat=latent)
            ]
        )
    probabilities = torch.exp(p.log_prob(states))
    assert float(probabilities.sum()) == pytest.approx(1)
    alone = torch.stack([probabilities[states[:, i] == 1].sum() for i in range(states.shape[1])])
    independent = torch.stack(
        [
            torch.where(
                s == 1, alone, 1 - alone if posterior == "bernoulli" else torch.ones(())
            ).prod()
            for s in states
        ]
    )
    assert float((independent - probabilities).abs().sum()) > 0.05, "it has dependence to tell"
    z = model.draw_prior(40_000, None, torch.Generator().manual_seed(0))
    found = (z.unsqueeze(1) == states).all(-1).double().mean(0)
    torch.testing.assert_close(found, probabilities.detach(), atol=0.012, rtol=0)


def test_a_masked_network_sees_earlier_groups_alone() -> None:
    groups = densities.groups_of((6, 2), 3)  # two one-hot groups of three at each of two places
    assert groups.tolist() == [0, 1, 0, 1, 0, 1, 2, 3, 2, 3, 2, 3]
    network = vs.networks.MaskedNetwork(groups, 16)
    jacobian = torch.autograd.functional.jacobian(network, torch.randn(12))
    allowed = groups.unsqueeze(1) > groups
    assert (jacobian[~allowed] == 0).all()
    assert (jacobian[allowed] != 0).float().mean() > 0.9


def test_an_autoregressive_prior_trains_through_relaxed_latents() -> None:
    data = make_data(make_space(Kind.BINARY, (6,)), make_values(make_space(Kind.BINARY, (6,)), 200))
    torch.manual_seed(0)
    model = vs.build(
        data.space,
        latent=3,
        network="mlp:width=16",
        posterior="bernoulli",
        prior="autoregressive:width=16",
    )
    before = {k: v.clone() for k, v in model.prior.state_dict().items()}
    bounds = [
        r.bound
        for s in vs.training(
            model, vs.Objective(gradient=GumbelSoftmax()), data, steps=150, batch=32, device="cpu"
        )
        for r in s.records
        if r.split == "valid"
    ]
    assert bounds[-1] > bounds[0]
    assert all(not torch.equal(v, model.prior.state_dict()[k]) for k, v in before.items())


# -- refusals and the whole way --------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec", ["mixture:components=0", "vamp:inputs=0", "maf:layers=0", "coupling:width=0"]
)
def test_options_out_of_range_are_refused(spec: str) -> None:
    with pytest.raises(ValueError, match=r"expected .*; got"):
        built(prior=spec)


@pytest.mark.parametrize(
    "spec",
    ["planar:layers=0", "iaf:context=-1", "iaf:width=0", "spline:bins=1", "spline:context=-1"],
)
def test_options_of_flows_out_of_range_are_refused(spec: str) -> None:
    with pytest.raises(ValueError, match=r"expected .*; got"):
        built(posterior=spec)
    assert built(posterior="iaf:context=0").draw(
        Batch(torch.from_numpy(make_values(make_space(Kind.BINARY, (6,)), 2)))
    ).z.shape == (1, 2, 2)


@pytest.mark.parametrize("prior", ["maf", "coupling"])
def test_a_flow_prior_over_one_unit_is_refused(prior: str) -> None:
    with pytest.raises(
        ValueError, match="expected 2 or more units for a flow prior, or prior mixture; got 1"
    ):
        built(latent=1, prior=prior)


@pytest.mark.parametrize(
    ("posterior", "message"),
    [(q, "expected a posterior without a flow for the prior vamp, such as normal") for q in FLOWS]
    + [
        (q, "expected a prior over discrete latents; got Vamp")
        for q in ("bernoulli", "categorical")
    ],
)
def test_a_vampprior_refuses_posteriors_that_are_not_scored_elsewhere(
    posterior: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        built(posterior=posterior, prior="vamp")


GIVEN = vs.spaces.TableSpace.of([vs.spaces.RealColumn("a", "float64")])


@pytest.mark.parametrize("prior", LEARNED)
def test_learned_priors_accept_conditions(prior: str) -> None:
    model = built(prior=prior, given=GIVEN)
    given = torch.tensor([[-1.5], [2.0]], dtype=torch.float64)
    side = torch.linspace(-14, 14, 401, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(side, side, indexing="ij"), -1)
    with torch.no_grad():
        p = model.prior(model.posterior, given)
        weight = torch.exp(p.log_prob(grid.unsqueeze(-2).expand(401, 401, 2, 2)))  # (401, 401, B)
        totals = torch.trapezoid(torch.trapezoid(weight, side, dim=0), side, dim=0)
        z = model.draw_prior(
            40_000, given.repeat(20_000, 1), torch.Generator().manual_seed(0)
        ).unflatten(0, (-1, 2))
    torch.testing.assert_close(totals, torch.ones(2, dtype=torch.float64), rtol=0, atol=2e-3)
    weight = weight / weight.sum((0, 1))
    mean = (weight.unsqueeze(-1) * grid.unsqueeze(-2)).sum((0, 1))  # (B, 2)
    assert ((z.mean(0) - mean).abs() < 5 * z.std(0) / 20_000**0.5 + 0.01).all()
    assert not p.shared and p.mean.shape == (2, 2)
    assert ((p.mean - mean).abs() < 0.75 * z.std(0)).all()
    distance = (weight[..., 0] - weight[..., 1]).abs().sum() / 2  # total variation
    assert distance > 0.001, "the condition changes the prior"
    with pytest.raises(ValueError, match="expected conditions for p"):
        model.prior(model.posterior, None)


@pytest.mark.parametrize("posterior", ["bernoulli", "categorical:codes=3"])
def test_an_autoregressive_prior_accepts_conditions(posterior: str) -> None:
    model = built(posterior=posterior, prior="autoregressive:width=8", given=GIVEN)
    given = torch.tensor([[-1.5], [2.0]], dtype=torch.float64)
    if posterior == "bernoulli":
        codes = torch.tensor(list(itertools.product((0.0, 1.0), repeat=2)))
    else:
        eye = torch.eye(3)
        codes = torch.stack([torch.cat([a, b]) for a in eye for b in eye])
    codes = codes.double()
    with torch.no_grad():
        p = model.prior(model.posterior, given)
        probability = p.log_prob(codes.unsqueeze(1).expand(-1, 2, -1)).exp()  # (codes, B)
    torch.testing.assert_close(probability.sum(0), torch.ones(2, dtype=torch.float64))
    mean = probability.T @ codes
    assert (p.mean - mean).abs().max() < 0.3
    z = model.draw_prior(20_000, given.repeat(10_000, 1), torch.Generator().manual_seed(0))
    assert (z.unflatten(0, (-1, 2)).mean(0) - mean).abs().max() < 5 * 0.5 / 100


def test_a_conditional_mixture_learns_which_cluster_belongs_to_a_condition() -> None:
    """Codes of two classes lie at -3 and 3. With conditions, the prior gains the entropy of the
    class, ln 2 nats."""
    torch.manual_seed(0)
    label = torch.tensor([[-1.0], [1.0]]).repeat(200, 1)
    z = 3 * label + torch.randn(400, 1)
    bounds = []
    for given in (0, 1):
        prior = vs.priors.Mixture((1,), given, components=2)
        with torch.no_grad():
            prior.means.copy_(torch.tensor([[-1.0], [1.0]]))
        posterior = built(latent=1).float().posterior
        optimizer = torch.optim.Adam(prior.parameters(), lr=0.05)
        for _ in range(300):
            loss = -prior(posterior, label if given else None).log_prob(z).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        bounds.append(-loss.item())
    assert bounds[1] - bounds[0] == pytest.approx(math.log(2), abs=0.05)


@final
class Shifted(vs.priors.Sampler):
    """A sampler without a density."""

    def transform(self, noise: torch.Tensor, given: torch.Tensor | None) -> torch.Tensor:
        return noise + 3


def test_a_prior_without_a_density_is_sampled_and_not_evaluated(tmp_path: Path) -> None:
    model = vs.build(
        make_space(Kind.BINARY), latent=2, network="mlp:width=8", prior=f"{__name__}:Shifted"
    )
    assert not model.capabilities.prior_density
    z = model.draw_prior(1000, None, torch.Generator().manual_seed(0))
    assert float(z.mean()) == pytest.approx(3, abs=0.1)
    assert model.sample(5).mean.shape == (1, 5, 6)
    data = make_data(model.space, make_values(model.space, 60))
    assert latents.encode(model, data.test)["mean"].shape[1:] == (2,)
    with pytest.raises(ValueError, match="expected a prior with a density"):
        vs.evaluate(model, data.test, k=2)
    with pytest.raises(ValueError, match="expected a prior with a density"):
        next(iter(vs.training(model, vs.Objective(), data, steps=1)))


@pytest.mark.parametrize(
    "options",
    [
        ["--prior", "vamp:inputs=8"],
        ["--posterior", "iaf", "--prior", "mixture:components=4"],
        ["--posterior", "planar"],
        ["--prior", "maf"],
        ["--posterior", "categorical:codes=3", "--prior", "autoregressive"],
    ],
)
def test_every_command_takes_such_runs(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(tmp_path / "run")
    train = [
        "train",
        "digits",
        "--run",
        run,
        "--steps",
        "20",
        "--latent",
        "3",
        "--network",
        "mlp:width=16",
        "--quiet",
        *options,
    ]
    assert main(train) == 0, capsys.readouterr().err
    for command in (
        ["evaluate", run, "--k", "5", "--limit", "20"],
        ["diagnose", run],
        ["sample", run, "-n", "4", "-o", str(tmp_path / "s.png"), "--temperature", "0.5"],
        ["encode", run, "digits", "-o", str(tmp_path / "c.npz")],
        ["reconstruct", run, "digits", "-o", str(tmp_path / "r.npy")],
        ["report", run],
    ):
        assert main([*command, "--quiet"]) == 0, (command, capsys.readouterr().err)
    first, again = (
        latents.encode(vs.Run(run).model(), vs.load("digits").test)["mean"] for _ in range(2)
    )
    assert np.array_equal(first, again), "mistake 18: a code is no draw"


# -- fitted after training -------------------------------------------------------------------------


def clustered(path: Path) -> str:
    """Write data from four templates: their codes lie in clusters, which N(0, 1) does not."""
    r = np.random.default_rng(0)
    templates = r.integers(0, 2, (4, 12))
    np.save(
        path, (templates[r.integers(0, 4, 1500)] ^ (r.random((1500, 12)) < 0.02)).astype(np.uint8)
    )
    return str(path)


@pytest.mark.parametrize(
    "prior", ["mixture:components=8", "maf:layers=2,width=16", "vamp:inputs=20"]
)
def test_a_fitted_prior_raises_the_bound_and_leaves_the_rest_as_it_is(
    prior: str, tmp_path: Path
) -> None:
    source = clustered(tmp_path / "x.npy")
    run = vs.train(
        source,
        run=tmp_path / "run",
        latent=2,
        network="mlp:width=32",
        steps=600,
        batch=64,
        lr=5e-3,
        device="cpu",
    )
    found = vs.fit_prior(run, prior, steps=400, lr=1e-2)
    assert found.run.path == tmp_path / f"run-{prior.partition(':')[0]}"
    assert found.gain[0] > 3.5 * found.gain[1] > 0
    assert found.after[0] - found.before[0] == pytest.approx(found.gain[0], abs=1e-6)
    old, new = run.model().state_dict(), found.run.model().state_dict()
    for name, value in old.items():
        assert torch.equal(value, new[name]), name
    assert all(file.exists() for file in found.samples)
    config = found.run.config
    assert (
        config["prior"] == prior
        and config["freeze"] == ["posterior", "likelihood"]
        and config["init"] == str(run.path)
    )
    again = vs.train(config=found.run.path / "config.yaml", run=tmp_path / "again")
    assert all(torch.equal(v, again.model().state_dict()[k]) for k, v in new.items()), (
        "its config.yaml repeats it"
    )


def test_a_prior_over_discrete_codes_is_fitted_to_hard_draws(tmp_path: Path) -> None:
    run = vs.train(
        clustered(tmp_path / "x.npy"),
        run=tmp_path / "run",
        latent=3,
        posterior="bernoulli",
        network="mlp:width=32",
        steps=600,
        batch=64,
        lr=5e-3,
        device="cpu",
    )
    fitted = vs.fit_prior(run, "autoregressive:width=32", steps=400).run
    states = torch.tensor(list(itertools.product((0.0, 1.0), repeat=3)))

    def aggregate(model: Any, batch: Batch) -> torch.Tensor:
        with torch.no_grad():
            return torch.exp(model.q(model.features(batch)).log_prob(states.unsqueeze(1))).mean(1)

    rows = run.data().train.fixed()
    everything = rows.batch(slice(0, len(rows)), "cpu")
    before, after = (
        float((weight * (weight.log() - prior_of(model).log_prob(states).detach())).sum())
        for model in (run.model(), fitted.model())
        for weight in [aggregate(model, everything)]
    )
    assert after < 0.1 * before, "KL from the aggregate posterior, by enumeration"
    # The gradient is that of E_q log p(z), by enumeration; relaxed draws have another, and fit
    # another prior.
    model, batch = fitted.model(), rows.batch(slice(0, 10), "cpu")
    parameters = list(model.prior.parameters())  # type: ignore[union-attr,operator]
    exact = torch.autograd.grad(
        (aggregate(model, batch) * prior_of(model).log_prob(states)).sum(), parameters
    )
    chosen = find("gradient", fitted.config["gradient"])()
    worst = {}
    for name, estimator in (("fitted", chosen), ("relaxed", GumbelSoftmax())):
        each = []
        for i in range(40):
            draws = model.draw(
                batch,
                500,
                gradient=estimator,
                noise=model.noise(500, 10, torch.Generator().manual_seed(i)),
            )
            each.append(torch.cat([g.flatten() for g in torch.autograd.grad(
                estimator.surrogate(draws.trained(), vs.elbo).mean(), parameters)]))  # fmt: skip
        found = torch.stack(each)
        off = (found.mean(0) - torch.cat([g.flatten() for g in exact])).abs()
        worst[name] = float((off / (found.std(0) / 40**0.5 + 1e-6)).max())
    # the largest of some thousand parameters
    assert worst["fitted"] < 5.5 < worst["relaxed"], worst


def test_another_prior_of_the_same_kind_starts_afresh(tmp_path: Path) -> None:
    source = clustered(tmp_path / "x.npy")
    options: dict[str, Any] = {"latent": 2, "network": "mlp:width=8", "steps": 3, "device": "cpu"}
    first = vs.train(source, run=tmp_path / "a", prior="maf:layers=3,width=8", **options)
    with pytest.raises(ValueError, match="expected a model of the same parts"):
        vs.train(
            source,
            run=tmp_path / "b",
            prior="maf:layers=2,width=8",
            init=str(first.path),
            freeze=["prior"],
            **options,
        )
    job = Job.new(
        source, run=tmp_path / "c", prior="maf:layers=2,width=8", init=str(first.path), **options
    )
    old, new = first.model().state_dict(), job.training.model.state_dict()
    assert all(torch.equal(new[k], v) for k, v in old.items() if not k.startswith("prior."))
    assert not any(
        torch.equal(new[k], old[k])
        for k in new
        if k.startswith("prior.") and k.endswith("0.weight")
    )


def test_the_command_fits_a_prior(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, run = clustered(tmp_path / "x.npy"), str(tmp_path / "run")
    assert (
        main(
            [
                "train",
                source,
                "--run",
                run,
                "--latent",
                "2",
                "--network",
                "mlp:width=8",
                "--steps",
                "20",
                "--quiet",
            ]
        )
        == 0
    )
    capsys.readouterr()
    assert (
        main(["fit-prior", run, "--prior", "mixture:components=4", "--steps", "10", "--force"]) == 0
    )
    said = capsys.readouterr().out
    assert (
        "before: log p(x) >=" in said
        and "after:  log p(x) >=" in said
        and "all other parts are frozen" in said
    )
    assert re.search(r"the fitted prior (raises|lowers) the bound by \d+\.\d+ \+- \d", said), said
    assert main(["evaluate", run + "-mixture", "--k", "5", "--limit", "20", "--quiet"]) == 0
    images = str(tmp_path / "images")
    assert (
        main(
            [
                "train",
                "digits",
                "--run",
                images,
                "--latent",
                "2",
                "--network",
                "mlp:width=8",
                "--steps",
                "5",
                "--quiet",
            ]
        )
        == 0
    )
    assert (
        main(
            [
                "fit-prior",
                images,
                "--prior",
                "vamp:inputs=4",
                "--steps",
                "5",
                "--force",
                "--run",
                str(tmp_path / "fitted"),
            ]
        )
        == 0
    )
    assert {f"samples-{when}.png" for when in ("before", "after")} <= {
        f.name for f in (tmp_path / "fitted").iterdir()
    }
    for options, message in (
        (["--prior", "mixture"], "expected a new run folder"),
        (
            ["--prior", "autoregressive", "--run", str(tmp_path / "b")],
            "expected a prior over real latents",
        ),
        (["--prior", "normal", "--run", str(tmp_path / "c")], "expected something to train"),
        (["--prior", "mixtur", "--run", str(tmp_path / "d")], "expected a prior: 'mixture'"),
    ):
        assert main(["fit-prior", run, *options]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and message in error, error
    assert not any((tmp_path / name).exists() for name in "bcd")
    assert (
        main(
            [
                "train",
                source,
                "--run",
                str(tmp_path / "e"),
                "--init",
                run,
                "--latent",
                "3",
                "--steps",
                "3",
            ]
        )
        == 2
    )
    assert "expected a model of the same parts" in capsys.readouterr().err


@pytest.mark.parametrize("posterior", ["full-normal", "low-rank-normal", "iaf", "normal"])
def test_densities_keep_their_precision_under_autocast(posterior: str) -> None:
    model = built(
        latent=3, posterior=posterior, prior="maf" if posterior == "normal" else "normal"
    ).float()
    features = torch.randn(
        2,
        *type(model.posterior).outputs(model.units, **({"rank": 4} if "rank" in posterior else {})),
    )
    noise = model.noise(5, 2, torch.Generator().manual_seed(0))

    def scored() -> list[torch.Tensor]:
        q = model.q(features)
        z = q.from_noise(noise)
        return [z, q.log_prob(z), prior_of(model).log_prob(z), q.log_prob(z.clone())]

    plain = scored()
    with torch.autocast("cpu", torch.bfloat16):
        cast = scored()
        assert (
            torch.nn.functional.linear(torch.ones(1, 1), torch.ones(1, 1)).dtype == torch.bfloat16
        )
    for a, b in zip(plain, cast, strict=True):
        assert b.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_few_rows_get_enough_steps_for_a_prior(tmp_path: Path) -> None:
    from vaestro.prior_fitting import prepare

    run = vs.train(clustered(tmp_path / "x.npy"), run=tmp_path / "run", latent=2, steps=30)
    small = prepare(run, "mixture", tmp_path / "small")
    assert small.training.steps == 2000
    assert prepare(run, "mixture", tmp_path / "asked", epochs=2).training.steps < 100
