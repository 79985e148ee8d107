"""What `vaestro info` shows: a run in a few lines, and the installation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib import metadata
from importlib.util import find_spec
from typing import TypeAlias

from vaestro.data import cache
from vaestro.evaluation import plus_minus
from vaestro.files import Json
from vaestro.runs.run import Run
from vaestro.text import duration
from vaestro.trust import named_code

EXTRAS = {
    "tables": "pyarrow",
    "images": "tifffile",
    "hub": "datasets",
    "sklearn": "sklearn",
    "report": "plotly",
    "explorer": "fastapi",
    "flows": "zuko",
    "text": "tokenizers",
    "counts": "h5py",
}
LIBRARIES = ("numpy", "accelerate", "safetensors", "typer", "rich", "pillow")

Facts: TypeAlias = dict[str, str | bool | dict[str, Json]]


def facts_of(run: Run) -> Facts:
    """Return the options of a run, its state, and its results in words.

    >>> import numpy as np, vaestro as vs
    >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    >>> facts = facts_of(vs.train(x, run="example", latent=2, steps=2))
    >>> facts["state"], facts["steps"]
    ('finished', '2 of 2')
    """
    config, metrics = run.options, run.metrics()
    facts: Facts = {
        "run": str(run.path),
        "state": "finished" if run.finished else "stopped" if metrics else "not begun",
        "steps": f"{metrics[-1]['step'] if metrics else 0:,} of {config['steps']:,}",
        "options": {k: v for k, v in config.items() if k not in ("source", "steps")},
        "source": config["source"],
    }
    if damage := run.damage():
        facts["log"] = damage[0]
    if code := named_code(config):
        facts["code"] = f"{', '.join(code)} (runs with --trust, or if you trained this run)"
    if metrics:
        facts["time"] = duration(metrics[-1]["seconds"])
    kept = run.kept
    if kept is not None:
        facts["weights"] = kept["why"]
    valid = [m for m in metrics if m["split"] == "valid" and m["bound"] is not None]
    if valid:
        at = max(valid, key=lambda m: m["bound"])
        if kept is not None:
            at = next((m for m in valid if m["step"] == kept["step"]), valid[-1])
        facts["validation bound"] = (
            f"{at['bound']:.2f} nats at step {at['step']:,} (KL {at['rate']:.2f}, reconstruction "
            f"{at['distortion']:.2f})"
        )
    diagnosis = run.diagnosis
    if diagnosis is not None:
        facts["diagnosis"] = f"{diagnosis.get('verdict')}: {diagnosis.get('summary')}"
    return facts | _bounds(run.evaluation or {}, _is_stale(run))


def _is_stale(run: Run) -> bool:
    """Return whether the evaluation is of earlier weights."""
    weights = (run.evaluation or {}).get("weights_sha256")
    exist = (run.path / "model.safetensors").exists()
    return exist and weights is not None and weights != run.weights_sha256()


def _bounds(evaluation: Mapping[str, Json], stale: bool) -> dict[str, str]:
    """Return the bounds on the data in words, by method."""
    given = evaluation.get("given")
    px = f"p(x | {', '.join(given)})" if given else "p(x)"
    lines = {}
    for estimate in evaluation.get("estimates", []):
        if estimate.get("on", "data") != "data":
            continue
        name = estimate["method"]
        error = math.nan if estimate["stderr"] is None else estimate["stderr"]
        exact = estimate["side"] == "exact"
        draws = f" with {estimate['k']} {'chains' if name == 'ais' else 'draws'}"
        n = estimate.get("n", evaluation["n"])
        lines[name] = (
            f"log {px} {'=' if exact else '>='} {plus_minus((estimate['mean'], error))} nats"
            f"{'' if exact else draws}, {n:,} {evaluation['split']} data"
            + ", of earlier weights"
            * stale
        )
    return lines


def installation() -> Facts:
    """Return the versions, devices, extras and the size of the cache of this installation.

    >>> installation()["extras"]["tables"]
    'installed'
    """
    import torch

    from vaestro.runs.folder import machine

    entries = cache.entries()
    size = sum(entry.bytes for entry in entries) / 1e6
    return {
        **machine(),
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "libraries": {name: metadata.version(name) for name in LIBRARIES},
        "extras": {
            extra: "installed" if find_spec(module) else "not installed"
            for extra, module in EXTRAS.items()
        },
        "cache": f"{size:,.1f} MB in {len(entries)} entries under {cache.folder()}",
    }
