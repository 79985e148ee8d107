r"""`Objective`: the loss that a run minimises, as a combination of parts.

    loss = -mean_b surrogate(bound at weight beta)                 + sum_p weight_p penalty_p
    loss =  mean_b (distortion + beta term(rate))  with a rate term + sum_p weight_p penalty_p

The bound that is reported has weight 1, the exact rate and no penalties.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TypedDict, Unpack, final

import torch
import torch.nn as nn
from torch import Tensor

from vaestro.gradients import Bound, Gradient, Pathwise
from vaestro.models import Draws, Model
from vaestro.objectives.base import Loss, Scores, TrainingObjective
from vaestro.objectives.bounds import BOUNDS, ciwae, elbo, miwae
from vaestro.penalties import Penalty, RateTerm
from vaestro.schedules import END, Beta, Schedule
from vaestro.spaces import Batch
from vaestro.updates import Update


@final
class Objective(TrainingObjective):
    """Compute the loss of a batch from a bound, a weight of the rate, a gradient estimator, and
    further terms.

    Args:
        bound: "elbo" or "iwae", or a function `Draws -> (B,)` (with `name`).
        k: number of draws of each datum.
        beta: weight of the rate in the loss, a number or a schedule.
        gradient: gradient estimator; pathwise by default.
        rate: term that replaces the rate in the loss of an ELBO: free bits or a capacity.
        penalties: penalties on the aggregate posterior.
        name: name of the bound; by default the name of the function.
        aggressive: before each joint step, train the encoder alone until its bound stops improving,
            as long as the information in the code increases (He, Spokoyny, Neubig and
            Berg-Kirkpatrick 2019).

    Raises:
        ValueError: the parts do not fit each other.

    >>> from vaestro.penalties import FreeBits
    >>> objective = Objective("elbo", rate=FreeBits(0.25))
    >>> objective.terms, objective.formula
    (('free_bits',), 'distortion + free_bits')
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
        self.rate, self.aggressive = rate, aggressive
        self.penalties, self._penalties = nn.ModuleList(penalties), tuple(penalties)
        self.size = 128  # rows of the batches that penalties are computed on
        self._check_parts()

    def _check_parts(self) -> None:
        gradient = type(self.gradient).__name__
        if self.rate is not None and self.bound is not elbo:
            raise ValueError(
                f"expected objective elbo with {type(self.rate).__name__}, which acts on its rate; "
                f"got {self.name}"
            )
        if self.rate is not None and (self.gradient.stop_q or not self.gradient.pathwise):
            raise ValueError(
                f"expected gradient pathwise with {type(self.rate).__name__}, whose rate is "
                f"differentiated; got {gradient}"
            )
        if (self._penalties or self.aggressive) and not self.gradient.pathwise:
            raise ValueError(
                f"expected gradient pathwise with penalties and aggressive updates; got {gradient}"
            )

    @property
    def terms(self) -> tuple[str, ...]:
        rate = () if self.rate is None else (self.rate.name,)
        return (*rate, *(p.name for p in self._penalties))

    @property
    def plain(self) -> bool:
        return not self.terms and not self.beta.adaptive and self.final_beta == 1

    @property
    def formula(self) -> str:
        beta = f"{self.final_beta:.4g} "
        if self.rate is not None:
            first = f"distortion + {'' if self.final_beta == 1 else beta}{self.rate.name}"
        elif self.bound is elbo:
            first = f"distortion + {'' if self.final_beta == 1 else beta}rate"
        else:
            first = f"-{self.name}" + (
                "" if self.final_beta == 1 else f" with KL weight {beta.strip()}"
            )
        return " + ".join([first, *(p.name for p in self._penalties)])

    def settled(self, step: int) -> bool:
        at = torch.tensor(step, dtype=torch.float64)
        return self.beta.settled(at) and (self.rate is None or self.rate.settled(at))

    @property
    def outside_graph(self) -> list[str]:
        penalties = [type(p).__name__ for p in self._penalties if not p.in_graph]
        return penalties + ["aggressive updates"] * self.aggressive

    @property
    def functions(self) -> list[object]:
        return [*super().functions, *([] if self.rate is None else [self.rate])]

    @property
    def rows_together(self) -> int | None:
        return self.size if self._penalties else None

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
        self.beta.plan(steps, steps_per_epoch)
        if self.rate is not None:
            self.rate.plan(steps, steps_per_epoch)

    def prepare(self, model: Model, batch: Batch, rows: int, size: int, seed: int) -> None:
        self.size = size
        self.gradient.prepare(model)
        if self.rate is None and not self._penalties:
            return
        for penalty in self._penalties:
            penalty.prepare(model, rows, size, seed)
        with torch.no_grad():
            draws = model.draw(
                batch, 1, gradient=self.gradient, noise=model.noise(1, len(batch))
            ).trained()
        if self.rate is not None:
            self.rate.check(draws)
        for penalty in self._penalties:
            penalty.check(draws)

    def forward(
        self, model: Model, batch: Batch, step: Tensor, noise: Tensor | None = None
    ) -> Loss:
        """Return the loss of a batch, and the numbers that are reported.

        Args:
            model: the model.
            batch: B rows.
            step: number of the step, ().
            noise: (K, B, *Z), as `model.noise` draws it; drawn here by default.
        """
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
        for penalty in self._penalties:
            term = penalty.weight * penalty(trained, step)
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
        """Return the loss of the reported model, or the training loss if that is not finite."""
        first = -self.bound(draws) if self.rate is None else draws.distortion
        logged = first.mean() + sum(terms)
        return torch.where(torch.isfinite(loss), logged, loss)

    def score(self, draws: Draws, step: Tensor) -> Scores:
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
            for p in self._penalties
            if size > 1
        ]
        return Scores(
            loss,
            loss if constant else weighted(last).double().sum(),
            draws.rate.flatten(2).mean(0).double().sum(0),
            torch.stack(penalties) if penalties else loss.new_zeros(len(self._penalties)),
            loss.new_tensor(size if penalties else 0),
        )

    def value(self, sums: Scores, n: int, step: Tensor) -> tuple[float, float, tuple[float, ...]]:
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


class Parts(TypedDict, total=False):
    """Name the arguments of an `Objective` that every bound accepts."""

    beta: float | Schedule
    rate: RateTerm | None
    penalties: Sequence[Penalty]
    aggressive: bool


def elbo_objective(
    gradient: Gradient | None = None, *, k: int = 1, **parts: Unpack[Parts]
) -> Objective:
    """Maximise the evidence lower bound, with a closed-form KL if there is one (Kingma and Welling
    2014).

    >>> elbo_objective(beta=4.0).formula
    'distortion + 4 rate'
    """
    return Objective("elbo", k=k, gradient=gradient, **parts)


def iwae_objective(
    gradient: Gradient | None = None, *, k: int = 5, **parts: Unpack[Parts]
) -> Objective:
    """Maximise the importance-weighted bound with k draws (Burda, Grosse and Salakhutdinov 2016).

    >>> iwae_objective(k=50).k
    50
    """
    return Objective("iwae", k=k, gradient=gradient, **parts)


def miwae_objective(
    gradient: Gradient | None = None, *, m: int = 4, k: int = 8, **parts: Unpack[Parts]
) -> Objective:
    """Maximise the mean of m importance-weighted bounds with k draws each, between ELBO (k=1) and
    IWAE (m=1) (Rainforth et al. 2018).

    >>> miwae_objective(m=4, k=8).k
    32
    """
    if min(m, k) < 1:
        raise ValueError(f"expected m and k of 1 or more; got {m} and {k}")
    return Objective(partial(miwae, m=m), k=m * k, gradient=gradient, name="miwae", **parts)


def ciwae_objective(
    gradient: Gradient | None = None, *, k: int = 5, weight: float = 0.5, **parts: Unpack[Parts]
) -> Objective:
    """Maximise weight ELBO + (1 - weight) IWAE with k draws (Rainforth et al. 2018).

    >>> ciwae_objective(weight=0.2).name
    'ciwae'
    """
    if not 0 <= weight <= 1:
        raise ValueError(f"expected a weight in [0, 1]; got {weight}")
    return Objective(partial(ciwae, weight=weight), k=k, gradient=gradient, name="ciwae", **parts)
