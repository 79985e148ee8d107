"""Training: `training` returns an iterator of steps.

The package is not called `training`, because `vaestro.training` is the function.
"""

from __future__ import annotations

from typing import Unpack

from vaestro.data import Data
from vaestro.loop.devices import accelerator_for, end_together
from vaestro.loop.iterator import Training
from vaestro.loop.records import Diverged, Record, Step
from vaestro.loop.settings import Options, Settings
from vaestro.loop.validation import ACTIVE, Validation, informative_mean, signal, validate
from vaestro.models import Model
from vaestro.objectives import TrainingObjective
from vaestro.options import documented

__all__ = [
    "ACTIVE",
    "Diverged",
    "Record",
    "Step",
    "Training",
    "Validation",
    "accelerator_for",
    "end_together",
    "informative_mean",
    "signal",
    "training",
    "validate",
]


@documented(lambda row: row.group == "training")
def training(
    model: Model, objective: TrainingObjective, data: Data, **options: Unpack[Options]
) -> Training:
    """Train a model, one step at a time.

    Args:
        model: the model, which holds the kept weights after the last step.
        objective: bound, gradient estimator, schedules and penalties.
        data: training and validation data.
        {options}

    `optimizer` may also be a function of the parameters that returns an `Optimizer`. If `precision`
    is bf16, networks run under autocast; weights and densities stay in float32. If `compile` is
    auto, long runs are compiled if all parts belong to this package, because user code may have
    side effects that a graph does not capture.

    Returns:
        An iterator of `Step`s. Step 0 is the validation of the untrained model.

    Raises:
        ValueError: an option has no meaning for this model, objective or data.
        Diverged: (from the iterator) loss or gradient were not finite in many steps in a row.

    >>> import vaestro as vs
    >>> data = vs.load("digits")
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> steps = list(vs.training(model, vs.Objective(), data, steps=3, device="cpu"))
    >>> [step.index for step in steps]
    [0, 1, 2, 3]
    """
    return Training(model, objective, data, Settings.of(data, options))
