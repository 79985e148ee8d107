"""The dispersion of counts: its initial value and its learning speed.

A negative binomial with mean m and inverse dispersion r has variance m + m^2 / r. For a learned
number n,

    log r = soft_limit(pace n, INVERSE_LIMIT)

With a dispersion for each category of the conditions (as for batches of cells, Lopez et al. 2018),
n is a sum n_0 + W c over the codes c of the categories.

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
from vaestro.spaces import Column, Space

# above exp(8) a negative binomial is almost a Poisson, and float32 differences of lgamma vanish
INVERSE_LIMIT = 8.0
# largest initial value, as a share of the limit; gradients are small near the limit
START_SHARE = 0.75
START_LIMIT = START_SHARE * INVERSE_LIMIT
# standard deviation of the prior on initial values, for cells with uninformative data
PRIOR_WIDTH = 3.0
# the same for the difference between a category of the conditions and all data, and its limit
CATEGORY_WIDTH, CATEGORY_LIMIT = 0.5, 4.0


def most_probable(
    log_likelihood: Callable[[Tensor], Tensor],
    low: float,
    high: float,
    centre: Tensor,
    width: float = PRIOR_WIDTH,
) -> Tensor:
    """Maximise each log-likelihood plus a wide normal log-prior over its parameter in [low, high].

    The search is a grid of points 2 apart, three halvings of that distance around the best point,
    and a parabola.

    Args:
        log_likelihood: maps parameters, shaped as `centre`, to log-likelihoods in nats of the same
            shape.
        low, high: bounds of the parameters.
        centre: mean of the prior.
        width: its standard deviation.

    >>> target = torch.tensor([-1.3, 2.0])
    >>> most_probable(lambda x: -1e4 * (x - target) ** 2, -6, 6, torch.zeros(2)).round(decimals=2)
    tensor([-1.3000,  2.0000])
    """

    def score(number: Tensor) -> Tensor:
        value = log_likelihood(number) - 0.5 * ((number - centre) / width) ** 2
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
    """Learn one dispersion of a negative binomial for each cell of counts, the same for all data or
    for all data of a category of the conditions."""

    # whether dispersions are parameters, not predicted by the decoder or absent
    dispersed: bool = False
    # the coded columns of the conditions that they depend on, and where their features are
    categories: tuple[tuple[Column, slice], ...] = ()
    by_category: nn.Parameter
    coded: Tensor

    @abstractmethod
    def counted(self, log_mean: Tensor, log_inverse: Tensor) -> Cells:
        """Return the density of counts before the first step."""

    def disperse(self, shape: tuple[int, ...], version: Version) -> None:
        """Register the parameter. At version 1 it starts at 0 and is learned like a weight."""
        self.dispersed, self.inverse_pace = True, PACES[version]
        self.log_inverse = nn.Parameter(torch.zeros(shape))

    def disperse_by(self, given: Space | None) -> None:
        """Register the parameters W for the categories of the conditions.

        Raises:
            ValueError: no condition has categories.
        """
        columns: list[tuple[Column, slice]] = []
        start = 0
        for column in () if given is None else given.columns:
            columns.append((column, slice(start, start + column.features)))
            start += column.features
        self.categories = tuple(c for c in columns if c[0].coded and not c[0].ordered)
        if given is None or not self.categories:
            names = ", ".join(c.name for c, _ in columns) or "none"
            raise ValueError(
                f"expected a condition with categories for dispersion=condition (--condition "
                f"COLUMN, such as the batch); got {names}"
            )
        size = given.feature_shape[0]
        self.by_category = nn.Parameter(torch.zeros(*self.log_inverse.shape, size))
        coded = torch.zeros(size, dtype=torch.bool)
        for _, place in self.categories:
            coded[place] = True
        self.register_buffer("coded", coded, persistent=False)

    def inverses(self, given: Tensor | None = None) -> Tensor:
        """Return the logarithms of the inverse dispersions, within INVERSE_LIMIT: shaped as one
        datum, or (B, *X) if they depend on the conditions (B, C)."""
        return soft_limit(self._numbers(given), INVERSE_LIMIT)

    def _numbers(self, given: Tensor | None) -> Tensor:
        numbers = paced(self.log_inverse, self.inverse_pace)
        if not self.categories:
            return numbers
        if given is None:
            raise ValueError("expected conditions for dispersion=condition; got none")
        codes = torch.where(self.coded, given.to(numbers.dtype), 0.0)
        by_category = paced(self.by_category, self.inverse_pace).flatten(0, -2)
        return numbers + (codes @ by_category.T).unflatten(-1, numbers.shape)

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
    def begin_dispersion(
        self, x: Tensor, observed: Tensor | None, log_size: Tensor, given: Tensor | None = None
    ) -> None:
        """Initialise dispersions by a fit to training data, with each cell's mean proportional to a
        size.

        The fit is by maximum likelihood. A fit by moments is sensitive to outliers: one count of
        400 among 1,000 counts with mean 15 and inverse dispersion 5 lowers the estimate to 1.3.

        Args:
            x: counts, (B, *X).
            observed: mask of the observed counts, (B, *X); None for all.
            log_size: logarithm of each datum's library, or 0; it broadcasts to (B, *X).
            given: conditions, (B, C); None without.
        """
        mask = torch.ones_like(x, dtype=torch.bool) if observed is None else observed
        x = torch.where(mask, x, 0.0).to(self.log_inverse.dtype)
        log_size = log_size.expand(len(x), *[1] * (x.ndim - 1))
        score = self._scored(x, mask, log_size)
        zeros = torch.zeros_like(self.log_inverse)
        start = most_probable(score, -START_LIMIT, START_LIMIT, zeros)
        self.log_inverse.copy_(unlimited(start, INVERSE_LIMIT) / self.inverse_pace)
        if given is not None:
            for column, place in self.categories:
                self._begin_categories(x, mask, log_size, given, column, place)

    def _scored(self, x: Tensor, mask: Tensor, log_size: Tensor) -> Callable[[Tensor], Tensor]:
        """Return a function from log inverse dispersions to the log-likelihood of each cell, (*X),
        at its mean relative to the size."""
        size = torch.where(mask, log_size.exp(), 0.0).sum(0)
        log_mean = torch.log((x.sum(0) / size.clamp_min(1e-30)).clamp_min(1e-12)) + log_size
        return lambda log_inverse: torch.where(
            mask, self.counted(log_mean, log_inverse).cells(x), 0.0
        ).sum(0)

    def _begin_categories(
        self, x: Tensor, mask: Tensor, log_size: Tensor, given: Tensor, column: Column, place: slice
    ) -> None:
        """Initialise the dispersions of the categories of a column, given those of the columns
        before it and the mean of each category."""
        codes = torch.arange(len(column.values), device=x.device).unsqueeze(1).to(given.dtype)
        features = column.encoded([column], codes, None)
        which = torch.cdist(given[:, place], features).argmin(1)
        numbers = self._numbers(given)
        changes = []
        for code in range(len(features)):
            rows = which == code
            score, before = self._scored(x[rows], mask[rows], log_size[rows]), numbers[rows]

            def changed(
                change: Tensor, score: Callable[[Tensor], Tensor] = score, before: Tensor = before
            ) -> Tensor:
                return score(soft_limit(before + change, INVERSE_LIMIT))

            zeros = torch.zeros_like(self.log_inverse)
            limits = (-CATEGORY_LIMIT, CATEGORY_LIMIT)
            changes.append(
                most_probable(changed, *limits, zeros, CATEGORY_WIDTH) if rows.any() else zeros
            )
        design = torch.cat([torch.ones_like(codes), features], 1).to(x.dtype)
        solved = torch.linalg.pinv(design) @ torch.stack(changes).flatten(1)
        solved = solved.unflatten(1, self.log_inverse.shape) / self.inverse_pace
        self.log_inverse.add_(solved[0])
        self.by_category[..., place] = solved[1:].movedim(0, -1)
