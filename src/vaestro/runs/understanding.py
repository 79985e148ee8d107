"""Find out what the codes of a run mean: which rows are used, and what is written."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
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
from vaestro.latent import Disentanglement, Probes, UnitMeaning, UnitTable, UserData
from vaestro.latent.units import FEW
from vaestro.models import with_latent
from vaestro.randomness import numpy_generator
from vaestro.records import read_object, write_record
from vaestro.runs.manifest import results
from vaestro.runs.sources import Source
from vaestro.text import InputError
from vaestro.transfer import stored_source

if TYPE_CHECKING:
    from vaestro.runs.session import Session

ROWS = 5000  # largest number of rows that fit, and that score
LETTERS = 60  # longest name of a unit
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


def units(session: Session, names: Mapping[int, str] | None = None) -> UnitTable:
    """Describe the units of a session's run, and write units.json.

    Rates and roles are those of diagnosis.json. The run is diagnosed if this was not done with
    these weights.

    Args:
        session: on the run.
        names: names of units to add to those in units.json; "" removes one.

    Raises:
        ValueError: the model has no latent, or there is no such unit.

    >>> import vaestro as vs
    >>> table = {"size": [0.5, 1.5, 2.5, 1.0] * 99, "word": ["a", "b", "c", "a"] * 99}
    >>> session = vs.open(vs.train(table, run="fourth", latent=2, steps=2))
    >>> units(session, {0: "size"}).units[0].activity >= 0
    True
    """
    model = with_latent(session.model)
    count = math.prod(model.units)
    for unit, name in (names or {}).items():
        if not 0 <= unit < count:
            raise ValueError(f"expected a unit from 0 to {count - 1:,}; got {unit}")
        if len(name) > LETTERS or not name.isprintable():
            raise ValueError(f"expected a name of at most {LETTERS} letters; got {name[:80]!r}")
    table = _described(session)
    merged = {**session.run.unit_names, **(names or {})}
    table = table.named({unit: name for unit, name in merged.items() if name})
    with results(session.run.path, "units.json"):
        write_record(session.run.path / "units.json", record(session, table.record()))
    return table


def _described(session: Session) -> UnitTable:
    """Return what is known of each unit, without names."""
    rows = session.data.held_out
    places = rows.places(min(ROWS, len(rows)))
    some = rows.spread(ROWS).fixed()
    codes = session.codes(some)["mean"].reshape(len(some), -1).astype(np.float64)
    factors, left_out = latent.factors_of([some])
    found = latent.associations(codes, [*factors.values()])
    low, high = latent.extremes(codes)
    diagnosis = read_object(session.run.path / "diagnosis.json")
    if diagnosis is None or diagnosis.get("weights_sha256") not in (None, session.weights_sha256):
        diagnosis = session.diagnose().line()
    known = {line["unit"]: line for line in diagnosis.get("units") or []}
    meanings = [
        UnitMeaning(
            unit,
            known.get(unit, {}).get("rate"),
            float(codes[:, unit].var()),
            str(known.get(unit, {}).get("role", "unclear")),
            found[unit],
            tuple(places[low[unit]].tolist()),
            tuple(places[high[unit]].tolist()),
        )
        for unit in range(codes.shape[1])
    ]
    notes = left_out
    if len(some) < FEW:
        notes = [*notes, f"not enough data to tell correlations: {len(some)} {some.name} rows"]
    elif not factors and not left_out:
        notes = ["no correlations: the data have no attributes (SOURCE with attributes adds some)"]
    ordered = tuple(sorted(meanings, key=lambda u: -u.size))
    return UnitTable(ordered, some.name, len(some), tuple(notes))


def traversal(session: Session, units: Sequence[int], steps: int = 9) -> dict[int, UserData]:
    """Return the decoded code of the first held-out row, with one unit at a time at values from -3
    to 3 standard deviations of the codes around their mean, in the user's layout.

    Args:
        session: on the run.
        units: the numbers of the units.
        steps: the number of values.

    Raises:
        ValueError: latents are discrete.

    >>> import numpy as np, vaestro as vs
    >>> run = vs.train(np.eye(40, dtype="uint8"), run="fifth", latent=2, steps=2)
    >>> traversal(vs.open(run), [1], 5)[1].shape
    (5, 40)
    """
    model = with_latent(session.model)
    if model.alphabet:
        raise ValueError("expected real latents to move along; got discrete ones")
    rows = session.data.held_out
    some = rows.spread(ROWS).fixed()
    codes = session.codes(some)["mean"]
    flat, first = codes.reshape(len(codes), -1), some.take(1)
    moved = {}
    for unit in units:
        z = np.repeat(flat[:1], steps, 0)
        z[:, unit] = flat[:, unit].mean() + np.linspace(-3, 3, steps) * flat[:, unit].std()
        moved[unit] = session.decode(z.reshape(steps, *model.units), like=first, dtype="float")
    return moved


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
