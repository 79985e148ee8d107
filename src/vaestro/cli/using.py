"""The commands that use a run: sample, encode, decode, reconstruct, interpolate,
edit, impute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vaestro.cli import empty_code
from vaestro.cli.arguments import (
    Beam,
    Condition,
    ConditionOfAll,
    Dtype,
    Force,
    Heat,
    Output,
    RunArgument,
    Seed,
    Some,
    Split,
    TopP,
    decoding_of,
    opened_session,
    pairs,
)
from vaestro.cli.console import console
from vaestro.cli.rows import dtype_of, say_read, say_unread, spread, which, write

if TYPE_CHECKING:
    pass


def sample(
    run: RunArgument = None,
    n: Annotated[int, typer.Option("-n", help="Number of samples.")] = 64,
    output: Annotated[
        str | None,
        typer.Option(
            "-o", "--output", help="Output file.  [default: RUN/samples.png, .txt, .csv or .npz]"
        ),
    ] = None,
    temperature: Annotated[
        float, typer.Option(help="Multiplies the prior's standard deviation.")
    ] = 1.0,
    mean: Annotated[
        bool | None,
        typer.Option(
            "--mean/--draws",
            help="The mean of p(x|z), or a draw.  [default: mean in .png, else a draw]",
        ),
    ] = None,
    condition: Condition = None,
    dtype: Dtype = None,
    top_p: TopP = None,
    token_temperature: Heat = None,
    beam: Beam = None,
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Draw new data from a trained model, in the user's layout, units and dtype.

    Example: vaestro sample runs/mine -n 64 -o runs/mine/samples.png
    """
    from vaestro.data.writers import check_output, write_grid

    session = opened_session(run)
    space = session.model.space
    texts = space.ragged
    default = (
        "samples.txt"
        if texts
        else "samples.csv"
        if space.columns
        else "samples.png"
        if space.image
        else "samples.npz"
    )
    path = check_output(output or session.run.path / default, force=force)
    picture = path.suffix.lower() == ".png"
    mean = picture if mean is None else mean
    decoding = decoding_of(top_p, token_temperature, beam)
    shown = dtype_of(space, picture and mean, dtype)
    drawn = session.sample(
        n,
        condition=pairs(condition),
        temperature=temperature,
        seed=seed,
        mean=mean,
        decoding=decoding,
        dtype=shown,
    )
    what = (
        ("most probable texts" if texts else "means of p(x|z)") + " at draws of z"
        if mean
        else "draws"
    )
    if picture:
        of = f" with {', '.join(condition)}" if condition else ""
        write_grid(
            path,
            {"": drawn},
            space,
            f"{n} {what} from {session.run.path}{of}, temperature {temperature:g}",
        )
    else:
        write(path, drawn, space, dtype if mean else "float")
    console.say(f"wrote {n} {what} to {path}")


def encode(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder.")],
    source: Annotated[str, typer.Argument(help="Data of the kind that the run was trained on.")],
    output: Output,
    sample: Annotated[
        int,
        typer.Option("--sample", help="Also write this number of draws z from q(z|x) per datum."),
    ] = 0,
    split: Split = None,
    condition: ConditionOfAll = None,
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Write mean and logvar of q(z|x) for each datum.

    Example: vaestro encode runs/mine mnist -o codes.npz
    """
    from pathlib import Path

    from vaestro.data.readers import parse_source
    from vaestro.data.sparse import write_latents
    from vaestro.data.writers import check_output, write_arrays

    session = opened_session(run)
    path = check_output(
        output, force=force, suffixes=(".npz", ".npy", ".parquet", ".csv", ".txt", ".h5ad")
    )
    annotated = path.suffix.lower() == ".h5ad"
    if annotated and (
        not parse_source(source)[0].lower().endswith(".h5ad") or split not in (None, "all")
    ):
        raise ValueError(
            f"expected every row of an .h5ad file to write its latents beside; got "
            f"{source}{f' ({split})' if split else ''}"
        )
    if sample < 0:
        raise ValueError(f"expected 0 or more draws; got {sample}")
    rows = session.rows(source, split, pairs(condition))
    say_read(rows)
    codes = session.encode(rows, draws=sample, seed=seed)
    if sample and path.suffix.lower() != ".npz":
        raise ValueError(f"expected a .npz file for draws; got {path}")
    if annotated:
        write_latents(Path(parse_source(source)[0]).expanduser(), path, codes)
    else:
        write_arrays(path, codes)
    say_unread(rows)
    console.warn(empty_code.warning(session.run))
    units = " x ".join(map(str, session.model.units))
    kept = "mean" if path.suffix.lower() == ".npy" else " and ".join(codes)
    console.say(f"wrote {kept} of {len(rows):,} data ({rows.name}), {units} units each, to {path}")


def decode(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder.")],
    file: Annotated[str, typer.Argument(help="Latents: .npy, or .npz with an array z or mean.")],
    output: Output,
    sample: Annotated[
        bool, typer.Option("--sample", help="Write a draw from p(x|z) instead of its mean.")
    ] = False,
    condition: Condition = None,
    dtype: Dtype = None,
    top_p: TopP = None,
    token_temperature: Heat = None,
    beam: Beam = None,
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Write the likelihood's mean at given latents: probabilities for binary data, the most
    probable value for categories and texts.

    Example: vaestro decode runs/mine codes.npz -o means.npy
    """
    from vaestro.data.readers import read_latents
    from vaestro.data.writers import check_output, write_grid

    session = opened_session(run)
    path = check_output(output, force=force)
    space = session.model.space
    z = read_latents(file)
    picture = path.suffix.lower() == ".png"
    shown = dtype_of(space, picture and not sample, dtype)
    x = session.decode(
        z,
        condition=pairs(condition),
        sample=sample,
        decoding=decoding_of(top_p, token_temperature, beam),
        dtype=shown,
        seed=seed,
    )
    if picture:
        write_grid(
            path, {"": x}, space, f"{len(x)} latents of {file} decoded by {session.run.path}"
        )
    else:
        write(path, x, space, "float" if sample else dtype)
    console.say(f"wrote {len(x):,} {'draws' if sample else 'means'} to {path}")


def reconstruct(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder.")],
    source: Annotated[str, typer.Argument(help="Data of the kind that the run was trained on.")],
    output: Output,
    split: Split = None,
    condition: ConditionOfAll = None,
    n: Some = None,
    dtype: Dtype = None,
    beam: Beam = None,
    force: Force = False,
) -> None:
    """Write the mean of p(x|z) at the code of each datum; for text data, the most probable text. A
    .png shows data and reconstructions alternately.

    Example: vaestro reconstruct runs/mine mnist -o pairs.png
    """
    import numpy as np

    from vaestro.data.writers import check_output, write_grid

    session = opened_session(run)
    path = check_output(output, force=force)
    picture = path.suffix.lower() == ".png"
    space = session.model.space
    rows = session.rows(source, split, pairs(condition))
    say_read(rows)
    every = len(rows)
    rows, places = spread(rows, n, picture)
    means = session.reconstruct(
        rows, decoding=decoding_of(None, None, beam), dtype=dtype_of(space, picture, dtype)
    )
    say_unread(rows)
    if picture:
        write_grid(
            path,
            {"data": np.asarray(rows.outward()), "mean": means},
            space,
            f"{len(rows)} of {source} and their reconstructions by {session.run.path}",
        )
    else:
        write(path, means, space, dtype, None if n is None else places)
    console.warn(empty_code.warning(session.run))
    console.say(f"wrote {len(rows):,} reconstructions{which(places, every)} to {path}")


def interpolate(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder.")],
    source: Annotated[str, typer.Argument(help="Data of the kind that the run was trained on.")],
    i: Annotated[int, typer.Argument(metavar="I", help="Index of the first datum, from 0.")],
    j: Annotated[int, typer.Argument(metavar="J", help="Index of the second datum.")],
    output: Output,
    steps: Annotated[int, typer.Option(help="Number of codes, including both ends.")] = 9,
    path: Annotated[
        str, typer.Option(help="linear, or spherical: along the great circle.")
    ] = "linear",
    split: Split = None,
    condition: ConditionOfAll = None,
    dtype: Dtype = None,
    beam: Beam = None,
    force: Force = False,
) -> None:
    """Decode codes between the codes of two data.

    Example: vaestro interpolate runs/mine mnist 3 18 -o between.png
    """
    from vaestro.data.writers import check_output, write_grid

    session = opened_session(run)
    file = check_output(output, force=force)
    space = session.model.space
    rows = session.rows(source, split, pairs(condition))
    say_read(rows)
    picture = file.suffix.lower() == ".png"
    shown = dtype_of(space, picture, dtype)
    made = session.interpolate(
        rows, i, j, steps=steps, path=path, decoding=decoding_of(None, None, beam), dtype=shown
    )
    if picture:
        write_grid(
            file,
            {"": made},
            space,
            f"from {i} to {j} of {source} by {session.run.path}",
            columns=steps,
        )
    else:
        write(file, made, space, dtype)
    console.warn(empty_code.warning(session.run))
    console.say(
        f"wrote {steps} steps from {i} to {j} of the {len(rows):,} data ({rows.name}) to {file}"
    )


def edit(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder.")],
    source: Annotated[str, typer.Argument(help="Data of the kind that the run was trained on.")],
    attribute: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="An attribute of the training data, or NAME=VALUE, such as digit=7.",
        ),
    ],
    output: Output,
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
    force: Force = False,
) -> None:
    """Move the code of each datum along an attribute direction, and decode it.

    A .png shows the data, their reconstructions without the edit, and with it, so that what the
    edit changes can be seen.

    The attribute is taken from the training data, or from SOURCE if they lack it.

    Example: vaestro edit runs/mine mnist --attribute slant --amount 0.5 -o slanted.png
    """
    from vaestro.data.writers import check_output, write_grid

    session = opened_session(run)
    path = check_output(output, force=force)
    space, picture = session.model.space, path.suffix.lower() == ".png"
    rows = session.rows(source, split, pairs(condition))
    say_read(rows)
    chosen, places = spread(rows, n, picture)
    along = session.direction(rows, attribute)
    decoding, kind = decoding_of(None, None, beam), dtype_of(space, picture, dtype)
    made = session.edit(chosen, along, amount, decoding=decoding, dtype=kind)
    if picture:
        still = session.edit(chosen, along, 0.0, decoding=decoding, dtype=kind)
        shown = {"data": chosen.outward(), "reconstruction": still, along.moved(amount): made}
        write_grid(
            path,
            shown,
            space,
            f"{len(chosen)} of {source} by {session.run.path}: {along.moved(amount)}",
        )
    else:
        write(path, made, space, dtype, None if n is None else places)
    console.warn(empty_code.warning(session.run))
    if space.ragged and list(made) == list(session.reconstruct(chosen, decoding=decoding)):
        console.warn(
            f"warning: the edit changes none of {len(chosen):,} texts; a larger --amount may, if "
            f"the code is informative"
        )
    console.say(f"an amount of 1 is {along.unit}")
    console.say(
        f"{along.name} and the codes along it have a correlation of {along.correlation:.2f} over "
        f"{along.n:,} data"
    )
    console.warn(along.warning)
    console.say(
        f"wrote {len(chosen):,} data ({rows.name}){which(places, len(rows))}, moved "
        f"{along.moved(amount)}, to {path}"
    )


def impute(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder.")],
    source: Annotated[
        str,
        typer.Argument(help="Data with missing cells, of the kind that the run was trained on."),
    ],
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
    split: Split = None,
    condition: ConditionOfAll = None,
    dtype: Dtype = None,
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Fill missing cells, given the observed cells. Observed cells do not change.

    Cells are assumed to be missing at random: whether a cell is missing may depend on what is
    observed, not on its own value.

    Example: vaestro impute runs/mine customers.csv -o complete.csv
    """
    from vaestro.data.writers import check_output, write_grid

    session = opened_session(run)
    path = check_output(output, force=force)
    space = session.model.space
    rows, filled = session.imputed(
        source, k=k, sample=sample, split=split, condition=pairs(condition), dtype=dtype, seed=seed
    )
    say_read(rows)
    cells = 0 if rows.observed is None else round(len(rows) * (space.cells - rows.observed_cells()))
    if path.suffix.lower() == ".png":
        write_grid(
            path, {"": filled}, space, f"{len(rows)} of {source} filled in by {session.run.path}"
        )
    else:
        write(path, filled, space, "float" if sample or not space.columns else dtype)
    how = (
        "draws from p(missing | observed)" if sample else "weighted means and most probable values"
    )
    console.say(
        f"wrote {len(rows):,} rows with {cells:,} missing cells filled in ({how}, {k} draws of "
        f"z) to {path}"
    )
