"""Tables: columns of several kinds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, final

import numpy as np

from vaestro.column_types import is_category
from vaestro.frames import Frame
from vaestro.spaces.base import Space, hashed
from vaestro.spaces.columns import Column
from vaestro.spaces.grids import widths
from vaestro.spaces.kinds import COLUMN_ORDER, Kind
from vaestro.spaces.layouts import LAYOUTS, Layout
from vaestro.tokens import Texts

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from vaestro.spaces.warps import Warps


@final
@dataclass(frozen=True, eq=False)
class TableSpace(Space):
    """Describe the rows of a table; inside, columns of one kind are next to each other.

    >>> from vaestro.spaces import RealColumn
    >>> str(TableSpace.of([RealColumn("size", "float64")]))
    'table of 1 columns (1 real)'
    """

    layout: Layout = LAYOUTS["table"]

    kind = Kind.TABLE
    tabular = True
    accepted = "a table"
    likelihood = "table"

    @classmethod
    def of(cls, columns: Sequence[Column]) -> TableSpace:
        """Return the space of a table from its columns in the user's order."""
        inside = tuple(sorted(columns, key=lambda c: COLUMN_ORDER.index(c.kind)))
        size = (len(inside),)
        names = tuple(c.name for c in columns)
        missing = any(c.missing for c in inside)
        return cls(size, size, missing=missing, columns=inside, names=names)

    def __str__(self) -> str:
        counts = [f"{n} {kind}" for kind in COLUMN_ORDER if (n := len(self.of_kind(kind)))]
        return f"table of {len(self.columns)} columns ({', '.join(counts)})"

    @property
    def measure(self) -> str:
        discrete = {c.counting for c in self.columns}
        return "mixed" if len(discrete) == 2 else "counting" if discrete == {True} else "lebesgue"

    def runs(self) -> Iterator[tuple[tuple[Column, ...], slice]]:
        """Yield the columns of each kind, and where they are among all."""
        start = 0
        for _, run in groupby(self.columns, lambda c: c.kind):
            columns = tuple(run)
            yield columns, slice(start, start + len(columns))
            start += len(columns)

    @property
    def feature_shape(self) -> tuple[int, ...]:
        points = sum(len(c.points) for c in self.columns)
        return (
            sum(c.features for c in self.columns) + points + int(self.missing) * len(self.columns),
        )

    @cached_property
    def warps(self) -> Warps:
        """Return the marginal transforms of the real columns."""
        from vaestro.spaces.warps import Warps

        return Warps.of(self.of_kind(Kind.REAL))

    def support(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        ends = [column.support for column in self.columns]
        low, high = np.asarray(ends, np.float64).reshape(-1, 2).T
        return low.copy(), high.copy(), np.asarray([c.counting for c in self.columns])

    def features(self, x: Tensor, observed: Tensor | None, dtype: torch.dtype) -> Tensor:
        import torch

        x = x.to(dtype)
        marks = self._marks(x, observed)
        if self.warps:
            reals = len(self.of_kind(Kind.REAL))
            x = torch.cat([self.warps.scores(x[:, :reals])[0], x[:, reals:]], 1)
        pieces = [
            run[0].encoded(run, x[:, place], None if observed is None else observed[:, place])
            for run, place in self.runs()
        ]
        pieces += marks
        if self.missing:
            pieces.append(torch.ones_like(x) if observed is None else observed.to(dtype))
        return torch.cat(pieces, 1)

    def _marks(self, x: Tensor, observed: Tensor | None) -> list[Tensor]:
        """Return which atom each real value is, (B, atoms) ones and zeros; an empty list if there
        are no atoms."""
        marks = []
        for i, column in enumerate(self.columns):
            if column.points:
                points = x.new_tensor((np.array(column.points) - column.offset) / column.scale)
                half = 0.5 * column.resolution / column.scale
                near = (x[:, i, None] - points).abs() <= half
                marks.append((near if observed is None else near & observed[:, i, None]).to(x))
        return marks

    def limited(self, data: Frame) -> Frame:
        columns = {
            c.name: np.ma.MaskedArray(c.limited(values.data), np.ma.getmaskarray(values))
            for c in self.columns
            if c.limits
            for values in [data.columns[c.name]]
        }
        return replace(data, columns={**data.columns, **columns}) if columns else data

    def emptied(self, data: Frame, empty: np.ndarray) -> Frame:
        columns = {
            c.name: np.ma.MaskedArray(data.columns[c.name], empty[:, i], keep_mask=True)
            for i, c in enumerate(self.columns)
        }
        return replace(data, columns={**data.columns, **columns})

    def log_dets(self) -> np.ndarray | None:
        cells = -np.log([c.unit for c in self.columns])
        return cells if cells.any() else None

    def grid(self) -> np.ndarray | None:
        dense = [c for c in self.columns if not c.counting]
        steps = np.array([widths(c.resolution, c.scale) / c.scale for c in dense])
        return steps if steps.any() else None

    def transform(self) -> bytes:
        offset, scale = np.array([[c.offset, c.scale] for c in self.columns]).T
        words = repr([(c.name, c.kind, c.dtype, c.values) for c in self.columns]).encode()
        return words + hashed(offset, scale)

    @property
    def on_grid(self) -> bool:
        return all(c.resolution > 0 and not c.atoms for c in self.columns if not c.counting)

    def log_cells(self) -> np.ndarray | None:
        steps = np.array([0.0 if c.counting else c.resolution for c in self.columns])
        return np.log(np.where(steps > 0, steps, 1.0)) if steps.any() else None

    def seen(self, values: object) -> np.ndarray | None:
        assert isinstance(values, Frame)
        mask = np.stack([~np.ma.getmaskarray(values.columns[c.name]) for c in self.columns], 1)
        return None if mask.all() else mask

    def inward(self, values: object) -> np.ndarray:
        if isinstance(values, Texts):
            raise ValueError(f"expected {self} data; got texts")
        if not isinstance(values, Frame):
            raise ValueError(f"expected a {self}; got an array")
        lacking = [name for name in self.names if name not in values.columns]
        if lacking:
            raise ValueError(
                f"expected a column {lacking[0]!r}; got {', '.join(list(values.columns)[:12])}"
            )
        return np.stack([c.inward(values.columns[c.name]) for c in self.columns], 1)

    def outward(self, x: np.ndarray, *, exact: bool = True) -> Frame:
        columns = {
            c.name: np.ma.MaskedArray(c.outward(x[..., i], exact=exact))
            for i, c in enumerate(self.columns)
        }
        orders = {c.name: c.values for c in self.columns if c.ordered}
        types = {c.name: c.declared for c in self.columns if c.declared}
        categories = {
            c.name: c.values for c in self.columns if is_category(c.declared) and not c.ordered
        }
        formats = {c.name: c.format for c in self.columns if c.format}
        own = {name: columns[name] for name in self.names}
        return Frame(own, orders, types, categories, formats)

    @classmethod
    def _stored_layout(cls, shape: tuple[int, ...]) -> Layout:
        return LAYOUTS["table"]
