"""The distance of rows to the nearest training row, which shows copies of training rows.

The distance of two rows is the root of the mean over columns of squared distances of cells. That of
two numbers is the share of training rows between them. That of two categories, and of a number and
an empty cell, is 1 if they differ.
"""

from __future__ import annotations

from typing import final

import numpy as np

from vaestro.data.neighbours import nearest
from vaestro.evaluation.samples import Columns, is_category, numbers_of, words_of
from vaestro.randomness import numpy_generator

ALIKE = 0.01  # largest distance of a row that is called nearly a copy
ONE_HOT = 32  # categories with at most this many values are one-hot, others random vectors


@final
class TrainingRows:
    """Find the nearest training row of rows.

    Args:
        train: the training rows.

    >>> train = {"a": np.ma.array(np.arange(20.0)), "b": np.ma.array(["x", "y"] * 10)}
    >>> rows = {"a": np.ma.array([2.0, 2.0]), "b": np.ma.array(["x", "y"])}
    >>> TrainingRows(train).distances(rows).round(4)
    array([0.    , 0.0354])
    """

    def __init__(self, train: Columns) -> None:
        self._train = train
        self._categories = {name for name in train if is_category(train[name])}
        self._cells = self._of(train)
        self._names = {
            name: np.unique(words_of(train[name])) for name in train if name in self._categories
        }
        self._view = self._seen(self._cells)

    def distances(self, rows: Columns) -> np.ndarray:
        """Return the distance of each row to its nearest training row, (N,)."""
        cells = self._of(rows)
        partner, _ = nearest(self._seen(cells), self._view)
        squares = [
            (own != self._cells[name][partner]).astype(np.float64)
            if name in self._categories
            else np.minimum(np.abs(own - self._cells[name][partner]), 1) ** 2
            for name, own in cells.items()
        ]
        return np.asarray(np.sqrt(np.mean(squares, 0)))

    def _of(self, rows: Columns) -> dict[str, np.ndarray]:
        """Return categories as text, and numbers as shares of training rows below them; -1 if
        empty."""
        cells = {}
        for name in self._train:
            if name in self._categories:
                cells[name] = words_of(rows[name])
                continue
            known, values = np.sort(numbers_of(self._train[name])), numbers_of(rows[name])
            below, up_to = (np.searchsorted(known, values, side) for side in ("left", "right"))
            cells[name] = np.full(len(rows[name]), -1.0)
            cells[name][~np.ma.getmaskarray(rows[name])] = (below + up_to) / 2 / max(1, len(known))
        return cells

    def _seen(self, cells: dict[str, np.ndarray]) -> np.ndarray:
        """Return vectors, (N, width), whose distances are those of the rows times the root of the
        number of columns, or nearly for columns of many categories."""
        parts = []
        for name, own in cells.items():
            if name not in self._categories:
                parts.append(own[:, None])
                continue
            names = self._names[name]
            codes = np.minimum(np.searchsorted(names, own), len(names) - 1)
            codes = np.where(names[codes] == own, codes, len(names))
            vectors = np.eye(len(names) + 1)
            if len(vectors) > ONE_HOT:
                vectors = numpy_generator(0, "categories", name).normal(
                    size=(len(vectors), ONE_HOT)
                )
                vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            parts.append(vectors[codes] / np.sqrt(2))
        return np.concatenate(parts, 1)
