"""The convolutional networks of runs that were made before format 4 (see `vaestro.files`).

They upsample by nearest neighbours without a convolution in the main path, and pad with zeros, so
their images have blocks and dark edges.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar, final

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from vaestro.networks.dense import Body, check_given

CONVOLUTIONS: dict[int, type[nn.Conv2d | nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
LAST_IN_MEMORY = {2: torch.channels_last, 3: torch.channels_last_3d}
FINEST_SIDE = 7  # largest side of the coarsest resolution for a vector latent
Sides = tuple[int, ...]


class _Block(nn.Module):
    """Residual block of convolutions with sides 1, 3 and 1, the middle one at half the width."""

    def __init__(self, axes: int, channels: int, given: int, dropout: float) -> None:
        super().__init__()
        half, convolution = max(1, channels // 2), CONVOLUTIONS[axes]
        self.axes = axes
        self.norm = _norm(channels)
        self.first = convolution(channels, half, 1)
        self.second = convolution(half, half, 3, 1, 1)
        self.third = convolution(half, channels, 1)
        self.condition = nn.Linear(given, half) if given else None
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, x: Tensor, given: Tensor | None) -> Tensor:
        hidden = self.first(F.silu(self.norm(x)))
        if self.condition is not None:
            bias = self.condition(given)
            hidden = hidden + bias.view(*bias.shape, *[1] * self.axes)
        return x + self.third(self.dropout(F.silu(self.second(F.silu(hidden)))))


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(channels, 4), channels)


class _Convolutional(Body):
    """Map images or volumes to latents, or latents to images or volumes.

    The shapes determine the direction. The encoder halves the sides, rounding up, until they are at
    most 7 (a vector latent) or 1/factor of the data's (a spatial latent). It doubles the channels
    up to 8 times the width. The decoder has the same sides in reverse order; upsampling is by
    nearest neighbours, after a convolution (Odena et al. 2016). There are no blocks at full
    resolution, where they would cost most. Normalisation is over groups of channels (Wu and He
    2018) and not over a batch, so that rows are independent. Conditions are a bias of every block's
    channels.
    """

    axes: ClassVar[int]  # of an image or volume, without channels
    noun: ClassVar[str]

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
        widths = [width * min(2**level, 8) for level in range(len(sides))]
        channels = widths[-1 if encodes else 0]
        super().__init__(inputs, outputs, given, self._last(encodes, channels, outputs, sides[-1]))
        self.first = self._first(encodes, widths, inputs, sides[-1])
        self.layers = nn.ModuleList(self._layers(encodes, widths, sides, given, blocks, dropout))
        self.norm = _norm(channels)
        if not encodes:
            with torch.no_grad():
                # the first outputs of a decoder are close to its last bias
                self.last.get_parameter("weight").mul_(0.1)

    @classmethod
    def _last(
        cls, encodes: bool, channels: int, outputs: tuple[int, ...], coarsest: Sides
    ) -> nn.Module:
        """Return the last layer: linear if an encoder's outputs are vectors."""
        if encodes and len(outputs) <= cls.axes:
            return nn.Linear(channels * math.prod(coarsest), math.prod(outputs))
        return CONVOLUTIONS[cls.axes](channels, math.prod(outputs[: -cls.axes]), 3, 1, 1)

    @classmethod
    def _first(
        cls, encodes: bool, widths: list[int], inputs: tuple[int, ...], coarsest: Sides
    ) -> nn.Module:
        """Return the first layer: linear if a decoder's inputs are vectors."""
        convolution = CONVOLUTIONS[cls.axes]
        if encodes:
            finest = min(1, len(widths) - 1)
            channels = inputs[0] * math.prod(inputs[1 + cls.axes :])
            return convolution(channels, widths[finest], 5, 1 + finest, 2)
        if len(inputs) == 1 + cls.axes:
            return convolution(inputs[0], widths[-1], 3, 1, 1)
        return nn.Sequential(
            nn.Linear(inputs[0], widths[-1] * math.prod(coarsest)),
            nn.Unflatten(1, (widths[-1], *coarsest)),
        )

    @classmethod
    def _layers(
        cls,
        encodes: bool,
        widths: list[int],
        sides: list[Sides],
        given: int,
        blocks: int,
        dropout: float,
    ) -> Iterator[nn.Module]:
        """Yield the residual blocks of each resolution, and the layers between resolutions."""
        convolution = CONVOLUTIONS[cls.axes]
        finest, levels = min(1, len(sides) - 1), len(sides)
        for level in range(finest, levels) if encodes else range(levels - 1, finest - 1, -1):
            for _ in range(blocks):
                yield _Block(cls.axes, widths[level], given, dropout)
            if encodes and level + 1 < levels:
                yield convolution(widths[level], widths[level + 1], 3, 2, 1)
            elif level and not encodes:
                yield convolution(widths[level], widths[level - 1], 1)
                yield nn.Upsample(sides[level - 1])

    @classmethod
    def latent_shape(
        cls, latent: int, shape: tuple[int, ...], *, factor: int = 0, **_: object
    ) -> tuple[int, ...]:
        """Return the shape of the latent for data of shape (C, *sides): (latent,), or (latent,
        *sides / factor) rounded up.

        Raises:
            ValueError: the data are of another dimension, or the factor is not a power of two, or
                larger than the largest side.
        """
        if len(shape) != 1 + cls.axes:
            raise ValueError(
                f"expected {cls.noun}s for a convolutional network; got data of shape {shape}"
                + (" (SOURCE:volume=true reads arrays as volumes)" if cls.axes == 3 else "")
            )
        if factor and (factor < 2 or factor & (factor - 1) or factor > max(shape[1:])):
            raise ValueError(
                f"expected factor=0, or a power of two from 2 to the {cls.noun}'s side; got "
                f"{factor} for {' x '.join(map(str, shape[1:]))}"
            )
        return (latent, *(-(-side // factor) for side in shape[1:])) if factor else (latent,)

    @classmethod
    def _sides(
        cls, inputs: tuple[int, ...], outputs: tuple[int, ...], factor: int
    ) -> tuple[bool, list[Sides]]:
        """Return whether the network is an encoder, and the sides at each resolution, the data's
        first."""
        axes = cls.axes
        before = math.prod(inputs[1 : 1 + axes]) if len(inputs) in (1 + axes, 2 + axes) else 0
        after = math.prod(outputs[-axes:]) if len(outputs) > axes else 0
        encodes = before > after
        if before == after or (not encodes and len(inputs) not in (1, 1 + axes)):
            raise ValueError(
                f"expected {cls.noun}s on one side of a convolutional network; got {inputs} and "
                f"{outputs}"
            )
        data, latent = (inputs[1 : 1 + axes], outputs) if encodes else (outputs[-axes:], inputs)
        grid = latent[-axes:] if len(latent) > axes else ()
        sides = [data]
        while sides[-1] != grid and max(sides[-1]) > (1 if grid else FINEST_SIDE):
            sides.append(tuple((side + 1) // 2 for side in sides[-1]))
        flat = encodes and len(latent) == 1  # a vector of outputs also for a spatial latent
        expected = sides[-1] if grid else ()
        if factor and not flat:
            expected = cls.latent_shape(1, (1, *data), factor=factor)[1:]
        if grid != expected:
            raise ValueError(
                f"expected a latent with sides {expected} for {cls.noun}s of {data} and "
                f"factor={factor}; got {latent}"
            )
        return encodes, sides

    def start_at(self, values: Tensor) -> None:
        values = values.broadcast_to(self.outputs)
        if not isinstance(self.last, nn.Linear):  # a bias of each channel
            values = values.mean(tuple(range(-self.axes, 0)))
        with torch.no_grad():
            self.last.get_parameter("bias").copy_(values.flatten())

    def forward(self, x: Tensor, given: Tensor | None = None) -> Tensor:
        check_given(given, self.given)
        given = None if given is None else given.to(x.dtype)
        memory = LAST_IN_MEMORY[self.axes]
        if x.ndim == 3 + self.axes:  # one-hot codes of each cell
            x = x.movedim(-1, 1).flatten(1, 2)
        if x.ndim == 2 + self.axes:
            x = x.contiguous(memory_format=memory)
        x = self.first(x).contiguous(memory_format=memory)
        for layer in self.layers:
            x = layer(x, given) if isinstance(layer, _Block) else layer(x)
        x = F.silu(self.norm(x))
        out = self.last(x.flatten(1) if isinstance(self.last, nn.Linear) else x)
        return out.reshape(out.shape[0], *self.outputs)


@final
class FormerConvolutional(_Convolutional):
    """Repeat the network `conv` of runs made before format 4.

    Args:
        inputs, outputs: in an encoder (C, H, W), or (C, H, W, L) for cells that are one of L, and
            (P, Z) or (P, Z, h, w); in a decoder (Z,) or (Z, h, w), and (..., H, W).
        given: number of conditions.
        width: number of channels at full resolution.
        blocks: residual blocks at each resolution.
        factor: 0 for a vector latent; 8 for a spatial latent of 1/8 of the sides, rounded up; a
            power of two.
        dropout: dropout probability of hidden units.

    Raises:
        ValueError: an option is out of its range, neither side or both are images, or the latent's
            sides do not match the factor.

    >>> FormerConvolutional((1, 8, 8), (3,), width=4)(torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5, 3])
    """

    axes, noun = 2, "image"


@final
class FormerConvolutional3d(_Convolutional):
    """Repeat the network `conv3d` of runs made before format 4.

    Args:
        inputs, outputs: in an encoder (C, D, H, W), or (C, D, H, W, L) for cells that are one of L,
            and (P, Z) or (P, Z, d, h, w); in a decoder (Z,) or (Z, d, h, w), and (..., D, H, W).
        given, width, blocks, factor, dropout: as for Convolutional.

    Raises:
        ValueError: as for Convolutional.

    >>> FormerConvolutional3d((1, 8, 8, 8), (3,), width=4)(torch.zeros(5, 1, 8, 8, 8)).shape
    torch.Size([5, 3])
    """

    axes, noun = 3, "volume"
