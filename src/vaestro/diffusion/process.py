r"""The noising process of a diffusion model, its training targets, and its bound.

At time t in [1, T], with standard noise e,

    z_t = a z + s e                                log-SNR l = ln(a^2 / s^2), which falls with t

    cosine       a^2 + s^2 = 1                     Nichol and Dhariwal (2021)
    straight     a = 1 - t / T,  s = t / T         flow matching (Lipman et al. 2023)

A denoiser predicts one of these, from which its estimate of z follows:

    v            a e - s z        z = a z_t - s out         Salimans and Ho (2022)
    epsilon      e                z = (z_t - s out) / a     Ho et al. (2020)
    flow         e - z            z = z_t - s out           for the straight process

The reverse process in continuous time, from time T to time 1, has the bound (Kingma et al. 2021)

    log p(z) >= E[log N(z; z(z_1), exp(-l_1) I)] - KL(N(a_T z, s_T^2 I) || N(0, I))
                - 1/2 integral_{l_T}^{l_1} exp(l) E|z - z(z_t)|^2 dl
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, TypeAlias, final

import torch
import torch.nn as nn
from torch import Tensor

Prediction = Literal["v", "epsilon", "flow"]
# z_t (N, *Z) and its times (N,) -> the prediction (N, *Z)
Denoise: TypeAlias = Callable[[Tensor, Tensor], Tensor]


@final
class Process(nn.Module):
    """Describe z_t = a z + s e at times t in [1, T], and what the denoiser predicts.

    At whole times, the process with v or epsilon is that of diffusers' schedulers with
    `beta_schedule="squaredcos_cap_v2"`. Between them, the log-SNR is interpolated.

    Args:
        prediction: v, epsilon, or flow, which has the straight process; the others have cosine.
        steps: T.

    Raises:
        ValueError: `steps` is below 2.

    >>> process = Process("v", steps=1000)
    >>> a, s = process.scales(torch.tensor([1.0, 500.5, 1000.0]), torch.zeros(3, 2))
    >>> torch.allclose(a**2 + s**2, torch.ones(3, 1))
    True
    """

    logsnr: Tensor

    def __init__(self, prediction: Prediction = "v", *, steps: int = 1000) -> None:
        super().__init__()
        if steps < 2:
            raise ValueError(f"expected 2 noise levels or more; got {steps}")
        self.prediction, self.steps = prediction, steps
        t = torch.arange(1, steps + 1, dtype=torch.float64)
        if prediction == "flow":
            # at time T the signal would be 0, whose log-SNR is infinite
            logsnr = 2 * ((steps - t.clamp(max=steps - 0.01)) / t).log()
        else:
            logsnr = torch.logit(_cosine(steps))
        self.register_buffer("logsnr", logsnr, persistent=False)

    def scales(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return a and s at times (N,), each (N, 1, ..), to multiply a tensor (N, *Z)."""
        below = t.long().clamp(1, self.steps - 1)
        low, high = self.logsnr[below - 1], self.logsnr[below]
        level = low + (t - below) * (high - low)
        if self.prediction == "flow":
            a = torch.sigmoid(level / 2)
            s = 1 - a
        else:
            a, s = torch.sigmoid(level).sqrt(), torch.sigmoid(-level).sqrt()
        shape = (-1, *[1] * (like.ndim - 1))
        return a.to(like.dtype).reshape(shape), s.to(like.dtype).reshape(shape)

    def noised(self, z: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Return z_t, (N, *Z), for latents and standard noise of the same shape."""
        a, s = self.scales(t, z)
        return a * z + s * noise

    def target(self, z: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Return what the denoiser is trained to predict, (N, *Z)."""
        if self.prediction == "epsilon":
            return noise
        if self.prediction == "flow":
            return noise - z
        a, s = self.scales(t, z)
        return a * noise - s * z

    def clean(self, prediction: Tensor, z_t: Tensor, t: Tensor) -> Tensor:
        """Return the estimate of z, (N, *Z), that a prediction implies."""
        a, s = self.scales(t, z_t)
        if self.prediction == "epsilon":
            return (z_t - s * prediction) / a
        return (z_t if self.prediction == "flow" else a * z_t) - s * prediction

    def bound(
        self, denoise: Denoise, z: Tensor, generator: torch.Generator | None = None, draws: int = 20
    ) -> Tensor:
        """Return an unbiased estimate of the bound on log p(z) in nats, (N,).

        The integral over the log-SNR is estimated by one random point in each of `draws` equal
        intervals.

        Args:
            denoise: the denoiser.
            z: latents, (N, *Z).
            generator: of noise and points.
            draws: number of intervals.

        >>> process = Process("v")
        >>> z = torch.randn(2000, 3, generator=torch.Generator().manual_seed(0))
        >>> exact = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1)
        >>> bound = process.bound(lambda z_t, t: torch.zeros_like(z_t), z, draws=200)
        >>> abs(float((bound - exact).mean())) < 0.2
        True
        """
        rows, size = len(z), z[0].numel()

        def error(t: Tensor) -> Tensor:
            noise = torch.randn(z.shape, generator=generator, dtype=z.dtype, device=z.device)
            z_t = self.noised(z, t, noise)
            difference = z - self.clean(denoise(z_t, t), z_t, t)
            return difference.double().flatten(1).square().sum(1)

        top, bottom = self.logsnr[0], self.logsnr[-1]
        first = torch.ones(rows, dtype=torch.float64, device=z.device)
        bound = -(top.exp() * error(first) + size * (math.log(2 * math.pi) - top)) / 2
        a, s = self.scales(first[:1] * self.steps, z.double())
        last = a.square().flatten() * z.double().flatten(1).square().sum(1)
        bound = bound - (last + size * (s.square() - 1 - 2 * s.log()).flatten()) / 2
        width = (top - bottom) / draws
        for i in range(draws):
            uniform = torch.rand(rows, generator=generator, dtype=torch.float64, device=z.device)
            level = bottom + (i + uniform) * width
            bound = bound - width / 2 * level.exp() * error(self.time(level))
        return bound.to(z.dtype)

    def time(self, logsnr: Tensor) -> Tensor:
        """Return the times, (N,), at which the log-SNR has given values."""
        rising = self.logsnr.flip(0)
        above = torch.searchsorted(rising, logsnr.contiguous()).clamp(1, self.steps - 1)
        low, high = rising[above - 1], rising[above]
        share = ((logsnr - low) / (high - low)).clamp(0, 1)
        return self.steps - (above - 1 + share)


def _cosine(steps: int) -> Tensor:
    """Return a^2 at times 1 .. T of the cosine process, with its limit on a single step."""
    at = torch.arange(steps + 1, dtype=torch.float64) / steps
    level = torch.cos((at + 0.008) / 1.008 * math.pi / 2) ** 2
    return torch.cumprod(1 - (1 - level[1:] / level[:-1]).clamp(max=0.999), 0)
