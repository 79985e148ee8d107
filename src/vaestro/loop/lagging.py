r"""Encoder-only updates for aggressive training.

An encoder that lags behind the decoder lets the posterior collapse (He, Spokoyny, Neubig and
Berg-Kirkpatrick 2019). So before each joint step the encoder alone is trained on other rows until
its loss stops falling. This ends when the information of codes z about the index n of N data,

    I(n; z) = E_n[log q(z | x_n) - log sum_m q(z | x_m) + log N]

no longer rises between two validations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor

from vaestro.data import Rows
from vaestro.loop.inputs import Input, Inputs
from vaestro.loop.state import State, part, prefixed
from vaestro.loop.step import Updater, squared_norms
from vaestro.objectives import TrainingObjective
from vaestro.randomness import numpy_generator, torch_generator

MOST = 100  # updates before one step
JUDGED = 10  # updates whose loss is compared with that of as many before
ROWS = 500  # validation data whose codes are compared


@final
class LaggingUpdater:
    """Repeat an update before each step until its loss stops falling.

    Args:
        updater: of the update.
        objective: whose schedules do not observe these updates.
        inputs: of the run.
        valid: validation data.

    Raises:
        ValueError: there are several processes.
    """

    def __init__(
        self, updater: Updater, objective: TrainingObjective, inputs: Inputs, valid: Rows
    ) -> None:
        if updater.processes.count > 1:
            raise ValueError(
                "expected one process and an encoder whose q is scored anywhere for aggressive "
                "updates; got several processes"
            )
        self.updater, self.objective, self.inputs = updater, objective, inputs
        self.rows = valid.spread(ROWS)
        # whether to go on, information at the last validation, updates since the last line
        self.numbers = torch.tensor([1.0, -math.inf, 0.0], dtype=torch.float64)

    @property
    def name(self) -> str:
        """Return the name of the update."""
        return self.updater.name

    def catch_up(self, step: int, steps: int) -> None:
        """Update until ten updates have no lower loss than the ten before them."""
        if not self.numbers[0]:
            return
        updater, before, now = self.updater, math.inf, 0.0
        lr = updater.lr * updater.update.schedule(step, steps)
        for i in range(MOST):
            self.objective.eval()  # schedules that follow the steps do not follow these updates
            loss, gradients = updater.differentiate(self._input(step, i))
            self.objective.train()
            norm = torch.stack(squared_norms(gradients)).sum().sqrt()
            if bool(torch.isfinite(loss.loss + norm)):
                divisor = norm / updater.clip if float(norm) > updater.clip else None
                updater.optimizer.step(gradients, lr, divisor)
            self.numbers[2] += 1
            now += float(loss.loss.detach())
            if (i + 1) % JUDGED == 0:
                if not now < before:
                    return
                before, now = now, 0.0

    def _input(self, step: int, i: int) -> Input:
        of = self.inputs
        device, seed = of.processes.device, of.seed
        index = numpy_generator(seed, "encoder", step, i).integers(len(of.rows), size=(1, of.batch))
        rows = of.rows.gather(
            index, device, seed=seed, stream=step * MOST + i, place=(0, of.batch)
        )[0]
        generator = torch_generator(device, seed, "encoder noise", step, i)
        number = torch.tensor(float(step), dtype=torch.float64, device=device)
        return Input(rows, of.model.noise(of.k, of.batch, generator), number)

    @torch.no_grad()
    def judge(self, index: int) -> None:
        """Stop for good if the information of validation codes no longer rises."""
        if not self.numbers[0] or not index or len(self.rows) < 2:
            return
        of, n = self.inputs, len(self.rows)
        noise = of.model.noise(1, n, torch_generator(of.processes.device, of.seed, "information"))
        draws = of.model.draw(self.rows.batch(slice(0, n), of.processes.device), 1, noise=noise)
        # (B, B): the draw of each datum under the q of each other
        log_q = draws.q.log_prob(draws.z[0].unsqueeze(1))
        information = float((log_q.diagonal() - torch.logsumexp(log_q, 1) + math.log(n)).mean())
        if information <= float(self.numbers[1]):
            self.numbers[0] = 0.0
        self.numbers[1] = information

    def counted(self) -> int:
        """Return the number of updates since the last call."""
        count = int(self.numbers[2])
        self.numbers[2] = 0
        return count

    def state(self) -> State:
        """Return the tensors from which `load` continues."""
        return {"numbers": self.numbers, **prefixed("optimizer", self.updater.optimizer.state())}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from a saved state."""
        self.numbers.copy_(tensors["numbers"])
        self.updater.optimizer.load(part("optimizer", tensors))
