"""Damaged files of a run are seen, and each command ends with one line."""

import errno
import json
import re
import shutil
from pathlib import Path

import pytest

from tests.faults.campaign import TRAIN, content, damages, failing, results, wrong_types
from tests.faults.conftest import Refused
from vaestro import schemas, storage
from vaestro.cli import main
from vaestro.records import read_record
from vaestro.runs import Run
from vaestro.text import InputError

# a quick command that reads a file
READS = {
    "model.safetensors": ("sample", "run", "-n", "2", "-o", "s.csv", "--force"),
    "config.json": ("sample", "run", "-n", "2", "-o", "s.csv", "--force"),
    "evaluation.json": ("compare", "run"),
    "evaluation.npz": ("compare", "run"),
}
INFO = ("info", "run")


def ends_well(capsys: pytest.CaptureFixture[str], what: str, *command: str) -> int:
    """Run a command, and return its exit code; it must end without a bare error."""
    capsys.readouterr()
    code = main(command)
    err = capsys.readouterr().err
    assert code in (0, 1, 2), (what, err)
    assert err == "" if code == 0 else err.count("\n") == 1, (what, err)
    assert not re.search(r"--debug shows where|[a-z]Error:", err), (what, command, err)
    return code


def test_damaged_files_end_with_a_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [f for f in sorted(Path("run").rglob("*")) if f.is_file()]
    for number, file in enumerate(files):
        whole = file.read_bytes()
        for name, damaged in list(damages(whole, number).items())[number % 2 :: 2]:
            file.write_bytes(damaged)
            ends_well(capsys, f"{file}: {name}", *READS.get(file.name, INFO))
        file.write_bytes(whole)


@pytest.mark.parametrize("file", ["config.json", "kept.json", "evaluation.json", "diagnosis.json"])
def test_fields_of_wrong_types_end_with_a_line(
    here: Path, capsys: pytest.CaptureFixture[str], file: str
) -> None:
    path = Path("run", file)
    text = path.read_text()
    for name, damaged in list(wrong_types(text).items())[::6]:
        path.write_bytes(damaged)
        ends_well(capsys, f"{file}: {name}", *READS.get(file, INFO))


def test_a_flipped_bit_in_the_weights_is_refused(here: Path, refused: Refused) -> None:
    file = Path("run/model.safetensors")
    whole = bytearray(file.read_bytes())
    whole[-3] ^= 4
    file.write_bytes(whole)
    for command in (READS["model.safetensors"], ("evaluate", "run"), ("diagnose", "run")):
        line = refused(*command)
        assert "its hash is another one" in line
        assert (
            "vaestro train --resume run writes them again from checkpoints/step-0000000002" in line
        )
    assert main(["train", "--resume", "run", "--quiet"]) == 0
    assert main(READS["model.safetensors"]) == 0
    for checkpoint in Path("run/checkpoints").iterdir():
        checkpoint.write_bytes(checkpoint.read_bytes()[:-1])
    file.write_bytes(whole)
    assert "no readable checkpoint: train again" in refused(*READS["model.safetensors"])


def test_a_changed_evaluation_is_refused(here: Path, refused: Refused) -> None:
    file, arrays = Path("run/evaluation.json"), Path("run/evaluation.npz")
    text = file.read_text()
    mean = json.loads(text)["estimates"][0]["mean"]
    file.write_text(text.replace(str(mean), str(mean + 1)))
    assert "changed after it was written" in refused("compare", "run")
    file.write_text(text)
    shutil.copy(Path("run/diagnosis.npz"), arrays)
    assert "not the file that evaluation.json was written with" in refused("compare", "run")
    assert main(["evaluate", "run", "--k", "4", "--quiet"]) == 0
    assert main(["compare", "run"]) == 0


def test_a_flipped_bit_in_a_checkpoint_is_seen(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = results(here / "run")
    last = Path("run/checkpoints/step-0000000002.safetensors")
    whole = bytearray(last.read_bytes())
    whole[-3] ^= 4
    last.write_bytes(whole)
    assert main(["train", "--resume", "run"]) == 0
    out = capsys.readouterr().out
    assert f"{last} is damaged: its hash is another one" in out
    assert "continuing from step 1 of 2" in out
    assert results(here / "run") == expected


def test_a_bad_line_of_the_log_is_left_out_and_named(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = Path("run/metrics.jsonl")
    first, *others = log.read_text().splitlines(keepends=True)
    for bad in ("\n", "?\n", '{"split": "train", "step": "1"}\n', "[]\n", "\x00\n"):
        log.write_text(first + bad + "".join(others))
        run = Run("run")
        assert [m["step"] for m in run.metrics()] == [0, 2, 2]
        assert run.damage() == [f"{log}: line 2 is damaged and left out"]
    assert main(["info", "run"]) == 0
    assert "line 2 is damaged" in capsys.readouterr().out


@pytest.mark.parametrize("file", ["config.yaml", "config.json"])
def test_a_run_of_a_newer_format_is_refused(here: Path, refused: Refused, file: str) -> None:
    path = Path("run", file)
    path.write_text(re.sub(r'(format"?: )\d+', r"\g<1>99", path.read_text()))
    line = refused(*READS["config.json"])
    assert "in format 99" in line and "upgrade Vaestro" in line


def test_the_reference_is_that_of_the_schemas() -> None:
    docs = Path(__file__).parents[2] / "docs"
    assert (docs / "run-folder.md").read_text() == schemas.reference()


def test_every_file_of_a_run_has_its_schema(here: Path) -> None:
    for file in Path("run").glob("*.json"):
        assert read_record(file) is not None
        file.write_text("[]")
        with pytest.raises(InputError):
            read_record(file)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=["full", "broken"])
def test_a_failed_write_is_one_line_and_can_be_repeated(
    here: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    expected = results(here / "run")
    for number in range(2 + (code == errno.EIO), 60, 13):
        shutil.rmtree("run", ignore_errors=True)
        with monkeypatch.context() as patch:
            patch.setattr(storage, "before", failing(number, code))
            patch.setattr("vaestro.runs.job.CHECKPOINT_SECONDS", 0.0)
            line = refused(*TRAIN, code=1)
        assert "run" in line, "it names the file"
        left = [name for name in content(here) if ".part" in name or ".new" in name]
        assert not left, (number, left)
        exists = Path("run").exists()
        assert main(["train", "--resume", "run", "--quiet"] if exists else TRAIN) == 0
        assert results(here / "run") == expected, number


def test_a_damaged_config_is_named_by_each_command(here: Path, refused: Refused) -> None:
    Path("run/config.yaml").write_text("[")
    for command in (INFO, *READS.values()):
        line = refused(*command)
        assert "config.yaml" in line and "evaluation.json" not in line, line
