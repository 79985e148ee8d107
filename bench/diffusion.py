"""Measure what a diffusion model of the latents repairs: the distance of samples to test data, for
a flat VAE and for an image autoencoder with a small KL weight.

    python bench/diffusion.py FOLDER

The distance is the Frechet distance between normal distributions fitted to features of two sets
(Heusel et al. 2017). The features are the 64 hidden units of a classifier of digits, a multi-layer
perceptron of scikit-learn that is trained on training images; each is divided by its standard
deviation over test images. The distance of as many training images is the smallest to expect.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.linalg import sqrtm
from sklearn.neural_network import MLPClassifier

import vaestro as vs
from vaestro.runs import Run

SAMPLES = 5000
DIFFUSION_STEPS = 3000
RUNS: dict[str, dict[str, Any]] = {
    "VAE, 16 units": {"latent": 16, "network": "residual", "steps": 3000},
    "autoencoder, 2 x 7 x 7, beta 0.01": {
        **{"latent": 2, "network": "conv:factor=4"},
        **{"beta": 0.01, "steps": 900},
    },
}


class Features:
    """Compute the hidden units of a classifier of digits.

    Args:
        images: training images in [0, 1], (N, 784).
        labels: their digits, (N,).
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.network = MLPClassifier((256, 64), max_iter=8, random_state=0)
        self.network.fit(images, labels)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return the hidden units of images, (N, 64)."""
        hidden = images.reshape(len(images), -1)
        for weight, bias in zip(
            self.network.coefs_[:-1], self.network.intercepts_[:-1], strict=True
        ):
            hidden = np.maximum(hidden @ weight + bias, 0)
        return hidden


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return the Frechet distance between normal distributions fitted to features (N, D)."""
    first, second = np.cov(a.T), np.cov(b.T)
    root = sqrtm(first @ second).real
    apart = a.mean(0) - b.mean(0)
    return float(apart @ apart + np.trace(first + second - 2 * root))


def trained(folder: Path, name: str, options: dict[str, Any]) -> Run:
    """Return a run with a diffusion model; existing ones are kept."""
    path = folder / name.replace(" ", "-").replace(",", "")
    if not (path / "model.safetensors").exists():
        vs.train("mnist:binarise=static", run=path, **options)
    run = Run(path)
    if not (path / "diffusion" / "diffusion.json").exists():
        run.diffuse(steps=DIFFUSION_STEPS)
    return run


def main() -> None:
    """Train the runs and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    asked = parser.parse_args()
    data = vs.load("mnist:binarise=static")
    train, test = data.train, data.test
    features = Features(
        np.asarray(train.outward(), np.float32).reshape(len(train), -1), train.attributes["digit"]
    )
    every = features(np.asarray(test.outward(), np.float32))
    used = every.std(0) > 0.01 * every.std(0).max()  # the others are off for all test images
    every, scale = every[:, used], every.std(0)[used]
    other = features(np.asarray(train.spread(SAMPLES).outward(), np.float32))[:, used]
    rows = [("training images", "", distance(other / scale, every / scale))]
    for name, options in RUNS.items():
        run = trained(asked.folder, name, options)
        bound = json.loads((run.path / "diffusion" / "diffusion.json").read_text())["bound"]
        for prior in (False, True):
            drawn = np.asarray(run.sample(SAMPLES, mean=False, diffusion=prior), np.float32)
            away = distance(features(drawn)[:, used] / scale, every / scale)
            which = bound["after" if prior else "before"]
            rows.append(
                (
                    f"{name}: {'diffusion model' if prior else 'prior'}",
                    f"{which['mean']:.1f} +- {which['stderr']:.1f}",
                    away,
                )
            )
    print("| samples of | bound on log p(x), nats | distance to test images |\n|---|---|---|")
    for label, bound, away in rows:
        print(f"| {label} | {bound} | {away:.2f} |")


if __name__ == "__main__":
    main()
