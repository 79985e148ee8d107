"""Estimates of log p(x), each with its side, its measure and its standard error; never a bare number.

The ELBO and IWAE are both lower bounds in expectation; IWAE with k draws is tighter and rises to log p(x) with k. Draws
are streamed in chunks that stay in the cache, so that memory does not grow with k:

    log mean_k w = log sum over chunks of exp(chunk's log-sum) - log k

for exactly the k that was asked for. Noise is a function of (seed, datum, chunk), so the same call gives the same digits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vaestro.data import Rows
from vaestro.model import LatentModel
from vaestro.objectives import elbo, iwae
from vaestro.randomness import torch_generator
from vaestro.spaces import Batch, Space

METHODS = ("elbo", "iwae")


@dataclass(frozen=True, eq=False)
class Estimate:
    """Hold an estimate of log p(x) for each datum.

    Args:
        method: elbo or iwae.
        nats: (N,), float64.
        side: "lower", "upper" or "exact".
        measure: "counting" for probabilities, "lebesgue" for densities in the user's units.
        k: draws for each datum.
        how: the method in words.
        cells: cells of one datum, or the mean number of those that were observed.
        ess: effective number of draws of each datum (N,), 1 .. k; None where it has no meaning.
        seconds: what it took.
        given: what p(x) is conditioned on.
    """

    method: str
    nats: np.ndarray
    side: str
    measure: str
    k: int
    how: str
    cells: float
    ess: np.ndarray | None = None
    seconds: float = 0.0
    given: tuple[str, ...] = ()

    def mean(self) -> tuple[float, float]:
        """Return the mean over data and its standard error, in nats."""
        n = len(self.nats)
        return float(self.nats.mean()), float(self.nats.std(ddof=1) / math.sqrt(n)) if n > 1 else math.nan

    @property
    def bits_per_dim(self) -> float | None:
        """Return -mean / (cells ln 2) for probabilities; None for densities, which have no such number."""
        return -self.mean()[0] / (self.cells * math.log(2)) if self.measure == "counting" else None

    def sentence(self, data: str) -> str:
        """Say the result with its side, error, method and data."""
        mean, error = self.mean()
        of = f" | {', '.join(self.given)}" if self.given else ""
        sign = {"lower": ">=", "upper": "<=", "exact": "="}[self.side]
        partly = {"counting": "", "mixed": ", partly"}.get(self.measure, ",")
        density = f"{partly} a density in the data's own units" if partly else ""
        plus = "" if math.isnan(error) else f" +- {error:.2f}"
        return f"log p(x{of}) {sign} {mean:.2f}{plus} nats ({self.how}, {data}{density})"


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Hold the estimates of one evaluation, with the rate and distortion of the ELBO."""

    estimates: tuple[Estimate, ...]
    rate: float
    distortion: float

    def __getitem__(self, method: str) -> Estimate:
        for estimate in self.estimates:
            if estimate.method == method:
                return estimate
        raise KeyError(method)


def evaluate(
    model: LatentModel,
    rows: Rows,
    *,
    k: int = 500,
    methods: Sequence[str] = METHODS,
    limit: int | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> Evaluation:
    """Estimate log p(x) of each datum by the ELBO and IWAE, from the same k draws.

    Args:
        model: a trained model.
        rows: data of the model's space, such as `data.test`.
        k: draws for each datum.
        methods: which estimates to return, of elbo and iwae.
        limit: take the first so many data.
        seed: of the draws.
        device: where; by default where the model is.

    Raises:
        ValueError: k or limit below 1, more data asked than there are, an unknown method, or other data.
    """
    done: Evaluation | None = None
    for _, done in evaluating(model, rows, k=k, methods=methods, limit=limit, seed=seed, device=device):
        pass
    assert done is not None
    return done


def evaluating(
    model: LatentModel,
    rows: Rows,
    *,
    k: int = 500,
    methods: Sequence[str] = METHODS,
    limit: int | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> Iterator[tuple[int, Evaluation | None]]:
    """Evaluate step by step: yield (data done, None) after each chunk, and at the end (N, Evaluation)."""
    if not isinstance(k, int) or k < 1:
        raise ValueError(f"expected k of 1 or more draws; got {k}")
    if limit is not None and not 1 <= limit <= len(rows):
        raise ValueError(f"expected a limit between 1 and the {len(rows)} data of the {rows.name} split; got {limit}")
    unknown = [m for m in methods if m not in METHODS]
    if unknown or not methods:
        raise ValueError(f"expected methods among {', '.join(METHODS)}; got {', '.join(unknown) or 'none'}")
    if (rows.space.kind, rows.space.shape, rows.space.names) != (model.space.kind, model.space.shape, model.space.names):
        raise ValueError(f"expected {model.space} data; got {rows.space}")
    if model.given is not None and rows.given is None:
        raise ValueError(f"expected data with the conditions {', '.join(model.given.names)}; got none")
    rows = in_space(rows.fixed() if limit is None else rows.fixed().take(limit), model.space)
    if not len(rows):
        raise ValueError(f"expected data to evaluate; got an empty {rows.name} split")
    device = next(model.parameters()).device if device is None else torch.device(device)
    training, start = model.training, time.perf_counter()
    model.eval()
    data_chunk, draw_chunk = chunks(model.space, k)
    # One array from the start: small results kept between large buffers would break up the memory that those reuse.
    table = np.empty((5, len(rows)))
    try:
        for i, batch in enumerate(rows.chunks(data_chunk, device)):
            first = i * data_chunk
            table[:, first : first + len(batch)] = _bounds(model, batch, k, draw_chunk, seed, first, data_chunk).cpu().numpy()
            yield min(len(rows), (i + 1) * data_chunk), None
    finally:
        model.train(training)
    elbos, iwaes, log_ess, rates, distortions = table
    seconds, measure = time.perf_counter() - start, model.space.measure
    draws = f"{k} draw{'s' if k > 1 else ''}"
    if rows.observed is not None:
        draws += ", of the observed cells"
    given = () if model.given is None else model.given.names
    cells = model.space.cells if rows.observed is None else rows.observed_cells()
    made = {
        "elbo": Estimate("elbo", elbos, "lower", measure, k, f"ELBO with {draws}", cells, None, seconds, given),
        "iwae": Estimate("iwae", iwaes, "lower", measure, k, f"IWAE with {draws}", cells, np.exp(log_ess), seconds, given),
    }
    yield len(rows), Evaluation(tuple(made[m] for m in METHODS if m in methods), float(rates.mean()), float(distortions.mean()))


def in_space(rows: Rows, space: Space) -> Rows:
    """Return rows as codes or values of a model's own space: two readings of data may differ in levels or standardisation.

    Raises:
        ValueError: a value is not one of the space's.
    """
    mine, theirs = space.arrays(), rows.space.arrays()
    same = all(np.array_equal(mine.get(a, 0.0), theirs.get(a, 0.0)) for a in ("offset", "scale"))
    if same and space.scalars() == rows.space.scalars():
        return rows
    rows = rows.fixed()
    outside = rows.outward()
    values = (space if rows.observed is None else replace(space, missing=True)).inward(outside)
    return replace(rows, values=values, space=space, index=None, observed=replace(space, missing=True).seen(outside), channels_last=False)


def chunks(space: Space, k: int) -> tuple[int, int]:
    """Return how many data, and how many draws of each, go through the decoder at once: some 2,000 rows, which stay in
    the cache; a function of k and the data's size alone, because the digits depend on it."""
    outputs = space.cells * max(1, space.levels if space.levels > 2 else 1)
    decoded = int(min(2048, max(32, 2**22 // outputs)))
    draw_chunk = min(k, decoded, 256)
    return max(1, decoded // draw_chunk), draw_chunk


@torch.inference_mode()
def _bounds(model: LatentModel, batch: Batch, k: int, draw_chunk: int, seed: int, first: int, rows: int) -> Tensor:
    """Return ELBO, IWAE, log of the effective number of draws, rate and distortion of each datum, (5, B), float64."""
    sums = torch.zeros(3, len(batch), dtype=torch.float64, device=batch.x.device)
    log_w = torch.full((2, len(batch)), -math.inf, dtype=torch.float64, device=batch.x.device)
    for done in range(0, k, draw_chunk):
        n = min(draw_chunk, k - done)
        # Drawn for a whole chunk also where the data end within it, so that a limit does not change a datum's digits.
        noise = model.noise(n, rows, torch_generator(batch.x.device, seed, "evaluate", first, done))[:, : len(batch)]
        draws = model.draw(batch, n, noise=noise)
        sums += n * torch.stack([elbo(draws), draws.total_rate, draws.distortion])
        # iwae is the log of a mean: log n makes it the log of a sum, which chunks share.
        chunk = torch.stack([iwae(draws) + math.log(n), torch.logsumexp(2 * draws.log_w, 0)])
        log_w = torch.logaddexp(log_w, chunk.double())
    return torch.stack([sums[0] / k, log_w[0] - math.log(k), 2 * log_w[0] - log_w[1], sums[1] / k, sums[2] / k])
