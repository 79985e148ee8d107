"""Learn from drawn rows, and tell them from real ones, by gradient boosting.

    utility                of a classifier or a regression that is trained on drawn rows: the area
                           under the ROC curve, or R^2, on real test rows
    detection              of drawn rows among real ones: the area under the ROC curve of a
                           classifier, cross-validated; 0.5 if they cannot be told apart

This module does not import torch. It needs scikit-learn (the extra `sklearn`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from vaestro.evaluation.samples import Columns, check_tables, is_category, numbers_of, words_of

FOLDS = 5  # of the cross-validation
LEAF = 20  # smallest number of rows in a leaf, if there are twenty times as many
CODES = 254  # most categories of an input that boosting takes; all others count as empty


@final
@dataclass(frozen=True, eq=False)
class Predictions:
    """Hold predictions of test rows, to be scored with any weights of the rows.

    Args:
        held: class numbers, or numbers, of the test rows, (N,).
        predicted: scores of each class, (N, classes), or predicted numbers, (N, 1).
        parts: arrays of row numbers that are scored one by one, such as folds; their mean counts.
        classes: the classes to rank against the others; none for numbers.

    >>> held, scores = np.array([0, 0, 1]), np.array([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7]])
    >>> Predictions(held, scores, (np.arange(3),), (1,)).score()
    1.0
    """

    held: np.ndarray
    predicted: np.ndarray
    parts: tuple[np.ndarray, ...]
    classes: tuple[int, ...] = ()

    def score(self, weights: np.ndarray | None = None) -> float:
        """Return the area under the ROC curve, the mean over classes, or R^2 of numbers.

        Args:
            weights: of the test rows, (N,), 0 or more; by default 1 each.
        """
        w = np.ones(len(self.held)) if weights is None else weights
        if not self.classes:
            mean = np.average(self.held, weights=w)
            errors, spread = (self.held - self.predicted[:, 0]) ** 2, (self.held - mean) ** 2
            return float(1 - (w * errors).sum() / max((w * spread).sum(), 1e-300))
        areas = [
            area_under_curve(self.held[part] == k, self.predicted[part, k], w[part])
            for part in self.parts
            for k in self.classes
        ]
        known = [area for area in areas if not np.isnan(area)]
        return float(np.mean(known)) if known else 0.5


def area_under_curve(own: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> float:
    """Return the area under the ROC curve: the share of pairs of a positive and a negative row in
    which the positive one has the higher score, where equal scores count as half; NaN without both.

    Args:
        own: which rows are positive, (N,).
        scores, weights: of the rows, (N,).

    >>> area_under_curve(np.array([False, True, True]), np.array([0.2, 0.2, 0.5]), np.ones(3))
    0.75
    """
    values, codes = np.unique(scores, return_inverse=True)
    positive, negative = (np.bincount(codes, weights * part, len(values)) for part in (own, ~own))
    total = positive.sum() * negative.sum()
    if not total:
        return float("nan")
    below = np.cumsum(negative) - negative
    return float((positive * (below + negative / 2)).sum() / total)


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
    return predicted(train, test, target).score()


def predicted(train: Columns, test: Columns, target: str) -> Predictions:
    """Return the predictions of a column of test rows: see `utility`.

    >>> size = np.linspace(0, 1, 200)
    >>> rows = {"size": np.ma.array(size), "large": np.ma.array(size > 0.5)}
    >>> predicted(rows, rows, "large").predicted.shape
    (200, 2)
    """
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    check_tables(test, train)
    if target not in test:
        raise ValueError(f"expected a target among the columns {', '.join(test)}; got {target!r}")
    train, test = (_without_empty(table, target) for table in (train, test))
    inputs, others, coded = _inputs(train, test, target)
    settings = {"categorical_features": coded, "random_state": 0}
    every = (np.arange(len(others)),)
    if not is_category(test[target]):
        known, held = (numbers_of(table[target]) for table in (train, test))
        regression = HistGradientBoostingRegressor(**settings).fit(inputs, known)
        return Predictions(held, regression.predict(others)[:, None], every)
    classes, held = np.unique(words_of(test[target]), return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"expected two classes of {target!r} in the test rows; got {classes[0]}")
    words = words_of(train[target])
    known = np.isin(words, classes)
    chances = np.zeros((len(others), len(classes)))
    if len(np.unique(words[known])) > 1:
        model = HistGradientBoostingClassifier(**settings).fit(inputs[known], words[known])
        chances[:, np.searchsorted(classes, model.classes_)] = model.predict_proba(others)
    ranked = (1,) if len(classes) == 2 else tuple(range(len(classes)))
    return Predictions(held, chances, every, ranked)


def detected(real: Columns, drawn: Columns) -> Predictions:
    """Return cross-validated scores of a classifier that tells drawn rows (1) from real ones (0).

    The rows are real ones and then as many drawn ones. They are expected in random order.

    Args:
        real, drawn: tables with the same columns.

    Raises:
        ValueError: a column of the real rows is missing in the drawn ones, or one table is empty.
        ModuleNotFoundError: scikit-learn is not installed (the extra `sklearn`).

    >>> rows = {"a": np.ma.array(np.linspace(0, 1, 100))}
    >>> round(detected(rows, {"a": rows["a"] + 2}).score(), 2)
    1.0
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    check_tables(real, drawn)
    n = min(len(next(iter(table.values()))) for table in (real, drawn))
    real, drawn = ({name: table[name][:n] for name in real} for table in (real, drawn))
    second, first, coded = _inputs(drawn, real)
    inputs, held = np.concatenate([first, second]), np.repeat([0, 1], n)
    fold = np.tile(np.arange(n) % FOLDS, 2)
    scores = np.zeros((2 * n, 2))
    for k in range(min(FOLDS, n)):
        model = HistGradientBoostingClassifier(
            categorical_features=coded,
            random_state=0,
            min_samples_leaf=max(1, min(LEAF, n // LEAF)),
        ).fit(inputs[fold != k], held[fold != k])
        scores[fold == k] = model.predict_proba(inputs[fold == k])
    return Predictions(held, scores, tuple(np.flatnonzero(fold == k) for k in range(FOLDS)), (1,))


def _without_empty(table: Columns, target: str) -> Columns:
    """Return the rows that have the target."""
    seen = ~np.ma.getmaskarray(table[target])
    return {name: column[seen] for name, column in table.items()}


def _inputs(
    train: Columns, test: Columns, target: str | None = None
) -> tuple[np.ndarray, np.ndarray, list[bool]]:
    """Return the inputs of the training and of the test rows, (N, columns), and which of them are
    codes of categories. Empty cells are NaN."""
    tables: list[list[np.ndarray]] = [[], []]
    coded = []
    for name in test:
        if name == target:
            continue
        pair = [table[name] for table in (train, test)]
        coded.append(is_category(test[name]))
        for table, values in zip(tables, _coded(pair) if coded[-1] else _filled(pair), strict=True):
            table.append(values)
    shape = [(len(next(iter(table.values()))), len(coded)) for table in (train, test)]
    first, second = (np.array(t).T.reshape(s) for t, s in zip(tables, shape, strict=True))
    return first, second, coded


def _coded(pair: Sequence[np.ma.MaskedArray]) -> list[np.ndarray]:
    """Return categories as codes, the most frequent first; NaN for rare ones."""
    words = [words_of(column) for column in pair]
    names, codes, times = np.unique(np.concatenate(words), return_inverse=True, return_counts=True)
    ranks = np.full(len(names), np.nan)
    order = np.argsort(-times, kind="stable")[:CODES]
    ranks[order] = np.arange(len(order))
    return np.split(ranks[codes], [len(words[0])])


def _filled(pair: Sequence[np.ma.MaskedArray]) -> list[np.ndarray]:
    """Return numbers with NaN in empty cells."""
    columns = []
    for column in pair:
        values = np.full(len(column), np.nan)
        values[~np.ma.getmaskarray(column)] = numbers_of(column)
        columns.append(values)
    return columns
