"""The likelihood of a row of a table: a product over its columns.

log p(x | z) = sum over columns c of log p_c(x_c | z)

The density of a real column is that of its score T_c(x_c) (`vaestro.spaces.warps`), mixed with the
probabilities of its atoms (`vaestro.densities.warped`).
"""

from __future__ import annotations

import math
from typing import Literal, final

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

from vaestro import densities
from vaestro.densities import soft_limit
from vaestro.likelihoods.counts import raw_log_mean
from vaestro.likelihoods.dequantised import Dequantised
from vaestro.likelihoods.dispersions import INVERSE_LIMIT, Dispersed
from vaestro.likelihoods.ordinal import cuts_of
from vaestro.likelihoods.scales import PACES, Scaled, Shared, Version
from vaestro.spaces import Kind, Space
from vaestro.spaces import widths as grid_widths
from vaestro.spaces.warps import Warps

ROUNDING = 4e-7  # of a value of 1 plus its dequantisation noise, in float32


@final
class Table(Scaled, Dispersed, Dequantised):
    """Represent a row of a table by a product over its columns, each by its kind: real, count,
    binary, ordinal, category.

    Args:
        space, decoder: see Likelihood.
        real: the density of the scores of real columns and dates; those on a grid are dequantised.
        count: the probability of count columns.
        scale: "cell", predicted by the decoder for each cell; "column", one learned for each
            column.
        df: degrees of freedom of student-t.
        limit: log-scales and log-means lie in (-limit, limit), by `soft_limit`.
        version: 1 repeats runs made before versions were counted, whose log-scales and log inverse
            dispersions start at 0 and are learned as slowly as a weight; 2 those that learned them
            at a quarter of the present speed.

    >>> from vaestro.spaces import BinaryColumn, RealColumn, TableSpace
    >>> names = [RealColumn("age", "float32"), BinaryColumn("ill", "bool")]
    >>> likelihood = Table(TableSpace.of(names), nn.Linear(2, 3))
    >>> likelihood(torch.zeros(1, 5, 2)).log_prob(torch.zeros(5, 2)).shape
    torch.Size([1, 5])
    """

    accepts = frozenset({Kind.TABLE})
    df: Tensor
    centres: Tensor
    widths: Tensor
    places: Tensor

    def __init__(
        self,
        space: Space,
        decoder: nn.Module,
        *,
        real: Literal["gaussian", "laplace", "logistic", "student-t"] = "gaussian",
        count: Literal["negative-binomial", "poisson"] = "negative-binomial",
        scale: Literal["column", "cell"] = "cell",
        df: float = 4.0,
        limit: float = 20.0,
        version: Version = 3,
    ) -> None:
        super().__init__(space, decoder)
        if not 0 < limit <= 40 or not 1 < df < math.inf:
            raise ValueError(f"expected a limit in (0, 40] and df above 1; got {limit} and {df}")
        self.real, self.count, self.scale, self.limit = real, count, scale, limit
        self.reals, self.counts, self.binaries = (
            len(space.of_kind(k)) for k in (Kind.REAL, Kind.COUNT, Kind.BINARY)
        )
        self.cuts = cuts_of(space.of_kind(Kind.ORDINAL))
        if scale == "column":
            self.share(Shared((self.reals,), np.zeros(()), np.zeros((), bool), PACES[version]), 1)
            if count == "negative-binomial":
                self.disperse((self.counts,), version)
        self.dequantise((self.reals,))
        self.warps = Warps.of(space.of_kind(Kind.REAL))
        self.points = _points(space)
        for name, values in zip(("centres", "widths", "places"), _atoms(space), strict=True):
            self.register_buffer(name, values, persistent=False)
        self.register_buffer(
            "df", torch.tensor(df, dtype=torch.get_default_dtype()), persistent=False
        )

    @staticmethod
    def _widths(space: Space, count: str, scale: str) -> list[int]:
        """Return the number of outputs of real, count and binary columns, of each ordinal column
        and category, and of the atoms of real columns."""
        each = 2 if scale == "cell" else 1
        of_counts = each if count == "negative-binomial" else 1
        return [
            each * len(space.of_kind(Kind.REAL)),
            of_counts * len(space.of_kind(Kind.COUNT)),
            len(space.of_kind(Kind.BINARY)),
            *[1] * len(space.of_kind(Kind.ORDINAL)),
            *[len(c.values) for c in space.of_kind(Kind.CATEGORY)],
            _points(space),
        ]

    @classmethod
    def outputs(
        cls, space: Space, *, count: str = "negative-binomial", scale: str = "cell", **_: object
    ) -> tuple[int, ...]:
        return (sum(cls._widths(space, count, scale)),)

    @classmethod
    def start(
        cls,
        space: Space,
        *,
        count: str = "negative-binomial",
        scale: str = "cell",
        limit: float = 20.0,
        **_: object,
    ) -> Tensor:
        widths = cls._widths(space, count, scale)
        pieces = [torch.zeros(widths[0])]
        means = [c.start[0] if c.start else 1.0 for c in space.of_kind(Kind.COUNT)]
        counts = raw_log_mean(torch.tensor(means), limit)
        pieces.append(torch.cat([counts, torch.zeros(widths[1] - len(counts))]))
        pieces += [c.first_outputs() for c in space.columns if c.coded]
        shares = [np.array(c.start) for c in space.of_kind(Kind.REAL) if c.points]
        pieces += [torch.tensor(np.log(p / (1 - p.sum()))) for p in shares]
        return torch.cat([piece.float() for piece in pieces])

    def forward(self, z: Tensor, given: Tensor | None = None) -> densities.Product:
        pieces = self.decode(z, given).split(self._widths(self.space, self.count, self.scale), -1)
        parts: list[tuple[int, densities.Cells]] = []
        if self.reals:
            parts.append((self.reals, self._real(pieces[0], pieces[-1])))
        if self.counts:
            if self.count == "poisson":
                parts.append((self.counts, densities.Poisson(soft_limit(pieces[1], self.limit))))
            else:
                if self.dispersed:
                    log_mean, log_inverse = pieces[1], self.inverses()
                else:
                    log_mean, raw = pieces[1].chunk(2, -1)
                    log_inverse = soft_limit(raw, INVERSE_LIMIT)
                parts.append(
                    (self.counts, self.counted(soft_limit(log_mean, self.limit), log_inverse))
                )
        if self.binaries:
            parts.append((self.binaries, densities.Bernoulli(pieces[2], 1)))
        ordinal, category = pieces[3 : 3 + len(self.cuts)], pieces[3 + len(self.cuts) : -1]
        parts += [(1, cuts(location)) for cuts, location in zip(self.cuts, ordinal, strict=True)]
        parts += [(1, densities.Categorical(logits.unsqueeze(-1), 1)) for logits in category]
        return densities.Product(parts)

    def _real(self, outputs: Tensor, logits: Tensor) -> densities.Cells:
        """Return the density of the real columns from the decoder's outputs for them and for their
        atoms."""
        if self.scale == "cell":
            location, log_scale = outputs.chunk(2, -1)
            scores = self.family(location, soft_limit(log_scale, self.limit))
        else:
            scores = self.family(outputs, self.spreads())
        if not self.points:
            return densities.Warped(scores, self.warps) if self.warps else scores
        atoms = densities.Atoms(self.centres, self.widths, self.places)
        return densities.Warped(scores, self.warps, atoms, atoms.log_shares(logits))

    def counted(self, log_mean: Tensor, log_inverse: Tensor) -> densities.NegativeBinomial:
        return densities.NegativeBinomial(log_mean, log_inverse)

    @property
    def start_values(self) -> int:
        return max(self._scale_values, self.dispersion_values if self.counts else 0)

    @property
    def _scale_values(self) -> int:
        return super().start_values if self.reals else 0

    def begin_at(self, x: Tensor, observed: Tensor | None, given: Tensor | None) -> None:
        reals, counts = (
            (slice(None), slice(self.reals)),
            (slice(None), slice(self.reals, self.reals + self.counts)),
        )
        if self._scale_values:
            seen = torch.ones_like(x[reals], dtype=torch.bool)
            seen = seen if observed is None else observed[reals]
            if self.points:
                atoms = densities.Atoms(self.centres, self.widths, self.places)
                seen = seen & ~atoms.contain(x[reals]).any(-1)
            self.begin(self.warps.scores(x[reals])[0], seen, x.new_zeros(()))
        if self.counts and self.dispersion_values:
            self.begin_dispersion(
                x[counts], None if observed is None else observed[counts], x.new_zeros(())
            )

    def family(
        self, location: Tensor, number: Tensor
    ) -> densities.Normal | densities.LocationScale:
        if self.real == "gaussian":
            return densities.Normal(location, 2 * number)
        if self.real == "student-t":
            return densities.StudentT(location, number, self.df)
        return (densities.Laplace if self.real == "laplace" else densities.Logistic)(
            location, number
        )


def _points(space: Space) -> int:
    """Return the number of atoms of all real columns."""
    return sum(len(c.points) for c in space.of_kind(Kind.REAL))


def _atoms(space: Space) -> tuple[Tensor, Tensor, Tensor]:
    """Return the centres and widths of the atoms of the real columns, inside, and the places of
    their logits, as `densities.Atoms` has them."""
    columns, total = space.of_kind(Kind.REAL), _points(space)
    most = max((len(c.points) for c in columns), default=0)
    centres = np.full((len(columns), most), np.nan)
    widths = np.ones((len(columns), 1))
    places = np.full((len(columns), 1 + most), total + 1)
    places[:, 0] = total
    first = 0
    for i, c in enumerate(columns):
        n = len(c.points)
        if n:
            centres[i, :n] = (np.array(c.points) - c.offset) / c.scale
            places[i, 1 : 1 + n] = first + np.arange(n)
            # the sum of a value and its noise is rounded in float32
            rounding = ROUNDING * max(1.0, float(np.abs(centres[i, :n]).max()))
            widths[i] = float(grid_widths(c.resolution, c.scale)) / c.scale + rounding
            first += n
    dtype = torch.get_default_dtype()
    return (
        torch.from_numpy(centres).to(dtype),
        torch.from_numpy(widths).to(dtype),
        torch.from_numpy(places),
    )
