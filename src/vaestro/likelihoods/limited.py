"""Real values between limits: a density on the line, mapped into the limits, and the probabilities
of the values at them.

    p(x = limit) = a,      p(x) = (1 - sum of a) f(T(x)) T'(x) between the limits

with f the density of the scores and T as in `vaestro.spaces.warps.Limits`. The decoder returns a
logit for each limit at which there are values. The bound is a density on a mixed measure. For
values on a grid, the limit has the grid's cell, as every other value, and p is a density of
dequantised values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self, final

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

from vaestro import densities
from vaestro.spaces import Space
from vaestro.spaces.warps import NOWHERE, Limits

ROUNDING = 4e-7  # of a value of 1, in float32


def atoms_of(space: Space) -> int:
    """Return the number of limits at which there are values.

    >>> from vaestro.spaces import RealSpace
    >>> atoms_of(RealSpace((1,), (1,), at_limits=np.array([[0.5], [0.0]])))
    1
    """
    return 0 if space.at_limits is None else sum(bool(share.any()) for share in space.at_limits)


def start_of(space: Space) -> list[Tensor]:
    """Return the logits of the limits relative to the other values in the training split, each
    (*X).

    >>> from vaestro.spaces import RealSpace
    >>> start_of(RealSpace((1,), (1,), at_limits=np.array([[0.5], [0.0]])))
    [tensor([0.])]
    """
    if space.at_limits is None:
        return []
    rest = np.log1p(-space.at_limits.sum(0))
    return [
        torch.from_numpy(np.log(share) - rest).float() for share in space.at_limits if share.any()
    ]


@final
class Limited(nn.Module):
    """Map densities on the line into the limits of a space.

    Args:
        space: with limits.

    >>> from vaestro.spaces import RealSpace
    >>> space = RealSpace((3,), (3,), offset=np.zeros(3), scale=np.ones(3), limits=(0.0, None))
    >>> density = Limited(space)(densities.Normal(torch.zeros(5, 3), torch.zeros(3)), [])
    >>> bool((density.sample() > 0).all())
    True
    """

    low: Tensor
    high: Tensor
    centres: Tensor
    widths: Tensor
    points: Tensor
    units: Tensor

    def __init__(self, space: Space) -> None:
        super().__init__()
        self.atoms = atoms_of(space)
        offset, scale = (
            np.broadcast_to(np.asarray(v, np.float64), space.shape)
            for v in (space.offset, space.scale)
        )
        grid = space.grid()
        steps = np.broadcast_to(0.0 if grid is None else grid, space.shape)
        inside = [
            np.asarray(
                (np.sign(i - 0.5) * NOWHERE if end is None else (end - offset) / scale), np.float32
            )
            for i, end in enumerate(space.limits)
        ]
        low, high = (np.broadcast_to(end, space.shape) for end in inside)
        there = space.at_limits
        ends = [
            e
            for e, at in zip((low, high), there if there is not None else (), strict=False)
            if at.any()
        ]
        centres = np.stack([*ends, low], -1)[..., : len(ends)]
        rounding = ROUNDING * np.maximum(1.0, np.abs(centres).max(-1, initial=0.0))
        buffers = {
            "low": low - steps / 2,
            "high": high + steps / 2,
            "centres": centres,
            "widths": (steps + rounding)[..., None],
            "points": (steps == 0)[..., None],
            "units": (1 / scale)[..., None],
        }
        dtype = torch.get_default_dtype()
        for name, values in buffers.items():
            tensor = torch.from_numpy(np.array(values))
            tensor = tensor if tensor.dtype == torch.bool else tensor.to(dtype)
            self.register_buffer(name, tensor, persistent=False)
        self.width = space.softness

    @classmethod
    def of(cls, space: Space) -> Self | None:
        """Return the limits of a space; None if it has none."""
        return cls(space) if space.limits else None

    def forward(
        self, scores: densities.Normal | densities.LocationScale, logits: Sequence[Tensor]
    ) -> densities.Warped:
        """Return the density of values between the limits.

        Args:
            scores: of values on the line, (K, B, *X).
            logits: of the limits with values, each (K, B, *X).
        """
        limits = Limits(self.low, self.high, self.width)
        if not self.atoms:
            return densities.Warped(scores, limits)
        atoms = densities.Atoms(self.centres, self.widths, None, self.points, self.units)
        shares = torch.stack([torch.zeros_like(logits[0]), *logits], -1).log_softmax(-1)
        return densities.Warped(scores, limits, atoms, shares)

    def scored(self, x: Tensor, observed: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the scores of values (B, *X), and which of them are observed and at no limit."""
        zero = densities.Normal(torch.zeros_like(x), torch.zeros_like(x), self.low.ndim)
        return self(zero, [torch.zeros_like(x)] * self.atoms).scored(x, observed)
