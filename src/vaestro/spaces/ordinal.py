"""Columns of ordered categories: Likert scales, school grades, stages of a disease."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, final

from vaestro.spaces.columns import CodedColumn, Column, masked
from vaestro.spaces.kinds import Kind

if TYPE_CHECKING:
    from torch import Tensor


@final
class OrdinalColumn(CodedColumn):
    """Describe a column of ordered categories; `values` are in increasing order.

    An encoder receives the code, scaled to -1 .. 1.

    >>> import numpy as np
    >>> grade = OrdinalColumn("grade", "str", ("low", "mid", "high"))
    >>> grade.inward(np.ma.array(["high", "low"]))
    array([2., 0.], dtype=float32)
    """

    kind = Kind.ORDINAL
    ordered = True

    def encoded(self, run: Sequence[Column], x: Tensor, observed: Tensor | None) -> Tensor:
        highest = x.new_tensor([max(1, len(c.values) - 1) for c in run])
        return masked(x * (2 / highest) - 1, observed)

    def first_outputs(self) -> Tensor:
        import torch

        return torch.zeros(1)
