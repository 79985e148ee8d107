"""Gradient estimators: how the gradient of a bound is taken through the draws.

A bound is an expectation under q, whose parameters are being learned. Each estimator turns a bound into a surrogate
whose value is the bound's and whose gradient is an estimate of the right one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, final

from torch import Tensor

if TYPE_CHECKING:
    from vaestro.model import Draws


class Gradient(ABC):
    """Describe an estimator: whether z carries gradient, whether q is scored with its parameters held, and the surrogate."""

    pathwise: ClassVar[bool]
    stop_q: ClassVar[bool]

    @abstractmethod
    def surrogate(self, draws: Draws, bound: Callable[[Draws], Tensor]) -> Tensor:
        """Return (B,) values of the bound, with this estimator's gradient."""


@final
class Pathwise(Gradient):
    """Differentiate through z = mean + std * noise, the reparameterization trick (Kingma and Welling 2014)."""

    pathwise = True
    stop_q = False

    def surrogate(self, draws: Draws, bound: Callable[[Draws], Tensor]) -> Tensor:
        return bound(draws)
