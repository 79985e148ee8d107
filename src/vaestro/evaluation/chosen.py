"""The rows of an evaluation, in random order, so that the first n rows are a random sample."""

from __future__ import annotations

import numpy as np

from vaestro.data import Rows
from vaestro.data.sets import HELD_BYTES
from vaestro.randomness import numpy_generator


def drawn(rows: Rows, n: int, seed: int) -> tuple[Rows, np.ndarray]:
    """Draw n of the rows at random, without replacement.

    The rows depend only on (seed, number of rows). Two models evaluated with the same seed are
    therefore evaluated on the same rows, and a smaller n gives the first rows of a larger n. Rows
    of a stream come from few blocks, because blocks are read as a whole. Rows that fit are kept in
    memory; the others are visited in file order.

    Args:
        rows: rows with a fixed binarisation.
        n: number of rows to draw, at most all.
        seed: seed of the draw.

    Returns:
        the rows in random order, and their places among all rows in that order, (n,).

    >>> import vaestro as vs
    >>> rows, places = drawn(vs.load(np.eye(40, dtype="uint8")).train, 5, seed=0)
    >>> len(rows), places.shape
    (5, (5,))
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
