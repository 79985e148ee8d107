"""Texts as rows of tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np

from vaestro.frames import Frame
from vaestro.spaces.base import Space
from vaestro.spaces.kinds import Kind
from vaestro.spaces.layouts import LAYOUTS, Layout
from vaestro.tokens import Ragged, Texts

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@final
@dataclass(frozen=True, eq=False)
class TokensSpace(Space):
    """Describe texts: at most `shape[0]` tokens each.

    A row of exactly that many tokens represents every text that begins so; longer rows are refused.

    >>> from vaestro.tokens import Tokeniser, Texts
    >>> ab = Tokeniser("characters", ("a", "b"))
    >>> TokensSpace((4,), (), "str", levels=4, tokeniser=ab).feature_shape
    (4, 4)
    """

    layout: Layout = LAYOUTS["text"]

    kind = Kind.TOKENS
    counting = True
    ragged = True
    has_mean = False
    accepted = "texts"
    likelihood = "autoregressive"

    def __str__(self) -> str:
        return f"texts of at most {self.shape[0]:,} of {self.tokeniser}"

    @property
    def decoded(self) -> int:
        return self.cells * min(self.levels, 512)  # only tokens that exist have logits

    @property
    def feature_shape(self) -> tuple[int, ...]:
        return (*self.shape, self.levels + int(self.missing))

    def features(self, x: Tensor, observed: Tensor | None, dtype: torch.dtype) -> Tensor:
        import torch.nn.functional as F

        return F.one_hot(F.pad(x.long(), (0, self.cells - x.shape[1])), self.levels).to(dtype)

    def seen(self, values: object) -> None:
        return None

    def inward(self, values: object) -> Ragged:
        assert self.tokeniser is not None
        if not isinstance(values, Texts):
            raise ValueError(
                f"expected {self}; got {'a table' if isinstance(values, Frame) else 'numbers'}"
            )
        rows = self.tokeniser.cut(values, self.shape[0])
        sizes = np.diff(rows.starts)
        if sizes.max(initial=0) > self.shape[0]:
            raise ValueError(
                f"expected texts of at most {self.shape[0]:,} tokens "
                f"(SOURCE:length={self.shape[0]} truncates longer ones); got one of "
                f"{sizes.max():,} in row {sizes.argmax() + 1:,}"
            )
        return rows

    def outward(self, x: np.ndarray, *, exact: bool = True) -> Texts:
        assert self.tokeniser is not None
        return self.tokeniser.decode(np.asarray(x))

    @classmethod
    def _stored_layout(cls, shape: tuple[int, ...]) -> Layout:
        return LAYOUTS["text"]
