"""Estimates of log p(x), each with its side, its measure and its standard error; what lies between
them; what codes hold."""

from vaestro.evaluation.bounds import affordable, chunks, in_space
from vaestro.evaluation.budget import within_seconds
from vaestro.evaluation.methods import METHODS, evaluate, evaluating
from vaestro.evaluation.records import SIMULATED, Estimate, Evaluation, Gap, Information, plus_minus

__all__ = [
    "METHODS",
    "SIMULATED",
    "Estimate",
    "Evaluation",
    "Gap",
    "Information",
    "affordable",
    "chunks",
    "evaluate",
    "evaluating",
    "in_space",
    "plus_minus",
    "within_seconds",
]
