"""Densities over rows of tokens.

    independent      log p(x) = sum_t log p(x_t)
    autoregressive   log p(x) = sum_t log p(x_t | x_<t)

The sum is over the tokens up to and including the first 0, which ends a row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, final

import torch
import torch.nn.functional as F
from torch import Tensor

from vaestro.densities.core import DataDensity, full_precision, mixed_over, summed
from vaestro.densities.discrete import Categorical

Drop = Callable[[Tensor], Tensor]
State = tuple[Tensor, ...]


class TokenDecoder(Protocol):
    """Describe a network that predicts each token from the tokens before it."""

    length: int

    @property
    def last(self) -> Callable[[Tensor], Tensor]:
        """Return the layer from states (..., width) to logits (..., V)."""

    def states(self, source: Tensor, before: Tensor) -> Tensor:
        """Return states (N, t, width) from sources (N, S) and the token before each, (N, t)."""

    def begin(self, source: Tensor) -> State:
        """Return the state before the first token."""

    def advance(self, state: State, before: Tensor) -> tuple[Tensor, State]:
        """Return (N, width) and the next state, given one token (N,)."""


def scored(codes: Tensor) -> Tensor:
    """Return which cells of codes (..., t) exist, bools: the cells up to and including the first 0.

    >>> scored(torch.tensor([3, 0, 0]))
    tensor([ True,  True, False])
    """
    return F.pad(codes[..., :-1] != 0, (1, 0), value=True)


def ended(codes: Tensor) -> Tensor:
    """Return codes (..., T) with every code after the first 0 set to 0.

    >>> ended(torch.tensor([3, 0, 2]))
    tensor([3, 0, 0])
    """
    return torch.where(scored(codes).cumprod(-1) > 0, codes, 0)


def _whole(observed: Tensor | None) -> None:
    if observed is not None:
        raise ValueError(
            "expected every cell observed of texts, whose length is part of the data; got a mask"
        )


@final
class Positions(DataDensity):
    """Represent tokens that are independent given z, with one softmax for each position.

    Cells after the first 0 do not exist.

    Args:
        logits: (..., V, T).

    >>> Positions(torch.zeros(4, 3)).log_prob(torch.tensor([2, 0, 0]))  # -2 log 4, in nats
    tensor(-2.7726)
    """

    def __init__(self, logits: Tensor) -> None:
        self.positions = Categorical(logits, 1)

    @property
    def mean(self) -> Tensor:
        """Return the probabilities of the codes, (..., V, T)."""
        return self.positions.mean

    def log_prob(self, value: Tensor, observed: Tensor | None = None) -> Tensor:
        """Return log p(x | z) in nats, (...), of codes (..., t): the sum over existing cells.

        Raises:
            ValueError: some cells are missing.
        """
        cells = self.by_cell(value, observed)
        assert cells is not None
        return summed(cells)

    def by_cell(self, value: Tensor, observed: Tensor | None = None) -> Tensor | None:
        _whole(observed)
        cells = Categorical(self.positions.logits[..., : value.shape[-1]], 1).cells(value)
        return torch.where(scored(value), cells, 0.0)

    def residual(self, value: Tensor) -> Tensor | None:
        return None

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        return ended(self.positions.sample(generator))

    def point(self, weights: Tensor | None = None) -> Tensor:
        return ended(mixed_over(self.mean, weights).argmax(-2))


@final
@dataclass(frozen=True)
class Decoding:
    """Configure the sampling of sentences and the search for the most probable one.

    Args:
        temperature: divides the logits. Draws are from the model only if it is 1.
        top_p: sample from the most probable tokens that together reach this probability (nucleus
            sampling; Holtzman et al. 2020).
        beam: number of sentences that the beam search keeps. 1 is a greedy search.

    Raises:
        ValueError: a temperature of 0 or less, a top_p outside of (0, 1], or a beam below 1.

    >>> Decoding(temperature=0.5).beam
    1
    """

    temperature: float = 1.0
    top_p: float = 1.0
    beam: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf") or not 0 < self.top_p <= 1 or self.beam < 1:
            got = f"{self.temperature}, {self.top_p} and {self.beam}"
            raise ValueError(
                f"expected a temperature above 0, top_p in (0, 1] and a beam of 1 or more; got "
                f"{got}"
            )


@final
class Sentences(DataDensity):
    """Represent p(x | z) = prod_t p(x_t | x_<t, z) over rows of codes.

    A row ends with a 0, or has the maximal length.

    Args:
        decoder: predicts tokens (see `sequences.SequenceDecoder`).
        source: latents and conditions, (K, B, S).
        drop: replaces some of the context tokens; None to keep all.
        decoding: the options of sampling and search.
        profile: logits of each position, (length, V), which are added to those of the decoder; None
            for none.

    >>> from vaestro.sequences import gru
    >>> sentences = Sentences(gru((2,), (4, 5), width=8), torch.zeros(1, 3, 2))
    >>> sentences.sample().shape
    torch.Size([1, 3, 4])
    """

    def __init__(
        self,
        decoder: TokenDecoder,
        source: Tensor,
        drop: Drop | None = None,
        decoding: Decoding = Decoding(),
        profile: Tensor | None = None,
    ) -> None:
        self.decoder, self.source, self.drop, self.decoding = decoder, source, drop, decoding
        self.profile = profile

    def by(self, decoding: Decoding) -> Sentences:
        """Return the density with another `Decoding`."""
        return Sentences(self.decoder, self.source, self.drop, decoding, self.profile)

    @property
    def mean(self) -> Tensor:
        raise NotImplementedError("sentences have no mean")

    def log_prob(self, value: Tensor, observed: Tensor | None = None) -> Tensor:
        """Return log p(x | z) in nats, (K, B), of codes that broadcast to (K, B, t): the sum over
        the tokens of a row.

        Raises:
            ValueError: some cells are missing.
        """
        nats, row, _, lead = self._scored(value, observed)
        return nats.new_zeros(lead.numel()).index_add(0, row, nats).reshape(lead)

    def by_cell(self, value: Tensor, observed: Tensor | None = None) -> Tensor | None:
        nats, row, position, lead = self._scored(value, observed)
        cells = nats.new_zeros(lead.numel(), value.shape[-1])
        cells[row, position] = nats
        return cells.reshape(*lead, -1)

    def residual(self, value: Tensor) -> Tensor | None:
        return None

    def _scored(
        self, value: Tensor, observed: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, torch.Size]:
        """Return the log-probability of each token that exists, its row among (K * B) and its
        position, and (K, B)."""
        _whole(observed)
        lead = torch.broadcast_shapes(self.source.shape[:-1], value.shape[:-1])
        codes, source = (x.expand(*lead, -1).flatten(0, -2) for x in (value.long(), self.source))
        there = scored(codes)
        before = F.pad(codes[:, :-1], (1, 0))
        if self.drop is not None:
            before = self.drop(before)
        states = self.decoder.states(source, before)
        # The last layer is by far the largest: it runs on existing cells only.
        row, position = there.nonzero(as_tuple=True)
        logits = self.decoder.last(states[there])
        if self.profile is not None:
            logits = logits + self.profile[position].to(logits)
        return self._nats(logits, codes[there]), row, position, lead

    @full_precision
    def _nats(self, logits: Tensor, codes: Tensor) -> Tensor:
        return -F.cross_entropy(logits.to(self.source.dtype), codes, reduction="none")

    def _logits(self, state: State, before: Tensor, t: int) -> tuple[Tensor, State]:
        hidden, state = self.decoder.advance(state, before)
        logits = self.decoder.last(hidden).to(self.source.dtype)
        return logits if self.profile is None else logits + self.profile[t], state

    @torch.no_grad()
    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draw sentences, codes (K, B, length), with the temperature and top_p of `decoding`."""
        k, rows = self.source.shape[:2]
        codes = torch.zeros(
            k * rows, self.decoder.length, dtype=torch.long, device=self.source.device
        )
        state, before = self.decoder.begin(self.source.flatten(0, 1)), codes[:, 0]
        going = torch.ones_like(before, dtype=torch.bool)
        for t in range(self.decoder.length):
            logits, state = self._logits(state, before, t)
            p = torch.softmax(logits / self.decoding.temperature, -1)
            drawn = torch.multinomial(self._nucleus(p), 1, generator=generator)[:, 0]
            codes[:, t] = before = torch.where(going, drawn, 0)
            going = before != 0
            if not bool(going.any()):
                break
        return codes.unflatten(0, (k, rows))

    def _nucleus(self, p: Tensor) -> Tensor:
        if self.decoding.top_p == 1:
            return p
        ranked, order = p.sort(-1, descending=True)
        ranked = torch.where(ranked.cumsum(-1) - ranked < self.decoding.top_p, ranked, 0.0)
        return torch.zeros_like(p).scatter(-1, order, ranked)

    @torch.no_grad()
    def point(self, weights: Tensor | None = None) -> Tensor:
        """Return the most probable sentence of a beam search, codes (B, length), at the draw of z
        with the largest weight."""
        best = (
            torch.zeros_like(self.source[0, :, 0], dtype=torch.long)
            if weights is None
            else weights.argmax(0)
        )
        rows, beam, length = self.source.shape[1], self.decoding.beam, self.decoder.length
        source = self.source[best, torch.arange(rows, device=best.device)]
        codes = torch.zeros(rows, beam, length, dtype=torch.long, device=source.device)
        state, before = (
            self.decoder.begin(source.repeat_interleave(beam, 0)),
            codes[:, :, 0].flatten(),
        )
        # At first all sentences of a beam are the same: only the first one is extended.
        scores = source.new_full((rows, beam), float("-inf"))
        scores[:, 0] = 0.0
        going = torch.ones(rows, beam, dtype=torch.bool, device=source.device)
        for t in range(length):
            logits, state = self._logits(state, before, t)
            nats = torch.log_softmax(logits, -1).unflatten(0, (rows, beam))
            ended = torch.full_like(nats, float("-inf"))
            ended[..., 0] = 0.0  # a sentence that has ended does not change
            ranked = (scores.unsqueeze(-1) + torch.where(going.unsqueeze(-1), nats, ended)).flatten(
                1
            )
            scores, chosen = ranked.topk(beam, 1)
            parent, code = chosen // nats.shape[-1], chosen % nats.shape[-1]
            codes = codes.gather(1, parent.unsqueeze(-1).expand_as(codes))
            codes[:, :, t] = code
            flat = (parent + beam * torch.arange(rows, device=source.device).unsqueeze(1)).flatten()
            state, before, going = tuple(part[flat] for part in state), code.flatten(), code != 0
            if not bool(going.any()):
                break
        return codes[:, 0]
