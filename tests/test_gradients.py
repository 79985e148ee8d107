"""Gradient estimators: means by enumeration and against each other, variances against their known
laws, refusals."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import vaestro as vs
from tests.conftest import make_data, make_space, make_values
from vaestro import densities
from vaestro.data import Data
from vaestro.densities import log_mean_exp
from vaestro.gradients import DoublyReparameterized, Gradient, Pathwise, Score, StickingTheLanding
from vaestro.models import Draws
from vaestro.objectives import BOUNDS, Objective
from vaestro.parts import TABLE, find
from vaestro.spaces import Kind

pytestmark = pytest.mark.usefixtures("float64")


class States:
    """A latent of some states, scored by logits (S,), for each of B data."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    @property
    def mean(self) -> Tensor:
        return self.logits.softmax(-1).reshape(1, -1)

    def log_prob(self, z: Tensor) -> Tensor:
        return self.logits.log_softmax(-1)[z]


def discrete(phi: Tensor, log_px: Tensor, z: Tensor) -> Draws:
    """Return draws z (K, 1) of a latent of two states under q(phi), with a uniform prior."""
    q, p = States(phi), States(torch.zeros_like(phi))
    rate = (q.log_prob(z) - p.log_prob(z)).unsqueeze(-1)
    return Draws(z=z, log_px=log_px[z], rate=rate, q=q, p=p, px=q)  # type: ignore[arg-type]


PHI, THETA = (
    torch.tensor([0.3, -0.4], dtype=torch.float64),
    torch.tensor([-1.0, 0.7], dtype=torch.float64),
)


def outcomes(k: int) -> Iterator[tuple[Tensor, float]]:
    """Yield every outcome of K draws with its probability."""
    p = PHI.softmax(0)
    for states in itertools.product(range(2), repeat=k):
        z = torch.tensor(states).unsqueeze(1)
        yield z, float(p[z].prod())


def true_gradient(bound: Any, k: int, weight: float) -> tuple[Tensor, Tensor]:
    """Differentiate the expectation of a bound, summed over all outcomes with their probabilities
    under q."""
    phi, theta = PHI.clone().requires_grad_(), THETA.clone().requires_grad_()
    total = torch.zeros(())
    for states in itertools.product(range(2), repeat=k):
        z = torch.tensor(states).unsqueeze(1)
        probability = phi.log_softmax(0)[z].sum().exp()
        total = total + probability * bound(discrete(phi, theta, z).weighted(weight)).sum()
    return torch.autograd.grad(total, (phi, theta))


def enumerated(estimator: Score, bound: Any, k: int, weight: float) -> tuple[Tensor, Tensor, float]:
    """Return the mean of an estimator's gradients for phi and theta, and the total variance of
    phi's."""
    means, second = [torch.zeros(2), torch.zeros(2)], 0.0
    for z, probability in outcomes(k):
        phi, theta = PHI.clone().requires_grad_(), THETA.clone().requires_grad_()
        draws = discrete(phi, theta, z).weighted(weight)
        surrogate = estimator.surrogate(draws, bound)
        torch.testing.assert_close(surrogate, bound(draws))  # the value is the bound's
        gradients = torch.autograd.grad(surrogate.sum(), (phi, theta))
        for mean, gradient in zip(means, gradients, strict=True):
            mean += probability * gradient
        second += probability * float(gradients[0].square().sum())
    return means[0], means[1], second - float(means[0].square().sum())


@pytest.mark.parametrize("weight", [1.0, 0.5])
@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("baseline", ["leave-one-out", "average", "none", "learned"])
def test_the_score_function_has_the_true_gradient_as_its_mean(
    baseline: Any, bound: str, weight: float
) -> None:
    estimator = Score(baseline=baseline).eval()
    estimator.running.fill_(-1.3)
    if baseline == "learned":
        torch.manual_seed(0)
        estimator.prepare(vs.build(make_space(Kind.BINARY, (4,)), latent=2, network="linear"))
    for k in (1, 3) if baseline != "leave-one-out" else (2, 3):
        phi, theta, _ = enumerated(estimator, BOUNDS[bound], k, weight)
        expected = true_gradient(BOUNDS[bound], k, weight)
        torch.testing.assert_close((phi, theta), expected, atol=1e-12, rtol=0)
        assert float(expected[0].abs().max()) > 0.01


@pytest.mark.parametrize("bound", BOUNDS)
def test_leaving_one_out_has_less_than_half_the_deviation(bound: str) -> None:
    plain = enumerated(Score(baseline="none"), BOUNDS[bound], 3, 1.0)[2]
    assert enumerated(Score(), BOUNDS[bound], 3, 1.0)[2] < plain / 4


def test_leave_one_out_is_rloo_for_the_elbo_and_vimco_for_iwae() -> None:
    z = torch.tensor([[0], [1], [1], [0]])
    for bound in BOUNDS:
        phi = PHI.clone().requires_grad_()
        draws = discrete(phi, THETA, z)
        (gradient,) = torch.autograd.grad(Score().surrogate(draws, BOUNDS[bound]).sum(), phi)
        log_w, log_q = draws.log_w[:, 0].detach(), discrete(phi, THETA, z).log_qz[:, 0]
        credit = []
        for k in range(4):
            others = torch.cat([log_w[:k], log_w[k + 1 :]])
            if bound == "elbo":  # Kool, van Hoof and Welling 2019
                credit.append((log_w[k] - others.mean()) / 4)
            # Mnih and Rezende 2016, with the geometric mean in the place of the draw's weight
            else:
                credit.append(
                    log_mean_exp(log_w) - log_mean_exp(torch.cat([others, others.mean()[None]]))
                )
        through = BOUNDS[bound](discrete(phi, THETA, z)).sum()
        (expected,) = torch.autograd.grad((torch.stack(credit) * log_q).sum() + through, phi)
        torch.testing.assert_close(gradient, expected)


# -- the law of the variance -----------------------------------------------------------------------


def quadratic(mean: Tensor, noise: Tensor, *, pathwise: bool) -> Draws:
    """Return draws of N(mean, I) with f(z) = |z|^2 / 2 as all that a bound of weight 0 sees."""
    q = densities.Normal(mean, torch.zeros_like(mean), 1)
    z = q.from_noise(noise)
    z = z if pathwise else z.detach()
    f = 0.5 * z.square().sum(-1)
    return Draws(z=z, log_px=f, rate=torch.zeros_like(z), q=q, p=q, px=q, weight=0.0)


@pytest.mark.parametrize("d", [1, 10, 50, 200])
def test_the_variance_of_one_derivative_follows_its_law(d: int) -> None:
    rows = 400_000 if d < 50 else 60_000
    noise = torch.randn(1, rows, d, generator=torch.Generator().manual_seed(0))

    def variance(estimator: Gradient) -> float:
        mean = torch.full((rows, d), 0.5).requires_grad_()
        draws = quadratic(mean, noise, pathwise=estimator.pathwise)
        (gradient,) = torch.autograd.grad(estimator.surrogate(draws, vs.elbo).sum(), mean)
        assert float(gradient[:, 0].mean()) == pytest.approx(
            0.5, abs=5 * float(gradient[:, 0].std()) / math.sqrt(rows)
        )
        return float(gradient[:, 0].var())

    assert variance(Pathwise()) == pytest.approx(1, rel=0.05)
    best = Score(baseline="average").eval()
    best.running.fill_(0.625 * (d - 1) + 1.625)  # E[f s^2] / E[s^2]
    assert variance(best) == pytest.approx(0.75 * (d - 1) + 2, rel=0.05)
    alone = (0.625 * (d - 1)) ** 2 + 2.03125 * (d - 1) + 0.75 * (d - 1) + 4.64
    assert variance(Score(baseline="none")) == pytest.approx(alone, rel=0.05)


# -- a linear model with a wrong q -----------------------------------------------------------------


def wrong(seed: int = 0) -> tuple[vs.VAE, vs.Batch, Tensor]:
    """Return a linear model, one datum, and features of a q that is not its posterior."""
    torch.manual_seed(seed)
    model = vs.build(
        make_space(Kind.REAL, (6,)), latent=3, network="linear", likelihood="gaussian:variance=0.5"
    )
    x = torch.randn(1, 6, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        model.likelihood.decoder.last.weight.mul_(2)
    batch = vs.Batch(x)
    features = model.features(batch).detach()
    features[:, 0] += 0.3
    features[:, 1] = -0.5
    return model, batch, features


def gradients_of(
    estimator: Gradient, bound: str, k: int, repeats: int, seed: int = 0, weight: float = 1.0
) -> np.ndarray:
    """Return the gradients of one datum's bound for q's parameters, (repeats, 6)."""
    model, batch, features = wrong()
    many = vs.Batch(batch.x.expand(repeats, -1))
    own = features.expand(repeats, -1, -1).clone().requires_grad_()
    noise = torch.randn(k, repeats, 3, generator=torch.Generator().manual_seed(seed))
    draws = model.draw(many, k, gradient=estimator, noise=noise, features=own).weighted(weight)
    (gradient,) = torch.autograd.grad(estimator.surrogate(draws, BOUNDS[bound]).sum(), own)
    return np.asarray(gradient.flatten(1))


def agree(one: np.ndarray, other: np.ndarray) -> None:
    """Fail unless the means of two sets of gradients are equal within a z-test of 4 standard
    errors."""
    errors = np.sqrt(one.var(0) / len(one) + other.var(0) / len(other))
    assert (np.abs(one.mean(0) - other.mean(0)) < 4 * errors + 1e-9).all()
    assert (np.abs(one.mean(0)) > 8 * errors).any()  # there is a gradient to agree on


@pytest.mark.parametrize(
    ("bound", "k", "name"),
    [
        ("elbo", 1, "stl"),
        ("elbo", 4, "stl"),
        ("elbo", 4, "score"),
        ("elbo", 1, "score:baseline=average"),
        ("elbo", 2, "score:baseline=none"),
        ("iwae", 1, "stl"),
        ("iwae", 1, "dreg"),
        ("iwae", 8, "dreg"),
        ("iwae", 8, "score"),
        ("iwae", 3, "score:baseline=none"),
    ],
)
def test_estimators_agree_with_the_pathwise_one(bound: str, k: int, name: str) -> None:
    estimator = find("gradient", name)()
    estimator.check(bound, k)
    agree(
        gradients_of(Pathwise(), bound, k, 60_000, 1),
        gradients_of(estimator.eval(), bound, k, 120_000, 2),
    )


@pytest.mark.parametrize(
    "name", [name for name, made in TABLE["gradient"].items() if not made.relaxed]
)  # type: ignore[attr-defined]
def test_every_row_of_the_table_agrees_with_the_pathwise_estimator(name: str) -> None:
    estimator = TABLE["gradient"][name]().eval()
    for bound in BOUNDS:
        try:
            estimator.check(bound, 3)
        except ValueError:
            continue
        agree(
            gradients_of(Pathwise(), bound, 3, 60_000, 1),
            gradients_of(estimator, bound, 3, 120_000, 2),
        )
        return
    raise AssertionError("no bound is accepted")


@pytest.mark.parametrize("weight", [0.0, 0.5, 3.0])
@pytest.mark.parametrize(("bound", "name"), [("iwae", "dreg"), ("elbo", "stl")])
def test_estimators_agree_at_other_weights_of_the_rate(
    bound: str, name: str, weight: float
) -> None:
    one = gradients_of(Pathwise(), bound, 4, 60_000, 1, weight)
    agree(one, gradients_of(find("gradient", name)(), bound, 4, 120_000, 2, weight))


def test_sticking_the_landing_is_biased_for_iwae_and_is_refused_there() -> None:
    plain, held = (
        gradients_of(Pathwise(), "iwae", 8, 60_000, 1),
        gradients_of(StickingTheLanding(), "iwae", 8, 60_000, 2),
    )
    errors = np.sqrt(plain.var(0) / len(plain) + held.var(0) / len(held))
    assert (np.abs(plain.mean(0) - held.mean(0)) > 8 * errors).any()
    with pytest.raises(ValueError, match="expected gradient dreg for iwae"):
        Objective("iwae", k=8, gradient=StickingTheLanding())


def snr(estimator: Gradient, k: int) -> float:
    gradients = gradients_of(estimator, "iwae", k, 10_000)
    return float(np.abs(gradients.mean(0)).mean() / gradients.std(0).mean())


def test_signal_to_noise_falls_with_k_for_iwae_and_rises_for_dreg() -> None:
    few, many = 8, 128
    slope = {name: math.log(snr(e, many) / snr(e, few)) / math.log(many / few) for name, e in
             {"pathwise": Pathwise(), "dreg": DoublyReparameterized()}.items()}  # fmt: skip
    assert slope["pathwise"] == pytest.approx(-0.5, abs=0.2)
    assert slope["dreg"] == pytest.approx(0.5, abs=0.2)


def test_sticking_the_landing_has_no_noise_at_the_exact_posterior() -> None:
    from tests.test_oracles import exact_pca_model

    model, batch = exact_pca_model()
    for estimator, silent in ((StickingTheLanding(), True), (Pathwise(), False)):
        draws = model.draw(batch, 2, gradient=estimator)
        gradient = torch.autograd.grad(
            estimator.surrogate(draws, vs.elbo).mean(), model.posterior.encoder.last.weight
        )[0]
        assert (float(gradient.abs().max()) < 1e-9) == silent


# -- in training -----------------------------------------------------------------------------------


def test_what_has_no_meaning_is_refused_with_the_nearest_that_has() -> None:
    for arguments, message in (
        (("elbo", 1, DoublyReparameterized()), "expected gradient stl for elbo"),
        (
            ("elbo", 1, Score()),
            "expected k of 2 or more draws for the baseline leave-one-out, or "
            "score:baseline=average",
        ),
        (("iwae", 1, Score()), "expected k of 2 or more"),
    ):
        bound, k, gradient = arguments
        with pytest.raises(ValueError, match=message):
            Objective(bound, k=k, gradient=gradient)
    with pytest.raises(ValueError, match=r"expected score:baseline"):
        find("gradient", "score:baseline=best")
    with pytest.raises(ValueError, match="prepare"):
        Score(baseline="learned").surrogate(
            discrete(PHI, THETA, torch.zeros(1, 1, dtype=torch.long)), vs.elbo
        )


def coins() -> Data:
    r = np.random.default_rng(0)
    x = (r.random((480, 16)) < r.random((4, 16))[r.integers(0, 4, 480)]).astype(np.uint8)
    return make_data(make_space(Kind.BINARY, (16,)), x[:400], x[400:])


@pytest.mark.parametrize(
    ("spec", "k"),
    [("stl", 1), ("score", 2), ("score:baseline=average", 1), ("score:baseline=learned", 1)],
)
def test_every_estimator_trains(spec: str, k: int) -> None:
    torch.manual_seed(0)
    data = coins()
    model = vs.build(data.space, latent=2, network="mlp:width=16")
    objective = Objective("elbo", k=k, gradient=find("gradient", spec)())
    records = [
        r
        for s in vs.training(model, objective, data, steps=300, batch=64, lr=5e-3, device="cpu")
        for r in s.records
        if r.split == "valid"
    ]
    assert records[-1].bound > records[0].bound + 0.5
    if "learned" in spec:
        network = objective.gradient.network  # type: ignore[union-attr]
        assert network is not None
        x = torch.zeros(1, 2, dtype=next(network.parameters()).dtype)
        # it has learnt about what log w is
        assert float(network(x)) == pytest.approx(records[-1].bound, abs=4)


def test_a_running_mean_is_kept_in_the_state_and_resumed(tmp_path: Any) -> None:
    np.save(tmp_path / "x.npy", coins().train.values)
    options = {
        "latent": 2,
        "network": "mlp:width=8",
        "batch": 32,
        "gradient": "score:baseline=average",
        "device": "cpu",
        "seed": 3,
    }
    whole = vs.train(tmp_path / "x.npy", run=tmp_path / "whole", steps=24, **options)
    from vaestro.runs import Job

    job = Job.new(tmp_path / "x.npy", run=tmp_path / "part", steps=24, **options)
    with job:
        for step in job:
            if step.index == 11:
                job.checkpoint()
                break
    again = vs.resume(tmp_path / "part")
    for one, other in zip(
        whole.model().state_dict().values(), again.model().state_dict().values(), strict=True
    ):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", TABLE["gradient"])
def test_the_surrogate_has_the_bounds_value(name: str) -> None:
    space = make_space(Kind.BINARY, (6,))
    torch.manual_seed(0)
    estimator = TABLE["gradient"][name]()
    model = vs.build(
        space, latent=2, network="linear", posterior="bernoulli" if estimator.relaxed else "normal"
    )
    batch = vs.Batch(torch.from_numpy(make_values(space, 5)))
    for bound in BOUNDS.values():
        draws = model.draw(batch, 3, gradient=estimator).weighted(0.7)
        torch.testing.assert_close(estimator.surrogate(draws, bound), bound(draws))
        plain = replace(draws, weight=1.0)
        assert not torch.allclose(bound(draws), bound(plain))
