"""Models: everything that can be trained, scored and sampled."""

from vaestro.models.base import Capabilities, LatentModel
from vaestro.models.draws import Code, Draws
from vaestro.models.vae import VAE

__all__ = ["VAE", "Capabilities", "Code", "Draws", "LatentModel"]
