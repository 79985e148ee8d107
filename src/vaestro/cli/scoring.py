"""The command score."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vaestro.cli.arguments import (
    ConditionOfAll,
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
from vaestro.cli.rows import (
    attributes_of,
    is_picture,
    row_columns,
    say_guards,
    say_read,
    say_unread,
    write,
)

if TYPE_CHECKING:
    import numpy as np

    from vaestro.data import Rows
    from vaestro.latent import Scores
    from vaestro.spaces import Space

SHOWN = 16  # images in a .png
COLUMNS = 1000  # most columns whose contributions a table contains


def score(
    run: RunFolder,
    source: SourceArgument,
    output: Output,
    by: Annotated[
        str,
        typer.Option(
            "--score",
            help="combined, residual, standardised, local, reconstruction, latent, bound, "
            "likelihood-ratio, complexity or typicality.",
        ),
    ] = "combined",
    false_alarms: Annotated[
        float | None,
        typer.Option(
            "--threshold-for-false-alarms",
            metavar="P",
            help="Mark rows above a threshold that a share P of normal rows exceeds, such as 0.01.",
        ),
    ] = None,
    normal: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Normal rows for the threshold, in addition to the run's test split.",
        ),
    ] = None,
    window: Annotated[
        int | None, typer.Option(help="For series: steps of a window.  [default: the run's]")
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(help="For series: steps between two windows.  [default: the window]"),
    ] = None,
    steps: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="For series: also write the score of each step."),
    ] = None,
    units: Annotated[
        bool, typer.Option("--units", help="Also write the KL of each latent unit.")
    ] = False,
    k: Annotated[int, typer.Option(help="Draws of z for each datum.")] = 20,
    n: Annotated[int, typer.Option("-n", help="Number of images in a .png.")] = SHOWN,
    split: Split = None,
    condition: ConditionOfAll = None,
    seed: Seed = 0,
    raw: Raw = False,
    force: Force = False,
    trust: Trust = False,
) -> None:
    """Score how unusual each datum is, for anomalies.

    A table has the most unusual rows first, with row number and attributes; for tables also the
    share of each column in the distortion. An .npz file is in the order of the data and has the
    shares of all cells; a .npy file has the scores alone. A .png shows the most unusual images and
    where they are unusual.

    Example: vaestro score runs/mine new.csv -o scores.csv --threshold-for-false-alarms 0.01
    """
    from vaestro.data.writers import TABLES, check_output
    from vaestro.runs.scoring import by_step, scored_rows

    session = opened_session(run, trust=trust)
    path = check_output(output, force=force, suffixes=(*TABLES, ".npz", ".npy", ".png"))
    step_path = None if steps is None else check_output(steps, force=force, suffixes=TABLES)
    space, suffix = session.model.space, path.suffix.lower()
    if is_picture(path) and not space.image:
        raise ValueError(f"expected images for a .png file; got {space} data (write .csv or .npz)")
    if n < 1:
        raise ValueError(f"expected -n of 1 or more images; got {n}")
    rows = scored_rows(session, source, window, stride, split, pairs(condition))
    say_read(rows)
    whole = suffix == ".npz"
    with console.during(f"scoring {len(rows):,} data"):
        scores = session.score(
            rows,
            by=by,
            k=k,
            cells=whole or (suffix in TABLES and bool(_names(space))),
            maps=whole or step_path is not None,
            units=units,
            false_alarms=false_alarms,
            normal=normal,
            seed=seed,
        )
    say_unread(rows)
    if step_path is not None:
        _write_table(step_path, by_step(rows, scores), raw)
    if is_picture(path):
        chosen = scores.order[: min(n, len(rows))]
        shown = session.score(rows.pick(chosen), by=by, k=k, maps=True, seed=seed)
        title = f"the {len(chosen)} most unusual of {source} by {session.run.path}"
        write(path, _pictures(rows.pick(chosen), shown, space), space, title)
    else:
        _write(path, rows, scores, space, raw)
    for line in scores.lines():
        console.say(line)
    also = "" if step_path is None else f", and the scores of steps to {step_path}"
    console.say(f"wrote scores of {len(rows):,} data ({rows.name}) to {path}{also}")


def _names(space: Space) -> tuple[str, ...]:
    """Return the names of the cells of a datum if a table has a column for each."""
    if space.columns:
        return tuple(column.name for column in space.columns)
    vector = len(space.shape) == 1 and not space.ragged and space.shape[0] <= COLUMNS
    return (space.names or tuple(map(str, range(space.shape[0])))) if vector else ()


def _write(path: Path, rows: Rows, scores: Scores, space: Space, raw: bool) -> None:
    """Write scores: sorted in a table, in the order of the data in other files."""
    import numpy as np

    from vaestro.data.writers import write_arrays

    arrays = scores.arrays()
    suffix = path.suffix.lower()
    if suffix == ".npy":
        write_arrays(path, {"score": scores.score})
        return
    if suffix == ".npz":
        for name in ("cells", "maps"):
            if name in arrays and not space.columns and not space.ragged:
                arrays[name] = space.layout.outward(arrays[name], space.shape, space.outside)
        if space.columns or space.names:
            arrays["columns"] = np.array(_names(space) or space.names)
        write_arrays(
            path, {**row_columns(attributes_of(rows), set(arrays), len(rows)), **arrays}, raw=raw
        )
        return
    columns, order = scores.columns(), scores.order
    if scores.rates is not None:
        columns |= {f"rate_{i}": scores.rates[order, i] for i in range(scores.rates.shape[1])}
    if scores.cells is not None:
        columns |= {f"nats_{n}": scores.cells[order, i] for i, n in enumerate(_names(space))}
    own = row_columns(attributes_of(rows), set(columns), len(rows))
    _write_table(path, {n: v[order] for n, v in own.items()} | columns, raw)


def _write_table(path: Path, columns: dict[str, np.ndarray], raw: bool) -> None:
    from vaestro.data.tables import frame_of, write_frame
    from vaestro.storage import writing

    with writing(path) as part:
        guards = write_frame(part, frame_of(columns), path.suffix.lower(), raw=raw)
    say_guards(guards)


def _pictures(rows: Rows, scores: Scores, space: Space) -> dict[str, np.ndarray]:
    """Return images and maps of where they are unusual, in the layout and range of the images."""
    import numpy as np

    images = np.asarray(rows.outward(), np.float64)
    if scores.maps is None:
        return {"data": images}
    maps = (
        scores.maps.mean(space.layout.channel_axis + 1, keepdims=True)
        if (space.layout.channel_axis is not None)
        else scores.maps
    )
    maps = np.broadcast_to(maps, scores.maps.shape)
    low, high = float(np.nanmin(images)), float(np.nanmax(images))
    if space.levels:
        low, high = float(space.low), float(space.low + space.step * (space.levels - 1))
    bright = np.clip(maps / max(float(np.quantile(maps, 0.998)), 1e-300), 0, 1)
    where = space.layout.outward(bright, space.shape, space.outside)
    return {"data": images, "where": low + (high - low) * where}
