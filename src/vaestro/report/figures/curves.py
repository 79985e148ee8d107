"""The curves of one run, or of several: bound, reconstruction, KL, and settings of the training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np

from vaestro.files import Json
from vaestro.report.figures.style import (
    LEGEND,
    MUTED,
    SERIES,
    Figure,
    Options,
    axis,
    layout,
    text,
    title,
    y_axis,
)
from vaestro.report.reading import Folder
from vaestro.report.words import real

PANELS = (
    ("bound", "Bound on log p(x), nats: higher is better"),
    ("distortion", "Reconstruction (distortion), nats: lower is better"),
    ("rate", "KL (rate), nats"),
)
SETTINGS = (("beta", "Weight of the KL"), ("lr", "Learning rate"))
# from bottom to top of each panel, as shares of the height
SINGLE = ((0.75, 0.97), (0.485, 0.705), (0.235, 0.44), (0.12, 0.18), (0.0, 0.06))
SEVERAL = ((0.70, 0.97), (0.36, 0.63), (0.0, 0.29))
SPLITS = {"train": "training", "valid": "validation"}
MOST_POINTS = 1500  # of a curve


def curves(runs: Mapping[str, Folder], *, several: bool = False) -> Figure | None:
    """Return the curves of a run or of several; None for logs without values.

    For one run: bound, reconstruction and KL of both splits, the weight of the KL and the learning
    rate. For several: bound, reconstruction and KL on validation data.

    Args:
        runs: folders by the label of the run.
        several: whether several runs are compared.
    """
    panels = PANELS if several else (*PANELS, *SETTINGS)
    domains = SEVERAL if several else SINGLE
    data: list[Options] = []
    shown: dict[str, list[float]] = {name: [] for name, _ in panels}
    colours = cycle(SERIES)
    for label, folder in runs.items():
        colour = next(colours)
        for split in ("valid",) if several else ("train", "valid"):
            lines = _thinned([m for m in folder.lines(split) if split == "valid" or m["step"] > 0])
            for i, (name, _) in enumerate(panels):
                values = [real(m.get(name)) for m in lines]
                setting = i >= len(PANELS)
                if (setting and split == "valid") or not any(v is not None for v in values):
                    continue
                steps = [m["step"] for m in lines]
                shown[name] += _after_start(steps, values)
                trace = _trace(steps, values, split, colour, text(label) if several else "")
                trace |= {"yaxis": y_axis(i, "y"), "showlegend": i == 0}
                data.append(trace | (_setting_style() if setting else {}))
    if not data:
        return None
    kept = None if several else next(iter(runs.values())).kept
    whole = layout(
        620 if several else 720,
        hovermode="x unified",
        hoversubplots="axis",
        shapes=[] if kept is None else [_mark(kept["step"])],
    )
    whole |= {
        "margin": {"l": 52, "r": 14, "t": 34, "b": 40},
        "showlegend": True,
        "legend": LEGEND | {"x": 1, "xanchor": "right", "y": 1.02, "yanchor": "bottom"},
        "annotations": [
            title(words, top + 0.004) for (_, words), (_, top) in zip(panels, domains, strict=True)
        ],
        "xaxis": axis(
            title={"text": "step", "font": MUTED}, anchor=f"y{len(panels)}", hoverformat=",d"
        ),
    }
    for i, ((name, _), domain) in enumerate(zip(panels, domains, strict=True)):
        whole[y_axis(i)] = _value_axis(domain, shown[name], setting=i >= len(PANELS))
    return {"data": data, "layout": whole}


def _trace(
    steps: Sequence[float], values: Sequence[float | None], split: str, colour: str, label: str
) -> Options:
    """Return one curve. The label names the run if there are several."""
    colour = "--c2" if split == "train" else colour
    name = label or SPLITS[split]
    return {
        "type": "scatter",
        "mode": "lines+markers" if len(steps) < 60 else "lines",
        "x": steps,
        "y": values,
        "xaxis": "x",
        "name": name,
        "legendgroup": name,
        "hovertemplate": f"%{{y:.5~g}} {label}<extra>{'' if label else name}</extra>",
        "line": {"color": colour, "width": 1.8, "dash": "dot" if split == "train" else "solid"},
        "marker": {"size": 4, "color": colour},
    }


def _setting_style() -> Options:
    """Return the style of the curve of a setting, such as the learning rate."""
    return {"mode": "lines", "line": {"color": "--muted", "width": 1.4, "dash": "solid"}}


def _mark(step: float) -> Options:
    """Return a vertical line at the step of the weights in use."""
    return {
        "type": "line",
        "xref": "x",
        "yref": "paper",
        "x0": step,
        "x1": step,
        "y0": 0,
        "y1": 0.97,
        "line": {"color": "--accent", "width": 1, "dash": "dash"},
    }


def _value_axis(domain: tuple[float, float], values: list[float], *, setting: bool) -> Options:
    """Return the y-axis of a panel, with a range that contains the values."""
    options: Options = {"domain": list(domain), "nticks": 3 if setting else 5}
    if values:
        low, high = min(values), max(values)
        room = 0.08 * ((high - low) or abs(high) or 1.0)
        options["range"] = [0 if setting and low >= 0 else low - room, high + room]
    return axis(**options)


def _after_start(steps: Sequence[float], values: Sequence[float | None]) -> list[float]:
    """Return the values after the first steps, which the range of the axis leaves out."""
    start = 0.08 * max(steps)
    return [v for s, v in zip(steps, values, strict=True) if v is not None and s >= start]


def _thinned(lines: list[dict[str, Json]]) -> list[dict[str, Json]]:
    """Return at most MOST_POINTS lines, evenly spaced."""
    if len(lines) <= MOST_POINTS:
        return lines
    index = np.linspace(0, len(lines) - 1, MOST_POINTS).astype(int)
    return [lines[i] for i in index]
