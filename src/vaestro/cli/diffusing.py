"""The command diffuse."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer

from vaestro.cli.arguments import Device, Force, RunArgument, Trust, device_of, opened_session
from vaestro.cli.console import console
from vaestro.text import duration, unquoted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vaestro.files import Json


def diffuse(
    run: RunArgument = None,
    prediction: Annotated[
        str, typer.Option(help="What the network predicts: v, epsilon or flow (flow matching).")
    ] = "v",
    denoiser: Annotated[
        str | None,
        typer.Option(
            metavar="PART",
            help="The network: dense or unet, with options.  [default: unet for grids of more than "
            "1,024 units]",
        ),
    ] = None,
    condition: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="An attribute or column of the training data to condition on; may be repeated.",
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Number of steps.  [default: 10,000]")] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Length of the training, instead of --steps.")
    ] = None,
    batch: Annotated[int, typer.Option(help="Rows of a step.")] = 256,
    lr: Annotated[
        float | None, typer.Option(help="Learning rate.  [default: 0.0002 for unet, else 0.001]")
    ] = None,
    ema: Annotated[float, typer.Option(help="Decay of the average of the weights.")] = 0.9995,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    device: Device = "auto",
    force: Force = False,
    trust: Trust = False,
) -> None:
    """Train a diffusion model on the latents of a run.

    Writes RUN/diffusion/. `vaestro sample RUN --diffusion` then draws latents from it instead of
    from the prior. An interrupted training continues, and so does a complete one with more --steps.

    Example: vaestro diffuse runs/mine --steps 10000
    """
    session = opened_session(run, device_of(device), trust=trust)
    progress = session.diffusing(
        prediction=prediction,
        denoiser=denoiser,
        condition=[unquoted(name) for name in condition or ()],
        steps=steps,
        minutes=minutes,
        batch=batch,
        lr=lr,
        ema=ema,
        seed=seed,
        force=force,
    )
    folder = session.run.path / "diffusion"
    result = None
    try:
        for what, stage in groupby(progress, key=lambda step: step.what):
            for _, step in console.progress(((s.share, s) for s in stage), what):
                for record in step.records:
                    console.say(_line(record))
                result = step.result
    except KeyboardInterrupt:
        if (folder / "diffusion.json").exists():
            console.say(f"stopped; the same command continues the training of {folder}")
        raise typer.Exit(130) from None
    assert result is not None
    for line in result.lines():
        console.say(line)
    console.say(f"wrote {folder}/ (vaestro sample {session.run.path} --diffusion draws from it)")


def _line(record: Mapping[str, Json]) -> str:
    """Return a record in one line."""
    speed = record.get("examples_per_second")
    pace = f"  {speed:,.0f}/s" if record["split"] == "train" and speed else ""
    return (
        f"step {record['step']:>9,}  {record['split']:5}  loss {record['loss']:8.4f}  "
        f"{duration(record['seconds'])}{pace}"
    )
