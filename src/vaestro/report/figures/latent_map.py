"""The map of the codes: coordinates by projection, coloured by an attribute."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import cycle, islice
from typing import TypedDict

import numpy as np

from vaestro.files import Json
from vaestro.report.figures.style import LEGEND, SERIES, Options, axis, layout, text


class Map(TypedDict):
    """The values from which the page draws the map.

    projections: name, note and coordinates of each projection. attributes: name, kind and values
    of each attribute. columns, cards: names and cells of the rows that are shown for a point.
    """

    projections: list[Options]
    attributes: list[Options]
    layout: Options
    columns: list[str]
    cards: list[list[str]] | None


def latent_map(showcase: Mapping[str, Json], arrays: Mapping[str, np.ndarray]) -> Map | None:
    """Return the map of the codes; None if the showcase has no projection.

    Args:
        showcase: the content of showcase.json.
        arrays: the arrays of showcase.npz.
    """
    facts = showcase.get("map")
    if not facts:
        return None
    projections: list[Options] = [
        {
            "name": p["name"],
            "note": p["note"],
            "x": _rounded(arrays[f"map_{p['key']}"][:, 0]),
            "y": _rounded(arrays[f"map_{p['key']}"][:, 1]),
        }
        for p in facts["projections"]
        if f"map_{p['key']}" in arrays
    ]
    if not projections:
        return None
    rows = (showcase.get("rows") or {}).get("mapped")
    return {
        "projections": projections,
        "attributes": [
            _attribute(a, arrays[a["key"]]) for a in facts["attributes"] if a["key"] in arrays
        ],
        "layout": _layout(),
        "columns": [text(n) for n in (showcase.get("columns") or {}).get("names", [])],
        "cards": None if rows is None else [[text(c) for c in row] for row in rows],
    }


def _attribute(facts: Mapping[str, Json], values: np.ndarray) -> Options:
    """Return an attribute with its values: classes with colours, or numbers with a range."""
    attribute: Options = {"name": text(facts["name"]), "kind": facts["kind"]}
    if facts["kind"] != "category":
        finite = values[np.isfinite(values)]
        low, high = np.quantile(finite, [0.02, 0.98]) if len(finite) else (0.0, 1.0)
        return attribute | {"values": _rounded(values), "low": float(low), "high": float(high)}
    classes = facts["classes"]
    colours = list(islice(cycle(SERIES), len(classes)))
    if facts.get("others") or len(classes) > len(SERIES):
        colours[-1] = "--faint"
    return attribute | {
        "classes": [text(c) for c in classes],
        "colors": colours,
        "values": values.tolist(),
    }


def _layout() -> Options:
    blank = axis(showgrid=False, showticklabels=False, zeroline=False, showline=False)
    return layout(460, hovermode="closest", dragmode="pan") | {
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
        "legend": LEGEND | {"x": 0, "y": -0.02, "yanchor": "top", "itemsizing": "constant"},
        "xaxis": blank,
        "yaxis": blank,
    }


def _rounded(values: np.ndarray) -> list[float | None]:
    return [None if not math.isfinite(v) else float(f"{v:.4g}") for v in values.tolist()]
