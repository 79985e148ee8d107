"""Compare likelihoods with a scale per cell, a shared scale, and a shared standardised scale.

    python bench/scales.py [--steps 1500]

The last one was the default before parts had versions. Data: 20 columns from 4 factors with equal
noise (22,000 rows); a table of 200 rows and 1,000 columns from 5 factors; and wine, diabetes and
breast cancer from scikit-learn. For the first two, the exact log-density is printed as well. Bounds
are IWAE with 200 draws on test data, in nats.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine

import vaestro as vs
from vaestro.data.tables import frame_of
from vaestro.frames import Frame

ARRAYS = (
    "gaussian:version=1",
    "gaussian",
    "gaussian:variance=shared",
    "gaussian:variance=optimal",
    "student-t:version=1",
    "student-t",
)
TABLES = ("table:version=1", "table", "table:real=student-t,version=1", "table:real=student-t")


def log_normal(x: np.ndarray, covariance: np.ndarray) -> float:
    """Return the mean log-density of N(0, covariance) over rows."""
    normal = torch.distributions.MultivariateNormal(
        torch.zeros(len(covariance), dtype=torch.float64), torch.from_numpy(covariance)
    )
    return float(normal.log_prob(torch.from_numpy(x)).mean())


def factors(
    rows: int, columns: int, count: int, noise: float, sizes: float
) -> tuple[np.ndarray, np.ndarray]:
    """Draw data (rows, columns) from some factors with equal noise, and return their covariance as
    well; `sizes` varies the scales of the columns."""
    r = np.random.default_rng(0)
    weights = r.normal(size=(columns, count)) * np.exp(sizes * r.normal(size=(columns, 1)))
    x = r.normal(size=(rows, count)) @ weights.T + noise * r.normal(size=(rows, columns))
    return x, weights @ weights.T + noise**2 * np.eye(columns)


def contests(steps: int) -> Iterator[tuple[str, vs.Data, tuple[str, ...], int, int, float | None]]:
    """Yield name, data, likelihoods, latent units, steps, and the exact log-density if it is
    known."""
    x, covariance = factors(22_000, 20, 4, 0.5, 0.7)
    data = vs.load(x)
    yield (
        "20 columns",
        data,
        ARRAYS,
        4,
        steps,
        log_normal(np.asarray(data.test.outward(), np.float64), covariance),
    )
    x, covariance = factors(200, 1000, 5, 0.5, 0.0)
    data = vs.load(frame_of({f"c{i}": x[:, i] for i in range(1000)}))
    rows = data.test.outward()
    assert isinstance(rows, Frame)
    exact = log_normal(
        np.stack([np.asarray(rows.columns[f"c{i}"], np.float64) for i in range(1000)], 1),
        covariance,
    )
    yield "200 x 1,000 table", data, TABLES, 8, 200, exact
    for name, source in (
        ("wine", load_wine),
        ("diabetes", load_diabetes),
        ("breast cancer", load_breast_cancer),
    ):
        yield name, vs.load(source().data), ARRAYS, 4, steps, None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=1500)
    options = parser.parse_args()
    print("| data | steps | likelihood | ELBO | IWAE | exact |")
    print("|---|---|---|---|---|---|")
    for name, data, likelihoods, latent, steps, exact in contests(options.steps):
        for likelihood in likelihoods:
            torch.manual_seed(0)
            model = vs.build(data.space, latent=latent, likelihood=likelihood)
            for _ in vs.training(model, vs.Objective(), data, steps=steps, device="cpu"):
                pass
            found = vs.evaluate(model, data.test, k=200, limit=min(len(data.test), 500))
            elbo, iwae = (e.mean()[0] for e in found.estimates)
            shown = "" if exact is None else f"{exact:.2f}"
            print(
                f"| {name} | {steps:,} | `{likelihood}` | {elbo:.2f} | {iwae:.2f} | {shown} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
