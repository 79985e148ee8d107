"""Names of files, folders and runs with bytes that are not UTF-8."""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vaestro as vs
from vaestro.cli import main
from vaestro.data.tables import frame_of, write_frame

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="names are bytes on Linux only")
BYTE = os.fsdecode(b"\xff")
OPTIONS = "--latent 2 --network mlp:width=4 --steps 2 --device cpu --compile off --quiet"
TRAIN = ["train", *OPTIONS.split()]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VAESTRO_CACHE", str(tmp_path / f"cache{BYTE}"))


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".feather", ".json", ".jsonl"])
def test_tables_are_written_and_read(suffix: str) -> None:
    path = Path(f"t{BYTE}{suffix}")
    write_frame(path, frame_of({"a": list(np.arange(40.0) / 7), "b": ["x", "y"] * 20}))
    data = vs.load(path)
    assert sum(len(rows) for rows in (data.train, data.valid, data.test)) == 40


def test_every_command_takes_such_names(capsys: pytest.CaptureFixture[str]) -> None:
    run, source = f"r{BYTE}", f"x{BYTE}.npy"
    np.save(source, np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32))
    assert main([*TRAIN, source, "--run", run]) == 0
    for command in (
        ["report", run],
        ["info", run],
        ["compare", run],
        ["encode", run, source, "-o", f"z{BYTE}.npz"],
        ["decode", run, f"z{BYTE}.npz", "-o", f"d{BYTE}.npy"],
        ["sample", run, "-n", "2", "-o", f"s{BYTE}.parquet"],
        ["train", "--resume", run, "--steps", "3"],
    ):
        assert main(command) == 0, (command, capsys.readouterr().err)
    said = capsys.readouterr().out
    said.encode()  # escaped
    assert "r\\udcff" in said


def test_names_of_images_are_escaped_in_tables_and_kept_in_folders() -> None:
    r, folder = np.random.default_rng(0), Path(f"im{BYTE}")
    folder.mkdir()
    for i in range(40):
        Image.fromarray(r.integers(0, 256, (4, 4), dtype=np.uint8)).save(folder / f"{i}{BYTE}.png")
    assert main([*TRAIN, str(folder), "--run", "r"]) == 0
    assert main(["encode", "r", str(folder), "-o", "z.csv", "--quiet"]) == 0
    with open("z.csv", encoding="utf-8") as file:
        assert {row["file"] for row in csv.DictReader(file)} == {
            f"{i}\\udcff.png" for i in range(40)
        }
    assert main(["reconstruct", "r", str(folder), "-o", f"out{BYTE}/", "--quiet"]) == 0
    assert sorted(os.listdir(f"out{BYTE}")) == sorted(os.listdir(folder))
