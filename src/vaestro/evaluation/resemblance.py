"""The comparison of drawn rows with held-out rows: its figures, and how they are printed.

Each figure of drawn rows has a reference, the same figure of as many training rows. Standard errors
are from a bootstrap over rows (Efron 1979). Models that learn from rows are not trained again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self, final

import numpy as np

from vaestro.evaluation.copies import ALIKE, TrainingRows
from vaestro.evaluation.fidelity import to_its_error
from vaestro.evaluation.prediction import Predictions, detected, predicted
from vaestro.evaluation.samples import Columns, Comparison, is_category
from vaestro.files import Json
from vaestro.randomness import numpy_generator

REPEATS = 100  # of the bootstrap
DETECTED = 50  # smallest number of rows on each side for a detector
NEAREST = 2000  # largest number of rows whose nearest training row is searched
WORST = 3  # number of columns and of pairs that are printed
CLASSES = 20  # largest number of classes of the default target


@final
@dataclass(frozen=True)
class Compared:
    """Hold a figure of drawn rows and of real rows, with standard errors.

    Args:
        drawn, real: the figure.
        drawn_stderr, real_stderr: their standard errors.
        difference_stderr: that of `drawn - real`.

    >>> Compared(0.9, 0.95, 0.01, 0.01, 0.01).sentence()
    '0.900 +- 0.010 (real rows 0.950 +- 0.010)'
    """

    drawn: float
    real: float
    drawn_stderr: float
    real_stderr: float
    difference_stderr: float

    @classmethod
    def of(cls, values: tuple[float, float], repeats: np.ndarray) -> Self:
        """Return the figures with the standard errors of their repetitions.

        Args:
            values: of drawn rows and of real rows.
            repeats: of the bootstrap, (REPEATS, 2).
        """
        drawn, real = repeats.std(0, ddof=1).tolist()
        apart = float((repeats[:, 0] - repeats[:, 1]).std(ddof=1))
        return cls(float(values[0]), float(values[1]), drawn, real, apart)

    def sentence(self, reference: str = "real rows") -> str:
        """Return both figures in words."""
        first, second = (
            to_its_error((mean, error))
            for mean, error in ((self.drawn, self.drawn_stderr), (self.real, self.real_stderr))
        )
        return f"{first} ({reference} {second})"

    def line(self) -> dict[str, Json]:
        """Return the entry in evaluation.json."""
        return {
            "drawn": {"mean": self.drawn, "stderr": self.drawn_stderr},
            "real": {"mean": self.real, "stderr": self.real_stderr},
            "difference": {"mean": self.drawn - self.real, "stderr": self.difference_stderr},
        }


@final
@dataclass(frozen=True, eq=False)
class Resemblance:
    """Hold how much drawn rows are like held-out rows.

    Args:
        n: number of drawn rows, and of training rows that are the reference.
        held_out: number of held-out rows.
        shapes, pairs: means over columns and over pairs; `pairs` is None for one column.
        columns: (drawn, real) of each column.
        trends: (drawn, real) of each pair.
        detector: area under the ROC curve of a classifier that tells them from held-out rows; None
            for too few rows.
        utility: of a model that is trained on them, on held-out rows; None without a target.
        target: the column that it predicts, and why this one; empty text without.
        area: whether the utility is an area under the ROC curve, and not R^2.
        distance: median distance to the nearest training row, of drawn and of held-out rows.
        copies: share of rows that are copies of a training row, or nearly.
        exact: share of drawn rows, and of held-out rows, that equal a training row.
        notes: sentences on numbers that need care.

    >>> from vaestro.evaluation.samples import columns_of
    >>> x = np.random.default_rng(0).normal(size=(3, 300, 2))
    >>> drawn, held, train = (columns_of(rows) for rows in x)
    >>> result = resemblance(drawn, held, train, train, ("[1]", "the last column"))
    >>> result.n, result.worst_pairs(), result.area
    (300, [('[0]', '[1]')], False)
    """

    n: int
    held_out: int
    shapes: Compared
    pairs: Compared | None
    columns: Mapping[str, tuple[float, float]]
    trends: Mapping[tuple[str, str], tuple[float, float]]
    detector: Compared | None
    utility: Compared | None
    target: tuple[str, str]
    area: bool
    distance: Compared
    copies: Compared
    exact: tuple[float, float]
    notes: tuple[str, ...] = ()

    def worst_columns(self) -> list[str]:
        """Return the columns, those furthest below the real rows first."""
        return sorted(self.columns, key=lambda name: _deficit(self.columns[name]))

    def worst_pairs(self) -> list[tuple[str, str]]:
        """Return the pairs of columns, those furthest below the real rows first."""
        return sorted(self.trends, key=lambda pair: _deficit(self.trends[pair]))

    def sentences(self, data: str) -> list[str]:
        """Return the figures in words, each with that of real rows in brackets."""
        lines = [
            f"{self.n:,} drawn rows against {data}; in brackets, {self.n:,} training rows against "
            f"the same",
            f"column shapes {self.shapes.sentence()}; worst: "
            + ", ".join(f"{c} {_both(self.columns[c])}" for c in self.worst_columns()[:WORST]),
        ]
        if self.pairs is not None:
            worst = [f"{a} and {b} {_both(self.trends[a, b])}" for a, b in self.worst_pairs()]
            lines.append(f"pair trends {self.pairs.sentence()}; worst: {', '.join(worst[:WORST])}")
        if self.detector is not None:
            lines.append(
                f"a detector of drawn rows has an AUC of {self.detector.sentence()}; 0.5 is best"
            )
        if self.utility is not None:
            name, why = self.target
            score = "AUC" if self.area else "R^2"
            lines.append(
                f"utility: {score} {self.utility.sentence()} in predicting {name} ({why}) after "
                f"training on these rows"
            )
        lines.append(
            f"nearest training row: median distance "
            f"{self.distance.sentence('held-out rows')}; copies, exact or nearly: "
            f"{self.copies.drawn:.1%} ({self.copies.real:.1%})"
        )
        return lines

    def line(self) -> dict[str, Json]:
        """Return the entry in evaluation.json."""
        return {
            "n": self.n,
            "held_out": self.held_out,
            "shapes": self.shapes.line()
            | {"columns": [{"column": c, **_pair(self.columns[c])} for c in self.worst_columns()]},
            "pairs": None
            if self.pairs is None
            else self.pairs.line()
            | {
                "pairs": [{"columns": list(p), **_pair(self.trends[p])} for p in self.worst_pairs()]
            },
            "detector": None if self.detector is None else self.detector.line(),
            "utility": None
            if self.utility is None
            else self.utility.line()
            | {"target": self.target[0], "score": "auc" if self.area else "r2"},
            "distance": self.distance.line(),
            "copies": self.copies.line()
            | {"exact": {"drawn": self.exact[0], "real": self.exact[1]}},
            "notes": list(self.notes),
        }


def _deficit(pair: tuple[float, float]) -> float:
    return pair[0] - pair[1]


def _both(pair: tuple[float, float]) -> str:
    return f"{pair[0]:.2f} ({pair[1]:.2f})"


def _pair(pair: tuple[float, float]) -> dict[str, float]:
    return {"drawn": pair[0], "real": pair[1]}


def resemblance(
    drawn: Columns,
    held: Columns,
    train: Columns,
    every: Columns,
    target: tuple[str, str],
    seed: int = 0,
) -> Resemblance:
    """Compare drawn rows with held-out rows.

    Args:
        drawn: rows of the model, in random order.
        held: held-out rows, in random order.
        train: as many training rows as drawn ones, in random order.
        every: all training rows, among which the nearest is searched.
        target: the column to predict, and why; empty text for none.
        seed: of the bootstrap.

    >>> numbers = np.random.default_rng(0).normal(size=(4, 40))
    >>> drawn, held, train, _ = ({"a": np.ma.array(row)} for row in numbers)
    >>> resemblance(drawn, held, train, train, ("", "")).held_out
    40
    """
    n, m = (len(next(iter(table.values()))) for table in (drawn, held))
    first, second = Comparison(held, drawn), Comparison(held, train)
    whole = first.fidelity(), second.fidelity()
    weights = [_weights(*of) for of in ((m, seed, "held"), (n, seed, "drawn"), (n, seed, "train"))]
    again = [
        (first.fidelity((own, some)), second.fidelity((own, other)))
        for own, some, other in zip(*weights, strict=True)
    ]
    table = np.array([[(f.shape, f.pair) for f in both] for both in again])
    scores = None
    if target[0]:
        scores = tuple(predicted(rows, held, target[0]) for rows in (drawn, train))
    distance, copies, exact = _nearest(drawn, held, every, seed)
    return Resemblance(
        n,
        m,
        Compared.of((whole[0].shape, whole[1].shape), table[:, :, 0]),
        Compared.of((whole[0].pair, whole[1].pair), table[:, :, 1]) if whole[0].pairs else None,
        {c: (whole[0].shapes[c], whole[1].shapes[c]) for c in whole[0].shapes},
        {p: (whole[0].pairs[p], whole[1].pairs[p]) for p in whole[0].pairs},
        _detector(drawn, held, train, seed) if min(n, m) >= DETECTED else None,
        None if scores is None else _scored(scores, seed),
        target,
        scores is not None and bool(scores[0].classes),
        distance,
        copies,
        exact,
    )


def default_target(train: Columns, held: Columns, conditions: Sequence[str]) -> tuple[str, str]:
    """Return the column that a model is trained to predict, and why; empty text for none.

    Args:
        train, held: tables with the same columns.
        conditions: names of columns that the rows are drawn for.

    >>> rows = {"a": np.ma.array(["x", "y"] * 9), "b": np.ma.array(np.arange(18.0))}
    >>> default_target(rows, rows, ())
    ('a', 'the last column of categories')
    """

    def classes(name: str) -> int:
        return len(np.unique(train[name].compressed())) if is_category(train[name]) else 0

    usable = [n for n in train if len(np.unique(held[n].compressed())) >= 2]
    for name in conditions:
        if name in usable:
            return name, "the condition"
    for name in reversed(usable):
        if 2 <= classes(name) <= CLASSES and len(train) > 1:
            return name, "the last column of categories"
    for name in reversed(usable):
        if not is_category(held[name]) and len(train) > 1:
            return name, "the last column"
    return "", ""


def _weights(n: int, seed: int, name: str) -> list[np.ndarray]:
    """Return how often each of n rows is in each repetition of the bootstrap."""
    generator = numpy_generator(seed, "bootstrap", name)
    return [
        np.bincount(generator.integers(0, n, n), minlength=n).astype(np.float64)
        for _ in range(REPEATS)
    ]


def _repeated(
    figure: Callable[[np.ndarray | None], tuple[float, float]], weights: Sequence[np.ndarray]
) -> Compared:
    """Return two figures, each a function of the same weights of rows, with standard errors."""
    return Compared.of(figure(None), np.array([figure(w) for w in weights]))


def _detector(drawn: Columns, held: Columns, train: Columns, seed: int) -> Compared:
    """Return the area under the ROC curve of a classifier that tells rows from held-out rows."""
    told = [detected(held, rows) for rows in (drawn, train)]
    size = len(told[0].held)
    return _repeated(lambda w: _scores(told, w), _weights(size, seed, "detector"))


def _scored(scores: Sequence[Predictions], seed: int) -> Compared:
    """Return the utility of drawn and of real rows."""
    size = len(scores[0].held)
    return _repeated(lambda w: _scores(scores, w), _weights(size, seed, "utility"))


def _scores(both: Sequence[Predictions], weights: np.ndarray | None) -> tuple[float, float]:
    return both[0].score(weights), both[1].score(weights)


def _nearest(
    drawn: Columns, held: Columns, every: Columns, seed: int
) -> tuple[Compared, Compared, tuple[float, float]]:
    """Return the median distance to the nearest training row, the share of copies, exact or nearly,
    and the share of exact ones, of drawn and of held-out rows."""
    training = TrainingRows(every)
    apart = [
        training.distances({name: c[:NEAREST] for name, c in rows.items()})
        for rows in (drawn, held)
    ]
    generator = numpy_generator(seed, "bootstrap", "nearest")
    again = [[x[generator.integers(0, len(x), len(x))] for x in apart] for _ in range(REPEATS)]
    figures: tuple[Callable[[np.ndarray], float], ...] = (
        lambda x: float(np.median(x)),
        lambda x: float((x <= ALIKE).mean()),
    )
    distance, copies = (
        Compared.of(
            (figure(apart[0]), figure(apart[1])),
            np.array([[figure(x) for x in pair] for pair in again]),
        )
        for figure in figures
    )
    return distance, copies, (float((apart[0] == 0).mean()), float((apart[1] == 0).mean()))
