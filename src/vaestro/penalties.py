r"""Terms that act on the loss besides the weighted bound, and never on reported numbers.

A term on the rate R replaces the rate in the loss of an ELBO, with means over the batch:

    free bits   sum_i max(nats, E_x[R_i])           (Kingma et al. 2016)
    capacity    gamma |E_x[R] - C(step)|            (Burgess et al. 2018)

A penalty acts on the aggregate posterior q(z) = mean_n q(z | x_n) of the N training data:

    total correlation   KL(q(z) || prod_i q(z_i))                               (Chen et al. 2018)
    DIP                 off sum_{i != j} C_ij^2 + diagonal sum_i (C_ii - 1)^2   (Kumar et al. 2018)
                        with C = Cov(E[z | x]) for kind i, and C = Cov(z) for kind ii
    MMD                 E[k(z, z')] + E[k(p, p')] - 2 E[k(z, p)],  z ~ q(z), p ~ p(z)
                                                    (Zhao et al. 2019; Tolstikhin et al. 2018)

All are functions of means over the batch. With several processes this is the global batch, gathered
with its gradients.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar, Literal, final

import torch
import torch.nn as nn
from torch import Tensor

from vaestro.densities import IndependentUnits, full_precision, mean_over_ranks
from vaestro.models import Draws, LatentModel, Model, with_latent
from vaestro.randomness import torch_generator
from vaestro.schedules import Ramp


def gathered(x: Tensor, alone: bool = False) -> Tensor:
    """Concatenate the rows of all processes, with their gradients.

    Args:
        x: the rows of this process.
        alone: return x, without the rows of other processes.

    >>> gathered(torch.ones(2))
    tensor([1., 1.])
    """
    if not alone and torch.distributed.is_available() and torch.distributed.is_initialized():
        from torch.distributed.nn.functional import all_gather

        return torch.cat(all_gather(x.contiguous()))
    return x


class RateTerm(ABC):
    """Describe a term that replaces the rate in a loss: its mean over the data has the value and
    the gradient of the term."""

    name: ClassVar[str]  # in metrics.jsonl

    @abstractmethod
    def __call__(self, draws: Draws, step: Tensor) -> Tensor:
        """Return the term of each datum, (B,), in nats."""

    @abstractmethod
    def value(self, rates: Tensor, step: Tensor) -> Tensor:
        """Return the term, (), in nats, from rates averaged over data: for each unit, (units,), or
        for all units together, (1,)."""

    def settled(self, step: Tensor) -> bool:
        """Return whether the targets of the term keep their values after a step."""
        return True

    def plan(self, steps: int, steps_per_epoch: float) -> None:  # noqa: B027
        """Convert lengths of schedules into steps of a run."""

    def check(self, draws: Draws) -> None:  # noqa: B027
        """Raise ValueError if the model has no such rate."""


@final
class FreeBits(RateTerm):
    """Do not penalise the first nats of the rate: max(nats, mean rate over the batch), for each
    unit or for all units together (Kingma et al. 2016).

    Below the limit the rate has no gradient, so the loss does not reduce it further.

    Args:
        nats: limit for each unit, or for all units together.
        group: "unit" or "all".
        smooth: width in nats over which a softplus smooths the maximum; 0 for the exact maximum.

    >>> FreeBits(0.25).value(torch.tensor([0.1, 1.0]), torch.zeros(()))
    tensor(1.2500)
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
        # The derivative of the maximum of a mean is one factor for each unit, the same in all
        # processes.
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
    """Pull the rate towards a capacity that grows: gamma |mean rate - C(step)| (Burgess et al.
    2018).

    Args:
        to: capacity at the end, in nats.
        gamma: weight of the term.
        share, epochs, steps: length of the linear growth from 0; by default half of the run.

    >>> capacity = Capacity(to=10.0, gamma=2.0, steps=100)
    >>> float(capacity.value(torch.tensor([3.0]), step=torch.tensor(50.0)))
    4.0
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
    """Describe a penalty on the aggregate posterior, in nats unless its class says otherwise.

    `name` is its name in metrics.jsonl. `in_graph` declares that it can be compiled.

    Args:
        weight: weight of the penalty in the loss.
    """

    name: ClassVar[str]
    in_graph: ClassVar[bool] = True

    def __init__(self, weight: float) -> None:
        super().__init__()
        if not math.isfinite(weight):
            raise ValueError(f"expected a weight of a penalty; got {weight}")
        self.weight, self.rows, self.seed = weight, 0, 0
        self._model: tuple[LatentModel, ...] = ()

    def prepare(self, model: Model, rows: int, batch: int, seed: int) -> None:
        """Store what the penalty needs, before the first step.

        Args:
            model: the model that will be trained.
            rows: number of training data.
            batch: rows in a step.
            seed: seed of the draws of the penalty.

        Raises:
            ValueError: the penalty has no meaning for this model or batch.
        """
        if batch < 2:
            raise ValueError(
                f"expected a batch of 2 or more for a penalty on the aggregate posterior; got "
                f"{batch}"
            )
        # a tuple, so that the model is not a submodule of the penalty
        self._model, self.rows, self.seed = (with_latent(model),), rows, seed

    def check(self, draws: Draws) -> None:
        """Raise ValueError if the penalty is not defined for the densities of the model."""

    @abstractmethod
    def forward(self, draws: Draws, step: Tensor, *, alone: bool = False) -> Tensor:
        """Return the unweighted penalty of a batch, ().

        Args:
            draws: draws of the batch, of which the first is used.
            step: number of the step, ().
            alone: use the data of this process only.
        """


def log_aggregate(
    q: IndependentUnits, z: Tensor, rows: int, alone: bool = False
) -> tuple[Tensor, Tensor]:
    """Estimate log q(z) and log q(z_i) of each unit from one batch, at draws from its data.

    In the aggregate posterior of N data, the q that z was drawn from has weight 1 / N. The other
    B - 1 data of the batch represent the remaining N - 1, with weight (N - 1) / (N (B - 1)) each.
    The mean of the estimated density is then the density. Chen et al. (2018) give one datum of the
    batch the weight of all absent data, which has the same mean and a higher variance.

    Args:
        q: density with independent units, for the B data of this process.
        z: a draw from each, (B, *Z).
        rows: N; at least the size of the batch is used.
        alone: use the data of this process only.

    Returns:
        log q(z), (B,), and log q(z_i), (B, units), in nats.

    >>> from vaestro.densities import Normal
    >>> z = torch.zeros(2, 1)
    >>> log_aggregate(Normal(z, z), z, rows=2)[0]
    tensor([-0.9189, -0.9189])
    """
    every = q if alone else q.mapped(gathered)
    cells = every.cells(z.unsqueeze(1)).flatten(2)
    batch = cells.shape[1]
    several = not alone and torch.distributed.is_available() and torch.distributed.is_initialized()
    rank = torch.distributed.get_rank() if several else 0
    n = max(rows, batch)
    source = torch.zeros(len(z), batch, dtype=torch.bool, device=z.device)
    source[torch.arange(len(z)), torch.arange(len(z)) + rank * len(z)] = True
    weight = torch.where(source, -math.log(n), math.log((n - 1) / (n * (batch - 1))))
    return torch.logsumexp(weight + cells.sum(-1), 1), torch.logsumexp(
        weight.unsqueeze(-1) + cells, 1
    )


@final
class TotalCorrelation(Penalty):
    """Penalise the total correlation of q(z), KL(q(z) || prod_i q(z_i)) (beta-TCVAE; Chen et al.
    2018).

    Args:
        weight: beta - 1 in the notation of the paper.

    >>> import vaestro as vs
    >>> vs.Objective(penalties=[TotalCorrelation(weight=5.0)]).formula
    'distortion + rate + total_correlation'
    """

    name = "total_correlation"

    def __init__(self, *, weight: float = 5.0) -> None:
        super().__init__(weight)

    def check(self, draws: Draws) -> None:
        if not isinstance(draws.q, IndependentUnits):
            raise ValueError(
                f"expected a posterior of independent units for total-correlation, such as "
                f"normal; got {type(draws.q).__name__}"
            )

    @full_precision
    def forward(self, draws: Draws, step: Tensor, *, alone: bool = False) -> Tensor:
        assert isinstance(draws.q, IndependentUnits)
        joint, units = log_aggregate(draws.q, draws.z[0], self.rows, alone)
        return (joint - units.sum(-1)).mean()


@final
class Dip(Penalty):
    """Penalise squared differences between the covariance of the code and the identity (DIP-VAE;
    Kumar, Sattigeri and Balakrishnan 2018).

    Args:
        kind: "i" for the covariance over data of the mean of q; "ii" for the covariance of z, which
            adds the covariance of q averaged over data.
        off: weight of the squared covariances between units.
        diagonal: weight of the squared differences between variances and 1.

    >>> import vaestro as vs
    >>> vs.Objective(penalties=[Dip(kind="i")]).terms
    ('dip',)
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
        """Return the covariance that is penalised, (n, n), over the data of all processes; with
        `alone`, of this process only."""
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
        variances = covariance.diagonal()
        return (
            self.off * (covariance.square().sum() - variances.square().sum())
            + self.diagonal * (variances - 1).square().sum()
        )


@final
class Mmd(Penalty):
    """Penalise the squared maximum mean discrepancy between q(z) and the prior (InfoVAE, Zhao et
    al. 2019; WAE, Tolstikhin et al. 2018).

    The estimate is unbiased, because it leaves out pairs of a draw with itself. It can therefore be
    negative. It has no unit.

    Args:
        weight: weight of the penalty.
        kernel: "imq", C / (C + |x - y|^2) with C = 2 n, or "rbf", exp(-|x - y|^2 / n), for n units.

    >>> import vaestro as vs
    >>> vs.Objective(beta=0.0, penalties=[Mmd(kernel="rbf")]).outside_graph
    ['Mmd']
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
                "expected a prior that is the same for all data for the penalty mmd; got one that "
                "depends on the conditions"
            )

    @full_precision
    def forward(self, draws: Draws, step: Tensor, *, alone: bool = False) -> Tensor:
        z = gathered(draws.z[0].flatten(1), alone)
        generator = torch_generator(z.device, self.seed, "mmd", int(step))
        with torch.no_grad():
            drawn = self._model[0].draw_prior(len(z), None, generator).flatten(1)
        n = len(z)
        codes, priors, crossed = (
            self._kernel(z, z),
            self._kernel(drawn, drawn),
            self._kernel(z, drawn),
        )
        pairs = n * (n - 1)
        return (
            codes.sum() - codes.diagonal().sum() + priors.sum() - priors.diagonal().sum()
        ) / pairs - 2 * crossed.mean()
