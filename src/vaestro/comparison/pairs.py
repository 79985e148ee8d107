"""Take the differences of pairs of rows, correct for the number of pairs, and say what follows from
each."""

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


@dataclass(frozen=True)
class Pair:
    """Hold what follows from two rows of a group.

    Args:
        higher: the name of the row whose number is higher.
        lower: the other's.
        relation: "better" (the higher is the better model for certain, up to error), "better on
            simulated data" (it is, as far as simulated data speak for the real), "higher" (it is if
            the lower's gap is below the difference, and if both numbers are of the weights that the
            runs have now), "equal" (they cannot be told apart).
        difference: the mean over data of the higher's number minus the lower's, in nats.
        stderr: its standard error, paired over data; NaN for a single datum.
        n: data that it is over.
        methods: of the higher and of the lower.
        sentence: all of this in words.
        p: the two-sided p-value of the difference (Student's t); 1 where there are too few data.
        p_corrected: the same, corrected for the number of pairs that were compared together.
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
        """Tell whether there were enough data for a test, and all of them finite."""
        return self.n >= FEWEST and math.isfinite(self.difference)

    @property
    def decided(self) -> bool:
        """Tell whether the models are ordered without an if."""
        return self.relation.startswith("better")


@final
@dataclass(frozen=True, eq=False)
class _Contest:
    """Hold two rows, the higher first, by which bounds they are judged, and the evidence.

    Args:
        a, b: the rows.
        of_a, of_b: the bound of each that the pair is judged by.
        difference, error, n: of a less b: the mean, its standard error, and the number of paired
            data.
    """

    a: Row
    b: Row
    of_a: Bound
    of_b: Bound
    difference: float
    error: float
    n: int

    @classmethod
    def of(cls, a: Row, b: Row) -> _Contest:
        of_a, of_b = _choose(a, b)
        difference, error, n = _difference(of_a, of_b)
        if difference < 0 or (not abs(difference) > 0 and b.name < a.name):
            return cls(b, a, of_b, of_a, abs(difference), error, n)
        return cls(a, b, of_a, of_b, difference, error, n)

    @property
    def tested(self) -> bool:
        """Tell whether there are enough data for a test, and all of them finite."""
        return self.n >= FEWEST and math.isfinite(self.difference)

    @property
    def p(self) -> float:
        """Return the p-value of the difference."""
        return p_value(self.difference, self.error, self.n - 1) if self.tested else 1.0

    @property
    def sure(self) -> bool:
        """Tell whether a higher number is a better model for certain: the lower number is exact."""
        return self.of_b.side == "exact"

    @property
    def gap_known(self) -> bool:
        """Tell whether the lower row's gap was measured, on simulated data that are like the real
        ones."""
        return self.of_b.gap is not None and self.b.alike

    @property
    def p_beyond_gap(self) -> float:
        """Return the p-value of the difference exceeding the lower row's gap, as simulated data
        show it; 1 where it is not known.

        The two standard errors are added, which holds for any dependence between them.
        """
        gap = self.of_b.gap
        if self.sure:
            return self.p
        if gap is None or not self.gap_known or not self.tested or gap[0] >= self.difference:
            return 1.0
        return max(
            self.p, p_value(self.difference - gap[0], self.error + gap[1], min(self.n, gap[2]) - 1)
        )


def decided(pairs: Sequence[tuple[Row, Row]]) -> dict[tuple[str, str], Pair]:
    """Say what follows from each of some pairs of rows, corrected for their number; by the names of
    both rows.

    Two statements are made of a pair, that one number is higher and that one model is better. Each
    family is corrected by itself. The second is made only together with the first.
    """
    contests = [_Contest.of(a, b) for a, b in pairs]
    tested = [c for c in contests if c.tested]
    corrected = zip(
        holm([c.p for c in tested]), holm([c.p_beyond_gap for c in tested]), strict=True
    )
    known = {id(c): p for c, p in zip(tested, corrected, strict=True)}
    made = [_judged(c, *known.get(id(c), (1.0, 1.0)), len(tested)) for c in contests]
    return {(a.name, b.name): pair for (a, b), pair in zip(pairs, made, strict=True)}


def _judged(contest: _Contest, p_corrected: float, p_beyond: float, pairs: int) -> Pair:
    """Say what follows from a contest; swapping its rows gives the mirrored statement."""
    a, b, of_a, of_b = contest.a, contest.b, contest.of_a, contest.of_b
    difference, error, n = contest.difference, contest.error, contest.n
    said = number(difference, error)
    count = f"{n:,} {'data' if n > 1 else 'datum'}" + (f" of {a.n:,}" if n < a.n else "")
    method, also = _how(of_a, of_b), _also(a, b, of_a, of_b)
    how = f"{method}, {'paired over ' if n > 1 else 'on '}{count}{also}"

    def made(relation: str, sentence: str) -> Pair:
        return Pair(
            a.name,
            b.name,
            relation,
            difference,
            error,
            n,
            (of_a.label, of_b.label),
            sentence,
            contest.p,
            p_corrected,
        )

    if not math.isfinite(difference):
        return made(
            "equal",
            f"{a.name} and {b.name} cannot be compared: their difference is not finite ({how})",
        )
    if n < FEWEST:
        return made(
            "equal",
            f"{a.name} and {b.name} cannot be told apart: they differ by {said} nats "
            f"({method}{also}), from {count}, too few for the "
            "error of their difference",
        )
    if p_corrected >= LEVEL:
        alone = (
            f"; p = {contest.p:.2g} alone, {p_corrected:.2g} corrected for {pairs} pairs"
            if contest.p < LEVEL
            else ""
        )
        return made(
            "equal",
            f"{a.name} and {b.name} cannot be told apart: they differ by {said} nats "
            f"({how}{alone})",
        )
    if a.stale or b.stale:
        return made("higher", _stale(contest, said, how))
    if contest.sure and of_a.side == "exact":
        return made(
            "better",
            f"{a.name} is better than {b.name} by {said} nats; both values are exact ({how})",
        )
    if contest.sure:
        return made(
            "better",
            f"{a.name} is better than {b.name}: its lower bound lies {said} nats above "
            f"{b.name}'s exact value ({how})",
        )
    gap = of_b.gap
    if gap is not None and max(p_beyond, p_corrected) < LEVEL:
        return made(
            "better on simulated data",
            f"{a.name}'s {'value' if of_a.side == 'exact' else 'bound'} is higher than "
            f"{b.name}'s by {said} nats, more than {b.name}'s gap "
            f"(measured on simulated data: at most {number(*gap[:2])}): {a.name} is better, as "
            f"far as simulated data speak for the real "
            f"({how})",
        )
    return made("higher", _higher(contest, said, how))


def _stale(contest: _Contest, said: str, how: str) -> str:
    """Say that a difference is of earlier weights than the runs have now."""
    a, b = contest.a, contest.b
    stale = sorted(r.name for r in (a, b) if r.stale)
    of = (
        f"{stale[0]}'s evaluation is"
        if len(stale) == 1
        else f"the evaluations of {listing(stale)} are"
    )
    noun = "value" if contest.of_a.side == "exact" else "bound"
    return (
        f"{a.name}'s {noun} is higher than {b.name}'s by {said} nats ({how}), but nothing "
        f"follows for the models as they are now: "
        f"{of} of earlier weights"
    )


def _higher(contest: _Contest, said: str, how: str) -> str:
    """Say what a higher number means when the lower row's gap may be larger than the difference."""
    a, b, of_a, gap = contest.a, contest.b, contest.of_a, contest.of_b.gap
    if gap is None:
        knowledge = f"{b.name}'s gap is not known: {_again(b)} measures it"
    else:
        unlike = "" if b.alike else ", which may be unlike the data"
        knowledge = (
            f"{b.name}'s gap, measured on simulated data{unlike}: at most {number(*gap[:2])}"
        )
    threshold = f"{contest.difference:.{decimals(contest.error)}f}"
    if of_a.side == "exact":
        return (
            f"{a.name}'s exact value is higher than {b.name}'s lower bound by {said} nats "
            f"({how}); that {a.name} is better does not "
            f"follow: {a.name} is better than {b.name} only if {b.name}'s gap is below "
            f"{threshold} ({knowledge})"
        )
    return (
        f"{a.name}'s bound is higher than {b.name}'s by {said} nats ({how}); {a.name} is the "
        f"better model if {b.name}'s gap is below "
        f"{threshold} ({knowledge})"
    )


def _again(row: Row) -> str:
    """Write the command that measures a run's gap, on the same data and with the same draws, so
    that it stays in its group."""
    k = next((b.k for b in row.bounds if b.method == "iwae" and b.k != 500), None)
    options = f" --k {k}" if k else ""
    if not row.own:  # which rows are taken by default depends on the source
        options += f" --data {shlex.quote(row.source)} --split {row.split}"
    elif row.split != "test":
        options += f" --split {row.split}"
    return (
        f"vaestro evaluate {shlex.quote(str(row.path))} --methods elbo,iwae,ais{options} "
        f"--limit {row.n}{row.seed_option}"
    )


def _choose(a: Row, b: Row) -> tuple[Bound, Bound]:
    """Choose what a pair is judged by: a method of both, then the most data, then the tightest."""
    every = [(x, y) for x in a.bounds for y in b.bounds if (x.there & y.there).any()]
    return max([(x, y) for x, y in every if _alike(x, y)] or every, key=_worth)


def _alike(a: Bound, b: Bound) -> bool:
    """Tell whether two bounds are like with like: of one method, or one of them exact, which is
    never the looser."""
    return a.method == b.method or "exact" in (a.side, b.side)


def _worth(pair: tuple[Bound, Bound]) -> tuple[int, int, float]:
    both = pair[0].there & pair[1].there
    exact = sum(bound.side == "exact" for bound in pair)
    return int(both.sum()), exact, float(pair[0].nats[both].mean() + pair[1].nats[both].mean())


def _difference(a: Bound, b: Bound) -> tuple[float, float, int]:
    both = a.there & b.there
    with np.errstate(invalid="ignore"):
        difference, error = mean_and_error(a.nats[both] - b.nats[both])
    return difference, error, int(both.sum())


def _how(a: Bound, b: Bound) -> str:
    if a.side == b.side == "exact":
        return "exact"
    if "exact" in (a.side, b.side):
        return a.label if b.side == "exact" else b.label
    if a.tightness == b.tightness:
        return a.label
    return f"{a.label} against {b.label}, bounds of different tightness"


def _also(a: Row, b: Row, of_a: Bound, of_b: Bound) -> str:
    """Add the difference by a method that is tighter in both but covers fewer data."""
    tops = [(x, y) for x in a.bounds for y in b.bounds if _alike(x, y)]
    there = (of_a.there & of_b.there).sum()
    better = []
    for x, y in tops:
        both = x.there & y.there
        fewer = 0 < both.sum() < there
        if fewer and all(
            new is old or new.nats[both].mean() > old.nats[both].mean()
            for new, old in ((x, of_a), (y, of_b))
        ):
            better.append((x, y))
    if not better:
        return ""
    x, y = max(better, key=_worth)
    difference, error, n = _difference(x, y)
    return (
        f"; {a.name} minus {b.name} by {_how(x, y)}, on {n:,} of them: "
        f"{number(difference, error, '+')}"
    )
