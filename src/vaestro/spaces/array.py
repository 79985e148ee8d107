"""Numbers in an array."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vaestro.frames import Frame
from vaestro.spaces.base import Space
from vaestro.spaces.grids import rounded
from vaestro.spaces.missing import as_value, missing_cells
from vaestro.tokens import Texts

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class ArraySpace(Space):
    """Describe numbers in an array (N, *outside)."""

    def seen(self, values: object) -> np.ndarray | None:
        values = np.asarray(values)
        missing = missing_cells(values, self.absent) if self.missing else None
        if missing is None and self.unseen is None:
            return None
        mask = self.arranged(np.ones(values.shape, bool) if missing is None else ~missing)
        return mask if self.unseen is None else mask & ~self.unseen

    def inward(self, values: object) -> np.ndarray:
        if isinstance(values, Texts):
            raise ValueError(f"expected {self} data; got texts")
        if isinstance(values, Frame):
            raise ValueError(f"expected {self} data; got a table")
        values = np.asarray(values)
        if values.shape[1:] != self.outside:
            shape = ", ".join(map(str, self.outside))
            raise ValueError(f"expected data of shape (N, {shape}); got {values.shape}")
        values = self.arranged(values)
        if values.dtype.kind not in "biuf":
            raise ValueError(f"expected numbers; got an array of {values.dtype}")
        absent = missing_cells(values, self.absent)
        if absent is not None and values.dtype.kind == "f":
            values = np.where(absent, values.dtype.type(np.nan), values)
        nan = 0 if absent is None or self.missing else int(absent.sum())
        infinite = int(np.isinf(values).sum()) if values.dtype.kind == "f" else 0
        if nan or infinite:
            raise ValueError(f"expected finite values; got {nan} NaN and {infinite} infinite")
        return self._inside(values, absent)

    @abstractmethod
    def _inside(self, values: np.ndarray, absent: np.ndarray | None) -> np.ndarray:
        """Return numbers (N, *shape) in the user's units as codes or values.

        Args:
            values: finite numbers, or NaN in missing cells.
            absent: True where a cell is missing; None if none is.
        """

    def outward(self, x: np.ndarray, *, exact: bool = True) -> np.ndarray:
        if np.dtype(self.dtype) != np.uint8:  # the user's values may have more digits than codes
            x = np.asarray(x, np.float64)
        x = self.layout.outward(self._outside(x, exact), self.shape, self.outside)
        own = np.dtype(self.dtype)
        if not exact:
            out = x.astype(self.float_dtype)
        else:
            out = rounded(x, own) if own.kind in "iu" else x.astype(own)
        if self.unseen is not None:
            out[np.broadcast_to(self.outward_mask(self.unseen), out.shape)] = self._gap(out.dtype)
        return out

    def emptied(self, data: np.ndarray, empty: np.ndarray) -> np.ndarray:
        return np.where(self.outward_mask(empty), self._gap(data.dtype), data)

    def _gap(self, dtype: np.dtype) -> np.generic:
        """Return the user's value of a missing cell."""
        if dtype.kind == "f":
            return dtype.type(np.nan)
        values = [as_value(word, dtype) for word in self.absent if word != "inf"]
        return next((value for value in values if value is not None), dtype.type(0))

    def tensor_inward(self, values: Tensor) -> Tensor:
        import torch

        places = np.arange(math.prod(self.outside)).reshape(1, *self.outside)
        index = torch.from_numpy(self.arranged(places).ravel())
        return self._tensor_inside(values.flatten(1)[:, index].unflatten(1, self.shape))

    def tensor_outward(self, x: Tensor) -> Tensor:
        import torch

        places = np.arange(self.cells).reshape(1, *self.shape)
        index = torch.from_numpy(self.layout.outward(places, self.shape, self.outside).ravel())
        return self._tensor_outside(x).flatten(1)[:, index].unflatten(1, self.outside)

    @abstractmethod
    def _tensor_inside(self, values: Tensor) -> Tensor:
        """Return numbers (N, *shape) in the user's units as codes or values; see `_inside`."""

    @abstractmethod
    def _tensor_outside(self, x: Tensor) -> Tensor:
        """Return means (N, *shape) in the user's units; see `_outside`."""

    @abstractmethod
    def _outside(self, x: np.ndarray, exact: bool) -> np.ndarray:
        """Return codes or values (..., *shape) in the user's units."""
