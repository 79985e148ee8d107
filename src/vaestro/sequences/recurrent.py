"""Gated recurrent units for texts and series (Cho et al. 2014; Bowman et al. 2016)."""

from __future__ import annotations

from typing import final

import torch
import torch.nn as nn
from torch import Tensor

from vaestro.densities.tokens import State
from vaestro.sequences.base import SequenceDecoder, SequenceEncoder, check_options, reads_sequence


@final
class GRUEncoder(SequenceEncoder):
    """Encode a sequence by gated recurrent units (Cho et al. 2014), as the state at the end of each
    row.

    >>> GRUEncoder((4, 5), (3,), 0, width=8, layers=1, embedding=4, dropout=0.0)(
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
        embedding: int,
        dropout: float,
    ) -> None:
        super().__init__(inputs, outputs, given, embedding, width)
        self.cells = nn.GRU(embedding, width, layers, batch_first=True)
        self.dropout = nn.Dropout(dropout)

    def read(self, embedded: Tensor, mask: Tensor) -> Tensor:
        states, _ = self.cells(self.dropout(embedded))
        at = mask.sum(1) - 1
        return self.dropout(states[torch.arange(len(at), device=at.device), at])


@final
class GRUDecoder(SequenceDecoder):
    """Predict tokens by gated recurrent units. The latent determines the first state and is an
    input at every token (Bowman et al. 2016).

    >>> GRUDecoder((3,), (4, 5), 0, width=8, layers=1, embedding=4, dropout=0.0)(
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
        embedding: int,
        dropout: float,
    ) -> None:
        super().__init__(inputs, outputs, given, embedding, width)
        self.first = nn.Linear(self.sources, layers * width)
        self.beside = nn.Linear(self.sources, embedding, bias=False)
        self.cells = nn.GRU(embedding, width, layers, batch_first=True)
        self.dropout = nn.Dropout(dropout)

    def states(self, source: Tensor, previous: Tensor) -> Tensor:
        embedded = self.dropout(self.embedding(previous)) + self.beside(source).unsqueeze(1)
        states, _ = self.cells(embedded, self._start(source).transpose(0, 1).contiguous())
        return self.dropout(states)

    def _start(self, source: Tensor) -> Tensor:
        return torch.tanh(self.first(source)).unflatten(1, (self.cells.num_layers, -1))

    def begin(self, source: Tensor) -> State:
        return (self._start(source), self.beside(source))

    def advance(self, state: State, previous: Tensor) -> tuple[Tensor, State]:
        hidden, condition = state
        embedded = (self.embedding(previous) + condition).unsqueeze(1)
        out, after = self.cells(embedded, hidden.transpose(0, 1).contiguous())
        return out[:, 0], (after.transpose(0, 1), condition)


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
    """Return a GRU encoder or decoder of texts or series (Cho et al. 2014; Bowman et al. 2016).

    Args:
        inputs, outputs: (T, V) for texts or (..., T, C) for series; the other one is the latent's.
        given: number of conditions.
        width: units of each layer.
        layers: number of layers.
        embedding: size of the token embeddings; 0 means half the width.
        dropout: dropout probability of the inputs and outputs of the layers.

    >>> gru((4, 5), (3,), width=8)(torch.ones(2, 4, dtype=torch.long)).shape
    torch.Size([2, 3])
    """
    check_options(width, layers, dropout, embedding)
    kind = GRUEncoder if reads_sequence(inputs, outputs) else GRUDecoder
    size = embedding or max(1, width // 2)
    return kind(inputs, outputs, given, width=width, layers=layers, embedding=size, dropout=dropout)
