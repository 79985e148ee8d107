"""Padded arrays of series, windows of them, and the record of how they were read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

import numpy as np

from vaestro.data.raw import Options
from vaestro.data.series.windows import Windows, starts_of
from vaestro.data.source_options import options_about
from vaestro.spaces import LongTable, Space


@final
@dataclass(frozen=True, eq=False)
class Record:
    """Hold how series were read.

    Args:
        names: of the channels; none if they are not known.
        table: the long table; None for other sources.
        windows: the windows of each split; none if series are whole.
        used: options of the source that the reader has used.

    >>> Record(used=("window",)).left({"window": 8, "kind": "real"})
    {'kind': 'real'}
    """

    names: tuple[str, ...] = ()
    table: LongTable | None = None
    windows: Mapping[str, Windows] = field(default_factory=dict)
    used: tuple[str, ...] = ()

    def left(self, options: Options) -> Options:
        """Return the options that the reader has not used."""
        used = (*self.used, *options_about("files"))
        return {name: value for name, value in options.items() if name not in used}

    def resolved(self, options: Options, missing: bool) -> Options:
        """Return the options with the columns that were recognised, and with NaN as a missing value
        if there are some."""
        resolved = dict(options)
        if self.table is not None:
            resolved |= self.table.options
        elif not options.get("series", False):
            resolved["series"] = True
        if missing and "nan" not in str(options.get("missing", "nan")).split("+"):
            resolved["missing"] = f"nan+{options['missing']}"
        return resolved


@final
@dataclass(frozen=True, eq=False)
class Cut:
    """Hold whole series, or windows of them.

    Args:
        values: arrays (T, C) or (T,), each with NaN in missing cells.
        series: the number of the series of each array, (N,).
        start: the first step of each array within its series, (N,).

    >>> cut = Cut([np.arange(6.0)], np.zeros(1, int), np.zeros(1, int)).into(4, 2)
    >>> padded_values(cut.values).tolist(), cut.start.tolist()
    ([[0.0, 1.0, 2.0, 3.0], [2.0, 3.0, 4.0, 5.0]], [0, 2])
    """

    values: Sequence[np.ndarray]
    series: np.ndarray
    start: np.ndarray

    def into(self, window: int, stride: int) -> Cut:
        """Return the windows of the series; windows without a value are left out."""
        places = [
            (i, int(first))
            for i, values in enumerate(self.values)
            for first in starts_of(len(values), window, stride)
        ]
        cut = [self.values[i][first : first + window] for i, first in places]
        kept = [k for k, values in enumerate(cut) if not np.isnan(values).all()]
        at = np.array([places[k] for k in kept], np.int64).reshape(-1, 2)
        return Cut([cut[k] for k in kept], self.series[at[:, 0]], self.start[at[:, 0]] + at[:, 1])

    def record(self, window: int, noun: str = "series") -> Windows:
        """Return the windows for their division into splits."""
        return Windows(self.series, self.start, window, noun)


def padded_values(values: Sequence[np.ndarray], length: int = 0) -> np.ndarray:
    """Return series (T, ...) of different lengths as an array (N, longest, ...), with NaN after the
    end of shorter ones.

    Args:
        values: the series, of one dtype, with the same channels.
        length: the least number of steps of the array.

    >>> padded_values([np.zeros(2), np.ones(1)]).tolist()
    [[0.0, 0.0], [1.0, nan]]
    """
    longest = max(length, *(len(v) for v in values))
    whole = np.full((len(values), longest, *values[0].shape[1:]), np.nan, values[0].dtype)
    for row, one in zip(whole, values, strict=True):
        row[: len(one)] = one
    return whole


def ends_of(observed: np.ndarray) -> np.ndarray:
    """Return the number of steps up to the last one with an observed cell, (N,).

    Args:
        observed: mask of the observed cells, (N, T) or (N, T, C).

    >>> ends_of(np.array([[True, False, True, False], [False] * 4])).tolist()
    [3, 0]
    """
    steps = np.asarray(observed.reshape(*observed.shape[:2], -1).any(-1))
    return np.where(steps.any(1), steps.shape[1] - steps[:, ::-1].argmax(1), 0)


def ended(values: np.ndarray, ends: np.ndarray, space: Space) -> np.ndarray:
    """Return series (N, *outside) with NaN after their ends (N,); whole numbers become floats.

    >>> from vaestro.spaces import LAYOUTS, RealSpace
    >>> space = RealSpace((2, 1), (2,), layout=LAYOUTS["series"])
    >>> ended(np.array([[1, 2], [3, 4]]), np.array([2, 1]), space).tolist()
    [[1.0, 2.0], [3.0, nan]]
    """
    steps = (np.arange(space.shape[0]) < ends[:, None]).reshape(len(values), -1, 1)
    there = space.outward_mask(np.broadcast_to(steps, (len(values), *space.shape)))
    dtype = values.dtype if values.dtype.kind == "f" else np.dtype(np.float64)
    return np.where(there, values, np.nan).astype(dtype)
