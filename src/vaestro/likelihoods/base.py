"""The base class of likelihoods: one abstract method, `forward`, and defaults for all others.

Used alone, a likelihood maps latents to a density:

    log p(x | z) = likelihood(z, given).log_prob(x)          (K, B), in nats

for latents (K, B, *Z) and transformed values x, (B, *X) or (K, B, *X). For data on
a grid, a density scores x + grid * noise, with noise uniform on (-1/2, 1/2): x is then
`likelihood.spread(x, noise)`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

from vaestro.densities import DataDensity
from vaestro.spaces import Kind, Space


class Likelihood(nn.Module, ABC):
    """Describe p(x | z).

    Args:
        space: of the data.
        decoder: a module from (N, *Z) to (N, *outputs(space)).

    Raises:
        ValueError: the likelihood is not valid for data of this kind.

    >>> from vaestro.likelihoods import Bernoulli
    >>> from vaestro.spaces import BinarySpace
    >>> space = BinarySpace((3,), (3,))
    >>> likelihood = Bernoulli(space, nn.Linear(2, 3))
    >>> likelihood(torch.zeros(4, 5, 2)).log_prob(torch.ones(5, 3)).shape
    torch.Size([4, 5])
    """

    # kinds of data that the density is valid for, and advice in the error message for other kinds
    accepts: ClassVar[frozenset[Kind]]
    advice: ClassVar[str] = ""
    # whether a training step can be compiled
    in_graph: ClassVar[bool] = True
    # Public attributes; a constructor sets those that differ from the default.
    # whether `accumulate` and `store` must be called before a bound is reported
    fitted_to_data: bool = False
    # difference between the model in training and the reported one, in words; "" if there is none
    altered: str = ""
    # whether the density of a cell depends on the cells before it
    autoregressive: bool = False
    # whether the decoder has z as an input
    reads_latent: bool = True
    # number of units of z, the last ones, that are no inputs of the decoder
    further_units: int = 0
    # shape of the dequantisation noise of one datum; None for data without a grid
    jitter: tuple[int, ...] | None = None

    def __init__(self, space: Space, decoder: nn.Module) -> None:
        super().__init__()
        self.check(space)
        self.space, self.decoder, self.dims = space, decoder, len(space.shape)

    @classmethod
    def check(cls, space: Space) -> None:
        """Raise ValueError unless this likelihood accepts data of the space's kind."""
        if space.kind not in cls.accepts:
            kinds = " or ".join(sorted(cls.accepts))
            raise ValueError(
                f"expected {kinds} data for the likelihood {cls.__name__}; got {space}{cls.advice}"
            )

    @abstractmethod
    def forward(self, z: Tensor, given: Tensor | None = None) -> DataDensity:
        """Return p(x | z, given) for latents (K, B, *Z) and conditions (B, C)."""

    @classmethod
    def outputs(cls, space: Space) -> tuple[int, ...]:
        """Return the shape of the decoder's outputs for one z: by default one number per cell.

        An override takes the constructor's options as keywords.
        """
        return space.shape

    @classmethod
    def units_beside(cls, **options: object) -> int:
        """Return `further_units` for options of the constructor; by default 0."""
        return 0

    @classmethod
    def start(cls, space: Space) -> Tensor:
        """Return decoder outputs for which the mean is that of the training data; by default zeros.

        They broadcast to `outputs`. An override takes the constructor's options as keywords.
        """
        return torch.zeros(())

    def bind(self, given: Space | None) -> None:
        """Look up the conditions that the likelihood uses, before the first call.

        Raises:
            ValueError: a condition that it needs is missing.
        """

    def check_conditions(self, values: Mapping[str, np.ndarray], names: Sequence[str]) -> None:
        """Check the conditions of data that the likelihood scores or generates; by default all are
        accepted.

        Args:
            values: the conditions by name in the user's units, each (N,).
            names: of the N rows, for messages.

        Raises:
            ValueError: the likelihood is not defined for a value.
        """

    def decode(self, z: Tensor, given: Tensor | None) -> Tensor:
        """Run the decoder on all latents in one pass: (K, B, *Z) -> (K, B, *outputs)."""
        k, rows = z.shape[:2]
        flat = z.flatten(0, 1)
        out = (
            self.decoder(flat)
            if given is None
            else self.decoder(flat, given.expand(k, rows, -1).flatten(0, 1))
        )
        # densities are computed in full precision, also under autocast
        return out.to(z.dtype).unflatten(0, (k, rows))

    # -- data on a grid: see `Dequantised` --

    def spread(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """Add dequantisation noise to data (B, *X), and return (K, B, *X); by default return x.

        Args:
            x: transformed values.
            noise: dequantisation noise, (K, B, *jitter) on (-1/2, 1/2); None if `jitter` is None.
        """
        return x

    def settle(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Invert `spread` for draws x (B, *X) of p(x | z).

        Returns:
            The centre of the grid cell that contains each value, (B, *X), possibly outside the
            range of the data; and the noise, (B, *jitter), 0 for values without a grid. By default
            x and None.
        """
        return x, None

    def on_grid(self) -> Tensor:
        """Return a mask of the values with noise that lie on a grid, (prod(jitter),)."""
        return torch.zeros(0, dtype=torch.bool)

    # -- parameters that start where they fit the training data: see `Scaled` and `Dispersed` --

    @property
    def start_values(self) -> int:
        """Return the number of training values that `begin_at` uses; 0 if it uses none, or has
        been called."""
        return 0

    def begin_at(self, x: Tensor, observed: Tensor | None, given: Tensor | None) -> None:
        """Fit parameters to values of the training split, before the first step.

        Args:
            x: values as the density scores them, (B, *X).
            observed: which of them are observed, (B, *X); None for all.
            given: their conditions, (B, C).
        """

    # -- parameters with a closed form on the training split: see `FittedVariance` --

    def training_density(self, px: DataDensity, x: Tensor, observed: Tensor | None) -> DataDensity:
        """Return the density that training optimises; by default px, which is reported."""
        return px

    def accumulate(self, px: DataDensity, x: Tensor, observed: Tensor | None) -> Tensor:
        """Return sums over a batch of the training split, from which `store` computes the fitted
        parameters; by default there are none."""
        return x.new_zeros(())

    def store(self, sums: Tensor) -> None:
        """Set the fitted parameters from the accumulated sums."""
