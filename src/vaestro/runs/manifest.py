"""The files of a run's folder that Vaestro wrote, as opposed to the user's own.

RUN/manifest.txt has a name on each line. A name is added before its file is written. Only these
names are removed with a run, and only if they are names of files of a run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from vaestro.locks import Lock
from vaestro.storage import append, clear_leftovers, remove

MANIFEST = "manifest.txt"
# of training; of the files that judge a run; of the training of a diffusion model
LOCK, RESULTS_LOCK, DIFFUSION_LOCK = "lock", "results-lock", "diffusion-lock"
WAIT_SECONDS = 60.0
# the files that training may write, and the folders of checkpoints and of pieces of an evaluation
TRAINING = (
    "config.yaml",
    "config.json",
    "metrics.jsonl",
    "data.json",
    "environment.json",
    "model.safetensors",
    "kept.json",
    "failure.json",
    "checkpoints",
    "evaluating",
)
# patterns of all files of a run; versions without a manifest wrote the first ones alone
FORMER = (
    *TRAINING,
    "evaluation.json",
    "evaluation.npz",
    "diagnosis.json",
    "diagnosis.npz",
    "gradients.json",
    "gradients.png",
    "showcase.json",
    "showcase.npz",
)
FILES = (
    *FORMER,
    "data.npy",
    "data.npz",
    "data.parquet",
    "data.h5ad",
    "evaluation-*.json",
    "evaluation-*.npz",
    "samples.*",
    "samples-before.*",
    "samples-after.*",
    "report.html",
    "probes.json",
    "units.json",
    "disentanglement.json",
    "diffusion",
)
_UNFINISHED = re.compile(r".+\.[0-9a-f]{8}\.(new|replaced)")
FOLDERS = {
    "checkpoints": ("step-*.safetensors",),
    "evaluating": ("*.npz",),
    "diffusion": ("diffusion.json", "*.safetensors", "metrics.jsonl", "samples.*"),
}
# temporary files of earlier versions, and of safetensors
LEFTOVERS = (
    r"\.tmp[0-9A-Za-z]{6}|"
    r"(step-\d+|model)\.safetensors\.part|"
    r"(config|kept|data|environment|failure|evaluation|diagnosis|showcase)\.(json|yaml|npz)\.part"
)


def register(folder: Path, *names: str) -> None:
    """Add names to the manifest of a run, before their files are written. A folder without a
    manifest, of an earlier version, is left as it is.

    >>> _ = Path("manifest.txt").write_text("config.yaml\\n")
    >>> register(Path("."), "config.yaml", "evaluation.json")
    >>> Path("manifest.txt").read_text().split()
    ['config.yaml', 'evaluation.json']
    """
    if not (folder / MANIFEST).exists():
        return
    known = _lines(folder)
    if new := [name for name in names if name not in known]:
        append(folder / MANIFEST, "".join(f"{name}\n" for name in new))


def begin(folder: Path, names: tuple[str, ...]) -> None:
    """Create the manifest of a folder.

    >>> begin(Path("."), ("config.yaml",))
    >>> listed(Path("."))
    ['config.yaml']
    """
    append(folder / MANIFEST, "".join(f"{name}\n" for name in names))


@contextmanager
def results(folder: Path, *names: str) -> Iterator[None]:
    """Hold the lock of a run's results while files that belong together are written, and add their
    names to the manifest.

    Raises:
        ValueError: another process has had the lock for a minute.

    >>> with results(Path("."), "diagnosis.json", "diagnosis.npz"):
    ...     Path("results-lock").exists()
    True
    """
    with Lock(folder, RESULTS_LOCK, WAIT_SECONDS):
        clear_leftovers(folder, LEFTOVERS)
        register(folder, *names)
        yield


def listed(folder: Path) -> list[str]:
    """Return the names in a folder that Vaestro wrote.

    A folder without a manifest is a run of an earlier version, if it has the files that training
    always wrote: then only names that no user chooses are listed.

    >>> listed(Path("nowhere"))
    []
    """
    if (folder / MANIFEST).exists():
        lines = _lines(folder)
        return [n for n in dict.fromkeys(lines) if any(fnmatch(n, pattern) for pattern in FILES)]
    return list(FORMER) if is_former(folder) else []


def is_run(folder: Path) -> bool:
    """Return whether Vaestro made a folder.

    >>> is_run(Path("nowhere"))
    False
    """
    return (folder / MANIFEST).exists() or is_former(folder)


def is_former(folder: Path) -> bool:
    """Return whether a folder is a run of a version without a manifest.

    >>> is_former(Path("nowhere"))
    False
    """
    always = ("config.yaml", "config.json", "metrics.jsonl", "environment.json")
    return not (folder / MANIFEST).exists() and all((folder / name).is_file() for name in always)


def remove_listed(folder: Path) -> None:
    """Remove the files of a run from its folder, and no other files. The manifest stays.

    >>> folder = Path("old")
    >>> folder.mkdir()
    >>> begin(folder, ("metrics.jsonl",))
    >>> (folder / "metrics.jsonl").touch(), (folder / "mine.txt").touch()
    (None, None)
    >>> remove_listed(folder)
    >>> sorted(file.name for file in folder.iterdir())
    ['manifest.txt', 'mine.txt']
    """
    for name in listed(folder):
        path = folder / name
        if name not in FOLDERS:
            if path.is_file() or path.is_symlink():
                remove(path)
        elif path.is_dir():
            for pattern in FOLDERS[name]:
                for file in path.glob(pattern):
                    remove(file)
            if not path.is_symlink() and not any(path.iterdir()):
                path.rmdir()


def is_unfinished(path: Path) -> bool:
    """Return whether a folder is a temporary one of a writer.

    >>> is_unfinished(Path("runs/mine.0123abcd.new"))
    True
    """
    return _UNFINISHED.fullmatch(path.name) is not None


def _lines(folder: Path) -> list[str]:
    """Return the names in the manifest of a folder; an incomplete last line is left out."""
    text = (folder / MANIFEST).read_text(encoding="utf-8", errors="replace")
    return text.split("\n")[:-1]
