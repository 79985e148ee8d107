"""Arrays of real values with limits: values at them have a probability, and none is beyond."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import vaestro as vs
from vaestro import latent
from vaestro.cli import main
from vaestro.densities import Laplace, Normal
from vaestro.likelihoods.limited import Limited
from vaestro.spaces import RealSpace, restored_space
from vaestro.spaces.warps import NOWHERE, Limits

R = np.random.default_rng(0)


def spectrograms(n: int = 300) -> np.ndarray:
    """Return arrays (n, 8, 6) in dB that are -80 after their end."""
    x = R.normal(-50.0, 6.0, (n, 8, 6))
    for row, end in zip(x, R.integers(2, 7, n), strict=True):
        row[:, end:] = -80
    return x.astype(np.float32)


X = spectrograms()


@pytest.mark.parametrize("ends", [(-1.0, 0.5), (-1.0, NOWHERE), (-NOWHERE, 0.5)])
def test_the_transform_is_a_bijection_with_its_slope(ends: tuple[float, float]) -> None:
    limits = Limits(*(torch.tensor(end, dtype=torch.float64) for end in ends), 0.1)
    x = torch.linspace(max(ends[0], -4) + 1e-3, min(ends[1], 4) - 1e-3, 301, dtype=torch.float64)
    scores, slopes = limits.scores(x.requires_grad_())
    (gradient,) = torch.autograd.grad(scores.sum(), x)
    torch.testing.assert_close(slopes, gradient.log())
    torch.testing.assert_close(limits.values(scores), x)
    middle = slice(100, 150)  # far from the limits it is linear
    assert float((scores - x)[middle].detach().abs().max()) < 0.01


def limited(offset: float = -2.0, scale: float = 4.0, step: float = 0.0) -> RealSpace:
    """Return a space of one cell in -10 .. 2 with values at both limits."""
    return RealSpace(
        (1,),
        (1,),
        offset=np.full(1, offset),
        scale=np.full(1, scale),
        limits=(-10.0, 2.0),
        at_limits=np.array([[0.2], [0.1]]),
        resolution=np.full(1, step) if step else None,
    )


@pytest.mark.parametrize("family", [Normal, Laplace])
def test_probabilities_and_density_sum_to_one_in_the_units_of_the_data(family: type) -> None:
    """At the limits log p + log-determinant is a log-probability, between them a log-density."""
    space = limited()
    model = vs.build(space, latent=1, likelihood="gaussian", network="linear")
    logits = [torch.tensor([[[0.3]]]), torch.tensor([[[-0.4]]])]
    density = Limited(space)(family(torch.tensor([[[0.4]]]), torch.tensor([[[-1.0]]])), logits)
    apart = np.geomspace(1e-5, 6, 20_000)
    x = np.sort(np.concatenate([apart - 10, 2 - apart]))[:, None]

    def log_p(values: np.ndarray) -> np.ndarray:
        inside = torch.from_numpy(space.inward(values.astype(np.float64)))
        return model.scoring(density, inside.unsqueeze(1)).squeeze(-1).detach().double().numpy()

    at = np.exp(log_p(np.array([[-10.0], [2.0]])))
    odds = np.exp([0.3, -0.4]) / (1 + math.exp(0.3) + math.exp(-0.4))
    np.testing.assert_allclose(at, odds, rtol=1e-4)
    between = np.trapezoid(np.exp(log_p(x)), x[:, 0])
    np.testing.assert_allclose(between, 1 - odds.sum(), rtol=2e-3)
    many = Limited(space)(
        family(torch.full((20_000, 1), 0.4), torch.tensor(-1.0)),
        [logit[0].expand(20_000, 1) for logit in logits],
    )
    drawn = space.outward(many.sample(torch.Generator().manual_seed(0)).numpy())
    assert drawn.min() == -10 and drawn.max() == 2
    np.testing.assert_allclose([(drawn == e).mean() for e in (-10, 2)], odds, atol=0.015)
    np.testing.assert_allclose(
        space.outward(many.mean[:1].numpy(), exact=False), drawn.mean(), atol=0.15
    )
    assert space.measure == "mixed" and limited(step=0.5).measure == "lebesgue"


def test_a_spike_at_the_lowest_value_is_seen() -> None:
    data = vs.load(X)
    share = float((X == -80).mean())
    assert data.space.limits == (-80.0, None) and data.space.measure == "mixed"
    assert any(
        f"{100 * share:.0f}" in note[:3] and "-80, the lowest one" in note for note in data.notes
    )
    at = data.space.at_limits
    assert at is not None and at[1].max() == 0 and at[0].min() < 0.01 < 0.7 < at[0].max()
    # location and scale are those of the other values
    np.testing.assert_allclose(data.space.offset.mean(), -50, atol=0.5)
    np.testing.assert_allclose(data.space.scale.mean(), 6, atol=0.3)
    again = restored_space(json.loads(json.dumps(data.space.scalars())), data.space.arrays())
    assert again.limits == data.space.limits
    back = data.space.outward(data.space.inward(X))
    np.testing.assert_allclose(back, X, rtol=1e-6)
    assert (back[X == -80] == -80).all()


@pytest.mark.parametrize(
    ("x", "options"),
    [
        (X, {"low": "none"}),
        (R.normal(size=(200, 4)).astype("float32"), {}),
        (np.round(R.exponential(3.0, (200, 6)), 0) / 4, {}),  # the lowest of a grid is no spike
        (np.where(np.arange(4) == 0, np.maximum(0, R.normal(size=(200, 4))), 9.5), {}),
        (R.integers(-3, 300, (100, 4)), {}),
    ],
    ids=["none", "normal", "grid", "one column of four", "integers"],
)
def test_without_a_spike_there_are_no_limits(x: np.ndarray, options: dict[str, str]) -> None:
    x = x if x.std(0).all() else x + 1e-3 * R.normal(size=x.shape) * (np.arange(4) > 0)
    space = vs.load(x, kind="real", **options).space
    assert space.limits == () and space.at_limits is None and space.measure == "lebesgue"


def test_stated_limits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = R.normal(size=(200, 5))
    space = vs.load(x, low=-30, high=30).space
    assert space.limits == (-30.0, 30.0) and space.at_limits is None
    # far from the limits the bound is that of the plain density
    models = []
    for s in (space, vs.load(x).space):
        torch.manual_seed(0)
        models.append(vs.build(s, latent=2, network="mlp:width=8"))
    batch = vs.load(x).train.batch(slice(0, 50))
    noise = models[0].noise(3, 50, torch.Generator().manual_seed(0))
    one, other = (m.draw(batch, noise=noise).log_w for m in models)
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    np.save(tmp_path / "x.npy", x)
    for option, words in (
        ("low=-0.5", "values of -0.5 or more for low=-0.5; got -"),
        ("high=x", "high to be a number, or none"),
        ("kind=binary,low=0", "binary data"),
    ):
        source = f"{tmp_path / 'x.npy'}:{option}"
        assert main(["train", source, "--run", str(tmp_path / "r"), "--dry-run"]) == 2
        assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    "likelihood",
    [
        "gaussian",
        "gaussian:variance=optimal",
        "gaussian:variance=pixel",
        "laplace",
        "student-t",
        "logistic:scale=0.5",
    ],
)
def test_every_likelihood_of_real_values_has_limits(likelihood: str) -> None:
    data = vs.load(np.clip(X, -80, -45))
    assert data.space.limits == (-80.0, -45.0)
    model = vs.build(data.space, latent=2, likelihood=likelihood, network="mlp:width=8")
    for _ in vs.training(model, vs.Objective(), data, steps=6, compile="off"):
        pass
    drawn = latent.sample(model, 60)
    assert drawn.min() == -80 and drawn.max() == -45
    assert np.isfinite(model.draw(data.test.batch(slice(0, 9)), 3).log_w.detach().numpy()).all()
    means = latent.sample(model, 60, mean=True)
    assert means.min() >= -80 and means.max() <= -45


def test_a_run_draws_within_the_limits_and_refuses_values_beyond(tmp_path: Path) -> None:
    run = vs.train(X, run=tmp_path / "run", latent=2, steps=150, lr=5e-3, device="cpu")
    drawn = run.sample(400, mean=False)
    assert drawn.min() == -80 and abs((drawn == -80).mean() - (X == -80).mean()) < 0.08
    rest = drawn[drawn > -80]
    assert (rest < -75).mean() < 0.01  # nothing lies between the floor and the signal
    run.encode(X[:3])
    with pytest.raises(ValueError, match="values of -80 or more, the limits of the training data"):
        run.encode(X[:3] - 10)
    config = json.loads((run.path / "config.json").read_text())
    assert config["space"]["limits"] == [-80.0, None]


def test_the_unit_changes_the_density_and_not_the_probability() -> None:
    logs = []
    for factor in (1.0, 1024.0):
        torch.manual_seed(0)
        data = vs.load(X * np.float32(factor))
        model = vs.build(data.space, latent=2, network="mlp:width=8")
        batch = data.train.batch(slice(0, 40))
        noise = model.noise(1, 40, torch.Generator().manual_seed(0))
        logs.append(model.draw(batch, noise=noise).log_px[0].detach())
        rest = (data.train.outward()[:40] > -80 * factor).sum((1, 2))
    expected = torch.from_numpy(rest * math.log(1024))
    torch.testing.assert_close(logs[0] - logs[1], expected.to(logs[0]), rtol=1e-4, atol=1e-2)
