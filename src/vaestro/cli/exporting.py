"""The command export."""

from __future__ import annotations

from typing import Annotated

import typer

from vaestro.cli.arguments import Force, RunFolder, Trust, opened_session
from vaestro.cli.console import console


def export(
    run: RunFolder,
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="DIR", help="The folder to write.")
    ],
    to: Annotated[str, typer.Option("--to", help="onnx or torch (torch.export).")] = "onnx",
    force: Force = False,
    trust: Trust = False,
) -> None:
    """Write encoder and decoder in a format that other programs run without Vaestro.

    The encoder maps your values to mean and logvar of q(z|x), the decoder latents to the mean of
    p(x|z) in your units. The graphs contain the transform between them, and take any number of
    rows. Their largest difference from the model is printed.

    Example: vaestro export runs/mine --to onnx -o exported/
    """
    session = opened_session(run, trust=trust)
    with console.during(f"exporting to {to}"):
        exported = session.export(output, to, force=force)
    for line in exported.lines():
        console.say(line)
    console.say(f"wrote {', '.join(exported.files)} to {exported.folder}/")
