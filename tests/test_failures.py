"""Failed runs, bounds that are not finite, full memory and disks, and names that control a
terminal: what the user is told."""

from __future__ import annotations

import errno
import gzip
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import vaestro as vs
from vaestro.cli import main
from vaestro.cli.console import console
from vaestro.records import write_record

OPTIONS = {"latent": 2, "network": "mlp:width=4", "batch": 16, "device": "cpu", "compile": "off"}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> vs.Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VAESTRO_CACHE", str(tmp_path / "cache"))
    np.save("x.npy", np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32))
    return vs.train("x.npy", run="run", steps=2, **OPTIONS)


USES = {
    "evaluate": ["evaluate", "run", "--k", "2"],
    "sample": ["sample", "run", "-n", "2", "-o", "s.csv"],
    "encode": ["encode", "run", "x.npy", "-o", "z.npz"],
    "compare": ["compare", "run"],
}


@pytest.mark.parametrize("command", USES)
def test_a_failed_run_is_named_by_each_command(
    run: vs.Run, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if command == "compare":
        assert main(["evaluate", "run", "--k", "2"]) == 0
    capsys.readouterr()
    assert main(USES[command]) == 0 and "training" not in capsys.readouterr().err
    write_record(run.path / "failure.json", {"step": 2, "reason": "the loss is not finite"})
    assert main([*USES[command], *(["--force"] if "-o" in USES[command] else [])]) == 0
    said = capsys.readouterr().err
    assert said.endswith("the training of run failed: the loss is not finite\n")
    assert main([*USES[command][:2], "--no-such-option"]) == 2
    assert capsys.readouterr().err.count("\n") == 1, "a refusal is one line"


def test_a_run_that_did_not_end_is_named(run: vs.Run, capsys: pytest.CaptureFixture[str]) -> None:
    from vaestro.runs import Job

    with Job.new("x.npy", run="part", steps=9, **OPTIONS) as job:
        for _ in range(3):
            next(job)
        job.checkpoint()
        assert main(["sample", "part", "-n", "2", "-o", "s.csv"]) == 0
        assert "part is in training" in capsys.readouterr().err
    assert main(["sample", "part", "-n", "2", "-o", "t.csv"]) == 0
    assert "did not end (vaestro train --resume part continues it)" in capsys.readouterr().err
    assert main(["train", "--resume", "part", "--quiet"]) == 0
    assert main(["sample", "part", "-n", "2", "-o", "u.csv"]) == 0
    assert capsys.readouterr().err == ""


def test_bounds_that_are_not_finite_are_a_failure(
    run: vs.Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = run.model()
    with torch.no_grad():
        next(model.likelihood.parameters()).fill_(float("nan"))
    monkeypatch.setattr("vaestro.runs.session.Session.model", model)
    assert main(["evaluate", "run", "--k", "2"]) == 1
    said = capsys.readouterr().err
    assert said.endswith("not finite: `vaestro diagnose run` finds the cause\n")
    assert load_file("run/model.safetensors"), "the run is as it was"


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        (
            ["sample", "run", "-o", "s.csv"],
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"
            ),
            "a smaller -n may fit",
        ),
        (
            ["evaluate", "run"],
            MemoryError("Unable to allocate 7. TiB"),
            "a smaller --limit may fit",
        ),
        (["train", "x.npy"], RuntimeError("std::bad_alloc"), "a smaller --batch or --network"),
        (
            ["evaluate", "run"],
            OSError(errno.ENOSPC, "No space left on device", "run/evaluation.json"),
            "the disk is full ([Errno 28] No space left on device: 'run/evaluation.json'): free",
        ),
    ],
)
def test_full_memory_and_disks_are_named_with_what_helps(
    run: vs.Run,
    arguments: list[str],
    error: Exception,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("vaestro.runs.session.Session.__init__", fail)
    monkeypatch.setattr("vaestro.runs.Job.new", fail)
    assert main(arguments) == 1
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1


def test_names_do_not_control_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "a\x1b[31m\u202e.csv"
    rows = "".join(f"{i % 7},{i}\n" for i in range(40))
    Path(name).write_text(f"k\x1b[2J,b\n{rows}")
    assert main(["train", name, "--dry-run"]) == 0
    assert main(["train", f"{name}:real=z"]) == 2
    console.say("c\x07d\ne")
    out, err = capsys.readouterr()
    assert not {"\x1b", "\u202e", "\x07"} & set(out + err)
    assert "k\\x1b[2J" in out and "a\\x1b[31m\\u202e.csv" in err and "c\\x07d\ne" in out


def test_a_reader_that_leaves_does_not_stop_a_run(run: vs.Run) -> None:
    program = f"import sys; sys.path[:0] = {sys.path!r}; from vaestro.cli import main; main()"
    options = [f"--{k}={v}" for k, v in OPTIONS.items()]
    train = [sys.executable, "-c", program, "train", "x.npy", "--run", "long", "--steps", "40"]
    process = subprocess.Popen([*train, *options], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline()
    process.stdout.close()
    assert process.wait() == 0 and vs.Run("long").finished


def test_hostile_sources_end_with_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("vaestro.data.text_files.BOMB_BYTES", 10**6)
    os.mkfifo("pipe.csv")
    os.mkfifo("pipe.npy")
    Path("word.txt").write_text("a word\n" * 40 + "x" * 3_000_000)
    rows = b"a,b\n" + b"0,0\n" * 10**6
    Path("bomb.csv.gz").write_bytes(gzip.compress(rows, 9))
    with zipfile.ZipFile("bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("t.csv", rows)
    for source, said in (
        ("pipe.csv", "pipe.csv is a pipe or a device"),
        ("pipe.npy", "pipe.npy is a pipe or a device"),
        ("word.txt", "text 41 has a word of 3,000,000 characters"),
        ("bomb.csv.gz", "more than 300 times its size when it is decompressed"),
        ("bomb.zip", "more than 300 times its size when it is decompressed"),
    ):
        assert main(["train", source, "--dry-run"]) == 2
        err = capsys.readouterr().err
        assert said in err and err.count("\n") == 1, source


def test_pipes_and_devices_end_with_a_line(run: vs.Run, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo("pipe.csv")
    sample = ["sample", "run", "-n", "2", "-o"]
    for command, said in (
        (["decode", "run", "pipe.csv", "-o", "x.csv"], "pipe.csv is a pipe or a device: save its"),
        (["decode", "run", "/dev/zero", "-o", "x.csv"], "/dev/zero is a pipe or a device: save"),
        (["train", "--config", "pipe.csv"], "pipe.csv is a pipe or a device: save its content"),
        ([*sample, "pipe.csv"], "pipe.csv is a pipe or a device: name a file to write"),
        ([*sample, "pipe.csv", "--force"], "pipe.csv is a pipe or a device: name a file to write"),
    ):
        assert main(command) == 2
        err = capsys.readouterr().err
        assert said in err and err.count("\n") == 1, command
    assert Path("pipe.csv").is_fifo()
