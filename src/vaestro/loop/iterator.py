"""The training loop, as an iterator of steps without callbacks.

    for step in training(model, objective, data, epochs=20): ...

A step makes each update of the objective (see `step`), by default with a one-cycle learning rate.
Validation scores an exponential average of the weights, and the best weights are kept (see
`vaestro.selection`). After the last step, the model holds the kept weights.

A step is a function of (seed, step): a resumed run equals an uninterrupted one bit for bit, and
N processes compute the same as one.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor

from vaestro.data import Data, Rows
from vaestro.loop.averaging import AVERAGE_EVERY, FIT_ROWS, Average
from vaestro.loop.compiling import Compilation
from vaestro.loop.devices import Core, Processes
from vaestro.loop.inputs import Input, Inputs
from vaestro.loop.lagging import LaggingUpdater
from vaestro.loop.log import Log
from vaestro.loop.records import Diverged, Record, Step
from vaestro.loop.settings import Settings
from vaestro.loop.setup import prepare, updaters_of
from vaestro.loop.state import Numbers, State, gathered, part, prefixed
from vaestro.loop.step import Dropout, Updater, with_float_values
from vaestro.loop.timing import steps_within
from vaestro.loop.validation import VALIDATION_ROWS, validate
from vaestro.models import Model
from vaestro.new_categories import load_whole, whole_weights
from vaestro.objectives import Loss, TrainingObjective
from vaestro.selection import Score, Selection

CHECK_EVERY = 10  # steps between reads of the counters on the device; a read waits for the device
GIVE_UP_AFTER = 20  # number of consecutive steps that are not finite


@final
class Training(Iterator[Step]):
    """Iterate over the steps of a run; `vaestro.training` creates it.

    `state()` and `load()` make a run resumable.

    Args:
        model: the model that is trained.
        objective: its objective.
        data: training and validation data.
        settings: every option, resolved.

    >>> import vaestro as vs
    >>> data = vs.load("digits")
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> run = vs.training(model, vs.Objective(), data, steps=3, device="cpu")
    >>> for step in run:
    ...     pass
    >>> step.index, step.last, run.kept_step <= 3
    (3, True, True)
    """

    def __init__(
        self, model: Model, objective: TrainingObjective, data: Data, settings: Settings
    ) -> None:
        begun = time.perf_counter()
        self.model, self.objective, self.data, self.settings = model, objective, data, settings
        self.selection = Selection(objective, settings.keep, settings.patience)
        self.processes = processes = Processes(settings.device, settings.batch)
        self.frozen = prepare(model, objective, data, settings, processes.device)
        updates = objective.updates(model)
        self.core = Core(model, objective, updates, processes.device, settings.precision)
        updaters = updaters_of(updates, self.core, data, settings, processes)
        self.averaging = Average(model, fixed="likelihood" in self.frozen.names)
        self.inputs = Inputs(model, data.train, objective.k, settings, processes)
        self.valid = data.valid.spread(VALIDATION_ROWS)
        self.updaters = [u for u in updaters if not u.update.until_flat]
        self.lagging = [
            LaggingUpdater(u, objective, self.inputs, self.valid)
            for u in updaters
            if u.update.until_flat
        ]
        altered = model.capabilities.trained_as
        self._log = Log(objective, self.updaters, self.lagging, self.inputs, altered)
        self._dropout = Dropout(self.core, processes, settings.seed)
        self._compilation = Compilation(
            self.core, settings, data, processes, [type(u.optimizer) for u in updaters]
        )
        self.index = self.steps = 0
        self._begun = self._finished = self.stopped_early = False
        minutes = settings.minutes
        self.plan(settings.planned(data) if minutes is None else steps_within(self, minutes, begun))

    def plan(self, steps: int) -> None:
        """Set the number of steps, the decay of the average, and the lengths of schedules."""
        self.steps = steps
        self.averaging.decay = self.ema
        self.objective.plan(steps, self.steps_per_epoch)

    # -- the iterator ------------------------------------------------------------------------------

    def __iter__(self) -> Training:
        return self

    def __next__(self) -> Step:
        if not self._begun:
            self._begun = True
            self._log.clock.start()
            if self.index == 0:
                return Step(0, 0.0, None, self.validate(), False)
        if self.index >= self.steps or self.stopped_early:
            self._finish()
            raise StopIteration
        loss = self.advance(self.index)
        self.index += 1
        if self.index % AVERAGE_EVERY == 0:
            self.averaging.update(self.index)
        if self.index % CHECK_EVERY == 0 or self.index == self.steps:
            self._give_up_if_diverged()
        records: tuple[Record, ...] = ()
        if self.index == self.steps or self.inputs.ends_lap(self.index):
            self.averaging.update(self.index)
            records = (self._log.training(self.index, self._lr()), *self.validate())
        last = self.index >= self.steps or self.stopped_early
        return Step(self.index, self.index / self.steps_per_epoch, loss, records, last)

    def advance(self, step: int) -> Loss:
        """Take a step, counted from 0, and return the loss of its first update."""
        for lagging in self.lagging:
            lagging.catch_up(step, self.steps)
        inputs = self.inputs(step, self.steps)
        if self.data.space.probabilities and not self._compilation.on:
            inputs = with_float_values(inputs)
        first, *others = self.updaters
        loss = self._take(first, inputs, step)
        for updater in others:
            if step >= updater.update.first_step:
                self._take(updater, inputs, step, updater.name)
        return loss

    def _take(self, updater: Updater, inputs: Input, step: int, *name: str) -> Loss:
        lr = updater.lr * updater.update.schedule(step, self.steps)
        path = (step, self.processes.rank, *name)
        return self._dropout.take(updater, inputs, lr, self._compilation, *path)

    def _finish(self) -> None:
        if not self._finished:
            self._finished = True
            self.release()
            self.processes.finish()
            load_whole(self.model, self.kept())
            self.model.eval()
            self.frozen.release()

    def release(self) -> None:
        """Drop streamed data that were decoded ahead; otherwise the process waits for them at its
        end."""
        self.inputs.stream.release()

    def _give_up_if_diverged(self) -> None:
        in_a_row = max(float(u.sums.bad[1]) for u in self.updaters)
        if in_a_row >= GIVE_UP_AFTER:
            raise Diverged(
                f"loss or gradient were not finite in {int(in_a_row)} steps in a row, up to step "
                f"{self.index}; "
                f"the weights from before are kept (try a lower --lr than {self.lr:g})"
            )

    @functools.cached_property
    def _fit_rows(self) -> Rows:
        return self.data.train.spread(FIT_ROWS)

    def validate(self) -> tuple[Record, ...]:
        """Score the averaged weights on validation data, keep them if they are the best, and return
        the record; no record if there are no validation data."""
        device, seed = self.processes.device, self.settings.seed
        if not self.averaging.fixed:
            self.averaging.fit(self._fit_rows, seed, device)
        if not len(self.valid):
            self._log.clock.lap()
            return ()
        scores = validate(
            self.average,
            self.objective,
            self.valid,
            seed,
            device,
            self.processes.count,
            self.processes.rank,
            step=max(0, self.index - 1),
        )
        score = Score(scores.objective, scores.rate, self.objective.final_beta)
        self.stopped_early = self.selection.see(self.index, score, self.average.state_dict())
        for lagging in self.lagging:
            lagging.judge(self.index)
        return (self._log.validation(self.index, self._lr(), scores, len(self.valid)),)

    # -- results -----------------------------------------------------------------------------------

    @property
    def average(self) -> Model:
        """Return the model with averaged weights."""
        return self.averaging.model

    @property
    def batch(self) -> int:
        """Return the rows of a global batch."""
        return self.settings.batch

    @property
    def lr(self) -> float:
        """Return the peak learning rate."""
        return self.settings.lr

    @property
    def ema(self) -> float:
        """Return the decay of the average of the weights in a step; by default its horizon is a
        hundredth of the run."""
        ema = self.settings.ema
        return math.exp(-1 / max(1.0, 0.01 * self.steps)) if ema is None else ema

    @property
    def compile(self) -> str:
        """Return whether steps are compiled: on or off."""
        return "on" if self._compilation.on else "off"

    @property
    def steps_per_epoch(self) -> float:
        """Return the number of steps of an epoch, as a fraction."""
        return self.inputs.steps_per_epoch

    @property
    def seconds(self) -> float:
        """Return the seconds of training up to the last record."""
        return self._log.clock.seconds

    @property
    def device(self) -> torch.device:
        """Return the device of this process."""
        return self.processes.device

    def _lr(self) -> float:
        updater = self.updaters[0]
        return updater.lr * updater.update.schedule(max(0, self.index - 1), self.steps)

    def unread(self) -> str:
        """Return a sentence about unreadable streamed rows; empty if there are none."""
        count, description = self.inputs.stream.unread() or (0, "")
        return f"{description}; each was replaced by the next row" if count else ""

    def kept(self) -> dict[str, Tensor]:
        """Return the kept weights, which are averages: see `Selection`."""
        return whole_weights(self.average, self.selection.kept(self.average.state_dict()))

    @property
    def kept_step(self) -> int:
        """Return the step of the kept weights."""
        return self.selection.kept_step(self.index)

    def kept_sentence(self) -> str:
        """Return a sentence that says which weights are kept and why."""
        return self.selection.sentence(self.index, len(self.valid) > 0)

    # -- resuming ----------------------------------------------------------------------------------

    def _further(self) -> list[Updater | LaggingUpdater]:
        """Return the updaters after the first, whose state has a prefix."""
        return [*self.updaters[1:], *self.lagging]

    def state(self) -> tuple[State, Numbers]:
        """Return tensors and numbers from which `load` continues bit for bit."""
        tensors = {
            **prefixed("model", self.model.state_dict()),
            **prefixed("average", self.average.state_dict()),
            **prefixed("best", self.selection.weights or {}),
            **prefixed("objective", self.objective.state_dict()),
            **self.updaters[0].state(),
        }
        for further in self._further():
            tensors |= prefixed(further.name, further.state())
        numbers: Numbers = {
            "index": self.index,
            "seconds": self._log.clock.now(),
            "last_logged": self._log.last_index,
            "averaged_at": self.averaging.index,
            "stopped_early": self.stopped_early,
            **self.selection.state(),
        }
        return gathered(tensors), numbers

    def load(self, tensors: State, numbers: Numbers) -> None:
        """Continue from a saved state."""
        self.model.load_state_dict(part("model", tensors))
        self.average.load_state_dict(part("average", tensors))
        self.objective.load_state_dict(part("objective", tensors))
        self.updaters[0].load(tensors)
        for further in self._further():
            further.load(part(further.name, tensors))
        self.index, self._log.clock.seconds = numbers["index"], numbers["seconds"]
        self._log.last_index = numbers["last_logged"]
        self.averaging.index = numbers["averaged_at"]
        best = {k: v.to(self.device) for k, v in part("best", tensors).items()}
        self.selection.load(numbers, best or None)
        self.stopped_early = numbers["stopped_early"]
