"""The options of series: the columns that name and order them, and windows."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from vaestro.data.raw import Options
from vaestro.data.refusals import first_names
from vaestro.data.series.looks import series_of
from vaestro.frames import Frame
from vaestro.text import InputError, few, nearest, quoted, unquoted

NAME = r'("(?:[^"]|"")*"|[^:"]*)'


class Roles(NamedTuple):
    """Name the column of the series and the one that orders rows; "" for none."""

    group: str
    order: str


def roles_of(option: object, frame: Frame, where: str) -> tuple[Roles, list[str]]:
    """Return the columns that `series=` names, and notes.

    Args:
        option: true, GROUP, GROUP:ORDER, :ORDER or, for dates, ORDER.
        frame: the table.
        where: the source, for messages.

    Raises:
        ValueError: there is no such column, or none is named and none is recognised.

    >>> from vaestro.data.tables import frame_of
    >>> frame = frame_of({"unit": [1, 1], "t, s": [0.5, 0.6]})
    >>> roles_of('unit:"t, s"', frame, "t.csv")[0]
    Roles(group='unit', order='t, s')
    """
    if option is True:
        likely = series_of(frame)
        if likely is None:
            raise InputError(
                f"series=true does not name columns of {where}: type series=GROUP:ORDER with the "
                f"column that names the series and the one that orders rows, or series=:TIME for "
                f"one long series (columns are {first_names(list(frame.columns), 9)})"
            )
        return Roles(*likely), [f"read as series={_option(*likely)}"]
    text = str(option)
    match = re.fullmatch(f"{NAME}(?::{NAME})?", text)
    if text in frame.columns:
        group, order = text, ""
    elif match is None:
        raise ValueError(f"expected series=GROUP:ORDER, two columns of {where}; got {text!r}")
    else:
        group, order = unquoted(match[1] or ""), unquoted(match[2] or "")
    for column in filter(None, (group, order)):
        if column not in frame.columns:
            raise ValueError(
                f"expected series= to name a column of {where}: "
                f"{nearest(column, few(column, frame.columns))}; got {column!r}"
            )
    if not order and _is_order(frame.columns[group]):
        group, order = "", group
    if not (group or order) or group == order:
        raise ValueError(f"expected series=GROUP:ORDER, two columns of {where}; got {text!r}")
    if order and frame.columns[order].dtype.kind not in "iufM":
        raise ValueError(
            f"expected numbers or dates in column {order!r} of {where}, which orders series; got "
            f"text"
        )
    return Roles(group, order), []


def _is_order(column: np.ma.MaskedArray) -> bool:
    """Return whether a column that is named alone orders one series: dates, or fractions of which
    no two are equal."""
    return column.dtype.kind == "M" or (
        column.dtype.kind == "f" and len(np.unique(column.compressed())) == len(column)
    )


def _option(group: str, order: str) -> str:
    return f"{quoted(group) if group else ''}:{quoted(order)}"


def window_of(options: Options, where: str) -> tuple[int, int]:
    """Return the steps of a window and between two windows; 0 for whole series.

    Raises:
        ValueError: a window or a stride is too small, or there is a stride alone.

    >>> window_of({"window": 128}, "x.csv")
    (128, 128)
    """
    window = int(options.get("window", 0))
    stride = int(options.get("stride", window))
    if "stride" in options and not window:
        raise InputError(f"stride={stride} needs a window: add window=N, its number of steps")
    if "window" in options and (window < 2 or stride < 1):
        raise ValueError(
            f"expected window=2 or more and stride=1 or more for {where}; got window={window}, "
            f"stride={stride}"
        )
    return window, stride
