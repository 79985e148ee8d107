"""Densities of the rows of a table: a product over groups c of consecutive columns.

log p(x) = sum_c log p_c(x_c)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from vaestro.densities.core import Cells, DataDensity


@final
class Product(DataDensity):
    """Represent the columns of a table by one density for each group of consecutive columns.

    Args:
        parts: (number of columns, density over them) for each group, in the order of the columns.

    >>> from vaestro.densities import Bernoulli, Poisson
    >>> table = Product([(1, Poisson(torch.zeros(1))), (2, Bernoulli(torch.zeros(2), 1))])
    >>> table.mean
    tensor([1.0000, 0.5000, 0.5000])
    """

    def __init__(self, parts: Sequence[tuple[int, Cells]]) -> None:
        self.parts = tuple(parts)

    def _pieces(self, x: Tensor) -> Sequence[Tensor]:
        return x.split([n for n, _ in self.parts], -1)

    @property
    def mean(self) -> Tensor:
        """Return the mean of each column, or for categories the most probable code, (...,
        columns)."""
        return torch.cat([density.column_mean() for _, density in self.parts], -1)

    def point(self, weights: Tensor | None = None) -> Tensor:
        return torch.cat([density.column_point(weights) for _, density in self.parts], -1)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        return torch.cat(
            [density.sample(generator).to(torch.get_default_dtype()) for _, density in self.parts],
            -1,
        )

    def standardised_residual(self, value: Tensor) -> Tensor:
        pieces = zip(self.parts, self._pieces(value), strict=True)
        joined = _beside([part.standardised_residual(x) for (_, part), x in pieces])
        assert joined is not None
        return joined

    def by_cell(self, value: Tensor, observed: Tensor | None = None) -> Tensor | None:
        masks = [None] * len(self.parts) if observed is None else self._pieces(observed)
        pieces = zip(self.parts, self._pieces(value), masks, strict=True)
        return _beside([part.by_cell(x, mask) for (_, part), x, mask in pieces])

    def residual(self, value: Tensor) -> Tensor | None:
        pieces = zip(self.parts, self._pieces(value), strict=True)
        return _beside([part.residual(x) for (_, part), x in pieces])

    def log_prob(self, value: Tensor, observed: Tensor | None = None) -> Tensor:
        masks = [None] * len(self.parts) if observed is None else self._pieces(observed)
        pieces = zip(self.parts, self._pieces(value), masks, strict=True)
        scored = [density.log_prob(x, mask) for (_, density), x, mask in pieces]
        precision = (
            torch.float64 if any(s.dtype == torch.float64 for s in scored) else scored[0].dtype
        )
        return torch.stack([s.to(precision) for s in scored]).sum(0)


def _beside(pieces: Sequence[Tensor | None]) -> Tensor | None:
    """Return the pieces (..., columns) of all groups as one; None if a group has none."""
    present = [x for x in pieces if x is not None]
    if len(present) < len(pieces):
        return None
    lead = torch.broadcast_shapes(*(x.shape[:-1] for x in present))
    return torch.cat([x.expand(*lead, -1) for x in present], -1)
