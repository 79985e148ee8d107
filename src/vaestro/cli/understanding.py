"""The commands probe and disentangle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vaestro.cli.arguments import Force, RunArgument, Seed, Trust, opened_run, opened_session
from vaestro.cli.console import console

LabelTable = Annotated[
    str | None,
    typer.Option(
        "--attributes",
        metavar="FILE",
        help="A table of attributes with a row for each row of the data, in order.",
    ),
]
OtherData = Annotated[
    str | None,
    typer.Option("--data", help="Other data of the same kind.  [default: the run's own]"),
]
TableOutput = Annotated[
    str | None,
    typer.Option("-o", "--output", help="Also write a table: .csv, .parquet, ..; see --help."),
]


def _table_path(output: str | None, force: bool) -> Path | None:
    """Return the path of a table that a command also writes."""
    from vaestro.data.writers import TABLES, check_output

    return None if output is None else check_output(output, force=force, suffixes=TABLES)


def _write_table(path: Path | None, columns: dict[str, list[object]]) -> None:
    """Write a table, and print its path."""
    from vaestro.data.tables import frame_of, write_frame
    from vaestro.storage import writing

    if path is None:
        return
    with writing(path) as part:
        write_frame(part, frame_of(columns), path.suffix.lower())
    console.say(f"wrote {path}")


def probe(
    run: RunArgument = None,
    attribute: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="An attribute; may be repeated.  [default: all]"),
    ] = None,
    data: OtherData = None,
    attributes: LabelTable = None,
    labels: Annotated[int, typer.Option(help="Number of labels of the small draws.")] = 100,
    draws: Annotated[int, typer.Option(help="Number of draws of so many labels.")] = 5,
    output: TableOutput = None,
    seed: Seed = 0,
    force: Force = False,
    trust: Trust = False,
) -> None:
    """Predict attributes from the codes, from raw data, and from PCA of the same width.

    Linear and nearest-neighbour probes are fitted to training rows and scored on test rows, with an
    interval. Writes RUN/probes.json.

    Example: vaestro probe runs/mine --attribute digit
    """
    path = _table_path(output, force)
    session = opened_session(run, trust=trust)
    found = session.probe(
        attribute or None, data=data, table=attributes, labels=labels, draws=draws, seed=seed
    )
    for line in found.lines():
        console.say(line)
    console.say(f"wrote {session.run.path}/probes.json")
    _write_table(path, found.columns())


def disentangle(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN",
            help="Folders of runs; by default the newest under runs/. Of several, such as seeds, "
            "the mean is printed too.",
        ),
    ] = None,
    factors: Annotated[
        str | None, typer.Option(metavar="A,B", help="Attributes.  [default: all]")
    ] = None,
    data: OtherData = None,
    attributes: LabelTable = None,
    repeats: Annotated[
        int, typer.Option(help="Random halves of the rows from which intervals are estimated.")
    ] = 10,
    output: TableOutput = None,
    seed: Seed = 0,
    force: Force = False,
    trust: Trust = False,
) -> None:
    """Measure how far each unit contains one attribute of the data.

    MIG, SAP, DCI, modularity, explicitness, FactorVAE and beta-VAE scores, with intervals and their
    values at chance. Writes RUN/disentanglement.json.

    Example: vaestro disentangle runs/seed0 runs/seed1 --factors shape,x,y
    """
    from vaestro.latent import over_runs
    from vaestro.runs import Run

    path = _table_path(output, force)
    names = None if factors is None else [name.strip() for name in factors.split(",")]
    opened = Run.several(runs or [str(opened_run(None).path)], trust=trust)
    results = {}
    for run in opened:
        session = opened_session(str(run.path), trust=trust)
        found = session.disentangle(names, data=data, table=attributes, repeats=repeats, seed=seed)
        results[str(run.path)] = found
        console.say(f"{run.path}: {next(lines := found.lines())}")
        for line in lines:
            console.say(line)
        console.say(f"wrote {run.path}/disentanglement.json")
    if len(results) > 1:
        results["mean"] = over_runs([*results.values()])
        for line in results["mean"].lines():
            console.say(line)
    table: dict[str, list[object]] = {"run": []}
    for name, result in results.items():
        table["run"] += [name] * len(result.metrics)
        for key, values in result.columns().items():
            table.setdefault(key, []).extend(values)
    _write_table(path, table)
