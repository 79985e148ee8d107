"""Say a comparison in text: numbers with their errors, a table, and a chart of intervals in plain
characters."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vaestro.comparison.evidence import Bound, Row, interval
from vaestro.evaluation.records import mean_and_error

if TYPE_CHECKING:
    from vaestro.comparison.ranking import Comparison

WIDTH = 100
SIGN = {"lower": ">=", "exact": " ="}
LEGEND = (
    "o-->  a lower bound: the truth lies to its right",
    "[--]  from a bound to the same with its gap, as measured on simulated data",
    "<>    exact",
    "===   +- one standard error of a mean over data (differences are paired, and surer than "
    "these look)",
)


def decimals(error: float) -> int:
    """Return how many decimals a number with this error deserves: two digits of the error, 2 ..
    6."""
    return 2 if not 0 < error < 0.01 else min(6, 1 - math.floor(math.log10(error)))


def number(value: float, error: float = math.nan, sign: str = "") -> str:
    """Write a number with its standard error: -95.10 +- 0.20."""
    if not math.isfinite(value):
        return f"{value:{sign}}"
    d = decimals(error)
    return f"{value:{sign}.{d}f}" + ("" if math.isnan(error) else f" +- {error:.{d}f}")


def shortened(name: str, width: int) -> str:
    """Shorten a name to a width by leaving out its middle."""
    if len(name) <= width:
        return name
    tail = (width - 3) * 2 // 3
    return name[: width - 3 - tail] + "..." + name[len(name) - tail :]


def listing(names: Sequence[str], most: int = 4) -> str:
    """Join names: a, b and c; of many the first few and how many others."""
    if len(names) > most:
        return f"{', '.join(names[: most - 1])} and {len(names) - most + 1} others"
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def interval_words(bound: Bound) -> str:
    """Write the two-sided interval: [-95.10, -94.70 +- 0.21]; empty if the gap was not measured."""
    ends = interval(bound)
    if ends is None:
        return ""
    low, high, error = ends
    return f"[{low:.{decimals(error)}f}, {number(high, error)}]"


def data_words(row: Row, bound: Bound) -> str:
    """Write what a bound was measured on: 10,000 test f648aa53; 100 of 10,000 test f648aa53."""
    count = f"{bound.n:,}" if bound.n == row.n else f"{bound.n:,} of {row.n:,}"
    return " ".join(filter(None, (count, row.split, row.short_hash)))


def group_title(rows: Sequence[Row]) -> str:
    """Name what the rows of a group share: log p(x | digit) of 10,000 test data (f648aa53),
    counting measure, in nats."""
    known = next((r for r in rows if not r.exact), rows[0])
    split = f"{known.split} " if known.split else ""
    data = f"{known.n:,} {split}data ({known.short_hash})"
    return f"log {known.of} of {data}, {known.measure} measure, in nats for each datum"


def table(rows: Sequence[Row], width: int = WIDTH) -> list[str]:
    """Lay rows out as a table: one line for each, and a second where there is an interval or a
    tighter bound on fewer data."""
    per = " or ".join(
        dict.fromkeys(row.headline.per for row in rows if row.headline.bits_per_dim is not None)
    )
    head = ("", "log p(x), nats", "method", f"bits/{per}", "data", "measure", "given")
    cells, below = [], []
    for row in rows:
        bound = row.headline
        bits = "" if bound.bits_per_dim is None else f"{bound.bits_per_dim:.4f}"
        said = f"{SIGN[bound.side]} {number(*bound.mean())}"
        cells.append(
            (
                row.name,
                said,
                bound.label,
                bits,
                data_words(row, bound),
                row.measure,
                ", ".join(row.given),
            )
        )
        ends = interval_words(bound)
        unlike = "" if row.alike else ", which may be unlike the data"
        lines = (
            [f"in {ends} by AIS both ways, gap measured on {bound.gap[2]:,} simulated data{unlike}"]
            if ends and bound.gap
            else []
        )
        also = row.tighter
        if also is not None:
            above = number(*mean_and_error((also.nats - bound.nats)[also.there]))
            text = (
                f"{SIGN[also.side].strip()} {number(*also.mean())} by {also.label} on "
                f"{also.n:,} of them"
            )
            lines.append(f"{text}, {above} above {bound.label} there")
        below.append(lines)
    kept = [i for i in range(len(head)) if i == 0 or any(c[i] for c in cells)]
    widths = {i: max(len(head[i]), *(len(c[i]) for c in cells)) for i in kept}
    for i in (6, 0):  # conditions give way first, then names
        if i in widths:
            over = sum(widths.values()) + 2 * (len(kept) - 1) - width
            widths[i] = max(min(widths[i], 10), widths[i] - max(0, over))
    out = []
    for texts, lines in zip([head, *cells], [[], *below], strict=True):
        out.append(
            "  ".join(f"{shortened(texts[i], widths[i]):{widths[i]}}" for i in kept).rstrip()
        )
        indent = " " * (widths[0] + 2)
        for text in lines:
            out += textwrap.wrap(
                text, width, initial_indent=indent, subsequent_indent=indent + "  "
            )
    return out


def ticks(low: float, high: float, most: int) -> list[float]:
    """Return at most so many round numbers between low and high."""
    least = (high - low) / (most - 1)
    power = 10.0 ** math.floor(math.log10(least))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= least or m == 10)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def tick_labels(values: Sequence[float]) -> list[str]:
    """Write the numbers of an axis with as many decimals as their steps need."""
    d = max(0, -math.floor(math.log10(values[1] - values[0]) + 1e-9)) if len(values) > 1 else 2
    return [f"{v:.{d}f}" for v in values]


def extent(bounds: Sequence[Bound]) -> tuple[float, float] | None:
    """Return the range that an axis must show for points, errors, intervals and arrows; None if
    nothing is finite."""
    lows, highs = [], []
    for bound in bounds:
        mean, error = bound.mean()
        if math.isfinite(mean):
            error = 0.0 if math.isnan(error) else error
            ends = interval(bound)
            lows.append(mean - error)
            highs.append(mean + error if ends is None else ends[1] + ends[2])
    if not lows:
        return None
    low, high = min(lows), max(highs)
    room = (high - low) or max(1.0, 0.01 * abs(low))
    return low - 0.06 * room, high + 0.14 * room


def chart(rows: Sequence[Row], width: int = WIDTH) -> list[str]:
    """Draw a group's bounds over an axis in nats, in plain characters."""
    # A mean over a part of the data stands beside means over all, and must not be taken for one.
    parts = ["" if r.headline.n == r.n else f" ({r.headline.n:,} data)" for r in rows]
    left = min(24, max(len(r.name) + len(part) for r, part in zip(rows, parts, strict=True))) + 2
    across = width - left
    span = extent([r.headline for r in rows])
    if span is None:
        return []
    low, high = span

    def place(value: float) -> int:
        return min(across - 1, max(0, round((value - low) / (high - low) * (across - 1))))

    out = []
    for row, part in zip(rows, parts, strict=True):
        bound, line = row.headline, [" "] * across
        mean, error = bound.mean()
        ends = interval(bound)
        if not math.isfinite(mean):
            line = list("not finite".ljust(across))
        else:
            error = 0.0 if math.isnan(error) else error
            at, end = place(mean), place(mean if ends is None else ends[1])
            stop = place(mean + error) if ends is None else place(ends[1] + ends[2])
            _fill(line, place(mean - error), at, "=")
            _fill(line, end, stop, "=")
            if ends is not None:
                end = max(end, at + 1)
                _fill(line, at, end, "-")
                _fill(line, at, at, "[")
                _fill(line, end, end, "]")
            elif bound.side == "exact":
                _fill(line, at, at, "<")
                _fill(line, at + 1, at + 1, ">")
            else:
                tip = max(stop + 2, at + 4)
                _fill(line, max(stop, at) + 1, tip, "-")
                _fill(line, tip, tip, ">")
                _fill(line, at, at, "o")
        out.append(
            (f"{shortened(row.name, left - 2 - len(part)) + part:{left}}" + "".join(line)).rstrip()
        )
    axis, labels = [" "] * across, [" "] * across
    marks = ticks(low, high, max(2, across // 12))
    for value, text in zip(marks, tick_labels(marks), strict=True):
        axis[place(value)] = "+"
        start = min(across - len(text), max(0, place(value) - len(text) // 2))
        labels[start : start + len(text)] = text
    ruled = "".join("-" if c == " " else c for c in axis)
    return [*out, " " * left + ruled, (" " * left + "".join(labels)).rstrip()]


def _fill(line: list[str], start: int, stop: int, mark: str) -> None:
    for i in range(start, min(stop, len(line) - 1) + 1):
        line[i] = mark


def wrapped(text: str) -> list[str]:
    """Break a sentence into lines with a dash before the first; commands and paths stay whole."""
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent="- ",
        subsequent_indent="  ",
        break_on_hyphens=False,
        break_long_words=False,
    )


def report(comparison: Comparison) -> list[str]:
    """Lay a comparison out for a terminal of 100 columns: the table, what follows from it, and a
    chart of each group."""
    out = [*table(comparison.rows)]
    spoken = [line for text in comparison.spoken for line in wrapped(text)]
    if spoken:
        out += ["", *spoken]
    drawn = False
    for group in comparison.groups:
        picture = chart(group.rows)
        if picture and (len(group.rows) > 1 or len(comparison.groups) == 1):
            out += ["", group_title(group.rows), *picture]
            drawn = True
    return [*out, "", *LEGEND] if drawn else out
