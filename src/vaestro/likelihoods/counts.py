"""Likelihoods of counts.

    Poisson            log p(x | z) = x log m - m - log x!
    negative binomial  log p(x | z) = log NB(x; m, r), with variance m + m^2 / r
    zero-inflated      p(x | z) = sigmoid(l) [x = 0] + sigmoid(-l) p_base(x | z)

In each cell, m is the mean and r the inverse dispersion. With a library N (Lopez et al. 2018),
m = N softmax(decoder(z)); N can be a latent too. With size factors s, whose mean is about 1,
m = s softplus(decoder(z)).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, final

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from vaestro import densities
from vaestro.densities import soft_limit
from vaestro.likelihoods.base import Likelihood
from vaestro.likelihoods.dispersions import INVERSE_LIMIT, Dispersed
from vaestro.likelihoods.scales import Version, unlimited
from vaestro.spaces import Column, Kind, Space

Mean = Literal["softmax", "softplus"]
OBSERVED = "observed"  # the library that is the sum of the modelled counts
LATENT = "latent"  # the library that is a further latent unit
LIBRARY = "library"  # the condition that contains this sum
FIRST_LOGIT = -2.0  # probability that a count is missed, before the first step
LIBRARY_ROWS = 256  # number of training rows from which the prior of a latent library starts
LEAST_SPREAD = 0.05  # smallest standard deviation of the log library at the start
LOG_CHI_SQUARE = -1.2704  # mean of log(u^2) for a standard normal u


def raw_log_mean(mean: Tensor, limit: float) -> Tensor:
    """Return the inverse of `soft_limit` at log(mean), clamped to 0.9 of the limit.

    >>> soft_limit(raw_log_mean(torch.tensor(20.0), 20.0), 20.0).exp().round()
    tensor(20.)
    """
    return unlimited(torch.log(mean.clamp_min(1e-3)).clamp(-0.9 * limit, 0.9 * limit), limit)


def library_condition(library: str) -> str:
    """Return the condition that a library names.

    >>> library_condition("depth"), library_condition("observed")
    ('depth', 'library')
    """
    return LIBRARY if library == OBSERVED else library


def log_softplus(x: Tensor) -> Tensor:
    """Return log(softplus(x)), which is finite for all x.

    >>> log_softplus(torch.tensor([-100.0, 0.0])).round(decimals=3)
    tensor([-100.0000,   -0.3670])
    """
    return torch.where(x < -15, x, F.softplus(x.clamp_min(-15)).log())


class _Counts(Likelihood):
    """Base class of likelihoods of counts, with the mean of each cell.

    With `library=NAME` the mean is the condition NAME times a softmax over the cells, as for single
    cells, whose totals depend on the sequencing depth (Lopez et al. 2018). The library is a
    condition. `library=observed` is the condition `library`, the sum of the scored counts: bounds
    are then not bounds on log p(x). With `mean="softplus"` the condition is a size factor, by which
    a softplus of each cell's output is multiplied.

    With `library=latent` the log library is a latent with a normal prior, whose mean and variance
    depend on the conditions. It is m + s u for one further unit u ~ N(0, 1) of z, so its KL is that
    of u. The decoder does not have u as an input. m and log s are linear in the conditions, and
    learned with the weights.
    """

    accepts = frozenset({Kind.COUNT})
    advice = "; whole numbers are read as counts with SOURCE:kind=count"

    def __init__(
        self, space: Space, decoder: nn.Module, limit: float, library: str | None, mean: Mean
    ) -> None:
        super().__init__(space, decoder)
        if mean == "softplus" and library is None:
            raise ValueError("expected library=NAME, the size factors, for mean=softplus; got none")
        if mean == "softplus" and library == LATENT:
            raise ValueError("expected mean=softmax for library=latent; got softplus")
        self.limit, self.library, self.mean = limit, library, mean
        self._place: tuple[int, Column] | None = None
        self.further_units = int(library == LATENT)
        self.library_by: nn.Parameter | None = None
        if self.further_units:
            self.library_base = nn.Parameter(torch.zeros(2))  # m and log s

    @classmethod
    def units_beside(cls, **options: object) -> int:
        return int(options.get("library") == LATENT)

    @property
    def condition_weights(self) -> tuple[str, ...]:
        """Return the names of the weights that are multiplied by the conditions."""
        return () if self.library_by is None else ("library_by",)

    @staticmethod
    def _at_the_mean(space: Space, limit: float, library: str | None, mean: str) -> Tensor:
        if space.marginal is None:
            return torch.zeros(())
        means = torch.from_numpy(space.marginal)
        if library is None:
            return raw_log_mean(means, limit)
        means = means.clamp_min(1e-6)
        # the inverse of softplus is log(exp(m) - 1)
        return means.log() if mean == "softmax" else means + torch.log(-torch.expm1(-means))

    def bind(self, given: Space | None) -> None:
        if self.library == LATENT and given is not None:
            self.library_by = nn.Parameter(torch.zeros(2, given.feature_shape[0]))
        if self.library in (None, LATENT):
            return
        columns = [] if given is None else list(given.columns)
        name = library_condition(str(self.library))
        matches = [(i, c) for i, c in enumerate(columns) if c.name == name and c.numeric]
        if not matches:
            names = ", ".join(c.name for c in columns if c.numeric) or "none"
            raise ValueError(
                f"expected a condition of numbers named {name!r} (--condition {name}); got {names}"
            )
        self._place = matches[0]

    def check_conditions(self, values: Mapping[str, np.ndarray], names: Sequence[str]) -> None:
        if self._place is None or (name := self._place[1].name) not in values:
            return
        # conditions are stored as float32 after standardisation, so a zero may have become tiny
        libraries, least = values[name], 1e-6 * abs(self._place[1].offset)
        bad = np.flatnonzero(~(libraries > least))
        if not len(bad):
            return
        first = float(libraries[bad[0]])
        got = f"{name}={0.0 if abs(first) <= least else first:g}"
        if len(names) > 1:
            shown = ", ".join(names[i] for i in bad[:3]) + (" .." if len(bad) > 3 else "")
            got += f" in {len(bad):,} of {len(libraries):,} rows ({shown}): leave them out"
        raise ValueError(f"expected libraries above 0; got {got}")

    def decode(self, z: Tensor, given: Tensor | None) -> Tensor:
        return super().decode(z[..., :-1] if self.library == LATENT else z, given)

    def log_mean(self, out: Tensor, z: Tensor, given: Tensor | None) -> Tensor:
        """Return the logarithm of each cell's mean, (K, B, *X), from the decoder's output at z."""
        if self.library is None:
            return soft_limit(out, self.limit)
        if self.library == LATENT:
            mean, log_spread = self.library_prior(given).unbind(-1)
            log_size = mean + log_spread.exp() * z[..., -1]
            log_size = log_size.reshape(*z.shape[:2], *[1] * self.dims)
        else:
            log_size = self.log_size(given, out.dtype)
        if self.mean == "softplus":
            return log_softplus(out) + log_size
        shares = torch.log_softmax(out.flatten(-self.dims), -1).unflatten(-1, self.space.shape)
        return shares + log_size

    def library_prior(self, given: Tensor | None) -> Tensor:
        """Return the mean and the log standard deviation of the log library, (B, 2), or (2,)
        without conditions."""
        if self.library_by is None:
            return self.library_base
        if given is None:
            raise ValueError("expected conditions for a library that depends on them; got none")
        return self.library_base + given.to(self.library_base.dtype) @ self.library_by.T

    @property
    def start_values(self) -> int:
        return self._library_values

    @property
    def _library_values(self) -> int:
        fresh = self.library == LATENT and self.library_base.requires_grad
        return LIBRARY_ROWS * self.space.cells if fresh and not self.library_base.any() else 0

    @torch.no_grad()
    def begin_at(self, x: Tensor, observed: Tensor | None, given: Tensor | None) -> None:
        """Set the prior of a latent library to the totals of training data, by least squares."""
        if not self._library_values:
            return
        base = self.library_base
        logs = self.log_totals(x, observed, base.dtype).flatten()
        one = torch.ones_like(logs).unsqueeze(1)
        design = one if given is None else torch.cat([one, given.to(base.dtype)], 1)
        solve = torch.linalg.pinv(design)
        means = solve @ logs
        squares = (logs - design @ means).square()
        squares = squares.clamp_min(max(LEAST_SPREAD**2, 1e-3 * float(squares.mean())))
        spreads = solve @ ((squares.log() - LOG_CHI_SQUARE) / 2)
        both = torch.stack([means, spreads])
        base.copy_(both[:, 0])
        if self.library_by is not None:
            self.library_by.copy_(both[:, 1:])

    def log_totals(self, x: Tensor, observed: Tensor | None, dtype: torch.dtype) -> Tensor:
        """Return the logarithm of the sum of each datum's counts, (B, 1 ..)."""
        counts = x.to(dtype) if observed is None else torch.where(observed, x, 0).to(dtype)
        return counts.flatten(1).sum(1).clamp_min(1).log().reshape(-1, *[1] * self.dims)

    def log_size(self, given: Tensor | None, dtype: torch.dtype) -> Tensor:
        """Return the logarithm of each datum's library, (B, 1 ..); 0 without a library."""
        if self.library is None:
            return torch.zeros((), dtype=dtype)
        if self._place is None or given is None:
            raise ValueError(
                f"expected the condition {self.library!r} for a likelihood with a library; got none"
            )
        place, column = self._place
        size = column.decoded(given[:, place].to(dtype))
        return size.clamp_min(1e-6).log().reshape(-1, *[1] * self.dims)


@final
class Poisson(_Counts):
    """Represent counts by a Poisson on each cell, from the logarithm of its mean.

    Args:
        space, decoder: see Likelihood.
        limit: the log-mean lies in (-limit, limit), by `soft_limit`.
        library: the condition of which each cell's mean is a fraction; `observed` is the sum of the
            datum's own counts, and `latent` a further latent unit (Lopez et al. 2018).
        mean: how the mean of a cell follows from the library: by a softmax over the cells, or, for
            size factors, by a softplus of each.

    >>> from vaestro.spaces import CountSpace
    >>> likelihood = Poisson(CountSpace((3,), (3,)), nn.Linear(2, 3))
    >>> likelihood(torch.zeros(1, 5, 2)).log_prob(torch.ones(5, 3)).shape
    torch.Size([1, 5])
    """

    def __init__(
        self,
        space: Space,
        decoder: nn.Module,
        *,
        limit: float = 20.0,
        library: str | None = None,
        mean: Mean = "softmax",
    ) -> None:
        super().__init__(space, decoder, limit, library, mean)

    @classmethod
    def outputs(cls, space: Space, **_: object) -> tuple[int, ...]:
        return space.shape

    @classmethod
    def start(
        cls,
        space: Space,
        *,
        limit: float = 20.0,
        library: str | None = None,
        mean: Mean = "softmax",
        **_: object,
    ) -> Tensor:
        return cls._at_the_mean(space, limit, library, mean)

    def forward(self, z: Tensor, given: Tensor | None = None) -> densities.Poisson:
        return densities.Poisson(self.log_mean(self.decode(z, given), z, given), self.dims)


class _DispersedCounts(Dispersed, _Counts):
    """Initialise a learned dispersion by a fit to the training data."""

    dispersion: str

    @property
    def start_values(self) -> int:
        return max(super().start_values, self.dispersion_values)

    def begin_at(self, x: Tensor, observed: Tensor | None, given: Tensor | None) -> None:
        super().begin_at(x, observed, given)
        if not self.dispersion_values:
            return
        dtype = self.log_inverse.dtype
        log_size = (
            self.log_totals(x, observed, dtype)
            if self.library == LATENT
            else self.log_size(given, dtype).to(x.device)
        )
        self.begin_dispersion(x, observed, log_size, given)

    def bind(self, given: Space | None) -> None:
        super().bind(given)
        if self.dispersion == "condition":
            self.disperse_by(given)

    @property
    def condition_weights(self) -> tuple[str, ...]:
        """Return the names of the weights that are multiplied by the conditions."""
        return (*super().condition_weights, *(("by_category",) if self.categories else ()))


@final
class NegativeBinomial(_DispersedCounts):
    """Represent counts by a negative binomial on each cell: a Poisson with more variance than its
    mean.

    Args:
        space, decoder: see Likelihood.
        dispersion: "shared", one learned for each cell of a datum, the same for all data, and
            initialised by a fit to the training data. "condition", one for each cell of a datum and
            category of the conditions, such as the batch (`gene-batch` in scvi-tools); the
            logarithms of several conditions add up. "cell", predicted by the decoder.
        limit: the log-mean lies in (-limit, limit), by `soft_limit`.
        library: the condition of which each cell's mean is a fraction; `observed` is the sum of the
            datum's own counts, and `latent` a further latent unit (Lopez et al. 2018).
        mean: how the mean of a cell follows from the library: by a softmax over the cells, or, for
            size factors, by a softplus of each.
        version: 1 repeats runs made before versions were counted, whose log inverse dispersions
            start at 0 and are learned as slowly as a weight; 2 those that learned them at a
            quarter of the present speed.

    >>> from vaestro.spaces import CountSpace
    >>> likelihood = NegativeBinomial(CountSpace((3,), (3,)), nn.Linear(2, 3))
    >>> likelihood(torch.zeros(1, 5, 2)).log_prob(torch.ones(5, 3)).shape
    torch.Size([1, 5])
    """

    def __init__(
        self,
        space: Space,
        decoder: nn.Module,
        *,
        dispersion: Literal["shared", "condition", "cell"] = "shared",
        limit: float = 20.0,
        library: str | None = None,
        mean: Mean = "softmax",
        version: Version = 3,
    ) -> None:
        super().__init__(space, decoder, limit, library, mean)
        self.dispersion = dispersion
        if dispersion != "cell":
            self.disperse(space.shape, version)

    @classmethod
    def outputs(cls, space: Space, *, dispersion: str = "shared", **_: object) -> tuple[int, ...]:
        return (2, *space.shape) if dispersion == "cell" else space.shape

    @classmethod
    def start(
        cls,
        space: Space,
        *,
        limit: float = 20.0,
        library: str | None = None,
        mean: Mean = "softmax",
        dispersion: str = "shared",
        **_: object,
    ) -> Tensor:
        loc = cls._at_the_mean(space, limit, library, mean)
        return (
            torch.stack([loc, torch.zeros_like(loc)]) if dispersion == "cell" and loc.ndim else loc
        )

    def forward(self, z: Tensor, given: Tensor | None = None) -> densities.NegativeBinomial:
        out = self.decode(z, given)
        if not self.dispersed:
            log_mean, log_inverse = out.unbind(2)
            return self.counted(
                self.log_mean(log_mean, z, given), soft_limit(log_inverse, INVERSE_LIMIT)
            )
        return self.counted(self.log_mean(out, z, given), self.inverses(given))

    def counted(self, log_mean: Tensor, log_inverse: Tensor) -> densities.NegativeBinomial:
        return densities.NegativeBinomial(log_mean, log_inverse, self.dims)


@final
class ZeroInflated(_DispersedCounts):
    """Represent counts with more zeros than their mean implies, such as those that detection missed
    (Lopez et al. 2018, ZINB).

    Args:
        space, decoder: see Likelihood.
        counts: the density of counts that are not missed: "negative-binomial", with one dispersion
            for each cell of a datum, or "poisson".
        dispersion: "shared" or "condition", as for NegativeBinomial.
        limit: the log-mean and the logit of being missed lie in (-limit, limit), by `soft_limit`.
        library: the condition of which each cell's mean is a fraction; `observed` is the sum of the
            datum's own counts, and `latent` a further latent unit (Lopez et al. 2018).
        mean: how the mean of a cell follows from the library: by a softmax over the cells, or, for
            size factors, by a softplus of each.
        version: as for NegativeBinomial.

    >>> decoder = nn.Sequential(nn.Linear(2, 6), nn.Unflatten(1, (2, 3)))
    >>> from vaestro.spaces import CountSpace
    >>> likelihood = ZeroInflated(CountSpace((3,), (3,)), decoder)
    >>> likelihood(torch.zeros(1, 5, 2)).log_prob(torch.zeros(5, 3)).shape
    torch.Size([1, 5])
    """

    def __init__(
        self,
        space: Space,
        decoder: nn.Module,
        *,
        counts: Literal["negative-binomial", "poisson"] = "negative-binomial",
        dispersion: Literal["shared", "condition"] = "shared",
        limit: float = 20.0,
        library: str | None = None,
        mean: Mean = "softmax",
        version: Version = 3,
    ) -> None:
        super().__init__(space, decoder, limit, library, mean)
        if dispersion == "condition" and counts == "poisson":
            raise ValueError(
                "expected counts=negative-binomial for dispersion=condition; got poisson"
            )
        self.dispersion = dispersion
        if counts == "negative-binomial":
            self.disperse(space.shape, version)

    @classmethod
    def outputs(cls, space: Space, **_: object) -> tuple[int, ...]:
        return (2, *space.shape)

    @classmethod
    def start(
        cls,
        space: Space,
        *,
        limit: float = 20.0,
        library: str | None = None,
        mean: Mean = "softmax",
        **_: object,
    ) -> Tensor:
        loc = cls._at_the_mean(space, limit, library, mean)
        return torch.stack([loc, torch.full_like(loc, FIRST_LOGIT)]) if loc.ndim else loc

    def forward(self, z: Tensor, given: Tensor | None = None) -> densities.ZeroInflated:
        out, missed = self.decode(z, given).unbind(2)
        log_mean = self.log_mean(out, z, given)
        base: densities.NegativeBinomial | densities.Poisson = densities.Poisson(
            log_mean, self.dims
        )
        if self.dispersed:
            base = densities.NegativeBinomial(log_mean, self.inverses(given), self.dims)
        return densities.ZeroInflated(base, soft_limit(missed, self.limit))

    def counted(self, log_mean: Tensor, log_inverse: Tensor) -> densities.ZeroInflated:
        logit = soft_limit(torch.full_like(log_mean, FIRST_LOGIT), self.limit)
        return densities.ZeroInflated(
            densities.NegativeBinomial(log_mean, log_inverse, self.dims), logit
        )
