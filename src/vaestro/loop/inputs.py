"""The inputs of a step: rows, noise and the number of the step, as functions of (seed, step).

Inputs of several steps are made at once, because many small calls cost more than one.
"""

from __future__ import annotations

import math
from typing import NamedTuple, final

import numpy as np
import torch
from torch import Tensor

from vaestro.data import Rows
from vaestro.loop.devices import Processes
from vaestro.models import LatentModel
from vaestro.randomness import Order, Windows, torch_generator
from vaestro.spaces import Batch

AHEAD_BYTES = 2**21  # rows and noise that are made at once fit into the cache
LAP = 2000  # steps of streamed data between two validations, at most


class Input(NamedTuple):
    """Hold the inputs of one step: rows, standard noise (K, B, *Z), and its number from 0."""

    batch: Batch
    noise: Tensor
    number: Tensor


@final
class Inputs:
    """Make the inputs of each step for this process.

    Args:
        model: whose noise is drawn.
        rows: training data.
        k: draws of each datum.
        batch: rows in a global batch.
        seed: of order and noise.
        processes: which rows of a batch are this process's.
        workers: threads that decode streamed data; by default one for each processor.
    """

    def __init__(
        self,
        model: LatentModel,
        rows: Rows,
        k: int,
        batch: int,
        seed: int,
        processes: Processes,
        workers: int | None,
    ) -> None:
        self.model, self.rows, self.k, self.seed = model, rows, k, seed
        self.batch, self.processes = batch, processes
        self.stream = Stream(rows, batch, seed, workers)
        self.order = (
            Order(len(rows), batch, seed, rows.sizes())
            if self.stream.order is None
            else self.stream.order
        )
        self.steps_per_epoch = len(rows) / batch
        # An epoch of a stream may take days: it is validated several times in each.
        laps = 1 if self.stream.order is None else math.ceil(self.steps_per_epoch / LAP)
        self.lap_rows = len(rows) / laps
        noise = model.noise(1, 1, torch_generator(processes.device, seed, "size")).numel()
        self.ahead = max(1, min(16, AHEAD_BYTES // (batch * (rows.row_bytes + 4 * k * noise))))
        self._block = -1
        self._inputs: list[Input] = []

    def ends_lap(self, index: int) -> bool:
        """Return whether an epoch, or a lap of a stream, ends with the step of this index from
        1."""
        return (index * self.batch) // self.lap_rows > ((index - 1) * self.batch) // self.lap_rows

    def __call__(self, step: int, last: int) -> Input:
        """Return the inputs of a step, in a run of `last` steps."""
        block, at = divmod(step, self.ahead)
        if self._block != block:
            self._inputs, self._block = self._make(block, last), block
        return self._inputs[at]

    def _make(self, block: int, last: int) -> list[Input]:
        mine, device = self.processes.rows, self.processes.device
        steps = range(block * self.ahead, (block + 1) * self.ahead)
        index = np.stack([self.order(s)[mine] for s in steps])
        self.stream.expect(steps, last, mine)
        batches = self.rows.gather(
            index, device, seed=self.seed, stream=block, place=(mine.start, self.batch)
        )
        noise = self.model.noise(
            self.ahead * self.k, self.batch, torch_generator(device, self.seed, "noise", block)
        ).unflatten(0, (self.ahead, self.k))[:, :, mine]
        numbers = torch.arange(steps.start, steps.stop, dtype=torch.float64, device=device)
        # They are taken apart here: between long parallel sections each call, however small, costs
        # some tens of microseconds.
        parts = (batches[i] for i in range(self.ahead))
        return [Input(*each) for each in zip(parts, noise.unbind(), numbers.unbind(), strict=True)]


@final
class Stream:
    """Have streamed data decoded ahead of the steps that use them; do nothing for data in memory.

    Args:
        rows: training data.
        batch: rows in a global batch.
        seed: of the order.
        workers: threads that decode.
    """

    def __init__(self, rows: Rows, batch: int, seed: int, workers: int | None) -> None:
        self.batch, self.index = batch, rows.index
        self._values = rows.stream
        self.order: Windows | None = None
        if self._values is not None:
            self._values.start(workers)
            sizes = self._values.block_sizes(rows.index)
            self.order = Windows(sizes, self._values.buffer, batch, seed)

    def expect(self, steps: range, last: int, mine: slice) -> None:
        """Start to decode this process's rows of the windows over these steps, and of the next
        window."""
        if self._values is None or self.order is None:
            return
        windows = self.order.over(steps.start * self.batch, steps.stop * self.batch)
        end = windows[-1].start + len(windows[-1].rows)
        if end < last * self.batch:
            windows += self.order.over(end, end + 1)
        expected = []
        for window in windows:
            place = np.arange(window.start, window.start + len(window.rows)) % self.batch
            rows = window.rows[(place >= mine.start) & (place < mine.stop)]
            expected.append((window, rows if self.index is None else self.index[rows]))
        self._values.expect(expected)

    def waited(self, elapsed: float) -> float | None:
        """Return the share of the elapsed seconds that training waited for data since the last
        call; None for data in memory."""
        if self._values is None:
            return None
        waited, self._values.waited = self._values.waited, 0.0
        return round(waited / elapsed, 4) if elapsed > 0 else 0.0

    def unread(self) -> tuple[int, str] | None:
        """Return the number of unreadable rows so far and a description; None for data in
        memory."""
        return None if self._values is None else self._values.unread()

    def let_go(self) -> None:
        """Drop data that were decoded ahead; the process would wait for them at its end."""
        if self._values is not None:
            self._values.let_go()
