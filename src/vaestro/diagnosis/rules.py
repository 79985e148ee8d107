"""The rules: from what was measured to findings and a verdict. Thresholds of measures stand here, those of the log in curves.py.

Posterior collapse is judged by whether the encoder's output depends on its input, and never by a small KL: an encoder that puts all
data into one shifted place has a large KL and is collapsed, and one whose few faint units tell the little there is to tell is not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vaestro.diagnosis import curves as read
from vaestro.diagnosis.curves import SMALL_SIGNAL, Curves
from vaestro.diagnosis.measure import Measures
from vaestro.diagnosis.records import SEVERITIES, VERDICTS, Diagnosis, Finding, Unit
from vaestro.diagnosis.remedies import Remedies
from vaestro.evaluation import plus_minus
from vaestro.loop import ACTIVE

CERTAIN = 2.0  # standard errors
SMALL = 0.01  # nats of distortion below which a latent or a unit makes no difference
OVERFITTED = 0.1  # of the validation score
SMALL_RATE = 1.0  # nats in all
UNIT_RATE = 0.05  # nats that a unit pays for nothing where it does not move with the data
MISS = (1.0, 0.1)  # unit-wise KL of the aggregate posterior to the prior: nats in all, and of the rate
NEAR_LIMIT = 0.01  # share of log-variances
RESIDUAL = 2.0  # factor between a Gaussian's variance and its mean squared residual
UNSTRUCTURED = 1.15  # largest eigenvalue of correlations over that of shuffled cells
NOISY = 0.9  # share of the gradient's variance that the draws of z make

THRESHOLDS = {
    "active": ACTIVE, "signal": SMALL_SIGNAL, "standard_errors": CERTAIN, "difference": SMALL, "overfitted": OVERFITTED,
    "small_rate": SMALL_RATE, "unit_rate": UNIT_RATE, "aggregate_nats": MISS[0], "aggregate_share": MISS[1], "near_limit": NEAR_LIMIT,
    "residual": RESIDUAL, "unstructured": UNSTRUCTURED, "gradient_noise": NOISY,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Case:
    """Hold what the rules see.

    Args:
        remedy: command lines for the run, and its options.
        curves: what was logged.
        measures: what was measured; None where the weights are not finite.
        units: the shape of one latent, *Z.
        beta: the weight of the KL at the end.
        extra: what the loss has beside the weighted bound, by the names in metrics.jsonl: free_bits, capacity, penalties.
        failure: why the run ended, where it did not end by itself.
        notes: (name, sentence) about its data: duplicates between splits, data that changed since.
        autoregressive: whether the decoder could do without the latent.
        reads_latent: whether it sees the latent at all.
        log_det, cells, discrete: of its space: the log-determinant of the standardisation, cells of a datum, and whether p(x) is a
            probability.
        known: what else diagnosis.json is to hold.
    """

    remedy: Remedies
    curves: Curves
    measures: Measures | None
    units: tuple[int, ...] = ()
    beta: float = 1.0
    extra: tuple[str, ...] = ()
    failure: str | None = None
    notes: Sequence[tuple[str, str]] = ()
    autoregressive: bool = False
    reads_latent: bool = True
    log_det: float = 0.0
    cells: float = 1.0
    discrete: bool = True
    known: Mapping[str, Any] = field(default_factory=dict)

    @property
    def inactive(self) -> int:
        """Count the units that are off: not active, and telling next to nothing on their own scale either."""
        return 0 if self.measures is None else int((~_moving(self.measures)).sum())


def diagnosed(case: Case) -> Diagnosis:
    """Apply every rule and give the verdict, the first of VERDICTS that holds."""
    found = list(_findings(case))
    named = {_VERDICT_OF[f.name]: f for f in found if f.name in _VERDICT_OF}
    verdict = next((v for v in VERDICTS if v in named), "healthy")
    # What decided the verdict stands before others of its severity.
    found.sort(key=lambda f: (SEVERITIES.index(f.severity), _VERDICT_OF.get(f.name) != verdict))
    units = _units(case)
    numbers, arrays = _numbers(case)
    return Diagnosis(verdict, _summary(verdict, case, units, named.get(verdict)), units, tuple(found), numbers, arrays)


# -- the rules: Case -> Finding or None -------------------------------------------------------------------------------


def _divergence(case: Case) -> Finding | None:
    broken = "the weights in use are not finite numbers" if case.measures is None else None
    return read.divergence(case.curves, case.remedy, case.failure or broken)


def _not_converged(case: Case) -> Finding | None:
    return read.not_converged(case.curves, case.remedy)


def _collapsed(m: Measures) -> bool:
    if m.n < 2:
        return False  # one datum tells of no dependence
    if m.reconstruction is not None and m.reconstruction.empty and m.rate < SMALL_RATE:
        return True
    return bool((m.activity <= ACTIVE).all()) if m.signal is None else m.signal < SMALL_SIGNAL


def _moving(m: Measures) -> np.ndarray:
    """Tell which units' means depend on the data, (units,): active, or on a smaller scale telling more than noise."""
    if m.variance is None:
        return m.activity > ACTIVE
    return (m.activity > ACTIVE) | (0.5 * np.log1p(m.activity / m.variance.mean(0, dtype=np.float64)) > SMALL)


def _unused(m: Measures) -> bool:
    mean, error = m.gain
    return not _collapsed(m) and mean < max(SMALL, CERTAIN * (0.0 if math.isnan(error) else error))


def _unstructured(m: Measures) -> str:
    """Say that cells do not depend on each other, as far as correlations tell; "" where they do."""
    if m.structure is None or m.structure >= UNSTRUCTURED:
        return ""
    return f"Cells are not correlated beyond chance (largest eigenvalue {m.structure:.2f} times that of shuffled cells)"


def _cures(case: Case) -> str:
    """Name what helps against a decoder that does without the code."""
    names = [name for name, _ in case.remedy.cures]
    return f". What was not tried against it: {', '.join(names)}" if names else ""


BY_DESIGN = "the decoder was made to do without the latent: it is a plain model of the data, whose codes have nothing to say"


def _collapse(case: Case) -> Finding | None:
    m = case.measures
    if m is None or not _collapsed(m):
        return None
    if not case.reads_latent:
        return Finding("posterior collapse", "note", BY_DESIGN, "", "units", {"signal": m.signal, "rate": m.rate})
    largest = float(m.activity.max())
    told = "" if m.signal is None else f"; together the units tell {m.signal:.2g} nats"
    depends = "does not depend" if largest <= ACTIVE else "hardly depends"
    said = (
        f"the encoder's output {depends} on its input: over {m.n:,} {m.split} data the variance of E[z | x] is at most "
        f"{largest:.2g} in each of {len(m.activity)} units (active: above {ACTIVE}){told}; another datum's z in "
        f"place of a datum's own changes reconstruction by {plus_minus(m.gain)} nats"
    )
    if m.rate > SMALL_RATE:
        said += f"; the KL of {m.rate:.2f} nats is paid for a place that is the same for all data"
    else:
        silent = case.curves.silent_from()
        said += f"; the KL is {m.rate:.2g} nats" + (f", and was below {read.SMALL_RATE} since step {silent:,}" if silent else "")
    if m.reconstruction is not None:
        said += f"; {m.reconstruction.sentence()}"
    if case.autoregressive and case.beta <= 1:
        said += _cures(case)
    numbers = {"largest_activity": largest, "signal": m.signal, "rate": m.rate, "structure": m.structure}
    if case.beta <= 1 and _unstructured(m):
        said += f". {_unstructured(m)}: there may be nothing to encode, and then this is the optimum"
        return Finding("posterior collapse", "warning", said, "", "units", numbers)
    return Finding("posterior collapse", "error", said, case.remedy.for_collapse(case.beta), "units", numbers)


def _decoder_ignores(case: Case) -> Finding | None:
    m = case.measures
    if m is None or not _unused(m):
        return None
    if not case.reads_latent:
        said = f"{BY_DESIGN}; the {m.rate:.2g} nats that they cost go to zero with training"
        return Finding("latent unused", "note", said, "", "dependence", {"gain": m.gain[0], "stderr": m.gain[1]})
    said = (
        f"the encoder's output depends on its input ({case.inactive} of {len(m.activity)} units inactive), but the decoder does without: "
        f"another datum's z changes reconstruction by {plus_minus(m.gain)} nats"
    )
    return Finding(
        "latent unused", "error", said, case.remedy.for_decoder(case.beta), "dependence", {"gain": m.gain[0], "stderr": m.gain[1]}
    )


def _overfitting(case: Case) -> Finding | None:
    m = case.measures
    if m is None or m.train is None:
        return None
    gap, error = gap_of(m)
    # A density has no zero of its own: its scores are compared in standardised units, where a cell counts for at least half a nat.
    scale = abs(m.valid[0]) if case.discrete else max(abs(m.valid[0] - case.log_det), 0.5 * case.cells)
    if not (gap > OVERFITTED * scale and gap > CERTAIN * error):
        return None
    said = (
        f"the same weights score {plus_minus((gap, error))} nats more on training data ({plus_minus(m.train[:2])}, {m.train[2]:,} data) "
        f"than on {m.split} data ({plus_minus(m.valid[:2])}, {m.valid[2]:,}): {gap / scale:.0%}"
    )
    return Finding("overfitting", "warning", said, case.remedy.smaller(), "scores", {"gap": gap, "stderr": error, "share": gap / scale})


def _partly_collapsed(case: Case) -> Finding | None:
    m = case.measures
    if m is None or _collapsed(m) or not case.inactive or not (case.beta > 1 or case.autoregressive):
        return None
    why = f"with a final KL weight of {case.beta:g}" if case.beta > 1 else "and the decoder could ignore z"
    said = f"{case.inactive} of {len(m.activity)} units are inactive {why}: the unweighted bound may gain from more of them"
    if case.beta <= 1:
        said += _cures(case)
    remedy = case.remedy.with_beta(1.0) if case.beta > 1 else case.remedy.informed()
    return Finding("partial collapse", "warning", said, remedy, "units", {"inactive": case.inactive})


def _small_rate(case: Case) -> Finding | None:
    m = case.measures
    if m is None or _collapsed(m) or _unused(m) or not m.rate < SMALL_RATE:
        return None
    told = "" if m.signal is None else f" (its means tell {m.signal:.2g} nats)"
    said = (
        f"the KL is {m.rate:.2g} nats, but the encoder's output depends on its input{told} and the decoder uses it: another datum's z "
        f"costs {plus_minus(m.gain)} nats. A small KL is not collapse: there may be little to tell"
    )
    if _unstructured(m):
        said += f". {_unstructured(m)}: what is told may be noise"
    return Finding("small rate", "note", said, "", "units", {"rate": m.rate, "signal": m.signal})


def _switched_off(case: Case) -> Finding | None:
    m = case.measures
    if m is None or not case.inactive or _collapsed(m) or _unused(m) or _partly_collapsed(case) is not None:
        return None
    total = len(m.activity)
    said = f"{case.inactive} of {total} units are inactive. "
    if case.extra:
        said += f"The loss has further terms ({', '.join(case.extra)}), so this says nothing about the best number for the bound"
    elif math.isclose(case.beta, 1, rel_tol=1e-6):
        said += "With a KL weight of 1 this is expected: this decoder gains nothing from more units"
    else:
        said += f"The KL has weight {case.beta:g}, and still the decoder gains nothing from them"
    remedy = "" if len(case.units) > 1 or case.inactive == total else case.remedy.fewer_units(total - case.inactive)
    return Finding("units switched off", "note", said, remedy, "units", {"inactive": case.inactive, "units": total})


def _noise_units(case: Case) -> Finding | None:
    noisy = [u for u in _units(case) if u.role == "noise"]
    if not noisy or case.measures is None or _collapsed(case.measures) or _unused(case.measures):
        return None
    shown = ", ".join(str(u.unit) for u in noisy[:8]) + (" .." if len(noisy) > 8 else "")
    paid = sum(u.rate or 0.0 for u in noisy)
    many = "unit moves or pays" if len(noisy) == 1 else "units move or pay"
    said = f"{len(noisy)} {many} {paid:.2f} nats of KL, but reconstruction does without: {shown}"
    return Finding("units that carry noise", "note", said, "", "units", {"units": [u.unit for u in noisy], "rate": paid})


def _aggregate(case: Case) -> Finding | None:
    m = case.measures
    if m is None or m.information is None or m.information.unit_kl_sum is None or _collapsed(m):
        return None
    missed = m.information.unit_kl_sum
    if not (missed[0] > max(MISS[0], MISS[1] * m.rate) and missed[0] > CERTAIN * missed[1]):
        return None
    worst = int(np.argmax(np.asarray(m.information.unit_kl).ravel()))
    said = (
        f"the aggregate posterior misses the prior: unit-wise KL {plus_minus(missed)} nats in all (unit {worst} is the worst: mean "
        f"{m.z_mean[worst]:.2f}, deviation {m.z_std[worst]:.2f}); samples start where few codes lie and will be worse than reconstructions"
    )
    remedy = case.remedy.with_beta(1.0) if case.beta < 1 else case.remedy.fitted_prior()
    return Finding("aggregate posterior misses the prior", "warning", said, remedy, "aggregate", {"unit_kl": missed[0]})


def _saturated(case: Case) -> Finding | None:
    m = case.measures
    if m is None or m.saturated is None or m.saturated < NEAR_LIMIT:
        return None
    said = f"{m.saturated:.1%} of q's log-variances lie within a quarter of their limit: codes are all but exact, or all but flat"
    return Finding(
        "log-variance at its limit", "warning", said, case.remedy.with_beta(1.0) if case.beta < 1 else "", "logvar", {"share": m.saturated}
    )


def _misfit(case: Case) -> Finding | None:
    m = case.measures
    if m is None or m.residual is None or 1 / RESIDUAL <= m.residual <= RESIDUAL:
        return None
    fixed = case.remedy.fixed_variance
    what = f"the Gaussian's fixed variance of {fixed}" if fixed is not None else "the Gaussian's variance"
    said = f"{what} does not fit: the mean squared residual is {m.residual:.3g} times it" + (
        ", so the KL weighs more than the bound would have it" if m.residual < 1 else ", so noise is reconstructed at any price"
    )
    return Finding("variance that does not fit", "warning", said, case.remedy.learned_variance(), "scores", {"residual": m.residual})


def _noisy_gradient(case: Case) -> Finding | None:
    m = case.measures
    # Near its optimum every gradient is mostly noise: it is worth a word where the run did not get there.
    if m is None or m.gradient_noise is None or m.gradient_noise < NOISY or _collapsed(m) or _not_converged(case) is None:
        return None
    said = f"{m.gradient_noise:.0%} of the variance of the encoder's gradient comes from the draws of z, and not from the data: draw more"
    return Finding("gradient mostly noise", "note", said, case.remedy.more_draws(), None, {"share": m.gradient_noise})


def _further_terms(case: Case) -> Finding | None:
    if not case.extra:
        return None
    names = ", ".join(case.extra)
    said = f"the loss has further terms ({names}): what is reported is the unweighted bound, which this training did not maximise"
    return Finding("further terms in the loss", "note", said, "", "curves", {"terms": list(case.extra)})


def _of_curves(rule: Callable[[Curves, Remedies], Finding | None]) -> Callable[[Case], Finding | None]:
    return lambda case: rule(case.curves, case.remedy)


RULES: tuple[Callable[[Case], Finding | None], ...] = (
    _divergence, _not_converged, _collapse, _decoder_ignores, _overfitting, _partly_collapsed, _small_rate,
    _of_curves(read.no_validation), _of_curves(read.stagnation), _of_curves(read.falling_bound), _of_curves(read.rising_schedule),
    _of_curves(read.skipped_steps), _of_curves(read.slow_data),
    _aggregate, _misfit, _saturated, _noisy_gradient, _noise_units, _switched_off, _of_curves(read.weight_of_kl), _further_terms,
)  # fmt: skip

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
    diverged = _divergence(case)
    for rule in RULES if diverged is None else (_divergence, _of_curves(read.skipped_steps)):
        finding = rule(case)
        if finding is not None:
            yield finding
    for name, sentence in case.notes:
        yield Finding(name, "warning", sentence)


# -- units, numbers, words --------------------------------------------------------------------------------------------


def gap_of(m: Measures) -> tuple[float, float]:
    """Return by how much the weights score training data better than data held out, and the standard error."""
    assert m.train is not None
    return m.train[0] - m.valid[0], math.hypot(m.train[1], m.valid[1])


def _units(case: Case) -> tuple[Unit, ...]:
    m = case.measures
    if m is None:
        return ()
    activity, moving = m.activity, _moving(m)
    variance = None if m.variance is None else m.variance.mean(0, dtype=np.float64)
    rates = None if m.rates is None else m.rates.mean(0, dtype=np.float64)
    kl = None if m.information is None or m.information.unit_kl is None else np.asarray(m.information.unit_kl).ravel()
    units = []
    for j, moved in enumerate(activity.tolist()):
        effect, error = m.effects.get(j, (None, None))
        rate = None if rates is None else float(rates[j])
        active = moved > ACTIVE
        # Whoever uses a unit saves at least what it pays; less than half of that, surely, is no use.
        surely = math.inf if effect is None or error is None or math.isnan(error) else effect + CERTAIN * error
        used = bool(moving[j]) and surely >= max(SMALL, 0.5 * (rate or 0.0))
        paid = active or (rate is not None and rate > UNIT_RATE)
        units.append(
            Unit(
                unit=j,
                place=tuple(int(i) for i in np.unravel_index(j, case.units)),
                rate=rate,
                activity=moved,
                active=active,
                share=None if variance is None else moved / (moved + float(variance[j])),
                posterior_variance=None if variance is None else float(variance[j]),
                effect=effect,
                effect_stderr=error,
                aggregate_mean=float(m.z_mean[j]),
                aggregate_std=float(m.z_std[j]),
                kl_to_prior=None if kl is None else float(kl[j]),
                role="informative" if used else "noise" if paid else "off",
            )
        )
    return tuple(units)


def _numbers(case: Case) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    m = case.measures
    numbers: dict[str, Any] = {"mutual_information": None, "mutual_information_ceiling": None, "thresholds": THRESHOLDS, "beta": case.beta}
    if m is None:
        return numbers | dict(case.known), {}
    if m.information is not None:
        interval = m.information.interval()
        # From estimate to rate; the estimate has an error, and may come out above the rate or below zero.
        held = None if interval is None else (max(0.0, min(interval)), interval[1])
        numbers |= {"mutual_information": held, "mutual_information_ceiling": m.information.ceiling}
        numbers["mutual_information_n"] = m.information.n
    score = {
        name: dict(zip(("mean", "stderr", "n"), s, strict=True)) for name, s in (("train", m.train), (m.split, m.valid)) if s is not None
    }
    if m.train is not None:
        score["gap"] = dict(zip(("mean", "stderr"), gap_of(m), strict=True))
    numbers |= {
        "split": m.split,
        "n": m.n,
        "rate": m.rate,
        "distortion": m.distortion,
        "signal": m.signal,
        "scores": score,
        "dependence": {"own": m.own, "other": m.other, "gain": dict(zip(("mean", "stderr"), m.gain, strict=True))},
        "residual": m.residual,
        "saturated": m.saturated,
        "gradient_noise": m.gradient_noise,
        "structure": m.structure,
        "reconstruction": None if m.reconstruction is None else m.reconstruction._asdict(),
        **case.known,
    }
    arrays = {"mean": m.mean, "histogram": m.histogram, "prior_histogram": m.prior_histogram, "edges": m.edges}
    if m.rates is not None:
        arrays["rate"] = m.rates
    if m.variance is not None:
        arrays["logvar"] = np.log(m.variance)
    return numbers, arrays


def _summary(verdict: str, case: Case, units: Sequence[Unit], finding: Finding | None) -> str:
    informative = sum(u.role == "informative" for u in units)
    carrying = f"{informative} of {len(units)} units carry information"
    rest = ", and the bound no longer rises beyond its error" if case.curves.valid else ""
    if verdict in ("collapsed", "latent unused by the decoder") and not case.reads_latent:
        return "The decoder does without the latent, as it was made to: this is a plain model of the data."
    return {
        "diverged": "Training diverged: its numbers are of no use.",
        "not converged": "The run was too short: with more steps its bound would be higher.",
        "collapsed": "The encoder ignores its input: codes tell nothing of the data.",
        "latent unused by the decoder": "The encoder describes the data, but the decoder does not listen.",
        "overfitted": "The model knows its training data by heart: held-out data score far worse.",
        "partly collapsed": f"Some of the latent is switched off by the weight of the KL; {carrying}.",
        "small rate but informative": f"The code tells little, but what it tells is used; {carrying}.",
        "healthy": f"The code depends on the data, the decoder uses it{rest}; {carrying}.",
    }[verdict]
