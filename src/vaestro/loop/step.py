r"""One update of a step: loss, gradient, clipping, the optimiser, and the sums that are logged.

The six-step recipe is in the loss (encode; draw noise and form z = mean + std * noise; decode and
score; the KL; add). Here its gradient g is clipped by norm and applied,

    g <- g / max(1, |g| / clip)

and a step whose loss or gradient is not finite is skipped and counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import final

import torch
from torch import Tensor

from vaestro.densities import mean_over_ranks
from vaestro.loop.compiling import Compilation, Numbers
from vaestro.loop.devices import Core, Forward, Processes
from vaestro.loop.inputs import Input
from vaestro.loop.state import State, part, prefixed
from vaestro.objectives import Loss
from vaestro.optimizers import Optimizer
from vaestro.randomness import derive
from vaestro.updates import Update


@final
class Sums:
    """Sum what steps report, and count steps that were skipped.

    Args:
        terms: number of terms of the loss that are summed.
        processes: where the sums are.
    """

    def __init__(self, terms: int, processes: Processes) -> None:
        self.terms = terms
        # logged loss, bound, rate, distortion, gradient's norm, steps, terms
        self.sums = torch.zeros(6 + terms, dtype=torch.float64, device=processes.device)
        # skipped so far, and in a row
        self.bad = torch.zeros(2, dtype=torch.float64, device=processes.device)
        # the same memory, without calls into torch
        self.array = self.sums.numpy() if processes.at_hand else None
        self._one = torch.ones((), device=processes.device)
        self._in_a_row = 0

    def row(self, loss: Loss, norm: Tensor) -> Tensor:
        """Return what one step adds to the sums, on the device."""
        return torch.stack([loss.logged, *loss[1:4], norm, self._one, *loss.terms[: self.terms]])

    def add(self, row: Tensor, skip: Tensor) -> None:
        """Add a step, or count it as skipped if `skip` is 1, without waiting for the device."""
        self.sums.add_(torch.where(skip > 0, 0.0, row))
        self.bad.copy_(torch.stack([self.bad[0] + skip, (self.bad[1] + 1) * skip]))

    def add_at_hand(self, loss: Loss, norm: float) -> bool:
        """Add a step whose numbers are at hand, or count it as skipped; return whether it was
        finite."""
        assert self.array is not None
        terms = map(float, loss.terms[: self.terms])
        numbers = [*map(float, (loss.logged, *loss[1:4])), norm, 1.0, *terms]
        if math.isfinite(numbers[0] + norm):
            self.array += numbers
            if self._in_a_row:
                self._in_a_row = self.bad[1] = 0
            return True
        self._in_a_row += 1
        self.bad.add_(1)
        return False

    def means(self) -> list[float]:
        """Return the means over steps and processes, NaN without steps, and start again."""
        sums = mean_over_ranks(self.sums).tolist()
        self.sums.zero_()
        return [s / sums[5] if sums[5] else math.nan for s in sums]

    def load(self, sums: Tensor, bad: Tensor) -> None:
        """Continue from saved sums; older runs did not sum terms."""
        self.sums.zero_()[: len(sums)] = sums
        self.bad.copy_(bad)
        self._in_a_row = int(self.bad[1])


@final
class Updater:
    """Make one update of an objective in each step.

    Args:
        update: what is changed, by which loss.
        core: model and objective.
        forward: their forward(), wrapped for data parallelism.
        processes: where.
        optimizer: of the update's parameters.
        lr: peak learning rate.
        clip: the norm at which the gradient is clipped.
        terms: number of terms of the loss that are logged.
    """

    def __init__(
        self,
        update: Update,
        core: Core,
        forward: Forward,
        processes: Processes,
        optimizer: Optimizer,
        lr: float,
        clip: float,
        terms: int,
    ) -> None:
        self.update, self.core, self.forward = update, core, forward
        self.processes, self.optimizer = processes, optimizer
        self.lr, self.clip = lr, clip
        self.sums = Sums(terms, processes)
        self._compiled: Numbers | None = None

    @property
    def name(self) -> str:
        """Return the name of the update."""
        return self.update.name

    def state(self) -> State:
        """Return the tensors from which `load` continues."""
        sums = {"sums": self.sums.sums, "bad": self.sums.bad}
        return prefixed("optimizer", self.optimizer.state()) | sums

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from a saved state."""
        self.optimizer.load(part("optimizer", tensors))
        self.sums.load(tensors["sums"], tensors["bad"])

    def take(self, inputs: Input, lr: float, compilation: Compilation) -> Loss:
        """Make the update at a learning rate, and return the loss of before."""
        if compilation.on and (loss := self._take_compiled(inputs, lr, compilation)) is not None:
            return loss
        loss, gradients = self.differentiate(inputs)
        loss = loss._replace(loss=loss.loss.detach())
        with torch.no_grad():
            if not self.processes.at_hand:
                norm = torch.stack(squared_norms(gradients)).sum().sqrt()
                divisor, skip = self._divisor_and_skip(loss, norm)
                self.optimizer.step(gradients, lr, divisor, skip)
                self.sums.add(self.sums.row(loss, norm), skip)
                return loss
            # The numbers are at hand: deciding on them costs less than a dozen operations on
            # scalar tensors.
            norm_at_hand = math.sqrt(sum(map(float, squared_norms(gradients))))
            if self.sums.add_at_hand(loss, norm_at_hand):
                ratio = norm_at_hand / self.clip
                self.optimizer.step(gradients, lr, torch.tensor(ratio) if ratio > 1 else None)
        return loss

    def differentiate(self, inputs: Input) -> tuple[Loss, list[Tensor]]:
        """Return the loss and its gradients, averaged over processes."""
        loss = self.forward(inputs.batch, inputs.number, inputs.noise, self.update.name)
        parameters = self.update.parameters
        return loss, self.processes.gradients(loss.loss, self.core, parameters)

    def _divisor_and_skip(self, loss: Loss, norm: Tensor) -> tuple[Tensor, Tensor]:
        """Return by what gradients are divided and whether the step is skipped, without reading
        anything back from the device; every process decides alike."""
        skip = (~torch.isfinite(loss.logged + norm)).float()
        if self.processes.count > 1:
            skip = mean_over_ranks(skip).ceil()
        return (norm / self.clip).clamp_min(1.0), skip

    def _take_compiled(self, inputs: Input, lr: float, compilation: Compilation) -> Loss | None:
        """Make the update as one graph, optimiser included; return None if it does not compile."""
        batch, constants = inputs.batch, self.optimizer.constants(lr)
        tensors = [*batch.tensors(), inputs.noise, inputs.number, *constants]
        if self._compiled is not None:
            return Loss.of(self._compiled(*tensors))

        # The graph must not reach the first step's tensors by another way than as its inputs:
        # without guards it would go on to read them.
        layout, _ = batch.of_tensors([torch.empty(0) for _ in batch.tensors()])

        def whole(*given: Tensor) -> list[Tensor]:
            rows, (noise, number, *constants) = layout.of_tensors(given)
            loss, gradients = self.differentiate(Input(rows, noise, number))
            loss = loss._replace(loss=loss.loss.detach())
            with torch.no_grad():
                norm = torch.stack([g.square().sum() for g in gradients]).sum().sqrt()
                divisor, skip = self._divisor_and_skip(loss, norm)
                self.optimizer.step_in_graph(gradients, tuple(constants), divisor, skip)
                self.sums.add(self.sums.row(loss, norm), skip)
            return loss.flat()

        made = compilation.first(whole, tensors, lambda: self.differentiate(inputs))
        if made is None:
            return None
        self._compiled, numbers = made
        return Loss.of(numbers)


@final
class Dropout:
    """Seed the draws of dropout layers as a function of (seed, step, rank).

    They draw from PyTorch's global generator, whose state is restored afterwards.
    """

    def __init__(self, core: Core, processes: Processes, seed: int) -> None:
        self.processes, self.seed = processes, seed
        self.used = any(isinstance(m, torch.nn.Dropout) and m.p > 0 for m in core.modules())

    def take(
        self, updater: Updater, inputs: Input, lr: float, compilation: Compilation, *path: str | int
    ) -> Loss:
        """Make an update of a step; `path` names the step and, after the first, the update."""
        if not self.used:
            return updater.take(inputs, lr, compilation)
        with self.processes.fork_rng():
            torch.manual_seed(derive(self.seed, "dropout", *path))
            return updater.take(inputs, lr, compilation)


@torch.no_grad()
def squared_norms(gradients: Sequence[Tensor]) -> list[Tensor]:
    """Return the square of each gradient's norm, or on an accelerator that of all.

    >>> squared_norms([torch.tensor([3.0, 4.0]), torch.ones(2)])
    [tensor(25.), tensor(2.)]
    """
    if gradients[0].device.type != "cpu":
        return [torch.nn.utils.get_total_norm(gradients).square()]
    # dot runs on several cores, norm does not
    return [torch.dot(g, g) for g in (g.reshape(-1) for g in gradients)]


def with_float_values(inputs: Input) -> Input:
    """Return inputs whose binary values are floats; encoder and likelihood would each convert
    them."""
    return inputs._replace(batch=replace(inputs.batch, x=inputs.batch.x.float()))
