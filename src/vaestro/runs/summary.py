"""A split, or the result of an evaluation, in one sentence."""

from __future__ import annotations

from collections.abc import Mapping

from vaestro import latent
from vaestro.data import Data, Rows
from vaestro.evaluation import evaluate, within_seconds
from vaestro.files import Json
from vaestro.models import Model
from vaestro.runs.independent import compared


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
