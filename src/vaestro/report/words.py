"""Write numbers and results in words, with the typography of a page."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from vaestro.files import Json
from vaestro.report.reading import Folder
from vaestro.spaces.layouts import LAYOUTS

SIGNS = {"lower": "≥", "upper": "≤", "exact": "="}
SIDES = {"lower": "a lower bound on the true value", "upper": "an upper bound", "exact": "exact"}
SPLITS = {"train": "training", "valid": "validation"}
LABELS = {"elbo": "ELBO", "iwae": "IWAE", "ais": "AIS"}
# tone, and the sentence for a diagnosis without a summary
VERDICTS = {
    "healthy": ("good", "No check found a fault."),
    "small rate but informative": (
        "good",
        "The codes contain little information, but it is about the data.",
    ),
    "partly collapsed": ("warning", "Some latent units contain no information."),
    "overfitted": (
        "warning",
        "The model scores its training data clearly better than held-out data.",
    ),
    "not converged": ("warning", "The validation bound was still rising at the end."),
    "latent unused by the decoder": ("error", "The decoder ignores the code."),
    "collapsed": ("error", "The codes do not depend on the data."),
    "diverged": ("error", "Training failed: loss or gradient were not finite."),
}


def real(value: object) -> float | None:
    """Return a finite number, or None."""
    return (
        float(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        else None
    )


def plain(value: float, decimals: int = 2) -> str:
    """Return a number with a typographic minus sign."""
    text = f"{value:,.{decimals}f}"
    return "−" + text[1:] if text.startswith("-") else text


def number(value: object, error: object = None, least: int = 2) -> str:
    """Return a number with its standard error, to two digits of the error."""
    mean, spread = real(value), real(error)
    if mean is None:
        return "not finite"
    decimals = min(6, max(0, 1 - math.floor(math.log10(spread)))) if spread else least
    return plain(mean, decimals) + ("" if spread is None else f" ± {plain(spread, decimals)}")


def short(value: object) -> str:
    """Return a number to about three digits."""
    finite = real(value)
    if finite is None:
        return "–"
    size = abs(finite)
    return plain(
        finite, 0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 0.1 or not size else 3
    )


def method(line: Mapping[str, Json]) -> str:
    """Return the name of a method with its number of draws: IWAE with 100 draws."""
    name = str(line.get("method", ""))
    label, k = LABELS.get(name, name), line.get("k")
    if name == "iwae":
        return f"{label} with {k:,} draws" if isinstance(k, int) else label
    if name == "ais" and isinstance(line.get("temperatures"), int):
        return f"{label} with {line['temperatures']:,} temperatures"
    return label


@dataclass(frozen=True)
class Result:
    """The main number of a report, and its description.

    Args:
        of: the bounded probability, for example p(x | digit).
        side: lower, upper or exact.
        value, error: mean over data and its standard error, in nats.
        how: method, data, side, in words.
        sentence: the result as a sentence.
        bits: bits per dimension, or token, in words; empty for densities.
        method: its name.
        per: unit of the bits: dim or token.
    """

    of: str
    side: str
    value: float
    error: float | None
    how: str
    sentence: str
    bits: str
    method: str = ""
    per: str = "dim"

    @property
    def sign(self) -> str:
        """Return ≥, ≤ or =."""
        return SIGNS.get(self.side, "=")


def data_words(evaluation: Mapping[str, Json], n: Json) -> str:
    """Return the evaluated data in words: 100 of 10,000 test images, drawn at random."""
    space = str(evaluation.get("space", ""))
    # binary (28, 28), levels of 256 (32, 32, 3), real (6,), real series (24, 2)
    shape = re.search(r"(\w+) \(([\d, ]+)\)$", space)
    layout = None if shape is None else LAYOUTS.get(shape[1])
    if space.startswith("texts"):
        what = "texts"
    elif layout is not None:
        what = layout.noun
    else:
        what = "images" if shape is not None and len(re.findall(r"\d+", shape[2])) > 1 else "data"
    total, split = evaluation.get("n"), evaluation.get("split", "")
    # absent in versions that used the first rows instead of random ones
    every = evaluation.get("total")
    whole = every if isinstance(every, int) else total
    fewer = isinstance(whole, int) and n != whole
    part = f"{n:,} of {whole:,}" if fewer else f"{n:,}"
    how = "" if not fewer else ", the first ones" if every is None else ", drawn at random"
    return " ".join(filter(None, (part, SPLITS.get(str(split), str(split)), what))) + how


def density_words(measure: str) -> str:
    """Return the words for a density; empty for a probability."""
    return {
        "lebesgue": "a density in the units of the data",
        "mixed": "partly a density in the units of the data",
    }.get(measure, "")


def bounds_of(evaluation: Mapping[str, Json] | None) -> list[dict[str, Json]]:
    """Return the estimates on the data that have the same measure as the first one."""
    lines = [
        e
        for e in (evaluation or {}).get("estimates", [])
        if e.get("on", "data") == "data" and real(e.get("mean")) is not None
    ]
    return [e for e in lines if e.get("measure") == lines[0].get("measure")]


def result_of(folder: Folder) -> Result | None:
    """Return the bound with the most data, and among these the tightest; None if there is none."""
    evaluation = folder.evaluation
    lines = [e for e in bounds_of(evaluation) if e.get("side") in ("lower", "exact")]
    if evaluation is None or not lines:
        return None
    best = max(lines, key=lambda e: (e.get("n", evaluation.get("n", 0)), e["mean"]))
    given = evaluation.get("given") or []
    of = f"p(x | {', '.join(map(str, given))})" if given else "p(x)"
    side, value, error = str(best.get("side")), float(best["mean"]), real(best.get("stderr"))
    data = data_words(evaluation, best.get("n", evaluation.get("n", 0)))
    density = density_words(str(best.get("measure")))
    extra = f"; {density}" if density else ""
    bits, per = real(best.get("bits_per_dim")), "token" if "tokens" in best else "dim"
    sign = SIGNS.get(side, "=")
    sentence = (
        f"log {of} {sign} {number(value, error)} nats ({method(best)}, mean over {data}{extra})"
    )
    by = "" if side == "exact" else f"{method(best)}, "
    how = f"{by}mean over {data} ± one standard error; {SIDES.get(side, '')}{extra}."
    flipped = {"≥": "≤", "≤": "≥"}.get(sign, "=")
    return Result(
        of,
        side,
        value,
        error,
        how,
        sentence,
        "" if bits is None else f"{flipped} {bits:.4f}",
        method(best),
        per,
    )


def verdict_of(folder: Folder) -> tuple[str, str, str]:
    """Return the verdict, its tone (good, warning, error or none) and a sentence."""
    if folder.diagnosis is None:
        if not folder.metrics:
            return ("not trained", "none", "The log of the run is empty.")
        return ("not diagnosed", "none", "The run has not been diagnosed.")
    verdict = str(folder.diagnosis.get("verdict", "unknown"))
    tone, sentence = VERDICTS.get(
        verdict, ("none", "This version of Vaestro does not know this verdict.")
    )
    severities = {finding.get("severity") for finding in folder.diagnosis.get("findings", ())}
    # The verdict is no fault: the data have nothing to encode, or the model has no latent input.
    if tone == "error" and tone not in severities:
        tone = "warning" if "warning" in severities else "none"
    return verdict, tone, str(folder.diagnosis.get("summary") or sentence)


def diffusion(folder: Folder) -> str:
    """Return what the diffusion model of the latents changes in the bound; "" if it is unknown."""
    bound = (folder.showcase or {}).get("diffusion_bound")
    if not bound or bound.get("condition"):
        return ""
    before, after, gain = (bound[name]["mean"] for name in ("before", "after", "gain"))
    error = bound["gain"]["stderr"]
    within = "" if error is None else f" ± {error:.2f}"
    return (
        f"As the prior it has the bound log p(x) ≥ {after:.2f} nats on {bound['n']:,} "
        f"{bound['split']} data, where the prior of the run has {before:.2f}: a difference of "
        f"{gain:+.2f}{within}."
    )
