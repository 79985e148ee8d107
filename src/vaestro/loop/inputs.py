"""The inputs of a step: rows, noise and the number of the step, as functions of (seed, step).

Inputs of several steps are created at once, because many small calls cost more than one.

With N processes, each gathers its own rows. Each draws the noise of the whole batch and slices its
own part: a PyTorch generator can be neither advanced nor split, and the noise at a position must
not depend on N.
"""

from __future__ import annotations

import math
from typing import NamedTuple, final

import numpy as np
import torch
from torch import Tensor

from vaestro.data import Rows
from vaestro.loop.devices import Processes
from vaestro.loop.settings import Settings
from vaestro.models import Model
from vaestro.randomness import Order, Windows, torch_generator
from vaestro.spaces import Batch

# largest size in bytes of rows and noise that are created at once; they fit into the cache
AHEAD_BYTES = 2**21
LAP = 2000  # largest number of steps between two validations of streamed data


class Input(NamedTuple):
    """Hold the inputs of one step: rows, standard noise (K, B, *Z), and the number of the step from
    0, ().

    >>> import vaestro as vs
    >>> batch = vs.load("digits").train.batch(slice(0, 2))
    >>> Input(batch, torch.zeros(1, 2, 3), torch.zeros(())).noise.shape
    torch.Size([1, 2, 3])
    """

    batch: Batch
    noise: Tensor
    number: Tensor


@final
class Inputs:
    """Return the inputs of each step for this process.

    Args:
        model: model whose noise is drawn.
        rows: training data.
        k: number of draws of each datum.
        settings: batch, seed and workers.
        processes: the processes that share a batch.

    >>> import vaestro as vs
    >>> data = vs.load("digits")
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> settings, processes = Settings.of(data, {"batch": 4}), Processes("cpu", batch=4)
    >>> inputs = Inputs(model, data.train, 1, settings, processes)
    >>> len(inputs(step=0, last=10).batch)
    4
    """

    def __init__(
        self, model: Model, rows: Rows, k: int, settings: Settings, processes: Processes
    ) -> None:
        self.model, self.rows, self.k, self.processes = model, rows, k, processes
        self.batch, self.seed = batch, seed = settings.batch, settings.seed
        self.stream = Stream(rows, batch, seed, settings.workers)
        self.order = (
            Order(len(rows), batch, seed, rows.sizes())
            if self.stream.order is None
            else self.stream.order
        )
        self.steps_per_epoch = len(rows) / batch
        # an epoch of streamed data may take days, so there are several validations in each
        laps = 1 if self.stream.order is None else math.ceil(self.steps_per_epoch / LAP)
        self.lap_rows = len(rows) / laps
        noise = model.noise(1, 1, torch_generator(processes.device, seed, "size")).numel()
        self.ahead = max(1, min(16, AHEAD_BYTES // (batch * (rows.row_bytes + 4 * k * noise))))
        self._block = -1
        self._inputs: list[Input] = []

    def ends_lap(self, index: int) -> bool:
        """Return whether an epoch, or a lap of streamed data, ends with a step, counted from 1."""
        return (index * self.batch) // self.lap_rows > ((index - 1) * self.batch) // self.lap_rows

    def __call__(self, step: int, last: int) -> Input:
        """Return the inputs of a step, counted from 0, in a run of `last` steps."""
        block, position = divmod(step, self.ahead)
        if self._block != block:
            self._inputs, self._block = self._create(block, last), block
        return self._inputs[position]

    def _create(self, block: int, last: int) -> list[Input]:
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
        # Slices are created here: between long parallel sections, each small call takes some tens
        # of microseconds.
        parts = (batches[i] for i in range(self.ahead))
        return [Input(*each) for each in zip(parts, noise.unbind(), numbers.unbind(), strict=True)]


@final
class Stream:
    """Decode streamed data before the steps that use them; do nothing for data in memory.

    Args:
        rows: training data.
        batch: rows in a global batch.
        seed: seed of the order.
        workers: number of threads that decode.

    >>> import vaestro as vs
    >>> Stream(vs.load("digits").train, batch=4, seed=0, workers=None).unread() is None
    True
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
        """Start to decode the rows of this process in the windows of some steps, and in the next
        window.

        Args:
            steps: numbers of the steps.
            last: number of steps of the run.
            mine: rows of this process in a batch.
        """
        if self._values is None or self.order is None:
            return
        windows = self.order.over(steps.start * self.batch, steps.stop * self.batch)
        end = windows[-1].start + len(windows[-1].rows)
        if end < last * self.batch:
            windows += self.order.over(end, end + 1)
        expected = []
        for window in windows:
            position = np.arange(window.start, window.start + len(window.rows)) % self.batch
            rows = window.rows[(position >= mine.start) & (position < mine.stop)]
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

    def release(self) -> None:
        """Drop data that were decoded ahead; otherwise the process waits for them at its end."""
        if self._values is not None:
            self._values.release()
