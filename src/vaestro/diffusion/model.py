"""A diffusion model of latents, and the prior that samples from it."""

from __future__ import annotations

from typing import final

import torch
import torch.nn as nn
from torch import Tensor

from vaestro.diffusion.denoisers import Denoiser
from vaestro.diffusion.process import Process
from vaestro.diffusion.samplers import Sampler
from vaestro.posteriors import Posterior
from vaestro.priors import Sampler as SampledPrior
from vaestro.text import InputError

DROPPED = 0.1  # share of the rows whose conditions are dropped in training


@final
class Diffusion(nn.Module):
    """Model p(latent), or p(latent | conditions), by a diffusion process (Ho et al. 2020).

    Latents are standardised by the mean and the standard deviation of each unit of a vector, or of
    each channel of a grid, over the training data.

    Args:
        process: the noising process.
        denoiser: the network.

    >>> from vaestro.diffusion import DenseDenoiser
    >>> diffusion = Diffusion(Process("v"), DenseDenoiser((2,), width=16, blocks=1))
    >>> diffusion.loss(torch.zeros(5, 2), torch.full((5,), 500.0), torch.ones(5, 2)).shape
    torch.Size([5])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, process: Process, denoiser: Denoiser) -> None:
        super().__init__()
        self.process, self.denoiser = process, denoiser
        units = denoiser.units
        shape = (units[0], *[1] * (len(units) - 1))
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("std", torch.ones(shape))

    def standardise(self, mean: Tensor, std: Tensor) -> None:
        """Set the moments by which latents are standardised, each (C, 1, ..)."""
        self.mean.copy_(mean)
        self.std.copy_(std)

    def loss(
        self,
        latent: Tensor,
        t: Tensor,
        noise: Tensor,
        given: Tensor | None = None,
        present: Tensor | None = None,
    ) -> Tensor:
        """Return the mean squared error of the prediction of each row, (N,).

        Args:
            latent: (N, *Z).
            t: times in [1, T], (N,).
            noise: standard noise, (N, *Z).
            given: conditions, (N, C).
            present: whether each row has its conditions, (N,).
        """
        z = (latent - self.mean) / self.std
        out = self.predict(self.process.noised(z, t, noise), t, given, present)
        return (out - self.process.target(z, t, noise)).flatten(1).square().mean(1)

    def predict(
        self, z_t: Tensor, t: Tensor, given: Tensor | None = None, present: Tensor | None = None
    ) -> Tensor:
        """Return the prediction of the denoiser, (N, *Z); see `loss`."""
        time = (t / self.process.steps).to(z_t.dtype)
        out: Tensor = self.denoiser(z_t, time, given, present)
        return out

    @torch.no_grad()
    def bound(
        self,
        latent: Tensor,
        given: Tensor | None = None,
        generator: torch.Generator | None = None,
        draws: int = 20,
    ) -> Tensor:
        """Return an unbiased estimate of a lower bound on log p(latent) in nats, (N,).

        The bound is that of the reverse process in continuous time; see `Process.bound`. The
        log-determinant of the standardisation is part of it.

        Args:
            latent: (N, *Z).
            given: conditions, (N, C).
            generator: of noise and times.
            draws: evaluations of the denoiser for each row.
        """
        z = (latent - self.mean) / self.std
        scale = self.std.log().expand(latent.shape[1:]).sum()
        bound = self.process.bound(lambda z_t, t: self.predict(z_t, t, given), z, generator, draws)
        return bound - scale

    @torch.no_grad()
    def draw(
        self,
        noise: Tensor,
        sampler: Sampler,
        given: Tensor | None = None,
        *,
        guidance: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return latents, (N, *Z), from standard noise of the same shape.

        Args:
            noise: at time T.
            sampler: how the reverse process is followed.
            given: conditions, (N, C).
            guidance: weight of the conditions: 1 samples from p(latent | conditions), larger values
                follow the conditions more closely (Ho and Salimans 2022).
            generator: of the noise of a stochastic sampler.

        Raises:
            ValueError: guidance without conditions.
        """
        if guidance != 1 and given is None:
            raise ValueError("expected conditions for guidance; got none")

        def predict(z_t: Tensor, at: float) -> Tensor:
            t = torch.full((len(z_t),), at, dtype=torch.float64, device=z_t.device)
            out = self.predict(z_t, t, given)
            if guidance == 1:
                return out
            without = self.predict(z_t, t)
            return without + guidance * (out - without)

        return sampler(self.process, predict, noise, generator) * self.std + self.mean


@final
class DiffusionPrior(SampledPrior):
    """Draw latents from a diffusion model. It has no log p(z), only a bound (`Diffusion.bound`).

    Args:
        units, given: see `Prior`; the model's own conditions.
        diffusion: the diffusion model. Its conditions are those of the model, then `further`.
        sampler: how the reverse process is followed.
        further: further conditions of the diffusion model, (1, D) for all draws, or (n, D).
        guidance: see `Diffusion.draw`.

    >>> from vaestro.diffusion import Ddim, DenseDenoiser
    >>> diffusion = Diffusion(Process("v"), DenseDenoiser((2,), width=16, blocks=1))
    >>> DiffusionPrior((2,), 0, diffusion, Ddim(steps=3)).transform(torch.zeros(5, 2), None).shape
    torch.Size([5, 2])
    """

    def __init__(
        self,
        units: tuple[int, ...],
        given: int,
        diffusion: Diffusion,
        sampler: Sampler,
        further: Tensor | None = None,
        guidance: float = 1.0,
    ) -> None:
        super().__init__(units, given)
        self.diffusion, self.sampler, self.guidance = diffusion, sampler, guidance
        self.further = further

    def join(self, posterior: Posterior) -> None:
        if posterior.units != self.units:
            raise ValueError(
                f"expected a diffusion model of latents {posterior.units}; got {self.units}"
            )

    def transform(self, noise: Tensor, given: Tensor | None) -> Tensor:
        return self._transformed(noise, given, None)

    def draw(
        self,
        posterior: Posterior,
        given: Tensor | None,
        n: int,
        generator: torch.Generator | None = None,
        *,
        temperature: float = 1.0,
    ) -> Tensor:
        noise = self.noise(posterior, n, generator, temperature)
        return self._transformed(noise, given, generator)

    def _transformed(
        self, noise: Tensor, given: Tensor | None, generator: torch.Generator | None
    ) -> Tensor:
        further = self.further
        if further is not None and len(further) not in (1, len(noise)):
            raise InputError(f"{len(further):,} rows of conditions for {len(noise):,} draws")
        parts = [c.expand(len(noise), -1) for c in (given, further) if c is not None]
        return self.diffusion.draw(
            noise,
            self.sampler,
            torch.cat(parts, 1).to(noise.dtype) if parts else None,
            guidance=self.guidance,
            generator=generator,
        )
