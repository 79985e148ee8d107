"""Cells of text that a spreadsheet would run: written with an apostrophe, and read without it."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

import vaestro as vs
from vaestro.cli import main
from vaestro.data.tables import frame_of, write_frame

RUN = ["=1+1", "+49 170", "-x", "@SUM(A1)", "\tx", "\rx", "-1+2", "=", "'=x", "''-x"]
HARMLESS = ["-5", "+1.5", "-1,5 %", "-", "+", "-2e-3", "x=1", "'x", "it's", ""]


def cells(path: Path, delimiter: str = ",") -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file, delimiter=delimiter))


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_text_that_runs_gets_an_apostrophe_and_other_text_none(tmp_path: Path, suffix: str) -> None:
    path, words = tmp_path / f"t{suffix}", [*RUN, *HARMLESS]
    frame = frame_of({"=word": words, "number": list(-np.arange(len(words)) - 0.5)})
    assert write_frame(path, frame) == len(RUN) + 1
    names, *rows = cells(path, "\t" if suffix == ".tsv" else ",")
    assert names == ["'=word", "number"]
    assert [row[0] for row in rows] == [f"'{w}" for w in RUN] + HARMLESS
    assert [float(row[1]) for row in rows] == [-i - 0.5 for i in range(len(words))]
    assert write_frame(path, frame, raw=True) == 0
    assert [row[0] for row in cells(path, "\t" if suffix == ".tsv" else ",")] == ["=word", *words]


def test_a_format_of_numbers_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("w\n" + "".join(f"{i - 20}.5 kg\n" for i in range(40)))
    data = vs.load(tmp_path / "t.csv")
    assert write_frame(tmp_path / "o.csv", data.train.outward()) == 0
    assert any(row[0].startswith("-") for row in cells(tmp_path / "o.csv"))


def test_samples_are_read_back_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VAESTRO_CACHE", str(tmp_path / "cache"))
    words = ["=1+1", "-x", "'=x", "plain"]
    rows = [f'{i},"{words[i % 4]}"' for i in range(80)]
    Path("t.csv").write_text("\n".join(["@n,word", *rows]) + "\n")
    options = {"latent": 2, "network": "mlp:width=4", "device": "cpu", "compile": "off"}
    run = vs.train("t.csv", run="r", steps=2, **options)
    assert main(["sample", "r", "-n", "40", "-o", "s.csv"]) == 0
    said = capsys.readouterr().out
    assert "so that a spreadsheet does not run the text (--raw leaves it out)" in said
    assert {row[1] for row in cells(Path("s.csv"))[1:]} == {"'=1+1", "'-x", "''=x", "plain"}
    data = vs.load("s.csv")
    assert any("removed the apostrophe before the = + - or @ of" in n for n in data.notes)
    both = [r.outward().columns for r in (data.train, data.valid, data.test)]
    assert list(both[0]) == ["@n", "word"]
    assert {w for c in both for w in c["word"].tolist()} == set(words)
    assert run.encode("s.csv").keys() == {"mean", "logvar"}  # knows every category
    assert main(["sample", "r", "-n", "40", "-o", "raw.csv", "--raw"]) == 0
    assert "spreadsheet" not in capsys.readouterr().out
    assert {row[1] for row in cells(Path("raw.csv"))[1:]} == set(words)


def test_apostrophes_of_other_files_stay(tmp_path: Path) -> None:
    # a writer that adds apostrophes leaves no cell without one
    words = ["'-dash", "-dash", "it's", "plain"]
    rows = "".join(f"{i},{words[i % 4]}\n" for i in range(80))
    (tmp_path / "t.csv").write_text("n,word\n" + rows)
    data = vs.load(tmp_path / "t.csv")
    assert set(data.train.outward().columns["word"].tolist()) == set(words)
    assert not any("apostrophe" in note for note in data.notes)
