"""Read and write the JSON files and arrays of a run's folder, without torch.

Each file is checked against its row in `vaestro.schemas`. An evaluation has the hash of its own
fields and of its arrays.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from vaestro.files import Json, refuse_newer
from vaestro.schemas import SCHEMAS, fault, schema_of
from vaestro.storage import write_text
from vaestro.text import InputError

if TYPE_CHECKING:
    import numpy as np


class Damaged(InputError):
    """Report a file of a run that is incomplete, changed, or of another form."""


def read_record(path: Path) -> dict[str, Json] | None:
    """Return the object of a JSON file of a run; None if there is no file.

    Raises:
        Damaged: it is not JSON, has other fields than its schema, or another hash.
        InputError: a later version of the program wrote it.

    >>> write_record(Path("kept.json"), {"step": 3, "why": "the best"})
    >>> read_record(Path("kept.json"))
    {'step': 3, 'why': 'the best'}
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    schema = schema_of(path.name)
    try:
        value = json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"it is not JSON: {str(error).splitlines()[0]}") from error
    if path.name == "config.json" and isinstance(value, dict):
        refuse_newer(path, value)
    if wrong := fault(value, schema.fields):
        raise _damaged(path, wrong)
    if "sha256" in value and value["sha256"] != _hash(value):
        raise _damaged(path, "its hash is another one, so it was changed after it was written")
    record: dict[str, Json] = value
    return record


def read_object(path: Path) -> dict[str, Json] | None:
    """Return the object of a JSON file of a run; None if the file is missing or damaged.

    >>> read_object(Path("nowhere/kept.json")) is None
    True
    """
    try:
        return read_record(path)
    except (Damaged, OSError):
        return None


def write_record(path: Path, record: Mapping[str, Json], *, arrays: Path | None = None) -> None:
    """Write an object to a JSON file of a run.

    Args:
        path: the file, whose name is in `vaestro.schemas`.
        record: the object.
        arrays: a file that belongs to it. If it is given, the record contains its hash, and one of
            its own fields.

    >>> write_record(Path("failure.json"), {"step": 2, "reason": "the loss is not finite"})
    """
    if arrays is not None:
        record = {**record, "arrays_sha256": file_sha256(arrays)}
        record = {**record, "sha256": _hash(record)}
    wrong = fault(json.loads(json.dumps(record)), schema_of(path.name).fields)
    assert not wrong, f"{path.name}: {wrong}"
    write_text(path, json.dumps(record, indent=1) + "\n")


def read_log(path: Path) -> tuple[list[dict[str, Json]], list[int]]:
    """Return the objects of metrics.jsonl, and the numbers of damaged lines, which are left out. An
    incomplete last line, which a killed process leaves, is not counted as damaged.

    >>> _ = Path("metrics.jsonl").write_text('{"split": "train", "step": 1}\\n?\\n{"spl')
    >>> read_log(Path("metrics.jsonl"))
    ([{'split': 'train', 'step': 1}], [2])
    """
    fields = schema_of("metrics.jsonl").fields
    lines, damaged = [], []
    *whole, last = path.read_bytes().split(b"\n") if path.exists() else [b""]
    for number, text in enumerate([*whole, last] if last else whole, 1):
        try:
            value = json.loads(text.decode())
        except (ValueError, RecursionError):
            value = None
        if not fault(value, fields):
            lines.append(value)
        elif number <= len(whole):
            damaged.append(number)
    return lines, damaged


def log_faults(path: Path) -> list[str]:
    """Return a sentence on the damaged lines of metrics.jsonl, if there are any.

    >>> log_faults(Path("nowhere/metrics.jsonl"))
    []
    """
    damaged = read_log(path)[1]
    some = ", ".join(map(str, damaged[:5])) + (", .." if len(damaged) > 5 else "")
    lines = "line" if len(damaged) == 1 else "lines"
    verb = "is" if len(damaged) == 1 else "are"
    return [f"{path}: {lines} {some} {verb} damaged and left out"] if damaged else []


def read_arrays(path: Path, record: Mapping[str, Json] | None = None) -> dict[str, np.ndarray]:
    """Return the arrays of an .npz file of a run by name.

    Args:
        path: the file.
        record: the object of the JSON file with which it was written; its hash is checked if the
            object has one.

    Raises:
        Damaged: the file is missing, or it is not the one that was written.

    >>> import numpy as np
    >>> np.savez("diagnosis.npz", rate=[1.0])
    >>> read_arrays(Path("diagnosis.npz"))
    {'rate': array([1.])}
    """
    import numpy as np

    expected = (record or {}).get("arrays_sha256")
    try:
        if expected is not None and file_sha256(path) != expected:
            raise _damaged(path, f"it is not the file that {path.stem}.json was written with")
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except Damaged:
        raise
    except (
        *(OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, SyntaxError),
        *(NotImplementedError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error),
    ) as error:
        reason = "it is missing" if isinstance(error, FileNotFoundError) else "it cannot be read"
        raise _damaged(path, reason) from error


def file_sha256(path: Path) -> str:
    """Return the hash of a file.

    >>> _ = Path("a.txt").write_text("a")
    >>> file_sha256(Path("a.txt"))[:8]
    'ca978112'
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _damaged(path: Path, reason: str) -> Damaged:
    """Return the error on a damaged file, with what to do."""
    name = path.with_suffix(".json").name
    remedies = [s.remedy for s in SCHEMAS if fnmatch(name, s.file)]
    remedy = (remedies or [""])[0].replace("RUN", str(path.parent))
    return Damaged(f"{path} is damaged: {reason}" + (f" ({remedy})" if remedy else ""))


def _hash(record: Mapping[str, Json]) -> str:
    """Return the hash of all fields but the hash."""
    others = {k: v for k, v in record.items() if k != "sha256"}
    return hashlib.sha256(json.dumps(others, sort_keys=True).encode()).hexdigest()
