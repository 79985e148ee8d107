"""The settings of a training: every option with its default resolved, checked once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

from torch import Tensor

from vaestro.data import Data
from vaestro.optimizers import Optimizer
from vaestro.selection import Keep

EPOCHS, STEPS = 20.0, 4000  # of a run by default, whichever is more


@final
@dataclass(frozen=True)
class Settings:
    """Hold the settings of a training; see `training` for their meaning.

    Raises:
        ValueError: an option is out of its range.
    """

    batch: int
    lr: float
    clip: float
    optimizer: Callable[[Sequence[Tensor]], Optimizer]
    epochs: float | None = None
    steps: int | None = None
    minutes: float | None = None
    ema: float | None = None
    seed: int = 0
    patience: int | None = None
    keep: Keep = "best"
    device: str = "auto"
    precision: str = "32"
    compile: str = "auto"
    freeze: tuple[str, ...] = ()
    workers: int | None = None

    def __post_init__(self) -> None:
        lengths = sum(x is not None for x in (self.epochs, self.steps, self.minutes))
        epochs, minutes = self.epochs, self.minutes
        rules: list[tuple[bool, str, object]] = [
            (self.batch >= 1, "a batch of 1 or more", self.batch),
            (0 < self.lr < math.inf, "a learning rate above 0", self.lr),
            (self.clip > 0, "a clip above 0", self.clip),
            (self.ema is None or 0 <= self.ema < 1, "an ema in [0, 1)", self.ema),
            (epochs is None or 0 < epochs < math.inf, "epochs above 0", epochs),
            (self.steps is None or self.steps >= 1, "1 or more steps", self.steps),
            (minutes is None or 0 < minutes < math.inf, "minutes above 0", minutes),
            (lengths <= 1, "one of epochs, steps and minutes", "several"),
            (self.workers is None or self.workers >= 1, "1 or more workers", self.workers),
            (self.precision in ("32", "bf16"), "precision 32 or bf16", self.precision),
            (self.compile in ("auto", "on", "off"), "compile auto, on or off", self.compile),
        ]
        for holds, expected, got in rules:
            if not holds:
                raise ValueError(f"expected {expected}; got {got}")

    def planned(self, data: Data) -> int:
        """Return the number of steps of a run whose length is not given in minutes."""
        if self.steps is not None:
            return self.steps
        steps_per_epoch = len(data.train) / self.batch
        default = EPOCHS if is_text(data) else max(EPOCHS, STEPS / steps_per_epoch)
        epochs = default if self.epochs is None else self.epochs
        return max(1, round(epochs * steps_per_epoch))


def is_text(data: Data) -> bool:
    """Return whether data are rows of tokens."""
    return data.space.ragged


def default_batch(data: Data) -> int:
    """Return the rows of a batch: 128, of texts 32, and a sixteenth of the rows if they are few."""
    return min(32 if is_text(data) else 128, max(8, len(data.train) // 16))


def default_clip(data: Data) -> float:
    """Return the norm at which gradients are clipped: 10 times the root of the number of cells."""
    return 10 * math.sqrt(data.space.cells)
