"""Compare the default model of a table with TVAE (ctgan): quality of drawn rows, and time.

    python bench/beside/tables.py adult.csv=income diamonds.csv=price

Each argument is a table and the column to predict. A fifth of the rows is held out. Both models
train on the other rows with each seed, and draw as many rows. One line per table and model has the
means over seeds of the shapes of columns, the trends of pairs and the utility
(`vaestro.evaluation.samples`), and the processor time of training and drawing. The line `real` has
the utility of the training rows themselves. ctgan is installed into an environment of its own.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from peers import python_with

import vaestro as vs
from vaestro.data import tables
from vaestro.evaluation.prediction import utility
from vaestro.evaluation.samples import Columns, fidelity
from vaestro.frames import Frame

PEER = """
import sys, numpy as np, pandas as pd, torch
from ctgan import TVAE
source, target, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
torch.manual_seed(seed); np.random.seed(seed)
rows = pd.read_csv(source).dropna()
coded = [c for c in rows if rows[c].dtype.kind not in "if" or rows[c].nunique() <= 10]
model = TVAE()
model.fit(rows, coded)
model.sample(len(rows)).to_csv(target, index=False)
"""


def columns(path: Path) -> Columns:
    """Return the columns of a .csv file as they are read."""
    data = vs.load(str(path), valid=2, test=2, marginals="plain")
    frames = [rows.outward() for rows in (data.train, data.valid, data.test)]
    return Frame.concatenated([f for f in frames if isinstance(f, Frame)]).columns


def seconds(command: list[str]) -> float:
    """Run a command, and return its processor time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def compared(source: Path, target: str, seeds: int, peer: Path, place: Path) -> None:
    """Print the lines of one table."""
    whole = columns(source)
    rows = np.random.default_rng(0).permutation(len(whole[target]))
    held, used = np.split(rows, [len(rows) // 5])
    train, test = ({n: c[part] for n, c in whole.items()} for part in (used, held))
    given = place / "train.csv"
    tables.write_frame(given, Frame(train))
    print(f"{source.name:20} {'real':8} {1:7.3f} {1:7.3f} {utility(train, test, target):8.3f}")
    ours = [sys.executable, "-m", "vaestro"]
    for model in ("vaestro", "tvae"):
        scores = []
        for seed in range(seeds):
            out = place / f"{model}.csv"
            if model == "tvae":
                spent = seconds([str(peer), "-c", PEER, str(given), str(out), str(seed)])
            else:
                run = str(place / f"run{seed}")
                spent = seconds([*ours, "train", str(given), "--run", run, "--seed", str(seed)])
                draw = ["sample", run, "-n", str(len(used)), "-o", str(out), "--force"]
                spent += seconds([*ours, *draw])
            drawn = columns(out)
            close = fidelity(train, drawn)
            scores.append((close.shape, close.pair, utility(drawn, test, target), spent))
        shape, pair, use, spent = np.mean(scores, 0)
        print(f"{source.name:20} {model:8} {shape:7.3f} {pair:7.3f} {use:8.3f} {spent:7.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="+", metavar="FILE=TARGET")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--venv", type=Path, default=None, help="environment of the peer")
    options = parser.parse_args()
    peer = python_with("ctgan", options.venv)
    print(f"{'table':20} {'rows':8} {'shapes':>7} {'pairs':>7} {'utility':>8}    time")
    for table in options.tables:
        source, _, target = table.rpartition("=")
        with tempfile.TemporaryDirectory() as place:
            compared(Path(source), target, options.seeds, peer, Path(place))


if __name__ == "__main__":
    main()
