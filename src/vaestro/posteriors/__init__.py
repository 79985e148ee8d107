"""The approximate posterior q(z | x): an encoder whose outputs parametrise a density over z.

    q(z | x) = density(encoder(x))            z = f(noise, encoder(x))

Standard noise is drawn outside of the network and is an argument. Gradients therefore flow through
z to the encoder (Kingma and Welling 2014). The encoder runs once for a batch, for any number of
draws.
"""

from vaestro.posteriors.base import CodeReader, Posterior, RealPosterior
from vaestro.posteriors.discrete import Bernoulli, Categorical, DiscretePosterior
from vaestro.posteriors.flows import (
    AutoregressiveFlow,
    FlowPosterior,
    InverseAutoregressive,
    Planar,
    Spline,
)
from vaestro.posteriors.location_scale import Gumbel, Laplace, LocationScale, Logistic, StudentT
from vaestro.posteriors.normals import FullNormal, LowRankNormal, Normal

__all__ = [
    "AutoregressiveFlow",
    "Bernoulli",
    "Categorical",
    "CodeReader",
    "DiscretePosterior",
    "FlowPosterior",
    "FullNormal",
    "Gumbel",
    "InverseAutoregressive",
    "Laplace",
    "LocationScale",
    "Logistic",
    "LowRankNormal",
    "Normal",
    "Planar",
    "Posterior",
    "RealPosterior",
    "Spline",
    "StudentT",
]
