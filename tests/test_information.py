"""The rate taken apart: closed forms of Gaussians, a double loop, the ceiling ln N, and codes that
say nothing."""

import json
import math

import numpy as np
import pytest
import torch

import vaestro as vs
from tests.conftest import make_space
from tests.test_contracts import data_for, small_model
from tests.test_gaps import plain
from tests.test_oracles import set_linear
from vaestro.data import Rows
from vaestro.evaluation import Information, information
from vaestro.evaluation.chosen import drawn
from vaestro.randomness import torch_generator
from vaestro.spaces import Kind


def linear(encoder: np.ndarray, variance: np.ndarray, bias: float = 0.0) -> vs.VAE:
    """Build a linear model with q(z | x) = N(encoder x + bias, variance)."""
    units, cells = encoder.shape
    model = vs.build(
        make_space(Kind.REAL, (cells,)),
        latent=units,
        network="linear",
        likelihood="gaussian:variance=1.0",
    )
    set_linear(model, encoder.T, np.zeros(cells), encoder, np.full(units, bias), variance)
    return model


def normal_rows(model: vs.VAE, n: int, scales: np.ndarray, seed: int = 0) -> Rows:
    return Rows(
        np.random.default_rng(seed).normal(size=(n, len(scales))) * scales, model.space, "test"
    )


def found(model: vs.VAE, rows: Rows, options: str = "", **kwargs: int) -> Information:
    result = vs.evaluate(model, rows, methods=f"information{options}", **kwargs).information
    assert result is not None
    return result


def within(value: tuple[float, float] | None, expected: float, slack: float = 0.0) -> bool:
    assert value is not None
    return abs(value[0] - expected) < 4.5 * value[1] + slack


@pytest.mark.usefixtures("float64")
def test_mutual_information_of_a_linear_model_with_its_exact_posterior() -> None:
    # Probabilistic PCA: (1/2) sum ln(l_i / sigma2), which is the mean rate; codes of data from the
    # model are distributed as the prior.
    sigma2, values = 0.5, np.array([4.0, 2.0, 1.5])
    weights = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 3)))[0] * np.sqrt(
        values - sigma2
    )
    inner = weights.T @ weights + sigma2 * np.eye(3)
    model = vs.build(
        make_space(Kind.REAL, (6,)),
        latent=3,
        network="linear",
        likelihood=f"gaussian:variance={sigma2}",
    )
    set_linear(
        model,
        weights,
        np.zeros(6),
        np.linalg.solve(inner, weights.T),
        np.zeros(3),
        sigma2 / np.diag(inner),
    )
    r = np.random.default_rng(1)
    x = r.normal(size=(10_000, 3)) @ weights.T + math.sqrt(sigma2) * r.normal(size=(10_000, 6))
    expected = 0.5 * np.log(values / sigma2).sum()
    assert 2 < expected < 3
    result = found(model, Rows(x, model.space, "test"))
    assert result.n == 10_000
    # log q(z) from N data is too high by some (mean of q(z | x)^2 / q(z)^2) / 2N, here 1e-3.
    assert within(result.mutual_information, expected, 2e-3)
    assert result.rate == pytest.approx(expected, abs=0.05)
    assert within(result.marginal_kl, 0.0, 2e-3)
    assert within(result.total_correlation, 0.0, 2e-3)
    assert result.unit_kl is not None
    assert np.abs(result.unit_kl).max() < 0.05
    assert result.ceiling == math.log(10_000)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("n", [1000, 5000])
def test_an_aggregate_posterior_with_correlated_units(n: int) -> None:
    # x ~ N(0, diag(s^2)) and q(z | x) = N(A x, V), A turned: the aggregate is N(0, A diag(s^2) A' +
    # V), whose units are correlated.
    scales, variance = np.array([2.5, 0.6, 0.3]), np.array([0.5, 0.3, 0.4])
    turn = np.eye(3) - 2 / 3  # a reflection that mixes all
    model = linear(turn, variance)
    aggregate = turn @ np.diag(scales**2) @ turn.T + np.diag(variance)
    logdet, diagonal = np.linalg.slogdet(aggregate)[1], np.diag(aggregate)
    result = found(model, normal_rows(model, n, scales), ":draws=2")
    assert within(result.mutual_information, 0.5 * (logdet - np.log(variance).sum()), 10 / n)
    correlation = 0.5 * (np.log(diagonal).sum() - logdet)
    assert correlation > 0.2
    assert within(result.total_correlation, correlation, 10 / n)
    unit_kl = 0.5 * (diagonal - 1 - np.log(diagonal))
    assert within(result.unit_kl_sum, unit_kl.sum(), 10 / n)
    np.testing.assert_allclose(result.unit_kl, unit_kl, atol=4 / math.sqrt(n))
    assert within(result.marginal_kl, correlation + unit_kl.sum(), 10 / n)


def test_a_double_loop_over_few_data_agrees() -> None:
    model = small_model(Kind.REAL).eval()
    rows = data_for(model, 12).test
    result = found(model, rows, ":draws=2", seed=4)
    # The noise of a piece is drawn for all of its 128 data.
    noise = model.noise(2, 128, torch_generator("cpu", 4, "information", 0))[:, :12]
    with torch.no_grad():
        draws = model.draw(drawn(rows, 12, 4)[0].batch(slice(0, 12)), 2, noise=noise)
    mean, logvar, z = (t.double().numpy() for t in (draws.q.mean, draws.q.logvar, draws.z))
    held, by_unit = np.zeros(12), np.zeros((12, 3))
    for k in range(2):
        for n in range(12):
            each = np.array(
                [
                    -0.5
                    * (
                        (z[k, n] - mean[m]) ** 2 / np.exp(logvar[m])
                        + logvar[m]
                        + math.log(2 * math.pi)
                    )
                    for m in range(12)
                ]
            )
            held[n] += (each[n].sum() - np.log(np.exp(each.sum(1)).mean())) / 2
            by_unit[n] += (each[n] - np.log(np.exp(each).mean(0))) / 2
    rate = 0.5 * (mean**2 + np.exp(logvar) - 1 - logvar)
    assert result.mutual_information == (
        pytest.approx(held.mean(), abs=1e-5),
        pytest.approx(held.std(ddof=1) / math.sqrt(12), abs=1e-5),
    )
    assert result.rate == pytest.approx(rate.sum(1).mean(), abs=1e-5)
    assert result.total_correlation[0] == pytest.approx((by_unit.sum(1) - held).mean(), abs=1e-5)
    np.testing.assert_allclose(result.unit_kl, (rate - by_unit).mean(0), atol=1e-5)
    assert result.marginal_kl[0] == pytest.approx(result.rate - held.mean(), abs=1e-5)
    # The sampled form of the same parts, log q(z_j) - log p(z_j), has the same mean.
    many = found(model, rows, ":draws=3000")
    with torch.no_grad():
        z = model.draw(drawn(rows, 12, 4)[0].batch(slice(0, 12)), 3000).z.double().numpy()
    cells = -0.5 * ((z[:, :, None] - mean) ** 2 / np.exp(logvar) + logvar + math.log(2 * math.pi))
    sampled = np.log(np.exp(cells).mean(2)) + 0.5 * (z**2 + math.log(2 * math.pi))
    np.testing.assert_allclose(many.unit_kl, sampled.mean((0, 1)), atol=0.02)


@pytest.mark.parametrize("options", ["", ":draws=3"])
def test_the_parts_add_up_to_the_rate(options: str) -> None:
    model = small_model(latent=5)
    result = found(model, data_for(model, 300).test, options)
    parts = (result.mutual_information, result.total_correlation, result.unit_kl_sum)
    assert sum(p[0] for p in parts) == pytest.approx(result.rate, abs=1e-5)
    assert result.mutual_information[0] + result.marginal_kl[0] == pytest.approx(
        result.rate, abs=1e-5
    )
    assert result.unit_kl.sum() == pytest.approx(result.unit_kl_sum[0])
    # Of a family of which nothing is known: the rate at the same draws.
    other = found(plain(model), data_for(model, 300).test, options)
    assert other.total_correlation is other.unit_kl is other.unit_kl_sum is None
    assert other.mutual_information == pytest.approx(result.mutual_information, abs=1e-4)
    assert other.mutual_information[0] + other.marginal_kl[0] == pytest.approx(other.rate, abs=1e-5)
    assert other.rate != result.rate
    assert other.rate == pytest.approx(result.rate, abs=0.2)
    assert "KL of the aggregate posterior to the prior" in other.sentence("300 data")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_codes_that_tell_all_data_apart_hold_ln_n_and_never_more(dtype: torch.dtype) -> None:
    # Fails where a datum's own term is left out (the log-sum is then far below), and where a piece
    # of 256 data is taken for the aggregate posterior (the cap is then ln 256).
    torch.set_default_dtype(dtype)
    try:
        n = 1000
        assert n > 2 * information.EACH
        model = linear(np.eye(4), np.full(4, 1e-6))
        rows = normal_rows(model, n, np.full(4, 3.0))
        rows = Rows(
            rows.values.astype(np.float64 if dtype == torch.float64 else np.float32),
            rows.space,
            "test",
        )
        evaluation = vs.evaluate(model, rows, methods="information")
    finally:
        torch.set_default_dtype(torch.float32)
    result = evaluation.information
    assert result is not None
    assert result.mutual_information[0] == pytest.approx(math.log(n), abs=1e-3)
    assert result.mutual_information[0] <= math.log(n) + 1e-12
    assert result.interval() == (result.mutual_information[0], result.rate)
    (warning,) = evaluation.warnings
    assert "at its maximum, ln 1,000 = 6.91" in warning
    assert "too large" in warning


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("bias", [0.0, 2.0])
def test_codes_that_ignore_the_data_hold_nothing(bias: float) -> None:
    model = linear(np.zeros((3, 4)), np.full(3, 1.0), bias)
    evaluation = vs.evaluate(model, normal_rows(model, 400, np.ones(4)), methods="information")
    result = evaluation.information
    assert result is not None
    assert result.rate == pytest.approx(1.5 * bias**2, abs=1e-9)
    for value, expected in (
        (result.mutual_information, 0.0),
        (result.total_correlation, 0.0),
        (result.marginal_kl, result.rate),
    ):
        assert value == (pytest.approx(expected, abs=1e-9), pytest.approx(0.0, abs=1e-9))
    np.testing.assert_allclose(result.unit_kl, bias**2 / 2, atol=1e-9)
    assert evaluation.warnings == ()


@pytest.mark.usefixtures("float64")
def test_a_unit_that_is_off_costs_nothing_and_copies_are_all_correlation() -> None:
    # Two units carry the same number, a third nothing.
    encoder = np.array([[1.0], [1.0], [0.0]])
    variance = np.array([0.3, 0.3, 1.0])
    model = linear(encoder, variance)
    result = found(model, normal_rows(model, 3000, np.array([1.0])))
    aggregate = encoder @ encoder.T + np.diag(variance)
    expected = 0.5 * (np.log(np.diag(aggregate)).sum() - np.linalg.slogdet(aggregate)[1])
    assert within(result.total_correlation, expected, 5e-3)
    assert abs(result.unit_kl[2]) < 1e-9


def test_a_limit_is_the_same_as_so_many_data() -> None:
    model = small_model()
    rows = data_for(model, 600).test
    limited, taken, again = (
        found(model, rows, limit=300),
        found(model, rows, ":n=300"),
        found(model, rows, ":n=300"),
    )
    assert limited.mutual_information == taken.mutual_information == again.mutual_information
    assert (limited.unit_kl == taken.unit_kl).all()
    assert limited.n == taken.n == 300
    assert found(model, rows, ":n=300", seed=1).mutual_information != taken.mutual_information
    assert found(model, rows).n == 600


def test_many_units_lower_the_number_of_data_and_it_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = small_model()
    rows = data_for(model, 200).test
    monkeypatch.setattr(information, "AFFORDABLE", 100 * 100 * 2 * 3)
    lowered = found(model, rows, ":draws=2")
    assert lowered.n == 100
    assert "100 data, so that N x N x units" in lowered.sentence("200 test data")
    asked = found(model, rows, ":n=150,draws=2")
    assert asked.n == 150
    assert "no more than" not in asked.how


def test_a_grid_of_units() -> None:
    model = small_model(network="conv:width=8,factor=2", shape=(1, 4, 4))
    result = found(model, data_for(model, 20).test)
    assert result.unit_kl.shape == model.units == (3, 2, 2)
    assert sum(
        v[0] for v in (result.mutual_information, result.total_correlation, result.unit_kl_sum)
    ) == pytest.approx(result.rate, abs=1e-5)


def test_conditions_with_one_prior_and_with_a_prior_of_their_own() -> None:
    model = small_model(prior="conditional")
    rows = data_for(model, 40).test
    shared = vs.VAE(model.posterior, model.likelihood, vs.priors.Normal(model.units), model.given)
    one = found(shared, rows)
    assert one.mutual_information[0] + one.marginal_kl[0] == pytest.approx(one.rate, abs=1e-5)
    own = found(model, rows)
    # At its start the conditional prior is the standard normal, yet it need not stay so: the rate
    # is not taken apart.
    assert own.mutual_information == pytest.approx(one.mutual_information)
    assert own.marginal_kl is own.total_correlation is own.unit_kl is own.interval() is None
    assert "the prior depends on the conditions" in own.sentence("40 data")
    json.dumps(own.line(), allow_nan=False)


def test_what_is_said_and_written() -> None:
    model = small_model()
    result = found(model, data_for(model, 50).test)
    line = json.loads(json.dumps(result.line(), allow_nan=False))
    assert line["mutual_information_interval"] == [result.mutual_information[0], result.rate]
    assert len(line["unit_kl"]) == 3
    sentence = result.sentence("50 test data")
    assert sentence.startswith(
        f"rate {result.rate:.2f} = mutual information {result.mutual_information[0]:.2f} +- "
    )
    assert "at most ln 50 = 3.91; the true value is between this and the rate" in sentence
    one = found(model, data_for(model, 1).test)
    assert one.mutual_information[0] == 0
    assert (
        json.loads(json.dumps(one.line(), allow_nan=False))["mutual_information"]["stderr"] is None
    )


@pytest.mark.parametrize("options", ["n=1", "draws=0", "n=0"])
def test_options_out_of_range_are_refused(options: str) -> None:
    model = small_model()
    with pytest.raises(ValueError, match="expected n of 2 or more and draws of 1 or more"):
        vs.evaluate(model, data_for(model, 6).test, methods=f"information:{options}")
