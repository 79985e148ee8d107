"""Rules on samples from the prior."""

from __future__ import annotations

from vaestro.diagnosis.code import collapsed, units_of, unused
from vaestro.diagnosis.records import Finding
from vaestro.diagnosis.rules.case import LOST, Case
from vaestro.diagnosis.rules.fit import not_converged

WEAKER = 0.3  # weight of the KL that the remedy tries


def lost_dependence(case: Case) -> Finding | None:
    """Find samples of a table in which the columns depend less on each other than in real rows.

    A run that is not converged, or whose code is not used, has another finding.
    """
    d, m = case.dependence, case.measures
    if d is None or m is None or not_converged(case) is not None:
        return None
    if case.reads_latent and (collapsed(m) or unused(case)):
        return None
    low, high = d.limits
    pairs = f"{d.pairs} {'pair' if d.pairs == 1 else 'pairs'} of columns that depend on each other"
    if not case.loses_dependence:
        if high < 2 * LOST:
            return None
        text = (
            f"{d.n:,} rows are not enough to tell whether samples keep the dependence of the "
            f"columns: between {max(low, 0):.0%} and {min(high, 1):.0%} of it is lost, over {pairs}"
        )
        numbers = {"lost": d.lost, "low": low, "high": high}
        return Finding("dependence in samples unclear", "note", text, numbers=numbers)
    units = units_of(case)
    informative = sum(u.role == "informative" for u in units)
    # A weaker KL helps if the units are in use; it does not switch on others.
    crowded = case.beta >= 1 and informative > len(units) / 2
    text = (
        f"{informative} of {len(units)} units are informative, and {d.lost:.0%} (at least "
        f"{low:.0%}) of the dependence of the columns is lost in samples: pair trends "
        f"{d.trends[0]:.2f}, of real rows {d.trends[1]:.2f}, over {pairs}; worst: "
        + ", ".join(f"{a} and {b}" for a, b in d.worst)
    )
    return Finding(
        "dependence lost in samples",
        "warning",
        text,
        case.remedy.with_beta(WEAKER) if crowded else "",
        None,
        {"lost": d.lost, "low": low, "high": high},
    )
