"""Draw a comparison as a picture of intervals, with one panel per group."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from vaestro.comparison.evidence import Row, interval
from vaestro.comparison.ranking import Comparison
from vaestro.comparison.words import SIGN, extent, group_title, number, tick_labels, ticks
from vaestro.drawing import PALE, RULE, Pen, picture
from vaestro.storage import writing

WIDTH, LEFT, RIGHT, MARGIN, LINE, HEAD, AXIS = 1200, 250, 290, 24, 38, 40, 42
COLOURS = {"lower": "#1f5fa8", "interval": "#1f5fa8", "exact": "#b3541e"}
LEGEND = (
    ("lower", "a lower bound: the true value is to its right"),
    ("interval", "from a lower bound to the bound plus its gap, measured on simulated data"),
    ("exact", "an exact value"),
)
WHISKER = (
    "+- one standard error of each mean over data. Differences are paired over data and have "
    "smaller errors"
)


def draw(comparison: Comparison, path: Path) -> None:
    """Write a comparison as a .png of 1,200 pixels width: names, intervals over an axis in nats,
    numbers and a legend.

    >>> from vaestro.comparison.ranking import Comparison
    >>> draw(Comparison((), (), (), ()), Path("empty.png"))
    >>> Path("empty.png").exists()
    True
    """
    panels = [(g, extent([r.headline for r in g.rows])) for g in comparison.groups]
    height = (
        MARGIN
        + sum(HEAD + LINE * len(g.rows) + AXIS + MARGIN for g, _ in panels)
        + 26 * (len(LEGEND) + 1)
        + MARGIN
    )

    def everything(pen: Pen) -> None:
        top = MARGIN
        for group, span in panels:
            pen.text(MARGIN, top, pen.fitting(group_title(group.rows), 17, WIDTH - 2 * MARGIN), 17)
            _panel(pen, group.rows, span, top + HEAD)
            top += HEAD + LINE * len(group.rows) + AXIS + MARGIN
        for kind, text in LEGEND:
            at = {"exact": 22, "interval": 8}.get(kind, 5)
            _mark(pen, kind, MARGIN + at, MARGIN + 38, top + 11)
            pen.text(MARGIN + 68, top + 3, text, 13, PALE)
            top += 26
        _whisker(pen, MARGIN + 8, MARGIN + 38, top + 11)
        pen.text(MARGIN + 68, top + 3, WHISKER, 13, PALE)

    with writing(path) as part:
        picture(part, WIDTH, height, everything)


def _mark(pen: Pen, kind: str, low: float, high: float, y: float) -> None:
    """Draw a point with an arrow at `low` ("lower"), brackets from `low` to `high` ("interval"), or
    a diamond at `low` ("exact")."""
    colour = COLOURS[kind]
    if kind == "exact":
        corners = [(low, y - 7), (low + 7, y), (low, y + 7), (low - 7, y)]
        pen.polygon(corners, colour)
    elif kind == "interval":
        high = max(high, low + 2)
        foot = min(4.0, (high - low) / 2)
        pen.line([(low, y), (high, y)], colour, 2)
        pen.line([(low + foot, y - 8), (low, y - 8), (low, y + 8), (low + foot, y + 8)], colour, 2)
        pen.line(
            [(high - foot, y - 8), (high, y - 8), (high, y + 8), (high - foot, y + 8)], colour, 2
        )
    else:
        tip = low + 44
        pen.line([(low, y), (tip - 1, y)], colour, 1.5)
        pen.line([(tip - 8, y - 5), (tip, y), (tip - 8, y + 5)], colour, 1.5)
        pen.dot(low, y, 5, colour)


def _whisker(pen: Pen, low: float, high: float, y: float) -> None:
    """Draw the ends of a standard error."""
    if high - low > 1:
        pen.line([(low, y), (high, y)], PALE, 1)
        for x in (low, high):
            pen.line([(x, y - 4), (x, y + 4)], PALE, 1)


def _panel(pen: Pen, rows: Sequence[Row], span: tuple[float, float] | None, top: float) -> None:
    first, last = LEFT, WIDTH - RIGHT
    bottom = top + LINE * len(rows)
    if span is not None:
        marks = ticks(*span, 9)
        for value, text in zip(marks, tick_labels(marks), strict=True):
            x = first + (value - span[0]) / (span[1] - span[0]) * (last - first)
            pen.line([(x, top), (x, bottom + 5)], RULE)
            pen.text(x - pen.length(text, 13) / 2, bottom + 8, text, 13, PALE)
        pen.text(last + 14, bottom + 8, "nats", 13, PALE)
        pen.line([(first, bottom), (last, bottom)], PALE)
    for i, row in enumerate(rows):
        y = top + LINE * (i + 0.5)
        bound = row.headline
        mean, error = bound.mean()
        pen.text(MARGIN, y - 9, pen.fitting(row.name, 15, LEFT - MARGIN - 16), 15)
        text = f"{SIGN[bound.side].strip()} {number(mean, error)}  {bound.label}" + (
            f" on {bound.n:,}" if bound.n < row.n else ""
        )
        pen.text(last + 14, y - 8, pen.fitting(text, 13, RIGHT - MARGIN - 14), 13)
        if span is None or not math.isfinite(mean):
            continue
        low, high = span
        ends = interval(bound)
        error = 0.0 if math.isnan(error) else error

        def across(value: float, low: float = low, high: float = high) -> float:
            return first + (value - low) / (high - low) * (last - first)

        end = mean if ends is None else ends[1]
        kind = bound.side if ends is None else "interval"
        # Above and below the line, so that neither an arrow nor an interval hides them.
        _whisker(pen, across(mean - error), across(mean + error), y + 10)
        if ends is not None:
            _whisker(pen, across(end - ends[2]), across(end + ends[2]), y - 10)
        _mark(pen, kind, across(mean), across(end), y)
