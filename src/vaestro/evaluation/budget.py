"""The number of data and draws for an evaluation that takes a few seconds."""

from __future__ import annotations

import numpy as np

from vaestro.data import Rows
from vaestro.evaluation.bounds import affordable
from vaestro.evaluation.methods import evaluate
from vaestro.models import Model

MOST = 1000  # maximum number of data
FEWEST = 100  # minimum number of data, if necessary with fewer draws
LEAST = 20  # minimum number of data with one draw each, for any cost
PILOT_ROWS, PILOT_DRAWS = 16, 4
PILOT_SHARE = 0.1  # of the time
NEAR_ONE = 2.0  # effective draws below which further draws hardly raise the bound


def within_seconds(model: Model, rows: Rows, k: int) -> tuple[int, int]:
    """Return (draws, data) for an evaluation of a few seconds: at most k draws and 1,000 data.

    If the model is slow and the effective number of draws is near one, the number of draws is
    reduced first: the error of the mean depends on the number of data, and further draws hardly
    raise the bound. Otherwise at least 100 data are kept.

    >>> import vaestro as vs
    >>> data = vs.load(np.eye(40, dtype="uint8"))
    >>> within_seconds(vs.build(data.space, latent=2), data.train, k=10)
    (10, 36)
    """
    passes, most = affordable(model), min(len(rows), MOST)
    if model.capabilities.exact:
        return 1, min(most, max(LEAST, passes))
    if passes >= k * most:
        return k, most
    limit = most if _near_one(model, rows, k, passes) else min(most, max(FEWEST, passes // k))
    limit = min(limit, max(LEAST, passes))
    return min(k, max(1, passes // limit)), limit


def _near_one(model: Model, rows: Rows, k: int, passes: int) -> bool:
    """Return whether the median effective number of draws of a few data is near one; True if the
    model is too slow to measure it."""
    draws = min(k, int(PILOT_SHARE * passes / PILOT_ROWS))
    if draws < min(k, PILOT_DRAWS):
        return True
    ess = evaluate(model, rows, k=draws, methods="iwae", limit=min(len(rows), PILOT_ROWS))[
        "iwae"
    ].ess
    return ess is not None and float(np.median(ess)) < NEAR_ONE
