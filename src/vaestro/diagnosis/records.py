"""What a diagnosis returns: units, findings, and one verdict."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

VERDICTS = (
    "diverged", "not converged", "collapsed", "latent unused by the decoder", "overfitted", "partly collapsed",
    "small rate but informative", "healthy",
)  # fmt: skip
SEVERITIES = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """Hold one thing that was found.

    Args:
        name: what it is called.
        severity: "error": the model does not do what a VAE is for, or its numbers mislead; "warning": it could be better, or is to
            be read with care; "note": good to know.
        evidence: a sentence with the numbers.
        remedy: a command line that mends it; "" where there is none.
        figure: which figure of the report shows it.
        numbers: the numbers by name.
    """

    name: str
    severity: Literal["error", "warning", "note"]
    evidence: str
    remedy: str = ""
    figure: str | None = None
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def lines(self) -> Iterator[str]:
        """Say it, and what to do."""
        yield f"{self.severity}: {self.name}: {self.evidence}"
        if self.remedy:
            yield f"    try: {self.remedy}"


@dataclass(frozen=True)
class Unit:
    """Hold what one latent unit carries, on validation data.

    Args:
        unit: its number; grids lie flat.
        place: its index in the latent.
        rate: mean KL to the prior, in nats; None for families without a rate for each unit.
        activity: Var_x(E[z | x]), the variance over data of q's mean (Burda, Grosse and Salakhutdinov 2016).
        active: whether that is above 0.01.
        share: the share of the code's variance that the data explain: activity / (activity + posterior_variance); it does not change
            with the unit's scale.
        posterior_variance: mean variance of q.
        effect: by how much the distortion rises, in nats, when a draw of the prior stands in this unit's place, and its error; None
            where it was not measured (only so many units are).
        aggregate_mean, aggregate_std: of q(z), the mixture over data.
        kl_to_prior: KL(q(z_j) || p(z_j)) of the aggregate, in nats; None for families or priors without units.
        role: "informative"; "noise": it has a rate, or its mean depends on the data, but the decoder does not use it; "off"; "unclear":
            there are not enough data to tell.
        kl_to_prior_low: lower bound on kl_to_prior, from mixtures that leave each datum's own q out.
    """

    unit: int
    place: tuple[int, ...]
    rate: float | None
    activity: float
    active: bool
    share: float | None
    posterior_variance: float | None
    effect: float | None
    effect_stderr: float | None
    aggregate_mean: float
    aggregate_std: float
    kl_to_prior: float | None
    role: Literal["informative", "noise", "off", "unclear"]
    kl_to_prior_low: float | None = None


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """Hold a verdict, what it rests on, and what else was found.

    Args:
        verdict: one of VERDICTS, the first that holds.
        summary: the same in a sentence.
        units: of the latent, in order.
        findings: the worst first.
        numbers: what else diagnosis.json holds, by name.
        arrays: the whole distributions: of each datum and unit "rate", "mean", "logvar" (N, units); "histogram" and
            "prior_histogram" (units, bins), densities over "edges" (bins + 1,) of draws of q(z_j) and p(z_j).
    """

    verdict: str
    summary: str
    units: tuple[Unit, ...]
    findings: tuple[Finding, ...]
    numbers: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)

    @property
    def active_units(self) -> int:
        """Count the active units."""
        return sum(u.active for u in self.units)

    def __getitem__(self, name: str) -> Finding:
        """Return a finding by name."""
        for finding in self.findings:
            if finding.name == name:
                return finding
        raise KeyError(name)

    def line(self) -> dict[str, Any]:
        """Return what diagnosis.json holds."""
        whole = {
            "verdict": self.verdict,
            "summary": self.summary,
            "active_units": self.active_units,
            **self.numbers,
            "units": [asdict(u) for u in self.units],
            "findings": [asdict(f) for f in self.findings],
        }
        return plain(whole)  # type: ignore[no-any-return]


def plain(value: Any) -> Any:
    """Return numbers and containers as JSON takes them, numbers to six digits, what is not finite as None."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
