"""The prior p(z), or p(z | given) of a model with conditions.

    normal              p(z) = N(0, I)
    mixture             p(z) = sum_k w_k N(mean_k, diag(exp(logvar_k)))
    vamp                p(z) = sum_k w_k q(z | u_k)
    maf, coupling       p(z) = N(f(z); 0, I) |det df/dz|
    autoregressive      p(z) = prod_g p(z_g | z_<g)                          discrete latents

Every learned prior accepts conditions. A mixture then has weights that depend on them,
w(given) = softmax(logits + G given); the maps of a flow and the network of an autoregressive prior
have them as inputs.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar, final

import torch
import torch.nn as nn
from torch import Tensor

from vaestro import densities
from vaestro.densities import soft_limit
from vaestro.flows import FlowPrior, Transform, autoregressive, coupling
from vaestro.networks import MaskedNetwork
from vaestro.posteriors import Posterior
from vaestro.spaces import Batch

LOGVAR_LIMIT = 20.0


class Prior(nn.Module, ABC):
    """Describe p(z), or p(z | given).

    Args:
        units: the shape of one latent, *Z.
        given: number of values that describe the conditions of one datum; 0 without conditions.
        alphabet: number of values of a discrete latent, as in `Posterior.alphabet`.

    Raises:
        ValueError: the prior is over latents of another kind.
    """

    discrete: ClassVar[bool] = False
    # whether p(z) can be evaluated; see `Sampler`
    has_density: ClassVar[bool] = True
    # whether a training step with this prior can be traced into a graph
    in_graph: ClassVar[bool] = True

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
        """Create the parameters that depend on the posterior. Called once, by the model.

        Raises:
            ValueError: posterior and prior do not fit each other.
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
        """Return the number of training rows that `start` uses; 0 if none, or after `start`."""
        return 0

    def start(self, posterior: Posterior, batch: Batch) -> None:
        """Set parameters to where they fit training data, before the first step."""

    @abstractmethod
    def forward(self, posterior: Posterior, given: Tensor | None) -> densities.PriorDensity:
        """Return p(z | given).

        Args:
            posterior: the model's posterior. Only `Vamp` uses it; no prior owns it.
            given: conditions, (B, C); None without conditions.
        """

    def draw(
        self,
        posterior: Posterior,
        given: Tensor | None,
        n: int,
        generator: torch.Generator | None = None,
        *,
        temperature: float = 1.0,
    ) -> Tensor:
        """Draw n latents, (n, *Z), one for each row of `given` if there are conditions.

        The temperature multiplies the noise of the prior.
        """
        p: densities.PriorDensity = self(posterior, given)
        return p.draw(n, generator, temperature)


@final
class Normal(Prior):
    """Represent the standard normal N(0, I), which has no parameters.

    >>> prior = Normal((2,))
    >>> prior.has_density, list(prior.parameters())
    (True, [])
    """

    def forward(self, posterior: Posterior, given: Tensor | None) -> densities.StandardNormal:
        return densities.StandardNormal(self.units, posterior.like)


class Sampler(Prior, ABC):
    """Describe a prior that can be sampled but has no density, such as one that solves a stochastic
    differential equation.

    A model with such a prior is sampled and its decoder is used. It cannot be trained or evaluated,
    because a bound on log p(x) contains log p(z).
    """

    has_density = False

    @abstractmethod
    def transform(self, noise: Tensor, given: Tensor | None) -> Tensor:
        """Return latents (n, *Z) from standard normal noise (n, *Z) and conditions (n, C)."""

    def forward(self, posterior: Posterior, given: Tensor | None) -> densities.PriorDensity:
        raise ValueError(
            f"expected a prior with a density; got {type(self).__name__}, which can only be "
            f"sampled: without log p(z) there is no bound on log p(x)"
        )

    @torch.no_grad()
    def draw(
        self,
        posterior: Posterior,
        given: Tensor | None,
        n: int,
        generator: torch.Generator | None = None,
        *,
        temperature: float = 1.0,
    ) -> Tensor:
        like = posterior.like
        noise = torch.randn(
            (n, *self.units), generator=generator, dtype=like.dtype, device=like.device
        )
        return self.transform(temperature * noise, given)


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

    >>> sum(p.numel() for p in Conditional((2,), 3, width=8).parameters())
    68
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
        return densities.Normal(mean, soft_limit(logvar, LOGVAR_LIMIT), len(self.units))


def _gate(components: int, given: int) -> nn.Parameter | None:
    """Return the matrix G of a mixture whose weights depend on conditions, (C, given); it starts at
    0."""
    return nn.Parameter(torch.zeros(components, given)) if given else None


def _weights(logits: Tensor, gate: Tensor | None, given: Tensor | None) -> Tensor:
    """Return the logits of the weights: (C,), or logits + G given, (B, C).

    Raises:
        ValueError: there are no conditions, and the weights depend on them.
    """
    if gate is None:
        return logits
    if given is None:
        raise ValueError("expected conditions for p(z | given); got none")
    return logits + given.to(gate.dtype) @ gate.T


@final
class Mixture(Prior):
    """Represent p(z) = sum_k weight_k N(mean_k, diag(exp(logvar_k))), with learned parameters.

    With conditions, the weights depend on them. Scoring z costs two matrix products with one column
    for each component. The KL has no closed form.

    Args:
        units, given, alphabet: see Prior.
        components: number of components.

    >>> Mixture((2,), components=5).means.shape
    torch.Size([5, 2])
    """

    def __init__(
        self, units: tuple[int, ...], given: int = 0, alphabet: int = 0, *, components: int = 32
    ) -> None:
        super().__init__(units, given, alphabet)
        if components < 1:
            raise ValueError(f"expected 1 or more components; got {components}")
        n = math.prod(units)
        self.logits = nn.Parameter(torch.zeros(components))
        self.gate = _gate(components, given)
        self.means = nn.Parameter(torch.randn(components, n))
        self.logvars = nn.Parameter(torch.zeros(components, n))

    def forward(self, posterior: Posterior, given: Tensor | None) -> densities.NormalMixture:
        logits = _weights(self.logits, self.gate, given)
        return densities.NormalMixture(
            logits, self.means, soft_limit(self.logvars, LOGVAR_LIMIT), self.units
        )


@final
class Vamp(Prior):
    """Represent p(z) = sum_k weight_k q(z | u_k), the VampPrior (Tomczak and Welling 2018).

    The pseudo-inputs u_k are learned. They are inputs of the encoder, start at training data, and
    pass through the encoder at every step, which costs as much as that many more rows in a batch.
    With conditions, the weights depend on them, and each pseudo-input has learned conditions.
    Scoring z costs as much as in a mixture if q is normal; for other families each unit of z is
    scored under each pseudo-input.

    Args:
        units, given, alphabet: see Prior.
        inputs: number of pseudo-inputs.

    >>> Vamp((2,), inputs=50).start_rows
    50
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
        self.gate = _gate(inputs, given)
        self.inputs: nn.Parameter | None = None
        self.conditions = nn.Parameter(torch.zeros(inputs, given)) if given else None
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
        rows = torch.arange(self.count, device=x.device) % len(x)
        self.inputs.copy_(x[rows])
        if self.conditions is not None and batch.given is not None:
            self.conditions.copy_(batch.given[rows])
        self.started.fill_(1.0)

    def forward(
        self, posterior: Posterior, given: Tensor | None
    ) -> densities.NormalMixture | densities.Mixture:
        assert self.inputs is not None
        features = posterior.encoded(self.inputs, self.conditions)
        q = posterior.density(features)
        logits = _weights(self.logits, self.gate, given)
        if isinstance(q, densities.Normal):
            return densities.NormalMixture(
                logits, q.mean.flatten(1), q.logvar.flatten(1), self.units
            )

        def draw(index: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
            components = posterior.density(features[index])
            noise = posterior.noise(1, len(index), generator)
            return components.from_noise(noise)[0], components.mean

        return densities.Mixture(logits, q, draw, self.units)


class _FlowPrior(Prior, ABC):
    """Describe p(z) by a map from latents to the standard normal."""

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
        self.maps = self.make_maps(math.prod(units), given, layers, width)

    @abstractmethod
    def make_maps(self, units: int, given: int, layers: int, width: int) -> nn.Module:
        """Return the lazy map; called with conditions (B, given) or None, it returns a
        `Transform`."""

    def forward(self, posterior: Posterior, given: Tensor | None) -> FlowPrior:
        like = posterior.like
        if not self.given:
            return FlowPrior(self.maps(None), self.units, like)
        if given is None:
            raise ValueError("expected conditions for p(z | given); got none")
        transform: Transform = self.maps(given.to(like.dtype))
        return FlowPrior(transform, self.units, like, rows=len(given))


@final
class MaskedAutoregressive(_FlowPrior):
    """Represent p(z) by a masked autoregressive flow, in which each unit depends on the units
    before it (Papamakarios, Pavlakou and Murray 2017).

    Scoring takes one pass through the network of each layer, drawing one pass for each unit.

    Args:
        units, given, alphabet: see Prior.
        layers: number of maps; the order of the units is reversed from one to the next.
        width: width of the two hidden layers of each map's network.

    >>> MaskedAutoregressive((3,), layers=2).given
    0
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

    def make_maps(self, units: int, given: int, layers: int, width: int) -> nn.Module:
        return autoregressive(units, given, layers, width)


@final
class Coupling(_FlowPrior):
    """Represent p(z) by affine couplings, in which each half of the units is scaled and shifted by
    a function of the other half (Dinh, Sohl-Dickstein and Bengio 2017).

    Scoring and drawing take one pass through the network of each layer. The same density needs more
    layers than in an autoregressive flow.

    Args:
        units, given, alphabet: see Prior.
        layers: number of couplings; the halves alternate.
        width: width of the two hidden layers of each coupling's network.

    >>> Coupling((3,), given=2).given
    2
    """

    in_graph = False  # zuko selects the halves by masks, and reads sums of them

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

    def make_maps(self, units: int, given: int, layers: int, width: int) -> nn.Module:
        return coupling(units, given, layers, width)


@final
class Autoregressive(Prior):
    """Represent p(z) over discrete latents by the product of each unit (or one-hot group) given the
    ones before it, by one masked network (Germain, Gregor, Murray and Larochelle 2015).

    Scoring takes one pass through the network, drawing one pass for each group.

    Args:
        units, given, alphabet: see Prior.
        width: width of the two hidden layers.

    >>> Autoregressive((4,), width=8).discrete
    True
    """

    discrete = True

    def __init__(
        self, units: tuple[int, ...], given: int = 0, alphabet: int = 1, *, width: int = 128
    ) -> None:
        super().__init__(units, given, alphabet)
        if width < 1:
            raise ValueError(f"expected a width of 1 or more; got {width}")
        self.network = MaskedNetwork(densities.groups_of(units, alphabet), width, given)

    def forward(self, posterior: Posterior, given: Tensor | None) -> densities.Autoregressive:
        if not self.given:
            given = None
        elif given is None:
            raise ValueError("expected conditions for p(z | given); got none")
        return densities.Autoregressive(
            lambda z: self.network(z, given),
            self.units,
            self.alphabet,
            posterior.like,
            rows=None if given is None else len(given),
        )


@final
class Bernoulli(Prior):
    """Represent independent units that are zero or one, each with probability 1/2, or with a
    learned probability.

    Args:
        units, given, alphabet: see Prior.
        learned: whether the probabilities are learned.

    >>> Bernoulli((3,), alphabet=1).logits
    Parameter containing:
    tensor([0., 0., 0.])
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
    """Represent independent one-hot groups, with equal probabilities, or with learned ones.

    Args:
        units, given, alphabet: see Prior.
        learned: whether the probabilities are learned.

    >>> Categorical((6,), alphabet=3).logits.shape
    torch.Size([6])
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
