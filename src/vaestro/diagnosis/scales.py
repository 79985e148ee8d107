"""Check whether the scale of a likelihood is at its optimum.

At the optimum, the mean squared standardised residual of the training data is 1.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vaestro.diagnosis.rules import Case

SETTLED = 1.5  # a learned scale is not at its optimum if the residual differs from 1 by this factor


def off_scale(case: Case, factor: float) -> tuple[str, float] | None:
    """Return the column whose standardised residual on training data differs most from 1, and the
    residual; None if no column differs significantly by more than `factor`.

    The column is "" for data without columns.

    >>> from vaestro.diagnosis import Case, Curves, Remedies
    >>> off_scale(Case(Remedies("run", {}), Curves([], 10), None), 1.5) is None
    True
    """
    m = case.measures
    significant = (
        {}
        if m is None
        else {
            name: mean
            for name, (mean, low, high) in m.scales.items()
            if low > factor or high < 1 / factor
        }
    )
    return max(
        significant.items(), key=lambda item: abs(math.log(max(item[1], 1e-12))), default=None
    )


def unfitted_scale(case: Case) -> str:
    """Return the evidence that a learned scale has not reached its optimum; empty if it has.

    >>> from vaestro.diagnosis import Case, Curves, Remedies
    >>> unfitted_scale(Case(Remedies("run", {}), Curves([], 10), None))
    ''
    """
    worst = off_scale(case, SETTLED)
    if worst is None or not case.remedy.learns_scale:
        return ""
    where = f" of column {worst[0]!r}" if worst[0] else ""
    return (
        f"the scale of the likelihood{where} has not reached its optimum: the standardised "
        f"residual is {worst[1]:.3g} instead of 1"
    )
