"""What a reader returns: the three splits, and how a batch is gathered from one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from vaestro.densities import Batch, Space
from vaestro.randomness import uniform_levels


@dataclass(frozen=True, eq=False)
class Rows:
    """Hold one split.

    Args:
        values: codes or values inside, (N, *X); where `dynamic`, 8-bit grey levels that are binarised at every access.
        space: what a batch of them is.
        name: which split, which names the stream of a fixed binarisation.
        dynamic: binarise anew at every access, with P(1) = level / 255 exactly.
        attributes: what else is known of each row, by name, each (N,).
    """

    values: np.ndarray
    space: Space
    name: str
    dynamic: bool = False
    attributes: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.values)

    def gather(
        self,
        index: np.ndarray,
        device: torch.device | str = "cpu",
        *,
        seed: int = 0,
        stream: int = 0,
        place: tuple[int, int] | None = None,
    ) -> torch.Tensor:
        """Gather the batches of several steps at once: row numbers (S, B) -> codes or values (S, B, *X).

        `place` is where each batch stands in its step's global batch (first row, rows); `stream` names the steps.
        """
        values = self.values[index]
        if self.dynamic:
            start, rows = place or (0, index.shape[1])
            draws = uniform_levels((len(index), rows, *values.shape[2:]), seed, "binarise", self.name, stream)
            values = (draws[:, start : start + index.shape[1]] < values).view(np.uint8)
        return torch.from_numpy(values).to(device, non_blocking=True)

    def fixed(self) -> Rows:
        """Return the rows with one binarisation for good: the one that every evaluation sees, whatever the run's seed."""
        if not self.dynamic:
            return self
        draws = uniform_levels(self.values.shape, 0, "binarise", self.name)
        return replace(self, values=(draws < self.values).view(np.uint8), dynamic=False)

    def chunks(self, size: int, device: torch.device | str = "cpu") -> Iterator[Batch]:
        """Yield the rows in order, `size` at a time."""
        values = torch.from_numpy(self.fixed().values)
        for start in range(0, len(self), size):
            yield Batch(values[start : start + size].to(device))

    def take(self, n: int) -> Rows:
        """Return the first n rows."""
        return replace(self, values=self.values[:n], attributes={k: v[:n] for k, v in self.attributes.items()})

    def spread(self, n: int) -> Rows:
        """Return n rows at equal distances, or all if there are fewer."""
        if n >= len(self):
            return self
        index = np.linspace(0, len(self) - 1, n).astype(np.int64)
        return replace(self, values=self.values[index], attributes={k: v[index] for k, v in self.attributes.items()})

    def sha256(self) -> str:
        """Hash what an evaluation sees: shape, type and every value."""
        values = np.ascontiguousarray(self.fixed().values)
        digest = hashlib.sha256(f"{values.shape} {values.dtype.str}".encode())
        digest.update(values.data)
        return digest.hexdigest()

    def outward(self) -> np.ndarray:
        """Return the rows in the user's layout and units."""
        return self.space.outward(self.fixed().values)


@dataclass(frozen=True, eq=False)
class Data:
    """Hold what was read: three splits, what they are, and what was inferred, in words.

    Args:
        train, valid, test: the splits. valid and test have one fixed binarisation where data are binarised.
        space: what the data are; what it holds of statistics is the training split's.
        source: where they came from, with every option resolved.
        notes: what was inferred, a line each.
    """

    train: Rows
    valid: Rows
    test: Rows
    space: Space
    source: str
    notes: tuple[str, ...] = ()

    @property
    def attributes(self) -> tuple[str, ...]:
        """Name what else is known of each row."""
        return tuple(self.train.attributes)

    def split(self, name: str) -> Rows:
        """Return a split by name.

        Raises:
            ValueError: there is no such split, or it is empty.
        """
        if name not in ("train", "valid", "test"):
            raise ValueError(f"expected train, valid or test; got {name!r}")
        rows: Rows = getattr(self, name)
        if not len(rows):
            raise ValueError(f"expected data in the {name} split of {self.source}; got none")
        return rows
