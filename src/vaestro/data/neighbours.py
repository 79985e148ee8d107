"""Distances between rows: views in which rows are compared, nearest rows, the local dimension, and
the step between two values of a cell."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import final

import numpy as np

from vaestro.randomness import numpy_generator
from vaestro.spaces import Space

NEIGHBOURS = 20  # number of nearest training rows from which density and dimension are estimated
COPIES = 5  # of these, the number of nearest rows that the dimension ignores as possible copies
SAMPLE = 500  # number of training rows from which the global dimension is estimated
ENTRIES = 4_000_000  # largest number of distances in memory
OTHERS = 40  # number of nearby training rows whose distances are a reference
QUARTILES = 0.961, 2.693  # quartiles of the gamma distribution with shape 2
FIRST = 0.288, 1.386  # quartiles of the exponential distribution
# A nearest row is exceptionally close if fewer rows than this are expected as close.
RARE = 0.1
# Closeness is a property of the data if this share of training rows nearby have such a nearest row.
SHARE = 0.4
SAFE = 0.7  # factor that reduces a dimension estimated from a few rows
MOST = 30.0  # largest dimension; sketches have about as many numbers
STEPS = 10  # smallest distance, in steps between values, that is treated as continuous
# largest distance of a twin, as a share of the distance to the next rows that are not copies
GAP = 0.5
COLUMNS = 256  # largest number of cells whose step is estimated
ATOM = 0.02  # smallest share of rows with the same value that is explained by chance
# numbers of a sketch: random projections, or the vector itself if it has no more cells
SKETCH = 32
BRIGHT = 32  # smallest number of levels of images compared without brightness and contrast
COARSE, FINE = 8, 32  # side in pixels
STEP = 1e-6  # step of coarse and fine images, whose cells are means
LEAST = 0.7  # smallest distance between rows, in steps; also the distance of equal rows


def nearest(rows: np.ndarray, candidates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest candidate of each row: its number, (N,), and its distance, (N,).

    >>> nearest(np.array([[0.0], [4.0]]), np.array([[1.0], [5.0]]))
    (array([0, 1]), array([1., 1.]))
    """
    partner, apart = np.zeros(len(rows), np.int64), np.zeros(len(rows))
    for part, squares in _squares(rows, candidates):
        partner[part] = squares.argmin(1)
        apart[part] = np.sqrt(np.take_along_axis(squares, partner[part, None], 1)[:, 0])
    return partner, apart


def _squares(rows: np.ndarray, candidates: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield a slice of the rows, and their squared distances to all candidates, (rows,
    candidates), float64."""
    candidates = candidates.astype(np.float64)
    norms, size = (candidates**2).sum(1), max(1, ENTRIES // max(1, len(candidates)))
    for start in range(0, len(rows), size):
        part = slice(start, start + size)
        some = rows[part].astype(np.float64)
        yield part, np.maximum((some**2).sum(1)[:, None] + norms - 2 * some @ candidates.T, 0)


@final
class Neighbours:
    """Estimate the number of independent rows near a row, from distances between training rows.

    Args:
        training: training rows, (n, cells), or a sample of them.
        of: total number of training rows.

    >>> rows = np.random.default_rng(0).normal(size=(1000, 2))
    >>> neighbours = Neighbours(rows, len(rows))
    >>> expected = neighbours.expected(rows[:1] + 1e-6, np.array([1e-6]), np.zeros(1))
    >>> bool(expected[0] < 1e-3)
    True
    """

    def __init__(self, training: np.ndarray, of: int) -> None:
        self._training, self._weight = training, of / max(1, len(training))
        self._k = max(2, min(NEIGHBOURS, len(training) // 3))
        self._copies = min(COPIES, self._k // 4)
        most = max(100, min(SAMPLE, 10_000_000 // max(1, len(training))))
        self._some = np.sort(numpy_generator(0, "neighbours").permutation(len(training))[:most])
        # The nearest of the training rows is the row itself.
        distances = self._distances(training[self._some], self._k + 1)[:, 1:]
        self.typical = float(np.median(distances[:, self._copies])) if distances.shape[1] else 0.0
        self._firsts, self._seconds, self._thirds = (
            distances[:, min(i, distances.shape[1] - 1)]
            if distances.shape[1]
            else np.zeros(len(distances))
            for i in range(3)
        )
        far = distances[distances[:, self._copies] > 0] if distances.shape[1] else distances
        spacings = self._spacings(far)
        # Rows in regions of lower dimension have a local estimate.
        self._global = 1 / max(float(spacings.mean()), 1e-3) if spacings.size else 1.0
        around = np.maximum(distances, 1e-300)
        self._close = (
            self._extrapolated(around, around[:, 0]) < RARE
            if distances.shape[1]
            else np.zeros(len(distances), bool)
        )

    def _distances(self, rows: np.ndarray, k: int) -> np.ndarray:
        k = min(k, len(self._training))
        return np.concatenate(
            [
                np.sqrt(np.sort(np.partition(squares, k - 1, 1)[:, :k], 1))
                for _, squares in _squares(rows, self._training)
            ]
        )

    def _spacings(self, distances: np.ndarray) -> np.ndarray:
        """Return j log(D_(j+1) / D_j) without the nearest rows, (N, K - 1 - copies). They have an
        exponential distribution with rate m (Renyi 1953)."""
        logs = np.log(np.maximum(distances[:, self._copies :], 1e-300))
        return np.diff(logs, axis=1) * np.arange(self._copies + 1, self._copies + logs.shape[1])

    def expected(self, rows: np.ndarray, distance: np.ndarray, step: np.ndarray) -> np.ndarray:
        """Return the expected number of independent training rows within a distance of rows, (N,).

        Args:
            rows: (N, cells).
            distance: (N,).
            step: the smallest difference between two different rows, (N,); infinite if equality of
                rows is not informative.
        """
        if not len(rows):
            return np.zeros(0)
        least = LEAST * np.where(np.isfinite(step), step, 0.0)
        least = least.astype(np.float64)  # float32 has no 1e-300
        around = np.maximum(self._distances(rows, self._k), np.maximum(least, 1e-300)[:, None])
        distance = np.maximum(distance, least)
        number = self._extrapolated(around, distance)
        apart = distance <= GAP * around[:, min(self._copies, self._k - 1)]
        number = np.where(apart, np.minimum(number, self._by_others(rows, distance, step)), number)
        number = np.maximum(number, self._by_nearest(rows, distance, least))
        return np.where(np.isfinite(step), number, np.inf)

    def _extrapolated(self, around: np.ndarray, distance: np.ndarray) -> np.ndarray:
        """Return the expected number within a distance (N,), from the distances of the nearest
        training rows (N, K)."""
        spacings = self._spacings(around)
        dimension = (
            1 / np.maximum(spacings.mean(1), 1e-3)
            if spacings.shape[1]
            else np.full(len(around), self._global)
        )
        return (
            self._weight
            * self._k
            * np.minimum(distance / around[:, -1], 1.0) ** np.minimum(dimension, self._global)
        )

    def grouped(self, rows: np.ndarray) -> np.ndarray:
        """Return whether rows are near small groups of similar training rows, such as one template
        with noise, (N,)."""
        return np.concatenate(
            [
                np.zeros(0, bool),
                *(self._close[others].mean(1) >= SHARE for _, others in self._others(rows)),
            ]
        )

    def _others(self, rows: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield a slice of the rows, and the training rows nearby whose own distances are used,
        (rows, OTHERS or fewer)."""
        number = min(OTHERS, len(self._some))
        for part, squares in _squares(rows, self._training[self._some]):
            yield part, np.argpartition(squares, number - 1, 1)[:, :number]

    def _by_nearest(self, rows: np.ndarray, distance: np.ndarray, least: np.ndarray) -> np.ndarray:
        """Return the expected number from the distances of training rows nearby to their nearest
        row, (N,); 0 for rows outside of small groups.

        In a small group, the nearest row is in the group, and most rows around it are not. If the
        training rows nearby also have such close rows, their distances are the reference. The
        volume up to the nearest row has an exponential distribution; the dimension follows from its
        quartiles. Equal rows are copies, unless training rows are also equal to three others.
        """
        expected = np.zeros(len(rows))
        rounding = 1e-6 * np.sqrt((rows.astype(np.float64) ** 2).sum(1))
        for part, others in self._others(rows):
            apart, step = distance[part], least[part]
            low, high = np.maximum(
                np.quantile(self._firsts[others], (0.25, 0.75), axis=1), np.maximum(step, 1e-300)
            )
            dimension = np.minimum(
                SAFE * math.log(FIRST[1] / FIRST[0]) / np.maximum(np.log(high / low), 1e-3), MOST
            )
            number = self._weight * FIRST[0] * np.minimum(apart / low, 10.0) ** dimension
            repeated = np.median(self._thirds[others], axis=1) <= step + rounding[part]
            grouped = self._close[others].mean(1) >= SHARE
            expected[part] = np.where(
                apart <= step, np.where(repeated, np.inf, 0.0), np.where(grouped, number, 0.0)
            )
        return expected

    def _by_others(self, rows: np.ndarray, distance: np.ndarray, step: np.ndarray) -> np.ndarray:
        """Return the expected number from the distances of training rows nearby to their second
        nearest row, (N,).

        Noise has a higher dimension than the signal, but dominates only at small distances. The
        volume up to the second nearest row has a gamma distribution with shape 2; the dimension at
        that distance follows from its quartiles.
        """
        if len(self._some) < 2 * OTHERS:
            return np.full(len(rows), np.inf)
        expected = np.empty(len(rows))
        for part, others in self._others(rows):
            low, high = np.maximum(np.quantile(self._seconds[others], (0.25, 0.75), axis=1), 1e-300)
            dimension = np.minimum(
                SAFE * math.log(QUARTILES[1] / QUARTILES[0]) / np.maximum(np.log(high / low), 1e-3),
                MOST,
            )
            number = (
                self._weight * QUARTILES[0] * np.minimum(distance[part] / low, 1.0) ** dimension
            )
            expected[part] = np.where(low > STEPS * step[part], number, np.inf)
        return expected


@final
class Resolution:
    """Estimate the smallest difference between two different rows.

    Values of a cell may be on a grid, such as whole numbers or prices in cents. Without a grid,
    many rows may share a value by chance, such as 0; its step is the median distance to the other
    values. All other values are exact to float32.

    Args:
        sample: training rows, (n, cells).

    >>> Resolution(np.arange(10.0)[:, None]).of(np.array([[3.0]]))
    array([1.])
    """

    def __init__(self, sample: np.ndarray) -> None:
        width = sample.shape[1]
        self._columns = np.unique(np.linspace(0, width - 1, min(width, COLUMNS)).astype(np.int64))
        self._cells = [_steps(sample[:, i]) for i in self._columns]

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Return the step of each row, (N,)."""
        steps = np.full(len(rows), np.inf)
        for column, (step, atoms) in zip(self._columns, self._cells, strict=True):
            values = rows[:, column]
            widths = (
                np.full(len(rows), step) if step else np.spacing(np.abs(values)).astype(np.float64)
            )
            for value, gap in atoms:
                widths[values == value] = gap
            steps = np.minimum(steps, widths)
        return steps


def _steps(column: np.ndarray) -> tuple[float, list[tuple[float, float]]]:
    """Return the step between values of a cell (0: that of float32), and (value, step) of values
    that many rows share."""
    values, counts = np.unique(column, return_counts=True)
    if len(values) < 2:
        return np.inf, []
    gaps = np.unique(np.diff(values.astype(np.float64)))
    for gap in gaps[:5]:
        places = (values - values[0]) / gap
        if places[-1] < 1e6 and np.median(np.abs(places - np.rint(places))) < 0.02:
            return float(gap), []
    shared = values[counts >= max(3, ATOM * len(column))]
    return 0.0, [(float(v), float(np.median(np.abs(column[column != v] - v)))) for v in shared]


# -- how rows are compared -------------------------------------------------------------------------


class View(ABC):
    """Transform rows to vectors whose distances are compared."""

    def __init__(self, width: int) -> None:
        self._planes = None
        if width > SKETCH:
            self._planes = (
                numpy_generator(width, "sketch").normal(size=(width, SKETCH)) / math.sqrt(SKETCH)
            ).astype(np.float32)

    @abstractmethod
    def of(self, rows: np.ndarray) -> np.ndarray:
        """Return vectors, (N, width)."""

    @abstractmethod
    def step(self, rows: np.ndarray) -> np.ndarray:
        """Return the smallest distance between two different vectors, (N,); infinite for rows whose
        equality is not informative."""

    def sketch(self, vectors: np.ndarray) -> np.ndarray:
        """Return random projections of vectors, (N, SKETCH or fewer), with about the same distances
        (Johnson and Lindenstrauss 1984)."""
        return vectors if self._planes is None else vectors @ self._planes


@final
class Plain(View):
    """Compare rows cell by cell.

    Args:
        space: of the data.
        sample: training rows, (n, *cells).
    """

    def __init__(self, space: Space, sample: np.ndarray) -> None:
        flat = sample.reshape(len(sample), -1)
        super().__init__(flat.shape[1])
        self._divisor = flat.std(0) if space.tabular else np.ones(flat.shape[1], np.float32)
        self._divisor[self._divisor == 0] = 1
        whole = space.discrete and not space.tabular
        self._resolution = None if whole else Resolution(flat / self._divisor)

    def of(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(rows.reshape(len(rows), -1) / self._divisor)

    def step(self, rows: np.ndarray) -> np.ndarray:
        return (
            np.ones(len(rows)) if self._resolution is None else self._resolution.of(self.of(rows))
        )


@final
class Coarse(View):
    """Compare images at a low resolution, without their brightness and contrast.

    Args:
        sample: training images, (n, C, H, W).
    """

    def __init__(self, sample: np.ndarray) -> None:
        pooled = _pooled(sample, COARSE)
        super().__init__(pooled.shape[1])
        self._least = 0.1 * float(np.median(pooled.std(1))) or 1e-6

    def of(self, rows: np.ndarray) -> np.ndarray:
        pooled = _pooled(rows, COARSE)
        return (pooled - pooled.mean(1, keepdims=True)) / (
            pooled.std(1, keepdims=True) + np.float32(self._least)
        )

    def step(self, rows: np.ndarray) -> np.ndarray:
        pooled = _pooled(rows, COARSE)
        deviation = pooled.std(1)
        # images of one colour are not compared
        return np.where(deviation > 1e-3 * self._least, STEP / (deviation + self._least), np.inf)


@final
class Fine(View):
    """Compare images by the difference between each pixel and its neighbours.

    Args:
        sample: training images, (n, C, H, W).
    """

    def __init__(self, sample: np.ndarray) -> None:
        detail = _detail(sample)
        super().__init__(detail.shape[1])
        self._least = 0.1 * float(np.median(np.sqrt((detail**2).mean(1)))) or 1e-6

    def of(self, rows: np.ndarray) -> np.ndarray:
        detail = _detail(rows)
        return np.asarray(
            detail / np.sqrt((detail**2).mean(1, keepdims=True) + np.float32(self._least**2))
        )

    def step(self, rows: np.ndarray) -> np.ndarray:
        return np.full(len(rows), STEP)


def views_of(space: Space, sample: np.ndarray) -> tuple[View, ...]:
    """Return the views in which rows are compared: two for images of many levels, otherwise one.

    Args:
        space: of the data.
        sample: training rows, (n, *cells).

    >>> import vaestro as vs
    >>> rows = vs.load(np.random.default_rng(0).normal(size=(100, 3))).train
    >>> len(views_of(rows.space, rows.values[:50]))
    1
    """
    if (
        space.image
        and sample.ndim == 4
        and space.cells >= 16
        and (not space.discrete or space.levels >= BRIGHT)
    ):
        return Coarse(sample), Fine(sample)
    return (Plain(space, sample),)


def _pooled(images: np.ndarray, side: int) -> np.ndarray:
    """Return the means of at most side x side blocks of images (N, C, H, W), flattened."""
    for axis in (2, 3):
        size = images.shape[axis]
        if size <= side:
            continue
        starts = np.linspace(0, size, side + 1).astype(np.int64)[:-1]
        width = np.diff(np.append(starts, size)).astype(np.float32)
        images = np.add.reduceat(images, starts, axis) / (width[:, None] if axis == 2 else width)
    return images.reshape(len(images), -1)


def _detail(images: np.ndarray) -> np.ndarray:
    """Return images (N, C, H, W), at most FINE x FINE, minus the mean of the 3 x 3 pixels around
    each pixel, flattened."""
    height, width = (min(FINE, size) for size in images.shape[2:])
    images = _pooled(images, FINE).reshape(*images.shape[:2], height, width)
    around = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)), "edge")
    around = around[:, :, :-2] + around[:, :, 1:-1] + around[:, :, 2:]
    around = around[..., :-2] + around[..., 1:-1] + around[..., 2:]
    return (images - around / 9).reshape(len(images), -1)
