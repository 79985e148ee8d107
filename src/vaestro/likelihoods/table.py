"""The likelihood of a row of a table: a product over its columns.

log p(x | z) = sum over columns c of log p_c(x_c | z)
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
from vaestro.likelihoods.scales import PACE, Scaled, Shared, Version
from vaestro.spaces import Kind, Space


@final
class Table(Scaled, Dispersed, Dequantised):
    """Represent a row of a table by a product over its columns, each by its kind: real, count,
    binary, ordinal, category.

    Args:
        space, decoder: see Likelihood.
        real: the density of real columns and dates; those on a grid are dequantised.
        count: the probability of count columns.
        scale: "column", one learned for each column; "cell", predicted by the decoder for each
            cell.
        df: degrees of freedom of student-t.
        limit: log-scales and log-means lie in (-limit, limit), by `soft_limit`.
        version: 1 repeats runs made before versions were counted, whose log-scales and log inverse
            dispersions start at 0 and are learned as slowly as a weight.

    >>> from vaestro.spaces import BinaryColumn, RealColumn, TableSpace
    >>> names = [RealColumn("age", "float32"), BinaryColumn("ill", "bool")]
    >>> likelihood = Table(TableSpace.of(names), nn.Linear(2, 2))
    >>> likelihood(torch.zeros(1, 5, 2)).log_prob(torch.zeros(5, 2)).shape
    torch.Size([1, 5])
    """

    accepts = frozenset({Kind.TABLE})
    df: Tensor

    def __init__(
        self,
        space: Space,
        decoder: nn.Module,
        *,
        real: Literal["gaussian", "laplace", "logistic", "student-t"] = "gaussian",
        count: Literal["negative-binomial", "poisson"] = "negative-binomial",
        scale: Literal["column", "cell"] = "column",
        df: float = 4.0,
        limit: float = 20.0,
        version: Version = 2,
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
            self.share(
                Shared(
                    (self.reals,), np.zeros(()), np.zeros((), bool), PACE if version == 2 else 1.0
                ),
                1,
            )
            if count == "negative-binomial":
                self.disperse((self.counts,), version)
        self.dequantise((self.reals,))
        self.register_buffer(
            "df", torch.tensor(df, dtype=torch.get_default_dtype()), persistent=False
        )

    @staticmethod
    def _widths(space: Space, count: str, scale: str) -> list[int]:
        """Return the number of outputs of real, count and binary columns, and of each category."""
        each = 2 if scale == "cell" else 1
        of_counts = each if count == "negative-binomial" else 1
        return [
            each * len(space.of_kind(Kind.REAL)),
            of_counts * len(space.of_kind(Kind.COUNT)),
            len(space.of_kind(Kind.BINARY)),
            *[1] * len(space.of_kind(Kind.ORDINAL)),
            *[len(c.values) for c in space.of_kind(Kind.CATEGORY)],
        ]

    @classmethod
    def outputs(
        cls, space: Space, *, count: str = "negative-binomial", scale: str = "column", **_: object
    ) -> tuple[int, ...]:
        return (sum(cls._widths(space, count, scale)),)

    @classmethod
    def start(
        cls,
        space: Space,
        *,
        count: str = "negative-binomial",
        scale: str = "column",
        limit: float = 20.0,
        **_: object,
    ) -> Tensor:
        widths = cls._widths(space, count, scale)
        pieces = [torch.zeros(widths[0])]
        means = [c.start[0] if c.start else 1.0 for c in space.of_kind(Kind.COUNT)]
        counts = raw_log_mean(torch.tensor(means), limit)
        pieces.append(torch.cat([counts, torch.zeros(widths[1] - len(counts))]))
        return torch.cat([*pieces, *(c.first_outputs() for c in space.columns if c.coded)])

    def forward(self, z: Tensor, given: Tensor | None = None) -> densities.Product:
        pieces = self.decode(z, given).split(self._widths(self.space, self.count, self.scale), -1)
        parts: list[tuple[int, densities.Cells]] = []
        if self.reals:
            if self.scale == "cell":
                loc, log_scale = pieces[0].chunk(2, -1)
                parts.append((self.reals, self.family(loc, soft_limit(log_scale, self.limit))))
            else:
                parts.append((self.reals, self.family(pieces[0], self.spreads())))
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
        ordinal, category = pieces[3 : 3 + len(self.cuts)], pieces[3 + len(self.cuts) :]
        parts += [(1, cuts(location)) for cuts, location in zip(self.cuts, ordinal, strict=True)]
        parts += [(1, densities.Categorical(logits.unsqueeze(-1), 1)) for logits in category]
        return densities.Product(parts)

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
            self.begin(x[reals], None if observed is None else observed[reals], x.new_zeros(()))
        if self.counts and self.dispersion_values:
            self.begin_dispersion(
                x[counts], None if observed is None else observed[counts], x.new_zeros(())
            )

    def family(self, location: Tensor, number: Tensor) -> densities.Cells:
        if self.real == "gaussian":
            return densities.Normal(location, 2 * number)
        if self.real == "student-t":
            return densities.StudentT(location, number, self.df)
        return (densities.Laplace if self.real == "laplace" else densities.Logistic)(
            location, number
        )
