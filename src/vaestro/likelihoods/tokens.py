"""The autoregressive likelihood of texts (Bowman et al. 2016).

log p(x | z) = sum_t log p(x_t | x_<t, z)
"""

from __future__ import annotations

import math
from typing import final

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from vaestro import densities
from vaestro.densities.tokens import scored
from vaestro.likelihoods.base import Likelihood
from vaestro.sequences import SequenceDecoder
from vaestro.spaces import Kind, Space

START_ROWS = 4096  # number of training rows that a profile starts from
SMOOTHING = 10.0  # number of rows with the usual frequencies that are added to each position


@final
class Autoregressive(Likelihood):
    """Represent a text by a softmax over each next token, given the latent and the tokens before it
    (Bowman et al. 2016).

    Such a decoder can ignore the latent, and the posterior then collapses. Remedies are a lower
    weight of the KL, free bits, the posterior's `min_rate`, aggressive updates, and word dropout,
    which hides part of the context. Word dropout is used in training only, so the training bound is
    usually lower than the reported one.

    Args:
        space: of the data.
        decoder: a network for sequences, gru or transformer.
        word_dropout: fraction of the context tokens that training hides.
        latent: whether the latent is an input of the decoder. If false, the model is a plain
            language model, and its log p(x) is exact if the rate is 0.
        profile: largest number of positions times codes for which each position has logits of its
            own, which are added to those of the decoder. They start at the log-frequencies in
            training data, so the model starts from a position frequency matrix (Stormo et al.
            1982). 0 for none.

    >>> from vaestro.sequences import gru
    >>> from vaestro.spaces import TokensSpace
    >>> space = TokensSpace((4,), (4,), levels=5)
    >>> likelihood = Autoregressive(space, gru((2,), (4, 5), width=8))
    >>> likelihood(torch.zeros(1, 3, 2)).log_prob(torch.zeros(3, 4)).shape
    torch.Size([1, 3])
    """

    accepts = frozenset({Kind.TOKENS})
    autoregressive = True
    in_graph = False
    decoder: SequenceDecoder

    def __init__(
        self,
        space: Space,
        decoder: nn.Module,
        *,
        word_dropout: float = 0.0,
        latent: bool = True,
        profile: int = 16384,
    ) -> None:
        if not 0 <= word_dropout < 1 or profile < 0:
            raise ValueError(
                f"expected a word_dropout in [0, 1) and a profile of 0 or more; got "
                f"{word_dropout} and {profile}"
            )
        if not isinstance(decoder, SequenceDecoder):
            raise ValueError(
                f"expected a network for sequences (gru, transformer) for the likelihood "
                f"autoregressive; got {type(decoder).__name__}"
            )
        super().__init__(space, decoder)
        self.reads_latent = latent
        self.word_dropout = nn.Dropout(word_dropout)
        size = (space.shape[0], space.levels)
        small = math.prod(size) <= profile
        self.profile = nn.Parameter(torch.zeros(size)) if small else None
        if word_dropout:
            self.altered = f"word dropout {word_dropout:g}"

    @classmethod
    def outputs(cls, space: Space, **_: object) -> tuple[int, ...]:
        return (*space.shape, space.levels)

    @classmethod
    def start(cls, space: Space, **_: object) -> Tensor:
        return (
            torch.zeros(space.levels)
            if space.marginal is None
            else torch.log(torch.from_numpy(space.marginal))
        )

    @property
    def start_values(self) -> int:
        started = self.profile is None or bool(self.profile.any())
        return 0 if started else START_ROWS * self.space.cells

    @torch.no_grad()
    def begin_at(self, x: Tensor, observed: Tensor | None, given: Tensor | None) -> None:
        assert self.profile is not None
        codes = F.pad(x.long(), (0, self.space.cells - x.shape[-1]))
        one_hot = F.one_hot(codes, self.space.levels) * scored(codes).unsqueeze(-1)
        usual = torch.softmax(self.start(self.space), -1).to(self.profile)
        counts = one_hot.sum(0) + SMOOTHING * usual
        self.profile.copy_(torch.log(counts / counts.sum(-1, keepdim=True)) - torch.log(usual))

    def forward(self, z: Tensor, given: Tensor | None = None) -> densities.Sentences:
        source = z if self.reads_latent else torch.zeros_like(z)
        if given is not None:
            source = torch.cat([source, given.to(z.dtype).expand(len(z), *given.shape)], -1)
        return densities.Sentences(
            self.decoder,
            source,
            self._drop if self.training and self.altered else None,
            profile=self.profile,
        )

    def _drop(self, before: Tensor) -> Tensor:
        """Hide some tokens, but not the start."""
        kept = self.word_dropout(torch.ones(before.shape, device=before.device)) > 0
        kept[:, 0] = True
        return torch.where(kept, before, self.space.levels)
