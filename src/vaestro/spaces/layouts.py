"""Layouts: how the cells of one datum are arranged, in the user's array and inside.

A layout decides where channels are, on which axis the mask of observed cells is concatenated, which
network is the default, and what a datum is shown as. To add a layout, write one class and one row
of `LAYOUTS`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar, final

import numpy as np

Shape = tuple[int, ...]


class Layout(ABC):
    """Describe how the cells of a datum are arranged.

    `name` is stored in config.json. `noun` names several data in messages. `mask_axis` is the axis
    of (B, *X) on which an encoder's mask is concatenated. `channel_axis` is the axis of X with the
    channels; None if there are none.
    """

    name: ClassVar[str]
    noun: ClassVar[str] = "data"
    mask_axis: ClassVar[int] = 1
    channel_axis: ClassVar[int | None] = None

    @abstractmethod
    def inside(self, outside: Shape) -> Shape:
        """Return the shape inside, *X, of a datum of the user's shape."""

    def network(self, shape: Shape, least: int) -> str:
        """Name the default networks for data of a shape inside; images have convolutions from a
        side of `least`."""
        return "residual"

    def picture(self, shape: Shape) -> bool:
        """Return whether a datum of this shape inside can be shown as one picture."""
        return False

    def inward(self, values: np.ndarray, shape: Shape) -> np.ndarray:
        """Return an array (N, *outside) as (N, *shape)."""
        return values.reshape(len(values), *shape)

    def outward(self, x: np.ndarray, shape: Shape, outside: Shape) -> np.ndarray:
        """Return an array (..., *shape) as (..., *outside)."""
        return x.reshape(*x.shape[: x.ndim - len(shape)], *outside)


@final
class Vector(Layout):
    """Cells without neighbours: (n,), or one number.

    >>> Vector().inside(())
    (1,)
    """

    name = "vector"

    def inside(self, outside: Shape) -> Shape:
        return outside or (1,)


@final
class Image(Layout):
    """Images: (H, W) or (H, W, C) outside, (C, H, W) inside.

    >>> Image().inside((28, 28)), Image().inside((32, 30, 3))
    ((1, 28, 28), (3, 32, 30))
    """

    name = "image"
    noun = "images"
    channel_axis = 0

    def inside(self, outside: Shape) -> Shape:
        return (1, *outside) if len(outside) == 2 else (outside[2], *outside[:2])

    def network(self, shape: Shape, least: int) -> str:
        return "conv" if min(shape[1:]) >= least else "residual"

    def picture(self, shape: Shape) -> bool:
        return shape[0] in (1, 3, 4)

    def inward(self, values: np.ndarray, shape: Shape) -> np.ndarray:
        values = np.moveaxis(values, -1, 1) if values.ndim == 4 else values
        return values.reshape(len(values), *shape)

    def outward(self, x: np.ndarray, shape: Shape, outside: Shape) -> np.ndarray:
        x = x.reshape(*x.shape[: x.ndim - 3], *shape)
        x = np.moveaxis(x, -3, -1) if len(outside) == 3 else x
        return x.reshape(*x.shape[:-3], *outside)


@final
class Series(Layout):
    """Numbers over time: (T,) or (T, C) outside, (T, C) inside.

    >>> Series().inside((100,))
    (100, 1)
    """

    name = "series"
    noun = "series"
    mask_axis = -1
    channel_axis = 1

    def inside(self, outside: Shape) -> Shape:
        return outside[0], math.prod(outside[1:])

    def network(self, shape: Shape, least: int) -> str:
        return "conv1d"


@final
class Cells(Layout):
    """An array of four or more axes, whose cells no network arranges.

    >>> Cells().inside((2, 3, 4, 5))
    (2, 3, 4, 5)
    """

    name = "cells"
    channel_axis = 0

    def inside(self, outside: Shape) -> Shape:
        return outside


@final
class Text(Layout):
    """Tokens in order: (width,) inside.

    >>> Text().network((20,), 28)
    'gru'
    """

    name = "text"
    noun = "texts"

    def inside(self, outside: Shape) -> Shape:
        return outside

    def network(self, shape: Shape, least: int) -> str:
        return "gru"


@final
class Columns(Layout):
    """The columns of a table: (columns,) inside and outside.

    >>> Columns().inside((3,))
    (3,)
    """

    name = "table"

    def inside(self, outside: Shape) -> Shape:
        return outside


LAYOUTS: dict[str, Layout] = {
    layout.name: layout for layout in (Vector(), Image(), Series(), Cells(), Text(), Columns())
}


def layout_of_array(outside: Shape) -> Layout:
    """Return the layout of an array whose options say none: an image for (H, W) and (H, W, C).

    >>> layout_of_array((28, 28)).name
    'image'
    """
    return LAYOUTS[{0: "vector", 1: "vector", 2: "image", 3: "image"}.get(len(outside), "cells")]


def stored_layout(shape: Shape) -> Layout:
    """Return the layout of a shape inside by the rule of runs whose config.json has no layout.

    >>> stored_layout((100, 1)).name
    'series'
    """
    return LAYOUTS[{1: "vector", 2: "series", 3: "image"}.get(len(shape), "cells")]
