"""The variational autoencoder: a posterior, a likelihood and a prior.

For one example and one draw, in nats,

    ELBO = log p(x | z) - KL(q(z | x) || p(z)),        z = mean + std * noise
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import final

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter

from vaestro.densities import Density, PosteriorDensity, PriorDensity, closed_form_kl
from vaestro.gradients import Gradient, Pathwise
from vaestro.likelihoods import Likelihood
from vaestro.models.absences import Absences
from vaestro.models.base import Capabilities, LatentModel
from vaestro.models.draws import Code, Draws
from vaestro.models.lengths import Lengths
from vaestro.models.scoring import Scoring, rows_to_start, start_likelihood, uniform_noise
from vaestro.posteriors import Posterior
from vaestro.priors import Prior, Sampler
from vaestro.spaces import Batch, Space, check_batch


@final
class VAE(LatentModel):
    """Combine a posterior, a likelihood and a prior (Kingma and Welling 2014).

    With a diagonal normal posterior and the standard normal prior, the loss of one example is

        z    = mean + std * noise
        loss = -log p(x | z) + sum_i (std_i^2 + mean_i^2 - 1 - log std_i^2) / 2

    and its derivative, with g = d(-log p(x | z))/dz, is

        d loss / d mean_i   = g_i + mean_i
        d loss / d logvar_i = g_i * noise_i * std_i / 2 + (std_i^2 - 1) / 2

    A test compares autograd with these and with finite differences.

    Data on a grid (8-bit levels under a density, rounded numbers) are dequantised. The noise then
    has a second part, uniform over the cells of the grid. It is one more latent, drawn from its own
    prior, so every bound remains a bound.

    Of series that end early, training also maximises log p(length | z) (see `Lengths`), and of
    tables and vectors log p(which cells are empty | z), by its own parameters alone (see
    `Absences`). The bound is that of the values.

    Args:
        posterior, likelihood, prior: the three parts.
        given: the space of the conditions, for a conditional model (Sohn, Lee and Yan 2015).

    Raises:
        ValueError: the parts do not fit each other.

    >>> import vaestro as vs
    >>> from vaestro.spaces import BinarySpace
    >>> model = vs.build(BinarySpace((3,), (3,)), latent=2, network="linear")
    >>> batch = vs.spaces.Batch(torch.ones(5, 3))
    >>> draws = model.draw(batch, k=4)
    >>> draws.z.shape, draws.log_px.shape, draws.rate.shape
    (torch.Size([4, 5, 2]), torch.Size([4, 5]), torch.Size([1, 5, 2]))
    """

    def __init__(
        self, posterior: Posterior, likelihood: Likelihood, prior: Prior, given: Space | None = None
    ) -> None:
        super().__init__()
        self.given = given
        prior.join(posterior)
        likelihood.bind(given)
        self.posterior, self.likelihood, self.prior = posterior, likelihood, prior
        self.alphabet, self.further_units = prior.alphabet, likelihood.further_units
        self.space, self.units, self.jitter = likelihood.space, posterior.units, likelihood.jitter
        self.scoring = Scoring(self.space)
        conditions = 0 if given is None else given.feature_shape[0]
        self.lengths = (
            None if self.space.lengths is None else Lengths(self.space, self.units, conditions)
        )
        self.absences = (
            None if self.space.empty is None else Absences(self.space, self.units, conditions)
        )

    @property
    def capabilities(self) -> Capabilities:
        posterior, likelihood, prior = self.posterior, self.likelihood, self.prior
        parts = (posterior, prior, likelihood)
        return Capabilities(
            reads_latent=likelihood.reads_latent,
            autoregressive=likelihood.autoregressive and likelihood.reads_latent,
            scored_anywhere=posterior.scored_anywhere,
            scored_held=posterior.scored_held,
            prior_density=prior.has_density,
            fitted_to_data=likelihood.fitted_to_data,
            not_recordable=tuple(type(part).__name__ for part in parts if not part.in_graph),
            trained_as=likelihood.altered,
            latent_gradient=not self.alphabet,
            logvar_limit=posterior.limit if posterior.limit < math.inf else None,
            standard_prior=prior.standard,
        )

    def check_conditions(self, values: Mapping[str, np.ndarray], names: Sequence[str]) -> None:
        self.likelihood.check_conditions(values, names)

    def encoder_parameters(self) -> list[Parameter]:
        return [p for p in self.posterior.parameters() if p.requires_grad]

    def features(self, batch: Batch) -> Tensor:
        return self.posterior.features(batch)

    def q(self, features: Tensor) -> PosteriorDensity:
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
        check_batch(self.space, batch)
        gradient = gradient or Pathwise()
        q = self.q(self.features(batch) if features is None else features)
        p = self.prior(self.posterior, batch.given)
        z_noise, jitter = self.parts(self.noise(k, len(batch)) if noise is None else noise)
        draws = self._draws(batch, q, p, gradient.latents(q, z_noise), jitter, gradient)
        if not gradient.relaxed:
            return draws
        with torch.no_grad():  # the reported bound uses discrete draws
            return replace(
                self._draws(batch, q, p, q.from_noise(z_noise), jitter, Pathwise()),
                optimised=draws.trained(),
            )

    def _draws(
        self,
        batch: Batch,
        q: PosteriorDensity,
        p: PriorDensity,
        z: Tensor,
        jitter: Tensor | None,
        gradient: Gradient,
    ) -> Draws:
        px = self.likelihood(z, batch.given)
        x = self.likelihood.spread(batch.x, jitter)
        log_px = self.scoring(px, x, batch.observed)
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
            entropy = q.entropy if gradient.relaxed else None
            # Relaxed latents have no density under q: its entropy is used instead.
            draws = (
                draws.sampled()
                if entropy is None
                else replace(draws, rate=-(entropy.flatten(1).sum(1) + draws.log_pz).unsqueeze(-1))
            )
        if not self.training:
            return draws
        trained = self.likelihood.training_density(px, x, batch.observed)
        if trained is px and not self.presences:
            return draws
        optimised = log_px if trained is px else self.scoring(trained, x, batch.observed)
        for presence in self.presences:
            optimised = optimised + presence.trained(z, batch)
        return replace(draws, optimised=replace(draws, log_px=optimised))

    def noise(self, k: int, rows: int, generator: torch.Generator | None = None) -> Tensor:
        z_noise = self.posterior.noise(k, rows, generator)
        if self.jitter is None:
            return z_noise
        jitter = uniform_noise((k, rows, *self.jitter), z_noise, generator)
        return torch.cat([z_noise.flatten(2), jitter.flatten(2)], -1)

    def parts(self, noise: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.jitter is None:
            return noise, None
        z_noise, jitter = noise.split(
            [noise.shape[-1] - math.prod(self.jitter), math.prod(self.jitter)], -1
        )
        return z_noise.unflatten(-1, self.posterior.noise_shape), jitter.unflatten(-1, self.jitter)

    def spread(self, x: Tensor, noise: Tensor) -> Tensor:
        return self.likelihood.spread(x, self.parts(noise)[1])

    def log_terms(
        self, batch: Batch, z: Tensor, jitter: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        check_batch(self.space, batch)
        p = self.prior(self.posterior, batch.given)
        x = batch.x
        if self.jitter is not None:
            if jitter is None:
                jitter = uniform_noise((len(z), len(batch), *self.jitter), z)
            x = self.likelihood.spread(x, jitter)
        return self.scoring(self.likelihood(z, batch.given), x, batch.observed), p.log_prob(z)

    def draw_prior(
        self,
        n: int,
        given: Tensor | None = None,
        generator: torch.Generator | None = None,
        *,
        temperature: float = 1.0,
    ) -> Tensor:
        return self.prior.draw(self.posterior, given, n, generator, temperature=temperature)

    def with_prior(self, prior: Sampler) -> VAE:
        other = VAE(self.posterior, self.likelihood, prior, self.given)
        other.lengths, other.absences = self.lengths, self.absences
        return other.eval()

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
            # If a cell is missing or not on a grid, nothing depends on its noise: its posterior is
            # its prior.
            used = self.likelihood.on_grid()
            if observed is not None:
                used = used & observed.flatten(1)[:, : jitter[0].numel()]
            free = uniform_noise(tuple(jitter.shape), z, generator)
            jitter = torch.where(used.reshape(-1, *jitter.shape[1:]), jitter, free)
        return (
            # draws outside of the levels are kept
            Batch(
                x if observed is None else torch.where(observed, x, 0),
                observed,
                given,
                checked=True,
            ),
            z,
            jitter,
        )

    def code(self, batch: Batch) -> Code:
        q = self.posterior(batch)
        logvar = q.logvar
        if logvar is None and not self.alphabet:
            variance = q.variance
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
        return max(self.prior.start_rows, rows_to_start(self.likelihood))

    def start(self, batch: Batch) -> None:
        rows = self.prior.start_rows
        if rows:
            self.prior.start(
                self.posterior,
                batch[torch.arange(rows) * len(batch) // rows] if rows < len(batch) else batch,
            )
        start_likelihood(self.likelihood, batch)

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
