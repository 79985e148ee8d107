"""The commands that judge a run: evaluate, diagnose, gradients, report, compare."""

from __future__ import annotations

import json as json_module
from typing import TYPE_CHECKING, Annotated

import typer

from vaestro.cli.arguments import (
    ConditionOfAll,
    Device,
    Force,
    RunArgument,
    Seed,
    device_of,
    opened_run,
    opened_session,
    pairs,
)
from vaestro.cli.console import console, unit_lines
from vaestro.cli.rows import say_read, say_unread
from vaestro.text import duration, parse_pair

if TYPE_CHECKING:
    from vaestro.data import Rows
    from vaestro.evaluation import Evaluation


def evaluate(
    run: RunArgument = None,
    methods: Annotated[
        str,
        typer.Option(
            help="Some of elbo, iwae, ais, gap, information, with options: "
            "elbo,ais:chains=16,n=100 (vaestro parts method)."
        ),
    ] = "elbo,iwae",
    k: Annotated[int, typer.Option(help="Draws for each datum.")] = 500,
    split: Annotated[
        str | None,
        typer.Option(
            help="test, valid or train.  [default: test; every row of --data without splits]"
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Number of rows to evaluate, drawn at random by --seed.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Other data of the same kind.  [default: the run's own]")
    ] = None,
    condition: ConditionOfAll = None,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Bound log p(x) of held-out data, and write RUN/evaluation.json and .npz.

    ELBO and IWAE are lower bounds. ais is a tighter lower bound, and measures its largest possible
    gap on data drawn from the model. gap decomposes log p(x) - ELBO; information decomposes the
    rate. The same command continues an interrupted evaluation.

    Example: vaestro evaluate runs/mine --k 5000 --methods elbo,iwae,ais
    """
    import time

    from vaestro.loop import accelerator_for
    from vaestro.runs import describe

    start, accelerator = time.perf_counter(), accelerator_for(device)
    rank, processes = accelerator.process_index, accelerator.num_processes
    console.quiet |= rank > 0
    session = opened_session(run, str(accelerator.device))
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
        steps.close()  # keeps the pieces in hand
        console.say("stopped; the same command goes on from here")
        raise typer.Exit(130) from None
    assert evaluation is not None
    _say_evaluation(evaluation, rows)
    say_unread(rows)
    for warning in evaluation.warnings[len(changed) :]:
        console.say(f"note: {warning}")
    console.say(
        f"wrote {session.run.path}/evaluation.json and evaluation.npz after "
        f"{duration(time.perf_counter() - start)}"
    )


def _say_evaluation(evaluation: Evaluation, rows: Rows) -> None:
    """Say what was found, a line each."""
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
    if evaluation.gap is not None:
        console.say(evaluation.gap.sentence(describe(rows, len(evaluation.gap.elbo))))
        for note in evaluation.gap.notes():
            console.say(f"    {note}")
    if evaluation.information is not None:
        console.say(evaluation.information.sentence(describe(rows, evaluation.information.n)))
    console.say(
        f"rate {evaluation.rate:.2f} nats, distortion {evaluation.distortion:.2f} nats (of the "
        f"ELBO)"
    )


def diagnose(
    run: RunArgument = None,
    fix: Annotated[
        bool,
        typer.Option("--fix", help="Print only the command that fixes the most severe finding."),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print diagnosis.json.")] = False,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Find faults of a run, with evidence and remedies, and write
    RUN/diagnosis.json and .npz.

    Posterior collapse is judged by whether the encoder's output depends on its input, never by a
    small KL alone.

    Example: vaestro diagnose runs/mine
    """
    session = opened_session(run, device_of(device))
    found = session.diagnose(seed=seed)
    if fix:
        worst = next((f for f in found.findings if f.severity != "note"), None)
        nothing = (
            f"# nothing to mend: {found.verdict}"
            if worst is None
            else f"# no command for {worst.name}: {worst.no_remedy}"
        )
        print((worst and worst.remedy) or nothing)
        return
    if json:
        print(json_module.dumps(found.line(), indent=1))
        return
    console.say(f"{session.run.path}: {found.verdict}")
    console.say(f"    {found.summary}")
    for text in unit_lines(found.units):
        console.say(f"    {text}")
    for finding in found.findings:
        for text in finding.lines():
            console.say(text)
    console.say(f"wrote {session.run.path}/diagnosis.json and diagnosis.npz")


def gradients(
    run: RunArgument = None,
    k: Annotated[
        str | None,
        typer.Option(help="Numbers of draws, such as 1,8,64.  [default: the run's own, and 8]"),
    ] = None,
    estimator: Annotated[
        list[str] | None,
        typer.Option(
            help="An estimator with its options; may be repeated.  [default: all applicable ones]"
        ),
    ] = None,
    bound: Annotated[
        str | None, typer.Option(help="elbo or iwae.  [default: the run's own]")
    ] = None,
    repeats: Annotated[int, typer.Option(help="Independent draws of the noise.")] = 40,
    json: Annotated[bool, typer.Option("--json", help="Print gradients.json.")] = False,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Measure variance and signal-to-noise of every gradient estimator on a run's model and data:
    RUN/gradients.json and .png.

    Example: vaestro gradients runs/mine --k 1,8,64
    """
    from vaestro.diagnosis.noise_picture import panel_lines, sentence, title

    session = opened_session(run, device_of(device))
    try:
        draws = None if k is None else [int(piece) for piece in k.split(",")]
    except ValueError:
        raise ValueError(f"expected numbers of draws as 1,8,64; got {k!r}") from None
    if json:
        console.quiet = True
    steps = session.gradients(
        k=draws, estimators=estimator, bound=bound, repeats=repeats, seed=seed
    )
    found = None
    for _, found in console.progress(steps, f"{repeats} gradients of each estimator"):
        pass
    assert found is not None
    if json:
        print((session.run.path / "gradients.json").read_text(), end="")
        return
    for group in dict.fromkeys(r.group for r in found.rows):
        for draws_of in dict.fromkeys(r.k for r in found.rows):
            lines = panel_lines(found.of(group, draws_of))
            if lines:
                console.say(title(found, lines[0][1]))
                width = max(len(name) for name, _ in lines)
                for name, row in lines:
                    console.say(
                        f"    {name:<{width}}  variance {row.variance:9.3g}  "
                        f"{sentence(row, lines[0][1])}"
                    )
                over = lines[0][1].batches
                if over is not None:
                    console.say(
                        f"    {'over batches':<{width}}  variance {over:9.3g}  for scale: with "
                        f"other data at each step"
                    )
    console.say(f"wrote {session.run.path}/gradients.json and gradients.png")


def compare(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN ...", help="Folders of runs that were evaluated."),
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
    """State which runs are comparable and which conclusions follow: a table, sentences, and a chart
    of intervals.

    Example: vaestro compare runs/mine runs/other --exact oracle=exact.npz:measure=counting -o
    comparison.png
    """
    from vaestro.comparison import compare
    from vaestro.comparison.words import report
    from vaestro.data.writers import check_output

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
    comparison = compare(runs or [opened_run(None).path], files)
    for line in report(comparison):
        console.say(line)
    if path is not None:
        comparison.save(path)
        console.say(f"wrote {path}")


def report(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN ...]",
            help="Folders of runs; by default the newest under runs/. Several are compared.",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            help="The .html to write.  [default: report.html in the run's folder, or in the one "
            "that holds all]",
        ),
    ] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
    force: Force = False,
) -> None:
    """Write a report as one self-contained HTML file: the result, findings, curves,
    pictures, and the commands that reproduce the run.

    Missing or outdated parts are computed first: evaluation, diagnosis, pictures. An existing
    report of the same runs is overwritten.

    Example: vaestro report runs/mine --open
    """
    from vaestro.report.gather import write_report

    path = write_report(runs or [opened_run(None).path], output, force=force, say=console.say)
    console.say(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")
    if open_it:
        import webbrowser

        webbrowser.open(path.resolve().as_uri())
