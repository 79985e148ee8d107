"""Densities over data and latents, their closed-form KL, and the description of what the data are.

Everything ever computed about a VAE is a function of three log-densities at K draws for each of B data:

    z_k ~ q(z | x)        log w_k = log p(x | z_k) + log p(z_k) - log q(z_k | x)        each (K, B), in nats

A density here offers what torch.distributions offers (`sample`, `log_prob`, `mean`), with two additions: latents are
made from noise that is drawn outside (`from_noise`), and data densities take a mask of the cells that were observed.
Trailing dimensions of one datum are summed; leading ones broadcast, so that values (B, *X) are scored under
parameters (K, B, *X) without being copied K times.

The KL of a normal to the standard normal, for each latent unit (Kingma and Welling 2014, appendix B):

    KL(N(mean, std^2) || N(0, 1)) = (std^2 + mean^2 - 1 - log std^2) / 2
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

LOG_2PI = math.log(2 * math.pi)
SOFTPLUS_EXACT = 50  # torch's default threshold of 20 costs 2e-9 a pixel in float64; at 50 it is exact in both precisions


def log_mean_exp(x: Tensor, dim: int = 0) -> Tensor:
    """Return log(mean(exp(x))) along `dim`, without overflow; all -inf gives -inf."""
    return torch.logsumexp(x, dim) - math.log(x.shape[dim])


def soft_limit(x: Tensor, limit: float) -> Tensor:
    """Map any real number smoothly and strictly increasingly into (-limit, limit): x / (1 + |x| / limit).

    Near zero it is the identity. A network may ask for a log-variance of -1e9 or 1e9: the variance stays finite and
    positive, and the derivative 1 / (1 + |x| / limit)^2, unlike that of a clamp, is never zero, so that gradient
    descent can lead back. (In float32 it is lost to rounding only beyond |x| of some 1e7 times the limit.)
    """
    return x / (1 + x.abs() / limit)


def mean_over_ranks(x: Tensor) -> Tensor:
    """Average a detached tensor over processes that hold equal shares; returns it unchanged in a single process."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        x = x.detach().clone()
        torch.distributed.all_reduce(x)
        x = x / torch.distributed.get_world_size()
    return x


# -- what the data are ------------------------------------------------------------------------------------------------


class Kind(StrEnum):
    """Name what one cell of the data can be."""

    BINARY = "binary"
    LEVELS = "levels"
    REAL = "real"
    CATEGORY = "category"
    COUNT = "count"
    TOKENS = "tokens"
    TABLE = "table"


DISCRETE = frozenset({Kind.BINARY, Kind.LEVELS, Kind.CATEGORY, Kind.COUNT, Kind.TOKENS})


@dataclass(frozen=True, eq=False)
class Space:
    """Describe the data: their shape, their kind, and the transform to and from the user's units.

    Inside, discrete data are codes 0 .. levels - 1 and real data are (value - offset) / scale. `offset`, `scale` and
    `marginal` come from the training split and are stored with the weights. The log-determinant of the scale is part
    of every bound, so that numbers do not depend on preprocessing.

    Args:
        kind: what one cell is.
        shape: the shape of one datum inside, *X; images are (C, H, W).
        outside: the shape of one datum in the user's layout; images are (H, W) or (H, W, C).
        dtype: the user's NumPy dtype, which samples are written in.
        low: the user's value of code 0.
        step: the user's distance between two codes (255 for black-and-white images stored as 0 and 255).
        levels: how many values a discrete cell can take; 0 for real data.
        offset, scale: float64 arrays that broadcast to *X; real data only.
        marginal: the training split's probability of a one (binary, *X) or frequencies of the codes (levels and
            categories, (levels, *X) or (levels, 1, ..)); where a decoder's last bias starts.
    """

    kind: Kind
    shape: tuple[int, ...]
    outside: tuple[int, ...]
    dtype: str = "float32"
    low: float = 0.0
    step: float = 1.0
    levels: int = 0
    offset: np.ndarray | None = field(default=None, repr=False)
    scale: np.ndarray | None = field(default=None, repr=False)
    marginal: np.ndarray | None = field(default=None, repr=False)

    SCALARS = ("kind", "shape", "outside", "dtype", "low", "step", "levels")
    ARRAYS = ("offset", "scale", "marginal")

    def __str__(self) -> str:
        size = f" of {self.levels}" if self.kind in (Kind.LEVELS, Kind.CATEGORY) else ""
        return f"{self.kind}{size} {self.outside}"

    @property
    def discrete(self) -> bool:
        """Tell whether p(x) is a probability (counting measure) and not a density (Lebesgue measure)."""
        return self.kind in DISCRETE

    @property
    def measure(self) -> str:
        """Name the measure that p(x) is taken against."""
        return "counting" if self.discrete else "lebesgue"

    @property
    def cells(self) -> int:
        """Count the cells of one datum."""
        return math.prod(self.shape)

    @property
    def image(self) -> bool:
        """Tell whether a datum can be shown as a picture."""
        return len(self.shape) == 3 and self.shape[0] in (1, 3, 4)

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Give the shape of what an encoder sees of one datum."""
        return (*self.shape, self.levels) if self.kind is Kind.CATEGORY else self.shape

    def features(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Turn codes or values (B, *X) into what an encoder sees, (B, *feature_shape)."""
        if self.kind is Kind.CATEGORY:
            return F.one_hot(x.long(), self.levels).to(dtype)
        x = x.to(dtype)
        return x * (2 / (self.levels - 1)) - 1 if self.kind is Kind.LEVELS else x

    def log_det(self, observed: Tensor | None = None) -> Tensor | float:
        """Return the log-determinant of user's units -> inside: a number, or (B,) under a mask of observed cells."""
        if self.scale is None:
            return 0.0
        cells = -np.log(np.broadcast_to(self.scale, self.shape))
        if observed is None:
            return float(cells.sum())
        return (torch.from_numpy(cells.copy()).to(observed.device) * observed).flatten(1).sum(1)

    def inward(self, values: np.ndarray) -> np.ndarray:
        """Turn the user's array (N, *outside) into codes or values (N, *shape).

        Raises:
            ValueError: the shape is another, or a value is not one of this space's.
        """
        values = np.asarray(values)
        if values.shape[1:] != self.outside:
            raise ValueError(f"expected data of shape (N, {_commas(self.outside)}); got {values.shape}")
        if len(self.outside) == 3:
            values = np.moveaxis(values, -1, 1)
        values = values.reshape(len(values), *self.shape)
        if values.dtype.kind not in "biuf":
            raise ValueError(f"expected numbers; got an array of {values.dtype}")
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise ValueError(f"expected finite values; got {np.count_nonzero(~np.isfinite(values))} that are NaN or infinite")
        if self.kind is Kind.REAL:
            assert self.offset is not None and self.scale is not None
            return np.asarray((values - self.offset) / self.scale, np.float32)
        if self.step == 1 and values.dtype == np.uint8 and self.low == 0:
            codes = values
        else:
            codes = (values.astype(np.float64) - self.low) / self.step
        if len(values) and (
            codes.min() < 0 or codes.max() > self.levels - 1 or (codes.dtype.kind == "f" and (codes != np.rint(codes)).any())
        ):
            raise ValueError(f"expected {self.kind} values {self._values()}; got {_strangers(codes, self)}")
        return codes.astype(np.uint8 if self.levels <= 256 else np.int32)

    def outward(self, x: np.ndarray, *, exact: bool = True) -> np.ndarray:
        """Turn codes or values inside (..., *shape) into the user's layout and units, (..., *outside).

        With `exact`, also into the user's dtype; without it (means, probabilities) float32, and binary data stay
        probabilities in 0 .. 1.
        """
        lead = x.shape[: x.ndim - len(self.shape)]
        if self.kind is Kind.REAL:
            assert self.offset is not None and self.scale is not None
            x = x * self.scale + self.offset
        elif exact or self.kind is not Kind.BINARY:
            x = x * self.step + self.low
        x = x.reshape(*lead, *self.shape)
        if len(self.outside) == 3:
            x = np.moveaxis(x, -3, -1)
        x = x.reshape(*lead, *self.outside)
        if not exact:
            return x.astype(np.float32)
        kind = np.dtype(self.dtype)
        return np.rint(x).astype(kind) if kind.kind in "iu" else x.astype(kind)

    def _values(self) -> str:
        shown = [f"{self.low + self.step * code:g}" for code in range(min(self.levels, 2))]
        return (
            f"{shown[0]} and {shown[-1]}" if self.levels == 2 else f"{shown[0]}, {shown[1]} .. {self.low + self.step * (self.levels - 1):g}"
        )

    def scalars(self) -> dict[str, Any]:
        """Return the fields that are not arrays, as JSON takes them."""
        out = {name: getattr(self, name) for name in self.SCALARS}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in out.items()} | {"kind": str(self.kind)}

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the fitted arrays by name."""
        return {name: getattr(self, name) for name in self.ARRAYS if getattr(self, name) is not None}

    @classmethod
    def restore(cls, scalars: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Space:
        """Make a space again from `scalars()` and `arrays()`."""
        fields = {**scalars, "kind": Kind(scalars["kind"]), "shape": tuple(scalars["shape"]), "outside": tuple(scalars["outside"])}
        return cls(**fields, **dict(arrays))  # type: ignore[arg-type]


def _commas(shape: Sequence[int]) -> str:
    return ", ".join(map(str, shape))


def _strangers(codes: np.ndarray, space: Space) -> str:
    wrong = codes[(codes < 0) | (codes > space.levels - 1) | (codes != np.rint(codes))]
    return ", ".join(f"{space.low + space.step * v:g}" for v in np.unique(wrong)[:3]) + (" .." if wrong.size > 3 else "")


@dataclass(frozen=True, eq=False)
class Batch:
    """Hold some data: values, which of them are observed, and what is given.

    Args:
        x: codes or values, (B, *X).
        observed: True where a cell was seen, (B, *X); None when all were.
        given: conditions, (B, G); None without.
    """

    x: Tensor
    observed: Tensor | None = None
    given: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)


# -- densities --------------------------------------------------------------------------------------------------------


@runtime_checkable
class Density(Protocol):
    """Name what is asked of a density; any torch.distributions.Distribution has it."""

    @property
    def mean(self) -> Tensor:
        """Return the mean, or for categories the probabilities."""

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log-densities in nats, one for each datum."""


def _sum_cells(log_prob: Tensor, dims: int, observed: Tensor | None) -> Tensor:
    if observed is not None:
        log_prob = torch.where(observed, log_prob, 0.0)
    return log_prob.flatten(-dims).sum(-1) if dims > 1 else log_prob.sum(-1)


class Normal:
    """Represent a normal with diagonal covariance; `dims` trailing dimensions make one datum.

    Args:
        mean, logvar: tensors that broadcast to (..., *X).
        dims: number of dimensions of one datum.
    """

    def __init__(self, mean: Tensor, logvar: Tensor, dims: int = 1) -> None:
        self.mean, self.logvar, self.dims = mean, logvar, dims

    @property
    def std(self) -> Tensor:
        """Return the standard deviation, exp(logvar / 2)."""
        return torch.exp(0.5 * self.logvar)

    def from_noise(self, noise: Tensor) -> Tensor:
        """Return mean + std * noise: the reparameterization (Kingma and Welling 2014; Rezende et al. 2014)."""
        return torch.addcmul(self.mean, self.std, noise)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draw one value for each set of parameters."""
        mean = self.mean.detach()
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
        return mean + self.std.detach() * noise

    def log_prob(self, value: Tensor, observed: Tensor | None = None) -> Tensor:
        """Return log-densities in nats, (...), every constant included."""
        squared = (value - self.mean).square() * torch.exp(-self.logvar)
        return _sum_cells(-0.5 * (squared + self.logvar + LOG_2PI), self.dims, observed)

    def detach(self) -> Normal:
        """Return the same density, cut from the graph (what sticking-the-landing scores under)."""
        return Normal(self.mean.detach(), self.logvar.detach(), self.dims)


class StandardNormal:
    """Represent N(0, 1) on every unit of a latent of shape *Z."""

    def __init__(self, shape: tuple[int, ...], like: Tensor) -> None:
        self.shape, self._like = shape, like

    @property
    def mean(self) -> Tensor:
        """Return zeros, (*Z,)."""
        return self._like.new_zeros(self.shape)

    def sample(self, rows: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw (rows, *Z)."""
        return torch.randn((rows, *self.shape), generator=generator, dtype=self._like.dtype, device=self._like.device)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log-densities in nats, (...)."""
        return _sum_cells(-0.5 * (value.square() + LOG_2PI), len(self.shape), None)


class _BernoulliLogProb(torch.autograd.Function):
    """Sum x * logit - log(1 + exp(logit)) over the last dimension in one buffer each way: half the time of autograd's."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, value: Tensor) -> Tensor:
        ctx.save_for_backward(logits, value)
        return F.softplus(logits, threshold=SOFTPLUS_EXACT).addcmul_(value, logits, value=-1).sum(-1).neg_()

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        logits, value = ctx.saved_tensors
        return torch.sigmoid(logits).neg_().add_(value).mul_(gradient.unsqueeze(-1)), None


class Bernoulli:
    """Represent independent coins by their logits, (..., *X)."""

    def __init__(self, logits: Tensor, dims: int) -> None:
        self.logits, self.dims = logits, dims

    @property
    def mean(self) -> Tensor:
        """Return the probabilities of a one."""
        return torch.sigmoid(self.logits)

    @property
    def mode(self) -> Tensor:
        """Return the most probable value of each cell."""
        return (self.logits > 0).to(self.logits.dtype)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draw zeros and ones."""
        return torch.bernoulli(self.mean, generator=generator)

    def log_prob(self, value: Tensor, observed: Tensor | None = None) -> Tensor:
        """Return log-probabilities in nats, (...): x * logit - log(1 + exp(logit)), stable for any logit."""
        value = value.to(self.logits.dtype)
        if observed is None and value.shape == self.logits.shape[-value.ndim :]:
            return _BernoulliLogProb.apply(self.logits.flatten(-self.dims), value.flatten(-self.dims))  # type: ignore[no-any-return, no-untyped-call]
        return _sum_cells(value * self.logits - F.softplus(self.logits, threshold=SOFTPLUS_EXACT), self.dims, observed)


class Categorical:
    """Represent independent choices among L codes by their logits, (..., L, *X)."""

    def __init__(self, logits: Tensor, dims: int) -> None:
        self.logits, self.dims = logits, dims

    @property
    def _codes(self) -> int:
        return self.logits.ndim - self.dims - 1

    @property
    def mean(self) -> Tensor:
        """Return the probabilities of the codes, (..., L, *X)."""
        return torch.softmax(self.logits, self._codes)

    @property
    def mode(self) -> Tensor:
        """Return the most probable code of each cell, (..., *X)."""
        return self.logits.argmax(self._codes)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draw codes, (..., *X)."""
        p = self.mean.movedim(self._codes, -1)
        flat = p.reshape(-1, p.shape[-1])
        return torch.multinomial(flat, 1, generator=generator).reshape(p.shape[:-1])

    def log_prob(self, value: Tensor, observed: Tensor | None = None) -> Tensor:
        """Return log-probabilities in nats, (...)."""
        codes = value.long().unsqueeze(value.ndim - self.dims)
        lead = torch.broadcast_shapes(self.logits.shape[: self._codes], codes.shape[: codes.ndim - self.dims - 1])
        codes = codes.expand(*lead, 1, *codes.shape[codes.ndim - self.dims :])
        logits = self.logits.expand(*lead, *self.logits.shape[self._codes :])
        chosen = logits.gather(len(lead), codes).squeeze(len(lead))
        return _sum_cells(chosen - torch.logsumexp(self.logits, self._codes), self.dims, observed)


def closed_form_kl(q: Density, p: Density) -> Tensor | None:
    """Return KL(q || p) in nats for each latent unit, (1, B, *Z); None where no closed form is known here."""
    if isinstance(q, Normal) and isinstance(p, StandardNormal):
        return (0.5 * (q.mean.square() + torch.expm1(q.logvar) - q.logvar)).unsqueeze(0)
    if isinstance(q, Normal) and isinstance(p, Normal):
        ratio = q.logvar - p.logvar
        return 0.5 * ((q.mean - p.mean).square() * torch.exp(-p.logvar) + torch.expm1(ratio) - ratio).unsqueeze(0)
    return None
