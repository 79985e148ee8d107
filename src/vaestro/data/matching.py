"""Match what was read to the space of a run: for `encode` and its kin, and for training that starts
from that run.

Columns, categories, conditions and tokens are matched by name. Offsets, scales and grids are the
run's own, so that equal data have equal codes, and data that were shifted have shifted codes.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np

from vaestro.data import choosing
from vaestro.data.containers import container_of
from vaestro.data.kinds import KINDS
from vaestro.data.passes import Part, Whole
from vaestro.data.raw import Options
from vaestro.data.readers import as_source
from vaestro.data.sets import Rows
from vaestro.frames import Frame
from vaestro.spaces import Column, Kind, Space
from vaestro.text import quoted

ROWS = 2000  # training rows from which is measured how far the data lie from the run's
SHIFTED = 1.0  # of the run's standard deviations: a shift of the mean that is mentioned
SURE = 5.0  # standard errors of the new mean that a shift exceeds, whatever the number of columns
# share of values that occur several times, from which values without a grid are mentioned
REPEATED = 0.01
SHOWN = 3  # columns named in a note


def matched(parts: Mapping[str, Part], space: Space, options: Options) -> dict[str, Part]:
    """Return parts of a source as a space needs them: shorter series are padded, and named columns
    of a sparse matrix put in order.

    Raises:
        ValueError: the data are of another kind or shape.
    """
    made: dict[int, Whole] = {}  # splits that are rows of one array stay rows of one
    for part in parts.values():
        container = container_of(part.whole)
        if not container.accepts(space):
            raise ValueError(
                f"expected {'a ' if space.columns else ''}{space}, as the run was trained on; "
                f"got {container.numbers}"
            )
        if id(part.whole) not in made:
            made[id(part.whole)] = container.fit(part.whole, space, options)
    return {name: replace(part, whole=made[id(part.whole)]) for name, part in parts.items()}


@final
@dataclass(frozen=True, eq=False)
class Origin:
    """Hold what a run's data are, into which other data are read.

    Args:
        run: the name of the run, for messages.
        space: of its data.
        given: of its conditions; None without.
    """

    run: str
    space: Space
    given: Space | None = None

    @property
    def columns(self) -> tuple[Column, ...] | None:
        """Return the columns of a table, conditions included; None for other data."""
        if not self.space.columns:
            return None
        return (*self.space.columns, *(() if self.given is None else self.given.columns))

    def conditions(self, asked: Sequence[str]) -> tuple[str, ...]:
        """Return the names of the conditions in the run's order.

        Raises:
            ValueError: others were asked for.
        """
        own = () if self.given is None else self.given.names
        if set(asked) not in (set(), set(own)) or len(set(asked)) < len(asked):
            wanted = (
                " ".join(f"--condition {shlex.quote(quoted(name))}" for name in own)
                or "no --condition"
            )
            raise ValueError(
                f"expected {wanted}, as in {self.run}; got "
                f"{' '.join(f'--condition {shlex.quote(n)}' for n in asked)}"
            )
        return own

    def check(self, parts: Mapping[str, Part], options: Options, name: str) -> None:
        """Check columns and options of a source before any value is looked at.

        Raises:
            ValueError: a column has no counterpart in the run or the run's has none in the data, or
                an option contradicts the run.
        """
        conditions = [] if self.given is None else list(self.given.names)
        for part in parts.values():
            columns = container_of(part.whole).columns(part.whole)
            if absent := [n for n in conditions if n not in columns and n not in part.attributes]:
                raise ValueError(
                    f"expected the condition {absent[0]!r} of {self.run} in {name}; got no such "
                    f"column or attribute: train without --init"
                )
            if columns and self.space.columns:
                self._check_columns([n for n in columns if n not in conditions], options, name)
                self._check_kinds(columns, options, name)
        if not self.space.columns:
            self._check_options(options, name)

    def _check_columns(self, names: Sequence[str], options: Options, where: str) -> None:
        lacking, other = (
            [n for n in a if n not in b]
            for a, b in ((self.space.names, names), (names, self.space.names))
        )
        wanted = f"the columns of {self.run} in {where}"
        if lacking and other:
            raise ValueError(
                f"expected {wanted}; got no {_listed(lacking)}, but {_listed(other)}: rename "
                f"what is the same, or train without --init"
            )
        if lacking:
            raise ValueError(
                f"expected {wanted}; got no {_listed(lacking)}: a column of empty cells stands "
                f"for what was not measured, "
                "or train without --init"
            )
        if other:
            before = [str(options["ignore"])] if "ignore" in options else []
            ignored = as_source(
                where, {**options, "ignore": "+".join([*before, *map(quoted, other)])}
            )
            hint = f" with {shlex.quote(ignored)}" if Path(where).suffix else ""
            raise ValueError(
                f"expected {wanted}; got {_listed(other)} too: leave "
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
        own: dict[str, Any] = {"kind": "levels" if grey else str(space.kind)}
        if not grey:
            own["levels"] = space.levels
        if space.tokeniser is not None:
            own |= {"tokens": space.tokeniser.method, "length": space.shape[0]}
        for key, value in own.items():
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
        """Say which named columns of a matrix of counts the run does not have."""
        whole = parts["train"].whole
        names = container_of(whole).cell_names(whole)
        if not names or not self.space.names:
            return []
        own = set(self.space.names)
        other = [name for name in names if name not in own]
        return (
            [
                f"left out {len(other):,} of {len(names):,} columns, which {self.run} "
                f"lacks: {_listed(other)}"
            ]
            if other
            else []
        )

    # -- what there is to say ----------------------------------------------------------------------

    def notes(self, parts: Mapping[str, Part], rows: Mapping[str, Rows]) -> list[str]:
        """Say what was taken over, and where the new data are unlike those of the run.

        Args:
            parts: the splits as they were read.
            rows: the same inside.
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
        if self.space.tokeniser is not None:
            notes += self._unknown(rows["train"])
        return notes + self._shifts(rows["train"])

    def _gaps(self, frame: Frame) -> list[str]:
        empty = {
            c.name: n
            for c in self.space.columns
            if (n := int(np.ma.getmaskarray(frame.columns[c.name]).sum()))
        }
        if not empty:
            return []
        said = (
            f"{sum(empty.values()):,} cells are empty, in {_listed(list(empty))}: bounds are "
            f"of what is observed, assumed missing at random"
        )
        if not self.space.missing:
            said += (
                f"; {self.run} was trained without empty cells, and its encoder takes them "
                f"for average values"
            )
        return [said]

    def _grids(self, frame: Frame) -> list[str]:
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
                f"{_listed(off)}: values between the steps of {self.run}'s grid, which is kept; "
                f"samples are rounded to it"
            )
        if repeated:
            notes.append(
                f"{_listed(repeated)}: values repeat, in {self.run} they did not: their density "
                f"can grow without end"
            )
        return notes

    def _unknown(self, rows: Rows) -> list[str]:
        tokeniser, ragged = self.space.tokeniser, rows.ragged
        if tokeniser is None or tokeniser.unknown is None or ragged is None:
            return []
        codes = ragged.codes
        unknown = int((codes == tokeniser.unknown).sum())
        share = unknown / max(1, len(codes))
        return (
            [
                f"{unknown:,} of {len(codes):,} {tokeniser.method} are not in {self.run}'s "
                f"vocabulary ({share:.1%})"
            ]
            if unknown
            else []
        )

    def _shifts(self, rows: Rows) -> list[str]:
        """Say which columns of a table, or features of a vector, lie far from the run's, in its
        standard deviations."""
        space = self.space
        # Features of a vector that were scaled together have no standard deviation of their own in
        # the space.
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
        # A constant cell has no standard deviation: its step is its own size.
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
