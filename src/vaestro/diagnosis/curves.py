"""The curves of a run, from metrics.jsonl: bound, reconstruction, KL and its weight.

Training lines are of the current weights, averaged over an epoch. Validation lines are of the
averaged weights. The two are not compared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import final

import numpy as np

from vaestro.diagnosis.remedies import Remedies
from vaestro.files import Json

ENOUGH = 3  # validations after the first step
# nats, sum over units; below it the encoder's output hardly depends on its input
SMALL_SIGNAL = 0.05
ZERO_RATE = 0.1  # nats; a KL below it is nearly zero


@final
class Curves:
    """The lines of metrics.jsonl as arrays.

    Args:
        lines: as `Run.metrics` returns them.
        steps: number of steps of the run.
        finished: whether the run reached its last step.
        stderr: standard error of a validation bound, for lines without one.

    >>> curves = Curves([{"split": "valid", "step": 5, "bound": -9.0}], steps=10)
    >>> curves.last, curves.column("bound")
    (5, array([-9.]))
    """

    def __init__(
        self,
        lines: Sequence[Mapping[str, Json]],
        steps: int,
        finished: bool = True,
        stderr: float = 0.0,
    ) -> None:
        self.steps, self.finished, self.stderr = steps, finished, stderr
        self.lines = [line for line in lines if isinstance(line.get("step"), int)]
        self.valid = [line for line in self.lines if line.get("split") == "valid"]
        self.train = [line for line in self.lines if line.get("split") == "train"]

    @property
    def last(self) -> int:
        """Return the last logged step."""
        return max((int(line["step"]) for line in self.lines), default=0)

    @property
    def beta(self) -> float:
        """Return the last weight of the KL."""
        return number(self.lines[-1], "beta") if self.lines else math.nan

    def after_start(self) -> list[Mapping[str, Json]]:
        """Return the validations after the first step."""
        return [line for line in self.valid if line["step"] > 0]

    def column(self, name: str) -> np.ndarray:
        """Return the values of a name at the validations after the first step; NaN if absent."""
        return np.array([number(line, name) for line in self.after_start()])

    def error(self) -> float:
        """Return the standard error of the last validation bound."""
        logged = self.column("stderr")
        return float(logged[-1]) if len(logged) and math.isfinite(logged[-1]) else self.stderr

    def settled_from(self) -> int | None:
        """Return the first logged step from which the weight of the KL was constant; None if it
        was still changing."""
        betas = [(int(line["step"]), number(line, "beta")) for line in self.lines]
        if not betas:
            return None
        changing = [
            step
            for step, beta in betas
            if not math.isclose(beta, betas[-1][1], rel_tol=1e-6, abs_tol=1e-9)
        ]
        if not changing:
            return 0
        later = sorted({step for step, _ in betas if step > changing[-1]})
        return later[0] if len(later) > 1 else None

    def ends(self, remedy: Remedies) -> tuple[float, float, float] | None:
        """Return the validation loss before the first step and at the end, and the standard error
        of their difference, computed as if unpaired.

        Both use the final weights of the terms. None if it was not logged, or if the run started
        from the weights of another run.
        """
        if (
            not self.valid
            or self.valid[0]["step"] != 0
            or len(self.valid) < 2
            or remedy.config.get("init")
        ):
            return None
        first, last = self.valid[0], self.valid[-1]
        if not math.isfinite(number(last, "objective")) and any(
            remedy.config.get(k) for k in ("capacity", "free_bits", "penalty")
        ):
            return None  # a log of an older version, without all terms of the loss
        start, end = loss(first, last), loss(last, last)
        error = math.hypot(
            *(x if math.isfinite(x := number(line, "stderr")) else 0.0 for line in (first, last))
        )
        return (start, end, error) if math.isfinite(start) and math.isfinite(end) else None

    def silent_from(self) -> int | None:
        """Return the step from which the KL was below 0.1 nats until the end; None if it is not
        below at the end."""
        steps, rates = [int(line["step"]) for line in self.after_start()], self.column("rate")
        above = np.flatnonzero(~(rates < ZERO_RATE))
        first = int(above[-1]) + 1 if len(above) else 0
        return steps[first] if first < len(steps) else None


def loss(line: Mapping[str, Json], last: Mapping[str, Json]) -> float:
    """Return the loss of a line in nats, with the weight of the KL of the last line.

    >>> loss({"distortion": 80.0, "rate": 10.0}, {"beta": 0.5})
    85.0
    """
    logged = number(line, "objective")
    return (
        logged
        if math.isfinite(logged)
        else number(line, "distortion") + number(last, "beta") * number(line, "rate")
    )


def number(line: Mapping[str, Json], name: str) -> float:
    """Return a number of a line; NaN if it is absent or not a number.

    >>> number({"rate": 10}, "rate"), number({"rate": None}, "rate")
    (10.0, nan)
    """
    value = line.get(name)
    return (
        float(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool)
        else math.nan
    )
