"""Gradient estimators: how the gradient of a bound is taken through the draws.

A bound is an expectation under q, whose parameters are being learned. Each estimator turns a bound
into a surrogate whose value is the bound's and whose gradient is an estimate of the right one. With
log w = log p(x, z) - log q(z | x):

    pathwise          d bound(log w(z(noise, phi), phi)) / d phi
    stl               the same with q's own parameters held in log q: only the path through z
                      counts. Its noise vanishes as q nears the posterior. Right for the mean of log
                      w; for IWAE with k > 1 what is dropped has not mean zero
    dreg              for IWAE: as stl, with the path of draw k weighted once more by its normalised
    weight w~_k score             z held, sum_k (bound - bound with log w_k replaced by a baseline)
                      d log q(z_k | x) / d phi: for any q that can be sampled and scored, discrete
                      ones too, and with far more noise
    gumbel-softmax    discrete z replaced by softmax((logits + noise) / temperature): biased, with
    little noise straight-through  discrete z in the decoder, and the gradient of the softmax

The baseline of draw k may depend on anything but z_k: the mean of the other log w (leave-one-out:
RLOO for the ELBO, Kool, van Hoof and Welling 2019; VIMCO for IWAE, Mnih and Rezende 2016), a
running mean, a function of x that is learned, or nothing.
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
    from vaestro.models import Draws, LatentModel

Bound = Callable[["Draws"], Tensor]


class Gradient(nn.Module, ABC):
    """Describe an estimator: how z is made of noise and whether it carries gradient, whether q is
    scored with its parameters held,
    and the surrogate."""

    pathwise: ClassVar[bool]
    stop_q: ClassVar[bool]
    # whether it is for discrete latents alone, which it trains through continuous ones
    relaxed: ClassVar[bool] = False

    def check(self, bound: str, k: int) -> None:
        """Raise ValueError where the estimator has no meaning for a bound with k draws, with the
        nearest one that has."""

    def prepare(self, model: LatentModel) -> None:
        """Make what is learned beside the model, before the optimiser is given its parameters.

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
        """Return z of noise, (K, B, *Z), as the decoder sees it in training."""
        z = q.from_noise(noise)
        return z if self.pathwise else z.detach()

    @abstractmethod
    def surrogate(self, draws: Draws, bound: Bound) -> Tensor:
        """Return (B,) values of the bound, with this estimator's gradient."""


def _named(gradient: Gradient) -> str:
    """Return the name that the table gives an estimator."""
    words = re.findall("[A-Z][a-z]*", type(gradient).__name__)
    return {"sticking-the-landing": "stl", "doubly-reparameterized": "dreg"}.get(
        name := "-".join(words).lower(), name
    )


@final
class Pathwise(Gradient):
    """Differentiate through z = mean + std * noise, the reparameterization trick (Kingma and
    Welling 2014)."""

    pathwise = True
    stop_q = False

    def surrogate(self, draws: Draws, bound: Bound) -> Tensor:
        return bound(draws)


@final
class StickingTheLanding(Gradient):
    """Differentiate through z alone, with q's parameters held where it is scored (Roeder, Wu and
    Duvenaud 2017).

    The noise vanishes as q nears the posterior. For the ELBO, with any number of draws.
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
    """Weight the path of each draw by its normalised weight twice (Tucker, Lawson, Gu and Maddison
    2019).

    For IWAE: the encoder's signal-to-noise then rises with k, where the plain estimator's falls.
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
            # What flows into z is w~ d log w / dz already, since IWAE's own derivative is w~. With
            # a weight b on log p(z) - log q, what is dropped is b sum_k w~ d log q, whose mean is
            # that of b sum_k (w~ - w~^2) d log w / dz.
            factor = 1 - draws.weight + draws.weight * torch.softmax(draws.log_w.detach(), 0)
            draws.z.register_hook(
                lambda gradient: (
                    gradient * factor.reshape(*factor.shape, *[1] * (gradient.ndim - 2))
                )
            )
        return bound(draws)


class _Relaxed(Gradient):
    """Describe estimators that let the gradient of discrete latents pass through continuous ones.

    Args:
        temperature: of the relaxation: the lower, the nearer to discrete, and the noisier.
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
    """Train on latents between the discrete ones: softmax((logits + noise) / temperature) (Jang, Gu
    and Poole 2017; Maddison et al. 2017).

    The gradient is that of the relaxed objective, whose KL is that of the discrete latents; what is
    reported comes from hard draws of the same noise, which cost one more pass of the decoder.

    Args:
        temperature: see above.
    """

    def __init__(self, *, temperature: float = 0.67) -> None:
        super().__init__(temperature)

    def latents(self, q: PosteriorDensity, noise: Tensor) -> Tensor:
        return q.relaxed(noise, self.temperature)


@final
class StraightThrough(_Relaxed):
    """Decode hard draws, and differentiate as if they were softmax((logits + noise) / temperature)
    (Bengio et al. 2013; Jang et al. 2017).

    Args:
        temperature: see above.
    """

    def __init__(self, *, temperature: float = 1.0) -> None:
        super().__init__(temperature)

    def latents(self, q: PosteriorDensity, noise: Tensor) -> Tensor:
        soft = q.relaxed(noise, self.temperature)
        return soft + (q.from_noise(noise) - soft).detach()


@final
class Score(Gradient):
    """Score each draw by its log-density under q, without a path through z (Williams 1992; Mnih and
    Gregor 2014).

    Args:
        baseline: "leave-one-out", the mean of the other draws' log w (k of 2 or more); "average", a
            running mean over steps; "learned", a function of what the encoder says of x, fitted by
            least squares beside the model; "none".
        decay: of the running mean.
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

    def prepare(self, model: LatentModel) -> None:
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
        """Return by how much each draw made the bound better than its baseline would have, (K,
        B)."""
        k, rows = log_w.shape

        def of(weights: Tensor) -> Tensor:
            return bound(draws.of_weights(weights)).detach()

        if self.baseline == "none":
            return of(log_w).expand(k, rows)
        if self.baseline == "leave-one-out":
            base = (log_w.sum(0) - log_w) / (k - 1)
        elif fitted is not None:
            base = fitted.detach().expand(k, rows)
        else:
            base = self._average(log_w).expand(k, rows)
        # Draw i of column j is log w_i, or the baseline where i = j: the bound of every column at
        # once.
        replaced = torch.where(
            torch.eye(k, dtype=torch.bool, device=log_w.device).unsqueeze(-1),
            base.unsqueeze(1),
            log_w.unsqueeze(1),
        )
        return of(log_w) - of(replaced.flatten(1)).unflatten(0, (k, rows))

    def _average(self, log_w: Tensor) -> Tensor:
        """Return the mean of earlier steps, and take this step's in: a baseline must not know its
        own draw."""
        now = mean_over_ranks(log_w.mean())
        before = torch.where(self.running.isnan(), torch.zeros_like(now), self.running.to(now))
        if self.training:
            self.running.copy_(
                torch.where(self.running.isnan(), now, torch.lerp(now, before, self.decay))
            )
        return before
