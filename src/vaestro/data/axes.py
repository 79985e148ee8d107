"""One look at an array before training: what its axes mean.

Options decide, such as axes=NCHW. Without them, sizes decide, and the similarity of neighbouring
cells in some rows: cells are neighbours along the axes of an image and along time, but not along
channels. A note names the options that overrule.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vaestro.data.codes import asked_axis, onehot_axis
from vaestro.data.passes import Part
from vaestro.data.raw import Options
from vaestro.data.source_options import of_groups
from vaestro.data.source_values import missing_values
from vaestro.randomness import numpy_generator
from vaestro.spaces import LAYOUTS, Layout, declared_layout, usual_layout, with_gaps

ROWS, CELLS = 2000, 500_000  # of the sample
FEW = 4  # largest number of channels that size alone shows
NARROW = 8  # largest number of channels of series, or of coordinates, that size alone shows
SMOOTH = 0.6  # largest roughness of an axis of neighbours
ROUGH = 0.8  # smallest roughness of an axis without neighbours
CLEARLY = 1.5  # ratio of the roughness of channels to that of the other axes
APART = 4.0  # ratio of standard deviations, or distance of means in them, of other units
ALIKE = 2.0  # largest variance of the mean points of a set, relative to that of random ones
FLOWING = 0.2  # largest roughness of rows that look like series
LONG = 32  # smallest number of their steps
SHOWING = 6  # smallest number of cells along an axis whose roughness is measured
SIDE = 8  # smallest side of bytes that are images without a look
Shape = tuple[int, ...]


class Look(NamedTuple):
    """Hold what an array is.

    Args:
        layout: of a datum, without the axis of one-hot vectors.
        onehot: the axis of a datum along which categories are one-hot; None without.
        options: of the source, with the axes that were inferred.
        notes: a line for each doubt.
        rows: the rows that were looked at, float64 with NaN in missing cells; none if the layout is
            known.
    """

    layout: Layout
    onehot: int | None
    options: Options
    notes: list[str]
    rows: np.ndarray


def look_at(train: Part, options: Options, name: str, known: bool) -> Look:
    """Return what an array is, from options and from some training rows.

    Args:
        train: the training rows.
        options: of the source.
        name: of the source, for messages.
        known: whether the usual layout is right without a look.

    Raises:
        ValueError: options contradict each other or the array.

    >>> x = np.random.default_rng(0).normal(size=(50, 3, 32, 32))
    >>> look_at(Part(x), {}, "array", False).options
    {'axes': 'NCHW'}
    """
    outside = tuple(train.whole.shape[1:])
    if known:
        layout = declared_layout(outside, options, name) or usual_layout(outside)
        return Look(layout, None, options, [], np.zeros(0))
    rows = _sample(train, options)
    notes: list[str] = []
    axis = asked_axis(rows, options.get("onehot", False), name)
    if axis is None and "onehot" not in options and "kind" not in options:
        hot = onehot_axis(rows)
        if hot is not None:
            notes.append(
                f"{_shape(outside)} looks one-hot along axis {hot + 1}: onehot=true reads "
                f"categories"
            )
    cells = rows if axis is None else rows.argmax(axis + 1).astype(np.float64)
    layout, note = _layout(cells, options, name, axis is None and not notes)
    if note and len(outside) == 1 and _one_picture(train.whole):
        note = (
            f"neighbouring rows and columns of {_shape(outside)} are alike, as in one image: each "
            f"row is one datum here (series=true reads rows as series; several images are an "
            f"array (N, H, W))"
        )
    if note:
        notes.append(note)
    outside, resolved = cells.shape[1:], dict(options)
    if layout not in (usual_layout(outside), declared_layout(outside, options, name)):
        resolved["axes"] = f"N{layout.letters(outside)}"
    return Look(layout, axis, resolved, notes, rows)


def _sample(train: Part, options: Options) -> np.ndarray:
    """Return some rows as float64, with NaN in missing cells and for infinity."""
    cells = max(1, math.prod(train.whole.shape[1:]))
    some = train.spread(max(4, min(ROWS, CELLS // cells)))
    rows = some.take(np.arange(len(some)))
    rows = with_gaps(rows, _numbers(options)).astype(np.float64)
    return np.where(np.isinf(rows), np.nan, rows)


def _numbers(options: Options) -> list[str]:
    return [word for word in missing_values(options.get("missing")) if word != "nan"]


def _layout(rows: np.ndarray, options: Options, name: str, free: bool) -> tuple[Layout, str]:
    """Return the layout of rows (n, *outside), and a note, which is empty without a doubt.

    Args:
        rows: some rows.
        options: of the source.
        name: of the source, for messages.
        free: whether the data decide if no option does.
    """
    outside = rows.shape[1:]
    layout = declared_layout(outside, options, name)
    if layout is not None:
        own = Path(name).suffix in (".npy", ".npz") or name == "array"
        windows = [key for key in of_groups(options, "series") if key != "series"]
        if "axes" in options or len(outside) < len(layout.order) or windows or not own:
            return layout, ""
        return _with_channels(layout, rows)
    if not free:
        return usual_layout(outside), ""
    refused = {key for key in ("volume", "series") if options.get(key) is False}
    if len(outside) == 1:
        return _of_row(rows, refused)
    if len(outside) == 2:
        return _of_matrix(rows, refused)
    if len(outside) == 3:
        return _of_cube(rows, refused)
    if len(outside) == 4 and "volume" not in refused:
        return _of_clip(rows)
    return usual_layout(outside), ""


# -- measures --------------------------------------------------------------------------------------


def roughness(rows: np.ndarray, axis: int) -> float:
    """Return how unlike neighbours along an axis are: 0 for a straight line, 1 if they are as
    unlike as random pairs along the axis. It is also 1 for fewer than 6 cells, which show nothing.

    It is the ratio of both mean absolute differences, less that of a straight line, 3 / (size + 1).

    >>> wave = np.sin(np.linspace(0, 6, 100))[None]
    >>> round(roughness(wave, 1), 2), roughness(np.arange(9.0)[None], 1) < 0.2
    (0.02, True)
    """
    size = rows.shape[axis]
    if size < SHOWING:
        return 1.0
    order = np.concatenate(
        [numpy_generator(0, "look", i).permutation(size) for i in range(max(1, 64 // size))]
    )
    near = _mean_size(np.diff(rows, axis=axis))
    far = _mean_size(np.diff(rows.take(order, axis), axis=axis))
    line = 3 / (size + 1)
    return max(0.0, near / far - line) / (1 - line) if far > 0 else 1.0


def _one_picture(whole: np.ndarray) -> bool:
    """Return whether consecutive rows are alike, as in one image."""
    rows = np.asarray(whole[: ROWS // 8], np.float64)
    return len(rows) >= LONG and roughness(rows[None], 1) < SMOOTH


def _mean_size(differences: np.ndarray) -> float:
    sizes = np.abs(differences[np.isfinite(differences)])
    return float(sizes.mean()) if sizes.size else 0.0


def _units_differ(rows: np.ndarray, axis: int) -> bool:
    """Return whether the cells along an axis have units of their own: other standard deviations,
    or means that are far apart."""
    columns = np.moveaxis(rows, axis, -1).reshape(-1, rows.shape[axis])
    columns = columns[np.isfinite(columns).all(1)]
    if len(columns) < 2:
        return False
    spread, mean = columns.std(0), columns.mean(0)
    if not spread.all():
        return False
    return bool(spread.max() > APART * spread.min() or np.ptp(mean) > APART * spread.max())


def _exchangeable(rows: np.ndarray, axis: int) -> bool:
    """Return whether the points along an axis differ from row to row only by chance."""
    points = np.moveaxis(rows, axis, 1)  # (n, P, C)
    points = points[np.isfinite(points).all((1, 2))]
    if len(points) < 8:
        return False
    within = points.var(0).mean(0)  # (C,)
    between = points.mean(0).var(0) * len(points)
    return bool((between <= ALIKE * within).all())


def _channel_axis(rows: np.ndarray, candidates: Sequence[int]) -> int | None:
    """Return the axis of a datum with the channels: the only small one, or one that is rougher
    than the others; None if neither shows it."""
    sizes = rows.shape[1:]
    small = [at for at in candidates if sizes[at] <= FEW]
    if len(small) == 1:
        return small[0]
    if small and max(sizes[at] for at in small) == 1:
        return small[-1]
    rough = [roughness(rows, at + 1) for at in range(len(sizes))]
    for at in candidates:
        rest = max(r for i, r in enumerate(rough) if i != at)
        if rest < ROUGH and rough[at] > CLEARLY * rest:
            return at
    return None


# -- layouts ---------------------------------------------------------------------------------------


def _with_channels(layout: Layout, rows: np.ndarray) -> tuple[Layout, str]:
    """Return a declared layout, with the axis of its channels where the data show it."""
    usual, last = layout.order, rows.ndim - 2
    if np.isnan(rows).any():  # series that end early have their channels last
        return layout, ""
    places = range(last) if layout.name == "volume" else [0]
    at = _channel_axis(rows, [*(p for p in places if p != 2), last])
    if at is None or at == last:
        return layout, ""
    letters = usual[:at] + "C" + usual[at:-1]
    return replace(layout, axes=letters), (
        f"{_shape(rows.shape[1:])} read as N{letters}: axis {at + 1} has the channels "
        f"(axes=N{usual} overrules)"
    )


def _of_row(rows: np.ndarray, refused: set[str]) -> tuple[Layout, str]:
    steps = rows.shape[1]
    if steps >= LONG and "series" not in refused and roughness(rows, 1) < FLOWING:
        return LAYOUTS["vector"], (
            f"neighbouring columns of {_shape((steps,))} are alike (series=true reads the rows as "
            f"series over time)"
        )
    return LAYOUTS["vector"], ""


def _of_matrix(rows: np.ndarray, refused: set[str]) -> tuple[Layout, str]:
    """Choose between images, series, and sets of points for data of two axes."""
    outside = rows.shape[1:]
    image, series, points = LAYOUTS["image"], LAYOUTS["series"], LAYOUTS["points"]
    few = [at for at in (1, 0) if outside[at] <= NARROW and outside[1 - at] >= 4 * outside[at]]
    rough = roughness(rows, 1), roughness(rows, 2)
    for at in few or (1, 0):
        steps = outside[1 - at]
        letters = ("CT", "TC")[at]
        flows, units = rough[1 - at] < SMOOTH, bool(few) and _units_differ(rows, at + 1)
        if "series" not in refused and (units or (flows and rough[at] >= ROUGH)):
            chosen = series if at else replace(series, axes="CT")
            why = "neighbouring steps are alike" if flows else "channels have other scales"
            return chosen, (
                f"{_shape(outside)} read as series of {steps} steps and {_count(outside[at])}: "
                f"{why} (axes=NHW reads images, axes=N{letters[::-1]} the other order)"
            )
        if few and outside[at] > 1 and rough[1 - at] >= ROUGH and _exchangeable(rows, 2 - at):
            chosen = points if at else replace(points, axes="CP")
            return chosen, (
                f"{_shape(outside)} read as sets of {steps} points, whose order looks arbitrary. "
                f"No model here ignores the order, so point 1 of all rows is one variable: sort "
                f"the points first (axes=N{letters} reads series, axes=NHW images)"
            )
    if min(rough) >= ROUGH and min(outside) >= 3:
        return image, (
            f"{_shape(outside)} read as images, although neighbouring cells are not alike "
            f"(axes=NTC reads series, axes=NPC points)"
        )
    return image, ""


def _of_cube(rows: np.ndarray, refused: set[str]) -> tuple[Layout, str]:
    """Choose between images and volumes, and find the channels, for data of three axes."""
    outside = a, b, c = rows.shape[1:]
    image, first = LAYOUTS["image"], replace(LAYOUTS["image"], axes="CHW")
    named, volume = _shape(outside), "volume" not in refused
    also = " or volume=true" if volume else ""
    at = _channel_axis(rows, (0, 2))
    if at == 0:
        return first, f"{named} read as images with {_count(a)} first (axes=NHWC{also} overrules)"
    if at == 2:
        return image, ""
    alike = all(roughness(rows, i) < SMOOTH for i in (1, 2, 3))
    if alike and volume and (a != b or b == c):
        return LAYOUTS["volume"], (
            f"{named} read as volumes: neighbours are alike along all axes (axes=NHWC or NCHW "
            f"reads images)"
        )
    if b == c != a and not alike:
        return first, (
            f"{named} read as images with {_count(a)} first, because the other sides are equal "
            f"(axes=NHWC{also} overrules)"
        )
    return image, f"{named} read as images with {_count(c)} last (axes=NCHW{also} overrules)"


def _of_clip(rows: np.ndarray) -> tuple[Layout, str]:
    """Find the channels of volumes and clips, which have four axes."""
    outside, layout = rows.shape[1:], LAYOUTS["volume"]
    at = _channel_axis(rows, (3, 0, 1))
    alike = [roughness(rows, i + 1) < ROUGH for i in range(4) if i != at and outside[i] >= SHOWING]
    if at is None or not alike or not all(alike):
        return LAYOUTS["cells"], (
            f"{_shape(outside)} read as cells without neighbours (axes=NDHWC, NCDHW or NTCHW reads "
            f"volumes or clips)"
        )
    letters = {3: "DHWC", 0: "CDHW", 1: "DCHW"}[at]
    others = [f"N{x}" for x in ("DHWC", "CDHW", "TCHW") if x != letters.replace("DC", "TC")]
    return replace(layout, axes="" if at == 3 else letters), (
        f"{_shape(outside)} read as volumes, or clips over time, with {_count(outside[at])} on "
        f"axis {at + 1} (axes={' or '.join(others)} overrules)"
    )


def _count(channels: int) -> str:
    return "1 channel" if channels == 1 else f"{channels} channels"


def _shape(outside: Shape) -> str:
    return f"(N, {', '.join(map(str, outside))})"
