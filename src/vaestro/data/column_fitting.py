"""Fit one column of a table to the training rows: its codes and frequencies, or offset, scale and
grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from vaestro.data.lattices import allowed, lattice
from vaestro.data.marginals import TRANSFORMS, marginal
from vaestro.data.outliers import isolated_values
from vaestro.data.refusals import Unfit
from vaestro.spaces import COLUMNS, LARGEST_COUNT, Column, CountColumn, Kind, column_class, widths
from vaestro.spaces.grids import nearest

# largest isolated value in standard deviations: squares of larger ones overflow in float32
FARTHEST = 1e5
MICROSECONDS = 86400e6  # of a day


@final
@dataclass(frozen=True, eq=False)
class Cells:
    """Hold the cells of one column, before its kind is chosen.

    Args:
        name: of the column.
        column: the cells of all rows of all splits, with a mask of the empty ones.
        values: the distinct values, sorted.
        times: how often each occurs.
        train: the values of the training rows.
    """

    name: str
    column: np.ma.MaskedArray
    values: np.ndarray
    times: np.ndarray
    train: np.ndarray

    @classmethod
    def of(cls, name: str, column: np.ma.MaskedArray, train: np.ma.MaskedArray) -> Cells:
        """Return the cells of a column with at least one value in the training rows.

        >>> one = np.ma.array([3, 1, 3], mask=[False, False, True])
        >>> Cells.of("a", one, one).values.tolist()
        [1, 3]
        """
        values, times = np.unique(column.compressed(), return_counts=True)
        return cls(name, column, values, times, train.compressed())

    @property
    def missing(self) -> bool:
        """Return whether some cell is empty."""
        return bool(np.ma.getmaskarray(self.column).any())

    @property
    def dtype(self) -> str:
        """Return the user's dtype, "str" for text."""
        return "str" if self.values.dtype.kind == "U" else self.values.dtype.name

    @property
    def dates(self) -> bool:
        """Return whether the values are dates."""
        return self.values.dtype.kind == "M"


def fitted(
    cells: Cells, kind: Kind, values: np.ndarray, transforms: Sequence[str] = TRANSFORMS
) -> tuple[Column, np.ndarray]:
    """Return a column of a kind, and which of its distinct values lie off its grid, (n,), or none,
    (0,).

    Args:
        cells: the data of the column.
        kind: of the column.
        values: the distinct values; of ordered categories in increasing order, which may contain
            values that no row has.
        transforms: the marginal transforms to choose from; none for neither transform nor atoms.

    Raises:
        Unfit: a column of this kind cannot contain the values.

    >>> one = np.ma.array([3.0, 1.0])
    >>> cells = Cells.of("a", one, one)
    >>> fitted(cells, Kind.BINARY, cells.values)[0].start
    (0.5, 0.5)
    """
    if COLUMNS[kind].coded:
        return _coded(cells, COLUMNS[kind], values), np.zeros(0, bool)
    if cells.dtype == "str":
        raise Unfit(
            f"numbers in column {cells.name!r} for {kind}=", f"text, such as {values[0][:30]!r}"
        )
    return FITS[kind](cells, transforms)


def _coded(cells: Cells, column: type[Column], values: np.ndarray) -> Column:
    """Return a column of codes with their frequencies, each value counted once more."""
    if column.sizes and len(values) not in column.sizes:
        raise Unfit(f"two values in column {cells.name!r} for {column.kind}=", f"{len(values):,}")
    sorter = np.argsort(values)
    codes = sorter[np.searchsorted(values, cells.train, sorter=sorter)]
    counts = np.bincount(codes, minlength=len(values)) + 1
    shares = counts / (len(cells.train) + len(values))
    labels = values.astype(str) if cells.dates else values
    return column(
        cells.name,
        cells.dtype,
        tuple(labels.tolist()),
        start=tuple(shares.tolist()),
        missing=cells.missing,
    )


def _count(cells: Cells, transforms: Sequence[str]) -> tuple[Column, np.ndarray]:
    """Return a column of counts. A few fractions are allowed; the model rounds them."""
    values, none = cells.values, np.zeros(0, bool)
    off = values != np.rint(values) if values.dtype.kind == "f" else none
    strays = bool(off.any()) and cells.times[off].sum() <= allowed(cells.times)
    wrong = values
    if not cells.dates:
        fraction = (values != np.rint(values)) & (not strays)
        wrong = values[(values < 0) | (values > LARGEST_COUNT) | fraction]
    if len(wrong):
        raise Unfit(
            f"whole numbers of 0 .. {LARGEST_COUNT:,} in column {cells.name!r} for count=",
            f"{wrong[0]}",
        )
    counts = np.rint(_bulk(cells.train).astype(np.float64))
    logs = np.log1p(counts)
    column = CountColumn(
        cells.name,
        cells.dtype,
        offset=float(logs.mean()),
        scale=float(logs.std()) or 1.0,
        start=(float(counts.mean()),),
        missing=cells.missing,
        strays=strays,
        limits=(float(cells.train.min()), float(cells.train.max())),
    )
    return column, off if strays else none


def _real(cells: Cells, transforms: Sequence[str]) -> tuple[Column, np.ndarray]:
    """Return a column of real numbers or dates, standardised, with its grid and its marginal
    distribution."""
    values, train, day = cells.values, cells.train, 1.0
    if cells.dates:  # whole days or microseconds here, and days in the column
        whole = cells.dtype == "datetime64[D]"
        unit, day = ("datetime64[D]", 1.0) if whole else ("datetime64[us]", MICROSECONDS)
        values, train = values.astype(unit).astype(np.int64), train.astype(unit).astype(np.int64)
    bulk = _bulk(train)
    offset = float(bulk.mean(dtype=np.float64))
    farthest = float(np.abs(train.astype(np.float64) - offset).max())
    scale = max(float(bulk.std(dtype=np.float64)), farthest / FARTHEST) or 1.0
    grid = lattice(values, cells.times, scale)
    numbers = train.astype(np.float64)
    if grid.strays:
        numbers = nearest(numbers, grid.step, grid.origin)
    width = float(widths(grid.step, scale))
    try:
        shape = marginal(numbers, width, offset, scale, transforms)
    except ValueError:
        raise Unfit(
            f"values in the range of {transforms[0]}= in column {cells.name!r}",
            f"some from {cells.values[0]} to {cells.values[-1]}",
            f"without {transforms[0]}=, a transform is chosen by the data",
        ) from None
    column = column_class(Kind.REAL, cells.dtype)(
        cells.name,
        cells.dtype,
        offset=offset / day,
        scale=scale / day,
        resolution=grid.step / day,
        missing=cells.missing,
        origin=grid.origin / day,
        atoms=grid.atoms,
        strays=grid.strays,
        transform=shape.transform,
        numbers=shape.numbers,
        points=tuple(point / day for point in shape.points),
        start=shape.shares,
        limits=(float(train.min()) / day, float(train.max()) / day),
    )
    return column, grid.off


# kinds of numbers; other kinds are codes
FITS: Mapping[Kind, Callable[[Cells, Sequence[str]], tuple[Column, np.ndarray]]] = {
    Kind.REAL: _real,
    Kind.COUNT: _count,
}


def _bulk(values: np.ndarray) -> np.ndarray:
    """Return the values without isolated ones, which would squeeze all others into a small part of
    the standard deviation."""
    return np.delete(values, isolated_values(values))
