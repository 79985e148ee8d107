"""Dequantisation: a density over real values that scores data on a grid.

For data x on a grid with cells of width g, the model has one more latent, noise u that is uniform
on (-1/2, 1/2) in each cell, and scores

    log p(x | z, u) = log f(x + g u | z) + log g

with f the density. Its mean over u is a lower bound on the log-probability of the cell (Theis, van
den Oord and Bethge 2016). The constant log g is the space's (`Space.log_dets`).
"""

from __future__ import annotations

from abc import ABC

import torch
from torch import Tensor

from vaestro.likelihoods.base import Likelihood


class Dequantised(Likelihood, ABC):
    """Mixin that scores data on a grid by a density over real values. The noise is an argument."""

    grid: Tensor

    def dequantise(self, cells: tuple[int, ...]) -> None:
        """Set the grid of the space, for the first cells along the last dimension of a datum.

        Args:
            cells: shape of the values that may lie on a grid: the shape of a datum, or (n,) for the
                first n columns of a table.
        """
        grid = self.space.grid()
        self.jitter = None if grid is None else cells
        widths = torch.zeros(()) if grid is None else torch.from_numpy(grid.copy())
        self.register_buffer("grid", widths.to(torch.get_default_dtype()), persistent=False)

    def spread(self, x: Tensor, noise: Tensor | None) -> Tensor:
        if noise is None:
            return x
        n = noise.shape[-1]
        noisy = x[..., :n] + self.grid * noise
        if n == x.shape[-1]:
            return noisy
        return torch.cat([noisy, x[..., n:].expand(*noisy.shape[:-1], -1)], -1)

    def settle(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.jitter is None:
            return x, None
        values, rest = x[..., : self.jitter[-1]], x[..., self.jitter[-1] :]
        step = torch.where(self.grid > 0, self.grid, 1.0)
        centre = torch.where(self.grid > 0, torch.round(values / step) * step, values)
        return torch.cat([centre, rest], -1), (values - centre) / step

    def on_grid(self) -> Tensor:
        return (self.grid > 0).expand(self.jitter or (0,)).flatten()
