"""Which rows an evaluation visits, and in which order: a random draw by the seed, so that any first
n of them are a random n."""

from __future__ import annotations

import numpy as np

from vaestro.data import Rows
from vaestro.data.sets import HELD_BYTES
from vaestro.randomness import numpy_generator


def drawn(rows: Rows, n: int, seed: int) -> tuple[Rows, np.ndarray]:
    """Draw n of the rows at random by the seed, without replacement.

    Which rows are drawn depends on (seed, number of rows) alone, so that two models evaluated with
    one seed are evaluated on the same rows, and a smaller n is the beginning of a larger one. Rows
    of a stream come from few blocks, because each block that is touched is read; those that fit are
    held in memory, and the others are visited in file order.

    Args:
        rows: with one binarisation for good.
        n: how many, at most all.
        seed: of the draw.

    Returns:
        the drawn rows in random order, and their places among all rows in that order, (n,).
    """
    generator = numpy_generator(seed, "evaluated rows")
    if rows.stream is None:
        order = generator.permutation(len(rows))[:n]
        return rows.pick(order), order
    order = generator.permutation(rows.stream.spread(n, rows.index))
    room = max(100, HELD_BYTES // rows.row_bytes)
    if n <= room:
        return rows.pick(order).in_memory(), order
    order = np.concatenate([order[:room], np.sort(order[room:])])
    return rows.pick(order), order
