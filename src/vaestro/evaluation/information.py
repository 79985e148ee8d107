"""The decomposition of the rate under the aggregate posterior of N data.

Sources: Hoffman and Johnson (2016), Chen et al. (2018).

    q(z) = mean_n q(z | x_n)
    mean rate = I(n; z) + KL(q(z) || p(z))
    I(n; z) = E[log q(z | x_n) - log q(z)], the index-code mutual information
    KL(q(z) || p(z)) = TC + sum_j KL(q(z_j) || p(z_j))
    TC = E[log q(z) - sum_j log q(z_j)], the total correlation

with z ~ q(z | x_n). log q(z) is a log-sum over all N data including n, not over a batch of B,
which would limit the estimate to ln B. The average is over log q(z | x_n) - log q(z), in which much
of the noise cancels. The KLs are the rate (in closed form if there is one) minus the information,
so the parts add up to the rate exactly.

The estimate of I(n; z) is unbiased for the index of these N data, and is therefore at most ln N.
The true mutual information of data and codes is between the estimate and the rate, up to Monte
Carlo error. If the estimate is near ln N, it is not informative, and the KL to the prior is too
large.

Any density r that does not depend on the draw gives a lower bound for any N, E[log r(z) - log p(z)]
<= KL(q(z) || p(z)) of the population (Donsker and Varadhan 1975; Poole et al. 2019). For each unit
and datum, r is a mixture of three densities from the other data: their q, a normal with their
moments, and the prior with a small weight, because few narrow q leave gaps. The upper and the lower
estimate converge to each other as N grows.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import final

import numpy as np
import torch
from torch import Tensor

from vaestro import densities
from vaestro.densities import PosteriorDensity
from vaestro.evaluation.bounds import at_once
from vaestro.evaluation.records import Evaluation, Information, mean_and_error
from vaestro.evaluation.work import Job, Work
from vaestro.models import Draws
from vaestro.randomness import torch_generator

AFFORDABLE = 5_000_000_000  # number of log-densities of one unit; about a minute on two cores
MOST = 10_000
EACH = 256  # draws in a piece, and data in one density of several q
BLOCK = 2**18  # log-densities of one unit at once, which fit into the cache
# Mixture of the lower bound: weight of the prior, and the number of data at which the q and the
# normal have equal weights.
PRIOR_SHARE, SMOOTH_BELOW = 0.1, 100
NEAR = 1.0  # nats below ln N from which the mutual information counts as at its maximum


def informing(job: Job, *, n: int | None = None, draws: int = 1) -> list[Work]:
    """Decompose the rate under the aggregate posterior of the data.

    Sources: Hoffman and Johnson (2016), Chen et al. (2018). If the prior depends on conditions
    (`conditional`), codes and conditions may share information that is not in the rate. The mutual
    information is then estimated alone, and the rate is no bound on it.

    Args:
        job: model and data.
        n: number of rows, drawn at random, that make up the aggregate posterior; all if there are
            fewer. By default 10,000, or fewer where n * n * draws * units would exceed 5e9.
        draws: draws per datum.

    Raises:
        ValueError: n is below 2, or draws is below 1.

    >>> import vaestro as vs
    >>> data = vs.load(np.eye(40, dtype="uint8"))
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> job = Job(model.eval(), data.train, 10, 0, torch.device("cpu"))
    >>> [work.rows for work in informing(job, n=20)]
    [20]
    """
    if draws < 1 or (n is not None and n < 2):
        raise ValueError(f"expected n of 2 or more and draws of 1 or more; got {n} and {draws}")
    capabilities = job.model.capabilities
    if not (capabilities.q_from_features and capabilities.scored_anywhere):
        raise ValueError(
            "expected a posterior that can be scored at any z for information, which needs the "
            "density of each code under the q of all data; got a flow or a hierarchy"
        )
    return [Codes(job, n, draws)]


@final
class Codes(Work):
    """Score a draw from the q of each datum under the q of all data.

    >>> import vaestro as vs
    >>> data = vs.load(np.eye(40, dtype="uint8"))
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> evaluation = vs.evaluate(model, data.train, methods="information:n=20", k=10)
    >>> evaluation.information.unit_kl.shape
    (2,)
    """

    name = "information"

    def __init__(self, job: Job, n: int | None, draws: int) -> None:
        super().__init__(job)
        self.units = math.prod(job.model.units)
        most = min(MOST, max(2, math.isqrt(AFFORDABLE // (draws * self.units)))) if n is None else n
        self.rows = min(most, self.rows)
        self.lowered = n is None and self.rows < min(MOST, len(job.rows))
        self.draws = draws
        # also what the decoder takes, which draws pass through
        self.each = min(EACH, at_once(job.model.space))
        self.chunk = max(1, self.each // draws)
        self.columns = 3 + 2 * self.units
        # a pass takes as long as some 10,000 log-densities
        self.cost = 2.0 * draws + self.rows * draws * self.units / 10_000
        self._each: list[PosteriorDensity] = []
        self._moments: tuple[Tensor, Tensor] | None = None

    @torch.inference_mode()
    def compute(self, first: int) -> np.ndarray:
        """Return rate, information, total correlation and the unit-wise KLs of a piece; NaN for
        quantities that the families do not have."""
        size = min(self.chunk, self.rows - first)
        drawn = self._draw(first, size)
        alone = _factorised(drawn)
        index = torch.arange(first, first + size, device=drawn.z.device).repeat(self.draws)
        log_ratios, left_out = (
            x.unflatten(0, (self.draws, size))
            for x in self._log_ratios(drawn.z.flatten(0, 1), index, alone)
        )
        log_ratios = log_ratios.mean(0)  # (size, 1 + units)
        table = torch.full(
            (self.columns, size), math.nan, dtype=torch.float64, device=log_ratios.device
        )
        table[0], table[1] = drawn.total_rate, log_ratios[:, 0]
        if alone:
            table[2] = log_ratios[:, 1:].sum(1) - log_ratios[:, 0]
            table[3 : 3 + self.units] = (drawn.rate[0].flatten(1) - log_ratios[:, 1:]).T
            table[3 + self.units :] = self._lower(
                drawn,
                left_out[:, :, 1:],
                torch.arange(first, first + size, device=log_ratios.device),
            ).T
        return table.cpu().numpy()

    def _draw(self, first: int, size: int) -> Draws:
        """Draw codes of some data. The codes of a datum do not depend on `size`."""
        model = self.job.model
        noise = model.noise(
            self.draws,
            self.chunk,
            torch_generator(self.job.device, self.job.seed, "information", first),
        )
        return model.draw(self.job.batch(first, size), self.draws, noise=noise[:, :size])

    def _log_ratios(self, z: Tensor, index: Tensor, alone: bool) -> tuple[Tensor, Tensor]:
        """Return log q(z | x_n) - log q(z) at draws (R, *Z) from the data at `index`, and for each
        unit alone: (R, 1 + units).

        Second, log q(z) of all other data, likewise.
        """
        own = torch.zeros(len(z), 1 + self.units * alone, dtype=torch.float64, device=z.device)
        others = torch.full_like(own, -math.inf)
        rows = max(1, BLOCK // (self.each * self.units))
        for start in range(0, len(z), rows):
            part = slice(start, start + rows)
            first = 0
            for q in self._posteriors():
                logs = _log_densities(q, z[part].unsqueeze(1), alone)
                at, size = index[part] - first, logs[0].shape[1]
                here = (at >= 0) & (at < size)
                own[part][here] = torch.cat([each[here, at[here]] for each in logs], -1).double()
                # Subtracting the datum's own term from the whole sum would lose the others to
                # rounding if q is narrow.
                for each in logs:
                    each[here, at[here]] = -math.inf
                sums = torch.cat([torch.logsumexp(each, 1) for each in logs], -1)
                others[part] = torch.logaddexp(others[part], sums.double())
                first += size
        # The sum includes the datum's own term, so no estimate exceeds ln N.
        total = torch.logaddexp(others, own)
        return own - total + math.log(self.rows), others - math.log(max(1, self.rows - 1))

    def _lower(self, drawn: Draws, left_out: Tensor, index: Tensor) -> Tensor:
        """Return log r(z) - log p(z) of each unit, mean over draws, (size, units), with r from all
        other data."""
        q, z = drawn.q, drawn.z.double().flatten(2)
        assert isinstance(q, densities.Normal) and isinstance(
            drawn.p, densities.StandardNormal | densities.Normal
        )
        if self._moments is None:
            every = [x for x in self._posteriors() if isinstance(x, densities.Normal)]
            means = torch.cat([x.mean.double().flatten(1) for x in every])
            variances = torch.cat([x.variance.double().flatten(1) for x in every])
            self._moments = means, means.square() + variances
        means, squares = self._moments
        others = max(1, self.rows - 1)
        mean = (means.sum(0) - means[index]) / others
        # the predictive variance of a normal fitted to n numbers: larger by (n + 1) / (n - 1)
        variance = (
            ((squares.sum(0) - squares[index]) / others - mean.square()).clamp_min(1e-12)
            * (others + 1)
            / max(1, others - 1)
        )
        fitted = densities.Normal(mean, variance.log()).cells(z)
        prior = (
            drawn.p.cells(z.unflatten(2, self.job.model.units).to(drawn.z.dtype))
            .double()
            .flatten(2)
        )
        of_q = (1 - PRIOR_SHARE) * others / (others + SMOOTH_BELOW)
        parts = torch.stack(torch.broadcast_tensors(left_out, fitted, prior))
        weights = torch.tensor(
            [of_q, 1 - of_q - PRIOR_SHARE, PRIOR_SHARE], dtype=parts.dtype, device=parts.device
        )
        return (torch.logsumexp(parts + weights.log().reshape(3, 1, 1, 1), 0) - prior).mean(0)

    def _posteriors(self) -> list[PosteriorDensity]:
        """Return q(z | x) of all N data, as one density for each EACH data."""
        if not self._each:
            model = self.job.latent_model
            for first in range(0, self.rows, self.each):
                self._each.append(
                    model.q(
                        model.features(self.job.batch(first, min(self.each, self.rows - first)))
                    )
                )
        return self._each

    @torch.inference_mode()
    def finish(self, table: np.ndarray, done: Evaluation) -> Evaluation:
        rates, mutual, correlation = table[:3]
        units, lower = table[3 : 3 + self.units], table[3 + self.units :]
        one = self._draw(0, 1)
        shared, alone = one.shared_prior, _factorised(one)
        draws = f"{self.draws} draw{'s' if self.draws > 1 else ''} of each"
        lowered = (
            f"; {self.rows:,} data, so that N x N x units is below {AFFORDABLE:.0e}"
            if self.lowered
            else ""
        )
        information = Information(
            n=self.rows,
            rate=float(rates.mean()),
            mutual_information=mean_and_error(mutual),
            marginal_kl=mean_and_error(rates - mutual) if shared else None,
            total_correlation=mean_and_error(correlation) if alone else None,
            unit_kl=units.mean(1).reshape(self.job.model.units) if alone else None,
            unit_kl_sum=mean_and_error(units.sum(0)) if alone else None,
            how=draws + lowered,
            unit_kl_lower=lower.mean(1).reshape(self.job.model.units)
            if alone and self.rows > 1
            else None,
            unit_kl_lower_sum=mean_and_error(lower.sum(0)) if alone and self.rows > 1 else None,
        )
        warnings = done.warnings
        if self.rows == 1:
            warnings += ("the mutual information is 0 because only one datum was evaluated",)
        if information.mutual_information[0] > information.ceiling - min(
            NEAR, information.ceiling / 2
        ):
            value = information.mutual_information[0]
            too_large = (
                "; the KL of the aggregate posterior to the prior is then too large"
                if shared
                else ""
            )
            warnings += (
                f"the estimated mutual information of {value:.2f} nats is at its maximum, ln "
                f"{self.rows:,} = {information.ceiling:.2f}: the true value may be much "
                f"larger{too_large}",
            )
        return replace(done, information=information, warnings=warnings)


def _factorised(drawn: Draws) -> bool:
    """Return whether units are independent in q and in a shared prior, with rates in closed
    form."""
    return (
        drawn.shared_prior
        and isinstance(drawn.q, densities.Normal)
        and isinstance(drawn.p, densities.StandardNormal | densities.Normal)
    )


def _log_densities(q: PosteriorDensity, z: Tensor, alone: bool) -> list[Tensor]:
    """Return log q of M data at draws (R, 1, *Z): (R, M, 1), and with `alone` also those of each
    unit, (R, M, units).

    The precision is that of the model. A log-sum is determined by data near z, whose terms are
    small numbers.
    """
    if not alone:
        return [q.log_prob(z).unsqueeze(-1)]
    assert isinstance(q, densities.Normal)
    cells = q.cells(z).flatten(2)
    return [cells.sum(-1, keepdim=True), cells]
