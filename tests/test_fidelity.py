"""PSNR and SSIM of reconstructions, against scikit-image, and where they are printed and stored."""

import json

import numpy as np
import pytest

import vaestro as vs
from vaestro import latent
from vaestro.cli import main
from vaestro.evaluation.fidelity import psnr, ssim, to_its_error
from vaestro.report import sketches
from vaestro.report.showcase import errors as errors_of

metrics = pytest.importorskip("skimage.metrics")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("VAESTRO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("shape", [(11, 11), (20, 33), (16, 16, 3), (32, 12, 4)])
@pytest.mark.parametrize(("scale", "offset"), [(255, 0), (1, 0), (65535, 0), (3, 1e4)])
def test_psnr_and_ssim_are_those_of_scikit_image(shape, scale, offset):
    g = np.random.default_rng(len(shape))
    x = scale * g.random((3, *shape)) + offset
    y = x + 0.2 * scale * g.normal(size=x.shape)
    axis = -1 if len(shape) == 3 else None
    for i in range(3):
        assert psnr(x, y, scale)[i] == pytest.approx(
            metrics.peak_signal_noise_ratio(x[i], y[i], data_range=scale), rel=1e-12
        )
        expected = metrics.structural_similarity(
            x[i],
            y[i],
            data_range=scale,
            channel_axis=axis,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        assert ssim(x, y, scale)[i] == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_numbers_have_the_digits_of_their_error():
    assert to_its_error((27.3149, 0.0123)) == "27.315 +- 0.012"
    assert to_its_error((1234.5, 34.0)) == "1234 +- 34"
    assert to_its_error((0.5, float("nan"))) == "0.5"


@pytest.mark.parametrize("kind", ["bytes", "deep", "mask", "float"])
def test_the_range_is_that_of_the_data(kind):
    values = np.sort(np.random.default_rng(0).random((60, 12, 12)), 1)
    images = {
        "bytes": (255 * values).astype(np.uint8),
        "deep": (4095 * values).astype(np.uint16),
        "mask": (200 * (values > 0.5)).astype(np.uint8),
        "float": (10 * values - 3).astype(np.float32),
    }[kind]
    data = vs.load(images, axes="NHW")
    model = vs.build(data.space, latent=2, network="mlp:width=4")
    found = latent.fidelity(model, data.train)
    back = np.asarray(latent.reconstruct(model, data.train, dtype="float"), np.float64)
    x = np.asarray(data.train.outward(), np.float64)
    span = {"bytes": 255.0, "deep": 4095.0, "mask": 1.0, "float": x.max() - x.min()}[kind]
    x = x / 200 if kind == "mask" else x
    assert found.span == pytest.approx(span)
    assert np.allclose(found.psnr, psnr(x, back, span))
    assert np.allclose(found.ssim, ssim(x, back, span))


def test_other_data_have_none():
    table = vs.load({"a": np.arange(60) / 7, "b": np.arange(60) / 3})
    assert latent.fidelity(vs.build(table.space, latent=2), table.test) is None
    small = vs.load(
        np.random.default_rng(0).integers(0, 256, (60, 8, 8)).astype(np.uint8), axes="NHW"
    )
    found = latent.fidelity(vs.build(small.space, latent=2), small.test)
    assert found.ssim is None and found.psnr.shape == (3,)


def test_train_evaluate_and_report_show_them(tmp_path, capsys):
    images = np.sort(np.random.default_rng(0).integers(0, 256, (60, 16, 16)), 1).astype(np.uint8)
    np.save("x.npy", images)
    options = ["--latent", "2", "--steps", "2", "--network", "mlp:width=4"]
    assert main(["train", "x.npy:axes=NHW", "--run", "r", *options]) == 0
    session = vs.open("r")
    found = latent.fidelity(session.model, session.data.test)
    line = found.sentence("3 test images")
    assert line in capsys.readouterr().out
    assert main(["evaluate", "r", "--k", "2"]) == 0
    assert line in capsys.readouterr().out
    stored = json.loads((tmp_path / "r" / "evaluation.json").read_text())
    for name, values in (("psnr", found.psnr), ("ssim", found.ssim)):
        assert stored[name]["mean"] == pytest.approx(values.mean())
        assert stored[name]["stderr"] == pytest.approx(values.std(ddof=1) / 3**0.5)
        assert (stored[name]["n"], stored[name]["range"]) == (3, 255)
    page = vs.write_report("r").read_text()
    assert "<dt>PSNR</dt>" in page and "<dt>SSIM</dt>" in page
    assert "the absolute error, in which white is " in page
    with np.load("r/showcase.npz") as arrays:
        data, back, errors = (arrays[n].astype(int) for n in ("data", "reconstructions", "errors"))
    white = json.loads((tmp_path / "r" / "showcase.json").read_text())["error_scale"]
    expected = np.clip(np.abs(data - back) / white, 0, 255)
    assert np.abs(errors - expected).max() <= 1 / white + 1


def test_errors_of_masks_are_of_probabilities():
    images = (200 * (np.random.default_rng(0).random((60, 8, 8)) > 0.5)).astype(np.uint8)
    space = vs.load(images, axes="NHW").space
    chances = np.where(images > 0, 0.75, 0.25).astype(np.float32)
    errors, white = errors_of({"data": images, "reconstructions": chances}, space)
    assert white == pytest.approx(0.25) and (errors == 255).all()


def test_densities_are_curves():
    drawn = str(sketches.curves(np.array([0, 0, 0, 0, 9, 0, 0, 0, 0]), np.zeros(9), "a density"))
    ours = drawn.split('d="M')[1].split('"')[0]
    heights = [float(point.split(" ")[1]) for point in ours.split("L")[1:10]]
    # a binomial window around the one full bin, from 82 at the bottom to 4 at the top
    window = (1, 8, 28, 56, 70, 56, 28, 8, 1)
    assert heights == pytest.approx([82 - 78 * w / 70 for w in window], abs=0.06)
