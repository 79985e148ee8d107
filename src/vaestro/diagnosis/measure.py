"""What is measured on a model and data, for the rules to judge: each number once, and nothing
judged here.

The code's dependence on the data, and the decoder's on the code, are two questions. The first is
answered by the encoder alone: does E[z | x] vary with x? The second by the decoder: what does the
distortion cost with another datum's z in place of a datum's own, or with a draw of the prior in
place of one unit?
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
from vaestro.diagnosis.reconstruction import Reconstruction, reconstructed
from vaestro.diagnosis.statistics import LEVEL, Paired, combined, rank_test
from vaestro.evaluation import Information, affordable, evaluate, in_space
from vaestro.evaluation.records import mean_and_error
from vaestro.loop import informative_mean, signal
from vaestro.models import Draws, LatentModel
from vaestro.objectives import Objective, elbo
from vaestro.randomness import numpy_generator, torch_generator
from vaestro.spaces import Batch

ROWS = 5000  # data of each split that are scored
HELD = 10_000_000  # numbers of codes that are held, and written
ABLATED = 64  # units whose effect is measured, those with the largest rate first
TOGETHER = 8  # units at a time
CODES = 10_000  # training data that make up the aggregate posterior
PAIRS = 200_000_000  # log-densities of one unit that the mutual information may take
BINS = 60
SATURATED = 0.75  # of the limit of the log-variance
REPEATS = 8
CELLS, CELL_ROWS = 256, 4000  # what the search for structure looks at
# latents of other data that are decoded for one datum's: in all at least, and for each datum at
# most
EXCHANGED, MOST_OTHERS = 4000, 16
CONSTANTS, CONSTANT_ROWS = 15, 500  # codes that are tried for all data, and data they are tried on
# data that no step and no choice of weights has seen, below which those that chose the weights are
# added
FEW = 100


@dataclass(eq=False)
class Measures:
    """Hold what was measured, in nats; per-unit arrays are flat, (units,).

    Args:
        split: of the data that were held out, or "train" where there are none; n of them.
        rate, distortion: means of the ELBO's parts there.
        mean, variance, rates: of q for each datum, (N, units); variance and rates None for families
            without.
        z_mean, z_std: of draws of the aggregate posterior; histogram and prior_histogram (units,
            bins) over edges.
        effects: {unit: (effect, standard error)}, of the prior's draw in a unit's place.
        own, other, gain: distortion with a datum's own z, with another's (or its prior's, where
            that depends on what is given), and the difference with its paired error.
        valid, train: ELBO of data held out and of training data with the same weights, each (mean,
            standard error, n); train is None where nothing is held out.
        information: of the aggregate posterior.
        saturated: share of log-variances near their limit; None where there is no limit.
        residual: mean standardised residual, (x - mean)^2 / variance for a Gaussian likelihood;
            None for one without a scale.
        gradient_noise: the share of the variance of the encoder's gradient, from step to step, that
            the draws of z make; None where it was not measured.
        structure: the largest eigenvalue of the correlations between cells, over what independent
            cells of as many data would have; None where there are too few.
        visible: the smallest such eigenvalue, of correlations in the population, that these data
            can show.
        use: by how much another datum's z, averaged over several, raises the distortion of each
            datum of `use_split`, with the p-value of the rank test against chance, corrected for
            `chosen`; None where there are fewer than three data.
        worth: by how much the code raises the objective of each of these data: the distortion with
            the one z that is best for all, less that with a datum's own z and the weighted rate;
            None where there is no such z.
        chosen: number of validations among which the weights were chosen by data of `use_split`; 0
            if they had no part in it.
        limits: {unit: (low, high)}, of the effects, together at the level of 95 %.
        train_mean, train_variance: of q for each training datum, (N, units).
        aggregate: information of the training data.
        scales: {column of a table, or "": (mean, low, high)} of the standardised residual of
            training data, 1 where a scale that is learned has reached its optimum; the limits hold
            for all columns together at the level of 95 %.
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
    visible: float | None = None
    use: Paired | None = None
    use_split: str = ""
    worth: Paired | None = None
    chosen: int = 0
    limits: dict[int, tuple[float, float]] = field(default_factory=dict)
    train_mean: np.ndarray | None = None
    train_variance: np.ndarray | None = None
    aggregate: Information | None = None
    scales: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    reconstruction: Reconstruction | None = None

    @cached_property
    def activity(self) -> np.ndarray:
        """Return Var_x(E[z | x]) of each unit (Burda, Grosse and Salakhutdinov 2016)."""
        return np.asarray(self.mean.astype(np.float64).var(0))

    @cached_property
    def signal(self) -> float | None:
        """Return what the means of all units tell of the data (see `loop.signal`), which is zero if
        none depends on them."""
        if self.variance is None:
            return None
        return float(
            signal(
                torch.from_numpy(self.activity),
                torch.from_numpy(self.variance.astype(np.float64).mean(0)),
            ).sum()
        )


def measure(
    model: LatentModel,
    train: Rows,
    held_out: Rows,
    objective: Objective,
    *,
    batch: int = 128,
    seed: int = 0,
    rows: int = ROWS,
    unseen: Rows | None = None,
    validations: int = 0,
) -> Measures:
    """Measure a model on data held out, and on as many training data with the same weights.

    Args:
        model: the model, with the weights in use.
        train, held_out: its data; held_out may be empty.
        objective: what it was trained by, its weight of the KL as at the end of the run.
        batch: data in a training step.
        seed: of the draws.
        rows: at most so many data of each.
        unseen: data that neither training nor the choice of the weights has seen.
        validations: among how many the weights were chosen by held_out; 0 if it had no part in it.
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
        scores = _scores(model, trained, found, seed)
        found.train = (*mean_and_error(scores), len(trained))
        fresh = (
            None
            if unseen is None or not len(unseen)
            else in_space(unseen.spread(limit).fixed(), model.space)
        )
        sets = [scored] if fresh is None else [fresh] if len(fresh) >= FEW else [fresh, scored]
        sets = [rows for rows in sets if len(rows) > 2]
        if sets:
            _use(
                model,
                found,
                sets,
                [validations if rows is scored else 0 for rows in sets],
                passes,
                seed,
            )
            found.worth = _worth(model, trained, sets, objective.beta.value, seed)
    found.effects, found.limits = _effects(model, scored, found, passes // 2, seed)
    if model.capabilities.scored_anywhere:
        most = max(2, math.isqrt(PAIRS // units))
        if len(scored) > 2:
            found.information = evaluate(
                model, scored, k=1, methods=f"information:n={min(len(scored), most)}", seed=seed
            ).information
        found.aggregate = found.information
        if not alone and len(trained) > 2:
            codes = in_space(train.spread(min(most, CODES)).fixed(), model.space)
            found.aggregate = evaluate(
                model, codes, k=1, methods=f"information:n={len(codes)}", seed=seed
            ).information
    found.gradient_noise = _gradient_noise(model, train, objective, batch, seed)
    found.structure, found.visible = _structure(trained, seed)
    found.reconstruction = reconstructed(model, scored)
    return found


@torch.inference_mode()
def _use(
    model: LatentModel, found: Measures, sets: list[Rows], chosen: list[int], passes: int, seed: int
) -> None:
    """Measure whether the decoder uses z. Only rows on which the weights were chosen are corrected
    for that choice."""
    parts = [_exchanged(model, rows, passes, seed) for rows in sets]
    p = combined([rank_test([part]) for part in parts], chosen)
    found.use = Paired.of(np.concatenate([others.mean(0) - own for others, own in parts]), p=p)
    found.chosen = sum(chosen)
    found.use_split = " and ".join(rows.name for rows in sets)


@torch.inference_mode()
def _worth(
    model: LatentModel, trained: Rows, sets: list[Rows], beta: float, seed: int
) -> Paired | None:
    """Compare with a code that is the same for all data: of some draws of the prior, and its mean,
    the best for training data."""
    device = next(model.parameters()).device
    some = trained.spread(CONSTANT_ROWS)
    batch = some.batch(slice(0, 1), device)
    draws = model.draw(batch, 1, noise=model.noise(1, 1, torch_generator(device, seed, "worth")))
    if not draws.shared_prior:
        return None
    one = [model.draw_prior(CONSTANTS, None, torch_generator(device, seed, "worth prior"))]
    if not model.alphabet:
        one.append(torch.zeros_like(one[0][:1]))
    constants = torch.cat(one)
    costs = [
        _distortions(model, some, z.expand(len(some), *z.shape), seed).mean() for z in constants
    ]
    best = constants[int(np.argmin(costs))]
    saved = []
    for rows in sets:
        base, first = _distortions(model, rows, best.expand(len(rows), *best.shape), seed), 0
        k = max(1, min(MOST_OTHERS, EXCHANGED // len(rows)))
        for i, batch in enumerate(rows.chunks(model.space.chunk, device)):
            draws = model.draw(
                batch,
                k,
                noise=model.noise(k, len(batch), torch_generator(device, seed, "worth", i)),
            )
            own = (draws.distortion + beta * draws.total_rate).double().cpu().numpy()
            saved.append(base[first : first + len(own)] - own)
            first += len(own)
    return Paired.of(np.concatenate(saved))


def _exchanged(
    model: LatentModel, rows: Rows, passes: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the distortion of each of N data with R other data's z (R, N), and with its own
    (N,)."""
    device = next(model.parameters()).device
    n = len(rows)
    repeats = int(max(1, min(n - 1, MOST_OTHERS, EXCHANGED // n, passes // (4 * n))))
    z, own, shared = [], [], True
    for i, batch in enumerate(rows.chunks(model.space.chunk, device)):
        draws = model.draw(
            batch, 1, noise=model.noise(1, len(batch), torch_generator(device, seed, "diagnose", i))
        )
        z.append(draws.z[0])
        own.append(draws.distortion)
        shared = shared and draws.shared_prior
    codes = torch.cat(z)
    order = numpy_generator(seed, "diagnose", "other").permutation(n)
    others = []
    for shift in range(1, repeats + 1):
        if shared:
            away = np.empty(n, np.int64)
            away[order] = np.roll(order, shift)
            instead = codes[torch.from_numpy(away).to(device)]
        else:  # under a prior of the conditions another datum's z would differ by those too
            instead = torch.cat(
                [
                    model.draw_prior(
                        len(batch),
                        batch.given,
                        torch_generator(device, seed, "diagnose prior", shift, i),
                    )
                    for i, batch in enumerate(rows.chunks(model.space.chunk, device))
                ]
            )
        others.append(_distortions(model, rows, instead, seed))
    return np.stack(others), _double(own)


@torch.inference_mode()
def _codes(model: LatentModel, rows: Rows, seed: int) -> Measures:
    device = next(model.parameters()).device
    kept: dict[str, list[Tensor]] = {
        name: []
        for name in ("mean", "variance", "rates", "z", "prior", "own", "elbo", "total", "residual")
    }
    near = every = 0.0
    shared = True
    limit = model.capabilities.logvar_limit
    for i, batch in enumerate(rows.chunks(model.space.chunk, device)):
        noise = model.noise(1, len(batch), torch_generator(device, seed, "diagnose", i))
        draws = model.draw(batch, 1, noise=noise)
        variance = draws.q.variance
        kept["mean"].append(informative_mean(draws).flatten(1))
        shared = shared and draws.shared_prior
        if variance is not None:
            kept["variance"].append(variance.flatten(1))
            logvar = variance.log()
            every += logvar.numel()
            near += float((logvar.abs() > SATURATED * limit).sum()) if limit else 0.0
        if draws.rate[0].flatten(1).shape[1] == math.prod(model.units):
            kept["rates"].append(draws.rate[0].flatten(1))
        kept["z"].append(draws.z[0])
        kept["prior"].append(
            model.draw_prior(
                len(batch), batch.given, torch_generator(device, seed, "diagnose prior", i)
            )
        )
        kept["own"].append(draws.distortion)
        kept["total"].append(draws.total_rate)
        kept["elbo"].append(elbo(draws))
        standard = _residuals(model, batch, draws, noise)
        if standard is not None:
            kept["residual"].append(standard)
    z, prior = torch.cat(kept["z"]), torch.cat(kept["prior"])
    own = _double(kept["own"])
    # Another datum's z: any but its own, the same for every call; under a prior of the conditions,
    # a draw of that.
    away = torch.from_numpy(_derangement(len(z), seed)).to(device)
    other = _distortions(model, rows, z[away] if shared else prior, seed)
    flat, flat_prior = z.flatten(1).cpu().numpy(), prior.flatten(1).cpu().numpy()
    reach = max(
        4.0, float(np.quantile(np.abs(flat), 0.999)), float(np.quantile(np.abs(flat_prior), 0.999))
    )
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
        residual=float(np.nanmean(_double(kept["residual"]))) if kept["residual"] else None,
    )


def _residuals(model: LatentModel, batch: Batch, draws: Draws, noise: Tensor) -> Tensor | None:
    """Return the standardised residual of each datum, mean over observed cells, of a table of each
    column: (B, columns or 1).

    NaN where nothing was observed; None for a likelihood without a scale.
    """
    if not isinstance(draws.px, densities.DataDensity):
        return None
    jitter = model.parts(noise)[1]
    x = batch.x if jitter is None else model.likelihood.spread(batch.x, jitter)  # type: ignore[operator,union-attr]
    standard = draws.px.standardised_residual(x).double()
    standard = standard.mean(0) if standard.ndim > batch.x.ndim else standard
    if batch.observed is not None:
        standard = torch.where(batch.observed, standard, math.nan)
    if not model.space.columns:
        standard = standard.flatten(1).nanmean(1, keepdim=True)
    return None if bool(standard.isnan().all()) else standard


def _double(parts: list[Tensor]) -> np.ndarray:
    return torch.cat(parts).double().cpu().numpy()


def _derangement(n: int, seed: int) -> np.ndarray:
    """Return a permutation that leaves nothing in its place (for n > 1): a cycle through all in a
    random order."""
    order = numpy_generator(seed, "diagnose", "other").permutation(n)
    away = np.empty(n, np.int64)
    away[order] = np.roll(order, 1)
    return away


def _histogram(x: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return densities over edges of each column, (units, bins); what lies outside counts to the
    last bin."""
    inside = np.clip(x, edges[0], edges[-1])
    return np.stack([np.histogram(column, edges, density=True)[0] for column in inside.T]).astype(
        np.float32
    )


@torch.inference_mode()
def _distortions(model: LatentModel, rows: Rows, z: Tensor, seed: int) -> np.ndarray:
    """Return -log p(x | z) of each datum at given latents (N, *Z)."""
    out, first = [], 0
    for i, batch in enumerate(rows.chunks(model.space.chunk, z.device)):
        jitter = model.parts(
            model.noise(1, len(batch), torch_generator(z.device, seed, "diagnose", i))
        )[1]
        log_px, _ = model.log_terms(batch, z[first : first + len(batch)].unsqueeze(0), jitter)
        out.append(-log_px[0])
        first += len(batch)
    return _double(out)


@torch.inference_mode()
def _scores(model: LatentModel, rows: Rows, found: Measures, seed: int) -> np.ndarray:
    """Return the ELBO of each training datum, from one draw, (N,); note q's means and variances,
    and how scales fit."""
    device = next(model.parameters()).device
    out, means, variances, residuals = [], [], [], []
    for i, batch in enumerate(rows.chunks(model.space.chunk, device)):
        noise = model.noise(1, len(batch), torch_generator(device, seed, "diagnose train", i))
        draws = model.draw(batch, 1, noise=noise)
        out.append(elbo(draws))
        means.append(informative_mean(draws).flatten(1))
        variance, standard = draws.q.variance, _residuals(model, batch, draws, noise)
        if variance is not None:
            variances.append(variance.flatten(1))
        if standard is not None:
            residuals.append(standard)
    found.train_mean = torch.cat(means).cpu().numpy()
    found.train_variance = torch.cat(variances).cpu().numpy() if variances else None
    if residuals:
        table = _double(residuals)
        level = 1 - (1 - LEVEL) / table.shape[1]
        names = [c.name for c in model.space.columns] or [""]
        for name, column in zip(names, table.T, strict=True):
            column = column[~np.isnan(column)]
            if len(column) > 2:
                fit = Paired.of(column, level=level)
                found.scales[name] = fit.mean, fit.low, fit.high
    return _double(out)


@torch.inference_mode()
def _effects(
    model: LatentModel, rows: Rows, found: Measures, passes: int, seed: int
) -> tuple[dict[int, tuple[float, float]], dict[int, tuple[float, float]]]:
    """Replace one unit at a time, those with the largest rate, by a draw of the prior: the change
    of the distortion, in nats.

    Returns means and standard errors by unit, and limits of mean and median together, corrected for
    the number of units.
    """
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
            fresh = model.draw_prior(
                len(batch), batch.given, torch_generator(device, *where, "prior")
            ).flatten(1)
            changes = []
            for start in range(0, len(chosen), TOGETHER):
                units = torch.from_numpy(chosen[start : start + TOGETHER].copy()).to(device)
                # (units, 1, Z): a unit of a one-hot group with the others
                taken = (groups[units].unsqueeze(1) == groups).unsqueeze(1)
                changed = torch.where(taken, fresh, z.expand(len(units), -1, -1))
                spread = None if jitter is None else jitter.expand(len(units), *jitter.shape[1:])
                log_px, _ = model.log_terms(batch, changed.unflatten(2, model.units), spread)
                changes.append(draws.log_px - log_px)
            total[:, first : first + len(batch)] += torch.cat(changes).double().cpu().numpy()
            first += len(batch)
    level = 1 - (1 - LEVEL) / len(chosen)
    said = {
        int(unit): Paired.of(row / repeats, level=level)
        for unit, row in zip(chosen, total, strict=True)
    }
    errors = {
        unit: (each.mean, each.stderr if each.n > 1 else math.nan) for unit, each in said.items()
    }
    return errors, {
        unit: (max(each.low, each.median_low), each.most) for unit, each in said.items()
    }


def _gradient_noise(
    model: LatentModel, train: Rows, objective: Objective, batch: int, seed: int
) -> float | None:
    """Compare the variance of the encoder's gradient over draws of z, for one batch, with that over
    batches and draws."""
    parameters = model.encoder_parameters() if objective.gradient.pathwise else []
    size = min(batch, len(train) // REPEATS)
    if size < 1 or not parameters:
        return None
    device = parameters[0].device
    # long after the end of any schedule
    step = torch.full((), 2.0**62, dtype=torch.float64, device=device)
    picks = (
        numpy_generator(seed, "gradient")
        .permutation(len(train))[: size * REPEATS]
        .reshape(REPEATS, size)
    )
    rows = [in_space(train.pick(np.sort(picks[i])).fixed(), model.space) for i in range(REPEATS)]

    def total_variance(vary: bool) -> float:
        """Return the trace of the covariance, by Welford's sums."""
        mean, squares = [torch.zeros_like(p) for p in parameters], 0.0
        for i in range(REPEATS):
            noise = model.noise(objective.k, size, torch_generator(device, seed, "gradient", i))
            loss = objective(
                model, rows[i if vary else 0].batch(slice(0, size), device), step, noise
            ).loss
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
            for m, g in zip(mean, gradients, strict=True):
                if g is not None:
                    delta = g - m
                    m.add_(delta / (i + 1))
                    squares += float((delta * (g - m)).sum())
        return squares / (REPEATS - 1)

    every = total_variance(True)
    return min(1.0, total_variance(False) / every) if every > 0 and math.isfinite(every) else None


def _structure(rows: Rows, seed: int) -> tuple[float | None, float | None]:
    """Compare the largest eigenvalue of the cells' correlations with that after each cell was
    shuffled on its own over data.

    The second number is the smallest eigenvalue of the population that shows among n data of p
    cells: 1 + sqrt(p / n) (Baik, Ben Arous and Peche 2005).
    """
    rows = rows.spread(CELL_ROWS)
    if len(rows) < 50 or rows.observed is not None or rows.space.tokeniser is not None:
        return None, None
    batch = rows.batch(slice(0, len(rows)))
    x = rows.space.features(batch.x, None, torch.float32).flatten(1).numpy().astype(np.float64)
    if rows.space.columns:
        single = len(rows.space.columns) - sum(c.one_hot for c in rows.space.columns)
        x = x[:, :single]  # one-hot codes of one column depend on each other
    x = (
        x[:, np.linspace(0, x.shape[1] - 1, min(CELLS, x.shape[1])).astype(int)]
        if x.shape[1]
        else x
    )
    x = x[:, x.std(0) > 0]
    if x.shape[1] < 2:
        return None, None

    def largest(x: np.ndarray) -> float:
        return float(np.linalg.eigvalsh(np.corrcoef(x.T))[-1])

    rng = numpy_generator(seed, "structure")
    return largest(x) / max(largest(rng.permuted(x, axis=0)) for _ in range(3)), 1 + math.sqrt(
        x.shape[1] / len(x)
    )
