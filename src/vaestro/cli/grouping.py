"""The command cluster."""

from __future__ import annotations

from typing import Annotated

import typer

from vaestro.cli import empty_code
from vaestro.cli.arguments import (
    ConditionOfAll,
    Force,
    RunFolder,
    Seed,
    Split,
    Trust,
    opened_session,
    pairs,
)
from vaestro.cli.console import console
from vaestro.cli.rows import attributes_of, is_picture, read, write

SHOWN = 16  # data of a cluster in a .png


def cluster(
    run: RunFolder,
    source: Annotated[
        str | None,
        typer.Argument(metavar="[SOURCE]", help="The data.  [default: training data of the run]"),
    ] = None,
    clusters: Annotated[
        str, typer.Option(help="Their number, or auto: by the lowest BIC, at most 20.")
    ] = "auto",
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            help="Also write a table with the cluster of each row, or a .png of data of each "
            "cluster (images only).",
        ),
    ] = None,
    split: Split = None,
    condition: ConditionOfAll = None,
    seed: Seed = 0,
    force: Force = False,
    trust: Trust = False,
) -> None:
    """Cluster data by their codes, with Gaussian mixtures.

    Prints sizes, what distinguishes each cluster, and whether the clusters are stable.

    Example: vaestro cluster runs/mine mnist -o clusters.csv
    """
    import numpy as np

    from vaestro.data.tables import frame_of, write_frame
    from vaestro.data.writers import TABLES, check_output
    from vaestro.storage import writing

    number = None if clusters == "auto" else int(clusters) if clusters.isdigit() else 0
    if number == 0:
        raise ValueError(f"expected --clusters auto or a number from 1; got {clusters!r}")
    path = None
    if output is not None:
        path = check_output(output, force=force, suffixes=(".png", *TABLES))
    session = opened_session(run, trust=trust)
    rows = session.data.train.fixed()
    if source is not None:
        rows = read(session, source, split, pairs(condition)).fixed()
    elif split is not None or condition:
        raise ValueError("expected --split and --condition with SOURCE; got no SOURCE")
    with console.during("fitting mixtures"):
        found = session.cluster(rows, clusters=number, seed=seed)
    for line in found.lines():
        console.say(line)
    console.warn(empty_code.warning(session.run))
    if path is None:
        return
    if is_picture(path):
        sets = {}
        for i, size in enumerate(found.sizes.tolist()):
            own = np.flatnonzero(found.labels == i)
            best = own[np.argsort(-found.probabilities[own], kind="stable")]
            shown = np.resize(best, SHOWN)  # repeated if there are fewer
            sets[f"{i}: {size:,}"] = rows.pick(shown).outward()
        title = f"clusters of {rows.name} data by {session.run.path}: the most probable rows"
        write(path, sets, session.model.space, title, dtype="own")
    else:
        columns = {"row": np.arange(len(rows)), "cluster": found.labels}
        columns |= {"probability": found.probabilities, **attributes_of(rows)}
        with writing(path) as part:
            write_frame(part, frame_of(columns), path.suffix.lower())
    console.say(f"wrote {path}")
