"""Layouts: how the cells of one datum are arranged, in the user's array and inside.

A layout decides where channels are, on which axis the mask of observed cells is concatenated, which
network is the default, and what a datum is shown as. To add a layout, write one class and one row
of `LAYOUTS`. A class with `declared` has an option of a source of its name, such as series=true.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, final

import numpy as np

Shape = tuple[int, ...]


class Layout(ABC):
    """Describe how the cells of a datum are arranged.

    `name` is stored in config.json. `noun` names several data in messages.
    """

    name: ClassVar[str]
    noun: ClassVar[str] = "data"
    # axis of (B, *X) on which an encoder's mask is concatenated
    mask_axis: ClassVar[int] = 1
    # axis of X with the channels; None if there are none
    channel_axis: ClassVar[int | None] = None
    # whether the channels of one place, such as the colours of a pixel, can depend on each other
    pixels: ClassVar[bool] = False
    # how real values are standardised by default: feature, channel or global
    standardise: ClassVar[str] = "global"
    # If an option of the same name declares the layout of an array: its shapes, in words, and the
    # numbers of axes of one datum.
    declared: ClassVar[str] = ""
    ranks: ClassVar[tuple[int, ...]] = ()
    # what a picture shows of a datum, if that is a part; see `pictures`
    part_shown: ClassVar[str] = ""

    @abstractmethod
    def inside(self, outside: Shape) -> Shape:
        """Return the shape inside, *X, of a datum of the user's shape."""

    def network(self, shape: Shape, least: int) -> str:
        """Return the default network for data of a shape inside; images have convolutions if their
        sides are at least `least`."""
        return "residual"

    def picture(self, shape: Shape) -> bool:
        """Return whether a datum of this shape inside can be shown as one picture."""
        return False

    def pictures(self, values: np.ndarray, outside: Shape) -> np.ndarray:
        """Return data (N, *outside) as pictures (N, H, W, C).

        Raises:
            ValueError: data of this layout cannot be shown as pictures.
        """
        raise ValueError(f"expected images; got {self.noun} of shape {outside}")

    def folder_options(self, shape: Shape, dtype: str) -> dict[str, str | int | bool]:
        """Return the options with which a folder of images is read as data of a shape inside and of
        the user's dtype; none if it cannot be."""
        return {}

    def channels_last(self, outside: Shape) -> bool:
        """Return whether the user's arrays have the channels on the last axis and not the first."""
        return False

    def inward(self, values: np.ndarray, shape: Shape, outside: Shape) -> np.ndarray:
        """Return an array (..., *outside) as (..., *shape)."""
        return values.reshape(*values.shape[: values.ndim - len(outside)], *shape)

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
    standardise = "feature"

    def inside(self, outside: Shape) -> Shape:
        return outside or (1,)


class _Pixels(Layout):
    """Cells on a grid of `axes` dimensions: (*sides) or (*sides, C) outside, (C, *sides) inside."""

    axes: ClassVar[int]
    channel_axis = 0
    pixels = True

    def inside(self, outside: Shape) -> Shape:
        channels = outside[self.axes] if self.channels_last(outside) else 1
        return (channels, *outside[: self.axes])

    def picture(self, shape: Shape) -> bool:
        return shape[0] in (1, 3, 4)

    def pictures(self, values: np.ndarray, outside: Shape) -> np.ndarray:
        return values if self.channels_last(outside) else values[..., None]

    def channels_last(self, outside: Shape) -> bool:
        return len(outside) > self.axes

    def inward(self, values: np.ndarray, shape: Shape, outside: Shape) -> np.ndarray:
        if self.channels_last(outside):
            values = np.moveaxis(values, -1, -1 - self.axes)
        return values.reshape(*values.shape[: values.ndim - len(outside)], *shape)

    def outward(self, x: np.ndarray, shape: Shape, outside: Shape) -> np.ndarray:
        x = x.reshape(*x.shape[: x.ndim - len(shape)], *shape)
        x = np.moveaxis(x, -1 - self.axes, -1) if self.channels_last(outside) else x
        return x.reshape(*x.shape[: x.ndim - len(shape)], *outside)


@final
class Image(_Pixels):
    """Images: (H, W) or (H, W, C) outside, (C, H, W) inside.

    >>> Image().inside((28, 28)), Image().inside((32, 30, 3))
    ((1, 28, 28), (3, 32, 30))
    """

    name = "image"
    noun = "images"
    axes = 2

    def network(self, shape: Shape, least: int) -> str:
        return "conv" if min(shape[1:]) >= least else "residual"

    def folder_options(self, shape: Shape, dtype: str) -> dict[str, str | int | bool]:
        channels, height, width = shape
        depth = {"uint8": 8, "uint16": 16}.get(dtype)
        colours = {1: "grey", 3: "colour", 4: "rgba" if depth else None}.get(channels)
        options = {"size": f"{height}x{width}", "channels": colours, "depth": depth}
        return {name: value for name, value in options.items() if value is not None}


@final
class Volume(_Pixels):
    """Volumes, such as scans: (D, H, W) or (D, H, W, C) outside, (C, D, H, W) inside.

    A picture shows the middle slice along the depth axis.

    >>> Volume().inside((16, 32, 32))
    (1, 16, 32, 32)
    """

    name = "volume"
    noun = "volumes"
    axes = 3
    declared, ranks = "(N, D, H, W) or (N, D, H, W, C)", (3, 4)
    part_shown = "the middle slice along the depth axis"

    def network(self, shape: Shape, least: int) -> str:
        return "conv3d"

    def folder_options(self, shape: Shape, dtype: str) -> dict[str, str | int | bool]:
        return {"volume": True, **LAYOUTS["image"].folder_options((shape[0], *shape[2:]), dtype)}

    def pictures(self, values: np.ndarray, outside: Shape) -> np.ndarray:
        return super().pictures(values[:, outside[0] // 2], outside)


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
    standardise = "channel"
    declared, ranks = "(N, T) or (N, T, C)", (1, 2)

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
    layout.name: layout
    for layout in (Vector(), Image(), Volume(), Series(), Cells(), Text(), Columns())
}


DECLARED = tuple(layout.name for layout in LAYOUTS.values() if layout.declared)


def layout_of_array(outside: Shape, options: Mapping[str, object], name: str) -> Layout:
    """Return the layout of an array: the one that an option declares, such as series=true; by
    default an image for (H, W) and (H, W, C).

    Args:
        outside: shape of one datum in the user's array.
        options: of the source.
        name: of the source, for messages.

    Raises:
        ValueError: data of the declared layout have another number of axes, or several layouts are
            declared.

    >>> layout_of_array((28, 28), {}, "x.npy").name
    'image'
    """
    asked = [LAYOUTS[option] for option in DECLARED if options.get(option, False)]
    if not asked:
        usual = {0: "vector", 1: "vector", 2: "image", 3: "image"}
        return LAYOUTS[usual.get(len(outside), "cells")]
    if len(asked) > 1:
        got = " and ".join(f"{layout.name}=true" for layout in asked)
        raise ValueError(f"expected one of these options; got {got} for {name}")
    if len(outside) not in asked[0].ranks:
        shape = ", ".join(map(str, ("N", *outside)))
        raise ValueError(
            f"expected {asked[0].noun} as an array {asked[0].declared}; got ({shape}) in {name}"
        )
    return asked[0]


def stored_layout(shape: Shape) -> Layout:
    """Return the layout of a shape inside by the rule of runs whose config.json has no layout.

    >>> stored_layout((100, 1)).name
    'series'
    """
    return LAYOUTS[{1: "vector", 2: "series", 3: "image"}.get(len(shape), "cells")]
