"""Training: `training` returns an iterator of steps.

The package cannot be called `training`, because `vaestro.training` is the function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from vaestro.data import Data
from vaestro.loop.devices import accelerator_for
from vaestro.loop.iterator import Training
from vaestro.loop.records import Diverged, Record, Step
from vaestro.loop.settings import Settings, default_batch, default_clip
from vaestro.loop.validation import ACTIVE, Validation, informative_mean, signal, validate
from vaestro.models import Model
from vaestro.objectives import TrainingObjective
from vaestro.optimizers import Optimizer
from vaestro.parts import find
from vaestro.selection import Keep

__all__ = [
    "ACTIVE",
    "Diverged",
    "Record",
    "Step",
    "Training",
    "Validation",
    "accelerator_for",
    "informative_mean",
    "signal",
    "training",
    "validate",
]


def training(
    model: Model,
    objective: TrainingObjective,
    data: Data,
    *,
    epochs: float | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    batch: int | None = None,
    lr: float | None = None,
    optimizer: str | Callable[[Sequence[Tensor]], Optimizer] = "adamw",
    clip: float | None = None,
    ema: float | None = None,
    seed: int = 0,
    patience: int | None = None,
    keep: Keep = "best",
    device: str = "auto",
    precision: str = "32",
    compile: str = "auto",
    freeze: Sequence[str] = (),
    workers: int | None = None,
) -> Training:
    """Train a model, one step at a time.

    Args:
        model, objective, data: what is trained, by what, on what.
        epochs, steps, minutes: the length, in at most one of three ways. The default is 20 epochs
            or 4,000 steps, whichever is more; for text data 20 epochs. Minutes become a number of
            steps before the first one, by timing some.
        batch: rows in a global batch; by default 128, for text data 32, or fewer if there are few
            rows.
        lr: peak learning rate; 2e-3 by default.
        optimizer: a name of the table, or a function of the parameters.
        clip: the gradient's norm is clipped to this; by default 10 times the root of the number of
            cells.
        ema: decay of the average of the weights, for each step; by default its horizon is a
            hundredth of the run.
        seed: of everything that is drawn.
        patience: stop after this many validations without a lower loss, counted after every
            schedule has settled; by default never.
        keep: the weights that the model ends with: "best" by the validation loss after every
            schedule has settled, or "last".
        device: auto, cpu, cuda or mps.
        precision: "32", or "bf16" for networks under autocast (weights and densities stay in
            float32).
        compile: off; on, to compile the whole step, optimiser included; or auto: on for runs of
            several minutes whose parts all belong to this package, off otherwise. User code may
            have side effects that a compiled graph does not capture. The first steps are also
            taken without compilation; if the numbers differ, compilation stops.
        freeze: parts of the model that are not trained: posterior, likelihood, prior.
        workers: threads that decode streamed data; by default one for each processor.

    Raises:
        ValueError: an option has no meaning here.
        Diverged: (from the iterator) loss or gradient were not finite for many steps in a row.

    >>> import vaestro as vs
    >>> data = vs.load("digits")
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> steps = list(vs.training(model, vs.Objective(), data, steps=3, device="cpu"))
    >>> [step.index for step in steps]
    [0, 1, 2, 3]
    """
    settings = Settings(
        default_batch(data) if batch is None else batch,
        2e-3 if lr is None else lr,
        default_clip(data) if clip is None else clip,
        find("optimizer", optimizer) if isinstance(optimizer, str) else optimizer,
        epochs,
        steps,
        minutes,
        ema,
        seed,
        patience,
        keep,
        device,
        precision,
        compile,
        tuple(freeze),
        workers,
    )
    return Training(model, objective, data, settings)
