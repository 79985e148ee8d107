"""The command that fits a prior to a trained run."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from vaestro.cli.arguments import Force, RunArgument, opened_run
from vaestro.cli.console import console


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
    steps: Annotated[int | None, typer.Option(help="Number of steps, instead of --epochs.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.  [default: 0.01]")] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed.  [default: 0]")] = None,
    force: Force = False,
) -> None:
    """Fit a prior to a trained run's codes, with encoder and decoder frozen: a new run, with
    samples before and after.

    A run whose bound is lower than before is not kept, unless --force is given.

    Example: vaestro fit-prior runs/mine --prior mixture:components=64
    """
    from vaestro.evaluation import plus_minus
    from vaestro.prior_fitting import finish, prepare

    opened = opened_run(run)
    job = prepare(opened, prior, output, force=force, epochs=epochs, steps=steps, lr=lr, seed=seed)
    count = sum(p.numel() for p in job.training.updaters[0].update.parameters)
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
