"""Find data that stand in two splits: what is held out must not have been trained on.

Rows are compared by the signs of random projections (Charikar 2002): rows that are nearly equal share most signs, so that
candidates are found by sorting and only those are compared number by number.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from vaestro.data.sets import Rows
from vaestro.randomness import numpy_generator
from vaestro.spaces import Kind

MOST = 100_000  # rows of a split that are looked at
CELLS = 4096  # cells of a row that are looked at
PIECE = 1024  # rows that are held at once
TABLES, BITS = 8, 20
NEAR = 0.02  # of the mean squared distance between two rows


def between(rows: Mapping[str, Rows], trusted: bool) -> list[str]:
    """Say how many held-out rows equal a training row, or nearly do; `trusted` data are not looked at.

    Tables are looked at for exact equality of rows with a real column, since few categories coincide by chance.
    """
    table = rows["train"].space.kind is Kind.TABLE
    if trusted or (not rows["train"].space.count(Kind.REAL) if table else rows["train"].space.cells < 16):
        return []
    train = rows["train"].spread(MOST)
    sample = _vectors(train.spread(PIECE))
    # The mean squared distance between two rows is twice the variance.
    centre, limit = sample.mean(0), (0.0 if table else NEAR) * 2 * float(sample.var(0).sum())
    planes = numpy_generator(0, "duplicates").normal(size=(sample.shape[1], TABLES * BITS)).astype(np.float32)
    known = _signs(train, centre, planes)
    notes = []
    for name in ("valid", "test"):
        held = rows.get(name)
        if held is None or not len(held):
            continue
        held = held.spread(MOST)
        found = int(_found(held, _signs(held, centre, planes), train, known, limit).sum())
        if found:
            how = "equals or nearly equals" if limit else "equals"
            notes.append(f"{found:,} of {len(held):,} {name} rows each {how} a training row: bounds on them are too good")
    return notes


def _vectors(rows: Rows) -> np.ndarray:
    """Return rows as vectors of at most CELLS cells, (N, cells), float32."""
    values = rows._values(slice(None)).reshape(len(rows), -1)
    step = -(-values.shape[1] // CELLS)
    return np.asarray(values[:, ::step], np.float32)


def _signs(rows: Rows, centre: np.ndarray, planes: np.ndarray) -> np.ndarray:
    """Return TABLES numbers of BITS signs for each row, (N, TABLES)."""
    weights, out = 1 << np.arange(BITS, dtype=np.int64), np.empty((len(rows), TABLES), np.int64)
    for start in range(0, len(rows), PIECE):
        x = _vectors(rows.pick(slice(start, start + PIECE))) - centre
        out[start : start + PIECE] = (x @ planes > 0).reshape(-1, TABLES, BITS) @ weights
    return out


def _found(mine: Rows, my_signs: np.ndarray, known: Rows, signs: np.ndarray, limit: float) -> np.ndarray:
    """Tell which rows have a twin, (N,)."""
    found = np.zeros(len(mine), bool)
    for t in range(TABLES):
        order = np.argsort(signs[:, t], kind="stable")
        first = np.searchsorted(signs[order, t], my_signs[:, t])
        for step in range(4):  # the first few of a bucket: a true twin is found in one of the tables
            candidate = order[np.minimum(first + step, len(order) - 1)]
            same = np.flatnonzero((signs[candidate, t] == my_signs[:, t]) & ~found)
            for start in range(0, len(same), PIECE):
                part = same[start : start + PIECE]
                apart = ((_vectors(mine.pick(part)) - _vectors(known.pick(candidate[part]))) ** 2).sum(1)
                found[part[apart <= limit]] = True
    return found
