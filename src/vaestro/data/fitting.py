"""Fit a space of arrays to the training split: frequencies, means, offsets, scales and grids."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import final

import numpy as np

from vaestro.data.lattices import Lattice, lattice
from vaestro.data.passes import Part, RowSelector, once, piece
from vaestro.data.raw import Options
from vaestro.spaces import LevelsSpace, Space, missing_cells, widths, with_gaps

COUNTED = 200_000_000  # cells from which frequencies are counted
SAMPLED = 2_000_000  # cells of the training split from which grids are found
FEWER = 100_000  # the same beside limits, where no value repeats as often as the limit
LARGEST = 1e30  # of real values, in size
LEAST_SPREAD = 1e-12  # standard deviation of a cell that varies, relative to its mean


def grey_levels(array: np.ndarray, space: Space) -> np.ndarray:
    """Return 8-bit grey levels inside, to be binarised."""
    return space.converted(LevelsSpace, levels=256, low=0.0, step=1.0).inward(array)


class Fit(ABC):
    """Fit a space to groups of rows of the training split."""

    def __init__(self, space: Space, train: Part) -> None:
        self.space, self.train = space, train

    def picks(self) -> list[RowSelector]:
        """Return the rows that `look` is called with."""
        return [RowSelector(self.train, piece(self.train.whole), self.look)]

    @abstractmethod
    def look(self, rows: np.ndarray) -> None: ...

    @abstractmethod
    def fitted(self) -> tuple[Space, list[str]]:
        """Return the fitted space, and notes."""


def fit_of(space: Space, train: Part, options: Options) -> Fit:
    """Return the fit for a space of this kind to the training split."""
    if not space.discrete:
        window = options.get("window", 1)
        overlap = -(-window // max(1, options.get("stride", window)))
        return _Real(space, train, options.get("standardise"), overlap)
    # a decoder only starts at the frequencies, so a part of the rows is enough
    train = train.spread(max(1000, COUNTED // max(1, train.whole[:1].size)))
    if options.get("binarise", "none") != "none":
        return _Grey(space, train)
    return (_Means if space.marginal_is_mean else _Frequencies)(space, train)


@final
class _Grey(Fit):
    """Fit probabilities of a one to 8-bit levels that are binarised."""

    def __init__(self, space: Space, train: Part) -> None:
        super().__init__(space, train)
        self.total = np.zeros(space.shape)

    def look(self, rows: np.ndarray) -> None:
        self.total += grey_levels(rows, self.space).sum(0, dtype=np.float64)

    def fitted(self) -> tuple[Space, list[str]]:
        return replace(
            self.space, marginal=np.asarray(self.total / (255 * len(self.train)), np.float32)
        ), []


@final
class _Means(Fit):
    """Fit the means of binary data and counts."""

    def __init__(self, space: Space, train: Part) -> None:
        super().__init__(space, train)
        self.total, self.count = np.zeros(space.shape), np.zeros(space.shape)

    def look(self, rows: np.ndarray) -> None:
        observed = self.space.seen(rows)
        self.total += (self.space.inward(rows) * (1 if observed is None else observed)).sum(
            0, dtype=np.float64
        )
        self.count += len(rows) if observed is None else observed.sum(0)

    def fitted(self) -> tuple[Space, list[str]]:
        marginal = np.asarray(self.total / np.maximum(self.count, 1), np.float32)
        return replace(self.space, marginal=marginal), _missing_note(self.space)


@final
class _Frequencies(Fit):
    """Fit the frequencies of levels and categories: of each cell, or of all cells together if
    there are too many."""

    def __init__(self, space: Space, train: Part) -> None:
        super().__init__(space, train)
        self.small = space.levels * space.cells <= 1_000_000
        self.counts = np.zeros(space.cells * space.levels if self.small else space.levels, np.int64)
        self.offsets = space.levels * np.arange(space.cells)

    def look(self, rows: np.ndarray) -> None:
        space = self.space
        codes, observed = space.inward(rows).reshape(-1, space.cells), space.seen(rows)
        for start in range(0, len(codes), max(1, 2**23 // space.cells)):
            # One count over (cell, code) pairs, not a pass over the data for each code.
            part = slice(start, start + max(1, 2**23 // space.cells))
            pairs = codes[part] + self.offsets if self.small else codes[part]
            kept = (
                pairs.ravel()
                if observed is None
                else pairs[observed.reshape(-1, space.cells)[part]]
            )
            self.counts += np.bincount(kept, minlength=len(self.counts))

    def fitted(self) -> tuple[Space, list[str]]:
        space, counts = self.space, self.counts
        if self.small:
            counts = np.moveaxis(counts.reshape(*space.shape, space.levels), -1, 0)
            # A level that a cell never had is not impossible there: the pooled frequencies are
            # added to each cell's counts, `levels` times.
            pooled = (counts.reshape(space.levels, -1).sum(1) + 1) / (counts.sum() + space.levels)
            seen = counts + space.levels * pooled.reshape(-1, *[1] * len(space.shape))
            frequencies = seen / seen.sum(0)
        else:
            frequencies = ((counts + 1) / (counts.sum() + space.levels)).reshape(
                -1, *[1] * len(space.shape)
            )
        return replace(
            space, marginal=np.ascontiguousarray(frequencies, np.float32)
        ), _missing_note(space)


def _missing_note(space: Space) -> list[str]:
    return (
        [
            "some cells are missing: bounds are of the observed cells, assuming that cells are "
            "missing at random"
        ]
        if space.missing
        else []
    )


@final
class _Real(Fit):
    """Fit offset, scale and grid of real values; each value is in `overlap` windows of a series."""

    def __init__(self, space: Space, train: Part, standardise: str | None, overlap: int) -> None:
        super().__init__(space, train)
        self.overlap = overlap
        usual = standardise or space.layout.standardise(space.shape)
        self.how = usual if space.standardised else "none"
        if self.how == "channel" and space.layout.channel_axis is None:
            raise ValueError(f"expected standardise=channel for data with channels; got {space}")
        self.each = self.how in ("feature", "channel")  # whether cells have scales of their own
        self.plain = replace(space, offset=np.zeros(()), scale=np.ones(()))
        self.sums, self.count, self.largest = np.zeros(space.shape), np.zeros(space.shape), 0.0
        self.at = np.zeros((2, *space.shape))  # numbers of values at the limits
        self.sample: np.ndarray = np.zeros((0, 0))

    def picks(self) -> list[RowSelector]:
        some = self.train.spread(max(100, SAMPLED // self.space.cells))
        return [*super().picks(), RowSelector(some, len(some), self._sampled)]

    def look(self, rows: np.ndarray) -> None:
        absent, inside = missing_cells(rows, self.space.absent), np.asarray(rows, np.float64)
        if absent is not None:
            inside = np.where(absent, 0.0, inside)
            self.count -= self.space.arranged(absent).sum(0)
        self.count += len(rows)
        for side, end in enumerate(self.space.limits):
            at = np.zeros(rows.shape, bool) if end is None else rows == end
            inside, here = np.where(at, 0.0, inside), self.space.arranged(at).sum(0)
            self.at[side] += here
            self.count -= here
        with np.errstate(all="ignore"):
            self.sums += self.space.arranged(inside).sum(0)
        self.largest = max(self.largest, float(inside.min()), float(inside.max()), key=abs)

    def _sampled(self, rows: np.ndarray) -> None:
        if self.space.limits:  # of many floats, some are equal because of their precision
            rows = rows[:: max(1, rows.size // FEWER)]
        self.sample = self._free(rows).reshape(len(rows), -1)

    def _free(self, rows: np.ndarray) -> np.ndarray:
        """Return rows (N, *X) with NaN in missing cells and at the limits."""
        rows = with_gaps(rows, self.space.absent)
        at = [rows == end for end in self.space.limits if end is not None]
        if at and np.any(at):
            rows = np.where(np.any(at, 0), np.nan, rows.astype(np.result_type(rows.dtype, "f4")))
        return self.space.arranged(rows)

    def _shares(self) -> np.ndarray | None:
        """Return the share of training values at each limit, (2, *X), smoothed by that of all
        cells; None if no value is there."""
        if not self.at.any():
            return None
        total = self.count + self.at.sum(0)
        pooled = [at.sum() / total.sum() for at in self.at]
        return np.stack([(at + p) / (total + 1) for at, p in zip(self.at, pooled, strict=True)])

    def fitted(self) -> tuple[Space, list[str]]:
        space, whole = self.space, self.train.whole.dtype.kind in "iu"
        notes = _missing_note(space)
        if whole:
            notes.append(
                "whole numbers are dequantised: bounds are densities of values spread by one, "
                "and draws are rounded"
            )
        if not abs(self.largest) < LARGEST:
            word = str(np.dtype(space.dtype).type(self.largest))
            raise ValueError(
                f"expected values below 1e30 in size; got {word} (missing={word} takes it as "
                f"missing)"
            )
        offset, spread = self._moments()
        constant = spread == 0
        if constant.any():
            cells = "columns" if len(space.shape) == 1 else "cells"
            notes.append(
                f"{int(constant.sum())} of {space.cells} {cells} are constant in the training split"
            )
        resolution, origin, atoms, strays = self._resolution(notes)
        if self.how == "none":
            fitted = replace(
                self.plain, resolution=resolution, origin=origin, atoms=atoms, strays=strays
            )
        else:
            # The density of a constant cell could grow without end: the cell is spread over its own
            # size, which is its scale.
            size = np.where(offset == 0, 1.0, np.abs(offset))
            scale = np.asarray(np.sqrt((spread[self.count > 0] ** 2).mean()) or 1.0)
            if self.each:
                scale = np.where(constant, size, spread)
            if self.each and constant.any():
                resolution = np.where(constant, size, 0.0 if resolution is None else resolution)
                origin = np.where(constant, offset, 0.0 if origin is None else origin)
            fitted = replace(
                space,
                offset=offset,
                scale=scale,
                resolution=resolution,
                origin=origin,
                atoms=atoms,
                strays=strays,
            )
        if space.limits:
            unit = float(np.sqrt((spread**2).mean())) if self.how == "none" else 1.0
            softness = fitted.softness * (unit or 1.0)
            fitted = replace(fitted, at_limits=self._shares(), softness=softness)
        if space.marginal_is_mean:
            fitted = replace(fitted, marginal=np.asarray(offset, np.float32))
        if resolution is not None and not whole:
            notes += _grid_notes(fitted, constant)
        return fitted, notes

    def _moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation of each cell, (*X); a channel's cells share theirs.

        The standard deviation of a constant cell is 0. A cell without a value has the mean and
        standard deviation of the others.

        Raises:
            ValueError: all cells are missing in every row.
        """
        space, train, sums, count = self.space, self.train, self.sums, self.count
        if not count.any():
            raise ValueError("expected a value in some cell of the training split; got none")
        sums, count = self._shared(sums), self._shared(count)
        empty = count == 0
        offset = np.where(empty, sums.sum() / count.sum(), sums / np.maximum(count, 1))
        squares = np.zeros(space.shape)
        missing = bool((self.count < len(train)).any())

        def deviate(rows: np.ndarray) -> None:
            nonlocal squares
            apart = np.asarray(self._free(rows), np.float64) - offset
            np.square(apart, apart)
            if missing:
                apart[np.isnan(apart)] = 0
            squares += apart.sum(0)

        once([train.whole], RowSelector(train, piece(train.whole), deviate).look)
        squares = self._shared(squares)
        spread = np.sqrt(
            np.where(empty, squares.sum() / count.sum(), squares / np.maximum(count, 1))
        )
        vary = spread > LEAST_SPREAD * np.maximum(np.abs(offset), 1e-300)
        return offset, np.where(vary, spread, 0.0)

    def _shared(self, sums: np.ndarray) -> np.ndarray:
        """Return sums over the cells of each channel, (*X), if these share a scale; otherwise the
        sums of each cell."""
        if self.how != "channel":
            return sums
        channel = self.space.layout.channel_axis
        others = tuple(i for i in range(sums.ndim) if i != channel)
        return np.broadcast_to(sums.sum(others, keepdims=True), sums.shape)

    def _resolution(
        self, notes: list[str]
    ) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None, np.ndarray | None]:
        """Return step, origin, atoms and strays of the sample's grids, for each feature or for all
        cells; None if there are none."""
        if self.train.whole.dtype.kind in "iu":
            return np.ones(()), np.zeros(()), None, None
        sample, each, space = self.sample, self.each, self.space
        channel = space.layout.channel_axis if self.how == "channel" else None
        if channel is not None:
            cells = np.moveaxis(sample.reshape(-1, *space.shape), channel + 1, -1)
            sample = cells.reshape(-1, space.shape[channel])
        columns = [sample[:, i] for i in range(sample.shape[1])] if each else [sample.ravel()]
        odd: list[tuple[int, np.ndarray, float]] = []
        grids = []
        for i, column in enumerate(columns):
            grid, off = _grid(column, self.overlap)
            step = float(widths(grid.step, np.nanstd(column))) if self.how == "none" else grid.step
            grids.append((step, grid.origin, grid.atoms, grid.strays))
            if len(off):
                odd.append((i, off, step))
        found = np.array(grids if each else grids[0])
        if channel is not None:
            others = [1] * (len(space.shape) - 1 - channel)
            found = np.broadcast_to(found.reshape(-1, *others, 4), (*space.shape, 4))
        steps, origins, atoms, strays = (
            found[..., 0],
            found[..., 1],
            found[..., 2] > 0,
            found[..., 3] > 0,
        )
        if odd:
            count, (at, off, step) = sum(len(off) for _, off, _ in odd), odd[0]
            where = f", column {at}" if each and len(columns) > 1 else ""
            values = "1 value" if count == 1 else f"{count:,} values"
            notes.append(
                f"{values} off the grid, such as {off[0]}{where} (step {step:.2g}): rounded to "
                f"it for the model"
            )
        if not steps.any():
            return None, None, None, None
        return steps, origins, atoms if atoms.any() else None, strays if strays.any() else None


def _grid_notes(space: Space, constant: np.ndarray) -> list[str]:
    """Return notes on cells that lie on a grid or repeat without one; not on `constant` cells."""
    resolution, atoms, grid = space.resolution, space.atoms, space.grid()
    if resolution is None or grid is None or space.scale is None:
        return []
    repeated = (
        np.zeros(resolution.shape, bool)
        if atoms is None
        else np.broadcast_to(atoms, resolution.shape)
    )
    regular = (resolution > 0) & ~repeated
    wider = np.asarray(grid * space.scale > 1.5 * resolution)
    notes = []
    for which, what, end in (
        (regular & ~wider, "lie on a grid: dequantised with step", ""),
        (
            regular & wider,
            "lie on a grid that float32 does not resolve: dequantised with bins wider than its "
            "step",
            "",
        ),
        (
            repeated,
            "repeat without a regular grid: dequantised with bin width",
            ", which the bound depends on",
        ),
    ):
        which = which & ~constant if which.ndim else which
        steps = np.unique(resolution[which])
        if len(steps):
            whose = (
                "values"
                if which.all()
                else f"values of {int(which.sum()):,} of {which.size:,} cells"
            )
            shown = f" {steps[0]:g}" if len(steps) == 1 else f"s {steps[0]:g} .. {steps[-1]:g}"
            notes.append(f"{whose} {what}{shown}{end}")
    return notes


def _grid(values: np.ndarray, overlap: int) -> tuple[Lattice, np.ndarray]:
    """Return the grid of numbers, which may contain NaN, and the numbers that lie off it.

    Each number is counted once for `overlap` times.
    """
    distinct, times = np.unique(values[~np.isnan(values)], return_counts=True)
    times = -(-times // overlap)
    if len(distinct) < 2:
        return Lattice(), distinct[:0]
    spread = float(
        np.sqrt(np.average((distinct - np.average(distinct, weights=times)) ** 2, weights=times))
    )
    grid = lattice(distinct, times, spread)
    return grid, np.repeat(distinct[grid.off], times[grid.off]) if grid.strays else distinct[:0]
