"""Does the code depend on the data? Does the decoder use it? What is the role of each unit?

Each answer has three values. An absence is stated if an upper limit is below a given size. A
presence is stated from a test or a lower limit. Otherwise the data are not enough to tell.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np

from vaestro.diagnosis.curves import SMALL_SIGNAL
from vaestro.diagnosis.measures import Measures
from vaestro.diagnosis.records import Unit
from vaestro.diagnosis.statistics import Paired, t_quantile, variance_factor
from vaestro.loop import ACTIVE

if TYPE_CHECKING:
    from vaestro.diagnosis.rules import Case

Role = Literal["informative", "noise", "off", "unclear"]
SMALL = 0.01  # distortion in nats below which a latent or a unit has no effect
# Shares of the weighted rate. Below the first, the decoder does not use z. Below the second, it
# does not use z if the rank test is not significant.
UNUSED = (0.05, 0.5)
# largest significant p-value of the use of z, corrected for the selection of the weights
CHANCE = 0.01
# nats, and share of the weighted rate: a code with a smaller gain in the objective is worthless
WORTH = (0.05, 0.25)
UNSTRUCTURED = 1.15  # largest eigenvalue of correlations, divided by that of shuffled cells
# smallest visible eigenvalue above which correlations cannot be excluded
VISIBLE = 1.4
SMALL_RATE = 1.0  # nats, of all units
NEAR = 1.5  # factor of the threshold of the signal up to which a signal is near it
FEW = 20  # number of data below which no absence is stated
UNIT_RATE = 0.05  # KL in nats above which a unit has a cost


def codes_of(m: Measures) -> tuple[np.ndarray, np.ndarray | None, int]:
    """Return upper limits of each unit's activity, its mean posterior variance (or None), and the
    number of codes.

    Whether q depends on its input is a property of the encoder, so codes of training data are used
    as well.
    """
    means = [x for x in (m.mean, m.train_mean) if x is not None]
    variances = [x for x in (m.variance, m.train_variance) if x is not None]
    codes = np.concatenate(means).astype(np.float64)
    activity = (
        codes.var(0, ddof=1) * variance_factor(len(codes))
        if len(codes) > 1
        else np.full(codes.shape[1], math.inf)
    )
    return (
        activity,
        np.concatenate(variances).mean(0, dtype=np.float64) if variances else None,
        len(codes),
    )


def collapsed(m: Measures) -> bool:
    """Return whether the encoder's output does not depend on its input, or does not change the
    reconstructed texts, up to the limits above."""
    if m.n > 1 and m.reconstruction is not None and m.reconstruction.empty and m.rate < SMALL_RATE:
        return True
    return (silent(m) and not silence_unclear(m)) or faint(m)


def faint(m: Measures) -> bool:
    """Return whether the signal is near its threshold, and a gain in the objective is not
    significant.

    The variance of means over few rows has an error. A signal just above the threshold is therefore
    no evidence of a code.
    """
    if (
        m.signal is None
        or m.rate >= SMALL_RATE
        or m.worth is None
        or m.worth.low > 0
        or m.worth.n < FEW
    ):
        return False
    return max(m.signal, _signal_limit(m)) < NEAR * SMALL_SIGNAL


def unstructured(m: Measures) -> bool:
    """Return whether cells are not significantly correlated, in data that could show it."""
    return (
        m.structure is not None
        and m.structure < UNSTRUCTURED
        and (m.visible is None or m.visible <= VISIBLE)
    )


def _signal_limit(m: Measures) -> float:
    """Return the signal for the upper limits of the activities, in nats, from all codes."""
    activity, variance, _ = codes_of(m)
    return (
        math.inf
        if variance is None
        else 0.5 * float(np.log1p(activity / np.maximum(variance, 1e-12)).sum())
    )


def silent(m: Measures) -> bool:
    """Return whether the estimated signal of the held-out data is small."""
    if m.n < 2:
        return False  # one row shows no dependence
    return bool((m.activity <= ACTIVE).all()) if m.signal is None else m.signal < SMALL_SIGNAL


def silence_unclear(m: Measures) -> bool:
    """Return whether the estimated signal is small, but not its upper limit."""
    activity, variance, _ = codes_of(m)
    if variance is None:
        return silent(m) and not bool((activity <= ACTIVE).all())
    return silent(m) and not _signal_limit(m) < NEAR * SMALL_SIGNAL


def moving_units(m: Measures) -> np.ndarray:
    """Return which units' means depend on the data, (units,): they are active, or have a signal
    above 0.01 nats."""
    if m.variance is None:
        return m.activity > ACTIVE
    return (m.activity > ACTIVE) | (
        0.5 * np.log1p(m.activity / m.variance.mean(0, dtype=np.float64)) > SMALL
    )


def off_units(m: Measures) -> np.ndarray:
    """Return which units' means do not depend on the data, (units,), from upper limits of activity
    and signal."""
    activity, variance, _ = codes_of(m)
    still = activity <= 1.5 * ACTIVE
    return ~moving_units(m) & (
        still if variance is None else still & (0.5 * np.log1p(activity / variance) <= 1.5 * SMALL)
    )


def use_of(case: Case) -> tuple[str, Paired, float]:
    """Return whether the decoder uses z ("used", "unused" or "unclear"), the increase of the
    distortion with another row's z, and the limit in nats below which z is unused.

    Used: the rank test is significant, and the lower limit of the mean or the median is above 0.
    Unused: the upper limits of both are below a twentieth of the weighted rate, or below 0.01 nats;
    or the test is not significant and they are below half of the weighted rate, so that the code
    costs more than it can save. For a code of less than 1 nat see also `worthless`.
    """
    m = case.measures
    assert m is not None
    use = Paired.normal(*m.gain, m.n) if m.use is None else m.use
    size = max(SMALL, UNUSED[0] * case.beta * m.rate)
    depends = use.p is not None and use.p < CHANCE
    enough = use.n >= FEW
    if use.most < size and enough:
        return "unused", use, size
    if not depends and enough and use.most < UNUSED[1] * case.beta * m.rate:
        return "unused", use, UNUSED[1] * case.beta * m.rate
    return ("used" if depends and use.sure else "unclear"), use, size


def worthless(case: Case) -> bool:
    """Return whether a small code does not raise the objective of unseen data.

    Small: a KL below 1 nat, or no informative unit. A model of pure noise may encode a part of each
    row. The decoder uses that code, and saves about as much as the KL costs. The upper limit of the
    gain must be small. For cells without significant correlations, it is enough that the lower
    limit is not above 0.
    """
    m = case.measures
    if m is None or m.worth is None or case.autoregressive or m.worth.low > 0 or m.worth.n < FEW:
        return False
    if m.rate >= SMALL_RATE and (not m.effects or "informative" in _own_roles(case)):
        return False
    return m.worth.high < max(WORTH[0], WORTH[1] * case.beta * m.rate) or (
        case.beta <= 1 and unstructured(m)
    )


def unused(case: Case) -> bool:
    """Return whether the code depends on the data, but the decoder does not use it, or the
    objective gains nothing from it."""
    return (
        case.measures is not None
        and not collapsed(case.measures)
        and (use_of(case)[0] == "unused" or worthless(case))
    )


def used(case: Case) -> bool:
    """Return whether the code depends on the data and the decoder uses it. A small code must also
    raise the objective."""
    m = case.measures
    if m is None or collapsed(m) or use_of(case)[0] != "used" or worthless(case):
        return False
    return m.worth is None or m.rate >= SMALL_RATE or case.autoregressive or m.worth.low > 0


def aggregate_limits(m: Measures) -> tuple[float, float] | None:
    """Return limits of the unit-wise KL of the aggregate posterior to the prior, in nats, summed
    over units.

    The lower limit is the leave-one-out estimate minus its error. The upper limit is the estimate
    with all codes plus its error.
    """
    information = m.aggregate or m.information
    if information is None or information.unit_kl_sum is None:
        return None
    reach = t_quantile(0.995, information.n - 1)
    low = (
        -math.inf
        if information.unit_kl_lower_sum is None
        else information.unit_kl_lower_sum[0] - reach * information.unit_kl_lower_sum[1]
    )
    return max(0.0, low), information.unit_kl_sum[0] + reach * information.unit_kl_sum[1]


def units_of(case: Case) -> tuple[Unit, ...]:
    """Return the measurements and roles of the units, in order."""
    m = case.measures
    if m is None:
        return ()
    activity, roles = m.activity, _own_roles(case)
    useless = (
        ("informative", "unclear") if unused(case) else ("informative",) if collapsed(m) else ()
    )
    variance = None if m.variance is None else m.variance.mean(0, dtype=np.float64)
    rates = None if m.rates is None else m.rates.mean(0, dtype=np.float64)
    kl, low = (None if x is None else np.asarray(x).ravel() for x in _unit_kls(m))
    units = []
    for j, moved in enumerate(activity.tolist()):
        effect, error = m.effects.get(j, (None, None))
        rate = None if rates is None else float(rates[j])
        active = moved > ACTIVE
        role = roles[j]
        if role in useless:
            role = "noise"  # no unit of a code without use is informative
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
                kl_to_prior_low=None if low is None else float(low[j]),
                role=role,
            )
        )
    return tuple(units)


def _unit_kls(m: Measures) -> tuple[np.ndarray | None, np.ndarray | None]:
    information = m.aggregate or m.information
    if information is None:
        return None, None
    return information.unit_kl, information.unit_kl_lower


def _own_roles(case: Case) -> list[Role]:
    """Return the role of each unit on its own, from its effect and half of its weighted rate."""
    m = case.measures
    assert m is not None
    rates = (
        [None] * len(m.activity) if m.rates is None else m.rates.mean(0, dtype=np.float64).tolist()
    )
    moving, off = moving_units(m).tolist(), off_units(m).tolist()
    return [
        _own_role(case, m, unit, rate, moving[unit], off[unit]) for unit, rate in enumerate(rates)
    ]


def _own_role(
    case: Case, m: Measures, unit: int, rate: float | None, moving: bool, off: bool
) -> Role:
    costs = bool(m.activity[unit] > ACTIVE) or (rate is not None and rate > UNIT_RATE)
    if not costs and not moving:
        return "off" if off or m.n >= FEW else "unclear"
    if unit not in m.effects:
        return "informative" if moving else "unclear"
    effect, error = m.effects[unit]
    reach = math.inf if math.isnan(error) else t_quantile(0.975, m.n - 1) * error if error else 0.0
    low, high = m.limits.get(unit, (effect - reach, effect + reach))
    if high < max(SMALL, 0.5 * case.beta * (rate or 0.0)):
        return "noise" if costs else "off"
    return "informative" if moving and low > 0 else "unclear"
