"""Models: everything that can be trained, scored and sampled."""

from vaestro.models.base import Capabilities, LatentModel, Model, with_latent
from vaestro.models.draws import Code, Draws
from vaestro.models.exact import Autoregressive, Independent
from vaestro.models.vae import VAE

__all__ = [
    "VAE",
    "Autoregressive",
    "Capabilities",
    "Code",
    "Draws",
    "Independent",
    "LatentModel",
    "Model",
    "with_latent",
]
