"""The settings of a training: every option with its default resolved and its range checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict, final

from torch import Tensor

from vaestro.data import Data
from vaestro.optimizers import Optimizer
from vaestro.parts import find
from vaestro.processes import shared
from vaestro.selection import Keep
from vaestro.text import nearest

EPOCHS, STEPS = 20.0, 4000  # default length of a run: the larger of the two
LR = 2e-3
LARGE = 784  # cells of an image, volume or series that has smaller batches


class Options(TypedDict, total=False):
    """Name the options of `training`; `vaestro.options` describes them."""

    freeze: Sequence[str] | None
    optimizer: str | Callable[[Sequence[Tensor]], Optimizer]
    epochs: float | None
    steps: int | None
    minutes: float | None
    batch: int | None
    lr: float | None
    seed: int
    ema: float | None
    clip: float | None
    patience: int | None
    keep: Keep
    device: str
    precision: str
    compile: str
    workers: int | None


@final
@dataclass(frozen=True)
class Settings:
    """Hold the settings of a training; `vaestro.options` describes them.

    Raises:
        ValueError: a setting is out of its range.

    >>> import vaestro as vs
    >>> settings = Settings.of(vs.load("digits"), {"epochs": 2.0})
    >>> settings.batch, settings.lr
    (101, 0.002)
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

    @classmethod
    def of(cls, data: Data, options: Options) -> Settings:
        """Return the settings of a training on some data; an option that is absent or None has its
        default.

        Raises:
            TypeError: there is no such option.
            ValueError: an option is out of its range.
        """
        for name in options:
            if name not in Options.__annotations__:
                known = nearest(name, Options.__annotations__)
                raise TypeError(f"expected an option of training: {known}; got {name!r}")
        optimizer = options.get("optimizer", "adamw")
        batch, lr, clip = options.get("batch"), options.get("lr"), options.get("clip")
        return cls(
            batch=default_batch(data) if batch is None else batch,
            lr=LR if lr is None else lr,
            clip=default_clip(data) if clip is None else clip,
            optimizer=find("optimizer", optimizer) if isinstance(optimizer, str) else optimizer,
            epochs=options.get("epochs"),
            steps=options.get("steps"),
            minutes=options.get("minutes"),
            ema=options.get("ema"),
            seed=options.get("seed", 0),
            patience=options.get("patience"),
            keep=options.get("keep", "best"),
            device=options.get("device", "auto"),
            precision=options.get("precision", "32"),
            compile=options.get("compile", "auto"),
            freeze=tuple(options.get("freeze") or ()),
            workers=options.get("workers"),
        )

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
    """Return whether data are rows of tokens.

    >>> import vaestro as vs
    >>> is_text(vs.load("digits"))
    False
    """
    return data.space.ragged


def default_batch(data: Data) -> int:
    """Return the default rows of a batch: 128, for text data 32, and at most a sixteenth of the
    rows, but 8 or more; for larger images, volumes and series at most a 64th. Several processes
    share it equally.

    The time of a convolution is proportional to the rows, so small batches take more steps in the
    same time.

    >>> import vaestro as vs
    >>> default_batch(vs.load("digits"))
    101
    """
    large = data.space.layout.grid and data.space.cells >= LARGE
    rows = min(32 if is_text(data) else 128, max(8, len(data.train) // (64 if large else 16)))
    return shared(rows)


def default_clip(data: Data) -> float:
    """Return the default largest norm of a gradient: 10 times the root of the number of cells.

    >>> import vaestro as vs
    >>> default_clip(vs.load("digits"))  # 64 pixels
    80.0
    """
    return 10 * math.sqrt(data.space.cells)
