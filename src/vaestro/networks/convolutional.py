"""Convolutional networks for images and volumes: residual blocks at every resolution.

A resolution halves the sides that are longer than half of the longest one, so that a grid of any
shape becomes small and nearly square. The number of channels is inversely proportional to the root
of the number of cells, so that all resolutions cost about the same. Edges are padded by replication
(zeros would be visible as a frame), upsampling is linear and followed by convolutions (Odena et al.
2016), and the last layers are convolutions at full resolution. A linear map between the latent and
the data at a coarse resolution is added, which is learned faster than the blocks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, final

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from vaestro.networks.dense import Body, check_given

CONVOLUTIONS: dict[int, Callable[..., nn.Conv2d | nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
LINEAR = {2: "bilinear", 3: "trilinear"}  # modes of interpolation
LAST_IN_MEMORY = {2: torch.channels_last, 3: torch.channels_last_3d}
POOLS: dict[int, Callable[..., Tensor]] = {2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}
COARSEST = {2: 7, 3: 4}  # largest side of the coarsest resolution, for a vector latent
MOST_CHANNELS = 8  # times the width
MOST_LINEAR = 3000  # values, channels included, on the grid of the linear map
Sides = tuple[int, ...]


def halved(sides: Sides) -> Sides:
    """Halve the sides that are longer than half of the longest one, rounding up.

    >>> halved((16, 160)), halved((9, 16))
    ((16, 80), (5, 8))
    """
    return tuple((side + 1) // 2 if 2 * side > max(sides) else side for side in sides)


def _channels(width: int, sides: Sides, finest: Sides) -> int:
    """Return the number of channels at a resolution, a multiple of the width's power of two."""
    factor = math.sqrt(math.prod(finest) / math.prod(sides))
    unit = math.gcd(width, 8)
    return min(MOST_CHANNELS * width, unit * max(1, round(width * factor / unit)))


class _Block(nn.Module):
    """Residual block of convolutions with sides 1, 3 and 1, the middle one at half the width (He
    et al. 2016, pre-activation bottleneck).

    Normalisation is over groups of channels (Wu and He 2018) and not over a batch, so that rows are
    independent. It is inside of the block alone: the sum of the blocks keeps the contrast of an
    image, which a last normalisation would remove.
    """

    def __init__(self, axes: int, channels: int, given: int, dropout: float) -> None:
        super().__init__()
        half = max(1, channels // 2)
        self.axes = axes
        self.norm = nn.GroupNorm(math.gcd(channels, 4), channels)
        self.first = _convolution(axes, channels, half, 1)
        self.second = _convolution(axes, half, half, 3)
        self.third = _convolution(axes, half, channels, 1)
        self.condition = nn.Linear(given, half) if given else None
        self.condition_weights = ("condition.weight",) if given else ()
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, x: Tensor, given: Tensor | None) -> Tensor:
        hidden = self.first(F.silu(self.norm(x)))
        if self.condition is not None:
            bias = self.condition(given)
            hidden = hidden + bias.view(*bias.shape, *[1] * self.axes)
        return x + self.third(self.dropout(F.silu(self.second(F.silu(hidden)))))


@final
class _Enlarge(nn.Module):
    """Interpolate linearly to given sides, after a convolution that changes the channels."""

    def __init__(self, axes: int, inputs: int, outputs: int, sides: Sides) -> None:
        super().__init__()
        self.mix, self.sides, self.mode = (
            _convolution(axes, inputs, outputs, 1),
            sides,
            LINEAR[axes],
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(self.mix(x), self.sides, mode=self.mode, align_corners=False)


def _convolution(
    axes: int, inputs: int, outputs: int, side: int, strides: Sequence[int] = ()
) -> nn.Conv2d | nn.Conv3d:
    """Return a convolution that divides the sides by strides, rounding up; without strides it keeps
    them. Its own side is 1 along axes whose stride is 1."""
    kernel = [side if not strides or stride > 1 else 1 for stride in strides or [1] * axes]
    return CONVOLUTIONS[axes](
        inputs,
        outputs,
        tuple(kernel),
        tuple(strides) or 1,
        tuple(k // 2 for k in kernel),
        padding_mode="replicate" if side > 1 else "zeros",
    )


class _Convolutional(Body):
    """Map data on a grid to latents, or latents to data on a grid.

    The shapes determine the direction. The encoder halves the longest sides until all are at most
    those of `COARSEST` (a vector latent), or all sides until they are 1/factor of the data's (a
    spatial latent). The decoder has the same sides in reverse order. Conditions are a bias of every
    block's channels.
    """

    axes: ClassVar[int]  # of the grid, without channels
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
        encodes = self._encodes(inputs, outputs)
        data = inputs[1 : 1 + self.axes] if encodes else outputs[-self.axes :]
        sides = self._resolutions(data, outputs if encodes else inputs, factor)
        widths = [_channels(width, each, sides[0]) for each in sides]
        super().__init__(inputs, outputs, given, self._last(encodes, widths, outputs, sides[-1]))
        self.arranged = outputs  # with the grid's axes last
        self.first = self._first(encodes, widths, inputs, sides[-1])
        self.layers = nn.ModuleList(self._layers(encodes, widths, sides, given, blocks, dropout))
        self.encodes, self.sides = encodes, sides[0]
        ends = inputs[:1] + inputs[1 + self.axes :] if encodes else outputs[: -self.axes]
        self.coarse = self._coarse(sides, math.prod(ends))
        self.linear = self._linear(inputs, outputs, math.prod(ends))
        with torch.no_grad():
            if self.linear is not None:
                self.linear.weight.mul_(0.3 if encodes else 0.05)
            if not encodes:
                # the first outputs of a decoder are close to its last bias
                self.last.get_parameter("weight").mul_(0.1)

    @staticmethod
    def _coarse(sides: list[Sides], channels: int) -> Sides:
        """Return the finest resolution with at most MOST_LINEAR values; () if there is none."""
        return next((s for s in sides if channels * math.prod(s) <= MOST_LINEAR), ())

    def _linear(
        self, inputs: tuple[int, ...], outputs: tuple[int, ...], channels: int
    ) -> nn.Linear | None:
        """Return the linear map between a latent vector and the data at a coarse resolution."""
        vector = outputs if self.encodes else inputs
        if not self.coarse or len(vector) > (self.axes if self.encodes else 1):
            return None
        cells, units = channels * math.prod(self.coarse), math.prod(vector)
        return nn.Linear(*((cells, units) if self.encodes else (units, cells)), bias=False)

    @classmethod
    def _last(
        cls, encodes: bool, widths: list[int], outputs: tuple[int, ...], coarsest: Sides
    ) -> nn.Module:
        """Return the last layer: linear if an encoder's outputs are vectors."""
        if not encodes:
            return _convolution(cls.axes, widths[0], math.prod(outputs[: -cls.axes]), 3)
        if len(outputs) <= cls.axes:
            return nn.Linear(widths[-1] * math.prod(coarsest), math.prod(outputs))
        return _convolution(cls.axes, widths[-1], math.prod(outputs[: -cls.axes]), 3)

    @classmethod
    def _first(
        cls, encodes: bool, widths: list[int], inputs: tuple[int, ...], coarsest: Sides
    ) -> nn.Module:
        """Return the first layer: linear if a decoder's inputs are vectors."""
        if encodes:
            return _convolution(
                cls.axes, inputs[0] * math.prod(inputs[1 + cls.axes :]), widths[0], 3
            )
        if len(inputs) == 1 + cls.axes:
            return _convolution(cls.axes, inputs[0], widths[-1], 3)
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
        """Yield the residual blocks of each resolution, and the layers between resolutions.

        An encoder has none at full resolution, where they cost most.
        """
        levels = len(sides)
        for level in range(min(1, levels - 1), levels) if encodes else reversed(range(levels)):
            if encodes and level:
                strides = [1 + (a > b) for a, b in zip(sides[level - 1], sides[level], strict=True)]
                yield _convolution(cls.axes, widths[level - 1], widths[level], 3, strides)
            for _ in range(blocks):
                yield _Block(cls.axes, widths[level], given, dropout)
            if level and not encodes:
                yield _Enlarge(cls.axes, widths[level], widths[level - 1], sides[level - 1])

    @classmethod
    def latent_shape(
        cls, latent: int, shape: tuple[int, ...], *, factor: int = 0, **_: object
    ) -> tuple[int, ...]:
        """Return the shape of the latent for data of a shape inside: (latent,), or (latent, *sides
        / factor) rounded up.

        Raises:
            ValueError: the data are of another dimension, or the factor is not a power of two, or
                larger than the largest side.
        """
        if len(shape) != 1 + cls.axes:
            raise ValueError(
                f"expected {cls.noun} for a convolutional network; got data of shape {shape}"
                + (" (SOURCE:volume=true reads arrays as volumes)" if cls.axes == 3 else "")
            )
        sides = shape[1:]
        if factor and (factor < 2 or factor & (factor - 1) or factor > max(sides)):
            raise ValueError(
                f"expected factor=0, or a power of two from 2 to the longest side; got "
                f"{factor} for {' x '.join(map(str, sides))}"
            )
        return (latent, *(-(-side // factor) for side in sides)) if factor else (latent,)

    @classmethod
    def _encodes(cls, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> bool:
        """Return whether the inputs, and not the outputs, are data.

        Raises:
            ValueError: neither side or both are data.
        """
        axes = cls.axes
        before = math.prod(inputs[1 : 1 + axes]) if len(inputs) in (1 + axes, 2 + axes) else 0
        after = math.prod(outputs[-axes:]) if len(outputs) > axes else 0
        if before == after or (before < after and len(inputs) not in (1, 1 + axes)):
            raise ValueError(
                f"expected {cls.noun} on one side of a convolutional network; got {inputs} and "
                f"{outputs}"
            )
        return before > after

    @classmethod
    def _resolutions(cls, data: Sides, latent: tuple[int, ...], factor: int) -> list[Sides]:
        """Return the sides at each resolution, the data's first.

        Args:
            data: the data's sides.
            latent: shape of the network's other side, of vectors or of a grid.
            factor: of a spatial latent; 0 for vectors.
        """
        grid = latent[-cls.axes :] if len(latent) > cls.axes else ()
        sides = [data]
        while sides[-1] != grid and max(sides[-1]) > (1 if grid else COARSEST[cls.axes]):
            last = sides[-1]
            sides.append(tuple((side + 1) // 2 for side in last) if grid else halved(last))
        expected = sides[-1] if grid else ()
        if factor and len(latent) > 1:  # a vector of outputs also for a spatial latent
            expected = cls.latent_shape(1, (1, *data), factor=factor)[1:]
        if grid != expected:
            raise ValueError(
                f"expected a latent with sides {expected} for {cls.noun} of {data} and "
                f"factor={factor}; got {latent}"
            )
        return sides

    def start_at(self, values: Tensor) -> None:
        values = values.broadcast_to(self.arranged)
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
        start = x
        x = self.first(x).contiguous(memory_format=memory)
        for layer in self.layers:
            x = layer(x, given) if isinstance(layer, _Block) else layer(x)
        x = F.silu(x)
        out = self.last(x.flatten(1) if isinstance(self.last, nn.Linear) else x)
        if self.linear is not None and self.encodes:
            out = out + self.linear(POOLS[self.axes](start, self.coarse).flatten(1))
        elif self.linear is not None:
            coarse = self.linear(start).unflatten(1, (-1, *self.coarse))
            out = out + F.interpolate(coarse, self.sides, mode=LINEAR[self.axes])
        return out.reshape(len(out), *self.arranged)


@final
class Convolutional(_Convolutional):
    """Map images to latents, or latents to images, through residual blocks of convolutions at every
    resolution.

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

    >>> Convolutional((1, 8, 8), (3,), width=4)(torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5, 3])
    """

    axes, noun = 2, "images"


@final
class Convolutional3d(_Convolutional):
    """Map volumes to latents, or latents to volumes, through residual blocks of convolutions at
    every resolution.

    Args:
        inputs, outputs: in an encoder (C, D, H, W), or (C, D, H, W, L) for cells that are one of L,
            and (P, Z) or (P, Z, d, h, w); in a decoder (Z,) or (Z, d, h, w), and (..., D, H, W).
        given, width, blocks, factor, dropout: as for Convolutional.

    Raises:
        ValueError: as for Convolutional.

    >>> Convolutional3d((1, 8, 8, 8), (3,), width=4)(torch.zeros(5, 1, 8, 8, 8)).shape
    torch.Size([5, 3])
    """

    axes, noun = 3, "volumes"
