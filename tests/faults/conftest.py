"""Fixtures of the campaigns of faults."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.campaign import TRAIN, make_data
from vaestro.cli import main

Refused = Callable[..., str]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with data, and with a finished run of two steps that was evaluated."""
    place = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr("vaestro.runs.job.CHECKPOINT_SECONDS", 0.0)
        make_data(place)
        assert main(TRAIN) == 0
        assert main(["evaluate", "run", "--k", "4", "--quiet"]) == 0
        assert main(["diagnose", "run", "--quiet"]) == 0
    return place


@pytest.fixture
def here(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a copy of this folder."""
    place = tmp_path / "here"
    shutil.copytree(finished, place)
    monkeypatch.chdir(place)
    return place


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Give a function that runs a command, and returns its one line."""

    def run(*arguments: str, code: int = 2) -> str:
        capsys.readouterr()
        assert main(arguments) == code
        out, err = capsys.readouterr()
        assert err.startswith("vaestro: ") and err.count("\n") == 1, (out, err)
        return err

    return run
