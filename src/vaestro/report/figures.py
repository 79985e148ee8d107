"""Make figures as plain values, as Plotly reads them: {"data": [...], "layout": {...}}.

Colours are names of the page's own variables ("--accent"), which the page puts in when it draws a
figure, and again when its theme changes. Texts that Plotly would read as markup are escaped, since
names come from the data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from itertools import cycle
from typing import Any

import numpy as np

from vaestro.report.reading import Folder
from vaestro.report.words import LABELS, bounds_of, data_words, method, number, real

Figure = dict[str, Any]
# label, value, standard error, gap or None, side
Interval = tuple[str, float, float | None, float | None, str]
SERIES = ("--c1", "--c2", "--c3", "--c4", "--c5", "--c6", "--c7", "--c8", "--c9", "--c10", "--c11")
ROLES = {"informative": "--c1", "noise": "--c2", "off": "--faint", "unclear": "--c3"}
SHOWN_UNITS = 120
MOST_POINTS = 1500  # of a curve


def text(value: Any) -> str:
    """Escape what Plotly would read as markup."""
    return escape(str(value), quote=False)


def axis(**options: Any) -> dict[str, Any]:
    """Return an axis in the page's style."""
    base = {
        "gridcolor": "--rule",
        "linecolor": "--rule",
        "zeroline": False,
        "tickfont": {"size": 11, "color": "--muted"},
        "automargin": True,
        "fixedrange": False,
    }
    return base | options


def layout(height: int, **options: Any) -> dict[str, Any]:
    """Return a layout in the page's style; the page sets its font and its colours."""
    base = {
        "height": height,
        "margin": {"l": 52, "r": 14, "t": 14, "b": 40},
        "paper_bgcolor": "--none",
        "plot_bgcolor": "--none",
        "font": {"size": 12, "color": "--ink"},
        "hoverlabel": {"bgcolor": "--card", "bordercolor": "--rule", "font": {"color": "--ink"}},
        "showlegend": False,
    }
    return base | options


def title(words: str, y: float, x: float = 0.0) -> dict[str, Any]:
    """Return a panel's title, above its top left corner."""
    return {
        "text": words,
        "x": x,
        "y": y,
        "xref": "paper",
        "yref": "paper",
        "xanchor": "left",
        "yanchor": "bottom",
        "showarrow": False,
        "font": {"size": 12, "color": "--muted"},
    }


# -- curves ----------------------------------------------------------------------------------------

PANELS = (
    ("bound", "Bound on log p(x), nats: higher is better"),
    ("distortion", "Reconstruction (distortion), nats: lower is better"),
    ("rate", "KL (rate), nats"),
)
SETTINGS = (("beta", "Weight of the KL"), ("lr", "Learning rate"))


def curves(runs: Mapping[str, Folder], *, several: bool = False) -> Figure | None:
    """Draw bound, reconstruction and KL apart, with the KL's weight and the learning rate beneath;
    of several runs validation alone."""
    single = not several
    data: list[dict[str, Any]] = []
    shapes: list[dict[str, Any]] = []
    domains = (
        [(0.75, 0.97), (0.485, 0.705), (0.235, 0.44), (0.12, 0.18), (0.0, 0.06)]
        if single
        else [(0.70, 0.97), (0.36, 0.63), (0.0, 0.29)]
    )
    panels = (*PANELS, *SETTINGS) if single else PANELS
    seen: dict[str, list[float]] = {name: [] for name, _ in panels}
    colours = cycle(SERIES)
    for label, folder in runs.items():
        colour = next(colours)
        for split in ("train", "valid") if single else ("valid",):
            lines = _thinned([m for m in folder.lines(split) if split == "valid" or m["step"] > 0])
            steps = [m["step"] for m in lines]
            for i, (name, _) in enumerate(panels):
                if i >= len(PANELS) and split == "valid":
                    continue
                values = [real(m.get(name)) for m in lines]
                if not any(v is not None for v in values):
                    continue
                settled = [
                    v
                    for s, v in zip(steps, values, strict=True)
                    if v is not None and s >= 0.08 * max(steps)
                ]
                seen[name] += settled
                shown = (
                    {"train": "training", "valid": "validation"}[split] if single else text(label)
                )
                data.append(
                    {
                        "type": "scatter",
                        "mode": "lines+markers" if len(lines) < 60 and i < len(PANELS) else "lines",
                        "x": steps,
                        "y": values,
                        "yaxis": "y" if i == 0 else f"y{i + 1}",
                        "xaxis": "x",
                        "name": shown,
                        "legendgroup": shown,
                        "showlegend": i == 0,
                        "hovertemplate": f"%{{y:.5~g}} "
                        f"{'' if single else text(label)}<extra>{shown if single else ''}</extra>",
                        "line": {
                            "color": "--c2" if split == "train" else colour,
                            "width": 1.8,
                            "dash": "dot" if split == "train" and i < len(PANELS) else "solid",
                        },
                        "marker": {"size": 4, "color": "--c2" if split == "train" else colour},
                    }
                )
                if i >= len(PANELS):
                    data[-1]["line"] |= {"color": "--muted", "width": 1.4}
    if not data:
        return None
    kept = next(iter(runs.values())).kept if single else None
    if kept is not None:
        shapes.append(
            {
                "type": "line",
                "xref": "x",
                "yref": "paper",
                "x0": kept["step"],
                "x1": kept["step"],
                "y0": 0,
                "y1": 0.97,
                "line": {"color": "--accent", "width": 1, "dash": "dash"},
            }
        )
    made = layout(
        720 if single else 620, hovermode="x unified", hoversubplots="axis", shapes=shapes
    )
    made |= {
        "margin": {"l": 52, "r": 14, "t": 34, "b": 40},
        "showlegend": True,
        "legend": {
            "orientation": "h",
            "x": 1,
            "xanchor": "right",
            "y": 1.02,
            "yanchor": "bottom",
            "font": {"size": 12, "color": "--ink"},
            "bgcolor": "--none",
        },
        "annotations": [
            title(words, top + 0.004) for (_, words), (_, top) in zip(panels, domains, strict=True)
        ],
        "xaxis": axis(
            title={"text": "step", "font": {"size": 12, "color": "--muted"}},
            anchor=f"y{len(panels)}",
            hoverformat=",d",
        ),
    }
    for i, ((name, _), domain) in enumerate(zip(panels, domains, strict=True)):
        options: dict[str, Any] = {"domain": list(domain), "nticks": 5 if i < len(PANELS) else 3}
        if seen[name]:
            low, high = min(seen[name]), max(seen[name])
            room = 0.08 * ((high - low) or abs(high) or 1.0)
            options["range"] = [0 if i >= len(PANELS) and low >= 0 else low - room, high + room]
        made["yaxis" if i == 0 else f"yaxis{i + 1}"] = axis(**options)
    return {"data": data, "layout": made}


def _thinned(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if len(lines) <= MOST_POINTS:
        return lines
    index = np.linspace(0, len(lines) - 1, MOST_POINTS).astype(int)
    return [lines[i] for i in index]


# -- units -----------------------------------------------------------------------------------------


def units(diagnosis: Mapping[str, Any]) -> Figure | None:
    """Draw each unit's rate, activity and effect, sorted by rate."""
    every = [u for u in diagnosis.get("units") or [] if isinstance(u.get("unit"), int)]
    by = "rate" if any(real(u.get("rate")) is not None for u in every) else "activity"
    ranked = sorted((u for u in every if real(u.get(by)) is not None), key=lambda u: -u[by])[
        :SHOWN_UNITS
    ]
    if not ranked:
        return None
    panels = [
        (key, words)
        for key, words in (
            ("rate", "Rate, nats"),
            ("activity", "Activity: variance over data of the code’s mean"),
            ("effect", "Effect: nats of reconstruction lost without the unit"),
        )
        if any(real(u.get(key)) is not None for u in ranked)
    ]
    stacks: dict[int, list[tuple[float, float]]] = {
        1: [(0, 0.95)],
        2: [(0.5, 0.95), (0, 0.38)],
        3: [(0.66, 0.96), (0.33, 0.57), (0, 0.24)],
    }
    domains = stacks[len(panels)]
    names = [
        f"unit {u['unit']}" + (f" at {tuple(u['place'])}" if len(u.get("place") or ()) > 1 else "")
        for u in ranked
    ]
    colours = [
        ROLES.get(str(u.get("role")), "--c1" if u.get("active") else "--faint") for u in ranked
    ]
    data = []
    for i, (key, words) in enumerate(panels):
        bar: dict[str, Any] = {
            "type": "bar",
            "x": list(range(len(ranked))),
            "y": [real(u.get(key)) for u in ranked],
            "yaxis": "y" if i == 0 else f"y{i + 1}",
            "marker": {"color": colours, "line": {"width": 0}},
            "text": names,
            "textposition": "none",
            "customdata": [text(u.get("role", "")) for u in ranked],
            "hovertemplate": f"<b>%{{text}}</b> "
            f"%{{customdata}}<br>{words.split(':')[0].split(',')[0].lower()} "
            f"%{{y:.3~g}}<extra></extra>",
        }
        if key == "effect":
            bar["error_y"] = {
                "type": "data",
                "array": [real(u.get("effect_stderr")) or 0 for u in ranked],
                "color": "--muted",
                "thickness": 1,
                "width": 0,
            }
        data.append(bar)
    shown = (
        list(range(len(ranked)))
        if len(ranked) <= 24
        else list(range(0, len(ranked), math.ceil(len(ranked) / 20)))
    )
    made = layout(
        150 + 150 * len(panels),
        bargap=0.25,
        annotations=[
            title(w, top + 0.008) for (_, w), (_, top) in zip(panels, domains, strict=True)
        ],
    )
    made["xaxis"] = axis(
        tickvals=shown,
        ticktext=[str(ranked[i]["unit"]) for i in shown],
        anchor=f"y{len(panels)}" if len(panels) > 1 else "y",
        showgrid=False,
        title={"text": f"unit, by {by}", "font": {"size": 12, "color": "--muted"}},
        tickangle=0,
    )
    for i, domain in enumerate(domains):
        made["yaxis" if i == 0 else f"yaxis{i + 1}"] = axis(
            domain=list(domain), nticks=5, rangemode="tozero"
        )
    return {"data": data, "layout": made}


# -- bounds ----------------------------------------------------------------------------------------


def gaps(
    estimates: Sequence[Mapping[str, Any]], arrays: Mapping[str, np.ndarray]
) -> dict[str, tuple[float, float]]:
    """Return by how much log p(x) of data drawn from the model can lie above each method's bound
    there, and the standard error."""
    upper = arrays.get("simulated_ais_upper")
    found = {}
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
        found[str(e["method"])] = (
            float(difference.mean()),
            float(difference.std(ddof=1) / math.sqrt(len(difference))),
        )
    return found


def bounds(rows: Sequence[Interval]) -> Figure | None:
    """Draw bounds as intervals: a dot with two standard errors, and an arrow to where the truth can
    lie, or a bar over the gap.

    Args:
        rows: (label, value, standard error, gap or None, side).
    """
    if not rows:
        return None
    errors = [2 * (e or 0.0) for _, _, e, _, _ in rows]
    low = min(v - e for (_, v, *_), e in zip(rows, errors, strict=True))
    high = max(v + e + (g or 0.0) for (_, v, _, g, _), e in zip(rows, errors, strict=True))
    room = (high - low) or max(1.0, 0.01 * abs(low))
    annotations, shapes, data = [], [], []
    for i, ((label, value, error, gap, side), spread) in enumerate(zip(rows, errors, strict=True)):
        colour = "--c6" if side == "exact" else "--c1"
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [value],
                "y": [-i],
                "marker": {
                    "size": 10,
                    "color": colour,
                    "symbol": "diamond" if side == "exact" else "circle",
                },
                "error_x": {
                    "type": "data",
                    "array": [spread],
                    "color": colour,
                    "thickness": 3,
                    "width": 0,
                },
                "hovertemplate": f"{text(label)}<br>{number(value, error)} nats<extra></extra>",
                "showlegend": False,
            }
        )
        annotations.append(
            {
                "text": f"<b>{number(value, error)}</b><br>{text(label)}",
                "align": "left",
                "x": 0,
                "xref": "paper",
                "y": -i + 0.42,
                "yref": "y",
                "xanchor": "left",
                "showarrow": False,
                "font": {"size": 12, "color": "--ink"},
            }
        )
        if gap is not None:
            shapes.append(
                {
                    "type": "rect",
                    "x0": value,
                    "x1": value + gap,
                    "y0": -i - 0.1,
                    "y1": -i + 0.1,
                    "fillcolor": colour,
                    "opacity": 0.35,
                    "line": {"width": 0, "color": colour},
                }
            )
        elif side in ("lower", "upper"):
            sign = 1 if side == "lower" else -1
            annotations.append(
                {
                    "x": value + sign * (spread + 0.14 * room),
                    "y": -i,
                    "ax": value + sign * spread,
                    "ay": -i,
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
            )
    made = layout(72 + 72 * len(rows), shapes=shapes, annotations=annotations)
    made["margin"] = {"l": 14, "r": 14, "t": 10, "b": 44}
    made["xaxis"] = axis(
        range=[low - 0.08 * room, high + 0.2 * room],
        title={"text": "log p(x), nats for each datum", "font": {"size": 12, "color": "--muted"}},
        nticks=8,
    )
    made["yaxis"] = axis(visible=False, range=[-len(rows) + 0.7, 0.75], fixedrange=True)
    return {"data": data, "layout": made}


def bounds_of_folder(folder: Folder) -> Figure | None:
    """Draw the bounds that a run's evaluations hold, of the weights that it has now."""
    rows: list[Interval] = []
    for evaluation in filter(None, (folder.evaluation, *folder.others)):
        estimates = bounds_of(evaluation)
        measured = (
            gaps(evaluation.get("estimates", []), folder.arrays["evaluation"])
            if evaluation is folder.evaluation
            else {}
        )
        for e in estimates:
            label = f"{method(e)}, {data_words(evaluation, e.get('n', evaluation.get('n', 0)))}"
            gap = measured.get(str(e.get("method")))
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


def gap_words(folder: Folder) -> list[str]:
    """Say how far the truth can lie above each bound, where that was measured on data drawn from
    the model."""
    estimates = (folder.evaluation or {}).get("estimates", [])
    alike = all(e.get("alike", True) for e in estimates)
    return [
        f"On data drawn from the model, log p(x) lies above {LABELS.get(name, name)} by at most "
        f"{number(gap, error)} nats"
        + ("." if alike else "; those data may be unlike the real ones.")
        for name, (gap, error) in gaps(
            [e for e in estimates if e.get("on", "data") == "data"], folder.arrays["evaluation"]
        ).items()
    ]


# -- the map ---------------------------------------------------------------------------------------


def latent_map(
    showcase: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> dict[str, Any] | None:
    """Return what the page draws the map from: coordinates by projection, and each attribute's
    values or classes."""
    facts = showcase.get("map")
    if not facts:
        return None
    projections = [
        {
            "name": p["name"],
            "note": p["note"],
            "x": _rounded(arrays[f"map_{p['key']}"][:, 0]),
            "y": _rounded(arrays[f"map_{p['key']}"][:, 1]),
        }
        for p in facts["projections"]
        if f"map_{p['key']}" in arrays
    ]
    attributes: list[dict[str, Any]] = []
    for a in facts["attributes"]:
        if a["key"] not in arrays:
            continue
        values = arrays[a["key"]]
        made = {"name": text(a["name"]), "kind": a["kind"]}
        if a["kind"] == "category":
            last = len(a["classes"]) - 1
            colours = [c for c, _ in zip(cycle(SERIES), a["classes"], strict=False)]
            if a.get("others") or last >= len(SERIES):
                colours[last] = "--faint"
            made |= {
                "classes": [text(c) for c in a["classes"]],
                "colors": colours,
                "values": values.tolist(),
            }
        else:
            finite = values[np.isfinite(values)]
            low, high = np.quantile(finite, [0.02, 0.98]) if len(finite) else (0.0, 1.0)
            made |= {"values": _rounded(values), "low": float(low), "high": float(high)}
        attributes.append(made)
    rows = (showcase.get("rows") or {}).get("mapped")
    names = [text(n) for n in (showcase.get("columns") or {}).get("names", [])]
    cards = None if rows is None else [[text(c) for c in row] for row in rows]
    if not projections:
        return None
    made_layout = layout(460, hovermode="closest", dragmode="pan")
    made_layout["margin"] = {"l": 8, "r": 8, "t": 8, "b": 8}
    made_layout["legend"] = {
        "orientation": "h",
        "x": 0,
        "y": -0.02,
        "yanchor": "top",
        "font": {"size": 12, "color": "--ink"},
        "bgcolor": "--none",
        "itemsizing": "constant",
    }
    blank = {"showgrid": False, "showticklabels": False, "zeroline": False, "showline": False}
    made_layout["xaxis"], made_layout["yaxis"] = axis(**blank), axis(**blank)
    return {
        "projections": projections,
        "attributes": attributes,
        "layout": made_layout,
        "columns": names,
        "cards": cards,
    }


def _rounded(values: np.ndarray) -> list[float | None]:
    return [None if not math.isfinite(v) else float(f"{v:.4g}") for v in values.tolist()]
