import hashlib
import sys
import typing

import numpy as np
import pytest

from vaestro.data import named
from vaestro.data.named import (
    COLOURS,
    NAMED,
    REACH,
    SCALE,
    SYMMETRY,
    digits,
    measure,
    mnist,
    shapes,
)
from vaestro.signatures import checked, options_of

Y, X = (np.indices((224, 224)) + 0.5) / 8  # eight by eight places in each of 28 x 28 pixels


def inked(where):
    """Draw ink where a condition on X and Y holds, in grey at the edges: bool (224, 224) -> uint8
    (28, 28)."""
    return np.rint(255 * where.reshape(28, 8, 28, 8).mean((1, 3))).astype(np.uint8)


def bar(lean, thick, x=14.0, tall=16):
    return inked(
        (np.abs(X - x + np.tan(np.radians(lean)) * (Y - 14)) <= thick / 2)
        & (np.abs(Y - 14) < tall / 2)
    )


def line(degrees, thick, reach=8):
    """Draw a stroke with round ends."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    along = np.clip(c * (X - 14) + s * (Y - 14), -reach, reach)
    return inked(np.hypot(X - 14 - c * along, Y - 14 - s * along) <= thick / 2)


def ring(thick, x=14.0, y=14.0, radius=8.0):
    return inked(np.abs(np.hypot(X - x, Y - y) - radius) <= thick / 2)


# -- MNIST -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole():
    return mnist(valid=0)


def test_mnist_knows_its_strokes(whole):
    for split, array in whole.splits.items():
        known = whole.attributes[split]
        assert list(known) == ["digit", "slant", "thickness", "width"]
        assert all(v.shape == (len(array),) for v in known.values())
        assert all(
            known[k].dtype == np.float32 and np.isfinite(known[k]).all()
            for k in ("slant", "thickness", "width")
        )
    known = whole.attributes["train"]
    assert known["slant"].min() > -75 and known["slant"].max() < 75
    assert known["thickness"].min() > 1 and known["thickness"].max() < 12
    assert known["width"].min() > 1 and known["width"].max() < 28


def test_what_is_measured_agrees_with_what_is_known_of_mnist(whole):
    known = whole.attributes["train"]
    median = {
        k: [np.median(known[k][known["digit"] == d]) for d in range(10)]
        for k in ("slant", "thickness", "width")
    }
    assert np.argmin(median["width"]) == 1 and median["width"][1] < 0.5 * min(
        median["width"][:1] + median["width"][2:]
    )
    assert 3 < np.median(known["slant"]) < 9 and 10 < median["slant"][1] < 14, (
        "MNIST leans to the right"
    )
    assert min(median["thickness"]) > 2 and max(median["thickness"]) < 3.2
    pairs = np.corrcoef([known[k] for k in median])
    assert (np.abs(pairs[np.triu_indices(3, 1)]) < 0.25).all(), "the three tell different things"


def test_splits_share_what_is_measured(whole):
    cut = mnist()
    assert [len(cut.splits[s]) for s in ("train", "valid", "test")] == [55_000, 5_000, 10_000]
    for name, values in whole.attributes["train"].items():
        assert np.array_equal(
            np.concatenate([cut.attributes[s][name] for s in ("train", "valid")]), values
        )
    assert np.array_equal(
        measure(cut.splits["valid"][:700])["width"], cut.attributes["valid"]["width"][:700]
    )


@pytest.mark.parametrize("lean", [-40, -20, 0, 10, 30, 45])
def test_slant_is_the_lean_to_the_right(lean):
    found = measure(
        np.stack([bar(lean, thick, x) for thick in (2, 4, 8) for x in (12.8, 13.3, 14)])
    )["slant"]
    assert np.abs(found - lean).max() < 0.5
    flipped = measure(np.stack([bar(lean, thick)[:, ::-1] for thick in (2, 4, 8)]))["slant"]
    assert np.abs(flipped + lean).max() < 0.5


@pytest.mark.parametrize("thick", [2, 3, 4, 6])
def test_thickness_is_that_of_the_pen(thick):
    strokes = [line(degrees, thick) for degrees in range(0, 180, 15)]
    two_rings = np.maximum(ring(thick, y=9, radius=4.5), ring(thick, y=18, radius=4.5))
    curves = [ring(thick), two_rings, np.maximum(line(0, thick), line(90, thick))]
    found = measure(np.stack(strokes + curves))["thickness"]
    assert np.abs(found / thick - 1).max() < 0.14
    assert abs(found[: len(strokes)].mean() / thick - 1) < 0.05


def test_thickness_does_not_depend_on_the_place_nor_on_how_dark_the_ink_is():
    image = line(30, 4)
    moved = [np.roll(image, by, (0, 1)) for by in ((3, 2), (-4, 1), (2, -5))]
    assert np.ptp(measure(np.stack([image, *moved, image // 2]))["thickness"]) < 0.05


@pytest.mark.parametrize("lean", [-30, 0, 20, 40])
def test_width_is_measured_upright(lean):
    found = measure(np.stack([bar(lean, wide) for wide in (4, 6, 8, 10)]))["width"]
    assert (np.abs(found - [4, 6, 8, 10]) < 1.6).all(), (
        "the grey of the edges adds up to a pixel and a half"
    )
    assert np.abs(np.diff(found) - 2).max() < 0.4
    assert measure(ring(3)[None])["width"][0] == pytest.approx(19, abs=0.7)


def test_images_without_strokes_measure_as_numbers():
    rng = np.random.default_rng(0)
    blank = measure(np.zeros((3, 28, 28), np.uint8))
    assert all((v == 0).all() and v.shape == (3,) for v in blank.values())
    for images in (
        np.full((2, 28, 28), 255),
        np.eye(28)[None] * 255,
        rng.integers(0, 256, (5, 28, 28)),
        np.zeros((0, 28, 28)),
    ):
        assert all(
            np.isfinite(v).all() and len(v) == len(images)
            for v in measure(images.astype(np.uint8)).values()
        )
    point = np.zeros((1, 28, 28), np.uint8)
    point[0, 0, 27] = 255
    assert measure(point)["slant"][0] == 0 and 0.9 < measure(point)["width"][0] <= 1


# -- digits ----------------------------------------------------------------------------------------


def test_digits_are_those_of_scikit_learn():
    datasets = pytest.importorskip("sklearn.datasets")
    raw = digits()
    x, digit = raw.splits["all"], raw.attributes["all"]["digit"]
    assert x.shape == (1797, 8, 8) and x.dtype == np.uint8 and (x.min(), x.max()) == (0, 16)
    assert (
        np.array_equal(x.reshape(1797, 64), datasets.load_digits().data)
        and np.bincount(digit).size == 10
    )


def test_digits_without_scikit_learn_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(
        ValueError, match=r"digits needs scikit-learn: pip install .vaestro\[sklearn\]"
    ):
        digits()


# -- shapes ----------------------------------------------------------------------------------------


def centre(values, size):
    """Return in pixels where x or y of 0 .. 1 is."""
    margin = REACH * size + 1
    return margin + values.astype(np.float64) * (size - 2 * margin)


def rendered(monkeypatch, size=64, **factors):
    """Render one grey image for each row of given factors, each in units of [0, 1) as they are
    drawn."""
    n = max(map(len, factors.values()))
    drawn = {name: np.full(n, 0.5) for name in ("shape", "scale", "rotation", "x", "y")} | {
        k: np.array(v) for k, v in factors.items()
    }

    class Drawn:
        def __init__(self, name):
            self.values = drawn[name]

        def random_raw(self, n):
            return np.floor(self.values * 2**24).astype(np.uint64) << np.uint64(40)

    monkeypatch.setattr(named, "derive", lambda seed, purpose, name: name)
    monkeypatch.setattr(np.random, "PCG64", Drawn)
    raw = shapes(size=size, n=n, channels="grey")
    return raw.splits["all"], raw.attributes["all"]


def test_shapes_have_one_hash():
    digest = hashlib.sha256()
    for raw in (
        shapes(n=300),
        shapes(n=300, size=16, channels="grey"),
        shapes(n=40, size=256, seed=7),
    ):
        digest.update(raw.splits["all"].tobytes())
        for name, values in raw.attributes["all"].items():
            digest.update(
                name.encode()
                + ("".join(values).encode() if values.dtype.kind == "U" else values.tobytes())
            )
    assert digest.hexdigest()[:16] == "e3c161f45bb9b0dc", (
        "shapes of a seed are the same in every version and on every machine"
    )


@pytest.mark.parametrize("options", [{}, {"channels": "grey", "size": 20}, {"seed": 3, "size": 33}])
def test_fewer_shapes_are_the_first_of_more(options):
    few, many = shapes(n=100, **options), shapes(n=577, **options)
    assert np.array_equal(few.splits["all"], many.splits["all"][:100])
    assert all(
        np.array_equal(v, many.attributes["all"][k][:100]) for k, v in few.attributes["all"].items()
    )


def test_the_seed_changes_every_factor_and_the_size_none():
    first, other, small = (
        shapes(n=200),
        shapes(n=200, seed=1),
        shapes(n=200, size=16, channels="grey"),
    )
    for name, values in first.attributes["all"].items():
        assert (values != other.attributes["all"][name]).any()
        assert name == "colour" or np.array_equal(values, small.attributes["all"][name])


def test_factors_are_uniform_and_independent():
    known = shapes(n=20_000, size=16).attributes["all"]
    assert list(known) == ["shape", "scale", "rotation", "x", "y", "colour"]
    for name, words in (("shape", SYMMETRY), ("colour", COLOURS)):
        assert set(known[name]) == set(words)
        assert max(abs((known[name] == w).mean() * len(words) - 1) for w in words) < 0.06
    turned = known["rotation"] / np.array([SYMMETRY[s] for s in known["shape"]])
    numbers = [(known["scale"] - SCALE[0]) / (SCALE[1] - SCALE[0]), turned, known["x"], known["y"]]
    for values in numbers:
        assert values.dtype.kind == "f" and values.min() >= -1e-6 and values.max() <= 1
        assert np.abs(np.histogram(values, 10, (0, 1))[0] / 2000 - 1).max() < 0.1
    assert all(
        (known["rotation"][known["shape"] == s] < degrees).all() for s, degrees in SYMMETRY.items()
    )
    columns = [
        *numbers,
        *(known["shape"] == s for s in SYMMETRY),
        *(known["colour"] == c for c in COLOURS),
    ]
    among = np.corrcoef(columns)
    apart = np.ones_like(among, bool)
    for block in (slice(4, 7), slice(7, None)):
        apart[block, block] = False
    np.fill_diagonal(apart, False)
    assert np.abs(among[apart]).max() < 0.03


@pytest.mark.parametrize(("size", "tolerance"), [(16, 0.07), (33, 0.03), (64, 0.01), (256, 0.003)])
def test_factors_are_found_in_the_images(size, tolerance):
    raw = shapes(size=size, n=600, channels="grey")
    known, ink = raw.attributes["all"], raw.splits["all"] / 255
    area, pixels = ink.sum((1, 2)), np.arange(size) + 0.5
    assert np.abs(area / (known["scale"] * size) ** 2 - 1).max() < tolerance, (
        "scale is the root of the area, whatever the shape"
    )
    assert np.abs(ink.sum(1) @ pixels / area - centre(known["x"], size)).max() < 0.1
    assert np.abs(ink.sum(2) @ pixels / area - centre(known["y"], size)).max() < 0.1


def test_rotation_is_anticlockwise():
    raw = shapes(n=2000, channels="grey")
    known, ink = raw.attributes["all"], raw.splits["all"] / 255
    kind, turn = known["shape"], np.radians(known["rotation"])
    right = np.arange(64) + 0.5 - centre(known["x"], 64)[:, None, None]
    up = (centre(known["y"], 64)[:, None] - np.arange(64) - 0.5)[:, :, None]
    area = ink.sum((1, 2))
    place = right + 1j * up
    # The first moment of order m that a shape's symmetry leaves points where the shape does, m
    # times over.
    for shape, order, start in (("ellipse", 2, 1), ("square", 4, -1), ("heart", 3, 1j)):
        moment = (ink * place**order).sum((1, 2)) / area * np.exp(-1j * order * turn) / start
        found = np.degrees(np.angle(moment[kind == shape])) / order
        assert np.abs(found).max() < 4, shape


def test_a_heart_that_is_not_turned_stands_on_its_tip(monkeypatch):
    images, known = rendered(monkeypatch, shape=[0.9, 0.9], rotation=[0.0, 0.5], scale=[0.9, 0.9])
    assert known["shape"].tolist() == ["heart"] * 2 and known["rotation"].tolist() == [0, 180]
    upright = images[0].astype(int)
    assert np.abs(upright - upright[:, ::-1]).max() <= 1
    assert np.array_equal(images[1], images[0][::-1, ::-1])
    rows = np.flatnonzero(upright.any(1))
    assert (upright[rows[-1]] > 0).sum() <= 4 < (upright[rows[4]] > 0).sum()
    assert upright[rows[0], 31] < upright[rows[0] + 2, 26], "the notch is at the top"


@pytest.mark.parametrize("size", [16, 17, 64, 256])
def test_shapes_stay_inside_at_the_extremes(monkeypatch, size):
    last = 1 - 2**-24
    grid = np.stack(
        np.meshgrid(
            [0.0, 0.4, 0.9],
            [0.0, last],
            [0.0, last],
            [0.0, last],
            np.linspace(0, last, 17),
            indexing="ij",
        )
    )
    shape, scale, x, y, rotation = grid.reshape(5, -1)
    images, known = rendered(
        monkeypatch, size, shape=shape, scale=scale, x=x, y=y, rotation=rotation
    )
    assert set(known["shape"]) == set(SYMMETRY)
    assert not (
        images[:, 0].any() or images[:, -1].any() or images[:, :, 0].any() or images[:, :, -1].any()
    )
    touched = images[:, 1:3].any((1, 2)) | images[:, -3:-1].any((1, 2))
    assert touched[(known["shape"] == "ellipse") & (known["scale"] > 0.35)].any(), (
        "and no room is wasted"
    )
    assert (images.max((1, 2)) > 250).all()


def test_edges_are_smooth_and_the_rest_is_plain():
    x = shapes(n=300, channels="grey").splits["all"].astype(int)
    partly = ((x > 0) & (x < 255)).mean((1, 2))
    assert partly.max() < 0.04 and partly.min() > 0.002
    assert ((x == 0).mean((1, 2)) > 0.8).all() and ((x == 255).mean((1, 2)) > 0.02).all()


def test_a_colour_is_the_grey_image_times_its_paint():
    colour, grey = shapes(n=300), shapes(n=300, channels="grey")
    x, paint = (
        colour.splits["all"],
        np.array([COLOURS[c] for c in colour.attributes["all"]["colour"]]),
    )
    assert (
        x.shape == (300, 64, 64, 3)
        and grey.splits["all"].shape == (300, 64, 64)
        and x.dtype == np.uint8
    )
    assert "colour" not in grey.attributes["all"]
    assert np.array_equal(x.max((1, 2)), paint)
    assert np.abs(x - grey.splits["all"][..., None] / 255 * paint[:, None, None]).max() < 1.1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"size": 15}, "expected size to be a whole number from 16 to 256; got 15"),
        ({"size": 257}, "expected size to be a whole number from 16 to 256; got 257"),
        ({"size": 32.5}, "got 32.5"),
        ({"n": 0}, "expected n to be a whole number of 1 or more; got 0"),
        ({"n": True}, "got True"),
        ({"n": 10**15}, "need 12,288,000,000,000,000,000 bytes, which do not fit into memory"),
        ({"n": 10**30}, "do not fit into memory"),
        ({"seed": -1}, "expected seed to be a whole number of 0 or more; got -1"),
        ({"seed": "0"}, "got '0'"),
        ({"channels": "rgb"}, "expected channels to be colour or grey; got 'rgb'"),
    ],
)
def test_impossible_shapes_are_refused(options, expected):
    with pytest.raises(ValueError, match=expected) as error:
        shapes(**options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("valid", [60_000, -1, 2.5, None])
def test_mnist_keeps_something_to_train_on(valid):
    with pytest.raises(
        ValueError, match=f"expected valid to be a whole number from 0 to 59999; got {valid}"
    ):
        mnist(valid=valid)


# -- the table -------------------------------------------------------------------------------------


def test_the_signatures_are_the_options():
    assert {name: list(options_of(f)) for name, f in NAMED.items()} == {
        "mnist": ["valid"],
        "shapes": ["size", "n", "seed", "channels"],
        "digits": [],
    }
    for name, function in NAMED.items():
        assert typing.get_type_hints(function)["return"].__name__ == "Raw" and function.__doc__
        for option, (hint, default) in options_of(function).items():
            assert checked(f"{name}:{option}", default, hint) == default
