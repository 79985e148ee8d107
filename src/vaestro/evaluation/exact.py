"""The exact log-likelihood of each datum, for models without a latent.

The density of data on a grid is that of the dequantised data, at one draw of the noise.
"""

from __future__ import annotations

from dataclasses import replace
from typing import final

import numpy as np
import torch

from vaestro.evaluation.bounds import at_once, cells_of, of_tokens
from vaestro.evaluation.records import Estimate, Evaluation
from vaestro.evaluation.work import Job, Work
from vaestro.objectives import elbo
from vaestro.randomness import torch_generator


def exactly(job: Job) -> list[Work]:
    """Compute log p(x), for a model without a latent.

    Raises:
        ValueError: the model has a latent.

    >>> import vaestro as vs
    >>> rows = vs.load(["a cat", "a dog"] * 30).test
    >>> model = vs.build(rows.space, model="autoregressive")
    >>> vs.evaluate(model, rows)["exact"].side
    'exact'
    """
    if not job.model.capabilities.exact:
        raise ValueError(
            "expected the methods elbo, iwae or ais for a model with a latent, whose log p(x) has "
            "only bounds; got exact"
        )
    return [Exact(job)]


@final
class Exact(Work):
    """Compute log p(x) of each datum."""

    name = "exact"
    columns = 1

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.chunk = min(256, at_once(job.model.space))

    @torch.inference_mode()
    def compute(self, first: int) -> np.ndarray:
        model, batch = self.job.model, self.job.batch(first, self.chunk)
        # the only noise of such a model is that of dequantisation
        generator = torch_generator(self.job.device, self.job.seed, "evaluate", first)
        draws = model.draw(batch, noise=model.noise(1, len(batch), generator))
        return elbo(draws).double().unsqueeze(0).cpu().numpy()

    def finish(self, table: np.ndarray, done: Evaluation) -> Evaluation:
        job, nats = self.job, table[0]
        estimate = Estimate(
            "exact",
            nats,
            side="exact",
            measure=job.model.space.measure,
            k=1,
            how="exact, without a latent",
            cells=cells_of(job, len(nats)),
            seconds=self.seconds,
            given=job.given,
            details=of_tokens(job, nats),
        )
        return replace(
            done, estimates=(*done.estimates, estimate), rate=0.0, distortion=-float(nats.mean())
        )
