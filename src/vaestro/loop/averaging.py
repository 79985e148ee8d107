r"""The exponential average of the weights, which validation scores and a run keeps.

With decay d in a step, at step t, n steps after the last update,

    average <- average + (1 - d_t^n) (weights - average)          d_t = min(d, t / (t + 10))

The decay is smaller in the first steps, so that the initial weights do not affect the average for
long.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from vaestro.data import Rows
from vaestro.densities import mean_over_ranks
from vaestro.models import Model
from vaestro.randomness import torch_generator
from vaestro.spaces import Batch

AVERAGE_EVERY = 8  # steps between updates of the average, which saves memory traffic
FIT_ROWS = 10_000  # largest number of training rows that a closed form is fitted to


@final
class Average:
    """Hold the exponential average of the weights and running statistics of a model.

    Args:
        model: the model that is trained.
        fixed: whether the likelihood is frozen, so that nothing of it is fitted to data.

    >>> import vaestro as vs
    >>> model = vs.build(vs.load("digits").space, latent=2, network="mlp:width=8")
    >>> average = Average(model, fixed=False)
    >>> average.update(8)
    >>> average.index
    8
    """

    def __init__(self, model: Model, fixed: bool) -> None:
        self.latest, self.fixed = model, fixed
        self.model: Model = copy.deepcopy(model).eval().requires_grad_(False)
        averaged = dict(self.model.named_parameters())
        trained = [(averaged[n], p) for n, p in model.named_parameters() if p.requires_grad]
        self._averaged: list[Tensor] = [a for a, _ in trained]
        self._trained: list[Tensor] = [p for _, p in trained]
        self.index = 0  # the step of the last update
        self.decay = 0.999

    @torch.no_grad()
    def update(self, index: int) -> None:
        """Update the average with the weights after step `index`."""
        decay = min(self.decay, index / (index + 10)) ** (index - self.index)
        self.index = index
        get_ema_multi_avg_fn(decay)(self._averaged, self._trained, None)
        for average, latest in self._buffers():  # running statistics of normalisation layers
            if average.is_floating_point():
                average.lerp_(mean_over_ranks(latest), 1 - decay)
            else:
                average.copy_(latest)

    def _buffers(self) -> list[tuple[Tensor, Tensor]]:
        """Return pairs of buffers, of the average and of the model. They are looked up at each
        call, because data parallelism replaces tensors."""
        return list(zip(self.model.buffers(), self.latest.buffers(), strict=True))

    def fit(self, rows: Rows, seed: int, device: torch.device) -> None:
        """Fit the parameters that have a closed form on training data, and copy them to the trained
        model.

        Args:
            rows: training data, which are read only if there is something to fit.
            seed: seed of the noise.
            device: device of the model.
        """
        if self.fixed:
            return
        before = [average.clone() for average in self.model.buffers()]
        self.model.fit_to_data(self._pairs(rows, seed, device))
        with torch.no_grad():
            for old, (average, latest) in zip(before, self._buffers(), strict=True):
                if not torch.equal(old, average):
                    latest.copy_(average)

    def _pairs(self, rows: Rows, seed: int, device: torch.device) -> Iterator[tuple[Batch, Tensor]]:
        for i, batch in enumerate(rows.chunks(rows.space.chunk, device)):
            generator = torch_generator(device, seed, "fit", i)
            yield batch, self.model.noise(1, len(batch), generator)
