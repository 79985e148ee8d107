"""A latent-variable model and the record of what it drew.

`draw` is the only place where posterior, prior and likelihood meet. What it returns, `Draws`, is
all that a bound, a gradient estimator, a diagnosis or a report ever reads.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, NamedTuple, final

import torch
import torch.nn as nn
from torch import Tensor

from vaestro.densities import (
    DataDensity,
    Density,
    closed_form_kl,
    entropy_of,
    is_shared,
    summed,
    variance_of,
)
from vaestro.gradients import Gradient, Pathwise
from vaestro.likelihoods import Likelihood
from vaestro.posteriors import Posterior
from vaestro.priors import Prior
from vaestro.randomness import torch_generator
from vaestro.spaces import Batch, Space


def _once(compute: Callable[[Draws], Tensor]) -> property:
    """Make a property that computes its value once. (The lock in functools.cached_property cannot
    be compiled.)"""
    name = f"_{compute.__name__}"

    @wraps(compute)
    def get(self: Draws) -> Tensor:
        value: Tensor | None = getattr(self, name, None)
        if value is None:
            value = compute(self)
            object.__setattr__(self, name, value)
        return value

    return property(get)


START_ROWS = 4096  # training data at most from which a likelihood starts


def _mean_of_draws(x: Tensor) -> Tensor:
    return x.squeeze(0) if len(x) == 1 else x.mean(0)


class Code(NamedTuple):
    """Hold what `encode` writes: mean and logvar of q, each (B, *Z); logvar is None for families
    without one."""

    mean: Tensor
    logvar: Tensor | None
    how: str


@dataclass(frozen=True, eq=False)
class Draws:
    """Record K draws for each of B data and the log-densities there, in nats.

    Args:
        z: (K, B, *Z).
        log_px: log p(x | z), (K, B), in the user's units.
        rate: the KL of each unit, (1, B, *Z) in closed form, or (K, B, 1) as log q - log p at the
            draws.
        q, p, px: the densities.
        optimised: the draws that training optimises; None where they are these.
        weight: of log q - log p in log_w, and of the rate in the ELBO: beta in a loss; 1 wherever a
            bound is reported.
    """

    z: Tensor
    log_px: Tensor
    rate: Tensor
    q: Density
    p: Density
    px: Density
    optimised: Draws | None = None
    weight: float | Tensor = 1.0

    @_once
    def log_pz(self) -> Tensor:
        """Return log p(z), (K, B)."""
        return self.p.log_prob(self.z)

    @_once
    def log_qz(self) -> Tensor:
        """Return log q(z | x), (K, B)."""
        return self.q.log_prob(self.z)

    @property
    def log_w(self) -> Tensor:
        """Return the log importance weights log p(x, z) - log q(z | x), (K, B); with a weight, of
        log p(z) - log q(z | x)."""
        if isinstance(self.weight, float) and self.weight in (0, 1):
            return self.log_px + self.log_pz - self.log_qz if self.weight else self.log_px
        return self.log_px + self.weight * (self.log_pz - self.log_qz)

    @_once
    def total_rate(self) -> Tensor:
        """Return the rate of each datum, summed over units and averaged over draws, (B,)."""
        return _mean_of_draws(self.rate.flatten(2).sum(-1))

    @_once
    def mean_log_px(self) -> Tensor:
        """Return log p(x | z) of each datum, averaged over draws, (B,)."""
        return _mean_of_draws(self.log_px)

    @property
    def distortion(self) -> Tensor:
        """Return -log p(x | z) of each datum, averaged over draws, (B,)."""
        return -self.mean_log_px

    @property
    def shared_prior(self) -> bool:
        """Tell whether all data have one prior, and none of its own by what is given."""
        return is_shared(self.p, self.z.ndim - 2)

    @property
    def unweighted(self) -> bool:
        """Tell whether the weight is 1 for certain."""
        return isinstance(self.weight, float) and self.weight == 1

    def weighted(self, weight: float | Tensor) -> Draws:
        """Return the same draws with another weight of the rate."""
        return (
            self
            if isinstance(weight, float) and weight == self.weight
            else replace(self, weight=weight)
        )

    def sampled(self) -> Draws:
        """Return the same draws with the sampled rate log q - log p in place of the closed form."""
        return replace(self, rate=(self.log_qz - self.log_pz).unsqueeze(-1))

    def of_weights(self, log_w: Tensor) -> Draws:
        """Return draws whose log weights are these, (K, M), and which have no rate: what a bound
        makes of other weights."""
        return replace(
            self,
            log_px=log_w,
            rate=log_w.new_zeros(1, log_w.shape[1], 1),
            optimised=None,
            weight=0.0,
        )

    def trained(self) -> Draws:
        """Return the draws as training optimises them; itself where that is what is reported."""
        return self if self.optimised is None else self.optimised


class LatentModel(nn.Module, ABC):
    """Describe a model of data x with latents z: whatever produces `Draws` can be trained, bounded
    and diagnosed."""

    space: Space
    units: tuple[int, ...]
    # what the model is conditioned on: the space of a table of attributes
    given: Space | None = None
    alphabet: int = 0  # what the latents are, as `Posterior.alphabet` says
    # the shape of what spreads one datum over the grid it lies on
    jitter: tuple[int, ...] | None = None

    @abstractmethod
    def draw(
        self,
        batch: Batch,
        k: int = 1,
        *,
        gradient: Gradient | None = None,
        noise: Tensor | None = None,
        features: Tensor | None = None,
    ) -> Draws:
        """Draw z K times for each datum and record every log-density there.

        `features` stand in for what `features` makes of the batch: the encoder then does not run,
            or q is another one.
        """

    @abstractmethod
    def features(self, batch: Batch) -> Tensor:
        """Return what determines q(z | x) of each datum, (B, ...): the encoder's outputs."""

    @abstractmethod
    def q(self, features: Tensor) -> Any:
        """Return q(z | x) from what determines it, as `features` makes it, without running the
        encoder or the decoder."""

    @abstractmethod
    def noise(self, k: int, rows: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw the noise that `draw` takes for K draws of each of B rows: (K, B, ...)."""

    @abstractmethod
    def parts(self, noise: Tensor) -> tuple[Tensor, Tensor | None]:
        """Split noise into what `q(features).from_noise` takes and what spreads the data over their
        grid, (K, B, *jitter) or None."""

    @abstractmethod
    def log_terms(
        self, batch: Batch, z: Tensor, jitter: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return log p(x | z) and log p(z), each (K, B), at given latents (K, B, *Z).

        Data on a grid are spread over its cells by `jitter`, (K, B, *jitter) on (-1/2, 1/2), or
        else by fresh noise.
        """

    @abstractmethod
    def draw_prior(
        self,
        n: int,
        given: Tensor | None = None,
        generator: torch.Generator | None = None,
        *,
        temperature: float = 1.0,
    ) -> Tensor:
        """Draw n latents from the prior, (n, *Z), one for each row of `given` where there are
        conditions.

        The noise that the prior draws is multiplied by the temperature.
        """

    @abstractmethod
    def simulate(
        self,
        n: int,
        given: Tensor | None = None,
        observed: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Batch, Tensor, Tensor | None]:
        """Draw n data with the latents (n, *Z) that generated them, and the jitter (n, *jitter)
        where data lie on a grid.

        Each triple is an exact draw from the model's joint distribution. The latents are therefore
        prior draws, and latents and
        jitter are one exact posterior draw for each datum, also where only the cells in `observed`
            are seen: the other cells are
        drawn and then masked. A continuous density on 8-bit or other levels has mass outside of the
        levels; such draws are kept, because rejecting a draw for a cell that is then masked changes
        the distribution of z given the other cells.
        """

    @abstractmethod
    def code(self, batch: Batch) -> Code:
        """Return the code of each datum."""

    @abstractmethod
    def decode(self, z: Tensor, given: Tensor | None = None) -> Density:
        """Return p(x | z) for latents (B, *Z); its parameters have a leading dimension of one."""

    @abstractmethod
    def sample(
        self,
        n: int,
        given: Tensor | None = None,
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Density:
        """Draw n latents from the prior and return p(x | z) there; its parameters have a leading
        dimension of one."""

    @property
    def start_rows(self) -> int:
        """Return how many training data `start` wants; 0 where it needs none, and once it has had
        them."""
        return 0

    def start(self, batch: Batch) -> None:
        """Begin at training data, before the first step."""

    @abstractmethod
    def fit_to_data(self, pairs: Iterable[tuple[Batch, Tensor]]) -> None:
        """Refresh parameters that have a closed form on the training split, from batches of it with
        noise for each; reads none where there
        are no such parameters."""


@final
class VAE(LatentModel):
    """Put a posterior, a likelihood and a prior together (Kingma and Welling 2014).

    With a diagonal-normal posterior and the standard normal prior, the loss of one example is one
    expression,

        loss = -log p(x | z) + sum_i (std_i^2 + mean_i^2 - 1 - log std_i^2) / 2,    z = mean + std *
        noise

    and its derivative by hand, with g = d(-log p(x | z))/dz, is

        d loss / d mean_i   = g_i + mean_i
        d loss / d logvar_i = g_i * noise_i * std_i / 2 + (std_i^2 - 1) / 2

    A test holds autograd to these and to finite differences.

    Where data lie on a grid (8-bit levels under a density, rounded numbers), noise has a second
    part that spreads them over the grid's cells; it is one more latent, drawn from its own prior,
    so that every bound stays one.

    Args:
        posterior, likelihood, prior: the three parts.
        given: the space of the conditions, for a conditional model (Sohn, Lee and Yan 2015).

    Raises:
        ValueError: the parts have no meaning together.
    """

    log_dets: Tensor | None

    def __init__(
        self, posterior: Posterior, likelihood: Likelihood, prior: Prior, given: Space | None = None
    ) -> None:
        super().__init__()
        self.given = given
        prior.join(posterior)
        likelihood.bind(given)
        self.posterior, self.likelihood, self.prior, self.alphabet = (
            posterior,
            likelihood,
            prior,
            prior.alphabet,
        )
        self.space, self.units, self.jitter = likelihood.space, posterior.units, likelihood.jitter
        log_dets = self.space.log_dets()
        made = (
            None
            if log_dets is None
            else torch.from_numpy(log_dets.copy()).to(torch.get_default_dtype())
        )
        self.register_buffer("log_dets", made, persistent=False)

    def features(self, batch: Batch) -> Tensor:
        return self.posterior.features(batch)

    def q(self, features: Tensor) -> Any:
        return self.posterior.density(features)

    def draw(
        self,
        batch: Batch,
        k: int = 1,
        *,
        gradient: Gradient | None = None,
        noise: Tensor | None = None,
        features: Tensor | None = None,
    ) -> Draws:
        gradient = gradient or Pathwise()
        q = self.q(self.features(batch) if features is None else features)
        p = self.prior(self.posterior, batch.given)
        z_noise, jitter = self.parts(self.noise(k, len(batch)) if noise is None else noise)
        draws = self._draws(batch, q, p, gradient.latents(q, z_noise), jitter, gradient)
        if not gradient.relaxed:
            return draws
        with torch.no_grad():  # what is reported is of hard draws
            return replace(
                self._draws(batch, q, p, q.from_noise(z_noise), jitter, Pathwise()),
                optimised=draws.trained(),
            )

    def _draws(
        self, batch: Batch, q: Any, p: Any, z: Tensor, jitter: Tensor | None, gradient: Gradient
    ) -> Draws:
        px = self.likelihood(z, batch.given)
        x = self.likelihood.spread(batch.x, jitter)
        log_px = self._log_px(px, x, batch.observed)
        rate = closed_form_kl(q, p) if gradient.pathwise and not gradient.stop_q else None
        draws = Draws(
            z=z,
            log_px=log_px,
            rate=log_px if rate is None else rate,
            q=q.detach() if gradient.stop_q else q,
            p=p,
            px=px,
        )
        if rate is None:
            entropy = entropy_of(q) if gradient.relaxed else None
            # Relaxed latents have no density under q: its entropy stands for them.
            draws = (
                draws.sampled()
                if entropy is None
                else replace(draws, rate=-(entropy.flatten(1).sum(1) + draws.log_pz).unsqueeze(-1))
            )
        trained = self.likelihood.training_density(px, x, batch.observed) if self.training else px
        return (
            draws
            if trained is px
            else replace(
                draws, optimised=replace(draws, log_px=self._log_px(trained, x, batch.observed))
            )
        )

    def noise(self, k: int, rows: int, generator: torch.Generator | None = None) -> Tensor:
        z_noise = self.posterior.noise(k, rows, generator)
        if self.jitter is None:
            return z_noise
        return torch.cat(
            [z_noise.flatten(2), self._jitter(k, rows, z_noise, generator).flatten(2)], -1
        )

    def _jitter(
        self, k: int, rows: int, like: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        assert self.jitter is not None
        return (
            torch.rand(
                (k, rows, *self.jitter), generator=generator, dtype=like.dtype, device=like.device
            )
            - 0.5
        )

    def parts(self, noise: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.jitter is None:
            return noise, None
        z_noise, jitter = noise.split(
            [noise.shape[-1] - math.prod(self.jitter), math.prod(self.jitter)], -1
        )
        return z_noise.unflatten(-1, self.posterior.noise_shape), jitter.unflatten(-1, self.jitter)

    def log_terms(
        self, batch: Batch, z: Tensor, jitter: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        p = self.prior(self.posterior, batch.given)
        x = batch.x
        if self.jitter is not None:
            x = self.likelihood.spread(
                x, self._jitter(len(z), len(batch), z) if jitter is None else jitter
            )
        return self._log_px(self.likelihood(z, batch.given), x, batch.observed), p.log_prob(z)

    def draw_prior(
        self,
        n: int,
        given: Tensor | None = None,
        generator: torch.Generator | None = None,
        *,
        temperature: float = 1.0,
    ) -> Tensor:
        return self.prior.draw(self.posterior, given, n, generator, temperature=temperature)

    def simulate(
        self,
        n: int,
        given: Tensor | None = None,
        observed: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Batch, Tensor, Tensor | None]:
        z = self.draw_prior(n, given, generator)
        x = self.likelihood(z.unsqueeze(0), given).sample(generator).squeeze(0)
        x, jitter = self.likelihood.settle(x)
        if jitter is not None:
            # Without a grid, or where the cell is missing, nothing depends on the jitter: its
            # posterior is its prior.
            own = self.likelihood.on_grid()
            if observed is not None:
                own = own & observed.flatten(1)[:, : jitter[0].numel()]
            jitter = torch.where(
                own.reshape(-1, *jitter.shape[1:]), jitter, self._jitter(1, n, z, generator)[0]
            )
        return (
            Batch(x if observed is None else torch.where(observed, x, 0), observed, given),
            z,
            jitter,
        )

    def code(self, batch: Batch) -> Code:
        q = self.posterior(batch)
        logvar = getattr(q, "logvar", None)
        if logvar is None and not self.alphabet:
            variance = variance_of(q)
            logvar = None if variance is None else variance.log()
        return Code(q.mean, logvar, self.posterior.how)

    def decode(self, z: Tensor, given: Tensor | None = None) -> Density:
        return self.likelihood(z.unsqueeze(0), given)

    def sample(
        self,
        n: int,
        given: Tensor | None = None,
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Density:
        return self.decode(self.draw_prior(n, given, generator, temperature=temperature), given)

    @property
    def start_rows(self) -> int:
        values = self.likelihood.start_values
        return max(
            self.prior.start_rows,
            min(START_ROWS, max(64, values // self.space.cells)) if values else 0,
        )

    def start(self, batch: Batch) -> None:
        rows = self.prior.start_rows
        if rows:
            self.prior.start(
                self.posterior,
                batch[torch.arange(rows) * len(batch) // rows] if rows < len(batch) else batch,
            )
        if self.likelihood.start_values:
            x = batch.x
            if self.jitter is not None:
                x = self.likelihood.spread(
                    x, self._jitter(1, len(x), x.float(), torch_generator(x.device, 0, "start"))
                )[0]
            self.likelihood.begin_at(x, batch.observed, batch.given)

    @torch.no_grad()
    def fit_to_data(self, pairs: Iterable[tuple[Batch, Tensor]]) -> None:
        if not self.likelihood.fitted_to_data:
            return
        sums = []
        for batch, noise in pairs:
            z_noise, jitter = self.parts(noise)
            x = self.likelihood.spread(batch.x, jitter)
            px = self.likelihood(self.posterior(batch).from_noise(z_noise), batch.given)
            sums.append(self.likelihood.accumulate(px, x, batch.observed))
        self.likelihood.store(torch.stack(sums).double().sum(0))

    def _log_px(self, px: Density, x: Tensor, observed: Tensor | None) -> Tensor:
        if isinstance(px, DataDensity):
            log_px = px.log_prob(x, observed)
        elif observed is None:
            log_px = px.log_prob(x)
        else:
            raise ValueError(
                f"expected complete data for {type(px).__name__}, which cannot be masked; got "
                f"missing cells"
            )
        if self.log_dets is None:
            return log_px
        return log_px + summed(
            self.log_dets.flatten() if observed is None else (self.log_dets * observed).flatten(1)
        )
