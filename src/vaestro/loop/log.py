"""The lines of metrics.jsonl: means over the steps since the last line, and validations."""

from __future__ import annotations

import time
from typing import final

import torch

from vaestro.loop.inputs import Inputs
from vaestro.loop.lagging import LaggingUpdater
from vaestro.loop.records import Record
from vaestro.loop.step import Updater
from vaestro.loop.validation import Validation
from vaestro.objectives import TrainingObjective


@final
class Clock:
    """Measure the seconds of training; a resumed run continues from its saved seconds.

    >>> clock = Clock()
    >>> clock.start()
    >>> clock.lap() <= clock.now()
    True
    """

    def __init__(self) -> None:
        self.seconds, self._last = 0.0, 0.0

    def start(self) -> None:
        """Start to measure."""
        self._last = time.perf_counter()

    def lap(self) -> float:
        """Return the seconds since the last call, and add them to the sum."""
        now = time.perf_counter()
        elapsed, self._last = now - self._last, now
        self.seconds += elapsed
        return elapsed

    def now(self) -> float:
        """Return the seconds up to now."""
        return self.seconds + (time.perf_counter() - self._last if self._last else 0.0)


@final
class Log:
    """Create the records of metrics.jsonl.

    Args:
        objective: objective whose terms are logged.
        updaters: updaters of the objective. The sums of the first are logged, and the losses of the
            others.
        lagging: updaters that are repeated before a step; their number of updates is logged.
        inputs: inputs of the run.
        altered: how the trained model differs from the reported one.

    >>> import vaestro as vs
    >>> data = vs.load("digits")
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> run = vs.training(model, vs.Objective(), data, steps=1, device="cpu")
    >>> [record.split for step in run for record in step.records]
    ['valid', 'train', 'valid']
    """

    def __init__(
        self,
        objective: TrainingObjective,
        updaters: list[Updater],
        lagging: list[LaggingUpdater],
        inputs: Inputs,
        altered: str,
    ) -> None:
        self.objective, self.updaters, self.lagging = objective, updaters, lagging
        self.inputs, self.altered = inputs, altered
        self.clock = Clock()
        self.last_index = 0  # the step of the last training line

    def _beta(self, index: int) -> float:
        return float(self.objective.beta(torch.tensor(max(0, index - 1), dtype=torch.float64)))

    def training(self, index: int, lr: float) -> Record:
        """Return the means of the steps since the last training line."""
        loss, bound, rate, distortion, norm, _, *terms = self.updaters[0].sums.means()
        others = [(f"{u.name}_loss", u.sums.means()[0]) for u in self.updaters[1:]]
        elapsed = self.clock.lap()
        rows = (index - self.last_index) * self.inputs.batch
        self.last_index = index
        unread = self.inputs.stream.unread()
        return Record(
            "train",
            index,
            round(index / self.inputs.steps_per_epoch, 4),
            bound,
            rate,
            distortion,
            loss,
            self._beta(index),
            lr,
            norm,
            rows / elapsed if elapsed > 0 else None,
            self.clock.seconds,
            int(self.updaters[0].sums.bad[0]),
            encoder_updates=sum(u.counted() for u in self.lagging) if self.lagging else None,
            altered=self.altered,
            waited=self.inputs.stream.waited(elapsed),
            unread=None if unread is None else unread[0],
            terms=(*zip(self.objective.terms, terms, strict=True), *others),
        )

    def validation(self, index: int, lr: float, scored: Validation, rows: int) -> Record:
        """Return the record of a validation on a number of rows."""
        elapsed = self.clock.lap()
        return Record(
            "valid",
            index,
            round(index / self.inputs.steps_per_epoch, 4),
            scored.bound,
            scored.rate,
            scored.distortion,
            scored.loss,
            self._beta(index),
            lr,
            None,
            rows / elapsed if elapsed > 0 else None,
            self.clock.seconds,
            int(self.updaters[0].sums.bad[0]),
            scored.stderr,
            scored.active_units,
            scored.signal,
            objective=scored.objective,
            settled=self.objective.settled(index),
            terms=tuple(zip(self.objective.terms, scored.terms, strict=True)),
        )
