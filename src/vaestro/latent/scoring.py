"""Scores of how unusual rows are, by name; larger is more unusual.

The bound on log p(x) alone is a poor score: it is dominated by what varies most in normal data,
and simple data have a high likelihood under a model of complex data (Nalisnick et al. 2019). Each
score is one class. It is fitted to normal rows, without labels:

    combined          evidence of `residual`, `standardised` and `local`, summed
    residual          whitened distance of the residuals
    standardised      squared residuals, divided by the variance of each cell among normal rows
    local             largest mean over neighbouring cells of squared standardised residuals
    reconstruction    squared residuals; for texts the distortion
    latent            whitened distance of the code
    bound             - IWAE
    likelihood-ratio  log p(x) under independent cells - IWAE (Ren et al. 2019)
    complexity        - IWAE - nats of the compressed row (Serra et al. 2020)
    typicality        |IWAE - its mean over normal rows| (Nalisnick et al. 2019b)

Rows with missing cells, series that end early and texts of different lengths are compared per
observed cell: a sum over cells is multiplied by the number of cells of a datum over those observed.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self, final

import numpy as np

from vaestro.latent.normality import Tail, Whitening, local_means
from vaestro.latent.views import View
from vaestro.models import Model
from vaestro.text import InputError, nearest

GREY = 255  # levels to which numbers are rounded before they are compressed
ENOUGH = 100  # held-out rows from which tails are taken; training rows are added to fewer


@final
@dataclass(frozen=True, eq=False)
class Reference:
    """Hold normal rows, as a model sees them.

    Args:
        model: the model.
        train: training rows.
        valid: rows for validation.
        background: returns a model of independent cells, fitted to the training rows.

    >>> import vaestro as vs
    >>> from vaestro.latent.views import views
    >>> data = vs.load(np.random.default_rng(0).normal(size=(100, 3)))
    >>> model = vs.build(data.space, latent=2)
    >>> reference = Reference(model, *(tuple(views(model, r)) for r in (data.train, data.valid)))
    >>> reference.stacked(lambda view: view.observed).shape
    (95,)
    """

    model: Model
    train: tuple[View, ...]
    valid: tuple[View, ...]
    background: Callable[[], Model] | None = None

    def stacked(self, of: Callable[[View], np.ndarray]) -> np.ndarray:
        """Return a number or a vector of each normal row, (N, ...)."""
        return np.concatenate([of(view) for view in (*self.train, *self.valid)])

    def held_out(self, of: Callable[[View], np.ndarray]) -> np.ndarray:
        """Return a number of each row for validation, or of all if those are few, (N,)."""
        few = sum(map(len, self.valid)) < ENOUGH
        return self.stacked(of) if few else np.concatenate([of(view) for view in self.valid])


class Score(ABC):
    """Describe a score of how unusual rows are.

    >>> issubclass(Bound, Score)
    True
    """

    name: ClassVar[str]

    @classmethod
    @abstractmethod
    def fitted(cls, normal: Reference) -> Self:
        """Fit the score to normal rows.

        Raises:
            ValueError: the model or the data have no such score.
        """

    @abstractmethod
    def of(self, view: View) -> np.ndarray:
        """Return the scores of B rows, (B,)."""

    def maps(self, view: View) -> np.ndarray | None:
        """Return the share of each cell, (B, *X): where a row is unusual; None if there is none."""
        return None


def per_cell(sums: np.ndarray, view: View) -> np.ndarray:
    """Return sums over observed cells (B,), scaled to all cells.

    >>> import vaestro as vs
    >>> rows = vs.load(np.random.default_rng(0).normal(size=(100, 3))).test
    >>> per_cell(np.ones(2), View(vs.build(rows.space, latent=2), rows.batch(slice(0, 2))))
    array([1., 1.])
    """
    return sums * (view.model.space.cells / np.maximum(view.observed, 1))


def _residuals(view: View) -> np.ndarray:
    if view.residual is None:
        likelihood = "texts" if view.model.space.ragged else "this likelihood"
        raise InputError(f"{likelihood} have no residuals: use --score bound or typicality")
    return view.residual


class _Whitened(Score):
    """A whitened distance of the residuals."""

    full: ClassVar[bool]

    def __init__(self, whitening: Whitening) -> None:
        self.whitening = whitening

    @classmethod
    def fitted(cls, normal: Reference) -> Self:
        return cls(Whitening.fitted(normal.stacked(_residuals), full=cls.full))

    def of(self, view: View) -> np.ndarray:
        return per_cell(self.whitening.distances(_residuals(view)), view)

    def maps(self, view: View) -> np.ndarray | None:
        off = _residuals(view) - self.whitening.mean
        if view.batch.observed is not None:
            off = off * view.batch.observed.flatten(1).cpu().numpy()
        return (off**2 * self.whitening.weights()).reshape(len(view), *view.model.space.shape)


@final
class Residual(_Whitened):
    """The whitened distance of the residuals.

    >>> Residual.name
    'residual'
    """

    name = "residual"
    full = True


@final
class Standardised(_Whitened):
    """The squared residuals, divided by the variance of each cell among normal rows.

    >>> Standardised.name
    'standardised'
    """

    name = "standardised"
    full = False


@final
class Local(Score):
    """The largest mean over 3 neighbouring cells on each axis of squared standardised residuals.

    >>> Local.name
    'local'
    """

    name = "local"

    def __init__(self, residual: Standardised, axes: tuple[int, ...]) -> None:
        self.residual, self.axes = residual, axes

    @staticmethod
    def axes_of(model: Model) -> tuple[int, ...]:
        """Return the axes of (B, *X) on which neighbours are alike; none for other data."""
        layout, sides = model.space.layout, len(model.space.shape)
        return tuple(i + 1 for i in range(sides) if i != layout.channel_axis) if layout.grid else ()

    @classmethod
    def fitted(cls, normal: Reference) -> Self:
        axes = cls.axes_of(normal.model)
        if not axes:
            raise InputError(
                f"{normal.model.space} have no neighbouring cells: use --score residual"
            )
        return cls(Standardised.fitted(normal), axes)

    def of(self, view: View) -> np.ndarray:
        maps = self.maps(view)
        assert maps is not None
        return np.asarray(maps.reshape(len(view), -1).max(1))

    def maps(self, view: View) -> np.ndarray | None:
        shares = self.residual.maps(view)
        return None if shares is None else local_means(shares, self.axes)


@final
class Reconstruction(Score):
    """The sum of squared residuals; for texts the distortion.

    >>> Reconstruction.name
    'reconstruction'
    """

    name = "reconstruction"

    @classmethod
    def fitted(cls, normal: Reference) -> Self:
        return cls()

    def of(self, view: View) -> np.ndarray:
        if view.residual is None:
            return per_cell(view.pieces.distortion, view)
        return per_cell((view.residual**2).sum(1), view)

    def maps(self, view: View) -> np.ndarray | None:
        if view.residual is None:
            return None
        return (view.residual**2).reshape(len(view), *view.model.space.shape)


def _codes(view: View) -> np.ndarray:
    if view.code is None:
        raise InputError("this model has no latent: use --score bound")
    return view.code


@final
class Latent(Score):
    """The whitened distance of the mean of q(z | x).

    >>> Latent.name
    'latent'
    """

    name = "latent"

    def __init__(self, whitening: Whitening) -> None:
        self.whitening = whitening

    @classmethod
    def fitted(cls, normal: Reference) -> Self:
        return cls(Whitening.fitted(normal.stacked(_codes)))

    def of(self, view: View) -> np.ndarray:
        return self.whitening.distances(_codes(view))


def _surprise(view: View) -> np.ndarray:
    return per_cell(-view.pieces.iwae, view)


@final
class Bound(Score):
    """The bound: - IWAE in nats.

    >>> Bound.name
    'bound'
    """

    name = "bound"

    @classmethod
    def fitted(cls, normal: Reference) -> Self:
        return cls()

    def of(self, view: View) -> np.ndarray:
        return _surprise(view)

    def maps(self, view: View) -> np.ndarray | None:
        return view.pieces.cells


@final
class Typicality(Score):
    """How far the bound is from its mean over normal rows, in nats (Nalisnick et al. 2019b).

    >>> Typicality.name
    'typicality'
    """

    name = "typicality"

    def __init__(self, typical: float) -> None:
        self.typical = typical

    @classmethod
    def fitted(cls, normal: Reference) -> Self:
        return cls(float(normal.held_out(_surprise).mean()))

    def of(self, view: View) -> np.ndarray:
        return np.abs(_surprise(view) - self.typical)


@final
class Ratio(Score):
    """The bound relative to a background model of independent cells, in nats (Ren et al. 2019).

    >>> Ratio.name
    'likelihood-ratio'
    """

    name = "likelihood-ratio"

    def __init__(self, background: Model) -> None:
        self.background = background

    @classmethod
    def fitted(cls, normal: Reference) -> Self:
        if normal.background is None:
            raise ValueError("expected a background model for likelihood-ratio; got none")
        return cls(normal.background())

    def of(self, view: View) -> np.ndarray:
        other = View(self.background, view.batch, view.k, view.path)
        return _surprise(view) + per_cell(other.pieces.iwae, view)


@final
class Complexity(Score):
    """The bound relative to the length of the compressed row, in nats (Serra et al. 2020).

    The row is compressed by zlib after its numbers are rounded to 256 levels of their range.

    >>> Complexity.name
    'complexity'
    """

    name = "complexity"

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high

    @classmethod
    def fitted(cls, normal: Reference) -> Self:
        values = normal.stacked(lambda view: view.batch.x.flatten(1).double().cpu().numpy().ravel())
        return cls(float(values.min()), float(values.max()))

    def of(self, view: View) -> np.ndarray:
        x = view.batch.x.flatten(1).double().cpu().numpy()
        scaled = (x - self.low) / ((self.high - self.low) or 1.0)
        grey = np.rint(GREY * np.clip(scaled, 0, 1)).astype(np.uint8)
        nats = [8 * np.log(2) * len(zlib.compress(row.tobytes(), 9)) for row in grey]
        return per_cell(-view.pieces.iwae - np.array(nats), view)


@final
class Combined(Score):
    """The summed evidence of several scores (Fisher 1925): `standardised` and `residual`, with
    `local` for data on a grid; for texts, `reconstruction`.

    >>> Combined.name
    'combined'
    """

    name = "combined"

    def __init__(self, parts: Sequence[Score], tails: Sequence[Tail]) -> None:
        self.parts, self.tails = tuple(parts), tuple(tails)

    @classmethod
    def fitted(cls, normal: Reference) -> Self:
        parts: list[Score] = []
        if normal.train[0].residual is None:
            parts = [Reconstruction()]
        else:
            standardised = Standardised.fitted(normal)
            parts = [standardised, Residual.fitted(normal)]
            if axes := Local.axes_of(normal.model):
                parts.append(Local(standardised, axes))
        return cls(parts, [Tail.of(normal.held_out(part.of)) for part in parts])

    def of(self, view: View) -> np.ndarray:
        evidence = [t.evidence(p.of(view)) for p, t in zip(self.parts, self.tails, strict=True)]
        return np.asarray(np.sum(evidence, 0))

    def maps(self, view: View) -> np.ndarray | None:
        return self.parts[0].maps(view)


SCORES: dict[str, type[Score]] = {
    score.name: score
    for score in (
        *(Combined, Residual, Standardised, Local, Reconstruction, Latent),
        *(Bound, Ratio, Complexity, Typicality),
    )
}


def score_named(name: str) -> type[Score]:
    """Return the class of a score.

    Raises:
        ValueError: there is no such score.

    >>> score_named("bound").name
    'bound'
    """
    if name not in SCORES:
        raise ValueError(f"expected a score: {nearest(name, SCORES)}; got {name!r}")
    return SCORES[name]
