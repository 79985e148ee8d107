"""Which weights a run keeps: the best by the objective that was asked for.

The reported bound is always the unweighted one. The weights are selected by the loss on validation
data, with the weights and
targets that hold at the end of all schedules, and only among validations after every schedule has
settled: before, a low weight of the KL makes another objective the best one. For a plain ELBO or
IWAE this is the best validation bound.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, final

from torch import Tensor

from vaestro.objectives import TrainingObjective

Keep = Literal["best", "last"]


class Score(NamedTuple):
    """Hold a validation: the loss with the weights at the end of the schedules, the rate, and the
    weight of the rate, in nats."""

    final: float
    rate: float
    beta: float


@final
class Selection:
    """Keep the weights with the lowest validation loss, and count validations since.

    Args:
        objective: what is trained by.
        keep: "best", or "last" to keep the weights of the last step.
        patience: validations without a better one after which to stop; None for never.

    Raises:
        ValueError: there is no such choice, or the patience is below 1.
    """

    def __init__(
        self, objective: TrainingObjective, keep: Keep = "best", patience: int | None = None
    ) -> None:
        if keep not in ("best", "last"):
            raise ValueError(f"expected keep best or last; got {keep!r}")
        if patience is not None and patience < 1:
            raise ValueError(f"expected a patience of 1 or more; got {patience}")
        self.objective, self.keep, self.patience = objective, keep, patience
        self.weights: dict[str, Tensor] | None = None  # of the best validation
        self.best: Score | None = None
        # validations after every schedule had settled
        self.best_step = self.validations = self.since = 0
        self.seen = 0  # all validations

    def see(self, step: int, score: Score, weights: dict[str, Tensor]) -> bool:
        """Take in a validation; returns whether patience has run out.

        Args:
            step: steps taken so far.
            score: of the validation.
            weights: that were validated; copied where they are the best so far.
        """
        self.seen += 1
        if not self.objective.settled(step):
            # An adaptive weight may leave where it had settled: what was validated there was not at
            # the end of the schedule.
            self.best, self.weights = None, None
            self.best_step = self.validations = self.since = 0
            return False
        self.validations += 1
        if math.isfinite(score.final) and (
            self.best is None or self._now(score) < self._now(self.best)
        ):
            self.best, self.best_step, self.since = score, step, 0
            if self.weights is None:
                self.weights = {k: v.clone() for k, v in weights.items()}
            else:
                for k, v in weights.items():
                    self.weights[k].copy_(v)
            return False
        self.since += 1
        return self.patience is not None and self.since >= self.patience

    def _now(self, score: Score) -> float:
        """Return the loss of a validation with the weight that holds now: an adaptive weight has
        changed since."""
        now = self.objective.final_beta
        return score.final if now == score.beta else score.final + (now - score.beta) * score.rate

    def kept(self, latest: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights to use: the best, or the latest where none was validated after the
        schedules or the last are asked for."""
        return latest if self.keep == "last" or self.weights is None else self.weights

    def kept_step(self, latest: int) -> int:
        """Return the step of the weights that `kept` returns."""
        return latest if self.keep == "last" or self.weights is None else self.best_step

    def sentence(self, latest: int, validated: bool) -> str:
        """Say which weights are kept and why.

        Args:
            latest: steps taken so far.
            validated: whether there are validation data.
        """
        if self.keep == "last":
            return f"kept the weights of the last step, {latest:,} (--keep last)"
        if not validated:
            return (
                f"kept the weights of the last step, {latest:,}: there are no validation data "
                f"to choose by"
            )
        if self.best is None:
            why = (
                "no validation loss was finite"
                if self.validations
                else "no validation came after the schedules had settled"
            )
            return f"kept the weights of the last step, {latest:,}: {why}"
        loss = self._now(self.best)
        what = (
            f"{-loss:,.2f} nats"
            if self.objective.plain
            else f"{loss:,.2f} nats ({self.objective.formula})"
        )
        among = f"{self.validations:,} validations" + (
            " after the schedules had settled" if self.seen > self.validations else ""
        )
        best = "best bound" if self.objective.plain else "lowest loss"
        said = (
            f"kept the weights of step {self.best_step:,}, which have the {best} of {among}: {what}"
        )
        return (
            said
            if self.best_step
            else f"{said}. Step 0 is before training: training made no validation better"
        )

    def state(self) -> dict[str, Any]:
        """Return the numbers from which `load` continues."""
        return {
            "best": None if self.best is None else list(self.best),
            "best_step": self.best_step,
            "validations": self.validations,
            "validations_seen": self.seen,
            "validations_since": self.since,
        }

    def load(self, numbers: dict[str, Any], weights: dict[str, Tensor] | None) -> None:
        """Continue from saved numbers and weights.

        Older runs selected by the unweighted bound, as `best_bound`. Where the objective is another
        one, selection starts anew.
        """
        if "best_bound" in numbers:
            bound = numbers["best_bound"]
            if bound is None or not self.objective.plain:
                return
            numbers = {
                **numbers,
                "best": [-bound, 0.0, self.objective.final_beta],
                "validations": 0,
                "validations_seen": 0,
            }
        self.best = None if numbers["best"] is None else Score(*numbers["best"])
        self.weights = weights
        self.best_step, self.validations, self.since = (
            numbers["best_step"],
            numbers["validations"],
            numbers["validations_since"],
        )
        self.seen = numbers["validations_seen"]
