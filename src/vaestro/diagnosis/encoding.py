"""Encode held-out and training rows: means and variances of q(z | x), rates, distortions, ELBOs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vaestro import densities
from vaestro.data import Rows
from vaestro.diagnosis.exchange import derangement, distortions
from vaestro.diagnosis.measures import Measures
from vaestro.diagnosis.statistics import LEVEL, Paired
from vaestro.evaluation.records import mean_and_error
from vaestro.loop import informative_mean
from vaestro.models import Draws, LatentModel, Model, with_latent
from vaestro.objectives import elbo
from vaestro.randomness import torch_generator
from vaestro.spaces import Batch

BINS = 60
SATURATED = 0.75  # share of the limit of the log-variance


@dataclass(eq=False)
class _Codes:
    """One draw for each of N rows; tensors over units are flat.

    Args:
        mean, variance, rates: of q(z | x), (N, units); variance and rates may be None.
        z: the draws, (N, *Z).
        own, total, elbo: distortion, total rate and ELBO, (N,), float64.
        residual: standardised residuals, (N, columns or 1); None for a likelihood without a scale.
        shared: whether the prior is the same for all rows.
    """

    mean: np.ndarray
    variance: Tensor | None
    rates: np.ndarray | None
    z: Tensor
    own: np.ndarray
    total: np.ndarray
    elbo: np.ndarray
    residual: np.ndarray | None
    shared: bool


@torch.inference_mode()
def encode(model: Model, rows: Rows, seed: int) -> Measures:
    """Return the measures of rows that come from one draw of z for each: codes, rate, distortion,
    ELBO, and the distortion with another row's z.

    >>> import vaestro as vs
    >>> data = vs.load(np.eye(10, dtype="uint8").repeat(20, 0))
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> encode(model, data.valid, seed=0).mean.shape
    (10, 2)
    """
    codes = _codes(model, rows, seed, "diagnose")
    prior, other = codes.z, codes.own
    if not model.capabilities.exact:
        prior, other = _exchanged(with_latent(model), rows, codes, seed)
    flat, flat_prior = codes.z.flatten(1).cpu().numpy(), prior.flatten(1).cpu().numpy()
    largest = [float(np.quantile(np.abs(x), 0.999)) for x in (flat, flat_prior) if x.size]
    reach = max([4.0, *largest])
    edges = np.linspace(-reach, reach, BINS + 1)
    variance = codes.variance
    return Measures(
        split=rows.name,
        n=len(rows),
        rate=float(codes.total.mean()),
        distortion=float(codes.own.mean()),
        mean=codes.mean,
        variance=None if variance is None else variance.cpu().numpy(),
        rates=codes.rates,
        z_mean=flat.mean(0, dtype=np.float64),
        z_std=flat.std(0, dtype=np.float64),
        histogram=_histogram(flat, edges),
        prior_histogram=_histogram(flat_prior, edges),
        edges=edges,
        own=float(codes.own.mean()),
        other=float(other.mean()),
        gain=mean_and_error(other - codes.own),
        valid=(*mean_and_error(codes.elbo), len(rows)),
        saturated=_saturated(variance, model.capabilities.logvar_limit),
        residual=None if codes.residual is None else float(np.nanmean(codes.residual)),
    )


def _exchanged(
    model: LatentModel, rows: Rows, codes: _Codes, seed: int
) -> tuple[Tensor, np.ndarray]:
    """Return a draw of the prior for each row, (N, *Z), and the distortion of each row with another
    row's z, (N,)."""
    device = codes.z.device
    prior = torch.cat(
        [
            model.draw_prior(
                len(batch), batch.given, torch_generator(device, seed, "diagnose prior", i)
            )
            for i, batch in enumerate(rows.chunks(model.space.chunk, device))
        ]
    )
    # Under a prior of the conditions, another row's z would also differ by its conditions. A draw
    # of the prior is used instead.
    order = torch.from_numpy(derangement(len(rows), seed)).to(device)
    return prior, distortions(model, rows, codes.z[order] if codes.shared else prior, seed)


def score_training(model: Model, rows: Rows, measures: Measures, seed: int) -> None:
    """Add to the measures the ELBO of training rows, means and variances of their q(z | x), and the
    fit of learned scales.

    >>> import vaestro as vs
    >>> data = vs.load(np.eye(10, dtype="uint8").repeat(20, 0))
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> measures = encode(model, data.valid, seed=0)
    >>> score_training(model, data.train, measures, seed=0)
    >>> measures.train[2], measures.train_mean.shape
    (180, (180, 2))
    """
    codes = _codes(model, rows, seed, "diagnose train")
    measures.train = (*mean_and_error(codes.elbo), len(rows))
    measures.train_mean = codes.mean
    measures.train_variance = None if codes.variance is None else codes.variance.cpu().numpy()
    if codes.residual is None:
        return
    level = 1 - (1 - LEVEL) / codes.residual.shape[1]
    names = [c.name for c in model.space.columns] or [""]
    for name, column in zip(names, codes.residual.T, strict=True):
        column = column[~np.isnan(column)]
        if len(column) > 2:
            fit = Paired.of(column, level=level)
            measures.scales[name] = fit.mean, fit.low, fit.high


@torch.inference_mode()
def _codes(model: Model, rows: Rows, seed: int, purpose: str) -> _Codes:
    """Draw z once for each row, and collect what is computed from it."""
    device = next(model.parameters()).device
    collected: dict[str, list[Tensor]] = {
        name: [] for name in ("mean", "variance", "rates", "z", "own", "total", "elbo", "residual")
    }
    shared = True
    for i, batch in enumerate(rows.chunks(model.space.chunk, device)):
        noise = model.noise(1, len(batch), torch_generator(device, seed, purpose, i))
        draws = model.draw(batch, 1, noise=noise)
        variance = draws.q.variance
        rates = draws.rate[0].flatten(1)
        values = {
            "mean": informative_mean(draws).flatten(1),
            "variance": None if variance is None else variance.flatten(1),
            "rates": rates if rates.shape[1] == math.prod(model.units) else None,
            "z": draws.z[0],
            "own": draws.distortion,
            "total": draws.total_rate,
            "elbo": elbo(draws),
            "residual": _residuals(model, batch, draws, noise),
        }
        for name, value in values.items():
            if value is not None:
                collected[name].append(value)
        shared = shared and draws.shared_prior
    whole = {name: torch.cat(parts) for name, parts in collected.items() if parts}
    return _Codes(
        mean=whole["mean"].cpu().numpy(),
        variance=whole.get("variance"),
        rates=whole["rates"].cpu().numpy() if "rates" in whole else None,
        z=whole["z"],
        own=whole["own"].double().cpu().numpy(),
        total=whole["total"].double().cpu().numpy(),
        elbo=whole["elbo"].double().cpu().numpy(),
        residual=whole["residual"].double().cpu().numpy() if "residual" in whole else None,
        shared=shared,
    )


def _residuals(model: Model, batch: Batch, draws: Draws, noise: Tensor) -> Tensor | None:
    """Return the standardised residual of each row: for a table (B, columns), for other data its
    mean over observed cells, (B, 1).

    Cells that were not observed are NaN. None for a likelihood without a scale.
    """
    if not isinstance(draws.px, densities.DataDensity):
        return None
    standard = draws.px.standardised_residual(model.spread(batch.x, noise)).double()
    standard = standard.mean(0) if standard.ndim > batch.x.ndim else standard
    if batch.observed is not None:
        standard = torch.where(batch.observed, standard, math.nan)
    if not model.space.columns:
        standard = standard.flatten(1).nanmean(1, keepdim=True)
    return None if bool(standard.isnan().all()) else standard


def _saturated(variance: Tensor | None, limit: float | None) -> float | None:
    """Return the share of log-variances whose size is above SATURATED of the limit."""
    if variance is None or not limit:
        return None
    return float((variance.log().abs() > SATURATED * limit).sum()) / variance.numel()


def _histogram(x: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return a density over the bins for each column, (units, bins). Values beyond the edges count
    in the outermost bins."""
    if not x.shape[1]:
        return np.zeros((0, BINS), np.float32)
    inside = np.clip(x, edges[0], edges[-1])
    return np.stack([np.histogram(column, edges, density=True)[0] for column in inside.T]).astype(
        np.float32
    )
