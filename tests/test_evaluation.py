"""Evaluation: exactly the k that was asked for, chunks that change nothing, errors and units."""

import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import vaestro as vs
from tests.conftest import make_space, make_values
from vaestro import latents
from vaestro.data import Rows
from vaestro.evaluation import Estimate, chunks, evaluating
from vaestro.evaluation.bounds import Bounds
from vaestro.evaluation.chosen import drawn
from vaestro.randomness import torch_generator
from vaestro.spaces import Batch, Kind
from vaestro.text import split_specs


def rows_and_model(kind: Kind = Kind.BINARY, n: int = 23) -> tuple[Rows, vs.VAE]:
    torch.manual_seed(0)
    space = make_space(kind)
    return Rows(make_values(space, n), space, "test"), vs.build(
        space, latent=2, network="mlp:width=8"
    ).eval()


@pytest.mark.parametrize("k", [1, 2, 255, 256, 257, 700])
def test_the_bound_is_that_of_exactly_k_draws(k: int) -> None:
    # Mistakes 5 and 6: weights averaged over draws and not over data, a remainder chunk whose K is
    # not the K subtracted.
    rows, model = rows_and_model(n=11)
    data_chunk, draw_chunk = chunks(rows.space, k)
    got = vs.evaluate(model, rows, k=k, seed=3)
    shuffled, order = drawn(rows, 11, 3)
    codes = shuffled.batch(slice(0, 11)).x
    iwae, elbo = [], []
    for first in range(0, 11, data_chunk):
        batch = Batch(codes[first : first + data_chunk])
        noise = torch.cat(
            [
                model.noise(
                    min(draw_chunk, k - done),
                    data_chunk,
                    torch_generator("cpu", 3, "evaluate", first, done),
                )[:, : len(batch)]
                for done in range(0, k, draw_chunk)
            ]
        )
        assert len(noise) == k
        with torch.no_grad():
            draws = model.draw(batch, k, noise=noise)
        w = draws.log_w.double().numpy()
        iwae.append(np.log(np.exp(w - w.max(0)).mean(0)) + w.max(0))
        elbo.append((draws.log_px.mean(0) - draws.total_rate).double().numpy())
    np.testing.assert_allclose(got["iwae"].nats[order], np.concatenate(iwae), atol=1e-5)
    np.testing.assert_allclose(got["elbo"].nats[order], np.concatenate(elbo), atol=1e-5)
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
    assert float(vs.elbo(draws).mean()) == pytest.approx(
        float(vs.elbo(draws.sampled()).mean()), abs=0.02
    )


def test_the_same_call_gives_the_same_digits_and_leaves_the_model_as_it_was() -> None:
    rows, model = rows_and_model()
    model.train()
    first, second = (vs.evaluate(model, rows, k=9) for _ in range(2))
    assert (first["iwae"].nats == second["iwae"].nats).all()
    assert model.training
    other = vs.evaluate(model, rows, k=9, seed=1)
    assert (first["iwae"].nats != other["iwae"].nats).any()


def test_mean_and_error_are_over_data() -> None:
    estimate = Estimate(
        "iwae",
        np.array([-3.0, -1.0, -2.0, -6.0]),
        "lower",
        "counting",
        5,
        "IWAE with 5 draws",
        cells=4,
    )
    mean, error = estimate.mean()
    assert mean == -3
    assert error == pytest.approx(np.std([-3, -1, -2, -6], ddof=1) / 2)
    assert estimate.bits_per_dim == pytest.approx(3 / (4 * math.log(2)))
    assert (
        estimate.sentence("4 test data")
        == "log p(x) >= -3.00 +- 1.08 nats (IWAE with 5 draws, 4 test data)"
    )


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
    p = (
        latents.decode(model, z.reshape(-1, 2).astype(np.float32))
        .reshape(3000, 8, 6)
        .astype(np.float64)
    )
    log_px = np.where(rows.values, np.log(p), np.log1p(-p)).sum(-1)
    log_w = log_px - 0.5 * (z**2).sum(-1) + (0.5 * noise**2 + np.log(std)).sum(-1)
    iwae = np.log(np.exp(log_w).mean(0))
    np.testing.assert_allclose(iwae, vs.evaluate(model, rows, k=3000)["iwae"].nats, atol=0.05)


def test_a_limit_does_not_change_a_datums_digits() -> None:
    rows, model = rows_and_model()
    few, many = (vs.evaluate(model, rows, k=20, limit=n)["iwae"] for n in (10, 23))
    np.testing.assert_allclose(few.nats, many.nats[few.index], atol=1e-5)


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
    same = vs.evaluate(
        model, vs.data.Rows(again.space.inward(own.train.outward()), again.space, "test"), k=5
    )["iwae"].nats
    np.testing.assert_allclose(same, mine, atol=1e-3)


# -- what stands beside a number -------------------------------------------------------------------


@pytest.mark.parametrize("k", [10, 25, 300, 517])
def test_the_rise_is_from_the_mean_bound_of_ten_parts_of_the_draws(k: int) -> None:
    rows, model = rows_and_model(n=3)
    data_chunk, draw_chunk = chunks(rows.space, k)
    got = vs.evaluate(model, rows, k=k)["iwae"]
    noise = torch.cat(
        [
            model.noise(
                min(draw_chunk, k - done),
                data_chunk,
                torch_generator("cpu", 0, "evaluate", 0, done),
            )[:, :3]
            for done in range(0, k, draw_chunk)
        ]
    )
    with torch.no_grad():
        shuffled, order = drawn(rows, 3, 0)
        w = np.exp(model.draw(shuffled.batch(slice(0, 3)), k, noise=noise).log_w.double().numpy())
    tenths = np.mean([np.log(w[part::10].mean(0)) for part in range(10)], 0)
    assert got.details["rise"] == pytest.approx(
        float((np.log(w.mean(0)) - tenths).mean()), abs=1e-5
    )
    assert got.details["rise"] > 0
    assert got.details["rise_from_k"] == k // 10
    np.testing.assert_allclose(got.ess[order], w.sum(0) ** 2 / (w**2).sum(0), rtol=1e-4)


def test_few_effective_draws_are_warned_of() -> None:
    rows, model = rows_and_model()
    assert not vs.evaluate(model, rows, k=100).warnings
    with torch.no_grad():
        model.likelihood.decoder.last.weight.mul_(60)
    result = vs.evaluate(model, rows, k=100)
    assert float(np.median(result["iwae"].ess)) < 5
    assert any("effective draws" in warning for warning in result.warnings)
    assert any(
        note.startswith("effectively ") and "of 100 draws" in note
        for note in result["iwae"].notes()
    )


def test_numbers_cannot_be_averages_of_batch_averages() -> None:
    # Mistake 20: the last piece is smaller, and its data are unlike the others.
    rows, model = rows_and_model(n=21)
    data_chunk, _ = chunks(rows.space, 500)
    assert 21 % data_chunk
    values = rows.values.copy()
    values[-(21 % data_chunk) :] = 1
    rows = replace(rows, values=values)
    result = vs.evaluate(model, rows, k=500)
    each = [vs.evaluate(model, rows.pick(slice(i, i + 1)), k=500).rate for i in range(21)]
    assert result.rate == pytest.approx(np.mean(each), rel=1e-6)
    batches = [np.mean(each[i : i + data_chunk]) for i in range(0, 21, data_chunk)]
    assert abs(np.mean(batches) - np.mean(each)) > 1e-4
    assert result["elbo"].mean()[0] == pytest.approx(-(result.rate + result.distortion), rel=1e-6)


@pytest.mark.parametrize("step", [1.0, 4.0])
def test_levels_under_a_density_state_the_volume_of_their_cells(step: float) -> None:
    space = replace(make_space(Kind.LEVELS, (6,), levels=8), step=step)
    model = vs.build(
        space, latent=2, network="mlp:width=8", likelihood="gaussian:variance=9"
    ).eval()
    result = vs.evaluate(model, Rows(make_values(space, 9), space, "test"), k=4)["iwae"]
    assert result.measure == "counting"
    assert result.details["log_cells"] == pytest.approx(6 * math.log(step))
    assert any("cells" in note for note in result.notes())


def test_values_on_a_grid_state_what_makes_a_probability_of_the_density() -> None:
    # One number on a grid, a decoder that ignores z: P(cell) = density of the spread value,
    # averaged over the cell, times the cell.
    scale, step = 3.0, 0.5
    space = replace(
        make_space(Kind.REAL, (1,)),
        scale=np.full(1, scale),
        resolution=np.full(1, step),
        missing=True,
        outside=(1,),
    )
    model = vs.build(space, latent=1, network="linear", likelihood="gaussian:variance=4").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    x = np.array([[2 * step], [0.0]], np.float32)
    rows = Rows(x / np.float32(scale), space, "test")
    result = vs.evaluate(model, rows, k=20_000)["iwae"]
    cell = torch.special.ndtr(torch.from_numpy(np.stack([x + step / 2, x - step / 2]) / 2)).numpy()
    np.testing.assert_allclose(
        result.nats + result.details["log_cells"], np.log(cell[0] - cell[1])[:, 0], atol=1e-3
    )
    assert result.details["log_cells"] == pytest.approx(math.log(step))
    half = replace(rows, observed=np.array([[True], [False]]))
    assert vs.evaluate(model, half, k=5)["iwae"].details["log_cells"] == pytest.approx(
        math.log(step) / 2
    )


def test_a_projection_tells_the_same_data_whatever_they_were_standardised_by() -> None:
    r = np.random.default_rng(0)
    test = r.normal(size=(40, 5)) * 100 + 30
    projections = []
    for seed in (1, 2):
        data = vs.load(
            {
                f"c{i}": np.concatenate(
                    [np.random.default_rng(seed).normal(size=60) * seed, test[:, i]]
                )
                for i in range(5)
            }
        )
        assert data.space.kind is Kind.TABLE
        own = data.space.inward(vs.data.tables.frame_of({f"c{i}": test[:, i] for i in range(5)}))
        projections.append(Rows(own, data.space, "test").projection())
    spread = projections[0].std()
    np.testing.assert_allclose(projections[0], projections[1], atol=1e-5 * spread)
    assert spread > 0.1
    arrays = []
    for shift in (0, 50):
        data = vs.load(np.concatenate([r.normal(size=(100, 5)) + shift, test]))
        arrays.append(Rows(data.space.inward(test), data.space, "test").projection())
    np.testing.assert_allclose(*arrays, atol=1e-5 * arrays[0].std())


# -- in pieces -------------------------------------------------------------------------------------


class Counted(Bounds):
    calls = 0

    def compute(self, first: int) -> np.ndarray:
        type(self).calls += 1
        return super().compute(first)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> type[Counted]:
    monkeypatch.setattr("vaestro.evaluation.methods.bounding", lambda job: [Counted(job)])
    Counted.calls = 0
    return Counted


def test_a_stopped_evaluation_goes_on_where_it_was(tmp_path: Path, counted: type[Counted]) -> None:
    rows, model = rows_and_model(n=60)
    whole = vs.evaluate(model, rows, k=500)
    pieces, counted.calls = counted.calls, 0
    folder = tmp_path / "evaluating"
    steps = evaluating(model, rows, k=500, folder=folder)
    for _ in range(3):
        next(steps)
    steps.close()
    done = counted.calls
    assert 3 <= done < pieces
    (kept,) = folder.iterdir()
    counted.calls = 0
    *_, (share, again) = evaluating(model, rows, k=500, folder=folder)
    assert counted.calls == pieces - done
    assert share == 1
    np.testing.assert_array_equal(again["iwae"].nats, whole["iwae"].nats)
    assert not folder.exists()
    # Another seed, other weights and a damaged file are not gone on with.
    for change in ("seed", "weights", "damage"):
        steps = evaluating(model, rows, k=500, folder=folder)
        next(steps)
        steps.close()
        (kept,) = folder.iterdir()
        if change == "damage":
            kept.write_bytes(kept.read_bytes()[:100])
        if change == "weights":
            with torch.no_grad():
                model.likelihood.decoder.last.bias.add_(0.1)
        counted.calls = 0
        *_, _ = evaluating(model, rows, k=500, seed=1 if change == "seed" else 0, folder=folder)
        assert counted.calls == pieces
        shutil.rmtree(folder, ignore_errors=True)


def test_pieces_shared_over_processes_are_those_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, model = rows_and_model(n=60)
    whole = vs.evaluate(model, rows, k=500)["iwae"].nats
    tables = []
    monkeypatch.setattr(
        "torch.distributed.all_reduce", lambda shared: tables.append(shared.clone())
    )
    with np.errstate(invalid="ignore"):
        for rank in (0, 1):
            for _ in evaluating(model, rows, k=500, rank=rank, processes=2):
                pass
    assert len(tables) == 2
    shares = [t[-1].numpy() for t in tables]
    assert ((shares[0] + shares[1]) == 1).all()
    assert min(s.sum() for s in shares) > 20
    np.testing.assert_array_equal((tables[0] + tables[1])[1].numpy(), whole[drawn(rows, 60, 0)[1]])


def test_methods_are_read_with_their_options() -> None:
    assert split_specs("elbo,iwae,ais:chains=16,temperatures=500,gap") == [
        "elbo",
        "iwae",
        "ais:chains=16,temperatures=500",
        "gap",
    ]
    assert split_specs("ais, elbo") == ["ais", "elbo"]
    rows, model = rows_and_model()
    for wrong in ("", "elbo,elbo", "magic", "iwae:k=3"):
        with pytest.raises(ValueError, match="expected"):
            vs.evaluate(model, rows, methods=wrong)
    with pytest.raises(KeyError):
        vs.evaluate(model, rows, k=2, methods="elbo")["iwae"]
