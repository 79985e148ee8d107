"""Measure the gradient noise of each estimator on the model and data of a run.

For one batch and repeated draws of the noise, with g the gradient of the (weighted) bound's mean
over the batch for a group of parameters:

    variance          the trace of Cov(g), from pairs of independent gradients: E |g - g'|^2 / 2
    signal            |E g|, from products of independent block means, which noise does not inflate
    signal-to-noise   signal / sqrt(variance), over whole groups (Rainforth et al. 2018)
    bias              |E g - E g_ref| / signal_ref, also from products of block means

The reference is the pathwise estimator. For discrete latents it is the score function, with a
leave-one-out baseline for two or more draws. All estimators use the same batch. The variance over
batches is also reported: a better estimator cannot reduce it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

from vaestro.data import Rows
from vaestro.evaluation import in_space
from vaestro.files import Json
from vaestro.gradients import Gradient, Score
from vaestro.models import Draws, LatentModel
from vaestro.objectives import BOUNDS
from vaestro.parts import find
from vaestro.randomness import numpy_generator, torch_generator
from vaestro.spaces import Batch

BLOCKS = 10  # number of blocks of repetitions
HELD = 100_000_000  # maximum number of stored values of block means
TEXTS = 8  # maximum batch size for text data
FITTING = 300  # training steps of a learned baseline
REAL = (
    "pathwise",
    "stl",
    "dreg",
    "score",
    "score:baseline=average",
    "score:baseline=learned",
    "score:baseline=none",
)
DISCRETE = (
    "score",
    "score:baseline=average",
    "score:baseline=learned",
    "score:baseline=none",
    "gumbel-softmax",
    "straight-through",
)


@dataclass(frozen=True)
class Noise:
    """The gradient noise of one estimator, number of draws and parameter group.

    Args:
        estimator: its name, with options.
        k: draws for each datum.
        group: posterior, likelihood or prior.
        parameters: number of parameters of the group.
        variance, variance_stderr: the trace of the gradient's covariance over draws.
        signal: norm of the mean gradient; 0 if it is not distinguishable from noise.
        snr: signal / sqrt(variance); None if the variance is 0.
        bias, bias_stderr: relative distance of the mean gradient from the reference's; None for the
            reference itself.
        batches: variance of the reference gradient over batches; None for other estimators.

    >>> Noise("pathwise", 1, "posterior", 10, 4.0, 0.1, 2.0, 1.0, None, None).snr
    1.0
    """

    estimator: str
    k: int
    group: str
    parameters: int
    variance: float
    variance_stderr: float
    signal: float
    snr: float | None
    bias: float | None
    bias_stderr: float | None
    batches: float | None = None


@dataclass(frozen=True)
class Noises:
    """The noise of several estimators, and how it was measured.

    Args:
        bound, beta: the bound and the weight of the rate.
        batch, repeats: batch size and number of draws of the noise.
        rows: the noise of each estimator.

    >>> row = Noise("pathwise", 1, "posterior", 10, 4.0, 0.1, 2.0, 1.0, None, None)
    >>> [r.estimator for r in Noises("elbo", 1.0, 128, 100, (row,)).of("posterior", k=1)]
    ['pathwise']
    """

    bound: str
    beta: float
    batch: int
    repeats: int
    rows: tuple[Noise, ...]

    def line(self) -> dict[str, Json]:
        """Return the fields for gradients.json."""
        return asdict(self)

    def of(self, group: str, k: int) -> list[Noise]:
        """Return the rows of a group at a number of draws, in order."""
        return [r for r in self.rows if r.group == group and r.k == k]


def applicable(
    model: LatentModel, bound: str, k: int, specs: Sequence[str] | None = None
) -> list[tuple[str, Gradient]]:
    """Return the estimators that apply to a model, bound and number of draws, reference first.

    Args:
        model, bound, k: the model, the bound and the number of draws.
        specs: names with options; by default all.

    Raises:
        ValueError: an estimator in `specs` does not apply.

    >>> import vaestro as vs
    >>> data = vs.load(np.eye(10, dtype="uint8").repeat(20, 0))
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> [name for name, _ in applicable(model, "elbo", 1, ["pathwise", "stl"])]
    ['pathwise', 'stl']
    """
    names = (DISCRETE if model.alphabet else REAL) if specs is None else specs
    estimators = []
    for spec in names:
        try:
            estimator = find("gradient", spec)()
            estimator.check(bound, k)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                estimator.prepare(model)
        except ValueError:
            if specs is not None:
                raise
            continue
        estimators.append((spec, estimator.to(next(model.parameters()).device)))
    return estimators


def gradient_noise(
    model: LatentModel,
    train: Rows,
    *,
    bound: str = "elbo",
    k: Sequence[int] = (1, 8),
    beta: float = 1.0,
    estimators: Sequence[str] | None = None,
    batch: int = 128,
    repeats: int = 100,
    seed: int = 0,
) -> Iterator[tuple[float, Noises | None]]:
    """Measure the gradient noise of each estimator.

    Yields (share of the work done, None), and finally (1, Noises).

    Args:
        model: with the weights in use; not changed.
        train: training rows; one batch of them is used.
        bound: "elbo" or "iwae".
        k: numbers of draws.
        beta: the weight of the rate.
        estimators: names with options; by default all that apply.
        batch: batch size; at most 8 for text data, which need one network step per token.
        repeats: independent draws of the noise, 20 or more.
        seed: of batch and noise.

    Raises:
        ValueError: an option is out of range, or a requested estimator does not apply.

    >>> import vaestro as vs
    >>> data = vs.load(np.eye(10, dtype="uint8").repeat(20, 0))
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> steps = gradient_noise(model, data.train, k=(1,), estimators=["pathwise"], repeats=20)
    >>> [row.group for row in list(steps)[-1][1].rows]
    ['posterior', 'likelihood']
    """
    _check(bound, repeats, k, batch)
    model = copy.deepcopy(model).eval()
    planned = [(draws, applicable(model, bound, draws, estimators)) for draws in k]
    work = float(sum(draws * len(each) for draws, each in planned)) or 1.0
    size = min(batch, len(train), TEXTS if train.space.ragged else batch)
    batches = _batches(model, train, size, seed)
    meter = _Meter(model, bound, beta, repeats // 2 * 2, seed)
    rows: list[Noise] = []
    done = 0.0
    for draws, each in planned:
        reference: dict[str, Sample] = {}
        for spec, estimator in each:
            meter.ready(estimator, batches, draws)
            samples: dict[str, Sample] = {}
            for share, samples in meter.measure(estimator, batches[0], draws):
                yield (done + share * draws) / work, None
            over = {} if reference else meter.over_batches(estimator, batches, draws)
            for group, sample in samples.items():
                rows.append(sample.noise(spec, draws, group, reference.get(group), over.get(group)))
            reference = reference or samples
            done += draws
    yield 1.0, Noises(bound, beta, size, meter.repeats, tuple(rows))


def _check(bound: str, repeats: int, k: Sequence[int], batch: int) -> None:
    """Raise ValueError if an option of `gradient_noise` is out of range."""
    if bound not in BOUNDS:
        raise ValueError(f"expected a bound among {', '.join(BOUNDS)}; got {bound!r}")
    if repeats < 2 * BLOCKS or min(k, default=0) < 1 or batch < 1:
        raise ValueError(
            f"expected {2 * BLOCKS} or more repetitions, 1 or more draws and a batch of 1 or "
            f"more; got {repeats}, {k} and {batch}"
        )


def _batches(model: LatentModel, train: Rows, size: int, seed: int) -> list[Batch]:
    """Return up to 8 random batches without common rows."""
    device = next(model.parameters()).device
    order = numpy_generator(seed, "gradient noise").permutation(len(train))
    starts = range(0, max(1, min(8, len(train) // size)) * size, size)
    several = [
        in_space(train.pick(np.sort(order[i : i + size])).fixed(), model.space) for i in starts
    ]
    return [rows.batch(slice(0, size), device) for rows in several]


@dataclass(frozen=True, eq=False)
class Sample:
    """Gradients of one parameter group over repeated draws of the noise.

    Args:
        blocks: means of blocks of gradients, (blocks, parameters).
        pairs: half the squared distances of pairs of independent gradients, (repeats / 2,).

    >>> sample = Sample(torch.tensor([[1.0], [2.0], [3.0]]), np.array([0.5, 1.5]))
    >>> sample.noise("pathwise", 1, "posterior").variance
    1.0
    """

    blocks: Tensor
    pairs: np.ndarray

    def noise(
        self,
        estimator: str,
        k: int,
        group: str,
        reference: Sample | None = None,
        batches: float | None = None,
    ) -> Noise:
        """Return variance and signal of the gradient, and its bias against a reference."""
        variance = float(self.pairs.mean())
        error = float(self.pairs.std(ddof=1) / math.sqrt(len(self.pairs)))
        signal = math.sqrt(max(0.0, _squared(self.blocks)[0]))
        bias = bias_error = None
        if reference is not None:
            size = math.sqrt(max(0.0, _squared(reference.blocks)[0]))
            squared, squared_error = _squared(self.blocks - reference.blocks)
            if size > 0:
                bias = math.sqrt(max(0.0, squared)) / size
                # The delta method fails near zero: use the bias whose square is the error.
                bias_error = (
                    squared_error / (2 * bias * size**2)
                    if squared > squared_error
                    else math.sqrt(max(squared_error, 0.0)) / size
                )
        return Noise(
            estimator,
            k,
            group,
            parameters=self.blocks.shape[1],
            variance=variance,
            variance_stderr=error,
            signal=signal,
            snr=signal / math.sqrt(variance) if variance > 0 else None,
            bias=bias,
            bias_stderr=bias_error,
            batches=batches,
        )


class _Meter:
    """Take gradients of a bound for each group of a model's parameters."""

    def __init__(
        self, model: LatentModel, bound: str, beta: float, repeats: int, seed: int
    ) -> None:
        self.model, self.bound, self.beta, self.repeats, self.seed = (
            model,
            BOUNDS[bound],
            beta,
            repeats,
            seed,
        )
        named = [
            (name, part) for name, part in model.named_children() if isinstance(part, nn.Module)
        ]
        self.groups = {
            name: [p for p in part.parameters() if p.requires_grad] for name, part in named
        }
        self.groups = {name: parameters for name, parameters in self.groups.items() if parameters}
        most = max((sum(p.numel() for p in ps) for ps in self.groups.values()), default=1)
        self.blocks = max(3, min(BLOCKS, HELD // most))

    def ready(self, estimator: Gradient, batches: Sequence[Batch], k: int) -> None:
        """Set a baseline to its trained value, the mean of log w or a fit to it, and freeze it."""
        if not isinstance(estimator, Score):
            return
        with torch.no_grad():
            estimator.running.fill_(
                float(self._draws(estimator, batches[0], k, "baseline").log_w.mean())
            )
        if estimator.network is not None:
            adam = torch.optim.Adam(estimator.network.parameters(), 1e-2)
            for step in range(FITTING):
                draws = self._draws(estimator, batches[step % len(batches)], k, "baseline", step)
                adam.zero_grad()
                (-estimator.surrogate(draws, self.bound).mean()).backward()
                adam.step()
            estimator.network.requires_grad_(False)
        estimator.eval()

    def _draws(
        self, estimator: Gradient, batch: Batch, k: int, purpose: str, place: int = 0
    ) -> Draws:
        noise = self.model.noise(
            k,
            len(batch),
            torch_generator(batch.x.device, self.seed, f"gradient noise {purpose}", k, place),
        )
        return (
            self.model.draw(batch, k, gradient=estimator, noise=noise).trained().weighted(self.beta)
        )

    def _gradients(
        self, estimator: Gradient, batch: Batch, k: int, place: int, purpose: str = "draws"
    ) -> dict[str, Tensor]:
        value = estimator.surrogate(
            self._draws(estimator, batch, k, purpose, place), self.bound
        ).mean()
        every = [p for parameters in self.groups.values() for p in parameters]
        flat = iter(torch.autograd.grad(value, every, materialize_grads=True, allow_unused=True))
        return {
            group: torch.cat([next(flat).flatten() for _ in parameters])
            for group, parameters in self.groups.items()
        }

    def measure(
        self, estimator: Gradient, batch: Batch, k: int
    ) -> Iterator[tuple[float, dict[str, Sample]]]:
        """Yield (share of the work done, {}), and finally (1, {group: sample})."""
        sums = {
            group: torch.zeros(self.blocks, sum(p.numel() for p in ps), device=ps[0].device)
            for group, ps in self.groups.items()
        }
        pairs: dict[str, list[float]] = {group: [] for group in self.groups}
        counts = torch.zeros(self.blocks)
        for i in range(self.repeats // 2):
            one, other = (self._gradients(estimator, batch, k, 2 * i + j) for j in range(2))
            block = i % self.blocks
            counts[block] += 2
            for group in self.groups:
                sums[group][block] += one[group] + other[group]
                pairs[group].append(
                    0.5 * float((one[group] - other[group]).double().square().sum())
                )
            yield 2 * (i + 1) / self.repeats, {}
        yield (
            1.0,
            {
                group: Sample(
                    sums[group] / counts.unsqueeze(1).to(sums[group].device), np.array(pairs[group])
                )
                for group in self.groups
            },
        )

    def over_batches(
        self, estimator: Gradient, batches: Sequence[Batch], k: int
    ) -> dict[str, float]:
        """Return the gradient variance over batches and draws; {} if there is one batch."""
        if len(batches) < 2:
            return {}
        gradients = [
            self._gradients(estimator, batch, k, i, "batches") for i, batch in enumerate(batches)
        ]
        return {
            group: float(torch.stack([g[group] for g in gradients]).double().var(0).sum())
            for group in self.groups
        }


def _squared(blocks: Tensor) -> tuple[float, float]:
    """Return the unbiased squared norm of the mean of blocks, and its jackknife standard error."""
    gram = (blocks.double() @ blocks.double().T).cpu().numpy()
    n = len(gram)
    crossed = gram.sum() - np.trace(gram)
    without = crossed - 2 * (gram.sum(1) - np.diag(gram))
    estimates = without / ((n - 1) * (n - 2))
    return float(crossed / (n * (n - 1))), float(
        math.sqrt((n - 1) / n * np.square(estimates - estimates.mean()).sum())
    )
