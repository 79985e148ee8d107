"""Read data that lie in many files: WebDataset's .tar, and Parquet; on this machine, or wherever
fsspec reaches.

The shards are indexed once: where each row lies, in which block of rows that are read together, and
what else is known of it. Then any rows can be read, and which are read when follows from a seed and
a step, and not from what was read before.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vaestro.data import images, tables
from vaestro.text import one_line

SUFFIXES = (".tar", ".parquet")
PACKED = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")
SPLIT = re.compile(
    r"(?:^|[-_.])(train(?:ing)?|valid(?:ation)?|val|test)(?=[-_.\d]|$)", re.IGNORECASE
)
DEPTH = 2  # folders below the named one in which shards are looked for
# what the datasets library writes into a folder
SAVED = ("dataset_info.json", "dataset_dict.json", "state.json")


# -- files, here and elsewhere ---------------------------------------------------------------------


def remote(path: str) -> bool:
    """Tell whether a path is an address."""
    return "://" in path


def rooted(name: str) -> Path:
    """Return the place of a source that its cache's keys begin with."""
    return Path("/") if remote(name) or name.startswith("hf:") else Path(name).expanduser()


def _fsspec() -> Any:
    try:
        import fsspec
    except ImportError as error:
        raise ValueError(
            "expected the extra vaestro[hub] to read data from elsewhere; got an installation "
            "without it"
        ) from error
    return fsspec


def _system(path: str) -> tuple[Any, str]:
    """Return what reads an address, and the place within it.

    Raises:
        ValueError: nothing that is installed reads it.
    """
    try:
        system, inside = _fsspec().core.url_to_fs(path)
    except (ImportError, ValueError) as error:
        raise ValueError(
            f"expected an address that fsspec reads with what is installed; got {path} "
            f"({one_line(error)})"
        ) from error
    return system, inside


def open_file(path: str) -> Any:
    """Open a file for reading."""
    if not remote(path):
        return open(path, "rb")
    system, inside = _system(path)
    return system.open(inside, "rb")


def stamp(path: str, file: Any = None) -> str:
    """Say which state of a file this is: its size and time, or what its system calls its
    version."""
    if not remote(path):
        stat = os.fstat(file.fileno()) if file is not None else os.stat(path)
        return f"{stat.st_size} {stat.st_mtime_ns}"
    system, inside = _system(path)
    try:
        info = system.info(inside)
    except FileNotFoundError as error:
        raise ValueError(f"expected a shard at {path}; got none there") from error
    known = [
        info.get(k) for k in ("size", "ETag", "etag", "blob_id", "mtime", "LastModified", "created")
    ]
    return " ".join(str(v) for v in known if v is not None)


def _braces(name: str) -> list[str]:
    """Return the names that {0000..0099} and {a,b} stand for."""
    found = re.search(r"\{([^{}]*)\}", name)
    if not found:
        return [name]
    span = re.fullmatch(r"(\d+)\.\.(\d+)", found[1])
    if span:
        width, low, high = len(span[1]), int(span[1]), int(span[2])
        words = [f"{i:0{width}d}" for i in range(low, high + 1)]
    else:
        words = found[1].split(",")
    return [
        one for word in words for one in _braces(name[: found.start()] + word + name[found.end() :])
    ]


def is_shards(name: str) -> bool:
    """Tell whether a source is shards: an address, a pattern, a .tar, or a folder with shards and
    no images."""
    if remote(name):
        return True
    path = Path(name).expanduser()
    if path.is_dir():
        return bool(_below(str(path)))
    if path.exists():
        return path.name.lower().endswith((".tar", *PACKED))
    return bool(re.search(r"[*?{]", name)) and Path(name).suffix.lower() in SUFFIXES


def _below(folder: str, depth: int = DEPTH) -> list[str] | None:
    """Return the shards below a folder in order; None where there is an image, or what the datasets
    library saved."""
    found: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            suffix = os.path.splitext(entry.name)[1].lower()
            if entry.name.startswith("."):
                continue
            if suffix in images.SUFFIXES or entry.name in SAVED:
                return None
            if entry.is_dir():
                below = _below(entry.path, depth - 1) if depth else []
                if below is None:
                    return None
                found += below
            elif suffix in SUFFIXES or entry.name.lower().endswith(PACKED):
                found.append(entry.path)
    return sorted(found)


def listed(name: str) -> list[str]:
    """Return the shards of a source in order.

    Raises:
        ValueError: there are none.
    """
    if remote(name):
        system, _ = _system(name)
        found = []
        for one in _braces(name):
            inside = system._strip_protocol(one)
            if re.search(r"[*?]", one):
                found += [system.unstrip_protocol(p) for p in sorted(system.glob(inside))]
            elif not one.lower().endswith(SUFFIXES) and system.isdir(inside):
                below = system.find(inside, maxdepth=DEPTH + 1)
                found += [
                    system.unstrip_protocol(p)
                    for p in sorted(below)
                    if p.lower().endswith(SUFFIXES)
                ]
            else:
                found.append(one)
    elif (path := Path(name).expanduser()).is_dir():
        found = _below(str(path)) or []
    elif path.exists():
        found = [str(path)]
    else:
        found = [
            one
            for word in _braces(str(path))
            for one in (sorted(glob.glob(word)) if re.search(r"[*?]", word) else [word])
        ]
        absent = [one for one in found if not os.path.exists(one)]
        if absent:
            raise ValueError(
                f"expected the shards {name}; got no {absent[0]}"
                + (f" and {len(absent) - 1:,} more" if absent[1:] else "")
            )
    if not found:
        raise ValueError(f"expected shards ({', '.join(SUFFIXES)}) in {name}; got none")
    packed = [one for one in found if one.lower().endswith(PACKED)]
    if packed:
        raise ValueError(
            f"expected .tar files as they are, in which any row can be read; got {packed[0]} "
            f"(unpack it to .tar)"
        )
    kinds = {os.path.splitext(one)[1].lower() for one in found}
    if wrong := kinds - set(SUFFIXES):
        raise ValueError(
            f"expected shards ({', '.join(SUFFIXES)}) in {name}; got "
            f"{min(wrong) or 'a file without a suffix'}"
        )
    if len(kinds) > 1:
        raise ValueError(
            f"expected shards of one kind in {name}; got {' and '.join(sorted(kinds))}"
        )
    return found


def _split_of(path: str, root: str) -> str:
    """Return the split that a shard's name, or that of a folder that it lies in, speaks of; nothing
    if there is none."""
    inside = path[len(root) :] if path.startswith(root) else os.path.basename(path)
    for part in reversed([p for p in inside.replace(os.sep, "/").split("/") if p]):
        if found := SPLIT.search(part):
            return tables.SPLITS[found[1].lower()]
    return ""


def by_split(files: Sequence[str], name: str) -> dict[str, list[str]]:
    """Return shards by the split that their names speak of, or all of them as "all".

    Raises:
        ValueError: some names speak of a split and others do not, or there are none to train on.
    """
    root = (
        ""
        if remote(name)
        else str(Path(name).expanduser())
        if Path(name).expanduser().is_dir()
        else ""
    )
    known = {file: _split_of(file, root) if root or len(files) > 1 else "" for file in files}
    if not any(known.values()):
        return {"all": list(files)}
    unsure = [file for file, split in known.items() if not split]
    if unsure:
        raise ValueError(
            f"expected train, valid or test in the name of every shard of {name}, or of none; "
            f"got {unsure[0]}"
        )
    made = {s: [f for f in files if known[f] == s] for s in ("train", "valid", "test")}
    if not made["train"]:
        raise ValueError(
            f"expected shards to train on in {name}; got "
            f"{' and '.join(s for s, held in made.items() if held)} alone"
        )
    there = {s: held for s, held in made.items() if held}
    return {"all": there["train"]} if len(there) == 1 else there
