"""Draw small SVG pictures of the evidence of a finding, in the colours of the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from markupsafe import Markup, escape

from vaestro.files import Json
from vaestro.report.reading import Folder
from vaestro.report.words import bounds_of, method, number, real, short

W, H = 240, 84


def svg(body: str, label: str, width: int = W, height: int = H) -> Markup:
    """Return a drawing as an SVG element. The label is its text alternative."""
    head = (
        f'<svg class="sketch" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(label)}" preserveAspectRatio="none">'
    )
    return Markup(f"{head}{body}</svg>")


def _text(x: float, y: float, text: str, anchor: str = "start", kind: str = "") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{escape(text)}</text>'
    )


def _scale(values: Sequence[float], low: float, high: float) -> Callable[[float], float]:
    bottom, top = min(values), max(values)
    return lambda v: low + (v - bottom) / ((top - bottom) or 1.0) * (high - low)


def steps(counts: np.ndarray, low: float, high: float, top: float, width: float = W) -> str:
    """Return the outline of a histogram as an SVG path."""
    xs = np.linspace(0, width, len(counts) + 1)
    ys = high - counts / (top or 1.0) * (high - low)
    parts = [f"M0 {high:.1f}"]
    for i, y in enumerate(ys):
        parts.append(f"L{xs[i]:.1f} {y:.1f}L{xs[i + 1]:.1f} {y:.1f}")
    return "".join(parts) + f"L{width:.1f} {high:.1f}Z"


def overlay(
    first: np.ndarray, second: np.ndarray, label: str, width: int = W, height: int = H
) -> Markup:
    """Return a picture of two histograms, the first filled and the second as a line."""
    top = float(max(np.max(first, initial=0), np.max(second, initial=0)))
    filled = f'<path class="fill" d="{steps(first, 4, height - 2, top, width)}"/>'
    return svg(
        filled + f'<path class="line second" d="{steps(second, 4, height - 2, top, width)}"/>',
        label,
        width,
        height,
    )


def curves(
    first: np.ndarray, second: np.ndarray, label: str, width: int = W, height: int = H
) -> Markup:
    """Return a picture of two densities, counted in equal bins, as curves: the first filled and the
    second as a line. Counts are smoothed over neighbouring bins."""
    smooth = [_smoothed(np.asarray(counts, np.float64)) for counts in (first, second)]
    top = float(max(counts.max(initial=0) for counts in smooth)) or 1.0
    paths = []
    for counts in smooth:
        xs = (np.arange(len(counts)) + 0.5) * width / max(1, len(counts))
        ys = height - 2 - counts / top * (height - 6)
        paths.append("L".join(f"{x:.1f} {y:.1f}" for x, y in zip(xs, ys, strict=True)))
    filled = f'<path class="fill" d="M0 {height - 2}L{paths[0]}L{width} {height - 2}Z"/>'
    return svg(filled + f'<path class="line second" d="M{paths[1]}"/>', label, width, height)


def _smoothed(counts: np.ndarray) -> np.ndarray:
    """Return counts smoothed by a binomial window of 9 bins."""
    window = np.array([1, 8, 28, 56, 70, 56, 28, 8, 1]) / 256
    return np.convolve(np.pad(counts, 4, mode="edge"), window, mode="valid")


def paired_bars(
    first: Sequence[float], second: Sequence[float], label: str, width: int = W, height: int = H
) -> Markup:
    """Return a picture of the shares of each value in two data sets, side by side."""
    top = max([*first, *second, 1e-12])
    each = width / max(1, len(first))
    body = ""
    for i, (a, b) in enumerate(zip(first, second, strict=True)):
        for j, (value, kind) in enumerate(((a, "bar"), (b, "bar second"))):
            tall = value / top * (height - 6)
            x, y = (i + 0.1 + 0.4 * j) * each, height - 2 - tall
            body += (
                f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{0.38 * each:.1f}" '
                f'height="{tall:.1f}"/>'
            )
    return svg(body, label, width, height)


def points(lines: Sequence[tuple[str, float, float | None]], label: str) -> Markup:
    """Return a picture of numbers with standard errors, one per line, on one scale."""
    ends = [v + s * (e or 0.0) for _, v, e in lines for s in (-1, 1)]
    at = _scale(ends, 80, W - 60)
    body = ""
    for i, (name, value, error) in enumerate(lines):
        y = (i + 0.5) * H / len(lines)
        body += _text(0, y + 4, name)
        if error:
            body += (
                f'<line class="whisker" x1="{at(value - error):.1f}" '
                f'x2="{at(value + error):.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
            )
        body += f'<circle class="dot" cx="{at(value):.1f}" cy="{y:.1f}" r="4"/>' + _text(
            W, y + 4, short(value), "end"
        )
    return svg(body, label)


def sketch(name: str | None, folder: Folder) -> Markup | None:
    """Return the picture that a finding names; None if its numbers are not in the folder."""
    drawers = {
        "curves": _curves,
        "units": _units,
        "aggregate": _aggregate,
        "bounds": _bounds,
        "scores": _scores,
        "dependence": _dependence,
        "logvar": _logvar,
    }
    if name not in drawers:
        return None
    try:
        return drawers[name](folder)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        return None


def _curves(folder: Folder) -> Markup | None:
    valid = [
        (m["step"], m["bound"]) for m in folder.lines("valid") if real(m.get("bound")) is not None
    ]
    if len(valid) < 2:
        return None
    tail = [v for _, v in valid[len(valid) // 10 :]]
    bottom = min(tail)
    xs, ys = _scale([s for s, _ in valid], 4, W - 4), _scale(tail, H - 6, 6)
    path = " ".join(f"{xs(s):.1f},{ys(max(v, bottom)):.1f}" for s, v in valid)
    return svg(
        f'<polyline class="line" points="{path}"/>',
        f"validation bound, from {number(valid[0][1])} to {number(valid[-1][1])} nats",
    )


def _rates(folder: Folder) -> list[dict[str, Json]]:
    units = [
        u for u in (folder.diagnosis or {}).get("units") or [] if real(u.get("rate")) is not None
    ]
    return sorted(units, key=lambda u: -u["rate"])


def _units(folder: Folder) -> Markup | None:
    units = _rates(folder)[:60]
    if not units:
        return None
    top, each, body = max(u["rate"] for u in units) or 1.0, W / len(units), ""
    for i, u in enumerate(units):
        tall = max(1.0, u["rate"] / top * (H - 6))
        kind = "bar" if u.get("active") else "bar off"
        body += (
            f'<rect class="{kind}" x="{i * each:.1f}" y="{H - 2 - tall:.1f}" '
            f'width="{0.8 * each:.1f}" height="{tall:.1f}"/>'
        )
    return svg(
        body,
        f"rate of {len(units)} units, sorted, from {short(units[0]['rate'])} to "
        f"{short(units[-1]['rate'])} nats",
    )


def _aggregate(folder: Folder) -> Markup | None:
    arrays, units = folder.arrays.get("diagnosis", {}), (folder.diagnosis or {}).get("units") or []
    known = [(u["kl_to_prior"], u["unit"]) for u in units if real(u.get("kl_to_prior")) is not None]
    if "histogram" not in arrays or "prior_histogram" not in arrays or not known:
        return None
    _, unit = max(known)
    return curves(
        arrays["histogram"][unit],
        arrays["prior_histogram"][unit],
        f"aggregate posterior of unit {unit} against its prior",
    )


def _bounds(folder: Folder) -> Markup | None:
    lines = [
        (method(e).split(" ")[0], e["mean"], real(e.get("stderr")))
        for e in bounds_of(folder.evaluation)
    ]
    return points(lines[:3], "bounds on log p(x) in nats") if lines else None


def _scores(folder: Folder) -> Markup | None:
    scores = (folder.diagnosis or {}).get("scores") or {}
    lines = [
        (n, s["mean"], real(s.get("stderr"))) for n in ("train", "valid") if (s := scores.get(n))
    ]
    return (
        points(lines, "bound on training and on validation data, in nats")
        if len(lines) == 2
        else None
    )


def _dependence(folder: Folder) -> Markup | None:
    costs = (folder.diagnosis or {}).get("dependence") or {}
    lines = [
        (label, costs[key], None)
        for key, label in (("own", "own code"), ("other", "another’s"))
        if real(costs.get(key)) is not None
    ]
    return (
        points(lines, "distortion with a datum's own code and with another's, in nats")
        if len(lines) == 2
        else None
    )


def _logvar(folder: Folder) -> Markup | None:
    logvar = folder.arrays.get("diagnosis", {}).get("logvar")
    if logvar is None or not np.isfinite(logvar).any():
        return None
    counts = np.histogram(logvar[np.isfinite(logvar)], 40)[0].astype(float)
    return svg(
        f'<path class="fill" d="{steps(counts, 4, H - 2, counts.max())}"/>',
        "posterior log-variances over data and units",
    )
