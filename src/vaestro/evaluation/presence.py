"""Which cells of the data exist, apart from the bound of their values: log p(length | z) of series
that end early, and log p(which cells are empty | z, full columns) of tables and vectors.

For one draw of z from q(z | x) of each datum,

    E log p(x, which cells exist) >= bound of the values + E log p(which cells exist | z)

and the log-probability by the frequencies of the training split alone shows what z contains about
them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from vaestro.evaluation.records import PresenceScore, mean_and_error
from vaestro.evaluation.work import Job
from vaestro.models.presence import Presence
from vaestro.randomness import torch_generator

DRAWN = 5000  # largest number of samples whose empty cells are counted


@torch.inference_mode()
def score_lengths(job: Job, size: int) -> PresenceScore | None:
    """Return the score of the lengths of a job's data; None for other data.

    Args:
        job: model and data.
        size: number of data that are encoded at once.

    >>> import vaestro as vs
    >>> data = vs.load([np.arange(3.0 + i % 2) + 0.1 * i for i in range(40)])
    >>> job = Job(vs.build(data.space, latent=2).eval(), data.train, 1, 0, torch.device("cpu"))
    >>> score_lengths(job, 16).without_z[0] < 0
    True
    """
    return None if job.model.lengths is None else _score(job, size, job.model.lengths, "length | z")


@torch.inference_mode()
def score_absences(job: Job, size: int) -> PresenceScore | None:
    """Return the score of which cells of a job's data are empty, with the shares of empty cells of
    each column in the data and in as many samples; None if that is not modelled.

    Args:
        job: model and data.
        size: number of data that are encoded at once.

    >>> import vaestro as vs
    >>> data = vs.load({"size": [0.5, None, 2.5, 1.1] * 25, "age": [3, 1, 4, 1] * 25})
    >>> job = Job(vs.build(data.space, latent=2).eval(), data.train, 1, 0, torch.device("cpu"))
    >>> list(score_absences(job, 16).shares)
    ['size']
    """
    model, space, rows = job.latent_model, job.model.space, job.rows
    if model.absences is None or space.empty is None:
        return None
    score = _score(job, size, model.absences, "empty cells | z, full columns")
    drawn = []
    for first in range(0, min(DRAWN, len(rows)), size):
        batch = job.batch(first, size)
        generator = torch_generator(job.device, job.seed, "empty cells", first)
        simulated, z, _ = model.simulate(len(batch), batch.given, None, generator)
        drawn.append(model.absences.draw(z, simulated, generator).flatten(1).cpu().numpy())
    mask = rows.mask()
    empty = np.zeros(space.cells) if mask is None else 1 - mask.reshape(len(mask), -1).mean(0)
    pairs = zip(empty.tolist(), np.concatenate(drawn).mean(0).tolist(), strict=True)
    names = [c.name for c in space.columns] or [f"[{i}]" for i in range(space.cells)]
    ever = space.empty.ravel() > 0
    shares = {n: pair for n, pair, some in zip(names, pairs, ever, strict=True) if some}
    return replace(score, shares=shares)


def _score(job: Job, size: int, presence: Presence, what: str) -> PresenceScore:
    """Return the means of log p(which cells exist | z), and by frequency."""
    given, alone = [], []
    for first in range(0, len(job.rows), size):
        batch = job.batch(first, size)
        generator = torch_generator(job.device, job.seed, "lengths", first)
        noise = job.model.noise(1, len(batch), generator)
        z = job.model.draw(batch, noise=noise).z
        given.append(presence.log_prob(z, batch)[0].cpu().numpy())
        alone.append(presence.without_z(batch).cpu().numpy())
    with_z, without = (mean_and_error(np.concatenate(s).astype(np.float64)) for s in (given, alone))
    return PresenceScore(what, with_z, without)
