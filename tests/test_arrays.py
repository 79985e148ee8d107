"""What an array is: the meaning of its axes, one-hot vectors, and values that mean missing."""

from pathlib import Path

import numpy as np
import pytest
import torch

import vaestro as vs
from vaestro.cli import main
from vaestro.spaces import restored_space
from vaestro.text import Value

TINY = ["--latent", "2", "--steps", "4", "--batch", "16", "--quiet"]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def bands(n: int, brightness: list[float]) -> np.ndarray:
    """Draw blurred spots, (n, 24, 24, bands), which differ in brightness from band to band."""
    g, (y, x) = rng(4), np.mgrid[:24, :24]
    centre = g.uniform(6, 18, (2, n, 1, 1))
    spots = np.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / 40)
    noise = g.normal(0, 0.01, (n, 24, 24, len(brightness)))
    return (spots[..., None] * np.array(brightness) + noise).astype(np.float32)


def waves(n: int, steps: int, channels: int) -> np.ndarray:
    """Draw sines of random frequency and phase, (n, steps, channels)."""
    g, t = rng(5), np.linspace(0, 1, steps)[:, None]
    return np.sin(2 * np.pi * (g.uniform(1, 4, (n, 1, channels)) * t + g.random((n, 1, channels))))


def spheres(n: int) -> np.ndarray:
    """Draw points on ellipsoids in no order, (n, 64, 3)."""
    g = rng(6)
    points = g.normal(size=(n, 64, 3))
    return points / np.linalg.norm(points, axis=-1, keepdims=True) * g.uniform(0.3, 1.5, (n, 1, 3))


def fields(n: int, *sides: int) -> np.ndarray:
    """Draw smooth random fields, (n, *sides)."""
    x = rng(7).normal(size=(n, *sides))
    for axis in range(1, x.ndim):
        x = np.cumsum(x, axis)
    return x / x.std()


# -- the meaning of the axes -----------------------------------------------------------------------

BANDS = [0.1, 0.2, 0.15, 0.6, 0.55]
DECIDED = {
    "bands last": (bands(40, BANDS), "image", "HWC", (5, 24, 24), ""),
    "bands first": (
        bands(40, BANDS).transpose(0, 3, 1, 2),
        "image",
        "CHW",
        (5, 24, 24),
        "5 channels first (axes=NHWC or volume=true overrules)",
    ),
    "many bands first": (
        bands(40, list(rng().random(12))).transpose(0, 3, 1, 2),
        "image",
        "CHW",
        (12, 24, 24),
        "12 channels first",
    ),
    "colours first": (
        (bands(40, [0.5, 0.4, 0.3]) * 255).clip(0, 255).astype(np.uint8).transpose(0, 3, 1, 2),
        "image",
        "CHW",
        (3, 24, 24),
        "3 channels first",
    ),
    "colours last": (bands(40, [0.5, 0.4, 0.3]), "image", "HWC", (3, 24, 24), ""),
    "one channel first": (fields(40, 1, 24, 24), "image", "CHW", (1, 24, 24), "1 channel first"),
    "scans": (fields(30, 10, 16, 18), "volume", "DHW", (1, 10, 16, 18), "axes=NHWC or NCHW"),
    "clips, channels second": (
        np.stack([fields(20, 8, 16, 16)] * 3, 2),
        "volume",
        "DCHW",
        (3, 8, 16, 16),
        "3 channels on axis 2",
    ),
    "volumes, channels first": (
        np.stack([fields(20, 8, 16, 16)] * 2, 1),
        "volume",
        "CDHW",
        (2, 8, 16, 16),
        "2 channels on axis 1",
    ),
    "series": (waves(60, 64, 3), "series", "TC", (64, 3), "64 steps and 3 channels"),
    "channels of other units": (
        rng().normal(size=(60, 64, 3)) * [1, 100, 1e4],
        "series",
        "TC",
        (64, 3),
        "channels have other scales",
    ),
    "many channels": (waves(60, 100, 12), "series", "TC", (100, 12), "axes=NHW reads images"),
    "channels before time": (
        waves(60, 64, 3).transpose(0, 2, 1),
        "series",
        "CT",
        (64, 3),
        "axes=NTC the other order",
    ),
    "one channel of series": (waves(60, 64, 1), "series", "TC", (64, 1), "and 1 channel:"),
    "narrow images": (fields(60, 64, 8), "image", "HW", (1, 64, 8), ""),
    "points": (spheres(60), "points", "PC", (64, 3), "No model here ignores the order"),
    "images": (fields(60, 20, 24), "image", "HW", (1, 20, 24), ""),
    "no neighbours": (
        rng().normal(size=(60, 12, 15)),
        "image",
        "HW",
        (1, 12, 15),
        "neighbouring cells are not alike",
    ),
    "rows over time": (waves(60, 64, 1)[..., 0], "vector", "F", (64,), "series=true reads"),
    "columns": (rng().normal(size=(60, 64)), "vector", "F", (64,), ""),
}


@pytest.mark.parametrize("which", DECIDED)
def test_the_data_show_what_the_axes_are(which: str) -> None:
    x, layout, letters, inside, said = DECIDED[which]
    data = vs.load(x)
    space, outside = data.space, x.shape[1:]
    assert (space.layout.name, space.layout.letters(outside)) == (layout, letters)
    assert space.shape == inside
    notes = [note for note in data.notes if note.startswith(("(N", "neighbouring"))]
    assert bool(notes) == bool(said) and all(said in note for note in notes)
    order = [letters.index(a) for a in space.layout.inner if a in letters]
    if layout != "vector":
        expected = np.transpose(x, (0, *(1 + at for at in order))).reshape(len(x), *inside)
        held = space.converted(type(space), offset=None, scale=None)
        np.testing.assert_array_equal(held.arranged(x), expected)
    out = data.train.outward()
    assert out.dtype == x.dtype
    np.testing.assert_allclose(out, x[data.train.index], rtol=1e-3, atol=1e-4)
    again = restored_space(space.scalars(), space.arrays())
    assert again.layout == space.layout


@pytest.mark.parametrize(
    ("axes", "shape", "layout", "inside"),
    [
        ("NCHW", (3, 8, 9), "image", (3, 8, 9)),
        ("nhwc", (8, 9, 6), "image", (6, 8, 9)),
        ("NWHC", (9, 8, 3), "image", (3, 8, 9)),
        ("NDHW", (6, 8, 9), "volume", (1, 6, 8, 9)),
        ("NTHWC", (6, 8, 9, 2), "volume", (2, 6, 8, 9)),
        ("NTCHW", (6, 2, 8, 9), "volume", (2, 6, 8, 9)),
        ("NCT", (2, 30), "series", (30, 2)),
        ("NT", (30,), "series", (30, 1)),
        ("NPC", (30, 3), "points", (30, 3)),
        ("NHW", (30, 3), "image", (1, 30, 3)),
        ("NF", (30,), "vector", (30,)),
    ],
)
def test_letters_name_the_axes(axes: str, shape: tuple[int, ...], layout: str, inside) -> None:
    x = rng().normal(size=(30, *shape))
    space = vs.load(x, axes=axes).space
    assert space.layout.name == layout and space.shape == inside
    letters = axes.upper()[1:].replace("T", "D") if layout == "volume" else axes.upper()[1:]
    order = [letters.index(a) for a in "CDHW" if a in letters] or None
    if layout in ("image", "volume"):
        expected = x.transpose(0, *(1 + at for at in order)).reshape(30, *inside)
        np.testing.assert_array_equal(space.arranged(x), expected)
    np.testing.assert_allclose(space.outward(space.inward(x)), x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"axes": "NHW"}, "one letter for each axis of (N, 3, 8, 8), as in axes=NHWC"),
        ({"axes": "CHWN"}, "np.moveaxis(x, 3, 0) moves the rows to the front"),
        ({"axes": "NXYZ"}, "expected axes=NHWC, NCHW or NDHW"),
        ({"axes": "NCHH"}, "expected axes=NHWC, NCHW or NDHW"),
        ({"axes": "NCHW", "volume": True}, "expected one of these options; got volume=true and"),
        ({"onehot": 4}, "an axis of array from 1 to 3; got 4"),
        ({"onehot": True}, "expected zeros and a single 1 along an axis of array"),
        ({"onehot": True, "kind": "real"}, "expected zeros and a single 1"),
    ],
)
def test_impossible_axes_are_refused(options: dict[str, Value], said: str) -> None:
    with pytest.raises(ValueError, match="expected") as error:
        vs.load(rng().normal(size=(30, 3, 8, 8)), **options)
    assert said in str(error.value)


def test_what_an_option_says_is_not_doubted() -> None:
    x = fields(30, 10, 16, 18)
    assert vs.load(x, volume=False).space.layout.name == "image"
    assert vs.load(waves(60, 64, 3), series=False).space.layout.name == "image"
    data = vs.load(waves(60, 64, 3).transpose(0, 2, 1), series=True)
    assert data.space.shape == (64, 3) and data.source == "array:series=true,axes=NCT"
    assert not any(note.startswith("(N") for note in vs.load(spheres(60), axes="NPC").notes)


@pytest.mark.parametrize("axes", ["NCHW", "NWHC", "NHWC"])
def test_large_bytes_are_used_from_their_file_in_any_order(axes, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("vaestro.data.arrays.IN_MEMORY", 1000)
    x = rng().integers(0, 256, (40, *({"C": 3, "H": 6, "W": 8}[a] for a in axes[1:])))
    np.save(tmp_path / "x.npy", x.astype(np.uint8))
    data = vs.load(f"{tmp_path}/x.npy:axes={axes},levels=256")
    assert isinstance(data.train.values, np.memmap)
    batch = data.train.batch(np.array([3, 1])).x.numpy()
    expected = x[data.train.index[[3, 1]]].transpose(0, *(axes.index(a) for a in "CHW"))
    np.testing.assert_array_equal(batch, expected)
    np.testing.assert_array_equal(data.train.outward(), x[data.train.index])


def test_pictures_of_many_bands_show_them_side_by_side() -> None:
    x = bands(20, BANDS).transpose(0, 3, 1, 2)
    space = vs.load(x).space
    shown = space.pictures(x)
    assert space.image and shown.shape == (20, 24, 5 * 24, 1)
    np.testing.assert_array_equal(shown[:, :, 24:48, 0], x[:, 1])
    assert space.part_shown == "its 5 channels side by side"


def test_four_channels_are_colours_with_opacity_if_they_have_8_bits() -> None:
    x = bands(20, BANDS)[..., :4]
    for dtype, shape, words in (
        ("uint8", (20, 24, 24, 4), ""),
        ("float32", (20, 24, 4 * 24, 1), "its 4 channels side by side"),
    ):
        space = vs.load(np.clip(99 + 99 * x, 0, 255).astype(dtype)).space
        assert space.pictures(x).shape == shape and space.part_shown == words
    colours = bands(20, [0.5, 0.4, 0.3]).transpose(0, 3, 1, 2)
    pictures = vs.load(colours).space.pictures(colours)
    np.testing.assert_array_equal(pictures, colours.transpose(0, 2, 3, 1))


def test_bands_have_scales_of_their_own() -> None:
    x = bands(40, BANDS) * np.array([1, 10, 100, 1000, 1e4], np.float32)
    scale = vs.load(x).space.scale
    assert scale.shape == (5, 24, 24) and (np.ptp(scale, (1, 2)) == 0).all()
    np.testing.assert_allclose(scale[4, 0, 0], x[..., 4].std(), rtol=0.1)
    assert vs.load(x, standardise="global").space.scale.shape == ()


def test_a_run_reads_other_orders_of_its_axes(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    x = bands(40, [0.5, 0.4, 0.3]).transpose(0, 3, 1, 2)
    np.save("x.npy", x)
    np.save("last.npy", x.transpose(0, 2, 3, 1))
    assert main(["train", "x.npy", "--run", "run", *TINY]) == 0
    assert "axes: CHW" not in Path("run/config.yaml").read_text()
    assert '"axes": "CHW"' in Path("run/config.json").read_text()
    run = vs.Run("run")
    assert run.sample(2).shape == (2, 3, 24, 24)
    codes = run.encode("x.npy")
    np.testing.assert_allclose(run.encode("last.npy:axes=NHWC")["mean"], codes["mean"], atol=1e-5)
    assert main(["encode", "run", "last.npy", "-o", "z.npy"]) == 2
    assert "got (40, 24, 24, 3) (axes=NHWC says which they are)" in capsys.readouterr().err
    assert main(["sample", "run", "-n", "2", "-o", "s.png"]) == 0


# -- one-hot ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "uint8", "bool"])
def test_one_hot_vectors_are_categories(axis: int, dtype: str) -> None:
    codes = rng().integers(0, 5, (80, 12))
    x = np.moveaxis(np.eye(5)[codes], -1, axis).astype(dtype)
    noted = vs.load(x)
    assert noted.space.kind == "binary"
    assert any(f"looks one-hot along axis {axis}: onehot=true" in note for note in noted.notes)
    for asked in (True, axis):
        data = vs.load(x, onehot=asked)
        assert str(data.space).startswith("category of 5") and data.space.shape == (12,)
        np.testing.assert_array_equal(data.space.inward(x), codes)
        np.testing.assert_array_equal(data.train.outward(), x[data.train.index])
        assert data.train.outward().dtype == x.dtype
    model = vs.build(data.space, latent=2)
    drawn = vs.latents.sample(model, 4)
    assert drawn.shape == (4, *x.shape[1:]) and drawn.dtype == x.dtype
    assert (drawn.sum(axis) == 1).all()
    assert restored_space(data.space.scalars(), data.space.arrays()).onehot == axis - 1


def test_zero_vectors_are_one_more_category() -> None:
    x = np.eye(4)[rng().integers(0, 4, (60, 10))]
    x[:, 7:] = 0
    space = vs.load(x, onehot=True).space
    assert space.levels == 5 and (space.inward(x)[:, 7:] == 4).all()
    np.testing.assert_array_equal(space.outward(space.inward(x)), x)
    with pytest.raises(
        ValueError, match=r"expected zeros and a single 1 along axis 2; got 1, 0, 0, 1"
    ):
        space.inward(np.minimum(x + np.eye(4)[0], 1))


def test_one_hot_images_have_an_unseen_axis(tmp_path: Path) -> None:
    labels = (fields(40, 10, 12) > 0).astype(int) + (fields(40, 10, 12) > 1)
    x = np.eye(3, dtype=np.uint8)[labels].transpose(0, 3, 1, 2)
    space = vs.load(x, onehot=1).space
    assert space.layout.name == "image" and space.shape == (1, 10, 12)
    np.testing.assert_array_equal(space.pictures(x)[..., 0], labels)
    x = x.astype(float)
    x[0, :, 2, 3] = np.nan
    missing = vs.load(x, onehot=1, missing="nan")
    rows = missing.train if 0 in missing.train.index else missing.test
    assert missing.space.missing and rows.mask() is not None


def test_one_hot_series_are_convolved_over_time() -> None:
    codes = rng().integers(0, 5, (60, 12))
    x = np.eye(5, dtype=np.uint8)[codes]
    x[1, 2] = 0
    data = vs.load(x, onehot=True, series=True)
    space = data.space
    assert space.default_network == "conv1d" and space.feature_shape == (12, 6)
    model = vs.build(space, latent=2)
    draws = model.draw(data.train.batch(slice(0, 8)), 2)
    assert torch.isfinite(draws.log_w).all()
    assert vs.latents.sample(model, 3).shape == (3, 12, 5)


def test_probabilities_are_no_one_hot_vectors() -> None:
    soft = np.eye(5)[rng().integers(0, 5, (40, 6))] * 0.9 + 0.02
    for asked in (True, 2):
        with pytest.raises(ValueError, match=r"got 0\.02 .*argmax.* gives the most probable"):
            vs.load(soft, onehot=asked)


# -- missing values --------------------------------------------------------------------------------


def holes(value: float, dtype: str = "float32", share: float = 0.05) -> np.ndarray:
    """Draw numbers of which a share is replaced by a value."""
    g = rng()
    x = (g.normal(size=(300, 6)) * 10).astype(dtype)
    x[g.random(x.shape) < share] = value
    return x


@pytest.mark.parametrize(
    ("value", "dtype", "word"),
    [
        (-9999, "float32", "-9999"),
        (-9999, "int16", "-9999"),
        (1e20, "float32", "1e20"),
        (999.99, "float64", "999.99"),
        (-32768, "int16", "-32768"),
    ],
)
def test_a_far_value_is_pointed_out_and_read_as_missing(value, dtype, word) -> None:
    x = holes(value, dtype)
    note = f"the value {word} lies far outside of the others (missing={word} reads it as missing)"
    assert note in vs.load(x, kind="real").notes
    data = vs.load(x, missing=word, kind="real")
    assert data.space.missing and note not in data.notes
    mask = data.train.mask()
    np.testing.assert_array_equal(mask, x[data.train.index] != np.array(value, dtype))
    out = data.train.outward()
    assert np.isnan(out[~mask]).all()
    np.testing.assert_allclose(out[mask], x[data.train.index][mask], rtol=1e-5)
    assert abs(data.space.offset).max() < 3
    plain = restored_space(data.space.scalars(), data.space.arrays())
    np.testing.assert_array_equal(plain.seen(x), x != np.array(value, dtype))


def test_data_without_codes_have_no_note() -> None:
    g = rng()
    for x in (
        g.normal(size=(300, 4)),
        np.exp(3 * g.normal(size=(300, 4))),
        g.integers(0, 256, (300, 4)).astype(np.uint8),
        np.clip(g.normal(-20, 30, (300, 4)), -80, 0),
        g.choice([0.0, 1.0], (300, 4)),
        g.poisson(3, (300, 4)),
        np.concatenate([g.normal(size=(300, 200)), np.full((300, 1), 1e6)], 1),
    ):
        assert not any("far outside" in note for note in vs.load(x).notes)


def test_a_code_is_far_from_the_values_of_its_own_columns() -> None:
    x = holes(-9999) * np.array([1, 1, 1, 1, 1, 1])
    x[:, 0] = rng(2).normal(size=300) * 1e6
    assert any("the value -9999 lies far" in note for note in vs.load(x[:, 1:]).notes)
    x[:, 0] = np.abs(x[:, 0])
    assert any("the value -9999 lies far" in note for note in vs.load(x).notes)


def test_several_values_mean_missing(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    x = holes(-9999)
    x[3, 3], x[4, 4], x[5, 5] = np.nan, np.inf, -np.inf
    np.save("x.npy", x)
    assert main(["train", "x.npy:missing=-9999", "--run", "run", *TINY]) == 2
    error = capsys.readouterr().err
    assert "got 1 NaN and 2 infinite (missing=-9999+nan+inf takes them as missing)" in error
    assert main(["train", "x.npy:missing=-9999+nan+inf", "--run", "run", *TINY]) == 0
    assert main(["impute", "run", "x.npy", "-o", "full.npy", "--k", "2"]) == 0
    full, seen = np.load("full.npy"), np.isfinite(x) & (x != -9999)
    assert full.dtype == x.dtype and np.isfinite(full).all() and (full > -100).all()
    np.testing.assert_array_equal(full[seen], x[seen])
    np.save("other.npy", np.where(seen, x, 777))
    run = vs.Run("run")
    np.testing.assert_allclose(
        run.encode("other.npy:missing=777")["mean"], run.encode("x.npy")["mean"], atol=1e-5
    )
    with pytest.raises(ValueError, match=r"missing= to be numbers, nan or inf .* got 'NA'"):
        vs.load(x, missing="NA")


def test_whole_numbers_are_imputed_in_their_dtype(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    x = rng().poisson(5, (200, 6)).astype(np.int16)
    x[rng(1).random(x.shape) < 0.1] = -999
    np.save("x.npy", x)
    assert main(["train", "x.npy:missing=-999,kind=count", "--run", "run", *TINY]) == 0
    assert main(["impute", "run", "x.npy", "-o", "full.npy", "--k", "2"]) == 0
    full = np.load("full.npy")
    assert full.dtype == np.int16 and full.min() >= 0
    np.testing.assert_array_equal(full[x >= 0], x[x >= 0])
    assert vs.Run("run").sample(50).min() >= 0


def test_cells_that_are_always_missing_stay_missing() -> None:
    x = fields(60, 10, 12).astype(np.float32)
    x[:, :3, :4] = np.nan
    x[0, 5, 5] = np.nan
    data = vs.load(x, missing="nan")
    assert any("12 of 120 cells are missing in every training row" in note for note in data.notes)
    assert np.isfinite(data.space.offset).all() and np.isfinite(data.space.scale).all()
    model = vs.build(data.space, latent=2)
    drawn = vs.latents.sample(model, 5)
    land = np.zeros((10, 12), bool)
    land[:3, :4] = True
    np.testing.assert_array_equal(np.isnan(drawn), np.broadcast_to(land, drawn.shape))
    filled = np.where(np.isnan(x), 0, x)  # values where the run had none are not scored
    assert not data.space.seen(filled)[:, 0][:, land].any()
    again = restored_space(data.space.scalars(), data.space.arrays())
    np.testing.assert_array_equal(again.unseen[0], land)


def test_steps_after_the_end_of_all_series_are_not_unseen() -> None:
    x = waves(60, 20, 2)
    x[:, 15:] = np.nan
    data = vs.load(x, series=True, missing="nan")
    assert data.space.unseen is None and np.isfinite(data.space.scale).all()


def test_values_beyond_the_range_are_refused_with_the_option() -> None:
    x = holes(3.4028235e38)
    with pytest.raises(ValueError, match=r"got 3\.4028235e\+38 \(missing=3\.4028235e\+38 takes"):
        vs.load(x)
    assert vs.load(x, missing="3.4028235e+38").space.missing


# -- arrays of other libraries ---------------------------------------------------------------------


class Labelled:
    """An array of another library, such as xarray."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        return self.values


@pytest.mark.parametrize(
    "turn",
    [
        lambda x: torch.from_numpy(x).requires_grad_(),
        lambda x: torch.from_numpy(x).T.contiguous().T,
        Labelled,
        np.asfortranarray,
        lambda x: x.astype(">f4"),
        lambda x: np.ma.MaskedArray(x),
    ],
    ids=["tensor", "strided tensor", "array-like", "Fortran order", "big-endian", "masked"],
)
def test_arrays_of_any_origin_are_the_same_data(turn) -> None:
    x = rng().normal(size=(60, 4)).astype(np.float32)
    data = vs.load(turn(x))
    assert data.train.sha256() == vs.load(x).train.sha256()
    assert not data.space.missing and data.space.dtype == "float32"


def test_arrays_of_other_libraries_are_stored_with_their_run(tmp_path: Path) -> None:
    x = rng().normal(size=(60, 4)).astype(np.float32)
    masked = np.ma.MaskedArray(x, rng(1).random(x.shape) < 0.1)
    options = {"latent": 2, "steps": 2, "batch": 8}
    run = vs.train(masked, run=tmp_path / "a", **options)
    stored = np.load(tmp_path / "a" / "data.npy")
    np.testing.assert_array_equal(np.isnan(stored), masked.mask)
    assert run.config["source"].endswith("data.npy:missing=nan")
    run = vs.train(torch.from_numpy(x), run=tmp_path / "b", missing=-9, **options)
    assert run.config["source"].endswith("data.npy:missing=-9")
    assert run.encode(torch.from_numpy(x[:5]))["mean"].shape == (5, 2)


def test_none_is_no_source() -> None:
    with pytest.raises(ValueError, match="expected a source: a name such as mnist"):
        vs.train(None)


def test_one_image_is_no_data_set() -> None:
    said = [n for n in vs.load(fields(1, 128, 64)[0]).notes if n.startswith("neighbouring")]
    assert len(said) == 1 and "as in one image" in said[0]


def test_masks_are_missing_cells() -> None:
    x = rng().integers(0, 50, (60, 4))
    masked = np.ma.MaskedArray(x, rng(1).random(x.shape) < 0.1)
    data = vs.load(masked)
    np.testing.assert_array_equal(data.train.mask(), ~masked.mask[data.train.index])
    assert vs.load(torch.randn(50, 3).bfloat16()).space.dtype == "float32"
    assert vs.load(rng().normal(size=(60, 4)).astype(np.float16)).space.dtype == "float16"


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.ones((20, 3)) * 1j, "np.stack([x.real, x.imag], -1)"),
        (np.arange(20).astype("datetime64[D]"), 'a table {"date": x}'),
        (np.arange(20).astype("timedelta64[s]"), "durations (x / np.timedelta64"),
        (np.zeros((1, 20, 20)), "a single image or series is one row"),
        (np.zeros((0, 3)), "got an empty array of shape (0, 3)"),
    ],
)
def test_other_arrays_are_refused_with_a_way_out(array: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match="expected") as error:
        vs.load(array)
    assert said in str(error.value)


def test_records_in_a_file_are_a_table(tmp_path: Path) -> None:
    g = rng()
    x = np.zeros(60, [("size", "f4"), ("name", "U4"), ("age", "i8")])
    x["size"], x["name"], x["age"] = g.normal(size=60), g.choice(["a", "bc"], 60), range(60)
    np.save(tmp_path / "x.npy", x)
    assert vs.load(tmp_path / "x.npy").space.names == ("size", "name", "age")
