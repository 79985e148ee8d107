"""Posteriors of many data as outputs of the encoder, from which latents are drawn anew."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from vaestro.data import Rows
from vaestro.models import LatentModel, Model, with_latent
from vaestro.randomness import torch_generator

DRAWS = 8  # for each datum, for the moments of a family without a closed-form variance
CHUNK = 1024


@final
@dataclass(frozen=True, eq=False)
class Posteriors:
    """Hold q(z | x) of N data as outputs of the encoder.

    A stored draw would be the same in every epoch, so fresh draws are made.

    Args:
        model: the model.
        features: outputs of its encoder, (N, ...), on the CPU.
        given: conditions of the data as a network's input, (N, C); None without.

    >>> import numpy as np, vaestro as vs
    >>> rows = vs.load(np.random.default_rng(0).normal(size=(100, 3))).train
    >>> model = vs.build(rows.space, latent=2)
    >>> for share, posteriors in encoding(model, rows):
    ...     pass
    >>> posteriors.draw(torch.arange(5), torch.Generator().manual_seed(0)).shape
    torch.Size([5, 2])
    """

    model: LatentModel
    features: Tensor
    given: Tensor | None

    def __len__(self) -> int:
        return len(self.features)

    @torch.no_grad()
    def draw(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Return one fresh draw from q(z | x) of some rows, (B, *Z), on the model's device."""
        device = next(self.model.parameters()).device
        noise, _ = self.model.parts(self.model.noise(1, len(rows), generator))
        return self.model.q(self.features[rows].to(device)).from_noise(noise)[0]

    @torch.no_grad()
    def moments(self, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of z over all data, each (C, 1, ..): of each unit of a
        vector, or of each channel of a grid.

        By the law of total variance, in one pass over all data. A family without a closed-form
        variance is drawn from.
        """
        device = next(self.model.parameters()).device
        total = square = torch.zeros((), dtype=torch.float64, device=device)
        count = 0
        for i in range(0, len(self), CHUNK):
            rows = torch.arange(i, min(i + CHUNK, len(self)))
            q = self.model.q(self.features[rows].to(device))
            if q.variance is not None:
                first, second = q.mean.double(), q.mean.double() ** 2 + q.variance.double()
            else:
                generator = torch_generator(device, seed, "moments", i)
                noise, _ = self.model.parts(self.model.noise(DRAWS, len(rows), generator))
                drawn = q.from_noise(noise).double().flatten(0, 1)
                first, second = drawn, drawn**2
            axes = [axis for axis in range(first.ndim) if axis != 1]
            total, square = total + first.sum(axes), square + second.sum(axes)
            count += first.numel() // first.shape[1]
        mean = total / count
        std = (square / count - mean**2).clamp(min=1e-12).sqrt()
        shape = (-1, *[1] * (len(self.model.units) - 1))
        return mean.float().reshape(shape), std.float().reshape(shape)


@torch.no_grad()
def encoding(model: Model, rows: Rows) -> Iterator[tuple[float, Posteriors | None]]:
    """Encode rows: yield (share that is done, None), and at the end (1, their posteriors).

    Args:
        model: a trained model with a latent.
        rows: data of its space.

    Raises:
        ValueError: the model has no latent, or q(z | x) is not determined by one output of the
            encoder.

    >>> import numpy as np, vaestro as vs
    >>> rows = vs.load(np.random.default_rng(0).normal(size=(100, 3))).train
    >>> [share for share, _ in encoding(vs.build(rows.space, latent=2), rows)]
    [1.0, 1.0]
    """
    latent = with_latent(model)
    if not latent.capabilities.q_from_features:
        raise ValueError(
            f"expected a model whose encoder determines q(z | x) in one pass; got "
            f"{type(model).__name__.lower()}"
        )
    device, size = next(latent.parameters()).device, latent.space.chunk
    features: Tensor | None = None
    given: Tensor | None = None
    done = 0
    for batch in rows.fixed().chunks(size, device):
        part = latent.features(batch).cpu()
        if features is None:
            features = part.new_empty((len(rows), *part.shape[1:]))
            if batch.given is not None:
                given = batch.given.new_empty((len(rows), batch.given.shape[1]), device="cpu")
        features[done : done + len(part)] = part
        if given is not None and batch.given is not None:
            given[done : done + len(part)] = batch.given.cpu()
        done += len(part)
        yield done / len(rows), None
    assert features is not None, "there are rows"
    yield 1.0, Posteriors(latent, features, given)
