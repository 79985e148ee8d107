"""Randomness as a function of (seed, purpose, step, place in the global batch).

Never of rank, clock or history: a resumed run draws what the uninterrupted one would have drawn,
and N processes draw together what one would. Every consumer names its purpose ("order", "noise",
"binarise", ...), so adding one never shifts another. Nothing here touches a global generator.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import torch


def derive(seed: int, *path: str | int) -> int:
    """Return a 63-bit seed for one purpose: equal paths give equal seeds, different ones
    independent seeds."""
    text = "/".join(map(str, (seed, *path)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def torch_generator(device: torch.device | str, seed: int, *path: str | int) -> torch.Generator:
    """Return a fresh generator on `device` for one purpose."""
    import torch

    return torch.Generator(device=device).manual_seed(derive(seed, *path))


def numpy_generator(seed: int, *path: str | int) -> np.random.Generator:
    """Return a fresh NumPy generator for one purpose."""
    return np.random.Generator(np.random.PCG64(derive(seed, *path)))


# pixels that are binarised together: what is drawn for them stays in the nearest cache
PIECE = 2**17


def binarised(
    levels: np.ndarray, seed: int, *path: str | int, out: np.ndarray | None = None
) -> np.ndarray:
    """Draw zeros and ones, uint8, which are 1 with probability v / 255 exactly for every 8-bit
    level v.

    One is where an integer uniform on 0..254 is below v, so that no pixel needs a float. Raw bytes
    are used eight to a 64-bit draw; the value 255 is rejected and drawn again, which keeps the law
    exact. The raw bits of PCG64 do not change between NumPy versions, so a binarisation keeps its
    hash.

    Args:
        levels: uint8 of any shape, contiguous.
        seed, path: what the draws are for.
        out: where they are written, uint8, contiguous; by default into memory.
    """
    bits = np.random.PCG64(derive(seed, *path))
    drawn = np.empty(levels.shape, np.uint8) if out is None else out
    flat, ones = levels.reshape(-1), drawn.view(bool).reshape(-1)
    again = []
    for start in range(0, flat.size, PIECE):
        part = slice(start, min(start + PIECE, flat.size))
        uniform = np.ascontiguousarray(
            bits.random_raw((part.stop - start + 7) // 8), dtype="<u8"
        ).view(np.uint8)[: part.stop - start]
        np.less(uniform, flat[part], out=ones[part])
        again.append(np.flatnonzero(uniform == 255) + start)
    rejected = np.concatenate(again) if again else np.empty(0, np.int64)
    while rejected.size:
        uniform = np.ascontiguousarray(bits.random_raw(rejected.size), dtype="<u8").view(np.uint8)[
            ::8
        ]
        ones[rejected] = uniform < flat[rejected]
        rejected = rejected[uniform == 255]
    return drawn


WINDOW = 50


class Order:
    """Name the rows of every step: an endless row of permutations, cut into batches of equal size.

    Step s holds places s * batch .. (s + 1) * batch of the concatenated permutations, one
    permutation an epoch, so every datum is seen once an epoch, no batch is short, and a step's rows
    follow from (seed, step) alone.

    Where rows differ in size, those of like size go together: within windows of WINDOW batches,
    rows are sorted by size (those of one size as they were drawn), cut into batches, and the
    batches drawn in a new order.
    """

    def __init__(self, rows: int, batch: int, seed: int, sizes: np.ndarray | None = None) -> None:
        self.rows, self.batch, self.seed, self.sizes = rows, batch, seed, sizes
        self._epochs: dict[int, np.ndarray] = {}

    def _permutation(self, epoch: int) -> np.ndarray:
        if epoch not in self._epochs:
            self._epochs = {e: p for e, p in self._epochs.items() if e == epoch - 1}
            rng = numpy_generator(self.seed, "order", epoch)
            drawn = rng.permutation(self.rows)
            self._epochs[epoch] = (
                drawn
                if self.sizes is None
                else self._by_size(drawn, self.sizes, -epoch * self.rows % self.batch, rng)
            )
        return self._epochs[epoch]

    def _by_size(
        self, drawn: np.ndarray, sizes: np.ndarray, first: int, rng: np.random.Generator
    ) -> np.ndarray:
        """Put rows of like size together; the first `first` rows belong to the last batch of the
        epoch before."""
        parts = [drawn[:first]]
        for start in range(first, len(drawn), WINDOW * self.batch):
            window = drawn[start : start + WINDOW * self.batch]
            window = window[np.argsort(sizes[window], kind="stable")]
            whole = len(window) // self.batch * self.batch
            batches = window[:whole].reshape(-1, self.batch)
            # What does not fill a batch comes last: the next epoch's first rows join it.
            parts += [batches[rng.permutation(len(batches))].ravel(), window[whole:]]
        return np.concatenate(parts)

    def __call__(self, step: int) -> np.ndarray:
        """Return the (batch,) row numbers of a step."""
        start, parts, left = step * self.batch, [], self.batch
        while left:
            epoch, place = divmod(start, self.rows)
            part = self._permutation(epoch)[place : place + left]
            parts.append(part)
            start, left = start + len(part), left - len(part)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


class Window(NamedTuple):
    """Say which rows are drawn from together: a window of an epoch, the place of its first row in
    the endless row of epochs, and the rows
    in the order in which they are drawn."""

    key: tuple[int, int]
    start: int
    rows: np.ndarray


class Windows:
    """Name the rows of every step where rows lie in blocks that are read whole: an order that needs
    few blocks at a time.

    In each epoch the blocks are drawn in a new order and gathered into windows of `buffer` rows or
    a little more, and the rows of a
    window are drawn in a new order: a shuffle buffer, whose content follows from (seed, step)
    alone.

    Args:
        sizes: rows of each block, (blocks,). Row r is the r-th of the blocks laid end to end.
        buffer: rows of a window.
        batch: rows of a step.
        seed: of the order.
    """

    def __init__(self, sizes: np.ndarray, buffer: int, batch: int, seed: int) -> None:
        self.sizes, self.buffer, self.batch, self.seed = sizes, buffer, batch, seed
        self.rows = int(sizes.sum())
        self._starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        self._epochs: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        self._windows: dict[tuple[int, int], Window] = {}

    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the blocks of an epoch in their order, which of them begin windows, and at which
        of the epoch's places."""
        if epoch not in self._epochs:
            self._epochs = {e: found for e, found in self._epochs.items() if e == epoch - 1}
            blocks = numpy_generator(self.seed, "blocks", epoch).permutation(len(self.sizes))
            before = np.cumsum(self.sizes[blocks]) - self.sizes[blocks]
            first = np.flatnonzero(np.diff(before // self.buffer, prepend=-1))
            self._epochs[epoch] = blocks, first, before[first]
        return self._epochs[epoch]

    def _window(self, epoch: int, number: int) -> Window:
        key = (epoch, number)
        if key not in self._windows:
            self._windows = dict(list(self._windows.items())[-7:])
            blocks, first, places = self._epoch(epoch)
            chosen = blocks[first[number] : first[number + 1] if number + 1 < len(first) else None]
            rows = np.concatenate(
                [np.arange(self._starts[b], self._starts[b] + self.sizes[b]) for b in chosen]
            )
            drawn = numpy_generator(self.seed, "rows", epoch, number).permutation(rows)
            self._windows[key] = Window(key, epoch * self.rows + int(places[number]), drawn)
        return self._windows[key]

    def over(self, start: int, stop: int) -> list[Window]:
        """Return the windows over places start .. stop of the endless row of epochs."""
        found: list[Window] = []
        while start < stop:
            epoch, place = divmod(start, self.rows)
            number = int(np.searchsorted(self._epoch(epoch)[2], place, "right")) - 1
            found.append(self._window(epoch, number))
            start = found[-1].start + len(found[-1].rows)
        return found

    def __call__(self, step: int) -> np.ndarray:
        """Return the (batch,) row numbers of a step."""
        start, stop = step * self.batch, (step + 1) * self.batch
        parts = [w.rows[max(0, start - w.start) : stop - w.start] for w in self.over(start, stop)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)
