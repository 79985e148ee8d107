"""Compare the default for colour images with a plain convolutional VAE in PyTorch.

    python bench/beside/pictures.py [--side 64] [--minutes 4] [--seeds 3] [--out FOLDER]

All rows of the table have the same 2,000 training crops (see bench/bits.py) and 500 test crops. The
default trains for the given minutes. The plain VAE gets the processor time that the default of the
same seed used, so that other jobs on the machine do not change the comparison. PSNR is that of the
reconstructed means on 0 .. 255: of each image, averaged over images, and of the mean squared error
of all images. Bits/dim are from the ELBO. docs/results.md contains the printed table.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
from PIL import Image
from torch import Tensor

import vaestro as vs

sys.path.insert(0, str(Path(__file__).parent.parent))
from bits import crops

RECIPES = {"default": None, "sigma-vae": "sigma-vae"}
UNITS, WIDTH, BATCH = 128, 32, 64  # of the plain VAE
Result = tuple[float, float, float, float, np.ndarray]


class Plain(nn.Module):
    """Strided convolutions, a latent vector, and transposed convolutions."""

    def __init__(self, side: int) -> None:
        super().__init__()
        sizes = [3, *(WIDTH * 2**level for level in range(int(math.log2(side // 4))))]
        pairs = list(itertools.pairwise(sizes))
        down = [m for a, b in pairs for m in (nn.Conv2d(a, b, 4, 2, 1), nn.ReLU())]
        up = [m for a, b in pairs[::-1] for m in (nn.ReLU(), nn.ConvTranspose2d(b, a, 4, 2, 1))]
        self.encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(16 * sizes[-1], 2 * UNITS))
        self.decoder = nn.Sequential(
            nn.Linear(UNITS, 16 * sizes[-1]), nn.Unflatten(1, (sizes[-1], 4, 4)), *up
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, logvar = self.encoder(x).chunk(2, 1)
        z = mean + torch.exp(logvar / 2) * torch.randn_like(mean)
        rate = 0.5 * (mean.square() + logvar.exp() - logvar - 1).sum(1)
        return self.decoder(z), self.decoder(mean), rate


def plain(splits: dict[str, np.ndarray], budget: float, seed: int) -> Result:
    """Train the plain VAE for some seconds of processor time, with the optimal variance of each
    batch, as the recipe sigma-vae."""
    torch.manual_seed(seed)
    train, test = (
        torch.from_numpy(splits[s]).permute(0, 3, 1, 2).float() for s in ("train", "test")
    )
    model, begun = Plain(train.shape[-1]), time.process_time()
    optimizer, variance = torch.optim.Adam(model.parameters(), lr=1e-3), 1.0
    while time.process_time() < begun + budget:
        for index in torch.randperm(len(train)).split(BATCH):
            x = train[index] / 127.5 - 1
            out, _, rate = model(x)
            error = (out - x).square().flatten(1)
            loss = 0.5 * x[0].numel() * error.mean().log() + rate.mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            variance = 0.98 * variance + 0.02 * float(error.detach().mean())
    seconds = time.process_time() - begun
    with torch.no_grad():
        noisy = (test + torch.rand_like(test) - 0.5) / 127.5 - 1
        out, mean, rate = model(noisy)
        squares = (out - noisy).square().flatten(1).sum(1)
        cells = test[0].numel()
        constant = 0.5 * math.log(2 * math.pi * variance) + math.log(127.5)
        nats = rate + 0.5 * squares / variance + cells * constant
        means = ((mean + 1) * 127.5).clamp(0, 255).permute(0, 2, 3, 1).numpy()
        drawn = (model.decoder(torch.randn(16, UNITS)) + 1) * 127.5
    shown = drawn.clamp(0, 255).permute(0, 2, 3, 1).numpy()
    bits = float(nats.mean()) / cells / math.log(2)
    return *psnr(means, splits["test"]), bits, seconds, np.concatenate([means[:16], shown])


def ours(source: Path, run: Path, minutes: float, seed: int, recipe: str | None) -> Result:
    """Train with the default options, and those of a recipe if there is one."""
    begun = time.process_time()
    trained = vs.train(source, run=run, minutes=minutes, seed=seed, recipe=recipe)
    seconds = time.process_time() - begun
    opened = vs.open(trained.path)
    test = opened.data.test
    pictures = np.asarray(test.outward())
    means = np.asarray(opened.reconstruct(pictures, dtype="float"), np.float32)
    bits = vs.evaluate(opened.model, test, k=1, methods=("elbo",))["elbo"].bits_per_dim
    drawn = np.asarray(opened.sample(16, mean=True, dtype="float"), np.float32)
    shown = np.concatenate([means[:16], drawn])
    return *psnr(means, pictures), bits or math.nan, seconds, shown


def psnr(means: np.ndarray, pictures: np.ndarray) -> tuple[float, float]:
    """Return the mean PSNR of images, and the PSNR of their mean squared error, in dB."""
    errors = ((means - pictures.astype(np.float32)) ** 2).mean((1, 2, 3))
    return (
        float(np.mean(10 * np.log10(255**2 / errors))),
        float(10 * np.log10(255**2 / errors.mean())),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", default=",".join([*RECIPES, "plain"]), help="joined by commas")
    parser.add_argument("--out", default=None, help="keep runs and pictures in this folder")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(asked.out or scratch)
        folder.mkdir(parents=True, exist_ok=True)
        splits = crops(asked.side, train=2000, held_out=500)
        source = folder / f"crops-{asked.side}.npz"
        np.savez(source, **splits)  # type: ignore[arg-type]
        print(
            f"2,000 crops of {asked.side}x{asked.side}x3, {asked.minutes:g} minutes; 500 test crops"
        )
        print(f"{'row':12} {'seed':>4} {'PSNR':>7} {'of the MSE':>11} {'bits/dim':>9} {'CPU s':>8}")
        budget = 120 * asked.minutes
        for seed in range(asked.seeds):
            for row in asked.rows.split(","):
                if row == "plain":
                    result = plain(splits, budget, seed)
                else:
                    run = folder / f"{row}-{asked.side}-{seed}"
                    result = ours(source, run, asked.minutes, seed, RECIPES[row])
                mean, overall, bits, seconds, shown = result
                budget = seconds if row == "default" else budget
                print(
                    f"{row:12} {seed:4} {mean:7.2f} {overall:11.2f} {bits:9.3f} {seconds:8.0f}",
                    flush=True,
                )
                sheet = shown.reshape(4, 8, *shown.shape[1:]).swapaxes(1, 2)
                sheet = sheet.reshape(4 * asked.side, 8 * asked.side, 3).clip(0, 255)
                Image.fromarray(sheet.astype(np.uint8)).save(
                    folder / f"{row}-{asked.side}-{seed}.png"
                )


if __name__ == "__main__":
    main()
