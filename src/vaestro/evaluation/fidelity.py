"""How close reconstructions of images are to the data: PSNR and SSIM."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np

from vaestro.evaluation.records import mean_and_error
from vaestro.files import Json

WINDOW, SIGMA = 11, 1.5  # side of the window of SSIM in pixels, and its standard deviation
K1, K2 = 0.01, 0.03  # constants of SSIM, relative to the range of the data


@final
@dataclass(frozen=True, eq=False)
class Fidelity:
    """Hold PSNR and SSIM of the reconstruction of each image.

    Args:
        psnr: in dB, (N,).
        ssim: (N,), at most 1; None for images with sides below 11.
        span: the range of the data, which both depend on, in the user's units.
        of: where the range is from, in words.

    >>> Fidelity(np.array([30.0, 32.0]), None, 255.0, "that of the levels").sentence("2 images")
    'reconstructions: PSNR 31.0 +- 1.0 dB (2 images; range 255, that of the levels)'
    """

    psnr: np.ndarray
    ssim: np.ndarray | None
    span: float
    of: str

    def sentence(self, data: str) -> str:
        """Return both in words, with standard errors."""
        parts = [f"PSNR {to_its_error(mean_and_error(self.psnr))} dB"]
        if self.ssim is not None:
            parts.append(f"SSIM {to_its_error(mean_and_error(self.ssim))}")
        return f"reconstructions: {', '.join(parts)} ({data}; range {self.span:.6g}, {self.of})"

    def lines(self) -> dict[str, Json]:
        """Return the entries of evaluation.json."""
        values = {"psnr": self.psnr, "ssim": self.ssim}
        return {
            name: None if x is None else {**_line(x), "range": self.span}
            for name, x in values.items()
        }


def _line(x: np.ndarray) -> dict[str, Json]:
    mean, error = mean_and_error(x)
    return {
        "mean": mean if math.isfinite(mean) else None,
        "stderr": error if math.isfinite(error) else None,
        "n": len(x),
    }


def to_its_error(value: tuple[float, float]) -> str:
    """Return a mean and its standard error, to two digits of the error.

    >>> to_its_error((27.3149, 0.123)), to_its_error((0.91234, 0.0021))
    ('27.31 +- 0.12', '0.9123 +- 0.0021')
    """
    mean, error = value
    if not (math.isfinite(error) and error > 0):
        return f"{mean:.3g}"
    digits = max(0, min(6, 1 - math.floor(math.log10(error))))
    return f"{mean:.{digits}f} +- {error:.{digits}f}"


def psnr(x: np.ndarray, y: np.ndarray, span: float) -> np.ndarray:
    """Return the peak signal-to-noise ratio of each image, 10 log10(span^2 / MSE) in dB, (N,).

    Args:
        x, y: images of one shape, (N, ...).
        span: the range of the data.

    >>> psnr(np.zeros((1, 2, 2)), np.full((1, 2, 2), 25.5), 255.0).tolist()
    [20.0]
    """
    errors = ((x.astype(np.float64) - y) ** 2).reshape(len(x), -1).mean(1)
    with np.errstate(divide="ignore"):
        return np.asarray(10 * np.log10(span**2 / errors))


def ssim(x: np.ndarray, y: np.ndarray, span: float) -> np.ndarray:
    """Return the structural similarity of each image, (N,), the mean over places and channels.

    Means and variances are over windows of 11 x 11 pixels with Gaussian weights, without the
    correction for samples (Wang, Bovik, Sheikh and Simoncelli 2004). Only windows inside of the
    image count.

    Args:
        x, y: images (N, H, W) or (N, H, W, C), with sides of at least 11.
        span: the range of the data.

    >>> image = np.random.default_rng(0).random((1, 16, 16))
    >>> ssim(image, image, 1.0).tolist()
    [1.0]
    """
    a, b = (
        np.moveaxis(v.astype(np.float64).reshape(*v.shape[:3], -1), 3, 1).reshape(-1, *v.shape[1:3])
        for v in (x, y)
    )
    # relative to one place: large offsets would cancel in the variances
    shift = a.mean()
    a, b = a - shift, b - shift
    mean_a, mean_b, aa, bb, ab = (_filtered(v) for v in (a, b, a * a, b * b, a * b))
    var_a, var_b, covariance = aa - mean_a**2, bb - mean_b**2, ab - mean_a * mean_b
    mean_a, mean_b = mean_a + shift, mean_b + shift
    c1, c2 = (K1 * span) ** 2, (K2 * span) ** 2
    index = ((2 * mean_a * mean_b + c1) * (2 * covariance + c2)) / (
        (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    )
    return np.asarray(index.reshape(len(x), -1).mean(1))


def _filtered(images: np.ndarray) -> np.ndarray:
    """Return images (N, H, W) filtered by the window of SSIM, (N, H - 10, W - 10)."""
    places = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-0.5 * (places / SIGMA) ** 2)
    weights /= weights.sum()
    for axis in (1, 2):
        length = images.shape[axis] - WINDOW + 1
        parts = [
            w * images.take(range(i, i + length), axis) for i, w in enumerate(weights.tolist())
        ]
        images = np.sum(parts, 0)
    return images
