"""Networks for encoders and decoders: modules from one shape to another, without densities.

Each takes (N, *inputs), with conditions (N, given) if it was made for some, and returns (N,
*outputs). `start_at(values)` sets the last bias, so that the first outputs of a decoder are at the
mean of the data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, cast, final

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
        # which a call of the layer would run
        and not (layer._forward_hooks or layer._forward_pre_hooks)
        and x.device.type == "cpu"
        and x.dtype == layer.weight.dtype == torch.float32
        and x.ndim == 2
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


def check_given(given: Tensor | None, count: int) -> None:
    """Raise ValueError unless the number of conditions is the one that a network was made for.

    >>> check_given(torch.zeros(5, 2), 2)
    """
    if (size := 0 if given is None else given.shape[-1]) != count:
        raise ValueError(f"expected {count} conditions for each row; got {size}")


def beside(x: Tensor, given: Tensor | None, count: int) -> Tensor:
    """Concatenate conditions to vectors: (N, D + count).

    Raises:
        ValueError: the number of conditions is another one.

    >>> beside(torch.zeros(5, 3), torch.zeros(5, 2), 2).shape
    torch.Size([5, 5])
    """
    check_given(given, count)
    return x if given is None else torch.cat([x, given.to(x.dtype)], 1)


class _Body(nn.Module):
    """Share shapes, conditions, and the last layer."""

    def __init__(
        self,
        inputs: tuple[int, ...],
        outputs: tuple[int, ...],
        given: int,
        last: nn.Linear | nn.Conv2d,
    ) -> None:
        super().__init__()
        self.inputs, self.outputs, self.given = inputs, outputs, given
        self.last = last

    @classmethod
    def latent_shape(
        cls, latent: int, shape: tuple[int, ...], *, factor: int = 0, **_: object
    ) -> tuple[int, ...]:
        """Return the shape of the latent for data of a shape (C, H, W), or of any other; the
        options are the constructor's."""
        return (latent,)

    def start_at(self, values: Tensor) -> None:
        """Set the last bias to `values`, of shape outputs or one that broadcasts to it; a
        convolution takes each channel's average."""
        values = values.broadcast_to(self.outputs)
        assert self.last.bias is not None
        with torch.no_grad():
            self.last.bias.copy_(
                (values.mean((-2, -1)) if isinstance(self.last, nn.Conv2d) else values).flatten()
            )

    def join(self, x: Tensor, given: Tensor | None) -> Tensor:
        """Flatten the input and concatenate the conditions: (N, inputs + given)."""
        return beside(x.flatten(1), given, self.given)

    def finish(self, hidden: Tensor) -> Tensor:
        out = dense(self.last, hidden) if isinstance(self.last, nn.Linear) else self.last(hidden)
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
class Residual(_Body):
    """Map vectors through residual blocks with layer normalisation and SiLU (He et al. 2016,
    pre-activation).

    Args:
        inputs, outputs: shapes of one datum on either side.
        given: conditions, which are concatenated to the input.
        width: units in each layer.
        blocks: residual blocks of two layers each.
        dropout: fraction of hidden units that training drops.

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
        self.blocks = nn.Sequential(*[_Block(width, dropout) for _ in range(blocks)])
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, given: Tensor | None = None) -> Tensor:
        return self.finish(F.silu(self.norm(self.blocks(dense(self.first, self.join(x, given))))))


@final
class MLP(_Body):
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
        hidden = nn.ModuleList([nn.Linear(width if i else size, width) for i in range(depth)])
        self.hidden = cast("Sequence[nn.Linear]", hidden)
        self.activation: Activation = activation

    def forward(self, x: Tensor, given: Tensor | None = None) -> Tensor:
        x = self.join(x, given)
        for layer in self.hidden:
            x = dense(layer, x, self.activation)
        return self.finish(x)


def linear(inputs: tuple[int, ...], outputs: tuple[int, ...], given: int = 0) -> MLP:
    """Make a linear map: with a Gaussian likelihood the model is probabilistic PCA (Tipping and
    Bishop 1999).

    >>> linear((4,), (3,))(torch.zeros(5, 4)).shape
    torch.Size([5, 3])
    """
    return MLP(inputs, outputs, given, depth=0)


class _ConvBlock(nn.Module):
    """Residual block of 1x1, 3x3 and 1x1 convolutions, the middle one at half the width."""

    def __init__(self, channels: int, given: int, dropout: float) -> None:
        super().__init__()
        half = max(1, channels // 2)
        self.norm = _norm(channels)
        self.first, self.second, self.third = (
            nn.Conv2d(channels, half, 1),
            nn.Conv2d(half, half, 3, 1, 1),
            nn.Conv2d(half, channels, 1),
        )
        self.condition = nn.Linear(given, half) if given else None
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, x: Tensor, given: Tensor | None) -> Tensor:
        hidden = self.first(F.silu(self.norm(x)))
        if self.condition is not None:
            hidden = hidden + self.condition(given)[:, :, None, None]
        return x + self.third(self.dropout(F.silu(self.second(F.silu(hidden)))))


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(channels, 4), channels)


@final
class Convolutional(_Body):
    """Map images to latents, or latents to images, through residual blocks of convolutions (He et
    al. 2016, pre-activation bottleneck).

    The shapes determine the direction. The encoder halves the sides, rounding up, until they are at
    most 7 (a vector latent) or 1/factor of the image (a spatial latent), and doubles the channels
    up to 8 times the width. The decoder has the same sides in reverse order; each is reached by
    nearest neighbours after a convolution (Odena et al. 2016). Full resolution has no blocks, since
    they would cost most there. Normalisation is over groups of channels (Wu and He 2018) and not
    over a batch, so that rows are independent. Conditions are a bias of every block's channels.

    Args:
        inputs, outputs: in an encoder (C, H, W), or (C, H, W, L) for cells that are one of L, and
            (P, Z) or (P, Z, h, w); in a decoder (Z,) or (Z, h, w), and (..., H, W).
        given: conditions.
        width: channels at full resolution.
        blocks: residual blocks at each resolution.
        factor: 0 for a vector latent; 8 for a spatial latent of 1/8 of the sides, rounded up; a
            power of two.
        dropout: fraction of hidden cells that training drops.

    Raises:
        ValueError: an option is out of its range, neither side or both are images, or the latent's
            sides are not those of the factor.

    >>> Convolutional((1, 8, 8), (3,), width=4)(torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5, 3])
    """

    def __init__(
        self,
        inputs: tuple[int, ...],
        outputs: tuple[int, ...],
        given: int = 0,
        *,
        width: int = 16,
        blocks: int = 1,
        factor: int = 0,
        dropout: float = 0.0,
    ) -> None:
        if width < 1 or blocks < 1 or not 0 <= dropout < 1:
            raise ValueError(
                f"expected width >= 1, blocks >= 1 and 0 <= dropout < 1; got {width}, {blocks} "
                f"and {dropout}"
            )
        encodes, sides = self._sides(inputs, outputs, factor)
        finest = min(1, len(sides) - 1)
        widths = [width * min(2**level, 8) for level in range(len(sides))]
        flat = widths[-1] * math.prod(sides[-1])
        if encodes and len(outputs) < 3:
            super().__init__(inputs, outputs, given, nn.Linear(flat, math.prod(outputs)))
        else:
            super().__init__(
                inputs,
                outputs,
                given,
                nn.Conv2d(widths[-1 if encodes else 0], math.prod(outputs[:-2]), 3, 1, 1),
            )
        self.first: nn.Module
        if encodes:
            self.first = nn.Conv2d(
                inputs[0] * math.prod(inputs[3:]), widths[finest], 5, 1 + finest, 2
            )
        elif len(inputs) == 3:
            self.first = nn.Conv2d(inputs[0], widths[-1], 3, 1, 1)
        else:
            self.first = nn.Sequential(
                nn.Linear(inputs[0], flat), nn.Unflatten(1, (widths[-1], *sides[-1]))
            )
        layers: list[nn.Module] = []
        for level in (
            range(finest, len(sides)) if encodes else range(len(sides) - 1, finest - 1, -1)
        ):
            layers += [_ConvBlock(widths[level], given, dropout) for _ in range(blocks)]
            if encodes and level + 1 < len(sides):
                layers.append(nn.Conv2d(widths[level], widths[level + 1], 3, 2, 1))
            elif level and not encodes:
                layers += [
                    nn.Conv2d(widths[level], widths[level - 1], 1),
                    nn.Upsample(sides[level - 1]),
                ]
        self.layers = nn.ModuleList(layers)
        self.norm = _norm(widths[-1 if encodes else 0])
        if not encodes:
            with torch.no_grad():
                self.last.weight.mul_(0.1)  # a decoder starts near its last bias

    @classmethod
    def latent_shape(
        cls, latent: int, shape: tuple[int, ...], *, factor: int = 0, **_: object
    ) -> tuple[int, ...]:
        """Return the shape of the latent for images of shape (C, H, W): (latent,), or (latent, H /
        factor, W / factor) rounded up.

        Raises:
            ValueError: the data are no images, or the factor is no power of two, or larger than the
                image.
        """
        if len(shape) != 3:
            raise ValueError(
                f"expected images for a convolutional network; got data of shape {shape}"
            )
        if factor and (factor < 2 or factor & (factor - 1) or factor > max(shape[1:])):
            raise ValueError(
                f"expected factor=0, or a power of two from 2 to the image's side; got {factor} "
                f"for {shape[1]} x {shape[2]}"
            )
        return (latent, *(-(-side // factor) for side in shape[1:])) if factor else (latent,)

    @classmethod
    def _sides(
        cls, inputs: tuple[int, ...], outputs: tuple[int, ...], factor: int
    ) -> tuple[bool, list[tuple[int, ...]]]:
        """Return whether the input is an image (an encoder), and the sides at each resolution, the
        image's first."""
        before = math.prod(inputs[1:3]) if len(inputs) in (3, 4) else 0
        after = math.prod(outputs[-2:]) if len(outputs) > 2 else 0
        encodes = before > after
        if before == after or (not encodes and len(inputs) not in (1, 3)):
            raise ValueError(
                f"expected images on one side of a convolutional network; got {inputs} and "
                f"{outputs}"
            )
        image, latent = (inputs[1:3], outputs) if encodes else (outputs[-2:], inputs)
        grid = latent[-2:] if len(latent) > 2 else ()
        sides = [image]
        while sides[-1] != grid and max(sides[-1]) > (1 if grid else 7):
            sides.append(tuple((side + 1) // 2 for side in sides[-1]))
        # what makes a density over a grid of numbers that do not lie on it
        flat = encodes and len(latent) == 1
        asked = (
            cls.latent_shape(1, (1, *image), factor=factor)[1:]
            if factor and not flat
            else sides[-1]
            if grid
            else ()
        )
        if grid != asked:
            raise ValueError(
                f"expected a latent with sides {asked} for images of {image} and "
                f"factor={factor}; got {latent}"
            )
        return encodes, sides

    def forward(self, x: Tensor, given: Tensor | None = None) -> Tensor:
        check_given(given, self.given)
        given = None if given is None else given.to(x.dtype)
        if x.ndim == 5:
            x = x.movedim(-1, 1).flatten(1, 2)
        if x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        x = self.first(x).contiguous(memory_format=torch.channels_last)
        for layer in self.layers:
            x = layer(x, given) if isinstance(layer, _ConvBlock) else layer(x)
        x = F.silu(self.norm(x))
        out = self.last(x.flatten(1) if isinstance(self.last, nn.Linear) else x)
        return out.reshape(out.shape[0], *self.outputs)


@final
class MaskedNetwork(nn.Module):
    """Map values (..., n) to (..., n); the outputs of a group of units depend only on the groups
    before it (Germain et al. 2015).

    Args:
        groups: the group of each unit, (n,), from 0 on.
        width: units of each of the two hidden layers.

    >>> MaskedNetwork(torch.tensor([0, 1]), 8)(torch.zeros(5, 2)).shape
    torch.Size([5, 2])
    """

    mask0: Tensor
    mask1: Tensor
    mask2: Tensor

    def __init__(self, groups: Tensor, width: int) -> None:
        super().__init__()
        n, count = len(groups), int(groups.max()) + 1
        # a hidden unit of degree d has groups 0 .. d as inputs, and later groups as outputs
        hidden = torch.arange(width) % max(1, count - 1)
        layers = [nn.Linear(n, width), nn.Linear(width, width), nn.Linear(width, n)]
        self.layers = cast("Sequence[nn.Linear]", nn.ModuleList(layers))
        seen = (
            hidden.unsqueeze(1) >= groups,
            hidden.unsqueeze(1) >= hidden,
            groups.unsqueeze(1) > hidden,
        )
        for i, mask in enumerate(seen):
            self.register_buffer(f"mask{i}", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        masks = (self.mask0, self.mask1, self.mask2)
        for i, (layer, mask) in enumerate(zip(self.layers, masks, strict=True)):
            x = F.linear(x, layer.weight * mask, layer.bias)
            x = F.silu(x) if i < 2 else x
        return x
