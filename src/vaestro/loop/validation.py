r"""Validation: means over data that are not trained on, computed by the functions of training.

For each unit i of the code, with mean m_i(x) and variance v_i(x) of q(z | x),

    activity_i = Var_x[m_i(x)]              signal_i = log(1 + activity_i / E_x[v_i(x)]) / 2 nats

A unit is active if its activity is above 0.01 (Burda, Grosse and Salakhutdinov 2016).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from vaestro.data import Rows
from vaestro.densities import mean_over_ranks
from vaestro.models import Draws, Model
from vaestro.objectives import Scores, TrainingObjective
from vaestro.randomness import torch_generator

VALIDATION_ROWS = 10_000  # largest number of rows of a validation
ACTIVE = 0.01  # activity above which a unit is active


class Validation(NamedTuple):
    """Hold means over validation data, in nats.

    Args:
        bound, rate, distortion: the unweighted bound and its two terms.
        loss: every term of the objective, at the schedules of a step.
        stderr: standard error of the bound.
        active_units: number of active units; None for families without a variance.
        signal: sum over units of `signal`; None for families without a variance.
        objective: loss with the weights and targets at the end of the schedules.
        terms: terms of the loss besides the weighted bound; `TrainingObjective.terms` has their
            names.

    >>> Validation(-9.0, 2.0, 7.0, 9.0, 0.1, 2, 1.5, 9.0, ()).bound
    -9.0
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
    model: Model,
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
        model: the model.
        objective: the objective, whose schedules are evaluated at `step`.
        rows: the data.
        seed: seed of the noise.
        device: device of the model.
        processes, rank: process `rank` scores batch i if i % processes == rank; sums are gathered.
        step: number of steps taken.

    >>> import vaestro as vs
    >>> data = vs.load("digits")
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> scores = validate(model, vs.Objective(), data.valid, seed=0, device="cpu")
    >>> abs(scores.bound + scores.rate + scores.distortion) < 1e-3
    True
    """
    totals = _Totals(model, device)
    scores: Scores | None = None
    number = torch.tensor(step, dtype=torch.float64, device=device)
    size = min(rows.space.chunk, objective.rows_together or rows.space.chunk)
    for i, batch in enumerate(rows.chunks(size, device)):
        mine = i % processes == rank
        if i and not mine:  # all processes evaluate the first batch, which determines the shapes
            continue
        noise = model.noise(objective.k, len(batch), torch_generator(device, seed, "valid", i))
        draws = model.draw(batch, objective.k, noise=noise)
        totals.add(draws, objective.bound(draws), mine)
        score = Scores(*(mine * s for s in objective.score(draws, number)))
        if scores is None:
            scores = score
        else:
            scores = Scores(*(a + b for a, b in zip(scores, score, strict=True)))
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

    def __init__(self, model: Model, device: torch.device | str) -> None:
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
    """Return the mean of q, (B, *Z), minus the mean of the prior if that differs between data: the
    part of the mean that the conditions do not determine.

    >>> import vaestro as vs
    >>> data = vs.load("digits")
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> informative_mean(model.draw(data.valid.batch(slice(0, 3)))).shape
    torch.Size([3, 2])
    """
    return draws.q.mean if draws.shared_prior else draws.q.mean - draws.p.mean


def signal(activity: Tensor, variance: Tensor) -> Tensor:
    """Return the information between each unit and the data, in nats, under the assumption that
    means and noise are normal: log(1 + activity / variance) / 2.

    It is zero if and only if the mean of q is the same for all data. For a linear model it is the
    mutual information.

    Args:
        activity: variance over data of the mean of q, (units,).
        variance: mean over data of the variance of q, (units,).

    >>> signal(torch.tensor([0.0, 3.0]), torch.ones(2))
    tensor([0.0000, 0.6931])
    """
    # the variance of a discrete unit may be zero
    return 0.5 * torch.log1p(activity / variance.clamp_min(1e-12))
