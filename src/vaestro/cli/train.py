"""The command `vaestro train`, whose options are the rows of `vaestro.options`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from vaestro.cli.arguments import ConfigFile, DryRun, Force, NewRun, Recipe, Resume, Trust
from vaestro.cli.console import console
from vaestro.option import Option
from vaestro.options import OPTIONS, resumable
from vaestro.text import alternatives, duration, unquoted

if TYPE_CHECKING:
    from vaestro.runs import Job

Command = Callable[..., None]


def with_options(command: Command) -> Command:
    """Return a command whose `**options` are the rows of `OPTIONS`."""
    signature = inspect.signature(command, eval_str=True)
    parameters = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    first = [p for p in parameters if p.name in ("source", "run", "recipe")]
    rows = [_parameter(row) for row in OPTIONS if row.name != "source"]
    last = [p for p in parameters if p not in first]
    command.__dict__["__signature__"] = signature.replace(parameters=[*first, *rows, *last])
    return command


def _parameter(row: Option) -> inspect.Parameter:
    default = f"  [default: {row.in_default}]" if row.in_default else ""
    option = typer.Option(
        *row.flags,
        help=row.sentences + default,
        metavar=row.metavar or "|".join(row.values) or None,
    )
    kind = list[str] if row.repeatable else row.kind if isinstance(row.kind, type) else str
    return inspect.Parameter(
        row.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, option],
    )


_SOURCE = next(row for row in OPTIONS if row.name == "source")


@with_options
def train(
    source: Annotated[str | None, typer.Argument(metavar="SOURCE", help=_SOURCE.help)] = None,
    *,
    run: NewRun = None,
    recipe: Recipe = None,
    config: ConfigFile = None,
    resume: Resume = None,
    dry_run: DryRun = False,
    force: Force = False,
    trust: Trust = False,
    **options: object,
) -> None:
    """Train a VAE and write a run's folder.

    Example: vaestro train mnist --latent 40 --epochs 20 --run runs/mine
    """
    from vaestro.options import dump_config
    from vaestro.runs import Job

    given = {key: value for key, value in options.items() if value not in (None, [], ())}
    condition = given.get("condition")
    if isinstance(condition, list):
        given["condition"] = [unquoted(name) for name in condition]
    mark = "# " if dry_run else ""
    if resume is not None:
        if dry_run or force or config or run or source or recipe:
            allowed = alternatives([f"--{name}" for name in resumable()])
            raise ValueError(f"expected only {allowed} with --resume; got more options")
        with console.during(f"reading the data of {resume}"):
            job = Job.resumed(resume, trust=trust, **given)
    else:
        with console.during(f"{mark}reading {source or 'the data'}"):
            job = Job.new(
                source,
                run=run,
                force=force,
                config=config,
                dry=dry_run,
                progress=console.reading,
                recipe=recipe,
                trust=trust,
                **given,
            )
    _announce(job, mark)
    if dry_run:
        if job.writes:
            print(dump_config(job.config), end="")
        return
    _run(job)


def _announce(job: Job, mark: str) -> None:
    """Print the notes and findings before the first step, and the sizes of the model.

    Args:
        job: what will be trained.
        mark: precedes each line; "" unless this is a dry run.
    """
    for note in job.notes:
        console.say(f"{mark}{note}")
    for finding in job.lint():
        # A remedy starts from the run's files, which a dry run does not write.
        for text in list(finding.lines())[: 1 if mark else None]:
            console.say(f"{mark}{text}")
    training = job.training
    sizes = {
        name: sum(p.numel() for p in part.parameters())
        for name, part in training.model.named_children()
    }
    parts = ", ".join(f"{name} {size:,}" for name, size in sizes.items() if size)
    console.say(
        f"{mark}{sum(sizes.values()):,} parameters ({parts}), {training.steps:,} steps of "
        f"{training.batch} on {training.device}"
    )
    dry = bool(mark)
    # the first compiled steps take long, and a dry run shall not
    if dry and training.compile == "on":
        return
    with console.during(f"{mark}timing some steps"):
        expectation = job.expectation()
    if expectation:
        console.say(f"{mark}{expectation}")


def _run(job: Job) -> None:
    """Train to the end, and print how good the model is."""
    from vaestro.runs.summary import conclusion

    training = job.training
    console.run(job)
    training.processes.end()
    if not job.writes:
        return
    console.say(f"wrote {job.path}/ after {duration(training.seconds)}")
    console.say(training.kept_sentence())
    if console.quiet:
        return
    with console.during("evaluating on held-out data"):
        lines = list(conclusion(job))
    for line in lines:
        console.say(line)
