"""Bounds on log p(x) as intervals, and the gaps measured on simulated data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from vaestro.files import Json
from vaestro.report.figures.style import MUTED, Figure, Options, Plain, axis, layout, text
from vaestro.report.reading import Folder
from vaestro.report.words import LABELS, bounds_of, data_words, method, number, real

# label, value, standard error, gap or None, side
Interval = tuple[str, float, float | None, float | None, str]


def bounds(rows: Sequence[Interval]) -> Figure | None:
    """Return bounds as dots with two standard errors; None without rows.

    If the gap was measured, a bar extends over it. Otherwise an arrow points towards the true
    value.

    Args:
        rows: (label, value, standard error, gap or None, side) of each bound, in nats.

    >>> bounds([("ELBO", -90.0, 0.2, None, "lower")])["data"][0]["x"]
    [-90.0]
    """
    if not rows:
        return None
    low = min(value - _spread(error) for _, value, error, _, _ in rows)
    high = max(value + _spread(error) + (gap or 0.0) for _, value, error, gap, _ in rows)
    room = (high - low) or max(1.0, 0.01 * abs(low))
    annotations: list[Plain] = []
    shapes: list[Plain] = []
    for i, (label, value, error, gap, side) in enumerate(rows):
        annotations.append(_label(f"<b>{number(value, error)}</b><br>{text(label)}", -i))
        if gap is not None:
            shapes.append(_gap_bar(value, gap, -i, _colour(side)))
        elif side in ("lower", "upper"):
            sign = 1 if side == "lower" else -1
            start = value + sign * _spread(error)
            end = value + sign * (_spread(error) + 0.14 * room)
            annotations.append(_arrow(start, end, -i, _colour(side)))
    whole = layout(72 + 72 * len(rows), shapes=shapes, annotations=annotations)
    whole["margin"] = {"l": 14, "r": 14, "t": 10, "b": 44}
    whole["xaxis"] = axis(
        range=[low - 0.08 * room, high + 0.2 * room],
        title={"text": "log p(x), nats for each datum", "font": MUTED},
        nticks=8,
    )
    whole["yaxis"] = axis(visible=False, range=[-len(rows) + 0.7, 0.75], fixedrange=True)
    return {"data": [_dot(row, -i) for i, row in enumerate(rows)], "layout": whole}


def _spread(error: float | None) -> float:
    """Return two standard errors; 0 for an unknown error."""
    return 2 * (error or 0.0)


def _colour(side: str) -> str:
    return "--c6" if side == "exact" else "--c1"


def _dot(row: Interval, y: int) -> Options:
    label, value, error, _, side = row
    colour = _colour(side)
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [value],
        "y": [y],
        "marker": {
            "size": 10,
            "color": colour,
            "symbol": "diamond" if side == "exact" else "circle",
        },
        "error_x": {
            "type": "data",
            "array": [_spread(error)],
            "color": colour,
            "thickness": 3,
            "width": 0,
        },
        "hovertemplate": f"{text(label)}<br>{number(value, error)} nats<extra></extra>",
        "showlegend": False,
    }


def _label(words: str, y: int) -> Options:
    return {
        "text": words,
        "align": "left",
        "x": 0,
        "xref": "paper",
        "y": y + 0.42,
        "yref": "y",
        "xanchor": "left",
        "showarrow": False,
        "font": {"size": 12, "color": "--ink"},
    }


def _gap_bar(value: float, gap: float, y: int, colour: str) -> Options:
    return {
        "type": "rect",
        "x0": value,
        "x1": value + gap,
        "y0": y - 0.1,
        "y1": y + 0.1,
        "fillcolor": colour,
        "opacity": 0.35,
        "line": {"width": 0, "color": colour},
    }


def _arrow(start: float, end: float, y: int, colour: str) -> Options:
    return {
        "x": end,
        "y": y,
        "ax": start,
        "ay": y,
        "xref": "x",
        "yref": "y",
        "axref": "x",
        "ayref": "y",
        "showarrow": True,
        "arrowhead": 2,
        "arrowsize": 1.1,
        "arrowwidth": 1.4,
        "arrowcolor": colour,
        "text": "",
    }


def gaps(
    estimates: Iterable[Mapping[str, Json]], arrays: Mapping[str, np.ndarray]
) -> dict[str, tuple[float, float]]:
    """Return an upper bound on the gap of each method on simulated data, and its standard error, in
    nats.

    Args:
        estimates: entries of evaluation.json.
        arrays: the arrays of evaluation.npz.

    >>> upper, lower = np.array([-88.0, -90.0]), np.array([-90.0, -91.0])
    >>> gaps([{"method": "elbo"}], {"simulated_ais_upper": upper, "simulated_elbo": lower})
    {'elbo': (1.5, 0.5)}
    """
    upper = arrays.get("simulated_ais_upper")
    result = {}
    for e in estimates:
        lower = arrays.get(f"simulated_{e.get('method')}")
        if (
            upper is None
            or lower is None
            or upper.shape != lower.shape
            or not np.isfinite(upper - lower).all()
            or len(upper) < 2
        ):
            continue
        difference = upper - lower
        result[str(e["method"])] = (
            float(difference.mean()),
            float(difference.std(ddof=1) / math.sqrt(len(difference))),
        )
    return result


def bounds_of_folder(folder: Folder) -> Figure | None:
    """Return the bounds in all evaluations of the weights that a run has now; None if there are
    none."""
    rows: list[Interval] = []
    for evaluation in filter(None, (folder.evaluation, *folder.others)):
        simulated: dict[str, tuple[float, float]] = {}
        if evaluation is folder.evaluation:
            simulated = gaps(evaluation.get("estimates", []), folder.arrays["evaluation"])
        for e in bounds_of(evaluation):
            label = f"{method(e)}, {data_words(evaluation, e.get('n', evaluation.get('n', 0)))}"
            gap = simulated.get(str(e.get("method")))
            rows.append(
                (
                    label,
                    float(e["mean"]),
                    real(e.get("stderr")),
                    None if gap is None else gap[0],
                    str(e.get("side")),
                )
            )
    return bounds(rows)


def gap_sentences(folder: Folder) -> list[str]:
    """Return a sentence on the gap of each bound, if it was measured on simulated data."""
    estimates = (folder.evaluation or {}).get("estimates", [])
    alike = all(e.get("alike", True) for e in estimates)
    return [
        f"On data drawn from the model, log p(x) is above {LABELS.get(name, name)} by at most "
        f"{number(gap, error)} nats"
        + ("." if alike else "; these data may differ from the real ones.")
        for name, (gap, error) in gaps(
            [e for e in estimates if e.get("on", "data") == "data"], folder.arrays["evaluation"]
        ).items()
    ]
