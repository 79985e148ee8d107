"""The training loop: resumption bit for bit, several processes, bad steps, averaging,
compilation."""

import json
import math
import mmap
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import vaestro as vs
from tests.conftest import make_data, make_space, make_values
from vaestro.cli import main
from vaestro.data import Data, Rows
from vaestro.loop import Diverged, Training, validate
from vaestro.options import normalised
from vaestro.randomness import Order, torch_generator
from vaestro.runs import Job, resume
from vaestro.spaces import Kind

NETWORK = "mlp:width=12"


def start(data: Data, objective: vs.Objective | None = None, **options: Any) -> Training:
    torch.manual_seed(0)
    model = vs.build(data.space, latent=3, network=NETWORK)
    return vs.training(
        model,
        objective or vs.Objective(),
        data,
        **{"steps": 40, "batch": 32, "device": "cpu", **options},
    )


def parameters(training: Training) -> list[torch.Tensor]:
    return [p.detach().clone() for p in training.core.model.parameters()]


def test_records_are_consistent(binary_data: Data) -> None:
    training = start(binary_data, vs.Objective(beta=vs.Ramp(0, 1, share=0.5)), steps=50)
    records = [r for step in training for r in step.records]
    assert records[0].split == "valid"
    assert records[0].step == 0
    assert [r.split for r in records[1:]] == ["train", "valid"] * ((len(records) - 1) // 2)
    # ceil of 12.5 steps an epoch, and the end
    assert {r.step for r in records if r.split == "train"} == {13, 25, 38, 50}
    for r in records:
        assert r.bound == pytest.approx(-(r.rate + r.distortion), abs=1e-3)
    first = records[1]
    assert first.beta == pytest.approx(12 / 25)
    assert first.loss < first.rate + first.distortion
    assert records[-1].beta == 1


def test_training_improves_the_bound_and_the_model_ends_with_the_kept_weights(
    binary_data: Data,
) -> None:
    training = start(binary_data, steps=400, lr=5e-3)
    records = [r for step in training for r in step.records if r.split == "valid"]
    best = max(records, key=lambda r: r.bound)
    assert best.bound > records[0].bound + 0.5
    assert training.kept_step == best.step
    again = validate(training.model, training.objective, training.valid, 0, "cpu")
    assert again[0] == pytest.approx(best.bound, abs=1e-6)


def test_validation_averages_over_data_and_not_over_batches() -> None:
    # Mistake 20. 700 rows make chunks of 512 and 188.
    space = make_space(Kind.BINARY, (6,))
    data = make_data(space, make_values(space, 700))
    training = start(data)
    bound, rate, distortion, *_ = validate(
        training.average, training.objective, data.valid, 0, "cpu"
    )
    pieces = [
        validate(training.average, training.objective, data.valid.take(n), 0, "cpu")
        for n in (512, 700)
    ]
    assert bound == pytest.approx(pieces[1][0])
    assert bound != pytest.approx(pieces[0][0], abs=1e-6)
    assert bound == pytest.approx(-(rate + distortion), abs=1e-5)


def test_the_average_is_the_exponential_average(binary_data: Data) -> None:
    training = start(binary_data, steps=30, ema=0.9)
    expected, index = parameters(training), 0
    for step in training:
        if step.loss is not None and (step.index % 8 == 0 or step.records):
            decay = min(0.9, step.index / (step.index + 10)) ** (step.index - index)
            expected = [
                decay * e + (1 - decay) * p
                for e, p in zip(expected, parameters(training), strict=True)
            ]
            index = step.index
            for a, e in zip(training.average.parameters(), expected, strict=True):
                torch.testing.assert_close(a, e, rtol=1e-5, atol=1e-6)
    assert index == 30


@pytest.mark.parametrize("stop", [1, 7, 8, 13, 20])
def test_a_state_continues_as_if_nothing_had_happened(binary_data: Data, stop: int) -> None:
    def objective() -> vs.Objective:
        return vs.Objective("iwae", k=2, beta=vs.Ramp(0, 1, steps=20))

    whole = start(binary_data, objective())
    lines = [r.line() for step in whole for r in step.records]
    first = start(binary_data, objective())
    got = []
    for step in first:
        got += [r.line() for r in step.records]
        if step.index == stop:
            break
    state = first.state()
    second = start(binary_data, objective())
    second.load(*state)
    got += [r.line() for step in second for r in step.records]
    for line in (*lines, *got):
        for clock in ("seconds", "examples_per_second"):
            line.pop(clock)
    assert got == lines
    final, other = whole.state()[0], second.state()[0]
    assert final.keys() == other.keys()
    assert all(torch.equal(final[k], other[k]) for k in final)


def test_a_steps_inputs_follow_from_seed_and_step_alone(binary_data: Data) -> None:
    training = start(binary_data, vs.Objective(k=2), steps=40, seed=3)
    seen: list[tuple[torch.Tensor, ...]] = []
    forward = training.updaters[0].forward

    def watched(batch: Any, number: torch.Tensor, noise: torch.Tensor, update: str) -> Any:
        seen.append((batch.x.clone(), noise.clone(), number.clone()))
        return forward(batch, number, noise, update)

    training.updaters[0].forward = watched
    list(training)
    order, ahead = Order(len(binary_data.train), 32, 3), training.inputs.ahead
    assert 1 < ahead < 40
    for step in range(40):
        block, at = divmod(step, ahead)
        noise = training.model.noise(
            ahead * 2, 32, torch_generator("cpu", 3, "noise", block)
        ).unflatten(0, (ahead, 2))
        assert torch.equal(seen[step][0], torch.from_numpy(binary_data.train.values[order(step)]))
        assert torch.equal(seen[step][1], noise[at])
        assert seen[step][2] == step


def test_rows_of_a_memory_map_are_asked_for_before_they_are_read(tmp_path: Path) -> None:
    size, page = 3 * mmap.PAGESIZE // 2, mmap.PAGESIZE
    asked: list[tuple[int, int, int]] = []

    class Told(mmap.mmap):
        def madvise(self, *advice: int) -> None:
            asked.append(advice)  # type: ignore[arg-type]

    values = np.random.default_rng(0).integers(0, 2, (8, size), dtype=np.uint8)
    (tmp_path / "values").write_bytes(bytes(128) + values.tobytes())
    with (tmp_path / "values").open("rb") as file:
        mapped: np.ndarray = np.ndarray(
            values.shape, np.uint8, Told(file.fileno(), 0, access=mmap.ACCESS_READ), 128
        )
    rows = Rows(mapped, make_space(Kind.BINARY, (size,)), "train", index=np.array([6, 1, 5]))
    assert np.array_equal(rows.gather(np.array([[2, 1]])).x[0], values[[5, 1]])
    assert [advice for advice, _, _ in asked] == [mmap.MADV_WILLNEED] * 2
    for (_, start, length), row in zip(asked, (5, 1), strict=True):
        assert start % page == 0
        assert start <= 128 + row * size < start + page
        assert start + length == 128 + (row + 1) * size


def test_a_run_killed_at_any_moment_resumes_to_the_same_files(tmp_path: Path) -> None:
    r = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", (r.random((400, 8, 8)) < r.random((1, 8, 8))).astype(np.uint8))
    arguments = [
        str(tmp_path / "x.npy"),
        "--latent",
        "2",
        "--network",
        "mlp:width=8",
        "--steps",
        "1500",
        "--batch",
        "32",
        "--device",
        "cpu",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    command = [sys.executable, "-m", "vaestro", "train"]
    assert main(["train", *arguments, "--run", str(whole), "--quiet"]) == 0
    process = subprocess.Popen(
        [*command, *arguments, "--run", str(killed)], env=environment, stdout=subprocess.PIPE
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (
        (killed / "metrics.jsonl").exists()
        and (killed / "metrics.jsonl").read_text().count("\n") > 5
    ):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)  # saves, and says how to go on
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"vaestro train --resume" in out
    (checkpoint,) = (killed / "checkpoints").iterdir()
    # A kill -9 later on: lines after the checkpoint and a half-written file are there.
    with (killed / "metrics.jsonl").open("a") as file:
        file.write('{"split": "train", "step": 99')
    (killed / "checkpoints" / "step-0000001499.safetensors.part").write_bytes(b"half")
    process = subprocess.Popen(
        [*command, "--resume", str(killed)], env=environment, stdout=subprocess.PIPE
    )
    size = (killed / "metrics.jsonl").stat().st_size
    while (
        time.monotonic() < deadline
        and process.poll() is None
        and (killed / "metrics.jsonl").stat().st_size <= size + 1500
    ):
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert checkpoint.exists()
    assert main(["train", "--resume", str(killed), "--quiet"]) == 0

    def lines(run: Path) -> list[dict[str, Any]]:
        found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        return [
            {k: v for k, v in line.items() if k not in ("seconds", "examples_per_second")}
            for line in found
        ]

    assert lines(whole) == lines(killed)
    for name in ("model.safetensors", "checkpoints/step-0000001500.safetensors"):
        a, b = load_file(whole / name), load_file(killed / name)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[k], b[k]) for k in a)


def test_resuming_before_the_first_checkpoint_starts_again(tmp_path: Path) -> None:
    values = make_values(make_space(Kind.BINARY, (6,)), 60)
    options: dict[str, Any] = {
        "latent": 2,
        "network": NETWORK,
        "steps": 12,
        "batch": 16,
        "device": "cpu",
    }
    whole = vs.train(values, run=tmp_path / "a", **options)
    with Job.new(values, run=tmp_path / "b", **options) as job:
        for _ in range(5):
            next(job)
    assert not list((tmp_path / "b" / "checkpoints").iterdir())
    again = resume(tmp_path / "b")
    a, b = load_file(whole.path / "model.safetensors"), load_file(again.path / "model.safetensors")
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert len(whole.metrics()) == len(again.metrics())
    longer = resume(tmp_path / "b", steps=20)
    assert longer.metrics()[-1]["step"] == 20
    assert longer.finished


def test_a_step_that_is_not_finite_is_skipped_and_counted(
    binary_data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = start(binary_data, steps=25)
    real = vs.Objective.forward

    def sometimes(
        self: vs.Objective, model: Any, batch: Any, step: torch.Tensor, noise: Any
    ) -> Any:
        loss = real(self, model, batch, step, noise)
        return loss._replace(loss=loss.loss * math.nan) if int(step) in (3, 4, 11) else loss

    monkeypatch.setattr(vs.Objective, "forward", sometimes)
    seen = {}
    for step in training:
        seen[step.index] = parameters(training)
    # steps 3 and 4, counted from 0
    assert all(torch.equal(a, b) for a, b in zip(seen[3], seen[5], strict=True))
    assert not torch.equal(seen[5][0], seen[6][0])
    assert training.updaters[0].sums.bad.tolist() == [3, 0]
    assert all(torch.isfinite(p).all() for p in training.model.parameters())


def test_many_bad_steps_end_the_run_with_the_last_good_weights(
    binary_data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = start(binary_data, steps=200)
    real = vs.Objective.forward
    monkeypatch.setattr(
        vs.Objective,
        "forward",
        lambda self, m, b, step, n: (
            real(self, m, b, step, n)._replace(loss=sum(p.sum() for p in m.parameters()) * math.inf)
            if int(step) >= 30
            else real(self, m, b, step, n)
        ),
    )
    with pytest.raises(Diverged, match=r"not finite in .* steps in a row"):
        for _ in training:
            pass
    assert training.index < 60
    assert all(torch.isfinite(v).all() for v in training.kept().values() if v.is_floating_point())
    assert 0 < training.kept_step <= 38


def test_gradients_are_clipped_by_norm(binary_data: Data) -> None:
    a, b = (
        start(binary_data, steps=1, clip=1e-3, optimizer="sgd:momentum=0", lr=1.0),
        start(binary_data, steps=1, clip=1e9, optimizer="sgd:momentum=0", lr=1.0),
    )
    moves = []
    for training in (a, b):
        before = parameters(training)
        next(training)
        next(training)
        moves.append(
            math.sqrt(
                sum(
                    float((p - q).square().sum())
                    for p, q in zip(parameters(training), before, strict=True)
                )
            )
        )
    # the one-cycle factor of the first of one step is 1/2
    assert moves[0] == pytest.approx(1e-3 / 2, rel=1e-3)
    assert moves[1] > 100 * moves[0]


def test_patience_stops_a_run(binary_data: Data) -> None:
    training = start(binary_data, steps=5000, patience=2, lr=0.05)
    steps = sum(1 for _ in training)
    assert steps < 5000
    assert training.stopped_early


def test_minutes_become_steps_before_the_first(binary_data: Data) -> None:
    training = start(binary_data, steps=None, minutes=0.05)
    fresh = start(binary_data, steps=training.steps)
    assert training.steps > 20
    # Timing leaves no trace: weights, optimiser and counters are as they were.
    assert all(
        torch.equal(a, b)
        for a, b in zip(training.state()[0].values(), fresh.state()[0].values(), strict=True)
    )
    begun = time.perf_counter()
    for _ in training:
        pass
    # 3 seconds were asked for; a noisy machine may take longer
    assert time.perf_counter() - begun < 12


def test_trace_of_earlier_versions_means_eager_steps() -> None:
    assert normalised({"compile": "trace"}) == {"compile": "off"}


class Outside(torch.nn.Module):
    """A layer of a user, which may have side effects that a graph does not capture."""

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, batch: Any) -> torch.Tensor:
        return self.layer(batch)  # type: ignore[no-any-return]


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_auto_compiles_long_runs_of_the_packages_own_parts(binary_data: Data) -> None:
    assert start(binary_data, compile="auto", steps=10**10).compile == "on"
    assert start(binary_data, compile="auto", steps=2000).compile == "off"
    assert start(binary_data, compile="auto", steps=10**10, precision="bf16").compile == "off"
    with pytest.raises(
        ValueError, match="expected one process, precision 32, parts that can be compiled"
    ):
        start(binary_data, compile="on", precision="bf16")
    model = vs.build(binary_data.space, latent=3, network=NETWORK)
    model.posterior.encoder = Outside(model.posterior.encoder)
    run = vs.training(model, vs.Objective(), binary_data, steps=10**10, device="cpu")
    assert run.compile == "off"


class Reading(torch.nn.Module):
    """Read a number from a tensor, which no record can."""

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, batch: Any) -> torch.Tensor:
        out: torch.Tensor = self.layer(batch)
        return out * (1.0 if float(out.detach().sum()) < 1e9 else 2.0)


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_what_does_not_compile_is_refused_if_asked_for_and_eager_with_auto(
    binary_data: Data, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of(how: str) -> Training:
        torch.manual_seed(0)
        model = vs.build(binary_data.space, latent=3, network=NETWORK)
        model.posterior.encoder = Reading(model.posterior.encoder)
        return vs.training(
            model, vs.Objective(), binary_data, steps=10**10, batch=32, compile=how, device="cpu"
        )

    monkeypatch.setattr(Reading, "__module__", "vaestro.networks")  # as one of the package's own
    automatic, plain = of("auto"), of("off")
    assert automatic.compile == "on"
    for training in (automatic, plain):
        for _ in zip(range(4), training, strict=False):
            pass
    assert automatic.compile == "off"
    (record,) = [r for r in caplog.records if r.name == "vaestro"]
    assert record.getMessage().startswith("compilation failed, so steps run eagerly (")
    assert all(
        torch.equal(a, b) for a, b in zip(parameters(automatic), parameters(plain), strict=True)
    )
    with pytest.raises(
        ValueError, match="expected --compile off for a step that cannot be compiled; got on"
    ):
        list(of("on"))


@pytest.mark.parametrize("wrong", ["loss", "weights"])
def test_a_compiled_step_that_computes_other_numbers_is_not_used(
    binary_data: Data, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    monkeypatch.setattr("vaestro.loop.compiling.BACKEND", "eager")
    monkeypatch.setattr("shutil.which", lambda name: name)

    def after(how: str, steps: int) -> tuple[Training, list[torch.Tensor]]:
        torch.manual_seed(0)
        model = vs.build(binary_data.space, latent=3, network=NETWORK)
        training = vs.training(
            model, vs.Objective(), binary_data, steps=100, batch=32, compile=how, device="cpu"
        )
        for step in training:
            if step.index == 1 and how == "on":
                spoil(training)
            if step.index == steps:
                break
        return training, parameters(training)

    def spoil(training: Training) -> None:
        updater = training.updaters[0]
        right = updater._compiled
        assert right is not None

        def graph(*tensors: torch.Tensor) -> list[torch.Tensor]:
            loss, *rest = right(*tensors)
            if wrong == "weights":
                with torch.no_grad():
                    for p in training.updaters[0].update.parameters:
                        p.add_(0.01)
                return [loss, *rest]
            return [loss + 1, *rest]

        updater._compiled = graph

    first, _ = after("on", 1)
    assert first.compile == "on"
    compiled, found = after("on", 4)
    _, expected = after("off", 4)
    assert compiled.compile == "off"
    assert "the compiled step computes other numbers" in caplog.text
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_a_run_that_does_not_compile_goes_on_without_and_says_so_in_its_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "x.npy", (np.random.default_rng(0).random((100, 6)) < 0.5).astype(np.uint8))
    options: dict[str, Any] = {
        "run": tmp_path / "run",
        "steps": 10**10,
        "network": NETWORK,
        "latent": 2,
        "batch": 16,
        "device": "cpu",
    }

    def broken(*_: Any) -> Any:
        raise OSError("no such compiler")

    monkeypatch.setattr("vaestro.loop.compiling._compile", broken)
    with Job.new(tmp_path / "x.npy", **options) as job:
        assert job.run.config["compile"] == "on"
        for _ in zip(range(3), job, strict=False):
            pass
        job.checkpoint()
    assert job.run.config["compile"] == "off"
    again = Job.resumed(tmp_path / "run", steps=4)
    assert [step.index for step in again] == [3, 4]
    with pytest.raises(
        ValueError, match=r"expected --compile off for .*; got on \(OSError: no such compiler\)"
    ):
        list(Job.new(tmp_path / "x.npy", **options | {"run": tmp_path / "other", "compile": "on"}))
    assert not (tmp_path / "other").exists()  # the same name is free for the next try
    with pytest.raises(ValueError, match="got on"):
        list(Job.resumed(_with_compile(tmp_path / "run", "on"), steps=8))
    # what was trained stays
    assert len(job.run.metrics()) and sorted((tmp_path / "run" / "checkpoints").iterdir())


def _with_compile(run: Path, how: str) -> Path:
    config = run / "config.yaml"
    config.write_text(re.sub("compile: .*", f"compile: {how}", config.read_text()))
    return run


def test_what_is_wrong_with_a_model_is_said_by_itself(binary_data: Data) -> None:
    model = vs.build(binary_data.space, latent=3, network=NETWORK)
    model.posterior.encoder = torch.nn.Linear(3, 4)
    with pytest.raises(Exception, match=r"^(?!expected --compile)"):
        list(vs.training(model, vs.Objective(), binary_data, steps=4, compile="on", device="cpu"))


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_a_compiled_step_equals_an_eager_one(binary_data: Data) -> None:
    # Two runs in one process, of other sizes: a run must not get another's graph.
    for batch in (32, 16):
        results = []
        for how in ("off", "on"):
            training = start(
                binary_data,
                vs.Objective(beta=vs.Ramp(0, 1, steps=20)),
                compile=how,
                clip=1.0,
                batch=batch,
            )
            records = [r for step in training for r in step.records]
            results.append((records, parameters(training)))
        (eager, p), (compiled, q) = results
        for a, b in zip(eager, compiled, strict=True):
            assert (a.bound, a.rate, a.loss, a.grad_norm or 0) == pytest.approx(
                (b.bound, b.rate, b.loss, b.grad_norm or 0), rel=1e-3, abs=1e-3
            )
        for a, b in zip(p, q, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_bf16_keeps_weights_and_densities_in_single_precision(binary_data: Data) -> None:
    # Mistake 23: weights updated in half precision.
    training = start(binary_data, steps=300, precision="bf16", lr=1e-4)
    dtypes = set()
    for step in training:
        if step.loss is not None:
            dtypes.add(step.loss.bound.dtype)
    assert dtypes == {torch.float32}
    assert {p.dtype for p in training.model.parameters()} == {torch.float32}


def test_data_without_validation_train_to_the_latest_average(binary_data: Data) -> None:
    empty = binary_data.valid.take(0)
    data = vs.Data(binary_data.train, empty, empty, binary_data.space, "test")
    training = start(data)
    records = [r for step in training for r in step.records]
    assert {r.split for r in records} == {"train"}
    for a, b in zip(training.model.parameters(), training.average.parameters(), strict=True):
        assert torch.equal(a, b)


SCRIPT = """
import json, sys
from vaestro.runs import Job
for source, run, options in json.loads(sys.argv[1]):
    for _ in Job.new(source, run=run, **options):
        pass

# Each process has one half of a sharded tensor.
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
from vaestro.loop.state import gathered
whole = torch.arange(6.0).reshape(2, 3)
sharded = distribute_tensor(whole, init_device_mesh("cpu", (2,)), [Shard(0)])
assert sharded.to_local().shape == (1, 3)
assert torch.equal(gathered({"weight": sharded})["weight"], whole)
"""


def two_process_options(likelihood: str, options: dict[str, Any]) -> dict[str, Any]:
    common = {"latent": 3, "steps": 40, "batch": 32, "device": "cpu", "clip": 2.0}
    network = {"network": "mlp:width=16", "beta": "warmup:steps=10"}
    return common | {"likelihood": likelihood or None} | network | options


PENALISED = {
    "penalty": ["total-correlation:weight=2", "dip", "mmd:weight=3"],
    "free_bits": "0.2:group=all",
    "beta": "geco:target=11",
    "prior": "vamp:inputs=5",
}


KINDS = ("dynamic", "real", "penalised", "texts")


def two_process_job(folder: Path, kind: str) -> tuple[str, str, dict[str, Any]]:
    """Write the data of a kind, and return source, likelihood and further options of a run."""
    r = np.random.default_rng(0)
    file = folder / f"{kind}.{'txt' if kind == 'texts' else 'npy'}"
    if kind == "dynamic":
        np.save(file, r.integers(0, 256, (300, 6, 6)).astype(np.uint8))
        return f"{file}:binarise=dynamic", "", {}
    if kind == "texts":
        file.write_text("".join("ab cd"[: 1 + i % 5] * (1 + i % 3) + "\n" for i in range(300)))
        return f"{file}:tokens=characters", "autoregressive", {"network": "gru:width=16"}
    np.save(file, r.normal(size=(300, 3)) @ r.normal(size=(3, 8)))
    if kind == "real":
        return str(file), "gaussian:variance=optimal", {}
    return str(file), "gaussian", PENALISED


@pytest.fixture(scope="module")
def two_process_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a run of each kind by one process and by two; two processes are launched
    once for all kinds."""
    folder = tmp_path_factory.mktemp("processes")
    (folder / "script.py").write_text(SCRIPT)
    jobs = {kind: two_process_job(folder, kind) for kind in KINDS}
    for kind, (source, likelihood, options) in jobs.items():
        for _ in Job.new(
            source, run=folder / f"{kind}-1", **two_process_options(likelihood, options)
        ):
            pass
    arguments = [
        [source, str(folder / f"{kind}-2"), two_process_options(likelihood, options)]
        for kind, (source, likelihood, options) in jobs.items()
    ]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, *launch, str(folder / "script.py"), json.dumps(arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_follow_the_curve_of_one(two_process_runs: Path, kind: str) -> None:
    places = {n: two_process_runs / f"{kind}-{n}" for n in (1, 2)}
    runs = {
        n: [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
        for n, place in places.items()
    }
    assert len(runs[1]) == len(runs[2]) > 4
    for one, two in zip(runs[1], runs[2], strict=True):
        assert (one["split"], one["step"]) == (two["split"], two["step"])
        for name in ("bound", "rate", "distortion", "loss"):
            assert one[name] == pytest.approx(two[name], rel=2e-4, abs=2e-4), (name, one["step"])
    a, b = (load_file(place / "model.safetensors") for place in places.values())
    for key in a:
        torch.testing.assert_close(a[key], b[key], rtol=2e-3, atol=2e-4)


def test_a_signal_between_two_steps_is_saved_too(tmp_path: Path) -> None:
    values = make_values(make_space(Kind.BINARY, (6,)), 60)
    job = Job.new(
        values, run=tmp_path / "r", latent=2, network=NETWORK, steps=50, batch=16, device="cpu"
    )
    for _ in range(8):
        next(job)
    job._note(signal.SIGINT, None)
    with pytest.raises(KeyboardInterrupt):
        next(job)
    assert [p.name for p in (tmp_path / "r" / "checkpoints").iterdir()] == [
        "step-0000000007.safetensors"
    ]


def test_minutes_go_with_a_schedule_in_shares(binary_data: Data) -> None:
    training = start(
        binary_data, vs.Objective(beta=vs.Ramp(0, 1, share=0.5)), steps=None, minutes=0.02
    )
    assert float(training.objective.beta(torch.tensor(training.steps / 4))) == pytest.approx(0.5)


def test_the_validation_loss_is_the_objectives(binary_data: Data) -> None:
    training = start(binary_data, vs.Objective("iwae", k=3), steps=13)
    records = [r for step in training for r in step.records if r.split == "valid"]
    for r in records:
        assert r.loss == pytest.approx(-r.bound, abs=1e-9)
        assert r.bound > -(r.rate + r.distortion)
    training = start(binary_data, vs.Objective(beta=vs.Ramp(0, 1, steps=13)), steps=13)
    last = [r for step in training for r in step.records if r.split == "valid"][-1]
    assert last.loss == pytest.approx(last.distortion + 12 / 13 * last.rate, abs=1e-4)


def test_an_optimal_variance_is_refused_with_iwae() -> None:
    space = make_space(Kind.REAL, (6,))
    data = make_data(space, make_values(space, 40))
    model = vs.build(space, latent=2, network=NETWORK, likelihood="gaussian:variance=optimal")
    with pytest.raises(ValueError, match=r"expected the ELBO with an optimal variance.*; got iwae"):
        vs.training(model, vs.Objective("iwae", k=5), data, steps=3)


def test_validation_is_over_all_data_of_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    # Mistakes 15 and 20: what one process saw, or an average of averages, in place of the mean over
    # data.
    space = make_space(Kind.BINARY, (6,))
    rows = Rows(make_values(space, 2 * space.chunk + 40), space, "valid")
    rows.values[-40:] = 1
    torch.manual_seed(0)
    model = vs.build(space, latent=2, network=NETWORK).eval()
    whole = validate(model, vs.Objective(), rows, 0, "cpu")
    each = []
    for i, batch in enumerate(rows.chunks(space.chunk)):
        noise = model.noise(1, len(batch), torch_generator("cpu", 0, "valid", i))
        with torch.inference_mode():
            each.append(vs.elbo(model.draw(batch, 1, noise=noise)))
    assert whole[0] == pytest.approx(float(torch.cat(each).mean()), abs=1e-5)
    assert abs(whole[0] - float(torch.stack([e.mean() for e in each]).mean())) > 0.01
    shares: list[torch.Tensor] = []

    def kept(x: torch.Tensor) -> torch.Tensor:
        shares.append(x.clone())
        return x

    monkeypatch.setattr("vaestro.loop.validation.mean_over_ranks", kept)
    for rank in (0, 1):
        validate(model, vs.Objective(), rows, 0, "cpu", 2, rank)
    monkeypatch.setattr(
        "vaestro.loop.validation.mean_over_ranks", lambda x: torch.stack(shares).mean(0)
    )
    assert min(float(s.abs().sum()) for s in shares) > 0
    assert validate(model, vs.Objective(), rows, 0, "cpu", 2, 0)[:-1] == pytest.approx(
        whole[:-1], rel=1e-12
    )
