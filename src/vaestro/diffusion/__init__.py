"""Diffusion models of latents: noising process, denoisers, samplers, and a prior that samples.

process.py     z_t = a z + s e; targets of training; the bound on log p(z)
denoisers.py   networks: a residual MLP for vectors, the U-Net of diffusers for grids
samplers.py    from noise to latents by the schedulers of diffusers
model.py       Diffusion, and DiffusionPrior
"""

from vaestro.diffusion.denoisers import Denoiser, DenseDenoiser, GridDenoiser
from vaestro.diffusion.model import DROPPED, Diffusion, DiffusionPrior
from vaestro.diffusion.process import Prediction, Process
from vaestro.diffusion.samplers import (
    SAMPLERS,
    Ddim,
    Ddpm,
    DpmSolver,
    Euler,
    Sampler,
    default_sampler,
)

__all__ = [
    "DROPPED",
    "SAMPLERS",
    "Ddim",
    "Ddpm",
    "Denoiser",
    "DenseDenoiser",
    "Diffusion",
    "DiffusionPrior",
    "DpmSolver",
    "Euler",
    "GridDenoiser",
    "Prediction",
    "Process",
    "Sampler",
    "default_sampler",
]
