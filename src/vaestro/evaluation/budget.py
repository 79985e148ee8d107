"""How many data and draws an evaluation of some seconds can have, and which of the two is cut
first."""

from __future__ import annotations

import numpy as np

from vaestro.data import Rows
from vaestro.evaluation.bounds import affordable
from vaestro.evaluation.methods import evaluate
from vaestro.models import Model

MOST = 1000  # data
FEWEST = 100  # data that the draws leave room for
LEAST = 20  # data that are evaluated with one draw each, whatever it takes
PILOT_ROWS, PILOT_DRAWS = 16, 4
PILOT_SHARE = 0.1  # of the time
NEAR_ONE = 2.0  # effective draws: one draw carries the bound, and further ones add little to it


def within_seconds(model: Model, rows: Rows, k: int) -> tuple[int, int]:
    """Return how many draws for how many data make an evaluation of seconds: at most k, and at most
    1,000 data.

    Where time is short and the effective number of draws of a few data is near one, draws are cut
    before data, because the error of the mean falls with the number of data while further draws
    leave the bound where it is. Else at least 100 data are kept.
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
    """Tell whether one draw carries the bound of half of the data, from a few of them; taken as
    given where even that takes too long."""
    draws = min(k, int(PILOT_SHARE * passes / PILOT_ROWS))
    if draws < min(k, PILOT_DRAWS):
        return True
    ess = evaluate(model, rows, k=draws, methods="iwae", limit=min(len(rows), PILOT_ROWS))[
        "iwae"
    ].ess
    return ess is not None and float(np.median(ess)) < NEAR_ONE
