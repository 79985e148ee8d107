"""Bounds on log p(x), and the losses made of them.

A bound is one function `Draws -> (B,)`, in nats, and training, evaluation and diagnosis all call
that function:

    elbo  = mean_k log p(x | z_k) - rate                            (Kingma and Welling 2014)
    iwae  = log mean_k exp(log w_k)                                 (Burda, Grosse and Salakhutdinov
    2016) miwae = mean_m log mean_k exp(log w_mk)                         (Rainforth et al. 2018)
    ciwae = weight elbo + (1 - weight) iwae                         (Rainforth et al. 2018)

All are lower bounds in expectation, for any K; E[exp(iwae)] = p(x). The ELBO is exact in its rate
wherever the KL has a closed form. Beta acts on the rate in the loss only (Higgins et al. 2017); for
iwae it means log w = log p(x | z) + beta (log p(z) - log q(z | x)). What is reported is always the
unweighted bound.

An objective is a bound, an estimator of its gradient, a schedule of beta, what acts on the rate,
and penalties, put together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, final

import torch
import torch.nn as nn
from torch import Tensor

from vaestro.densities import log_mean_exp
from vaestro.gradients import Bound, Gradient, Pathwise
from vaestro.models import Draws, Model
from vaestro.penalties import Penalty, RateTerm
from vaestro.schedules import END, Beta, Ramp, Schedule
from vaestro.spaces import Batch
from vaestro.updates import Update

__all__ = [
    "BOUNDS",
    "Beta",
    "Loss",
    "Objective",
    "Ramp",
    "Schedule",
    "TrainingObjective",
    "ciwae",
    "elbo",
    "iwae",
    "miwae",
]


def elbo(draws: Draws) -> Tensor:
    """Return the evidence lower bound of each datum, (B,), in nats; of weighted draws the weighted
    one."""
    if draws.unweighted:
        return draws.mean_log_px - draws.total_rate
    return draws.mean_log_px - draws.weight * draws.total_rate


def iwae(draws: Draws) -> Tensor:
    """Return the importance-weighted bound of each datum, (B,), in nats; of weighted draws the
    weighted one."""
    return log_mean_exp(draws.log_w)


def miwae(draws: Draws, m: int) -> Tensor:
    """Return the mean of m importance-weighted bounds, each of its own K / m draws: (B,), in nats;
    of weighted draws the weighted one."""
    return log_mean_exp(draws.log_w.unflatten(0, (m, -1)), 1).mean(0)


def ciwae(draws: Draws, weight: float) -> Tensor:
    """Return weight elbo + (1 - weight) iwae of the same draws: (B,), in nats; of weighted draws
    the weighted ones."""
    return weight * elbo(draws) + (1 - weight) * iwae(draws)


BOUNDS: dict[str, Bound] = {"elbo": elbo, "iwae": iwae}


class Loss(NamedTuple):
    """Hold a batch's means, in nats.

    Args:
        loss: for backward() only.
        bound, rate, distortion: what is reported.
        logged: the loss of the reported model. It differs from `loss` where training optimises
            another density: relaxed latents, a variance that is optimal for each batch, word
                dropout.
        terms: what the loss has beside the weighted bound, as they enter it; `Objective.terms`
            names them.
    """

    loss: Tensor
    bound: Tensor
    rate: Tensor
    distortion: Tensor
    logged: Tensor
    terms: tuple[Tensor, ...] = ()

    def flat(self) -> list[Tensor]:
        """Return every number: loss, bound, rate, distortion, logged, and the terms."""
        return [self.loss, self.bound, self.rate, self.distortion, self.logged, *self.terms]

    @classmethod
    def only(cls, loss: Tensor) -> Loss:
        """Return a loss of which nothing else is reported, such as a discriminator's."""
        nothing = torch.zeros_like(loss)
        return cls(loss, nothing, nothing, nothing, loss.detach())

    @classmethod
    def of(cls, numbers: Sequence[Tensor]) -> Loss:
        """Return the loss that `flat` made these numbers of."""
        loss, bound, rate, distortion, logged, *terms = numbers
        return cls(loss, bound, rate, distortion, logged, tuple(terms))


class Scores(NamedTuple):
    """Hold sums over data that are not trained on, in nats, of which `Objective.value` makes the
    loss.

    Args:
        loss: the weighted negative bound at a step's weight, or the distortion where a term
            replaces the rate, ().
        final: the same at the weight at the end of the schedules, ().
        rates: of each unit, (units,), or of all units, (1,).
        penalties: as they enter the loss, times the number of data, (P,).
        penalised: the number of data in batches that are large enough for penalties, ().
    """

    loss: Tensor
    final: Tensor
    rates: Tensor
    penalties: Tensor
    penalised: Tensor


class TrainingObjective(nn.Module, ABC):
    """Describe what training minimises: named updates, and how validation scores the result.

    The defaults are those of an unweighted bound without further terms. A subclass defines
    `updates`, and overrides what differs.

    Args:
        bound: the bound that is reported, (B,) of draws.
        k: draws of each datum.
        beta: the weight of the rate.
    """

    def __init__(self, bound: Bound, k: int = 1, beta: Schedule | None = None) -> None:
        super().__init__()
        self.bound, self.k = bound, k
        self.beta = Schedule(1.0) if beta is None else beta

    @abstractmethod
    def updates(self, model: Model) -> list[Update]:
        """Return the updates of a step, in their order.

        Training logs the loss of the first one as the loss of the step.

        Args:
            model: what is trained, on its device and after `prepare`.

        Raises:
            ValueError: an update has no meaning for the model.
        """

    @property
    def terms(self) -> tuple[str, ...]:
        """Return the names of the terms of the loss beside the weighted bound."""
        return ()

    @property
    def final_beta(self) -> float:
        """Return the weight of the rate at the end of the schedules; of an adaptive weight, the
        current one."""
        return float(self.beta(torch.tensor(END, dtype=torch.float64)))

    @property
    def plain(self) -> bool:
        """Return whether the loss at the end of the schedules is the negative bound that is
        reported."""
        return False

    @property
    def formula(self) -> str:
        """Return the loss at the end of the schedules, in words."""
        return "-bound"

    @property
    def outside_graph(self) -> list[str]:
        """Return the names of parts whose steps cannot be compiled."""
        return []

    @property
    def functions(self) -> list[object]:
        """Return what the objective calls beside its submodules: functions and terms."""
        return [self.bound.func if isinstance(self.bound, partial) else self.bound]

    @property
    def rows_together(self) -> int | None:
        """Return how many rows validation scores at once, if the loss depends on it."""
        return None

    def settled(self, step: int) -> bool:
        """Return whether the weight and every target keep their values from a step on."""
        return True

    def plan(self, steps: int, steps_per_epoch: float) -> None:
        """Convert lengths of schedules into steps of a run."""

    def prepare(self, model: Model, batch: Batch, rows: int, size: int, seed: int) -> None:
        """Create what is learned beside a model, before the first step."""

    def score(self, draws: Draws, step: Tensor) -> Scores:
        """Return sums over the data of draws, from which `value` computes the loss."""
        loss = -self.bound(draws).double().sum()
        nothing = loss.new_zeros(0)
        return Scores(loss, loss, nothing, nothing, loss.new_zeros(()))

    def value(self, sums: Scores, n: int, step: Tensor) -> tuple[float, float, tuple[float, ...]]:
        """Return the loss at a step's schedules, that at the end of the schedules, and the terms of
        the first, from sums over n data."""
        return float(sums.loss) / n, float(sums.final) / n, ()


@final
class Objective(TrainingObjective):
    """Turn draws into a loss: a bound, a number of draws, a weight of the rate, a gradient
    estimator, and what else acts on the loss.

    Args:
        bound: "elbo" or "iwae", or a function of draws (with `name`).
        k: draws for each datum.
        beta: the weight of the rate in the loss, a number or a schedule.
        gradient: the estimator; pathwise by default.
        rate: what stands in place of the rate in the loss, for the ELBO: free bits, a capacity.
        penalties: on the aggregate posterior.
        name: of the bound; by default the name that it was given by.
        aggressive: whether the encoder is updated until its bound stops rising before each step,
            while the information of the code rises (He, Spokoyny, Neubig and Berg-Kirkpatrick
            2019).
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
        if isinstance(bound, str) and bound not in BOUNDS:
            raise ValueError(f"expected a bound among {', '.join(BOUNDS)}; got {bound!r}")
        if k < 1:
            raise ValueError(f"expected k of 1 or more draws; got {k}")
        super().__init__(
            BOUNDS[bound] if isinstance(bound, str) else bound,
            k,
            beta if isinstance(beta, Schedule) else Schedule(beta),
        )
        self.name: str = name or (
            bound if isinstance(bound, str) else str(getattr(bound, "__name__", "bound"))
        )
        self.gradient = gradient or Pathwise()
        self.gradient.check(self.name, k)
        self.rate, self.penalties, self.aggressive = rate, nn.ModuleList(penalties), aggressive
        self.size = 128  # data in a batch that penalties see
        if rate is not None and self.bound is not elbo:
            raise ValueError(
                f"expected objective elbo with {type(rate).__name__}, which acts on its rate; "
                f"got {self.name}"
            )
        if rate is not None and (self.gradient.stop_q or not self.gradient.pathwise):
            held = type(self.gradient).__name__
            raise ValueError(
                f"expected gradient pathwise with {type(rate).__name__}, whose rate is "
                f"differentiated; got {held}"
            )
        if (self.penalties or aggressive) and not self.gradient.pathwise:
            raise ValueError(
                f"expected gradient pathwise with penalties and aggressive updates; got "
                f"{type(self.gradient).__name__}"
            )

    @property
    def terms(self) -> tuple[str, ...]:
        """Name what the loss has beside the weighted bound: a term on the rate, and penalties."""
        return (
            *(() if self.rate is None else (self.rate.name,)),
            *(str(p.name) for p in self.penalties),
        )

    @property
    def plain(self) -> bool:
        """Return whether the loss is the negative bound that is reported, at the end of the
        schedules."""
        return not self.terms and not self.beta.adaptive and self.final_beta == 1

    @property
    def formula(self) -> str:
        """Return the loss at the end of the schedules, in words."""
        beta = f"{self.final_beta:.4g} "
        if self.rate is not None:
            first = f"distortion + {'' if self.final_beta == 1 else beta}{self.rate.name}"
        elif self.bound is elbo:
            first = f"distortion + {'' if self.final_beta == 1 else beta}rate"
        else:
            first = f"-{self.name}" + (
                "" if self.final_beta == 1 else f" with KL weight {beta.strip()}"
            )
        return " + ".join([first, *(str(p.name) for p in self.penalties)])

    def settled(self, step: int) -> bool:
        """Return whether the weight and every target keep their values from a step on."""
        at = torch.tensor(step, dtype=torch.float64)
        return self.beta.settled(at) and (self.rate is None or self.rate.settled(at))

    @property
    def outside_graph(self) -> list[str]:
        """Name what keeps the operations of a step with it from being recorded."""
        return [type(p).__name__ for p in self.penalties if not p.in_graph] + [
            "aggressive updates"
        ] * self.aggressive

    @property
    def functions(self) -> list[object]:
        return [*super().functions, *([] if self.rate is None else [self.rate])]

    @property
    def rows_together(self) -> int | None:
        return self.size if self.penalties else None

    def updates(self, model: Model) -> list[Update]:
        """Return one update of all parameters, and with `aggressive` one of the encoder."""
        parameters = [p for p in nn.ModuleList([model, self]).parameters() if p.requires_grad]
        joint = Update("joint", parameters, self)
        if not self.aggressive:
            return [joint]
        encoder = model.encoder_parameters()
        if not encoder or not model.capabilities.scored_anywhere:
            raise ValueError(
                "expected one process and an encoder whose q is scored anywhere for aggressive "
                "updates; got a posterior that is frozen or a flow"
            )
        return [joint, Update("encoder", encoder, self, until_flat=True)]

    def plan(self, steps: int, steps_per_epoch: float) -> None:
        """Convert lengths of schedules into steps of a run.

        Raises:
            ValueError: one is longer than the run.
        """
        self.beta.plan(steps, steps_per_epoch)
        if self.rate is not None:
            self.rate.plan(steps, steps_per_epoch)

    def prepare(self, model: Model, batch: Batch, rows: int, size: int, seed: int) -> None:
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
        self.size = size
        self.gradient.prepare(model)
        if self.rate is None and not self.penalties:
            return
        for penalty in self.penalties:
            penalty.prepare(model, rows, size, seed)  # type: ignore[operator]
        with torch.no_grad():
            draws = model.draw(
                batch, 1, gradient=self.gradient, noise=model.noise(1, len(batch))
            ).trained()
        for part in (self.rate, *self.penalties):
            if part is not None:
                part.check(draws)  # type: ignore[operator]

    def forward(
        self, model: Model, batch: Batch, step: Tensor, noise: Tensor | None = None
    ) -> Loss:
        """Return the loss of a batch at a step (a tensor that holds its number), and what is
        reported beside it."""
        draws = model.draw(batch, self.k, gradient=self.gradient, noise=noise)
        beta = self.beta(step)
        trained = draws.trained().weighted(beta)
        terms: list[Tensor] = []
        if self.rate is None:
            loss = -self.gradient.surrogate(trained, self.bound).mean()
        else:
            term = (beta * self.rate(trained, step)).mean()
            loss = term - trained.mean_log_px.mean()
            terms.append(term.detach())
        for penalty in self.penalties:
            term = penalty.weight * penalty(trained, step)  # type: ignore[operator]
            loss = loss + term
            terms.append(term.detach())
        with torch.no_grad():
            same = draws.optimised is None and trained.unweighted and not terms
            bound = -loss.detach() if same else self.bound(draws).mean()
            distortion = draws.distortion.mean()
            if self.training:
                self.beta.observe(distortion)
            logged = (
                loss.detach()
                if draws.optimised is None
                else self._logged(loss.detach(), draws.weighted(beta), terms)
            )
            return Loss(loss, bound, draws.total_rate.mean(), distortion, logged, tuple(terms))

    def _logged(self, loss: Tensor, draws: Draws, terms: Sequence[Tensor]) -> Tensor:
        """Return the loss of the reported model, or the loss itself where that is not finite."""
        first = -self.bound(draws) if self.rate is None else draws.distortion
        logged = first.mean() + sum(terms)
        return torch.where(torch.isfinite(loss), logged, loss)

    def score(self, draws: Draws, step: Tensor) -> Scores:
        """Return sums over the data of draws, from which `value` computes the loss.

        Args:
            draws: of data that are not trained on.
            step: number of the step whose weight holds, ().
        """
        size = draws.log_px.shape[1]
        beta, last = self.beta(step), self.beta(torch.full_like(step, END))

        def weighted(weight: Beta) -> Tensor:
            return (
                draws.distortion if self.rate is not None else -self.bound(draws.weighted(weight))
            )

        loss = weighted(beta).double().sum()
        constant = isinstance(beta, float) or bool(beta == last)
        penalties = [
            p.weight * p(draws, step, alone=True).double() * size
            for p in self.penalties
            if size > 1
        ]  # type: ignore[operator]
        return Scores(
            loss,
            loss if constant else weighted(last).double().sum(),
            draws.rate.flatten(2).mean(0).double().sum(0),
            torch.stack(penalties) if penalties else loss.new_zeros(len(self.penalties)),
            loss.new_tensor(size if penalties else 0),
        )

    def value(self, sums: Scores, n: int, step: Tensor) -> tuple[float, float, tuple[float, ...]]:
        """Return the loss at a step's schedules, that at the end of the schedules, and the terms of
        the first, from sums over n data."""
        end = torch.full_like(step, END)
        terms: list[float] = []
        loss, final = float(sums.loss) / n, float(sums.final) / n
        if self.rate is not None:
            rates = sums.rates / n
            terms.append(float(self.beta(step) * self.rate.value(rates, step)))
            loss += terms[0]
            final += float(self.beta(end) * self.rate.value(rates, end))
        penalties = (sums.penalties / sums.penalised.clamp_min(1)).tolist()
        return loss + sum(penalties), final + sum(penalties), (*terms, *penalties)


def elbo_objective(gradient: Gradient | None = None, *, k: int = 1, **parts: Any) -> Objective:
    """Maximise the evidence lower bound, with a closed-form KL where there is one (Kingma and
    Welling 2014)."""
    return Objective("elbo", k=k, gradient=gradient, **parts)


def iwae_objective(gradient: Gradient | None = None, *, k: int = 5, **parts: Any) -> Objective:
    """Maximise the importance-weighted bound with k draws (Burda et al. 2016)."""
    return Objective("iwae", k=k, gradient=gradient, **parts)


def miwae_objective(
    gradient: Gradient | None = None, *, m: int = 4, k: int = 8, **parts: Any
) -> Objective:
    """Maximise the mean of m importance-weighted bounds with k draws each, between ELBO (k=1) and
    IWAE (m=1) (Rainforth et al. 2018)."""
    if min(m, k) < 1:
        raise ValueError(f"expected m and k of 1 or more; got {m} and {k}")
    return Objective(partial(miwae, m=m), k=m * k, gradient=gradient, name="miwae", **parts)


def ciwae_objective(
    gradient: Gradient | None = None, *, k: int = 5, weight: float = 0.5, **parts: Any
) -> Objective:
    """Maximise weight ELBO + (1 - weight) IWAE with k draws (Rainforth et al. 2018)."""
    if not 0 <= weight <= 1:
        raise ValueError(f"expected a weight in [0, 1]; got {weight}")
    return Objective(partial(ciwae, weight=weight), k=k, gradient=gradient, name="ciwae", **parts)
