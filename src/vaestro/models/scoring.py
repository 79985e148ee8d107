"""Score data by a likelihood in the user's units, for every model that has one."""

from __future__ import annotations

from typing import final

import torch
import torch.nn as nn
from torch import Tensor

from vaestro.densities import DataDensity, Density, summed
from vaestro.likelihoods import Likelihood
from vaestro.randomness import torch_generator
from vaestro.spaces import Batch, Space

START_ROWS = 4096  # largest number of training rows for initialising a likelihood


@final
class Scoring(nn.Module):
    """Add the log-determinant of a space's transform to log p(x | z).

    Args:
        space: of the data.

    >>> from vaestro.densities import Bernoulli
    >>> from vaestro.spaces import BinarySpace
    >>> scoring = Scoring(BinarySpace((3,), (3,)))
    >>> scoring(Bernoulli(torch.zeros(1, 5, 3), 1), torch.ones(5, 3)).shape
    torch.Size([1, 5])
    """

    log_dets: Tensor | None

    def __init__(self, space: Space) -> None:
        super().__init__()
        log_dets = space.log_dets()
        if log_dets is None:
            self.log_dets = None
            return
        tensor = torch.from_numpy(log_dets.copy()).to(torch.get_default_dtype())
        self.register_buffer("log_dets", tensor, persistent=False)

    def forward(self, px: Density, x: Tensor, observed: Tensor | None = None) -> Tensor:
        """Return log p(x | z) in the user's units, (K, B), in nats.

        Args:
            px: p(x | z) at K latents for each of B data.
            x: values as the density scores them, (B, *X) or (K, B, *X).
            observed: which of them are observed, (B, *X); None for all.

        Raises:
            ValueError: cells are missing, and the density cannot be masked.
        """
        if isinstance(px, DataDensity):
            log_px = px.log_prob(x, observed)
        elif observed is None:
            log_px = px.log_prob(x)
        else:
            raise ValueError(
                f"expected complete data for {type(px).__name__}, which cannot be masked; got "
                f"missing cells"
            )
        if self.log_dets is None:
            return log_px
        return log_px + summed(
            self.log_dets.flatten() if observed is None else (self.log_dets * observed).flatten(1)
        )


def uniform_noise(
    shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """Draw dequantisation noise, uniform on (-1/2, 1/2).

    >>> uniform_noise((2, 3), torch.zeros(())).abs().max() <= 0.5
    tensor(True)
    """
    return torch.rand(shape, generator=generator, dtype=like.dtype, device=like.device) - 0.5


def rows_to_start(likelihood: Likelihood) -> int:
    """Return the number of training rows that `start_likelihood` uses; 0 if it uses none.

    >>> from vaestro.likelihoods import Bernoulli
    >>> from vaestro.spaces import BinarySpace
    >>> rows_to_start(Bernoulli(BinarySpace((3,), (3,)), nn.Linear(2, 3)))
    0
    """
    values = likelihood.start_values
    return min(START_ROWS, max(64, values // likelihood.space.cells)) if values else 0


def start_likelihood(likelihood: Likelihood, batch: Batch) -> None:
    """Set the scales and dispersions of a likelihood to where they fit training data.

    >>> from vaestro.likelihoods import Bernoulli
    >>> from vaestro.spaces import BinarySpace
    >>> likelihood = Bernoulli(BinarySpace((3,), (3,)), nn.Linear(2, 3))
    >>> start_likelihood(likelihood, Batch(torch.zeros(4, 3)))
    """
    if not likelihood.start_values:
        return
    x = batch.x
    if likelihood.jitter is not None:
        noise = uniform_noise(
            (1, len(x), *likelihood.jitter), x.float(), torch_generator(x.device, 0, "start")
        )
        x = likelihood.spread(x, noise)[0]
    likelihood.begin_at(x, batch.observed, batch.given)
