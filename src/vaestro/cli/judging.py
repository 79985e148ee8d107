"""The commands that judge a run: evaluate, diagnose, gradients, compare, report."""

from __future__ import annotations

import json as json_module
import math
import shlex
import time
from typing import TYPE_CHECKING, Annotated

import typer

from vaestro.cli.arguments import (
    AsJson,
    ConditionOfAll,
    Device,
    Draws,
    Force,
    Methods,
    RunArgument,
    RunFolders,
    Seed,
    Trust,
    device_of,
    opened_run,
    opened_session,
    pairs,
)
from vaestro.cli.console import Stopped, console, unit_lines
from vaestro.cli.rows import say_read, say_unread
from vaestro.storage import refuse_read_only
from vaestro.text import duration, parse_pair

if TYPE_CHECKING:
    from vaestro.data import Rows
    from vaestro.diagnosis import Diagnosis
    from vaestro.diagnosis.noise import Noises
    from vaestro.evaluation import Evaluation

HeldOutSplit = Annotated[
    str | None,
    typer.Option(help="test, valid or train.  [default: test; all rows of --data without splits]"),
]


def evaluate(
    run: RunArgument = None,
    methods: Methods = "elbo,iwae",
    k: Draws = 500,
    split: HeldOutSplit = None,
    limit: Annotated[
        int | None, typer.Option(help="Number of rows to evaluate, drawn at random by --seed.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Other data of the same kind.  [default: the run's own]")
    ] = None,
    condition: ConditionOfAll = None,
    seed: Seed = 0,
    device: Device = "auto",
    trust: Trust = False,
) -> None:
    """Bound log p(x) of held-out data.

    Writes RUN/evaluation.json and .npz. ELBO and IWAE are lower bounds. ais is a tighter lower
    bound, and measures its largest possible gap on data drawn from the model. gap decomposes log
    p(x) - ELBO; information decomposes the rate. samples compares drawn rows of a table with
    held-out rows. The same command continues an interrupted evaluation.

    Example: vaestro evaluate runs/mine --k 5000 --methods elbo,iwae,ais
    """
    from vaestro.loop import accelerator_for, end_together
    from vaestro.runs import describe

    start, accelerator = time.perf_counter(), accelerator_for(device)
    rank, processes = accelerator.process_index, accelerator.num_processes
    session = opened_session(run, str(accelerator.device), trust=trust)
    with console.during(f"reading {data or 'the data of ' + str(session.run.path)}"):
        held_out = session.held_out(data, split, pairs(condition))
    rows, changed = held_out.rows, held_out.changed
    if data:
        say_read(rows)
    for line in changed:
        console.say(line)
    steps = session.evaluating(
        held_out, k=k, methods=methods, limit=limit, seed=seed, rank=rank, processes=processes
    )
    evaluation = None
    try:
        for _, evaluation in console.progress(
            steps, f"{describe(rows, limit or len(rows))}, {methods} with {k:,} draws"
        ):
            pass
    except KeyboardInterrupt:
        steps.close()  # keeps the finished pieces
        console.say("stopped; the same command continues")
        raise Stopped from None
    assert evaluation is not None
    _say_evaluation(evaluation, rows)
    say_unread(rows)
    for warning in evaluation.warnings[len(changed) :]:
        console.say(f"note: {warning}")
    console.say(
        f"wrote {session.run.path}/evaluation.json and evaluation.npz after "
        f"{duration(time.perf_counter() - start)}"
    )
    end_together(accelerator)
    if not all(math.isfinite(e.mean()[0]) for e in evaluation.estimates if e.side != "upper"):
        raise ArithmeticError(
            f"the bounds of {session.run.path} are not finite: `vaestro diagnose "
            f"{shlex.quote(str(session.run.path))}` finds the cause"
        )


def _say_evaluation(evaluation: Evaluation, rows: Rows) -> None:
    """Print the results, a line each."""
    from vaestro.evaluation import SIMULATED, plus_minus
    from vaestro.runs import describe

    for estimate in evaluation.estimates:
        if estimate.on == SIMULATED and estimate.method != "ais":
            continue
        console.say(estimate.sentence(describe(rows, len(estimate.nats))) + estimate.bits)
        for note in estimate.notes():
            console.say(f"    {note}")
    gaps = ", ".join(
        f"{m.upper()} by {plus_minus(gap)}" for m, gap in evaluation.simulated_gaps().items()
    )
    if gaps:
        console.say(
            f"on data drawn from the model, log p(x) lies above the lower bounds by at most: "
            f"{gaps} nats"
        )
    if evaluation.fidelity is not None:
        n = len(evaluation.fidelity.psnr)
        console.say(evaluation.fidelity.sentence(f"{n:,} {rows.name} images"))
    if evaluation.gap is not None:
        console.say(evaluation.gap.sentence(describe(rows, len(evaluation.gap.elbo))))
        for note in evaluation.gap.notes():
            console.say(f"    {note}")
    if evaluation.independent is not None:
        console.say(evaluation.independent.sentence())
    if evaluation.information is not None:
        console.say(evaluation.information.sentence(describe(rows, evaluation.information.n)))
    if evaluation.samples is not None:
        first, *others = evaluation.samples.sentences(describe(rows, evaluation.samples.held_out))
        console.say(first)
        for line in (*others, *evaluation.samples.notes):
            console.say(f"    {line}")
    if all(estimate.side != "exact" for estimate in evaluation.estimates):
        console.say(
            f"rate {evaluation.rate:.2f} nats, distortion {evaluation.distortion:.2f} nats (of "
            f"the ELBO)"
        )
    for score in (evaluation.lengths, evaluation.absences):
        for line in () if score is None else score.sentences():
            console.say(line)


def diagnose(
    run: RunArgument = None,
    fix: Annotated[
        bool,
        typer.Option("--fix", help="Print only the command that fixes the most severe finding."),
    ] = False,
    json: AsJson = False,
    seed: Seed = 0,
    device: Device = "auto",
    trust: Trust = False,
) -> None:
    """Find faults of a run, with remedies.

    Writes RUN/diagnosis.json and .npz, with the evidence. Posterior collapse is judged by whether
    the encoder's output depends on its input, never by a small KL alone.

    Example: vaestro diagnose runs/mine
    """
    session = opened_session(run, device_of(device), trust=trust)
    refuse_read_only(session.run.path)
    with console.during("" if fix or json else f"diagnosing {session.run.path}"):
        diagnosis = session.diagnose(seed=seed)
    if fix:
        print(_fix(diagnosis))
        return
    if json:
        print(json_module.dumps(diagnosis.line(), indent=1))
        return
    console.say(f"{session.run.path}: {diagnosis.verdict}")
    console.say(f"    {diagnosis.summary}")
    for text in unit_lines(diagnosis.units):
        console.say(f"    {text}")
    for finding in diagnosis.findings:
        for text in finding.lines():
            console.say(text)
    console.say(f"wrote {session.run.path}/diagnosis.json and diagnosis.npz")


def _fix(diagnosis: Diagnosis) -> str:
    """Return the command that fixes the most severe finding, or a comment if there is none."""
    worst = next((f for f in diagnosis.findings if f.severity != "note"), None)
    if worst is None:
        return f"# nothing to fix: {diagnosis.verdict}"
    return worst.remedy or f"# no command for {worst.name}: {worst.no_remedy}"


def gradients(
    run: RunArgument = None,
    k: Annotated[
        str | None,
        typer.Option(help="Numbers of draws, such as 1,8,64.  [default: the run's own, and 8]"),
    ] = None,
    estimator: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PART",
            help="An estimator with its options; may be repeated.  [default: all applicable ones]",
        ),
    ] = None,
    bound: Annotated[
        str | None, typer.Option(help="elbo or iwae.  [default: the run's own]")
    ] = None,
    repeats: Annotated[int, typer.Option(help="Independent draws of the noise.")] = 40,
    json: AsJson = False,
    seed: Seed = 0,
    device: Device = "auto",
    trust: Trust = False,
) -> None:
    """Measure the noise of gradient estimators.

    Writes RUN/gradients.json and .png: variance and signal-to-noise of each estimator on the run's
    model and data.

    Example: vaestro gradients runs/mine --k 1,8,64
    """
    session = opened_session(run, device_of(device), trust=trust)
    try:
        draws = None if k is None else [int(piece) for piece in k.split(",")]
    except ValueError:
        raise ValueError(f"expected numbers of draws, such as --k 1,8,64; got {k!r}") from None
    console.quiet |= json
    refuse_read_only(session.run.path)
    steps = session.gradients(
        k=draws, estimators=estimator, bound=bound, repeats=repeats, seed=seed
    )
    noises = None
    for _, noises in console.progress(steps, f"{repeats} gradients of each estimator"):
        pass
    assert noises is not None
    if json:
        print((session.run.path / "gradients.json").read_text(), end="")
        return
    _say_noises(noises)
    console.say(f"wrote {session.run.path}/gradients.json and gradients.png")


def _say_noises(noises: Noises) -> None:
    """Print a table for each group of parameters and number of draws."""
    from vaestro.diagnosis.noise_picture import panel_lines, sentence, title

    for group in dict.fromkeys(r.group for r in noises.rows):
        for k in dict.fromkeys(r.k for r in noises.rows):
            lines = panel_lines(noises.of(group, k))
            if not lines:
                continue
            reference = lines[0][1]
            console.say(title(noises, reference))
            width = max(len(name) for name, _ in lines)
            for name, row in lines:
                console.say(
                    f"    {name:<{width}}  variance {row.variance:9.3g}  {sentence(row, reference)}"
                )
            if reference.batches is not None:
                console.say(
                    f"    {'over batches':<{width}}  variance {reference.batches:9.3g}  for scale: "
                    f"with other data at each step"
                )


def compare(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="RUN", help="Folders of runs that were evaluated.")
    ] = None,
    exact: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE.npz",
            help="Exact log p(x) per datum, an array log_px, with options after a colon: "
            "unit=bits|nats (of the whole datum), "
            "measure=counting|lebesgue, given=CONDITION; may be repeated.",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            help="Also write .png (a picture), .json (the whole comparison) or .csv.",
        ),
    ] = None,
    force: Force = False,
) -> None:
    """Compare runs that were evaluated.

    Prints which runs are comparable, a table of their bounds, which conclusions follow, and a chart
    of intervals.

    Example: vaestro compare runs/mine runs/other -o comparison.png
    """
    from vaestro.comparison import compare
    from vaestro.comparison.words import report
    from vaestro.data.writers import check_output
    from vaestro.runs import Run

    path = (
        None
        if output is None
        else check_output(output, force=force, suffixes=(".png", ".json", ".csv"))
    )
    files: dict[str, str] = {}
    for text in exact or []:
        name, file = parse_pair(text) or ("", "")
        if not name or ":" in name or not file or name in files:
            raise ValueError(f"expected each --exact once, as NAME=FILE.npz; got {text!r}")
        files[name] = file
    folders = runs or [str(opened_run(None).path)]
    with console.during(f"comparing {len(folders)} runs"):
        comparison = compare(folders, files)
    for run in Run.several(folders):
        if run.failure is not None:  # whether a run ended is written in files that need torch
            console.warn_at_end(run.incomplete())
    for line in report(comparison):
        console.say(line)
    if path is not None:
        comparison.save(path)
        console.say(f"wrote {path}")


def report(
    runs: RunFolders = None,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            help="The .html file.  [default: report.html in the run's folder; for several runs, "
            "in the folder that contains them]",
        ),
    ] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
    force: Force = False,
    trust: Trust = False,
) -> None:
    """Write a report as one HTML file.

    It contains the result, findings, curves, pictures, and the commands that reproduce the run.
    Missing or outdated parts are computed first: evaluation, diagnosis, pictures. An existing
    report of the same runs is overwritten.

    Example: vaestro report runs/mine --open
    """
    from vaestro.report.gather import write_report

    chosen = runs or [str(opened_run(None).path)]
    with console.during(f"writing the report of {', '.join(chosen)}"):
        path = write_report(chosen, output, force=force, say=console.say, trust=trust)
    console.say(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")
    if open_it:
        import webbrowser

        webbrowser.open(path.resolve().as_uri())
