"""The style of all figures: colours, axes and layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TypeAlias, TypedDict

# a value that can be written as JSON
Plain: TypeAlias = "bool | int | float | str | Sequence[Plain] | Mapping[str, Plain] | None"
Options: TypeAlias = dict[str, Plain]

SERIES = ("--c1", "--c2", "--c3", "--c4", "--c5", "--c6", "--c7", "--c8", "--c9", "--c10", "--c11")
MUTED: Options = {"size": 12, "color": "--muted"}
LEGEND: Options = {"orientation": "h", "font": {"size": 12, "color": "--ink"}, "bgcolor": "--none"}


class Figure(TypedDict):
    """A figure of Plotly: its traces and its layout."""

    data: list[Options]
    layout: Options


def text(value: object) -> str:
    """Return text in which Plotly finds no markup.

    >>> text("<b>")
    '&lt;b&gt;'
    """
    return escape(str(value), quote=False)


def axis(**options: Plain) -> Options:
    """Return an axis in the style of the page.

    >>> axis(nticks=5)["nticks"]
    5
    """
    base: Options = {
        "gridcolor": "--rule",
        "linecolor": "--rule",
        "zeroline": False,
        "tickfont": {"size": 11, "color": "--muted"},
        "automargin": True,
        "fixedrange": False,
    }
    return base | options


def layout(height: int, **options: Plain) -> Options:
    """Return a layout in the style of the page, which sets font and colours.

    >>> layout(300)["height"]
    300
    """
    base: Options = {
        "height": height,
        "margin": {"l": 52, "r": 14, "t": 14, "b": 40},
        "paper_bgcolor": "--none",
        "plot_bgcolor": "--none",
        "font": {"size": 12, "color": "--ink"},
        "hoverlabel": {"bgcolor": "--card", "bordercolor": "--rule", "font": {"color": "--ink"}},
        "showlegend": False,
    }
    return base | options


def title(words: str, y: float, x: float = 0.0) -> Options:
    """Return the title of a panel, above its top left corner.

    >>> title("KL (rate), nats", 0.9)["text"]
    'KL (rate), nats'
    """
    return {
        "text": words,
        "x": x,
        "y": y,
        "xref": "paper",
        "yref": "paper",
        "xanchor": "left",
        "yanchor": "bottom",
        "showarrow": False,
        "font": MUTED,
    }


def y_axis(i: int, name: str = "yaxis") -> str:
    """Return Plotly's name of the y-axis of panel i, counted from 0.

    >>> y_axis(0), y_axis(1), y_axis(1, "y")
    ('yaxis', 'yaxis2', 'y2')
    """
    return name if i == 0 else f"{name}{i + 1}"
