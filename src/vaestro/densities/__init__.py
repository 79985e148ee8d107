"""Densities over data and latents, and their KL in closed form.

Every quantity of a VAE is a function of three log-densities at K draws for each of B data:

    z_k ~ q(z | x)        log w_k = log p(x | z_k) + log p(z_k) - log q(z_k | x)        each (K, B),
    in nats

Densities have the methods of torch.distributions (`sample`, `log_prob`, `mean`), with two
additions. Latents are functions of noise that is an argument (`from_noise`). Data densities take a
mask of the observed cells. `log_prob` sums over the trailing dimensions of one datum and broadcasts
over the leading ones: values (B, *X) are scored under parameters (K, B, *X) without K copies.
"""

from vaestro.densities.continuous import (
    ContinuousBernoulli,
    Gumbel,
    Laplace,
    LocationScale,
    Logistic,
    Normal,
    StudentT,
)
from vaestro.densities.core import (
    Cells,
    DataDensity,
    Density,
    full_precision,
    log_mean_exp,
    mean_over_ranks,
    soft_limit,
    summed,
)
from vaestro.densities.counts import NegativeBinomial, Poisson, ZeroInflated
from vaestro.densities.discrete import Bernoulli, Categorical
from vaestro.densities.discrete_latents import (
    Autoregressive,
    Binary,
    DiscreteLatents,
    OneHot,
    groups_of,
)
from vaestro.densities.kl import closed_form_kl, register_kl
from vaestro.densities.latent import IndependentUnits, LatentDensity, PosteriorDensity, PriorDensity
from vaestro.densities.levels import DiscretizedLogistic, LogisticMixture, MeansBySquares
from vaestro.densities.mixtures import Mixture, NormalMixture
from vaestro.densities.normals import CorrelatedNormal, FullNormal, LowRankNormal, StandardNormal
from vaestro.densities.product import Product
from vaestro.densities.tokens import Decoding, Positions, Sentences, scored
from vaestro.densities.warped import Atoms, Warped

__all__ = [
    "Atoms",
    "Autoregressive",
    "Bernoulli",
    "Binary",
    "Categorical",
    "Cells",
    "ContinuousBernoulli",
    "CorrelatedNormal",
    "DataDensity",
    "Decoding",
    "Density",
    "DiscreteLatents",
    "DiscretizedLogistic",
    "FullNormal",
    "Gumbel",
    "IndependentUnits",
    "Laplace",
    "LatentDensity",
    "LocationScale",
    "Logistic",
    "LogisticMixture",
    "LowRankNormal",
    "MeansBySquares",
    "Mixture",
    "NegativeBinomial",
    "Normal",
    "NormalMixture",
    "OneHot",
    "Poisson",
    "Positions",
    "PosteriorDensity",
    "PriorDensity",
    "Product",
    "Sentences",
    "StandardNormal",
    "StudentT",
    "Warped",
    "ZeroInflated",
    "closed_form_kl",
    "full_precision",
    "groups_of",
    "log_mean_exp",
    "mean_over_ranks",
    "register_kl",
    "scored",
    "soft_limit",
    "summed",
]
