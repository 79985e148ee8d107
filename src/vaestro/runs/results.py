"""The files of an evaluation in a run's folder."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import numpy as np

import vaestro
from vaestro.data import Rows
from vaestro.data.writers import write_arrays
from vaestro.evaluation import SIMULATED, Estimate, Evaluation
from vaestro.files import Json
from vaestro.records import Damaged, write_record
from vaestro.runs.manifest import register, results
from vaestro.storage import move

if TYPE_CHECKING:
    from vaestro.runs.run import Run


def write_evaluation(
    run: Run, evaluation: Evaluation, rows: Rows, source: str, weights: str | None = None
) -> None:
    """Write evaluation.json and evaluation.npz. The files of an earlier evaluation are renamed:
    their names then contain its split and k.

    Args:
        run: the run.
        evaluation: the results.
        rows: the data that `evaluate` was given; `evaluation.index` has the evaluated ones.
        source: from where they were read.
        weights: the hash of the evaluated weights; by default of the weights in use.

    >>> import numpy as np, vaestro as vs
    >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    >>> run = vs.train(x, run="fourth", latent=2, steps=2)
    >>> rows = run.data().test
    >>> write_evaluation(run, vs.evaluate(run.model(), rows, k=2), rows, "test data")
    >>> run.evaluation["source"]
    'test data'
    """
    total = len(rows)
    places = np.arange(total) if evaluation.index is None else evaluation.index
    rows = evaluated(rows, evaluation.index)
    given = () if rows.given_space is None else rows.given_space.names
    result = {
        "split": rows.name,
        "n": len(rows),
        "total": total,
        "seed": evaluation.seed,
        "data_sha256": rows.sha256(),
        "source": source,
        "unit": "nats",
        "space": str(rows.space),
        "given": list(given),
        "masked": rows.observed is not None,
        "estimates": [_estimate_line(e) for e in evaluation.estimates],
        "rate": evaluation.rate,
        "distortion": evaluation.distortion,
        "independent": None if evaluation.independent is None else evaluation.independent.line(),
        "gap": None if evaluation.gap is None else evaluation.gap.line(),
        "information": None if evaluation.information is None else evaluation.information.line(),
        **({} if evaluation.samples is None else {"samples": evaluation.samples.line()}),
        **({} if evaluation.fidelity is None else evaluation.fidelity.lines()),
        "warnings": list(evaluation.warnings),
        "weights_sha256": run.weights_sha256() if weights is None else weights,
        "vaestro": vaestro.__version__,
    }
    if (lengths := evaluation.lengths) is not None:
        result["lengths"] = lengths.line()
    if (absences := evaluation.absences) is not None:
        result["empty_cells"] = absences.line()
    arrays, file = _arrays(evaluation, rows, places), run.path / "evaluation.npz"
    with results(run.path, "evaluation.json", "evaluation.npz"):
        _keep_evaluation(run, result)
        write_arrays(file, arrays)
        write_record(run.path / "evaluation.json", result, arrays=file)


def evaluated(rows: Rows, index: np.ndarray | None) -> Rows:
    """Return the evaluated ones of some rows, by their places (N,), increasing; None for all.

    >>> import vaestro as vs
    >>> len(evaluated(vs.load("shapes:n=40,size=16").train, np.array([0, 3])))
    2
    """
    return rows if index is None or len(index) == len(rows) else rows.pick(index)


def _arrays(evaluation: Evaluation, rows: Rows, places: np.ndarray) -> dict[str, np.ndarray]:
    """Return the arrays of evaluation.npz, each (N,); NaN for a datum without an estimate."""
    names = {"file": rows.attributes["file"]} if "file" in rows.attributes else {}
    arrays: dict[str, np.ndarray] = {"index": places, **names}
    for e in evaluation.estimates:
        simulated = e.on == SIMULATED
        name = (
            ("simulated_" if simulated else "") + e.method + ("_upper" if e.side == "upper" else "")
        )
        among = None if simulated else places
        arrays[name] = _placed(e.nats, e.index, among)
        if e.ess is not None:
            arrays[f"{name}_ess"] = _placed(e.ess, e.index, among)
    if evaluation.gap is not None:
        parts = {
            "elbo": evaluation.gap.elbo,
            "optimised": evaluation.gap.optimised,
            "reference": evaluation.gap.reference,
        }
        arrays |= {
            f"gap_{name}": _placed(x, evaluation.gap.index, places)
            for name, x in parts.items()
            if x is not None
        }
    if rows.space.measure != "counting":
        arrays["datum"] = rows.projection()
    return arrays


def _keep_evaluation(run: Run, new: dict[str, Json]) -> None:
    """Rename the files of the earlier evaluation, unless the new one is equal to it."""
    try:
        old = run.evaluation
    except Damaged:
        register(run.path, "evaluation-damaged.json")
        move(run.path / "evaluation.json", run.path / "evaluation-damaged.json")
        return
    if old is None or _timeless(old) == _timeless(new):
        return
    k = old["estimates"][0]["k"] if old["estimates"] else 0
    name = stem = f"evaluation-{old['split']}-k{k}"
    number = 2
    while (run.path / f"{name}.json").exists():
        name, number = f"{stem}-{number}", number + 1
    register(run.path, f"{name}.npz", f"{name}.json")
    for suffix in (".npz", ".json"):
        if (run.path / f"evaluation{suffix}").exists():
            move(run.path / f"evaluation{suffix}", run.path / f"{name}{suffix}")


def _timeless(result: dict[str, Json]) -> str:
    """Return an evaluation as JSON without its durations."""
    estimates = [{k: v for k, v in e.items() if k != "seconds"} for e in result["estimates"]]
    others = {k: v for k, v in result.items() if k not in ("sha256", "arrays_sha256")}
    return json.dumps({**others, "estimates": estimates}, sort_keys=True)


def _placed(x: np.ndarray, index: np.ndarray | None, among: np.ndarray | None) -> np.ndarray:
    """Return a number for each evaluated row, (N,), NaN for rows without an estimate.

    Args:
        x: numbers of M rows, (M,).
        index: row numbers, of which the first M belong to x; None for the first M of `among`.
        among: row numbers of all evaluated rows, (N,), ascending; None returns x as it is.
    """
    if among is None:
        return x
    out = np.full(len(among), np.nan)
    out[slice(len(x)) if index is None else np.searchsorted(among, index[: len(x)])] = x
    return out


def _estimate_line(estimate: Estimate) -> dict[str, Json]:
    """Return an estimate for evaluation.json."""
    mean, error = estimate.mean()
    line = {
        "method": estimate.method,
        "side": estimate.side,
        "measure": estimate.measure,
        "k": estimate.k,
        "n": len(estimate.nats),
        "on": estimate.on,
        "mean": mean,
        "stderr": None if math.isnan(error) else error,
        "bits_per_dim": estimate.bits_per_dim,
        "seconds": round(estimate.seconds, 3),
    }
    ess = (
        {}
        if estimate.ess is None
        else {"ess_median": float(np.median(estimate.ess)), "ess_min": float(estimate.ess.min())}
    )
    return {**line, **ess, **estimate.details}
