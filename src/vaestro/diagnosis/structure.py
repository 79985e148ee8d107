"""Do the cells of the data depend on each other? The largest eigenvalue of their correlations."""

from __future__ import annotations

import math

import numpy as np
import torch

from vaestro.data import Rows
from vaestro.randomness import numpy_generator

CELLS, CELL_ROWS = 256, 4000  # maximum number of cells, and of rows


def correlation_structure(rows: Rows, seed: int) -> tuple[float | None, float | None]:
    """Compare the largest eigenvalue of the correlations between cells with that of independent
    cells.

    Args:
        rows: training rows.
        seed: seed of the permutations.

    Returns:
        (ratio, visible). The ratio is the largest eigenvalue, divided by that after each cell was
        permuted on its own. `visible` is the smallest eigenvalue of the population that n rows of p
        cells can show, 1 + sqrt(p / n) (Baik, Ben Arous and Peche 2005). (None, None) for text
        data, missing cells, fewer than 50 rows, or fewer than two cells that vary.

    >>> import vaestro as vs
    >>> x = np.random.default_rng(0).normal(size=(200, 1)) + np.zeros(3)
    >>> ratio, visible = correlation_structure(vs.load(x).train, 0)
    >>> ratio > 2, round(visible, 2)
    (True, 1.13)
    """
    rows = rows.spread(CELL_ROWS)
    if len(rows) < 50 or rows.observed is not None or rows.space.tokeniser is not None:
        return None, None
    batch = rows.batch(slice(0, len(rows)))
    x = rows.space.features(batch.x, None, torch.float32).flatten(1).numpy().astype(np.float64)
    if rows.space.columns:
        single = len(rows.space.columns) - sum(c.one_hot for c in rows.space.columns)
        x = x[:, :single]  # one-hot codes of one column depend on each other
    if x.shape[1]:
        x = x[:, np.linspace(0, x.shape[1] - 1, min(CELLS, x.shape[1])).astype(int)]
    x = x[:, x.std(0) > 0]
    if x.shape[1] < 2:
        return None, None

    def largest(x: np.ndarray) -> float:
        return float(np.linalg.eigvalsh(np.corrcoef(x.T))[-1])

    rng = numpy_generator(seed, "structure")
    independent = max(largest(rng.permuted(x, axis=0)) for _ in range(3))
    return largest(x) / independent, 1 + math.sqrt(x.shape[1] / len(x))
