"""Measure whether the texts that a decoder reconstructs depend on the code."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from vaestro.data import Rows
from vaestro.densities import DataDensity
from vaestro.evaluation.records import mean_and_error
from vaestro.models import LatentModel

ROWS = 200  # maximum number of texts that are reconstructed
ENOUGH = 30  # minimum number of texts for a statement
ALIKE = 0.05  # a code that changes a smaller share of the tokens of a text has no effect
CERTAIN = 2.0  # standard errors


class Reconstruction(NamedTuple):
    """A comparison of reconstructed texts with the data.

    Args:
        n: number of texts.
        distinct, data: number of distinct reconstructions, and of distinct texts.
        gain: share of tokens at which a text agrees with its own reconstruction, minus that with
            the reconstruction of another text: (mean, standard error).

    >>> Reconstruction(100, 1, 100, (0.0, 0.01)).empty
    True
    """

    n: int
    distinct: int
    data: int
    gain: tuple[float, float]

    @property
    def empty(self) -> bool:
        """Return whether the upper limit of the gain is below ALIKE."""
        return self.n >= ENOUGH and self.gain[0] + CERTAIN * self.gain[1] < ALIKE

    def sentence(self) -> str:
        """Return the comparison in words."""
        mean, error = self.gain
        return (
            f"{self.n:,} different data have {self.distinct:,} different reconstructions, and a "
            f"text agrees with its own in {mean:.1%} +- "
            f"{error:.1%} more of its tokens than with another text's"
        )


@torch.inference_mode()
def reconstructed(model: LatentModel, rows: Rows) -> Reconstruction | None:
    """Compare texts with their reconstructions, the most probable tokens given their codes.

    None for other data than text and for discrete latents.

    >>> import vaestro as vs
    >>> data = vs.load(["a cat", "a dog", "the cat", "the dog", "an owl"] * 8)
    >>> reconstructed(vs.build(data.space, latent=2), data.train).n
    5
    """
    if not model.space.ragged or model.alphabet or len(rows) < 2:
        return None
    rows = rows.spread(ROWS).fixed()
    device = next(model.parameters()).device
    data, points = [], []
    for batch in rows.chunks(model.space.chunk, device):
        density = model.decode(model.code(batch).mean, batch.given)
        if not isinstance(density, DataDensity):
            return None
        data.append(batch.x.cpu().numpy())
        points.append(density.point().cpu().numpy())
    x, back = np.concatenate(data), np.concatenate(points)
    _, first = np.unique(x, axis=0, return_index=True)  # equal texts have equal reconstructions
    x, back = x[first], back[first]
    if len(x) < 2:
        return None
    there = (x > 0) | (back > 0)

    def agreement(other: np.ndarray) -> np.ndarray:
        inside = there | (other > 0)
        return np.asarray(((x == other) & inside).sum(1) / np.maximum(inside.sum(1), 1))

    away = np.mean([agreement(np.roll(back, shift, 0)) for shift in range(1, min(len(x), 20))], 0)
    return Reconstruction(
        len(x), len(np.unique(back, axis=0)), len(x), mean_and_error(agreement(back) - away)
    )
