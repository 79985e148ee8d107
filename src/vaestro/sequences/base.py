"""Base classes of encoders and decoders of sequences."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
import torch.nn as nn
from torch import Tensor

from vaestro.densities import scored
from vaestro.densities.tokens import State
from vaestro.networks import with_conditions


def check_options(width: int, layers: int, dropout: float, embedding: int) -> None:
    """Raise ValueError unless the options of a network for sequences are in their ranges.

    >>> check_options(8, 1, 0.1, 0)
    """
    if width < 1 or layers < 1 or embedding < 0 or not 0 <= dropout < 1:
        ranges = "width and layers of 1 or more, embedding of 0 or more and dropout in [0, 1)"
        raise ValueError(f"expected {ranges}; got {width}, {layers}, {embedding} and {dropout}")


def reads_sequence(inputs: tuple[int, ...], outputs: tuple[int, ...]) -> bool:
    """Return whether the input is a sequence, (T, V) or (T, C), and not the output, (..., T, C).

    Raises:
        ValueError: neither side is a sequence, or the latent is a grid.

    >>> reads_sequence((20, 2), (3,))
    True
    """
    if len(inputs) == 2 and len(outputs) <= 2:
        return True
    if len(inputs) != 1 or len(outputs) not in (2, 3):
        sides = "texts or series on one side of a network for sequences, and a vector on the other"
        raise ValueError(f"expected {sides}; got {inputs} and {outputs}")
    return False


class SequenceEncoder(nn.Module, ABC):
    """Map codes (N, t) or numbers (N, T, C), with conditions (N, given), to (N, *outputs)."""

    reads_codes = True

    def __init__(
        self,
        inputs: tuple[int, ...],
        outputs: tuple[int, ...],
        given: int,
        embedding: int,
        width: int,
    ) -> None:
        super().__init__()
        self.inputs, self.outputs, self.given = inputs, outputs, given
        self.embedding = nn.Embedding(inputs[1], embedding)
        self.last = nn.Linear(width + given, math.prod(outputs))

    @abstractmethod
    def read(self, embedded: Tensor, mask: Tensor) -> Tensor:
        """Return a summary of each row, (N, width).

        Args:
            embedded: embeddings of the cells, (N, t, embedding).
            mask: which cells exist, (N, t), bool.
        """

    def forward(self, x: Tensor, given: Tensor | None = None) -> Tensor:
        if x.is_floating_point():  # numbers, or one-hot codes
            state = self.read(x @ self.embedding.weight, x.new_ones(x.shape[:2], dtype=torch.bool))
        else:
            x = x.long()
            state = self.read(self.embedding(x), scored(x))
        return self.last(with_conditions(state, given, self.given)).reshape(len(x), *self.outputs)


class SequenceDecoder(nn.Module, ABC):
    """Map latents (N, Z), with conditions (N, given) concatenated, to sequences (N, *outputs).

    Args:
        inputs: (Z,), the shape of a latent.
        outputs: (T, V), the largest number of tokens and the number of codes, or (..., T, C).
        given: number of conditions.
        embedding: size of the embedding of a token.
        width: size of the state of each position.
    """

    def __init__(
        self,
        inputs: tuple[int, ...],
        outputs: tuple[int, ...],
        given: int,
        embedding: int,
        width: int,
    ) -> None:
        super().__init__()
        self.inputs, self.outputs, self.given, self.length = inputs, outputs, given, outputs[-2]
        self.codes = math.prod(outputs) // self.length
        # the last code means a dropped token
        self.embedding = nn.Embedding(self.codes + 1, embedding)
        self.last = nn.Linear(width, self.codes)
        self.sources = inputs[0] + given

    def start_at(self, values: Tensor) -> None:
        """Set the last bias to the mean over positions of `values`, whose shape broadcasts to
        `outputs`."""
        with torch.no_grad():
            self.last.bias.copy_(values.broadcast_to(self.outputs).mean(-2).flatten())

    def forward(self, z: Tensor, given: Tensor | None = None) -> Tensor:
        """Return all positions at once, independent of each other given z: (N, *outputs)."""
        source = with_conditions(z, given, self.given)
        dropped = torch.full((len(z), self.length), self.codes, device=z.device)
        out = self.last(self.states(source, dropped)).unflatten(-1, (-1, self.outputs[-1]))
        return out.movedim(1, -2).reshape(len(z), *self.outputs)

    @abstractmethod
    def states(self, source: Tensor, previous: Tensor) -> Tensor:
        """Return the state of each position, (N, t, width), from sources (N, Z + given) and the
        token before each, (N, t)."""

    @abstractmethod
    def begin(self, source: Tensor) -> State:
        """Return the state before the first token."""

    @abstractmethod
    def advance(self, state: State, previous: Tensor) -> tuple[Tensor, State]:
        """Process one token, (N,), and return the input of `last` for the logits of the next token,
        (N, width), and the next state."""
