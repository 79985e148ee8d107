r"""Validation: means over data that are not trained on, by the function that training uses.

For each unit i of the code, with mean m_i(x) and variance v_i(x) of q(z | x),

    activity_i = Var_x[m_i(x)]              signal_i = ln(1 + activity_i / E_x[v_i(x)]) / 2 nats

A unit is active if its activity is above 0.01 (Burda, Grosse and Salakhutdinov 2016).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from vaestro.data import Rows
from vaestro.densities import mean_over_ranks
from vaestro.models import Draws, LatentModel
from vaestro.objectives import Scores, TrainingObjective
from vaestro.randomness import torch_generator

VALIDATION_ROWS = 10_000
ACTIVE = 0.01  # variance over data of q's mean above which a unit is active


class Validation(NamedTuple):
    """Hold means over validation data, in nats.

    Args:
        bound, rate, distortion: of the unweighted bound.
        loss: every term of the objective, at a step's schedules.
        stderr: standard error of the bound.
        active_units, signal: of the code; None for families without a variance (see `signal`).
        objective: the loss with the weights and targets at the end of the schedules.
        terms: terms of the loss beside the weighted bound, as `TrainingObjective.terms` names them.
    """

    bound: float
    rate: float
    distortion: float
    loss: float
    stderr: float
    active_units: int | None
    signal: float | None
    objective: float
    terms: tuple[float, ...]


@torch.inference_mode()
def validate(
    model: LatentModel,
    objective: TrainingObjective,
    rows: Rows,
    seed: int,
    device: torch.device | str,
    processes: int = 1,
    rank: int = 0,
    step: int = 0,
) -> Validation:
    """Return means over rows, with the same noise at every call.

    Penalties on the aggregate posterior are means over batches of the size of a training batch.

    Args:
        model: what is scored.
        objective: the loss, at the schedules of `step`.
        rows: the data.
        seed: of the noise.
        device: where the model is.
        processes, rank: process `rank` scores batch i if i % processes == rank; sums are gathered.
        step: number of steps taken.
    """
    totals = _Totals(model, device)
    scores: Scores | None = None
    number = torch.tensor(step, dtype=torch.float64, device=device)
    size = min(rows.space.chunk, objective.rows_together or rows.space.chunk)
    for i, batch in enumerate(rows.chunks(size, device)):
        mine = i % processes == rank
        if i and not mine:  # every process scores the first batch, so that all have the shapes
            continue
        noise = model.noise(objective.k, len(batch), torch_generator(device, seed, "valid", i))
        draws = model.draw(batch, objective.k, noise=noise)
        totals.add(draws, objective.bound(draws), mine)
        score = Scores(*(mine * s for s in objective.score(draws, number)))
        scores = (
            score
            if scores is None
            else Scores(*(a + b for a, b in zip(scores, score, strict=True)))
        )
    n = len(rows)
    assert scores is not None
    parts = [totals.sums, totals.codes.flatten(), *(s.flatten() for s in scores)]
    total = (mean_over_ranks(torch.cat(parts)) * processes).split([len(p) for p in parts])
    bound, rate, distortion, squared = (total[0] / n).tolist()
    loss, final, extra = objective.value(
        Scores(*(t.view_as(s) for t, s in zip(total[2:], scores, strict=True))), n, number
    )
    error = math.sqrt(max(0.0, squared - bound**2) / (n - 1)) if n > 1 else math.nan
    active, information = _of_code(total[1] / n) if totals.has_variance and n > 1 else (None, None)
    return Validation(bound, rate, distortion, loss, error, active, information, final, extra)


class _Totals:
    """Sum bounds and moments of the code over batches."""

    def __init__(self, model: LatentModel, device: torch.device | str) -> None:
        self.sums = torch.zeros(4, dtype=torch.float64, device=device)
        self.codes = torch.zeros(3, math.prod(model.units), dtype=torch.float64, device=device)
        self.has_variance = True

    def add(self, draws: Draws, bound: Tensor, mine: bool) -> None:
        terms = (bound, draws.total_rate, draws.distortion, bound.double().square())
        self.sums += mine * torch.stack([t.double().sum() for t in terms])
        variance = draws.q.variance
        if variance is None:
            self.has_variance = False
            return
        mean = informative_mean(draws).double().flatten(1)
        self.codes += mine * torch.stack(
            [mean.sum(0), mean.square().sum(0), variance.double().flatten(1).sum(0)]
        )


def _of_code(moments: Tensor) -> tuple[int, float]:
    """Return the number of active units and the signal, from E[m], E[m^2] and E[v], (3 units,)."""
    mean, square, variance = moments.unflatten(0, (3, -1))
    activity = (square - mean.square()).clamp_min(0.0)
    return int((activity > ACTIVE).sum()), float(signal(activity, variance).sum())


def informative_mean(draws: Draws) -> Tensor:
    """Return q's mean, (B, *Z), minus the prior's mean if the prior differs between data: what the
    mean says of x beyond the conditions."""
    return draws.q.mean if draws.shared_prior else draws.q.mean - draws.p.mean


def signal(activity: Tensor, variance: Tensor) -> Tensor:
    """Return the information of each unit's mean about the data, in nats, if codes and their noise
    were normal: ln(1 + activity / variance) / 2.

    It is zero if and only if the encoder's mean does not depend on its input. For a linear model it
    is the mutual information.

    Args:
        activity: variance over data of q's mean, (units,).
        variance: mean over data of q's variance, (units,).

    >>> signal(torch.tensor([0.0, 3.0]), torch.ones(2))
    tensor([0.0000, 0.6931])
    """
    # the variance of a discrete unit may be zero
    return 0.5 * torch.log1p(activity / variance.clamp_min(1e-12))
