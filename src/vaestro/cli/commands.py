"""The commands. Each imports what it needs when it is called, so that --help takes no time."""

from __future__ import annotations

import json as json_module
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vaestro.cli import empty_code
from vaestro.cli.console import console, unit_lines
from vaestro.cli.rows import dtype_of, say_read, spread, which, write
from vaestro.cli.train import train
from vaestro.text import duration, parse_pair

if TYPE_CHECKING:
    from vaestro.data import Rows
    from vaestro.evaluation import Evaluation
    from vaestro.runs import Run

app = typer.Typer(
    add_completion=False,
    no_args_is_help=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Train variational autoencoders, know how good they are, and use their latent space.\n\n"
    "Everywhere: --quiet prints nothing but errors, --debug shows where an error came from, "
    "--version. "
    "Where a command takes RUN, leaving it out means the newest run under runs/.",
)

EXTRAS = {
    "tables": "pyarrow",
    "hub": "datasets",
    "sklearn": "sklearn",
    "report": "plotly",
    "flows": "zuko",
    "text": "tokenizers",
    "counts": "h5py",
}
RunArgument = Annotated[
    str | None,
    typer.Argument(metavar="[RUN]", help="A run's folder; by default the newest under runs/."),
]
Output = Annotated[
    str, typer.Option("-o", "--output", help="The file to write; its suffix says the format.")
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite what exists.")]
Seed = Annotated[int, typer.Option(help="Seed of what is drawn.")]
Split = Annotated[
    str | None,
    typer.Option(help="train, valid, test or all; by default a file's every row, or else test."),
]
TopP = Annotated[
    float | None,
    typer.Option(
        "--top-p",
        help="Of texts: draw from the most probable tokens that together reach this.  [default: 1]",
    ),
]
Heat = Annotated[
    float | None,
    typer.Option(
        "--token-temperature",
        help="Of texts: divides each token's logits; 1 draws from the model.  [default: 1]",
    ),
]
Beam = Annotated[
    int | None,
    typer.Option(
        "--beam",
        help="Of texts: sentences that the search for the most probable keeps.  [default: 1]",
    ),
]
Condition = Annotated[
    list[str] | None,
    typer.Option(
        "--condition",
        metavar="NAME=VALUE",
        help="A value of each condition the model was trained with.",
    ),
]
ConditionOfAll = Annotated[
    list[str] | None,
    typer.Option(
        "--condition",
        metavar="NAME=VALUE",
        help="What is given to all rows in place of the source's own; may be repeated.",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Dtype = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        help="own: means in the data's own dtype, rounded if that holds whole numbers only. "
        "float: means as they are, and of numbers in a "
        "table off their grid. A .png always shows means.  [default: own; of binary arrays "
        "probabilities]",
    ),
]
Some = Annotated[
    int | None,
    typer.Option(
        "-n", help="Number of rows, taken at equal distances.  [default: all; 32 in a .png]"
    ),
]


app.command()(train)


@app.command()
def evaluate(
    run: RunArgument = None,
    methods: Annotated[
        str,
        typer.Option(
            help="Some of elbo, iwae, ais, gap, information, with options: "
            "elbo,ais:chains=16,n=100 (vaestro parts method)."
        ),
    ] = "elbo,iwae",
    k: Annotated[int, typer.Option(help="Draws for each datum.")] = 500,
    split: Annotated[
        str | None,
        typer.Option(
            help="test, valid or train.  [default: test; every row of --data without splits]"
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Number of rows to evaluate, drawn at random by --seed.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Other data of the same kind.  [default: the run's own]")
    ] = None,
    condition: ConditionOfAll = None,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Bound log p(x) of held-out data, and write RUN/evaluation.json and .npz.

    ELBO and IWAE are lower bounds. ais is a tighter one, and measures on data drawn from the model
    how far above it log p(x) can lie. gap takes apart what lies between the ELBO and log p(x),
    information what the rate is made of. A stopped evaluation goes on where it was when the same
    command is given again.

    Example: vaestro evaluate runs/mine --k 5000 --methods elbo,iwae,ais
    """
    import time
    from dataclasses import replace

    from vaestro.data import load_rows
    from vaestro.evaluation import evaluating
    from vaestro.loop import accelerator_for
    from vaestro.runs import describe

    start, opened = time.perf_counter(), _open(run)
    accelerator = accelerator_for(device)
    rank, processes = accelerator.process_index, accelerator.num_processes
    console.quiet |= rank > 0
    model = opened.model(str(accelerator.device))
    weights = opened.weights_sha256()
    source = data or opened.config["source"]
    if data:
        rows, changed = (
            load_rows(source, model.space, split, given=model.given, conditions=_pairs(condition)),
            [],
        )
        say_read(rows)
    elif condition:
        raise ValueError(
            "expected --condition with --data, for data that do not say theirs; got it for the "
            "run's own data"
        )
    else:
        own = opened.data()
        rows, changed = own.split(split or "test"), opened.changed(own, split or "test")
    for line in changed:
        console.say(line)
    rows = rows.fixed()
    every = len(rows)
    folder = opened.path / "evaluating"
    steps = evaluating(
        model,
        rows,
        k=k,
        methods=methods,
        limit=limit,
        seed=seed,
        folder=folder,
        rank=rank,
        processes=processes,
    )
    evaluation = None
    try:
        for _, evaluation in console.progress(
            steps, f"{describe(rows, limit or every)}, {methods} with {k:,} draws"
        ):
            if evaluation is not None and rank == 0:
                evaluation = replace(evaluation, warnings=(*changed, *evaluation.warnings))
                opened.save_evaluation(evaluation, rows, source, weights)
    except KeyboardInterrupt:
        steps.close()  # keeps the pieces in hand
        console.say("stopped; the same command goes on from here")
        raise typer.Exit(130) from None
    assert evaluation is not None
    _say_evaluation(evaluation, rows)
    _say_unread(rows)
    for warning in evaluation.warnings[len(changed) :]:
        console.say(f"note: {warning}")
    console.say(
        f"wrote {opened.path}/evaluation.json and evaluation.npz after "
        f"{duration(time.perf_counter() - start)}"
    )


def _say_evaluation(evaluation: Evaluation, rows: Rows) -> None:
    """Say what was found, a line each."""
    from vaestro.evaluation import SIMULATED, plus_minus
    from vaestro.runs import describe

    for estimate in evaluation.estimates:
        if estimate.on == SIMULATED and estimate.method != "ais":
            continue
        console.say(estimate.sentence(describe(rows, len(estimate.nats))) + estimate.bits)
        for note in estimate.notes():
            console.say(f"    {note}")
    gaps = ", ".join(
        f"{m.upper()} by {plus_minus(gap)}" for m, gap in evaluation.simulated_gaps().items()
    )
    if gaps:
        console.say(
            f"on data drawn from the model, log p(x) lies above the lower bounds by at most: "
            f"{gaps} nats"
        )
    if evaluation.gap is not None:
        console.say(evaluation.gap.sentence(describe(rows, len(evaluation.gap.elbo))))
        for note in evaluation.gap.notes():
            console.say(f"    {note}")
    if evaluation.information is not None:
        console.say(evaluation.information.sentence(describe(rows, evaluation.information.n)))
    console.say(
        f"rate {evaluation.rate:.2f} nats, distortion {evaluation.distortion:.2f} nats (of the "
        f"ELBO)"
    )


@app.command()
def diagnose(
    run: RunArgument = None,
    fix: Annotated[
        bool,
        typer.Option("--fix", help="Print nothing but the command that mends the worst finding."),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print what diagnosis.json holds.")] = False,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Say what is wrong with a run, in words, with the evidence and the remedy, and write
    RUN/diagnosis.json and .npz.

    Posterior collapse is judged by whether the encoder's output depends on its input, never by a
    small KL alone.

    Example: vaestro diagnose runs/mine
    """
    opened = _open(run)
    found = opened.diagnose(seed=seed, device=_device(device))
    if fix:
        worst = next((f for f in found.findings if f.severity != "note"), None)
        nothing = (
            f"# nothing to mend: {found.verdict}"
            if worst is None
            else f"# no command for {worst.name}: {worst.no_remedy}"
        )
        print((worst and worst.remedy) or nothing)
        return
    if json:
        print(json_module.dumps(found.line(), indent=1))
        return
    console.say(f"{opened.path}: {found.verdict}")
    console.say(f"    {found.summary}")
    for text in unit_lines(found.units):
        console.say(f"    {text}")
    for finding in found.findings:
        for text in finding.lines():
            console.say(text)
    console.say(f"wrote {opened.path}/diagnosis.json and diagnosis.npz")


@app.command()
def gradients(
    run: RunArgument = None,
    k: Annotated[
        str | None,
        typer.Option(help="Numbers of draws, such as 1,8,64.  [default: the run's own, and 8]"),
    ] = None,
    estimator: Annotated[
        list[str] | None,
        typer.Option(
            help="An estimator with its options; may be repeated.  [default: every one that has "
            "a meaning]"
        ),
    ] = None,
    bound: Annotated[
        str | None, typer.Option(help="elbo or iwae.  [default: the run's own]")
    ] = None,
    repeats: Annotated[int, typer.Option(help="Independent draws of the noise.")] = 40,
    json: Annotated[bool, typer.Option("--json", help="Print what gradients.json holds.")] = False,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Measure variance and signal-to-noise of every gradient estimator on a run's model and data:
    RUN/gradients.json and .png.

    Example: vaestro gradients runs/mine --k 1,8,64
    """
    from vaestro.diagnosis.noise_picture import sentence, title, told

    opened = _open(run)
    try:
        draws = None if k is None else [int(piece) for piece in k.split(",")]
    except ValueError:
        raise ValueError(f"expected numbers of draws as 1,8,64; got {k!r}") from None
    if json:
        console.quiet = True
    steps = opened.gradients(
        k=draws,
        estimators=estimator,
        bound=bound,
        repeats=repeats,
        seed=seed,
        device=_device(device),
    )
    found = None
    for _, found in console.progress(steps, f"{repeats} gradients of each estimator"):
        pass
    assert found is not None
    if json:
        print((opened.path / "gradients.json").read_text(), end="")
        return
    for group in dict.fromkeys(r.group for r in found.rows):
        for draws_of in dict.fromkeys(r.k for r in found.rows):
            lines = told(found.of(group, draws_of))
            if lines:
                console.say(title(found, lines[0][1]))
                width = max(len(name) for name, _ in lines)
                for name, row in lines:
                    console.say(
                        f"    {name:<{width}}  variance {row.variance:9.3g}  "
                        f"{sentence(row, lines[0][1])}"
                    )
                over = lines[0][1].batches
                if over is not None:
                    console.say(
                        f"    {'over batches':<{width}}  variance {over:9.3g}  for scale: with "
                        f"other data at each step"
                    )
    console.say(f"wrote {opened.path}/gradients.json and gradients.png")


@app.command()
def compare(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN ...", help="Folders of runs that were evaluated."),
    ] = None,
    exact: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE.npz",
            help="Exact log p(x) of each datum, an array log_px, with options after a colon: "
            "unit=bits|nats (of the whole datum), "
            "measure=counting|lebesgue, given=CONDITION; may be repeated.",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "-o", "--output", help="Also write .png (a picture), .json (all of it) or .csv."
        ),
    ] = None,
    force: Force = False,
) -> None:
    """Say which runs' numbers may be compared, which may not, and what follows: a table, sentences,
    and a chart of intervals.

    Example: vaestro compare runs/mine runs/other --exact oracle=exact.npz:measure=counting -o
    comparison.png
    """
    from vaestro.comparison import compare
    from vaestro.comparison.words import report
    from vaestro.data.writers import check_output

    path = (
        None
        if output is None
        else check_output(output, force=force, suffixes=(".png", ".json", ".csv"))
    )
    files: dict[str, str] = {}
    for text in exact or []:
        name, file = parse_pair(text) or ("", "")
        if not name or ":" in name or not file or name in files:
            raise ValueError(f"expected each --exact once, as NAME=FILE.npz; got {text!r}")
        files[name] = file
    comparison = compare(runs or [_open(None).path], files)
    for line in report(comparison):
        console.say(line)
    if path is not None:
        comparison.save(path)
        console.say(f"wrote {path}")


@app.command()
def report(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN ...]",
            help="Folders of runs; by default the newest under runs/. Several are compared.",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            help="The .html to write.  [default: report.html in the run's folder, or in the one "
            "that holds all]",
        ),
    ] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
    force: Force = False,
) -> None:
    """Write a report as one HTML file that stands for itself: the result, findings, curves,
    pictures, and what repeats the run.

    What is missing or of earlier weights is made first: evaluation, diagnosis, pictures. A report
    of the same runs is written anew.

    Example: vaestro report runs/mine --open
    """
    from vaestro.report.gather import write_report

    path = write_report(runs or [_open(None).path], output, force=force, say=console.say)
    console.say(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")
    if open_it:
        import webbrowser

        webbrowser.open(path.resolve().as_uri())


@app.command()
def sample(
    run: RunArgument = None,
    n: Annotated[int, typer.Option("-n", help="How many.")] = 64,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            help="The file to write.  [default: RUN/samples.png, .txt, .csv or .npz]",
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
    from vaestro import latents
    from vaestro.data.tables import condition_columns
    from vaestro.data.writers import check_output, write_grid
    from vaestro.frames import Frame

    opened = _open(run)
    model = opened.model()
    texts = model.space.ragged
    default = (
        "samples.txt"
        if texts
        else "samples.csv"
        if model.space.columns
        else "samples.png"
        if model.space.image
        else "samples.npz"
    )
    path = check_output(output or opened.path / default, force=force)
    given = latents.conditions(model, _pairs(condition), n)
    picture = path.suffix.lower() == ".png"
    mean = picture if mean is None else mean
    decoding = _decoding(top_p, token_temperature, beam)
    shown = dtype_of(model.space, picture and mean, dtype)
    drawn = latents.sample(
        model,
        n,
        given=given,
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
            model.space,
            f"{n} {what} from {opened.path}{of}, temperature {temperature:g}",
        )
    else:
        if isinstance(drawn, Frame):
            drawn = Frame({**drawn.columns, **condition_columns(model.given, _pairs(condition), n)})
        write(path, drawn, model.space, dtype if mean else "float")
    console.say(f"wrote {n} {what} to {path}")


@app.command("fit-prior")
def fit_prior(
    run: RunArgument = None,
    prior: Annotated[
        str,
        typer.Option(
            help="The prior to fit: mixture, vamp, maf, coupling, autoregressive, with options."
        ),
    ] = "mixture",
    output: Annotated[
        str | None,
        typer.Option("--run", metavar="DIR", help="The new run's folder.  [default: RUN-PRIOR]"),
    ] = None,
    epochs: Annotated[
        float | None, typer.Option(help="Passes over the training data.  [default: 5]")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Steps, in place of epochs.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.  [default: 0.01]")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of everything that is drawn.  [default: 0]")
    ] = None,
    force: Force = False,
) -> None:
    """Fit a prior to a trained run's codes, encoder and decoder left as they are: a new run, with
    samples before and after.

    A run whose bound is lower than before is not kept, unless --force is given.

    Example: vaestro fit-prior runs/mine --prior mixture:components=64
    """
    import sys

    from vaestro.evaluation import plus_minus
    from vaestro.prior_fitting import finish, prepare

    opened = _open(run)
    job = prepare(opened, prior, output, force=force, epochs=epochs, steps=steps, lr=lr, seed=seed)
    count = sum(p.numel() for p in job.training.parameters)
    console.say(
        f"{count:,} parameters of the prior {prior}, {job.training.steps:,} steps of "
        f"{job.training.batch}; all else is frozen"
    )
    try:
        with job:
            console.watch(job)
    except KeyboardInterrupt:
        console.say(
            f"stopped at step {job.training.index:,} of {job.training.steps:,}; go on with: "
            f"vaestro train --resume {job.path}"
        )
        raise typer.Exit(130) from None
    found = finish(opened, job, force=force)
    samples = [f", samples in {path}" if found.kept else "" for path in found.samples]
    console.say(
        f"before: log p(x) >= {plus_minus(found.before)} nats (ELBO, {found.n:,} {found.split} "
        f"data){samples[0]}"
    )
    console.say(f"after:  log p(x) >= {plus_minus(found.after)} nats{samples[1]}")
    if not found.kept:
        print(
            f"vaestro: {found.sentence()}: {job.path} was not written (--force writes it)",
            file=sys.stderr,
        )
        raise typer.Exit(1)
    console.say(f"{found.sentence()}; wrote {job.path}/")


@app.command()
def encode(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder.")],
    source: Annotated[str, typer.Argument(help="Data of the kind that the run was trained on.")],
    output: Output,
    sample: Annotated[
        int, typer.Option("--sample", help="Also so many draws z of q(z|x) for each datum.")
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

    from vaestro import latents
    from vaestro.data import load_rows
    from vaestro.data.readers import parse_source
    from vaestro.data.sparse import write_latents
    from vaestro.data.writers import check_output, write_arrays

    opened = _open(run)
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
    model = opened.model()
    rows = load_rows(
        _like(source, opened), model.space, split, given=model.given, conditions=_pairs(condition)
    )
    say_read(rows)
    codes = latents.encode(model, rows, draws=sample, seed=seed)
    if sample and path.suffix.lower() != ".npz":
        raise ValueError(f"expected a .npz file for draws; got {path}")
    if annotated:
        write_latents(Path(parse_source(source)[0]).expanduser(), path, codes)
    else:
        write_arrays(path, codes)
    _say_unread(rows)
    console.warn(empty_code.warning(opened))
    kept = "mean" if path.suffix.lower() == ".npy" else " and ".join(codes)
    console.say(
        f"wrote {kept} of {len(rows):,} data ({rows.name}), {' x '.join(map(str, model.units))} "
        f"units each, to {path}"
    )


@app.command()
def decode(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder.")],
    file: Annotated[str, typer.Argument(help="Latents: .npy, or .npz with an array z or mean.")],
    output: Output,
    sample: Annotated[
        bool, typer.Option("--sample", help="Write a draw from p(x|z) in place of its mean.")
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
    from vaestro import latents
    from vaestro.data.readers import read_latents
    from vaestro.data.writers import check_output, write_grid

    opened = _open(run)
    path = check_output(output, force=force)
    model = opened.model()
    z = read_latents(file)
    decoding, given = (
        _decoding(top_p, token_temperature, beam),
        latents.conditions(model, _pairs(condition), len(z)),
    )
    picture = path.suffix.lower() == ".png"
    shown = dtype_of(model.space, picture and not sample, dtype)
    x = latents.decode(
        model, z, given=given, sample=sample, seed=seed, decoding=decoding, dtype=shown
    )
    if picture:
        write_grid(
            path, {"": x}, model.space, f"{len(x)} latents of {file} decoded by {opened.path}"
        )
    else:
        write(path, x, model.space, "float" if sample else dtype)
    console.say(f"wrote {len(x):,} {'draws' if sample else 'means'} to {path}")


@app.command()
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
    """Write the likelihood's mean at each datum's code, of texts the most probable one; a .png
    shows data and reconstructions in turn.

    Example: vaestro reconstruct runs/mine mnist -o pairs.png
    """
    from vaestro import latents
    from vaestro.data import load_rows
    from vaestro.data.writers import check_output, write_grid

    opened = _open(run)
    path = check_output(output, force=force)
    picture = path.suffix.lower() == ".png"
    model = opened.model()
    rows = load_rows(
        _like(source, opened), model.space, split, given=model.given, conditions=_pairs(condition)
    )
    say_read(rows)
    every = len(rows)
    rows, places = spread(rows, n, picture)
    means = latents.reconstruct(
        model,
        rows,
        decoding=_decoding(None, None, beam),
        dtype=dtype_of(model.space, picture, dtype),
    )
    _say_unread(rows)
    if picture:
        write_grid(
            path,
            {"data": rows.outward(), "mean": means},
            model.space,
            f"{len(rows)} of {source} and their reconstructions by {opened.path}",
        )
    else:
        write(path, means, model.space, dtype, None if n is None else places)
    console.warn(empty_code.warning(opened))
    console.say(f"wrote {len(rows):,} reconstructions{which(places, every)} to {path}")


@app.command()
def interpolate(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder.")],
    source: Annotated[str, typer.Argument(help="Data of the kind that the run was trained on.")],
    i: Annotated[int, typer.Argument(metavar="I", help="The number of a datum, from 0.")],
    j: Annotated[int, typer.Argument(metavar="J", help="The number of another.")],
    output: Output,
    steps: Annotated[int, typer.Option(help="Codes from one to the other, both among them.")] = 9,
    path: Annotated[
        str, typer.Option(help="linear, or spherical: along the great circle.")
    ] = "linear",
    split: Split = None,
    condition: ConditionOfAll = None,
    dtype: Dtype = None,
    beam: Beam = None,
    force: Force = False,
) -> None:
    """Write what codes between those of two data decode to.

    Example: vaestro interpolate runs/mine mnist 3 18 -o between.png
    """
    from vaestro import latents
    from vaestro.data import load_rows
    from vaestro.data.writers import check_output, write_grid

    opened = _open(run)
    file = check_output(output, force=force)
    model = opened.model()
    rows = load_rows(
        _like(source, opened), model.space, split, given=model.given, conditions=_pairs(condition)
    )
    say_read(rows)
    picture = file.suffix.lower() == ".png"
    shown = dtype_of(model.space, picture, dtype)
    made = latents.interpolate(
        model, rows, i, j, steps=steps, path=path, decoding=_decoding(None, None, beam), dtype=shown
    )
    if picture:
        write_grid(
            file,
            {"": made},
            model.space,
            f"from {i} to {j} of {source} by {opened.path}",
            columns=steps,
        )
    else:
        write(file, made, model.space, dtype)
    console.warn(empty_code.warning(opened))
    console.say(
        f"wrote {steps} steps from {i} to {j} of the {len(rows):,} data ({rows.name}) to {file}"
    )


@app.command()
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
            help="1 is the step from data without the value to those with it, or one of a "
            "number's units; negative: back."
        ),
    ] = 1.0,
    split: Split = None,
    condition: ConditionOfAll = None,
    n: Some = None,
    dtype: Dtype = None,
    beam: Beam = None,
    force: Force = False,
) -> None:
    """Add so much of an attribute to each datum's code, and write what that decodes to.

    A .png shows the data, their reconstructions without the edit, and with it, so that what the
    edit changes can be seen.

    The attribute is looked for in the data that the run was trained on, and else in SOURCE.

    Example: vaestro edit runs/mine mnist --attribute slant --amount 0.5 -o slanted.png
    """
    from vaestro import latents
    from vaestro.data import load_rows
    from vaestro.data.writers import check_output, write_grid

    opened = _open(run)
    path = check_output(output, force=force)
    model, picture = opened.model(), path.suffix.lower() == ".png"
    rows = load_rows(
        _like(source, opened), model.space, split, given=model.given, conditions=_pairs(condition)
    )
    say_read(rows)
    chosen, places = spread(rows, n, picture)
    name, value = next(iter(_pairs([attribute]).items())) if "=" in attribute else (attribute, None)
    trained = opened.data().train.spread(latents.KNOWN).fixed()
    along = latents.direction(
        model, trained if name in latents.attributes(trained) else rows.fixed(), name, value
    )
    decoding, kind = _decoding(None, None, beam), dtype_of(model.space, picture, dtype)
    made = latents.edit(model, chosen, along, amount, decoding=decoding, dtype=kind)
    if picture:
        still = latents.edit(model, chosen, along, 0.0, decoding=decoding, dtype=kind)
        shown = {"data": chosen.outward(), "reconstruction": still, along.moved(amount): made}
        write_grid(
            path,
            shown,
            model.space,
            f"{len(chosen)} of {source} by {opened.path}: {along.moved(amount)}",
        )
    else:
        write(path, made, model.space, dtype, None if n is None else places)
    console.warn(empty_code.warning(opened))
    if model.space.ragged and list(made) == list(
        latents.reconstruct(model, chosen, decoding=decoding)
    ):
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


@app.command()
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
            "--sample", help="Fill in a draw from p(missing|observed) in place of its mean."
        ),
    ] = False,
    split: Split = None,
    condition: ConditionOfAll = None,
    dtype: Dtype = None,
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Fill in what is missing, given what is there; cells that are there stay as they are.

    Cells are assumed to be missing at random: whether a cell is missing may depend on what is
    observed, not on its own value.

    Example: vaestro impute runs/mine customers.csv -o complete.csv
    """
    from vaestro import latents
    from vaestro.data.loading import completed, load_with_own
    from vaestro.data.writers import check_output, write_grid
    from vaestro.frames import Frame

    opened = _open(run)
    path = check_output(output, force=force)
    model = opened.model()
    rows, own = load_with_own(
        _like(source, opened), model.space, split, given=model.given, conditions=_pairs(condition)
    )
    say_read(rows)
    filled = latents.impute(model, rows, k=k, sample=sample, seed=seed, dtype=dtype, own=own)
    if isinstance(filled, Frame):
        filled = completed(_like(source, opened), filled, rows.name)
    cells = (
        0
        if rows.observed is None
        else round(len(rows) * (model.space.cells - rows.observed_cells()))
    )
    if path.suffix.lower() == ".png":
        write_grid(
            path, {"": filled}, model.space, f"{len(rows)} of {source} filled in by {opened.path}"
        )
    else:
        write(path, filled, model.space, "float" if sample or not model.space.columns else dtype)
    how = (
        "draws from p(missing | observed)" if sample else "weighted means and most probable values"
    )
    console.say(
        f"wrote {len(rows):,} rows with {cells:,} missing cells filled in ({how}, {k} draws of "
        f"z) to {path}"
    )


@app.command()
def parts(
    kind: Annotated[
        str | None,
        typer.Argument(
            help="likelihood, posterior, prior, network, objective, gradient, schedule, "
            "optimizer or method."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print for programs.")] = False,
) -> None:
    """List every part by kind, with its options and their defaults.

    Example: vaestro parts likelihood
    """
    from vaestro.evaluation import METHODS
    from vaestro.parts import TABLE, catalogue
    from vaestro.text import nearest

    table = catalogue({**TABLE, "method": METHODS})
    if kind is not None:
        if kind not in table:
            raise ValueError(f"expected a kind of part: {nearest(kind, table)}; got {kind!r}")
        table = {kind: table[kind]}
    if json:
        print(json_module.dumps(table, indent=1))
        return
    for name, rows in table.items():
        console.say(f"{name}")
        for row in rows:
            options = ",".join(
                f"{k}={'...' if k in row['needed'] else v}" for k, v in row["options"].items()
            )
            console.say(f"  {row['name']}{':' + options if options else ''}")
            console.say(f"      {row['summary']}")


@app.command()
def info(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN]", help="A run's folder; without it, versions, devices and extras."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print for programs.")] = False,
    cache: Annotated[
        bool, typer.Option("--cache", help="List the decoded data that are kept for a quick start.")
    ] = False,
    clear_cache: Annotated[bool, typer.Option("--clear-cache", help="Remove them.")] = False,
) -> None:
    """Say what is installed, or what a run is and how it went; show or clear the cache of decoded
    data.

    Example: vaestro info runs/mine
    """
    if cache or clear_cache:
        _show_cache(clear_cache, json)
        return
    if run is None:
        facts = _installation()
    else:
        opened = _open(run)
        facts = _of_run(opened)
    if json:
        print(json_module.dumps(facts, indent=1))
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        shown = (
            ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        )
        console.say(f"{name:{width}}  {shown}")


def _show_cache(clear: bool, json: bool) -> None:
    from vaestro.data import cache

    entries, freed = cache.entries(), 0
    if clear:
        freed = cache.clear()
    if json:
        listed = [
            {"source": e.source, "bytes": e.bytes, "made": e.when.isoformat()} for e in entries
        ]
        print(
            json_module.dumps(
                {"folder": str(cache.folder()), "entries": listed, "freed": freed}, indent=1
            )
        )
        return
    for entry in entries:
        console.say(f"{entry.bytes / 1e6:10,.1f} MB  {entry.source}")
    total = (
        f"{sum(e.bytes for e in entries) / 1e6:,.1f} MB in {len(entries)} entries under "
        f"{cache.folder()}"
    )
    console.say(f"removed {freed / 1e6:,.1f} MB from {cache.folder()}" if clear else total)


def _installation() -> dict[str, Any]:
    from importlib import metadata
    from importlib.util import find_spec

    import torch

    from vaestro.data import cache
    from vaestro.runs import machine

    held = cache.entries()
    versions = {
        n: metadata.version(n)
        for n in ("numpy", "accelerate", "safetensors", "typer", "rich", "pillow")
    }
    return {
        **machine(),
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "libraries": versions,
        "extras": {
            extra: "installed" if find_spec(module) else "not installed"
            for extra, module in EXTRAS.items()
        },
        "cache": f"{sum(e.bytes for e in held) / 1e6:,.1f} MB in {len(held)} entries under "
        f"{cache.folder()}",
    }


def _of_run(run: Run) -> dict[str, Any]:
    import math

    from vaestro.evaluation import plus_minus

    config, metrics = run.config, run.metrics()
    valid = [m for m in metrics if m["split"] == "valid" and m["bound"] is not None]
    facts: dict[str, Any] = {
        "run": str(run.path),
        "state": "finished" if run.finished else "stopped" if metrics else "not begun",
        "steps": f"{metrics[-1]['step'] if metrics else 0:,} of {config['steps']:,}",
        "options": {k: v for k, v in config.items() if k not in ("source", "steps")},
        "source": config["source"],
    }
    if metrics:
        facts["time"] = duration(metrics[-1]["seconds"])
    kept = run.kept
    if kept is not None:
        facts["weights"] = kept["why"]
    if valid:
        at = (
            max(valid, key=lambda m: m["bound"])
            if kept is None
            else next((m for m in valid if m["step"] == kept["step"]), valid[-1])
        )
        facts["validation bound"] = (
            f"{at['bound']:.2f} nats at step {at['step']:,} (KL {at['rate']:.2f}, reconstruction "
            f"{at['distortion']:.2f})"
        )
    diagnosis = run.diagnosis
    if diagnosis is not None:
        facts["diagnosis"] = f"{diagnosis.get('verdict')}: {diagnosis.get('summary')}"
    evaluation = run.evaluation or {}
    there = (run.path / "model.safetensors").exists()
    stale = (
        bool(evaluation)
        and there
        and evaluation.get("weights_sha256") not in (None, run.weights_sha256())
    )
    for estimate in evaluation.get("estimates", []):
        name, given = estimate["method"], evaluation.get("given")
        if estimate.get("on", "data") == "data":
            error = math.nan if estimate["stderr"] is None else estimate["stderr"]
            draws = f"{estimate['k']} {'chains' if name == 'ais' else 'draws'}"
            of = f"{draws}, {estimate.get('n', evaluation['n']):,} {evaluation['split']} data"
            px = f"p(x | {', '.join(given)})" if given else "p(x)"
            facts[name] = (
                f"log {px} >= {plus_minus((estimate['mean'], error))} nats with {of}"
                + ", of earlier weights" * stale
            )
    return facts


def _pairs(conditions: list[str] | None) -> dict[str, str]:
    """Read NAME=VALUE pairs; a name may stand in double quotes."""
    pairs: dict[str, str] = {}
    for text in conditions or []:
        pair = parse_pair(text)
        if pair is None or pair[0] in pairs:
            raise ValueError(f"expected each condition once, as NAME=VALUE; got {text!r}")
        pairs[pair[0]] = pair[1]
    return pairs


def _say_unread(rows: Rows) -> None:
    """Say which rows of streamed data could not be read, and that others stood in their place."""
    from vaestro.data.sets import Streamed

    if isinstance(rows.values, Streamed) and rows.values.unread()[0]:
        console.say(
            f"warning: rows: {rows.values.unread()[1]}; what is written for them is of the next "
            f"ones"
        )


def _decoding(top_p: float | None, temperature: float | None, beam: int | None) -> Any:
    """Return how texts are drawn or searched for, if anything was asked."""
    from vaestro.densities import Decoding

    asked = {"top_p": top_p, "temperature": temperature, "beam": beam}
    given = {name: value for name, value in asked.items() if value is not None}
    return Decoding(**given) if given else None  # type: ignore[arg-type]


def _open(run: str | None) -> Run:
    from vaestro.runs import Run

    return Run.newest() if run is None else Run(run)


def _device(name: str) -> str:
    from vaestro.loop import accelerator_for

    return str(accelerator_for(name).device)


def _like(source: str, run: Run) -> str:
    """Return the source with the run's own options where it names the run's data without any."""
    from pathlib import Path

    from vaestro.data.readers import parse_source

    own: str = run.config["source"]
    names = (source, str(Path(source).expanduser().resolve()))
    return own if parse_source(own)[0] in names else source
