"""Networks that predict from noised latents and their time."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, cast, final

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from vaestro.networks import check_given
from vaestro.text import InputError


class Denoiser(nn.Module, ABC):
    """Predict from noised latents (N, *Z), their times, and conditions.

    Args:
        units: the shape *Z of one latent.
        given: number of values that describe the conditions of a row; 0 without conditions.
        width: of the embedding of time and conditions.
    """

    def __init__(self, units: tuple[int, ...], given: int, width: int) -> None:
        super().__init__()
        self.units, self.given, self.width = units, given, width
        self.conditions = nn.Linear(given, width) if given else None

    def embedded(self, given: Tensor | None, present: Tensor | None) -> Tensor | float:
        """Return the embedding of the conditions, (N, width), which is 0 for rows whose conditions
        are absent.

        Args:
            given: conditions, (N, C); None without any.
            present: whether each row has its conditions, (N,); None if all have.

        Raises:
            ValueError: the number of conditions is not that of the network.
        """
        if given is None or self.conditions is None:
            check_given(given, self.given if given is not None else 0)
            return 0.0
        check_given(given, self.given)
        out = self.conditions(given)
        return out if present is None else out * present.to(out.dtype).unsqueeze(1)

    @abstractmethod
    def forward(
        self, z_t: Tensor, time: Tensor, given: Tensor | None = None, present: Tensor | None = None
    ) -> Tensor:
        """Return the prediction, (N, *Z).

        Args:
            z_t: noised latents, (N, *Z).
            time: t / T of each row, (N,).
            given, present: see `embedded`; without `given`, all conditions are absent.
        """


@final
class DenseDenoiser(Denoiser):
    """Predict by a residual MLP whose blocks are scaled and shifted by the embedding of time and
    conditions (Perez et al. 2018).

    It starts at a prediction of 0, which with v is exact for standard normal latents.

    Args:
        units, given: see `Denoiser`.
        width: of the hidden layers; by default 8 per unit, between 128 and 1024.
        blocks: number of residual blocks.

    >>> denoiser = DenseDenoiser((2,), 0, width=16, blocks=1)
    >>> denoiser(torch.zeros(5, 2), torch.ones(5))
    tensor([[0., 0.],
            [0., 0.],
            [0., 0.],
            [0., 0.],
            [0., 0.]], grad_fn=<ViewBackward0>)
    """

    def __init__(
        self, units: tuple[int, ...], given: int = 0, *, width: int = 0, blocks: int = 4
    ) -> None:
        size = math.prod(units)
        width = width or min(1024, max(128, 8 * size))
        super().__init__(units, given, width)
        self.frequencies = 64
        self.time = nn.Linear(2 * self.frequencies, width)
        self.first, self.last = nn.Linear(size, width), nn.Linear(width, size)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(blocks))
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(
        self, z_t: Tensor, time: Tensor, given: Tensor | None = None, present: Tensor | None = None
    ) -> Tensor:
        embedding = F.silu(
            self.time(waves(time, self.frequencies, z_t.dtype)) + self.embedded(given, present)
        )
        hidden = self.first(z_t.flatten(1))
        for block in self.blocks:
            hidden = block(hidden, embedding)
        out: Tensor = self.last(F.silu(hidden))
        return out.view(z_t.shape)


class _Block(nn.Module):
    """Add to a row a network of it, scaled and shifted by an embedding."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.modulation(embedding).chunk(2, 1)
        hidden = self.norm(x) * (1 + scale) + shift
        out: Tensor = x + self.second(F.silu(self.first(hidden)))
        return out


@final
class GridDenoiser(Denoiser):
    """Predict for latents on a grid (C, H, W) by the U-Net of diffusers (Ho et al. 2020).

    There are as many resolutions as both sides can be halved, three at most.

    Args:
        units, given: see `Denoiser`.
        width: channels at full resolution, a multiple of 32; doubled once at half resolution.
        blocks: number of residual blocks at each resolution.

    Raises:
        ValueError: the width is no multiple of 32, or the latents are not on a grid.
        ImportError: diffusers is not installed.

    >>> GridDenoiser((4, 7, 7), width=32, blocks=1)(torch.zeros(2, 4, 7, 7), torch.ones(2)).shape
    torch.Size([2, 4, 7, 7])
    """

    def __init__(
        self, units: tuple[int, ...], given: int = 0, *, width: int = 64, blocks: int = 2
    ) -> None:
        if len(units) != 3:
            raise ValueError(f"expected latents on a grid (C, H, W) for unet; got {units}")
        if width < 32 or width % 32:
            raise ValueError(f"expected a width that is a multiple of 32; got {width}")
        super().__init__(units, given, 4 * width)
        levels = 1
        while levels < 3 and all(side % 2**levels == 0 for side in units[1:]):
            levels += 1
        kinds = ["", *["Attn"] * (levels - 1)] if levels > 1 else ["Attn"]
        self.network = _unet(
            sample_size=units[1:],
            in_channels=units[0],
            out_channels=units[0],
            layers_per_block=blocks,
            block_out_channels=[width if i == 0 else 2 * width for i in range(levels)],
            down_block_types=[f"{kind}DownBlock2D" for kind in kinds],
            up_block_types=[f"{kind}UpBlock2D" for kind in reversed(kinds)],
            # one channel in a group would lose its shift, which is how it depends on time
            norm_num_groups=width // 4,
            class_embed_type="identity" if given else None,
        )

    def forward(
        self, z_t: Tensor, time: Tensor, given: Tensor | None = None, present: Tensor | None = None
    ) -> Tensor:
        embedding = self.embedded(given, present)
        labels = None
        if self.given:
            absent = z_t.new_zeros(len(z_t), self.width)
            labels = embedding if isinstance(embedding, Tensor) else absent
        out = self.network(z_t, TIMES * time, class_labels=labels, return_dict=False)
        return cast(Tensor, out[0])


TIMES = 1000.0  # a network of diffusers has times up to this number


def waves(time: Tensor, count: int, dtype: torch.dtype) -> Tensor:
    """Return sines and cosines of times in (0, 1] at `count` frequencies, (N, 2 * count).

    >>> waves(torch.tensor([0.5]), 4, torch.float32).shape
    torch.Size([1, 8])
    """
    at = torch.arange(count, device=time.device, dtype=torch.float64)
    angles = TIMES * time.double().unsqueeze(1) * (10_000 ** (-at / count))
    return torch.cat([angles.sin(), angles.cos()], 1).to(dtype)


def _unet(**options: Any) -> nn.Module:
    """Return a U-Net of diffusers.

    Raises:
        InputError: diffusers is not installed.
    """
    try:
        from diffusers import UNet2DModel
    except ImportError as error:
        raise InputError(
            "diffusion on a grid needs diffusers: pip install 'vaestro[diffusion]'"
        ) from error
    return cast(nn.Module, UNet2DModel(**options))
