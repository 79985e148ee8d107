"""Read log p(x) per datum from the evaluation of a run: bounds, and what they were measured on."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vaestro.evaluation.records import mean_and_error
from vaestro.files import Json
from vaestro.records import read_arrays
from vaestro.runs import Run
from vaestro.text import is_input_error


@dataclass(frozen=True, eq=False)
class Bound:
    """An estimate of log p(x) of each datum by one method.

    Args:
        method: elbo, iwae, ais or exact.
        side: "lower" or "exact".
        nats: (N,) float64; NaN for data without an estimate.
        k: number of draws or chains per datum; None if unknown.
        temperatures: number of annealing temperatures; None if unknown.
        bits_per_dim: None for densities, or if the number of cells is unknown.
        gap: upper bound on the mean gap of the method in nats, its standard error, and the number
            of simulated data.
        annealing: schedule, start and number of leapfrog steps, each None if unknown.
        per: unit of `bits_per_dim`: "dim", or "token" for text data.

    >>> bound = Bound("iwae", "lower", np.array([-90.0, -92.0, np.nan]), k=500)
    >>> bound.label, bound.n, bound.mean()
    ('IWAE_500', 2, (-91.0, 1.0))
    """

    method: str
    side: str
    nats: np.ndarray
    k: int | None = None
    temperatures: int | None = None
    bits_per_dim: float | None = None
    gap: tuple[float, float, int] | None = None
    annealing: tuple[Json, ...] = ()
    per: str = "dim"

    @property
    def label(self) -> str:
        """Return the method with its number of draws or temperatures: ELBO, IWAE_500, AIS_1000."""
        number = {"iwae": self.k, "ais": self.temperatures}.get(self.method)
        name = self.method if self.side == "exact" else self.method.upper()
        return name if number is None else f"{name}_{number}"

    @property
    def tightness(self) -> tuple[Json, ...]:
        """Return the settings that determine the tightness of a bound. The number of draws does not
        affect the tightness of an ELBO."""
        return (
            self.method,
            None if self.method == "elbo" else self.k,
            self.temperatures,
            *self.annealing,
        )

    @property
    def mask(self) -> np.ndarray:
        """Return which data have an estimate, (N,) bool."""
        return ~np.isnan(self.nats)

    @property
    def n(self) -> int:
        """Return the number of data that have an estimate."""
        return int(self.mask.sum())

    def mean(self) -> tuple[float, float]:
        """Return the mean over the data that have an estimate, and its standard error, in nats."""
        return mean_and_error(self.nats[self.mask])


@dataclass(frozen=True, eq=False)
class Row:
    """The bounds on log p(x) of a run or of an exact set, and the data they were measured on.

    Args:
        name: shortest path that is unique among the runs, or the name of the exact set.
        path: folder or file.
        bounds: one or more, each with an estimate for at least one datum.
        split: train, valid, test or all; empty if unknown.
        n: number of data in the evaluation.
        sha256: hash of the data, the observed mask and the conditions; empty if unknown.
        source: source of the data; empty if unknown.
        space: description of the data space; empty if unknown.
        measure: counting, lebesgue or mixed.
        given: names of the conditions of p(x).
        masked: whether some cells are missing; None if unknown.
        datum: (N,) a projection of each datum in the user's units, or None.
        warnings: warnings of the evaluation.
        exact: whether the row is a file of exact values.
        alike: whether the simulated data, on which gaps are measured, are similar to the data.
        own_source: whether the data are those of the run's own source.
        stale: whether the evaluation used earlier weights than the run has now.
        index: (N,) increasing indices of the rows in the split; None if unknown.
        seed: seed with which the rows were drawn.

    >>> bound = Bound("exact", "exact", np.array([-1.0, -2.0]))
    >>> row = Row("o", Path("o.npz"), (bound,), "test", 2, "", "", "", "counting", ("digit",))
    >>> row.of, row.headline.label
    ('p(x | digit)', 'exact')
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
    own_source: bool = True
    stale: bool = False
    index: np.ndarray | None = None
    seed: int = 0

    @property
    def seed_option(self) -> str:
        """Return the option that draws the same rows again; empty for the default seed."""
        return f" --seed {self.seed}" if self.seed else ""

    @property
    def headline(self) -> Bound:
        """Return the bound that covers the most data. Ties: an exact one, then the highest."""
        return max(self.bounds, key=lambda b: (b.n, b.side == "exact", b.mean()[0]))

    @property
    def tighter(self) -> Bound | None:
        """Return the highest bound that has fewer data than the headline and is higher on them."""
        top = self.headline
        if top.side == "exact":
            return None
        others = [b for b in self.bounds if b.n < top.n and b.mean()[0] > np.mean(top.nats[b.mask])]
        return max(others, key=lambda b: b.mean()[0], default=None)

    @property
    def of(self) -> str:
        """Return the bounded probability: p(x), or p(x | digit)."""
        return f"p(x | {', '.join(self.given)})" if self.given else "p(x)"

    @property
    def short_hash(self) -> str:
        """Return the first eight characters of the hash."""
        return self.sha256[:8]


def interval(bound: Bound) -> tuple[float, float, float] | None:
    """Return the interval [L, L + gap] in nats and the standard error of its upper end; None if the
    gap was not measured.

    >>> interval(Bound("elbo", "lower", np.array([-4.0, -2.0]), gap=(0.5, 0.0, 9)))
    (-3.0, -2.5, 1.0)
    """
    if bound.gap is None:
        return None
    mean, error = bound.mean()
    return mean, mean + bound.gap[0], math.hypot(error, bound.gap[1])


def read_run(opened: Run, name: str) -> Row:
    """Read the evaluation of a run.

    Raises:
        ValueError: there is no evaluation, it has no bound, or its files are damaged or belong to
            different evaluations.

    >>> read_run(Run("runs/wide"), "wide").headline.label  # doctest: +SKIP
    'IWAE_500'
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
        row, entries = _row(opened, name)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if is_input_error(error):
            raise
        what = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        raise ValueError(
            f"expected a readable {file}; got a damaged one ({what}): remove it, then {command}"
        ) from error
    if not entries:
        raise ValueError(
            f"expected a run with a bound ({command}); got {opened.path}, whose evaluation has none"
        )
    if row.stale:
        warning = f"its evaluation is of earlier weights ({command} measures these)"
        row = replace(row, warnings=(*row.warnings, warning))
    arrays = read_arrays(arrays_file, opened.evaluation)
    bounds = tuple(_with_values(entries, arrays, row.n, file, command))
    if not bounds:
        raise ValueError(
            f"expected estimates of each datum in {arrays_file}; got none ({command} writes them)"
        )
    datum, index = (
        None if (a := arrays.get(key)) is None or a.shape != (row.n,) else a
        for key in ("datum", "index")
    )
    datum = None if datum is None or datum.dtype.kind != "f" else datum
    return replace(row, bounds=bounds, datum=datum, index=index)


def _row(opened: Run, name: str) -> tuple[Row, list[tuple[Bound, float]]]:
    """Return what evaluation.json contains: the row without values, and each bound with its
    mean."""
    result: Json = opened.evaluation
    lines = [
        e
        for e in result["estimates"]
        if e.get("on", "data") == "data" and e["side"] in ("lower", "exact")
    ]
    measure = str(lines[0]["measure"]) if lines else ""
    # The evaluation of a density may also contain the bound for the discrete data.
    entries = [(_bound(e), float(e["mean"])) for e in lines if e["measure"] == measure]
    masked, source = result.get("masked"), str(result.get("source", ""))
    evaluated, weights = result.get("weights_sha256"), opened.path / "model.safetensors"
    row = Row(
        name,
        opened.path,
        (),
        str(result["split"]),
        int(result["n"]),
        str(result["data_sha256"]),
        source,
        str(result.get("space", "")),
        measure,
        _given(result, lines[0], opened) if lines else (),
        None if masked is None else bool(masked),
        warnings=tuple(str(w) for w in result.get("warnings") or ()),
        alike=all(e.get("alike", True) for e in result["estimates"]),
        own_source=source in ("", str(opened.options.get("source", ""))),
        stale=evaluated is not None and weights.exists() and evaluated != opened.weights_sha256(),
        seed=int(result.get("seed") or 0),
    )
    return row, entries


def _with_values(
    entries: Sequence[tuple[Bound, float]],
    arrays: Mapping[str, np.ndarray],
    n: int,
    file: Path,
    command: str,
) -> Iterator[Bound]:
    """Yield each bound with its values and its gap.

    Raises:
        ValueError: the values do not agree with evaluation.json.
    """
    for bound, mean in entries:
        nats = arrays.get(bound.method)
        if nats is None:
            continue
        if nats.shape != (n,) or nats.dtype.kind != "f" or not _agrees(nats, mean):
            raise ValueError(
                f"expected {file} and evaluation.npz of one evaluation; got others for "
                f"{bound.method} ({command})"
            )
        yield replace(bound, nats=nats.astype(np.float64), gap=_gap(arrays, bound.method))


def names(paths: list[Path]) -> list[str]:
    """Return the shortest suffix of each path that is unique.

    >>> names([Path("/runs/a/x"), Path("/runs/b/x"), Path("/runs/b/y")])
    ['a/x', 'b/x', 'y']
    """
    parts = [p.resolve().parts for p in paths]

    def name(path: tuple[str, ...]) -> str:
        others = [p for p in parts if p != path]
        for k in range(1, len(path)):
            if all(p[-k:] != path[-k:] for p in others):
                return "/".join(path[-k:])
        return str(Path(*path))

    return [name(p) for p in parts]


def _bound(line: Mapping[str, Json]) -> Bound:
    """Return the bound that an entry of evaluation.json describes, without its values."""
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


def _given(result: Mapping[str, Json], line: Mapping[str, Json], opened: Run) -> tuple[str, ...]:
    for place in (result, line):
        if "given" in place:
            return tuple(str(g) for g in place["given"] or ())
    # Version 0.1.0 did not store the conditions. They are those that the run was trained with.
    return tuple(opened.options.get("condition") or ())


def _agrees(nats: np.ndarray, mean: float) -> bool:
    estimated = nats[~np.isnan(nats)]
    return len(estimated) > 0 and bool(np.isclose(estimated.mean(), mean, rtol=1e-6, atol=1e-4))


def _gap(arrays: Mapping[str, np.ndarray], method: str) -> tuple[float, float, int] | None:
    upper, lower = arrays.get("simulated_ais_upper"), arrays.get(f"simulated_{method}")
    if upper is None or lower is None or upper.shape != lower.shape:
        return None
    with np.errstate(invalid="ignore"):
        differences = upper.astype(np.float64) - lower.astype(np.float64)
    # The finite differences alone would bound only the gap of their own data.
    if len(differences) < 2 or not np.isfinite(differences).all():
        return None
    return *mean_and_error(differences), len(differences)
