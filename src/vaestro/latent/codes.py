"""Codes of data: the parameters of q(z | x), and draws from it."""

from __future__ import annotations

from typing import final

import numpy as np
import torch

from vaestro.data import Rows
from vaestro.models import Model, with_latent
from vaestro.randomness import torch_generator

KEPT = 16  # number of sets of rows whose codes are cached


@torch.inference_mode()
def encode(model: Model, rows: Rows, *, draws: int = 0, seed: int = 0) -> dict[str, np.ndarray]:
    """Return `mean` and `logvar` of q(z | x), each (N, *Z); with `draws`, also `z` (draws, N, *Z).

    The code of a datum is the mean, which is the same at every call. There is no `logvar` for
    families without one.

    Args:
        model: a trained model.
        rows: data of the model's space, N rows.
        draws: the number of draws from q(z | x) for each datum.
        seed: of the draws.

    Raises:
        ValueError: the model has no latent.

    >>> import numpy as np, vaestro as vs
    >>> rows = vs.load(np.random.default_rng(0).normal(size=(100, 3))).train
    >>> codes = encode(vs.build(rows.space, latent=2), rows, draws=4)
    >>> {name: values.shape for name, values in codes.items()}
    {'mean': (90, 2), 'logvar': (90, 2), 'z': (4, 90, 2)}
    """
    model = with_latent(model)
    means, logvars, zs = [], [], []
    device = next(model.parameters()).device
    for i, batch in enumerate(rows.fixed().chunks(model.space.chunk, device)):
        code = model.code(batch)
        means.append(code.mean.cpu())
        if code.logvar is not None:
            logvars.append(code.logvar.cpu())
        if draws:
            generator = torch_generator(device, seed, "encode", i)
            noise = model.noise(draws, len(batch), generator)
            zs.append(model.draw(batch, draws, noise=noise).z.cpu())
    out = {"mean": torch.cat(means).numpy()}
    if logvars:
        out["logvar"] = torch.cat(logvars).numpy()
    if draws:
        out["z"] = torch.cat(zs, 1).numpy()
    return out


def settled(model: Model, mean: np.ndarray) -> np.ndarray:
    """Return the latents to decode for codes (N, *Z): the means, or the most probable values of
    discrete latents.

    >>> import numpy as np, vaestro as vs
    >>> space = vs.load(np.random.default_rng(0).normal(size=(100, 3))).space
    >>> model = vs.build(space, latent=2, posterior="bernoulli")
    >>> settled(model, np.array([[0.2, 0.9]]))
    array([[0., 1.]])
    """
    if not model.alphabet:
        return mean
    if model.alphabet == 1:
        return (mean > 0.5).astype(mean.dtype)
    groups = mean.reshape(len(mean), -1, model.alphabet, *mean.shape[2:])
    numbers = np.arange(model.alphabet).reshape(1, 1, -1, *[1] * (mean.ndim - 2))
    one_hot = groups.argmax(2, keepdims=True) == numbers
    return one_hot.astype(mean.dtype).reshape(mean.shape)


@final
class Codes:
    """Encode rows with one model, and keep the codes of the last sets of rows.

    Rows with the same values, mask and conditions are encoded once. Rows of a stream are encoded at
    every call, because comparing them means reading them.

    Args:
        model: a trained model, whose weights stay as they are.

    >>> import numpy as np, vaestro as vs
    >>> rows = vs.load(np.random.default_rng(0).normal(size=(100, 3))).train
    >>> codes = Codes(vs.build(rows.space, latent=2))
    >>> codes(rows)["mean"] is codes(rows)["mean"]
    True
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self._kept: dict[str, dict[str, np.ndarray]] = {}

    def __call__(self, rows: Rows) -> dict[str, np.ndarray]:
        """Return `mean` and `logvar` of q(z | x), each (N, *Z), as read-only arrays."""
        rows = rows.fixed()
        key = rows.sha256() if rows.stream is None else None
        codes = None if key is None else self._kept.pop(key, None)
        if codes is None:
            codes = encode(self.model, rows)
            for values in codes.values():
                values.flags.writeable = False
        if key is not None:
            self._kept[key] = codes
        for oldest in list(self._kept)[:-KEPT]:
            del self._kept[oldest]
        return codes


def means_of(model: Model, rows: Rows, codes: Codes | None = None) -> np.ndarray:
    """Return the codes of rows, (N, *Z), from `codes` if it is given.

    >>> import numpy as np, vaestro as vs
    >>> rows = vs.load(np.random.default_rng(0).normal(size=(100, 3))).test
    >>> means_of(vs.build(rows.space, latent=2), rows).shape
    (5, 2)
    """
    return (encode(model, rows) if codes is None else codes(rows))["mean"]
