"""The state of a training as named tensors: what a checkpoint holds.

Names are paths: `model.posterior.encoder.0.weight`, `optimizer.first.3`, `encoder.optimizer.taken`.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

State = dict[str, Tensor]


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> State:
    """Return tensors under a prefix.

    >>> import torch
    >>> list(prefixed("model", {"weight": torch.ones(1)}))
    ['model.weight']
    """
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def part(prefix: str, tensors: Mapping[str, Tensor]) -> State:
    """Return the tensors under a prefix, without it.

    >>> import torch
    >>> list(part("model", {"model.weight": torch.ones(1), "sums": torch.ones(1)}))
    ['weight']
    """
    start = f"{prefix}."
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}


def gathered(tensors: Mapping[str, Tensor]) -> State:
    """Return copies of tensors in the memory of the CPU: the one place where a state leaves its
    devices."""
    return {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}
