"""The command explore."""

from __future__ import annotations

from typing import Annotated

import typer

from vaestro.cli.arguments import RunArgument, Trust, opened_session
from vaestro.cli.console import console


def explore(
    run: RunArgument = None,
    host: Annotated[
        str,
        typer.Option(
            help="Address to bind to. Others than 127.0.0.1 let other computers read the run's "
            "data."
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(help="Port.  [default: 8000, or the next free one]")
    ] = None,
    trust: Trust = False,
) -> None:
    """Explore the latent space of a run in the browser.

    Starts a page and a REST API on this computer; Ctrl-C ends them.

    Example: vaestro explore runs/mine
    """
    with console.during("opening the run"):
        explorer = opened_session(run, trust=trust).explore(host, port)
    if explorer.busy is not None:
        console.say(f"port {explorer.busy} is in use; this is the next free one")
    console.say(f"{explorer.url}  (API: {explorer.url}api/openapi.json; Ctrl-C ends it)")
    try:
        explorer.wait()
    finally:
        explorer.stop()
