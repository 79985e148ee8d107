"""Selection of the weights that a run keeps.

The weights are selected by the validation loss with the beta and targets at the end of all
schedules. Only validations after the end of every schedule count: earlier, a low weight of the KL
favours weights that are best for another objective. For a plain ELBO or IWAE the selected weights
have the best validation bound. The reported bound is always the unweighted one.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, NotRequired, TypedDict, final

from torch import Tensor

from vaestro.objectives import TrainingObjective

Keep = Literal["best", "last"]


class SelectionState(TypedDict):
    """Hold the numbers of a `Selection` in a checkpoint; `best_bound` is that of older runs."""

    best: list[float] | None
    best_step: int
    validations: int
    validations_seen: int
    validations_since: int
    best_bound: NotRequired[float | None]


class Score(NamedTuple):
    """Hold the result of a validation: the loss at the end of the schedules and the rate, both in
    nats, and the weight of the rate.

    >>> Score(final=101.5, rate=20.0, beta=1.0).final
    101.5
    """

    final: float
    rate: float
    beta: float


@final
class Selection:
    """Keep the weights with the lowest validation loss, and count the validations since.

    Args:
        objective: objective of the training.
        keep: "best", or "last" for the weights of the last step.
        patience: number of validations without a better one after which training stops; None for
            never.

    Raises:
        ValueError: `keep` is neither, or the patience is below 1.

    >>> import torch
    >>> import vaestro as vs
    >>> selection = Selection(vs.Objective())
    >>> for step, loss in enumerate([9.0, 7.0, 8.0]):
    ...     _ = selection.see(step, Score(loss, 1.0, 1.0), {"w": torch.tensor(float(step))})
    >>> selection.best_step, selection.since
    (1, 1)
    """

    def __init__(
        self, objective: TrainingObjective, keep: Keep = "best", patience: int | None = None
    ) -> None:
        if keep not in ("best", "last"):
            raise ValueError(f"expected keep best or last; got {keep!r}")
        if patience is not None and patience < 1:
            raise ValueError(f"expected a patience of 1 or more; got {patience}")
        self.objective, self.keep, self.patience = objective, keep, patience
        self.weights: dict[str, Tensor] | None = None  # weights of the best validation
        self.best: Score | None = None
        # validations after every schedule had settled
        self.best_step = self.validations = self.since = 0
        self.seen = 0  # all validations

    def see(self, step: int, score: Score, weights: dict[str, Tensor]) -> bool:
        """Record a validation, and return whether training should stop early.

        Args:
            step: number of steps taken.
            score: result of the validation.
            weights: the validated weights; copied if they are the best so far.
        """
        self.seen += 1
        if not self.objective.settled(step):
            # An adaptive weight may change again after it had settled. Earlier validations then
            # were not at the end of the schedule.
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
        """Return the loss of a validation with the current weight; an adaptive weight may have
        changed since."""
        now = self.objective.final_beta
        return score.final if now == score.beta else score.final + (now - score.beta) * score.rate

    def kept(self, latest: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights to use: the best, or the latest if `keep` is "last" or no validation
        came after the schedules had settled."""
        return latest if self.keep == "last" or self.weights is None else self.weights

    def kept_step(self, latest: int) -> int:
        """Return the step of the weights that `kept` returns."""
        return latest if self.keep == "last" or self.weights is None else self.best_step

    def sentence(self, latest: int, validated: bool) -> str:
        """Return a sentence that says which weights are kept and why.

        Args:
            latest: number of steps taken.
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
        value = (
            f"{-loss:,.2f} nats"
            if self.objective.plain
            else f"{loss:,.2f} nats ({self.objective.formula})"
        )
        among = f"{self.validations:,} validations" + (
            " after the schedules had settled" if self.seen > self.validations else ""
        )
        best = "best bound" if self.objective.plain else "lowest loss"
        sentence = (
            f"kept the weights of step {self.best_step:,}, "
            f"which have the {best} of {among}: {value}"
        )
        return (
            sentence
            if self.best_step
            else f"{sentence}. Step 0 is before training: training made no validation better"
        )

    def state(self) -> SelectionState:
        """Return the numbers from which `load` continues."""
        return {
            "best": None if self.best is None else list(self.best),
            "best_step": self.best_step,
            "validations": self.validations,
            "validations_seen": self.seen,
            "validations_since": self.since,
        }

    def load(self, numbers: SelectionState, weights: dict[str, Tensor] | None) -> None:
        """Continue from saved numbers and weights.

        Older runs selected by the unweighted bound, which they saved as `best_bound`. If their
        objective is another one, selection starts again.
        """
        if "best_bound" in numbers:
            bound = numbers["best_bound"]
            if bound is None or not self.objective.plain:
                return
            numbers = {
                "best": [-bound, 0.0, self.objective.final_beta],
                "best_step": numbers["best_step"],
                "validations": 0,
                "validations_seen": 0,
                "validations_since": numbers["validations_since"],
            }
        self.best = None if numbers["best"] is None else Score(*numbers["best"])
        self.weights = weights
        self.best_step, self.validations, self.since = (
            numbers["best_step"],
            numbers["validations"],
            numbers["validations_since"],
        )
        self.seen = numbers["validations_seen"]
