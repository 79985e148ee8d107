"""The rate, activity and effect of each latent unit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from vaestro.files import Json
from vaestro.report.figures.style import MUTED, Figure, Options, axis, layout, text, title, y_axis
from vaestro.report.words import real

ROLES = {"informative": "--c1", "noise": "--c2", "off": "--faint", "unclear": "--c3"}
SHOWN_UNITS = 120
PANELS = (
    ("rate", "Rate, nats"),
    ("activity", "Activity: variance over data of the code’s mean"),
    ("effect", "Effect: nats of reconstruction lost without the unit"),
)
# from bottom to top of each panel, as shares of the height, by the number of panels
DOMAINS = {
    1: ((0.0, 0.95),),
    2: ((0.5, 0.95), (0.0, 0.38)),
    3: ((0.66, 0.96), (0.33, 0.57), (0.0, 0.24)),
}


def units(diagnosis: Mapping[str, Json]) -> Figure | None:
    """Return bars of the rate, activity and effect of each unit, sorted by rate; None without
    units.

    Args:
        diagnosis: the content of diagnosis.json.

    >>> units({"units": [{"unit": 0, "rate": 1.5, "activity": 0.9}]})["data"][0]["y"]
    [1.5]
    """
    every = [u for u in diagnosis.get("units") or [] if isinstance(u.get("unit"), int)]
    by = "rate" if any(real(u.get("rate")) is not None for u in every) else "activity"
    ranked = sorted((u for u in every if real(u.get(by)) is not None), key=lambda u: -u[by])
    ranked = ranked[:SHOWN_UNITS]
    if not ranked:
        return None
    panels = [
        (key, words) for key, words in PANELS if any(real(u.get(key)) is not None for u in ranked)
    ]
    domains = DOMAINS[len(panels)]
    data = []
    for i, (key, words) in enumerate(panels):
        data.append(_bars(ranked, key, words) | {"yaxis": y_axis(i, "y")})
    whole = layout(
        150 + 150 * len(panels),
        bargap=0.25,
        annotations=[
            title(words, top + 0.008) for (_, words), (_, top) in zip(panels, domains, strict=True)
        ],
    )
    every_nth = 1 if len(ranked) <= 24 else math.ceil(len(ranked) / 20)
    ticks = list(range(0, len(ranked), every_nth))
    whole["xaxis"] = axis(
        tickvals=ticks,
        ticktext=[str(ranked[i]["unit"]) for i in ticks],
        anchor=f"y{len(panels)}" if len(panels) > 1 else "y",
        showgrid=False,
        title={"text": f"unit, by {by}", "font": MUTED},
        tickangle=0,
    )
    for i, domain in enumerate(domains):
        whole[y_axis(i)] = axis(domain=list(domain), nticks=5, rangemode="tozero")
    return {"data": data, "layout": whole}


def _bars(ranked: Sequence[Mapping[str, Json]], key: str, words: str) -> Options:
    """Return one quantity of the units as bars, with errors for the effect."""
    names = [
        f"unit {u['unit']}" + (f" at {tuple(u['place'])}" if len(u.get("place") or ()) > 1 else "")
        for u in ranked
    ]
    colours = [
        ROLES.get(str(u.get("role")), "--c1" if u.get("active") else "--faint") for u in ranked
    ]
    quantity = words.split(":")[0].split(",")[0].lower()
    bars: Options = {
        "type": "bar",
        "x": list(range(len(ranked))),
        "y": [real(u.get(key)) for u in ranked],
        "marker": {"color": colours, "line": {"width": 0}},
        "text": names,
        "textposition": "none",
        "customdata": [text(u.get("role", "")) for u in ranked],
        "hovertemplate": f"<b>%{{text}}</b> %{{customdata}}<br>{quantity} %{{y:.3~g}}"
        "<extra></extra>",
    }
    if key == "effect":
        bars["error_y"] = {
            "type": "data",
            "array": [real(u.get("effect_stderr")) or 0 for u in ranked],
            "color": "--muted",
            "thickness": 1,
            "width": 0,
        }
    return bars
