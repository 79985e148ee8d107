"""The training loop, as an iterator of steps: no callbacks, and nothing hidden.

    for step in training(model, objective, data, epochs=20): ...

One step is the six-step recipe: encode; draw noise and form z = mean + std * noise; decode and
score; the KL; add; differentiate. Around it: AdamW on a one-cycle learning rate, clipping by norm,
an exponential average of the weights, and validation of that average by the unweighted bound, whose
best weights are kept. When the iterator ends, the model holds the kept weights.

What a step does is a function of (seed, step), so that a resumed run equals an uninterrupted one
bit for bit; with several processes each takes its rows of the same global batch with the same
noise.
"""

from __future__ import annotations

import atexit
import copy
import functools
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, final

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

from vaestro.data import Data, Rows
from vaestro.data.sets import Streamed
from vaestro.densities import mean_over_ranks, variance_of
from vaestro.models import Draws, LatentModel
from vaestro.objectives import Loss, Objective, Scores, elbo
from vaestro.optimizers import Optimizer, one_cycle
from vaestro.parts import find
from vaestro.randomness import Order, Windows, derive, numpy_generator, torch_generator
from vaestro.selection import Keep, Score, Selection
from vaestro.spaces import Batch, Kind

if TYPE_CHECKING:
    from accelerate import Accelerator

# steps between updates of the average: the same average, for an eighth of the memory traffic
AVERAGE_EVERY = 8
VALIDATION_ROWS = 10_000
FIT_ROWS = 10_000
# steps at least between two that are taken from the record and by the model itself
COMPARED_EVERY = 100
CHECK_EVERY = 10  # steps between looks at the counters on the device, each of which waits for it
GIVE_UP_AFTER = 20
# variance over data of q's mean above which a unit is called active (Burda, Grosse and
# Salakhutdinov 2016)
ACTIVE = 0.01
# at most so many updates of a lagging encoder, judged in tens; data whose codes are told apart
INNER, TOLD, INFORMED = 100, 10, 500
LAP = 2000  # steps of streamed data after which validation comes at the latest
AHEAD_BYTES = 2**21  # rows and noise are made for some steps at once, within the cache


class Diverged(RuntimeError):
    """Report that loss or gradient were not finite for many steps in a row."""


@dataclass(frozen=True)
class Record:
    """Hold one line of metrics.jsonl: means over an epoch or over validation data, in nats.

    bound = -(rate + distortion) for the ELBO, whatever the weights. `loss` holds every term of the
    objective at the step's schedules; `terms` has what it has beside the weighted bound, as it
    enters the loss. Fields that do not apply are left out of the line.

    Args:
        objective: (validation) the loss with the weights and targets that hold at the end of the
            schedules; weights are selected by it.
        settled: (validation) whether every schedule had reached its end.
        stderr: (validation) standard error of the bound; `active_units` and `signal` as in
            `Validation`.
        encoder_updates: updates of the encoder alone since the last line.
        altered: (training) how the trained model differs from the reported one, such as word
            dropout.
        waited: share of the time that training waited for streamed data.
        unread: number of unreadable rows so far; each was replaced by another row.
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

    def line(self) -> dict[str, Any]:
        """Return the record as JSON takes it: numbers that are not finite become null, and each
        term has its own key."""
        fields = {**asdict(self), **dict(self.terms)}
        del fields["terms"]
        absent = {
            "encoder_updates": None,
            "altered": "",
            "waited": None,
            "unread": None,
            "objective": None,
            "settled": None,
        }
        kept = {k: v for k, v in fields.items() if k not in absent or v != absent[k]}
        return {
            k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in kept.items()
        }


@dataclass(frozen=True, eq=False)
class Step:
    """Hold one step: its number from 1 (0 is the validation before training), its loss, and what
    was logged with it."""

    index: int
    epoch: float
    loss: Loss | None
    records: tuple[Record, ...]
    last: bool


class Validation(NamedTuple):
    """Hold means over validation data, in nats.

    Args:
        bound, rate, distortion: of the unweighted bound.
        loss: every term of the objective, at a step's schedules.
        stderr: standard error of the bound.
        active_units, signal: of the code; None for families without a variance (see `signal`).
        objective: the loss with the weights and targets that hold at the end of the schedules.
        terms: what the loss has beside the weighted bound, as `Objective.terms` names them.
    """

    bound: float
    rate: float
    distortion: float
    loss: float
    stderr: float
    active_units: int | None
    signal: float | None
    objective: float
    terms: tuple[float, ...]


class _Core(nn.Module):
    """Hold model and objective: the one forward() that data parallelism, autocast and compilation
    wrap."""

    def __init__(
        self, model: LatentModel, objective: Objective, device: torch.device, precision: str
    ) -> None:
        super().__init__()
        self.model, self.objective = model, objective
        self.autocast = (device.type, torch.bfloat16) if precision == "bf16" else None

    def forward(self, batch: Batch, step: Tensor, noise: Tensor) -> Loss:
        if self.autocast is None:
            return self.objective(self.model, batch, step, noise)
        with torch.autocast(*self.autocast):
            return self.objective(self.model, batch, step, noise)


def training(
    model: LatentModel,
    objective: Objective,
    data: Data,
    *,
    epochs: float | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    batch: int | None = None,
    lr: float | None = None,
    optimizer: str | Callable[..., Optimizer] = "adamw",
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
    """Train a model, a step at a time.

    Args:
        model, objective, data: what is trained, by what, on what.
        epochs, steps, minutes: how long, in at most one of three ways; by default 20 epochs or
            4,000 steps, whichever is more; of texts, which are soon known by heart, 20 epochs.
            Minutes become a number of steps before the first one, by timing some.
        batch: data in a global batch; by default 128, of texts 32, or less where there are few.
        lr: peak learning rate; 2e-3 by default.
        optimizer: a name of the table, or a function of the parameters.
        clip: the gradient's norm is clipped to this; by default 10 times the root of the number of
            cells.
        ema: decay of the average of the weights, for each step; by default its horizon is a
            hundredth of the run.
        seed: of everything that is drawn.
        patience: validations without a lower loss, after every schedule has settled, at which to
            stop; by default never.
        keep: the weights that the model ends with: "best" by the validation loss after every
            schedule has settled, or "last".
        device: auto, cpu, cuda or mps.
        precision: "32", or "bf16" for networks under autocast (weights and densities stay in
            float32).
        compile: off; trace, to run the operations of a step from a record, with the same numbers
            bit for bit; on, to compile the whole step, optimiser included; or auto: on for runs of
            several minutes, trace on a CPU for 2,000 steps or more, and off where a part is not of
            this package, since what it does beside operations on tensors would not be in a record.
        freeze: parts of the model that stay as they are: posterior, likelihood, prior.
        workers: threads that decode streamed data; by default one a processor.

    Raises:
        ValueError: an option has no meaning here.
        Diverged: (from the iterator) loss or gradient were not finite for many steps in a row.
    """
    return Training(
        model,
        objective,
        data,
        epochs=epochs,
        steps=steps,
        minutes=minutes,
        batch=batch,
        lr=lr,
        optimizer=find("optimizer", optimizer) if isinstance(optimizer, str) else optimizer,
        clip=clip,
        ema=ema,
        seed=seed,
        patience=patience,
        keep=keep,
        device=device,
        precision=precision,
        compile=compile,
        freeze=freeze,
        workers=workers,
    )


class Training(Iterator[Step]):
    """Iterate over the steps of a run; `state()` and `load()` make it resumable. Made by
    `training`."""

    def __init__(
        self,
        model: LatentModel,
        objective: Objective,
        data: Data,
        *,
        epochs: float | None,
        steps: int | None,
        minutes: float | None,
        batch: int | None,
        lr: float | None,
        optimizer: Callable[..., Optimizer],
        clip: float | None,
        ema: float | None,
        seed: int,
        patience: int | None,
        keep: Keep,
        device: str,
        precision: str,
        compile: str,
        freeze: Sequence[str],
        workers: int | None,
    ) -> None:
        self._started = time.perf_counter()
        rows = len(data.train)
        texts = data.space.kind is Kind.TOKENS
        self.batch = min(32 if texts else 128, max(8, rows // 16)) if batch is None else batch
        self.lr = 2e-3 if lr is None else lr
        self.clip = 10 * math.sqrt(data.space.cells) if clip is None else clip
        _check(
            (self.batch >= 1, "a batch of 1 or more", self.batch),
            (0 < self.lr < math.inf, "a learning rate above 0", self.lr),
            (self.clip > 0, "a clip above 0", self.clip),
            (ema is None or 0 <= ema < 1, "an ema in [0, 1)", ema),
            (epochs is None or 0 < epochs < math.inf, "epochs above 0", epochs),
            (steps is None or steps >= 1, "1 or more steps", steps),
            (minutes is None or 0 < minutes < math.inf, "minutes above 0", minutes),
            (
                sum(x is not None for x in (epochs, steps, minutes)) <= 1,
                "one of epochs, steps and minutes",
                "several",
            ),
            (workers is None or workers >= 1, "1 or more workers", workers),
            (precision in ("32", "bf16"), "precision 32 or bf16", precision),
            (compile in ("auto", "trace", "on", "off"), "compile auto, trace, on or off", compile),
        )
        self.model, self.objective, self.data, self.seed = model, objective, data, seed
        self.selection = Selection(objective, keep, patience)
        self.accelerator = accelerator_for(device)
        self.device = self.accelerator.device
        self.processes, self.rank = self.accelerator.num_processes, self.accelerator.process_index
        if self.batch % self.processes:
            raise ValueError(
                f"expected a batch that {self.processes} processes can share; got {self.batch}"
            )
        self.share = self.batch // self.processes
        self.steps_per_epoch = rows / self.batch
        if (
            objective.bound is not elbo
            and objective.k > 1
            and getattr(getattr(model, "likelihood", None), "fitted_to_data", False)
        ):
            raise ValueError(
                "expected the ELBO with an optimal variance, which is the ELBO's optimum; got "
                "iwae (use variance=auto)"
            )
        model.to(self.device).train()
        self.frozen = tuple(freeze)
        for name in self.frozen:
            _part(model, name).eval()  # its running statistics stay as well, and it has no dropout
        self._held = [
            p for name in self.frozen for p in _part(model, name).parameters() if p.requires_grad
        ]
        for p in self._held:
            p.requires_grad_(False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "gradient"))
            objective.prepare(
                model,
                data.train.take(min(rows, 2)).fixed().batch(slice(0, 2), self.device),
                rows,
                self.batch,
                seed,
            )
        objective.to(self.device).train()
        if model.start_rows:
            chosen = numpy_generator(seed, "start").permutation(rows)[: model.start_rows]
            model.start(
                data.train.pick(np.sort(chosen)).fixed().batch(slice(0, len(chosen)), self.device)
            )
        self.precision = precision
        self.core = _Core(model, objective, self.device, precision)
        self.parameters = [p for p in self.core.parameters() if p.requires_grad]
        if not self.parameters:
            raise ValueError(
                "expected something to train; got a model whose every parameter is fixed or frozen"
            )
        self.encoder = _Lagging(self, optimizer) if objective.aggressive else None
        self.optimizer = optimizer(self.parameters)
        self.average = copy.deepcopy(model).eval().requires_grad_(False)
        averaged = dict(self.average.named_parameters())
        self._averaged = [
            (averaged[name], p) for name, p in model.named_parameters() if p.requires_grad
        ]
        self._stream = data.train.values if isinstance(data.train.values, Streamed) else None
        self.order: Order | Windows
        if self._stream is None:
            self.order = Order(rows, self.batch, seed, data.train.sizes())
        else:
            self._stream.start(workers)
            self.order = Windows(
                self._stream.block_sizes(data.train.index), self._stream.buffer, self.batch, seed
            )
        # An epoch of a stream may take days: what happens is told and kept several times in it.
        self._lap_rows = rows / (
            1 if self._stream is None else math.ceil(self.steps_per_epoch / LAP)
        )
        self._drops = any(isinstance(m, nn.Dropout) and m.p > 0 for m in self.core.modules())
        self._binary = data.space.kind is Kind.BINARY
        self._altered = getattr(getattr(model, "likelihood", None), "altered", "")
        self.valid = data.valid.spread(VALIDATION_ROWS)
        self._prepared: Callable[..., Loss] = (
            self.accelerator.prepare_model(self.core) if self.processes > 1 else self.core
        )
        bytes_a_step = self.batch * (
            data.train.row_bytes
            + 4
            * objective.k
            * model.noise(1, 1, torch_generator(self.device, seed, "size")).numel()
        )
        self._ahead = max(1, min(16, AHEAD_BYTES // bytes_a_step))
        self._made: tuple[int, list[tuple[Batch, Tensor, Tensor]]] | None = None
        self.sums = torch.zeros(6 + len(objective.terms), dtype=torch.float64, device=self.device)
        self._one_more = torch.ones((), device=self.device)
        at_hand = self.device.type == "cpu" and self.processes == 1
        # the same memory, without calls into torch
        self._sums = self.sums.numpy() if at_hand else None
        # skipped so far, and in a row
        self.bad = torch.zeros(2, dtype=torch.float64, device=self.device)
        self.index, self.seconds, self._clock = 0, 0.0, 0.0
        self._begun = self._finished = self.stopped_early = False
        self.compile = self._decide_to_compile(compile, epochs, steps, minutes)
        self._compile_asked = compile
        self._recorded: Callable[..., Sequence[Tensor]] | None = None
        self._to_compare, self._compared_at = False, 0
        if minutes is not None:
            self.steps = self._steps_in(minutes)
        elif steps is not None:
            self.steps = steps
        else:
            wanted = (
                epochs
                if epochs is not None
                else 20.0
                if texts
                else max(20.0, 4000 / self.steps_per_epoch)
            )
            self.steps = max(1, round(wanted * self.steps_per_epoch))
        self.ema = math.exp(-1 / max(1.0, 0.01 * self.steps)) if ema is None else ema
        objective.plan(self.steps, self.steps_per_epoch)

    # -- the step ----------------------------------------------------------------------------------

    def _inputs(self, step: int) -> tuple[Batch, Tensor, Tensor]:
        """Return a step's rows, noise and number. Some steps are made at once, since many small
        calls cost more than one."""
        block, at = divmod(step, self._ahead)
        if self._made is None or self._made[0] != block:
            first = self.rank * self.share
            steps = range(block * self._ahead, (block + 1) * self._ahead)
            index = np.stack([self.order(s)[first : first + self.share] for s in steps])
            if isinstance(self.order, Windows):
                self._expect(self.order, steps)
            made = self.data.train.gather(
                index, self.device, seed=self.seed, stream=block, place=(first, self.batch)
            )
            noise = self.model.noise(
                self._ahead * self.objective.k,
                self.batch,
                torch_generator(self.device, self.seed, "noise", block),
            )
            noise = noise.unflatten(0, (self._ahead, self.objective.k))[
                :, :, first : first + self.share
            ]
            numbers = torch.arange(steps.start, steps.stop, dtype=torch.float64, device=self.device)
            # They are taken apart here too: between long parallel sections each call, however
            # small, costs some tens of microseconds.
            self._made = (
                block,
                list(
                    zip(
                        (made[i] for i in range(self._ahead)),
                        noise.unbind(),
                        numbers.unbind(),
                        strict=True,
                    )
                ),
            )
        return self._made[1][at]

    def _expect(self, order: Windows, steps: range) -> None:
        """Have what this process takes of the windows over these steps decoded, and of the one
        after them."""
        assert self._stream is not None
        windows = order.over(steps.start * self.batch, steps.stop * self.batch)
        end = windows[-1].start + len(windows[-1].rows)
        if end < self.steps * self.batch:
            windows += order.over(end, end + 1)
        first, index = self.rank * self.share, self.data.train.index
        wanted = []
        for window in windows:
            place = np.arange(window.start, window.start + len(window.rows)) % self.batch
            mine = window.rows[(place >= first) & (place < first + self.share)]
            wanted.append((window, mine if index is None else index[mine]))
        self._stream.expect(wanted)

    def _advance(self, step: int) -> Loss:
        if self.encoder is not None:
            self.encoder.catch_up(step)
        return self._one(step)

    def _one(self, step: int) -> Loss:
        if not self._drops:
            return self._taken(step)
        # Dropout draws from torch's global generator, whose state is given back.
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(derive(self.seed, "dropout", step, self.rank))
            return self._taken(step)

    def _taken(self, step: int) -> Loss:
        batch, noise, number = self._inputs(step)
        lr = self.lr * one_cycle(step, self.steps)
        if self.compile == "on" and (taken := self._compiled(batch, noise, number, lr)) is not None:
            return taken
        if self._binary:  # encoder and likelihood would each make numbers of them
            batch = replace(batch, x=batch.x.float())
        if (
            self.compile == "trace"
            and (taken := self._traced(batch, noise, number, lr)) is not None
        ):
            return taken
        if self.processes == 1:
            loss, grads = self._differentiated(batch, noise, number)
        else:
            loss = self._prepared(batch, number, noise)
            for p in self.parameters:
                p.grad = None
            self.accelerator.backward(loss.loss)
            grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        loss = loss._replace(loss=loss.loss.detach())
        return self._update(loss, grads, _squares(grads), lr)

    def _differentiated(
        self, batch: Batch, noise: Tensor, number: Tensor
    ) -> tuple[Loss, Sequence[Tensor]]:
        loss = self._prepared(batch, number, noise)
        return loss, torch.autograd.grad(loss.loss, self.parameters, materialize_grads=True)

    def _record(
        self,
        step: Callable[..., Sequence[Tensor]],
        batch: Batch,
        noise: Tensor,
        number: Tensor,
        *constants: Tensor,
    ) -> bool:
        """Record a step; where it cannot be and nobody asked for it, go on without and return
        False."""
        inputs = [*batch.tensors(), noise, number, *constants]
        try:
            from vaestro import graphs

            self._recorded = (graphs.compiled if self.compile == "on" else graphs.listed)(
                step, inputs
            )
            if self.compile == "trace":
                self._compare(step, inputs)
        except Exception as error:
            self._recorded = None
            asked, self.compile = self.compile, "trace" if self.compile == "on" else "off"
            if self._compile_asked == "auto":
                return False
            # what is wrong with the step itself says so itself
            self._differentiated(batch, noise, number)
            reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            other = "trace or off" if asked == "on" else "off"
            raise ValueError(
                f"expected --compile {other} for a step that does not come out of its record; "
                f"got {asked} ({reason})"
            ) from error
        return True

    def _compiled(self, batch: Batch, noise: Tensor, number: Tensor, lr: float) -> Loss | None:
        """Take one step as one graph, optimiser included; None where it turns out not to
        compile."""
        numbers = self.optimizer.constants(lr)
        if self._recorded is None:

            def whole(*given: Tensor) -> list[Tensor]:
                mine, (noise, number, *constants) = batch.of_tensors(given)
                loss, grads = self._differentiated(mine, noise, number)
                with torch.no_grad():
                    row = self._row(loss, [g.square().sum() for g in grads])
                    self._settle(
                        row,
                        lambda divisor, skip: self.optimizer.step_in_graph(
                            grads, tuple(constants), divisor, skip
                        ),
                    )
                    return loss._replace(loss=loss.loss.detach()).flat()

            if not self._record(whole, batch, noise, number, *numbers):
                return None
        assert self._recorded is not None
        with torch.no_grad():
            return Loss.of(self._recorded(*batch.tensors(), noise, number, *numbers))

    def _traced(self, batch: Batch, noise: Tensor, number: Tensor, lr: float) -> Loss | None:
        """Take one step by the operations that were recorded at the first one; None where they turn
        out not to be recordable."""

        def differentiated(*given: Tensor) -> list[Tensor]:
            mine, (noise, number) = batch.of_tensors(given)
            loss, grads = self._differentiated(mine, noise, number)
            return [*loss._replace(loss=loss.loss.detach()).flat(), *grads, *_squares(grads)]

        if self._recorded is None and not self._record(differentiated, batch, noise, number):
            return None
        assert self._recorded is not None
        inputs = [*batch.tensors(), noise, number]
        if self._to_compare:
            self._to_compare = False
            self._compare(differentiated, inputs)
        found = self._recorded(*inputs)
        numbers = 5 + len(self.objective.terms)
        squares = numbers + len(self.parameters)
        return self._update(Loss.of(found[:numbers]), found[numbers:squares], found[squares:], lr)

    def _compare(
        self, differentiated: Callable[..., Sequence[Tensor]], inputs: list[Tensor]
    ) -> None:
        """Compare what the record gives with what the step itself gives, to a thousandth; weights,
        buffers and random states stay."""
        assert self._recorded is not None
        found: list[Sequence[Tensor]] = []
        for step in (differentiated, self._recorded):
            buffers = [(b, b.clone()) for b in self.core.buffers()]
            with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
                found.append(step(*inputs))
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)
        sizes = [float(a.abs().nan_to_num(0.0, 0.0).max()) for a in found[0]]
        if not all(
            torch.allclose(a, b, 0, 1e-3 * size + 1e-6, equal_nan=True)
            for size, a, b in zip(sizes, *found, strict=True)
        ):
            chosen = ", which was chosen by auto" if self._compile_asked == "auto" else ""
            raise ValueError(
                f"expected --compile off for a model or objective whose steps do not all do the "
                f"same; got trace{chosen}"
            )

    @torch.no_grad()
    def _update(
        self, loss: Loss, grads: Sequence[Tensor], squares: Sequence[Tensor], lr: float
    ) -> Loss:
        """Clip, skip what is not finite, step, and add to the sums."""
        if self._sums is None:
            self._settle(
                self._row(loss, squares),
                lambda divisor, skip: self.optimizer.step(grads, lr, divisor, skip),
            )
            return loss
        # The numbers are at hand: deciding on them costs less than a dozen operations on scalar
        # tensors.
        norm = math.sqrt(sum(map(float, squares)))
        numbers = [*map(float, (loss.logged, *loss[1:4])), norm, 1.0, *map(float, loss.terms)]
        if math.isfinite(numbers[0] + norm):
            self.optimizer.step(
                grads, lr, torch.tensor(norm / self.clip) if norm > self.clip else None
            )
            self._sums += numbers
            if self._in_a_row:
                self._in_a_row = self.bad[1] = 0
        else:
            self._in_a_row += 1
            self.bad.add_(1)
        return loss

    def _row(self, loss: Loss, squares: Sequence[Tensor]) -> Tensor:
        norm = torch.stack(list(squares)).sum().sqrt()
        return torch.stack([loss.logged, *loss[1:4], norm, self._one_more, *loss.terms])

    def _settle(self, row: Tensor, step: Callable[[Tensor, Tensor], None]) -> None:
        """Step without reading anything back from the device; every process decides alike."""
        skip = (~torch.isfinite(row[0] + row[4])).float()
        if self.processes > 1:
            skip = mean_over_ranks(skip).ceil()
        step((row[4] / self.clip).clamp_min(1.0), skip)
        self.sums.add_(torch.where(skip > 0, 0.0, row))
        self.bad.copy_(torch.stack([self.bad[0] + skip, (self.bad[1] + 1) * skip]))

    # -- the iterator ------------------------------------------------------------------------------

    def __iter__(self) -> Training:
        return self

    def __next__(self) -> Step:
        if not self._begun:
            self._begun = True
            self._clock = time.perf_counter()
            if self.index == 0:
                return Step(0, 0.0, None, self._validation(), False)
        if self.index >= self.steps or self.stopped_early:
            self._finish()
            raise StopIteration
        loss = self._advance(self.index)
        self.index += 1
        if self.index % AVERAGE_EVERY == 0:
            self._average()
        if self.index % CHECK_EVERY == 0 or self.index == self.steps:
            self._give_up_if_diverged()
        epoch = self.index / self.steps_per_epoch
        records: tuple[Record, ...] = ()
        if (
            self.index == self.steps
            or self.index * self.batch // self._lap_rows
            > (self.index - 1) * self.batch // self._lap_rows
        ):
            self._average()
            records = (self._train_record(), *self._validation())
        return Step(
            self.index, epoch, loss, records, self.index >= self.steps or self.stopped_early
        )

    def _finish(self) -> None:
        if not self._finished:
            self._finished = True
            self.let_go()
            if self.processes > 1:
                # A process that leaves while others still talk to it takes them down.
                self.accelerator.wait_for_everyone()
                atexit.register(self.accelerator.end_training)
            self.model.load_state_dict(self.kept())
            self.model.eval()
            for p in self._held:
                p.requires_grad_(True)

    @torch.no_grad()
    def _average(self) -> None:
        # At first the average forgets faster, so that it does not remember the initial weights.
        decay = min(self.ema, self.index / (self.index + 10)) ** (self.index - self._averaged_at)
        self._averaged_at = self.index
        torch._foreach_lerp_(
            [a for a, _ in self._averaged], [p for _, p in self._averaged], 1 - decay
        )
        for average, latest in self._buffers():  # running statistics of normalisation layers
            if average.is_floating_point():
                average.lerp_(mean_over_ranks(latest), 1 - decay)
            else:
                average.copy_(latest)

    def _buffers(self) -> list[tuple[Tensor, Tensor]]:
        """Return each buffer of the average with the model's own; data parallelism replaces
        tensors, so they are looked up anew."""
        return list(zip(self.average.buffers(), self.model.buffers(), strict=True))

    def _give_up_if_diverged(self) -> None:
        in_a_row = float(self.bad[1])
        if in_a_row >= GIVE_UP_AFTER:
            raise Diverged(
                f"loss or gradient were not finite in {int(in_a_row)} steps in a row, up to step "
                f"{self.index}; "
                f"the weights from before are kept (try a lower --lr than {self.lr:g})"
            )

    def kept(self) -> dict[str, Tensor]:
        """Return the weights in use, which are averages: see `Selection`."""
        return self.selection.kept(self.average.state_dict())

    @property
    def kept_step(self) -> int:
        """Return the step of the weights in use."""
        return self.selection.kept_step(self.index)

    def kept_sentence(self) -> str:
        """Say which weights are kept and why."""
        return self.selection.sentence(self.index, len(self.valid) > 0)

    # -- what is logged ----------------------------------------------------------------------------

    def _beta(self) -> float:
        return float(self.objective.beta(torch.tensor(max(0, self.index - 1), dtype=torch.float64)))

    def _lr(self) -> float:
        return self.lr * one_cycle(max(0, self.index - 1), self.steps)

    def _train_record(self) -> Record:
        sums = mean_over_ranks(self.sums).tolist()
        self.sums.zero_()
        loss, bound, rate, distortion, norm, _, *terms = (
            s / sums[5] if sums[5] else math.nan for s in sums
        )
        elapsed = self._lap()
        steps = self.index - self._last_logged
        self._last_logged = self.index
        speed = steps * self.batch / elapsed if elapsed > 0 else None
        return Record(
            "train",
            self.index,
            round(self.index / self.steps_per_epoch, 4),
            bound,
            rate,
            distortion,
            loss,
            self._beta(),
            self._lr(),
            norm,
            speed,
            self.seconds,
            int(self.bad[0]),
            encoder_updates=None if self.encoder is None else self.encoder.counted(),
            altered=self._altered,
            terms=tuple(zip(self.objective.terms, terms, strict=True)),
            **self._of_stream(elapsed),
        )

    def _of_stream(self, elapsed: float) -> dict[str, Any]:
        if self._stream is None:
            return {}
        waited, self._stream.waited = self._stream.waited, 0.0
        return {
            "waited": round(waited / elapsed, 4) if elapsed > 0 else 0.0,
            "unread": self._stream.unread()[0],
        }

    def let_go(self) -> None:
        """Forget streamed data that were decoded ahead, for which the process would wait at its
        end."""
        if self._stream is not None:
            self._stream.let_go()

    def unread(self) -> str:
        """Name rows of streamed data that could not be read, in whose place others stood; nothing
        if there are none."""
        count, said = (0, "") if self._stream is None else self._stream.unread()
        return f"rows: {said}; the next ones stood in their place" if count else ""

    _last_logged = _averaged_at = _in_a_row = 0

    def _lap(self) -> float:
        now = time.perf_counter()
        elapsed, self._clock = now - self._clock, now
        self.seconds += elapsed
        return elapsed

    def _validation(self) -> tuple[Record, ...]:
        """Score the averaged weights on validation data; keep them if they are the best."""
        if self.index >= self._compared_at + COMPARED_EVERY:
            self._to_compare, self._compared_at = True, self.index
        self._fit_to_data()
        if not len(self.valid):
            self._lap()
            return ()
        found = validate(
            self.average,
            self.objective,
            self.valid,
            self.seed,
            self.device,
            self.processes,
            self.rank,
            step=max(0, self.index - 1),
        )
        settled = self.objective.settled(self.index)
        score = Score(found.objective, found.rate, self.objective.final_beta)
        self.stopped_early = self.selection.see(self.index, score, self.average.state_dict())
        if self.encoder is not None:
            self.encoder.judge()
        elapsed = self._lap()
        beta = self._beta()
        return (
            Record(
                "valid",
                self.index,
                round(self.index / self.steps_per_epoch, 4),
                found.bound,
                found.rate,
                found.distortion,
                found.loss,
                beta,
                self._lr(),
                None,
                len(self.valid) / elapsed if elapsed > 0 else None,
                self.seconds,
                int(self.bad[0]),
                found.stderr,
                found.active_units,
                found.signal,
                objective=found.objective,
                settled=settled,
                terms=tuple(zip(self.objective.terms, found.terms, strict=True)),
            ),
        )

    @functools.cached_property
    def _fit_rows(self) -> Rows:
        return self.data.train.spread(FIT_ROWS)

    def _fit_pairs(self) -> Iterator[tuple[Batch, Tensor]]:
        """Yield training data with noise, for what a model derives from them in closed form; where
        it derives nothing, nothing is read."""
        for i, batch in enumerate(self._fit_rows.chunks(self.data.space.chunk, self.device)):
            yield (
                batch,
                self.average.noise(
                    1, len(batch), torch_generator(self.device, self.seed, "fit", i)
                ),
            )

    def _fit_to_data(self) -> None:
        if "likelihood" in self.frozen:
            return
        before = [average.clone() for average in self.average.buffers()]
        self.average.fit_to_data(self._fit_pairs())
        with torch.no_grad():
            for was, (average, latest) in zip(before, self._buffers(), strict=True):
                if not torch.equal(was, average):
                    latest.copy_(average)

    # -- resuming ----------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return tensors and numbers from which `load` continues as if nothing had happened."""
        tensors = {f"model.{k}": v for k, v in self.core.model.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        tensors |= {f"best.{k}": v for k, v in (self.selection.weights or {}).items()}
        tensors |= {f"optimizer.{k}": v for k, v in self.optimizer.state().items()}
        tensors |= {f"objective.{k}": v for k, v in self.objective.state_dict().items()}
        tensors |= {"sums": self.sums, "bad": self.bad}
        if self.encoder is not None:
            tensors |= {f"encoder.{k}": v for k, v in self.encoder.state().items()}
        numbers = {
            "index": self.index,
            "seconds": self.seconds + (time.perf_counter() - self._clock if self._begun else 0.0),
            "last_logged": self._last_logged,
            "averaged_at": self._averaged_at,
            "stopped_early": self.stopped_early,
            **self.selection.state(),
        }
        return {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}, numbers

    def load(self, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        """Continue from a saved state."""

        def part(prefix: str) -> dict[str, Tensor]:
            return {
                k[len(prefix) + 1 :]: v for k, v in tensors.items() if k.startswith(prefix + ".")
            }

        self.core.model.load_state_dict(part("model"))
        self.average.load_state_dict(part("average"))
        self.objective.load_state_dict(part("objective"))
        self.optimizer.load(part("optimizer"))
        if self.encoder is not None:
            self.encoder.load(part("encoder"))
        self.sums.zero_()[: len(tensors["sums"])] = tensors["sums"]  # older runs did not sum terms
        self.bad.copy_(tensors["bad"])
        self._in_a_row = int(self.bad[1])
        self.index, self.seconds = numbers["index"], numbers["seconds"]
        self._last_logged, self._averaged_at = numbers["last_logged"], numbers["averaged_at"]
        self.selection.load(
            numbers, {k: v.to(self.device) for k, v in part("best").items()} or None
        )
        self.stopped_early = numbers["stopped_early"]

    # -- before the first step ---------------------------------------------------------------------

    def _decide_to_compile(
        self, asked: str, epochs: float | None, steps: int | None, minutes: float | None
    ) -> str:
        parts = [getattr(self.model, name, None) for name in ("posterior", "prior", "likelihood")]
        outside = self.objective.outside_graph + [
            type(part).__name__ for part in parts if not getattr(part, "in_graph", True)
        ]
        if self.data.train.sizes() is not None:
            outside.append("rows of several sizes")
        recordable = self.processes == 1 and self.precision == "32" and not outside
        on_cpu = self.device.type == "cpu"
        compiler = not on_cpu or any(
            shutil.which(c) for c in (os.environ.get("CXX", "g++"), "g++", "clang++")
        )
        possible = {"on": recordable and compiler, "trace": recordable}
        if not possible.get(asked, True):
            raise ValueError(
                f"expected one process, precision 32, parts that can be recorded and, to compile "
                f"for a CPU, a C++ compiler for --compile "
                f"{asked}; got {self.processes} process(es), precision {self.precision}, "
                f"{', '.join(outside) or 'such parts'} on "
                f"{self.device.type}"
            )
        if asked != "auto":
            return asked
        bound = self.objective.bound
        used: list[Any] = [
            *map(type, (*self.core.modules(), self.objective.rate, self.optimizer)),
            getattr(bound, "func", bound),
        ]
        if any(
            part.__module__.split(".")[0] not in ("vaestro", "torch", "zuko", "builtins")
            for part in used
        ):
            return "off"  # who knows what else than operations on tensors its steps do
        # Compiling takes some ten seconds and saves a fifth of a small model's step; recording
        # takes one second and saves a tenth.
        planned = steps if steps is not None else (epochs or 20) * self.steps_per_epoch
        work = planned * self.batch * self.objective.k * sum(p.numel() for p in self.parameters) * 6
        if possible["on"] and (
            minutes >= 4 if minutes is not None else work > (4e13 if on_cpu else 4e15)
        ):
            return "on"
        return (
            "trace"
            if possible["trace"]
            and on_cpu
            and (minutes >= 0.5 if minutes is not None else planned >= 2000)
            else "off"
        )

    def _steps_in(self, minutes: float) -> int:
        """Time some steps and a validation on the run's own objects, put everything back, and say
        how many fit."""
        self.steps, self.ema = 10**9, 0.999
        self.objective.plan(self.steps, self.steps_per_epoch)
        tensors, numbers = self.state()
        self._clock = time.perf_counter()
        for step in range(5):
            self._advance(step)
        self._wait()
        start, done = time.perf_counter(), 0
        while done < 20 or time.perf_counter() - start < min(4.0, 60 * minutes / 50):
            self._advance(5 + done)
            done += 1
        self._wait()
        each = (time.perf_counter() - start) / done
        start = time.perf_counter()
        self._validation()
        validation = time.perf_counter() - start
        self.load(tensors, numbers)
        left = 60 * minutes - (time.perf_counter() - self._started) - 2 * validation
        steps = max(1, int(0.98 * left / (each + validation / self.steps_per_epoch)))
        agreed = mean_over_ranks(torch.tensor(float(steps), device=self.device))
        return max(1, int(agreed))

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


@torch.no_grad()
def _squares(grads: Sequence[Tensor]) -> list[Tensor]:
    """Return the square of each gradient's norm."""
    if grads[0].device.type != "cpu":
        return list(torch._foreach_pow(torch._foreach_norm(list(grads)), 2))
    # on both cores, which norms are not
    return [torch.dot(g, g) for g in (g.reshape(-1) for g in grads)]


@final
class _Lagging:
    """Update the encoder alone until its bound stops rising, before each step, for as long as the
    code's information rises.

    (He, Spokoyny, Neubig and Berg-Kirkpatrick 2019: an encoder that lags behind the decoder is what
    lets the posterior collapse.)
    """

    def __init__(self, run: Training, optimizer: Callable[..., Optimizer]) -> None:
        posterior = getattr(run.model, "posterior", None)
        self.parameters = (
            [] if posterior is None else [p for p in posterior.parameters() if p.requires_grad]
        )
        if (
            not self.parameters
            or run.processes > 1
            or not getattr(posterior, "scored_anywhere", True)
        ):
            reason = (
                "several processes" if run.processes > 1 else "a posterior that is frozen or a flow"
            )
            raise ValueError(
                f"expected one process and an encoder whose q is scored anywhere for aggressive "
                f"updates; got {reason}"
            )
        self.run, self.optimizer = run, optimizer(self.parameters)
        # still lagging, information so far, updates since told
        self.numbers = torch.tensor([1.0, -math.inf, 0.0], dtype=torch.float64)

    def catch_up(self, step: int) -> None:
        """Update until ten updates lose no less than the ten before them."""
        if not self.numbers[0]:
            return
        run, before, now = self.run, math.inf, 0.0
        lr = run.lr * one_cycle(step, run.steps)
        for i in range(INNER):
            stream = step * INNER + i
            index = numpy_generator(run.seed, "encoder", step, i).integers(
                len(run.data.train), size=(1, run.batch)
            )
            batch = run.data.train.gather(
                index, run.device, seed=run.seed, stream=stream, place=(0, run.batch)
            )[0]
            noise = run.model.noise(
                run.objective.k,
                run.batch,
                torch_generator(run.device, run.seed, "encoder noise", step, i),
            )
            number = torch.tensor(float(step), dtype=torch.float64, device=run.device)
            run.objective.eval()  # what follows the steps does not follow these
            loss = run.core(batch, number, noise).loss
            run.objective.train()
            grads = torch.autograd.grad(loss, self.parameters, materialize_grads=True)
            norm = torch.stack(_squares(grads)).sum().sqrt()
            if bool(torch.isfinite(loss + norm)):
                self.optimizer.step(grads, lr, norm / run.clip if float(norm) > run.clip else None)
            self.numbers[2] += 1
            now += float(loss.detach())
            if (i + 1) % TOLD == 0:
                if not now < before:
                    return
                before, now = now, 0.0

    @torch.no_grad()
    def judge(self) -> None:
        """End it where the information of codes of validation data about their index no longer
        rises."""
        run = self.run
        rows = run.valid.spread(INFORMED)
        if not self.numbers[0] or not run.index or len(rows) < 2:
            return
        batch = rows.batch(slice(0, len(rows)), run.device)
        draws = run.model.draw(
            batch,
            1,
            noise=run.model.noise(
                1, len(rows), torch_generator(run.device, run.seed, "information")
            ),
        )
        # (B, B): each draw under the q of each datum
        held = draws.q.log_prob(draws.z[0].unsqueeze(1))
        information = float(
            (held.diagonal() - torch.logsumexp(held, 1) + math.log(len(rows))).mean()
        )
        if information <= float(self.numbers[1]):
            self.numbers[0] = 0.0
        self.numbers[1] = information

    def counted(self) -> int:
        """Return the updates since this was last asked."""
        found = int(self.numbers[2])
        self.numbers[2] = 0
        return found

    def state(self) -> dict[str, Tensor]:
        """Return what `load` goes on from."""
        return {
            "numbers": self.numbers,
            **{f"optimizer.{k}": v for k, v in self.optimizer.state().items()},
        }

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from a saved state."""
        self.numbers.copy_(state["numbers"])
        self.optimizer.load(
            {k.removeprefix("optimizer."): v for k, v in state.items() if k != "numbers"}
        )


def _part(model: LatentModel, name: str) -> nn.Module:
    parts = dict(model.named_children())
    if name not in parts:
        raise ValueError(f"expected parts of the model to freeze: {', '.join(parts)}; got {name!r}")
    return parts[name]


def _check(*rules: tuple[bool, str, Any]) -> None:
    for holds, expected, got in rules:
        if not holds:
            raise ValueError(f"expected {expected}; got {got}")


def accelerator_for(device: str) -> Accelerator:
    """Return an Accelerator for a device by name; in a single process each call starts afresh.

    Raises:
        ValueError: there is no such device here.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    if device not in ("auto", "cpu", "cuda", "mps"):
        raise ValueError(f"expected a device: auto, cpu, cuda or mps; got {device!r}")
    there: dict[str, Callable[[], bool]] = {
        "cuda": torch.cuda.is_available,
        "mps": torch.backends.mps.is_available,
    }
    if device in there and not there[device]():
        raise ValueError(f"expected a device that is here; got {device}, and this machine has none")
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        # Accelerate keeps one device for a process; runs of one process may differ in theirs.
        AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(
        cpu=device == "cpu" or (device == "auto" and not any(f() for f in there.values()))
    )


@torch.inference_mode()
def validate(
    model: LatentModel,
    objective: Objective,
    rows: Rows,
    seed: int,
    device: torch.device | str,
    processes: int = 1,
    rank: int = 0,
    step: int = 0,
) -> Validation:
    """Return means over rows, the loss at the schedules of a step, with the same noise at every
    call.

    Penalties on the aggregate posterior are means over batches of the size of a training batch.
    """
    sums = torch.zeros(4, dtype=torch.float64, device=device)
    codes = torch.zeros(3, math.prod(model.units), dtype=torch.float64, device=device)
    scores: Scores | None = None
    number = torch.tensor(step, dtype=torch.float64, device=device)
    known = len(rows) > 1  # one datum tells of no dependence
    size = min(rows.space.chunk, objective.size) if objective.penalties else rows.space.chunk
    for i, batch in enumerate(rows.chunks(size, device)):
        mine = i % processes == rank
        if i and not mine:  # every process scores the first, so that all know the shapes
            continue
        noise = model.noise(objective.k, len(batch), torch_generator(device, seed, "valid", i))
        draws = model.draw(batch, objective.k, noise=noise)
        bound = objective.bound(draws)
        terms = (bound, draws.total_rate, draws.distortion, bound.double().square())
        score = Scores(*(mine * s for s in objective.score(draws, number)))
        scores = (
            score
            if scores is None
            else Scores(*(a + b for a, b in zip(scores, score, strict=True)))
        )
        sums += mine * torch.stack([t.double().sum() for t in terms])
        variance = variance_of(draws.q)
        if variance is None:
            known = False
        else:
            mean = told(draws).double().flatten(1)
            codes += mine * torch.stack(
                [mean.sum(0), mean.square().sum(0), variance.double().flatten(1).sum(0)]
            )
    n = len(rows)
    assert scores is not None
    parts = [sums, codes.flatten(), *(s.flatten() for s in scores)]
    total = (mean_over_ranks(torch.cat(parts)) * processes).split([len(p) for p in parts])
    bound, rate, distortion, squared = (total[0] / n).tolist()
    loss, final, extra = objective.value(
        Scores(*(t.view_as(s) for t, s in zip(total[2:], scores, strict=True))), n, number
    )
    error = math.sqrt(max(0.0, squared - bound**2) / (n - 1)) if n > 1 else math.nan
    if not known:
        return Validation(bound, rate, distortion, loss, error, None, None, final, extra)
    mean, square, variance = (total[1] / n).unflatten(0, (3, -1))
    moved = (square - mean.square()).clamp_min(0.0)
    active, said = int((moved > ACTIVE).sum()), float(signal(moved, variance).sum())
    return Validation(bound, rate, distortion, loss, error, active, said, final, extra)


def told(draws: Draws) -> Tensor:
    """Return what q's mean tells beyond what is given, (B, *Z): less the prior's mean where that
    differs by the datum."""
    return draws.q.mean if draws.shared_prior else draws.q.mean - draws.p.mean


def signal(moved: Tensor, variance: Tensor) -> Tensor:
    """Return what each unit's mean tells of the data, in nats, were codes and their noise normal:
    ln(1 + moved / variance) / 2.

    Zero if and only if the encoder's mean does not depend on its input. For a linear model it is
    the mutual information.

    Args:
        moved: variance over data of q's mean, (units,).
        variance: mean over data of q's variance, (units,).
    """
    return 0.5 * torch.log1p(moved / variance.clamp_min(1e-12))  # a discrete unit may be certain
