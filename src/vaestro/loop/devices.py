"""Devices and processes: where training runs, and how several processes share a batch.

N processes compute the same as one: each has B / N rows of the global batch of B, and gradients are
averaged.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, final

import torch
import torch.nn as nn
from torch import Tensor

from vaestro import processes
from vaestro.models import Model
from vaestro.objectives import Loss, TrainingObjective
from vaestro.spaces import Batch
from vaestro.updates import Update

if TYPE_CHECKING:
    from accelerate import Accelerator

Forward = Callable[[Batch, Tensor, Tensor, str], Loss]


def accelerator_for(device: str) -> Accelerator:
    """Return an Accelerator for a device: auto, cpu, cuda or mps.

    Raises:
        ValueError: this machine has no such device.

    >>> accelerator_for("cpu").device
    device(type='cpu')
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    if device not in ("auto", "cpu", "cuda", "mps"):
        raise ValueError(f"expected a device: auto, cpu, cuda or mps; got {device!r}")
    available: dict[str, Callable[[], bool]] = {
        "cuda": torch.cuda.is_available,
        "mps": torch.backends.mps.is_available,
    }
    if device in available and not available[device]():
        raise ValueError(f"expected a device of this machine; got {device}, which it does not have")
    if processes.count() == 1:
        # Accelerate keeps one device for the life of a process; runs in it may use different ones.
        AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(
        cpu=device == "cpu" or (device == "auto" and not any(f() for f in available.values()))
    )


def end_together(accelerator: Accelerator) -> None:
    """End the group of processes: one that leaves it early aborts while others still write.

    >>> end_together(accelerator_for("cpu"))
    """
    if accelerator.num_processes > 1:
        accelerator.wait_for_everyone()
        accelerator.end_training()


@final
class Core(nn.Module):
    """Hold model and objective in one module, whose forward() data parallelism, autocast and
    compilation wrap.

    Args:
        model: the model that is trained.
        objective: its objective.
        updates: updates whose losses are computed.
        device: device of the model.
        precision: "32", or "bf16" for networks under autocast.

    >>> import vaestro as vs
    >>> data, objective = vs.load("digits"), vs.Objective()
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> core = Core(model, objective, objective.updates(model), torch.device("cpu"), "32")
    >>> batch, noise = data.train.batch(slice(0, 4)), model.noise(1, 4)
    >>> core(batch, torch.zeros(()), noise, "joint").loss.shape
    torch.Size([])
    """

    def __init__(
        self,
        model: Model,
        objective: TrainingObjective,
        updates: Sequence[Update],
        device: torch.device,
        precision: str,
    ) -> None:
        super().__init__()
        self.model, self.objective = model, objective
        self._losses: Mapping[str, Callable[..., Loss]] = {u.name: u.loss for u in updates}
        self.autocast = (device.type, torch.bfloat16) if precision == "bf16" else None

    def forward(self, batch: Batch, step: Tensor, noise: Tensor, update: str) -> Loss:
        """Return the loss of a named update."""
        if self.autocast is None:
            return self._losses[update](self.model, batch, step, noise)
        with torch.autocast(*self.autocast):
            return self._losses[update](self.model, batch, step, noise)


@final
class Processes:
    """Describe the processes that train together, and the device of this one.

    Args:
        device: auto, cpu, cuda or mps.
        batch: rows in a global batch.

    Raises:
        ValueError: the device does not exist, or the batch is not a multiple of the number of
            processes.

    >>> processes = Processes("cpu", batch=8)
    >>> processes.count, processes.rows
    (1, slice(0, 8, None))
    """

    def __init__(self, device: str, batch: int) -> None:
        self._accelerator = accelerator_for(device)
        self.device = self._accelerator.device
        grouped = torch.distributed.is_available() and torch.distributed.is_initialized()
        self.count = self._accelerator.num_processes if grouped else 1
        self.rank = self._accelerator.process_index if grouped else 0
        if batch % self.count:
            raise ValueError(f"expected a batch that {self.count} processes can share; got {batch}")
        self.rows = slice(
            self.rank * (batch // self.count), (self.rank + 1) * (batch // self.count)
        )

    @property
    def at_hand(self) -> bool:
        """Return whether numbers can be read without waiting: one process on the CPU."""
        return self.count == 1 and self.device.type == "cpu"

    def wrap(self, core: Core, partial: bool) -> Forward:
        """Return the forward() wrapped for data parallelism; call it before optimisers are created.

        Args:
            core: model and objective.
            partial: whether a loss leaves some parameters without a gradient.
        """
        if self.count == 1:
            return core
        from accelerate import DistributedDataParallelKwargs

        self._accelerator.ddp_handler = DistributedDataParallelKwargs(
            find_unused_parameters=partial
        )
        wrapped: Forward = self._accelerator.prepare_model(core)
        return wrapped

    def gradients(
        self, loss: Tensor, core: nn.Module, parameters: Sequence[Tensor]
    ) -> list[Tensor]:
        """Return the gradient of each parameter, averaged over processes; zeros for parameters that
        the loss does not depend on."""
        if self.count == 1:
            return list(torch.autograd.grad(loss, parameters, materialize_grads=True))
        for p in core.parameters():
            p.grad = None
        self._accelerator.backward(loss)
        return [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]

    def fork_rng(self) -> AbstractContextManager[None]:
        """Return a context that restores the state of PyTorch's global generators at its end."""
        return torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else [])

    def wait(self) -> None:
        """Wait until the device has finished."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def finish(self) -> None:
        """Wait for the other processes: they fail if this one ends before them."""
        if self.count > 1:
            self._accelerator.wait_for_everyone()
            atexit.register(self._accelerator.end_training)

    def end(self) -> None:
        """End the group of processes. What this process computes afterwards, it computes alone."""
        end_together(self._accelerator)
