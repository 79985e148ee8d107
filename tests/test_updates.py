"""Objectives with several updates: each has its own optimiser, and a run resumes to the bit."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn as nn
from torch import Tensor

import vaestro as vs
from tests.conftest import make_data, make_space, make_values
from vaestro.loop import Training
from vaestro.objectives import Loss, TrainingObjective, elbo
from vaestro.optimizers import SGD
from vaestro.runs import Job
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


SCRIPT = """
import json, sys
from vaestro.runs import Job
for _ in Job.new(sys.argv[1], run=sys.argv[2], **json.loads(sys.argv[3])):
    pass
"""


def test_a_table_without_counts_trains_on_two_processes_as_on_one(tmp_path: Path) -> None:
    r = np.random.default_rng(0)
    rows = [
        f"{a:.3f},{b:.3f},{'xyz'[c]}"
        for a, b, c in zip(*r.normal(size=(2, 200)), r.integers(0, 3, 200), strict=True)
    ]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,c", *rows]) + "\n")
    (tmp_path / "script.py").write_text(SCRIPT)
    options = {"latent": 2, "steps": 20, "batch": 32, "device": "cpu", "network": "mlp:width=8"}
    for _ in Job.new(str(tmp_path / "t.csv"), run=tmp_path / "one", **options):
        pass
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    names = [str(tmp_path / name) for name in ("script.py", "t.csv", "two")]
    done = subprocess.run(
        [sys.executable, *launch, *names, json.dumps(options)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    runs = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    assert len(runs[0]) == len(runs[1]) > 2
    for one, two in zip(*runs, strict=True):
        assert one["bound"] == pytest.approx(two["bound"], rel=2e-4, abs=2e-4)
