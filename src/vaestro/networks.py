"""Bodies for encoders and decoders: modules from one shape to another, which know nothing of densities.

Each takes (N, *inputs) and returns (N, *outputs). `start_at(values)` sets the last bias, so that a decoder begins at
the mean of the data and not at its own random guess.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, final

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "tanh": torch.tanh, "silu": F.silu, "gelu": F.gelu}
Activation = Literal["relu", "tanh", "silu", "gelu"]


class _Body(nn.Module):
    """Hold what the bodies share: shapes, flattening, and the last linear layer."""

    def __init__(self, inputs: tuple[int, ...], outputs: tuple[int, ...], last: int) -> None:
        super().__init__()
        self.inputs, self.outputs = inputs, outputs
        self.last = nn.Linear(last, math.prod(outputs))

    def start_at(self, values: Tensor) -> None:
        """Set the last bias to `values`, of shape outputs or one that broadcasts to it."""
        with torch.no_grad():
            self.last.bias.copy_(values.broadcast_to(self.outputs).flatten())

    def finish(self, hidden: Tensor) -> Tensor:
        return self.last(hidden).unflatten(-1, self.outputs) if len(self.outputs) > 1 else self.last(hidden)


class _Block(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm, self.first, self.second = nn.LayerNorm(width), nn.Linear(width, width), nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.dropout(F.silu(self.first(F.silu(self.norm(x))))))


@final
class Residual(_Body):
    """Map vectors through residual blocks with layer normalisation and SiLU (He et al. 2016, pre-activation).

    Args:
        inputs, outputs: shapes of one datum on either side.
        width: units in each layer.
        blocks: residual blocks of two layers each.
        dropout: share of hidden units dropped in training.
    """

    def __init__(
        self, inputs: tuple[int, ...], outputs: tuple[int, ...], *, width: int = 512, blocks: int = 1, dropout: float = 0.0
    ) -> None:
        if width < 1 or blocks < 0 or not 0 <= dropout < 1:
            raise ValueError(f"expected width >= 1, blocks >= 0 and 0 <= dropout < 1; got {width}, {blocks} and {dropout}")
        super().__init__(inputs, outputs, width)
        self.first = nn.Linear(math.prod(inputs), width)
        self.blocks = nn.Sequential(*[_Block(width, dropout) for _ in range(blocks)])
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.finish(F.silu(self.norm(self.blocks(self.first(x.flatten(1))))))


@final
class MLP(_Body):
    """Map vectors through plain fully connected layers, without normalisation.

    Args:
        inputs, outputs: shapes of one datum on either side.
        width: units in each hidden layer.
        depth: hidden layers; 0 makes a linear map.
        activation: relu, tanh, silu or gelu.
    """

    def __init__(
        self,
        inputs: tuple[int, ...],
        outputs: tuple[int, ...],
        *,
        width: int = 400,
        depth: int = 1,
        activation: Activation = "relu",
    ) -> None:
        if width < 1 or depth < 0:
            raise ValueError(f"expected width >= 1 and depth >= 0; got {width} and {depth}")
        size = math.prod(inputs)
        super().__init__(inputs, outputs, width if depth else size)
        self.hidden = nn.ModuleList([nn.Linear(width if i else size, width) for i in range(depth)])
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for layer in self.hidden:
            x = self.activation(layer(x))
        return self.finish(x)


def linear(inputs: tuple[int, ...], outputs: tuple[int, ...]) -> MLP:
    """Make a linear map: with a Gaussian likelihood the model is probabilistic PCA (Tipping and Bishop 1999)."""
    return MLP(inputs, outputs, depth=0)
