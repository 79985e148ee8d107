"""log p(length | z) of series that end early, apart from the bound of their values.

For one draw of z from q(z | x) of each datum,

    E log p(x, length) >= bound of the values + E log p(length | z)

and log m(length), of the lengths in the training split alone, shows what z contains about them.
"""

from __future__ import annotations

import numpy as np
import torch

from vaestro.evaluation.records import LengthScore, mean_and_error
from vaestro.evaluation.work import Job
from vaestro.models.lengths import lengths_of
from vaestro.randomness import torch_generator


@torch.inference_mode()
def score_lengths(job: Job, size: int) -> LengthScore | None:
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
    lengths, frequencies = job.model.lengths, job.model.space.lengths
    if lengths is None or frequencies is None:
        return None
    given, alone = [], []
    for first in range(0, len(job.rows), size):
        batch = job.batch(first, size)
        generator = torch_generator(job.device, job.seed, "lengths", first)
        noise = job.model.noise(1, len(batch), generator)
        given.append(lengths.log_prob(job.model.draw(batch, noise=noise).z, batch)[0].cpu().numpy())
        ends = lengths_of(batch, len(frequencies)).cpu().numpy()
        alone.append(np.where(ends > 0, np.log(frequencies[np.maximum(ends, 1) - 1]), 0.0))
    return LengthScore(
        mean_and_error(np.concatenate(given).astype(np.float64)),
        mean_and_error(np.concatenate(alone)),
    )
