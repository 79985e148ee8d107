"""Layouts: how the cells of one datum are arranged, in the user's array and inside.

A layout decides the order of the axes, on which of them the mask of observed cells is concatenated,
which network is the default, and what a datum is shown as. To add a layout, write one class and one
row of `LAYOUTS`. The option axes= of a source, such as axes=NCHW, names one letter for each axis of
an array, which selects the layout and the order of the axes. A class with `declared` also has an
option of its name, such as series=true.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, final

import numpy as np

from vaestro.text import alternatives

Shape = tuple[int, ...]
COLOURS = 4  # largest number of channels that are colours, with one unit
BANDS = 8  # largest number of channels that a picture shows side by side


@dataclass(frozen=True)
class Layout(ABC):
    """Describe how the cells of a datum are arranged.

    `name` is stored in config.json. `noun` names several data in messages.

    Args:
        axes: a letter for each axis of a datum in the user's array; by default those of `order`, as
            many as the array has.
    """

    axes: str = ""

    name: ClassVar[str]
    noun: ClassVar[str] = "data"
    # letters of the axes in the usual order of the user; an array may lack the last one
    order: ClassVar[str] = ""
    # letters of the axes inside; an axis that the user's array lacks has the size 1
    inner: ClassVar[str] = ""
    # axis of (B, *X) on which an encoder's mask is concatenated
    mask_axis: ClassVar[int] = 1
    # axis of X with the channels; None if there are none
    channel_axis: ClassVar[int | None] = None
    # whether the cells are on a grid, whose neighbours are alike
    grid: ClassVar[bool] = False
    # whether the one-hot code of a category is more channels, and not an axis of its own
    coded_channels: ClassVar[bool] = False
    # whether the channels of one place, such as the colours of a pixel, can depend on each other
    pixels: ClassVar[bool] = False
    # whether the description of a space contains the name
    described: ClassVar[bool] = False
    # If an option of the same name declares the layout of an array: its shapes, in words.
    declared: ClassVar[str] = ""
    # whether a datum may end before its last cells, which are then missing
    ends: ClassVar[bool] = False

    @abstractmethod
    def inside(self, outside: Shape) -> Shape:
        """Return the shape inside, *X, of a datum of the user's shape."""

    def network(self, shape: Shape, least: int) -> str:
        """Return the default network for data of a shape inside; images have convolutions if they
        have at least as many pixels as a square with sides of `least`."""
        return "residual"

    def standardise(self, shape: Shape) -> str:
        """Return how real values of a shape inside are standardised by default: feature, channel or
        global."""
        return "global"

    def learnable(self, observed: np.ndarray) -> np.ndarray:
        """Return which cells (*X) can be modelled, if some are observed in no training row."""
        return observed

    def picture(self, shape: Shape) -> bool:
        """Return whether a datum of this shape inside can be shown as one picture."""
        return False

    def part_shown(self, shape: Shape, *, alpha: bool = True) -> str:
        """Return what a picture shows of a datum of a shape inside, in words, if that is not the
        datum as it is; see `pictures`."""
        return ""

    def pictures(self, values: np.ndarray, outside: Shape, *, alpha: bool = True) -> np.ndarray:
        """Return data (N, *outside) as pictures (N, H, W, C).

        Args:
            values: the data.
            outside: shape of a datum in the user's array.
            alpha: whether the fourth of 4 channels is opacity.

        Raises:
            ValueError: data of this layout cannot be shown as pictures.
        """
        raise ValueError(f"expected images; got {self.noun} of shape {outside}")

    def folder_options(self, shape: Shape, dtype: str) -> dict[str, str | int | bool]:
        """Return the options with which a folder of images is read as data of a shape inside and of
        the user's dtype; none if it cannot be."""
        return {}

    def letters(self, outside: Shape) -> str:
        """Return a letter for each axis of a datum in the user's array."""
        return self.axes or self.order[: len(outside)]

    def reorders(self, outside: Shape) -> bool:
        """Return whether the axes have another order inside than in the user's array."""
        return False

    def inward(self, values: np.ndarray, shape: Shape, outside: Shape) -> np.ndarray:
        """Return an array (..., *outside) as (..., *shape)."""
        return values.reshape(*values.shape[: values.ndim - len(outside)], *shape)

    def outward(self, x: np.ndarray, shape: Shape, outside: Shape) -> np.ndarray:
        """Return an array (..., *shape) as (..., *outside)."""
        return x.reshape(*x.shape[: x.ndim - len(shape)], *outside)


class _Ordered(Layout):
    """A layout whose axes have letters."""

    def inside(self, outside: Shape) -> Shape:
        letters = self.letters(outside)
        return tuple(outside[letters.index(a)] if a in letters else 1 for a in self.inner)

    def _order(self, outside: Shape) -> list[int]:
        """Return the axes of a datum of the user's array, in their order inside."""
        letters = self.letters(outside)
        return [letters.index(a) for a in self.inner if a in letters]

    def reorders(self, outside: Shape) -> bool:
        order = self._order(outside)
        return order != sorted(order)

    def inward(self, values: np.ndarray, shape: Shape, outside: Shape) -> np.ndarray:
        rows = values.ndim - len(outside)
        turned = values.transpose(*range(rows), *(rows + at for at in self._order(outside)))
        return turned.reshape(*values.shape[:rows], *shape)

    def outward(self, x: np.ndarray, shape: Shape, outside: Shape) -> np.ndarray:
        order, rows = self._order(outside), x.ndim - len(shape)
        turned = x.reshape(*x.shape[:rows], *(outside[at] for at in order))
        back = turned.transpose(*range(rows), *(rows + at for at in np.argsort(order).tolist()))
        return back.reshape(*x.shape[:rows], *outside)


@final
class Vector(Layout):
    """Cells without neighbours: (n,), or one number.

    >>> Vector().inside(())
    (1,)
    """

    name = "vector"
    order = "F"

    def inside(self, outside: Shape) -> Shape:
        return outside or (1,)

    def standardise(self, shape: Shape) -> str:
        return "feature"


class _Pixels(_Ordered):
    """Cells on a grid: (*sides) or (*sides, C) outside by default, (C, *sides) inside."""

    channel_axis = 0
    pixels = grid = True

    def standardise(self, shape: Shape) -> str:
        return "global" if shape[0] <= COLOURS else "channel"  # bands have units of their own

    def picture(self, shape: Shape) -> bool:
        return True

    def part_shown(self, shape: Shape, *, alpha: bool = True) -> str:
        shown = _bands(shape[0])
        if len(shown) == shape[0]:
            own = shape[0] in (1, 3) or (shape[0] == 4 and alpha)
            return "" if own else f"its {shape[0]} channels side by side"
        return f"channels {', '.join(map(str, shown))} of {shape[0]} side by side"

    def pictures(self, values: np.ndarray, outside: Shape, *, alpha: bool = True) -> np.ndarray:
        flat = self._flat(self.inward(values, self.inside(outside), outside))
        if flat.shape[1] in (1, 3) or (flat.shape[1] == 4 and alpha):
            return np.moveaxis(flat, 1, -1)
        bands = flat[:, _bands(flat.shape[1])]  # (N, bands, H, W)
        beside = np.moveaxis(bands, 1, 2)
        return beside.reshape(len(flat), beside.shape[1], -1, 1)

    def _flat(self, x: np.ndarray) -> np.ndarray:
        """Return data (N, C, *sides) as (N, C, H, W)."""
        return x


def _bands(channels: int) -> list[int]:
    """Return the channels that a picture shows, by number."""
    return np.unique(np.linspace(0, channels - 1, min(channels, BANDS)).astype(int)).tolist()


@final
class Image(_Pixels):
    """Images: (H, W), (H, W, C) or (C, H, W) outside, (C, H, W) inside.

    >>> Image().inside((28, 28)), Image().inside((32, 30, 3)), Image("CHW").inside((3, 32, 30))
    ((1, 28, 28), (3, 32, 30), (3, 32, 30))
    """

    name = "image"
    noun = "images"
    order, inner = "HWC", "CHW"

    def network(self, shape: Shape, least: int) -> str:
        return "conv" if shape[1] * shape[2] >= least**2 else "residual"

    def folder_options(self, shape: Shape, dtype: str) -> dict[str, str | int | bool]:
        channels, height, width = shape
        depth = {"uint8": 8, "uint16": 16}.get(dtype)
        colours = {1: "grey", 3: "colour", 4: "rgba" if depth else None}.get(channels)
        options = {"size": f"{height}x{width}", "channels": colours, "depth": depth}
        return {name: value for name, value in options.items() if value is not None}


@final
class Volume(_Pixels):
    """Volumes, such as scans, and clips, whose depth is time: (D, H, W) or (D, H, W, C) outside by
    default, (C, D, H, W) inside.

    A picture shows the middle slice along the depth axis.

    >>> Volume().inside((16, 32, 32)), Volume("DCHW").inside((16, 3, 32, 32))
    ((1, 16, 32, 32), (3, 16, 32, 32))
    """

    name = "volume"
    noun = "volumes"
    order, inner = "DHWC", "CDHW"
    declared, described = "(N, D, H, W) or (N, D, H, W, C)", True

    def network(self, shape: Shape, least: int) -> str:
        return "conv3d"

    def folder_options(self, shape: Shape, dtype: str) -> dict[str, str | int | bool]:
        return {"volume": True, **LAYOUTS["image"].folder_options((shape[0], *shape[2:]), dtype)}

    def part_shown(self, shape: Shape, *, alpha: bool = True) -> str:
        bands = super().part_shown(shape, alpha=alpha)
        return "the middle slice along the depth axis" + (f", {bands}" if bands else "")

    def _flat(self, x: np.ndarray) -> np.ndarray:
        return x[:, :, x.shape[2] // 2]


@final
class Series(_Ordered):
    """Numbers over time: (T,) or (T, C) outside by default, (T, C) inside.

    >>> Series().inside((100,)), Series("CT").inside((12, 1000))
    ((100, 1), (1000, 12))
    """

    name = "series"
    noun = "series"
    order = inner = "TC"
    mask_axis = -1
    channel_axis = 1
    grid = True
    coded_channels = True
    ends = True
    declared, described = "(N, T) or (N, T, C)", True

    def standardise(self, shape: Shape) -> str:
        return "channel"

    def learnable(self, observed: np.ndarray) -> np.ndarray:
        # steps after the end of all training series are like those before
        return np.broadcast_to(observed.any(0), observed.shape)

    def network(self, shape: Shape, least: int) -> str:
        return "conv1d"


@final
class Points(_Ordered):
    """Points in a fixed order, with coordinates: (P, C) outside by default, and inside.

    >>> Points().inside((256, 3))
    (256, 3)
    """

    name = "points"
    noun = "point sets"
    order = inner = "PC"
    channel_axis = 1
    described = True

    def standardise(self, shape: Shape) -> str:
        return "channel"


@final
class Cells(Layout):
    """An array of three or more axes, whose cells no network arranges.

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
    for layout in (Vector(), Image(), Volume(), Series(), Points(), Cells(), Text(), Columns())
}


DECLARED = tuple(layout.name for layout in LAYOUTS.values() if layout.declared)
# what axes= takes, in words
AXES = "NF, NHW, NHWC, NCHW, NDHW, NDHWC, NCDHW, NTHWC, NT, NTC, NCT or NPC"


def layout_of_axes(axes: str, outside: Shape, name: str) -> Layout:
    """Return the layout that letters declare, such as NCHW.

    The letters are N (rows), F (features), H, W and D (height, width, depth), T (time), P (points)
    and C (channels). T together with H and W is the depth of a volume.

    Args:
        axes: one letter for each axis of the array, the first of them N.
        outside: shape of one datum in the user's array.
        name: of the source, for messages.

    Raises:
        ValueError: there is no layout with these letters, or the array has another number of axes.

    >>> layout_of_axes("NCHW", (3, 32, 32), "x.npy").inside((3, 32, 32))
    (3, 32, 32)
    """
    letters = axes.upper()
    shape = f"({', '.join(map(str, ('N', *outside)))})"
    if "N" in letters[1:] and letters.count("N") == 1:
        at = letters.index("N")
        raise ValueError(
            f"expected axes= with the rows first, such as N{letters.replace('N', '')}; got {axes} "
            f"for {name} (np.moveaxis(x, {at}, 0) moves the rows to the front)"
        )
    cells = letters[1:].replace("T", "D") if {"T", "H", "W"} <= set(letters) else letters[1:]
    layout = next(
        (
            layout
            for layout in LAYOUTS.values()
            if layout.order and set(layout.order) - {"C"} <= set(cells) <= set(layout.order)
        ),
        None,
    )
    known = [one for one in re.findall("[A-Z]{2,}", AXES) if len(one) == len(outside) + 1]
    fits = alternatives(known) if known else ""
    if layout is None or letters[:1] != "N" or len(set(cells)) < len(cells):
        raise ValueError(f"expected axes={fits or AXES}; got {axes} for {name}")
    if len(cells) != len(outside):
        raise ValueError(
            f"expected axes= with one letter for each axis of {shape}"
            + (f", as in axes={fits}" if fits else "")
            + f"; got {axes} for {name}"
        )
    return replace(layout, axes="" if cells == layout.order[: len(cells)] else cells)


def declared_layout(outside: Shape, options: Mapping[str, object], name: str) -> Layout | None:
    """Return the layout of an array that an option declares: axes=NCHW, or series=true; None
    without such an option.

    Args:
        outside: shape of one datum in the user's array.
        options: of the source.
        name: of the source, for messages.

    Raises:
        ValueError: data of the declared layout have another number of axes, or several layouts are
            declared.

    >>> declared_layout((16, 32, 32), {"volume": True}, "x.npy").name
    'volume'
    """
    asked = [LAYOUTS[option] for option in DECLARED if options.get(option, False)]
    axes = str(options.get("axes", ""))
    stated = layout_of_axes(axes, outside, name) if axes else None
    if len(asked) > 1 or (asked and stated is not None and stated.name != asked[0].name):
        got = [f"{layout.name}=true" for layout in asked] + ([f"axes={axes}"] if axes else [])
        raise ValueError(f"expected one of these options; got {' and '.join(got)} for {name}")
    if stated is not None or not asked:
        return stated
    layout = asked[0]
    if len(outside) not in (len(layout.order) - 1, len(layout.order)):
        shape = ", ".join(map(str, ("N", *outside)))
        raise ValueError(
            f"expected {layout.noun} as an array {layout.declared}; got ({shape}) in {name}"
        )
    return layout


def usual_layout(outside: Shape) -> Layout:
    """Return the layout of an array by its number of axes: an image for (H, W) and (H, W, C).

    >>> usual_layout((28, 28)).name
    'image'
    """
    return LAYOUTS[{0: "vector", 1: "vector", 2: "image", 3: "image"}.get(len(outside), "cells")]


def restored_layout(name: str, axes: str = "") -> Layout:
    """Return the layout that config.json names.

    >>> restored_layout("image", "CHW")
    Image(axes='CHW')
    """
    return replace(LAYOUTS[name], axes=axes)


def stored_layout(shape: Shape) -> Layout:
    """Return the layout of a shape inside by the rule of runs whose config.json has no layout.

    >>> stored_layout((100, 1)).name
    'series'
    """
    return LAYOUTS[{1: "vector", 2: "series", 3: "image"}.get(len(shape), "cells")]
