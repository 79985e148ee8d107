"""Updates: the parameters that an objective trains in one step, and how.

A variational autoencoder has one update of all parameters by one loss. Aggressive training has a
second one of the encoder. An adversarial objective has one of the discriminator, whose loss has the
opposite sign. Each has its own optimiser, learning-rate schedule, clipping and first step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch.nn as nn
from torch import Tensor

from vaestro.optimizers import Optimizer, one_cycle
from vaestro.spaces import Batch

if TYPE_CHECKING:
    from vaestro.models import Model
    from vaestro.objectives import Loss


@final
@dataclass(frozen=True, eq=False)
class Update:
    """Describe one update of some parameters by a loss.

    Args:
        name: name in checkpoints and metrics.jsonl.
        parameters: parameters that the update changes.
        loss: function of (model, batch, step number, noise) that returns the loss. It is called in
            the forward() of a step.
        optimizer: function of the parameters that returns their optimiser; by default the run's.
        lr: peak learning rate; by default the run's.
        schedule: factor of the learning rate, as a function of (step, steps).
        clip: largest norm of the gradient; by default the run's.
        first_step: number of the first step, from 0, with this update.
        until_flat: before each step, repeat the update on other rows until its loss stops falling,
            as long as the information in the code increases (He, Spokoyny, Neubig and
            Berg-Kirkpatrick 2019).

    Raises:
        ValueError: a number is out of its range.

    >>> import torch
    >>> weight = nn.Parameter(torch.ones(2))
    >>> Update("weight", [weight], loss=lambda model, batch, step, noise: ..., first_step=10).name
    'weight'
    """

    name: str
    parameters: Sequence[nn.Parameter]
    loss: Callable[[Model, Batch, Tensor, Tensor], Loss]
    optimizer: Callable[[Sequence[Tensor]], Optimizer] | None = None
    lr: float | None = None
    schedule: Callable[[int, int], float] = one_cycle
    clip: float | None = None
    first_step: int = 0
    until_flat: bool = False

    def __post_init__(self) -> None:
        for value, name in ((self.lr, "lr"), (self.clip, "clip")):
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"expected {name} above 0 for update {self.name}; got {value}")
        if self.first_step < 0:
            raise ValueError(
                f"expected a first step of 0 or more for update {self.name}; got {self.first_step}"
            )
