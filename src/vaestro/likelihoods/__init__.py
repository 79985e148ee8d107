"""The likelihood p(x | z): a decoder whose outputs are the parameters of a density over the data.

A decoder returns logits or natural parameters, never probabilities. Each likelihood declares the
kinds of data that it is valid for and rejects the others, because a density of the wrong kind of
data has no meaning. No parameter of p(x | z) depends on the x that is scored, except through z or
autoregressively.

A new likelihood is a subclass of `Likelihood` with the attribute `accepts` and the method
`forward`, in a file of its own, and a row in `parts.TABLE`. `Dequantised`, `Scaled`, `Dispersed`
and `FittedVariance` are mixins for what several likelihoods share.
"""

from vaestro.likelihoods.base import Likelihood
from vaestro.likelihoods.binary import Bernoulli
from vaestro.likelihoods.categories import Categorical
from vaestro.likelihoods.counts import NegativeBinomial, Poisson, ZeroInflated
from vaestro.likelihoods.dequantised import Dequantised
from vaestro.likelihoods.dispersions import Dispersed
from vaestro.likelihoods.fitted import FittedVariance
from vaestro.likelihoods.levels import DiscretizedLogistic, LogisticMixture
from vaestro.likelihoods.real import Gaussian, Laplace, Logistic, StudentT
from vaestro.likelihoods.scales import Scaled
from vaestro.likelihoods.table import Table
from vaestro.likelihoods.tokens import Autoregressive
from vaestro.likelihoods.unit import ContinuousBernoulli

__all__ = [
    "Autoregressive",
    "Bernoulli",
    "Categorical",
    "ContinuousBernoulli",
    "Dequantised",
    "DiscretizedLogistic",
    "Dispersed",
    "FittedVariance",
    "Gaussian",
    "Laplace",
    "Likelihood",
    "Logistic",
    "LogisticMixture",
    "NegativeBinomial",
    "Poisson",
    "Scaled",
    "StudentT",
    "Table",
    "ZeroInflated",
]
