"""What a diagnosis returns: units, findings, and one verdict."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

VERDICTS = (
    "diverged",
    "not converged",
    "collapsed",
    "latent unused by the decoder",
    "overfitted",
    "partly collapsed",
    "small rate but informative",
    "healthy",
)
SEVERITIES = ("error", "warning", "note")
# Why a finding of this name may have no command, and what to do then.
NO_COMMAND = {
    "aggregate posterior misses the prior": "this prior cannot be fitted afterwards; train with "
    "another --prior, such as mixture",
    "data changed": "restore the data that the run was trained on, or train again on these",
    "divergence": "train again with a lower --lr",
    "duplicates between splits": "remove the copies from the data, or put copies into one split, "
    "and train again",
    "few data": "compare the training and validation bounds for overfitting; more data reduce it",
    "further terms in the loss": "these terms were asked for",
    "gradient mostly noise": "use an objective with more draws, or a larger --batch",
    "high learning rate": "use a lower --lr",
    "latent unused": "each remedy known for this was tried, or would be refused for this model; "
    "use another --likelihood or --network",
    "library of its own counts": "use a library that is not computed from the modelled counts",
    "little validation": "hold out more data, such as SOURCE:valid=0.1",
    "log-variance at its limit": "raise limit= of the posterior only if codes must be that exact "
    "or that flat",
    "many units": "use a smaller --latent, unless more units than cells are intended",
    "no validation": "hold out data, such as SOURCE:valid=0.1",
    "not converged": "train with more --steps",
    "not enough data to tell": "hold out more data, such as SOURCE:valid=0.2, or evaluate on "
    "more test data",
    "overfitting": "no smaller network of this kind can be built: use more data, or a network of "
    "another kind",
    "partial collapse": "each remedy was tried, or would be refused for this model",
    "posterior collapse": "each remedy known for this was tried, or would be refused for this "
    "model; use another --likelihood or --network",
    "reconstruction stagnates while the KL falls": "use a lower --lr",
    "schedule too long": "use a schedule with a smaller share of the run",
    "short run": "train with more --epochs",
    "slow data": "decode the data in advance, or use more --workers",
    "small rate": "nothing needs to change: data with little structure have a small KL",
    "steps skipped": "use a lower --lr",
    "units switched off": "nothing needs to change: inactive units cost nothing",
    "units that carry noise": "nothing needs to change: more --steps let these units switch off",
    "validation bound falls": "the run already stops early",
    "variance that does not fit": "train longer, or choose another likelihood",
    "weight of the KL": "the weight was asked for",
}


@dataclass(frozen=True)
class Finding:
    """Hold one finding.

    Args:
        name: of the finding.
        severity: "error": the model does not work as a VAE, or its numbers mislead; "warning": it
            could be better, or its numbers need care; "note": for information.
        evidence: a sentence with the numbers.
        remedy: a command line that changes it; "" if there is none.
        figure: which figure of the report shows it.
        numbers: the numbers by name.
        no_remedy: why there is no command and what to do, if `remedy` is ""; by default what
            NO_COMMAND says.
    """

    name: str
    severity: Literal["error", "warning", "note"]
    evidence: str
    remedy: str = ""
    figure: str | None = None
    numbers: Mapping[str, Any] = field(default_factory=dict)
    no_remedy: str = ""

    def __post_init__(self) -> None:
        """Fill in why there is no command."""
        why = (
            ""
            if self.remedy
            else self.no_remedy or NO_COMMAND.get(self.name, "this version knows none")
        )
        object.__setattr__(self, "no_remedy", why)

    def lines(self) -> Iterator[str]:
        """Say it, and what to do."""
        yield f"{self.severity}: {self.name}: {self.evidence}"
        yield f"    try: {self.remedy}" if self.remedy else f"    no command: {self.no_remedy}"


@dataclass(frozen=True)
class Unit:
    """Hold the measures and the role of one latent unit, on validation data.

    Args:
        unit: its number; grids lie flat.
        place: its index in the latent.
        rate: mean KL to the prior, in nats; None for families without a rate for each unit.
        activity: Var_x(E[z | x]), the variance over data of q's mean (Burda, Grosse and
            Salakhutdinov 2016).
        active: whether that is above 0.01.
        share: the share of the code's variance that the data explain: activity / (activity +
            posterior_variance); it does not change with the unit's scale.
        posterior_variance: mean variance of q.
        effect: increase of the distortion, in nats, if this unit is replaced by a prior sample, and
            its standard error; None if it was not measured (only the units with the largest rate
            are).
        aggregate_mean, aggregate_std: of q(z), the mixture over data.
        kl_to_prior: KL(q(z_j) || p(z_j)) of the aggregate, in nats; None for families or priors
            without units.
        role: "informative"; "noise": it has a rate, or its mean depends on the data, but its effect
            is below half of the rate, or the whole code is shown to be of no use; "off"; "unclear":
            not enough data to tell.
        kl_to_prior_low: lower bound on kl_to_prior, from mixtures that leave each datum's own q
            out.
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
        arrays: the whole distributions: of each datum and unit "rate", "mean", "logvar" (N, units);
            "histogram" and "prior_histogram" (units, bins), densities over "edges" (bins + 1,) of
            draws of q(z_j) and p(z_j).
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
    """Return numbers and containers as JSON takes them, numbers to six digits, what is not finite
    as None."""
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
