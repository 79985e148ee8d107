"""The likelihood of values inside (0, 1).

log p(x | z) = sum_d l_d x_d + log(l_d / (exp(l_d) - 1)),          l = decoder(z)
"""

from __future__ import annotations

from typing import final

import numpy as np
import torch
from torch import Tensor

from vaestro import densities
from vaestro.likelihoods.base import Likelihood
from vaestro.spaces import Kind, Space


@final
class ContinuousBernoulli(Likelihood):
    """Represent values inside (0, 1) by a continuous Bernoulli on each cell, with its normalising
    constant (Loaiza-Ganem and Cunningham 2019). Data are read as such with SOURCE:kind=unit.

    >>> import torch.nn as nn
    >>> from vaestro.spaces import UnitSpace
    >>> likelihood = ContinuousBernoulli(UnitSpace((3,), (3,)), nn.Linear(2, 3))
    >>> likelihood(torch.zeros(1, 5, 2)).log_prob(torch.full((5, 3), 0.5)).shape
    torch.Size([1, 5])
    """

    accepts = frozenset({Kind.UNIT})
    advice = "; values inside (0, 1) are read as such with SOURCE:kind=unit"

    @classmethod
    def start(cls, space: Space) -> Tensor:
        if space.marginal is None:
            return torch.zeros(())
        target = torch.from_numpy(np.clip(space.marginal, 0.01, 0.99)).double()
        low, high = torch.full_like(target, -200.0), torch.full_like(target, 200.0)
        for _ in range(60):  # the mean rises with the logit but has no inverse in closed form
            middle = (low + high) / 2
            above = densities.ContinuousBernoulli(middle).mean > target
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        return low.float()

    def forward(self, z: Tensor, given: Tensor | None = None) -> densities.ContinuousBernoulli:
        return densities.ContinuousBernoulli(self.decode(z, given), self.dims)
