"""Score rows: how unusual each one is, its bound, and where it is unusual."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

import numpy as np

from vaestro.data import Rows
from vaestro.files import Json
from vaestro.latent.scoring import Reference, Score, score_named
from vaestro.latent.thresholds import Threshold, threshold
from vaestro.latent.views import View, views
from vaestro.models import Model
from vaestro.text import InputError

FIT_ROWS, FIT_CELLS = 2000, 2**23  # largest number of training rows, and of their cells


@final
@dataclass(frozen=True, eq=False)
class Scores:
    """Hold the scores of N rows, in their order.

    Args:
        name: of the score.
        score: larger is more unusual, (N,).
        bound, bound_error: IWAE in nats and its Monte Carlo standard error, (N,).
        elbo, elbo_error: the ELBO in nats and its error, (N,).
        rate, distortion: KL(q || p) and -E[log p(x | z)] in nats, (N,).
        observed: number of observed cells, or of tokens, (N,).
        k: draws of z.
        cells: the share of each cell in the distortion, (N, *X); None if not asked for, or if the
            likelihood has no such shares.
        maps: the share of each cell in the score, (N, *X); None likewise.
        rates: the rate of each unit, (N, U); None if not asked for.
        threshold: for a rate of false alarms; None if not asked for.
        notes: sentences on what the numbers depend on.

    >>> zeros = np.zeros(2)
    >>> Scores("bound", np.array([0.1, 0.7]), *[zeros] * 7, 20).order
    array([1, 0])
    """

    name: str
    score: np.ndarray
    bound: np.ndarray
    bound_error: np.ndarray
    elbo: np.ndarray
    elbo_error: np.ndarray
    rate: np.ndarray
    distortion: np.ndarray
    observed: np.ndarray
    k: int
    cells: np.ndarray | None = None
    maps: np.ndarray | None = None
    rates: np.ndarray | None = None
    threshold: Threshold | None = None
    notes: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.score)

    @property
    def order(self) -> np.ndarray:
        """Return the row numbers, the most unusual first, (N,)."""
        return np.argsort(-self.score, kind="stable")

    @property
    def unusual(self) -> np.ndarray | None:
        """Return which rows are above the threshold, (N,); None without one."""
        if self.threshold is None or self.threshold.value is None:
            return None
        return self.score > self.threshold.value

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all arrays, with a row for each datum in the order of the data."""
        found = {
            "row": np.arange(len(self)),
            "score": self.score,
            "unusual": self.unusual,
            "bound": self.bound,
            "bound_error": self.bound_error,
            "elbo": self.elbo,
            "elbo_error": self.elbo_error,
            "rate": self.rate,
            "distortion": self.distortion,
            "observed": self.observed,
            "rates": self.rates,
            "cells": self.cells,
            "maps": self.maps,
        }
        return {name: values for name, values in found.items() if values is not None}

    def columns(self) -> dict[str, np.ndarray]:
        """Return the numbers of each row, (N,), the most unusual row first."""
        wide = ("rates", "cells", "maps")
        return {n: v[self.order] for n, v in self.arrays().items() if n not in wide}

    def lines(self) -> list[str]:
        """Return what is printed."""
        shown = self.order[:5].tolist()
        found = [
            f"score {self.name} of {len(self):,} rows; the most unusual are rows "
            f"{', '.join(f'{i:,} ({self.score[i]:.4g})' for i in shown)}",
            f"bound {self.bound.mean():.2f} nats per row (IWAE with {self.k} draws), rate "
            f"{self.rate.mean():.2f}, distortion {self.distortion.mean():.2f}",
        ]
        if self.threshold is not None:
            found.append(self.threshold.sentence())
            above = self.unusual
            if above is not None:
                found.append(f"{int(above.sum()):,} of {len(self):,} rows are above the threshold")
        return [*found, *self.notes]

    def record(self) -> dict[str, Json]:
        """Return the numbers of the whole for JSON."""
        above = self.unusual
        return {
            "score": self.name,
            "n": len(self),
            "k": self.k,
            "bound": float(self.bound.mean()),
            "threshold": None if self.threshold is None else self.threshold.record(),
            "unusual": None if above is None else int(above.sum()),
            "notes": list(self.notes),
        }


def fitted_score(
    model: Model,
    name: str,
    train: Rows,
    valid: Rows,
    *,
    background: Callable[[], Model] | None = None,
    k: int = 20,
    seed: int = 0,
) -> Score:
    """Fit a score to training rows and rows for validation, all of them normal.

    Args:
        model: a trained model.
        name: of the score; see `latent.scoring`.
        train: training rows, of which up to 2,000 are used, evenly spaced.
        valid: rows that the model was not trained on.
        background: returns a model of independent cells, for `likelihood-ratio`.
        k: draws of z, for scores that use the bound.
        seed: of the draws.

    Raises:
        ValueError: there is no such score, or the model or the data have none.

    >>> import vaestro as vs
    >>> data = vs.load(np.random.default_rng(0).normal(size=(100, 3)))
    >>> score = fitted_score(vs.build(data.space, latent=2), "residual", data.train, data.valid)
    >>> [score.of(view).shape for view in views(vs.build(data.space, latent=2), data.test)]
    [(5,)]
    """
    kind = score_named(name)
    most = max(50, min(FIT_ROWS, FIT_CELLS // model.space.cells))
    used = (train.spread(most), valid.spread(most))
    sets = [tuple(views(model, rows, k=k, seed=seed)) for rows in used]
    return kind.fitted(Reference(model, sets[0], sets[1], background))


def score(
    model: Model,
    rows: Rows,
    by: Score,
    *,
    k: int = 20,
    cells: bool = False,
    maps: bool = False,
    units: bool = False,
    seed: int = 0,
) -> Scores:
    """Score rows.

    Args:
        model: a trained model.
        rows: the data, N rows.
        by: the score, from `fitted_score`.
        k: draws of z for each row.
        cells, maps, units: also return the shares of cells in distortion and score, and the rates
            of units.
        seed: of the draws.

    Raises:
        ValueError: there are no rows, k is below 1, or the score of a row is not finite.

    >>> import vaestro as vs
    >>> data = vs.load(np.random.default_rng(0).normal(size=(100, 3)))
    >>> model = vs.build(data.space, latent=2)
    >>> by = fitted_score(model, "residual", data.train, data.valid)
    >>> scores = score(model, data.test, by, cells=True)
    >>> bool(np.allclose(scores.cells.sum(1), scores.distortion, atol=1e-4))
    True
    """
    if not len(rows):
        raise ValueError("expected 1 or more rows to score; got none")
    found = _table(_chunks(model, rows, by, k, seed, cells, maps, units))
    wrong = np.flatnonzero(~np.isfinite(found["score"]) | ~np.isfinite(found["bound"]))
    if len(wrong):
        raise InputError(
            f"the score of row {wrong[0]:,} is not finite ({len(wrong):,} such rows): its values "
            f"are far outside of those of the training data"
        )
    return Scores(
        name=by.name,
        score=found["score"],
        bound=found["bound"],
        bound_error=found["bound_error"],
        elbo=found["elbo"],
        elbo_error=found["elbo_error"],
        rate=found["rate"],
        distortion=found["distortion"],
        observed=found["observed"],
        k=k,
        cells=found.get("cells"),
        maps=found.get("maps"),
        rates=found.get("rates"),
    )


def threshold_of(
    model: Model, normal: Sequence[Rows], by: Score, rate: float, *, k: int = 20, seed: int = 0
) -> Threshold:
    """Return the threshold of a score for a rate of false alarms.

    Args:
        model: a trained model.
        normal: sets of normal rows that neither the model nor the score have used.
        by: the score.
        rate: the rate of false alarms, in (0, 1).
        k, seed: as for `score`.

    Raises:
        ValueError: the rate is outside of (0, 1).

    >>> import vaestro as vs
    >>> data = vs.load(np.random.default_rng(0).normal(size=(100, 3)))
    >>> model = vs.build(data.space, latent=2)
    >>> by = fitted_score(model, "residual", data.train, data.valid)
    >>> threshold_of(model, [data.test], by, 0.01).needed
    99
    """
    known = [by.of(v) for rows in normal for v in views(model, rows, k=k, seed=seed + 1)]
    return threshold(np.concatenate([np.zeros(0), *known]), rate)


def _table(chunks: Iterator[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    parts: dict[str, list[np.ndarray]] = {}
    for chunk in chunks:
        for name, values in chunk.items():
            parts.setdefault(name, []).append(values)
    return {name: np.concatenate(values) for name, values in parts.items()}


def _chunks(
    model: Model, rows: Rows, by: Score, k: int, seed: int, cells: bool, maps: bool, units: bool
) -> Iterator[dict[str, np.ndarray]]:
    for view in views(model, rows, k=k, seed=seed):
        yield _of_view(view, by, cells=cells, maps=maps, units=units)


def _of_view(
    view: View, by: Score, *, cells: bool, maps: bool, units: bool
) -> dict[str, np.ndarray]:
    """Return the numbers of B rows, each (B, ...)."""
    pieces = view.pieces
    found = {
        "score": by.of(view),
        "bound": pieces.iwae,
        "bound_error": pieces.iwae_error,
        "elbo": pieces.elbo,
        "elbo_error": pieces.elbo_error,
        "rate": pieces.rate,
        "distortion": pieces.distortion,
        "observed": view.observed,
    }
    if cells and pieces.cells is not None:
        found["cells"] = pieces.cells.astype(np.float32)
    where = by.maps(view) if maps else None
    if where is not None:
        found["maps"] = where.astype(np.float32)
    if units:
        found["rates"] = pieces.rates.astype(np.float32)
    return found
