"""The state of a training as named tensors and numbers, which a checkpoint holds.

Names are paths: `model.posterior.encoder.0.weight`, `optimizer.first.3`, `encoder.optimizer.taken`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NotRequired

import torch
from torch import Tensor

from vaestro.selection import SelectionState

State = dict[str, Tensor]


class Numbers(SelectionState):
    """Hold the numbers of a checkpoint; `metrics_bytes` is the size of the run's metrics.jsonl."""

    index: int
    seconds: float
    last_logged: int
    averaged_at: int
    stopped_early: bool
    metrics_bytes: NotRequired[int]


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> State:
    """Return tensors with a prefix before their names.

    >>> import torch
    >>> list(prefixed("model", {"weight": torch.ones(1)}))
    ['model.weight']
    """
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def part(prefix: str, tensors: Mapping[str, Tensor]) -> State:
    """Return the tensors whose names have a prefix, without it.

    >>> import torch
    >>> list(part("model", {"model.weight": torch.ones(1), "sums": torch.ones(1)}))
    ['weight']
    """
    start = f"{prefix}."
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}


def gathered(tensors: Mapping[str, Tensor]) -> State:
    """Return copies of tensors in the memory of the CPU; tensors that are sharded over processes
    (FSDP2) become whole. All processes must call it.

    This is the only place where a state leaves its devices.

    >>> import torch
    >>> gathered({"weight": torch.ones(2)})
    {'weight': tensor([1., 1.])}
    """
    whole = {k: _whole(v.detach()) for k, v in tensors.items()}
    return {k: v.cpu().clone().contiguous() for k, v in whole.items()}


def _whole(tensor: Tensor) -> Tensor:
    """Return a tensor with the shards of all processes."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return tensor
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
