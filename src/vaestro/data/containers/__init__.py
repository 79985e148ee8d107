"""THE table of containers: arrays, tables, texts, sparse counts and streams."""

from __future__ import annotations

from collections.abc import Mapping

from vaestro.data.containers.arrays import Arrays
from vaestro.data.containers.base import Container, Inference, Laid
from vaestro.data.containers.counts import Counts
from vaestro.data.containers.streams import Streams
from vaestro.data.containers.tables import Tables
from vaestro.data.containers.texts import TextRows
from vaestro.data.passes import Part, W

__all__ = ["CONTAINERS", "Container", "Inference", "Laid", "container_of", "own_values"]

CONTAINERS: tuple[Container, ...] = (Arrays(), Tables(), TextRows(), Counts(), Streams())


def container_of(whole: W) -> Container[W]:
    """Return what handles data of a type.

    Raises:
        ValueError: no container has this type.

    >>> import numpy as np
    >>> container_of(np.zeros((3, 2))).name
    'arrays'
    """
    for container in CONTAINERS:
        if isinstance(whole, container.type):
            return container
    raise ValueError(
        f"expected {', '.join(c.type.__name__ for c in CONTAINERS)}; got {type(whole).__name__}"
    )


def own_values(parts: Mapping[str, Part[W]]) -> W:
    """Return the rows of several parts one below the other, as they were read: an array (N,
    *outside) or a Frame.

    >>> import numpy as np
    >>> x = np.arange(4)
    >>> own_values({"train": Part(x, np.array([0, 2])), "test": Part(x, np.array([3]))})
    array([0, 2, 3])
    """
    container = container_of(next(iter(parts.values())).whole)
    pieces = [container.rows(part) for part in parts.values()]
    return pieces[0] if len(pieces) == 1 else container.join(pieces)
