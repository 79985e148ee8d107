"""Rows that belong together are in one split, which `groups=` names."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import vaestro as vs
from vaestro.cli import main

VISITS = 4  # rows of a patient


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAESTRO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def visits(patients: int = 40) -> pd.DataFrame:
    r = np.random.default_rng(0)
    who = np.repeat([f"patient {i}" for i in range(patients)], VISITS)
    rows = pd.DataFrame({"who": who, "age": r.normal(50, 9, len(who)).round(1)})
    rows["weight"] = rows["age"] + r.normal(size=len(rows))
    return rows.sample(frac=1, random_state=1)


def check_apart(data: vs.Data, name: str) -> None:
    """Check that no group is in two splits, and that all rows of it are there."""
    groups = [set(rows.attributes[name].tolist()) for rows in (data.train, data.valid, data.test)]
    assert all(groups) and len(set.union(*groups)) == sum(map(len, groups))


def test_rows_of_a_patient_are_in_one_split_and_the_column_is_not_modelled(capsys):
    visits().to_csv("v.csv", index=False)
    data = vs.load("v.csv", groups="who")
    assert data.space.names == ("age", "weight")
    check_apart(data, "who")
    assert len(data.train) + len(data.valid) + len(data.test) == 160 and len(data.test) % 4 == 0
    assert any("split by seed 0 by who: the rows of one who" in note for note in data.notes)
    assert np.array_equal(
        vs.load(visits(), groups="who", seed=0).test.outward().columns["age"],
        data.test.outward().columns["age"],
    )
    assert main(["train", "v.csv:groups=who", "--steps", "2", "--run", "r"]) == 0
    # the same rows again, with the column in the output of a command that fills a table
    rows = visits()
    rows.loc[rows.index[::5], "weight"] = None
    rows.to_csv("v.csv", index=False)
    assert main(["impute", "r", "v.csv:groups=who", "-o", "f.csv", "--split", "test"]) == 0
    filled = pd.read_csv("f.csv")
    assert set(filled["who"]) == set(data.test.attributes["who"]) and list(filled) == list(rows)
    assert main(["encode", "r", "v.csv", "-o", "z.npy"]) == 0 and len(np.load("z.npy")) == 160


def test_groups_are_attributes_of_arrays_too():
    who = np.repeat(np.arange(30), 3)
    x = np.random.default_rng(0).normal(size=(90, 2))
    np.savez("x.npz", x=x, y=who, w=np.eye(3), o=np.array([{}]))
    data = vs.load("x.npz:groups=y")
    check_apart(data, "y")
    assert "left out the arrays w, o" in data.notes
    np.save("x.npy", x)
    with pytest.raises(ValueError, match=r"x\.npy has no columns or attributes: leave groups= out"):
        vs.load("x.npy", groups="y")


def test_pages_of_a_file_are_in_one_split():
    tifffile = pytest.importorskip("tifffile")
    Path("p").mkdir()
    r = np.random.default_rng(0)
    for i in range(20):
        tifffile.imwrite(
            f"p/{i:02}.tif", r.integers(0, 255, (4, 8, 8), dtype="uint8"), photometric="minisblack"
        )
    data = vs.load("p:pages=all")
    assert len(data.train) + len(data.valid) + len(data.test) == 80
    check_apart(data, "file")


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, "groups=whom", "expected groups= to name a column .*: 'who' .*; got 'whom'"),
        ({"who": None}, "groups=who", r"160 rows of v.csv have no who \(the first is row 1\)"),
        ({"who": "a"}, "groups=who", "v.csv has 1 different who, but 3 splits"),
        ({"part": "train"}, "groups=who,valid=0,test=0", None),
        (
            {"part": np.repeat(["train", "valid", "test", "test"], 40)},
            "groups=who,split=part",
            "v.csv has its own splits: leave out groups=who",
        ),
    ],
)
def test_groups_that_cannot_be_are_refused(capsys, change, options, message):
    visits().assign(**change).to_csv("v.csv", index=False)
    code = main(["train", f"v.csv:{options}", "--dry-run"])
    error = capsys.readouterr().err
    assert (code, bool(error)) == ((2, True) if message else (0, False))
    assert message is None or re.search(message, error)


def test_images_of_a_person_are_in_one_split():
    Path("faces").mkdir()
    r = np.random.default_rng(0)
    names = [f"{person}-{i}.png" for person in range(12) for i in range(3)]
    for name in names:
        Image.fromarray(r.integers(0, 255, (8, 8), dtype="uint8")).save(f"faces/{name}")
    table = {"file": names, "person": [name.partition("-")[0] for name in names]}
    pd.DataFrame(table).to_csv("people.csv", index=False)
    check_apart(vs.load("faces:attributes=people.csv,groups=person"), "person")
