"""Networks for sequences: encoders that read tokens or numbers over time, and decoders that make
them from the latent.

An encoder takes codes (N, t), as `spaces` has tokens, and reads as far as each row's end, or
numbers (N, T, C). A decoder is called with latents alone and makes all positions at once, or gives
the state of each position from the tokens before it (`states`), from which its `last` layer makes
logits; `begin` and `advance` go one token at a time, for drawing.
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
from vaestro.networks import beside, check_given

State = tuple[Tensor, ...]  # each (N, ...): rows can be picked


def _check(width: int, layers: int, dropout: float, embedding: int) -> None:
    if width < 1 or layers < 1 or embedding < 0 or not 0 <= dropout < 1:
        wanted = "width and layers of 1 or more, embedding of 0 or more and dropout in [0, 1)"
        raise ValueError(f"expected {wanted}; got {width}, {layers}, {embedding} and {dropout}")


def _encodes(inputs: tuple[int, ...], outputs: tuple[int, ...]) -> bool:
    """Tell whether a sequence comes in, (T, V) or (T, C), or goes out, (..., T, C).

    Raises:
        ValueError: neither, or the latent is a grid.
    """
    if len(inputs) == 2 and len(outputs) <= 2:
        return True
    if len(inputs) != 1 or len(outputs) not in (2, 3):
        wanted = "texts or series on one side of a network for sequences, and a vector on the other"
        raise ValueError(f"expected {wanted}; got {inputs} and {outputs}")
    return False


class SequenceEncoder(nn.Module, ABC):
    """Describe an encoder of sequences: codes (N, t) or numbers (N, T, C), and conditions (N,
    given) -> (N, *outputs)."""

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
    def read(self, entering: Tensor, there: Tensor) -> Tensor:
        """Return what was read of each row, (N, width), from (N, t, embedding); `there` (N, t)
        tells which cells exist."""

    def forward(self, x: Tensor, given: Tensor | None = None) -> Tensor:
        if x.is_floating_point():  # one-hot codes would meet the same matrix
            found = self.read(x @ self.embedding.weight, x.new_ones(x.shape[:2], dtype=torch.bool))
        else:
            x = x.long()
            found = self.read(self.embedding(x), scored(x))
        return self.last(beside(found, given, self.given)).reshape(len(x), *self.outputs)  # type: ignore[no-any-return]


class SequenceDecoder(nn.Module, ABC):
    """Describe a decoder of sequences; conditions (N, given) stand beside the latent.

    Args:
        inputs: (Z,), of a latent.
        outputs: (T, V), the most tokens and how many codes there are, or (..., T, C).
        given: conditions.
        embedding: numbers for each token.
        width: numbers for each position.
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
        # the last stands for a token that was dropped
        self.embedding = nn.Embedding(self.codes + 1, embedding)
        self.last = nn.Linear(width, self.codes)
        self.sources = inputs[0] + given

    def start_at(self, values: Tensor) -> None:
        """Set the last bias to `values`, of shape outputs or one that broadcasts to it: at each
        position the average."""
        with torch.no_grad():
            self.last.bias.copy_(values.broadcast_to(self.outputs).mean(-2).flatten())

    def forward(self, z: Tensor, given: Tensor | None = None) -> Tensor:
        """Make all positions at once, none of which is told of the others: (N, *outputs)."""
        source = beside(z, given, self.given)
        nothing = torch.full((len(z), self.length), self.codes, device=z.device)
        out = self.last(self.states(source, nothing)).unflatten(-1, (-1, self.outputs[-1]))
        return out.movedim(1, -2).reshape(len(z), *self.outputs)  # type: ignore[no-any-return]

    @abstractmethod
    def states(self, source: Tensor, before: Tensor) -> Tensor:
        """Return the state of each position, (N, t, width), from sources (N, Z + given) and the
        token before each, (N, t)."""

    @abstractmethod
    def begin(self, source: Tensor) -> State:
        """Return the state before the first token."""

    @abstractmethod
    def advance(self, state: State, before: Tensor) -> tuple[Tensor, State]:
        """Take one token (N,): return (N, width), from which `last` makes the next one's logits,
        and the state after it."""


@final
class GRUEncoder(SequenceEncoder):
    """Read tokens by gated recurrent units (Cho et al. 2014), and keep the state at the end of each
    row."""

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

    def read(self, entering: Tensor, there: Tensor) -> Tensor:
        states, _ = self.cells(self.dropout(entering))
        at = there.sum(1) - 1
        return self.dropout(states[torch.arange(len(at), device=at.device), at])  # type: ignore[no-any-return]


@final
class GRUDecoder(SequenceDecoder):
    """Predict tokens by gated recurrent units: the latent makes the first state, and enters again
    with every token (Bowman et al. 2016)."""

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

    def states(self, source: Tensor, before: Tensor) -> Tensor:
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
    """Add to a sequence what attention and two layers make of it (Vaswani et al. 2017, normalised
    before)."""

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

    def read(self, entering: Tensor, there: Tensor) -> Tensor:
        x = entering + self.places[: entering.shape[1]]
        for block in self.blocks:
            q, k, v = block.split(x)  # type: ignore[operator]
            x = block.join(x, F.scaled_dot_product_attention(q, k, v, there[:, None, None]))  # type: ignore[operator]
        x = torch.where(there.unsqueeze(-1), self.norm(x), 0.0)
        return x.sum(1) / there.sum(1, keepdim=True)  # type: ignore[no-any-return]


@final
class TransformerDecoder(SequenceDecoder):
    """Predict tokens by attention to those before; the latent is added to every position."""

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

    def states(self, source: Tensor, before: Tensor) -> Tensor:
        x = (
            self.embedding(before)
            + self.places[: before.shape[1]]
            + self.beside(source).unsqueeze(1)
        )
        for block in self.blocks:
            q, k, v = block.split(x)  # type: ignore[operator]
            x = block.join(x, F.scaled_dot_product_attention(q, k, v, is_causal=True))  # type: ignore[operator]
        return self.norm(x)  # type: ignore[no-any-return]

    def begin(self, source: Tensor) -> State:
        beside = self.beside(source)
        none = beside.new_zeros(
            len(source),
            len(self.blocks),
            2,
            self.blocks[0].heads,
            0,
            beside.shape[1] // self.blocks[0].heads,
        )  # type: ignore[operator]
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
    """Make an encoder or a decoder of texts or series by gated recurrent units (Cho et al. 2014;
    Bowman et al. 2016).

    Args:
        inputs, outputs: (T, V) on the side of texts, (..., T, C) on that of series.
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
    """Make an encoder or a decoder of texts or series by attention (Vaswani et al. 2017).

    Args:
        inputs, outputs: (T, V) on the side of texts, (..., T, C) on that of series.
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


class _Block1d(nn.Module):
    """Add to a series what two convolutions over time make of it (He et al. 2016,
    pre-activation)."""

    def __init__(self, channels: int, given: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(math.gcd(channels, 4), channels)
        self.first, self.second = (
            nn.Conv1d(channels, channels, 3, 1, 1),
            nn.Conv1d(channels, channels, 3, 1, 1),
        )
        self.condition = nn.Linear(given, channels) if given else None
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, given: Tensor | None) -> Tensor:
        hidden = self.first(F.silu(self.norm(x)))
        if self.condition is not None:
            hidden = hidden + self.condition(given).unsqueeze(-1)
        return x + self.second(self.dropout(F.silu(hidden)))  # type: ignore[no-any-return]


@final
class Convolutional1d(nn.Module):
    """Map series to latents, or latents to series, through residual blocks of convolutions over
    time.

    Which way is told by the shapes. The encoder halves the length, rounding up, until it is at most
    8, and doubles the channels up to 4 times the width; the decoder takes the same lengths in the
    opposite order, by nearest neighbours and then a convolution. Conditions are a bias of every
    block's channels.

    Args:
        inputs, outputs: (T, C), or (T, 2 C) with a mask beside, in an encoder; (..., T, C) in a
            decoder.
        given: conditions.
        width: channels at full length.
        blocks: residual blocks at each length.
        dropout: share of hidden numbers dropped in training.

    Raises:
        ValueError: an option is out of its range, or neither side or both are series.
    """

    def __init__(
        self,
        inputs: tuple[int, ...],
        outputs: tuple[int, ...],
        given: int = 0,
        *,
        width: int = 32,
        blocks: int = 1,
        dropout: float = 0.0,
    ) -> None:
        _check(width, blocks, dropout, 0)
        super().__init__()
        self.encodes, self.inputs, self.outputs, self.given = (
            _encodes(inputs, outputs),
            inputs,
            outputs,
            given,
        )
        lengths = [inputs[0] if self.encodes else outputs[-2]]
        while lengths[-1] > 8:
            lengths.append((lengths[-1] + 1) // 2)
        widths = [width * min(2**level, 4) for level in range(len(lengths))]
        flat = widths[-1] * lengths[-1]
        layers: list[nn.Module] = []
        if self.encodes:
            self.first: nn.Module = nn.Conv1d(inputs[1], width, 5, 1, 2)
            self.last: nn.Linear | nn.Conv1d = nn.Linear(flat + given, math.prod(outputs))
        else:
            self.first = nn.Sequential(
                nn.Linear(inputs[0] + given, flat), nn.Unflatten(1, (widths[-1], lengths[-1]))
            )
            self.last = nn.Conv1d(width, math.prod(outputs) // outputs[-2], 5, 1, 2)
        for level in range(len(lengths)) if self.encodes else reversed(range(len(lengths))):
            layers += [_Block1d(widths[level], given, dropout) for _ in range(blocks)]
            if self.encodes and level + 1 < len(lengths):
                layers.append(nn.Conv1d(widths[level], widths[level + 1], 3, 2, 1))
            elif level and not self.encodes:
                layers += [
                    nn.Conv1d(widths[level], widths[level - 1], 1),
                    nn.Upsample(lengths[level - 1]),
                ]
        self.layers = nn.ModuleList(layers)
        if not self.encodes:
            with torch.no_grad():
                self.last.weight.mul_(0.1)  # a decoder starts near its last bias

    def start_at(self, values: Tensor) -> None:
        """Set the last bias to `values`, of shape outputs or one that broadcasts to it: over time
        the average."""
        assert self.last.bias is not None
        with torch.no_grad():
            self.last.bias.copy_(values.broadcast_to(self.outputs).mean(-2).flatten())

    def forward(self, x: Tensor, given: Tensor | None = None) -> Tensor:
        check_given(given, self.given)
        given = None if given is None else given.to(x.dtype)
        x = self.first(x.transpose(1, 2) if self.encodes else beside(x, given, self.given))
        for layer in self.layers:
            x = layer(x, given) if isinstance(layer, _Block1d) else layer(x)
        if self.encodes:
            return self.last(beside(F.silu(x).flatten(1), given, self.given)).reshape(
                len(x), *self.outputs
            )  # type: ignore[no-any-return]
        out = self.last(F.silu(x)).unflatten(1, (-1, self.outputs[-1]))  # (N, P, C, T)
        return out.transpose(-1, -2).reshape(len(x), *self.outputs)  # type: ignore[no-any-return]
