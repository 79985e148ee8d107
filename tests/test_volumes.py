"""Volumes: arrays (N, D, H, W) and (N, D, H, W, C), declared by volume=true."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vaestro as vs
from tests.conftest import make_space, make_values
from vaestro.cli import main
from vaestro.data.writers import pixels
from vaestro.parts import TABLE
from vaestro.runs import Job
from vaestro.spaces import LAYOUTS, SPACES, Batch, Kind, Space
from vaestro.text import Value

SIDES = (6, 8, 10)
GENERAL = sorted(set(TABLE["likelihood"]) - {"table", "autoregressive", "independent"})


def scans(n: int, channels: int = 0, seed: int = 0) -> np.ndarray:
    """Draw grey ellipsoids of random centre, size and brightness, with noise: (N, D, H, W)."""
    r = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*map(np.arange, SIDES), indexing="ij"), -1)
    centre = np.array(SIDES) / 2 + r.normal(0, 0.8, (n, 1, 1, 1, 3))
    size = np.array(SIDES) / 4 * r.uniform(0.8, 1.4, (n, 1, 1, 1, 3))
    inside = (((grid - centre) / size) ** 2).sum(-1) < 1
    bright = 120 + 100 * r.random((n, 1, 1, 1)) * inside + r.normal(0, 8, (n, *SIDES))
    grey = np.clip(bright - 60, 0, 255).astype(np.uint8)
    return np.stack([grey // (c + 1) for c in range(channels)], -1) if channels else grey


def volumes(kind: Kind, channels: int = 1, *, missing: bool = False) -> Space:
    shape = (channels, 4, 5, 6)
    layout = LAYOUTS["volume"]
    outside = shape[1:] if channels == 1 else (*shape[1:], channels)
    space = make_space(kind, shape, missing=missing)
    return replace(space, outside=outside, layout=layout)


@pytest.mark.parametrize("channels", [0, 3])
@pytest.mark.parametrize(
    ("options", "turn"),
    [
        ({}, lambda x: x),
        ({"kind": "count"}, lambda x: x),
        ({}, lambda x: x > 120),
        ({}, lambda x: (x / 255).astype(np.float32)),
        ({}, lambda x: x * 0.37 + 1000.0 + np.random.default_rng(1).normal(size=x.shape)),
        ({"kind": "category"}, lambda x: x // 64),
    ],
    ids=["levels", "counts", "binary", "levels in 0 .. 1", "real", "categories"],
)
def test_volumes_come_out_as_they_went_in(tmp_path, channels, options, turn) -> None:
    x = turn(scans(60, channels))
    np.save(tmp_path / "x.npy", x)
    further = "".join(f",{k}={v}" for k, v in options.items())
    data = vs.load(f"{tmp_path / 'x.npy'}:volume=true{further}")
    space = data.space
    assert space.layout.name == "volume" and space.shape == (channels or 1, *SIDES)
    assert space.outside == x.shape[1:] and space.default_network == "conv3d"
    assert " volume (" in str(space)
    out = data.train.outward()
    assert out.dtype == x.dtype
    np.testing.assert_allclose(out, x[data.train.index], rtol=1e-4)
    inside = space.inward(x[:3])
    for c in range(channels):
        np.testing.assert_array_equal(inside[:, c], space.inward(x[:3])[:, c])
    again = vs.load(x, volume=True, **options)
    assert again.space.scalars() == space.scalars()
    assert again.train.sha256() == data.train.sha256()


def test_channels_are_moved_to_the_front() -> None:
    layout, x = LAYOUTS["volume"], np.arange(2 * 3 * 4 * 5 * 2).reshape(2, 3, 4, 5, 2)
    shape = layout.inside(x.shape[1:])
    inside = layout.inward(x, shape, x.shape[1:])
    assert inside.shape == (2, 2, 3, 4, 5) and (inside[:, 1] == x[..., 1]).all()
    np.testing.assert_array_equal(layout.outward(inside[None], shape, x.shape[1:])[0], x)


def test_large_bytes_with_channels_last_are_gathered_as_volumes(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("vaestro.data.arrays.IN_MEMORY", 1000)
    for channels in (0, 2):
        x = scans(60, channels)
        np.save(tmp_path / f"{channels}.npy", x)
        data = vs.load(f"{tmp_path}/{channels}.npy:volume=true,levels=256")
        assert data.train.channels_last == bool(channels)
        rows = data.train.index[[3, 1]]
        batch = data.train.batch(np.array([3, 1])).x
        expected = np.moveaxis(x[rows], -1, 1) if channels else x[rows][:, None]
        np.testing.assert_array_equal(batch.numpy(), expected)


def test_arrays_of_four_axes_are_images_unless_they_are_declared(tmp_path: Path) -> None:
    x = scans(40)
    assert vs.load(x).space.layout.name == "image"
    assert vs.load(scans(40, 2)).space.layout.name == "cells"
    assert vs.load(x, volume=False).space.layout.name == "image"


@pytest.mark.parametrize("name", GENERAL)
def test_every_likelihood_of_images_fits_volumes(name: str) -> None:
    constructor = TABLE["likelihood"][name]
    for kind in sorted(constructor.accepts - {Kind.TABLE, Kind.TOKENS}):  # type: ignore[attr-defined]
        for channels in (1, 2):
            torch.manual_seed(0)
            space = volumes(kind, channels)
            model = vs.build(space, latent=3, likelihood=name, network="conv3d:width=4")
            batch = Batch(torch.from_numpy(make_values(space, 4)))
            draws = model.draw(batch, 2)
            assert draws.log_px.shape == (2, 4) and torch.isfinite(draws.log_w).all()
            (-vs.elbo(draws).mean()).backward()
            assert vs.latents.sample(model, 3).shape == (3, *space.outside)


def test_channels_of_a_voxel_depend_on_each_other_and_share_a_scale() -> None:
    mixture = vs.build(volumes(Kind.LEVELS, 3), latent=2, likelihood="logistic-mixture")
    assert mixture.likelihood.conditioned and mixture.likelihood.channelled
    gaussian = vs.build(volumes(Kind.REAL, 3), latent=2, likelihood="gaussian").likelihood
    assert gaussian.numbers.shape == (3, 1, 1, 1)


def test_missing_voxels_and_a_spatial_latent() -> None:
    space = volumes(Kind.REAL, 2, missing=True)
    model = vs.build(space, latent=3, network="conv3d:width=4,factor=2")
    assert model.units == (3, 2, 3, 3) and space.feature_shape == (4, 4, 5, 6)
    observed = torch.rand(4, *space.shape) < 0.7
    draws = model.draw(Batch(torch.from_numpy(make_values(space, 4)), observed), 2)
    assert torch.isfinite(draws.log_w).all()


def test_a_picture_shows_the_middle_slice() -> None:
    for channels in (0, 3):
        x = scans(2, channels)
        space = vs.load(scans(40, channels), volume=True, levels=256).space
        shown = pixels(space.layout.pictures(x, space.outside), space)
        middle = x[:, 3] if channels else x[:, 3, ..., None]
        np.testing.assert_array_equal(shown, middle)


def small(path: Path, steps: int, **options: Value) -> Job:
    return Job.new(
        f"{path / 'x.npy'}:volume=true,kind=real",
        latent=3,
        steps=steps,
        batch=16,
        network="conv3d:width=4",
        compile="off",
        **options,
    )


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", scans(80))
    whole = small(tmp_path, 12, run=str(tmp_path / "whole"))
    with whole:
        list(whole)
    with small(tmp_path, 12, run=str(tmp_path / "stopped")) as stopped:
        for _ in range(7):
            next(stopped)
        stopped.checkpoint()
    weights = [
        vs.resume(tmp_path / "stopped").model().state_dict(),
        vs.Run(tmp_path / "whole").model().state_dict(),
    ]
    assert all(torch.equal(v, weights[1][k]) for k, v in weights[0].items())


def test_the_whole_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = scans(120).astype(np.float32)
    x += np.random.default_rng(3).normal(size=x.shape).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    source, run = f"{tmp_path / 'x.npy'}:volume=true", str(tmp_path / "run")

    def say(*words: str) -> str:
        assert main([*words]) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    trained = say("train", source, "--run", run, "--latent", "3", "--steps", "30", "--batch", "16")
    assert "test volumes" in trained
    assert "conv3d" in json.dumps(json.loads((tmp_path / "run" / "config.json").read_text()))
    say("evaluate", run, "--k", "5")
    say("sample", run, "-n", "5")
    with Image.open(tmp_path / "run" / "samples.png") as picture:
        assert picture.height > SIDES[1]
    say("sample", run, "-n", "5", "-o", str(tmp_path / "s.npy"))
    samples = np.load(tmp_path / "s.npy")
    assert samples.shape == (5, *SIDES) and samples.dtype == np.float32
    say("encode", run, str(tmp_path / "x.npy"), "-o", str(tmp_path / "z.npz"))
    assert np.load(tmp_path / "z.npz")["mean"].shape == (120, 3)
    say("reconstruct", run, source, "-o", str(tmp_path / "r.npy"))
    means = np.load(tmp_path / "r.npy")
    assert means.shape[1:] == SIDES
    say("interpolate", run, source, "0", "1", "-o", str(tmp_path / "way.npy"))
    assert np.load(tmp_path / "way.npy").shape == (9, *SIDES)
    say("diagnose", run)
    say("report", run)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "6 test volumes" in page and "the middle slice along the depth axis" in page
    showcase = np.load(tmp_path / "run" / "showcase.npz")
    assert showcase["data"].shape[1:] == (8, 10, 1)


@pytest.mark.parametrize(
    ("array", "options", "expected"),
    [
        ((30, 5, 6), "volume=true", "expected volumes as an array (N, D, H, W) or (N, D, H, W, C)"),
        ((30, 2, 3, 4), "volume=perhaps", "expected volume to be true or false; got 'perhaps'"),
        (
            (30, 2, 3, 4),
            "volume=true,series=true",
            "expected one of these options; got volume=true",
        ),
        ((30, 2, 3, 4), "size=4,volume=true", "does not apply to arrays"),
    ],
)
def test_what_is_no_volume_is_refused(tmp_path, capsys, array, options, expected) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=array))
    words = ["train", f"{tmp_path}/x.npy:{options}", "--run", str(tmp_path / "run")]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and expected in error


def test_other_networks_and_other_data_are_refused(tmp_path: Path) -> None:
    x = scans(40)
    space = vs.load(x, volume=True).space
    with pytest.raises(ValueError, match="expected images for a convolutional network"):
        vs.build(space, latent=2, network="conv")
    with pytest.raises(ValueError, match="expected volumes for a convolutional network"):
        vs.build(vs.load(x).space, latent=2, network="conv3d")
    with pytest.raises(ValueError, match="expected an option of a source"):
        vs.load(x, volumes=True)
    with pytest.raises(ValueError, match="volume= does not apply to a table"):
        vs.load({"a": list(range(50))}, volume=True)
    for kind in (Kind.BINARY, Kind.REAL):
        assert SPACES[kind] is type(volumes(kind))
