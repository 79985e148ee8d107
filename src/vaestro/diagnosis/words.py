"""The sentences of a diagnosis that several rules share, and its summary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vaestro.diagnosis.code import silence_unclear, use_of, used, worthless
from vaestro.diagnosis.records import Finding, Unit
from vaestro.diagnosis.statistics import Paired
from vaestro.evaluation import plus_minus

if TYPE_CHECKING:
    from vaestro.diagnosis.rules import Case


def cost_of(use: Paired) -> str:
    """Say what another datum's z costs."""
    chance = "" if use.p is None else f", by chance with probability {use.p:.2g}"
    return f"{plus_minus((use.mean, use.stderr))} nats (median {use.median:.2g}, positive for {use.positive:.0%}{chance})"


def _checked(case: Case) -> str:
    """Say what was seen of convergence."""
    if case.continued is not None:
        gain = case.continued.gain
        return (
            f"; {case.continued.steps:,} further steps at a constant rate change the objective of {gain.n:,} validation data by "
            f"{plus_minus((gain.mean, gain.stderr))} nats (limit {case.rise:.2g})"
        )
    if case.curves.valid:
        return "; the validation bound rose by no more than its error over the last tenth of the run, and further steps were not tried"
    return ""


def summary(verdict: str, case: Case, units: Sequence[Unit], finding: Finding | None) -> str:
    """Return the verdict as a sentence, with what was checked."""
    informative = sum(u.role == "informative" for u in units)
    carrying = f"{informative} of {len(units)} units carry information"
    if verdict in ("collapsed", "latent unused by the decoder") and not case.reads_latent:
        return "The decoder does without the latent, as it was made to: this is a plain model of the data."
    return {
        "diverged": "Training diverged: its numbers are of no use.",
        "not converged": "The run was too short: with more steps its bound would be higher.",
        "collapsed": "The encoder ignores its input: codes tell nothing of the data.",
        "latent unused by the decoder": "The code depends on the data, but the model does as well without it."
        if worthless(case)
        else "The encoder describes the data, but the decoder gains next to nothing from its code.",
        "overfitted": "The model knows its training data by heart: held-out data score far worse.",
        "partly collapsed": f"Some of the latent is switched off by the weight of the KL; {carrying}.",
        "small rate but informative": f"The code tells little, but what it tells is used; {carrying}.",
        "healthy": f"{_healthy(case)}{_checked(case)}; {carrying}.",
    }[verdict]


def _healthy(case: Case) -> str:
    m = case.measures
    if m is None or not case.reads_latent:
        return "No fault was found"
    if silence_unclear(m):
        return "No fault was found, but the data are too few to tell whether the code depends on them"
    if use_of(case)[0] == "used" and not used(case):
        return "The code depends on the data and the decoder uses it, but whether it is worth its KL is not clear"
    if use_of(case)[0] != "used":
        return "The code depends on the data, but the data held out are too few to tell whether the decoder uses it"
    return f"The code depends on the data, and the decoder uses it (seen on {use_of(case)[1].n:,} {m.use_split or m.split} data)"
