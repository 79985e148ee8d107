"""Make the two old run folders that tests/test_old_runs.py opens, and record what they give.

    FOLDER/table/     data.csv, run/ (stopped at step 41 of 60), expected.npz
    FOLDER/images/    data.npy, run/ (finished, evaluated and diagnosed), expected.npz

The folders in tests/old_runs were made by commit 3916c06 and stay as they are: they stand for the
runs that users already have. To make such folders with the vaestro on the path, from the root of
the repository:

    OMP_NUM_THREADS=1 PYTHONPATH=src python -m tests.old_runs.make FOLDER

Two calls give the same files, except for clock times and the versions in environment.json.
`expected.npz` contains what `results` returns (every command, on the stored weights) and what
`resumed` returns (metrics and weights after resuming). The tests call the same two functions.

Runs contain absolute paths. In stored folders the text PLACE replaces the path of the folder;
`copied` copies a stored folder and puts the new path in.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from vaestro.cli import main

Arrays = dict[str, np.ndarray]
PLACE = "/PLACE-OF-THE-OLD-RUN"
NAMES = ("table", "images")
STOP = 41
STEPS = {"table": 60, "images": 45}  # the length of the resumed run
TRAIN = {
    "table": [
        *("--condition", "region", "--network", "mlp:width=12", "--latent", "3", "--batch", "16"),
        *("--steps", "60", "--beta", "warmup:share=0.75", "--free-bits", "0.1", "--seed", "3"),
        *("--lr", "0.01"),
    ],
    "images": [
        *("--network", "conv:width=4", "--latent", "2", "--batch", "16", "--steps", "30"),
        *(
            "--likelihood",
            "logistic",
            "--posterior",
            "iaf:width=8",
            "--compile",
            "trace",
            "--lr",
            "0.01",
        ),
    ],
}
CLOCKS = ("seconds", "examples_per_second")


def make(folder: Path) -> None:
    """Write both folders into `folder`, which may not contain them yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        with tempfile.TemporaryDirectory() as scratch:
            place = Path(scratch).resolve() / name
            place.mkdir()
            write_data(name, place)
            options = [*TRAIN[name], "--device", "cpu", "--run", str(place / "run")]
            if name == "table":
                train_and_stop(str(source(place)), options)
            else:
                call("train", source(place), *options)
                call("evaluate", place / "run", "--k", "8")
                call("diagnose", place / "run")
            replaced(place, str(place), PLACE)
            trial = copied(place, Path(scratch) / "copy")
            found = results(trial)
            found |= resumed(trial, STEPS[name])
            np.savez_compressed(place / "expected.npz", **found)
            shutil.copytree(place, folder / name)


def source(place: Path) -> Path:
    """Return the data file of a folder."""
    return next(p for p in place.iterdir() if p.stem == "data")


def write_data(name: str, place: Path) -> None:
    """Write data.csv (220 rows, every kind of column, gaps) or data.npy (160, 8, 8)."""
    r = np.random.default_rng(0)
    if name == "images":
        y, x = np.mgrid[0:8, 0:8]
        at = r.uniform(1, 6, (160, 2, 1, 1))
        blobs = 12 * np.exp(-((y - at[:, 0]) ** 2 + (x - at[:, 1]) ** 2) / 4)
        noisy = blobs + r.normal(2, 0.8, blobs.shape)
        np.save(place / "data.npy", np.clip(np.rint(noisy), 0, 15).astype(np.uint8))
        return
    lines = ["income,height,visits,member,city,since,region"]
    for _ in range(220):
        kind = int(r.integers(3))
        day = np.datetime64("2020-01-01") + int(r.integers(400)) + 300 * kind
        cells = [
            f"{r.normal(20 + 10 * kind, 4):.5f}",
            f"{r.normal(170, 9):.1f}",
            str(r.poisson(1 + 3 * kind)),
            str(bool(r.random() < 0.2 + 0.3 * kind)).lower(),
            ("Oslo", "Paris", "Rome")[kind if r.random() < 0.8 else int(r.integers(3))],
            str(day),
        ]
        cells = [cell if r.random() > 0.08 else "" for cell in cells]
        lines.append(",".join([*cells, ("north", "south")[int(r.integers(2))]]))
    (place / "data.csv").write_text("\n".join(lines) + "\n")


def train_and_stop(data: str, options: list[str]) -> None:
    """Train with the command, and interrupt it as Ctrl-C does after step STOP.

    The class that iterates over a run's steps is no public name. It is imported here alone, so that
    the tests do not depend on it.
    """
    from vaestro.runs import Job

    proceed = Job.__next__

    def interrupted(job):
        step = proceed(job)
        if step.index == STOP:
            os.kill(os.getpid(), signal.SIGINT)
        return step

    Job.__next__ = interrupted
    try:
        with suppress(KeyboardInterrupt):
            code = main(["train", data, *options, "--quiet"])
            assert code == 130, f"expected an interrupted run; got exit code {code}"
    finally:
        Job.__next__ = proceed


def copied(stored: Path, to: Path) -> Path:
    """Copy a stored folder, with the paths in its files set to the copy; returns the copy."""
    shutil.copytree(stored, to)
    replaced(to, PLACE, str(to.resolve()))
    return to.resolve()


def replaced(place: Path, old: str, new: str) -> None:
    """Replace a text in the YAML and JSON files of a run."""
    for file in (place / "run").iterdir():
        if file.suffix in (".yaml", ".json"):
            file.write_text(file.read_text().replace(old, new))


def call(*arguments: object) -> None:
    """Run a command, which must succeed."""
    code = main([*map(str, arguments), "--quiet"])
    assert code == 0, f"vaestro {' '.join(map(str, arguments))} exited with {code}"


def results(place: Path) -> Arrays:
    """Return what the commands write for the run in a folder, by name of result."""
    run, data, out = place / "run", source(place), place / "out"
    out.mkdir()
    table = data.suffix == ".csv"
    kind = ".csv" if table else ".npz"
    given = ["--condition", "region=south"] if table else []
    call("evaluate", run, "--k", 8)
    call("encode", run, data, "-o", out / "encode.npz", "--sample", 2, "--split", "valid")
    np.save(place / "codes.npy", arrays(out / "encode.npz")["mean"])
    call("decode", run, place / "codes.npy", "-o", out / f"decode{kind}", *given)
    call("sample", run, "--draws", "-n", 8, "-o", out / f"sample{kind}", *given)
    call("sample", run, "-n", 8, "--mean", "--dtype", "float", "-o", out / f"means{kind}", *given)
    call("reconstruct", run, data, "-n", 8, "--dtype", "float", "-o", out / f"reconstruct{kind}")
    call("interpolate", run, data, 0, 5, "--steps", 5, "-o", out / f"interpolate{kind}")
    if table:
        call("impute", run, data, "--split", "test", "-o", out / "impute.csv", "--k", 20)
    call("diagnose", run)
    found = {f"evaluate/{k}": v for k, v in arrays(run / "evaluation.npz").items()}
    found |= {f"diagnose/{k}": v for k, v in arrays(run / "diagnosis.npz").items()}
    diagnosis = json.loads((run / "diagnosis.json").read_text())
    found["diagnose/verdict"] = np.array([diagnosis["verdict"]])
    found["diagnose/findings"] = np.array(
        [f"{one['severity']}: {one['name']}" for one in diagnosis["findings"]]
    )
    for file in sorted(out.iterdir()):
        found |= {f"{file.stem}/{k}": v for k, v in arrays(file).items()}
    return found


def resumed(place: Path, steps: int) -> Arrays:
    """Resume the run in a folder to so many steps; returns its metrics and its kept weights."""
    call("train", "--resume", place / "run", "--steps", steps)
    return metrics(place / "run") | weights(place / "run")


def metrics(run: Path) -> Arrays:
    """Return the columns of metrics.jsonl, except for clock times; NaN where there is no number."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found = {}
    for name in sorted(set().union(*lines) - set(CLOCKS)):
        cells = [line.get(name) for line in lines]
        found[f"metrics/{name}"] = np.array([np.nan if cell is None else cell for cell in cells])
    return found


def weights(run: Path) -> Arrays:
    """Return the tensors of model.safetensors."""
    return {f"weights/{k}": v for k, v in load_file(run / "model.safetensors").items()}


def arrays(file: Path) -> Arrays:
    """Read an .npz file, or the columns of a .csv file as numbers where all cells are."""
    if file.suffix == ".npz":
        with np.load(file) as opened:
            return dict(opened)
    with file.open(newline="") as opened:
        header, *rows = csv.reader(opened)
    found = {}
    for name, cells in zip(header, zip(*rows, strict=True), strict=True):
        found[name] = np.array(cells)
        with suppress(ValueError):
            found[name] = found[name].astype(float)
    return found


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("expected a folder to write `table` and `images` into")
    make(Path(sys.argv[1]))
