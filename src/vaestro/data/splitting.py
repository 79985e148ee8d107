"""Split data into training, validation and test rows."""

from __future__ import annotations

from vaestro.data.images import is_image
from vaestro.data.opening import Opened
from vaestro.data.passes import Part
from vaestro.data.source_options import as_source
from vaestro.text import InputError

SPLITS = ("train", "valid", "test")
PIECES = {"crops": 1000, "size": 32}  # of one image, in a hint


def split(opened: Opened) -> tuple[dict[str, Part], list[str]]:
    """Return the three splits, and a note on how they were drawn.

    A source without its own splits is split at random into 90 % for training and 5 % each for
    validation and test, unless its options give other numbers of rows.

    Raises:
        ValueError: there are too few rows, or an option contradicts the splits of the source.

    >>> from vaestro.data.opening import open_source
    >>> splits, notes = split(open_source("shapes:n=100,size=16"))
    >>> [len(part) for part in splits.values()], notes
    ([90, 5, 5], ['split by seed 0'])
    """
    name, options, parts = opened.name, opened.options, opened.parts
    missing = list(SPLITS) if "all" in parts else [s for s in ("valid", "test") if s not in parts]
    _check(opened, parts, missing)
    if not missing:
        return {s: parts[s] for s in SPLITS}, []
    own = "all" if "all" in parts else "train"
    whole = parts.pop(own)
    n, most = len(whole), opened.container.most_held_out
    usual = min(n if most is None else most, max(1, round(0.05 * n)))
    sizes: dict[str, int] = {s: options.get(s, usual) for s in ("valid", "test") if s in missing}
    if n >= 10 and n - sum(sizes.values()) < 1:
        held_out = " + ".join(f"{split}={size}" for split, size in sizes.items())
        raise InputError(
            f"{held_out} leaves no training rows, because {name} has {n:,} rows: use smaller "
            f"numbers"
        )
    record = opened.raw.series
    if n < 10:
        noun = "rows" if record is None else "series or windows"
        one = n == 1 and opened.container.name == "arrays"
        hint = " (a single image or series is one row: cut it into pieces)" if one else ""
        if is_image(name):
            hint = f": cut the image into pieces with {as_source(name, PIECES)}"
        if record is not None:
            hint = ": cut series into (more) windows with window=N,stride=M"
        raise ValueError(
            f"expected at least 10 {noun}, to split them into training, validation and test; got "
            f"{n} in {name}{hint}"
        )
    seed = options.get("seed", 0)
    if record is not None and record.windows:
        index, note = record.windows[own].divide(sizes, seed, name)
        parts |= {s: whole.chosen(rows) for s, rows in index.items()}
        return {s: parts[s] for s in SPLITS}, [note]
    parts |= opened.container.divide(whole, sizes, seed)
    return {s: parts[s] for s in SPLITS}, [f"split by seed {seed}"]


def _check(opened: Opened, parts: dict[str, Part], missing: list[str]) -> None:
    """Raise ValueError if an option would draw a split that the source already has."""
    name, options = opened.name, opened.options
    fixed: list[str]
    if name == "mnist":  # `valid` is an option of its reader
        fixed = [k for k in ("test", "seed") if k in options]
    else:
        fixed = [
            k
            for k in ("valid", "test", "seed")
            if k in options
            and ((k == "seed" and not missing) or k in parts)
            and not (k == "seed" and "crops" in options)  # pieces are drawn by it
        ]
    if fixed:
        raise InputError(f"{name} has its own splits: leave out {fixed[0]}={options[fixed[0]]}")
