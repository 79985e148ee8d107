"""The likelihood of binary data.

log p(x | z) = sum_d x_d l_d - log(1 + exp(l_d)),          l = decoder(z)
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
class Bernoulli(Likelihood):
    """Represent binary data by one logit for each cell.

    Grey values are refused: a Bernoulli likelihood of values between 0 and 1 is not normalised, and
    its "bounds" are not bounds on anything (Loaiza-Ganem and Cunningham 2019).

    >>> import torch.nn as nn
    >>> from vaestro.spaces import BinarySpace
    >>> likelihood = Bernoulli(BinarySpace((3,), (3,)), nn.Linear(2, 3))
    >>> likelihood(torch.zeros(1, 5, 2)).mean.shape
    torch.Size([1, 5, 3])
    """

    accepts = frozenset({Kind.BINARY})
    advice = (
        "; binarise the data (such as mnist:binarise=dynamic), or use a likelihood for this "
        "kind (vaestro parts likelihood)"
    )

    @classmethod
    def start(cls, space: Space) -> Tensor:
        if space.marginal is None:
            return torch.zeros(())
        return torch.logit(torch.from_numpy(np.clip(space.marginal, 1e-3, 1 - 1e-3)))

    def forward(self, z: Tensor, given: Tensor | None = None) -> densities.Bernoulli:
        return densities.Bernoulli(self.decode(z, given), self.dims)
