"""Encoder and decoder as modules from and to the user's values."""

from __future__ import annotations

from typing import final

import torch
import torch.nn as nn
from torch import Tensor

from vaestro.densities import DataDensity
from vaestro.models import LatentModel, Model, with_latent
from vaestro.spaces import Batch


@final
class EncoderGraph(nn.Module):
    """Map the user's values to the parameters of q(z | x).

    Args:
        model: a trained model of an array, without conditions.

    Raises:
        ValueError: the model cannot be exported; see `exportable`.

    >>> import numpy as np, vaestro as vs
    >>> data = vs.load(np.random.default_rng(0).normal(size=(100, 3)))
    >>> mean, logvar = EncoderGraph(vs.build(data.space, latent=2))(torch.zeros(5, 3))
    >>> mean.shape, logvar.shape
    (torch.Size([5, 2]), torch.Size([5, 2]))
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = exportable(model)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Return the names of the outputs: mean, and logvar if the family has one."""
        with torch.no_grad():
            out = self(torch.full((1, *self.model.space.outside), float(self.model.space.low)))
        return ("mean", "logvar")[: len(out)]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return mean and logvar of q(z | x), each (N, *Z), for values (N, *outside); missing
        cells are NaN. Families without a log-variance have the mean alone."""
        space, observed = self.model.space, None
        values = space.tensor_inward(x)
        if space.missing:
            observed = ~values.isnan()
            values = torch.where(observed, values, 0.0)
        code = self.model.code(Batch(values, observed))
        return (code.mean,) if code.logvar is None else (code.mean, code.logvar)


@final
class DecoderGraph(nn.Module):
    """Map latents to the mean of p(x | z) in the user's units.

    Binary data have probabilities, and categories the most probable one. Nothing is rounded.

    Args:
        model: a trained model of an array, without conditions.

    Raises:
        ValueError: the model cannot be exported; see `exportable`.

    >>> import numpy as np, vaestro as vs
    >>> data = vs.load(np.random.default_rng(0).normal(size=(100, 3)))
    >>> DecoderGraph(vs.build(data.space, latent=2))(torch.zeros(5, 2)).shape
    torch.Size([5, 3])
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = exportable(model)

    def forward(self, z: Tensor) -> Tensor:
        """Return means, (N, *outside), at latents (N, *Z)."""
        density = self.model.decode(z)
        point = density.point() if isinstance(density, DataDensity) else density.mean[0]
        return self.model.space.tensor_outward(point)


def exportable(model: Model) -> LatentModel:
    """Return a model that can be exported.

    Raises:
        ValueError: it has no latent, or conditions, or its data are no array of numbers.

    >>> import vaestro as vs
    >>> exportable(vs.build(vs.load({"size": [0.5, 1.5, 2.5] * 9}).space, latent=2))
    Traceback (most recent call last):
    ValueError: expected a run on an array of numbers to export; got ...
    """
    latent = with_latent(model)
    if latent.given is not None:
        raise ValueError(
            f"expected a run without conditions to export; got one with "
            f"{', '.join(latent.given.names)}"
        )
    space = latent.space
    if space.tabular or space.ragged:
        raise ValueError(f"expected a run on an array of numbers to export; got {space}")
    space.tensor_inward(torch.full((1, *space.outside), float(space.low)))
    return latent
