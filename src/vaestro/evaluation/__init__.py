"""Estimates of log p(x), each with its side, its measure and its standard error; the gap between
them; the information in codes; drawn rows against real ones.

Names are loaded when first used, so that reading an evaluation does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

_HOMES = {
    "METHODS": "methods",
    "SIMULATED": "records",
    "Estimate": "records",
    "Evaluation": "records",
    "Gap": "records",
    "Independent": "records",
    "Information": "records",
    "affordable": "bounds",
    "chunks": "bounds",
    "compares_with_training": "methods",
    "evaluate": "methods",
    "evaluating": "methods",
    "in_space": "bounds",
    "plus_minus": "records",
    "within_seconds": "budget",
}

__all__ = [
    "METHODS",
    "SIMULATED",
    "Estimate",
    "Evaluation",
    "Gap",
    "Independent",
    "Information",
    "affordable",
    "chunks",
    "compares_with_training",
    "evaluate",
    "evaluating",
    "in_space",
    "plus_minus",
    "within_seconds",
]

if TYPE_CHECKING:
    from vaestro.evaluation.bounds import affordable, chunks, in_space
    from vaestro.evaluation.budget import within_seconds
    from vaestro.evaluation.methods import METHODS, compares_with_training, evaluate, evaluating
    from vaestro.evaluation.records import (
        SIMULATED,
        Estimate,
        Evaluation,
        Gap,
        Independent,
        Information,
        plus_minus,
    )


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(importlib.import_module(f"vaestro.evaluation.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'vaestro.evaluation' has no attribute {name!r}")
