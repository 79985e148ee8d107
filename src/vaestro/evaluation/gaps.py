"""The decomposition of log p(x) - ELBO (Cremer, Li and Duvenaud 2018).

    log p(x) - ELBO[q] = (log p(x) - ELBO[q*]) + (ELBO[q*] - ELBO[q])
                         approximation gap       amortization gap

q is the encoder's, and q* the best member of its family for the datum. The output of
`LatentModel.features` is optimised for each datum, starting from the encoder's output, with fixed
model parameters. This works for any family. (The dequantisation noise keeps its prior. The loss
from that is part of the approximation gap.)

Three independent streams of noise avoid bias. The first is used for the optimisation, with fresh
noise at every step. The second selects the best q of each datum: the average over the steps, the
average over the last quarter, or the encoder's output. It also shows whether the optimisation has
converged. Both ELBOs are computed from the same draws of the third, so the selection does not bias
them, and their difference is paired.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import final

import numpy as np
import torch
from torch import Tensor

from vaestro.evaluation.bounds import at_once, bounds
from vaestro.evaluation.records import Estimate, Evaluation, Gap, mean_and_error, plus_minus
from vaestro.evaluation.work import Job, Work
from vaestro.gradients import Pathwise, StickingTheLanding
from vaestro.models import LatentModel
from vaestro.objectives import elbo
from vaestro.randomness import torch_generator
from vaestro.spaces import Batch

ROWS = 1024  # largest number of data times draws in a step
JUDGING = 100  # number of draws that select the q of a datum
VISIBLE = 0.01  # nats: the precision that is printed
SETTLED = 0.1  # nats: largest increase of an optimisation that counts as converged


def searching(
    job: Job, *, n: int = 500, steps: int = 400, draws: int = 4, lr: float = 0.03, k: int = 500
) -> list[Work]:
    """Decompose the gap: optimise q for each datum, starting from the encoder's output.

    Source: Cremer, Li and Duvenaud (2018).

    Args:
        job: model and data.
        n: number of rows, drawn at random, or all if there are fewer.
        steps: steps of Adam (Kingma and Ba 2015); q is averaged over all but their first quarter.
        draws: draws in each step.
        lr: learning rate.
        k: draws for the reported ELBOs, and for IWAE with the optimised q.

    Raises:
        ValueError: an option is out of range, or latents are discrete.

    >>> import vaestro as vs
    >>> data = vs.load(np.eye(40, dtype="uint8"))
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> job = Job(model.eval(), data.train, 10, 0, torch.device("cpu"))
    >>> [work.rows for work in searching(job, n=5)]
    [5]
    """
    if not job.model.capabilities.latent_gradient:
        raise ValueError(
            "expected real latents for gap, which needs a gradient with respect to z; got discrete "
            "latents (use iwae with more draws)"
        )
    if not job.model.capabilities.q_from_features:
        raise ValueError(
            "expected a posterior with one density for each datum for gap, which optimises its "
            "parameters; got a hierarchy"
        )
    if min(n, steps, draws, k) < 1 or not 0 < lr < math.inf:
        raise ValueError(
            f"expected n, steps, draws and k of 1 or more and lr > 0; got {n}, {steps}, {draws}, "
            f"{k} and {lr}"
        )
    return [Gaps(job, n, steps, draws, lr, k)]


@final
class Gaps(Work):
    """Optimise q for each datum.

    >>> import vaestro as vs
    >>> data = vs.load(np.eye(40, dtype="uint8"))
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> evaluation = vs.evaluate(model, data.train, methods="gap:n=4,steps=8,k=10", k=10)
    >>> evaluation.gap.optimised.shape
    (4,)
    """

    name = "gap"
    columns = 5

    def __init__(self, job: Job, n: int, steps: int, draws: int, lr: float, k: int) -> None:
        super().__init__(job)
        self.rows = min(n, self.rows)
        self.steps, self.draws, self.lr, self.k = steps, draws, lr, k
        self.decoded = at_once(job.model.space)
        self.chunk = max(1, min(ROWS, self.decoded) // draws)
        # a step goes through the decoder and back
        self.cost = 2.5 * steps * draws + 2 * k + 4 * JUDGING

    def compute(self, first: int) -> np.ndarray:
        job = self.job
        batch = job.batch(first, min(self.chunk, self.rows - first))
        with torch.no_grad():
            encoded = job.latent_model.features(batch)
        second, last, average = optimised(
            job.latent_model,
            batch,
            encoded,
            self.steps,
            self.draws,
            self.lr,
            (job.seed, "gap", first),
            self.chunk,
        )
        judged = torch.stack(
            [
                self._bounds(batch, q, JUDGING, "gap judged", first)[0]
                for q in (encoded, second, last, average)
            ]
        )
        chosen = judged[[0, 2, 3]].nan_to_num(-math.inf).argmax(0)
        best = torch.stack([encoded, last, average])[
            chosen, torch.arange(len(chosen), device=chosen.device)
        ]
        with_encoder, with_best = (
            self._bounds(batch, q, self.k, "gap reported", first) for q in (encoded, best)
        )
        table = torch.stack(
            [
                with_encoder[0],
                with_best[0],
                with_best[1],
                judged[2] - judged[1],
                (chosen == 0).double(),
            ]
        )
        return table.cpu().numpy()

    def _bounds(self, batch: Batch, features: Tensor, k: int, purpose: str, first: int) -> Tensor:
        """Return the table of `bounds` with the q of given features. The noise is the same for all
        features."""
        draws = min(k, max(1, self.decoded // self.chunk))
        return bounds(
            self.job.latent_model,
            batch,
            k,
            draws,
            (self.job.seed, purpose, first),
            self.chunk,
            features,
        )

    def finish(self, table: np.ndarray, done: Evaluation) -> Evaluation:
        with_encoder, with_best, iwae, rises, worse = table
        finite = np.isfinite(rises)
        rise, error = mean_and_error(rises[finite]) if finite.any() else (0.0, math.nan)
        own = [(iwae, f"IWAE with {self.k:,} draws from the optimised q")] if self.k > 1 else []
        reference, how = tightest([*own, *_others(done.estimates, len(iwae))])
        gap = Gap(
            with_encoder,
            with_best,
            reference,
            f"q optimised by {self.steps:,} steps of Adam from the encoder's; ELBOs with "
            f"{self.k:,} draws",
            how,
            {
                **{"k": self.k, "steps": self.steps, "draws": self.draws, "lr": self.lr},
                **{
                    "rise": rise,
                    "rise_stderr": None if math.isnan(error) else error,
                    "kept": int(worse.sum()),
                },
            },
        )
        warnings = done.warnings
        if not finite.all():
            warnings += (
                f"the optimisation of q diverged for {(~finite).sum():,} data, for which the "
                f"encoder's q is used: decrease gap:lr=",
            )
        if rise > VISIBLE and rise > 2 * error:  # false for one datum, whose error is NaN
            warnings += (
                f"the optimisation of q has not converged: the ELBO rose by {rise:.2f} nats from "
                f"its second quarter to its last. The amortization gap is larger, and the "
                f"approximation gap smaller, than reported: increase gap:steps=, or change gap:lr=",
            )
        elif finite.any() and not rise + 2 * error < SETTLED:
            few = "one datum is" if finite.sum() == 1 else f"{int(finite.sum()):,} data are"
            warnings += (
                f"{few} too few to tell whether the optimisation of q has converged: the ELBO rose "
                f"by {plus_minus((rise, error))} nats from its second quarter to its last: "
                f"increase gap:n=",
            )
        return replace(done, gap=gap, warnings=warnings)


def optimised(
    model: LatentModel,
    batch: Batch,
    start: Tensor,
    steps: int,
    draws: int,
    lr: float,
    path: tuple[int, str, int],
    rows: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Maximise the ELBO of each datum over the parameters of its q. The model and its gradients do
    not change.

    Args:
        model: in evaluation mode.
        batch: B data.
        start: features to start from, (B, ...).
        steps, draws, lr: see `searching`.
        path: seed, purpose and place of the noise.
        rows: number of data for which noise is drawn, B or more.

    Returns:
        averages of the features over the second quarter of the steps, over the last, and over all
        but the first, each (B, ...).

    >>> import vaestro as vs
    >>> data = vs.load(np.eye(40, dtype="uint8"))
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> batch = data.valid.batch(slice(0, 2))
    >>> optimised(model, batch, model.features(batch), 8, 4, 0.03, (0, "gap", 0), rows=2)[1].shape
    torch.Size([2, 2, 2])
    """
    seed, purpose, first = path
    # Clone: tensors created in inference mode cannot be differentiated.
    with torch.inference_mode(False), torch.enable_grad():
        features = start.detach().clone().requires_grad_()
        with torch.no_grad():
            q = model.q(features)
        gradient_of_z = StickingTheLanding() if q.scored_anywhere else Pathwise()
        adam = torch.optim.Adam([features], lr)
        quarters = [torch.zeros_like(features, requires_grad=False) for _ in range(4)]
        lengths = [0] * 4
        for step in range(steps):
            noise = model.noise(
                draws, rows, torch_generator(start.device, seed, purpose, first, step)
            )[:, : len(batch)]
            # Each datum has separate parameters, and Adam works elementwise: data do not interact.
            total = elbo(
                model.draw(batch, draws, gradient=gradient_of_z, noise=noise, features=features)
            ).sum()
            (features.grad,) = torch.autograd.grad(-total, features)
            adam.step()
            # With fewer than four steps, all count as the last quarter.
            quarter = min(3, 4 * step // steps) if steps > 3 else 3
            quarters[quarter] += features.detach()
            lengths[quarter] += 1
    last = quarters[3] / lengths[3]
    second = quarters[1] / lengths[1] if lengths[1] else start
    return second, last, sum(quarters[1:], torch.zeros_like(last)) / sum(lengths[1:])


def tightest(candidates: Sequence[tuple[np.ndarray, str]]) -> tuple[np.ndarray | None, str]:
    """Return the lower bound with the highest mean over the data that all candidates cover, and its
    name.

    One bound is used for all data. The maximum for each datum would be biased by noise and could
    exceed log p(x).

    >>> tightest([(np.array([-3.0, -2.0]), "ELBO"), (np.array([-2.5]), "IWAE")])[1]
    'IWAE'
    """
    if not candidates:
        return None, ""
    shared = min(len(nats) for nats, _ in candidates)
    return max(candidates, key=lambda c: float(c[0][:shared].mean()))


def _others(estimates: Sequence[Estimate], n: int) -> list[tuple[np.ndarray, str]]:
    """Return the lower bounds on the first n data that are tighter than an ELBO: AIS, and IWAE with
    more than one draw."""
    below = [
        e
        for e in estimates
        if e.on == "data"
        and e.side != "upper"
        and e.method != "elbo"
        and (e.k > 1 or e.method != "iwae")
    ]
    return [(e.nats[:n], e.how) for e in below]
