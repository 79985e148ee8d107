"""The commands sample, encode, decode and reconstruct."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vaestro.cli import empty_code
from vaestro.cli.arguments import (
    Beam,
    Complete,
    Condition,
    ConditionOfAll,
    DataOutput,
    DecodeCondition,
    Dtype,
    Force,
    Heat,
    MeanOrDraws,
    Output,
    Raw,
    RunArgument,
    RunFolder,
    SamplesOutput,
    Seed,
    Some,
    SourceArgument,
    Split,
    TopP,
    Trust,
    decoding_of,
    opened_session,
    pairs,
)
from vaestro.cli.console import console
from vaestro.cli.rows import (
    attributes_of,
    conditions_of,
    dtype_of,
    is_picture,
    own_dtype,
    read,
    row_columns,
    say_guards,
    say_unread,
    spread,
    which,
    write,
)

if TYPE_CHECKING:
    pass


def sample(
    run: RunArgument = None,
    n: Annotated[int, typer.Option("-n", help="Number of samples.")] = 64,
    output: SamplesOutput = None,
    temperature: Annotated[
        float, typer.Option(help="Multiplies the prior's standard deviation.")
    ] = 1.0,
    mean: MeanOrDraws = None,
    complete: Complete = None,
    diffusion: Annotated[
        bool,
        typer.Option(
            "--diffusion", help="Draw latents from the diffusion model (vaestro diffuse RUN)."
        ),
    ] = False,
    sampler: Annotated[
        str | None,
        typer.Option(
            metavar="PART",
            help="Of --diffusion: ddim, ddpm, dpm-solver or euler, with options such as "
            "ddim:steps=50.  [default: dpm-solver; euler for a flow]",
        ),
    ] = None,
    guidance: Annotated[
        float,
        typer.Option(
            help="Of --diffusion with --condition: weight of the conditions; above 1 follows them "
            "more closely."
        ),
    ] = 1.0,
    condition: Condition = None,
    dtype: Dtype = None,
    top_p: TopP = None,
    token_temperature: Heat = None,
    beam: Beam = None,
    seed: Seed = 0,
    raw: Raw = False,
    force: Force = False,
    trust: Trust = False,
) -> None:
    """Draw new data from a trained model.

    They have the layout, units and dtype of the training data. Samples of images are means of
    p(x|z) at draws of z; --draws writes draws from p(x|z), which contain its noise. Samples of
    tables have empty cells as the training rows do.

    Example: vaestro sample runs/mine -n 64 -o runs/mine/samples.png
    """
    from vaestro.data.writers import check_output
    from vaestro.latent import file_suffix
    from vaestro.runs.manifest import register

    session = opened_session(run, trust=trust)
    space = session.model.space
    path = check_output(
        output or session.run.path / f"samples{file_suffix(space)}", force=force, folders=True
    )
    picture = is_picture(path)
    images = space.layout.name == "image"
    if mean is None:
        mean = picture or images
        dtype = dtype or ("own" if mean and not picture else None)
    with console.during(f"drawing {n:,} samples"):
        data = session.sample(
            n,
            condition=pairs(condition),
            temperature=temperature,
            seed=seed,
            mean=mean,
            complete=complete,
            diffusion=diffusion,
            sampler=sampler,
            guidance=guidance,
            decoding=decoding_of(top_p, token_temperature, beam),
            dtype=dtype_of(space, path, dtype) if mean else dtype,
        )
    kind = "most probable texts" if space.ragged else "means of p(x|z)"
    what = f"{kind} at draws of z" if mean else "samples"
    given = f" with {', '.join(condition)}" if condition else ""
    source = "the diffusion model of " if diffusion else ""
    title = f"{n} {what} from {source}{session.run.path}{given}, temperature {temperature:g}"
    draws = " (--draws writes draws)" if mean and images else ""
    if output is None:
        register(session.run.path, path.name)
    write(
        path,
        {"": data},
        space,
        title,
        dtype=dtype_of(space, path, dtype) if mean else "float",
        attributes=conditions_of(session, session.own_conditions(pairs(condition)), n),
        source=session.run.options["source"],
        raw=raw,
    )
    console.say(f"wrote {n:,} {what}{draws} to {path}")


def encode(
    run: RunFolder,
    source: SourceArgument,
    output: Output,
    sample: Annotated[
        int,
        typer.Option("--sample", help="Also write this number of draws z from q(z|x) per datum."),
    ] = 0,
    split: Split = None,
    condition: ConditionOfAll = None,
    seed: Seed = 0,
    raw: Raw = False,
    force: Force = False,
    trust: Trust = False,
) -> None:
    """Write mean and logvar of q(z|x) for each datum.

    An .h5ad file has the codes in obsm; it is a copy of SOURCE if that is an .h5ad file. Tables and
    .npz files also contain the row numbers, the attributes and the names of the data.

    Example: vaestro encode runs/mine mnist -o codes.npz
    """
    from vaestro.data.annotated_output import write_annotated, write_latents
    from vaestro.data.source_options import parse_source
    from vaestro.data.writers import TABLES, check_output, write_arrays

    session = opened_session(run, trust=trust)
    path = check_output(output, force=force, suffixes=(".npz", ".npy", *TABLES, ".txt", ".h5ad"))
    suffix = path.suffix.lower()
    if sample < 0:
        raise ValueError(f"expected 0 or more draws; got {sample}")
    if sample and suffix != ".npz":
        raise ValueError(f"expected a .npz file for draws; got {path}")
    space, file = session.model.space, Path(parse_source(source)[0]).expanduser()
    copied = file.suffix.lower() == ".h5ad" and split in (None, "all")
    if suffix == ".h5ad" and not copied and (space.tabular or space.ragged or len(space.shape) > 1):
        raise ValueError(f"expected vectors for {path}; got {space} (write .npz or .parquet)")
    rows = read(session, source, split, pairs(condition))
    with console.during(f"encoding {len(rows):,} data"):
        codes = session.encode(rows, draws=sample, seed=seed)
    attributes = attributes_of(rows)
    if suffix != ".h5ad":
        names_only = suffix in (".npy", ".txt")
        named = {} if names_only else row_columns(attributes, {"row", *codes}, len(rows))
        say_guards(write_arrays(path, named | codes, raw=raw))
    else:
        own = session.model.units[0] - session.model.further_units
        parts = {name: values[:, :own] for name, values in codes.items()}
        if session.model.further_units:
            parts["library"] = codes["mean"][:, own:]
        if copied:
            write_latents(file, path, parts)
        else:
            write_annotated(path, rows.read(), space.names, attributes, parts)
    say_unread(rows)
    console.warn(empty_code.warning(session.run))
    units = " x ".join(map(str, session.model.units))
    names = "mean" if suffix == ".npy" else " and ".join(codes)
    console.say(f"wrote {names} of {len(rows):,} data ({rows.name}), {units} units each, to {path}")


def decode(
    run: RunFolder,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Latents: .npy, or .npz with an array z or mean.")
    ],
    output: DataOutput,
    sample: Annotated[
        bool, typer.Option("--sample", help="Write a draw from p(x|z) instead of its mean.")
    ] = False,
    condition: Condition = None,
    dtype: Dtype = None,
    top_p: TopP = None,
    token_temperature: Heat = None,
    beam: Beam = None,
    seed: Seed = 0,
    raw: Raw = False,
    force: Force = False,
    trust: Trust = False,
) -> None:
    """Write the mean of p(x|z) at given latents.

    For binary data the mean is a probability; for categories and texts, the most probable value is
    written.

    Example: vaestro decode runs/mine codes.npz -o means.npy
    """
    from vaestro.data.readers import read_latents
    from vaestro.data.writers import check_output

    session = opened_session(run, trust=trust)
    path = check_output(output, force=force, folders=True)
    space, source = session.model.space, session.run.options["source"]
    dtype = dtype if sample else own_dtype(path, dtype)
    z = read_latents(file)
    with console.during(f"decoding {len(z):,} latents"):
        x = session.decode(
            z,
            condition=pairs(condition),
            sample=sample,
            decoding=decoding_of(top_p, token_temperature, beam),
            dtype=dtype if sample else dtype_of(space, path, dtype),
            seed=seed,
        )
    title = f"{len(x)} latents of {file} decoded by {session.run.path}"
    write(
        path,
        {"": x},
        space,
        title,
        dtype="float" if sample else dtype_of(space, path, dtype),
        attributes=conditions_of(session, pairs(condition), len(x)),
        source=source,
        raw=raw,
    )
    console.say(f"wrote {len(x):,} {'draws' if sample else 'means'} to {path}")


def reconstruct(
    run: RunFolder,
    source: SourceArgument,
    output: DataOutput,
    split: Split = None,
    condition: ConditionOfAll = None,
    decode_condition: DecodeCondition = None,
    draws: Annotated[
        int | None,
        typer.Option(
            help="For counts: average the mean over this number of draws of z from q(z|x).  "
            "[default: the mean at the code; 25 with --library]"
        ),
    ] = None,
    library: Annotated[
        float | None,
        typer.Option(help="For counts: scale the mean of each datum to this sum, such as 10000."),
    ] = None,
    n: Some = None,
    dtype: Dtype = None,
    beam: Beam = None,
    seed: Seed = 0,
    raw: Raw = False,
    force: Force = False,
    trust: Trust = False,
) -> None:
    """Write the mean of p(x|z) at the code of each datum.

    For text data, the most probable text is written. A .png shows data and reconstructions
    alternately; a folder receives a file for each datum, named as its file in SOURCE. With --draws
    or --library, the denoised expression of counts is written.

    Example: vaestro reconstruct runs/mine mnist -o pairs.png
    """
    from vaestro.data.writers import check_output

    session = opened_session(run, trust=trust)
    path = check_output(output, force=force, folders=True)
    space, picture, dtype = session.model.space, is_picture(path), own_dtype(path, dtype)
    every = read(session, source, split, pairs(condition))
    rows, places = spread(every, n, picture)
    denoised = draws is not None or library is not None
    dtype = "float" if denoised else dtype_of(space, path, dtype)
    with console.during(f"reconstructing {len(rows):,} data"):
        means = session.reconstruct(
            rows,
            decode_condition=pairs(decode_condition),
            draws=draws,
            library=library,
            decoding=decoding_of(beam=beam),
            dtype=dtype,
            seed=seed,
        )
    say_unread(every)
    sets = {"data": rows.outward(), "mean": means} if picture else {"mean": means}
    title = f"{len(rows)} of {source} and their reconstructions by {session.run.path}"
    write(
        path,
        sets,
        space,
        title,
        dtype=dtype,
        places=None if n is None else places,
        attributes=attributes_of(rows),
        source=source,
        raw=raw,
    )
    console.warn(empty_code.warning(session.run))
    other = f", decoded with {', '.join(decode_condition)}," if decode_condition else ""
    console.say(f"wrote {len(rows):,} reconstructions{which(places, len(every))}{other} to {path}")
