"""Objectives: bounds on log p(x), and the losses that are computed from them.

Training, evaluation and diagnosis call the same bounds. An objective combines a bound, an estimator
of its gradient, a schedule of beta, a term that replaces the rate, and penalties.
"""

from vaestro.objectives.base import Loss, Scores, TrainingObjective
from vaestro.objectives.bounds import BOUNDS, ciwae, elbo, iwae, miwae
from vaestro.objectives.objective import (
    Objective,
    ciwae_objective,
    elbo_objective,
    iwae_objective,
    miwae_objective,
)
from vaestro.schedules import Beta, Ramp, Schedule

__all__ = [
    "BOUNDS",
    "Beta",
    "Loss",
    "Objective",
    "Ramp",
    "Schedule",
    "Scores",
    "TrainingObjective",
    "ciwae",
    "ciwae_objective",
    "elbo",
    "elbo_objective",
    "iwae",
    "iwae_objective",
    "miwae",
    "miwae_objective",
]
