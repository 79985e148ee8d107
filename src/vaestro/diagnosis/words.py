"""Write the summary of a diagnosis, and sentences that several rules use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vaestro.diagnosis.code import faint, silence_unclear, use_of, used
from vaestro.diagnosis.records import Finding, Unit
from vaestro.diagnosis.statistics import Paired
from vaestro.evaluation import plus_minus

if TYPE_CHECKING:
    from vaestro.diagnosis.rules import Case


def cost_of(use: Paired) -> str:
    """Return in words how much reconstruction degrades with the code of another row.

    >>> import numpy as np
    >>> cost_of(Paired.of(np.array([1.0, 2.0, 3.0]), p=0.01))
    '2.00 +- 0.58 nats (median 2, positive for 100%, probability by chance 0.01)'
    """
    chance = "" if use.p is None else f", probability by chance {use.p:.2g}"
    return (
        f"{plus_minus((use.mean, use.stderr))} nats (median {use.median:.2g}, positive for "
        f"{use.positive:.0%}{chance})"
    )


def _checked(case: Case) -> str:
    """Return in words how convergence was checked."""
    if case.continued is not None:
        gain = case.continued.gain
        return (
            f"; {case.continued.steps:,} further steps at a constant rate change the objective "
            f"of {gain.n:,} validation data by "
            f"{plus_minus((gain.mean, gain.stderr))} nats (limit {case.rise:.2g})"
        )
    if case.curves.valid:
        return (
            "; over the last tenth of the run the validation bound rose by no more than its error; "
            "further steps were not tried"
        )
    return ""


def summary(verdict: str, case: Case, units: Sequence[Unit], finding: Finding | None) -> str:
    """Return the verdict as a sentence, with the checks that it rests on.

    >>> from vaestro.diagnosis import Case, Curves, Remedies
    >>> case = Case(Remedies("run", {}), Curves([], 10), None)
    >>> summary("diverged", case, (), None)
    'Training diverged: the weights and the scores of this run are not usable.'
    """
    informative = sum(u.role == "informative" for u in units)
    active = (
        f"{informative} of {len(units)} units {'is' if informative == 1 else 'are'} informative"
    )
    if verdict in ("collapsed", "latent unused by the decoder") and not case.reads_latent:
        return "The decoder has no latent input, as configured: this is a plain model of the data."
    return {
        "diverged": "Training diverged: the weights and the scores of this run are not usable.",
        "not converged": "The run was too short: more steps are expected to raise its bound.",
        "collapsed": "The encoder almost ignores its input: codes contain next to no "
        "information about the data."
        if case.measures is not None and faint(case.measures)
        else "The encoder ignores its input: codes contain no information about the data.",
        "latent unused by the decoder": "The encoder's output depends on its input, but there "
        "is no evidence that the code improves the objective."
        if case.measures is not None and use_of(case)[0] != "unused"
        else "The encoder's output depends on its input, but the decoder does not use the code.",
        "overfitted": "The model has overfitted: held-out data score much worse than training "
        "data.",
        "partly collapsed": f"Some units are inactive; {active}.",
        "small rate but informative": f"The code contains little information, but it improves the "
        f"objective; {active}.",
        "healthy": f"{_healthy(case)}{_checked(case)}; {active}."
        + (
            " But samples lose some of the dependence between the columns."
            if case.loses_dependence
            else ""
        ),
    }[verdict]


def _healthy(case: Case) -> str:
    """Return the first half of the summary of a healthy run."""
    m = case.measures
    if m is None or not case.reads_latent:
        return "No fault was found"
    if silence_unclear(m):
        return "Not enough data to tell whether the code depends on the data"
    state, use, _ = use_of(case)
    if state != "used":
        return "Not enough data to tell whether the decoder uses the code"
    if not used(case):
        return f"Not enough data to tell whether the code is worth its KL of {m.rate:.2g} nats"
    return (
        f"The code depends on the data, and the decoder uses it (measured on {use.n:,} "
        f"{m.use_split or m.split} rows)"
    )
