"""Evaluation: exactly the k that was asked for, chunks that change nothing, errors and units."""

import math

import numpy as np
import pytest
import torch

import vaestro as vs
from tests.conftest import make_space, make_values
from vaestro import latents
from vaestro.data import Rows
from vaestro.evaluation import Estimate, chunks
from vaestro.randomness import torch_generator
from vaestro.spaces import Batch, Kind


def rows_and_model(kind: Kind = Kind.BINARY, n: int = 23) -> tuple[Rows, vs.VAE]:
    torch.manual_seed(0)
    space = make_space(kind)
    return Rows(make_values(space, n), space, "test"), vs.build(space, latent=2, network="mlp:width=8").eval()


@pytest.mark.parametrize("k", [1, 2, 255, 256, 257, 700])
def test_the_bound_is_that_of_exactly_k_draws(k: int) -> None:
    # Mistakes 5 and 6: weights averaged over draws and not over data, a remainder chunk whose K is not the K subtracted.
    rows, model = rows_and_model(n=11)
    data_chunk, draw_chunk = chunks(rows.space, k)
    got = vs.evaluate(model, rows, k=k, seed=3)
    iwae, elbo = [], []
    for first in range(0, 11, data_chunk):
        batch = Batch(torch.from_numpy(rows.values[first : first + data_chunk]))
        noise = torch.cat(
            [
                model.noise(min(draw_chunk, k - done), data_chunk, torch_generator("cpu", 3, "evaluate", first, done))[:, : len(batch)]
                for done in range(0, k, draw_chunk)
            ]
        )
        assert len(noise) == k
        with torch.no_grad():
            draws = model.draw(batch, k, noise=noise)
        w = draws.log_w.double().numpy()
        iwae.append(np.log(np.exp(w - w.max(0)).mean(0)) + w.max(0))
        elbo.append((draws.log_px.mean(0) - draws.total_rate).double().numpy())
    np.testing.assert_allclose(got["iwae"].nats, np.concatenate(iwae), atol=1e-5)
    np.testing.assert_allclose(got["elbo"].nats, np.concatenate(elbo), atol=1e-5)
    assert got["iwae"].ess is not None
    assert (got["iwae"].ess <= k * (1 + 1e-9)).all()
    assert (got["iwae"].ess >= 1 - 1e-9).all()


def test_both_estimators_of_the_elbo_have_one_mean() -> None:
    rows, model = rows_and_model()
    with torch.no_grad():
        draws = model.draw(Batch(torch.from_numpy(rows.values)), 20_000)
    difference = (draws.sampled().total_rate - draws.total_rate).abs()
    error = draws.sampled().rate.squeeze(-1).std(0) / math.sqrt(20_000)
    assert (difference < 4.5 * error).all()
    assert float(vs.elbo(draws).mean()) == pytest.approx(float(vs.elbo(draws.sampled()).mean()), abs=0.02)


def test_the_same_call_gives_the_same_digits_and_leaves_the_model_as_it_was() -> None:
    rows, model = rows_and_model()
    model.train()
    first, second = (vs.evaluate(model, rows, k=9) for _ in range(2))
    assert (first["iwae"].nats == second["iwae"].nats).all()
    assert model.training
    other = vs.evaluate(model, rows, k=9, seed=1)
    assert (first["iwae"].nats != other["iwae"].nats).any()


def test_mean_and_error_are_over_data() -> None:
    estimate = Estimate("iwae", np.array([-3.0, -1.0, -2.0, -6.0]), "lower", "counting", 5, "IWAE with 5 draws", cells=4)
    mean, error = estimate.mean()
    assert mean == -3
    assert error == pytest.approx(np.std([-3, -1, -2, -6], ddof=1) / 2)
    assert estimate.bits_per_dim == pytest.approx(3 / (4 * math.log(2)))
    assert estimate.sentence("4 test data") == "log p(x) >= -3.00 +- 1.08 nats (IWAE with 5 draws, 4 test data)"


def test_a_density_has_no_bits_per_dim() -> None:
    rows, model = rows_and_model(Kind.REAL)
    result = vs.evaluate(model, rows, k=3)["iwae"]
    assert result.measure == "lebesgue"
    assert result.bits_per_dim is None
    assert "density" in result.sentence("data")


def test_codes_are_means_and_not_draws() -> None:
    # Mistake 18.
    rows, model = rows_and_model()
    codes = latents.encode(model, rows)
    with torch.no_grad():
        q = model.posterior(Batch(torch.from_numpy(rows.values)))
    np.testing.assert_allclose(codes["mean"], q.mean.numpy(), atol=1e-6)
    np.testing.assert_allclose(codes["logvar"], q.logvar.numpy(), atol=1e-6)
    draws = latents.encode(model, rows, draws=400)["z"]
    assert draws.shape == (400, 23, 2)
    np.testing.assert_allclose(draws.std(0), np.exp(codes["logvar"] / 2), rtol=0.2)


def test_outputs_of_binary_and_real_decoders_are_in_the_range_of_the_data() -> None:
    # Mistakes 8 and 9: a sigmoid on top of logits, a tanh for data in [0, 1].
    _, model = rows_and_model()
    with torch.no_grad():
        model.likelihood.decoder.last.bias.fill_(-12.0)
        means = latents.decode(model, np.zeros((1, 2), np.float32))
    assert (means > 0).all()
    assert (means < 1e-4).all()
    samples = latents.sample(model, 200)
    assert set(np.unique(samples)) <= {0, 1}


def test_an_exact_check_by_numpy_from_what_encode_and_decode_write() -> None:
    """Recompute IWAE from codes and probabilities alone, as a stranger would."""
    rows, model = rows_and_model(n=8)
    codes = latents.encode(model, rows)
    mean, std = codes["mean"], np.exp(codes["logvar"] / 2)
    noise = np.random.default_rng(0).normal(size=(3000, 8, 2))
    z = mean + std * noise
    p = latents.decode(model, z.reshape(-1, 2).astype(np.float32)).reshape(3000, 8, 6).astype(np.float64)
    log_px = np.where(rows.values, np.log(p), np.log1p(-p)).sum(-1)
    log_w = log_px - 0.5 * (z**2).sum(-1) + (0.5 * noise**2 + np.log(std)).sum(-1)
    iwae = np.log(np.exp(log_w).mean(0))
    np.testing.assert_allclose(iwae, vs.evaluate(model, rows, k=3000)["iwae"].nats, atol=0.05)


def test_a_limit_does_not_change_a_datums_digits() -> None:
    rows, model = rows_and_model()
    few, many = (vs.evaluate(model, rows, k=20, limit=n)["iwae"].nats for n in (10, 23))
    np.testing.assert_allclose(few, many[:10], atol=1e-5)


def test_rows_read_with_another_standardisation_are_scored_in_the_models_units() -> None:
    x = np.random.default_rng(0).normal(size=(60, 4))
    torch.manual_seed(0)
    own, other = vs.load(x), vs.load(1000 * x + 500)
    model = vs.build(own.space, latent=2, network="mlp:width=8").eval()
    mine = vs.evaluate(model, own.train, k=5)["iwae"].nats
    theirs = vs.evaluate(model, other.train, k=5)["iwae"].nats
    assert (theirs < mine - 1000).all()  # far outside of what the model knows
    again = vs.load(np.concatenate([x, x]))
    assert not np.array_equal(again.space.scale, own.space.scale)
    same = vs.evaluate(model, vs.data.Rows(again.space.inward(own.train.outward()), again.space, "test"), k=5)["iwae"].nats
    np.testing.assert_allclose(same, mine, atol=1e-3)
