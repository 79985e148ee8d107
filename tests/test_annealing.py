"""Annealed importance sampling against exact answers: linear-Gaussian models, quadrature, and the
laws that both directions obey."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import vaestro as vs
from tests.conftest import make_space, make_values
from tests.test_contracts import GIVEN, data_for, small_model
from tests.test_oracles import set_linear
from vaestro.data import Rows
from vaestro.densities import log_mean_exp
from vaestro.evaluation import SIMULATED
from vaestro.evaluation.chosen import drawn
from vaestro.evaluation.hmc import Hmc, tuned
from vaestro.evaluation.likeness import chance_above, likeness
from vaestro.evaluation.path import Path, State, Transition, anneal, temperatures
from vaestro.parts import TABLE
from vaestro.spaces import Batch, Kind

# log weight minus log p(x), forwards and in reverse, with exact transitions, computed from Gaussian
# integrals alone.
TABLE_OF_BIAS = {
    ("linear", 10): (-22.771, 4.895),
    ("linear", 100): (-1.6185, 1.1482),
    ("linear", 1000): (-0.14096, 0.13571),
    ("sigmoid", 10): (-6.662, 3.565),
    ("sigmoid", 100): (-0.4932, 0.4625),
    ("sigmoid", 1000): (-0.0479, 0.0476),
}


class Linear:
    """A linear-Gaussian model with one datum, and everything about it that is known exactly."""

    def __init__(
        self,
        cells: int = 20,
        units: int = 5,
        sigma2: float = 0.25,
        seed: int = 0,
        widen: float = 1.0,
    ) -> None:
        r = np.random.default_rng(seed)
        self.weights = r.normal(size=(cells, units))
        self.x = self.weights @ r.normal(size=units) + math.sqrt(sigma2) * r.normal(size=cells)
        self.sigma2, self.units = sigma2, units
        inner = self.weights.T @ self.weights + sigma2 * np.eye(units)
        self.encoder = np.linalg.solve(inner, self.weights.T)
        self.model = vs.build(
            make_space(Kind.REAL, (cells,)),
            latent=units,
            network="linear",
            likelihood=f"gaussian:variance={sigma2!r}",
        ).eval()
        set_linear(
            self.model,
            self.weights,
            np.zeros(cells),
            self.encoder,
            np.zeros(units),
            widen * sigma2 / np.diag(inner),
        )
        self.covariance = self.weights @ self.weights.T + sigma2 * np.eye(cells)
        self.exact = float(self.log_p(self.x[None])[0])
        self.batch = Batch(torch.from_numpy(self.x)[None])

    def log_p(self, x: np.ndarray) -> np.ndarray:
        quadratic = np.einsum("ni,ni->n", x, np.linalg.solve(self.covariance, x.T).T)
        return -0.5 * (
            x.shape[1] * math.log(2 * math.pi) + np.linalg.slogdet(self.covariance)[1] + quadratic
        )

    def moments(self, t: float) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and covariance of p(z) p(x | z)^t, normalised."""
        covariance = np.linalg.inv(
            np.eye(self.units) + t * self.weights.T @ self.weights / self.sigma2
        )
        return covariance @ self.weights.T @ self.x * t / self.sigma2, covariance

    def expected_log_px(self, t: float) -> float:
        mean, covariance = self.moments(t)
        residual = self.x - self.weights @ mean
        spread = np.trace(self.weights @ covariance @ self.weights.T)
        return -0.5 * (
            len(self.x) * math.log(2 * math.pi * self.sigma2)
            + (residual @ residual + spread) / self.sigma2
        )

    def exact_draws(self, t: float, chains: int, generator: torch.Generator) -> torch.Tensor:
        mean, covariance = (torch.from_numpy(a) for a in self.moments(t))
        noise = torch.randn(chains, 1, self.units, generator=generator)
        return mean + noise @ torch.linalg.cholesky(covariance).T

    def gibbs(self, path: Path, chains: int, generator: torch.Generator) -> Transition:
        def transition(state: State, t: float, share: float) -> State:
            return path.at(self.exact_draws(t, chains, generator))

        return transition


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("schedule", "count"), list(TABLE_OF_BIAS))
def test_with_exact_transitions_both_directions_meet_the_riemann_sums(
    schedule: str, count: int
) -> None:
    linear = Linear()
    path = Path(linear.model, linear.batch, "prior", 1)
    ts = temperatures(count, schedule)
    curve = [linear.expected_log_px(t) for t in ts]
    left, right = ((np.diff(ts) * c).sum() - linear.exact for c in (curve[:-1], curve[1:]))
    for value, known in zip((left, right), TABLE_OF_BIAS[schedule, count], strict=True):
        assert value == pytest.approx(known, rel=2e-3)
    chains = 1000 if count <= 100 else 200
    generator = torch.Generator().manual_seed(1)
    gibbs = linear.gibbs(path, chains, generator)
    forward = anneal(path, path.at(path.draw(chains, generator)), ts, gibbs) - linear.exact
    back = (
        anneal(path, path.at(linear.exact_draws(1.0, chains, generator)), ts, gibbs, reverse=True)
        - linear.exact
    )
    for got, expected in ((forward, left), (back, right)):
        assert float((got.mean() - expected).abs() / (got.std() / math.sqrt(chains))) < 4


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("start", ["prior", "posterior"])
def test_with_hmc_the_interval_holds_the_truth_and_narrows(start: str) -> None:
    linear, chains = Linear(widen=12.0), 100
    path = Path(linear.model, linear.batch, start, 1)
    width = {}
    for count in (60, 600):
        ts = temperatures(count, "sigmoid")
        sizes, spreads = tuned(path, ts, 2, (0, "test", 0))
        frozen = sizes.clone()
        generator = torch.Generator().manual_seed(2)
        hmc = Hmc(path, 2, generator, sizes, spreads)
        forward = anneal(path, path.at(path.draw(chains, generator)), ts, hmc) - linear.exact
        back = (
            anneal(path, path.at(linear.exact_draws(1.0, chains, generator)), ts, hmc, reverse=True)
            - linear.exact
        )
        error = 4 / math.sqrt(chains)
        assert float(forward.mean()) < error * float(forward.std())
        assert float(back.mean()) > -error * float(back.std())
        assert float(log_mean_exp(forward)) == pytest.approx(
            0, abs=5 * float(forward.std()) / math.sqrt(chains) + 0.02
        )
        assert 0.5 < float(torch.stack(hmc.accepted).mean()) < 1
        assert torch.equal(hmc.sizes, frozen), (
            "steps are tuned before and not while weights are collected"
        )
        width[count] = float(back.mean() - forward.mean())
    assert 4 < width[60] / width[600] < 25  # 10 in the limit


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("start", ["prior", "posterior"])
@pytest.mark.parametrize("leapfrog", [1, 3])
def test_weights_are_unbiased_however_few_the_temperatures(start: str, leapfrog: int) -> None:
    # E[w] = p(x) forwards and E[1 / w] = 1 / p(x) in reverse hold exactly, so any error in a
    # transition shows.
    linear, chains = Linear(3, 2, 1.0, widen=1.5), 40_000
    path = Path(linear.model, linear.batch, start, 1)
    ts = temperatures(4, "linear")
    generator = torch.Generator().manual_seed(3)
    spreads = (torch.ones(1, 2), torch.full((1, 2), 0.6))
    hmc = Hmc(path, leapfrog, generator, torch.tensor([[0.9], [0.7]]), spreads)
    forward = torch.exp(anneal(path, path.at(path.draw(chains, generator)), ts, hmc) - linear.exact)
    back = torch.exp(
        linear.exact
        - anneal(path, path.at(linear.exact_draws(1.0, chains, generator)), ts, hmc, reverse=True)
    )
    for weights in (forward, back):
        assert float(weights.std()) > 0.02
        assert float((weights.mean() - 1).abs() / (weights.std() / math.sqrt(chains))) < 4.5


@pytest.mark.usefixtures("float64")
def test_a_reverse_chain_that_does_not_start_at_the_latents_of_its_datum_is_no_upper_bound() -> (
    None
):
    linear, chains = Linear(), 200
    path = Path(linear.model, linear.batch, "prior", 1)
    ts = temperatures(5, "linear")
    generator = torch.Generator().manual_seed(4)
    hmc = Hmc(path, 2, generator, *tuned(path, ts, 2, (0, "test", 0)))
    wrong = (
        anneal(path, path.at(path.draw(chains, generator)), ts, hmc, reverse=True) - linear.exact
    )
    right = (
        anneal(path, path.at(linear.exact_draws(1.0, chains, generator)), ts, hmc, reverse=True)
        - linear.exact
    )
    assert float(wrong.mean()) < -10
    assert float(right.mean()) > 1


def normal_cdf(x: np.ndarray) -> np.ndarray:
    return np.asarray(torch.special.ndtr(torch.from_numpy(np.asarray(x, np.float64))))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("start", ["prior", "posterior"])
def test_what_spreads_data_over_their_grid_is_annealed_too(start: str) -> None:
    # One rounded number: x = round((w z + noise) / step) step, whose probability is a difference of
    # two normal integrals.
    step, weight, sigma2 = 0.8, 1.3, 0.1
    space = replace(make_space(Kind.REAL, (1,)), resolution=np.full(1, step))
    model = vs.build(
        space, latent=1, network="linear", likelihood=f"gaussian:variance={sigma2}"
    ).eval()
    set_linear(
        model, np.array([[weight]]), np.zeros(1), np.array([[0.6]]), np.zeros(1), np.array([0.15])
    )
    x = 2 * step
    wide = math.sqrt(weight**2 + sigma2)
    cell = normal_cdf(np.array([(x + step / 2) / wide])) - normal_cdf(
        np.array([(x - step / 2) / wide])
    )
    exact = math.log(float(cell[0]) / step)  # in the user's units the bound is a density
    chains = 30_000
    path = Path(model, Batch(torch.tensor([[x]])), start, 1)
    assert path.size == 2
    generator = torch.Generator().manual_seed(5)
    ts = temperatures(6, "linear")
    hmc = Hmc(
        path, 2, generator, torch.tensor([[0.5]]), (torch.ones(1, 2), torch.tensor([[0.3, 1.5]]))
    )
    forward = torch.exp(anneal(path, path.at(path.draw(chains, generator)), ts, hmc) - exact)
    assert float((forward.mean() - 1).abs() / (forward.std() / math.sqrt(chains))) < 4.5
    # In reverse, from latents and places within the cell of draws that were rounded to this very
    # datum.
    batch, z, jitter = model.simulate(400_000, generator=generator)
    mine = (batch.x - x).abs()[:, 0] < 1e-9
    assert int(mine.sum()) / 400_000 == pytest.approx(float(cell[0]), abs=0.003)
    assert jitter is not None
    s = path.join(z[mine], jitter[mine]).unsqueeze(1)
    back = torch.exp(exact - anneal(path, path.at(s), ts, hmc, reverse=True))
    assert float((back.mean() - 1).abs() / (back.std() / math.sqrt(len(back)))) < 4.5


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("how", ["missing", "levels", "missing levels"])
def test_the_reverse_chain_starts_at_the_posterior_with_missing_cells_and_outside_of_levels(
    how: str,
) -> None:
    # One cell is seen, whose log p(x) is exact. The jitter of missing cells is unknown; with four
    # levels many draws lie outside of them.
    weight, sigma2, step = np.array([[1.0], *[[0.0]] * 12]), 2.0, 1.0
    if how == "missing":
        space = replace(
            make_space(Kind.REAL, (13,)), resolution=np.array([step, *[200.0] * 12]), missing=True
        )
    elif how == "levels":
        space, weight = make_space(Kind.LEVELS, (1,), levels=4), weight[:1]
    else:
        # Missing cells depend on z more strongly than the observed one: a datum rejected for them
        # would bias z.
        space, weight = (
            make_space(Kind.LEVELS, (3,), levels=4, missing=True),
            np.array([[1.0], [2.0], [2.0]]),
        )
    observed = torch.arange(len(weight)).unsqueeze(0) == 0 if "missing" in how else None
    model = vs.build(
        space, latent=1, network="linear", likelihood=f"gaussian:variance={sigma2}"
    ).eval()
    cells = len(weight)
    encoder = np.zeros((1, model.posterior.encoder.last.weight.shape[1]))
    centre = float(model.likelihood.centre)
    set_linear(
        model,
        weight / float(model.likelihood.stretch),
        np.zeros(cells),
        encoder,
        np.zeros(1),
        np.array([0.5]),
    )
    x, wide = 1.0, math.sqrt(weight[0, 0] ** 2 + sigma2)
    low, high = normal_cdf(np.array([x - step / 2 - centre, x + step / 2 - centre]) / wide)
    exact, n = math.log(float(high - low)), 200_000
    generator = torch.Generator().manual_seed(6)
    batch, z, jitter = model.simulate(
        n, observed=None if observed is None else observed.expand(n, -1), generator=generator
    )
    mine = (batch.x[:, 0] - x).abs() < 1e-9
    assert float(mine.double().mean()) == pytest.approx(
        math.exp(exact), abs=4.5 * 0.5 / math.sqrt(n)
    )
    one = Batch(torch.tensor([[x, *[0.0] * (cells - 1)]]), observed)
    path = Path(model, one, "prior", 1)
    assert jitter is not None
    s = path.join(z[mine], jitter[mine]).unsqueeze(1)
    hmc = Hmc(
        path,
        3,
        generator,
        torch.tensor([[1.3]]),
        (torch.ones(1, path.size), torch.ones(1, path.size)),
    )
    back = torch.exp(exact - anneal(path, path.at(s), temperatures(5, "linear"), hmc, reverse=True))
    assert len(back) > 10_000
    assert float((back.mean() - 1).abs() / (back.std() / math.sqrt(len(back)))) < 4.5


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", [Kind.LEVELS, Kind.REAL, Kind.TABLE])
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_simulated_latents_are_draws_from_the_prior(kind: Kind, share: float) -> None:
    # A large z has data outside of the levels: rejecting them narrows z.
    torch.manual_seed(0)
    space, n = make_space(kind, (6,), missing=True), 20_000
    model = vs.build(
        space, latent=2, network="linear", likelihood="table" if kind is Kind.TABLE else "gaussian"
    ).eval()
    with torch.no_grad():
        for parameter in model.likelihood.decoder.parameters():
            parameter.mul_(3)
    observed = torch.rand(n, *space.shape, generator=torch.Generator().manual_seed(1)) < share
    batch, z, _ = model.simulate(n, observed=observed, generator=torch.Generator().manual_seed(2))
    assert z.var(0, correction=0).numpy() == pytest.approx(1.0, abs=4.5 * math.sqrt(2 / n))
    assert z.mean(0).numpy() == pytest.approx(0.0, abs=4.5 / math.sqrt(n))
    assert (batch.x[~observed] == 0).all()


@pytest.mark.usefixtures("float64")
def test_the_reverse_bound_lies_above_the_exact_answer_with_missing_cells() -> None:
    r = np.random.default_rng(3)
    weight, bias, sigma2, n = r.normal(size=(6, 2)), r.normal(size=6), 0.3, 400
    model = vs.build(
        make_space(Kind.REAL, (6,), missing=True),
        latent=2,
        network="linear",
        likelihood=f"gaussian:variance={sigma2}",
    ).eval()
    set_linear(model, weight, bias, r.normal(size=(2, 12)) / 4, np.zeros(2), np.full(2, 0.6))
    observed = torch.from_numpy(r.random((n, 6)) < 0.6)
    batch, z, _ = model.simulate(n, observed=observed, generator=torch.Generator().manual_seed(0))
    assert float(z.var()) == pytest.approx(1.0, abs=4.5 * math.sqrt(1 / n))
    covariance = weight @ weight.T + sigma2 * np.eye(6)
    exact = []
    for x, seen in zip(batch.x.numpy(), observed.numpy(), strict=True):
        part, off = covariance[np.ix_(seen, seen)], (x - bias)[seen]
        exact.append(
            -0.5 * (off @ np.linalg.solve(part, off) + np.linalg.slogdet(2 * np.pi * part)[1])
            if seen.any()
            else 0.0
        )
    path = Path(model, batch, "prior", n)
    hmc = Hmc(
        path,
        3,
        torch.Generator().manual_seed(1),
        torch.full((40, n), 0.4),
        (torch.ones(n, 2), torch.ones(n, 2)),
    )
    upper = anneal(
        path, path.at(z.expand(1, -1, -1)), temperatures(40, "sigmoid"), hmc, reverse=True
    )[0]
    # its mean is 1: the bound lies above in expectation
    back = torch.exp(torch.tensor(np.array(exact)) - upper)
    assert float((back.mean() - 1).abs() / (back.std() / math.sqrt(n))) < 4.5
    above = upper - torch.tensor(np.array(exact))
    assert float(above.mean()) > 3 * float(above.std()) / math.sqrt(n)


@pytest.mark.usefixtures("float64")
def test_in_two_dimensions_iwae_ais_and_quadrature_agree_for_every_pattern() -> None:
    torch.manual_seed(3)
    space = make_space(Kind.BINARY, (4,))
    model = vs.build(space, latent=2, network="mlp:width=16,activation=tanh").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.5)
    patterns = torch.cartesian_prod(*[torch.arange(2)] * 4)
    axis = torch.linspace(-8, 8, 201)
    z = torch.cartesian_prod(axis, axis).unsqueeze(1).expand(-1, 16, -1)
    with torch.no_grad():
        log_px, log_pz = model.log_terms(Batch(patterns), z)
    exact = (torch.logsumexp(log_px + log_pz, 0) + 2 * math.log(16 / 200)).numpy()
    assert np.exp(exact).sum() == pytest.approx(1, abs=1e-9)
    rows = Rows(patterns.numpy().astype(np.uint8), space, "test")
    got = vs.evaluate(
        model, rows, k=20_000, methods="iwae,ais:temperatures=100,chains=64,n=16,simulated=0"
    )
    assert got["iwae"].ess is not None
    assert got["ais"].ess is not None
    for name, draws in (("iwae", 20_000), ("ais", 64)):
        error = np.sqrt(1 / got[name].ess - 1 / draws)  # relative error of the mean weight
        assert (np.abs(got[name].nats - exact) < 4.5 * error + 1e-6).all(), name
        total, of_total = (
            np.exp(got[name].nats).sum(),
            math.sqrt(((np.exp(exact) * error) ** 2).sum()),
        )
        assert total == pytest.approx(1, abs=4.5 * of_total + 1e-6)
    assert (got["ais"].ess > 32).all()


def linear_rows(linear: Linear, n: int, seed: int = 0) -> Rows:
    r = np.random.default_rng(seed)
    x = r.normal(size=(n, linear.units)) @ linear.weights.T + math.sqrt(linear.sigma2) * r.normal(
        size=(n, len(linear.x))
    )
    return Rows(x, linear.model.space, "test")


@pytest.mark.usefixtures("float64")
def test_evaluate_gives_both_sides_with_the_numbers_of_the_exact_model() -> None:
    linear = Linear(widen=4.0)
    rows = linear_rows(linear, 40)
    exact = linear.log_p(rows.values).mean()
    result = vs.evaluate(
        linear.model, rows, k=10, methods="elbo,iwae,ais:temperatures=60,chains=8,n=40"
    )
    by = {(e.method, e.side, e.on): e for e in result.estimates}
    assert set(by) == {
        ("elbo", "lower", "data"),
        ("iwae", "lower", "data"),
        ("ais", "lower", "data"),
        ("elbo", "lower", SIMULATED),
        ("iwae", "lower", SIMULATED),
        ("ais", "lower", SIMULATED),
        ("ais", "upper", SIMULATED),
    }
    assert result["elbo"].mean()[0] < result["ais"].mean()[0] < exact + 0.05
    # The rows are drawn from the model too, so what is measured on simulated data must hold for
    # them.
    gaps = result.simulated_gaps()
    for name, (gap, error) in gaps.items():
        assert gap > -3 * error
        assert exact - result[name].mean()[0] < gap + 4 * error + 0.05
    assert gaps["elbo"][0] > gaps["iwae"][0] > gaps["ais"][0]
    assert not any("differ from the data" in warning for warning in result.warnings)
    upper = by["ais", "upper", SIMULATED]
    assert upper.sentence("40 data").startswith("log p(x) <= ")
    assert "40 data drawn from the model" in upper.sentence("40 data")
    assert upper.details["temperatures"] == 60
    assert upper.details["alike"]
    assert 0.25 < upper.details["alike_chances"]["bound"] < 0.75


@pytest.mark.usefixtures("float64")
def test_data_unlike_the_models_own_are_said_to_be() -> None:
    linear = Linear()
    rows = linear_rows(linear, 30)
    rows = replace(rows, values=3 * rows.values)
    result = vs.evaluate(linear.model, rows, k=5, methods="ais:temperatures=10,chains=4,n=30")
    assert any("differ from the data" in warning for warning in result.warnings)
    assert result.estimates[-1].details["alike"] is False


@pytest.mark.parametrize("n", [10, 25, 40, 100])
def test_data_are_called_alike_only_where_the_sample_can_exclude_that_they_are_not(n: int) -> None:
    # a number of the second sample is the larger in 3 of 4 pairs
    r, shift = np.random.default_rng(n), 0.9539
    verdicts = {}
    for name, moved in (("same", 0.0), ("at the limit", shift), ("far", 6.0)):
        samples = [(r.normal(size=n), r.normal(size=n) + moved) for _ in range(300)]
        verdicts[name] = [likeness([chance_above(a, b)], n, n) for a, b in samples]
    assert sum(v is True for v in verdicts["at the limit"]) <= 0.05 * 300
    assert sum(v is False for v in verdicts["same"]) <= 0.01 * 300
    assert all(v is False for v in verdicts["far"])
    assert n < 40 or sum(v is True for v in verdicts["same"]) > 0.6 * 300, (
        "it must be possible to be called alike"
    )


@pytest.mark.usefixtures("float64")
def test_at_the_exact_posterior_every_chain_has_the_weight_of_the_likelihood() -> None:
    x = np.diag([2.0, 1.0, 0.5])[:, :2]
    linear = Linear()
    linear.weights, linear.sigma2, linear.units = x, 0.3, 2
    inner = x.T @ x + 0.3 * np.eye(2)
    model = vs.build(
        make_space(Kind.REAL, (3,)), latent=2, network="linear", likelihood="gaussian:variance=0.3"
    ).eval()
    set_linear(
        model, x, np.zeros(3), np.linalg.solve(inner, x.T), np.zeros(2), 0.3 / np.diag(inner)
    )
    linear.model, linear.covariance, linear.x = model, x @ x.T + 0.3 * np.eye(3), np.zeros(3)
    rows = linear_rows(linear, 12)
    result = vs.evaluate(model, rows, k=3, methods="ais:temperatures=5,chains=3,n=12")
    np.testing.assert_allclose(result["ais"].nats, linear.log_p(rows.values), atol=1e-9)
    gap, error = result.simulated_gaps()["ais"]
    assert abs(gap) < 1e-9
    assert error < 1e-9


SETTINGS = "ais:temperatures=3,chains=2,leapfrog=1,n=5"
CASES = [
    (kind, {"likelihood": name})
    for name, row in TABLE["likelihood"].items()
    for kind in sorted(row.accepts)
]
CASES += [(Kind.BINARY, {"network": name}) for name in TABLE["network"]]
CASES += [(Kind.BINARY, {"given": GIVEN, "prior": prior}) for prior in ("normal", "conditional")]
CASES += [
    (Kind.BINARY, {"prior": name})
    for name, row in TABLE["prior"].items()
    if not row.discrete and name != "conditional"
]
CASES += [
    (Kind.BINARY, {"posterior": name})
    for name, row in TABLE["posterior"].items()
    if not row.discrete
]
CASES += [(Kind.TABLE, {"missing": True}), (Kind.BINARY, {"missing": True})]


def test_nothing_is_drawn_from_the_global_generator_and_numbers_of_cells_are_those_scored() -> None:
    model = small_model(missing=True)
    rows = data_for(model, 9).test
    mask = np.zeros((9, *model.space.shape), bool)
    mask[:, 0] = True
    mask[drawn(rows, 9, 0)[1][3:]] = True  # AIS visits the three others
    state = torch.get_rng_state()
    result = vs.evaluate(
        model,
        replace(rows, observed=mask),
        k=12,
        methods="elbo,iwae,ais:temperatures=3,chains=2,n=3",
    )
    assert torch.equal(state, torch.get_rng_state())
    for estimate in result.estimates:
        few = estimate.method == "ais" or estimate.on == SIMULATED
        assert estimate.cells == pytest.approx(1 if few else mask.mean(0).sum())
    assert any("too few to tell" in warning for warning in result.warnings)
    assert result.estimates[-1].details["alike"] is None


@pytest.mark.parametrize(("kind", "parts"), CASES)
@pytest.mark.parametrize("start", ["prior", "posterior"])
def test_every_part_can_be_annealed(kind: Kind, parts: dict, start: str) -> None:
    model = small_model(kind=kind, **parts)
    rows = data_for(model, 7).test
    if start == "posterior" and not model.posterior.scored_anywhere:
        with pytest.raises(ValueError, match="expected ais:start=prior for a flow posterior"):
            vs.evaluate(model, rows, k=2, methods=f"elbo,{SETTINGS},start={start}")
        return
    result = vs.evaluate(model, rows, k=2, methods=f"elbo,{SETTINGS},start={start}")
    assert len(result["ais"].nats) == min(5, len(rows))
    assert np.isfinite(result["ais"].nats).all()
    upper = [e for e in result.estimates if e.side == "upper"]
    levelled = any("no upper bound" in warning for warning in result.warnings)
    assert bool(upper) != levelled
    assert not levelled or (kind is Kind.LEVELS and model.jitter is not None)
    assert not upper or np.isfinite(upper[0].nats).all()


def test_a_limit_does_not_change_a_datums_digits() -> None:
    torch.manual_seed(0)
    space = make_space(Kind.BINARY)
    model = vs.build(space, latent=2, network="mlp:width=8").eval()
    rows = Rows(make_values(space, 300), space, "test")
    many, few = (
        vs.evaluate(model, rows, k=2, methods=SETTINGS.replace("n=5", f"n={n},simulated=0"))["ais"]
        for n in (290, 7)
    )
    np.testing.assert_allclose(
        few.nats, many.nats[np.searchsorted(many.index, few.index)], atol=1e-5
    )


def test_options_out_of_range_are_refused() -> None:
    model = small_model()
    rows = data_for(model, 7).test
    for option in (
        "temperatures=0",
        "chains=0",
        "leapfrog=0",
        "n=0",
        "simulated=-1",
        "simulated=100000",
    ):
        with pytest.raises(ValueError, match=option.split("=", maxsplit=1)[0]):
            vs.evaluate(model, rows, methods=f"ais:{option}")
    for option in ("schedule=cosine", "start=middle", "temps=3"):
        with pytest.raises(ValueError, match="expected"):
            vs.evaluate(model, rows, methods=f"ais:{option}")


def test_data_drawn_outside_of_the_levels_have_an_upper_bound_too() -> None:
    space = make_space(Kind.LEVELS, (6,), levels=8)
    model = vs.build(
        space, latent=2, network="mlp:width=8", likelihood="gaussian:variance=4000"
    ).eval()
    result = vs.evaluate(model, Rows(make_values(space, 10), space, "test"), k=2, methods=SETTINGS)
    assert not any("no upper bound" in warning for warning in result.warnings)
    lower, upper = (
        next(e.nats for e in result.estimates if e.on == SIMULATED and e.side == side)
        for side in ("lower", "upper")
    )
    assert np.isfinite(lower).all()
    assert np.isfinite(upper).all()


def test_simulated_data_are_drawn_with_the_conditions_and_masks_of_the_data() -> None:
    model = small_model(given=GIVEN, prior="conditional", missing=True)
    given = torch.randn(6, *model.given.feature_shape)
    observed = torch.rand(6, *model.space.shape) < 0.5
    batch, z, jitter = model.simulate(6, given, observed, torch.Generator().manual_seed(0))
    assert jitter is None
    assert z.shape == (6, *model.units)
    assert torch.equal(batch.given, given)
    assert torch.equal(batch.observed, observed)
    assert (batch.x[~observed] == 0).all()
