"""Preparation before the first step: devices, frozen parts, parameters of the objective, and one
updater for each update."""

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
from vaestro.new_categories import NEW_CATEGORIES, train_new_categories
from vaestro.objectives import TrainingObjective, elbo
from vaestro.randomness import derive, numpy_generator, torch_generator
from vaestro.spaces import Batch
from vaestro.updates import Update


@final
class Frozen:
    """Freeze parts of a model: no gradient, no dropout, no update of running statistics.

    Args:
        model: the model that is trained.
        names: names of its parts; `all-but-new-categories` freezes all parts, except for the
            weights that belong to new categories of the conditions.

    Raises:
        ValueError: there is no such part, or there are no new categories.

    >>> import vaestro as vs
    >>> model = vs.build(vs.load("digits").space, latent=2, network="mlp:width=8")
    >>> parts = Frozen(model, ["posterior"])
    >>> any(p.requires_grad for p in model.posterior.parameters())
    False
    """

    def __init__(self, model: Model, names: Sequence[str]) -> None:
        parts = model.trainable_parts()
        partly = NEW_CATEGORIES in names
        names = tuple(parts) if partly else names
        for name in names:
            if name not in parts:
                raise ValueError(
                    f"expected parts of the model to freeze: {', '.join(parts)} or "
                    f"{NEW_CATEGORIES}; got {name!r}"
                )
        self.names = tuple(names)
        self._parameters = [
            p for n in names for p in parts[n].eval().parameters() if p.requires_grad
        ]
        for p in self._parameters:
            p.requires_grad_(False)
        if partly:
            train_new_categories(model)

    def release(self) -> None:
        """Make the parts trainable again."""
        for p in self._parameters:
            p.requires_grad_(True)


def prepare(
    model: Model, objective: TrainingObjective, data: Data, settings: Settings, device: torch.device
) -> Frozen:
    """Move model and objective to a device, prepare both with training data, and freeze parts.

    Raises:
        ValueError: the objective has no meaning for the model.

    >>> import vaestro as vs
    >>> data = vs.load("digits")
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> settings = Settings.of(data, {"freeze": ["prior"]})
    >>> prepare(model, vs.Objective(), data, settings, torch.device("cpu")).names
    ('prior',)
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
        index = numpy_generator(seed, "start").permutation(len(rows))[: model.start_rows]
        model.start(rows.pick(np.sort(index)).fixed().batch(slice(0, len(index)), device))
    return frozen


def updaters_of(
    updates: Sequence[Update], core: Core, data: Data, settings: Settings, processes: Processes
) -> list[Updater]:
    """Wrap the forward() for data parallelism, then create the optimiser of each update.

    Raises:
        ValueError: an update has no parameters, or two updates have the same name.

    >>> import vaestro as vs
    >>> data, objective = vs.load("digits"), vs.Objective()
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> updates, processes = objective.updates(model), Processes("cpu", batch=78)
    >>> core = Core(model, objective, updates, processes.device, "32")
    >>> [u.name for u in updaters_of(updates, core, data, Settings.of(data, {}), processes)]
    ['joint']
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
    """Return whether a loss leaves some parameters without a gradient, for example the parameters
    of a family of likelihoods that no column of a table uses."""
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
    """Return the trainable parameters of modules, each once.

    >>> len(trainable(nn.Linear(2, 3), nn.Linear(3, 1).requires_grad_(False)))
    2
    """
    return [p for p in nn.ModuleList(modules).parameters() if p.requires_grad]
