"""Annealed importance sampling, forwards and in reverse: bounds on log p(x) from both sides.

Between a start that is normalised, p(z) or q(z | x), and p(x, z), whose integral is p(x), lie the
densities

    log f_t(z) = log start(z) + t (log p(x, z) - log start(z)),    0 = t_0 < .. < t_T = 1

A chain that starts at a draw of f_0 and moves by transitions that leave f_1/T, .. invariant
collects

    log w = sum_i (t_i - t_{i-1}) (log p(x, z_{i-1}) - log start(z_{i-1})),    E[w] = p(x)

so log-mean-exp over chains is a lower bound on log p(x), in expectation (Neal 2001). The same chain
run backwards from an exact draw of the posterior has E[1/w] = 1/p(x), and minus log-mean-exp of
-log w is an upper bound. An exact draw is at hand only for data that the model itself made, with
the latents that made them; there, the two bounds hold log p(x) between them (bidirectional Monte
Carlo: Grosse, Ghahramani and Adams 2015; Wu, Burda, Salakhutdinov and Grosse 2017).

Transitions are Hamiltonian Monte Carlo (Neal 2011). Its steps are tuned on pilot chains that see x
alone and are then frozen, as the bounds need. Where data lie on a grid, what spreads them over its
cells is annealed with z: it is u = sigmoid(v) - 1/2 with v logistic, so that the path has no edges.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, final

import numpy as np
import torch
import torch.nn.functional as F
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
from vaestro.evaluation.records import SIMULATED, Estimate, Evaluation, mean_and_error
from vaestro.evaluation.work import Job, Work
from vaestro.models import LatentModel
from vaestro.randomness import torch_generator
from vaestro.spaces import Batch

ROWS = 512  # chains that move together
PILOT = 100  # temperatures of the pilot chains
ACCEPTANCE = 0.7
VARIED = 0.2  # by how much a leapfrog step differs from transition to transition
SHARPNESS = 4.0  # of the sigmoid
ALIKE = 0.25  # how far from an even chance of being larger a number of simulated data may lie


@dataclass(frozen=True, eq=False)
class State:
    """Hold where chains are: s (K, B, S), log start and log p(x, z) - log start there (K, B), and
    both gradients."""

    s: Tensor
    base: Tensor
    slope: Tensor
    base_gradient: Tensor
    slope_gradient: Tensor

    def where(self, condition: Tensor, other: State) -> State:
        """Return this state where the condition (K, B) holds and the other elsewhere."""
        wide = condition.unsqueeze(-1)
        return State(
            torch.where(wide, self.s, other.s),
            torch.where(condition, self.base, other.base),
            torch.where(condition, self.slope, other.slope),
            torch.where(wide, self.base_gradient, other.base_gradient),
            torch.where(wide, self.slope_gradient, other.slope_gradient),
        )


@final
class Path:
    """Lead from a start to p(x, z), for a batch.

    Args:
        model: the model.
        batch: B data.
        start: "prior" or "posterior", the encoder's q(z | x).
        rows: data for which randomness is drawn, B or more.
    """

    def __init__(self, model: LatentModel, batch: Batch, start: str, rows: int) -> None:
        self.model, self.batch, self.start, self.rows = model, batch, start, rows
        self.units = math.prod(model.units)
        self.size = self.units + math.prod(model.jitter or (0,))
        with torch.no_grad():
            self.q = model.q(model.features(batch))

    def draw(self, k: int, generator: torch.Generator, start: str | None = None) -> Tensor:
        """Draw k states for each datum from the start, (k, B, S)."""
        model, batch, n = self.model, self.batch, len(self.batch)
        with torch.no_grad():
            if (start or self.start) == "prior":
                given = batch.given
                if given is not None:
                    given = torch.cat(
                        [given, given.new_zeros(self.rows - n, given.shape[-1])]
                    ).repeat(k, 1)
                z = model.draw_prior(k * self.rows, given, generator).unflatten(0, (k, self.rows))[
                    :, :n
                ]
            else:
                z = self.q.from_noise(model.parts(model.noise(k, self.rows, generator)[:, :n])[0])
            jitter = None
            if model.jitter is not None:
                jitter = (
                    torch.rand(
                        (k, self.rows, *model.jitter),
                        generator=generator,
                        dtype=z.dtype,
                        device=z.device,
                    )[:, :n]
                    - 0.5
                )
            return self.join(z, jitter)

    def join(self, z: Tensor, jitter: Tensor | None) -> Tensor:
        """Make states (..., S) of latents (..., *Z) and jitter (..., *jitter)."""
        z = z.flatten(z.ndim - len(self.model.units))
        if jitter is None:
            return z
        u = jitter.reshape(*z.shape[:-1], -1) + 0.5
        tiny = torch.finfo(u.dtype).eps
        return torch.cat([z, torch.logit(u.clamp(tiny, 1 - tiny))], -1)

    def terms(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """Return log start and log p(x, z) - log start at states (K, B, S), each (K, B)."""
        z = s[..., : self.units].unflatten(-1, self.model.units)
        v = s[..., self.units :]
        jitter = (
            None
            if self.model.jitter is None
            else (torch.sigmoid(v) - 0.5).unflatten(-1, self.model.jitter)
        )
        log_px, log_pz = self.model.log_terms(self.batch, z, jitter)
        if self.start == "prior":
            base, slope = log_pz, log_px
        else:
            base = self.q.log_prob(z)
            slope = log_px + log_pz - base
        if jitter is not None:
            base = base - (F.softplus(v) + F.softplus(-v)).sum(-1)
        return base, slope

    def at(self, s: Tensor) -> State:
        """Return the state at s (K, B, S), with its gradients."""
        with torch.enable_grad():
            s = s.detach().requires_grad_()
            base, slope = self.terms(s)
            (base_gradient,) = torch.autograd.grad(base.sum(), s, retain_graph=True)
            (slope_gradient,) = torch.autograd.grad(slope.sum(), s)
        return State(s.detach(), base.detach(), slope.detach(), base_gradient, slope_gradient)


# (state, t, share of the way) -> state; leaves f_t invariant
Transition = Callable[[State, float, float], State]


def temperatures(count: int, schedule: str) -> np.ndarray:
    """Return t_0 = 0 .. t_count = 1, (count + 1,): evenly spaced, or by a sigmoid, which takes
    smaller steps at both ends.

    The sigmoid is 1 / (1 + exp(-4 (2 s - 1))) for s from 0 to 1, rescaled to run from 0 to 1.
    """
    s = np.linspace(0, 1, count + 1)
    if schedule == "linear":
        return s
    g = 1 / (1 + np.exp(-SHARPNESS * (2 * s - 1)))
    return np.asarray((g - g[0]) / (g[-1] - g[0]))


def anneal(
    path: Path, state: State, ts: np.ndarray, transition: Transition, *, reverse: bool = False
) -> Tensor:
    """Return the log weights of chains, (K, B), float64.

    Args:
        path: from the start to p(x, z).
        state: a draw of the start; in reverse a draw of the posterior.
        ts: t_0 = 0 .. t_T = 1.
        transition: leaves f_t invariant, and is its own reverse.
        reverse: from t = 1 down to 0.
    """
    log_w = torch.zeros(state.base.shape, dtype=torch.float64, device=state.base.device)
    steps = range(len(ts) - 1, 0, -1) if reverse else range(1, len(ts))
    for number, i in enumerate(steps):
        if number:
            at = i if reverse else i - 1
            state = transition(state, float(ts[at]), at / (len(ts) - 1))
        log_w += float(ts[i] - ts[i - 1]) * state.slope.double()
    return log_w


@final
class Hmc:
    """Move by Hamiltonian Monte Carlo, with the units' scales taken from the start and from q(z |
    x).

    Args:
        path: the densities.
        leapfrog: leapfrog steps in a transition.
        generator: of momenta and acceptance.
        sizes: the size of a leapfrog step in units of those scales, (points on the way, B), as
            `tuned` makes it.
        spreads: standard deviations at the start and at the end of the way, each (B, S).
    """

    def __init__(
        self,
        path: Path,
        leapfrog: int,
        generator: torch.Generator,
        sizes: Tensor,
        spreads: tuple[Tensor, Tensor],
    ) -> None:
        self.path, self.leapfrog, self.generator, self.sizes, self.spreads = (
            path,
            leapfrog,
            generator,
            sizes,
            spreads,
        )
        self.precisions = tuple(spread**-2 for spread in spreads)
        self.accepted: list[Tensor] = []

    def size(self, share: float) -> Tensor:
        """Return the size of a leapfrog step at a share of the way, (B,)."""
        place = share * (len(self.sizes) - 1)
        low = min(int(place), len(self.sizes) - 1)
        high = min(low + 1, len(self.sizes) - 1)
        return torch.lerp(self.sizes[low], self.sizes[high], place - low)

    def __call__(self, state: State, t: float, share: float) -> State:
        k, n, size = state.s.shape
        wide = (k, self.path.rows)
        like = state.s
        momentum = torch.randn(
            (*wide, size), generator=self.generator, dtype=like.dtype, device=like.device
        )[:, :n]
        uniform, varied = torch.rand(
            (2, *wide), generator=self.generator, dtype=like.dtype, device=like.device
        )[:, :, :n]
        scale = torch.rsqrt(torch.lerp(self.precisions[0], self.precisions[1], t))
        # Drawn anew for each transition, so that no trajectory keeps returning to where it began.
        step = (self.size(share) * (1 + VARIED * (2 * varied - 1))).unsqueeze(-1) * scale

        def gradient(at: State) -> Tensor:
            return torch.add(at.base_gradient, at.slope_gradient, alpha=t)

        p, new = momentum + 0.5 * step * gradient(state), state
        for i in range(self.leapfrog):
            new = self.path.at(new.s + step * p)
            p = p + (0.5 if i + 1 == self.leapfrog else 1.0) * step * gradient(new)
        change = (new.base - state.base) + t * (new.slope - state.slope)
        log_ratio = change.double() - 0.5 * (p.double().square() - momentum.double().square()).sum(
            -1
        )
        log_ratio = torch.nan_to_num(log_ratio, nan=-math.inf)
        self.accepted.append(log_ratio.clamp_max(0).exp().mean(0))
        return new.where(uniform.double().log() < log_ratio, state)


def tuned(
    path: Path, ts: np.ndarray, leapfrog: int, where: tuple[int, str, int], chains: int = 4
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Tune the step of each datum along the way on pilot chains of their own; return (sizes,
    spreads) for `Hmc`.

    Nothing here depends on the latents that made a datum, nor on the chains that are weighted
    later.
    """
    seed, purpose, first = where
    generator = torch_generator(path.batch.x.device, seed, purpose, "pilot", first)
    spreads = tuple(
        path.draw(64, generator, start).std(0).clamp_min(1e-6)
        for start in (path.start, "posterior")
    )
    state = path.at(path.draw(chains, generator))
    # A quarter of a turn forgets where a normal was; a longer way comes back.
    longest = math.log(math.pi / 2 / leapfrog)
    begin = min(longest, math.log(1.5 * path.size**-0.25))
    log_size = torch.full((len(path.batch),), begin, dtype=state.s.dtype, device=state.s.device)
    points = min(PILOT, max(20, (len(ts) - 1) // 2))
    sizes = []
    hmc = Hmc(path, leapfrog, generator, log_size.exp().unsqueeze(0), (spreads[0], spreads[1]))
    settle = 20
    for i in range(-settle, points + 1):
        share = max(i, 0) / points
        hmc.sizes = log_size.exp().unsqueeze(0)
        state = hmc(state, float(np.interp(share, np.linspace(0, 1, len(ts)), ts)), share)
        log_size = log_size + (0.4 if i < 0 else 0.2) * (
            hmc.accepted[-1].to(log_size.dtype) - ACCEPTANCE
        )
        log_size = log_size.clamp(-7.0, longest)
        if i >= 0:
            sizes.append(log_size)
    track = torch.stack(sizes)
    window = 2 * max(1, points // 20) + 1
    padded = F.pad(track.T.unsqueeze(1), (window // 2, window // 2), mode="replicate")
    return F.avg_pool1d(padded, window, 1).squeeze(1).T.exp(), (spreads[0], spreads[1])


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
    """Bound log p(x) by annealed importance sampling with HMC, and from above on data drawn from
    the model (Wu et al. 2017).

    Args:
        job: model and data.
        temperatures: steps from the start to p(x, z).
        chains: for each datum.
        schedule: of the temperatures.
        start: of the chains: the encoder's q(z | x), which is nearer where q is good, or the prior.
        leapfrog: leapfrog steps in a transition.
        n: number of rows, drawn at random, or all if there are fewer.
        simulated: data to draw from the model for the upper bound; by default as many as n; 0 for
            none.

    Raises:
        ValueError: an option is out of its range, or latents are discrete.
    """
    if job.model.alphabet:
        raise ValueError(
            "expected real latents for ais, whose chains move by a gradient; got discrete ones "
            "(iwae with more draws)"
        )
    if start == "posterior" and not job.model.capabilities.scored_anywhere:
        raise ValueError(
            "expected ais:start=prior for a flow posterior, which is not scored where chains go; "
            "got start=posterior"
        )
    for name, value in {
        "temperatures": temperatures,
        "chains": chains,
        "leapfrog": leapfrog,
        "n": n,
    }.items():
        if value < 1:
            raise ValueError(f"expected ais:{name} of 1 or more; got {value}")
    if simulated is not None and not 0 <= simulated <= len(job.rows):
        raise ValueError(
            f"expected ais:simulated between 0 and the {len(job.rows)} data; got {simulated}"
        )
    n = min(n, len(job.rows))
    options = (temperatures, chains, schedule, start, leapfrog)
    forward = Annealing(job, n, options)
    if simulated == 0:
        return [forward]
    return [forward, Bidirectional(job, n if simulated is None else simulated, options)]


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
        """Return log weights (K, B), and the transitions that made them."""
        path = Path(self.job.model, batch, self.start, self.chunk)
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
    """Return the lower bound and the log of the effective number of chains, each (B,)."""
    return [log_mean_exp(log_w), 2 * torch.logsumexp(log_w, 0) - torch.logsumexp(2 * log_w, 0)]


@final
class Annealing(_Annealed):
    """Bound log p(x) of data from below."""

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
        made = self._estimate("lower", lower, how, np.exp(log_ess), "data", accepted)
        warnings = done.warnings
        if accepted.mean() < 0.3:
            warnings += (
                f"AIS: HMC accepts only {accepted.mean():.0%} of its moves: the bound is looser "
                f"than it could be",
            )
        return replace(done, estimates=(*done.estimates, made), warnings=warnings)


@final
class Bidirectional(_Annealed):
    """Bound log p(x) from both sides on data drawn from the model."""

    name = "ais-simulated"
    columns = COLUMNS + 4

    def __init__(self, job: Job, rows: int, options: tuple[int, int, str, str, int]) -> None:
        super().__init__(job, rows, options)
        self.cost = 2 * self.cost + job.k

    def simulated(self, first: int) -> tuple[Batch, Tensor, Tensor | None]:
        """Draw the data of a piece, with the conditions and missing cells of real ones, and the
        latents that made them."""
        job, n = self.job, min(self.chunk, self.rows - first)
        like = job.batch(first, self.chunk)
        generator = torch_generator(job.device, job.seed, self.name, "data", first)
        with torch.no_grad():
            made, z, jitter = job.model.simulate(len(like), like.given, like.observed, generator)
        return made[:n], z[:n], None if jitter is None else jitter[:n]

    def compute(self, first: int) -> np.ndarray:
        job = self.job
        batch, z, jitter = self.simulated(first)
        draws = min(job.k, max(1, self.decoded // self.chunk))
        bounded = bounds(job.model, batch, job.k, draws, (job.seed, "simulated", first), self.chunk)
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
        made = [
            *estimates(self.job, bounded, self.seconds, SIMULATED),
            self._estimate("lower", lower, how, np.exp(log_ess), SIMULATED, accepted),
            self._estimate(
                "upper", upper, how.replace("AIS", "AIS in reverse", 1), None, SIMULATED, accepted
            ),
        ]
        real = done["ais"]
        assert real.ess is not None
        chances = {"bound": _chance(lower, real.nats), "ess": _chance(np.exp(log_ess), real.ess)}
        if self.job.k >= 10:
            chances["gap"] = _chance(
                lower - bounded[1], real.nats - done["iwae"].nats[: len(real.nats)]
            )
        m, n = len(lower), len(real.nats)
        alike = likeness(list(chances.values()), m, n)
        warnings = done.warnings
        if alike is False:
            here, there = (mean_and_error(a)[0] for a in (lower, np.exp(log_ess)))
            warnings += (
                f"data drawn from the model are unlike the data (lower bounds {here:.1f} and "
                f"{real.mean()[0]:.1f} nats, effective chains "
                f"{there:.1f} and {mean_and_error(real.ess)[0]:.1f}): the gap measured on them "
                f"says little about the gap on the data",
            )
        elif alike is None:
            warnings += (
                f"{min(m, n)} data are too few to tell whether those drawn from the model are "
                f"like them, and so whether their gap is",
            )
        told = {
            "alike": alike,
            "alike_chances": {name: round(chance, 3) for name, chance in chances.items()},
        }
        made[-1] = replace(made[-1], details={**made[-1].details, **told})
        return replace(done, estimates=(*done.estimates, *made), warnings=warnings)


def likeness(chances: Sequence[float], m: int, n: int) -> bool | None:
    """Tell from Mann-Whitney chances of m against n numbers whether two samples are alike; None
    where they are too few to tell.

    Alike are those whose every chance lies within 1/4 of 1/2, with two standard errors to spare.
    Unlike are those of which one lies further off than that, and than three standard errors.
    """
    off = max(abs(chance - 0.5) for chance in chances)
    error = math.sqrt((m + n + 1) / (12 * m * n))  # of a chance between samples of one law
    return False if off > max(ALIKE, 3 * error) else True if off + 2 * error <= ALIKE else None


def _chance(a: np.ndarray, b: np.ndarray) -> float:
    """Return the chance that a number of `a` lies above one of `b`, ties counted half (Mann and
    Whitney 1947)."""
    order = np.sort(b)
    below, upto = np.searchsorted(order, a, "left"), np.searchsorted(order, a, "right")
    return float((below + upto).mean() / (2 * len(b)))
