"""SIGTERM, a clock that is set back, a folder that cannot be written, and one that is removed."""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.campaign import NOBODY, TRAIN, content, results, stopping
from tests.faults.conftest import Refused
from vaestro import storage
from vaestro.cli import main
from vaestro.loop import Training


def terminate() -> None:
    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL, "it would end the tests"
    os.kill(os.getpid(), signal.SIGTERM)


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, act: Callable[[], None]) -> None:
    """Do something in a step of training."""
    advance = Training.advance

    def acting(self: Training, index: int) -> object:
        if index == step:
            act()
        return advance(self, index)

    monkeypatch.setattr(Training, "advance", acting)


@pytest.mark.parametrize("number", [0, 5, 11, 17, 23, 29, 35])
def test_a_termination_at_a_file_operation_changes_nothing(
    here: Path, number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = results(here / "run")
    shutil.rmtree("run")
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(storage, "before", stopping(number, terminate))
        assert main(TRAIN) == 130
    assert capsys.readouterr().err in ("", "vaestro: stopped\n")
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert main(["train", "--resume", "run", "--quiet"] if Path("run").exists() else TRAIN) == 0
    assert results(here / "run") == expected
    assert not [name for name in content(here) if ".part" in name or "lock" in name]


def test_a_step_is_saved_after_sigterm(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree("run")
    at_step(monkeypatch, 1, terminate)
    assert main([*TRAIN[:-2], "--steps", "10", *TRAIN[-2:]]) == 130
    saved = [file.name for file in Path("run/checkpoints").iterdir()]
    assert saved == ["step-0000000002.safetensors"], "the step that took the signal, and no other"


def test_one_of_several_processes_says_that_it_stopped(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*TRAIN[:-2], "--steps", "10", "--run", "new", *TRAIN[-2:]]
    command.remove("--quiet")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        with monkeypatch.context() as patch:
            at_step(patch, 1, terminate)
            assert main([*command, *(["--force"] if rank == "1" else [])]) == 130
        out, err = capsys.readouterr()
        assert ("stopped at step 2 of 10" in out) == (rank == "0") and not err


def test_other_commands_end_with_a_line_after_sigterm(
    here: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    before = content(here)
    for name, command in (
        ("encode", ["encode", "run", "x.npy", "-o", "z.npz"]),
        ("sample", ["sample", "run", "-n", "2", "-o", "s.npz"]),
        ("diagnose", ["diagnose", "run"]),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(f"vaestro.runs.session.Session.{name}", lambda *a, **k: terminate())
            assert refused(*command, code=130) == "vaestro: stopped\n"
    assert content(here) == before


def test_a_clock_that_is_set_back_changes_nothing(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = results(here / "run")
    shutil.rmtree("run")
    clock = itertools.count(1e9, -1e5)
    monkeypatch.setattr("time.time", lambda: next(clock))
    with monkeypatch.context() as patch:
        at_step(patch, 1, terminate)
        assert main(TRAIN) == 130
    for file in Path("run").rglob("*"):
        os.utime(file, (2e9, 2e9))  # written in the future
    assert main(["train", "--resume", "run", "--quiet"]) == 0
    assert results(here / "run") == expected
    assert main(["evaluate", "run", "--k", "2", "--quiet"]) == 0
    assert json.loads(Path("run/evaluation.json").read_text())["estimates"][0]["k"] == 2


def test_a_folder_that_cannot_be_written_is_one_line(
    here: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    before, run = content(here), (here / "run").resolve()

    def hook(operation: str, path: Path) -> None:
        if run in (path.resolve(), *path.resolve().parents):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(storage, "before", hook)
    monkeypatch.setattr("os.access", lambda path, mode: run != Path(path).resolve())
    for command in (
        ["evaluate", "run", "--k", "2", "--quiet"],
        ["diagnose", "run"],
        ["gradients", "run"],
        ["train", "--resume", "run", "--steps", "3", "--quiet"],
        [*TRAIN, "--force"],
        ["sample", "run", "-n", "2"],
    ):
        said = refused(*command, code=1)
        assert "Read-only file system: " in said or "Permission denied: " in said
    assert content(here) == before
    for command in (["info", "run"], ["compare", "run"], ["sample", "run", "-o", "s.npz"]):
        assert main(command) == 0
    assert {name for name in content(here) if name not in before} == {"s.npz"}


def test_a_folder_that_is_removed_or_renamed_is_named(
    here: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    expected = results(here / "run")
    said = "vaestro: the folder run was removed or renamed during training (vaestro train"
    for act in (lambda: shutil.rmtree("run"), lambda: os.rename("run", "renamed")):
        shutil.rmtree("run")
        with monkeypatch.context() as patch:
            at_step(patch, 1, act)
            assert refused(*TRAIN, code=1).startswith(said)
        assert not Path("run").exists()
        Path("run").mkdir()
    lock = Path("renamed/lock")  # of a process that has ended
    lock.write_text(json.dumps(json.loads(lock.read_text()) | {"process": NOBODY}))
    assert main(["train", "--resume", "renamed", "--quiet"]) == 0
    assert results(here / "renamed") == expected
