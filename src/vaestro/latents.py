"""Put the latent space to work: encode a set, decode, reconstruct, sample."""

from __future__ import annotations

import numpy as np
import torch

from vaestro.data import Rows
from vaestro.densities import Categorical, Density, Kind, Space
from vaestro.model import LatentModel
from vaestro.randomness import torch_generator

CHUNK = 512


@torch.inference_mode()
def encode(model: LatentModel, rows: Rows, *, draws: int = 0, seed: int = 0) -> dict[str, np.ndarray]:
    """Return `mean` and `logvar` of q(z | x) for each datum, each (N, *Z); with `draws`, also `z` (draws, N, *Z).

    The code of a datum is the mean, which does not change from call to call; a draw is one only where asked for.
    """
    means, logvars, zs = [], [], []
    device = next(model.parameters()).device
    for i, batch in enumerate(rows.fixed().chunks(CHUNK, device)):
        code = model.code(batch)
        means.append(code.mean.cpu())
        if code.logvar is not None:
            logvars.append(code.logvar.cpu())
        if draws:
            zs.append(model.draw(batch, draws, noise=model.noise(draws, len(batch), torch_generator(device, seed, "encode", i))).z.cpu())
    out = {"mean": torch.cat(means).numpy()}
    if logvars:
        out["logvar"] = torch.cat(logvars).numpy()
    if draws:
        out["z"] = torch.cat(zs, 1).numpy()
    return out


@torch.inference_mode()
def decode(model: LatentModel, z: np.ndarray, *, sample: bool = False, seed: int = 0) -> np.ndarray:
    """Return the likelihood's mean at latents (N, *Z), or a draw from it, in the user's layout and units.

    For binary data the mean is a probability, for levels an expected level; for categories it is the most probable value.

    Raises:
        ValueError: the latents are of another shape, or not finite.
    """
    z = np.asarray(z)
    if z.dtype.kind not in "iuf" or z.shape[1:] != tuple(model.units):
        raise ValueError(f"expected latents of shape (N, {', '.join(map(str, model.units))}); got {z.dtype} {z.shape}")
    if not len(z) or not np.isfinite(z).all():
        raise ValueError(f"expected finite latents; got {'none' if not len(z) else 'NaN or infinite values'}")
    parameter = next(model.parameters())
    out = []
    for i in range(0, len(z), CHUNK):
        chunk = torch.from_numpy(np.ascontiguousarray(z[i : i + CHUNK])).to(parameter)
        generator = torch_generator(parameter.device, seed, "decode", i) if sample else None
        out.append(values(model.decode(chunk), model.space, sample=sample, generator=generator))
    return np.concatenate(out)


def reconstruct(model: LatentModel, rows: Rows) -> np.ndarray:
    """Return the likelihood's mean at each datum's code, in the user's layout and units."""
    return decode(model, encode(model, rows)["mean"])


@torch.inference_mode()
def sample(model: LatentModel, n: int, *, temperature: float = 1.0, seed: int = 0, mean: bool = False) -> np.ndarray:
    """Draw n data from the model, (n, *outside), in the user's layout, units and dtype.

    Args:
        model: a trained model.
        n: how many.
        temperature: the prior's standard deviation is multiplied by this.
        seed: of the draws.
        mean: return the mean of p(x | z) at each drawn z in place of a draw from it.

    Raises:
        ValueError: n below 1, or a temperature that is not 0 or more.
    """
    if n < 1:
        raise ValueError(f"expected 1 or more samples; got {n}")
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"expected a temperature of 0 or more; got {temperature}")
    device = next(model.parameters()).device
    out = []
    for i in range(0, n, CHUNK):
        generator = torch_generator(device, seed, "sample", i)
        density = model.sample(min(CHUNK, n - i), temperature=temperature, generator=generator)
        out.append(values(density, model.space, sample=not mean, generator=generator))
    return np.concatenate(out)


def values(density: Density, space: Space, *, sample: bool, generator: torch.Generator | None = None) -> np.ndarray:
    """Turn p(x | z) with parameters (1, B, ...) into data in the user's layout: a draw, or the mean."""
    if sample:
        return space.outward(density.sample(generator)[0].cpu().numpy())  # type: ignore[attr-defined]
    if isinstance(density, Categorical) and space.kind is Kind.LEVELS:
        levels = torch.arange(space.levels, dtype=density.logits.dtype, device=density.logits.device)
        return space.outward(torch.tensordot(density.mean[0], levels, ([1], [0])).cpu().numpy(), exact=False)
    if isinstance(density, Categorical):
        return space.outward(density.mode[0].cpu().numpy())
    return space.outward(density.mean[0].cpu().numpy(), exact=False)
