"""Limits of real values in an array: stated by `low=` and `high=`, or seen as a spike there.

A spike is a lowest or highest value that many cells have exactly, as in data that were clipped.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vaestro.data.passes import Part
from vaestro.data.raw import Options
from vaestro.spaces import Space, with_gaps

SHARE = 0.01  # smallest share of a spike,
TIMES = 5  # and how much more frequent it is than each of the values next to it
FEWEST = 50  # smallest number of values at a spike
SAMPLED = 2_000_000  # number of cells of the training split in which spikes are looked for
SIDES = ("low", "high")


def with_limits(
    space: Space, ends: tuple[float, float], train: Part, options: Options, name: str
) -> tuple[Space, Options, list[str]]:
    """Return the space of real values with its limits, the options of the source with them, and
    notes.

    Args:
        space: of the data.
        ends: the lowest and the highest value of all splits.
        train: the training split.
        options: of the source. `low` and `high` are numbers, or "none".
        name: of the source.

    Raises:
        ValueError: a value is outside of a limit, or the values are not real.
    """
    stated = {side: options[side] for side in SIDES if side in options}
    if not space.standardised:
        numbers = [f"{side}={value:g}" for side, value in stated.items() if value != "none"]
        if numbers:
            raise ValueError(
                f"expected real values for {','.join(numbers)}; got {space} (kind=real reads them "
                f"as real)"
            )
        return space, options, []
    own = np.dtype(space.dtype)
    limits: list[float | None] = []
    notes = []
    some = train.spread(max(100, SAMPLED // space.cells))
    rows = space.arranged(with_gaps(some.take(np.arange(len(some))), space.absent))
    for side, end in zip(SIDES, ends, strict=True):
        value = stated.get(side)
        if value == "none":
            limits.append(None)
        elif value is not None:
            limit = float(own.type(value))
            if end < limit if side == "low" else end > limit:
                raise ValueError(
                    f"expected values of {value:g} or {'more' if side == 'low' else 'less'} for "
                    f"{side}={value:g}; got {end:g} in {name} ({side}=none for no limit)"
                )
            limits.append(limit)
        else:
            share = _spike(rows, end, space)
            limits.append(end if share else None)
            if share:
                options = {**options, side: end}
                which, where = ("lowest", "below") if side == "low" else ("highest", "above")
                notes.append(
                    f"{share:.1%} of the values are {end:g}, the {which} one: it has a probability "
                    f"of its own, and no sample is {where} it "
                    f"({side}=none models a density)"
                )
    if limits == [None, None]:
        return space, options, notes
    return replace(space, limits=tuple(limits)), options, notes


def _spike(rows: np.ndarray, end: float, space: Space) -> float:
    """Return the share of values that equal the lowest or the highest value, if it is a spike in
    at least half of the channels, or columns of vectors; otherwise 0."""
    if rows.dtype.kind != "f":
        return 0.0
    at, seen = rows == end, ~np.isnan(rows)
    count, total = int(at.sum()), int(seen.sum())
    if count < max(FEWEST, SHARE * total) or total - count < FEWEST:
        return 0.0
    channel = 0 if len(space.shape) == 1 else space.layout.channel_axis
    if channel is not None:
        others = tuple(i for i in range(rows.ndim) if i != channel + 1)
        shares = at.sum(others) / np.maximum(seen.sum(others), 1)
        if (shares >= SHARE).mean() < 0.5:
            return 0.0
    rest = np.abs(rows[seen & ~at] - end)
    near = np.partition(rest, count - 1)[:count] if count < len(rest) else rest
    distinct, times = np.unique(near, return_counts=True)
    if len(distinct) < 2 or TIMES * int(times.max()) > count:
        return 0.0
    return count / total
