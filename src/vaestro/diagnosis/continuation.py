"""Test convergence: train a copy of the kept weights further and compare validation objectives.

A finished run has a flat curve because its learning rate decayed to zero, converged or not.
Therefore a copy of the weights is trained at the constant peak rate for a fifth of the run's steps.
The weights of the second half are averaged, which removes the noise of the high rate (Polyak and
Juditsky 1992). The same validation data with the same noise are scored before and after. A gain
shows that the run was too short. No gain does not prove that it was long enough.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor, nn

from vaestro.data import Rows
from vaestro.diagnosis.statistics import Paired
from vaestro.evaluation import affordable, in_space, plus_minus
from vaestro.files import Json
from vaestro.models import Draws, Model
from vaestro.new_categories import NEW_CATEGORIES, train_new_categories
from vaestro.objectives import Objective
from vaestro.optimizers import Optimizer
from vaestro.randomness import Order, derive, torch_generator

SHARE = 0.2  # number of further steps, as a share of the run's steps
FEWEST = 20  # minimum number of further steps
DRAWS = 4  # per validation row
ROWS = 5000  # maximum number of scored rows
LATE = 2.0**62  # a step after the end of any schedule


@final
@dataclass(frozen=True)
class Continuation:
    """The gain from further steps at a constant learning rate.

    Args:
        steps: number of further steps.
        share: further steps as a share of the run's steps.
        lr: the constant learning rate.
        gain: increase of the validation objective, in nats.

    >>> Continuation(40, 0.2, 0.002, Paired.normal(0.3, 0.05, 50)).words()
    '40 further steps ... raise the objective of 50 validation data by 0.30 +- 0.05 nats'
    """

    steps: int
    share: float
    lr: float
    gain: Paired

    def words(self) -> str:
        """Return the sentence for the report."""
        taken = (
            f"{self.steps:,} further steps of a copy at a constant learning rate of "
            f"{self.lr:.2g} ({self.share:.0%} of the run)"
        )
        change = plus_minus((self.gain.mean, self.gain.stderr))
        return f"{taken} raise the objective of {self.gain.n:,} validation data by {change} nats"

    def line(self) -> dict[str, Json]:
        """Return the fields for diagnosis.json."""
        return {"steps": self.steps, "share": self.share, "lr": self.lr, "gain": self.gain.line()}


def continued(
    model: Model,
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
    """Train a copy of a model further and score validation data before and after.

    Returns None if there are too few steps or rows, no parameters, penalties, or non-finite values.

    Args:
        model: the model with the weights in use; not changed.
        train, held_out: training and validation rows.
        objective: the training objective.
        optimizer: constructs the optimiser from a list of parameters.
        steps, batch, lr, clip: settings of the run.
        seed: seed of the data order and all draws.
        freeze: names of model parts that are not trained.

    >>> import vaestro as vs
    >>> data = vs.load(np.eye(10, dtype="uint8").repeat(20, 0))
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> run = {"optimizer": vs.parts.find("optimizer", "adamw"), "steps": 100, "batch": 20}
    >>> continued(model, data.train, data.valid, vs.Objective(), lr=1e-3, clip=9.0, **run).steps
    40
    """
    rows = held_out.spread(ROWS)
    most = affordable(model) // (3 * batch * objective.k)  # some ten seconds on two cores
    further = min(max(2 * FEWEST, round(SHARE * steps)), most)
    if further < FEWEST or len(rows) < 3 or len(objective.penalties):
        return None  # the discriminator of a penalty is not saved with the run
    device = next(model.parameters()).device
    # Streamed data need random access, so a sample of them is kept in memory.
    source = in_space(train if train.stream is None else train.spread(further * batch), model.space)
    copied = copy.deepcopy(model)
    parameters = _trainable(copied, freeze)
    if not parameters or not len(source):
        return None
    scored = in_space(rows.fixed(), model.space)
    before = objective_scores(model.eval(), objective, scored, seed)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(derive(seed, "continue"))
        fixed = (optimizer(parameters), source, objective, further, batch, lr, clip, seed)
        finite = _train(copied.train(), parameters, *fixed)
    if not finite:
        return None
    if "likelihood" not in freeze and NEW_CATEGORIES not in freeze:
        _fit_to_data(copied, train, seed)
    gains = objective_scores(copied.eval(), objective, scored, seed) - before
    return Continuation(further, further / steps, lr, _least(gains)) if _finite(gains) else None


def _finite(x: np.ndarray) -> bool:
    return bool(np.isfinite(x).all())


def _least(gains: np.ndarray) -> Paired:
    """Return the smaller of the gains (1 or 2, N), because both scores have to rise.

    A steep term on the rate (a capacity has weight 100) may fluctuate more than the rest gains.
    """
    return min((Paired.of(each) for each in gains), key=lambda gain: gain.mean)


def _trainable(model: Model, freeze: Sequence[str]) -> list[nn.Parameter]:
    """Freeze parts of a model, and return the trainable parameters."""
    if NEW_CATEGORIES in freeze:
        train_new_categories(model)
    frozen = {
        id(p) for name, part in model.named_children() if name in freeze for p in part.parameters()
    }
    return [p for p in model.parameters() if id(p) not in frozen and p.requires_grad]


def _fit_to_data(model: Model, train: Rows, seed: int) -> None:
    """Fit the closed-form parameters of a model to a sample of the training rows."""
    device = next(model.parameters()).device
    rows = in_space(train.spread(ROWS).fixed(), model.space)
    pairs = (
        (b, model.noise(1, len(b), torch_generator(device, seed, "continue fit", i)))
        for i, b in enumerate(rows.chunks(model.space.chunk, device))
    )
    model.eval().fit_to_data(pairs)


def _train(
    model: Model,
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
    """Train at a constant learning rate, then set the average weights of the second half.

    The rate is warmed up over the first tenth of the steps. Returns whether all losses and
    gradients were finite.
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
                    for mean, p in zip(average, parameters, strict=True):
                        mean.lerp_(p, 1 / taken)
                else:
                    average = [p.detach().clone() for p in parameters]
    with torch.no_grad():
        for p, mean in zip(parameters, average, strict=True):
            p.copy_(mean)
    return True


@torch.inference_mode()
def objective_scores(
    model: Model, objective: Objective, rows: Rows, seed: int, draws: int = DRAWS
) -> np.ndarray:
    """Return the objective per row with final schedule values, without penalties, in nats: (1, N).

    Larger is better. If the objective replaces the rate by another term, return (2, N): the
    objective and -distortion.

    >>> import vaestro as vs
    >>> data = vs.load(np.eye(10, dtype="uint8").repeat(20, 0))
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> objective_scores(model, vs.Objective(), data.valid, seed=0).shape
    (1, 10)
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
    before: Model, after: Model, rows: Rows, objective: Objective, seed: int = 0
) -> Paired | None:
    """Return how much lower the objective is with `after` than with `before`, in nats.

    Both use the same data and noise. Returns None if there are too few rows or a non-finite value.

    >>> import vaestro as vs
    >>> data = vs.load(np.eye(10, dtype="uint8").repeat(20, 0))
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> worsened(model, model, data.train, vs.Objective()).mean
    0.0
    """
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
