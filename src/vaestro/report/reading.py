"""Read the files of a run's folder. Nothing is computed; absent or damaged files are None, with a
note."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import yaml

import vaestro
from vaestro.files import Json, read_config
from vaestro.records import (
    Damaged,
    file_sha256,
    log_faults,
    read_arrays,
    read_log,
    read_object,
    read_record,
)

if TYPE_CHECKING:
    from vaestro.runs import Run

SHOWCASE_FORMAT = 3  # of showcase.json


@dataclass(frozen=True)
class Folder:
    """The content of a run's folder.

    Args:
        path: the folder, as given by the user.
        config: every option.
        version: the version of Vaestro that wrote the run; empty if unknown.
        metrics: lines of metrics.jsonl.
        evaluation: evaluation.json.
        others: further evaluations of the same weights in the folder.
        diagnosis, showcase, environment, data: the files of these names.
        arrays: arrays of evaluation.npz, diagnosis.npz and showcase.npz, by the stem of the file.
        notes: which files are absent, damaged, or of earlier weights.
        choice: the step of the weights in use and why they were kept; None for older versions.
        units, probes, disentanglement: the files of these names, if they are of the weights in use.
    """

    path: Path
    config: dict[str, Json]
    version: str
    metrics: list[dict[str, Json]]
    evaluation: dict[str, Json] | None
    others: tuple[dict[str, Json], ...]
    diagnosis: dict[str, Json] | None
    showcase: dict[str, Json] | None
    environment: dict[str, Json] | None
    data: dict[str, Json] | None
    arrays: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    choice: dict[str, Json] | None = None
    units: dict[str, Json] | None = None
    probes: dict[str, Json] | None = None
    disentanglement: dict[str, Json] | None = None

    @property
    def name(self) -> str:
        """Return the name of the folder."""
        return self.path.resolve().name

    def lines(self, split: str) -> list[dict[str, Json]]:
        """Return the metrics of a split that have a step."""
        return [
            m
            for m in self.metrics
            if m.get("split") == split and isinstance(m.get("step"), (int, float))
        ]

    @property
    def kept(self) -> dict[str, Json] | None:
        """Return the validation of the weights in use; None if it is not in the log."""
        valid = [m for m in self.lines("valid") if isinstance(m.get("bound"), (int, float))]
        if self.choice is not None:
            return next((m for m in valid if m["step"] == self.choice.get("step")), None)
        # Older versions kept the weights with the best unweighted bound.
        return max(valid, key=lambda m: m["bound"], default=None)


def read_folder(path: Path) -> Folder:
    """Read a run's folder.

    Raises:
        ValueError: it has no config.yaml that can be read.
    """
    config = read_config(path / "config.yaml")
    version = str((yaml.safe_load((path / "config.yaml").read_text()) or {}).get("vaestro", ""))
    notes: list[str] = []
    if _newer(version, vaestro.__version__):
        notes.append(
            f"the run was made by Vaestro {version}, newer than this {vaestro.__version__}: "
            f"unknown parts are not shown"
        )
    weights = path / "model.safetensors"
    now = hashlib.sha256(weights.read_bytes()).hexdigest() if weights.exists() else None
    files: dict[str, dict[str, Json] | None] = {}
    meanings = ("units", "probes", "disentanglement")
    for name in ("evaluation", "diagnosis", "showcase", "environment", "data", *meanings):
        file = path / f"{name}.json"
        try:
            files[name] = read_record(file)
        except Damaged as error:
            files[name] = None
            notes.append(f"left out: {error}")
        hashed = (files[name] or {}).get("weights_sha256")
        if hashed is not None and now is not None and hashed != now:
            notes.append(f"{file.name} is of earlier weights than the run has now")
            files[name] = None if name in meanings else files[name]
    failure = (read_object(path / "failure.json") or {}).get("reason")
    if failure:
        notes.append(f"training failed: {failure}")
    metrics, _ = read_log(path / "metrics.jsonl")
    notes += log_faults(path / "metrics.jsonl")
    if not metrics:
        notes.append("metrics.jsonl is empty: there are no curves")
    kept = [read_object(f) for f in sorted(path.glob("evaluation-*.json"))]
    others = tuple(
        e
        for e in kept
        if e is not None
        and e.get("weights_sha256") == (files["evaluation"] or {}).get("weights_sha256", now)
    )
    arrays = {
        name: _arrays(path / f"{name}.npz", files[name], notes)
        for name in ("evaluation", "diagnosis", "showcase")
    }
    return Folder(
        path,
        config,
        version,
        metrics,
        files["evaluation"],
        others,
        files["diagnosis"],
        files["showcase"],
        files["environment"],
        files["data"],
        arrays,
        tuple(notes),
        read_object(path / "kept.json"),
        *(files[name] for name in meanings),
    )


def _arrays(path: Path, record: dict[str, Json] | None, notes: list[str]) -> dict[str, np.ndarray]:
    if not path.exists():
        return {}
    try:
        return read_arrays(path, record)
    except Damaged as error:
        notes.append(f"left out: {error}")
        return {}


def _newer(version: str, than: str) -> bool:
    return _numbers(version) > _numbers(than)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version)[:3])


def diffusion_stamp(run: Run) -> str | None:
    """Return what identifies the weights of a run's diffusion model of these weights; None if it
    has none."""
    record = read_object(run.path / "diffusion" / "diffusion.json")
    file = run.path / "diffusion" / "diffusion.safetensors"
    if record is None or not file.exists() or record["weights_sha256"] != run.weights_sha256():
        return None
    return file_sha256(file)
