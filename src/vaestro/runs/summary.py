"""A split, or the result of an evaluation, in one sentence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from vaestro import latent
from vaestro.data import Data, Rows
from vaestro.evaluation import evaluate, within_seconds
from vaestro.files import Json
from vaestro.models import Model
from vaestro.runs.independent import compared
from vaestro.runs.run import Run

if TYPE_CHECKING:
    from vaestro.runs.job import Job


def conclusion(job: Job) -> Iterator[str]:
    """Yield sentences on a finished training: its bound on held-out data with standard error, what
    independent cells achieve, and for images the closeness of reconstructions.

    >>> import numpy as np
    >>> from vaestro.runs import Job
    >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    >>> with Job.new(x, run="concluded", latent=2, steps=2) as job:
    ...     steps = list(job)
    >>> next(conclusion(job))[:11]
    'log p(x) >='
    """
    rows = job.data.test if len(job.data.test) else job.data.valid
    if not len(rows):
        only = describe(job.data.train, len(job.data.train))
        yield f"no held-out data to evaluate on: {only} only"
        return
    model = job.training.model
    yield from result(model, rows, data=job.data, config=job.run.config)
    if close := closeness(model, rows):
        yield close


def closing(job: Job) -> Iterator[str]:
    """Yield the summary of a finished training in Python: which weights were kept, the conclusion,
    the use of the latent, and what to do next.

    >>> import numpy as np
    >>> from vaestro.runs import Job
    >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    >>> with Job.new(x, run="closed", latent=2, steps=2) as job:
    ...     steps = list(job)
    >>> list(closing(job))[-1][:5]
    'Next:'
    """
    yield job.training.kept_sentence()
    yield from conclusion(job)
    if use := use_of_latent(job.run):
        yield use
    yield "Next: .diagnose() finds faults, .evaluate() bounds log p(x), .report() writes a page."


def use_of_latent(run: Run) -> str:
    """Return how many latent units a run uses at its last validation, in a sentence; "" if this is
    not known.

    >>> import numpy as np, vaestro as vs
    >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    >>> use_of_latent(vs.train(x, run="used", latent=2, steps=2))[-30:]
    ' of 2 latent units are active.'
    """
    lines = [record for record in run.metrics() if record.get("active_units") is not None]
    latent = run.options.get("latent")
    if not lines or latent is None:
        return ""
    return f"{lines[-1]['active_units']} of {latent} latent units are active."


def result(
    model: Model,
    rows: Rows,
    *,
    k: int = 100,
    data: Data | None = None,
    config: Mapping[str, Json] | None = None,
) -> list[str]:
    """Return the IWAE bound of a model, or its exact log-likelihood, in a sentence; with the data
    and the options of a run also what independent cells achieve.

    The evaluation takes some seconds.

    Args:
        model: a trained model.
        rows: held-out data, of which up to 1,000 are drawn at random.
        k: draws for each datum; fewer for large data.
        data, config: of the run.

    >>> import numpy as np, vaestro as vs
    >>> data = vs.load(np.random.default_rng(0).normal(size=(100, 3)))
    >>> result(vs.build(data.space, latent=2), data.test)[0][:11]
    'log p(x) >='
    """
    k, limit = within_seconds(model, rows, k)
    evaluation = evaluate(model, rows, k=k, methods=("iwae",), limit=limit)
    sentences = [evaluation.estimates[0].sentence(describe(rows, limit))]
    if data is not None and config is not None and config["model"] != "independent":
        device = str(next(model.parameters()).device)
        sentences.append(compared(evaluation, data, rows, config, device).sentence())
    return sentences


def closeness(model: Model, rows: Rows) -> str:
    """Return PSNR and SSIM of the reconstructions of images in a sentence; "" for other data.

    >>> import vaestro as vs
    >>> data = vs.load("shapes:n=40,size=16")
    >>> closeness(vs.build(data.space, latent=2), data.test)[:21]
    'reconstructions: PSNR'
    """
    close = latent.fidelity(model, rows)
    return "" if close is None else close.sentence(_evenly(rows, len(close.psnr)))


def _evenly(rows: Rows, n: int) -> str:
    """Return n evenly spaced ones of some rows in words."""
    return describe(rows, n).replace("drawn at random", "evenly spaced")


def describe(rows: Rows, n: int) -> str:
    """Return n of some rows in words.

    >>> import numpy as np, vaestro as vs
    >>> rows = vs.load(np.random.default_rng(0).normal(size=(100, 3))).train
    >>> describe(rows, 90), describe(rows, 10)
    ('90 train data', '10 of 90 train data, drawn at random')
    """
    what = rows.space.layout.noun
    return (
        f"{n:,} {rows.name} {what}"
        if n == len(rows)
        else f"{n:,} of {len(rows):,} {rows.name} {what}, drawn at random"
    )
