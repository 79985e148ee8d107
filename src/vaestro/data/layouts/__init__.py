"""THE table of layouts: arrays, tables, texts, sparse counts and streams."""

from __future__ import annotations

from collections.abc import Mapping

from vaestro.data.layouts.arrays import Arrays
from vaestro.data.layouts.base import Inference, Laid, Layout
from vaestro.data.layouts.counts import Counts
from vaestro.data.layouts.streams import Streams
from vaestro.data.layouts.tables import Tables
from vaestro.data.layouts.texts import TextRows
from vaestro.data.passes import Part, W

__all__ = ["LAYOUTS", "Inference", "Laid", "Layout", "layout_of", "own_values"]

LAYOUTS: tuple[Layout, ...] = (Arrays(), Tables(), TextRows(), Counts(), Streams())


def layout_of(whole: W) -> Layout[W]:
    """Return what handles data of a type.

    Raises:
        ValueError: no layout has this type.

    >>> import numpy as np
    >>> layout_of(np.zeros((3, 2))).name
    'arrays'
    """
    for layout in LAYOUTS:
        if isinstance(whole, layout.type):
            return layout
    raise ValueError(
        f"expected {', '.join(layout.name for layout in LAYOUTS)}; got {type(whole).__name__}"
    )


def own_values(parts: Mapping[str, Part[W]]) -> W:
    """Return the rows of several parts one below the other, as they were read: an array (N,
    *outside) or a Frame.

    >>> import numpy as np
    >>> x = np.arange(4)
    >>> own_values({"train": Part(x, np.array([0, 2])), "test": Part(x, np.array([3]))})
    array([0, 2, 3])
    """
    layout = layout_of(next(iter(parts.values())).whole)
    pieces = [layout.rows(part) for part in parts.values()]
    return pieces[0] if len(pieces) == 1 else layout.join(pieces)
