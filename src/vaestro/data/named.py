"""Named data sets. Each is a function that returns `Raw`; its keyword-only arguments are the
options of the source."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from importlib import resources
from typing import Literal

import numpy as np

from vaestro.data.raw import Raw
from vaestro.randomness import derive
from vaestro.text import InputError


def _whole(name: str, value: int, low: int, high: int | None = None) -> None:
    """Raise ValueError unless the value is a whole number in this range."""
    if (
        not isinstance(value, (int, np.integer))
        or isinstance(value, bool)
        or value < low
        or (high is not None and value > high)
    ):
        limits = f"from {low} to {high}" if high is not None else f"of {low} or more"
        raise ValueError(f"expected {name} to be a whole number {limits}; got {value!r}")


# -- MNIST, with measurements of the strokes -------------------------------------------------------


def mnist(*, valid: int = 5000) -> Raw[np.ndarray]:
    """Read MNIST (LeCun, Cortes and Burges 1998), which the package contains: uint8 (N, 28, 28).

    The attributes are `digit` and the measurements of `measure`.

    Args:
        valid: number of validation images, taken from the end of the training images.

    Raises:
        ValueError: `valid` leaves no image for training.

    >>> mnist(valid=100).splits["valid"].shape
    (100, 28, 28)
    """
    _whole("valid", valid, 0, 59999)
    with (
        resources.files("vaestro.data").joinpath("mnist.npz").open("rb") as file,
        np.load(file, allow_pickle=False) as archive,
    ):
        x, test = archive["train"], archive["test"]
        attributes = {"digit": archive["train_digit"], **measure(x)}
        test_attributes = {"digit": archive["test_digit"], **measure(test)}
    cut = len(x) - valid
    return Raw(
        {"train": x[:cut], "valid": x[cut:], "test": test},
        {
            "train": {k: v[:cut] for k, v in attributes.items()},
            "valid": {k: v[cut:] for k, v in attributes.items()},
            "test": test_attributes,
        },
    )


def measure(images: np.ndarray) -> dict[str, np.ndarray]:
    """Measure strokes, uint8 (N, H, W) with ink 0 .. 255 on 0 -> {name: float32 (N,)}.

    The measurements follow Morpho-MNIST (Castro et al. 2019). An image without ink has 0 in all
    three.

    slant: angle in degrees by which upright strokes lean to the right, from the second moments.
    thickness: width of a stroke in pixels.
    width: width in pixels of the middle 98 % of the ink, after the slant is removed.

    >>> measure(np.zeros((1, 28, 28), np.uint8))["slant"]
    array([0.], dtype=float32)
    """
    shear, thickness = np.zeros((2, len(images)))
    for start in range(0, len(images), 512):
        rows = slice(start, start + 512)
        shear[rows], thickness[rows] = _shear(images[rows]), _thickness(images[rows])
    measured = {
        "slant": np.degrees(np.arctan(shear)),
        "thickness": thickness,
        "width": _width(images, shear),
    }
    return {name: values.astype(np.float32) for name, values in measured.items()}


def _shear(images: np.ndarray) -> np.ndarray:
    """Return the horizontal shift of upright strokes in pixels per pixel upwards: (N, H, W) ->
    (N,)."""
    y, x = (place.ravel() - place.max() // 2 for place in np.indices(images.shape[1:]))
    # Whole numbers below 2**24 are exact in float32, so all machines return the same bytes.
    moments = images.reshape(len(images), -1).astype(np.float32) @ np.stack(
        [x**0, x, y, x * y, y * y], 1
    ).astype(np.float32)
    ink, mx, my, mxy, myy = moments.astype(np.float64).T
    ink = np.maximum(ink, 1)
    spread = myy - my * my / ink
    return (mx * my / ink - mxy) / np.where(spread > 0, spread, np.inf)


def _thickness(images: np.ndarray) -> np.ndarray:
    """Return the diameter 2 r of the pen: (N, H, W) -> (N,).

    A pen of radius r draws curves with Euler characteristic e (strokes minus loops). By Steiner's
    formula, their area A and perimeter P satisfy A = r P - pi e r^2. Each of A, P and e is a sum
    over pixels and pairs of pixels, averaged over the grey levels. P counts the steps of grey in
    four directions (Crofton); e is corners - edges + faces.
    """
    n, row = len(images), images.shape[2] + 2
    # flattened: a neighbour is an offset, and empty pixels separate the rows
    ink = np.pad(images, ((0, 0), (1, 1), (1, 1))).ravel()

    def total(*offsets: int) -> np.ndarray:
        """Return the sum over each image of the maximum of the pixels at these offsets, (N,)."""
        most = ink.copy()
        for offset in offsets:
            np.maximum(most[:-offset], ink[offset:], out=most[:-offset])
        return most.reshape(n, -1).sum(1, np.uint32) / 255

    area, across, down, corners = total(), total(1), total(row), total(1, row, row + 1)
    perimeter = (
        math.pi
        / 4
        * (across + down - 2 * area + (total(row + 1) + total(row - 1) - 2 * area) / math.sqrt(2))
    )
    euler = corners - across - down + area
    root = np.sqrt(np.maximum(perimeter**2 - 4 * math.pi * euler * area, 0))
    return 4 * area / np.where(area > 0, perimeter + root, 1)


def _width(images: np.ndarray, shear: np.ndarray) -> np.ndarray:
    """Return the width of the ink after the shear is removed: (N, H, W), (N,) -> (N,)."""
    height, width = images.shape[1:]
    y, x = (place.ravel() for place in np.indices((height, width)))
    edges = np.arange(-height, width + height + 1)
    widths = np.zeros(len(images))
    # Images with nearly the same shear share one linear map to the ink on the left of each edge.
    steps = np.rint(np.clip(shear, -2, 2) * 32).astype(np.int64)
    order = np.argsort(steps, kind="stable")
    for rows in filter(len, np.split(order, np.flatnonzero(np.diff(steps[order])) + 1)):
        place = x + steps[rows[0]] / 32 * (y - height // 2)
        below = np.clip(edges - place[:, None], 0, 1).astype(np.float32)
        for part in np.array_split(rows, -(-len(rows) // 512)):
            ink = images[part].reshape(len(part), -1).astype(np.float32) @ below
            ends = []
            for share in (0.01, 0.99):
                target = share * ink[:, -1:]
                right = np.maximum((ink < target).sum(1), 1)[:, None]
                low, high = np.take_along_axis(ink, right - 1, 1), np.take_along_axis(ink, right, 1)
                ends.append((right + (target - high) / np.maximum(high - low, 1e-6))[:, 0])
            widths[part] = np.where(ink[:, -1] > 0, ends[1] - ends[0], 0)
    return widths


# -- digits of scikit-learn ------------------------------------------------------------------------


def digits() -> Raw[np.ndarray]:
    """Read the 1,797 digits of scikit-learn: uint8 (1797, 8, 8), levels 0 .. 16, with the attribute
    `digit`.

    Raises:
        ValueError: scikit-learn is not installed.

    >>> digits().splits["all"].shape
    (1797, 8, 8)
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise InputError(
            "the data set digits needs scikit-learn: pip install 'vaestro[sklearn]'"
        ) from error
    bunch = load_digits()
    return Raw(
        {"all": bunch.images.astype(np.uint8)}, {"all": {"digit": bunch.target.astype(np.uint8)}}
    )


# -- shapes ----------------------------------------------------------------------------------------

SYMMETRY = {"square": 90, "ellipse": 180, "heart": 360}
COLOURS = {
    "red": (229, 57, 53),
    "yellow": (253, 216, 53),
    "green": (67, 160, 71),
    "cyan": (38, 198, 218),
    "blue": (57, 93, 229),
    "violet": (171, 71, 188),
}
SCALE = (0.18, 0.36)
# largest distance from the centre of a shape to its edge (the longest ellipse), in image sides
REACH = SCALE[1] * math.sqrt(2 / math.pi)
HEART = 0.5 + math.pi / 8  # area of a square of side sqrt(1/2) with half a disc on two sides
HEART_CENTRE = (1 / 4 + 3 * math.pi / 32 + 1 / 24) / HEART  # above its tip


def shapes(
    *,
    size: int = 64,
    n: int = 10_000,
    seed: int = 0,
    channels: Literal["colour", "grey"] = "colour",
) -> Raw[np.ndarray]:
    """Render images of one shape each on black: uint8 (n, size, size, 3), or (n, size, size).

    All factors are drawn independently and uniformly. An image depends only on the seed and its row
    number. All machines return the same bytes. Images of another size show the same scenes.

    The attributes are `shape` (square, ellipse or heart); `scale`, the square root of its area (.18
    to .36 of the image's side); `rotation` in degrees anticlockwise (0 to 90, 180 or 360, at which
    the shape looks the same again); `x` and `y`, the position of the centre of mass (0: as far left
    or up as every shape fits; 1: right or down); and `colour`, which white shapes do not have.

    Args:
        size: side of an image in pixels, 16 to 256.
        n: number of images.
        seed, channels: seed of the factors; colour or grey.

    Raises:
        ValueError: an argument is out of range, or the images do not fit into memory.

    >>> raw = shapes(size=16, n=2)
    >>> raw.splits["all"].shape, list(raw.attributes["all"])
    ((2, 16, 16, 3), ['shape', 'scale', 'rotation', 'x', 'y', 'colour'])
    """
    _check_shapes(size, n, seed, channels)
    layout = (n, size, size, *([3] if channels == "colour" else []))
    try:
        images = np.zeros(layout, np.uint8)
    except (MemoryError, ValueError) as error:
        raise InputError(
            f"{n:,} images of {size}x{size} need {math.prod(layout):,} bytes, which do not fit "
            f"into memory: use a smaller n= or size="
        ) from error
    uniform = partial(_uniform, n, seed)
    names = np.array(list(SYMMETRY))
    kind = (uniform("shape") * len(names)).astype(np.int64)
    factors = {
        "scale": SCALE[0] + (SCALE[1] - SCALE[0]) * uniform("scale"),
        "rotation": uniform("rotation") * np.array(list(SYMMETRY.values()))[kind],
        "x": uniform("x"),
        "y": uniform("y"),
    }
    attributes = {
        "shape": names[kind],
        **{name: values.astype(np.float32) for name, values in factors.items()},
    }
    if channels == "colour":
        colour = (uniform("colour") * len(COLOURS)).astype(np.int64)
        attributes["colour"] = np.array(list(COLOURS))[colour]
        paint = np.array(list(COLOURS.values()), np.float32)[colour]
    else:
        paint = np.full((n, 1), 255, np.float32)
        images = images[..., None]
    _paint(images, kind, factors, paint)
    return Raw({"all": images.reshape(layout)}, {"all": attributes})


def _check_shapes(size: int, n: int, seed: int, channels: str) -> None:
    """Raise ValueError unless the options of `shapes` are in their ranges."""
    _whole("size", size, 16, 256)
    _whole("n", n, 1)
    _whole("seed", seed, 0)
    if channels not in ("colour", "grey"):
        raise ValueError(f"expected channels to be colour or grey; got {channels!r}")


def _uniform(n: int, seed: int, factor: str) -> np.ndarray:
    """Draw (n,) numbers of 24 bits on [0, 1) from raw bits, which do not change between NumPy
    versions."""
    return (np.random.PCG64(derive(seed, "shapes", factor)).random_raw(n) >> 40) / 2**24


def _paint(
    images: np.ndarray, kind: np.ndarray, factors: Mapping[str, np.ndarray], paint: np.ndarray
) -> None:
    """Draw one shape into each image.

    Args:
        images: (n, size, size, C), to which the shapes are written.
        kind: index of each shape in SYMMETRY, (n,).
        factors: scale, rotation, x and y, each (n,).
        paint: colour of each shape, (n, C).
    """
    size = images.shape[1]
    cosine, sine = _turn(factors["rotation"])
    margin = REACH * size + 1
    patch = math.ceil(2 * margin) + 1
    windows = np.lib.stride_tricks.sliding_window_view(
        images, (patch, patch), (1, 2), writeable=True
    )
    across, down = (margin + factors[axis] * (size - 2 * margin) for axis in ("x", "y"))
    left, top = (
        np.clip(np.floor(centre - margin).astype(np.int64), 0, size - patch)
        for centre in (across, down)
    )
    pixels = np.arange(patch) + 0.5
    for k, cover in enumerate((_square, _ellipse, _heart)):
        every = np.flatnonzero(kind == k)
        for rows in filter(len, np.array_split(every, len(every) * patch**2 // 2**17 + 1)):
            right = (left[rows, None] + pixels - across[rows, None]).astype(np.float32)[:, None, :]
            up = (down[rows, None] - top[rows, None] - pixels).astype(np.float32)[:, :, None]
            c, s, side = (
                values[rows, None, None].astype(np.float32)
                for values in (cosine, sine, factors["scale"] * size)
            )
            covered = np.clip(cover(c * right + s * up, c * up - s * right, side), 0, 1)
            windows[rows, top[rows], left[rows]] = covered[:, None] * paint[
                rows, :, None, None
            ] + np.float32(0.5)


def _turn(degrees: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return cosines and sines. Only sums and products are used, because mathematical libraries
    differ in the last bit."""
    angle = degrees * (math.pi / 180 / 64)
    square = angle * angle
    c = 1 - square / 2 * (1 - square / 12 * (1 - square / 30 * (1 - square / 56)))
    s = angle * (1 - square / 6 * (1 - square / 20 * (1 - square / 42)))
    for _ in range(6):
        c, s = c * c - s * s, 2 * c * s
    return c, s


# Each shape has the area side^2 and its centre of mass at 0. The coordinates (u, v) of a pixel turn
# with the shape; v points upwards. Each function returns the covered part of the pixel: 0.5 minus
# the signed distance to the edge, not yet limited to [0, 1].


def _square(u: np.ndarray, v: np.ndarray, side: np.ndarray) -> np.ndarray:
    half = side / 2 + np.float32(0.5)
    return np.clip(half - np.abs(u), 0, 1) * np.clip(half - np.abs(v), 0, 1)


def _ellipse(u: np.ndarray, v: np.ndarray, side: np.ndarray) -> np.ndarray:
    short = side * np.float32(1 / math.sqrt(2 * math.pi))
    u, v = u / (2 * short), v / short
    level, slope = u * u + v * v, u * u / (2 * short) ** 2 + (v / short) ** 2
    return np.float32(0.5) - (np.sqrt(level) - 1) * np.sqrt(
        (level + np.float32(1e-9)) / (slope + np.float32(1e-9))
    )


def _heart(u: np.ndarray, v: np.ndarray, side: np.ndarray) -> np.ndarray:
    unit = side * np.float32(1 / math.sqrt(HEART))
    u, v = np.abs(u) / unit, v / unit + np.float32(HEART_CENTRE)
    lobe = np.sqrt((u - 0.25) ** 2 + (v - 0.75) ** 2) - np.float32(math.sqrt(1 / 8))
    along = np.maximum(u + v, 0) / 2
    edge = np.sqrt(np.minimum(u * u + (v - 1) ** 2, (u - along) ** 2 + (v - along) ** 2))
    return np.float32(0.5) - unit * np.where(u + v > 1, lobe, np.copysign(edge, u - v))


NAMED: dict[str, Callable[..., Raw]] = {"mnist": mnist, "shapes": shapes, "digits": digits}
