"""p(which cells are empty | z and the full columns) of tables and vectors.

For the columns j = 1 .. J that have empty cells in the training split, with e_j = 1 for an empty
cell, s_j its share there, x_full the values of the columns without empty cells there, and f a small
network,

    log p(e | z, x_full) = sum over j of log Bernoulli(e_j; sigmoid(a_j)),
    a_j = logit s_j + f_j(z, x_full) + sum over i < j of W_ji e_i

x_full is an input because z does not contain a column that is independent of the others. W
describes columns that are empty together. At the start f = W = 0, so that cells are empty as often
as in the training split.

The gradient reaches f and W but not z. Encoder, decoder and bound are therefore those of a model
that assumes cells to be missing at random.
"""

from __future__ import annotations

import math
from typing import final

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from vaestro.densities.core import uniform
from vaestro.models.presence import Presence
from vaestro.spaces import Batch, Space

PACE = 16.0  # speed at which W is learned, relative to a weight
GENTLE = 1e-3  # factor of the gradient
MOST = 512  # largest number of columns with W; more are independent given z and x_full


@final
class Absences(Presence):
    """Represent p(which cells are empty | z, x_full) by a Bernoulli distribution for each cell,
    given the cells before it.

    Args:
        space: of tables or vectors, with `empty`.
        units: the shape *Z of one latent.
        conditions: how many numbers describe the conditions of one datum.

    >>> from vaestro.spaces import RealSpace
    >>> absences = Absences(RealSpace((3,), (3,), empty=np.array([0.0, 0.25, 1.0])), (2,))
    >>> batch = Batch(torch.zeros(5, 3), torch.tensor([True, False, False]).expand(5, 3))
    >>> absences.log_prob(torch.zeros(1, 5, 2), batch).exp()[0, 0]
    tensor(0.2500, grad_fn=<SelectBackward0>)
    """

    cells: Tensor
    start: Tensor
    always: Tensor
    full: Tensor

    def __init__(self, space: Space, units: tuple[int, ...], conditions: int = 0) -> None:
        assert space.empty is not None
        shares = np.asarray(space.empty, np.float64).ravel()
        cells = np.flatnonzero((shares > 0) & (shares < 1))
        features = math.prod(space.feature_shape)
        super().__init__(len(cells), math.prod(units) + conditions + features)
        dtype = torch.get_default_dtype()
        start = np.log(shares[cells]) - np.log1p(-shares[cells])
        for name, values in (
            ("cells", torch.from_numpy(cells)),
            ("start", torch.tensor(start, dtype=dtype)),
            ("always", torch.from_numpy(shares == 1)),
            ("full", torch.from_numpy(shares == 0).reshape(space.shape)),
        ):
            self.register_buffer(name, values, persistent=False)
        self.space = space
        size = len(cells) if len(cells) <= MOST else 0
        self.together = nn.Parameter(torch.zeros(size, size))

    def _weights(self) -> Tensor | None:
        """Return W, (J, J), zero on and above the diagonal; None if cells are independent."""
        return PACE * self.together.float().tril(-1) if len(self.together) else None

    def _logits(self, z: Tensor, batch: Batch) -> Tensor:
        """Return a_j without the terms of the other cells, (K, B, J)."""
        seen = self.full.expand_as(batch.x)
        seen = seen if batch.observed is None else seen & batch.observed
        features = self.space.features(batch.x, seen, self.start.dtype).flatten(1)
        return self.start.float() + self.outputs(z, batch.given, features)

    def log_prob(self, z: Tensor, batch: Batch) -> Tensor:
        empty = self._empty(batch).float()
        weights, logits = self._weights(), self._logits(z, batch)
        if weights is not None:
            logits = logits + empty @ weights.T
        return -F.binary_cross_entropy_with_logits(
            logits, empty.expand_as(logits), reduction="none"
        ).sum(-1)

    def trained(self, z: Tensor, batch: Batch) -> Tensor:
        """Return 0 with a gradient in the parameters of this module alone.

        The gradient is scaled down, so that the norm that is clipped and logged is that of the
        bound. The steps of AdamW do not depend on the scale of a gradient.
        """
        log_prob = GENTLE * self.log_prob(z.detach(), batch)
        return log_prob - log_prob.detach()

    def without_z(self, batch: Batch) -> Tensor:
        empty, logits = self._empty(batch).double(), self.start.double()
        return (empty * F.logsigmoid(logits) + (1 - empty) * F.logsigmoid(-logits)).sum(-1)

    def _empty(self, batch: Batch) -> Tensor:
        """Return which of the cells that can be empty are, (B, J)."""
        if batch.observed is None:
            return torch.zeros(len(batch), len(self.cells), dtype=torch.bool, device=batch.x.device)
        return ~batch.observed.flatten(1)[:, self.cells]

    def draw(self, z: Tensor, drawn: Batch, generator: torch.Generator | None) -> Tensor:
        """Draw which cells are empty, (B, *X).

        Args:
            z: latents (B, *Z).
            drawn: values of all cells that were drawn at them, and their conditions.
            generator: of the draws.
        """
        logits = self._logits(z.unsqueeze(0), drawn)[0]
        weights, noise = self._weights(), uniform(logits, generator)
        which = noise < logits.sigmoid()
        if weights is not None:
            for j in range(1, len(weights)):
                more = which[:, :j].float() @ weights[j, :j]
                which[:, j] = noise[:, j] < (logits[:, j] + more).sigmoid()
        empty = self.always.expand(len(z), -1).clone()
        empty[:, self.cells] = which
        return empty.unflatten(1, self.space.shape)
