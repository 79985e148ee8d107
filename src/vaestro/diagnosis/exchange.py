"""Does the decoder use z? Decode data with other codes than their own, and compare distortions."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vaestro.data import Rows
from vaestro.diagnosis.statistics import Paired, combined, rank_test
from vaestro.models import LatentModel
from vaestro.randomness import numpy_generator, torch_generator

# Number of distortions with another datum's z: at least in all, and at most for one datum.
EXCHANGED, MOST_OTHERS = 4000, 16
# Number of constant codes that are compared, and of training rows on which they are.
CONSTANTS, CONSTANT_ROWS = 15, 500


@torch.inference_mode()
def distortions(model: LatentModel, rows: Rows, z: Tensor, seed: int) -> np.ndarray:
    """Return -log p(x | z) of each of N rows at given latents (N, *Z): (N,), float64.

    >>> import vaestro as vs
    >>> data = vs.load(np.eye(10, dtype="uint8").repeat(20, 0))
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> distortions(model, data.valid, torch.zeros(10, 2), seed=0).shape
    (10,)
    """
    parts, first = [], 0
    for i, batch in enumerate(rows.chunks(model.space.chunk, z.device)):
        jitter = model.parts(
            model.noise(1, len(batch), torch_generator(z.device, seed, "diagnose", i))
        )[1]
        log_px, _ = model.log_terms(batch, z[first : first + len(batch)].unsqueeze(0), jitter)
        parts.append(-log_px[0])
        first += len(batch)
    return torch.cat(parts).double().cpu().numpy()


def derangement(n: int, seed: int, shift: int = 1) -> np.ndarray:
    """Return a permutation of n places without fixed points: a cycle in random order, taken `shift`
    times (n > shift).

    >>> sorted(derangement(4, 0).tolist()), bool((derangement(4, 0) == np.arange(4)).any())
    ([0, 1, 2, 3], False)
    """
    order = numpy_generator(seed, "diagnose", "other").permutation(n)
    permutation = np.empty(n, np.int64)
    permutation[order] = np.roll(order, shift)
    return permutation


@torch.inference_mode()
def use_of_code(
    model: LatentModel, sets: list[Rows], tests: list[int], passes: int, seed: int
) -> Paired:
    """Return the increase of the distortion with other data's z, and the p-value of the rank test.

    Args:
        model: the model.
        sets: independent sets of rows.
        tests: for each set, the number of validations from which the weights were selected. Its
            p-value is corrected for that.
        passes: number of latents that may be decoded.
        seed: seed of the draws.

    >>> import vaestro as vs
    >>> data = vs.load(np.eye(10, dtype="uint8").repeat(20, 0))
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> use_of_code(model, [data.valid], [0], passes=1000, seed=0).n
    10
    """
    parts = [_exchanged(model, rows, passes, seed) for rows in sets]
    p = combined([rank_test([part]) for part in parts], tests)
    return Paired.of(np.concatenate([others.mean(0) - own for others, own in parts]), p=p)


@torch.inference_mode()
def gain_over_constant(
    model: LatentModel, training: Rows, sets: list[Rows], beta: float, seed: int
) -> Paired | None:
    """Return the gain in the objective over the best code that is the same for all data.

    The candidates are some draws of the prior, and its mean. The best for training rows is used.
    None if the prior depends on conditions.

    >>> import vaestro as vs
    >>> data = vs.load(np.eye(10, dtype="uint8").repeat(20, 0))
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> gain_over_constant(model, data.train, [data.valid], beta=1.0, seed=0).n
    10
    """
    device = next(model.parameters()).device
    some = training.spread(CONSTANT_ROWS)
    batch = some.batch(slice(0, 1), device)
    draws = model.draw(batch, 1, noise=model.noise(1, 1, torch_generator(device, seed, "worth")))
    if not draws.shared_prior:
        return None
    candidates = [model.draw_prior(CONSTANTS, None, torch_generator(device, seed, "worth prior"))]
    if not model.alphabet:
        candidates.append(torch.zeros_like(candidates[0][:1]))
    constants = torch.cat(candidates)
    costs = [
        distortions(model, some, z.expand(len(some), *z.shape), seed).mean() for z in constants
    ]
    best = constants[int(np.argmin(costs))]
    gains = []
    for rows in sets:
        base, first = distortions(model, rows, best.expand(len(rows), *best.shape), seed), 0
        k = max(1, min(MOST_OTHERS, EXCHANGED // len(rows)))
        for i, batch in enumerate(rows.chunks(model.space.chunk, device)):
            draws = model.draw(
                batch,
                k,
                noise=model.noise(k, len(batch), torch_generator(device, seed, "worth", i)),
            )
            cost = (draws.distortion + beta * draws.total_rate).double().cpu().numpy()
            gains.append(base[first : first + len(cost)] - cost)
            first += len(cost)
    return Paired.of(np.concatenate(gains))


def _exchanged(
    model: LatentModel, rows: Rows, passes: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the distortion of each of N data with the z of R other data (R, N), and with its own
    z (N,)."""
    device = next(model.parameters()).device
    n = len(rows)
    repeats = int(max(1, min(n - 1, MOST_OTHERS, EXCHANGED // n, passes // (4 * n))))
    z, own, shared = [], [], True
    for i, batch in enumerate(rows.chunks(model.space.chunk, device)):
        draws = model.draw(
            batch, 1, noise=model.noise(1, len(batch), torch_generator(device, seed, "diagnose", i))
        )
        z.append(draws.z[0])
        own.append(draws.distortion)
        shared = shared and draws.shared_prior
    codes = torch.cat(z)
    others = []
    for shift in range(1, repeats + 1):
        if shared:
            other = codes[torch.from_numpy(derangement(n, seed, shift)).to(device)]
        else:  # Another datum's z would also differ by its conditions: draw from the prior.
            other = torch.cat(
                [
                    model.draw_prior(
                        len(batch),
                        batch.given,
                        torch_generator(device, seed, "diagnose prior", shift, i),
                    )
                    for i, batch in enumerate(rows.chunks(model.space.chunk, device))
                ]
            )
        others.append(distortions(model, rows, other, seed))
    return np.stack(others), torch.cat(own).double().cpu().numpy()
