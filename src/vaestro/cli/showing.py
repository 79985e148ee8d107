"""The commands that list parts, and show the installation, the cache, and a run."""

from __future__ import annotations

import json as json_module
from typing import Annotated

import typer

from vaestro.cli.arguments import AsJson, opened_run
from vaestro.cli.console import console


def parts(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="KIND",
            help="One kind, such as likelihood, model, prior, penalty, recipe or method.  "
            "[default: all kinds]",
        ),
    ] = None,
    json: AsJson = False,
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


def info(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN", help="A run's folder; without it, versions, devices and extras."
        ),
    ] = None,
    json: AsJson = False,
    cache: Annotated[bool, typer.Option("--cache", help="List the cached decoded data.")] = False,
    clear_cache: Annotated[
        bool, typer.Option("--clear-cache", help="Remove the cached data.")
    ] = False,
) -> None:
    """Show a run, the installation, or the cache.

    For a run: its options and results. Without one: versions, devices and extras. The cache
    contains decoded data.

    Example: vaestro info runs/mine
    """
    if cache or clear_cache:
        _show_cache(clear_cache, json)
        return
    from vaestro.runs.facts import facts_of, installation

    facts = installation() if run is None else facts_of(opened_run(run))
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
    """List the cached data, and remove them if `clear`."""
    from vaestro.data import cache

    entries = cache.entries()
    freed = cache.clear() if clear else 0
    if json:
        listed = [
            {"source": e.source, "bytes": e.bytes, "made": e.when.isoformat()} for e in entries
        ]
        report = {"folder": str(cache.folder()), "entries": listed, "freed": freed}
        print(json_module.dumps(report, indent=1))
        return
    for entry in entries:
        console.say(f"{entry.bytes / 1e6:10,.1f} MB  {entry.source}")
    size = sum(e.bytes for e in entries) / 1e6
    console.say(
        f"removed {freed / 1e6:,.1f} MB from {cache.folder()}"
        if clear
        else f"{size:,.1f} MB in {len(entries)} entries under {cache.folder()}"
    )
