"""Read what is known of log p(x) of each datum: a run's evaluation, or an exact value brought
along."""

from __future__ import annotations

import json
import math
import shlex
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vaestro.evaluation.records import mean_and_error
from vaestro.runs import Run
from vaestro.text import nearest, parse_path

MEASURES = ("counting", "lebesgue", "mixed")
UNITS = {"nats": 1.0, "bits": math.log(2)}
ARRAYS = ("log_px", "unit", "measure", "given", "data_sha256")
OPTIONS = ("unit", "measure", "given")
DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True, eq=False)
class Bound:
    """Hold what one method says about log p(x) of each datum.

    Args:
        method: elbo, iwae, ais or exact.
        side: "lower" or "exact".
        nats: (N,) float64, NaN where it was not computed.
        k: draws or chains for each datum, if known.
        temperatures: of annealing, if known.
        bits_per_dim: None for densities, or where the number of cells is not known.
        gap: an upper bound on the method's mean gap in nats, its standard error, and the number of
            simulated data.
        annealing: its schedule, start and leapfrog steps, each None if unknown.
        per: what the bits are for each of: dim, or token of a text.
    """

    method: str
    side: str
    nats: np.ndarray
    k: int | None = None
    temperatures: int | None = None
    bits_per_dim: float | None = None
    gap: tuple[float, float, int] | None = None
    annealing: tuple[Any, ...] = ()
    per: str = "dim"

    @property
    def label(self) -> str:
        """Name the method with what makes it tight: ELBO, IWAE_500, AIS_1000, exact."""
        number = {"iwae": self.k, "ais": self.temperatures}.get(self.method)
        name = self.method if self.side == "exact" else self.method.upper()
        return name if number is None else f"{name}_{number}"

    @property
    def tightness(self) -> tuple[Any, ...]:
        """Return what two bounds must share to be equally tight by construction; draws do not
        tighten an ELBO."""
        return (
            self.method,
            None if self.method == "elbo" else self.k,
            self.temperatures,
            *self.annealing,
        )

    @property
    def there(self) -> np.ndarray:
        """Tell for which data it was computed, (N,) bool."""
        return ~np.isnan(self.nats)

    @property
    def n(self) -> int:
        """Count the data that it covers."""
        return int(self.there.sum())

    def mean(self) -> tuple[float, float]:
        """Return the mean over the data that it covers and its standard error, in nats."""
        return mean_and_error(self.nats[self.there])


@dataclass(frozen=True, eq=False)
class Row:
    """Hold a run's, or an exact set's, bounds on log p(x), and what they were measured on.

    Args:
        name: the shortest path that tells the runs apart, or the name of the exact set.
        path: the folder or file.
        bounds: each covers one datum at least.
        split: train, valid, test or all; empty where unknown.
        n: data of the evaluation.
        sha256: hash of the data, of which are observed, and of the conditions; empty if unknown.
        source: of the data; empty where unknown.
        space: what the data are, in words; empty where unknown.
        measure: counting, lebesgue or mixed.
        given: what p(x) is conditioned on.
        masked: whether some cells are left out; None where unknown.
        datum: (N,) a projection of each datum in the user's units, or None.
        warnings: of the evaluation.
        exact: whether it is a file of exact values that was brought along.
        alike: whether the simulated data that gaps were measured on are like the data.
        own: whether the data are of the run's own source.
        stale: whether the evaluation is of earlier weights than the run has now.
        index: places of the data among all of the split, (N,), rising; None where unknown.
        seed: by which they were drawn.
    """

    name: str
    path: Path
    bounds: tuple[Bound, ...]
    split: str
    n: int
    sha256: str
    source: str
    space: str
    measure: str
    given: tuple[str, ...] = ()
    masked: bool | None = None
    datum: np.ndarray | None = None
    warnings: tuple[str, ...] = ()
    exact: bool = False
    alike: bool = True
    own: bool = True
    stale: bool = False
    index: np.ndarray | None = None
    seed: int = 0

    @property
    def seed_option(self) -> str:
        """Write the option that draws the same rows again; nothing for the default."""
        return f" --seed {self.seed}" if self.seed else ""

    @property
    def headline(self) -> Bound:
        """Return the bound that covers most data, of those an exact one, and of those the
        highest."""
        return max(self.bounds, key=lambda b: (b.n, b.side == "exact", b.mean()[0]))

    @property
    def tighter(self) -> Bound | None:
        """Return a higher bound than the headline that covers fewer data, judged on those."""
        top = self.headline
        if top.side == "exact":
            return None
        others = [
            b for b in self.bounds if b.n < top.n and b.mean()[0] > np.mean(top.nats[b.there])
        ]
        return max(others, key=lambda b: b.mean()[0], default=None)

    @property
    def of(self) -> str:
        """Write the probability that is bounded: p(x), or p(x | digit)."""
        return f"p(x | {', '.join(self.given)})" if self.given else "p(x)"

    @property
    def short_hash(self) -> str:
        """Return the first eight characters of the hash."""
        return self.sha256[:8]


def interval(bound: Bound) -> tuple[float, float, float] | None:
    """Return lower end, upper end and the upper's standard error in nats, if the gap was measured:
    [L, L + gap]."""
    if bound.gap is None:
        return None
    mean, error = bound.mean()
    return mean, mean + bound.gap[0], math.hypot(error, bound.gap[1])


def read_run(opened: Run, name: str) -> Row:
    """Read a run's evaluation.

    Raises:
        ValueError: there is none or none with a bound, or its files are damaged or not of one
            evaluation.
    """
    command = f"vaestro evaluate {shlex.quote(str(opened.path))}"
    file, arrays_file = opened.path / "evaluation.json", opened.path / "evaluation.npz"
    if not file.exists():
        raise ValueError(
            f"expected a run that was evaluated ({command}); got {opened.path}, which has no "
            f"evaluation.json"
        )
    if not arrays_file.exists():
        raise ValueError(
            f"expected evaluation.npz beside evaluation.json ({command} writes both); got "
            f"{opened.path} without it"
        )
    try:
        result: Any = opened.evaluation
        n, sha256 = int(result["n"]), str(result["data_sha256"])
        lines = [
            e
            for e in result["estimates"]
            if e.get("on", "data") == "data" and e["side"] in ("lower", "exact")
        ]
        measure = str(lines[0]["measure"]) if lines else ""
        # Only what bounds the same thing: a density's evaluation may carry the bound for the
        # discrete data beside it.
        announced = [_announced(e) for e in lines if e["measure"] == measure]
        means = [float(e["mean"]) for e in lines if e["measure"] == measure]
        split, warnings = str(result["split"]), tuple(str(w) for w in result.get("warnings") or ())
        masked, seed = result.get("masked"), int(result.get("seed") or 0)
        alike = all(e.get("alike", True) for e in result["estimates"])
        hashed = result.get("weights_sha256")
    except (*DAMAGE, json.JSONDecodeError) as error:
        what = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        raise ValueError(
            f"expected a readable {file}; got a damaged one ({what}): remove it, then {command}"
        ) from error
    if not lines:
        raise ValueError(
            f"expected a run with a bound ({command}); got {opened.path}, whose evaluation has none"
        )
    stale = (
        hashed is not None
        and (opened.path / "model.safetensors").exists()
        and hashed != opened.weights_sha256()
    )
    if stale:
        warnings += (f"its evaluation is of earlier weights ({command} measures these)",)
    given = _given(result, lines[0], opened)
    arrays = _arrays(arrays_file, f"; {command} writes it anew")
    bounds = []
    for bound, mean in zip(announced, means, strict=True):
        nats = arrays.get(bound.method)
        if nats is None:
            continue
        if nats.shape != (n,) or nats.dtype.kind != "f" or not _agrees(nats, mean):
            raise ValueError(
                f"expected {file} and evaluation.npz of one evaluation; got others for "
                f"{bound.method} ({command})"
            )
        bounds.append(replace(bound, nats=nats.astype(np.float64), gap=_gap(arrays, bound.method)))
    if not bounds:
        raise ValueError(
            f"expected estimates of each datum in {arrays_file}; got none ({command} writes them)"
        )
    datum, index = arrays.get("datum"), arrays.get("index")
    source = str(result.get("source", ""))
    own = source in ("", str(opened.config.get("source", "")))
    return Row(
        name,
        opened.path,
        tuple(bounds),
        split,
        n,
        sha256,
        source,
        str(result.get("space", "")),
        measure,
        given,
        None if masked is None else bool(masked),
        datum if datum is not None and datum.shape == (n,) and datum.dtype.kind == "f" else None,
        warnings,
        alike=alike,
        own=own,
        stale=stale,
        index=index if index is not None and index.shape == (n,) else None,
        seed=seed,
    )


def read_exact(name: str, spec: str | Path) -> Row:
    """Read exact values: an .npz with an array log_px (N,), and options after a colon.

    Args:
        name: of the row.
        spec: FILE.npz, or FILE.npz:unit=bits,measure=counting,given=digit. The file may hold
            `unit`, `measure`, `given` and `data_sha256` as text. Unit nats or bits (of the whole
            datum), by default nats; conditions as NAME+NAME.

    Raises:
        ValueError: no measure is stated, or the file is not such a file.
    """
    file, options = parse_path(str(spec))
    for key in options:
        if key not in OPTIONS:
            raise ValueError(
                f"expected an option of exact values: {nearest(key, OPTIONS)}; got {key!r}"
            )
    path = Path(file).expanduser()
    if path.suffix != ".npz":
        raise ValueError(f"expected exact values in an .npz file with an array log_px; got {file}")
    if not path.is_file():
        raise ValueError(f"expected a file of exact values; got {file}, which does not exist")
    arrays = _arrays(path)
    for key in arrays:
        if key not in ARRAYS:
            raise ValueError(f"expected arrays among {', '.join(ARRAYS)} in {file}; got {key!r}")
    if "log_px" not in arrays:
        raise ValueError(f"expected an array log_px in {file}; got {', '.join(arrays) or 'none'}")
    texts = {
        key: str(array.item()) if array.size == 1 else ""
        for key, array in arrays.items()
        if key != "log_px"
    }
    for key, value in options.items():
        if texts.setdefault(key, str(value)) != str(value):
            raise ValueError(
                f"expected one {key} for {file}; got {value!r} as an option and {texts[key]!r} "
                f"in the file"
            )
    unit, measure = texts.get("unit", "nats"), texts.get("measure")
    if unit not in UNITS:
        raise ValueError(f"expected unit to be one of {', '.join(UNITS)} for {file}; got {unit!r}")
    if measure is None:
        raise ValueError(
            f"expected the measure of {file}, as {file}:measure=counting (probabilities) or "
            f"measure=lebesgue; got none"
        )
    if measure not in MEASURES:
        raise ValueError(
            f"expected measure to be one of {', '.join(MEASURES)} for {file}; got {measure!r}"
        )
    log_px = arrays["log_px"]
    if log_px.ndim != 1 or not len(log_px) or log_px.dtype.kind not in "fiu":
        raise ValueError(
            f"expected log_px to be numbers (N,) in {file}; got {log_px.dtype} of shape "
            f"{log_px.shape}"
        )
    if not np.isfinite(log_px).all():
        raise ValueError(
            f"expected finite numbers in log_px of {file}; got "
            f"{int((~np.isfinite(log_px)).sum())} NaN or infinite"
        )
    if measure == "counting" and (log_px > 0).any():
        raise ValueError(
            f"expected logs of probabilities, 0 or less, in {file}; got {log_px.max():g} "
            f"(measure=lebesgue for densities)"
        )
    nats = log_px.astype(np.float64) * UNITS[unit]
    given = tuple(filter(None, texts.get("given", "").split("+")))
    return Row(
        name,
        path,
        (Bound("exact", "exact", nats),),
        "",
        len(nats),
        texts.get("data_sha256", ""),
        "",
        "",
        measure,
        given,
        exact=True,
    )


def names(paths: list[Path]) -> list[str]:
    """Name paths by as few of their last parts as tell them apart."""
    parts = [p.resolve().parts for p in paths]

    def name(own: tuple[str, ...]) -> str:
        others = [p for p in parts if p != own]
        for k in range(1, len(own)):
            if all(p[-k:] != own[-k:] for p in others):
                return "/".join(own[-k:])
        return str(Path(*own))

    return [name(p) for p in parts]


def _announced(line: Mapping[str, Any]) -> Bound:
    k, temperatures = (
        None if line.get(key) is None else int(line[key]) for key in ("k", "temperatures")
    )
    bits = None if line.get("bits_per_dim") is None else float(line["bits_per_dim"])
    annealing = tuple(line.get(key) for key in ("schedule", "start", "leapfrog"))
    per = "token" if "tokens" in line else "dim"
    return Bound(
        str(line["method"]),
        str(line["side"]),
        np.empty(0),
        k,
        temperatures,
        bits,
        annealing=annealing,
        per=per,
    )


def _given(result: Mapping[str, Any], line: Mapping[str, Any], opened: Run) -> tuple[str, ...]:
    for place in (result, line):
        if "given" in place:
            return tuple(str(g) for g in place["given"] or ())
    # Evaluations of version 0.1.0 did not say; a run always conditions on what it was trained with.
    return tuple(opened.config.get("condition") or ())


def _arrays(path: Path, remedy: str = "") -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except DAMAGE as error:
        raise ValueError(
            f"expected readable arrays; got {path}, which is damaged or cut short{remedy}"
        ) from error


def _agrees(nats: np.ndarray, mean: float) -> bool:
    there = nats[~np.isnan(nats)]
    return len(there) > 0 and bool(np.isclose(there.mean(), mean, rtol=1e-6, atol=1e-4))


def _gap(arrays: Mapping[str, np.ndarray], method: str) -> tuple[float, float, int] | None:
    upper, lower = arrays.get("simulated_ais_upper"), arrays.get(f"simulated_{method}")
    if upper is None or lower is None or upper.shape != lower.shape:
        return None
    with np.errstate(invalid="ignore"):
        differences = upper.astype(np.float64) - lower.astype(np.float64)
    # Without those that are not finite, the rest would bound the gap of the rest alone.
    if len(differences) < 2 or not np.isfinite(differences).all():
        return None
    return *mean_and_error(differences), len(differences)
