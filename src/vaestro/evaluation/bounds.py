"""ELBO and IWAE of each datum, over chunks of draws.

Both are lower bounds in expectation. IWAE is tighter, and converges to log p(x) as k grows. Chunks
of draws fit into the cache, so memory does not grow with k:

    log mean_k w = log sum over chunks of exp(log-sum of the chunk) - log k

Noise is a function of (seed, datum, chunk), so the same call gives the same digits.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import final

import numpy as np
import torch
from torch import Tensor

from vaestro.data import Rows
from vaestro.evaluation.presence import score_absences, score_lengths
from vaestro.evaluation.records import Estimate, Evaluation, mean_and_error
from vaestro.evaluation.work import Job, Work
from vaestro.models import LatentModel, Model
from vaestro.objectives import elbo, iwae
from vaestro.randomness import torch_generator
from vaestro.spaces import Batch, Space

PARTS = 10  # number of parts of the k draws, for IWAE with k/10 draws
FEW = 5.0  # effective draws below which one or two draws dominate the bound
# ELBO with the closed-form rate, IWAE, IWAE with k/10 draws, log of the effective number of draws,
# rate, distortion, ELBO as mean of log w
COLUMNS = 7


def bounding(job: Job) -> list[Work]:
    """Bound log p(x) from below by the ELBO and IWAE, from the same k draws.

    Sources: Kingma and Welling (2014); Burda, Grosse and Salakhutdinov (2016).

    >>> import vaestro as vs
    >>> data = vs.load(np.eye(40, dtype="uint8"))
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> job = Job(model.eval(), data.train, 10, 0, torch.device("cpu"))
    >>> [work.name for work in bounding(job)]
    ['bounds']
    """
    return [Bounds(job)]


@final
class Bounds(Work):
    """The ELBO and IWAE of each datum.

    >>> import vaestro as vs
    >>> data = vs.load(np.eye(40, dtype="uint8"))
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> job = Job(model.eval(), data.train, 10, 0, torch.device("cpu"))
    >>> Bounds(job).compute(0).shape
    (7, 36)
    """

    name = "bounds"
    columns = COLUMNS

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.model = job.latent_model
        self.chunk, self.draws = chunks(job.model.space, job.k)
        self.cost = float(job.k)

    def compute(self, first: int) -> np.ndarray:
        job = self.job
        table = bounds(
            self.model,
            job.batch(first, self.chunk),
            job.k,
            self.draws,
            (job.seed, "evaluate", first),
            self.chunk,
        )
        return table.cpu().numpy()

    def finish(self, table: np.ndarray, done: Evaluation) -> Evaluation:
        results = estimates(self.job, table, self.seconds)
        warnings = done.warnings
        few = (
            float((results[1].ess < FEW).mean())
            if results[1].ess is not None and self.job.k >= 2 * FEW
            else 0.0
        )
        if few > 0.1:
            where = f"for {few:.0%} of the data"
            warnings += (
                f"IWAE has fewer than {FEW:.0f} effective draws {where}, and may be far below "
                f"log p(x) there",
            )
        rate, distortion = float(table[4].mean()), float(table[5].mean())
        return replace(
            done,
            estimates=(*done.estimates, *results),
            rate=rate,
            distortion=distortion,
            lengths=score_lengths(self.job, self.chunk),
            absences=score_absences(self.job, self.chunk),
            warnings=warnings,
        )


def estimates(
    job: Job, table: np.ndarray, seconds: float, on: str = "data"
) -> tuple[Estimate, Estimate]:
    """Return the ELBO and IWAE from the table of `bounds`.

    >>> import vaestro as vs
    >>> data = vs.load(np.eye(40, dtype="uint8"))
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> job = Job(model.eval(), data.train, 10, 0, torch.device("cpu"))
    >>> [estimate.how for estimate in estimates(job, Bounds(job).compute(0), seconds=0.1)]
    ['ELBO with 10 draws', 'IWAE with 10 draws']
    """
    elbos, iwaes, tenths, log_ess, _, _, sampled = table
    space, rows, k = job.model.space, job.rows, job.k
    count = len(elbos)
    draws = f"{k} draw{'s' if k > 1 else ''}"
    if rows.observed is not None:
        draws += ", of the observed cells"
    cells, spread = cells_of(job, count), correction(job, count)
    details = spread
    if k >= PARTS:
        rise, error = mean_and_error(iwaes - tenths)
        details = (
            spread
            | {"rise": rise, "rise_from_k": k // PARTS}
            | ({} if math.isnan(error) else {"rise_stderr": error})
        )
    closed = spread | {"sampled": float(sampled.mean())}
    if on == "data":
        closed, details = closed | of_tokens(job, elbos), details | of_tokens(job, iwaes)
    elbo_estimate = Estimate(
        "elbo",
        elbos,
        "lower",
        space.measure,
        k,
        f"ELBO with {draws}",
        cells,
        seconds=seconds,
        given=job.given,
        on=on,
        details=closed,
    )
    return elbo_estimate, replace(
        elbo_estimate,
        method="iwae",
        nats=iwaes,
        how=f"IWAE with {draws}",
        ess=np.exp(log_ess),
        details=details,
    )


def cells_of(job: Job, count: int) -> float:
    """Return the mean number of observed cells per datum, over the first `count` data.

    >>> import vaestro as vs
    >>> data = vs.load(np.eye(40, dtype="uint8"))
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> job = Job(model.eval(), data.train, 10, 0, torch.device("cpu"))
    >>> cells_of(job, 10)
    40.0
    """
    whole = job.rows.observed is None and not job.model.space.ragged
    return float(job.model.space.cells) if whole else job.rows.take(count).observed_cells()


def of_tokens(job: Job, nats: np.ndarray) -> dict[str, float]:
    """Return the number of tokens of the first data, including the ends of texts, and the
    perplexity per token; {} for other data than text.

    >>> import vaestro as vs
    >>> data = vs.load(np.eye(40, dtype="uint8"))
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> job = Job(model.eval(), data.train, 10, 0, torch.device("cpu"))
    >>> of_tokens(job, np.full(36, -20.0))
    {}
    """
    if not job.model.space.ragged:
        return {}
    tokens = round(len(nats) * cells_of(job, len(nats)))
    return {"tokens": tokens, "perplexity": math.exp(min(700.0, -float(nats.sum()) / tokens))}


def correction(job: Job, count: int) -> dict[str, float]:
    """Return the log-volume of the cells of a grid, in nats per datum, over the first `count` data.

    It is the difference between the log-probability of values on a grid and the log-density of the
    dequantised values. The bound of levels contains it. The bound of other values on a grid is a
    density and does not. {} if the data are not dequantised, or not all values are on the grid.

    >>> import vaestro as vs
    >>> data = vs.load(np.eye(40, dtype="uint8"))
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> job = Job(model.eval(), data.train, 10, 0, torch.device("cpu"))
    >>> correction(job, 36)
    {}
    """
    log_cells = job.model.space.log_cells()
    if job.model.jitter is None or log_cells is None or not job.model.space.on_grid:
        return {}
    if job.rows.observed is None:
        return {"log_cells": float(log_cells.sum())}
    total = 0.0
    for first in range(0, count, 4096):
        observed = job.batch(first, min(4096, count - first)).observed
        assert observed is not None
        total += float((log_cells * observed.numpy(force=True)).sum())
    return {"log_cells": total / count}


def in_space(rows: Rows, space: Space) -> Rows:
    """Return rows in the space of a model. The space of the rows may have other levels or another
    standardisation.

    Raises:
        ValueError: a value does not exist in the space.

    >>> import vaestro as vs
    >>> data = vs.load(np.eye(40, dtype="uint8"))
    >>> in_space(data.train, data.space) is data.train
    True
    """
    mine, theirs = space.arrays(), rows.space.arrays()
    same = all(np.array_equal(mine.get(a, 0.0), theirs.get(a, 0.0)) for a in ("offset", "scale"))
    if same and space.scalars() == rows.space.scalars():
        return rows
    rows = rows.fixed()
    outside = rows.outward()
    if space.ragged:
        return replace(rows, values=space.inward(outside), space=space, index=None)
    values = (space if rows.observed is None else replace(space, missing=True)).inward(outside)
    return replace(
        rows,
        values=values,
        space=space,
        index=None,
        observed=replace(space, missing=True).seen(outside),
        channels_last=False,
    )


def chunks(space: Space, k: int) -> tuple[int, int]:
    """Return the number of data, and of draws of each, that are decoded at once.

    The product is about 2,000 rows, which fit into the cache. It depends only on k and the size of
    a datum, because the digits depend on it.

    >>> import vaestro as vs
    >>> chunks(vs.load(np.eye(40, dtype="uint8")).space, 500)
    (8, 256)
    """
    decoded = int(min(2048, max(32, 2**22 // space.decoded)))
    draw_chunk = min(k, decoded, 256)
    return max(1, decoded // draw_chunk), draw_chunk


def affordable(model: Model) -> int:
    """Return the number of latents that two cores can decode and score in about ten seconds.

    >>> import vaestro as vs
    >>> data = vs.load(np.eye(40, dtype="uint8"))
    >>> affordable(vs.build(data.space, latent=2, network="mlp:width=8"))
    20000000
    """
    weights = sum(p.numel() for p in model.parameters())
    # for large images, the density takes longer than the matrix products
    return int(2e11 / max(weights, 250 * model.space.decoded))


def at_once(space: Space) -> int:
    """Return the number of rows that are decoded at once, data times draws.

    >>> import vaestro as vs
    >>> at_once(vs.load(np.eye(40, dtype="uint8")).space)
    2048
    """
    return math.prod(chunks(space, 2048))


@torch.inference_mode()
def bounds(
    model: LatentModel,
    batch: Batch,
    k: int,
    draw_chunk: int,
    path: tuple[int, str, int],
    rows: int,
    features: Tensor | None = None,
) -> Tensor:
    """Return ELBO, IWAE, IWAE with k/10 draws, log of the effective number of draws, rate,
    distortion and mean log w of each datum, in nats: (7, B), float64.

    Args:
        model: the model.
        batch: B data.
        k: number of draws per datum.
        draw_chunk: number of draws at once.
        path: seed, purpose and place of the draws.
        rows: number of data for which noise is drawn, B or more. With a fixed number, a datum's
            digits do not depend on B.
        features: parameters of q, (B, ...); by default the encoder's output.

    >>> import vaestro as vs
    >>> data = vs.load(np.eye(40, dtype="uint8"))
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> bounds(model, data.valid.batch(slice(0, 2)), 10, 10, (0, "evaluate", 0), rows=2).shape
    torch.Size([7, 2])
    """
    seed, purpose, first = path
    if features is None and model.capabilities.q_from_features:
        features = model.features(batch)  # the encoder runs once for all draws
    sums = torch.zeros(4, len(batch), dtype=torch.float64, device=batch.x.device)
    log_w = torch.full((2, len(batch)), -math.inf, dtype=torch.float64, device=batch.x.device)
    parts = torch.full((PARTS, len(batch)), -math.inf, dtype=torch.float64, device=batch.x.device)
    for done in range(0, k, draw_chunk):
        n = min(draw_chunk, k - done)
        noise = model.noise(n, rows, torch_generator(batch.x.device, seed, purpose, first, done))[
            :, : len(batch)
        ]
        draws = model.draw(batch, n, noise=noise, features=features)
        sums += n * torch.stack(
            [elbo(draws), draws.total_rate, draws.distortion, draws.log_w.mean(0)]
        )
        # iwae is the log of a mean. Adding log n gives the log of a sum, to combine chunks.
        chunk = torch.stack([iwae(draws) + math.log(n), torch.logsumexp(2 * draws.log_w, 0)])
        log_w = torch.logaddexp(log_w, chunk.double())
        if k >= PARTS:
            parts = torch.logaddexp(parts, _by_parts(draws.log_w, done))
    return torch.stack(
        [
            sums[0] / k,
            log_w[0] - math.log(k),
            _tenth(parts, k),
            2 * log_w[0] - log_w[1],
            sums[1] / k,
            sums[2] / k,
            sums[3] / k,
        ]
    )


def _tenth(parts: Tensor, k: int) -> Tensor:
    """Return IWAE with k/10 draws, (B,), from the log-sums of every tenth draw, (10, B)."""
    sizes = torch.tensor(
        [len(range(part, k, PARTS)) for part in range(PARTS)],
        dtype=torch.float64,
        device=parts.device,
    )
    return (parts - sizes.log().unsqueeze(1)).mean(0)


def _by_parts(log_w: Tensor, done: int) -> Tensor:
    """Return the log-sums of every tenth draw, (10, B), counted from the first of all draws."""
    n = len(log_w)
    before, after = done % PARTS, -(done + n) % PARTS
    padded = torch.nn.functional.pad(log_w, (0, 0, before, after), value=-math.inf)
    return torch.logsumexp(padded.unflatten(0, (-1, PARTS)), 0).double()
