"""Metrics of disentanglement: does each unit of the code contain one factor of the data?

    MIG                  gap between the two units with the most mutual information with a factor,
                         as a share of its entropy (Chen et al. 2018)
    SAP                  gap between the two units that predict a factor best, alone (Kumar et al.
                         2018): R^2 of a line for numbers, balanced accuracy of thresholds for
                         classes
    DCI disentanglement, completeness, informativeness
                         from the importances of units in random forests that predict the factors
                         (Eastwood and Williams 2018)
    modularity           how far each unit has information about one factor alone
    explicitness         area under the ROC curve of a logistic regression of each value of a factor
                         (both Ridgeway and Mozer 2018)
    FactorVAE score      accuracy of naming the factor that is the same in a set of rows, from the
                         unit that varies least in it (Kim and Mnih 2018)
    beta-VAE score       accuracy of naming it from the mean distances of pairs of rows (Higgins et
                         al. 2017)

All use the mean of q. Numbers are cut at their deciles into 10 values for the metrics that need
values (MIG, modularity, explicitness, FactorVAE and beta-VAE scores). Units are cut at quantiles
into 20 bins. Units whose variance is at most 0.01 are left out, since no metric is defined for a
constant.

An interval is the estimate plus or minus t times the standard deviation of the metric over random
halves of the rows. A half without replacement has the variance of the whole (Shao and Wu 1989).
The reference `chance` is the same metric after the rows of the code have been permuted.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from vaestro.diagnosis.statistics import t_quantile
from vaestro.files import Json
from vaestro.latent.factors import Factor, cut
from vaestro.latent.probes import require_sklearn
from vaestro.loop import ACTIVE
from vaestro.randomness import numpy_generator
from vaestro.text import InputError

VALUES, BINS = 10, 20  # of a number, and of a unit
FEWEST = 200  # rows in which all factors are known
ALIKE = 32  # rows of a set with the same value of a factor
SETS = 500  # sets that fit, and as many that score
TREES, LEAF = 20, 5
DEPENDENT = 0.05  # share of the entropy above which two factors are called dependent
FIXED = ("FactorVAE score", "beta-VAE score")


@final
@dataclass(frozen=True)
class Metric:
    """Hold one metric.

    Args:
        name: of the metric.
        value: between 0 and 1, and 1 is the best; None if it could not be computed.
        low, high: its 95 % interval.
        chance: the metric for permuted rows.

    >>> Metric("MIG", 0.5, 0.4, 0.6, 0.0).value
    0.5
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    chance: float | None


@final
@dataclass(frozen=True)
class Disentanglement:
    """Hold the metrics of one model, or their means over several.

    Args:
        metrics: in the order of the module's table.
        factors: names of the factors.
        about: what was used, in words.
        notes: one line each.

    >>> one = Disentanglement((Metric("MIG", 0.5, 0.4, 0.6, 0.0),), ("x", "y"), "500 rows")
    >>> one["MIG"].high
    0.6
    """

    metrics: tuple[Metric, ...]
    factors: tuple[str, ...]
    about: str
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Metric:
        """Return a metric by its name."""
        return next(m for m in self.metrics if m.name == name)

    def lines(self) -> Iterator[str]:
        """Yield a table of the metrics as lines of text."""
        yield f"{self.about}; factors {', '.join(self.factors)}"
        yield f"    {'':<22} {'value':>7} {'95 % interval':>16} {'chance':>7}"
        for m in self.metrics:
            value, chance = ("-" if x is None else f"{x:.3f}" for x in (m.value, m.chance))
            interval = "" if m.low is None else f"{m.low:.3f} to {m.high:.3f}"
            yield f"    {m.name:<22} {value:>7} {interval:>16} {chance:>7}"
        for note in self.notes:
            yield f"note: {note}"

    def record(self) -> dict[str, Json]:
        """Return the content of disentanglement.json."""
        return {
            "about": self.about,
            "factors": list(self.factors),
            "metrics": [dict(vars(m)) for m in self.metrics],
            "notes": list(self.notes),
        }

    def columns(self) -> dict[str, list[object]]:
        """Return a table with a row for each metric."""
        names = Metric.__dataclass_fields__
        return {
            name: [math.nan if vars(m)[name] is None else vars(m)[name] for m in self.metrics]
            for name in names
        }


def disentangle(
    codes: np.ndarray, factors: Sequence[Factor], *, repeats: int = 10, seed: int = 0
) -> Disentanglement:
    """Measure how the units of a code contain the factors of the data.

    Args:
        codes: (N, units).
        factors: two or more, each of N rows. Rows in which one is missing are left out.
        repeats: number of random halves from which the intervals are estimated.
        seed: of halves, forests and sets of rows.

    Raises:
        ValueError: there are too few factors, rows or repeats, all units are constant, or
            scikit-learn is not installed.

    >>> v = np.random.default_rng(0).uniform(size=(400, 2))
    >>> found = disentangle(v, [Factor("x", v[:, 0]), Factor("y", v[:, 1])], repeats=2)
    >>> found["DCI disentanglement"].value > 0.9
    True
    """
    require_sklearn()
    if len(factors) < 2:
        raise ValueError(
            f"expected two or more factors; got {', '.join(f.name for f in factors) or 'none'}"
        )
    if repeats < 2:
        raise ValueError(f"expected 2 or more repeats; got {repeats}")
    known = np.flatnonzero(np.all([f.known for f in factors], 0))
    if len(known) < FEWEST:
        raise InputError(
            f"not enough data to tell: {len(known):,} rows have all of the factors "
            f"{', '.join(f.name for f in factors)}, and {FEWEST} are needed"
        )
    z, kept = codes[known].astype(np.float64), [f.pick(known) for f in factors]
    active = z.var(0) > ACTIVE
    if not active.any():
        raise InputError("the codes do not depend on the data: no unit has a variance above 0.01")
    z = z[:, active] / z[:, active].std(0)
    notes = dependence_notes(kept)
    refusal = too_few(kept)
    notes += [refusal] if refusal else []
    order = numpy_generator(seed, "chance").permutation(len(z))
    sets = not refusal
    whole, chance = (measured(x, kept, seed, sets=sets) for x in (z, z[order]))
    halves = []
    for i in range(repeats):
        half = numpy_generator(seed, "half", i).permutation(len(z))[: len(z) // 2]
        part = [f.pick(half) for f in kept]
        halves.append(measured(z[half], part, seed + 1 + i, sets=sets))
    metrics = tuple(
        _with_interval(name, value, [half[name] for half in halves], chance[name])
        for name, value in whole.items()
    )
    about = f"{len(z):,} rows, {int(active.sum())} of {len(active)} units vary"
    return Disentanglement(metrics, tuple(f.name for f in kept), about, tuple(notes))


def _with_interval(
    name: str, value: float | None, halves: list[float | None], chance: float | None
) -> Metric:
    spread = [h for h in halves if h is not None]
    if value is None or len(spread) < 2:
        return Metric(name, value, None, None, chance)
    reach = t_quantile(0.975, len(spread) - 1) * float(np.std(spread, ddof=1))
    return Metric(name, value, max(0.0, value - reach), min(1.0, value + reach), chance)


def over_runs(results: Sequence[Disentanglement]) -> Disentanglement:
    """Return the means of metrics over runs, such as seeds, with intervals of Student's t.

    Raises:
        ValueError: there are fewer than two results, or they have other factors.

    >>> metrics = [(Metric("MIG", x, None, None, 0.0),) for x in (0.2, 0.4)]
    >>> results = [Disentanglement(m, ("a", "b"), "") for m in metrics]
    >>> round(over_runs(results)["MIG"].value, 2)
    0.3
    """
    if len(results) < 2 or len({r.factors for r in results}) > 1:
        raise ValueError("expected two or more results of the same factors; got others")
    metrics = []
    for name in (m.name for m in results[0].metrics):
        values = [v for r in results if (v := r[name].value) is not None]
        chances = [c for r in results if (c := r[name].chance) is not None]
        if len(values) < 2:
            metrics.append(Metric(name, None, None, None, None))
            continue
        mean = float(np.mean(values))
        error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
        reach = t_quantile(0.975, len(values) - 1) * error
        chance = float(np.mean(chances)) if chances else None
        metrics.append(Metric(name, mean, max(0.0, mean - reach), min(1.0, mean + reach), chance))
    return Disentanglement(tuple(metrics), results[0].factors, f"mean over {len(results)} runs")


def measured(
    z: np.ndarray, factors: Sequence[Factor], seed: int, *, sets: bool = True
) -> dict[str, float | None]:
    """Return every metric by name.

    Args:
        z: codes with standard deviations of 1, (N, units).
        factors: of the same rows, without missing values.
        seed: of forests and sets of rows.
        sets: compute the FactorVAE and the beta-VAE score too; they are None otherwise.

    >>> v = np.random.default_rng(0).normal(size=(400, 2))
    >>> round(measured(v, [Factor("x", v[:, 0]), Factor("y", v[:, 1])], 0)["SAP"], 1)
    1.0
    """
    bins = [f.bins(VALUES) for f in factors]
    information, entropies = informations(z, bins)
    order = numpy_generator(seed, "parts").permutation(len(z))
    fit, score = np.sort(order[: len(z) // 2]), np.sort(order[len(z) // 2 :])
    importances, informative = _forests(z, factors, fit, score, seed)
    disentangled, complete = shares(importances)
    fixed = _fixed_sets(z, bins, (fit, score), seed) if sets else (None, None)
    return {
        "MIG": float(np.mean(gaps(information) / entropies)),
        "SAP": float(np.mean(gaps(_alone(z, factors, fit, score)))),
        "DCI disentanglement": disentangled,
        "DCI completeness": complete,
        "DCI informativeness": informative,
        "modularity": modularity(information),
        "explicitness": _explicitness(z, bins, fit, score),
        FIXED[0]: fixed[0],
        FIXED[1]: fixed[1],
    }


def informations(z: np.ndarray, bins: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the mutual information of each unit and factor, (units, factors), and the entropy of
    each factor, (factors,), in nats, from frequencies.

    >>> v = np.arange(100) % 2
    >>> informations(v[:, None].astype(float), [v])[0].round(2)
    array([[0.69]])
    """
    units = [cut(column, BINS) for column in z.T]
    entropies = np.array([_entropy(np.bincount(b)) for b in bins])
    of_units = np.array([_entropy(np.bincount(u)) for u in units])
    joint = np.array([[_entropy(np.bincount(u * (b.max() + 1) + b)) for b in bins] for u in units])
    return np.maximum(0.0, of_units[:, None] + entropies - joint), entropies


def _entropy(counts: np.ndarray) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def gaps(table: np.ndarray) -> np.ndarray:
    """Return the difference of the two largest numbers of each column, (columns,); the largest
    itself if there is one row.

    >>> gaps(np.array([[0.9], [0.2], [0.5]]))
    array([0.4])
    """
    ordered = np.sort(table, 0)
    return np.asarray(ordered[-1] - (ordered[-2] if len(ordered) > 1 else 0.0))


def _alone(
    z: np.ndarray, factors: Sequence[Factor], fit: np.ndarray, score: np.ndarray
) -> np.ndarray:
    """Return how well each unit alone predicts each factor, (units, factors): R^2 of a line for
    numbers, balanced accuracy of thresholds on other rows for classes."""
    from sklearn.tree import DecisionTreeClassifier

    table = np.zeros((z.shape[1], len(factors)))
    for k, factor in enumerate(factors):
        if factor.is_number:
            centred = factor.values - factor.values.mean()
            products = centred @ (z - z.mean(0)) / len(z)
            table[:, k] = products**2 / np.maximum(centred.var() * z.var(0), 1e-300)
            continue
        leaves = max(2, len(factor.classes))
        for u in range(z.shape[1]):
            tree = DecisionTreeClassifier(
                max_leaf_nodes=leaves, class_weight="balanced", random_state=0
            ).fit(z[fit, u : u + 1], factor.values[fit])
            right = tree.predict(z[score, u : u + 1]) == factor.values[score]
            truth = factor.values[score]
            table[u, k] = np.mean([right[truth == c].mean() for c in np.unique(truth)])
    return table


def _forests(
    z: np.ndarray, factors: Sequence[Factor], fit: np.ndarray, score: np.ndarray, seed: int
) -> tuple[np.ndarray, float]:
    """Return the importance of each unit for each factor in a random forest, (units, factors), and
    how well the forests predict other rows.

    The second number is the mean over factors of the share of the error of the mean, or of the most
    frequent class, that the forest removes: R^2 for numbers. It is at least 0.
    """
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    importances, removed = np.zeros((z.shape[1], len(factors))), []
    for k, factor in enumerate(factors):
        kind = RandomForestRegressor if factor.is_number else RandomForestClassifier
        forest = kind(TREES, min_samples_leaf=LEAF, max_features=1.0, random_state=seed % 2**31)
        known, truth = factor.values[fit], factor.values[score]
        predicted = forest.fit(z[fit], known).predict(z[score])
        importances[:, k] = forest.feature_importances_
        if factor.is_number:
            error, most = ((predicted - truth) ** 2).mean(), ((known.mean() - truth) ** 2).mean()
        else:
            classes, times = np.unique(known, return_counts=True)
            error, most = (predicted != truth).mean(), (classes[times.argmax()] != truth).mean()
        removed.append(max(0.0, 1 - float(error) / max(float(most), 1e-300)))
    return importances, float(np.mean(removed))


def shares(importances: np.ndarray) -> tuple[float, float]:
    """Return disentanglement and completeness from importances, (units, factors).

    Disentanglement is 1 minus the entropy of the importances of a unit over factors, relative to
    its maximum, averaged over units by their total importance. Completeness is the same for each
    factor over units, averaged over factors.

    >>> shares(np.eye(3))
    (1.0, 1.0)
    """

    def one_minus_entropy(rows: np.ndarray) -> np.ndarray:
        if rows.shape[1] < 2:
            return np.ones(len(rows))
        p = rows / np.maximum(rows.sum(1, keepdims=True), 1e-300)
        logs = np.log(np.where(p > 0, p, 1.0))
        return np.asarray(1 + (p * logs).sum(1) / math.log(rows.shape[1]))

    weights = importances.sum(1) / max(importances.sum(), 1e-300)
    disentangled = float((weights * one_minus_entropy(importances)).sum())
    used = importances.sum(0) > 0
    complete = one_minus_entropy(importances.T)[used]
    return disentangled, float(complete.mean()) if used.any() else 0.0


def modularity(information: np.ndarray) -> float:
    """Return 1 minus the squared information of a unit about other factors than its main one,
    relative to the main one and averaged over units.

    >>> modularity(np.eye(3)), modularity(np.ones((2, 3)))
    (1.0, 0.0)
    """
    largest = information.max(1)
    used = largest > 0
    squares = (information[used] ** 2).sum(1) / largest[used] ** 2 - 1
    return float((1 - squares / (information.shape[1] - 1)).mean()) if used.any() else 0.0


def _explicitness(
    z: np.ndarray, bins: Sequence[np.ndarray], fit: np.ndarray, score: np.ndarray
) -> float:
    """Return the mean over factors and their values of the area under the ROC curve of a logistic
    regression on all units, on other rows; 0.5 for chance."""
    from sklearn.linear_model import LogisticRegression

    from vaestro.evaluation.prediction import area_under_curve

    areas = []
    for values in bins:
        if len(np.unique(values[fit])) < 2:
            continue
        with warnings.catch_warnings():  # the optimiser stops early
            warnings.simplefilter("ignore")
            model = LogisticRegression(max_iter=100, tol=1e-3).fit(z[fit], values[fit])
        chances = model.predict_proba(z[score])
        own = [
            area_under_curve(values[score] == c, chances[:, j], np.ones(len(score)))
            for j, c in enumerate(model.classes_)
        ]
        areas.append(float(np.nanmean(own)))
    return float(np.mean(areas))


def _usable(values: np.ndarray) -> np.ndarray:
    """Return the values of a factor that have enough rows for sets with the same value."""
    found, counts = np.unique(values, return_counts=True)
    return found[counts >= 4 * ALIKE]


def too_few(factors: Sequence[Factor]) -> str:
    """Return why no sets of rows with the same value of a factor can be drawn; "" if they can.

    >>> too_few([Factor("x", np.arange(99.0)), Factor("y", np.arange(99.0))])[:45]
    'no FactorVAE and beta-VAE scores: they need s'
    """
    short = [f.name for f in factors if len(_usable(f.bins(VALUES))) < 2]
    if not short:
        return ""
    return (
        f"no FactorVAE and beta-VAE scores: they need sets of rows with the same value of a "
        f"factor, and fewer than two values have {4 * ALIKE} rows in: {', '.join(short)}"
    )


def _fixed_sets(
    z: np.ndarray, bins: Sequence[np.ndarray], parts: tuple[np.ndarray, np.ndarray], seed: int
) -> tuple[float, float]:
    """Return the FactorVAE score and the beta-VAE score, from sets of 32 rows, or pairs of rows,
    with the same value of one factor. Half of the rows fit, the others score."""
    from sklearn.linear_model import LogisticRegression

    random = numpy_generator(seed, "sets")
    least, apart, names = [], [], []
    for rows in parts:
        chosen = random.integers(len(bins), size=SETS)
        places = [_alike(bins[k][rows], random) for k in chosen]
        first, second = (z[rows[np.array([p[i] for p in places])]] for i in (0, 1))
        least.append(first.var(1).argmin(1))
        apart.append(np.abs(first - second).mean(1))
        names.append(chosen)
    votes = np.zeros((z.shape[1], len(bins)))
    np.add.at(votes, (least[0], names[0]), 1)
    named = votes.argmax(1)[least[1]]
    model = LogisticRegression(max_iter=1000).fit(apart[0], names[0])
    return float((named == names[1]).mean()), float(model.score(apart[1], names[1]))


def _alike(values: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return two sets of rows with one value of a factor, (ALIKE,) each."""
    found, counts = np.unique(values, return_counts=True)
    enough = found[counts >= min(ALIKE, int(np.sort(counts)[-2:].min()))]
    rows = np.flatnonzero(values == random.choice(enough))
    first, second = (random.choice(rows, ALIKE, replace=len(rows) < ALIKE) for _ in range(2))
    return first, second


def dependence_notes(factors: Sequence[Factor]) -> list[str]:
    """Return a note on factors that depend on each other, which the metrics assume they do not.

    >>> x = np.random.default_rng(0).normal(size=500)
    >>> len(dependence_notes([Factor("x", x), Factor("y", -x)]))
    1
    """
    pairs = []
    for i, one in enumerate(factors):
        for other in factors[:i]:
            a, b = one.bins(VALUES), other.bins(VALUES)
            table = informations(a[:, None].astype(float), [b])
            free = (len(np.unique(a)) - 1) * (len(np.unique(b)) - 1)
            bias = free / (2 * len(a))
            least = min(float(table[1][0]), _entropy(np.bincount(a)))
            share = (float(table[0][0, 0]) - bias) / max(least, 1e-300)
            if share > DEPENDENT:
                pairs.append(f"{other.name} and {one.name} ({share:.0%} of the entropy)")
    if not pairs:
        return []
    return [f"the metrics assume independent factors; these are not: {', '.join(pairs)}"]
