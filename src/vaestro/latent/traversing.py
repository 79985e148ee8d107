"""Traversals: codes in which one unit at a time takes several values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from vaestro.models import Model


@final
@dataclass(frozen=True, eq=False)
class Traversal:
    """Hold the codes of a traversal.

    Args:
        unit: its number: of a unit of a vector, of a channel of a grid, or of a one-hot group.
        values: what it takes: values of the unit, offsets of the channel, or categories, (S,).
        codes: (S, *Z).

    >>> Traversal(3, np.array([-1.0, 1.0]), np.zeros((2, 4))).labels
    ['-1', '1']
    """

    unit: int
    values: np.ndarray
    codes: np.ndarray

    @property
    def labels(self) -> list[str]:
        """Return the values in words."""
        return [f"{value:.3g}" for value in self.values.tolist()]


def traverse(
    model: Model,
    start: np.ndarray,
    codes: np.ndarray,
    units: Sequence[int],
    *,
    reach: float = 3.0,
    steps: int = 9,
) -> list[Traversal]:
    """Move one unit of a code at a time.

    A real unit of a vector takes values from its mean - reach * std to its mean + reach * std, with
    the moments of the codes of many data (the aggregate posterior). A channel of a grid is moved at
    all places by -reach * std to reach * std. A discrete unit takes each of its values.

    Args:
        model: the model.
        start: the code that is moved, (*Z).
        codes: of many data, (N, *Z).
        units: numbers of units; of channels for a grid; of groups for one-hot latents.
        reach: in standard deviations.
        steps: number of values of a real unit.

    Raises:
        ValueError: there is no such unit, or reach or steps are out of range.

    >>> import numpy as np, vaestro as vs
    >>> model = vs.build(vs.load(np.random.default_rng(0).normal(size=(100, 3))).space, latent=2)
    >>> codes = np.array([[0.0, 1.0], [2.0, 1.0]])
    >>> traverse(model, np.zeros(2), codes, [0], reach=1, steps=3)[0].codes.tolist()
    [[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]]
    """
    if not 0 < reach < math.inf or steps < 2:
        raise ValueError(f"expected a range above 0 and 2 or more steps; got {reach} and {steps}")
    count = countable(model)
    for unit in units:
        if not 0 <= unit < count:
            raise ValueError(f"expected units from 0 to {count - 1:,}; got {unit}")
    moved = []
    for unit in units:
        if model.alphabet > 1:
            values = np.arange(model.alphabet, dtype=np.float64)
        elif model.alphabet:
            values = np.array([0.0, 1.0])
        else:
            own = codes[:, unit].astype(np.float64)
            middle = own.mean() if len(model.units) == 1 else 0.0
            values = middle + np.linspace(-reach, reach, steps) * own.std()
        z = np.repeat(np.asarray(start, np.float32)[None], len(values), 0)
        if model.alphabet > 1:
            group = slice(unit * model.alphabet, (unit + 1) * model.alphabet)
            hot = np.eye(model.alphabet, dtype=np.float32)
            z[:, group] = hot.reshape(*hot.shape, *[1] * (z.ndim - 2))
        elif len(model.units) == 1:
            z[:, unit] = values
        else:
            z[:, unit] += values.reshape(-1, *[1] * (z.ndim - 2)).astype(np.float32)
        moved.append(Traversal(unit, values, z))
    return moved


def countable(model: Model) -> int:
    """Return the number of units that can be traversed: units of a vector, channels of a grid, or
    groups of one-hot latents.

    >>> import numpy as np, vaestro as vs
    >>> countable(vs.build(vs.load(np.random.default_rng(0).normal(size=(100, 3))).space, latent=2))
    2
    """
    return model.units[0] // max(1, model.alphabet)


def by_rate(rates: np.ndarray, model: Model) -> list[int]:
    """Return the numbers of what can be traversed, those with the largest rate first.

    Args:
        rates: the rate of each unit, or its variance if there is none, (*Z).
        model: the model.

    >>> import numpy as np, vaestro as vs
    >>> model = vs.build(vs.load(np.random.default_rng(0).normal(size=(100, 3))).space, latent=2)
    >>> by_rate(np.array([0.1, 2.0]), model)
    [1, 0]
    """
    each = rates.reshape(countable(model), -1).sum(1)
    return [int(unit) for unit in np.argsort(-each, kind="stable")]
