"""What the likelihood of a run can do without a latent: the number that its bound is compared with.

A model of independent cells with the run's likelihood is fitted to the run's training data. The
bound of the run minus the log-likelihood of this model, paired over data, is what the latent gains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from vaestro.building import class_of
from vaestro.data import Data, Rows
from vaestro.evaluation import Evaluation, Independent, evaluate
from vaestro.files import Json
from vaestro.loop import training
from vaestro.models import Model
from vaestro.objectives import Objective
from vaestro.parts import build, find
from vaestro.processes import shared

STEPS, LR = 200, 0.05
BATCH, OUTPUTS = 256, 2**22  # largest batch; largest number of decoder outputs in a step


def independent_model(data: Data, likelihood: str, device: str = "cpu") -> Model:
    """Fit one density for each cell, given the conditions, to the training split.

    Args:
        data: the data of a run.
        likelihood: of the run, with its options. Instead of an autoregressive one, each position of
            a text has its own frequencies.
        device: the device to compute on.

    >>> import numpy as np, vaestro as vs
    >>> data = vs.load(np.random.default_rng(0).normal(size=(100, 3)))
    >>> independent_model(data, "gaussian").capabilities.exact
    True
    """
    part = find("likelihood", likelihood)
    if part.name == "autoregressive":
        likelihood = "categorical"
    elif class_of(part).units_beside(**part.options):
        # without a latent library, and with a mean for each cell instead of its share
        rest = {k: v for k, v in part.options.items() if k != "library"}
        likelihood = str(replace(part, options=rest))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build(data.space, given=data.given, model="independent", likelihood=likelihood)
    outputs = max(p.shape[0] for p in model.parameters() if p.ndim)
    batch = shared(min(BATCH, len(data.train), max(16, OUTPUTS // outputs)))
    for _ in training(
        model, Objective(), data, steps=STEPS, batch=batch, lr=LR, device=device, compile="off"
    ):
        pass
    return model.eval()


def compared(
    evaluation: Evaluation, data: Data, rows: Rows, config: Mapping[str, Json], device: str = "cpu"
) -> Independent:
    """Return the log-likelihood of independent cells on evaluated rows, and what the latent gains.

    Args:
        evaluation: of the run on some rows.
        data: of the run.
        rows: the rows that the evaluation was given.
        config: the run's options.
        device: the device to compute on.

    >>> import numpy as np, vaestro as vs
    >>> x = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    >>> run = vs.train(x, run="compared", latent=2, steps=2)
    >>> rows = run.data().test
    >>> evaluation = vs.evaluate(run.model(), rows, k=10)
    >>> compared(evaluation, run.data(), rows, run.config).nats.shape
    (10,)
    """
    model = independent_model(data, config["likelihood"], device)
    if evaluation.index is not None:
        rows = rows.pick(evaluation.index)
    nats = evaluate(model, rows, methods="exact", seed=evaluation.seed)["exact"].nats
    bounds = {e.method: e.nats for e in evaluation.estimates if e.on == "data"}
    bound = next((bounds[m] for m in ("iwae", "elbo", "exact") if m in bounds), None)
    return Independent(nats, None if bound is None else bound - nats)
