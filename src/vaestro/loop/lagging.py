r"""Encoder-only updates for aggressive training.

If the encoder lags behind the decoder, the posterior may collapse (He, Spokoyny, Neubig and
Berg-Kirkpatrick 2019). Before each joint step, the encoder is therefore trained alone on other rows
until its loss stops falling. This ends once the information between the code z and the index n of N
validation data,

    I(n; z) = E_n[log q(z | x_n) - log sum_m q(z | x_m) + log N]        nats

no longer increases between two validations.
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

MOST = 100  # largest number of encoder updates before one step
JUDGED = 10  # number of updates over which the loss is averaged
ROWS = 500  # number of validation rows from which the information is estimated


@final
class LaggingUpdater:
    """Repeat an update before each step until its loss stops falling.

    Args:
        updater: updater of the update.
        objective: objective, whose adaptive schedules ignore these updates.
        inputs: inputs of the run.
        valid: validation data.

    Raises:
        ValueError: there are several processes.

    >>> import vaestro as vs
    >>> data = vs.load("digits")
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> objective = vs.Objective(aggressive=True)
    >>> run = vs.training(model, objective, data, steps=1, device="cpu")
    >>> [r.encoder_updates > 0 for step in run for r in step.records if r.split == "train"]
    [True]
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
        # whether updates continue, information at the last validation, updates since the last line
        self.numbers = torch.tensor([1.0, -math.inf, 0.0], dtype=torch.float64)

    @property
    def name(self) -> str:
        """Return the name of the update."""
        return self.updater.name

    def catch_up(self, step: int, steps: int) -> None:
        """Update until the mean loss of ten updates is no lower than that of the ten before."""
        if not self.numbers[0]:
            return
        updater, before, now = self.updater, math.inf, 0.0
        lr = updater.lr * updater.update.schedule(step, steps)
        for i in range(MOST):
            self.objective.eval()  # adaptive schedules ignore these updates
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
        run = self.inputs
        device, seed, batch = run.processes.device, run.seed, run.batch
        index = numpy_generator(seed, "encoder", step, i).integers(len(run.rows), size=(1, batch))
        rows = run.rows.gather(index, device, seed=seed, stream=step * MOST + i, place=(0, batch))
        generator = torch_generator(device, seed, "encoder noise", step, i)
        number = torch.tensor(float(step), dtype=torch.float64, device=device)
        return Input(rows[0], run.model.noise(run.k, batch, generator), number)

    @torch.no_grad()
    def judge(self, index: int) -> None:
        """Stop permanently if the information no longer increases."""
        if not self.numbers[0] or not index or len(self.rows) < 2:
            return
        model, n, device = self.inputs.model, len(self.rows), self.inputs.processes.device
        noise = model.noise(1, n, torch_generator(device, self.inputs.seed, "information"))
        draws = model.draw(self.rows.batch(slice(0, n), device), 1, noise=noise)
        # (B, B): the draw of each datum under the q of every datum
        log_q = draws.q.log_prob(draws.z[0].unsqueeze(1))
        information = float((log_q.diagonal() - torch.logsumexp(log_q, 1) + math.log(n)).mean())
        if information <= float(self.numbers[1]):
            self.numbers[0] = 0.0
        self.numbers[1] = information

    def counted(self) -> int:
        """Return the number of updates since the last call, and reset it."""
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
