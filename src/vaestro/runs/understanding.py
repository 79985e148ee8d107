"""Find out what the codes of a run mean: which rows are used, and what is written."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import vaestro
from vaestro import latent
from vaestro.data import Rows
from vaestro.data.columns import filled
from vaestro.data.opening import has_images
from vaestro.data.parsing import parse_cells
from vaestro.data.source_options import parse_source
from vaestro.data.table_formats import is_table, suffixes_in_words
from vaestro.data.tables import read_table
from vaestro.diagnosis.records import as_json
from vaestro.files import Json
from vaestro.latent import Disentanglement, Probes
from vaestro.models import with_latent
from vaestro.randomness import numpy_generator
from vaestro.records import write_record
from vaestro.runs.manifest import results
from vaestro.runs.sources import Source
from vaestro.text import InputError
from vaestro.transfer import stored_source

if TYPE_CHECKING:
    from vaestro.runs.session import Session

ROWS = 5000  # largest number of rows that fit, and that score
ENOUGH = 2000  # held-out rows from which metrics of disentanglement are computed


def probe(
    session: Session,
    names: Sequence[str] | None = None,
    data: Source | None = None,
    table: str | Path | None = None,
    *,
    labels: int = 100,
    draws: int = 5,
    seed: int = 0,
) -> Probes:
    """Probe attributes of a session's run, and write probes.json.

    Args:
        session: on the run.
        names, data, table, labels, draws, seed: see the verb `probe`.

    Raises:
        ValueError: the data have no attributes, or not these; or the model has no latent.

    >>> import vaestro as vs
    >>> table = {"size": [0.5, 1.5, 2.5, 1.0] * 99, "word": ["a", "b", "c", "a"] * 99}
    >>> session = vs.open(vs.train(table, run="example", latent=2, steps=2))
    >>> [p.name for p in probe(session).probes]
    ['size', 'word']
    """
    with_latent(session.model)
    fit, score = _fit_and_score(session, data, table, seed)
    factors, notes = latent.factors_of([fit, score], names)
    if not factors:
        raise _without_attributes(session, fit, notes)
    codes = [session.codes(rows)["mean"].reshape(len(rows), -1) for rows in (fit, score)]
    raw, note = zip(*(latent.raw_features(rows) for rows in (fit, score)), strict=True)
    features = latent.representations((codes[0], codes[1]), (raw[0], raw[1]))
    cut = np.arange(len(fit)), np.arange(len(fit), len(fit) + len(score))
    probes = tuple(
        latent.probe(
            features,
            factor.pick(cut[0]),
            factor.pick(cut[1]),
            labels=labels,
            draws=draws,
            comparisons=len(factors),
            seed=seed,
        )
        for factor in factors.values()
    )
    words = f"{len(fit):,} {fit.name} rows fit the probes, {len(score):,} {score.name} rows score"
    found = Probes(probes, words, (*filter(None, dict.fromkeys(note)), *notes))
    with results(session.run.path, "probes.json"):
        write_record(session.run.path / "probes.json", record(session, found.record()))
    return found


def disentangle(
    session: Session,
    names: Sequence[str] | None = None,
    data: Source | None = None,
    table: str | Path | None = None,
    *,
    repeats: int = 10,
    seed: int = 0,
) -> Disentanglement:
    """Measure disentanglement on a session's run, and write disentanglement.json.

    Args:
        session: on the run.
        names, data, table, repeats, seed: see the verb `disentangle`.

    Raises:
        ValueError: the data have no such attributes, or too few rows; or the model has no latent.

    >>> import vaestro as vs
    >>> some = {"run": "third", "latent": 2, "steps": 40, "beta": 0.01, "network": "mlp:width=16"}
    >>> run = vs.train("shapes:n=500,size=16,channels=grey", **some)
    >>> len(disentangle(vs.open(run), ["x", "y"], repeats=2).metrics)
    9
    """
    with_latent(session.model)
    rows, notes = _many(session, data, table)
    factors, left_out = latent.factors_of([rows], names)
    if not factors:
        raise _without_attributes(session, rows, left_out)
    codes = session.codes(rows)["mean"].reshape(len(rows), -1)
    found = latent.disentangle(codes, [*factors.values()], repeats=repeats, seed=seed)
    found = replace(found, notes=(*found.notes, *notes, *left_out))
    with results(session.run.path, "disentanglement.json"):
        path = session.run.path / "disentanglement.json"
        write_record(path, record(session, found.record()))
    return found


def _many(
    session: Session, data: Source | None, table: str | Path | None
) -> tuple[Rows, list[str]]:
    """Return the rows for metrics that need many, and a note if they are training rows."""
    if data is not None or table is not None:
        return _labelled(session, data, table).spread(ROWS), []
    own = session.data
    if len(own.test) >= min(ENOUGH, len(own.train)):
        return own.test.spread(ROWS).fixed(), []
    few = f"training rows are used: the test split has {len(own.test):,} rows"
    return own.train.spread(ROWS).fixed(), [few]


def record(session: Session, content: dict[str, Json]) -> dict[str, Json]:
    """Return the content of a file with the hash of the weights and the version.

    >>> import numpy as np, vaestro as vs
    >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    >>> session = vs.open(vs.train(x, run="second", latent=2, steps=2))
    >>> sorted(record(session, {}))
    ['vaestro', 'weights_sha256']
    """
    stamp = {"weights_sha256": session.weights_sha256, "vaestro": vaestro.__version__}
    return {**stamp, **{name: as_json(value) for name, value in content.items()}}


def _labelled(session: Session, data: Source | None, table: str | Path | None) -> Rows:
    """Return all rows of some data, with the attributes of a table.

    Args:
        session: on the run.
        data: the data; by default the run's own.
        table: a table with a row for each row of the data, in order; by default the data have
            their own attributes.

    Raises:
        ValueError: the table has another number of rows, or the data cannot be read again.
    """
    run = session.run
    source = stored_source(run.path, run.options["source"]) if data is None else data
    rows = session.rows(source, "all").fixed()
    if table is None:
        return rows
    if not is_table(Path(table)):
        raise ValueError(f"expected a table ({suffixes_in_words()}) of attributes; got {table}")
    frame = parse_cells(read_table(Path(table), {}), {}, str(table)).splits["all"]
    if len(frame) != len(rows):
        raise ValueError(
            f"expected a row in {table} for each of {len(rows):,} data; got {len(frame):,} rows"
        )
    new = {name: filled(cells) for name, cells in frame.columns.items()}
    return replace(rows, attributes={**rows.attributes, **new})


def _fit_and_score(
    session: Session, data: Source | None, table: str | Path | None, seed: int
) -> tuple[Rows, Rows]:
    """Return rows that fit and other rows that score: training and test rows of the run's own data,
    or two random parts of other data, or of data with a table of attributes."""
    if data is None and table is None:
        own = session.data
        held = next((rows for rows in (own.test, own.valid) if len(rows)), None)
        if held is None:
            raise InputError(
                "the run's data have no test or validation rows to score a probe: name others by "
                "--data"
            )
        return own.train.spread(ROWS).fixed(), held.spread(ROWS).fixed()
    rows = _labelled(session, data, table).spread(2 * ROWS)
    order = numpy_generator(seed, "fit and score").permutation(len(rows))
    third = max(1, len(rows) // 3)
    score, fit = np.sort(order[:third]), np.sort(order[third:])
    return replace(rows.pick(fit), name="other"), replace(rows.pick(score), name="remaining")


def _without_attributes(session: Session, rows: Rows, notes: Sequence[str]) -> InputError:
    """Return the error for data without attributes, with the option that adds some."""
    if notes:
        return InputError(f"no attribute of the data can be a target: {'; '.join(notes)}")
    run = shlex.quote(str(session.run.path))
    source = str(session.run.options["source"])
    option = "" if not has_images(parse_source(source)[0]) else ", or train on SOURCE:attributes=.."
    return InputError(
        f"the data of {run} have no attributes: add --attributes FILE, a table with a row for each "
        f"datum in order{option}"
    )
