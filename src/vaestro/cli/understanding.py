"""The commands probe, units and disentangle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vaestro.cli.arguments import Force, RunArgument, Seed, Trust, opened_run, opened_session
from vaestro.cli.console import console

if TYPE_CHECKING:
    from vaestro.latent import UnitTable
    from vaestro.runs.session import Session

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
    with console.during("fitting probes"):
        found = session.probe(
            attribute or None, data=data, table=attributes, labels=labels, draws=draws, seed=seed
        )
    for line in found.lines():
        console.say(line)
    console.say(f"wrote {session.run.path}/probes.json")
    _write_table(path, found.columns())


def units(
    run: RunArgument = None,
    name: Annotated[
        list[str] | None,
        typer.Option(
            metavar="UNIT=NAME",
            help="A name for a unit, such as 3=slant, which the report shows too; may be repeated. "
            "3= removes it.",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            help="Also write a .png of traversals (images only), or a table (.csv, .parquet, ..).",
        ),
    ] = None,
    n: Annotated[int, typer.Option("-n", help="Most units in a .png.")] = 16,
    force: Force = False,
    trust: Trust = False,
) -> None:
    """Describe each latent unit: rate, activity, role, attributes, and the rows at its extremes.

    Correlations with attributes are corrected for their number, and shown if they are significant.
    Writes RUN/units.json. The run is diagnosed first if that was not done.

    Example: vaestro units runs/mine --name 3=slant -o units.png
    """
    from vaestro.data.writers import TABLES, check_output

    suffixes = (".png", *TABLES)
    path = None if output is None else check_output(output, force=force, suffixes=suffixes)
    names = _names(name)
    session = opened_session(run, trust=trust)
    if path is not None and path.suffix == ".png" and not session.model.space.image:
        raise ValueError(
            f"expected a table (-o units.csv) for {session.model.space} data; got {path}"
        )
    with console.during("describing the units"):
        table = session.units(names)
    for line in table.lines():
        console.say(line)
    console.say(f"wrote {session.run.path}/units.json")
    if path is not None and path.suffix == ".png":
        _write_traversals(path, session, table, n)
    else:
        _write_table(path, table.columns())


def _names(pairs: list[str] | None) -> dict[int, str]:
    """Return {unit: name} from UNIT=NAME pairs.

    Raises:
        ValueError: a text is not such a pair.
    """
    names = {}
    for text in pairs or []:
        unit, equals, name = text.partition("=")
        if not equals or not unit.strip().isdigit():
            raise ValueError(f"expected --name UNIT=NAME, such as 3=slant; got {text!r}")
        names[int(unit)] = name.strip()
    return names


def _write_traversals(path: Path, session: Session, table: UnitTable, n: int) -> None:
    """Draw the traversal of the units with the largest rates, a line each."""
    from vaestro.data.writers import write_grid
    from vaestro.runs.understanding import traversal

    shown = [u for u in table.units if u.role != "off"][:n] or list(table.units[:1])
    moved = traversal(session, [u.unit for u in shown])
    unit = "variance" if shown[0].rate is None else "nats"
    labels = {
        u.unit: "  ".join(
            filter(None, (u.title, f"{u.size:.2f} {unit}", *(a.words for a in u.associations[:1])))
        )
        for u in shown
    }
    title = f"units of {session.run.path} by rate, from -3 to 3 standard deviations of their codes"
    write_grid(path, {labels[k]: x for k, x in moved.items()}, session.model.space, title)
    console.say(f"wrote the traversals of {len(shown)} units to {path}")


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
