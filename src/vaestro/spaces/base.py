"""What every space has: a shape, a layout, features, and the transform to and from the user's
units.

Inside, discrete data are codes 0 .. levels - 1, counts are themselves, and real data are (value -
offset) / scale. The log-determinant of the scale is part of every bound, so that numbers do not
depend on preprocessing. Statistics come from the training split and are stored with the weights.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import numpy as np

from vaestro.files import Json
from vaestro.spaces.columns import Column
from vaestro.spaces.grids import FINE
from vaestro.spaces.kinds import Kind
from vaestro.spaces.layouts import LAYOUTS, Layout, restored_layout, stored_layout
from vaestro.spaces.series import LongTable
from vaestro.tokens import Tokeniser

if TYPE_CHECKING:
    import torch
    from torch import Tensor

S = TypeVar("S", bound="Space")


@dataclass(frozen=True, eq=False)
class Space(ABC):
    """Describe the data: their shape, their layout, and the transform to and from the user's units.

    There is one class for each kind of data.

    Args:
        shape: the shape of one datum inside, *X; images are (C, H, W).
        outside: the shape of one datum in the user's layout; images are (H, W) or (H, W, C).
        dtype: the user's NumPy dtype, which samples are written in.
        low: the user's value of code 0.
        step: the user's distance between two codes (255 for black-and-white images stored as 0 and
            255).
        levels: number of values of a discrete cell; 0 for real data and counts.
        missing: whether cells may be missing; the encoder then also receives the mask.
        tokeniser: cuts texts into tokens and joins them.
        columns: the columns of a table, in the order inside, which is that of COLUMN_ORDER.
        names: the names of a table's columns in the user's order, of the cells of counts, such
            as genes, or of the channels of series, if known.
        offset, scale: float64 arrays that broadcast to *X; real data only.
        resolution, origin: step and one point of the grid that real data lie on; float64 arrays
            that broadcast to *X; a step of 0 if there is no grid.
        atoms: whether values repeat without a grid, as in a Column; bools that broadcast to *X.
        strays: whether a few values lie off the grid, as in a Column; bools that broadcast to *X.
        marginal: the training split's probability of a one (binary, *X), frequencies of the codes
            (levels and categories, (levels, *X) or (levels, 1, ..)) or mean (counts, *X); the
            decoder's last bias starts there.
        lengths: the training split's probability of each length 1 .. T of series, (T,), float64;
            None if all data have the same length.
        empty: the training split's share of empty cells, of tables and vectors, (*X), float64;
            None if all cells are observed, or if which are is not modelled.
        limits: the lowest and the highest value that real values of an array can have, None for
            none; () without limits.
        at_limits: the training split's share of values at the lowest and at the highest one,
            (2, *X), float64; 0 if no value is there.
        softness: the width inside of the part near a limit in which the transform is not linear.
        layout: how the cells are arranged.
        long_table: the table from which series were read; None for other data.
        absent: the values of an array other than NaN that mean a missing cell, as text (see
            `missing_cells`).
        unseen: cells that are missing in every training row, which are not modelled; bools (*X).
    """

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
    lengths: np.ndarray | None = field(default=None, repr=False)
    empty: np.ndarray | None = field(default=None, repr=False)
    limits: tuple[float | None, ...] = ()
    at_limits: np.ndarray | None = field(default=None, repr=False)
    softness: float = 0.25
    layout: Layout = LAYOUTS["vector"]
    long_table: LongTable | None = field(default=None, repr=False)
    absent: tuple[str, ...] = ()
    unseen: np.ndarray | None = field(default=None, repr=False)

    SCALARS: ClassVar[tuple[str, ...]] = (
        "shape",
        "outside",
        "dtype",
        "low",
        "step",
        "levels",
        "missing",
        "names",
        "limits",
        "softness",
    )
    ARRAYS: ClassVar[tuple[str, ...]] = (
        "offset",
        "scale",
        "resolution",
        "origin",
        "atoms",
        "strays",
        "marginal",
        "lengths",
        "empty",
        "at_limits",
        "unseen",
    )

    kind: ClassVar[Kind]
    counting: ClassVar[bool]  # whether p(x) is a probability
    likelihood: ClassVar[str]  # the default one, without options
    tabular: ClassVar[bool] = False  # whether the user's data are a Frame
    ragged: ClassVar[bool] = False  # whether rows differ in size
    has_mean: ClassVar[bool] = True  # whether a mean of its values is meaningful
    probabilities: ClassVar[bool] = False  # whether means are probabilities of a one
    standardised: ClassVar[bool] = False  # whether offset and scale are fitted to the data
    marginal_is_mean: ClassVar[bool] = False  # whether `marginal` is a mean, not frequencies
    ordered: ClassVar[bool] = False  # whether codes are ordered levels
    sparse: ClassVar[bool] = False  # whether rows can be those of a sparse matrix of counts
    accepted: ClassVar[str] = "numbers"  # what `inward` takes, in words
    convolved_from: ClassVar[int] = 28  # the side of images from which convolutions are the default

    def __str__(self) -> str:
        arranged = f"{self.layout.name} " if self.layout.described else ""
        return f"{self._title()} {arranged}{self.outside}"

    def _title(self) -> str:
        return str(self.kind)

    def converted(self, cls: type[S], **changes: float) -> S:
        """Return the space of the same arrays read as another kind of data.

        Args:
            cls: the class of the other kind.
            changes: fields that have other values.
        """
        kept = {f.name: getattr(self, f.name) for f in fields(self)}
        return cls(**(kept | changes))

    # -- what it is --------------------------------------------------------------------------------

    @property
    def discrete(self) -> bool:
        """Return whether p(x) is a probability (counting measure) and not a density (Lebesgue
        measure)."""
        return self.measure == "counting"

    @property
    def measure(self) -> str:
        """Return the measure of p(x): counting, lebesgue, or mixed (a table of both)."""
        return "counting" if self.counting else "lebesgue"

    @property
    def cells(self) -> int:
        """Return the number of cells of one datum."""
        return math.prod(self.shape)

    @property
    def image(self) -> bool:
        """Return whether a datum can be shown as a picture."""
        return self.layout.picture(self.shape)

    @property
    def decoded(self) -> int:
        """Return the number of decoder outputs for one datum, without those for scales."""
        return self.cells * (self.levels if self.levels > 2 else 1)

    @property
    def chunk(self) -> int:
        """Return the number of rows that a decoder processes at once outside of training: 32 ..
        512, fewer for larger outputs."""
        return int(min(512, max(32, 2**22 // self.decoded)))

    @property
    def default_likelihood(self) -> str:
        """Return the likelihood that is used if none is named."""
        return self.likelihood

    @property
    def default_network(self) -> str:
        """Return the networks that are used if none are named: convolutions for photographs and
        larger images, over time for series, recurrent ones for texts."""
        return self.layout.network(self.shape, self.convolved_from)

    def of_kind(self, kind: Kind) -> tuple[Column, ...]:
        """Return a table's columns of a kind."""
        return tuple(c for c in self.columns if c.kind is kind)

    # -- what an encoder sees ----------------------------------------------------------------------

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Return the shape of an encoder's input for one datum; if cells may be missing, with the
        mask."""
        shape, axis = list(self.shape), self.layout.mask_axis
        shape[axis - 1 if axis > 0 else axis] *= 1 + int(self.missing)
        return tuple(shape)

    def features(self, x: Tensor, observed: Tensor | None, dtype: torch.dtype) -> Tensor:
        """Return an encoder's input, (B, *feature_shape), for codes or values (B, *X); cells that
        are not observed are zeros."""
        import torch

        seen = self._encoded(x, dtype)
        if observed is not None:
            seen = torch.where(observed, seen, 0.0)
        if not self.missing:
            return seen
        mask = torch.ones_like(x, dtype=dtype) if observed is None else observed.to(dtype)
        return torch.cat([seen, mask], self.layout.mask_axis)

    def _encoded(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Return an encoder's input for codes or values that were all observed."""
        return x.to(dtype)

    # -- densities in the user's units -------------------------------------------------------------

    def units(self) -> np.ndarray:
        """Return the number of the user's units that one unit inside has; it broadcasts to *X."""
        return np.ones(())

    def log_dets(self) -> np.ndarray | None:
        """Return the log-determinant of user's units -> inside for each cell, (*shape,); None if it
        is zero."""
        return None

    def frequencies(self) -> np.ndarray | None:
        """Return the training split's frequencies of the codes, (levels, *X) or (levels, 1, ..);
        None if they are not known."""
        return self.marginal

    def moments(self) -> tuple[float, float]:
        """Return mean and standard deviation inside, over all cells of the training split; 0 and 1
        for standardised data."""
        return 0.0, 1.0

    def standardised_means(self) -> np.ndarray:
        """Return the training split's mean of each cell, standardised by `moments`; float32, it
        broadcasts to *X."""
        return np.zeros((), np.float32)

    def deviations(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the standard deviation inside of each cell about its own mean in the training
        split, and whether the cell is constant, (*shape,)."""
        steps = self.grid()
        # A cell whose grid is as wide as its scale is constant but for the noise that spreads it
        # (data.fitting).
        constant = (
            np.zeros(self.shape, bool) if steps is None else np.broadcast_to(steps, self.shape) >= 1
        )
        return np.where(constant, math.sqrt(1 / 12), 1.0), constant

    def grid(self) -> np.ndarray | None:
        """Return the width of the dequantisation noise inside (see `widths`).

        It broadcasts to the cells that have a density, and is None if no cell is dequantised. For
        levels it is 1: a density over codes spread by one.
        """
        return None

    def transform(self) -> bytes:
        """Return the transform from values inside to the user's units as bytes for a hash, rounded
        to six digits."""
        return hashed(
            np.asarray(0.0 if self.offset is None else self.offset),
            np.asarray(1.0 if self.scale is None else self.scale),
        )

    @property
    def on_grid(self) -> bool:
        """Return whether every value with a density lies on a grid, so that the density can be
        turned into a probability."""
        return True

    def log_cells(self) -> np.ndarray | None:
        """Return the log-volume of the grid's cell around each value, in the user's units,
        (*shape,).

        It is 0 for a value without a grid, and None if there is no grid at all. A density plus this
        is the probability of a value on the grid.
        """
        return None

    def support(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the lowest and the highest value of each cell inside, and whether it is a whole
        number; they broadcast to *X."""
        low = 0.0 if self.counting else -math.inf
        high = float(self.levels - 1) if self.levels else math.inf
        return np.asarray(low), np.asarray(high), np.asarray(self.counting)

    # -- between the user's units and ours ---------------------------------------------------------

    def tensor_inward(self, values: Tensor) -> Tensor:
        """Return the user's array (N, *outside) as codes or values (N, *shape), by operations on
        tensors that can be exported; nothing is checked.

        Raises:
            ValueError: the data are no array of numbers.
        """
        raise ValueError(f"expected an array of numbers to export; got {self}")

    def tensor_outward(self, x: Tensor) -> Tensor:
        """Return means of p(x | z) inside, (N, *shape), in the user's layout and units, (N,
        *outside), not rounded; the counterpart of `tensor_inward`.

        Raises:
            ValueError: the data are no array of numbers.
        """
        raise ValueError(f"expected an array of numbers to export; got {self}")

    @abstractmethod
    def seen(self, values: object) -> np.ndarray | None:
        """Return which cells of the user's data were observed, (N, *shape); None if all were."""

    @abstractmethod
    def inward(self, values: object) -> Any:
        """Return the user's array (N, *outside), table or texts as codes or values (N, *shape).

        Missing cells are 0; texts are Ragged codes.

        Raises:
            ValueError: the shape or the columns differ, a value does not belong to this space, or a
                text is too long.
        """

    @abstractmethod
    def outward(self, x: np.ndarray, *, exact: bool = True) -> Any:
        """Return codes or values inside (..., *shape) in the user's layout and units: (...,
        *outside), a Frame, or Texts.

        With `exact`, also in the user's dtype and on the grid of its values. Without it (means,
        probabilities) in `float_dtype`, and binary data stay probabilities in 0 .. 1.
        """

    def limited(self, data: Any) -> Any:
        """Return drawn or decoded data, in the user's layout and units, within the limits of the
        training split; by default there are none."""
        return data

    def emptied(self, data: Any, empty: np.ndarray) -> Any:
        """Return data as `outward` returns them with some cells empty, bools (N, *shape), as the
        user's data write them; by default they cannot be."""
        return data

    def pictures(self, values: np.ndarray) -> np.ndarray:
        """Return data in the user's layout, (N, *outside), as pictures (N, H, W, C).

        Raises:
            ValueError: the data cannot be shown as pictures.
        """
        return self.layout.pictures(values, self.outside, alpha=self.alpha)

    @property
    def alpha(self) -> bool:
        """Return whether the fourth of 4 channels is opacity: in images of 8 bits."""
        return self.levels == 256

    @property
    def part_shown(self) -> str:
        """Return what `pictures` shows of a datum, in words, if that is not the datum as it is."""
        return self.layout.part_shown(self.shape, alpha=self.alpha)

    def arranged(self, values: np.ndarray) -> np.ndarray:
        """Return an array in the user's layout, (N, *outside), as (N, *shape)."""
        return self.layout.inward(values, self.shape, self.outside)

    def outward_mask(self, observed: np.ndarray) -> np.ndarray:
        """Return a mask (N, *shape) in the user's layout, (N, *outside)."""
        return self.layout.outward(observed, self.shape, self.outside)

    @property
    def floating(self) -> bool:
        """Return whether the user's dtype has fractions."""
        return np.dtype(self.dtype).kind == "f"

    @property
    def float_dtype(self) -> np.dtype:
        """Return the dtype of means: float64 if the user's values have it, or if float32 lacks
        digits for them; otherwise float32."""
        dtype = np.dtype(self.dtype)
        if dtype.kind == "f" and dtype.itemsize > 4:
            return dtype
        largest, step = self._digits()
        enough = (np.finfo(np.float32).eps * largest <= FINE * step).all()
        return np.dtype(np.float32 if enough else np.float64)

    def _digits(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the largest value and the step that means must resolve, in the user's units."""
        return (
            np.asarray(max(abs(self.low), abs(self.low + self.step * self.levels))),
            np.asarray(self.step),
        )

    # -- storing -----------------------------------------------------------------------------------

    def scalars(self) -> dict[str, Json]:
        """Return the fields that are not arrays, for JSON."""
        plain = {name: getattr(self, name) for name in self.SCALARS}
        out = {"kind": str(self.kind), "layout": self.layout.name} | {
            name: list(v) if isinstance(v, tuple) else v for name, v in plain.items()
        }
        if self.layout.axes:
            out["axes"] = self.layout.axes
        if self.absent:
            out["absent"] = list(self.absent)
        if self.tokeniser is not None:
            out["tokeniser"] = self.tokeniser.scalars()
        if self.columns:
            out["columns"] = [c.scalars() for c in self.columns]
        if self.long_table is not None:
            out["long_table"] = self.long_table.scalars()
        return out

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the fitted arrays by name."""
        return {
            name: getattr(self, name) for name in self.ARRAYS if getattr(self, name) is not None
        }

    @classmethod
    def restored(cls, scalars: Mapping[str, Json], arrays: Mapping[str, np.ndarray]) -> Self:
        """Return a space of this class from `scalars()`, with columns restored, and `arrays()`."""
        plain: dict[str, Json] = {name: scalars[name] for name in cls.SCALARS if name in scalars}
        plain |= {name: tuple(v) for name, v in plain.items() if isinstance(v, list)}
        plain |= arrays
        layout = (
            restored_layout(scalars["layout"], scalars.get("axes", ""))
            if "layout" in scalars
            else cls._stored_layout(plain["shape"])
        )
        tokeniser, long_table = scalars.get("tokeniser"), scalars.get("long_table")
        return cls(
            **plain,
            layout=layout,
            long_table=None if long_table is None else LongTable.restored(long_table),
            absent=tuple(scalars.get("absent", ())),
            tokeniser=None if tokeniser is None else Tokeniser.restore(tokeniser),
            columns=tuple(scalars.get("columns", ())),
        )

    @classmethod
    def _stored_layout(cls, shape: tuple[int, ...]) -> Layout:
        return stored_layout(shape)


def hashed(offset: np.ndarray, scale: np.ndarray) -> bytes:
    """Return the bytes of an offset and a scale, rounded to six digits.

    >>> len(hashed(np.zeros(2), np.ones(2)))
    32
    """
    return b"".join((np.round(a, 6) + 0.0).tobytes() for a in (offset / scale, np.log(scale)))
