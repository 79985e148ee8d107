"""What every likelihood has: one abstract method, `forward`, and defaults for everything else.

Used alone, a likelihood maps latents to a density:

    log p(x | z) = likelihood(z, given).log_prob(x)          (K, B), in nats

for latents (K, B, *Z) and values x as they are inside the space, (B, *X) or (K, B, *X). For data on
a grid, a density scores x + grid * noise, with noise uniform on (-1/2, 1/2): x is then
`likelihood.spread(x, noise)`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
import torch.nn as nn
from torch import Tensor

from vaestro.densities import DataDensity
from vaestro.spaces import Kind, Space


class Likelihood(nn.Module, ABC):
    """Describe p(x | z).

    Args:
        space: what the data are.
        decoder: a module from (N, *Z) to (N, *outputs(space)).

    Raises:
        ValueError: the likelihood is not true for data of this kind.

    >>> from vaestro.likelihoods import Bernoulli
    >>> from vaestro.spaces import BinarySpace
    >>> space = BinarySpace((3,), (3,))
    >>> likelihood = Bernoulli(space, nn.Linear(2, 3))
    >>> likelihood(torch.zeros(4, 5, 2)).log_prob(torch.ones(5, 3)).shape
    torch.Size([4, 5])
    """

    # kinds of data that the density is true for, and what the refusal of other kinds advises
    accepts: ClassVar[frozenset[Kind]]
    advice: ClassVar[str] = ""
    # whether a training step can be traced into a graph
    in_graph: ClassVar[bool] = True
    # What other modules read of an instance; a constructor sets what differs from the default.
    # whether `accumulate` and `store` must be called before a bound is reported
    fitted_to_data: bool = False
    # how the model in training differs from the one that is reported; "" if it does not
    altered: str = ""
    # whether the density of a cell depends on the cells before it
    autoregressive: bool = False
    # whether the decoder has z as an input
    reads_latent: bool = True
    # shape of the dequantisation noise of one datum; None for data that lie on no grid
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
    def start(cls, space: Space) -> Tensor:
        """Return the decoder's outputs at which the mean is the training data's; by default zeros.

        They broadcast to `outputs`. An override takes the constructor's options as keywords.
        """
        return torch.zeros(())

    def bind(self, given: Space | None) -> None:
        """Look up the conditions that the likelihood uses, before the first call.

        Raises:
            ValueError: a condition that it needs is missing.
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
        """Return data (B, *X) as the density scores them, (K, B, *X); by default x itself.

        Args:
            x: values inside the space.
            noise: dequantisation noise, (K, B, *jitter) on (-1/2, 1/2); None if `jitter` is None.
        """
        return x

    def settle(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Invert `spread` for draws x (B, *X) of p(x | z).

        Returns:
            the centre of the grid cell that contains each value, (B, *X), possibly outside of the
            data's levels; and the noise, (B, *jitter), 0 for values on no grid. By default x and
            None.
        """
        return x, None

    def on_grid(self) -> Tensor:
        """Return which of the values that have noise lie on a grid, (prod(jitter),)."""
        return torch.zeros(0, dtype=torch.bool)

    # -- parameters that start where they fit the training data: see `Scaled` and `Dispersed` --

    @property
    def start_values(self) -> int:
        """Return the number of training values that `begin_at` uses; 0 if it uses none, or has
        been called."""
        return 0

    def begin_at(self, x: Tensor, observed: Tensor | None, given: Tensor | None) -> None:
        """Set parameters to where they fit values of the training split, before the first step.

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
