"""The commands interpolate and edit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vaestro.cli import empty_code
from vaestro.cli.arguments import (
    Beam,
    ConditionOfAll,
    DataOutput,
    Dtype,
    Force,
    Output,
    Raw,
    RunFolder,
    Some,
    SourceArgument,
    Split,
    Trust,
    decoding_of,
    opened_session,
    pairs,
)
from vaestro.cli.console import console
from vaestro.cli.rows import (
    attributes_of,
    dtype_of,
    is_picture,
    own_dtype,
    read,
    spread,
    which,
    write,
)

if TYPE_CHECKING:
    from vaestro.data import Rows
    from vaestro.latent import Direction, UserData
    from vaestro.runs.session import Session


def interpolate(
    run: RunFolder,
    source: SourceArgument,
    i: Annotated[int, typer.Argument(metavar="I", help="Row number of the first end, from 0.")],
    j: Annotated[int, typer.Argument(metavar="J", help="Row number of the second end.")],
    output: Output,
    steps: Annotated[int, typer.Option(help="Number of codes, including both ends.")] = 9,
    path: Annotated[
        str,
        typer.Option(
            help="linear; spherical: along the great circle; geodesic: short in the decoded data."
        ),
    ] = "linear",
    split: Split = None,
    condition: ConditionOfAll = None,
    dtype: Dtype = None,
    beam: Beam = None,
    raw: Raw = False,
    force: Force = False,
    trust: Trust = False,
) -> None:
    """Decode codes on a path between two data.

    Example: vaestro interpolate runs/mine mnist 3 18 -o between.png
    """
    from vaestro.data.writers import check_output

    session = opened_session(run, trust=trust)
    file = check_output(output, force=force)
    space = session.model.space
    rows = read(session, source, split, pairs(condition))
    with console.during(f"decoding {steps} codes"):
        data = session.interpolate(
            rows,
            i,
            j,
            steps=steps,
            path=path,
            decoding=decoding_of(beam=beam),
            dtype=dtype_of(space, file, dtype),
        )
    title = f"from {i} to {j} of {source} by {session.run.path}"
    write(file, {"": data}, space, title, dtype=dtype, columns=steps, raw=raw)
    console.warn(empty_code.warning(session.run))
    if path == "geodesic":
        _say_lengths(session, rows, i, j, steps)
    console.say(
        f"wrote {steps} steps from row {i} to row {j} of {len(rows):,} data ({rows.name}) to {file}"
    )


def _say_lengths(session: Session, rows: Rows, i: int, j: int, steps: int) -> None:
    """Print the length of a geodesic path and of the straight line in the decoder's metric."""
    from vaestro.latent import decoded_length, path_codes

    lengths = [
        decoded_length(
            session.model, rows, i, path_codes(session.model, rows, i, j, steps=steps, path=path)
        )
        for path in ("geodesic", "linear")
    ]
    console.say(
        f"length of the decoded path: {lengths[0]:.3g}; of the straight line: {lengths[1]:.3g} "
        f"(sum of distances between successive means)"
    )


def edit(
    run: RunFolder,
    source: SourceArgument,
    attribute: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="An attribute of the training data, or NAME=VALUE, such as digit=7.",
        ),
    ],
    output: DataOutput,
    amount: Annotated[
        float,
        typer.Option(
            help="1 moves from data without the value to data with it, or by one unit of a "
            "number; negative values move back."
        ),
    ] = 1.0,
    split: Split = None,
    condition: ConditionOfAll = None,
    n: Some = None,
    dtype: Dtype = None,
    beam: Beam = None,
    raw: Raw = False,
    force: Force = False,
    trust: Trust = False,
) -> None:
    """Change an attribute of data.

    The code of each datum is moved along the direction of the attribute, and decoded. A .png shows
    the data, their reconstructions, and the edited reconstructions. If the training data do not
    have the attribute, its direction is estimated on SOURCE.

    Example: vaestro edit runs/mine mnist --attribute slant --amount 20 -o slanted.png
    """
    from vaestro.data.writers import check_output

    session = opened_session(run, trust=trust)
    path = check_output(output, force=force, folders=True)
    space, picture, dtype = session.model.space, is_picture(path), own_dtype(path, dtype)
    every = read(session, source, split, pairs(condition))
    rows, places = spread(every, n, picture)
    with console.during(f"finding the direction of {attribute}"):
        along = session.direction(every, attribute)
    decoding, kind = decoding_of(beam=beam), dtype_of(space, path, dtype)
    sets: dict[str, UserData] = {}
    with console.during(f"editing {len(rows):,} data"):
        if picture or space.ragged:
            plain = session.edit(rows, along, 0.0, decoding=decoding, dtype=kind)
            sets = {"data": rows.outward(), "reconstruction": plain}
        sets[along.moved(amount)] = session.edit(rows, along, amount, decoding=decoding, dtype=kind)
    title = f"{len(rows)} of {source} by {session.run.path}: {along.moved(amount)}"
    at, labels = None if n is None else places, attributes_of(rows)
    write(
        path, sets, space, title, dtype=kind, places=at, attributes=labels, source=source, raw=raw
    )
    console.warn(empty_code.warning(session.run))
    console.warn(_without_effect(sets))
    _say_direction(along)
    console.say(
        f"wrote {len(rows):,} data ({every.name}){which(places, len(every))}, moved "
        f"{along.moved(amount)}, to {path}"
    )


def _without_effect(sets: dict[str, UserData]) -> str:
    """Return a warning if no text differs from its reconstruction; "" otherwise."""
    from vaestro.tokens import Texts

    texts = [data.lines.tolist() for data in sets.values() if isinstance(data, Texts)]
    if len(texts) < 2 or texts[-1] != texts[-2]:
        return ""
    return (
        f"warning: the edit changes none of {len(texts[-1]):,} texts; a larger --amount may, if "
        f"the code is informative"
    )


def _say_direction(along: Direction) -> None:
    """Print what an amount of 1 is, and how well the codes predict the attribute."""
    console.say(f"an amount of 1 is {along.unit}")
    console.say(
        f"{along.name} and the codes along it have a correlation of {along.correlation:.2f} over "
        f"{along.n:,} data"
    )
    console.warn(along.warning)
