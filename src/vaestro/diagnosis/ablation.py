"""Replace one unit of z at a time by a draw of the prior, and measure the change of distortion."""

from __future__ import annotations

import math

import numpy as np
import torch

from vaestro import densities
from vaestro.data import Rows
from vaestro.diagnosis.measures import Measures
from vaestro.diagnosis.statistics import LEVEL, Paired
from vaestro.models import LatentModel
from vaestro.randomness import torch_generator

ABLATED = 64  # maximum number of units that are measured, in order of their rate
TOGETHER = 8  # number of units in one pass

Effects = dict[int, tuple[float, float]]


@torch.inference_mode()
def unit_effects(
    model: LatentModel, rows: Rows, measures: Measures, passes: int, seed: int
) -> tuple[Effects, Effects]:
    """Return the effect of each unit on the distortion, in nats: means with standard errors, and
    limits.

    Args:
        model: the model.
        rows: held-out rows; some of them are used.
        measures: their rates or activities, by which the units are ordered.
        passes: number of latents that may be decoded.
        seed: seed of the draws.

    Returns:
        {unit: (mean, standard error)} and {unit: (low, high)}. The limits are the outer ones of
        mean and median, corrected for the number of units.

    >>> import vaestro as vs
    >>> from vaestro.diagnosis.encoding import encode
    >>> data = vs.load(np.eye(10, dtype="uint8").repeat(20, 0))
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> measures = encode(model, data.valid, seed=0)
    >>> effects, limits = unit_effects(model, data.valid, measures, passes=1000, seed=0)
    >>> sorted(effects), sorted(limits)
    ([0, 1], [0, 1])
    """
    device = next(model.parameters()).device
    weight = measures.activity if measures.rates is None else measures.rates.mean(0)
    units = np.argsort(-weight, kind="stable")[:ABLATED]
    rows = rows.spread(min(len(rows), int(min(500, max(32, passes // len(units))))))
    repeats = max(1, min(8, 200 // len(rows)))  # several draws for each datum if there are few
    total = np.zeros((len(units), len(rows)))
    for repeat in range(repeats):
        total += _changes(model, rows, units, (seed, "ablate", repeat), device)
    level = 1 - (1 - LEVEL) / len(units)
    fits = {
        int(unit): Paired.of(row / repeats, level=level)
        for unit, row in zip(units, total, strict=True)
    }
    effects = {
        unit: (fit.mean, fit.stderr if fit.n > 1 else math.nan) for unit, fit in fits.items()
    }
    return effects, {unit: (max(fit.low, fit.median_low), fit.most) for unit, fit in fits.items()}


def _changes(
    model: LatentModel,
    rows: Rows,
    units: np.ndarray,
    path: tuple[int, str, int],
    device: torch.device,
) -> np.ndarray:
    """Return the increase of each row's distortion without each unit, (units, N)."""
    groups = densities.groups_of(model.units, model.alphabet).to(device)
    parts = []
    for i, batch in enumerate(rows.chunks(max(4, model.space.chunk // TOGETHER), device)):
        noise = model.noise(1, len(batch), torch_generator(device, *path, i))
        draws, jitter = model.draw(batch, 1, noise=noise), model.parts(noise)[1]
        z = draws.z.flatten(2)
        fresh = model.draw_prior(
            len(batch), batch.given, torch_generator(device, *path, i, "prior")
        ).flatten(1)
        changes = []
        for start in range(0, len(units), TOGETHER):
            some = torch.from_numpy(units[start : start + TOGETHER].copy()).to(device)
            # (units, 1, Z): a unit of a one-hot group is replaced together with its group
            replaced = (groups[some].unsqueeze(1) == groups).unsqueeze(1)
            changed = torch.where(replaced, fresh, z.expand(len(some), -1, -1))
            spread = None if jitter is None else jitter.expand(len(some), *jitter.shape[1:])
            log_px, _ = model.log_terms(batch, changed.unflatten(2, model.units), spread)
            changes.append(draws.log_px - log_px)
        parts.append(torch.cat(changes).double().cpu().numpy())
    return np.concatenate(parts, 1)
