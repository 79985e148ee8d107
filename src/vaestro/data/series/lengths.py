"""The lengths of series in the training split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from vaestro.data.passes import Part, distinct, once
from vaestro.data.series.record import Record, ends_of
from vaestro.spaces import Space

if TYPE_CHECKING:
    from vaestro.data.containers.base import Inference

FLOOR = 1e-3  # share of the uniform distribution in the smoothed one


def described(inference: Inference, record: Record | None) -> Inference:
    """Return what was inferred from arrays; for series with their channels, table and lengths.

    Missing cells of an array are ends of series if most missing steps are at the end.

    Args:
        inference: from the container.
        record: how series were read; None for plain arrays.
    """
    space = inference.space
    if not space.layout.ends:
        return inference
    if record is not None:
        space = replace(space, names=record.names, long_table=record.table)
    notes = list(inference.notes)
    if space.missing:
        ends, empty = _ends(inference.parts, space)
        steps = space.shape[0]
        short = np.concatenate([steps - e for e in ends.values()])
        if short.any() and (record is not None or 2 * short.sum() > empty):
            train = ends["train"]
            space = replace(space, lengths=smoothed(train, steps))
            notes.append(
                f"series end after {train.min():,} to {train.max():,} steps: the length is "
                f"modelled given z; the bound is that of the values"
            )
    return replace(inference, space=space, notes=notes)


def _ends(parts: Mapping[str, Part[np.ndarray]], space: Space) -> tuple[dict[str, np.ndarray], int]:
    """Return the lengths of the series of each split, and the number of steps without a value."""
    wholes, empty = distinct(parts.values()), 0
    ends = {id(whole): np.zeros(len(whole), np.int64) for whole in wholes}

    def look(array: np.ndarray, start: int, rows: np.ndarray) -> None:
        nonlocal empty
        mask = space.seen(rows)
        seen = np.ones((len(rows), *space.shape), bool) if mask is None else mask
        ends[id(array)][start : start + len(rows)] = ends_of(seen)
        empty += int((~seen.reshape(*seen.shape[:2], -1).any(-1)).sum())

    once(wholes, look)
    return {
        s: ends[id(p.whole)] if p.index is None else ends[id(p.whole)][p.index]
        for s, p in parts.items()
        if len(p)
    }, empty


def smoothed(ends: np.ndarray, steps: int) -> np.ndarray:
    """Return a probability of each length 1 .. T for observed lengths (N,).

    It is a mixture of the frequencies and of a kernel estimate, whose weight is the share of
    lengths that occur once. This share estimates the probability of a new length (Good 1953).

    >>> smoothed(np.array([2, 2, 4, 4]), 4).round(2)
    array([0.03, 0.45, 0.06, 0.46])
    """
    lengths = np.arange(1, steps + 1)
    counts = np.bincount(np.clip(ends, 1, steps), minlength=steps + 1)[1:].astype(np.float64)
    width = max(1.0, 1.06 * float(np.std(ends)) * len(ends) ** -0.2)
    kernel = np.exp(-0.5 * ((lengths[:, None] - lengths) / width) ** 2)
    kernel /= kernel.sum(0)  # no mass beyond the ends
    wide = (1 - FLOOR) * kernel @ counts / counts.sum() + FLOOR / steps
    once_only = max(1.0, float((counts == 1).sum())) / (counts.sum() + 1)
    return np.asarray((1 - once_only) * counts / counts.sum() + once_only * wide)
