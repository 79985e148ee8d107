"""Numbers and arrays of a diagnosis, as diagnosis.json and the report contain them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from vaestro.diagnosis.code import aggregate_limits, use_of
from vaestro.diagnosis.measures import Measures
from vaestro.diagnosis.rules.case import Case
from vaestro.files import Json


def gap_of(m: Measures) -> tuple[float, float]:
    """Return the training score minus the held-out score, and its standard error, in nats."""
    assert m.train is not None
    return m.train[0] - m.valid[0], math.hypot(m.train[1], m.valid[1])


def numbers_of(
    case: Case, thresholds: Mapping[str, float]
) -> tuple[dict[str, Json], dict[str, np.ndarray]]:
    """Return the numbers for diagnosis.json and the arrays for the report."""
    m = case.measures
    numbers: dict[str, Json] = {
        "mutual_information": None,
        "mutual_information_ceiling": None,
        "thresholds": thresholds,
        "beta": case.beta,
        "samples": None if case.dependence is None else case.dependence.line(),
    }
    if m is None:
        return numbers | dict(case.known), {}
    if m.information is not None:
        interval = m.information.interval()
        # Order the ends: the estimate has an error and may exceed the rate or be negative.
        limits = None if interval is None else (max(0.0, min(interval)), interval[1])
        numbers |= {
            "mutual_information": limits,
            "mutual_information_ceiling": m.information.ceiling,
        }
        numbers["mutual_information_n"] = m.information.n
    numbers |= {
        "split": m.split,
        "n": m.n,
        "rate": m.rate,
        "distortion": m.distortion,
        "signal": m.signal,
        "scores": _scores(m),
        "dependence": {
            "own": m.own,
            "other": m.other,
            "gain": dict(zip(("mean", "stderr"), m.gain, strict=True)),
            **_use_line(case),
        },
        "aggregate": None
        if (kl := aggregate_limits(m)) is None
        else {"low": kl[0], "high": kl[1], "n": _codes_of(m)},
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
    return numbers, _arrays(m)


def _scores(m: Measures) -> dict[str, Json]:
    score = {
        name: dict(zip(("mean", "stderr", "n"), s, strict=True))
        for name, s in (("train", m.train), (m.split, m.valid))
        if s is not None
    }
    if m.train is not None:
        score["gap"] = dict(zip(("mean", "stderr"), gap_of(m), strict=True))
    return score


def _arrays(m: Measures) -> dict[str, np.ndarray]:
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
    return arrays


def _codes_of(m: Measures) -> int | None:
    estimate = m.aggregate or m.information
    return None if estimate is None else estimate.n


def _use_line(case: Case) -> dict[str, Json]:
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
