r"""Gradient estimators: surrogates whose gradient estimates the gradient of a bound.

A bound is an expectation under q(z | x; phi), and phi is trained. Each estimator returns a
surrogate: its value is the value of the bound, and its gradient is an estimate of the gradient of
the expected bound. With log w = log p(x, z) - log q(z | x; phi) and z = z(noise, phi),

    pathwise          d bound(log w(z, phi)) / d phi

    stl               the same, with the parameters of q held fixed in log q, so that only the path
                      through z counts. Its variance vanishes as q approaches the posterior. It is
                      unbiased for the ELBO. For IWAE with k > 1 the dropped term has a mean
                      other than zero.

    dreg              for IWAE: stl with the path of draw k multiplied once more by w~_k,

                          sum_k w~_k^2 (d log w_k / d z_k) (d z_k / d phi),   w~ = w / sum_k w_k

    score             with z held fixed,

                          sum_k (bound - bound with log w_k replaced by a baseline)
                                d log q(z_k | x; phi) / d phi

                      for every q that can be sampled and scored, also a discrete one. Its variance
                      is much higher.

    gumbel-softmax    for discrete z: z is replaced by softmax((logits + noise) / temperature). The
                      estimate is biased and has a low variance.

    straight-through  for discrete z: the decoder reads the discrete z, and the gradient is that of
                      the softmax.

The baseline of draw k may depend on everything except z_k: on the mean of the other log w
(leave-one-out: RLOO for the ELBO, Kool, van Hoof and Welling 2019; VIMCO for IWAE, Mnih and Rezende
2016), a running mean, or a trained function of x.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Literal, final

import torch
import torch.nn as nn
from torch import Tensor

from vaestro.densities import PosteriorDensity, mean_over_ranks

if TYPE_CHECKING:
    from vaestro.models import Draws, Model

Bound = Callable[["Draws"], Tensor]


class Gradient(nn.Module, ABC):
    """Describe an estimator: its latents, whether log q has a gradient in the parameters of q, and
    its surrogate.

    `pathwise` means that z has a gradient, `stop_q` that the parameters of q are held fixed in
    log q, and `relaxed` that discrete latents are trained through continuous ones.
    """

    pathwise: ClassVar[bool]
    stop_q: ClassVar[bool]
    relaxed: ClassVar[bool] = False

    def check(self, bound: str, k: int) -> None:
        """Raise ValueError if the estimator has no meaning for a bound with k draws; the message
        names the nearest estimator that has one."""

    def prepare(self, model: Model) -> None:
        """Create the parameters that the estimator trains, before the optimiser is created.

        Raises:
            ValueError: the estimator has no meaning for the model's latents.
        """
        if model.alphabet and self.pathwise and not self.relaxed:
            raise ValueError(
                f"expected gradient gumbel-softmax, straight-through or score for discrete "
                f"latents; got {_named(self)}"
            )
        if not model.capabilities.scored_held and (self.stop_q or not self.pathwise):
            raise ValueError(
                f"expected gradient pathwise for a posterior that is scored at its own draws "
                f"alone; got {_named(self)}"
            )
        if self.relaxed and not model.alphabet:
            raise ValueError(
                f"expected gradient pathwise for real latents, which need no relaxing; got "
                f"{_named(self)}"
            )

    def latents(self, q: PosteriorDensity, noise: Tensor) -> Tensor:
        """Return z from noise, (K, B, *Z), as the decoder reads it in training."""
        z = q.from_noise(noise)
        return z if self.pathwise else z.detach()

    @abstractmethod
    def surrogate(self, draws: Draws, bound: Bound) -> Tensor:
        """Return the bound of each datum, (B,), in nats, with the gradient of this estimator."""


def _named(gradient: Gradient) -> str:
    """Return the name of an estimator in the table of parts."""
    words = re.findall("[A-Z][a-z]*", type(gradient).__name__)
    return {"sticking-the-landing": "stl", "doubly-reparameterized": "dreg"}.get(
        name := "-".join(words).lower(), name
    )


@final
class Pathwise(Gradient):
    """Differentiate through z = mean + std * noise, the reparameterization trick (Kingma and
    Welling 2014).

    >>> import vaestro as vs
    >>> vs.Objective("elbo", gradient=Pathwise()).gradient.pathwise
    True
    """

    pathwise = True
    stop_q = False

    def surrogate(self, draws: Draws, bound: Bound) -> Tensor:
        return bound(draws)


@final
class StickingTheLanding(Gradient):
    """Differentiate through z alone, with the parameters of q held fixed in log q (Roeder, Wu and
    Duvenaud 2017).

    The variance vanishes as q approaches the posterior. For the ELBO, with any number of draws.

    >>> import vaestro as vs
    >>> vs.Objective("elbo", k=4, gradient=StickingTheLanding()).gradient.stop_q
    True
    """

    pathwise = True
    stop_q = True

    def check(self, bound: str, k: int) -> None:
        if bound != "elbo" and k > 1:
            nearest = "dreg" if bound == "iwae" else "pathwise"
            raise ValueError(
                f"expected gradient {nearest} for {bound} with k > 1, for which stl is biased; "
                f"got stl with k={k}"
            )

    def surrogate(self, draws: Draws, bound: Bound) -> Tensor:
        return bound(draws)


@final
class DoublyReparameterized(Gradient):
    """Multiply the path of each draw by its squared normalised weight (Tucker, Lawson, Gu and
    Maddison 2019).

    For IWAE. The signal-to-noise ratio of the encoder's gradient rises with k; with the pathwise
    estimator it falls.

    >>> import vaestro as vs
    >>> vs.Objective("iwae", k=50, gradient=DoublyReparameterized()).name
    'iwae'
    """

    pathwise = True
    stop_q = True

    def check(self, bound: str, k: int) -> None:
        if bound != "iwae":
            nearest = "stl" if bound == "elbo" else "pathwise"
            raise ValueError(
                f"expected gradient {nearest} for {bound}, as dreg is for iwae; got dreg"
            )

    def surrogate(self, draws: Draws, bound: Bound) -> Tensor:
        if draws.z.requires_grad:
            # The gradient at z is w~ d log w / dz, because the derivative of IWAE is w~. With a
            # weight b on log p(z) - log q, the dropped term is b sum_k w~ d log q. Its mean equals
            # the mean of b sum_k (w~ - w~^2) d log w / dz.
            factor = 1 - draws.weight + draws.weight * torch.softmax(draws.log_w.detach(), 0)
            draws.z.register_hook(
                lambda gradient: (
                    gradient * factor.reshape(*factor.shape, *[1] * (gradient.ndim - 2))
                )
            )
        return bound(draws)


class _Relaxed(Gradient):
    """Describe estimators that differentiate discrete latents through a continuous relaxation.

    Args:
        temperature: temperature of the softmax; at a lower one, the latents are closer to discrete
            ones and the variance is higher.
    """

    pathwise = True
    stop_q = False
    relaxed = True

    def __init__(self, temperature: float) -> None:
        super().__init__()
        if not 0 < temperature < math.inf:
            raise ValueError(f"expected a temperature above 0; got {temperature}")
        self.temperature = temperature

    def check(self, bound: str, k: int) -> None:
        if bound != "elbo":
            raise ValueError(
                f"expected objective elbo with {_named(self)}, whose log-weights are not those "
                f"of its draws, or score; got {bound}"
            )

    def surrogate(self, draws: Draws, bound: Bound) -> Tensor:
        return bound(draws)


@final
class GumbelSoftmax(_Relaxed):
    """Train on relaxed latents softmax((logits + noise) / temperature) (Jang, Gu and Poole 2017;
    Maddison, Mnih and Teh 2017).

    The loss uses the KL of the discrete latents. Reported numbers come from discrete draws from the
    same noise, which cost one more pass of the decoder.

    Args:
        temperature: temperature of the softmax.

    >>> from vaestro.densities import Binary
    >>> q, noise = Binary(torch.zeros(1, 1)), torch.ones(1, 1, 1)
    >>> GumbelSoftmax(temperature=0.5).latents(q, noise)
    tensor([[[0.8808]]])
    """

    def __init__(self, *, temperature: float = 0.67) -> None:
        super().__init__(temperature)

    def latents(self, q: PosteriorDensity, noise: Tensor) -> Tensor:
        return q.relaxed(noise, self.temperature)


@final
class StraightThrough(_Relaxed):
    """Decode discrete draws, with the gradient of softmax((logits + noise) / temperature)
    (Bengio, Leonard and Courville 2013; Jang, Gu and Poole 2017).

    Args:
        temperature: temperature of the softmax.

    >>> from vaestro.densities import Binary
    >>> q, noise = Binary(torch.zeros(1, 1)), torch.ones(1, 1, 1)
    >>> StraightThrough(temperature=0.5).latents(q, noise)
    tensor([[[1.]]])
    """

    def __init__(self, *, temperature: float = 1.0) -> None:
        super().__init__(temperature)

    def latents(self, q: PosteriorDensity, noise: Tensor) -> Tensor:
        soft = q.relaxed(noise, self.temperature)
        return soft + (q.from_noise(noise) - soft).detach()


@final
class Score(Gradient):
    """Use the score function d log q(z | x) / d phi, without a path through z (Williams 1992; Mnih
    and Gregor 2014).

    Args:
        baseline: "leave-one-out", the mean log w of the other draws (k of 2 or more); "average", a
            running mean over steps; "learned", a function of the mean of q, fitted by least squares
            with the model; "none".
        decay: decay of the running mean.

    >>> import vaestro as vs
    >>> vs.Objective("iwae", k=5, gradient=Score()).gradient.baseline
    'leave-one-out'
    """

    pathwise = False
    stop_q = False
    running: Tensor

    def __init__(
        self,
        *,
        baseline: Literal["leave-one-out", "average", "learned", "none"] = "leave-one-out",
        decay: float = 0.99,
    ) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"expected a decay in [0, 1); got {decay}")
        self.baseline, self.decay = baseline, decay
        self.network: nn.Module | None = None
        self.register_buffer("running", torch.full((), math.nan))

    def check(self, bound: str, k: int) -> None:
        if self.baseline == "leave-one-out" and k < 2:
            raise ValueError(
                f"expected k of 2 or more draws for the baseline leave-one-out, or "
                f"score:baseline=average; got k={k}"
            )

    def prepare(self, model: Model) -> None:
        super().prepare(model)
        if self.baseline == "learned" and self.network is None:
            size = math.prod(model.units)
            self.network = nn.Sequential(nn.Linear(size, 64), nn.SiLU(), nn.Linear(64, 1)).to(
                next(model.parameters())
            )

    def surrogate(self, draws: Draws, bound: Bound) -> Tensor:
        log_w = draws.log_w.detach()
        if self.baseline == "learned" and self.network is None:
            raise ValueError(
                "expected prepare(model) before the first step with a learned baseline; got a step"
            )
        fitted = (
            None
            if self.network is None
            else self.network(draws.q.mean.detach().flatten(1)).squeeze(-1)
        )
        scored = (self._credit(log_w, draws, bound, fitted) * draws.log_qz).sum(0)
        value = bound(draws)
        surrogate = value + scored - scored.detach()
        if fitted is None:
            return surrogate
        lost = 0.5 * (fitted - log_w.mean(0)).square()
        return surrogate - (lost - lost.detach())

    def _credit(self, log_w: Tensor, draws: Draws, bound: Bound, fitted: Tensor | None) -> Tensor:
        """Return the bound minus the bound with the draw replaced by its baseline, for each draw,
        (K, B)."""
        k, rows = log_w.shape

        def bound_of(weights: Tensor) -> Tensor:
            return bound(draws.of_weights(weights)).detach()

        if self.baseline == "none":
            return bound_of(log_w).expand(k, rows)
        if self.baseline == "leave-one-out":
            base = (log_w.sum(0) - log_w) / (k - 1)
        elif fitted is not None:
            base = fitted.detach().expand(k, rows)
        else:
            base = self._average(log_w).expand(k, rows)
        # Draw i of column j is log w_i, or the baseline if i = j. The bound is computed for all
        # columns at once.
        replaced = torch.where(
            torch.eye(k, dtype=torch.bool, device=log_w.device).unsqueeze(-1),
            base.unsqueeze(1),
            log_w.unsqueeze(1),
        )
        return bound_of(log_w) - bound_of(replaced.flatten(1)).unflatten(0, (k, rows))

    def _average(self, log_w: Tensor) -> Tensor:
        """Return the running mean of earlier steps, then update it: a baseline must not depend on
        its own draw."""
        now = mean_over_ranks(log_w.mean())
        before = torch.where(self.running.isnan(), torch.zeros_like(now), self.running.to(now))
        if self.training:
            self.running.copy_(
                torch.where(self.running.isnan(), now, torch.lerp(now, before, self.decay))
            )
        return before
