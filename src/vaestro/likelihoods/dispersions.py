"""The dispersion of counts: its initial value and its learning speed.

A negative binomial with mean m and inverse dispersion r has variance m + m^2 / r. For a learned
number n,

    log r = soft_limit(pace n, INVERSE_LIMIT)

It is initialised by maximum likelihood of the training data at their mean, like the scales of real
values (`vaestro.likelihoods.scales`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
import torch.nn as nn
from torch import Tensor

from vaestro.densities import Cells, soft_limit
from vaestro.likelihoods.scales import PACES, START_VALUES, Version, paced, unlimited

# above exp(8) a negative binomial is almost a Poisson, and float32 differences of lgamma vanish
INVERSE_LIMIT = 8.0
# largest initial value, as a share of the limit; gradients are small near the limit
START_SHARE = 0.75
START_LIMIT = START_SHARE * INVERSE_LIMIT
# standard deviation of the prior on initial values, for cells with uninformative data
PRIOR_WIDTH = 3.0


def most_probable(
    log_likelihood: Callable[[Tensor], Tensor], low: float, high: float, centre: Tensor
) -> Tensor:
    """Maximise each log-likelihood plus a wide normal log-prior over its parameter in [low, high].

    The search is a grid of points 2 apart, three halvings of that distance around the best point,
    and a parabola.

    Args:
        log_likelihood: maps parameters, shaped as `centre`, to log-likelihoods in nats of the same
            shape.
        low, high: bounds of the parameters.
        centre: mean of the prior.

    >>> target = torch.tensor([-1.3, 2.0])
    >>> most_probable(lambda x: -1e4 * (x - target) ** 2, -6, 6, torch.zeros(2)).round(decimals=2)
    tensor([-1.3000,  2.0000])
    """

    def score(number: Tensor) -> Tensor:
        value = log_likelihood(number) - 0.5 * ((number - centre) / PRIOR_WIDTH) ** 2
        return torch.where(torch.isfinite(value), value, -1e30)

    points = [
        torch.full_like(centre, float(p))
        for p in torch.linspace(low, high, math.ceil((high - low) / 2) + 1)
    ]
    top = torch.full_like(centre, -math.inf)
    best = centre
    for point in points:
        best, top = _better(best, top, point, score(point))
    for step in (1.0, 0.5, 0.25):
        middle = best
        for sign in (-1, 1):
            point = (middle + sign * step).clamp(low, high)
            best, top = _better(best, top, point, score(point))
    before, after = score(best - 0.25), score(best + 0.25)
    curvature = 2 * top - before - after
    shift = torch.where(curvature > 0, 0.125 * (after - before) / curvature.clamp_min(1e-12), 0.0)
    return (best + shift.clamp(-0.25, 0.25)).clamp(low, high)


def _better(best: Tensor, top: Tensor, point: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
    """Return the points with the higher scores, and those scores."""
    return torch.where(score > top, point, best), torch.maximum(top, score)


class Dispersed(nn.Module, ABC):
    """Learn one dispersion of a negative binomial for each cell of counts, the same for all
    data."""

    # whether dispersions are parameters, not predicted by the decoder or absent
    dispersed: bool = False

    @abstractmethod
    def counted(self, log_mean: Tensor, log_inverse: Tensor) -> Cells:
        """Return the density of counts before the first step."""

    def disperse(self, shape: tuple[int, ...], version: Version) -> None:
        """Register the parameter. At version 1 it starts at 0 and is learned like a weight."""
        self.dispersed, self.inverse_pace = True, PACES[version]
        self.log_inverse = nn.Parameter(torch.zeros(shape))

    def inverses(self) -> Tensor:
        """Return the logarithms of the inverse dispersions, within INVERSE_LIMIT."""
        return soft_limit(paced(self.log_inverse, self.inverse_pace), INVERSE_LIMIT)

    @property
    def dispersion_values(self) -> int:
        """Return the number of counts that `begin_dispersion` uses; 0 if nothing is learned, or it
        has been called."""
        fresh = (
            self.dispersed
            and self.inverse_pace != 1
            and self.log_inverse.requires_grad
            and not bool(self.log_inverse.any())
        )
        return START_VALUES // 4 if fresh else 0  # each is scored 15 times

    @torch.no_grad()
    def begin_dispersion(self, x: Tensor, observed: Tensor | None, log_size: Tensor) -> None:
        """Initialise dispersions by a fit to training data, with each cell's mean proportional to a
        size.

        The fit is by maximum likelihood. A fit by moments is sensitive to outliers: one count of
        400 among 1,000 counts with mean 15 and inverse dispersion 5 lowers the estimate to 1.3.

        Args:
            x: counts, (B, *X).
            observed: mask of the observed counts, (B, *X); None for all.
            log_size: logarithm of each datum's library, or 0; it broadcasts to (B, *X).
        """
        mask = torch.ones_like(x, dtype=torch.bool) if observed is None else observed
        x = torch.where(mask, x, 0.0).to(self.log_inverse.dtype)
        size = torch.where(mask, log_size.exp(), 0.0).sum(0)
        log_mean = torch.log((x.sum(0) / size.clamp_min(1e-30)).clamp_min(1e-12)) + log_size

        def log_likelihood(log_inverse: Tensor) -> Tensor:
            return torch.where(mask, self.counted(log_mean, log_inverse).cells(x), 0.0).sum(0)

        start = most_probable(
            log_likelihood, -START_LIMIT, START_LIMIT, torch.zeros_like(self.log_inverse)
        )
        self.log_inverse.copy_(unlimited(start, INVERSE_LIMIT) / self.inverse_pace)
