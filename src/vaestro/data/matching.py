"""Transform new data by the space of a run, for `encode` and similar commands and for `--init`.

Columns, categories, conditions and tokens are matched by name. Offsets, scales and grids are those
of the run, so equal data have equal codes, and shifted data have shifted codes.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import numpy as np

from vaestro.data import choosing
from vaestro.data.conditions import LIBRARY
from vaestro.data.containers import container_of
from vaestro.data.kinds import KINDS
from vaestro.data.passes import Part, Whole
from vaestro.data.raw import Options
from vaestro.data.sets import Rows
from vaestro.data.source_options import as_source
from vaestro.frames import Frame
from vaestro.spaces import Column, Kind, Space
from vaestro.text import InputError, quoted

ROWS = 2000  # number of training rows from which the shift of the mean is estimated
SHIFTED = 1.0  # smallest shift of a mean in a note, in standard deviations of the run
SURE = 5.0  # smallest shift of a mean in a note, in standard errors of the new mean
REPEATED = 0.01  # smallest share of repeated values without a grid in a note
SHOWN = 3  # largest number of columns named in a note


def match_layout(parts: Mapping[str, Part], space: Space, options: Options) -> dict[str, Part]:
    """Return the splits of a source in the layout of a space.

    Shorter series are padded, and the named columns of a sparse matrix are reordered.

    Args:
        parts: the splits.
        space: of a run.
        options: of the source.

    Raises:
        ValueError: the data have another kind or shape.

    >>> import vaestro as vs
    >>> data = vs.load(np.random.default_rng(0).normal(size=(100, 3)))
    >>> match_layout({"all": Part(np.zeros((5, 3)))}, data.space, {})["all"].whole.shape
    (5, 3)
    """
    fits: dict[int, Whole] = {}  # splits of one array stay splits of one array
    for part in parts.values():
        container = container_of(part.whole)
        if not container.accepts(space):
            raise ValueError(
                f"expected {'a ' if space.columns else ''}{space}, as the run was trained on; "
                f"got {container.numbers}"
            )
        if id(part.whole) not in fits:
            fits[id(part.whole)] = container.fit(part.whole, space, options)
    return {name: replace(part, whole=fits[id(part.whole)]) for name, part in parts.items()}


@final
@dataclass(frozen=True, eq=False)
class Origin:
    """Describe the data of a run, whose space transforms other data.

    Args:
        run: name of the run, for messages.
        space: of its data.
        given: the space of its conditions; None without.
        grows: whether conditions may have new categories, which are added to their space.

    >>> import vaestro as vs
    >>> data = vs.load({"size": [0.5, 1.5, 2.5] * 9, "age": [3, 1, 4] * 9})
    >>> [column.name for column in Origin("runs/a", data.space).columns]
    ['size', 'age']
    """

    run: str
    space: Space
    given: Space | None = None
    grows: bool = False

    @property
    def columns(self) -> tuple[Column, ...] | None:
        """Return the columns of a table, conditions included; None for other data."""
        if not self.space.columns:
            return None
        return (*self.space.columns, *(() if self.given is None else self.given.columns))

    def conditions(self, asked: Sequence[str]) -> tuple[str, ...]:
        """Return the names of the conditions in the run's order.

        Args:
            asked: names that the user gave; empty for those of the run.

        Raises:
            ValueError: the user gave other names.
        """
        names = () if self.given is None else self.given.names
        if set(asked) not in (set(), set(names)) or len(set(asked)) < len(asked):
            expected = (
                " ".join(f"--condition {shlex.quote(quoted(name))}" for name in names)
                or "no --condition"
            )
            raise ValueError(
                f"expected {expected}, as in {self.run}; got "
                f"{' '.join(f'--condition {shlex.quote(n)}' for n in asked)}"
            )
        return names

    def check(self, parts: Mapping[str, Part], options: Options, name: str) -> None:
        """Check columns and options of a source before any value is read.

        Args:
            parts: the splits.
            options: of the source.
            name: of the source.

        Raises:
            ValueError: a column is missing or new, or an option contradicts the run.
        """
        conditions = [] if self.given is None else list(self.given.names)
        for part in parts.values():
            columns = container_of(part.whole).columns(part.whole)
            there = {*columns, *part.attributes, *(() if columns else (LIBRARY,))}
            if absent := [n for n in conditions if n not in there]:
                raise InputError(
                    f"{name} has no column or attribute {absent[0]!r}, which is a condition of "
                    f"{self.run}: add it, or train without --init"
                )
            if columns and self.space.columns:
                names = [
                    n
                    for n, cells in columns.items()
                    if n not in conditions and (n in self.space.names or cells.count())
                ]
                self._check_columns(names, options, name)
                self._check_kinds(columns, options, name)
        if not self.space.columns:
            self._check_options(options, name)

    def _check_columns(self, names: Sequence[str], options: Options, where: str) -> None:
        lacking = [name for name in self.space.names if name not in names]
        other = [name for name in names if name not in self.space.names]
        expected = f"the columns of {self.run} in {where}"
        if lacking and other:
            raise ValueError(
                f"expected {expected}; got no {_listed(lacking)}, but {_listed(other)}: "
                f"rename columns that are the same, or train without --init"
            )
        if lacking:
            raise ValueError(
                f"expected {expected}; got no {_listed(lacking)}: a column of empty cells is "
                f"accepted if it was not measured; or train without --init"
            )
        if other:
            before = [str(options["ignore"])] if "ignore" in options else []
            ignored = as_source(
                where, {**options, "ignore": "+".join([*before, *map(quoted, other)])}
            )
            hint = f" with {shlex.quote(ignored)}" if Path(where).suffix else ""
            raise ValueError(
                f"expected {expected}; got {_listed(other)} too: leave "
                f"{'it' if len(other) == 1 else 'them'} out{hint}"
            )

    def _check_kinds(self, columns: Collection[str], options: Options, where: str) -> None:
        kinds = {c.name: c.kind for c in self.space.columns if len(c.values) != 1}
        for key, kind in KINDS.items():
            for name in choosing.named(options, key, columns, where) if key in options else ():
                if kinds.get(name, kind) is not kind:
                    raise ValueError(
                        f"expected column {name!r} as {kinds[name]}, as in {self.run}; got "
                        f"{key}= (leave {key}={name} out)"
                    )

    def _check_options(self, options: Options, where: str) -> None:
        space, grey = self.space, options.get("binarise", "none") != "none"
        of_run: dict[str, str | int] = {"kind": "levels" if grey else str(space.kind)}
        if not grey:
            of_run["levels"] = space.levels
        if space.tokeniser is not None:
            of_run |= {"tokens": space.tokeniser.method, "length": space.shape[0]}
        for key, value in of_run.items():
            if options.get(key, value) != value:
                raise ValueError(
                    f"expected {key}={value} for {where}, as in {self.run}; got "
                    f"{key}={options[key]}"
                )
        if grey and not space.probabilities:
            raise ValueError(
                f"expected binarise=none for {where}, as in {self.run}, whose data are {space}; "
                f"got binarise={options['binarise']}"
            )

    def left_out(self, parts: Mapping[str, Part]) -> list[str]:
        """Return a note on columns of a matrix of counts that the run does not have."""
        whole = parts["train"].whole
        names = container_of(whole).cell_names(whole)
        if not names or not self.space.names:
            return []
        of_run = set(self.space.names)
        other = [name for name in names if name not in of_run]
        return (
            [
                f"left out {len(other):,} of {len(names):,} columns, which {self.run} does not "
                f"have: {_listed(other)}"
            ]
            if other
            else []
        )

    # -- notes -------------------------------------------------------------------------------------

    def notes(self, parts: Mapping[str, Part], rows: Mapping[str, Rows]) -> list[str]:
        """Return notes on settings from the run, and on differences between its data and new data.

        Args:
            parts: the splits, in the user's units.
            rows: the splits, as codes or values.
        """
        train = parts["train"]
        container = container_of(train.whole)
        notes = [f"read into the space of {self.run}: {container.taken_over} are those of that run"]
        if self.given is not None:
            names = ", ".join(self.given.names)
            notes.append(
                f"conditioned on {names}, as in {self.run}: bounds are of log p(x | {names})"
            )
        if columns := container.columns(train.whole):
            frame = Frame(columns)
            notes += self._gaps(frame) + self._grids(
                frame if train.index is None else frame[train.index]
            )
        return notes + self._shifts(rows["train"])

    def _gaps(self, frame: Frame) -> list[str]:
        """Return a note on empty cells."""
        empty = {
            c.name: n
            for c in self.space.columns
            if (n := int(np.ma.getmaskarray(frame.columns[c.name]).sum()))
        }
        if not empty:
            return []
        note = (
            f"{sum(empty.values()):,} cells are empty, in {_listed(list(empty))}: bounds are of "
            f"the observed cells, assuming that cells are missing at random"
        )
        if not self.space.missing:
            note += (
                f"; {self.run} was trained without empty cells, and its encoder takes them "
                f"for average values"
            )
        return [note]

    def _grids(self, frame: Frame) -> list[str]:
        """Return notes on values off the run's grids, and on repeated values without a grid."""
        off, repeated = [], []
        for column in self.space.columns:
            cells = frame.columns[column.name]
            if column.counting or cells.dtype.kind not in "biuf":
                continue
            values = cells.compressed().astype(np.float64)
            if column.resolution and not column.atoms:
                apart = (values - column.origin) / column.resolution
                if (np.abs(apart - np.rint(apart)) > 1e-3 + 1e-6 * np.abs(apart)).any():
                    off.append(column.name)
            elif not column.resolution and len(values):
                times = np.unique(values, return_counts=True)[1]
                if times[times > 1].sum() > REPEATED * len(values):
                    repeated.append(column.name)
        notes = []
        if off:
            notes.append(
                f"{_listed(off)}: some values are not on the grid of {self.run}, which is kept; "
                f"samples are rounded to it"
            )
        if repeated:
            notes.append(
                f"{_listed(repeated)}: values are repeated, but were not in {self.run}: their "
                f"density is unbounded"
            )
        return notes

    def _shifts(self, rows: Rows) -> list[str]:
        """Return a note on columns of a table, or features of a vector, whose mean differs from
        that of the run."""
        space = self.space
        # The space has no standard deviations of features that were scaled together.
        scaled = (
            space.scale is not None and len(space.shape) == 1 and space.scale.shape == space.shape
        )
        real = len(space.of_kind(Kind.REAL)) if space.columns else space.cells if scaled else 0
        if not real or not len(rows):
            return []
        some = rows.spread(ROWS).fixed()
        batch = some.batch(slice(0, len(some)))
        values = batch.x[:, :real].numpy().astype(np.float64)
        seen = (
            np.ones_like(values, bool)
            if batch.observed is None
            else batch.observed[:, :real].numpy()
        )
        count = seen.sum(0)
        shift = (values * seen).sum(0) / np.maximum(count, 1)
        error = np.sqrt(
            (((values - shift) * seen) ** 2).sum(0)
            / np.maximum(count - 1, 1)
            / np.maximum(count, 1)
        )
        # A constant cell has no standard deviation; its grid step is at least 1.
        grid = space.grid()
        shift = np.where((np.broadcast_to(0.0 if grid is None else grid, (real,)) >= 1), 0.0, shift)
        far = sorted(
            (i for i in range(real) if abs(shift[i]) > max(SHIFTED, SURE * error[i])),
            key=lambda i: -abs(shift[i]),
        )
        if not far:
            return []
        label = (
            [c.name for c in space.columns]
            if space.columns
            else [f"feature {i}" for i in range(real)]
        )
        shown = ", ".join(f"{label[i]} by {shift[i]:+.2g}" for i in far[:SHOWN])
        shown += f" and {len(far) - SHOWN} more" if len(far) > SHOWN else ""
        return [
            f"the mean differs from {self.run}'s by more than one of its standard deviations: "
            f"{shown}; codes show this shift"
        ]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:SHOWN])) + (
        f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    )
