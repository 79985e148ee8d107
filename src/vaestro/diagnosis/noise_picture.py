"""Draw the noise of gradient estimators, with variances on a logarithmic axis.

There is one panel per parameter group and number of draws.
"""

from __future__ import annotations

import math
from pathlib import Path

from vaestro.diagnosis.noise import Noise, Noises
from vaestro.drawing import PALE, RULE, Pen, picture
from vaestro.storage import writing

WIDTH, LEFT, RIGHT, MARGIN, LINE, HEAD, AXIS = 1200, 230, 400, 24, 30, 52, 40
BAR, REFERENCE = "#b3541e", "#1f5fa8"
GROUPS = {"posterior": "encoder", "likelihood": "decoder", "prior": "prior"}


def draw(noises: Noises, path: Path) -> None:
    """Write the picture as a .png of 1,200 pixels width.

    >>> row = Noise("pathwise", 1, "posterior", 10, 4.0, 0.1, 2.0, 1.0, None, None)
    >>> draw(Noises("elbo", 1.0, 128, 100, (row,)), Path("noise.png"))
    >>> Path("noise.png").exists()
    True
    """
    panels = [
        lines
        for group in dict.fromkeys(r.group for r in noises.rows)
        for k in dict.fromkeys(r.k for r in noises.rows)
        if (lines := panel_lines(noises.of(group, k)))
    ]
    variances = [r.variance for lines in panels for _, r in lines if r.variance > 0]
    low = math.floor(math.log10(min(variances))) if variances else 0
    high = max(low + 1, math.ceil(math.log10(max(variances)))) if variances else 1
    height = MARGIN + sum(HEAD + LINE * len(lines) + AXIS for lines in panels) + 40

    def everything(pen: Pen) -> None:
        top = MARGIN
        for lines in panels:
            _panel(pen, noises, lines, (low, high), top)
            top += HEAD + LINE * len(lines) + AXIS
        repeated = f"{noises.repeats} repetitions on one batch of {noises.batch}"
        words = (
            f"variance of the gradient over draws of the noise, {repeated}; whiskers are "
            f"standard errors. Less is better"
        )
        pen.text(MARGIN, top, pen.fitting(words, 13, WIDTH - 2 * MARGIN), 13, PALE)

    with writing(path) as part:
        picture(part, WIDTH, height, everything)


def panel_lines(rows: list[Noise]) -> list[tuple[str, Noise]]:
    """Return the lines of a panel: a single one if all estimators are equal.

    >>> row = Noise("pathwise", 1, "posterior", 10, 4.0, 0.1, 2.0, 1.0, None, None)
    >>> [name for name, _ in panel_lines([row, row])]
    ['every estimator']
    """
    if len(rows) > 1 and len({r.variance for r in rows}) == 1:
        return [("every estimator", rows[0])]
    return [(r.estimator, r) for r in rows]


def title(noises: Noises, row: Noise) -> str:
    """Return the title of a panel.

    >>> row = Noise("pathwise", 1, "posterior", 10, 4.0, 0.1, 2.0, 1.0, None, None)
    >>> title(Noises("elbo", 1.0, 128, 100, (row,)), row)
    'encoder: 10 parameters, ELBO with 1 draw'
    """
    weight = "" if noises.beta == 1 else f", KL weight {noises.beta:g}"
    draws = "1 draw" if row.k == 1 else f"{row.k} draws"
    return (
        f"{GROUPS.get(row.group, row.group)}: {row.parameters:,} parameters, "
        f"{noises.bound.upper()} with {draws}{weight}"
    )


def sentence(row: Noise, reference: Noise) -> str:
    """Return a row's relative variance, its signal-to-noise, and its bias if significant.

    >>> row = Noise("pathwise", 1, "posterior", 10, 4.0, 0.1, 2.0, 1.0, None, None)
    >>> sentence(row, row)
    'reference, signal-to-noise 1'
    """
    ratio = row.variance / reference.variance if reference.variance > 0 else math.nan
    parts = ["reference" if row is reference else f"{ratio:.3g} x"]
    parts.append(f"signal-to-noise {row.snr:.2g}" if row.snr else "signal hidden by noise")
    if row.bias is not None and row.bias_stderr is not None and row.bias > 4 * row.bias_stderr:
        parts.append(f"biased by {row.bias:.0%}")
    return ", ".join(parts)


def _panel(
    pen: Pen, noises: Noises, lines: list[tuple[str, Noise]], span: tuple[int, int], top: float
) -> None:
    first, last = LEFT, WIDTH - RIGHT
    reference = lines[0][1]
    pen.text(MARGIN, top, pen.fitting(title(noises, reference), 17, WIDTH - 2 * MARGIN), 17)
    begin = top + HEAD - 16
    bottom = begin + LINE * len(lines)

    def across(value: float) -> float:
        return first + (math.log10(max(value, 10.0 ** span[0])) - span[0]) / (span[1] - span[0]) * (
            last - first
        )

    every = max(1, math.ceil((span[1] - span[0]) / 10))
    for power in range(span[0], span[1] + 1, every):
        x, text = across(10.0**power), f"1e{power}"
        pen.line([(x, begin), (x, bottom + 5)], RULE)
        pen.text(x - pen.length(text, 13) / 2, bottom + 8, text, 13, PALE)
    for i, (name, row) in enumerate(lines):
        y = begin + LINE * (i + 0.5)
        pen.text(MARGIN, y - 9, pen.fitting(name, 15, LEFT - MARGIN - 12), 15)
        pen.box(
            first, y - 8, max(first + 1, across(row.variance)), y + 8, REFERENCE if i == 0 else BAR
        )
        low, high = (
            across(row.variance - row.variance_stderr),
            across(row.variance + row.variance_stderr),
        )
        if high - low > 1:
            pen.line([(low, y), (high, y)], "#222222")
        pen.text(
            last + 16, y - 8, pen.fitting(sentence(row, reference), 13, RIGHT - MARGIN - 16), 13
        )
    pen.line([(first, bottom), (last, bottom)], PALE)
