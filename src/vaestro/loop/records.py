"""The reports of training: a `Step` for each step, with the `Record`s of metrics.jsonl."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import final

from vaestro.objectives import Loss

Value = str | int | float | bool | None
# a field with this value is left out of a line
ABSENT: dict[str, Value] = {
    "encoder_updates": None,
    "altered": "",
    "waited": None,
    "unread": None,
    "objective": None,
    "settled": None,
}


class Diverged(RuntimeError):
    """Report that loss or gradient were not finite in many steps in a row."""


@final
@dataclass(frozen=True)
class Record:
    """Hold one line of metrics.jsonl: means over an epoch or over validation data, in nats.

    For the ELBO, bound = -(rate + distortion), without weights. `loss` has every term of the
    objective at the schedules of the step. Fields that do not apply are left out of the line.

    Args:
        objective: (validation) loss with the weights and targets at the end of the schedules, by
            which the kept weights are selected.
        settled: (validation) whether every schedule had reached its end.
        stderr: (validation) standard error of the bound; `active_units` and `signal` as in
            `Validation`.
        encoder_updates: number of encoder-only updates since the last line.
        altered: (training) how the trained model differs from the reported one, such as word
            dropout.
        waited: share of the time that training waited for streamed data.
        unread: number of unreadable rows so far; each was replaced by another row.
        terms: name and value of each term of the loss besides the weighted bound, and the mean loss
            of each further update.

    >>> Record("train", 1, 0.1, -3.0, 1.0, 2.0, 3.0, 1.0, 1e-3, float("inf"), 5.0, 0.1,
    ...        terms=(("dip", 0.5),)).line()["grad_norm"] is None
    True
    """

    split: str
    step: int
    epoch: float
    bound: float
    rate: float
    distortion: float
    loss: float
    beta: float
    lr: float
    grad_norm: float | None
    examples_per_second: float | None
    seconds: float
    skipped: int = 0
    stderr: float | None = None
    active_units: int | None = None
    signal: float | None = None
    encoder_updates: int | None = None
    altered: str = ""
    waited: float | None = None
    unread: int | None = None
    objective: float | None = None
    settled: bool | None = None
    terms: tuple[tuple[str, float], ...] = ()

    def line(self) -> dict[str, Value]:
        """Return the record as a JSON object: non-finite numbers become null, and each term has its
        own key."""
        fields: dict[str, Value] = {**asdict(self), **dict(self.terms)}
        del fields["terms"]
        return {
            k: None if isinstance(v, float) and not math.isfinite(v) else v
            for k, v in fields.items()
            if k not in ABSENT or v != ABSENT[k]
        }


@final
@dataclass(frozen=True, eq=False)
class Step:
    """Hold one step.

    Args:
        index: number of the step, from 1; 0 is the validation before training.
        epoch: number of passes over the training data.
        loss: loss of the batch from the first update; None for step 0.
        records: records that were logged with the step.
        last: whether training ends with this step.

    >>> Step(0, 0.0, None, (), last=False).index
    0
    """

    index: int
    epoch: float
    loss: Loss | None
    records: tuple[Record, ...]
    last: bool
