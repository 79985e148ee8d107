"""All rules in order, and the verdict of their findings."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from vaestro.diagnosis import curve_rules
from vaestro.diagnosis.code import (
    CHANCE,
    FEW,
    SMALL,
    SMALL_RATE,
    UNIT_RATE,
    UNSTRUCTURED,
    UNUSED,
    VISIBLE,
    WORTH,
    units_of,
)
from vaestro.diagnosis.curves import SMALL_SIGNAL, Curves
from vaestro.diagnosis.records import SEVERITIES, VERDICTS, Diagnosis, Finding
from vaestro.diagnosis.remedies import Remedies
from vaestro.diagnosis.rules.case import LOST, RISE, Case
from vaestro.diagnosis.rules.fit import (
    CERTAIN,
    DIVERGED,
    NEAR_LIMIT,
    NOISY,
    OVERFITTED,
    RESIDUAL,
    divergence,
    further_terms,
    misfit,
    noisy_gradient,
    not_converged,
    overfitting,
    saturated,
)
from vaestro.diagnosis.rules.latent import (
    MISS,
    aggregate,
    collapse,
    decoder_ignores,
    noise_units,
    partly_collapsed,
    small_rate,
    switched_off,
    unclear,
)
from vaestro.diagnosis.rules.numbers import numbers_of
from vaestro.diagnosis.rules.samples import lost_dependence
from vaestro.diagnosis.scales import SETTLED
from vaestro.diagnosis.words import summary
from vaestro.loop import ACTIVE

THRESHOLDS = {
    "active": ACTIVE,
    "signal": SMALL_SIGNAL,
    "standard_errors": CERTAIN,
    "difference": SMALL,
    "overfitted": OVERFITTED,
    "small_rate": SMALL_RATE,
    "unit_rate": UNIT_RATE,
    "aggregate_nats": MISS[0],
    "aggregate_share": MISS[1],
    "near_limit": NEAR_LIMIT,
    "residual": RESIDUAL,
    "settled": SETTLED,
    "unstructured": UNSTRUCTURED,
    "visible": VISIBLE,
    "gradient_noise": NOISY,
    "unused_share": UNUSED[0],
    "unused_by_chance_share": UNUSED[1],
    "worth_nats": WORTH[0],
    "worth_share": WORTH[1],
    "chance": CHANCE,
    "few": FEW,
    "lost_dependence": LOST,
    "rise_nats": RISE[0],
    "rise_share": RISE[1],
    "diverged_nats": DIVERGED[0],
    "diverged_share": DIVERGED[1],
}


def _of_curves(
    rule: Callable[[Curves, Remedies], Finding | None],
) -> Callable[[Case], Finding | None]:
    return lambda case: rule(case.curves, case.remedy)


RULES: tuple[Callable[[Case], Finding | None], ...] = (
    divergence,
    not_converged,
    collapse,
    decoder_ignores,
    unclear,
    overfitting,
    partly_collapsed,
    small_rate,
    _of_curves(curve_rules.no_validation),
    _of_curves(curve_rules.stagnation),
    _of_curves(curve_rules.falling_bound),
    _of_curves(curve_rules.rising_schedule),
    _of_curves(curve_rules.skipped_steps),
    _of_curves(curve_rules.slow_data),
    aggregate,
    lost_dependence,
    misfit,
    saturated,
    noisy_gradient,
    noise_units,
    switched_off,
    _of_curves(curve_rules.weight_of_kl),
    further_terms,
)

_VERDICT_OF = {
    "divergence": "diverged",
    "not converged": "not converged",
    "posterior collapse": "collapsed",
    "latent unused": "latent unused by the decoder",
    "overfitting": "overfitted",
    "partial collapse": "partly collapsed",
    "small rate": "small rate but informative",
}


def _findings(case: Case) -> Iterator[Finding]:
    diverged = divergence(case)
    for rule in RULES if diverged is None else (divergence, _of_curves(curve_rules.skipped_steps)):
        finding = rule(case)
        if finding is not None:
            yield finding
    for name, sentence in case.notes:
        yield Finding(name, "warning", sentence)


def diagnosed(case: Case) -> Diagnosis:
    """Apply every rule and give the verdict, the first of VERDICTS that holds."""
    findings = list(_findings(case))
    named = {_VERDICT_OF[f.name]: f for f in findings if f.name in _VERDICT_OF}
    verdict = next((v for v in VERDICTS if v in named), "healthy")
    # The finding that decided the verdict comes first within its severity.
    findings.sort(key=lambda f: (SEVERITIES.index(f.severity), _VERDICT_OF.get(f.name) != verdict))
    units = units_of(case)
    numbers, arrays = numbers_of(case, THRESHOLDS)
    return Diagnosis(
        verdict,
        summary(verdict, case, units, named.get(verdict)),
        units,
        tuple(findings),
        numbers,
        arrays,
    )
