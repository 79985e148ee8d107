"""Whether the scale of a likelihood fits: its standardised residual is 1 on average where the scale
is at its optimum."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vaestro.diagnosis.rules import Case

SETTLED = 1.5  # factor from 1 beyond which a learned scale has not reached its optimum


def off_scale(case: Case, factor: float) -> tuple[str, float] | None:
    """Return the column ("" for all cells) whose standardised residual on training data is
    certainly beyond a factor of 1, and it."""
    m = case.measures
    surely = (
        {}
        if m is None
        else {
            name: mean
            for name, (mean, low, high) in m.scales.items()
            if low > factor or high < 1 / factor
        }
    )
    return max(surely.items(), key=lambda item: abs(math.log(max(item[1], 1e-12))), default=None)


def unfitted_scale(case: Case) -> str:
    """Say that a learned scale has not reached its optimum under the ELBO, where its standardised
    residual is 1; "" if it has."""
    found = off_scale(case, SETTLED)
    if found is None or not case.remedy.learns_scale:
        return ""
    where = f" of column {found[0]!r}" if found[0] else ""
    return (
        f"the scale of the likelihood{where} has not reached its optimum: the standardised "
        f"residual is {found[1]:.3g}, and 1 there"
    )
