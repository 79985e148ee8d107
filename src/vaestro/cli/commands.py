"""The commands that train: train and fit-prior.

Each command imports what it needs when it is called, so that --help takes no time.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from vaestro.cli.arguments import Force, RunArgument, opened_run
from vaestro.cli.console import console, duration


def train(
    source: Annotated[
        str | None,
        typer.Argument(
            help="mnist, shapes, digits, a folder of images or of shards (.tar, .parquet), a "
            "path to .npy, .npz, IDX, .csv, .parquet, "
            ".json or .txt, or hf:OWNER/NAME; "
            "with options after a colon."
        ),
    ] = None,
    run: Annotated[
        str | None, typer.Option(help="Folder to write.  [default: runs/SOURCE-DATE-TIME]")
    ] = None,
    latent: Annotated[
        int | None, typer.Option("--latent", "--latent-dim", help="Latent units.  [default: 32]")
    ] = None,
    likelihood: Annotated[
        str | None, typer.Option(help="p(x|z).  [default: by the kind of data]")
    ] = None,
    posterior: Annotated[str | None, typer.Option(help="q(z|x).  [default: normal]")] = None,
    prior: Annotated[
        str | None, typer.Option(help="p(z).  [default: normal; uniform for discrete latents]")
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(help="Encoder and decoder.  [default: conv for larger images, else residual]"),
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="The encoder alone, such as my_module:MyEncoder.")
    ] = None,
    decoder: Annotated[str | None, typer.Option(help="The decoder alone.")] = None,
    condition: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN", help="Attribute or column to condition on; may be repeated."
        ),
    ] = None,
    objective: Annotated[
        str | None, typer.Option(help="elbo, iwae:k=5, miwae, ciwae.  [default: elbo]")
    ] = None,
    gradient: Annotated[
        str | None,
        typer.Option(
            help="Gradient estimator.  [default: pathwise; gumbel-softmax for discrete latents]"
        ),
    ] = None,
    optimizer: Annotated[str | None, typer.Option(help="Optimiser.  [default: adamw]")] = None,
    beta: Annotated[
        str | None,
        typer.Option(help="Weight of the KL: a number, or warmup:share=0.1.  [default: 1]"),
    ] = None,
    free_bits: Annotated[
        str | None,
        typer.Option(
            metavar="NATS",
            help="Rate of each unit that costs nothing, or 5:group=all,smooth=0.5 of all units.",
        ),
    ] = None,
    capacity: Annotated[
        str | None,
        typer.Option(
            metavar="OPTIONS",
            help="Press the rate to a capacity that grows, such as to=25,share=0.5,gamma=100.",
        ),
    ] = None,
    penalty: Annotated[
        list[str] | None,
        typer.Option(
            help="On the aggregate posterior, such as total-correlation:weight=5; may be repeated."
        ),
    ] = None,
    aggressive: Annotated[
        bool | None,
        typer.Option(
            "--aggressive",
            help="Let the encoder catch up before each step, while the code's information rises.",
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Options known under a name, such as beta-tcvae:beta=6 (vaestro parts recipe); "
            "others given win."
        ),
    ] = None,
    freeze: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PART",
            help="Part that is not trained, such as posterior: it keeps the weights of --init "
            "RUN. May be repeated.",
        ),
    ] = None,
    epochs: Annotated[
        float | None,
        typer.Option(
            help="Passes over the training data.  [default: 20, or 4,000 steps if more; texts 20]"
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Steps, in place of epochs.")] = None,
    minutes: Annotated[
        float | None,
        typer.Option(help="Time, in place of epochs; made into steps before the first."),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            "--batch", "--batch-size", help="Data in a step.  [default: 128, less if few data]"
        ),
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.  [default: 0.002]")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of everything that is drawn.  [default: 0]")
    ] = None,
    ema: Annotated[
        float | None,
        typer.Option(
            help="Decay of the average of the weights.  [default: by the length of the run]"
        ),
    ] = None,
    clip: Annotated[
        float | None, typer.Option(help="Largest norm of the gradient.  [default: 10 sqrt(cells)]")
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            help="Stop after this many validations without a lower validation loss.  [default: "
            "never]"
        ),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(
            help="Weights to keep: best by validation loss after all schedules, or last.  "
            "[default: best]"
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda or mps.  [default: auto]")
    ] = None,
    precision: Annotated[str | None, typer.Option(help="32 or bf16.  [default: 32]")] = None,
    compile: Annotated[
        str | None,
        typer.Option(help="off, trace (steps run from a record), on or auto.  [default: auto]"),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Threads that decode streamed data.  [default: one a processor]"),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            help="A YAML of these options, such as a run's config.yaml; options here win."
        ),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Go on with a stopped run; --epochs, --steps, --device, --workers may be given.",
        ),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Start from another run's weights. The data are read into that run's space "
            "(offsets, scales, columns, categories and "
            "conditions, matched by name). Model options that are not given come from that run. "
            "Only the prior may differ.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the resolved options and sizes; write nothing.")
    ] = False,
    force: Force = False,
) -> None:
    """Train a VAE and write a run's folder.

    Example: vaestro train mnist --latent 40 --epochs 20 --run runs/mine
    """
    from vaestro.parts import unquoted
    from vaestro.runs import Job, describe, dump_config
    from vaestro.runs import result as result_of

    options: dict[str, Any] = {
        "latent": latent,
        "likelihood": likelihood,
        "posterior": posterior,
        "prior": prior,
        "network": network,
        "encoder": encoder,
        "decoder": decoder,
        "condition": [unquoted(name) for name in condition or []] or None,
        "objective": objective,
        "gradient": gradient,
        "optimizer": optimizer,
        "beta": beta,
        "free_bits": free_bits,
        "capacity": capacity,
        "penalty": penalty or None,
        "aggressive": aggressive,
        "recipe": recipe,
        "freeze": freeze or None,
        "epochs": epochs,
        "steps": steps,
        "minutes": minutes,
        "batch": batch,
        "lr": lr,
        "seed": seed,
        "ema": ema,
        "clip": clip,
        "patience": patience,
        "keep": keep,
        "device": device,
        "precision": precision,
        "compile": compile,
        "init": init,
        "workers": workers,
    }
    if resume is not None:
        if dry_run or force or config or run or source:
            raise ValueError(
                "expected --resume RUN with at most --epochs, --steps, --device or --workers; "
                "got more"
            )
        job = Job.resumed(resume, **options)
    else:
        job = Job.new(
            source,
            run=run,
            force=force,
            config=config,
            dry=dry_run,
            progress=console.reading,
            **options,
        )
    training = job.training
    writes = job.writes
    if not writes:
        console.quiet = True
    for note in job.notes:
        console.say(f"{'# ' if dry_run else ''}{note}")
    for finding in job.lint():
        # a remedy starts from the run's files, which a dry run has not
        for text in list(finding.lines())[: 1 if dry_run else None]:
            console.say(f"{'# ' if dry_run else ''}{text}")
    sizes = {
        name: sum(p.numel() for p in part.parameters())
        for name, part in training.model.named_children()
    }
    parameters = (
        f"{sum(sizes.values()):,} parameters "
        f"({', '.join(f'{k} {v:,}' for k, v in sizes.items() if v)})"
    )
    console.say(
        f"{'# ' if dry_run else ''}{parameters}, {training.steps:,} steps of {training.batch} on "
        f"{training.device}"
    )
    if dry_run:
        print(dump_config(job.config), end="")
        return
    try:
        with job:
            console.watch(job)
    except KeyboardInterrupt:
        if writes:
            console.say(
                f"stopped at step {training.index:,} of {training.steps:,}; go on with: vaestro "
                f"train --resume {job.path}"
            )
            raise typer.Exit(130) from None
        raise
    if not writes:
        return
    console.say(f"wrote {job.path}/ after {duration(training.seconds)}")
    console.say(training.kept_sentence())
    rows = job.data.test if len(job.data.test) else job.data.valid
    if console.quiet:
        return
    if len(rows):
        console.say(result_of(training.model, rows))
    else:
        console.say(
            f"no held-out data to evaluate on: {describe(job.data.train, len(job.data.train))} only"
        )


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

    opened = opened_run(run)
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
