"""Read exact values of log p(x) from an .npz file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vaestro.comparison.evidence import Bound, Row
from vaestro.records import read_arrays
from vaestro.text import nearest, parse_path

MEASURES = ("counting", "lebesgue", "mixed")
UNITS = {"nats": 1.0, "bits": math.log(2)}
ARRAYS = ("log_px", "unit", "measure", "given", "data_sha256")
OPTIONS = ("unit", "measure", "given")


def read_exact(name: str, spec: str | Path) -> Row:
    """Read exact values: an .npz file with an array log_px (N,), and options after a colon.

    Args:
        name: name of the row.
        spec: FILE.npz, or FILE.npz:unit=bits,measure=counting,given=digit. The file may contain
            `unit`, `measure`, `given` and `data_sha256` as text. The unit is nats (default) or
            bits, per datum. Several conditions are joined as NAME+NAME.

    Raises:
        ValueError: the measure is not stated, or the file is not of this form.

    >>> np.savez("exact.npz", log_px=[-1.0, -3.0], measure="counting")
    >>> read_exact("oracle", "exact.npz").headline.mean()
    (-2.0, 1.0)
    """
    path, options = _parse(spec)
    arrays = read_arrays(path)
    for key in arrays:
        if key not in ARRAYS:
            raise ValueError(f"expected arrays among {', '.join(ARRAYS)} in {path}; got {key!r}")
    if "log_px" not in arrays:
        raise ValueError(f"expected an array log_px in {path}; got {', '.join(arrays) or 'none'}")
    facts = _facts(path, arrays, options)
    measure = facts["measure"]
    nats = _log_px(path, arrays["log_px"], measure) * UNITS[facts["unit"]]
    return Row(
        name,
        path,
        (Bound("exact", "exact", nats),),
        "",
        len(nats),
        facts.get("data_sha256", ""),
        "",
        "",
        measure,
        tuple(filter(None, facts.get("given", "").split("+"))),
        exact=True,
    )


def _parse(spec: str | Path) -> tuple[Path, dict[str, str]]:
    """Return the file and the options of a specification."""
    file, read = parse_path(str(spec))
    options = {key: str(value) for key, value in read.items()}
    for key in options:
        if key not in OPTIONS:
            raise ValueError(
                f"expected an option of exact values: {nearest(key, OPTIONS)}; got {key!r}"
            )
    path = Path(file).expanduser()
    if path.suffix != ".npz":
        raise ValueError(f"expected exact values in an .npz file with an array log_px; got {file}")
    if not path.is_file():
        raise ValueError(f"expected a file of exact values; got {file}, which does not exist")
    return path, options


def _facts(
    file: Path, arrays: Mapping[str, np.ndarray], options: Mapping[str, str]
) -> dict[str, str]:
    """Return unit, measure, conditions and hash, from the file and the options."""
    texts = {
        key: str(array.item()) if array.size == 1 else ""
        for key, array in arrays.items()
        if key != "log_px"
    }
    for key, value in options.items():
        if texts.setdefault(key, value) != value:
            raise ValueError(
                f"expected one {key} for {file}; got {value!r} as an option and {texts[key]!r} "
                f"in the file"
            )
    unit, measure = texts.setdefault("unit", "nats"), texts.get("measure")
    if unit not in UNITS:
        raise ValueError(f"expected unit to be one of {', '.join(UNITS)} for {file}; got {unit!r}")
    if measure is None:
        raise ValueError(
            f"expected the measure of {file}, as {file}:measure=counting (probabilities) or "
            f"measure=lebesgue; got none"
        )
    if measure not in MEASURES:
        raise ValueError(
            f"expected measure to be one of {', '.join(MEASURES)} for {file}; got {measure!r}"
        )
    return texts


def _log_px(file: Path, log_px: np.ndarray, measure: str) -> np.ndarray:
    """Return the checked values in their own unit, (N,) float64."""
    if log_px.ndim != 1 or not len(log_px) or log_px.dtype.kind not in "fiu":
        raise ValueError(
            f"expected log_px to be numbers (N,) in {file}; got {log_px.dtype} of shape "
            f"{log_px.shape}"
        )
    if not np.isfinite(log_px).all():
        raise ValueError(
            f"expected finite numbers in log_px of {file}; got "
            f"{int((~np.isfinite(log_px)).sum())} NaN or infinite"
        )
    if measure == "counting" and (log_px > 0).any():
        raise ValueError(
            f"expected logs of probabilities, 0 or less, in {file}; got {log_px.max():g} "
            f"(measure=lebesgue for densities)"
        )
    return log_px.astype(np.float64)
