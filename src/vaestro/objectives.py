"""Bounds on log p(x), and the losses made of them.

A bound is one function `Draws -> (B,)`, in nats, and training, evaluation and diagnosis all call that function:

    elbo = mean_k log p(x | z_k) - rate          (Kingma and Welling 2014)
    iwae = log mean_k exp(log w_k)               (Burda, Grosse and Salakhutdinov 2016)

Both are lower bounds in expectation, for any K; E[exp(iwae)] = p(x). The ELBO is exact in its rate wherever the KL
has a closed form. Beta acts on the rate in the loss only (Higgins et al. 2017); for iwae it means
log w = log p(x | z) + beta (log p(z) - log q(z | x)). What is reported is always the unweighted bound.
"""

from __future__ import annotations

from typing import NamedTuple, final

import torch
import torch.nn as nn
from torch import Tensor

from vaestro.densities import log_mean_exp
from vaestro.gradients import Bound, Gradient, Pathwise
from vaestro.model import Draws, LatentModel
from vaestro.spaces import Batch

Beta = float | Tensor


def elbo(draws: Draws) -> Tensor:
    """Return the evidence lower bound of each datum, (B,), in nats; of weighted draws the weighted one."""
    if draws.unweighted:
        return draws.mean_log_px - draws.total_rate
    return draws.mean_log_px - draws.weight * draws.total_rate


def iwae(draws: Draws) -> Tensor:
    """Return the importance-weighted bound of each datum, (B,), in nats; of weighted draws the weighted one."""
    return log_mean_exp(draws.log_w)


BOUNDS: dict[str, Bound] = {"elbo": elbo, "iwae": iwae}


class Schedule:
    """Give a weight for each step; the base class is the constant."""

    def __init__(self, value: float) -> None:
        if not 0 <= value < float("inf"):
            raise ValueError(f"expected a weight of 0 or more; got {value}")
        self.value = value

    def plan(self, steps: int, steps_per_epoch: float) -> None:
        """Turn lengths given in epochs or shares into steps of a run.

        Raises:
            ValueError: the schedule is longer than the run.
        """

    def __call__(self, step: Tensor) -> Beta:
        """Return the weight at a step (a tensor, so that a compiled graph serves every step)."""
        return float(self.value)


def constant(*, value: float = 1.0) -> Schedule:
    """Keep one weight through the run."""
    return Schedule(value)


@final
class Ramp(Schedule):
    """Move linearly from `start` to `end` over the first part of a run, then stay (KL warm-up; Bowman et al. 2016).

    Args:
        start, end: weights.
        steps, epochs, share: the length, in exactly one of the three ways; `plan` makes steps of the latter two, and without
            it the weight is NaN.
    """

    def __init__(
        self, start: float, end: float, *, steps: int | None = None, epochs: float | None = None, share: float | None = None
    ) -> None:
        super().__init__(end)
        Schedule(start)
        lengths = [length for length in (steps, epochs, share) if length is not None]
        if len(lengths) != 1 or not 0 < lengths[0] < float("inf"):
            raise ValueError(f"expected one length above 0 (steps, epochs or share); got {steps=}, {epochs=}, {share=}")
        self.start, self.steps, self.epochs, self.share = start, steps, epochs, share
        # A tensor, so that a compiled step reads the length that is planned last.
        self._length = torch.full((), float("nan"), dtype=torch.float64)
        if steps is not None:
            self._length.fill_(steps)

    def plan(self, steps: int, steps_per_epoch: float) -> None:
        if self.epochs is not None:
            self._length.fill_(self.epochs * steps_per_epoch)
        elif self.share is not None:
            self._length.fill_(self.share * steps)
        if float(self._length) > steps:
            raise ValueError(f"expected a warm-up within the run of {steps} steps; got one of {float(self._length):.0f}")

    def __call__(self, step: Tensor) -> Beta:
        return self.start + (self.value - self.start) * (step / self._length).clamp(0, 1)


def warmup(*, to: float = 1.0, share: float | None = None, epochs: float | None = None, steps: int | None = None) -> Ramp:
    """Raise the weight linearly from 0 (by default over a tenth of the run)."""
    if share is None and epochs is None and steps is None:
        share = 0.1
    return Ramp(0.0, to, steps=steps, epochs=epochs, share=share)


class Loss(NamedTuple):
    """Hold a batch's means: `loss` is for backward() only; bound, rate and distortion are reported, in nats."""

    loss: Tensor
    bound: Tensor
    rate: Tensor
    distortion: Tensor


@final
class Objective(nn.Module):
    """Turn draws into a loss: a bound, a number of draws, a weight of the rate and a gradient estimator.

    Args:
        bound: "elbo" or "iwae".
        k: draws for each datum.
        beta: the weight of the rate in the loss, a number or a schedule.
        gradient: the estimator; pathwise by default.
    """

    def __init__(self, bound: str = "elbo", *, k: int = 1, beta: float | Schedule = 1.0, gradient: Gradient | None = None) -> None:
        super().__init__()
        if bound not in BOUNDS:
            raise ValueError(f"expected a bound among {', '.join(BOUNDS)}; got {bound!r}")
        if k < 1:
            raise ValueError(f"expected k of 1 or more draws; got {k}")
        self.bound, self.k = BOUNDS[bound], k
        self.beta = beta if isinstance(beta, Schedule) else Schedule(beta)
        self.gradient = gradient or Pathwise()
        self.gradient.check(bound, k)

    def forward(self, model: LatentModel, batch: Batch, step: Tensor, noise: Tensor | None = None) -> Loss:
        """Return the loss of a batch at a step (a tensor that holds its number), and what is reported beside it."""
        draws = model.draw(batch, self.k, gradient=self.gradient, noise=noise)
        trained = draws.trained().weighted(self.beta(step))
        loss = -self.gradient.surrogate(trained, self.bound).mean()
        with torch.no_grad():
            same = draws.optimised is None and trained.unweighted
            bound = -loss.detach() if same else self.bound(draws).mean()
            return Loss(loss, bound, draws.total_rate.mean(), draws.distortion.mean())


def elbo_objective(gradient: Gradient | None = None, *, k: int = 1) -> Objective:
    """Maximise the evidence lower bound, with a closed-form KL where there is one (Kingma and Welling 2014)."""
    return Objective("elbo", k=k, gradient=gradient)


def iwae_objective(gradient: Gradient | None = None, *, k: int = 5) -> Objective:
    """Maximise the importance-weighted bound with k draws (Burda et al. 2016)."""
    return Objective("iwae", k=k, gradient=gradient)
