"""Mixtures:

    mixture     p(z) = sum_k w_k N(mean_k, diag(exp(logvar_k)))
    vamp        p(z) = sum_k w_k q(z | u_k)

With conditions, the weights depend on them: w(given) = softmax(logits + G given).
"""

from __future__ import annotations

import math
from typing import final

import torch
import torch.nn as nn
from torch import Tensor

from vaestro import densities
from vaestro.densities import soft_limit
from vaestro.posteriors import Posterior
from vaestro.priors.base import Prior
from vaestro.priors.independent import LOGVAR_LIMIT
from vaestro.spaces import Batch


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
        self.condition_weights = ("gate",) if given else ()
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
