"""The prior p(z)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar, final

import torch
import torch.nn as nn
from torch import Tensor

from vaestro import densities
from vaestro.densities import soft_limit
from vaestro.posteriors import Posterior


class Prior(nn.Module, ABC):
    """Describe p(z), or p(z | given).

    Args:
        units: the shape of one latent, *Z.
        given: how many numbers describe the conditions of one datum; 0 without.
        alphabet: values of a discrete unit, as `Posterior.alphabet` counts them; 0 for real units.

    Raises:
        ValueError: the prior is over latents of another kind.
    """

    discrete: ClassVar[bool] = False
    in_graph: ClassVar[bool] = True  # whether a step with it compiles to one graph

    def __init__(self, units: tuple[int, ...], given: int = 0, alphabet: int = 0) -> None:
        super().__init__()
        self.units, self.given, self.alphabet = units, given, alphabet
        if bool(alphabet) != self.discrete:
            kinds = {False: "real", True: "discrete"}
            raise ValueError(
                f"expected a prior over {kinds[bool(alphabet)]} latents; got {type(self).__name__}, over {kinds[self.discrete]} ones"
            )

    @abstractmethod
    def forward(self, posterior: Posterior, given: Tensor | None) -> Any:
        """Return p(z | given). Only a prior made of encoded pseudo-inputs uses the posterior, and none owns it."""

    def draw(
        self, posterior: Posterior, given: Tensor | None, n: int, generator: torch.Generator | None = None, *, temperature: float = 1.0
    ) -> Tensor:
        """Draw n latents, (n, *Z), one for each row of `given` where there are conditions.

        The noise that the prior draws is multiplied by the temperature.
        """
        return self(posterior, given).sample(n, generator, temperature)  # type: ignore[no-any-return]


@final
class Normal(Prior):
    """Represent the standard normal N(0, 1) on every unit: fixed, nothing is learned."""

    def forward(self, posterior: Posterior, given: Tensor | None) -> densities.StandardNormal:
        return densities.StandardNormal(self.units, posterior.like)


@final
class Conditional(Prior):
    """Represent p(z | given) = N(mean, diag(exp(logvar))), both predicted from the conditions (Sohn, Lee and Yan 2015).

    It starts at the standard normal.

    Args:
        units, given, alphabet: see Prior.
        width: hidden units of the network.

    Raises:
        ValueError: the model has no conditions.
    """

    def __init__(self, units: tuple[int, ...], given: int = 0, alphabet: int = 0, *, width: int = 64) -> None:
        super().__init__(units, given, alphabet)
        if given < 1 or width < 1:
            raise ValueError(f"expected conditions (--condition COLUMN) and width >= 1 for the prior conditional; got {given} and {width}")
        last = nn.Linear(width, 2 * math.prod(units))
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.network = nn.Sequential(nn.Linear(given, width), nn.SiLU(), last)

    def forward(self, posterior: Posterior, given: Tensor | None) -> densities.Normal:
        if given is None:
            raise ValueError("expected conditions for p(z | given); got none")
        mean, logvar = self.network(given.to(posterior.like.dtype)).unflatten(-1, (2, *self.units)).unbind(1)
        return densities.Normal(mean, soft_limit(logvar, 20.0), len(self.units))

    def draw(
        self, posterior: Posterior, given: Tensor | None, n: int, generator: torch.Generator | None = None, *, temperature: float = 1.0
    ) -> Tensor:
        p = self(posterior, given)
        z = p.sample(generator)
        return z if temperature == 1 else p.mean + temperature * (z - p.mean)


@final
class Bernoulli(Prior):
    """Represent independent zeros and ones: fair coins that are fixed, or with `learned` probabilities of their own.

    Args:
        units, given, alphabet: see Prior.
        learned: whether the probabilities are learned.
    """

    discrete = True

    def __init__(self, units: tuple[int, ...], given: int = 0, alphabet: int = 2, *, learned: bool = False) -> None:
        super().__init__(units, given, alphabet)
        if alphabet != 2:
            raise ValueError(f"expected latents of zeros and ones for the prior bernoulli, or prior categorical; got {alphabet} values")
        self.logits = nn.Parameter(torch.zeros(units), requires_grad=learned)

    def forward(self, posterior: Posterior, given: Tensor | None) -> densities.Binary:
        return densities.Binary(self.logits, len(self.units))


@final
class Categorical(Prior):
    """Represent independent one-hot groups: all codes alike and fixed, or with `learned` probabilities of their own.

    Args:
        units, given, alphabet: see Prior.
        learned: whether the probabilities are learned.
    """

    discrete = True

    def __init__(self, units: tuple[int, ...], given: int = 0, alphabet: int = 10, *, learned: bool = False) -> None:
        super().__init__(units, given, alphabet)
        if units[0] % alphabet:
            raise ValueError(
                f"expected one-hot latents for the prior categorical, or prior bernoulli; got units {units} of {alphabet} values"
            )
        self.logits = nn.Parameter(torch.zeros(units), requires_grad=learned)

    def forward(self, posterior: Posterior, given: Tensor | None) -> densities.OneHot:
        return densities.OneHot(self.logits, self.alphabet, len(self.units))
