"""Networks for sequences: encoders that read tokens, and decoders that predict each token from the latent and those before it.

An encoder takes codes (N, t), as `spaces` has tokens, and reads as far as each row's end. A decoder gives a state for
each position, from which its `last` layer makes logits; `begin` and `advance` go one token at a time, for drawing.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import final

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from vaestro.densities import scored

State = tuple[Tensor, ...]  # each (N, ...): rows can be picked


def _check(width: int, layers: int, dropout: float, embedding: int) -> None:
    if width < 1 or layers < 1 or embedding < 0 or not 0 <= dropout < 1:
        wanted = "width and layers of 1 or more, embedding of 0 or more and dropout in [0, 1)"
        raise ValueError(f"expected {wanted}; got {width}, {layers}, {embedding} and {dropout}")


def _encodes(inputs: tuple[int, ...], outputs: tuple[int, ...]) -> bool:
    """Tell whether tokens come in, (T, V), or go out.

    Raises:
        ValueError: neither, or the latent is a grid.
    """
    if len(inputs) == 2 and len(outputs) <= 2:
        return True
    if len(inputs) != 1 or len(outputs) != 2:
        raise ValueError(f"expected texts on one side of a network for sequences, and a vector on the other; got {inputs} and {outputs}")
    return False


class SequenceEncoder(nn.Module, ABC):
    """Describe an encoder of tokens: (N, t) codes and conditions (N, given) -> (N, *outputs)."""

    reads_codes = True

    def __init__(self, inputs: tuple[int, ...], outputs: tuple[int, ...], given: int, embedding: int, width: int) -> None:
        super().__init__()
        self.outputs, self.given = outputs, given
        self.embedding = nn.Embedding(inputs[1], embedding)
        self.last = nn.Linear(width + given, math.prod(outputs))

    @abstractmethod
    def read(self, codes: Tensor, there: Tensor) -> Tensor:
        """Return what was read of each row, (N, width); `there` (N, t) tells which cells exist."""

    def forward(self, codes: Tensor, given: Tensor | None = None) -> Tensor:
        codes = codes.long()
        found = self.read(codes, scored(codes))
        if given is not None:
            found = torch.cat([found, given.to(found.dtype)], 1)
        return self.last(found).reshape(len(codes), *self.outputs)  # type: ignore[no-any-return]


class SequenceDecoder(nn.Module, ABC):
    """Describe a decoder of tokens; conditions (N, given) stand beside the latent.

    Args:
        inputs: (Z,), of a latent.
        outputs: (T, V), the most tokens and how many codes there are.
        given: conditions.
        embedding: numbers for each token.
        width: numbers for each position.
    """

    def __init__(self, inputs: tuple[int, ...], outputs: tuple[int, ...], given: int, embedding: int, width: int) -> None:
        super().__init__()
        self.length, self.codes = outputs
        self.embedding = nn.Embedding(self.codes + 1, embedding)  # the last stands for a token that was dropped
        self.last = nn.Linear(width, self.codes)
        self.sources = inputs[0] + given

    def start_at(self, values: Tensor) -> None:
        """Set the last bias to `values`, (V,), so that training starts at the frequencies of the tokens."""
        with torch.no_grad():
            self.last.bias.copy_(values.reshape(-1, self.codes).mean(0))

    def source(self, z: Tensor, given: Tensor | None) -> Tensor:
        """Put conditions beside latents: (N, Z + given)."""
        return z if given is None else torch.cat([z, given.to(z.dtype)], 1)

    @abstractmethod
    def forward(self, source: Tensor, before: Tensor) -> Tensor:
        """Return the state of each position, (N, t, width), from sources (N, Z + given) and the token before each, (N, t)."""

    @abstractmethod
    def begin(self, source: Tensor) -> State:
        """Return the state before the first token."""

    @abstractmethod
    def advance(self, state: State, before: Tensor) -> tuple[Tensor, State]:
        """Take one token (N,): return (N, width), from which `last` makes the next one's logits, and the state after it."""


@final
class GRUEncoder(SequenceEncoder):
    """Read tokens by gated recurrent units (Cho et al. 2014), and keep the state at the end of each row."""

    def __init__(
        self, inputs: tuple[int, ...], outputs: tuple[int, ...], given: int, *, width: int, layers: int, embedding: int, dropout: float
    ) -> None:
        super().__init__(inputs, outputs, given, embedding, width)
        self.cells = nn.GRU(embedding, width, layers, batch_first=True)
        self.dropout = nn.Dropout(dropout)

    def read(self, codes: Tensor, there: Tensor) -> Tensor:
        states, _ = self.cells(self.dropout(self.embedding(codes)))
        at = there.sum(1) - 1
        return self.dropout(states[torch.arange(len(codes), device=codes.device), at])  # type: ignore[no-any-return]


@final
class GRUDecoder(SequenceDecoder):
    """Predict tokens by gated recurrent units: the latent makes the first state, and enters again with every token (Bowman et al. 2016)."""

    def __init__(
        self, inputs: tuple[int, ...], outputs: tuple[int, ...], given: int, *, width: int, layers: int, embedding: int, dropout: float
    ) -> None:
        super().__init__(inputs, outputs, given, embedding, width)
        self.first = nn.Linear(self.sources, layers * width)
        self.beside = nn.Linear(self.sources, embedding, bias=False)
        self.cells = nn.GRU(embedding, width, layers, batch_first=True)
        self.dropout = nn.Dropout(dropout)

    def forward(self, source: Tensor, before: Tensor) -> Tensor:
        entering = self.dropout(self.embedding(before)) + self.beside(source).unsqueeze(1)
        states, _ = self.cells(entering, self._start(source).transpose(0, 1).contiguous())
        return self.dropout(states)  # type: ignore[no-any-return]

    def _start(self, source: Tensor) -> Tensor:
        return torch.tanh(self.first(source)).unflatten(1, (self.cells.num_layers, -1))

    def begin(self, source: Tensor) -> State:
        return (self._start(source), self.beside(source))

    def advance(self, state: State, before: Tensor) -> tuple[Tensor, State]:
        held, beside = state
        entering = (self.embedding(before) + beside).unsqueeze(1)
        out, after = self.cells(entering, held.transpose(0, 1).contiguous())
        return out[:, 0], (after.transpose(0, 1), beside)


class _Attention(nn.Module):
    """Add to a sequence what attention and two layers make of it (Vaswani et al. 2017, normalised before)."""

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
        """Add what was attended to, (N, heads, t, width / heads), and what the two layers make."""
        x = x + self.dropout(self.out(attended.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.down(F.gelu(self.up(self.norm2(x)))))  # type: ignore[no-any-return]


def _blocks(width: int, layers: int, heads: int, dropout: float) -> nn.ModuleList:
    if width % heads:
        raise ValueError(f"expected a width that {heads} heads can share; got {width}")
    return nn.ModuleList([_Attention(width, heads, dropout) for _ in range(layers)])


@final
class TransformerEncoder(SequenceEncoder):
    """Read tokens by attention in both directions, and keep the mean over each row's positions."""

    def __init__(
        self, inputs: tuple[int, ...], outputs: tuple[int, ...], given: int, *, width: int, layers: int, heads: int, dropout: float
    ) -> None:
        super().__init__(inputs, outputs, given, width, width)
        self.places = nn.Parameter(0.02 * torch.randn(inputs[0], width))
        self.blocks, self.norm = _blocks(width, layers, heads, dropout), nn.LayerNorm(width)
        nn.init.normal_(self.embedding.weight, std=0.02)

    def read(self, codes: Tensor, there: Tensor) -> Tensor:
        x = self.embedding(codes) + self.places[: codes.shape[1]]
        for block in self.blocks:
            q, k, v = block.split(x)  # type: ignore[operator]
            x = block.join(x, F.scaled_dot_product_attention(q, k, v, there[:, None, None]))  # type: ignore[operator]
        x = torch.where(there.unsqueeze(-1), self.norm(x), 0.0)
        return x.sum(1) / there.sum(1, keepdim=True)  # type: ignore[no-any-return]


@final
class TransformerDecoder(SequenceDecoder):
    """Predict tokens by attention to those before; the latent is added to every position."""

    def __init__(
        self, inputs: tuple[int, ...], outputs: tuple[int, ...], given: int, *, width: int, layers: int, heads: int, dropout: float
    ) -> None:
        super().__init__(inputs, outputs, given, width, width)
        self.beside = nn.Linear(self.sources, width)
        self.places = nn.Parameter(0.02 * torch.randn(self.length, width))
        self.blocks, self.norm = _blocks(width, layers, heads, dropout), nn.LayerNorm(width)
        nn.init.normal_(self.embedding.weight, std=0.02)

    def forward(self, source: Tensor, before: Tensor) -> Tensor:
        x = self.embedding(before) + self.places[: before.shape[1]] + self.beside(source).unsqueeze(1)
        for block in self.blocks:
            q, k, v = block.split(x)  # type: ignore[operator]
            x = block.join(x, F.scaled_dot_product_attention(q, k, v, is_causal=True))  # type: ignore[operator]
        return self.norm(x)  # type: ignore[no-any-return]

    def begin(self, source: Tensor) -> State:
        beside = self.beside(source)
        none = beside.new_zeros(len(source), len(self.blocks), 2, self.blocks[0].heads, 0, beside.shape[1] // self.blocks[0].heads)  # type: ignore[operator]
        return (none, beside)

    def advance(self, state: State, before: Tensor) -> tuple[Tensor, State]:
        held, beside = state
        x = (self.embedding(before) + self.places[held.shape[4]] + beside).unsqueeze(1)
        kept = []
        for i, block in enumerate(self.blocks):
            q, k, v = block.split(x)  # type: ignore[operator]
            k, v = torch.cat([held[:, i, 0], k], 2), torch.cat([held[:, i, 1], v], 2)
            kept.append(torch.stack([k, v], 1))
            x = block.join(x, F.scaled_dot_product_attention(q, k, v))  # type: ignore[operator]
        return self.norm(x)[:, 0], (torch.stack(kept, 1), beside)


def gru(
    inputs: tuple[int, ...],
    outputs: tuple[int, ...],
    given: int = 0,
    *,
    width: int = 256,
    layers: int = 1,
    embedding: int = 0,
    dropout: float = 0.0,
) -> SequenceEncoder | SequenceDecoder:
    """Make an encoder or a decoder of tokens by gated recurrent units (Cho et al. 2014; Bowman et al. 2016).

    Args:
        inputs, outputs: (T, V) on the side of the texts.
        given: conditions.
        width: units of each layer.
        layers: layers.
        embedding: numbers for each token; half the width by default.
        dropout: share of numbers dropped in training, of what enters and of what leaves the layers.
    """
    _check(width, layers, dropout, embedding)
    kind = GRUEncoder if _encodes(inputs, outputs) else GRUDecoder
    size = embedding or max(1, width // 2)
    return kind(inputs, outputs, given, width=width, layers=layers, embedding=size, dropout=dropout)


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
    """Make an encoder or a decoder of tokens by attention (Vaswani et al. 2017).

    Args:
        inputs, outputs: (T, V) on the side of the texts.
        given: conditions.
        width: numbers for each position.
        layers: layers of attention.
        heads: of each layer; they share the width.
        dropout: share of numbers dropped in training, of what each layer adds.
    """
    _check(width, layers, dropout, 0)
    if heads < 1:
        raise ValueError(f"expected 1 or more heads; got {heads}")
    kind = TransformerEncoder if _encodes(inputs, outputs) else TransformerDecoder
    return kind(inputs, outputs, given, width=width, layers=layers, heads=heads, dropout=dropout)
