"""Data of the study, each drawn from a known distribution.

Every function has the number of rows and a seed as arguments. It returns an array, a table as
{column: values}, or a list of sentences. Rows are equal or close to each other only by chance.
"""

from __future__ import annotations

import numpy as np

Table = dict[str, np.ndarray]
LADDER = 0.5  # ratio of the variances of a factor and of the factor before it


def basis(cells: int) -> np.ndarray:
    """Return orthonormal directions, (cells, cells), the same at every call."""
    return np.asarray(np.linalg.qr(np.random.default_rng(cells).normal(size=(cells, cells)))[0])


def signals(strength: float, factors: int) -> np.ndarray:
    """Return the variance of the data along each factor, without noise: strength, strength / 2,
    ..."""
    return strength * LADDER ** np.arange(factors)


def linear(
    n: int,
    seed: int = 0,
    *,
    cells: int = 10,
    factors: int = 3,
    strength: float = 8.0,
    noise: float = 0.25,
) -> np.ndarray:
    """Draw x = W z + e, whose covariance has the eigenvalues signals + noise and noise:
    probabilistic PCA."""
    r = np.random.default_rng(seed)
    z = r.normal(size=(n, factors)) * np.sqrt(signals(strength, factors))
    return z @ basis(cells)[:, :factors].T + np.sqrt(noise) * r.normal(size=(n, cells))


def heavy(
    n: int,
    seed: int = 0,
    *,
    cells: int = 10,
    factors: int = 3,
    df: float = 1.5,
    strength: float = 8.0,
) -> np.ndarray:
    """Draw x = W z + e with Student's t as noise: for df below 2 it has no variance."""
    r = np.random.default_rng(seed)
    z = r.normal(size=(n, factors)) * np.sqrt(signals(strength, factors))
    return z @ basis(cells)[:, :factors].T + 0.2 * r.standard_t(df, size=(n, cells))


def templates(
    n: int, seed: int = 0, *, cells: int = 100, classes: int = 10, flips: float = 0.15
) -> np.ndarray:
    """Draw one of some binary templates and flip a share of its cells."""
    made = np.random.default_rng(classes).random((classes, cells)) < 0.5
    r = np.random.default_rng(seed)
    chosen = made[r.integers(0, classes, n)]
    return (chosen ^ (r.random((n, cells)) < flips)).astype(np.uint8)


def bars(
    n: int, seed: int = 0, *, side: int = 8, share: float = 0.4, flips: float = 0.15
) -> np.ndarray:
    """Draw binary images (n, side, side) of horizontal bars, each present independently, and flip a
    share of the cells."""
    r = np.random.default_rng(seed)
    return ((r.random((n, side, 1)) < share) ^ (r.random((n, side, side)) < flips)).astype(np.uint8)


def binary(
    n: int, seed: int = 0, *, cells: int = 64, factors: int = 3, strength: float = 1.0
) -> np.ndarray:
    """Draw Bernoulli(sigmoid(W z)) with few normal factors."""
    loadings = np.random.default_rng(cells).normal(size=(factors, cells))
    r = np.random.default_rng(seed)
    logits = r.normal(size=(n, factors)) @ loadings * strength
    return (r.random((n, cells)) < 1 / (1 + np.exp(-logits))).astype(np.uint8)


def curve(n: int, seed: int = 0, *, cells: int = 12, noise: float = 0.5) -> np.ndarray:
    """Draw points near a curved surface with two coordinates, which has no linear
    parametrisation."""
    loadings = np.random.default_rng(cells).normal(size=(4, cells))
    r = np.random.default_rng(seed)
    u = r.normal(size=(n, 2))
    bent = np.column_stack([u[:, 0], u[:, 1], np.sin(2 * u[:, 0]), u[:, 0] * u[:, 1]])
    return bent @ loadings + noise * r.normal(size=(n, cells))


def counts(
    n: int, seed: int = 0, *, cells: int = 30, factors: int = 2, dispersion: float = 5.0
) -> np.ndarray:
    """Draw gamma-Poisson counts whose log-means are linear in few factors."""
    g = np.random.default_rng(cells)
    loadings, level = g.normal(size=(factors, cells)) * 0.8, g.normal(1.5, 0.5, cells)
    r = np.random.default_rng(seed)
    mean = np.exp(level + r.normal(size=(n, factors)) @ loadings)
    return r.poisson(mean * r.gamma(dispersion, 1 / dispersion, size=mean.shape)).astype(np.int32)


def table(n: int, seed: int = 0) -> Table:
    """Draw real, count, binary and category columns that depend on two factors."""
    r = np.random.default_rng(seed)
    z = r.normal(size=(n, 2))

    def real(a: float, b: float, noise: float) -> np.ndarray:
        return a * z[:, 0] + b * z[:, 1] + noise * r.normal(size=n)

    plants = np.array(["north", "south", "east", "west"])
    return {
        "temperature": 20 + 5 * real(1, 0, 0.3),
        "pressure": 3 + 0.2 * real(0.7, 0.7, 0.3),
        "flow": 100 + 30 * real(0, 1, 0.3),
        "power": 1e3 + 200 * real(0.7, -0.7, 0.3),
        "vibration": real(-1, 0.3, 0.3),
        "alarms": r.poisson(np.exp(0.5 + 0.8 * z[:, 0])),
        "on": (r.random(n) < 1 / (1 + np.exp(-3 * z[:, 1]))).astype(int),
        "plant": plants[(2 * (z[:, 0] > 0) + (z[:, 1] > 0)).astype(int)],
    }


def waves(n: int, seed: int = 0, *, length: int = 32, noise: float = 0.5) -> np.ndarray:
    """Draw one sine wave per row with noise, of random phase, amplitude and frequency."""
    r = np.random.default_rng(seed)
    t = np.linspace(0, 2 * np.pi, length)
    phase, size, speed = (
        r.uniform(0, 2 * np.pi, (n, 1)),
        r.uniform(0.5, 1.5, (n, 1)),
        r.uniform(0.8, 1.6, (n, 1)),
    )
    return size * np.sin(speed * t + phase) + noise * r.normal(size=(n, length))


def photographs(n: int, seed: int = 0, *, side: int = 12) -> np.ndarray:
    """Draw smooth grey images, uint8 (n, side, side): a gradient, a spot and noise of ten grey
    levels."""
    r = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : side * 1j, 0 : 1 : side * 1j]
    a, b, cy, cx = (r.uniform(low, 1, (n, 1, 1)) for low in (-1, -1, 0, 0))
    spot = np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 0.05)
    grey = (
        110 + 50 * (a * (y - 0.5) + b * (x - 0.5)) + 90 * spot + 10 * r.normal(size=(n, side, side))
    )
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8)


def shares(n: int, seed: int = 0, *, cells: int = 12) -> np.ndarray:
    """Draw values inside (0, 1): logistic functions of two factors and noise."""
    loadings = np.random.default_rng(cells).normal(size=(2, cells))
    r = np.random.default_rng(seed)
    return np.asarray(
        1 / (1 + np.exp(-(r.normal(size=(n, 2)) @ loadings + 0.2 * r.normal(size=(n, cells)))))
    )


TOPICS = {
    "weather": ("rain", "snow", "wind", "fog"),
    "food": ("bread", "soup", "rice", "fish"),
    "music": ("drum", "flute", "song", "bell"),
    "sport": ("goal", "team", "race", "ball"),
    "trade": ("price", "ship", "gold", "debt"),
    "garden": ("rose", "tree", "seed", "leaf"),
}


def sentences(n: int, seed: int = 0, *, words: int = 12) -> list[str]:
    """Draw sentences of independent words that all belong to one topic."""
    r = np.random.default_rng(seed)
    topics = list(TOPICS.values())
    return [
        " ".join(topics[t][w] for w in r.integers(0, 4, words))
        for t in r.integers(0, len(topics), n)
    ]


def coins(n: int, seed: int = 0, *, cells: int = 64) -> np.ndarray:
    """Draw independent fair bits: there is nothing to encode."""
    return np.random.default_rng(seed).integers(0, 2, (n, cells)).astype(np.uint8)


def white(n: int, seed: int = 0, *, cells: int = 10) -> np.ndarray:
    """Draw independent normal cells: there is nothing to encode."""
    return np.random.default_rng(seed).normal(size=(n, cells))


def lone_counts(n: int, seed: int = 0, *, cells: int = 20) -> np.ndarray:
    """Draw independent Poisson counts: there is nothing to encode."""
    return np.random.default_rng(seed).poisson(4.0, (n, cells)).astype(np.int32)
