"""Read arrays once, in order, some megabytes at a time, and hand their rows to all that want
them."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol, TypeVar, final

import numpy as np

PIECE = 2**24  # bytes that are looked at together
# bytes of a file that are asked for at once: of more than that, Linux reads but a part
AHEAD = 2**17
Look = Callable[[Any, int, np.ndarray], Any]  # (array, first row, some rows in order)


class Whole(Protocol):
    """Describe all rows of a split: an array, a table, texts, sparse counts or a stream."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Any: ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (rows, ...)."""


W = TypeVar("W", bound=Whole)


@final
@dataclass(frozen=True, eq=False)
class Part(Generic[W]):
    """Hold some rows of an array or table, such as one split: their numbers in order, or None for
    all.

    Args:
        whole: the array or table.
        index: which rows.
        attributes: what else is known of each row, by name.
        given: codes of the conditions of each row.
    """

    whole: W
    index: np.ndarray | None = None
    attributes: dict[str, np.ndarray] = field(default_factory=dict)
    given: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.whole) if self.index is None else len(self.index)

    def spread(self, n: int) -> Part:
        """Return n rows at equal distances, or all if there are fewer, without what is known of
        them."""
        if n >= len(self):
            return replace(self, attributes={}, given=None)
        at = np.linspace(0, len(self) - 1, n).astype(np.int64)
        return Part(self.whole, at if self.index is None else self.index[at])

    def chosen(self, index: np.ndarray) -> Part[W]:
        """Return some rows of a part that has all of them, with their attributes."""
        return Part(self.whole, index, {k: v[index] for k, v in self.attributes.items()})

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return rows of an array by their places in the part."""
        at = rows if self.index is None else self.index[rows]
        expect(self.whole, at)
        return np.asarray(self.whole[at])


def distinct(parts: Iterable[Part]) -> list[Any]:
    """Return the arrays or tables that parts are rows of, each once."""
    return list({id(p.whole): p.whole for p in parts if len(p)}.values())


def pieces(array: np.ndarray, rows: int | None = None) -> Iterator[slice]:
    """Yield the slices that cut an array, or so many rows like its own, into pieces of some
    megabytes."""
    rows, size = len(array) if rows is None else rows, piece(array)
    for start in range(0, max(1, rows), size):
        yield slice(start, min(rows, start + size))


def piece(array: np.ndarray) -> int:
    """Return how many rows of an array are looked at together."""
    return max(1, PIECE // max(1, array[:1].nbytes))


def once(arrays: Iterable[np.ndarray], *looks: Look) -> None:
    """Read arrays from the first row to the last, and show each piece to all of `looks`."""
    for array in arrays:
        for part in pieces(array):
            _read_ahead(array, part.stop, part.stop + part.stop - part.start)
            for look in looks:
                look(array, part.start, array[part])


class Picked:
    """Pick the rows of a part out of what `once` reads, and hand them on in groups of one size, of
    which the last may be smaller.

    Args:
        part: which rows.
        size: of a group. What is summed in floats depends on it, and not on how the array was cut.
        take: called with each group, which it may keep until the next.
        made: what is kept of rows until there are enough for a group; all of them by default.
    """

    def __init__(
        self,
        part: Part,
        size: int,
        take: Callable[[np.ndarray], Any],
        made: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        self.part, self.size, self._take, self._made = part, size, take, made
        self._group: np.ndarray | None = None

    def look(self, array: Any, start: int, rows: np.ndarray) -> None:
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
        made = rows if self._made is None else self._made(rows[chosen])
        if self._group is None:
            self._group = np.empty((min(self.size, len(self.part)), *made.shape[1:]), made.dtype)
        group = self._group[at : at + len(chosen)]
        if self._made is None:
            np.take(rows, chosen, 0, group, "clip")  # without clip it would go through a copy
        else:
            group[:] = made


# -- files -----------------------------------------------------------------------------------------


def place(array: Any) -> tuple[str, int] | None:
    """Return the file that an array is mapped from, and where in it the array begins; None where it
    lies in memory."""
    mapped, first = _mapped(array)
    if mapped is None or not isinstance(array, np.memmap) or array.filename is None:
        return None
    # A slice of a memory map keeps the offset of the whole.
    return str(array.filename), first + array.offset - array.offset % mmap.ALLOCATIONGRANULARITY


def location(array: np.ndarray) -> list[Any]:
    """Return the file that an array is mapped from, and how it lies there: what changes with it."""
    return [place(array), array.shape, array.strides, array.dtype.str]


def expect(array: Whole, rows: np.ndarray) -> None:
    """Have the disk read rows of a memory map all at once: touched one by one, each is waited for,
    with needless pages around it."""
    mapped, start = _mapped(array)
    if mapped is not None and isinstance(array, np.ndarray) and array.flags.c_contiguous:
        size = array[:1].nbytes
        for row in rows.ravel().tolist():
            _ask(mapped, start + row % len(array) * size, size)


def _read_ahead(array: np.ndarray, first: int, last: int) -> None:
    """Have the disk read the next rows of a memory map while those before them are worked on."""
    mapped, start = _mapped(array)
    if mapped is not None and array.flags.c_contiguous:
        size = array[:1].nbytes
        for at in range(start + first * size, start + min(last, len(array)) * size, AHEAD):
            _ask(mapped, at, AHEAD)


def _mapped(array: Any) -> tuple[mmap.mmap | None, int]:
    """Return the memory map that an array lies in, and where in it; None where there is none."""
    base = array
    while isinstance(base, np.ndarray):
        base = base.base
    if not isinstance(base, mmap.mmap):
        return None, 0
    return base, array.__array_interface__["data"][0] - np.frombuffer(
        base, np.uint8
    ).__array_interface__["data"][0]


def _ask(mapped: mmap.mmap, first: int, size: int) -> None:
    advice = getattr(mmap, "MADV_WILLNEED", None)  # absent on Windows
    if advice is not None:
        page = first - first % mmap.PAGESIZE
        mapped.madvise(advice, page, min(first + size, len(mapped)) - page)
