"""The dispersion of counts: where it starts, and how fast it is learned.

A dispersion starts where it fits the training data at their mean. It moves PACE times as fast as a weight.
Scales of real values do the same (`vaestro.scales`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
import torch.nn as nn
from torch import Tensor

from vaestro.densities import Cells, soft_limit
from vaestro.scales import PACE, START_VALUES, Version, paced, unlimited

INVERSE_LIMIT = 8.0  # beyond exp(8) a negative binomial is a Poisson, and differences of lgamma are lost in float32
START_SHARE = 0.75  # of a limit; closer to it a step changes little, so that a wrong start would be kept
START_LIMIT = START_SHARE * INVERSE_LIMIT
PRIOR_WIDTH = 3.0  # standard deviation of the prior under which a start is fitted: it decides where the data say nothing


def most_probable(log_likelihood: Callable[[Tensor], Tensor], low: float, high: float, centre: Tensor) -> Tensor:
    """Maximise log-likelihoods plus a wide normal log-prior, each over its own number in [low, high].

    The search is a coarse grid, a finer grid around its best point, and a parabola through the three best points.

    Args:
        log_likelihood: from numbers, shaped as `centre`, to log-likelihoods in nats of the same shape.
        low, high: bounds of the numbers.
        centre: mean of the prior.

    >>> target = torch.tensor([-1.3, 2.0])
    >>> most_probable(lambda x: -1e4 * (x - target) ** 2, -6, 6, torch.zeros(2)).round(decimals=2)
    tensor([-1.3000,  2.0000])
    """

    def score(number: Tensor) -> Tensor:
        found = log_likelihood(number) - 0.5 * ((number - centre) / PRIOR_WIDTH) ** 2
        return torch.where(torch.isfinite(found), found, -1e30)

    best = torch.zeros_like(centre)
    for points, width in ((torch.linspace(low, high, round(high - low) + 1), 0.0), (torch.linspace(-0.75, 0.75, 7), 1.0)):
        tried = [(width * best + float(p)).clamp(low, high) for p in points]
        choice = torch.stack([score(t) for t in tried]).argmax(0)
        best = torch.stack(tried).gather(0, choice.unsqueeze(0)).squeeze(0)
    step = 0.25
    before, here, after = (score(best + shift) for shift in (-step, 0.0, step))
    curvature = 2 * here - before - after
    shift = torch.where(curvature > 0, 0.5 * step * (after - before) / curvature.clamp_min(1e-12), 0.0)
    return (best + shift.clamp(-step, step)).clamp(low, high)


class Dispersed(nn.Module, ABC):
    """Hold one learned dispersion of a negative binomial for each cell of counts, the same for all data."""

    dispersed: bool = False  # whether dispersions are learned here; otherwise the decoder predicts them, or there are none

    @abstractmethod
    def counted(self, log_mean: Tensor, log_inverse: Tensor) -> Cells:
        """Return the density of counts before the first step."""

    def disperse(self, shape: tuple[int, ...], version: Version) -> None:
        """Make the parameter. At version 1 it starts at 0 and moves as fast as a weight."""
        self.dispersed, self.inverse_pace = True, PACE if version == 2 else 1.0
        self.log_inverse = nn.Parameter(torch.zeros(shape))

    def inverses(self) -> Tensor:
        """Return the logarithms of the inverse dispersions, within INVERSE_LIMIT."""
        return soft_limit(paced(self.log_inverse, self.inverse_pace), INVERSE_LIMIT)

    @property
    def dispersion_values(self) -> int:
        """Return how many counts `begin_dispersion` needs; 0 if there is nothing to start, or it has been started."""
        fresh = self.dispersed and self.inverse_pace != 1 and self.log_inverse.requires_grad and not bool(self.log_inverse.any())
        return START_VALUES if fresh else 0

    @torch.no_grad()
    def begin_dispersion(self, x: Tensor, observed: Tensor | None, log_size: Tensor) -> None:
        """Start dispersions where they fit training data, if each cell's mean is proportional to a size.

        A fit by moments would follow the largest counts: one of 400 among 1,000 with a mean of 15 changes its dispersion by a factor of 10.

        Args:
            x: counts, (B, *X).
            observed: which of them are there, (B, *X); None for all.
            log_size: logarithm of each datum's library, or 0; it broadcasts to (B, *X).
        """
        there = torch.ones_like(x, dtype=torch.bool) if observed is None else observed
        x = torch.where(there, x, 0.0).to(self.log_inverse.dtype)
        size = torch.where(there, log_size.exp(), 0.0).sum(0)
        log_mean = torch.log((x.sum(0) / size.clamp_min(1e-30)).clamp_min(1e-12)) + log_size

        def log_likelihood(log_inverse: Tensor) -> Tensor:
            return torch.where(there, self.counted(log_mean, log_inverse).cells(x), 0.0).sum(0)

        start = most_probable(log_likelihood, -START_LIMIT, START_LIMIT, torch.zeros_like(self.log_inverse))
        self.log_inverse.copy_(unlimited(start, INVERSE_LIMIT) / self.inverse_pace)
