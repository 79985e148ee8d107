"""Paths between codes that are short in the space of the decoded data.

The decoder maps a path of codes to a path of data. Its length there is that of the pullback metric
of the decoder's mean (Arvanitidis, Hansen and Hauberg 2018; Shao, Kumar and Fletcher 2018).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

Means: TypeAlias = Callable[[Tensor], Tensor]  # codes (N, *Z) -> decoded means (N, ...)
ITERATIONS = 300


def geodesic(means: Means, line: Tensor, iterations: int = ITERATIONS) -> Tensor:
    """Return a path of the same ends whose decoded means are close to a shortest path, (S, *Z).

    The energy of the path, the sum of squared distances between successive means, is minimised by
    L-BFGS from the given path. Its minimum has the shortest length, and steps of equal length. A
    path that is not shorter than the given one is not returned.

    Args:
        means: the decoder.
        line: the path to start from, with its ends, (S, *Z).
        iterations: largest number of iterations.

    >>> line = torch.tensor([[0.0, 0.0], [0.2, 0.9], [1.0, 1.0]])
    >>> geodesic(lambda z: 3 * z, line).round(decimals=3).tolist()
    [[0.0, 0.0], [0.5, 0.5], [1.0, 1.0]]
    """
    inner = line[1:-1].detach().clone().requires_grad_(True)
    if not len(inner):
        return line
    optimizer = torch.optim.LBFGS(
        [inner], max_iter=iterations, line_search_fn="strong_wolfe", tolerance_change=1e-12
    )

    def whole() -> Tensor:
        return torch.cat([line[:1], inner, line[-1:]])

    def energy() -> Tensor:
        optimizer.zero_grad()
        value = _steps(means, whole()).square().sum()
        (inner.grad,) = torch.autograd.grad(value, [inner])
        return value

    with torch.enable_grad():
        optimizer.step(energy)
    path = whole().detach()
    return path if length(means, path) < length(means, line) else line


def length(means: Means, path: Tensor) -> float:
    """Return the length of the decoded path: the sum of Euclidean distances between successive
    means, inside units.

    >>> length(lambda z: 2 * z, torch.tensor([[0.0], [1.0], [3.0]]))
    6.0
    """
    with torch.no_grad():
        return float(_steps(means, path).sum())


def _steps(means: Means, path: Tensor) -> Tensor:
    """Return the distances between successive means, (S - 1,)."""
    decoded = means(path).flatten(1)
    return (decoded[1:] - decoded[:-1]).square().sum(1).clamp(min=1e-24).sqrt()
