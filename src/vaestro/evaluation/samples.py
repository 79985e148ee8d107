"""Compare drawn tables with real ones: shapes of columns and trends of pairs.

    shape of a column      1 - KS distance of numbers, 1 - total variation distance of categories
    trend of a pair        1 - |difference of the correlations| / 2 for two numbers, else 1 - total
                           variation distance of the joint frequencies, with numbers in ten bins

Both are between 0 and 1. This module does not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeAlias, final

import numpy as np

from vaestro.frames import Frame

Columns: TypeAlias = Mapping[str, np.ma.MaskedArray]

FEW = 10  # numbers with at most this number of distinct values are categories
BINS = 10  # of numbers in a pair with categories: deciles of the real data
EMPTY = "empty"  # the category of empty cells
PAIRED = 40  # largest number of columns whose pairs are compared
DENSE = 4096  # largest number of joint codes of a pair that are not renumbered
CONSTANT = 1e-10  # variance of a standardised column, below which it is constant


@final
@dataclass(frozen=True)
class Fidelity:
    """Hold how close drawn rows are to real ones.

    Args:
        shapes: 1 - distance of each column, by name.
        pairs: 1 - distance of each pair of columns.

    >>> Fidelity({"a": 1.0, "b": 0.5}, {("a", "b"): 0.75}).shape
    0.75
    """

    shapes: Mapping[str, float]
    pairs: Mapping[tuple[str, str], float]

    @property
    def shape(self) -> float:
        """Return the mean over columns."""
        return float(np.mean(list(self.shapes.values())))

    @property
    def pair(self) -> float:
        """Return the mean over pairs; 1 for a table of one column."""
        return float(np.mean(list(self.pairs.values()))) if self.pairs else 1.0


def fidelity(real: Columns, drawn: Columns) -> Fidelity:
    """Compare the columns of drawn rows, and their pairs, with those of real rows.

    Args:
        real, drawn: tables with the same columns.

    Raises:
        ValueError: a column of the real rows is missing in the drawn ones, or one table is empty.

    >>> rows = {"a": np.ma.array([1.5, 2.5]), "b": np.ma.array(["x", "y"])}
    >>> fidelity(rows, rows).shape, fidelity(rows, rows).pair
    (1.0, 1.0)
    """
    return Comparison(real, drawn).fidelity()


@final
class Comparison:
    """Compare two tables, with any weights of their rows, as a bootstrap needs.

    If there are more than PAIRED columns, the pairs are those of PAIRED columns at equal distances.

    Args:
        real, drawn: tables with the same columns.

    Raises:
        ValueError: a column of the real rows is missing in the drawn ones, or one table is empty.

    >>> rows = {"a": np.ma.array([1.5, 2.5]), "b": np.ma.array(["x", "y"])}
    >>> Comparison(rows, rows).fidelity((np.array([1, 1]), np.array([2, 0]))).shapes
    {'a': 0.5, 'b': 0.5}
    """

    def __init__(self, real: Columns, drawn: Columns) -> None:
        check_tables(real, drawn)
        self.sizes = tuple(len(next(iter(table.values()))) for table in (real, drawn))
        self.categories = {name for name in real if is_category(real[name])}
        self._fine = {
            name: _words_coded(real[name], drawn[name])
            if name in self.categories
            else _ranked(real[name], drawn[name])
            for name in real
        }
        places = np.unique(np.linspace(0, len(real) - 1, min(PAIRED, len(real))).astype(int))
        self.paired = [list(real)[i] for i in places]
        self.coarse = {
            name: self._fine[name] if name in self.categories else _binned(real[name], drawn[name])
            for name in self.paired
        }
        self._numeric = [name for name in self.paired if name not in self.categories]
        self._joint = {
            (a, b): _joint(self.coarse[a], self.coarse[b])
            for a, b in combinations(self.paired, 2)
            if a in self.categories or b in self.categories
        }
        self._standard = [_standardised(table, self._numeric) for table in (real, drawn)]

    def fidelity(self, weights: tuple[np.ndarray, np.ndarray] | None = None) -> Fidelity:
        """Return the shapes and pairs.

        Args:
            weights: of the real rows and of the drawn rows, 0 or more; by default 1 each.
        """
        first, second = weights or tuple(np.ones(n) for n in self.sizes)
        shapes = {}
        for name, codes in self._fine.items():
            shares = codes.shares(first, second)
            if name in self.categories:
                shapes[name] = 1 - _variation(shares)
            else:
                shapes[name] = 1 - _ks(shares)
        correlations = [
            _correlations(x, seen, w)
            for (x, seen), w in zip(self._standard, (first, second), strict=True)
        ]
        apart = np.abs(correlations[0] - correlations[1]) / 2
        place = {name: i for i, name in enumerate(self._numeric)}
        pairs = {}
        for a, b in combinations(self.paired, 2):
            if (a, b) in self._joint:
                pairs[a, b] = 1 - _variation(self._joint[a, b].shares(first, second))
            else:
                pairs[a, b] = 1 - float(apart[place[a], place[b]])
        return Fidelity(shapes, pairs)


@final
@dataclass(frozen=True, eq=False)
class Codes:
    """Hold the codes of a column in two tables.

    Args:
        real, drawn: the codes, (rows,), from 0.
        size: how many codes there are.

    >>> Codes(np.array([0, 1, 1, 2]), np.array([2, 2]), 3).merged(2).real
    array([1, 0, 0, 1])
    """

    real: np.ndarray
    drawn: np.ndarray
    size: int

    def merged(self, most: int) -> Codes:
        """Return at most `most` codes: the most frequent ones of the real rows, and one for all
        others."""
        if self.size <= most:
            return self
        counts = np.bincount(self.real, minlength=self.size)
        codes = np.full(self.size, most - 1)
        codes[np.argsort(-counts, kind="stable")[: most - 1]] = np.arange(most - 1)
        return Codes(codes[self.real], codes[self.drawn], most)

    def shares(self, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the share of each code in both tables, by the weights of their rows."""
        counts = [
            np.bincount(codes, weights, self.size)
            for codes, weights in ((self.real, first), (self.drawn, second))
        ]
        return counts[0] / first.sum(), counts[1] / second.sum()


def _words_coded(real: np.ma.MaskedArray, drawn: np.ma.MaskedArray) -> Codes:
    """Return the codes of categories, of which an empty cell is one."""
    parts = [words_of(column) for column in (real, drawn)]
    names, codes = np.unique(np.concatenate(parts), return_inverse=True)
    return Codes(codes[: len(real)], codes[len(real) :], len(names))


def _ranked(real: np.ma.MaskedArray, drawn: np.ma.MaskedArray) -> Codes:
    """Return the ranks of numbers among the values of both tables; the last code is an empty
    cell."""
    parts = [numbers_of(column) for column in (real, drawn)]
    values, ranks = np.unique(np.concatenate(parts), return_inverse=True)
    codes = [np.full(len(column), len(values)) for column in (real, drawn)]
    for code, column, part in zip(
        codes, (real, drawn), np.split(ranks, [len(parts[0])]), strict=True
    ):
        code[~np.ma.getmaskarray(column)] = part
    return Codes(codes[0], codes[1], len(values) + 1)


def _binned(real: np.ma.MaskedArray, drawn: np.ma.MaskedArray) -> Codes:
    """Return the bins of numbers between the distinct deciles of the real ones; the last code is an
    empty cell."""
    numbers = numbers_of(real)
    edges = np.unique(np.quantile(numbers, np.arange(1, BINS) / BINS)) if len(numbers) else numbers
    codes = []
    for column in (real, drawn):
        bins = np.full(len(column), len(edges) + 1)
        bins[~np.ma.getmaskarray(column)] = np.searchsorted(edges, numbers_of(column), "right")
        codes.append(bins)
    return Codes(codes[0], codes[1], len(edges) + 2)


def _joint(a: Codes, b: Codes) -> Codes:
    """Return the codes of the pairs of values."""
    real, drawn = a.real * b.size + b.real, a.drawn * b.size + b.drawn
    if (size := a.size * b.size) > DENSE:
        values, codes = np.unique(np.concatenate([real, drawn]), return_inverse=True)
        real, drawn, size = codes[: len(real)], codes[len(real) :], len(values)
    return Codes(real.astype(np.int32), drawn.astype(np.int32), size)


def _variation(shares: tuple[np.ndarray, np.ndarray]) -> float:
    """Return the total variation distance of two sets of shares."""
    return float(0.5 * np.abs(shares[0] - shares[1]).sum())


def _ks(shares: tuple[np.ndarray, np.ndarray]) -> float:
    """Return the Kolmogorov-Smirnov distance of ranks; see `ks_distance`."""
    filled = [1 - float(part[-1]) for part in shares]
    if min(filled) <= 0:
        return 1.0 if max(filled) > 0 else 0.0
    below = [np.cumsum(part[:-1]) / some for part, some in zip(shares, filled, strict=True)]
    return max(abs(filled[0] - filled[1]), float(np.abs(below[0] - below[1]).max()))


def _standardised(table: Columns, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the standardised numbers of some columns, (N, columns), with 0 for empty cells, and
    the mask of the others."""
    columns = []
    for name in names:
        numbers, filled = numbers_of(table[name]), np.zeros(len(table[name]))
        spread = numbers.std() if len(numbers) else 0.0
        centred = numbers - numbers.mean() if len(numbers) else numbers
        filled[~np.ma.getmaskarray(table[name])] = centred / spread if spread > 0 else 0.0
        columns.append(filled)
    n = len(next(iter(table.values())))
    seen = [~np.ma.getmaskarray(table[name]) for name in names]
    return np.array(columns).reshape(-1, n).T, np.array(seen, float).reshape(-1, n).T


def _correlations(x: np.ndarray, seen: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the correlations of columns over the rows that have both, (columns, columns); 0 if a
    column is constant in these rows.

    Args:
        x: standardised numbers, (N, columns), 0 in empty cells.
        seen: 1 for cells that are not empty, (N, columns).
        weights: of the rows, (N,).
    """
    w = weights[:, None]
    n = np.maximum((w * seen).T @ seen, 1e-300)
    mean, square = (w * x).T @ seen / n, (w * x**2).T @ seen / n
    variance = square - mean**2
    product = (w * x).T @ x / n - mean * mean.T
    varies = (variance > CONSTANT) & (variance.T > CONSTANT)
    safe = np.where(varies, variance * variance.T, 1.0)
    return np.where(varies, product / np.sqrt(safe), 0.0)


def columns_of(
    values: np.ndarray | Frame, keep: Sequence[int] | None = None
) -> dict[str, np.ma.MaskedArray]:
    """Return data as columns by name; of arrays (N, ...) only the cells `keep`, by default all.

    >>> list(columns_of(np.zeros((5, 2, 2)), [1, 2]))
    ['[0, 1]', '[1, 0]']
    """
    if isinstance(values, Frame):
        return dict(values.columns)
    flat, shape = values.reshape(len(values), -1), values.shape[1:]
    chosen = range(flat.shape[1]) if keep is None else keep
    names = {
        i: ", ".join(str(j) for j in np.unravel_index(i, shape)) if shape else "0" for i in chosen
    }
    absent = np.isnan(flat) if flat.dtype.kind == "f" else np.zeros(flat.shape, bool)
    return {f"[{names[i]}]": np.ma.MaskedArray(flat[:, i], absent[:, i]) for i in chosen}


def ks_distance(real: np.ma.MaskedArray, drawn: np.ma.MaskedArray) -> float:
    """Return the Kolmogorov-Smirnov distance of two columns of numbers or dates: the largest
    difference of their distribution functions. If it is larger, the difference of the shares of
    empty cells.

    >>> ks_distance(np.ma.array([1.0, 2.0]), np.ma.array([2.0, 3.0]))
    0.5
    """
    return _ks(_ranked(real, drawn).shares(np.ones(len(real)), np.ones(len(drawn))))


def is_category(column: np.ma.MaskedArray) -> bool:
    """Return whether a column has categories: text, truth values, or at most ten distinct numbers.

    >>> is_category(np.ma.array([True, False]))
    True
    """
    if column.dtype.kind in "UOb":
        return True
    return column.dtype.kind != "M" and len(np.unique(column.compressed())) <= FEW


def check_tables(real: Columns, drawn: Columns) -> None:
    """Raise ValueError if a column of the real rows is missing in the drawn ones, or there are no
    rows.

    >>> check_tables({"a": np.ma.array([1])}, {"a": np.ma.array([2])})
    """
    lacking = [name for name in real if name not in drawn]
    if lacking:
        raise ValueError(f"expected a column {lacking[0]!r}; got {', '.join(list(drawn)[:12])}")
    for table in (real, drawn):
        if not table or not len(next(iter(table.values()))):
            raise ValueError("expected tables with rows; got one without")


def numbers_of(column: np.ma.MaskedArray) -> np.ndarray:
    """Return the values that are not empty as float64; dates as microseconds.

    >>> numbers_of(np.ma.array([1, 2], mask=[True, False]))
    array([2.])
    """
    values = column.compressed()
    if values.dtype.kind == "M":
        values = values.astype("datetime64[us]").astype(np.int64)
    return values.astype(np.float64)


def words_of(column: np.ma.MaskedArray) -> np.ndarray:
    """Return a column of categories as text; whole floats without a fraction, as integers are.

    >>> words_of(np.ma.array([1.0, 2.0], mask=[True, False]))
    array(['empty', '2'], dtype='<U21')
    """
    data = np.asarray(column.data)
    if data.dtype.kind == "f" and (data == np.rint(data))[~np.ma.getmaskarray(column)].all():
        data = np.where(np.ma.getmaskarray(column), 0, data).astype(np.int64)
    return np.where(np.ma.getmaskarray(column), EMPTY, data.astype(str))
