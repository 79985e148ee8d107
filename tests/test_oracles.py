"""Exact answers: probabilistic PCA, quadrature, closed forms, importance-weighted bounds on a
linear-Gaussian model."""

import math

import numpy as np
import pytest
import torch

import vaestro as vs
from tests.conftest import make_data, make_space, make_values
from vaestro import densities
from vaestro.densities import closed_form_kl, log_mean_exp, soft_limit
from vaestro.objectives import elbo, iwae
from vaestro.spaces import Batch, Kind

LOG_LIKELIHOOD = -24.661856914615
MEAN_KL = 10.302762433818


def pca_data() -> np.ndarray:
    r = np.random.default_rng(0)
    weights = r.normal(size=(20, 5))
    return r.normal(size=(1000, 5)) @ weights.T + 0.5 * r.normal(size=(1000, 20))


def pca_solution(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    mean = x.mean(0)
    values, vectors = np.linalg.eigh((x - mean).T @ (x - mean) / len(x))
    values, vectors = values[::-1], vectors[:, ::-1]
    sigma2 = values[5:].mean()
    return mean, vectors[:, :5] * np.sqrt(values[:5] - sigma2), sigma2


def set_linear(
    model: vs.VAE,
    weights: np.ndarray,
    bias: np.ndarray,
    encoder: np.ndarray,
    mean_bias: np.ndarray,
    variance: np.ndarray,
) -> None:
    """Give a linear VAE its weights: x = W z + bias, q's mean = encoder x + mean_bias, q's variance
    constant."""
    limit = model.posterior.limit
    logvar = np.log(variance)
    raw = logvar / (1 - np.abs(logvar) / limit)
    with torch.no_grad():
        last = model.posterior.encoder.last
        last.weight.copy_(torch.from_numpy(np.concatenate([encoder, np.zeros_like(encoder)])))
        last.bias.copy_(torch.from_numpy(np.concatenate([mean_bias, raw])))
        model.likelihood.decoder.last.weight.copy_(torch.from_numpy(weights))
        model.likelihood.decoder.last.bias.copy_(torch.from_numpy(bias))


def exact_pca_model(
    rotation: np.ndarray | None = None, shift: np.ndarray | None = None, widen: float = 1.0
) -> tuple[vs.VAE, Batch]:
    x = pca_data()
    mean, weights, sigma2 = pca_solution(x)
    model = vs.build(
        make_space(Kind.REAL, (20,)),
        latent=5,
        network="linear",
        likelihood=f"gaussian:variance={float(sigma2)!r}",
    )
    weights = weights if rotation is None else weights @ rotation
    inner = weights.T @ weights + sigma2 * np.eye(5)
    encoder = np.linalg.solve(inner, weights.T)
    precision = inner / sigma2
    variance = widen / np.diag(precision)
    set_linear(
        model, weights, mean, encoder, -encoder @ mean + (0 if shift is None else shift), variance
    )
    return model, Batch(torch.from_numpy(x))


def rotation() -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))[0]


@pytest.mark.usefixtures("float64")
def test_at_the_exact_posterior_every_weight_is_the_likelihood() -> None:
    model, batch = exact_pca_model()
    draws = model.draw(batch, 7)
    assert float(draws.log_w.std(0).max()) < 1e-12
    assert float(draws.log_w.mean()) == pytest.approx(LOG_LIKELIHOOD, abs=1e-9)
    assert float(draws.total_rate.mean()) == pytest.approx(MEAN_KL, abs=1e-9)
    for bound in (elbo(draws.sampled()), iwae(draws), iwae(model.draw(batch, 1))):
        assert float(bound.mean()) == pytest.approx(LOG_LIKELIHOOD, abs=1e-9)
    assert float(iwae(draws).std()) > 1  # the data differ: equality above is not that of a constant


@pytest.mark.usefixtures("float64")
def test_encoder_gradient_of_log_w_vanishes_at_the_exact_posterior() -> None:
    # The sticking-the-landing gradient: q is scored with its parameters held, and log w does not
    # depend on z.
    model, batch = exact_pca_model()
    draws = model.draw(batch, 3)
    held = draws.log_px + draws.log_pz - draws.q.detach().log_prob(draws.z)
    held.mean().backward()
    gradient = model.posterior.encoder.last.weight.grad
    assert gradient is not None
    assert float(gradient.abs().max()) < 1e-9


def cubature(n: int, units: int = 5) -> torch.Tensor:
    """Return noise (2 units, n, units) with the mean 0 and the covariance 1 of a standard normal.

    The bound of a linear model is quadratic in the noise, so its mean over these draws is exact.
    """
    axes = math.sqrt(units) * torch.eye(units)
    return torch.cat([axes, -axes])[:, None].expand(-1, n, -1)


def exact_gap(model: vs.VAE, batch: Batch) -> float:
    """Return the log-likelihood minus the exact ELBO of a linear model, in nats."""
    noise = cubature(len(batch))
    return LOG_LIKELIHOOD - elbo(model.draw(batch, len(noise), noise=noise)).mean().item()


@pytest.mark.usefixtures("float64")
def test_gap_of_a_factorised_posterior() -> None:
    assert exact_gap(*exact_pca_model(rotation())) == pytest.approx(0.459836535775, abs=1e-9)


@pytest.mark.usefixtures("float64")
def test_amortization_gap_of_a_shift_and_a_scale() -> None:
    shift = np.array([0.3, -0.2, 0.1, 0.0, 0.5])
    _, weights, sigma2 = pca_solution(pca_data())
    precision = (weights.T @ weights + sigma2 * np.eye(5)) / sigma2
    assert exact_gap(*exact_pca_model(shift=shift)) == pytest.approx(
        0.5 * shift @ precision @ shift, abs=1e-9
    )
    wide = 1.7
    assert exact_gap(*exact_pca_model(widen=wide)) == pytest.approx(
        2.5 * (wide - 1 - math.log(wide)), abs=1e-9
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variance", "steps", "error"), [("shared", 8000, 1e-3), ("optimal-shared", 2500, 5e-3)]
)
def test_a_linear_vae_trained_from_scratch_arrives_at_the_maximum_likelihood(
    variance: str, steps: int, error: float
) -> None:
    x = pca_data().astype(np.float32)
    # Every step sees all 1,000 data. Without validation data the latest average is kept; validating
    # each step would double the time.
    data = make_data(make_space(Kind.REAL, (20,)), x)
    data = vs.Data(data.train, data.valid.take(0), data.test, data.space, "oracle")
    torch.manual_seed(0)
    model = vs.build(
        data.space, latent=5, network="linear", likelihood=f"gaussian:variance={variance}"
    )
    optimizer, threads = "adamw:weight_decay=0,beta2=0.99", torch.get_num_threads()
    torch.set_num_threads(1)  # products this small only wait for a second thread
    # Its gradient has no variance at the optimum, where q is the posterior: half the steps of the
    # pathwise one.
    objective = vs.Objective(gradient=vs.gradients.StickingTheLanding())
    for _ in vs.training(
        model,
        objective,
        data,
        steps=steps,
        batch=1000,
        lr=0.25,
        ema=0.998,
        optimizer=optimizer,
        device="cpu",
    ):
        pass
    torch.set_num_threads(threads)
    best = vs.evaluate(model, data.test, k=100, methods=["iwae"])["iwae"].mean()[0]
    assert best == pytest.approx(LOG_LIKELIHOOD, abs=error)
    assert best <= LOG_LIKELIHOOD + 1e-4


def test_units_are_the_users_whatever_the_standardisation(tmp_path) -> None:
    # One exact answer, -24.66 - 20 ln 10, for data stored in other units, through every
    # standardisation.
    x = pca_data()
    mean, weights, sigma2 = pca_solution(x)
    np.savez(tmp_path / "x.npz", train=10 * x + 100, valid=10 * x + 100, test=10 * x + 100)
    for how in ("none", "global", "feature"):
        data = vs.load(f"{tmp_path / 'x.npz'}:standardise={how}")
        model = vs.build(
            data.space, latent=5, network="linear", likelihood=f"gaussian:variance={100 * sigma2}"
        )
        offset, scale = (np.broadcast_to(a, (20,)) for a in (data.space.offset, data.space.scale))
        inner = weights.T @ weights + sigma2 * np.eye(5)
        encoder = np.linalg.solve(inner, weights.T)
        # x_inside = (10 x + 100 - offset) / scale
        set_linear(
            model,
            10 * weights / scale[:, None],
            (10 * mean + 100 - offset) / scale,
            encoder * scale / 10,
            encoder @ ((offset - 100) / 10 - mean),
            1 / np.diag(inner / sigma2),
        )
        value = vs.evaluate(model, data.test, k=5)["iwae"].mean()[0]
        assert value == pytest.approx(LOG_LIKELIHOOD - 20 * math.log(10), abs=2e-3), how


def test_switched_off_units_are_the_optimum_where_the_noise_is_fixed_above_their_eigenvalue() -> (
    None
):
    x = pca_data()
    values = np.sort(np.linalg.eigvalsh(np.cov(x.T, bias=True)))[::-1]
    fixed = float((values[3] + values[4]) / 2)
    assert (values > fixed).sum() == 4
    data = make_data(make_space(Kind.REAL, (20,)), x.astype(np.float32))
    torch.manual_seed(1)
    model = vs.build(
        data.space, latent=5, network="linear", likelihood=f"gaussian:variance={fixed}"
    )
    for _ in vs.training(model, vs.Objective(), data, steps=2000, batch=250, lr=0.02, device="cpu"):
        pass
    with torch.no_grad():
        activity = model.code(Batch(torch.from_numpy(data.train.values))).mean.var(0)
    assert int((activity > 0.05).sum()) == 4
    assert float(activity.min()) < 1e-3


# -- quadrature ------------------------------------------------------------------------------------


def quadrature(model: vs.VAE, patterns: torch.Tensor, points: int = 161) -> torch.Tensor:
    """Return log p(x) of each pattern by the trapezoid rule on [-8, 8] in every latent
    dimension."""
    axis = torch.linspace(-8, 8, points)
    grid = torch.cartesian_prod(*[axis] * model.units[0]).reshape(-1, 1, model.units[0])
    z = grid.expand(-1, len(patterns), -1)
    with torch.no_grad():
        log_px, log_pz = model.log_terms(Batch(patterns), z)
    return torch.logsumexp(log_px + log_pz, 0) + model.units[0] * math.log(16 / (points - 1))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("latent", [1, 2])
def test_bounds_lie_below_quadrature_and_probabilities_sum_to_one(latent: int) -> None:
    torch.manual_seed(latent)
    space = make_space(Kind.BINARY, (4,))
    model = vs.build(space, latent=latent, network="mlp:width=16,activation=tanh")
    with torch.no_grad():
        for p in model.likelihood.parameters():
            p.mul_(3)
    patterns = torch.cartesian_prod(*[torch.tensor([0, 1])] * 4).to(torch.uint8)
    exact = quadrature(model, patterns)
    assert float(exact.exp().sum()) == pytest.approx(1, abs=1e-10)
    rows = vs.data.Rows(patterns.numpy(), space, "test")
    previous = None
    for k in (1, 10, 5000):
        result = vs.evaluate(model, rows, k=k)
        e, i = result["elbo"].nats, result["iwae"].nats
        if k == 5000:
            assert (e < exact.numpy()).all()
            # Var(log mean w) is about (1 - ess / k) / ess.
            assert (np.abs(i - exact.numpy()) < 5 / np.sqrt(result["iwae"].ess)).all()
            assert np.abs(i - exact.numpy()).max() < 0.1
        if previous is not None:
            assert i.mean() > previous
        previous = i.mean()
    # The mean of exp(IWAE_5) over repetitions is p(x).
    draws = model.draw(Batch(patterns), 5 * 4000)
    weights = draws.log_w.unflatten(0, (4000, 5))
    estimates = log_mean_exp(weights, 1).exp()
    error = estimates.std(0) / math.sqrt(4000)
    assert ((estimates.mean(0) - exact.exp()).abs() < 4.5 * error).all()
    assert (log_mean_exp(weights, 1).mean(0) < exact).all()


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("kind", "likelihood", "cells", "levels"),
    [(Kind.BINARY, "bernoulli", 4, 2), (Kind.CATEGORY, "categorical", 3, 4)],
)
def test_discrete_likelihoods_sum_to_one(
    kind: Kind, likelihood: str, cells: int, levels: int
) -> None:
    space = make_space(kind, (cells,), levels)
    model = vs.build(space, latent=2, likelihood=likelihood, network="mlp:width=8")
    every = torch.cartesian_prod(*[torch.arange(levels)] * cells)
    px = model.decode(torch.randn(1, 2))
    total = torch.logsumexp(px.log_prob(every), -1)
    assert float(total) == pytest.approx(0, abs=1e-12)


# -- importance weighting on a linear-Gaussian model -----------------------------------------------


@pytest.mark.usefixtures("float64")
def test_importance_weighted_bounds_with_a_wrong_posterior() -> None:
    r = np.random.default_rng(0)
    weights, sigma2 = r.normal(size=(12, 3)), 0.49
    space = make_space(Kind.REAL, (12,))
    model = vs.build(space, latent=3, network="linear", likelihood=f"gaussian:variance={sigma2}")
    inner = weights.T @ weights + sigma2 * np.eye(3)
    encoder = np.linalg.solve(inner, weights.T)
    set_linear(
        model,
        weights,
        np.zeros(12),
        encoder,
        np.full(3, 0.2),
        1.8 * np.diag(np.linalg.inv(inner)) * sigma2,
    )
    x = r.normal(size=(50, 3)) @ weights.T + math.sqrt(sigma2) * r.normal(size=(50, 12))
    covariance = weights @ weights.T + sigma2 * np.eye(12)
    exact = -0.5 * (
        12 * math.log(2 * math.pi)
        + np.linalg.slogdet(covariance)[1]
        + np.einsum("ni,ni->n", x, np.linalg.solve(covariance, x.T).T)
    )
    rows = vs.data.Rows(x, space, "test")
    bounds = {k: vs.evaluate(model, rows, k=k) for k in (5, 50, 500, 5000)}
    means = [
        bounds[5]["elbo"].nats.mean(),
        *(bounds[k]["iwae"].nats.mean() for k in (5, 50, 500, 5000)),
    ]
    assert means[0] < means[1] - 0.1
    assert means[1] < exact.mean()
    assert means[-1] == pytest.approx(exact.mean(), abs=0.01)
    # The bias of IWAE_k falls as 1 / k (Var(w) / (2 k E[w]^2)), but for Monte Carlo error.
    gaps = exact.mean() - np.array(means[1:])
    assert (np.diff(gaps) < 0.005).all()
    # Mistake 3: the self-normalised sum of w log w rises above the truth, so it is no bound; ours
    # stays below.
    log_w = model.draw(Batch(torch.from_numpy(x)), 50).log_w
    wrong = (torch.softmax(log_w, 0) * log_w).sum(0).mean()
    assert float(wrong) > exact.mean() + 0.1


# -- closed forms ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("mean", "std", "expected"), [(0, 1, 0.0), (1, 1, 0.5), (0, 2, 0.8068528194400547)]
)
def test_kl_values(mean: float, std: float, expected: float) -> None:
    q = densities.Normal(torch.tensor([[float(mean)]]), torch.tensor([[2 * math.log(std)]]))
    rate = closed_form_kl(q, densities.StandardNormal((1,), torch.zeros(())))
    assert rate is not None
    assert rate.shape == (1, 1, 1)
    assert float(rate) == pytest.approx(expected, abs=1e-12)


@pytest.mark.usefixtures("float64")
def test_kl_between_normals_against_torch_and_monte_carlo() -> None:
    r = torch.Generator().manual_seed(0)
    mean, logvar, other, other_logvar = torch.randn(4, 8, 3, generator=r)
    q, p = densities.Normal(mean, logvar), densities.Normal(other, other_logvar)
    rate = closed_form_kl(q, p)
    assert rate is not None
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, (0.5 * logvar).exp()),
        torch.distributions.Normal(other, (0.5 * other_logvar).exp()),
    )
    torch.testing.assert_close(rate[0], expected)
    z = q.from_noise(torch.randn(100_000, 8, 3, generator=r))
    sampled = q.log_prob(z) - p.log_prob(z)
    assert (
        (sampled.mean(0) - rate.sum(-1)[0]).abs() < 4.5 * sampled.std(0) / math.sqrt(100_000)
    ).all()


@pytest.mark.usefixtures("float64")
def test_best_shared_variance_is_the_mean_squared_residual() -> None:
    space = make_space(Kind.REAL, (6,))
    model = vs.build(
        space, latent=2, network="mlp:width=8", likelihood="gaussian:variance=optimal-shared"
    ).train()
    batch = Batch(torch.from_numpy(make_values(space, 40)).double())
    draws = model.draw(batch)
    residual = (batch.x - draws.px.mean[0]).square().mean()
    expected = -3 * (math.log(2 * math.pi * float(residual)) + 1)
    trained = draws.trained().log_px.mean()
    assert float(trained) == pytest.approx(expected, abs=1e-9)
    # What is reported is the stored variance's (still 1 here), and never the one made from the
    # batch being scored.
    reported = densities.Normal(draws.px.mean, torch.zeros(()), 1).log_prob(batch.x).mean()
    assert float(draws.log_px.mean()) == pytest.approx(float(reported), abs=1e-12)
    model.fit_to_data([(batch, torch.zeros(1, 40, 2))])
    fitted = (batch.x - model.decode(model.code(batch).mean).mean[0]).square().mean()
    assert float(model.likelihood.log_variance.exp()) == pytest.approx(float(fitted), rel=1e-9)


# -- gradients -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("float64")
def test_gradient_of_one_example_by_hand_and_by_finite_differences() -> None:
    torch.manual_seed(0)
    space = make_space(Kind.BINARY, (5,))
    model = vs.build(space, latent=3, network="mlp:width=7,activation=tanh")
    batch = Batch(torch.tensor([[1, 0, 0, 1, 1]], dtype=torch.uint8))
    noise = torch.randn(1, 1, 3)

    def loss(mean: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
        q = densities.Normal(mean, logvar)
        rate = closed_form_kl(q, model.prior(model.posterior, None))
        assert rate is not None
        return -model.likelihood(q.from_noise(noise)).log_prob(batch.x).sum() + rate.sum()

    q = model.posterior(batch)
    mean, logvar = q.mean.detach().requires_grad_(), q.logvar.detach().requires_grad_()
    value = loss(mean, logvar)
    assert float(value) == pytest.approx(
        float(vs.Objective()(model, batch, torch.tensor(0.0), noise).loss), abs=1e-12
    )
    by_autograd = torch.autograd.grad(value, (mean, logvar))
    std = (0.5 * logvar).exp()
    z = (mean + std * noise[0]).detach().requires_grad_()
    (g,) = torch.autograd.grad(-model.likelihood(z[None]).log_prob(batch.x).sum(), z)
    torch.testing.assert_close(by_autograd[0], g + mean)
    torch.testing.assert_close(by_autograd[1], g * noise[0] * std / 2 + (std**2 - 1) / 2)
    # The whole loss, through encoder and decoder, against central differences.
    objective = vs.Objective()
    objective(model, batch, torch.tensor(0.0), noise).loss.backward()
    for p in model.parameters():
        flat, gradient = p.data.view(-1), p.grad.view(-1)
        for i in range(0, len(flat), max(1, len(flat) // 5)):
            old, h = float(flat[i]), 1e-5
            ends = []
            for sign in (1, -1):
                flat[i] = old + sign * h
                ends.append(float(objective(model, batch, torch.tensor(0.0), noise).loss))
            flat[i] = old
            assert (ends[0] - ends[1]) / (2 * h) == pytest.approx(float(gradient[i]), abs=1e-7)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("variance", ["0.3", "shared", "pixel"])
def test_gaussian_log_density_and_gradient_against_torch(variance: str) -> None:
    torch.manual_seed(0)
    space = make_space(Kind.REAL, (6,))
    model = vs.build(
        space, latent=2, network="mlp:width=8", likelihood=f"gaussian:variance={variance}"
    )
    z, x = torch.randn(3, 4, 2), torch.randn(4, 6)
    px = model.likelihood(z)
    std = px.std.expand_as(px.mean)
    torch.testing.assert_close(
        px.log_prob(x), torch.distributions.Normal(px.mean, std).log_prob(x).sum(-1)
    )
    if variance == "0.3":
        assert float(std.square().mean()) == pytest.approx(0.3)
    gradients = torch.autograd.grad(
        px.log_prob(x).sum(), list(model.likelihood.parameters()), allow_unused=True
    )
    assert all(g is not None for g in gradients)


@pytest.mark.usefixtures("float64")
def test_bernoulli_log_probability_is_exact_for_any_logit() -> None:
    logits = torch.tensor(
        [[-800.0, -60.0, -25.0, -1.0, 0.0, 1.0, 25.0, 60.0, 800.0]], requires_grad=True
    )
    for value in (0.0, 1.0):
        x = torch.full((1, 9), value)
        expected = torch.nn.functional.logsigmoid(logits if value else -logits).sum(-1)
        got = densities.Bernoulli(logits, 1).log_prob(x)
        torch.testing.assert_close(got, expected, rtol=1e-15, atol=1e-15)
        torch.testing.assert_close(
            torch.autograd.grad(got.sum(), logits)[0],
            x - torch.sigmoid(logits),
            rtol=1e-14,
            atol=1e-300,
        )
        masked = densities.Bernoulli(logits, 1).log_prob(x, torch.ones(1, 9, dtype=torch.bool))
        torch.testing.assert_close(masked, expected, rtol=1e-15, atol=1e-15)


def test_soft_limit_is_bounded_increasing_and_never_flat() -> None:
    x = torch.tensor(
        [-1e30, -1e6, -1e3, -10.0, -0.01, 0.0, 0.01, 10.0, 1e3, 1e6, 1e30], requires_grad=True
    )
    y = soft_limit(x, 20.0)
    assert (y.abs() <= 20).all()
    assert (y.diff() >= 0).all()
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert torch.isfinite(gradient).all()
    assert (gradient[1:-1] > 0).all()
    assert float(y[6]) == pytest.approx(0.01, rel=1e-3)


def test_a_saturating_log_variance_makes_no_nan() -> None:
    space = make_space(Kind.REAL, (6,))
    for variance in ("pixel", "shared"):
        model = vs.build(
            space, latent=2, network="mlp:width=8", likelihood=f"gaussian:variance={variance}"
        )
        for extreme in (1e8, -1e8):
            with torch.no_grad():
                model.posterior.encoder.last.bias[2:].fill_(extreme)
                if variance == "pixel":
                    model.likelihood.decoder.last.bias[6:].fill_(extreme)
                else:
                    model.likelihood.log_variance.fill_(extreme)
            loss = vs.Objective()(
                model, Batch(torch.from_numpy(make_values(space, 4))), torch.tensor(0.0)
            ).loss
            loss.backward()
            assert torch.isfinite(loss)
            assert all(
                torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None
            )
            assert float(model.posterior.encoder.last.bias.grad[2:].abs().max()) > 0
