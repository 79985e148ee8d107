"""Networks of the study with weights set by hand, so the result does not depend on training.

Data are those of `study_data.linear`: x = W z + e with orthogonal columns of W, whose exact
posterior is known.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from study_data import basis, signals
from torch import Tensor, nn


def _fixed(values: np.ndarray) -> nn.Parameter:
    return nn.Parameter(torch.from_numpy(np.asarray(values, np.float32)), requires_grad=False)


class Encoder(nn.Module):
    """Return the exact posterior's mean and log-variance for the first units, and set values for
    the others.

    Args:
        inputs, outputs: (cells,) and (2, units).
        strength, noise: of the data.
        used: number of units that describe a factor each; the others are idle.
        shift: added to the mean of every unit.
        copy: idle units describe a direction of the noise: their means have this standard deviation
            over the data.
        logvar: log-variance of idle units; by default log(1 - copy^2), so that their aggregate
            posterior is the prior.
    """

    def __init__(
        self,
        inputs: tuple[int, ...],
        outputs: tuple[int, ...],
        *,
        strength: float = 8.0,
        noise: float = 0.25,
        used: int = 3,
        shift: float = 0.0,
        copy: float = 0.0,
        logvar: float = math.nan,
    ) -> None:
        super().__init__()
        cells, units = math.prod(inputs), outputs[-1]
        variance = signals(strength, used)
        weights = np.zeros((units, cells))
        spread = np.full(units, math.log(1 - copy**2) if math.isnan(logvar) else logvar)
        weights[:used] = (np.sqrt(variance) / (variance + noise))[:, None] * basis(cells)[
            :, :used
        ].T
        spread[:used] = np.log(noise / (variance + noise))
        weights[used:] = copy / math.sqrt(noise) * basis(cells)[:, used:units].T
        self.weights, self.shift = _fixed(weights), shift
        # the soft limit of 20 maps it to `spread`
        self.logvar = _fixed(spread / (1 - np.abs(spread) / 20))
        self.slack = nn.Parameter(torch.zeros(()))  # a parameter to train, without an effect

    def forward(self, x: Tensor) -> Tensor:
        mean = x.float().flatten(1) @ self.weights.T + self.shift
        return torch.stack([mean, self.logvar.expand(len(x), -1) + 0 * self.slack], 1)


class Decoder(nn.Module):
    """Return W (z - shift) of the first units; the others have no effect.

    Args:
        inputs, outputs: (units,) and (cells,).
        strength, used: of the data, and the number of units that are used.
        shift: subtracted from every unit.
    """

    def __init__(
        self,
        inputs: tuple[int, ...],
        outputs: tuple[int, ...],
        *,
        strength: float = 8.0,
        used: int = 3,
        shift: float = 0.0,
    ) -> None:
        super().__init__()
        cells = math.prod(outputs)
        weights = np.zeros((inputs[0], cells))
        weights[:used] = np.sqrt(signals(strength, used))[:, None] * basis(cells)[:, :used].T
        self.weights, self.shift, self.outputs = _fixed(weights), shift, outputs

    def forward(self, z: Tensor) -> Tensor:
        return ((z - self.shift) @ self.weights).unflatten(-1, self.outputs)


class Stumbling(nn.Module):
    """Encode by one linear layer whose output is NaN at every `every`-th training step."""

    def __init__(
        self, inputs: tuple[int, ...], outputs: tuple[int, ...], *, every: int = 40
    ) -> None:
        super().__init__()
        self.outputs, self.every, self.calls = outputs, every, 0
        self.layer = nn.Linear(math.prod(inputs), math.prod(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = self.layer(x.float().flatten(1)).unflatten(-1, self.outputs)
        if not self.training:
            return out
        self.calls += 1
        return out * math.nan if self.calls % self.every == 0 else out
