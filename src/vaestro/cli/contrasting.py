"""The command that compares the expression of two groups of data."""

from __future__ import annotations

from typing import Annotated

import typer

from vaestro.cli.arguments import (
    ConditionOfAll,
    DecodeCondition,
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
from vaestro.cli.rows import read, say_guards


def contrast(
    run: RunFolder,
    source: SourceArgument,
    attribute: Annotated[
        str, typer.Option(metavar="NAME", help="The attribute whose values are the groups.")
    ],
    between: Annotated[
        tuple[str, str], typer.Option(metavar="A B", help="The values of the two groups.")
    ],
    output: Output,
    delta: Annotated[
        float, typer.Option(help="A gene differs if |log2 fold change| exceeds this limit.")
    ] = 0.25,
    level: Annotated[
        float,
        typer.Option(help="Largest expected share of false discoveries among the genes named."),
    ] = 0.05,
    draws: Annotated[int, typer.Option(help="Draws of the posterior.")] = 200,
    split: Split = None,
    condition: ConditionOfAll = None,
    decode_condition: DecodeCondition = None,
    seed: Seed = 0,
    raw: Raw = False,
    force: Force = False,
    trust: Trust = False,
) -> None:
    """Compare the denoised expression of two groups of cells, gene by gene.

    The table has the mean expression of each group at a library of 10,000, the log2 fold change
    with its standard error, the probability that it exceeds --delta, and the expected share of
    false discoveries among the genes that are at least as probable.

    Example: vaestro contrast runs/mine cells.h5ad --attribute type --between T B -o genes.csv
    """
    import numpy as np

    from vaestro.data.tables import frame_of, write_frame
    from vaestro.data.writers import TABLES, check_output
    from vaestro.storage import writing

    session = opened_session(run, trust=trust)
    path = check_output(output, force=force, suffixes=TABLES)
    rows = read(session, source, split, pairs(condition))
    first, second = between
    with console.during(f"comparing {first} and {second}"):
        result = session.contrast(
            rows,
            attribute,
            first,
            second,
            delta=delta,
            level=level,
            draws=draws,
            decode_condition=pairs(decode_condition),
            seed=seed,
        )
    with writing(path) as part:
        table = frame_of(result.columns(first, second))
        guards = write_frame(part, table, path.suffix.lower(), raw=raw)
    say_guards(guards)
    console.say(
        f"{int(np.sum(result.different)):,} of {len(result.names):,} genes differ by more than "
        f"{delta:g} in log2 between {result.sizes[0]:,} {first} and {result.sizes[1]:,} {second}, "
        f"with at most {level:.0%} false discoveries expected; wrote {path}"
    )
