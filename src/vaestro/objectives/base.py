"""The interface of an objective: its loss, its named updates, and the sums that validation needs.

A bound on log p(x) is reported as it is. Weights, targets and penalties change the loss only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn as nn
from torch import Tensor

from vaestro.gradients import Bound
from vaestro.models import Draws, Model
from vaestro.schedules import END, Schedule
from vaestro.spaces import Batch
from vaestro.updates import Update


class Loss(NamedTuple):
    """Hold means over a batch, in nats.

    Args:
        loss: the number that is differentiated, ().
        bound, rate, distortion: the unweighted bound and its two terms, ().
        logged: the loss of the reported model, (). It differs from `loss` if training optimises
            another density: relaxed latents, a variance fitted to each batch, word dropout.
        terms: the terms of the loss besides the weighted bound; `TrainingObjective.terms` has their
            names.

    >>> Loss.only(torch.tensor(0.7)).flat()[0]
    tensor(0.7000)
    """

    loss: Tensor
    bound: Tensor
    rate: Tensor
    distortion: Tensor
    logged: Tensor
    terms: tuple[Tensor, ...] = ()

    def flat(self) -> list[Tensor]:
        """Return all numbers: loss, bound, rate, distortion, logged, and the terms."""
        return [self.loss, self.bound, self.rate, self.distortion, self.logged, *self.terms]

    @classmethod
    def only(cls, loss: Tensor) -> Loss:
        """Return a loss without a bound, for example the loss of a discriminator."""
        nothing = torch.zeros_like(loss)
        return cls(loss, nothing, nothing, nothing, loss.detach())

    @classmethod
    def of(cls, numbers: Sequence[Tensor]) -> Loss:
        """Return the loss from the numbers that `flat` returned."""
        loss, bound, rate, distortion, logged, *terms = numbers
        return cls(loss, bound, rate, distortion, logged, tuple(terms))


class Scores(NamedTuple):
    """Hold sums over validation data, in nats, from which `value` computes the loss.

    Args:
        loss: the weighted negative bound at the weight of a step, (); the distortion if a term
            replaces the rate.
        final: the same with the weight at the end of the schedules, ().
        rates: rate of each unit, (units,), or of all units, (1,).
        penalties: penalties as they enter the loss, multiplied by the number of data, (P,).
        penalised: number of data in batches that are large enough for penalties, ().

    >>> one = torch.ones(())
    >>> Scores(one, one, torch.ones(2), torch.zeros(0), torch.zeros(())).rates
    tensor([1., 1.])
    """

    loss: Tensor
    final: Tensor
    rates: Tensor
    penalties: Tensor
    penalised: Tensor


class TrainingObjective(nn.Module, ABC):
    """Describe what training minimises: named updates, and how validation scores the result.

    The defaults describe an unweighted bound without further terms. A subclass defines `updates`,
    and overrides what differs.

    Args:
        bound: the bound that is reported, a function `Draws -> (B,)`.
        k: number of draws of each datum.
        beta: schedule of the weight of the rate; by default the constant 1.
    """

    def __init__(self, bound: Bound, k: int = 1, beta: Schedule | None = None) -> None:
        super().__init__()
        self.bound, self.k = bound, k
        self.beta = Schedule(1.0) if beta is None else beta

    @abstractmethod
    def updates(self, model: Model) -> list[Update]:
        """Return the updates of a step, in their order.

        Training logs the loss of the first update as the loss of the step.

        Args:
            model: the trained model, on its device and after `prepare`.

        Raises:
            ValueError: an update has no meaning for the model.
        """

    @property
    def terms(self) -> tuple[str, ...]:
        """Return the names of the terms of the loss besides the weighted bound."""
        return ()

    @property
    def final_beta(self) -> float:
        """Return the weight of the rate at the end of the schedules; the current weight if it is
        adaptive."""
        return float(self.beta(torch.tensor(END, dtype=torch.float64)))

    @property
    def plain(self) -> bool:
        """Return whether the loss at the end of the schedules is the negative bound that is
        reported."""
        return False

    @property
    def formula(self) -> str:
        """Return the formula of the loss at the end of the schedules."""
        return "-bound"

    @property
    def outside_graph(self) -> list[str]:
        """Return the names of parts whose steps cannot be compiled."""
        return []

    @property
    def functions(self) -> list[object]:
        """Return the functions and terms that the objective calls, other than its submodules."""
        return [self.bound.func if isinstance(self.bound, partial) else self.bound]

    @property
    def rows_together(self) -> int | None:
        """Return the rows of a validation batch if the loss depends on it."""
        return None

    def settled(self, step: int) -> bool:
        """Return whether the weight and every target keep their values after a step."""
        return True

    def plan(self, steps: int, steps_per_epoch: float) -> None:
        """Convert lengths of schedules into steps of a run.

        Raises:
            ValueError: a schedule is longer than the run.
        """

    def prepare(self, model: Model, batch: Batch, rows: int, size: int, seed: int) -> None:
        """Prepare for a model and its data before the first step, and check that they fit.

        Args:
            model: the model that will be trained.
            batch: some of its training data.
            rows: number of training data.
            size: rows in a step.
            seed: seed of the draws of penalties.

        Raises:
            ValueError: a part has no meaning for the model.
        """

    def score(self, draws: Draws, step: Tensor) -> Scores:
        """Return sums over validation data, from which `value` computes the loss.

        Args:
            draws: draws of the data.
            step: number of the step whose weight is used, ().
        """
        loss = -self.bound(draws).double().sum()
        nothing = loss.new_zeros(0)
        return Scores(loss, loss, nothing, nothing, loss.new_zeros(()))

    def value(self, sums: Scores, n: int, step: Tensor) -> tuple[float, float, tuple[float, ...]]:
        """Return the loss at the schedules of a step, the loss at the end of the schedules, and the
        terms of the former, in nats, from sums over n data."""
        return float(sums.loss) / n, float(sums.final) / n, ()
