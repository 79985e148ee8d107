"""Rules on the code: collapse, use by the decoder, inactive units, the aggregate posterior."""

from __future__ import annotations

import math

import numpy as np

from vaestro.diagnosis.code import (
    CHANCE,
    SMALL_RATE,
    aggregate_limits,
    codes_of,
    collapsed,
    faint,
    silence_unclear,
    units_of,
    unstructured,
    unused,
    use_of,
    used,
)
from vaestro.diagnosis.curves import ZERO_RATE
from vaestro.diagnosis.measures import Measures
from vaestro.diagnosis.records import Finding
from vaestro.diagnosis.rules.case import Case
from vaestro.diagnosis.words import cost_of
from vaestro.evaluation import plus_minus
from vaestro.loop import ACTIVE

# limits of the unit-wise KL between aggregate posterior and prior: nats, and share of the rate
MISS = (1.0, 0.1)
# share of inactive units (at least 2) from which a smaller latent is suggested
WORTH_TYPING = 0.25


def _unstructured(m: Measures) -> str:
    """Return the sentence on uncorrelated cells; "" if they are correlated or too few."""
    if not unstructured(m):
        return ""
    seen = "" if m.visible is None else f"; these data would show one above {m.visible:.2f}"
    return (
        f"Cells are not correlated beyond chance (largest eigenvalue {m.structure:.2f} times "
        f"that of shuffled cells{seen})"
    )


def _cures(case: Case) -> str:
    """Return a sentence with the remedies that were not tried; "" if all were."""
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


def _dependence_sentence(case: Case, m: Measures) -> str:
    """Return the sentence on how little the encoder output depends on its input."""
    largest = float(m.activity.max())
    signal = (
        "" if m.signal is None else f"; the signal of all units together is {m.signal:.2g} nats"
    )
    depends = "does not depend" if largest <= ACTIVE else "hardly depends"
    text = (
        f"the encoder's output {depends} on its input: over {m.n:,} {m.split} data the variance "
        f"of E[z | x] is at most "
        f"{largest:.2g} in each of {len(m.activity)} units (active: above {ACTIVE}){signal}; "
        f"replacing the z of each row by that of "
        f"another row costs {plus_minus(m.gain)} nats of reconstruction"
    )
    if m.rate > SMALL_RATE:
        text += f"; the KL is {m.rate:.2f} nats, but q(z | x) is nearly the same for every x"
    else:
        silent = case.curves.silent_from()
        text += f"; the KL is {m.rate:.2g} nats" + (
            f", and was below {ZERO_RATE} since step {silent:,}" if silent else ""
        )
    if m.worth is not None and faint(m):
        text += (
            f"; the code is not shown to raise the objective "
            f"({plus_minus((m.worth.mean, m.worth.stderr))} nats)"
        )
    if m.reconstruction is not None:
        text += f"; {m.reconstruction.sentence()}"
    return text


def collapse(case: Case) -> Finding | None:
    """Find an encoder whose output does not depend on its input."""
    m = case.measures
    if m is None or case.units == (0,) or not collapsed(m):
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
    text = _dependence_sentence(case, m)
    if case.autoregressive and case.beta <= 1:
        text += _cures(case)
    numbers = {
        "largest_activity": float(m.activity.max()),
        "signal": m.signal,
        "rate": m.rate,
        "structure": m.structure,
    }
    if case.beta <= 1 and _unstructured(m):
        text += (
            f". {_unstructured(m)}: there may be nothing to encode. Collapse is then the optimum"
        )
        return Finding("posterior collapse", "warning", text, "", "units", numbers, NO_STRUCTURE)
    return Finding(
        "posterior collapse", "error", text, case.remedy.for_collapse(case.beta), "units", numbers
    )


def decoder_ignores(case: Case) -> Finding | None:
    """Find a decoder that ignores z, or a code that does not raise the objective."""
    m = case.measures
    if m is None or not unused(case):
        return None
    state, use, size = use_of(case)
    numbers = {"gain": use.mean, "stderr": use.stderr, "high": use.most, "size": size, "p": use.p}
    if not case.reads_latent:
        text = f"{BY_DESIGN}; their KL of {m.rate:.2g} nats goes to zero with training"
        return Finding("latent unused", "note", text, "", "dependence", numbers, NO_LATENT)
    text = (
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
        text += (
            f"the code is not shown to raise the objective: {where} its weighted KL is "
            f"{case.beta * m.rate:.2g} nats, and it changes the "
            f"objective by {gain} nats (upper limit {m.worth.high:.2g}), against one z for all rows"
        )
    else:
        hardly = "hardly uses it" if use.p is not None and use.p < CHANCE else "does not use it"
        text += (
            f"the decoder {hardly}: {where} another row's z costs {cost_of(use)}, at most "
            f"{use.most:.2g} nats, "
        )
        text += f"below the limit of {size:.2g}"
    if case.beta <= 1 and _unstructured(m):
        text += f". {_unstructured(m)}: there may be nothing to encode. A code is then of no use"
        return Finding("latent unused", "warning", text, "", "dependence", numbers, NO_STRUCTURE)
    return Finding(
        "latent unused", "error", text, case.remedy.for_decoder(case.beta), "dependence", numbers
    )


def unclear(case: Case) -> Finding | None:
    """Find data that are too few to decide whether the code depends on the data, or whether the
    decoder uses it."""
    m = case.measures
    if m is None or not case.reads_latent or collapsed(m):
        return None
    text, numbers = [], {}
    if silence_unclear(m):
        text.append(
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
        text.append(
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
        text.append(
            f"{m.worth.n:,} {m.use_split or m.split} data are not enough to tell whether the "
            f"code is worth its KL of {m.rate:.2g} nats: "
            f"against one z for all rows it changes the objective by "
            f"{plus_minus((m.worth.mean, m.worth.stderr))} nats"
        )
    if not text:
        return None
    return Finding("not enough data to tell", "note", "; ".join(text), "", "dependence", numbers)


def partly_collapsed(case: Case) -> Finding | None:
    """Find inactive units that the KL weight or an autoregressive decoder may explain."""
    m = case.measures
    if m is None or collapsed(m) or not case.inactive or not (case.beta > 1 or case.autoregressive):
        return None
    why = (
        f"with a final KL weight of {case.beta:g}"
        if case.beta > 1
        else "and the decoder could ignore z"
    )
    text = f"{_inactive(case)} {why}: the unweighted bound may gain from more active units"
    if case.beta <= 1:
        text += _cures(case)
    remedy = case.remedy.with_beta(1.0) if case.beta > 1 else case.remedy.informed()
    return Finding(
        "partial collapse", "warning", text, remedy, "units", {"inactive": case.inactive}
    )


def small_rate(case: Case) -> Finding | None:
    """Find a small KL whose code is nevertheless used."""
    m = case.measures
    if m is None or not used(case) or not m.rate < SMALL_RATE:
        return None
    signal = "" if m.signal is None else f" (signal {m.signal:.2g} nats)"
    use = use_of(case)[1]
    text = (
        f"the KL is {m.rate:.2g} nats, but the encoder's output depends on its input{signal} and "
        f"the decoder uses it: on {use.n:,} "
        f"{m.use_split or m.split} data another row's z costs {cost_of(use)}. A small KL is not "
        f"collapse: data may have little structure"
    )
    if _unstructured(m):
        text += f". {_unstructured(m)}: the code may describe noise"
    return Finding("small rate", "note", text, "", "units", {"rate": m.rate, "signal": m.signal})


def _inactive(case: Case) -> str:
    return (
        f"{case.inactive} of {math.prod(case.units)} units "
        f"{'is' if case.inactive == 1 else 'are'} inactive"
    )


def switched_off(case: Case) -> Finding | None:
    """Find inactive units that the objective does not need."""
    m = case.measures
    if (
        m is None
        or not case.inactive
        or collapsed(m)
        or unused(case)
        or partly_collapsed(case) is not None
    ):
        return None
    total = len(m.activity)
    text = f"{_inactive(case)}. "
    if case.extra:
        text += (
            f"The loss has further terms ({', '.join(case.extra)}), so this says nothing "
            f"about the best number for the bound"
        )
    elif math.isclose(case.beta, 1, rel_tol=1e-6):
        text += "With a KL weight of 1 this is expected: this decoder gains nothing from more units"
    else:
        text += f"With a KL weight of {case.beta:g}, the objective gains nothing from more units"
    few = case.inactive < max(2, WORTH_TYPING * total)
    remedy = (
        ""
        if few or len(case.units) > 1 or case.inactive == total
        else case.remedy.fewer_units(total - case.inactive)
    )
    return Finding(
        "units switched off",
        "note",
        text,
        remedy,
        "units",
        {"inactive": case.inactive, "units": total},
    )


def noise_units(case: Case) -> Finding | None:
    """Find units with a KL that the reconstruction does not use."""
    noisy = [u for u in units_of(case) if u.role == "noise"]
    if not noisy or case.measures is None or collapsed(case.measures) or unused(case):
        return None
    shown = ", ".join(str(u.unit) for u in noisy[:8]) + (" .." if len(noisy) > 8 else "")
    paid = sum(u.rate or 0.0 for u in noisy)
    which, them = ("unit", "it") if len(noisy) == 1 else ("units", "them")
    text = (
        f"{len(noisy)} {which} ({shown}) with {paid:.2f} nats of KL: replacing {them} by "
        f"prior samples hardly changes the reconstruction"
    )
    return Finding(
        "units that carry noise",
        "note",
        text,
        "",
        "units",
        {"units": [u.unit for u in noisy], "rate": paid},
    )


def aggregate(case: Case) -> Finding | None:
    """Find an aggregate posterior that differs from the prior."""
    m = case.measures
    limits = None if m is None or collapsed(m) else aggregate_limits(m)
    if m is None or limits is None or not limits[0] > max(MISS[0], MISS[1] * m.rate):
        return None
    estimate = m.aggregate or m.information
    assert estimate is not None
    assert estimate.unit_kl_lower is not None
    worst = int(np.argmax(np.asarray(estimate.unit_kl_lower).ravel()))
    text = (
        f"the unit-wise KL of the codes of {estimate.n:,} rows is between {limits[0]:.2f} and "
        f"{limits[1]:.2f} nats in all (largest in unit {worst}: mean {m.z_mean[worst]:.2f}, "
        f"standard deviation {m.z_std[worst]:.2f}). "
        f"Prior samples come from regions with few codes, so they will be worse than "
        f"reconstructions"
    )
    remedy = case.remedy.with_beta(1.0) if case.beta < 1 else case.remedy.fitted_prior()
    numbers = {
        "unit_kl": (estimate.unit_kl_sum or (math.nan,))[0],
        "low": limits[0],
        "high": limits[1],
        "n": estimate.n,
    }
    return Finding(
        "aggregate posterior misses the prior", "warning", text, remedy, "aggregate", numbers
    )
