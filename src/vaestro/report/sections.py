"""Return the values for the templates of each section of a page, from the files of a run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

import numpy as np

from vaestro.files import Json
from vaestro.report import figures, pictures, sketches
from vaestro.report.meaning import unit_names
from vaestro.report.reading import Folder
from vaestro.report.words import (
    SPLITS,
    bounds_of,
    data_words,
    method,
    number,
    plain,
    real,
    result_of,
    short,
)
from vaestro.text import brief, duration

Values = dict[str, object]  # for a template
UNKNOWN = "this diagnosis is of an earlier version; run `vaestro diagnose` again"
SEVERITIES = {"error": "error", "warning": "warning", "note": "note"}
# all other figures are in the section on the latent space
ANCHORS = {"curves": "curves", "bounds": "bounds"}
ROWS = 5  # of data and of samples
AGGREGATES = 8
TABLES = 4  # number of traversals of tables that are shown


# -- the first screen ------------------------------------------------------------------------------


def eyebrow(folder: Folder) -> str:
    """Return source, data space and folder of a run."""
    space = (folder.showcase or folder.evaluation or {}).get("space")
    return " · ".join(
        str(p) for p in (folder.config.get("source", ""), space, str(folder.path)) if p
    )


def numbers(folder: Folder) -> list[Values]:
    """Return the numbers below the result."""
    diagnosis, evaluation = folder.diagnosis or {}, folder.evaluation or {}
    sources = (evaluation, diagnosis, folder.kept or {})
    rate, distortion = (
        next((v for s in sources if (v := real(s.get(name))) is not None), None)
        for name in ("rate", "distortion")
    )
    rows: list[tuple[str, str, str]] = []
    result = result_of(folder)
    if result is not None and result.side == "exact":  # no latent: no KL and no units
        bits = (f"Bits/{result.per}", result.bits, "the same number")
        return _facts([bits] if result.bits else [])
    if distortion is not None:
        rows.append(("Reconstruction", short(distortion), "nats: −log p(x | z)"))
    if rate is not None:
        rows.append(("KL", short(rate), "nats: KL(q(z | x) ‖ p(z))"))
    if real(diagnosis.get("active_units")) is not None:
        rows.append(("Active units", active_units(folder), "depend on the data"))
    information, ceiling = (
        diagnosis.get("mutual_information"),
        real(diagnosis.get("mutual_information_ceiling")),
    )
    if information:
        low, high = information
        seen = diagnosis.get("mutual_information_n", diagnosis.get("n", 0))
        if ceiling is not None and low >= 0.85 * ceiling:  # the data limit it, not the code
            limit = f"nats: I(x; z); {seen:,} data cannot show more than {ceiling:.1f}"
            rows.append(("Information", f"≥ {low:.1f}", limit))
        else:
            rows.append(("Information", f"{low:.1f} – {high:.1f}", "nats: I(x; z)"))
    if result is not None and result.bits:
        rows.append((f"Bits/{result.per}", result.bits, "the same bound"))
    return _facts(rows + _closeness(evaluation))


def _closeness(evaluation: Mapping[str, Json]) -> list[tuple[str, str, str]]:
    """Return PSNR and SSIM of the reconstructions of images."""
    rows = []
    for name, unit in (("psnr", "dB, "), ("ssim", "")):
        line = evaluation.get(name) or {}
        if real(line.get("mean")) is not None:
            mean, _, error = number(line["mean"], line.get("stderr"), least=1).partition(" ± ")
            spread = f"± {error}; " if error else ""
            note = f"{unit}{spread}reconstructions of {line.get('n', 0):,} images"
            rows.append((name.upper(), mean, note))
    return rows


def _facts(facts: list[tuple[str, str, str]]) -> list[Values]:
    return [{"name": name, "value": value, "note": note} for name, value, note in facts]


def active_units(folder: Folder) -> str:
    """Return the number of active units in words: 20 of 40."""
    diagnosis = folder.diagnosis or {}
    active, units = real(diagnosis.get("active_units")), diagnosis.get("units") or []
    if active is None:
        return "–"
    return f"{active:,.0f} of {len(units):,}" if units else f"{active:,.0f}"


def findings(folder: Folder) -> list[Values]:
    """Return the findings of the diagnosis, worst first, with their pictures."""
    order = list(SEVERITIES)
    cards = []
    for finding in (folder.diagnosis or {}).get("findings") or []:
        severity = finding.get("severity") if finding.get("severity") in SEVERITIES else "note"
        figure = finding.get("figure")
        cards.append(
            {
                "name": str(finding.get("name", "")),
                "severity": severity,
                "word": SEVERITIES[str(severity)],
                "evidence": sentence(str(finding.get("evidence", ""))),
                "remedy": str(finding.get("remedy") or ""),
                "no_remedy": ""
                if finding.get("remedy")
                else sentence(f"No command: {finding.get('no_remedy') or UNKNOWN}"),
                "sketch": sketches.sketch(figure, folder),
                "anchor": ANCHORS.get(str(figure), "latent"),
            }
        )
    return sorted(cards, key=lambda card: order.index(str(card["severity"])))


def typeset(words: str) -> str:
    """Return text with typographic signs for +-, >= and <=."""
    return words.replace(" +- ", " ± ").replace(">=", "≥").replace("<=", "≤")


def sentence(words: str) -> str:
    """Return words as a sentence, with a capital, a full stop and typographic signs."""
    words = typeset(words.strip())
    return f"{words[:1].upper()}{words[1:]}" + ("" if not words or words[-1] in ".!?:" else ".")


# -- data, reconstructions, samples ----------------------------------------------------------------


def split(folder: Folder) -> str:
    """Return the name of the split that is shown."""
    name = str((folder.showcase or {}).get("split", "held-out"))
    return SPLITS.get(name, name)


def images(folder: Folder) -> Values | None:
    """Return the images by name, and their size on the page."""
    arrays = folder.arrays.get("showcase", {})
    if (folder.showcase or {}).get("kind") != "images" or "data" not in arrays:
        return None
    height, width = arrays["data"].shape[1:3]
    small = max(height, width) <= pictures.PIXELATED
    names = (
        *("data", "reconstructions", "errors", "samples", "diffusion"),
        *("hardest", "hardest_reconstructions"),
    )
    size = {"hard": small, "tile": 44 if small else 84, "ratio": f"{width}/{height}"}
    part = str((folder.showcase or {}).get("part_shown", ""))
    white = real((folder.showcase or {}).get("error_scale"))
    return {name: pictures.uris(arrays.get(name)) for name in names} | {
        "size": size,
        "part": part,
        "white": "" if white is None else f"{white:.0%}" if white >= 0.1 else f"{white:.1%}",
    }


def rows(folder: Folder) -> Values | None:
    """Return rows of data with their reconstructions, samples, and a histogram of each column."""
    showcase = folder.showcase or {}
    texts = showcase.get("rows")
    if not texts:
        return None
    names, total, by = (showcase["columns"][key] for key in ("names", "of", "by"))
    which = "that vary most" if by == "varying most" else "first"
    back = texts.get("reconstructions") or [None] * len(texts["data"])  # none without a latent
    return {
        "names": names,
        "pairs": list(zip(texts["data"], back, strict=True))[:ROWS],
        "samples": texts["samples"][:ROWS],
        "cut": ""
        if len(names) == total
        else f" Of {total:,} columns the {len(names)} {which} are shown.",
        "histograms": [histogram(h) for h in showcase["histograms"]],
        "texts": names == ["text"] and not showcase["moved"],
        "between": showcase.get("between") or [],
    }


def histogram(spread: Mapping[str, Json]) -> Values:
    """Return the histogram of a column in data and samples."""
    ours, theirs = spread["shares"]
    label = f"distribution of {spread['name']} in data and samples"
    data, drawn = spread["missing"], spread.get("drawn_missing", 0.0)
    notes = [f"{data:.0%} missing ({drawn:.0%} of samples)"] if max(data, drawn) >= 0.005 else []
    if spread["kind"] == "category":
        values = spread["values"]
        ends = [f"{values[0]} …", f"… {values[-1]}"] if len(values) > 2 else values
        if len(values) > 2:
            notes.append(
                f"{len(values)} values" + (" shown" if spread["outside"][0] > 0.001 else "")
            )
        sketch = sketches.paired_bars(ours, theirs, label, 190, 64)
    else:
        edges = spread["edges"]
        ends = [
            _date(e) if spread["kind"] == "date" else brief(e).replace("-", "−")
            for e in (edges[0], edges[-1])
        ]
        if spread["outside"][1] - spread["outside"][0] > 0.015:
            notes.append(f"{spread['outside'][1]:.0%} of samples beyond")
        sketch = sketches.overlay(np.array(ours), np.array(theirs), label, 190, 64)
    return {"name": spread["name"], "note": ", ".join(notes), "sketch": sketch, "ends": ends}


def _date(days: float) -> str:
    return str(np.datetime64(0, "D") + np.timedelta64(round(days), "D"))


# -- the latent space ------------------------------------------------------------------------------


def latent_lead(folder: Folder) -> str:
    """Return a sentence on the number of units with most of the rate."""
    diagnosis = folder.diagnosis or {}
    units, name = diagnosis.get("units") or [], str(diagnosis.get("split", ""))
    rates = sorted((r for u in units if (r := real(u.get("rate"))) is not None), reverse=True)
    if not rates or sum(rates) <= 0:
        return ""
    most = int(np.searchsorted(np.cumsum(rates), 0.9 * sum(rates))) + 1
    data = f"{diagnosis.get('n', 0):,} {SPLITS.get(name, name)} data"
    return (
        f"{most:,} of {len(units):,} units have nine tenths of the KL of {short(sum(rates))} nats "
        f"({data})."
    )


def checks(folder: Folder) -> list[str]:
    """Return sentences on the measurements of the diagnosis."""
    diagnosis, lines = folder.diagnosis or {}, []
    gain = (diagnosis.get("dependence") or {}).get("gain") or {}
    if real(gain.get("mean")) is not None:
        costs = number(gain["mean"], gain.get("stderr"))
        starts = {
            "used": "The decoder uses the code: r",
            "unused": "The decoder does not use the code: r",
        }
        head = starts.get(str((diagnosis.get("dependence") or {}).get("state")), "R")
        lines.append(
            f"{head}eplacing the code of a datum by that of another datum increases the distortion "
            f"by {costs} nats."
        )
    scores = diagnosis.get("scores") or {}
    if scores.get("gap"):
        train, valid, gap = (
            number(scores[k]["mean"], scores[k].get("stderr")) for k in ("train", "valid", "gap")
        )
        lines.append(
            f"The same weights score {train} on training data and {valid} on validation data: a "
            f"difference of {gap} nats."
        )
    return lines


def moves(folder: Folder) -> Values | None:
    """Return the decoded code of a datum while one unit at a time changes: images, or cells with a
    tint."""
    showcase, arrays = folder.showcase or {}, folder.arrays.get("showcase", {})
    facts = showcase.get("traversed")
    if not facts or not facts["units"]:
        return None
    n, unit = len(facts["offsets"]), "nats" if facts["by"] == "rate" else "variance"
    offsets = [plain(o, 2).rstrip("0").rstrip(".") for o in facts["offsets"]]
    what = facts.get("what", "unit")
    values: Values = {"offsets": offsets, "by": facts["by"], "what": what}
    names = unit_names(folder) if what == "unit" else {}
    labels = [
        {"unit": f"{what} {u}", "note": f"{names.get(u, '')} {short(s)} {unit}".strip()}
        for u, s in zip(facts["units"], facts["spread"], strict=True)
    ]
    if "traversals" in arrays:
        uris = pictures.uris(arrays["traversals"])
        return values | {
            "images": [
                {**label, "uris": uris[i * n : (i + 1) * n]} for i, label in enumerate(labels)
            ]
        }
    texts = (showcase.get("rows") or {}).get("traversals")
    if texts is None:
        return None
    names, moved, tables = showcase["columns"]["names"], showcase["moved"], []
    every = 2 if n > 4 else 1  # text needs more space than images
    offsets = offsets[::every]
    for i, label in enumerate(labels[:TABLES]):
        part = slice(i * n, (i + 1) * n, every)
        lines = []
        for c, name in enumerate(names):
            tints = (
                [None] * len(offsets)
                if moved.get(name) is None
                else [_tint(p) for p in moved[name][part]]
            )
            lines.append((name, list(zip([row[c] for row in texts[part]], tints, strict=True))))
        tables.append({**label, "rows": lines})
    return values | {"offsets": offsets, "tables": tables}


def _tint(deviations: float | None) -> float | None:
    """Return -1 .. 1, full at two standard deviations from the mean."""
    return None if deviations is None else round(max(-1.0, min(1.0, deviations / 2)), 2)


def aggregates(folder: Folder) -> list[Values]:
    """Return the histograms of aggregate posterior and prior, for the units with the largest KL."""
    arrays = folder.arrays.get("diagnosis", {})
    if any(name not in arrays for name in ("histogram", "prior_histogram", "edges")):
        return []
    ours, prior, edges = (arrays[name] for name in ("histogram", "prior_histogram", "edges"))
    known = {u["unit"]: u for u in (folder.diagnosis or {}).get("units") or []}
    ranked = sorted(
        range(len(ours)), key=lambda j: -(real(known.get(j, {}).get("kl_to_prior")) or 0.0)
    )
    low, high = (brief(e, 3).replace("-", "−") for e in (edges[0], edges[-1]))
    histograms: list[Values] = []
    for j in ranked[:AGGREGATES]:
        apart, mean, std = (
            real(known.get(j, {}).get(k))
            for k in ("kl_to_prior", "aggregate_mean", "aggregate_std")
        )
        spread = (
            ""
            if mean is None or std is None
            else f", mean {short(mean)}, standard deviation {short(std)}"
        )
        sketch = sketches.curves(
            ours[j], prior[j], f"codes of unit {j} against the prior{spread}", 190, 64
        )
        histograms.append(
            {
                "name": f"unit {j}",
                "note": "" if apart is None else f"KL {short(apart)}",
                "sketch": sketch,
                "ends": [low, high],
            }
        )
    return histograms


# -- training and bounds ---------------------------------------------------------------------------


def curves_lead(folder: Folder) -> str:
    """Return sentences on the steps, the time, and the weights in use."""
    if not folder.metrics:
        return ""
    last, kept, total = folder.metrics[-1], folder.kept, folder.config.get("steps")
    step, seconds = last.get("step", 0), real(last.get("seconds"))
    of = f" of {total:,}" if isinstance(total, int) and total != step else ""
    text = (
        f"{step:,}{of} "
        f"{'step' if step == 1 else 'steps'}{f' in {duration(seconds)}' if seconds else ''}."
    )
    if folder.choice is not None:
        why = str(folder.choice.get("why"))
        text += f" Training {why[:1].lower()}{why[1:]}."
    elif kept is not None:
        best = f"the best by the validation bound ({number(kept['bound'])} nats)"
        text += f" The weights in use are those of step {kept['step']:,}, {best}."
    skipped = sum(int(real(m.get("skipped")) or 0) for m in folder.lines("train"))
    return text + (
        f" {skipped:,} steps were skipped because loss or gradient were not finite."
        if skipped
        else ""
    )


def bound_sentences(folder: Folder) -> list[str]:
    """Return sentences on the reliability of the bounds."""
    evaluation = folder.evaluation or {}
    lines = []
    for e in bounds_of(evaluation):
        median, lowest = real(e.get("ess_median")), real(e.get("ess_min"))
        if median is not None and isinstance(e.get("k"), int) and e["k"] > 1:
            of = f"{e['k']:,} {'chains' if e.get('method') == 'ais' else 'draws'}"
            worst = "" if lowest is None else f", {lowest:.1f} for the worst"
            lines.append(
                f"{method(e)}: effectively {median:.1f} of {of} for the median datum{worst}."
            )
        if real(e.get("rise")) is not None:
            rose = (
                f"{method(e)} rose by {number(e['rise'])} nats from "
                f"{e.get('rise_from_k', 0):,} draws"
            )
            lines.append(
                f"{rose}: it may still rise with more draws." if e["rise"] >= 0.1 else f"{rose}."
            )
    independent = evaluation.get("independent")
    if independent:
        gain = independent.get("gain")
        above = f"; the bound is {_mean(gain)} nats above it" if gain else ""
        lines.append(
            f"A model of independent cells, without a latent, has a log-likelihood of "
            f"{_mean(independent)} nats{above}."
        )
    lines += figures.gap_sentences(folder)
    gap, information = evaluation.get("gap"), evaluation.get("information")
    if gap:
        family = (
            f", and the approximation gap at least {_mean(gap['approximation'])}"
            if gap.get("approximation")
            else ""
        )
        loses = f"the amortization gap is at least {_mean(gap['amortization'])} nats"
        lines.append(f"For q optimised for each datum, {loses}{family}.")
    if information:
        ceiling = short(information["mutual_information_ceiling"])
        lines.append(
            f"The mutual information of codes and data is at least "
            f"{_mean(information['mutual_information'])} nats, estimated from "
            f"{information['n']:,} data (from which at most {ceiling} can be estimated)."
        )
    return lines + [sentence(str(w)) for w in evaluation.get("warnings") or []]


def _mean(line: Mapping[str, Json]) -> str:
    return number(line["mean"], line.get("stderr"))


def tighter(folder: Folder) -> str:
    """Return the command that computes tighter bounds and the gap."""
    return (
        f"vaestro evaluate {shlex.quote(str(folder.path))} --k 5000 --methods "
        f"elbo,iwae,ais,gap,information"
    )


# -- how to repeat it ------------------------------------------------------------------------------


def commands(folder: Folder) -> list[str]:
    """Return the commands that repeat the run and its evaluation."""
    again = shlex.quote(f"{str(folder.path).rstrip('/')}-again")
    lines = [
        f"vaestro train --config {shlex.quote(str(folder.path / 'config.yaml'))} --run {again}"
    ]
    evaluation = folder.evaluation or {}
    drawn = [
        e["k"]
        for e in bounds_of(evaluation)
        if e.get("method") in ("elbo", "iwae") and isinstance(e.get("k"), int)
    ]
    if drawn:
        name, n = evaluation.get("split"), evaluation.get("n")
        every = ((folder.data or {}).get(str(name)) or {}).get("n")
        options = f" --split {name}" if name in ("train", "valid") else ""
        options += f" --limit {n}" if every and every != n else ""
        options += f" --seed {evaluation['seed']}" if evaluation.get("seed") else ""
        lines.append(f"vaestro evaluate {again} --k {drawn[0]}{options}")
    return lines


def settings(folder: Folder) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the tables of options, machine and versions, and hashes."""
    absent = {
        "vaestro": folder.version or "unknown",
        "machine": "not recorded: the run has no environment.json",
    }
    machine = [(k.replace("_", " "), str(v)) for k, v in (folder.environment or absent).items()]
    groups = [
        ("Options", [(k, str(v)) for k, v in folder.config.items()]),
        ("Machine and versions", machine),
    ]
    evaluation = folder.evaluation or {}
    hashes = []
    for name, facts in (folder.data or {}).items():
        if isinstance(facts, dict):
            hashes.append(
                (
                    f"{SPLITS.get(name, name)} data",
                    f"{facts.get('n', 0):,}, sha256 {str(facts.get('sha256', ''))[:16]}",
                )
            )
    if evaluation.get("data_sha256"):
        data = data_words(evaluation, evaluation.get("n", 0))
        hashes.append(("evaluated on", f"{data}, sha256 {str(evaluation['data_sha256'])[:16]}"))
    if evaluation.get("weights_sha256"):
        hashes.append(("weights", f"sha256 {str(evaluation['weights_sha256'])[:16]}"))
    return [*groups, ("Data and weights", hashes)] if hashes else groups
