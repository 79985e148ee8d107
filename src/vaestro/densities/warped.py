"""Densities of numbers of any marginal shape: a transform to scores, and a mixture with atoms.

    p(x) = sum over atoms j of a_j [x in the cell of atom j] / w_j + (1 - sum_j a_j) f(T(x)) T'(x)

with f the density of the score T(x), and w_j the width of the cell. The cells are those that
dequantisation spreads a value over, so p is a density on the same measure as f alone. An atom
without such a cell is a point x_j with the probability a_j, and p is a density on a mixed measure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from vaestro.densities.continuous import LocationScale, Normal
from vaestro.densities.core import Cells, DataDensity, uniform
from vaestro.spaces.warps import Transform

# nodes of the trapezoid rule for means, in scales of the density of the scores
NODES = 33
REACH = 6.0


@final
@dataclass(frozen=True)
class Atoms:
    """Describe the atoms of columns, or of the cells of an array (*X); at most m of each.

    Args:
        centres: of the cells, (*X, m); NaN where a column has fewer atoms.
        widths: of the cells, (*X, 1).
        places: which of the logits, followed by 0 and -inf, belong to each column's rest and atoms,
            (*X, 1 + m); None if they are not needed.
        points: which atoms are points, (*X, 1); None if none is. Their width is a tolerance.
        units: the length inside of which a point has the size, (*X, 1): one unit of the user's.

    >>> atoms = Atoms(torch.zeros(1, 1), torch.ones(1, 1), torch.tensor([[1, 0]]))
    >>> atoms.contain(torch.tensor([0.4, 0.6]).unsqueeze(-1)).flatten()
    tensor([ True, False])
    """

    centres: Tensor
    widths: Tensor
    places: Tensor | None = None
    points: Tensor | None = None
    units: Tensor | None = None

    def log_shares(self, logits: Tensor) -> Tensor:
        """Return the log-probabilities of the rest and of the atoms, (..., n, 1 + m).

        Args:
            logits: of the atoms of all columns, one column after the other, (..., k). The rest of
                each column has the logit 0.
        """
        assert self.places is not None
        ends = logits.new_tensor([0.0, -torch.inf]).expand(*logits.shape[:-1], 2)
        return torch.cat([logits, ends], -1)[..., self.places].log_softmax(-1)

    def sizes(self) -> Tensor:
        """Return the measure of the cells, (*X, 1)."""
        if self.points is None or self.units is None:
            return self.widths
        return torch.where(self.points, self.units, self.widths)

    def spreads(self) -> Tensor:
        """Return over which width draws of the atoms are spread, (*X, 1)."""
        return self.widths if self.points is None else torch.where(self.points, 0.0, self.widths)

    def contain(self, x: Tensor) -> Tensor:
        """Return which atom's cell contains each value (..., *X), (..., *X, m)."""
        return (x.unsqueeze(-1) - self.centres).abs() <= self.widths / 2


@final
class Warped(Cells):
    """Represent the real columns of a table, or the cells of an array, each with its transform and
    its atoms.

    Args:
        scores: the density of the scores, (..., *X).
        warps: the transforms.
        atoms: the atoms; None if no column has any.
        log_shares: log-probabilities of the rest and of the atoms, (..., *X, 1 + m).

    >>> from vaestro.spaces.warps import Warps
    >>> warps = Warps([("log", (0.1, 10.0, 0.0, 1.0, 0.0))])
    >>> lognormal = Warped(Normal(torch.zeros(1), torch.zeros(1)), warps)
    >>> round(float(lognormal.mean), 2)  # exp(1 / 2), but for the tangent beyond 10
    1.63
    """

    def __init__(
        self,
        scores: Normal | LocationScale,
        warps: Transform,
        atoms: Atoms | None = None,
        log_shares: Tensor | None = None,
    ) -> None:
        self.scores, self.warps, self.atoms, self.log_shares = scores, warps, atoms, log_shares
        self.dims = scores.dims

    @property
    def mean(self) -> Tensor:
        rest, total = torch.zeros(()), torch.zeros(())
        top = self.scores.cells(self.scores.from_noise(torch.zeros(()).to(self.scores.mean)))
        for node in torch.linspace(-REACH, REACH, NODES).to(self.scores.mean):
            at = self.scores.from_noise(node)
            weight = torch.exp(self.scores.cells(at) - top)
            rest, total = rest + weight * self.warps.values(at), total + weight
        rest = rest / total
        if self.atoms is None or self.log_shares is None:
            return rest
        shares = self.log_shares.exp()
        return shares[..., 0] * rest + (shares[..., 1:] * self.atoms.centres.nan_to_num()).sum(-1)

    def on_line(self) -> DataDensity:
        return self.scores

    def of_line(self, density: DataDensity) -> DataDensity:
        assert isinstance(density, Normal | LocationScale)
        return Warped(density, self.warps, self.atoms, self.log_shares)

    def scored(self, value: Tensor, observed: Tensor | None) -> tuple[Tensor, Tensor | None]:
        scores, _ = self.warps.scores(value)
        if self.atoms is None:
            return scores, observed
        rest = ~self.atoms.contain(value).any(-1)
        return scores, rest if observed is None else rest & observed

    def cells(self, value: Tensor) -> Tensor:
        scores, log_slopes = self.warps.scores(value)
        rest = self.scores.cells(scores) + log_slopes
        if self.atoms is None or self.log_shares is None:
            return rest
        rest = rest + self.log_shares[..., 0]
        inside = self.atoms.contain(value)
        heights = self.log_shares[..., 1:] - self.atoms.sizes().log()
        atom = torch.where(inside, heights, 0.0).sum(-1)  # cells are disjoint
        both = torch.logaddexp(rest, atom)
        if self.atoms.points is not None:
            both = torch.where(self.atoms.points.squeeze(-1), atom, both)
        return torch.where(inside.any(-1), both, rest)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        rest = self.warps.values(self.scores.sample(generator))
        if self.atoms is None or self.log_shares is None:
            return rest
        shares = self.log_shares.detach().exp().cumsum(-1)
        below = uniform(rest, generator).unsqueeze(-1) * shares[..., -1:]
        which = (below >= shares[..., :-1]).sum(-1, keepdim=True)
        centres = self.atoms.centres.expand(*which.shape[:-1], -1)
        centre = centres.gather(-1, (which - 1).clamp_min(0)).squeeze(-1)
        spread = self.atoms.spreads().squeeze(-1) * (uniform(rest, generator) - 0.5)
        return torch.where(which.squeeze(-1) > 0, centre + spread, rest)

    def residual(self, value: Tensor) -> Tensor:
        """Return the differences of the scores."""
        return self.warps.scores(value)[0] - self.scores.mean

    def standardised_residual(self, value: Tensor) -> Tensor:
        residual = self.scores.standardised_residual(self.warps.scores(value)[0])
        if self.atoms is None:
            return residual
        return torch.where(self.atoms.contain(value).any(-1), torch.nan, residual)
