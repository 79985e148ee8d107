"""What a model computes for each row: bounds, shares of units and cells, residuals and codes.

The residual of a cell is the difference between its value and its prediction at the code, on the
scale of `DataDensity.residual`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vaestro.data import Rows
from vaestro.densities import DataDensity
from vaestro.evaluation.bounds import chunks
from vaestro.latent.codes import settled
from vaestro.models import Draws, Model, with_latent
from vaestro.randomness import torch_generator
from vaestro.spaces import Batch


@final
@dataclass(frozen=True, eq=False)
class Pieces:
    """Hold the bound of B rows and its parts, in nats.

    Args:
        iwae, elbo: lower bounds on log p(x); both are log p(x) without a latent, (B,).
        iwae_error, elbo_error: their Monte Carlo standard errors, (B,); NaN for one draw.
        rate, distortion: KL(q || p) and -E[log p(x | z)], (B,).
        rates: the rate of each unit, (B, U).
        cells: the share of each cell in the distortion, (B, *X), 0 for missing cells; None if the
            likelihood has no such shares.

    >>> Pieces(*[np.zeros(2)] * 6, np.zeros((2, 1)), None).rate
    array([0., 0.])
    """

    iwae: np.ndarray
    iwae_error: np.ndarray
    elbo: np.ndarray
    elbo_error: np.ndarray
    rate: np.ndarray
    distortion: np.ndarray
    rates: np.ndarray
    cells: np.ndarray | None


@final
class View:
    """Compute what a model sees in a batch of B rows, when it is first needed.

    Args:
        model: a trained model.
        batch: the rows.
        k: draws of z for each row.
        path: seed and place of the draws.

    >>> import vaestro as vs
    >>> rows = vs.load(np.random.default_rng(0).normal(size=(100, 3))).test
    >>> view = View(vs.build(rows.space, latent=2), rows.batch(slice(0, 4)))
    >>> view.residual.shape, view.code.shape, view.pieces.cells.shape
    ((4, 3), (4, 2), (4, 3))
    """

    def __init__(
        self, model: Model, batch: Batch, k: int = 20, path: tuple[int, int] = (0, 0)
    ) -> None:
        self.model, self.batch, self.k, self.path = model, batch, k, path

    def __len__(self) -> int:
        return len(self.batch)

    @cached_property
    def observed(self) -> np.ndarray:
        """Return the number of observed cells of each row, or of the tokens of a text, (B,)."""
        x, seen = self.batch.x, self.batch.observed
        if self.model.space.ragged:
            return np.asarray(((x != 0).sum(1) + 1).clamp(max=self.model.space.cells).cpu().numpy())
        if seen is None:
            return np.full(len(self), self.model.space.cells)
        return np.asarray(seen.flatten(1).sum(1).cpu().numpy())

    @cached_property
    def code(self) -> np.ndarray | None:
        """Return the mean of q(z | x), (B, U); None without a latent."""
        mean = self._mean
        return None if mean is None else mean.flatten(1).double().cpu().numpy()

    @cached_property
    @torch.inference_mode()
    def _mean(self) -> Tensor | None:
        if self.model.capabilities.exact:
            return None
        return with_latent(self.model).code(self.batch).mean

    @cached_property
    @torch.inference_mode()
    def residual(self) -> np.ndarray | None:
        """Return the residual of each cell, (B, D), 0 for missing cells; None if the likelihood
        has none."""
        model, batch = self.model, self.batch
        noise = torch.zeros_like(model.noise(1, len(batch)))  # the centres of the cells of a grid
        if self._mean is not None:
            z = torch.from_numpy(settled(model, self._mean.cpu().numpy())).to(self._mean)
            px = with_latent(model).decode(z, batch.given)
        else:
            px = model.draw(batch, 1, noise=noise).px
        if not isinstance(px, DataDensity):
            return None
        found = px.residual(model.spread(batch.x, noise))
        if found is None:
            return None
        found = found.expand(1, len(batch), *found.shape[2:])[0]
        if batch.observed is not None:
            found = torch.where(batch.observed, found, 0.0)
        return np.asarray(found.flatten(1).double().cpu().numpy())

    @cached_property
    @torch.inference_mode()
    def pieces(self) -> Pieces:
        """Return the bound of each row and its parts."""
        size = chunks(self.model.space, self.k)[1]
        sums = [
            self._of_draws(first, min(size, self.k - first)) for first in range(0, self.k, size)
        ]
        log_w = torch.cat([part[0] for part in sums]).double()
        weights = [len(part[0]) / self.k for part in sums]

        def mean(parts: list[Tensor]) -> np.ndarray:
            weighted = [w * part.double() for w, part in zip(weights, parts, strict=True)]
            return np.asarray(torch.stack(weighted).sum(0).cpu().numpy())

        k = len(log_w)
        iwae = torch.logsumexp(log_w, 0) - math.log(k)
        relative = (log_w - iwae).exp()
        few = torch.full_like(iwae, math.nan)
        errors = [x.std(0) / math.sqrt(k) if k > 1 else few for x in (relative, log_w)]
        rate, distortion = mean([part[1] for part in sums]), mean([part[2] for part in sums])
        if self.model.capabilities.exact and self.model.jitter is None:
            errors = [torch.zeros_like(iwae)] * 2
        shares = [part[4] for part in sums if part[4] is not None]
        return Pieces(
            iwae=iwae.cpu().numpy(),
            iwae_error=errors[0].cpu().numpy(),
            elbo=-(rate + distortion),
            elbo_error=errors[1].cpu().numpy(),
            rate=rate,
            distortion=distortion,
            rates=mean([part[3] for part in sums]),
            cells=mean(shares) if len(shares) == len(sums) else None,
        )

    def _of_draws(self, first: int, n: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
        """Return log weights (n, B), the means of rate and distortion (B,), rates of units (B, U)
        and shares of cells (B, *X), of n draws."""
        model, batch, (seed, place) = self.model, self.batch, self.path
        generator = torch_generator(batch.x.device, seed, "score", place, first)
        noise = model.noise(n, len(batch), generator)
        draws = model.draw(batch, n, noise=noise)
        rates = draws.rate.flatten(2).mean(0)
        return (
            draws.log_w,
            draws.total_rate,
            draws.distortion,
            rates if model.units != (0,) else rates[:, :0],
            self._cells(draws, model.spread(batch.x, noise)),
        )

    def _cells(self, draws: Draws, x: Tensor) -> Tensor | None:
        if not isinstance(draws.px, DataDensity):
            return None
        shares = draws.px.by_cell(x, self.batch.observed)
        if shares is None:
            return None
        if self.model.space.ragged:
            return -F.pad(shares.mean(0), (0, self.model.space.cells - shares.shape[-1]))
        log_dets = self.model.space.log_dets()
        if log_dets is not None:
            added = torch.from_numpy(log_dets.copy()).to(shares)
            shares = shares + (
                added if self.batch.observed is None else added * self.batch.observed
            )
        return -shares.mean(0)


def views(
    model: Model, rows: Rows, *, k: int = 20, seed: int = 0, size: int | None = None
) -> Iterator[View]:
    """Yield what a model sees in rows, a chunk at a time.

    Args:
        model: a trained model.
        rows: the data.
        k: draws of z for each row.
        seed: of the draws.
        size: rows of a chunk.

    Raises:
        ValueError: k is below 1.

    >>> import vaestro as vs
    >>> rows = vs.load(np.random.default_rng(0).normal(size=(100, 3))).train
    >>> sum(len(view) for view in views(vs.build(rows.space, latent=2), rows))
    90
    """
    if k < 1:
        raise ValueError(f"expected k of 1 or more draws; got {k}")
    device = next(model.parameters()).device
    size = size or max(1, min(model.space.chunk, 4096 // min(k, chunks(model.space, k)[1])))
    for i, batch in enumerate(rows.fixed().chunks(size, device)):
        yield View(model, batch, k, (seed, i))
