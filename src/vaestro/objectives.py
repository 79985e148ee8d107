"""Bounds on log p(x), and the losses made of them.

A bound is one function `Draws -> (B,)`, in nats, and training, evaluation and diagnosis all call that function:

    elbo  = mean_k log p(x | z_k) - rate                            (Kingma and Welling 2014)
    iwae  = log mean_k exp(log w_k)                                 (Burda, Grosse and Salakhutdinov 2016)
    miwae = mean_m log mean_k exp(log w_mk)                         (Rainforth et al. 2018)
    ciwae = weight elbo + (1 - weight) iwae                         (Rainforth et al. 2018)

All are lower bounds in expectation, for any K; E[exp(iwae)] = p(x). The ELBO is exact in its rate wherever the KL
has a closed form. Beta acts on the rate in the loss only (Higgins et al. 2017); for iwae it means
log w = log p(x | z) + beta (log p(z) - log q(z | x)). What is reported is always the unweighted bound.

An objective is a bound, an estimator of its gradient, a schedule of beta, what acts on the rate, and penalties, put together.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, final

import torch
import torch.nn as nn
from torch import Tensor

from vaestro.densities import log_mean_exp
from vaestro.gradients import Bound, Gradient, Pathwise
from vaestro.model import Draws, LatentModel
from vaestro.penalties import Penalty, RateTerm
from vaestro.schedules import Beta, Ramp, Schedule
from vaestro.spaces import Batch

__all__ = ["BOUNDS", "Beta", "Loss", "Objective", "Ramp", "Schedule", "ciwae", "elbo", "iwae", "miwae"]


def elbo(draws: Draws) -> Tensor:
    """Return the evidence lower bound of each datum, (B,), in nats; of weighted draws the weighted one."""
    if draws.unweighted:
        return draws.mean_log_px - draws.total_rate
    return draws.mean_log_px - draws.weight * draws.total_rate


def iwae(draws: Draws) -> Tensor:
    """Return the importance-weighted bound of each datum, (B,), in nats; of weighted draws the weighted one."""
    return log_mean_exp(draws.log_w)


def miwae(draws: Draws, m: int) -> Tensor:
    """Return the mean of m importance-weighted bounds, each of its own K / m draws: (B,), in nats; of weighted draws the weighted one."""
    return log_mean_exp(draws.log_w.unflatten(0, (m, -1)), 1).mean(0)


def ciwae(draws: Draws, weight: float) -> Tensor:
    """Return weight elbo + (1 - weight) iwae of the same draws: (B,), in nats; of weighted draws the weighted ones."""
    return weight * elbo(draws) + (1 - weight) * iwae(draws)


BOUNDS: dict[str, Bound] = {"elbo": elbo, "iwae": iwae}


class Loss(NamedTuple):
    """Hold a batch's means: `loss` is for backward() only; bound, rate and distortion are reported, in nats."""

    loss: Tensor
    bound: Tensor
    rate: Tensor
    distortion: Tensor


@final
class Objective(nn.Module):
    """Turn draws into a loss: a bound, a number of draws, a weight of the rate, a gradient estimator, and what else acts on the loss.

    Args:
        bound: "elbo" or "iwae", or a function of draws (with `name`).
        k: draws for each datum.
        beta: the weight of the rate in the loss, a number or a schedule.
        gradient: the estimator; pathwise by default.
        rate: what stands in place of the rate in the loss, for the ELBO: free bits, a capacity.
        penalties: on the aggregate posterior.
        name: of the bound; by default the name that it was given by.
        aggressive: whether the encoder is updated until its bound stops rising before each step, while the information of the code
            rises (He, Spokoyny, Neubig and Berg-Kirkpatrick 2019).
    """

    def __init__(
        self,
        bound: str | Bound = "elbo",
        *,
        k: int = 1,
        beta: float | Schedule = 1.0,
        gradient: Gradient | None = None,
        rate: RateTerm | None = None,
        penalties: Sequence[Penalty] = (),
        name: str | None = None,
        aggressive: bool = False,
    ) -> None:
        super().__init__()
        if isinstance(bound, str) and bound not in BOUNDS:
            raise ValueError(f"expected a bound among {', '.join(BOUNDS)}; got {bound!r}")
        if k < 1:
            raise ValueError(f"expected k of 1 or more draws; got {k}")
        self.bound, self.k = BOUNDS[bound] if isinstance(bound, str) else bound, k
        self.name: str = name or (bound if isinstance(bound, str) else str(getattr(bound, "__name__", "bound")))
        self.beta = beta if isinstance(beta, Schedule) else Schedule(beta)
        self.gradient = gradient or Pathwise()
        self.gradient.check(self.name, k)
        self.rate, self.penalties, self.aggressive = rate, nn.ModuleList(penalties), aggressive
        if rate is not None and self.bound is not elbo:
            raise ValueError(f"expected objective elbo with {type(rate).__name__}, which acts on its rate; got {self.name}")
        if rate is not None and (self.gradient.stop_q or not self.gradient.pathwise):
            held = type(self.gradient).__name__
            raise ValueError(f"expected gradient pathwise with {type(rate).__name__}, whose rate is differentiated; got {held}")
        if (self.penalties or aggressive) and not self.gradient.pathwise:
            raise ValueError(f"expected gradient pathwise with penalties and aggressive updates; got {type(self.gradient).__name__}")

    @property
    def outside_graph(self) -> list[str]:
        """Name what keeps the operations of a step with it from being recorded."""
        return [type(p).__name__ for p in self.penalties if not p.in_graph] + ["aggressive updates"] * self.aggressive

    def plan(self, steps: int, steps_per_epoch: float) -> None:
        """Turn lengths of schedules into steps of a run.

        Raises:
            ValueError: one is longer than the run.
        """
        self.beta.plan(steps, steps_per_epoch)
        if self.rate is not None:
            self.rate.plan(steps, steps_per_epoch)

    def prepare(self, model: LatentModel, batch: Batch, rows: int, size: int, seed: int) -> None:
        """Make what is learned beside a model, and learn of its data, before the first step.

        Args:
            model: what will be trained.
            batch: some of its training data.
            rows: how many training data there are.
            size: data in a step.
            seed: of what penalties draw.

        Raises:
            ValueError: a part has no meaning for the model.
        """
        self.gradient.prepare(model)
        if self.rate is None and not self.penalties:
            return
        for penalty in self.penalties:
            penalty.prepare(model, rows, size, seed)  # type: ignore[operator]
        with torch.no_grad():
            draws = model.draw(batch, 1, gradient=self.gradient, noise=model.noise(1, len(batch))).trained()
        for part in (self.rate, *self.penalties):
            if part is not None:
                part.check(draws)  # type: ignore[operator]

    def forward(self, model: LatentModel, batch: Batch, step: Tensor, noise: Tensor | None = None) -> Loss:
        """Return the loss of a batch at a step (a tensor that holds its number), and what is reported beside it."""
        draws = model.draw(batch, self.k, gradient=self.gradient, noise=noise)
        beta = self.beta(step)
        trained = draws.trained().weighted(beta)
        if self.rate is None:
            loss = -self.gradient.surrogate(trained, self.bound).mean()
        else:
            loss = (beta * self.rate(trained, step) - trained.mean_log_px).mean()
        for penalty in self.penalties:
            loss = loss + penalty.weight * penalty(trained, step)  # type: ignore[operator]
        with torch.no_grad():
            same = draws.optimised is None and trained.unweighted and self.rate is None and not self.penalties
            bound = -loss.detach() if same else self.bound(draws).mean()
            distortion = draws.distortion.mean()
            if self.training:
                self.beta.observe(distortion)
            return Loss(loss, bound, draws.total_rate.mean(), distortion)


def elbo_objective(gradient: Gradient | None = None, *, k: int = 1, **parts: Any) -> Objective:
    """Maximise the evidence lower bound, with a closed-form KL where there is one (Kingma and Welling 2014)."""
    return Objective("elbo", k=k, gradient=gradient, **parts)


def iwae_objective(gradient: Gradient | None = None, *, k: int = 5, **parts: Any) -> Objective:
    """Maximise the importance-weighted bound with k draws (Burda et al. 2016)."""
    return Objective("iwae", k=k, gradient=gradient, **parts)


def miwae_objective(gradient: Gradient | None = None, *, m: int = 4, k: int = 8, **parts: Any) -> Objective:
    """Maximise the mean of m importance-weighted bounds with k draws each, between ELBO (k=1) and IWAE (m=1) (Rainforth et al. 2018)."""
    if min(m, k) < 1:
        raise ValueError(f"expected m and k of 1 or more; got {m} and {k}")
    return Objective(partial(miwae, m=m), k=m * k, gradient=gradient, name="miwae", **parts)


def ciwae_objective(gradient: Gradient | None = None, *, k: int = 5, weight: float = 0.5, **parts: Any) -> Objective:
    """Maximise weight ELBO + (1 - weight) IWAE with k draws (Rainforth et al. 2018)."""
    if not 0 <= weight <= 1:
        raise ValueError(f"expected a weight in [0, 1]; got {weight}")
    return Objective(partial(ciwae, weight=weight), k=k, gradient=gradient, name="ciwae", **parts)
