"""The densities between a start and p(x, z), and the weights of chains that move along them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vaestro.models import LatentModel
from vaestro.spaces import Batch

SHARPNESS = 4.0  # of the sigmoid schedule


@dataclass(frozen=True, eq=False)
class State:
    """The state of chains.

    Args:
        s: positions, (K, B, S): z, and the dequantisation noise of gridded data.
        base, slope: log start and log p(x, z) - log start at s, (K, B).
        base_gradient, slope_gradient: their gradients with respect to s, (K, B, S).

    >>> ones = torch.ones(1, 2)
    >>> state = State(torch.ones(1, 2, 3), ones, ones, torch.ones(1, 2, 3), torch.ones(1, 2, 3))
    >>> state.where(ones > 0, state).s.shape
    torch.Size([1, 2, 3])
    """

    s: Tensor
    base: Tensor
    slope: Tensor
    base_gradient: Tensor
    slope_gradient: Tensor

    def where(self, condition: Tensor, other: State) -> State:
        """Return this state where the condition (K, B) is true, and the other state elsewhere."""
        wide = condition.unsqueeze(-1)
        return State(
            torch.where(wide, self.s, other.s),
            torch.where(condition, self.base, other.base),
            torch.where(condition, self.slope, other.slope),
            torch.where(wide, self.base_gradient, other.base_gradient),
            torch.where(wide, self.slope_gradient, other.slope_gradient),
        )


@final
class Path:
    """The densities from a start to p(x, z), for a batch.

    Args:
        model: the model.
        batch: B data.
        start: "prior" or "posterior", the encoder's q(z | x).
        rows: number of data for which noise is drawn, B or more.

    >>> import vaestro as vs
    >>> data = vs.load(np.eye(40, dtype="uint8"))
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> path = Path(model, data.valid.batch(slice(0, 2)), "posterior", rows=2)
    >>> path.at(path.draw(3, torch.Generator())).slope.shape
    torch.Size([3, 2])
    """

    def __init__(self, model: LatentModel, batch: Batch, start: str, rows: int) -> None:
        self.model, self.batch, self.start, self.rows = model, batch, start, rows
        self.units = math.prod(model.units)
        self.size = self.units + math.prod(model.jitter or (0,))
        with torch.no_grad():
            self.q = model.q(model.features(batch)) if model.capabilities.q_from_features else None

    def draw(self, k: int, generator: torch.Generator, start: str | None = None) -> Tensor:
        """Return k draws of the start for each datum, (k, B, S)."""
        model, batch, n = self.model, self.batch, len(self.batch)
        with torch.no_grad():
            if (start or self.start) == "prior":
                given = batch.given
                if given is not None:
                    given = torch.cat(
                        [given, given.new_zeros(self.rows - n, given.shape[-1])]
                    ).repeat(k, 1)
                z = model.draw_prior(k * self.rows, given, generator).unflatten(0, (k, self.rows))[
                    :, :n
                ]
            else:
                noise = model.noise(k, self.rows, generator)[:, :n]
                z = (
                    model.draw(batch, k, noise=noise).z
                    if self.q is None
                    else self.q.from_noise(model.parts(noise)[0])
                )
            jitter = None
            if model.jitter is not None:
                jitter = (
                    torch.rand(
                        (k, self.rows, *model.jitter),
                        generator=generator,
                        dtype=z.dtype,
                        device=z.device,
                    )[:, :n]
                    - 0.5
                )
            return self.join(z, jitter)

    def join(self, z: Tensor, jitter: Tensor | None) -> Tensor:
        """Return positions (..., S) from latents (..., *Z) and jitter (..., *jitter)."""
        z = z.flatten(z.ndim - len(self.model.units))
        if jitter is None:
            return z
        u = jitter.reshape(*z.shape[:-1], -1) + 0.5
        tiny = torch.finfo(u.dtype).eps
        return torch.cat([z, torch.logit(u.clamp(tiny, 1 - tiny))], -1)

    def terms(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """Return log start and log p(x, z) - log start at positions (K, B, S), each (K, B)."""
        z = s[..., : self.units].unflatten(-1, self.model.units)
        v = s[..., self.units :]
        jitter = (
            None
            if self.model.jitter is None
            else (torch.sigmoid(v) - 0.5).unflatten(-1, self.model.jitter)
        )
        log_px, log_pz = self.model.log_terms(self.batch, z, jitter)
        if self.start == "prior" or self.q is None:
            base, slope = log_pz, log_px
        else:
            base = self.q.log_prob(z)
            slope = log_px + log_pz - base
        if jitter is not None:
            base = base - (F.softplus(v) + F.softplus(-v)).sum(-1)
        return base, slope

    def at(self, s: Tensor) -> State:
        """Return the state at s (K, B, S), with its gradients."""
        with torch.enable_grad():
            s = s.detach().requires_grad_()
            base, slope = self.terms(s)
            (base_gradient,) = torch.autograd.grad(base.sum(), s, retain_graph=True)
            (slope_gradient,) = torch.autograd.grad(slope.sum(), s)
        return State(s.detach(), base.detach(), slope.detach(), base_gradient, slope_gradient)


# (state, t, share of the way) -> state; leaves f_t invariant
Transition = Callable[[State, float, float], State]


def temperatures(count: int, schedule: str) -> np.ndarray:
    """Return the temperatures t_0 = 0 .. t_count = 1, (count + 1,).

    Args:
        count: number of steps.
        schedule: "linear", or "sigmoid" with smaller steps at both ends: 1 / (1 + exp(-4 (2 s -
            1))) for s from 0 to 1, rescaled to the range from 0 to 1.

    >>> temperatures(4, "linear")
    array([0.  , 0.25, 0.5 , 0.75, 1.  ])
    """
    s = np.linspace(0, 1, count + 1)
    if schedule == "linear":
        return s
    g = 1 / (1 + np.exp(-SHARPNESS * (2 * s - 1)))
    return np.asarray((g - g[0]) / (g[-1] - g[0]))


def anneal(
    path: Path, state: State, ts: np.ndarray, transition: Transition, *, reverse: bool = False
) -> Tensor:
    """Return the log weights of chains, (K, B), float64.

    Args:
        path: the densities from the start to p(x, z).
        state: draws of the start; in reverse, draws of the posterior.
        ts: t_0 = 0 .. t_T = 1.
        transition: leaves f_t invariant and is reversible.
        reverse: whether to run from t = 1 to t = 0.

    >>> import vaestro as vs
    >>> data = vs.load(np.eye(40, dtype="uint8"))
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> path = Path(model, data.valid.batch(slice(0, 2)), "prior", rows=2)
    >>> state = path.at(path.draw(3, torch.Generator()))
    >>> anneal(path, state, temperatures(1, "linear"), lambda state, t, share: state).shape
    torch.Size([3, 2])
    """
    log_w = torch.zeros(state.base.shape, dtype=torch.float64, device=state.base.device)
    steps = range(len(ts) - 1, 0, -1) if reverse else range(1, len(ts))
    for number, i in enumerate(steps):
        if number:
            at = i if reverse else i - 1
            state = transition(state, float(ts[at]), at / (len(ts) - 1))
        log_w += float(ts[i] - ts[i - 1]) * state.slope.double()
    return log_w
