"""Make a run's folder: its name, the files that training replaces, and the records of a new run."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import numpy as np
import torch

import vaestro
from vaestro.data import tables
from vaestro.data.readers import parse_source
from vaestro.data.texts import as_texts
from vaestro.files import FORMAT, Json
from vaestro.frames import Frame
from vaestro.loop import Training
from vaestro.models import LatentModel
from vaestro.options import names
from vaestro.runs.sources import Source

FILES = (
    "config.yaml",
    "config.json",
    "metrics.jsonl",
    "model.safetensors",
    "evaluation*.json",
    "evaluation*.npz",
    "samples.*",
    "samples-before.*",
    "samples-after.*",
    "data.npy",
    "data.parquet",
    "data.json",
    "kept.json",
    "failure.json",
    "diagnosis.json",
    "diagnosis.npz",
    "environment.json",
    "gradients.json",
    "gradients.png",
    "showcase.*",
    "report.html",
)


def fresh_folder(source: str) -> Path:
    """Return a folder under runs/ that does not exist, named after the source and the time."""
    name = Path(parse_source(source)[0]).stem or "run"
    base = Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    path, n = base, 2
    while path.exists():
        path, n = base.with_name(f"{base.name}-{n}"), n + 1
    return path


def refuse_existing(path: Path, force: bool) -> None:
    """Raise ValueError if a run cannot be written into a folder, or must not be overwritten."""
    existing = next(p for p in (path, *path.absolute().parents) if p.exists())
    if not existing.is_dir():
        raise ValueError(f"expected a folder to write {path} into; got {existing}, which is a file")
    if path.exists() and any(path.iterdir()):
        if not (path / "config.yaml").exists():
            raise ValueError(
                f"expected a new run folder; got {path}, which has files that are not a run's "
                f"(give another --run)"
            )
        if not force:
            raise ValueError(
                f"expected a new run folder; got {path}, which exists (--force overwrites it, "
                f"--resume continues it)"
            )


def clear(path: Path) -> None:
    """Remove the files of a run from its folder, and nothing else."""
    for name in FILES:
        for file in path.glob(name):
            file.unlink()
    for name in ("checkpoints", "evaluating"):
        shutil.rmtree(path / name, ignore_errors=True)


def store_source(path: Path, source: Source, named: str) -> str:
    """Write an array, a table or texts into a run's folder, and return the source that reads them.

    Args:
        path: the folder.
        source: what was given as data.
        named: the source in words, such as "array:kind=real".
    """
    found = as_texts(source)
    if isinstance(source, np.ndarray) and found is None:
        np.save(path / "data.npy", source, allow_pickle=False)
        return f"{path / 'data.npy'}{named.removeprefix('array')}"
    if found is not None:
        frame = Frame({"text": np.ma.MaskedArray(found.lines.astype(str))})
    else:
        frame = source if isinstance(source, Frame) else tables.frame_of(source)
    tables.write_frame(path / "data.parquet", frame)
    return f"{path / 'data.parquet'}{'' if found is None else ':text=text'}"


def model_record(model: LatentModel, config: Mapping[str, Json]) -> dict[str, Json]:
    """Return config.json: the configuration of a model."""
    return {
        "vaestro": vaestro.__version__,
        "format": FORMAT,
        "model": {k: config[k] for k in names("model") if config[k] is not None},
        "space": model.space.scalars(),
        "given": None if model.given is None else model.given.scalars(),
    }


def environment(training: Training) -> dict[str, Json]:
    """Return environment.json: the machine and the time of a run."""
    return {
        **machine(),
        "numpy": np.__version__,
        "trained_on": str(training.device),
        "cores": os.cpu_count(),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "begun": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def machine() -> dict[str, str]:
    """Return this machine and the versions of what runs on it."""
    return {
        "vaestro": vaestro.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"cpu, {torch.get_num_threads()} threads",
        "system": f"{platform.system()} {platform.machine()}",
    }
