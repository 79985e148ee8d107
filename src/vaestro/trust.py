"""Code that files name, and whether it may run.

A run's config.yaml and config.json, and a file for `--config`, may name code as `module:object`. An
import runs the module, so nothing is imported before the user has trusted the file: with `--trust`,
or by a record of the runs that this user trained. A record lies outside of the run's folder, under
the user's state directory, and its name is a hash of the contents of both files. This module does
not import torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import PathFinder
from pathlib import Path

from vaestro.files import Json
from vaestro.options import names
from vaestro.records import read_object
from vaestro.storage import write_text
from vaestro.text import InputError, parse
from vaestro.user_code import folder_of, import_module


class Untrusted(InputError):
    """Report code that a file names and that the user has not trusted.

    Args:
        code: the names, module:object.
        file: the file that names them.
        why: the reason that a record of trust does not apply, if there is one.

    Example:
        >>> str(Untrusted(["os:abort"], Path("run/config.yaml")))
        'expected code that you trust; got os:abort in run/config.yaml (trust=True runs it)'
    """

    def __init__(self, code: Sequence[str], file: Path, why: str = "") -> None:
        self.reason = f"expected code that you trust; got {', '.join(code)} in {file}{why}"
        super().__init__(f"{self.reason} (trust=True runs it)")


def named_code(options: Mapping[str, Json]) -> list[str]:
    """Return every module:object that options of training or of a model name.

    Args:
        options: by name, as a file has them; values are texts, numbers, or lists of these.

    Example:
        >>> named_code({"encoder": "my_nets:Encoder:width=3", "prior": "normal", "latent": 2})
        ['my_nets:Encoder']
    """
    data = names("data")
    code: list[str] = []
    for option, value in options.items():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and option not in data:
                try:
                    name = parse(text).name
                except ValueError:
                    continue  # `find` refuses it for the same reason
                if ":" in name and name not in code:
                    code.append(name)
    return code


def permit(
    options: Mapping[str, Json], file: Path, *, trust: bool, run: Path | None = None
) -> None:
    """Return if the code that options of a file name may run, and raise an error otherwise.

    Modules of a run with a record are imported from the folders in which they were when the run was
    trained, and not from the current folder.

    Args:
        options: by name, as the file has them.
        file: the file.
        trust: whether the user trusts the file.
        run: the folder of the run that the file belongs to, if there is one.

    Raises:
        Untrusted: the code may not run; nothing was imported.

    Example:
        >>> permit({"prior": "normal"}, Path("run/config.yaml"), trust=False)
    """
    code = named_code(options)
    if trust or not code:
        return
    folders = {} if run is None else _recorded(run)
    for module in dict.fromkeys(map(_top, code)):
        if module not in folders:
            raise Untrusted(code, file)
        if not _available(module, folders[module]):
            raise Untrusted(code, file, f", which is no longer in {folders[module]}")


def remember(options: Mapping[str, Json], yaml: str, config: str, run: Path) -> str | None:
    """Record that this user trained a run, if it names code.

    Args:
        options: of the run.
        yaml, config: the texts of config.yaml and config.json.
        run: its folder, for information only.

    Returns:
        A note if the record cannot be written; the run's code then needs `--trust`.

    Example:
        >>> remember({"prior": "normal"}, "prior: normal", "{}", Path("run")) is None
        True
    """
    code = named_code(options)
    if not code:
        return None
    record = {
        "code": code,
        "run": os.path.abspath(run),
        "folders": {module: folder_of(module) for module in map(_top, code)},
    }
    try:
        file = records() / f"{_hash(yaml.encode(), config.encode())}.json"
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_text(file, json.dumps(record) + "\n")
    except (OSError, RuntimeError) as error:
        return (
            f"this run names code ({', '.join(code)}), and no record of trust can be written: "
            f"{' '.join(str(error).split())}. Its commands need --trust"
        )
    return None


def records() -> Path:
    """Return the folder of the records, $XDG_STATE_HOME/vaestro/trust or
    ~/.local/state/vaestro/trust.

    Raises:
        RuntimeError: there is no home directory.

    Example:
        >>> records().parts[-2:]
        ('vaestro', 'trust')
    """
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    # A relative path would be in the current folder, which may have been received.
    base = state if state.is_absolute() else Path.home() / ".local" / "state"
    return base / "vaestro" / "trust"


def _recorded(run: Path) -> dict[str, str]:
    """Return the folder of each module of a run with a record; {} without a record."""
    try:
        contents = (run / "config.yaml").read_bytes(), (run / "config.json").read_bytes()
        file = records() / f"{_hash(*contents)}.json"
        if sys.platform != "win32" and file.stat().st_uid != os.geteuid():
            return {}
    except (OSError, RuntimeError):
        return {}
    folders = (read_object(file) or {}).get("folders")
    return {k: str(v) for k, v in folders.items()} if isinstance(folders, dict) else {}


def _hash(yaml: bytes, config: bytes) -> str:
    """Return the hash of the contents of config.yaml and config.json."""
    return hashlib.sha256(b"%d\n%b%b" % (len(yaml), yaml, config)).hexdigest()


def _top(name: str) -> str:
    """Return the first part of the module in module:object."""
    return name.partition(":")[0].partition(".")[0]


def _available(module: str, folder: str) -> bool:
    """Import a module from a folder, and return whether it is there. Modules that are imported
    already are kept."""
    if module not in sys.modules:
        if not folder or PathFinder.find_spec(module, [folder]) is None:
            return False
        import_module(module, folder)
    return True
