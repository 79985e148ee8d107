"""What may act on the loss beside the weighted bound, and never on what is reported.

Terms on the rate (free bits, a capacity) and penalties on the aggregate posterior q(z) = mean_n q(z
| x_n). All are of batch means: with several processes they are of the global batch, gathered with
their gradients.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal, final

import torch
import torch.nn as nn
from torch import Tensor

from vaestro.densities import Binary, Cells, LocationScale, Normal, full_precision, mean_over_ranks
from vaestro.models import Draws, LatentModel
from vaestro.randomness import torch_generator
from vaestro.schedules import Ramp


def gathered(x: Tensor, alone: bool = False) -> Tensor:
    """Concatenate the rows of all processes, with their gradients; return x in a single process,
    and where it is `alone`."""
    if not alone and torch.distributed.is_available() and torch.distributed.is_initialized():
        from torch.distributed.nn.functional import all_gather

        return torch.cat(all_gather(x.contiguous()))
    return x


class RateTerm(ABC):
    """Describe a term that replaces the rate in a loss: (B,) for each datum, whose mean has the
    value and gradient of the term."""

    name: ClassVar[str]  # in metrics.jsonl

    @abstractmethod
    def __call__(self, draws: Draws, step: Tensor) -> Tensor:
        """Return the term of each datum, (B,), in nats."""

    @abstractmethod
    def value(self, rates: Tensor, step: Tensor) -> Tensor:
        """Return the term, (), in nats, from mean rates over data: of each unit (units,), or of all
        units (1,)."""

    def settled(self, step: Tensor) -> bool:
        """Return whether the term's targets keep their values from a step on."""
        return True

    def plan(self, steps: int, steps_per_epoch: float) -> None:  # noqa: B027
        """Turn lengths into steps of a run."""

    def check(self, draws: Draws) -> None:  # noqa: B027
        """Raise ValueError where a model has no such rate."""


@final
class FreeBits(RateTerm):
    """Make the first nats of rate free: max(nats, mean rate over the batch), of each unit or of all
    (Kingma et al. 2016).

    Below the limit the rate has no gradient, so that a unit is not pressed to switch off.

    Args:
        nats: for each unit, or for all units together.
        group: "unit" or "all".
        smooth: nats over which the maximum is rounded, by a softplus; 0 for none.
    """

    name = "free_bits"

    def __init__(
        self, nats: float, *, group: Literal["unit", "all"] = "unit", smooth: float = 0.0
    ) -> None:
        if not (0 <= nats < math.inf and 0 <= smooth < math.inf):
            raise ValueError(
                f"expected free bits and their smoothing of 0 nats or more; got {nats} and {smooth}"
            )
        self.nats, self.group, self.smooth = nats, group, smooth

    def check(self, draws: Draws) -> None:
        if (
            self.group == "unit"
            and draws.rate[0].flatten(1).shape[1] == 1
            and draws.z[0, 0].numel() > 1
        ):
            raise ValueError(
                "expected a closed-form rate of each unit for free bits, or free bits with "
                "group=all; got one rate of all units"
            )

    def __call__(self, draws: Draws, step: Tensor) -> Tensor:
        rate = draws.rate.flatten(2).mean(0)  # (B, units)
        if self.group == "all":
            rate = rate.sum(-1, keepdim=True)
        mean = mean_over_ranks(rate.detach().mean(0))
        gate = (
            torch.sigmoid((mean - self.nats) / self.smooth)
            if self.smooth
            else (mean > self.nats).to(mean)
        )
        # The derivative of the maximum of a mean is a factor for each unit, which all processes
        # agree on.
        return (gate * rate + (self._at_least(mean) - gate * mean)).sum(-1)

    def value(self, rates: Tensor, step: Tensor) -> Tensor:
        return self._at_least(rates.sum(-1, keepdim=True) if self.group == "all" else rates).sum(-1)

    def _at_least(self, mean: Tensor) -> Tensor:
        if self.smooth:
            return self.nats + self.smooth * torch.nn.functional.softplus(
                (mean - self.nats) / self.smooth
            )
        return mean.clamp_min(self.nats)


@final
class Capacity(RateTerm):
    """Press the rate to a capacity that grows: gamma |mean rate - C(step)| (Burgess et al. 2018).

    Args:
        to: nats in the end.
        gamma: the weight.
        share, epochs, steps: over which C grows from 0, by default half of the run.
    """

    name = "capacity"

    def __init__(
        self,
        *,
        to: float,
        gamma: float = 100.0,
        share: float | None = None,
        epochs: float | None = None,
        steps: int | None = None,
    ) -> None:
        if not 0 < gamma < math.inf:
            raise ValueError(f"expected gamma above 0; got {gamma}")
        self.gamma = gamma
        self.capacity = Ramp(
            0.0,
            to,
            steps=steps,
            epochs=epochs,
            share=0.5 if share is None and epochs is None and steps is None else share,
        )

    def plan(self, steps: int, steps_per_epoch: float) -> None:
        self.capacity.plan(steps, steps_per_epoch)

    def __call__(self, draws: Draws, step: Tensor) -> Tensor:
        rate = draws.total_rate
        mean = mean_over_ranks(rate.detach().mean())
        sign = torch.sign(mean - self.capacity(step))
        return self.gamma * (sign * (rate - mean) + (mean - self.capacity(step)).abs())

    def value(self, rates: Tensor, step: Tensor) -> Tensor:
        return self.gamma * (rates.sum(-1) - self.capacity(step)).abs()

    def settled(self, step: Tensor) -> bool:
        return self.capacity.settled(step)


class Penalty(nn.Module, ABC):
    """Describe a penalty on the aggregate posterior, in nats unless it says otherwise.

    Args:
        weight: of the penalty in the loss.
    """

    name: ClassVar[str]  # in metrics.jsonl
    in_graph: ClassVar[bool] = True

    def __init__(self, weight: float) -> None:
        super().__init__()
        if not math.isfinite(weight):
            raise ValueError(f"expected a weight of a penalty; got {weight}")
        self.weight, self.rows, self.seed = weight, 0, 0
        self._model: tuple[LatentModel, ...] = ()

    def prepare(self, model: LatentModel, rows: int, batch: int, seed: int) -> None:
        """Learn of the model, of the number of training data, of the batch and the seed, before the
        first step.

        Raises:
            ValueError: it has no meaning there.
        """
        if batch < 2:
            raise ValueError(
                f"expected a batch of 2 or more for a penalty on the aggregate posterior; got "
                f"{batch}"
            )
        # in a tuple, so that the model is no part of this one
        self._model, self.rows, self.seed = (model,), rows, seed

    def check(self, draws: Draws) -> None:
        """Raise ValueError where the model's families have no such penalty."""

    @abstractmethod
    def forward(self, draws: Draws, step: Tensor, *, alone: bool = False) -> Tensor:
        """Return the unweighted penalty of a batch, (), from the first of its draws; `alone` leaves
        the other processes' data out."""


def _everywhere(q: Any) -> Any:
    """Return the densities of all processes' data."""
    if isinstance(q, Normal):
        return Normal(gathered(q.mean), gathered(q.logvar), q.dims)
    if isinstance(q, LocationScale):
        made = copy.copy(q)
        made.loc, made.log_scale = gathered(q.loc), gathered(q.log_scale)
        return made
    assert isinstance(q, Binary)
    return Binary(gathered(q.logits), q.dims)


def log_aggregate(q: Any, z: Tensor, rows: int, alone: bool = False) -> tuple[Tensor, Tensor]:
    """Estimate log q(z) and log q(z_i) of each unit at draws z (B, *Z) of the data of q, from their
    batch alone: (B,) and (B, units).

    In the aggregate posterior of N data a draw's own q has weight 1 / N, and the others (N - 1) / N
    together, which those of the batch
    stand for: each with (N - 1) / (N (B - 1)). The mean of the estimated density is then the
    density. (Chen et al. 2018 give one datum of the batch the weight of all that are absent, which
    has the same mean and more noise.)

    Args:
        q: independent units, for the B data of this process.
        z: a draw from each.
        rows: N, or with fewer data than the batch holds that many.
        alone: leave the other processes' data out.
    """
    every = q if alone else _everywhere(q)
    cells = (
        every.cells(z.unsqueeze(1))
        if not isinstance(every, Binary)
        else _binary_cells(every, z.unsqueeze(1))
    ).flatten(2)
    batch = cells.shape[1]
    several = not alone and torch.distributed.is_available() and torch.distributed.is_initialized()
    rank = torch.distributed.get_rank() if several else 0
    n = max(rows, batch)
    own = torch.zeros(len(z), batch, dtype=torch.bool, device=z.device)
    own[torch.arange(len(z)), torch.arange(len(z)) + rank * len(z)] = True
    weight = torch.where(own, -math.log(n), math.log((n - 1) / (n * (batch - 1))))
    return torch.logsumexp(weight + cells.sum(-1), 1), torch.logsumexp(
        weight.unsqueeze(-1) + cells, 1
    )


def _binary_cells(q: Binary, z: Tensor) -> Tensor:
    return z * q.logits - torch.nn.functional.softplus(q.logits)


@final
class TotalCorrelation(Penalty):
    """Penalise the total correlation of q(z), KL(q(z) || prod_i q(z_i)): the (beta - 1) TC of the
    beta-TCVAE (Chen et al. 2018).

    Args:
        weight: beta - 1 of the paper, whose rate has weight 1.
    """

    name = "total_correlation"

    def __init__(self, *, weight: float = 5.0) -> None:
        super().__init__(weight)

    def check(self, draws: Draws) -> None:
        if not isinstance(draws.q, (Cells, Binary)):
            raise ValueError(
                f"expected a posterior of independent units for total-correlation, such as "
                f"normal; got {type(draws.q).__name__}"
            )

    @full_precision
    def forward(self, draws: Draws, step: Tensor, *, alone: bool = False) -> Tensor:
        joint, units = log_aggregate(draws.q, draws.z[0], self.rows, alone)
        return (joint - units.sum(-1)).mean()


@final
class Dip(Penalty):
    """Penalise squared differences of the code's covariance from the unit matrix (DIP-VAE; Kumar,
    Sattigeri and Balakrishnan 2018).

    Args:
        kind: "i" for the covariance over data of q's mean; "ii" for the covariance of z, which adds
            the mean over data of q's covariance.
        off: weight of the squared covariances between units.
        diagonal: weight of the squared distances of variances from 1.
    """

    name = "dip"

    def __init__(
        self, *, kind: Literal["i", "ii"] = "ii", off: float = 10.0, diagonal: float = 5.0
    ) -> None:
        super().__init__(1.0)
        if min(off, diagonal) < 0:
            raise ValueError(
                f"expected weights of 0 or more; got off={off} and diagonal={diagonal}"
            )
        self.kind, self.off, self.diagonal = kind, off, diagonal

    def check(self, draws: Draws) -> None:
        if self.kind == "ii" and draws.q.mean_covariance() is None:
            raise ValueError(
                "expected q(z | x) with a mean_covariance, which dip:kind=ii uses; got "
                f"{type(draws.q).__name__} (dip:kind=i needs the mean only)"
            )

    def covariance(self, draws: Draws, *, alone: bool = False) -> Tensor:
        """Return the covariance that is penalised, (n, n), over the data of all processes, or with
        `alone` of this one."""
        mean = gathered(draws.q.mean.flatten(1), alone)
        centred = mean - mean.mean(0)
        covariance = centred.T @ centred / len(mean)
        if self.kind == "i":
            return covariance
        within = draws.q.mean_covariance()
        assert within is not None  # `check` has refused such families
        return covariance + gathered(within.unsqueeze(0), alone).mean(0)

    @full_precision
    def forward(self, draws: Draws, step: Tensor, *, alone: bool = False) -> Tensor:
        covariance = self.covariance(draws, alone=alone)
        own = covariance.diagonal()
        return (
            self.off * (covariance.square().sum() - own.square().sum())
            + self.diagonal * (own - 1).square().sum()
        )


@final
class Mmd(Penalty):
    """Press q(z) to the prior by the maximum mean discrepancy of their draws (InfoVAE, Zhao et al.
    2019; Tolstikhin et al. 2018).

    The estimate has no self-pairs: its mean is the squared discrepancy, so that it may be negative.
    It has no unit.

    Args:
        weight: of it.
        kernel: "imq", C / (C + |x - y|^2) with C = 2 n, or "rbf", exp(-|x - y|^2 / n), for n units.
    """

    name = "mmd"
    in_graph = False

    def __init__(self, *, weight: float = 100.0, kernel: Literal["imq", "rbf"] = "imq") -> None:
        super().__init__(weight)
        self.kernel = kernel

    def _kernel(self, x: Tensor, y: Tensor) -> Tensor:
        n = x.shape[-1]
        squared = (x.square().sum(-1).unsqueeze(1) + y.square().sum(-1) - 2 * x @ y.T).clamp_min(0)
        return torch.exp(-squared / n) if self.kernel == "rbf" else 2 * n / (2 * n + squared)

    def check(self, draws: Draws) -> None:
        if not draws.shared_prior:
            raise ValueError(
                "expected one prior of all data for the penalty mmd; got one of what is given"
            )

    @full_precision
    def forward(self, draws: Draws, step: Tensor, *, alone: bool = False) -> Tensor:
        z = gathered(draws.z[0].flatten(1), alone)
        generator = torch_generator(z.device, self.seed, "mmd", int(step))
        with torch.no_grad():
            drawn = self._model[0].draw_prior(len(z), None, generator).flatten(1)
        n = len(z)
        ours, theirs, crossed = (
            self._kernel(z, z),
            self._kernel(drawn, drawn),
            self._kernel(z, drawn),
        )
        pairs = n * (n - 1)
        return (
            ours.sum() - ours.diagonal().sum() + theirs.sum() - theirs.diagonal().sum()
        ) / pairs - 2 * crossed.mean()
