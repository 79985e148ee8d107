"""Probes: how well attributes can be predicted from codes, from raw data, and from PCA of the same
width.

A linear probe is a logistic regression for classes, or a ridge regression for numbers. The other
probe is the nearest neighbours. The strength of the penalty and the number of neighbours are chosen
by cross-validation on the rows that fit the probe. Features are centred and divided by one number
(the root mean square of their standard deviations), so that units without information stay small.

Probes follow Alain and Bengio (2016). A score is computed on other rows than the fit. Its interval
is a percentile interval of a bootstrap over these rows (Efron 1979), for the probe that was fitted.
Two representations are compared on the same rows of each bootstrap draw. Statements have a level of
95 % together (Bonferroni).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import final

import numpy as np

from vaestro.data import Rows
from vaestro.files import Json
from vaestro.latent.factors import Factor
from vaestro.randomness import numpy_generator

CODES, RAW, PCA = "codes", "raw", "PCA"  # the representations
PROBES = ("linear", "kNN")
FEW = 20  # fewest rows that fit a probe, or score it
MEMBERS = 5  # fewest rows to score of the second most frequent class
FEATURES = 4096  # largest number of raw features; of more, evenly spaced ones are used
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # inverse penalties of the logistic regression
NEIGHBOURS = (1, 3, 10, 30)
FOLDS, MANY = 5, 1000  # of the cross-validation; three from so many rows
DRAWS = 1000  # of the bootstrap
LEVEL = 0.95

Features = Mapping[str, tuple[np.ndarray, np.ndarray]]  # to fit (N, D), and to score (M, D)


@final
@dataclass(frozen=True, eq=False)
class Score:
    """Hold the score of one probe on one representation.

    Args:
        probe: linear or kNN.
        features: codes, raw or PCA.
        value, low, high: R^2 of numbers, or accuracy of classes, with all labels, and its interval.
        balanced: the mean over classes of the accuracy in each class; None for numbers.
        few, few_error: mean and standard error over draws of `labels` labels; None if there are not
            more labels.

    >>> Score("linear", "codes", 0.9, 0.85, 0.94).value
    0.9
    """

    probe: str
    features: str
    value: float
    low: float
    high: float
    balanced: float | None = None
    few: float | None = None
    few_error: float | None = None


@final
@dataclass(frozen=True, eq=False)
class Probe:
    """Hold the scores of the probes of one attribute.

    Args:
        name, kind, role: of the attribute; kind is number or category.
        fitted, scored: number of rows that fit the probes, and that score them.
        labels: number of labels of the small draws.
        baseline: score of the mean, or of the most frequent class, of the rows that fit.
        scores: of each probe and representation; none if there are not enough data.
        statements: conclusions, in words.

    >>> Probe("x", "number", "attribute", 9, 3, 100, 0.0, (), ("x: not enough data to tell",)).kind
    'number'
    """

    name: str
    kind: str
    role: str
    fitted: int
    scored: int
    labels: int
    baseline: float
    scores: tuple[Score, ...]
    statements: tuple[str, ...]

    @property
    def measure(self) -> str:
        """Return what a score is: R2 or accuracy."""
        return "R2" if self.kind == "number" else "accuracy"

    def best(self, features: str) -> Score:
        """Return the score of the better probe on a representation, with all labels."""
        return max((s for s in self.scores if s.features == features), key=lambda s: s.value)

    def record(self) -> dict[str, Json]:
        """Return the entry in probes.json."""
        return {
            **{k: v for k, v in vars(self).items() if k not in ("scores", "statements")},
            "measure": self.measure,
            "scores": [dict(vars(score)) for score in self.scores],
            "statements": list(self.statements),
        }


@final
@dataclass(frozen=True, eq=False)
class Probes:
    """Hold the probes of several attributes, and what was used.

    Args:
        probes: one of each attribute.
        rows: in words, which rows fit and which score.
        notes: what was left out or changed, one line each.

    >>> list(Probes((), "90 train rows fit, 5 test rows score").lines())
    ['90 train rows fit, 5 test rows score']
    """

    probes: tuple[Probe, ...]
    rows: str
    notes: tuple[str, ...] = field(default=())

    def lines(self) -> Iterator[str]:
        """Yield a table of the scores, and the conclusions, as lines of text."""
        yield self.rows
        for probe in self.probes:
            if probe.scores:
                what = f"{probe.measure}, baseline {probe.baseline:.3f}"
                yield f"{probe.name}: {what}"
                few = f"with {probe.labels} labels"
                yield f"    {'':<16} {'all labels':>10} {'95 % interval':>16} {few:>18}"
            for s in probe.scores:
                interval = f"{s.low:.3f} to {s.high:.3f}"
                some = "-" if s.few is None else f"{s.few:.3f} +- {s.few_error:.3f}"
                balanced = "" if s.balanced is None else f"   balanced {s.balanced:.3f}"
                name = f"{s.probe}, {s.features}"
                yield f"    {name:<16} {s.value:>10.3f} {interval:>16} {some:>18}{balanced}"
            for statement in probe.statements:
                yield f"    {statement}" if probe.scores else statement
        for note in self.notes:
            yield f"note: {note}"

    def record(self) -> dict[str, Json]:
        """Return the content of probes.json."""
        return {
            "rows": self.rows,
            "probes": [probe.record() for probe in self.probes],
            "notes": list(self.notes),
        }

    def columns(self) -> dict[str, list[object]]:
        """Return a table with a row for each score; an attribute without a score has one row."""
        names = ("attribute", "kind", "role", "measure", "baseline", "fitted", "scored", "labels")
        table: dict[str, list[object]] = {name: [] for name in names}
        table |= {name: [] for name in Score.__dataclass_fields__}
        for probe in self.probes:
            facts = {**vars(probe), "attribute": probe.name, "measure": probe.measure}
            for score in probe.scores or (Score("", "", math.nan, math.nan, math.nan),):
                for name, cells in table.items():
                    cells.append({**facts, **vars(score)}[name])
        return table


def raw_features(rows: Rows) -> tuple[np.ndarray, str]:
    """Return the data as the encoder receives them, (N, D) float32, and a note if some are left
    out.

    Each text is the number of times that each token occurs in it. Of more than 4,096 features,
    evenly spaced ones are used.

    >>> import vaestro as vs
    >>> rows = vs.load({"size": [0.5, 1.5, 2.5] * 9, "word": ["a", "b", "c"] * 9}).train
    >>> raw_features(rows)[0].shape
    (25, 4)
    """
    import torch

    space, parts, note = rows.space, [], ""
    for batch in rows.fixed().chunks(space.chunk):
        cells = space.features(batch.x, batch.observed, torch.float32)
        flat = cells.sum(1) if space.ragged else cells.flatten(1)
        if flat.shape[1] > FEATURES:
            note = f"raw data are {FEATURES:,} of {flat.shape[1]:,} features, evenly spaced"
            flat = flat[:, torch.linspace(0, flat.shape[1] - 1, FEATURES).long()]
        parts.append(flat.numpy())
    return np.concatenate(parts), note


def representations(
    codes: tuple[np.ndarray, np.ndarray], raw: tuple[np.ndarray, np.ndarray]
) -> Features:
    """Return codes, raw data, and the leading principal components of raw data, as many as a code
    has numbers, each as (rows that fit, rows that score).

    Args:
        codes: (N, units) and (M, units).
        raw: (N, D) and (M, D).

    Raises:
        ValueError: scikit-learn is not installed.

    >>> x = np.random.default_rng(0).normal(size=(50, 5))
    >>> representations((x[:40, :2], x[40:, :2]), (x[:40], x[40:]))["PCA"][1].shape
    (10, 2)
    """
    require_sklearn()
    from sklearn.decomposition import PCA as Components

    width = min(codes[0].shape[1], *raw[0].shape)
    components = Components(width, random_state=0).fit(raw[0])
    planes = components.transform(raw[0]), components.transform(raw[1])
    return {
        name: _scaled(np.asarray(a, np.float64), np.asarray(b, np.float64))
        for name, (a, b) in ((CODES, codes), (RAW, raw), (PCA, planes))
    }


def require_sklearn() -> None:
    """Raise ValueError if scikit-learn is not installed.

    >>> require_sklearn()
    """
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise ValueError(
            "expected scikit-learn (pip install 'vaestro[sklearn]'); got an installation without it"
        ) from error


def _scaled(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return features, centred and divided by one number."""
    mean = first.mean(0)
    scale = math.sqrt(float(first.var(0).mean())) or 1.0
    return (first - mean) / scale, (second - mean) / scale


def probe(
    features: Features,
    fit: Factor,
    score: Factor,
    *,
    labels: int = 100,
    draws: int = 5,
    comparisons: int = 1,
    seed: int = 0,
) -> Probe:
    """Fit the probes of an attribute on some rows, and score them on others.

    Args:
        features: of the rows; see `representations`.
        fit: the attribute of the rows that fit, (N,).
        score: the attribute of the rows that score, (M,), with the same classes.
        labels: number of labels of the small draws.
        draws: number of small draws.
        comparisons: number of attributes that are probed together.
        seed: of the draws.

    Raises:
        ValueError: fewer than 10 labels or 2 draws.

    >>> z = np.random.default_rng(0).normal(size=(300, 2))
    >>> sets = {name: (z[:200], z[200:]) for name in ("codes", "raw", "PCA")}
    >>> x = probe(sets, Factor("x", z[:200, 0]), Factor("x", z[200:, 0]))
    >>> round(x.best("codes").value, 2)
    1.0
    """
    if labels < 10 or draws < 2:
        raise ValueError(f"expected 10 or more labels and 2 or more draws; got {labels}, {draws}")
    rows, held = np.flatnonzero(fit.known), np.flatnonzero(score.known)
    target, truth = fit.values[rows], score.values[held]
    kind = "number" if fit.is_number else "category"
    about = (fit.name, kind, fit.role, len(rows), len(held), labels)
    if not _enough(target, truth, fit.is_number):
        return Probe(*about, math.nan, (), (f"{fit.name}: not enough data to tell",))
    weights = _weights(len(held), seed)
    base = _constant(target, fit.is_number)
    sets = {name: (a[rows], b[held]) for name, (a, b) in features.items()}
    scores, boot = [], {}
    for name in PROBES:
        for representation, (x, y) in sets.items():
            predicted = predict(name, x, target, y, number=fit.is_number)
            spread = scored(truth, predicted, weights, number=fit.is_number)
            low, high = np.quantile(spread, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
            boot[name, representation] = spread
            ones = np.ones((1, len(held)))
            few = _few(name, x, target, (y, truth), fit.is_number, (labels, draws, seed))
            scores.append(
                Score(
                    name,
                    representation,
                    float(scored(truth, predicted, ones, number=fit.is_number)[0]),
                    low,
                    high,
                    None if fit.is_number else balanced(truth, predicted),
                    *few,
                )
            )
    constant = np.full(len(truth), base)
    baseline = scored(truth, constant, np.ones((1, len(held))), number=fit.is_number)[0]
    boot["constant", ""] = scored(truth, constant, weights, number=fit.is_number)
    result = Probe(*about, round(float(baseline), 3) + 0.0, tuple(scores), ())
    return _concluded(result, boot, comparisons)


def _enough(target: np.ndarray, truth: np.ndarray, number: bool) -> bool:
    """Return whether the rows are enough to fit and to score a probe."""
    if min(len(target), len(truth)) < FEW:
        return False
    if number:
        return bool(np.ptp(target) > 0 and np.ptp(truth) > 0)
    counts = [np.sort(np.unique(x, return_counts=True)[1]) for x in (target, truth)]
    return all(len(n) > 1 and n[-2] >= MEMBERS for n in counts)


def _weights(n: int, seed: int) -> np.ndarray:
    """Return how often each row is in each draw of the bootstrap, (DRAWS, n)."""
    return numpy_generator(seed, "probe").multinomial(n, np.full(n, 1 / n), DRAWS).astype(float)


def _constant(target: np.ndarray, number: bool) -> float:
    """Return the mean of numbers, or the most frequent class."""
    return float(target.mean()) if number else float(np.bincount(target.astype(int)).argmax())


def predict(
    probe: str, x: np.ndarray, target: np.ndarray, y: np.ndarray, *, number: bool
) -> np.ndarray:
    """Fit a probe, and return what it predicts, (M,).

    Args:
        probe: linear or kNN.
        x: features of the rows that fit, (N, D).
        target: numbers, or class numbers, (N,).
        y: features of other rows, (M, D).
        number: whether the target is a number.

    >>> x = np.linspace(-1, 1, 40)[:, None]
    >>> predict("linear", x, (x[:, 0] > 0).astype(float), np.array([[-2.0], [2.0]]), number=False)
    array([0., 1.])
    """
    from sklearn.linear_model import LogisticRegression, RidgeCV
    from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold

    if not number and len(np.unique(target)) < 2:
        return np.full(len(y), target[0])
    if probe == "linear" and number:
        return np.asarray(RidgeCV(np.logspace(-3, 4, 15)).fit(x, target).predict(y))
    folds = min(FOLDS if len(target) < MANY else 3, len(target))
    if not number:  # a class with one row cannot be in all folds
        folds = max(2, min(folds, int(np.sort(np.unique(target, return_counts=True)[1])[-2])))
    splits = (KFold if number else StratifiedKFold)(folds, shuffle=True, random_state=0)
    with warnings.catch_warnings():  # rare classes, and optimisers that stop early
        warnings.simplefilter("ignore")
        parts = list(splits.split(x, target))
        if probe != "linear":
            return _by_neighbours(x, target, y, parts, number)
        model = LogisticRegression(max_iter=200, tol=1e-3)
        grid = {"C": list(PENALTIES)}
        return np.asarray(GridSearchCV(model, grid, cv=parts).fit(x, target).predict(y))


def _by_neighbours(
    x: np.ndarray,
    target: np.ndarray,
    y: np.ndarray,
    parts: Sequence[tuple[np.ndarray, np.ndarray]],
    number: bool,
) -> np.ndarray:
    """Return the mean, or the most frequent class, of the nearest rows, whose number is the best
    one in a cross-validation."""
    from sklearn.neighbors import NearestNeighbors

    def predictions(known: np.ndarray, places: np.ndarray, k: int) -> np.ndarray:
        near = known[places[:, :k]]
        if number:
            return np.asarray(near.mean(1))
        votes = (near[:, :, None] == np.unique(target)).sum(1)
        return np.asarray(np.unique(target)[votes.argmax(1)])

    counts = [k for k in NEIGHBOURS if k <= min(len(fit) for fit, _ in parts)]
    errors = np.zeros(len(counts))
    for fit, held in parts:
        near = NearestNeighbors(n_neighbors=counts[-1]).fit(x[fit])
        places = near.kneighbors(x[held], return_distance=False)
        for i, k in enumerate(counts):
            wrong = predictions(target[fit], places, k) - target[held]
            errors[i] += (wrong**2).sum() if number else (wrong != 0).sum()
    best = counts[int(errors.argmin())]
    near = NearestNeighbors(n_neighbors=best).fit(x)
    return predictions(target, near.kneighbors(y, return_distance=False), best)


def scored(
    truth: np.ndarray, predicted: np.ndarray, weights: np.ndarray, *, number: bool
) -> np.ndarray:
    """Return R^2 of numbers, or the accuracy of classes, for each set of weights, (B,).

    Args:
        truth, predicted: of the rows, (M,).
        weights: of the rows, (B, M).
        number: whether they are numbers.

    >>> truth = np.array([0.0, 1.0, 2.0, 3.0])
    >>> scored(truth, truth, np.ones((1, 4)), number=True)
    array([1.])
    """
    total = weights.sum(1)
    if not number:
        return np.asarray(weights @ (truth == predicted) / total)
    centred = truth - truth.mean()
    mean = weights @ centred / total
    spread = weights @ centred**2 / total - mean**2
    return np.asarray(1 - (weights @ (truth - predicted) ** 2 / total) / np.maximum(spread, 1e-300))


def balanced(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Return the mean over classes of the accuracy in each class.

    >>> balanced(np.array([0, 0, 0, 1]), np.zeros(4))
    0.5
    """
    return float(np.mean([(predicted[truth == c] == c).mean() for c in np.unique(truth)]))


def _few(
    name: str,
    x: np.ndarray,
    target: np.ndarray,
    held: tuple[np.ndarray, np.ndarray],
    number: bool,
    how: tuple[int, int, int],
) -> tuple[float | None, float | None]:
    """Return mean and standard error of the score over draws of few labels; None if there are not
    more labels than that."""
    (y, truth), (labels, draws, seed) = held, how
    if len(target) <= labels:
        return None, None
    values, ones = [], np.ones((1, len(truth)))
    for i in range(draws):
        rows = numpy_generator(seed, "labels", i).choice(len(target), labels, replace=False)
        predicted = predict(name, x[rows], target[rows], y, number=number)
        values.append(float(scored(truth, predicted, ones, number=number)[0]))
    return float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(draws))


def _concluded(
    result: Probe, boot: Mapping[tuple[str, str], np.ndarray], comparisons: int
) -> Probe:
    """Return a probe with its conclusions."""
    level = NormalDist().inv_cdf(1 - (1 - LEVEL) / (2 * 5 * max(1, comparisons)))
    value = {(s.probe, s.features): s.value for s in result.scores}
    value["constant", ""] = result.baseline

    def interval(one: tuple[str, str], other: tuple[str, str]) -> tuple[float, float]:
        apart, reach = value[one] - value[other], level * float((boot[one] - boot[other]).std())
        return apart - reach, apart + reach

    name, measure = result.name, result.measure
    best = max(((p, CODES) for p in PROBES), key=lambda key: value[key])
    low, _ = interval(best, ("constant", ""))
    lines = [
        f"the codes predict {name}: {measure} {value[best]:.2f} ({best[0]} probe), above the "
        f"baseline of {result.baseline + 0.0:.2f}"
        if low > 0
        else f"no probe of the codes is shown to predict {name} better than the baseline: not "
        f"enough data to tell"
    ]
    if result.role == "condition":
        lines.append(f"the model is given {name}, so its code need not contain it")
    others: Sequence[str] = (RAW, PCA)
    if result.role == "column":
        lines.append(f"{name} is a column of the raw data, so raw data predict it by themselves")
        others = ()
    for other in others:
        for kind in PROBES:
            low, high = interval((kind, CODES), (kind, other))
            words = "raw data" if other == RAW else "PCA of the same width"
            if low > 0 or high < 0:
                side = "better" if low > 0 else "worse"
                lines.append(
                    f"{kind} probe: the codes are {side} than {words}, by "
                    f"{max(low, -high):.3f} to {max(high, -low):.3f} in {measure}"
                )
    return Probe(**{**vars(result), "statements": tuple(lines)})
