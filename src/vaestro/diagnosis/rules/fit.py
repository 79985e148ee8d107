"""Rules on training and on the fit of the likelihood."""

from __future__ import annotations

from vaestro.diagnosis import curve_rules
from vaestro.diagnosis.code import collapsed
from vaestro.diagnosis.records import Finding
from vaestro.diagnosis.rules.case import Case
from vaestro.diagnosis.rules.numbers import gap_of
from vaestro.diagnosis.scales import off_scale, unfitted_scale
from vaestro.diagnosis.statistics import t_quantile
from vaestro.evaluation import plus_minus

CERTAIN = 2.0  # standard errors above which a gap is significant
# minimum rise of the training loss: nats, and share of the validation score
DIVERGED = (0.5, 0.05)
OVERFITTED = 0.1  # minimum gap: share of the validation score
NEAR_LIMIT = 0.01  # largest share of log-variances near their limit
RESIDUAL = 2.0  # a scale fits if the standardised residual differs from 1 by at most this factor
NOISY = 0.9  # share of the gradient's variance that is due to the draws of z


def divergence(case: Case) -> Finding | None:
    """Find a run whose loss, weights or training objective diverged."""
    broken = "the weights in use are not finite numbers" if case.measures is None else None
    return curve_rules.divergence(
        case.curves,
        case.remedy,
        case.failure or broken,
        case.worsened,
        max(DIVERGED[0], DIVERGED[1] * case.scale),
    )


def not_converged(case: Case) -> Finding | None:
    """Find a run that more training would still improve."""
    return curve_rules.not_converged(
        case.curves, case.remedy, case.continued, case.rise, unfitted_scale(case)
    )


def overfitting(case: Case) -> Finding | None:
    """Find a score of training data far above that of held-out data."""
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
    text = (
        f"the same weights score {plus_minus((gap, error))} nats more on training data "
        f"({plus_minus(m.train[:2])}, {m.train[2]:,} data) "
        f"than on {m.split} data ({plus_minus(m.valid[:2])}, {m.valid[2]:,}): {gap / scale:.0%}"
    )
    return Finding(
        "overfitting",
        "warning",
        text,
        case.remedy.smaller(),
        "scores",
        {"gap": gap, "stderr": error, "share": gap / scale},
    )


def saturated(case: Case) -> Finding | None:
    """Find log-variances of q near the limit of their range."""
    m = case.measures
    if m is None or m.saturated is None or m.saturated < NEAR_LIMIT:
        return None
    text = (
        f"{m.saturated:.1%} of q's log-variances are within a quarter of their limit: these "
        f"codes are nearly exact, or nearly flat"
    )
    return Finding(
        "log-variance at its limit",
        "warning",
        text,
        case.remedy.with_beta(1.0) if case.beta < 1 else "",
        "logvar",
        {"share": m.saturated},
    )


def misfit(case: Case) -> Finding | None:
    """Find a likelihood scale that does not fit the residuals."""
    m = case.measures
    # Overfitting distorts the residuals of a learned scale. A fixed variance is judged anyway.
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
    text = (
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
        text,
        case.remedy.learned_variance(),
        "scores",
        {"residual": worst[1]},
    )


def noisy_gradient(case: Case) -> Finding | None:
    """Find an encoder gradient whose variance comes mostly from the draws of z."""
    m = case.measures
    # Near its optimum every gradient is mostly noise, so this is reported only for runs that did
    # not converge.
    if (
        m is None
        or m.gradient_noise is None
        or m.gradient_noise < NOISY
        or collapsed(m)
        or not_converged(case) is None
    ):
        return None
    text = (
        f"{m.gradient_noise:.0%} of the variance of the encoder's gradient comes from the "
        f"draws of z: use more draws per row"
    )
    return Finding(
        "gradient mostly noise",
        "note",
        text,
        case.remedy.more_draws(),
        None,
        {"share": m.gradient_noise},
    )


def further_terms(case: Case) -> Finding | None:
    """Find terms of the loss other than the bound."""
    if not case.extra:
        return None
    names = ", ".join(case.extra)
    text = (
        f"the loss has further terms ({names}). The reported bound is unweighted and without "
        f"them; training did not maximise it"
    )
    return Finding(
        "further terms in the loss", "note", text, "", "curves", {"terms": list(case.extra)}
    )
