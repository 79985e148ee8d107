r"""The exponential average of the weights, which is what validation scores and a run keeps.

With decay d for each step, after step t and n steps since the last time,

    average <- average + (1 - d_t^n) (weights - average)          d_t = min(d, t / (t + 10))

At first the average forgets faster, so that it does not remember the initial weights.
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

# steps between updates of the average: the same average, for an eighth of the memory traffic
AVERAGE_EVERY = 8
FIT_ROWS = 10_000


@final
class Average:
    """Hold the exponential average of a model's weights and running statistics.

    Args:
        model: what is trained.
        fixed: whether nothing of the likelihood may be fitted to data, because it is frozen.
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
        """Take the weights after step `index` in."""
        decay = min(self.decay, index / (index + 10)) ** (index - self.index)
        self.index = index
        get_ema_multi_avg_fn(decay)(self._averaged, self._trained, None)
        for average, latest in self._buffers():  # running statistics of normalisation layers
            if average.is_floating_point():
                average.lerp_(mean_over_ranks(latest), 1 - decay)
            else:
                average.copy_(latest)

    def _buffers(self) -> list[tuple[Tensor, Tensor]]:
        """Return each buffer of the average with the model's; data parallelism replaces tensors,
        so they are looked up anew."""
        return list(zip(self.model.buffers(), self.latest.buffers(), strict=True))

    def fit(self, rows: Rows, seed: int, device: torch.device) -> None:
        """Fit what a model derives from training data in closed form, and copy it into the trained
        model.

        Args:
            rows: training data, which are read only if there is something to fit.
            seed: of the noise.
            device: where the model is.
        """
        if self.fixed:
            return
        before = [average.clone() for average in self.model.buffers()]
        self.model.fit_to_data(self._pairs(rows, seed, device))
        with torch.no_grad():
            for was, (average, latest) in zip(before, self._buffers(), strict=True):
                if not torch.equal(was, average):
                    latest.copy_(average)

    def _pairs(self, rows: Rows, seed: int, device: torch.device) -> Iterator[tuple[Batch, Tensor]]:
        for i, batch in enumerate(rows.chunks(rows.space.chunk, device)):
            generator = torch_generator(device, seed, "fit", i)
            yield batch, self.model.noise(1, len(batch), generator)
