"""Compare drawn tables with real ones: shapes of columns, trends of pairs, and use for prediction.

    shape of a column      1 - KS distance of numbers, 1 - total variation distance of categories
    trend of a pair        1 - |difference of the correlations| / 2 for two numbers, else 1 - total
                           variation distance of the joint frequencies, with numbers in ten bins
    utility                of a classifier or a regression that is trained on drawn rows: the area
                           under the ROC curve, or R^2, on real test rows

All are at most 1. Shapes and pairs are 0 or more. This module does not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import TypeAlias, final

import numpy as np

Columns: TypeAlias = Mapping[str, np.ma.MaskedArray]

FEW = 10  # numbers with at most this number of distinct values are categories
BINS = 10  # of numbers in a pair with categories: deciles of the real data
EMPTY = "empty"  # the category of empty cells


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
    _check(real, drawn)
    categories = [name for name in real if is_category(real[name])]
    shapes = {
        name: 1
        - (
            _variation([real[name]], [drawn[name]])
            if name in categories
            else ks_distance(real[name], drawn[name])
        )
        for name in real
    }
    edges = {name: _edges(real[name]) for name in real if name not in categories}
    coded = [
        {
            name: table[name] if name in categories else _binned(table[name], edges[name])
            for name in real
        }
        for table in (real, drawn)
    ]
    pairs = {}
    for a, b in combinations(real, 2):
        if a in categories or b in categories:
            distance = _variation(*([table[a], table[b]] for table in coded))
        else:
            distance = abs(_correlation(real[a], real[b]) - _correlation(drawn[a], drawn[b])) / 2
        pairs[a, b] = 1 - distance
    return Fidelity(shapes, pairs)


def utility(train: Columns, test: Columns, target: str) -> float:
    """Return how well gradient boosting that is trained on some rows predicts real test rows: the
    area under the ROC curve of a category (for more than two, the mean over one against the rest),
    or R^2 of a number.

    Rows without the target are left out. A class of the test rows that no training row has is
    predicted with probability 0.

    Args:
        train: drawn or real rows to learn from.
        test: real rows.
        target: the column to predict.

    Raises:
        ValueError: there is no such column, or the test rows have only one class.
        ModuleNotFoundError: scikit-learn is not installed (the extra `sklearn`).

    >>> size = np.linspace(0, 1, 200)
    >>> rows = {"size": np.ma.array(size), "large": np.ma.array(size > 0.5)}
    >>> utility(rows, rows, "large")
    1.0
    """
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.metrics import r2_score, roc_auc_score

    _check(test, train)
    if target not in test:
        raise ValueError(f"expected a target among the columns {', '.join(test)}; got {target!r}")
    train, test = (_without_empty(table, target) for table in (train, test))
    inputs, others, coded = _inputs(train, test, target)
    settings = {"categorical_features": coded, "random_state": 0}
    if not is_category(test[target]):
        wanted, held = (_numbers(table[target]) for table in (train, test))
        regression = HistGradientBoostingRegressor(**settings).fit(inputs, wanted)
        return float(r2_score(held, regression.predict(others)))
    classes, held = np.unique(_words(test[target]), return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"expected two classes of {target!r} in the test rows; got {classes[0]}")
    words = _words(train[target])
    known = np.isin(words, classes)
    chances = np.zeros((len(others), len(classes)))
    if len(np.unique(words[known])) > 1:
        model = HistGradientBoostingClassifier(**settings).fit(inputs[known], words[known])
        chances[:, np.searchsorted(classes, model.classes_)] = model.predict_proba(others)
    kinds = range(1, 2) if len(classes) == 2 else range(len(classes))
    return float(np.mean([roc_auc_score(held == k, chances[:, k]) for k in kinds]))


def ks_distance(real: np.ma.MaskedArray, drawn: np.ma.MaskedArray) -> float:
    """Return the Kolmogorov-Smirnov distance of two columns of numbers or dates: the largest
    difference of their distribution functions. If it is larger, the difference of the shares of
    empty cells.

    >>> ks_distance(np.ma.array([1.0, 2.0]), np.ma.array([2.0, 3.0]))
    0.5
    """
    a, b = (np.sort(_numbers(column)) for column in (real, drawn))
    empty = abs(float(np.ma.getmaskarray(real).mean() - np.ma.getmaskarray(drawn).mean()))
    if not len(a) or not len(b):
        return 1.0 if len(a) or len(b) else 0.0
    at = np.concatenate([a, b])
    below = [np.searchsorted(x, at, side="right") / len(x) for x in (a, b)]
    return max(empty, float(np.abs(below[0] - below[1]).max()))


def is_category(column: np.ma.MaskedArray) -> bool:
    """Return whether a column has categories: text, truth values, or at most ten distinct numbers.

    >>> is_category(np.ma.array([True, False]))
    True
    """
    if column.dtype.kind in "UOb":
        return True
    return column.dtype.kind != "M" and len(np.unique(column.compressed())) <= FEW


def _check(real: Columns, drawn: Columns) -> None:
    lacking = [name for name in real if name not in drawn]
    if lacking:
        raise ValueError(f"expected a column {lacking[0]!r}; got {', '.join(list(drawn)[:12])}")
    for table in (real, drawn):
        if not table or not len(next(iter(table.values()))):
            raise ValueError("expected tables with rows; got one without")


def _numbers(column: np.ma.MaskedArray) -> np.ndarray:
    """Return the values that are not empty as float64; dates as microseconds."""
    values = column.compressed()
    if values.dtype.kind == "M":
        values = values.astype("datetime64[us]").astype(np.int64)
    return values.astype(np.float64)


def _words(column: np.ma.MaskedArray) -> np.ndarray:
    """Return a column of categories as text; whole floats without a fraction, as integers are."""
    data = np.asarray(column.data)
    if data.dtype.kind == "f" and (data == np.rint(data))[~np.ma.getmaskarray(column)].all():
        data = np.where(np.ma.getmaskarray(column), 0, data).astype(np.int64)
    return np.where(np.ma.getmaskarray(column), EMPTY, data.astype(str))


def _variation(real: list[np.ma.MaskedArray], drawn: list[np.ma.MaskedArray]) -> float:
    """Return the total variation distance of the joint frequencies of some columns."""
    tables = [np.stack([_words(c) for c in columns], 1) for columns in (real, drawn)]
    _, codes = np.unique(np.concatenate(tables), axis=0, return_inverse=True)
    codes, n = codes.ravel(), len(tables[0])
    size = int(codes.max()) + 1
    shares = [np.bincount(part, minlength=size) / len(part) for part in (codes[:n], codes[n:])]
    return float(0.5 * np.abs(shares[0] - shares[1]).sum())


def _edges(column: np.ma.MaskedArray) -> np.ndarray:
    """Return the inner edges of the bins of a column of numbers: its distinct deciles."""
    numbers = _numbers(column)
    return np.unique(np.quantile(numbers, np.arange(1, BINS) / BINS)) if len(numbers) else numbers


def _binned(column: np.ma.MaskedArray, edges: np.ndarray) -> np.ma.MaskedArray:
    """Return the bins of a column of numbers."""
    mask = np.ma.getmaskarray(column)
    bins = np.zeros(len(column), np.int64)
    bins[~mask] = np.searchsorted(edges, _numbers(column), side="right")
    return np.ma.MaskedArray(bins, mask)


def _correlation(a: np.ma.MaskedArray, b: np.ma.MaskedArray) -> float:
    """Return the correlation over rows that have both; 0 if one is constant."""
    seen = ~(np.ma.getmaskarray(a) | np.ma.getmaskarray(b))
    x, y = _numbers(a[seen]), _numbers(b[seen])
    if len(x) < 2 or not np.ptp(x) or not np.ptp(y):
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])


def _without_empty(table: Columns, target: str) -> Columns:
    """Return the rows that have the target."""
    seen = ~np.ma.getmaskarray(table[target])
    return {name: column[seen] for name, column in table.items()}


def _inputs(
    train: Columns, test: Columns, target: str
) -> tuple[np.ndarray, np.ndarray, list[bool]]:
    """Return the inputs of the training and of the test rows, (N, columns), and which of them are
    codes of categories. Empty cells are NaN."""
    tables: list[list[np.ndarray]] = [[], []]
    coded = []
    for name in test:
        if name == target:
            continue
        pair = [table[name] for table in (train, test)]
        if is_category(test[name]):
            words = [_words(column) for column in pair]
            names, times = np.unique(np.concatenate(words), return_counts=True)
            names = names[np.argsort(-times, kind="stable")][:254]  # the most that boosting takes
            codes = {word: float(i) for i, word in enumerate(names.tolist())}
            filled = [np.array([codes.get(w, np.nan) for w in part.tolist()]) for part in words]
            coded.append(True)
        else:
            filled = []
            for column in pair:
                values = np.full(len(column), np.nan)
                values[~np.ma.getmaskarray(column)] = _numbers(column)
                filled.append(values)
            coded.append(False)
        for table, values in zip(tables, filled, strict=True):
            table.append(values)
    first, second = (np.stack(table, 1) for table in tables)
    return first, second, coded
