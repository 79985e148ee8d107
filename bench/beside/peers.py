"""Environments of the packages that Vaestro is compared with."""

from __future__ import annotations

import subprocess
import venv
from pathlib import Path

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"


def python_with(package: str, folder: Path | None = None) -> Path:
    """Return the interpreter of an environment with a package, which is made if it does not exist.

    Args:
        package: its name. Versions that constraints.txt pins are those of Vaestro.
        folder: of the environment; by default one for the package under ~/.cache.
    """
    folder = folder or Path.home() / ".cache" / f"vaestro-beside-{package}"
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        install = [str(python), "-m", "pip", "install", "-q", "-c", str(CONSTRAINTS), package]
        subprocess.run(install, check=True)
    return python
