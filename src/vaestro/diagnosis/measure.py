"""What is measured on a model and data, for the rules to judge: each number once, and nothing judged here.

The code's dependence on the data, and the decoder's on the code, are two questions. The first is answered by the encoder alone: does
E[z | x] vary with x? The second by the decoder: what does the distortion cost with another datum's z in place of a datum's own, or with
a draw of the prior in place of one unit?
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from vaestro import densities
from vaestro.data import Rows
from vaestro.densities import variance_of
from vaestro.diagnosis.reconstruction import Reconstruction, reconstructed
from vaestro.evaluation import Information, affordable, evaluate, in_space
from vaestro.evaluation.records import mean_and_error
from vaestro.loop import signal, told
from vaestro.model import LatentModel
from vaestro.objectives import Objective, elbo
from vaestro.randomness import numpy_generator, torch_generator

ROWS = 5000  # data of each split that are scored
HELD = 10_000_000  # numbers of codes that are held, and written
ABLATED = 64  # units whose effect is measured, those with the largest rate first
TOGETHER = 8  # units at a time
PAIRS = 200_000_000  # log-densities of one unit that the mutual information may take
BINS = 60
SATURATED = 0.75  # of the limit of the log-variance
REPEATS = 8
CELLS, CELL_ROWS = 256, 4000  # what the search for structure looks at


@dataclass(eq=False)
class Measures:
    """Hold what was measured, in nats; per-unit arrays are flat, (units,).

    Args:
        split: of the data that were held out, or "train" where there are none; n of them.
        rate, distortion: means of the ELBO's parts there.
        mean, variance, rates: of q for each datum, (N, units); variance and rates None for families without.
        z_mean, z_std: of draws of the aggregate posterior; histogram and prior_histogram (units, bins) over edges.
        effects: {unit: (effect, standard error)}, of the prior's draw in a unit's place.
        own, other, gain: distortion with a datum's own z, with another's (or its prior's, where that depends on what is given), and
            the difference with its paired error.
        valid, train: ELBO of data held out and of training data with the same weights, each (mean, standard error, n); train is None
            where nothing is held out.
        information: of the aggregate posterior.
        saturated: share of log-variances near their limit; None where there is no limit.
        residual: mean of (x - mean)^2 / variance of a Gaussian likelihood; None for others.
        gradient_noise: the share of the variance of the encoder's gradient, from step to step, that the draws of z make; None
            where it was not measured.
        structure: the largest eigenvalue of the correlations between cells, over what independent cells of as many data would
            have; None where there are too few.
        reconstruction: of texts; None for other data.
    """

    split: str
    n: int
    rate: float
    distortion: float
    mean: np.ndarray
    variance: np.ndarray | None
    rates: np.ndarray | None
    z_mean: np.ndarray
    z_std: np.ndarray
    histogram: np.ndarray
    prior_histogram: np.ndarray
    edges: np.ndarray
    own: float
    other: float
    gain: tuple[float, float]
    valid: tuple[float, float, int]
    train: tuple[float, float, int] | None = None
    information: Information | None = None
    effects: dict[int, tuple[float, float]] = field(default_factory=dict)
    saturated: float | None = None
    residual: float | None = None
    gradient_noise: float | None = None
    structure: float | None = None
    reconstruction: Reconstruction | None = None

    @cached_property
    def activity(self) -> np.ndarray:
        """Return Var_x(E[z | x]) of each unit (Burda, Grosse and Salakhutdinov 2016)."""
        return np.asarray(self.mean.astype(np.float64).var(0))

    @cached_property
    def signal(self) -> float | None:
        """Return what the means of all units tell of the data (see `loop.signal`), which is zero if none depends on them."""
        if self.variance is None:
            return None
        return float(signal(torch.from_numpy(self.activity), torch.from_numpy(self.variance.astype(np.float64).mean(0))).sum())


def measure(
    model: LatentModel, train: Rows, held_out: Rows, objective: Objective, *, batch: int = 128, seed: int = 0, rows: int = ROWS
) -> Measures:
    """Measure a model on data held out, and on as many training data with the same weights.

    Args:
        model: the model, with the weights in use.
        train, held_out: its data; held_out may be empty.
        objective: what it was trained by, its weight of the KL as at the end of the run.
        batch: data in a training step.
        seed: of the draws.
        rows: at most so many data of each.
    """
    model.eval()
    passes = affordable(model)
    units = math.prod(model.units)
    limit = min(rows, max(100, passes // 10), max(100, HELD // units))
    trained = in_space(train.spread(limit).fixed(), model.space)
    alone = not len(held_out)
    scored = trained if alone else in_space(held_out.spread(limit).fixed(), model.space)
    found = _codes(model, scored, seed)
    if not alone:
        found.train = (*mean_and_error(_scores(model, trained, seed)), len(trained))
    found.effects = _effects(model, scored, found, passes // 2, seed)
    if len(scored) > 2 and getattr(getattr(model, "posterior", None), "scored_anywhere", True):
        n = min(len(scored), max(2, math.isqrt(PAIRS // units)))
        found.information = evaluate(model, scored, k=1, methods=f"information:n={n}", seed=seed).information
    found.gradient_noise = _gradient_noise(model, train, objective, batch, seed)
    found.structure = _structure(trained, seed)
    found.reconstruction = reconstructed(model, scored)
    return found


@torch.inference_mode()
def _codes(model: LatentModel, rows: Rows, seed: int) -> Measures:
    device = next(model.parameters()).device
    kept: dict[str, list[Tensor]] = {name: [] for name in ("mean", "variance", "rates", "z", "prior", "own", "elbo", "total")}
    squares = cells = near = every = 0.0
    shared = True
    limit = getattr(getattr(model, "posterior", None), "limit", None)
    for i, batch in enumerate(rows.chunks(model.space.chunk, device)):
        noise = model.noise(1, len(batch), torch_generator(device, seed, "diagnose", i))
        draws = model.draw(batch, 1, noise=noise)
        variance = variance_of(draws.q)
        kept["mean"].append(told(draws).flatten(1))
        shared = shared and draws.shared_prior
        if variance is not None:
            kept["variance"].append(variance.flatten(1))
            logvar = variance.log()
            every += logvar.numel()
            near += float((logvar.abs() > SATURATED * limit).sum()) if limit else 0.0
        if draws.rate[0].flatten(1).shape[1] == math.prod(model.units):
            kept["rates"].append(draws.rate[0].flatten(1))
        kept["z"].append(draws.z[0])
        kept["prior"].append(model.draw_prior(len(batch), batch.given, torch_generator(device, seed, "diagnose prior", i)))
        kept["own"].append(draws.distortion)
        kept["total"].append(draws.total_rate)
        kept["elbo"].append(elbo(draws))
        if isinstance(draws.px, densities.Normal):
            jitter = model.parts(noise)[1]
            x = batch.x if jitter is None else model.likelihood.spread(batch.x, jitter)  # type: ignore[operator,union-attr]
            seen = torch.ones_like(batch.x, dtype=torch.bool) if batch.observed is None else batch.observed
            standard = (x - draws.px.mean).square() * torch.exp(-draws.px.logvar)
            squares += float(torch.where(seen, standard, 0.0).double().sum())
            cells += float(seen.sum())
    z, prior = torch.cat(kept["z"]), torch.cat(kept["prior"])
    own = _double(kept["own"])
    # Another datum's z: any but its own, the same for every call; under a prior of the conditions, a draw of that.
    away = torch.from_numpy(_derangement(len(z), seed)).to(device)
    other = _distortions(model, rows, z[away] if shared else prior, seed)
    flat, flat_prior = z.flatten(1).cpu().numpy(), prior.flatten(1).cpu().numpy()
    reach = max(4.0, float(np.quantile(np.abs(flat), 0.999)), float(np.quantile(np.abs(flat_prior), 0.999)))
    edges = np.linspace(-reach, reach, BINS + 1)
    return Measures(
        split=rows.name,
        n=len(rows),
        rate=float(_double(kept["total"]).mean()),
        distortion=float(own.mean()),
        mean=torch.cat(kept["mean"]).cpu().numpy(),
        variance=torch.cat(kept["variance"]).cpu().numpy() if kept["variance"] else None,
        rates=torch.cat(kept["rates"]).cpu().numpy() if kept["rates"] else None,
        z_mean=flat.mean(0, dtype=np.float64),
        z_std=flat.std(0, dtype=np.float64),
        histogram=_histogram(flat, edges),
        prior_histogram=_histogram(flat_prior, edges),
        edges=edges,
        own=float(own.mean()),
        other=float(other.mean()),
        gain=mean_and_error(other - own),
        valid=(*mean_and_error(_double(kept["elbo"])), len(rows)),
        saturated=near / every if limit and every else None,
        residual=squares / cells if cells else None,
    )


def _double(parts: list[Tensor]) -> np.ndarray:
    return torch.cat(parts).double().cpu().numpy()


def _derangement(n: int, seed: int) -> np.ndarray:
    """Return a permutation that leaves nothing in its place (for n > 1): a cycle through all in a random order."""
    order = numpy_generator(seed, "diagnose", "other").permutation(n)
    away = np.empty(n, np.int64)
    away[order] = np.roll(order, 1)
    return away


def _histogram(x: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return densities over edges of each column, (units, bins); what lies outside counts to the last bin."""
    inside = np.clip(x, edges[0], edges[-1])
    return np.stack([np.histogram(column, edges, density=True)[0] for column in inside.T]).astype(np.float32)


@torch.inference_mode()
def _distortions(model: LatentModel, rows: Rows, z: Tensor, seed: int) -> np.ndarray:
    """Return -log p(x | z) of each datum at given latents (N, *Z)."""
    out, first = [], 0
    for i, batch in enumerate(rows.chunks(model.space.chunk, z.device)):
        jitter = model.parts(model.noise(1, len(batch), torch_generator(z.device, seed, "diagnose", i)))[1]
        log_px, _ = model.log_terms(batch, z[first : first + len(batch)].unsqueeze(0), jitter)
        out.append(-log_px[0])
        first += len(batch)
    return _double(out)


@torch.inference_mode()
def _scores(model: LatentModel, rows: Rows, seed: int) -> np.ndarray:
    """Return the ELBO of each datum, from one draw."""
    device = next(model.parameters()).device
    out = []
    for i, batch in enumerate(rows.chunks(model.space.chunk, device)):
        out.append(elbo(model.draw(batch, 1, noise=model.noise(1, len(batch), torch_generator(device, seed, "diagnose train", i)))))
    return _double(out)


@torch.inference_mode()
def _effects(model: LatentModel, rows: Rows, found: Measures, passes: int, seed: int) -> dict[int, tuple[float, float]]:
    """Put the prior's draw in the place of one unit at a time, those with the largest rate: the change of the distortion, in nats."""
    device = next(model.parameters()).device
    weight = found.activity if found.rates is None else found.rates.mean(0)
    chosen = np.argsort(-weight, kind="stable")[:ABLATED]
    rows = rows.spread(min(len(rows), int(min(500, max(32, passes // len(chosen))))))
    groups = densities.groups_of(model.units, model.alphabet).to(device)
    repeats = max(1, min(8, 200 // len(rows)))  # few data get several draws each
    total = np.zeros((len(chosen), len(rows)))
    for repeat in range(repeats):
        first = 0
        for i, batch in enumerate(rows.chunks(max(4, model.space.chunk // TOGETHER), device)):
            where = (seed, "ablate", repeat, i)
            noise = model.noise(1, len(batch), torch_generator(device, *where))
            draws, jitter = model.draw(batch, 1, noise=noise), model.parts(noise)[1]
            z = draws.z.flatten(2)
            fresh = model.draw_prior(len(batch), batch.given, torch_generator(device, *where, "prior")).flatten(1)
            changes = []
            for start in range(0, len(chosen), TOGETHER):
                units = torch.from_numpy(chosen[start : start + TOGETHER].copy()).to(device)
                taken = (groups[units].unsqueeze(1) == groups).unsqueeze(1)  # (units, 1, Z): a unit of a one-hot group with the others
                changed = torch.where(taken, fresh, z.expand(len(units), -1, -1))
                spread = None if jitter is None else jitter.expand(len(units), *jitter.shape[1:])
                log_px, _ = model.log_terms(batch, changed.unflatten(2, model.units), spread)
                changes.append(draws.log_px - log_px)
            total[:, first : first + len(batch)] += torch.cat(changes).double().cpu().numpy()
            first += len(batch)
    return {int(unit): mean_and_error(row / repeats) for unit, row in zip(chosen, total, strict=True)}


def _gradient_noise(model: LatentModel, train: Rows, objective: Objective, batch: int, seed: int) -> float | None:
    """Compare the variance of the encoder's gradient over draws of z, for one batch, with that over batches and draws."""
    encoder = getattr(model, "posterior", None)
    parameters = [] if encoder is None or not objective.gradient.pathwise else [p for p in encoder.parameters() if p.requires_grad]
    size = min(batch, len(train) // REPEATS)
    if size < 1 or not parameters:
        return None
    device = parameters[0].device
    step = torch.full((), 2.0**62, dtype=torch.float64, device=device)  # long after the end of any schedule
    picks = numpy_generator(seed, "gradient").permutation(len(train))[: size * REPEATS].reshape(REPEATS, size)
    rows = [in_space(train.pick(np.sort(picks[i])).fixed(), model.space) for i in range(REPEATS)]

    def total_variance(vary: bool) -> float:
        """Return the trace of the covariance, by Welford's sums."""
        mean, squares = [torch.zeros_like(p) for p in parameters], 0.0
        for i in range(REPEATS):
            noise = model.noise(objective.k, size, torch_generator(device, seed, "gradient", i))
            loss = objective(model, rows[i if vary else 0].batch(slice(0, size), device), step, noise).loss
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
            for m, g in zip(mean, gradients, strict=True):
                if g is not None:
                    delta = g - m
                    m.add_(delta / (i + 1))
                    squares += float((delta * (g - m)).sum())
        return squares / (REPEATS - 1)

    every = total_variance(True)
    return min(1.0, total_variance(False) / every) if every > 0 and math.isfinite(every) else None


def _structure(rows: Rows, seed: int) -> float | None:
    """Compare the largest eigenvalue of the cells' correlations with that after each cell was shuffled on its own over data."""
    rows = rows.spread(CELL_ROWS)
    if len(rows) < 50 or rows.observed is not None or rows.space.tokeniser is not None:
        return None
    batch = rows.batch(slice(0, len(rows)))
    x = rows.space.features(batch.x, None, torch.float32).flatten(1).numpy().astype(np.float64)
    if rows.space.columns:
        single = len(rows.space.columns) - sum(len(c.values) > 0 for c in rows.space.columns if c.kind == "category")
        x = x[:, :single]  # one-hot codes of one column depend on each other
    x = x[:, np.linspace(0, x.shape[1] - 1, min(CELLS, x.shape[1])).astype(int)] if x.shape[1] else x
    x = x[:, x.std(0) > 0]
    if x.shape[1] < 2:
        return None

    def largest(x: np.ndarray) -> float:
        return float(np.linalg.eigvalsh(np.corrcoef(x.T))[-1])

    rng = numpy_generator(seed, "structure")
    return largest(x) / max(largest(rng.permuted(x, axis=0)) for _ in range(3))
