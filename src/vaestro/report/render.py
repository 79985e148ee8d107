"""Render a page from the files of a run's folder, or of several."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import TypedDict, TypeVar

import numpy as np
from jinja2 import DictLoader, Environment
from markupsafe import Markup

import vaestro
from vaestro.files import Json
from vaestro.report import figures, meaning, pictures, sections
from vaestro.report.reading import Folder, read_folder
from vaestro.report.resemblance import resemblance
from vaestro.report.words import (
    Result,
    data_words,
    diffusion,
    number,
    real,
    result_of,
    short,
    verdict_of,
)

Values = sections.Values
Made = TypeVar("Made")
BROKEN = (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError)
SECTIONS = (
    ("findings", "Findings"),
    ("pictures", "Pictures"),
    ("latent", "Latent space"),
    ("curves", "Training"),
    ("bounds", "Bounds"),
    ("repeat", "Repeat"),
)
LIMIT = 8_000_000  # bytes of a page


class Summary(TypedDict):
    """The values that every page on a run shows."""

    verdict: str
    tone: str
    summary: str
    result: Result | None
    findings: list[Values]
    images: Values | None
    rows: Values | None


@dataclass(frozen=True)
class Page:
    """The values for a template, and the data of its figures by the id of their elements."""

    values: Values
    blobs: Mapping[str, Mapping[str, object]]


def run_page(path: str | Path, notes: Sequence[str] = ()) -> str:
    """Return the report of a run's folder as HTML.

    Args:
        path: the folder.
        notes: a line for each result that could not be computed.

    Raises:
        ValueError: it is not a run's folder.
    """
    folder = read_folder(Path(path))
    return _page("run.html", run_values(folder, notes), identity([folder.path]))


def runs_page(
    paths: Sequence[str | Path],
    names: Sequence[str],
    comparison: Mapping[str, Json] | None,
    notes: Sequence[str] = (),
    beside: Path | None = None,
) -> str:
    """Return the report of several runs as HTML.

    Args:
        paths: their folders.
        names: unique names of the runs.
        comparison: `Comparison.record` of the runs, or None.
        notes: a line for each result that could not be computed.
        beside: the folder of the page, from which the reports of single runs are linked.

    Raises:
        ValueError: a folder is not a run's.
    """
    folders = [read_folder(Path(p)) for p in paths]
    page = runs_values(dict(zip(names, folders, strict=True)), comparison or {}, notes, beside)
    return _page("runs.html", page, identity([f.path for f in folders]))


def identity(paths: Sequence[Path]) -> str:
    """Return a hash of the paths of the runs of a report."""
    return hashlib.sha256(b"\n".join(os.fsencode(p.resolve()) for p in paths)).hexdigest()[:16]


def made_of(path: Path, identity: str, *, any_run: bool) -> bool:
    """Return whether a file is a report of the same runs, or of any runs with `any_run`, so that it
    may be replaced."""
    head = _Head()
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            head.feed(file.read(2000))
    except OSError:
        return False
    return head.named.get("generator", "").startswith("vaestro ") and (
        any_run or head.named.get("vaestro-runs") == identity
    )


class _Head(HTMLParser):
    """Collect the named meta tags of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.named: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "meta" and values.get("name"):
            self.named[str(values["name"])] = str(values.get("content"))


@cache
def _environment() -> tuple[Environment, dict[str, str]]:
    folder = resources.files("vaestro.report") / "page"
    files = {
        f.name: f.read_text("utf-8")
        for f in folder.iterdir()
        if f.name.endswith((".html", ".css", ".js"))
    }
    return Environment(loader=DictLoader(files), autoescape=True, trim_blocks=True), files


def _page(template: str, page: Page, identity: str) -> str:
    from plotly.offline import get_plotlyjs

    environment, files = _environment()
    style = (
        files["style.css"].replace("@light", files["light.css"]).replace("@dark", files["dark.css"])
    )
    return environment.get_template(template).render(
        **page.values,
        blobs={name: Markup(_json(value)) for name, value in page.blobs.items()},
        # The policy of the page blocks scripts without it.
        nonce=os.urandom(12).hex(),
        identity=identity,
        version=vaestro.__version__,
        style=Markup(style),
        plotly=Markup(get_plotlyjs()),
        app=Markup(files["app.js"]),
    )


def _json(value: object) -> str:
    """Return JSON that cannot end the HTML element that contains it."""
    text = json.dumps(_finite(value), allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


class _Builder:
    """Builder of the parts of a page. A part whose files cannot be read becomes a note."""

    def __init__(self, folder: Folder, notes: list[str]) -> None:
        self.folder, self.notes = folder, notes
        self.blobs: dict[str, Mapping[str, object]] = {}

    def part(self, what: str, build: Callable[[Folder], Made]) -> Made | None:
        """Return a part; or add a note and return None if it cannot be built."""
        try:
            return build(self.folder)
        except BROKEN as error:
            unknown = f"this version cannot read its entry in the files ({type(error).__name__})"
            self.notes.append(f"{what} cannot be shown: {unknown}")
            return None

    def figure(
        self, name: str, label: str, build: Callable[[Folder], figures.Figure | None]
    ) -> Values | None:
        """Add a figure to the page; return its id, label and height."""
        figure = self.part(f"the figure of {name}", build)
        if figure is None:
            return None
        self.blobs[f"figure-{name}"] = figure
        return {"id": f"figure-{name}", "label": label, "height": figure["layout"]["height"]}

    def summary(self) -> Summary:
        """Return the values that every page on a run shows."""
        verdict, tone, summary = self.part("the verdict", verdict_of) or ("unknown", "none", "")
        return {
            "verdict": verdict,
            "tone": tone,
            "summary": sections.sentence(summary),
            "result": self.part("the bound", result_of),
            "findings": self.part("findings", sections.findings) or [],
            "images": self.part("pictures", sections.images),
            "rows": self.part("rows", sections.rows),
        }

    def map(self) -> Values | None:
        """Add the data of the map to the page; return its label and menus."""

        def built(folder: Folder) -> Values | None:
            showcase, arrays = folder.showcase or {}, folder.arrays.get("showcase", {})
            figure = figures.latent_map(showcase, arrays)
            if figure is None:
                return None
            sheet = pictures.sheet(arrays["thumbnails"]) if "thumbnails" in arrays else None
            self.blobs["map-data"] = {**figure, "sheet": None if sheet is None else vars(sheet)}
            names = [p["name"] for p in showcase["map"]["projections"]]
            attributes = [a["name"] for a in showcase["map"]["attributes"] if a["key"] in arrays]
            n = f"{showcase['map']['n']:,}"
            label = f"Codes of {n} data, projected by {' or '.join(names)}" + (
                f", coloured by {attributes[0]}" if attributes else ""
            )
            chosen = names.index("t-SNE") if "t-SNE" in names else 0
            return {
                "n": n,
                "projections": names,
                "attributes": attributes,
                "label": label,
                "chosen": chosen,
            }

        return self.part("the map", built)


def run_values(folder: Folder, notes: Sequence[str] = ()) -> Page:
    """Return the values for the template of one run."""
    all_notes = [*notes, *(n for n in folder.notes if not any(n in old for old in notes))]
    all_notes += [n for n in (folder.showcase or {}).get("notes", []) if isinstance(n, str)]
    build = _Builder(folder, all_notes)
    summary = build.summary()
    result = summary["result"]
    value, _, spread = (
        number(result.value, result.error).partition(" ± ") if result else ("", "", "")
    )
    units = (folder.diagnosis or {}).get("units") or []
    values: Values = {
        **summary,
        "title": f"{folder.name} – {summary['verdict']}",
        "heading": folder.name,
        "eyebrow": sections.eyebrow(folder),
        "sections": SECTIONS,
        "value": value,
        "spread": spread,
        "numbers": build.part("the numbers", sections.numbers) or [],
        "diagnosed": folder.diagnosis is not None,
        "weights": (folder.path / "model.safetensors").exists(),
        "split": sections.split(folder),
        "diffusion": diffusion(folder),
        "given": ", ".join(map(str, (folder.showcase or {}).get("given") or [])),
        "has_latent": (folder.showcase or {}).get("latent", True),
        "latent_lead": build.part("the latent space", sections.latent_lead),
        "units_figure": build.figure(
            "units",
            "Rate and activity of each latent unit, sorted",
            lambda f: figures.units(f.diagnosis or {}),
        ),
        "units_cut": f"{figures.SHOWN_UNITS} of {len(units):,}"
        if len(units) > figures.SHOWN_UNITS
        else "",
        "meanings": build.part("the meaning of units", meaning.unit_meanings),
        "probes": build.part("the probes", meaning.probes),
        "disentanglement": build.part("the disentanglement", meaning.disentanglement),
        "checks": build.part("the checks", sections.checks) or [],
        "moves": build.part("traversals", sections.moves),
        "map": build.map(),
        "aggregates": build.part("the aggregate posterior", sections.aggregates) or [],
        "curves_lead": build.part("training", sections.curves_lead),
        "curves_figure": build.figure(
            "curves",
            "Bound, reconstruction and KL over the steps of training, with the weight of the KL "
            "and the learning rate below",
            lambda f: figures.curves({"": f}),
        ),
        "bounds_figure": build.figure(
            "bounds", "Bounds on log p(x) as intervals", figures.bounds_of_folder
        ),
        "bound_sentences": build.part("the bounds", sections.bound_sentences) or [],
        "tighter": sections.tighter(folder),
        "resemblance": build.part("the samples", resemblance),
        "commands": build.part("the commands", sections.commands) or [],
        "settings": build.part("the settings", sections.settings) or [],
        "notes": all_notes,
    }
    return Page(values, build.blobs)


def runs_values(
    folders: Mapping[str, Folder],
    comparison: Mapping[str, Json],
    notes: Sequence[str] = (),
    beside: Path | None = None,
) -> Page:
    """Return the values for the template of several runs, from folders by name."""
    shared = _Builder(next(iter(folders.values())), list(notes))
    by_name = {r["name"]: r for r in comparison.get("rows", [])}
    groups = comparison.get("groups") or [{"names": list(folders), "title": ""}]
    intervals, curves = [], []
    for i, group in enumerate(groups):
        lines = [
            by_name[name]
            for name in group["names"]
            if name in by_name and real(by_name[name]["log_px"]) is not None
        ]
        drawn = [
            (f"{r['name']}, {r['method']}", r["log_px"], r["stderr"], _gap(r), r["side"])
            for r in lines
        ]
        if len(drawn) > 1:
            figure = shared.figure(
                f"intervals-{i}",
                "Bounds on log p(x) of the runs, as intervals",
                partial(_intervals, drawn),
            )
            intervals += (
                [{**figure, "title": sections.typeset(str(group["title"]))}] if figure else []
            )
        members = {name: folders[name] for name in group["names"] if name in folders}
        label = (
            f"Validation bound, reconstruction and KL of {', '.join(members)} over the steps of "
            f"training"
        )
        figure = shared.figure(f"curves-{i}", label, partial(_curves, members))
        curves += [{**figure, "title": ", ".join(members)}] if figure else []
    ranking = next((g["summary"] for g in comparison.get("groups", []) if g.get("ranking")), "")
    values: Values = {
        "title": f"{len(folders)} runs compared",
        "heading": f"{len(folders)} runs compared",
        "eyebrow": ", ".join(str(f.path) for f in folders.values()),
        "sections": [
            ("follows", "What follows"),
            ("curves", "Training"),
            *((f"run-{i}", name) for i, name in enumerate(folders, 1)),
        ],
        "ranking": ranking[:1].upper() + ranking[1:],
        "runs": [_one_of_several(name, folder, beside) for name, folder in folders.items()],
        "sentences": [sections.typeset(str(s)) for s in comparison.get("statements", [])],
        "interval_figures": intervals,
        "curves_figures": curves,
        "notes": shared.notes,
    }
    return Page(values, shared.blobs)


def _intervals(rows: Sequence[figures.Interval], _: Folder) -> figures.Figure | None:
    return figures.bounds(rows)


def _curves(folders: Mapping[str, Folder], _: Folder) -> figures.Figure | None:
    return figures.curves(folders, several=True)


def _gap(row: Mapping[str, Json]) -> float | None:
    return None if row["interval_high"] is None else row["interval_high"] - row["log_px"]


def _one_of_several(name: str, folder: Folder, beside: Path | None) -> Values:
    notes = list(folder.notes)
    build = _Builder(folder, notes)
    summary = build.summary()
    result, evaluation = summary["result"], folder.evaluation or {}
    report = folder.path / "report.html"
    data = (
        f"{data_words(evaluation, evaluation.get('n', 0))} "
        f"({str(evaluation.get('data_sha256', ''))[:8]})"
    )
    return {
        **summary,
        "name": name,
        "bound": f"{result.sign} {number(result.value, result.error)}" if result else "–",
        "rate": short(evaluation.get("rate", (folder.kept or {}).get("rate"))),
        "active": build.part("active units", sections.active_units),
        "data": data if evaluation else "–",
        "link": os.path.relpath(report, beside) if beside is not None and report.exists() else "",
        "notes": notes,
    }
