"""Fully connected networks, and the base class of networks."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal, Protocol, cast, final, runtime_checkable

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "tanh": torch.tanh,
    "silu": F.silu,
    "gelu": F.gelu,
}
Activation = Literal["relu", "tanh", "silu", "gelu"]
_FUSED = {
    "": ("none", ""),
    "relu": ("relu", ""),
    "tanh": ("tanh", ""),
    "silu": ("swish", ""),
    "gelu": ("gelu", "none"),
}


def dense(
    layer: nn.Linear, x: Tensor, activation: Literal["", "relu", "tanh", "silu", "gelu"] = ""
) -> Tensor:
    """Return activation(layer(x)) for rows (N, inputs).

    On a CPU without gradients, product, bias and activation are one oneDNN call.

    >>> dense(nn.Linear(3, 2), torch.zeros(5, 3), "relu").shape
    torch.Size([5, 2])
    """
    fused = (
        not torch.is_grad_enabled()
        and type(layer) is nn.Linear
        # a call of the layer would run its hooks
        and not (layer._forward_hooks or layer._forward_pre_hooks)
        and x.device.type == "cpu"
        and x.dtype == layer.weight.dtype == torch.float32
        and x.ndim == 2
        and layer.in_features > 0
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
    )
    if fused:
        name, algorithm = _FUSED[activation]
        return torch.ops.mkldnn._linear_pointwise(x, layer.weight, layer.bias, name, [], algorithm)
    out = layer(x)
    return ACTIVATIONS[activation](out) if activation else out


@runtime_checkable
class Conditioned(Protocol):
    """Describe a module with weights whose last columns are multiplied by the conditions, one
    column for each number that describes them."""

    @property
    def condition_weights(self) -> tuple[str, ...]:
        """Return the names of these weights in the module; none without conditions."""


def check_given(given: Tensor | None, count: int) -> None:
    """Raise ValueError if the number of conditions is not that of the network.

    >>> check_given(torch.zeros(5, 2), 2)
    """
    if (size := 0 if given is None else given.shape[-1]) != count:
        raise ValueError(f"expected {count} conditions for each row; got {size}")


def with_conditions(x: Tensor, given: Tensor | None, count: int) -> Tensor:
    """Concatenate conditions to vectors: (N, D + count).

    Raises:
        ValueError: the number of conditions is not `count`.

    >>> with_conditions(torch.zeros(5, 3), torch.zeros(5, 2), 2).shape
    torch.Size([5, 5])
    """
    check_given(given, count)
    return x if given is None else torch.cat([x, given.to(x.dtype)], 1)


class Body(nn.Module, ABC):
    """Base class of networks, with their shapes, conditions and last layer.

    Args:
        inputs, outputs: shapes of one datum on either side.
        given: number of conditions of a row.
        last: the last layer.
    """

    def __init__(
        self, inputs: tuple[int, ...], outputs: tuple[int, ...], given: int, last: nn.Module
    ) -> None:
        super().__init__()
        self.inputs, self.outputs, self.given = inputs, outputs, given
        self.last = last

    @classmethod
    def latent_shape(
        cls, latent: int, shape: tuple[int, ...], *, factor: int = 0, **_: object
    ) -> tuple[int, ...]:
        """Return the shape of the latent for data of a shape inside; the options are the
        constructor's."""
        return (latent,)

    @abstractmethod
    def start_at(self, values: Tensor) -> None:
        """Set the last bias to `values`, of shape outputs or one that broadcasts to it."""

    @abstractmethod
    def forward(self, x: Tensor, given: Tensor | None = None) -> Tensor:
        """Map (N, *inputs), with conditions (N, given), to (N, *outputs)."""


class _Dense(Body):
    """Base class of fully connected networks, with their last layer."""

    last: nn.Linear

    def start_at(self, values: Tensor) -> None:
        with torch.no_grad():
            self.last.bias.copy_(values.broadcast_to(self.outputs).flatten())

    def join(self, x: Tensor, given: Tensor | None) -> Tensor:
        """Flatten the input and concatenate the conditions: (N, inputs + given)."""
        return with_conditions(x.flatten(1), given, self.given)

    def finish(self, hidden: Tensor) -> Tensor:
        """Apply the last layer: (N, units) -> (N, *outputs)."""
        out = dense(self.last, hidden)
        return out.unflatten(-1, self.outputs) if len(self.outputs) > 1 else out


class _Block(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm, self.first, self.second = (
            nn.LayerNorm(width),
            nn.Linear(width, width),
            nn.Linear(width, width),
        )
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return x + dense(self.second, self.dropout(dense(self.first, F.silu(self.norm(x)), "silu")))


@final
class Residual(_Dense):
    """Map vectors through residual blocks with layer normalisation and SiLU (He et al. 2016,
    pre-activation).

    Args:
        inputs, outputs: shapes of one datum on either side.
        given: conditions, which are concatenated to the input.
        width: units in each layer.
        blocks: residual blocks of two layers each.
        dropout: dropout probability of hidden units.

    >>> Residual((4,), (2, 3), width=8)(torch.zeros(5, 4)).shape
    torch.Size([5, 2, 3])
    """

    def __init__(
        self,
        inputs: tuple[int, ...],
        outputs: tuple[int, ...],
        given: int = 0,
        *,
        width: int = 512,
        blocks: int = 1,
        dropout: float = 0.0,
    ) -> None:
        if width < 1 or blocks < 0 or not 0 <= dropout < 1:
            raise ValueError(
                f"expected width >= 1, blocks >= 0 and 0 <= dropout < 1; got {width}, {blocks} "
                f"and {dropout}"
            )
        super().__init__(inputs, outputs, given, nn.Linear(width, math.prod(outputs)))
        self.first = nn.Linear(math.prod(inputs) + given, width)
        self.condition_weights = ("first.weight",) if given else ()
        self.blocks = nn.Sequential(*[_Block(width, dropout) for _ in range(blocks)])
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, given: Tensor | None = None) -> Tensor:
        return self.finish(F.silu(self.norm(self.blocks(dense(self.first, self.join(x, given))))))


@final
class MLP(_Dense):
    """Map vectors through plain fully connected layers, without normalisation.

    Args:
        inputs, outputs: shapes of one datum on either side.
        given: conditions, which are concatenated to the input.
        width: units in each hidden layer.
        depth: hidden layers; 0 makes a linear map.
        activation: relu, tanh, silu or gelu.

    >>> MLP((4,), (2, 3), width=8)(torch.zeros(5, 4)).shape
    torch.Size([5, 2, 3])
    """

    def __init__(
        self,
        inputs: tuple[int, ...],
        outputs: tuple[int, ...],
        given: int = 0,
        *,
        width: int = 400,
        depth: int = 1,
        activation: Activation = "relu",
    ) -> None:
        if width < 1 or depth < 0:
            raise ValueError(f"expected width >= 1 and depth >= 0; got {width} and {depth}")
        size = math.prod(inputs) + given
        super().__init__(
            inputs, outputs, given, nn.Linear(width if depth else size, math.prod(outputs))
        )
        self.condition_weights = (
            () if not given else (("hidden.0.weight",) if depth else ("last.weight",))
        )
        hidden = nn.ModuleList([nn.Linear(width if i else size, width) for i in range(depth)])
        self.hidden = cast("Sequence[nn.Linear]", hidden)
        self.activation: Activation = activation

    def forward(self, x: Tensor, given: Tensor | None = None) -> Tensor:
        x = self.join(x, given)
        for layer in self.hidden:
            x = dense(layer, x, self.activation)
        return self.finish(x)


def linear(inputs: tuple[int, ...], outputs: tuple[int, ...], given: int = 0) -> MLP:
    """Return a linear map. With a Gaussian likelihood the model is probabilistic PCA (Tipping and
    Bishop 1999).

    >>> linear((4,), (3,))(torch.zeros(5, 4)).shape
    torch.Size([5, 3])
    """
    return MLP(inputs, outputs, given, depth=0)
