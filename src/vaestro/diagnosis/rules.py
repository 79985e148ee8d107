"""The rules: from measures to findings and a verdict. Thresholds of measures are in this file and
code.py, those of the log in curves.py.

Posterior collapse is judged by whether the encoder's output depends on its input, never by the KL
alone. An encoder that maps all rows to one shifted mean has a large KL and is collapsed. An encoder
of data with little structure has a small KL and is not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

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
    aggregate_limits,
    codes_of,
    collapsed,
    faint,
    off_units,
    silence_unclear,
    units_of,
    unstructured,
    unused,
    use_of,
    used,
)
from vaestro.diagnosis.continuation import Continuation
from vaestro.diagnosis.curves import SMALL_SIGNAL, ZERO_RATE, Curves
from vaestro.diagnosis.measure import Measures
from vaestro.diagnosis.records import SEVERITIES, VERDICTS, Diagnosis, Finding
from vaestro.diagnosis.remedies import Remedies
from vaestro.diagnosis.scales import SETTLED, off_scale, unfitted_scale
from vaestro.diagnosis.statistics import Paired, t_quantile
from vaestro.diagnosis.words import cost_of, summary
from vaestro.evaluation import plus_minus
from vaestro.loop import ACTIVE

CERTAIN = 2.0  # standard errors
RISE = (0.05, 0.005)  # what further steps may gain: nats, and of the validation score
# by how much the loss of training data must have risen: nats, and of the validation score
DIVERGED = (0.5, 0.05)
OVERFITTED = 0.1  # of the validation score
# unit-wise KL of the aggregate posterior to the prior: nats in all, and of the rate
MISS = (1.0, 0.1)
NEAR_LIMIT = 0.01  # share of log-variances
RESIDUAL = 2.0  # factor between 1 and the standardised residual, beyond which a scale does not fit
# of the units, and at least 2: with fewer inactive ones, a smaller latent saves too little
WORTH_TYPING = 0.25
NOISY = 0.9  # share of the gradient's variance that the draws of z make

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
    "rise_nats": RISE[0],
    "rise_share": RISE[1],
    "diverged_nats": DIVERGED[0],
    "diverged_share": DIVERGED[1],
}


@dataclass(frozen=True, eq=False)
class Case:
    """Hold what the rules see.

    Args:
        remedy: command lines for the run, and its options.
        curves: what was logged.
        measures: what was measured; None if the weights are not finite.
        units: the shape of one latent, *Z.
        beta: the weight of the KL at the end.
        extra: further terms of the loss, by the names in metrics.jsonl: free_bits, capacity,
            penalties.
        failure: why the run ended, where it did not end by itself.
        notes: (name, sentence) about its data: duplicates between splits, data that changed since.
        autoregressive: whether the decoder is autoregressive and could therefore ignore z.
        reads_latent: whether the decoder has z as an input.
        log_det, cells, discrete: of its space: the log-determinant of the standardisation, cells of
            a datum, and whether p(x) is a probability.
        known: what else diagnosis.json is to hold.
        continued: what further steps gained; None where they were not taken.
        worsened: what the objective of training data lost from before the first step to the end;
            None where it was not measured.
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
    continued: Continuation | None = None
    worsened: Paired | None = None

    @property
    def inactive(self) -> int:
        """Count the units that are certainly off: not active, and without signal."""
        return 0 if self.measures is None else int(off_units(self.measures).sum())

    @property
    def scale(self) -> float:
        """Return the size of the held-out score, in nats, against which differences are judged.

        A density has no zero of its own: its scores are compared in standardised units, where a
            cell counts for at least half a nat.
        """
        if self.measures is None:
            return 0.0
        score = self.measures.valid[0]
        return abs(score) if self.discrete else max(abs(score - self.log_det), 0.5 * self.cells)

    @property
    def rise(self) -> float:
        """Return the nats up to which a rise of the objective is too small to be worth more
        training."""
        return max(RISE[0], RISE[1] * self.scale)


def diagnosed(case: Case) -> Diagnosis:
    """Apply every rule and give the verdict, the first of VERDICTS that holds."""
    found = list(_findings(case))
    named = {_VERDICT_OF[f.name]: f for f in found if f.name in _VERDICT_OF}
    verdict = next((v for v in VERDICTS if v in named), "healthy")
    # The finding that decided the verdict comes first within its severity.
    found.sort(key=lambda f: (SEVERITIES.index(f.severity), _VERDICT_OF.get(f.name) != verdict))
    units = units_of(case)
    numbers, arrays = _numbers(case)
    return Diagnosis(
        verdict,
        summary(verdict, case, units, named.get(verdict)),
        units,
        tuple(found),
        numbers,
        arrays,
    )


# -- the rules: Case -> Finding or None ------------------------------------------------------------


def _divergence(case: Case) -> Finding | None:
    broken = "the weights in use are not finite numbers" if case.measures is None else None
    return curve_rules.divergence(
        case.curves,
        case.remedy,
        case.failure or broken,
        case.worsened,
        max(DIVERGED[0], DIVERGED[1] * case.scale),
    )


def _not_converged(case: Case) -> Finding | None:
    return curve_rules.not_converged(
        case.curves, case.remedy, case.continued, case.rise, unfitted_scale(case)
    )


def _unstructured(m: Measures) -> str:
    """Return the sentence that cells are not correlated; "" if they are, or if the data are too few
    to show it."""
    if not unstructured(m):
        return ""
    seen = "" if m.visible is None else f"; these data would show one above {m.visible:.2f}"
    return (
        f"Cells are not correlated beyond chance (largest eigenvalue {m.structure:.2f} times "
        f"that of shuffled cells{seen})"
    )


def _cures(case: Case) -> str:
    """Return the sentence with the remedies that were not tried; "" if all were."""
    names = [name for name, _ in case.remedy.cures]
    return f". Not tried yet: {', '.join(names)}" if names else ""


BY_DESIGN = (
    "the decoder has no latent input, as configured: this is a plain model of the data, "
    "and its codes contain no information"
)
NO_LATENT = (
    "the decoder was built without the latent; use another --likelihood or --network for "
    "a latent variable model"
)
NO_STRUCTURE = "there may be nothing to encode; train on data whose cells depend on each other"


def _collapse(case: Case) -> Finding | None:
    m = case.measures
    if m is None or not collapsed(m):
        return None
    if not case.reads_latent:
        return Finding(
            "posterior collapse",
            "note",
            BY_DESIGN,
            "",
            "units",
            {"signal": m.signal, "rate": m.rate},
            NO_LATENT,
        )
    largest = float(m.activity.max())
    told = "" if m.signal is None else f"; the signal of all units together is {m.signal:.2g} nats"
    depends = "does not depend" if largest <= ACTIVE else "hardly depends"
    said = (
        f"the encoder's output {depends} on its input: over {m.n:,} {m.split} data the variance "
        f"of E[z | x] is at most "
        f"{largest:.2g} in each of {len(m.activity)} units (active: above {ACTIVE}){told}; "
        f"replacing the z of each row by that of "
        f"another row costs {plus_minus(m.gain)} nats of reconstruction"
    )
    if m.rate > SMALL_RATE:
        said += f"; the KL is {m.rate:.2f} nats, but q(z | x) is nearly the same for every x"
    else:
        silent = case.curves.silent_from()
        said += f"; the KL is {m.rate:.2g} nats" + (
            f", and was below {ZERO_RATE} since step {silent:,}" if silent else ""
        )
    if m.worth is not None and faint(m):
        said += (
            f"; the code is not shown to raise the objective "
            f"({plus_minus((m.worth.mean, m.worth.stderr))} nats)"
        )
    if m.reconstruction is not None:
        said += f"; {m.reconstruction.sentence()}"
    if case.autoregressive and case.beta <= 1:
        said += _cures(case)
    numbers = {
        "largest_activity": largest,
        "signal": m.signal,
        "rate": m.rate,
        "structure": m.structure,
    }
    if case.beta <= 1 and _unstructured(m):
        said += (
            f". {_unstructured(m)}: there may be nothing to encode. Collapse is then the optimum"
        )
        return Finding("posterior collapse", "warning", said, "", "units", numbers, NO_STRUCTURE)
    return Finding(
        "posterior collapse", "error", said, case.remedy.for_collapse(case.beta), "units", numbers
    )


def _decoder_ignores(case: Case) -> Finding | None:
    m = case.measures
    if m is None or not unused(case):
        return None
    state, use, size = use_of(case)
    numbers = {"gain": use.mean, "stderr": use.stderr, "high": use.most, "size": size, "p": use.p}
    if not case.reads_latent:
        said = f"{BY_DESIGN}; their KL of {m.rate:.2g} nats goes to zero with training"
        return Finding("latent unused", "note", said, "", "dependence", numbers, NO_LATENT)
    said = (
        f"the encoder's output depends on its input ({case.inactive} of {len(m.activity)} "
        f"units inactive), but "
    )
    where = f"on {use.n:,} {m.use_split or m.split} data"
    if m.worth is not None and state != "unused":
        gain = plus_minus((m.worth.mean, m.worth.stderr))
        numbers |= {
            "worth": m.worth.mean,
            "worth_stderr": m.worth.stderr,
            "worth_high": m.worth.high,
        }
        said += (
            f"the code is not shown to raise the objective: {where} its weighted KL is "
            f"{case.beta * m.rate:.2g} nats, and it changes the "
            f"objective by {gain} nats (upper limit {m.worth.high:.2g}), against one z for all rows"
        )
    else:
        hardly = "hardly uses it" if use.p is not None and use.p < CHANCE else "does not use it"
        said += (
            f"the decoder {hardly}: {where} another row's z costs {cost_of(use)}, at most "
            f"{use.most:.2g} nats, "
        )
        said += f"below the limit of {size:.2g}"
    if case.beta <= 1 and _unstructured(m):
        said += f". {_unstructured(m)}: there may be nothing to encode. A code is then of no use"
        return Finding("latent unused", "warning", said, "", "dependence", numbers, NO_STRUCTURE)
    return Finding(
        "latent unused", "error", said, case.remedy.for_decoder(case.beta), "dependence", numbers
    )


def _unclear(case: Case) -> Finding | None:
    """Find data that are too few to decide whether the code depends on the data, or whether the
    decoder uses it."""
    m = case.measures
    if m is None or not case.reads_latent or collapsed(m):
        return None
    said, numbers = [], {}
    if silence_unclear(m):
        said.append(
            f"{codes_of(m)[2]:,} data are not enough to tell whether the encoder's output "
            f"depends on its input"
        )
    state, use, size = use_of(case)
    if state == "unclear":
        numbers = {
            "gain": use.mean,
            "stderr": use.stderr,
            "low": use.low,
            "high": use.most,
            "size": size,
            "p": use.p,
        }
        chance = (
            f" (95 %), but chance explains this with probability {use.p:.2g}, above {CHANCE}"
            if use.sure and use.p is not None
            else ""
        )
        said.append(
            f"{use.n:,} {m.use_split or m.split} data are not enough to tell whether the decoder "
            f"uses z: another row's z costs "
            f"{cost_of(use)}, between {use.low:.2g} and {use.most:.2g} nats{chance}"
        )
    if (
        state == "used"
        and not used(case)
        and not unused(case)
        and m.worth is not None
        and not silence_unclear(m)
    ):
        said.append(
            f"{m.worth.n:,} {m.use_split or m.split} data are not enough to tell whether the "
            f"code is worth its KL of {m.rate:.2g} nats: "
            f"against one z for all rows it changes the objective by "
            f"{plus_minus((m.worth.mean, m.worth.stderr))} nats"
        )
    if not said:
        return None
    return Finding("not enough data to tell", "note", "; ".join(said), "", "dependence", numbers)


def _overfitting(case: Case) -> Finding | None:
    m = case.measures
    if m is None or m.train is None:
        return None
    gap, error = gap_of(m)
    scale = case.scale
    if not (
        gap > OVERFITTED * scale
        and gap > max(CERTAIN, t_quantile(0.975, min(m.train[2], m.valid[2]) - 1)) * error
    ):
        return None
    said = (
        f"the same weights score {plus_minus((gap, error))} nats more on training data "
        f"({plus_minus(m.train[:2])}, {m.train[2]:,} data) "
        f"than on {m.split} data ({plus_minus(m.valid[:2])}, {m.valid[2]:,}): {gap / scale:.0%}"
    )
    return Finding(
        "overfitting",
        "warning",
        said,
        case.remedy.smaller(),
        "scores",
        {"gap": gap, "stderr": error, "share": gap / scale},
    )


def _partly_collapsed(case: Case) -> Finding | None:
    m = case.measures
    if m is None or collapsed(m) or not case.inactive or not (case.beta > 1 or case.autoregressive):
        return None
    why = (
        f"with a final KL weight of {case.beta:g}"
        if case.beta > 1
        else "and the decoder could ignore z"
    )
    said = f"{_inactive(case)} {why}: the unweighted bound may gain from more active units"
    if case.beta <= 1:
        said += _cures(case)
    remedy = case.remedy.with_beta(1.0) if case.beta > 1 else case.remedy.informed()
    return Finding(
        "partial collapse", "warning", said, remedy, "units", {"inactive": case.inactive}
    )


def _small_rate(case: Case) -> Finding | None:
    m = case.measures
    if m is None or not used(case) or not m.rate < SMALL_RATE:
        return None
    told = "" if m.signal is None else f" (signal {m.signal:.2g} nats)"
    use = use_of(case)[1]
    said = (
        f"the KL is {m.rate:.2g} nats, but the encoder's output depends on its input{told} and "
        f"the decoder uses it: on {use.n:,} "
        f"{m.use_split or m.split} data another row's z costs {cost_of(use)}. A small KL is not "
        f"collapse: data may have little structure"
    )
    if _unstructured(m):
        said += f". {_unstructured(m)}: the code may describe noise"
    return Finding("small rate", "note", said, "", "units", {"rate": m.rate, "signal": m.signal})


def _inactive(case: Case) -> str:
    return (
        f"{case.inactive} of {math.prod(case.units)} units "
        f"{'is' if case.inactive == 1 else 'are'} inactive"
    )


def _switched_off(case: Case) -> Finding | None:
    m = case.measures
    if (
        m is None
        or not case.inactive
        or collapsed(m)
        or unused(case)
        or _partly_collapsed(case) is not None
    ):
        return None
    total = len(m.activity)
    said = f"{_inactive(case)}. "
    if case.extra:
        said += (
            f"The loss has further terms ({', '.join(case.extra)}), so this says nothing "
            f"about the best number for the bound"
        )
    elif math.isclose(case.beta, 1, rel_tol=1e-6):
        said += "With a KL weight of 1 this is expected: this decoder gains nothing from more units"
    else:
        said += f"With a KL weight of {case.beta:g}, the objective gains nothing from more units"
    few = case.inactive < max(2, WORTH_TYPING * total)
    remedy = (
        ""
        if few or len(case.units) > 1 or case.inactive == total
        else case.remedy.fewer_units(total - case.inactive)
    )
    return Finding(
        "units switched off",
        "note",
        said,
        remedy,
        "units",
        {"inactive": case.inactive, "units": total},
    )


def _noise_units(case: Case) -> Finding | None:
    noisy = [u for u in units_of(case) if u.role == "noise"]
    if not noisy or case.measures is None or collapsed(case.measures) or unused(case):
        return None
    shown = ", ".join(str(u.unit) for u in noisy[:8]) + (" .." if len(noisy) > 8 else "")
    paid = sum(u.rate or 0.0 for u in noisy)
    which, them = ("unit", "it") if len(noisy) == 1 else ("units", "them")
    said = (
        f"{len(noisy)} {which} ({shown}) with {paid:.2f} nats of KL: replacing {them} by "
        f"prior samples hardly changes the reconstruction"
    )
    return Finding(
        "units that carry noise",
        "note",
        said,
        "",
        "units",
        {"units": [u.unit for u in noisy], "rate": paid},
    )


def _aggregate(case: Case) -> Finding | None:
    m = case.measures
    limits = None if m is None or collapsed(m) else aggregate_limits(m)
    if m is None or limits is None or not limits[0] > max(MISS[0], MISS[1] * m.rate):
        return None
    found = m.aggregate or m.information
    assert found is not None
    assert found.unit_kl_lower is not None
    worst = int(np.argmax(np.asarray(found.unit_kl_lower).ravel()))
    said = (
        f"the unit-wise KL of the codes of {found.n:,} rows is between {limits[0]:.2f} and "
        f"{limits[1]:.2f} nats in all (largest in unit {worst}: mean {m.z_mean[worst]:.2f}, "
        f"standard deviation {m.z_std[worst]:.2f}). "
        f"Prior samples come from regions with few codes, so they will be worse than "
        f"reconstructions"
    )
    remedy = case.remedy.with_beta(1.0) if case.beta < 1 else case.remedy.fitted_prior()
    numbers = {
        "unit_kl": (found.unit_kl_sum or (math.nan,))[0],
        "low": limits[0],
        "high": limits[1],
        "n": found.n,
    }
    return Finding(
        "aggregate posterior misses the prior", "warning", said, remedy, "aggregate", numbers
    )


def _saturated(case: Case) -> Finding | None:
    m = case.measures
    if m is None or m.saturated is None or m.saturated < NEAR_LIMIT:
        return None
    said = (
        f"{m.saturated:.1%} of q's log-variances are within a quarter of their limit: these "
        f"codes are nearly exact, or nearly flat"
    )
    return Finding(
        "log-variance at its limit",
        "warning",
        said,
        case.remedy.with_beta(1.0) if case.beta < 1 else "",
        "logvar",
        {"share": m.saturated},
    )


def _misfit(case: Case) -> Finding | None:
    m = case.measures
    # Residuals of an overfitted model are not those of the data; a variance that was given is wrong
    # all the same.
    passed = (
        case.remedy.fixed_variance is None
        and curve_rules.falling_bound(case.curves, case.remedy) is not None
    )
    worst = None if m is None or passed else off_scale(case, RESIDUAL)
    if (
        m is not None
        and not passed
        and not m.scales
        and m.residual is not None
        and not 1 / RESIDUAL <= m.residual <= RESIDUAL
    ):
        worst = "", m.residual
    if m is None or worst is None:
        return None
    fixed = case.remedy.fixed_variance
    what = (
        f"the Gaussian's fixed variance of {fixed}"
        if fixed is not None
        else "the scale of the likelihood"
    )
    where = f" of column {worst[0]!r}" if worst[0] else ""
    said = (
        f"{what}{where} does not fit: the standardised residual is {worst[1]:.3g}, and 1 for a "
        f"scale that fits"
        + (
            ". The scale is too large, so the KL has more weight than in the bound"
            if worst[1] < 1
            else ". The scale is too small, so noise is reconstructed"
        )
    )
    return Finding(
        "variance that does not fit",
        "warning",
        said,
        case.remedy.learned_variance(),
        "scores",
        {"residual": worst[1]},
    )


def _noisy_gradient(case: Case) -> Finding | None:
    m = case.measures
    # Near its optimum every gradient is mostly noise, so this is reported only for runs that did
    # not converge.
    if (
        m is None
        or m.gradient_noise is None
        or m.gradient_noise < NOISY
        or collapsed(m)
        or _not_converged(case) is None
    ):
        return None
    said = (
        f"{m.gradient_noise:.0%} of the variance of the encoder's gradient comes from the "
        f"draws of z: use more draws per row"
    )
    return Finding(
        "gradient mostly noise",
        "note",
        said,
        case.remedy.more_draws(),
        None,
        {"share": m.gradient_noise},
    )


def _further_terms(case: Case) -> Finding | None:
    if not case.extra:
        return None
    names = ", ".join(case.extra)
    said = (
        f"the loss has further terms ({names}). The reported bound is unweighted and without "
        f"them; training did not maximise it"
    )
    return Finding(
        "further terms in the loss", "note", said, "", "curves", {"terms": list(case.extra)}
    )


def _of_curves(
    rule: Callable[[Curves, Remedies], Finding | None],
) -> Callable[[Case], Finding | None]:
    return lambda case: rule(case.curves, case.remedy)


RULES: tuple[Callable[[Case], Finding | None], ...] = (
    _divergence,
    _not_converged,
    _collapse,
    _decoder_ignores,
    _unclear,
    _overfitting,
    _partly_collapsed,
    _small_rate,
    _of_curves(curve_rules.no_validation),
    _of_curves(curve_rules.stagnation),
    _of_curves(curve_rules.falling_bound),
    _of_curves(curve_rules.rising_schedule),
    _of_curves(curve_rules.skipped_steps),
    _of_curves(curve_rules.slow_data),
    _aggregate,
    _misfit,
    _saturated,
    _noisy_gradient,
    _noise_units,
    _switched_off,
    _of_curves(curve_rules.weight_of_kl),
    _further_terms,
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
    diverged = _divergence(case)
    for rule in RULES if diverged is None else (_divergence, _of_curves(curve_rules.skipped_steps)):
        finding = rule(case)
        if finding is not None:
            yield finding
    for name, sentence in case.notes:
        yield Finding(name, "warning", sentence)


# -- units, numbers, words -------------------------------------------------------------------------


def gap_of(m: Measures) -> tuple[float, float]:
    """Return the score of training data less that of held-out data, with the same weights, and the
    standard error."""
    assert m.train is not None
    return m.train[0] - m.valid[0], math.hypot(m.train[1], m.valid[1])


def _numbers(case: Case) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    m = case.measures
    numbers: dict[str, Any] = {
        "mutual_information": None,
        "mutual_information_ceiling": None,
        "thresholds": THRESHOLDS,
        "beta": case.beta,
    }
    if m is None:
        return numbers | dict(case.known), {}
    if m.information is not None:
        interval = m.information.interval()
        # From estimate to rate; the estimate has an error, and may come out above the rate or below
        # zero.
        held = None if interval is None else (max(0.0, min(interval)), interval[1])
        numbers |= {"mutual_information": held, "mutual_information_ceiling": m.information.ceiling}
        numbers["mutual_information_n"] = m.information.n
    score = {
        name: dict(zip(("mean", "stderr", "n"), s, strict=True))
        for name, s in (("train", m.train), (m.split, m.valid))
        if s is not None
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
        "dependence": {
            "own": m.own,
            "other": m.other,
            "gain": dict(zip(("mean", "stderr"), m.gain, strict=True)),
            **_use_line(case),
        },
        "aggregate": None
        if (held := aggregate_limits(m)) is None
        else {"low": held[0], "high": held[1], "n": _codes_of(m)},
        "continuation": None if case.continued is None else case.continued.line(),
        "residual": m.residual,
        "scales": {
            name: dict(zip(("mean", "low", "high"), fit, strict=True))
            for name, fit in m.scales.items()
        },
        "saturated": m.saturated,
        "gradient_noise": m.gradient_noise,
        "structure": m.structure,
        "reconstruction": None if m.reconstruction is None else m.reconstruction._asdict(),
        **case.known,
    }
    arrays = {
        "mean": m.mean,
        "histogram": m.histogram,
        "prior_histogram": m.prior_histogram,
        "edges": m.edges,
    }
    if m.rates is not None:
        arrays["rate"] = m.rates
    if m.variance is not None:
        arrays["logvar"] = np.log(m.variance)
    return numbers, arrays


def _codes_of(m: Measures) -> int | None:
    found = m.aggregate or m.information
    return None if found is None else found.n


def _use_line(case: Case) -> dict[str, Any]:
    state, use, size = use_of(case)
    return {
        "state": state,
        "size": size,
        "split": None if case.measures is None else case.measures.use_split,
        "use": use.line(),
        "worth": None
        if case.measures is None or case.measures.worth is None
        else case.measures.worth.line(),
    }
