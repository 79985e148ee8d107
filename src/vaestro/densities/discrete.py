"""Densities of binary values and of categories, by logits l.

Bernoulli      log p(x) = x l - log(1 + exp(l))
categorical    log p(x) = l[x] - logsumexp(l)          in each cell
"""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from vaestro.densities.core import Cells, mixed_over, softplus, summed


@final
class Bernoulli(Cells):
    """Represent independent binary values by logits, (..., *X).

    >>> Bernoulli(torch.zeros(3), 1).log_prob(torch.ones(3))  # -3 log 2, in nats
    tensor(-2.0794)
    """

    def __init__(self, logits: Tensor, dims: int) -> None:
        self.logits, self.dims = logits, dims

    @property
    def mean(self) -> Tensor:
        """Return the probabilities of a one."""
        return torch.sigmoid(self.logits)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draw zeros and ones."""
        return torch.bernoulli(self.mean, generator=generator)

    def log_prob(self, value: Tensor, observed: Tensor | None = None) -> Tensor:
        """Return log-probabilities in nats, (...), stable for any logit."""
        value = value.to(self.logits.dtype)
        if observed is None and value.shape == self.logits.shape[-value.ndim :]:
            logits, value = self.logits.flatten(-self.dims), value.flatten(-self.dims)
            # with its analytic derivative, this function is twice as fast as the formula
            if torch.is_grad_enabled():
                return summed(
                    F.binary_cross_entropy_with_logits(
                        logits, value.expand_as(logits), reduction="none"
                    )
                ).neg()
            return summed(softplus(logits).addcmul_(value, logits, value=-1)).neg_()
        return super().log_prob(value, observed)

    def column_point(self, weights: Tensor | None) -> Tensor:
        return self.point(weights).round()

    def cells(self, value: Tensor) -> Tensor:
        return value * self.logits - softplus(self.logits)


@final
class Categorical(Cells):
    """Represent independent cells with one of L codes, by logits.

    Args:
        logits: (..., L, *X).
        dims: number of dimensions of one datum.
        ordered: whether the codes are ordered levels. The point prediction is then the mean.

    >>> Categorical(torch.zeros(4, 3), 1).log_prob(torch.tensor([0, 1, 3]))  # -3 log 4, in nats
    tensor(-4.1589)
    """

    def __init__(self, logits: Tensor, dims: int, ordered: bool = False) -> None:
        self.logits, self.dims, self.ordered = logits, dims, ordered

    @property
    def _codes(self) -> int:
        return self.logits.ndim - self.dims - 1

    @property
    def mean(self) -> Tensor:
        """Return the probabilities of the codes, (..., L, *X)."""
        return torch.softmax(self.logits, self._codes)

    def residual(self, value: Tensor) -> Tensor:
        """Return the differences of ordered levels; of other codes -log p of each."""
        return value - self.point().unsqueeze(0) if self.ordered else -self.cells(value)

    def column_mean(self) -> Tensor:
        return self.logits.argmax(-2).to(self.logits.dtype)

    def point(self, weights: Tensor | None = None) -> Tensor:
        mixed = mixed_over(self.mean, weights)
        codes = mixed.ndim - self.dims - 1
        if not self.ordered:
            return mixed.argmax(codes)
        levels = torch.arange(mixed.shape[codes], dtype=mixed.dtype, device=mixed.device)
        return torch.tensordot(mixed, levels, ([codes], [0]))

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draw codes, (..., *X)."""
        p = self.mean.movedim(self._codes, -1)
        flat = p.reshape(-1, p.shape[-1])
        return torch.multinomial(flat, 1, generator=generator).reshape(p.shape[:-1])

    def cells(self, value: Tensor) -> Tensor:
        codes = value.long().unsqueeze(value.ndim - self.dims)
        lead = torch.broadcast_shapes(
            self.logits.shape[: self._codes], codes.shape[: codes.ndim - self.dims - 1]
        )
        codes = codes.expand(*lead, 1, *codes.shape[codes.ndim - self.dims :])
        logits = self.logits.expand(*lead, *self.logits.shape[self._codes :])
        of_codes = logits.gather(len(lead), codes).squeeze(len(lead))
        return of_codes - torch.logsumexp(self.logits, self._codes)
