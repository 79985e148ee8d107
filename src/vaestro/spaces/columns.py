"""The columns of a table: one class for each kind."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, ClassVar, final

import numpy as np

from vaestro.files import Json
from vaestro.spaces.grids import LARGEST_COUNT, nearest, onto_grid, rounded
from vaestro.spaces.kinds import Kind

if TYPE_CHECKING:
    from torch import Tensor

DAY = np.timedelta64(1, "D")
Label = str | int | float | bool  # a value of a coded column; dates are ISO text


class UnknownCategory(ValueError):
    """Report a value that is no category of a coded column.

    >>> issubclass(UnknownCategory, ValueError)
    True
    """


@dataclass(frozen=True)
class Column(ABC):
    """Describe one column of a table.

    Args:
        name: its name.
        dtype: the user's NumPy dtype ("str" for text), which samples are written in.
        values: the user's values of the codes, for binary and category; a constant column is a
            category of one value.
        offset, scale: of real values; of log(1 + value) for counts, which only the encoder uses.
        resolution: step of the grid that real values lie on, in the user's units; 0 if there is no
            grid. The noise may be wider: see `widths`.
        start: frequencies of the codes or of the `points`, or the mean count, in the training
            split.
        missing: whether it has empty cells.
        origin: a point of that grid.
        atoms: whether there is no grid, but values repeat, `origin` most often: `resolution` is the
            width of their cells.
        strays: whether a few values lie off the grid (off the whole numbers for counts). They are
            rounded to it inside, so that the cells stay disjoint and their probabilities sum to
            one.
        transform: the marginal transform of real values inside (`spaces.warps`).
        numbers: of that transform.
        points: real values that are much more frequent than their neighbours; the model has a
            probability for each.
        limits: the smallest and the largest value in the training split; draws and means lie
            between them. Empty for no limits.
        declared: the declared type (`vaestro.column_types`); empty for that of `dtype`.
        format: how its cells are written in the source, as `data.formats` stores it; "" for
            numbers, dates and words that are written as they are.
        added: number of values, the last ones, that are new categories of a condition, learned
            after all others (`vaestro.new_categories`).
    """

    name: str
    dtype: str
    values: tuple[Label, ...] = ()
    offset: float = 0.0
    scale: float = 1.0
    resolution: float = 0.0
    start: tuple[float, ...] = ()
    missing: bool = False
    origin: float = 0.0
    atoms: bool = False
    strays: bool = False
    transform: str = "identity"
    numbers: tuple[float, ...] = ()
    points: tuple[float, ...] = ()
    limits: tuple[float, ...] = ()
    declared: str = ""
    format: str = ""
    added: int = 0

    kind: ClassVar[Kind]
    counting: ClassVar[bool] = True  # whether its cells have probabilities and not densities
    coded: ClassVar[bool] = False  # whether its cells are codes of `values`
    numeric: ClassVar[bool] = False  # whether its values are numbers with a mean
    one_hot: ClassVar[bool] = False  # whether an encoder's inputs are one-hot codes
    ordered: ClassVar[bool] = False  # whether its codes are ordered categories
    sizes: ClassVar[tuple[int, ...]] = ()  # the numbers of values that it can have; (): any

    @property
    def features(self) -> int:
        """Return the number of an encoder's inputs for one cell."""
        return 1

    @property
    def support(self) -> tuple[float, float]:
        """Return the lowest and the highest value that a cell can have inside."""
        if self.coded:
            return 0.0, float(len(self.values) - 1)
        return (0.0 if self.counting else -math.inf), math.inf

    @property
    def unit(self) -> float:
        """Return the number of the user's units that one unit inside has."""
        return 1.0

    @abstractmethod
    def inward(self, values: np.ma.MaskedArray) -> np.ndarray:
        """Return the user's column (N,) as codes or standardised values (N,), float32; empty cells
        are 0.

        Raises:
            ValueError: the column cannot contain one of the values.
        """

    @abstractmethod
    def outward(self, x: np.ndarray, *, exact: bool = True) -> np.ndarray:
        """Return codes or standardised values (...) as the user's values and dtype, on their grid.

        Without `exact`, real values stay off the grid, and counts may be fractions: these are means
        and not data.
        """

    @abstractmethod
    def typed(self, value: object) -> np.ndarray:
        """Return one value, (1,), in the column's dtype, also if it was written as text.

        Raises:
            ValueError: the column cannot contain the value: an unknown category, not a number or
                date, or a fraction of a whole number or of a day.
        """

    @abstractmethod
    def encoded(self, run: Sequence[Column], x: Tensor, observed: Tensor | None) -> Tensor:
        """Return an encoder's input for a run of columns of this kind, (B, features).

        Cells that are not observed are zeros.

        Args:
            run: the columns.
            x: their codes or values, (B, columns).
            observed: which of them were observed; None if all were.
        """

    def decoded(self, x: Tensor) -> Tensor:
        """Return the user's numbers from an encoder's input; of a numeric column."""
        return x * self.scale + self.offset

    def limited(self, values: np.ndarray) -> np.ndarray:
        """Return drawn or decoded values, in the user's units, within the column's limits."""
        return values

    def strangers(self, values: np.ma.MaskedArray) -> tuple[Label, ...]:
        """Return the user's values that are no category of the column, each once, in order; ()
        for columns that are not coded."""
        return ()

    def first_outputs(self) -> Tensor:
        """Return the decoder's outputs, (n,), at which a coded column has its frequencies in the
        training split."""
        raise NotImplementedError(f"column {self.name!r} has no codes")

    def scalars(self) -> dict[str, Json]:
        """Return the fields for JSON."""
        fields = {n: list(v) if isinstance(v, tuple) else v for n, v in asdict(self).items()}
        return {"name": fields.pop("name"), "kind": str(self.kind), **fields}


@dataclass(frozen=True)
class CodedColumn(Column):
    """Describe a column of a known number of values, whose codes are 0, 1, and so on.

    >>> CodedColumn.coded
    True
    """

    coded = True

    def frequencies(self) -> Tensor:
        """Return the frequencies of the codes in the training split, (values,), at least 1e-4."""
        import torch

        count = max(1, len(self.values))
        p = torch.tensor(self.start or [1 / count] * len(self.values))
        return p.clamp(1e-4, 1 - 1e-4)

    def inward(self, values: np.ma.MaskedArray) -> np.ndarray:
        mask = np.ma.getmaskarray(values)
        if mask.all():
            return np.zeros(len(mask), np.float32)  # cells that are all empty have no type
        distinct, codes, inverse = self._coded(values)
        if (codes < 0).any():
            strangers = [str(v) for v in distinct[codes < 0][:3]]
            shown = ", ".join(map(str, self.values[:5])) + (" .." if len(self.values) > 5 else "")
            raise UnknownCategory(
                f"expected a known category in column {self.name!r} ({shown}); got "
                f"{', '.join(strangers)}"
            )
        out = np.zeros(len(mask), np.float32)
        out[~mask] = codes[inverse]
        return out

    def strangers(self, values: np.ma.MaskedArray) -> tuple[Label, ...]:
        if np.ma.getmaskarray(values).all():
            return ()
        distinct, codes, _ = self._coded(values)
        return tuple(distinct[codes < 0].tolist())

    def _coded(self, values: np.ma.MaskedArray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the distinct values of the user's cells that are not empty, their codes (-1 for
        unknown ones), and the position of each cell among them."""
        mask, data = np.ma.getmaskarray(values), np.asarray(values.data)
        if self.dtype == "str" and data.dtype.kind != "U":
            data = data.astype(str)  # a code such as 0123 that another file stores as numbers
        elif self.dtype.startswith("datetime64") and data.dtype.kind == "M":
            data = data.astype(self.dtype).astype(str)  # values are dates as ISO text
        elif self.dtype.startswith("float") and data.dtype.kind in "iuf":
            data = data.astype(self.dtype)  # 0.1 of float64 is another number than 0.1 of float32
        codes_of: dict[Label, int] = {value: code for code, value in enumerate(self.values)}
        # one text among numbers makes a column of text
        if data.dtype.kind == "U" and self.dtype != "str":
            codes_of = {str(value): code for value, code in codes_of.items()}
        distinct, inverse = np.unique(data[~mask], return_inverse=True)
        codes = np.array([codes_of.get(value.item(), -1) for value in distinct], np.float32)
        return distinct, codes, inverse.ravel()

    def outward(self, x: np.ndarray, *, exact: bool = True) -> np.ndarray:
        table = np.array(self.values, dtype=None if self.dtype == "str" else self.dtype)
        return table[np.rint(x).astype(np.int64)]

    def typed(self, value: object) -> np.ndarray:
        for label in self.values:
            if value == label or str(value).lower() == str(label).lower():
                return np.array([label], None if self.dtype == "str" else self.dtype)
        shown = ", ".join(map(str, self.values[:12])) + (" .." if len(self.values) > 12 else "")
        raise ValueError(f"expected {self.name} to be one of {shown}; got {value}")


@final
class BinaryColumn(CodedColumn):
    """Describe a column of two values.

    >>> BinaryColumn("member", "bool", (False, True)).inward(np.ma.array([True, False]))
    array([1., 0.], dtype=float32)
    """

    kind = Kind.BINARY
    sizes = (2,)

    def encoded(self, run: Sequence[Column], x: Tensor, observed: Tensor | None) -> Tensor:
        return masked(x * 2 - 1, observed)

    def first_outputs(self) -> Tensor:
        return self.frequencies()[1:2].logit()


@final
class CategoryColumn(CodedColumn):
    """Describe a column of unordered categories.

    >>> CategoryColumn("colour", "str", ("blue", "red")).inward(np.ma.array(["red"]))
    array([1.], dtype=float32)
    """

    kind = Kind.CATEGORY
    one_hot = True

    @property
    def features(self) -> int:
        return len(self.values)

    def encoded(self, run: Sequence[Column], x: Tensor, observed: Tensor | None) -> Tensor:
        import torch

        sizes = [c.features for c in run]
        starts = torch.tensor([sum(sizes[:i]) for i in range(len(sizes))], device=x.device)
        ones = torch.ones_like(x) if observed is None else observed.to(x.dtype)
        return x.new_zeros(len(x), sum(sizes)).scatter(1, x.long() + starts, ones)

    def first_outputs(self) -> Tensor:
        return self.frequencies().log()


@dataclass(frozen=True)
class _NumberColumn(Column):
    """Describe a column of numbers or dates."""

    numeric = True
    example: ClassVar[str] = "a number"

    def inward(self, values: np.ma.MaskedArray) -> np.ndarray:
        mask, data = np.ma.getmaskarray(values), np.asarray(values.data)
        if mask.all():
            return np.zeros(len(data), np.float32)  # cells that are all empty have no type
        numbers = self._numbers(data, mask)
        wrong = ~np.isfinite(numbers) & ~mask
        if wrong.any():
            raise ValueError(
                f"expected finite values in column {self.name!r}; got {int(wrong.sum())} that "
                f"are infinite"
            )
        if self.strays:
            numbers = nearest(numbers, self.resolution or 1.0, self.origin)
        return np.where(mask, 0.0, self._inside(numbers, mask)).astype(np.float32)

    def _numbers(self, data: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Return the user's values as float64."""
        if data.dtype.kind not in "biuf":
            raise self._mismatch("numbers", data, mask)
        return data.astype(np.float64)

    def _mismatch(self, expected: str, data: np.ndarray, mask: np.ndarray) -> ValueError:
        kinds = {"M": "dates", "U": "text", "O": "text", "S": "text"}
        got = kinds.get(data.dtype.kind, "numbers")
        return ValueError(
            f"expected {expected} in column {self.name!r}; got {got}, such as "
            f"{str(data[~mask][0])[:30]!r}"
        )

    def _inside(self, numbers: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Return finite numbers as values inside."""
        return (numbers - self.offset) / self.scale

    def typed(self, value: object) -> np.ndarray:
        dtype = np.dtype(self.dtype)
        given = _array(value, "float64")
        fits = np.isfinite(given).all()
        if dtype.kind in "iu":
            limits = np.iinfo(dtype)
            fits = (given == np.rint(given)) & (given >= limits.min) & (given <= limits.max)
        if not fits:
            raise self._refusal("a whole number" if dtype.kind in "iu" else "a number", value)
        return given.astype(dtype)

    def limited(self, values: np.ndarray) -> np.ndarray:
        if not self.limits:
            return values
        low, high = self._ends(values.dtype)
        values = np.where(values < low, low, values)
        return np.where(values > high, high, values)

    def _ends(self, dtype: np.dtype) -> tuple[np.generic, np.generic]:
        """Return the limits in a dtype."""
        low, high = np.array(self.limits).astype(dtype)
        return low, high

    def _refusal(self, expected: str, value: object) -> ValueError:
        return ValueError(f"expected {expected} for {self.name}, as in its column; got {value!r}")

    def outward(self, x: np.ndarray, *, exact: bool = True) -> np.ndarray:
        numbers = self._outside(x.astype(np.float64))
        if not exact:
            return numbers
        if self.resolution:
            numbers = self._snapped(numbers)
        if np.dtype(self.dtype).kind in "iu":
            return rounded(numbers, np.dtype(self.dtype))
        if self.resolution and not self.atoms:  # 29 * 0.01 is 0.29000000000000004
            steps = self.resolution * 10.0 ** np.arange(9)
            points = np.stack([steps, self.origin * 10.0 ** np.arange(9)])
            whole = (np.abs(points - np.rint(points)) < 1e-9 * steps).all(0)
            numbers = np.round(numbers, int(whole.argmax())) if whole.any() else numbers
        return numbers.astype(self.dtype)

    def _snapped(self, numbers: np.ndarray) -> np.ndarray:
        """Return numbers on the grid, and those in the cell of a repeated value as that value."""
        numbers = onto_grid(numbers, self.resolution, self.origin, self.atoms)
        for point in self.points if self.atoms else ():
            numbers = np.where(np.abs(numbers - point) <= self.resolution / 2, point, numbers)
        return numbers

    def _outside(self, x: np.ndarray) -> np.ndarray:
        """Return values inside, float64, in the user's units."""
        return x * self.scale + self.offset


@dataclass(frozen=True)
class _DenseColumn(_NumberColumn):
    """Describe a column whose values have a density."""

    kind = Kind.REAL
    counting = False

    @property
    def unit(self) -> float:
        return self.scale

    def encoded(self, run: Sequence[Column], x: Tensor, observed: Tensor | None) -> Tensor:
        return masked(x, observed)

    def decoded(self, x: Tensor) -> Tensor:
        from vaestro.spaces.warps import Warps

        warps = Warps.of([self])
        return super().decoded(warps.values(x.unsqueeze(-1)).squeeze(-1))


@final
class RealColumn(_DenseColumn):
    """Describe a column of real numbers.

    >>> RealColumn("size", "float64", offset=10.0, scale=4.0).outward(np.array([0.5]))
    array([12.])
    """


@final
class DateColumn(_DenseColumn):
    """Describe a column of dates; its numbers are days since 1970.

    >>> DateColumn("day", "datetime64[D]").inward(np.ma.array(["1970-01-03"], "datetime64[D]"))
    array([2.], dtype=float32)
    """

    def _numbers(self, data: np.ndarray, mask: np.ndarray) -> np.ndarray:
        if data.dtype.kind != "M":
            raise self._mismatch("dates", data, mask)
        return np.where(np.isnat(data), np.nan, (data - np.datetime64(0, "D")) / DAY)

    def typed(self, value: object) -> np.ndarray:
        given = _array(value, "datetime64[us]")
        if not (np.isfinite(given).all() and (given.astype(self.dtype) == given).all()):
            raise self._refusal("a day" if self.dtype == "datetime64[D]" else "a date", value)
        return given.astype(self.dtype)

    def outward(self, x: np.ndarray, *, exact: bool = True) -> np.ndarray:
        days = self._outside(x.astype(np.float64))
        if self.resolution:
            days = self._snapped(days)
        since = np.rint(days * 86400e6).astype("timedelta64[us]")
        return (np.datetime64(0, "us") + since).astype(self.dtype)

    def _ends(self, dtype: np.dtype) -> tuple[np.generic, np.generic]:
        if dtype.kind != "M":
            return super()._ends(dtype)
        since = np.rint(np.array(self.limits) * 86400e6).astype("timedelta64[us]")
        low, high = (np.datetime64(0, "us") + since).astype(dtype)
        return low, high


@final
class CountColumn(_NumberColumn):
    """Describe a column of counts.

    >>> CountColumn("visits", "int64").inward(np.ma.array([0, 3]))
    array([0., 3.], dtype=float32)
    """

    kind = Kind.COUNT

    def _inside(self, numbers: np.ndarray, mask: np.ndarray) -> np.ndarray:
        bad = ((numbers < 0) | (numbers != np.rint(numbers)) | (numbers > LARGEST_COUNT)) & ~mask
        if bad.any():
            raise ValueError(
                f"expected counts of 0 .. {LARGEST_COUNT:,} in column {self.name!r}; got "
                f"{numbers[bad][0]:g}"
            )
        return numbers

    def _outside(self, x: np.ndarray) -> np.ndarray:
        return x

    def encoded(self, run: Sequence[Column], x: Tensor, observed: Tensor | None) -> Tensor:
        import torch

        offset, scale = x.new_tensor([[c.offset for c in run], [c.scale for c in run]])
        return masked((torch.log1p(x) - offset) / scale, observed)

    def decoded(self, x: Tensor) -> Tensor:
        return super().decoded(x).expm1()


def masked(x: Tensor, observed: Tensor | None) -> Tensor:
    """Return an encoder's input with zeros in cells that are not observed.

    >>> import torch
    >>> masked(torch.ones(2), torch.tensor([True, False]))
    tensor([1., 0.])
    """
    import torch

    return x if observed is None else torch.where(observed, x, 0.0)


def _array(value: object, dtype: str) -> np.ndarray:
    """Return one value as an array (1,); NaN if it is of another type."""
    try:
        return np.array([value]).astype(dtype)
    except (TypeError, ValueError):
        return np.array([np.nan])
