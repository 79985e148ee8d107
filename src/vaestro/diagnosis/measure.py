"""Measure a model on data, for the rules to judge. Each number is computed once.

Two questions are separate. Does the code depend on the data? The encoder alone answers it: does
E[z | x] vary with x? Does the decoder use the code? The decoder answers it: by how much does the
distortion rise with another datum's z, or with a draw of the prior for one unit?
"""

from __future__ import annotations

import math

from vaestro.data import Rows
from vaestro.diagnosis.ablation import unit_effects
from vaestro.diagnosis.encoding import encode, score_training
from vaestro.diagnosis.exchange import gain_over_constant, use_of_code
from vaestro.diagnosis.gradient_share import share_of_draws
from vaestro.diagnosis.measures import Measures
from vaestro.diagnosis.reconstruction import reconstructed
from vaestro.diagnosis.structure import correlation_structure
from vaestro.evaluation import Information, affordable, evaluate, in_space
from vaestro.models import LatentModel, Model, with_latent
from vaestro.objectives import Objective

ROWS = 5000  # maximum number of rows of each split that are scored
HELD = 10_000_000  # maximum number of code values in memory and in diagnosis.npz
CODES = 10_000  # maximum number of training rows for the aggregate posterior
PAIRS = 200_000_000  # maximum number of log-densities of one unit for the mutual information
# If fewer rows than this were used neither for training nor for selecting the weights, the
# validation rows are added.
FEW = 100


def measure(
    model: Model,
    train: Rows,
    held_out: Rows,
    objective: Objective,
    *,
    batch: int = 128,
    seed: int = 0,
    rows: int = ROWS,
    unseen: Rows | None = None,
    validations: int = 0,
) -> Measures:
    """Measure a model on held-out rows, and on as many training rows with the same weights.

    The measures of the code are empty for a model without a latent.

    Args:
        model: the model, with the weights in use.
        train, held_out: its data; held_out may be empty.
        objective: that of training, with the weight of the KL at the end of the run.
        batch, seed, rows: rows in a training step, seed, and maximum number of rows of a split.
        unseen: rows that were used neither for training nor for selecting the weights.
        validations: number of validations on held_out from which the weights were selected, or 0.

    >>> import numpy as np, vaestro as vs
    >>> data = vs.load(np.eye(10, dtype="uint8").repeat(20, 0))
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> measures = measure(model, data.train, data.valid, vs.Objective())
    >>> measures.split, measures.n, sorted(measures.effects)
    ('valid', 10, [0, 1])
    """
    passes, units = affordable(model.eval()), max(1, math.prod(model.units))
    limit = min(rows, max(100, passes // 10), max(100, HELD // units))

    def some(split: Rows) -> Rows:
        return in_space(split.spread(limit).fixed(), model.space)

    training = some(train)
    scored = some(held_out) if len(held_out) else training
    measures = encode(model, scored, seed)
    if len(held_out):
        score_training(model, training, measures, seed)
    measures.structure, measures.visible = correlation_structure(training, seed)
    if model.capabilities.exact:
        return measures
    model = with_latent(model)
    if len(held_out):
        fresh = [some(unseen)] if unseen is not None and len(unseen) else []
        parts = fresh if fresh and len(fresh[0]) >= FEW else [*fresh, scored]
        sets = [part for part in parts if len(part) > 2]
        if sets:
            tests = [validations if part is scored else 0 for part in sets]
            _measure_use(model, training, sets, tests, objective.beta.value, measures, seed)
    measures.effects, measures.limits = unit_effects(model, scored, measures, passes // 2, seed)
    if model.capabilities.scored_anywhere:
        codes = train if len(held_out) and len(training) > 2 else None
        _measure_information(model, scored, codes, measures, seed)
    measures.gradient_noise = share_of_draws(model, train, objective, batch, seed)
    measures.reconstruction = reconstructed(model, scored)
    return measures


def _measure_use(
    model: LatentModel,
    training: Rows,
    sets: list[Rows],
    tests: list[int],
    beta: float,
    measures: Measures,
    seed: int,
) -> None:
    """Add to the measures whether the decoder uses the code, and whether the objective gains."""
    measures.use = use_of_code(model, sets, tests, affordable(model), seed)
    measures.chosen = sum(tests)
    measures.use_split = " and ".join(part.name for part in sets)
    measures.worth = gain_over_constant(model, training, sets, beta, seed)


def _measure_information(
    model: LatentModel, scored: Rows, train: Rows | None, measures: Measures, seed: int
) -> None:
    """Add to the measures the decomposition of the rate of scored rows and of training rows."""
    most = max(2, math.isqrt(PAIRS // math.prod(model.units)))
    if len(scored) > 2:
        measures.information = _information(model, scored, min(len(scored), most), seed)
    measures.aggregate = measures.information
    if train is not None:
        codes = in_space(train.spread(min(most, CODES)).fixed(), model.space)
        measures.aggregate = _information(model, codes, len(codes), seed)


def _information(model: LatentModel, rows: Rows, n: int, seed: int) -> Information | None:
    """Return the decomposition of the rate of n rows, from one draw of each."""
    return evaluate(model, rows, k=1, methods=f"information:n={n}", seed=seed).information
