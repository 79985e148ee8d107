"""A run's folder: its options, the log, the weights, and the results.

    RUN/config.yaml            every option, resolved; `vaestro train --config RUN/config.yaml`
                               repeats the run
    RUN/metrics.jsonl          one line for each logged record
    RUN/data.json              the number of data in each split, and their hashes
    RUN/environment.json       the machine and the versions of the libraries
    RUN/config.json            the model's configuration
    RUN/model.safetensors      the weights in use
    RUN/kept.json              the step of these weights, and why they were kept
    RUN/checkpoints/           complete states for resuming; the last two are kept
    RUN/evaluation.json, .npz  bounds on held-out data
    RUN/diagnosis.json, .npz   findings, and the information in each latent unit
    RUN/gradients.json, .png   the noise of each gradient estimator on the run's model and data
    RUN/failure.json           why training failed, if it did
    RUN/manifest.txt           the names that Vaestro wrote, which alone are removed with a run
    RUN/lock                   the process that trains the run, while it does
    RUN/showcase.json, .npz    the data, samples and codes that the report shows; RUN/report.html

Weights are tensors only, and nothing is ever unpickled. Names are imported when first used, so that
reading a run's folder does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

_HOMES = {
    "Run": "run",
    "Job": "job",
    "train": "training",
    "fit": "training",
    "resume": "training",
    "load_model": "weights",
    "closeness": "summary",
    "describe": "summary",
    "result": "summary",
    "machine": "folder",
}

__all__ = [*_HOMES]

if TYPE_CHECKING:
    from vaestro.runs.folder import machine
    from vaestro.runs.job import Job
    from vaestro.runs.run import Run
    from vaestro.runs.summary import closeness, describe, result
    from vaestro.runs.training import fit, resume, train
    from vaestro.runs.weights import load_model


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(importlib.import_module(f"vaestro.runs.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'vaestro.runs' has no attribute {name!r}")
