"""What the data are: their shape, what one cell can be, and the way between the user's units and
the model's.

Inside, discrete data are codes 0 .. levels - 1, counts are themselves, and real data are (value -
offset) / scale. The log-determinant of the scale is part of every bound, so that numbers do not
depend on preprocessing. Statistics come from the training split and are stored with the weights.

Real data on a grid (rounded to cents, whole numbers read as real) have a density that can grow
without end: put all mass on one grid point and let the variance go to zero. Such data are spread
uniformly over the grid's cells, value + resolution * u with u on (-1/2, 1/2), and no density of the
spread data can exceed what a cell holds (Theis, van den Oord and Bethge 2016). The same holds where
values repeat on no grid, as exact zeros among positive numbers do: the width of their cells is a
convention, which `data.lattices` takes from the data and every bound depends on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vaestro.frames import Frame
from vaestro.tokens import Ragged, Texts, Tokeniser


class Kind(StrEnum):
    """Name what one cell of the data can be."""

    BINARY = "binary"
    LEVELS = "levels"
    REAL = "real"
    UNIT = "unit"  # the open interval (0, 1)
    CATEGORY = "category"
    COUNT = "count"
    TOKENS = "tokens"
    TABLE = "table"


DISCRETE = frozenset({Kind.BINARY, Kind.LEVELS, Kind.CATEGORY, Kind.COUNT, Kind.TOKENS})
COLUMN_ORDER = (Kind.REAL, Kind.COUNT, Kind.BINARY, Kind.CATEGORY)
LARGEST_COUNT = 2**24  # counts are held in float32, which has every whole number up to here
DAY = np.timedelta64(1, "D")
FINEST = 2.0**-22  # of the standard deviation: the finest step that float32 resolves
# of a standard deviation, or of the step between two levels: what the rounding of a mean may take
FINE = 1e-4


@dataclass(frozen=True)
class Column:
    """Describe one column of a table.

    Args:
        name: its name.
        kind: real (dates too: days since 1970), count, binary or category.
        dtype: the user's NumPy dtype ("str" for text), which samples are written in.
        values: the user's values of the codes, for binary and category; a constant column is a
            category of one value.
        offset, scale: of real values; of log(1 + value) for counts, where they only serve the
            encoder.
        resolution: step of the grid that real values lie on, in the user's units; 0 if there is no
            grid. The noise may be
            wider: see `widths`.
        start: frequencies of the codes, or the mean count, in the training split.
        missing: whether it has empty cells.
        origin: a point of that grid.
        atoms: whether there is no grid, but rows share numbers, `origin` more than any:
            `resolution` is the width of their cells.
        strays: whether a few values lie off the grid (off the whole numbers for counts); the model
            sees them rounded to it, so that the cells stay disjoint and their probabilities sum to
            one.
    """

    name: str
    kind: Kind
    dtype: str
    values: tuple[Any, ...] = ()
    offset: float = 0.0
    scale: float = 1.0
    resolution: float = 0.0
    start: tuple[float, ...] = ()
    missing: bool = False
    origin: float = 0.0
    atoms: bool = False
    strays: bool = False

    def inward(self, values: np.ma.MaskedArray) -> np.ndarray:
        """Turn the user's column (N,) into codes or standardised values (N,), float32; empty cells
        become 0.

        Raises:
            ValueError: a value is not one that the column can hold.
        """
        mask = np.ma.getmaskarray(values)
        data = np.asarray(values.data)
        if mask.all():
            return np.zeros(len(data), np.float32)  # cells that are all empty are of no type
        if self.kind in (Kind.BINARY, Kind.CATEGORY):
            return self._codes(data, mask)
        numbers = self._numbers(data, mask)
        wrong = ~np.isfinite(numbers) & ~mask
        if wrong.any():
            raise ValueError(
                f"expected finite values in column {self.name!r}; got {int(wrong.sum())} that "
                f"are infinite"
            )
        if self.strays:
            numbers = _rounded(numbers, self.resolution or 1.0, self.origin)
        if self.kind is Kind.COUNT:
            bad = (
                (numbers < 0) | (numbers != np.rint(numbers)) | (numbers > LARGEST_COUNT)
            ) & ~mask
            if bad.any():
                raise ValueError(
                    f"expected counts of 0 .. {LARGEST_COUNT:,} in column {self.name!r}; got "
                    f"{numbers[bad][0]:g}"
                )
        else:
            numbers = (numbers - self.offset) / self.scale
        return np.where(mask, 0.0, numbers).astype(np.float32)

    def _numbers(self, data: np.ndarray, mask: np.ndarray) -> np.ndarray:
        dates = self.dtype.startswith("datetime64")
        if dates != (data.dtype.kind == "M") or data.dtype.kind not in "biufM":
            wanted = "dates" if dates else "numbers"
            example = f", such as {str(data[~mask][0])[:30]!r}"
            got = {"M": "dates", "U": "text", "O": "text", "S": "text"}.get(
                data.dtype.kind, "numbers"
            )
            raise ValueError(f"expected {wanted} in column {self.name!r}; got {got}{example}")
        if dates:
            return np.where(np.isnat(data), np.nan, (data - np.datetime64(0, "D")) / DAY)
        return data.astype(np.float64)

    def _codes(self, data: np.ndarray, mask: np.ndarray) -> np.ndarray:
        if self.dtype == "str" and data.dtype.kind != "U":
            data = data.astype(str)  # a code such as 0123 that another file holds as numbers
        elif self.dtype.startswith("datetime64") and data.dtype.kind == "M":
            data = data.astype(self.dtype).astype(str)  # values hold dates as ISO text
        elif self.dtype.startswith("float") and data.dtype.kind in "iuf":
            data = data.astype(self.dtype)  # 0.1 of float64 is another number than 0.1 of float32
        known: dict[Any, int] = {value: code for code, value in enumerate(self.values)}
        # one text among numbers makes a column of text
        if data.dtype.kind == "U" and self.dtype != "str":
            known = {str(value): code for value, code in known.items()}
        found, inverse = np.unique(data[~mask], return_inverse=True)
        codes = np.array([known.get(value.item(), -1) for value in found], np.float32)
        if (codes < 0).any():
            strangers = [str(v) for v in found[codes < 0][:3]]
            shown = ", ".join(map(str, self.values[:5])) + (" .." if len(self.values) > 5 else "")
            raise ValueError(
                f"expected a known category in column {self.name!r} ({shown}); got "
                f"{', '.join(strangers)}"
            )
        out = np.zeros(len(data), np.float32)
        out[~mask] = codes[inverse.ravel()]
        return out

    def typed(self, value: Any) -> np.ndarray:
        """Return one value, (1,), as the user's column has it, also where it was written as text.

        Raises:
            ValueError: the column can hold no such value: an unknown category, no number or date, a
                part of a whole number or of a day.
        """
        if self.kind in (Kind.BINARY, Kind.CATEGORY):
            for known in self.values:
                if value == known or str(value).lower() == str(known).lower():
                    return np.array([known], None if self.dtype == "str" else self.dtype)
            shown = ", ".join(map(str, self.values[:12])) + (" .." if len(self.values) > 12 else "")
            raise ValueError(f"expected {self.name} to be one of {shown}; got {value}")
        dtype = np.dtype(self.dtype)
        wanted = {
            "M": "a day" if dtype == "datetime64[D]" else "a date",
            "i": "a whole number",
            "u": "a whole number",
        }
        try:
            given = np.array([value]).astype("datetime64[us]" if dtype.kind == "M" else np.float64)
        except (TypeError, ValueError):
            given = np.array([np.nan])
        if dtype.kind in "iu":
            limits = np.iinfo(dtype)
            held = bool((given == np.rint(given)) & (given >= limits.min) & (given <= limits.max))
        else:
            held = bool(np.isfinite(given)) and (
                dtype.kind != "M" or bool(given.astype(dtype) == given)
            )
        if not held:
            raise ValueError(
                f"expected {wanted.get(dtype.kind, 'a number')} for {self.name}, as its column "
                f"holds; got {value!r}"
            )
        return given.astype(dtype)

    def outward(self, x: np.ndarray, *, exact: bool = True) -> np.ndarray:
        """Turn codes or standardised values (...) into the user's values and dtype; real ones back
        onto their grid.

        Without `exact`, real values stay off the grid, and counts may be fractions: means and not
            data.
        """
        if self.kind in (Kind.BINARY, Kind.CATEGORY):
            table = np.array(self.values, dtype=None if self.dtype == "str" else self.dtype)
            return table[np.rint(x).astype(np.int64)]
        numbers = (
            x.astype(np.float64) * self.scale + self.offset
            if self.kind is Kind.REAL
            else x.astype(np.float64)
        )
        dates = np.dtype(self.dtype).kind == "M"
        if self.resolution and (exact or dates):
            numbers = _on_grid(numbers, self.resolution, self.origin, self.atoms)
        if dates:
            return (
                np.datetime64(0, "us") + np.rint(numbers * 86400e6).astype("timedelta64[us]")
            ).astype(self.dtype)
        if not exact:
            return numbers
        if np.dtype(self.dtype).kind in "iu":
            return rounded(numbers, np.dtype(self.dtype))
        if self.resolution and not self.atoms:  # 29 * 0.01 is 0.29000000000000004
            steps = self.resolution * 10.0 ** np.arange(9)
            points = np.stack([steps, self.origin * 10.0 ** np.arange(9)])
            whole = (np.abs(points - np.rint(points)) < 1e-9 * steps).all(0)
            numbers = np.round(numbers, int(whole.argmax())) if whole.any() else numbers
        return numbers.astype(self.dtype)


def rounded(numbers: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Round numbers into a dtype of whole numbers; those beyond its range become its ends."""
    limits = np.iinfo(dtype)
    highest = min(limits.max, 2**63 - 1024)  # the largest number below 2**63 that float64 holds
    return np.clip(np.rint(numbers), limits.min, highest).astype(dtype)


def widths(resolution: Any, scale: Any) -> np.ndarray:
    """Return how wide the noise is that dequantises values on grids: one step, or the fewest steps
    that float32 resolves.

    With noise as wide as several whole steps, the mean density of a cell, times one step, still
    sums to one over the grid.

    Args:
        resolution: steps of the grids in the user's units; 0 if there is none.
        scale: standard deviations in the user's units, broadcastable with `resolution`.
    """
    resolution, scale = np.asarray(resolution, np.float64), np.asarray(scale, np.float64)
    steps = np.ceil(FINEST * scale / np.where(resolution > 0, resolution, np.inf) - 0.01)
    return np.asarray(resolution * np.maximum(1.0, steps))


def _on_grid(numbers: np.ndarray, step: Any, origin: Any, atoms: Any) -> np.ndarray:
    """Put numbers onto a grid; where there are only atoms, those in the cell of the largest onto
    that."""
    cells = np.rint((numbers - origin) / step)
    return np.where(np.asarray(atoms) & (cells != 0), numbers, cells * step + origin)


def _rounded(numbers: np.ndarray, step: Any, origin: Any) -> np.ndarray:
    """Put numbers onto the nearest points of a grid."""
    return np.asarray(np.rint((numbers - origin) / step) * step + origin)


@dataclass(frozen=True, eq=False)
class Space:
    """Describe the data: their shape, their kind, and the transform to and from the user's units.

    Args:
        kind: what one cell is.
        shape: the shape of one datum inside, *X; images are (C, H, W).
        outside: the shape of one datum in the user's layout; images are (H, W) or (H, W, C).
        dtype: the user's NumPy dtype, which samples are written in.
        low: the user's value of code 0.
        step: the user's distance between two codes (255 for black-and-white images stored as 0 and
            255).
        levels: how many values a discrete cell can take; 0 for real data and counts.
        missing: whether cells may be missing; the encoder then sees which are there.
        tokeniser: what cuts texts into tokens, and joins them.
        columns: of a table, in the order in which they lie inside: real, count, binary, category.
        names: of a table, the names of its columns in the user's order; of counts the names of the
            cells, such as genes, if known.
        offset, scale: float64 arrays that broadcast to *X; real data only.
        resolution, origin: the step of the grid that real data lie on, and a point of it, float64
            that broadcast to *X; a step of 0 where there is none.
        atoms: where there is no grid, but values repeat, as in a Column; bools that broadcast to
            *X.
        strays: where a few values lie off the grid, as in a Column; bools that broadcast to *X.
        marginal: the training split's probability of a one (binary, *X), frequencies of the codes
            (levels and categories, (levels, *X) or (levels, 1, ..)) or mean (counts, *X); where a
            decoder's last bias starts.
    """

    kind: Kind
    shape: tuple[int, ...]
    outside: tuple[int, ...]
    dtype: str = "float32"
    low: float = 0.0
    step: float = 1.0
    levels: int = 0
    missing: bool = False
    tokeniser: Tokeniser | None = field(default=None, repr=False)
    columns: tuple[Column, ...] = field(default=(), repr=False)
    names: tuple[str, ...] = field(default=(), repr=False)
    offset: np.ndarray | None = field(default=None, repr=False)
    scale: np.ndarray | None = field(default=None, repr=False)
    resolution: np.ndarray | None = field(default=None, repr=False)
    origin: np.ndarray | None = field(default=None, repr=False)
    atoms: np.ndarray | None = field(default=None, repr=False)
    strays: np.ndarray | None = field(default=None, repr=False)
    marginal: np.ndarray | None = field(default=None, repr=False)

    SCALARS = ("kind", "shape", "outside", "dtype", "low", "step", "levels", "missing", "names")
    ARRAYS = ("offset", "scale", "resolution", "origin", "atoms", "strays", "marginal")

    @classmethod
    def table(cls, columns: Sequence[Column]) -> Space:
        """Make the space of a table from its columns in the user's order."""
        inside = tuple(sorted(columns, key=lambda c: COLUMN_ORDER.index(c.kind)))
        size = (len(inside),)
        missing = any(c.missing for c in inside)
        return cls(
            Kind.TABLE,
            size,
            size,
            missing=missing,
            columns=inside,
            names=tuple(c.name for c in columns),
        )

    def __str__(self) -> str:
        if self.kind is Kind.TABLE:
            counts = [
                f"{n} {k}" for k in COLUMN_ORDER if (n := sum(c.kind is k for c in self.columns))
            ]
            return f"table of {len(self.columns)} columns ({', '.join(counts)})"
        if self.kind is Kind.TOKENS:
            return f"texts of at most {self.shape[0]:,} of {self.tokeniser}"
        size = f" of {self.levels}" if self.kind in (Kind.LEVELS, Kind.CATEGORY) else ""
        return f"{self.kind}{size} {'series ' if self.series else ''}{self.outside}"

    @property
    def discrete(self) -> bool:
        """Tell whether p(x) is a probability (counting measure) and not a density (Lebesgue
        measure)."""
        return self.measure == "counting"

    @property
    def measure(self) -> str:
        """Name the measure that p(x) is taken against: counting, lebesgue, or mixed (a table of
        both)."""
        kinds = {c.kind for c in self.columns} if self.kind is Kind.TABLE else {self.kind}
        discrete = {kind in DISCRETE for kind in kinds}
        return "mixed" if len(discrete) == 2 else "counting" if discrete == {True} else "lebesgue"

    @property
    def cells(self) -> int:
        """Count the cells of one datum."""
        return math.prod(self.shape)

    @property
    def series(self) -> bool:
        """Tell whether a datum is numbers over time, (T, C)."""
        return len(self.shape) == 2

    @property
    def image(self) -> bool:
        """Tell whether a datum can be shown as a picture."""
        return len(self.shape) == 3 and self.shape[0] in (1, 3, 4)

    @property
    def decoded(self) -> int:
        """Count the numbers that a decoder makes for one datum, but for scales beside means."""
        if self.kind is Kind.TOKENS:
            # logits are made of the tokens alone that are there
            return self.cells * min(self.levels, 512)
        return self.cells * (self.levels if self.levels > 2 else 1)

    @property
    def chunk(self) -> int:
        """Return how many rows go through a decoder at once outside of training: 32 .. 512, fewer
        for larger outputs."""
        return int(min(512, max(32, 2**22 // self.decoded)))

    # -- what an encoder sees ----------------------------------------------------------------------

    def count(self, kind: Kind) -> int:
        """Count a table's columns of a kind."""
        return sum(c.kind is kind for c in self.columns)

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Give the shape of what an encoder sees of one datum; where cells may be missing, with the
        mask beside them."""
        mask = int(self.missing)
        if self.kind is Kind.TABLE:
            categories = sum(len(c.values) for c in self.columns if c.kind is Kind.CATEGORY)
            return (
                len(self.columns)
                - self.count(Kind.CATEGORY)
                + categories
                + mask * len(self.columns),
            )
        if self.kind in (Kind.CATEGORY, Kind.TOKENS):
            return (*self.shape, self.levels + mask)
        if self.series:
            return (self.shape[0], (1 + mask) * self.shape[1])
        return ((1 + mask) * self.shape[0], *self.shape[1:])

    def features(self, x: Tensor, observed: Tensor | None, dtype: torch.dtype) -> Tensor:
        """Turn codes or values (B, *X) into what an encoder sees, (B, *feature_shape); cells not
        observed are zeros."""
        table = self.kind is Kind.TABLE
        if table:
            seen = self._table_features(x, observed, dtype)
        elif self.kind is Kind.CATEGORY:
            seen = F.one_hot(x.long(), self.levels).to(dtype)
        elif self.kind is Kind.TOKENS:
            return F.one_hot(F.pad(x.long(), (0, self.cells - x.shape[1])), self.levels).to(dtype)
        elif self.kind is Kind.LEVELS:
            seen = x.to(dtype) * (2 / (self.levels - 1)) - 1
        elif self.kind is Kind.COUNT:
            seen = torch.log1p(x.to(dtype))
        else:
            seen = x.to(dtype)
        if observed is not None and not table:
            seen = torch.where(
                observed.unsqueeze(-1) if self.kind is Kind.CATEGORY else observed, seen, 0.0
            )
        if not self.missing:
            return seen
        mask = torch.ones_like(x, dtype=dtype) if observed is None else observed.to(dtype)
        if self.kind is Kind.CATEGORY:
            return torch.cat([seen, mask.unsqueeze(-1)], -1)
        return torch.cat([seen, mask], -1 if self.series else 1)

    def _table_features(self, x: Tensor, observed: Tensor | None, dtype: torch.dtype) -> Tensor:
        x = x.to(dtype)
        real, count, category = (
            self.count(Kind.REAL),
            self.count(Kind.COUNT),
            self.count(Kind.CATEGORY),
        )
        single = len(self.columns) - category
        pieces = [x[:, :real]]
        if count:
            columns = self.columns[real : real + count]
            offset, scale = x.new_tensor([[c.offset for c in columns], [c.scale for c in columns]])
            pieces.append((torch.log1p(x[:, real : real + count]) - offset) / scale)
        pieces.append(x[:, real + count : single] * 2 - 1)
        out = torch.cat(pieces, 1)
        if observed is not None:
            out = torch.where(observed[:, :single], out, 0.0)
        if not category:
            return out
        sizes = [len(c.values) for c in self.columns[single:]]
        starts = torch.tensor([sum(sizes[:i]) for i in range(category)], device=x.device)
        ones = (
            torch.ones_like(x[:, single:]) if observed is None else observed[:, single:].to(dtype)
        )
        hot = x.new_zeros(len(x), sum(sizes)).scatter(1, x[:, single:].long() + starts, ones)
        return torch.cat([out, hot], 1)

    # -- between the user's units and ours ---------------------------------------------------------

    def log_dets(self) -> np.ndarray | None:
        """Return the log-determinant of user's units -> inside for each cell, (*shape,); None where
        it is zero."""
        if self.kind is Kind.TABLE:
            cells = -np.log([c.scale if c.kind is Kind.REAL else 1.0 for c in self.columns])
        elif self.kind not in (Kind.REAL, Kind.UNIT) or self.scale is None:
            return None
        else:
            cells = -np.log(np.broadcast_to(self.scale, self.shape))
        return cells if cells.any() else None

    def grid(self) -> np.ndarray | None:
        """Return the width of the dequantisation noise inside (see `widths`), broadcastable to the
        cells that
        have a density; None if no cell is dequantised.

        For levels it is 1: a density over codes spread by one.
        """
        if self.kind is Kind.LEVELS:
            return np.ones(())
        if self.kind is Kind.TABLE:
            steps = np.array(
                [
                    widths(c.resolution, c.scale) / c.scale
                    for c in self.columns
                    if c.kind is Kind.REAL
                ]
            )
        elif self.resolution is None or self.scale is None:
            return None
        else:
            # no deviation is known
            plain = self.offset is None or not (self.offset.any() or (self.scale != 1).any())
            steps = np.asarray(
                (self.resolution if plain else widths(self.resolution, self.scale)) / self.scale
            )
        return steps if steps.any() else None

    def transform(self) -> bytes:
        """Return what leads from values inside to the user's units, as bytes for a hash: to six
        digits, beyond which lies rounding."""
        if self.kind is Kind.TABLE:
            offset, scale = np.array([[c.offset, c.scale] for c in self.columns]).T
            words = repr([(c.name, c.kind, c.dtype, c.values) for c in self.columns]).encode()
        else:
            offset, scale, words = (
                np.asarray(0.0 if self.offset is None else self.offset),
                np.asarray(1.0 if self.scale is None else self.scale),
                b"",
            )
        return words + b"".join(
            (np.round(a, 6) + 0.0).tobytes() for a in (offset / scale, np.log(scale))
        )

    @property
    def on_grid(self) -> bool:
        """Return whether every value that has a density lies on a grid, so that a probability can
        be made of the density."""
        if self.kind is Kind.TABLE:
            return all(
                c.resolution > 0 and not c.atoms for c in self.columns if c.kind is Kind.REAL
            )
        if self.kind not in (Kind.REAL, Kind.UNIT):
            return True
        return (
            self.resolution is not None
            and bool((self.resolution > 0).all())
            and (self.atoms is None or not self.atoms.any())
        )

    def log_cells(self) -> np.ndarray | None:
        """Return the log-volume, in the user's units, of the grid's cell around each value,
        (*shape,); 0 where there is no
        grid, None where there is none at all. A density, plus this, is the probability of what is
        on the grid."""
        if self.kind is Kind.LEVELS:
            return np.full(self.shape, math.log(self.step))
        if self.kind is Kind.TABLE:
            steps = np.array([c.resolution if c.kind is Kind.REAL else 0.0 for c in self.columns])
        else:
            steps = np.broadcast_to(0.0 if self.resolution is None else self.resolution, self.shape)
        return np.log(np.where(steps > 0, steps, 1.0)) if steps.any() else None

    def seen(self, values: np.ndarray | Frame | Texts) -> np.ndarray | None:
        """Return which cells of the user's data were observed, (N, *shape); None when all were."""
        if isinstance(values, Texts):
            return None
        if isinstance(values, Frame):
            mask = np.stack([~np.ma.getmaskarray(values.columns[c.name]) for c in self.columns], 1)
        elif not self.missing or values.dtype.kind != "f":
            return None
        else:
            mask = self._inside(~np.isnan(values))
        return None if mask.all() else mask

    def inward(self, values: Any) -> Any:
        """Turn the user's array (N, *outside) or table into codes or values (N, *shape), missing
        cells becoming 0; texts into Ragged codes.

        Raises:
            ValueError: the shape or the columns are others, or a value is not one of this space's,
                or a text is too long.
        """
        if self.kind is Kind.TOKENS:
            return self._tokens(values)
        if isinstance(values, Texts):
            raise ValueError(f"expected {self} data; got texts")
        if self.kind is Kind.TABLE:
            if not isinstance(values, Frame):
                raise ValueError(f"expected a {self}; got an array")
            lacking = [name for name in self.names if name not in values.columns]
            if lacking:
                raise ValueError(
                    f"expected a column {lacking[0]!r}; got {', '.join(list(values.columns)[:12])}"
                )
            return np.stack([c.inward(values.columns[c.name]) for c in self.columns], 1)
        if isinstance(values, Frame):
            raise ValueError(f"expected {self} data; got a table")
        values = np.asarray(values)
        if values.shape[1:] != self.outside:
            raise ValueError(
                f"expected data of shape (N, {_commas(self.outside)}); got {values.shape}"
            )
        values = self._inside(values)
        if values.dtype.kind not in "biuf":
            raise ValueError(f"expected numbers; got an array of {values.dtype}")
        absent = None
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            absent = np.isnan(values)
            nan, infinite = 0 if self.missing else int(absent.sum()), int(np.isinf(values).sum())
            if nan or infinite:
                raise ValueError(f"expected finite values; got {nan} NaN and {infinite} infinite")
        if self.kind in (Kind.REAL, Kind.UNIT):
            assert self.offset is not None and self.scale is not None
            if self.kind is Kind.UNIT and ((values <= 0) | (values >= 1)).any():
                wrong = values[(values <= 0) | (values >= 1)]
                raise ValueError(
                    f"expected values inside (0, 1); got {wrong[0]:g} (kind=real takes any)"
                )
            if self.strays is not None and self.resolution is not None:
                step, origin = (
                    np.where(self.strays, self.resolution, 1.0),
                    0.0 if self.origin is None else self.origin,
                )
                values = np.where(
                    self.strays, _rounded(values.astype(np.float64), step, origin), values
                )
            inside = np.asarray((values - self.offset) / self.scale, np.float32)
            return inside if absent is None else np.where(absent, np.float32(0), inside)
        if absent is not None:
            values = np.where(absent, self.low, values)
        if self.step == 1 and values.dtype == np.uint8 and self.low == 0:
            codes = values
        else:
            codes = (values.astype(np.float64) - self.low) / self.step
            # levels stored as k / 255 in float32
            codes = np.where(np.abs(codes - np.rint(codes)) < 1e-4, np.rint(codes), codes)
        if self.kind is Kind.COUNT:
            if len(codes) and (
                codes.min() < 0 or codes.max() > LARGEST_COUNT or (codes != np.rint(codes)).any()
            ):
                raise ValueError(
                    f"expected counts 0 .. {LARGEST_COUNT:,}; got {_strangers(codes, self)}"
                )
            return codes.astype(np.int32)
        every = self.levels == 256 and codes.dtype == np.uint8
        if not every and len(codes):
            outside = codes.min() < 0 or codes.max() > self.levels - 1
            if outside or (codes.dtype.kind == "f" and (codes != np.rint(codes)).any()):
                raise ValueError(
                    f"expected {self.kind} values {self._values()}; got {_strangers(codes, self)}"
                )
        return codes.astype(np.uint8 if self.levels <= 256 else np.int32, copy=False)

    def _tokens(self, values: Any) -> Ragged:
        """Cut texts into tokens. Those of exactly `shape` tokens stand for all that begin so;
        longer ones are refused."""
        assert self.tokeniser is not None
        if not isinstance(values, Texts):
            raise ValueError(
                f"expected {self}; got {'a table' if isinstance(values, Frame) else 'numbers'}"
            )
        rows = self.tokeniser.cut(values, self.shape[0])
        sizes = np.diff(rows.starts)
        if sizes.max(initial=0) > self.shape[0]:
            raise ValueError(
                f"expected texts of at most {self.shape[0]:,} tokens (length={self.shape[0]} "
                f"cuts longer ones); "
                f"got one of {sizes.max():,} in row {sizes.argmax() + 1:,}"
            )
        return rows

    def _inside(self, values: np.ndarray) -> np.ndarray:
        """Lay an array (N, *outside) out as (N, *shape)."""
        if len(self.outside) == 3:
            values = np.moveaxis(values, -1, 1)
        return values.reshape(len(values), *self.shape)

    def outward(self, x: np.ndarray, *, exact: bool = True) -> Any:
        """Turn codes or values inside (..., *shape) into the user's layout and units: (...,
        *outside), a Frame, or Texts.

        With `exact`, also into the user's dtype and onto the grid of its values; without it (means,
        probabilities) into `float_dtype`, and binary data stay probabilities in 0 .. 1. Codes of
        tokens become Texts.
        """
        if self.kind is Kind.TOKENS:
            assert self.tokeniser is not None
            return self.tokeniser.decode(np.asarray(x))
        if self.kind is Kind.TABLE:
            made = {
                c.name: np.ma.MaskedArray(c.outward(x[..., i], exact=exact))
                for i, c in enumerate(self.columns)
            }
            return Frame({name: made[name] for name in self.names})
        lead = x.shape[: x.ndim - len(self.shape)]
        if np.dtype(self.dtype) != np.uint8:  # the user's values may need more digits than codes do
            x = np.asarray(x, np.float64)
        if self.kind in (Kind.REAL, Kind.UNIT):
            assert self.offset is not None and self.scale is not None
            x = x * self.scale + self.offset
            if exact and self.resolution is not None:
                step = np.where(self.resolution > 0, self.resolution, 1.0)
                origin = 0.0 if self.origin is None else self.origin
                x = np.where(
                    self.resolution > 0,
                    _on_grid(x, step, origin, self.atoms is not None and self.atoms),
                    x,
                )
        elif self.kind is not Kind.COUNT:
            if exact:
                # a density over spread levels may fall outside them
                x = np.clip(np.rint(x), 0, self.levels - 1)
            elif self.kind is Kind.LEVELS:
                x = np.clip(x, 0, self.levels - 1)
            if exact or self.kind is not Kind.BINARY:
                x = x * self.step + self.low
        x = x.reshape(*lead, *self.shape)
        if len(self.outside) == 3:
            x = np.moveaxis(x, -3, -1)
        x = x.reshape(*lead, *self.outside)
        if not exact:
            return x.astype(self.float_dtype)
        kind = np.dtype(self.dtype)
        return rounded(x, kind) if kind.kind in "iu" else x.astype(kind)

    @property
    def floating(self) -> bool:
        """Tell whether the user's dtype holds fractions."""
        return np.dtype(self.dtype).kind == "f"

    @property
    def float_dtype(self) -> np.dtype:
        """Return the dtype of means: float64 where the user's values are, or where float32 lacks
        digits for them; else float32."""
        own = np.dtype(self.dtype)
        if own.kind == "f" and own.itemsize > 4:
            return own
        if self.kind is Kind.BINARY:
            return np.dtype(np.float32)
        if self.kind in (Kind.REAL, Kind.UNIT):
            assert self.offset is not None and self.scale is not None
            largest, step = np.abs(self.offset) + 10 * self.scale, self.scale
        else:
            largest, step = (
                np.asarray(max(abs(self.low), abs(self.low + self.step * self.levels))),
                np.asarray(self.step),
            )
        enough = (np.finfo(np.float32).eps * largest <= FINE * step).all()
        return np.dtype(np.float32 if enough else np.float64)

    def outward_mask(self, observed: np.ndarray) -> np.ndarray:
        """Lay a mask (N, *shape) out as the user's data, (N, *outside)."""
        if len(self.outside) == 3:
            observed = np.moveaxis(observed, 1, -1)
        return observed.reshape(len(observed), *self.outside)

    def _values(self) -> str:
        shown = [f"{self.low + self.step * code:g}" for code in range(min(self.levels, 2))]
        return (
            f"{shown[0]} and {shown[-1]}"
            if self.levels == 2
            else f"{shown[0]}, {shown[1]} .. {self.low + self.step * (self.levels - 1):g}"
        )

    # -- storing -----------------------------------------------------------------------------------

    def scalars(self) -> dict[str, Any]:
        """Return the fields that are not arrays, as JSON takes them."""
        out = {name: getattr(self, name) for name in self.SCALARS}
        out = {name: list(v) if isinstance(v, tuple) else v for name, v in out.items()} | {
            "kind": str(self.kind)
        }
        if self.tokeniser is not None:
            out["tokeniser"] = self.tokeniser.scalars()
        if self.columns:
            out["columns"] = [
                asdict(c) | {"kind": str(c.kind), "values": list(c.values), "start": list(c.start)}
                for c in self.columns
            ]
        return out

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the fitted arrays by name."""
        return {
            name: getattr(self, name) for name in self.ARRAYS if getattr(self, name) is not None
        }

    @classmethod
    def restore(cls, scalars: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Space:
        """Make a space again from `scalars()` and `arrays()`."""
        fields = {**scalars, "kind": Kind(scalars["kind"])}
        fields |= {
            name: tuple(fields[name]) for name in ("shape", "outside", "names") if name in fields
        }
        if "tokeniser" in fields:
            fields["tokeniser"] = Tokeniser.restore(fields["tokeniser"])
        fields["columns"] = tuple(
            Column(
                **{
                    **c,
                    "kind": Kind(c["kind"]),
                    "values": tuple(c["values"]),
                    "start": tuple(c["start"]),
                }
            )
            for c in fields.get("columns", ())
        )
        return cls(**fields, **dict(arrays))  # type: ignore[arg-type]


def _commas(shape: Sequence[int]) -> str:
    return ", ".join(map(str, shape))


def _strangers(codes: np.ndarray, space: Space) -> str:
    high = space.levels - 1 if space.levels else LARGEST_COUNT
    wrong = codes[(codes < 0) | (codes > high) | (codes != np.rint(codes))]
    return ", ".join(f"{space.low + space.step * v:g}" for v in np.unique(wrong)[:3]) + (
        " .." if wrong.size > 3 else ""
    )


@dataclass(frozen=True, eq=False)
class Batch:
    """Hold some data: values, which of them are observed, and what is given.

    Args:
        x: codes or values, (B, *X); of tokens (B, t), t being the longest row's size.
        observed: True where a cell was seen, (B, *X); None when all were.
        given: conditions as a network sees them, (B, G); None without.
        widths: where several steps were gathered at once, the size of each step's longest row,
            where rows differ in size.
    """

    x: Tensor
    observed: Tensor | None = None
    given: Tensor | None = None
    widths: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.x)

    def tensors(self) -> list[Tensor]:
        """Return the tensors that are there, as `of_tensors` takes them."""
        return [t for t in (self.x, self.observed, self.given) if t is not None]

    def of_tensors(self, tensors: Sequence[Tensor]) -> tuple[Batch, Sequence[Tensor]]:
        """Return a batch that has the same parts, made of the first of these tensors, and the
        tensors that are left."""
        observed, given = self.observed is not None, self.given is not None
        left = 1 + observed + given
        return Batch(
            tensors[0], tensors[1] if observed else None, tensors[left - 1] if given else None
        ), tensors[left:]

    def __getitem__(self, rows: Any) -> Batch:
        """Return some rows, or one step of several that were gathered at once."""
        observed, given = (None if t is None else t[rows] for t in (self.observed, self.given))
        x = self.x[rows]
        return Batch(x if self.widths is None else x[:, : self.widths[rows]], observed, given)
