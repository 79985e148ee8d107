"""The numbers that a diagnosis measures on a model and its data."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch

from vaestro.diagnosis.reconstruction import Reconstruction
from vaestro.diagnosis.statistics import Paired
from vaestro.evaluation import Information
from vaestro.loop import signal


@dataclass(eq=False)
class Measures:
    """Measurements of a model on held-out and training data, in nats.

    Arrays over units are flat, (units,).

    Args:
        split: name of the held-out split, or "train" if there is none.
        n: number of its data that were scored.
        rate, distortion: their means over these data.
        mean: mean of q(z | x) for each datum, (N, units).
        variance, rates: variance and KL of q(z | x), (N, units); None for families without them.
        z_mean, z_std: mean and standard deviation of draws of the aggregate posterior.
        histogram, prior_histogram: densities of these draws and of the prior, (units, bins).
        edges: edges of the bins, (bins + 1,).
        own: mean distortion with each datum's own z.
        other: mean distortion with another datum's z, or with a draw of the prior if the prior
            depends on conditions.
        gain: other - own, with its paired standard error.
        valid: ELBO of the held-out data: (mean, standard error, n).
        train: the same for training data with the same weights; None if nothing is held out.
        information: decomposition of the rate of the held-out data.
        effects: {unit: (effect, standard error)}: increase of the distortion if the unit is
            replaced by a draw of the prior.
        saturated: share of log-variances near their limit; None if there is no limit.
        residual: mean standardised residual, (x - mean)^2 / variance for a Gaussian likelihood;
            None for a likelihood without a scale.
        gradient_noise: share of the variance of the encoder's gradient over steps that comes from
            the draws of z; None if not measured.
        structure: largest eigenvalue of the correlations between cells, divided by that of
            independent cells; None for too few data.
        visible: smallest such eigenvalue of the population that this number of data can show.
        use: increase of the distortion of each datum of `use_split` with other data's z, averaged
            over several of them. Its p-value is that of the rank test, corrected for `chosen`. None
            for fewer than three data.
        use_split: names of the splits of these data.
        worth: gain in the objective from the code, for the same data: the distortion with the one z
            that is best for all data, minus the distortion with the datum's own z and the weighted
            rate. None if the prior depends on conditions.
        chosen: number of validations on `use_split` from which the weights were selected; 0 if it
            was not used for that.
        limits: {unit: (low, high)}: simultaneous 95 % confidence limits of the effects.
        train_mean, train_variance: of q(z | x) for each training datum, (N, units).
        aggregate: decomposition of the rate of the training data.
        scales: {column of a table, or "": (mean, low, high)}: standardised residual of training
            data, which is 1 if a learned scale has reached its optimum. The limits are simultaneous
            95 % confidence limits over all columns.
        reconstruction: of text data; None for other data.

    >>> import vaestro as vs
    >>> from vaestro.diagnosis import measure
    >>> data = vs.load(np.eye(10, dtype="uint8").repeat(20, 0))
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> measures = measure(model, data.train, data.valid, vs.Objective())
    >>> measures.split, measures.activity.shape
    ('valid', (2,))
    """

    split: str
    n: int
    rate: float
    distortion: float
    mean: np.ndarray
    variance: np.ndarray | None
    rates: np.ndarray | None
    z_mean: np.ndarray
    z_std: np.ndarray
    histogram: np.ndarray
    prior_histogram: np.ndarray
    edges: np.ndarray
    own: float
    other: float
    gain: tuple[float, float]
    valid: tuple[float, float, int]
    train: tuple[float, float, int] | None = None
    information: Information | None = None
    effects: dict[int, tuple[float, float]] = field(default_factory=dict)
    saturated: float | None = None
    residual: float | None = None
    gradient_noise: float | None = None
    structure: float | None = None
    visible: float | None = None
    use: Paired | None = None
    use_split: str = ""
    worth: Paired | None = None
    chosen: int = 0
    limits: dict[int, tuple[float, float]] = field(default_factory=dict)
    train_mean: np.ndarray | None = None
    train_variance: np.ndarray | None = None
    aggregate: Information | None = None
    scales: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    reconstruction: Reconstruction | None = None

    @cached_property
    def activity(self) -> np.ndarray:
        """Return Var_x(E[z | x]) of each unit (Burda, Grosse and Salakhutdinov 2016)."""
        return np.asarray(self.mean.astype(np.float64).var(0))

    @cached_property
    def signal(self) -> float | None:
        """Return the information of the means of all units about the data, in nats (see
        `loop.signal`). It is 0 if no mean depends on x."""
        if self.variance is None:
            return None
        return float(
            signal(
                torch.from_numpy(self.activity),
                torch.from_numpy(self.variance.astype(np.float64).mean(0)),
            ).sum()
        )
