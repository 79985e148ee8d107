"""Check options and data before the first step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vaestro.data import Data
from vaestro.diagnosis.curves import ENOUGH
from vaestro.diagnosis.records import SEVERITIES, Finding
from vaestro.diagnosis.remedies import HIGH_LR, Remedies
from vaestro.objectives import Schedule
from vaestro.parts import WEIGHTS_EACH_VALUE

# Overfitting is expected with fewer rows than this, more weights per row than this, and more
# weights per value than default networks have; or with more weights per value than MANY_WEIGHTS.
FEW_ROWS, WEIGHTS_EACH, MANY_WEIGHTS = 2000, 500, 30
FEW_VALID = 30
TOTALS = 200  # number of rows whose totals are compared with the library size
LEFT = 0.5  # maximum fixed variance, as a share of the variance of the data


@dataclass(frozen=True, eq=False)
class Plan:
    """The options and sizes of a planned run.

    Args:
        remedy: command lines and the options of the run.
        data: the data.
        parameters: number of weights of the model.
        units: number of latent units.
        beta: the schedule of the KL weight.
        steps, batch: number of steps and batch size.

    >>> import vaestro as vs
    >>> data = vs.load(np.eye(10, dtype="uint8").repeat(20, 0))
    >>> remedy, beta = Remedies("runs/mine", {"beta": 4.0}), Schedule(4.0)
    >>> plan = Plan(remedy, data, parameters=100, units=2, beta=beta, steps=99, batch=20)
    >>> plan.epochs
    11.0
    """

    remedy: Remedies
    data: Data
    parameters: int
    units: int
    beta: Schedule
    steps: int
    batch: int

    @property
    def epochs(self) -> float:
        """Return the number of passes over the training data."""
        return self.steps * self.batch / len(self.data.train)


def lint(plan: Plan) -> list[Finding]:
    """Return the findings on options and data, most severe first.

    >>> import vaestro as vs
    >>> data = vs.load(np.eye(10, dtype="uint8").repeat(20, 0))
    >>> remedy, beta = Remedies("runs/mine", {"beta": 4.0}), Schedule(4.0)
    >>> plan = Plan(remedy, data, parameters=100, units=2, beta=beta, steps=99, batch=20)
    >>> [finding.name for finding in lint(plan)]
    ['weight of the KL', 'little validation']
    """
    findings = [f for f in (rule(plan) for rule in RULES) if f is not None]
    return sorted(findings, key=lambda f: SEVERITIES.index(f.severity))


def _weight(plan: Plan) -> Finding | None:
    last = plan.beta.value
    if last == 0:
        text = (
            "beta 0: the loss has no term for the prior. Prior samples may be far from all "
            "codes, and the bound far below log p(x)"
        )
        return Finding("weight of the KL", "warning", text, plan.remedy.with_beta(1.0))
    if last > 1:
        text = (
            f"beta {last:g}: units become inactive that would raise the bound; the reported "
            f"bound is unweighted"
        )
        return Finding("weight of the KL", "note", text, plan.remedy.with_beta(1.0))
    return None


def _library(plan: Plan) -> Finding | None:
    """Find a library size that is the sum of the modelled counts."""
    name = plan.remedy.library
    rows = plan.data.train.spread(TOTALS)
    if (
        name is None
        or rows.given is None
        or rows.given_space is None
        or name not in rows.given_space.names
    ):
        return None
    library = np.asarray(
        rows.given_space.outward(rows.given, exact=False).columns[name].data, np.float64
    )
    totals = rows.fixed().batch(slice(0, len(rows))).x.flatten(1).double().sum(1).numpy()
    if not np.allclose(library, totals, rtol=1e-3, atol=0.5):
        return None
    text = (
        f"{name} is the sum of the modelled counts: p(x | {name}) then conditions on a function "
        f"of x, and its bound cannot be compared "
        "with that of a model without this condition. A library is a total of cells that are not "
        "modelled, or of the whole sample"
    )
    return Finding("library of its own counts", "warning", text)


def _schedule(plan: Plan) -> Finding | None:
    import torch

    last = plan.beta.value
    late = float(plan.beta(torch.tensor(0.9 * plan.steps, dtype=torch.float64)))
    if math.isclose(late, last, rel_tol=1e-6, abs_tol=1e-9):
        return None
    text = (
        f"the weight of the KL still changes in the last tenth of the run ({late:.3g} of {last:g})"
    )
    return Finding("schedule too long", "warning", text, plan.remedy.shorter_schedule(last))


def _length(plan: Plan) -> Finding | None:
    if plan.epochs < 1:
        text = (
            f"{plan.steps:,} steps of {plan.batch} see {plan.epochs:.0%} of the "
            f"{len(plan.data.train):,} training data once"
        )
        return Finding("short run", "warning", text)
    if plan.epochs < ENOUGH:
        text = (
            f"{plan.epochs:.1f} epochs: convergence cannot be judged with fewer than {ENOUGH} "
            f"validations"
        )
        return Finding("short run", "note", text)
    return None


def _few_data(plan: Plan) -> Finding | None:
    rows = len(plan.data.train)
    values = rows * plan.data.space.cells
    weights = plan.parameters
    few = rows < FEW_ROWS and weights >= max(WEIGHTS_EACH * rows, WEIGHTS_EACH_VALUE * values)
    if not few and (weights < MANY_WEIGHTS * values or rows < FEW_ROWS):
        return None
    kept = (
        ""
        if plan.remedy.config.get("keep") == "last" or not len(plan.data.valid)
        else ". The best weights by validation are kept"
    )
    text = (
        f"{weights:,} weights for {values:,} values in {rows:,} training data: watch for "
        f"overfitting{kept}"
    )
    return Finding("few data", "note", text)


def _validation(plan: Plan) -> Finding | None:
    rows = len(plan.data.valid)
    if rows >= FEW_VALID:
        return None
    text = f"{rows} validation data: " + (
        "early stopping and the choice of the best weights need validation data"
        if not rows
        else "their bound has a large standard error"
    )
    return Finding("little validation", "warning" if not rows else "note", text)


def _fixed_variance(plan: Plan) -> Finding | None:
    fixed, space = plan.remedy.fixed_variance, plan.data.space
    if fixed is None or not space.has_mean or space.tabular:
        return None
    variance = float(fixed)
    values = np.asarray(plan.data.train.spread(2000).outward(), np.float64)
    observed = float(np.nanmean(np.nanvar(values, 0)))
    if not observed > 0 or variance < LEFT * observed:
        return None
    text = (
        f"the fixed variance is {variance:g}, and the data have {observed:.3g} per cell: little "
        f"is left to explain, so units will be inactive"
    )
    return Finding("variance that does not fit", "warning", text, plan.remedy.learned_variance())


def _many_units(plan: Plan) -> Finding | None:
    cells = plan.data.space.cells
    if plan.units <= cells:
        return None
    text = f"{plan.units:,} latent units for {cells:,} cells per row: a copy of the row needs fewer"
    return Finding("many units", "note", text)


def _rate(plan: Plan) -> Finding | None:
    lr = plan.remedy.config.get("lr")
    if (
        not isinstance(lr, float)
        or lr <= HIGH_LR
        or plan.remedy.name("optimizer") not in ("", "adamw")
    ):
        return None
    return Finding(
        "high learning rate",
        "warning",
        f"a learning rate of {lr:g} is high for AdamW (default 0.002)",
        plan.remedy.again("lr", lr=0.002),
    )


RULES: tuple[Callable[[Plan], Finding | None], ...] = (
    _weight,
    _library,
    _schedule,
    _length,
    _few_data,
    _validation,
    _fixed_variance,
    _many_units,
    _rate,
)
