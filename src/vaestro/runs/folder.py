"""The records of a new run: its data, its model and its machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import numpy as np
import torch

import vaestro
from vaestro.data import tables
from vaestro.data.annotated import read_object
from vaestro.data.annotated_output import write_annotated
from vaestro.data.array_input import as_array
from vaestro.data.in_memory import is_table
from vaestro.data.opening import read_in_python
from vaestro.data.raw import Options, Raw
from vaestro.data.series.ragged import as_series
from vaestro.data.series.sources import write_series
from vaestro.data.source_options import as_source, parse_source
from vaestro.data.sparse import Sparse
from vaestro.data.texts import as_texts
from vaestro.data.writers import write_arrays
from vaestro.files import FORMAT, Json
from vaestro.frames import Frame
from vaestro.loop import Training
from vaestro.models import Model
from vaestro.options import names
from vaestro.processes import count
from vaestro.runs.sources import Source
from vaestro.storage import writing


def store_source(place: Path, source: Source, named: str, path: Path) -> str:
    """Write an array, a table or texts into a run's folder, and return the source that reads them.

    Args:
        place: the folder.
        source: the data.
        named: the source with its options, such as "array:kind=real".
        path: where the folder will be.

    >>> store_source(Path("."), np.eye(3), "array:kind=real", Path("runs/a"))
    'runs/a/data.npy:kind=real'
    """
    name, options = parse_source(named)
    if (annotated := read_object(source, options)) is not None:
        return _store_annotated(place, annotated[1], options, path)
    texts, series = as_texts(source), as_series(source, options)
    if series is not None:
        if not isinstance(series, dict):
            series = {f"arr_{i}": one for i, one in enumerate(series)}
        write_arrays(place / "data.npz", series)
        return f"{path / 'data.npz'}{named.removeprefix(name)}"
    array = source if is_table(source) else as_array(source)[0]
    if isinstance(array, np.ndarray) and not array.dtype.names and texts is None:
        write_arrays(place / "data.npy", {"x": array})
        return f"{path / 'data.npy'}{named.removeprefix('array')}"
    if "series" in options and texts is None:
        write_series(place / "data.parquet", source)
        return f"{path / 'data.parquet'}{named.removeprefix(name)}"
    if texts is not None:
        frame = Frame({"text": np.ma.MaskedArray(texts.lines.astype(str))})
    else:
        read = read_in_python(source, options)[1].splits["all"]
        if isinstance(read, np.ndarray):
            write_arrays(place / "data.npy", {"x": read})
            return f"{path / 'data.npy'}{named.removeprefix(name)}"
        frame = read
    with writing(place / "data.parquet") as part:
        tables.write_frame(part, frame, ".parquet")
    return f"{path / 'data.parquet'}{'' if texts is None else ':text=text'}"


def _store_annotated(place: Path, raw: Raw, options: Options, path: Path) -> str:
    """Write a matrix and its attributes to an .h5ad file; return the source that reads it."""
    matrix = raw.splits["all"]
    counts = isinstance(matrix, Sparse)
    write_annotated(
        place / "data.h5ad", matrix, matrix.names if counts else (), raw.attributes["all"]
    )
    kept = {k: v for k, v in options.items() if k not in ("array", "var_names")}
    return as_source(str(path / "data.h5ad"), kept if counts else {"kind": "real", **kept})


def model_record(model: Model, config: Mapping[str, Json]) -> dict[str, Json]:
    """Return config.json: the configuration of a model.

    Args:
        model: the model.
        config: the options of the run.

    >>> import vaestro as vs
    >>> from vaestro.options import defaults
    >>> model = vs.build(vs.load(np.eye(40, dtype="uint8")).space, latent=2)
    >>> model_record(model, defaults() | {"latent": 2})["model"]["latent"]
    2
    """
    return {
        "vaestro": vaestro.__version__,
        "format": FORMAT,
        "model": {k: config[k] for k in names("model") if config[k] is not None},
        "space": model.space.scalars(),
        "given": None if model.given is None else model.given.scalars(),
    }


def environment(training: Training) -> dict[str, Json]:
    """Return environment.json: the machine and the time of a run.

    >>> import vaestro as vs
    >>> data = vs.load(np.eye(40, dtype="uint8"))
    >>> training = vs.training(vs.build(data.space, latent=2), vs.Objective(), data, steps=1)
    >>> environment(training)["processes"]
    1
    """
    return {
        **machine(),
        "numpy": np.__version__,
        "trained_on": str(training.device),
        "cores": os.cpu_count(),
        "processes": count(),
        "begun": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def machine() -> dict[str, str]:
    """Return this machine and the versions of the libraries.

    >>> sorted(machine())
    ['device', 'python', 'system', 'torch', 'vaestro']
    """
    return {
        "vaestro": vaestro.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"cpu, {torch.get_num_threads()} threads",
        "system": f"{platform.system()} {platform.machine()}",
    }
