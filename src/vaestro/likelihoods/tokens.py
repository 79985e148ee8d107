"""The autoregressive likelihood of texts (Bowman et al. 2016).

log p(x | z) = sum_t log p(x_t | x_<t, z)
"""

from __future__ import annotations

from typing import final

import torch
import torch.nn as nn
from torch import Tensor

from vaestro import densities
from vaestro.likelihoods.base import Likelihood
from vaestro.sequences import SequenceDecoder
from vaestro.spaces import Kind, Space


@final
class Autoregressive(Likelihood):
    """Represent a text by a softmax over each next token, given the latent and the tokens before it
    (Bowman et al. 2016).

    Such a decoder can ignore the latent, and then the posterior collapses. Against collapse there
    are the weight of the KL, free bits, the posterior's `min_rate`, aggressive updates, and word
    dropout, which hides part of the context. The model in training with word dropout is not the
    reported one: the training bound is as a rule below the reported model's.

    Args:
        space: what the data are.
        decoder: a network for sequences, gru or transformer.
        word_dropout: fraction of the context tokens that training hides.
        latent: whether the decoder has the latent as an input. If false, the model is a plain
            language model, and its log p(x) is exact where the rate is 0.

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
        self, space: Space, decoder: nn.Module, *, word_dropout: float = 0.0, latent: bool = True
    ) -> None:
        if not 0 <= word_dropout < 1:
            raise ValueError(f"expected a word_dropout in [0, 1); got {word_dropout}")
        if not isinstance(decoder, SequenceDecoder):
            raise ValueError(
                f"expected a network for sequences (gru, transformer) for the likelihood "
                f"autoregressive; got {type(decoder).__name__}"
            )
        super().__init__(space, decoder)
        self.reads_latent = latent
        self.word_dropout = nn.Dropout(word_dropout)
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

    def forward(self, z: Tensor, given: Tensor | None = None) -> densities.Sentences:
        source = z if self.reads_latent else torch.zeros_like(z)
        if given is not None:
            source = torch.cat([source, given.to(z.dtype).expand(len(z), *given.shape)], -1)
        return densities.Sentences(
            self.decoder, source, self._drop if self.training and self.altered else None
        )

    def _drop(self, before: Tensor) -> Tensor:
        """Hide some tokens, but not the start."""
        kept = self.word_dropout(torch.ones(before.shape, device=before.device)) > 0
        kept[:, 0] = True
        return torch.where(kept, before, self.space.levels)
