"""Measure PSNR and SSIM of the reconstructions of images."""

from __future__ import annotations

import numpy as np

from vaestro.data import Rows
from vaestro.evaluation.bounds import affordable
from vaestro.evaluation.fidelity import WINDOW, Fidelity, psnr, ssim
from vaestro.latent.outputs import reconstruct
from vaestro.models import Model
from vaestro.spaces import Space

MOST, FEWEST = 1000, 20  # number of images
PART = 2_000_000  # cells at a time


def fidelity(model: Model, rows: Rows) -> Fidelity | None:
    """Return PSNR and SSIM of the mean of p(x | z) at the code of each image.

    None for other data than images, for images with missing cells or categories, and for models
    without a latent.

    Args:
        model: a trained model.
        rows: held-out data, of which up to 1,000 are used, evenly spaced.

    >>> import vaestro as vs
    >>> data = vs.load("shapes:n=40,size=16")
    >>> fidelity(vs.build(data.space, latent=2), data.test).psnr.shape
    (2,)
    """
    space = model.space
    unfit = space.layout.name != "image" or not space.has_mean or model.capabilities.exact
    if unfit or not len(rows) or rows.observed is not None:
        return None
    rows = rows.spread(max(FEWEST, min(MOST, affordable(model)))).fixed()
    data, means = (
        np.moveaxis(space.layout.inward(np.asarray(x), space.shape, space.outside), 1, -1)
        for x in (rows.outward(), reconstruct(model, rows, dtype="float"))
    )
    if space.probabilities:
        data = (data.astype(np.float64) - space.low) / space.step
    span, of = _span(space, data)
    if not span > 0:
        return None
    tall = min(space.shape[1:]) >= WINDOW
    every = max(1, PART // space.cells)
    parts = [slice(i, i + every) for i in range(0, len(data), every)]
    similar = [ssim(data[part], means[part], span) for part in parts] if tall else []
    return Fidelity(
        np.concatenate([psnr(data[part], means[part], span) for part in parts]),
        np.concatenate(similar) if tall else None,
        span,
        of,
    )


def _span(space: Space, data: np.ndarray) -> tuple[float, str]:
    """Return the range of the data, and where it is from."""
    if space.probabilities:
        return 1.0, "that of probabilities"
    if space.levels:
        return float(space.step * (space.levels - 1)), "that of the levels"
    return float(data.max() - data.min()), "that of these images"
