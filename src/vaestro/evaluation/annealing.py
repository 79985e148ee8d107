"""Annealed importance sampling (AIS), forwards and in reverse: bounds on log p(x) from both sides.

The start is a normalised density, p(z) or q(z | x). The integral of p(x, z) over z is p(x). Between
the two are the densities

    log f_t(z) = log start(z) + t (log p(x, z) - log start(z)),    0 = t_0 < .. < t_T = 1

A chain starts at a draw of f_0. Its transition i leaves the density at t_i invariant. Its weight is

    log w = sum_i (t_i - t_{i-1}) (log p(x, z_{i-1}) - log start(z_{i-1})),    E[w] = p(x)

so log-mean-exp over chains is a lower bound on log p(x) in expectation (Neal 2001). The same chain,
run backwards from an exact draw of the posterior, has E[1/w] = 1/p(x), so minus log-mean-exp of
-log w is an upper bound. Exact draws exist only for data that were sampled from the model together
with their latents. For these data, the two bounds enclose log p(x) (bidirectional Monte Carlo:
Grosse, Ghahramani and Adams 2015; Wu, Burda, Salakhutdinov and Grosse 2017).

Transitions are Hamiltonian Monte Carlo (Neal 2011). The bounds require fixed step sizes, so these
are tuned on pilot chains, which depend only on x. The dequantisation noise of gridded data is
annealed together with z: it is u = sigmoid(v) - 1/2 with v logistic, so the path has no edges.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, final

import numpy as np
import torch
from torch import Tensor

from vaestro.densities import log_mean_exp
from vaestro.evaluation.bounds import (
    COLUMNS,
    at_once,
    bounds,
    cells_of,
    correction,
    estimates,
    of_tokens,
)
from vaestro.evaluation.hmc import Hmc, tuned
from vaestro.evaluation.likeness import chance_above, likeness
from vaestro.evaluation.path import Path, anneal, temperatures
from vaestro.evaluation.records import SIMULATED, Estimate, Evaluation, mean_and_error
from vaestro.evaluation.work import Job, Work
from vaestro.randomness import torch_generator
from vaestro.spaces import Batch

ROWS = 512  # number of chains that are decoded together


def annealing(
    job: Job,
    *,
    temperatures: int = 500,
    chains: int = 16,
    schedule: Literal["sigmoid", "linear"] = "sigmoid",
    start: Literal["prior", "posterior"] = "posterior",
    leapfrog: int = 2,
    n: int = 100,
    simulated: int | None = None,
) -> list[Work]:
    """Bound log p(x) by annealed importance sampling with HMC, from above on simulated data.

    Source: Wu et al. (2017).

    Args:
        job: model and data.
        temperatures: number of steps from the start to p(x, z).
        chains: number of chains per datum.
        schedule: spacing of the temperatures.
        start: density at the start: the encoder's q(z | x), which is closer if q is good, or the
            prior.
        leapfrog: number of leapfrog steps in a transition.
        n: number of rows, drawn at random, or all if there are fewer.
        simulated: number of data drawn from the model for the upper bound; by default n; 0 for
            none.

    Raises:
        ValueError: an option is out of range, or latents are discrete.

    >>> import vaestro as vs
    >>> data = vs.load(np.eye(40, dtype="uint8"))
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> job = Job(model.eval(), data.train, 10, 0, torch.device("cpu"))
    >>> [work.name for work in annealing(job, temperatures=4, chains=2, n=4)]
    ['ais', 'ais-simulated']
    """
    _check(job, start, (temperatures, chains, leapfrog, n), simulated)
    n = min(n, len(job.rows))
    options = (temperatures, chains, schedule, start, leapfrog)
    forward = Annealing(job, n, options)
    if simulated == 0:
        return [forward]
    return [forward, Bidirectional(job, n if simulated is None else simulated, options)]


def _check(job: Job, start: str, counts: tuple[int, int, int, int], simulated: int | None) -> None:
    """Raise ValueError if an option of `annealing` is out of range, or latents are discrete."""
    if not job.model.capabilities.latent_gradient:
        raise ValueError(
            "expected real latents for ais, which needs a gradient with respect to z; got discrete "
            "latents (use iwae with more draws)"
        )
    if start == "posterior" and not job.model.capabilities.scored_anywhere:
        raise ValueError(
            "expected ais:start=prior for a flow posterior, whose density is known only at its own "
            "draws; got start=posterior"
        )
    names = ("temperatures", "chains", "leapfrog", "n")
    for name, value in zip(names, counts, strict=True):
        if value < 1:
            raise ValueError(f"expected ais:{name} of 1 or more; got {value}")
    if simulated is not None and not 0 <= simulated <= len(job.rows):
        raise ValueError(
            f"expected ais:simulated between 0 and the {len(job.rows)} data; got {simulated}"
        )


class _Annealed(Work):
    def __init__(self, job: Job, rows: int, options: tuple[int, int, str, str, int]) -> None:
        super().__init__(job)
        self.rows = rows
        self.temperatures, self.chains, self.schedule, self.start, self.leapfrog = options
        self.ts = temperatures(self.temperatures, self.schedule)
        self.decoded = at_once(job.model.space)
        self.chunk = max(1, min(ROWS, self.decoded) // self.chains)
        self.cost = 3.0 * self.chains * self.temperatures * self.leapfrog

    def _forward(self, batch: Batch, first: int) -> tuple[Tensor, Hmc]:
        """Return log weights (K, B) and the transitions."""
        path = Path(self.job.latent_model, batch, self.start, self.chunk)
        where = (self.job.seed, self.name, first)
        sizes, spreads = tuned(path, self.ts, self.leapfrog, where)
        generator = torch_generator(self.job.device, *where)
        hmc = Hmc(path, self.leapfrog, generator, sizes, spreads)
        return anneal(path, path.at(path.draw(self.chains, generator)), self.ts, hmc), hmc

    def _how(self, acceptance: np.ndarray) -> str:
        plural = "s" if self.temperatures > 1 else ""
        moves = f", HMC accepting {acceptance.mean():.0%}" if self.temperatures > 1 else ""
        chains = f"{self.chains} chain{'s' if self.chains > 1 else ''}"
        return f"{self.temperatures:,} temperature{plural}, {chains} from the {self.start}{moves}"

    def _estimate(
        self,
        side: str,
        nats: np.ndarray,
        how: str,
        ess: np.ndarray | None,
        on: str,
        acceptance: np.ndarray,
    ) -> Estimate:
        job, space = self.job, self.job.model.space
        details = correction(job, self.rows) | {
            "temperatures": self.temperatures,
            "schedule": self.schedule,
            "start": self.start,
            "leapfrog": self.leapfrog,
            "acceptance": round(float(acceptance.mean()), 4),
        }
        if on == "data":
            details = {**details, **of_tokens(job, nats)}
        return Estimate(
            "ais",
            nats,
            side,
            space.measure,
            self.chains,
            how,
            cells_of(job, self.rows),
            ess,
            self.seconds,
            job.given,
            on,
            details,
        )


def _numbers(log_w: Tensor) -> list[Tensor]:
    """Return the lower bound and the logarithm of the effective number of chains, each (B,)."""
    return [log_mean_exp(log_w), 2 * torch.logsumexp(log_w, 0) - torch.logsumexp(2 * log_w, 0)]


@final
class Annealing(_Annealed):
    """Lower bounds on log p(x) of the data.

    >>> import vaestro as vs
    >>> data = vs.load(np.eye(40, dtype="uint8"))
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> methods = "ais:temperatures=4,chains=2,n=4,simulated=0"
    >>> evaluation = vs.evaluate(model, data.train, methods=methods, k=10)
    >>> evaluation["ais"].nats.shape
    (4,)
    """

    name = "ais"
    columns = 3

    def compute(self, first: int) -> np.ndarray:
        batch = self.job.batch(first, min(self.chunk, self.rows - first))
        log_w, hmc = self._forward(batch, first)
        accepted = torch.stack(hmc.accepted).mean(0) if hmc.accepted else log_w.new_ones(len(batch))
        return torch.stack([*_numbers(log_w), accepted.double()]).cpu().numpy()

    def finish(self, table: np.ndarray, done: Evaluation) -> Evaluation:
        lower, log_ess, accepted = table
        how = f"AIS with {self._how(accepted)}"
        estimate = self._estimate("lower", lower, how, np.exp(log_ess), "data", accepted)
        warnings = done.warnings
        if accepted.mean() < 0.3:
            warnings += (
                f"AIS: HMC accepts only {accepted.mean():.0%} of its proposals: the bound is "
                f"looser than it could be",
            )
        return replace(done, estimates=(*done.estimates, estimate), warnings=warnings)


@final
class Bidirectional(_Annealed):
    """Lower and upper bounds on log p(x) of data drawn from the model.

    >>> import vaestro as vs
    >>> data = vs.load(np.eye(40, dtype="uint8"))
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> methods = "ais:temperatures=4,chains=2,n=4"
    >>> evaluation = vs.evaluate(model, data.train, methods=methods, k=10)
    >>> [e.side for e in evaluation.estimates if e.method == "ais"]
    ['lower', 'lower', 'upper']
    """

    name = "ais-simulated"
    columns = COLUMNS + 4

    def __init__(self, job: Job, rows: int, options: tuple[int, int, str, str, int]) -> None:
        super().__init__(job, rows, options)
        self.cost = 2 * self.cost + job.k

    def simulated(self, first: int) -> tuple[Batch, Tensor, Tensor | None]:
        """Draw the data of a piece with their latents. Conditions and missing cells are those of
        real data."""
        job, n = self.job, min(self.chunk, self.rows - first)
        like = job.batch(first, self.chunk)
        generator = torch_generator(job.device, job.seed, self.name, "data", first)
        with torch.no_grad():
            batch, z, jitter = job.latent_model.simulate(
                len(like), like.given, like.observed, generator
            )
        return batch[:n], z[:n], None if jitter is None else jitter[:n]

    def compute(self, first: int) -> np.ndarray:
        job = self.job
        batch, z, jitter = self.simulated(first)
        draws = min(job.k, max(1, self.decoded // self.chunk))
        bounded = bounds(
            job.latent_model, batch, job.k, draws, (job.seed, "simulated", first), self.chunk
        )
        log_w, hmc = self._forward(batch, first)
        generator = torch_generator(job.device, job.seed, self.name, "reverse", first)
        back = Hmc(hmc.path, self.leapfrog, generator, hmc.sizes, hmc.spreads)
        s = hmc.path.join(z, jitter).expand(self.chains, -1, -1)
        upper = -log_mean_exp(-anneal(hmc.path, hmc.path.at(s), self.ts, back, reverse=True))
        every = hmc.accepted + back.accepted
        accepted = torch.stack(every).mean(0) if every else log_w.new_ones(len(batch))
        return (
            torch.cat([bounded, torch.stack([*_numbers(log_w), upper, accepted.double()])])
            .cpu()
            .numpy()
        )

    def finish(self, table: np.ndarray, done: Evaluation) -> Evaluation:
        bounded, (lower, log_ess, upper, accepted) = table[:COLUMNS], table[COLUMNS:]
        how = f"AIS with {self._how(accepted)}"
        results = [
            *estimates(self.job, bounded, self.seconds, SIMULATED),
            self._estimate("lower", lower, how, np.exp(log_ess), SIMULATED, accepted),
            self._estimate(
                "upper", upper, how.replace("AIS", "AIS in reverse", 1), None, SIMULATED, accepted
            ),
        ]
        real = done["ais"]
        assert real.ess is not None
        chances = {
            "bound": chance_above(lower, real.nats),
            "ess": chance_above(np.exp(log_ess), real.ess),
        }
        if self.job.k >= 10:
            chances["gap"] = chance_above(
                lower - bounded[1], real.nats - done["iwae"].nats[: len(real.nats)]
            )
        m, n = len(lower), len(real.nats)
        alike = likeness(list(chances.values()), m, n)
        warnings = done.warnings
        if alike is False:
            here, there = (mean_and_error(a)[0] for a in (lower, np.exp(log_ess)))
            warnings += (
                f"data drawn from the model differ from the data (lower bounds {here:.1f} and "
                f"{real.mean()[0]:.1f} nats, effective chains {there:.1f} and "
                f"{mean_and_error(real.ess)[0]:.1f}): the gap on the data may be very different "
                f"from the gap measured on them",
            )
        elif alike is None:
            warnings += (
                f"{min(m, n)} data are too few to tell whether data drawn from the model are like "
                f"the data, and whether the measured gap applies to the data",
            )
        details = {
            "alike": alike,
            "alike_chances": {name: round(chance, 3) for name, chance in chances.items()},
        }
        results[-1] = replace(results[-1], details={**results[-1].details, **details})
        return replace(done, estimates=(*done.estimates, *results), warnings=warnings)
