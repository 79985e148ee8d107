"""Run what a report needs and a folder lacks, or has of earlier weights; then render."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaestro.comparison import compare
from vaestro.comparison.evidence import names
from vaestro.data.writers import check_output, writing
from vaestro.files import read_object
from vaestro.report.reading import SHOWCASE_FORMAT
from vaestro.runs import Run

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
) -> Path:
    """Write the report of a run, or of several side by side, and return its path.

    What is missing in a run's folder, or is of earlier weights, is computed first: evaluation,
    diagnosis, pictures.

    Args:
        runs: a run's folder, or several.
        output: the file; by default report.html in the run's folder, or in the folder that holds
            the runs.
        force: write over a file that is no report of these runs.
        say: what to do with lines on what is being done.

    Raises:
        ValueError: a folder is no run's, a run stands twice, or the output may not be written.
    """
    render = _renderer()
    opened = Run.several(runs)
    folders = [r.path.resolve() for r in opened]
    identity = render.identity(folders)
    own = folders[0] if len(folders) == 1 else Path(os.path.commonpath([f.parent for f in folders]))
    path = (
        Path(output)
        if output is not None
        else (opened[0].path if len(opened) == 1 else own) / "report.html"
    )
    check_output(
        path,
        force=force or render.made_of(path, identity, any_run=output is None and len(opened) == 1),
        suffixes=(".html", ".htm"),
    )
    notes = {run.path: gather(run, say) for run in opened}
    if len(opened) == 1:
        page = render.run_page(opened[0].path, notes[opened[0].path])
    else:
        found: dict[str, Any] | None = None
        try:
            found = compare(opened).record()
        except ValueError as error:
            notes[opened[0].path].append(f"the runs are not compared: {error}")
        page = render.runs_page(
            [r.path for r in opened],
            names(folders),
            found,
            [n for lines in notes.values() for n in lines],
            path.parent,
        )
    with writing(path) as part:
        part.write_text(page, encoding="utf-8")
    return path


def _renderer() -> Any:
    try:
        import jinja2  # noqa: F401
        import plotly  # noqa: F401
    except ImportError as error:
        raise ValueError(
            "expected the extra vaestro[report] to write a report; got an installation without it"
        ) from error
    from vaestro.report import render

    return render


def gather(run: Run, say: Say = lambda line: None) -> list[str]:
    """Compute what a report needs and the folder lacks, and write it there; return a line for each
    thing that cannot be had."""
    if not (run.path / "model.safetensors").exists():
        return [
            f"{run.path} has no weights yet: there is nothing to evaluate, to diagnose or to show"
        ]
    notes: list[str] = []
    held: list[Session] = []

    def session() -> Session:
        from vaestro.runs.session import Session

        if not held:
            held.append(Session(run))
        return held[0]

    for what, is_there, make in (
        ("evaluation", _evaluated, lambda: _evaluate(session(), say)),
        ("diagnosis", _diagnosed, lambda: _diagnose(session(), say)),
        ("showcase", _shown, lambda: _show(session(), say)),
    ):
        if not is_there(run):
            try:
                make()
            except (ValueError, OSError, RuntimeError) as error:
                notes.append(f"no {what} of these weights: {' '.join(str(error).split())}")
    return notes


def _of_these_weights(run: Run, found: dict[str, Any] | None) -> bool:
    return found is not None and found.get("weights_sha256") in (None, run.weights_sha256())


def _evaluated(run: Run) -> bool:
    return (run.path / "evaluation.npz").exists() and _of_these_weights(
        run, read_object(run.path / "evaluation.json")
    )


def _evaluate(session: Session, say: Say) -> None:
    from vaestro.evaluation import within_seconds
    from vaestro.runs import describe

    split = next((s for s in ("test", "valid") if len(getattr(session.data, s))), None)
    if split is None:
        raise ValueError("there are no held-out data to evaluate on")
    held_out = session.held_out(split=split)
    k, limit = within_seconds(session.model, held_out.rows, DRAWS)
    say(f"evaluating {describe(held_out.rows, limit)} with {k} draws")
    for _ in session.evaluating(held_out, k=k, limit=limit):
        pass


def _diagnosed(run: Run) -> bool:
    return _of_these_weights(run, read_object(run.path / "diagnosis.json"))


def _diagnose(session: Session, say: Say) -> None:
    say("diagnosing")
    session.diagnose()


def _shown(run: Run) -> bool:
    found = read_object(run.path / "showcase.json")
    return (
        found is not None
        and _of_these_weights(run, found)
        and found.get("format") == SHOWCASE_FORMAT
    )


def _show(session: Session, say: Say) -> None:
    from vaestro.models import with_latent
    from vaestro.report.showcase import make

    say("choosing data, reconstructions, samples and traversals to show")
    make(session.run, with_latent(session.model), session.data).save(session.run)
