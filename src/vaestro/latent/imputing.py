"""Fill missing cells given the observed ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from vaestro.data import Rows
from vaestro.data.containers import container_of
from vaestro.data.series.record import ended, ends_of
from vaestro.densities import DataDensity
from vaestro.frames import Frame
from vaestro.latent.outputs import UserData
from vaestro.models import Draws, LatentModel, Model, with_latent
from vaestro.randomness import torch_generator
from vaestro.spaces import Batch
from vaestro.written import check_dtype


@torch.inference_mode()
def impute(
    model: Model,
    rows: Rows,
    *,
    k: int = 100,
    sample: bool = False,
    seed: int = 0,
    dtype: str | None = None,
    original: np.ndarray | Frame | None = None,
) -> UserData:
    """Fill missing cells, in the user's layout, units and dtype. Observed cells do not change.

    Draws from q(z | x) have weights w = p(x observed, z) / q(z | x), so that values follow
    p(missing | observed) and not q alone (Rezende, Mohamed and Wierstra 2014; Mattei and Frellsen
    2019). Cells are assumed to be missing at random. Cells after the end of a series stay
    NaN.

    Args:
        model: a trained model.
        rows: data with missing cells.
        k: draws of z for each datum.
        sample: fill in a draw, from one z resampled by its weight, instead of the weighted mean
            (for categories the most probable value).
        seed: of the draws.
        dtype: "float" for unrounded means; by default they are rounded to values of the data.
        original: the same rows in the user's layout, from which observed cells are copied
            exactly. By default they are computed from the transformed values in float32.

    Raises:
        ValueError: k is below 1, or the data are texts, which have no missing cells.

    >>> import vaestro as vs
    >>> rows = vs.load({"size": [0.5, None, 2.5, 1.1] * 25, "age": [3, 1, 4, 1] * 25}).train
    >>> impute(vs.build(rows.space, latent=2), rows, k=5).columns["size"].count() == len(rows)
    True
    """
    check_dtype(dtype, draws=sample)
    if sample:
        return imputations(model, rows, 1, k=k, seed=seed, original=original)[0]

    def mean(model: LatentModel, batch: Batch, draws: Draws, _: int) -> Tensor:
        assert batch.observed is not None and isinstance(draws.px, DataDensity)
        weights = torch.softmax(draws.log_w, 0)
        return draws.px.conditioned(batch.x, batch.observed).point(weights).unsqueeze(0)

    return _filled(model, rows, k, seed, mean, 1, dtype, original)[0]


@torch.inference_mode()
def imputations(
    model: Model,
    rows: Rows,
    n: int,
    *,
    k: int = 100,
    seed: int = 0,
    original: np.ndarray | Frame | None = None,
) -> list[UserData]:
    """Fill missing cells n times, each time by a draw from p(missing | observed): multiple
    imputation (Rubin 1987), whose spread is the uncertainty of the missing cells.

    Each draw uses one z of the k draws, resampled by its weight.

    Args:
        model, rows, k, seed, original: see `impute`.
        n: number of imputations. The first one is that of `impute(..., sample=True)`.

    Raises:
        ValueError: n or k is below 1, or the data are texts.

    >>> import vaestro as vs
    >>> rows = vs.load({"size": [0.5, None, 2.5, 1.1] * 25, "age": [3, 1, 4, 1] * 25}).train
    >>> filled = imputations(vs.build(rows.space, latent=2), rows, 3, k=5)
    >>> len(filled), filled[0].columns["size"].count() == len(rows)
    (3, True)
    """
    if n < 1:
        raise ValueError(f"expected n of 1 or more imputations; got {n}")

    def drawn(model: LatentModel, batch: Batch, draws: Draws, i: int) -> Tensor:
        purposes = [("impute draw", i), *(("impute draw", i, j) for j in range(1, n))]
        device = batch.x.device
        generators = [torch_generator(device, seed, *purpose) for purpose in purposes]
        return torch.stack([_drawn(model, batch, draws, g) for g in generators])

    return _filled(model, rows, k, seed, drawn, n, None, original)


def _filled(
    model: Model,
    rows: Rows,
    k: int,
    seed: int,
    fill: Callable[[LatentModel, Batch, Draws, int], Tensor],
    n: int,
    dtype: str | None,
    original: np.ndarray | Frame | None,
) -> list[UserData]:
    """Return n copies of the rows with their missing cells taken from `fill`, which returns the
    values of a batch (n, B, *X) from the draws of z and the batch's number."""
    if model.space.tokeniser is not None:
        raise ValueError("expected data that can have missing cells; got texts")
    model = with_latent(model)
    if k < 1:
        raise ValueError(f"expected k of 1 or more draws; got {k}")
    if rows.observed is None:
        return [rows.fixed().outward() if original is None else original] * n
    device, space = next(model.parameters()).device, model.space
    pieces = []
    for i, batch in enumerate(rows.fixed().chunks(max(1, space.chunk // min(k, 32)), device)):
        assert batch.observed is not None
        generator = torch_generator(device, seed, "impute", i)
        draws = model.draw(batch, k, noise=model.noise(k, len(batch), generator))
        x = fill(model, batch, draws, i)
        pieces.append(torch.where(batch.observed, batch.x.to(x.dtype), x).cpu().numpy())
    filled = []
    for x in np.concatenate(pieces, 1):
        complete = space.outward(x, exact=dtype != "float")
        if dtype == "float" and space.probabilities:  # written as expected values
            complete = complete * space.step + space.low
        if model.lengths is not None:
            ends = ends_of(rows.observed if rows.index is None else rows.observed[rows.index])
            complete = ended(complete, ends, space)
        if original is not None:
            complete = container_of(original).merged(
                original, space.limited(complete), space.absent
            )
        filled.append(complete)
    return filled


def _drawn(
    model: LatentModel, batch: Batch, draws: Draws, generator: torch.Generator | None
) -> Tensor:
    """Return a draw from p(missing | observed) for each datum, (B, *X): resample one z by its
    weight, then draw from p(x | z)."""
    assert batch.observed is not None
    weights = torch.softmax(draws.log_w, 0)
    index = torch.multinomial(weights.T, 1, generator=generator).T  # (1, B)
    index = index.view(1, -1, *[1] * (draws.z.ndim - 2)).expand(1, *draws.z.shape[1:])
    px = model.decode(draws.z.gather(0, index)[0], batch.given)
    assert isinstance(px, DataDensity)
    return px.conditioned(batch.x, batch.observed).sample(generator)[0]
