"""The result of a diagnosis: units, findings, and a verdict."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

import numpy as np

from vaestro.files import Json
from vaestro.notebook import Card, Shown

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
# What to do about a finding that has no command.
NO_COMMAND = {
    "aggregate posterior misses the prior": "this prior cannot be fitted afterwards; "
    "train with another --prior, for example mixture",
    "data changed": "restore the data that the run was trained on, or train again on these",
    "dependence in samples unclear": "train on more rows",
    "dependence lost in samples": "no option is known to help every such run; try others, and "
    "compare them by `vaestro evaluate RUN --methods samples`",
    "divergence": "train again with a lower --lr",
    "duplicates between splits": "remove the copies from the data, or put copies into one split, "
    "and train again",
    "few data": "compare the training and validation bounds for overfitting; more data reduce it",
    "further terms in the loss": "nothing needs to change: you requested these terms",
    "gradient mostly noise": "use an objective with more draws, or a larger --batch",
    "high learning rate": "use a lower --lr",
    "latent unused": "every known remedy was tried, or does not apply to this model; "
    "use another --likelihood or --network",
    "library of its own counts": "use a library that is not computed from the modelled counts",
    "little validation": "hold out more rows, for example SOURCE:valid=500",
    "log-variance at its limit": "raise limit= of the posterior only if you need codes of so "
    "small or large a variance",
    "many units": "use a smaller --latent, unless more units than cells are intended",
    "no validation": "hold out rows, for example SOURCE:valid=500",
    "not converged": "train with more --steps",
    "not enough data to tell": "hold out more rows, for example SOURCE:valid=500, or evaluate on "
    "more test data",
    "overfitting": "no smaller network of this kind can be built: use more data, or a network of "
    "another kind",
    "partial collapse": "every known remedy was tried, or does not apply to this model",
    "posterior collapse": "every known remedy was tried, or does not apply to this model; "
    "use another --likelihood or --network",
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
    "weight of the KL": "nothing needs to change: you requested this weight",
}


@dataclass(frozen=True)
class Finding:
    """A finding of the diagnosis.

    Args:
        name: name of the finding.
        severity: "error": the model does not work as a VAE, or its numbers are misleading;
            "warning": the model could be better, or its numbers need care; "note": information.
        evidence: a sentence with the numbers.
        remedy: a command line that fixes it; "" if there is none.
        figure: the figure of the report that shows it.
        numbers: the numbers by name.
        no_remedy: what to do if there is no command; by default the entry of NO_COMMAND.

    >>> finding = Finding("few data", "note", "there are 80 training data")
    >>> for line in finding.lines():
    ...     print(line)
    note: few data: there are 80 training data
        no command: compare the training and validation bounds for overfitting; more data reduce it
    """

    name: str
    severity: Literal["error", "warning", "note"]
    evidence: str
    remedy: str = ""
    figure: str | None = None
    numbers: Mapping[str, Json] = field(default_factory=dict)
    no_remedy: str = ""

    def __post_init__(self) -> None:
        """Fill in the advice for a finding without a command."""
        why = (
            "" if self.remedy else self.no_remedy or NO_COMMAND.get(self.name, "no remedy is known")
        )
        object.__setattr__(self, "no_remedy", why)

    def lines(self) -> Iterator[str]:
        """Yield the finding, then what to do, as lines of text."""
        yield f"{self.severity}: {self.name}: {self.evidence}"
        yield f"    try: {self.remedy}" if self.remedy else f"    no command: {self.no_remedy}"


@dataclass(frozen=True)
class Unit:
    """The measurements and the role of a latent unit, on validation data.

    Args:
        unit: number of the unit in the flattened latent.
        place: index in the latent.
        rate: mean KL to the prior, in nats; None for families without a rate per unit.
        activity: Var_x(E[z | x]), the variance over data of q's mean (Burda, Grosse and
            Salakhutdinov 2016).
        active: whether `activity` is above 0.01.
        share: share of the variance of the unit that the data explain: activity / (activity +
            posterior_variance). It does not depend on the scale of the unit.
        posterior_variance: mean variance of q.
        effect, effect_stderr: increase of the distortion, in nats, if the unit is replaced by a
            prior sample, and its standard error. Measured only for the units with the largest
            rates, else None.
        aggregate_mean, aggregate_std: mean and standard deviation of q(z), the mixture over data.
        kl_to_prior: KL(q(z_j) || p(z_j)) of this mixture, in nats; None for families or priors
            without units.
        role: "informative"; "off"; "noise": it has a rate, or its mean depends on the data, but
            its effect is below half of its rate, or the decoder does not use the code; "unclear":
            not enough data to tell.
        kl_to_prior_low: lower bound on kl_to_prior, from mixtures without the q of the datum
            itself.

    >>> Unit(0, (0,), 1.2, 0.9, True, 0.9, 0.1, 1.1, 0.1, 0.0, 1.0, 0.02, "informative").share
    0.9
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


@dataclass(frozen=True, eq=False, repr=False)
class Diagnosis(Shown):
    """A verdict with its evidence, and all findings.

    Args:
        verdict: the first of VERDICTS that applies.
        summary: the verdict as a sentence.
        units: the latent units, in order.
        findings: the findings, the worst first.
        numbers: further entries of diagnosis.json by name.
        arrays: "rate", "mean" and "logvar" (N, units); "histogram" and "prior_histogram"
            (units, bins), the densities of draws of q(z_j) and p(z_j) in bins with "edges"
            (bins + 1,).

    >>> finding = Finding("few data", "note", "there are 80 training data")
    >>> Diagnosis("healthy", "", (), (finding,))["few data"].severity
    'note'
    """

    verdict: str
    summary: str
    units: tuple[Unit, ...]
    findings: tuple[Finding, ...]
    numbers: Mapping[str, Json] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)

    def card(self) -> Card:
        """Return the verdict, and each finding with its remedy."""
        lines = [line for finding in self.findings for line in finding.lines()]
        return Card(f"Diagnosis: {self.verdict}", [self.summary, *lines])

    @property
    def active_units(self) -> int:
        """Return the number of active units."""
        return sum(u.active for u in self.units)

    def __getitem__(self, name: str) -> Finding:
        """Return a finding by its name."""
        for finding in self.findings:
            if finding.name == name:
                return finding
        raise KeyError(name)

    def line(self) -> dict[str, Json]:
        """Return the content of diagnosis.json."""
        return {
            "verdict": self.verdict,
            "summary": self.summary,
            "active_units": self.active_units,
            **{name: as_json(value) for name, value in self.numbers.items()},
            "units": [as_json(asdict(u)) for u in self.units],
            "findings": [as_json(asdict(f)) for f in self.findings],
        }


def as_json(value: object) -> Json:
    """Return a value as JSON value, with numbers to six digits and None if not finite.

    >>> as_json({"p": np.float32(1 / 3), "x": [np.inf]})
    {'p': 0.333333, 'x': [None]}
    """
    if isinstance(value, Mapping):
        return {str(k): as_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(v) for v in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
