"""The share of the variance of the encoder's gradient that comes from the draws of z."""

from __future__ import annotations

import math

import numpy as np
import torch

from vaestro.data import Rows
from vaestro.evaluation import in_space
from vaestro.models import LatentModel
from vaestro.objectives import Objective
from vaestro.randomness import numpy_generator, torch_generator

REPEATS = 8


def share_of_draws(
    model: LatentModel, train: Rows, objective: Objective, batch: int, seed: int
) -> float | None:
    """Return the gradient's variance over draws of z for one batch, divided by that over batches
    and draws.

    None if the estimator is not pathwise, the encoder has no parameters, or there are fewer than
    REPEATS rows.

    >>> import vaestro as vs
    >>> data = vs.load(np.eye(10, dtype="uint8").repeat(20, 0))
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> 0 < share_of_draws(model, data.train, vs.Objective(), batch=16, seed=0) <= 1
    True
    """
    parameters = model.encoder_parameters() if objective.gradient.pathwise else []
    size = min(batch, len(train) // REPEATS)
    if size < 1 or not parameters:
        return None
    device = parameters[0].device
    # a step after the end of every schedule
    step = torch.full((), 2.0**62, dtype=torch.float64, device=device)
    picks = (
        numpy_generator(seed, "gradient")
        .permutation(len(train))[: size * REPEATS]
        .reshape(REPEATS, size)
    )
    rows = [in_space(train.pick(np.sort(picks[i])).fixed(), model.space) for i in range(REPEATS)]

    def total_variance(vary: bool) -> float:
        """Return the trace of the covariance, by Welford's sums."""
        mean, squares = [torch.zeros_like(p) for p in parameters], 0.0
        for i in range(REPEATS):
            noise = model.noise(objective.k, size, torch_generator(device, seed, "gradient", i))
            loss = objective(
                model, rows[i if vary else 0].batch(slice(0, size), device), step, noise
            ).loss
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
            for m, g in zip(mean, gradients, strict=True):
                if g is not None:
                    delta = g - m
                    m.add_(delta / (i + 1))
                    squares += float((delta * (g - m)).sum())
        return squares / (REPEATS - 1)

    every = total_variance(True)
    return min(1.0, total_variance(False) / every) if every > 0 and math.isfinite(every) else None
