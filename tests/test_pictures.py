"""Networks for grids of any shape, the likelihood of colour images, and the size of the default
model."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn as nn
from torch import Tensor

import vaestro as vs
from vaestro.cli import main
from vaestro.files import FORMAT, current
from vaestro.loop.timing import expected_seconds
from vaestro.networks import Convolutional, Convolutional3d
from vaestro.parts import TABLE, catalogue, default_latent, default_network
from vaestro.runs import Job
from vaestro.spaces import LevelsSpace, RealSpace
from vaestro.spaces.layouts import LAYOUTS

COLOUR = "discretized-logistic:channels=conditioned,means=squares"


def weights(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def pictures(n: int, height: int, width: int) -> np.ndarray:
    """Return smooth colour images: waves of random directions."""
    r = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    a, b, c = r.normal(size=(3, n, 1, 1, 3)) * 0.3
    waves = np.sin(a * y[None, ..., None] + b * x[None, ..., None] + 9 * c)
    return np.clip(128 + 80 * waves + r.normal(size=waves.shape), 0, 255).astype(np.uint8)


# -- networks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(16, 160, 3), (3, 300, 3), (256, 4, 3), (28, 28, 3)], ids=str)
def test_images_of_any_shape_have_a_small_convolution_by_default(shape: tuple[int, ...]) -> None:
    r = np.random.default_rng(0)
    space = vs.load(r.integers(0, 256, (40, *shape)).astype(np.uint8)).space
    assert space.default_network == "conv"
    decoder = Convolutional((8,), space.shape)
    assert decoder(torch.zeros(2, 8)).shape == (2, *space.shape)
    assert weights(decoder) < 600_000


def sides(decoder: Any) -> list[tuple[int, ...]]:
    """Return the resolutions of a decoder after the coarsest one."""
    return [layer.sides for layer in decoder.layers if "sides" in vars(layer)]


def test_the_longest_sides_are_halved_until_the_grid_is_nearly_square() -> None:
    assert sides(Convolutional((8,), (3, 16, 160))) == [
        *((8, 10), (16, 20), (16, 40), (16, 80), (16, 160))
    ]
    assert sides(Convolutional((8,), (1, 33, 17))) == [(9, 5), (17, 9), (33, 17)]
    assert sides(Convolutional3d((8,), (1, 4, 4, 30))) == [(4, 4, 8), (4, 4, 15), (4, 4, 30)]


@pytest.mark.parametrize(
    ("kind", "shape"), [(Convolutional, (2, 33, 17)), (Convolutional3d, (2, 9, 8, 10))]
)
def test_a_constant_hidden_grid_is_decoded_to_a_constant_picture(
    kind: Any, shape: tuple[int, ...]
) -> None:
    # Zero padding would show as a frame.
    torch.manual_seed(0)
    decoder = kind((5,), shape)
    linear = decoder.first[0]
    with torch.no_grad():
        decoder.linear.weight.zero_()
        linear.weight.zero_()
        channels = decoder.first[1].unflattened_size[0]
        cells = linear.bias.numel() // channels
        linear.bias.copy_(torch.randn(channels).repeat_interleave(cells))
        out = decoder(torch.randn(1, 5))[0].double()
    flat = out.flatten(1)
    assert flat.std(1).max() < 1e-4
    assert (flat.mean(1) - decoder.last.bias).abs().min() > 1e-4


def test_a_ramp_is_enlarged_without_steps() -> None:
    decoder: Any = Convolutional((5,), (1, 28, 28))
    enlarge = next(layer for layer in decoder.layers if "sides" in vars(layer))
    with torch.no_grad():
        enlarge.mix.weight.fill_(1.0)
        ramp = torch.arange(7.0).expand(1, enlarge.mix.in_channels, 7, 7)
        inner = enlarge(ramp)[0, 0, 5, 1:-1]
    steps = inner.diff() / inner.diff().mean()
    torch.testing.assert_close(steps, torch.ones_like(steps))


def test_the_contrast_of_an_image_reaches_the_code() -> None:
    # A last normalisation would give the same code for an image of half of the contrast.
    torch.manual_seed(0)
    encoder = Convolutional((1, 32, 32), (1, 4))
    x = torch.randn(1, 1, 32, 32)
    full, half = encoder(10 * x), encoder(5 * x)
    assert (full - half).abs().mean() > 0.2 * full.abs().mean()


def test_runs_of_former_formats_have_the_former_convolutions() -> None:
    assert current({"network": "conv:width=4", "encoder": "conv3d"}, 3) == {
        "network": "former-conv:width=4",
        "encoder": "former-conv3d",
    }
    assert current({"network": "conv:width=4"}, 4) == {"network": "conv:width=4"}
    assert current({"network": "mlp", "decoder": None}, 3)["network"] == "mlp"
    assert "former-conv" in TABLE["network"]
    assert not [row for row in catalogue()["network"] if row["name"].startswith("former")]


# -- the likelihood of colour images ---------------------------------------------------------------


def levels(shape: tuple[int, ...], missing: bool = False) -> LevelsSpace:
    outside = (*shape[1:], shape[0])
    layout = LAYOUTS["image"]
    return LevelsSpace(shape, outside, "uint8", levels=256, missing=missing, layout=layout)


def test_the_default_likelihood_of_levels() -> None:
    assert levels((3, 8, 8)).default_likelihood == COLOUR
    assert levels((3, 8, 8), True).default_likelihood == "discretized-logistic:means=squares"
    assert levels((1, 8, 8)).default_likelihood == "logistic-mixture"


def small(space: LevelsSpace, likelihood: str) -> Any:
    torch.manual_seed(0)
    model: Any = vs.build(space, latent=2, network="mlp:width=8", likelihood=likelihood)
    with torch.no_grad():
        model.likelihood.decoder.last.weight.normal_(0, 0.1)
    return model.eval()


@pytest.mark.parametrize("scale", ["pixel", "shared"])
def test_a_pixel_of_conditioned_channels_is_a_distribution(scale: str) -> None:
    image = LAYOUTS["image"]
    space = LevelsSpace((2, 1, 1), (1, 1, 2), "uint8", levels=32, layout=image)
    model = small(space, f"discretized-logistic:channels=conditioned,scale={scale}")
    codes = torch.cartesian_prod(torch.arange(32.0), torch.arange(32.0)).view(-1, 2, 1, 1)
    with torch.no_grad():
        px = model.likelihood(torch.randn(1, 1, 2))
        total = px.log_prob(codes).double().exp().sum()
        means = (px.log_prob(codes).double().exp()[0, :, None] * codes.flatten(1)).sum(0)
    assert float(total) == pytest.approx(1, abs=1e-3)
    torch.testing.assert_close(means.float(), px.mean.flatten(), atol=0.6, rtol=0)


def test_locations_are_those_of_the_channels_alone() -> None:
    model = small(levels((3, 2, 2)), COLOUR)
    with torch.no_grad():
        model.likelihood.decoder.last.weight.mul_(0.1)
        out = model.likelihood.decoder(z := torch.randn(4, 2))
        mean = model.likelihood(z[None]).mean[0]
    torch.testing.assert_close(mean, 127.5 * (1 + out[:, :3]), atol=0.5, rtol=0.01)


@pytest.mark.parametrize("likelihood", [COLOUR, "discretized-logistic:means=squares"])
def test_squares_change_the_gradient_and_no_value(likelihood: str) -> None:
    model = small(levels((3, 2, 2)), likelihood)
    z = torch.randn(2, 5, 2)
    x = torch.randint(0, 256, (5, 3, 2, 2)).float()
    value = model.likelihood(z).log_prob(x)
    out: list[Tensor] = []
    decoder = model.likelihood.decoder
    decoder.register_forward_hook(lambda *a: (a[2].retain_grad(), out.append(a[2]))[0])
    trained = model.train().likelihood(z).log_prob(x)
    assert torch.equal(trained, value)
    trained.sum().backward()
    loc = out[0] if likelihood == COLOUR else out[0][:, 0]
    grad = out[0].grad if likelihood == COLOUR else out[0].grad[:, 0]
    assert grad is not None
    loc, grad = loc[:, :3].unflatten(0, (2, 5)), grad[:, :3].unflatten(0, (2, 5))
    errors = x - 127.5 * (1 + loc)
    variance = errors.square().mean((0, 1, 3, 4)).view(3, 1, 1)
    torch.testing.assert_close(grad, 127.5 * errors / variance, rtol=1e-4, atol=1e-4)


def test_conditioned_channels_refuse_missing_cells() -> None:
    with pytest.raises(ValueError, match=r"complete images .*channels=independent"):
        small(levels((3, 2, 2), True), COLOUR)


# -- the size of the default model -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "latent"),
    [((7,), 7), ((200,), 32), ((1, 28, 28), 32), ((3, 32, 32), 128), ((3, 64, 64), 128)],
)
def test_the_latent_follows_the_cells(shape: tuple[int, ...], latent: int) -> None:
    layout = LAYOUTS["image" if len(shape) == 3 else "vector"]
    assert default_latent(RealSpace(shape, shape, layout=layout)) == latent


def test_few_data_have_fewer_units() -> None:
    assert default_latent(levels((3, 32, 32)), rows=2000) == 128
    assert default_latent(levels((3, 32, 32)), rows=400) == 50
    assert default_latent(levels((3, 32, 32)), rows=100) == 32


def test_a_spatial_latent_has_32_channels_by_default() -> None:
    assert default_latent(levels((3, 64, 64)), "conv:factor=8") == 32


def test_the_width_follows_the_values() -> None:
    space = RealSpace((12,), (12,))
    assert default_network(space, 12) == "residual"
    assert default_network(space, 12, 10**6) == "residual"
    assert default_network(space, 12, 20_000) == "residual:width=256"
    assert default_network(space, 12, 216) == "residual:width=128"
    assert default_network(levels((3, 32, 32)), 128, 2000) == "conv"
    assert default_network(levels((3, 32, 32)), 128, 50) == "conv:width=8"


def test_few_images_have_no_warning_about_the_default_weights(tmp_path: Path) -> None:
    job = Job.new(pictures(100, 16, 64), run=tmp_path / "run", dry=True)
    assert "few data" not in [finding.name for finding in job.lint()]


def test_a_small_table_has_no_warning_about_its_weights(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(240, 12)).astype(np.float32)
    job = Job.new(x, run=tmp_path / "run", dry=True)
    assert job.config["network"] == "residual:width=128" and job.config["latent"] == 12
    assert "few data" not in [finding.name for finding in job.lint()]
    wide = Job.new(x, run=tmp_path / "run", dry=True, network="residual:width=512")
    (few,) = [finding for finding in wide.lint() if finding.name == "few data"]
    count = weights(wide.training.model)
    assert few.evidence.startswith(f"{count:,} weights for 2,592 values in 216 training data")


# -- the expected time -----------------------------------------------------------------------------


def test_timing_steps_changes_nothing(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    options: dict[str, Any] = {"latent": 2, "steps": 40, "network": "mlp:width=8,depth=1"}
    runs = [Job.new(x, run=tmp_path / name, **options) for name in ("timed", "plain")]
    assert "about" in runs[0].expectation() and "for 40 steps" in runs[0].expectation()
    lines: list[list[dict[str, Any]]] = []
    for job in runs:
        with job:
            for _ in job:
                pass
        lines.append(job.run.metrics())
    times = ("seconds", "examples_per_second", "waited")
    strip = [[{k: v for k, v in line.items() if k not in times} for line in log] for log in lines]
    assert strip[0] == strip[1]
    for a, b in zip(*(job.training.kept().values() for job in runs), strict=True):
        assert torch.equal(a, b)


def test_a_short_run_and_one_of_given_minutes_have_no_estimate(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    options: dict[str, Any] = {"latent": 2, "network": "mlp:width=8"}
    job = Job.new(x, run=tmp_path / "a", dry=True, steps=19, **options)
    assert job.expectation() == "" and expected_seconds(job.training) is None
    job = Job.new(x, run=tmp_path / "b", dry=True, minutes=0.005, **options)
    assert job.expectation() == ""


def test_the_command_says_the_expected_time_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32))
    options = ["--latent", "2", "--steps", "30", "--network", "mlp:width=8", "--run", "run"]
    assert main(["train", "x.npy", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    said = next(i for i, line in enumerate(lines) if line.startswith("about "))
    assert lines[said].endswith("for 30 steps")
    assert said < next(i for i, line in enumerate(lines) if line.startswith("step "))


def test_convolutions_are_not_compiled_on_a_cpu(tmp_path: Path) -> None:
    long: dict[str, Any] = {"steps": 10**6, "latent": 2, "dry": True, "device": "cpu"}
    compiled = {
        network: Job.new(pictures(40, 8, 8), run=tmp_path / "c", network=network, **long)
        for network in ("conv:width=4", "linear")
    }
    assert compiled["conv:width=4"].config["compile"] == "off"
    assert compiled["linear"].config["compile"] == ("on" if shutil.which("g++") else "off")


def test_a_long_run_says_how_to_shorten_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    job = Job.new(x, run=tmp_path / "a", dry=True, latent=2, steps=4000, network="linear")
    monkeypatch.setattr("vaestro.runs.job.expected_seconds", lambda _: (3.1, 12_400.0))
    assert job.expectation() == (
        "about 3 h 26 min for 4,000 steps, 3.1 s a step (--minutes 10 for a shorter run)"
    )


# -- all together ----------------------------------------------------------------------------------


def test_default_run_on_colour_images(tmp_path: Path) -> None:
    run = vs.train(pictures(120, 16, 64), run=tmp_path / "run", steps=60, compile="off")
    assert run.config["network"].startswith("conv") and run.config["likelihood"] == COLOUR
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    assert record["format"] == FORMAT
    first, *_, last = [m["bound"] for m in run.metrics() if m["split"] == "valid"]
    assert math.isfinite(last) and last > first + 500
