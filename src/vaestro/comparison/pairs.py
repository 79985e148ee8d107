"""Compute paired differences between rows, correct p-values for the number of pairs, and write the
conclusions as sentences."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from vaestro.comparison.evidence import Bound, Row
from vaestro.comparison.significance import FEWEST, LEVEL, holm, p_value
from vaestro.comparison.words import decimals, listing, number
from vaestro.evaluation.records import mean_and_error


@final
@dataclass(frozen=True)
class Pair:
    """The conclusion about two rows of a group.

    Args:
        higher: name of the row with the higher mean.
        lower: name of the other row.
        relation: one of four values.
            "better": the higher row is the better model, up to statistical error.
            "better on simulated data": the same, if the gap on real data equals the gap that was
            measured on simulated data.
            "higher": the higher row is the better model only if the gap of the lower row is below
            the difference, and only if both evaluations used the current weights.
            "equal": no significant difference.
        difference: mean over data of higher minus lower, in nats.
        stderr: standard error of `difference`, paired over data; NaN for a single datum.
        n: number of data in both bounds.
        methods: method of the higher row and of the lower row.
        sentence: the conclusion in words.
        p: two-sided p-value of the difference (Student's t); 1 if there are too few data.
        p_corrected: `p`, corrected for the number of pairs in the comparison.

    >>> Pair("a", "b", "better", 2.0, 0.1, 100, ("exact", "exact"), "", 1e-9, 1e-9).decided
    True
    """

    higher: str
    lower: str
    relation: str
    difference: float
    stderr: float
    n: int
    methods: tuple[str, str]
    sentence: str
    p: float
    p_corrected: float

    @property
    def tested(self) -> bool:
        """Return whether there were enough data for a test, and the difference is finite."""
        return self.n >= FEWEST and math.isfinite(self.difference)

    @property
    def decided(self) -> bool:
        """Return whether one model is better than the other without a condition on its gap."""
        return self.relation.startswith("better")


@final
@dataclass(frozen=True, eq=False)
class _Contest:
    """Two rows, the higher first, with the bounds that are compared and their difference.

    Args:
        a, b: the rows.
        bound_a, bound_b: the bound of each row that is compared.
        difference, error, n: of a minus b: mean, standard error, and number of paired data.
    """

    a: Row
    b: Row
    bound_a: Bound
    bound_b: Bound
    difference: float
    error: float
    n: int

    @classmethod
    def of(cls, a: Row, b: Row) -> _Contest:
        bound_a, bound_b = _choose(a, b)
        difference, error, n = _difference(bound_a, bound_b)
        if difference < 0 or (not abs(difference) > 0 and b.name < a.name):
            return cls(b, a, bound_b, bound_a, abs(difference), error, n)
        return cls(a, b, bound_a, bound_b, difference, error, n)

    @property
    def tested(self) -> bool:
        """Return whether there are enough data for a test, and the difference is finite."""
        return self.n >= FEWEST and math.isfinite(self.difference)

    @property
    def p(self) -> float:
        """Return the p-value of the difference."""
        return p_value(self.difference, self.error, self.n - 1) if self.tested else 1.0

    @property
    def exact_below(self) -> bool:
        """Return whether the lower number is exact, so that a higher bound implies a better
        model."""
        return self.bound_b.side == "exact"

    @property
    def p_beyond_gap(self) -> float:
        """Return the p-value of the difference exceeding the gap of the lower row.

        The gap is the one on simulated data; 1 if it was not measured, or if the simulated data
        differ from the data. The two standard errors are added, which holds for any dependence
        between them.
        """
        gap = self.bound_b.gap
        if self.exact_below:
            return self.p
        if gap is None or not self.b.alike or not self.tested or gap[0] >= self.difference:
            return 1.0
        return max(
            self.p, p_value(self.difference - gap[0], self.error + gap[1], min(self.n, gap[2]) - 1)
        )

    @property
    def size(self) -> str:
        """Return the difference with its standard error: 2.10 +- 0.05."""
        return number(self.difference, self.error)

    @property
    def method(self) -> str:
        """Return the name of the method, or of both methods if they differ."""
        return _method(self.bound_a, self.bound_b)

    @property
    def count(self) -> str:
        """Return the number of paired data in words."""
        total = f" of {self.a.n:,}" if self.n < self.a.n else ""
        return f"{self.n:,} {'data' if self.n > 1 else 'datum'}{total}"

    @property
    def basis(self) -> str:
        """Return the method and the data of the difference, and a tighter method on fewer data."""
        pairing = "paired over" if self.n > 1 else "on"
        return f"{self.method}, {pairing} {self.count}{_tighter(self)}"


def decided(pairs: Sequence[tuple[Row, Row]]) -> dict[tuple[str, str], Pair]:
    """Return the conclusion about each pair of rows, by the names of both rows.

    There are two statements about a pair: one number is higher, and one model is better. The
    p-values of each kind of statement are corrected together (Holm 1979). The second statement is
    made only together with the first.

    >>> decided([])
    {}
    """
    contests = [_Contest.of(a, b) for a, b in pairs]
    tested = [c for c in contests if c.tested]
    corrected = zip(
        holm([c.p for c in tested]), holm([c.p_beyond_gap for c in tested]), strict=True
    )
    p_values = {id(c): p for c, p in zip(tested, corrected, strict=True)}
    conclusions = [_conclusion(c, *p_values.get(id(c), (1.0, 1.0)), len(tested)) for c in contests]
    return {(a.name, b.name): pair for (a, b), pair in zip(pairs, conclusions, strict=True)}


def _conclusion(contest: _Contest, p_corrected: float, p_beyond: float, pairs: int) -> Pair:
    """Return the conclusion from a contest. If its rows are swapped, the statement is mirrored."""
    if not contest.tested or p_corrected >= LEVEL:
        relation, sentence = "equal", _equal(contest, p_corrected, pairs)
    elif contest.a.stale or contest.b.stale:
        relation, sentence = "higher", _stale(contest)
    elif contest.exact_below:
        relation, sentence = "better", _better(contest)
    elif contest.bound_b.gap is not None and max(p_beyond, p_corrected) < LEVEL:
        relation, sentence = "better on simulated data", _better_on_simulated(contest)
    else:
        relation, sentence = "higher", _higher(contest)
    return Pair(
        contest.a.name,
        contest.b.name,
        relation,
        contest.difference,
        contest.error,
        contest.n,
        (contest.bound_a.label, contest.bound_b.label),
        sentence,
        contest.p,
        p_corrected,
    )


def _equal(contest: _Contest, p_corrected: float, pairs: int) -> str:
    """Write that no significant difference was found, and why."""
    names = f"{contest.a.name} and {contest.b.name}"
    if not math.isfinite(contest.difference):
        return f"{names} cannot be compared: their difference is not finite ({contest.basis})"
    head = f"{names} cannot be told apart: they differ by {contest.size} nats"
    if contest.n < FEWEST:
        return (
            f"{head} ({contest.method}{_tighter(contest)}), from {contest.count}, too few for the "
            f"error of their difference"
        )
    alone = (
        f"; p = {contest.p:.2g} alone, {p_corrected:.2g} corrected for {pairs} pairs"
        if contest.p < LEVEL
        else ""
    )
    return f"{head} ({contest.basis}{alone})"


def _better(contest: _Contest) -> str:
    """Write that a model is better than an exact value."""
    a, b = contest.a.name, contest.b.name
    if contest.bound_a.side == "exact":
        return (
            f"{a} is better than {b} by {contest.size} nats; both values are exact "
            f"({contest.basis})"
        )
    return (
        f"{a} is better than {b}: its lower bound is {contest.size} nats above {b}'s exact value "
        f"({contest.basis})"
    )


def _noun(contest: _Contest) -> str:
    return "value" if contest.bound_a.side == "exact" else "bound"


def _better_on_simulated(contest: _Contest) -> str:
    """Write that the difference exceeds the gap of the lower row on simulated data."""
    a, b, gap = contest.a.name, contest.b.name, contest.bound_b.gap
    assert gap is not None
    return (
        f"{a}'s {_noun(contest)} is higher than {b}'s by {contest.size} nats, more than {b}'s gap "
        f"(measured on simulated data: at most {number(*gap[:2])}): {a} is better, if the gap on "
        f"real data is as on simulated data ({contest.basis})"
    )


def _stale(contest: _Contest) -> str:
    """Write that a difference is of earlier weights than the runs have now."""
    a, b = contest.a, contest.b
    stale = sorted(r.name for r in (a, b) if r.stale)
    evaluations = (
        f"{stale[0]}'s evaluation is"
        if len(stale) == 1
        else f"the evaluations of {listing(stale)} are"
    )
    return (
        f"{a.name}'s {_noun(contest)} is higher than {b.name}'s by {contest.size} nats "
        f"({contest.basis}), but nothing follows for the models as they are now: {evaluations} of "
        f"earlier weights"
    )


def _higher(contest: _Contest) -> str:
    """Write what a higher number means if the gap of the lower row may exceed the difference."""
    a, b, gap = contest.a.name, contest.b.name, contest.bound_b.gap
    if gap is None:
        knowledge = f"{b}'s gap is not known: {_command(contest.b)} measures it"
    else:
        unlike = "" if contest.b.alike else ", which may differ from the data"
        knowledge = f"{b}'s gap, measured on simulated data{unlike}: at most {number(*gap[:2])}"
    threshold = f"{contest.difference:.{decimals(contest.error)}f}"
    if contest.bound_a.side == "exact":
        return (
            f"{a}'s exact value is higher than {b}'s lower bound by {contest.size} nats "
            f"({contest.basis}); it does not follow that {a} is better: {a} is better than {b} "
            f"only if {b}'s gap is below {threshold} ({knowledge})"
        )
    return (
        f"{a}'s bound is higher than {b}'s by {contest.size} nats ({contest.basis}); {a} is the "
        f"better model if {b}'s gap is below {threshold} ({knowledge})"
    )


def _command(row: Row) -> str:
    """Return the command that measures a run's gap on the same data with the same number of draws,
    so that the run stays in its group."""
    k = next((b.k for b in row.bounds if b.method == "iwae" and b.k != 500), None)
    options = f" --k {k}" if k else ""
    if not row.own_source:  # the default split depends on the source
        options += f" --data {shlex.quote(row.source)} --split {row.split}"
    elif row.split != "test":
        options += f" --split {row.split}"
    return (
        f"vaestro evaluate {shlex.quote(str(row.path))} --methods elbo,iwae,ais{options} "
        f"--limit {row.n}{row.seed_option}"
    )


def _choose(a: Row, b: Row) -> tuple[Bound, Bound]:
    """Return the bounds to compare: a common method first, then the most data, then the
    tightest."""
    every = [(x, y) for x in a.bounds for y in b.bounds if (x.mask & y.mask).any()]
    return max([(x, y) for x, y in every if _comparable(x, y)] or every, key=_priority)


def _comparable(a: Bound, b: Bound) -> bool:
    """Return whether two bounds have the same method, or one of them is exact and therefore at
    least as tight."""
    return a.method == b.method or "exact" in (a.side, b.side)


def _priority(pair: tuple[Bound, Bound]) -> tuple[int, int, float]:
    both = pair[0].mask & pair[1].mask
    exact = sum(bound.side == "exact" for bound in pair)
    return int(both.sum()), exact, float(pair[0].nats[both].mean() + pair[1].nats[both].mean())


def _difference(a: Bound, b: Bound) -> tuple[float, float, int]:
    both = a.mask & b.mask
    with np.errstate(invalid="ignore"):
        difference, error = mean_and_error(a.nats[both] - b.nats[both])
    return difference, error, int(both.sum())


def _method(a: Bound, b: Bound) -> str:
    if a.side == b.side == "exact":
        return "exact"
    if "exact" in (a.side, b.side):
        return a.label if b.side == "exact" else b.label
    if a.tightness == b.tightness:
        return a.label
    return f"{a.label} against {b.label}, bounds of different tightness"


def _tighter(contest: _Contest) -> str:
    """Write the difference by a method that is tighter for both rows but covers fewer data; empty
    if there is none."""
    a, b, bound_a, bound_b = contest.a, contest.b, contest.bound_a, contest.bound_b
    candidates = [(x, y) for x in a.bounds for y in b.bounds if _comparable(x, y)]
    tighter = []
    for x, y in candidates:
        both = x.mask & y.mask
        if 0 < both.sum() < contest.n and all(
            new is old or new.nats[both].mean() > old.nats[both].mean()
            for new, old in ((x, bound_a), (y, bound_b))
        ):
            tighter.append((x, y))
    if not tighter:
        return ""
    x, y = max(tighter, key=_priority)
    difference, error, n = _difference(x, y)
    return (
        f"; {a.name} minus {b.name} by {_method(x, y)}, on {n:,} of them: "
        f"{number(difference, error, '+')}"
    )
