"""Paths between two codes: a straight line, a great circle, or short in the decoded data."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from vaestro.data import Rows
from vaestro.densities import Decoding
from vaestro.latent.codes import encode
from vaestro.latent.geodesics import geodesic, length
from vaestro.latent.outputs import UserData, decode, given_of
from vaestro.models import Model, with_latent
from vaestro.text import alternatives

# largest distance from 180 degrees, in radians, of codes that count as opposite: rounding would
# decide where the middle of their great circle lies
OPPOSITE = 1e-3
PATHS = ("linear", "spherical", "geodesic")
FINER = 4  # steps of a geodesic that is computed for each step that is returned


def interpolate(
    model: Model,
    rows: Rows,
    i: int,
    j: int,
    *,
    steps: int = 9,
    path: str = "linear",
    decoding: Decoding | None = None,
    dtype: str | None = None,
) -> UserData:
    """Decode codes on a path from one datum's code to another's, in the user's layout and units.

    Draws of a standard normal prior in many units lie near a sphere. The middle of a straight line
    between two of them does not, but the middle of their great circle does (White 2016).

    Args:
        model: a trained model with real latents.
        rows: the data. All codes are decoded with the conditions of row i.
        i, j: row numbers of the two ends, from 0.
        steps: the number of codes, including both ends.
        path: "linear"; "spherical": along the great circle, with lengths interpolated linearly; or
            "geodesic": short in the decoded means (see `latent.geodesics`).
        decoding, dtype: as for `decode`.

    Raises:
        ValueError: there is no such row, there are fewer than 2 steps, the path is unknown, latents
            are discrete, or there is no unique great circle.

    >>> import numpy as np, vaestro as vs
    >>> rows = vs.load(np.random.default_rng(0).normal(size=(100, 3))).test
    >>> interpolate(vs.build(rows.space, latent=2), rows, 0, 1, steps=5).shape
    (5, 3)
    """
    z = path_codes(model, rows, i, j, steps=steps, path=path)
    given = given_of(rows.fixed().pick(np.array([i])))
    return decode(
        model,
        z,
        given=None if given is None else given.expand(steps, -1),
        decoding=decoding,
        dtype=dtype,
    )


def path_codes(
    model: Model, rows: Rows, i: int, j: int, *, steps: int = 9, path: str = "linear"
) -> np.ndarray:
    """Return the codes of a path from one datum's code to another's, (steps, *Z); see
    `interpolate`.

    >>> import numpy as np, vaestro as vs
    >>> rows = vs.load(np.random.default_rng(0).normal(size=(100, 3))).test
    >>> path_codes(vs.build(rows.space, latent=2), rows, 0, 1, steps=5).shape
    (5, 2)
    """
    if model.alphabet:
        raise ValueError(
            "expected real latents to interpolate between; got discrete ones, which have no "
            "values in between"
        )
    if not (0 <= i < len(rows) and 0 <= j < len(rows)):
        raise ValueError(f"expected row numbers from 0 to {len(rows) - 1:,}; got {i} and {j}")
    if steps < 2 or path not in PATHS:
        raise ValueError(
            f"expected 2 or more steps on a path {alternatives(PATHS)}; got {steps} and {path!r}"
        )
    ends = rows.fixed().pick(np.array([i, j]))
    a, b = encode(model, ends)["mean"].astype(np.float64)
    if path != "geodesic":
        return between(a, b, steps, spherical=path == "spherical").astype(np.float32)
    fine = torch.from_numpy(between(a, b, FINER * (steps - 1) + 1).astype(np.float32))
    means = decoded_means(model, given_of(ends.pick(np.array([0]))))
    found = geodesic(means, fine.to(next(model.parameters()).device))
    return found[::FINER].cpu().numpy()


def decoded_length(model: Model, rows: Rows, i: int, codes: np.ndarray) -> float:
    """Return the length of a path of codes (S, *Z) in the decoder's metric: the sum of Euclidean
    distances between successive means of p(x | z), inside units, with the conditions of row i.

    Raises:
        ValueError: the data have no mean.

    >>> import numpy as np, vaestro as vs
    >>> rows = vs.load(np.random.default_rng(0).normal(size=(100, 3))).test
    >>> model = vs.build(rows.space, latent=2)
    >>> decoded_length(model, rows, 0, np.zeros((3, 2), np.float32)) < 1e-9
    True
    """
    means = decoded_means(model, given_of(rows.fixed().pick(np.array([i]))))
    return length(means, torch.from_numpy(codes).to(next(model.parameters()).device))


def decoded_means(model: Model, given: Tensor | None) -> Callable[[Tensor], Tensor]:
    """Return the map from codes (N, *Z) to means of p(x | z), (N, *X) inside.

    Args:
        model: a model with real latents.
        given: conditions of all codes, (1, G); None without.

    Raises:
        ValueError: the data have no mean.

    >>> import numpy as np, vaestro as vs
    >>> space = vs.load(np.random.default_rng(0).normal(size=(100, 3))).space
    >>> decoded_means(vs.build(space, latent=2), None)(torch.zeros(5, 2)).shape
    torch.Size([5, 3])
    """
    latent = with_latent(model)
    if latent.space.tabular or latent.space.ragged or not latent.space.has_mean:
        raise ValueError(
            f"expected data with a mean for the path geodesic; got {latent.space} (--path linear)"
        )

    def means(z: Tensor) -> Tensor:
        own = None if given is None else given.to(z.device).expand(len(z), -1)
        return latent.decode(z, own).mean[0]

    return means


def between(a: np.ndarray, b: np.ndarray, steps: int, *, spherical: bool = False) -> np.ndarray:
    """Return codes from a to b, each (*Z), as (steps, *Z), including both ends.

    Args:
        a, b: the ends.
        steps: the number of codes.
        spherical: follow the great circle instead of the straight line.

    Raises:
        ValueError: there is no unique great circle, because the codes are opposite or one is zero.

    >>> between(np.array([0.0, 1.0]), np.array([2.0, 1.0]), 3)
    array([[0., 1.],
           [1., 1.],
           [2., 1.]])
    """
    share = np.linspace(0, 1, steps).reshape(-1, *[1] * a.ndim)
    first, second = 1 - share, share
    if spherical:
        lengths = float(np.linalg.norm(a)), float(np.linalg.norm(b))
        # tan(angle / 2) from two lengths: exact near 0 and 180 degrees, where the cosine is flat
        one, other = (
            x / max(length, np.finfo(float).tiny) for x, length in zip((a, b), lengths, strict=True)
        )
        angle = 2 * math.atan2(
            float(np.linalg.norm(one - other)), float(np.linalg.norm(one + other))
        )
        if not min(lengths) > 0 and (a != b).any():
            raise ValueError(
                "expected codes with a great circle between them; got one at the origin (--path "
                "linear)"
            )
        if math.pi - angle < OPPOSITE:
            raise ValueError(
                "expected codes with one great circle between them; got opposite ones, between "
                "which there are many (--path linear)"
            )
        if angle > OPPOSITE:
            length = (1 - share) * lengths[0] + share * lengths[1]
            first = np.sin((1 - share) * angle) / np.sin(angle) * length / lengths[0]
            second = np.sin(share * angle) / np.sin(angle) * length / lengths[1]
    return np.asarray(first * a + second * b)
