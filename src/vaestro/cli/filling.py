"""The command impute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vaestro.cli.arguments import (
    ConditionOfAll,
    Dtype,
    Force,
    Output,
    Raw,
    RunFolder,
    Seed,
    SourceArgument,
    Split,
    Trust,
    opened_session,
    pairs,
)
from vaestro.cli.console import console
from vaestro.cli.rows import is_picture, say_read, write

if TYPE_CHECKING:
    pass


def impute(
    run: RunFolder,
    source: SourceArgument,
    output: Output,
    k: Annotated[
        int, typer.Option(help="Draws of z for each datum, weighted by importance.")
    ] = 100,
    sample: Annotated[
        bool,
        typer.Option(
            "--sample", help="Fill in a draw from p(missing|observed) instead of its mean."
        ),
    ] = False,
    n: Annotated[
        int | None,
        typer.Option(
            "-n",
            help="Number of imputations by draws. A table gets a column with their number; an "
            "array a first axis.",
        ),
    ] = None,
    split: Split = None,
    condition: ConditionOfAll = None,
    dtype: Dtype = None,
    seed: Seed = 0,
    raw: Raw = False,
    force: Force = False,
    trust: Trust = False,
) -> None:
    """Fill missing cells, given the observed cells. Observed cells do not change.

    Cells are assumed to be missing at random: whether a cell is missing may depend on what is
    observed, not on its own value.

    Example: vaestro impute runs/mine customers.csv -o complete.csv
    """
    from vaestro.data.writers import check_output
    from vaestro.runs.imputing import How, imputed, stacked

    session = opened_session(run, trust=trust)
    path = check_output(output, force=force)
    if n is not None and is_picture(path):
        raise ValueError(f"expected a table or an array for -n; got {path}")
    space, how = session.model.space, How(n=n, k=k, sample=sample, dtype=dtype, seed=seed)
    with console.during(f"filling in {source}"):
        rows, filled = imputed(session, source, how, split, pairs(condition))
    data = filled[0] if n is None else stacked(filled)
    say_read(rows)
    cells = rows.missing_cells()
    title = f"{len(rows)} of {source} filled in by {session.run.path}"
    drawn = sample or n is not None
    kind = "float" if drawn or not space.columns else dtype
    write(path, {"": data}, space, title, dtype=kind, attributes=rows.attributes, raw=raw)
    words = (
        "draws from p(missing | observed)" if drawn else "weighted means and most probable values"
    )
    times = "" if n is None else f"{n:,} imputations of "
    console.say(
        f"wrote {times}{len(rows):,} rows with {cells:,} missing cells filled in ({words}, {k} "
        f"draws of z) to {path}"
    )
