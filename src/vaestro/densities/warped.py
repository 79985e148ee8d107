"""Densities of numbers of any marginal shape: a transform to scores, and a mixture with atoms.

    p(x) = sum over atoms j of a_j [x in the cell of atom j] / w_j + (1 - sum_j a_j) f(T(x)) T'(x)

with f the density of the score T(x), and w_j the width of the cell. The cells are those that
dequantisation spreads a value over, so p is a density on the same measure as f alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from vaestro.densities.continuous import LocationScale, Normal
from vaestro.densities.core import Cells, uniform
from vaestro.spaces.warps import Warps

# nodes of the trapezoid rule for means, in scales of the density of the scores
NODES = 33
REACH = 6.0


@final
@dataclass(frozen=True)
class Atoms:
    """Describe the atoms of n columns, at most m of each.

    Args:
        centres: of the cells, (n, m); NaN where a column has fewer atoms.
        widths: of the cells, (n, 1).
        places: which of the logits, followed by 0 and -inf, belong to each column's rest and atoms,
            (n, 1 + m).

    >>> atoms = Atoms(torch.zeros(1, 1), torch.ones(1, 1), torch.tensor([[1, 0]]))
    >>> atoms.contain(torch.tensor([0.4, 0.6]).unsqueeze(-1)).flatten()
    tensor([ True, False])
    """

    centres: Tensor
    widths: Tensor
    places: Tensor

    def log_shares(self, logits: Tensor) -> Tensor:
        """Return the log-probabilities of the rest and of the atoms, (..., n, 1 + m).

        Args:
            logits: of the atoms of all columns, one column after the other, (..., k). The rest of
                each column has the logit 0.
        """
        ends = logits.new_tensor([0.0, -torch.inf]).expand(*logits.shape[:-1], 2)
        return torch.cat([logits, ends], -1)[..., self.places].log_softmax(-1)

    def contain(self, x: Tensor) -> Tensor:
        """Return which atom's cell contains each value (..., n), (..., n, m)."""
        return (x.unsqueeze(-1) - self.centres).abs() <= self.widths / 2


@final
class Warped(Cells):
    """Represent the real columns of a table, each with its marginal transform and its atoms.

    Args:
        scores: the density of the scores, (..., n).
        warps: the transforms.
        atoms: the atoms; None if no column has any.
        log_shares: log-probabilities of the rest and of the atoms, (..., n, 1 + m).

    >>> warps = Warps([("log", (0.1, 10.0, 0.0, 1.0, 0.0))])
    >>> lognormal = Warped(Normal(torch.zeros(1), torch.zeros(1)), warps)
    >>> round(float(lognormal.mean), 2)  # exp(1 / 2), but for the tangent beyond 10
    1.63
    """

    dims = 1

    def __init__(
        self,
        scores: Normal | LocationScale,
        warps: Warps,
        atoms: Atoms | None = None,
        log_shares: Tensor | None = None,
    ) -> None:
        self.scores, self.warps, self.atoms, self.log_shares = scores, warps, atoms, log_shares

    @property
    def mean(self) -> Tensor:
        noise = torch.linspace(-REACH, REACH, NODES).to(self.scores.mean)
        at = self.scores.from_noise(noise.reshape(-1, *[1] * self.scores.mean.ndim))
        weights = self.scores.cells(at).softmax(0)
        rest = (weights * self.warps.values(at)).sum(0)
        if self.atoms is None or self.log_shares is None:
            return rest
        shares = self.log_shares.exp()
        return shares[..., 0] * rest + (shares[..., 1:] * self.atoms.centres.nan_to_num()).sum(-1)

    def cells(self, value: Tensor) -> Tensor:
        scores, log_slopes = self.warps.scores(value)
        rest = self.scores.cells(scores) + log_slopes
        if self.atoms is None or self.log_shares is None:
            return rest
        rest = rest + self.log_shares[..., 0]
        inside = self.atoms.contain(value)
        heights = self.log_shares[..., 1:] - self.atoms.widths.log()
        atom = torch.where(inside, heights, 0.0).sum(-1)  # cells are disjoint
        return torch.where(inside.any(-1), torch.logaddexp(rest, atom), rest)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        rest = self.warps.values(self.scores.sample(generator))
        if self.atoms is None or self.log_shares is None:
            return rest
        shares = self.log_shares.detach().exp().cumsum(-1)
        below = uniform(rest, generator).unsqueeze(-1) * shares[..., -1:]
        which = (below >= shares[..., :-1]).sum(-1, keepdim=True)
        centres = self.atoms.centres.expand(*which.shape[:-1], -1)
        centre = centres.gather(-1, (which - 1).clamp_min(0)).squeeze(-1)
        spread = self.atoms.widths.squeeze(-1) * (uniform(rest, generator) - 0.5)
        return torch.where(which.squeeze(-1) > 0, centre + spread, rest)

    def standardised_residual(self, value: Tensor) -> Tensor:
        residual = self.scores.standardised_residual(self.warps.scores(value)[0])
        if self.atoms is None:
            return residual
        return torch.where(self.atoms.contain(value).any(-1), torch.nan, residual)
