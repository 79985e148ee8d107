"""Families of q(z | x): their densities against torch's, their laws, closed forms, limits, and
discrete latents by enumeration."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch

import vaestro as vs
from tests.conftest import make_data, make_space, make_values
from vaestro import densities, latents
from vaestro.densities import closed_form_kl
from vaestro.gradients import Gradient, GumbelSoftmax, Pathwise, Score, StraightThrough
from vaestro.parts import TABLE, find
from vaestro.spaces import Batch, Kind

D = torch.distributions
FAMILIES = [name for name, made in TABLE["posterior"].items() if not made.discrete]  # type: ignore[attr-defined]
UNITS = 3


def built(posterior: str, latent: int = UNITS, **parts: Any) -> vs.VAE:
    torch.manual_seed(0)
    space = make_space(Kind.BINARY, (6,))
    return vs.build(
        space, latent=latent, posterior=posterior, **({"network": "mlp:width=8"} | parts)
    ).double()


def wild(model: vs.VAE, rows: int = 4, scale: float = 0.7) -> torch.Tensor:
    """Return features that no untrained encoder gives: every parameter differs by datum."""
    shape = type(model.posterior).outputs(model.units, **options(model))
    return scale * torch.randn(
        rows, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )


def options(model: vs.VAE) -> dict[str, Any]:
    return (
        {"rank": model.posterior.rank}
        if isinstance(model.posterior, vs.posteriors.LowRankNormal)
        else {}
    )


def torchs(name: str, q: Any) -> Any:
    """Return the same density by torch.distributions."""
    if name == "full-normal":
        std = torch.exp(0.5 * q.conditional_logvar)
        return D.MultivariateNormal(
            q.mean, scale_tril=std.unsqueeze(-1) * (torch.eye(UNITS, dtype=torch.float64) + q.lower)
        )
    if name == "low-rank-normal":
        std = torch.exp(0.5 * q.diagonal_logvar)
        return D.LowRankMultivariateNormal(q.mean, std.unsqueeze(-1) * q.factors, std.square())
    if name == "normal":
        return D.Independent(D.Normal(q.mean, q.std), 1)
    scale = torch.exp(q.log_scale)
    made = {
        "laplace": lambda: D.Laplace(q.loc, scale),
        "student-t": lambda: D.StudentT(q.df, q.loc, scale),
        "gumbel": lambda: D.Gumbel(q.loc, scale),
        "logistic": lambda: D.TransformedDistribution(
            D.Uniform(torch.zeros_like(scale), torch.ones_like(scale)),
            [D.SigmoidTransform().inv, D.AffineTransform(q.loc, scale)],
        ),
    }
    return D.Independent(made[name](), 1)


HERE = ["normal", "full-normal", "low-rank-normal", "laplace", "logistic", "student-t", "gumbel"]


@pytest.mark.parametrize("name", HERE)
def test_densities_are_those_of_torch_at_any_point(name: str) -> None:
    model = built(name)
    q = model.q(wild(model))
    z = torch.randn(5, 4, UNITS, dtype=torch.float64)
    expected = torchs(name, q).log_prob(z)
    torch.testing.assert_close(q.log_prob(z), expected)
    # More leading dimensions, as when draws of some data are scored under the q of others.
    torch.testing.assert_close(q.log_prob(z.unsqueeze(1)), expected.unsqueeze(1))
    torch.testing.assert_close(
        q.log_prob(z[:, :1].unsqueeze(0)), torchs(name, q).log_prob(z[:, :1].unsqueeze(0))
    )


@pytest.mark.parametrize("name", HERE)
def test_draws_score_the_same_as_any_other_points(name: str) -> None:
    model = built(name)
    features = wild(model).requires_grad_()
    noise = model.noise(5, 4)
    q = model.q(features)
    z = q.from_noise(noise)
    own, copied = q.log_prob(z), q.log_prob(z.clone())
    torch.testing.assert_close(own, copied)
    # From the noise that made them, or from the values: the derivative along the path is the same.
    a, b = (torch.autograd.grad(x.sum(), features, retain_graph=True)[0] for x in (own, copied))
    torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)
    cut = q.detach()
    assert not cut.log_prob(z.detach()).requires_grad
    torch.testing.assert_close(cut.log_prob(z.detach()), own)


@pytest.mark.parametrize("name", FAMILIES)
def test_draws_have_the_mean_and_variance_that_are_told(name: str) -> None:
    model = built(name)
    q = model.q(wild(model, 2))
    z = q.from_noise(model.noise(100_000, 2, torch.Generator().manual_seed(0)))
    # a flow's moments are those of 64 draws
    tolerance = 0.03 if q.scored_anywhere else 0.4
    torch.testing.assert_close(z.mean(0), q.mean, rtol=0.02, atol=tolerance)
    variance = q.variance
    assert variance is not None
    torch.testing.assert_close(
        z.var(0), variance, rtol=0.15 if name == "student-t" else 2 * tolerance, atol=0.05
    )


def test_a_full_covariance_and_one_of_low_rank_are_those_of_their_draws() -> None:
    for name in ("full-normal", "low-rank-normal:rank=2"):
        model = built(name)
        q = model.q(wild(model, 1))
        z = q.from_noise(model.noise(200_000, 1, torch.Generator().manual_seed(0)))[:, 0]
        found, expected = torch.cov(z.T), torchs(name.partition(":")[0], q).covariance_matrix[0]
        assert float((expected - torch.diag(expected.diag())).abs().max()) > 0.2, (
            "correlations are what it is for"
        )
        torch.testing.assert_close(found, expected, rtol=0.03, atol=0.02)


@pytest.mark.parametrize("name", ["full-normal", "low-rank-normal"])
def test_kl_of_correlated_normals_is_torchs(name: str) -> None:
    model = built(name)
    q = model.q(wild(model))
    other = densities.Normal(
        torch.tensor([0.3, -1.0, 0.0]).double(), torch.tensor([0.5, -0.5, 1.0]).double()
    )
    for p in (densities.StandardNormal((UNITS,), torch.zeros((), dtype=torch.float64)), other):
        rate = closed_form_kl(q, p)
        assert rate is not None
        variance = (
            torch.ones(UNITS, dtype=torch.float64)
            if isinstance(p, densities.StandardNormal)
            else p.variance
        )
        mine = D.MultivariateNormal(torchs(name, q).loc, torchs(name, q).covariance_matrix)
        expected = D.kl_divergence(mine, D.MultivariateNormal(p.mean, torch.diag(variance)))
        torch.testing.assert_close(rate.flatten(2).sum(-1)[0], expected)


@pytest.mark.parametrize("name", ["laplace", "logistic", "student-t", "gumbel"])
def test_kl_of_location_scale_families_is_their_integral(name: str) -> None:
    model = built(name, 1)
    q = model.q(wild(model, 3))
    p = densities.StandardNormal((1,), torch.zeros((), dtype=torch.float64))
    z = torch.linspace(-400, 400, 4_000_001, dtype=torch.float64).view(-1, 1, 1)
    log_q, log_p = q.log_prob(z), p.log_prob(z)
    integral = torch.trapezoid(torch.exp(log_q) * (log_q - log_p), z[:, 0, 0], dim=0)
    rate = closed_form_kl(q, p)
    assert rate is not None
    torch.testing.assert_close(
        rate[0, :, 0], integral, rtol=2e-3 if name == "student-t" else 1e-6, atol=1e-6
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_no_output_of_an_encoder_makes_a_nan(name: str) -> None:
    model = built(name).float()
    for size in (1e3, 1e9):
        features = (size * wild(model).float().sign()).requires_grad_()
        q = model.q(features)
        z = q.from_noise(model.noise(2, 4))
        assert torch.isfinite(z).all()
        (gradient,) = torch.autograd.grad(q.log_prob(z).sum() + z.sum(), features)
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("rate", [0.01, 0.1, 1.0])
def test_no_unit_falls_below_a_minimum_rate(rate: float) -> None:
    model = built(f"normal:min_rate={rate}")
    p = densities.StandardNormal((UNITS,), torch.zeros((), dtype=torch.float64))
    for scale in (0.0, 1.0, 100.0):
        found = closed_form_kl(model.q(wild(model, 200, scale)), p)
        assert found is not None and float(found.min()) >= rate * (1 - 1e-9)
    features = torch.zeros(1, 2, UNITS, dtype=torch.float64)
    # the encoder asks for the widest: the rate comes near its minimum, and is not far above it
    features[:, 1] = 19.0
    nearest = closed_form_kl(model.q(features), p)
    assert nearest is not None and float(nearest.max()) < rate * 1.05


def test_a_minimum_rate_is_for_the_standard_normal_prior() -> None:
    with pytest.raises(ValueError, match="expected prior normal"):
        built(
            "normal:min_rate=0.1",
            prior="conditional",
            given=vs.spaces.TableSpace.of([vs.spaces.RealColumn("a", "float64")]),
        )


# -- discrete latents ------------------------------------------------------------------------------


def discrete(posterior: str, latent: int) -> tuple[vs.VAE, Batch, torch.Tensor]:
    """Return a small model, two data and every latent, (n, units)."""
    model = built(posterior, latent)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(3.0)  # away from the even odds of an untrained encoder
    batch = Batch(torch.from_numpy(make_values(model.space, 2)))
    if posterior == "bernoulli":
        states = [torch.tensor(z) for z in itertools.product((0.0, 1.0), repeat=latent)]
    else:
        eye = torch.eye(model.alphabet)
        states = [
            torch.cat([eye[i] for i in chosen])
            for chosen in itertools.product(range(model.alphabet), repeat=latent)
        ]
    return model, batch, torch.stack(states).double()


def exact_elbo(model: vs.VAE, batch: Batch, states: torch.Tensor) -> torch.Tensor:
    q = model.posterior(batch)
    z = states.unsqueeze(1).expand(-1, len(batch), -1)
    log_px, log_pz = model.log_terms(batch, z)
    log_q = q.log_prob(z)
    return (torch.exp(log_q) * (log_px + log_pz - log_q)).sum(0)


MODELS = [("bernoulli", 3), ("categorical:codes=3", 2)]


@pytest.mark.parametrize(("posterior", "latent"), MODELS)
def test_discrete_densities_sum_to_one_and_rates_are_the_enumerated_ones(
    posterior: str, latent: int
) -> None:
    model, batch, states = discrete(posterior, latent)
    q, p = model.posterior(batch), model.prior(model.posterior, None)
    for density in (q, p):
        torch.testing.assert_close(
            torch.exp(density.log_prob(states.unsqueeze(1))).sum(0),
            torch.ones(1, dtype=torch.float64).expand(2)
            if density is q
            else torch.ones(1, dtype=torch.float64),
        )
    log_q = q.log_prob(states.unsqueeze(1))
    by_hand = (torch.exp(log_q) * (log_q - p.log_prob(states.unsqueeze(1)))).sum(0)
    rate = closed_form_kl(q, p)
    assert rate is not None
    torch.testing.assert_close(rate.flatten(2).sum(-1)[0], by_hand)
    torch.testing.assert_close(q.entropy.flatten(1).sum(1), -(torch.exp(log_q) * log_q).sum(0))


@pytest.mark.parametrize(("posterior", "latent"), MODELS)
def test_hard_draws_follow_the_probabilities(posterior: str, latent: int) -> None:
    model, batch, states = discrete(posterior, latent)
    q = model.posterior(batch)
    z = q.from_noise(model.noise(100_000, 2, torch.Generator().manual_seed(0)))
    found = (z.unsqueeze(1) == states.view(1, len(states), 1, -1)).all(-1).double().mean(0)
    torch.testing.assert_close(
        found, torch.exp(q.log_prob(states.unsqueeze(1))), atol=0.006, rtol=0
    )
    assert torch.equal(found.sum(0), torch.ones(2, dtype=torch.float64)), (
        "nothing but the states is drawn"
    )
    sharp = q.relaxed(model.noise(1000, 2, torch.Generator().manual_seed(0)), 1e-3)
    hard = q.from_noise(model.noise(1000, 2, torch.Generator().manual_seed(0)))
    assert float((sharp - hard).abs().mean()) < 0.01


@pytest.mark.parametrize(("posterior", "latent"), MODELS)
def test_what_is_reported_of_relaxed_training_comes_from_hard_draws(
    posterior: str, latent: int
) -> None:
    model, batch, states = discrete(posterior, latent)
    exact = exact_elbo(model, batch, states).detach()
    for estimator in (GumbelSoftmax(), StraightThrough(), None):
        draws = model.draw(
            batch,
            20_000,
            gradient=estimator,
            noise=model.noise(20_000, 2, torch.Generator().manual_seed(3)),
        )
        assert set(draws.z.unique().tolist()) == {0.0, 1.0}
        error = draws.log_px.std(0) / 20_000**0.5
        assert ((vs.elbo(draws) - exact).abs() < 4.5 * error).all()
        if isinstance(estimator, GumbelSoftmax):
            relaxed = draws.trained()
            assert float(relaxed.z.min()) > 0
            assert float(relaxed.z.max()) < 1
    loss = vs.Objective(gradient=GumbelSoftmax())(
        model, batch, torch.tensor(0.0), model.noise(1, 2)
    )
    assert float(loss.loss) != pytest.approx(-float(loss.bound))


def mean_gradient(
    model: vs.VAE, batch: Batch, estimator: Gradient, k: int, repeats: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard error of the derivative of the ELBO for the last bias of the
    encoder."""
    bias = model.posterior.encoder.last.bias
    out = []
    for i in range(repeats):
        draws = model.draw(
            batch,
            k,
            gradient=estimator,
            noise=model.noise(k, len(batch), torch.Generator().manual_seed(i)),
        )
        loss = estimator.surrogate(draws.trained(), vs.elbo).sum()
        out.append(torch.autograd.grad(loss, bias)[0].numpy().copy())
    found = np.stack(out)
    return found.mean(0), found.std(0, ddof=1) / repeats**0.5


@pytest.mark.parametrize(("posterior", "latent"), MODELS)
def test_the_score_function_has_the_enumerated_gradient_for_discrete_latents(
    posterior: str, latent: int
) -> None:
    model, batch, states = discrete(posterior, latent)
    exact = torch.autograd.grad(
        exact_elbo(model, batch, states).sum(), model.posterior.encoder.last.bias
    )[0].numpy()
    mean, error = mean_gradient(model, batch, Score().eval(), 500, 200)
    assert (np.abs(mean - exact) < 4 * error + 1e-12).all()


@pytest.mark.parametrize(("posterior", "latent"), MODELS)
def test_the_bias_of_relaxed_gradients_falls_with_the_temperature(
    posterior: str, latent: int
) -> None:
    model, batch, states = discrete(posterior, latent)
    exact = torch.autograd.grad(
        exact_elbo(model, batch, states).sum(), model.posterior.encoder.last.bias
    )[0].numpy()
    off = {}
    for temperature in (0.1, 5.0):
        mean, error = mean_gradient(model, batch, GumbelSoftmax(temperature=temperature), 2000, 100)
        off[temperature] = np.abs(mean - exact).max()
        if temperature < 1:
            assert off[temperature] < 0.05 * np.abs(exact).max() + 4 * error.max()
    assert off[5.0] > 2 * off[0.1]


def test_straight_through_is_exact_for_what_is_linear_in_a_choice() -> None:
    # E f(z) for f = a . z: the derivative of sum p_i a_i. With the relaxed softmax at temperature 1
    # the mean gradient is not exact, and its sign and size are right; what must be exact is the
    # value, which is that of hard draws.
    logits = torch.tensor([[0.5, -1.0, 0.2]], dtype=torch.float64, requires_grad=True)
    a = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    q = densities.OneHot(logits, 3, 1)
    noise = q.noise((200_000, 1, 3), torch.Generator().manual_seed(0))
    z = StraightThrough().latents(q, noise)
    assert set(z.detach().round(decimals=9).unique().tolist()) == {0.0, 1.0}
    value = (z * a).sum(-1).mean()
    expected = (q.mean * a).sum()
    assert float(value) == pytest.approx(float(expected), abs=0.02)
    (found,), (right,) = torch.autograd.grad(value, logits), torch.autograd.grad(expected, logits)
    assert float(torch.nn.functional.cosine_similarity(found, right)) > 0.97


@pytest.mark.parametrize("gradient", ["gumbel-softmax", "straight-through", "score"])
@pytest.mark.parametrize("posterior", ["bernoulli", "categorical:codes=4"])
def test_discrete_latents_train_and_stay_below_the_truth(posterior: str, gradient: str) -> None:
    # Two equally likely templates with 5 % of cells flipped: log p(x) = log mean over both.
    r = np.random.default_rng(0)
    templates = r.integers(0, 2, (2, 12))
    x = (templates[r.integers(0, 2, 3000)] ^ (r.random((3000, 12)) < 0.05)).astype(np.uint8)
    data = vs.load(x)
    torch.manual_seed(0)
    model = vs.build(data.space, latent=2, posterior=posterior, network="mlp:width=32")
    estimator = find("gradient", gradient)()
    objective = vs.Objective(k=4 if gradient == "score" else 1, gradient=estimator)
    for _ in vs.training(model, objective, data, steps=600, batch=128, lr=5e-3, device="cpu"):
        pass
    held = data.test.values
    differ = (held[:, None] != templates[None]).sum(-1)
    truth = np.log(np.mean(0.05**differ * 0.95 ** (12 - differ), axis=1)).mean()
    found = vs.evaluate(model, data.test, k=200, methods=("elbo", "iwae"))
    assert found["elbo"].mean()[0] < found["iwae"].mean()[0] + 1e-6
    assert found["iwae"].mean()[0] < truth + 0.1
    assert found["elbo"].mean()[0] > truth - 0.8


def test_what_has_no_meaning_for_discrete_latents_is_refused() -> None:
    data = make_data(make_space(Kind.BINARY, (6,)), make_values(make_space(Kind.BINARY, (6,)), 40))
    hard, real = built("bernoulli").float(), built("normal").float()
    for model, estimator, message in (
        (
            hard,
            Pathwise(),
            "expected gradient gumbel-softmax, straight-through or score for discrete latents; "
            "got pathwise",
        ),
        (hard, vs.gradients.StickingTheLanding(), "expected gradient gumbel-softmax.*got stl"),
        (real, GumbelSoftmax(), "expected gradient pathwise for real latents.*got gumbel-softmax"),
        (real, StraightThrough(), "expected gradient pathwise.*got straight-through"),
    ):
        with pytest.raises(ValueError, match=message):
            vs.training(model, vs.Objective(gradient=estimator), data, steps=2, device="cpu")
    with pytest.raises(ValueError, match="expected objective elbo with gumbel-softmax"):
        vs.Objective("iwae", k=3, gradient=GumbelSoftmax())
    for posterior, priors in {
        "bernoulli": ("normal", "categorical", "conditional", "mixture"),
        "categorical:codes=2": ("normal", "bernoulli", "vamp"),
        "normal": ("bernoulli", "autoregressive"),
        "iaf": ("vamp",),
        "spline": ("vamp",),
    }.items():
        for prior in priors:
            with pytest.raises(ValueError, match="expected"):
                built(posterior, prior=prior)
    for methods in ("ais", "gap"):
        with pytest.raises(ValueError, match="expected real latents"):
            vs.evaluate(hard, data.test, k=2, methods=methods)


@pytest.mark.parametrize(
    "spec",
    [
        "low-rank-normal:rank=0",
        "student-t:df=2",
        "normal:limit=0",
        "normal:min_rate=-1",
        "normal:min_rate=6",
        "categorical:codes=1",
    ],
)
def test_options_out_of_range_are_refused(spec: str) -> None:
    with pytest.raises(ValueError, match=r"expected .*; got"):
        built(spec)


def test_a_full_covariance_of_many_units_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected at most 512 units .* low-rank-normal; got 600"):
        built("full-normal", 600)


def test_entropies_of_the_standard_members() -> None:
    for name, expected in (
        ("laplace", 1 + math.log(2)),
        ("logistic", 2.0),
        ("gumbel", 1.5772156649),
    ):
        model = built(name, 1)
        q = model.q(torch.zeros(1, 2, 1, dtype=torch.float64))
        assert float(q.entropy) == pytest.approx(expected, abs=1e-9)
    q = built("student-t:df=7", 1).q(torch.zeros(1, 2, 1, dtype=torch.float64))
    assert float(q.entropy) == pytest.approx(float(D.StudentT(7.0).entropy()), abs=1e-6)


def test_discrete_codes_are_probabilities_and_their_mode_is_decoded() -> None:
    for posterior in ("bernoulli", "categorical:codes=3"):
        model = built(posterior, 2).float()
        data = make_data(model.space, make_values(model.space, 30))
        codes = latents.encode(model, data.test)
        assert set(codes) == {"mean"}, "a discrete unit has no log-variance"
        z = latents.settled(model, codes["mean"])
        assert set(np.unique(z)) <= {0.0, 1.0}
        if model.alphabet > 1:
            grouped, means = (a.reshape(len(z), 2, 3) for a in (z, codes["mean"]))
            assert (grouped.sum(2) == 1).all()
            assert (grouped.argmax(2) == means.argmax(2)).all()
        np.testing.assert_array_equal(
            latents.reconstruct(model, data.test), latents.decode(model, z)
        )
    # A grid of one-hot groups, the groups along its first dimension.
    grid = built("categorical:codes=3", 2, network="linear")
    means = np.random.default_rng(0).random((4, 6, 2, 2))
    z = latents.settled(grid, means)
    assert (z.reshape(4, 2, 3, 2, 2).sum(2) == 1).all()
    assert (z.reshape(4, 2, 3, 2, 2).argmax(2) == means.reshape(4, 2, 3, 2, 2).argmax(2)).all()
