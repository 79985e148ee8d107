r"""One update of a step: loss, gradient, clipping, optimiser, and the sums that are logged.

The gradient g of the loss is clipped by its norm,

    g <- g / max(1, |g| / clip)

and the optimiser takes a step. If loss or gradient are not finite, the step is skipped and counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import final

import torch
from torch import Tensor

from vaestro.densities import mean_over_ranks
from vaestro.loop.compiling import Compilation, GraphStep
from vaestro.loop.devices import Core, Forward, Processes
from vaestro.loop.inputs import Input
from vaestro.loop.state import State, part, prefixed
from vaestro.objectives import Loss
from vaestro.optimizers import Optimizer
from vaestro.randomness import derive
from vaestro.updates import Update

COMPARED = 2  # number of compiled steps, after the first, that are compared with eager ones
CLOSE = 0.1  # largest distance between an eager and a compiled step, relative to the eager one


@final
class Sums:
    """Sum the numbers that are logged, and count skipped steps.

    Args:
        terms: number of terms of the loss that are summed.
        processes: processes, on whose device the sums are.

    >>> sums = Sums(0, Processes("cpu", batch=1))
    >>> sums.add_at_hand(Loss.only(torch.tensor(2.0)), norm=1.0)
    True
    >>> sums.means()[0]
    2.0
    """

    def __init__(self, terms: int, processes: Processes) -> None:
        self.terms = terms
        # logged loss, bound, rate, distortion, gradient's norm, steps, terms
        self.sums = torch.zeros(6 + terms, dtype=torch.float64, device=processes.device)
        # number of skipped steps, and of the latest consecutive ones
        self.bad = torch.zeros(2, dtype=torch.float64, device=processes.device)
        # the same memory as a NumPy array, which is faster to add to
        self.array = self.sums.numpy() if processes.at_hand else None
        self._one = torch.ones((), device=processes.device)
        self._in_a_row = 0

    def row(self, loss: Loss, norm: Tensor) -> Tensor:
        """Return the numbers that one step adds to the sums, on the device."""
        return torch.stack([loss.logged, *loss[1:4], norm, self._one, *loss.terms[: self.terms]])

    def add(self, row: Tensor, skip: Tensor) -> None:
        """Add the numbers of a step, or count it as skipped if `skip` is 1. This does not wait for
        the device."""
        self.sums.add_(torch.where(skip > 0, 0.0, row))
        self.bad.copy_(torch.stack([self.bad[0] + skip, (self.bad[1] + 1) * skip]))

    def add_at_hand(self, loss: Loss, norm: float) -> bool:
        """Add the numbers of a step on the CPU, or count it as skipped; return whether its loss and
        norm are finite."""
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
        """Return the means over steps and processes, and reset the sums; NaN if there was no
        step."""
        sums = mean_over_ranks(self.sums).tolist()
        self.sums.zero_()
        return [s / sums[5] if sums[5] else math.nan for s in sums]

    def load(self, sums: Tensor, bad: Tensor) -> None:
        """Continue from saved sums; those of older runs have no terms."""
        self.sums.zero_()[: len(sums)] = sums
        self.bad.copy_(bad)
        self._in_a_row = int(self.bad[1])


@final
class Updater:
    """Make one update of an objective in each step.

    Args:
        update: parameters and loss.
        core: model and objective.
        forward: forward() of the core, wrapped for data parallelism.
        processes: processes that train together.
        optimizer: optimiser of the parameters of the update.
        lr: peak learning rate.
        clip: largest norm of the gradient.
        terms: number of terms of the loss that are logged.

    >>> import vaestro as vs
    >>> data = vs.load("digits")
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> run = vs.training(model, vs.Objective(), data, steps=1, device="cpu", batch=4)
    >>> loss, gradients = run.updaters[0].differentiate(run.inputs(step=0, last=1))
    >>> len(gradients) == len(run.updaters[0].update.parameters)
    True
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
        self._compiled: GraphStep | None = None
        # dropout draws other masks in a graph, so its steps cannot be compared
        self._compared = COMPARED if has_dropout(core) else 0

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
        """Make the update at a learning rate, and return the loss before it."""
        if compilation.on and (loss := self._take_compiled(inputs, lr, compilation)) is not None:
            return loss
        return self._take_eagerly(inputs, lr)

    def _take_eagerly(self, inputs: Input, lr: float) -> Loss:
        loss, gradients = self.differentiate(inputs)
        loss = loss._replace(loss=loss.loss.detach())
        with torch.no_grad():
            if not self.processes.at_hand:
                norm = torch.stack(squared_norms(gradients)).sum().sqrt()
                divisor, skip = self._divisor_and_skip(loss, norm)
                self.optimizer.step(gradients, lr, divisor, skip)
                self.sums.add(self.sums.row(loss, norm), skip)
                return loss
            # on the CPU, Python numbers are faster than a dozen operations on scalar tensors
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
        """Return the divisor of the gradients, and 1 if the step is skipped, the same in all
        processes. Nothing is read back from the device."""
        skip = (~torch.isfinite(loss.logged + norm)).float()
        if self.processes.count > 1:
            skip = mean_over_ranks(skip).ceil()
        return (norm / self.clip).clamp_min(1.0), skip

    def _take_compiled(self, inputs: Input, lr: float, compilation: Compilation) -> Loss | None:
        """Make the update as one graph, optimiser included; return None if compilation fails."""
        batch, constants = inputs.batch, self.optimizer.constants(lr)
        tensors = [*batch.tensors(), inputs.noise, inputs.number, *constants]
        if self._compiled is not None and self._compared < COMPARED:
            self._compared += 1
            return self._take_both(self._compiled, tensors, inputs, lr, compilation)
        if self._compiled is not None:
            return Loss.of(self._compiled(*tensors))

        # The graph may read the tensors of the first step only as its inputs: without guards, it
        # would read the same tensors in all later steps.
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

        first = compilation.first(whole, tensors, lambda: self.differentiate(inputs))
        if first is None:
            return None
        self._compiled, numbers = first
        return Loss.of(numbers)

    def _take_both(
        self,
        compiled: GraphStep,
        tensors: Sequence[Tensor],
        inputs: Input,
        lr: float,
        compilation: Compilation,
    ) -> Loss:
        """Make the update eagerly and as a graph. If the results agree, keep that of the graph;
        otherwise keep the eager one, and stop using the graph."""
        weights = [p.detach() for p in self.update.parameters]
        state = [*weights, *self.core.state_dict().values(), *self.state().values()]
        before = [t.clone() for t in state]
        loss = self._take_eagerly(inputs, lr)
        eager = [t.clone() for t in state]
        _copy(before, state)
        compiled_loss = Loss.of(compiled(*tensors))
        if _agree(loss, compiled_loss) and _close_steps(before, eager, weights):
            return compiled_loss
        _copy(eager, state)
        compilation.stop("the compiled step computes other numbers than the eager one")
        return loss


@final
class Dropout:
    """Seed the draws of dropout layers as a function of (seed, step, rank).

    They use the global generator of PyTorch, whose state is restored afterwards.

    >>> core = torch.nn.Sequential(torch.nn.Dropout(0.1))
    >>> Dropout(core, Processes("cpu", batch=1), seed=0).used
    True
    """

    def __init__(self, core: torch.nn.Module, processes: Processes, seed: int) -> None:
        self.processes, self.seed = processes, seed
        self.used = has_dropout(core)

    def take(
        self, updater: Updater, inputs: Input, lr: float, compilation: Compilation, *path: str | int
    ) -> Loss:
        """Make an update of a step.

        Args:
            updater: updater of the update.
            inputs: inputs of the step.
            lr: learning rate.
            compilation: compilation of the run.
            path: purpose of the draws: step, rank, and the name of an update after the first.
        """
        if not self.used:
            return updater.take(inputs, lr, compilation)
        with self.processes.fork_rng():
            torch.manual_seed(derive(self.seed, "dropout", *path))
            return updater.take(inputs, lr, compilation)


def has_dropout(module: torch.nn.Module) -> bool:
    """Return whether a module has dropout layers.

    >>> has_dropout(torch.nn.Dropout(0.0))
    False
    """
    return any(isinstance(m, torch.nn.Dropout) and m.p > 0 for m in module.modules())


def _copy(values: Sequence[Tensor], to: Sequence[Tensor]) -> None:
    for value, tensor in zip(values, to, strict=True):
        tensor.copy_(value)


def _agree(eager: Loss, compiled: Loss) -> bool:
    """Return whether two losses are equal within float noise."""
    pairs = zip(eager.flat(), compiled.flat(), strict=True)
    return all(
        torch.allclose(a.detach().double(), b.detach().double(), 1e-3, 1e-3, equal_nan=True)
        for a, b in pairs
    )


def _close_steps(
    before: Sequence[Tensor], eager: Sequence[Tensor], compiled: Sequence[Tensor]
) -> bool:
    """Return whether two steps from the same weights end close to each other.

    Single weights whose gradient is a rounding error may differ, so the norm over all is compared.
    """
    step, difference = 0.0, 0.0
    for old, a, b in zip(before, eager, compiled, strict=False):  # the weights come first
        step += float((a - old).double().square().sum())
        difference += float((a - b).double().square().sum())
    return not math.isfinite(step) or difference <= CLOSE**2 * step


@torch.no_grad()
def squared_norms(gradients: Sequence[Tensor]) -> list[Tensor]:
    """Return the squared norm of each gradient; on an accelerator, of all gradients together.

    >>> squared_norms([torch.tensor([3.0, 4.0]), torch.ones(2)])
    [tensor(25.), tensor(2.)]
    """
    if gradients[0].device.type != "cpu":
        return [torch.nn.utils.get_total_norm(gradients).square()]
    # torch.dot runs on several cores, torch.norm does not
    return [torch.dot(g, g) for g in (g.reshape(-1) for g in gradients)]


def with_float_values(inputs: Input) -> Input:
    """Return inputs whose binary values are floats, so that encoder and likelihood need not convert
    them twice.

    >>> import vaestro as vs
    >>> batch = vs.load("mnist").train.batch(slice(0, 2))
    >>> with_float_values(Input(batch, torch.zeros(1, 2, 3), torch.zeros(()))).batch.x.dtype
    torch.float32
    """
    return inputs._replace(batch=replace(inputs.batch, x=inputs.batch.x.float()))
