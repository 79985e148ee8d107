"""A variance with a closed form on the training split (Rybkin, Daniilidis and Levine 2021).

At the maximum likelihood, the variance of cells that share one is their mean squared residual

    variance = sum (x - mean(z))^2 / n

In training the sums are over the batch. The variance is at its optimum there, so the gradient
through it is zero (the envelope theorem) and it is detached. Every reported bound uses the stored
value of the training split.
"""

from __future__ import annotations

import math
from abc import ABC

import torch
from torch import Tensor

from vaestro.densities import DataDensity, mean_over_ranks
from vaestro.likelihoods.scales import Scaled


class FittedVariance(Scaled, ABC):
    """Fit the variances of a `Scaled` normal in closed form, if `fitted_to_data` is set."""

    fitted_to_data: bool

    def training_density(self, px: DataDensity, x: Tensor, observed: Tensor | None) -> DataDensity:
        if not self.fitted_to_data:
            return px
        total, count = mean_over_ranks(self.accumulate(px, x, observed)).unbind()
        variance = self.placed(self._log_of(total, count))
        return px.of_line(self.family(px.on_line().mean, variance))

    def accumulate(self, px: DataDensity, x: Tensor, observed: Tensor | None) -> Tensor:
        """Return the sum of squared residuals relative to the reference and the number of values,
        (2, *shape of the variances)."""
        x, observed = px.scored(x, observed)
        squared = (x - px.on_line().mean.detach()).square() * torch.exp(-self.reference)
        if observed is None:
            sums = [squared, torch.ones_like(squared)]
        else:
            mask = observed.expand_as(squared)
            sums = [torch.where(mask, squared, 0.0), mask.to(squared.dtype)]
        return torch.stack([self.over_cells(values) for values in sums])

    def store(self, sums: Tensor) -> None:
        self.numbers.copy_(self._log_of(*sums.unbind()))

    def _log_of(self, total: Tensor, count: Tensor) -> Tensor:
        """Return the logarithm of a mean square, or the stored one if nothing was observed."""
        fitted = (total / count.clamp_min(1)).clamp_min(math.exp(-self.limit)).log()
        return torch.where(count > 0, fitted, self.numbers)
