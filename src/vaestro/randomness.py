"""Random draws as functions of (seed, purpose, step, position in the global batch).

They do not depend on rank, clock or history. A resumed run therefore draws the same numbers as an
uninterrupted one, and N processes draw the same numbers as one. Every caller names its purpose
("order", "noise", "binarise", ...), so that a new purpose does not change the draws of others.
Global generators are not used.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import torch


def derive(seed: int, *path: str | int) -> int:
    """Return a 63-bit seed for one purpose: equal paths have equal seeds, and different paths have
    independent seeds.

    >>> derive(0, "noise", 1) == derive(0, "noise", 1), derive(0, "noise", 1) == derive(0, "noise")
    (True, False)
    """
    text = "/".join(map(str, (seed, *path)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def torch_generator(device: torch.device | str, seed: int, *path: str | int) -> torch.Generator:
    """Return a new PyTorch generator on `device` for one purpose.

    >>> import torch
    >>> draws = [torch.rand(1, generator=torch_generator("cpu", 0, "noise", 1)) for _ in range(2)]
    >>> bool(draws[0] == draws[1])
    True
    """
    import torch

    return torch.Generator(device=device).manual_seed(derive(seed, *path))


def numpy_generator(seed: int, *path: str | int) -> np.random.Generator:
    """Return a new NumPy generator for one purpose.

    >>> a, b = (numpy_generator(0, "order", 1).permutation(5) for _ in range(2))
    >>> bool((a == b).all())
    True
    """
    return np.random.Generator(np.random.PCG64(derive(seed, *path)))


PIECE = 2**17  # pixels that are binarised together; their draws fit into the nearest cache


def binarised(
    levels: np.ndarray, seed: int, *path: str | int, out: np.ndarray | None = None
) -> np.ndarray:
    """Draw zeros and ones that are 1 with probability v / 255 exactly, for 8-bit levels v.

    A pixel is 1 if an integer uniform on 0..254 is below v. Each 64-bit draw gives eight bytes. A
    byte of 255 is rejected and drawn again, so the distribution is exact. The raw bits of PCG64 are
    the same in all NumPy versions, so a binarisation keeps its hash.

    Args:
        levels: uint8 of any shape, contiguous.
        seed, path: seed and purpose of the draws.
        out: contiguous uint8 array for the result; a new array by default.

    Returns:
        Array of uint8 in the shape of `levels`.

    >>> binarised(np.array([0, 255], np.uint8), 0, "binarise").tolist()
    [0, 1]
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


WINDOW = 50  # batches within which rows are sorted by size


class Order:
    """Yield the row indices of each step: per-epoch permutations, concatenated and sliced into
    equal batches.

    Step s has positions s * batch to (s + 1) * batch of the concatenated permutations. Every datum
    is used once in an epoch, no batch is short, and the rows of a step depend on (seed, step) only.

    If rows differ in size, rows of similar size share a batch: within windows of WINDOW batches,
    rows are sorted by size (a stable sort) and sliced into batches, and the batches are permuted.

    Args:
        rows: number of rows.
        batch: rows of a step.
        seed: seed of the order.
        sizes: size of each row, (rows,), if they differ.

    >>> order = Order(rows=4, batch=2, seed=0)
    >>> sorted([*order(0).tolist(), *order(1).tolist()])
    [0, 1, 2, 3]
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
        """Sort rows by size within windows; the first `first` rows belong to the last batch of the
        previous epoch."""
        parts = [drawn[:first]]
        for start in range(first, len(drawn), WINDOW * self.batch):
            window = drawn[start : start + WINDOW * self.batch]
            window = window[np.argsort(sizes[window], kind="stable")]
            whole = len(window) // self.batch * self.batch
            batches = window[:whole].reshape(-1, self.batch)
            # The rows that do not fill a batch come last; the next epoch completes the batch.
            parts += [batches[rng.permutation(len(batches))].ravel(), window[whole:]]
        return np.concatenate(parts)

    def __call__(self, step: int) -> np.ndarray:
        """Return the row indices of a step, (batch,)."""
        start, parts, left = step * self.batch, [], self.batch
        while left:
            epoch, place = divmod(start, self.rows)
            part = self._permutation(epoch)[place : place + left]
            parts.append(part)
            start, left = start + len(part), left - len(part)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


class Window(NamedTuple):
    """Hold the rows of one shuffle buffer.

    Args:
        key: epoch, and number of the window in it.
        start: position of its first row in the concatenated epochs.
        rows: row indices in the order of training.

    >>> Window((0, 0), 0, np.arange(3)).key
    (0, 0)
    """

    key: tuple[int, int]
    start: int
    rows: np.ndarray


class Windows:
    """Yield the row indices of each step in an order that needs few blocks of rows at a time.

    In each epoch the blocks are permuted and joined into windows of at least `buffer` rows, and the
    rows of a window are permuted. A window is a shuffle buffer that depends on (seed, step) only.

    Args:
        sizes: rows of each block, (blocks,). Row indices count through the blocks in their order.
        buffer: rows of a window.
        batch: rows of a step.
        seed: seed of the order.

    >>> windows = Windows(np.array([2, 2]), buffer=2, batch=2, seed=0)
    >>> sorted([*windows(0).tolist(), *windows(1).tolist()])
    [0, 1, 2, 3]
    """

    def __init__(self, sizes: np.ndarray, buffer: int, batch: int, seed: int) -> None:
        self.sizes, self.buffer, self.batch, self.seed = sizes, buffer, batch, seed
        self.rows = int(sizes.sum())
        self._starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        self._epochs: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        self._windows: dict[tuple[int, int], Window] = {}

    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the permuted blocks of an epoch, the indices of those that begin windows, and the
        positions of these in the epoch."""
        if epoch not in self._epochs:
            self._epochs = {e: blocks for e, blocks in self._epochs.items() if e == epoch - 1}
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
            last = first[number + 1] if number + 1 < len(first) else None
            members = blocks[first[number] : last]
            rows = np.concatenate(
                [np.arange(self._starts[b], self._starts[b] + self.sizes[b]) for b in members]
            )
            drawn = numpy_generator(self.seed, "rows", epoch, number).permutation(rows)
            self._windows[key] = Window(key, epoch * self.rows + int(places[number]), drawn)
        return self._windows[key]

    def over(self, start: int, stop: int) -> list[Window]:
        """Return the windows that contain positions start to stop of the concatenated epochs."""
        windows: list[Window] = []
        while start < stop:
            epoch, place = divmod(start, self.rows)
            number = int(np.searchsorted(self._epoch(epoch)[2], place, "right")) - 1
            windows.append(self._window(epoch, number))
            start = windows[-1].start + len(windows[-1].rows)
        return windows

    def __call__(self, step: int) -> np.ndarray:
        """Return the row indices of a step, (batch,)."""
        start, stop = step * self.batch, (step + 1) * self.batch
        parts = [w.rows[max(0, start - w.start) : stop - w.start] for w in self.over(start, stop)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)
