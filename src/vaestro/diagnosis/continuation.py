"""Train a copy of the kept weights a little further, to see whether more training would still raise
the validation objective.

The curve of a finished run ends flat because its learning rate was lowered to zero, whether the
model had converged or not. So a copy of the weights is trained at the run's peak rate, held
constant, for a fifth of the run's steps; the weights of the second half are averaged, which removes
the noise of the high rate (Polyak and Juditsky 1992). The same validation data with the same noise
are scored before and after. What is gained is part of what a longer run gains, so a gain shows that
the run was too short, and none does not show that it was long enough.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from vaestro.data import Rows
from vaestro.data.sets import Streamed
from vaestro.diagnosis.statistics import Paired
from vaestro.evaluation import affordable, in_space, plus_minus
from vaestro.models import Draws, LatentModel
from vaestro.objectives import Objective
from vaestro.optimizers import Optimizer
from vaestro.randomness import Order, derive, torch_generator

SHARE = 0.2  # of the run's steps
FEWEST = 20  # steps below which nothing is said
DRAWS = 4  # of each validation datum
ROWS = 5000
LATE = 2.0**62  # a step after the end of any schedule


@final
@dataclass(frozen=True)
class Continuation:
    """Hold what some further steps at a constant learning rate gained.

    Args:
        steps: that were taken.
        share: of the run's steps.
        lr: the constant learning rate.
        gain: of the objective of the same validation data, in nats.
    """

    steps: int
    share: float
    lr: float
    gain: Paired

    def words(self) -> str:
        """Say what the steps cost and gained."""
        taken = (
            f"{self.steps:,} further steps of a copy at a constant learning rate of "
            f"{self.lr:.2g} ({self.share:.0%} of the run)"
        )
        change = plus_minus((self.gain.mean, self.gain.stderr))
        return f"{taken} raise the objective of {self.gain.n:,} validation data by {change} nats"

    def line(self) -> dict[str, Any]:
        """Return what diagnosis.json holds."""
        return {"steps": self.steps, "share": self.share, "lr": self.lr, "gain": self.gain.line()}


def continued(
    model: LatentModel,
    train: Rows,
    held_out: Rows,
    objective: Objective,
    *,
    optimizer: Callable[..., Optimizer],
    steps: int,
    batch: int,
    lr: float,
    clip: float,
    seed: int = 0,
    freeze: Sequence[str] = (),
) -> Continuation | None:
    """Train a copy of a model further and score validation data before and after; None where that
    is impossible or says nothing.

    Args:
        model: the model, with the weights in use; it stays as it is.
        train, held_out: its data.
        objective: what it was trained by.
        optimizer: makes the optimiser of a list of parameters.
        steps: of the run.
        batch, lr, clip: of the run.
        seed: of the order of the data and of all draws.
        freeze: parts of the model that stay as they are.
    """
    rows = held_out.spread(ROWS)
    most = affordable(model) // (3 * batch * objective.k)  # some ten seconds on two cores
    further = min(max(2 * FEWEST, round(SHARE * steps)), most)
    if further < FEWEST or len(rows) < 3 or len(objective.penalties):
        return None  # a discriminator that a penalty learns is not kept
    device = next(model.parameters()).device
    # Of streamed data as many rows as memory holds: they are drawn in a random order.
    source = in_space(
        train.spread(further * batch) if isinstance(train.values, Streamed) else train, model.space
    )
    copied = copy.deepcopy(model)
    frozen = {
        id(p) for name, part in copied.named_children() if name in freeze for p in part.parameters()
    }
    parameters = [p for p in copied.parameters() if id(p) not in frozen and p.requires_grad]
    if not parameters or not len(source):
        return None
    scored = in_space(rows.fixed(), model.space)
    before = objective_scores(model.eval(), objective, scored, seed)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(derive(seed, "continue"))
        finite = _train(
            copied.train(),
            parameters,
            optimizer(parameters),
            source,
            objective,
            further,
            batch,
            lr,
            clip,
            seed,
        )
    if not finite:
        return None
    if "likelihood" not in freeze:
        pairs = (
            (b, copied.noise(1, len(b), torch_generator(device, seed, "continue fit", i)))
            for i, b in enumerate(
                in_space(train.spread(ROWS).fixed(), model.space).chunks(model.space.chunk, device)
            )
        )
        copied.eval().fit_to_data(pairs)
    gains = objective_scores(copied.eval(), objective, scored, seed) - before
    if not np.isfinite(gains).all():
        return None
    # A term on the rate may be steep (a capacity, whose weight is 100), and then wavers more than
    # the rest gains: both have to rise.
    return Continuation(
        further,
        further / steps,
        lr,
        min((Paired.of(gain) for gain in gains), key=lambda gain: gain.mean),
    )


def _train(
    model: LatentModel,
    parameters: list[nn.Parameter],
    optimizer: Optimizer,
    rows: Rows,
    objective: Objective,
    steps: int,
    batch: int,
    lr: float,
    clip: float,
    seed: int,
) -> bool:
    """Take steps at a constant rate, after a tenth of them in which it rises, and leave the average
    of the second half in the model.

    Returns whether all numbers stayed finite.
    """
    device = parameters[0].device
    order = Order(len(rows), batch, derive(seed, "continue"), rows.sizes())
    number = torch.full((), LATE, dtype=torch.float64, device=device)
    average: list[Tensor] = []
    taken = 0
    for step in range(steps):
        some = rows.gather(
            order(step)[None], device, seed=derive(seed, "continue"), stream=step, place=(0, batch)
        )[0]
        noise = model.noise(objective.k, batch, torch_generator(device, seed, "continue", step))
        loss = objective(model, some, number, noise).loss
        gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)
        norm = torch.stack([g.square().sum() for g in gradients]).sum().sqrt()
        if not bool(torch.isfinite(loss + norm)):
            return False
        rate = lr * min(1.0, (step + 1) / (0.1 * steps))
        optimizer.step(gradients, rate, norm / clip if float(norm) > clip else None)
        if step >= steps // 2:
            taken += 1
            with torch.no_grad():
                if average:
                    torch._foreach_lerp_(average, list(parameters), 1 / taken)
                else:
                    average = [p.detach().clone() for p in parameters]
    with torch.no_grad():
        for p, mean in zip(parameters, average, strict=True):
            p.copy_(mean)
    return True


@torch.inference_mode()
def objective_scores(
    model: LatentModel, objective: Objective, rows: Rows, seed: int, draws: int = DRAWS
) -> np.ndarray:
    """Return the objective of each datum at the end of all schedules, penalties left out, in nats:
    (1, N); larger is better.

    With a term in place of the rate, (2, N): the objective and -distortion.
    """
    device = next(model.parameters()).device
    number = torch.full((), LATE, dtype=torch.float64, device=device)
    k = objective.k if objective.k > 1 else draws
    out = []
    for i, batch in enumerate(rows.chunks(model.space.chunk, device)):
        drawn = model.draw(
            batch,
            k,
            noise=model.noise(k, len(batch), torch_generator(device, seed, "continue score", i)),
        )
        out.append(_of_each(objective, drawn, number).double())
    return torch.cat(out, 1).cpu().numpy()


def _of_each(objective: Objective, draws: Draws, step: Tensor) -> Tensor:
    weighted = draws.weighted(objective.beta(step))
    if objective.rate is None:
        return objective.bound(weighted).unsqueeze(0)
    return torch.stack(
        [draws.mean_log_px - weighted.weight * objective.rate(weighted, step), draws.mean_log_px]
    )


def worsened(
    before: LatentModel, after: LatentModel, rows: Rows, objective: Objective, seed: int = 0
) -> Paired | None:
    """Compare the objective of the same data under two sets of weights: what `before` has more, in
    nats; None if it is not finite."""
    scored = in_space(rows.spread(ROWS).fixed(), after.space)
    if len(scored) < 3:
        return None
    first, last = (
        objective_scores(model.eval(), objective, scored, seed, 1)[0] for model in (before, after)
    )
    if not np.isfinite(first).all():
        return None
    lost = np.where(np.isfinite(last), first - last, math.inf)
    return Paired.of(lost) if np.isfinite(lost).all() else None
