"""Arrays of real values, and of values in the open interval (0, 1).

Values on a grid are dequantised (see `vaestro.spaces.grids`). The same holds if values repeat
without a grid, such as exact zeros among positive numbers. The width of their cells is then a
convention, which `data.lattices` infers from the data and every bound depends on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np

from vaestro.spaces.array import ArraySpace
from vaestro.spaces.grids import nearest, onto_grid, widths
from vaestro.spaces.kinds import Kind

if TYPE_CHECKING:
    import torch
    from torch import Tensor

TOLERANCE = 1e-6  # largest distance of a value at a limit from it, relative to the size of values
FARTHEST = 10.0  # largest input of an encoder, in standard deviations, for values at a limit


def in_words(limits: Sequence[float | None]) -> str:
    """Return limits in words.

    >>> in_words((-80.0, None)), in_words((0.0, 1.0))
    ('of -80 or more', 'from 0 to 1')
    """
    low, high = limits
    if low is not None and high is not None:
        return f"from {low:g} to {high:g}"
    return f"of {high:g} or less" if low is None else f"of {low:g} or more"


@dataclass(frozen=True, eq=False)
class _ContinuousSpace(ArraySpace):
    """Describe arrays of values with a density: value = offset + scale * inside."""

    counting = False

    def _fitted(self) -> tuple[np.ndarray, np.ndarray]:
        """Return offset and scale, which are set before values are transformed."""
        assert self.offset is not None and self.scale is not None
        return self.offset, self.scale

    @property
    def measure(self) -> str:
        points = self.at_limits is not None and bool(self.at_limits.any())
        gridded = self.resolution is not None and bool((self.resolution > 0).all())
        return "mixed" if points and not gridded else "lebesgue"

    def ends(self) -> tuple[float, float]:
        """Return the lowest and the highest value, in the user's units; infinite without limits."""
        low, high = self.limits or (None, None)
        return -np.inf if low is None else low, np.inf if high is None else high

    def _within(self, values: np.ndarray) -> np.ndarray:
        """Return values with those that differ from a limit by rounding set to it.

        Raises:
            ValueError: a value is outside of the limits.
        """
        low, high = self.ends()
        near = [TOLERANCE * abs(end) if np.isfinite(end) else 0.0 for end in (low, high)]
        wrong = values[(values < low - near[0]) | (values > high + near[1])]
        if wrong.size:
            raise ValueError(
                f"expected values {in_words(self.limits)}, the limits of the training data; got "
                f"{wrong[0]:g} (clip the values, or train with low=none,high=none)"
            )
        return np.where(
            values <= low + near[0], low, np.where(values >= high - near[1], high, values)
        )

    def _inside(self, values: np.ndarray, absent: np.ndarray | None) -> np.ndarray:
        offset, scale = self._fitted()
        free = values
        if self.limits:
            values = free = self._within(values)
        if self.strays is not None and self.resolution is not None:
            step = np.where(self.strays, self.resolution, 1.0)
            origin = 0.0 if self.origin is None else self.origin
            snapped = nearest(values.astype(np.float64), step, origin)
            values = np.where(self.strays, snapped, values)
        if self.limits:
            values = np.where(np.isin(free, self.ends()), free, values)
        inside = np.asarray((values - offset) / scale, np.float32)
        return inside if absent is None else np.where(absent, np.float32(0), inside)

    def _tensor_inside(self, values: Tensor) -> Tensor:
        import torch

        offset, scale = (torch.as_tensor(a) for a in self._fitted())
        return ((values.double() - offset) / scale).float()

    def _tensor_outside(self, x: Tensor) -> Tensor:
        import torch

        offset, scale = (torch.as_tensor(a) for a in self._fitted())
        out = x.double() * scale + offset
        return (out.clamp(*self.ends()) if self.limits else out).float()

    def _outside(self, x: np.ndarray, exact: bool) -> np.ndarray:
        offset, scale = self._fitted()
        x = x * scale + offset
        if exact and self.resolution is not None:
            step = np.where(self.resolution > 0, self.resolution, 1.0)
            origin = 0.0 if self.origin is None else self.origin
            atoms = False if self.atoms is None else self.atoms
            x = np.where(self.resolution > 0, onto_grid(x, step, origin, atoms), x)
        if not self.limits:
            return x
        low, high = self.ends()
        near = TOLERANCE * np.maximum(scale, np.abs(offset))
        if self.resolution is not None:
            near = np.maximum(near, self.resolution / 2)
        return np.where(x <= low + near, low, np.where(x >= high - near, high, x))

    def units(self) -> np.ndarray:
        return np.ones(()) if self.scale is None else np.asarray(self.scale, np.float64)

    def log_dets(self) -> np.ndarray | None:
        if self.scale is None:
            return None
        cells = -np.log(np.broadcast_to(self.scale, self.shape))
        return cells if cells.any() else None

    def grid(self) -> np.ndarray | None:
        if self.resolution is None or self.scale is None:
            return None
        # without a scale there is no standard deviation to compare the step with
        plain = self.offset is None or not (self.offset.any() or (self.scale != 1).any())
        width = self.resolution if plain else widths(self.resolution, self.scale)
        steps = np.asarray(width / self.scale)
        return steps if steps.any() else None

    @property
    def on_grid(self) -> bool:
        return (
            self.resolution is not None
            and bool((self.resolution > 0).all())
            and (self.atoms is None or not self.atoms.any())
        )

    def log_cells(self) -> np.ndarray | None:
        if self.resolution is None or not self.resolution.any():
            return None
        steps = np.broadcast_to(self.resolution, self.shape)
        return np.log(np.where(steps > 0, steps, 1.0))

    def _digits(self) -> tuple[np.ndarray, np.ndarray]:
        offset, scale = self._fitted()
        return np.abs(offset) + 10 * scale, scale


@final
class RealSpace(_ContinuousSpace):
    """Describe arrays of real values.

    >>> space = RealSpace((1,), (1,), "float64", offset=np.array([10.0]), scale=np.array([2.0]))
    >>> space.inward(np.array([[12.0]])), space.outward(np.array([[1.0]]))
    (array([[1.]], dtype=float32), array([[12.]]))
    """

    kind = Kind.REAL
    standardised = True
    likelihood = "gaussian"

    def _encoded(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        # a limit may be many standard deviations away from the other values
        return x.to(dtype) if self.at_limits is None else x.to(dtype).clamp(-FARTHEST, FARTHEST)


@final
class UnitSpace(_ContinuousSpace):
    """Describe arrays of values in the open interval (0, 1).

    >>> space = UnitSpace((1,), (1,), offset=np.zeros(1), scale=np.ones(1))
    >>> space.inward(np.array([[1.0]]))
    Traceback (most recent call last):
    ValueError: expected values inside (0, 1); got 1 (kind=real takes any)
    """

    kind = Kind.UNIT
    marginal_is_mean = True
    likelihood = "continuous-bernoulli"

    def support(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return np.zeros(()), np.ones(()), np.asarray(False)

    def standardised_means(self) -> np.ndarray:
        return super().standardised_means() if self.marginal is None else self.marginal

    def _inside(self, values: np.ndarray, absent: np.ndarray | None) -> np.ndarray:
        wrong = values[(values <= 0) | (values >= 1)]
        if wrong.size:
            raise ValueError(
                f"expected values inside (0, 1); got {wrong[0]:g} (kind=real takes any)"
            )
        return super()._inside(values, absent)
