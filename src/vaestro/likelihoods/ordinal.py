"""The likelihood of ordinal columns by cumulative logits (McCullagh 1980).

The decoder predicts one number f(z) for a column of K ordered categories. With cuts c_0 < c_1 < ..
< c_{K-2}, learned and shared by all data,

    P(x <= j | z) = sigmoid(c_j - f(z))
    P(x = j | z) = sigmoid(c_j - f(z)) - sigmoid(c_{j-1} - f(z))

with c_{-1} = -inf and c_{K-1} = inf. A larger f(z) makes higher categories more probable. The cuts
start at the logits of the cumulative frequencies in the training split.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from vaestro import densities
from vaestro.spaces import Column

LEAST = 1e-4  # smallest initial frequency of a category


@final
class Cuts(nn.Module):
    """Compute the probabilities of an ordinal column from f(z).

    The cuts are a first cut and the logarithms of their differences, so that they stay ordered.

    Args:
        column: an ordinal column of at least two values.

    >>> from vaestro.spaces import OrdinalColumn
    >>> cuts = Cuts(OrdinalColumn("grade", "str", ("low", "mid", "high"), start=(0.2, 0.5, 0.3)))
    >>> [round(p, 3) for p in cuts(torch.zeros(1, 4, 1)).mean[0, 0, :, 0].tolist()]
    [0.2, 0.5, 0.3]
    """

    def __init__(self, column: Column) -> None:
        super().__init__()
        count = len(column.values)
        p = torch.tensor(column.start or [1 / count] * count, dtype=torch.float64).clamp_min(LEAST)
        cuts = torch.logit((p / p.sum()).cumsum(0)[:-1])
        dtype = torch.get_default_dtype()
        self.first = nn.Parameter(cuts[:1].to(dtype))
        self.log_steps = nn.Parameter(cuts.diff().log().to(dtype))

    def forward(self, location: Tensor) -> densities.Categorical:
        """Return the probabilities of the categories for f(z), (..., 1)."""
        steps = self.log_steps.exp()
        above = torch.cat([self.first, self.first + steps.cumsum(0)]) - location
        # log(sigmoid(b) - sigmoid(a)) = log sigmoid(b) + log sigmoid(-a) + log(1 - exp(a - b))
        inner = torch.log(-torch.expm1(-steps)).expand_as(above[..., 1:])
        nothing = torch.zeros_like(above[..., :1])
        log_p = (
            torch.cat([F.logsigmoid(above), nothing], -1)
            + torch.cat([nothing, F.logsigmoid(-above)], -1)
            + torch.cat([nothing, inner, nothing], -1)
        )
        return densities.Categorical(log_p.unsqueeze(-1), 1)


def cuts_of(columns: Sequence[Column]) -> nn.ModuleList:
    """Return the cuts of ordinal columns.

    >>> len(cuts_of([]))
    0
    """
    return nn.ModuleList(Cuts(column) for column in columns)
