"""Commands that torchrun starts in two processes: the default batch, the end of a run, failures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vaestro import processes
from vaestro.cli import main
from vaestro.runs import Job, Run

# a script that fails in one process, at its third step
FAILS = """
import errno, os, sys
from vaestro.cli import main
from vaestro.loop.iterator import Training
advance = Training.advance
def failing(self, step):
    if os.environ["RANK"] == "1" and step == 2:
        raise OSError(errno.ENOSPC, "No space left on device", "x")
    return advance(self, step)
Training.advance = failing
sys.exit(main())
"""


def torchrun(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Start a program in two processes."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [sys.executable, *launch, *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=300,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a table of 200 rows and no counts."""
    folder, r = tmp_path_factory.mktemp("two"), np.random.default_rng(0)
    rows = [
        f"{a:.3f},{b:.3f},{'xyz'[c]}"
        for a, b, c in zip(*r.normal(size=(2, 200)), r.integers(0, 3, 200), strict=True)
    ]
    (folder / "t.csv").write_text("\n".join(["a,b,c", *rows]) + "\n")
    return folder


TRAIN = [
    "train",
    "t.csv",
    "--latent",
    "2",
    "--steps",
    "20",
    "--device",
    "cpu",
    "--network",
    "mlp:width=8",
]


def test_two_processes_share_the_default_batch_and_train_as_one_does(folder: Path) -> None:
    done = torchrun(folder, "-m", "--", "vaestro", *TRAIN, "--run", "two")
    assert done.returncode == 0, done.stderr[-2000:]
    # what independent cells achieve is computed by one process after the group has ended
    assert done.stdout.count("independent cells: log p(x) = ") == 1
    batch = Run(folder / "two").config["batch"]
    assert batch == 10, "11 of 180 rows is the default of one process"
    options = {"latent": 2, "steps": 20, "device": "cpu", "network": "mlp:width=8"}
    for _ in Job.new(str(folder / "t.csv"), run=folder / "one", batch=batch, **options):
        pass
    runs = [
        [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    assert len(runs[0]) == len(runs[1]) > 2
    for one, two in zip(*runs, strict=True):
        assert one["bound"] == pytest.approx(two["bound"], rel=2e-4, abs=2e-4)


def test_a_failure_of_one_process_is_one_line(folder: Path) -> None:
    (folder / "fails.py").write_text(FAILS)
    done = torchrun(folder, "--", "fails.py", *TRAIN, "--run", "failed")
    lines = [line for line in done.stderr.splitlines() if line.startswith("vaestro: ")]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("vaestro: the disk is full ([Errno 28] No space left on device: 'x'")
    assert "vaestro/" not in done.stderr, "no traceback of Vaestro"
    assert f"traceback : {lines[0].removeprefix('vaestro: ')}" in done.stderr
    assert done.returncode == 1


def test_bad_input_of_all_processes_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for rank in (1, 0):  # torchrun gives each a folder for its failure
        (tmp_path / str(rank)).mkdir()
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / str(rank) / "error.json"))
        assert main(["train", "nowhere.csv"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "'nowhere.csv'" in said
    files = [json.loads((tmp_path / n / "error.json").read_text()) for n in "01"]
    assert [f["message"]["message"] for f in files] == [said.strip().removeprefix("vaestro: ")] * 2


@pytest.mark.parametrize(("rows", "count", "batch"), [(11, 2, 10), (8, 8, 8), (3, 4, 4), (9, 1, 9)])
def test_a_shared_batch(rows: int, count: int, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(count))
    assert processes.shared(rows) == batch
