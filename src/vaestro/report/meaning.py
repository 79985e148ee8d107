"""The tables of the report that say what units and codes mean."""

from __future__ import annotations

from collections.abc import Mapping

from vaestro.files import Json
from vaestro.report.reading import Folder
from vaestro.report.words import SPLITS, plain, real, short

SHOWN = 24  # units
STRONGEST = 3  # attributes of a unit
FEATURES = ("codes", "raw", "PCA")
Values = dict[str, object]  # for a template


def unit_names(folder: Folder) -> dict[int, str]:
    """Return the names that the user gave to units."""
    units = (folder.units or {}).get("units") or []
    return {u["unit"]: u["name"] for u in units if u.get("name")}


def unit_meanings(folder: Folder) -> Values | None:
    """Return a row for each unit: its name, rate, role and strongest attributes; None if no unit
    has a name or an attribute."""
    record = folder.units or {}
    units = record.get("units") or []
    if not any(u.get("name") or u.get("attributes") for u in units):
        return None
    rows = [
        {
            "unit": u["unit"],
            "name": u.get("name") or "",
            "rate": short(u.get("rate")),
            "role": u.get("role", ""),
            "attributes": ", ".join(_words(a) for a in (u.get("attributes") or [])[:STRONGEST]),
        }
        for u in units[:SHOWN]
    ]
    split = str(record.get("split", ""))
    return {
        "rows": rows,
        "n": f"{record.get('n', 0):,} {SPLITS.get(split, split)} data",
        "cut": f"The {SHOWN} of {len(units):,} units with the largest rates are shown."
        if len(units) > SHOWN
        else "",
    }


def _words(attribute: Mapping[str, Json]) -> str:
    """Return an attribute with its correlation, signed for numbers."""
    value = real(attribute.get("value")) or 0.0
    sign = "+" if attribute.get("kind") == "number" and value > 0 else ""
    return f"{attribute['attribute']} {sign}{plain(value)}"


def probes(folder: Folder) -> Values | None:
    """Return a row for each attribute and probe, and the conclusions; None without probes."""
    record = folder.probes or {}
    rows = []
    for probe in record.get("probes") or []:
        for name in ("linear", "kNN"):
            scores = {s["features"]: s for s in probe["scores"] if s["probe"] == name}
            if scores:
                rows.append(
                    {
                        "name": f"{probe['name']}, {name}",
                        "measure": probe["measure"].replace("R2", "R²"),
                        "baseline": _two(probe["baseline"]),
                        "cells": [_score(scores.get(f)) for f in FEATURES],
                        "few": [_few(scores.get(f)) for f in FEATURES],
                    }
                )
    sentences = [
        {"name": probe["name"], "words": "; ".join(probe["statements"]).replace("R2", "R²") + "."}
        for probe in record.get("probes") or []
    ]
    labels = next((p["labels"] for p in record.get("probes") or []), 0)
    if not rows and not sentences:
        return None
    used = str(record.get("rows", ""))
    return {"rows": rows, "sentences": sentences, "labels": labels, "used": used}


def _score(score: Mapping[str, Json] | None) -> str:
    """Return a score with its interval."""
    if score is None or real(score.get("value")) is None:
        return "–"
    ends = (_two(real(score.get(end)) or 0.0) for end in ("low", "high"))
    return f"{_two(score['value'])} ({' to '.join(ends)})"


def _few(score: Mapping[str, Json] | None) -> str:
    """Return the score with few labels."""
    value = None if score is None else real(score.get("few"))
    return "–" if value is None else _two(value)


def _two(value: float) -> str:
    """Return a number with two decimals, and no sign for 0."""
    return plain(round(value, 2) + 0.0)


def disentanglement(folder: Folder) -> Values | None:
    """Return a row for each metric of disentanglement; None without them."""
    record = folder.disentanglement
    if record is None:
        return None
    rows = []
    for metric in record["metrics"]:
        low, high = real(metric.get("low")), real(metric.get("high"))
        interval = "–" if low is None or high is None else f"{_two(low)} to {_two(high)}"
        value, chance = (real(metric.get(key)) for key in ("value", "chance"))
        words = ("–" if x is None else _two(x) for x in (value, chance))
        rows.append({"name": metric["name"], "interval": interval, "words": list(words)})
    factors = ", ".join(map(str, record["factors"]))
    return {"rows": rows, "about": f"{record['about']}; factors {factors}"}
