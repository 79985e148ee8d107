"""Preparation before the first step: the model on its device, what is frozen, what is learned
beside it, and one updater for each update of the objective."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

from vaestro.data import Data
from vaestro.loop.devices import Core, Processes
from vaestro.loop.settings import Settings
from vaestro.loop.step import Updater
from vaestro.models import Model
from vaestro.objectives import TrainingObjective, elbo
from vaestro.randomness import derive, numpy_generator, torch_generator
from vaestro.spaces import Batch
from vaestro.updates import Update


@final
class Frozen:
    """Keep parts of a model as they are: no gradient, no dropout, no new running statistics.

    Args:
        model: what is trained.
        names: of its parts.

    Raises:
        ValueError: there is no such part.
    """

    def __init__(self, model: Model, names: Sequence[str]) -> None:
        parts = dict(model.named_children())
        for name in names:
            if name not in parts:
                raise ValueError(
                    f"expected parts of the model to freeze: {', '.join(parts)}; got {name!r}"
                )
        self.names = tuple(names)
        self._parameters = [
            p for n in names for p in parts[n].eval().parameters() if p.requires_grad
        ]
        for p in self._parameters:
            p.requires_grad_(False)

    def release(self) -> None:
        """Make the parts trainable again."""
        for p in self._parameters:
            p.requires_grad_(True)


def prepare(
    model: Model, objective: TrainingObjective, data: Data, settings: Settings, device: torch.device
) -> Frozen:
    """Move model and objective to a device, and let both see the data that they start from.

    Raises:
        ValueError: the objective has no meaning for the model.
    """
    if objective.bound is not elbo and objective.k > 1 and model.capabilities.fitted_to_data:
        raise ValueError(
            "expected the ELBO with an optimal variance, which is the ELBO's optimum; got "
            "iwae (use variance=auto)"
        )
    rows, seed = data.train, settings.seed
    model.to(device).train()
    frozen = Frozen(model, settings.freeze)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "gradient"))
        first = rows.take(min(len(rows), 2)).fixed().batch(slice(0, 2), device)
        objective.prepare(model, first, len(rows), settings.batch, seed)
    objective.to(device).train()
    if model.start_rows:
        chosen = numpy_generator(seed, "start").permutation(len(rows))[: model.start_rows]
        model.start(rows.pick(np.sort(chosen)).fixed().batch(slice(0, len(chosen)), device))
    return frozen


def updaters_of(
    updates: Sequence[Update], core: Core, data: Data, settings: Settings, processes: Processes
) -> list[Updater]:
    """Wrap the forward() for data parallelism, then make the optimiser of each update.

    Raises:
        ValueError: an update has no parameters, or two have one name.
    """
    if not all(update.parameters for update in updates):
        raise ValueError(
            "expected something to train; got a model whose every parameter is fixed or frozen"
        )
    names = [update.name for update in updates]
    if len(set(names)) < len(names):
        raise ValueError(f"expected updates of different names; got {', '.join(names)}")
    partial = processes.count > 1 and _is_partial(updates, core, data, settings, processes)
    forward = processes.wrap(core, partial)
    return [
        Updater(
            update,
            core,
            forward,
            processes,
            (update.optimizer or settings.optimizer)(list(update.parameters)),
            settings.lr if update.lr is None else update.lr,
            settings.clip if update.clip is None else update.clip,
            0 if i else len(core.objective.terms),
        )
        for i, update in enumerate(updates)
    ]


def _is_partial(
    updates: Sequence[Update], core: Core, data: Data, settings: Settings, processes: Processes
) -> bool:
    """Return whether some loss leaves some parameters of the core without a gradient, such as those
    of a likelihood's family that a table has no columns of."""
    if len(updates) > 1:
        return True
    rows: Batch = data.train.take(2).fixed().batch(slice(0, 2), processes.device)
    generator = torch_generator(processes.device, settings.seed, "partial")
    noise = core.model.noise(core.objective.k, len(rows), generator)
    number = torch.zeros((), dtype=torch.float64, device=processes.device)
    before: list[tuple[Tensor, Tensor]] = [(b, b.clone()) for b in core.buffers()]
    with processes.fork_rng():
        loss = core(rows, number, noise, updates[0].name).loss
    gradients = torch.autograd.grad(loss, trainable(core), allow_unused=True)
    with torch.no_grad():
        for buffer, value in before:
            buffer.copy_(value)
    return any(gradient is None for gradient in gradients)


def trainable(*modules: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of modules that have a gradient, each once.

    >>> len(trainable(nn.Linear(2, 3), nn.Linear(3, 1).requires_grad_(False)))
    2
    """
    return [p for p in nn.ModuleList(modules).parameters() if p.requires_grad]
