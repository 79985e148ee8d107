"""The commands traverse, neighbours and analogy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vaestro.cli import empty_code
from vaestro.cli.arguments import (
    Beam,
    ConditionOfAll,
    Dtype,
    Force,
    Output,
    Raw,
    RunArgument,
    RunFolder,
    SourceArgument,
    Split,
    Trust,
    decoding_of,
    opened_session,
    pairs,
)
from vaestro.cli.console import console
from vaestro.cli.rows import dtype_of, is_picture, read, write

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vaestro.latent import Traversal, UserData
    from vaestro.spaces import Space


def traverse(
    run: RunArgument = None,
    output: Output = "",
    units: Annotated[
        str | None,
        typer.Option(
            help="Numbers of units, such as 0,3,7; of channels for latents on a grid.  [default: "
            "the 8 with the largest rates]"
        ),
    ] = None,
    reach: Annotated[
        float, typer.Option("--range", help="In standard deviations of the codes of the data.")
    ] = 3.0,
    steps: Annotated[int, typer.Option(help="Number of values of a unit.")] = 9,
    source: Annotated[
        str | None,
        typer.Option(help="Data whose code is moved.  [default: the held-out data of the run]"),
    ] = None,
    row: Annotated[int, typer.Option(help="Which datum, from 0.")] = 0,
    split: Split = None,
    condition: ConditionOfAll = None,
    dtype: Dtype = None,
    beam: Beam = None,
    force: Force = False,
    trust: Trust = False,
) -> None:
    """Move one unit of a code at a time, and decode.

    A unit takes values up to --range standard deviations from its mean over the data. A .png has a
    line for each unit. A table has the columns unit and value, then those of the data; an .npz has
    the data of each unit, and the values.

    Example: vaestro traverse runs/mine -o units.png
    """
    from vaestro.data.writers import TABLES, check_output
    from vaestro.runs.moving import Start
    from vaestro.runs.moving import traverse as traversed

    if not output:
        raise ValueError("expected an output file, such as -o units.png; got none")
    path = check_output(output, force=force, suffixes=(".png", ".npz", *TABLES))
    session = opened_session(run, trust=trust)
    space = session.model.space
    with console.during("decoding"):
        moved, data = traversed(
            session,
            _numbers(units),
            Start(source, row, split, pairs(condition)),
            reach=reach,
            steps=steps,
            decoding=decoding_of(beam=beam),
            dtype=dtype_of(space, path, dtype),
        )
    names = session.run.unit_names
    titles = {m.unit: " ".join(filter(None, (f"unit {m.unit}", names.get(m.unit)))) for m in moved}
    if is_picture(path):
        title = f"{session.run.path}: one unit at a time, over {reach:g} standard deviations"
        sets = {titles[unit]: pictured for unit, pictured in data.items()}
        write(path, sets, space, title, dtype="float", columns=steps)
    else:
        _write(path, space, moved, data, titles)
    console.warn(empty_code.warning(session.run))
    noun = "traversal" if len(moved) == 1 else "traversals"
    console.say(f"wrote {len(moved)} {noun} ({', '.join(titles.values())}) to {path}")


def _numbers(units: str | None) -> list[int] | None:
    """Return numbers of units.

    Raises:
        ValueError: they are not numbers with commas between them.
    """
    if units is None:
        return None
    pieces = [piece.strip() for piece in units.split(",")]
    if not all(piece.isdigit() for piece in pieces):
        raise ValueError(f"expected --units as numbers, such as 0,3,7; got {units!r}")
    return [int(piece) for piece in dict.fromkeys(pieces)]


def _write(
    path: Path,
    space: Space,
    moved: Sequence[Traversal],
    data: Mapping[int, UserData],
    titles: Mapping[int, str],
) -> None:
    """Write traversals to a table or an .npz.

    Raises:
        ValueError: the data do not fit into a table.
    """
    import numpy as np

    from vaestro.data.tables import frame_of, write_frame
    from vaestro.data.writers import write_arrays
    from vaestro.frames import Frame
    from vaestro.storage import writing
    from vaestro.tokens import Texts

    if path.suffix.lower() == ".npz":
        arrays = {f"values_{m.unit}": m.values for m in moved}
        for unit, values in data.items():
            plain = values.lines.astype(str) if isinstance(values, Texts) else values
            if isinstance(plain, Frame):
                raise ValueError(f"expected a table for {space}, such as -o units.csv; got {path}")
            arrays[f"unit_{unit}"] = np.asarray(plain)
        write_arrays(path, arrays)
        return
    parts = []
    for m in moved:
        own = data[m.unit]
        if isinstance(own, Texts):
            own = frame_of({"text": own.lines.astype(str)})
        elif not isinstance(own, Frame):
            flat = np.asarray(own)
            if flat.ndim != 2:
                raise ValueError(f"expected a .png or .npz file for {space}; got {path}")
            names = space.names or tuple(map(str, range(flat.shape[1])))
            own = frame_of(dict(zip(names, flat.T, strict=True)))
        title = np.ma.MaskedArray(np.repeat(titles[m.unit], len(m.values)))
        values = np.ma.MaskedArray(m.values)
        parts.append(own.with_first("value", values).with_first("unit", title))
    with writing(path) as part:
        write_frame(part, Frame.concatenated(parts), path.suffix.lower())


def neighbours(
    run: RunFolder,
    source: SourceArgument,
    i: Annotated[int, typer.Argument(metavar="I", help="Row number of the datum, from 0.")],
    k: Annotated[int, typer.Option("-k", help="Number of neighbours.")] = 10,
    among: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE", help="The data to search.  [default: the other rows of SOURCE]"
        ),
    ] = None,
    metric: Annotated[
        str,
        typer.Option(
            help="euclidean: between means of q(z|x). posterior: symmetric KL between q(z|x)."
        ),
    ] = "euclidean",
    output: Annotated[
        str | None,
        typer.Option(
            "-o", "--output", help="Also write a .png of the data (images only), or a table."
        ),
    ] = None,
    split: Split = None,
    condition: ConditionOfAll = None,
    force: Force = False,
    trust: Trust = False,
) -> None:
    """Find the data with the nearest codes. The search is exact.

    Example: vaestro neighbours runs/mine mnist 3 -k 8 -o near.png
    """
    import numpy as np

    from vaestro.data.tables import frame_of, write_frame
    from vaestro.data.writers import TABLES, check_output
    from vaestro.storage import writing

    path = None
    if output is not None:
        path = check_output(output, force=force, suffixes=(".png", *TABLES))
    session = opened_session(run, trust=trust)
    rows = read(session, source, split, pairs(condition)).fixed()
    searched = rows if among is None else read(session, among, None, pairs(condition)).fixed()
    with console.during("comparing codes"):
        found = session.neighbours(
            rows, i, k=k, among=None if among is None else searched, metric=metric
        )
    for text in found.lines():
        console.say(text)
    distance = "symmetric KL in nats" if metric == "posterior" else "Euclidean distance of codes"
    console.say(f"{distance}; {found.searched:,} data compared")
    console.warn(empty_code.warning(session.run))
    if path is None:
        return
    if is_picture(path):
        space = session.model.space
        both = [rows.pick(np.array([i])).outward(), searched.pick(found.rows).outward()]
        title = f"row {i} of {source}, then the data with the nearest codes by {session.run.path}"
        write(path, {"": np.concatenate([np.asarray(x) for x in both])}, space, title, dtype="own")
    else:
        with writing(path) as part:
            write_frame(part, frame_of(found.columns()), path.suffix.lower())
    console.say(f"wrote {path}")


def analogy(
    run: RunFolder,
    source: SourceArgument,
    a: Annotated[int, typer.Argument(metavar="A", help="Row number, from 0.")],
    b: Annotated[int, typer.Argument(metavar="B", help="Row number whose code is subtracted.")],
    c: Annotated[int, typer.Argument(metavar="C", help="Row number whose code is added.")],
    output: Output,
    split: Split = None,
    condition: ConditionOfAll = None,
    dtype: Dtype = None,
    beam: Beam = None,
    raw: Raw = False,
    force: Force = False,
    trust: Trust = False,
) -> None:
    """Decode the code of row A minus that of row B plus that of row C.

    A .png shows the three data and the result. The conditions are those of row C.

    Example: vaestro analogy runs/mine mnist 3 18 5 -o analogy.png
    """
    import numpy as np

    from vaestro.data.writers import check_output
    from vaestro.latent import nearest
    from vaestro.runs.moving import analogy as made

    path = check_output(output, force=force)
    session = opened_session(run, trust=trust)
    space = session.model.space
    rows = read(session, source, split, pairs(condition)).fixed()
    dtype = dtype_of(space, path, dtype)
    data, code = made(session, rows, (a, b, c), decoding=decoding_of(beam=beam), dtype=dtype)
    title = f"{a} - {b} + {c} of {source} by {session.run.path}"
    if is_picture(path):
        three = {str(i): rows.pick(np.array([i])).outward() for i in (a, b, c)}
        sets = {f"row {a}": three[str(a)], f"- row {b}": three[str(b)], f"+ row {c}": three[str(c)]}
        write(path, {**sets, "=": data}, space, title, dtype=dtype)
    else:
        write(path, {"": data}, space, title, dtype=dtype, raw=raw)
    console.warn(empty_code.warning(session.run))
    places, distances = nearest(session.codes(rows)["mean"], code[0], 1)
    console.say(
        f"wrote row {a} - row {b} + row {c} to {path}; the nearest code is that of row "
        f"{places[0]}, at {distances[0]:.3g}"
    )
