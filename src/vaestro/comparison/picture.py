"""Draw a comparison as a picture of intervals, one panel for each group."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vaestro.comparison.evidence import Row, interval
from vaestro.comparison.ranking import Comparison
from vaestro.comparison.words import SIGN, extent, group_title, number, tick_labels, ticks
from vaestro.data.writers import writing

SCALE = 2  # drawn so many times larger and shrunk, for smooth lines
WIDTH, LEFT, RIGHT, MARGIN, LINE, HEAD, AXIS = 1200, 250, 290, 24, 38, 40, 42
INK, PALE, RULE = "#222222", "#777777", "#e4e4e4"
COLOURS = {"lower": "#1f5fa8", "interval": "#1f5fa8", "exact": "#b3541e"}
LEGEND = (
    ("lower", "a lower bound: the truth lies to its right"),
    ("interval", "from a bound to the bound with its gap, as measured on simulated data"),
    ("exact", "an exact value"),
)
WHISKER = "+- one standard error of each mean over data. Differences are paired over data, and surer than these look"


def draw(comparison: Comparison, path: Path) -> None:
    """Write a comparison as a .png, 1,200 pixels wide: names, intervals over an axis in nats, numbers, and a legend in words."""
    from PIL import Image, ImageDraw, ImageFont

    panels = [(g, extent([r.headline for r in g.rows])) for g in comparison.groups]
    height = MARGIN + sum(HEAD + LINE * len(g.rows) + AXIS + MARGIN for g, _ in panels) + 26 * (len(LEGEND) + 1) + MARGIN
    canvas = Image.new("RGB", (WIDTH * SCALE, height * SCALE), "white")
    pen = _Pen(ImageDraw.Draw(canvas), {s: ImageFont.load_default(size=s * SCALE) for s in (13, 15, 17)})
    top = MARGIN
    for group, span in panels:
        pen.text(MARGIN, top, pen.fitting(group_title(group.rows), 17, WIDTH - 2 * MARGIN), 17)
        _panel(pen, group.rows, span, top + HEAD)
        top += HEAD + LINE * len(group.rows) + AXIS + MARGIN
    for kind, text in LEGEND:
        at = {"exact": 22, "interval": 8}.get(kind, 5)
        pen.mark(kind, MARGIN + at, MARGIN + 38, top + 11)
        pen.text(MARGIN + 68, top + 3, text, 13, PALE)
        top += 26
    pen.whisker(MARGIN + 8, MARGIN + 38, top + 11)
    pen.text(MARGIN + 68, top + 3, WHISKER, 13, PALE)
    with writing(path) as part:
        canvas.resize((WIDTH, height), Image.Resampling.LANCZOS).save(part, format="PNG")


class _Pen:
    """Draw in pixels of the finished picture."""

    def __init__(self, canvas: Any, fonts: dict[int, Any]) -> None:
        self.canvas, self.fonts = canvas, fonts

    def line(self, points: Sequence[tuple[float, float]], colour: str, width: float = 1) -> None:
        self.canvas.line([(x * SCALE, y * SCALE) for x, y in points], fill=colour, width=round(width * SCALE), joint="curve")

    def length(self, text: str, size: int) -> float:
        return float(self.fonts[size].getlength(text)) / SCALE

    def text(self, x: float, y: float, text: str, size: int, colour: str = INK) -> None:
        self.canvas.text((x * SCALE, y * SCALE), text, fill=colour, font=self.fonts[size])

    def fitting(self, text: str, size: int, width: float) -> str:
        """Leave out the middle of a text that is longer than a width."""
        keep = len(text)
        short = text
        while self.length(short, size) > width and keep > 4:
            keep -= 1
            tail = keep * 2 // 3
            short = text[: keep - tail] + "..." + text[len(text) - tail :]
        return short

    def mark(self, kind: str, low: float, high: float, y: float) -> None:
        """Draw a bound from low on: a point with an open arrow, brackets from low to high, or a diamond at low."""
        colour = COLOURS[kind]
        if kind == "exact":
            corners = [(low, y - 7), (low + 7, y), (low, y + 7), (low - 7, y)]
            self.canvas.polygon([(a * SCALE, b * SCALE) for a, b in corners], fill=colour)
        elif kind == "interval":
            high = max(high, low + 2)
            foot = min(4.0, (high - low) / 2)
            self.line([(low, y), (high, y)], colour, 2)
            self.line([(low + foot, y - 8), (low, y - 8), (low, y + 8), (low + foot, y + 8)], colour, 2)
            self.line([(high - foot, y - 8), (high, y - 8), (high, y + 8), (high - foot, y + 8)], colour, 2)
        else:
            tip = low + 44
            self.line([(low, y), (tip - 1, y)], colour, 1.5)
            self.line([(tip - 8, y - 5), (tip, y), (tip - 8, y + 5)], colour, 1.5)
            self.canvas.ellipse([(low - 5) * SCALE, (y - 5) * SCALE, (low + 5) * SCALE, (y + 5) * SCALE], fill=colour)

    def whisker(self, low: float, high: float, y: float) -> None:
        """Draw a standard error."""
        if high - low > 1:
            self.line([(low, y), (high, y)], PALE, 1)
            for x in (low, high):
                self.line([(x, y - 4), (x, y + 4)], PALE, 1)


def _panel(pen: _Pen, rows: Sequence[Row], span: tuple[float, float] | None, top: float) -> None:
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
        said = f"{SIGN[bound.side].strip()} {number(mean, error)}  {bound.label}" + (f" on {bound.n:,}" if bound.n < row.n else "")
        pen.text(last + 14, y - 8, pen.fitting(said, 13, RIGHT - MARGIN - 14), 13)
        if span is None or not math.isfinite(mean):
            continue
        low, high = span
        ends = interval(bound)
        error = 0.0 if math.isnan(error) else error

        def across(value: float, low: float = low, high: float = high) -> float:
            return first + (value - low) / (high - low) * (last - first)

        end = mean if ends is None else ends[1]
        kind = bound.side if ends is None else "interval"
        # Beside the line, so that neither an arrow nor an interval hides it.
        pen.whisker(across(mean - error), across(mean + error), y + 10)
        if ends is not None:
            pen.whisker(across(end - ends[2]), across(end + ends[2]), y - 10)
        pen.mark(kind, across(mean), across(end), y)
