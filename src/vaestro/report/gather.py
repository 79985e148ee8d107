"""Compute what a report needs and a run's folder lacks, then write the page."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from vaestro.comparison import compare
from vaestro.comparison.evidence import names
from vaestro.data.writers import check_output
from vaestro.files import Json
from vaestro.records import Damaged, read_arrays, read_object
from vaestro.report.reading import SHOWCASE_FORMAT, diffusion_stamp
from vaestro.runs import Run
from vaestro.runs.manifest import register
from vaestro.storage import write_text
from vaestro.trust import Untrusted

if TYPE_CHECKING:
    from vaestro.runs.session import Session

Say = Callable[[str], None]
DRAWS = 100


def write_report(
    runs: str | Path | Run | Sequence[str | Path | Run],
    output: str | Path | None = None,
    *,
    force: bool = False,
    say: Say = lambda line: None,
    session: Session | None = None,
    trust: bool = False,
) -> Path:
    """Write the report of a run, or of several side by side, and return its path.

    Evaluation, diagnosis and pictures that are missing, or are of earlier weights, are computed
    first.

    Args:
        runs: a run's folder, or several.
        output: the file; by default report.html in the run's folder, or in the folder that contains
            the runs.
        force: overwrite a file that is not a report of these runs.
        say: called with a line about each part that is computed.
        session: an open session on the run, if there is one; it computes what is missing.
        trust: run code that the folders name (module:Class).

    Raises:
        ValueError: a folder is not a run's, a run is named twice, or the output may not be written.

    >>> import numpy as np, vaestro as vs
    >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    >>> run = vs.train(x, run="example", latent=2, steps=2)
    >>> write_report(run).name
    'report.html'
    """
    render = _renderer()
    opened = Run.several(runs, trust=trust)
    folders = [r.path.resolve() for r in opened]
    identity = render.identity(folders)
    parent = Path(os.path.commonpath([f.parent for f in folders]))
    default = (opened[0].path if len(opened) == 1 else parent) / "report.html"
    path = default if output is None else Path(output)
    check_output(
        path,
        force=force or render.made_of(path, identity, any_run=output is None and len(opened) == 1),
        suffixes=(".html", ".htm"),
    )
    notes = {
        run.path: gather(run, say, session if session and session.run is run else None)
        for run in opened
    }
    if len(opened) == 1:
        page = render.run_page(opened[0].path, notes[opened[0].path])
    else:
        page = render.runs_page(
            [run.path for run in opened],
            names(folders),
            _comparison(opened, notes[opened[0].path]),
            [note for lines in notes.values() for note in lines],
            path.parent,
        )
    if output is None and len(opened) == 1:
        register(opened[0].path, path.name)
    write_text(path, page)
    return path


def _comparison(runs: Sequence[Run], notes: list[str]) -> dict[str, Json] | None:
    """Return the comparison of runs; None, with a note, if they cannot be compared."""
    try:
        return compare(runs).record()
    except ValueError as error:
        notes.append(f"the runs are not compared: {error}")
        return None


def _renderer() -> ModuleType:
    """Return the module that writes pages.

    Raises:
        ValueError: the extra vaestro[report] is not installed.
    """
    try:
        import jinja2  # noqa: F401
        import plotly  # noqa: F401
    except ImportError as error:
        raise ValueError(
            "expected the extra vaestro[report] to write a report; got an installation without it"
        ) from error
    from vaestro.report import render

    return render


def gather(run: Run, say: Say = lambda line: None, session: Session | None = None) -> list[str]:
    """Compute and write what a report needs and a run's folder lacks.

    Args:
        run: the run.
        say: called with a line about each part that is computed.
        session: on the run; by default one is opened if something is missing.

    Returns:
        A line for each part that could not be computed.

    >>> import numpy as np, vaestro as vs
    >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    >>> gather(vs.train(x, run="second", latent=2, steps=2))
    []
    """
    if not (run.path / "model.safetensors").exists():
        return [f"{run.path} has no weights yet, so nothing can be evaluated, diagnosed or shown"]
    notes: list[str] = []
    for part, is_current, compute in (
        ("evaluation", _has_evaluation, _evaluate),
        ("diagnosis", _has_diagnosis, _diagnose),
        ("units", _has_units, _describe),
        ("showcase", _has_showcase, _show),
    ):
        if not is_current(run):
            session = _opened(run) if session is None else session
            try:
                compute(session, say)
            except Untrusted:
                raise
            except (ValueError, OSError, RuntimeError) as error:
                notes.append(f"no {part} of these weights: {' '.join(str(error).split())}")
    return notes


def _opened(run: Run) -> Session:
    from vaestro.runs.session import Session  # imports torch

    return Session(run)


def _of_these_weights(run: Run, result: dict[str, Json] | None) -> bool:
    """Return whether a result is of the weights in use."""
    return result is not None and result.get("weights_sha256") in (None, run.weights_sha256())


def _has_evaluation(run: Run) -> bool:
    evaluation = read_object(run.path / "evaluation.json")
    try:
        read_arrays(run.path / "evaluation.npz", evaluation)
    except Damaged:
        return False
    return _of_these_weights(run, evaluation)


def _evaluate(session: Session, say: Say) -> None:
    from vaestro.evaluation import within_seconds
    from vaestro.evaluation.sampling import is_comparable
    from vaestro.runs import describe

    data = session.data
    split = next((rows.name for rows in (data.test, data.valid) if len(rows)), None)
    if split is None:
        raise ValueError("there are no held-out data to evaluate on")
    held_out = session.held_out(split=split)
    k, limit = within_seconds(session.model, held_out.rows, DRAWS)
    say(f"evaluating {describe(held_out.rows, limit)} with {k} draws")
    methods = ["elbo", "iwae"]
    if is_comparable(session.model.space) and find_spec("sklearn"):
        methods.append("samples")
    for _ in session.evaluating(held_out, methods=methods, k=k, limit=limit):
        pass


def _has_diagnosis(run: Run) -> bool:
    return _of_these_weights(run, read_object(run.path / "diagnosis.json"))


def _diagnose(session: Session, say: Say) -> None:
    say("diagnosing")
    session.diagnose()


def _has_units(run: Run) -> bool:
    """Return whether the units are described, or there are none."""
    units = read_object(run.path / "units.json")
    if units is not None:
        return _of_these_weights(run, units)
    return not (read_object(run.path / "diagnosis.json") or {}).get("units")


def _describe(session: Session, say: Say) -> None:
    say("describing the units")
    session.units()


def _has_showcase(run: Run) -> bool:
    result = read_object(run.path / "showcase.json")
    return (
        result is not None
        and _of_these_weights(run, result)
        and result.get("format") == SHOWCASE_FORMAT
        and result.get("diffusion") == diffusion_stamp(run)
    )


def _show(session: Session, say: Say) -> None:
    from vaestro.report.showcase import make

    say("choosing data, reconstructions, samples and traversals to show")
    make(session).save(session.run)
