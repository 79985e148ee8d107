"""Series that are read for a run: with its options, channels and number of steps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vaestro.data.raw import Options, Raw
from vaestro.spaces import Space


def options_like(options: Options, like: Space | None) -> Options:
    """Return the options of a source with those with which the series of a run were read, unless
    the source has its own.

    Args:
        options: of the source.
        like: the space of the run; None without.

    >>> from vaestro.spaces import LAYOUTS, LongTable, RealSpace
    >>> table = LongTable("unit", "cycle", window=8, stride=8)
    >>> space = RealSpace((8, 1), (8, 1), layout=LAYOUTS["series"], long_table=table)
    >>> options_like({"seed": 1}, space)
    {'series': 'unit:cycle', 'window': 8, 'stride': 8, 'seed': 1}
    """
    if like is None or not like.layout.ends or options.get("series") is False:
        return options
    table = like.long_table
    return {**({"series": True} if table is None else table.options), **options}


def matched(raw: Raw, like: Space, name: str) -> Raw:
    """Return series in the shape of a run's: longer ones end after its number of steps.

    Args:
        raw: series (N, T) or (N, T, C).
        like: the space of the run.
        name: of the source, for the note.

    >>> from vaestro.spaces import RealSpace
    >>> raw = Raw({"all": np.zeros((2, 5))})
    >>> raw = matched(raw, RealSpace((3, 1), (3, 1)), "x.npz")
    >>> raw.splits["all"].shape, raw.notes
    ((2, 3, 1), ('2 of 2 series of x.npz are longer than the 3 steps of the run: cut off there',))
    """
    steps, longer, count = like.outside[0], 0, 0
    splits = {}
    for split, array in raw.splits.items():
        if array.ndim == 2 and len(like.outside) == 2:
            array = array[..., None]
        elif array.ndim == 3 and len(like.outside) == 1 and array.shape[2] == 1:
            array = array[..., 0]
        count += len(array)
        if array.shape[1] > steps:
            rest = array[:, steps:].reshape(len(array), -1)
            longer += int((~np.isnan(rest)).any(1).sum())
            array = array[:, :steps]
        splits[split] = array
    notes = raw.notes
    if longer:
        notes = (
            *notes,
            f"{longer:,} of {count:,} series of {name} are longer than the {steps:,} steps of the "
            f"run: cut off there",
        )
    return replace(raw, splits=splits, notes=notes)
