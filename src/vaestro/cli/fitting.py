"""The command that fits a prior to a trained run."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from vaestro.cli.arguments import Force, RunArgument, Trust, opened_run
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
        float | None,
        typer.Option(
            help="Passes over the training data.  [default: 5, or --steps 2000 if longer]"
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Number of steps, instead of --epochs.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.  [default: 0.01]")] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed.  [default: 0]")] = None,
    force: Force = False,
    trust: Trust = False,
) -> None:
    """Fit a prior to the codes of a trained run.

    Encoder and decoder are frozen. Writes a new run, with samples from the old prior and from the
    new one. If the new prior lowers the bound, the new run is removed, unless --force is given.

    Example: vaestro fit-prior runs/mine --prior mixture:components=64
    """
    from vaestro.prior_fitting import finish, prepare

    old = opened_run(run, trust=trust)
    with console.during(f"encoding the data of {old.path}"):
        job = prepare(old, prior, output, force=force, epochs=epochs, steps=steps, lr=lr, seed=seed)
    training = job.training
    count = sum(p.numel() for p in training.updaters[0].update.parameters)
    console.say(
        f"{count:,} parameters of the prior {prior}, {training.steps:,} steps of "
        f"{training.batch}; all other parts are frozen"
    )
    console.run(job)
    with console.during("comparing the priors"):
        fitted = finish(old, job, force=force)
    for line in fitted.lines():
        console.say(line)
    if not fitted.kept:
        print(
            f"vaestro: {fitted.sentence()}: {job.path} was not written (--force writes it)",
            file=sys.stderr,
        )
        raise typer.Exit(1)
    console.say(f"{fitted.sentence()}; wrote {job.path}/")
