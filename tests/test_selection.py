"""Which weights a run keeps: the best by the objective that was asked for, once its schedules have
settled."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import vaestro as vs
from tests.conftest import make_data, make_space
from vaestro.cli import main
from vaestro.data import Data
from vaestro.gradients import GumbelSoftmax
from vaestro.loop import Training, validate
from vaestro.penalties import Capacity, Dip, FreeBits, Mmd, TotalCorrelation
from vaestro.runs import Job, resume
from vaestro.schedules import Cyclical, Geco, Schedule, Sigmoid
from vaestro.selection import Score, Selection
from vaestro.spaces import Kind

NETWORK = "mlp:width=12"


def started(data: Data, objective: vs.Objective | None = None, **options: Any) -> Training:
    torch.manual_seed(0)
    model = vs.build(data.space, latent=3, network=NETWORK)
    return vs.training(
        model,
        objective or vs.Objective(),
        data,
        **{"steps": 120, "batch": 32, "device": "cpu", **options},
    )


def lines_of(training: Training) -> list[dict[str, Any]]:
    return [r.line() for step in training for r in step.records]


def loss_of(line: dict[str, Any], objective: vs.Objective) -> float:
    """Add the terms of a line up, as the documentation of metrics.jsonl says."""
    terms = {name: line[name] for name in objective.terms}
    first = (
        terms.pop(objective.rate.name)
        if objective.rate is not None
        else line["beta"] * line["rate"]
    )
    return float(line["distortion"] + first + sum(terms.values()))


@pytest.mark.parametrize("beta", [0.0, 0.05, 1.0, 4.0])
def test_the_kept_weights_have_the_lowest_validation_loss(binary_data: Data, beta: float) -> None:
    training = started(binary_data, vs.Objective(beta=beta), lr=1e-2, steps=300)
    valid = [line for line in lines_of(training) if line["split"] == "valid"]
    best = min(valid, key=lambda line: line["distortion"] + beta * line["rate"])
    assert training.kept_step == best["step"]
    assert best["objective"] == pytest.approx(best["distortion"] + beta * best["rate"], abs=1e-5)
    found = validate(training.model, training.objective, training.valid, 0, "cpu")
    assert found.objective == pytest.approx(best["objective"], abs=1e-5)
    if beta == 0:  # without a weight on the rate the unweighted bound chooses an early step
        assert best["step"] > 3 * max(valid, key=lambda line: line["bound"])["step"]


OBJECTIVES = {
    "free bits": lambda: vs.Objective(rate=FreeBits(2.0)),
    "smooth free bits": lambda: vs.Objective(rate=FreeBits(1.0, group="all", smooth=0.5)),
    "capacity": lambda: vs.Objective(rate=Capacity(to=4.0, steps=60)),
    "penalties": lambda: vs.Objective(
        penalties=[TotalCorrelation(weight=3.0), Dip(off=2.0, diagonal=1.0), Mmd(weight=20.0)]
    ),
    "both": lambda: vs.Objective(
        rate=FreeBits(0.5), penalties=[TotalCorrelation(weight=3.0)], beta=vs.Ramp(0, 2, steps=60)
    ),
    "two draws": lambda: vs.Objective(k=2, beta=vs.Ramp(0, 0.5, steps=60)),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_loss_has_one_meaning_in_training_and_validation(binary_data: Data, name: str) -> None:
    objective = OBJECTIVES[name]()
    lines = lines_of(started(binary_data, objective))
    assert {line["split"] for line in lines} == {"train", "valid"}
    for line in lines:
        if objective.settled(line["step"] - 20):  # the beta of a training line is its last one
            assert line["loss"] == pytest.approx(loss_of(line, objective), abs=1e-4)
        if line["split"] == "valid" and line["settled"]:
            assert (
                line["objective"] == pytest.approx(line["loss"], rel=1e-6)
                or objective.beta.adaptive
            )
    # Validation of the training data, in batches of its size, gives the training loss, but for the
    # average of the weights.
    train, valid = (
        next(line for line in reversed(lines) if line["split"] == split)
        for split in ("train", "valid")
    )
    for term in objective.terms:
        assert valid[term] == pytest.approx(train[term], rel=0.5, abs=0.5)


@pytest.mark.parametrize("name", ["gaussian:variance=optimal", "categorical"])
def test_the_logged_loss_is_that_of_the_reported_model(binary_data: Data, name: str) -> None:
    """Training optimises another density: a variance that is optimal for each batch, or relaxed
    latents."""
    torch.manual_seed(0)
    r = np.random.default_rng(0)
    x = (r.normal(size=(400, 2)) @ r.normal(size=(2, 6)) + r.standard_t(3, (400, 6))).astype(
        np.float32
    )
    if name == "categorical":
        data = binary_data
        model = vs.build(data.space, latent=4, posterior="categorical:codes=4", network=NETWORK)
        objective = vs.Objective(beta=0.5, gradient=GumbelSoftmax())
    else:
        data = make_data(make_space(Kind.REAL, (6,)), x)
        model, objective = (
            vs.build(data.space, latent=2, likelihood=name, network=NETWORK),
            vs.Objective(beta=0.5),
        )
    training = vs.training(model, objective, data, steps=40, batch=32, device="cpu", compile="off")
    for line in lines_of(training):
        assert line["loss"] == pytest.approx(line["distortion"] + 0.5 * line["rate"], rel=1e-5)


@pytest.mark.parametrize(
    ("objective", "settles"),
    [
        (lambda: vs.Objective(beta=vs.Ramp(0, 1, steps=50)), 50),
        (lambda: vs.Objective(beta=vs.Ramp(0, 0.01, share=0.5)), 60),
        (lambda: vs.Objective(beta=Sigmoid(steps=40)), 40),
        (lambda: vs.Objective(beta=Cyclical(cycles=4, rise=0.5, steps=80)), 70),
        (lambda: vs.Objective(rate=Capacity(to=2.0, steps=90)), 90),
    ],
)
def test_weights_are_kept_only_among_validations_after_the_schedules(
    binary_data: Data, objective: Any, settles: int
) -> None:
    made = objective()
    training = started(binary_data, made, patience=1000)
    valid = [line for line in lines_of(training) if line["split"] == "valid"]
    assert [line["settled"] for line in valid] == [line["step"] >= settles for line in valid]
    after = [line for line in valid if line["settled"]]
    assert 0 < len(after) < len(valid)
    assert training.selection.validations == len(after)
    assert training.kept_step == min(after, key=lambda line: line["objective"])["step"]
    assert "after the schedules had settled" in training.kept_sentence()


def test_patience_begins_when_the_schedules_have_settled(binary_data: Data) -> None:
    training = started(
        binary_data, vs.Objective(beta=vs.Ramp(0, 0.05, steps=200)), patience=2, lr=0.05, steps=4000
    )
    lines = lines_of(training)
    assert training.stopped_early
    assert lines[-1]["step"] > 200
    after = [line for line in lines if line["split"] == "valid" and line["settled"]]
    assert min(line["objective"] for line in after) == after[-3]["objective"]


def test_an_adaptive_weight_is_compared_with_what_it_is_now() -> None:
    geco = Geco(target=10.0)
    selection = Selection(vs.Objective(beta=geco))
    weights = {"w": torch.zeros(1)}

    def see(step: int, log_multiplier: float, rate: float, distortion: float) -> None:
        geco.average.fill_(0.0)
        geco.log_multiplier.fill_(log_multiplier)
        beta = math.exp(-log_multiplier)
        selection.see(step, Score(distortion + beta * rate, rate, beta), weights)

    see(1, 0.0, 4.0, 12.0)  # 16 at beta 1
    see(2, math.log(4.0), 6.0, 11.0)  # 12.5 at beta 1/4, where the first has 13
    assert selection.best_step == 2
    see(3, math.log(4.0), 2.0, 12.2)  # 12.7
    assert selection.best_step == 2
    see(4, 0.0, 3.0, 12.5)  # 15.5 at beta 1, where the second now has 17 and not 12.5
    assert selection.best_step == 4
    # half of the target off: lambda moves again, and what came before was not the end of the
    # schedule
    geco.average.fill_(5.0)
    selection.see(5, Score(-100.0, 0.0, 1.0), weights)
    assert (selection.best, selection.validations) == (None, 0)


def test_geco_settles_at_its_target(binary_data: Data) -> None:
    training = started(
        binary_data, vs.Objective(beta=Geco(target=9.0, speed=0.02)), steps=1600, lr=5e-3
    )
    valid = [line for line in lines_of(training) if line["split"] == "valid"]
    assert not valid[0]["settled"]
    moving = [line["step"] for line in valid if not line["settled"]]
    assert max(moving) < training.kept_step
    kept = next(line for line in valid if line["step"] == training.kept_step)
    assert kept["settled"]
    assert kept["distortion"] == pytest.approx(9.0, rel=0.05)


def test_keep_last_keeps_the_last_weights(binary_data: Data) -> None:
    best, last = (
        started(binary_data, vs.Objective(beta=0.0), keep=keep, lr=0.02, steps=400)
        for keep in ("best", "last")
    )
    for training in (best, last):
        list(training)
    assert best.kept_step < last.kept_step == 400
    average = last.average.state_dict()
    assert all(torch.equal(v, average[k]) for k, v in last.model.state_dict().items())
    assert last.kept_sentence() == "kept the weights of the last step, 400 (--keep last)"
    with pytest.raises(ValueError, match=r"expected keep best or last; got 'first'"):
        started(binary_data, keep="first")  # type: ignore[arg-type]


def test_what_is_kept_is_said_and_stored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    r = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", (r.random((400, 16)) < r.random(16)).astype(np.uint8))
    run = tmp_path / "run"
    options = [
        "--latent",
        "2",
        "--network",
        NETWORK,
        "--steps",
        "60",
        "--batch",
        "32",
        "--beta",
        "0.01",
        "--device",
        "cpu",
    ]
    assert main(["train", str(tmp_path / "x.npy"), *options, "--run", str(run)]) == 0
    said = capsys.readouterr().out
    valid = [line for line in vs.Run(run).metrics() if line["split"] == "valid"]
    best = min(valid, key=lambda line: line["objective"])
    sentence = f"kept the weights of step {best['step']}, which have the lowest loss of "
    assert (
        sentence in said
        and f" validations: {best['objective']:,.2f} nats (distortion + 0.01 rate)" in said
    )
    kept = vs.Run(run).kept
    assert kept is not None and kept["step"] == best["step"] and sentence in kept["why"]
    main(["info", str(run)])
    assert sentence in capsys.readouterr().out


def test_untrained_weights_are_never_kept_silently(binary_data: Data) -> None:
    training = started(binary_data, lr=1e-9, steps=13)
    training.selection.see(0, Score(-1e9, 0.0, 1.0), training.average.state_dict())
    list(training)
    assert "before training" in training.kept_sentence()


@pytest.mark.parametrize("keep", ["best", "last"])
def test_a_run_that_was_stopped_selects_as_one_that_was_not(tmp_path: Path, keep: str) -> None:
    values = (np.random.default_rng(0).random((300, 8)) < 0.3).astype(np.uint8)
    options: dict[str, Any] = {
        "latent": 2,
        "network": NETWORK,
        "steps": 60,
        "batch": 32,
        "device": "cpu",
        "beta": "warmup:to=0.1,steps=20",
        "keep": keep,
        "free_bits": 0.3,
        "penalty": ["total-correlation:weight=2"],
    }
    whole = vs.train(values, run=tmp_path / "a", **options)
    with Job.new(values, run=tmp_path / "b", **options) as job:
        for step in job:
            if step.index == 37:
                job.checkpoint()
                break
    again = resume(tmp_path / "b")
    assert whole.kept == again.kept

    def lines(run: vs.Run) -> list[dict[str, Any]]:
        return [
            {k: v for k, v in line.items() if k not in ("seconds", "examples_per_second")}
            for line in run.metrics()
        ]

    assert lines(whole) == lines(again)


def test_a_state_of_an_older_version_goes_on(binary_data: Data) -> None:
    """It has a best bound in place of a best loss, and sums without terms."""
    for objective, kept in ((vs.Objective(), 25), (vs.Objective(beta=0.5), None)):
        training = started(binary_data, objective, steps=52)
        for step in training:
            if step.index == 26:
                break
        tensors, numbers = training.state()
        best = numbers.pop("best")
        del numbers["validations"]
        older = json.loads(json.dumps({**numbers, "best_bound": -best[0]}))
        resumed = started(binary_data, objective, steps=52)
        resumed.load({**tensors, "sums": tensors["sums"][:6]}, older)
        if kept is None:
            assert resumed.selection.weights is None
        else:
            assert resumed.kept_step == training.kept_step == kept
        list(resumed)
        assert resumed.kept_step > 25


class Normalised(nn.Module):
    """A user's network with running statistics and an integer buffer."""

    def __init__(self, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> None:
        super().__init__()
        self.outputs = outputs
        self.layers = nn.Sequential(
            nn.Linear(math.prod(inputs), 24),
            nn.BatchNorm1d(24),
            nn.Tanh(),
            nn.Linear(24, math.prod(outputs)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.float().flatten(1)).unflatten(1, self.outputs)


def test_running_statistics_reach_the_weights_in_use() -> None:
    r = np.random.default_rng(0)
    centres = r.random((4, 16)) < 0.5
    values = (centres[r.integers(0, 4, 700)] ^ (r.random((700, 16)) < 0.05)).astype(np.uint8)
    data = make_data(make_space(Kind.BINARY, (16,)), values[:500], values[500:])
    torch.manual_seed(0)
    model = vs.build(
        data.space, latent=3, encoder="tests.test_selection:Normalised", decoder="mlp:width=24"
    )
    training = vs.training(
        model, vs.Objective(), data, steps=300, batch=50, lr=5e-3, device="cpu", keep="last"
    )
    list(training)
    norm = next(m for m in model.modules() if isinstance(m, nn.BatchNorm1d))
    assert norm.num_batches_tracked is not None and int(norm.num_batches_tracked) == 300
    inputs: list[Tensor] = []
    norm.register_forward_pre_hook(lambda _, x: inputs.append(x[0].detach()))
    with torch.no_grad():
        model.features(data.train.batch(slice(0, 500)))
    torch.testing.assert_close(norm.running_mean, inputs[0].mean(0), rtol=0.1, atol=0.1)
    torch.testing.assert_close(norm.running_var, inputs[0].var(0), rtol=0.2, atol=0.05)
    # The bound of the weights in use is that of the network with statistics of the whole training
    # data.
    found = validate(model, training.objective, training.valid, 0, "cpu").bound
    norm.running_mean, norm.running_var = inputs[0].mean(0), inputs[0].var(0)
    assert found == pytest.approx(
        validate(model, training.objective, training.valid, 0, "cpu").bound, abs=0.1
    )


def test_a_frozen_part_keeps_its_running_statistics() -> None:
    values = (np.random.default_rng(0).random((200, 16)) < 0.5).astype(np.uint8)
    data = make_data(make_space(Kind.BINARY, (16,)), values)
    torch.manual_seed(0)
    model = vs.build(
        data.space, latent=3, encoder="tests.test_selection:Normalised", decoder="mlp:width=24"
    )
    before = {k: v.clone() for k, v in model.posterior.state_dict().items()}
    list(
        vs.training(
            model, vs.Objective(), data, steps=20, batch=50, device="cpu", freeze=["posterior"]
        )
    )
    assert all(torch.equal(v, before[k]) for k, v in model.posterior.state_dict().items())


def test_a_schedule_of_the_users_own_settles_when_it_reaches_its_last_value() -> None:
    class Steps(Schedule):
        def forward(self, step: Tensor) -> Tensor:
            return torch.where(step < 30, 0.0, 1.0)

    objective = vs.Objective(beta=Steps(1.0))
    assert [objective.settled(n) for n in (0, 29, 30, 1000)] == [False, False, True, True]
