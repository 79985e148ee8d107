"""Transformers for text and series data (Vaswani et al. 2017).

attention = softmax(Q K^T / sqrt(width / heads)) V          in each head
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast, final

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from vaestro.densities.tokens import State
from vaestro.sequences.base import SequenceDecoder, SequenceEncoder, check_options, reads_sequence


class _Attention(nn.Module):
    """Pre-norm transformer block: self-attention and a two-layer MLP, both residual."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.project, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, each (N, heads, t, width / heads)."""
        q, k, v = self.project(self.norm(x)).unflatten(-1, (3, self.heads, -1)).unbind(2)
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)

    def join(self, x: Tensor, attended: Tensor) -> Tensor:
        """Add the attention output, (N, heads, t, width / heads), and the output of the MLP."""
        x = x + self.dropout(self.out(attended.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.down(F.gelu(self.up(self.norm2(x)))))


def _blocks(width: int, layers: int, heads: int, dropout: float) -> Sequence[_Attention]:
    """Return a ModuleList of blocks, typed by its elements.

    Raises:
        ValueError: the width is not a multiple of the number of heads.
    """
    if width % heads:
        raise ValueError(f"expected a width that is a multiple of heads={heads}; got width={width}")
    blocks = nn.ModuleList([_Attention(width, heads, dropout) for _ in range(layers)])
    return cast("Sequence[_Attention]", blocks)


@final
class TransformerEncoder(SequenceEncoder):
    """Encode a sequence by bidirectional self-attention and a mean over the positions of each row.

    >>> TransformerEncoder((4, 5), (3,), 0, width=8, layers=1, heads=2, dropout=0.0)(
    ...     torch.ones(2, 4, dtype=torch.long)
    ... ).shape
    torch.Size([2, 3])
    """

    def __init__(
        self,
        inputs: tuple[int, ...],
        outputs: tuple[int, ...],
        given: int,
        *,
        width: int,
        layers: int,
        heads: int,
        dropout: float,
    ) -> None:
        super().__init__(inputs, outputs, given, width, width)
        self.places = nn.Parameter(0.02 * torch.randn(inputs[0], width))
        self.blocks, self.norm = _blocks(width, layers, heads, dropout), nn.LayerNorm(width)
        nn.init.normal_(self.embedding.weight, std=0.02)

    def read(self, embedded: Tensor, mask: Tensor) -> Tensor:
        x = embedded + self.places[: embedded.shape[1]]
        for block in self.blocks:
            q, k, v = block.split(x)
            x = block.join(x, F.scaled_dot_product_attention(q, k, v, mask[:, None, None]))
        x = torch.where(mask.unsqueeze(-1), self.norm(x), 0.0)
        return x.sum(1) / mask.sum(1, keepdim=True)


@final
class TransformerDecoder(SequenceDecoder):
    """Predict tokens by causal self-attention; the latent is added to every position.

    >>> TransformerDecoder((3,), (4, 5), 0, width=8, layers=1, heads=2, dropout=0.0)(
    ...     torch.zeros(2, 3)
    ... ).shape
    torch.Size([2, 4, 5])
    """

    def __init__(
        self,
        inputs: tuple[int, ...],
        outputs: tuple[int, ...],
        given: int,
        *,
        width: int,
        layers: int,
        heads: int,
        dropout: float,
    ) -> None:
        super().__init__(inputs, outputs, given, width, width)
        self.beside = nn.Linear(self.sources, width)
        self.places = nn.Parameter(0.02 * torch.randn(self.length, width))
        self.blocks, self.norm = _blocks(width, layers, heads, dropout), nn.LayerNorm(width)
        nn.init.normal_(self.embedding.weight, std=0.02)

    def states(self, source: Tensor, previous: Tensor) -> Tensor:
        x = (
            self.embedding(previous)
            + self.places[: previous.shape[1]]
            + self.beside(source).unsqueeze(1)
        )
        for block in self.blocks:
            q, k, v = block.split(x)
            x = block.join(x, F.scaled_dot_product_attention(q, k, v, is_causal=True))
        return self.norm(x)

    def begin(self, source: Tensor) -> State:
        condition = self.beside(source)
        empty = condition.new_zeros(
            len(source),
            len(self.blocks),
            2,
            self.blocks[0].heads,
            0,
            condition.shape[1] // self.blocks[0].heads,
        )
        return (empty, condition)

    def advance(self, state: State, previous: Tensor) -> tuple[Tensor, State]:
        cache, condition = state
        x = (self.embedding(previous) + self.places[cache.shape[4]] + condition).unsqueeze(1)
        pairs = []
        for i, block in enumerate(self.blocks):
            q, k, v = block.split(x)
            k, v = torch.cat([cache[:, i, 0], k], 2), torch.cat([cache[:, i, 1], v], 2)
            pairs.append(torch.stack([k, v], 1))
            x = block.join(x, F.scaled_dot_product_attention(q, k, v))
        return self.norm(x)[:, 0], (torch.stack(pairs, 1), condition)


def transformer(
    inputs: tuple[int, ...],
    outputs: tuple[int, ...],
    given: int = 0,
    *,
    width: int = 128,
    layers: int = 2,
    heads: int = 4,
    dropout: float = 0.0,
) -> SequenceEncoder | SequenceDecoder:
    """Return a transformer encoder or decoder of texts or series (Vaswani et al. 2017).

    Args:
        inputs, outputs: (T, V) for texts or (..., T, C) for series; the other one is the latent's.
        given: number of conditions.
        width: size of the state of each position.
        layers: number of transformer blocks.
        heads: number of attention heads; `width` must be a multiple of it.
        dropout: dropout probability of the outputs of each layer.

    >>> transformer((3,), (4, 5), width=8, heads=2)(torch.zeros(2, 3)).shape
    torch.Size([2, 4, 5])
    """
    check_options(width, layers, dropout, 0)
    if heads < 1:
        raise ValueError(f"expected 1 or more heads; got {heads}")
    kind = TransformerEncoder if reads_sequence(inputs, outputs) else TransformerDecoder
    return kind(inputs, outputs, given, width=width, layers=layers, heads=heads, dropout=dropout)
