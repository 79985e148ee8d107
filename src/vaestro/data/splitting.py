"""Split data into training, validation and test rows."""

from __future__ import annotations

from vaestro.data.opening import Opened
from vaestro.data.passes import Part

SPLITS = ("train", "valid", "test")


def split(opened: Opened) -> tuple[dict[str, Part], list[str]]:
    """Return the three splits, and a note on how they were made.

    A source without splits of its own is split 90 / 5 / 5 by seed, unless its options say how many
    rows are held out.

    Raises:
        ValueError: there are too few rows, or an option contradicts the splits of the source.
    """
    name, options, parts = opened.name, opened.options, opened.parts
    missing = list(SPLITS) if "all" in parts else [s for s in ("valid", "test") if s not in parts]
    _check(opened, parts, missing)
    if not missing:
        return {s: parts[s] for s in SPLITS}, []
    whole = parts.pop("all" if "all" in parts else "train")
    n, most = len(whole), opened.container.most_held_out
    usual = min(n if most is None else most, max(1, round(0.05 * n)))
    sizes: dict[str, int] = {s: options.get(s, usual) for s in ("valid", "test") if s in missing}
    if n >= 10 and n - sum(sizes.values()) < 1:
        held = " and ".join(map(str, sizes.values()))
        raise ValueError(
            f"expected valid and test to leave data for training; got {held} of {n} in {name}"
        )
    if n < 10:
        raise ValueError(
            f"expected at least 10 data to split into training, validation and test; got {n} in "
            f"{name}"
        )
    seed = options.get("seed", 0)
    parts |= opened.container.divide(whole, sizes, seed)
    return {s: parts[s] for s in SPLITS}, [f"split by seed {seed}"]


def _check(opened: Opened, parts: dict[str, Part], missing: list[str]) -> None:
    """Raise ValueError if an option says how to make a split that the source already has."""
    name, options = opened.name, opened.options
    fixed: list[str]
    if name == "mnist":  # `valid` says where its training images are cut
        fixed = [k for k in ("test", "seed") if k in options]
    else:
        fixed = [
            k
            for k in ("valid", "test", "seed")
            if k in options and ((k == "seed" and not missing) or k in parts)
        ]
    if fixed:
        raise ValueError(
            f"expected no {fixed[0]}= for {name}, which brings its own splits; got "
            f"{fixed[0]}={options[fixed[0]]}"
        )
