"""Single-pass chunked reader: each chunk of an array goes to every registered consumer."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol, TypeVar, final

import numpy as np

PIECE = 2**24  # size of a chunk in bytes
AHEAD = 2**17  # size of a readahead request in bytes; Linux truncates larger ones


class Whole(Protocol):
    """Interface of all rows of a source: an array, a table, texts, sparse counts or a stream."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: np.ndarray | slice, /) -> Any: ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (rows, ...)."""


W = TypeVar("W", bound=Whole)
# consumer of chunks: (array, number of the first row, the rows of the chunk)
Look = Callable[[W, int, np.ndarray], object]


@final
@dataclass(frozen=True, eq=False)
class Part(Generic[W]):
    """Hold some rows of an array or table, such as one split.

    Args:
        whole: the array or table.
        index: the row numbers in rising order, (N,); None for all rows.
        attributes: other values of each row, by name, each (N,).
        given: codes of the conditions of each row, (N, conditions); None without.

    >>> Part(np.arange(10), np.array([2, 3, 5])).take(np.array([0, 2]))
    array([2, 5])
    """

    whole: W
    index: np.ndarray | None = None
    attributes: dict[str, np.ndarray] = field(default_factory=dict)
    given: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.whole) if self.index is None else len(self.index)

    def spread(self, n: int) -> Part:
        """Return n equally spaced rows without attributes, or all rows if there are fewer."""
        if n >= len(self):
            return replace(self, attributes={}, given=None)
        at = np.linspace(0, len(self) - 1, n).astype(np.int64)
        return Part(self.whole, at if self.index is None else self.index[at])

    def chosen(self, index: np.ndarray) -> Part[W]:
        """Return rows by number, with their attributes, of a part that has all rows."""
        return Part(self.whole, index, {k: v[index] for k, v in self.attributes.items()})

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return rows of an array by their positions in the part."""
        at = rows if self.index is None else self.index[rows]
        expect(self.whole, at)
        return np.asarray(self.whole[at])


def distinct(parts: Iterable[Part[W]]) -> list[W]:
    """Return the distinct arrays or tables of the parts.

    >>> array = np.arange(10)
    >>> len(distinct([Part(array, np.arange(5)), Part(array, np.arange(5, 10))]))
    1
    """
    return list({id(p.whole): p.whole for p in parts if len(p)}.values())


def pieces(array: Whole, rows: int | None = None) -> Iterator[slice]:
    """Yield the slices of the chunks of an array, in order.

    Args:
        array: the size of its rows determines the chunks.
        rows: number of rows; by default that of the array.

    >>> list(pieces(np.zeros((3, 2**20))))
    [slice(0, 2, None), slice(2, 3, None)]
    """
    rows, size = len(array) if rows is None else rows, piece(array)
    for start in range(0, max(1, rows), size):
        yield slice(start, min(rows, start + size))


def piece(array: Whole) -> int:
    """Return the number of rows of a chunk of an array.

    >>> piece(np.zeros((3, 2**20)))
    2
    """
    return max(1, PIECE // max(1, array[:1].nbytes))


def once(arrays: Iterable[W], *looks: Look[W]) -> None:
    """Read arrays from the first row to the last, and pass each chunk to all consumers.

    >>> once([np.arange(4)], lambda array, first, rows: print(first, rows.sum()))
    0 6
    """
    for array in arrays:
        for part in pieces(array):
            _read_ahead(array, part.stop, part.stop + part.stop - part.start)
            for look in looks:
                look(array, part.start, array[part])


class RowSelector:
    """Select the rows of a part from the chunks of `once`, and group them into equal sizes.

    The last group may be smaller. So sums of floats depend on the size of the groups only, not on
    the chunks.

    Args:
        part: the rows.
        size: rows of a group.
        take: called with each group, which is overwritten by the next.
        transform: applied to rows before they are collected; by default none.

    >>> selector = RowSelector(Part(np.arange(6), np.array([0, 2, 4])), 2, print)
    >>> once([selector.part.whole], selector.look)
    [0 2]
    [4]
    """

    def __init__(
        self,
        part: Part,
        size: int,
        take: Callable[[np.ndarray], object],
        transform: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        self.part, self.size, self._take, self._transform = part, size, take, transform
        self._group: np.ndarray | None = None

    def look(self, array: Whole, start: int, rows: np.ndarray) -> None:
        """Process a chunk, which begins at row `start` of the array."""
        if array is not self.part.whole:
            return
        index = self.part.index
        first, last = (
            (start, start + len(rows))
            if index is None
            else np.searchsorted(index, (start, start + len(rows)))
        )
        while first < last:
            at = first % self.size
            end = min(last, first - at + self.size)
            chosen = np.arange(first, end) - start if index is None else index[first:end] - start
            self._keep(rows, chosen, at)
            if end % self.size == 0 or end == len(self.part):
                assert self._group is not None
                self._take(self._group[: at + len(chosen)])
            first = end

    def _keep(self, rows: np.ndarray, chosen: np.ndarray, at: int) -> None:
        values = rows if self._transform is None else self._transform(rows[chosen])
        if self._group is None:
            size = min(self.size, len(self.part))
            self._group = np.empty((size, *values.shape[1:]), values.dtype)
        group = self._group[at : at + len(chosen)]
        if self._transform is None:
            np.take(rows, chosen, 0, group, "clip")  # without clip, NumPy makes a copy first
        else:
            group[:] = values


# -- files -----------------------------------------------------------------------------------------


def place(array: object) -> tuple[str, int] | None:
    """Return the file of a memory-mapped array and the offset of the array in bytes; None for an
    array in memory.

    >>> place(np.zeros(3)) is None
    True
    """
    mapped, first = _memory_map(array)
    if mapped is None or not isinstance(array, np.memmap) or array.filename is None:
        return None
    # A slice of a memory map has the offset of the whole map.
    return str(array.filename), first + array.offset - array.offset % mmap.ALLOCATIONGRANULARITY


def location(array: np.ndarray) -> list[object]:
    """Return the file of a memory-mapped array, its offset, shape, strides and dtype.

    >>> location(np.zeros(3))
    [None, (3,), (8,), '<f8']
    """
    return [place(array), array.shape, array.strides, array.dtype.str]


def expect(array: Whole, rows: np.ndarray) -> None:
    """Request all pages of some rows of a memory map at once.

    Without it, each row is read on first use, one after the other, together with unused pages
    around it.
    """
    mapped, start = _memory_map(array)
    if mapped is not None and isinstance(array, np.ndarray) and array.flags.c_contiguous:
        size = array[:1].nbytes
        for row in rows.ravel().tolist():
            _ask(mapped, start + row % len(array) * size, size)


def _read_ahead(array: Whole, first: int, last: int) -> None:
    """Request the next rows of a memory map while those before them are processed."""
    mapped, start = _memory_map(array)
    if mapped is not None and isinstance(array, np.ndarray) and array.flags.c_contiguous:
        size = array[:1].nbytes
        for at in range(start + first * size, start + min(last, len(array)) * size, AHEAD):
            _ask(mapped, at, AHEAD)


def _memory_map(array: object) -> tuple[mmap.mmap | None, int]:
    """Return the memory map that contains an array, and the offset in it; None without one."""
    base = array
    while isinstance(base, np.ndarray):
        base = base.base
    if not isinstance(base, mmap.mmap) or not isinstance(array, np.ndarray):
        return None, 0
    return base, array.__array_interface__["data"][0] - np.frombuffer(
        base, np.uint8
    ).__array_interface__["data"][0]


def _ask(mapped: mmap.mmap, first: int, size: int) -> None:
    advice = getattr(mmap, "MADV_WILLNEED", None)  # absent on Windows
    if advice is not None:
        page = first - first % mmap.PAGESIZE
        mapped.madvise(advice, page, min(first + size, len(mapped)) - page)
