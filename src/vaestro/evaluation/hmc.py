"""Hamiltonian Monte Carlo along a path, with steps tuned on pilot chains (Neal 2011)."""

from __future__ import annotations

import math
from typing import final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vaestro.evaluation.path import Path, State
from vaestro.randomness import torch_generator

PILOT = 100  # temperatures of the pilot chains
ACCEPTANCE = 0.7  # target acceptance rate
VARIED = 0.2  # relative variation of the step size over transitions


@final
class Hmc:
    """A transition of Hamiltonian Monte Carlo, with scales from the start and from q(z | x).

    Args:
        path: the densities.
        leapfrog: number of leapfrog steps in a transition.
        generator: random generator of momenta and acceptance.
        sizes: size of a leapfrog step relative to the scales, (points along the path, B), as from
            `tuned`.
        spreads: standard deviations at the start and at the end of the path, each (B, S).

    >>> import vaestro as vs
    >>> data = vs.load(np.eye(40, dtype="uint8"))
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> path = Path(model, data.valid.batch(slice(0, 2)), "posterior", rows=2)
    >>> ones, generator = torch.ones(2, 2), torch.Generator()
    >>> hmc = Hmc(path, 2, generator, 0.1 * torch.ones(1, 2), (ones, ones))
    >>> hmc(path.at(path.draw(3, generator)), t=0.5, share=0.5).s.shape
    torch.Size([3, 2, 2])
    """

    def __init__(
        self,
        path: Path,
        leapfrog: int,
        generator: torch.Generator,
        sizes: Tensor,
        spreads: tuple[Tensor, Tensor],
    ) -> None:
        self.path, self.leapfrog, self.generator, self.sizes, self.spreads = (
            path,
            leapfrog,
            generator,
            sizes,
            spreads,
        )
        self.precisions = tuple(spread**-2 for spread in spreads)
        self.accepted: list[Tensor] = []

    def size(self, share: float) -> Tensor:
        """Return the size of a leapfrog step at a share of the path, (B,)."""
        place = share * (len(self.sizes) - 1)
        low = min(int(place), len(self.sizes) - 1)
        high = min(low + 1, len(self.sizes) - 1)
        return torch.lerp(self.sizes[low], self.sizes[high], place - low)

    def __call__(self, state: State, t: float, share: float) -> State:
        k, n, size = state.s.shape
        wide = (k, self.path.rows)
        like = state.s
        momentum = torch.randn(
            (*wide, size), generator=self.generator, dtype=like.dtype, device=like.device
        )[:, :n]
        uniform, varied = torch.rand(
            (2, *wide), generator=self.generator, dtype=like.dtype, device=like.device
        )[:, :, :n]
        scale = torch.rsqrt(torch.lerp(self.precisions[0], self.precisions[1], t))
        # Random for each transition, so that no trajectory is periodic.
        step = (self.size(share) * (1 + VARIED * (2 * varied - 1))).unsqueeze(-1) * scale

        def gradient(at: State) -> Tensor:
            return torch.add(at.base_gradient, at.slope_gradient, alpha=t)

        p, new = momentum + 0.5 * step * gradient(state), state
        for i in range(self.leapfrog):
            new = self.path.at(new.s + step * p)
            p = p + (0.5 if i + 1 == self.leapfrog else 1.0) * step * gradient(new)
        change = (new.base - state.base) + t * (new.slope - state.slope)
        log_ratio = change.double() - 0.5 * (p.double().square() - momentum.double().square()).sum(
            -1
        )
        log_ratio = torch.nan_to_num(log_ratio, nan=-math.inf)
        self.accepted.append(log_ratio.clamp_max(0).exp().mean(0))
        return new.where(uniform.double().log() < log_ratio, state)


def tuned(
    path: Path, ts: np.ndarray, leapfrog: int, where: tuple[int, str, int], chains: int = 4
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Tune the step size of each datum along the path on pilot chains; return (sizes, spreads) for
    `Hmc`.

    The result depends neither on the true latents of simulated data nor on the weighted chains.

    Args:
        path: the densities.
        ts: temperatures.
        leapfrog: number of leapfrog steps in a transition.
        where: seed, purpose and place of the noise.
        chains: number of pilot chains per datum.

    >>> import vaestro as vs
    >>> data = vs.load(np.eye(40, dtype="uint8"))
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> path = Path(model, data.valid.batch(slice(0, 2)), "posterior", rows=2)
    >>> sizes, spreads = tuned(path, np.linspace(0, 1, 11), 2, (0, "ais", 0))
    >>> sizes.shape
    torch.Size([21, 2])
    """
    seed, purpose, first = where
    generator = torch_generator(path.batch.x.device, seed, purpose, "pilot", first)
    spreads = tuple(
        path.draw(64, generator, start).std(0).clamp_min(1e-6)
        for start in (path.start, "posterior")
    )
    state = path.at(path.draw(chains, generator))
    # For a normal, a quarter of a period gives an independent draw; a longer path returns.
    longest = math.log(math.pi / 2 / leapfrog)
    begin = min(longest, math.log(1.5 * path.size**-0.25))
    log_size = torch.full((len(path.batch),), begin, dtype=state.s.dtype, device=state.s.device)
    points = min(PILOT, max(20, (len(ts) - 1) // 2))
    sizes = []
    hmc = Hmc(path, leapfrog, generator, log_size.exp().unsqueeze(0), (spreads[0], spreads[1]))
    settle = 20
    for i in range(-settle, points + 1):
        share = max(i, 0) / points
        hmc.sizes = log_size.exp().unsqueeze(0)
        state = hmc(state, float(np.interp(share, np.linspace(0, 1, len(ts)), ts)), share)
        log_size = log_size + (0.4 if i < 0 else 0.2) * (
            hmc.accepted[-1].to(log_size.dtype) - ACCEPTANCE
        )
        log_size = log_size.clamp(-7.0, longest)
        if i >= 0:
            sizes.append(log_size)
    track = torch.stack(sizes)
    window = 2 * max(1, points // 20) + 1
    padded = F.pad(track.T.unsqueeze(1), (window // 2, window // 2), mode="replicate")
    return F.avg_pool1d(padded, window, 1).squeeze(1).T.exp(), (spreads[0], spreads[1])
