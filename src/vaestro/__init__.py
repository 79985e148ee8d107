"""Train variational autoencoders, measure how good they are, and use their latent space.

Names are imported when first used, so that `import vaestro` is fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Batch": "spaces",
    "Space": "spaces",
    "VAE": "models",
    "Draws": "models",
    "LatentModel": "models",
    "Model": "models",
    "Objective": "objectives",
    "Ramp": "objectives",
    "elbo": "objectives",
    "iwae": "objectives",
    "build": "parts",
    "Data": "data",
    "load": "data",
    "training": "loop",
    "evaluate": "runs.evaluating",
    "Estimate": "evaluation",
    "Diagnosis": "diagnosis",
    "Finding": "diagnosis",
    "Run": "runs",
    "Session": "runs.session",
    "open": "runs.session",
    "train": "runs",
    "fit": "runs",
    "resume": "runs",
    "fit_prior": "prior_fitting",
    "compare": "comparison",
    "Comparison": "comparison",
    "write_report": "report",
    "Explorer": "explorer",
    "explore": "explorer",
}
_MODULES = (
    "spaces",
    "densities",
    "posteriors",
    "priors",
    "likelihoods",
    "networks",
    "models",
    "gradients",
    "objectives",
    "optimizers",
    "parts",
    "schedules",
    "penalties",
    "recipes",
    "flows",
    "latent",
)
_ALIASES = {"latents": "latent"}

__all__ = ["__version__", *_HOMES]

if TYPE_CHECKING:
    from vaestro import latent as latents
    from vaestro.comparison import Comparison, compare
    from vaestro.data import Data, load
    from vaestro.diagnosis import Diagnosis, Finding
    from vaestro.evaluation import Estimate
    from vaestro.explorer import Explorer, explore
    from vaestro.loop import training
    from vaestro.models import VAE, Draws, LatentModel, Model
    from vaestro.objectives import Objective, Ramp, elbo, iwae
    from vaestro.parts import build
    from vaestro.prior_fitting import fit_prior
    from vaestro.report.gather import write_report
    from vaestro.runs import Run, fit, resume, train
    from vaestro.runs.evaluating import evaluate
    from vaestro.runs.session import Session, open
    from vaestro.spaces import Batch, Space


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"vaestro.{_HOMES[name]}"), name)
    module = _ALIASES.get(name, name)
    if module in _MODULES:
        return importlib.import_module(f"vaestro.{module}")
    raise AttributeError(f"module 'vaestro' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES, *_ALIASES})
