"""The commands that list parts, the installation, the cache, and what a run is."""

from __future__ import annotations

import json as json_module
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vaestro.cli.arguments import opened_run
from vaestro.cli.console import console
from vaestro.text import duration

if TYPE_CHECKING:
    from vaestro.runs import Run


EXTRAS = {
    "tables": "pyarrow",
    "hub": "datasets",
    "sklearn": "sklearn",
    "report": "plotly",
    "flows": "zuko",
    "text": "tokenizers",
    "counts": "h5py",
}


def parts(
    kind: Annotated[
        str | None,
        typer.Argument(
            help="likelihood, posterior, prior, network, objective, gradient, schedule, "
            "optimizer or method."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
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
            metavar="[RUN]", help="A run's folder; without it, versions, devices and extras."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    cache: Annotated[bool, typer.Option("--cache", help="List the cached decoded data.")] = False,
    clear_cache: Annotated[bool, typer.Option("--clear-cache", help="Remove them.")] = False,
) -> None:
    """Show the installed versions, or the options and the result of a run; show or clear the cache
    of decoded data.

    Example: vaestro info runs/mine
    """
    if cache or clear_cache:
        _show_cache(clear_cache, json)
        return
    if run is None:
        facts = _installation()
    else:
        opened = opened_run(run)
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
