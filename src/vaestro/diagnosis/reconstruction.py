"""Measure whether the texts that a decoder reconstructs depend on the code."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from vaestro.data import Rows
from vaestro.densities import DataDensity
from vaestro.evaluation.records import mean_and_error
from vaestro.models import LatentModel

ROWS = 200  # texts that are reconstructed
ENOUGH = 30  # of them, from which something is said
ALIKE = 0.05  # share of a text's tokens: less than this is no use of a code
CERTAIN = 2.0  # standard errors


class Reconstruction(NamedTuple):
    """Hold how reconstructed texts compare with the data.

    Args:
        n: number of texts.
        distinct: number of distinct reconstructions, and `data` of distinct texts among the data.
        gain: share of tokens at which a text agrees with its own reconstruction, less that with
            another text's: (mean, standard error).
    """

    n: int
    distinct: int
    data: int
    gain: tuple[float, float]

    @property
    def empty(self) -> bool:
        """Tell whether the code changes less than ALIKE of the tokens for the better, with
        certainty."""
        return self.n >= ENOUGH and self.gain[0] + CERTAIN * self.gain[1] < ALIKE

    def sentence(self) -> str:
        """Say it."""
        mean, error = self.gain
        return (
            f"{self.n:,} different data have {self.distinct:,} different reconstructions, and a "
            f"text agrees with its own in {mean:.1%} +- "
            f"{error:.1%} more of its tokens than with another text's"
        )


@torch.inference_mode()
def reconstructed(model: LatentModel, rows: Rows) -> Reconstruction | None:
    """Reconstruct some texts by the most probable tokens at their codes; None for other data and
    for discrete latents."""
    if not model.space.ragged or model.alphabet or len(rows) < 2:
        return None
    rows = rows.spread(ROWS).fixed()
    device = next(model.parameters()).device
    data, made = [], []
    for batch in rows.chunks(model.space.chunk, device):
        density = model.decode(model.code(batch).mean, batch.given)
        if not isinstance(density, DataDensity):
            return None
        data.append(batch.x.cpu().numpy())
        made.append(density.point().cpu().numpy())
    x, back = np.concatenate(data), np.concatenate(made)
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
