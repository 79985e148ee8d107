"""A run is made at once, replaced by another at once, and continued after a kill at any moment."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.campaign import TINY, TRAIN, content, results, snapshots
from tests.faults.conftest import Refused
from vaestro.cli import main
from vaestro.locks import Lock


def continued(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do what a user does after a kill: resume the run if it is there, or else start again."""
    monkeypatch.chdir(place)
    if Path("run").exists():
        assert main(["train", "--resume", "run", "--quiet"]) == 0
    else:
        assert main(TRAIN) == 0


def test_a_kill_at_a_file_operation_changes_nothing(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = results(here / "run")
    judged = ("run/evaluation", "run/diagnosis")
    files = {f for f in content(here) if not f.startswith(judged)}
    shutil.rmtree("run")
    (tmp_path / "states").mkdir()
    states = list(snapshots(monkeypatch, tmp_path / "states", *TRAIN))
    assert len(states) > 40
    for place in states[:: len(states) // 12]:
        continued(place, monkeypatch)
        assert results(place / "run") == expected, place.name
        left = {f for f in content(place) if not f.startswith("run/checkpoints/step-")}
        assert left == {f for f in files if not f.startswith("run/checkpoints/")}, place.name


def test_a_kill_while_a_run_is_replaced_leaves_one_of_the_two(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("run/mine.txt").write_text("mine")
    Path("run/checkpoints/mine").write_text("mine")
    old = results(here / "run")
    (tmp_path / "states").mkdir()
    force = (*TRAIN, "--force", "--seed", "5")
    states = list(snapshots(monkeypatch, tmp_path / "states", *force))
    new = results(here / "run")
    assert new != old
    first = next(i for i, s in enumerate(states) if not (s / "run").exists())
    for place in states[first - 1 : first + 8] + states[-1:]:
        monkeypatch.chdir(place)
        assert main(["train", "--resume", "run", "--quiet"]) == 0
        assert results(place / "run") in (old, new), place.name
        for name in ("mine.txt", "checkpoints/mine"):
            assert Path("run", name).read_text() == "mine", place.name
        assert [p.name for p in sorted(place.iterdir())] == ["run", "x.npy"], place.name


def test_a_second_writer_is_refused(here: Path, refused: Refused) -> None:
    before = content(here / "run")
    with Lock(Path("run")):
        for command in (("train", "--resume", "run"), (*TRAIN, "--force")):
            assert "run is in use by this process" in refused(*command)
    assert content(here / "run") == before
    assert [p.name for p in sorted(here.iterdir())] == ["run", "x.npy"]


def test_two_runs_of_one_second_have_two_folders(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vaestro.runs import writer

    monkeypatch.setattr(writer, "default_folder", _names(["runs/a", "runs/a", "runs/b"]))
    first, second = (writer.Writer.new(None, "x.npy") for _ in range(2))
    assert (first.path, second.path) == (Path("runs/a"), Path("runs/b"))
    first.publish()
    second.discard()
    first.discard()
    assert not list(Path("runs").iterdir())


def _names(names: list[str]) -> Callable[[str], Path]:
    left = iter(names)
    return lambda source: Path(next(left))


def test_force_deletes_a_run_and_nothing_else(here: Path, refused: Refused) -> None:
    theirs = ("samples.csv", "report.html", "evaluation-mine.json", "checkpoints/mine", "a/b.txt")
    Path("run/a").mkdir()
    for name in theirs:
        Path("run", name).write_text("mine")
    Path("run/link").symlink_to("/")
    with Path("run/manifest.txt").open("a") as file:  # names that are no files of a run
        file.write("../x.npy\na/b.txt\n/etc/hosts\nlink\n")
    assert main([*TRAIN, "--force", "--seed", "5"]) == 0
    assert all(Path("run", name).read_text() == "mine" for name in theirs)
    assert Path("run/link").is_symlink() and Path("x.npy").exists()


def test_force_needs_a_run(here: Path, refused: Refused) -> None:
    other = Path("other")
    shutil.copytree("run/checkpoints", other / "checkpoints")
    shutil.copy("run/config.yaml", other)
    (other / "report.html").touch()
    before = content(other)
    line = refused("train", "x.npy", "--run", "other", "--force", *TINY)
    assert "contains files that are not a run's" in line
    assert content(other) == before


def test_the_old_run_comes_back_if_the_new_one_cannot_be_trained(
    here: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(here)

    def fail(*_: object) -> None:
        raise ValueError("expected a step; got none")

    monkeypatch.setattr("vaestro.loop.Training.__next__", fail)
    assert "expected a step" in refused(*TRAIN, "--force")
    assert content(here) == before


def test_force_from_inside_of_the_run_is_refused(
    here: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("run")
    line = refused("train", "../x.npy", "--run", ".", "--force", *TINY)
    assert "cd to another one first" in line


@pytest.mark.parametrize("name", ["config.json", "data.json", "environment.json"])
def test_resume_writes_again_what_is_lost(
    here: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = json.loads(Path("run", name).read_text())
    Path("run", name).unlink()
    Path("run/model.safetensors.part").touch()
    assert main(["train", "--resume", "run"]) == 0
    assert f"wrote {name} again" in capsys.readouterr().out
    after = json.loads(Path("run", name).read_text())
    assert after == before or name == "environment.json"
    assert not Path("run/model.safetensors.part").exists()
