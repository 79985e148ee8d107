"""Convolutions over time, for series."""

from __future__ import annotations

import math
from typing import final

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from vaestro.networks import check_given, with_conditions
from vaestro.sequences.base import check_options, reads_sequence


class _Block1d(nn.Module):
    """Residual block of two convolutions over time (He et al. 2016, pre-activation)."""

    def __init__(self, channels: int, given: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(math.gcd(channels, 4), channels)
        self.first, self.second = (
            nn.Conv1d(channels, channels, 3, 1, 1),
            nn.Conv1d(channels, channels, 3, 1, 1),
        )
        self.condition = nn.Linear(given, channels) if given else None
        self.condition_weights = ("condition.weight",) if given else ()
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, given: Tensor | None) -> Tensor:
        hidden = self.first(F.silu(self.norm(x)))
        if self.condition is not None:
            hidden = hidden + self.condition(given).unsqueeze(-1)
        return x + self.second(self.dropout(F.silu(hidden)))


@final
class Convolutional1d(nn.Module):
    """Map series to latents, or latents to series, through residual blocks of convolutions over
    time.

    The shapes determine the direction. The encoder halves the length, rounding up, until it is at
    most 8, and doubles the channels up to 4 times the width. The decoder has the same lengths in
    reverse order; upsampling is by nearest neighbours, after a convolution. Conditions are a bias
    of every block's channels.

    Args:
        inputs, outputs: the series is (T, C), or (T, 2 C) with a mask, in an encoder; (..., T, C)
            in a decoder.
        given: number of conditions.
        width: number of channels at full length.
        blocks: residual blocks at each length.
        dropout: dropout probability of hidden units.

    Raises:
        ValueError: an option is out of its range, or neither side or both are series.

    >>> Convolutional1d((20, 2), (3,), width=4)(torch.zeros(5, 20, 2)).shape
    torch.Size([5, 3])
    """

    def __init__(
        self,
        inputs: tuple[int, ...],
        outputs: tuple[int, ...],
        given: int = 0,
        *,
        width: int = 32,
        blocks: int = 1,
        dropout: float = 0.0,
    ) -> None:
        check_options(width, blocks, dropout, 0)
        super().__init__()
        self.encodes, self.inputs, self.outputs, self.given = (
            reads_sequence(inputs, outputs),
            inputs,
            outputs,
            given,
        )
        lengths = [inputs[0] if self.encodes else outputs[-2]]
        while lengths[-1] > 8:
            lengths.append((lengths[-1] + 1) // 2)
        widths = [width * min(2**level, 4) for level in range(len(lengths))]
        flat = widths[-1] * lengths[-1]
        layers: list[nn.Module] = []
        if self.encodes:
            self.first: nn.Module = nn.Conv1d(inputs[1], width, 5, 1, 2)
            self.last: nn.Linear | nn.Conv1d = nn.Linear(flat + given, math.prod(outputs))
        else:
            self.first = nn.Sequential(
                nn.Linear(inputs[0] + given, flat), nn.Unflatten(1, (widths[-1], lengths[-1]))
            )
            self.last = nn.Conv1d(width, math.prod(outputs) // outputs[-2], 5, 1, 2)
        for level in range(len(lengths)) if self.encodes else reversed(range(len(lengths))):
            layers += [_Block1d(widths[level], given, dropout) for _ in range(blocks)]
            if self.encodes and level + 1 < len(lengths):
                layers.append(nn.Conv1d(widths[level], widths[level + 1], 3, 2, 1))
            elif level and not self.encodes:
                layers += [
                    nn.Conv1d(widths[level], widths[level - 1], 1),
                    nn.Upsample(lengths[level - 1]),
                ]
        self.layers = nn.ModuleList(layers)
        if not self.encodes:
            with torch.no_grad():
                # the first outputs of a decoder are close to its last bias
                self.last.weight.mul_(0.1)

    def start_at(self, values: Tensor) -> None:
        """Set the last bias to the mean over time of `values`, whose shape broadcasts to
        `outputs`."""
        assert self.last.bias is not None
        with torch.no_grad():
            self.last.bias.copy_(values.broadcast_to(self.outputs).mean(-2).flatten())

    def forward(self, x: Tensor, given: Tensor | None = None) -> Tensor:
        check_given(given, self.given)
        given = None if given is None else given.to(x.dtype)
        x = self.first(x.transpose(1, 2) if self.encodes else with_conditions(x, given, self.given))
        for layer in self.layers:
            x = layer(x, given) if isinstance(layer, _Block1d) else layer(x)
        if self.encodes:
            return self.last(with_conditions(F.silu(x).flatten(1), given, self.given)).reshape(
                len(x), *self.outputs
            )
        out = self.last(F.silu(x)).unflatten(1, (-1, self.outputs[-1]))  # (N, P, C, T)
        return out.transpose(-1, -2).reshape(len(x), *self.outputs)
