"""Arrays of discrete data: binary values, levels, categories, and counts."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, final

import numpy as np

from vaestro.frames import Frame
from vaestro.spaces.array import ArraySpace
from vaestro.spaces.grids import LARGEST_COUNT
from vaestro.spaces.kinds import Kind
from vaestro.spaces.missing import missing_cells
from vaestro.tokens import Texts

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MOST_CONDITIONED = 8  # channels that are conditioned on each other by default
MANY_LEVELS = 32  # from here on neighbouring levels are similar, and one logit each is wasteful


@dataclass(frozen=True, eq=False)
class _WholeSpace(ArraySpace):
    """Describe arrays of whole numbers: value = low + step * code."""

    counting = True

    def _codes(self, values: np.ndarray, absent: np.ndarray | None) -> np.ndarray:
        """Return the codes of values, still in any dtype and unchecked."""
        if absent is not None:
            values = np.where(absent, self.low, values)
        if self.step == 1 and values.dtype == np.uint8 and self.low == 0:
            return values
        codes = (values.astype(np.float64) - self.low) / self.step
        # levels stored as k / 255 in float32
        return np.where(np.abs(codes - np.rint(codes)) < 1e-4, np.rint(codes), codes)

    def _tensor_inside(self, values: Tensor) -> Tensor:
        return ((values - self.low) / self.step).round()

    def _tensor_outside(self, x: Tensor) -> Tensor:
        if self.probabilities:
            return x
        return (x.clamp(0, self.levels - 1) if self.levels else x) * self.step + self.low

    def _wrong(self, codes: np.ndarray) -> str:
        """Name a few values that are no codes."""
        high = self.levels - 1 if self.levels else LARGEST_COUNT
        wrong = codes[(codes < 0) | (codes > high) | (codes != np.rint(codes))]
        return ", ".join(f"{self.low + self.step * v:g}" for v in np.unique(wrong)[:3]) + (
            " .." if wrong.size > 3 else ""
        )


@dataclass(frozen=True, eq=False)
class _CodedSpace(_WholeSpace):
    """Describe arrays of a known number of values."""

    def _inside(self, values: np.ndarray, absent: np.ndarray | None) -> np.ndarray:
        codes = self._codes(values, absent)
        every = self.levels == 256 and codes.dtype == np.uint8
        if not every and len(codes):
            outside = codes.min() < 0 or codes.max() > self.levels - 1
            if outside or (codes.dtype.kind == "f" and (codes != np.rint(codes)).any()):
                raise ValueError(
                    f"expected {self.kind} values {self._values()}; got {self._wrong(codes)}"
                )
        return codes.astype(np.uint8 if self.levels <= 256 else np.int32, copy=False)

    def _outside(self, x: np.ndarray, exact: bool) -> np.ndarray:
        if exact:  # a density over spread levels may fall outside them
            x = np.clip(np.rint(x), 0, self.levels - 1)
        return x * self.step + self.low

    def _values(self) -> str:
        shown = [f"{self.low + self.step * code:g}" for code in range(min(self.levels, 2))]
        return (
            f"{shown[0]} and {shown[-1]}"
            if self.levels == 2
            else f"{shown[0]}, {shown[1]} .. {self.low + self.step * (self.levels - 1):g}"
        )


@final
class BinarySpace(_CodedSpace):
    """Describe arrays of two values.

    >>> space = BinarySpace((2,), (2,), "uint8", step=255.0, levels=2)
    >>> space.inward(np.array([[0, 255]], np.uint8))
    array([[0, 1]], dtype=uint8)
    """

    kind = Kind.BINARY
    convolved_from = 33
    probabilities = True
    marginal_is_mean = True
    likelihood = "bernoulli"

    def support(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return np.zeros(()), np.ones(()), np.asarray(True)

    def _outside(self, x: np.ndarray, exact: bool) -> np.ndarray:
        return super()._outside(x, exact) if exact else x

    def frequencies(self) -> np.ndarray | None:
        return None if self.marginal is None else np.stack([1 - self.marginal, self.marginal])

    @property
    def float_dtype(self) -> np.dtype:
        dtype = np.dtype(self.dtype)
        return dtype if dtype.kind == "f" and dtype.itemsize > 4 else np.dtype(np.float32)


@final
class LevelsSpace(_CodedSpace):
    """Describe arrays of ordered levels, such as the grey levels of images.

    >>> LevelsSpace((2,), (2,), "uint8", levels=256).default_likelihood
    'logistic-mixture'
    """

    kind = Kind.LEVELS
    ordered = True

    @property
    def default_likelihood(self) -> str:
        if self.levels < MANY_LEVELS:
            return "categorical"
        if not self.layout.pixels or self.shape[0] == 1:
            return "logistic-mixture"
        if self.missing or self.shape[0] > MOST_CONDITIONED:
            return "discretized-logistic:means=squares"
        return "discretized-logistic:channels=conditioned,means=squares"

    def _title(self) -> str:
        return f"levels of {self.levels}"

    def _encoded(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        return x.to(dtype) * (2 / (self.levels - 1)) - 1

    def units(self) -> np.ndarray:
        return np.asarray(self.step, np.float64)

    def moments(self) -> tuple[float, float]:
        codes = np.arange(self.levels)
        if self.marginal is None:
            return float(codes.mean()), float(codes.std())
        p = self.marginal.reshape(self.levels, -1).mean(1).astype(np.float64)
        p /= p.sum()
        mean = float(codes @ p)
        return mean, math.sqrt(float((codes - mean) ** 2 @ p) + 1 / 12)

    def standardised_means(self) -> np.ndarray:
        if self.marginal is None:
            return super().standardised_means()
        centre, stretch = self.moments()
        levels = np.tensordot(np.arange(self.levels), self.marginal, (0, 0))
        return np.asarray((levels - centre) / stretch, np.float32)

    def deviations(self) -> tuple[np.ndarray, np.ndarray]:
        constant = np.zeros(self.shape, bool)
        if self.marginal is None:
            return np.full(self.shape, self.moments()[1]), constant
        codes = np.arange(self.levels, dtype=np.float64)
        whole, mean, square = (
            np.tensordot(codes**power, self.marginal, (0, 0)).astype(np.float64)
            for power in range(3)
        )
        variance = np.maximum(square / whole - (mean / whole) ** 2, 0.0)
        return np.broadcast_to(np.sqrt(variance + 1 / 12), self.shape), constant

    def grid(self) -> np.ndarray:
        return np.ones(())

    def log_cells(self) -> np.ndarray:
        return np.full(self.shape, math.log(self.step))

    def _outside(self, x: np.ndarray, exact: bool) -> np.ndarray:
        return super()._outside(x if exact else np.clip(x, 0, self.levels - 1), exact)


@final
@dataclass(frozen=True, eq=False)
class CategorySpace(_CodedSpace):
    """Describe arrays of unordered categories.

    Args:
        onehot: the axis of a datum in the user's array along which categories are one-hot; None if
            the array has codes. If there is one more category than the axis has places, a cell of
            the last one is zero along the axis.

    >>> str(CategorySpace((2,), (2,), "int64", levels=4))
    'category of 4 (2,)'
    >>> space = CategorySpace((2,), (2, 3), "uint8", levels=3, onehot=1)
    >>> space.inward(np.array([[[0, 0, 1], [1, 0, 0]]])).tolist()
    [[2, 0]]
    """

    onehot: int | None = None

    SCALARS = (*_CodedSpace.SCALARS, "onehot")
    kind = Kind.CATEGORY
    has_mean = False
    likelihood = "categorical"

    def _title(self) -> str:
        return f"category of {self.levels}"

    @property
    def _coded(self) -> CategorySpace:
        """Return the space of the codes of a one-hot array."""
        rest = tuple(size for at, size in enumerate(self.outside) if at != self.onehot)
        return replace(self, outside=rest, dtype="float64", onehot=None)

    def _codes_of(self, values: np.ndarray) -> np.ndarray:
        """Return a one-hot array (N, *outside) as codes, NaN where a cell is missing.

        Raises:
            ValueError: the values along the axis are not zeros and a single one.
        """
        assert self.onehot is not None
        if values.shape[1:] != self.outside:
            shape = ", ".join(map(str, self.outside))
            raise ValueError(f"expected data of shape (N, {shape}); got {values.shape}")
        axis, missing = self.onehot + 1, missing_cells(values, self.absent)
        plain = values if missing is None else np.where(missing, 0, values)
        ones, absent = plain.sum(axis), None if missing is None else missing.any(axis)
        least = 0 if self.levels > self.outside[self.onehot] else 1
        wrong = ((plain != 0) & (plain != 1)).any(axis) | (ones > 1) | (ones < least)
        if absent is not None:
            wrong &= ~absent
        if wrong.any():
            got = np.moveaxis(plain, axis, -1)[wrong][0][:8]
            raise ValueError(
                f"expected zeros and a single 1 along axis {axis}; got "
                f"{', '.join(f'{v:g}' for v in got.tolist())}"
            )
        codes = np.where(ones > 0, plain.argmax(axis), self.levels - 1).astype(np.float64)
        return codes if absent is None else np.where(absent, np.nan, codes)

    def seen(self, values: object) -> np.ndarray | None:
        if self.onehot is None:
            return super().seen(values)
        return self._coded.seen(self._codes_of(np.asarray(values)))

    def inward(self, values: object) -> np.ndarray:
        if self.onehot is None or isinstance(values, (Texts, Frame)):
            return super().inward(values)
        return self._coded.inward(self._codes_of(np.asarray(values)))

    def tensor_inward(self, values: Tensor) -> Tensor:
        self._refuse_onehot()
        return super().tensor_inward(values)

    def tensor_outward(self, x: Tensor) -> Tensor:
        self._refuse_onehot()
        return super().tensor_outward(x)

    def _refuse_onehot(self) -> None:
        """Raise ValueError if the user's array is one-hot."""
        if self.onehot is not None:
            raise ValueError(f"expected an array of codes to export; got a one-hot one, {self}")

    def outward(self, x: np.ndarray, *, exact: bool = True) -> np.ndarray:
        if self.onehot is None:
            return super().outward(x, exact=exact)
        codes = np.expand_dims(self._coded.outward(x), self.onehot - len(self.outside))
        places = np.arange(self.outside[self.onehot])
        places = places.reshape(-1, *[1] * (len(self.outside) - 1 - self.onehot))
        return (codes == places).astype(self.dtype)

    def outward_mask(self, observed: np.ndarray) -> np.ndarray:
        if self.onehot is None:
            return super().outward_mask(observed)
        mask = self._coded.outward_mask(observed)
        axis = self.onehot - len(self.outside)
        return np.repeat(np.expand_dims(mask, axis), self.outside[self.onehot], axis)

    def pictures(self, values: np.ndarray) -> np.ndarray:
        if self.onehot is None:
            return super().pictures(values)
        return self._coded.pictures(self._codes_of(values))

    @property
    def feature_shape(self) -> tuple[int, ...]:
        size = self.levels + int(self.missing)
        if self.layout.coded_channels:
            return (*self.shape[:-1], self.shape[-1] * size)
        return (*self.shape, size)

    def features(self, x: Tensor, observed: Tensor | None, dtype: torch.dtype) -> Tensor:
        import torch
        import torch.nn.functional as F

        seen = F.one_hot(x.long(), self.levels).to(dtype)
        if observed is not None:
            seen = torch.where(observed.unsqueeze(-1), seen, 0.0)
        if self.missing:
            mask = torch.ones_like(x, dtype=dtype) if observed is None else observed.to(dtype)
            seen = torch.cat([seen, mask.unsqueeze(-1)], -1)
        return seen.flatten(-2) if self.layout.coded_channels else seen


@final
class CountSpace(_WholeSpace):
    """Describe arrays of counts: 0, 1, 2, and so on.

    >>> CountSpace((2,), (2,), "int64").inward(np.array([[0, 7]]))
    array([[0, 7]], dtype=int32)
    """

    kind = Kind.COUNT
    sparse = True
    marginal_is_mean = True
    likelihood = "negative-binomial"

    def _inside(self, values: np.ndarray, absent: np.ndarray | None) -> np.ndarray:
        codes = self._codes(values, absent)
        if len(codes) and (
            codes.min() < 0 or codes.max() > LARGEST_COUNT or (codes != np.rint(codes)).any()
        ):
            raise ValueError(f"expected counts 0 .. {LARGEST_COUNT:,}; got {self._wrong(codes)}")
        return codes.astype(np.int32)

    def _outside(self, x: np.ndarray, exact: bool) -> np.ndarray:
        return x

    def _encoded(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        import torch

        return torch.log1p(x.to(dtype))
