"""Masked networks, whose outputs depend on earlier inputs only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast, final

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor


@final
class MaskedNetwork(nn.Module):
    """Map values (..., n) to (..., n); the outputs of a group of units depend only on the groups
    before it (Germain et al. 2015).

    Args:
        groups: the group of each unit, (n,), from 0 on.
        width: width of the two hidden layers.
        given: number of further inputs on which all outputs depend.

    >>> MaskedNetwork(torch.tensor([0, 1]), 8)(torch.zeros(5, 2)).shape
    torch.Size([5, 2])
    """

    mask0: Tensor
    mask1: Tensor
    mask2: Tensor

    def __init__(self, groups: Tensor, width: int, given: int = 0) -> None:
        super().__init__()
        n, count = len(groups), int(groups.max()) + 1
        # a hidden unit of degree d has groups 0 .. d as inputs, and later groups as outputs
        hidden = torch.arange(width) % max(1, count - 1)
        layers = [nn.Linear(n, width), nn.Linear(width, width), nn.Linear(width, n)]
        self.layers = cast("Sequence[nn.Linear]", nn.ModuleList(layers))
        self.condition = nn.Linear(given, width, bias=False) if given else None
        self.condition_weights = ("condition.weight",) if given else ()
        seen = (
            hidden.unsqueeze(1) >= groups,
            hidden.unsqueeze(1) >= hidden,
            groups.unsqueeze(1) > hidden,
        )
        for i, mask in enumerate(seen):
            self.register_buffer(f"mask{i}", mask, persistent=False)

    def forward(self, x: Tensor, given: Tensor | None = None) -> Tensor:
        """Return outputs (..., n); `given` (..., G) broadcasts over leading dimensions."""
        masks = (self.mask0, self.mask1, self.mask2)
        for i, (layer, mask) in enumerate(zip(self.layers, masks, strict=True)):
            x = F.linear(x, layer.weight * mask, layer.bias)
            if i == 0 and self.condition is not None and given is not None:
                x = x + self.condition(given.to(x.dtype))
            x = F.silu(x) if i < 2 else x
        return x
