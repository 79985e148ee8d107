"""Find data that stand in two splits: what is held out must not have been trained on.

Rows are compared by the signs of random projections (Charikar 2002): rows that are nearly equal share most signs, so that
candidates are found by sorting. Of these the ones whose projections lie close are compared number by number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np

from vaestro.data.passes import Part, Picked, distinct, once
from vaestro.data.sets import Rows
from vaestro.randomness import numpy_generator
from vaestro.spaces import Kind, Space
from vaestro.tokens import Ragged

MOST = 100_000  # rows of a split that are looked at
CELLS = 4096  # cells of a row that are looked at
GROUP = 1024  # rows that are held at once
TABLES, BITS = 8, 20
NEAR = 0.02  # of the mean squared distance between two rows
SKETCH = 32  # projections that are kept of a row
SURE = 6.0  # times their mean: the chance that the sketches of twins lie further apart is below 1e-21


def between(rows: Mapping[str, Rows], trusted: bool) -> list[str]:
    """Say how many held-out rows equal a training row, or nearly do; `trusted` data are not looked at."""
    train = rows["train"]
    parts = {name: Part(r.values, r.index) for name, r in rows.items()}
    twins = Twins.among(parts, train.space, trusted, lambda name, values: rows[name].turned(values))
    if twins is None:
        return []
    once(distinct(parts.values()), *(p.look for p in twins.picks))
    return twins.notes()


def of_texts(splits: Mapping[str, tuple[Ragged, np.ndarray | None]]) -> list[str]:
    """Say how many held-out texts equal a training text, from the codes of each split and which of their rows it has."""
    hashed = {name: [hash(line) for line in _lines(*held)] for name, held in splits.items()}
    known, notes = set(hashed["train"]), []
    for name in ("valid", "test"):
        found = sum(line in known for line in hashed[name])
        if found:
            notes.append(f"{found:,} of {len(hashed[name]):,} {name} texts each equal a training text: bounds on them are too good")
    return notes


def _lines(codes: Ragged, index: np.ndarray | None) -> Iterator[bytes]:
    for row in range(len(codes)) if index is None else index:
        yield codes.codes[codes.starts[row] : codes.starts[row + 1]].tobytes()


class Twins:
    """Find held-out rows that equal a training row, or nearly do, from what `once` shows to its `picks`.

    Args:
        parts: the splits.
        inside: turns rows of a split's array into codes or values, (N, *X).
        near: up to which part of the mean squared distance between two rows they are twins.
    """

    def __init__(self, parts: Mapping[str, Part], inside: Callable[[str, np.ndarray], np.ndarray], near: float) -> None:
        self._inside = inside
        self._parts = {name: part.spread(MOST) for name, part in parts.items() if len(part)}
        train = self._parts["train"].spread(GROUP)
        sample = self._read("train", train, np.arange(len(train)))
        # The mean squared distance between two rows is twice the variance.
        self._centre, self._limit = sample.mean(0), near * 2 * float(sample.var(0).sum())
        self._planes = numpy_generator(0, "duplicates").normal(size=(sample.shape[1], TABLES * BITS)).astype(np.float32)
        self._signs: dict[str, list[np.ndarray]] = {name: [] for name in self._parts}
        self._sketches: dict[str, list[np.ndarray]] = {name: [] for name in self._parts}
        self.picks = [Picked(part, GROUP, partial(self._look, name), partial(self._vectors, name)) for name, part in self._parts.items()]

    @classmethod
    def among(cls, parts: Mapping[str, Part], space: Space, trusted: bool, inside: Callable[[str, np.ndarray], np.ndarray]) -> Twins | None:
        """Return what finds them, or None where twins would mean nothing: in `trusted` data, and where few cells coincide by chance.

        Tables are looked at for exact equality of rows with a real column.
        """
        table = space.kind is Kind.TABLE
        if trusted or (not space.count(Kind.REAL) if table else space.cells < 16):
            return None
        return cls(parts, inside, 0.0 if table else NEAR)

    def notes(self) -> list[str]:
        """Say how many rows have a twin, once all rows were seen."""
        notes = []
        for name in ("valid", "test"):
            if name in self._parts:
                found, rows = int(self._found(name).sum()), len(self._parts[name])
                if found:
                    how = "equals or nearly equals" if self._limit else "equals"
                    notes.append(f"{found:,} of {rows:,} {name} rows each {how} a training row: bounds on them are too good")
        return notes

    def _vectors(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Return rows of a split as vectors of at most CELLS cells, (N, cells), float32."""
        values = self._inside(name, rows).reshape(len(rows), -1)
        return np.asarray(values[:, :: -(-values.shape[1] // CELLS)], np.float32)

    def _read(self, name: str, part: Part, rows: np.ndarray) -> np.ndarray:
        return np.concatenate([self._vectors(name, part.take(rows[start : start + 64])) for start in range(0, len(rows), 64)])

    def _look(self, name: str, vectors: np.ndarray) -> None:
        projected = (vectors - self._centre) @ self._planes
        bits = 1 << np.arange(BITS, dtype=np.int64)
        self._signs[name].append((projected > 0).reshape(-1, TABLES, BITS) @ bits)
        self._sketches[name].append(projected[:, :SKETCH].copy())

    def _found(self, name: str) -> np.ndarray:
        """Tell which rows of a split have a twin, (N,)."""
        mine, known = self._parts[name], self._parts["train"]
        my_signs, signs = (np.concatenate(self._signs[n]) for n in (name, "train"))
        my_sketch, sketch = (np.concatenate(self._sketches[n]) for n in (name, "train"))
        # Projections of equal rows that were made in groups of different sizes differ by rounding.
        close = SURE * SKETCH * self._limit + 1e-6 * (my_sketch**2).sum(1)
        found = np.zeros(len(mine), bool)
        for t in range(TABLES):
            order = np.argsort(signs[:, t], kind="stable")
            first = np.searchsorted(signs[order, t], my_signs[:, t])
            for step in range(4):  # the first few of a bucket: a true twin is found in one of the tables
                candidate = order[np.minimum(first + step, len(order) - 1)]
                same = np.flatnonzero((signs[candidate, t] == my_signs[:, t]) & ~found)
                same = same[((my_sketch[same] - sketch[candidate[same]]) ** 2).sum(1) <= close[same]]
                for start in range(0, len(same), GROUP):
                    part = same[start : start + GROUP]
                    apart = ((self._read(name, mine, part) - self._read("train", known, candidate[part])) ** 2).sum(1)
                    found[part[apart <= self._limit]] = True
        return found
