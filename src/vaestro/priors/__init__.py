"""The prior p(z), or p(z | given) of a model with conditions.

    normal              p(z) = N(0, I)
    mixture             p(z) = sum_k w_k N(mean_k, diag(exp(logvar_k)))
    vamp                p(z) = sum_k w_k q(z | u_k)
    maf, coupling       p(z) = N(f(z); 0, I) |det df/dz|
    autoregressive      p(z) = prod_g p(z_g | z_<g)                          discrete latents

Every learned prior accepts conditions. The weights of a mixture then depend on them; the maps of a
flow and the network of an autoregressive prior have them as inputs.
"""

from vaestro.priors.base import Prior, Sampler
from vaestro.priors.independent import Bernoulli, Categorical, Conditional, Normal
from vaestro.priors.mixtures import Mixture, Vamp
from vaestro.priors.sequential import Autoregressive, Coupling, MaskedAutoregressive

__all__ = [
    "Autoregressive",
    "Bernoulli",
    "Categorical",
    "Conditional",
    "Coupling",
    "MaskedAutoregressive",
    "Mixture",
    "Normal",
    "Prior",
    "Sampler",
    "Vamp",
]
