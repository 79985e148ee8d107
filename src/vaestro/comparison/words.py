"""Write a comparison as text: numbers with their errors, a table, and a chart of intervals."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vaestro.comparison.evidence import Bound, Row, interval
from vaestro.evaluation.records import mean_and_error

if TYPE_CHECKING:
    from vaestro.comparison.ranking import Comparison

WIDTH = 100
SIGN = {"lower": ">=", "exact": " ="}
LEGEND = (
    "o-->  a lower bound: the true value is to its right",
    "[--]  from a lower bound to the bound plus its gap, measured on simulated data",
    "<>    exact",
    "===   +- one standard error of a mean over data (paired differences have smaller errors)",
)


def decimals(error: float) -> int:
    """Return the number of decimals that shows two digits of a standard error, from 2 to 6.

    >>> decimals(0.2), decimals(0.0012)
    (2, 4)
    """
    return 2 if not 0 < error < 0.01 else min(6, 1 - math.floor(math.log10(error)))


def number(value: float, error: float = math.nan, sign: str = "") -> str:
    """Return a number with its standard error.

    >>> number(-95.1, 0.2), number(1.5, 0.1, "+")
    ('-95.10 +- 0.20', '+1.50 +- 0.10')
    """
    if not math.isfinite(value):
        return f"{value:{sign}}"
    d = decimals(error)
    return f"{value:{sign}.{d}f}" + ("" if math.isnan(error) else f" +- {error:.{d}f}")


def shortened(name: str, width: int) -> str:
    """Return a name of at most `width` characters; the middle of a longer one is replaced by dots.

    >>> shortened("runs/experiment-17/last", 14)
    'runs...17/last'
    """
    if len(name) <= width:
        return name
    tail = (width - 3) * 2 // 3
    return name[: width - 3 - tail] + "..." + name[len(name) - tail :]


def listing(names: Sequence[str], most: int = 4) -> str:
    """Return names joined by commas; after the first few only the number of others.

    >>> listing(["a", "b", "c"]), listing("abcdef")
    ('a, b and c', 'a, b, c and 3 others')
    """
    if len(names) > most:
        return f"{', '.join(names[: most - 1])} and {len(names) - most + 1} others"
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def interval_words(bound: Bound) -> str:
    """Return the interval from a bound to the bound plus its gap; empty if the gap is unknown.

    >>> interval_words(Bound("elbo", "lower", np.array([-4.0, -2.0]), gap=(0.5, 0.0, 9)))
    '[-3.00, -2.50 +- 1.00]'
    """
    ends = interval(bound)
    if ends is None:
        return ""
    low, high, error = ends
    return f"[{low:.{decimals(error)}f}, {number(high, error)}]"


def data_words(row: Row, bound: Bound) -> str:
    """Return number, split and hash of the data of a bound: 100 of 10,000 test f648aa53.

    >>> row, bound = _example()
    >>> data_words(row, bound)
    '2 of 3 test f648aa53'
    """
    count = f"{bound.n:,}" if bound.n == row.n else f"{bound.n:,} of {row.n:,}"
    return " ".join(filter(None, (count, row.split, row.short_hash)))


def group_title(rows: Sequence[Row]) -> str:
    """Return the title of a group: what all its rows have in common.

    >>> group_title([_example()[0]])
    'log p(x) of 3 test data (f648aa53), counting measure, in nats for each datum'
    """
    row = next((r for r in rows if not r.exact), rows[0])
    split = f"{row.split} " if row.split else ""
    data = f"{row.n:,} {split}data ({row.short_hash})"
    return f"log {row.of} of {data}, {row.measure} measure, in nats for each datum"


def table(rows: Sequence[Row], width: int = WIDTH) -> list[str]:
    """Return the lines of a table: one for each row, and more for an interval or for a tighter
    bound on fewer data.

    >>> for line in table([_example()[0]]):
    ...     print(line)
         log p(x), nats    method    data                  measure
    run  >= -91.00 +- 1.00  IWAE_500  2 of 3 test f648aa53  counting
    """
    per = " or ".join(
        dict.fromkeys(row.headline.per for row in rows if row.headline.bits_per_dim is not None)
    )
    head = ("", "log p(x), nats", "method", f"bits/{per}", "data", "measure", "given")
    cells = [_cells(row) for row in rows]
    shown = [i for i in range(len(head)) if i == 0 or any(c[i] for c in cells)]
    widths = {i: max(len(head[i]), *(len(c[i]) for c in cells)) for i in shown}
    for i in (6, 0):  # shorten conditions first, then names
        if i in widths:
            over = sum(widths.values()) + 2 * (len(shown) - 1) - width
            widths[i] = max(min(widths[i], 10), widths[i] - max(0, over))
    out = []
    for texts, lines in zip([head, *cells], [[], *map(_details, rows)], strict=True):
        out.append(
            "  ".join(f"{shortened(texts[i], widths[i]):{widths[i]}}" for i in shown).rstrip()
        )
        indent = " " * (widths[0] + 2)
        for text in lines:
            out += textwrap.wrap(
                text, width, initial_indent=indent, subsequent_indent=indent + "  "
            )
    return out


def _cells(row: Row) -> tuple[str, ...]:
    """Return the cells of a row of the table."""
    bound = row.headline
    return (
        row.name,
        f"{SIGN[bound.side]} {number(*bound.mean())}",
        bound.label,
        "" if bound.bits_per_dim is None else f"{bound.bits_per_dim:.4f}",
        data_words(row, bound),
        row.measure,
        ", ".join(row.given),
    )


def _details(row: Row) -> list[str]:
    """Return the interval of a row, and its tighter bound on fewer data."""
    bound, tighter, lines = row.headline, row.tighter, []
    if bound.gap:
        unlike = "" if row.alike else ", which may differ from the data"
        lines.append(
            f"in {interval_words(bound)} by bidirectional AIS, gap measured on {bound.gap[2]:,} "
            f"simulated data{unlike}"
        )
    if tighter is not None:
        above = number(*mean_and_error((tighter.nats - bound.nats)[tighter.mask]))
        lines.append(
            f"{SIGN[tighter.side].strip()} {number(*tighter.mean())} by {tighter.label} on "
            f"{tighter.n:,} of them, {above} above {bound.label} there"
        )
    return lines


def ticks(low: float, high: float, most: int) -> list[float]:
    """Return at most `most` round numbers between low and high.

    >>> ticks(-95.0, -93.0, 5)
    [-95.0, -94.5, -94.0, -93.5, -93.0]
    """
    least = (high - low) / (most - 1)
    power = 10.0 ** math.floor(math.log10(least))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= least or m == 10)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def tick_labels(values: Sequence[float]) -> list[str]:
    """Return the labels of an axis, with as many decimals as its step needs.

    >>> tick_labels([-95.0, -94.5])
    ['-95.0', '-94.5']
    """
    d = max(0, -math.floor(math.log10(values[1] - values[0]) + 1e-9)) if len(values) > 1 else 2
    return [f"{v:.{d}f}" for v in values]


def extent(bounds: Sequence[Bound]) -> tuple[float, float] | None:
    """Return the range of an axis that shows all points, errors, intervals and arrows; None if no
    mean is finite.

    >>> low, high = extent([_example()[1]])
    >>> low < -91 < high
    True
    """
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
    """Return the lines of a chart of a group's bounds over an axis in nats.

    >>> chart([_example()[0]], 50)[0]
    'run (2 data)    ==============o===============->'
    """
    # The label states the number of data of a mean that is over only a part of them.
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
        label = f"{shortened(row.name, left - 2 - len(part)) + part:{left}}"
        out.append((label + "".join(_line(row.headline, place, across))).rstrip())
    axis, labels = [" "] * across, [" "] * across
    marks = ticks(low, high, max(2, across // 12))
    for value, text in zip(marks, tick_labels(marks), strict=True):
        axis[place(value)] = "+"
        start = min(across - len(text), max(0, place(value) - len(text) // 2))
        labels[start : start + len(text)] = text
    ruled = "".join("-" if c == " " else c for c in axis)
    return [*out, " " * left + ruled, (" " * left + "".join(labels)).rstrip()]


def _line(bound: Bound, place: Callable[[float], int], width: int) -> list[str]:
    """Return the characters of one bound in a chart."""
    line = [" "] * width
    mean, error = bound.mean()
    ends = interval(bound)
    if not math.isfinite(mean):
        return list("not finite".ljust(width))
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
    return line


def _fill(line: list[str], start: int, stop: int, mark: str) -> None:
    for i in range(start, min(stop, len(line) - 1) + 1):
        line[i] = mark


def wrapped(text: str) -> list[str]:
    """Return the lines of a list item; commands and paths are not broken.

    >>> wrapped("a is better than b")
    ['- a is better than b']
    """
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent="- ",
        subsequent_indent="  ",
        break_on_hyphens=False,
        break_long_words=False,
    )


def report(comparison: Comparison) -> list[str]:
    """Return the lines of a comparison for a terminal of 100 columns: table, conclusions, charts.

    >>> from vaestro.comparison.ranking import Comparison
    >>> for line in report(Comparison((_example()[0],), (), (), ("run: few data",))):
    ...     print(line)
         log p(x), nats     method    data                  measure
    run  >= -91.00 +- 1.00  IWAE_500  2 of 3 test f648aa53  counting
    <BLANKLINE>
    - run: few data
    """
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


def _example() -> tuple[Row, Bound]:
    """Return a row for the examples of this module."""
    bound = Bound("iwae", "lower", np.array([-90.0, -92.0, np.nan]), k=500)
    return Row("run", Path("run"), (bound,), "test", 3, "f648aa53", "", "", "counting"), bound
