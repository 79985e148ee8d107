"""Put a page together from the files of a run's folder, or of several."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jinja2 import DictLoader, Environment
from markupsafe import Markup

import vaestro
from vaestro.report import figures, pictures, sketches
from vaestro.report.reading import Folder, read_folder
from vaestro.report.words import (
    SPLITS,
    Result,
    bounds_of,
    data_words,
    duration,
    method,
    number,
    plain,
    real,
    result_of,
    short,
    verdict_of,
)

Made = TypeVar("Made")
BROKEN = (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError)
SEVERITIES = {"error": "needs mending", "warning": "worth mending", "note": "good to know"}
ANCHORS = {"curves": "curves", "units": "latent", "aggregate": "latent", "bounds": "bounds", "scores": "latent", "dependence": "latent", "logvar": "latent"}
NOTHING = "Nothing: none of the checks found a fault."
SECTIONS = (("findings", "Findings"), ("pictures", "Pictures"), ("latent", "Latent space"), ("curves", "Training"), ("bounds", "Bounds"), ("repeat", "Repeat"))
HERO = 36
AGGREGATES = 8
TABLES = 4  # traversals of tables shown
LIMIT = 8_000_000


# -- a page -----------------------------------------------------------------------------------------------------------


def run_page(path: str | Path, notes: Sequence[str] = ()) -> str:
    """Return the report of a run's folder as HTML.

    Args:
        path: the folder.
        notes: what could not be computed, a line each.

    Raises:
        ValueError: it is not a run's folder.
    """
    folder = read_folder(Path(path))
    context = _run_context(folder, list(notes))
    return _page("run.html", context, identity([folder.path]))


def runs_page(
    paths: Sequence[str | Path], names: Sequence[str], comparison: Mapping[str, Any] | None, notes: Sequence[str] = (), beside: Path | None = None
) -> str:
    """Return the report of several runs as HTML.

    Args:
        paths: their folders.
        names: what tells them apart.
        comparison: what `Comparison.record` says of them, or None.
        notes: what could not be computed, a line each.
        beside: the folder that the page will lie in; reports of single runs are linked from there.

    Raises:
        ValueError: a folder is not a run's.
    """
    folders = [read_folder(Path(p)) for p in paths]
    return _page("runs.html", _runs_context(folders, names, comparison, list(notes), beside), identity([f.path for f in folders]))


def identity(paths: Sequence[Path]) -> str:
    """Return what a report says of which runs it is of."""
    return hashlib.sha256("\n".join(str(p.resolve()) for p in paths).encode()).hexdigest()[:16]


def made_of(path: Path, own: str, *, any_run: bool) -> bool:
    """Tell whether a file is a report of the same runs, or where `any_run` of any, and may be written anew."""

    class Head(HTMLParser):
        found: dict[str, str]

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            held = dict(attrs)
            if tag == "meta" and held.get("name"):
                self.found[str(held["name"])] = str(held.get("content"))

    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            start = file.read(2000)
    except OSError:
        return False
    head = Head()
    head.found = {}
    head.feed(start)
    ours = head.found.get("generator", "").startswith("vaestro ")
    return ours and (any_run or head.found.get("vaestro-runs") == own)


@cache
def _files() -> dict[str, str]:
    folder = resources.files("vaestro.report") / "page"
    return {f.name: f.read_text("utf-8") for f in folder.iterdir() if f.name.endswith((".html", ".css", ".js"))}


def _page(template: str, context: dict[str, Any], own: str) -> str:
    from plotly.offline import get_plotlyjs

    files = _files()
    environment = Environment(loader=DictLoader(files), autoescape=True, trim_blocks=True)
    style = files["style.css"].replace("@light", files["light.css"]).replace("@dark", files["dark.css"])
    blobs = {name: Markup(_json(value)) for name, value in context.pop("blobs").items()}
    # Scripts run by a nonce that follows from the page's content: what content brings along cannot know it.
    nonce = hashlib.sha256("".join([own, *blobs.values(), repr(sorted(context, key=str))]).encode() + os.urandom(16)).hexdigest()[:24]
    return environment.get_template(template).render(
        **context, blobs=blobs, nonce=nonce, identity=own, version=vaestro.__version__, style=Markup(style), plotly=Markup(get_plotlyjs()),
        app=Markup(files["app.js"]),
    )  # fmt: skip


def _json(value: Any) -> str:
    """Write JSON that cannot end the element it lies in."""
    return json.dumps(_finite(value), allow_nan=False, separators=(",", ":")).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


class _Builder:
    """Build the parts of a page; what a file's content does not allow becomes a note, and the rest stands."""

    def __init__(self, folder: Folder, notes: list[str]) -> None:
        self.folder, self.notes, self.blobs = folder, notes, dict[str, Any]()

    def part(self, what: str, build: Callable[[], Made], default: Made) -> Made:
        """Build a part, or return the default with a note."""
        try:
            return build()
        except BROKEN as error:
            self.notes.append(f"{what} cannot be shown: the files say it in a way that this version does not know ({type(error).__name__})")
            return default

    def figure(self, name: str, what: str, build: Callable[[], figures.Figure | None], caption: Callable[[], str]) -> dict[str, Any] | None:
        """Build a figure and lay its values into the page."""

        def made() -> dict[str, Any] | None:
            figure = build()
            if figure is None:
                return None
            self.blobs[f"figure-{name}"] = figure
            return {"label": what, "caption": caption(), "height": figure["layout"]["height"]}

        return self.part(what, made, None)


# -- one run ----------------------------------------------------------------------------------------------------------


def _run_context(folder: Folder, notes: list[str]) -> dict[str, Any]:
    notes += [n for n in folder.notes if not any(n in old for old in notes)]
    notes += [n for n in (folder.showcase or {}).get("notes", []) if isinstance(n, str)]
    build = _Builder(folder, notes)
    result = build.part("the bound", lambda: result_of(folder), None)
    verdict, tone, summary = build.part("the verdict", lambda: verdict_of(folder), ("unknown", "none", ""))
    images, size = build.part("pictures", lambda: _images(folder), (None, None))
    rows = build.part("rows", lambda: _rows(folder), None)
    cards = build.part("findings", lambda: findings(folder), [])
    mapped = build.part("the map", lambda: _map(build), None)
    aggregates = build.part("the aggregate posterior", lambda: _aggregates(folder), [])
    moves = build.part("traversals", lambda: _moves(folder, images), None)
    split = SPLITS.get(split := str((folder.showcase or {}).get("split", "held-out")), split)
    given = ", ".join(map(str, (folder.showcase or {}).get("given") or []))
    no_showcase = "There are no pictures: " + ("the run has no weights yet." if not (folder.path / "model.safetensors").exists() else "showcase.json is not in the run’s folder.")
    value, _, spread = number(result.value, result.error).partition(" ± ") if result else ("", "", "")
    context: dict[str, Any] = {
        "title": f"{folder.name} – {verdict}", "heading": folder.name, "eyebrow": _eyebrow(folder), "sections": SECTIONS, "verdict": verdict,
        "tone": tone, "summary": summary, "result": result, "value": value, "spread": spread,
        "no_result": "The run was not evaluated: how good it is, is not known.",
        "facts": build.part("the numbers", lambda: _facts(folder, result), []), "findings": cards, "size": size,
        "nothing_found": NOTHING if folder.diagnosis is not None else "The run was not diagnosed: diagnosis.json is not in its folder.",
        "images": images, "rows": rows, "split": split, "given": given, "no_showcase": no_showcase, "hero": _hero(images, rows, given),
        "latent_lead": build.part("the latent space", lambda: _latent_lead(folder), ""), "checks": build.part("the checks", lambda: _checks(folder), []),
        "no_units": "What each unit carries is not known: there is no diagnosis with units in the run’s folder.",
        "moves": moves, "map": mapped, "aggregates": aggregates,
        "aggregate_caption": "Each unit’s codes, drawn from q(z | x) over the data, against the prior; those that differ most come first. Samples start at the prior: where it has mass and the codes have none, the decoder has never been trained.",
        "units_figure": build.figure("units", "Rate and activity of each latent unit, sorted by rate", lambda: figures.units(folder.diagnosis or {}), lambda: _units_caption(folder)),
        "curves_figure": build.figure("curves", "Bound, reconstruction and KL over the steps of training, with the weight of the KL and the learning rate beneath", lambda: figures.curves([("", folder)]), lambda: _curves_caption(folder)),
        "curves_lead": build.part("training", lambda: _curves_lead(folder), ""), "no_curves": "There are no curves: metrics.jsonl has no lines that can be read.",
        "bounds_figure": build.figure("bounds", "Bounds on log p(x) as intervals", lambda: figures.bounds_of_folder(folder), _bounds_caption),
        "bounds_lead": "Every number here is a bound: nobody can compute log p(x) itself. How far a bound lies below the truth is the gap.",
        "bound_sentences": build.part("the bounds", lambda: _bound_sentences(folder), []),
        "tighter": f"vaestro evaluate {shlex.quote(str(folder.path))} --k 5000 --methods elbo,iwae,ais,gap,information",
        "repeat_lead": "The same options, data and seed on a machine of the same kind give the same run.", "commands": build.part("the commands", lambda: _commands(folder), []),
        "settings": build.part("the settings", lambda: _settings(folder), []), "notes": notes, "blobs": build.blobs,
    }  # fmt: skip
    return context


def _eyebrow(folder: Folder) -> str:
    space = (folder.showcase or folder.evaluation or {}).get("space")
    return " · ".join(str(p) for p in (folder.config.get("source", ""), space, str(folder.path)) if p)


def _facts(folder: Folder, result: Result | None) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []

    def add(name: str, value: str, note: str = "") -> None:
        found.append({"name": name, "value": value, "note": note})

    diagnosis, evaluation = folder.diagnosis or {}, folder.evaluation or {}
    kept = folder.kept or {}
    rate = next((r for s in (evaluation, diagnosis, kept) if (r := real(s.get("rate"))) is not None), None)
    distortion = next((d for s in (evaluation, diagnosis, kept) if (d := real(s.get("distortion"))) is not None), None)
    if distortion is not None:
        add("Reconstruction", short(distortion), "nats lost, given the code")
    if rate is not None:
        add("KL", short(rate), "nats that the code costs")
    units = diagnosis.get("units") or []
    active = real(diagnosis.get("active_units"))
    if active is not None:
        add("Active units", f"{active:,.0f} of {len(units):,}" if units else f"{active:,.0f}", "depend on the data")
    information, ceiling = diagnosis.get("mutual_information"), real(diagnosis.get("mutual_information_ceiling"))
    if information:
        low, high = information
        limit = "" if ceiling is None or low < ceiling - 0.3 else f"; {diagnosis.get('n', 0):,} data can show {ceiling:.1f}"
        add("Information", f"{low:.1f} – {high:.1f}", f"nats about its datum in a code{limit}")
    if result and result.bits:
        add("Bits/dim", result.bits, "the same bound")
    return found


def findings(folder: Folder) -> list[dict[str, Any]]:
    """Return the findings of the diagnosis, worst first, with their pictures."""
    listed = (folder.diagnosis or {}).get("findings") or []
    order = list(SEVERITIES)
    cards = []
    for f in sorted(listed, key=lambda f: order.index(f["severity"]) if f.get("severity") in order else len(order)):
        severity = f.get("severity") if f.get("severity") in SEVERITIES else "note"
        figure = f.get("figure")
        cards.append(
            {
                "name": str(f.get("name", "")), "severity": severity, "word": SEVERITIES[str(severity)], "evidence": typeset(str(f.get("evidence", ""))),
                "remedy": str(f.get("remedy") or ""), "sketch": sketches.sketch(figure, folder), "anchor": ANCHORS.get(str(figure), "latent"),
            }
        )  # fmt: skip
    return cards


def typeset(words: str) -> str:
    """Write plus-minus and bounds as signs."""
    return words.replace(" +- ", " ± ").replace(">=", "≥").replace("<=", "≤")


def _hero(images: dict[str, Any] | None, rows: dict[str, Any] | None, given: str) -> dict[str, Any] | None:
    if images:
        of = f", with the {given} of held-out data" if given else ""
        return {"images": images["samples"][:HERO], "label": "Samples from the model", "caption": f"Samples: what the model makes of draws from its prior{of}."}
    if rows:
        return {"histograms": rows["histograms"][:4], "label": "Data and samples by column", "caption": "Held-out data and samples, column by column; all of them are below."}
    return None


def _images(folder: Folder) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    arrays = folder.arrays.get("showcase", {})
    if (folder.showcase or {}).get("kind") != "images" or "data" not in arrays:
        return None, None
    height, width = arrays["data"].shape[1:3]
    small = max(height, width) <= pictures.PIXELATED
    size = {"hard": small, "tile": 44 if small else 84, "ratio": f"{width}/{height}"}
    names = ("data", "reconstructions", "samples", "hardest", "hardest_reconstructions")
    return {name: pictures.uris(arrays.get(name)) for name in names}, size


def _rows(folder: Folder) -> dict[str, Any] | None:
    showcase = folder.showcase or {}
    rows = showcase.get("rows")
    if not rows:
        return None
    columns = showcase["columns"]
    names, total = columns["names"], columns["of"]
    cut = "" if len(names) == total else f" Of {total:,} columns the {len(names)} {'that vary most' if columns['by'] == 'varying most' else 'first'} are shown."
    drawn = [_histogram(h) for h in showcase["histograms"]]
    pairs = list(zip(rows["data"], rows["reconstructions"], strict=True))[:5]
    bars = any(h["kind"] == "category" for h in showcase["histograms"])
    return {"names": names, "pairs": pairs, "samples": rows["samples"][:5], "cut": cut, "histograms": drawn, "any_bars": bars}


def _histogram(h: Mapping[str, Any]) -> dict[str, Any]:
    ours, theirs = h["shares"]
    label = f"how {h['name']} is spread in data and samples"
    missing = f"{h['missing']:.0%} missing" if h["missing"] >= 0.005 else ""
    if h["kind"] == "category":
        values = h["values"]
        ends = [values[0], values[-1]] if len(values) > 1 else values
        if len(values) > 2:
            ends = [f"{values[0]} …", f"… {values[-1]}"]
        note = ", ".join(filter(None, [missing, f"{len(values)} values" + (" shown" if h["outside"][0] > 0.001 else "") if len(values) > 2 else ""]))
        return {"name": h["name"], "note": note, "sketch": sketches.paired_bars(ours, theirs, label, 190, 64), "ends": ends}
    low, high = h["edges"][0], h["edges"][-1]
    ends = [str(np.datetime64(0, "D") + np.timedelta64(round(e), "D")) if h["kind"] == "date" else f"{e:.4g}".replace("-", "−") for e in (low, high)]
    beyond = f"{h['outside'][1]:.0%} of samples beyond" if h["outside"][1] - h["outside"][0] > 0.015 else ""
    sketch = sketches.overlay(np.array(ours), np.array(theirs), label, 190, 64)
    return {"name": h["name"], "note": ", ".join(filter(None, [missing, beyond])), "sketch": sketch, "ends": ends}


def _moves(folder: Folder, images: dict[str, Any] | None) -> dict[str, Any] | None:
    showcase, arrays = folder.showcase or {}, folder.arrays.get("showcase", {})
    facts = showcase.get("traversed")
    if not facts or not facts["units"]:
        return None
    offsets, n = [plain(o, 2).rstrip("0").rstrip(".") for o in facts["offsets"]], len(facts["offsets"])
    unit = "nats" if facts["by"] == "rate" else "variance"
    labels = [{"unit": f"unit {u}", "note": f"{short(s)} {unit}"} for u, s in zip(facts["units"], facts["spread"], strict=True)]
    caption = (
        "One datum’s code, with one unit at a time moved over the prior’s range, −3 to 3 standard deviations; the others stay. "
        f"Units are sorted by {facts['by']}. A line that changes nothing belongs to a unit that the decoder does not use."
    )
    if images and "traversals" in arrays:
        made = pictures.uris(arrays["traversals"])
        return {"offsets": offsets, "caption": caption, "images": [{**label, "uris": made[i * n : (i + 1) * n]} for i, label in enumerate(labels)]}
    rows = showcase.get("rows") or {}
    if "traversals" not in rows:
        return None
    names, moved, tables = showcase["columns"]["names"], showcase["moved"], []
    for i, label in enumerate(labels[:TABLES]):
        lines = []
        for c, name in enumerate(names):
            texts, places = [r[c] for r in rows["traversals"][i * n : (i + 1) * n]], (moved.get(name) or [None] * n * len(labels))[i * n : (i + 1) * n]
            lines.append((name, [(t, None if p is None else round(max(-1.0, min(1.0, p / 2)), 2)) for t, p in zip(texts, places, strict=True)]))
        tables.append({**label, "rows": lines})
    return {"offsets": offsets, "caption": caption + " Blue cells lie above the data’s mean, orange ones below, the full colour at two standard deviations.", "tables": tables}


def _map(build: _Builder) -> dict[str, Any] | None:
    showcase, arrays = build.folder.showcase or {}, build.folder.arrays.get("showcase", {})
    made = figures.latent_map(showcase, arrays)
    if made is None:
        return None
    sheet = pictures.sheet(arrays["thumbnails"]) if "thumbnails" in arrays else None
    build.blobs["map-data"] = {**made, "sheet": None if sheet is None else vars(sheet)}
    names = [p["name"] for p in showcase["map"]["projections"]]
    attributes = [a["name"] for a in showcase["map"]["attributes"] if a["key"] in arrays]
    n = showcase["map"]["n"]
    label = f"Codes of {n:,} data laid out by {' or '.join(names)}" + (f", coloured by {attributes[0]}" if attributes else "")
    return {"n": f"{n:,}", "projections": names, "attributes": attributes, "label": label, "chosen": names.index("t-SNE") if "t-SNE" in names else 0}


def _aggregates(folder: Folder) -> list[dict[str, Any]]:
    arrays = folder.arrays.get("diagnosis", {})
    if any(name not in arrays for name in ("histogram", "prior_histogram", "edges")):
        return []
    ours, prior, edges = (arrays[name] for name in ("histogram", "prior_histogram", "edges"))
    known = {u["unit"]: u for u in (folder.diagnosis or {}).get("units") or []}
    ranked = sorted(range(len(ours)), key=lambda j: -(real(known.get(j, {}).get("kl_to_prior")) or 0.0))
    made = []
    for j in ranked[:AGGREGATES]:
        facts = known.get(j, {})
        apart, mean, std = (real(facts.get(k)) for k in ("kl_to_prior", "aggregate_mean", "aggregate_std"))
        note = "" if apart is None else f"KL {short(apart)}"
        spread = "" if mean is None or std is None else f", mean {short(mean)}, standard deviation {short(std)}"
        low, high = (f"{e:.3g}".replace("-", "−") for e in (edges[0], edges[-1]))
        sketch = sketches.overlay(ours[j], prior[j], f"codes of unit {j} against the prior{spread}", 190, 64)
        made.append({"name": f"unit {j}", "note": note, "sketch": sketch, "low": low, "high": high})
    return made


def _latent_lead(folder: Folder) -> str:
    diagnosis = folder.diagnosis or {}
    units = diagnosis.get("units") or []
    rates = sorted((r for u in units if (r := real(u.get("rate"))) is not None), reverse=True)
    if not rates or sum(rates) <= 0:
        return ""
    split = SPLITS.get(split := str(diagnosis.get("split", "")), split)
    half = int(np.searchsorted(np.cumsum(rates), 0.9 * sum(rates))) + 1
    return f"{half:,} of {len(units):,} units carry nine tenths of the {short(sum(rates))} nats that a code costs ({diagnosis.get('n', 0):,} {split} data)."


def _units_caption(folder: Folder) -> str:
    units = (folder.diagnosis or {}).get("units") or []
    cut = f" The {figures.SHOWN_UNITS} of {len(units):,} units with the highest rate are shown." if len(units) > figures.SHOWN_UNITS else ""
    return (
        "A unit with rate and activity tells data apart. One with neither is switched off: it equals its prior, and costs nothing. One with rate and no "
        f"activity pays for nothing.{cut}"
    )


def _checks(folder: Folder) -> list[str]:
    diagnosis = folder.diagnosis or {}
    lines = []
    gain = ((diagnosis.get("dependence") or {}).get("gain")) or {}
    if real(gain.get("mean")) is not None:
        lines.append(f"The decoder uses the code: another datum’s code in place of the own one costs {number(gain['mean'], gain.get('stderr'))} nats of reconstruction." if gain["mean"] > 2 * (real(gain.get("stderr")) or 0) else f"The decoder does not use the code: another datum’s code costs {number(gain['mean'], gain.get('stderr'))} nats.")
    scores = diagnosis.get("scores") or {}
    if scores.get("gap"):
        train, valid, gap = (number(scores[k]["mean"], scores[k].get("stderr")) for k in ("train", "valid", "gap"))
        lines.append(f"The same weights score {train} on training data and {valid} on validation data: a difference of {gap} nats.")
    return lines


def _curves_lead(folder: Folder) -> str:
    lines = folder.metrics
    if not lines:
        return ""
    last, kept = lines[-1], folder.kept
    seconds = real(last.get("seconds"))
    took = f" in {duration(seconds)}" if seconds else ""
    total = folder.config.get("steps")
    of = f" of {total:,}" if isinstance(total, int) and total != last.get("step") else ""
    used = "" if kept is None else f" The weights in use are those of step {kept['step']:,}, the best by the validation bound ({number(kept['bound'])} nats)."
    skipped = sum(int(real(m.get("skipped")) or 0) for m in folder.lines("train"))
    lost = f" {skipped:,} steps were not finite and skipped." if skipped else ""
    return f"{last.get('step', 0):,}{of} steps{took}.{used}{lost}"


def _curves_caption(folder: Folder) -> str:
    return (
        "The training line is a mean over an epoch, of weights as they move; validation is of their average, at its end. The two are not to be compared: "
        "overfitting is judged with the same weights on both. The dashed line marks the weights in use. The axes leave the first steps out; "
        "drag to zoom, double-click to see all."
    )


def _bounds_caption() -> str:
    return (
        "Dots with two standard errors, each a mean over its data. An arrow points to where the truth lies; a pale bar ends where it can lie at most, as measured on "
        "data drawn from the model. Bounds on different data do not stand against each other."
    )


def _bound_sentences(folder: Folder) -> list[str]:
    evaluation = folder.evaluation or {}
    lines = []
    for e in bounds_of(evaluation):
        median, lowest = real(e.get("ess_median")), real(e.get("ess_min"))
        if median is not None and isinstance(e.get("k"), int) and e["k"] > 1:
            of = "chains" if e.get("method") == "ais" else "draws"
            lines.append(f"{method(e)}: effectively {median:.1f} of {e['k']:,} {of} for the median datum" + (f", {lowest:.1f} for the worst." if lowest is not None else "."))
        if real(e.get("rise")) is not None:
            lines.append(f"{method(e)} rose by {number(e['rise'])} nats from {e.get('rise_from_k', 0):,} draws: a bound that still rises has not arrived.")
    lines += figures.gap_words(folder)
    gap = evaluation.get("gap")
    if gap:
        said = f"Of the gap, the encoder loses at least {number(**_pair(gap['amortization']))} nats against the best q of its family"
        lines.append(said + (f", and the family at least {number(**_pair(gap['approximation']))}." if gap.get("approximation") else "."))
    information = evaluation.get("information")
    if information:
        lines.append(f"A code holds at least {number(**_pair(information['mutual_information']))} nats about its datum, as {information['n']:,} data tell (they can tell {short(information['mutual_information_ceiling'])} at most).")
    return lines + [str(w)[:1].upper() + str(w)[1:] + "." for w in evaluation.get("warnings") or []]


def _pair(line: Mapping[str, Any]) -> dict[str, Any]:
    return {"value": line["mean"], "error": line.get("stderr")}


def _commands(folder: Folder) -> list[str]:
    path = str(folder.path)
    again = shlex.quote(f"{path.rstrip('/')}-again")
    commands = [f"vaestro train --config {shlex.quote(str(folder.path / 'config.yaml'))} --run {again}"]
    evaluation = folder.evaluation or {}
    estimates = bounds_of(evaluation)
    if estimates:
        limit = "" if evaluation.get("split") not in ("train", "valid") else f" --split {evaluation['split']}"
        ks = [e["k"] for e in estimates if e.get("method") in ("elbo", "iwae") and isinstance(e.get("k"), int)]
        every = (folder.data or {}).get(str(evaluation.get("split")), {}).get("n")
        limit += f" --limit {evaluation['n']}" if every and every != evaluation.get("n") else ""
        commands.append(f"vaestro evaluate {again}{f' --k {ks[0]}' if ks else ''}{limit}")
    return commands


def _settings(folder: Folder) -> list[tuple[str, list[tuple[str, str]]]]:
    groups = [("Options", [(k, str(v)) for k, v in folder.config.items()])]
    if folder.environment:
        groups.append(("Machine and versions", [(k.replace("_", " "), str(v)) for k, v in folder.environment.items()]))
    else:
        groups.append(("Machine and versions", [("vaestro", folder.version or "unknown"), ("machine", "not recorded (the run has no environment.json)")]))
    hashes = [(f"{name} data", f"{v.get('n', 0):,}, sha256 {str(v.get('sha256', ''))[:16]}") for name, v in (folder.data or {}).items() if isinstance(v, dict)]
    evaluation = folder.evaluation or {}
    if evaluation.get("data_sha256"):
        hashes.append(("evaluated on", f"{data_words(evaluation, evaluation.get('n', 0))}, sha256 {str(evaluation['data_sha256'])[:16]}"))
    if evaluation.get("weights_sha256"):
        hashes.append(("weights", f"sha256 {str(evaluation['weights_sha256'])[:16]}"))
    return [*groups, ("Data and weights", hashes)] if hashes else groups


# -- several runs -----------------------------------------------------------------------------------------------------


def _runs_context(
    folders: Sequence[Folder], names: Sequence[str], comparison: Mapping[str, Any] | None, notes: list[str], beside: Path | None
) -> dict[str, Any]:
    rows, blobs = [], dict[str, Any]()
    for folder, name in zip(folders, names, strict=True):
        own: list[str] = list(folder.notes)
        build = _Builder(folder, own)
        result = build.part("the bound", lambda f=folder: result_of(f), None)  # type: ignore[misc]
        verdict, tone, summary = build.part("the verdict", lambda f=folder: verdict_of(f), ("unknown", "none", ""))  # type: ignore[misc]
        images, size = build.part("pictures", lambda f=folder: _images(f), (None, None))  # type: ignore[misc]
        tables = build.part("rows", lambda f=folder: _rows(f), None)  # type: ignore[misc]
        units, active = (folder.diagnosis or {}).get("units") or [], real((folder.diagnosis or {}).get("active_units"))
        report = folder.path / "report.html"
        evaluation = folder.evaluation or {}
        rows.append(
            {
                "name": name, "verdict": verdict, "tone": tone, "summary": summary, "sentence": result.sentence if result else "It was not evaluated.",
                "bound": f"{result.sign} {number(result.value, result.error)}" if result else "–", "method": result.method if result else "",
                "bits": result.bits if result else "", "rate": short(evaluation.get("rate", (folder.kept or {}).get("rate"))),
                "active": "–" if active is None else f"{active:,.0f} of {len(units):,}" if units else f"{active:,.0f}",
                "data": f"{data_words(evaluation, evaluation.get('n', 0))} ({str(evaluation.get('data_sha256', ''))[:8]})" if evaluation else "–",
                "link": os.path.relpath(report, beside) if beside is not None and report.exists() else "", "findings": build.part("findings", lambda f=folder: findings(f), []),  # type: ignore[misc]
                "images": (images or {}).get("samples", [])[:20], "size": size, "histograms": (tables or {}).get("histograms", [])[:4], "notes": own,
            }
        )  # fmt: skip
    shared = _Builder(folders[0], notes)
    intervals = []
    by_name = {r["name"]: r for r in (comparison or {}).get("rows", [])}
    for i, group in enumerate((comparison or {}).get("groups", [])):
        lines = []
        for name in group["names"]:
            r = by_name[name]
            if real(r["log_px"]) is not None:
                gap = None if r["interval_high"] is None else r["interval_high"] - r["log_px"]
                lines.append((f"{name}, {r['method']}", r["log_px"], r["stderr"], gap, r["side"]))
        made = shared.figure(f"intervals-{i}", "Bounds on log p(x) of the runs, as intervals", lambda lines=lines: figures.bounds(lines), lambda: "")  # type: ignore[misc]
        if made:
            intervals.append({**made, "id": f"figure-intervals-{i}", "title": typeset(str(group["title"]))})
    caption = "Validation of every run: bound, reconstruction and KL apart, of the averaged weights. Bounds of different data or likelihoods do not stand against each other. Drag to zoom, double-click to see all."
    curves = shared.figure("curves", "Validation bound, reconstruction and KL of each run over the steps of training", lambda: figures.curves(list(zip(names, folders, strict=True))), lambda: caption)
    blobs |= shared.blobs
    ranking = next((g["summary"] for g in (comparison or {}).get("groups", []) if g.get("ranking")), "")
    spoken = [typeset(str(s)) for s in (comparison or {}).get("statements", [])]
    sections = [("follows", "What follows"), ("curves", "Training"), *((f"run-{i + 1}", str(n)) for i, n in enumerate(names))]
    return {
        "title": f"{len(folders)} runs compared", "heading": f"{len(folders)} runs compared", "eyebrow": ", ".join(str(f.path) for f in folders), "sections": sections,
        "ranking": ranking[:1].upper() + ranking[1:], "rows": rows, "sentences": spoken, "interval_figures": intervals, "notes": notes,
        "curves_figure": curves, "blobs": blobs,
    }  # fmt: skip
