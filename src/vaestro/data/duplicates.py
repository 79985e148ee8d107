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
TABLES, BITS = 8, 20
NEAR = 0.02  # of the mean squared distance between two rows


def between(rows: Mapping[str, Rows], trusted: bool) -> list[str]:
    """Say how many held-out rows equal a training row, or nearly do; `trusted` data are not looked at.

    Tables are looked at for exact equality of rows with a real column, since few categories coincide by chance.
    """
    train = rows["train"]
    if trusted or (train.space.kind is Kind.TABLE and not train.space.count(Kind.REAL)):
        return []
    if train.space.kind is not Kind.TABLE and train.space.cells < 16:
        return []
    known = _vectors(train)
    centre = known.mean(0)
    # The mean squared distance between two rows is twice the variance.
    limit = (0.0 if train.space.kind is Kind.TABLE else NEAR) * 2 * float(known.var(0).sum())
    planes = numpy_generator(0, "duplicates").normal(size=(known.shape[1], TABLES * BITS)).astype(np.float32)
    signs = _signs(known - centre, planes)
    notes = []
    for name in ("valid", "test"):
        held = rows.get(name)
        if held is None or not len(held):
            continue
        mine = _vectors(held)
        found = _found(mine, _signs(mine - centre, planes), known, signs, limit)
        if found.any():
            how = "equals" if not limit else "equals or nearly equals"
            notes.append(f"{int(found.sum()):,} of {len(mine):,} {name} rows each {how} a training row: bounds on them are too good")
    return notes


def _vectors(rows: Rows) -> np.ndarray:
    chosen = rows.spread(MOST)
    return np.asarray(chosen._values(slice(None)).reshape(len(chosen), -1), np.float32)


def _signs(x: np.ndarray, planes: np.ndarray) -> np.ndarray:
    """Return TABLES numbers of BITS signs for each row."""
    bits = (x @ planes > 0).reshape(len(x), TABLES, BITS)
    return bits @ (1 << np.arange(BITS, dtype=np.int64))


def _found(mine: np.ndarray, my_signs: np.ndarray, known: np.ndarray, signs: np.ndarray, limit: float) -> np.ndarray:
    found = np.zeros(len(mine), bool)
    for t in range(TABLES):
        order = np.argsort(signs[:, t], kind="stable")
        first = np.searchsorted(signs[order, t], my_signs[:, t])
        for step in range(4):  # the first few of a bucket: a true twin is found in one of the tables
            at = np.minimum(first + step, len(order) - 1)
            candidate = order[at]
            same = (signs[candidate, t] == my_signs[:, t]) & ~found
            if same.any():
                apart = ((mine[same] - known[candidate[same]]) ** 2).sum(1)
                found[np.flatnonzero(same)[apart <= limit]] = True
    return found
