"""Objectives with several updates: each has its own optimiser, and a run resumes to the bit."""

import copy
from typing import Any

import pytest
import torch
import torch.nn as nn
from torch import Tensor

import vaestro as vs
from tests.conftest import make_data, make_space, make_values
from vaestro.loop import Training
from vaestro.objectives import Loss, TrainingObjective, elbo
from vaestro.optimizers import SGD
from vaestro.spaces import Batch, Kind
from vaestro.updates import Update

DELAY = 5


class Adversarial(TrainingObjective):
    """An adversarial autoencoder: a discriminator tells codes from draws of the prior, and the
    model is trained against it (Makhzani et al. 2016)."""

    def __init__(self, units: int, clip: float | None = None) -> None:
        super().__init__(elbo)
        self.discriminator, self.clip = nn.Linear(units, 1), clip

    def updates(self, model: vs.models.LatentModel) -> list[Update]:
        return [
            Update("model", list(model.parameters()), self.model_loss),
            Update(
                "discriminator",
                list(self.discriminator.parameters()),
                self.discriminator_loss,
                optimizer=lambda parameters: SGD(parameters, momentum=0.5),
                lr=0.1,
                schedule=lambda step, steps: 1.0,
                clip=self.clip,
                first_step=DELAY,
            ),
        ]

    def model_loss(self, model: Any, batch: Batch, step: Tensor, noise: Tensor) -> Loss:
        draws = model.draw(batch, self.k, noise=noise)
        fooled = nn.functional.softplus(-self.discriminator(draws.z[0])).mean()
        bound = elbo(draws).mean()
        loss = fooled - bound
        reported = (bound, draws.total_rate.mean(), draws.distortion.mean(), loss)
        return Loss(loss, *(t.detach() for t in reported))

    def discriminator_loss(self, model: Any, batch: Batch, step: Tensor, noise: Tensor) -> Loss:
        with torch.no_grad():
            codes = model.draw(batch, self.k, noise=noise).z[0]
        drawn = noise[0].flip(0)
        told = nn.functional.softplus(self.discriminator(codes)).mean()
        return Loss.only(told + nn.functional.softplus(-self.discriminator(drawn)).mean())


def start(clip: float | None = None, **options: Any) -> Training:
    space = make_space(Kind.BINARY, (6,))
    data = make_data(space, make_values(space, 200))
    torch.manual_seed(0)
    model = vs.build(space, latent=3, network="mlp:width=8")
    return vs.training(
        model,
        Adversarial(3, clip),
        data,
        **{"steps": 30, "batch": 32, "device": "cpu", "compile": "off", **options},
    )


def test_each_update_has_its_own_parameters_optimiser_and_first_step() -> None:
    run = start()
    first, second = run.updaters
    assert type(first.optimizer) is not type(second.optimizer)
    discriminator = run.objective.discriminator  # type: ignore[union-attr]
    before = copy.deepcopy(discriminator.state_dict())
    for step in run:
        same = all(torch.equal(v, discriminator.state_dict()[k]) for k, v in before.items())
        assert same == (step.index <= DELAY)
        if step.index == DELAY + 2:
            break
    lines = [r.line() for s in run for r in s.records if r.split == "train"]
    assert 0 < lines[-1]["discriminator_loss"] < 3  # type: ignore[operator]


def test_each_update_is_clipped_by_itself() -> None:
    run = start(clip=1e-4)
    discriminator = run.objective.discriminator  # type: ignore[union-attr]
    for step in run:
        if step.index == DELAY:
            before = discriminator.weight.detach().clone()
        if step.index == DELAY + 1:
            break
    moved = float((discriminator.weight.detach() - before).norm())
    assert 0 < moved <= 0.1 * 1e-4 * 1.001


@pytest.mark.parametrize("stop", [3, 7, 16])
def test_several_updates_resume_to_the_bit(stop: int) -> None:
    def lines(step: vs.loop.Step) -> list[dict[str, Any]]:
        found = [r.line() for r in step.records]
        return [
            {k: v for k, v in line.items() if k not in ("seconds", "examples_per_second")}
            for line in found
        ]

    whole, stopped = start(), start()
    expected = [line for step in whole for line in lines(step)]
    got: list[dict[str, Any]] = []
    for step in stopped:
        got += lines(step)
        if step.index == stop:
            break
    resumed = start()
    resumed.load(*stopped.state())
    got += [line for step in resumed for line in lines(step)]
    assert got == expected
    a, b = whole.state()[0], resumed.state()[0]
    assert {"discriminator.optimizer.velocity.0", "optimizer.taken"} <= a.keys()
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_updates_without_parameters_or_of_one_name_are_refused() -> None:
    class Twice(TrainingObjective):
        def updates(self, model: vs.models.LatentModel) -> list[Update]:
            return [Update("one", list(model.parameters()), vs.Objective()) for _ in range(2)]

    space = make_space(Kind.BINARY, (6,))
    data = make_data(space, make_values(space, 40))
    model = vs.build(space, latent=3, network="mlp:width=8")
    with pytest.raises(ValueError, match="expected updates of different names; got one, one"):
        vs.training(model, Twice(elbo), data, steps=2, device="cpu")
    with pytest.raises(ValueError, match="expected lr above 0 for update x; got 0"):
        Update("x", [], vs.Objective(), lr=0.0)
