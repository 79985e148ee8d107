"""Score rows with a run: which rows are normal, windows of series, and the score of each step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vaestro import latent
from vaestro.data import Rows
from vaestro.data.series.ragged import FIRST, ID
from vaestro.data.series.record import Cut, ends_of, padded_values
from vaestro.data.source_options import as_source, parse_source
from vaestro.latent import Scores
from vaestro.runs.independent import independent_model
from vaestro.runs.sources import Conditions, Source
from vaestro.spaces import LongTable, Space
from vaestro.text import InputError

if TYPE_CHECKING:
    from vaestro.runs.session import Session


def scored_rows(
    session: Session,
    source: Source,
    window: int | None = None,
    stride: int | None = None,
    split: str | None = None,
    condition: Conditions = None,
) -> Rows:
    """Return the rows to score, or windows of series.

    Args:
        session: on the run.
        source, split, condition: see `Session.rows`.
        window: steps of a window; by default those of the run.
        stride: steps between the starts of two windows; by default the window.

    Raises:
        ValueError: the data are no series, or the window is longer than those of the run.

    >>> import vaestro as vs
    >>> table = {"size": [0.5, 1.5, 2.5, 1.0] * 20, "age": [3, 1, 4, 2] * 20}
    >>> session = vs.open(vs.train(table, run="scored", latent=2, steps=2))
    >>> len(scored_rows(session, table))
    80
    """
    if window is None and stride is None:
        return session.rows(source, split, condition)
    space = session.model.space
    if not space.layout.ends:
        raise InputError(f"--window and --stride are for series; the run's data are {space}")
    steps = space.shape[0]
    window = steps if window is None else window
    stride = window if stride is None else stride
    if not 1 <= window <= steps or stride < 1:
        raise ValueError(
            f"expected a window of 1 to {steps} steps, as the run has, and a stride of 1 or more; "
            f"got {window} and {stride}"
        )
    full = session.source(source)
    if isinstance(full, str | Path):
        name, options = parse_source(full)
        return session.rows(
            as_source(name, {**options, "window": window, "stride": stride}), split, condition
        )
    if not isinstance(source, np.ndarray):
        raise InputError("--window is for a file or an array of series: cut these data yourself")
    whole = np.asarray(source)
    cut = Cut(list(whole), np.arange(len(whole)), np.zeros(len(whole), np.int64))
    cut = cut.into(window, stride)
    values = padded_values([np.asarray(v, np.float64) for v in cut.values], steps)
    rows = session.rows(values, split, condition)
    return replace(rows, attributes={**rows.attributes, ID: cut.series, FIRST: cut.start})


def score(
    session: Session,
    rows: Rows,
    name: str = "combined",
    *,
    k: int = 20,
    cells: bool = False,
    maps: bool = False,
    units: bool = False,
    false_alarms: float | None = None,
    normal: Source | None = None,
    seed: int = 0,
) -> Scores:
    """Score rows with the model of a session.

    The score is fitted to training rows and rows for validation. The threshold is taken from rows
    that neither the model nor the score have used: those for testing, and `normal`.

    Args:
        session: on the run.
        rows: the data.
        name, k, cells, maps, units, seed: see `latent.score`.
        false_alarms: the rate of false alarms of the threshold; None for no threshold.
        normal: further normal rows for the threshold, unknown to the model.

    Raises:
        ValueError: there is no such score, or the rate is outside of (0, 1).

    >>> import vaestro as vs
    >>> table = {"size": [0.5, 1.5, 2.5, 1.0] * 20, "age": [3, 1, 4, 2] * 20}
    >>> session = vs.open(vs.train(table, run="scores", latent=2, steps=2))
    >>> len(score(session, session.rows(table)))
    80
    """
    model, data = session.model, session.data
    latent.score_named(name)
    by = latent.fitted_score(
        model,
        name,
        data.train,
        data.valid,
        background=lambda: independent_model(data, session.run.config["likelihood"]),
        k=k,
        seed=seed,
    )
    found = latent.score(model, rows, by, k=k, cells=cells, maps=maps, units=units, seed=seed)
    notes = list(_notes(rows))
    if false_alarms is not None:
        others = [data.test] if normal is None else [data.test, session.rows(normal, "all")]
        limit = latent.threshold_of(model, others, by, false_alarms, k=k, seed=seed)
        found = replace(found, threshold=limit)
        overlapping = _overlap(model.space)
        if overlapping:
            notes.append(overlapping)
    return replace(found, notes=(*found.notes, *notes))


def _notes(rows: Rows) -> list[str]:
    """Return what is special about the scored rows."""
    missing = rows.missing_cells()
    if not missing:
        return []
    return [
        f"{missing:,} cells are missing: bounds are those of the observed cells, and scores are "
        f"scaled to all cells"
    ]


def _overlap(space: Space) -> str:
    """Return a sentence if the rows from which a threshold is taken depend on each other."""
    table = space.long_table
    if table is None or not table.window:
        return ""
    if table.stride < table.window:
        return (
            f"windows of {table.window} steps overlap (stride {table.stride}): they are not "
            f"independent, and the interval of the threshold is too narrow"
        )
    return (
        "windows of one series can depend on each other: the interval of the threshold assumes "
        "that they do not"
    )


def by_step(rows: Rows, scores: Scores) -> dict[str, np.ndarray]:
    """Return the score of each step of series: the mean over the windows that contain it of its
    share in the score.

    Args:
        rows: the windows, N rows.
        scores: of them, with maps.

    Returns:
        the columns of series and order, and `score`, with a row for each step.

    Raises:
        ValueError: the rows are no series, or the score has no shares of steps.

    >>> import vaestro as vs
    >>> x = np.random.default_rng(0).normal(size=(80, 6, 1)).astype(np.float32)
    >>> session = vs.open(vs.train(x, series=True, run="steps", latent=2, steps=2))
    >>> rows = scored_rows(session, x, window=6, stride=3)
    >>> {n: len(v) for n, v in by_step(rows, score(session, rows, maps=True)).items()}
    {'series': 480, 'step': 480, 'score': 480}
    """
    space = rows.space
    if not space.layout.ends:
        raise InputError(f"--steps is for series; the run's data are {space}")
    if scores.maps is None:
        raise InputError(f"--score {scores.name} has no shares of steps: use --score residual")
    table = space.long_table or LongTable("")
    series = rows.attributes.get(table.group or ID, np.arange(len(rows)))
    first = rows.attributes.get(table.order or FIRST, np.zeros(len(rows), np.int64))
    mask, length = rows.mask(), space.shape[0]
    ends = np.full(len(rows), length) if mask is None else ends_of(mask)
    labels = table.order_values(first[:, None], np.arange(length)[None])
    labels = labels if table.step else first[:, None] + np.arange(length)
    there = np.arange(length) < ends[:, None]
    values = scores.maps.reshape(len(rows), length, -1).sum(2)[there]
    names, codes = np.unique(series, return_inverse=True)
    at, places = np.unique(labels[there], return_inverse=True)
    key = np.repeat(codes, ends) * len(at) + places
    keys, inverse, counts = np.unique(key, return_inverse=True, return_counts=True)
    means = np.bincount(inverse, values, len(keys)) / counts
    return {
        table.group or ID: names[keys // len(at)],
        table.order or FIRST: at[keys % len(at)],
        "score": means,
    }
