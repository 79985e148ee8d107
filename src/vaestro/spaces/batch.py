"""A batch: values, a mask of the observed cells, and conditions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from torch import Tensor


@final
@dataclass(frozen=True, eq=False)
class Batch:
    """Hold some data: values, which of them are observed, and conditions.

    Args:
        x: codes or values, (B, *X); of tokens (B, t), where t is the longest row's size.
        observed: True where a cell was observed, (B, *X); None if all were.
        given: conditions as a network receives them, (B, G); None without conditions.
        widths: if several steps were gathered at once, the size of each step's longest row, for
            rows of different sizes.
        checked: whether the values are known to be data of the space, as those of `Rows` are;
            others are checked when a model draws for them.

    >>> import torch
    >>> len(Batch(torch.zeros(3, 2)))
    3
    """

    x: Tensor
    observed: Tensor | None = None
    given: Tensor | None = None
    widths: tuple[int, ...] | None = None
    checked: bool = False

    def __len__(self) -> int:
        return len(self.x)

    def tensors(self) -> list[Tensor]:
        """Return the tensors that are not None, as `of_tensors` takes them."""
        return [t for t in (self.x, self.observed, self.given) if t is not None]

    def of_tensors(self, tensors: Sequence[Tensor]) -> tuple[Batch, Sequence[Tensor]]:
        """Return a batch with the same parts made of the first of these tensors, and the remaining
        tensors."""
        observed, given = self.observed is not None, self.given is not None
        left = 1 + observed + given
        return Batch(
            tensors[0],
            tensors[1] if observed else None,
            tensors[left - 1] if given else None,
            checked=self.checked,
        ), tensors[left:]

    def __getitem__(self, rows: Tensor | slice | int) -> Batch:
        """Return some rows, or one of several steps that were gathered at once."""
        observed, given = (None if t is None else t[rows] for t in (self.observed, self.given))
        x = self.x[rows]
        x = x if self.widths is None else x[:, : self.widths[rows]]
        return Batch(x, observed, given, checked=self.checked)
