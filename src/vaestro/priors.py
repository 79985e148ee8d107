"""The prior p(z)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar, final

import torch
import torch.nn as nn
from torch import Tensor

from vaestro import densities
from vaestro.densities import soft_limit
from vaestro.flows import FlowPrior, autoregressive, coupling
from vaestro.networks import MaskedNetwork
from vaestro.posteriors import Posterior
from vaestro.spaces import Batch


class Prior(nn.Module, ABC):
    """Describe p(z), or p(z | given).

    Args:
        units: the shape of one latent, *Z.
        given: how many numbers describe the conditions of one datum; 0 without.
        alphabet: what the latents are, as `Posterior.alphabet` says.

    Raises:
        ValueError: the prior is over latents of another kind.
    """

    discrete: ClassVar[bool] = False
    in_graph: ClassVar[bool] = True  # whether the operations of a step with it can be recorded

    def __init__(self, units: tuple[int, ...], given: int = 0, alphabet: int = 0) -> None:
        super().__init__()
        self.units, self.given, self.alphabet = units, given, alphabet
        if bool(alphabet) != self.discrete:
            kinds = {False: "real", True: "discrete"}
            raise ValueError(
                f"expected a prior over {kinds[bool(alphabet)]} latents; got "
                f"{type(self).__name__}, over {kinds[self.discrete]} ones"
            )

    def join(self, posterior: Posterior) -> None:
        """Make what depends on the posterior, once.

        Raises:
            ValueError: the two have no meaning together.
        """
        if posterior.units != self.units:
            raise ValueError(
                f"expected one latent shape; got {posterior.units} (posterior) and {self.units} "
                f"(prior)"
            )
        names = f"{type(posterior).__name__} and {type(self).__name__}"
        if posterior.discrete != self.discrete:
            raise ValueError(f"expected posterior and prior over latents of one kind; got {names}")
        if posterior.min_rate and not isinstance(self, Normal):
            raise ValueError(
                f"expected prior normal for a minimum rate, which is a KL to it; got "
                f"{type(self).__name__}"
            )

    @property
    def start_rows(self) -> int:
        """Return how many data `start` wants; 0 for none, and once it has had them."""
        return 0

    def start(self, posterior: Posterior, batch: Batch) -> None:
        """Begin at training data, before the first step."""

    @abstractmethod
    def forward(self, posterior: Posterior, given: Tensor | None) -> densities.PriorDensity:
        """Return p(z | given). Only a prior made of encoded pseudo-inputs uses the posterior, and
        none owns it."""

    def draw(
        self,
        posterior: Posterior,
        given: Tensor | None,
        n: int,
        generator: torch.Generator | None = None,
        *,
        temperature: float = 1.0,
    ) -> Tensor:
        """Draw n latents, (n, *Z), one for each row of `given` where there are conditions.

        The noise that the prior draws is multiplied by the temperature.
        """
        p: densities.PriorDensity = self(posterior, given)
        return p.draw(n, generator, temperature)


@final
class Normal(Prior):
    """Represent the standard normal N(0, 1) on every unit: fixed, nothing is learned."""

    def forward(self, posterior: Posterior, given: Tensor | None) -> densities.StandardNormal:
        return densities.StandardNormal(self.units, posterior.like)


@final
class Conditional(Prior):
    """Represent p(z | given) = N(mean, diag(exp(logvar))), both predicted from the conditions
    (Sohn, Lee and Yan 2015).

    It starts at the standard normal.

    Args:
        units, given, alphabet: see Prior.
        width: hidden units of the network.

    Raises:
        ValueError: the model has no conditions.
    """

    def __init__(
        self, units: tuple[int, ...], given: int = 0, alphabet: int = 0, *, width: int = 64
    ) -> None:
        super().__init__(units, given, alphabet)
        if given < 1 or width < 1:
            raise ValueError(
                f"expected conditions (--condition COLUMN) and width >= 1 for the prior "
                f"conditional; got {given} and {width}"
            )
        last = nn.Linear(width, 2 * math.prod(units))
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.network = nn.Sequential(nn.Linear(given, width), nn.SiLU(), last)

    def forward(self, posterior: Posterior, given: Tensor | None) -> densities.Normal:
        if given is None:
            raise ValueError("expected conditions for p(z | given); got none")
        mean, logvar = (
            self.network(given.to(posterior.like.dtype)).unflatten(-1, (2, *self.units)).unbind(1)
        )
        return densities.Normal(mean, soft_limit(logvar, 20.0), len(self.units))


class _Unconditional(Prior, ABC):
    """Describe priors that serve all data alike."""

    def __init__(self, units: tuple[int, ...], given: int, alphabet: int) -> None:
        super().__init__(units, given, alphabet)
        if given:
            raise ValueError(
                f"expected prior normal or conditional for a model with conditions; got "
                f"{type(self).__name__}"
            )


@final
class Mixture(_Unconditional):
    """Represent p(z) = sum_k weight_k N(mean_k, diag(exp(logvar_k))), all of it learned: clusters,
    and any shape they cover together.

    Scoring z costs two matrix products of as many columns as there are components. The KL has no
    closed form.

    Args:
        units, given, alphabet: see Prior.
        components: how many.
    """

    def __init__(
        self, units: tuple[int, ...], given: int = 0, alphabet: int = 0, *, components: int = 32
    ) -> None:
        super().__init__(units, given, alphabet)
        if components < 1:
            raise ValueError(f"expected 1 or more components; got {components}")
        n = math.prod(units)
        self.logits = nn.Parameter(torch.zeros(components))
        self.means = nn.Parameter(torch.randn(components, n))
        self.logvars = nn.Parameter(torch.zeros(components, n))

    def forward(self, posterior: Posterior, given: Tensor | None) -> densities.NormalMixture:
        return densities.NormalMixture(
            self.logits, self.means, soft_limit(self.logvars, 20.0), self.units
        )


@final
class Vamp(_Unconditional):
    """Represent p(z) = sum_k weight_k q(z | u_k), q of pseudo-inputs u_k that are learned: the
    VampPrior (Tomczak and Welling 2018).

    It follows the aggregate posterior, since it is made of posteriors. The pseudo-inputs lie in the
    space that the encoder sees, start at
    training data, and go through the encoder at every step: that costs as much as so many data more
    in the encoder's batch. Scoring z costs as in a mixture where q is normal; for other families
    each of its units is compared with those of each pseudo-input.

    Args:
        units, given, alphabet: see Prior.
        inputs: pseudo-inputs.
    """

    started: Tensor

    def __init__(
        self, units: tuple[int, ...], given: int = 0, alphabet: int = 0, *, inputs: int = 100
    ) -> None:
        super().__init__(units, given, alphabet)
        if inputs < 1:
            raise ValueError(f"expected 1 or more pseudo-inputs; got {inputs}")
        self.count = inputs
        self.logits = nn.Parameter(torch.zeros(inputs))
        self.inputs: nn.Parameter | None = None
        self.register_buffer("started", torch.zeros(()))

    def join(self, posterior: Posterior) -> None:
        super().join(posterior)
        if not posterior.scored_anywhere:
            raise ValueError(
                f"expected a posterior without a flow for the prior vamp, such as normal; got "
                f"{type(posterior).__name__}"
            )
        if posterior.space.ragged:
            raise ValueError(
                "expected data with a continuous encoder input for the prior vamp, or prior "
                "mixture; got tokens"
            )
        if self.inputs is None:
            self.inputs = nn.Parameter(
                torch.randn(self.count, *posterior.space.feature_shape) * 0.1
            )

    @property
    def start_rows(self) -> int:
        return 0 if bool(self.started) else self.count

    @torch.no_grad()
    def start(self, posterior: Posterior, batch: Batch) -> None:
        assert self.inputs is not None
        x = posterior.space.features(batch.x, batch.observed, self.inputs.dtype)
        self.inputs.copy_(x[torch.arange(self.count, device=x.device) % len(x)])
        self.started.fill_(1.0)

    def forward(
        self, posterior: Posterior, given: Tensor | None
    ) -> densities.NormalMixture | densities.Mixture:
        features = posterior.encoded(self.inputs)  # type: ignore[arg-type]
        q = posterior.density(features)
        if isinstance(q, densities.Normal):
            return densities.NormalMixture(
                self.logits, q.mean.flatten(1), q.logvar.flatten(1), self.units
            )

        def draw(chosen: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
            own = posterior.density(features[chosen])
            return own.from_noise(posterior.noise(1, len(chosen), generator))[0], own.mean

        return densities.Mixture(self.logits, q, draw, self.units)


class _FlowPrior(_Unconditional, ABC):
    """Describe p(z) by a map from latents to the standard normal."""

    maps: nn.Module

    def __init__(
        self, units: tuple[int, ...], given: int, alphabet: int, layers: int, width: int
    ) -> None:
        super().__init__(units, given, alphabet)
        if layers < 1 or width < 1:
            raise ValueError(
                f"expected 1 or more layers and a width of 1 or more; got {layers} and {width}"
            )
        if math.prod(units) < 2:
            raise ValueError("expected 2 or more units for a flow prior, or prior mixture; got 1")

    def forward(self, posterior: Posterior, given: Tensor | None) -> FlowPrior:
        return FlowPrior(self.maps(None), self.units, posterior.like)


@final
class MaskedAutoregressive(_FlowPrior):
    """Represent p(z) by a masked autoregressive flow: each unit given the ones before it
    (Papamakarios, Pavlakou and Murray 2017).

    Scoring takes one pass of each layer's network, drawing as many as there are units.

    Args:
        units, given, alphabet: see Prior.
        layers: maps, the order of the units reversed from one to the next.
        width: of the two hidden layers of each map's network.
    """

    def __init__(
        self,
        units: tuple[int, ...],
        given: int = 0,
        alphabet: int = 0,
        *,
        layers: int = 3,
        width: int = 64,
    ) -> None:
        super().__init__(units, given, alphabet, layers, width)
        self.maps = autoregressive(math.prod(units), 0, layers, width)


@final
class Coupling(_FlowPrior):
    """Represent p(z) by affine couplings, each moving half of the units by what the other half says
    (Dinh, Sohl-Dickstein and Bengio 2017).

    Scoring and drawing both take one pass of each layer's network; it takes more layers than an
    autoregressive flow for the same density.

    Args:
        units, given, alphabet: see Prior.
        layers: couplings, the halves taking turns.
        width: of the two hidden layers of each coupling's network.
    """

    in_graph = False  # zuko picks the halves by masks, whose sums it reads

    def __init__(
        self,
        units: tuple[int, ...],
        given: int = 0,
        alphabet: int = 0,
        *,
        layers: int = 6,
        width: int = 64,
    ) -> None:
        super().__init__(units, given, alphabet, layers, width)
        self.maps = coupling(math.prod(units), layers, width)


@final
class Autoregressive(_Unconditional):
    """Represent p(z) over discrete latents by the product of each unit (or one-hot group) given the
    ones before it.

    (By one masked network: Germain, Gregor, Murray and Larochelle 2015.) Scoring takes one pass,
    drawing as many as there are groups.

    Args:
        units, given, alphabet: see Prior.
        width: of the two hidden layers.
    """

    discrete = True

    def __init__(
        self, units: tuple[int, ...], given: int = 0, alphabet: int = 1, *, width: int = 128
    ) -> None:
        super().__init__(units, given, alphabet)
        if width < 1:
            raise ValueError(f"expected a width of 1 or more; got {width}")
        self.network = MaskedNetwork(densities.groups_of(units, alphabet), width)

    def forward(self, posterior: Posterior, given: Tensor | None) -> densities.Autoregressive:
        return densities.Autoregressive(self.network, self.units, self.alphabet, posterior.like)


@final
class Bernoulli(Prior):
    """Represent independent zeros and ones: fair coins that are fixed, or with `learned`
    probabilities of their own.

    Args:
        units, given, alphabet: see Prior.
        learned: whether the probabilities are learned.
    """

    discrete = True

    def __init__(
        self, units: tuple[int, ...], given: int = 0, alphabet: int = 1, *, learned: bool = False
    ) -> None:
        super().__init__(units, given, alphabet)
        if alphabet != 1:
            raise ValueError(
                f"expected latents of zeros and ones for the prior bernoulli, or prior "
                f"categorical; got groups of {alphabet}"
            )
        self.logits = nn.Parameter(torch.zeros(units), requires_grad=learned)

    def forward(self, posterior: Posterior, given: Tensor | None) -> densities.Binary:
        return densities.Binary(self.logits, len(self.units))


@final
class Categorical(Prior):
    """Represent independent one-hot groups: all codes alike and fixed, or with `learned`
    probabilities of their own.

    Args:
        units, given, alphabet: see Prior.
        learned: whether the probabilities are learned.
    """

    discrete = True

    def __init__(
        self, units: tuple[int, ...], given: int = 0, alphabet: int = 10, *, learned: bool = False
    ) -> None:
        super().__init__(units, given, alphabet)
        if alphabet == 1:
            raise ValueError(
                "expected one-hot latents for the prior categorical, or prior bernoulli; got "
                "zeros and ones"
            )
        self.logits = nn.Parameter(torch.zeros(units), requires_grad=learned)

    def forward(self, posterior: Posterior, given: Tensor | None) -> densities.OneHot:
        return densities.OneHot(self.logits, self.alphabet, len(self.units))
