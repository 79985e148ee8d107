"""The interface of models: a hierarchy, whose q of one group depends on draws of another, is
evaluated and diagnosed through `draw` alone."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import final

import numpy as np
import pytest
import torch
import torch.nn as nn
from torch import Tensor

import vaestro as vs
from tests.conftest import make_data, make_space
from vaestro.densities import Density, Normal, PosteriorDensity, PriorDensity
from vaestro.diagnosis import measure
from vaestro.evaluation import evaluate
from vaestro.gradients import Gradient
from vaestro.models import Capabilities, Code, Draws, LatentModel
from vaestro.spaces import Batch, Kind


@final
class Chain(PosteriorDensity):
    """q(z_1 | x) q(z_2 | x, z_1), a normal chain in two units; scored at any z for the test."""

    def __init__(self, mean: Tensor, scales: tuple[float, float], slope: float) -> None:
        self._mean, self.scales, self.slope = mean, scales, slope  # (B, 2)

    @property
    def mean(self) -> Tensor:
        return self._mean

    def from_noise(self, noise: Tensor) -> Tensor:
        first = self._mean[:, 0] + self.scales[0] * noise[..., 0]
        second = self._mean[:, 1] + self.slope * (first - self._mean[:, 0])
        return torch.stack([first, second + self.scales[1] * noise[..., 1]], -1)

    def log_prob(self, value: Tensor) -> Tensor:
        centre = self._mean[:, 1] + self.slope * (value[..., 0] - self._mean[:, 0])
        law = torch.distributions.Normal
        first = law(self._mean[:, 0], self.scales[0]).log_prob(value[..., 0])
        return first + law(centre, self.scales[1]).log_prob(value[..., 1])

    def detach(self) -> Chain:
        return Chain(self._mean.detach(), self.scales, self.slope)


@final
class ChainPrior(PriorDensity):
    """p(z_1) p(z_2 | z_1) = N(0, 1) N(z_1 / 2, 1)."""

    def log_prob(self, value: Tensor) -> Tensor:
        first, second = value.unbind(-1)
        return -0.5 * (first.square() + (second - first / 2).square()) - math.log(2 * math.pi)

    def draw(
        self, n: int, generator: torch.Generator | None = None, temperature: float = 1.0
    ) -> Tensor:
        first, second = (temperature * torch.randn(2, n, generator=generator)).unbind(0)
        return torch.stack([first, first / 2 + second], -1)


@final
class Hierarchy(LatentModel):
    """x = z_2 in six cells, with noise of variance 1: log p(x) is that of a normal in closed form,
    and q is near the true posterior."""

    def __init__(self) -> None:
        super().__init__()
        self.space, self.units = make_space(Kind.REAL), (2,)
        self.gain = nn.Parameter(torch.tensor(0.05))

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(q_from_features=False, scored_anywhere=False)

    def covariance(self) -> Tensor:
        return torch.eye(6) + 1.25 * torch.ones(6, 6)  # Var(z_2) = 1 + 1/4

    def exact(self, x: Tensor) -> Tensor:
        law = torch.distributions.MultivariateNormal(torch.zeros(6), self.covariance())
        return law.log_prob(x)

    def draw(
        self,
        batch: Batch,
        k: int = 1,
        *,
        gradient: Gradient | None = None,
        noise: Tensor | None = None,
        features: Tensor | None = None,
    ) -> Draws:
        assert features is None, "a hierarchy has no features"
        total = batch.x.sum(-1)
        mean = torch.stack([self.gain * total, 0.15 * total], -1)
        q, p = Chain(mean, (0.95, 0.4), 0.07), ChainPrior()
        z = q.from_noise(self.noise(k, len(batch)) if noise is None else noise)
        log_px, log_pz = self.log_terms(batch, z)
        rate = (q.log_prob(z) - log_pz).unsqueeze(-1)
        return Draws(z, log_px, rate, q, p, self._px(z))

    def _px(self, z: Tensor) -> Normal:
        mean = z[..., 1:].expand(*z.shape[:-1], 6)
        return Normal(mean, torch.zeros_like(mean))

    def features(self, batch: Batch) -> Tensor:
        raise AssertionError("a hierarchy has no features")

    def q(self, features: Tensor) -> PosteriorDensity:
        raise AssertionError("a hierarchy has no single q")

    def noise(self, k: int, rows: int, generator: torch.Generator | None = None) -> Tensor:
        return torch.randn(k, rows, 2, generator=generator)

    def parts(self, noise: Tensor) -> tuple[Tensor, Tensor | None]:
        return noise, None

    def log_terms(
        self, batch: Batch, z: Tensor, jitter: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        law = torch.distributions.Normal(z[..., 1:], 1.0)
        return law.log_prob(batch.x).sum(-1), ChainPrior().log_prob(z)

    def draw_prior(
        self,
        n: int,
        given: Tensor | None = None,
        generator: torch.Generator | None = None,
        *,
        temperature: float = 1.0,
    ) -> Tensor:
        return ChainPrior().draw(n, generator, temperature)

    def simulate(
        self,
        n: int,
        given: Tensor | None = None,
        observed: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Batch, Tensor, Tensor | None]:
        z = self.draw_prior(n, None, generator)
        return Batch(z[:, 1:] + torch.randn(n, 6, generator=generator)), z, None

    def code(self, batch: Batch) -> Code:
        return Code(self.draw(batch).q.mean, None, "a chain of normals")

    def decode(self, z: Tensor, given: Tensor | None = None) -> Density:
        return self._px(z.unsqueeze(0))

    def sample(
        self,
        n: int,
        given: Tensor | None = None,
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Density:
        return self.decode(self.draw_prior(n, None, generator, temperature=temperature))

    def fit_to_data(self, pairs: Iterable[tuple[Batch, Tensor]]) -> None:
        pass


@pytest.fixture(scope="module")
def data() -> vs.Data:
    r = np.random.default_rng(0)
    x = r.normal(0, 1.118, (400, 1)) + r.normal(size=(400, 6))
    return make_data(make_space(Kind.REAL), x.astype(np.float32))


def test_a_hierarchy_is_bounded_by_draws_alone(data: vs.Data) -> None:
    model = Hierarchy()
    truth = model.exact(torch.from_numpy(np.asarray(data.test.values)))
    done = evaluate(model, data.test, k=400, methods="elbo,iwae,ais:n=20,start=prior,chains=8")
    order = done["ais"].index
    assert done["elbo"].nats.mean() < done["iwae"].nats.mean() <= float(truth.mean()) + 0.02
    np.testing.assert_allclose(done["iwae"].nats, truth, atol=0.3)
    np.testing.assert_allclose(done["ais"].nats, truth[order], atol=0.3)
    for method in ("gap", "information", "ais:start=posterior"):
        with pytest.raises(ValueError, match="expected"):
            evaluate(model, data.test, k=2, methods=method)


def test_a_hierarchy_is_trained_and_measured(data: vs.Data) -> None:
    model, objective = Hierarchy(), vs.Objective()
    before = model.gain.item()
    for _ in vs.training(model, objective, data, steps=30, lr=0.01):
        pass
    assert model.gain.item() != before
    measures = measure(model, data.train, data.valid, objective)
    assert measures.use is not None and measures.use.low > 0, "the decoder uses z"
    assert measures.information is None
